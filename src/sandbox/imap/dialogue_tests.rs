//! Dialogues of the IMAP session: `C:` the client, `S:` the server, `!` something that happens in the provider. Each is
//! also fed one byte at a time.

use jiff::Timestamp;

use super::session::{Security, Session, Step};
use crate::{
    mail::Address,
    sandbox::{
        behaviour::{Act, Behaviour, Extensions, MailboxNames, Service, Trigger},
        mailbox::FlagChange,
        provider::Provider,
        state::Limits,
    },
};

fn ann() -> Address {
    Address::parse("ann@example.test").unwrap()
}

/// Ann has two messages in INBOX; its UIDVALIDITY is 1700000001.
fn provider(behaviour: Behaviour) -> Provider {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let provider = Provider::new(&["example.test"], behaviour, limits);
    provider.add_user(&ann(), "secret").unwrap();
    happen(&provider, "deliver one");
    happen(&provider, "deliver two");
    provider
}

fn happen(provider: &Provider, what: &str) {
    let words: Vec<&str> = what.split(' ').collect();
    match words.as_slice() {
        ["deliver", subject] => {
            let raw =
                format!("Subject: {subject}\r\nMessage-ID: <{subject}@x.example>\r\n\r\nbody {subject}\r\n");
            provider.append_at(Timestamp::UNIX_EPOCH, (&ann(), "INBOX"), raw.as_bytes(), &[]).unwrap();
        }
        ["expunge", uid] => provider.expunge(&ann(), "INBOX", uid.parse().unwrap()).unwrap(),
        ["flag", uid, flag] => {
            provider.flag(&ann(), "INBOX", uid.parse().unwrap(), (FlagChange::Add, &[flag])).unwrap();
        }
        ["bump"] => drop(provider.bump_uid_validity(&ann(), "INBOX").unwrap()),
        ["kick"] => provider.kick(&ann()).unwrap(),
        ["token", token] => provider.set_token(&ann(), Some(token)).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy)]
struct World {
    behaviour: Behaviour,
    security: Security,
    arm: fn(&Provider),
}

impl Default for World {
    fn default() -> Self {
        Self { behaviour: Behaviour::default(), security: Security::None, arm: |_| {} }
    }
}

/// What the session says until it wants more, with its other steps in parentheses.
fn drain(session: &mut Session, said: &mut Vec<u8>) {
    loop {
        match session.step() {
            Step::Output(bytes) => said.extend(bytes),
            Step::Input => return,
            Step::Hold(pause) => said.extend(format!("(hold {pause:?})\r\n").bytes()),
            Step::StartTls => {
                said.extend(b"(starttls)\r\n");
                session.secured();
            }
            Step::Close => {
                if !said.ends_with(b"(closed)\r\n") {
                    said.extend(b"(closed)\r\n");
                }
                return;
            }
        }
    }
}

#[track_caller]
fn play(world: World, dialogue: &str, chunk: usize) {
    let provider = provider(world.behaviour);
    (world.arm)(&provider);
    let mut session = Session::new(&provider, world.security);
    let mut said = Vec::new();
    drain(&mut session, &mut said);
    let mut lines = dialogue.lines().map(str::trim_start).filter(|line| !line.is_empty()).peekable();
    loop {
        let mut expect = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("S:")) {
            let line = line.trim_start_matches("S:");
            expect.push_str(line.strip_prefix(' ').unwrap_or(line));
            expect.push_str("\r\n");
        }
        assert_eq!(String::from_utf8_lossy(&said), expect, "in chunks of {chunk}");
        said.clear();
        let mut bytes = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("C:")) {
            bytes.extend(line.trim_start_matches("C:").trim_start().bytes().chain(*b"\r\n"));
        }
        for bytes in bytes.chunks(chunk) {
            session.receive(bytes);
            drain(&mut session, &mut said);
        }
        while let Some(line) = lines.next_if(|line| line.starts_with('!')) {
            happen(&provider, line.trim_start_matches('!').trim());
            session.changed();
            drain(&mut session, &mut said);
        }
        if lines.peek().is_none() {
            assert_eq!(String::from_utf8_lossy(&said), "");
            return;
        }
    }
}

#[track_caller]
fn check_in(world: World, dialogue: &str) {
    play(world, dialogue, usize::MAX);
    play(world, dialogue, 1);
}

const GREETING: &str = "
    S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] Mailweave sandbox ready
";
const LOGIN: &str = "
    C: l LOGIN ann@example.test secret
    S: l OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ UNSELECT NAMESPACE CHILDREN IDLE UIDPLUS MOVE SPECIAL-USE CONDSTORE QRESYNC] logged in
