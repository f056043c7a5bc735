//! The peer: Postfix as it is shipped, which flushes each message to its queue before it says 250, and then discards it.
//!
//! Not here: Postfix in the tests, which delivers.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::support::{
    free_address,
    postfix::launch,
    server::{Server, directory, is_root},
};

/// Those of its directories that hold mail under way.
const QUEUES: [&str; 4] = ["maildrop", "incoming", "active", "deferred"];
/// What its author ships, but for the places, the domain, and the limits that many connections of one client would meet.
const MAIN_CF: &str = "\
myhostname = mail.bench.example
default_transport = discard:
default_process_limit = 1200
";
/// How long it may take to empty its queue.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at the queue.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Postfix {
    pub server: Server,
    pub mx: SocketAddr,
}

impl Postfix {
    pub const NAME: &str = "Postfix";

    /// Starts it, or says that it cannot be had here.
    pub fn start() -> Option<Self> {
        if !is_root() || !Path::new("/usr/sbin/postconf").exists() {
            eprintln!("Postfix is not installed, or we are not root: the gateway is measured alone");
            return None;
        }
        let mx = free_address();
        let server = launch(directory("peer"), MAIN_CF, &format!("{mx} inet n - n - - smtpd\n"), &[mx]);
        Some(Self { server, mx })
    }

    /// Waits until its queue is empty.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn emptied(&self) -> Result<()> {
        let queue = self.server.dir().join("queue");
        let started = std::time::Instant::now();
        while QUEUES.iter().any(|name| !is_empty(&queue.join(name))) {
            ensure!(started.elapsed() < PATIENCE, "Postfix has not emptied its queue within {PATIENCE:?}");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Postfix divides some queues into directories by the first digit of a message's id.
fn is_empty(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).all(|path| path.is_dir() && is_empty(&path))
}
