//! Opening the embedded database: one writing connection, a few reading ones, and a lock that keeps other processes out.
//!
//! Not here: sharing the writer among transactions (`writer`).

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    OpenError,
    health::Health,
    migrate::{self, Tables},
    writer::{self, Writer},
};

/// Reading connections. Each has a thread of its own; more than cores would only wait for one another.
const READERS: u32 = 4;
/// How long a statement waits for a lock. Only a foreign tool that has the file open can hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements each connection keeps prepared: all of ours fit.
const STATEMENTS_PREPARED_MAX: usize = 512;
/// Rows carry a compressed message each; on 4 KiB pages most would spill into chains of overflow pages.
const PAGE_BYTES: u32 = 8192;
/// 32 MiB of log between checkpoints: each checkpoint costs two more flushes.
const CHECKPOINT_PAGES: &str = "4000";
/// What the log is cut back to after a checkpoint that emptied it.
const LOG_BYTES_MAX: &str = "67108864";
/// Page cache in KiB, negative as SQLite wants it.
const WRITER_CACHE: &str = "-32768";
const READER_CACHE: &str = "-8192";

/// Keeps other processes out as long as it lives.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is just being started holds a copy of it.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock of the store could not be let go");
        }
    }
}

/// The embedded engine.
pub(super) struct Embedded {
    pub(super) writer: Writer,
    pub(super) readers: SqlitePool,
}

impl Embedded {
    pub(super) async fn open(path: &Path, health: Health, tables: Tables) -> Result<Self, OpenError> {
        let lock = prepare(path)?;
        let mut connection = writing(path).connect().await.map_err(OpenError::Database)?;
        // Whoever is refused must find no file in use when he tries again: a connection that is only dropped lets go of
        // its files later, on a thread of its own.
        if let Err(refusal) = migrate::sqlite(&mut connection, tables).await {
            drop(connection.close().await);
            return Err(refusal);
        }
        let writer = writer::start(connection, lock, health);
        // Opened after the writer made the log, which a reading connection may not.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(reading(path))
            .await;
        match readers {
            Ok(readers) => Ok(Self { writer, readers }),
            Err(error) => {
                writer.close().await;
                Err(OpenError::Database(error))
            }
        }
    }
}

fn common(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_PREPARED_MAX)
        .pragma("temp_store", "memory")
        // A failing disk under a mapped page kills the process; a failing read is an error that can be told.
        .pragma("mmap_size", "0")
        .disable_statement_logging()
}

fn writing(path: &Path) -> SqliteConnectOptions {
    common(path)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        // With NORMAL an acknowledged commit is lost with the power.
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "on")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
        .pragma("cache_size", WRITER_CACHE)
}

fn reading(path: &Path) -> SqliteConnectOptions {
    common(path).read_only(true).pragma("query_only", "on").pragma("cache_size", READER_CACHE)
}

/// Makes the file, readable by nobody else, and locks its neighbour for as long as the returned handle lives.
fn prepare(path: &Path) -> Result<Lock, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Path { path, source }
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    let lock_path = lock_path(path);
    let private = |path: &Path| {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
    };
    let lock = private(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(lock_path)),
        Err(std::fs::TryLockError::Error(source)) => return Err(OpenError::Path { path: lock_path, source }),
    }
    // SQLite gives its log and index files the database's own mode.
    private(path).map_err(failed(path))?;
    Ok(Lock(lock))
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_with_its_holder_also_while_a_child_process_has_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailweave.db");
        let lock = prepare(&path).unwrap();
        assert!(matches!(prepare(&path), Err(OpenError::InUse(_))));
        // As every child has, until it becomes another program.
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(prepare(&path).is_ok());
        drop(copy);
    }
}
