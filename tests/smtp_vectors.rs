//! The shared corpus of hostile SMTP input against our server session: whole, octet by octet, and cut at every place.
//!
//! Where the corpus is absent `tests/smtp_hostile.rs` stands for it. A vector that nobody judges fails. Not here: the
//! client's vectors (`tests/smtp_wire.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

mod corpus;
mod smtp_peer;

use corpus::{id, vectors};
use serde_json::Value;
use smtp_peer::{Peer, addressed, cuts, greeted, in_clear, in_data, secured};

/// Each character is one octet; an ellipsis asks for more of the same.
fn octets(vector: &Value) -> Vec<u8> {
    let octets: Vec<u8> =
        vector["bytes"].as_str().unwrap().chars().map_while(|c| u8::try_from(u32::from(c)).ok()).collect();
    let repeats = if vector["bytes"].as_str().unwrap().contains('…') { 20 } else { 1 };
    octets.repeat(repeats)
}

#[test]
fn nothing_is_smuggled_through_a_message() {
    for vector in vectors("smtp_eod") {
        let octets = octets(&vector);
        for pieces in cuts(&octets) {
            let early = vector["state"] == "after RCPT";
            let mut peer = if early { addressed() } else { in_data() };
            let whole = pieces.len() == 1;
            pieces.iter().for_each(|piece| peer.say(piece));
            let lines = peer.lines();
            assert!(peer.messages.len() <= 1, "{}", id(&vector));
            for (recipients, message) in &peer.messages {
                assert_eq!(recipients, &["x@ok.example"], "{}", id(&vector));
                assert!(!message.starts_with(b"From: admin"), "{}", id(&vector));
            }
            // No smuggled command was answered: what came after was a refusal and the end, or one message and QUIT.
            let refused = lines.iter().any(|line| line.starts_with("550 5.5.2") || line.starts_with("503"))
                && peer.closed;
            assert!(refused || peer.messages.len() == 1, "{}: {lines:?}", id(&vector));
            assert!(!lines.iter().any(|line| line.starts_with("250 2.1")), "{}: {lines:?}", id(&vector));
            assert!(!(early && whole) || refused, "{}", id(&vector));
        }
    }
}

#[test]
fn dots_are_taken_off_real_lines_alone() {
    for vector in vectors("smtp_dotstuff") {
        let octets = octets(&vector);
        for pieces in cuts(&octets) {
            let mut peer = in_data();
            pieces.iter().for_each(|piece| peer.say(piece));
            match vector["expect"]["body"].as_str() {
                Some(body) => assert_eq!(peer.messages[0].1, body.as_bytes(), "{}", id(&vector)),
                None => assert!(
                    peer.messages.is_empty() && peer.closed && peer.lines()[0].starts_with("550"),
                    "{}",
                    id(&vector)
                ),
            }
        }
    }
}

#[test]
fn chunking_is_refused_whatever_it_says() {
    for vector in vectors("smtp_bdat") {
        let octets = octets(&vector);
        for pieces in cuts(&octets) {
            let mut peer = addressed();
            pieces.iter().for_each(|piece| peer.say(piece));
            assert!(peer.lines()[0].starts_with("502 5.5.1"), "{}", id(&vector));
            let command = octets.iter().position(|octet| *octet == b'\n').unwrap() + 1;
            let ends: Vec<usize> = pieces
                .iter()
                .scan(0, |end, piece| {
                    *end += piece.len();
                    Some(*end)
                })
                .collect();
            let chunk_came_along = ends.iter().find(|end| **end >= command) > Some(&command);
            assert!(
                peer.closed || !chunk_came_along,
                "{}: octets of the chunk were read as commands",
                id(&vector)
            );
            if !peer.closed {
                peer.lines();
                peer.say(b"\r\nDATA\r\n");
                assert!(
                    !peer.lines().iter().any(|line| line.starts_with("354")),
                    "{}: the transaction is gone",
                    id(&vector)
                );
            }
            assert!(peer.messages.is_empty(), "{}", id(&vector));
        }
    }
}

/// Vectors of `starttls` that speak of clients, which are judged where clients are tested.
const OF_CLIENTS: [&str; 7] = [
    "starttls/smtp-client-resp-inject",
    "starttls/smtp-client-no-starttls",
    "starttls/imap-client-resp-inject",
    "starttls/imap-preauth",
    "starttls/imap-referral-bye",
    "starttls/imap-alert-before-tls",
    "starttls/pop-style-tag",
];

