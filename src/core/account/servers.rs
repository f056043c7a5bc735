//! Where an account's mail is read and sent, who said so, and who the account is there.
//!
//! Not here: what logs in, and how the account is doing.

use serde::{Deserialize, Serialize};

use crate::{core::provider::Provider, mail::Address};

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// Upgrade before anything of value is said; a server that does not offer it is refused.
    Starttls,
    /// Clear text, only to addresses that the operator lists in `[egress].allow`.
    None,
}

/// One server of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

/// Where an account's mail is read and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettings {
    pub imap: Endpoint,
    pub smtp: Endpoint,
    /// The provider's name, where its hosts do not say which it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default)]
    pub found: FoundServers,
    #[serde(default)]
    pub identities: Identities,
}

/// Who an account is to its servers, where that is not one and the same: a mailbox that several share is opened by one's own login
/// under a name of the mailbox's, sent for by one's own, and writes as itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identities {
    /// Who logs in to read, in place of the credentials' user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imap_login: Option<String>,
    /// Who logs in to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_login: Option<String>,
    /// What mail that leaves is from, in place of the user's address over the API and of the account's in the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Address>,
}

/// A mailbox that a user opens by his own login, though it is not his.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMailbox {
    pub email: Address,
    pub identities: Identities,
}

/// Who said which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundBy {
    /// Whoever connected the account.
    #[default]
    Given,
    /// What is known of the provider.
    Provider,
    /// The domain's zone (RFC 6186).
    Srv,
    /// A file on the domain's web server.
    Autoconfig,
    /// The domain's mail goes to a provider that is known.
    Mx,
    /// A server under a usual name has greeted.
    Guess,
}

/// Who said which servers an account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FoundServers {
    pub imap: FoundBy,
    pub smtp: FoundBy,
}

impl AccountSettings {
    /// The provider, by the servers: what a host does is known by the host, whatever the account was called when it was connected.
    #[must_use]
    pub fn provider(&self) -> &'static Provider {
        Provider::of_host(&self.imap.host)
            .or_else(|| Provider::of_host(&self.smtp.host))
            .or_else(|| self.provider.as_deref().and_then(Provider::named))
            .unwrap_or_else(Provider::any)
    }
}
