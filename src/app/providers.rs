//! The providers that `[oauth.…]` names, put together from what is known of them and what the operator says.
//!
//! Not here: what may be left out (`config::check`).

use std::{collections::BTreeMap, sync::Arc};

use url::Url;

use super::StartError;
use crate::{
    account::oauth::{
        OAuthClient, Providers, Registered, Registration, ServiceAccount, TOKEN_TIMEOUT, Whole, WholeDomain,
    },
    config::{self, Config, GrantBy, OauthProvider},
    core::{
        account::{Endpoint, Security},
        provider::{Authorization, Provider, TokenMechanism},
    },
    net::{self, Web},
};

/// Where users come back to after signing in, below the gateway's public address.
const CALLBACK: &str = "oauth/callback";

/// All of them, speaking by one client.
pub(super) fn providers(
    config: &Config,
    dialer: net::Dialer,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Providers, StartError> {
    let web = Web::new(net::Resolve::vetted(dialer), tls, TOKEN_TIMEOUT)?;
    let mut all = BTreeMap::new();
    for (name, given) in &config.oauth.0 {
        let fault = |problem: String| StartError::Provider { name: name.clone(), problem };
        let registration =
            Registration { client_id: given.client_id.clone(), client_secret: given.client_secret.clone() };
        let known = Provider::named(name);
        let redirect = callback(config).ok_or_else(|| fault("http.public_url leads nowhere".into()))?;
        let client = OAuthClient::new(authorization(known, given), registration, redirect, web.clone());
        let registered = Registered {
            client: client.map_err(|bad| fault(bad.to_string()))?,
            imap: given.imap.as_ref().map(endpoint).or_else(|| known?.imap.clone()),
            smtp: given.smtp.as_ref().map(endpoint).or_else(|| known?.smtp.clone()),
            domains: whole_domain(given).map_err(fault)?,
        };
        all.insert(name.clone(), registered);
    }
    Ok(Providers::new(all))
}

fn callback(config: &Config) -> Option<Url> {
    own_url(config).join(CALLBACK).ok()
}

/// Where users reach the gateway's pages, ended by a slash.
pub(super) fn own_url(config: &Config) -> Url {
    let listening = || Url::parse(&format!("http://{}/", config.http.listen));
    let own = || listening().expect("an address and a port make a URL");
    let mut base = config.http.public_url.clone().unwrap_or_else(own);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    base
}

/// What is known, with the operator's word before it.
fn authorization(known: Option<&Provider>, given: &OauthProvider) -> Authorization {
    let known = known.and_then(|provider| provider.oauth.clone());
    let text = |url: &Option<Url>| url.as_ref().map(Url::to_string);
    let unknown = Authorization {
        issuer: None,
        says_issuer: false,
        authorize_url: String::new(),
        token_url: String::new(),
        revoke_url: None,
        scopes: Vec::new(),
        needed: Vec::new(),
        mechanism: TokenMechanism::XOAuth2,
        parameters: BTreeMap::new(),
    };
    // Who writes down the issuer of a provider that we do not know says that users are told it; of the others we know.
    let tells_issuer = known.is_none() && given.issuer.is_some();
    let mut authorization = known.unwrap_or(unknown);
    if let Some(url) = text(&given.token_url) {
        authorization.token_url = url;
    }
    // A whole domain has nobody who is sent to sign in, and the library wants a URL.
    if let Some(url) = text(&given.authorize_url).or_else(|| is_empty(&authorization)) {
        authorization.authorize_url = url;
    }
    authorization.revoke_url = text(&given.revoke_url).or(authorization.revoke_url);
    authorization.says_issuer |= tells_issuer;
    authorization.issuer = given.issuer.clone().or(authorization.issuer);
    if !given.scopes.is_empty() {
        authorization.needed.retain(|scope| given.scopes.contains(scope));
        authorization.scopes.clone_from(&given.scopes);
    }
    if !given.needed.is_empty() {
        authorization.needed.clone_from(&given.needed);
    }
    if let Some(mechanism) = given.mechanism {
        authorization.mechanism = match mechanism {
            config::TokenMechanism::XOAuth2 => TokenMechanism::XOAuth2,
            config::TokenMechanism::OAuthBearer => TokenMechanism::OAuthBearer,
        };
    }
    authorization
}

fn is_empty(authorization: &Authorization) -> Option<String> {
    authorization.authorize_url.is_empty().then(|| authorization.token_url.clone())
}

fn endpoint(given: &config::Endpoint) -> Endpoint {
    let security = match given.security {
        config::Security::Tls => Security::Tls,
        config::Security::StartTls => Security::Starttls,
        config::Security::None => Security::None,
    };
    Endpoint { host: given.host.clone(), port: given.port, security }
}

fn whole_domain(given: &OauthProvider) -> Result<Option<WholeDomain>, String> {
    let by = match (given.grant, &given.service_account_file) {
        (GrantBy::User, _) => return Ok(None),
        (GrantBy::ClientCredentials, _) => Whole::ClientCredentials,
        (GrantBy::ServiceAccount, Some(file)) => {
            Whole::ServiceAccount(ServiceAccount::load(file).map_err(|bad| bad.to_string())?)
        }
        (GrantBy::ServiceAccount, None) => return Err("service_account_file is not set".into()),
    };
    let names = given.domains.iter().map(ToString::to_string).collect();
    Ok(Some(WholeDomain { by, names, workspaces: given.workspaces.clone() }))
}
