//! Adds people to a stored message who were not known to be on it: recipients whom only a later envelope names.
//!
//! Not here: sending to them (`flow::submit`). To threading it is as if they had been named from the start (invariant 9).

use jiff::Timestamp;

use super::{bytes_of, known_people, ledger, thread};
use crate::{
    core::{
        attribution::{self, OurDomains},
        ids::{ConversationId, MessageKey},
        policy::Policy,
        threading::{self, ThreadKey, ThreadNode},
    },
    flow::FlowError,
    mail::{Address, HeaderSummary, Party},
    store::Tx,
};

/// Makes these people part of a message, in Bcc where it does not name them. Returns the conversation it lies in then.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn include(
    tx: &mut Tx,
    (ours, policy): (&OurDomains, &Policy),
    (message, conversation): (MessageKey, ConversationId),
    (people, at): (&[Address], Timestamp),
) -> Result<ConversationId, FlowError> {
    let stored = tx.message(message).await?.ok_or(FlowError::Obsolete)?;
    let mut parties = stored.parties;
    let new: Vec<Address> = {
        let named: Vec<&Address> = parties.addresses().collect();
        people.iter().filter(|address| !named.contains(address)).cloned().collect()
    };
    if new.is_empty() {
        return Ok(conversation);
    }
    parties.bcc.extend(new.iter().map(|address| Party::new(address.clone(), None)));
    tx.set_parties(message, &parties).await?;
    let known = known_people(tx, &parties, &policy.settings).await?;
    let who = attribution::attribute(&parties, &known, ours);
    tx.put_message_contacts(message, stored.sent_at, &who.contacts).await?;
    let outsiders: Vec<Address> = who.outsiders.into_iter().filter(|address| new.contains(address)).collect();
    if outsiders.is_empty() {
        // Users do not count as shared participants of mail that others take part in.
        return Ok(conversation);
    }
    let summary = HeaderSummary::read(&tx.blob(stored.blob).await?);
    let mut ids = tx.ids_of_message(message).await?;
    ids.extend(summary.in_reply_to.into_iter().chain(summary.references));
    let mut nodes: Vec<ThreadNode> = summary.thread_index.map(ThreadNode::ThreadIndex).into_iter().collect();
    nodes.extend(ids.iter().cloned().map(ThreadNode::MessageId));
    let mut keys: Vec<ThreadKey> = Vec::new();
    for some in outsiders.chunks(threading::PARTICIPANTS_MAX) {
        keys.extend(threading::keys(&nodes, some));
    }
    keys.push(ThreadKey::of_conversation(conversation));
    let found = thread::found_beside(tx, &keys, conversation).await?;
    let (root, events) = thread::join(tx, &found).await?.unwrap_or((conversation, Vec::new()));
    tx.put_thread_keys(&bytes_of(&keys), root).await?;
    tx.announce_all(&events, at).await?;
    // Their answers may have been left out, for nobody knew that it was to them.
    ledger::recall_named(tx, ids.iter(), at).await?;
    Ok(root)
}
