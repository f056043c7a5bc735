//! Listeners and connections: accepts, counts, upgrades to TLS and runs a session over each stream.
//!
//! Not here: the protocol (`session`), what a connection does (`conversation`), binding and certificates (`net`).

mod conversation;

use std::{io, io::Write, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, warn};

use super::{
    Budget, HandlerFactory, Limits, ListenerKind, Mechanism, Reply, Session, Settings, admission::Admission,
    guesses::Guesses,
};
use conversation::Conversation;

/// A connection before and after TLS. The TLS state is boxed: most idle connections of an MX listener never have one.
type Wire<S> = Either<S, Box<TlsStream<S>>>;

/// First and longest pause after a failed accept. Out of file descriptors, an accept loop without pause burns a core.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long reading what an early talker said may take; it lies in the socket already.
const EARLY_TALK_READ: Duration = Duration::from_secs(1);

/// One connection that was accepted.
struct Guest {
    peer: SocketAddr,
    kind: ListenerKind,
    /// How long to listen before the greeting, if longer than the configured delay.
    patience: Duration,
}

/// What the listeners of a process share: limits, the connections and the memory that count towards them, and who guesses.
#[derive(Debug, Clone)]
pub struct Capacity {
    limits: Limits,
    budget: Budget,
    admission: Arc<Admission>,
    guesses: Arc<Guesses>,
}

impl Capacity {
    /// All of it free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let budget = Budget::new(limits.buffered_bytes_max);
        Self { limits, budget, admission: Arc::default(), guesses: Arc::default() }
    }
}

/// Everything that the connections of some listeners share: those with one kind of handler.
pub struct Server<F> {
    settings: Arc<Settings>,
    admission: Arc<Admission>,
    guesses: Arc<Guesses>,
    acceptor: Option<TlsAcceptor>,
    factory: F,
}

impl<F: HandlerFactory> Server<F> {
    /// A server that offers STARTTLS (and implicit TLS) if it is given a TLS configuration, and AUTH by these mechanisms where
    /// its listeners are for submission.
    #[must_use]
    pub fn new(
        hostname: &str,
        mechanisms: &[Mechanism],
        capacity: Capacity,
        tls: Option<Arc<rustls::ServerConfig>>,
        factory: F,
    ) -> Self {
        let Capacity { limits, budget, admission, guesses } = capacity;
        let (hostname, mechanisms, tls_offered) = (hostname.to_owned(), mechanisms.to_vec(), tls.is_some());
        let settings = Settings { hostname, limits, mechanisms, budget, tls: tls_offered };
        let acceptor = tls.map(TlsAcceptor::from);
        Self { settings: Arc::new(settings), admission, guesses, acceptor, factory }
    }

