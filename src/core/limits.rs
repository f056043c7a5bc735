//! How much a user may have synced and may send, and how many accounts there may be: what is counted, in which windows, and
//! when there is room again, for the next or for whoever has others before him.
//!
//! Pure: time, time zone and counts are arguments. Not here: who says what is allowed (`allowance`), keeping the counts (`store::limits`), and what becomes of mail
//! at a limit (`flow::limits`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::account::AccountState;

/// Counts are kept by quarters of an hour: every time zone's midnight lies on one, and a window that slides over 24 hours is
/// at most so much too wide, never too narrow.
pub const SLOT: SignedDuration = SignedDuration::from_mins(15);
/// What slides.
pub const SLIDING: SignedDuration = SignedDuration::from_hours(24);
/// From this share of a limit on it is warned, in percent.
const WARN_PERCENT: u64 = 80;
/// The longest day that a time zone has, with room to spare: no window begins earlier.
pub const WINDOW_MAX: SignedDuration = SignedDuration::from_hours(26);
/// How long a provider that wants no more mail is left alone at least, when it does not say how long.
const REST_MIN: SignedDuration = SignedDuration::from_hours(1);
/// The longest that a provider is believed when it names a time.
const REST_MAX: SignedDuration = SignedDuration::from_hours(48);

/// What one thing sent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentUnit {
    /// As providers count: a message to three people is three.
    #[default]
    Recipients,
    Messages,
}

/// Each of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Quota {
    #[serde(rename = "synced_per_day")]
    SyncedPerDay,
    #[serde(rename = "sent_per_day")]
    SentPerDay,
    #[serde(rename = "sent_per_24h")]
    SentPer24h,
    #[serde(rename = "accounts")]
    Accounts,
}

impl Quota {
    pub const ALL: [Self; 4] = [Self::SyncedPerDay, Self::SentPerDay, Self::SentPer24h, Self::Accounts];
}

/// What is counted of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    Synced,
    SentMessages,
    SentRecipients,
    /// To questions about mail that was left out.
    Answers,
}

impl From<SentUnit> for Counted {
    fn from(unit: SentUnit) -> Self {
        match unit {
            SentUnit::Recipients => Self::SentRecipients,
            SentUnit::Messages => Self::SentMessages,
        }
    }
}

/// What was counted in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// When the slot begins.
    pub slot: Timestamp,
    pub count: u64,
}

/// The slot that a moment lies in.
#[must_use]
pub fn slot_of(at: Timestamp) -> Timestamp {
    let seconds = at.as_second();
    let begin = seconds - seconds.rem_euclid(SLOT.as_secs());
    Timestamp::from_second(begin).unwrap_or(at)
}

/// A stretch of time over which is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Slots that begin earlier do not count.
    pub since: Timestamp,
    /// When nothing of what is counted now counts any more; a sliding window makes room before.
    pub ends_at: Timestamp,
}

impl Window {
    /// The day that a moment lies in, from midnight to midnight of a time zone.
    #[must_use]
    pub fn day(now: Timestamp, zone: &TimeZone) -> Self {
        let today = now.to_zoned(zone.clone());
        let midnight = today.start_of_day();
        let next = today.tomorrow().and_then(|tomorrow| tomorrow.start_of_day());
        let since = midnight.map_or(now - SLIDING, |midnight| midnight.timestamp());
        Self { since: slot_of(since), ends_at: next.map_or(since + SLIDING, |next| next.timestamp()) }
    }

    /// The 24 hours before a moment. The slot at its edge counts as a whole: what lies in it may be younger.
    #[must_use]
    pub fn sliding(now: Timestamp) -> Self {
        Self { since: slot_of(now - SLIDING), ends_at: slot_of(now) + SLOT + SLIDING }
    }

    /// What counts in this window.
    #[must_use]
    pub fn used(&self, counts: &[Count]) -> u64 {
        let inside = counts.iter().filter(|count| count.slot >= self.since);
        inside.fold(0, |sum, count| sum.saturating_add(count.count))
    }
}

/// How one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub used: u64,
    pub limit: Option<u32>,
    /// When there is room again, or the count begins anew; `None` when only somebody's act makes room.
    pub resets_at: Option<Timestamp>,
}

