//! Real servers for tests, each private, on free loopback ports, with its files in a directory of its own: Dovecot,
//! Postfix, PostgreSQL, Redis. Whatever becomes of the test, its servers and their files are gone soon after.
//!
//! Not here: the gateway itself, and peers that misbehave on purpose.

// Each test binary uses the part of the harness that it needs.
#![allow(dead_code)]
// A panic here is a failed test, and says more than an error handed up through every helper.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

pub mod clients;
pub mod dns;
pub mod dovecot;
pub mod imap_peer;
pub mod office;
pub mod postfix;
pub mod postgres;
pub mod redis;
pub mod server;
pub mod sign_in;
pub mod signer;
pub mod store;
pub mod tls;

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long a server may take to start or to do what is expected of it, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Someone with a mail account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub address: String,
    pub password: String,
}

/// Waits until `predicate` holds.
///
/// # Panics
/// When it does not within `deadline`, naming `what` was waited for.
#[track_caller]
pub fn wait_for(what: &str, deadline: Duration, mut predicate: impl FnMut() -> bool) {
    let start = Instant::now();
    while !predicate() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The same for predicates that await.
///
/// # Panics
/// As [`wait_for`] does.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    deadline: Duration,
    mut predicate: impl FnMut() -> F,
) {
    let start = Instant::now();
    while !predicate().await {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Below the range from which the kernel takes ports of outgoing connections (32768 and up).
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port of 127.0.0.1 that stays free for the rest of this process, also of tests that run beside it.
///
/// # Panics
/// When every port is taken.
pub fn free_port() -> u16 {
    // The UDP port of the same number marks it as ours towards other test processes. It needs no file, and the kernel
    // gives it back when the process ends, however it ends.
    static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let count = usize::from(PORTS.end - PORTS.start);
    // Parallel processes have neighbouring ids: start far from each other.
    let start = usize::try_from(std::process::id()).unwrap_or_default().wrapping_mul(97) % count;
    let mut reserved = RESERVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for port in PORTS.cycle().skip(start).take(count) {
        let Ok(mark) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            reserved.push(mark);
            return port;
        }
    }
    panic!("every port of {PORTS:?} is taken");
}

/// A free address of 127.0.0.1.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}
