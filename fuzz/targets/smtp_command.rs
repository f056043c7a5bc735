//! One command line in each state of a session. Holds: it is answered by whole lines, and by nothing but lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave_fuzz::smtp_peer::Peer;

fuzz_target!(|data: &[u8]| {
    if data.contains(&b'\n') {
        return;
    }
    let before: [&[u8]; 3] = [
        b"",
        b"EHLO c.example\r\n",
        b"EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n",
    ];
    for said in before {
        let mut peer = Peer::new("mx", true);
        peer.say(said);
        peer.lines();
        peer.say(data);
        peer.say(b"\r\n");
        let lines = peer.lines();
        assert!(peer.closed || !lines.is_empty(), "no answer");
        assert!(lines.iter().all(|line| line.bytes().all(|octet| (32..127).contains(&octet))), "{lines:?}");
    }
});
