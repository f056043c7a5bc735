//! Mailboxes: their names as opaque bytes, what LIST says of them, what STATUS says of them.
//!
//! Not here: which of them matters (`choose`), and paths: a name never becomes a file's.

use std::fmt;

use bytes::Bytes;

use super::{
    token::Cursor,
    uid::{ModSeq, Uid, UidValidity},
    utf7,
};

/// Longest name kept, in octets. Longer ones are left out of lists.
pub const NAME_BYTES_MAX: usize = 1024;

/// A mailbox's name exactly as the server spells it, almost always modified UTF-7. Holds no CR, LF or NUL, so that it
/// cannot end a command. `inbox` in any case is `INBOX` (RFC 9051 section 5.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxName(Bytes);

impl MailboxName {
    /// `None` when the name is empty, too long, or could break a command line.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        let breaks = name.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || breaks {
            return None;
        }
        if name.eq_ignore_ascii_case(b"INBOX") {
            return Some(Self::inbox());
        }
        Some(Self(Bytes::copy_from_slice(name)))
    }

    /// The name a person typed, put into modified UTF-7.
    #[must_use]
    pub fn from_display(name: &str) -> Option<Self> {
        Self::new(utf7::encode(name).as_bytes())
    }

    #[must_use]
    pub fn inbox() -> Self {
        Self(Bytes::from_static(b"INBOX"))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.as_bytes() == b"INBOX"
    }

    /// The name for people. Not reversible: what is no valid modified UTF-7 is shown as it is.
    #[must_use]
    pub fn display(&self) -> String {
        utf7::decode(self.as_bytes())
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailboxName({:?})", self.display())
    }
}

/// SPECIAL-USE (RFC 6154).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialUse {
    All,
    Archive,
    Drafts,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// `\Spam`, `\AllMail` and their like are XLIST's names, which some servers still put into LIST.
    fn parse(attribute: &[u8]) -> Option<Self> {
        Some(match attribute.to_ascii_lowercase().as_slice() {
            b"\\all" | b"\\allmail" => Self::All,
            b"\\archive" => Self::Archive,
            b"\\drafts" => Self::Drafts,
            b"\\junk" | b"\\spam" => Self::Junk,
            b"\\sent" => Self::Sent,
            b"\\trash" => Self::Trash,
            _ => return None,
        })
    }
}

/// One line of a LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMailbox {
    pub name: MailboxName,
    /// The name for people.
    pub display: String,
    /// What divides the levels of the name; `None` in a flat namespace.
    pub delimiter: Option<char>,
    /// False for `\Noselect` and `\NonExistent`: such a name is never selected.
    pub selectable: bool,
    pub special_use: Option<SpecialUse>,
}

impl ListedMailbox {
    /// Reads what follows `* LIST`. `None` for names that cannot be used (empty, absurdly long, or with control octets).
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut selectable = true;
        let mut special_use = None;
        cursor.list(|cursor| {
            let attribute = cursor.word();
            let hidden: [&[u8]; 2] = [b"\\Noselect", b"\\NonExistent"];
            selectable &= !hidden.iter().any(|hidden| attribute.eq_ignore_ascii_case(hidden));
            special_use = special_use.or(SpecialUse::parse(attribute));
            Some(())
        })?;
        let delimiter = cursor.string()?.and_then(|bytes| bytes.first().copied()).map(char::from);
        let name = MailboxName::new(&rest_as_name(cursor)?)?;
        Some(Self { display: name.display(), name, delimiter, selectable, special_use })
    }

    /// The last level of the name, for people.
    #[must_use]
    pub fn leaf(&self) -> &str {
        self.delimiter.and_then(|at| self.display.rsplit(at).next()).unwrap_or(&self.display)
    }

    /// How many levels are above.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.delimiter.map_or(0, |at| self.display.matches(at).count())
    }
}

