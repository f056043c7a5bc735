//! How much a provider lets one account do: connections, submissions, mail in a window, octets read; with its own words when
//! that is over.
//!
//! Time is an argument. Not here: counting connections (`state`), and the numbers that the gateway keeps to
//! (`config/providers`).

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use crate::smtp::Reply;

use super::behaviour::Manner;

/// Entries of one count. What happens within a second is one entry, so that a day of it fits.
const ENTRIES_MAX: usize = 100_000;
const DAY: Duration = Duration::from_hours(24);

/// So much in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub most: u64,
    pub window: Duration,
}

impl Rate {
    #[must_use]
    pub fn new(most: u64, window: Duration) -> Self {
        Self { most, window }
    }
}

/// What one account may do. `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// IMAP sessions at one time.
    pub connections: Option<u32>,
    /// SMTP sessions at one time that hand in mail.
    pub submissions: Option<u32>,
    pub recipients_per_message: Option<u32>,
    pub messages: Option<Rate>,
    pub recipients: Option<Rate>,
    /// Octets that FETCH gives out.
    pub download: Option<Rate>,
}

impl Allowance {
    /// A private account at Google.
    #[must_use]
    pub fn gmail() -> Self {
        Self {
            messages: None,
            recipients: Some(Rate::new(500, DAY)),
            recipients_per_message: Some(100),
            ..Self::google_workspace()
        }
    }

    /// An account of a company at Google.
    #[must_use]
    pub fn google_workspace() -> Self {
        Self {
            connections: Some(15),
            submissions: None,
            recipients_per_message: Some(2000),
            messages: Some(Rate::new(2000, DAY)),
            recipients: Some(Rate::new(10_000, DAY)),
            download: Some(Rate::new(2500 * 1024 * 1024, DAY)),
        }
    }

    /// An account at Exchange Online.
    #[must_use]
    pub fn microsoft() -> Self {
        Self {
            connections: Some(16),
            submissions: Some(3),
            recipients_per_message: Some(500),
            messages: Some(Rate::new(30, Duration::from_mins(1))),
            recipients: Some(Rate::new(10_000, DAY)),
            download: None,
        }
    }
}

/// What an account has used.
#[derive(Debug, Default)]
pub(super) struct Spent {
    messages: Count,
    recipients: Count,
    octets: Count,
}

/// What a limit is reached of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Messages,
    Recipients,
    Submissions,
    RecipientsPerMessage,
}

impl Spent {
    /// Charges a message to so many recipients, or says of what it would be too much; then nothing is charged.
    pub(super) fn send(
        &mut self,
        allowance: &Allowance,
        recipients: u64,
        now: Timestamp,
    ) -> Result<(), Over> {
        if !self.messages.fits(allowance.messages, 1, now) {
            return Err(Over::Messages);
        }
        if !self.recipients.fits(allowance.recipients, recipients, now) {
            return Err(Over::Recipients);
        }
        self.messages.add(allowance.messages, 1, now);
        self.recipients.add(allowance.recipients, recipients, now);
        Ok(())
    }

    /// Counts what was read.
    pub(super) fn read(&mut self, allowance: &Allowance, octets: u64, now: Timestamp) {
        self.octets.add(allowance.download, octets, now);
    }

    /// Whether so much was read that no more may be.
    pub(super) fn has_read_too_much(&mut self, allowance: &Allowance, now: Timestamp) -> bool {
        !self.octets.fits(allowance.download, 0, now)
    }
}

/// What was counted in the window, oldest first.
#[derive(Debug, Default)]
struct Count {
    entries: VecDeque<(Timestamp, u64)>,
    sum: u64,
}

impl Count {
    /// Whether so much more fits; of nothing more, whether the limit is not passed yet.
    fn fits(&mut self, rate: Option<Rate>, more: u64, now: Timestamp) -> bool {
        let Some(rate) = rate else { return true };
        self.forget(rate.window, now);
        self.sum.saturating_add(more) <= rate.most
    }

    fn add(&mut self, rate: Option<Rate>, more: u64, now: Timestamp) {
        if rate.is_none() || more == 0 {
            return;
        }
        self.sum = self.sum.saturating_add(more);
        let is_full = self.entries.len() >= ENTRIES_MAX;
        match self.entries.back_mut() {
            // At the later moment: what is counted leaves the window no sooner than it may.
            Some((at, count)) if at.as_second() == now.as_second() || is_full => {
                *count = count.saturating_add(more);
                *at = now;
            }
            _ => self.entries.push_back((now, more)),
        }
    }

    fn forget(&mut self, window: Duration, now: Timestamp) {
        let is_over =
            |at: Timestamp| Duration::try_from(now.duration_since(at)).is_ok_and(|age| age >= window);
        while let Some((_, count)) = self.entries.pop_front_if(|(at, _)| is_over(*at)) {
            self.sum = self.sum.saturating_sub(count);
        }
    }
}

