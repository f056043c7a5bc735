//! The providers that the operator has registered this gateway with, by the names of his configuration.
//!
//! Not here: what is known of a provider in general (`core::provider`).

use std::{collections::BTreeMap, sync::Arc};

use secrecy::SecretString;

use super::{Granted, OAuthClient, ServiceAccount, TokenError};
use crate::{
    core::{account::Endpoint, grant::Refused},
    mail::Address,
};

/// One of them.
#[derive(Debug)]
pub struct Registered {
    pub client: OAuthClient,
    /// Where its mailboxes are read, and where mail is handed in, unless an account says otherwise.
    pub imap: Option<Endpoint>,
    pub smtp: Option<Endpoint>,
    /// Set where an admin has granted whole domains: then no user signs in.
    pub domains: Option<WholeDomain>,
}

/// Mailboxes that an admin has granted together.
#[derive(Debug)]
pub struct WholeDomain {
    pub by: Whole,
    /// In lower case. Mailboxes elsewhere are not touched, whatever the provider would allow.
    pub names: Vec<String>,
    /// The workspaces, by slug or id, that may have them.
    pub workspaces: Vec<String>,
}

/// How the gateway shows that it has an admin's grant.
#[derive(Debug)]
pub enum Whole {
    /// By its own registration (RFC 6749 section 4.4), as at Microsoft.
    ClientCredentials,
    /// By a key that speaks for any user (RFC 7523), as at Google.
    ServiceAccount(ServiceAccount),
}

impl WholeDomain {
    /// Whether it covers a mailbox, for a workspace that goes by any of these names.
    #[must_use]
    pub fn covers(&self, email: &Address, workspace: &[&str]) -> bool {
        let is_inside = self.names.iter().any(|name| name.eq_ignore_ascii_case(email.domain()));
        is_inside && self.workspaces.iter().any(|one| workspace.contains(&one.as_str()))
    }
}

impl Registered {
    /// Gets another access token for a user; `None` when there is nothing to get it with.
    pub async fn renew(
        &self,
        refresh_token: Option<&SecretString>,
        username: &str,
    ) -> Option<Result<Granted, TokenError>> {
        Some(match (&self.domains, refresh_token) {
            (None, Some(token)) => self.client.renew(token).await,
            (None, None) => return None,
            (Some(WholeDomain { by: Whole::ClientCredentials, .. }), _) => self.client.for_itself().await,
            (Some(WholeDomain { by: Whole::ServiceAccount(account), .. }), _) => {
                self.client.in_the_name_of(username, account).await
            }
        })
    }

    /// What a refusal means. What an admin has granted no user can grant again.
    #[must_use]
    pub fn meaning(&self, error: &TokenError) -> Refused {
        match error.meaning() {
            Refused::Doubtful(_) | Refused::ForGood(_) if self.domains.is_some() => Refused::Registration,
            meaning => meaning,
        }
    }
}

/// All of them. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Providers(Arc<BTreeMap<String, Arc<Registered>>>);

impl Providers {
    #[must_use]
    pub fn new(all: BTreeMap<String, Registered>) -> Self {
        Self(Arc::new(all.into_iter().map(|(name, one)| (name, Arc::new(one))).collect()))
    }

    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Registered>> {
        self.0.get(name).cloned()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
