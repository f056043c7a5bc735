//! Mail from the CRM on its way out: accepted and filed in one transaction, sent by a job (docs/flows.md, "Submission").
//!
//! Here: accepting and filing. `perform` sends, `sent_copy` sees to the Sent mailbox, `report` tells the CRM's reverse-path,
//! `answer` a user who asked,
//! `way_out` knows whether mail can leave now, `held` waits for one.

mod answer;
mod budget;
mod copies;
mod handler;
mod held;
mod masked;
mod order;
mod perform;
mod reconcile;
mod record;
mod report;
mod returned;
mod sent_copy;
mod way_out;

pub use answer::explain;
pub use budget::{HandsIn, admit, provider_of, sender_identity};
pub use copies::Additions;
pub(super) use copies::queue_copies;
#[cfg(test)]
pub(super) use handler::own_message_id;
pub use handler::{SubmissionHandler, sent_message_id};
pub use held::{release_all_held, release_held};
pub use order::{ControlFields, Refusal, Sender, choose_exit};
pub use perform::{hold_poison, perform};
pub use report::report;
pub(super) use returned::{CameTo, Returned, record_returned, returned};
pub use sent_copy::save_sent;
pub(super) use way_out::{crowded, rest_over, tell_workers};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    FlowError, Gateway,
    ingest::{self, Announce, Arrival, Ingested, RawBytes},
    policy_of,
};
use crate::{
    core::{
        decision::{Ruling, Verdict},
        event::{Event, MessageEvent},
        ids::{ConversationId, MessageKey},
        inbound::{Exit, SendOrder},
        job::{Job, JobExit},
        message::{CaptureField, Parties, Sighting, SightingRow},
        policy::Policy,
        submission::{DsnOrder, RecipientState, SentCopy, Submission, SubmissionState},
    },
    mail::{Address, Envelope, Message, Party, Recipient},
    store::{Error, InboundRow, SealedBlob, Tx},
};

/// A message handed in, its bytes as they will leave: no Bcc, no control fields, no addresses of ours.
pub struct Handed<'a> {
    pub key: MessageKey,
    pub message: &'a Message,
    pub bytes: HandedBytes<'a>,
    pub order: &'a SendOrder,
    pub envelope: &'a Envelope,
    pub received_at: Timestamp,
}

impl<'a> Handed<'a> {
    #[must_use]
    pub(super) fn from_inbound(
        row: &'a InboundRow,
        message: &'a Message,
        order: &'a SendOrder,
        envelope: &'a Envelope,
    ) -> Self {
        let bytes = HandedBytes::Stored { blob: row.blob, size: row.raw.len() };
        Self { key: row.id, message, bytes, order, envelope, received_at: row.received_at }
    }
}

/// The bytes of a message handed in.
#[derive(Debug, Clone, Copy)]
pub enum HandedBytes<'a> {
    /// A listener stored them before its 250.
    Stored { blob: Uuid, size: usize },
    /// Sealed for this message.
    Sealed(&'a SealedBlob),
}

/// What the CRM is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub message: MessageKey,
    pub conversation: ConversationId,
    pub state: SubmissionState,
}

/// Files a message handed in and queues it for sending, in the caller's transaction. One that was handed in before is sent
/// to those recipients alone whom it did not name then.
///
/// # Errors
/// Those of the store.
pub async fn file(tx: &mut Tx, gateway: &Gateway, handed: Handed<'_>) -> Result<Accepted, FlowError> {
    tx.lock_filing().await?;
    let (ours, policy) = (&gateway.settings.ours, policy_of(tx, Some(handed.order.user)).await?);
    let filed = match ordered_before(tx, &handed).await? {
        Some(known) => known,
        None => ingest::ingest(tx, ours, &policy, arrival(gateway, &handed)).await?,
    };
    let message = filed.key();
    tx.note_sent_wording(message, &ingest::wording(handed.message)).await?;
    if let Some(key) = &handed.order.key {
        tx.note_ordered_message(key, message).await?;
    }
    let (conversation, is_new) = match &filed {
        Ingested::Filed(message) => (message.conversation, true),
        Ingested::Known { conversation, .. } => {
            let people: Vec<_> = outgoing(gateway, handed.envelope).map(|one| one.address.clone()).collect();
            let known = (message, *conversation);
            let at = handed.received_at;
            (ingest::include(tx, (ours, &policy), known, (&people, at)).await?, false)
        }
    };
    let state = match tx.submission(message).await? {
        Some(submission) => send_to_others(tx, (gateway, &policy), &handed, submission).await?,
        None => queue_submission(tx, (gateway, &policy), &handed, (message, is_new)).await?,
    };
    Ok(Accepted { message, conversation, state })
}

