//! Writes down what was decided about mail that is left out, and tells who asked for it.
//!
//! Not here: deciding (`judge`), and the decision of what is filed (`flow::ingest`).

use jiff::Timestamp;

use super::{
    connection::{Connection, Wire},
    consume::{Part, Writing},
    headers::Seen,
    judge,
};
use crate::{
    core::{
        decision::{NewDecision, Ruling, Verdict},
        event::{Event, MESSAGE_SKIPPED},
        ids::DecisionId,
        job::Job,
        policy,
        sync_plan::{Way, is_news},
    },
    flow::{FlowError, ingest},
    imap::Uid,
    store::{self, TextHasher, Tx},
};

impl<S: Wire> Connection<'_, S> {
    /// Writes down what is left out. It comes first: what is filed after it finds what belongs to it and has it fetched.
    pub(super) async fn leave(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        now: Timestamp,
    ) -> Result<(), FlowError> {
        let Part { left, lost, unreadable, .. } = writing.part;
        if left.is_empty() && lost.is_empty() && unreadable.is_empty() {
            return Ok(());
        }
        let hasher = tx.text_hasher().await?;
        // A capture may have been filed since we judged, and found no decision of ours to recall. Now nobody else files.
        let seen: Vec<&Seen> = left.iter().map(|(seen, _)| seen).collect();
        let again = judge::rulings(tx, self.bench(), &seen).await?;
        let mut skipped = Vec::new();
        for ((seen, ruling), (today, _)) in left.iter().zip(again) {
            let id = self.decide(tx, writing, (seen.uid, Some((seen, &hasher))), (ruling, now)).await?;
            if today.verdict == Verdict::Synced {
                tx.enqueue_job(&Job::Refetch { account: self.account, decision: id }, now).await?;
            } else {
                skipped.push((id, ruling.rule, seen.internal_date));
            }
        }
        for (seen, ruling) in lost {
            skipped.push(self.decide_seen(tx, writing, (seen, &hasher), (ruling, now)).await?);
        }
        for uid in unreadable {
            let ruling = policy::unreadable();
            let id = self.decide(tx, writing, (*uid, None), (&ruling, now)).await?;
            skipped.push((id, ruling.rule, None));
        }
        self.tell_skipped(tx, writing.way, &skipped, now).await
    }

    /// Tells who asked for it of mail left out, when it is new: what lay there before is no event, as with all other mail.
    pub(super) async fn tell_skipped(
        &self,
        tx: &mut Tx,
        way: Way,
        skipped: &[(DecisionId, &'static str, Option<Timestamp>)],
        now: Timestamp,
    ) -> Result<(), FlowError> {
        let news = skipped.iter().filter(|(_, _, date)| is_news(way, *date, self.connected_at, now));
        let account = Some(self.account);
        let events: Vec<Event> = news
            .map(|(decision, rule, _)| Event::MessageSkipped {
                decision: *decision,
                account,
                rule: (*rule).to_owned(),
            })
            .collect();
        if !events.is_empty() && tx.is_asked_for(MESSAGE_SKIPPED).await? {
            tx.announce_all(&events, now).await?;
        }
        Ok(())
    }

    /// The same of a message whose header was read; with what is told of it.
    pub(super) async fn decide_seen(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        (seen, hasher): (&Seen, &TextHasher),
        (ruling, now): (&Ruling, Timestamp),
    ) -> Result<(DecisionId, &'static str, Option<Timestamp>), store::Error> {
        let id = self.decide(tx, writing, (seen.uid, Some((seen, hasher))), (ruling, now)).await?;
        Ok((id, ruling.rule, seen.internal_date))
    }

    async fn decide(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        (uid, seen): (Uid, Option<(&Seen, &TextHasher)>),
        (ruling, now): (&Ruling, Timestamp),
    ) -> Result<DecisionId, store::Error> {
        let hashes = seen.map(|(seen, hasher)| ingest::hashes_of(hasher, &seen.summary, &seen.parties));
        let written_at = |seen: &Seen| {
            ingest::written_at(&seen.summary, seen.internal_date.map_or(now, |date| date.min(now)))
        };
        let decision = NewDecision {
            ruling: ruling.clone(),
            via: "account",
            message: None,
            seen_at: Some(self.place(writing.name, writing.uid_validity, uid)),
            user: Some(self.user),
            written_at: seen.map(|(seen, _)| written_at(seen)),
            hashes: hashes.unwrap_or_default(),
        };
        tx.decide(&decision, ingest::stamp(&self.policy), now).await
    }
}
