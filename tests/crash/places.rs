//! The process ends at each named place between two durable steps, one after the other under load: nothing is lost, and nothing
//! done twice that was not shown as uncertain.
//!
//! Not here: ends at random moments (`kill`).

use std::time::Duration;

use crate::{
    load::Load,
    proof::prove,
    support::postgres::Postgres,
    world::{Setup, World},
};

/// Every place that this load reaches.
const PLACES: [&str; 12] = [
    // The rows of a message are written and not yet committed; committed, and the 250 not yet said.
    "intake.written",
    "intake.taken",
    "job.claimed/process",
    "job.done/process",
    "job.claimed/submit",
    // The intent is on disk and the final dot is not sent; it was answered, and that is not yet written.
    "submit.intended",
    "submit.answered",
    "job.done/submit",
    "job.claimed/save_sent",
    // The copy lies in Sent, and that is not yet written.
    "copy.appended",
    "job.done/save_sent",
    "job.done/repeat",
];
/// How long a load may take to reach a place, on a machine that is busy with other tests.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

async fn survive(setup: Setup, times: &[u32]) {
    let mut world = World::build(setup).await;
    world.gateway.ready().await;
    let load = Load::begin(&world);
    world.gateway.kill();
    for time in times {
        for place in PLACES {
            world.gateway.end_at(&format!("{place}:{time}"), REACHED_WITHIN).await;
        }
    }
    world.gateway.start();
    world.gateway.ready().await;
    let ledger = load.finish().await;
    assert!(ledger.len() > PLACES.len(), "there was some load: {}", ledger.len());
    println!("{}", prove(&world, &ledger).await);
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_named_place_may_be_the_last() {
    survive(Setup::default(), &[1, 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_too() {
    let database = Postgres::shared().database();
    survive(Setup { store_url: Some(database.url()), lease: Some("1s"), ..Setup::default() }, &[1]).await;
}
