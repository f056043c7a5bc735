//! How many connections a server and one client may hold, counted over all listeners.
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
pub(super) struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    clients: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    client: IpAddr,
}

impl Admission {
    /// Takes one connection in, or says that a limit is reached. The share that only submission listeners may use keeps
    /// the CRM's mail flowing while the MX listener is flooded.
    #[must_use]
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        listener: ListenerKind,
        limits: &Limits,
    ) -> Option<Permit> {
        let client = client_of(address);
        let whole = u64::try_from(limits.connections_max).unwrap_or(u64::MAX);
        let reserved = if listener.is_submission() { 0 } else { limits.reserved_of(whole) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = counts.clients.get(&client).copied().unwrap_or(0);
        let full = u64::try_from(counts.total).unwrap_or(u64::MAX) >= whole.saturating_sub(reserved)
            || of_client >= limits.connections_per_client_max;
        if full {
            return None;
        }
        counts.total += 1;
        *counts.clients.entry(client).or_default() += 1;
        Some(Permit { admission: Arc::clone(self), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        // Entries leave with their last connection: the map holds no more than there are connections.
        if let Some(count) = counts.clients.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.clients.remove(&self.client);
            }
        }
    }
}

/// Whom an address stands for. In IPv6 that is its /64, which one machine can fill with addresses; loopback is one machine,
/// not a network somebody was given.
#[must_use]
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if ip != Ipv6Addr::LOCALHOST => {
            Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections_per_client_max: 2,
            connections_max: 5,
            submission_reserve_percent: 20,
            ..Limits::default()
        }
    }

    fn admit(admission: &Arc<Admission>, address: &str, listener: ListenerKind) -> Option<Permit> {
        admission.admit(address.parse().unwrap(), listener, &limits())
    }

    #[test]
    fn one_client_has_its_share_by_whatever_addresses() {
        for addresses in
            [["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], ["2001:db8::1", "2001:db8::2", "2001:db8::3"]]
        {
            let admission = Arc::new(Admission::default());
            let [one, two, three] = addresses;
            let _one = admit(&admission, one, ListenerKind::Mx).unwrap();
            let two = admit(&admission, two, ListenerKind::Mx).unwrap();
            assert!(admit(&admission, three, ListenerKind::Submission).is_none());
            assert!(admit(&admission, "2001:db8:0:1::1", ListenerKind::Mx).is_some());
            drop(two);
            assert!(admit(&admission, three, ListenerKind::Submission).is_some());
        }
    }

    #[test]
    fn the_mx_listener_cannot_take_the_last_fifth() {
        let admission = Arc::new(Admission::default());
        let admit = |address: &str, listener| {
            let limits = Limits { connections_max: 100, ..limits() };
            admission.admit(address.parse().unwrap(), listener, &limits)
        };
        let held: Vec<_> =
            (1..=80).map(|n| admit(&format!("192.0.2.{n}"), ListenerKind::Mx).unwrap()).collect();
        assert!(admit("192.0.2.99", ListenerKind::Mx).is_none());
        assert!(admit("192.0.2.99", ListenerKind::Submission).is_some());
        drop(held);
        let counts = admission.counts.lock().unwrap();
        assert_eq!((counts.total, counts.clients.len()), (0, 0));
    }
}
