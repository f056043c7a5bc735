//! The accounts that this process follows, and what they share: room for bodies, a place to leave errands.
//!
//! Not here: which accounts those are (`worker::accounts`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    core::ids::{AccountId, DecisionId},
    flow::FlowError,
    queue, store,
};

/// Bodies held in memory by all accounts together, in KiB: four of the largest messages that a default set-up takes.
const BODIES_KIB_MAX: u32 = 256 * 1024;
/// Errands that wait for one account; whoever comes later finds the desk full and comes again.
const RECALLS_MAX: usize = 16;

/// What the followed accounts of one process share. Clones share everything.
#[derive(Clone)]
pub struct Followers(Arc<Shared>);

struct Shared {
    bodies: Arc<Semaphore>,
    desks: Mutex<HashMap<AccountId, mpsc::Sender<Recall>>>,
    looks: Mutex<HashMap<AccountId, (store::Leased, Timestamp)>>,
}

/// Mail to be fetched again over a session that is there already.
pub(super) struct Recall {
    pub job: queue::Leased,
    pub account: AccountId,
    /// What left it out says where it lies.
    pub decision: DecisionId,
    /// Dropped unanswered when the session ends before.
    pub done: oneshot::Sender<Result<(), FlowError>>,
}

/// Where errands for one account arrive while it is followed.
pub(super) struct Desk {
    shared: Arc<Shared>,
    account: AccountId,
    recalls: mpsc::Receiver<Recall>,
}

impl Default for Followers {
    fn default() -> Self {
        Self(Arc::new(Shared {
            bodies: Arc::new(Semaphore::new(usize::try_from(BODIES_KIB_MAX).unwrap_or(usize::MAX))),
            desks: Mutex::default(),
            looks: Mutex::default(),
        }))
    }
}

impl Followers {
    /// Room for a body, if there is some at once.
    pub(super) fn room_now(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.bodies).try_acquire_many_owned(kib(bytes)).ok()
    }

    /// Waits for room for a body. Whoever waits must hold none, else two could wait for each other.
    pub(super) async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.0.bodies).acquire_many_owned(kib(bytes)).await;
        room.expect("the room is never closed")
    }

    pub(super) fn open_desk(&self, account: AccountId) -> Desk {
        let (sender, recalls) = mpsc::channel(RECALLS_MAX);
        lock(&self.0.desks).insert(account, sender);
        Desk { shared: Arc::clone(&self.0), account, recalls }
    }

    /// Leaves an errand with the account's session. False when there is none here, or it has enough to do.
    pub(super) fn ask(&self, recall: Recall) -> bool {
        let desk = lock(&self.0.desks).get(&recall.account).cloned();
        desk.is_some_and(|desk| desk.try_send(recall).is_ok())
    }

    /// Notes a look; it is written down with others'.
    pub(super) fn note_look(&self, lease: store::Leased, at: Timestamp) {
        lock(&self.0.looks).insert(lease.account, (lease, at));
    }

    /// The looks noted since this was last called.
    #[must_use]
    pub fn take_looks(&self) -> Vec<(store::Leased, Timestamp)> {
        std::mem::take(&mut *lock(&self.0.looks)).into_values().collect()
    }
}

impl Desk {
    pub(super) async fn recall(&mut self) -> Recall {
        match self.recalls.recv().await {
            Some(recall) => recall,
            // Another session of the same account has taken the desk over: nothing comes here any more.
            None => std::future::pending().await,
        }
    }

    pub(super) fn recall_now(&mut self) -> Option<Recall> {
        self.recalls.try_recv().ok()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut desks = lock(&self.shared.desks);
        self.recalls.close();
        if desks.get(&self.account).is_some_and(mpsc::Sender::is_closed) {
            desks.remove(&self.account);
        }
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, BODIES_KIB_MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds a lock here can leave its map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
