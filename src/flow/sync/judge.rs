//! Judges a batch of headers with a handful of questions to the store, not one for each message.
//!
//! Not here: the rules (`core::policy`).

use std::collections::HashSet;

use super::headers::Seen;
use crate::{
    core::{
        attribution::{self, Attribution, OurDomains},
        decision::{Ruling, Verdict},
        message::Direction,
        policy::{self, MailboxFacts, Policy},
        threading::ThreadKey,
    },
    flow::ingest,
    mail::Address,
    store::{Error, Session},
};

/// What becomes of each message, in the order given, with its direction.
pub(super) async fn rulings(
    session: &mut Session,
    (ours, policy): (&OurDomains, &Policy),
    seen: &[&Seen],
) -> Result<Vec<(Ruling, Direction)>, Error> {
    let mut people: Vec<Address> =
        seen.iter().flat_map(|message| message.parties.addresses().cloned()).collect();
    people.sort_unstable();
    people.dedup();
    let known = ingest::known_among(session, &people).await?;
    let who: Vec<Attribution> =
        seen.iter().map(|message| attribution::attribute(&message.parties, &known, ours)).collect();
    let keys: Vec<Vec<ThreadKey>> =
        seen.iter().zip(&who).map(|(message, who)| open_keys(policy, message, who)).collect();
    let asked: Vec<[u8; 16]> = keys.iter().flat_map(|keys| ingest::bytes_of(keys)).collect();
    let found = session.thread_keys_known(&asked).await?;
    let judged = seen.iter().zip(&who).zip(&keys).map(|((message, who), keys)| {
        let thread_known = is_any(&found, keys);
        (judge(policy, message, who, thread_known), who.direction)
    });
    Ok(judged.collect())
}

/// The thread keys of a message whose fate depends on them; most messages' does not.
fn open_keys(policy: &Policy, message: &Seen, who: &Attribution) -> Vec<ThreadKey> {
    let verdict = |thread_known| judge(policy, message, who, thread_known).verdict;
    if verdict(false) == verdict(true) || verdict(false) == Verdict::Synced {
        return Vec::new();
    }
    ingest::keys_of_summary(&message.summary, &message.nodes, &message.parties, who)
}

fn is_any(found: &HashSet<[u8; 16]>, keys: &[ThreadKey]) -> bool {
    keys.iter().any(|key| found.contains(&key.0))
}

fn judge(policy: &Policy, message: &Seen, attribution: &Attribution, thread_known: bool) -> Ruling {
    policy::judge_mailbox(policy, MailboxFacts { attribution, thread_known, is_draft: message.is_draft })
}
