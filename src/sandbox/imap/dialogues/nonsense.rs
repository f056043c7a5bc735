//! What no client should say.
//!
//! Not here: clients that only are not allowed to (`login`).

use super::{check, drain, provider};
use crate::sandbox::{
    behaviour::Behaviour,
    imap::session::{Security, Session},
};

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
