//! What follows from an attempt: recipients' states, events, the Sent copy, the report, and when to try again.
//!
//! Not here: the attempt itself (`perform`).

use jiff::{SignedDuration, Timestamp};

use super::{
    budget, copies,
    perform::Unsendable,
    report,
    way_out::{REFUSED_LOGIN, note_unsent, rests_until, tell_workers},
};
use crate::{
    account::Trouble,
    core::{
        event::{Event, MessageEvent, MessageFact, RecipientFact},
        ids::{AccountId, MessageKey},
        job::{Job, JobExit},
        message::Direction,
        policy::AppendSent,
        retry,
        submission::{Hold, RecipientState, SentCopy, Submission, SubmissionState, overall},
    },
    flow::{FlowError, Gateway, jitter, now, policy_of, signed},
    mail::{Address, Notify, Recipient},
    queue::{Leased, Settlement},
    smtp::{Outcome, Reply},
    store::{Error, Tx},
};

/// How long a lane stands back from a server that cannot be reached or hangs up, before its next message is tried. Each
/// message has back-off of its own; this is for those that wait behind it.
const LANE_REST: SignedDuration = SignedDuration::from_mins(5);

/// What a server said to one recipient of a transaction.
pub(super) struct Fared {
    /// As we named him to the server.
    pub asked: Recipient,
    pub outcome: Outcome,
    /// The server knows DSN: what it was asked to report is its affair from now on (RFC 3461 section 5.2.2).
    pub takes_reports: bool,
}

/// When what is still open is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Those not tried yet at once: others got on, or it was found out that nothing had been sent.
    AtOnce,
    BackOff,
    /// This one alone waits until then.
    Until(Timestamp),
    /// The server wants a rest, or needs one: everything that waits for it stands back. Until then, if it said so.
    Rest(Option<Timestamp>),
}

/// Writes *dot intent*: what the server refused at RCPT, and that the others are being sent to. From here on a crash means
/// that nobody knows. It is charged to the user's budget: false, and nothing written, when that has no room for it by now.
/// Refused to a worker whose lease has run out: another one has the job.
///
/// # Errors
/// Those of the store.
pub(super) async fn intent<'a>(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    recipients: impl Iterator<Item = (&'a Recipient, &'a Option<Outcome>)> + Send,
) -> Result<bool, FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let mut sent_to = 0;
    for (recipient, refusal) in recipients {
        sent_to += usize::from(refusal.is_none());
        for state in states_of(&mut submission, &recipient.address) {
            if !state.is_open() {
                // Another job has seen to him meanwhile.
                return Err(FlowError::Obsolete);
            }
            match refusal {
                Some(refusal) => apply(state, refusal),
                None => state.state = SubmissionState::Sending,
            }
        }
    }
    // One moment for both: where the intent is, there is its count.
    let now = now();
    if !budget::charge(&mut tx, &submission, sent_to, now).await? {
        return Ok(false);
    }
    if submission.decisive().any(|state| state.state == SubmissionState::Sending) {
        submission.state = SubmissionState::Sending;
    }
    submission.dot_intent_at = Some(now);
    tx.set_submission(&submission).await?;
    tx.commit().await?;
    Ok(true)
}

/// Records what servers said of some recipients. The job goes on.
///
/// # Errors
/// Those of the store.
pub(super) async fn outcomes(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    fared: &[Fared],
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    budget::give_back(&mut tx, &submission, fared).await?;
    let others_fit = fared.iter().any(|one| matches!(one.outcome, Outcome::Accepted { .. }));
    for Fared { asked, outcome, takes_reports } in fared {
        for state in states_of(&mut submission, &asked.address) {
            if others_fit && has_no_room(outcome) {
                leave_for_next(state);
                continue;
            }
            apply(state, outcome);
            let is_taken = matches!(outcome, Outcome::Accepted { .. });
            if is_taken && *takes_reports && asked.notify.on_success() {
                // Ours would be a second one.
                state.recipient.notify = Notify::Never;
            }
        }
    }
    tx.set_recipients(message, &submission.recipients).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a server had no room for one more recipient. Beside others whom it took he goes in another transaction, without a
/// pause (RFC 5321 section 4.5.3.1.10). Each takes somebody, so they come to an end; and a server that says so of his mailbox
/// says it again when nobody is beside him.
fn has_no_room(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(reply) if reply.code() == 452)
}

fn leave_for_next(state: &mut RecipientState) {
    state.state = SubmissionState::Queued;
    (state.code, state.status, state.text) = (None, None, None);
}

fn states_of<'a>(
    submission: &'a mut Submission,
    address: &'a Address,
) -> impl Iterator<Item = &'a mut RecipientState> {
    submission.recipients.iter_mut().filter(move |state| state.recipient.address == *address)
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
            state.doubts = state.doubts.saturating_add(1);
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
pub(super) async fn settle(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    pace: Pace,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    conclude(&mut tx, gateway, job, submission, pace).await?;
    tx.commit().await?;
    Ok(())
}

