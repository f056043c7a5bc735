//! Mail from the CRM on its way out: accepted and filed in one transaction, sent by a job (docs/flows.md, "Submission").
//!
//! Here: accepting and filing. `perform` sends, `sent_copy` sees to the Sent mailbox, `report` tells the CRM's reverse-path.

mod handler;
mod order;
mod perform;
mod reconcile;
mod record;
mod report;
mod returned;
mod sent_copy;

pub use handler::SubmissionHandler;
#[cfg(test)]
pub(super) use handler::own_message_id;
pub use order::{ControlFields, Refusal, choose_exit};
pub(super) use perform::Part;
pub use perform::perform;
pub use report::report;
pub(super) use returned::{CameTo, Returned, record_returned, returned};
pub use sent_copy::save_sent;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    FlowError, Gateway,
    ingest::{self, Announce, Arrival, Ingested, RawBytes},
    process,
};
use crate::{
    core::{
        decision::{Ruling, Verdict},
        ids::{ConversationId, MessageKey},
        inbound::{Exit, SendOrder},
        job::{Job, JobExit},
        message::{Parties, Sighting},
        submission::{DsnOrder, RecipientState, SentCopy, Submission, SubmissionState},
    },
    mail::{Envelope, Message, Party, Recipient},
    store::{InboundRow, Tx},
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
    Stored {
        blob: Uuid,
        size: usize,
    },
    InHand(&'a Bytes),
}

/// What the CRM is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub message: MessageKey,
    pub conversation: ConversationId,
    pub state: SubmissionState,
}

/// Files a message handed in and queues it for sending, in the caller's transaction.
///
/// # Errors
/// Those of the store.
pub async fn file(tx: &mut Tx, gateway: &Gateway, handed: Handed<'_>) -> Result<Accepted, FlowError> {
    let ingested =
        ingest::ingest(tx, &gateway.settings.ours, &gateway.policy(), arrival(gateway, &handed)).await?;
    let (message, conversation) = match &ingested {
        Ingested::Filed(message) => (message.id, message.conversation),
        Ingested::Known { message, conversation } => (*message, *conversation),
    };
    if let Some(submission) = tx.submission(message).await? {
        // The CRM handed in what it handed in before: the first submission stands.
        return Ok(Accepted { message, conversation, state: submission.state });
    }
    let state = queue_submission(tx, gateway, &handed, message).await?;
    Ok(Accepted { message, conversation, state })
}

fn arrival<'a>(gateway: &Gateway, handed: &Handed<'a>) -> Arrival<'a> {
    let (sighting, via) = match handed.order.api {
        true => (Sighting::Api, "api"),
        false => (Sighting::Submission { inbound: handed.key }, "submission"),
    };
    Arrival {
        key: handed.key,
        message: handed.message,
        parties: parties(gateway, handed),
        bytes: match handed.bytes {
            HandedBytes::Stored { blob, size } => RawBytes::Stored { blob, size },
            HandedBytes::InHand(raw) => RawBytes::InHand { raw, account: None },
        },
        sightings: vec![sighting],
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
        create_contacts: false,
        // It is announced as sent when it was sent.
        announce: Announce::Later,
        account: None,
        known: None,
    }
}

/// The header's people, and as Bcc those whom only the envelope names.
fn parties(gateway: &Gateway, handed: &Handed<'_>) -> Parties {
    let mut parties = process::parties(gateway, handed.message);
    let named: Vec<_> = parties.addresses().cloned().collect();
    let hidden = outgoing(gateway, handed.envelope).filter(|recipient| !named.contains(&recipient.address));
    parties.bcc = hidden.map(|recipient| Party::new(recipient.address.clone(), None)).collect();
    parties
}

/// The recipients to send to: a capture address among them has done its work by our having the message.
fn outgoing<'a>(gateway: &'a Gateway, envelope: &'a Envelope) -> impl Iterator<Item = &'a Recipient> {
    envelope.recipients.iter().filter(|recipient| !gateway.settings.ours.holds(&recipient.address))
}

async fn queue_submission(
    tx: &mut Tx,
    gateway: &Gateway,
    handed: &Handed<'_>,
    message: MessageKey,
) -> Result<SubmissionState, FlowError> {
    let recipients: Vec<Recipient> = outgoing(gateway, handed.envelope).cloned().collect();
    if recipients.is_empty() {
        return Ok(SubmissionState::Sent);
    }
    let exit = choose_exit(tx, gateway, handed.order).await?;
    let (state, detail) = match &exit {
        Ok(_) => (SubmissionState::Queued, None),
        // The way out was lost between the 250 and now: kept, and shown with the reason.
        Err(refusal) => (SubmissionState::Held, Some(refusal.to_string())),
    };
    let exit = exit.ok();
    let submission = submission(handed, message, exit, (state, detail), recipients);
    tx.insert_submission(&submission).await?;
    if let Some(exit) = exit {
        let job = Job::Submit { message, exit: job_exit(exit) };
        tx.enqueue_job(&job, handed.received_at).await?;
    }
    Ok(state)
}

fn job_exit(exit: Exit) -> JobExit {
    match exit {
        Exit::Account(account) => JobExit::Account(account),
        Exit::Smarthost => JobExit::Smarthost,
    }
}

fn submission(
    handed: &Handed<'_>,
    message: MessageKey,
    exit: Option<Exit>,
    (state, detail): (SubmissionState, Option<String>),
    recipients: Vec<Recipient>,
) -> Submission {
    let account = match exit {
        Some(Exit::Account(account)) => Some(account),
        _ => None,
    };
    let queued = |recipient| RecipientState { recipient, state, code: None, status: None, text: None };
    Submission {
        message,
        account,
        class: handed.order.class,
        reverse_path: handed.envelope.reverse_path.clone(),
        dsn: DsnOrder {
            ret: handed.envelope.ret,
            envelope_id: handed.envelope.envelope_id.clone(),
            reported: false,
        },
        principal: handed.order.principal,
        blob: None,
        state,
        attempt: 0,
        accepted_at: handed.received_at,
        next_attempt_at: Some(handed.received_at),
        dot_intent_at: None,
        detail,
        sent_copy: if account.is_some() { SentCopy::Wanted } else { SentCopy::None },
        recipients: recipients.into_iter().map(queued).collect(),
    }
}
