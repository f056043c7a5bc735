//! Stores for tests: one on each engine, gone when the test is.
//!
//! Not here: the tests. PostgreSQL is started in a directory of its own and never flushes; a
//! machine without it fails the tests rather than passing half of them.

use std::{
    fs::File,
    process::{Command, Stdio},
    sync::OnceLock,
};

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::{MasterKey, Options, Store, mint};
use crate::core::{ids::WorkspaceId, people::Workspace};

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
        let workspace = Workspace {
            id,
            slug: id.to_string(),
            name: id.to_string(),
            timezone: "UTC".to_owned(),
            preset: "mailweave".to_owned(),
            policy_version: 1,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let mut system = self.store.system().await.unwrap();
        system.create_workspace(&workspace).await.unwrap();
        system.commit().await.unwrap();
        id
    }
}

/// A private server, shared by the test processes of one user: starting one takes longer than most tests. It ends, and
/// its directory goes, when the last of them lets go of the lock by ending itself, however it ends.
struct Cluster {
    directory: String,
    _in_use: File,
}

const CLUSTER: &str = r#"
set -e
PATH="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1):$PATH"
home="/tmp/mailweave-test-store-$(id -u)"
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if ! pg_ctl -D "$home/data" status >/dev/null 2>&1; then
    rm -rf "$home/data"
    initdb -D "$home/data" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null
    options="-F -c listen_addresses= -c unix_socket_directories=$home -c max_connections=300 -c autovacuum=off"
    pg_ctl -D "$home/data" -l "$home/log" -w -o "$options" start >/dev/null 9>&-
    # In a session of its own: a runner that ends a test's process group must not end this.
    setsid sh -c '
        exec 8<"$1"
        flock 8
        exec 9>"$2/lock"
        flock 9
        pg_ctl -D "$2/data" -m immediate stop
        rm -rf "$2/data"
    ' sh "$1" "$home" </dev/null >/dev/null 2>&1 9>&- &
fi
echo "$home"
"#;

fn cluster() -> &'static Cluster {
    static CLUSTER_OF_PROCESS: OnceLock<Cluster> = OnceLock::new();
    CLUSTER_OF_PROCESS.get_or_init(|| {
        let user = Command::new("id").arg("-u").output().expect("id says who runs this").stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        let path = format!("/tmp/mailweave-test-store-users-of-{user}");
        let in_use = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        in_use.lock_shared().unwrap();
        // PostgreSQL refuses to run as root.
        let shell: &[&str] = if user == "0" { &["runuser", "-u", "postgres", "--", "sh"] } else { &["sh"] };
        let started = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", CLUSTER, "sh", &path])
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("a shell starts");
        let directory = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        assert!(started.status.success() && !directory.is_empty(), "PostgreSQL must be installed and start");
        Cluster { directory, _in_use: in_use }
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
