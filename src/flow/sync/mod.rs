//! Follows users' accounts: new mail of their mailboxes is judged by its header, and what belongs is fetched and filed
//! (docs/flows.md, "Sync").
//!
//! Read `follow` (one session from login to end), `look` and `wait` (when is something new), `headers`, `judge` and
//! `consume` (what becomes of it), `left_out`, `quota` (what of it has to wait), then `backfill`, `reindex`, `sweep` and `refetch`, then
//! `simulate` (what another policy would have made of it). Not here: leases and back-off
//! (`worker::accounts`), IMAP itself (`imap`), and filing (`flow::ingest`).

mod backfill;
mod choose;
mod connection;
mod consume;
mod exchange;
mod follow;
mod followers;
mod headers;
mod health;
mod judge;
mod left_out;
mod look;
mod memory;
mod quota;
mod refetch;
mod reindex;
mod reports;
mod sent_by_hand;
mod simulate;
mod survey;
mod sweep;
mod tenancy;
mod wait;

pub use follow::follow;
pub use followers::Followers;
pub use health::{record, resume_at, was_well};
pub(super) use health::{refuse_login, refuse_sending};
pub use memory::Memory;
pub use quota::take_up;
pub use refetch::refetch;
pub use simulate::{EXAMPLES_MAX, Example, MESSAGES_MAX, Order, Outcome, Refusal, Report, simulate};

use super::FlowError;
use crate::{
    account::Trouble,
    coord::{Coord, Subscription},
    core::ids::AccountId,
    imap, store,
};

/// Why a session with a provider ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Provider(#[from] Trouble),
    /// `Fenced` means that the account is no longer ours to work.
    #[error("the store could not take it")]
    Store(#[from] store::Error),
    /// Something was learnt that only a new session can heed: begin one at once.
    #[error("the session has to begin anew")]
    Anew,
    /// Others had waited for its place. Nothing is wrong: it queues for another.
    #[error("the session made room for others")]
    MadeRoom,
}

impl From<imap::Error> for Failure {
    fn from(error: imap::Error) -> Self {
        Self::Provider(error.into())
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Store(error) => Self::Store(error),
            FlowError::Obsolete | FlowError::Raced => Self::Anew,
        }
    }
}

/// Heard by those who lease accounts.
const ALL_ACCOUNTS: &str = "accounts";

/// Has an account looked at now, on whatever node it is followed; also to be called for one that is new or was changed.
pub fn look_now(coord: &Coord, account: AccountId) {
    coord.wake(ALL_ACCOUNTS);
    coord.wake(&topic(account));
}

/// Hears of accounts that are new or were changed.
#[must_use]
pub fn news_of_accounts(coord: &Coord) -> Subscription {
    coord.subscribe(ALL_ACCOUNTS)
}

/// Hears that an account is to be looked at now.
#[must_use]
pub fn news_of_account(coord: &Coord, account: AccountId) -> Subscription {
    coord.subscribe(&topic(account))
}

/// Has an account's mailboxes compared with the server, all since it was connected, when there is time.
pub fn compare_now(coord: &Coord, account: AccountId) {
    coord.wake(&comparing(account));
}

/// Hears that an account's mailboxes are to be compared.
#[must_use]
fn news_of_comparing(coord: &Coord, account: AccountId) -> Subscription {
    coord.subscribe(&comparing(account))
}

fn comparing(account: AccountId) -> String {
    format!("compare/{account}")
}

fn topic(account: AccountId) -> String {
    format!("account/{account}")
}
