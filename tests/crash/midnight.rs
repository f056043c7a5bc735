//! Ten thousand messages over a midnight of the workspace's time zone and over a new limit, and the gateway killed all the
//! while: no count is below what is stored, whenever it is looked at, and each day has its own.
//!
//! The program's clock is set ahead, so that midnight comes when it is wanted; nothing else of it is changed. Not here: what
//! happens at a limit (`tests/flows`), and windows (`core::limits`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::{
    kill::Chance,
    support::postgres::{Database, Postgres},
    world::{Setup, World, address, contact},
};

/// How often it is killed, before midnight and after it has begun to strike.
const LIVES: u32 = 5;
/// What each life brings: 1,000 messages, hence 10,000 in all.
const FILED: u64 = 100;
const BY_HAND: u64 = 880;
const POSTED: u64 = 20;
/// What may be filed in the evening, of 500; and sent in a day, of 100 in the evening and as many at night.
const FILED_MAX: u64 = 460;
const FILED_MAX_AT_NIGHT: u64 = 1_000;
const SENT_MAX: u64 = 75;
/// How long it lives between two kills, at most, beside what it takes to start and to hand in mail.
const LIFE_MAX: Duration = Duration::from_millis(2500);
/// The evening begins so long before midnight: far longer than it lasts.
const EVENING: SignedDuration = SignedDuration::from_mins(20);
/// So long before midnight the other limit has come, and the first is filed under it; then midnight is as near as this.
const LATE: SignedDuration = SignedDuration::from_mins(4);
const EVE: SignedDuration = SignedDuration::from_secs(4);
/// On a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(200);
const PAUSE: Duration = Duration::from_millis(250);

/// Has a program believe that it is later than it is.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead;

