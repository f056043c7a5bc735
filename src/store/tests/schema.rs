//! The two schemas are one, and the store knows which it can work with.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};

use crate::store::{
    MasterKey, OpenError, Store,
    error::CONSTRAINTS,
    sql,
    testing::{World, both},
};

const SQLITE_COLUMNS: &str = "select t.name as t, c.name as c, c.\"notnull\" as n, c.type as k \
     from sqlite_schema t, pragma_table_info(t.name) c where t.type = 'table' and t.name not like 'sqlite%'";
const POSTGRES_COLUMNS: &str = "select table_name::text as t, column_name::text as c, \
     case when is_nullable = 'NO' then 1 else 0 end as n, data_type::text as k \
     from information_schema.columns where table_schema = 'public'";

/// Column by column: table, name, whether it must have a value, and what it holds.
async fn columns(world: &World, text: &'static str) -> BTreeSet<(String, String, bool, String)> {
    let rows = world.store.system_read().await.unwrap().fetch_all(sql(text)).await.unwrap();
    rows.iter()
        .map(|row| {
            (row.get("t").unwrap(), row.get("c").unwrap(), row.get("n").unwrap(), row.get("k").unwrap())
        })
        .filter(|(table, ..): &(String, _, _, _)| !table.starts_with("_sqlx"))
        .collect()
}

#[tokio::test]
async fn both_engines_have_the_same_tables_and_columns() {
    let (sqlite, postgres) = (World::sqlite().await, World::postgres().await);
    let as_sqlite = |(table, column, not_null, kind): (String, String, bool, String)| {
        let kind = match kind.as_str() {
            "uuid" | "bytea" => "BLOB",
            "bigint" => "INTEGER",
            "text" => "TEXT",
            other => panic!("{table}.{column} is a {other}"),
        };
        (table, column, not_null, kind.to_owned())
    };
    let postgres: BTreeSet<_> =
        columns(&postgres, POSTGRES_COLUMNS).await.into_iter().map(as_sqlite).collect();
    // An integer primary key says nothing of nulls: SQLite never stores one there.
    let sqlite: BTreeSet<_> = columns(&sqlite, SQLITE_COLUMNS)
        .await
        .into_iter()
        .map(|(table, column, not_null, kind)| {
            let not_null = not_null || (table == "jobs" && column == "id");
            (table, column, not_null, kind.to_ascii_uppercase())
        })
        .collect();
    assert_eq!(sqlite.difference(&postgres).collect::<Vec<_>>(), Vec::<&_>::new());
    assert_eq!(postgres.difference(&sqlite).collect::<Vec<_>>(), Vec::<&_>::new());
    assert!(sqlite.len() > 200);
}

/// The words in which the two dialects differ: PostgreSQL's, and SQLite's for the same.
const DIALECTS: [(&str, &str); 7] = [
    ("uuid", "blob"),
    ("bytea", "blob"),
    ("bigint generated always as identity primary key", "integer primary key autoincrement"),
    ("bigint", "integer"),
    ("coalesce(account, '00000000-0000-0000-0000-000000000000')", "ifnull(account, x'')"),
    (") strict, without rowid;", ");"),
    (") strict;", ");"),
];

