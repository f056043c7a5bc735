//! The operator's choices: one TOML file, overridden by environment variables, checked as a whole before anything starts.
//!
//! Not a place for policy: what is synced is a workspace's choice and lives in the store. Lower layers never see this
//! module; `app` hands them plain values.

mod check;
mod reader;
mod sections;
mod value;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use secrecy::{ExposeSecret as _, SecretString};

pub use reader::{Fault, Origin};
pub use sections::{
    Blobs, Coordination, Dns, Domains, Egress, Http, Listener, Log, Mx, Node, Oauth, OauthProvider, Outbound,
    Secrets, Smtp, Store, Sync, Tls,
};
pub use value::{
    Bytes, DomainName, Endpoint, GrantBy, LogFormat, LogLevel, NameServer, Role, Security, TokenMechanism,
    parse_duration,
};

use self::reader::Reader;

/// Read when `--config` names no other.
pub const DEFAULT_FILE: &str = "config/mailweave.toml";
/// The development authority's certificate, in the data directory.
const DEVELOPMENT_AUTHORITY: &str = "development-ca.pem";
/// Overrides `http.admin_key`.
pub const ADMIN_KEY_VARIABLE: &str = "MAILWEAVE_ADMIN_KEY";
/// Shortest administrator's key, in characters.
pub const ADMIN_KEY_LEN_MIN: usize = 32;

/// Everything an operator can choose. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: Node,
    pub store: Store,
    pub coordination: Coordination,
    pub blobs: Blobs,
    pub secrets: Secrets,
    pub tls: Tls,
    pub domains: Domains,
    pub smtp: Smtp,
    pub http: Http,
    pub egress: Egress,
    pub dns: Dns,
    pub sync: Sync,
    pub outbound: Outbound,
    pub log: Log,
    pub oauth: Oauth,
}

/// A configuration that can be used, and what the operator should hear about it all the same.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Whole sentences, each naming its option.
    pub notes: Vec<String>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no configuration file {}; give another with --config, or copy the commented one from config/mailweave.toml", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is not TOML: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    /// All that is wrong, so that one round of corrections is enough.
    #[error("{}", Lines(.0))]
    Faults(Vec<Fault>),
}

struct Lines<'a>(&'a [Fault]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {plural} in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Reads the file and the environment. Without a `path` the default file may be absent; a file asked for may not.
    ///
    /// # Errors
    /// [`ConfigError`], with every mistake there is.
    pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigError> {
        let (path, asked_for) = path.map_or((Path::new(DEFAULT_FILE), false), |path| (path, true));
        // A variable whose name or value is not UTF-8 cannot be one of ours.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(Some((path, &text)), variables),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked_for => {
                Err(ConfigError::Missing { path: path.to_owned() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut loaded = Self::read(None, variables)?;
                let note = format!(
                    "there is no {DEFAULT_FILE}: every option has its default, unless the environment sets it."
                );
                loaded.notes.insert(0, note);
                Ok(loaded)
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// The same from a file's text and a list of environment variables. Reads nothing but the secret files they name.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] or [`ConfigError::Faults`].
    pub fn read(
        file: Option<(&Path, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut reader = Reader::default();
        if let Some((path, text)) = file {
            reader.add_file(path, text)?;
        }
        let variables: Vec<_> = variables.into_iter().collect();
        let admin_key =
            variables.iter().find(|(name, value)| name == ADMIN_KEY_VARIABLE && !value.is_empty());
        let admin_key = admin_key.map(|(_, value)| SecretString::from(value.clone()));
        reader.add_variables(variables);
        let mut config = Self::from_reader(&mut reader);
        if admin_key.is_some() {
            config.http.admin_key = admin_key;
        }
        let notes = check::check(&config, &mut reader);
        let faults = reader.finish();
        if faults.is_empty() { Ok(Loaded { config, notes }) } else { Err(ConfigError::Faults(faults)) }
    }

    fn from_reader(reader: &mut Reader) -> Self {
        Self {
            node: reader.section("node"),
            store: reader.section("store"),
            coordination: reader.section("coordination"),
            blobs: reader.section("blobs"),
            secrets: reader.section("secrets"),
            tls: reader.section("tls"),
            domains: reader.section("domains"),
            smtp: reader.section("smtp"),
            http: reader.section("http"),
            egress: reader.section("egress"),
            dns: reader.section("dns"),
            sync: reader.section("sync"),
            outbound: reader.section("outbound"),
            log: reader.section("log"),
            oauth: reader.section("oauth"),
        }
    }

    /// The database: as given, else SQLite in the data directory.
    #[must_use]
    pub fn store_url(&self) -> SecretString {
        let in_data_dir = || format!("sqlite://{}", self.node.data_dir.join("mailweave.db").display()).into();
        self.store.url.clone().unwrap_or_else(in_data_dir)
    }

    /// True when the database is PostgreSQL, which several nodes may share.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        let url = self.store_url();
        ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
    }

    /// The embedded database's file; `None` with PostgreSQL.
    #[must_use]
    pub fn embedded_file(&self) -> Option<PathBuf> {
        self.store_url().expose_secret().strip_prefix("sqlite://").map(PathBuf::from)
    }

    /// Where the master key is, or is created on first start: as given, else beside the SQLite file.
    #[must_use]
    pub fn master_key_file(&self) -> PathBuf {
        let file = self.embedded_file();
        let beside =
            || file.as_deref().and_then(Path::parent).unwrap_or(&self.node.data_dir).join("master.key");
        self.secrets.master_key_file.clone().unwrap_or_else(beside)
    }

    /// What clients must trust to use the SMTP listeners: the development authority's certificate, made at start when no
    /// certificate is configured. `None` when one is, or when this node listens for no SMTP.
    #[must_use]
    pub fn development_authority(&self) -> Option<PathBuf> {
        let listens = self.has_role(Role::Mx) || self.has_role(Role::Submission);
        (listens && self.tls.certificate.is_none()).then(|| self.node.data_dir.join(DEVELOPMENT_AUTHORITY))
    }

    /// Whose mail the MX listener takes as the word of a mail server of the operator's own: those named; in development, where
    /// neither a certificate nor name servers are configured, whoever connects from this machine.
    #[must_use]
    pub fn trusted_peers(&self) -> Vec<IpNet> {
        const THIS_MACHINE: [IpNet; 2] = [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ];
        match &self.smtp.mx.trusted_peers {
            Some(named) => named.clone(),
            None if self.trusts_this_machine() => THIS_MACHINE.to_vec(),
            None => Vec::new(),
        }
    }

    /// Whether that is only so because nothing says otherwise.
    #[must_use]
    pub fn trusts_this_machine(&self) -> bool {
        self.smtp.mx.trusted_peers.is_none() && self.tls.certificate.is_none() && self.dns.servers.is_empty()
    }

    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_reader(&mut Reader::default())
    }
}

#[cfg(test)]
mod tests;
