//! `mailweave serve`: runs until a signal or a failed disk, then finishes the work in hand.
//!
//! Not here: building the parts (`parts`).

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::Running;
use crate::{config::Config, net, telemetry};

/// How often histograms are folded, so that they do not grow while nobody scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Serves. Returns after SIGTERM or SIGINT with all work in hand finished.
///
/// # Errors
/// Names what kept it from starting, or that the store failed while running.
pub async fn serve(config: Option<&Path>) -> anyhow::Result<()> {
    let loaded = Config::load(config)?;
    let config = loaded.config;
    let _log = telemetry::init_log(config.log.level, config.log.format)?;
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    net::install_provider();
    let metrics = telemetry::init_metrics().context("metrics")?;
    let render = metrics.clone();
    let running = Running::start(&config, Arc::new(move || telemetry::render(&render))).await?;
    let at = running.addresses.clone();
    tracing::info!(event = "ready", node = running.gateway.settings.node, http = ?at.http, mx = ?at.mx, submission = ?at.submission, submissions = ?at.submissions, "ready");
    let failed = wait(&running, &metrics).await?;
    tracing::info!("shutting down: finishing the work in hand");
    let stopped = tokio::time::timeout(config.node.shutdown_grace, running.stop()).await;
    if stopped.is_err() {
        tracing::warn!(
            "some work did not finish in time; what was acknowledged is safe and goes on at the next start"
        );
    }
    anyhow::ensure!(!failed, "the store failed: check the disk, then start again");
    Ok(())
}

/// Waits for the end. True when it is the store that ended it.
async fn wait(
    running: &Running,
    metrics: &metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<bool> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut upkeep = tokio::time::interval(METRICS_UPKEEP);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(false),
            _ = interrupt.recv() => return Ok(false),
            () = running.gateway.store.failure() => return Ok(true),
            _ = upkeep.tick() => metrics.run_upkeep(),
        }
    }
}
