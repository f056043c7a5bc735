//! A cursor over one response that reads words, numbers, strings and lists as servers really write them.
//!
//! Not here: which words come when (`response`, `fetch`). Strings come out as slices of the response, not as copies.

use bytes::Bytes;
use memchr::memchr;

/// Deepest list that is skipped: real BODYSTRUCTUREs of forwarded forwards reach 40.
const DEPTH_MAX: usize = 200;

/// A place in a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(frame: &'a Bytes) -> Self {
        Self { frame, rest: frame }
    }

    /// What is left, without the line end.
    pub(super) fn text(&self) -> &'a [u8] {
        self.rest.trim_ascii()
    }

    /// A piece of the response that shares its memory.
    pub(super) fn share(&self, piece: &'a [u8]) -> Bytes {
        self.frame.slice_ref(piece)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.trim_ascii().is_empty()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Everything up to the first byte that `ends` the piece, which may be empty.
    pub(super) fn take_until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| ends(*byte)).unwrap_or(self.rest.len());
        self.take(length)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (piece, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        piece
    }

    /// A word: up to white space or a parenthesis. 8-bit, quotes and `]` are let in, since flags in the wild have them.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.skip_spaces();
        self.take_until(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')'))
    }

    /// A FETCH item's name with its section: `BODY[HEADER.FIELDS (From)]<0>`.
    pub(super) fn item_name(&mut self) -> &'a [u8] {
        self.skip_spaces();
        let mut brackets = 0_usize;
        let length = self.rest.iter().position(|byte| {
            match byte {
                b'[' => brackets += 1,
                b']' => brackets = brackets.saturating_sub(1),
                b'\r' | b'\n' => return true,
                b' ' | b'(' | b')' | b'"' | b'{' | b'~' => return brackets == 0,
                _ => {}
            }
            false
        });
        self.take(length.unwrap_or(self.rest.len()))
    }

    /// A number of up to 64 bits.
    pub(super) fn number(&mut self) -> Option<u64> {
        self.skip_spaces();
        let digits = self.take_until(|byte| !byte.is_ascii_digit());
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// An nstring or astring. `Some(None)` is NIL, `None` is no string at all.
    pub(super) fn string(&mut self) -> Option<Option<Bytes>> {
        self.skip_spaces();
        match self.peek()? {
            b'"' => self.quoted().map(Some),
            b'{' | b'~' => self.literal().map(|piece| Some(self.share(piece))),
            b'(' | b')' => None,
            _ => {
                let word = self.word();
                Some((!word.eq_ignore_ascii_case(b"NIL")).then(|| self.share(word)))
            }
        }
    }

    fn quoted(&mut self) -> Option<Bytes> {
        let (_, inner) = self.rest.split_first()?;
        let mut escaped = false;
        let mut escapes = false;
        let length = inner.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            escapes |= escaped;
            ends
        })?;
        let (piece, rest) = inner.split_at_checked(length)?;
        self.rest = rest.get(1..)?;
        Some(if escapes { unescape(piece).into() } else { self.share(piece) })
    }

    /// The framer has made sure that the literal is all there.
    fn literal(&mut self) -> Option<&'a [u8]> {
        let from = self.rest.strip_prefix(b"~").unwrap_or(self.rest).strip_prefix(b"{")?;
        let (digits, _) = from.split_at_checked(memchr(b'}', from)?)?;
        let digits = digits.strip_suffix(b"+").unwrap_or(digits);
        let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let (_, content) = from.split_at_checked(memchr(b'\n', from)? + 1)?;
        let (piece, rest) = content.split_at_checked(length)?;
        self.rest = rest;
        Some(piece)
    }

    /// Steps over one value of any form, whole lists included.
    pub(super) fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.skip_spaces();
            match self.peek()? {
                b'(' => {
                    self.eat(b'(');
                    depth += 1;
                }
                b')' => {
                    depth = depth.checked_sub(1)?;
                    self.eat(b')');
                }
                _ => {
                    self.string()?;
                }
            }
            if depth == 0 {
                return Some(());
            }
            if depth > DEPTH_MAX {
                return None;
            }
        }
    }

    /// A parenthesised list, each member read by `member`; spaces before the closing parenthesis are let pass.
    pub(super) fn list(&mut self, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip_spaces();
        if !self.eat(b'(') {
            return None;
        }
        loop {
            self.skip_spaces();
            if self.eat(b')') {
                return Some(());
            }
            let before = self.rest.len();
            member(self)?;
            if self.rest.len() == before {
                return None;
            }
        }
    }
}

fn unescape(piece: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(piece.len());
    let mut bytes = piece.iter();
    while let Some(byte) = bytes.next() {
        text.push(if *byte == b'\\' { *bytes.next().unwrap_or(&b'\\') } else { *byte });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &'static str, expect: &[Option<&str>]) {
        let frame = Bytes::from_static(text.as_bytes());
        let mut cursor = Cursor::new(&frame);
        let mut got = Vec::new();
        while !cursor.is_at_end() {
            match cursor.string() {
                Some(string) => got.push(string.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
                None => break,
            }
        }
        assert_eq!(got, expect.iter().map(|s| s.map(str::to_owned)).collect::<Vec<_>>(), "{text}");
    }

    #[test]
    fn strings_come_in_four_forms() {
        check(
            "a \"b c\" {3}\r\nd\r\n ~{1}\r\ne NIL\r\n",
            &[Some("a"), Some("b c"), Some("d\r\n"), Some("e"), None],
        );
        check(r#""a\"b\\" "Entwürfe""#, &[Some("a\"b\\"), Some("Entwürfe")]);
        check("\"open", &[]);
        check("{9}\r\nshort", &[]);
    }

    #[track_caller]
    fn check_skip(text: &'static str, left: Option<&str>) {
        let frame = Bytes::from_static(text.as_bytes());
        let mut cursor = Cursor::new(&frame);
        let skipped = cursor.skip_value().map(|()| std::str::from_utf8(cursor.text()).unwrap());
        assert_eq!(skipped, left, "{text}");
    }

    #[test]
    fn any_value_can_be_stepped_over() {
        check_skip("(a (\"b)\" NIL) {2}\r\n))) rest", Some("rest"));
        // 163.com does not escape the quotes of a description.
        check_skip("(\"application\" NIL \"\"\"\" \"base64\" 65322) x", Some("x"));
        check_skip("(a", None);
        check_skip(")", None);
    }

    #[test]
    fn depth_is_bounded() {
        let frame = Bytes::from("(".repeat(100_000));
        assert_eq!(Cursor::new(&frame).skip_value(), None);
    }
}
