//! Every option: its name, its kind, its default and its unit, each written once.
//!
//! Not here: why a default is what it is (`config/mailweave.toml` says it to the operator), nor rules that span options (`check`).

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use super::{
    reader::{Reader, Section},
    value::{Bytes, DomainName, Endpoint, GrantBy, LogFormat, LogLevel, NameServer, Role, TokenMechanism},
};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
const fn minutes(count: u64) -> Duration {
    seconds(count * 60)
}
const fn hours(count: u64) -> Duration {
    minutes(count * 60)
}

/// `[node]`: this process among those of the installation.
#[derive(Debug, Clone)]
pub struct Node {
    /// Said in the line that tells that the node is ready, and beside the accounts that it works; `smtp.hostname` when not
    /// set.
    pub name: Option<String>,
    pub data_dir: PathBuf,
    pub roles: Vec<Role>,
    /// How long `serve` finishes the work in hand after SIGTERM.
    pub shutdown_grace: Duration,
}

impl Section for Node {
    fn read(reader: &mut Reader) -> Self {
        Self {
            name: reader.setting("name", None),
            data_dir: reader.setting("data_dir", "data".into()),
            roles: reader.setting("roles", Role::ALL.to_vec()),
            shutdown_grace: reader.setting("shutdown_grace", seconds(30)),
        }
    }
}

/// `[store]`: where everything durable lives.
#[derive(Debug, Clone)]
pub struct Store {
    /// May hold a password. `None`: SQLite in the data directory ([`super::Config::store_url`]).
    pub url: Option<SecretString>,
}

impl Section for Store {
    fn read(reader: &mut Reader) -> Self {
        Self { url: reader.secret("url") }
    }
}

/// `[coordination]`: how nodes share accounts, limits and wake-ups.
#[derive(Debug, Clone)]
pub struct Coordination {
    /// `redis://…`; `None`: within this process.
    pub url: Option<SecretString>,
    /// How long a node that has fallen silent keeps the jobs it has in hand. Its accounts it keeps for half a minute.
    pub lease: Duration,
}

impl Section for Coordination {
    fn read(reader: &mut Reader) -> Self {
        Self { url: reader.secret("url"), lease: reader.setting("lease", seconds(20)) }
    }
}

/// `[blobs]`: where large bodies live.
#[derive(Debug, Clone)]
pub struct Blobs {
    /// `None`: in the data directory, the only place this release knows.
    pub url: Option<SecretString>,
}

impl Section for Blobs {
    fn read(reader: &mut Reader) -> Self {
        Self { url: reader.secret("url") }
    }
}

/// `[secrets]`: the key that seals all others.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// `None`: [`super::Config::master_key_file`] says where it is created.
    pub master_key_file: Option<PathBuf>,
}

impl Section for Secrets {
    fn read(reader: &mut Reader) -> Self {
        Self { master_key_file: reader.setting("master_key_file", None) }
    }
}

/// `[tls]`: the gateway's own certificate, for all of its SMTP listeners.
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM, the chain after the certificate itself. `None`: one of a development authority in the data directory.
    pub certificate: Option<PathBuf>,
    /// PEM.
    pub private_key: Option<PathBuf>,
    /// How often the two files are looked at for a change.
    pub reload: Duration,
}

impl Section for Tls {
    fn read(reader: &mut Reader) -> Self {
        Self {
            certificate: reader.setting("certificate", None),
            private_key: reader.setting("private_key", None),
            reload: reader.setting("reload", minutes(1)),
        }
    }
}

/// `[domains]`: the two domains whose MX record points here.
#[derive(Debug, Clone)]
pub struct Domains {
    pub capture: Option<DomainName>,
    pub reply: Option<DomainName>,
}

impl Section for Domains {
    fn read(reader: &mut Reader) -> Self {
        Self { capture: reader.setting("capture", None), reply: reader.setting("reply", None) }
    }
}

/// `[smtp]`: what all SMTP listeners have in common.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Said in greetings, Received fields and Message-IDs; the capture domain when not set.
    pub hostname: Option<DomainName>,
    pub message_bytes_max: Bytes,
    /// RCPT commands that count in one transaction.
    pub recipients_max: u32,
    /// Connections of all listeners together.
    pub connections_max: u32,
    /// Connections of one client address.
    pub connections_per_client_max: u32,
    /// Refused commands, after which the connection is closed.
    pub errors_max: u32,
    /// Longest silence of a client between commands (RFC 5321 section 4.5.3.2.7).
    pub idle_timeout: Duration,
    /// Longest DATA transfer.
    pub data_timeout: Duration,
    /// Mail from the world, to capture and reply addresses.
    pub mx: Mx,
    /// Mail from the CRM, STARTTLS before AUTH.
    pub submission: Listener,
    /// Mail from the CRM, TLS from the first octet.
    pub submissions: Listener,
}

