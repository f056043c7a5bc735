//! So many things at once, in all and for each workspace: one tenant alone cannot take what all need.
//!
//! Not here: what a place is for, and how long it may be kept.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::problem::Problem;
use crate::core::ids::WorkspaceId;

/// How long a request waits for a place before its caller is asked to come again.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When he is to come.
const RETRY_SECONDS: u32 = 10;

/// Places that are taken and given back.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    all: Arc<Semaphore>,
    each_max: usize,
    /// Of every workspace that has a place or waits for one.
    each: Mutex<HashMap<WorkspaceId, Weak<Semaphore>>>,
    /// How many wait for a place that any workspace may have.
    waiting: AtomicUsize,
}

/// A place that is taken until it is dropped.
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    places: Places,
}

impl Place {
    /// Whether somebody waits for one like this: whoever makes slow use of it is in the way.
    pub(super) fn is_wanted(&self) -> bool {
        self.places.0.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Somebody who waits, until he is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    pub(super) fn new(all_max: usize, each_max: usize) -> Self {
        let all = Arc::new(Semaphore::new(all_max));
        Self(Arc::new(Shared { all, each_max, each: Mutex::default(), waiting: AtomicUsize::new(0) }))
    }

    /// Takes a place, if there is one for this workspace now.
    pub(super) fn take(&self, workspace: WorkspaceId) -> Option<Place> {
        let own = self.own(workspace).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.0.all).try_acquire_owned().ok()?;
        Some(Place { _own: own, _all: all, places: self.clone() })
    }

    /// Takes a place as soon as there is one. Who waits for his own workspace's takes no other's turn.
    ///
    /// # Errors
    /// 429 when there is none for long.
    pub(super) async fn wait(&self, workspace: WorkspaceId) -> Result<Place, Problem> {
        let taking = async {
            let own = self.own(workspace).acquire_owned().await.ok()?;
            let _waiting = Waiting::begin(&self.0.waiting);
            let all = Arc::clone(&self.0.all).acquire_owned().await.ok()?;
            Some(Place { _own: own, _all: all, places: self.clone() })
        };
        let taken = timeout(WAIT_MAX, taking).await.ok().flatten();
        taken.ok_or_else(|| {
            Problem::limited("Too many requests of this kind are being served at this moment.", RETRY_SECONDS)
        })
    }

    fn own(&self, workspace: WorkspaceId) -> Arc<Semaphore> {
        let mut each = self.0.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = each.get(&workspace).and_then(Weak::upgrade) {
            return own;
        }
        // A workspace without places is forgotten, so that the map stays small.
        each.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.0.each_max));
        each.insert(workspace, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::core::ids::Id as _;

    fn workspace(n: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn places_are_bounded_in_all_and_for_each() {
        let places = Places::new(3, 2);
        let (first, second) = (places.take(workspace(1)).unwrap(), places.take(workspace(1)).unwrap());
        assert!(places.take(workspace(1)).is_none(), "more than each may have");
        let third = places.take(workspace(2)).unwrap();
        assert!(places.take(workspace(3)).is_none(), "more than there are");
        drop(first);
        let fourth = places.take(workspace(3)).unwrap();
        drop((second, third, fourth));
        drop(places.own(workspace(4)));
        assert_eq!(places.0.each.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_wanted_while_another_workspace_waits_for_one() {
        let places = Places::new(1, 1);
        let place = places.wait(workspace(1)).await.unwrap();
        for (other, is_wanted) in [(workspace(1), false), (workspace(2), true)] {
            let waiting = tokio::spawn({
                let places = places.clone();
                async move { places.wait(other).await.is_ok() }
            });
            tokio::task::yield_now().await;
            assert_eq!(place.is_wanted(), is_wanted);
            assert!(!waiting.await.unwrap(), "it waited in vain");
            assert!(!place.is_wanted());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_behind_his_own_kind_holds_up_nobody_else() {
        let places = Places::new(3, 2);
        let held = [places.wait(workspace(1)).await.unwrap(), places.wait(workspace(1)).await.unwrap()];
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.wait(workspace(1)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        let other = places.wait(workspace(2)).await.unwrap();
        drop(held);
        assert!(waiting.await.unwrap(), "a place was free");
        let (_one, _two) = (places.take(workspace(3)).unwrap(), places.take(workspace(3)).unwrap());
        assert_eq!(places.wait(workspace(4)).await.err().unwrap().status.as_u16(), 429);
        drop(other);
    }
}
