//! `kill -9` at random moments under load: every acknowledged message is there exactly once, and nothing is sent twice
//! unless it was shown as uncertain.
//!
//! Not here: what a power cut does to the disk; SQLite runs with `synchronous=FULL` for that.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    load::Load,
    proof::prove,
    support::postgres::Postgres,
    world::{Setup, World},
};

/// How long it lives between two kills, at most.
const LIFE_MAX: Duration = Duration::from_millis(1400);
/// Every so many starts it is killed before it is up.
const STILLBORN_EVERY: u32 = 8;
const START_MAX: Duration = Duration::from_millis(60);
/// First starts, which make the key and the tables, are cut short at so many moments of this time.
const FIRST_STARTS: u32 = 12;
const FIRST_START_MAX: Duration = Duration::from_millis(180);

/// Numbers that are the same each time (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: Duration) -> Duration {
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
        // The moment of the kill is what is tried here: nothing else is waited for.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_may_be_cut_short_at_any_moment() {
    for step in 0..FIRST_STARTS {
        let mut world = World::empty(Setup::default()).await;
        world.gateway.start();
        tokio::time::sleep(FIRST_START_MAX * step / FIRST_STARTS).await;
        world.gateway.kill();
        world.gateway.start();
        world.gateway.ready().await;
        world.settle_in().await;
        world.audit().await;
    }
}