impl Standing {
    /// How a limit on a day stands.
    #[must_use]
    pub fn of_day(counts: &[Count], limit: Option<u32>, day: Window) -> Self {
        Self { used: day.used(counts), limit, resets_at: Some(day.ends_at) }
    }

    /// How a limit on any 24 hours stands; it resets when there is room for one more, or when the first of it passes out.
    #[must_use]
    pub fn of_24_hours(counts: &[Count], limit: Option<u32>, now: Timestamp) -> Self {
        let window = Window::sliding(now);
        let used = window.used(counts);
        let enough = limit.map_or(used, u64::from).min(used);
        let mut left = used;
        let mut inside: Vec<&Count> =
            counts.iter().filter(|count| count.slot >= window.since && count.count > 0).collect();
        inside.sort_unstable_by_key(|count| count.slot);
        let mut frees = |count: &&&Count| {
            left = left.saturating_sub(count.count);
            left < enough
        };
        let freeing = inside.iter().find(&mut frees).map_or(window.ends_at, |count| passes_out(count.slot));
        Self { used, limit, resets_at: Some(freeing) }
    }

    /// How much more fits; `None` when everything does.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        self.limit.map(|limit| u64::from(limit).saturating_sub(self.used))
    }

    /// What there is to be told of it.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        let limit = u64::from(self.limit?);
        match () {
            () if self.used >= limit => Some(Level::Exceeded),
            () if self.used.saturating_mul(100) >= limit.saturating_mul(WARN_PERCENT) => Some(Level::Warning),
            () => None,
        }
    }
}

/// When a slot has left the sliding window. [`Window::sliding`] counts it to the end of the slot that is 24 hours later.
fn passes_out(slot: Timestamp) -> Timestamp {
    slot + SLIDING + SLOT
}

/// Whether an account in this state takes one of the places that a cap on accounts leaves.
#[must_use]
pub fn takes_place(state: AccountState) -> bool {
    !PLACELESS.contains(&state)
}

/// States of accounts by which nothing is synced or sent, and by which nothing will be before somebody acts.
pub const PLACELESS: [AccountState; 4] =
    [AccountState::WaitingForQuota, AccountState::Disconnected, AccountState::Erasing, AccountState::Erased];

/// How near a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// 80 % of it are used.
    Warning,
    /// Nothing more fits.
    Exceeded,
}

/// Whether more may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So much more; `None` for any number.
    Room(Option<u64>),
    Full(Full),
}

/// Why nothing more is sent, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// The limit that is reached; `None` when it is the provider's own.
    pub quota: Option<(Quota, u32)>,
    pub until: Timestamp,
}

/// What the two limits on sending and the provider's word leave of the budget: the tightest counts, and the latest.
#[must_use]
pub fn budget(limits: [(Quota, Standing); 2], provider: Option<Timestamp>, now: Timestamp) -> Budget {
    let by_provider = provider.filter(|until| *until > now).map(|until| Full { quota: None, until });
    let reached = limits.iter().filter_map(|(quota, standing)| {
        let limit = standing.limit.filter(|_| standing.room() == Some(0))?;
        let until = standing.resets_at.unwrap_or(now + SLIDING);
        Some(Full { quota: Some((*quota, limit)), until })
    });
    match reached.chain(by_provider).max_by_key(|full| full.until) {
        Some(full) => Budget::Full(full),
        None => Budget::Room(limits.iter().filter_map(|(_, standing)| standing.room()).min()),
    }
}

/// How far ahead it is worked out whose turn comes when. What waits longer is looked at again by then.
const TURN_MAX: SignedDuration = SignedDuration::from_hours(31 * 24);

/// The limits on what a user sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendLimits {
    pub per_day: Option<u32>,
    pub per_24h: Option<u32>,
}

