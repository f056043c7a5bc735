//! A client for server sessions without I/O, with a handler whose decisions stand in the addresses.
//!
//! Local parts `unknown`, `busy` and `goodbye` are answered 550, 451 and 421; the password is `secret`. Not here: sockets.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test binary uses its own part; a test may panic"
)]

use std::{collections::VecDeque, sync::Arc};

use mailweave::{
    mail::Address,
    smtp::{
        Answer, AuthOutcome, Budget, Credentials, Limits, ListenerKind, Mechanism, Question, Reply, Session,
        Settings, Step,
    },
};

/// Size limit of these sessions.
pub const MESSAGE_BYTES_MAX: u64 = 20_000;

pub struct Peer {
    session: Session,
    output: Vec<u8>,
    events: VecDeque<String>,
    pub messages: Vec<(Vec<String>, Vec<u8>)>,
    pub closed: bool,
    pub wants_tls: bool,
}

impl Peer {
    pub fn new(listener: &str, tls: bool) -> Self {
        let listener = match listener {
            "submission" => ListenerKind::Submission,
            "submissions" => ListenerKind::Submissions,
            _ => ListenerKind::Mx,
        };
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        Self::with_limits(listener, tls, limits)
    }

    pub fn with_limits(listener: ListenerKind, tls: bool, limits: Limits) -> Self {
        let mechanisms = vec![Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer];
        let budget = Budget::new(limits.buffered_bytes_max);
        let settings = Settings { hostname: "gw.example".into(), limits, mechanisms, budget, tls };
        let implicit = listener == ListenerKind::Submissions;
        let session = Session::new(Arc::new(settings), "192.0.2.1:4025".parse().unwrap(), listener, implicit);
        let mut peer = Self {
            session,
            output: Vec::new(),
            events: VecDeque::new(),
            messages: Vec::new(),
            closed: false,
            wants_tls: false,
        };
        peer.run();
        peer
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn say(&mut self, octets: &[u8]) {
        self.session.receive(octets);
        self.run();
    }

    pub fn handshake(&mut self) {
        assert!(self.wants_tls, "no handshake was asked for");
        self.wants_tls = false;
        self.session.secured();
        self.run();
    }

    /// The next line the server said.
    pub fn next_line(&mut self) -> Option<String> {
        let end = self.output.windows(2).position(|pair| pair == b"\r\n")?;
        let line: Vec<u8> = self.output.drain(..end + 2).collect();
        Some(String::from_utf8(line[..end].to_vec()).unwrap())
    }

    /// All that the server said and nobody has read yet.
    pub fn lines(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_line()).collect()
    }

    /// The next thing the handler was asked or told.
    pub fn next_event(&mut self) -> Option<String> {
        self.events.pop_front()
    }

    fn run(&mut self) {
        while !self.closed && !self.wants_tls {
            match self.session.step() {
                Step::NeedInput => return,
                Step::Output(octets) => {
                    assert!(octets.ends_with(b"\r\n") && !octets.is_empty());
                    self.output.extend(octets);
                }
                Step::StartTls => self.wants_tls = true,
                Step::Close => self.closed = true,
                Step::Aborted => self.events.push_back("reset".into()),
                Step::Ask(question) => {
                    let answer = self.decide(question);
                    self.session.answer(answer);
                }
            }
        }
    }

    fn decide(&mut self, question: Question) -> Answer {
        let by_name = |address: Option<&Address>, ok: Reply| match address.map(Address::local) {
            Some("unknown") => Reply::no_such_recipient(),
            Some("busy") => Reply::local_error(),
            Some("goodbye") => Reply::shutting_down(),
            _ => ok,
        };
        match question {
            Question::Mail { from, declared_size } => {
                let size = declared_size.map(|size| format!(" {size}")).unwrap_or_default();
                self.events.push_back(format!("mail {from}{size}"));
                Answer::Reply(by_name(from.address(), Reply::sender_ok()))
            }
            Question::Rcpt(recipient) => {
                self.events.push_back(format!("rcpt <{}>", recipient.address));
                Answer::Reply(by_name(Some(&recipient.address), Reply::recipient_ok()))
            }
            Question::Message { envelope, message } => {
                let recipients: Vec<String> =
                    envelope.recipients.iter().map(|r| r.address.to_string()).collect();
                self.events.push_back(format!(
                    "message {} to {}: {}",
                    envelope.reverse_path,
                    recipients.join(","),
                    message.escape_ascii()
                ));
                let reply = by_name(envelope.reverse_path.address(), Reply::ok("Taken"));
                self.messages.push((recipients, message.to_vec()));
                Answer::Reply(reply)
            }
            Question::Authenticate(credentials) => {
                use secrecy::ExposeSecret;
                let (Credentials::Password { password: secret, .. }
                | Credentials::Token { token: secret, .. }) = &credentials;
                let identity = credentials.username().unwrap_or_default().to_owned();
                self.events.push_back(format!("auth {identity}"));
                Answer::Authentication(if secret.expose_secret() == "secret" {
                    AuthOutcome::Accepted { identity }
                } else {
                    AuthOutcome::Refused
                })
            }
        }
    }
}

/// Reads `\r`, `\n`, `\0` and `\\` as escapes.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('r') => octets.push(b'\r'),
                Some('n') => octets.push(b'\n'),
                Some('0') => octets.push(0),
                other => octets.extend(other.map(|c| c as u8)),
            },
            (other, false) => octets.extend(other.to_string().into_bytes()),
        }
    }
    octets
}

/// Every way a stream can be cut in two, and into single octets.
pub fn cuts(octets: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let halves = (0..octets.len().min(400)).map(|at| {
        let (left, right) = octets.split_at(at);
        if left.is_empty() { vec![right] } else { vec![left, right] }
    });
    halves.chain([octets.chunks(1).collect()])
}

/// A session of the MX listener that has been greeted.
pub fn greeted() -> Peer {
    let mut peer = Peer::new("mx", false);
    peer.say(b"EHLO client.example\r\n");
    peer.lines();
    peer
}

/// A session with a recipient.
pub fn addressed() -> Peer {
    let mut peer = greeted();
    peer.say(b"MAIL FROM:<joe@sender.example>\r\nRCPT TO:<x@ok.example>\r\n");
    assert_eq!(peer.lines().len(), 2);
    peer
}

/// A session that has said 354.
pub fn in_data() -> Peer {
    let mut peer = addressed();
    peer.say(b"DATA\r\n");
    assert!(peer.lines().last().unwrap().starts_with("354"));
    peer
}

/// A session under implicit TLS that waits for AUTH.
pub fn secured() -> Peer {
    let mut peer = Peer::new("submissions", true);
    peer.say(b"EHLO client.example\r\n");
    peer.lines();
    peer
}

/// A session on the submission port before STARTTLS.
pub fn in_clear() -> Peer {
    let mut peer = Peer::new("submission", true);
    peer.say(b"EHLO client.example\r\n");
    peer.lines();
    peer
}
