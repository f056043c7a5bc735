//! Fetches mail again that was left out before it was known to belong: the Sent copy of what was captured later, the answer
//! that overtook what it answers.
//!
//! Over the account's own session where this process has one, else over a short one. Not here: what finds such mail
//! (`flow::ingest`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::{
    Failure, Memory,
    connection::{Connection, Wire, is_refusal},
    consume::{BODY_BYTES_GUESS, Fetched, Whole},
    followers::Recall,
    health,
};
use crate::{
    account::{Purpose, Trouble},
    core::{
        account::{AccountState, MailboxUid},
        decision::{Ruling, Verdict},
        ids::{AccountId, DecisionId},
        policy,
        sync_plan::Way,
    },
    flow::{
        FlowError, Gateway,
        ingest::{self, Ingested},
        limits::Purse,
        now, policy_of,
        submit::{crowded, rest_over, tell_workers},
        trust,
    },
    imap::{MailboxName, Uid},
    queue::{Leased, Settlement},
    store::Tx,
};

/// How long the account's own session may take until it comes to an errand.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest pause between tries. There is no last one: mail that belongs is wanted however long its provider is away.
const PAUSE_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How long an errand rests for an account that is not worked. Whoever begins to work it has its errands done at once.
const REST: SignedDuration = SignedDuration::from_hours(6);

/// Judges mail that was left out again, by what is known today, and files it if it belongs.
///
/// # Errors
/// Those of the store. `Obsolete` when the account is gone, or something else has been decided since.
pub async fn refetch(
    gateway: &Gateway,
    job: &Leased,
    account: AccountId,
    decision: DecisionId,
) -> Result<(), FlowError> {
    let (done, answer) = oneshot::channel();
    if gateway.followers.ask(Recall { job: job.clone(), account, decision, done }) {
        return match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            // Its session has ended, or is busy with a great deal: later.
            Ok(Err(_)) | Err(_) => put_off(gateway, job, soon(job)).await,
        };
    }
    let began = now();
    match Box::pin(over_a_short_session(gateway, job, account, decision)).await {
        Ok(outcome) => outcome,
        Err(Failure::Store(error)) => Err(error.into()),
        // A place is free soon, and nothing is wrong.
        Err(Failure::Provider(Trouble::Crowded)) => put_off(gateway, job, crowded(job)).await,
        Err(Failure::Provider(trouble)) => fail(gateway, job, account, (began, &trouble)).await,
        Err(Failure::Anew | Failure::MadeRoom) => put_off(gateway, job, soon(job)).await,
    }
}

async fn over_a_short_session(
    gateway: &Gateway,
    job: &Leased,
    account: AccountId,
    decision: DecisionId,
) -> Result<Result<(), FlowError>, Failure> {
    let found = gateway.store.read(job.workspace).await?.account(account).await?;
    let Some(status) = found.map(|found| found.status) else { return Ok(Err(FlowError::Obsolete)) };
    if matches!(status.state, AccountState::Erasing | AccountState::Erased) {
        return Ok(Err(FlowError::Obsolete));
    }
    if !status.state.is_worked() {
        return Ok(put_off(gateway, job, now() + REST).await);
    }
    // The provider asked us to stay away, or is away: the account's own session is the first to try again.
    if let Some(at) = status.next_attempt_at.filter(|at| *at > now()) {
        return Ok(put_off(gateway, job, at).await);
    }
    let mut memory = Memory::default();
    let opened = Connection::open(gateway, (job.workspace, account), &mut memory, Purpose::Errand).await?;
    let Some(mut connection) = opened else { return Ok(Err(FlowError::Obsolete)) };
    let outcome = connection.recall(job, decision).await;
    connection.note_octets().await?;
    let outcome = outcome?;
    connection.client.logout().await;
    Ok(outcome)
}

/// What failed for one errand would fail for those that wait behind it.
async fn fail(
    gateway: &Gateway,
    job: &Leased,
    account: AccountId,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<(), FlowError> {
    tracing::info!(%account, error = %trouble, "mail that belongs could not be fetched yet");
    let mut tx = gateway.store.begin(job.workspace).await?;
    let (until, is_refused) = rest_over(&mut tx, job, account, (began, trouble), soon(job)).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    tx.commit().await?;
    if is_refused {
        tell_workers(gateway, account);
    }
    Ok(())
}

/// When to try again after something that may pass.
fn soon(job: &Leased) -> Timestamp {
    now() + SignedDuration::from_mins(i64::from(job.attempt)).min(PAUSE_MAX)
}

async fn put_off(gateway: &Gateway, job: &Leased, until: Timestamp) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    tx.commit().await?;
    Ok(())
}

/// A mailbox in which mail was left.
enum Found {
    Open,
    /// The mailbox is followed no more, or has other UIDs and the mail is not among those that were matched.
    Gone,
    /// It cannot be opened now, or its new UIDs are not matched yet.
    Later,
}