/// Keys, references, checks and indexes too, which the columns do not tell.
#[test]
fn the_two_schemas_are_the_same_line_by_line() {
    let lines = |text: &str| {
        let mut text: String =
            text.lines().filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect();
        for (one, other) in DIALECTS {
            text = text.replace(one, other);
        }
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let sqlite = lines(include_str!("../../../migrations/sqlite/0001_ground.sql"));
    let postgres = lines(include_str!("../../../migrations/postgres/0001_ground.sql"));
    for (number, (one, other)) in (1..).zip(sqlite.iter().zip(&postgres)) {
        assert_eq!(one, other, "statement line {number}");
    }
    assert_eq!(sqlite.len(), postgres.len());
}

#[tokio::test]
async fn every_unique_constraint_has_its_name() {
    let known: BTreeSet<String> = CONSTRAINTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let text = "select i.relname::text as name from pg_index x join pg_class i on i.oid = x.indexrelid \
         join pg_class t on t.oid = x.indrelid join pg_namespace n on n.oid = t.relnamespace \
         where x.indisunique and n.nspname = 'public' and t.relname not like '\\_sqlx%'";
    let world = World::postgres().await;
    let rows = world.store.system_read().await.unwrap().fetch_all(sql(text)).await.unwrap();
    let postgres: BTreeSet<String> = rows.iter().map(|row| row.get("name").unwrap()).collect();
    assert_eq!(postgres, known);
}

#[tokio::test]
async fn sqlites_columns_are_translated_to_the_constraints_names() {
    let text = "select t.name as t, i.name as i, c.name as c from sqlite_schema t, pragma_index_list(t.name) i, \
         pragma_index_info(i.name) c where t.type = 'table' and i.\"unique\" = 1 and t.name not like '\\_sqlx%' escape '\\' \
         order by t.name, i.name, c.seqno";
    let world = World::sqlite().await;
    let mut indexes: BTreeMap<(String, String), Vec<Option<String>>> = BTreeMap::new();
    for row in world.store.system_read().await.unwrap().fetch_all(sql(text)).await.unwrap() {
        let table: String = row.get("t").unwrap();
        let column = row.get::<Option<String>>("c").unwrap().map(|column| format!("{table}.{column}"));
        indexes.entry((table, row.get("i").unwrap())).or_default().push(column);
    }
    let mut said: BTreeSet<String> = indexes
        .into_iter()
        .map(|((_, index), columns)| {
            let columns: Option<Vec<_>> = columns.into_iter().collect();
            columns.map_or_else(|| format!("index '{index}'"), |columns| columns.join(", "))
        })
        .collect();
    // Integer primary keys are no index.
    said.extend(["jobs.id".to_owned(), "vault.id".to_owned()]);
    let known: BTreeSet<String> = CONSTRAINTS.iter().map(|(_, said)| (*said).to_owned()).collect();
    assert_eq!(said, known);
}

both! {
    async fn a_store_of_a_newer_release_is_refused(world) {
        let text = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             values (999, 'of next year', true, '\\x00', 0)";
        world.store.close().await;
        execute_raw(&world, text).await;
        for refused in [Store::open(&world.options).await, Store::open_as_it_is(&world.options).await] {
            assert!(matches!(refused.err(), Some(OpenError::Newer(999))));
        }
        execute_raw(&world, "delete from _sqlx_migrations where version = 999").await;
        let again = Store::open(&world.options).await;
        assert!(again.is_ok(), "what was refused has let go of everything: {:?}", again.err());
    }

    async fn looking_at_a_store_brings_no_tables_up_to_date(world) {
        world.store.close().await;
        Store::open_as_it_is(&world.options).await.unwrap().close().await;
        execute_raw(&world, "delete from _sqlx_migrations").await;
        let refused = Store::open_as_it_is(&world.options).await.err();
        assert!(matches!(refused, Some(OpenError::Older(0))), "{refused:?}");
        execute_raw(&world, "drop table _sqlx_migrations").await;
        let refused = Store::open_as_it_is(&world.options).await.err();
        assert!(matches!(refused, Some(OpenError::Older(0))), "{refused:?}");
    }

    async fn a_store_made_with_another_master_key_is_refused(world) {
        world.store.close().await;
        let mut options = world.options.clone();
        options.master_key = MasterKey::from_bytes([8; 32]);
        assert!(matches!(Store::open(&options).await.err(), Some(OpenError::MasterKey)));
        let again = Store::open(&world.options).await;
        assert!(again.is_ok(), "what was refused has let go of everything: {:?}", again.err());
    }
}

/// As another program would, past the store.
async fn execute_raw(world: &World, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    if let Some(path) = world.options.url.strip_prefix("sqlite://") {
        let mut connection = SqliteConnection::connect(path).await.unwrap();
        connection.execute(text).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&world.options.url).await.unwrap();
        connection.execute(text).await.unwrap();
    }
}

#[tokio::test]
async fn the_embedded_database_is_set_up_to_keep_what_it_acknowledged_and_to_forget_what_it_deleted() {
    let world = World::sqlite().await;
    let mut tx = world.store.system().await.unwrap();
    for (pragma, expect) in [
        ("synchronous", "2"),
        ("secure_delete", "1"),
        ("foreign_keys", "1"),
        ("page_size", "8192"),
        ("wal_autocheckpoint", "4000"),
        ("mmap_size", "0"),
    ] {
        let row = tx.fetch_one(sql(format!("pragma {pragma}"))).await.unwrap();
        let crate::store::Row::Sqlite(row) = row else { panic!("this is SQLite") };
        assert_eq!(row.try_get::<i64, _>(0).unwrap().to_string(), expect, "{pragma}");
    }
    let row = tx.fetch_one(sql("select journal_mode as mode from pragma_journal_mode")).await.unwrap();
    assert_eq!(row.get::<String>("mode").unwrap(), "wal");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::sqlite().await;
    world.workspace().await;
    for name in ["mailweave.db", "mailweave.db-wal", "mailweave.db-shm", "mailweave.db.lock"] {
        let mode = std::fs::metadata(world.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_closed() {
    let world = World::sqlite().await;
    assert!(matches!(Store::open(&world.options).await.err(), Some(OpenError::InUse(_))));
    world.store.close().await;
    let again = Store::open(&world.options).await.unwrap();
    assert!(world.store.system().await.is_err(), "the closed one stays closed");
    again.close().await;
}

/// What a session of a newly opened store works with, when the database says this.
async fn synchronous_commit(world: &World, of_database: &str) -> String {
    let name = world.options.url.rsplit('/').find_map(|part| part.split_once("?host=")).unwrap().0;
    execute_raw(world, &format!("alter database {name} set synchronous_commit to '{of_database}'")).await;
    let store = Store::open(&world.options).await.unwrap();
    let query = sql("select current_setting('synchronous_commit') as value");
    let value = store.system_read().await.unwrap().fetch_one(query).await.unwrap().get("value").unwrap();
    store.close().await;
    value
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_database_says() {
    let world = World::postgres().await;
    assert_eq!(synchronous_commit(&world, "off").await, "on");
    assert_eq!(synchronous_commit(&world, "remote_apply").await, "remote_apply");
}

#[tokio::test]
async fn a_url_of_neither_engine_is_refused() {
    let world = World::sqlite().await;
    for url in ["", "sqlite://", "sqlite://a?mode=memory", "mysql://localhost/x", "/var/lib/mailweave.db"] {
        let mut options = world.options.clone();
        url.clone_into(&mut options.url);
        assert!(matches!(Store::open(&options).await.err(), Some(OpenError::Url(_))), "{url}");
    }
}
