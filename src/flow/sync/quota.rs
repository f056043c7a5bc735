//! Mail of an account at its user's limits: what is more than may be synced is put off or left, by policy, and what the user
//! sent by hand is counted to his budget for sending.
//!
//! What is put off has a decision that knows where it lies, and a job of the account that has it fetched when there is room
//! (`take_up`); so the cursor may pass it. Not here: counting (`flow::limits`).

use jiff::{SignedDuration, Timestamp};

use super::{
    connection::{Connection, Wire},
    consume::{Whole, Writing},
    headers::Seen,
    sent_by_hand,
};
use crate::{
    core::{
        account::MailboxUid,
        decision::Ruling,
        ids::{AccountId, MessageKey},
        inbound::Principal,
        job::Job,
        policy::{self, settings::OverSync},
    },
    flow::{
        FlowError, Gateway,
        ingest::{self, Ingested},
        limits::{Purse, history_rests_until},
        now,
    },
    mail::MessageId,
    queue::{Leased, Settlement},
    store::{Error, Session, Tx},
};

/// Errands handed out at once.
const ERRANDS_MAX: u32 = 100;
/// How soon it is looked again whether those are done and more can be handed out.
const SOON: SignedDuration = SignedDuration::from_secs(5);
/// How long what is put off rests for an account that is not worked.
const REST: SignedDuration = SignedDuration::from_hours(1);

/// What may still be synced, as messages are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room(Option<u64>);

impl Room {
    pub(super) async fn of(session: &mut Session, purse: &Purse) -> Result<Self, Error> {
        Ok(Self(purse.sync_room(session).await?.map(|(left, _)| left)))
    }

    pub(super) fn is_full(self) -> bool {
        self.0 == Some(0)
    }

    pub(super) fn take(&mut self) {
        self.0 = self.0.map(|left| left.saturating_sub(1));
    }
}

impl<S: Wire> Connection<'_, S> {
    pub(super) async fn room(&self, session: &mut Session) -> Result<Room, Error> {
        let purse = Purse::of(session, self.user, now()).await?;
        Room::of(session, &purse).await
    }

    /// Whether history has to wait: the provider has asked for peace, by whatever of ours it said so to, it will soon have let as much
    /// be read as it does in a day, today's room is used, or mail that was put off comes first.
    pub(super) async fn history_waits(&self) -> Result<bool, Error> {
        let mut session = self.read().await?;
        let (account, now) = (session.account(self.account).await?, now());
        if let Some(account) = account
            && (account.rests_until(now).is_some()
                || history_rests_until(&mut session, &account, now).await?.is_some())
        {
            return Ok(true);
        }
        let room = self.room(&mut session).await?;
        Ok(room.is_full()
            || (room.0.is_some() && !session.decisions_deferred(self.account, 1).await?.is_empty()))
    }

    /// Whether a message that bears its Message-ID is here already: a copy of it takes no room.
    pub(super) async fn is_known(&self, session: &mut Session, seen: &Seen) -> Result<bool, Error> {
        let ids: Vec<MessageId> = ids_of(seen).cloned().collect();
        Ok(!ids.is_empty() && !session.messages_by_rfc822_id(&ids).await?.is_empty())
    }

    /// Files what belongs as far as there is room, puts off the rest, and counts both that and what was sent by hand. True
    /// when something that belongs was met, be it a copy of what was here.
    pub(super) async fn file_within_limits(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        now: Timestamp,
    ) -> Result<bool, FlowError> {
        let part = writing.part;
        let purse = Purse::of(tx, self.user, now).await?;
        let mut room = Room::of(tx, &purse).await?;
        let (mut filed, mut met, mut over, mut out) = (0, false, Vec::new(), Vec::new());
        let mut by_hand = sent_by_hand::Candidates::new(writing, now);
        for whole in &part.filed {
            let arrival = self.arrival(whole, (writing.way, writing.uid_validity), writing.name, now);
            if let Some(ruling) = whole.left_out.as_ref()
                && ingest::original_of(tx, &arrival).await?.is_none()
            {
                out.push((&whole.seen, ruling));
                continue;
            }
            // Others may have used the room since we looked.
            if room.is_full() && !takes_no_room(whole) && !self.is_known(tx, &whole.seen).await? {
                over.push(&whole.seen);
                tx.leave_sealed(&whole.bytes);
                continue;
            }
            met = true;
            match self.ingest(tx, whole, arrival).await? {
                Ingested::Filed(_) => {
                    filed += 1;
                    room.take();
                    by_hand.add(&whole.seen);
                }
                Ingested::Known { message, .. } => {
                    tx.leave_sealed(&whole.bytes);
                    if by_hand.wants(&whole.seen) && !is_ours(tx, message).await? {
                        by_hand.add(&whole.seen);
                    }
                }
            }
        }
        over.extend(&part.put_off);
        self.put_off(tx, writing, (&over, room), (&purse, now)).await?;
        self.leave_out(tx, writing, &out, now).await?;
        over.extend(part.left.iter().chain(&part.lost).map(|(seen, _)| seen));
        over.extend(out.iter().map(|(seen, _)| seen));
        over.into_iter().for_each(|seen| by_hand.add_unread(seen));
        purse.count_synced(tx, filed).await?;
        by_hand.count(tx, (self.user, self.account), (&purse, now)).await?;
        Ok(met)
    }

    /// Writes down what stays out for its files.
    async fn leave_out(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        out: &[(&Seen, &Ruling)],
        now: Timestamp,
    ) -> Result<(), FlowError> {
        if out.is_empty() {
            return Ok(());
        }
        let hasher = tx.text_hasher().await?;
        let mut skipped = Vec::new();
        for (seen, ruling) in out {
            skipped.push(self.decide_seen(tx, writing, (seen, &hasher), (ruling, now)).await?);
        }
        self.tell_skipped(tx, writing.way, &skipped, now).await
    }

    async fn put_off(
        &self,
        tx: &mut Tx,
        writing: Writing<'_>,
        (seen, room): (&[&Seen], Room),
        (purse, now): (&Purse, Timestamp),
    ) -> Result<(), FlowError> {
        if seen.is_empty() {
            return Ok(());
        }
        let hasher = tx.text_hasher().await?;
        // Nothing is left for good while there is room, which others may have made since we looked.
        let over = if room.is_full() { self.policy.settings.over_sync } else { OverSync::Defer };
        let ruling = policy::over_sync_limit(over);
        let mut skipped = Vec::new();
        for seen in seen {
            skipped.push(self.decide_seen(tx, writing, (seen, &hasher), (&ruling, now)).await?);
        }
        if over == OverSync::Skip {
            self.tell_skipped(tx, writing.way, &skipped, now).await?;
        }
        self.note_over_limit(tx, over, (purse, now)).await
    }

    /// Tells that the limit is reached, and sees to it that what was put off is taken up.
    async fn note_over_limit(
        &self,
        tx: &mut Tx,
        over: OverSync,
        (purse, now): (&Purse, Timestamp),
    ) -> Result<(), FlowError> {
        purse.tell_of_synced(tx).await?;
        let job = Job::TakeUp { account: self.account };
        if over == OverSync::Defer && !tx.is_waiting(&job).await? {
            let room = purse.sync_room(tx).await?;
            let at = match room {
                Some((0, again_at)) => again_at,
                // Others have made room since.
                _ => now + SOON,
            };
            tx.enqueue_job(&job, at).await?;
        }
        Ok(())
    }

    /// Sees to it that what was put off is taken up, now that the account is worked.
    pub(super) async fn resume_put_off(&self, tx: &mut Tx, now: Timestamp) -> Result<(), Error> {
        if tx.decisions_deferred(self.account, 1).await?.is_empty() {
            return Ok(());
        }
        let job = Job::TakeUp { account: self.account };
        match tx.is_waiting(&job).await? {
            true => tx.hasten_job(&job, now).await,
            false => tx.enqueue_job(&job, now).await,
        }
    }

    /// Puts off, or leaves, one message that was to be fetched again: there is no room for it now.
    pub(super) async fn defer_again(
        &self,
        mut tx: Tx,
        job: &Leased,
        (at, purse): (&MailboxUid, &Purse),
    ) -> Result<(), FlowError> {
        let (over, now) = (self.policy.settings.over_sync, now());
        tx.revise_decision(at, &policy::over_sync_limit(over), ingest::stamp(&self.policy), now).await?;
        self.note_over_limit(&mut tx, over, (purse, now)).await?;
        tx.settle(job, Settlement::Done).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether there is no room for a message that is to be fetched again.
    pub(super) async fn is_over_limit(
        &self,
        session: &mut Session,
        seen: &Seen,
        purse: &Purse,
    ) -> Result<bool, Error> {
        Ok(Room::of(session, purse).await?.is_full() && !self.is_known(session, seen).await?)
    }
}

