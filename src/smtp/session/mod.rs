//! One SMTP session, server side, without I/O: octets in, steps out, every state an enum variant.
//!
//! `receive` takes what was read, `step` says what to do next, `answer` brings the handler's word.
//! Not here: sockets, clocks and deadlines (`server`), decisions (`Handler`). `commands` has what each command does.

mod commands;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use memchr::memchr;
use zeroize::Zeroize;

use super::{
    AUTH_LINE_BYTES_MAX, AuthOutcome, Budget, COMMAND_LINE_BYTES_MAX, Credentials, DataReader, DataState,
    Limits, ListenerKind, Mechanism, Reply, SessionInfo,
    auth::{Exchange, Progress},
    limits::Reservation,
    received_fields,
};
use crate::mail::{Envelope, Recipient, ReversePath};

/// What handling a message takes beside the message itself: the copy that is kept, that copy compressed, and sealed.
const COPIES_IN_HAND: u64 = 3;

/// What all sessions of a server share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name in the greeting, in EHLO's reply and for `<postmaster>`.
    pub hostname: String,
    pub limits: Limits,
    /// Offered on submission listeners under TLS, in this order.
    pub mechanisms: Vec<Mechanism>,
    /// Memory for messages under way, shared by every session.
    pub budget: Budget,
    /// Whether STARTTLS can be offered.
    pub tls: bool,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Read from the peer and call [`Session::receive`].
    NeedInput,
    /// Write this: the replies to a whole pipelined group.
    Output(Vec<u8>),
    /// Do the TLS handshake, then call [`Session::secured`].
    StartTls,
    /// Ask the handler, then call [`Session::answer`].
    Ask(Question),
    /// Tell the handler that the transaction was given up.
    Aborted,
    /// Close the connection; everything has been written.
    Close,
}

/// A question for the handler.
#[derive(Debug)]
pub enum Question {
    Mail { from: ReversePath, declared_size: Option<u64> },
    Rcpt(Recipient),
    Message { envelope: Envelope, message: Bytes },
    Authenticate(Credentials),
}

/// The handler's answer.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Authentication(AuthOutcome),
}

/// What a session that needs input is waiting for; the driver's deadlines depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A command or an AUTH response: the session may be ended between two of them.
    Command,
    /// The octets of a message, of which so many came.
    Data { received: u64 },
}

/// The session. A few hundred octets while idle: buffers exist only while they hold something.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    info: SessionInfo,
    phase: Phase,
    transaction: Option<Box<Transaction>>,
    aborted: bool,
    tally: Tally,
    /// Octets received and not yet read as commands, from `read` on.
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// The greeting has not been written.
    Greeting,
    Command,
    /// A response of this exchange is awaited.
    Sasl(Exchange),
    /// A bearer mechanism failed and was told why; whatever the client says is answered with 535.
    SaslFailed,
    /// The handler has been asked.
    Asked(Asked),
    Data(Box<Incoming>),
    /// 220 has been said to STARTTLS.
    Tls,
    /// Write what is left and close.
    Closing {
        courteous: bool,
    },
}

#[derive(Debug)]
enum Asked {
    Mail(Box<Transaction>),
    Rcpt(Recipient),
    /// The memory of the message stays reserved until the handler is done with it.
    Message(Reservation),
    Authenticate(Mechanism),
}

/// An open mail transaction.
#[derive(Debug)]
struct Transaction {
    envelope: Envelope,
    /// Recipients refused because there were too many already.
    surplus: usize,
}

/// A message on its way in.
#[derive(Debug)]
struct Incoming {
    reader: DataReader,
    reservation: Reservation,
    received: u64,
    /// The shared memory ran out under this message.
    no_room: bool,
    /// Set once the reply was given before the end: the rest is thrown away.
    answered: bool,
}

#[derive(Debug, Default)]
struct Tally {
    errors: u32,
    idle_commands: u32,
    auth_failures: u32,
}

impl Session {
    /// A session whose connection was just accepted. `tls` says whether the handshake is already done (implicit TLS).
    #[must_use]
    pub fn new(settings: Arc<Settings>, peer: SocketAddr, listener: ListenerKind, tls: bool) -> Self {
        let info = SessionInfo { peer, listener, hello: None, extended: false, tls, authenticated: None };
        let (input, output) = (Vec::new(), Vec::new());
        Self {
            settings,
            info,
            phase: Phase::Greeting,
            transaction: None,
            aborted: false,
            tally: Tally::default(),
            input,
            read: 0,
            output,
        }
    }

