//! A tap in an SMTP connection, sans I/O: sees commands and replies pass, pairs them, and carries out faults between.
//!
//! Not here: SMTP itself. The tap stands before our own server (`smtp`) and knows only framing.

use std::{collections::VecDeque, mem, time::Duration};

use super::behaviour::Act;

/// Octets of one command line; longer ones end the connection.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Octets of one reply. Longer ones end the connection: no server means them.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TapStep {
    /// Say what happens to this command, by `judged`. Credentials are struck out of the line.
    Judge {
        verb: String,
        line: String,
    },
    ToServer(Vec<u8>),
    ToClient(Vec<u8>),
    Hold(Duration),
    Close,
    /// Bring more from either side.
    More,
}

/// What is owed to the client, in order.
#[derive(Debug)]
enum Owed {
    /// These octets, of ours.
    Own(Vec<u8>),
    /// The server's next reply, treated so.
    Reply(Fate),
    Close,
}

#[derive(Debug)]
enum Fate {
    Pass,
    Replace(Vec<u8>),
    Cut(usize),
    Linger(Duration),
}

/// Where the client's side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the greeting has been judged.
    Start,
    Command,
    /// The reply to this command decides how the next octets are to be read.
    Await(Next),
    Sasl,
    Data(Tail),
    /// After STARTTLS: nothing can be seen any more.
    Opaque,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Data,
    Auth,
    Tls,
}

/// How the octets of a message ended so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// CRLF: only here a dot can end the message.
    Line,
    Cr,
    Other,
}

/// The tap of one connection.
#[derive(Debug)]
pub(super) struct Tap {
    phase: Phase,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    owed: VecDeque<Owed>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The command that is being judged.
    asked: Option<Asked>,
    hold: Option<Duration>,
    /// A message whose dot was judged `Answer`: our own server is not to take it.
    void: bool,
    closing: bool,
}

#[derive(Debug)]
struct Asked {
    verb: String,
    line: Vec<u8>,
}

