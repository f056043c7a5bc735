//! What follows from an attempt: recipients' states, events, the Sent copy, the report, and when to try again.
//!
//! Not here: the attempt itself (`perform`).

use jiff::{SignedDuration, Timestamp};

use crate::{
    account::Trouble,
    core::{
        event::{Event, MessageEvent, MessageFact, RecipientFact},
        ids::MessageKey,
        job::Job,
        message::Direction,
        policy::AppendSent,
        retry,
        submission::{RecipientState, SentCopy, Submission, SubmissionState, overall},
    },
    flow::{FlowError, Gateway, jitter, now},
    mail::Address,
    queue::{Leased, Settlement},
    smtp::{Outcome, Reply},
    store::Tx,
};

/// Records what servers said of some recipients. The job goes on.
///
/// # Errors
/// Those of the store.
pub(super) async fn outcomes(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    results: &[(Address, Outcome)],
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    for (address, outcome) in results {
        for state in submission.recipients.iter_mut().filter(|state| state.recipient.address == *address) {
            apply(state, outcome);
        }
    }
    tx.set_recipients(message, &submission.recipients).await?;
    tx.commit().await?;
    Ok(())
}

fn apply(state: &mut RecipientState, outcome: &Outcome) {
    match outcome {
        Outcome::Accepted { text } => {
            (state.state, state.code, state.status) = (SubmissionState::Sent, Some(250), None);
            state.text = Some(text.clone());
        }
        Outcome::Refused(reply) => set(state, SubmissionState::Bounced, reply),
        Outcome::Deferred(reply) => set(state, SubmissionState::Deferred, reply),
        Outcome::Unknown => {
            (state.state, state.code, state.status) = (SubmissionState::Uncertain, None, None);
            state.text = Some("The connection was lost before the server answered.".into());
        }
    }
}

fn set(state: &mut RecipientState, to: SubmissionState, reply: &Reply) {
    state.state = to;
    state.code = Some(reply.code());
    state.status = reply.enhanced().map(|enhanced| enhanced.to_string());
    state.text = Some(reply.lines().collect::<Vec<_>>().join(" "));
}

/// Ends an attempt: from the recipients' states follow the submission's state, events, and what is to be done next.
///
/// # Errors
/// Those of the store.
pub(super) async fn settle(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    conclude(&mut tx, gateway, job, submission).await?;
    tx.commit().await?;
    Ok(())
}

/// No server could be reached: every open recipient waits.
///
/// # Errors
/// Those of the store.
pub(super) async fn defer_all(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    trouble: &Trouble,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    for state in &mut submission.recipients {
        if matches!(state.state, SubmissionState::Queued | SubmissionState::Deferred) {
            state.state = SubmissionState::Deferred;
            state.text = Some(trouble.recipient_text());
        }
    }
    if let Some(account) = submission.account {
        tx.log_account_error(account, &trouble.entry(now())).await?;
    }
    conclude(&mut tx, gateway, job, submission).await?;
    tx.commit().await?;
    Ok(())
}

/// There is no way out any more: held, for somebody to decide.
///
/// # Errors
/// Those of the store.
pub(super) async fn give_up(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    reason: &str,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    submission.detail = Some(reason.to_owned());
    for state in submission.recipients.iter_mut().filter(|state| !state.state.is_final()) {
        state.state = SubmissionState::Held;
    }
    conclude(&mut tx, gateway, job, submission).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes a submission's new state with everything that follows from it, and settles the job.
///
/// # Errors
/// Those of the store.
pub(super) async fn conclude(
    tx: &mut Tx,
    gateway: &Gateway,
    job: &Leased,
    mut submission: Submission,
) -> Result<(), FlowError> {
    let now = now();
    let before = submission.state;
    expire(&mut submission, now, gateway);
    submission.attempt = submission.attempt.saturating_add(1);
    submission.state = overall(&submission.recipients);
    let next = next_attempt(&submission, gateway, now);
    submission.next_attempt_at = next;
    tx.set_submission(&submission).await?;
    tx.set_recipients(submission.message, &submission.recipients).await?;
    announce(tx, &submission, before, now).await?;
    follow_up(tx, gateway, &mut submission, now).await?;
    tx.settle(job, next.map_or(Settlement::Done, Settlement::RetryAt)).await?;
    Ok(())
}

/// Writes that a submission is still uncertain; the job is the caller's to settle.
///
/// # Errors
/// Those of the store.
pub(super) async fn stay_uncertain(
    tx: &mut Tx,
    mut submission: Submission,
    until: Timestamp,
) -> Result<(), FlowError> {
    let before = submission.state;
    submission.state = SubmissionState::Uncertain;
    submission.next_attempt_at = Some(until);
    tx.set_submission(&submission).await?;
    tx.set_recipients(submission.message, &submission.recipients).await?;
    announce(tx, &submission, before, now()).await
}

/// What could not be delivered within its lifetime bounces (RFC 5321 section 4.5.4.1).
fn expire(submission: &mut Submission, now: Timestamp, gateway: &Gateway) {
    let lifetime =
        SignedDuration::try_from(gateway.settings.submission_lifetime).unwrap_or(SignedDuration::MAX);
    if now.duration_since(submission.accepted_at) < lifetime {
        return;
    }
    for state in submission.recipients.iter_mut().filter(|state| state.state == SubmissionState::Deferred) {
        state.state = SubmissionState::Bounced;
        state.status = Some("4.4.7".into());
        let last = state.text.take().unwrap_or_default();
        state.text = Some(format!("Given up after too many tries. Last: {last}"));
    }
}

fn next_attempt(submission: &Submission, gateway: &Gateway, now: Timestamp) -> Option<Timestamp> {
    let signed = |wait| SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1));
    let untried = submission.recipients.iter().any(|recipient| recipient.state == SubmissionState::Queued);
    match submission.state {
        // Nobody has put these off: the connection broke before their turn, or what was uncertain turned out not sent.
        SubmissionState::Deferred if untried => Some(now),
        SubmissionState::Deferred => Some(now + signed(retry::submission(submission.attempt, jitter()))),
        SubmissionState::Uncertain => {
            gateway.settings.reconcile_waits.first().map(|wait| now + signed(*wait))
        }
        _ => None,
    }
}

