//! Whole lanes at once: they rest while a server wants peace, and go on when it is back.
//!
//! Not here: the order within a lane, and who leads it (`super`).

use jiff::Timestamp;

use super::{Leased, skip_locked};
use crate::{
    core::job::JobKind,
    store::{Error, Session, Tx, sql},
};

impl Tx {
    /// Lets the jobs that wait behind this one in its lane wait until then: what it was refused they would be refused too.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn rest_lane(&mut self, leased: &Leased, until: Timestamp) -> Result<(), Error> {
        let Some(lane) = leased.job.lane(None) else { return Ok(()) };
        let workspace = self.workspace();
        self.lock_lane(&lane).await?;
        let rest = sql("update jobs set run_at = $4 \
             where workspace = $1 and lane = $2 and id <> $3 and leased_until is null and run_at < $4");
        self.execute(rest.bind(workspace).bind(lane).bind(leased.id).bind(until)).await.map(drop)
    }

    /// Has all lanes whose names begin so wait until then at least, but for those whose job is being done: one statement,
    /// however many there are.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn defer_lanes(&mut self, prefix: &str, until: Timestamp) -> Result<(), Error> {
        let leads = self.leads_of(prefix);
        let defer = sql(format!(
            "{leads} update jobs set run_at = $3 where id in (select id from leads) and run_at < $3"
        ));
        self.execute(defer.bind(self.workspace()).bind(prefix).bind(until)).await.map(drop)
    }

    /// Has all lanes whose names begin so go on now, as if nothing of them had ever failed, but for those whose job is
    /// being done.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn hasten_lanes(&mut self, prefix: &str, now: Timestamp) -> Result<(), Error> {
        let leads = self.leads_of(prefix);
        let hasten = sql(format!(
            "{leads} update jobs set run_at = $3, tries = 0, failures = 0 where id in (select id from leads) and run_at > $3"
        ));
        self.execute(hasten.bind(self.workspace()).bind(prefix).bind(now)).await?;
        self.on_commit(|store| store.announce_jobs(&JobKind::ALL));
        Ok(())
    }

    /// The jobs that lead lanes whose names begin with `$2`. Materialised, as in `lease_due`; those that somebody else is
    /// changing are his: two that wait for one another's rows would block each other.
    fn leads_of(&self, prefix: &str) -> String {
        format!(
            "with leads as materialized (select id from jobs where workspace = $1 and lane is not null and head = 1 \
             and leased_until is null and substr(lane, 1, {}) = $2{})",
            prefix.len(),
            skip_locked(self.store())
        )
    }
}

impl Session {
    /// When the first job of a lane that keeps its order is to be done, or was; `None` when the lane holds none that was
    /// added before the job with this id.
    pub async fn lane_due(&mut self, lane: &str, before: i64) -> Result<Option<Timestamp>, Error> {
        let query =
            sql("select run_at from jobs where workspace = $1 and lane = $2 and head = 1 and id < $3");
        let row = self.fetch_optional(query.bind(self.workspace()).bind(lane).bind(before)).await?;
        row.map(|row| row.get("run_at")).transpose()
    }
}
