//! One server process and its children, which never outlive the test.
//!
//! Not here: any particular server. A keeper (a few lines of shell) starts it and waits on a pipe from the test; when the
//! pipe closes, be it by `Drop`, panic or SIGKILL, the keeper ends the server, and removes its directory.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::OnceLock,
    time::Instant,
};

use super::{PATIENCE, wait_for};

/// `setsid` gives the server a process group of its own, so that what it leaves behind can be told from all else. The
/// group is killed at the end because Postfix's master does not wait for its children. Postfix's master insists on a
/// session of its own, hence no `set -m`, which would give it a group without one.
const KEEPER: &str = r#"
dir=$1 signal=$2 final=$3; shift 3
setsid "$@" </dev/null &
server=$!
echo "$server" >"$dir/keeper.new" && mv "$dir/keeper.new" "$dir/keeper.pid"
read -r order
[[ $order == keep ]] || signal=$final
kill -s "$signal" "$server" 2>/dev/null
for ((i = 0; i < 200; i++)); do
  kill -0 "$server" 2>/dev/null || break
  sleep 0.05
done
kill -s KILL -- "-$server" 2>/dev/null
wait
rm -f "$dir/keeper.pid"
[[ $order == keep || -n $MAILWEAVE_TEST_KEEP ]] || rm -rf -- "$dir"
"#;

/// How much of each log a failing test shows.
const LOG_TAIL_LINES: usize = 25;

/// How a server is started and stopped.
pub struct Spec {
    pub name: &'static str,
    /// Made by [`directory`]; removed when the server ends.
    pub dir: PathBuf,
    /// Must stay in the foreground.
    pub command: Vec<OsString>,
    /// What makes it end in order, its files kept.
    pub signal: &'static str,
    /// What ends it when its files are removed anyhow; the quickest that leaves nothing behind.
    pub final_signal: &'static str,
    /// True when only root can start it.
    pub as_root: bool,
}

/// A running server. Dropping it ends it.
pub struct Server {
    spec: Spec,
    keeper: Option<(Child, ChildStdin)>,
}

impl Server {
    /// Starts it and waits until `ready`.
    ///
    /// # Panics
    /// When it ends at once or is not ready in time, with its log.
    pub fn start(spec: Spec, ready: impl FnMut() -> bool) -> Self {
        let mut server = Self { spec, keeper: None };
        server.resume(ready);
        server
    }

    /// Starts it again after [`Self::halt`] or [`Self::crash`], with the files it had.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn resume(&mut self, mut ready: impl FnMut() -> bool) {
        self.release("keep");
        let log =
            fs::File::create(self.spec.dir.join("log").join(format!("{}.out", self.spec.name))).unwrap();
        let mut command = privileged("bash", self.spec.as_root);
        command
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.spec.dir)
            .args([self.spec.signal, self.spec.final_signal])
            .args(&self.spec.command);
        // A group of its own: what ends the test by its group must not end the keeper before its work is done.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .current_dir("/");
        let mut keeper = command.spawn().unwrap_or_else(|error| panic!("bash cannot be started: {error}"));
        let pipe = keeper.stdin.take().expect("the pipe was asked for");
        self.keeper = Some((keeper, pipe));
        wait_for(&format!("{} to start", self.spec.name), PATIENCE, || {
            let up = self.pid().is_some() && ready();
            let ended = !up && self.pid().is_some_and(|pid| !is_alive(pid));
            assert!(!ended, "{} ended at once:\n{}", self.spec.name, self.log_tails());
            up
        });
    }

    pub fn dir(&self) -> &Path {
        &self.spec.dir
    }

    /// The server's own process id; its children are in the process group of the same number.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.spec.dir.join("keeper.pid")).ok()?.trim().parse().ok()
    }

    pub fn is_running(&self) -> bool {
        self.pid().is_some_and(|pid| process(pid).is_some())
    }

    /// Ends it in order and keeps its files.
    pub fn halt(&mut self) {
        let processes = self.processes();
        self.release("keep");
        self.await_end(&processes);
    }

    /// Ends it as a power cut would, SIGKILL to all of its processes, and keeps its files.
    pub fn crash(&mut self) {
        let processes = self.processes();
        if let Some(pid) = self.pid() {
            let status =
                privileged("kill", self.spec.as_root).args(["-KILL", "--", &format!("-{pid}")]).status();
            assert!(status.is_ok_and(|status| status.success()), "{} cannot be killed", self.spec.name);
        }
        self.release("keep");
        self.await_end(&processes);
    }

    /// The keeper waits for the server alone. A child that is still dying holds the listening sockets, and the next server
    /// finds its ports in use and, at the paths of its sockets, somebody who answers.
    fn await_end(&self, processes: &[u32]) {
        wait_for(&format!("every process of {} to end", self.spec.name), PATIENCE, || {
            !processes.iter().any(|pid| is_alive(*pid))
        });
    }

    /// The ids of the server's processes and all that descend from them.
    pub fn processes(&self) -> Vec<u32> {
        let all: Vec<_> = numbers_in_proc().filter_map(process).collect();
        let mut ours: Vec<u32> = self.pid().into_iter().collect();
        // Children may come before their parents: repeat until nobody is added.
        loop {
            let is_new = |one: &&Process| {
                !ours.contains(&one.pid) && (ours.contains(&one.parent) || ours.contains(&one.group))
            };
            let new: Vec<u32> = all.iter().filter(is_new).map(|one| one.pid).collect();
            if new.is_empty() {
                return ours;
            }
            ours.extend(new);
        }
    }

    fn release(&mut self, order: &str) {
        let Some((mut keeper, mut pipe)) = self.keeper.take() else { return };
        // A keeper that is gone has nothing left to do.
        drop(writeln!(pipe, "{order}"));
        drop(pipe);
        let start = Instant::now();
        while matches!(keeper.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(super::PAUSE);
        }
    }

    fn log_tails(&self) -> String {
        let logs = fs::read_dir(self.spec.dir.join("log")).into_iter().flatten().flatten();
        let tail = |entry: fs::DirEntry| {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_TAIL_LINES);
            format!("--- {}\n{}\n", entry.path().display(), lines[from..].join("\n"))
        };
        logs.map(tail).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
        self.release("");
    }
}

