//! The servers that break or stretch the rules, each named: what they say in words instead of codes, and what they
//! hand out in place of mail.
//!
//! Not here: syntax. The reader (`token`, `response`, `fetch`) is tolerant of every server alike.

use std::time::Duration;

use memchr::memmem;

use super::error::Kind;

/// Longest pause a server may impose by its words: an hour; more would be an outage of its making.
const BACK_OFF_MAX: Duration = Duration::from_secs(3600);
/// A placeholder is a short note; no longer message is searched for one.
const PLACEHOLDER_BYTES_MAX: usize = 16 * 1024;

/// Words in lower case and what they mean. The first hit counts.
const WORDS: &[(&str, Kind)] = &[
    // Gmail, after 15 connections of one account.
    ("too many simultaneous connections", Kind::BackOff(None)),
    // Dovecot's mail_max_userip_connections, on versions without the UNAVAILABLE code; Courier and Zimbra alike.
    ("maximum number of connections", Kind::BackOff(None)),
    ("too many connections", Kind::BackOff(None)),
    // Gmail's daily 2500 MB, under the code OVERQUOTA that elsewhere means a full mailbox.
    ("bandwidth limits", Kind::BackOff(None)),
    // Exchange Online and Yahoo.
    ("throttled", Kind::BackOff(None)),
    ("rate limit", Kind::BackOff(None)),
    ("too many login attempts", Kind::BackOff(None)),
    ("too many failed login", Kind::BackOff(None)),
    ("try again later", Kind::BackOff(None)),
    ("temporarily unavailable", Kind::BackOff(None)),
    ("temporary authentication failure", Kind::BackOff(None)),
    // Gmail with two-step verification, and when it wants a human in a browser.
    ("application-specific password required", Kind::Credentials),
    ("web login required", Kind::Credentials),
    ("please log in via your web browser", Kind::Credentials),
    // Gmail closes with this when the access token has run out.
    ("session expired", Kind::Credentials),
    ("accesstokenexpired", Kind::Credentials),
    // Exchange Online: the token is good, the mailbox is not open to it (or, in passing, its backend is away).
    ("authenticated but not connected", Kind::Credentials),
    // 163.com and 126.com refuse SELECT until the client has sent ID.
    ("unsafe login", Kind::Credentials),
];

/// What the words of a server mean that sent no code to say it.
#[must_use]
pub(super) fn kind_of_text(text: &str) -> Option<Kind> {
    let text = text.to_lowercase();
    WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, kind)| *kind)
}

/// Exchange Online: "Suggested Backoff Time: 300000 milliseconds".
#[must_use]
pub(super) fn suggested_back_off(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let (_, rest) = text.split_once("suggested backoff time:")?;
    let number: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    let pause = number.parse().map_or(BACK_OFF_MAX, Duration::from_millis);
    (!number.is_empty()).then_some(pause.min(BACK_OFF_MAX))
}

/// Whether Exchange has put its excuse in place of a message that it could not convert. Capturing it as mail would
/// file the excuse under the sender's name.
#[must_use]
pub fn is_exchange_placeholder(message: &[u8]) -> bool {
    const EXCUSE: &[u8] = b"Retrieval using the IMAP4 protocol failed for the following message";
    message.len() <= PLACEHOLDER_BYTES_MAX && memmem::find(message, EXCUSE).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_names_its_pause_in_words() {
        let of = |text| suggested_back_off(text);
        assert_eq!(of("Suggested Backoff Time: 178755 milliseconds"), Some(Duration::from_millis(178_755)));
        assert_eq!(of("Suggested Backoff Time: 99999999999999999999999 milliseconds"), Some(BACK_OFF_MAX));
        assert_eq!(of("Suggested Backoff Time: soon"), None);
        assert_eq!(of("wait"), None);
    }

    #[test]
    fn the_excuse_of_exchange_is_no_mail() {
        let excuse = b"Subject: Retrieval using the IMAP4 protocol failed for the following message: 12\r\n\r\nThe server...";
        assert!(is_exchange_placeholder(excuse));
        assert!(!is_exchange_placeholder(b"Subject: hello\r\n\r\n"));
    }
}
