//! What servers say in words of their own, and what it means for an account.
//!
//! Not here: what is said in codes (RFC 5530, RFC 3463), which the protocols' clients read.

use std::time::Duration;

use serde::Deserialize;

use crate::core::policy::span::Span;

/// The longest that an answer is believed when it says how long to wait.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// Words that a provider's answers have in them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// In lower case.
    pub(super) says: String,
    means: Kind,
    /// How long to leave it alone, where the answer itself does not say.
    #[serde(default)]
    wait: Option<Span>,
    /// The words mean this where a login is refused, and another thing elsewhere.
    #[serde(default)]
    at_login: bool,
}

/// When a server has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// To a login.
    Login,
    /// To anything else.
    Session,
}

/// What is meant, as the files write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Busy,
    Bandwidth,
    TooManyConnections,
    TooManySubmissions,
    SendingQuota,
    TokenExpired,
    Credentials,
    AppPassword,
    NotEnabled,
    Revoked,
}

/// What an answer means for the account. Waits are `None` where nobody says how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Not now: nothing is wrong with the account.
    Busy(Option<Duration>),
    /// So much was read that no more may be for a while.
    Bandwidth(Option<Duration>),
    /// Programs of the user have more IMAP sessions than he may have.
    TooManyConnections(Option<Duration>),
    /// The same of SMTP sessions.
    TooManySubmissions(Option<Duration>),
    /// No more mail is taken from the user for a while.
    SendingQuota(Option<Duration>),
    /// The access token is old; the grant may be good.
    TokenExpired,
    /// The login is wrong.
    Credentials,
    /// The user's own password is no login for programs.
    AppPassword,
    /// The login may be right, and this access is not offered to the account.
    NotEnabled,
    /// A permission that was there is there no more.
    Revoked,
}

impl Meaning {
    /// How long the server is to be left alone, where that is what it asks for; the inner `None` where nobody says how long.
    #[must_use]
    pub fn back_off(self) -> Option<Option<Duration>> {
        match self {
            Self::Busy(wait)
            | Self::Bandwidth(wait)
            | Self::TooManyConnections(wait)
            | Self::TooManySubmissions(wait)
            | Self::SendingQuota(wait) => Some(wait),
            Self::TokenExpired | Self::Credentials | Self::AppPassword | Self::NotEnabled | Self::Revoked => {
                None
            }
        }
    }
}

/// The first answer that fits, with the wait that the text names.
pub(super) fn meaning(answers: &[Answer], lower: &str, when: When) -> Option<Meaning> {
    let fits =
        |answer: &&Answer| (when == When::Login || !answer.at_login) && lower.contains(answer.says.as_str());
    let answer = answers.iter().find(fits)?;
    let wait = named_wait(lower, &answer.says).or(answer.wait.map(Span::duration));
    Some(match answer.means {
        Kind::Busy => Meaning::Busy(wait),
        Kind::Bandwidth => Meaning::Bandwidth(wait),
        Kind::TooManyConnections => Meaning::TooManyConnections(wait),
        Kind::TooManySubmissions => Meaning::TooManySubmissions(wait),
        Kind::SendingQuota => Meaning::SendingQuota(wait),
        Kind::TokenExpired => Meaning::TokenExpired,
        Kind::Credentials => Meaning::Credentials,
        Kind::AppPassword => Meaning::AppPassword,
        Kind::NotEnabled => Meaning::NotEnabled,
        Kind::Revoked => Meaning::Revoked,
    })
}

