//! Finds out about a send that was cut off after the final dot: Sent is searched before anything goes out again.
//!
//! Where that cannot tell (a smarthost has no Sent) the message is sent again after the same wait, once, under the same
//! Message-ID, and was visibly `uncertain` meanwhile. After a second lost answer it is held: whether it is sent anew, as
//! another message, is left to the CRM.

use jiff::Timestamp;

use super::{
    record::{self, Pace},
    sent_copy,
    way_out::{Access, account_access, note_trouble, tell_workers},
};
use crate::{
    account::Trouble,
    core::{
        ids::AccountId,
        message::{Sighting, StoredMessage},
        submission::{DOUBTS_MAX, RecipientState, Submission, SubmissionState},
    },
    flow::{FlowError, Gateway, now, signed},
    queue::{Leased, Settlement},
    store::{Session, Tx},
};

/// What a look into Sent told.
enum Finding {
    Sent,
    NotThere,
    /// Nobody could look now.
    NotYet,
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
    let first_notice =
        submission.recipients.iter().any(|recipient| recipient.state == SubmissionState::Sending);
    let finding = if first_notice { Finding::NotYet } else { look(gateway, job, submission, stored).await? };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let current = tx.submission(submission.message).await?.ok_or(FlowError::Obsolete)?;
    if !current.recipients.iter().any(RecipientState::is_in_doubt) {
        // A report that came meanwhile has decided.
        record::conclude(&mut tx, gateway, job, current, Pace::AtOnce).await?;
        tx.commit().await?;
        return Ok(());
    }
    let is_over = record::has_expired(gateway, &current, now());
    match (finding, next) {
        (Finding::Sent, _) => resolve(&mut tx, gateway, job, current, found_sent).await?,
        (_, Some(at)) => remain(&mut tx, job, current, at).await?,
        (Finding::NotThere, None) if is_over => hold(&mut tx, gateway, job, current).await?,
        (Finding::NotThere, None) => resolve(&mut tx, gateway, job, current, send_once_more).await?,
        (Finding::NotYet, None) if is_over && !first_notice => hold(&mut tx, gateway, job, current).await?,
        (Finding::NotYet, None) => {
            let wait = if first_notice { waits.first() } else { waits.last() };
            remain(&mut tx, job, current, now() + signed(wait.copied().unwrap_or_default())).await?;
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
    let Some(account) = submission.account else { return Ok(Finding::NotThere) };
    // A copy of what others were sent before proves nothing for those of the last dot.
    let is_proof = submission.recipients.iter().all(|recipient| recipient.state != SubmissionState::Sent);
    if !is_proof {
        return Ok(Finding::NotThere);
    }
    let mut session = gateway.store.read(job.workspace).await?;
    if is_sighted(&mut session, account, submission).await? {
        return Ok(Finding::Sent);
    }
    let access = account_access(&mut session, account).await?;
    drop(session);
    let Access::Open(login) = access else { return Ok(Finding::NotYet) };
    let began = now();
    match sent_copy::find(gateway, &login, (account, stored)).await {
        Ok(Some(_)) => Ok(Finding::Sent),
        // A provider without a Sent mailbox is like a smarthost: it has nothing to search.
        Ok(None) | Err(Trouble::NoSentMailbox) => Ok(Finding::NotThere),
        Err(trouble) => {
            tracing::info!(message = %submission.message, error = %trouble, "Sent could not be searched for an uncertain message");
            let mut tx = gateway.store.begin(job.workspace).await?;
            let is_refused = note_trouble(&mut tx, account, (began, &trouble)).await?;
            tx.commit().await?;
            if is_refused {
                tell_workers(gateway, account);
            }
            Ok(Finding::NotYet)
        }
    }
}

/// Whether the account's own session has met the message since the dot, wherever the user has put it by now.
async fn is_sighted(
    session: &mut Session,
    account: AccountId,
    submission: &Submission,
) -> Result<bool, FlowError> {
    let Some(since) = submission.dot_intent_at else { return Ok(false) };
    let sightings = session.sightings(&[submission.message]).await?.remove(&submission.message);
    Ok(sightings.unwrap_or_default().iter().any(|row| {
        row.at >= since && matches!(&row.sighting, Sighting::Account(at) if at.account == account)
    }))
}

/// Settles the doubt about each recipient.
async fn resolve(
    tx: &mut Tx,
    gateway: &Gateway,
    job: &Leased,
    mut submission: Submission,
    how: fn(&mut RecipientState),
) -> Result<(), FlowError> {
    submission.recipients.iter_mut().filter(|recipient| recipient.is_in_doubt()).for_each(how);
    if submission.recipients.iter().any(|recipient| recipient.state == SubmissionState::Held) {
        submission.detail = Some("The server never said whether it took the message.".to_owned());
    }
    record::conclude(tx, gateway, job, submission, Pace::AtOnce).await
}

fn found_sent(recipient: &mut RecipientState) {
    recipient.state = SubmissionState::Sent;
}

fn send_once_more(recipient: &mut RecipientState) {
    match recipient.doubts {
        DOUBTS_MAX.. => record::leave_in_doubt(recipient),
        _ => recipient.state = SubmissionState::Queued,
    }
}

async fn hold(tx: &mut Tx, gateway: &Gateway, job: &Leased, submission: Submission) -> Result<(), FlowError> {
    resolve(tx, gateway, job, submission, record::leave_in_doubt).await
}

/// Stays uncertain until the next look.
async fn remain(
    tx: &mut Tx,
    job: &Leased,
    mut submission: Submission,
    until: Timestamp,
) -> Result<(), FlowError> {
    for recipient in submission.recipients.iter_mut().filter(|recipient| recipient.is_in_doubt()) {
        // Nobody was there to count the lost answer.
        if recipient.state == SubmissionState::Sending {
            recipient.doubts = recipient.doubts.saturating_add(1);
        }
        recipient.state = SubmissionState::Uncertain;
    }
    record::stay_uncertain(tx, submission, until).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    Ok(())
}
