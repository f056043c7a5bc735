//! Tidies up what has had its time: answers kept for repeated requests, keys of old orders, counts of days long past, orphaned
//! files. Looks once more after held mail that has a way out by now.
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
/// What was counted is kept this long; limits look back over a day.
const COUNTS_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A file without a row that is younger than this may belong to a transaction not yet committed.
const ORPHANS_KEPT: Duration = Duration::from_secs(60 * 60);

/// Runs until `shutdown`.
pub async fn run(gateway: Gateway, shutdown: CancellationToken) {
    loop {
        tidy(&gateway, flow::now()).await;
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}

/// Each part on its own: what keeps one from its end keeps no other from its beginning.
async fn tidy(gateway: &Gateway, now: Timestamp) {
    let released = release_held(gateway).await;
    let purged = purge_requests(gateway, now - REQUESTS_KEPT).await;
    let forgotten = purge_usage(gateway, now - COUNTS_KEPT).await;
    let expired = flow::hold::expire_overdue(gateway, now).await;
    let renewed = renew_reply_keys(gateway, now).await;
    let swept = gateway.store.sweep_blob_files(ORPHANS_KEPT).await.map(drop);
    for (part, outcome) in [
        ("held mail", released),
        ("kept answers", purged),
        ("counts", forgotten),
        ("quarantine", expired),
        ("keys", renewed),
        ("files", swept),
    ] {
        match outcome {
            Ok(()) => tracing::debug!(part, "upkeep done"),
            Err(error) => {
                tracing::warn!(part, error = %error, "upkeep was cut short and goes on in an hour");
            }
        }
    }
}

/// Looks after the held mail of every workspace; one whose data cannot be read keeps no other waiting.
async fn release_held(gateway: &Gateway) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = Page::new(200, after);
        let workspaces = gateway.store.system_read().await?.workspaces(&page).await?;
        for workspace in &workspaces {
            match flow::submit::release_all_held(gateway, workspace.id).await {
                // It has been erased since the page was read.
                Err(Error::Missing) => {}
                Err(error) if error.is_lasting() => {
                    tracing::error!(workspace = %workspace.id, error = %error, "held mail of a workspace could not be looked after");
                }
                released => released?,
            }
        }
        let Some(last) = workspaces.last() else { return Ok(()) };
        after = Some(PageKey { at: last.created_at, id: last.id.uuid() });
    }
}

/// Makes the key of the next year, and takes over what other nodes have made.
async fn renew_reply_keys(gateway: &Gateway, now: Timestamp) -> Result<(), Error> {
    gateway.store.renew_reply_keys(now).await?;
    gateway.reply_keys.reload(&gateway.store).await
}

/// A transaction for each some: whoever has a message to hand in waits for no more than one.
async fn purge_requests(gateway: &Gateway, before: Timestamp) -> Result<(), Error> {
    loop {
        let mut system = gateway.store.system().await?;
        let requests = system.purge_requests(before).await?;
        let orders = system.purge_order_keys(before).await?;
        let links = system.purge_connect_links(before).await?;
        system.commit().await?;
        if requests.max(orders).max(links) < u64::from(PURGE_ROWS_MAX) {
            return Ok(());
        }
    }
}

async fn purge_usage(gateway: &Gateway, before: Timestamp) -> Result<(), Error> {
    loop {
        let mut system = gateway.store.system().await?;
        let counts = system.purge_usage(before).await?;
        system.commit().await?;
        if counts < u64::from(PURGE_ROWS_MAX) {
            return Ok(());
        }
    }
}