/// A number of milliseconds or seconds that follows the words.
fn named_wait(lower: &str, says: &str) -> Option<Duration> {
    let (_, after) = lower.split_once(says)?;
    let after = after.trim_start();
    let digits = after.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = after.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let wait = match unit.trim_start() {
        unit if unit.starts_with("millisecond") => Duration::from_millis(number),
        unit if unit.starts_with("second") => Duration::from_secs(number),
        _ => return None,
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::{super::Provider, *};

    #[track_caller]
    fn check(provider: &str, text: &str, meaning: Option<Meaning>) {
        assert_eq!(
            Provider::named(provider).unwrap().meaning(text, When::Login),
            meaning,
            "{provider}: {text}"
        );
    }

    #[test]
    fn what_servers_say_in_words_is_understood() {
        let (hour, day, minute) =
            (Some(Duration::from_hours(1)), Some(Duration::from_hours(24)), Some(Duration::from_mins(1)));
        for (provider, text, meaning) in [
            ("google", "Too many simultaneous connections. (Failure)", Meaning::TooManyConnections(None)),
            ("google", "Account exceeded command or bandwidth limits. (Failure)", Meaning::Bandwidth(hour)),
            ("google", "Success [THROTTLED]", Meaning::Busy(None)),
            ("google", "Daily user sending quota exceeded.", Meaning::SendingQuota(day)),
            ("google", "Application-specific password required", Meaning::AppPassword),
            ("google", "Your account is not enabled for IMAP use.", Meaning::NotEnabled),
            (
                "microsoft",
                "Request is throttled. Suggested Backoff Time: 299468 milliseconds",
                Meaning::Busy(Some(Duration::from_millis(299_468))),
            ),
            (
                "microsoft",
                "STOREDRV.ClientSubmit; sender thread limit exceeded; Concurrent connections limit exceeded",
                Meaning::TooManySubmissions(minute),
            ),
            ("microsoft", "Session invalidated - AccessTokenExpired", Meaning::TokenExpired),
            ("microsoft", "User is authenticated but not connected.", Meaning::NotEnabled),
            ("exchange", "Suggested Backoff Time: 5 seconds", Meaning::Busy(Some(Duration::from_secs(5)))),
            ("icloud", "You have exceeded your daily sending limit.", Meaning::SendingQuota(day)),
            // What every provider may say.
            ("google", "Token has been expired or revoked", Meaning::Revoked),
            (
                "imap",
                "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
                Meaning::TooManyConnections(None),
            ),
        ] {
            check(provider, text, Some(meaning));
        }
        check("imap", "No such mailbox", None);
    }

    #[test]
    fn a_wait_is_believed_up_to_a_day() {
        let day = Some(Meaning::Busy(Some(Duration::from_hours(24))));
        check("microsoft", "Suggested Backoff Time: 99999999999 milliseconds", day);
        check("microsoft", "Suggested Backoff Time: soon", Some(Meaning::Busy(None)));
        check("microsoft", "Suggested Backoff Time: 18446744073709551616 seconds", Some(Meaning::Busy(None)));
    }

    #[test]
    fn words_mean_the_same_whoever_says_them_and_some_only_at_a_login() {
        let day = Some(Duration::from_hours(24));
        for (text, at_login, in_session) in [
            ("Mailbox does not exist", Some(Meaning::NotEnabled), None),
            ("Token has been expired or revoked", Some(Meaning::Revoked), None),
            (
                "User is authenticated but not connected.",
                Some(Meaning::NotEnabled),
                Some(Meaning::NotEnabled),
            ),
            (
                "Daily user sending quota exceeded.",
                Some(Meaning::SendingQuota(day)),
                Some(Meaning::SendingQuota(day)),
            ),
            ("Hello", None, None),
        ] {
            assert_eq!(super::super::meaning(text, When::Login), at_login, "{text}");
            assert_eq!(super::super::meaning(text, When::Session), in_session, "{text}");
        }
    }

    /// Else it would hang on the order of the files what a server means.
    #[test]
    fn no_provider_has_other_words_in_its_own_for_something_else() {
        let all =
            || Provider::all().iter().flat_map(|one| one.answers.iter().map(move |answer| (one, answer)));
        for (provider, answer) in all() {
            let others =
                all().filter(|(other, _)| other.name != provider.name && other.name != super::super::ANY);
            for (other, its) in others.filter(|(_, its)| answer.says.contains(&its.says)) {
                assert_eq!(
                    its.means, answer.means,
                    "{}: {} | {}: {}",
                    provider.name, answer.says, other.name, its.says
                );
            }
        }
    }
}
