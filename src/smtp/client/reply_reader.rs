//! Reads a server's replies (RFC 5321 section 4.2.1) from octets as they come, whatever the server sends.
//!
//! Not here: what a reply means at which point (`super`).

use memchr::memchr;

use crate::smtp::{Enhanced, Reply};

/// Lines of one reply. EHLO, the longest honest reply, has about twenty.
const REPLY_LINES_MAX: usize = 100;
/// Octets of one reply, line ends included.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Characters kept of one line: replies end in logs and on pages.
const LINE_CHARS_MAX: usize = 500;

/// A server that does not speak SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    #[error("a reply line without a code")]
    Shape,
    #[error("the lines of one reply carry different codes")]
    Codes,
    #[error("a reply longer than any honest one")]
    TooLong,
}

/// Octets received and not yet read as replies.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    input: Vec<u8>,
}

impl ReplyReader {
    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    /// True when nothing lies between the last reply and the next octet of the wire.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The next whole reply, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, ReplyError> {
        let mut lines = Vec::new();
        let mut first: Option<(u16, Option<Enhanced>)> = None;
        let mut at = 0;
        while let Some(rest) = self.input.get(at..)
            && let Some(end) = memchr(b'\n', rest)
        {
            at = at.saturating_add(end).saturating_add(1);
            let (code, is_last, text) =
                split_line(rest.get(..end).unwrap_or_default()).ok_or(ReplyError::Shape)?;
            let (enhanced, text) = split_enhanced(code, &text);
            lines.push(text.chars().take(LINE_CHARS_MAX).collect::<String>());
            if *first.get_or_insert((code, enhanced)) != (code, enhanced)
                && first.is_some_and(|(known, _)| known != code)
            {
                return Err(ReplyError::Codes);
            }
            if lines.len() > REPLY_LINES_MAX || at > REPLY_BYTES_MAX {
                return Err(ReplyError::TooLong);
            }
            if is_last {
                self.input.drain(..at);
                return Ok(first.map(|(code, enhanced)| Reply::read(code, enhanced, &lines)));
            }
        }
        if self.input.len() > REPLY_BYTES_MAX { Err(ReplyError::TooLong) } else { Ok(None) }
    }
}

/// `250-text`, `250 text` or a bare `250`; some servers end lines with LF alone.
fn split_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    let (code, rest) = line.split_at_checked(3)?;
    let code = code
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| code.parse::<u16>().ok())?
        .filter(|code| (200..600).contains(code))?;
    match rest.strip_prefix('-') {
        Some(text) => Some((code, false, text.to_owned())),
        None if rest.is_empty() => Some((code, true, String::new())),
        None => Some((code, true, rest.strip_prefix(' ')?.to_owned())),
    }
}

/// Takes an enhanced code off the text when its class agrees with the reply's.
fn split_enhanced(code: u16, text: &str) -> (Option<Enhanced>, &str) {
    let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = head.split('.').map(|number| {
        let short = number.len() <= 3 && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        short.then(|| number.parse::<u16>().ok()).flatten()
    });
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
        (Some(class), Some(subject), Some(detail), None) if class == code / 100 => {
            (Some(Enhanced(class, subject, detail)), rest)
        }
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wire: &str, expect: Result<Option<&str>, ReplyError>) {
        let mut whole = ReplyReader::default();
        whole.receive(wire.as_bytes());
        let got = whole.next().map(|reply| reply.map(|reply| reply.to_string()));
        assert_eq!(got, expect.map(|text| text.map(str::to_owned)), "{wire:?}");
    }

    #[test]
    fn replies_of_all_shapes_are_read() {
        check("250 2.1.0 Ok\r\n", Ok(Some("250 2.1.0 Ok")));
        check("250-a\r\n250-b\r\n250 c\r\n", Ok(Some("250 a b c")));
        check("550-5.1.1 no\r\n550 5.1.1 such\r\n", Ok(Some("550 5.1.1 no such")));
        check("250\r\n", Ok(Some("250 ")));
        check("250 ok\n", Ok(Some("250 ok")));
        check("550 4.1.1 odd class\r\n", Ok(Some("550 4.1.1 odd class")));
        check("250 o\x1b[31mk\x07\r\n", Ok(Some("250 o [31mk ")));
        check("250-a\r\n", Ok(None));
        check("25", Ok(None));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for wire in
            ["HTTP/1.1 400\r\n", "* OK IMAP\r\n", "999 no\r\n", "25\r\n", "250_ok\r\n", "+OK\r\n", "\r\n"]
        {
            check(wire, Err(ReplyError::Shape));
        }
        check("250-a\r\n550 b\r\n", Err(ReplyError::Codes));
        check(&"250-x\r\n".repeat(101), Err(ReplyError::TooLong));
        check(&"x".repeat(70_000), Err(ReplyError::TooLong));
        check(&format!("250 {}\r\n", "x".repeat(70_000)), Err(ReplyError::TooLong));
    }

    #[test]
    fn pipelined_replies_come_one_by_one_however_they_are_cut() {
        let mut reader = ReplyReader::default();
        let mut got = Vec::new();
        for octet in b"250 a\r\n250-b\r\n250 c\r\n354 go\r\n" {
            reader.receive(&[*octet]);
            got.extend(reader.next().unwrap().map(|reply| reply.to_string()));
        }
        assert_eq!(got, ["250 a", "250 b c", "354 go"]);
        assert!(reader.is_empty());
    }
}
