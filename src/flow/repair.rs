//! Conversations put right by hand: merged, split, and as they were before (docs/flows.md, "Repair").
//!
//! What a hand has parted no mail joins again: later arrivals go to the side of the message they answer. Not here: how
//! arrivals find their conversation (`ingest`), and who may repair one (`http`).

use jiff::Timestamp;

use super::{FlowError, ingest};
use crate::{
    core::{
        attribution,
        event::Event,
        ids::{ConversationId, MessageKey, RepairId, WorkspaceId},
        message::{Conversation, StoredMessage},
        threading::{self, PARTICIPANTS_MAX, ThreadKey, ThreadNode},
    },
    mail::{Address, HeaderSummary, MessageId},
    store::{Error, Merged, Repair, Session, Store, Tx, mint},
};

/// Messages that a merge by hand may move: all of them are written down, so that it can be undone.
const MERGED_MAX: i64 = 10_000;
/// Messages that one split may move: each is read again.
pub const SPLIT_MAX: usize = 200;
/// Messages that came in after a merge and are looked at when it is undone; more stay where they are.
const LATE_MAX: usize = 1000;
/// People of one message whose keys go with it.
const PEOPLE_MAX: usize = 2 * PARTICIPANTS_MAX;

/// What was done, and by which id it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// The one that stands, or the new one.
    pub conversation: ConversationId,
    pub undo: RepairId,
}

/// Why a repair cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("they are one conversation already")]
    AlreadyOne,
    #[error("more messages would move than can be moved back")]
    TooMany,
    /// The message at this place in the list.
    #[error("the conversation has no such message")]
    NotInIt(usize),
    #[error("all of its messages would leave")]
    NothingStays,
    #[error("it has been undone")]
    Undone,
}

/// A message that leaves its conversation, and what finds it there.
#[derive(Debug)]
pub struct Leaving {
    message: StoredMessage,
    /// Every id it is known by.
    own: Vec<MessageId>,
    named: Vec<MessageId>,
}

/// Reads messages that are to leave, before a transaction begins: their bytes never change. Those that are not there are
/// left out.
///
/// # Errors
/// Those of the store.
pub async fn read_leaving(
    store: &Store,
    workspace: WorkspaceId,
    messages: &[MessageKey],
) -> Result<Vec<Leaving>, Error> {
    let mut leaving = Vec::with_capacity(messages.len());
    for key in messages {
        let mut session = store.read(workspace).await?;
        let Some(message) = session.message(*key).await? else { continue };
        let own = session.ids_of_message(*key).await?;
        let sealed = session.sealed_content(message.blob).await;
        // Opening takes time, in which others need the connection.
        drop(session);
        let named = match sealed {
            Ok(sealed) => {
                let HeaderSummary { in_reply_to, references, .. } =
                    HeaderSummary::read(&sealed.open().await?);
                in_reply_to.into_iter().chain(references).collect()
            }
            // Its bytes were erased.
            Err(Error::Missing) => Vec::new(),
            Err(error) => return Err(error),
        };
        leaving.push(Leaving { message, own, named });
    }
    Ok(leaving)
}

/// Makes one conversation of two: the elder stands, the other leads to it.
///
/// # Errors
/// Those of the store; `Missing` when one of them is not there.
pub async fn merge(
    tx: &mut Tx,
    one: ConversationId,
    other: ConversationId,
    now: Timestamp,
) -> Result<Result<Repaired, Refusal>, FlowError> {
    tx.lock_filing().await?;
    let [keep, absorb] = by_age(tx, one, other).await?;
    if keep.id == absorb.id {
        return Ok(Err(Refusal::AlreadyOne));
    }
    if absorb.message_count > MERGED_MAX {
        return Ok(Err(Refusal::TooMany));
    }
    let Some(merged) = tx.merge_conversations(keep.id, absorb.id).await? else {
        return Ok(Err(Refusal::AlreadyOne));
    };
    let contact_taken = keep.contact.is_none() && absorb.contact.is_some();
    let relation_ended = keep.related_to == Some(absorb.id);
    let event = Event::ConversationMerged { conversation: absorb.id, merged_into: keep.id };
    let undo = mint();
    tx.insert_repair(undo, &Repair::Merge { merged, contact_taken, relation_ended }, now).await?;
    tx.announce(&event, now).await?;
    Ok(Ok(Repaired { conversation: keep.id, undo }))
}

