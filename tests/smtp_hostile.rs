//! What is said to a server by those who mean harm, and by those who do not know better: each is answered line for line,
//! in one segment as octet by octet.
//!
//! Not here: sockets and time (`smtp_wire`), whole conversations in good faith (`smtp_dialogues`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

mod smtp_peer;

use smtp_peer::{MESSAGE_BYTES_MAX, Peer, addressed, cuts, greeted, in_clear, in_data, secured};

/// Says it whole and octet by octet; the replies must begin like this, no more and no fewer. What became of the session.
#[track_caller]
fn check(start: fn() -> Peer, said: impl AsRef<[u8]>, replies: &[&str]) -> Peer {
    let said = said.as_ref();
    let name = said[..said.len().min(60)].escape_ascii();
    let mut last = None;
    for piece in [said.len(), 1] {
        let mut peer = start();
        said.chunks(piece).for_each(|piece| peer.say(piece));
        let lines = peer.lines();
        let answered = lines.len() == replies.len()
            && lines.iter().zip(replies).all(|(line, reply)| line.starts_with(reply));
        assert!(answered, "{name}: {lines:?}, expected {replies:?}");
        last = Some(peer);
    }
    last.unwrap()
}

#[track_caller]
fn check_open(start: fn() -> Peer, said: impl AsRef<[u8]>, replies: &[&str]) -> Peer {
    let mut peer = check(start, said, replies);
    assert!(!peer.closed, "the session goes on");
    peer.say(b"NOOP\r\n");
    assert!(peer.lines()[0].starts_with("250"));
    peer
}

#[track_caller]
fn check_closed(start: fn() -> Peer, said: impl AsRef<[u8]>, replies: &[&str]) {
    assert!(check(start, said, replies).closed, "the session is over");
}

#[test]
fn what_is_no_command_is_refused_and_the_session_goes_on() {
    check_open(greeted, "NOOP\rMAIL FROM:<ann@b.example>\r\n", &["501 5.5.2"]);
    check_open(greeted, "NOOP \0\r\n", &["501 5.5.2"]);
    check_open(greeted, "NOOP\n", &["500 5.5.2"]);
    check_open(greeted, b"NOOP \xff\r\n", &["501 5.5.2"]);
    check_open(greeted, "\r\n", &["500 5.5.1"]);
    check_open(greeted, "DEBUG\r\n", &["500 5.5.1"]);
}

#[test]
fn nobody_is_told_who_exists_or_believed_who_he_is() {
    check_open(greeted, "VRFY postmaster\r\n", &["252 2.0.0"]);
    check_open(greeted, "EXPN everybody\r\n", &["502 5.5.1"]);
    check_open(greeted, "XCLIENT NAME=mail.b.example ADDR=192.0.2.7\r\n", &["500 5.5.1"]);
    check_open(greeted, "XFORWARD NAME=mail.b.example\r\n", &["500 5.5.1"]);
    check_open(greeted, "PROXY TCP6 2001:db8::7 2001:db8::1 4025 25\r\n", &["500 5.5.1"]);
}

#[test]
fn other_protocols_and_endless_lines_end_the_session() {
    check_closed(greeted, "POST /mail HTTP/1.1\r\nHost: gw.example\r\n\r\nRSET\r\n", &["500 5.5.1"]);
    check_closed(greeted, "OPTIONS * HTTP/1.0\r\n\r\n", &["500 5.5.1"]);
    check_closed(greeted, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &["500 5.5.2"]);
    check_closed(greeted, "N".repeat(3_000), &["500 5.5.2"]);
    check_closed(greeted, "NOOP ".to_owned() + &"x".repeat(3_000) + "\r\n", &["500 5.5.2"]);
    check_closed(secured, "AUTH PLAIN ".to_owned() + &"QUJD".repeat(4_000) + "\r\n", &["500 5.5.2"]);
}

