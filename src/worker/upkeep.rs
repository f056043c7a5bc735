//! Tidies up what has had its time: answers kept for repeated requests, keys of old orders, orphaned files. Looks once more
//! after held mail that has a way out by now.
//!
//! Not here: anything whose delay somebody would notice.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{
    core::ids::Id as _,
    flow::{self, Gateway},
    store::{Error, PURGE_ROWS_MAX, Page, PageKey},
};

/// How often everything is looked over.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Answers to requests with an Idempotency-Key are kept this long, and the keys of orders over SMTP.
const REQUESTS_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A file without a row that is younger than this may belong to a transaction not yet committed.
const ORPHANS_KEPT: Duration = Duration::from_secs(60 * 60);

/// Runs until `shutdown`.
pub async fn run(gateway: Gateway, shutdown: CancellationToken) {
    loop {
        if let Err(error) = tidy(&gateway, flow::now()).await {
            tracing::warn!(error = %error, "upkeep was cut short and goes on in an hour");
        }
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}

async fn tidy(gateway: &Gateway, now: Timestamp) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = Page::new(200, after);
        let workspaces = gateway.store.system_read().await?.workspaces(&page).await?;
        for workspace in &workspaces {
            flow::submit::release_all_held(gateway, workspace.id).await?;
        }
        let Some(last) = workspaces.last() else { break };
        after = Some(PageKey { at: last.created_at, id: last.id.uuid() });
    }
    purge_requests(gateway, now - REQUESTS_KEPT).await?;
    let swept = gateway.store.sweep_blob_files(ORPHANS_KEPT).await?;
    tracing::debug!(swept, "upkeep done");
    Ok(())
}

/// A transaction for each some: whoever has a message to hand in waits for no more than one.
async fn purge_requests(gateway: &Gateway, before: Timestamp) -> Result<(), Error> {
    loop {
        let mut system = gateway.store.system().await?;
        let requests = system.purge_requests(before).await?;
        let orders = system.purge_order_keys(before).await?;
        system.commit().await?;
        if requests.max(orders) < u64::from(PURGE_ROWS_MAX) {
            return Ok(());
        }
    }
}
