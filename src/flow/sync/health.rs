//! What an account's status says and when the CRM hears of it: only changes of state are events.
//!
//! Not here: when to try again (`worker::accounts`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    account::Trouble,
    core::{
        account::{Account, AccountError, AccountState, AccountStatus, LabelledStatus, Progress, Rest},
        event::{AccountEvent, Event},
        ids::AccountId,
        sync_plan::resting_state,
    },
    flow::{Gateway, now, policy_of, signed, submit},
    store::{Error, Leased, Tx},
};

/// Longer than any pause between two tries. Whoever has not tried for longer, as when this gateway was off, knows nothing of how
/// the account fared.
const UNTRIED: SignedDuration = SignedDuration::from_hours(2);

/// Writes down what ended a session, and when the next one begins; `None` when it takes the user first. True when there is to
/// be no next one, for the account has failed for as long as policy bears.
///
/// # Errors
/// Those of the store; `Fenced` when the account is no longer ours.
pub async fn record(
    gateway: &Gateway,
    lease: Leased,
    trouble: &Trouble,
    next_attempt_at: Option<Timestamp>,
) -> Result<bool, Error> {
    let mut tx = gateway.store.begin(lease.workspace).await?;
    tx.check_epoch(lease.account, lease.epoch).await?;
    let account = tx.account(lease.account).await?.ok_or(Error::Fenced)?;
    let mut since = tx.failing_since(lease.account).await?;
    if since.is_some() && was_untried(&account.status, now()) {
        tx.set_failing_since(lease.account, now()).await?;
        since = Some(now());
    }
    let patience = policy_of(&mut tx, Some(account.user_id)).await?.settings.give_up_after.duration();
    let ends = next_attempt_at.is_some() && ends_patience(trouble, since, (now(), patience));
    if ends {
        give_up(&mut tx, lease.account, trouble).await?;
    } else {
        write_down(&mut tx, lease.account, trouble, next_attempt_at).await?;
    }
    if matches!(trouble, Trouble::Doubted(_)) {
        // Patience is for what is believed.
        tx.set_failing_since(lease.account, now()).await?;
    }
    tx.commit().await?;
    Ok(ends)
}

/// Whether an account has been read since it was connected last.
///
/// # Errors
/// Those of the store.
pub async fn was_well(gateway: &Gateway, lease: Leased) -> Result<bool, Error> {
    let account = gateway.store.read(lease.workspace).await?.account(lease.account).await?;
    Ok(account.is_some_and(|account| account.was_well()))
}

/// Whether the next try came much later than it was to come.
fn was_untried(status: &AccountStatus, now: Timestamp) -> bool {
    status.next_attempt_at.is_some_and(|at| now.duration_since(at) >= UNTRIED)
}

/// Whether an account that fails now has failed for as long as it may. Who has no patience gives it up at the first failure that
/// its provider speaks of: a network that is away for a moment is nobody's word.
fn ends_patience(
    trouble: &Trouble,
    since: Option<Timestamp>,
    (now, patience): (Timestamp, Duration),
) -> bool {
    match trouble {
        // Our own fault, and the operator's; and what is not believed for hours, whatever the policy.
        Trouble::Unreadable | Trouble::Registration(_) | Trouble::Doubted(_) => false,
        Trouble::Unreachable(_) if patience.is_zero() => false,
        _ => now.duration_since(since.unwrap_or(now)) >= signed(patience),
    }
}

/// Stops an account that has failed for too long: its provider is left alone until somebody has it tried again.
async fn give_up(tx: &mut Tx, id: AccountId, trouble: &Trouble) -> Result<(), Error> {
    let now = now();
    let account = tx.account(id).await?.ok_or(Error::Fenced)?;
    let advice = trouble.advice_when_stopped();
    let entry = AccountError { advice: advice.clone(), ..trouble.entry(now) };
    tx.log_account_error(id, &entry).await?;
    let status = AccountStatus {
        state: AccountState::Stopped,
        since: now,
        detail: Some(format!("It has failed for too long and is not tried any more: {trouble}")),
        advice: Some(advice),
        next_attempt_at: None,
        progress: None,
        ..account.status
    };
    tx.set_account_status(id, &status).await?;
    let settings = policy_of(tx, Some(account.user_id)).await?.settings;
    announce(tx, (id, settings.labelled(status)), AccountEvent::Stopped, now).await
}

