//! How many sessions there are at one time, of one account and with one host: so many as its provider bears, less what is its
//! user's own programs', and no more than the operator wants. Who finds no place waits, in the order of coming.
//!
//! Each process counts for itself. An account is followed by one node at a time (the lease of `worker::accounts`) and what leaves by
//! it by one (the lane of its jobs), so that nodes add up only in short errands, and in a mailbox that several workspaces have
//! connected. Not here: when sessions begin (`pace`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use super::dialer::Protocol;
use crate::core::provider::Provider;

/// How long whoever is on an errand waits for a place: it is done later rather than keep its worker from others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a session that follows an account keeps its place when others wait for one.
const TURN: Duration = Duration::from_secs(60);
/// The same while it reads history: mail that is new elsewhere goes first.
const HISTORY_TURN: Duration = Duration::from_secs(5);
/// The fewest IMAP sessions an account or a host may have: one stays, and one comes and goes.
const IMAP_MIN: u32 = 2;
/// Gates kept before those that nobody stands at are cleared away.
const KEPT: usize = 1024;

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// IMAP sessions of one account, and SMTP sessions.
    pub per_account: u32,
    /// The same with one host.
    pub per_host: Option<u32>,
}

impl Default for Caps {
    fn default() -> Self {
        Self { per_account: 5, per_host: None }
    }
}

impl Caps {
    /// Sessions of one account of this provider.
    fn of_account(self, protocol: Protocol, provider: &Provider) -> u32 {
        let its = match protocol {
            Protocol::Imap => provider.connections_of_ours(),
            Protocol::Smtp => provider.submissions,
        };
        at_least(protocol, its.map_or(self.per_account, |its| its.min(self.per_account)))
    }
}

fn at_least(protocol: Protocol, most: u32) -> u32 {
    most.max(if protocol == Protocol::Imap { IMAP_MIN } else { 1 })
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It stays, and waits for its place as long as it takes. It gives it up for others by and by.
    Follow,
    /// One thing to do, and over.
    Errand,
    /// Old mail is read, for a while.
    History,
}

/// Whose session, and with which host.
#[derive(Debug, Clone, Copy)]
pub struct Seeker<'a> {
    pub protocol: Protocol,
    pub host: &'a str,
    /// Who logs in; `None` where nobody does.
    pub username: Option<&'a str>,
    pub provider: &'static Provider,
    pub purpose: Purpose,
}

type Key = (Protocol, String, Option<String>);

/// Places that are taken and given back.
#[derive(Debug, Default)]
pub(super) struct Places {
    caps: Caps,
    gates: Mutex<HashMap<Key, Weak<Gate>>>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
#[must_use = "the place is given back when it is dropped"]
pub struct Place {
    since: Instant,
    at: Vec<Pass>,
}

impl Places {
    pub(super) fn new(caps: Caps) -> Self {
        Self { caps, gates: Mutex::default() }
    }

    /// Takes a place; `None` when there was none in good time. Dropping it takes nothing.
    pub(super) async fn take(&self, seeker: Seeker<'_>) -> Option<Place> {
        let gates = self.gates_of(seeker);
        let all = async {
            let mut at = Vec::with_capacity(gates.len());
            // The account's before the host's, always: nobody waits for another who waits for him.
            for gate in gates {
                at.push(gate.pass(seeker.purpose).await);
            }
            Place { since: Instant::now(), at }
        };
        match seeker.purpose {
            Purpose::Follow => Some(all.await),
            Purpose::Errand | Purpose::History => timeout(PATIENCE, all).await.ok(),
        }
    }

    fn gates_of(&self, seeker: Seeker<'_>) -> Vec<Arc<Gate>> {
        let Seeker { protocol, host, username, provider, .. } = seeker;
        let host = host.to_ascii_lowercase();
        let of_account = username.map(|name| {
            let most = self.caps.of_account(protocol, provider);
            self.gate((protocol, host.clone(), Some(name.to_lowercase())), most)
        });
        let of_host = self
            .caps
            .per_host
            .map(|most| self.gate((protocol, host.clone(), None), at_least(protocol, most)));
        of_account.into_iter().chain(of_host).collect()
    }