";
const SELECT: &str = "
    C: s SELECT inbox
    S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
    S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] keywords may be created
    S: * 2 EXISTS
    S: * 0 RECENT
    S: * OK [UNSEEN 1] the first unseen message
    S: * OK [UIDVALIDITY 1700000001] UIDs valid
    S: * OK [UIDNEXT 3] predicted next UID
    S: * OK [HIGHESTMODSEQ 3] highest
    S: s OK [READ-WRITE] selected
";

#[track_caller]
fn check(dialogue: &str) {
    check_in(World::default(), &format!("{GREETING}{LOGIN}{dialogue}"));
}

#[track_caller]
fn check_selected(dialogue: &str) {
    check(&format!("{SELECT}{dialogue}"));
}

#[track_caller]
fn check_fault(arm: fn(&Provider), dialogue: &str) {
    check_in(World { arm, ..World::default() }, &format!("{GREETING}{LOGIN}{dialogue}"));
}

#[test]
fn nothing_is_shown_before_login_and_guessing_ends() {
    check_in(
        World::default(),
        &format!(
            "{GREETING}
            C: 1 SELECT INBOX
            S: 1 BAD log in first
            C: 2 LOGIN ann@example.test wrong
            S: 2 NO [AUTHENTICATIONFAILED] invalid credentials
            C: 3 LOGIN {{3}}
            S: + go on
            C: bob {{5}}
            S: + go on
            C: wrong
            S: 3 NO [AUTHENTICATIONFAILED] invalid credentials
            C: 4 AUTHENTICATE PLAIN AGFubgB3cm9uZw==
            S: * BYE too many failed logins
            S: 4 NO [AUTHENTICATIONFAILED] invalid credentials
            S: (closed)"
        ),
    );
}

#[test]
fn sasl_works_with_and_without_initial_response() {
    let done =
        LOGIN.lines().find(|line| line.contains("S:")).unwrap_or_default().replace("S: l OK", "S: a OK");
    for exchange in [
        "C: a AUTHENTICATE PLAIN AGFubkBleGFtcGxlLnRlc3QAc2VjcmV0",
        "C: a AUTHENTICATE PLAIN\nS: +\u{20}\nC: AGFubkBleGFtcGxlLnRlc3QAc2VjcmV0",
    ] {
        check_in(World::default(), &format!("{GREETING}\n{exchange}\n{done}"));
    }
}

#[test]
fn a_bad_token_is_explained_before_the_refusal() {
    check_in(
        World::default(),
        &format!(
            "{GREETING}
            C: a AUTHENTICATE XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHQwawEB
            S: + eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=
            C:
            S: a NO [AUTHENTICATIONFAILED] invalid credentials
            ! token t0k
            C: b NOOP
            S: b OK done
            C: c AUTHENTICATE XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHQwawEB
            {}",
            LOGIN.lines().find(|line| line.contains("S:")).unwrap_or_default().replace("S: l OK", "S: c OK")
        ),
    );
}

#[test]
fn starttls_forgets_what_was_sent_in_clear() {
    let world = World { security: Security::StartTls, ..World::default() };
    check_in(
        world,
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ STARTTLS LOGINDISABLED] Mailweave sandbox ready
        C: 1 LOGIN ann@example.test secret
        S: 1 NO [PRIVACYREQUIRED] passwords are taken only after STARTTLS
        C: 2 STARTTLS
        S: 2 OK begin TLS
        S: (starttls)
        C: 3 LOGIN ann@example.test secret
        S: 3 OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ UNSELECT NAMESPACE CHILDREN IDLE UIDPLUS MOVE SPECIAL-USE CONDSTORE QRESYNC] logged in",
    );
    let provider = provider(Behaviour::default());
    let mut session = Session::new(&provider, Security::StartTls);
    let mut said = Vec::new();
    session.receive(b"1 STARTTLS\r\n2 NOOP\r\n");
    drain(&mut session, &mut said);
    assert!(!String::from_utf8_lossy(&said).contains("2 OK"));
}

