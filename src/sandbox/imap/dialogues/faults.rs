//! What a test has the provider do wrong or leave out, and what the provider remembers of the client.
//!
//! Not here: the same for sending (`sandbox::tests`).

use super::{SELECT, World, ann, check_fault, check_in, drain, provider};
use crate::sandbox::{
    behaviour::{Act, Behaviour, Extensions, Service, Trigger},
    imap::session::{Security, Session},
};

#[test]
fn what_is_switched_off_is_not_understood() {
    let extensions = Extensions {
        condstore: false,
        qresync: false,
        idle: false,
        special_use: false,
        uidplus: false,
        r#move: false,
        literal_plus: false,
    };
    check_in(
        World { behaviour: Behaviour { extensions, ..Behaviour::default() }, ..World::default() },
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] Mailweave sandbox ready
        C: 1 LOGIN ann secret
        S: 1 OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE UNSELECT NAMESPACE CHILDREN] logged in
        C: 2 SELECT INBOX (CONDSTORE)
        S: 2 BAD CONDSTORE is not offered
        C: 3 IDLE
        S: 3 BAD select a mailbox first
        C: 4 APPEND Sent {4}
        S: + go on
        C: body
        S: 4 OK appended
        C: 5 ENABLE CONDSTORE
        S: * ENABLED
        S: 5 OK done",
    );
}

#[test]
fn an_armed_answer_replaces_the_command() {
    check_fault(
        |provider| {
            let trigger = Trigger::nth(Service::Imap, "SELECT", 1);
            provider.arm(trigger, Act::Answer("NO [INUSE] come back later".into()));
        },
        &format!(
            "
        C: 1 SELECT INBOX
        S: 1 NO [INUSE] come back later
        {SELECT}"
        ),
    );
}

#[test]
fn an_armed_drop_may_come_in_the_middle_of_an_answer() {
    check_fault(
        |provider| provider.arm(Trigger::next(Service::Imap, "CAPABILITY"), Act::DropAfter(10)),
        "C: 1 CAPABILITY
        S: * CAPABILI(closed)",
    );
    check_fault(
        |provider| provider.arm(Trigger::next(Service::Imap, "IDLE").of(&ann()), Act::DropAfter(10)),
        &format!(
            "{SELECT}
        C: 1 IDLE
        S: + idling
        S: (closed)"
        ),
    );
    check_fault(
        |provider| provider.arm(Trigger::next(Service::Imap, "NOOP"), Act::Drop),
        "C: 1 NOOP
        S: (closed)",
    );
    check_fault(
        |provider| {
            provider.arm(Trigger::next(Service::Imap, "NOOP"), Act::Bye("[UNAVAILABLE] too busy".into()))
        },
        "C: 1 NOOP
        S: * BYE [UNAVAILABLE] too busy
        S: (closed)",
    );
}

#[test]
fn armed_bytes_and_pauses_come_before_the_answer() {
    check_fault(
        |provider| {
            provider.arm(Trigger::next(Service::Imap, "NOOP"), Act::Inject(b"* 9 FROBNICATED\r\n".to_vec()));
            provider
                .arm(Trigger::nth(Service::Imap, "NOOP", 2), Act::Instead(b"{tag} OK [X] lies\r\n".to_vec()));
            provider
                .arm(Trigger::nth(Service::Imap, "NOOP", 3), Act::Delay(std::time::Duration::from_secs(5)));
            provider
                .arm(Trigger::next(Service::Imap, "CHECK"), Act::Linger(std::time::Duration::from_secs(7)));
            provider.arm(
                Trigger::next(Service::Imap, "APPEND-LITERAL"),
                Act::Answer("NO [OVERQUOTA] full".into()),
            );
        },
        "C: 1 NOOP
        S: * 9 FROBNICATED
        S: 1 OK done
        C: 2 NOOP
        S: 2 OK [X] lies
        C: 3 NOOP
        S: (hold 5s)
        S: 3 OK done
        C: 3b CHECK
        S: (hold 7s)
        S: 3b OK done
        C: 4 APPEND Sent {5}
        S: 4 NO [OVERQUOTA] full
        C: 5 NOOP
        S: 5 OK done",
    );
}

#[test]
fn the_ledger_tells_what_was_read_and_holds_no_password() {
    let provider = provider(Behaviour::default());
    let mut session = Session::new(&provider, Security::None);
    let mut said = Vec::new();
    session.receive(
        b"1 LOGIN ann@example.test secret\r\n2 SELECT INBOX\r\n3 UID FETCH 1:2 BODY.PEEK[HEADER]\r\n",
    );
    session.receive(b"4 UID FETCH 2 BODY.PEEK[]<0.100>\r\n5 AUTHENTICATE PLAIN c2VjcmV0\r\n");
    drain(&mut session, &mut said);
    assert_eq!(provider.contents_fetched(&ann(), "INBOX"), [2]);
    assert_eq!(provider.fetched().len(), 3);
    let heard: Vec<(String, String)> =
        provider.said().into_iter().map(|said| (said.verb, said.line)).collect();
    assert!(heard.contains(&("LOGIN".into(), "LOGIN ***".into())));
    assert!(heard.contains(&("UID FETCH".into(), "UID FETCH 2 BODY.PEEK[]<0.100>".into())));
    assert!(!heard.iter().any(|(_, line)| line.contains("secret") || line.contains("c2VjcmV0")));
}
