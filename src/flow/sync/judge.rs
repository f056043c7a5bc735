//! Judges a batch of headers with a handful of questions to the store, not one for each message.
//!
//! Not here: the rules (`core::policy`), and who answered whom (`exchange`).

use std::collections::HashSet;

use jiff::Timestamp;

use super::{exchange::Exchange, headers::Seen, tenancy};
use crate::{
    core::{
        attribution::{self, Attribution, Known, OurDomains},
        decision::{Ruling, Verdict},
        ids::{AccountId, UserId},
        message::Direction,
        policy::{self, MailboxFacts, Policy, Traits, settings::InternalRule},
        threading::ThreadKey,
    },
    flow::ingest,
    mail::Address,
    store::{Error, Session},
};

/// Whose mail is judged, and by what.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub ours: &'a OurDomains,
    pub policy: &'a Policy,
    pub account: AccountId,
    pub user: UserId,
    /// Of what the provider took in before, nothing comes in.
    pub horizon: Timestamp,
    /// Of the traces in mail that the gateway sent.
    pub secret: &'a [u8; 32],
}

/// What is known beside a message's own header: the same for the whole batch.
struct Around {
    known: Known,
    /// Addresses of other accounts of the workspace.
    others: HashSet<Address>,
    exchange: Exchange,
}

/// What becomes of each message, in the order given, with its direction.
pub(super) async fn rulings(
    session: &mut Session,
    bench: Bench<'_>,
    seen: &[&Seen],
) -> Result<Vec<(Ruling, Direction)>, Error> {
    let around = look_around(session, bench, seen).await?;
    let who: Vec<Attribution> = seen
        .iter()
        .map(|message| attribution::attribute(&message.parties, &around.known, bench.ours))
        .collect();
    let elsewhere = tenancy::elsewhere(session, bench, seen).await?;
    let facts: Vec<MailboxFacts<'_>> = seen
        .iter()
        .zip(&who)
        .zip(elsewhere)
        .map(|((message, who), elsewhere)| MailboxFacts { elsewhere, ..around.facts(bench, message, who) })
        .collect();
    let keys: Vec<Vec<ThreadKey>> =
        seen.iter().zip(&facts).map(|(message, facts)| open_keys(bench.policy, message, *facts)).collect();
    let asked: Vec<[u8; 16]> = keys.iter().flat_map(|keys| ingest::bytes_of(keys)).collect();
    let found = session.thread_keys_known(&asked).await?;
    let judged = facts.iter().zip(&keys).map(|(facts, keys)| {
        let thread_known = keys.iter().any(|key| found.contains(&key.0));
        let ruling = policy::judge_mailbox(bench.policy, MailboxFacts { thread_known, ..*facts });
        (ruling, facts.attribution.direction)
    });
    Ok(judged.collect())
}

async fn look_around(session: &mut Session, bench: Bench<'_>, seen: &[&Seen]) -> Result<Around, Error> {
    let settings = &bench.policy.settings;
    let mut people: Vec<Address> =
        seen.iter().flat_map(|message| message.parties.addresses().cloned()).collect();
    people.sort_unstable();
    people.dedup();
    let known = ingest::known_among(session, &people, settings).await?;
    let others = match settings.internal_rule {
        InternalRule::AnyParticipantAccount => session.other_accounts_at(bench.account, &people).await?,
        _ => HashSet::new(),
    };
    let exchange = Exchange::look(session, bench, &known, seen).await?;
    Ok(Around { known, others, exchange })
}

impl Around {
    fn facts<'a>(&self, bench: Bench<'_>, message: &Seen, attribution: &'a Attribution) -> MailboxFacts<'a> {
        let traits = traits(message, &self.others, (&self.exchange, &self.known));
        let is_before = message.internal_date.is_some_and(|date| date < bench.horizon);
        MailboxFacts::of(bench.user, attribution, &self.known, Traits { is_before, ..traits })
    }
}

/// What is found out about a message, by the addresses of other accounts of the workspace and by who answered whom.
pub(super) fn traits(
    message: &Seen,
    others: &HashSet<Address>,
    (exchange, known): (&Exchange, &Known),
) -> Traits {
    let parties = &message.parties;
    let mut named = [&parties.from, &parties.to, &parties.cc].into_iter().flatten();
    Traits {
        is_draft: message.is_draft,
        is_sent: message.is_sent,
        is_before: false,
        other_account: named.any(|party| others.contains(&party.address)),
        answers_user: exchange.answers(message),
        answered: exchange.is_answered(message, known),
    }
}

/// The thread keys of a message whose fate depends on them; most messages' does not.
fn open_keys(policy: &Policy, message: &Seen, facts: MailboxFacts<'_>) -> Vec<ThreadKey> {
    let verdict =
        |thread_known| policy::judge_mailbox(policy, MailboxFacts { thread_known, ..facts }).verdict;
    if verdict(false) == verdict(true) || verdict(false) == Verdict::Synced {
        return Vec::new();
    }
    ingest::keys_of_summary(&message.summary, &message.nodes, &message.parties, facts.attribution)
}
