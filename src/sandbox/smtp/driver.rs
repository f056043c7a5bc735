//! Runs an SMTP session over a connection with the tap in between: reads, writes, asks the desk, shakes hands.
//!
//! Not here: any rule of SMTP, and what a fault does.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    mail::Address,
    sandbox::{
        behaviour::Service,
        ledger::Said,
        provider::Provider,
        running::Tls,
        tap::{Tap, TapStep},
    },
    smtp::{
        Answer, Budget, Handler, Limits, ListenerKind, Mechanism, Question, Reply, Session, Settings, Step,
    },
};

use super::{Desk, HOSTNAME, Relay};

const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 16 * 1024;

/// One of the provider's SMTP listeners.
#[derive(Clone)]
pub(in crate::sandbox) struct Door {
    service: Service,
    settings: Arc<Settings>,
    tls: Tls,
    relay: Relay,
    stop: CancellationToken,
}

impl Door {
    pub(in crate::sandbox) fn new(
        service: Service,
        message_bytes_max: usize,
        tls: Tls,
        behind: (&Relay, &CancellationToken),
    ) -> Self {
        let limits = Limits {
            message_bytes_max: u64::try_from(message_bytes_max).unwrap_or(u64::MAX),
            ..Limits::default()
        };
        let budget = Budget::new(limits.buffered_bytes_max);
        let settings = Settings {
            hostname: HOSTNAME.to_owned(),
            limits,
            mechanisms: vec![Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer],
            budget,
            tls: matches!(tls, Tls::StartTls(_)),
        };
        Self { service, settings: Arc::new(settings), tls, relay: behind.0.clone(), stop: behind.1.clone() }
    }

    fn session(&self, peer: SocketAddr) -> Session {
        let (kind, protected) = match (self.service, &self.tls) {
            (Service::Submission, Tls::StartTls(_)) => (ListenerKind::Submission, false),
            // Without TLS on loopback the session is told that all is well, or it would take no password.
            (Service::Submission, _) => (ListenerKind::Submissions, true),
            (_, tls) => (ListenerKind::Mx, matches!(tls, Tls::Implicit(_))),
        };
        Session::new(Arc::clone(&self.settings), peer, kind, protected)
    }
}

/// Serves one connection to its end.
///
/// # Errors
/// When the connection fails or the client is too slow.
pub(in crate::sandbox) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    provider: &Provider,
    door: &Door,
) -> io::Result<()> {
    let mut conversation = Conversation {
        number: provider.with(|world| world.next_session()),
        desk: Desk::new(provider, door.service, &door.relay),
        session: door.session(peer),
        tap: Tap::new(),
        provider,
        door,
        secure: false,
    };
    let acceptor = match &door.tls {
        Tls::None => return conversation.run(&mut stream).await.map(drop),
        Tls::Implicit(acceptor) => acceptor,
        Tls::StartTls(acceptor) => {
            if conversation.run(&mut stream).await? == Ended::Closed {
                return Ok(());
            }
            conversation.tap.secured();
            acceptor
        }
    };
    let mut stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    conversation.secure = true;
    if matches!(door.tls, Tls::StartTls(_)) {
        conversation.session.secured();
    }
    conversation.run(&mut stream).await.map(drop)
}

#[derive(PartialEq, Eq)]
enum Ended {
    Closed,
    StartTls,
}

/// How far the session has got by itself.
#[derive(PartialEq, Eq)]
enum Pumped {
    NeedsInput,
    StartTls,
    Closed,
}

struct Conversation<'a> {
    number: u64,
    desk: Desk,
    session: Session,
    tap: Tap,
    provider: &'a Provider,
    door: &'a Door,
    secure: bool,
}

impl Conversation<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<Ended> {
        let mut buffer = vec![0; READ_BYTES];
        let mut pumped = self.pump().await;
        loop {
            match self.tap.step() {
                TapStep::Judge { verb, line } => {
                    let act = self.provider.hear(self.said(verb, line));
                    self.tap.judged(act);
                }
                TapStep::ToServer(_) if pumped != Pumped::NeedsInput => {}
                TapStep::ToServer(octets) => {
                    self.session.receive(&octets);
                    pumped = self.pump().await;
                }
                TapStep::ToClient(octets) => write(stream, &octets).await?,
                TapStep::Hold(pause) => tokio::select! {
                    () = sleep(pause) => {}
                    () = self.door.stop.cancelled() => return Ok(Ended::Closed),
                },
                TapStep::Close => return Ok(self.close(stream).await),
                TapStep::More => match pumped {
                    Pumped::Closed => return Ok(self.close(stream).await),
                    Pumped::StartTls => return Ok(Ended::StartTls),
                    Pumped::NeedsInput => {
                        let octets = self.hear(stream, &mut buffer).await?;
                        if octets == 0 {
                            return Ok(Ended::Closed);
                        }
                        self.tap.client(buffer.get(..octets).unwrap_or_default());
                    }
                },
            }
        }
    }

    async fn close<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Ended {
        // Whoever sees the connection close may begin another at once.
        self.desk.leave();
        // The peer may be gone already; there is nothing left to lose.
        let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
        Ended::Closed
    }

    /// Octets read; 0 when it is time to go.
    async fn hear<S: AsyncRead + Unpin>(&self, stream: &mut S, buffer: &mut [u8]) -> io::Result<usize> {
        tokio::select! {
            read = timeout(IDLE_TIMEOUT, stream.read(buffer)) => read?,
            () = self.door.stop.cancelled() => Ok(0),
        }
    }

    /// Lets the session go on until it needs more from the client; what it says goes to the tap.
    async fn pump(&mut self) -> Pumped {
        loop {
            match self.session.step() {
                Step::NeedInput => return Pumped::NeedsInput,
                Step::StartTls => return Pumped::StartTls,
                Step::Close => return Pumped::Closed,
                Step::Output(octets) => self.tap.server(&octets),
                Step::Aborted => self.desk.reset(),
                Step::Ask(question) => {
                    let answer = self.ask(question).await;
                    self.session.answer(answer);
                }
            }
        }
    }

    async fn ask(&mut self, question: Question) -> Answer {
        let info = self.session.info();
        match question {
            Question::Mail { from, declared_size } => {
                Answer::Reply(self.desk.mail(info, &from, declared_size).await)
            }
            Question::Rcpt(recipient) => Answer::Reply(self.desk.rcpt(info, &recipient).await),
            // A fault refuses the message; the tap has the words for it.
            Question::Message { .. } if self.tap.take_void() => Answer::Reply(Reply::local_error()),
            Question::Message { envelope, message } => {
                Answer::Reply(self.desk.message(info, envelope, message).await)
            }
            Question::Authenticate(credentials) => {
                Answer::Authentication(self.desk.authenticate(info, credentials).await)
            }
        }
    }

    fn said(&self, verb: String, line: String) -> Said {
        let user = self.session.info().authenticated.as_deref().and_then(|user| Address::parse(user).ok());
        Said { session: self.number, service: self.door.service, user, secure: self.secure, verb, line }
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(octets).await?;
        stream.flush().await
    };
    timeout(WRITE_TIMEOUT, written).await?
}