impl Section for Smtp {
    fn read(reader: &mut Reader) -> Self {
        Self {
            hostname: reader.setting("hostname", None),
            message_bytes_max: reader.setting("message_bytes_max", Bytes::mib(36)),
            recipients_max: reader.setting("recipients_max", 100),
            connections_max: reader.setting("connections_max", 2000),
            connections_per_client_max: reader.setting("connections_per_client_max", 50),
            errors_max: reader.setting("errors_max", 20),
            idle_timeout: reader.setting("idle_timeout", minutes(5)),
            data_timeout: reader.setting("data_timeout", minutes(30)),
            mx: reader.within("mx", Mx::read),
            submission: reader.within("submission", |reader| Listener::read(reader, 587)),
            submissions: reader.within("submissions", |reader| Listener::read(reader, 465)),
        }
    }
}

/// `[smtp.mx]`.
#[derive(Debug, Clone)]
pub struct Mx {
    pub listen: Vec<SocketAddr>,
    /// Mail servers of the operator's own, whose word is taken for who sent what they hand in. `None`: nobody's, except in
    /// development ([`super::Config::trusted_peers`]).
    pub trusted_peers: Option<Vec<IpNet>>,
    /// Domains of forwarders and mailing lists whose seals (RFC 8617) are believed.
    pub trusted_sealers: Vec<DomainName>,
}

impl Mx {
    fn read(reader: &mut Reader) -> Self {
        let Listener { listen } = Listener::read(reader, 25);
        Self {
            listen,
            trusted_peers: reader.setting("trusted_peers", None),
            trusted_sealers: reader.setting("trusted_sealers", Vec::new()),
        }
    }
}

/// `[smtp.submission]`, `[smtp.submissions]`.
#[derive(Debug, Clone)]
pub struct Listener {
    pub listen: Vec<SocketAddr>,
}

impl Listener {
    /// On every IPv4 address and the registered port unless told otherwise.
    fn read(reader: &mut Reader, port: u16) -> Self {
        Self { listen: reader.setting("listen", vec![SocketAddr::from(([0, 0, 0, 0], port))]) }
    }
}

/// `[http]`: the API.
#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    /// What callers reach it by. With `https://`, answers tell browsers to come over TLS alone (RFC 6797).
    pub public_url: Option<Url>,
    /// The instance administrator's API key, at least 32 characters.
    pub admin_key: Option<SecretString>,
}

impl Section for Http {
    fn read(reader: &mut Reader) -> Self {
        Self {
            listen: reader.setting("listen", SocketAddr::from(([127, 0, 0, 1], 8080))),
            public_url: reader.setting("public_url", None),
            admin_key: reader.secret("admin_key"),
        }
    }
}

/// `[egress]`: where the gateway may connect to.
#[derive(Debug, Clone)]
pub struct Egress {
    /// Private ranges allowed beside all public addresses.
    pub allow: Vec<IpNet>,
    /// PEM of CAs trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
}

impl Section for Egress {
    fn read(reader: &mut Reader) -> Self {
        Self {
            allow: reader.setting("allow", Vec::new()),
            ca_file: reader.setting("ca_file", None),
            connect_timeout: reader.setting("connect_timeout", seconds(10)),
        }
    }
}

/// `[dns]`: who resolves names.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Empty: those of the system.
    pub servers: Vec<NameServer>,
}

impl Section for Dns {
    fn read(reader: &mut Reader) -> Self {
        Self { servers: reader.setting("servers", Vec::new()) }
    }
}

/// `[sync]`: how the users' accounts are followed.
#[derive(Debug, Clone)]
pub struct Sync {
    /// IDLE is ended and begun anew after this long.
    pub idle_renew: Duration,
    /// How often mailboxes that no IDLE watches are looked at, Sent among them.
    pub poll: Duration,
    /// Accounts that this node follows at most; others wait for another node.
    pub accounts_max: u32,
    /// IMAP sessions begun a second with one host.
    pub connections_per_second: u32,
    /// IMAP sessions of one account at a time, and SMTP sessions; fewer where its provider bears fewer.
    pub connections_per_account: u32,
    /// The same with one host. `None`: as many as it takes.
    pub connections_per_host: Option<u32>,
    /// Longest silence of a server within a command.
    pub progress_timeout: Duration,
    /// Longest command as a whole.
    pub command_timeout: Duration,
}

