//! Limits at work: what is still allowed, counting with a word to the CRM when it gets tight, and accounts that wait for a
//! place (docs/flows.md, "Limits").
//!
//! Here: telling, and what follows when a limit changes or has room again. `purse` is what one user may still do, `places`
//! are those of accounts. Not here: what is allowed (`core::allowance`), windows (`core::limits`), and what becomes of mail at
//! a limit (`sync::quota`, `submit::budget`).

mod answers;
mod places;
mod purse;
mod traffic;

use jiff::{SignedDuration, Timestamp};

pub(super) use answers::take_answer;
pub use places::{seat, seat_waiting};
pub(super) use purse::Purse;
pub use traffic::{copies_rest_until, history_rests_until, with_rest_of_history, with_rests_of_history};

use super::{Gateway, now};
use crate::{
    core::{
        account::Account,
        event::{Event, QuotaEvent},
        ids::{AccountId, Id as _, UserId},
        job::{Job, smarthost_lanes, submit_lane},
        limits::{Counted, Level, Quota, SentUnit, Standing, slot_of},
        policy::span::Span,
        provider,
    },
    store::{AccountFilter, Error, Page, PageKey, Session, ToldLevel, Tx},
};

/// How often a limit is looked at again that only somebody's act makes room in.
const RECHECK: SignedDuration = SignedDuration::from_mins(1);

/// Tells of a limit that is nearly or wholly used, once for each time it comes to that.
async fn tell(
    tx: &mut Tx,
    (user, quota): (Option<UserId>, Quota),
    standing: Standing,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(level) = standing.level() else { return Ok(()) };
    let check_at = standing.resets_at.unwrap_or(now + RECHECK);
    if tx.raise_quota_level((user, quota), level, check_at).await? {
        let what = match level {
            Level::Warning => QuotaEvent::Warning,
            Level::Exceeded => QuotaEvent::Exceeded,
        };
        tx.announce(&Event::Quota { what, user, quota, standing }, now).await?;
    }
    Ok(())
}

/// How a user's limits stand.
#[derive(Debug, Clone)]
pub struct Usage {
    pub synced_per_day: Standing,
    pub sent_per_day: Standing,
    pub sent_per_24h: Standing,
    pub sent_unit: SentUnit,
    pub accounts: Standing,
    /// Of the workspace as a whole.
    pub workspace_accounts: Standing,
    /// What the providers of his accounts allow.
    pub windows: Vec<ProviderWindow>,
}

/// How an account stands to what its provider allows in a window.
#[derive(Debug, Clone)]
pub struct ProviderWindow {
    pub account: AccountId,
    pub provider: &'static str,
    pub unit: WindowUnit,
    pub limit: u64,
    pub window: Span,
    pub standing: provider::Standing,
}

/// What a provider counts in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowUnit {
    Sent(SentUnit),
    OctetsRead,
    OctetsHandedOver,
}

/// Reads how a user's accounts stand to what their providers allow.
async fn windows(session: &mut Session, user: UserId, now: Timestamp) -> Result<Vec<ProviderWindow>, Error> {
    let filter = AccountFilter { user: Some(user), state: None };
    let accounts = session.accounts(&Page::new(PAGE, None), &filter).await?;
    let mut windows = Vec::new();
    for account in accounts.iter().filter(|account| !account.status.state.is_gone()) {
        windows.extend(windows_of(session, account, now).await?);
    }
    Ok(windows)
}

async fn windows_of(
    session: &mut Session,
    account: &Account,
    now: Timestamp,
) -> Result<Vec<ProviderWindow>, Error> {
    let its = account.provider();
    let shown = |unit, limit, window, standing| {
        let (account, provider) = (account.id, its.name);
        ProviderWindow { account, provider, unit, limit, window, standing }
    };
    let mut windows = Vec::new();
    let mut budgets = its.budgets_of(account.email.domain()).peekable();
    if budgets.peek().is_some() {
        let sent = session.account_sent(account.id, now - provider::SENT_KEPT).await?;
        let of = |budget: &provider::Budget| {
            let (unit, limit) = (WindowUnit::Sent(budget.unit), u64::from(budget.most));
            shown(unit, limit, budget.window, budget.standing(&sent, now))
        };
        windows.extend(budgets.map(of));
    }
    if let Some((its, octets)) = traffic::of(session, account, now).await? {
        let (read, handed_over) = (its.read_standing(&octets, now), its.handed_over_standing(&octets, now));
        windows.push(shown(WindowUnit::OctetsRead, its.read, its.window, read));
        windows.push(shown(WindowUnit::OctetsHandedOver, its.handed_over, its.window, handed_over));
    }
    Ok(windows)
}

