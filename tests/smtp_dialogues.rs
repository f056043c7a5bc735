//! SMTP server sessions as dialogues: every file of `tests/dialogues/*.smtp` is spoken line by line, all at once where
//! it says so, and one octet at a time, and must be answered the same.
//!
//! A file: `# …` comments; `listener: mx|submission|submissions`; `tls: yes` when TLS can be offered; `C: line` is said with
//! CRLF, `c: text` is said raw with `\r \n \0` read as escapes, `S: text` is the beginning of the next line of reply, `S! …` of
//! the handler's view, `--- tls` a handshake, `--- closed` the end of the connection.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

mod smtp_peer;

use smtp_peer::{Peer, unescape};

struct Dialogue {
    listener: String,
    tls: bool,
    turns: Vec<Turn>,
}

#[derive(Debug)]
enum Turn {
    Say(Vec<u8>),
    Reply(String),
    Handler(String),
    Handshake,
    Closed,
}

fn read(text: &str) -> Dialogue {
    let mut dialogue = Dialogue { listener: "mx".into(), tls: false, turns: Vec::new() };
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let turn = match mark {
            "listener:" => {
                dialogue.listener = rest.into();
                continue;
            }
            "tls:" => {
                dialogue.tls = rest == "yes";
                continue;
            }
            "C:" => Turn::Say(format!("{rest}\r\n").into_bytes()),
            "c:" => Turn::Say(unescape(rest)),
            "S:" => Turn::Reply(rest.into()),
            "S!" => Turn::Handler(rest.into()),
            "---" if rest == "tls" => Turn::Handshake,
            "---" if rest == "closed" => Turn::Closed,
            other => panic!("no such mark: {other}"),
        };
        dialogue.turns.push(turn);
    }
    dialogue
}

fn play(name: &str, dialogue: &Dialogue, octets_at_a_time: usize) {
    let mut peer = Peer::new(&dialogue.listener, dialogue.tls);
    let mut said = Vec::new();
    for turn in &dialogue.turns {
        if let Turn::Say(octets) = turn {
            // Lines said without an answer in between go in one segment: that is what pipelining is.
            said.extend_from_slice(octets);
            continue;
        }
        for piece in std::mem::take(&mut said).chunks(octets_at_a_time.max(1)) {
            peer.say(piece);
        }
        match turn {
            Turn::Reply(expect) => {
                let got =
                    peer.next_line().unwrap_or_else(|| panic!("{name}: nothing said, expected {expect:?}"));
                assert!(got.starts_with(expect.as_str()), "{name}: {got:?}, expected {expect:?}");
            }
            Turn::Handler(expect) => {
                assert_eq!(peer.next_event().as_deref(), Some(expect.as_str()), "{name}")
            }
            Turn::Handshake => peer.handshake(),
            Turn::Closed => assert!(peer.closed, "{name}: not closed"),
            Turn::Say(_) => {}
        }
    }
    assert_eq!(peer.next_line(), None, "{name}: said more than expected");
}

#[test]
fn every_dialogue_goes_as_written_however_it_is_cut() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogues");
    let mut played = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "smtp") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let dialogue = read(&std::fs::read_to_string(&path).unwrap());
            play(&name, &dialogue, usize::MAX);
            // What depends on segments, by RFC 2920 or RFC 3207, is named so.
            if !name.starts_with("segment-") {
                play(&name, &dialogue, 1);
            }
            played += 1;
        }
    }
    assert!(played >= 10, "{played} dialogues found");
}

#[test]
fn errors_are_forgiven_to_whoever_brings_mail_and_the_last_refusal_is_said_before_good_bye() {
    let mut peer = Peer::new("mx", false);
    peer.say(b"HELO a\r\n");
    let refused = |peer: &mut Peer, times: usize| {
        peer.lines();
        peer.say("RCPT TO:<unknown@gw.example>\r\n".repeat(times).as_bytes());
        peer.lines()
    };
    // A mailing over one connection: more refusals in all than are suffered in a row.
    for _ in 0..3 {
        peer.say(b"MAIL FROM:<a@b.example>\r\n");
        let lines = refused(&mut peer, 19);
        assert!(lines.len() == 19 && lines.iter().all(|line| line.starts_with("550 5.1.1")), "{lines:?}");
        peer.say(b"RCPT TO:<t@gw.example>\r\nDATA\r\n");
        peer.say(b"x\r\n.\r\n");
        assert!(peer.lines().last().unwrap().starts_with("250 2.0.0"));
    }
    peer.say(b"MAIL FROM:<a@b.example>\r\n");
    let lines = refused(&mut peer, 30);
    assert!(lines.len() == 21 && lines[..20].iter().all(|line| line.starts_with("550 5.1.1")), "{lines:?}");
    assert!(lines[20].starts_with("421 4.7.0") && peer.closed);
}

proptest::proptest! {
    /// Any sequence of commands, in any segments, leaves the session in a state it knows: it answers each line at most once
    /// in a code of RFC 5321, delivers nothing without a recipient, and never panics.
    #[test]
    fn no_sequence_of_commands_confuses_a_session(
        lines in proptest::collection::vec(proptest::sample::select(vec![
            "EHLO a\r\n", "HELO a\r\n", "MAIL FROM:<a@b.example>\r\n", "MAIL FROM:<>\r\n", "MAIL FROM:<busy@b.example>\r\n", "RCPT TO:<t@gw.example>\r\n",
            "RCPT TO:<unknown@gw.example>\r\n", "RCPT TO:<goodbye@gw.example>\r\n", "DATA\r\n", "Subject: x\r\n\r\n", ".\r\n", "..\r\n", "RSET\r\n", "NOOP\r\n",
            "STARTTLS\r\n", "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", "AGFubgBzZWNyZXQ=\r\n", "*\r\n", "BDAT 3 LAST\r\n", "QUIT\r\n", "\r\n",
            "x\n", "\0\r\n", "VRFY a\r\n",
        ]), 0..40),
        listener in proptest::sample::select(vec!["mx", "submission", "submissions"]),
        segment in 1_usize..60,
    ) {
        let mut peer = Peer::new(listener, true);
        let said = lines.concat();
        for piece in said.as_bytes().chunks(segment) {
            if peer.wants_tls {
                peer.handshake();
            }
            peer.say(piece);
        }
        let replies = peer.lines();
        let ends = replies.iter().filter(|line| line.as_bytes().get(3) == Some(&b' ')).count();
        // The greeting, and the good-bye after too many errors, answer no line.
        proptest::prop_assert!(ends <= said.matches('\n').count() + 2, "{replies:?}");
        for line in &replies {
            let code: u16 = line[..3].parse().unwrap();
            proptest::prop_assert!((200..560).contains(&code), "{line}");
        }
        for (recipients, _) in &peer.messages {
            proptest::prop_assert!(!recipients.is_empty());
        }
        if listener != "mx" && !peer.messages.is_empty() {
            proptest::prop_assert!(peer.session().info().authenticated.is_some());
        }
    }
}
