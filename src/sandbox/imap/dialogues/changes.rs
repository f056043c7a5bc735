//! What happens in a mailbox while a client is there, or while it was away.
//!
//! Not here: what the client does to messages itself (`messages`).

use super::{check, check_selected};

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
