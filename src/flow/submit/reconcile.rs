//! Finds out about a send that was cut off after the final dot: Sent is searched before anything goes out again.
//!
//! A smarthost has no Sent to search: there the message is sent again after the same wait, under the same Message-ID, and
//! the submission was visibly `uncertain` meanwhile.

use jiff::{SignedDuration, Timestamp};

use super::{record, sent_copy};
use crate::{
    core::{
        message::StoredMessage,
        submission::{RecipientState, Submission, SubmissionState},
    },
    flow::{FlowError, Gateway, now},
    queue::{Leased, Settlement},
    store::Tx,
};

/// What a look into Sent told.
enum Finding {
    Sent,
    NotThere,
    /// Nobody could look.
    Unknown,
}

/// Takes one step towards certainty.
///
/// # Errors
/// Those of the store.
pub(super) async fn perform(
    gateway: &Gateway,
    job: &Leased,
    submission: &Submission,
    stored: &StoredMessage,
) -> Result<(), FlowError> {
    let since = submission.dot_intent_at.unwrap_or(submission.accepted_at);
    let waits = &gateway.settings.reconcile_waits;
    let next = waits.iter().map(|wait| since + signed(*wait)).find(|at| *at > now());
    // A worker died between the dot and the answer: say so first, then look when the provider had time to file its copy.
    let first_notice = submission.state != SubmissionState::Uncertain;
    let finding =
        if first_notice { Finding::Unknown } else { look(gateway, job, submission, stored).await? };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let current = tx.submission(submission.message).await?.ok_or(FlowError::Obsolete)?;
    match (finding, next) {
        (Finding::Sent, _) => resolve(&mut tx, gateway, job, current, SubmissionState::Sent).await?,
        (Finding::NotThere, None) => resolve(&mut tx, gateway, job, current, SubmissionState::Queued).await?,
        (Finding::Unknown, None) if submission.account.is_none() => {
            resolve(&mut tx, gateway, job, current, SubmissionState::Queued).await?;
        }
        (_, next) => {
            let at = next.unwrap_or_else(|| now() + signed(waits.last().copied().unwrap_or_default()));
            remain(&mut tx, job, current, at).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn look(
    gateway: &Gateway,
    job: &Leased,
    submission: &Submission,
    stored: &StoredMessage,
) -> Result<Finding, FlowError> {
    let Some(account) = submission.account else { return Ok(Finding::Unknown) };
    match sent_copy::find(gateway, job.workspace, account, stored).await? {
        Ok(Some(_)) => Ok(Finding::Sent),
        Ok(None) => Ok(Finding::NotThere),
        Err(trouble) => {
            tracing::info!(message = %submission.message, error = %trouble, "Sent could not be searched for an uncertain message");
            Ok(Finding::Unknown)
        }
    }
}

/// Settles the doubt: sent, or to be sent once more.
async fn resolve(
    tx: &mut Tx,
    gateway: &Gateway,
    job: &Leased,
    mut submission: Submission,
    to: SubmissionState,
) -> Result<(), FlowError> {
    for recipient in submission.recipients.iter_mut().filter(|recipient| in_doubt(recipient)) {
        recipient.state = to;
    }
    record::conclude(tx, gateway, job, submission).await
}

/// Stays uncertain until the next look.
async fn remain(
    tx: &mut Tx,
    job: &Leased,
    mut submission: Submission,
    until: Timestamp,
) -> Result<(), FlowError> {
    for recipient in submission.recipients.iter_mut().filter(|recipient| in_doubt(recipient)) {
        recipient.state = SubmissionState::Uncertain;
    }
    record::stay_uncertain(tx, submission, until).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    Ok(())
}

fn in_doubt(recipient: &RecipientState) -> bool {
    matches!(recipient.state, SubmissionState::Sending | SubmissionState::Uncertain)
}

fn signed(wait: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}