#[test]
fn starttls_cannot_be_talked_around() {
    for vector in vectors("starttls").iter().filter(|vector| !OF_CLIENTS.contains(&id(vector))) {
        let octets = octets(vector);
        for pieces in [vec![octets.as_slice()], octets.chunks(1).collect()] {
            let inside = vector["state"] == "server, inside TLS";
            let mut peer = in_clear();
            if inside {
                peer.say(b"STARTTLS\r\n");
                peer.handshake();
                peer.lines();
            }
            pieces.iter().for_each(|piece| peer.say(piece));
            let lines = peer.lines();
            assert!(!lines.iter().any(|line| line.starts_with("250 2.1")), "{}", id(vector));
            match id(vector) {
                "starttls/smtp-inject-after-starttls" if pieces.len() == 1 => {
                    assert!(peer.closed && lines[0].starts_with("501"))
                }
                "starttls/smtp-inject-after-starttls" => {
                    assert!(lines[0].starts_with("220") && peer.wants_tls);
                    peer.handshake();
                    assert_eq!(
                        peer.lines(),
                        [] as [String; 0],
                        "nothing from before the handshake is run after it"
                    );
                }
                "starttls/smtp-starttls-with-arg" => assert!(lines[0].starts_with("501") && !peer.wants_tls),
                "starttls/smtp-starttls-twice" => {
                    assert!(lines.last().unwrap().starts_with("503") && !peer.wants_tls, "{lines:?}")
                }
                other => panic!("nobody judges {other}"),
            }
        }
    }
}

/// What begins each reply, and whether the session is ended.
type Expected = (&'static [&'static str], bool);

/// Where a session begins and how it must be answered; `None` for those that need time, repetition or a real connection,
/// each with a test of its own.
fn judge(id: &str) -> Option<(Peer, Expected)> {
    Some(match id.trim_start_matches("smtp_session/") {
        "bare-cr-command" => (greeted(), (&["501 5.5.2"], false)),
        "vrfy" => (greeted(), (&["252 2.0.0"], false)),
        "xclient" | "proxy-header-untrusted" => (greeted(), (&["500 5.5.1"], false)),
        "helo-http" => (greeted(), (&["500 5.5.1"], true)),
        "no-newline-1m" | "auth-huge" => (greeted(), (&["500 5.5.2"], true)),
        "mail-from-null-bcc" => (greeted(), (&["250 2.1.0", "250 2.1.5"], false)),
        "mail-from-nobrackets" => (greeted(), (&["250 2.1.0"], false)),
        "rset-mid" => (greeted(), (&["250 2.1.0", "250 2.0.0", "503 5.5.1"], false)),
        "source-route" | "rcpt-plus-token" | "rcpt-domain-case" => (addressed(), (&["250 2.1.5"], false)),
        "rcpt-quoted-crlf" => (addressed(), (&["501", "501"], false)),
        "auth-before-tls" => (in_clear(), (&["538 5.7.11"], false)),
        "auth-plain-embedded-nul" => (secured(), (&["501 5.5.2"], false)),
        "auth-login-abort" => (secured(), (&["334 ", "501 5.0.0"], false)),
        "text-line-1000" | "8bit-without-8bitmime" => (in_data(), (&["250 2.0.0"], false)),
        other if ELSEWHERE.iter().any(|(id, ..)| *id == other) => return None,
        other => panic!("nobody judges {other}"),
    })
}

/// Vectors that need time, repetition or a real connection, with the test that does what each says.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("rcpt-1001", "smtp_hostile.rs", "too_many_recipients_are_told_to_wait"),
    ("size-lie", "smtp_hostile.rs", "a_lie_about_size_is_found_out_at_once_and_costs_no_memory"),
    ("early-talker", "smtp_wire.rs", "whoever_talks_first_is_hung_up_on"),
    ("slowloris-data", "smtp_wire.rs", "silence_and_dribble_end_with_421"),
    (
        "conn-reset-after-dot",
        "crash/hostile.rs",
        "a_message_whose_answer_nobody_read_is_taken_once_when_it_comes_again",
    ),
];

#[test]
fn what_is_judged_elsewhere_is() {
    for (vector, file, test) in ELSEWHERE {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&format!("fn {test}()")), "nobody judges {vector}: {file} has no {test}");
    }
}

#[test]
fn hostile_sessions_are_answered_as_expected() {
    for vector in vectors("smtp_session") {
        let octets = octets(&vector);
        for step in [usize::MAX, 1] {
            let Some((mut peer, (replies, closed))) = judge(id(&vector)) else { continue };
            octets.chunks(step).for_each(|piece| peer.say(piece));
            if id(&vector).ends_with("text-line-1000") && peer.messages.is_empty() {
                peer.say(b"\r\n.\r\n");
            }
            let lines = peer.lines();
            let as_expected = lines.len() == replies.len()
                && lines.iter().zip(replies).all(|(line, reply)| line.starts_with(reply));
            assert!(as_expected && peer.closed == closed, "{}: {lines:?}, {replies:?}", id(&vector));
            if let Some((_, message)) = peer.messages.first() {
                assert!(octets.starts_with(&message[..message.len().min(15)]), "{}", id(&vector));
            }
        }
    }
}
