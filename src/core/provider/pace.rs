//! How much more may leave by an account, by what its provider allows in a window.
//!
//! Pure: time and counts are arguments. Not here: what a user may send by his admins (`core::limits`), and keeping the counts
//! (`store`).

use jiff::{SignedDuration, Timestamp};

use super::Budget;
use crate::core::{limits::SentUnit, policy::span::Span};

/// Counts are kept by so many seconds: a window of a minute is at most so much too wide, never too narrow.
const SLOT: SignedDuration = SignedDuration::from_secs(5);
/// The longest window of a provider, with room to spare: what is older counts nowhere.
pub const SENT_KEPT: SignedDuration = SignedDuration::from_hours(25);

/// What has left in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When the slot begins.
    pub slot: Timestamp,
    pub messages: u64,
    pub recipients: u64,
}

impl Sent {
    /// So much at a moment.
    #[must_use]
    pub fn at(moment: Timestamp, (messages, recipients): (u64, u64)) -> Self {
        Self { slot: slot_of(moment, SLOT), messages, recipients }
    }

    fn of(&self, unit: SentUnit) -> u64 {
        match unit {
            SentUnit::Messages => self.messages,
            SentUnit::Recipients => self.recipients,
        }
    }
}

/// When the slot of this length begins that a moment is in.
pub(super) fn slot_of(moment: Timestamp, length: SignedDuration) -> Timestamp {
    let seconds = moment.as_second();
    let begin = seconds - seconds.rem_euclid(length.as_secs());
    Timestamp::from_second(begin).unwrap_or(moment)
}

/// How much more a provider takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// A message to so many recipients; `None` to any number.
    Recipients(Option<u64>),
    /// Nothing before then.
    Until(Timestamp),
}

/// How one budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub used: u64,
    /// When there is room again; `None` while there is.
    pub full_until: Option<Timestamp>,
}

impl Budget {
    /// How this stands after what was sent, in the order of its slots.
    #[must_use]
    pub fn standing(&self, sent: &[Sent], now: Timestamp) -> Standing {
        let counts: Vec<_> = sent.iter().map(|one| (one.slot, one.of(self.unit))).collect();
        standing(&counts, (SLOT, &self.window), (u64::from(self.most), now))
    }
}

/// How a window stands that so much fits into, after what was counted by slots of a length, in their order.
pub(super) fn standing(
    counts: &[(Timestamp, u64)],
    (slot, window): (SignedDuration, &Span),
    (most, now): (u64, Timestamp),
) -> Standing {
    let window = SignedDuration::try_from(window.duration()).unwrap_or(SENT_KEPT);
    // What was counted in a slot may have been at its end.
    let passes = |begin: Timestamp| begin + slot + window;
    let inside: Vec<_> = counts.iter().filter(|(begin, _)| passes(*begin) > now).collect();
    let used = inside.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let mut left = used;
    let mut frees = |(_, count): &&&(Timestamp, u64)| {
        left = left.saturating_sub(*count);
        left < most
    };
    let freeing = if used < most { None } else { inside.iter().find(&mut frees) };
    Standing { used, full_until: freeing.map(|(begin, _)| passes(*begin)) }
}

/// What all budgets of an account leave of the next message.
#[must_use]
pub fn left<'a>(budgets: impl Iterator<Item = &'a Budget>, sent: &[Sent], now: Timestamp) -> Left {
    let (mut until, mut recipients) = (None, None);
    for budget in budgets {
        let Standing { used, full_until } = budget.standing(sent, now);
        until = until.max(full_until);
        if budget.unit == SentUnit::Recipients {
            let room = u64::from(budget.most).saturating_sub(used);
            recipients = Some(recipients.map_or(room, |other: u64| other.min(room)));
        }
    }
    until.map_or(Left::Recipients(recipients), Left::Until)
}

#[cfg(test)]
mod tests {
    use super::{super::Provider, *};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_760_000_000 + seconds).unwrap()
    }

    fn add(sent: &mut Vec<Sent>, moment: Timestamp, recipients: u64) {
        let new = Sent::at(moment, (1, recipients));
        match sent.last_mut().filter(|last| last.slot == new.slot) {
            Some(last) => {
                last.messages += 1;
                last.recipients += recipients;
            }
            None => sent.push(new),
        }
    }

    /// Whoever has more to send than may leave, and sends whenever there is room.
    #[test]
    fn no_minute_has_more_than_thirty_messages_and_hardly_one_has_fewer_than_it_might() {
        let microsoft = Provider::named("microsoft").unwrap();
        let (mut sent, mut moments, mut now) = (Vec::new(), Vec::new(), at(3));
        while now < at(1803) {
            match left(microsoft.budgets_of("example.com"), &sent, now) {
                Left::Recipients(_) => {
                    add(&mut sent, now, 1);
                    moments.push(now);
                    now += SignedDuration::from_millis(311);
                }
                Left::Until(until) => {
                    assert!(until > now && until <= now + SignedDuration::from_secs(65), "{until}");
                    now = until;
                }
            }
        }
        for from in &moments {
            let in_window =
                moments.iter().filter(|at| *at >= from && **at < *from + SignedDuration::from_mins(1));
            assert!(in_window.count() <= 30);
        }
        assert!(moments.len() >= 30 * 30 * 9 / 10, "{} in half an hour", moments.len());
    }

    #[test]
    fn a_day_has_the_recipients_of_its_kind_of_account() {
        let google = Provider::named("google").unwrap();
        let room = |domain, sent: &[Sent]| left(google.budgets_of(domain), sent, at(0));
        let sent = [Sent::at(at(-7200), (5, 498))];
        assert_eq!(room("gmail.com", &sent), Left::Recipients(Some(2)));
        assert_eq!(room("example.com", &sent), Left::Recipients(Some(9502)));
        let sent = [Sent::at(at(-86_395), (1, 3)), Sent::at(at(-7200), (5, 498))];
        let Left::Until(until) = room("gmail.com", &sent) else { panic!("room") };
        assert!((at(1)..=at(10)).contains(&until), "{until}");
        assert_eq!(room("gmail.com", &[Sent::at(at(-86_406), (900, 900))]), Left::Recipients(Some(500)));
        let any = Provider::any();
        assert_eq!(
            left(any.budgets_of("a.example"), &[Sent::at(at(0), (9, 9999))], at(0)),
            Left::Recipients(None)
        );
    }
}