async fn announce(
    tx: &mut Tx,
    submission: &Submission,
    before: SubmissionState,
    now: Timestamp,
) -> Result<(), FlowError> {
    let what = match submission.state {
        SubmissionState::Sent => MessageEvent::Sent,
        SubmissionState::Bounced => MessageEvent::Bounced,
        SubmissionState::Deferred => MessageEvent::Deferred,
        SubmissionState::Uncertain => MessageEvent::Uncertain,
        _ => return Ok(()),
    };
    if submission.state == before {
        return Ok(());
    }
    let some_bounced = submission.recipients.iter().any(|state| state.state == SubmissionState::Bounced);
    if what == MessageEvent::Sent && some_bounced {
        tell(tx, submission, MessageEvent::Bounced, now).await?;
    }
    // What somebody else wrote and we passed on at once was told of when it came: nobody here has sent anything.
    if what == MessageEvent::Sent && submission.attempt <= 1 && is_passed_on(tx, submission).await? {
        return Ok(());
    }
    tell(tx, submission, what, now).await
}

async fn is_passed_on(tx: &mut Tx, submission: &Submission) -> Result<bool, FlowError> {
    let stored = tx.message(submission.message).await?.ok_or(FlowError::Obsolete)?;
    Ok(stored.direction == Direction::Inbound)
}

/// Announces how a submission's recipients fare.
///
/// # Errors
/// Those of the store.
pub(super) async fn tell(
    tx: &mut Tx,
    submission: &Submission,
    what: MessageEvent,
    now: Timestamp,
) -> Result<(), FlowError> {
    let stored = tx.message(submission.message).await?.ok_or(FlowError::Obsolete)?;
    let contacts =
        tx.message_contacts(&[submission.message]).await?.remove(&submission.message).unwrap_or_default();
    let fact = MessageFact {
        message: submission.message,
        conversation: stored.conversation,
        contacts: contacts.into_iter().map(|(contact, _)| contact).collect(),
        account: submission.account,
        rfc822_id: stored.rfc822_id,
        state: Some(submission.state),
        recipients: submission.recipients.iter().map(fact).collect(),
    };
    tx.announce(&Event::Message { what, fact }, now).await?;
    Ok(())
}

fn fact(state: &RecipientState) -> RecipientFact {
    RecipientFact {
        address: state.recipient.address.clone(),
        state: state.state,
        code: state.code,
        text: state.text.clone(),
    }
}

/// The Sent copy once it was sent, the report once nothing is open.
async fn follow_up(
    tx: &mut Tx,
    gateway: &Gateway,
    submission: &mut Submission,
    now: Timestamp,
) -> Result<(), FlowError> {
    let sent = submission.recipients.iter().any(|state| state.state == SubmissionState::Sent);
    let wants_copy =
        submission.sent_copy == SentCopy::Wanted && gateway.policy().append_sent == AppendSent::Auto;
    if let (true, true, Some(account)) = (sent, wants_copy, submission.account) {
        tx.enqueue_job(&Job::SaveSent { message: submission.message, account }, now).await?;
        // Queued once, however many recipients are sent to later.
        tx.set_sent_copy(submission.message, SentCopy::Queued).await?;
    }
    queue_report(tx, submission, now).await
}

/// The report, once nothing is open any more.
///
/// # Errors
/// Those of the store.
pub(super) async fn queue_report(
    tx: &mut Tx,
    submission: &mut Submission,
    now: Timestamp,
) -> Result<(), FlowError> {
    if submission.state.is_final() && !submission.dsn.reported && wants_report(submission) {
        tx.enqueue_job(&Job::Report { message: submission.message }, now).await?;
        submission.dsn.reported = true;
        tx.set_submission(submission).await?;
    }
    Ok(())
}

/// Whether the CRM asked to be told by mail. Nothing is ever sent to the null path.
fn wants_report(submission: &Submission) -> bool {
    submission.reverse_path.address().is_some()
        && submission.recipients.iter().any(|state| match state.state {
            SubmissionState::Bounced => state.recipient.notify.on_failure(),
            SubmissionState::Sent => state.recipient.notify.on_success(),
            _ => false,
        })
}
