//! The schema's history, compiled in, and bringing a database up to date.
//!
//! Not here: going back. Migrations run forward only; a newer store is refused, not guessed at.

use sqlx::{
    PgConnection, SqlStr, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::OpenError;

const SQLITE: [(i64, &str, &str); 1] =
    [(1, "ground", include_str!("../../migrations/sqlite/0001_ground.sql"))];
const POSTGRES: [(i64, &str, &str); 1] =
    [(1, "ground", include_str!("../../migrations/postgres/0001_ground.sql"))];

pub(super) async fn sqlite(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    run(&SQLITE, connection).await
}

/// Takes PostgreSQL's advisory lock, so that several nodes may start at once.
pub(super) async fn postgres(connection: &mut PgConnection) -> Result<(), OpenError> {
    run(&POSTGRES, connection).await
}

async fn run<C: Migrate>(
    history: &'static [(i64, &'static str, &'static str)],
    connection: &mut C,
) -> Result<(), OpenError> {
    let migrations = history.iter().map(|(version, name, text)| {
        let text = SqlStr::from_static(text);
        Migration::new(*version, (*name).into(), MigrationType::Simple, text, false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => OpenError::Newer(version),
        MigrateError::VersionMismatch(version) => OpenError::Altered(version),
        other => OpenError::Migrate(other),
    })
}