#[test]
fn mailboxes_are_listed_with_their_use() {
    check(
        "C: 1 LIST \"\" \"\"
        S: * LIST (\\Noselect) \"/\" \"\"
        S: 1 OK done
        C: 2 LIST \"\" *
        S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: * LIST (\\HasNoChildren \\Drafts) \"/\" \"Drafts\"
        S: * LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"
        S: * LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"
        S: * LIST (\\HasNoChildren \\Archive) \"/\" \"Archive\"
        S: 2 OK done
        C: 3 CREATE Deals/2026
        S: 3 OK done
        C: 4 CREATE Deals
        S: 4 OK done
        C: 5 LIST \"\" Deals%
        S: * LIST (\\HasChildren) \"/\" \"Deals\"
        S: 5 OK done
        C: 6 UNSUBSCRIBE Deals
        S: 6 OK done
        C: 7 LSUB \"\" Deals*
        S: * LSUB (\\HasNoChildren) \"/\" \"Deals/2026\"
        S: 7 OK done
        C: 8 LIST (SPECIAL-USE) \"\" \"S*\"
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: 8 OK done
        C: 9 LIST \"\" \"Sent\" RETURN (SPECIAL-USE)
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: 9 OK done
        C: 10 CREATE Sent
        S: 10 NO [ALREADYEXISTS] that mailbox exists
        C: 11 DELETE INBOX
        S: 11 NO [CANNOT] that mailbox stays
        C: 12 RENAME Deals Offers
        S: 12 OK done
        C: 13 STATUS Offers (MESSAGES UIDNEXT UNSEEN)
        S: * STATUS \"Offers\" (MESSAGES 0 UIDNEXT 1 UNSEEN 0)
        S: 13 OK done",
    );
}

#[test]
fn a_provider_of_another_language_without_special_use_only_has_names() {
    let extensions = Extensions { special_use: false, ..Extensions::default() };
    let behaviour = Behaviour { extensions, mailbox_names: MailboxNames::German, ..Behaviour::default() };
    check_in(
        World { behaviour, ..World::default() },
        &format!(
            "{GREETING}{LOGIN}
        C: 1 LIST \"\" Ge*
        S: * LIST (\\HasNoChildren) \"/\" \"Gesendete Elemente\"
        S: * LIST (\\HasNoChildren) \"/\" \"Gel&APY-schte Elemente\"
        S: 1 OK done"
        )
        .replace(" SPECIAL-USE", ""),
    );
}

