//! What an account that callers describe must be: at a provider that policy does not leave out, and sending as nobody else.
//!
//! Not here: reading what they say (`account_input`), and whether its login works.

use super::{access::Access, problem::Problem};
use crate::{
    core::{
        account::{Account, AccountSettings, Endpoint, FoundBy},
        provider::Provider,
    },
    flow,
    store::Session,
};

/// Refuses an account at a provider that its user's policy leaves out.
pub(super) async fn require_admitted(
    session: &mut Session,
    param: &str,
    account: &Account,
) -> Result<(), Problem> {
    let settings = flow::policy_of(session, Some(account.user_id)).await?.settings;
    match settings.excludes(account.provider()) {
        true => Err(excluded(param, account.provider())),
        false => Ok(()),
    }
}

/// Refuses to send as somebody else: a sender is one of the user's own addresses, or the account's. The account's own may be
/// another user's only where the workspace says so: who acts as himself alone does not decide who he is.
pub(super) async fn require_own_addresses(
    session: &mut Session,
    access: &Access,
    account: &Account,
) -> Result<(), Problem> {
    let holder = session.user_by_address(&account.email).await?.map(|user| user.id);
    if access.act_for_all().is_err() && holder.is_some_and(|holder| holder != account.user_id) {
        return Err(Problem::invalid("email", "It is another user's address.")
            .advice("Whoever administers the workspace connects it, or gives it to this user."));
    }
    let Some(sender) = &account.settings.identities.sender else { return Ok(()) };
    let user = session.user(account.user_id).await?;
    let is_own = user.is_some_and(|user| user.email == *sender || user.aliases.contains(sender));
    if is_own || account.email == *sender {
        return Ok(());
    }
    let advice = "Add it to the user's aliases first.";
    Err(Problem::invalid("sender", "It is no address of the user's own.").advice(advice))
}

/// Why no account is connected at a provider.
pub(super) fn excluded(param: &str, provider: &Provider) -> Problem {
    let detail = format!("The policy leaves out accounts at {}.", provider.title);
    let advice = format!(
        "Connect a mailbox at another provider, or take {:?} out of exclude_providers in the policy.",
        provider.name
    );
    Problem::invalid(param, detail).code("provider_excluded").advice(advice)
}

/// Puts servers in place of those that an account had.
pub(super) fn give_servers(settings: &mut AccountSettings, imap: Option<Endpoint>, smtp: Option<Endpoint>) {
    if let Some(imap) = imap {
        settings.imap = imap;
        settings.found.imap = FoundBy::Given;
        // Whose servers the new ones are is told by themselves.
        settings.provider = None;
    }
    if let Some(smtp) = smtp {
        settings.smtp = smtp;
        settings.found.smtp = FoundBy::Given;
    }
}
