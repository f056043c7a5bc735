//! `mailweave check`: what would go wrong before `serve` does; a line for each finding, with the way out.
//!
//! Not here: changing anything. A store of an earlier release is named as such and left alone.

pub(in crate::app) mod certificate;
mod dns;
mod providers;
mod sign_in;
mod stored;

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use url::Url;

use super::{health, parts, stored::StoredError};
use crate::{
    config::{Config, ConfigError, Role},
    coord, net,
    store::{MasterKey, OpenError, Store},
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// It works, but seldom was meant, or will not work for long.
    Warning,
    /// `serve` would not start, or mail would not pass.
    Error,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// The option or the part it is about.
    pub about: String,
    pub says: String,
}

/// All that was found, in the order it was looked at.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, about: &str, says: impl Into<String>) {
        self.0.push(Finding { level, about: about.to_owned(), says: says.into() });
    }

    fn ok(&mut self, about: &str, says: impl Into<String>) {
        self.add(Level::Ok, about, says);
    }

    fn warning(&mut self, about: &str, says: impl Into<String>) {
        self.add(Level::Warning, about, says);
    }

    fn error(&mut self, about: &str, says: impl Into<String>) {
        self.add(Level::Error, about, says);
    }

    #[must_use]
    pub fn has_error(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Error)
    }

    /// Writes a line for each.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for Finding { level, about, says } in &self.0 {
            let level = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            writeln!(out, "{level:<7}  {about}: {says}")?;
        }
        Ok(())
    }
}

/// Looks at everything and prints what it found. True when nothing is an error.
///
/// # Errors
/// When stdout cannot be written to.
pub async fn run(config: Option<&Path>) -> anyhow::Result<bool> {
    net::install_provider();
    let mut findings = Findings::default();
    match Config::load(config) {
        Err(ConfigError::Faults(faults)) => {
            for fault in faults {
                findings.error("configuration", fault.to_string());
            }
        }
        Err(error) => findings.error("configuration", chain(&error)),
        Ok(loaded) => {
            findings.ok("configuration", "can be used");
            loaded.notes.into_iter().for_each(|note| findings.warning("configuration", note));
            look(&loaded.config, &mut findings).await;
        }
    }
    findings.write(&mut io::stdout().lock()).context("cannot write to stdout")?;
    Ok(!findings.has_error())
}

/// Everything but the configuration itself.
pub async fn look(config: &Config, findings: &mut Findings) {
    sign_in::look(config, findings).await;
    data_dir(&config.node.data_dir, findings);
    master_key(config, findings);
    let opened = super::stored::open(config).await;
    store(&opened, config, findings);
    certificate::look(config, findings);
    if let Some(file) = &config.egress.ca_file {
        match net::client_config(Some(file)) {
            Ok(_) => findings.ok("egress.ca_file", "is read"),
            Err(error) => findings.error("egress.ca_file", chain(&error)),
        }
    }
    trusted_peers(config, findings);
    dns::look(config, findings).await;
    coordination(config, findings).await;
    let runs = matches!(opened, Err(StoredError::InUse(_))) || answers(config).await;
    ports(config, runs, findings);
    if let Ok(store) = opened {
        // What keeps a dialler from being made has been told by then.
        let dialer = parts::dialer(config).ok();
        stored::look(&store, dialer.as_ref(), findings).await;
        store.close().await;
    }
}

/// Whose word is taken for who sent a mail.
fn trusted_peers(config: &Config, findings: &mut Findings) {
    let about = "smtp.mx.trusted_peers";
    let peers: Vec<String> = config.trusted_peers().iter().map(ToString::to_string).collect();
    let peers = peers.join(", ");
    if config.trusts_this_machine() {
        let says = format!(
            "is not set, and neither is tls.certificate nor dns.servers: as on a developer's machine, mail from {peers} is taken \
             as its From says; set it to [] to have every sender checked"
        );
        findings.warning(about, says);
    } else if peers.is_empty() {
        findings.ok(about, "names nobody: who sent a copy is checked by DKIM, SPF and DMARC");
    } else {
        findings.ok(about, format!("mail from {peers} is taken as its From says"));
    }
}

async fn coordination(config: &Config, findings: &mut Findings) {
    let Some(url) = &config.coordination.url else { return };
    match coord::ping(url.expose_secret()).await {
        Ok(()) => findings.ok("coordination.url", "Redis answers"),
        Err(error) => {
            let says = "without it nodes find their work by looking, some seconds later";
            findings.warning("coordination.url", format!("{}; {says}", chain(&error)));
        }
    }
}

