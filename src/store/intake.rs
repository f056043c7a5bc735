//! Taking messages in: many listeners' messages are written in one transaction, and each listener is answered when it
//! is durable.
//!
//! Not here: reading the message. A `Job::Process` is committed with it, and the 250 waits for nothing else.

use std::{
    collections::HashSet,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{Arg, Error, ORDER_KEY_USED, SealedBlob, Session, Store, System, Tx, sql};
use crate::core::{
    ids::{MessageKey, WorkspaceId},
    inbound::{Door, Intake, OrderKey},
    job::{Job, JobKind},
};

/// Messages in one transaction.
const BATCH_MESSAGES_MAX: usize = 64;
/// Messages waiting for the next transaction. Each holds up to `BLOB_INLINE_BYTES_MAX`, so 16 MiB at most.
const WAITING_MAX: usize = 64;
/// With fewer at work than this, nobody waits for the others.
const GATHERED_MIN: usize = 8;
/// How long a batch waits for the others at work; about what a flush takes.
const GATHER_TIME_MAX: Duration = Duration::from_millis(1);
/// Rows of one insert. Few sizes, so that each statement is prepared once and then found again.
const ROWS_AT_ONCE: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// For how long after a batch of several the listeners count as busy: some batches' worth of time.
const BUSY_FOR: Duration = Duration::from_millis(50);
/// The same after a single message: a sender who has more is back by then.
const BUSY_FOR_ONE: Duration = Duration::from_millis(3);

/// Whether listeners have messages to hand in at this moment: work that can wait should let them have the processor.
#[derive(Debug)]
pub(super) struct Pressure {
    started: Instant,
    /// Microseconds from then to when they count as idle again.
    idle_at: AtomicU64,
}

impl Pressure {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), idle_at: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// A batch is about to be written: its senders wait.
    fn rise(&self) {
        self.idle_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// A batch of so many messages was written.
    fn ease(&self, messages: usize) {
        let busy_for = if messages >= GATHERED_MIN { BUSY_FOR } else { BUSY_FOR_ONE };
        self.idle_at.store(self.now().saturating_add(micros(busy_for)), Ordering::Relaxed);
    }

    fn is_high(&self) -> bool {
        self.now() < self.idle_at.load(Ordering::Relaxed)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What became of a message that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The key it is known by: of the first time, when it was offered before.
    pub id: MessageKey,
    /// The same bytes came in the same envelope before: the answer to that was lost, or somebody sent it twice.
    pub repeated: bool,
}

/// How far a message taken in has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundState {
    Pending,
    /// It is part of a stored message.
    Filed,
    /// A person must decide about it.
    Held,
    /// Policy leaves it out: its bytes are gone.
    Dropped,
}

impl InboundState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Filed => "filed",
            Self::Held => "held",
            Self::Dropped => "dropped",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        [Self::Pending, Self::Filed, Self::Held, Self::Dropped]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::Corrupt(format!("inbound.state: {text}")))
    }
}

/// A message taken in, with its bytes.
#[derive(Debug, Clone)]
pub struct InboundRow {
    pub id: MessageKey,
    pub door: Door,
    pub raw: Bytes,
    pub received_at: Timestamp,
    pub state: InboundState,
    /// What it became part of.
    pub message: Option<MessageKey>,
    /// Where its bytes lie; a new message takes this over.
    pub blob: Uuid,
}

/// One message ready to be written.
pub(super) struct Offer {
    workspace: WorkspaceId,
    id: MessageKey,
    source_key: [u8; 32],
    /// For how long the same source key is the same transaction.
    kept: SignedDuration,
    order_key: Option<OrderKey>,
    door: String,
    blob: SealedBlob,
    received_at: Timestamp,
}

type Answer = oneshot::Sender<Result<Taken, Error>>;

/// Where listeners hand their messages in.
pub(super) struct Batcher(mpsc::Sender<(Offer, Answer)>);

/// The task that writes them.
pub(super) struct Batches(mpsc::Receiver<(Offer, Answer)>);

pub(super) fn batcher() -> (Batcher, Batches) {
    let (offers, batches) = mpsc::channel(WAITING_MAX);
    (Batcher(offers), Batches(batches))
}

