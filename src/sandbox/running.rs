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

use super::{behaviour::Behaviour, imap, provider::Provider, state::Limits};

/// How a door is protected.
#[derive(Clone, Default)]
pub enum Tls {
    #[default]
    None,
    /// From the first octet (RFC 8314).
    Implicit(TlsAcceptor),
    /// IMAP only.
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
}

/// A provider with its doors open. Dropping it closes them; `stop` also waits for the sessions.
pub struct Running {
    pub provider: Provider,
    pub imap: SocketAddr,
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
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let room = Arc::new(Semaphore::new(options.limits.connections_max));
        let door = |listener: TcpListener| Door {
            listener,
            room: room.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let (listener, imap) = bind().await?;
        let (served, tls, ending) = (provider.clone(), options.imap_tls, stop.clone());
        let imap_door = door(listener);
        tasks.spawn(imap_door.accept(move |stream| {
            let (provider, tls, stop) = (served.clone(), tls.clone(), ending.clone());
            async move {
                if let Err(error) = imap::serve(stream, &provider, &tls, &stop).await {
                    tracing::debug!(%error, "a sandbox IMAP connection failed");
                }
            }
        }));
        Ok(Self { provider, imap, stop, tasks })
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

async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A listening socket with a bound on what it lets in.
struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Door {
    async fn accept<F: Future<Output = ()> + Send + 'static>(self, serve: impl Fn(TcpStream) -> F) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            // Full: the connection is dropped, which its client sees as one that was closed.
            let Ok(place) = self.room.clone().try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let served = serve(stream);
            self.tasks.spawn(async move {
                served.await;
                drop(place);
            });
        }
    }
}
