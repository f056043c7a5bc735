//! One IMAP session, sans I/O: bytes in by `receive`, then `step` until it wants more.
//!
//! Not here: sockets, TLS and waiting (`driver`), and what the commands do (a file for each group of them).

use std::{collections::VecDeque, mem, time::Duration};

use imap_codec::{
    CommandCodec, IdleDoneCodec,
    decode::{Decoder, IdleDoneDecodeError},
};
use imap_types::command::Command;
use jiff::Timestamp;

use crate::{
    mail::Address,
    sandbox::{
        allowance,
        behaviour::{self, Act, Extensions, Farewell, Manner, Service},
        ledger::Said,
        provider::{Place, Provider},
    },
};

use super::{
    auth::Sasl,
    dispatch,
    fetch::FetchJob,
    google::{self, Asked},
    heard::Heard,
    input::{Frame, Input},
    view::{Enabled, Expunges, Stale, View},
};

/// Octets of literals in a command before authentication: a name and a password.
const LITERAL_BYTES_MAX_UNAUTHENTICATED: usize = 8 * 1024;
/// RFC 9051 section 11.5 asks for a limit on guesses.
pub(super) const LOGIN_FAILURES_MAX: u32 = 3;
/// Output is handed over in pieces of about this size, so that a FETCH of everything takes no memory of its own.
const OUTPUT_BYTES_PIECE: usize = 64 * 1024;

/// How long a connection is kept that nothing is heard or said on any more.
const SILENCE: Duration = Duration::from_hours(24);

/// What protects the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Nothing, and nothing is offered: loopback.
    None,
    /// STARTTLS is offered, and no password is taken before it.
    StartTls,
    /// TLS is on.
    Tls,
}

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Output(Vec<u8>),
    /// Read more, or tell of a change by `changed`.
    Input,
    /// Wait so long, then go on: an armed delay.
    Hold(Duration),
    /// Do the handshake, then call `secured`. Everything has been written.
    StartTls,
    Close,
}

/// How a command ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok(String),
    No(String),
    Bad(String),
    /// The command completes itself later.
    Pending,
}

impl Answer {
    pub(super) fn ok(text: &str) -> Self {
        Self::Ok(text.to_owned())
    }
    pub(super) fn no(text: &str) -> Self {
        Self::No(text.to_owned())
    }
    pub(super) fn bad(text: &str) -> Self {
        Self::Bad(text.to_owned())
    }
}

/// Something to do that an armed fault may hold back or replace.
pub(super) enum Work {
    Greet,
    /// A whole command, by its bytes.
    Command(Vec<u8>),
    /// Give leave to send a literal.
    Literal,
}

/// What the next line is.
enum Mode {
    Command,
    Sasl(Sasl),
    Idle(String),
}

/// The session of one connection.
pub struct Session {
    pub(super) provider: Provider,
    pub(super) number: u64,
    pub(super) security: Security,
    pub(super) extensions: Extensions,
    pub(super) manner: Manner,
    pub(super) user: Option<Address>,
    pub(super) login_failures: u32,
    pub(super) enabled: Enabled,
    pub(super) view: Option<View>,
    pub(super) output: Vec<u8>,
    pub(super) input: Input,
    mode: Mode,
    fetch: Option<FetchJob>,
    /// What a delay holds back.
    pub(super) held: Option<Work>,
    /// What happens after the output is gone, in order.
    pub(super) then: VecDeque<Step>,
    /// A pause before the next output.
    pub(super) linger: Option<Duration>,
    /// Octets that may still go out before the connection drops.
    pub(super) cut: Option<usize>,
    kicks: u64,
    /// What the command at hand asks for beyond the codec.
    pub(super) google: Asked,
    /// Among the sessions of its user.
    place: Option<Place>,
    /// When the token runs out that let it in.
    expires_at: Option<Timestamp>,
}

impl Session {
    /// A session that greets first.
    #[must_use]
    pub fn new(provider: &Provider, security: Security) -> Self {
        let mut session = Self {
            provider: provider.clone(),
            number: provider.with(|world| world.next_session()),
            security,
            extensions: provider.behaviour(None).extensions,
            manner: provider.behaviour(None).manner,
            user: None,
            login_failures: 0,
            enabled: Enabled::default(),
            view: None,
            output: Vec::new(),
            input: Input::new(LITERAL_BYTES_MAX_UNAUTHENTICATED),
            mode: Mode::Command,
            fetch: None,
            held: None,
            then: VecDeque::new(),
            linger: None,
            cut: None,
            kicks: 0,
            google: Asked::default(),
            place: None,
            expires_at: None,
        };
        session.greet();
        session
    }

    /// Takes what the client sent. Not while `step` has something else to say than `Input`.
    pub fn receive(&mut self, bytes: &[u8]) {
        // What was ended is not asked any more, however the news and the command overtook each other.
        if let Some(farewell) = self.farewell() {
            self.part(farewell);
        }
        self.input.receive(bytes);
    }

    /// TLS is on now: the client starts afresh (RFC 9051 section 6.2.1).
    pub fn secured(&mut self) {
        self.security = Security::Tls;
        self.input = Input::new(LITERAL_BYTES_MAX_UNAUTHENTICATED);
    }

