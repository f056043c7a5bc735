//! The schema's history, compiled in: bringing a database up to date, or saying how far it is.
//!
//! Not here: going back. Migrations run forward only; a newer store is refused, not guessed at.

use sqlx::{
    PgConnection, SqlStr, SqliteConnection,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::OpenError;

/// Version, name and statements, oldest first.
type History = &'static [(i64, &'static str, &'static str)];

const SQLITE: History = &[(1, "ground", include_str!("../../migrations/sqlite/0001_ground.sql"))];
const POSTGRES: History = &[(1, "ground", include_str!("../../migrations/postgres/0001_ground.sql"))];

/// Where sqlx notes what was done.
const APPLIED_TABLE: &str = "_sqlx_migrations";

/// What opening a store may do to its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// Makes them, or brings them up to date with this release.
    Update,
    /// Takes them as they are, and refuses those of another release.
    Leave,
}

pub(super) async fn sqlite(connection: &mut SqliteConnection, tables: Tables) -> Result<(), OpenError> {
    prepare(SQLITE, connection, tables).await
}

/// Takes PostgreSQL's advisory lock, so that several nodes may start at once.
pub(super) async fn postgres(connection: &mut PgConnection, tables: Tables) -> Result<(), OpenError> {
    prepare(POSTGRES, connection, tables).await
}

async fn prepare<C: Migrate>(history: History, connection: &mut C, tables: Tables) -> Result<(), OpenError> {
    let migrator = migrator(history);
    match tables {
        Tables::Update => migrator.run_direct(None, connection, false).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => OpenError::Newer(version),
            MigrateError::VersionMismatch(version) => OpenError::Altered(version),
            other => OpenError::Migrate(other),
        }),
        Tables::Leave => compare(&migrator, &applied(connection).await?),
    }
}

fn migrator(history: History) -> Migrator {
    let migrations = history.iter().map(|(version, name, text)| {
        let text = SqlStr::from_static(text);
        Migration::new(*version, (*name).into(), MigrationType::Simple, text, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// What was done so far; nothing when there are no tables yet.
async fn applied<C: Migrate>(connection: &mut C) -> Result<Vec<AppliedMigration>, OpenError> {
    match connection.list_applied_migrations(APPLIED_TABLE).await {
        Err(MigrateError::Execute(error)) if is_missing_table(&error) => Ok(Vec::new()),
        found => found.map_err(OpenError::Migrate),
    }
}

fn is_missing_table(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // PostgreSQL's undefined_table; SQLite has one code for whatever is wrong in a statement, and this one is ours.
    code.is_some_and(|code| code == "42P01" || code == "1")
}

fn compare(migrator: &Migrator, applied: &[AppliedMigration]) -> Result<(), OpenError> {
    for done in applied {
        match migrator.iter().find(|migration| migration.version == done.version) {
            None => return Err(OpenError::Newer(done.version)),
            Some(ours) if ours.checksum != done.checksum => return Err(OpenError::Altered(done.version)),
            Some(_) => {}
        }
    }
    let last = applied.iter().map(|done| done.version).max().unwrap_or(0);
    if migrator.iter().any(|migration| migration.version > last) {
        return Err(OpenError::Older(last));
    }
    Ok(())
}
