//! Five thousand accounts in one process, at the built-in provider: what each costs that waits, and how fast they begin when the
//! process does.
//!
//! Not here: accounts at a real server over TLS (`accounts`), which holds an inotify instance for each and so has few.

use std::{
    collections::HashSet,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mailweave::{
    mail::Address,
    sandbox::{Limits, Options, Provider, Running},
};
use serde_json::{Value, json};

use crate::{
    as_f64,
    gateway::Gateway,
    setting,
    support::tls::Authority,
    table::{Table, Target},
    usage,
};

/// Accounts, and how many of them come first: these bring what is there only once.
const ACCOUNTS: usize = 5000;
const FIRST: usize = 50;
const PASSWORD: &str = "a password";
/// How long all of them may take to connect.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Between two looks at how many have.
const PAUSE: Duration = Duration::from_millis(100);
/// How long is watched what they cost.
const WATCHED: Duration = Duration::from_secs(60);
/// The default of `sync.connections_per_second`.
const BEGUN_A_SECOND: f64 = 50.0;

pub async fn idle(table: &mut Table) -> Result<()> {
    let accounts = setting("MAILWEAVE_BENCH_ACCOUNTS", ACCOUNTS)?;
    let limits = Limits { connections_max: accounts * 2, users_max: accounts, ..Limits::default() };
    let running = Provider::start(Options { limits, ..Options::default() }).await?;
    let mut gateway = Gateway::following(&Authority::new()).await?;
    let mut crowd = Crowd::before(&running);
    crowd.grow(&gateway, 0..FIRST).await?;
    let before = usage::memory(&gateway.server)?;
    crowd.grow(&gateway, FIRST..accounts).await?;
    let each = (usage::memory(&gateway.server)? - before) / as_f64(accounts - FIRST);
    let what = format!("{accounts} idle accounts in one process");
    table.add(format!("{what}: memory of each"), "KiB", each, Target::AtMost(96.0));
    let before = usage::cpu(&gateway.server);
    tokio::time::sleep(WATCHED).await;
    let used = (usage::cpu(&gateway.server) - before).as_secs_f64() / WATCHED.as_secs_f64();
    table.add(format!("{what}: processor"), "% of one", used * 100.0, Target::None);
    crowd.forget();
    let started = Instant::now();
    gateway.restart();
    crowd.waits(accounts).await?;
    table.add(
        format!("{what}: all wait again after a restart"),
        "s",
        started.elapsed().as_secs_f64(),
        Target::None,
    );
    // A timer that fires late lets two turns come closer.
    let most = Target::AtMost(BEGUN_A_SECOND * 1.2);
    table.add(format!("{what}: most logins in a second then"), "", as_f64(crowd.most_in_a_second()), most);
    Ok(())
}

/// What the provider has seen of the accounts.
struct Crowd<'a> {
    running: &'a Running,
    /// Sessions in which somebody has begun to wait.
    waiting: HashSet<u64>,
    logins: Vec<Instant>,
}

impl<'a> Crowd<'a> {
    fn before(running: &'a Running) -> Self {
        Self { running, waiting: HashSet::new(), logins: Vec::new() }
    }

    /// Adds users with an account each, and waits until all of them wait.
    async fn grow(&mut self, gateway: &Gateway, numbers: Range<usize>) -> Result<()> {
        let end = numbers.end;
        for number in numbers {
            connect(gateway, self.running, number).await?;
            self.look();
        }
        self.waits(end).await
    }

    async fn waits(&mut self, accounts: usize) -> Result<()> {
        let started = Instant::now();
        while self.waiting.len() < accounts {
            let patient = started.elapsed() < PATIENCE;
            ensure!(patient, "{} of {accounts} accounts wait after {PATIENCE:?}", self.waiting.len());
            tokio::time::sleep(PAUSE).await;
            self.look();
        }
        Ok(())
    }

    /// Takes what was said since the last look out of the ledger, which keeps only so much.
    fn look(&mut self) {
        let provider = &self.running.provider;
        for said in provider.said() {
            match said.verb.as_str() {
                "IDLE" => drop(self.waiting.insert(said.session)),
                "LOGIN" | "AUTHENTICATE" => self.logins.push(Instant::now()),
                _ => {}
            }
        }
        provider.clear_ledger();
    }

    fn forget(&mut self) {
        self.look();
        self.waiting.clear();
        self.logins.clear();
    }

    fn most_in_a_second(&self) -> usize {
        let within = |first: &Instant| {
            self.logins.iter().filter(|at| (*first..*first + Duration::from_secs(1)).contains(*at)).count()
        };
        self.logins.iter().map(within).max().unwrap_or_default()
    }
}

/// A user with an account.
async fn connect(gateway: &Gateway, running: &Running, number: usize) -> Result<()> {
    let email = format!("user{number}@crowd.example");
    running.provider.add_user(&Address::parse(&email).context("an address")?, PASSWORD)?;
    let user = gateway.api.create("workspaces/acme/users", &json!({ "email": email })).await?;
    let door = |port: u16| json!({ "host": "127.0.0.1", "port": port, "security": "none" });
    let account = json!({
        "user_id": user.get("id").and_then(Value::as_str).context("a user without id")?,
        "email": email, "imap": door(running.imap.port()), "smtp": door(running.submission.port()),
        "auth": { "type": "password", "username": email, "password": PASSWORD },
    });
    gateway.api.create("workspaces/acme/accounts", &account).await.map(drop)
}
