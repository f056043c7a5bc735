//! Stops two machines that answer each other through a reply address, where neither says that it is a machine.
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
const MESSAGES_MAX: u32 = 30;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Pairs counted at a time; of more, those longest unseen are forgotten. Some 20 MB at most.
const PAIRS_MAX: u64 = 100_000;

/// Counts what each sender writes to each reply address.
#[derive(Debug, Clone)]
pub struct LoopBrake(Cache<(RouteId, Address), Arc<AtomicU32>>);

impl Default for LoopBrake {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(PAIRS_MAX).time_to_live(WINDOW).build())
    }
}

impl LoopBrake {
    /// Counts one more message. True when it is one too many.
    pub(super) async fn count(&self, route: RouteId, from: &Address) -> bool {
        let count = self.0.get_with((route, from.clone()), async { Arc::default() }).await;
        count.fetch_add(1, Ordering::Relaxed) >= MESSAGES_MAX
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
        for _ in 0..MESSAGES_MAX {
            assert!(!brake.count(towards_ann, &bob).await);
        }
        assert!(brake.count(towards_ann, &bob).await);
        assert!(!brake.count(towards_ann, &cora).await);
        assert!(!brake.count(towards_ben, &bob).await);
    }
}
