//! Jobs that wait for a later time: asked for, and done sooner.
//!
//! Not here: how they come to wait (`super`).

use jiff::Timestamp;

use crate::{
    core::job::{Job, JobKind},
    store::{Error, Statement, Tx, sql},
};

impl Tx {
    /// Makes jobs of a lane due that wait for a later time, of kinds whose order is free.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn hasten(&mut self, lane: &str, now: Timestamp) -> Result<(), Error> {
        self.lock_lane(lane).await?;
        let update = sql("update jobs set run_at = $3 \
             where workspace = $1 and lane = $2 and leased_until is null and run_at > $3");
        if self.execute(update.bind(self.workspace()).bind(lane).bind(now)).await? > 0 {
            self.on_commit(|store| store.announce_jobs(&JobKind::ALL));
        }
        Ok(())
    }

    /// Has a job done now that waits for a later time; one that somebody is at already is left to him.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn hasten_job(&mut self, job: &Job, now: Timestamp) -> Result<(), Error> {
        let workspace = self.workspace();
        let lane = job.lane(None);
        if let Some(lane) = &lane {
            self.lock_lane(lane).await?;
        }
        // The text is what `enqueue` wrote: one job has one.
        let body = serde_json::to_string(job).map_err(|error| Error::Corrupt(error.to_string()))?;
        let update = Statement::new("update jobs set run_at = ")
            .arg(now)
            .text(" where workspace = ")
            .arg(workspace)
            .given(" and lane = ", lane.clone())
            .text(" and kind = ")
            .arg(job.kind().as_str())
            .text(" and body = ")
            .arg(body)
            .text(" and leased_until is null and run_at > ")
            .arg(now)
            .text(" returning id, head");
        let Some(row) = self.fetch_optional(update.query()).await? else { return Ok(()) };
        self.wake_workers(job.kind());
        let Some(lane) = lane else { return Ok(()) };
        if row.get::<i64>("head")? == 0 && self.overtake(&lane, now).await? {
            let lead = sql("update jobs set head = 1 where workspace = $1 and id = $2");
            self.execute(lead.bind(workspace).bind(row.get::<i64>("id")?)).await?;
        }
        Ok(())
    }

    /// Whether the same job waits already, for whatever time. Until this transaction ends nobody begins it: it will find what
    /// this one writes.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn is_waiting(&mut self, job: &Job) -> Result<bool, Error> {
        let workspace = self.workspace();
        let lane = job.lane(None);
        if let Some(lane) = &lane {
            self.lock_lane(lane).await?;
        }
        let body = serde_json::to_string(job).map_err(|error| Error::Corrupt(error.to_string()))?;
        let keep = Statement::new("update jobs set leased_until = null where workspace = ")
            .arg(workspace)
            .given(" and lane = ", lane)
            .text(" and kind = ")
            .arg(job.kind().as_str())
            .text(" and body = ")
            .arg(body)
            .text(" and leased_until is null");
        Ok(self.execute(keep.query()).await? > 0)
    }

    /// Whoever changes jobs of a lane locks the lane first: two transactions that lock in one order cannot block each other.
    pub(super) async fn lock_lane(&mut self, lane: &str) -> Result<(), Error> {
        let lock = sql("update lanes set jobs = jobs where workspace = $1 and lane = $2");
        self.execute(lock.bind(self.workspace()).bind(lane)).await.map(drop)
    }
}
