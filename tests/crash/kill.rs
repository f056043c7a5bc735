//! `kill -9` at random moments under load: every acknowledged message is there exactly once, and nothing is sent twice
//! unless it was shown as uncertain.
//!
//! Not here: what a power cut does to the disk; SQLite runs with `synchronous=FULL` for that.

use std::{
    fs,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    load::Load,
    proof::prove,
    support::{PATIENCE, postgres::Postgres},
    world::{Setup, World},
};

/// How long it lives between two kills, at most.
const LIFE_MAX: Duration = Duration::from_millis(1400);
/// Every so many starts it is killed before it is up.
const STILLBORN_EVERY: u32 = 8;
const START_MAX: Duration = Duration::from_millis(60);
/// First starts, which make the key and the tables, are cut short with so many parts of that written.
const FIRST_STARTS: u64 = 12;
/// Between two looks at what is written: much shorter than the writing.
const PAUSE: Duration = Duration::from_millis(1);

/// Numbers that are the same each time (xorshift64*).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let fraction = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64;
        limit.mul_f64(fraction)
    }
}

async fn survive(setup: Setup, kills: u32) {
    let (since, mut chance) = (Instant::now(), Chance(0x9E37_79B9_7F4A_7C15));
    let mut world = World::build(setup).await;
    let load = Load::begin(&world);
    let mut starts = Vec::new();
    for number in 0..kills {
        // The moment of the kill is left to chance on purpose, so that it may be any: these sleeps wait for nothing.
        if number % STILLBORN_EVERY == 3 {
            tokio::time::sleep(chance.below(START_MAX)).await;
        } else {
            starts.push(world.gateway.ready().await);
            if number % 2 == 0 {
                // However slow the machine is: half of the lives are long enough to acknowledge something.
                load.ledger.grown_to(load.ledger.len() + 1).await;
            }
            tokio::time::sleep(chance.below(LIFE_MAX)).await;
        }
        world.gateway.kill();
        world.gateway.start();
    }
    starts.push(world.gateway.ready().await);
    let killing = since.elapsed();
    let ledger = load.finish().await;
    assert!(ledger.len() > kills as usize, "there was some load: {}", ledger.len());
    let figures = prove(&world, &ledger).await;
    starts.sort();
    println!(
        "{kills} kills in {killing:.1?}; start {:.0?} (median), {:.0?} (longest); lost answers {}, put off {}, repeated {}; {figures}",
        starts[starts.len() / 2],
        starts[starts.len() - 1],
        ledger.lost.load(Ordering::Relaxed),
        ledger.put_off.load(Ordering::Relaxed),
        ledger.repeated.load(Ordering::Relaxed),
    );
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_hundred_kills() {
    survive(Setup::default(), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_too() {
    let database = Postgres::shared().database();
    let lease = Some("1s");
    survive(Setup { store_url: Some(database.url()), lease, ..Setup::default() }, 20).await;
}

/// Nothing started yet, and the directory its data are to lie in.
async fn fresh() -> (TempDir, World) {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup { data_dir: Some(directory.path().join("data")), ..Setup::default() };
    let world = World::empty(setup).await;
    (directory, world)
}

/// Octets in all files below a directory.
fn written(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(of) if of.is_dir() => written(&entry.path()),
        // A file that is gone by now.
        found => found.map_or(0, |of| of.len()),
    };
    entries.map(size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_may_be_cut_short_at_any_moment() {
    let whole = {
        let (directory, mut world) = fresh().await;
        world.gateway.start();
        world.gateway.ready().await;
        written(directory.path())
    };
    for step in 0..FIRST_STARTS {
        let (directory, mut world) = fresh().await;
        world.gateway.start();
        let since = Instant::now();
        // Told by what is written and not by time, of which a busy machine takes more.
        while written(directory.path()) < whole * step / FIRST_STARTS {
            assert!(
                since.elapsed() < PATIENCE,
                "the first start writes nothing\n{}",
                world.gateway.log_tail()
            );
            tokio::time::sleep(PAUSE).await;
        }
        world.gateway.kill();
        world.gateway.start();
        world.gateway.ready().await;
        world.settle_in().await;
        world.audit().await;
    }
}