__attribute__((constructor)) static void read_ahead(void) {
    const char *text = getenv("CLOCK_AHEAD");
    ahead = text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead;
    return (int)failed;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

fn build_clock(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    fs::write(&source, CLOCK).unwrap();
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status().unwrap();
    assert!(built.success(), "{built}");
    library
}

/// What is stored, read past the gateway while it is dead.
enum Stored {
    Sqlite(PathBuf),
    Postgres(Database<'static>),
}

impl Stored {
    async fn count(&self, statement: &str) -> u64 {
        let statement = sqlx::AssertSqlSafe(statement);
        let count: Result<i64, _> = match self {
            Self::Postgres(database) => {
                let mut connection = PgConnection::connect(&database.url()).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await
            }
            Self::Sqlite(file) => {
                let url = format!("sqlite://{}", file.display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut connection).await
            }
        };
        u64::try_from(count.unwrap()).unwrap()
    }

    /// Messages that somebody's account brought, from one moment to another. Here nobody else brings them.
    async fn filed(&self, email: &str, (since, until): (Timestamp, Timestamp)) -> u64 {
        self.count(&format!(
            "select count(distinct s.message) from sightings s join accounts a on a.workspace = s.workspace \
             and a.id = s.account where s.via = 'account' and a.email = '{email}' and s.at >= {} and s.at < {}",
            since.as_microsecond(),
            until.as_microsecond(),
        ))
        .await
    }

    async fn counted(&self, (email, what): (&str, &str), (since, until): (Timestamp, Timestamp)) -> u64 {
        self.count(&format!(
            "select cast(coalesce(sum(c.used), 0) as bigint) from usage_counts c \
             join accounts a on a.workspace = c.workspace and a.user_id = c.user_id where a.email = '{email}' \
             and c.counted = '{what}' and c.slot >= {} and c.slot < {}",
            since.as_microsecond(),
            until.as_microsecond(),
        ))
        .await
    }

    /// Mail that was seen and left out: here, what was sent by hand.
    async fn left_out(&self, email: &str) -> u64 {
        self.count(&format!(
            "select count(*) from decisions d join accounts a on a.workspace = d.workspace \
             and a.id = d.account where d.verdict = 'skipped' and a.email = '{email}'"
        ))
        .await
    }

    /// Submissions whose sending was begun: nobody knows better whether it left.
    async fn begun(&self) -> u64 {
        self.count("select count(*) from submissions where dot_intent_at is not null").await
    }

    async fn in_state(&self, table: &str, column: &str, words: &str) -> u64 {
        self.count(&format!("select count(*) from {table} where {column} in ({words})")).await
    }
}

const ALWAYS: (Timestamp, Timestamp) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
/// Sends by the CRM; her provider files what she sends.
const ANN: &str = "ann@acme.example";
/// Gets mail and sends by hand.
const BEA: &str = "bea@acme.example";

struct Night {
    world: World,
    stored: Stored,
    library: PathBuf,
    midnight: Timestamp,
    ahead: SignedDuration,
    chance: Chance,
    kills: u32,
    brought: u64,
    _directory: TempDir,
}

impl Night {
    async fn begin(setup: Setup, database: Option<Database<'static>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let stored = database.map_or_else(|| Stored::Sqlite(data_dir.join("mailweave.db")), Stored::Postgres);
        let world = World::build(Setup { data_dir: Some(data_dir), ..setup }).await;
        let midnight = next_hour(Timestamp::now() + EVENING + EVENING);
        let zone = json!({ "timezone": zone_of(midnight) });
        world.api.change(Method::PATCH, "/workspaces/acme", &zone).await;
        world.api.post("/workspaces/acme/contacts", &json!({ "email": contact(0) })).await;
        let library = build_clock(directory.path());
        let mut night = Self {
            world,
            stored,
            library,
            midnight,
            ahead: SignedDuration::ZERO,
            chance: Chance(0x9E37_79B9_7F4A_7C15),
            kills: 0,
            brought: 0,
            _directory: directory,
        };
        night.limit(BEA, &json!({ "synced_per_day": FILED_MAX })).await;
        night.limit(ANN, &json!({ "sent_per_day": SENT_MAX, "sent_unit": "messages" })).await;
        night.set_clock(EVENING);
        night.kill().await;
        night
    }

    /// From its next start on the gateway believes that midnight is so far off.
    fn set_clock(&mut self, before_midnight: SignedDuration) {
        self.ahead = (self.midnight - before_midnight).duration_since(Timestamp::now());
        let seconds = self.ahead.as_secs();
        let words = ["env".into(), format!("CLOCK_AHEAD={seconds}")];
        let loaded = format!("LD_PRELOAD={}", self.library.display());
        self.world.gateway.put_before(words.into_iter().chain([loaded]).collect());
    }

    /// The time by the gateway's clock.
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.ahead.as_secs())
    }

    async fn limit(&self, email: &str, limits: &Value) {
        let user = self.world.users.iter().find(|user| user.email == email).unwrap();
        let path = format!("/workspaces/acme/users/{}/limits", user.id);
        self.world.api.change(Method::PUT, &path, limits).await;
    }

    async fn used(&self, email: &str, quota: &str) -> u64 {
        let user = self.world.users.iter().find(|user| user.email == email).unwrap();
        let usage = self.world.api.get(&format!("/workspaces/acme/users/{}/usage", user.id)).await;
        usage[quota]["used"].as_u64().unwrap()
    }

    /// One life: mail comes, is sent by hand and handed in; and then, at whatever moment, it is over.
    async fn live(&mut self) {
        self.world.gateway.ready().await;
        let counted = (BEA, "sent_messages");
        let before = self.stored.counted(counted, ALWAYS).await;
        for number in 0..FILED.max(BY_HAND) {
            let id = self.brought + number;
            if number < FILED {
                let raw = letter(&format!("in-{id}"), &contact(0), BEA);
                self.append("INBOX", &raw);
            }
            if number < BY_HAND {
                let raw = letter(&format!("hand-{id}"), BEA, "mum@elsewhere.example");
                self.append("Sent", &raw);
            }
        }
        let ann = self.world.users.iter().find(|user| user.email == ANN).unwrap().id.clone();
        for number in 0..POSTED {
            let message = json!({
                "from_user_id": ann, "to": [{ "email": contact(1) }], "text": "Hello.",
                "subject": format!("Number {}", self.brought + number),
            });
            self.world.api.post("/workspaces/acme/messages", &message).await;
        }
        self.brought += FILED + BY_HAND + POSTED;
        if self.kills.is_multiple_of(2) {
            // However slow the machine is, and however long the accounts are the dead one's: half of the lives count something.
            let is_more = async || self.stored.counted(counted, ALWAYS).await > before;
            eventually("something to be counted", is_more).await;
        }
        // The moment is left to chance on purpose: this waits for nothing.
        tokio::time::sleep(self.chance.below(LIFE_MAX)).await;
    }

    fn append(&self, mailbox: &str, raw: &str) {
        let to = (&address(BEA), mailbox);
        self.world.provider().append_at(self.now(), to, raw.as_bytes(), &["\\Seen"]).unwrap();
    }

    /// Kills it, looks at what it leaves, and starts it again.
    async fn kill(&mut self) {
        self.world.gateway.kill();
        self.kills += 1;
        self.check().await;
        self.world.gateway.start();
        self.world.gateway.ready().await;
    }

    /// No count is below the truth, in either day.
    async fn check(&self) {
        for day in [ALWAYS, (ALWAYS.0, self.midnight), (self.midnight, ALWAYS.1)] {
            let (filed, counted) =
                (self.stored.filed(BEA, day).await, self.stored.counted((BEA, "synced"), day).await);
            assert!(counted >= filed, "{counted} are counted of {filed} that are filed");
        }
        let by_hand = self.stored.counted((BEA, "sent_messages"), ALWAYS).await;
        let left_out = self.stored.left_out(BEA).await;
        assert!(by_hand >= left_out, "{by_hand} are counted of {left_out} that were sent by hand");
        let (sent, begun) =
            (self.stored.counted((ANN, "sent_messages"), ALWAYS).await, self.stored.begun().await);
        let arrived = self.world.provider().inbox(&address(&contact(1))).len() as u64;
        assert!(sent >= begun, "{sent} are counted of {begun} whose sending was begun");
        assert!(sent >= arrived, "{sent} are counted of {arrived} that arrived");
    }

    /// Waits until the mail brought so far has been seen, and so many of it are filed.
    async fn until_filed(&self, filed: u64, waiting: u64) {
        let by_hand = self.brought / (FILED + BY_HAND + POSTED) * BY_HAND;
        eventually(&format!("{filed} to be filed and {waiting} to wait"), async || {
            self.stored.filed(BEA, ALWAYS).await == filed
                && self.stored.in_state("decisions", "verdict", "'deferred'").await == waiting
                && self.stored.left_out(BEA).await == by_hand
        })
        .await;
    }
}

