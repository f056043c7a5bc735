//! The shared corpus of hostile SMTP input against our server session: whole, octet by octet, and cut at every place.
//!
//! The corpus lies beside the repository; where it is absent this says so and passes. Not here: the client's vectors
//! (`tests/smtp_wire.rs`) and those that speak of time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

mod smtp_peer;

use std::path::PathBuf;

use serde_json::Value;
use smtp_peer::{MESSAGE_BYTES_MAX, Peer};

fn vectors(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/corpora/hostile/vectors")
        .join(format!("{name}.jsonl"));
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        Err(_) => {
            println!("the corpus is not here, {name} was not tried");
            Vec::new()
        }
    }
}

fn id(vector: &Value) -> &str {
    vector["id"].as_str().unwrap()
}

/// Each character is one octet; an ellipsis asks for more of the same.
fn octets(vector: &Value) -> Vec<u8> {
    let octets: Vec<u8> =
        vector["bytes"].as_str().unwrap().chars().map_while(|c| u8::try_from(u32::from(c)).ok()).collect();
    let repeats = if vector["bytes"].as_str().unwrap().contains('…') { 20 } else { 1 };
    octets.repeat(repeats)
}

fn greeted() -> Peer {
    let mut peer = Peer::new("mx", false);
    peer.say(b"EHLO client.example\r\n");
    peer.lines();
    peer
}

/// A session that has said 354.
fn in_data() -> Peer {
    let mut peer = addressed();
    peer.say(b"DATA\r\n");
    assert!(peer.lines().last().unwrap().starts_with("354"));
    peer
}

/// A session with a recipient.
fn addressed() -> Peer {
    let mut peer = greeted();
    peer.say(b"MAIL FROM:<joe@sender.example>\r\nRCPT TO:<x@ok.example>\r\n");
    assert_eq!(peer.lines().len(), 2);
    peer
}

/// Every way a stream can be cut in two, and into single octets.
fn cuts(octets: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let halves = (0..octets.len().min(400)).map(|at| {
        let (left, right) = octets.split_at(at);
        if left.is_empty() { vec![right] } else { vec![left, right] }
    });
    halves.chain([octets.chunks(1).collect()])
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

#[test]
fn starttls_cannot_be_talked_around() {
    for vector in
        vectors("starttls").iter().filter(|vector| vector["state"].as_str().unwrap().starts_with("server"))
    {
        let octets = octets(vector);
        let whole = std::iter::once(vec![octets.as_slice()]);
        for pieces in whole.chain(std::iter::once(octets.chunks(1).collect())) {
            let inside = vector["state"] == "server, inside TLS";
            let mut peer = Peer::new("submission", true);
            peer.say(b"EHLO client.example\r\n");
            if inside {
                peer.say(b"STARTTLS\r\n");
                peer.handshake();
            }
            peer.lines();
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
                _ => assert!(lines.last().unwrap().starts_with("503") && !peer.wants_tls, "{lines:?}"),
            }
        }
    }
}

/// The session vectors that need neither time nor repetition: where they start, and the codes that may answer.
fn start(id: &str) -> Option<(Peer, &'static [&'static str])> {
    Some(match id.trim_start_matches("smtp_session/") {
        "bare-cr-command"
        | "vrfy"
        | "xclient"
        | "proxy-header-untrusted"
        | "helo-http"
        | "no-newline-1m"
        | "auth-huge" => (greeted(), &["501", "252", "500"]),
        "mail-from-null-bcc" | "mail-from-nobrackets" => (greeted(), &["250 2.1"]),
        "rset-mid" => (greeted(), &["250", "503"]),
        "source-route" | "rcpt-plus-token" | "rcpt-domain-case" => (addressed(), &["250 2.1.5"]),
        "rcpt-quoted-crlf" => (addressed(), &["501"]),
        "auth-before-tls" => (Peer::new("submission", true), &["220", "538"]),
        "auth-plain-embedded-nul" | "auth-login-abort" => {
            let mut peer = Peer::new("submissions", true);
            peer.say(b"EHLO client.example\r\n");
            peer.lines();
            (peer, &["501", "334"])
        }
        "text-line-1000" | "8bit-without-8bitmime" => (in_data(), &["250 2.0.0"]),
        _ => return None,
    })
}

#[test]
fn hostile_sessions_are_answered_as_expected() {
    for vector in vectors("smtp_session") {
        let octets = octets(&vector);
        for step in [usize::MAX, 1] {
            let Some((mut peer, codes)) = start(id(&vector)) else { continue };
            octets.chunks(step).for_each(|piece| peer.say(piece));
            if id(&vector).ends_with("text-line-1000") && peer.messages.is_empty() {
                peer.say(b"\r\n.\r\n");
            }
            let lines = peer.lines();
            assert!(!lines.is_empty(), "{}", id(&vector));
            for line in &lines {
                assert!(codes.iter().any(|code| line.starts_with(code)), "{}: {line}", id(&vector));
            }
            if ["no-newline-1m", "helo-http", "auth-huge"].iter().any(|name| id(&vector).ends_with(name)) {
                assert!(peer.closed, "{}", id(&vector));
            }
            if let Some((_, message)) = peer.messages.first() {
                assert!(octets.starts_with(&message[..message.len().min(15)]), "{}", id(&vector));
            }
        }
    }
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
