//! Stores for tests: one on each engine, gone when the test is.
//!
//! Not here: the tests. PostgreSQL is started once a process, in a directory of its own, without flushing to disk; a
//! machine without it fails the tests rather than passing half of them.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::{MasterKey, Options, Store, mint, sql};
use crate::core::ids::WorkspaceId;

/// Runs one test on both engines: `both! { async fn name(world) { … } }`.
macro_rules! both {
    ($(async fn $name:ident($world:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs all that its file imports")]
            use super::*;

            async fn run($world: $crate::store::testing::World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run($crate::store::testing::World::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run($crate::store::testing::World::postgres().await).await;
            }
        }
    )*};
}
pub(crate) use both;

/// A store and all its files.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) directory: TempDir,
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let url = format!("sqlite://{}/mailweave.db", directory.path().display());
        Self::open(url, directory).await
    }

    pub(crate) async fn postgres() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self::open(create_database().await, directory).await
    }

    async fn open(url: String, directory: TempDir) -> Self {
        let blob_dir = directory.path().join("blobs");
        let options = Options { url, blob_dir, master_key: MasterKey::from_bytes([7; 32]) };
        let store = Store::open(&options).await.expect("a new store opens");
        Self { store, options, directory }
    }

    /// A workspace with nothing in it.
    pub(crate) async fn workspace(&self) -> WorkspaceId {
        let id: WorkspaceId = mint();
        let mut system = self.store.system().await.unwrap();
        let insert = sql("insert into workspaces (id, slug, name, timezone, preset, created_at) \
             values ($1, $2, $2, 'UTC', 'default', $3)");
        system.execute(insert.bind(id).bind(id.to_string()).bind(Timestamp::UNIX_EPOCH)).await.unwrap();
        system.commit().await.unwrap();
        id
    }
}

/// A private server; it ends, and its directory goes, when the process lets go of its standard input by ending itself.
struct Cluster {
    directory: String,
    _server: Child,
}

const CLUSTER: &str = r#"
set -e
PATH="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1):$PATH"
template="/tmp/mailweave-test-postgres-$(id -u)"
mkdir -p "$template"
(
    flock 9
    if [ ! -f "$template/ready" ]; then
        rm -rf "$template/data"
        initdb -D "$template/data" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null
        touch "$template/ready"
    fi
) 9>"$template/lock"
directory="$(mktemp -d /tmp/mailweave-pg.XXXXXX)"
cp -r "$template/data" "$directory/data"
options="-F -c listen_addresses= -c unix_socket_directories=$directory -c max_connections=300 -c autovacuum=off"
pg_ctl -D "$directory/data" -l "$directory/log" -w -o "$options" start >/dev/null
echo "$directory"
read -r _ || true
pg_ctl -D "$directory/data" -m immediate stop >/dev/null 2>&1 || true
rm -rf "$directory"
"#;

fn cluster() -> &'static Cluster {
    static CLUSTER_OF_PROCESS: OnceLock<Cluster> = OnceLock::new();
    CLUSTER_OF_PROCESS.get_or_init(|| {
        // PostgreSQL refuses to run as root.
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
        let mut command = if root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh", "-c", CLUSTER]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", CLUSTER]);
            command
        };
        let mut child = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let mut directory = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut directory).unwrap();
        let directory = directory.trim().to_owned();
        assert!(!directory.is_empty(), "PostgreSQL must be installed to test the store");
        Cluster { directory, _server: child }
    })
}

async fn create_database() -> String {
    let directory = tokio::task::spawn_blocking(|| cluster().directory.as_str()).await.unwrap();
    let url = |database: &str| format!("postgres://postgres@localhost/{database}?host={directory}");
    let name = format!("t{}", Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&url("postgres")).await.expect("the server answers");
    connection.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    connection.close().await.unwrap();
    url(&name)
}
