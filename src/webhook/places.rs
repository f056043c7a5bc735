//! So many posts at once to one endpoint, and for one workspace: who answers slowly, or never, holds up himself alone.
//!
//! Not here: what becomes of a post that finds no place (`flow::notify`). Each process counts for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

use crate::core::ids::{Id as _, WebhookId, WorkspaceId};

/// Posts in flight to one endpoint. Enough for one that answers in time; one that does not costs no more workers than this.
const ENDPOINT_MAX: u32 = 4;
/// Posts in flight for one workspace: half of the workers, so that nobody takes them all by adding endpoints.
const WORKSPACE_MAX: u32 = 16;
/// How long a post waits for its place. An endpoint that answers gives places back in this time; to wait for one that does
/// not would take the worker from others.
const PATIENCE: Duration = Duration::from_secs(1);
/// Semaphores kept before those that nobody holds are cleared away.
const KEPT: usize = 256;

/// How much of an endpoint a post takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// One place of several.
    Shared,
    /// The whole endpoint, and only if it is free at once: a try whether it answers again.
    Alone,
}

/// Places that are taken and given back. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<Uuid, Weak<Semaphore>>>>);

/// A place that is taken until it is dropped.
#[must_use = "the place is given back when it is dropped"]
pub struct Place {
    _endpoint: OwnedSemaphorePermit,
    _workspace: OwnedSemaphorePermit,
}

impl Places {
    /// Takes a place, waiting a moment for it; `None` when there is none. Dropping it takes nothing.
    pub(super) async fn take(
        &self,
        workspace: WorkspaceId,
        endpoint: WebhookId,
        room: Room,
    ) -> Option<Place> {
        let (permits, patience) = match room {
            Room::Shared => (1, PATIENCE),
            Room::Alone => (ENDPOINT_MAX, Duration::ZERO),
        };
        let endpoint = self.semaphore(endpoint.uuid(), ENDPOINT_MAX);
        let workspace = self.semaphore(workspace.uuid(), WORKSPACE_MAX);
        let both = async {
            let endpoint = endpoint.acquire_many_owned(permits).await.ok()?;
            Some(Place { _endpoint: endpoint, _workspace: workspace.acquire_owned().await.ok()? })
        };
        timeout(patience, both).await.ok().flatten()
    }

    fn semaphore(&self, id: Uuid, places: u32) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = known.get(&id).and_then(Weak::upgrade) {
            return semaphore;
        }
        if known.len() >= KEPT {
            known.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let semaphore = Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(usize::MAX)));
        known.insert(id, Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(number))
    }

    fn endpoint(number: u128) -> WebhookId {
        WebhookId::from_uuid(Uuid::from_u128(1000 + number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_has_its_places_and_no_more() {
        let places = Places::default();
        let take = |number, room| places.take(workspace(1), endpoint(number), room);
        let mut taken = Vec::new();
        for _ in 0..ENDPOINT_MAX {
            taken.push(take(1, Room::Shared).await.unwrap());
        }
        assert!(take(1, Room::Shared).await.is_none(), "more than there are");
        assert!(take(2, Room::Shared).await.is_some(), "another endpoint has its own");
        let (freed, waited) = tokio::join!(async { drop(taken.pop()) }, take(1, Room::Shared));
        let () = freed;
        assert!(waited.is_some(), "a place that is given back is taken by who waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_has_the_endpoint_alone_or_not_at_all() {
        let places = Places::default();
        let take = |room| places.take(workspace(1), endpoint(1), room);
        let alone = take(Room::Alone).await.unwrap();
        assert!(take(Room::Alone).await.is_none() && take(Room::Shared).await.is_none());
        drop(alone);
        let shared = take(Room::Shared).await.unwrap();
        assert!(take(Room::Alone).await.is_none());
        drop(shared);
        assert!(take(Room::Alone).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_workspace_with_many_endpoints_leaves_places_to_others() {
        let places = Places::default();
        let mut taken = Vec::new();
        for number in 0..u128::from(WORKSPACE_MAX) {
            taken.push(places.take(workspace(1), endpoint(number), Room::Shared).await.unwrap());
        }
        assert!(places.take(workspace(1), endpoint(100), Room::Shared).await.is_none());
        assert!(places.take(workspace(2), endpoint(101), Room::Alone).await.is_some());
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten() {
        let places = Places::default();
        for number in 0..10 * KEPT as u128 {
            drop(places.take(workspace(number), endpoint(10_000 + number), Room::Shared).await);
        }
        assert!(places.0.lock().unwrap().len() <= KEPT + 1);
    }
}
