//! Takes in a batch: fetches the bodies of what belongs, then writes messages, decisions and the cursor in one transaction.
//!
//! Nothing is written while the server is waited for, and nothing of what is left out is fetched. A crash anywhere repeats
//! the batch, and what is known already is recognised. Not here: which batch (`look`, `backfill`, `reindex`).

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Failure,
    connection::{Connection, Followed, Wire, is_refusal},
    headers::Seen,
    health::{self, Tell},
    judge,
    memory::{Asked, Place},
};
use crate::{
    core::{
        account::{Backfill, Cursor, MailboxRole},
        decision::{Ruling, Verdict},
        ids::MessageKey,
        message::{Direction, Sighting},
        policy::{self, FileRule},
        sync_plan::{Way, is_news},
    },
    flow::{
        FlowError,
        ingest::{self, Announce, Arrival, Ingested, Kept, RawBytes},
        now, policy_of, reading, submit, trust,
    },
    imap::{Body, Error, MailboxName, Uid},
    mail::{HeaderBlock, Kind, Message, loop_mark},
    store::{self, Renumbering, SealedBlob, Session, Tx, mint},
};

/// Bodies gathered before they are filed.
const BODIES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a body is taken for when the server does not say how large it is.
pub(super) const BODY_BYTES_GUESS: u64 = 1024 * 1024;
/// How often a transaction is begun again because another node filed the same message at the same moment.
const RACES_MAX: usize = 5;
/// Between two reports of a backfill's progress.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// Messages to be taken in together.
pub(super) struct Batch {
    pub way: Way,
    /// Under which their UIDs are valid.
    pub uid_validity: u64,
    /// In the order in which they are to be consumed.
    pub seen: Vec<Seen>,
    pub unreadable: Vec<Uid>,
    pub renumbered: Option<Renumbered>,
    pub end: End,
}

/// Messages recognised in a mailbox whose UIDs have changed.
pub(super) struct Renumbered {
    /// The era they were known under.
    pub from: u64,
    /// Former and present UIDs.
    pub uids: Vec<(u32, u32)>,
}

/// What the mailbox's row says when a batch is consumed.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Cursor(Cursor),
    Backfill(Backfill),
    Nothing,
}

/// A message that belongs, whole.
pub(super) struct Whole {
    pub seen: Seen,
    pub ruling: Ruling,
    pub direction: Direction,
    pub message: Message,
    /// Its bytes; none where it is left out. A file that is written for what turns out to be a copy is swept.
    pub bytes: SealedBlob,
    /// For its files it stays out, unless it turns out to be a copy of what is here already.
    pub left_out: Option<Ruling>,
    /// The message that this is a copy of, passed on by us to somebody whose mailbox it lies in.
    pub passed_on: Option<MessageKey>,
    /// Attachments whose content policy kept out of the bytes.
    pub omitted: Vec<(usize, FileRule)>,
    /// The bytes once more when it is a delivery report: what it is about is looked up when it is filed.
    pub report: Option<Bytes>,
}

/// What asking for a body came to.
pub(super) enum Fetched {
    Whole(Bytes),
    Not(Ruling),
}

/// What is committed together.
#[derive(Default)]
pub(super) struct Part {
    pub filed: Vec<Whole>,
    /// Left out by policy.
    pub left: Vec<(Seen, Ruling)>,
    /// Belongs, but is more than the user may have synced now.
    pub put_off: Vec<Seen>,
    /// Would belong, but cannot be had.
    pub lost: Vec<(Seen, Ruling)>,
    pub unreadable: Vec<Uid>,
    /// Identities of what was left out and proves copies that are kept aside.
    proofs: Vec<[u8; 32]>,
    renumbered: Option<Renumbered>,
    bytes: usize,
    /// The room that the bodies take.
    room: Vec<OwnedSemaphorePermit>,
    last: Option<Uid>,
    count: u64,
}

impl Part {
    fn note(&mut self, uid: Uid) {
        self.last = Some(uid);
        self.count += 1;
    }
}

