//! One connection: moves octets between a stream and a session, asks the handler, keeps the deadlines.
//!
//! Not here: any rule of SMTP (`session`).

use std::{cell::RefCell, future::poll_fn, io, pin::Pin, task::ready, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    super::{
        Answer, Handler, Limits, ListenerKind, Question, Reply, Session, Step, Waiting, guesses::Guesses,
    },
    Wire,
};
use crate::mail::Recipient;

/// Octets of one read. One buffer a thread serves all its sessions: an idle session owns none.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

pub(super) struct Conversation<'a, H> {
    pub(super) session: Session,
    pub(super) handler: H,
    pub(super) limits: &'a Limits,
    pub(super) guesses: &'a Guesses,
    pub(super) acceptor: Option<&'a TlsAcceptor>,
    pub(super) shutdown: CancellationToken,
    /// How long to listen before the greeting.
    pub(super) patience: Duration,
    /// When this session first noticed that the server stops.
    pub(super) stopping: Option<Instant>,
}

/// How waiting for the peer ended.
enum Heard {
    Octets,
    /// The peer closed, or the network did.
    Nothing,
    TooLate,
    ShutDown,
}

impl<H: Handler> Conversation<'_, H> {
    /// Runs to the end of the session. Never fails: whatever goes wrong on the wire ends this connection and nothing else.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(mut self, mut wire: Wire<S>) {
        self.listen_for_early_talk(&mut wire).await;
        let mut since = Instant::now();
        loop {
            match self.session.step() {
                Step::NeedInput => match self.hear(&mut wire, since).await {
                    // Part of a line or of a message is no progress: the deadline stays where it is.
                    Heard::Octets => continue,
                    Heard::Nothing => return,
                    Heard::TooLate => self.session.time_out(),
                    Heard::ShutDown => self.session.shut_down(),
                },
                Step::Output(octets) => {
                    if self.write(&mut wire, &octets).await.is_err() {
                        return;
                    }
                }
                Step::Ask(question) => {
                    let answer = self.ask(question).await;
                    self.session.answer(answer);
                }
                Step::Aborted => self.handler.reset(),
                Step::StartTls => match self.secure(wire).await {
                    Some(secured) => wire = secured,
                    None => return,
                },
                Step::Close => return self.close(wire).await,
            }
            since = Instant::now();
        }
    }

    /// Gives peers that talk before the greeting a moment to show themselves.
    async fn listen_for_early_talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) {
        if let Ok(Err(error)) = timeout(self.patience, receive(wire, &mut self.session)).await {
            debug!(%error, "connection failed before the greeting");
        }
    }

    /// Waits for octets, the deadline or the end of the server, whichever comes first.
    async fn hear<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, since: Instant) -> Heard {
        let waiting = self.session.waiting();
        let deadline = deadline(self.limits, waiting, since);
        if waiting == Waiting::Command && self.shutdown.is_cancelled() {
            return Heard::ShutDown;
        }
        let grace = if waiting == Waiting::Command { Duration::ZERO } else { self.limits.shutdown_grace };
        let stopped = async {
            self.shutdown.cancelled().await;
            let since = *self.stopping.get_or_insert_with(Instant::now);
            sleep_until(since + grace).await;
        };
        let received = tokio::select! {
            biased;
            received = receive(wire, &mut self.session) => received,
            () = stopped => return Heard::ShutDown,
            () = sleep_until(deadline) => return Heard::TooLate,
        };
        match received {
            // A peer that sends without end must outrun neither its deadline nor the end of the server.
            Ok(octets) if octets > 0 => match () {
                () if self.has_stopped(grace) => Heard::ShutDown,
                () if Instant::now() >= deadline => Heard::TooLate,
                () => Heard::Octets,
            },
            _ => Heard::Nothing,
        }
    }

    /// Whether the server has been stopping for this long.
    fn has_stopped(&mut self, grace: Duration) -> bool {
        self.shutdown.is_cancelled()
            && *self.stopping.get_or_insert_with(Instant::now) + grace <= Instant::now()
    }

    async fn write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        octets: &[u8],
    ) -> io::Result<()> {
        let written = async {
            wire.write_all(octets).await?;
            wire.flush().await
        };
        timeout(self.limits.write_timeout, written)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The handler's futures are boxed: they exist for moments, and idle sessions should not carry room for them.
    async fn ask(&mut self, question: Question) -> Answer {
        let info = self.session.info();
        match question {
            Question::Mail { from, declared_size } => {
                Answer::Reply(Box::pin(self.handler.mail(info, &from, declared_size)).await)
            }
            Question::Rcpt(recipient) => Answer::Reply(Box::pin(self.rcpt(&recipient)).await),
            Question::Message { envelope, message } => {
                let listener = info.listener.name();
                metrics::counter!("mailweave_smtp_messages_received_total", "listener" => listener)
                    .increment(1);
                let started = Instant::now();
                let reply = Box::pin(self.handler.message(info, envelope, message)).await;
                metrics::histogram!("mailweave_smtp_accept_seconds", "listener" => listener)
                    .record(started.elapsed().as_secs_f64());
                Answer::Reply(reply)
            }
            Question::Authenticate(credentials) => {
                Answer::Authentication(Box::pin(self.handler.authenticate(info, credentials)).await)
            }
        }
    }

    /// Asks about a recipient, but not for a peer of the MX listener who has named too many that do not exist: it hears
    /// the same of those that do.
    async fn rcpt(&mut self, recipient: &Recipient) -> Reply {
        let info = self.session.info();
        let (client, is_mx) = (info.peer.ip(), info.listener == ListenerKind::Mx);
        if is_mx && self.guesses.of(client, Instant::now()) >= self.limits.unknown_recipients_max {
            return Reply::too_many("Too many unknown recipients, try again later");
        }
        let reply = self.handler.rcpt(info, recipient).await;
        if is_mx && reply.is_permanent() {
            self.guesses.note(client, Instant::now());
        }
        reply
    }

    async fn secure<S: AsyncRead + AsyncWrite + Unpin + Send>(&mut self, wire: Wire<S>) -> Option<Wire<S>> {
        let (Wire::Left(stream), Some(acceptor)) = (wire, self.acceptor) else { return None };
        let handshake = timeout(self.limits.handshake_timeout, Box::pin(acceptor.accept(stream)));
        let Ok(Ok(secured)) = handshake.await else {
            debug!("TLS handshake failed");
            return None;
        };
        self.session.secured();
        Some(Wire::Right(Box::new(secured)))
    }

    /// Says good-bye to the transport. A peer we hung up on is listened to a little longer, see `Limits::linger`.
    async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut wire: Wire<S>) {
        let until = Instant::now() + self.limits.linger;
        if !matches!(timeout_at(until, wire.shutdown()).await, Ok(Ok(()))) || !self.session.closes_in_anger()
        {
            return;
        }
        let mut left = self.limits.message_bytes_max;
        while let Ok(Ok(octets)) = timeout_at(until, receive(&mut wire, &mut self.session)).await {
            left = left.saturating_sub(u64::try_from(octets).unwrap_or(u64::MAX));
            if octets == 0 || left == 0 || self.shutdown.is_cancelled() {
                return;
            }
        }
    }
}

/// When the peer must have said what it is saying.
fn deadline(limits: &Limits, waiting: Waiting, since: Instant) -> Instant {
    match waiting {
        Waiting::Command => since + limits.command_timeout,
        Waiting::Data { received } => {
            let earned = Duration::from_secs(received.checked_div(limits.data_rate_min).unwrap_or(u64::MAX));
            since + limits.data_grace.saturating_add(earned).min(limits.data_time_max)
        }
    }
}

/// One read straight into the session. Cancel-safe: octets are either still in the stream or already in the session.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    session: &mut Session,
) -> io::Result<usize> {
    poll_fn(|cx| {
        READ.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *wire).poll_read(cx, &mut read))?;
            session.receive(read.filled());
            std::task::Poll::Ready(Ok(read.filled().len()))
        })
    })
    .await
}