    /// Something changed in the provider: pushes it to an idling client, and ends the session of a kicked user.
    pub fn changed(&mut self) {
        if let Some(farewell) = self.farewell() {
            self.part(farewell);
        } else if matches!(self.mode, Mode::Idle(_)) {
            self.sync(Expunges::Tell);
        }
    }

    /// How this session was ended; told once.
    fn farewell(&mut self) -> Option<Farewell> {
        let address = self.user.as_ref()?;
        let (kicks, farewell) =
            self.provider.with(|world| world.user(address).ok().map(|user| (user.kicks, user.farewell)))?;
        let is_news = mem::replace(&mut self.kicks, kicks) != kicks;
        is_news.then_some(farewell)
    }

    fn part(&mut self, farewell: Farewell) {
        match farewell {
            Farewell::Bye => return self.bye("[UNAVAILABLE] the administrator ended this session"),
            Farewell::Drop => {}
            Farewell::Silence => self.then.push_back(Step::Hold(SILENCE)),
        }
        self.fetch = None;
        self.then.push_back(Step::Close);
    }

    /// When the session ends because its token does.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Ends the session of a token that has run out.
    pub fn expire(&mut self) {
        self.expires_at = None;
        self.bye(match self.manner {
            Manner::Microsoft => "Session invalidated - AccessTokenExpired",
            Manner::Google | Manner::Plain => "Session expired, please login again.",
        });
    }

