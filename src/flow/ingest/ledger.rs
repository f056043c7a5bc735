//! Writes down why a message was taken, and recalls mail that was skipped before it was known to belong.
//!
//! Not here: deciding (`core::policy`).

use super::Arrival;
use jiff::Timestamp;

use crate::{
    core::{
        decision::{DecisionHash, HashRole, NewDecision},
        ids::MessageKey,
        job::Job,
        message::{Parties, Sighting},
        policy::Policy,
    },
    mail::{Automatic, HeaderSummary, MessageId},
    store::{Error, PolicyStamp, Session, TextHasher, Tx},
};

pub(super) async fn decide(
    tx: &mut Tx,
    policy: &Policy,
    arrival: &Arrival<'_>,
    message: MessageKey,
) -> Result<(), Error> {
    let seen_at = arrival.sightings.iter().find_map(|sighting| match sighting {
        Sighting::Account(at) => Some(at.clone()),
        _ => None,
    });
    let hashes = hashes_of_arrival(&tx.text_hasher().await?, arrival);
    let decision = NewDecision {
        ruling: arrival.ruling.clone(),
        via: arrival.via,
        message: Some(message),
        seen_at,
        // What is filed everybody may be told of.
        user: None,
        written_at: Some(super::sent_at(arrival)),
        hashes,
    };
    tx.decide(&decision, stamp(policy), arrival.received_at).await.map(drop)
}

/// Mail that a user passed on is found by his address as well, which is not among its people, and by the id of the original.
fn hashes_of_arrival(key: &TextHasher, arrival: &Arrival<'_>) -> Vec<DecisionHash> {
    let hashed = |role, text: &str| DecisionHash { role, hash: key.hash(text) };
    let mut hashes = Vec::new();
    if let Some(forwarding) = &arrival.forwarded {
        hashes.extend(forwarding.original.iter().map(|id| hashed(HashRole::Id, id.as_str())));
        hashes.push(hashed(HashRole::Address, forwarding.by.party.address.key()));
    }
    hashes.extend(hashes_of(key, &arrival.message.summary, &arrival.parties));
    hashes.sort_by_key(|hash| hash.hash);
    hashes.dedup_by_key(|hash| hash.hash);
    hashes
}

/// The policy as decisions name it.
pub(in crate::flow) fn stamp(policy: &Policy) -> PolicyStamp<'_> {
    PolicyStamp { preset: &policy.preset, version: policy.version }
}

/// The keyed hashes by which a decision about this mail is found.
pub(in crate::flow) async fn decision_hashes(
    session: &mut Session,
    summary: &HeaderSummary,
    parties: &Parties,
) -> Result<Vec<DecisionHash>, Error> {
    Ok(hashes_of(&session.text_hasher().await?, summary, parties))
}

/// The same with a key that is in hand.
pub(in crate::flow) fn hashes_of(
    key: &TextHasher,
    summary: &HeaderSummary,
    parties: &Parties,
) -> Vec<DecisionHash> {
    let hashed = |role, text: &str| DecisionHash { role, hash: key.hash(text) };
    let own = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let mut hashes: Vec<_> = own.map(|id| hashed(HashRole::Id, id.as_str())).collect();
    let named = summary.in_reply_to.iter().chain(&summary.references);
    hashes.extend(named.map(|id| hashed(HashRole::Reference, id.as_str())));
    // First: of an address that is there twice, what was said first stays. What a machine answers for somebody has no author.
    let authors = parties.from.iter().filter(|_| summary.automatic == Automatic::No);
    hashes.extend(authors.map(|party| hashed(HashRole::Author, party.address.key())));
    hashes.extend(parties.addresses().map(|address| hashed(HashRole::Address, address.key())));
    hashes.sort_by_key(|hash| hash.hash);
    hashes.dedup_by_key(|hash| hash.hash);
    hashes
}

/// Mail skipped before it was known to belong (the Sent copy of what is captured now, the answer that overtook it) is
/// fetched again: this message's ids name it, or it names them.
pub(super) async fn recall_skipped(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<(), Error> {
    let summary = &arrival.message.summary;
    let own = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let ids = own.chain(&summary.in_reply_to).chain(&summary.references);
    recall_named(tx, ids, arrival.received_at).await
}

/// The same of mail that bears one of these ids or names one.
pub(in crate::flow) async fn recall_named(
    tx: &mut Tx,
    ids: impl Iterator<Item = &MessageId>,
    now: Timestamp,
) -> Result<(), Error> {
    let key = tx.text_hasher().await?;
    let ids: Vec<_> = ids.map(|id| key.hash(id.as_str())).collect();
    for (account, decision) in tx.skipped_with_ids(&ids).await? {
        let errand = Job::Refetch { account, decision };
        // Those of an account that is not worked rest, and each message of a conversation would add the same ones.
        if !tx.is_waiting(&errand).await? {
            tx.enqueue_job(&errand, now).await?;
        }
    }
    Ok(())
}
