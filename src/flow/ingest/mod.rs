//! The tail that every door shares: recognise a message or file it, in one transaction (docs/flows.md, "Ingest").
//!
//! Not here: deciding whether it may come in. Each door has judged before it calls.

mod files;
mod include;
mod ledger;
mod people;
mod recognise;
mod thread;

pub(super) use files::{Kept, keep};
pub(super) use include::include;
pub(super) use ledger::{decision_hashes, hashes_of, recall_named, stamp};
pub(crate) use recognise::{identity, wording};
pub(super) use thread::bytes_of;
pub(crate) use thread::keys_of_summary;

use jiff::Timestamp;
use uuid::Uuid;

use super::{FlowError, copies};
use crate::{
    core::{
        attribution::{self, Attribution, Known, OurDomains},
        decision::Ruling,
        event::{Event, MessageEvent, MessageFact},
        ids::{AccountId, AttachmentId, ContactId, ConversationId, MessageKey, UserId},
        message::{AttachmentSummary, Direction, ForwardedBy, Parties, Sighting, SightingRow, StoredMessage},
        policy::{self, FileRule, Policy, Settings},
        threading::{ThreadKey, ThreadNode},
    },
    mail::{Address, Attachment, Defect, HeaderSummary, Kind, Message, MessageId},
    store::{self, Error, SealedBlob, Tx, mint},
};

/// A message at the door, judged and ready to be filed.
pub(super) struct Arrival<'a> {
    /// The key it gets if it is new.
    pub key: MessageKey,
    pub message: &'a Message,
    pub parties: Parties,
    pub bytes: RawBytes<'a>,
    pub sightings: Vec<Sighting>,
    /// When it came before us.
    pub received_at: Timestamp,
    /// When the provider took it in, for mail found in a mailbox: perhaps long before.
    pub internal_date: Option<Timestamp>,
    pub ruling: Ruling,
    /// The door, as decisions name it.
    pub via: &'static str,
    /// Provider's thread ids, besides the Message-IDs.
    pub extra_nodes: Vec<ThreadNode>,
    /// Conversations it joins whoever is on it: proven by reply addresses, or named by the CRM.
    pub proven: Vec<ConversationId>,
    /// The message that its loop mark says it is a copy of, passed on by us.
    pub passed_on: Option<MessageKey>,
    /// Attachments whose content policy kept out of the bytes, by their place.
    pub omitted: &'a [(usize, FileRule)],
    /// A user sent it to a capture address.
    pub captured: bool,
    /// Whose mailbox or reply address it came to, where it may be copied to others: it is news, and no machine's.
    pub copied_for: Option<UserId>,
    /// The user whom its From names did send it: he handed it in, or it lies where only what he sends lies.
    pub is_sent: bool,
    /// The user who passed it on, where the parties name its original author in From.
    pub forwarded: Option<Forwarding>,
    pub announce: Announce,
    pub account: Option<AccountId>,
    /// The account's address and its user, for mail found in a mailbox.
    pub own: Option<(&'a Address, UserId)>,
    /// Who of the parties is known, if the caller has looked since it took the filing lock.
    pub known: Option<Known>,
}

/// Mail that a user passed on, filed as its original author's.
#[derive(Debug, Clone)]
pub(super) struct Forwarding {
    pub by: ForwardedBy,
    /// So well is the user proven that his word makes a contact of the author.
    pub makes_contact: bool,
    /// What the mail that he passed on is called, where that is told.
    pub original: Option<MessageId>,
}

/// What the CRM is told of a message that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    Now(MessageEvent),
    /// The conversation at once, the message when more is known of it.
    Later,
    /// History is filed in silence.
    Never,
}

impl Arrival<'_> {
    fn arrived_at(&self) -> Timestamp {
        self.internal_date.map_or(self.received_at, |date| date.min(self.received_at))
    }
}

/// The exact bytes of an arrival.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawBytes<'a> {
    /// On disk since the 250; a new message takes them over.
    Stored { blob: Uuid, size: usize },
    /// Sealed for this; stored only if the message is new.
    Sealed(&'a SealedBlob),
}

/// What became of an arrival.
#[derive(Debug)]
pub(super) enum Ingested {
    Filed(Box<StoredMessage>),
    /// It was here already.
    Known {
        message: MessageKey,
        conversation: ConversationId,
    },
}

