//! The servers that break or stretch the rules, each named: what they hand out in place of mail.
//!
//! Not here: what they say in words instead of codes (`core::provider`), and syntax. The reader (`token`, `response`, `fetch`) is tolerant of every server alike.

use memchr::memmem;

/// A placeholder is a short note; no longer message is searched for one.
const PLACEHOLDER_BYTES_MAX: usize = 16 * 1024;

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
    fn the_excuse_of_exchange_is_no_mail() {
        let excuse = b"Subject: Retrieval using the IMAP4 protocol failed for the following message: 12\r\n\r\nThe server...";
        assert!(is_exchange_placeholder(excuse));
        assert!(!is_exchange_placeholder(b"Subject: hello\r\n\r\n"));
    }
}
