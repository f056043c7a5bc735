//! Where an address's mail is read and sent, as its domain says: the services it names (RFC 6186, RFC 8314 section 5.1), else the
//! provider that its mail goes to.
//!
//! Not here: what an operator or the CRM says itself, which comes first, and trying to log in.

use std::time::Duration;

use crate::{
    core::{
        account::{Endpoint, Security},
        provider::Provider,
    },
    net::{Resolver, ServiceHost},
};

/// A domain has so long to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Services of reading and of sending, most wanted first: TLS from the first octet before STARTTLS (RFC 8314 section 3).
const IMAP: [(&str, Security); 2] = [("_imaps._tcp", Security::Tls), ("_imap._tcp", Security::Starttls)];
const SMTP: [(&str, Security); 2] =
    [("_submissions._tcp", Security::Tls), ("_submission._tcp", Security::Starttls)];

/// What a domain says of its mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovered {
    pub provider: Option<&'static Provider>,
    pub imap: Option<Endpoint>,
    pub smtp: Option<Endpoint>,
    /// A server that the domain names and that is not its own: whoever can forge an answer could have named it, so it is
    /// somebody's to confirm (RFC 6186 section 6).
    pub foreign: Option<String>,
}

/// Asks the domain's name servers.
pub async fn discover(resolver: &Resolver, domain: &str) -> Discovered {
    let asked = tokio::time::timeout(PATIENCE, Box::pin(ask(resolver, domain))).await;
    asked.unwrap_or_default()
}

async fn ask(resolver: &Resolver, domain: &str) -> Discovered {
    let (imap, smtp) = tokio::join!(services(resolver, IMAP, domain), services(resolver, SMTP, domain));
    let named = by_services(domain, &imap, &smtp);
    if named.imap.is_some() && named.smtp.is_some() {
        return named;
    }
    let exchangers = resolver.mail_exchangers(domain).await.unwrap_or_default();
    match by_exchangers(&exchangers) {
        Some(provider) => of(provider),
        None => named,
    }
}

async fn services(
    resolver: &Resolver,
    services: [(&'static str, Security); 2],
    domain: &str,
) -> Vec<(ServiceHost, Security)> {
    let mut found = Vec::new();
    for (service, security) in services {
        let hosts = resolver.services(service, domain).await.unwrap_or_default();
        found.extend(hosts.into_iter().map(|host| (host, security)));
    }
    found
}

/// A provider's own servers.
fn of(provider: &'static Provider) -> Discovered {
    let (imap, smtp) = (provider.imap.clone(), provider.smtp.clone());
    Discovered { provider: Some(provider), imap, smtp, foreign: None }
}

/// The provider whose customers have their mail come to these hosts.
fn by_exchangers(exchangers: &[String]) -> Option<&'static Provider> {
    exchangers.iter().find_map(|host| Provider::of_mail_exchanger(host))
}

fn by_services(
    domain: &str,
    imap: &[(ServiceHost, Security)],
    smtp: &[(ServiceHost, Security)],
) -> Discovered {
    let offered = |(server, _): &&(ServiceHost, Security)| !server.host.is_empty() && server.port != 0;
    let is_trusted = |(server, _): &&(ServiceHost, Security)| {
        is_within(&server.host, domain) || Provider::of_host(&server.host).is_some()
    };
    let first = |all: &[(ServiceHost, Security)]| {
        let (ServiceHost { host, port }, security) = all.iter().filter(offered).find(is_trusted).cloned()?;
        Some(Endpoint { host, port, security })
    };
    let (imap_server, smtp_server) = (first(imap), first(smtp));
    let foreign = imap.iter().chain(smtp).filter(offered).find(|one| !is_trusted(one));
    Discovered {
        provider: imap_server.as_ref().and_then(|server| Provider::of_host(&server.host)),
        foreign: foreign.map(|(server, _)| server.host.clone()),
        imap: imap_server,
        smtp: smtp_server,
    }
}

fn is_within(host: &str, domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16, security: Security) -> (ServiceHost, Security) {
        (ServiceHost { host: host.to_owned(), port }, security)
    }

    #[track_caller]
    fn check(imap: &[(ServiceHost, Security)], server: Option<&str>, foreign: Option<&str>) {
        let found = by_services("acme.example", imap, &[]);
        assert_eq!(found.imap.as_ref().map(|server| server.host.as_str()), server, "{imap:?}");
        assert_eq!(found.foreign.as_deref(), foreign, "{imap:?}");
    }

    #[test]
    fn a_domain_says_where_its_mail_is_read_and_names_nobody_elses_server_unasked() {
        use Security::{Starttls, Tls};
        check(&[], None, None);
        check(&[at("imap.acme.example", 993, Tls)], Some("imap.acme.example"), None);
        check(&[at("acme.example", 993, Tls)], Some("acme.example"), None);
        let both = [at("a.acme.example", 993, Tls), at("b.acme.example", 143, Starttls)];
        check(&both, Some("a.acme.example"), None);
        // RFC 6186 section 3.4: a service that is not offered has the root for its target.
        check(&[at("", 0, Tls), at("b.acme.example", 143, Starttls)], Some("b.acme.example"), None);
        check(&[at("imap.evil.example", 993, Tls)], None, Some("imap.evil.example"));
        check(&[at("imap.notacme.example", 993, Tls)], None, Some("imap.notacme.example"));
        let own_second = [at("imap.evil.example", 993, Tls), at("imap.acme.example", 993, Tls)];
        check(&own_second, Some("imap.acme.example"), Some("imap.evil.example"));
        check(&[at("imap.fastmail.com", 993, Tls)], Some("imap.fastmail.com"), None);
        let fastmail = by_services("acme.example", &[at("imap.fastmail.com", 993, Tls)], &[]);
        assert_eq!(fastmail.provider.map(|provider| provider.name), Some("fastmail"));
    }

    #[test]
    fn a_domain_whose_mail_goes_to_a_provider_is_read_there() {
        for (host, provider) in [
            ("aspmx.l.google.com", Some("google")),
            ("acme-example.mail.protection.outlook.com", Some("microsoft")),
            ("in1-smtp.messagingengine.com", Some("fastmail")),
            ("mx.acme.example", None),
            ("google.com.acme.example", None),
        ] {
            let found = by_exchangers(&["mx.nowhere.example".to_owned(), host.to_owned()]);
            assert_eq!(found.map(|provider| provider.name), provider, "{host}");
        }
        let google = of(Provider::named("google").unwrap());
        assert_eq!(google.imap.map(|server| server.host).as_deref(), Some("imap.gmail.com"));
    }
}
