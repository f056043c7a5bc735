//! Words of the protocol as octets: strings, dates, UID sets, names.
//!
//! Not here: reading; `imap_codec` does that.

use std::{fmt::Write, num::NonZeroU32};

use imap_types::{
    mailbox::Mailbox,
    sequence::{SeqOrUid, Sequence, SequenceSet},
};
use jiff::Timestamp;

/// Longest text that is sent as a quoted string; longer ones go as literals, which clients must take as well.
const QUOTED_BYTES_MAX: usize = 200;

/// Writes `nstring`/`string`: quoted where it can be, else a literal.
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    if plain && bytes.len() <= QUOTED_BYTES_MAX {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    } else {
        literal(out, bytes);
    }
}

/// A string or NIL.
pub(super) fn nstring(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(out, text.as_bytes()),
        None => out.extend_from_slice(b"NIL"),
    }
}

pub(super) fn literal(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{{{}}}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

/// `INTERNALDATE` form, always in UTC.
pub(super) fn date_time(at: Timestamp) -> String {
    at.strftime("\"%d-%b-%Y %H:%M:%S +0000\"").to_string()
}

pub(super) fn flags(flags: &[String]) -> String {
    format!("({})", flags.join(" "))
}

/// The mailbox name of a command, as it is kept: modified UTF-7, INBOX in capitals. `None` for bytes that are no text.
pub(super) fn mailbox_name(mailbox: &Mailbox<'_>) -> Option<String> {
    match mailbox {
        Mailbox::Inbox => Some("INBOX".to_owned()),
        Mailbox::Other(other) => std::str::from_utf8(other.as_ref()).ok().map(str::to_owned),
    }
}

/// Ascending numbers as a set: `1:3,5`.
pub(super) fn set(numbers: &[u32]) -> String {
    let mut text = String::new();
    for (first, last) in ranges(numbers) {
        let comma = if text.is_empty() { "" } else { "," };
        let written = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}:{last}")
        };
        written.expect("writing to a String cannot fail");
    }
    text
}

fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

/// A sequence set of a command as ascending disjoint ranges, so that looking a number up stays cheap.
pub(super) struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    /// `*` means `last`. RFC 9051 section 6.4.8: `n:*` holds the last number even when `n` is greater.
    pub(super) fn new(set: &SequenceSet, last: u32) -> Self {
        let number = |number: &SeqOrUid| match number {
            SeqOrUid::Value(value) => NonZeroU32::get(*value),
            SeqOrUid::Asterisk => last,
        };
        let mut ranges: Vec<(u32, u32)> = set
            .0
            .as_ref()
            .iter()
            .map(|sequence| match sequence {
                Sequence::Single(one) => (number(one), number(one)),
                Sequence::Range(one, other) => {
                    (number(one).min(number(other)), number(one).max(number(other)))
                }
            })
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, end) in ranges {
            match merged.last_mut() {
                Some((_, last)) if first <= last.saturating_add(1) => *last = end.max(*last),
                _ => merged.push((first, end)),
            }
        }
        Self(merged)
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        let candidate = after.checked_sub(1).and_then(|at| self.0.get(at));
        candidate.is_some_and(|(_, last)| number <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_only_when_that_is_safe() {
        let written = |bytes: &[u8]| {
            let mut out = Vec::new();
            string(&mut out, bytes);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(b"plain text"), "\"plain text\"");
        assert_eq!(written(b""), "\"\"");
        assert_eq!(written(b"a\"b"), "{3}\r\na\"b");
        assert_eq!(written("ä".as_bytes()), "{2}\r\nä");
    }

    #[test]
    fn sets_are_written_in_ranges() {
        assert_eq!(set(&[1, 2, 3, 5, 7, 8]), "1:3,5,7:8");
        assert_eq!(set(&[]), "");
        assert_eq!(set(&[u32::MAX]), "4294967295");
    }

    #[test]
    fn a_set_to_the_last_holds_the_last() {
        let holds = |text: &str, number| Numbers::new(&text.parse().unwrap(), 9).contains(number);
        assert!(holds("20:*", 9) && holds("*:20", 9) && holds("*", 9));
        assert!(holds("20:*", 15) && !holds("20:*", 8));
        assert!(holds("5,1:2", 2) && !holds("5,1:2", 3) && holds("5,1:2", 5));
    }

    #[test]
    fn dates_have_two_digits_and_the_english_month() {
        let at = Timestamp::from_second(86_400 * 4 + 3_661).unwrap();
        assert_eq!(date_time(at), "\"05-Jan-1970 01:01:01 +0000\"");
    }
}
