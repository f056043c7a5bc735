//! Finds, makes and merges the conversation of a message, by its thread keys (invariants 9 and 10).
//!
//! Not here: what a key is and which conversation survives (`core::threading`).

use super::Arrival;
use crate::{
    core::{
        attribution::Attribution,
        event::Event,
        ids::{ContactId, ConversationId},
        message::{Author, ContactRole, Conversation, Parties, Sighting},
        threading::{self, Assignment, Found, ThreadKey, ThreadNode},
    },
    mail::{Address, HeaderSummary, MessageId},
    store::{Error, Tx, mint},
};

/// Every thread key of an arrival.
pub(super) fn thread_keys(arrival: &Arrival<'_>, who: &Attribution) -> Vec<ThreadKey> {
    keys_of_summary(&arrival.message.summary, &arrival.extra_nodes, &arrival.parties, who)
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

/// The conversations that share one of these keys.
pub(super) async fn found(tx: &mut Tx, keys: &[ThreadKey]) -> Result<Vec<Found>, Error> {
    let found = tx.threads_found(&bytes_of(keys)).await?;
    Ok(found.into_iter().map(|found| Found { id: found.id, created_at: found.created_at }).collect())
}

/// Of conversations found those on one side, where a hand has parted them: the side of `own`, or of what the message answers.
pub(super) async fn on_one_side(
    tx: &mut Tx,
    found: Vec<Found>,
    (arrival, who): (&Arrival<'_>, &Attribution),
    own: Option<ConversationId>,
) -> Result<Vec<Found>, Error> {
    if found.len() < 2 {
        return Ok(found);
    }
    let ids: Vec<_> = found.iter().map(|found| found.id).collect();
    let parted = tx.partings_among(&ids).await?;
    if parted.is_empty() {
        return Ok(found);
    }
    let nearest = match own {
        Some(own) => Some(own),
        None => nearest(tx, arrival, who).await?,
    };
    Ok(threading::on_one_side(&found, nearest, &parted))
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

/// Makes one conversation of those found: the eldest survives. `own` stands when nothing was found.
pub(super) async fn join(
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
        contact: owner(who),
        created_at: arrival.received_at,
        last_message_at: super::sent_at(arrival),
        message_count: 1,
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
