//! Stops two machines that answer each other through an address of ours, where neither says that it is a machine.
//!
//! Counted in this process alone and forgotten when it ends: a loop goes on, and is counted again. Not here: what tells
//! automatic mail by its marks (`mail::Automatic`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;

use crate::{core::ids::RouteId, mail::Address};

/// Messages of one sender to one reply address within `WINDOW`; nobody writes that many letters by hand.
const ANSWERS_MAX: u32 = 30;
/// What machines send of one sender's to one capture address, which causes no mail.
const COPIES_MAX: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Pairs counted at a time; of more, those longest unseen are forgotten. Some 20 MB at most.
const PAIRS_MAX: u64 = 100_000;

/// Counts what each sender writes to each reply and capture address.
#[derive(Debug, Clone)]
pub struct LoopBrake(Cache<(RouteId, Address), Arc<AtomicU32>>);

impl Default for LoopBrake {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(PAIRS_MAX).time_to_live(WINDOW).build())
    }
}

impl LoopBrake {
    /// Counts one more message at a reply address. True when it is one too many.
    pub(super) async fn count_answer(&self, route: RouteId, from: &Address) -> bool {
        self.count(route, from).await >= ANSWERS_MAX
    }

    /// Counts one more message at a capture address. True when it is one too many.
    pub(super) async fn count_copy(&self, route: RouteId, from: &Address) -> bool {
        self.count(route, from).await >= COPIES_MAX
    }

    /// How many there were before.
    async fn count(&self, route: RouteId, from: &Address) -> u32 {
        let count = self.0.get_with((route, from.clone()), async { Arc::default() }).await;
        count.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mint;

    #[tokio::test]
    async fn only_the_sender_and_the_address_of_a_loop_are_stopped() {
        let brake = LoopBrake::default();
        let address = |text: &str| Address::parse(text).unwrap();
        let (bob, cora, towards_ann, towards_ben) =
            (address("bob@x.example"), address("cora@x.example"), mint(), mint());
        for _ in 0..ANSWERS_MAX {
            assert!(!brake.count_answer(towards_ann, &bob).await);
        }
        assert!(brake.count_answer(towards_ann, &bob).await);
        assert!(!brake.count_answer(towards_ann, &cora).await);
        assert!(!brake.count_answer(towards_ben, &bob).await);
    }

    #[tokio::test]
    async fn copies_are_stopped_later_than_answers() {
        let brake = LoopBrake::default();
        let (ann, capture, other) = (Address::parse("ann@x.example").unwrap(), mint(), mint());
        for _ in 0..COPIES_MAX {
            assert!(!brake.count_copy(capture, &ann).await);
        }
        assert!(brake.count_copy(capture, &ann).await);
        assert!(!brake.count_copy(other, &ann).await);
    }
}
