//! Claims due jobs and runs each in a task of its own; what fails is tried again later, what keeps failing is set aside.
//!
//! Not here: what a job does (`flow`) and how claims are made safe (`queue`).

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio::{sync::Semaphore, task::JoinError, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    core::{
        job::{Job, JobKind},
        retry,
    },
    failpoint,
    flow::{self, FlowError, Gateway},
    queue::{Leased, Settlement},
    store,
};

/// A lease is renewed this often while it lasts: one renewal may be late without anybody taking the job over.
const RENEWALS: u32 = 3;
/// How long a worker waits for a wake-up before it looks by itself.
const POLL: Duration = Duration::from_secs(5);
/// The wait when other nodes were faster to claim what was due.
const TAKEN_BY_OTHERS: Duration = Duration::from_millis(20);
/// The wait after a job met a store that was down, or anything else that was not its own fault.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// How long filing stands back for busy listeners before it claims again all the same.
const STAND_BACK: Duration = Duration::from_millis(100);
/// How often it looks whether they still are.
const STAND_BACK_STEP: Duration = Duration::from_millis(2);
/// How long it goes on standing back while they stay busy: a burst is taken in first and filed after. What never ends is no
/// burst: from then on each side has half of the time.
const STAND_BACK_TOTAL: Duration = Duration::from_secs(5);

/// Kinds of jobs that share workers, so that none waits behind another's slow peers.
struct Crew {
    kinds: &'static [JobKind],
    workers: usize,
    /// So many workers must be free before more is claimed: a claim costs as much as half a filing, whatever it brings.
    claim_min: usize,
    /// Lets busy listeners go first.
    yields: bool,
}

/// Filing works against the store alone, sending against providers, delivering against the CRM. What an account's mailboxes
/// are asked for may wait for the account's own session, and sending does not wait for that.
const CREWS: [Crew; 5] = [
    Crew { kinds: &[JobKind::Process, JobKind::Repeat], workers: 16, claim_min: 8, yields: true },
    Crew {
        kinds: &[JobKind::Submit, JobKind::Report, JobKind::Explain, JobKind::Erase],
        workers: 64,
        claim_min: 1,
        yields: false,
    },
    Crew {
        kinds: &[JobKind::SaveSent, JobKind::Refetch, JobKind::TakeUp],
        workers: 32,
        claim_min: 1,
        yields: false,
    },
    Crew { kinds: &[JobKind::Deliver], workers: 32, claim_min: 1, yields: false },
    // A sign-in server that never answers is nobody's hurry.
    Crew { kinds: &[JobKind::GiveBack], workers: 4, claim_min: 1, yields: false },
];

/// Runs until `shutdown`, then finishes the jobs in hand.
pub async fn run(gateway: Gateway, shutdown: CancellationToken) {
    if let Err(error) = gateway.queue.reclaim().await {
        tracing::warn!(error = %error, "the jobs of the last run go on when their leases end");
    }
    let crews = CREWS.iter().map(|crew| run_crew(&gateway, crew, &shutdown));
    futures_util::future::join_all(crews).await;
}

