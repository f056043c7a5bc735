//! A user's account as something to talk to: dial, protect, log in; and what a failure means for the account.
//!
//! Not here: what is said once logged in (`flow`), and keeping accounts (`store`).

mod answer;
mod dialer;
mod discover;
pub mod oauth;
mod pace;
mod places;
mod trouble;

pub use answer::judge;
pub use dialer::{ImapClient, Protocol, ProviderDialer, SmtpClient};
pub use discover::{Discovered, FETCH_TIMEOUT, Finder, Found, Ports, read_autoconfig};
pub use pace::LoginTurn;
pub use places::{Caps, Place, Purpose, Seeker};
pub use trouble::{DOUBTED_FOR, Trouble};

use secrecy::SecretString;

use crate::{
    core::{
        account::{Credentials, Endpoint},
        ids::AccountId,
        provider::{Provider, TokenMechanism},
    },
    imap,
    mail::Address,
};

/// Which mailboxes of an account are its special ones, by what the server and its provider call them.
#[must_use]
pub fn choose(listed: &[imap::ListedMailbox], provider: &Provider) -> imap::Chosen {
    use imap::SpecialUse::{All, Archive, Drafts, Junk, Sent, Trash};
    let its = &provider.mailboxes;
    let names = [
        (Sent, &its.sent),
        (Drafts, &its.drafts),
        (All, &its.all),
        (Archive, &its.archive),
        (Junk, &its.junk),
        (Trash, &its.trash),
    ];
    let own: Vec<imap::OwnName<'_>> = names
        .iter()
        .flat_map(|(special, names)| names.iter().map(|name| (*special, name.as_str())))
        .collect();
    imap::choose(listed, &own)
}

/// What is said to a server to be let in.
#[derive(Debug, Clone)]
pub enum Login {
    Password {
        username: String,
        password: SecretString,
    },
    /// An access token, by this mechanism, or by the other one where a server offers only that.
    Bearer {
        username: String,
        token: SecretString,
        mechanism: TokenMechanism,
    },
}

impl Login {
    /// The same by another user's name, where one is given.
    #[must_use]
    pub fn named(mut self, name: Option<&str>) -> Self {
        let (Self::Password { username, .. } | Self::Bearer { username, .. }) = &mut self;
        if let Some(name) = name {
            name.clone_into(username);
        }
        self
    }

    /// `None` of credentials that have to be turned into a token first.
    #[must_use]
    pub fn of_password(credentials: &Credentials) -> Option<Self> {
        match credentials {
            Credentials::Password { username, password } => {
                Some(Self::Password { username: username.clone(), password: password.clone() })
            }
            Credentials::OAuth2 { .. } => None,
        }
    }
}

/// A server that takes mail from us for the world: a user's provider or the workspace's smarthost.
#[derive(Debug, Clone)]
pub struct Exit {
    pub endpoint: Endpoint,
    /// A smarthost on the operator's own network may want none.
    pub credentials: Option<Credentials>,
    /// Whose credentials they are; `None` of a smarthost.
    pub account: Option<AccountId>,
    /// The account's address, which is the reverse-path of what leaves by it; a smarthost has none.
    pub account_address: Option<Address>,
    /// Who logs in, in place of the credentials' user.
    pub login: Option<String>,
    /// Whose server it is.
    pub provider: &'static Provider,
}