    /// Serves one listener until `shutdown`; returns when its last session has ended.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        kind: ListenerKind,
        shutdown: CancellationToken,
    ) {
        // Shown from the start: whoever watches for a rise has to see where it began.
        refusals(kind).increment(0);
        let sessions = TaskTracker::new();
        let mut pause = ACCEPT_PAUSES.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSES.0;
                    self.admit(stream, Guest { peer, kind, patience: Duration::ZERO }, &shutdown, &sessions);
                }
                // The peer was gone before we came: its fault, no reason to wait.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(listener = kind.name(), %error, "cannot accept connections");
                    tokio::select! { () = shutdown.cancelled() => {} () = sleep(pause) => {} }
                    pause = pause.saturating_mul(2).min(ACCEPT_PAUSES.1);
                }
            }
        }
        drop(listener);
        sessions.close();
        sessions.wait().await;
    }

    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        guest: Guest,
        shutdown: &CancellationToken,
        sessions: &TaskTracker,
    ) {
        let kind = guest.kind;
        metrics::counter!("mailweave_smtp_connections_total", "listener" => kind.name()).increment(1);
        let Some(permit) = self.admission.admit(guest.peer.ip(), kind, &self.settings.limits) else {
            refusals(kind).increment(1);
            turn_away(stream, kind);
            return;
        };
        // Replies are written whole; waiting to join them with more only delays the peer.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "no TCP_NODELAY");
        }
        let (server, shutdown) = (Arc::clone(self), shutdown.clone());
        let span = debug_span!("smtp.session", listener = kind.name(), peer = %guest.peer);
        let session = async move {
            let patience = patience(&stream, kind);
            server.serve_guest(stream, Guest { patience, ..guest }, shutdown).await;
            drop(permit);
        };
        sessions.spawn(session.instrument(span));
    }

    /// Runs one session over a stream that was accepted elsewhere; no connection caps apply.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr, kind: ListenerKind, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.serve_guest(stream, Guest { peer, kind, patience: Duration::ZERO }, shutdown).await;
    }

    async fn serve_guest<S>(&self, stream: S, guest: Guest, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Guest { peer, kind, patience } = guest;
        let limits = &self.settings.limits;
        let implicit = kind == ListenerKind::Submissions;
        let wire = match (&self.acceptor, implicit) {
            (Some(acceptor), true) => {
                let Ok(Ok(secured)) =
                    timeout(limits.handshake_timeout, Box::pin(acceptor.accept(stream))).await
                else {
                    debug!("TLS handshake failed");
                    return;
                };
                Wire::Right(Box::new(secured))
            }
            (None, true) => {
                warn!("no certificate is configured for the listener with implicit TLS");
                return;
            }
            _ => Wire::Left(stream),
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let session = Session::new(Arc::clone(&self.settings), peer, kind, implicit);
        let handler = self.factory.handler(peer, kind);
        let patience = patience.max(limits.greeting_delay);
        Conversation {
            session,
            handler,
            limits,
            guesses: &self.guesses,
            acceptor: self.acceptor.as_ref(),
            shutdown,
            patience,
            stopping: None,
        }
        .run(wire)
        .await;
    }
}

/// How long to listen to a peer before the greeting. Under implicit TLS what lies in the socket is the handshake, which is
/// the peer's to begin.
fn patience(stream: &TcpStream, kind: ListenerKind) -> Duration {
    let talks_early = kind != ListenerKind::Submissions && has_spoken(stream);
    if talks_early { EARLY_TALK_READ } else { Duration::ZERO }
}

/// Connections turned away because one limit or another was reached.
fn refusals(kind: ListenerKind) -> metrics::Counter {
    metrics::counter!("mailweave_smtp_connections_refused_total", "listener" => kind.name())
}

/// Whether octets of the peer lie in the socket already. Asked of the kernel through a duplicate: the runtime learns of
/// readiness only later, and an answer that late costs every honest peer a delay.
fn has_spoken(stream: &TcpStream) -> bool {
    let Ok(duplicate) = stream.as_fd().try_clone_to_owned() else { return false };
    std::net::TcpStream::from(duplicate).peek(&mut [0]).is_ok_and(|octets| octets > 0)
}

/// Says 421 without waiting: whoever is refused must not cost a task. Under implicit TLS there is nobody to say it to.
fn turn_away(stream: TcpStream, kind: ListenerKind) {
    if kind == ListenerKind::Submissions {
        return;
    }
    let mut wire = Vec::new();
    Reply::too_many("Too many connections, try again later").write(&mut wire);
    // The socket is fresh, so its send buffer takes this at once; if not, the peer sees the connection close.
    if let Err(error) = stream.into_std().and_then(|mut stream| stream.write_all(&wire)) {
        debug!(%error, "could not say 421");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn only_who_must_wait_for_the_greeting_can_talk_too_early() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        for kind in [ListenerKind::Mx, ListenerKind::Submission, ListenerKind::Submissions] {
            assert_eq!(patience(&stream, kind), Duration::ZERO, "{kind:?}: nothing was said");
        }
        client.write_all(b"x").await.unwrap();
        stream.peek(&mut [0]).await.unwrap();
        assert_eq!(patience(&stream, ListenerKind::Mx), EARLY_TALK_READ);
        assert_eq!(patience(&stream, ListenerKind::Submission), EARLY_TALK_READ);
        assert_eq!(patience(&stream, ListenerKind::Submissions), Duration::ZERO, "that is its ClientHello");
    }
}
