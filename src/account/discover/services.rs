//! The services that a domain names in its zone (RFC 6186, RFC 8314 section 5.1).
//!
//! Not here: asking name servers (`net`), and other places where a domain says where its mail is.

use super::{Discovered, Found, soon};
use crate::{
    core::{
        account::{Endpoint, FoundBy, Security},
        provider::Provider,
    },
    net::{Resolver, ServiceHost},
};

/// Services of reading and of sending, most wanted first: TLS from the first octet before STARTTLS (RFC 8314 section 3).
const IMAP: [(&str, Security); 2] = [("_imaps._tcp", Security::Tls), ("_imap._tcp", Security::Starttls)];
const SMTP: [(&str, Security); 2] =
    [("_submissions._tcp", Security::Tls), ("_submission._tcp", Security::Starttls)];

/// Asks the domain's name servers.
pub(super) async fn ask(resolver: &Resolver, domain: &str) -> Discovered {
    let (imap, smtp) = tokio::join!(services(resolver, IMAP, domain), services(resolver, SMTP, domain));
    judge(domain, &imap, &smtp)
}

async fn services(
    resolver: &Resolver,
    services: [(&'static str, Security); 2],
    domain: &str,
) -> Vec<(ServiceHost, Security)> {
    let asked = services.map(|(service, security)| async move {
        let hosts = soon(async { resolver.services(service, domain).await.unwrap_or_default() }).await;
        hosts.into_iter().map(move |host| (host, security))
    });
    let [first, second] = asked;
    let (first, second) = tokio::join!(first, second);
    first.chain(second).collect()
}

fn judge(domain: &str, imap: &[(ServiceHost, Security)], smtp: &[(ServiceHost, Security)]) -> Discovered {
    let offered = |(server, _): &&(ServiceHost, Security)| !server.host.is_empty() && server.port != 0;
    let is_trusted = |(server, _): &&(ServiceHost, Security)| {
        is_within(&server.host, domain) || Provider::of_host(&server.host).is_some()
    };
    let first = |all: &[(ServiceHost, Security)]| {
        let (ServiceHost { host, port }, security) = all.iter().filter(offered).find(is_trusted).cloned()?;
        Some(Found { server: Endpoint { host, port, security }, by: FoundBy::Srv })
    };
    let (imap_server, smtp_server) = (first(imap), first(smtp));
    let foreign = imap.iter().chain(smtp).filter(offered).find(|one| !is_trusted(one));
    Discovered {
        provider: imap_server.as_ref().and_then(|found| Provider::of_host(&found.server.host)),
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
        let found = judge("acme.example", imap, &[]);
        assert_eq!(found.imap.as_ref().map(|found| found.server.host.as_str()), server, "{imap:?}");
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
        let fastmail = judge("acme.example", &[at("imap.fastmail.com", 993, Tls)], &[]);
        assert_eq!(fastmail.provider.map(|provider| provider.name), Some("fastmail"));
    }
}
