//! Where an address's mail is read and sent, as far as its domain can tell: the services in its zone, a file on its web server,
//! the provider that its mail goes to, and at last the names that most domains give their servers.
//!
//! Not here: what an operator or the CRM says itself, which comes first, and trying to log in.

mod autoconfig;
mod guess;
mod services;

pub use autoconfig::read as read_autoconfig;

use std::time::Duration;

use tokio::time::timeout;

use super::dialer::ProviderDialer;
use crate::{
    core::{
        account::{Endpoint, FoundBy},
        provider::Provider,
    },
    net::{Resolver, Web},
};

/// So long each place is asked for. A caller waits for all of them at worst.
const PATIENCE: Duration = Duration::from_secs(8);
/// So long one question to one server may take, that the others' answers are not lost with it: many drop what they do not take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// From connecting to a domain's web server to the last octet of its file.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(6);

/// A server, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub server: Endpoint,
    pub by: FoundBy,
}

/// What a domain says of its mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovered {
    pub provider: Option<&'static Provider>,
    pub imap: Option<Found>,
    pub smtp: Option<Found>,
    /// A server that the domain's zone names and that is not its own: whoever can forge an answer could have named it, so it
    /// is somebody's to confirm (RFC 6186 section 6).
    pub foreign: Option<String>,
}

impl Discovered {
    /// A provider's own servers.
    #[must_use]
    pub fn of(provider: &'static Provider, by: FoundBy) -> Self {
        let found = |server: &Option<Endpoint>| server.clone().map(|server| Found { server, by });
        let (imap, smtp) = (found(&provider.imap), found(&provider.smtp));
        Self { provider: Some(provider), imap, smtp, foreign: None }
    }

    fn is_complete(&self) -> bool {
        self.imap.is_some() && self.smtp.is_some()
    }

    /// The same with what another place says of the servers that are missing.
    fn or(self, other: Self) -> Self {
        let provider = if self.imap.is_some() { self.provider } else { other.provider };
        let (imap, smtp) = (self.imap.or(other.imap), self.smtp.or(other.smtp));
        Self { provider, imap, smtp, foreign: self.foreign }
    }
}

/// The ports that the services of a domain are looked for at, where it does not name them.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub https: u16,
    pub imaps: u16,
    pub imap: u16,
    pub submissions: u16,
    pub submission: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { https: 443, imaps: 993, imap: 143, submissions: 465, submission: 587 }
    }
}

/// Asks domains, by the rules of egress.
#[derive(Clone)]
pub struct Finder {
    dialer: ProviderDialer,
    web: Web,
    /// How we call ourselves to a submission server.
    hello: String,
    ports: Ports,
}

impl Finder {
    /// `web` fetches the domains' files.
    #[must_use]
    pub fn new(dialer: ProviderDialer, web: Web, hello: String) -> Self {
        Self { dialer, web, hello, ports: Ports::default() }
    }

    /// The same for servers that listen elsewhere than everybody's.
    #[must_use]
    pub fn at(self, ports: Ports) -> Self {
        Self { ports, ..self }
    }

    /// Asks one place after the other, until it is known where mail is read and where it is sent.
    pub async fn find(&self, domain: &str) -> Discovered {
        // An address in place of a domain has no zone, and no names below it.
        if domain.starts_with('[') {
            return Discovered::default();
        }
        let resolver = self.dialer.net().resolver();
        let named = within(services::ask(resolver, domain)).await;
        if named.is_complete() {
            return named;
        }
        let file = within(autoconfig::ask(&self.web, (domain, self.ports.https)));
        let (file, provider) = tokio::join!(file, within(by_exchangers(resolver, domain)));
        let known = named.or(file);
        match provider {
            _ if known.is_complete() => known,
            // What the domain says of one server is not overruled by where its mail comes in.
            Some(provider) if known.imap.is_none() && known.smtp.is_none() => {
                Discovered::of(provider, FoundBy::Mx)
            }
            // What the domain says is not contradicted by a guess.
            _ if known.foreign.is_some() => known,
            _ => known.or(within(guess::ask(&self.dialer, &self.hello, (domain, self.ports))).await),
        }
    }
}

async fn within<T: Default>(asked: impl Future<Output = T>) -> T {
    timeout(PATIENCE, Box::pin(asked)).await.unwrap_or_default()
}

/// One answer, if it comes in time.
async fn soon<T: Default>(asked: impl Future<Output = T>) -> T {
    timeout(ANSWER_TIMEOUT, Box::pin(asked)).await.unwrap_or_default()
}

async fn by_exchangers(resolver: &Resolver, domain: &str) -> Option<&'static Provider> {
    of_exchangers(&resolver.mail_exchangers(domain).await.unwrap_or_default())
}

/// The provider whose customers have their mail come to these hosts.
fn of_exchangers(exchangers: &[String]) -> Option<&'static Provider> {
    exchangers.iter().find_map(|host| Provider::of_mail_exchanger(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_whose_mail_goes_to_a_provider_is_read_there() {
        for (host, provider) in [
            ("aspmx.l.google.com", Some("google")),
            ("acme-example.mail.protection.outlook.com", Some("microsoft")),
            ("in1-smtp.messagingengine.com", Some("fastmail")),
            ("mx.acme.example", None),
            ("google.com.acme.example", None),
        ] {
            let found = of_exchangers(&["mx.nowhere.example".to_owned(), host.to_owned()]);
            assert_eq!(found.map(|provider| provider.name), provider, "{host}");
        }
        let google = Discovered::of(Provider::named("google").unwrap(), FoundBy::Mx);
        assert_eq!(google.imap.map(|found| found.server.host).as_deref(), Some("imap.gmail.com"));
    }
}