/// Waits until it holds. What is asked reads whole tables: not as often as elsewhere.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The first full hour after a moment.
fn next_hour(at: Timestamp) -> Timestamp {
    let seconds = at.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(3600) + 3600).unwrap()
}

/// A time zone in which it is midnight at that hour.
fn zone_of(hour: Timestamp) -> String {
    // POSIX counts them westward: there is Etc/GMT+12, and Etc/GMT-14.
    match hour.as_second().rem_euclid(86_400) / 3600 {
        0 => "Etc/GMT".to_owned(),
        hour @ 1..=12 => format!("Etc/GMT+{hour}"),
        hour => format!("Etc/GMT-{}", 24 - hour),
    }
}

fn letter(id: &str, from: &str, to: &str) -> String {
    format!(
        "Message-ID: <{id}@prospect.example>\r\nFrom: {from}\r\nTo: {to}\r\nSubject: About {id}\r\n\
         Date: Tue, 1 Apr 2025 10:00:00 +0000\r\n\r\nText of {id}.\r\n"
    )
}

async fn pass_midnight(setup: Setup, database: Option<Database<'static>>) {
    let since = Instant::now();
    let mut night = Night::begin(setup, database).await;
    let each = u64::from(LIVES);
    for _ in 0..LIVES {
        night.live().await;
        night.kill().await;
    }
    let brought = since.elapsed();
    night.until_filed(FILED_MAX, each * FILED - FILED_MAX).await;
    eventually("what may be sent today to be sent", async || {
        let waiting = "'queued', 'sending', 'uncertain'";
        night.stored.in_state("submissions", "state", waiting).await == 0
    })
    .await;
    assert!(night.used(ANN, "sent_per_day").await <= SENT_MAX);
    let waits = night.stored.in_state("submissions", "state", "'deferred'").await;
    assert!(waits >= each * POSTED - SENT_MAX, "{waits}");
    assert_eq!(night.used(BEA, "synced_per_day").await, FILED_MAX);

    let evening = since.elapsed();

    // Midnight comes while it works; and there is another limit by then.
    night.limit(BEA, &json!({ "synced_per_day": FILED_MAX_AT_NIGHT })).await;
    night.set_clock(LATE);
    night.kill().await;
    night.live().await;
    eventually("the other limit to be of use", async || night.stored.filed(BEA, ALWAYS).await > FILED_MAX)
        .await;
    night.set_clock(EVE);
    night.kill().await;
    for _ in 1..LIVES {
        night.live().await;
        night.kill().await;
    }
    // What waited goes out by itself, and the new day has room for as many again: no more is sent in it.
    night.until_filed(2 * each * FILED, 0).await;
    let today = (night.midnight, ALWAYS.1);
    eventually("what may be sent in the new day to be sent", async || {
        let waiting = "'queued', 'sending', 'uncertain'";
        night.stored.in_state("submissions", "state", waiting).await == 0
    })
    .await;
    assert!(night.stored.counted((ANN, "sent_messages"), today).await <= SENT_MAX);
    assert!(night.stored.counted((ANN, "sent_messages"), (ALWAYS.0, night.midnight)).await <= SENT_MAX);
    night.limit(ANN, &json!({ "sent_per_day": null })).await;
    eventually("everything to be sent", async || {
        let open = "'queued', 'sending', 'uncertain', 'deferred'";
        night.stored.in_state("submissions", "state", open).await == 0
    })
    .await;

    night.check().await;
    let yesterday = (ALWAYS.0, night.midnight);
    let mut days = Vec::new();
    for day in [yesterday, today] {
        let filed = night.stored.filed(BEA, day).await;
        // What an account brings is filed and counted, or neither.
        assert_eq!(night.stored.counted((BEA, "synced"), day).await, filed);
        days.push(filed);
    }
    assert!(days[0] > FILED_MAX && days[1] > 0, "it worked when midnight came: {days:?}");
    assert_eq!(night.used(BEA, "synced_per_day").await, days[1]);
    assert_eq!(night.stored.counted((BEA, "sent_messages"), ALWAYS).await, 2 * each * BY_HAND);
    assert_eq!(night.brought, 10_000);
    println!(
        "{} messages and {} kills in {:.1?} (evening {evening:.1?}, of it {brought:.1?} with kills); filed {days:?} before and after midnight; {} counted of {} sent",
        night.brought,
        night.kills,
        since.elapsed(),
        night.stored.counted((ANN, "sent_messages"), ALWAYS).await,
        night.stored.begun().await,
    );
    night.world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_count_of_ten_thousand_messages_is_below_the_truth_over_a_midnight_a_new_limit_and_kills() {
    pass_midnight(Setup::default(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_too() {
    let database = Postgres::shared().database();
    let setup = Setup { store_url: Some(database.url()), lease: Some("8s"), ..Setup::default() };
    pass_midnight(setup, Some(database)).await;
}
