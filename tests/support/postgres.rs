//! PostgreSQL: one cluster a test process, a fresh database a test.
//!
//! Not here: the schema. A test that wants one makes a template of it once and asks for copies.

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    free_address,
    server::{Owner, Server, Spec, directory, output, program},
};

/// Whether a commit reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Commits are not flushed: quick, and enough for all tests but those of crashes.
    Fast,
    /// Commits are flushed, as in production.
    Full,
}

pub struct Postgres {
    pub server: Server,
    address: SocketAddr,
    bin: PathBuf,
}

impl Postgres {
    /// The cluster that the tests of this process share; it ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Fast))
    }

    /// A cluster of the test's own, to stop, crash and start again.
    pub fn start(durability: Durability) -> Self {
        let (bin, dir, address, owner) = (binaries(), directory("pg"), free_address(), Owner::for_tests());
        let data = dir.join("data");
        create_cluster(&bin, &dir, &data, owner);
        let port = address.port().to_string();
        let settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=64MB",
            "dynamic_shared_memory_type=mmap",
            // After a crash: one call, in place of one for each of a thousand files.
            "recovery_init_sync_method=syncfs",
        ];
        let fast = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
        let fast = fast.iter().filter(|_| durability == Durability::Fast);
        let mut command = owner.run_as();
        command.extend([bin.join("postgres").into(), "-D".into(), data.into(), "-p".into(), port.into()]);
        command
            .extend(settings.iter().chain(fast).flat_map(|setting| [OsString::from("-c"), setting.into()]));
        // SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to leave. SIGKILL would leave its System V
        // shared memory behind.
        let spec =
            Spec { name: "postgres", dir, command, signal: "INT", final_signal: "INT", as_root: false };
        let server = Server::start(spec, || answers(&bin, address));
        Self { server, address, bin }
    }

    /// Starts it again on the same port with the data it had.
    pub fn resume(&mut self) {
        let (bin, address) = (self.bin.clone(), self.address);
        self.server.resume(|| answers(&bin, address));
    }

    /// The URL of a database that exists.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// A new, empty database.
    pub fn database(&self) -> Database<'_> {
        self.database_from("template0")
    }

    /// A new database that is a copy of another, which nobody may be connected to.
    pub fn database_from(&self, template: &str) -> Database<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("create database {name} template {template}"));
        Database { postgres: self, name }
    }

    /// Runs a statement and returns its rows, columns divided by "|".
    ///
    /// # Panics
    /// When the statement fails.
    pub fn run(&self, database: &str, statement: &str) -> String {
        output(&mut psql(&self.bin, self.address, database, statement))
    }
}

/// A database of one test; dropped with it.
pub struct Database<'a> {
    postgres: &'a Postgres,
    name: String,
}

impl Database<'_> {
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// Runs a statement in it.
    pub fn run(&self, statement: &str) -> String {
        self.postgres.run(&self.name, statement)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        // A cluster that the test has stopped takes its databases with it.
        drop(psql(&self.postgres.bin, self.postgres.address, "postgres", &statement).output());
    }
}

fn psql(bin: &Path, address: SocketAddr, database: &str, statement: &str) -> Command {
    // The client may be packaged apart from the server's programs.
    let beside = bin.join("psql");
    let mut command = Command::new(if beside.is_file() { beside } else { program("psql") });
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
    command.args(["-p", &address.port().to_string(), "-d", database, "-c", statement]).current_dir("/");
    command
}

fn answers(bin: &Path, address: SocketAddr) -> bool {
    let open = TcpStream::connect(address).is_ok();
    open && psql(bin, address, "postgres", "select 1").output().is_ok_and(|output| output.status.success())
}

/// Where the server's programs are: in PATH, or where Debian keeps them, the newest version first.
fn binaries() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let places = std::env::split_paths(&path).chain(versions.into_iter().rev().map(|(_, bin)| bin));
    let found =
        places.into_iter().find(|place| place.join("initdb").is_file() && place.join("postgres").is_file());
    found.unwrap_or_else(|| {
        panic!("PostgreSQL is not installed; `make test` installs the servers that tests need")
    })
}

/// Copies a cluster kept from an earlier test, since making one takes longer than most tests; makes and keeps it if there is none.
fn create_cluster(bin: &Path, dir: &Path, data: &Path, owner: &Owner) {
    let version = output(Command::new(bin.join("postgres")).arg("--version").current_dir("/"));
    let version: String = version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{version}-{}", owner.uid));
    if kept.is_dir() {
        output(&mut copy(&kept, data));
        return;
    }
    // The owner must be able to reach what he makes: first in the server's directory, then copied away.
    let home = dir.join("made");
    fs::create_dir(&home).unwrap();
    owner.take(&home);
    let made = home.join("data");
    let words = owner.run_as();
    let initdb = bin.join("initdb").into_os_string();
    let mut words = words.into_iter().chain([initdb]);
    let mut command = Command::new(words.next().expect("initdb at least"));
    command.args(words).arg("-D").arg(&made);
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]).current_dir("/");
    output(&mut command);
    // Keeping it is a favour to later tests. Another may have been quicker, or the place may be somebody else's.
    let fresh = kept.with_extension(std::process::id().to_string());
    let copied = copy(&made, &fresh).output().is_ok_and(|output| output.status.success());
    if !copied || fs::rename(&fresh, &kept).is_err() {
        drop(fs::remove_dir_all(&fresh));
    }
    fs::rename(&made, data).unwrap();
}

fn copy(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    command
}
