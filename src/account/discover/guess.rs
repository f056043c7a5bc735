//! Servers under the names that most domains give them: taken only when they greet, under TLS with a certificate of their name.
//!
//! Not here: logging in.

use futures_util::future::join_all;

use super::{Discovered, Found, Ports, soon};
use crate::{
    account::dialer::{Protocol, ProviderDialer},
    core::{
        account::{Endpoint, FoundBy, Security},
        provider::Provider,
    },
};

/// A server that has greeted, and whose it is as far as the greeting says.
type Greeted = (Endpoint, Option<&'static Provider>);

/// Tries all of them at once: each is a name that is looked up, and a connection where it exists.
pub(super) async fn ask(dialer: &ProviderDialer, hello: &str, (domain, ports): (&str, Ports)) -> Discovered {
    let (tls, starttls) = (Security::Tls, Security::Starttls);
    let of_imap = candidates("imap", domain, [(ports.imaps, tls), (ports.imap, starttls)]);
    let of_smtp = candidates("smtp", domain, [(ports.submissions, tls), (ports.submission, starttls)]);
    let (imap, smtp) = tokio::join!(
        first(dialer, (Protocol::Imap, hello), of_imap),
        first(dialer, (Protocol::Smtp, hello), of_smtp)
    );
    let found = |(server, _): Greeted| Found { server, by: FoundBy::Guess };
    let provider = imap.as_ref().and_then(|(_, provider)| *provider);
    Discovered { provider, imap: imap.map(found), smtp: smtp.map(found), foreign: None }
}

/// The most wanted first: TLS from the first octet before STARTTLS (RFC 8314 section 3).
fn candidates(own: &str, domain: &str, ways: [(u16, Security); 2]) -> Vec<Endpoint> {
    let hosts = [format!("{own}.{domain}"), format!("mail.{domain}"), domain.to_owned()];
    let at = |(port, security)| {
        hosts.iter().map(move |host| Endpoint { host: host.clone(), port, security }).collect::<Vec<_>>()
    };
    ways.into_iter().flat_map(at).collect()
}

async fn first(
    dialer: &ProviderDialer,
    (protocol, hello): (Protocol, &str),
    candidates: Vec<Endpoint>,
) -> Option<Greeted> {
    let tried = candidates.into_iter().map(|server| async move {
        let greeted = soon(async { dialer.greeted(&server, protocol, hello).await.ok() }).await?;
        Some((server, greeted))
    });
    join_all(tried).await.into_iter().flatten().next()
}
