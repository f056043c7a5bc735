//! Opening PostgreSQL: a pool, for many nodes on one database, on which a commit is on disk when it is done.
//!
//! Not here: retrying. A lost connection or a deadlock is `Error::Unavailable`, and the caller begins again.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Error, OpenError, Store,
    migrate::{self, Tables},
    sql::sql,
};

/// Connections of one node. PostgreSQL's default limit is 100 for all nodes together.
const CONNECTIONS_MAX: u32 = 16;
/// How long a transaction waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements each connection keeps prepared: all of ours fit.
const STATEMENTS_PREPARED_MAX: usize = 512;

/// Pins down for the whole session that a commit waits for the disk, whatever the server, the role or the database says; a
/// stricter choice, which waits for standbys too, stands.
const DURABLE: &str = "select set_config('synchronous_commit', \
     case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end, \
     false)";

pub(super) async fn open(url: &str, tables: Tables) -> Result<PgPool, OpenError> {
    let options = PgConnectOptions::from_str(url)
        // The url may hold a password: the error says only what is wrong with it.
        .map_err(OpenError::Database)?
        .application_name("mailweave")
        .statement_cache_capacity(STATEMENTS_PREPARED_MAX)
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(DURABLE).await.map(drop) }))
        .connect_with(options)
        .await
        .map_err(OpenError::Database)?;
    match migrated(&pool, tables).await {
        Ok(()) => Ok(pool),
        Err(refusal) => {
            pool.close().await;
            Err(refusal)
        }
    }
}

async fn migrated(pool: &PgPool, tables: Tables) -> Result<(), OpenError> {
    let mut connection = pool.acquire().await.map_err(OpenError::Database)?;
    migrate::postgres(&mut connection, tables).await
}

impl Store {
    /// Settings of the PostgreSQL server that lose committed data when its machine goes down, and that no session can
    /// overrule. None with the embedded store.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn settings_that_lose_data(&self) -> Result<Vec<String>, Error> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        let query = sql("select name from pg_settings where name in ('fsync', 'full_page_writes') \
             and setting = 'off' order by name");
        self.system_read().await?.fetch_all(query).await?.iter().map(|row| row.get("name")).collect()
    }
}
