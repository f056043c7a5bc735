//! The rules that span options: what contradicts is a fault, what works but seldom was meant is a note.
//!
//! Not here: anything that needs the network or a look at the disk; `mailweave check` does that with the parts themselves.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    ADMIN_KEY_LEN_MIN, Config, GrantBy, OauthProvider, Role,
    reader::{Origin, Reader},
};

/// RFC 2177: a server may end a connection that has said nothing for 30 minutes.
const IDLE_RENEW_MAX: Duration = Duration::from_secs(29 * 60);
/// One that listens, and one for errands.
const CONNECTIONS_MIN: u32 = 2;
/// The providers whose servers and scopes are built in.
const BUILT_IN_PROVIDERS: [&str; 2] = ["google", "microsoft"];

/// Adds faults to the reader's and returns the notes.
pub(super) fn check(config: &Config, reader: &mut Reader) -> Vec<String> {
    let mut fault = |key: &str, problem: &str, advice: &str| {
        reader.fault(Origin::Nowhere, key, problem.to_owned(), advice.to_owned());
    };
    storage(config, &mut fault);
    listeners(config, &mut fault);
    limits(config, &mut fault);
    oauth(config, &mut fault);
    notes(config)
}

type Report<'a> = dyn FnMut(&str, &str, &str) + 'a;