/// No session with the server came about: every open recipient waits; for somebody to act, when the login was refused.
///
/// # Errors
/// Those of the store.
pub(super) async fn unopened(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let account = match job.job {
        Job::Submit { exit: JobExit::Account(account), .. } => Some(account),
        _ => None,
    };
    // The account before the submission, which locks filing: so does the account's session, or each might wait for the other.
    let is_refused = match account {
        Some(account) => note_unsent(&mut tx, account, (began, trouble)).await?,
        None => false,
    };
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    if is_refused {
        let (what_for, reason) = (Hold::WayOut, REFUSED_LOGIN);
        put_aside(&mut submission, &Unsendable { whom: None, what_for, reason });
    } else {
        defer(&mut submission, &trouble.recipient_text());
    }
    let rests = match account {
        Some(account) => rests_until(&mut tx, account).await?,
        None => trouble.resumes_at(now()),
    };
    conclude(&mut tx, gateway, job, submission, Pace::Rest(rests)).await?;
    tx.commit().await?;
    if let Some(account) = account.filter(|_| is_refused) {
        tell_workers(gateway, account);
    }
    Ok(())
}

/// The provider has asked us to stay away: nobody logs in until then.
///
/// # Errors
/// Those of the store.
pub(super) async fn rest(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    until: Timestamp,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    defer(&mut submission, "Not sent yet: the provider asks us to wait.");
    conclude(&mut tx, gateway, job, submission, Pace::Rest(Some(until))).await?;
    tx.commit().await?;
    Ok(())
}

fn defer(submission: &mut Submission, text: &str) {
    for state in submission.recipients.iter_mut().filter(|state| state.is_open()) {
        state.state = SubmissionState::Deferred;
        state.text = Some(text.to_owned());
    }
}

/// Nothing can leave, or not to one of them, and time does not mend it: held. The others go on.
///
/// # Errors
/// Those of the store.
pub(super) async fn hold(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    unsendable: &Unsendable,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    put_aside(&mut submission, unsendable);
    conclude(&mut tx, gateway, job, submission, Pace::AtOnce).await?;
    tx.commit().await?;
    Ok(())
}

fn put_aside(submission: &mut Submission, Unsendable { whom, what_for, reason }: &Unsendable) {
    let is_meant = |state: &&mut RecipientState| {
        state.state.is_open() && whom.as_ref().is_none_or(|whom| *whom == state.recipient.address)
    };
    for state in submission.recipients.iter_mut().filter(is_meant) {
        match state.is_in_doubt() {
            true => leave_in_doubt(state),
            false => state.hold(*what_for, reason),
        }
    }
    submission.detail = Some((*reason).to_owned());
}

/// Holds a recipient to whom the message may have gone: it is not sent again by itself, whatever comes.
pub(super) fn leave_in_doubt(state: &mut RecipientState) {
    state.hold(Hold::Doubt, "The server never said whether it took the message: it may have been sent.");
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
    pace: Pace,
) -> Result<(), FlowError> {
    let now = now();
    let before = submission.state;
    if has_expired(gateway, &submission, now) {
        expire(&mut submission);
    }
    submission.state = submission.overall();
    submission.detail = reason(&submission);
    let next = next_attempt(&mut submission, gateway, pace, now);
    submission.next_attempt_at = next;
    tx.set_submission(&submission).await?;
    announce(tx, &submission, before, now).await?;
    copies::tell_lost(tx, &mut submission, now).await?;
    follow_up(tx, gateway, &submission, now).await?;
    if let (Pace::Rest(until), Some(next)) = (pace, next) {
        tx.rest_lane(job, until.unwrap_or(next.min(now + LANE_REST))).await?;
    }
    tx.settle(job, next.map_or(Settlement::Done, Settlement::RetryAt)).await?;
    Ok(())
}

/// Why a submission is held: what was written just now, or what holds one of its recipients since before. One that goes on
/// shows nothing of it.
fn reason(submission: &Submission) -> Option<String> {
    let mut held = submission.decisive().filter(|state| state.state == SubmissionState::Held);
    let holding = held.next().filter(|_| submission.state == SubmissionState::Held)?;
    submission.detail.clone().or_else(|| holding.text.clone())
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
    submission.state = submission.overall();
    submission.next_attempt_at = Some(until);
    tx.set_submission(&submission).await?;
    announce(tx, &submission, before, now()).await?;
    report::queue(tx, &submission, now()).await
}

/// Whether a submission has been tried for as long as anything is (RFC 5321 section 4.5.4.1).
pub(super) fn has_expired(gateway: &Gateway, submission: &Submission, now: Timestamp) -> bool {
    now.duration_since(submission.accepted_at) >= signed(gateway.settings.submission_lifetime)
}

