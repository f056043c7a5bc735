//! Wakes the workers of other nodes for jobs that are committed here, and ours for those that are committed there.
//!
//! Not here: finding the jobs. A wake-up that is lost costs the time until workers look by themselves (`jobs`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{coord::Coord, flow::Gateway, queue::Queue, store::Store};

/// Heard by the workers of every node.
const JOBS: &str = "jobs";
/// Others are told at most so often: a thousand commits in a second are one piece of news.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Tells other nodes of jobs, until `shutdown`.
pub async fn tell(gateway: Gateway, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tell_all(&gateway.store, &gateway.coord) => {}
    }
}

/// Has this node's workers hear of the jobs of others, until `shutdown`.
pub async fn hear(gateway: Gateway, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = hear_all(&gateway.queue, &gateway.coord) => {}
    }
}

async fn tell_all(store: &Store, coord: &Coord) {
    let mut enqueued = store.enqueued();
    while enqueued.changed().await.is_ok() {
        coord.wake(JOBS);
        tokio::time::sleep(TELL_EVERY).await;
    }
}

async fn hear_all(queue: &Queue, coord: &Coord) {
    let mut news = coord.subscribe(JOBS);
    loop {
        news.wait().await;
        queue.nudge();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        core::job::{Job, JobKind},
        store::{mint, testing::World},
    };

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_committed_on_one_node_wakes_the_workers_of_another() {
        let world = World::postgres().await;
        let workspace = world.workspace().await;
        let elsewhere = Store::open(&world.options).await.unwrap();
        let (queue, told_on) = (Queue::new(elsewhere.clone()), elsewhere.enqueued());
        let coord = Coord::local();
        let mut listener = queue.listen(&[JobKind::Process]);
        let carry = async { tokio::join!(tell_all(&world.store, &coord), hear_all(&queue, &coord)) };
        let meet = async {
            let mut tx = world.store.begin(workspace).await.unwrap();
            tx.enqueue_job(&Job::Process { inbound: mint() }, Timestamp::now()).await.unwrap();
            tx.commit().await.unwrap();
            let woken = tokio::time::timeout(DEADLINE, listener.wait(2 * DEADLINE)).await;
            assert!(woken.is_ok(), "nobody was woken");
            // Or nodes would wake each other without end.
            assert!(!told_on.has_changed().unwrap(), "what was heard is told on");
        };
        // Biased: who carries the news listens before there is any.
        tokio::select! { biased; _ = carry => unreachable!("it has no end"), () = meet => {} }
    }
}