    fn gate(&self, key: Key, most: u32) -> Arc<Gate> {
        let mut gates = lock(&self.gates);
        if let Some(gate) = gates.get(&key).and_then(Weak::upgrade) {
            return gate;
        }
        if gates.len() >= KEPT && gates.len() == gates.capacity() {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Arc::new(Gate::new(most));
        gates.insert(key, Arc::downgrade(&gate));
        gate
    }
}

impl Place {
    /// Waits until somebody else should have this place. Whoever is told so is to give it up soon. May be dropped at any time.
    pub async fn wanted(&self) {
        sleep_until(self.since + TURN).await;
        let wanted = self.at.iter().map(|pass| Box::pin(pass.wanted()));
        match wanted.len() {
            0 => std::future::pending().await,
            _ => drop(futures_util::future::select_all(wanted).await),
        }
    }

    /// Whether somebody else should have this place by now, where all that it is kept for is history.
    pub fn is_wanted_by_the_living(&self) -> bool {
        self.since.elapsed() >= HISTORY_TURN && self.at.iter().any(Pass::claim)
    }
}

/// So many sessions at one time.
#[derive(Debug)]
struct Gate {
    all: Arc<Semaphore>,
    /// Those that stay leave one place to those that come and go.
    following: Arc<Semaphore>,
    /// Those that read history leave most of them.
    history: Arc<Semaphore>,
    queue: Mutex<Queue>,
    came: Notify,
}

/// Sessions that would follow an account and have no place, and those that are about to give theirs up.
#[derive(Debug, Default)]
struct Queue {
    waiting: usize,
    leaving: usize,
}

impl Gate {
    fn new(most: u32) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(usize::try_from(count.max(1)).unwrap_or(1)));
        Self {
            all: places(most),
            following: places(most.saturating_sub(1)),
            history: places(most / 4),
            queue: Mutex::default(),
            came: Notify::new(),
        }
    }

    async fn pass(self: Arc<Self>, purpose: Purpose) -> Pass {
        let own = match purpose {
            Purpose::Follow => Some(self.of_those_who_stay().await),
            Purpose::History => Some(taken(&self.history).await),
            Purpose::Errand => None,
        };
        let all = taken(&self.all).await;
        Pass { _own: own, _all: all, gate: self, is_leaving: Mutex::new(false) }
    }

    async fn of_those_who_stay(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.following).try_acquire_owned() {
            return permit;
        }
        let _waiting = Waiting::begin(self);
        taken(&self.following).await
    }
}

async fn taken(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("the places are never closed")
}

/// Counts who waits, for as long as it lasts.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate) -> Self {
        lock(&gate.queue).waiting += 1;
        gate.came.notify_one();
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).waiting -= 1;
    }
}

/// What one gate has let in.
#[derive(Debug)]
struct Pass {
    _own: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
    gate: Arc<Gate>,
    is_leaving: Mutex<bool>,
}

impl Pass {
    async fn wanted(&self) {
        loop {
            let came = self.gate.came.notified();
            if self.claim() {
                return;
            }
            came.await;
        }
    }