/// What could not be delivered within its lifetime bounces.
fn expire(submission: &mut Submission) {
    for state in submission.recipients.iter_mut().filter(|state| state.is_open()) {
        state.state = SubmissionState::Bounced;
        state.status = Some("4.4.7".into());
        let last = state.text.take().unwrap_or_default();
        state.text = Some(format!("Given up after too many tries. Last: {last}"));
    }
}

fn next_attempt(
    submission: &mut Submission,
    gateway: &Gateway,
    pace: Pace,
    now: Timestamp,
) -> Option<Timestamp> {
    let untried = submission.recipients.iter().any(|recipient| recipient.state == SubmissionState::Queued);
    // What there is to do: for a copy perhaps, when the message has been sent.
    let work = overall(&submission.recipients);
    if work == SubmissionState::Deferred && untried && pace == Pace::AtOnce {
        // The same attempt goes on: nobody was put off, and nobody is told so.
        if submission.state == SubmissionState::Deferred {
            submission.state = SubmissionState::Queued;
        }
        return Some(now);
    }
    submission.attempt = submission.attempt.saturating_add(1);
    match (work, pace) {
        (SubmissionState::Deferred, Pace::Rest(Some(until)) | Pace::Until(until)) => Some(until),
        (SubmissionState::Deferred, _) => Some(now + signed(retry::submission(submission.attempt, jitter()))),
        (SubmissionState::Uncertain, _) => {
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
    if submission.state == before || !submission.names_anybody() {
        return Ok(());
    }
    let what = match submission.state {
        SubmissionState::Sent => return tell_sent(tx, submission, now).await,
        SubmissionState::Bounced => MessageEvent::Bounced,
        SubmissionState::Deferred => MessageEvent::Deferred,
        SubmissionState::Uncertain => MessageEvent::Uncertain,
        SubmissionState::Held => {
            // Others were sent to meanwhile, or found to have been.
            let in_attempt = submission.dot_intent_at >= Some(submission.accepted_at);
            let has_sent = match before {
                SubmissionState::Sending | SubmissionState::Uncertain => true,
                SubmissionState::Queued => in_attempt,
                _ => false,
            };
            if has_sent && any(submission, SubmissionState::Sent) {
                tell_sent(tx, submission, now).await?;
            }
            let reason = submission.detail.clone().unwrap_or_default();
            tx.announce(&Event::MessageHeld { message: submission.message, decision: None, reason }, now)
                .await?;
            return Ok(());
        }
        SubmissionState::Queued | SubmissionState::Sending | SubmissionState::Cancelled => return Ok(()),
    };
    tell(tx, submission, what, now).await
}

/// Tells that it was sent, and before that who will not get it.
///
/// # Errors
/// Those of the store.
pub(super) async fn tell_sent(tx: &mut Tx, submission: &Submission, now: Timestamp) -> Result<(), FlowError> {
    if any(submission, SubmissionState::Bounced) {
        tell(tx, submission, MessageEvent::Bounced, now).await?;
    }
    // What somebody else wrote and we passed on at once was told of when it came: nobody here has sent anything.
    if submission.attempt <= 1 && is_passed_on(tx, submission).await? {
        return Ok(());
    }
    tell(tx, submission, MessageEvent::Sent, now).await
}

fn any(submission: &Submission, state: SubmissionState) -> bool {
    submission.decisive().any(|recipient| recipient.state == state)
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
        recipients: submission.decisive().cloned().map(RecipientFact::from).collect(),
    };
    tx.announce(&Event::Message { what, fact }, now).await?;
    Ok(())
}

/// The Sent copy once it was sent, and the report.
async fn follow_up(
    tx: &mut Tx,
    gateway: &Gateway,
    submission: &Submission,
    now: Timestamp,
) -> Result<(), FlowError> {
    let sent = submission.recipients.iter().any(|state| state.state == SubmissionState::Sent);
    let account = submission.account.filter(|_| sent && submission.sent_copy == SentCopy::Wanted);
    if let Some(account) = account
        && files_sent_copies(tx, account).await?
    {
        // By then the account's own session has seen the provider's copy, if it files one.
        let run_at = now + signed(gateway.settings.sent_copy_wait);
        tx.enqueue_job(&Job::SaveSent { message: submission.message, account }, run_at).await?;
        // Queued once, however many recipients are sent to later.
        tx.set_sent_copy(submission.message, SentCopy::Queued).await?;
    }
    report::queue(tx, submission, now).await
}

async fn files_sent_copies(tx: &mut Tx, account: AccountId) -> Result<bool, Error> {
    let user = tx.account(account).await?.map(|account| account.user_id);
    Ok(policy_of(tx, user).await?.settings.append_sent == AppendSent::Auto)
}
