//! The composition root: builds the parts from the configuration, starts the roles, and owns shutdown.
//!
//! Not here: anything that a part could decide for itself.

pub mod audit;
pub mod check;
pub mod client;
pub mod demo;
mod development;
pub mod health;
pub mod key;
mod measure;
mod parts;
mod providers;
mod refusal;
pub mod rotation;
pub mod sandbox;
mod serve;
pub mod simulate;
mod stored;
#[cfg(test)]
mod trust_tests;
pub mod why;
mod x509;

pub use parts::{StartError, gateway, master_key};
pub use serve::serve;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, Role},
    flow::{Gateway, MxHandler, submit::SubmissionHandler},
    http,
    net::{self, Certificates},
    smtp::{self, ListenerKind, Mechanism},
    worker,
};

/// How submission listeners let clients log in: by the secret of an API key.
const MECHANISMS: [Mechanism; 4] =
    [Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer];

/// Where a running gateway listens: the ports are real ones, also where the configuration said 0.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    pub mx: Vec<SocketAddr>,
    pub submission: Vec<SocketAddr>,
    pub submissions: Vec<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// A gateway at work.
pub struct Running {
    pub gateway: Gateway,
    pub addresses: Addresses,
    certificates: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Builds everything, binds every listener, and starts the roles the configuration names.
    ///
    /// # Errors
    /// Names what could not be opened, read or bound, and what to do about it.
    pub async fn start(
        config: &Config,
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Result<Self, StartError> {
        let gateway = gateway(config).await?;
        let mut running = Self {
            gateway,
            addresses: Addresses::default(),
            certificates: parts::certificates(config)?,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let ready = Arc::new(AtomicBool::new(false));
        running.listen_http(config, metrics, &ready).await?;
        running.listen_smtp(config)?;
        running.work(config);
        ready.store(true, Ordering::Release);
        Ok(running)
    }

    /// Takes nothing new, finishes the work in hand, and closes the store.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.gateway.sign_in.finish().await;
        self.gateway.store.close().await;
    }

    async fn listen_http(
        &mut self,
        config: &Config,
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
        ready: &Arc<AtomicBool>,
    ) -> Result<(), StartError> {
        if !config.has_role(Role::Http) {
            return Ok(());
        }
        let listener = bind(config.http.listen, "http.listen")?;
        self.addresses.http = listener.local_addr().ok();
        let state = parts::api_state(config, self.gateway.clone(), metrics, Arc::clone(ready))?;
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { http::serve(listener, state, shutdown).await });
        Ok(())
    }

    fn listen_smtp(&mut self, config: &Config) -> Result<(), StartError> {
        let Some(certificates) = self.certificates.clone() else { return Ok(()) };
        let watch = Arc::clone(&certificates).watch(config.tls.reload, self.shutdown.clone());
        self.tasks.spawn(watch);
        if let Some(development) = parts::development(config) {
            self.tasks.spawn(development.keep(self.shutdown.clone()));
        }
        let tls = certificates.server_config(&[b"smtp"])?;
        let (hostname, capacity) = (self.gateway.settings.hostname.clone(), parts::smtp_capacity(config));
        if config.has_role(Role::Mx) {
            if config.trusts_this_machine() {
                tracing::warn!(
                    "mail from this machine is taken as its From says, since neither tls.certificate nor dns.servers is \
                     set: set smtp.mx.trusted_peers before strangers can reach smtp.mx"
                );
            }
            let gateway = self.gateway.clone();
            let factory = move |_, _| MxHandler::new(gateway.clone());
            let server =
                Arc::new(smtp::Server::new(&hostname, &[], capacity.clone(), Some(tls.clone()), factory));
            self.addresses.mx =
                self.serve_smtp(&server, &config.smtp.mx.listen, (ListenerKind::Mx, "smtp.mx.listen"))?;
        }
        if config.has_role(Role::Submission) {
            let gateway = self.gateway.clone();
            let factory = move |_, _| SubmissionHandler::new(gateway.clone());
            let server = Arc::new(smtp::Server::new(&hostname, &MECHANISMS, capacity, Some(tls), factory));
            let kind = (ListenerKind::Submission, "smtp.submission.listen");
            self.addresses.submission = self.serve_smtp(&server, &config.smtp.submission.listen, kind)?;
            let kind = (ListenerKind::Submissions, "smtp.submissions.listen");
            self.addresses.submissions = self.serve_smtp(&server, &config.smtp.submissions.listen, kind)?;
        }
        Ok(())
    }

    fn serve_smtp<F: smtp::HandlerFactory>(
        &self,
        server: &Arc<smtp::Server<F>>,
        listen: &[SocketAddr],
        (kind, option): (ListenerKind, &'static str),
    ) -> Result<Vec<SocketAddr>, StartError> {
        let mut bound = Vec::with_capacity(listen.len());
        for address in listen {
            let listener = bind(*address, option)?;
            bound.extend(listener.local_addr().ok());
            self.tasks.spawn(Arc::clone(server).run(listener, kind, self.shutdown.clone()));
        }
        Ok(bound)
    }

    fn work(&self, config: &Config) {
        if config.coordination.url.is_some() {
            self.tasks.spawn(worker::wake::tell(self.gateway.clone(), self.shutdown.clone()));
        }
        if config.has_role(Role::Http) {
            let certificates = self.certificates.clone();
            self.tasks.spawn(measure::run(self.gateway.clone(), certificates, self.shutdown.clone()));
        }
        if config.has_role(Role::Jobs) {
            self.tasks.spawn(worker::jobs::run(self.gateway.clone(), self.shutdown.clone()));
            self.tasks.spawn(worker::upkeep::run(self.gateway.clone(), self.shutdown.clone()));
            self.tasks.spawn(worker::quotas::run(self.gateway.clone(), self.shutdown.clone()));
            self.tasks.spawn(worker::wake::hear(self.gateway.clone(), self.shutdown.clone()));
        }
        if config.has_role(Role::Accounts) {
            self.tasks.spawn(worker::accounts::run(self.gateway.clone(), self.shutdown.clone()));
        }
    }
}

fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, StartError> {
    net::bind(address).map_err(|source| StartError::Bind { address, option, source })
}