#[test]
fn paths_are_read_as_one_mailbox_or_not_at_all() {
    check_open(greeted, "MAIL FROM:<>\r\n", &["250 2.1.0"]);
    check_open(greeted, "MAIL FROM:ann@b.example\r\n", &["250 2.1.0"]);
    check_open(greeted, "MAIL FROM:<ann@b.example\r\n", &["501"]);
    check_open(greeted, "MAIL FROM:<ann@b.example><eve@x.example>\r\n", &["501"]);
    check_open(addressed, "RCPT TO:<\"two\r\nRCPT TO:<lines\"@gw.example>\r\n", &["501", "501"]);
    check_open(addressed, "RCPT TO:<>\r\n", &["501 5.1.3"]);
    let mut routed =
        check_open(addressed, "RCPT TO:<@a.example,@b.example:t@gw.example>\r\n", &["250 2.1.5"]);
    let asked = std::iter::from_fn(|| routed.next_event()).last();
    assert_eq!(asked.as_deref(), Some("rcpt <t@gw.example>"), "the route counts for nothing");
    check_open(addressed, "RCPT TO:<t+Tag-1@gw.example>\r\n", &["250 2.1.5"]);
    let mut upper = check_open(addressed, "RCPT TO:<t@GW.Example>\r\n", &["250 2.1.5"]);
    let asked = std::iter::from_fn(|| upper.next_event()).last();
    assert_eq!(asked.as_deref(), Some("rcpt <t@gw.example>"));
}

#[test]
fn passwords_are_taken_under_tls_alone_and_one_exchange_at_a_time() {
    check_open(in_clear, "AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", &["538 5.7.11"]);
    check_open(in_clear, "MAIL FROM:<ann@b.example>\r\n", &["530 5.7.0"]);
    check_open(greeted, "AUTH LOGIN\r\n", &["538 5.7.11"]);
    // base64 of u NUL a NUL b NUL c: RFC 4616 knows two NULs.
    check_open(secured, "AUTH PLAIN dQBhAGIAYw==\r\n", &["501 5.5.2"]);
    check_open(secured, "AUTH PLAIN no base64\r\n", &["501 5.5.4"]);
    check_open(secured, "AUTH LOGIN\r\n*\r\n", &["334 ", "501 5.0.0"]);
}

#[test]
fn a_transaction_that_was_given_up_is_gone() {
    check_open(
        greeted,
        "MAIL FROM:<ann@b.example>\r\nRSET\r\nRCPT TO:<t@gw.example>\r\n",
        &["250 2.1.0", "250 2.0.0", "503 5.5.1"],
    );
    check_open(
        addressed,
        "EHLO again.example\r\nDATA\r\n",
        &["250-", "250-", "250-", "250-", "250-", "250-", "250 ", "503"],
    );
}

#[test]
fn text_is_kept_as_it_came() {
    for text in [
        format!("Subject: {}\r\n\r\n{}\r\n", "s".repeat(1_500), "t".repeat(5_000)).into_bytes(),
        b"Subject: caf\xc3\xa9\r\n\r\n\xff\xfe\r\n".to_vec(),
        b"no header at all\r\n".to_vec(),
        b"form\x0c.\r\nnext line \x85.\r\n".to_vec(),
    ] {
        let peer = check(in_data, [text.as_slice(), b".\r\n"].concat(), &["250 2.0.0"]);
        assert_eq!(peer.messages[0].1, text);
    }
    let dots = check(in_data, "..\r\n.a\r\n...\r\n.\r\n", &["250 2.0.0"]);
    assert_eq!(dots.messages[0].1, b".\r\na\r\n..\r\n");
}

/// The ways to end a line that some server or other takes for one, the right one first.
const LINE_ENDS: [&str; 9] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\r\0\n", "\r\n\0", "\0\r\n"];

