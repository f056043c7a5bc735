//! X-GM-EXT-1, and the words of providers at their limits.
//!
//! Not here: what labels are (`sandbox::labels`) and how items are taken out of commands (`imap::google`).

use std::time::Duration;

use super::{GREETING, World, ann, check_in};
use crate::sandbox::{Allowance, Behaviour, Rate, provider::Provider};

const LOGIN: &str = "
    C: l LOGIN ann@example.test secret
    S: l OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ UNSELECT NAMESPACE CHILDREN IDLE UIDPLUS MOVE SPECIAL-USE CONDSTORE X-GM-EXT-1] logged in
";
/// Ann's INBOX with two messages, of UIDVALIDITY 1700000001.
const SELECT: &str = "
    C: s EXAMINE inbox
    S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
    S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] keywords may be created
    S: * 2 EXISTS
    S: * 0 RECENT
    S: * OK [UNSEEN 1] the first unseen message
    S: * OK [UIDVALIDITY 1700000001] UIDs valid
    S: * OK [UIDNEXT 3] predicted next UID
    S: * OK [HIGHESTMODSEQ 3] highest
    S: s OK [READ-ONLY] selected
";

#[track_caller]
fn check(arm: fn(&Provider), dialogue: &str) {
    let behaviour = Behaviour::google();
    check_in(World { behaviour, arm, ..World::default() }, &format!("{GREETING}{LOGIN}{dialogue}"));
}

#[test]
fn labels_are_mailboxes_below_one_that_cannot_be_selected() {
    check(
        |_| {},
        r#"
        C: 1 LIST "" "*"
        S: * LIST (\HasChildren \Noselect) "/" "[Gmail]"
        S: * LIST (\HasNoChildren) "/" "INBOX"
        S: * LIST (\HasNoChildren \All) "/" "[Gmail]/All Mail"
        S: * LIST (\HasNoChildren \Drafts) "/" "[Gmail]/Drafts"
        S: * LIST (\HasNoChildren \Sent) "/" "[Gmail]/Sent Mail"
        S: * LIST (\HasNoChildren \Junk) "/" "[Gmail]/Spam"
        S: * LIST (\HasNoChildren \Flagged) "/" "[Gmail]/Starred"
        S: * LIST (\HasNoChildren \Trash) "/" "[Gmail]/Trash"
        S: 1 OK done
        C: 2 SELECT "[Gmail]"
        S: 2 NO [NONEXISTENT] no such mailbox"#,
    );
}

#[test]
fn ids_and_labels_are_fetched_and_searched_for() {
    check(
        |provider| provider.label(&ann(), ("INBOX", 2), (crate::sandbox::FlagChange::Add, &["Big deals".into()])).unwrap(),
        &format!(
            "{}
            C: 1 FETCH 1:2 (UID X-GM-MSGID X-GM-THRID X-GM-LABELS)
            S: * 1 FETCH (UID 1 X-GM-MSGID 1278455344230334866 X-GM-THRID 1278455344230334866 X-GM-LABELS ())
            S: * 2 FETCH (UID 2 X-GM-MSGID 1278455344230334867 X-GM-THRID 1278455344230334867 X-GM-LABELS (\"Big deals\"))
            S: 1 OK fetched
            C: 2 UID SEARCH X-GM-MSGID 1278455344230334867
            S: * SEARCH 2
            S: 2 OK searched
            C: 3 SEARCH NOT X-GM-LABELS \"Big deals\"
            S: * SEARCH 1
            S: 3 OK searched
            C: 4 SEARCH X-GM-RAW \"subject:two in:inbox\"
            S: * SEARCH 2
            S: 4 OK searched
            C: 5 SEARCH OR X-GM-THRID 1 X-GM-RAW \"rfc822msgid:one@x.example\"
            S: * SEARCH 1
            S: 5 OK searched
            C: 6 STORE 1 +X-GM-LABELS (x)
            S: 6 NO the mailbox is open for reading only",
            SELECT.replace("HIGHESTMODSEQ 3", "HIGHESTMODSEQ 4")
        ),
    );
}

#[test]
fn labels_are_stored_and_what_is_archived_leaves_the_inbox() {
    let writable = SELECT.replace("EXAMINE", "SELECT").replace("READ-ONLY", "READ-WRITE");
    check(
        |_| {},
        &format!(
            r#"{writable}
            C: 1 UID STORE 1 +X-GM-LABELS.SILENT ("Big deals" \Starred)
            S: * 1 FETCH (FLAGS (\Flagged))
            S: 1 OK Success
            C: 2 UID STORE 1:2 -X-GM-LABELS (\Inbox)
            S: * 2 EXPUNGE
            S: * 1 EXPUNGE
            S: 2 OK Success
            C: 3 STATUS "Big deals" (MESSAGES)
            S: * STATUS "Big deals" (MESSAGES 1)
            S: 3 OK done
            C: 4 STATUS "[Gmail]/All Mail" (MESSAGES)
            S: * STATUS "[Gmail]/All Mail" (MESSAGES 2)
            S: 4 OK done"#
        ),
    );
}

#[test]
fn other_providers_know_nothing_of_it() {
    let plain = LOGIN.replace(" X-GM-EXT-1", " QRESYNC");
    check_in(
        World::default(),
        &format!(
            "{GREETING}{plain}{SELECT}
            C: 1 FETCH 1 (X-GM-MSGID)
            S: 1 BAD that cannot be read
            C: 2 SEARCH X-GM-MSGID 1
            S: 2 BAD that cannot be read"
        ),
    );
}

#[test]
fn too_many_sessions_and_too_much_read_are_refused_in_gmails_words() {
    let allowance = Allowance { connections: Some(0), ..Allowance::gmail() };
    check_in(
        World { behaviour: Behaviour { allowance, ..Behaviour::google() }, ..World::default() },
        &format!(
            "{GREETING}
            C: l LOGIN ann@example.test secret
            S: l NO [ALERT] Too many simultaneous connections. (Failure)"
        ),
    );
    let allowance =
        Allowance { download: Some(Rate::new(100, Duration::from_hours(24))), ..Allowance::gmail() };
    check_in(
        World { behaviour: Behaviour { allowance, ..Behaviour::google() }, ..World::default() },
        &format!(
            "{GREETING}{LOGIN}{SELECT}
            C: 1 UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (Subject)])
            S: * 1 FETCH (UID 1 BODY[HEADER.FIELDS (SUBJECT)] {{16}}
            S: Subject: one
            S:
            S: )
            S: 1 OK fetched
            C: 2 UID FETCH 1 (BODY.PEEK[TEXT])
            S: * 1 FETCH (UID 1 BODY[TEXT] {{10}}
            S: body one
            S: )
            S: * BYE [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)
            S: (closed)"
        ),
    );
}

#[test]
fn who_is_throttled_hears_so_and_may_leave() {
    let arm = |provider: &Provider| {
        provider.throttle(&ann(), jiff::Timestamp::MAX).unwrap();
    };
    check_in(
        World { behaviour: Behaviour::google(), arm, ..World::default() },
        &format!(
            "{GREETING}
            C: l LOGIN ann@example.test secret
            S: l NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)
            C: m LOGOUT
            S: * BYE good-bye
            S: m OK done
            S: (closed)"
        ),
    );
}