/// The refusal of a submission, as the provider words it.
pub(super) fn refusal(manner: Manner, over: Over) -> Reply {
    match (manner, over) {
        (Manner::Google, Over::Messages | Over::Recipients) => {
            Reply::new(550, [5, 4, 5], "Daily user sending limit exceeded. For more information on Gmail")
                .and_line("sending limits go to")
                .and_line(" https://support.google.com/a/answer/166852 - gsmtp")
        }
        (Manner::Google, Over::Submissions) => Reply::new(
            421,
            [4, 7, 0],
            "Too many concurrent SMTP connections; please try again later. - gsmtp",
        ),
        (Manner::Google, Over::RecipientsPerMessage) => {
            Reply::new(452, [4, 5, 3], "Your message has too many recipients. For more information regarding")
                .and_line("Google's sending limits, please visit:")
                .and_line(" https://support.google.com/mail/?p=TooManyRecipientsError - gsmtp")
        }
        (Manner::Microsoft, Over::Recipients) => Reply::new(
            554,
            [5, 2, 0],
            "STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent \
             exception with message The message can't be submitted because the sender's submission quota was exceeded.",
        ),
        (Manner::Microsoft, Over::Messages) => Reply::new(
            421,
            [4, 4, 2],
            "Message submission rate for this client has exceeded the configured limit",
        ),
        (Manner::Microsoft, Over::Submissions) => Reply::new(
            432,
            [4, 3, 2],
            "STOREDRV.ClientSubmit; sender thread limit exceeded; Concurrent connections limit exceeded. Visit \
             https://aka.ms/concurrent_sending for more information.",
        ),
        (Manner::Plain, Over::Messages | Over::Recipients) => {
            Reply::new(452, [4, 7, 28], "Sending limit reached, try again later")
        }
        (Manner::Plain, Over::Submissions) => {
            Reply::new(421, [4, 7, 0], "Too many concurrent SMTP connections, try again later")
        }
        (Manner::Plain | Manner::Microsoft, Over::RecipientsPerMessage) => {
            Reply::new(452, [4, 5, 3], "Too many recipients")
        }
    }
}

/// What IMAP says, after the tag and its NO, to who is throttled for so long.
pub(super) fn throttled_imap(manner: Manner, left: Duration) -> String {
    match manner {
        Manner::Google => "[OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)".to_owned(),
        Manner::Microsoft => {
            format!("Request is throttled. Suggested Backoff Time: {} milliseconds", left.as_millis())
        }
        Manner::Plain => "[LIMIT] Rate limit hit, try again later".to_owned(),
    }
}

/// The same over SMTP.
pub(super) fn throttled_smtp(manner: Manner) -> Reply {
    match manner {
        Manner::Google => Reply::new(421, [4, 7, 0], "Try again later, closing connection. - gsmtp"),
        Manner::Microsoft => Reply::new(451, [4, 7, 500], "Server busy. Please try again later"),
        Manner::Plain => Reply::new(421, [4, 7, 0], "Rate limit hit, try again later"),
    }
}

/// What IMAP says to one session too many, after the tag.
pub(super) fn too_many_connections(manner: Manner) -> &'static str {
    match manner {
        Manner::Google => "[ALERT] Too many simultaneous connections. (Failure)",
        Manner::Microsoft => {
            "The maximum number of concurrent connections has exceeded a limit, closing connection"
        }
        Manner::Plain => "[LIMIT] Maximum number of connections from user+IP exceeded",
    }
}

/// What IMAP says to who has read too much.
pub(super) fn too_much_read(manner: Manner) -> &'static str {
    match manner {
        Manner::Google => "[OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)",
        Manner::Microsoft => "Request is throttled. Suggested Backoff Time: 60000 milliseconds",
        Manner::Plain => "[LIMIT] Too much was read, try again later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn no_window_of_that_length_ever_holds_more() {
        let allowance = Allowance {
            messages: Some(Rate::new(3, Duration::from_secs(10))),
            recipients: Some(Rate::new(5, Duration::from_secs(60))),
            ..Allowance::default()
        };
        let mut spent = Spent::default();
        let mut taken = Vec::new();
        for step in 0..1_000 {
            let now = at(step * 377);
            if spent.send(&allowance, 1 + (step as u64 % 2), now).is_ok() {
                taken.push((now, 1 + (step as u64 % 2)));
            }
        }
        assert!(taken.len() > 10, "{}", taken.len());
        let within = |from: Timestamp, window: i64| {
            let seconds = jiff::SignedDuration::from_secs(window);
            taken.iter().filter(move |(at, _)| *at >= from && at.duration_since(from) < seconds)
        };
        for (from, _) in &taken {
            assert!(within(*from, 10).count() <= 3, "after {from}");
            assert!(within(*from, 60).map(|(_, recipients)| recipients).sum::<u64>() <= 5, "after {from}");
        }
    }

    #[test]
    fn who_has_read_too_much_waits_until_the_window_moves_on() {
        let rate = Rate::new(100, Duration::from_secs(60));
        let allowance = Allowance { download: Some(rate), ..Allowance::default() };
        let mut spent = Spent::default();
        spent.read(&allowance, 100, at(0));
        assert!(!spent.has_read_too_much(&allowance, at(1_000)));
        spent.read(&allowance, 1, at(2_000));
        assert!(spent.has_read_too_much(&allowance, at(59_000)));
        assert!(!spent.has_read_too_much(&allowance, at(60_001)));
    }

    #[test]
    fn each_provider_refuses_in_its_own_words() {
        for (manner, over, expect) in [
            (Manner::Google, Over::Recipients, "550 5.4.5 Daily user sending limit exceeded."),
            (Manner::Google, Over::Submissions, "421 4.7.0 Too many concurrent SMTP connections"),
            (
                Manner::Microsoft,
                Over::Submissions,
                "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
            ),
            (Manner::Microsoft, Over::Messages, "421 4.4.2 Message submission rate for this client"),
            (Manner::Microsoft, Over::Recipients, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuota"),
        ] {
            let said = refusal(manner, over).to_string();
            assert!(said.starts_with(expect), "{said}");
        }
    }
}
