//! Durable jobs: enqueued in the transaction of the fact that caused them, claimed with a lease, one at a time a lane,
//! settled in the transaction of what they did.
//!
//! Not here: doing them (`flow`), the loops that do (`worker`), and when to try again (`core::retry`).

mod lanes;
#[cfg(test)]
mod tests;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    core::{
        ids::WorkspaceId,
        job::{Job, JobKind},
    },
    store::{Enqueued, Error, Row, Store, System, Tx, sql},
};

/// Most jobs of one claim: what is claimed and not begun waits for nothing while its lease runs out.
pub const CLAIM_JOBS_MAX: usize = 256;

/// The jobs of a store.
#[derive(Clone)]
pub struct Queue {
    store: Store,
    /// Which kind is asked for first: no kind with much to do may starve the others.
    turn: Arc<AtomicUsize>,
    /// Apart from the store's own count, which is told to other nodes: they would tell it back.
    nudged: watch::Sender<()>,
}

/// What time it is, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// This node's: by it jobs are put off, and by it they fall due.
    pub here: Timestamp,
    /// The store's, which all nodes share: by it leases are given and end. By its own, a node whose clock is ahead would end
    /// every lease of the others.
    pub leases: Timestamp,
}

impl From<Timestamp> for Now {
    /// Both clocks agree.
    fn from(now: Timestamp) -> Self {
        Self { here: now, leases: now }
    }
}

/// A job to be done by whoever holds this, until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    pub id: i64,
    pub workspace: WorkspaceId,
    pub job: Job,
    /// 1 for the first try. Claims are counted, also those that were cut off or came to nothing.
    pub attempt: u32,
    /// Of the claims before this one, those that were tried and settled so.
    pub tries: u32,
    /// Of the claims before this one, those that were settled as failed.
    pub failures: u32,
    pub created_at: Timestamp,
}

/// The jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub kind: JobKind,
    /// Waiting or in hand.
    pub jobs: i64,
    /// When the first of them that could be claimed is due, or was.
    pub due: Option<Timestamp>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is gone, and the next of its lane may begin.
    Done,
    /// It stays until then. Its lane waits for it if it is of a kind that keeps the order ([`JobKind::keeps_order`]);
    /// else the others go first.
    RetryAt(Timestamp),
    /// As `RetryAt`, and one more try is counted: it was done, and somebody else was not ready. After how many it is given up
    /// is for the job to say.
    TriedUntil(Timestamp),
    /// As `RetryAt`, and one more failure is counted: it cannot be done, and after a few it is not tried as before.
    FailedUntil(Timestamp),
}

/// When there is something to claim, by the two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// When the first job is.
    pub job: Option<Timestamp>,
    /// When the first lease ends: its job may then be claimed by others.
    pub lease: Option<Timestamp>,
}

impl Due {
    /// How long until then: nothing if it is past, `None` when there is nothing to wait for.
    #[must_use]
    pub fn wait(self, now: impl Into<Now>) -> Option<Duration> {
        let now = now.into();
        let until = |due: Option<Timestamp>, now| {
            Some(Duration::try_from(due?.duration_since(now)).unwrap_or_default())
        };
        until(self.job, now.here).into_iter().chain(until(self.lease, now.leases)).min()
    }
}

/// Hears of new jobs of some kinds. What fell due it does not hear, nor for certain what other nodes committed: look again
/// now and then.
pub struct Listener {
    enqueued: watch::Receiver<Enqueued>,
    nudged: watch::Receiver<()>,
    kinds: &'static [JobKind],
    seen: Vec<u64>,
}