impl Ingested {
    pub(super) fn key(&self) -> MessageKey {
        match self {
            Self::Filed(message) => message.id,
            Self::Known { message, .. } => *message,
        }
    }
}

/// Files an arrival, or adds its sightings to the message it is a copy of.
///
/// # Errors
/// Those of the store; `Raced` when another node filed the same message meanwhile: begin again.
pub(super) async fn ingest(
    tx: &mut Tx,
    ours: &OurDomains,
    policy: &Policy,
    arrival: Arrival<'_>,
) -> Result<Ingested, FlowError> {
    // Filing reads what it then changes (threads, contacts); one workspace files one message at a time.
    tx.lock_filing().await?;
    if let Some(known) = recognise::recognise(tx, &arrival).await? {
        return add_sightings(tx, (ours, policy), known, &arrival).await;
    }
    file(tx, ours, policy, arrival).await
}

/// The message that an arrival is a copy of; `None` for a new one.
///
/// # Errors
/// Those of the store.
pub(super) async fn original_of(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<Option<MessageKey>, Error> {
    Ok(recognise::recognise(tx, arrival).await?.map(|(message, _)| message))
}

/// Adds what a further copy tells: where it was seen, the ids it goes by there, whom it makes contacts of, and where it
/// belongs.
async fn add_sightings(
    tx: &mut Tx,
    (ours, policy): (&OurDomains, &Policy),
    (message, conversation): (MessageKey, ConversationId),
    arrival: &Arrival<'_>,
) -> Result<Ingested, FlowError> {
    let is_first_capture = arrival.captured && !is_captured(tx, message).await?;
    if is_first_capture {
        meet(tx, (ours, policy), message, arrival).await?;
    }
    for sighting in &arrival.sightings {
        let row = SightingRow { sighting: sighting.clone(), at: arrival.received_at };
        tx.add_sighting(message, &row).await?;
        if let Sighting::Account(at) = sighting {
            tx.note_sent_copy(message, at).await?;
        }
    }
    ledger::decide(tx, policy, arrival, message).await?;
    let (conversation, is_renamed) = join_known(tx, (ours, policy), (message, conversation), arrival).await?;
    if is_first_capture || is_renamed {
        // Mail that was left out may belong by it, as it would have had this copy come first.
        ledger::recall_skipped(tx, arrival).await?;
    }
    Ok(Ingested::Known { message, conversation })
}

async fn is_captured(tx: &mut Tx, message: MessageKey) -> Result<bool, Error> {
    let seen = tx.sightings(&[message]).await?.remove(&message).unwrap_or_default();
    Ok(seen.iter().any(|row| matches!(row.sighting, Sighting::Capture { .. })))
}

/// The first capture of a message that was here already makes the contacts that it would have made had it come first.
async fn meet(
    tx: &mut Tx,
    (ours, policy): (&OurDomains, &Policy),
    message: MessageKey,
    arrival: &Arrival<'_>,
) -> Result<(), FlowError> {
    let mut known = known_people(tx, &arrival.parties, &policy.settings).await?;
    let created = people::create_contacts(tx, (ours, policy), &mut known, arrival).await?;
    let who = attribution::attribute(&arrival.parties, &known, ours);
    let stored = tx.message(message).await?.ok_or(Error::Missing)?;
    tx.put_message_contacts(message, stored.sent_at, &who.contacts).await?;
    let events = people::contact_events(&created, (&known, policy), arrival, message);
    tx.announce_all(&events, arrival.received_at).await?;
    Ok(())
}

/// Joins the conversations that this copy proves it belongs to, and learns the id that a provider gave the message on the
/// wire: answers will name that one. True when there was one to learn.
async fn join_known(
    tx: &mut Tx,
    (ours, policy): (&OurDomains, &Policy),
    (message, conversation): (MessageKey, ConversationId),
    arrival: &Arrival<'_>,
) -> Result<(ConversationId, bool), FlowError> {
    let mut keys: Vec<ThreadKey> =
        arrival.proven.iter().filter(|id| **id != conversation).map(of_conversation).collect();
    let new_id = match &arrival.message.summary.message_id {
        Some(id) if !tx.ids_of_message(message).await?.contains(id) => Some(id),
        _ => None,
    };
    if keys.is_empty() && new_id.is_none() {
        return Ok((conversation, false));
    }
    let known = known_people(tx, &arrival.parties, &policy.settings).await?;
    let who = attribution::attribute(&arrival.parties, &known, ours);
    if let Some(id) = new_id {
        tx.add_message_id(message, id).await?;
        keys.extend(thread::thread_keys(arrival, &who));
    }
    keys.push(ThreadKey::of_conversation(conversation));
    let found = thread::found_beside(tx, &keys, conversation).await?;
    let (root, events) = thread::join(tx, &found).await?.unwrap_or((conversation, Vec::new()));
    tx.put_thread_keys(&bytes_of(&keys), root).await?;
    tx.announce_all(&events, arrival.received_at).await?;
    Ok((root, new_id.is_some()))
}

fn of_conversation(id: &ConversationId) -> ThreadKey {
    ThreadKey::of_conversation(*id)
}

async fn file(
    tx: &mut Tx,
    ours: &OurDomains,
    policy: &Policy,
    mut arrival: Arrival<'_>,
) -> Result<Ingested, FlowError> {
    let mut known = match arrival.known.take() {
        Some(known) => known,
        None => known_people(tx, &arrival.parties, &policy.settings).await?,
    };
    if let Some((address, user)) = arrival.own {
        known.claim(address, user);
    }
    let created = people::create_contacts(tx, (ours, policy), &mut known, &arrival).await?;
    let who = attribution::attribute(&arrival.parties, &known, ours);
    let mut keys = thread::thread_keys(&arrival, &who);
    keys.extend(arrival.proven.iter().map(of_conversation));
    let subject = thread::subject_of(tx, &policy.settings, &arrival).await?;
    let found = thread::found_for(tx, &keys, subject.as_ref(), (&arrival, &who)).await?;
    let joined = thread::join(tx, &found).await?;
    let is_start = joined.is_none();
    let (conversation, mut events) = match joined {
        Some(joined) => joined,
        None => thread::start(tx, &arrival, &who).await?,
    };
    keys.push(ThreadKey::of_conversation(conversation));
    let message = store_message(tx, &arrival, &who, conversation).await?;
    if !is_start {
        // A conversation just started was written with its first message counted.
        tx.touch_conversation(message.conversation, message.sent_at).await?;
    }
    write_rows(tx, &arrival, &message, &who, &keys).await?;
    if let Some(subject) = subject {
        tx.put_subject(message.id, &subject).await?;
    }
    let contacts: Vec<ContactId> = who.contacts.iter().map(|(contact, _)| *contact).collect();
    if arrival.announce == Announce::Never {
        events.retain(|event| !matches!(event, Event::ConversationCreated { .. }));
    }
    events.extend(people::contact_events(&created, (&known, policy), &arrival, message.id));
    events.extend(message_event(&arrival, &message, &contacts));
    tx.announce_all(&events, arrival.received_at).await?;
    ledger::decide(tx, policy, &arrival, message.id).await?;
    ledger::recall_skipped(tx, &arrival).await?;
    copy(tx, ours, &arrival, (&message, &known), !is_start).await?;
    Ok(Ingested::Filed(Box::new(message)))
}

/// Sends copies of what a contact answers.
async fn copy(
    tx: &mut Tx,
    ours: &OurDomains,
    arrival: &Arrival<'_>,
    (stored, known): (&StoredMessage, &Known),
    joined: bool,
) -> Result<(), FlowError> {
    let Some(owner) = arrival.copied_for else { return Ok(()) };
    let summary = &arrival.message.summary;
    let author = stored.author_party.as_ref().map(|author| &author.address);
    let new = copies::NewMessage {
        stored,
        owner,
        contact: author.and_then(|author| known.contacts.get(author)).copied(),
        automatic: summary.automatic,
        is_marked: arrival.passed_on.is_some(),
        answers: joined || !summary.in_reply_to.is_empty() || !summary.references.is_empty(),
    };
    copies::enqueue(tx, ours, new, arrival.received_at).await
}

/// Stores the message and, unless a listener has, its bytes.
async fn store_message(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    who: &Attribution,
    conversation: ConversationId,
) -> Result<StoredMessage, FlowError> {
    let (blob, size) = match arrival.bytes {
        RawBytes::Stored { blob, size } => (blob, size as u64),
        RawBytes::Sealed(bytes) => (tx.put_sealed_blob(bytes.clone()).await?, bytes.size()),
    };
    let message = stored(arrival, who, conversation, (blob, size));
    // Nothing but another node can have stored it since we looked.
    tx.insert_message(&message).await?.ok_or(FlowError::Raced)?;
    Ok(message)
}

/// Who of these people the workspace knows, as its policy counts them.
pub(crate) async fn known_people(
    session: &mut store::Session,
    parties: &Parties,
    settings: &Settings,
) -> Result<Known, Error> {
    let addresses: Vec<Address> = parties.addresses().cloned().collect();
    known_among(session, &addresses, settings).await
}

/// The same of the people of many messages at once.
pub(super) async fn known_among(
    session: &mut store::Session,
    addresses: &[Address],
    settings: &Settings,
) -> Result<Known, Error> {
    let (users, contacts) = session.people_among(addresses).await?;
    Ok(policy::known(settings, users, contacts))
}

async fn write_rows(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    message: &StoredMessage,
    who: &Attribution,
    keys: &[ThreadKey],
) -> Result<(), Error> {
    let summary = &arrival.message.summary;
    // The message's own id was stored with it.
    if let Some(id) = &summary.original_message_id {
        tx.add_message_id(message.id, id).await?;
    }
    tx.put_thread_keys(&bytes_of(keys), message.conversation).await?;
    tx.put_message_contacts(message.id, message.sent_at, &who.contacts).await?;
    for sighting in &arrival.sightings {
        let row = SightingRow { sighting: sighting.clone(), at: arrival.received_at };
        tx.add_sighting(message.id, &row).await?;
    }
    Ok(())
}

fn stored(
    arrival: &Arrival<'_>,
    who: &Attribution,
    conversation: ConversationId,
    (blob, size): (Uuid, u64),
) -> StoredMessage {
    let summary = &arrival.message.summary;
    StoredMessage {
        id: arrival.key,
        identity: identity(arrival.message),
        rfc822_id: summary.message_id.clone(),
        conversation,
        direction: who.direction,
        kind: if arrival.forwarded.is_some() { Kind::Forward } else { arrival.message.kind },
        author: who.author.clone(),
        author_party: who.author_party.clone(),
        subject: summary.subject.clone(),
        parties: arrival.parties.clone(),
        in_reply_to: summary.in_reply_to.first().cloned(),
        attachments: arrival
            .message
            .attachments
            .iter()
            .map(|file| attachment(file, arrival.omitted))
            .collect(),
        defects: arrival.message.defects.iter().map(defect_word).collect(),
        forwarded: arrival.forwarded.as_ref().map(|forwarding| forwarding.by.clone()),
        sent_at: sent_at(arrival),
        received_at: arrival.arrived_at(),
        size,
        blob,
    }
}

fn defect_word(defect: &Defect) -> String {
    serde_json::to_value(defect).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn attachment(attachment: &Attachment, omitted: &[(usize, FileRule)]) -> AttachmentSummary {
    AttachmentSummary {
        id: mint::<AttachmentId>(),
        index: u32::try_from(attachment.index).unwrap_or(u32::MAX),
        filename: attachment.filename.clone(),
        content_type: attachment.content_type.clone(),
        size: attachment.size,
        sha256: attachment.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        content_id: attachment.content_id.clone(),
        skipped: files::skipped(omitted, attachment.index),
    }
}

fn sent_at(arrival: &Arrival<'_>) -> Timestamp {
    written_at(&arrival.message.summary, arrival.arrived_at())
}

/// The Date field, unless it lies in the future or is absent: then the time of arrival.
pub(super) fn written_at(summary: &HeaderSummary, arrived: Timestamp) -> Timestamp {
    summary.date.map_or(arrived, |date| date.min(arrived))
}

fn message_event(arrival: &Arrival<'_>, message: &StoredMessage, contacts: &[ContactId]) -> Option<Event> {
    let fact = MessageFact {
        message: message.id,
        conversation: message.conversation,
        contacts: contacts.to_vec(),
        account: arrival.account,
        rfc822_id: message.rfc822_id.clone(),
        state: None,
        recipients: Vec::new(),
    };
    match arrival.announce {
        Announce::Now(what) => Some(Event::Message { what, fact }),
        Announce::Later | Announce::Never => None,
    }
}

/// The event for mail found at a provider, by its direction.
pub(super) fn event_for(direction: Direction) -> MessageEvent {
    match direction {
        Direction::Inbound => MessageEvent::Received,
        Direction::Outbound | Direction::Internal => MessageEvent::Sent,
    }
}
