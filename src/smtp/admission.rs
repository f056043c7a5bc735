//! How many connections a server, one address and one IPv6 /64 may hold, counted over all listeners.
//!
//! Not here: what a refused peer is told (`server`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Limits, ListenerKind};

/// The counts. Share one between all listeners of a process.
#[derive(Debug, Default)]
pub struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    addresses: HashMap<IpAddr, usize>,
    /// By the first 64 bits.
    prefixes: HashMap<u64, usize>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Takes one connection in, or says that a limit is reached. The share that only submission listeners may use keeps
    /// the CRM's mail flowing while the MX listener is flooded.
    #[must_use]
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        listener: ListenerKind,
        limits: &Limits,
    ) -> Option<Permit> {
        let address = address.to_canonical();
        let reserved = limits.connections_max.saturating_mul(limits.submission_reserve_percent) / 100;
        let total_max =
            limits.connections_max.saturating_sub(if listener.is_submission() { 0 } else { reserved });
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.addresses.get(&address).copied().unwrap_or(0);
        let of_prefix = prefix(address).and_then(|prefix| counts.prefixes.get(&prefix)).copied().unwrap_or(0);
        let full = counts.total >= total_max
            || of_address >= limits.connections_per_address_max
            || of_prefix >= limits.connections_per_prefix_max;
        if full {
            return None;
        }
        counts.total += 1;
        *counts.addresses.entry(address).or_default() += 1;
        if let Some(prefix) = prefix(address) {
            *counts.prefixes.entry(prefix).or_default() += 1;
        }
        Some(Permit { admission: Arc::clone(self), address })
    }

    /// Connections held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        release(&mut counts.addresses, self.address);
        if let Some(prefix) = prefix(self.address) {
            release(&mut counts.prefixes, prefix);
        }
    }
}

/// Entries leave with their last connection: the maps hold no more than there are connections.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// The /64 of an IPv6 address. Loopback is one machine, not a network somebody was given.
fn prefix(address: IpAddr) -> Option<u64> {
    match address {
        IpAddr::V6(ip) if ip != Ipv6Addr::LOCALHOST => u64::try_from(u128::from(ip) >> 64).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_per_address_max: 2,
            connections_per_prefix_max: 3,
            connections_max: 5,
            submission_reserve_percent: 20,
            ..Limits::default()
        }
    }

    fn admit(admission: &Arc<Admission>, address: &str, listener: ListenerKind) -> Option<Permit> {
        admission.admit(address.parse().unwrap(), listener, &limits())
    }

    #[test]
    fn one_address_and_one_prefix_have_their_share() {
        let admission = Arc::new(Admission::default());
        let _one = admit(&admission, "192.0.2.1", ListenerKind::Mx).unwrap();
        let two = admit(&admission, "::ffff:192.0.2.1", ListenerKind::Mx).unwrap();
        assert!(admit(&admission, "192.0.2.1", ListenerKind::Mx).is_none());
        drop(two);
        assert!(admit(&admission, "192.0.2.1", ListenerKind::Mx).is_some());
        let held: Vec<_> = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
            .map(|a| admit(&admission, a, ListenerKind::Mx).unwrap())
            .into();
        assert!(admit(&admission, "2001:db8::4", ListenerKind::Submission).is_none());
        drop(held);
        assert!(admit(&admission, "2001:db8::4", ListenerKind::Submission).is_some());
    }

    #[test]
    fn the_mx_listener_cannot_take_the_last_fifth() {
        let admission = Arc::new(Admission::default());
        let held: Vec<_> =
            (1..=4).map(|n| admit(&admission, &format!("192.0.2.{n}"), ListenerKind::Mx).unwrap()).collect();
        assert!(admit(&admission, "192.0.2.9", ListenerKind::Mx).is_none());
        assert!(admit(&admission, "192.0.2.9", ListenerKind::Submission).is_some());
        drop(held);
        assert_eq!(admission.held(), 0);
    }
}