    /// Whether it is on this one to leave: of those who could, as many do as there are who wait.
    fn claim(&self) -> bool {
        let mut queue = lock(&self.gate.queue);
        let mut is_leaving = lock(&self.is_leaving);
        if !*is_leaving && queue.leaving < queue.waiting {
            (queue.leaving, *is_leaving) = (queue.leaving + 1, true);
        }
        *is_leaving
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if *lock(&self.is_leaving) {
            lock(&self.gate.queue).leaving -= 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds a lock here can leave half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn seeker(provider: &str, username: &'static str, purpose: Purpose) -> Seeker<'static> {
        let provider = Provider::named(provider).unwrap();
        Seeker {
            protocol: Protocol::Imap,
            host: "imap.a.example",
            username: Some(username),
            provider,
            purpose,
        }
    }

    #[test]
    fn an_account_has_its_share_and_no_more_than_the_operator_wants() {
        let caps = |per_account| Caps { per_account, per_host: None };
        for (name, per_account, imap, smtp) in [
            ("google", 99, 7, 99),
            ("google", 5, 5, 5),
            ("microsoft", 99, 8, 3),
            ("microsoft", 2, 2, 2),
            ("yahoo", 5, 2, 5),
            ("imap", 5, 5, 5),
            ("imap", 1, 2, 1),
        ] {
            let of = |protocol| caps(per_account).of_account(protocol, Provider::named(name).unwrap());
            assert_eq!((of(Protocol::Imap), of(Protocol::Smtp)), (imap, smtp), "{name} {per_account}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_stay_leave_a_place_to_errands_and_history_leaves_most() {
        let places = Places::new(Caps { per_account: 4, per_host: None });
        let take = |purpose| places.take(seeker("imap", "ann", purpose));
        let follow = [take(Purpose::Follow).await, take(Purpose::Follow).await, take(Purpose::Follow).await];
        let waits = timeout(Duration::from_secs(3600), take(Purpose::Follow)).await;
        assert!(waits.is_err() && follow.iter().all(Option::is_some));
        let errand = take(Purpose::Errand).await;
        assert!(errand.is_some());
        assert!(take(Purpose::Errand).await.is_none(), "it waits no longer than it may");
        drop(follow);
        let history = take(Purpose::History).await;
        assert!(history.is_some() && take(Purpose::History).await.is_none());
        assert!(take(Purpose::Follow).await.is_some());
        // Another account has its own, and so has another host.
        assert!(places.take(seeker("imap", "ben", Purpose::Follow)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_host_there_are_no_more_than_the_operator_wants_whoever_they_are_of() {
        let places = Places::new(Caps { per_account: 5, per_host: Some(2) });
        let take = |name| places.take(seeker("imap", name, Purpose::Errand));
        let (ann, _ben) = (take("ann").await, take("ben").await);
        assert!(take("eve").await.is_none());
        let (came, ()) = tokio::join!(take("eve"), async { drop(ann) });
        assert!(came.is_some(), "what is given back is taken by who waits");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_give_up_their_places_as_there_are_who_wait_and_not_before_their_time() {
        let places = Arc::new(Places::new(Caps { per_account: 5, per_host: Some(4) }));
        let mut held = Vec::new();
        for name in ["a", "b", "c"] {
            held.push(places.take(seeker("imap", name, Purpose::Follow)).await.unwrap());
        }
        let begun = Instant::now();
        let fourth = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(seeker("imap", "d", Purpose::Follow)).await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert!(!held[0].is_wanted_by_the_living(), "not at once");
        held[1].wanted().await;
        assert_eq!(begun.elapsed(), TURN);
        let others = timeout(Duration::from_secs(3600), held[0].wanted()).await;
        assert!(others.is_err(), "one is enough");
        drop(held.remove(1));
        let fourth = fourth.await.unwrap();
        assert!(timeout(Duration::from_secs(3600), held[0].wanted()).await.is_err());
        drop(fourth);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_history_gives_up_his_place_sooner_and_who_went_away_is_not_waited_for() {
        let places = Places::new(Caps { per_account: 2, per_host: None });
        let held = places.take(seeker("imap", "a", Purpose::Follow)).await.unwrap();
        let mut waits = Box::pin(places.take(seeker("imap", "a", Purpose::Follow)));
        assert!(timeout(Duration::from_millis(1), &mut waits).await.is_err());
        advance(HISTORY_TURN).await;
        drop(waits);
        assert!(!held.is_wanted_by_the_living());
        let mut waits = Box::pin(places.take(seeker("imap", "A", Purpose::Follow)));
        assert!(timeout(Duration::from_millis(1), &mut waits).await.is_err());
        assert!(held.is_wanted_by_the_living() && held.is_wanted_by_the_living());
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten() {
        let places = Places::default();
        for number in 0..10 * KEPT {
            let host = format!("host{number}.example");
            let seeker = Seeker { host: &host, ..seeker("imap", "ann", Purpose::Follow) };
            drop(places.take(seeker).await);
        }
        assert!(places.gates.lock().unwrap().len() <= 4 * KEPT);
    }
}