/// A report on what was sent belongs to what is here already, and what comes in spite of its files is a copy.
fn takes_no_room(whole: &Whole) -> bool {
    whole.report.is_some() || whole.left_out.is_some()
}

/// Whether the CRM sent it. What came to a reply address and was passed on was sent by hand before.
async fn is_ours(tx: &mut Tx, message: MessageKey) -> Result<bool, Error> {
    let submission = tx.submission(message).await?;
    Ok(submission.is_some_and(|sent| !matches!(sent.principal, Principal::Participant(_))))
}

pub(super) fn ids_of(seen: &Seen) -> impl Iterator<Item = &MessageId> {
    [&seen.summary.message_id, &seen.summary.original_message_id].into_iter().flatten()
}

/// Has mail that was put off at a limit fetched, as much as there is room for today.
///
/// # Errors
/// Those of the store. `Obsolete` when the account is gone.
pub async fn take_up(gateway: &Gateway, job: &Leased, account: AccountId) -> Result<(), FlowError> {
    let now = now();
    let mut tx = gateway.store.begin(job.workspace).await?;
    let found = tx.account(account).await?.ok_or(FlowError::Obsolete)?;
    let room = Purse::of(&mut tx, found.user_id, now).await?.sync_room(&mut tx).await?;
    let deferred = tx.decisions_deferred(account, ERRANDS_MAX).await?;
    let next = match room {
        _ if deferred.is_empty() || tx.is_waiting(&job.job).await? => None,
        _ if !found.status.state.is_worked() => Some(now + REST),
        Some((0, again_at)) => Some(again_at),
        _ => Some(now + SOON),
    };
    if next == Some(now + SOON) {
        let most = room.map_or(usize::MAX, |(left, _)| usize::try_from(left).unwrap_or(usize::MAX));
        for decision in deferred.into_iter().take(most) {
            let errand = Job::Refetch { account, decision };
            if !tx.is_waiting(&errand).await? {
                tx.enqueue_job(&errand, now).await?;
            }
        }
    }
    tx.settle(job, next.map_or(Settlement::Done, Settlement::RetryAt)).await?;
    tx.commit().await?;
    Ok(())
}