/// The conversations that stand for these two, the elder first.
async fn by_age(
    session: &mut Session,
    one: ConversationId,
    other: ConversationId,
) -> Result<[Conversation; 2], Error> {
    let mut found = Vec::with_capacity(2);
    for id in [one, other] {
        let root = session.root(id).await?;
        found.push(session.conversation(root).await?.ok_or(Error::Missing)?);
    }
    found.sort_by_key(|conversation| (conversation.created_at, conversation.id));
    found.try_into().map_err(|_| Error::Missing)
}

/// Puts messages of a conversation into one of their own, which is kept apart from it.
///
/// # Errors
/// Those of the store; `Missing` when the conversation is not there.
pub async fn split(
    tx: &mut Tx,
    conversation: ConversationId,
    leaving: &[Leaving],
    now: Timestamp,
) -> Result<Result<Repaired, Refusal>, FlowError> {
    tx.lock_filing().await?;
    let from = tx.root(conversation).await?;
    let keys: Vec<MessageKey> = leaving.iter().map(|leaving| leaving.message.id).collect();
    let homes = tx.conversations_of(&keys).await?;
    if let Some(stray) = keys.iter().position(|key| homes.get(key) != Some(&from)) {
        return Ok(Err(Refusal::NotInIt(stray)));
    }
    let stands = tx.conversation(from).await?.ok_or(Error::Missing)?;
    let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    let Some(first) = leaving.iter().map(|leaving| &leaving.message).min_by_key(|m| (m.sent_at, m.id)) else {
        return Ok(Err(Refusal::NotInIt(0)));
    };
    if stands.message_count <= count {
        return Ok(Err(Refusal::NothingStays));
    }
    let to = begin(tx, first, from, now).await?;
    move_messages(tx, &leaving.iter().collect::<Vec<_>>(), (from, to)).await?;
    tx.put_thread_keys(&ingest::bytes_of(&[ThreadKey::of_conversation(to)]), to).await?;
    // Whatever its messages were kept apart from they still are.
    for other in tx.parted_from(from).await? {
        tx.part_conversations(other, to).await?;
    }
    tx.part_conversations(from, to).await?;
    let undo = mint();
    tx.insert_repair(undo, &Repair::Split { from, to }, now).await?;
    tx.announce(&Event::ConversationSplit { conversation: to, from }, now).await?;
    Ok(Ok(Repaired { conversation: to, undo }))
}

/// The conversation that messages move to, named and filed after the first of them.
async fn begin(
    tx: &mut Tx,
    first: &StoredMessage,
    from: ConversationId,
    now: Timestamp,
) -> Result<ConversationId, Error> {
    let contacts = tx.message_contacts(&[first.id]).await?.remove(&first.id).unwrap_or_default();
    let conversation = Conversation {
        id: mint(),
        subject: first.subject.clone(),
        contact: attribution::owner(&first.author, &contacts),
        created_at: now,
        last_message_at: first.sent_at,
        message_count: 0,
        merged_into: None,
        related_to: Some(from),
    };
    tx.insert_conversation(&conversation).await?;
    Ok(conversation.id)
}

/// Moves messages with the keys by which answers to them arrive: those of their own ids, and those of the ids they name that
/// nobody who stays has or names.
async fn move_messages(
    tx: &mut Tx,
    leaving: &[&Leaving],
    (from, to): (ConversationId, ConversationId),
) -> Result<(), Error> {
    let messages: Vec<MessageKey> = leaving.iter().map(|leaving| leaving.message.id).collect();
    tx.refile_messages(&messages, to).await?;
    let hasher = tx.text_hasher().await?;
    let hashes: Vec<[u8; 16]> =
        leaving.iter().flat_map(|leaving| &leaving.named).map(|id| hasher.hash(id.as_str())).collect();
    let staying = tx.ids_named_in(from, &hashes).await?;
    for leaving in leaving {
        let named = leaving.named.iter().filter(|id| !staying.contains(&hasher.hash(id.as_str())));
        let nodes: Vec<ThreadNode> =
            leaving.own.iter().chain(named).cloned().map(ThreadNode::MessageId).collect();
        let keys = keys_of(&nodes, &leaving.message);
        tx.carry_thread_keys(&ingest::bytes_of(&keys), from, to).await?;
    }
    Ok(())
}