impl Store {
    /// Takes a message in. When this returns, the message and its job are durable, and 250 may be said. `id` is the
    /// key it gets unless it came before. Dropped while it waits, the message may or may not have been taken.
    ///
    /// # Errors
    /// Nothing was taken: `Conflict` with [`ORDER_KEY_USED`] when the order's own key stands for
    /// another one; answer 452 for `Full`, 451 for all else.
    pub async fn take_in(
        &self,
        intake: Intake,
        id: MessageKey,
        received_at: Timestamp,
    ) -> Result<Taken, Error> {
        self.0.health.check()?;
        let offer = self.offer(intake, id, received_at).await?;
        let (answer, answered) = oneshot::channel();
        let closed = || Error::refused("the store is closed");
        self.0.batcher.0.send((offer, answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Seals what the transaction writes, before it begins.
    pub(super) async fn offer(
        &self,
        intake: Intake,
        id: MessageKey,
        received_at: Timestamp,
    ) -> Result<Offer, Error> {
        let Intake { workspace, door, raw, fingerprint } = intake;
        let key = self.workspace_key(workspace).await?;
        let (source_key, kept) = (source_key(&door, &fingerprint.hash)?, fingerprint.kept);
        let blob = self.seal_blob(workspace, key, &raw).await?;
        let order_key = match &door {
            Door::Submission { order, .. } => order.key,
            Door::Mx { .. } => None,
        };
        let door = json(&door)?;
        Ok(Offer { workspace, id, source_key, kept, order_key, door, blob, received_at })
    }
}

/// What makes a transaction the same as an earlier one: its door and its fingerprint; not the peer's address, since a large
/// sender retries from another.
fn source_key(door: &Door, fingerprint: &[u8; 32]) -> Result<[u8; 32], Error> {
    let identity = match door {
        Door::Mx { routes, .. } => {
            let mut ids: Vec<_> = routes.iter().map(|route| route.id).collect();
            ids.sort_unstable();
            json(&("mx", ids))?
        }
        Door::Submission { order, .. } => json(&("submission", order.user, order.principal))?,
    };
    Ok(*blake3::Hasher::new().update(identity.as_bytes()).update(fingerprint).finalize().as_bytes())
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

impl Batches {
    /// Runs as long as the store is in use: it holds no store itself while it waits.
    pub(super) fn start(mut self, store: &Store) {
        let shared = Arc::downgrade(&store.0);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_MESSAGES_MAX);
            let mut busy = 0;
            while self.0.recv_many(&mut batch, BATCH_MESSAGES_MAX).await > 0 {
                self.gather(&mut batch, busy).await;
                let Some(store) = Weak::upgrade(&shared).map(Store) else { return };
                let written = batch.len();
                store.0.pressure.rise();
                store.take_in_batch(std::mem::take(&mut batch)).await;
                store.0.pressure.ease(written);
                busy = written + self.0.len();
            }
        });
    }

    /// Those who were answered together are soon back together. Without waiting for them, busy listeners fall into two
    /// halves that take turns, and each half pays for a flush of its own.
    async fn gather(&mut self, batch: &mut Vec<(Offer, Answer)>, busy: usize) {
        if busy < GATHERED_MIN {
            return;
        }
        let deadline = Instant::now() + GATHER_TIME_MAX;
        while batch.len() < busy.min(BATCH_MESSAGES_MAX) {
            let room = BATCH_MESSAGES_MAX - batch.len();
            match timeout_at(deadline, self.0.recv_many(batch, room)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
    }
}

impl Store {
    /// Whether listeners are handing in messages at this moment.
    #[must_use]
    pub fn intake_is_busy(&self) -> bool {
        self.0.pressure.is_high()
    }

    async fn take_in_batch(&self, batch: Vec<(Offer, Answer)>) {
        let (offers, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match self.write_batch(&offers).await {
            Ok(taken) => {
                for (answer, taken) in answers.into_iter().zip(taken) {
                    let _ = answer.send(taken);
                }
            }
            // One message can spoil it for all, say of a workspace that is gone: then each is tried alone.
            Err(Error::Missing | Error::Conflict { .. } | Error::Corrupt(_)) if offers.len() > 1 => {
                for (offer, answer) in offers.iter().zip(answers) {
                    let taken = self.write_batch(std::slice::from_ref(offer)).await;
                    let _ =
                        answer.send(taken.and_then(|taken| taken.into_iter().next().ok_or(Error::Missing)?));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.again()));
                }
            }
        }
    }

    /// What became of each offer, in their order. An offer whose own key stands for another order is left out, and spoils
    /// nothing for the others.
    pub(super) async fn write_batch(&self, offers: &[Offer]) -> Result<Vec<Result<Taken, Error>>, Error> {
        let mut system = self.system_first().await?;
        let mut refused = HashSet::new();
        for (offer, key) in offers.iter().filter_map(|offer| Some((offer, offer.order_key.as_ref()?))) {
            if !system.claim_order_key(offer.workspace, key, offer.received_at).await? {
                refused.insert((offer.workspace, offer.id));
            }
        }
        let is_refused = |offer: &Offer| refused.contains(&(offer.workspace, offer.id));
        let sound: Vec<&Offer> = offers.iter().filter(|offer| !is_refused(offer)).collect();
        let first_time = system.insert_inbound(&sound).await?;
        let mut taken = Vec::with_capacity(offers.len());
        let (mut blobs, mut jobs) = (Vec::with_capacity(sound.len()), Vec::with_capacity(sound.len()));
        for offer in offers {
            if is_refused(offer) {
                taken.push(Err(Error::Conflict { what: ORDER_KEY_USED }));
                continue;
            }
            let earlier = match first_time.contains(&(offer.workspace, offer.id)) {
                true => None,
                false => system.earlier(offer).await?,
            };
            let (repeated, id) = (earlier.is_some(), earlier.unwrap_or(offer.id));
            taken.push(Ok(Taken { id, repeated }));
            let job = if repeated { Job::Repeat { inbound: id } } else { Job::Process { inbound: id } };
            jobs.push((offer, job));
            if !repeated {
                blobs.push(&offer.blob);
            }
        }
        system.insert_blobs(&blobs).await?;
        system.insert_jobs(&jobs).await?;
        system.on_commit(|store| store.announce_jobs(&[JobKind::Process, JobKind::Repeat]));
        crate::failpoint::reach("intake.written", "");
        system.commit().await?;
        crate::failpoint::reach("intake.taken", "");
        Ok(taken)
    }
}

impl System {
    /// Returns those that were not there yet.
    async fn insert_inbound(
        &mut self,
        offers: &[&Offer],
    ) -> Result<HashSet<(WorkspaceId, MessageKey)>, Error> {
        static TEXTS: LazyLock<Inserts> = LazyLock::new(|| {
            Inserts::new(
                "insert into inbound (workspace, id, source_key, blob, door, received_at, state) values",
                7,
                "on conflict (workspace, source_key) do nothing returning workspace, id",
            )
        });
        let mut inserted = HashSet::with_capacity(offers.len());
        for (text, rows) in TEXTS.cover(offers) {
            let args = rows.iter().flat_map(|offer| -> [Arg; 7] {
                [
                    offer.workspace.into(),
                    offer.id.into(),
                    offer.source_key.into(),
                    offer.blob.id.into(),
                    offer.door.as_str().into(),
                    offer.received_at.into(),
                    InboundState::Pending.as_str().into(),
                ]
            });
            for row in self.fetch_all(sql(text).bind_all(args)).await? {
                inserted.insert((row.id("workspace")?, row.id("id")?));
            }
        }
        Ok(inserted)
    }

    /// The message that the same transaction brought before. One of long ago gives way: then this is the first, and `None`.
    async fn earlier(&mut self, offer: &Offer) -> Result<Option<MessageKey>, Error> {
        let query =
            sql("select id, state, received_at from inbound where workspace = $1 and source_key = $2");
        let row = self.fetch_one(query.bind(offer.workspace).bind(offer.source_key)).await?;
        let id: MessageKey = row.id("id")?;
        let age = offer.received_at.duration_since(row.get::<Timestamp>("received_at")?);
        let is_pending = InboundState::parse(&row.get::<String>("state")?)? == InboundState::Pending;
        if is_pending || age < offer.kept {
            return Ok(Some(id));
        }
        // Its own id in place of the fingerprint: no transaction has that.
        let own = if self.store().is_shared() { "uuid_send(id)" } else { "id" };
        let update = format!("update inbound set source_key = {own} where workspace = $1 and id = $2");
        self.execute(sql(update).bind(offer.workspace).bind(id)).await?;
        self.insert_inbound(&[offer]).await?;
        Ok(None)
    }

    async fn insert_blobs(&mut self, blobs: &[&SealedBlob]) -> Result<(), Error> {
        static TEXTS: LazyLock<Inserts> = LazyLock::new(|| {
            Inserts::new("insert into blobs (workspace, id, key_id, size, data) values", 5, "")
        });
        for (text, rows) in TEXTS.cover(blobs) {
            let args = rows.iter().flat_map(|blob| (*blob).clone().args());
            self.execute(sql(text).bind_all(args)).await?;
        }
        Ok(())
    }

    /// As `queue` would: these jobs have no lane, so each stands at its own head.
    async fn insert_jobs(&mut self, jobs: &[(&Offer, Job)]) -> Result<(), Error> {
        static TEXTS: LazyLock<Inserts> = LazyLock::new(|| {
            Inserts::new("insert into jobs (workspace, kind, head, body, run_at, created_at) values", 6, "")
        });
        for (text, rows) in TEXTS.cover(jobs) {
            let mut query = sql(text);
            for (offer, job) in rows {
                query = query.bind(offer.workspace).bind(job.kind().as_str()).bind(1_i64).bind(json(job)?);
                query = query.bind(offer.received_at).bind(offer.received_at);
            }
            self.execute(query).await?;
        }
        Ok(())
    }
}

/// The texts of one insert for each number of rows.
struct Inserts([(usize, String); ROWS_AT_ONCE.len()]);

impl Inserts {
    fn new(before: &str, columns: usize, after: &str) -> Self {
        Self(ROWS_AT_ONCE.map(|rows| {
            let values: Vec<_> = (0..rows)
                .map(|row| format!("({})", super::placeholders(row * columns + 1, columns)))
                .collect();
            (rows, format!("{before} {} {after}", values.join(", ")))
        }))
    }

    /// Divides rows among the texts, the longest first.
    fn cover<'a, T>(&'static self, mut rows: &'a [T]) -> Vec<(&'static str, &'a [T])> {
        let mut parts = Vec::new();
        for (count, text) in &self.0 {
            while let Some((part, rest)) = rows.split_at_checked(*count) {
                parts.push((text.as_str(), part));
                rows = rest;
            }
        }
        parts
    }
}

impl Session {
    /// A message taken in, with its bytes: its own, or those of the message it turned out to be.
    ///
    /// # Errors
    /// `Missing` when there is none, or its content was erased.
    pub async fn inbound(&mut self, id: MessageKey) -> Result<InboundRow, Error> {
        let query =
            sql("select i.door, i.received_at, i.state, i.message, i.blob, b.key_id, b.size, b.data \
             from inbound i join blobs b on b.workspace = i.workspace and b.id = i.blob \
             where i.workspace = $1 and i.id = $2");
        let row = self.fetch_one(query.bind(self.workspace()).bind(id)).await?;
        let blob = row.get("blob")?;
        Ok(InboundRow {
            id,
            door: row.json("door")?,
            raw: self.open_blob(blob, &row).await?,
            received_at: row.get("received_at")?,
            state: InboundState::parse(&row.get::<String>("state")?)?,
            message: row.opt_id("message")?,
            blob,
        })
    }
}

impl Tx {
    /// Notes what became of a message taken in. A message that was stored already keeps its own bytes and these are
    /// deleted, unless they are what is to be sent; a message that was made of these has taken their blob over.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn settle_inbound(
        &mut self,
        id: MessageKey,
        state: InboundState,
        message: Option<MessageKey>,
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        let query = sql("select i.blob as own, m.blob as kept, s.message as sends from inbound i \
             left join messages m on m.workspace = i.workspace and m.id = $3 \
             left join submissions s on s.workspace = i.workspace and s.message = $3 and s.blob = i.blob \
             where i.workspace = $1 and i.id = $2");
        let row = self.fetch_one(query.bind(workspace).bind(id).bind(message)).await?;
        let own: Uuid = row.get("own")?;
        let kept = match message {
            Some(_) => row.get::<Option<Uuid>>("kept")?.ok_or(Error::Missing)?,
            None => own,
        };
        let is_sent = row.opt_id::<MessageKey>("sends")?.is_some();
        if (kept != own && !is_sent) || state == InboundState::Dropped {
            self.delete_blob(own).await?;
        }
        let update =
            sql("update inbound set state = $3, message = $4, blob = $5 where workspace = $1 and id = $2");
        let update = update.bind(workspace).bind(id).bind(state.as_str()).bind(message).bind(kept);
        self.execute(update).await?;
        if state == InboundState::Dropped {
            let forget = sql("update inbound set door = $3 where workspace = $1 and id = $2");
            let forget = forget.bind(workspace).bind(id).bind(json(&Door::forgotten())?);
            self.execute(forget).await?;
        }
        Ok(())
    }
}