impl<S: Wire> Connection<'_, S> {
    /// Does the errand over this session. The inner result is the job's, the outer one the session's.
    pub(super) async fn recall(
        &mut self,
        job: &Leased,
        decision: DecisionId,
    ) -> Result<Result<(), FlowError>, Failure> {
        // Its UIDs may have changed since the errand was left: the decision knows where it lies today.
        let at = self.read().await?.skipped_at(decision).await?;
        let place = at.as_ref().and_then(|at| MailboxName::new(&at.mailbox).zip(Uid::new(at.uid)));
        let (Some(at), Some((name, uid))) = (at, place) else { return Ok(Err(FlowError::Obsolete)) };
        match self.reopen(&name, at.uid_validity).await? {
            Found::Open => {}
            Found::Later => return Ok(put_off(self.gateway, job, soon(job)).await),
            Found::Gone => return Ok(self.leave_again(job, &at, &policy::gone()).await),
        }
        let place = (&name, at.uid_validity);
        let (headers, _) = self.headers(place, &[uid]).await?;
        let Some(seen) = headers.seen.into_iter().next() else {
            let ruling = if headers.unreadable.is_empty() { policy::gone() } else { policy::unreadable() };
            return Ok(self.leave_again(job, &at, &ruling).await);
        };
        let seen = [seen];
        let judged = self.judge(&seen).await?.pop();
        let (Some((ruling, direction)), [seen]) = (judged, seen) else { return Ok(Err(FlowError::Obsolete)) };
        if ruling.verdict != Verdict::Synced {
            if let Some(wording) = self.proof(place, &seen, &ruling).await? {
                let mut tx = self.gateway.store.begin(self.workspace).await?;
                trust::corroborate(&mut tx, &wording).await?;
                tx.commit().await?;
            }
            return Ok(self.leave_again(job, &at, &ruling).await);
        }
        let mut session = self.read().await?;
        let purse = Purse::of(&mut session, self.user, now()).await?;
        let is_over = self.is_over_limit(&mut session, &seen, &purse).await?;
        drop(session);
        if is_over {
            let tx = self.gateway.store.begin(self.workspace).await?;
            return Ok(self.defer_again(tx, job, (&at, &purse)).await);
        }
        // As for all bodies: those in hand at once have a bound, however many errands there are.
        let bytes = seen.size.unwrap_or(BODY_BYTES_GUESS).min(self.gateway.settings.message_bytes_max);
        let _room = self.gateway.followers.room(bytes).await;
        match self.body(place, &seen).await? {
            Fetched::Not(ruling) => Ok(self.leave_again(job, &at, &ruling).await),
            Fetched::Whole(raw) => {
                let whole = self.whole(seen, (ruling, direction), raw).await?;
                Ok(self.file_again(job, &at, &whole).await)
            }
        }
    }

    /// Opens a mailbox in which mail lay under this UIDVALIDITY.
    async fn reopen(&mut self, name: &MailboxName, uid_validity: u64) -> Result<Found, Failure> {
        // Not noted as selected: whoever follows the account opens it anew, and so misses nothing.
        self.selected = None;
        let present = match self.client.examine(name, None).await {
            Err(error) if is_refusal(&error) => None,
            selected => Some(self.era_of(&selected?)),
        };
        if present == Some(uid_validity) {
            return Ok(Found::Open);
        }
        let rows = self.read().await?.mailboxes(self.account).await?;
        let followed = rows.iter().find(|row| row.name == name.as_bytes()).map(|row| row.cursor.uid_validity);
        // What was still there when the UIDs changed has its new place once they are matched.
        let is_matched = followed.is_none() || followed == present;
        Ok(if is_matched { Found::Gone } else { Found::Later })
    }

    async fn leave_again(&self, job: &Leased, at: &MailboxUid, ruling: &Ruling) -> Result<(), FlowError> {
        let tx = self.gateway.store.begin(self.workspace).await?;
        self.leave_within(tx, job, at, ruling).await
    }

    async fn leave_within(
        &self,
        mut tx: Tx,
        job: &Leased,
        at: &MailboxUid,
        ruling: &Ruling,
    ) -> Result<(), FlowError> {
        tx.revise_decision(at, ruling, ingest::stamp(&self.policy), now()).await?;
        tx.settle(job, Settlement::Done).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn file_again(&self, job: &Leased, at: &MailboxUid, whole: &Whole) -> Result<(), FlowError> {
        let now = now();
        let name = MailboxName::new(&at.mailbox).ok_or(FlowError::Obsolete)?;
        let mut tx = self.gateway.store.begin(self.workspace).await?;
        let account = tx.account_to_change(self.account).await?;
        if account.is_none_or(|account| account.status.state.is_gone()) {
            return Err(FlowError::Obsolete);
        }
        tx.lock_filing().await?;
        // A policy that was changed while the body was fetched holds for it: once more, by that.
        if policy_of(&mut tx, Some(self.user)).await? != self.policy {
            tx.leave_sealed(&whole.bytes);
            tx.settle(job, Settlement::RetryAt(now)).await?;
            tx.commit().await?;
            return Ok(());
        }
        let purse = Purse::of(&mut tx, self.user, now).await?;
        let arrival = self.arrival(whole, (Way::Live, at.uid_validity), &name, now);
        if let Some(ruling) = &whole.left_out
            && ingest::original_of(&mut tx, &arrival).await?.is_none()
        {
            return self.leave_within(tx, job, at, ruling).await;
        }
        if whole.left_out.is_none() && self.is_over_limit(&mut tx, &whole.seen, &purse).await? {
            tx.leave_sealed(&whole.bytes);
            return self.defer_again(tx, job, (at, &purse)).await;
        }
        match self.ingest(&mut tx, whole, arrival).await? {
            Ingested::Filed(_) => purse.count_synced(&mut tx, 1).await?,
            Ingested::Known { .. } => tx.leave_sealed(&whole.bytes),
        }
        health::note_filed(&mut tx, self.account, now).await?;
        tx.settle(job, Settlement::Done).await?;
        tx.commit().await?;
        Ok(())
    }
}
