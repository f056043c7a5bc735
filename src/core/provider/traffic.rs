//! How much may go over IMAP in a window by what an account's provider allows, and when old mail has to wait for that.
//!
//! Pure: time and counts are arguments. Not here: keeping the counts (`store`), and what waits (`flow::sync`).

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::pace::{Standing, slot_of, standing};
use crate::core::policy::span::Span;

/// Counts are kept by so many seconds: a day is at most so much too long.
const SLOT: SignedDuration = SignedDuration::from_mins(15);
/// Of ten parts of what may be read, those that old mail may use: the rest is for new mail, and for the user's own programs.
const HISTORY_TENTHS: u64 = 8;

/// How many octets may go over IMAP in which window.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// From the provider to us.
    pub read: u64,
    /// From us to the provider, as copies for Sent.
    pub handed_over: u64,
    pub window: Span,
}

/// What has gone over IMAP in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octets {
    /// When the slot begins.
    pub slot: Timestamp,
    pub read: u64,
    pub handed_over: u64,
}

impl Octets {
    /// So much at a moment.
    #[must_use]
    pub fn at(moment: Timestamp, (read, handed_over): (u64, u64)) -> Self {
        Self { slot: slot_of(moment, SLOT), read, handed_over }
    }
}

impl Traffic {
    /// How what was read stands, after what went over in the order of its slots.
    #[must_use]
    pub fn read_standing(&self, octets: &[Octets], now: Timestamp) -> Standing {
        self.standing(octets, |one| one.read, (self.read, now))
    }

    /// The same of what was handed over.
    #[must_use]
    pub fn handed_over_standing(&self, octets: &[Octets], now: Timestamp) -> Standing {
        self.standing(octets, |one| one.handed_over, (self.handed_over, now))
    }

    /// Until when old mail is not read; `None` while it may be.
    #[must_use]
    pub fn history_rests_until(&self, octets: &[Octets], now: Timestamp) -> Option<Timestamp> {
        let most = self.read / 10 * HISTORY_TENTHS;
        self.standing(octets, |one| one.read, (most, now)).full_until
    }

    fn standing(
        &self,
        octets: &[Octets],
        count: impl Fn(&Octets) -> u64,
        (most, now): (u64, Timestamp),
    ) -> Standing {
        let counts: Vec<_> = octets.iter().map(|one| (one.slot, count(one))).collect();
        standing(&counts, (SLOT, &self.window), (most, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provider::Provider;

    fn at(minutes: i64) -> Timestamp {
        // On the edge of a slot.
        Timestamp::from_second(1_760_000_400 + minutes * 60).unwrap()
    }

    fn google() -> &'static Traffic {
        Provider::named("google").unwrap().traffic.as_ref().unwrap()
    }

    #[test]
    fn old_mail_rests_ahead_of_the_budget_and_goes_on_when_the_day_has_room() {
        const MB: u64 = 1_000_000;
        let day = 24 * 60;
        for (read, now, until) in [
            (vec![], 0, None),
            (vec![(0, 1_999)], 1, None),
            // A slot leaves the window when its end does.
            (vec![(0, 2_000)], 1, Some(day + 15)),
            (vec![(0, 2_000)], day + 15, None),
            (vec![(0, 1_000), (60, 900), (120, 200)], 130, Some(day + 15)),
            (vec![(0, 50), (60, 900), (120, 1_200)], 130, Some(day + 75)),
            (vec![(0, 100), (60, 3_000)], 70, Some(day + 75)),
            (vec![(0, 100), (60, 3_000)], day + 20, Some(day + 75)),
        ] {
            let octets: Vec<_> =
                read.iter().map(|(minute, mb)| Octets::at(at(*minute), (mb * MB, 0))).collect();
            assert_eq!(google().history_rests_until(&octets, at(now)), until.map(at), "{read:?} at {now}");
        }
    }

    #[test]
    fn what_is_read_and_what_is_handed_over_have_each_their_own() {
        let octets = [Octets::at(at(7), (2_400_000_000, 500_000_000))];
        assert_eq!(octets[0].slot, at(0));
        let read = google().read_standing(&octets, at(8));
        assert_eq!((read.used, read.full_until), (2_400_000_000, None));
        let handed_over = google().handed_over_standing(&octets, at(8));
        assert_eq!((handed_over.used, handed_over.full_until), (500_000_000, Some(at(24 * 60 + 15))));
    }
}
