//! When to try again: submissions, webhooks, filing, and an account's connection.
//!
//! Pure: `jitter` is a number in 0..1 that the caller draws. Not here: what counts as a failure.

use std::time::Duration;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Waits before a webhook is posted again: the schedule that Standard Webhooks recommends, about 75 hours in all.
const WEBHOOK: [u64; 9] =
    [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];

/// Waits before a deferred submission is tried again. Greylisting lifts within minutes; after that hours serve as well.
const SUBMISSION: [u64; 8] =
    [MINUTE, 3 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];

/// Waits before a message that could not be filed is tried again; after them it is held as poison.
const FILING: [u64; 3] = [SECOND, 10 * SECOND, MINUTE];

/// Longest wait between two tries to connect an account, in seconds.
const CONNECT_SECONDS_MAX: u64 = 10 * MINUTE;

/// The wait after an event's `failures`-th failed post (the first is 1), or `None` when the endpoint is to be given up.
///
/// It is given up when an event has been tried to the end of the schedule and the endpoint has taken nothing else for as
/// long either: `failing` is the time since the first failure after its last success. An event that an endpoint cannot
/// digest while it takes all others is posted again every day.
#[must_use]
pub fn webhook(failures: u32, failing: Duration, jitter: f64) -> Option<Duration> {
    if let Some(seconds) = nth(&WEBHOOK, failures) {
        return Some(spread(seconds, jitter));
    }
    let left = webhook_lifetime().checked_sub(failing).filter(|left| !left.is_zero())?;
    Some(spread(WEBHOOK.last().copied().unwrap_or(HOUR), jitter).min(left))
}

/// How long an endpoint may take nothing before it is given up.
fn webhook_lifetime() -> Duration {
    Duration::from_secs(WEBHOOK.iter().sum())
}

/// The wait after the `attempt`-th deferral; the last one repeats until the submission's lifetime ends.
#[must_use]
pub fn submission(attempt: u32, jitter: f64) -> Duration {
    spread(nth(&SUBMISSION, attempt).or(SUBMISSION.last().copied()).unwrap_or(HOUR), jitter)
}

/// The wait after the `attempt`-th failure to file a message, or `None` when it is to be held.
#[must_use]
pub fn filing(attempt: u32) -> Option<Duration> {
    nth(&FILING, attempt).map(Duration::from_secs)
}

/// The wait before an account is connected again after `failures` in a row.
#[must_use]
pub fn connection(failures: u32, jitter: f64) -> Duration {
    let doubled = 5_u64.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
    spread(doubled.min(CONNECT_SECONDS_MAX), jitter)
}

fn nth(schedule: &[u64], attempt: u32) -> Option<u64> {
    schedule.get(usize::try_from(attempt.checked_sub(1)?).ok()?).copied()
}

/// A fifth more or less, so that what failed together does not come back together.
fn spread(seconds: u64, jitter: f64) -> Duration {
    Duration::from_secs(seconds).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_tried_for_about_three_days() {
        for (jitter, tries) in [(0.5, 9), (0.0, 10), (1.0, 9)] {
            let (mut failing, mut failures) = (Duration::ZERO, 1);
            while let Some(wait) = webhook(failures, failing, jitter) {
                failing += wait;
                failures += 1;
            }
            let hours = failing.as_secs() / HOUR;
            assert_eq!(failures - 1, tries, "{jitter}");
            assert!((75..=91).contains(&hours), "{jitter}: {hours}");
        }
    }

    #[test]
    fn an_endpoint_is_not_given_up_before_its_time_nor_for_one_event() {
        let hours = |count| Duration::from_secs(count * HOUR);
        // Long failing, yet this event has been tried once: the gateway was not running in between.
        assert!(webhook(1, hours(500), 0.5).is_some());
        // It takes others: the event that it does not take comes every day.
        assert_eq!(webhook(10, Duration::ZERO, 0.5), Some(hours(24)));
        assert_eq!(webhook(1000, hours(1), 0.5), Some(hours(24)));
        assert_eq!(webhook(10, hours(60), 0.5).map(|wait| wait.as_secs() / HOUR), Some(15));
        assert_eq!(webhook(10, hours(76), 0.5), None);
    }

    #[test]
    fn waits_grow_and_spread_by_a_fifth() {
        assert_eq!(submission(1, 0.5), Duration::from_secs(60));
        assert_eq!(submission(1, 0.0), Duration::from_secs(48));
        assert_eq!(submission(100, 0.5), Duration::from_secs(4 * HOUR));
        assert!(connection(1, 1.0) <= Duration::from_secs(6));
        assert_eq!(connection(64, 0.5), Duration::from_secs(CONNECT_SECONDS_MAX));
    }

    #[test]
    fn what_cannot_be_filed_is_held_after_three_tries() {
        assert!(filing(3).is_some());
        assert_eq!(filing(4), None);
    }
}