impl Queue {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, turn: Arc::new(AtomicUsize::new(0)), nudged: watch::Sender::new(()) }
    }

    /// What time it is, for [`Queue::claim`] and [`Queue::extend`].
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn now(&self) -> Result<Now, Error> {
        let leases = self.store.clock().await?;
        Ok(Now { here: Timestamp::now(), leases })
    }

    /// Takes up to `max` due jobs of these kinds: of each lane only the first, and not while that one is leased or waits
    /// for its retry; of jobs without a lane any. Leases that have run out end first.
    ///
    /// # Errors
    /// When the database is out of reach; then nothing is claimed.
    pub async fn claim(
        &self,
        kinds: &[JobKind],
        now: impl Into<Now>,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Leased>, Error> {
        let (max, now) = (max.min(CLAIM_JOBS_MAX), now.into());
        let until = now.leases.saturating_add(lease).unwrap_or(Timestamp::MAX);
        let mut system = self.store.system().await?;
        system.end_leases(now.leases).await?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut rows = Vec::new();
        for kind in kinds.iter().cycle().skip(first % kinds.len().max(1)).take(kinds.len()) {
            if rows.len() >= max {
                break;
            }
            rows.extend(system.lease_due(*kind, now.here, until, max - rows.len()).await?);
        }
        system.commit().await?;
        let mut jobs: Vec<_> = rows.iter().filter_map(read).collect();
        jobs.sort_unstable_by_key(|leased| leased.id);
        Ok(jobs)
    }

    /// Keeps a job longer, by the clock of leases. `false` when somebody else has it by now: stop, and write nothing.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn extend(&self, leased: &Leased, until: Timestamp) -> Result<bool, Error> {
        let mut tx = self.store.begin(leased.workspace).await?;
        let update = sql("update jobs set leased_until = $4 \
             where workspace = $1 and id = $2 and attempt = $3 and leased_until is not null");
        let update = update.bind(leased.workspace).bind(leased.id).bind(leased.attempt).bind(until);
        let kept = tx.execute(update).await? == 1;
        tx.commit().await?;
        Ok(kept)
    }

    /// Ends every lease of an embedded store. To be called once, at the start: whoever held them was a former process, and
    /// what it had in hand is due at once. With PostgreSQL other nodes may be at work: there leases run out by themselves.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn reclaim(&self) -> Result<(), Error> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut system = self.store.system().await?;
        system.end_leases(Timestamp::MAX).await?;
        system.commit().await
    }

    /// When the next job of these kinds falls due, and when the next lease of any kind ends.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn next_due(&self, kinds: &[JobKind]) -> Result<Due, Error> {
        let mut text =
            "select (select min(leased_until) from jobs where leased_until is not null) as leased".to_owned();
        for number in 1..=kinds.len() {
            text.push_str(&format!(
                ", (select min(run_at) from jobs where kind = ${number} and leased_until is null and head = 1) as k{number}"
            ));
        }
        let query = sql(text).bind_all(kinds.iter().map(|kind| kind.as_str()));
        let row = self.store.system_read().await?.fetch_one(query).await?;
        let mut due = Due { job: None, lease: row.get("leased")? };
        for number in 1..=kinds.len() {
            let other: Option<Timestamp> = row.get(&format!("k{number}"))?;
            due.job = due.job.into_iter().chain(other).min();
        }
        Ok(due)
    }

    /// What there is to do, in all workspaces; kinds without a job are left out.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn backlog(&self) -> Result<Vec<Backlog>, Error> {
        let query = sql("select kind, count(*) as jobs, \
             min(case when head = 1 and leased_until is null then run_at end) as due from jobs group by kind");
        let rows = self.store.system_read().await?.fetch_all(query).await?;
        let read = |row: &Row| -> Result<Option<Backlog>, Error> {
            let word: String = row.get("kind")?;
            let kind = JobKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            kind.map(|kind| Ok(Backlog { kind, jobs: row.get("jobs")?, due: row.get("due")? })).transpose()
        };
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }

    /// Hears of the jobs of these kinds that are committed from now on.
    #[must_use]
    pub fn listen(&self, kinds: &'static [JobKind]) -> Listener {
        let (enqueued, nudged) = (self.store.enqueued(), self.nudged.subscribe());
        let mut listener = Listener { enqueued, nudged, kinds, seen: Vec::new() };
        listener.look();
        listener
    }

    /// Tells this node's listeners to look: another node has committed jobs.
    pub fn nudge(&self) {
        self.nudged.send_replace(());
    }
}

impl Listener {
    /// To be called before looking for jobs: `wait` then misses nothing that comes after.
    pub fn look(&mut self) {
        self.nudged.borrow_and_update();
        self.seen = self.counts();
    }

    /// Waits for new jobs since the last `look`, `at_most` this long. Dropping it loses nothing.
    pub async fn wait(&mut self, at_most: Duration) {
        // Neither the time nor the end of the store is an error: the caller looks again.
        let _ = tokio::time::timeout(at_most, async {
            while self.counts() == self.seen {
                tokio::select! {
                    changed = self.enqueued.changed() => if changed.is_err() { return },
                    Ok(()) = self.nudged.changed() => return,
                }
            }
        })
        .await;
    }

    fn counts(&mut self) -> Vec<u64> {
        let enqueued = self.enqueued.borrow_and_update();
        self.kinds.iter().map(|kind| enqueued.get(kind).copied().unwrap_or_default()).collect()
    }
}

