//! Fetches mail again that was left out before it was known to belong: the Sent copy of what was captured later, the answer
//! that overtook what it answers.
//!
//! Over the account's own session where this process has one, else over a short one. Not here: what finds such mail
//! (`flow::ingest`).

use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::oneshot;

use super::{
    Failure, Memory,
    connection::{Connection, Wire},
    consume::{Fetched, Whole},
    followers::Recall,
};
use crate::{
    core::{
        account::MailboxUid,
        decision::{Ruling, Verdict},
        policy,
        sync_plan::Way,
    },
    flow::{FlowError, Gateway, now},
    imap::{Kind, MailboxName, Uid, UidValidity},
    queue::{Leased, Settlement},
};

/// How long the account's own session may take until it comes to an errand.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tries before mail that cannot be fetched is given up: by then the provider has been away for hours.
const TRIES_MAX: u32 = 20;
/// Longest pause between tries, in minutes.
const PAUSE_MINUTES_MAX: u32 = 30;

/// Judges the mail at a place again, by what is known today, and files it if it belongs.
///
/// # Errors
/// Those of the store. `Obsolete` when the account is gone.
pub async fn refetch(gateway: &Gateway, job: &Leased, at: &MailboxUid) -> Result<(), FlowError> {
    let (done, answer) = oneshot::channel();
    if gateway.followers.ask(Recall { job: job.clone(), at: at.clone(), done }) {
        return match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            // Its session has ended, or is busy with a great deal: later.
            Ok(Err(_)) | Err(_) => put_off(gateway, job).await,
        };
    }
    match Box::pin(over_a_short_session(gateway, job, at)).await {
        Ok(outcome) => outcome,
        Err(Failure::Store(error)) => Err(error.into()),
        Err(Failure::Provider(trouble)) => {
            tracing::info!(account = %at.account, error = %trouble, "mail that belongs could not be fetched yet");
            put_off(gateway, job).await
        }
        Err(Failure::Anew) => put_off(gateway, job).await,
    }
}

async fn over_a_short_session(
    gateway: &Gateway,
    job: &Leased,
    at: &MailboxUid,
) -> Result<Result<(), FlowError>, Failure> {
    let account = gateway.store.read(job.workspace).await?.account(at.account).await?;
    if !account.is_some_and(|account| account.status.state.is_worked()) {
        return Ok(Err(FlowError::Obsolete));
    }
    let mut memory = Memory::default();
    let opened = Connection::open(gateway, job.workspace, at.account, &mut memory).await?;
    let Some(mut connection) = opened else { return Ok(Err(FlowError::Obsolete)) };
    let outcome = connection.recall(job, at).await?;
    connection.client.logout().await;
    Ok(outcome)
}

async fn put_off(gateway: &Gateway, job: &Leased) -> Result<(), FlowError> {
    let minutes = job.attempt.min(PAUSE_MINUTES_MAX);
    let later = Settlement::RetryAt(now() + SignedDuration::from_mins(i64::from(minutes)));
    let settlement = if job.attempt < TRIES_MAX { later } else { Settlement::Done };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

impl<S: Wire> Connection<'_, S> {
    /// Does the errand over this session. The inner result is the job's, the outer one the session's.
    pub(super) async fn recall(
        &mut self,
        job: &Leased,
        at: &MailboxUid,
    ) -> Result<Result<(), FlowError>, Failure> {
        let place = MailboxName::new(&at.mailbox).zip(Uid::new(at.uid));
        let Some((name, uid)) = place else { return Ok(Err(FlowError::Obsolete)) };
        if !self.is_open(&name, at.uid_validity).await? {
            return Ok(Err(FlowError::Obsolete));
        }
        let (headers, _) = self.headers(&[uid]).await?;
        let Some(seen) = headers.seen.into_iter().next() else {
            let ruling = if headers.unreadable.is_empty() { policy::gone() } else { policy::unreadable() };
            return Ok(self.leave_again(job, at, &ruling).await);
        };
        let seen = [seen];
        let judged = self.judge(&seen).await?.pop();
        let (Some((ruling, direction)), [seen]) = (judged, seen) else { return Ok(Err(FlowError::Obsolete)) };
        if ruling.verdict != Verdict::Synced {
            return Ok(self.leave_again(job, at, &ruling).await);
        }
        match self.body(&seen).await? {
            Fetched::Not(ruling) => Ok(self.leave_again(job, at, &ruling).await),
            Fetched::Whole(raw) => {
                let whole = self.whole(seen, (ruling, direction), raw).await?;
                Ok(self.file_again(job, (&name, at.uid_validity), &whole).await)
            }
        }
    }

    /// Opens the mailbox unless it is open. False when the place is no more: then so is the errand.
    async fn is_open(&mut self, name: &MailboxName, uid_validity: u32) -> Result<bool, Failure> {
        self.selected = None;
        let selected = match self.client.examine(name, None).await {
            Err(error) if error.connection_lives() && error.kind() == Kind::Refused => return Ok(false),
            selected => selected?,
        };
        // Not noted as selected: whoever follows the account opens it anew, and so misses nothing.
        Ok(selected.uid_validity.map_or(0, UidValidity::get) == uid_validity)
    }

    async fn leave_again(&self, job: &Leased, at: &MailboxUid, ruling: &Ruling) -> Result<(), FlowError> {
        let mut tx = self.gateway.store.begin(self.workspace).await?;
        tx.revise_decision(at, ruling, now()).await?;
        tx.settle(job, Settlement::Done).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn file_again(
        &self,
        job: &Leased,
        (name, uid_validity): (&MailboxName, u32),
        whole: &Whole,
    ) -> Result<(), FlowError> {
        let now = now();
        let mut tx = self.gateway.store.begin(self.workspace).await?;
        let arrival = self.arrival(whole, (Way::Live, uid_validity), name, now);
        self.ingest(&mut tx, arrival).await?;
        tx.settle(job, Settlement::Done).await?;
        tx.commit().await?;
        Ok(())
    }
}