fn storage(config: &Config, fault: &mut Report<'_>) {
    if config.node.roles.is_empty() {
        fault("node.roles", "is empty, so this node would do nothing", "leave it out to have all roles");
    }
    let store = config.store_url();
    if !store.expose_secret().starts_with("sqlite://") && !config.is_postgres() {
        fault("store.url", "is no database we know", "write sqlite://PATH or postgres://USER@HOST/NAME");
    }
    if config.embedded_file().is_some_and(|file| file.to_string_lossy().contains('?')) {
        fault("store.url", "has a part after ?, which SQLite's url has not", "write sqlite://PATH alone");
    }
    if config.is_postgres() && config.secrets.master_key_file.is_none() {
        let advice = "name a file that every node has, outside the database and its backups";
        fault("secrets.master_key_file", "is required with postgres", advice);
    }
    let is_redis = |url: &SecretString| {
        ["redis://", "rediss://"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
    };
    if !config.coordination.url.as_ref().is_none_or(is_redis) {
        fault("coordination.url", "is no coordinator we know", "write redis://HOST:PORT, or leave it empty");
    }
    if config.blobs.url.is_some() {
        let problem = "is not supported in this release: large bodies lie in node.data_dir";
        fault("blobs.url", problem, "leave it empty; several nodes share the directory");
    }
}

fn listeners(config: &Config, fault: &mut Report<'_>) {
    if config.tls.certificate.is_some() != config.tls.private_key.is_some() {
        let missing = if config.tls.certificate.is_some() { "tls.private_key" } else { "tls.certificate" };
        fault(missing, "is missing while its counterpart is set", "set both, or neither");
    }
    let domains = &config.domains;
    if domains.capture.is_some() && domains.capture == domains.reply {
        fault(
            "domains.reply",
            "is the capture domain too",
            "take two domains, such as bcc.example.com and reply.example.com",
        );
    }
    let short = config
        .http
        .admin_key
        .as_ref()
        .is_some_and(|key| key.expose_secret().chars().count() < ADMIN_KEY_LEN_MIN);
    if short {
        fault("http.admin_key", "is shorter than 32 characters", "make one with: openssl rand -hex 32");
    }
    let smtp = &config.smtp;
    let mut seen = vec![("http.listen", config.http.listen)];
    let named = [
        ("smtp.mx.listen", &smtp.mx.listen),
        ("smtp.submission.listen", &smtp.submission.listen),
        ("smtp.submissions.listen", &smtp.submissions.listen),
    ];
    for (key, address) in
        named.iter().flat_map(|(key, list)| list.iter().map(move |address| (*key, *address)))
    {
        // Port 0 is any free port, however often it is asked for.
        if let Some((other, _)) = seen.iter().find(|(_, taken)| *taken == address && address.port() != 0) {
            fault(
                key,
                &format!("listens on {address}, as {other} does"),
                "give each listener an address of its own",
            );
        }
        seen.push((key, address));
    }
}

fn limits(config: &Config, fault: &mut Report<'_>) {
    if config.sync.idle_renew > IDLE_RENEW_MAX || config.sync.idle_renew.is_zero() {
        fault(
            "sync.idle_renew",
            "is not between 1s and 29m",
            "RFC 2177: servers may hang up after 30 minutes",
        );
    }
    let counts = [
        ("smtp.recipients_max", config.smtp.recipients_max),
        ("smtp.connections_max", config.smtp.connections_max),
        ("smtp.connections_per_client_max", config.smtp.connections_per_client_max),
        ("smtp.errors_max", config.smtp.errors_max),
        ("sync.accounts_max", config.sync.accounts_max),
        ("sync.connections_per_second", config.sync.connections_per_second),
    ];
    for (key, _) in counts.iter().filter(|(_, count)| *count == 0) {
        fault(key, "is 0, so nothing would ever pass", "leave it out to have the default");
    }
    let places = [
        ("sync.connections_per_account", Some(config.sync.connections_per_account)),
        ("sync.connections_per_host", config.sync.connections_per_host),
    ];
    for (key, _) in places.iter().filter(|(_, count)| count.is_some_and(|count| count < CONNECTIONS_MIN)) {
        fault(key, "is less than 2", "one connection listens for mail, and one comes and goes");
    }
    let spans = [
        ("coordination.lease", config.coordination.lease),
        ("tls.reload", config.tls.reload),
        ("smtp.idle_timeout", config.smtp.idle_timeout),
        ("smtp.data_timeout", config.smtp.data_timeout),
        ("egress.connect_timeout", config.egress.connect_timeout),
        ("sync.poll", config.sync.poll),
        ("sync.progress_timeout", config.sync.progress_timeout),
        ("sync.command_timeout", config.sync.command_timeout),
    ];
    for (key, _) in spans.iter().filter(|(_, span)| span.is_zero()) {
        fault(key, "is no time at all", "leave it out to have the default");
    }
    if config.smtp.message_bytes_max.is_empty() {
        fault(
            "smtp.message_bytes_max",
            "is 0, so nothing would ever fit",
            "leave it out to have the default",
        );
    }
}

fn oauth(config: &Config, fault: &mut Report<'_>) {
    for (name, provider) in &config.oauth.0 {
        let is_whole = provider.grant != GrantBy::User;
        if is_whole {
            whole_domains(name, provider, fault);
        }
        if provider.client_id.is_empty() && provider.grant != GrantBy::ServiceAccount {
            let advice = "the provider shows it where the application is registered";
            fault(&format!("oauth.{name}.client_id"), "is not set", advice);
        }
        if BUILT_IN_PROVIDERS.contains(&name.as_str()) {
            continue;
        }
        for (key, missing) in [
            ("authorize_url", provider.authorize_url.is_none() && !is_whole),
            ("token_url", provider.token_url.is_none()),
        ] {
            if missing {
                let advice = "only google and microsoft are built in";
                fault(&format!("oauth.{name}.{key}"), "is not set", advice);
            }
        }
    }
}

/// What an admin grants opens every mailbox of a domain: it has to be said which, and who may have them.
fn whole_domains(name: &str, provider: &OauthProvider, fault: &mut Report<'_>) {
    let is_service = provider.grant == GrantBy::ServiceAccount;
    for (key, missing, advice) in [
        ("domains", provider.domains.is_empty(), "the domains whose admin has granted this"),
        ("workspaces", provider.workspaces.is_empty(), "the workspaces that may have mailboxes there"),
        ("client_secret", !is_service && provider.client_secret.is_none(), "it alone shows who we are"),
        (
            "service_account_file",
            is_service && provider.service_account_file.is_none(),
            "the JSON key that the provider gave out",
        ),
    ] {
        if missing {
            fault(&format!("oauth.{name}.{key}"), "is not set", advice);
        }
    }
}

fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.has_role(Role::Mx) && config.domains.capture.is_none() {
        notes.push("domains.capture is not set: there are no capture addresses until it is.".to_owned());
    }
    if config.has_role(Role::Mx) && config.domains.reply.is_none() {
        notes.push("domains.reply is not set: replies are not relayed until it is.".to_owned());
    }
    if let Some(authority) = config.development_authority() {
        notes.push(format!(
            "tls.certificate is not set: the SMTP listeners show one of a development authority, which clients must be told \
             to trust: {}.",
            authority.display()
        ));
    }
    notes
}