#[test]
fn messages_are_fetched_by_uid() {
    check_selected(
        "C: 1 UID FETCH 2:* (UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ)
        S: * 2 FETCH (UID 2 FLAGS () INTERNALDATE \"01-Jan-1970 00:00:00 +0000\" RFC822.SIZE 55 MODSEQ (3))
        S: 1 OK fetched
        C: 2 UID FETCH 1 BODY.PEEK[HEADER.FIELDS (Message-ID)]
        S: * 1 FETCH (UID 1 BODY[HEADER.FIELDS (MESSAGE-ID)] {31}
        S: Message-ID: <one@x.example>
        S: 
        S: )
        S: 2 OK fetched
        C: 3 FETCH 1 BODY.PEEK[]<9.10>
        S: * 1 FETCH (BODY[]<9> {10}
        S: one
        S: Messa)
        S: 3 OK fetched
        C: 4 FETCH 1 (FLAGS BODY[TEXT])
        S: * 1 FETCH (FLAGS (\\Seen) BODY[TEXT] {10}
        S: body one
        S: )
        S: * 1 FETCH (FLAGS (\\Seen) MODSEQ (4))
        S: 4 OK fetched
        C: 5 FETCH 7 FLAGS
        S: 5 OK fetched
        C: 6 UID FETCH 1:* FLAGS (CHANGEDSINCE 3)
        S: * 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (4))
        S: 6 OK fetched
        C: 7 FETCH 2 ENVELOPE
        S: * 2 FETCH (ENVELOPE (NIL \"two\" NIL NIL NIL NIL NIL NIL NIL \"<two@x.example>\"))
        S: 7 OK fetched
        C: 8 FETCH 2 BODYSTRUCTURE
        S: * 2 FETCH (BODYSTRUCTURE (\"text\" \"plain\" NIL NIL NIL \"7bit\" 10 1 NIL NIL))
        S: 8 OK fetched",
    );
}

#[test]
fn searches_find_by_message_id_date_flag_and_uid() {
    check_selected(
        "C: 1 UID SEARCH HEADER Message-ID <TWO@x.example>
        S: * SEARCH 2
        S: 1 OK searched
        C: 2 SEARCH SINCE 1-Jan-1970 BEFORE 2-Jan-1970
        S: * SEARCH 1 2
        S: 2 OK searched
        C: 3 SEARCH SINCE 2-Jan-1970
        S: * SEARCH
        S: 3 OK searched
        C: 4 UID SEARCH UID 2:* UNSEEN NOT SUBJECT one
        S: * SEARCH 2
        S: 4 OK searched
        C: 5 UID SEARCH OR BODY {8}
        S: + go on
        C: body one TEXT nothing
        S: * SEARCH 1
        S: 5 OK searched
        C: 6 SEARCH MODSEQ 3
        S: * SEARCH 2 (MODSEQ 3)
        S: 6 OK searched",
    );
}

#[test]
fn expunges_wait_while_sequence_numbers_are_in_use() {
    check_selected(
        "! expunge 1
        C: 1 FETCH 1:2 FLAGS
        S: * 2 FETCH (FLAGS ())
        S: 1 OK fetched
        C: 2 NOOP
        S: * 1 EXPUNGE
        S: 2 OK done
        C: 3 FETCH 1 UID
        S: * 1 FETCH (UID 2)
        S: 3 OK fetched",
    );
}

#[test]
fn deleted_messages_go_when_expunged() {
    check_selected(
        "C: 1 STORE 1:2 +FLAGS.SILENT (\\Deleted)
        S: 1 OK stored
        C: 2 UID EXPUNGE 2
        S: * 2 EXPUNGE
        S: 2 OK expunged
        C: 3 STORE 1 FLAGS (\\Seen \\Deleted $Work)
        S: * 1 FETCH (FLAGS (\\Seen \\Deleted $Work))
        S: 3 OK stored
        C: 4 EXPUNGE
        S: * 1 EXPUNGE
        S: 4 OK expunged
        C: 5 UNSELECT
        S: 5 OK closed
        C: 6 EXPUNGE
        S: 6 BAD select a mailbox first",
    );
}

#[test]
fn a_conditional_store_leaves_alone_what_changed() {
    check_selected(
        "! flag 1 \\Flagged
        C: 1 UID STORE 1:2 (UNCHANGEDSINCE 3) +FLAGS (\\Seen)
        S: * 1 FETCH (FLAGS (\\Flagged) MODSEQ (4))
        S: * 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (5))
        S: 1 OK [MODIFIED 1] some had changed",
    );
}

#[test]
fn copies_and_moves_name_their_uids() {
    check_selected(
        "C: 1 UID COPY 1:2 Archive
        S: 1 OK [COPYUID 1700000006 1:2 1:2] copied
        C: 2 MOVE 2 Archive
        S: * OK [COPYUID 1700000006 2 3] moved
        S: * 2 EXPUNGE
        S: 2 OK moved
        C: 3 UID COPY 1 Nowhere
        S: 3 NO [TRYCREATE] no such mailbox",
    );
}

#[test]
fn an_append_takes_both_kinds_of_literal_and_names_the_uid() {
    check(
        "C: 1 APPEND Sent (\\Seen) \"05-Jan-2026 10:00:00 +0100\" {14}
        S: + go on
        C: Subject: s
        C: b
        S: 1 OK [APPENDUID 1700000002 1] appended
        C: 2 APPEND Sent {14+}
        C: Subject: s
        C: b
        S: 2 OK [APPENDUID 1700000002 2] appended
        C: 3 APPEND Nowhere {4+}
        C: body
        S: 3 NO [TRYCREATE] no such mailbox
        C: 4 APPEND Sent {1001}
        S: 4 NO [TOOBIG] that is larger than this server takes
        C: 5 EXAMINE Sent
        S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
        S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] keywords may be created
        S: * 2 EXISTS
        S: * 0 RECENT
        S: * OK [UNSEEN 2] the first unseen message
        S: * OK [UIDVALIDITY 1700000002] UIDs valid
        S: * OK [UIDNEXT 3] predicted next UID
        S: * OK [HIGHESTMODSEQ 3] highest
        S: 5 OK [READ-ONLY] selected
        C: 6 FETCH 1 (FLAGS INTERNALDATE)
        S: * 1 FETCH (FLAGS (\\Seen) INTERNALDATE \"05-Jan-2026 09:00:00 +0000\")
        S: 6 OK fetched
        C: 7 STORE 1 +FLAGS (\\Deleted)
        S: 7 NO the mailbox is open for reading only",
    );
}

#[test]
fn an_idling_client_is_told_at_once() {
    check_selected(
        "C: 1 IDLE
        S: + idling
        ! deliver three
        S: * 3 EXISTS
        S: * 0 RECENT
        ! flag 3 \\Seen
        S: * 3 FETCH (FLAGS (\\Seen))
        ! expunge 1
        S: * 1 EXPUNGE
        C: DONE
        S: 1 OK idle ended
        ! deliver four
        C: 2 NOOP
        S: * 3 EXISTS
        S: * 0 RECENT
        S: 2 OK done",
    );
}

#[test]
fn a_resynchronising_client_hears_only_what_it_missed() {
    check(
        "C: 1 ENABLE QRESYNC X-UNKNOWN
        S: * ENABLED QRESYNC
        S: 1 OK done
        ! deliver three
        ! expunge 1
        ! flag 2 \\Seen
        C: 2 SELECT INBOX (QRESYNC (1700000001 3 1:2))
        S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
        S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] keywords may be created
        S: * 2 EXISTS
        S: * 0 RECENT
        S: * OK [UNSEEN 2] the first unseen message
        S: * OK [UIDVALIDITY 1700000001] UIDs valid
        S: * OK [UIDNEXT 4] predicted next UID
        S: * OK [HIGHESTMODSEQ 6] highest
        S: * VANISHED (EARLIER) 1
        S: * 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (6))
        S: 2 OK [READ-WRITE] selected
        C: 3 UID FETCH 1:* FLAGS (CHANGEDSINCE 3 VANISHED)
        S: * VANISHED (EARLIER) 1
        S: * 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (6))
        S: * 2 FETCH (UID 3 FLAGS () MODSEQ (4))
        S: 3 OK fetched
        ! expunge 3
        C: 4 NOOP
        S: * VANISHED 3
        S: 4 OK done",
    );
}

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
fn a_mailbox_with_a_new_life_ends_the_session() {
    check_selected(
        "! bump
        C: 1 NOOP
        S: * BYE [UNAVAILABLE] the selected mailbox is not what it was
        S: 1 OK done
        S: (closed)",
    );
}