impl SendLimits {
    /// How much more may be sent at a moment, and when next there may be more.
    fn room(self, counts: &[Count], (at, zone): (Timestamp, &TimeZone)) -> (u64, Timestamp) {
        let (day, sliding) = (Window::day(at, zone), Window::sliding(at));
        let left = |limit: Option<u32>, window: Window| {
            limit.map_or(u64::MAX, |limit| u64::from(limit).saturating_sub(window.used(counts)))
        };
        let inside = counts.iter().filter(|count| count.slot >= sliding.since && count.count > 0);
        let passes = inside.map(|count| passes_out(count.slot)).min().filter(|_| self.per_24h.is_some());
        let next = passes.map_or(day.ends_at, |passes| passes.min(day.ends_at));
        (left(self.per_day, day).min(left(self.per_24h, sliding)), next)
    }
}

/// When the turn comes of whoever has so much going out before him: all that is counted is known, what goes before goes as
/// soon as there is room for it, and nothing else is sent meanwhile. In 31 days at the latest: then it is looked at again.
#[must_use]
pub fn turn(
    limits: SendLimits,
    counts: &[Count],
    mut ahead: u64,
    (from, zone): (Timestamp, &TimeZone),
) -> Timestamp {
    let mut counts = counts.to_vec();
    let (mut at, last) = (from, from + TURN_MAX);
    while at < last {
        let (room, next) = limits.room(&counts, (at, zone));
        if room > ahead {
            return at;
        }
        ahead = ahead.saturating_sub(room);
        counts.retain(|count| count.slot >= slot_of(at - WINDOW_MAX));
        counts.push(Count { slot: slot_of(at), count: room });
        at = next;
    }
    last
}

impl Full {
    /// For people: what is reached, and when it lifts.
    #[must_use]
    pub fn text(&self) -> String {
        let until = self.until.strftime("%Y-%m-%dT%H:%M:%SZ");
        match self.quota {
            Some((Quota::SentPer24h, limit)) => {
                format!("the user's limit of {limit} sent in 24 hours is reached until {until}")
            }
            Some((_, limit)) => format!("the user's limit of {limit} sent a day is reached until {until}"),
            None => format!("the provider takes no more of this account's mail until {until}"),
        }
    }
}

/// Whether a server refuses mail because the account has sent too much. A mailbox that is full is its owner's affair and no
/// such answer (RFC 3463 section 3.3: X.2.2), nor is what is too much for one message or session (section 3.6: X.5.3).
#[must_use]
pub fn says_sent_too_much(status: Option<&str>, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // Gmail: 550 5.4.5 "Daily user sending limit exceeded" or "Daily SMTP relay limit exceeded".
    let is_gmails = status.is_some_and(|status| status.ends_with(".4.5"));
    let is_other = status.is_some_and(|status| status.ends_with(".2.2") || status.ends_with(".5.3"))
        || has(&[
            "over quota",
            "mailbox full",
            "storage",
            "disk",
            "size",
            "per message",
            "connection",
            "session",
        ]);
    let is_sending = has(&[
        "send",
        "sent",
        "outgoing",
        "outbound",
        "submission",
        "relay",
        "recipients per",
        "messages per",
    ]);
    let is_limit = has(&["limit", "quota", "too many messages", "too many recipients per"]);
    let is_over = has(&["exceed", "reached", "over ", "too many", "try again"]);
    is_gmails && is_limit || (!is_other && is_sending && is_limit && is_over)
}

/// When a server that refuses more mail is asked again: when it says; if it speaks of a day, when the first of what was counted
/// leaves the 24 hours that providers count over; else in an hour.
#[must_use]
pub fn provider_rest(text: &str, counts: &[Count], now: Timestamp) -> Timestamp {
    if let Some(wait) = wait_named(text).and_then(|wait| SignedDuration::try_from(wait).ok()) {
        return now + wait.min(REST_MAX);
    }
    let text = text.to_ascii_lowercase();
    if !["day", "dail", "24", "quota"].iter().any(|word| text.contains(word)) {
        return now + REST_MIN;
    }
    let since = Window::sliding(now).since;
    let first =
        counts.iter().filter(|count| count.slot >= since && count.count > 0).map(|count| count.slot).min();
    first.map_or(now + SLIDING, passes_out).max(now + REST_MIN)
}