    /// Ends the session from the server's side.
    pub fn end(&mut self, why: &str) {
        self.bye(why);
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if self.output.len() >= OUTPUT_BYTES_PIECE || (!self.output.is_empty() && self.fetch.is_none()) {
                return self.emit();
            }
            if self.cut == Some(0) {
                return Step::Close;
            }
            if self.fetch.is_some() {
                self.fetch_some();
                continue;
            }
            match self.then.front() {
                Some(Step::Close) => return Step::Close,
                Some(_) => return self.then.pop_front().unwrap_or(Step::Close),
                None => {}
            }
            if let Some(work) = self.held.take() {
                self.perform(work);
                continue;
            }
            match self.input.next() {
                None => return Step::Input,
                Some(frame) => self.take(frame),
            }
        }
    }

    fn emit(&mut self) -> Step {
        if let Some(pause) = self.linger.take() {
            return Step::Hold(pause);
        }
        let mut output = mem::take(&mut self.output);
        if let Some(left) = &mut self.cut {
            output.truncate(*left);
            *left -= output.len();
        }
        if output.is_empty() { Step::Close } else { Step::Output(output) }
    }

    fn greet(&mut self) {
        match self.hear("CONNECT", "CONNECT") {
            None => self.perform(Work::Greet),
            Some(act) => self.suffer(act, "*", Work::Greet),
        }
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Command(bytes) => match mem::replace(&mut self.mode, Mode::Command) {
                Mode::Command => self.command(bytes),
                Mode::Sasl(sasl) => self.sasl_line(sasl, &bytes),
                Mode::Idle(tag) => self.idle_line(tag, &bytes),
            },
            Frame::Literal(so_far) => self.welcome_literal(&so_far),
            Frame::LiteralTooLarge(so_far) => {
                let heard = Heard::read(&so_far);
                self.complete(&heard.tag, &Answer::no("[TOOBIG] that is larger than this server takes"));
            }
            Frame::Overflow => self.bye("[TOOBIG] that is more than this server takes"),
        }
    }

    fn welcome_literal(&mut self, so_far: &[u8]) {
        let Heard { tag, verb, line } = Heard::read(so_far);
        let (service, verb) = (Service::Imap, format!("{verb}-LITERAL"));
        let command = behaviour::Command { service, verb: &verb, line: &line, user: self.user.as_ref() };
        match self.provider.strike(command) {
            None => self.perform(Work::Literal),
            Some(act) => self.suffer(act, &tag, Work::Literal),
        }
    }

    fn command(&mut self, bytes: Vec<u8>) {
        let heard = Heard::read(&bytes);
        match self.hear(&heard.verb, &heard.line) {
            None => self.perform(Work::Command(bytes)),
            Some(act) => self.suffer(act, &heard.tag, Work::Command(bytes)),
        }
    }

    fn hear(&mut self, verb: &str, line: &str) -> Option<Act> {
        self.provider.hear(Said {
            session: self.number,
            service: Service::Imap,
            user: self.user.clone(),
            secure: self.security == Security::Tls,
            verb: verb.to_owned(),
            line: line.to_owned(),
        })
    }

    pub(super) fn perform(&mut self, work: Work) {
        match work {
            Work::Greet => {
                let greeting =
                    format!("* OK [CAPABILITY {}] Mailweave sandbox ready\r\n", self.capabilities());
                self.output.extend_from_slice(greeting.as_bytes());
            }
            Work::Command(bytes) => self.execute(&bytes),
            Work::Literal => self.output.extend_from_slice(b"+ go on\r\n"),
        }
    }

    fn execute(&mut self, whole: &[u8]) {
        let Heard { tag, .. } = Heard::read(whole);
        if let Some(answer) = self.extended_list(whole) {
            return self.finish(&tag, Expunges::Tell, answer);
        }
        let taken = google::take_out(whole).filter(|_| self.manner == Manner::Google);
        let (bytes, asked) = taken.map_or((None, Asked::default()), |(plain, asked)| (Some(plain), asked));
        self.google = asked;
        let bytes = bytes.as_deref().unwrap_or(whole);
        match CommandCodec::default().decode(bytes) {
            Ok(([], Command { body, .. })) => {
                let expunges = dispatch::expunges(&body);
                let answer = self.answer(&tag, body).unwrap_or_else(|Stale| self.stale());
                self.finish(&tag, expunges, answer);
            }
            _ => self.complete(&tag, &Answer::bad("that cannot be read")),
        }
    }

    pub(super) fn start_tls(&mut self, tag: &str) -> Answer {
        if self.security != Security::StartTls {
            return Answer::bad("TLS is on already or not offered");
        }
        self.complete(tag, &Answer::ok("begin TLS"));
        self.then.push_back(Step::StartTls);
        Answer::Pending
    }

    pub(super) fn idle(&mut self, tag: &str) -> Answer {
        self.output.extend_from_slice(b"+ idling\r\n");
        self.mode = Mode::Idle(tag.to_owned());
        self.sync(Expunges::Tell);
        Answer::Pending
    }

    fn idle_line(&mut self, tag: String, line: &[u8]) {
        let done: Result<_, IdleDoneDecodeError> = IdleDoneCodec::default().decode(line);
        let act = self.hear("DONE", "DONE");
        let answer = if done.is_ok() { Answer::ok("idle ended") } else { Answer::bad("expected DONE") };
        match act {
            None => self.finish(&tag, Expunges::Tell, answer),
            Some(act) => self.suffer(act, &tag, Work::Command(format!("{tag} NOOP\r\n").into_bytes())),
        }
    }

    /// Waits for a line of SASL.
    pub(super) fn expect_sasl(&mut self, sasl: Sasl) {
        self.mode = Mode::Sasl(sasl);
    }

    pub(super) fn set_fetch(&mut self, job: FetchJob) {
        self.fetch = Some(job);
    }

    pub(super) fn take_fetch(&mut self) -> Option<FetchJob> {
        self.fetch.take()
    }

    /// The session is this user's from now on; or the provider's words why it is not.
    pub(super) fn enter(&mut self, user: Address, expires_at: Option<Timestamp>) -> Result<(), String> {
        let provider = self.provider.clone();
        self.manner = provider.behaviour(Some(&user)).manner;
        if let Some(left) = provider.throttled_for(&user) {
            return Err(allowance::throttled_imap(self.manner, left));
        }
        let Some(place) = provider.enter(&user, Service::Imap) else {
            return Err(allowance::too_many_connections(self.manner).to_owned());
        };
        if provider.has_read_too_much(&user) {
            return Err(allowance::too_much_read(self.manner).to_owned());
        }
        self.place = Some(place);
        self.expires_at = expires_at;
        let (most, behaviour) =
            (provider.with(|world| world.limits.message_bytes_max), provider.behaviour(Some(&user)));
        self.kicks = provider.with(|world| world.user(&user).map(|user| user.kicks).unwrap_or_default());
        self.extensions = behaviour.extensions;
        self.input.literal_bytes_max = most;
        self.user = Some(user);
        Ok(())
    }

    /// Tells what changed, then completes the command.
    pub(super) fn finish(&mut self, tag: &str, expunges: Expunges, answer: Answer) {
        if answer != Answer::Pending {
            self.sync(expunges);
            self.complete(tag, &answer);
        }
    }

    fn complete(&mut self, tag: &str, answer: &Answer) {
        let (word, text) = match answer {
            Answer::Ok(text) => ("OK", text),
            Answer::No(text) => ("NO", text),
            Answer::Bad(text) => ("BAD", text),
            Answer::Pending => return,
        };
        self.output.extend_from_slice(format!("{tag} {word} {text}\r\n").as_bytes());
    }

    fn sync(&mut self, expunges: Expunges) {
        let Some(view) = self.view.as_mut().filter(|_| !self.then.contains(&Step::Close)) else { return };
        let (enabled, output) = (self.enabled, &mut self.output);
        if self.provider.with(|world| view.sync(world, (expunges, enabled), output)) == Err(Stale) {
            self.stale();
        }
    }

    fn stale(&mut self) -> Answer {
        self.view = None;
        self.bye("[UNAVAILABLE] the selected mailbox is not what it was");
        Answer::Pending
    }

    /// Gives up its place among its user's sessions: whoever sees the connection close may begin another at once.
    pub(super) fn leave(&mut self) {
        self.place = None;
    }

    /// Says good-bye and ends; a command at hand is still completed.
    pub(super) fn bye(&mut self, text: &str) {
        self.output.extend_from_slice(format!("* BYE {text}\r\n").as_bytes());
        self.fetch = None;
        self.then.push_back(Step::Close);
    }
}
