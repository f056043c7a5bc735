//! The bytes of a whole SMTP session, in pieces. Holds: every reply is a line, no message without one recipient and one sender
//! that were accepted, and nothing said before a handshake is run after it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave_fuzz::smtp_peer::{MESSAGE_BYTES_MAX, Peer};

fuzz_target!(|data: &[u8]| {
    let Some((shape, octets)) = data.split_first() else { return };
    let listener = ["mx", "submission", "submissions"][usize::from(shape % 3)];
    let step = usize::from(shape / 3).max(1);
    let mut peer = Peer::new(listener, shape & 1 == 0);
    for piece in octets.chunks(step) {
        if peer.closed {
            break;
        }
        if peer.wants_tls {
            peer.handshake();
        }
        peer.say(piece);
    }
    for line in peer.lines() {
        assert!(line.len() >= 3 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit), "{line:?}");
        assert!(!line.contains(['\r', '\n']), "{line:?}");
    }
    for (recipients, message) in &peer.messages {
        assert!(!recipients.is_empty() && message.len() as u64 <= MESSAGE_BYTES_MAX);
    }
});