impl Tx {
    /// Adds a job, to be done at `run_at` or later, and after every job that its lane holds already, unless those may be
    /// overtaken and wait for a later time. It exists when the transaction is committed; listeners hear of it then.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn enqueue(&mut self, job: &Job, lane: Option<String>, run_at: Timestamp) -> Result<(), Error> {
        let workspace = self.workspace();
        let head = match &lane {
            // Locks the lane: its jobs come in the order of their commits, and none is added behind a last job's back.
            Some(lane) => {
                let join = sql("insert into lanes (workspace, lane, jobs) values ($1, $2, 1) \
                     on conflict (workspace, lane) do update set jobs = lanes.jobs + 1 returning jobs");
                let alone = self.fetch_one(join.bind(workspace).bind(lane)).await?.get::<i64>("jobs")? == 1;
                alone || (!job.kind().keeps_order() && self.overtake(lane, run_at).await?)
            }
            None => true,
        };
        let body = serde_json::to_string(job).map_err(|error| Error::Corrupt(error.to_string()))?;
        let insert = sql("insert into jobs (workspace, kind, lane, head, body, run_at, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7)")
        .bind(workspace)
        .bind(job.kind().as_str())
        .bind(lane)
        .bind(head)
        .bind(body)
        .bind(run_at)
        .bind(Timestamp::now());
        self.execute(insert).await?;
        self.wake_workers(job.kind());
        Ok(())
    }

    /// Adds a job in the lane that is its own by kind; `Deliver` jobs are the journal's to add.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn enqueue_job(&mut self, job: &Job, run_at: Timestamp) -> Result<(), Error> {
        self.enqueue(job, job.lane(None), run_at).await
    }

    /// Makes sure that a job is still this worker's, until the transaction ends.
    ///
    /// # Errors
    /// `Fenced` when the lease ran out and somebody else took the job: the transaction must not be committed.
    pub async fn hold_job(&mut self, leased: &Leased) -> Result<(), Error> {
        let hold = sql("update jobs set leased_until = leased_until \
             where workspace = $1 and id = $2 and attempt = $3 and leased_until is not null");
        let hold = hold.bind(self.workspace()).bind(leased.id).bind(leased.attempt);
        if self.execute(hold).await? == 1 { Ok(()) } else { Err(Error::Fenced) }
    }

    /// Writes another body for a job in hand: how far it has come, should its worker not come back.
    ///
    /// # Errors
    /// `Fenced` when the lease ran out and somebody else took the job: the transaction must not be committed.
    pub async fn rewrite_job(&mut self, leased: &Leased, job: &Job) -> Result<(), Error> {
        let body = serde_json::to_string(job).map_err(|error| Error::Corrupt(error.to_string()))?;
        let write = sql("update jobs set body = $4 \
             where workspace = $1 and id = $2 and attempt = $3 and leased_until is not null");
        let write = write.bind(self.workspace()).bind(leased.id).bind(leased.attempt).bind(body);
        if self.execute(write).await? == 1 { Ok(()) } else { Err(Error::Fenced) }
    }

    /// Settles a job in the transaction of what it did.
    ///
    /// # Errors
    /// `Fenced` when the lease ran out and somebody else took the job: the transaction must not be committed.
    pub async fn settle(&mut self, leased: &Leased, settlement: Settlement) -> Result<(), Error> {
        match settlement {
            Settlement::Done => self.remove(leased).await,
            Settlement::RetryAt(at) => self.postpone(leased, at, (0, 0)).await,
            Settlement::TriedUntil(at) => self.postpone(leased, at, (1, 0)).await,
            Settlement::FailedUntil(at) => self.postpone(leased, at, (0, 1)).await,
        }
    }

    fn wake_workers(&mut self, kind: JobKind) {
        self.on_commit(move |store| store.announce_jobs(&[kind]));
    }

    /// Takes the lead of a lane from a job that waits for a later time. True when there was one.
    async fn overtake(&mut self, lane: &str, run_at: Timestamp) -> Result<bool, Error> {
        let step_back = sql("update jobs set head = 0 where workspace = $1 and lane = $2 and head = 1 \
             and leased_until is null and run_at > $3");
        let step_back = step_back.bind(self.workspace()).bind(lane).bind(run_at);
        Ok(self.execute(step_back).await? == 1)
    }

    async fn remove(&mut self, leased: &Leased) -> Result<(), Error> {
        let workspace = self.workspace();
        let delete =
            sql("delete from jobs where workspace = $1 and id = $2 and attempt = $3 returning lane, head");
        let delete = delete.bind(workspace).bind(leased.id).bind(leased.attempt);
        let row = self.fetch_optional(delete).await?.ok_or(Error::Fenced)?;
        let Some(lane) = row.get::<Option<String>>("lane")? else { return Ok(()) };
        let leave = sql("update lanes set jobs = jobs - 1 where workspace = $1 and lane = $2 returning jobs");
        let left = self.fetch_one(leave.bind(workspace).bind(&lane)).await?.get::<i64>("jobs")?;
        if left == 0 {
            let delete = sql("delete from lanes where workspace = $1 and lane = $2");
            return self.execute(delete.bind(workspace).bind(lane)).await.map(drop);
        }
        self.wake_workers(leased.job.kind());
        // One that was put off while it was still in hand may have lost the lead to another.
        if row.get::<i64>("head")? == 1 { self.pass_on(&lane, leased.job.kind()).await } else { Ok(()) }
    }

    async fn postpone(
        &mut self,
        leased: &Leased,
        at: Timestamp,
        (tries, failures): (u32, u32),
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        let update = sql("update jobs set leased_until = null, run_at = $4, tries = tries + $5, \
             failures = failures + $6 where workspace = $1 and id = $2 and attempt = $3 returning lane, head");
        let update = update.bind(workspace).bind(leased.id).bind(leased.attempt).bind(at);
        let update = update.bind(tries).bind(failures);
        let row = self.fetch_optional(update).await?.ok_or(Error::Fenced)?;
        // Whoever sleeps until the lease's end has to wake before it.
        self.wake_workers(leased.job.kind());
        let leads = row.get::<i64>("head")? == 1;
        match row.get::<Option<String>>("lane")? {
            Some(lane) if leads && !leased.job.kind().keeps_order() => {
                self.lock_lane(&lane).await?;
                let step_back =
                    sql("update jobs set head = 0 where workspace = $1 and lane = $2 and head = 1");
                self.execute(step_back.bind(workspace).bind(&lane)).await?;
                self.pass_on(&lane, leased.job.kind()).await
            }
            _ => Ok(()),
        }
    }

    /// Gives the lead of a lane that has none to the first of its jobs; where the order is free to the first that is due,
    /// and if none is, to the one that will be next.
    async fn pass_on(&mut self, lane: &str, kind: JobKind) -> Result<(), Error> {
        let workspace = self.workspace();
        let due = if kind.keeps_order() { Timestamp::MAX } else { Timestamp::now() };
        let first = sql(
            "select id from jobs where workspace = $1 and lane = $2 and run_at <= $3 order by id limit 1",
        );
        let mut next = self.fetch_optional(first.bind(workspace).bind(lane).bind(due)).await?;
        if next.is_none() {
            let soonest =
                sql("select id from jobs where workspace = $1 and lane = $2 order by run_at, id limit 1");
            next = self.fetch_optional(soonest.bind(workspace).bind(lane)).await?;
        }
        let Some(next) = next else { return Ok(()) };
        let lead = sql("update jobs set head = 1 where workspace = $1 and id = $2");
        self.execute(lead.bind(workspace).bind(next.get::<i64>("id")?)).await.map(drop)
    }
}