/// Writable, or somewhere it can be made.
fn data_dir(directory: &Path, findings: &mut Findings) {
    let about = "node.data_dir";
    let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let Some(existing) = whole.ancestors().find(|ancestor| ancestor.exists()) else {
        return findings.error(about, format!("{} cannot be made", directory.display()));
    };
    // Made and gone again: permissions alone do not tell of a read-only or a full disk.
    match tempfile::NamedTempFile::new_in(existing) {
        Ok(_) if existing == whole => {
            findings.ok(about, format!("{} can be written to", directory.display()))
        }
        Ok(_) => findings.ok(about, format!("{} is made at the first start", directory.display())),
        Err(error) => findings.error(
            about,
            format!(
                "{} cannot be written to ({error}); give it to the user the gateway runs as",
                existing.display()
            ),
        ),
    }
}

fn master_key(config: &Config, findings: &mut Findings) {
    let about = "secrets.master_key_file";
    let file = config.master_key_file();
    let Ok(metadata) = std::fs::metadata(&file) else {
        if config.is_postgres() {
            let advice = "make one, the same for every node: head -c 32 /dev/urandom | base64 > FILE && chmod 600 FILE";
            return findings.error(about, format!("{} is not there; {advice}", file.display()));
        }
        if config.embedded_file().is_some_and(|path| path.exists()) {
            let says = "is gone, and the store cannot be read without it; put your copy of it there";
            return findings.error(about, format!("{} {says}", file.display()));
        }
        return findings
            .ok(about, format!("{} is made at the first start; keep a copy elsewhere", file.display()));
    };
    if let Err(error) = MasterKey::load(&file) {
        return findings.error(about, chain(&error));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        findings.ok(about, format!("{} is there, for its owner alone", file.display()));
    } else {
        let says = format!("{} has mode {mode:04o}, so others may read it; chmod 600 it", file.display());
        findings.error(about, says);
    }
}

fn store(opened: &Result<Store, StoredError>, config: &Config, findings: &mut Findings) {
    let about = "store";
    match opened {
        Ok(_) if config.is_postgres() => {
            findings.ok(about, "PostgreSQL answers, and its tables are this release's")
        }
        Ok(_) => findings.ok(about, "opens, and its tables are this release's"),
        Err(StoredError::InUse(lock)) => {
            let says = format!(
                "is held by a running gateway ({}), so what is in it was not looked at, nor whether providers answer; `mailweave account list` asks the gateway",
                lock.display()
            );
            findings.warning(about, says);
        }
        Err(StoredError::Open(error @ OpenError::Older(_))) => findings.warning(about, error.to_string()),
        Err(error @ StoredError::None(_)) => findings.ok(about, error.to_string()),
        // Told by the master key's own finding.
        Err(StoredError::NoMasterKey(_) | StoredError::MasterKey(_)) => {}
        Err(error) => findings.error(about, chain(error)),
    }
}

/// Whether a gateway with this configuration runs here already.
async fn answers(config: &Config) -> bool {
    let Ok(url) = Url::parse(&format!("http://{}/", reachable(config.http.listen))) else { return false };
    let asked = tokio::time::timeout(Duration::from_secs(5), health::ask(&url)).await;
    config.has_role(Role::Http)
        && matches!(asked, Ok(Ok((_, word))) if ["ready", "starting"].contains(&word.as_str()))
}

/// An address to connect to: what listens everywhere answers on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn ports(config: &Config, runs: bool, findings: &mut Findings) {
    let mut listeners = Vec::new();
    if config.has_role(Role::Mx) {
        listeners.push(("smtp.mx.listen", config.smtp.mx.listen.clone()));
    }
    if config.has_role(Role::Submission) {
        listeners.push(("smtp.submission.listen", config.smtp.submission.listen.clone()));
        listeners.push(("smtp.submissions.listen", config.smtp.submissions.listen.clone()));
    }
    if config.has_role(Role::Http) {
        listeners.push(("http.listen", vec![config.http.listen]));
    }
    for (option, address) in
        listeners.iter().flat_map(|(option, list)| list.iter().map(move |address| (*option, *address)))
    {
        port(option, address, runs, findings);
    }
}

fn port(option: &str, address: SocketAddr, runs: bool, findings: &mut Findings) {
    match net::bind(address) {
        Ok(_) => findings.ok(option, format!("{address} is free")),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse if runs => {
                findings.ok(option, format!("{address} is in use, by the running gateway as it seems"));
            }
            io::ErrorKind::AddrInUse => {
                let says = format!(
                    "{address} is taken by another program; end it, or choose another port (`ss -ltnp` shows who)"
                );
                findings.error(option, says);
            }
            io::ErrorKind::PermissionDenied => {
                let says = format!(
                    "{address} needs a right that this user lacks: AmbientCapabilities=CAP_NET_BIND_SERVICE in systemd, or a port above 1023"
                );
                findings.error(option, says);
            }
            _ => findings.error(option, format!("{address} cannot be listened on: {error}")),
        },
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
