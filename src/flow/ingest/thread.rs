//! Finds, makes and merges the conversation of a message, by its thread keys (invariants 9 and 10).
//!
//! Not here: what a key is and which conversation survives (`core::threading`).

use super::Arrival;
use crate::{
    core::{
        attribution::{self, Attribution},
        event::Event,
        ids::ConversationId,
        message::{Conversation, Parties, Sighting},
        policy::Settings,
        subject::SubjectMark,
        threading::{self, Assignment, Found, ThreadKey, ThreadNode},
    },
    mail::{Address, HeaderSummary, MessageId},
    store::{ConversationRef, Error, HashedSubject, Tx, mint},
};

/// Every thread key of an arrival.
pub(super) fn thread_keys(arrival: &Arrival<'_>, who: &Attribution) -> Vec<ThreadKey> {
    let mut extra = arrival.extra_nodes.clone();
    extra.extend(arrival.message.receipt_of.clone().map(ThreadNode::MessageId));
    keys_of_summary(&arrival.message.summary, &extra, &arrival.parties, who)
}

/// Every thread key of a message, from its header alone.
pub(crate) fn keys_of_summary(
    summary: &HeaderSummary,
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
    threading::keys(&nodes, &participants(parties, who))
}

/// The people whose sharing an id connects messages: those outside the workspace, or the users of mail among users.
fn participants(parties: &Parties, who: &Attribution) -> Vec<Address> {
    match who.outsiders.is_empty() {
        true => parties.addresses().cloned().collect(),
        false => who.outsiders.clone(),
    }
}

pub(in crate::flow) fn bytes_of(keys: &[ThreadKey]) -> Vec<[u8; 16]> {
    keys.iter().map(|key| key.0).collect()
}

async fn found(tx: &mut Tx, keys: &[ThreadKey]) -> Result<Vec<Found>, Error> {
    let found = tx.threads_found(&bytes_of(keys)).await?;
    Ok(found.into_iter().map(as_found).collect())
}

fn as_found(found: ConversationRef) -> Found {
    Found { id: found.id, created_at: found.created_at }
}

/// By which subject others are found, where policy lets subjects join them.
pub(super) async fn subject_of(
    tx: &mut Tx,
    settings: &Settings,
    arrival: &Arrival<'_>,
) -> Result<Option<HashedSubject>, Error> {
    match SubjectMark::of(settings, &arrival.message.summary, &arrival.parties) {
        Some(mark) => tx.hashed_subject(&mark).await.map(Some),
        None => Ok(None),
    }
}

/// Conversations none of which a hand has parted from another: these alone mail may join.
pub(super) struct OneSide(Vec<Found>);

/// The conversations that share one of these keys, where a hand has parted them those on the side of this one.
pub(super) async fn found_beside(
    tx: &mut Tx,
    keys: &[ThreadKey],
    own: ConversationId,
) -> Result<OneSide, Error> {
    let found = found(tx, keys).await?;
    let parted = partings(tx, &found).await?;
    Ok(OneSide(threading::on_one_side(&found, Some(own), &parted)))
}

/// The same for a message that lies in none yet: those on the side of what it answers.
pub(super) async fn found_for(
    tx: &mut Tx,
    keys: &[ThreadKey],
    subject: Option<&HashedSubject>,
    (arrival, who): (&Arrival<'_>, &Attribution),
) -> Result<OneSide, Error> {
    let mut found = found(tx, keys).await?;
    if let Some(subject) = subject {
        found.extend(tx.subjects_met(subject).await?.into_iter().map(as_found));
    }
    let parted = partings(tx, &found).await?;
    let nearest = if parted.is_empty() { None } else { nearest(tx, arrival, who).await? };
    Ok(OneSide(threading::on_one_side(&found, nearest, &parted)))
}

async fn partings(tx: &mut Tx, found: &[Found]) -> Result<Vec<(ConversationId, ConversationId)>, Error> {
    if found.len() < 2 {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = found.iter().map(|found| found.id).collect();
    tx.partings_among(&ids).await
}

/// The conversation that a message belongs to before all others: the one the CRM names, or that of the message it answers.
async fn nearest(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
    who: &Attribution,
) -> Result<Option<ConversationId>, Error> {
    let summary = &arrival.message.summary;
    let people = participants(&arrival.parties, who);
    let own = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let ids = summary.in_reply_to.iter().chain(summary.references.iter().rev()).chain(own);
    let mut order: Vec<ThreadKey> =
        ids.flat_map(|id| threading::keys(&[ThreadNode::MessageId(id.clone())], &people)).collect();
    // A reply address was made for the whole conversation, before it was parted: there the answered message decides.
    let is_reply = arrival.sightings.iter().any(|sighting| matches!(sighting, Sighting::Reply { .. }));
    let at = if is_reply { order.len() } else { 0 };
    let named = arrival.proven.iter().map(|id| ThreadKey::of_conversation(*id));
    order.splice(at..at, named);
    let roots = tx.roots_of_keys(&bytes_of(&order)).await?;
    Ok(order.iter().find_map(|key| roots.get(&key.0).copied()))
}

/// Makes one conversation of those found: the eldest survives. `None` when nothing was found.
pub(super) async fn join(
    tx: &mut Tx,
    OneSide(found): &OneSide,
) -> Result<Option<(ConversationId, Vec<Event>)>, Error> {
    let (keep, absorb) = match threading::assign(found) {
        Assignment::Start => return Ok(None),
        Assignment::Join(only) => return Ok(Some((only, Vec::new()))),
        Assignment::Merge { keep, absorb } => (keep, absorb),
    };
    let mut events = Vec::with_capacity(absorb.len());
    for absorbed in absorb {
        if let Some(merged) = tx.merge_conversations(keep, absorbed).await? {
            events
                .push(Event::ConversationMerged { conversation: merged.absorbed, merged_into: merged.keep });
        }
    }
    Ok(Some((keep, events)))
}

/// Starts a conversation for a message, which it counts already.
pub(super) async fn start(
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
        contact: attribution::owner(&who.author, &who.contacts),
        created_at: arrival.received_at,
        last_message_at: super::sent_at(arrival),
        message_count: 1,
        merged_into: None,
        related_to,
    };
    tx.insert_conversation(&conversation).await?;
    Ok((id, vec![Event::ConversationCreated { conversation: id }]))
}
