//! Sessions and transactions: who may say what to the database, and what happens after a commit.
//!
//! Not here: the verbs. Each noun's file adds its own to `Session` (reading) and `Tx` (writing).

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Instant,
};

use sqlx::{PgTransaction, Postgres, Sqlite, pool::PoolConnection};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Error, Query, Row, Store, sql::Wire, vault::ContentKey, visibility::Viewer, writer::Turn};
use crate::core::ids::WorkspaceId;

/// A connection for one session or transaction.
pub(super) enum Link {
    Reader(PoolConnection<Sqlite>),
    Turn(Turn),
    Pooled(PoolConnection<Postgres>),
    Transaction(PgTransaction<'static>),
}

/// Done once the transaction is durable; never when it is not.
type AfterCommit = Box<dyn FnOnce(&Store) + Send>;

/// What sessions and transactions of all kinds are made of. Statements are boxed: the drivers' futures are large, and each
/// verb would hold several of them.
pub(super) struct Work {
    pub(super) store: Store,
    link: Link,
    /// A statement failed, or was not waited for: PostgreSQL then takes no more, so SQLite does not either.
    spoiled: bool,
    after_commit: Vec<AfterCommit>,
    /// Keys made or read in this transaction, which others may see only when it is durable.
    pub(super) keys: Vec<((WorkspaceId, Uuid), Arc<ContentKey>)>,
}

impl Link {
    fn wire(&mut self) -> Result<Wire<'_>, Error> {
        Ok(match self {
            Self::Reader(connection) => Wire::Sqlite(connection),
            Self::Turn(turn) => Wire::Sqlite(turn.connection().ok_or(Error::Failed)?),
            Self::Pooled(connection) => Wire::Postgres(connection),
            Self::Transaction(transaction) => Wire::Postgres(transaction),
        })
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Turn(_) | Self::Transaction(_))
    }
}

impl Work {
    pub(super) fn new(store: Store, link: Link) -> Self {
        Self { store, link, spoiled: false, after_commit: Vec::new(), keys: Vec::new() }
    }

    pub(super) fn writes(&self) -> bool {
        self.link.writes()
    }

    async fn fetch_all(&mut self, query: Query) -> Result<Vec<Row>, Error> {
        let wire = self.start()?;
        let done = Box::pin(wire.fetch_all(query)).await;
        self.finish(done)
    }

    async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, Error> {
        let wire = self.start()?;
        let done = Box::pin(wire.fetch_optional(query)).await;
        self.finish(done)
    }

    async fn fetch_one(&mut self, query: Query) -> Result<Row, Error> {
        self.fetch_optional(query).await?.ok_or(Error::Missing)
    }

    async fn execute(&mut self, query: Query) -> Result<u64, Error> {
        let wire = self.start()?;
        let done = Box::pin(wire.execute(query)).await;
        self.finish(done)
    }

    /// Marks the transaction as spoiled until the statement has come back well: its future may be dropped before.
    fn start(&mut self) -> Result<Wire<'_>, Error> {
        if self.spoiled {
            return Err(Error::refused("an earlier statement of this transaction failed"));
        }
        self.spoiled = self.link.writes();
        self.link.wire()
    }

    fn finish<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, Error> {
        match done {
            Ok(value) => {
                self.spoiled = false;
                Ok(value)
            }
            Err(error) => {
                let error = self.store.0.health.judge(error);
                if let Link::Turn(turn) = &mut self.link {
                    turn.blame(&error);
                }
                Err(error)
            }
        }
    }

    async fn commit(self) -> Result<(), Error> {
        if self.spoiled {
            return Err(Error::refused("a statement of this transaction failed"));
        }
        // In a task of its own: what was begun comes to its end, and what follows is done, also when nobody waits any more.
        match tokio::spawn(self.commit_whole().in_current_span()).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::refused("the process is stopping")),
        }
    }

    async fn commit_whole(self) -> Result<(), Error> {
        let started = Instant::now();
        match self.link {
            Link::Turn(turn) => Box::pin(turn.commit()).await?,
            Link::Transaction(transaction) => {
                let done = Box::pin(transaction.commit()).await;
                done.map_err(|error| self.store.0.health.judge(error))?;
            }
            Link::Reader(_) | Link::Pooled(_) => {}
        }
        metrics::histogram!("mailweave_store_commit_seconds").record(started.elapsed().as_secs_f64());
        for (id, key) in self.keys {
            Box::pin(self.store.0.vault.remember(id, key)).await;
        }
        for effect in self.after_commit {
            effect(&self.store);
        }
        Ok(())
    }
}

