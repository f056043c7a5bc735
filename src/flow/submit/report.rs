//! Reports a submission's fate to the CRM's reverse-path, as its NOTIFY asked (RFC 3461, RFC 3464).
//!
//! From the null path, to the path that a logged-in client gave, never to anybody else (invariant 12). By the smarthost when
//! there is one; by the user's own account otherwise, whose provider may refuse the null path: then the events alone tell.

use jiff::SignedDuration;

use bytes::Bytes;

use super::{
    handler::own_message_id,
    perform::{Part, send_once, server},
};
use crate::{
    core::{
        ids::MessageKey,
        retry,
        submission::{RecipientState, Submission, SubmissionState},
    },
    flow::{FlowError, Gateway, jitter, now},
    mail::{
        Action, Address, EnhancedStatus, Envelope, NewReport, RawMessage, Recipient, ReportedRecipient,
        ReversePath, compose_report,
    },
    queue::{Leased, Settlement},
    smtp::Outcome,
    store::mint,
};

/// Tries of one report.
const TRIES_MAX: u32 = 8;

/// Composes and sends the report.
///
/// # Errors
/// Those of the store.
pub async fn report(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let Some(to) = submission.reverse_path.address().cloned() else { return Err(FlowError::Obsolete) };
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    let raw = session.blob(stored.blob).await?;
    drop(session);
    let raw = compose(gateway, &submission, &to, raw);
    let envelope = Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(ReversePath::Null) };
    let outcome = send(gateway, job, &submission, &Part { envelope, raw }).await?;
    let settlement = match outcome {
        Outcome::Accepted { .. } | Outcome::Refused(_) | Outcome::Unknown => Settlement::Done,
        Outcome::Deferred(_) if job.attempt >= TRIES_MAX => Settlement::Done,
        Outcome::Deferred(_) => {
            let wait = retry::submission(job.attempt, jitter());
            Settlement::RetryAt(
                now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1)),
            )
        }
    };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

fn compose(gateway: &Gateway, submission: &Submission, to: &Address, raw: Bytes) -> Bytes {
    let reported = submission.recipients.iter().filter(|state| wants(state));
    let recipients: Vec<_> = reported.map(recipient).collect();
    let (ret, envelope_id) = (submission.dsn.ret, submission.dsn.envelope_id.clone());
    let envelope = Envelope { ret, envelope_id, ..Envelope::new(submission.reverse_path.clone()) };
    let message_id = own_message_id(mint(), &gateway.settings.hostname);
    let report = NewReport {
        reporting_mta: &gateway.settings.hostname,
        to,
        original: &RawMessage(raw),
        envelope: &envelope,
        recipients: &recipients,
        message_id: &message_id,
        date: now(),
    };
    compose_report(&report).into_bytes()
}

fn wants(state: &RecipientState) -> bool {
    match state.state {
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

async fn send(
    gateway: &Gateway,
    job: &Leased,
    submission: &Submission,
    part: &Part,
) -> Result<Outcome, FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let smarthost = server(&mut session, None).await?;
    let server = match smarthost {
        Some(smarthost) => smarthost,
        None => server(&mut session, submission.account).await?.ok_or(FlowError::Obsolete)?,
    };
    drop(session);
    Ok(send_once(gateway, &server, part).await)
}