impl<S: Wire> Connection<'_, S> {
    /// Takes in a batch, in as many parts as its bodies need.
    pub(super) async fn consume(&mut self, mailbox: &mut Followed, mut batch: Batch) -> Result<(), Failure> {
        let seen = self.without_known(&mailbox.name, &mut batch).await?;
        self.consumed += seen.len() as u64;
        let rulings = self.judge(&seen).await?;
        let mut room = self.room(&mut self.read().await?).await?;
        let context = (batch.way, batch.uid_validity);
        let mut part = Part { unreadable: batch.unreadable, renumbered: batch.renumbered, ..Part::default() };
        for (seen, (ruling, direction)) in seen.into_iter().zip(rulings) {
            let uid = seen.uid;
            let opens = ruling.verdict != Verdict::Synced && self.may_report_on_us(&seen).await?;
            if ruling.verdict != Verdict::Synced && !opens {
                let place = (&mailbox.name, batch.uid_validity);
                part.proofs.extend(self.proof(place, &seen, &ruling).await?);
                part.left.push((seen, ruling));
                part.note(uid);
                continue;
            }
            if room.is_full() && !opens && !self.is_known(&mut self.read().await?, &seen).await? {
                // What is in hand may turn out to take no room, or others may have made some.
                if !part.filed.is_empty() {
                    self.commit_so_far(mailbox, context, (&mut part, batch.end)).await?;
                    room = self.room(&mut self.read().await?).await?;
                }
                if room.is_full() {
                    part.put_off.push(seen);
                    part.note(uid);
                    continue;
                }
            }
            let bytes = seen.size.unwrap_or(BODY_BYTES_GUESS).min(self.gateway.settings.message_bytes_max);
            match self.gateway.followers.room_now(bytes).filter(|_| part.bytes < BODIES_BYTES_MAX) {
                Some(room) => part.room.push(room),
                None => {
                    self.commit_so_far(mailbox, context, (&mut part, batch.end)).await?;
                    // A chunk of large mail may be more than the provider lets be read: what is left of it is read later.
                    if batch.way == Way::Backfill && self.history_waits().await? {
                        return Ok(());
                    }
                    part.room.push(self.gateway.followers.room(bytes).await);
                }
            }
            match self.body((&mailbox.name, batch.uid_validity), &seen).await? {
                Fetched::Not(_) if opens => part.left.push((seen, ruling)),
                Fetched::Whole(raw) if opens && !self.reports_on_us(&seen, &raw).await? => {
                    part.left.push((seen, ruling));
                }
                Fetched::Not(ruling) => part.lost.push((seen, ruling)),
                Fetched::Whole(raw) => {
                    part.bytes = part.bytes.saturating_add(raw.len());
                    let ruling = if opens { policy::delivery_report() } else { ruling };
                    part.filed.push(self.whole(seen, (ruling, direction), raw).await?);
                    room.take();
                }
            }
            part.note(uid);
        }
        self.commit(mailbox, context, part, batch.end).await
    }

    /// What is known at its very place needs no second look: a Sent copy of ours, or what was read before a crash.
    async fn without_known(&self, name: &MailboxName, batch: &mut Batch) -> Result<Vec<Seen>, Failure> {
        let seen = std::mem::take(&mut batch.seen);
        let uids: Vec<u32> = seen.iter().map(|message| message.uid.get()).collect();
        let (account, name, validity) = (self.account, name.as_bytes(), batch.uid_validity);
        let mut session = self.read().await?;
        let mut known = session.sightings_by_uids(account, name, validity, &uids).await?;
        if batch.way != Way::Live {
            known.extend(session.decided_uids(account, name, validity, &uids).await?);
        }
        Ok(seen.into_iter().filter(|message| !known.contains(&message.uid.get())).collect())
    }

    /// What a message that is left out says, if it lies in Sent and a copy that bears its id is kept aside: that copy is the
    /// user's own if it says the same. One at a time, and nothing of it is kept. What policy keeps out by a rule of its own is not
    /// looked into.
    pub(super) async fn proof(
        &mut self,
        place: Place<'_>,
        seen: &Seen,
        ruling: &Ruling,
    ) -> Result<Option<[u8; 32]>, Failure> {
        let id = seen.summary.message_id.as_ref();
        if !seen.is_sent || !policy::MAY_BEGIN.contains(&ruling.rule) {
            return Ok(None);
        }
        let mut session = self.read().await?;
        if !trust::awaits_proof(&mut session, id).await? || !self.is_by_its_user(&mut session, seen).await? {
            return Ok(None);
        }
        drop(session);
        Ok(match self.body(place, seen).await? {
            Fetched::Whole(raw) => Some(ingest::wording(&reading::read(&raw).await)),
            Fetched::Not(_) => None,
        })
    }

    /// Whether From is the user's whose mailbox it lies in: what he puts into his Sent mailbox in another's name proves nothing.
    async fn is_by_its_user(&self, session: &mut Session, seen: &Seen) -> Result<bool, store::Error> {
        let Some(author) = seen.summary.author() else { return Ok(false) };
        let user = session.user_by_address(&author.address).await?;
        Ok(user.map_or(author.address == self.address, |user| user.id == self.user))
    }

    /// Judges messages by the policy of this moment.
    pub(super) async fn judge(&mut self, seen: &[Seen]) -> Result<Vec<(Ruling, Direction)>, Failure> {
        let mut session = self.read().await?;
        self.refresh_policy(&mut session).await?;
        let seen: Vec<&Seen> = seen.iter().collect();
        Ok(judge::rulings(&mut session, self.bench(), &seen).await?)
    }

    /// Fetches a body. A message that fails again and again is given up, lest it block all that follow.
    pub(super) async fn body(&mut self, place: Place<'_>, seen: &Seen) -> Result<Fetched, Failure> {
        if self.memory.is_given_up(Asked::Body, place, seen.uid) {
            self.memory.forget_failures(Asked::Body, place, &[seen.uid]);
            return Ok(Fetched::Not(policy::unreadable()));
        }
        let bytes_max = self.gateway.settings.message_bytes_max;
        let fetched = match self.client.fetch_body(seen.uid, seen.size, bytes_max).await {
            Ok(Body::Message(raw)) => Fetched::Whole(raw),
            Ok(Body::Missing | Body::Placeholder) => Fetched::Not(policy::unreadable()),
            Err(Error::TooLarge { .. }) => Fetched::Not(policy::too_large()),
            Err(error) if is_refusal(&error) => Fetched::Not(policy::unreadable()),
            Err(error) => {
                self.memory.note_failure(Asked::Body, place, seen.uid);
                return Err(error.into());
            }
        };
        self.memory.forget_failures(Asked::Body, place, &[seen.uid]);
        Ok(fetched)
    }

    /// Reads and seals a message, without the files that policy keeps out. All of it takes time in which nobody else should have to wait, so no transaction is begun yet.
    pub(super) async fn whole(
        &self,
        seen: Seen,
        (ruling, direction): (Ruling, Direction),
        raw: Bytes,
    ) -> Result<Whole, store::Error> {
        let (store, workspace) = (&self.gateway.store, self.workspace);
        let message = reading::read(&raw).await;
        let passed_on = self.passed_on(&raw);
        let (Kept { raw, omitted }, left_out) = match ingest::keep(&self.policy.settings, &message, raw) {
            Ok(kept) => (kept, None),
            // Whether it is a copy is told by the message, not by its bytes.
            Err(ruling) => (Kept { raw: Bytes::new(), omitted: Vec::new() }, Some(ruling)),
        };
        let bytes = match store.content_key(workspace, Some(self.account)).await {
            Ok(key) => store.seal_blob(workspace, key, &raw).await,
            Err(error) => Err(error),
        };
        // Without its key it is erased, and no more ours to work.
        let bytes = bytes.map_err(|error| match error {
            store::Error::Missing => store::Error::Fenced,
            other => other,
        })?;
        let report = (message.kind == Kind::Bounce).then_some(raw);
        Ok(Whole { seen, ruling, direction, message, bytes, left_out, passed_on, omitted, report })
    }

    async fn commit_so_far(
        &mut self,
        mailbox: &mut Followed,
        context: (Way, u64),
        (part, end): (&mut Part, End),
    ) -> Result<(), Failure> {
        let end = end.after(mailbox, part);
        self.commit(mailbox, context, std::mem::take(part), end).await
    }

    async fn commit(
        &mut self,
        mailbox: &mut Followed,
        (way, uid_validity): (Way, u64),
        part: Part,
        end: End,
    ) -> Result<(), Failure> {
        let told = self.progress_told.is_some_and(|at| at.elapsed() < PROGRESS_PAUSE);
        let tell = if told { Tell::EndOnly } else { Tell::Progress };
        for _ in 0..RACES_MAX {
            let writing = Writing {
                name: &mailbox.name,
                role: mailbox.role,
                way,
                uid_validity,
                part: &part,
                end,
                tell,
            };
            match Box::pin(self.try_commit(writing)).await {
                Err(FlowError::Raced) => {}
                Err(error) => return Err(error.into()),
                Ok((at, octets)) => {
                    self.octets_counted = octets;
                    mailbox.note(end, at);
                    if matches!(end, End::Backfill(_)) && !told {
                        self.progress_told = Some(Instant::now());
                    }
                    return Ok(());
                }
            }
        }
        Err(Failure::Anew)
    }

    /// When it was, and how many octets of this session are counted by now.
    async fn try_commit(&self, writing: Writing<'_>) -> Result<(Timestamp, u64), FlowError> {
        let Writing { name, part, end, .. } = writing;
        let mut tx = self.begin().await?;
        tx.lock_filing().await?;
        // A policy that was changed while bodies were fetched holds for what is not filed yet.
        if policy_of(&mut tx, Some(self.user)).await? != self.policy {
            return Err(FlowError::Obsolete);
        }
        // Not before the lock: whoever waits for it over midnight files on the new day.
        let now = now();
        if let Some(Renumbered { from, uids }) = &part.renumbered {
            let mailbox = name.as_bytes();
            let to = writing.uid_validity;
            let renumbering = Renumbering { account: self.account, mailbox, from: *from, to, uids };
            tx.rebind_uid_validity(&renumbering).await?;
        }
        self.leave(&mut tx, writing, now).await?;
        for wording in &part.proofs {
            trust::corroborate(&mut tx, wording).await?;
        }
        if Box::pin(self.file_within_limits(&mut tx, writing, now)).await? {
            health::note_filed(&mut tx, self.account, now).await?;
        }
        match end {
            End::Cursor(cursor) => {
                tx.advance_cursor(self.account, name.as_bytes(), &cursor, now).await?;
                health::recover(&mut tx, self.gateway, self.account, writing.tell).await?;
            }
            End::Backfill(backfill) => {
                tx.set_backfill(self.account, name.as_bytes(), &backfill).await?;
                health::settle(&mut tx, self.gateway, self.account, writing.tell).await?;
            }
            End::Nothing => {}
        }
        let octets = self.count_octets(&mut tx, now).await?;
        tx.commit().await?;
        Ok((now, octets))
    }

    pub(super) fn arrival<'a>(
        &'a self,
        whole: &'a Whole,
        (way, uid_validity): (Way, u64),
        name: &MailboxName,
        now: Timestamp,
    ) -> Arrival<'a> {
        let seen = &whole.seen;
        let is_news = is_news(way, seen.internal_date, self.connected_at, now);
        Arrival {
            key: mint(),
            message: &whole.message,
            parties: self.gateway.settings.ours.parties(&whole.message.summary),
            bytes: RawBytes::Sealed(&whole.bytes),
            sightings: vec![Sighting::Account(self.place(name, uid_validity, seen.uid))],
            received_at: now,
            internal_date: seen.internal_date,
            ruling: whole.ruling.clone(),
            via: "account",
            extra_nodes: seen.nodes.clone(),
            proven: Vec::new(),
            passed_on: whole.passed_on,
            omitted: &whole.omitted,
            captured: false,
            copied_for: is_news.then_some(self.user),
            is_sent: seen.is_sent,
            forwarded: None,
            announce: if is_news {
                Announce::Now(ingest::event_for(whole.direction))
            } else {
                Announce::Never
            },
            account: Some(self.account),
            own: Some((&self.address, self.user)),
            known: None,
        }
    }

    /// The message that our own mark names.
    fn passed_on(&self, raw: &Bytes) -> Option<MessageKey> {
        let marked = loop_mark::marked(&HeaderBlock::scan(raw), &self.gateway.settings.loop_key);
        marked.and_then(|message| message.parse().ok())
    }

    /// Files a message, and tells what came back if it is a report on that.
    pub(super) async fn ingest(
        &self,
        tx: &mut Tx,
        whole: &Whole,
        mut arrival: Arrival<'_>,
    ) -> Result<Ingested, FlowError> {
        let returned = self.returned(tx, whole).await?;
        arrival.proven.extend(returned.as_ref().map(|returned| returned.conversation));
        let (received_at, wording) = (arrival.received_at, ingest::wording(arrival.message));
        let filing = ingest::ingest(tx, &self.gateway.settings.ours, &self.policy, arrival);
        let ingested = Box::pin(filing).await?;
        if let Some(returned) = &returned {
            submit::record_returned(tx, returned, received_at).await?;
        }
        if whole.seen.is_sent && self.is_by_its_user(tx, &whole.seen).await? {
            tx.note_sent_wording(ingested.key(), &wording).await?;
            trust::corroborate(tx, &wording).await?;
        }
        Ok(ingested)
    }
}

/// One transaction's worth, and where it comes from.
#[derive(Clone, Copy)]
pub(super) struct Writing<'a> {
    pub name: &'a MailboxName,
    pub role: MailboxRole,
    pub way: Way,
    pub uid_validity: u64,
    pub part: &'a Part,
    end: End,
    tell: Tell,
}

impl End {
    /// The same when only a part of the batch has been consumed.
    fn after(self, mailbox: &Followed, part: &Part) -> Self {
        let Some(last) = part.last else { return Self::Nothing };
        match self {
            Self::Cursor(_) => Self::Cursor(Cursor { last_uid: last.get(), ..mailbox.cursor }),
            Self::Backfill(_) => Self::Backfill(Backfill {
                next_uid: last.get(),
                done: mailbox.backfill.done.saturating_add(part.count),
                ..mailbox.backfill
            }),
            Self::Nothing => Self::Nothing,
        }
    }
}

impl Followed {
    fn note(&mut self, end: End, at: Timestamp) {
        match end {
            End::Cursor(cursor) => {
                self.cursor = cursor;
                self.checked_at = at;
            }
            End::Backfill(backfill) => self.backfill = backfill,
            End::Nothing => {}
        }
    }
}