/// What an order under the same key of the CRM's became, whatever this part of it is called.
async fn ordered_before(tx: &mut Tx, handed: &Handed<'_>) -> Result<Option<Ingested>, FlowError> {
    let Some(key) = &handed.order.key else { return Ok(None) };
    let Some(message) = tx.ordered_message(key).await? else { return Ok(None) };
    let Some(stored) = tx.message(message).await? else { return Ok(None) };
    let sighting = Sighting::Submission { inbound: handed.key };
    tx.add_sighting(message, &SightingRow { sighting, at: handed.received_at }).await?;
    Ok(Some(Ingested::Known { message, conversation: stored.conversation }))
}

fn arrival<'a>(gateway: &Gateway, handed: &Handed<'a>) -> Arrival<'a> {
    let (sighting, via) = match handed.order.api {
        true => (Sighting::Api, "api"),
        false => (Sighting::Submission { inbound: handed.key }, "submission"),
    };
    let captures: Vec<_> = captures(gateway, handed).collect();
    let is_captured = !captures.is_empty();
    Arrival {
        key: handed.key,
        message: handed.message,
        parties: parties(gateway, handed),
        bytes: match handed.bytes {
            HandedBytes::Stored { blob, size } => RawBytes::Stored { blob, size },
            HandedBytes::Sealed(bytes) => RawBytes::Sealed(bytes),
        },
        sightings: [sighting].into_iter().chain(captures).collect(),
        received_at: handed.received_at,
        internal_date: None,
        ruling: Ruling {
            verdict: Verdict::Synced,
            rule: "crm_sent",
            reason: "The CRM handed it in for sending.",
        },
        via,
        extra_nodes: Vec::new(),
        proven: handed.order.conversation.into_iter().collect(),
        passed_on: None,
        // A capture address among the recipients files a copy, as it does in any other mail.
        omitted: &[],
        captured: is_captured,
        copied_for: None,
        is_sent: true,
        announce: match is_captured && outgoing(gateway, handed.envelope).next().is_none() {
            true => Announce::Now(MessageEvent::Captured),
            // It is announced as sent when it was sent.
            false => Announce::Later,
        },
        forwarded: None,
        account: None,
        own: None,
        known: None,
    }
}

/// The header's people, and as Bcc those whom only the envelope names.
fn parties(gateway: &Gateway, handed: &Handed<'_>) -> Parties {
    let mut parties = gateway.settings.ours.parties(&handed.message.summary);
    let named: Vec<_> = parties.addresses().cloned().collect();
    let hidden = outgoing(gateway, handed.envelope).filter(|recipient| !named.contains(&recipient.address));
    parties.bcc = hidden.map(|recipient| Party::new(recipient.address.clone(), None)).collect();
    parties
}

/// The recipients to send to: a capture address among them has done its work by our having the message.
fn outgoing<'a>(gateway: &'a Gateway, envelope: &'a Envelope) -> impl Iterator<Item = &'a Recipient> {
    envelope.recipients.iter().filter(|recipient| !gateway.settings.ours.holds(&recipient.address))
}

/// The capture addresses among the recipients: of ours, the listener takes no others. They stand in no header any more.
fn captures(gateway: &Gateway, handed: &Handed<'_>) -> impl Iterator<Item = Sighting> {
    let ours = handed.envelope.recipients.iter().map(|recipient| &recipient.address);
    ours.filter(|address| gateway.settings.ours.holds(address)).map(|address| Sighting::Capture {
        inbound: handed.key,
        recipient: address.clone(),
        field: CaptureField::Bcc,
    })
}

async fn queue_submission(
    tx: &mut Tx,
    (gateway, policy): (&Gateway, &Policy),
    handed: &Handed<'_>,
    (message, is_new): (MessageKey, bool),
) -> Result<SubmissionState, FlowError> {
    let recipients: Vec<Recipient> = outgoing(gateway, handed.envelope).cloned().collect();
    if recipients.is_empty() {
        return Ok(SubmissionState::Sent);
    }
    let mut submission = submission(handed, message, recipients);
    copies::add_blind_copies(&mut submission, &policy.settings, &gateway.settings.ours);
    if !is_new {
        // The bytes that are stored came by another door: with a Bcc field perhaps, or a capture address.
        submission.blob = Some(own_bytes(tx, handed).await?);
    }
    let exit = exit_for(tx, (gateway, policy), handed).await?;
    match &exit {
        Ok(exit) => held::begin(&mut submission, *exit, handed.received_at),
        // The way out was lost between the 250 and now: kept, and shown with the reason.
        Err(refusal) => held::hold(&mut submission, &refusal.to_string()),
    }
    tx.insert_submission(&submission).await?;
    start(tx, &submission, exit.ok(), handed.received_at).await?;
    Ok(submission.state)
}

