//! Who asks for recipients that do not exist, counted over all connections: our addresses cannot be found by trying.
//!
//! Not here: whether a recipient exists (`Handler`), and what a guesser is told (`server`).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::admission::client_of;

/// How long unknown recipients count: the hour of `Limits::unknown_recipients_max`.
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// Clients remembered, in some 3 MiB. Whoever has more addresses than this begins anew, and so does everybody else.
const CLIENTS_MAX: usize = 65_536;

/// The counts. Share one between all listeners of a process.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    window: Mutex<Window>,
}

/// All clients' hours begin together, so that forgetting them costs nothing.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    clients: HashMap<IpAddr, u32>,
}

impl Guesses {
    /// Unknown recipients that this client has asked for in the present hour.
    #[must_use]
    pub(super) fn of(&self, address: IpAddr, now: Instant) -> u32 {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.has_ended(now) { 0 } else { window.clients.get(&client_of(address)).copied().unwrap_or(0) }
    }

    /// One more.
    pub(super) fn note(&self, address: IpAddr, now: Instant) {
        let client = client_of(address);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = window.clients.len() >= CLIENTS_MAX && !window.clients.contains_key(&client);
        if window.has_ended(now) || is_full {
            *window = Window { began: Some(now), clients: HashMap::new() };
        }
        let count = window.clients.entry(client).or_default();
        *count = count.saturating_add(1);
    }
}

impl Window {
    fn has_ended(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_client_is_counted_for_an_hour_by_whatever_addresses() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        let of = |address: &str, now| guesses.of(address.parse().unwrap(), now);
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1"] {
            guesses.note(address.parse().unwrap(), start);
        }
        assert_eq!(of("2001:db8::3", start), 2);
        assert_eq!(of("192.0.2.1", start + WINDOW / 2), 2);
        assert_eq!(of("192.0.2.2", start), 0);
        assert_eq!(of("192.0.2.1", start + WINDOW), 0);
        guesses.note("192.0.2.1".parse().unwrap(), start + WINDOW);
        assert_eq!((of("192.0.2.1", start + WINDOW), of("2001:db8::3", start + WINDOW)), (1, 0));
    }

    #[test]
    fn no_number_of_clients_fills_the_memory() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        for number in 0..u32::try_from(CLIENTS_MAX).unwrap() + 10 {
            guesses.note(Ipv4Addr::from_bits(number).into(), start);
        }
        assert_eq!(guesses.window.lock().unwrap().clients.len(), 10);
    }
}