/// Writes down that the provider refused the account's login elsewhere than in its session. The session ends too: nobody
/// logs in again before the login changes, for providers lock accounts that go on trying.
///
/// # Errors
/// Those of the store; `Fenced` when the account is gone.
pub(in crate::flow) async fn refuse_login(
    tx: &mut Tx,
    account: AccountId,
    trouble: &Trouble,
) -> Result<(), Error> {
    write_down(tx, account, trouble, None).await?;
    tx.fence_account(account).await.map(drop)
}

/// Writes down that the provider refused an account's login for sending, by which reading need not end: many offer the one
/// without the other. Unless it said that it is so, reading logs in anew, once, and finds out whether the login is still good.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn refuse_sending(
    tx: &mut Tx,
    mut account: Account,
    trouble: &Trouble,
) -> Result<(), Error> {
    let (now, id) = (now(), account.id);
    let is_news = account.sending_refused.replace(trouble.to_string()).is_none();
    tx.refuse_sending(id, account.sending_refused.as_deref()).await?;
    tx.log_account_error(id, &trouble.entry(now)).await?;
    if !matches!(trouble, Trouble::NotEnabled(_)) {
        tx.fence_account(id).await?;
    }
    if is_news {
        let settings = policy_of(tx, Some(account.user_id)).await?.settings;
        announce(tx, (id, settings.labelled(account.shown_status(now))), AccountEvent::Error, now).await?;
    }
    Ok(())
}

/// What can be done about it. Who cannot get in at a provider is told first what its users should know.
fn advice(trouble: &Trouble, account: &Account) -> String {
    let notice = account.provider().notice.as_deref().filter(|_| matches!(trouble, Trouble::NotEnabled(_)));
    match notice {
        Some(notice) => format!("{notice} {}", trouble.advice()),
        None => trouble.advice(),
    }
}

async fn write_down(
    tx: &mut Tx,
    id: AccountId,
    trouble: &Trouble,
    next_attempt_at: Option<Timestamp>,
) -> Result<(), Error> {
    let now = now();
    let account = tx.account(id).await?.ok_or(Error::Fenced)?;
    tx.log_account_error(id, &trouble.entry(now)).await?;
    let (was, state) = (account.status.state, trouble.state());
    let status = AccountStatus {
        state,
        since: if was == state { account.status.since } else { now },
        detail: Some(trouble.to_string()),
        advice: Some(advice(trouble, &account)),
        next_attempt_at,
        progress: account.status.progress.filter(|_| state != AccountState::Stopped),
        ..account.status.clone()
    };
    tx.set_account_status(id, &status).await?;
    if let Some(until) = next_attempt_at.filter(|_| state == AccountState::Throttled) {
        // Whatever else logs in to the account keeps the peace too.
        let times = account.rests_in_a_row(now).saturating_add(1);
        tx.rest_account(id, &Rest { until, over: trouble.to_string(), times }).await?;
    }
    let what = match state {
        AccountState::Error => Some(AccountEvent::Error),
        AccountState::Stopped => Some(AccountEvent::Stopped),
        AccountState::ReauthRequired => Some(AccountEvent::ReauthRequired),
        // Being asked to wait is nobody's concern but ours.
        _ => None,
    };
    if let Some(what) = what.filter(|_| was != state) {
        let settings = policy_of(tx, Some(account.user_id)).await?.settings;
        announce(tx, (id, settings.labelled(status)), what, now).await?;
    }
    Ok(())
}

/// Until when a provider has asked us to stay away, as an earlier process wrote down, or whoever else talks to it.
///
/// # Errors
/// Those of the store.
pub async fn resume_at(gateway: &Gateway, lease: Leased) -> Result<Option<Timestamp>, Error> {
    let Some(account) = gateway.store.read(lease.workspace).await?.account(lease.account).await? else {
        return Ok(None);
    };
    let rests = account.rests_until(now());
    let throttled = Some(account.status).filter(|status| status.state == AccountState::Throttled);
    Ok(throttled.and_then(|status| status.next_attempt_at).max(rests))
}

/// Notes that mail was filed; the first makes the account active.
pub(super) async fn note_filed(tx: &mut Tx, id: AccountId, now: Timestamp) -> Result<(), Error> {
    let account = tx.account(id).await?.ok_or(Error::Fenced)?;
    let is_first = account.status.state == AccountState::AwaitingFirstMail;
    let status = if is_first {
        AccountStatus { state: AccountState::Active, since: now, ..account.status }
    } else {
        account.status
    };
    let status = AccountStatus { last_synced_at: Some(now), ..status };
    tx.set_account_status(id, &status).await?;
    if is_first {
        let settings = policy_of(tx, Some(account.user_id)).await?.settings;
        announce(tx, (id, settings.labelled(status)), AccountEvent::Active, now).await?;
    }
    Ok(())
}