async fn run_crew(gateway: &Gateway, crew: &Crew, shutdown: &CancellationToken) {
    let (free, tasks) = (Arc::new(Semaphore::new(crew.workers)), TaskTracker::new());
    let mut news = gateway.queue.listen(crew.kinds);
    let mut manners = Manners::new();
    while !shutdown.is_cancelled() {
        if crew.yields {
            manners.stand_back(&gateway.store).await;
        }
        // Look at the news before the jobs: what is enqueued in between still wakes us.
        news.look();
        let (pause, claimed) = look(gateway, crew, free.available_permits()).await;
        let idle = claimed.is_empty();
        for job in claimed {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            let gateway = gateway.clone();
            tasks.spawn(async move {
                run_one(gateway, job).await;
                drop(permit);
            });
        }
        if idle {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = news.wait(pause) => {}
            }
        } else {
            let enough = u32::try_from(crew.claim_min).unwrap_or(1);
            drop(free.acquire_many(enough).await);
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Claims what is due; when that is nothing, says how long to wait for it.
async fn look(gateway: &Gateway, crew: &Crew, free: usize) -> (Duration, Vec<Leased>) {
    let claimed = async {
        let now = gateway.queue.now().await?;
        // A claim writes, and looking costs next to nothing.
        match gateway.queue.next_due(crew.kinds).await?.wait(now) {
            Some(Duration::ZERO) => {
                let lease = gateway.settings.job_lease;
                Ok((TAKEN_BY_OTHERS, gateway.queue.claim(crew.kinds, now, lease, free).await?))
            }
            wait => Ok((wait.unwrap_or(POLL).min(POLL), Vec::new())),
        }
    };
    claimed.await.unwrap_or_else(|error: store::Error| {
        tracing::warn!(error = %error, "jobs could not be claimed");
        (POLL, Vec::new())
    })
}

/// Filing and taking in share the processor and the disk. A sender waits for his 250 and the CRM waits for nothing, so
/// listeners go first, within bounds.
struct Manners {
    busy_since: Option<Instant>,
    /// When it last went to work.
    worked_since: Instant,
}

impl Manners {
    fn new() -> Self {
        Self { busy_since: None, worked_since: Instant::now() }
    }

    async fn stand_back(&mut self, store: &store::Store) {
        let (started, worked) = (Instant::now(), self.worked_since.elapsed());
        while store.intake_is_busy() {
            let burst = self.busy_since.get_or_insert(started).elapsed() <= STAND_BACK_TOTAL;
            let at_most = if burst { STAND_BACK } else { worked.min(STAND_BACK) };
            if started.elapsed() > at_most {
                break;
            }
            tokio::time::sleep(STAND_BACK_STEP).await;
        }
        if !store.intake_is_busy() {
            self.busy_since = None;
        }
        self.worked_since = Instant::now();
    }
}

/// Runs one job. A panic is a failure of this job alone.
async fn run_one(gateway: Gateway, job: Leased) {
    let (job, started) = (Arc::new(job), Instant::now());
    let mut work = tokio::spawn(dispatch(gateway.clone(), Arc::clone(&job)));
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = tokio::time::sleep(gateway.settings.job_lease / RENEWALS) => renew(&gateway, &job).await,
        }
    };
    count(job.job.kind(), &outcome, started);
    let failed = match outcome {
        Ok(Ok(())) => return,
        // Somebody else has the job: whatever we did was undone.
        Ok(Err(FlowError::Store(store::Error::Fenced))) => return,
        Ok(Err(FlowError::Raced)) => settle(&gateway, &job, Settlement::RetryAt(flow::now())).await,
        Ok(Err(FlowError::Obsolete)) => settle(&gateway, &job, Settlement::Done).await,
        Ok(Err(FlowError::Store(error))) if error.is_lasting() => {
            tracing::error!(job = job.id, kind = job.job.kind().as_str(), failures = job.failures, error = %error, "a job failed over its data");
            after_lasting_failure(&gateway, &job).await
        }
        Ok(Err(error)) => {
            tracing::warn!(job = job.id, kind = job.job.kind().as_str(), attempt = job.attempt, error = %error, "a job failed and will be tried again");
            settle(&gateway, &job, Settlement::RetryAt(flow::now() + RETRY)).await
        }
        Err(panic) => {
            tracing::error!(job = job.id, kind = job.job.kind().as_str(), attempt = job.attempt, error = %panic, "a job panicked");
            after_lasting_failure(&gateway, &job).await
        }
    };
    if let Err(error) = failed {
        // Its lease runs out and it is claimed again.
        tracing::warn!(job = job.id, error = %error, "a job could not be settled");
    }
}

fn count(kind: JobKind, outcome: &Result<Result<(), FlowError>, JoinError>, started: Instant) {
    let outcome = match outcome {
        Ok(Ok(())) => "done",
        Ok(Err(FlowError::Obsolete)) => "obsolete",
        Ok(Err(FlowError::Raced | FlowError::Store(store::Error::Fenced))) => "raced",
        Ok(Err(_)) => "failed",
        Err(_) => "panicked",
    };
    metrics::counter!("mailweave_jobs_total", "kind" => kind.as_str(), "outcome" => outcome).increment(1);
    metrics::histogram!("mailweave_job_seconds", "kind" => kind.as_str())
        .record(started.elapsed().as_secs_f64());
}