impl Tap {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Start,
            from_client: Vec::new(),
            from_server: Vec::new(),
            owed: VecDeque::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            asked: None,
            hold: None,
            void: false,
            closing: false,
        }
    }

    /// A tap for what follows a TLS handshake that the driver did itself: there is no second greeting.
    pub(super) fn secured(&mut self) {
        *self = Self { phase: Phase::Command, ..Self::new() };
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.from_client.extend_from_slice(bytes);
    }

    pub(super) fn server(&mut self, bytes: &[u8]) {
        self.from_server.extend_from_slice(bytes);
    }

    /// Whether the message just handed over was refused by a fault. Reading it clears it.
    pub(super) fn take_void(&mut self) -> bool {
        mem::take(&mut self.void)
    }

    pub(super) fn step(&mut self) -> TapStep {
        self.settle();
        if !self.to_client.is_empty() {
            return TapStep::ToClient(mem::take(&mut self.to_client));
        }
        if self.closing {
            return TapStep::Close;
        }
        if let Some(pause) = self.hold.take() {
            return TapStep::Hold(pause);
        }
        if !self.to_server.is_empty() {
            return TapStep::ToServer(mem::take(&mut self.to_server));
        }
        if self.asked.is_some() {
            // Not judged yet: the driver was interrupted.
            return TapStep::More;
        }
        self.read_client()
    }

    /// The verdict on the command last asked about.
    pub(super) fn judged(&mut self, act: Option<Act>) {
        let Some(Asked { verb, line }) = self.asked.take() else { return };
        // The greeting and the end of DATA come from a server that has gone on; its reply can only be replaced.
        let unstoppable = verb == "CONNECT" || verb == "DOT";
        match act {
            None => self.forward(&verb, line, Fate::Pass),
            Some(Act::Delay(pause)) => {
                self.hold = Some(pause);
                self.forward(&verb, line, Fate::Pass);
            }
            Some(Act::Inject(bytes)) => {
                self.owed.push_back(Owed::Own(bytes));
                self.forward(&verb, line, Fate::Pass);
            }
            Some(Act::Linger(pause)) => self.forward(&verb, line, Fate::Linger(pause)),
            Some(Act::DropAfter(octets)) => self.forward(&verb, line, Fate::Cut(octets)),
            Some(Act::Drop) => self.owed.push_back(Owed::Close),
            Some(Act::Bye(text)) => {
                self.owed.push_back(Owed::Own(format!("421 {text}\r\n").into_bytes()));
                self.owed.push_back(Owed::Close);
            }
            Some(Act::Answer(text)) => {
                self.answer(&verb, line, (format!("{text}\r\n").into_bytes(), unstoppable))
            }
            Some(Act::Instead(bytes)) => self.answer(&verb, line, (bytes, unstoppable)),
        }
    }

    fn answer(&mut self, verb: &str, line: Vec<u8>, how: (Vec<u8>, bool)) {
        let (bytes, unstoppable) = how;
        if unstoppable {
            self.void = verb == "DOT";
            return self.forward(verb, line, Fate::Replace(bytes));
        }
        self.owed.push_back(Owed::Own(bytes));
        self.phase = Phase::Command;
    }

    fn forward(&mut self, verb: &str, line: Vec<u8>, fate: Fate) {
        self.to_server.extend_from_slice(&line);
        self.owed.push_back(Owed::Reply(fate));
        self.phase = match verb {
            "DATA" => Phase::Await(Next::Data),
            "AUTH" | "SASL" => Phase::Await(Next::Auth),
            "STARTTLS" => Phase::Await(Next::Tls),
            _ => Phase::Command,
        };
    }

    /// Pays what is owed, as far as the server's replies go.
    fn settle(&mut self) {
        if self.closing || self.hold.is_some() {
            return;
        }
        while let Some(owed) = self.owed.front() {
            match owed {
                Owed::Close => self.closing = true,
                Owed::Own(bytes) => self.to_client.extend_from_slice(bytes),
                Owed::Reply(_) => {
                    let Some(reply) = self.take_reply() else { return };
                    self.read_reply(&reply);
                    match self.owed.front() {
                        Some(Owed::Reply(Fate::Replace(bytes))) => self.to_client.extend_from_slice(bytes),
                        Some(Owed::Reply(Fate::Cut(octets))) => {
                            self.to_client.extend_from_slice(reply.get(..*octets).unwrap_or(&reply));
                            self.closing = true;
                        }
                        Some(Owed::Reply(Fate::Linger(pause))) => {
                            self.hold = Some(*pause);
                            self.owed.pop_front();
                            return self.owed.push_front(Owed::Own(reply));
                        }
                        _ => self.to_client.extend_from_slice(&reply),
                    }
                }
            }
            self.owed.pop_front();
            if self.closing {
                return self.owed.clear();
            }
        }
        // What nobody asked for, such as the 421 of a timeout, and what cannot be read any more passes as it is.
        if self.phase != Phase::Start && self.asked.is_none() {
            self.to_client.append(&mut self.from_server);
        }
    }

    /// The server's next whole reply.
    fn take_reply(&mut self) -> Option<Vec<u8>> {
        let mut end = 0;
        for line in
            self.from_server.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
        {
            end += line.len();
            if line.get(3) != Some(&b'-') {
                let rest = self.from_server.split_off(end);
                return Some(mem::replace(&mut self.from_server, rest));
            }
        }
        self.closing |= self.from_server.len() > REPLY_BYTES_MAX;
        None
    }

    /// Learns from the reply to DATA, AUTH or STARTTLS what comes next.
    fn read_reply(&mut self, reply: &[u8]) {
        let Phase::Await(next) = self.phase else { return };
        // Replies to commands before it in the same group are not meant.
        if self.owed.len() > 1 {
            return;
        }
        self.phase = match (next, reply.get(..3)) {
            (Next::Data, Some(b"354")) => Phase::Data(Tail::Line),
            (Next::Auth, Some(b"334")) => Phase::Sasl,
            (Next::Tls, Some(b"220")) => Phase::Opaque,
            _ => Phase::Command,
        };
    }

    fn read_client(&mut self) -> TapStep {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::Command;
                self.ask("CONNECT", Vec::new(), "CONNECT".to_owned())
            }
            Phase::Await(_) => TapStep::More,
            Phase::Opaque if self.from_client.is_empty() => TapStep::More,
            Phase::Opaque => TapStep::ToServer(mem::take(&mut self.from_client)),
            Phase::Command | Phase::Sasl => self.read_line(),
            Phase::Data(tail) => self.read_data(tail),
        }
    }

    fn read_line(&mut self) -> TapStep {
        let Some(end) = memchr::memchr(b'\n', &self.from_client) else {
            self.closing |= self.from_client.len() > LINE_BYTES_MAX;
            return if self.closing { TapStep::Close } else { TapStep::More };
        };
        let rest = self.from_client.split_off(end + 1);
        let line = mem::replace(&mut self.from_client, rest);
        if self.phase == Phase::Sasl {
            return self.ask("SASL", line, "***".to_owned());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let shown = match verb.as_str() {
            "AUTH" => format!("AUTH {} ***", words.next().unwrap_or_default()),
            _ => text,
        };
        self.ask(&verb, line, shown)
    }

    /// Passes the message on up to its end, which is a command of its own.
    fn read_data(&mut self, mut tail: Tail) -> TapStep {
        let mut passed = 0;
        for piece in self.from_client.split_inclusive(|byte| *byte == b'\n') {
            if tail == Tail::Line && b".\r\n".starts_with(piece) {
                break;
            }
            passed += piece.len();
            tail = match piece {
                [b'\n'] if tail == Tail::Cr => Tail::Line,
                piece if piece.ends_with(b"\r\n") => Tail::Line,
                piece if piece.ends_with(b"\r") => Tail::Cr,
                _ => Tail::Other,
            };
        }
        self.phase = Phase::Data(tail);
        let rest = self.from_client.split_off(passed);
        let content = mem::replace(&mut self.from_client, rest);
        if !content.is_empty() {
            return TapStep::ToServer(content);
        }
        if self.from_client.starts_with(b".\r\n") {
            let rest = self.from_client.split_off(3);
            let dot = mem::replace(&mut self.from_client, rest);
            return self.ask("DOT", dot, "DOT".to_owned());
        }
        TapStep::More
    }

    fn ask(&mut self, verb: &str, line: Vec<u8>, shown: String) -> TapStep {
        self.asked = Some(Asked { verb: verb.to_owned(), line });
        TapStep::Judge { verb: verb.to_owned(), line: shown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every whole line, and takes a message after DATA.
    struct Server {
        input: Vec<u8>,
        in_data: bool,
        taken: Vec<String>,
    }

    impl Server {
        fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
            self.input.extend_from_slice(bytes);
            let mut replies = Vec::new();
            while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap().trim_end().to_owned();
                let reply = match line.as_str() {
                    "." if self.in_data => "250 taken\r\n",
                    _ if self.in_data => "",
                    "DATA" => "354 go on\r\n",
                    "EHLO a" => "250-hello\r\n250 PIPELINING\r\n",
                    "AUTH LOGIN" => "334 name\r\n",
                    "bmFtZQ==" => "235 in\r\n",
                    _ => "250 ok\r\n",
                };
                self.in_data = (self.in_data && line != ".") || line == "DATA";
                self.taken.push(line);
                replies.extend_from_slice(reply.as_bytes());
            }
            replies
        }
    }

    /// What the client hears, what the server took, and what was judged.
    fn run(input: &[u8], chunk: usize, fault: &(&str, Act)) -> (String, Vec<String>, Vec<String>) {
        let mut tap = Tap::new();
        let mut server = Server { input: Vec::new(), in_data: false, taken: Vec::new() };
        let (mut heard, mut judged) = (Vec::new(), Vec::new());
        tap.server(b"220 hi\r\n");
        let mut chunks = input.chunks(chunk);
        loop {
            match tap.step() {
                TapStep::Judge { verb, line } => {
                    tap.judged((verb == fault.0).then(|| fault.1.clone()));
                    judged.push(line);
                }
                TapStep::ToServer(bytes) => {
                    let replies = server.answer(&bytes);
                    tap.server(&replies);
                }
                TapStep::ToClient(bytes) => heard.extend(bytes),
                TapStep::Hold(pause) => heard.extend(format!("(hold {pause:?})").bytes()),
                TapStep::Close => {
                    heard.extend(b"(closed)");
                    break;
                }
                TapStep::More => match chunks.next() {
                    Some(bytes) => tap.client(bytes),
                    None => break,
                },
            }
        }
        (String::from_utf8(heard).unwrap(), server.taken, judged)
    }

    const MAIL: &[u8] =
        b"EHLO a\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n";
    const HELLO: &str = "220 hi\r\n250-hello\r\n250 PIPELINING\r\n";

    #[track_caller]
    fn check(verb: &str, act: Act, heard: &str, taken: &[&str]) {
        for chunk in [MAIL.len(), 7, 1] {
            let (got, server, _) = run(MAIL, chunk, &(verb, act.clone()));
            assert_eq!(got, heard, "in chunks of {chunk}");
            assert_eq!(server, taken, "in chunks of {chunk}");
        }
    }

    #[test]
    fn without_faults_everything_passes_in_order() {
        let (heard, taken, judged) = run(b"EHLO a\r\nNOOP\r\nQUIT\r\n", 3, &("", Act::Drop));
        assert_eq!(heard, "220 hi\r\n250-hello\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n");
        assert_eq!(taken, ["EHLO a", "NOOP", "QUIT"]);
        assert_eq!(judged, ["CONNECT", "EHLO a", "NOOP", "QUIT"]);
    }

    #[test]
    fn an_answer_of_ours_keeps_its_place_among_the_replies() {
        check(
            "RCPT",
            Act::Answer("550 5.1.1 no".into()),
            &format!("{HELLO}250 ok\r\n550 5.1.1 no\r\n354 go on\r\n250 taken\r\n250 ok\r\n"),
            &["EHLO a", "MAIL FROM:<a@x>", "DATA", "Subject: x", "", "..", ".", "QUIT"],
        );
    }

    #[test]
    fn the_reply_to_the_dot_can_be_lost_or_replaced() {
        let all = ["EHLO a", "MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA", "Subject: x", "", "..", ".", "QUIT"];
        let sent = format!("{HELLO}250 ok\r\n250 ok\r\n354 go on\r\n");
        check("DOT", Act::DropAfter(0), &format!("{sent}(closed)"), &all[..8]);
        check("DOT", Act::Drop, &format!("{sent}(closed)"), &all[..7]);
        check(
            "DOT",
            Act::Answer("451 4.3.0 later".into()),
            &format!("{sent}451 4.3.0 later\r\n250 ok\r\n"),
            &all,
        );
        let pause = Duration::from_secs(3);
        check("DOT", Act::Delay(pause), &format!("{sent}(hold 3s)250 taken\r\n250 ok\r\n"), &all);
        check("DOT", Act::Linger(pause), &format!("{sent}(hold 3s)250 taken\r\n250 ok\r\n"), &all);
    }

    #[test]
    fn a_greeting_can_be_replaced() {
        let (heard, _, _) = run(b"QUIT\r\n", 1, &("CONNECT", Act::Answer("554 go away".into())));
        assert_eq!(heard, "554 go away\r\n250 ok\r\n");
        let (heard, taken, _) = run(b"QUIT\r\n", 1, &("CONNECT", Act::Bye("4.3.2 full".into())));
        assert_eq!((heard.as_str(), taken.len()), ("421 4.3.2 full\r\n(closed)", 0));
    }

    #[test]
    fn only_a_dot_between_line_ends_is_the_end() {
        let input = b"DATA\r\na\n.\r\nb\r.\r\n.\n.\r\n\r\n.\r\nNOOP\r\n";
        for chunk in [input.len(), 1] {
            let mut tap = Tap::new();
            let (mut judged, mut chunks) = (Vec::new(), input.chunks(chunk));
            tap.server(b"220 hi\r\n");
            loop {
                match tap.step() {
                    TapStep::Judge { line, .. } => {
                        tap.judged(None);
                        judged.push(line);
                    }
                    TapStep::More => match chunks.next() {
                        Some(bytes) => tap.client(bytes),
                        None => break,
                    },
                    TapStep::ToServer(bytes) if bytes == b"DATA\r\n" => tap.server(b"354 go on\r\n"),
                    _ => {}
                }
            }
            assert_eq!(judged, ["CONNECT", "DATA", "DOT", "NOOP"]);
        }
    }

    #[test]
    fn credentials_are_struck_out() {
        let input = b"AUTH LOGIN\r\nbmFtZQ==\r\nAUTH PLAIN c2VjcmV0\r\n";
        for chunk in [input.len(), 1] {
            let (_, taken, judged) = run(input, chunk, &("", Act::Drop));
            assert_eq!(judged, ["CONNECT", "AUTH LOGIN ***", "***", "AUTH PLAIN ***"]);
            assert_eq!(taken, ["AUTH LOGIN", "bmFtZQ==", "AUTH PLAIN c2VjcmV0"]);
        }
    }
}
