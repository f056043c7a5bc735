//! Messages: fetched, searched, flagged, copied, appended, deleted.
//!
//! Not here: what others do to them meanwhile (`changes`).

use super::{ann, check, check_selected};
use crate::sandbox::{
    behaviour::Behaviour,
    imap::session::{Security, Session, Step},
    provider::Provider,
    state::Limits,
};

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
