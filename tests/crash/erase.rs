//! `kill -9` while an account is erased: it is erased to the end by whoever starts next, and the receipt has it all.
//!
//! Not here: what is erased and what stays (`tests/flows/life.rs`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    support::{
        PATIENCE, eventually,
        postgres::{Database, Postgres},
    },
    world::{Setup, World, address, contact},
};

/// Messages that the account alone has: several steps of erasing, so that there is something between them.
const MESSAGES: usize = 130;
/// One of so many is large enough for a file of its own.
const LARGE_EVERY: usize = 30;
const LARGE_OCTETS: usize = 400_000;
/// It is killed each time that so many more of them are gone, and once more when all are.
const KILL_EVERY: usize = 26;
/// As many are filed within the patience of a test, however busy the machine is.
const FILED_AT_ONCE: usize = 26;

/// An account with mail that says a word which is nowhere else.
struct Told {
    world: World,
    account: String,
    canary: String,
    /// Octets of all its messages.
    octets: u64,
}

impl Told {
    async fn build(setup: Setup) -> Self {
        let world = World::build(setup).await;
        let canary = format!("Kanarie{}", uuid::Uuid::new_v4().simple());
        let user = &world.users[1].email;
        world.api.post("/workspaces/acme/contacts", &json!({ "email": contact(1) })).await;
        let accounts = world.api.all("/workspaces/acme/accounts").await;
        let account = accounts.iter().find(|account| account["email"] == user.as_str()).unwrap();
        let account = account["id"].as_str().unwrap().to_owned();
        let told = Self { world, account, canary, octets: 0 };
        told.await_state(&["awaiting_first_mail", "active"]).await;
        let mut octets = 0;
        for number in 0..MESSAGES {
            octets += told.deliver(number);
        }
        let told = Self { octets, ..told };
        for filed in (0..=MESSAGES).step_by(FILED_AT_ONCE) {
            let what = format!("{filed} of {MESSAGES} to be filed");
            eventually(&what, PATIENCE, async || told.filed().await >= filed).await;
        }
        told
    }

    /// Returns its size.
    fn deliver(&self, number: usize) -> u64 {
        let (canary, user) = (&self.canary, &self.world.users[1].email);
        let size = if number.is_multiple_of(LARGE_EVERY) { LARGE_OCTETS } else { 100 };
        let raw = format!(
            "From: <{}>\r\nTo: <{user}>\r\nSubject: {canary} {number}\r\nDate: {}\r\n\
             Message-ID: <{number}.{canary}@{canary}.example>\r\n\r\n{canary}\r\n{}",
            contact(1),
            jiff::fmt::rfc2822::to_string(&jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap(),
            noise(size),
        );
        self.world.provider().deliver(&address(user), raw.as_bytes()).unwrap();
        raw.len() as u64
    }

    async fn filed(&self) -> usize {
        self.world.api.all("/workspaces/acme/conversations").await.len()
    }

    async fn shown(&self) -> Value {
        self.world.api.get(&format!("/workspaces/acme/accounts/{}", self.account)).await
    }

    async fn await_state(&self, states: &[&str]) {
        let is_there = async || states.contains(&self.shown().await["status"]["state"].as_str().unwrap());
        eventually(&format!("the account to be {states:?}"), PATIENCE, is_there).await;
    }

    /// Kills the gateway once so many of the account's messages are gone. False when it was quicker.
    async fn kill_at(&mut self, gone: u64) -> bool {
        let begun = Instant::now();
        loop {
            let shown = self.shown().await;
            if shown["receipt"]["messages"].as_u64().unwrap() >= gone {
                let is_midway = shown["status"]["state"] == "erasing";
                self.world.gateway.kill();
                self.world.gateway.start();
                self.world.gateway.ready().await;
                return is_midway;
            }
            assert!(begun.elapsed() < PATIENCE, "it is not erased\n{}", self.world.gateway.log_tail());
        }
    }
}

/// Text that no compression makes small, in lines.
fn noise(octets: usize) -> String {
    let mut text = String::with_capacity(octets + 80);
    while text.len() < octets {
        text.push_str(&format!("{}{}\r\n", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()));
    }
    text
}

/// The files below a directory that hold a word.
fn holding(directory: &Path, word: &str) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if memchr::memmem::find(&fs::read(&path).unwrap_or_default(), word.as_bytes()).is_some() {
                found.push(path);
            }
        }
    }
    found
}

/// Whether the database holds a word, be it in bytes. What PostgreSQL has deleted lies in its files until it is vacuumed: there
/// the tables are searched.
fn tables_holding(database: &Database<'_>, word: &str) -> Vec<String> {
    let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    let tables = database.run("select tablename from pg_tables where schemaname = current_schema()");
    let holds = |table: &&str| {
        let query = format!(
            "select count(*) from {table} t where t::text ilike '%{word}%' or t::text like '%{hex}%'"
        );
        database.run(&query).trim() != "0"
    };
    tables.lines().filter(holds).map(str::to_owned).collect()
}

async fn survive(setup: Setup, database: Option<&Database<'_>>) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut told = Told::build(Setup { data_dir: Some(data.clone()), ..setup }).await;
    let lies_in = |word: &str| {
        let mut found: Vec<String> =
            holding(&data, word).iter().map(|file| file.display().to_string()).collect();
        found.extend(database.map(|database| tables_holding(database, word)).unwrap_or_default());
        found
    };
    assert!(!lies_in(&told.canary).is_empty(), "the search finds what is there");

    let path = format!("/workspaces/acme/accounts/{}/disconnect", told.account);
    told.world.api.post(&path, &json!({ "history": "erase" })).await;
    let mut midway = 0;
    for gone in (1..MESSAGES).step_by(KILL_EVERY).chain([MESSAGES]) {
        midway += u32::from(told.kill_at(gone as u64).await);
    }
    assert!(midway > 0, "no kill came while it was erased");
    told.await_state(&["erased"]).await;

    let shown = told.shown().await;
    let receipt = &shown["receipt"];
    let counted = [&receipt["messages"], &receipt["bytes"], &receipt["messages_kept"]];
    assert_eq!(counted, [&json!(MESSAGES), &json!(told.octets), &json!(0)], "{receipt}");
    assert!(receipt["erased_at"].is_string(), "{receipt}");
    let events = told.world.api.get("/workspaces/acme/events?types=account.erased").await;
    let [event] = &events["items"].as_array().unwrap()[..] else { panic!("told once: {events}") };
    assert_eq!(&event["data"]["receipt"], receipt);
    assert_eq!(told.world.api.messages().await, Vec::<Value>::new());
    println!("killed {midway} times while it was erased");
    assert_eq!(lies_in(&told.canary), Vec::<String>::new());
    let canary = told.canary.clone();
    told.world.audit().await;
    assert_eq!(lies_in(&canary), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_being_erased_is_erased_to_the_end_whenever_it_is_killed() {
    survive(Setup { lease: Some("1s"), ..Setup::default() }, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_too() {
    let database = Postgres::shared().database();
    let setup = Setup { store_url: Some(database.url()), lease: Some("1s"), ..Setup::default() };
    survive(setup, Some(&database)).await;
}
