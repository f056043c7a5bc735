//! Opening PostgreSQL: a pool, for many nodes on one database.
//!
//! Not here: retrying. A lost connection or a deadlock is `Error::Unavailable`, and the caller begins again.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    OpenError,
    migrate::{self, Tables},
};

/// Connections of one node. PostgreSQL's default limit is 100 for all nodes together.
const CONNECTIONS_MAX: u32 = 16;
/// How long a transaction waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements each connection keeps prepared: all of ours fit.
const STATEMENTS_PREPARED_MAX: usize = 512;

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
        .connect_with(options)
        .await
        .map_err(OpenError::Database)?;
    let mut connection = pool.acquire().await.map_err(OpenError::Database)?;
    migrate::postgres(&mut connection, tables).await?;
    drop(connection);
    Ok(pool)
}
