//! The peer: Postfix as it is shipped, which flushes each message to its queue before it says 250, and then discards it.
//!
//! Not here: Postfix in the tests, which delivers.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};

use crate::support::{
    free_address,
    server::{Server, Spec, directory, is_root, output, privileged, program},
};

/// The directories that `postfix check` would make, and those of them that hold mail under way.
const PRIVATE: [&str; 11] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
    "trace",
];
const QUEUES: [&str; 4] = ["maildrop", "incoming", "active", "deferred"];
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
        let (dir, mx) = (directory("peer"), free_address());
        make_queue(&dir);
        let conf = dir.join("conf");
        fs::create_dir(&conf).and_then(|()| write(&conf, &main_cf(&dir), &master_cf(mx))).ok()?;
        let master = Path::new(&built_in("daemon_directory")).join("master");
        let command = vec![master.into(), "-c".into(), conf.into(), "-s".into()];
        let spec =
            Spec { name: "postfix", dir, command, signal: "TERM", final_signal: "KILL", as_root: true };
        let server = Server::start(spec, || std::net::TcpStream::connect(mx).is_ok());
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

fn make_queue(dir: &Path) {
    let install = |options: &[&str], paths: &[PathBuf]| {
        output(privileged("install", true).arg("-d").args(options).args(paths));
    };
    let (queue, group) = (dir.join("queue"), built_in("setgid_group"));
    install(&["-o", "root", "-m", "0755"], &[queue.clone(), queue.join("pid")]);
    install(&["-o", "postfix", "-m", "0700"], &PRIVATE.map(|name| queue.join(name)));
    install(&["-o", "postfix", "-m", "0700"], &[dir.join("data")]);
    install(&["-o", "postfix", "-g", &group, "-m", "0730"], &[queue.join("maildrop")]);
    install(&["-o", "postfix", "-g", &group, "-m", "0710"], &[queue.join("public")]);
}

fn write(conf: &Path, main: &str, master: &str) -> std::io::Result<()> {
    for (name, text) in [("main.cf", main), ("master.cf", master)] {
        let path = conf.join(name);
        fs::write(&path, text)?;
        // Postfix waits before it trusts a file written just now.
        fs::File::open(&path)?.set_modified(SystemTime::now() - Duration::from_secs(3600))?;
    }
    Ok(())
}

fn built_in(name: &str) -> String {
    output(Command::new(program("postconf")).args(["-d", "-h", name]))
}

/// What its author ships, but for the places, the domain, and the limits that many connections of one client would meet.
fn main_cf(dir: &Path) -> String {
    let dir = dir.display();
    let (daemons, commands, group) =
        (built_in("daemon_directory"), built_in("command_directory"), built_in("setgid_group"));
    format!(
        "\
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {daemons}
command_directory = {commands}
mail_owner = postfix
setgid_group = {group}
maillog_file = {dir}/log/postfix.log
maillog_file_prefixes = {dir}/log
myhostname = mail.bench.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
append_dot_mydomain = no
default_transport = discard:
smtpd_client_connection_count_limit = 0
default_process_limit = 1200
"
    )
}

fn master_cf(mx: SocketAddr) -> String {
    format!(
        "\
{mx} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"
    )
}