/// Keeps the job of a worker that is slow but alive. One that is too late anyway is fenced when it writes.
async fn renew(gateway: &Gateway, job: &Leased) {
    let lease = flow::signed(gateway.settings.job_lease);
    let extended = async {
        let now = gateway.queue.now().await?;
        gateway.queue.extend(job, now.leases + lease).await
    };
    match extended.await {
        Ok(true) => {}
        // Another worker has it: this one is fenced before its next effect on the outside, and when it writes.
        Ok(false) => tracing::warn!(job = job.id, "a job was taken over by another worker"),
        Err(error) => tracing::warn!(job = job.id, error = %error, "a job's lease could not be renewed"),
    }
}

async fn dispatch(gateway: Gateway, job: Arc<Leased>) -> Result<(), FlowError> {
    let kind = job.job.kind().as_str();
    failpoint::reach("job.claimed", kind);
    perform(gateway, job).await?;
    failpoint::reach("job.done", kind);
    Ok(())
}

async fn perform(gateway: Gateway, job: Arc<Leased>) -> Result<(), FlowError> {
    match &job.job {
        Job::Process { inbound } => flow::process(&gateway, &job, *inbound).await,
        Job::Repeat { inbound } => flow::repeat(&gateway, &job, *inbound).await,
        Job::Submit { message, .. } => flow::submit::perform(&gateway, &job, *message).await,
        Job::SaveSent { message, account } => {
            flow::submit::save_sent(&gateway, &job, *message, *account).await
        }
        Job::Report { message } => flow::submit::report(&gateway, &job, *message).await,
        Job::Refetch { account, decision } => flow::sync::refetch(&gateway, &job, *account, *decision).await,
        Job::TakeUp { account } => flow::sync::take_up(&gateway, &job, *account).await,
        Job::Explain { question } => flow::submit::explain(&gateway, &job, question).await,
        Job::GiveBack { grant } => flow::login::give_back(&gateway, &job, *grant).await,
        Job::Erase => flow::erase::perform(&gateway, &job).await,
        Job::EraseAccount { account } => flow::erase::perform_account(&gateway, &job, *account).await,
        Job::Deliver { webhook, seq } => flow::notify::deliver(&gateway, &job, *webhook, *seq).await,
    }
}

/// What trying again will hardly mend: a message that makes the reader panic, data that cannot be read, or that the database
/// refuses. After a few tries mail is held with its reason, and what only serves it is given up.
async fn after_lasting_failure(gateway: &Gateway, job: &Leased) -> Result<(), store::Error> {
    let failures = job.failures.saturating_add(1);
    let held = match (&job.job, retry::filing(failures)) {
        (_, Some(wait)) => return fail(gateway, job, wait).await,
        (Job::Process { inbound }, None) => flow::hold_poison(gateway, job, *inbound).await,
        (Job::Submit { message, .. }, None) => flow::submit::hold_poison(gateway, job, *message).await,
        // An endpoint is owed its events, and whoever had something erased that nothing of it is left: ever more slowly,
        // until the data is mended or the endpoint given up.
        (Job::Deliver { .. } | Job::Erase | Job::EraseAccount { .. }, None) => {
            return fail(gateway, job, retry::submission(failures, flow::jitter())).await;
        }
        (_, None) => {
            tracing::error!(job = job.id, kind = job.job.kind().as_str(), "a job is given up");
            return settle(gateway, job, Settlement::Done).await;
        }
    };
    match held {
        // What would be held cannot be read at all: it stays, and is looked at ever more slowly.
        Err(FlowError::Store(error)) if error.is_lasting() => {
            fail(gateway, job, retry::submission(failures, flow::jitter())).await
        }
        Err(FlowError::Obsolete) => settle(gateway, job, Settlement::Done).await,
        held => held.or_else(FlowError::into_store),
    }
}

async fn fail(gateway: &Gateway, job: &Leased, wait: Duration) -> Result<(), store::Error> {
    settle(gateway, job, Settlement::FailedUntil(flow::now() + flow::signed(wait))).await
}

async fn settle(gateway: &Gateway, job: &Leased, settlement: Settlement) -> Result<(), store::Error> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_some_crews_and_no_sign_in_server_holds_up_mail() {
        for kind in JobKind::ALL {
            let crews: Vec<_> = CREWS.iter().filter(|crew| crew.kinds.contains(&kind)).collect();
            assert_eq!(crews.len(), 1, "{kind:?}");
            assert!(kind != JobKind::GiveBack || crews.iter().all(|crew| crew.kinds == [JobKind::GiveBack]));
        }
    }
}
