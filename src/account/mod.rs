//! A user's account as something to talk to: dial, protect, log in; and what a failure means for the account.
//!
//! Not here: what is said once logged in (`flow`), and keeping accounts (`store`).

mod dialer;
mod trouble;

pub use dialer::{ImapClient, Protocol, ProviderDialer, SmtpClient};
pub use trouble::Trouble;

use crate::{
    core::account::{Credentials, Endpoint},
    mail::Address,
};

/// A server that takes mail from us for the world: a user's provider or the workspace's smarthost.
#[derive(Debug, Clone)]
pub struct Exit {
    pub endpoint: Endpoint,
    /// A smarthost on the operator's own network may want none.
    pub credentials: Option<Credentials>,
    /// The account's address, which is the reverse-path of what leaves by it; a smarthost has none.
    pub account_address: Option<Address>,
}