impl Section for Sync {
    fn read(reader: &mut Reader) -> Self {
        Self {
            idle_renew: reader.setting("idle_renew", minutes(9)),
            poll: reader.setting("poll", seconds(60)),
            accounts_max: reader.setting("accounts_max", 5000),
            connections_per_second: reader.setting("connections_per_second", 50),
            connections_per_account: reader.setting("connections_per_account", 5),
            connections_per_host: reader.setting("connections_per_host", None),
            progress_timeout: reader.setting("progress_timeout", seconds(60)),
            command_timeout: reader.setting("command_timeout", minutes(30)),
        }
    }
}

/// `[outbound]`: mail on its way out.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// How long a deferred message is tried before it counts as bounced.
    pub retry_lifetime: Duration,
    /// How long the provider may take to file its own copy in Sent before one is appended.
    pub sent_copy_wait: Duration,
    /// After a send that was cut off: when Sent is searched, counted from the final dot.
    pub reconcile: Vec<Duration>,
}

impl Section for Outbound {
    fn read(reader: &mut Reader) -> Self {
        Self {
            retry_lifetime: reader.setting("retry_lifetime", hours(5 * 24)),
            sent_copy_wait: reader.setting("sent_copy_wait", seconds(20)),
            reconcile: reader.setting("reconcile", vec![seconds(30), minutes(5), hours(1)]),
        }
    }
}

/// `[log]`: what goes to stderr.
#[derive(Debug, Clone)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

impl Section for Log {
    fn read(reader: &mut Reader) -> Self {
        Self {
            level: reader.setting("level", LogLevel::Info),
            format: reader.setting("format", LogFormat::Text),
        }
    }
}

/// `[oauth.NAME]`: a provider that users sign in at. What is `None` of Google's and Microsoft's is built in.
#[derive(Debug, Clone)]
pub struct OauthProvider {
    pub client_id: String,
    /// `None` of a public client, which PKCE alone protects.
    pub client_secret: Option<SecretString>,
    pub authorize_url: Option<Url>,
    pub token_url: Option<Url>,
    pub revoke_url: Option<Url>,
    /// What it calls itself (RFC 9207).
    pub issuer: Option<String>,
    pub scopes: Vec<String>,
    /// Those of the scopes without which a mailbox is of no use.
    pub needed: Vec<String>,
    /// The SASL mechanism that takes its tokens; `None` is what the provider is known for, else XOAUTH2.
    pub mechanism: Option<TokenMechanism>,
    pub imap: Option<Endpoint>,
    pub smtp: Option<Endpoint>,
    /// Whose permission it is.
    pub grant: GrantBy,
    /// The JSON key that the provider gave out, where the permission is a service account's.
    pub service_account_file: Option<PathBuf>,
    /// The domains that an admin has granted as a whole.
    pub domains: Vec<DomainName>,
    /// The workspaces, by slug or id, that may have mailboxes of these domains.
    pub workspaces: Vec<String>,
}

impl Section for OauthProvider {
    fn read(reader: &mut Reader) -> Self {
        Self {
            client_id: reader.setting("client_id", String::new()),
            client_secret: reader.secret("client_secret"),
            authorize_url: reader.setting("authorize_url", None),
            token_url: reader.setting("token_url", None),
            revoke_url: reader.setting("revoke_url", None),
            issuer: reader.setting("issuer", None),
            scopes: reader.setting("scopes", Vec::new()),
            needed: reader.setting("needed", Vec::new()),
            mechanism: reader.setting("mechanism", None),
            imap: reader.setting("imap", None),
            smtp: reader.setting("smtp", None),
            grant: reader.setting("grant", GrantBy::User),
            service_account_file: reader.setting("service_account_file", None),
            domains: reader.setting("domains", Vec::new()),
            workspaces: reader.setting("workspaces", Vec::new()),
        }
    }
}

/// All `[oauth.NAME]` tables by name.
#[derive(Debug, Clone, Default)]
pub struct Oauth(pub BTreeMap<String, OauthProvider>);

impl Section for Oauth {
    fn read(reader: &mut Reader) -> Self {
        // The table itself holds only tables: a value written straight into it belongs to no provider and is unknown.
        let names = reader.tables_under();
        Self(names.into_iter().map(|name| (name.clone(), reader.section(&name))).collect())
    }
}
