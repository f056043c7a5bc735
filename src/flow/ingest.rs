//! The tail that every door shares: recognise a message or file it, in one transaction (docs/flows.md, "Ingest").
//!
//! Not here: deciding whether it may come in. Each door has judged before it calls.

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::FlowError;
use crate::{
    core::{
        account::MailboxUid,
        attribution::{self, Attribution, Known, KnownContact, OurDomains},
        decision::{DecisionHash, HashRole, NewDecision, Ruling},
        event::{ContactEvent, Event, MessageEvent, MessageFact},
        ids::{AccountId, AttachmentId, ContactId, ConversationId, MessageKey},
        job::Job,
        message::{
            AttachmentSummary, Author, ContactRole, Conversation, Direction, Parties, Sighting, SightingRow,
            StoredMessage,
        },
        people::{Contact, CreatedBy},
        policy::Policy,
        threading::{self, Assignment, Found, ThreadKey, ThreadNode},
    },
    mail::{Address, Message, MessageId, Party},
    store::{self, AddressMatch, Error, PolicyStamp, Tx, mint},
};

/// A message at the door, judged and ready to be filed.
pub(super) struct Arrival<'a> {
    /// The key it gets if it is new.
    pub key: MessageKey,
    pub message: &'a Message,
    pub parties: Parties,
    pub bytes: RawBytes<'a>,
    pub sightings: Vec<Sighting>,
    pub received_at: Timestamp,
    pub ruling: Ruling,
    /// The door, as decisions name it.
    pub via: &'static str,
    /// Provider's thread ids, besides the Message-IDs.
    pub extra_nodes: Vec<ThreadNode>,
    /// A conversation it may join whoever is on it: proven by a reply address, or named by the CRM.
    pub conversation: Option<ConversationId>,
    pub create_contacts: bool,
    /// What to tell the CRM if it is new; backfilled mail is filed in silence.
    pub announce: Option<MessageEvent>,
    pub account: Option<AccountId>,
}

/// The exact bytes of an arrival.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawBytes<'a> {
    /// On disk since the 250; a new message takes them over.
    Stored { blob: Uuid, size: usize },
    /// In hand; stored only if the message is new, under the key of this account or the workspace's.
    InHand { raw: &'a Bytes, account: Option<AccountId> },
}

/// What became of an arrival.
#[derive(Debug)]
pub(super) enum Ingested {
    Filed {
        message: Box<StoredMessage>,
        contacts: Vec<ContactId>,
    },
    /// It was here already; `seen_anew` when this way of seeing it was new.
    Known {
        message: MessageKey,
        conversation: ConversationId,
        seen_anew: bool,
    },
}

