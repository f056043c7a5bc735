//! Mail that was accepted and has no way out: held with the reason, and sent on once an account or a smarthost is there.
//!
//! Not here: finding that there is none (`order`, `perform`).

use jiff::Timestamp;

use super::{
    copies,
    order::{Refusal, Sender, choose_exit, choose_smarthost},
    start,
};
use crate::{
    core::{
        account::Account,
        ids::{AccountId, MessageKey, UserId, WorkspaceId},
        inbound::{Exit, Principal},
        message::{Author, StoredMessage},
        submission::{Hold, SentCopy, Submission, SubmissionState},
    },
    flow::{Gateway, now, policy_of},
    mail::Party,
    store::{Error, Tx},
};

/// Held submissions looked at in one transaction: others who write wait for its end.
const PAGE: u32 = 500;

/// Where a page of held submissions ended.
type Last = (Timestamp, MessageKey);

/// Holds whoever is not sent to yet.
pub(super) fn hold(submission: &mut Submission, reason: &str) {
    for state in submission.recipients.iter_mut().filter(|state| state.state == SubmissionState::Queued) {
        state.hold(Hold::WayOut, reason);
    }
    submission.state = SubmissionState::Held;
    submission.detail = Some(reason.to_owned());
}

/// Starts a submission that nobody works on, with its whole lifetime before it.
pub(super) fn begin(submission: &mut Submission, exit: Exit, now: Timestamp) {
    (submission.account, submission.sent_copy) = leaves_by(exit, submission.sent_copy);
    if matches!(submission.principal, Principal::Participant(_)) {
        // What another wrote is no sent mail of the user's.
        submission.sent_copy = SentCopy::None;
    }
    submission.state = SubmissionState::Queued;
    (submission.attempt, submission.accepted_at, submission.next_attempt_at) = (0, now, Some(now));
    submission.detail = None;
}

/// The account of a way out, and what becomes of the copy in Sent: one that is there or looked after stays so.
fn leaves_by(exit: Exit, copy: SentCopy) -> (Option<AccountId>, SentCopy) {
    match (exit, copy) {
        (Exit::Account(account), SentCopy::None) => (Some(account), SentCopy::Wanted),
        (Exit::Account(account), copy) => (Some(account), copy),
        (Exit::Smarthost, SentCopy::Wanted) => (None, SentCopy::None),
        (Exit::Smarthost, copy) => (None, copy),
    }
}

/// Sends on what is held, of this user or of everybody, as far as there is a way out now: of a large heap what was accepted
/// first. Upkeep sees to the rest, by [`release_all_held`].
///
/// # Errors
/// Those of the store.
pub async fn release_held(tx: &mut Tx, gateway: &Gateway, user: Option<UserId>) -> Result<(), Error> {
    release_page(tx, gateway, (user, None)).await.map(drop)
}

/// Sends on all of a workspace's mail that is held and has a way out now, a transaction for each some: what has none yet
/// keeps nothing behind it waiting.
///
/// # Errors
/// Those of the store.
pub async fn release_all_held(gateway: &Gateway, workspace: WorkspaceId) -> Result<(), Error> {
    let mut after = None;
    loop {
        let mut tx = gateway.store.begin(workspace).await?;
        after = release_page(&mut tx, gateway, (None, after)).await?;
        tx.commit().await?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Looks at a page of what is held; `None` when there is no other behind it.
async fn release_page(
    tx: &mut Tx,
    gateway: &Gateway,
    (user, after): (Option<UserId>, Option<Last>),
) -> Result<Option<Last>, Error> {
    let now = now();
    tx.lock_filing().await?;
    let page = tx.submissions_held(user, (after, PAGE)).await?;
    let is_full = page.len() == PAGE as usize;
    let last = page.last().map(|last| (last.accepted_at, last.message)).filter(|_| is_full);
    for mut submission in page {
        let Some(stored) = tx.message(submission.message).await? else { continue };
        let Ok(exit) = exit_for(tx, gateway, (&submission, &stored)).await? else { continue };
        if let Exit::Account(account) = exit
            && !tx.account(account).await?.is_some_and(|account| may_send(&account))
        {
            // It waits for its user: what left by it now would only be held again.
            continue;
        }
        for state in submission.recipients.iter_mut().filter(|state| state.waits_for_way_out()) {
            (state.state, state.held_for, state.text) = (SubmissionState::Queued, None, None);
        }
        begin(&mut submission, exit, now);
        // The CRM has heard that it was held: that it was sent is told too, though another wrote it.
        submission.attempt = 1;
        tx.send_submission_by(&submission).await?;
        start(tx, &submission, Some(exit), now).await?;
    }
    Ok(last)
}

fn may_send(account: &Account) -> bool {
    account.status.state.is_worked() && account.sending_refused.is_none()
}

async fn exit_for(
    tx: &mut Tx,
    gateway: &Gateway,
    (submission, stored): (&Submission, &StoredMessage),
) -> Result<Result<Exit, Refusal>, Error> {
    let Some(Party { address: from, .. }) = &stored.author_party else { return Ok(Err(Refusal::NoWayOut)) };
    let class = submission.class;
    match (submission.principal, &stored.author) {
        (Principal::Participant(_), _) if !submission.names_anybody() => {
            copies::exit(tx, &gateway.settings.ours, submission).await
        }
        // What came to a reply address goes on from one: an account of the user's would show both sides' addresses.
        (Principal::Participant(user), _) => {
            choose_smarthost(tx, gateway, Sender { user, from, class }).await
        }
        (_, Author::User(user)) => {
            let settings = policy_of(tx, Some(*user)).await?.settings;
            choose_exit(tx, gateway, Sender { user: *user, from, class }, &settings).await
        }
        _ => Ok(Err(Refusal::NoWayOut)),
    }
}