/// A name is a string; some servers leave the quotes off names with spaces, so an unquoted one goes to the line's end.
fn rest_as_name(cursor: &mut Cursor<'_>) -> Option<Bytes> {
    cursor.skip_spaces();
    match cursor.peek()? {
        b'"' | b'{' | b'~' => {
            let name = cursor.string()?;
            cursor.skip_spaces();
            // A quote that was not escaped: the name has an end that cannot be known. Extended data may follow.
            name.filter(|_| matches!(cursor.peek(), None | Some(b'(')))
        }
        _ => Some(cursor.share(cursor.text())),
    }
}

/// The answer to STATUS: what was asked for and understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxStatus {
    pub name: MailboxName,
    pub messages: Option<u32>,
    pub uid_next: Option<Uid>,
    pub uid_validity: Option<UidValidity>,
    pub highest_modseq: Option<ModSeq>,
}

impl MailboxStatus {
    /// Reads what follows `* STATUS`.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        let name = MailboxName::new(&cursor.string()??)?;
        let mut status =
            Self { name, messages: None, uid_next: None, uid_validity: None, highest_modseq: None };
        cursor.list(|cursor| {
            let item = cursor.word().to_ascii_uppercase();
            let Some(number) = cursor.number() else { return cursor.skip_value() };
            let short = u32::try_from(number).ok();
            match item.as_slice() {
                b"MESSAGES" => status.messages = short,
                b"UIDNEXT" => status.uid_next = short.and_then(Uid::new),
                b"UIDVALIDITY" => status.uid_validity = short.and_then(UidValidity::new),
                b"HIGHESTMODSEQ" => status.highest_modseq = ModSeq::new(number),
                _ => {}
            }
            Some(())
        })?;
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &'static str) -> Option<ListedMailbox> {
        let frame = Bytes::from_static(text.as_bytes());
        ListedMailbox::parse(&mut Cursor::new(&frame))
    }

    #[track_caller]
    fn check(text: &'static str, display: &str, delimiter: Option<char>, special: Option<SpecialUse>) {
        let got = list(text).unwrap();
        assert_eq!(
            (got.display.as_str(), got.delimiter, got.special_use),
            (display, delimiter, special),
            "{text}"
        );
    }

    #[test]
    fn a_list_line_is_read_as_servers_write_it() {
        check(
            "(\\HasNoChildren \\Sent) \"/\" \"Gesendete Objekte\"",
            "Gesendete Objekte",
            Some('/'),
            Some(SpecialUse::Sent),
        );
        check("() \".\" INBOX.Entw&APw-rfe", "INBOX.Entwürfe", Some('.'), None);
        check("() \"/\" Sent Items", "Sent Items", Some('/'), None);
        check("() \"\\\\\" {4}\r\na\\\"b\r\n", "a\\\"b", Some('\\'), None);
        check("() NIL \"iNbOx\"", "INBOX", None, None);
        check("(\\Spam ) \"/\" Entwürfe", "Entwürfe", Some('/'), Some(SpecialUse::Junk));
        check("() \"/\" \"&broken\" (\"CHILDINFO\" (\"SUBSCRIBED\"))", "&broken", Some('/'), None);
    }

    #[test]
    fn names_that_could_break_a_command_do_not_exist() {
        assert_eq!(list("(\\Noselect) NIL \"\""), None);
        assert_eq!(list("() \"/\" \"a\"b\""), None);
        assert_eq!(list("() \"/\" {6}\r\na\r\nb\0c\r\n"), None);
        assert_eq!(MailboxName::new(b"x\r\nA1 DELETE INBOX"), None);
        assert_eq!(MailboxName::new(&[b'a'; NAME_BYTES_MAX + 1]), None);
    }

    #[test]
    fn what_does_not_exist_is_not_selectable() {
        assert!(!list("(\\NonExistent) \"/\" \"x\"").unwrap().selectable);
        assert!(!list("(\\NoSelect) \"/\" \"x\"").unwrap().selectable);
    }
}
