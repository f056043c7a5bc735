//! What one SMTP session and one server may cost us, each limit with its default and its reason.
//!
//! Not here: limits of the product (how many messages a user may send), which handlers answer with 452 4.7.28.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Octets of one AUTH line or SASL response with its CRLF (RFC 4954 section 4 asks for this much).
pub const AUTH_LINE_BYTES_MAX: usize = 12_288;
/// Octets of one command line with its CRLF. RFC 5321 asks for 512 and DSN parameters for some hundred more.
pub const COMMAND_LINE_BYTES_MAX: usize = 2_048;

/// Limits of the server side. Everything is in octets, pieces or durations as the name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Message size announced by SIZE and enforced in DATA. 36 MiB: what 25 MiB of attachments weigh in base64.
    pub message_bytes_max: u64,
    /// Recipients of one transaction; RFC 5321 section 4.5.3.1.8 asks for at least 100.
    pub recipients_max: usize,
    /// Received fields before a message counts as looping.
    pub received_fields_max: usize,
    /// Errors since the last message taken before the session is closed; a peer in good faith makes a handful.
    pub errors_max: u32,
    /// Commands that further no mail (NOOP, RSET, EHLO, …) before the session is closed.
    pub idle_commands_max: u32,
    /// Failed AUTH attempts of one connection.
    pub auth_attempts_max: u32,
    /// Longest wait for a whole command; RFC 5321 section 4.5.3.2.7 asks for 5 minutes.
    pub command_timeout: Duration,
    /// Longest wait for a peer to take our replies.
    pub write_timeout: Duration,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Slowest DATA we suffer, in octets per second, once `data_grace` has passed.
    pub data_rate_min: u64,
    /// How long DATA may be slower than `data_rate_min`.
    pub data_grace: Duration,
    /// Longest DATA at any rate.
    pub data_time_max: Duration,
    /// How long a peer that is still sending is listened to after our last reply, so that it can read it: closing a socket
    /// with unread input destroys what we wrote.
    pub linger: Duration,
    /// How long the greeting is held back to catch peers that talk first. Zero looks once without waiting.
    pub greeting_delay: Duration,
    /// How long a message under way may take to end once shutdown has begun.
    pub shutdown_grace: Duration,
    /// Memory for messages being received and handled, all sessions together. Above it they are answered with 452 4.3.1.
    /// Room for four of the largest messages in the hands of handlers at once, one of them submitted.
    pub buffered_bytes_max: u64,
    /// Connections of one client: an IPv4 address, or the IPv6 /64 that one machine can fill with addresses.
    pub connections_per_client_max: usize,
    /// Connections of all listeners together.
    pub connections_max: usize,
    /// Per cent of `connections_max` and of `buffered_bytes_max` that only submission listeners may use.
    pub submission_reserve_percent: u8,
    /// Recipients that do not exist, of one client in an hour, before an MX listener sends it away with 421. A sender in good
    /// faith mistypes a few; whoever looks for our addresses needs millions.
    pub unknown_recipients_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 36 * 1024 * 1024,
            recipients_max: 100,
            received_fields_max: 50,
            errors_max: 20,
            idle_commands_max: 100,
            auth_attempts_max: 3,
            command_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            data_rate_min: 500,
            data_grace: Duration::from_secs(30),
            data_time_max: Duration::from_secs(3600),
            linger: Duration::from_secs(5),
            greeting_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            buffered_bytes_max: 640 * 1024 * 1024,
            connections_per_client_max: 50,
            connections_max: 2_000,
            submission_reserve_percent: 20,
            unknown_recipients_max: 20,
        }
    }
}

impl Limits {
    /// The part of a whole that MX listeners leave to submission.
    pub(super) fn reserved_of(&self, whole: u64) -> u64 {
        whole.saturating_mul(u64::from(self.submission_reserve_percent.min(100))) / 100
    }
}

/// Memory that messages under way share. Cheap to clone; never blocks, it only says no.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<AtomicU64>,
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    free: Arc<AtomicU64>,
    spared: u64,
    bytes: u64,
}

impl Budget {
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { free: Arc::new(AtomicU64::new(bytes)) }
    }

    /// A reservation that leaves `spared` bytes to others.
    pub(super) fn open(&self, spared: u64) -> Reservation {
        Reservation { free: Arc::clone(&self.free), spared, bytes: 0 }
    }
}

impl Reservation {
    /// Octets reserved at a time, so that a small message costs one atomic operation.
    const STEP: u64 = 16 * 1024;

    /// Makes sure that `bytes` are reserved; false when the budget has not that much left.
    pub(super) fn cover(&mut self, bytes: u64) -> bool {
        let Some(missing) = bytes.checked_sub(self.bytes).filter(|missing| *missing > 0) else { return true };
        let more = missing.next_multiple_of(Self::STEP);
        let left = |free: u64| free.checked_sub(more).filter(|left| *left >= self.spared);
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).is_ok();
        self.bytes += if taken { more } else { 0 };
        taken
    }

    /// Gives everything back before the end.
    pub(super) fn release(&mut self) {
        self.free.fetch_add(std::mem::take(&mut self.bytes), Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_overdrawn_and_gets_everything_back() {
        let budget = Budget::new(40_000);
        let mut one = budget.open(0);
        let mut two = budget.open(0);
        assert!(one.cover(1));
        assert!(one.cover(16_384), "the first step covers this much");
        assert!(two.cover(16_000));
        assert!(!two.cover(17_000));
        drop(one);
        assert!(two.cover(17_000));
        drop(two);
        assert_eq!(budget.free.load(Ordering::Acquire), 40_000);
    }

    #[test]
    fn what_is_spared_is_left_to_those_who_spare_nothing() {
        let budget = Budget::new(40_000);
        let mut modest = budget.open(20_000);
        assert!(modest.cover(16_000) && !modest.cover(17_000));
        assert!(budget.open(0).cover(16_000));
    }
}
