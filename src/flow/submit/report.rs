//! Reports a submission's fate to the CRM's reverse-path, as its NOTIFY asked (RFC 3461, RFC 3464).
//!
//! From the null path, to the path that a logged-in client gave, never to anybody else (invariant 12). By the smarthost when
//! there is one; by the user's own account otherwise, whose provider may refuse the null path: then the events alone tell.
//! They tell in any case, so a report whose answer was lost is not sent twice.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    handler::own_message_id,
    way_out::{WayOut, note_trouble, tell_workers, way_out},
};
use crate::{
    account::{Exit as Server, SmtpClient, Trouble},
    core::{
        ids::{AccountId, MessageKey},
        retry,
        submission::{DsnOrder, RecipientState, Submission, SubmissionState},
    },
    flow::{FlowError, Gateway, jitter, now},
    mail::{
        Action, Address, EnhancedStatus, Envelope, NewReport, RawMessage, Recipient, ReportedRecipient,
        ReversePath, compose_report,
    },
    queue::{Leased, Settlement},
    smtp::{Outcome, Transmission},
    store::{Session, mint},
};

/// Tries of one report.
const TRIES_MAX: u32 = 8;

/// What became of a try.
enum Tried {
    /// Taken, refused for good, or nobody knows.
    Over,
    /// Until then, if it is known.
    Deferred(Option<Timestamp>),
}

/// Composes and sends the report.
///
/// # Errors
/// Those of the store.
pub async fn report(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let Some(to) = submission.reverse_path.address().cloned() else { return Err(FlowError::Obsolete) };
    if submission.dsn.dot_intent {
        tracing::warn!(message = %message, "a report may have gone out before a crash, and is not sent again");
        return Err(FlowError::Obsolete);
    }
    let Some((account, server)) = server(&mut session, &submission).await? else {
        drop(session);
        return settle(gateway, job, message, Tried::Deferred(None)).await;
    };
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let recipients: Vec<_> =
        submission.recipients.iter().filter(|state| is_news(&submission.dsn, state)).map(recipient).collect();
    if recipients.is_empty() {
        return Err(FlowError::Obsolete);
    }
    let raw = compose(gateway, &submission, (&to, &recipients), raw);
    let envelope = Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(ReversePath::Null) };
    let began = now();
    let tried = match gateway.dialer.open_submission(&server, &gateway.settings.hostname).await {
        Ok(client) => send(gateway, job, message, (client, &envelope, &raw)).await?,
        Err(trouble) => unopened(gateway, job, account, (began, &trouble)).await?,
    };
    settle(gateway, job, message, tried).await
}

/// By which server, and by whose account if it is no smarthost. `None` while that account may not be logged in to.
async fn server(
    session: &mut Session,
    submission: &Submission,
) -> Result<Option<(Option<AccountId>, Server)>, FlowError> {
    for account in [None, submission.account] {
        if let WayOut::Open(server) = way_out(session, account).await? {
            return Ok(Some((account, server)));
        }
    }
    Ok(None)
}

async fn send(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    (mut client, envelope, raw): (SmtpClient, &Envelope, &Bytes),
) -> Result<Tried, FlowError> {
    let outcomes = match client.send_data(envelope, raw).await {
        Ok(Transmission::Settled(outcomes)) => outcomes,
        Ok(Transmission::Pending(pending)) => {
            intend(gateway, job, message).await?;
            pending.finish().await
        }
        Err(error) => vec![error.outcome()],
    };
    if client.is_usable() {
        client.quit().await;
    }
    Ok(match outcomes.first() {
        Some(Outcome::Deferred(_)) => Tried::Deferred(None),
        _ => Tried::Over,
    })
}

/// What keeps one report from a smarthost keeps those behind it; beside it in the lane may be those of other accounts.
async fn unopened(
    gateway: &Gateway,
    job: &Leased,
    account: Option<AccountId>,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<Tried, FlowError> {
    tracing::info!(job = job.id, code = trouble.code(), "a report could not be sent yet");
    let until = trouble.resumes_at(now()).unwrap_or_else(|| usual(job));
    let mut tx = gateway.store.begin(job.workspace).await?;
    let is_refused = match account {
        Some(account) => note_trouble(&mut tx, account, (began, trouble)).await?,
        None => false,
    };
    if account.is_none() {
        tx.rest_lane(job, until).await?;
    }
    tx.commit().await?;
    if let Some(account) = account.filter(|_| is_refused) {
        tell_workers(gateway, account);
    }
    Ok(Tried::Deferred(Some(until)))
}

fn usual(job: &Leased) -> Timestamp {
    let wait = SignedDuration::try_from(retry::submission(job.attempt, jitter()));
    now() + wait.unwrap_or(SignedDuration::from_hours(1))
}

/// From here on a crash means that nobody knows. Refused to a worker whose lease has run out: another one has the job.
async fn intend(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    submission.dsn.dot_intent = true;
    tx.set_dsn_order(message, &submission.dsn).await?;
    tx.commit().await?;
    Ok(())
}

async fn settle(gateway: &Gateway, job: &Leased, message: MessageKey, tried: Tried) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let settlement = match tried {
        Tried::Deferred(until) if job.attempt < TRIES_MAX => {
            let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
            submission.dsn.dot_intent = false;
            tx.set_dsn_order(message, &submission.dsn).await?;
            Settlement::RetryAt(until.unwrap_or_else(|| usual(job)))
        }
        Tried::Deferred(_) => {
            tracing::warn!(%message, "a report is given up: the events have told what it says");
            Settlement::Done
        }
        Tried::Over => Settlement::Done,
    };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

fn compose(
    gateway: &Gateway,
    submission: &Submission,
    (to, recipients): (&Address, &[ReportedRecipient]),
    raw: Bytes,
) -> Bytes {
    let (ret, envelope_id) = (submission.dsn.ret, submission.dsn.envelope_id.clone());
    let envelope = Envelope { ret, envelope_id, ..Envelope::new(submission.reverse_path.clone()) };
    let message_id = own_message_id(mint(), &gateway.settings.hostname);
    let report = NewReport {
        reporting_mta: &gateway.settings.hostname,
        to,
        original: &RawMessage(raw),
        envelope: &envelope,
        recipients,
        message_id: &message_id,
        date: now(),
    };
    compose_report(&report).into_bytes()
}

/// Whether the CRM asked to be told of this outcome, and was not told of this recipient before.
fn is_news(order: &DsnOrder, state: &RecipientState) -> bool {
    !order.told.contains(&state.recipient.address)
        && match state.state {
            SubmissionState::Bounced => state.recipient.notify.on_failure(),
            SubmissionState::Sent => state.recipient.notify.on_success(),
            _ => false,
        }
}

fn recipient(state: &RecipientState) -> ReportedRecipient {
    let sent = state.state == SubmissionState::Sent;
    let status = state.status.as_deref().and_then(|status| status.parse().ok());
    ReportedRecipient {
        recipient: state.recipient.clone(),
        // We handed it to the provider and know no more: relayed, not delivered (RFC 3464 section 2.3.3).
        action: if sent { Action::Relayed } else { Action::Failed },
        status: status.unwrap_or(EnhancedStatus { class: if sent { 2 } else { 5 }, subject: 0, detail: 0 }),
        diagnostic: state.text.clone(),
        remote_mta: None,
    }
}
