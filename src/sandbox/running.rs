//! The provider's listeners on loopback, from start to shutdown.
//!
//! Not here: what is said on the connections (`imap`, `smtp`).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    behaviour::{Behaviour, Service},
    imap,
    provider::Provider,
    smtp::{self, Door, Relay},
    state::Limits,
};

/// How a door is protected.
#[derive(Clone, Default)]
pub enum Tls {
    #[default]
    None,
    /// From the first octet (RFC 8314).
    Implicit(TlsAcceptor),
    /// After STARTTLS (RFC 3207, RFC 9051 section 6.2.1).
    StartTls(TlsAcceptor),
}

/// What a provider starts with.
#[derive(Clone, Default)]
pub struct Options {
    /// The provider's own domains; `add_user` adds those of users.
    pub domains: Vec<String>,
    pub behaviour: Behaviour,
    pub limits: Limits,
    pub imap_tls: Tls,
    /// Without TLS the submission door takes passwords in clear: it is on loopback.
    pub submission_tls: Tls,
    pub mx_tls: Tls,
    /// Cancelling it closes the doors too.
    pub stop: CancellationToken,
}

/// A provider with its doors open. Dropping it closes them; `stop` also waits for the sessions.
pub struct Running {
    pub provider: Provider,
    pub imap: SocketAddr,
    pub submission: SocketAddr,
    pub mx: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Provider {
    /// Opens the doors on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub async fn start(options: Options) -> io::Result<Running> {
        let domains: Vec<&str> = options.domains.iter().map(String::as_str).collect();
        let provider = Self::new(&domains, options.behaviour, options.limits);
        Running::open(provider, options).await
    }
}

impl Running {
    async fn open(provider: Provider, options: Options) -> io::Result<Self> {
        let (stop, tasks) = (options.stop.child_token(), TaskTracker::new());
        let room = Arc::new(Semaphore::new(options.limits.connections_max));
        let relay = Relay::new(&provider, &tasks, &stop);
        let bytes_max = options.limits.message_bytes_max;
        let behind = (&relay, &stop);
        let listen = |listener: TcpListener| Listening {
            listener,
            room: room.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let (listener, imap) = bind().await?;
        tasks.spawn(serve_imap(listen(listener), provider.clone(), options.imap_tls));
        let (listener, submission) = bind().await?;
        let door = Door::new(Service::Submission, bytes_max, options.submission_tls, behind);
        tasks.spawn(serve_smtp(listen(listener), provider.clone(), door));
        let (listener, mx) = bind().await?;
        let door = Door::new(Service::Mx, bytes_max, options.mx_tls, behind);
        tasks.spawn(serve_smtp(listen(listener), provider.clone(), door));
        Ok(Self { provider, imap, submission, mx, stop, tasks })
    }

    /// Closes the doors, says good-bye to every session and waits for them.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve_imap(listening: Listening, provider: Provider, tls: Tls) {
    let stop = listening.stop.clone();
    listening
        .accept(move |stream, _| {
            let (provider, tls, stop) = (provider.clone(), tls.clone(), stop.clone());
            async move {
                if let Err(error) = imap::serve(stream, &provider, &tls, &stop).await {
                    tracing::debug!(%error, "a sandbox IMAP connection failed");
                }
            }
        })
        .await;
}

async fn serve_smtp(listening: Listening, provider: Provider, door: Door) {
    listening
        .accept(move |stream, peer| {
            let (provider, door) = (provider.clone(), door.clone());
            async move {
                if let Err(error) = smtp::serve(stream, peer, &provider, &door).await {
                    tracing::debug!(%error, "a sandbox SMTP connection failed");
                }
            }
        })
        .await;
}

async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A listening socket with a bound on what it lets in.
struct Listening {
    listener: TcpListener,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Listening {
    async fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl Fn(TcpStream, SocketAddr) -> F,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else { continue };
            // Full: the connection is dropped, which its client sees as one that was closed.
            let Ok(place) = self.room.clone().try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let served = serve(stream, peer);
            self.tasks.spawn(async move {
                served.await;
                drop(place);
            });
        }
    }
}
