//! When sessions with a host begin: so many a second at most, in the order they were asked for, and so many that log in at one
//! time. A start with thousands of accounts at one provider, or its coming back, is no rush to its doors.
//!
//! Not here: how long an account waits after a failure (`worker::accounts`), and how many sessions a provider bears at once
//! (`places`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError},
    time::{Instant, sleep_until},
};

use super::{dialer::Protocol, places::Purpose};

/// Hosts that are remembered before those are forgotten whose next turn is free.
const HOSTS_MAX: usize = 1024;

/// Sessions that log in at the same time with one host: a host that takes logins and never answers keeps its own accounts
/// waiting, and no other host's.
const LOGINS_AT_ONCE: usize = 20;
/// The same with all hosts together: what a handshake costs. A host has too few turns to take all of these.
const ALL_LOGINS_AT_ONCE: usize = 10 * LOGINS_AT_ONCE;
/// Logins with one host that go on when their turn is over, of sessions that do not stay: each is a worker's, and a server that
/// hangs is not to have them all.
const SLOW_AT_ONCE: usize = 8;

/// Gives out turns.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    /// When the next turn of each host is free.
    hosts: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// At most so many turns a second for each host; 0 counts as 1.
    pub(super) fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), hosts: Mutex::default() }
    }

    /// Waits for the host's next free turn. False at once when that is further away than the caller has patience for. Of a
    /// waiter that is dropped the turn passes unused.
    pub(super) async fn turn(&self, host: &str, patience: Option<Duration>) -> bool {
        let Some(turn) = self.take(host, Instant::now(), patience) else { return false };
        sleep_until(turn).await;
        true
    }

    fn take(&self, host: &str, now: Instant, patience: Option<Duration>) -> Option<Instant> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, free| *free > now);
        }
        let free = hosts.entry(host.to_ascii_lowercase()).or_insert(now);
        let turn = (*free).max(now);
        if patience.is_some_and(|patience| turn.duration_since(now) > patience) {
            return None;
        }
        *free = turn + self.every;
        Some(turn)
    }
}

/// A turn to log in, until it is dropped.
#[derive(Debug)]
pub struct LoginTurn<'a> {
    _of_host: OwnedSemaphorePermit,
    _of_all: SemaphorePermit<'a>,
    /// Where the login may go on after its turn; `None` of a session that stays, which may anyway.
    slow: Option<Arc<Semaphore>>,
}

impl LoginTurn<'_> {
    /// Gives the turn to another while the login goes on, in the place that is returned where it needs one.
    ///
    /// # Errors
    /// When as many do as may.
    pub(super) fn give_back(self) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
        self.slow.map(Semaphore::try_acquire_owned).transpose()
    }
}

/// Gives out turns to log in, each host's apart from those of all others.
#[derive(Debug)]
pub(super) struct Logins {
    all: Semaphore,
    turns: PerHost,
    slow: PerHost,
}

impl Default for Logins {
    fn default() -> Self {
        let (turns, slow) = (PerHost::new(LOGINS_AT_ONCE), PerHost::new(SLOW_AT_ONCE));
        Self { all: Semaphore::new(ALL_LOGINS_AT_ONCE), turns, slow }
    }
}

impl Logins {
    /// Waits for a turn with this host, in the order of coming; it lasts until it is dropped.
    pub(super) async fn turn(&self, protocol: Protocol, host: &str, purpose: Purpose) -> LoginTurn<'_> {
        let closed = "the turns are never closed";
        LoginTurn {
            _of_host: self.turns.of(protocol, host).acquire_owned().await.expect(closed),
            _of_all: self.all.acquire().await.expect(closed),
            slow: (purpose != Purpose::Follow).then(|| self.slow.of(protocol, host)),
        }
    }
}

/// So many of something for each host, remembered while somebody has one.
#[derive(Debug)]
struct PerHost {
    permits: usize,
    hosts: Mutex<HashMap<(Protocol, String), Weak<Semaphore>>>,
}

impl PerHost {
    fn new(permits: usize) -> Self {
        Self { permits, hosts: Mutex::default() }
    }

    fn of(&self, protocol: Protocol, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (protocol, host.to_ascii_lowercase());
        if let Some(logins) = hosts.get(&key).and_then(Weak::upgrade) {
            return logins;
        }
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, logins| logins.strong_count() > 0);
        }
        let logins = Arc::new(Semaphore::new(self.permits));
        hosts.insert(key, Arc::downgrade(&logins));
        logins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logins_with_one_host_wait_for_each_other_and_not_for_those_with_another() {
        let logins = Logins::default();
        let mut held = Vec::new();
        for _ in 0..LOGINS_AT_ONCE {
            held.push(logins.turn(Protocol::Imap, "imap.a.example", Purpose::Errand).await);
        }
        let waits = tokio::time::timeout(
            Duration::from_secs(60),
            logins.turn(Protocol::Imap, "IMAP.a.example", Purpose::Errand),
        );
        assert!(waits.await.is_err());
        drop(logins.turn(Protocol::Smtp, "imap.a.example", Purpose::Errand).await);
        drop(logins.turn(Protocol::Imap, "imap.b.example", Purpose::Errand).await);
        held.pop();
        drop(logins.turn(Protocol::Imap, "imap.a.example", Purpose::Errand).await);
        assert_eq!(logins.turns.hosts.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_host_that_hangs_keeps_few_who_have_other_things_to_do() {
        let logins = Logins::default();
        let slow = async |purpose| logins.turn(Protocol::Smtp, "smtp.a.example", purpose).await.give_back();
        let mut held = Vec::new();
        for _ in 0..SLOW_AT_ONCE {
            held.push(slow(Purpose::Errand).await.unwrap());
        }
        assert!(slow(Purpose::Errand).await.is_err());
        assert!(slow(Purpose::Follow).await.unwrap().is_none());
        assert!(logins.turn(Protocol::Smtp, "smtp.b.example", Purpose::Errand).await.give_back().is_ok());
        held.pop();
        assert!(slow(Purpose::Errand).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_with_one_host_begin_one_after_the_other_and_those_with_another_beside_them() {
        let (pace, begun) = (Pace::new(50), Instant::now());
        let mut at = Vec::new();
        for host in ["imap.a.example", "imap.a.example", "IMAP.A.example", "imap.b.example"] {
            at.push((pace.take(host, Instant::now(), None).unwrap() - begun).as_millis());
        }
        assert_eq!(at, [0, 20, 40, 0]);
        // Who has not the patience takes nobody's turn.
        assert!(!pace.turn("imap.a.example", Some(Duration::from_millis(59))).await);
        assert!(pace.turn("imap.a.example", Some(Duration::from_millis(60))).await);
        assert_eq!(begun.elapsed().as_millis(), 60);
        // What was not used is not saved up.
        tokio::time::advance(Duration::from_secs(10)).await;
        let now = Instant::now();
        assert_eq!(
            [0, 1].map(|_| (pace.take("imap.a.example", now, None).unwrap() - now).as_millis()),
            [0, 20]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_not_remembered_for_ever() {
        let pace = Pace::new(1000);
        for number in 0..3 * HOSTS_MAX {
            pace.take(&format!("host{number}.example"), Instant::now(), None);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(pace.hosts.lock().unwrap().len() <= HOSTS_MAX);
    }
}