#[test]
fn a_kicked_user_hears_good_bye() {
    check_selected(
        "! kick
        S: * BYE [UNAVAILABLE] the administrator ended this session
        S: (closed)",
    );
}

#[test]
fn nonsense_is_refused_and_the_session_goes_on() {
    check(
        "C: 1 FROB
        S: 1 BAD that cannot be read
        C:
        S: * BAD that cannot be read
        C: 2 SELECT
        S: 2 BAD that cannot be read
        C: 3 NOOP
        S: 3 OK done
        C: 4 LOGOUT
        S: * BYE good-bye
        S: 4 OK done
        S: (closed)",
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

#[test]
fn a_long_answer_comes_in_pieces() {
    let provider = Provider::new(&["example.test"], Behaviour::default(), Limits::default());
    provider.add_user(&ann(), "secret").unwrap();
    for _ in 0..50 {
        provider.deliver(&ann(), &vec![b'x'; 40_000]).unwrap();
    }
    let mut session = Session::new(&provider, Security::None);
    session.receive(b"1 LOGIN ann secret\r\n2 SELECT INBOX\r\n3 FETCH 1:* BODY.PEEK[]\r\n");
    let (mut total, mut largest) = (0, 0);
    while let Step::Output(bytes) = session.step() {
        total += bytes.len();
        largest = largest.max(bytes.len());
    }
    assert!(total > 2_000_000 && largest < 150_000, "{total} in pieces of up to {largest}");
}

#[test]
fn no_bytes_whatever_break_a_session() {
    const COMMANDS: &[u8] = b"1 LOGIN ann secret\r\n2 SELECT INBOX (QRESYNC (1700000001 1 1:*))\r\n\
        3 UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (A B)]<0.9> BODYSTRUCTURE ENVELOPE BODY[1.2.MIME])\r\n\
        4 UID SEARCH OR NOT 1:2 (SINCE 1-Jan-1970 HEADER \"x\" {1+}\r\ny)\r\n5 STORE 1:* -FLAGS.SILENT (\\Seen a)\r\n\
        6 APPEND Sent (\\Seen) {3+}\r\nabc\r\n7 LIST (SPECIAL-USE) \"\" \"%*\"\r\n8 UID MOVE 1:* Archive\r\n9 IDLE\r\nDONE\r\n";
    let mut random = 7_u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for _ in 0..2_000 {
        let mut bytes = COMMANDS.to_vec();
        for _ in 0..=draw(4) {
            let (at, byte) = (draw(bytes.len()), b"\0\r\n {}()\"*\\9\xff<>[]:,"[draw(19)]);
            match draw(3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    let end = (at + draw(20)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        let provider = provider(Behaviour::default());
        let mut session = Session::new(&provider, Security::None);
        let mut said = Vec::new();
        for chunk in bytes.chunks(1 + draw(50)) {
            session.receive(chunk);
            drain(&mut session, &mut said);
        }
        session.changed();
        drain(&mut session, &mut said);
        assert!(said.len() < 100_000);
    }
}
