//! Cuts the byte stream of a server into responses: a line, and the literals it announces with the lines that follow them.
//!
//! Not here: what a response means. A response that cannot be read is still cut off whole, so that the content of a
//! literal is never taken for protocol. Every length is checked before anything is read for it.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memrchr};

use super::{error::Fault, limits::Limits};

/// What one read asks the kernel for while a command runs.
const READ_BYTES: usize = 32 * 1024;
/// The same while nothing is expected, as in IDLE: what an idle connection holds.
const IDLE_READ_BYTES: usize = 512;
/// Literals in one response: a message's labels, or a mailbox's name; never more in what we ask for.
const LITERALS_MAX: u32 = 1_000;
/// `{4294967295+}` CR LF and then some.
const ANNOUNCEMENT_BYTES_MAX: usize = 32;

/// What the command in flight lets a response be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Octets of a response without its literals.
    pub(super) line: usize,
    /// Octets of message data (a header, a body or a chunk of it) in a response.
    pub(super) data: usize,
    /// Octets of any other literal.
    pub(super) literal: usize,
}

impl Allowance {
    /// For a command that asks for no message data.
    pub(super) fn plain(limits: &Limits) -> Self {
        Self {
            line: limits.line_bytes_max,
            data: limits.literal_bytes_max,
            literal: limits.literal_bytes_max,
        }
    }

    pub(super) fn data(self, bytes: usize) -> Self {
        Self { data: bytes, ..self }
    }
}

/// The framer: bytes go in through `read_buffer`, whole responses come out of `next`.
#[derive(Debug)]
pub(super) struct Framer {
    /// The response under way, and what came after it.
    buffer: BytesMut,
    /// How much of it is settled: lines seen, literals announced. Beyond the buffer's end while a literal arrives.
    settled: usize,
    /// How far the line after that was searched for its end.
    searched: usize,
    line_bytes: usize,
    literals: u32,
    allowance: Allowance,
    idle: bool,
}

impl Framer {
    pub(super) fn new(allowance: Allowance) -> Self {
        let buffer = BytesMut::new();
        Self { buffer, settled: 0, searched: 0, line_bytes: 0, literals: 0, allowance, idle: false }
    }

    /// Holds for every response from now on.
    pub(super) fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
        self.idle = false;
    }

    /// Gives back the memory that the last command needed; from now on little is expected.
    pub(super) fn shrink(&mut self) {
        self.idle = true;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether bytes wait that belong to no response cut off so far.
    pub(super) fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Where to read to. Room grows with what has really come, never at once to what a server announces.
    pub(super) fn read_buffer(&mut self) -> &mut BytesMut {
        let awaited = self.settled.saturating_sub(self.buffer.len());
        let step = if self.idle { IDLE_READ_BYTES } else { READ_BYTES };
        let room = awaited.clamp(step, self.buffer.len().max(step));
        if self.buffer.capacity() - self.buffer.len() < room.min(step / 4) {
            self.buffer.reserve(room);
        }
        &mut self.buffer
    }

    #[cfg(test)]
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole response with its line end, or `None` until more has come.
    ///
    /// # Errors
    /// A limit of the allowance is passed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        self.skip_padding()?;
        loop {
            let Some(rest) = self.buffer.get(self.settled..) else { return Ok(None) };
            let Some(line_end) = rest.get(self.searched..).and_then(|unseen| memchr(b'\n', unseen)) else {
                self.searched = rest.len();
                return if self.line_bytes + rest.len() > self.allowance.line {
                    Err(Fault::LineTooLong)
                } else {
                    Ok(None)
                };
            };
            let line_end = self.searched + line_end + 1;
            self.line_bytes += line_end;
            if self.line_bytes > self.allowance.line {
                return Err(Fault::LineTooLong);
            }
            let Some(literal) = self.announced(line_end)? else {
                return Ok(Some(self.cut(line_end)));
            };
            self.settled += line_end + literal;
            self.searched = 0;
        }
    }

    /// Some servers pad their lines with NUL.
    fn skip_padding(&mut self) -> Result<(), Fault> {
        if self.settled > 0 || self.searched > 0 {
            return Ok(());
        }
        let padding = self.buffer.iter().take_while(|byte| **byte == 0).count();
        self.buffer.advance(padding);
        self.line_bytes += padding;
        if self.line_bytes > self.allowance.line { Err(Fault::LineTooLong) } else { Ok(()) }
    }

    fn cut(&mut self, line_end: usize) -> Bytes {
        let frame = self.buffer.split_to(self.settled + line_end).freeze();
        (self.settled, self.searched, self.line_bytes, self.literals) = (0, 0, 0, 0);
        frame
    }

    /// The size of the literal that the line just found announces at its end.
    fn announced(&mut self, line_end: usize) -> Result<Option<usize>, Fault> {
        // The text of a status response may end in "{5}" and announces nothing by it.
        if !carries_literals(&self.buffer) {
            return Ok(None);
        }
        let line = self.buffer.get(self.settled..self.settled + line_end).unwrap_or_default();
        let Some((before, size)) = split_announcement(line) else { return Ok(None) };
        let limit = if announces_data(before) { self.allowance.data } else { self.allowance.literal };
        self.literals += 1;
        let whole = self.allowance.line + self.allowance.data + self.allowance.literal;
        if size > limit || self.literals > LITERALS_MAX || self.settled.saturating_add(size) > whole {
            return Err(Fault::LiteralTooLarge);
        }
        Ok(Some(size))
    }
}