    #[must_use]
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// What the session waits for when it says [`Step::NeedInput`].
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        match &self.phase {
            Phase::Data(incoming) => Waiting::Data { received: incoming.received },
            _ => Waiting::Command,
        }
    }

    /// True when the peer may still be sending after we close: it said something we hung up on.
    #[must_use]
    pub fn closes_in_anger(&self) -> bool {
        matches!(self.phase, Phase::Closing { courteous: false })
    }

    /// Takes octets read from the peer. Call it only after [`Step::NeedInput`]; then memory stays bounded by one read and one line.
    pub fn receive(&mut self, octets: &[u8]) {
        match &mut self.phase {
            Phase::Closing { .. } => {}
            Phase::Data(incoming) => {
                let rest = incoming.receive(octets);
                self.input.extend_from_slice(rest);
            }
            _ => self.input.extend_from_slice(octets),
        }
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if std::mem::take(&mut self.aborted) {
                return Step::Aborted;
            }
            let step = match &self.phase {
                Phase::Greeting => self.greet(),
                Phase::Command | Phase::Sasl(_) | Phase::SaslFailed => self.next_line(),
                Phase::Data(_) => self.read_data(),
                Phase::Asked(_) => return Step::NeedInput,
                Phase::Tls => return self.flush_or(Step::StartTls),
                Phase::Closing { .. } => return self.flush_or(Step::Close),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Brings the handler's answer to the last question. An answer to no question, or of the wrong kind, ends the session.
    pub fn answer(&mut self, answer: Answer) {
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        match (phase, answer) {
            (Phase::Asked(Asked::Mail(transaction)), Answer::Reply(reply)) => {
                if reply.is_positive() {
                    self.transaction = Some(transaction);
                }
                self.say_or_fault(reply);
            }
            (Phase::Asked(Asked::Rcpt(recipient)), Answer::Reply(reply)) => {
                if let Some(transaction) = self.transaction.as_mut().filter(|_| reply.is_positive()) {
                    transaction.envelope.recipients.push(recipient);
                }
                self.say_or_fault(reply);
            }
            (Phase::Asked(Asked::Message(reservation)), Answer::Reply(reply)) => {
                drop(reservation);
                if reply.is_positive() {
                    // Guesses at passwords are not made good by mail.
                    self.tally = Tally { auth_failures: self.tally.auth_failures, ..Tally::default() };
                }
                self.say_or_fault(reply);
            }
            (Phase::Asked(Asked::Authenticate(mechanism)), Answer::Authentication(outcome)) => {
                self.judged(mechanism, outcome)
            }
            _ => self.close_with(&Reply::local_error()),
        }
    }

    /// The TLS handshake is done. RFC 3207 section 4.2: everything said before it is forgotten; the tally is not.
    pub fn secured(&mut self) {
        self.abandon();
        self.info.tls = true;
        self.info.hello = None;
        self.info.extended = false;
        self.info.authenticated = None;
        self.input = Vec::new();
        self.read = 0;
        self.phase = Phase::Command;
    }

    /// The peer was too slow: 421, then close.
    pub fn time_out(&mut self) {
        self.close_with(&Reply::timed_out());
    }

    /// The server stops: 421, then close. Call it while [`Waiting::Command`], or when patience with DATA has ended.
    pub fn shut_down(&mut self) {
        self.close_with(&Reply::shutting_down());
    }

    fn greet(&mut self) -> Option<Step> {
        if !self.input.is_empty() {
            // Only spam software and browsers speak before they are spoken to.
            self.close_with(&Reply::new(554, [5, 5, 1], "Protocol error: talked before the greeting"));
            return None;
        }
        Reply::bare(220, format!("{} ESMTP", self.settings.hostname)).write(&mut self.output);
        self.phase = Phase::Command;
        Some(self.flush_or(Step::NeedInput))
    }

    /// Handles the next whole line, or says what to do when there is none.
    fn next_line(&mut self) -> Option<Step> {
        let unread = self.input.get(self.read..).unwrap_or_default();
        let awaits_response = matches!(self.phase, Phase::Sasl(_) | Phase::SaslFailed);
        let is_auth =
            awaits_response || unread.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
        let line_max = if is_auth { AUTH_LINE_BYTES_MAX } else { COMMAND_LINE_BYTES_MAX };
        // A TLS ClientHello on a clear port may never hold a line end.
        let is_tls = unread.starts_with(b"\x16\x03");
        let end = memchr(b'\n', unread.get(..line_max).unwrap_or(unread)).filter(|_| !is_tls);
        let Some(end) = end else {
            if is_tls || unread.len() >= line_max {
                self.close_with(&Reply::new(500, [5, 5, 2], "Line too long or no SMTP at all"));
                return None;
            }
            return Some(self.need_input());
        };
        let start = self.read;
        self.read = start.saturating_add(end).saturating_add(1);
        let line = self.input.get(start..start.saturating_add(end)).unwrap_or_default();
        let step = match line.strip_suffix(b"\r") {
            None => {
                self.fault(Reply::new(500, [5, 5, 2], "Lines end with CR LF"));
                None
            }
            Some(line) if awaits_response => {
                let response = zeroize::Zeroizing::new(line.to_vec());
                self.respond(&response)
            }
            Some(line) => {
                let command = super::command::parse(line);
                self.obey(command)
            }
        };
        if is_auth && let Some(said) = self.input.get_mut(start..self.read) {
            said.zeroize();
        }
        step
    }

    /// All replies owed are written before more is read; then buffers that hold nothing are given back.
    fn need_input(&mut self) -> Step {
        if self.read >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..self.read);
        }
        self.read = 0;
        self.flush_or(Step::NeedInput)
    }

    fn flush_or(&mut self, step: Step) -> Step {
        if self.output.is_empty() { step } else { Step::Output(std::mem::take(&mut self.output)) }
    }

    /// Looks at what [`Incoming`] has become.
    fn read_data(&mut self) -> Option<Step> {
        let Phase::Data(incoming) = &mut self.phase else { return None };
        match incoming.reader.state() {
            DataState::Malformed => {
                let reply = Reply::new(550, [5, 5, 2], "Bare CR, bare LF or NUL in the message");
                if !incoming.answered {
                    reply.write(&mut self.output);
                }
                self.close();
                None
            }
            DataState::Reading if incoming.reader.is_discarding() && !incoming.answered => {
                incoming.answered = true;
                let reply = if incoming.no_room { Reply::no_room() } else { Reply::too_large() };
                self.transaction = None;
                self.aborted = true;
                self.say(&reply);
                None
            }
            DataState::Reading => Some(self.flush_or(Step::NeedInput)),
            DataState::Complete => self.take_message(),
        }
    }

    /// The final dot is here: ask the handler, unless the reply is already certain.
    fn take_message(&mut self) -> Option<Step> {
        let Phase::Data(mut incoming) = std::mem::replace(&mut self.phase, Phase::Command) else {
            return None;
        };
        if incoming.answered {
            return None;
        }
        let transaction = self.transaction.take();
        if incoming.no_room || !incoming.reader.is_discarding() && !incoming.has_room_for_handling() {
            self.aborted = true;
            self.say(&Reply::no_room());
            return None;
        }
        if incoming.reader.is_discarding() {
            self.aborted = true;
            self.fault(Reply::too_large());
            return None;
        }
        let message = incoming.reader.into_message();
        if received_fields(&message, self.settings.limits.received_fields_max)
            > self.settings.limits.received_fields_max
        {
            self.aborted = true;
            self.fault(Reply::mail_loop());
            return None;
        }
        let envelope = transaction?.envelope;
        self.phase = Phase::Asked(Asked::Message(incoming.reservation));
        Some(Step::Ask(Question::Message { envelope, message }))
    }

    fn say(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    /// A handler's reply: a permanent refusal counts as an error, 421 ends the session.
    fn say_or_fault(&mut self, reply: Reply) {
        match reply.code() {
            421 => self.close_with(&reply),
            _ if reply.is_permanent() => self.fault(reply),
            _ => self.say(&reply),
        }
    }

    /// An error reply, and good-bye if there were too many. The reply itself is said first: a peer that hears 421 in place
    /// of a refusal comes back with what was refused.
    fn fault(&mut self, reply: Reply) {
        self.say(&reply);
        self.tally.errors = self.tally.errors.saturating_add(1);
        if self.tally.errors >= self.settings.limits.errors_max {
            self.close_with(&Reply::too_many("Too many errors"));
        }
    }

    fn close_with(&mut self, reply: &Reply) {
        self.say(reply);
        self.close();
    }

    fn close(&mut self) {
        self.phase = Phase::Closing { courteous: false };
        self.input = Vec::new();
        self.read = 0;
    }

    /// Gives the transaction up, and has the handler told if there was one.
    fn abandon(&mut self) {
        self.aborted |= self.transaction.take().is_some();
    }
}

impl Incoming {
    /// Takes octets of the message and returns those behind it.
    fn receive<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let size = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(size);
        let memory = u64::try_from(self.reader.memory_after(octets.len())).unwrap_or(u64::MAX);
        if !self.reader.is_discarding() && !self.reservation.cover(memory) {
            self.no_room = true;
            self.reader.discard();
        }
        let rest = self.reader.receive(octets);
        if self.reader.is_discarding() {
            self.reservation.release();
        }
        rest
    }

    /// Reserves what the handler will need for the whole message.
    fn has_room_for_handling(&mut self) -> bool {
        let size = u64::try_from(self.reader.len()).unwrap_or(u64::MAX);
        let memory = u64::try_from(self.reader.memory_after(0)).unwrap_or(u64::MAX);
        self.reservation.cover(memory.saturating_add(size.saturating_mul(COPIES_IN_HAND)))
    }
}