/// The wait that an answer names: "try again in 2 hours", "Suggested Backoff Time: 25000 milliseconds".
fn wait_named(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let asks = ["again in", "again after", "retry after", "retry in", "backoff time", "wait"];
    let after = asks.iter().filter_map(|words| text.split_once(words)).map(|(_, after)| after).next()?;
    let mut words = after.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let number: u64 = words.by_ref().take(3).find_map(|word| word.parse().ok())?;
    let unit = words.next().unwrap_or("seconds");
    Some(match unit {
        _ if unit.starts_with("milli") || unit == "ms" => Duration::from_millis(number),
        _ if unit.starts_with('d') => Duration::from_secs(number.saturating_mul(24 * 60 * 60)),
        _ if unit.starts_with('h') => Duration::from_secs(number.saturating_mul(60 * 60)),
        _ if unit.starts_with('m') => Duration::from_secs(number.saturating_mul(60)),
        _ => Duration::from_secs(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn counts(counts: &[(&str, u64)]) -> Vec<Count> {
        counts.iter().map(|(at_, count)| Count { slot: slot_of(at(at_)), count: *count }).collect()
    }

    #[test]
    fn a_day_begins_at_midnight_of_its_time_zone() {
        let day = |now, zone: &str| Window::day(at(now), &TimeZone::posix(zone).unwrap());
        let utc = Window::day(at("2026-03-02T23:59:59Z"), &TimeZone::UTC);
        assert_eq!((utc.since, utc.ends_at), (at("2026-03-02T00:00:00Z"), at("2026-03-03T00:00:00Z")));
        let nepal = day("2026-03-02T18:20:00Z", "<+0545>-5:45");
        assert_eq!((nepal.since, nepal.ends_at), (at("2026-03-02T18:15:00Z"), at("2026-03-03T18:15:00Z")));
        // The clocks go forward: 23 hours; and back: 25.
        let prague = "CET-1CEST,M3.5.0,M10.5.0/3";
        let spring = day("2026-03-29T12:00:00Z", prague);
        assert_eq!((spring.since, spring.ends_at), (at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z")));
        let autumn = day("2026-10-25T12:00:00Z", prague);
        assert_eq!((autumn.since, autumn.ends_at), (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
    }

    #[test]
    fn what_was_before_midnight_counts_no_more() {
        let counted =
            counts(&[("2026-03-02T23:59:00Z", 7), ("2026-03-03T00:00:00Z", 2), ("2026-03-03T09:00:00Z", 3)]);
        let day = Window::day(at("2026-03-03T10:00:00Z"), &TimeZone::UTC);
        let standing = Standing::of_day(&counted, Some(6), day);
        assert_eq!((standing.used, standing.room(), standing.level()), (5, Some(1), Some(Level::Warning)));
        assert_eq!(standing.resets_at, Some(at("2026-03-04T00:00:00Z")));
    }

    #[test]
    fn the_sliding_window_never_counts_too_little_and_lifts_when_there_is_room() {
        // A crowd of times: however they fall, the count is at least what the last 24 hours hold to the second.
        let start = at("2026-03-02T00:00:00Z").as_second();
        let mut seed = 7_i64;
        let mut sent: Vec<i64> = Vec::new();
        for _ in 0..500 {
            seed = (seed * 1_103_515_245 + 12_345).rem_euclid(1 << 31);
            sent.push(start + seed % (3 * 86_400));
        }
        let counted: Vec<Count> = sent
            .iter()
            .map(|second| Count { slot: slot_of(Timestamp::from_second(*second).unwrap()), count: 1 })
            .collect();
        for now in (start..start + 4 * 86_400).step_by(1_009) {
            let until_now: Vec<Count> =
                counted.iter().zip(&sent).filter(|(_, at)| **at <= now).map(|(c, _)| *c).collect();
            let truth = sent.iter().filter(|at| **at <= now && **at > now - 86_400).count() as u64;
            let moment = Timestamp::from_second(now).unwrap();
            let standing = Standing::of_24_hours(&until_now, Some(40), moment);
            assert!(standing.used >= truth, "{} < {truth}", standing.used);
            let later = standing.resets_at.unwrap();
            assert!(later > moment);
            if standing.room() == Some(0) {
                // At the time it names there is room, and a moment before there is none.
                let then = Standing::of_24_hours(&until_now, Some(40), later);
                assert!(then.room() > Some(0), "{moment} {later}");
                let before =
                    Standing::of_24_hours(&until_now, Some(40), later - SignedDuration::from_secs(1));
                assert_eq!(before.room(), Some(0));
            }
        }
    }

    #[test]
    fn a_level_is_told_at_80_and_at_100_percent() {
        let level = |used, limit| Standing { used, limit, resets_at: None }.level();
        assert_eq!(level(7, Some(10)), None);
        assert_eq!(level(8, Some(10)), Some(Level::Warning));
        assert_eq!(level(9, Some(10)), Some(Level::Warning));
        assert_eq!(level(10, Some(10)), Some(Level::Exceeded));
        assert_eq!(level(3, Some(4)), None);
        assert_eq!(level(1, Some(1)), Some(Level::Exceeded));
        assert_eq!(level(0, Some(0)), Some(Level::Exceeded));
        assert_eq!(level(u64::MAX, None), None);
    }

    #[test]
    fn the_tightest_limit_counts_and_the_latest_lifts() {
        let now = at("2026-03-03T10:00:00Z");
        let standing =
            |used, limit, resets_at: &str| Standing { used, limit, resets_at: Some(at(resets_at)) };
        let (day, sliding) = ("2026-03-04T00:00:00Z", "2026-03-03T11:15:00Z");
        let both = |used| {
            [
                (Quota::SentPerDay, standing(used, Some(10), day)),
                (Quota::SentPer24h, standing(used, Some(8), sliding)),
            ]
        };
        assert_eq!(budget(both(5), None, now), Budget::Room(Some(3)));
        let full = |quota, until| Budget::Full(Full { quota, until: at(until) });
        assert_eq!(budget(both(9), None, now), full(Some((Quota::SentPer24h, 8)), sliding));
        assert_eq!(budget(both(10), None, now), full(Some((Quota::SentPerDay, 10)), day));
        let provider = at("2026-03-03T12:00:00Z");
        assert_eq!(budget(both(0), Some(provider), now), full(None, "2026-03-03T12:00:00Z"));
        assert_eq!(budget(both(0), Some(now), now), Budget::Room(Some(8)));
        let none = [
            (Quota::SentPerDay, standing(1_000, None, day)),
            (Quota::SentPer24h, standing(1, None, sliding)),
        ];
        assert_eq!(budget(none, None, now), Budget::Room(None));
    }

    #[test]
    fn only_an_account_that_sent_too_much_has_a_full_budget() {
        for (status, text) in [
            (Some("5.4.5"), "Daily user sending limit exceeded. For more information"),
            (Some("5.4.5"), "Daily sending quota exceeded"),
            (
                Some("5.2.0"),
                "SubmissionQuotaExceededException; the message can't be submitted because the sender's submission quota was exceeded",
            ),
            (Some("4.7.0"), "You have exceeded your sending limit, try again in 2 hours"),
            (None, "You have reached the limit of messages per day"),
        ] {
            assert!(says_sent_too_much(status, text), "{text}");
        }
        for (status, text) in [
            (Some("5.2.2"), "The email account that you tried to reach is over quota; message not sent"),
            (Some("4.2.2"), "Mailbox quota exceeded"),
            (None, "Requested mail action aborted: exceeded storage allocation"),
            (Some("4.7.1"), "Greylisted, please try again later"),
            (Some("5.3.4"), "Message size exceeds fixed limit"),
            (Some("4.3.2"), "Concurrent connections limit exceeded"),
            (Some("4.5.3"), "Too many recipients per message, limit of 100 exceeded"),
            (None, "Too many messages sent in this session, limit reached"),
            (Some("5.1.1"), "No such user"),
        ] {
            assert!(!says_sent_too_much(status, text), "{text}");
        }
    }

    #[test]
    fn a_provider_is_left_alone_as_long_as_it_says_and_else_until_its_24_hours_move_on() {
        let now = at("2026-03-03T10:00:00Z");
        let counted =
            counts(&[("2026-03-02T09:00:00Z", 5), ("2026-03-02T13:40:00Z", 3), ("2026-03-03T09:00:00Z", 9)]);
        for (text, expect) in [
            ("You have exceeded your limit, try again in 2 hours.", "2026-03-03T12:00:00Z"),
            ("Suggested Backoff Time: 30000 milliseconds", "2026-03-03T10:00:30Z"),
            ("Retry after 90", "2026-03-03T10:01:30Z"),
            ("Please try again in about 10 minutes", "2026-03-03T10:10:00Z"),
            ("try again in 900 days", "2026-03-05T10:00:00Z"),
            ("Daily user sending limit exceeded", "2026-03-03T13:45:00Z"),
            ("Sender rate limit exceeded", "2026-03-03T11:00:00Z"),
        ] {
            assert_eq!(provider_rest(text, &counted, now), at(expect), "{text}");
        }
        assert_eq!(provider_rest("Daily limit", &[], now), at("2026-03-04T10:00:00Z"));
        let soon = counts(&[("2026-03-02T10:00:00Z", 5)]);
        assert_eq!(provider_rest("Daily limit", &soon, now), at("2026-03-03T11:00:00Z"));
    }

    #[test]
    fn whoever_has_others_before_him_is_told_when_they_are_through() {
        let now = at("2026-03-03T10:07:00Z");
        let nepal = TimeZone::posix("<+0545>-5:45").unwrap();
        let (day, any) = (
            |limit| SendLimits { per_day: Some(limit), per_24h: None },
            |limit| SendLimits { per_day: None, per_24h: Some(limit) },
        );
        let both = SendLimits { per_day: Some(2), per_24h: Some(3) };
        // Three in the sliding window, two of them today.
        let counted = [("2026-03-02T14:02:00Z", 1), ("2026-03-03T08:20:00Z", 1), ("2026-03-03T10:01:00Z", 1)];
        for (limits, ahead, expect) in [
            (SendLimits::default(), 1_000_000, "2026-03-03T10:07:00Z"),
            (day(3), 0, "2026-03-03T10:07:00Z"),
            (day(3), 1, "2026-03-04T00:00:00Z"),
            // Today is full, and each day takes two.
            (day(2), 1, "2026-03-04T00:00:00Z"),
            (day(2), 2, "2026-03-05T00:00:00Z"),
            (day(2), 7, "2026-03-07T00:00:00Z"),
            (any(3), 0, "2026-03-03T14:15:00Z"),
            (any(3), 1, "2026-03-04T08:30:00Z"),
            (any(3), 2, "2026-03-04T10:15:00Z"),
            // What goes out first passes out first.
            (any(3), 3, "2026-03-04T14:30:00Z"),
            (any(3), 5, "2026-03-05T10:30:00Z"),
            // The day is full until midnight; then each of the two holds up in turn.
            (both, 0, "2026-03-04T00:00:00Z"),
            (both, 1, "2026-03-04T08:30:00Z"),
            (both, 2, "2026-03-05T00:00:00Z"),
            // Nothing ever: it is looked again.
            (day(0), 0, "2026-04-03T10:07:00Z"),
            (any(1), 1_000_000, "2026-04-03T10:07:00Z"),
        ] {
            let found = turn(limits, &counts(&counted), ahead, (now, &TimeZone::UTC));
            assert_eq!(found, at(expect), "{limits:?} behind {ahead}");
        }
        let found = turn(day(1), &counts(&[("2026-03-03T10:01:00Z", 1)]), 1, (now, &nepal));
        assert_eq!(found, at("2026-03-04T18:15:00Z"));
    }

    #[test]
    fn at_ones_turn_there_is_room_and_those_before_have_gone() {
        let now = at("2026-03-03T10:07:00Z");
        let limits = SendLimits { per_day: Some(7), per_24h: Some(9) };
        let counted: Vec<Count> = (0..40)
            .map(|number| Count {
                slot: slot_of(now - SignedDuration::from_mins(47 * number)),
                count: u64::from(number % 5 == 0),
            })
            .collect();
        let mut turns = Vec::new();
        for ahead in 0..60 {
            turns.push(turn(limits, &counted, ahead, (now, &TimeZone::UTC)));
        }
        assert!(turns.is_sorted());
        // Whoever goes at his turn finds room, in whichever window.
        let mut counts = counted;
        for turn in turns {
            assert!(limits.room(&counts, (turn, &TimeZone::UTC)).0 > 0, "{turn}");
            counts.push(Count { slot: slot_of(turn), count: 1 });
        }
    }
}
