//! Reads the octets after 354: ends at CRLF.CRLF and nowhere else, takes off the dots of RFC 5321 section 4.5.2, and
//! stops at the bare CR, bare LF and NUL that message smuggling needs.
//!
//! Not here: what the message says. Only `received_fields` looks at content, and only to count hops.

use bytes::Bytes;
use memchr::{memchr3, memmem};

/// First piece of memory for a message; most mail that people write fits.
const FIRST_BYTES: usize = 4_096;

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataState {
    /// The final dot has not been seen.
    Reading,
    /// The final dot has been seen.
    Complete,
    /// A bare CR, a bare LF or a NUL was seen. What follows cannot be trusted to be where it seems to be.
    Malformed,
}

/// An incremental reader of one message.
#[derive(Debug)]
pub struct DataReader {
    at: At,
    state: DataState,
    message: Vec<u8>,
    bytes_max: u64,
    /// Set once the message is larger than `bytes_max` or was given up; octets are then only scanned.
    discarding: bool,
}

/// The position within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After a dot and CR at the start of a line.
    DotCr,
    Text,
    /// After a CR in or after text.
    Cr,
}

impl DataReader {
    /// A reader at the start of a message: DATA's own CRLF counts, so a dot may come first.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            at: At::LineStart,
            state: DataState::Reading,
            message: Vec::new(),
            bytes_max,
            discarding: false,
        }
    }

    #[must_use]
    pub fn state(&self) -> DataState {
        self.state
    }

    /// Octets kept so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.message.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// True once the message has outgrown its limit or was given up: it is scanned for its end, not kept.
    #[must_use]
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Octets of memory held once so many more have come. Grows by half, so that a large message is copied a few times
    /// and no more than a third of its memory lies idle.
    #[must_use]
    pub fn memory_after(&self, more: usize) -> usize {
        // A CR that waited for its LF is kept with it.
        let needed = self.message.len().saturating_add(more).saturating_add(1);
        let held = self.message.capacity();
        if needed <= held { held } else { needed.max(held + held / 2).max(FIRST_BYTES) }
    }

    /// Forgets what was read and goes on without keeping anything.
    pub fn discard(&mut self) {
        self.discarding = true;
        self.message = Vec::new();
    }

    /// Takes octets from the peer and returns those that come after the message.
    pub fn receive<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        if !self.discarding {
            self.message.reserve_exact(self.memory_after(bytes.len()) - self.message.len());
        }
        while self.state == DataState::Reading {
            let Some((&first, rest)) = bytes.split_first() else { break };
            bytes = match (self.at, first) {
                (At::Text, _) => self.text(bytes),
                (At::LineStart, b'.') => self.go(At::Dot, rest),
                (At::Dot, b'\r') => self.go(At::DotCr, rest),
                (At::DotCr, b'\n') => {
                    self.state = DataState::Complete;
                    rest
                }
                (At::Cr, b'\n') => {
                    self.keep(b"\r\n");
                    self.go(At::LineStart, rest)
                }
                (At::LineStart | At::Dot, _) => self.go(At::Text, bytes),
                (At::Cr | At::DotCr, _) => self.fail(rest),
            };
        }
        bytes
    }

    /// The message, dots taken off.
    #[must_use]
    pub fn into_message(self) -> Bytes {
        Bytes::from(self.message)
    }

    /// Keeps text up to the next octet that may end a line. Whole lines are kept in one piece as long as none starts with a dot.
    fn text<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut end = 0;
        while let Some(found) = bytes.get(end..).and_then(|rest| memchr3(b'\r', b'\n', 0, rest)) {
            let stop = end + found;
            match (bytes.get(stop), bytes.get(stop + 1), bytes.get(stop + 2)) {
                (Some(b'\r'), Some(b'\n'), Some(next)) if *next != b'.' => end = stop + 2,
                (Some(b'\r'), ..) => {
                    let (text, rest) = bytes.split_at_checked(stop).unwrap_or((bytes, &[]));
                    self.keep(text);
                    return self.go(At::Cr, rest.get(1..).unwrap_or_default());
                }
                _ => return self.fail(bytes.get(stop + 1..).unwrap_or_default()),
            }
        }
        self.keep(bytes);
        &[]
    }

    fn go<'a>(&mut self, at: At, rest: &'a [u8]) -> &'a [u8] {
        self.at = at;
        rest
    }

    fn fail<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        self.state = DataState::Malformed;
        rest
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.discarding {
            return;
        }
        let size = u64::try_from(self.message.len().saturating_add(bytes.len())).unwrap_or(u64::MAX);
        if size > self.bytes_max {
            self.discard();
        } else {
            self.message.extend_from_slice(bytes);
        }
    }
}

