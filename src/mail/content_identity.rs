//! The identity of a message's content: what stays the same however one message travels.
//!
//! Not here: Message-IDs, which senders reuse and providers rewrite; identity needs both (`core::threading`).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::HeaderSummary;

/// A hash of author, date, text and attachments. Equal for the copy a provider filed, the one that came back through a
/// relay re-encoded, and the one with a Bcc field; different when somebody wrote something else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContentIdentity([u8; 32]);

impl ContentIdentity {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Hashes what no relay changes. The stored hashes of old messages depend on every byte of this.
    pub(super) fn of(summary: &HeaderSummary, text: &str, mut attachments: Vec<[u8; 32]>) -> Self {
        attachments.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(b"mailweave content 1\0");
        hash.update(summary.author().map_or("", |author| author.address.key()));
        hash.update([0]);
        hash.update(summary.date.map_or(i64::MIN, |date| date.as_second()).to_be_bytes());
        for word in text.split_whitespace() {
            hash.update(word);
            hash.update(b" ");
        }
        hash.update([0]);
        for attachment in attachments {
            hash.update(attachment);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for ContentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentIdentity({self})")
    }
}

/// The hash of an attachment's content; text counts without regard to line ends, which relays change.
pub(super) fn attachment_hash(content: &[u8], is_text: bool) -> [u8; 32] {
    if !is_text {
        return Sha256::digest(content).into();
    }
    let mut hash = Sha256::new();
    for line in content.trim_ascii_end().split(|byte| *byte == b'\n') {
        hash.update(line.trim_ascii_end());
        hash.update(b"\n");
    }
    hash.finalize().into()
}

/// The words of an HTML document without its tags, comments, styles and scripts; entities stay as written. Crude on
/// purpose: it must give the same next year, and providers rewrite tags, never words.
pub(super) fn words_of_html(html: &str) -> String {
    let mut words = String::with_capacity(html.len() / 2);
    let mut rest = html;
    while let Some((text, tag)) = rest.split_once('<') {
        words.push_str(text);
        words.push(' ');
        rest = after_tag(tag);
    }
    words.push_str(rest);
    words
}

/// What follows a tag; for those whose content nobody reads, what follows their end.
fn after_tag(tag: &str) -> &str {
    let until = |text: &'static str| tag.split_once(text).map_or("", |(_, after)| after);
    let starts = |name: &str| tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let ends = |lower: &'static str, upper: &'static str| {
        let (a, b) = (until(lower), until(upper));
        if a.len() > b.len() { a } else { b }
    };
    if starts("!--") {
        until("-->")
    } else if starts("style") {
        ends("</style>", "</STYLE>")
    } else if starts("script") {
        ends("</script>", "</SCRIPT>")
    } else {
        until(">")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_html_count() {
        let words = words_of_html("<html><style>a{b:c}</style><!-- x --><p class=x>Hello <b>you</b></p>");
        assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["Hello", "you"]);
        assert_eq!(words_of_html("a <style> never ends").trim(), "a");
    }

    #[test]
    fn text_attachments_are_equal_whatever_their_line_ends() {
        assert_eq!(attachment_hash(b"a \r\nb\r\n", true), attachment_hash(b"a\nb", true));
        assert_ne!(attachment_hash(b"a\r\nb", false), attachment_hash(b"a\nb", false));
    }
}
