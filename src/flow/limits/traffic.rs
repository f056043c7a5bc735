//! What an account's provider lets go over IMAP in a window: how it stands, and what waits for it.
//!
//! Not here: the windows' edges (`core::provider`). Each account counts what it reads itself: of a mailbox that several workspaces
//! have connected none knows what the others read.

use jiff::Timestamp;

use crate::{
    core::{
        account::{Account, AccountState},
        provider::{Octets, SENT_KEPT, Traffic},
    },
    store::{Error, Session},
};

/// What its provider allows an account, and what has gone over; `None` where the provider has said nothing of it.
///
/// # Errors
/// Those of the store.
pub(super) async fn of(
    session: &mut Session,
    account: &Account,
    now: Timestamp,
) -> Result<Option<(&'static Traffic, Vec<Octets>)>, Error> {
    let Some(traffic) = &account.provider().traffic else { return Ok(None) };
    Ok(Some((traffic, session.account_octets(account.id, now - SENT_KEPT).await?)))
}

/// Until when an account's old mail is not read, for its provider's sake; `None` while it may be.
///
/// # Errors
/// Those of the store.
pub async fn history_rests_until(
    session: &mut Session,
    account: &Account,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let traffic = of(session, account, now).await?;
    Ok(traffic.and_then(|(traffic, octets)| traffic.history_rests_until(&octets, now)))
}

/// Until when nothing is put into an account's mailboxes; `None` while it may be.
///
/// # Errors
/// Those of the store.
pub async fn copies_rest_until(
    session: &mut Session,
    account: &Account,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let traffic = of(session, account, now).await?;
    Ok(traffic.and_then(|(traffic, octets)| traffic.handed_over_standing(&octets, now).full_until))
}

/// Accounts whose statuses say until when their old mail rests, where there is any to be read.
///
/// # Errors
/// Those of the store.
pub async fn with_rests_of_history(
    session: &mut Session,
    accounts: Vec<Account>,
    now: Timestamp,
) -> Result<Vec<Account>, Error> {
    let mut shown = Vec::with_capacity(accounts.len());
    for account in accounts {
        shown.push(with_rest_of_history(session, account, now).await?);
    }
    Ok(shown)
}

/// An account whose status says until when its old mail rests, if there is any to be read.
///
/// # Errors
/// Those of the store.
pub async fn with_rest_of_history(
    session: &mut Session,
    mut account: Account,
    now: Timestamp,
) -> Result<Account, Error> {
    // What the provider wants of all of us is said first.
    if account.status.state == AccountState::Backfilling
        && account.rests_until(now).is_none()
        && let Some(until) = history_rests_until(session, &account, now).await?
    {
        account.status = account.status.with_rest_of_history(until);
    }
    Ok(account)
}
