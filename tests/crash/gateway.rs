//! The gateway as a process of its own: started, awaited, killed, asked to end.
//!
//! Not here: its configuration and what it is connected to (`world`).

use std::{
    fs::{self, OpenOptions},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{support::free_address, world::ADMIN_KEY};

/// How long a start may take before the test fails; what it takes is measured.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);
/// Lines of the log that a failing test shows.
const LOG_TAIL_LINES: usize = 60;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mailweave");

/// Where it listens; the same over restarts.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub mx: SocketAddr,
    pub submission: SocketAddr,
    pub submissions: SocketAddr,
    pub http: SocketAddr,
}

impl Addresses {
    pub fn free() -> Self {
        Self {
            mx: free_address(),
            submission: free_address(),
            submissions: free_address(),
            http: free_address(),
        }
    }
}

pub struct Gateway {
    pub at: Addresses,
    /// What comes before the program on the command line, such as `unshare`.
    before: Vec<String>,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    started: Instant,
    /// The place at which it is to end by itself.
    last_place: Option<String>,
}

impl Gateway {
    /// Not started yet. The log lies beside the configuration.
    pub fn new(config: &Path, at: Addresses, before: Vec<String>) -> Self {
        let log = config.with_extension("log");
        Self {
            at,
            before,
            config: config.to_owned(),
            log,
            child: None,
            started: Instant::now(),
            last_place: None,
        }
    }

    /// What comes before the program on the command line from its next start on.
    pub fn put_before(&mut self, before: Vec<String>) {
        self.before = before;
    }

    /// Starts it without waiting for anything.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.started = Instant::now();
        self.child = Some(self.command("serve").spawn().unwrap());
    }

    /// Starts it to end by itself when it reaches this place, and waits for that.
    pub async fn end_at(&mut self, place: &str, deadline: Duration) {
        self.last_place = Some(place.to_owned());
        self.start();
        self.last_place = None;
        let status = self.ended(deadline).await;
        assert!(!status.success(), "it ended before {place}: {status}\n{}", self.log_tail());
    }

    /// The program with this gateway's configuration.
    pub fn command(&self, verb: &str) -> Command {
        let mut words = self.before.iter().map(String::as_str).chain([PROGRAM, verb, "--config"]);
        let mut command = Command::new(words.next().expect("the program at least"));
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        command
            .args(words)
            .arg(&self.config)
            .env("MAILWEAVE_ADMIN_KEY", ADMIN_KEY)
            .env("RUST_BACKTRACE", "1")
            .envs(self.last_place.as_ref().map(|place| ("MAILWEAVE_FAILPOINT", place)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Waits until the last of its doors is open, and says how long after its start that was.
    pub async fn ready(&mut self) -> Duration {
        while TcpStream::connect(self.at.submissions).is_err() {
            let ended = self.child.as_mut().expect("it was started").try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended at once: {ended:?}\n{}", self.log_tail());
            assert!(self.started.elapsed() < PATIENCE, "the gateway does not start\n{}", self.log_tail());
            tokio::time::sleep(PAUSE).await;
        }
        self.started.elapsed()
    }

    /// SIGKILL, and it is gone when this returns.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the gateway ended by itself: {ended:?}\n{}", self.log_tail());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let since = Instant::now();
        let mut child = self.child.take().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if since.elapsed() > deadline {
                child.kill().unwrap();
                panic!("the gateway has not ended within {deadline:?}\n{}", self.log_tail());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets it live for so long and kills it then; false when it has ended by itself before.
    pub async fn live(&mut self, time: Duration) -> bool {
        let since = Instant::now();
        let mut child = self.child.take().expect("it was started");
        while since.elapsed() < time {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was ever in use, in bytes.
    pub fn most_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        // A line for each request would push everything else out.
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("a request was answered")).collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ends so:\n{}", self.log_tail());
        }
    }
}
