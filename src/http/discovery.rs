//! Where the servers of an account are whose caller does not say: its provider's, or what its domain says.
//!
//! Not here: asking the domain (`account`), and what is done with the servers.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    Api,
    account_input::{Auth, EndpointInput},
    problem::Problem,
};
use crate::{
    account::{Discovered, Finder, Found},
    core::{
        account::{AccountSettings, Endpoint, FoundBy, FoundServers, Identities},
        provider::{Login, Provider},
    },
    mail::Address,
};

/// Asks a domain where its mail is read and sent.
#[derive(Clone)]
pub struct Discovery(Arc<dyn Fn(String) -> BoxFuture<'static, Discovered> + Send + Sync>);

impl Discovery {
    pub fn new(ask: impl Fn(String) -> BoxFuture<'static, Discovered> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    #[must_use]
    pub fn by(finder: Finder) -> Self {
        Self::new(move |domain| {
            let finder = finder.clone();
            Box::pin(async move { finder.find(&domain).await })
        })
    }
}

/// What a caller says of an account's servers.
pub(super) struct Servers<'a> {
    pub provider: Option<String>,
    pub imap: Option<EndpointInput>,
    pub smtp: Option<EndpointInput>,
    pub identities: Identities,
    /// How the gateway is to log in there.
    pub auth: &'a Auth,
}

impl Servers<'_> {
    /// The servers as they are named, else as they are known or found.
    pub(super) async fn settle(self, api: &Api, email: &Address) -> Result<AccountSettings, Problem> {
        let (own_imap, own_smtp) = self.auth.servers();
        let is_said =
            |given: &Option<EndpointInput>, own: Option<&Endpoint>| given.is_some() || own.is_some();
        let all_said = is_said(&self.imap, own_imap) && is_said(&self.smtp, own_smtp);
        let found = match (&self.provider, all_said) {
            (Some(name), _) => Discovered::of(named(name)?, FoundBy::Provider),
            (None, true) => Discovered::default(),
            (None, false) => match Provider::of_domain(email.domain()) {
                Some(provider) => Discovered::of(provider, FoundBy::Provider),
                None => (api.discovery.0)(email.domain().to_owned()).await,
            },
        };
        let by_password = matches!(self.auth, Auth::Password(_));
        let known = |own: Option<&Endpoint>, found: &Option<Found>| {
            let own = own.map(|server| Found { server: server.clone(), by: FoundBy::Provider });
            own.or_else(|| found.clone())
        };
        let (imap, smtp) = (known(own_imap, &found.imap), known(own_smtp, &found.smtp));
        let imap = server(api, ("imap", self.imap), imap, (&found, by_password)).await?;
        let smtp = server(api, ("smtp", self.smtp), smtp, (&found, by_password)).await?;
        let provider = self.provider.or_else(|| found.provider.map(|provider| provider.name.to_owned()));
        let found = FoundServers { imap: imap.by, smtp: smtp.by };
        Ok(AccountSettings {
            imap: imap.server,
            smtp: smtp.server,
            provider,
            found,
            identities: self.identities,
        })
    }
}

fn named(name: &str) -> Result<&'static Provider, Problem> {
    Provider::named(name).ok_or_else(|| {
        let names: Vec<_> = Provider::all().iter().map(|provider| provider.name).collect();
        let advice = format!("There are {}. Leave it out for any other.", names.join(", "));
        Problem::invalid("provider", "No provider of this name is known.").advice(advice)
    })
}

async fn server(
    api: &Api,
    (param, given): (&'static str, Option<EndpointInput>),
    known: Option<Found>,
    (found, by_password): (&Discovered, bool),
) -> Result<Found, Problem> {
    if let Some(given) = given {
        return Ok(Found { server: given.check(api, param).await?, by: FoundBy::Given });
    }
    let refuses = |provider: &&Provider| by_password && !provider.takes(Login::Password);
    if let Some(provider) = found.provider.filter(refuses) {
        let detail = format!("{} takes no passwords from programs.", provider.title);
        return Err(Problem::invalid("auth.type", detail).advice("The user has to sign in there himself."));
    }
    match (known, &found.foreign) {
        (Some(known), _) => Ok(known),
        (None, Some(foreign)) => {
            let detail = format!("The address's domain names {foreign}, which is not its own.");
            Err(Problem::invalid(param, detail).advice("Give imap and smtp with it if that is right."))
        }
        (None, None) => {
            let detail = "The field is missing, and nothing says where the servers of the address's domain are: neither its \
                          zone nor a file on its web server, and none greets under a usual name.";
            Err(Problem::invalid(param, detail)
                .advice("Give imap and smtp; the provider's help pages name host, port and security."))
        }
    }
}
