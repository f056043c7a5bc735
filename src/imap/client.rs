//! The client over any stream: it sends a command, reads until the command is answered, and keeps what comes unasked.
//!
//! Not here: the verbs (`login`, `mailboxes`, `headers`, `body`, `search`, `append`, `idle`), TLS (the caller's), and
//! reconnecting. All progress is kept in `self`; a verb that was dropped half-way leaves a client that only says so.

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tracing::trace;
use zeroize::{Zeroize, Zeroizing};

use super::{
    capability::Capabilities,
    code::ResponseCode,
    command::{Command, Literal, Part},
    error::{Error, Fault, Result, ServerText},
    framing::Allowance,
    idle::{Idle, News},
    limits::{Deadlines, Limits},
    response::{Condition, Response, Status, Tag},
    session::Session,
};

/// How long a server that has said good-bye may take to hang up.
const HANGS_UP: Duration = Duration::from_secs(1);
/// A literal is written in pieces so that each can show progress.
const WRITE_BYTES: usize = 64 * 1024;
/// Alerts kept until the caller takes them.
const ALERTS_MAX: usize = 8;

/// Whether the connection can take a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// A command is being answered, or was when its verb was dropped or failed.
    Busy,
    Idle(Idle),
}

/// An IMAP client on one connection. Every verb takes `&mut self`: one command at a time, and a verb that is cancelled
/// leaves the client unusable (`Fault::Abandoned`), except `idle`, which may be dropped and called again at will.
#[derive(Debug)]
pub struct Client<S> {
    pub(super) stream: S,
    pub(super) session: Session,
    pub(super) limits: Limits,
    pub(super) deadlines: Deadlines,
    pub(super) capabilities: Capabilities,
    pub(super) state: State,
    /// True from before authentication until a new list has come.
    pub(super) capabilities_are_old: bool,
    pub(super) preauthenticated: bool,
    pub(super) qresync: bool,
    /// False once a mailbox was selected that has no modification sequences: asking for one there is an error.
    pub(super) modseqs: bool,
    pub(super) news: News,
    /// Messages in the selected mailbox, as far as we were told.
    pub(super) exists: u32,
    alerts: Vec<ServerText>,
    /// What the server began with; empty after STARTTLS.
    pub(super) greeting: ServerText,
    /// What is still to be written, and how much of it has been.
    out: Zeroizing<Vec<u8>>,
    written: usize,
    octets_read: u64,
    /// When the command under way has taken too long.
    pub(super) deadline: Instant,
}

