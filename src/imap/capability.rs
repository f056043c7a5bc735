//! What a server says it can do.
//!
//! Not here: when it is asked. A list that came before TLS or before authentication is replaced, never merged.

/// Names kept of one list; real servers have about 50.
const NAMES_MAX: usize = 300;

/// A CAPABILITY list, in upper case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    names: Vec<Box<str>>,
}

impl Capabilities {
    /// Reads the words after `CAPABILITY`; an empty `AUTH=` and what is not ASCII are left out.
    #[must_use]
    pub(super) fn parse(text: &[u8]) -> Self {
        let words = text.split(|byte| matches!(byte, b' ' | b'\r' | b'\n' | b'\t'));
        let words = words.filter_map(|word| std::str::from_utf8(word).ok()).map(str::to_ascii_uppercase);
        let names = words.filter(|name| !name.is_empty() && name.is_ascii() && !name.ends_with('='));
        Self { names: names.take(NAMES_MAX).map(Into::into).collect() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name` (in any case) is offered.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|offered| offered.eq_ignore_ascii_case(name))
    }

    /// Whether the SASL mechanism is offered.
    #[must_use]
    pub fn has_auth(&self, mechanism: &str) -> bool {
        self.values("AUTH").any(|offered| offered.eq_ignore_ascii_case(mechanism))
    }

    /// RFC 7162, which QRESYNC includes.
    #[must_use]
    pub fn condstore(&self) -> bool {
        self.has("CONDSTORE") || self.has("QRESYNC")
    }

    /// Gmail's own items: X-GM-MSGID, X-GM-THRID, X-GM-LABELS.
    #[must_use]
    pub fn gmail(&self) -> bool {
        self.has("X-GM-EXT-1")
    }

    /// RFC 4731, which IMAP4rev2 includes.
    #[must_use]
    pub fn esearch(&self) -> bool {
        self.has("ESEARCH") || self.has("IMAP4REV2")
    }

    /// The largest literal that may be sent without asking (RFC 7888): all, 4096 octets, or none.
    #[must_use]
    pub fn free_literal_bytes_max(&self) -> usize {
        if self.has("LITERAL+") {
            usize::MAX
        } else if self.has("LITERAL-") || self.has("IMAP4REV2") {
            4096
        } else {
            0
        }
    }

    /// The largest message APPEND takes (RFC 7889), if the server says so.
    #[must_use]
    pub fn append_bytes_max(&self) -> Option<u64> {
        self.values("APPENDLIMIT").next()?.parse().ok()
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter_map(move |name| name.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_in_any_case_and_without_the_empty_ones() {
        let offered = Capabilities::parse(
            b" IMAP4rev1 auth= AUTH=PLAIN AUTH=xoauth2 Idle  LITERAL- APPENDLIMIT=35882577 \r\n",
        );
        assert!(offered.has("IDLE") && offered.has_auth("PLAIN") && offered.has_auth("XOAUTH2"));
        assert!(!offered.has_auth("") && !offered.has("AUTH="));
        assert_eq!(offered.free_literal_bytes_max(), 4096);
        assert_eq!(offered.append_bytes_max(), Some(35_882_577));
    }
}
