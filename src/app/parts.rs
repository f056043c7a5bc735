//! Each part, built from its section of the configuration.
//!
//! Not here: when it starts and stops (`Running`).

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use secrecy::ExposeSecret;

use crate::{
    account::ProviderDialer,
    config::{self, Config},
    coord::{Coord, CoordError},
    core::attribution::OurDomains,
    flow::{Gateway, LoopBrake, Settings, sync::Followers},
    http::{ApiState, HostRule},
    imap,
    net::{self, Certificates, Egress, Resolver, Target},
    queue::Queue,
    smtp,
    store::{MasterKey, MasterKeyError, OpenError, Options, Store},
    webhook::{Asked, Poster, PosterError, Resolve},
};

/// Why the gateway could not start. Each says which option is concerned.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} ({option}): is another process there, or does the port need root?")]
    Bind {
        address: SocketAddr,
        option: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open the store (store.url)")]
    Store(#[from] OpenError),
    #[error("cannot use the master key (secrets.master_key_file)")]
    MasterKey(#[from] MasterKeyError),
    #[error(
        "PostgreSQL needs secrets.master_key_file: make 32 random bytes and keep them apart from the database"
    )]
    MasterKeyMissing,
    #[error("cannot use the certificate (tls.certificate, tls.private_key, egress.ca_file)")]
    Tls(#[from] net::TlsError),
    #[error("cannot use the name servers (dns.servers)")]
    Dns(#[from] net::ResolverError),
    #[error("cannot make the client for webhooks (egress.ca_file)")]
    Webhooks(#[from] PosterError),
    #[error("cannot use coordination.url")]
    Coordination(#[from] CoordError),
    #[error("cannot make the data directory {path} (node.data_dir)")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The gateway's heart: store, queue, dialler and settings, without any listener.
///
/// # Errors
/// Names the option that is at fault.
pub async fn gateway(config: &Config) -> Result<Gateway, StartError> {
    let data_dir = &config.node.data_dir;
    std::fs::create_dir_all(data_dir)
        .map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
    let master_key = master_key(config)?;
    let loop_key = master_key.derive("mailweave loop mark");
    let options = Options {
        url: config.store_url().expose_secret().to_owned(),
        blob_dir: data_dir.join("blobs"),
        master_key,
    };
    let store = Store::open(&options).await?;
    let tls = net::client_config(config.egress.ca_file.as_deref())?;
    let dialer = net_dialer(config, Arc::clone(&tls))?;
    Ok(Gateway {
        queue: Queue::new(store.clone()),
        coord: coordination(config)?,
        dialer: provider_dialer(config, dialer.clone()),
        webhooks: Poster::new(webhook_resolver(dialer), &tls)?,
        followers: Followers::new(LOGINS_AT_ONCE),
        brake: LoopBrake::default(),
        settings: Arc::new(settings(config, loop_key)),
        store,
    })
}

/// The key that seals all others: read from its file, or made on the first start beside the embedded store.
///
/// # Errors
/// When it cannot be read or made, or PostgreSQL is used without one.
pub fn master_key(config: &Config) -> Result<MasterKey, StartError> {
    let file = config.master_key_file();
    if file.exists() {
        return Ok(MasterKey::load(&file)?);
    }
    if config.is_postgres() {
        return Err(StartError::MasterKeyMissing);
    }
    tracing::info!("made a master key: without it the store cannot be read, so keep a copy in a safe place");
    Ok(MasterKey::create(&file)?)
}

fn coordination(config: &Config) -> Result<Coord, StartError> {
    let url = config.coordination.url.as_ref();
    Ok(url.map(|url| Coord::redis(url.expose_secret())).transpose()?.unwrap_or_else(Coord::local))
}

fn net_dialer(config: &Config, tls: Arc<rustls::ClientConfig>) -> Result<net::Dialer, StartError> {
    let servers: Vec<SocketAddr> = config.dns.servers.iter().map(|server| server.0).collect();
    let egress = Egress::new(config.egress.allow.clone());
    Ok(net::Dialer::new(Resolver::new(&servers)?, egress, tls, config.egress.connect_timeout))
}

/// Accounts that log in at the same time: a start with thousands of them must not look like an attack.
const LOGINS_AT_ONCE: usize = 20;

/// Ports of public hosts that events may be posted to.
const WEBHOOK_PORTS: [u16; 1] = [443];

/// Finds an endpoint's addresses by the rules of egress.
fn webhook_resolver(dialer: net::Dialer) -> Resolve {
    Resolve::new(move |asked| {
        let dialer = dialer.clone();
        Box::pin(async move { vetted(&dialer, &asked).await.map_err(std::io::Error::other) })
    })
}

async fn vetted(dialer: &net::Dialer, asked: &Asked) -> Result<Vec<SocketAddr>, net::DialError> {
    // The port is the URL's; the rule here is about addresses.
    let target = Target { host: &asked.host, port: 443, security: net::Security::Tls, ports: &WEBHOOK_PORTS };
    let addresses = dialer.resolve(target).await?;
    let by_name = addresses.iter().all(|address| dialer.egress().is_allowed_by_name(address.ip()));
    if asked.plain && !by_name { Err(net::DialError::Forbidden) } else { Ok(addresses) }
}

/// Hosts that the operator allows by name may be reached without TLS.
fn plain_hosts(dialer: net::Dialer) -> HostRule {
    HostRule::new(move |host| {
        let dialer = dialer.clone();
        Box::pin(async move { vetted(&dialer, &Asked { host, plain: true }).await.is_ok() })
    })
}

fn provider_dialer(config: &Config, dialer: net::Dialer) -> ProviderDialer {
    let limits =
        imap::Limits { message_bytes_max: config.smtp.message_bytes_max.0, ..imap::Limits::default() };
    let deadlines = imap::Deadlines {
        progress: config.sync.progress_timeout,
        command: config.sync.command_timeout,
        ..imap::Deadlines::default()
    };
    ProviderDialer::new(dialer, limits, deadlines, smtp::Timeouts::default())
}

fn settings(config: &Config, loop_key: [u8; 32]) -> Settings {
    let domain = |domain: &Option<config::DomainName>| domain.as_ref().map(ToString::to_string);
    Settings {
        hostname: hostname(config),
        ours: OurDomains { capture: domain(&config.domains.capture), reply: domain(&config.domains.reply) },
        loop_key,
        job_lease: config.coordination.lease,
        submission_lifetime: config.outbound.retry_lifetime,
        reconcile_waits: config.outbound.reconcile.clone(),
        sent_copy_wait: config.outbound.sent_copy_wait,
        sync_poll: config.sync.poll,
        idle_renew: config.sync.idle_renew,
        message_bytes_max: config.smtp.message_bytes_max.0,
        accounts_max: config.sync.accounts_max,
    }
}

/// The name in EHLO, Received and Message-IDs: as configured, else our capture domain, which at least exists.
fn hostname(config: &Config) -> String {
    let capture = || config.domains.capture.as_ref().map(ToString::to_string);
    config.smtp.hostname.clone().or_else(capture).unwrap_or_else(|| "localhost".to_owned())
}

/// The listeners' certificate, if one is configured.
pub(super) fn certificates(config: &Config) -> Result<Option<Arc<Certificates>>, StartError> {
    match (&config.tls.certificate, &config.tls.private_key) {
        (Some(certificate), Some(key)) => Ok(Some(Certificates::load(certificate, key)?)),
        _ => Ok(None),
    }
}

pub(super) fn smtp_limits(config: &Config) -> smtp::Limits {
    let smtp = &config.smtp;
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    smtp::Limits {
        message_bytes_max: smtp.message_bytes_max.0,
        recipients_max: count(smtp.recipients_max),
        errors_max: smtp.errors_max,
        command_timeout: smtp.idle_timeout,
        data_time_max: smtp.data_timeout,
        connections_max: count(smtp.connections_max),
        connections_per_address_max: count(smtp.connections_per_client_max),
        shutdown_grace: config.node.shutdown_grace,
        ..smtp::Limits::default()
    }
}

pub(super) fn api_state(
    config: &Config,
    gateway: Gateway,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ready: Arc<AtomicBool>,
) -> ApiState {
    let gateway_dialer = gateway.dialer.net().clone();
    ApiState {
        gateway,
        admin_key: config.http.admin_key.clone(),
        ready,
        metrics,
        public_url: config.http.public_url.clone(),
        plain_hosts: plain_hosts(gateway_dialer),
        message_bytes_max: usize::try_from(config.smtp.message_bytes_max.0).unwrap_or(usize::MAX),
    }
}