#[test]
fn no_odd_line_end_ends_a_message() {
    let smuggled = "MAIL FROM:<eve@x.example>\r\nRCPT TO:<t@gw.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\nQUIT\r\n";
    for before in LINE_ENDS {
        // CRLF . CRLF is the end, whatever follows.
        for after in LINE_ENDS.iter().filter(|after| before != "\r\n" || !after.starts_with("\r\n")) {
            let said = format!("Subject: first\r\n\r\ntext{before}.{after}{smuggled}");
            for pieces in cuts(said.as_bytes()) {
                let mut peer = in_data();
                pieces.iter().for_each(|piece| peer.say(piece));
                let lines = peer.lines();
                let name = format!("{before:?} . {after:?}");
                assert!(lines.len() == 1 && lines[0].starts_with("550 5.5.2"), "{name}: {lines:?}");
                assert!(peer.closed && peer.messages.is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn a_message_before_its_354_is_refused_with_the_session() {
    let mut peer = addressed();
    peer.say(b"DATA\r\nSubject: early\r\n\r\nx\r\n.\r\n");
    assert!(peer.lines()[0].starts_with("503 5.5.1") && peer.closed && peer.messages.is_empty());
}

#[test]
fn the_octets_of_a_chunk_are_never_read_as_commands() {
    for chunk in [
        "BDAT 11 LAST\r\nSubject: x\r\n",
        "BDAT 28 LAST\r\nMAIL FROM:<eve@x.example>\r\n\r\n",
        "BDAT 18446744073709551617 LAST\r\nRSET\r\n",
        "BDAT -1 LAST\r\nRSET\r\n",
        "BDAT 5 LAST\r\n\r\n.\r\n",
        "BDAT\r\nRSET\r\n",
    ] {
        let mut peer = addressed();
        peer.say(chunk.as_bytes());
        let lines = peer.lines();
        assert!(lines.len() == 1 && lines[0].starts_with("502 5.5.1"), "{chunk:?}: {lines:?}");
        assert!(peer.closed && peer.messages.is_empty(), "{chunk:?}");
    }
}

#[test]
fn what_was_said_before_tls_is_not_done_under_it() {
    let mut peer = in_clear();
    peer.say(b"STARTTLS\r\nMAIL FROM:<eve@x.example>\r\n");
    assert!(peer.lines()[0].starts_with("501 5.5.4") && peer.closed && !peer.wants_tls);
    check_open(in_clear, "STARTTLS now\r\n", &["501 5.5.4"]);
    let mut peer = in_clear();
    peer.say(b"STARTTLS\r\n");
    peer.handshake();
    peer.lines();
    peer.say(b"MAIL FROM:<ann@b.example>\r\nEHLO client.example\r\nSTARTTLS\r\n");
    let lines = peer.lines();
    assert!(lines[0].starts_with("503 5.5.1"), "the greeting from before is forgotten: {lines:?}");
    assert!(lines.last().unwrap().starts_with("503 5.5.1") && !peer.wants_tls, "{lines:?}");
}

#[test]
fn too_many_recipients_are_told_to_wait() {
    let mut peer = greeted();
    peer.say(b"MAIL FROM:<a@b.example>\r\n");
    peer.say("RCPT TO:<t@gw.example>\r\n".repeat(1001).as_bytes());
    let lines = peer.lines();
    assert!(lines[..101].iter().all(|line| line.starts_with("250")));
    assert!(lines[101..].iter().all(|line| line.starts_with("452 4.5.3")) && lines.len() == 1002);
    assert!(!peer.closed);
}

#[test]
fn a_lie_about_size_is_found_out_at_once_and_costs_no_memory() {
    let mut peer = greeted();
    peer.say(b"MAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<t@gw.example>\r\nDATA\r\n");
    peer.lines();
    let block = "x".repeat(998) + "\r\n";
    let mut blocks = 0;
    while peer.lines().is_empty() {
        peer.say(block.as_bytes());
        blocks += 1;
    }
    assert_eq!(blocks, MESSAGE_BYTES_MAX / 1000 + 1);
    for _ in 0..50 {
        peer.say(block.as_bytes());
    }
    peer.say(b".\r\nMAIL FROM:<a@b.example>\r\n");
    assert_eq!(peer.lines(), ["250 2.1.0 Ok"], "the refusal was given already, and the session goes on");
    assert!(peer.messages.is_empty());
}