impl System {
    /// Whoever held these is gone or too slow; what they still do changes nothing.
    async fn end_leases(&mut self, now: Timestamp) -> Result<(), Error> {
        let text = format!(
            "with over as materialized (select id from jobs where leased_until <= $1{}) \
             update jobs set leased_until = null where id in (select id from over)",
            skip_locked(self.store())
        );
        self.execute(sql(text).bind(now)).await.map(drop)
    }

    async fn lease_due(
        &mut self,
        kind: JobKind,
        now: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Result<Vec<Row>, Error> {
        // Materialised: PostgreSQL may run a plain subquery several times, and lock other rows each time.
        let text = format!(
            "with due as materialized \
             (select id from jobs where kind = $1 and run_at <= $2 and leased_until is null and head = 1 \
              order by run_at, id limit $4{}) \
             update jobs set leased_until = $3, attempt = attempt + 1 where id in (select id from due) \
             returning id, workspace, body, attempt, tries, failures, created_at",
            skip_locked(self.store())
        );
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        self.fetch_all(sql(text).bind(kind.as_str()).bind(now).bind(until).bind(max)).await
    }
}

/// Other nodes claim at the same time: none waits for another's rows. SQLite has one writer.
fn skip_locked(store: &Store) -> &'static str {
    if store.is_shared() { " for update skip locked" } else { "" }
}

/// A job that cannot be read was written by a newer release: it stays, and is tried again when its lease ends.
fn read(row: &Row) -> Option<Leased> {
    let leased = (|| {
        Ok::<_, Error>(Leased {
            id: row.get("id")?,
            workspace: row.id("workspace")?,
            job: row.json("body")?,
            attempt: row.get("attempt")?,
            tries: row.get("tries")?,
            failures: row.get("failures")?,
            created_at: row.get("created_at")?,
        })
    })();
    leased.inspect_err(|error| tracing::error!(%error, "a job cannot be read")).ok()
}
