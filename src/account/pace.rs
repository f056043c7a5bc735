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
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use super::dialer::Protocol;

/// Hosts that are remembered before those are forgotten whose next turn is free.
const HOSTS_MAX: usize = 1024;

/// Sessions that log in at the same time with one host: a host that takes logins and never answers keeps its own accounts
/// waiting, and no other host's.
const LOGINS_AT_ONCE: usize = 20;
/// The same with all hosts together: what a handshake costs. A host has too few turns to take all of these.
const ALL_LOGINS_AT_ONCE: usize = 10 * LOGINS_AT_ONCE;

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
pub type LoginTurn<'a> = (OwnedSemaphorePermit, SemaphorePermit<'a>);

/// Gives out turns to log in, each host's apart from those of all others.
#[derive(Debug)]
pub(super) struct Logins {
    all: Semaphore,
    hosts: Mutex<HashMap<(Protocol, String), Weak<Semaphore>>>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { all: Semaphore::new(ALL_LOGINS_AT_ONCE), hosts: Mutex::default() }
    }
}

impl Logins {
    /// Waits for a turn with this host, in the order of coming; it lasts until it is dropped.
    pub(super) async fn turn(&self, protocol: Protocol, host: &str) -> LoginTurn<'_> {
        let of_host = self.of(protocol, host).acquire_owned().await;
        let of_all = self.all.acquire().await;
        of_host.and_then(|of_host| Ok((of_host, of_all?))).expect("the turns are never closed")
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
        let logins = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
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
            held.push(logins.turn(Protocol::Imap, "imap.a.example").await);
        }
        let waits =
            tokio::time::timeout(Duration::from_secs(60), logins.turn(Protocol::Imap, "IMAP.a.example"));
        assert!(waits.await.is_err());
        drop(logins.turn(Protocol::Smtp, "imap.a.example").await);
        drop(logins.turn(Protocol::Imap, "imap.b.example").await);
        held.pop();
        drop(logins.turn(Protocol::Imap, "imap.a.example").await);
        assert_eq!(logins.hosts.lock().unwrap().len(), 3);
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
