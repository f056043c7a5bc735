//! Looks after limits: those that have room again, and accounts that wait for a place.
//!
//! Not here: what is done (`flow::limits`), and mail that waits for a limit: a job of its own has it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::flow::{Gateway, limits};

/// How often: two questions that an index answers.
const EVERY: Duration = Duration::from_secs(3);

/// Runs until `shutdown`.
pub async fn run(gateway: Gateway, shutdown: CancellationToken) {
    loop {
        limits::look_after(&gateway).await;
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}