/// Ends the failing of an account whose mail is being read: what is left to look at may take many sessions.
pub(super) async fn recover(tx: &mut Tx, gateway: &Gateway, id: AccountId, tell: Tell) -> Result<(), Error> {
    let account = tx.account(id).await?.ok_or(Error::Fenced)?;
    match account.status.state {
        AccountState::Error | AccountState::Throttled => settle(tx, gateway, id, tell).await,
        _ => Ok(()),
    }
}

/// Whether to tell how far the backfill has come; its end is told in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    Progress,
    EndOnly,
}

/// Sets the state that follows from what was read and what is left to read, after things went well.
pub(super) async fn settle(tx: &mut Tx, gateway: &Gateway, id: AccountId, tell: Tell) -> Result<(), Error> {
    let now = now();
    let account = tx.account(id).await?.ok_or(Error::Fenced)?;
    let settings = policy_of(tx, Some(account.user_id)).await?.settings;
    let rows = tx.mailboxes(id).await?;
    let progress = rows.iter().fold(Progress { done: 0, total: 0 }, |sum, row| Progress {
        done: sum.done.saturating_add(row.backfill.done),
        total: sum.total.saturating_add(row.backfill.total),
    });
    let backfilling = rows.iter().any(|row| row.backfill.next_uid > 0);
    let AccountStatus { state: was, since, last_synced_at, last_checked_at, .. } = account.status;
    let state = resting_state(backfilling, last_synced_at.is_some());
    let status = AccountStatus {
        state,
        since: if was == state { since } else { now },
        detail: None,
        advice: None,
        last_synced_at,
        last_checked_at: Some(now),
        next_attempt_at: None,
        progress: backfilling.then_some(progress),
    };
    tx.set_account_status(id, &status).await?;
    if !is_at_rest(was) {
        tx.note_account_address(id, &account.email).await?;
        announce(tx, (id, settings.labelled(status.clone())), AccountEvent::Connected, now).await?;
        // What was held for want of it goes out now.
        submit::release_held(tx, gateway, Some(account.user_id)).await?;
    }
    let is_first_look = last_checked_at.is_none() && settings.backfill_days > 0;
    let ended = !backfilling && (was == AccountState::Backfilling || is_first_look);
    if ended || (backfilling && tell == Tell::Progress) {
        let event =
            Event::Backfill { done: ended, account: id, progress, status: settings.labelled(status.clone()) };
        tx.announce(&event, now).await?;
    }
    let was_waiting = is_at_rest(was) || was == AccountState::Connecting;
    if state == AccountState::Active && was != state && was_waiting {
        announce(tx, (id, settings.labelled(status.clone())), AccountEvent::Active, now).await?;
    }
    Ok(())
}

fn is_at_rest(state: AccountState) -> bool {
    use AccountState::{Active, AwaitingFirstMail, Backfilling};
    matches!(state, Active | AwaitingFirstMail | Backfilling)
}

async fn announce(
    tx: &mut Tx,
    (account, status): (AccountId, LabelledStatus),
    what: AccountEvent,
    now: Timestamp,
) -> Result<(), Error> {
    tx.announce(&Event::Account { what, account, status }, now).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_6_shsp_13_an_account_is_given_up_after_the_policys_time() {
        let at = |hours: i64| Timestamp::from_second(1_760_000_000 + hours * 3600).unwrap();
        let (none, two_days) = (Duration::ZERO, Duration::from_secs(48 * 3600));
        let (refused, away) = (Trouble::Refused("x".into()), Trouble::Unreachable("x".into()));
        for trouble in [&refused, &away] {
            assert!(!ends_patience(trouble, None, (at(0), two_days)));
            assert!(!ends_patience(trouble, Some(at(0)), (at(47), two_days)));
            assert!(ends_patience(trouble, Some(at(0)), (at(48), two_days)));
        }
        assert!(ends_patience(&refused, None, (at(0), none)));
        assert!(!ends_patience(&away, Some(at(0)), (at(99), none)));
        assert!(!ends_patience(&Trouble::Doubted("x".into()), Some(at(0)), (at(99), none)));
        assert!(!ends_patience(&Trouble::Unreadable, Some(at(0)), (at(99), two_days)));
    }
}