/// Adds recipients whom a submission does not have yet. The same order once more adds nobody, and nothing is done.
async fn send_to_others(
    tx: &mut Tx,
    (gateway, policy): (&Gateway, &Policy),
    handed: &Handed<'_>,
    mut submission: Submission,
) -> Result<SubmissionState, FlowError> {
    let named: Vec<&Address> = outgoing(gateway, handed.envelope).map(|one| &one.address).collect();
    if copies::name(&mut submission, &named) {
        if !submission.is_at_work() {
            submission.state = submission.overall();
        }
        tx.set_submission(&submission).await?;
    }
    let known: Vec<&Address> = submission.recipients.iter().map(|one| &one.recipient.address).collect();
    let others = outgoing(gateway, handed.envelope).filter(|other| !known.contains(&&other.address));
    let others: Vec<RecipientState> = others.cloned().map(queued).collect();
    if others.is_empty() {
        return Ok(submission.state);
    }
    let exit = exit_for(tx, (gateway, policy), handed).await?;
    add_recipients(tx, (submission, others), exit, handed.received_at).await
}

/// Adds recipients to a submission, however it fares: who is at work on it goes on with these, and does not let them wait
/// for the retry of others; where nobody is, it begins anew by this way out. A submission has one job: two at once would
/// send to the same recipients.
///
/// # Errors
/// Those of the store.
pub(super) async fn add_recipients(
    tx: &mut Tx,
    (mut submission, others): (Submission, Vec<RecipientState>),
    exit: Result<Exit, Refusal>,
    now: Timestamp,
) -> Result<SubmissionState, FlowError> {
    let is_at_work = submission.is_at_work();
    let waits = submission.state == SubmissionState::Deferred || !submission.state.is_open();
    submission.recipients.extend(others);
    if is_at_work {
        submission.accepted_at = now;
        if !submission.state.is_open() {
            // A copy alone was still to be sent.
            submission.state = SubmissionState::Queued;
        }
        if waits {
            let job = Job::Submit { message: submission.message, exit: exit_of(&submission) };
            tx.hasten_job(&job, now).await?;
            submission.next_attempt_at = Some(now);
        }
        tx.send_submission_by(&submission).await?;
        return Ok(submission.state);
    }
    match &exit {
        Ok(exit) => held::begin(&mut submission, *exit, now),
        Err(refusal) => held::hold(&mut submission, &refusal.to_string()),
    }
    tx.send_submission_by(&submission).await?;
    start(tx, &submission, exit.ok(), now).await?;
    Ok(submission.state)
}

/// Queues the sending; tells of a submission that has no way out.
async fn start(
    tx: &mut Tx,
    submission: &Submission,
    exit: Option<Exit>,
    now: Timestamp,
) -> Result<(), Error> {
    let message = submission.message;
    match exit {
        Some(exit) => tx.enqueue_job(&Job::Submit { message, exit: job_exit(exit) }, now).await,
        None => {
            let reason = submission.detail.clone().unwrap_or_default();
            tx.announce(&Event::MessageHeld { message, decision: None, reason }, now).await.map(drop)
        }
    }
}

async fn exit_for(
    tx: &mut Tx,
    (gateway, policy): (&Gateway, &Policy),
    handed: &Handed<'_>,
) -> Result<Result<Exit, Refusal>, FlowError> {
    let Some(author) = handed.message.summary.author() else { return Ok(Err(Refusal::NoWayOut)) };
    let sender = Sender { user: handed.order.user, from: &author.address, class: handed.order.class };
    Ok(choose_exit(tx, gateway, sender, &policy.settings).await?)
}

/// The bytes as they will leave, where they are none of the stored message's.
async fn own_bytes(tx: &mut Tx, handed: &Handed<'_>) -> Result<Uuid, FlowError> {
    match handed.bytes {
        HandedBytes::Stored { blob, .. } => Ok(blob),
        HandedBytes::Sealed(sealed) => Ok(tx.put_sealed_blob(sealed.clone()).await?),
    }
}

fn job_exit(exit: Exit) -> JobExit {
    match exit {
        Exit::Account(account) => JobExit::Account(account),
        Exit::Smarthost => JobExit::Smarthost,
    }
}

/// By which a submission that is at work leaves.
fn exit_of(submission: &Submission) -> JobExit {
    submission.account.map_or(JobExit::Smarthost, JobExit::Account)
}

fn queued(recipient: Recipient) -> RecipientState {
    RecipientState::new(recipient, SubmissionState::Queued)
}

fn submission(handed: &Handed<'_>, message: MessageKey, recipients: Vec<Recipient>) -> Submission {
    Submission {
        message,
        account: None,
        class: handed.order.class,
        reverse_path: handed.envelope.reverse_path.clone(),
        dsn: DsnOrder {
            ret: handed.envelope.ret,
            envelope_id: handed.envelope.envelope_id.clone(),
            ..DsnOrder::default()
        },
        principal: handed.order.principal,
        blob: None,
        state: SubmissionState::Queued,
        attempt: 0,
        accepted_at: handed.received_at,
        next_attempt_at: None,
        dot_intent_at: None,
        detail: None,
        sent_copy: SentCopy::None,
        recipients: recipients.into_iter().map(queued).collect(),
    }
}