/// The tagged OK of a command.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) code: Option<ResponseCode>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn over(stream: S, session: Session, limits: Limits, deadlines: Deadlines) -> Self {
        Self {
            stream,
            session,
            limits,
            deadlines,
            capabilities: Capabilities::default(),
            state: State::Ready,
            capabilities_are_old: false,
            preauthenticated: false,
            qresync: false,
            modseqs: true,
            news: News::default(),
            exists: 0,
            alerts: Vec::new(),
            greeting: ServerText::new(b""),
            out: Zeroizing::new(Vec::new()),
            written: 0,
            octets_read: 0,
            deadline: Instant::now() + deadlines.command,
        }
    }

    /// What the server offers now: after authentication it may be more.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the server has sent so far, in octets.
    #[must_use]
    pub fn octets_read(&self) -> u64 {
        self.octets_read
    }

    /// The text that the server began with, by which some say what they are; empty of a session that went over to TLS.
    #[must_use]
    pub fn greeting(&self) -> &ServerText {
        &self.greeting
    }

    /// Texts under the code ALERT, which RFC 9051 wants shown to the user: show them as the server's words.
    pub fn take_alerts(&mut self) -> Vec<ServerText> {
        std::mem::take(&mut self.alerts)
    }

    /// Lets the server say what it has to say. The answer is in `take_news`.
    ///
    /// # Errors
    /// Those of every command.
    pub async fn noop(&mut self) -> Result<()> {
        self.run(Command::new("NOOP"), Some).await.map(drop)
    }

    /// Ends the session. An answer is waited for, but only for a moment, and none is needed. Then the server is left to hang up:
    /// until it has, it counts the session among those that its user may have at one time.
    pub async fn logout(mut self) {
        self.deadlines.progress = self.deadlines.done;
        self.deadlines.command = self.deadlines.done;
        // BYE comes as an error, and that is how LOGOUT succeeds.
        let goodbye = self.run(Command::new("LOGOUT"), Some).await;
        let _ = self.within(|client| client.stream.shutdown()).await;
        if matches!(goodbye, Err(Error::ServerBye { .. })) {
            let _ = timeout(HANGS_UP, tokio::io::copy(&mut self.stream, &mut tokio::io::sink())).await;
        }
    }

    /// Sends a command that asks for no message data and reads until it is answered. `take` gets every untagged response
    /// and hands back those that it does not want.
    pub(super) async fn run(
        &mut self,
        command: Command,
        take: impl FnMut(Response) -> Option<Response>,
    ) -> Result<Done> {
        let allowance = Allowance::plain(&self.limits);
        self.run_with(command, allowance, take).await
    }

    pub(super) async fn run_with(
        &mut self,
        command: Command,
        allowance: Allowance,
        mut take: impl FnMut(Response) -> Option<Response>,
    ) -> Result<Done> {
        self.prepare().await?;
        let tag = self.send(&command, allowance, &mut take).await?;
        loop {
            match self.step(&mut take).await? {
                Step::Tagged(answered, done) if answered == tag => {
                    self.state = State::Ready;
                    return done;
                }
                Step::Tagged(..) => {}
                Step::Continuation(_) => return Err(Fault::UnexpectedContinuation.into()),
            }
        }
    }

    /// Runs commands that do not depend on one another: in one flight, unless one has to wait for the server in the middle.
    /// One outcome for each, in the order given, whatever the order of the answers; `take` is as in `run`.
    pub(super) async fn run_all(
        &mut self,
        commands: &[Command],
        mut take: impl FnMut(Response) -> Option<Response>,
    ) -> Result<Vec<Result<Done>>> {
        let free = self.capabilities.free_literal_bytes_max();
        if commands.iter().any(|command| command.waits(free)) {
            return self.run_each(commands, take).await;
        }
        self.prepare().await?;
        let allowance = Allowance::plain(&self.limits);
        let mut flight = Vec::with_capacity(commands.len());
        for command in commands {
            flight.push((self.write(command, allowance, &mut take).await?, None));
        }
        self.flush().await?;
        while flight.iter().any(|(_, outcome)| outcome.is_none()) {
            match self.step(&mut take).await? {
                Step::Tagged(tag, done) => {
                    let open = flight.iter_mut().find(|(sent, outcome)| *sent == tag && outcome.is_none());
                    open.ok_or(Fault::UnknownTag)?.1 = Some(done);
                }
                Step::Continuation(_) => return Err(Fault::UnexpectedContinuation.into()),
            }
        }
        self.state = State::Ready;
        Ok(flight.into_iter().filter_map(|(_, outcome)| outcome).collect())
    }

    /// The same, one after another.
    async fn run_each(
        &mut self,
        commands: &[Command],
        mut take: impl FnMut(Response) -> Option<Response>,
    ) -> Result<Vec<Result<Done>>> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            match self.run(command.clone(), &mut take).await {
                Err(error) if !error.connection_lives() => return Err(error),
                outcome => outcomes.push(outcome),
            }
        }
        Ok(outcomes)
    }

    /// Ends an IDLE under way and makes sure that no earlier command is still being answered.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        self.end_idle().await?;
        match self.state {
            State::Ready => Ok(()),
            _ => Err(Fault::Abandoned.into()),
        }
    }

    /// Sends a command, asking before each literal that is not free. From here on the client is busy.
    pub(super) async fn send(
        &mut self,
        command: &Command,
        allowance: Allowance,
        take: &mut impl FnMut(Response) -> Option<Response>,
    ) -> Result<Tag> {
        let tag = self.write(command, allowance, take).await?;
        self.flush().await?;
        Ok(tag)
    }

    /// Like `send`, but what follows its last literal goes out with the next flush.
    async fn write(
        &mut self,
        command: &Command,
        allowance: Allowance,
        take: &mut impl FnMut(Response) -> Option<Response>,
    ) -> Result<Tag> {
        let tag = self.begin(command, allowance);
        let free = self.capabilities.free_literal_bytes_max();
        for part in command.parts() {
            match part {
                Part::Text(text) => {
                    self.out.reserve(text.len() + b"\r\n".len());
                    self.out.extend_from_slice(text);
                }
                Part::Literal(literal) => self.send_literal(literal, free, take).await?,
            }
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(tag)
    }

    pub(super) fn begin(&mut self, command: &Command, allowance: Allowance) -> Tag {
        let tag = self.session.open(allowance);
        trace!(target: "wire::imap", tag, verb = command.verb(), "sending");
        self.state = State::Busy;
        self.deadline = Instant::now() + self.deadlines.command;
        self.out.extend_from_slice(format!("a{tag} ").as_bytes());
        tag
    }

    async fn send_literal(
        &mut self,
        literal: &Literal,
        free: usize,
        take: &mut impl FnMut(Response) -> Option<Response>,
    ) -> Result<()> {
        let bytes = literal.as_bytes();
        let is_free = bytes.len() <= free;
        let plus = if is_free { "+" } else { "" };
        self.out.extend_from_slice(format!("{{{}{plus}}}\r\n", bytes.len()).as_bytes());
        self.flush().await?;
        if !is_free {
            self.continuation(take).await?;
        }
        for piece in bytes.chunks(WRITE_BYTES) {
            self.within(|client| client.stream.write_all(piece)).await?;
        }
        Ok(())
    }

    /// Waits for the server's `+`. A tagged answer instead is the end of the command.
    pub(super) async fn continuation(
        &mut self,
        take: &mut impl FnMut(Response) -> Option<Response>,
    ) -> Result<Bytes> {
        match self.step(take).await? {
            Step::Continuation(text) => Ok(text),
            Step::Tagged(_, done) => {
                self.state = State::Ready;
                // OK before the command is whole makes no sense.
                done.and(Err(Fault::Malformed.into()))
            }
        }
    }

    /// Reads on to the next tagged response or continuation request.
    async fn step(&mut self, take: &mut impl FnMut(Response) -> Option<Response>) -> Result<Step> {
        loop {
            match self.next_response().await? {
                Response::Continuation(text) => return Ok(Step::Continuation(text)),
                Response::Tagged(tag, status) => {
                    return Ok(Step::Tagged(tag.ok_or(Fault::UnknownTag)?, self.outcome(status)));
                }
                response => {
                    if let Some(left) = take(response) {
                        self.absorb(left)?;
                    }
                }
            }
        }
    }

    /// The next response of any kind.
    pub(super) async fn next_response(&mut self) -> Result<Response> {
        loop {
            if let Some(response) = self.session.next()? {
                return Ok(response);
            }
            self.within(Self::read).await?;
        }
    }

    /// Reads once. Cancel-safe: what was read is in the session.
    pub(super) async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(self.session.read_buffer()).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            octets => {
                self.octets_read = self.octets_read.saturating_add(octets as u64);
                Ok(())
            }
        }
    }

    /// Writes what is to be written. Cancel-safe: `written` counts along. Nothing of it stays in memory.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        while self.written < self.out.len() {
            self.within(Self::write_some).await?;
        }
        self.within(|client| client.stream.flush()).await?;
        self.out.zeroize();
        *self.out = Vec::new();
        self.written = 0;
        Ok(())
    }

    async fn write_some(&mut self) -> io::Result<()> {
        let left = self.out.get(self.written..).unwrap_or_default();
        match self.stream.write(left).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => {
                self.written += count;
                Ok(())
            }
        }
    }

    pub(super) fn queue(&mut self, line: &[u8]) {
        self.out.reserve(line.len() + b"\r\n".len());
        self.out.extend_from_slice(line);
        self.out.extend_from_slice(b"\r\n");
    }

    /// One read or write under both deadlines: that of progress and that of the command.
    async fn within<'a, F, T>(&'a mut self, io: impl FnOnce(&'a mut Self) -> F) -> Result<T>
    where
        F: Future<Output = io::Result<T>> + 'a,
        T: 'a,
        S: 'a,
    {
        let deadline = self.deadline.min(Instant::now() + self.deadlines.progress);
        match timeout_at(deadline, io(self)).await {
            Ok(outcome) => outcome.map_err(Error::Io),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// What a tagged status makes of its command.
    pub(super) fn outcome(&mut self, status: Status) -> Result<Done> {
        let Status { condition, code, text } = status;
        if let Some(ResponseCode::Capability(offered)) = &code {
            self.offer(offered.clone());
        }
        match condition {
            Condition::Ok => Ok(Done { code }),
            Condition::No => Err(Error::No { code, text }),
            Condition::Bad => Err(Error::Bad { code, text }),
            Condition::PreAuth | Condition::Bye => Err(Fault::Malformed.into()),
        }
    }

    fn offer(&mut self, offered: Capabilities) {
        self.capabilities = offered;
        self.capabilities_are_old = false;
    }

    /// Takes in what no verb asked for.
    pub(super) fn absorb(&mut self, response: Response) -> Result<()> {
        match response {
            Response::Status(Status { condition: Condition::Bye, code, text }) => {
                return Err(Error::ServerBye { code, text });
            }
            Response::Status(Status { code, text, .. }) => match code {
                Some(ResponseCode::Alert) if self.alerts.len() < ALERTS_MAX => self.alerts.push(text),
                Some(ResponseCode::Capability(offered)) => self.offer(offered),
                Some(ResponseCode::NotificationOverflow) => self.news.overflow = true,
                _ => {}
            },
            Response::Capability(offered) => self.offer(offered),
            Response::Exists(count) => {
                self.news.exists(self.exists, count);
                self.exists = count;
            }
            Response::Expunge => {
                self.exists = self.exists.saturating_sub(1);
                self.news.expunged = true;
            }
            Response::Vanished { earlier: false, uids } => {
                let gone = u32::try_from(uids.len()).unwrap_or(u32::MAX);
                self.exists = self.exists.saturating_sub(gone);
                self.news.expunged = true;
            }
            Response::Fetch(_) => self.news.flags = true,
            Response::MailboxStatus(status) => self.news.status(status),
            _ => {}
        }
        Ok(())
    }
}

/// Where reading stops within a command.
enum Step {
    Tagged(Tag, Result<Done>),
    Continuation(Bytes),
}