/// With all of its people, for who is a user changes.
fn keys_of(nodes: &[ThreadNode], message: &StoredMessage) -> Vec<ThreadKey> {
    let people: Vec<Address> = message.parties.addresses().take(PEOPLE_MAX).cloned().collect();
    let mut keys = threading::keys(nodes, &[]);
    keys.extend(people.chunks(PARTICIPANTS_MAX).flat_map(|some| threading::keys(nodes, some)));
    keys
}

/// Reads what leaves when a repair is undone, before the transaction begins: of a merge, the answers that have come in since to
/// messages that go back.
///
/// # Errors
/// Those of the store; `Missing` when there is no such repair.
pub async fn read_undoing(
    store: &Store,
    workspace: WorkspaceId,
    id: RepairId,
) -> Result<Vec<Leaving>, Error> {
    let mut session = store.read(workspace).await?;
    let (repair, _) = session.repair(id).await?.ok_or(Error::Missing)?;
    let Repair::Merge { merged, .. } = repair else { return Ok(Vec::new()) };
    let root = session.root(merged.absorbed).await?;
    let (mut late, mut answered) = (Vec::new(), merged.moved);
    while !answered.is_empty() && late.len() < LATE_MAX {
        let ids = session.ids_of_messages(&answered).await?;
        answered = session.answers_after(root, &ids, id).await?;
        answered.retain(|answer| !late.contains(answer));
        late.extend(&answered);
    }
    drop(session);
    late.truncate(LATE_MAX);
    read_leaving(store, workspace, &late).await
}

/// Undoes a repair. Returns the conversation that stands again: of a merge the one that was absorbed, of a split the one that
/// its messages return to.
///
/// # Errors
/// Those of the store; `Missing` when there is no such repair.
pub async fn undo(
    tx: &mut Tx,
    id: RepairId,
    leaving: &[Leaving],
    now: Timestamp,
) -> Result<Result<ConversationId, Refusal>, FlowError> {
    tx.lock_filing().await?;
    let (repair, _) = tx.repair(id).await?.ok_or(Error::Missing)?;
    if !tx.end_repair(id, now).await? {
        return Ok(Err(Refusal::Undone));
    }
    match repair {
        Repair::Merge { merged, contact_taken, relation_ended } => {
            part_again(tx, &merged, leaving, now).await?;
            tx.restore_heading(&merged, (contact_taken, relation_ended)).await?;
            Ok(Ok(merged.absorbed))
        }
        Repair::Split { from, to } => join_again(tx, from, to, now).await.map(Ok),
    }
}

async fn part_again(
    tx: &mut Tx,
    merged: &Merged,
    leaving: &[Leaving],
    now: Timestamp,
) -> Result<(), FlowError> {
    let from = tx.root(merged.absorbed).await?;
    tx.unmerge_conversation(merged).await?;
    let keys: Vec<MessageKey> = leaving.iter().map(|leaving| leaving.message.id).collect();
    let homes = tx.conversations_of(&keys).await?;
    let still_there: Vec<&Leaving> =
        leaving.iter().filter(|leaving| homes.get(&leaving.message.id) == Some(&from)).collect();
    move_messages(tx, &still_there, (from, merged.absorbed)).await?;
    tx.part_conversations(merged.keep, merged.absorbed).await?;
    let event = Event::ConversationSplit { conversation: merged.absorbed, from };
    tx.announce(&event, now).await?;
    Ok(())
}

async fn join_again(
    tx: &mut Tx,
    from: ConversationId,
    to: ConversationId,
    now: Timestamp,
) -> Result<ConversationId, FlowError> {
    let [keep, absorb] = by_age(tx, from, to).await?;
    if tx.merge_conversations(keep.id, absorb.id).await?.is_some() {
        let event = Event::ConversationMerged { conversation: absorb.id, merged_into: keep.id };
        tx.announce(&event, now).await?;
    }
    Ok(keep.id)
}
