//! Reports a submission's fate to the CRM's reverse-path, as its NOTIFY asked (RFC 3461, RFC 3464).
//!
//! From the null path, to the path that a logged-in client gave, never to anybody else (invariant 12). By the smarthost when
//! there is one; by the user's own account otherwise, whose provider may refuse the null path: then the events alone tell.

use jiff::SignedDuration;

use super::perform::Part;
use crate::{
    core::{ids::MessageKey, inbound::SendClass, retry, submission::{RecipientState, Submission, SubmissionState}},
    flow::{FlowError, Gateway, jitter, now},
    mail::{Address, Envelope, Recipient, Return, ReversePath, report},
    queue::{Leased, Settlement},
    smtp::Outcome,
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
    let raw = compose(gateway, &submission, &to, &raw);
    let envelope = Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(ReversePath::Null) };
    let outcome = send(gateway, job, &submission, &Part { envelope, raw }).await?;
    let settlement = match outcome {
        Outcome::Accepted { .. } | Outcome::Refused(_) | Outcome::Unknown => Settlement::Done,
        Outcome::Deferred(_) if job.attempt >= TRIES_MAX => Settlement::Done,
        Outcome::Deferred(_) => {
            let wait = retry::submission(job.attempt, jitter());
            Settlement::RetryAt(now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1)))
        }
    };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

fn compose(gateway: &Gateway, submission: &Submission, to: &Address, raw: &bytes::Bytes) -> bytes::Bytes {
    let reported = submission.recipients.iter().filter(|state| wants(state));
    let recipients: Vec<_> = reported.map(recipient).collect();
    let draft = report::ReportDraft {
        reporting_mta: &gateway.settings.hostname,
        to,
        envelope_id: submission.dsn.envelope_id.as_deref(),
        arrived_at: submission.accepted_at,
        now: now(),
        recipients: &recipients,
        original: raw,
        ret: submission.dsn.ret.unwrap_or(Return::Headers),
    };
    report::compose_report(&draft)
}

fn wants(state: &RecipientState) -> bool {
    match state.state {
        SubmissionState::Bounced => state.recipient.notify.on_failure(),
        SubmissionState::Sent => state.recipient.notify.on_success(),
        _ => false,
    }
}

fn recipient(state: &RecipientState) -> report::ReportRecipient {
    let delivered = state.state == SubmissionState::Sent;
    report::ReportRecipient {
        address: Some(state.recipient.address.clone()),
        original: state.recipient.original.clone(),
        // We handed it to the provider and know no more: relayed, not delivered (RFC 3464 section 2.3.3).
        action: if delivered { report::Action::Relayed } else { report::Action::Failed },
        status: state.status.as_deref().and_then(report::EnhancedStatus::parse),
        diagnostic: state.text.clone(),
    }
}

async fn send(gateway: &Gateway, job: &Leased, submission: &Submission, part: &Part) -> Result<Outcome, FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let smarthost = session.exit_server(None).await?;
    let server = match (smarthost, submission.class) {
        (Some(server), _) => Some(server),
        (None, SendClass::Individual | SendClass::Bulk | SendClass::Workflow) => session.exit_server(submission.account).await?,
    };
    drop(session);
    let server = server.ok_or(FlowError::Obsolete)?;
    Ok(super::perform::send_once(gateway, &server, part).await)
}
