//! Keeps everything: one API of product verbs over SQLite or PostgreSQL, sealed content, and the bytes of messages.
//!
//! Not here: deciding anything. Verbs write what `core` has decided; a transaction that is dropped has written nothing.
//! A statement needs a workspace's session, so that none can be written that forgets whose data it touches.

mod blobs;
mod columns;
mod error;
mod grants;
mod health;
mod intake;
mod migrate;
mod page;
mod parted_grants;
mod postgres;
mod sql;
mod sqlite;
mod statement;
mod vault;
mod work;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

// The verbs, a file a noun.
mod account_octets;
mod account_sent;
mod accounts;
mod answers;
mod audit;
mod connect_links;
mod contacts;
mod conversations;
mod coverage;
mod credentials;
mod decisions;
mod erase_account;
mod erasure;
mod events;
mod exits;
mod filing;
mod gateway_keys;
mod held;
mod idempotency;
mod keys;
mod leases;
mod limits;
mod lookups;
mod mailboxes;
mod messages;
mod order_keys;
mod policies;
mod proof;
mod quarantine;
mod repairs;
mod replay;
mod rotation;
mod routes;
mod sender_checks;
mod sightings;
mod smarthosts;
mod subjects;
mod submissions;
mod thread_keys;
mod trail;
mod users;
mod visibility;
mod webhooks;
mod workspaces;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

pub use accounts::AccountFilter;
pub use answers::{AnswerName, InstanceRequest, KeptAnswer};
pub use audit::{AUDIT_ROWS_MAX, CameIn, KeptRow, QueuedJob, RULES, Rule, SentTo, WeighedSender};
pub use blobs::{BLOB_INLINE_BYTES_MAX, SealedBlob, SealedContent};
pub use connect_links::{ConnectLink, Departed, Departure};
pub use contacts::{AddressMatch, ContactFilter, ContactMatch};
pub use conversations::{ConversationFilter, ConversationRef, Merged};
pub use decisions::{DecisionFilter, PolicyStamp, TextHasher, TracedId};
pub use erase_account::Trace;
pub use error::{Error, OpenError};
pub use events::JOURNAL_ROWS_MAX;
pub use exits::{AccountAccess, SmarthostAccess};
pub use filing::{InboundHead, SameContent};
pub use grants::{Edition, Grant, Issued, Kept, Tokens};
pub use idempotency::{Idempotency, RequestKey};
pub use intake::{InboundRow, InboundState, Taken};
pub use leases::{Lease, Leased};
pub use limits::{ToldLevel, Waiting};
pub use messages::KnownId;
pub use order_keys::ORDER_KEY_USED;
pub use page::{PURGE_ROWS_MAX, Page, PageKey};
pub use parted_grants::PartedGrant;
pub use quarantine::HeldFilter;
pub use repairs::Repair;
pub use sender_checks::{NewSenderCheck, SenderCheck, Verification};
pub use sightings::{Renumbering, SightedId};
pub(crate) use sql::{Arg, Query, Row, placeholders, sql};
pub(crate) use statement::Statement;
pub use subjects::HashedSubject;
pub use submissions::SubmissionStep;
pub(crate) use vault::Place;
pub use vault::{MasterKey, MasterKeyError};
pub use visibility::{Sees, Viewer};
pub use webhooks::OLD_SECRET_LASTS;
pub use work::{ReadSystem, Session, System, Tx};
pub use workspaces::WorkspaceChange;

use crate::core::{
    ids::{Id, WorkspaceId},
    job::JobKind,
};
use blobs::BlobDir;
use health::Health;
use intake::{Batcher, Pressure};
use migrate::Tables;
use sqlite::Embedded;
use vault::Vault;
use work::{Link, Work};
use writer::Rank;

/// Where a store lies and what opens it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sqlite:///absolute/path`, `sqlite://relative/path` or `postgres://…`.
    pub url: String,
    /// Where messages too large for a row lie, a file each. All nodes must see the same directory.
    pub blob_dir: PathBuf,
    pub master_key: MasterKey,
}

/// How many commits have brought new jobs of each kind.
pub(crate) type Enqueued = BTreeMap<JobKind, u64>;

/// The store. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

pub(crate) struct Shared {
    engine: Engine,
    health: Health,
    vault: Vault,
    blobs: BlobDir,
    batcher: Batcher,
    pressure: Pressure,
    routes: lookups::RouteCache,
    /// Counts commits that brought new jobs, of each kind.
    enqueued: watch::Sender<Enqueued>,
    /// Counts commits that brought new events.
    announced: watch::Sender<u64>,
}

enum Engine {
    Sqlite(Embedded),
    Postgres(PgPool),
}

/// A new id: UUID version 7, so that ids of one node sort by the time they were made.
#[must_use]
pub fn mint<I: Id>() -> I {
    I::from_uuid(Uuid::now_v7())
}