impl Ingested {
    pub(super) fn key(&self) -> MessageKey {
        match self {
            Self::Filed { message, .. } => message.id,
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
    if let Some(known) = recognise(tx, &arrival).await? {
        return add_sightings(tx, ours, known, &arrival).await;
    }
    file(tx, ours, policy, arrival).await
}

/// Finds the message this is a copy of: same id (its own, or the one a provider replaced) *and* same content.
async fn recognise(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
) -> Result<Option<(MessageKey, ConversationId)>, Error> {
    let summary = &arrival.message.summary;
    let ids: Vec<MessageId> =
        [&summary.message_id, &summary.original_message_id].into_iter().flatten().cloned().collect();
    let content = content_half(arrival.message);
    for found in tx.messages_by_rfc822_id(&ids).await? {
        if found.identity.starts_with(&content) {
            return Ok(Some((found.message, found.conversation)));
        }
    }
    let in_mailbox = arrival.sightings.iter().any(|sighting| matches!(sighting, Sighting::Account(_)));
    let has_id = summary.message_id.is_some();
    if has_id && !in_mailbox {
        return Ok(None);
    }
    // Mail without any id, or a submission of ours whose id the provider replaced without a trace: content, sender, date
    // and recipients decide.
    let same = tx.messages_by_content(&content).await?;
    let copy = same
        .into_iter()
        .find(|found| (found.submitted || !has_id) && same_recipients(&found.parties, &arrival.parties));
    Ok(copy.map(|found| (found.message, found.conversation)))
}

fn same_recipients(a: &Parties, b: &Parties) -> bool {
    let keys = |parties: &Parties| {
        let mut keys: Vec<_> =
            parties.to.iter().chain(&parties.cc).map(|party| party.address.key().to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    keys(a) == keys(b)
}

/// Adds what a further copy tells: where it was seen, and the ids it goes by there.
async fn add_sightings(
    tx: &mut Tx,
    ours: &OurDomains,
    (message, conversation): (MessageKey, ConversationId),
    arrival: &Arrival<'_>,
) -> Result<Ingested, FlowError> {
    let mut seen_anew = false;
    for sighting in &arrival.sightings {
        let row = SightingRow { sighting: sighting.clone(), at: arrival.received_at };
        seen_anew |= tx.add_sighting(message, &row).await?;
        if let Sighting::Account(at) = sighting {
            tx.note_sent_copy(message, at).await?;
        }
    }
    let conversation = learn_ids(tx, ours, (message, conversation), arrival).await?;
    Ok(Ingested::Known { message, conversation, seen_anew })
}

/// Learns the id that a provider gave the message on the wire: answers will name that one.
async fn learn_ids(
    tx: &mut Tx,
    ours: &OurDomains,
    (message, conversation): (MessageKey, ConversationId),
    arrival: &Arrival<'_>,
) -> Result<ConversationId, FlowError> {
    let Some(id) = &arrival.message.summary.message_id else { return Ok(conversation) };
    if tx.ids_of_message(message).await?.contains(id) {
        return Ok(conversation);
    }
    tx.add_message_id(message, id).await?;
    let known = known_people(tx, &arrival.parties).await?;
    let who = attribution::attribute(&arrival.parties, &known, ours);
    let mut keys = thread_keys(arrival, &who);
    keys.push(ThreadKey::of_conversation(conversation));
    let found = found(tx, &keys).await?;
    let (root, events) = join(tx, &found, conversation).await?;
    tx.put_thread_keys(&bytes_of(&keys), root).await?;
    for event in &events {
        tx.announce(event, arrival.received_at).await?;
    }
    Ok(root)
}

async fn file(
    tx: &mut Tx,
    ours: &OurDomains,
    policy: &Policy,
    arrival: Arrival<'_>,
) -> Result<Ingested, FlowError> {
    let mut known = known_people(tx, &arrival.parties).await?;
    let created = if arrival.create_contacts {
        create_contacts(tx, ours, &mut known, &arrival).await?
    } else {
        Vec::new()
    };
    let who = attribution::attribute(&arrival.parties, &known, ours);
    let mut keys = thread_keys(&arrival, &who);
    keys.extend(arrival.conversation.map(ThreadKey::of_conversation));
    let found = found(tx, &keys).await?;
    let (conversation, mut events) = match threading::assign(&found) {
        Assignment::Start => start(tx, &arrival, &who).await?,
        Assignment::Join(id) => (id, Vec::new()),
        Assignment::Merge { keep, .. } => join(tx, &found, keep).await?,
    };
    keys.push(ThreadKey::of_conversation(conversation));
    let message = store_message(tx, &arrival, &who, conversation).await?;
    write_rows(tx, &arrival, &message, &who, &keys).await?;
    let contacts: Vec<ContactId> = who.contacts.iter().map(|(contact, _)| *contact).collect();
    events.extend(contact_events(&created, &known, &arrival, message.id));
    events.extend(message_event(&arrival, &message, &contacts));
    for event in &events {
        tx.announce(event, arrival.received_at).await?;
    }
    decide(tx, policy, &arrival, message.id).await?;
    recall_skipped(tx, &arrival).await?;
    Ok(Ingested::Filed { message: Box::new(message), contacts })
}

/// Stores the message and, unless a listener has, its bytes.
async fn store_message(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    who: &Attribution,
    conversation: ConversationId,
) -> Result<StoredMessage, FlowError> {
    let (blob, size) = match arrival.bytes {
        RawBytes::Stored { blob, size } => (blob, size),
        RawBytes::InHand { raw, account } => {
            let key = tx.content_key(account).await?;
            (tx.put_blob(raw, key).await?, raw.len())
        }
    };
    let message = stored(arrival, who, conversation, (blob, size));
    // Nothing but another node can have stored it since we looked.
    tx.insert_message(&message).await?.ok_or(FlowError::Raced)?;
    Ok(message)
}

/// Who of these people the workspace knows.
pub(crate) async fn known_people(session: &mut store::Session, parties: &Parties) -> Result<Known, Error> {
    let addresses: Vec<Address> = parties.addresses().cloned().collect();
    let users = session.users_among(&addresses).await?;
    let contacts = session.contacts_among(&addresses, AddressMatch::All).await?;
    let known =
        |found: store::ContactMatch| KnownContact { id: found.contact, assigned_user: found.assigned_user };
    Ok(Known {
        users,
        contacts: contacts.into_iter().map(|(address, found)| (address, known(found))).collect(),
    })
}

async fn create_contacts(
    tx: &mut Tx,
    ours: &OurDomains,
    known: &mut Known,
    arrival: &Arrival<'_>,
) -> Result<Vec<(ContactId, Address)>, Error> {
    let new: Vec<Party> =
        attribution::new_contacts(&arrival.parties, known, ours, arrival.message.summary.automatic)
            .into_iter()
            .cloned()
            .collect();
    let mut created = Vec::with_capacity(new.len());
    for party in new {
        let contact = new_contact(&party, arrival.received_at);
        tx.insert_contact(&contact).await?;
        let entry = KnownContact { id: contact.id, assigned_user: None };
        known.contacts.insert(party.address.clone(), entry);
        created.push((contact.id, party.address));
    }
    Ok(created)
}

fn new_contact(party: &Party, now: Timestamp) -> Contact {
    Contact {
        id: mint(),
        email: party.address.clone(),
        name: party.name.clone(),
        other_emails: Vec::new(),
        assigned_user_id: None,
        external_id: None,
        related_contact_ids: Vec::new(),
        metadata: serde_json::Value::Object(serde_json::Map::new()),
        created_by: CreatedBy::Capture,
        created_at: now,
    }
}

/// Every thread key of an arrival.
fn thread_keys(arrival: &Arrival<'_>, who: &Attribution) -> Vec<ThreadKey> {
    keys_of_summary(&arrival.message.summary, &arrival.extra_nodes, &arrival.parties, who)
}

/// Every thread key of a message, from its header alone.
pub(crate) fn keys_of_summary(
    summary: &crate::mail::HeaderSummary,
    extra: &[ThreadNode],
    parties: &Parties,
    who: &Attribution,
) -> Vec<ThreadKey> {
    let mut nodes: Vec<ThreadNode> = extra.to_vec();
    nodes.extend(summary.thread_index.map(ThreadNode::ThreadIndex));
    let ids = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    nodes.extend(
        ids.chain(&summary.in_reply_to).chain(&summary.references).cloned().map(ThreadNode::MessageId),
    );
    if who.outsiders.is_empty() {
        let users: Vec<Address> = parties.addresses().cloned().collect();
        return threading::keys(&nodes, &users);
    }
    threading::keys(&nodes, &who.outsiders)
}

fn bytes_of(keys: &[ThreadKey]) -> Vec<[u8; 16]> {
    keys.iter().map(|key| key.0).collect()
}

/// The conversations that share one of these keys.
async fn found(tx: &mut Tx, keys: &[ThreadKey]) -> Result<Vec<Found>, Error> {
    let found = tx.threads_found(&bytes_of(keys)).await?;
    Ok(found.into_iter().map(|found| Found { id: found.id, created_at: found.created_at }).collect())
}

/// Makes one conversation of those found: the eldest survives. `own` stands when nothing was found.
async fn join(
    tx: &mut Tx,
    found: &[Found],
    own: ConversationId,
) -> Result<(ConversationId, Vec<Event>), Error> {
    let Assignment::Merge { keep, absorb } = threading::assign(found) else {
        return Ok((found.first().map_or(own, |only| only.id), Vec::new()));
    };
    let mut events = Vec::with_capacity(absorb.len());
    for absorbed in absorb {
        if let Some(merged) = tx.merge_conversations(keep, absorbed).await? {
            events
                .push(Event::ConversationMerged { conversation: merged.absorbed, merged_into: merged.keep });
        }
    }
    Ok((keep, events))
}

async fn start(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    who: &Attribution,
) -> Result<(ConversationId, Vec<Event>), Error> {
    let id = mint();
    let named = [&arrival.message.summary.in_reply_to, &arrival.message.summary.references];
    let named: Vec<MessageId> = named.into_iter().flatten().cloned().collect();
    // It names mail we have, but nobody on it was in that conversation: kept apart, and the relation shown.
    let related_to = tx.messages_by_rfc822_id(&named).await?.first().map(|found| found.conversation);
    let conversation = Conversation {
        id,
        subject: arrival.message.summary.subject.clone(),
        contact: owner(who),
        created_at: arrival.received_at,
        last_message_at: sent_at(arrival),
        message_count: 0,
        merged_into: None,
        related_to,
    };
    tx.insert_conversation(&conversation).await?;
    Ok((id, vec![Event::ConversationCreated { conversation: id }]))
}

/// The contact a conversation is filed under: who wrote, else the first in To, else any.
fn owner(who: &Attribution) -> Option<ContactId> {
    if let Author::Contact(contact) = who.author {
        return Some(contact);
    }
    let first_to = who.contacts.iter().find(|(_, role)| *role == ContactRole::To);
    first_to.or_else(|| who.contacts.first()).map(|(contact, _)| *contact)
}

async fn write_rows(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    message: &StoredMessage,
    who: &Attribution,
    keys: &[ThreadKey],
) -> Result<(), Error> {
    let summary = &arrival.message.summary;
    for id in [&summary.message_id, &summary.original_message_id].into_iter().flatten() {
        tx.add_message_id(message.id, id).await?;
    }
    tx.put_thread_keys(&bytes_of(keys), message.conversation).await?;
    tx.put_message_contacts(message.id, message.sent_at, &who.contacts).await?;
    for sighting in &arrival.sightings {
        let row = SightingRow { sighting: sighting.clone(), at: arrival.received_at };
        tx.add_sighting(message.id, &row).await?;
    }
    tx.touch_conversation(message.conversation, message.sent_at).await
}

fn stored(
    arrival: &Arrival<'_>,
    who: &Attribution,
    conversation: ConversationId,
    (blob, size): (Uuid, usize),
) -> StoredMessage {
    let summary = &arrival.message.summary;
    StoredMessage {
        id: arrival.key,
        identity: identity(arrival.message),
        rfc822_id: summary.message_id.clone(),
        conversation,
        direction: who.direction,
        kind: arrival.message.kind,
        author: who.author.clone(),
        author_party: who.author_party.clone(),
        subject: summary.subject.clone(),
        parties: arrival.parties.clone(),
        in_reply_to: summary.in_reply_to.first().cloned(),
        attachments: arrival.message.attachments.iter().map(attachment).collect(),
        defects: arrival.message.defects.iter().map(defect_word).collect(),
        sent_at: sent_at(arrival),
        received_at: arrival.received_at,
        size: size as u64,
        blob,
    }
}

fn defect_word(defect: &crate::mail::Defect) -> String {
    serde_json::to_value(defect).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn attachment(attachment: &crate::mail::Attachment) -> AttachmentSummary {
    AttachmentSummary {
        id: mint::<AttachmentId>(),
        index: u32::try_from(attachment.index).unwrap_or(u32::MAX),
        filename: attachment.filename.clone(),
        content_type: attachment.content_type.clone(),
        size: attachment.size,
        sha256: attachment.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        content_id: attachment.content_id.clone(),
    }
}

/// The Date field, unless it lies in the future or is absent: then the time of arrival.
fn sent_at(arrival: &Arrival<'_>) -> Timestamp {
    arrival.message.summary.date.map_or(arrival.received_at, |date| date.min(arrival.received_at))
}

/// Content first, so that copies under other ids lie side by side in the index; then the Message-ID.
pub(crate) fn identity(message: &Message) -> [u8; 32] {
    let id = message.summary.message_id.as_ref().map_or("", MessageId::as_str);
    let mut identity = [0; 32];
    let (content, rest) = identity.split_at_mut(16);
    content.copy_from_slice(&content_half(message));
    blake3::Hasher::new().update(id.as_bytes()).finalize_xof().fill(rest);
    identity
}

fn content_half(message: &Message) -> [u8; 16] {
    message.content.as_bytes().first_chunk::<16>().copied().unwrap_or_default()
}

fn contact_events(
    created: &[(ContactId, Address)],
    known: &Known,
    arrival: &Arrival<'_>,
    message: MessageKey,
) -> Vec<Event> {
    if !arrival.create_contacts {
        return Vec::new();
    }
    let event = |what, contact, email: &Address| Event::Contact {
        what,
        contact,
        email: email.clone(),
        message: Some(message),
    };
    let new = created.iter().map(|(id, email)| event(ContactEvent::Created, *id, email));
    let is_new = |id: ContactId| created.iter().any(|(new, _)| *new == id);
    let to = arrival.parties.to.iter().map(|party| &party.address);
    let old =
        to.filter(|a| !known.users.contains_key(a)).filter_map(|a| Some((known.contacts.get(a)?.id, a)));
    new.chain(old.filter(|(id, _)| !is_new(*id)).map(|(id, email)| event(ContactEvent::Matched, id, email)))
        .collect()
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
    arrival.announce.map(|what| Event::Message { what, fact })
}

/// The event for mail found at a provider, by its direction.
pub(super) fn event_for(direction: Direction) -> MessageEvent {
    match direction {
        Direction::Inbound => MessageEvent::Received,
        Direction::Outbound | Direction::Internal => MessageEvent::Sent,
    }
}

async fn decide(
    tx: &mut Tx,
    policy: &Policy,
    arrival: &Arrival<'_>,
    message: MessageKey,
) -> Result<(), Error> {
    let seen_at = arrival.sightings.iter().find_map(|sighting| match sighting {
        Sighting::Account(at) => Some(at.clone()),
        _ => None,
    });
    let hashes = decision_hashes(tx, &arrival.message.summary, &arrival.parties).await?;
    let decision = NewDecision {
        ruling: arrival.ruling.clone(),
        via: arrival.via,
        message: Some(message),
        seen_at,
        hashes,
    };
    tx.decide(&decision, stamp(policy), arrival.received_at).await.map(drop)
}

/// The policy as decisions name it.
pub(super) fn stamp(policy: &Policy) -> PolicyStamp<'_> {
    PolicyStamp { preset: policy.preset, version: policy.version }
}

/// The keyed hashes by which a decision about this mail is found.
pub(super) async fn decision_hashes(
    session: &mut store::Session,
    summary: &crate::mail::HeaderSummary,
    parties: &Parties,
) -> Result<Vec<DecisionHash>, Error> {
    let key = session.text_hasher().await?;
    let hashed = |role, text: &str| DecisionHash { role, hash: key.hash(text) };
    let own = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let mut hashes: Vec<_> = own.map(|id| hashed(HashRole::Id, id.as_str())).collect();
    let named = summary.in_reply_to.iter().chain(&summary.references);
    hashes.extend(named.map(|id| hashed(HashRole::Reference, id.as_str())));
    hashes.extend(parties.addresses().map(|address| hashed(HashRole::Address, address.key())));
    hashes.sort_by_key(|hash| hash.hash);
    hashes.dedup_by_key(|hash| hash.hash);
    Ok(hashes)
}

/// Mail skipped before it was known to belong (the Sent copy of what is captured now, the answer that overtook it) is
/// fetched again: this message's ids name it, or it names them.
async fn recall_skipped(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<(), Error> {
    let key = tx.text_hasher().await?;
    let summary = &arrival.message.summary;
    let own = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let ids: Vec<_> =
        own.chain(&summary.in_reply_to).chain(&summary.references).map(|id| key.hash(id.as_str())).collect();
    let skipped: Vec<MailboxUid> = tx.skipped_with_ids(&ids).await?;
    for at in skipped {
        tx.enqueue_job(&Job::Refetch { at }, arrival.received_at).await?;
    }
    Ok(())
}
