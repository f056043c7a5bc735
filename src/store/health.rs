//! Whether the disk under the store can still be trusted.
//!
//! Not here: what to do when it cannot. The app stops; a restart reads back what really is on disk.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Error, error::is_failed_write};

/// What is written to find out whether there is room: some pages of the database.
const TRIED_BYTES: usize = 64 * 1024;

/// Shared by all that touches the disk. Once failed it stays so.
#[derive(Clone)]
pub(super) struct Health {
    failed: Arc<watch::Sender<bool>>,
    /// Where our own files lie.
    directory: PathBuf,
}

impl Health {
    pub(super) fn new(directory: &Path) -> Self {
        Self { failed: Arc::new(watch::Sender::new(false)), directory: directory.to_owned() }
    }

    /// `Failed` once the disk has failed.
    pub(super) fn check(&self) -> Result<(), Error> {
        if *self.failed.borrow() { Err(Error::Failed) } else { Ok(()) }
    }

    /// Notes an error, and passes it on.
    pub(super) fn note(&self, error: Error) -> Error {
        if error.is_fatal() && !self.failed.send_replace(true) {
            tracing::error!("the disk failed: nothing more is accepted");
        }
        error
    }

    /// What an error of the database means; noted. SQLite tells of a full disk, but calls it a failed write when a quota is
    /// used up: then a file of our own tells which it was. It is written here and now, since nobody can write anyway.
    pub(super) fn judge(&self, error: sqlx::Error) -> Error {
        let lacks_room = is_failed_write(&error) && is_lack_of_room(&try_to_write(&self.directory));
        if lacks_room { Error::Full } else { self.note(error.into()) }
    }

    /// Returns once the disk has failed.
    pub(super) async fn failure(&self) {
        // The sender lives as long as `self`, so waiting ends only with a failure.
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }
}

fn try_to_write(directory: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&[0; TRIED_BYTES])?;
    file.sync_all()
}

/// The disk is full or a quota is used up: both pass, and nothing is lost.
fn is_lack_of_room(tried: &io::Result<()>) -> bool {
    let kind = tried.as_ref().err().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_quota_is_a_full_disk_and_a_broken_disk_is_not() {
        for (error, expect) in [
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::ReadOnlyFilesystem, false),
            (io::ErrorKind::Other, false),
        ] {
            assert_eq!(is_lack_of_room(&Err(error.into())), expect, "{error:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_lack_of_room(&try_to_write(directory.path())));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
        assert!(!is_lack_of_room(&try_to_write(&directory.path().join("gone"))));
    }
}
