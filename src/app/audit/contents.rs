//! Reads every message again, conversation by conversation: its bytes, its identity, its keys.
//!
//! Not here: what makes messages belong together (`threads`). In memory are one message and the keys of one conversation.

use super::{Report, threads::Grouping};
use crate::{
    core::{
        attribution::{self, OurDomains},
        ids::{ConversationId, MessageKey},
        message::{Author, StoredMessage},
        policy::{Policy, Preset},
        threading::{self, PARTICIPANTS_MAX, ThreadKey, ThreadNode},
    },
    flow,
    mail::{Address, Kind, Message, MessageId},
    store::{Error, Session},
};

/// Groups of participants whose keys are tried when asking whether a message could belong where it lies: 200 people.
const PARTICIPANT_GROUPS_MAX: usize = 8;

pub(super) async fn look(session: &mut Session, ours: &OurDomains, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    // Where a hand has put messages together or apart, their ids alone do not say what belongs together.
    let repaired = session.conversations_repaired().await?;
    loop {
        let conversations = session.conversations_by_id(after).await?;
        let Some((last, _)) = conversations.last() else { return Ok(()) };
        after = Some(*last);
        for (conversation, root) in &conversations {
            let grouping = look_into(session, (*conversation, *root), ours, report).await?;
            if !grouping.holds_together() && !repaired.contains(root) {
                report.found("threads", conversation);
            }
        }
    }
}

async fn look_into(
    session: &mut Session,
    (conversation, root): (ConversationId, ConversationId),
    ours: &OurDomains,
    report: &mut Report,
) -> Result<Grouping, Error> {
    let (mut grouping, mut after) = (Grouping::default(), None);
    loop {
        let mut keys = session.message_keys(conversation, after).await?;
        let Some(last) = keys.last() else { break };
        after = Some(*last);
        shuffle(&mut keys);
        for key in keys {
            let Some(stored) = session.message(key).await? else { continue };
            report.messages += 1;
            let Some(message) = read(session, &stored, report).await? else {
                grouping.add_unreadable();
                continue;
            };
            let ids = session.ids_of_message(key).await?;
            let nodes = extra_nodes(&message, ids);
            keys_lead_home(session, &stored, (&message, &nodes, root), ours, report).await?;
            // The header of a copy that brought another id is not kept: what else it named is unknown.
            // A report joins the conversation of what it reports on, whoever wrote it.
            let is_report = stored.kind == Kind::Bounce;
            let by_name = is_report || !nodes.is_empty() || session.may_join_by_name(key).await?;
            let mut keys = possible_keys(&stored, (&message, &nodes), ours);
            keys.extend(session.subject_keys_of(key).await?.into_iter().map(ThreadKey));
            grouping.add(&keys, by_name);
        }
    }
    Ok(grouping)
}

/// Any order gives the same: each run tries another.
fn shuffle(keys: &mut [MessageKey]) {
    keys.sort_by_cached_key(|_| rand::random::<u64>());
}

/// Opens and reads a message; `None` when its bytes cannot be had.
async fn read(
    session: &mut Session,
    stored: &StoredMessage,
    report: &mut Report,
) -> Result<Option<Message>, Error> {
    let raw = match session.blob(stored.blob).await {
        Ok(raw) => raw,
        Err(Error::Corrupt(_) | Error::Missing) => {
            report.found("bytes", stored.id);
            return Ok(None);
        }
        Err(other) => return Err(other),
    };
    if raw.len() as u64 != stored.size {
        report.found("bytes", stored.id);
    }
    let message = Message::parse(&raw);
    // What policy cut out of it is a part of its identity.
    let is_whole = stored.attachments.iter().all(|attachment| attachment.skipped.is_none());
    if is_whole && flow::identity(&message) != stored.identity {
        report.found("identity", stored.id);
    }
    Ok(Some(message))
}

/// The ids it goes by that do not stand in its header: those a provider gave it on the wire, and that of the mail which a receipt
/// is about.
fn extra_nodes(message: &Message, ids: Vec<MessageId>) -> Vec<ThreadNode> {
    let summary = &message.summary;
    let own: Vec<&MessageId> =
        [&summary.message_id, &summary.original_message_id].into_iter().flatten().collect();
    let given = ids.into_iter().filter(|id| !own.contains(&id));
    given.chain(message.receipt_of.clone()).map(ThreadNode::MessageId).collect()
}

/// Every key the index has of this message leads to the conversation it lies in, and it has one at least.
async fn keys_lead_home(
    session: &mut Session,
    stored: &StoredMessage,
    (message, nodes, root): (&Message, &[ThreadNode], ConversationId),
    ours: &OurDomains,
    report: &mut Report,
) -> Result<(), Error> {
    // Only who works here bears on keys: whichever contacts count.
    let settings = Policy::of_preset(Preset::default_preset()).settings;
    let known = flow::known_people(session, &stored.parties, &settings).await?;
    let mut who = attribution::attribute(&stored.parties, &known, ours);
    if matches!(stored.author, Author::User(_)) {
        // He was a user when it was filed, whatever he is now.
        let author = stored.author_party.as_ref().map(|party| &party.address);
        who.outsiders.retain(|address| Some(address) != author);
    }
    let keys = flow::keys_of_summary(&message.summary, nodes, &stored.parties, &who);
    let keys: Vec<[u8; 16]> = keys.iter().map(|key| key.0).collect();
    let roots = session.threads_of_keys(&keys).await?;
    let strays: Vec<_> = roots.iter().filter(|found| **found != root).collect();
    // What a message names may lie on the other side of a parting.
    let parted = if strays.is_empty() { Vec::new() } else { session.parted_from(root).await? };
    if (roots.is_empty() && !keys.is_empty()) || strays.iter().any(|stray| !parted.contains(stray)) {
        report.found("keys", stored.id);
    }
    Ok(())
}

/// Every key by which this message can ever have found its conversation: with all of its people, for who is a user changes.
fn possible_keys(
    stored: &StoredMessage,
    (message, extra): (&Message, &[ThreadNode]),
    ours: &OurDomains,
) -> Vec<ThreadKey> {
    let summary = &message.summary;
    let ids = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let named = ids.chain(&summary.in_reply_to).chain(&summary.references);
    let mut nodes: Vec<ThreadNode> = extra.to_vec();
    nodes.extend(summary.thread_index.map(ThreadNode::ThreadIndex));
    nodes.extend(named.cloned().map(ThreadNode::MessageId));
    let people: Vec<Address> =
        stored.parties.addresses().filter(|address| !ours.holds(address)).cloned().collect();
    if people.is_empty() {
        return threading::keys(&nodes, &people);
    }
    let groups = people.chunks(PARTICIPANTS_MAX).take(PARTICIPANT_GROUPS_MAX);
    groups.flat_map(|group| threading::keys(&nodes, group)).collect()
}