macro_rules! reads {
    ($type:ty) => {
        impl $type {
            pub(crate) async fn fetch_all(&mut self, query: Query) -> Result<Vec<Row>, Error> {
                self.work.fetch_all(query).await
            }

            pub(crate) async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, Error> {
                self.work.fetch_optional(query).await
            }

            /// # Errors
            /// `Missing` when there is no such row.
            pub(crate) async fn fetch_one(&mut self, query: Query) -> Result<Row, Error> {
                self.work.fetch_one(query).await
            }
        }
    };
}

macro_rules! writes {
    ($type:ty, $reads:ident, $target:ty) => {
        impl $type {
            /// How many rows the statement touched.
            pub(crate) async fn execute(&mut self, query: Query) -> Result<u64, Error> {
                self.$reads.work.execute(query).await
            }

            /// Has something done once this is durable. What must not be forgotten in a crash is a job instead.
            pub(crate) fn on_commit(&mut self, effect: impl FnOnce(&Store) + Send + 'static) {
                self.$reads.work.after_commit.push(Box::new(effect));
            }

            /// Returns when everything is durable.
            ///
            /// # Errors
            /// Nothing was written, except when the answer was lost on the way from PostgreSQL.
            pub async fn commit(self) -> Result<(), Error> {
                self.$reads.work.commit().await
            }
        }

        impl Deref for $type {
            type Target = $target;
            fn deref(&self) -> &$target {
                &self.$reads
            }
        }

        impl DerefMut for $type {
            fn deref_mut(&mut self) -> &mut $target {
                &mut self.$reads
            }
        }
    };
}

/// Reads in one workspace.
pub struct Session {
    workspace: WorkspaceId,
    /// From whom something is hidden in what is read.
    pub(super) viewer: Option<Viewer>,
    /// The journal tells of mail that was left out, whoever's it was.
    pub(super) tells_skipped: bool,
    pub(super) work: Work,
}

/// Whom the trail names for what nobody asked for.
const GATEWAY: &str = "gateway";

/// Writes in one workspace. Dropped without `commit`, it has done nothing.
pub struct Tx {
    session: Session,
    /// Whom the trail names for what is done.
    actor: String,
}

/// Reads across workspaces, for the few questions that come before a workspace is known.
pub struct ReadSystem {
    work: Work,
}

/// Writes across workspaces. Dropped without `commit`, it has done nothing.
pub struct System {
    reads: ReadSystem,
}

impl Session {
    pub(super) fn new(workspace: WorkspaceId, work: Work) -> Self {
        Self { workspace, viewer: None, tells_skipped: true, work }
    }

    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    pub(crate) fn store(&self) -> &Store {
        &self.work.store
    }
}

impl Tx {
    pub(super) fn new(workspace: WorkspaceId, work: Work) -> Self {
        Self { session: Session::new(workspace, work), actor: GATEWAY.to_owned() }
    }

    /// Does what follows in the name of somebody: the id of a key or user, or a word.
    #[must_use]
    pub fn acting_for(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    pub(super) fn actor(&self) -> &str {
        &self.actor
    }
}

impl ReadSystem {
    pub(super) fn new(work: Work) -> Self {
        Self { work }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.work.store
    }
}

impl System {
    pub(super) fn new(work: Work) -> Self {
        Self { reads: ReadSystem::new(work) }
    }
}

reads!(Session);
reads!(ReadSystem);
writes!(Tx, session, Session);
writes!(System, reads, ReadSystem);