/// True while the process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    process(pid).is_some()
}

struct Process {
    pid: u32,
    parent: u32,
    group: u32,
}

/// Reads `/proc/PID/stat`: the name in parentheses may hold anything, so fields count from the last one closing.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    if fields.first()?.starts_with(['Z', 'X']) {
        return None;
    }
    Some(Process { pid, parent: number(1)?, group: number(2)? })
}

fn numbers_in_proc() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A new directory that every user may enter. Its path is short: servers put sockets into it, and those have 108 octets.
pub fn directory(name: &str) -> PathBuf {
    let dir = tempfile::Builder::new().prefix(&format!("mw-{name}-")).tempdir_in("/tmp").unwrap().keep();
    fs::create_dir(dir.join("log")).unwrap();
    for path in [&dir, &dir.join("log")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

/// Finds a program as the shell would, and in the places that only root's PATH has.
///
/// # Panics
/// When it is not installed.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not installed; `make test` installs the servers that tests need")
    })
}

pub fn is_root() -> bool {
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    *IS_ROOT.get_or_init(|| output(Command::new("id").arg("-u")) == "0")
}

/// A command that runs as root: by itself, or through a sudo that asks nothing.
///
/// # Panics
/// When root is needed and out of reach.
pub fn privileged(name: &str, as_root: bool) -> Command {
    if !as_root || is_root() {
        return Command::new(program(name));
    }
    let reachable =
        Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success());
    assert!(
        reachable,
        "only root can start this server: run the tests as root, or let sudo work without a password"
    );
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program(name));
    command
}

/// Runs a command to its end and returns what it wrote, trimmed.
///
/// # Panics
/// When it fails, with what it wrote to stderr.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} failed: {stdout}{stderr}");
    stdout.trim().to_owned()
}

/// A user and group that own what a server stores.
#[derive(Debug, Clone)]
pub struct Owner {
    pub user: String,
    pub group: String,
    pub uid: String,
    pub gid: String,
}

impl Owner {
    /// As root a system user made for the purpose, since mail servers and PostgreSQL refuse to store as root; else who we are.
    pub fn for_tests() -> &'static Self {
        static OWNER: OnceLock<Owner> = OnceLock::new();
        OWNER.get_or_init(Self::find)
    }

    fn find() -> Self {
        const NAME: &str = "mailweave-test";
        if !is_root() {
            return Self::of(&output(Command::new("id").arg("-un")));
        }
        let exists =
            || Command::new("id").args(["-u", NAME]).output().is_ok_and(|output| output.status.success());
        wait_for("the user of the test servers", PATIENCE, || {
            // Another test may be making it at the same moment, and then holds the lock on the password file.
            let made = || {
                let mut command = Command::new(program("useradd"));
                command.args([
                    "--system",
                    "--user-group",
                    "--no-create-home",
                    "--shell",
                    "/usr/sbin/nologin",
                    NAME,
                ]);
                command.output().is_ok_and(|output| output.status.success())
            };
            exists() || made()
        });
        Self::of(NAME)
    }

    fn of(user: &str) -> Self {
        let id = |flag: &str| output(Command::new("id").args([flag, user]));
        Self { user: user.to_owned(), group: id("-gn"), uid: id("-u"), gid: id("-g") }
    }

    /// Gives a file or directory to this user.
    pub fn take(&self, path: &Path) {
        if is_root() {
            let id = |text: &str| text.parse().ok();
            std::os::unix::fs::chown(path, id(&self.uid), id(&self.gid)).unwrap();
        }
    }

    /// The words to put before a command that this user is to run.
    pub fn run_as(&self) -> Vec<OsString> {
        if !is_root() {
            return Vec::new();
        }
        let setpriv = program("setpriv").into_os_string();
        let options = [
            format!("--reuid={}", self.uid),
            format!("--regid={}", self.gid),
            "--clear-groups".to_owned(),
            "--".to_owned(),
        ];
        std::iter::once(setpriv).chain(options.map(OsString::from)).collect()
    }
}
