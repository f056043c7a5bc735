//! The mailbox of several people that a link is for: who opens it signs in as himself.
//!
//! Not here: what becomes of it once he has (`arrival`).

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    core::{
        account::{Identities, SharedMailbox},
        people::User,
    },
    http::{Api, access::Access, account_input::LOGIN_CHARS_MAX, field, problem::Problem},
    mail::Address,
};

/// A mailbox that is not the user's own and that he may open by his own login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SharedMailbox)]
pub(super) struct SharedMailboxInput {
    /// Whose mailbox it is.
    #[schema(value_type = String, format = Email)]
    email: Address,
    /// What mail that leaves is from: `email`, or an address of the user's own.
    #[schema(value_type = Option<String>, format = Email)]
    sender: Option<Address>,
    /// Under which name it is opened with the user's token; `email` when left out.
    imap_username: Option<String>,
    /// Under which name is sent with the user's token; the address that he signs in with when left out.
    smtp_username: Option<String>,
}

impl SharedMailboxInput {
    /// Only the workspace says which mailboxes that are not his a user may connect.
    pub(super) fn check(self, (api, access): (&Api, &Access), user: &User) -> Result<SharedMailbox, Problem> {
        access.act_for_all()?;
        if api.gateway.settings.ours.holds(&self.email) {
            return Err(Problem::invalid("mailbox.email", "This is an address of the gateway itself."));
        }
        let is_own = |sender: &Address| {
            *sender == self.email || *sender == user.email || user.aliases.contains(sender)
        };
        if self.sender.as_ref().is_some_and(|sender| !is_own(sender)) {
            return Err(Problem::invalid(
                "mailbox.sender",
                "It is neither the mailbox's nor the user's own.",
            )
            .advice("Add it to the user's aliases first."));
        }
        let login = |param: &str, name: Option<String>| {
            name.map(|name| field::line(param, &name, LOGIN_CHARS_MAX)).transpose()
        };
        let imap_login = login("mailbox.imap_username", self.imap_username)?;
        let identities = Identities {
            // Without a name of its own the user's mailbox would be read in its place.
            imap_login: imap_login.or_else(|| Some(self.email.to_string())),
            smtp_login: login("mailbox.smtp_username", self.smtp_username)?,
            sender: self.sender,
        };
        Ok(SharedMailbox { email: self.email, identities })
    }
}
