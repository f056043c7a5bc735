//! Each part, built from its section of the configuration.
//!
//! Not here: when it starts and stops (`Running`).

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use secrecy::ExposeSecret;

use super::{
    development::{Development, DevelopmentError},
    providers::{own_url, providers},
};
use crate::{
    account::{Caps, FETCH_TIMEOUT, Finder, ProviderDialer, oauth::Providers},
    config::{self, Config},
    coord::{Coord, CoordError},
    core::attribution::OurDomains,
    flow::{self, Gateway, Keyring, LoopBrake, Settings, login::SignIn, sync::Followers},
    http::{ApiState, Discovery, HostRule},
    imap,
    net::{self, Certificates, Egress, HostLookup, Resolver, Web},
    queue::Queue,
    smtp,
    store::{self, MasterKey, MasterKeyError, OpenError, Options, Store},
    webhook::Poster,
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
    #[error("cannot read the keys of the gateway from the store (store.url)")]
    Keys(#[from] store::Error),
    #[error("cannot use the master key (secrets.master_key_file)")]
    MasterKey(#[from] MasterKeyError),
    #[error("there is a store and no master key at {} (secrets.master_key_file): put your copy of it there", .0.display())]
    MasterKeyGone(PathBuf),
    #[error(
        "PostgreSQL needs secrets.master_key_file: make 32 random bytes and keep them apart from the database"
    )]
    MasterKeyMissing,
    #[error("cannot use the certificate (tls.certificate, tls.private_key, egress.ca_file)")]
    Tls(#[from] net::TlsError),
    #[error("cannot make a development certificate (node.data_dir, or set tls.certificate)")]
    Development(#[from] DevelopmentError),
    #[error("cannot use the name servers (dns.servers)")]
    Dns(#[from] net::ResolverError),
    #[error("cannot make a client for HTTPS (egress.ca_file)")]
    Webhooks(#[from] net::WebError),
    #[error("cannot use oauth.{name}: {problem}")]
    Provider { name: String, problem: String },
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
    assemble(config, store(config).await?).await
}

/// Everything else around a store that is open.
pub(super) async fn assemble(config: &Config, store: Store) -> Result<Gateway, StartError> {
    let (dialer, tls) = net_dialer(config)?;
    store.make_gateway_keys(flow::now()).await?;
    Ok(Gateway {
        queue: Queue::new(store.clone()),
        coord: coordination(config)?,
        dialer: provider_dialer(config, dialer.clone()),
        sign_in: SignIn::new(providers(config, dialer.clone(), &tls)?),
        webhooks: Poster::new(net::Resolve::vetted(dialer), &tls)?,
        followers: Followers::default(),
        brake: LoopBrake::default(),
        senders: flow::sender::SenderChecker::new(resolver(config)?),
        reply_keys: Keyring::load(&store).await?,
        settings: Arc::new(settings(config, store.mark_key().await?)),
        store,
    })
}

/// The store, made with its data directory and its master key when this is the first start.
pub(super) async fn store(config: &Config) -> Result<Store, StartError> {
    let data_dir = &config.node.data_dir;
    std::fs::create_dir_all(data_dir)
        .map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
    let master_key = master_key(config)?;
    let options = Options {
        url: config.store_url().expose_secret().to_owned(),
        blob_dir: data_dir.join("blobs"),
        master_key,
    };
    Ok(Store::open(&options).await?)
}

/// The key that seals all others: read from its file, or made on the first start beside the embedded store.
///
/// # Errors
/// When it cannot be read or made, is gone from beside a store, or PostgreSQL is used without one.
pub fn master_key(config: &Config) -> Result<MasterKey, StartError> {
    let file = config.master_key_file();
    if file.exists() {
        return Ok(MasterKey::load(&file)?);
    }
    if config.is_postgres() {
        return Err(StartError::MasterKeyMissing);
    }
    // A new key would be of no use to what was sealed under the old one.
    if config.embedded_file().is_some_and(|store| store.exists()) {
        return Err(StartError::MasterKeyGone(file));
    }
    let made = MasterKey::create(&file)?;
    tracing::info!("made a master key: without it the store cannot be read, so keep a copy in a safe place");
    Ok(made)
}

fn coordination(config: &Config) -> Result<Coord, StartError> {
    let url = config.coordination.url.as_ref();
    Ok(url.map(|url| Coord::redis(url.expose_secret())).transpose()?.unwrap_or_else(Coord::local))
}

fn net_dialer(config: &Config) -> Result<(net::Dialer, Arc<rustls::ClientConfig>), StartError> {
    let tls = net::client_config(config.egress.ca_file.as_deref())?;
    let egress = Egress::new(config.egress.allow.clone());
    Ok((net::Dialer::new(resolver(config)?, egress, Arc::clone(&tls), config.egress.connect_timeout), tls))
}

fn resolver(config: &Config) -> Result<Resolver, net::ResolverError> {
    let servers: Vec<SocketAddr> = config.dns.servers.iter().map(|server| server.0).collect();
    Resolver::new(&servers)
}

/// The providers that users sign in at.
pub(super) fn sign_in(config: &Config) -> Result<Providers, StartError> {
    let (dialer, tls) = net_dialer(config)?;
    providers(config, dialer, &tls)
}

/// What dials providers and smarthosts.
pub(super) fn dialer(config: &Config) -> Result<ProviderDialer, StartError> {
    Ok(provider_dialer(config, net_dialer(config)?.0))
}

/// Hosts that the operator allows by name may be reached without TLS, and on any port.
fn plain_hosts(dialer: net::Dialer) -> HostRule {
    let resolve = net::Resolve::vetted(dialer);
    HostRule::new(move |host| {
        let resolve = resolve.clone();
        Box::pin(async move { resolve.ask(HostLookup { host, inside: true }).await.is_ok() })
    })
}

fn provider_dialer(config: &Config, dialer: net::Dialer) -> ProviderDialer {
    let limits =
        imap::Limits { message_bytes_max: config.smtp.message_bytes_max.0, ..imap::Limits::default() };
    let deadlines = imap::Deadlines {
        progress: config.sync.progress_timeout,
        command: config.sync.command_timeout,
        done: config.sync.progress_timeout.min(imap::Deadlines::default().done),
    };
    ProviderDialer::new(dialer, limits, deadlines, smtp::Timeouts::default())
        .paced(config.sync.connections_per_second)
        .capped(Caps {
            per_account: config.sync.connections_per_account,
            per_host: config.sync.connections_per_host,
        })
}

fn settings(config: &Config, loop_key: [u8; 32]) -> Settings {
    let domain = |domain: &Option<config::DomainName>| domain.as_ref().map(ToString::to_string);
    Settings {
        node: config.node.name.clone().unwrap_or_else(|| hostname(config)),
        hostname: hostname(config),
        ours: OurDomains { capture: domain(&config.domains.capture), reply: domain(&config.domains.reply) },
        trusted_peers: config.trusted_peers(),
        trusted_sealers: config.smtp.mx.trusted_sealers.iter().map(ToString::to_string).collect(),
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
    let name = config.smtp.hostname.as_ref().or(config.domains.capture.as_ref());
    name.map_or_else(|| "localhost".to_owned(), ToString::to_string)
}

/// What makes a certificate when none is configured.
pub(super) fn development(config: &Config) -> Option<Development> {
    Some(Development::new(config.development_authority()?, hostname(config)))
}

/// The SMTP listeners' certificate: the one configured, else a development certificate. `None` when nothing listens.
pub(super) fn certificates(config: &Config) -> Result<Option<Arc<Certificates>>, StartError> {
    if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.private_key) {
        return Ok(Some(Certificates::load(certificate, key)?));
    }
    let Some(development) = development(config) else { return Ok(None) };
    development.ensure(flow::now())?;
    Ok(Some(Certificates::load(&development.pair(), &development.pair())?))
}

/// Of `shutdown_grace`, what is kept for closing the store when the last straggler has been cut off.
const CLOSING_TIME: Duration = Duration::from_secs(3);

/// How long the listeners let work in hand go on: a little less than `serve` waits for them, or one slow client would keep
/// the store from being closed in order.
fn grace_of_parts(config: &Config) -> Duration {
    let grace = config.node.shutdown_grace;
    grace.saturating_sub(CLOSING_TIME.min(grace / 4))
}

/// One for all SMTP listeners.
pub(super) fn smtp_capacity(config: &Config) -> smtp::Capacity {
    smtp::Capacity::new(smtp_limits(config))
}

/// How often the largest message fits into the shared memory: handling one takes up to five times its size.
const LARGEST_AT_ONCE: u64 = 16;

fn smtp_limits(config: &Config) -> smtp::Limits {
    let smtp = &config.smtp;
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let defaults = smtp::Limits::default();
    smtp::Limits {
        message_bytes_max: smtp.message_bytes_max.0,
        recipients_max: count(smtp.recipients_max),
        errors_max: smtp.errors_max,
        command_timeout: smtp.idle_timeout,
        data_time_max: smtp.data_timeout,
        connections_max: count(smtp.connections_max),
        connections_per_client_max: count(smtp.connections_per_client_max),
        shutdown_grace: grace_of_parts(config),
        // Else a raised message_bytes_max would be promised by SIZE and never be kept.
        buffered_bytes_max: defaults
            .buffered_bytes_max
            .max(smtp.message_bytes_max.0.saturating_mul(LARGEST_AT_ONCE)),
        ..defaults
    }
}

pub(super) fn api_state(
    config: &Config,
    gateway: Gateway,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ready: Arc<AtomicBool>,
) -> Result<ApiState, StartError> {
    let gateway_dialer = gateway.dialer.net().clone();
    let web = Web::new(net::Resolve::vetted(gateway_dialer.clone()), gateway_dialer.tls(), FETCH_TIMEOUT)?;
    let finder = Finder::new(gateway.dialer.clone(), web, hostname(config));
    Ok(ApiState {
        gateway,
        admin_key: config.http.admin_key.clone(),
        ready,
        metrics,
        public_url: config.http.public_url.clone(),
        own_url: own_url(config),
        discovery: Discovery::by(finder),
        plain_hosts: plain_hosts(gateway_dialer),
        message_bytes_max: usize::try_from(config.smtp.message_bytes_max.0).unwrap_or(usize::MAX),
        shutdown_grace: grace_of_parts(config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(variables: &[(&str, &str)]) -> smtp::Limits {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        smtp_limits(&Config::read(None, variables.collect::<Vec<_>>()).unwrap().config)
    }

    #[test]
    fn what_the_operator_sets_for_a_client_holds_for_each_of_its_addresses() {
        assert_eq!(limits(&[]).connections_per_client_max, 50);
        let raised = [("MAILWEAVE__SMTP__CONNECTIONS_PER_CLIENT_MAX", "500")];
        assert_eq!(limits(&raised).connections_per_client_max, 500);
    }

    #[test]
    fn there_is_memory_for_some_of_the_largest_messages_whatever_their_size() {
        for size in ["1MiB", "36MiB", "200MiB"] {
            let limits = limits(&[("MAILWEAVE__SMTP__MESSAGE_BYTES_MAX", size)]);
            assert!(limits.buffered_bytes_max >= LARGEST_AT_ONCE * limits.message_bytes_max, "{size}");
        }
    }
}