/// Reads how a user's limits stand.
///
/// # Errors
/// Those of the store.
pub async fn usage(session: &mut Session, user: UserId, now: Timestamp) -> Result<Usage, Error> {
    let purse = Purse::of(session, user, now).await?;
    let [(_, sent_per_day), (_, sent_per_24h)] = purse.sent(session).await?;
    let [accounts, workspace_accounts] = places::of_user(session, user, purse.limits()).await?;
    Ok(Usage {
        synced_per_day: purse.synced(session).await?,
        sent_per_day,
        sent_per_24h,
        sent_unit: purse.unit(),
        accounts,
        workspace_accounts,
        windows: windows(session, user, now).await?,
    })
}

/// Has everything that waits for limits of this user, or of all, looked at once more: they have changed. Accounts that wait
/// for a place are looked after all the time.
///
/// # Errors
/// Those of the store.
pub async fn changed(tx: &mut Tx, user: Option<UserId>, now: Timestamp) -> Result<(), Error> {
    tx.hasten_quota_checks(now).await?;
    let (filter, mut after) = (AccountFilter { user, state: None }, None);
    loop {
        let accounts = tx.accounts(&Page::new(PAGE, after), &filter).await?;
        for account in &accounts {
            tx.hasten_job(&Job::TakeUp { account: account.id }, now).await?;
            tx.hasten(&submit_lane(account.id), now).await?;
        }
        let Some(last) = accounts.last().filter(|_| accounts.len() == PAGE as usize) else { break };
        after = Some(PageKey { at: last.connected_at, id: last.id.uuid() });
    }
    for lane in smarthost_lanes() {
        tx.hasten(&lane, now).await?;
    }
    Ok(())
}

/// Accounts read at once.
const PAGE: u32 = 200;

/// Looks after what time or others make room for: limits that were told of, and accounts that wait.
pub async fn look_after(gateway: &Gateway) {
    let outcome = async {
        let now = now();
        let mut system = gateway.store.system_read().await?;
        let due = system.quota_checks_due(now).await?;
        let waiting = system.workspaces_with_waiting_accounts().await?;
        drop(system);
        for told in due {
            passing(recheck(gateway, told, now).await);
        }
        for workspace in waiting {
            passing(seat_waiting(gateway, workspace).await);
        }
        Ok::<_, Error>(())
    };
    passing(outcome.await);
}

/// What fails for one is tried again soon, and keeps no other waiting.
fn passing(outcome: Result<(), Error>) {
    match outcome {
        // Its workspace has been erased meanwhile.
        Ok(()) | Err(Error::Missing) => {}
        Err(error) => tracing::warn!(error = %error, "limits could not be looked after"),
    }
}

/// Looks at a limit that was told of. What has room again is told.
async fn recheck(gateway: &Gateway, told: ToldLevel, now: Timestamp) -> Result<(), Error> {
    let mut tx = gateway.store.begin(told.workspace).await?;
    tx.lock_filing().await?;
    let (user, quota) = (told.user, told.quota);
    let Some(before) = tx.told_quota_level((user, quota)).await? else { return Ok(()) };
    let standing = measure(&mut tx, (user, quota), now).await?;
    let check_at = standing.resets_at.unwrap_or(now + RECHECK);
    let level = match (before, standing.level()) {
        // A sliding window empties by and by, and fills again: it has room when it is told to, not at every slot.
        (Level::Exceeded, Some(Level::Warning)) if quota == Quota::SentPer24h => Some(Level::Exceeded),
        (Level::Warning, Some(Level::Exceeded)) => {
            tell(&mut tx, (user, quota), standing, now).await?;
            Some(Level::Exceeded)
        }
        (_, level) => level,
    };
    tx.lower_quota_level((user, quota), level, check_at).await?;
    if level < Some(before) {
        tx.announce(&Event::Quota { what: QuotaEvent::Reset, user, quota, standing }, now).await?;
    }
    tx.commit().await
}

/// Takes back what was charged at this time: it is certain that so many recipients did not get it, and if none did that the
/// message was not sent.
///
/// # Errors
/// Those of the store.
pub(super) async fn give_back(
    tx: &mut Tx,
    user: UserId,
    (messages, recipients): (u64, u64),
    charged_at: Timestamp,
) -> Result<(), Error> {
    let slot = slot_of(charged_at);
    tx.uncount_usage(user, (Counted::SentMessages, slot, messages)).await?;
    tx.uncount_usage(user, (Counted::SentRecipients, slot, recipients)).await?;
    // A limit that was told to be reached may have room again.
    tx.hasten_quota_checks(charged_at).await
}

async fn measure(
    tx: &mut Tx,
    (user, quota): (Option<UserId>, Quota),
    now: Timestamp,
) -> Result<Standing, Error> {
    let Some(id) = user.filter(|_| quota != Quota::Accounts) else { return places::of(tx, user).await };
    let purse = Purse::of(tx, id, now).await?;
    if quota == Quota::SyncedPerDay {
        return purse.synced(tx).await;
    }
    let [(_, by_day), (_, by_24_hours)] = purse.sent(tx).await?;
    Ok(if quota == Quota::SentPerDay { by_day } else { by_24_hours })
}
