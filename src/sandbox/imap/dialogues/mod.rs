//! Dialogues of the IMAP session: `C:` the client, `S:` the server, `!` something that happens in the provider. Each is
//! also fed one byte at a time.
//!
//! Not here: sockets (`driver`), and the gateway's own client (`tests/imap_dialogues.rs`).

mod changes;
mod faults;
mod login;
mod mailboxes;
mod messages;
mod nonsense;

use jiff::Timestamp;

use super::session::{Security, Session, Step};
use crate::{
    mail::Address,
    sandbox::{behaviour::Behaviour, mailbox::FlagChange, provider::Provider, state::Limits},
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
