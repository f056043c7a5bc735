//! The flags of a message (RFC 9051 section 2.3.2).
//!
//! Not here: the attributes of mailboxes (`mailbox`), and Gmail's labels (`fetch`).

use super::token::Cursor;

/// Keywords kept of one message: more than any server allows.
const KEYWORDS_MAX: usize = 100;

/// One system flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    Seen,
    Answered,
    Flagged,
    Deleted,
    Draft,
}

impl Flag {
    const ALL: [Self; 5] = [Self::Seen, Self::Answered, Self::Flagged, Self::Deleted, Self::Draft];

    /// As it is written in IMAP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// The flags of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    system: u8,
    keywords: Vec<Box<str>>,
}

impl Flags {
    #[must_use]
    pub fn contains(&self, flag: Flag) -> bool {
        self.system & flag.bit() != 0
    }

    /// `$Forwarded`, `$Junk` and what users invent, as they came.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.iter().map(AsRef::as_ref)
    }

    /// Reads `(\Seen $Forwarded )`.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut flags = Self::default();
        cursor.list(|cursor| {
            flags.add(cursor.word());
            Some(())
        })?;
        Some(flags)
    }

    fn add(&mut self, word: &[u8]) {
        if let Some(flag) =
            Flag::ALL.into_iter().find(|flag| word.eq_ignore_ascii_case(flag.as_str().as_bytes()))
        {
            self.system |= flag.bit();
        } else if !word.starts_with(b"\\") && self.keywords.len() < KEYWORDS_MAX {
            self.keywords.push(String::from_utf8_lossy(word).into());
        }
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let system = flags.into_iter().fold(0, |bits, flag| bits | flag.bit());
        Self { system, keywords: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[track_caller]
    fn check(text: &'static str, system: &[Flag], keywords: &[&str]) {
        let frame = Bytes::from_static(text.as_bytes());
        let flags = Flags::parse(&mut Cursor::new(&frame)).unwrap();
        assert_eq!(
            Flag::ALL.into_iter().filter(|flag| flags.contains(*flag)).collect::<Vec<_>>(),
            system,
            "{text}"
        );
        assert_eq!(flags.keywords().collect::<Vec<_>>(), keywords, "{text}");
    }

    #[test]
    fn flags_are_read_with_whatever_servers_put_in_them() {
        check("(\\Seen \\answered $Forwarded )", &[Flag::Seen, Flag::Answered], &["$Forwarded"]);
        check("()", &[], &[]);
        check("(\\Recent \\X a\"b c]d é)", &[], &["a\"b", "c]d", "é"]);
    }
}