/// Received fields in the header of a message, counted up to one more than `enough`: each hop adds one (RFC 5321 section 6.3).
#[must_use]
pub fn received_fields(message: &[u8], enough: usize) -> usize {
    let end = memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    let header = message.get(..end).unwrap_or(message);
    let first = header.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"received:"));
    let later = memmem::find_iter(header, b"\r\n")
        .filter(|at| header.get(at + 2..at + 11).is_some_and(|name| name.eq_ignore_ascii_case(b"received:")));
    usize::from(first) + later.take(enough.saturating_add(1)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `wire` cut at every place and byte by byte; the result must not depend on it.
    #[track_caller]
    fn check(wire: &str, state: DataState, message: &str, rest: &str) {
        let wire = wire.as_bytes();
        let pieces: Vec<Vec<&[u8]>> = (0..=wire.len())
            .map(|cut| {
                let (a, b) = wire.split_at(cut);
                vec![a, b]
            })
            .chain([wire.chunks(1).collect()])
            .collect();
        for pieces in pieces {
            let mut reader = DataReader::new(100);
            let mut left = Vec::new();
            for piece in pieces {
                left.extend_from_slice(reader.receive(piece));
            }
            assert_eq!(reader.state(), state);
            if state == DataState::Complete {
                assert_eq!(String::from_utf8_lossy(&left), rest);
                assert_eq!(String::from_utf8_lossy(&reader.into_message()), message);
            }
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        check("a\r\nb\r\n.\r\nQUIT\r\n", DataState::Complete, "a\r\nb\r\n", "QUIT\r\n");
        check(".\r\n", DataState::Complete, "", "");
        check("a\r\n", DataState::Reading, "", "");
        for bare in [
            "a\n.\n",
            "a\n.\r\n",
            "a\r.\r",
            "a\r.\r\n",
            "a\r\n.\n",
            "a\r\n.\rb",
            "a\n.\r",
            "a\r\r\n.\r\r\n",
            "a\r\n\0.\r\n",
            "a\r\n.\0\r\n",
            "a\r\n.\r\r\n",
            "\n",
            "\r\r",
            "\0",
        ] {
            check(&format!("{bare}MAIL FROM:<x@y.example>\r\n.\r\n"), DataState::Malformed, "", "");
        }
    }

    #[test]
    fn one_dot_is_taken_off_lines_that_start_with_one() {
        check("..\r\n...a\r\n.b\r\nc.\r\n.\r\n", DataState::Complete, ".\r\n..a\r\nb\r\nc.\r\n", "");
    }

    #[test]
    fn a_message_over_the_limit_is_read_to_its_end_and_not_kept() {
        let mut reader = DataReader::new(10);
        assert!(reader.receive(b"0123456\r\n.\r").is_empty());
        assert_eq!((reader.len(), reader.is_discarding()), (9, false));
        let mut reader = DataReader::new(10);
        reader.receive(b"0123456789ab\r\nmore\r\n");
        assert_eq!((reader.len(), reader.is_discarding(), reader.state()), (0, true, DataState::Reading));
        assert_eq!(reader.receive(b"x\r\n.\r\nNOOP"), b"NOOP");
        assert_eq!(reader.state(), DataState::Complete);
    }

    #[test]
    fn no_more_memory_is_held_than_was_said_before() {
        let wire = "..x\r\ntext\r\n".repeat(20_000);
        for piece in [1, 7, 1_000, 16_384] {
            let mut reader = DataReader::new(u64::MAX);
            for octets in wire.as_bytes().chunks(piece) {
                let said = reader.memory_after(octets.len());
                reader.receive(octets);
                assert!(reader.message.capacity() <= said);
            }
            assert!(reader.message.capacity() <= (reader.len() + piece + 1) * 3 / 2 + FIRST_BYTES);
        }
    }

    #[test]
    fn hops_are_counted_in_the_header_alone() {
        let hop = "Received: from a\r\n\tby b\r\n";
        assert_eq!(received_fields(b"Subject: x\r\n\r\nReceived: no\r\n", 50), 0);
        assert_eq!(received_fields(format!("{hop}RECEIVED: x\r\nReceived-SPF: y\r\n\r\n").as_bytes(), 50), 2);
        assert_eq!(received_fields(hop.repeat(1000).as_bytes(), 50), 52);
    }
}