impl Store {
    /// Opens the store, makes it when there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// When it is in use by another process, newer than this release, or cannot be read or made.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        Self::open_with(options, Tables::Update).await
    }

    /// Opens a store to look at it: its tables stay as they are.
    ///
    /// # Errors
    /// As [`Store::open`], and [`OpenError::Older`] when this release would have to change them first.
    pub async fn open_as_it_is(options: &Options) -> Result<Self, OpenError> {
        Self::open_with(options, Tables::Leave).await
    }

    async fn open_with(options: &Options, tables: Tables) -> Result<Self, OpenError> {
        let blobs = BlobDir::open(&options.blob_dir)
            .map_err(|source| OpenError::Path { path: options.blob_dir.clone(), source })?;
        let url = parse_url(&options.url)?;
        let health = Health::new(match url {
            Url::Sqlite(path) => {
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
            Url::Postgres(_) => &options.blob_dir,
        });
        let engine = match url {
            Url::Sqlite(path) => Engine::Sqlite(Embedded::open(path, health.clone(), tables).await?),
            Url::Postgres(url) => Engine::Postgres(postgres::open(url, tables).await?),
        };
        let (batcher, batches) = intake::batcher();
        let store = Self(Arc::new(Shared {
            engine,
            health,
            vault: Vault::new(options.master_key.clone()),
            blobs,
            batcher,
            pressure: Pressure::new(),
            routes: lookups::route_cache(),
            enqueued: watch::Sender::new(Enqueued::default()),
            announced: watch::Sender::new(0),
        }));
        if let Err(error) = store.prove_master_key().await {
            // Let go of the files before saying so: whoever tries again must not find them in use.
            store.close().await;
            return Err(error);
        }
        batches.start(&store);
        Ok(store)
    }

    /// Begins a write transaction in one workspace. With SQLite everybody who writes waits for its end, so in it wait for
    /// nothing but its own statements: no network, and above all no second transaction, which would wait for ever.
    /// Kept over 30 s it is reported as a bug.
    ///
    /// # Errors
    /// When the database is out of reach, or the disk has failed.
    pub async fn begin(&self, workspace: WorkspaceId) -> Result<Tx, Error> {
        Ok(Tx::new(workspace, self.write(Rank::Normal).await?))
    }

    /// Opens one workspace for reading. Each statement sees what is committed when it starts.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn read(&self, workspace: WorkspaceId) -> Result<Session, Error> {
        Ok(Session::new(workspace, self.look().await?))
    }

    /// Begins a write transaction across workspaces.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn system(&self) -> Result<System, Error> {
        Ok(System::new(self.write(Rank::Normal).await?))
    }

    /// As [`Store::system`], before others that wait for the writer.
    pub(super) async fn system_first(&self) -> Result<System, Error> {
        Ok(System::new(self.write(Rank::First).await?))
    }

    /// Opens all workspaces for reading.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn system_read(&self) -> Result<ReadSystem, Error> {
        Ok(ReadSystem::new(self.look().await?))
    }

    /// Returns once the disk has failed: then stop, and let a restart read back what is on it.
    pub async fn failure(&self) {
        self.0.health.failure().await;
    }

    /// Moves what was deleted out of SQLite's log too, for good. PostgreSQL keeps its log for replicas: there erasure
    /// rests on destroyed keys.
    ///
    /// # Errors
    /// When the log could not be emptied.
    pub async fn scrub(&self) -> Result<(), Error> {
        match &self.0.engine {
            Engine::Sqlite(embedded) => embedded.writer.checkpoint().await,
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Closes the files; every later use fails.
    pub async fn close(&self) {
        match &self.0.engine {
            Engine::Sqlite(embedded) => {
                embedded.readers.close().await;
                embedded.writer.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }

    /// The clock by which leases are given and end: with PostgreSQL the database's, which all nodes share, since nodes' own
    /// may be seconds apart.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn clock(&self) -> Result<Timestamp, Error> {
        if !self.is_shared() {
            return Ok(Timestamp::now());
        }
        let query = sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now");
        self.system_read().await?.fetch_one(query).await?.get("now")
    }

    /// Changes whenever a commit has brought new jobs.
    pub(crate) fn enqueued(&self) -> watch::Receiver<Enqueued> {
        self.0.enqueued.subscribe()
    }

    /// Changes whenever a commit of this process has brought new events.
    #[must_use]
    pub fn announced(&self) -> watch::Receiver<u64> {
        self.0.announced.subscribe()
    }

    /// Tells whoever follows a journal to look.
    pub(crate) fn announce_events(&self) {
        self.0.announced.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells whoever waits for jobs of these kinds to look.
    pub(crate) fn announce_jobs(&self, kinds: &[JobKind]) {
        self.0.enqueued.send_modify(|enqueued| {
            for kind in kinds {
                let count = enqueued.entry(*kind).or_default();
                *count = count.wrapping_add(1);
            }
        });
    }

    /// Whether this is PostgreSQL, where other nodes write too and rows must be locked.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.0.engine, Engine::Postgres(_))
    }

    /// Flushes of the embedded database for commits so far; 0 with PostgreSQL.
    #[must_use]
    pub fn group_commits(&self) -> u64 {
        match &self.0.engine {
            Engine::Sqlite(embedded) => embedded.writer.commits(),
            Engine::Postgres(_) => 0,
        }
    }

    /// Boxed for the same reason as statements are.
    async fn write(&self, rank: Rank) -> Result<Work, Error> {
        self.0.health.check()?;
        let link = match &self.0.engine {
            Engine::Sqlite(embedded) => Link::Turn(Box::pin(embedded.writer.turn(rank)).await?),
            Engine::Postgres(pool) => Link::Transaction(Box::pin(pool.begin()).await?),
        };
        Ok(Work::new(self.clone(), link))
    }

    async fn look(&self) -> Result<Work, Error> {
        let link = match &self.0.engine {
            Engine::Sqlite(embedded) => Link::Reader(Box::pin(embedded.readers.acquire()).await?),
            Engine::Postgres(pool) => Link::Pooled(Box::pin(pool.acquire()).await?),
        };
        Ok(Work::new(self.clone(), link))
    }
}

enum Url<'a> {
    Sqlite(&'a Path),
    Postgres(&'a str),
}

fn parse_url(url: &str) -> Result<Url<'_>, OpenError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Url::Postgres(url));
    }
    // What is no PostgreSQL url holds no password, and may be shown.
    let path = url.strip_prefix("sqlite://").filter(|path| !path.is_empty() && !path.contains('?'));
    path.map(|path| Url::Sqlite(Path::new(path))).ok_or_else(|| OpenError::Url(url.to_owned()))
}