/// Only untagged data has literals; the text of `OK`, `NO`, `BAD`, `BYE`, `PREAUTH`, of tagged lines and `+` has none.
fn carries_literals(frame: &[u8]) -> bool {
    let Some(rest) = frame.strip_prefix(b"*") else { return false };
    let rest = rest.trim_ascii_start();
    let word = rest.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    !["OK", "NO", "BAD", "BYE", "PREAUTH"].iter().any(|status| word.eq_ignore_ascii_case(status.as_bytes()))
}

/// Divides a line that ends in `{n}` or `{n+}` from n, which is saturated when it is absurd.
fn split_announcement(line: &[u8]) -> Option<(&[u8], usize)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"}")?;
    let open = memrchr(b'{', line)?;
    let (before, digits) = (line.get(..open)?, line.get(open + 1..)?);
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let size = std::str::from_utf8(digits).ok()?.parse().unwrap_or(usize::MAX);
    let absurd = digits.len() > ANNOUNCEMENT_BYTES_MAX;
    is_number.then_some((before, if absurd { usize::MAX } else { size }))
}

/// `BODY[…] {n}`, `BODY[…]<0> {n}`, `BINARY[…] ~{n}` and the old `RFC822` items announce message data.
fn announces_data(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"~").unwrap_or(before).trim_ascii_end();
    let item =
        before.rsplit(|byte| matches!(byte, b' ' | b'(')).next().unwrap_or_default().to_ascii_uppercase();
    before.ends_with(b"]") || before.ends_with(b">") || item.starts_with(b"RFC822")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Allowance = Allowance { line: 200, data: 1_000, literal: 50 };

    /// All responses of `bytes`, fed in pieces of `step`.
    fn frames(bytes: &[u8], step: usize) -> Result<Vec<Bytes>, Fault> {
        let mut framer = Framer::new(SMALL);
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            framer.feed(piece);
            while let Some(frame) = framer.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[track_caller]
    fn check(bytes: &str, expect: Result<&[&str], Fault>) {
        for step in [1, 2, 7, bytes.len()] {
            let got = frames(bytes.as_bytes(), step);
            let got = got.map(|frames| {
                frames.iter().map(|f| String::from_utf8(f.to_vec()).unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(
                got,
                expect.map(|frames| frames.iter().map(ToString::to_string).collect()),
                "{bytes:?} by {step}"
            );
        }
    }

    #[test]
    fn a_response_is_a_line_with_its_literals() {
        check("* OK hi\r\na1 OK\r\n", Ok(&["* OK hi\r\n", "a1 OK\r\n"]));
        check("* OK hi\na1 OK\n", Ok(&["* OK hi\n", "a1 OK\n"]));
        check(
            "* LIST () \"/\" {3}\r\na\r\n\r\n+ go\r\n",
            Ok(&["* LIST () \"/\" {3}\r\na\r\n\r\n", "+ go\r\n"]),
        );
        check(
            "* 1 FETCH (BODY[] {0}\r\n UID {1}\r\n5)\r\n",
            Ok(&["* 1 FETCH (BODY[] {0}\r\n UID {1}\r\n5)\r\n"]),
        );
        check("\0\0* OK\r\n\0* OK\r\n", Ok(&["* OK\r\n", "* OK\r\n"]));
        check("* 1 FETCH (BODY[", Ok(&[]));
    }

    #[test]
    fn braces_in_free_text_announce_nothing() {
        check(
            "* OK foo {5}\r\n* NO {9}\r\na1 OK {7}\r\n+ {3}\r\n",
            Ok(&["* OK foo {5}\r\n", "* NO {9}\r\n", "a1 OK {7}\r\n", "+ {3}\r\n"]),
        );
        check(
            "* LIST () \"/\" a{}\r\n* LIST () \"/\" {x}\r\n",
            Ok(&["* LIST () \"/\" a{}\r\n", "* LIST () \"/\" {x}\r\n"]),
        );
    }

    #[test]
    fn a_length_is_refused_before_it_is_read() {
        let too_large = Err(Fault::LiteralTooLarge);
        check("* LIST () \"/\" {51}\r\n", too_large);
        check("* 1 FETCH (BODY[] {1001}\r\n", too_large);
        check("* 1 FETCH (BODY[] {4294967295}\r\n", too_large);
        check("* 1 FETCH (BODY[] {99999999999999999999999999}\r\n", too_large);
        check("* 1 FETCH (BINARY[1] ~{1001}\r\n", too_large);
        check("* 1 FETCH (X-GM-LABELS ({51}\r\n", too_large);
        check(&"* 1 FETCH (BODY[] {900}\r\n".replace(")", "").replace("900", "1000"), Ok(&[]));
        check(&format!("* OK {}", "a".repeat(300)), Err(Fault::LineTooLong));
        check(&format!("* OK {}\r\n", "a".repeat(300)), Err(Fault::LineTooLong));
        check(&"\0".repeat(300), Err(Fault::LineTooLong));
        check(&format!("* X {}", "{1}\r\na".repeat(60)), Err(Fault::LineTooLong));
    }

    #[test]
    fn an_announced_literal_takes_no_memory_before_it_comes() {
        let mut framer = Framer::new(Allowance { data: 1 << 30, ..SMALL });
        framer.feed(b"* 1 FETCH (BODY[] {1000000000}\r\nabc");
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.read_buffer().capacity() <= 2 * READ_BYTES);
    }

    #[test]
    fn an_idle_framer_holds_next_to_nothing() {
        let mut framer = Framer::new(SMALL);
        framer.read_buffer();
        framer.shrink();
        assert!(framer.read_buffer().capacity() <= 1024);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(bytes in "(\\* (OK|LIST|1 FETCH \\(BODY\\[\\]) |a1 |\\{[0-9]{1,2}\\}\\r\\n|[a-z ]{0,5}|\\r\\n|\\n|\\x00){0,40}", step in 1_usize..20) {
            prop_assert_eq!(frames(bytes.as_bytes(), step), frames(bytes.as_bytes(), bytes.len().max(1)));
        }

        #[test]
        fn any_bytes_leave_memory_bounded(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
            let mut framer = Framer::new(SMALL);
            for piece in bytes.chunks(64) {
                framer.feed(piece);
                loop {
                    match framer.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(framer.buffer.len() <= SMALL.line + SMALL.data + SMALL.literal + 64);
            }
        }
    }
}
