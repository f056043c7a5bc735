//! So many things at once, in all and for each workspace: one tenant alone cannot take what all need.
//!
//! Not here: waiting. Who finds no place is told when to come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::core::ids::WorkspaceId;

/// Places that are taken and given back.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    all_max: usize,
    each_max: usize,
    taken: Mutex<HashMap<WorkspaceId, usize>>,
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, HashMap<WorkspaceId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken until it is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    workspace: WorkspaceId,
}

impl Places {
    pub(super) fn new(all_max: usize, each_max: usize) -> Self {
        Self(Arc::new(Shared { all_max, each_max, taken: Mutex::default() }))
    }

    /// Takes a place, if there is one for this workspace.
    pub(super) fn take(&self, workspace: WorkspaceId) -> Option<Place> {
        let mut taken = self.0.taken();
        let own = taken.get(&workspace).copied().unwrap_or_default();
        if own >= self.0.each_max || taken.values().sum::<usize>() >= self.0.all_max {
            return None;
        }
        taken.insert(workspace, own + 1);
        Some(Place { shared: Arc::clone(&self.0), workspace })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        // A workspace without places is forgotten, so that the map stays small.
        match taken.get(&self.workspace).copied() {
            Some(own) if own > 1 => drop(taken.insert(self.workspace, own - 1)),
            _ => drop(taken.remove(&self.workspace)),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::core::ids::Id as _;

    #[test]
    fn places_are_bounded_in_all_and_for_each() {
        let workspace = |n| WorkspaceId::from_uuid(Uuid::from_u128(n));
        let places = Places::new(3, 2);
        let (first, second) = (places.take(workspace(1)).unwrap(), places.take(workspace(1)).unwrap());
        assert!(places.take(workspace(1)).is_none(), "more than each may have");
        let third = places.take(workspace(2)).unwrap();
        assert!(places.take(workspace(3)).is_none(), "more than there are");
        drop(first);
        let fourth = places.take(workspace(3)).unwrap();
        drop((second, third, fourth));
        assert!(places.0.taken().is_empty());
    }
}
