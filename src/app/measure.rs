//! Measures what nobody can count as it happens: what waits, how accounts are, when the certificate ends.
//!
//! Not here: counting work, which whoever does it does; and the list of all metrics (`telemetry`).

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::x509::not_after;
use crate::{
    core::{account::AccountState, job::JobKind},
    flow::{self, Gateway},
    net::Certificates,
    store,
};

/// How often. Each look reads the rows of all jobs and accounts.
const EVERY: Duration = Duration::from_secs(15);

/// Runs until `shutdown`.
pub(super) async fn run(
    gateway: Gateway,
    certificates: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
) {
    loop {
        if let Err(error) = measure_store(&gateway).await {
            tracing::warn!(error = %error, "the store could not be measured");
        }
        if let Some(certificates) = &certificates {
            measure_certificate(certificates);
        }
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}

/// What there is none of is 0 and not missing: an alarm that finds no value is silent.
async fn measure_store(gateway: &Gateway) -> Result<(), store::Error> {
    let (backlog, now) = (gateway.queue.backlog().await?, flow::now());
    for kind in JobKind::ALL {
        let jobs = backlog.iter().find(|of| of.kind == kind).map_or(0, |of| of.jobs);
        metrics::gauge!("mailweave_jobs_waiting", "kind" => kind.as_str()).set(jobs as f64);
    }
    let due = backlog.iter().filter_map(|of| of.due).min();
    let overdue = due.map_or(0.0, |due| now.duration_since(due).as_secs_f64().max(0.0));
    metrics::gauge!("mailweave_job_oldest_seconds").set(overdue);
    let accounts = gateway.store.system_read().await?.accounts_by_state().await?;
    for state in AccountState::ALL {
        let count = accounts.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count);
        metrics::gauge!("mailweave_accounts", "state" => state.as_str()).set(count as f64);
    }
    Ok(())
}

fn measure_certificate(certificates: &Certificates) {
    if let Some(end) = certificates.current_der().and_then(|der| not_after(&der)) {
        let left = end.duration_since(flow::now()).as_secs_f64();
        metrics::gauge!("mailweave_tls_expires_seconds").set(left);
    }
}
