//! Reports a submission's fate to the CRM's reverse-path, as its NOTIFY asked (RFC 3461, RFC 3464).
//!
//! From the null path, to the path that a logged-in client gave, never to anybody else (invariant 12). By the smarthost when
//! there is one; by the user's own account otherwise, whose provider may refuse the null path: then the events alone tell.
//! They tell in any case, so a report whose answer was lost is not sent twice.

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    handler::own_message_id,
    way_out::{WAIT, WAIT_MAX, WayOut, crowded, note_unsent, tell_workers, way_out},
};
use crate::{
    account::{Exit as Server, SmtpClient, Trouble},
    core::{
        ids::{AccountId, MessageKey},
        job::Job,
        retry,
        submission::{RecipientState, Submission, SubmissionState, Told},
    },
    flow::{FlowError, Gateway, jitter, login, now, signed},
    mail::{
        Action, Address, EnhancedStatus, Envelope, NewReport, RawMessage, Recipient, ReportedRecipient,
        ReversePath, compose_report,
    },
    queue::{Leased, Settlement},
    smtp::{Outcome, Transmission},
    store::{Session, Tx, mint},
};

/// Tries of one report.
const TRIES_MAX: u32 = 8;

/// What a report tells.
struct About {
    message: MessageKey,
    told: Vec<Told>,
}

/// What became of a try.
enum Tried {
    /// Taken, refused for good, or nobody knows.
    Over,
    /// Until then, if it is known.
    Deferred(Option<Timestamp>),
    /// There was no session to be had before then: no try at all.
    NotBefore(Timestamp),
}

/// Queues the report, as soon as there is something to tell: nobody's waits for how others fare. One that waits already tells
/// of it too.
///
/// # Errors
/// Those of the store.
pub(super) async fn queue(tx: &mut Tx, submission: &Submission, now: Timestamp) -> Result<(), FlowError> {
    // While the attempt goes on, more may come: one report tells it all.
    let goes_on = matches!(submission.state, SubmissionState::Queued | SubmissionState::Sending);
    let job = Job::Report { message: submission.message };
    if !goes_on && submission.has_news() && !tx.is_waiting(&job).await? {
        tx.enqueue_job(&job, now).await?;
    }
    Ok(())
}

/// Composes and sends the report.
///
/// # Errors
/// Those of the store.
pub async fn report(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let Some(to) = submission.reverse_path.address().cloned() else { return Err(FlowError::Obsolete) };
    let news: Vec<_> = submission.recipients.iter().filter(|state| submission.dsn.is_news(state)).collect();
    if news.is_empty() {
        return Err(FlowError::Obsolete);
    }
    let about = About { message, told: news.iter().map(|state| told(state)).collect() };
    let (account, server) = match server(&mut session, &submission).await? {
        Ok(found) => found,
        Err(until) => {
            drop(session);
            return settle(gateway, job, &about, Tried::NotBefore(until)).await;
        }
    };
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let recipients: Vec<_> = news.into_iter().map(recipient).collect();
    let raw = compose(gateway, &submission, (&to, &recipients), raw);
    let envelope = Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(ReversePath::Null) };
    let began = now();
    let tried = match login::open_submission(gateway, job.workspace, &server).await? {
        Ok((client, _place)) => send(gateway, job, &about, (client, &envelope, &raw)).await?,
        Err(Trouble::Crowded) => Tried::NotBefore(crowded(job)),
        Err(trouble) => unopened(gateway, job, account, (began, &trouble)).await?,
    };
    settle(gateway, job, &about, tried).await
}

fn told(state: &RecipientState) -> Told {
    Told { recipient: state.recipient.address.clone(), state: state.state }
}

/// By which server, and by whose account if it is no smarthost. The inner error says before when nothing may leave.
async fn server(
    session: &mut Session,
    submission: &Submission,
) -> Result<Result<(Option<AccountId>, Server), Timestamp>, FlowError> {
    let mut not_before = now() + WAIT;
    for account in [None, submission.account] {
        match way_out(session, account).await? {
            WayOut::Open(server) => return Ok(Ok((account, server))),
            WayOut::Rests(until) => not_before = until,
            WayOut::Closed(_) => {}
        }
    }
    Ok(Err(not_before))
}

async fn send(
    gateway: &Gateway,
    job: &Leased,
    about: &About,
    (mut client, envelope, raw): (SmtpClient, &Envelope, &Bytes),
) -> Result<Tried, FlowError> {
    let outcomes = match client.send_data(envelope, raw).await {
        Ok(Transmission::Settled(outcomes)) => outcomes,
        Ok(Transmission::Pending(pending)) => {
            intend(gateway, job, about).await?;
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
        Some(account) => note_unsent(&mut tx, account, (began, trouble)).await?,
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
    now() + signed(retry::submission(tries(job), jitter()))
}

fn tries(job: &Leased) -> u32 {
    job.tries.saturating_add(1)
}

/// From here on a crash means that nobody knows. Refused to a worker whose lease has run out: another one has the job.
async fn intend(gateway: &Gateway, job: &Leased, about: &About) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let mut submission = tx.submission(about.message).await?.ok_or(FlowError::Obsolete)?;
    submission.dsn.told.extend_from_slice(&about.told);
    tx.set_dsn_order(about.message, &submission.dsn).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes what has been told, or will not be told any more. What came to pass meanwhile gets a report of its own.
async fn settle(gateway: &Gateway, job: &Leased, about: &About, tried: Tried) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(about.message).await?.ok_or(FlowError::Obsolete)?;
    submission.dsn.told.retain(|told| !about.told.contains(told));
    let settlement = match tried {
        Tried::NotBefore(until) if now().duration_since(job.created_at) < WAIT_MAX => {
            Settlement::RetryAt(until)
        }
        Tried::Deferred(until) if tries(job) < TRIES_MAX => {
            Settlement::TriedUntil(until.unwrap_or_else(|| usual(job)))
        }
        Tried::NotBefore(_) | Tried::Deferred(_) => {
            tracing::warn!(message = %about.message, "a report is given up: the events have told what it says");
            Settlement::Done
        }
        Tried::Over => Settlement::Done,
    };
    if matches!(settlement, Settlement::Done) {
        submission.dsn.told.extend_from_slice(&about.told);
    }
    tx.set_dsn_order(about.message, &submission.dsn).await?;
    tx.settle(job, settlement).await?;
    queue(&mut tx, &submission, now()).await?;
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
