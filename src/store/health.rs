//! Whether the disk under the store can still be trusted.
//!
//! Not here: what to do when it cannot. The app stops; a restart reads back what really is on disk.

use std::sync::Arc;

use tokio::sync::watch;

use super::Error;

/// Shared by all that touches the disk. Once failed it stays so.
#[derive(Clone)]
pub(super) struct Health(Arc<watch::Sender<bool>>);

impl Health {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// `Failed` once the disk has failed.
    pub(super) fn check(&self) -> Result<(), Error> {
        if *self.0.borrow() { Err(Error::Failed) } else { Ok(()) }
    }

    /// Notes an error, and passes it on.
    pub(super) fn note(&self, error: Error) -> Error {
        if error.is_fatal() && !self.0.send_replace(true) {
            tracing::error!("the disk failed: nothing more is accepted");
        }
        error
    }

    /// Returns once the disk has failed.
    pub(super) async fn failure(&self) {
        // The sender lives as long as `self`, so waiting ends only with a failure.
        let _ = self.0.subscribe().wait_for(|failed| *failed).await;
    }
}
