//! The fields of a header exactly as they stand, which is what signatures cover and what forgers play with.
//!
//! Not here: what a value means, and the tolerant reading of `mail::header`, which repairs what must not be repaired here.

use memchr::memchr;

use crate::mail::header::HEADER_BYTES_MAX;

/// Fields that are looked at; a signature over a message with more covers something we do not see, and fails. So does one over a
/// header longer than any part of us reads.
const FIELDS_MAX: usize = 2000;

/// A line of the header block with its continuations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawField<'a> {
    /// All before the colon, folds and spaces included; the whole of it where there is no colon.
    pub name: &'a [u8],
    /// All behind the colon up to the last line end; `None` where there is no colon.
    pub value: Option<&'a [u8]>,
    /// Name, colon and value.
    pub whole: &'a [u8],
}

impl<'a> RawField<'a> {
    /// Whether it is this field to a program that keeps to RFC 5322, where white space may stand before the colon.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.value.is_some() && self.name.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
    }

    fn new(whole: &'a [u8]) -> Self {
        match memchr(b':', whole) {
            Some(colon) => {
                let (name, value) = (whole.get(..colon), whole.get(colon + 1..));
                Self { name: name.unwrap_or_default(), value, whole }
            }
            None => Self { name: whole, value: None, whole },
        }
    }
}

/// The fields of a message, and what follows the empty line.
#[must_use]
pub fn split(raw: &[u8]) -> (Vec<RawField<'_>>, &[u8]) {
    let mut fields: Vec<RawField<'_>> = Vec::new();
    let (mut at, mut start) = (0, 0);
    loop {
        let rest = raw.get(at..).unwrap_or_default();
        if at > HEADER_BYTES_MAX {
            return (fields, rest);
        }
        let line = line_of(rest);
        let folds = at > start && matches!(rest.first(), Some(b' ' | b'\t'));
        if !folds && at > start {
            fields.push(RawField::new(without_line_end(raw.get(start..at).unwrap_or_default())));
            start = at;
        }
        if rest.is_empty() || without_line_end(line).is_empty() || fields.len() == FIELDS_MAX {
            return (fields, rest.get(line.len()..).unwrap_or_default());
        }
        at += line.len();
    }
}

/// The first line with its line end.
#[must_use]
pub fn line_of(bytes: &[u8]) -> &[u8] {
    let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    bytes.get(..end).unwrap_or(bytes)
}

#[must_use]
pub fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_divides_into_fields_and_body() {
        let (fields, body) = split(b"A: 1\r\n 2\r\nB : x\r\nodd\r\n\r\nbody\r\n");
        let wholes: Vec<&[u8]> = fields.iter().map(|field| field.whole).collect();
        assert_eq!(wholes, [&b"A: 1\r\n 2"[..], b"B : x", b"odd"]);
        assert!(fields[1].is("b") && fields[2].value.is_none());
        assert_eq!(body, b"body\r\n");
        assert_eq!(split(b"A: 1"), (vec![RawField::new(b"A: 1")], &b""[..]));
        assert_eq!(split(b"\r\nbody"), (Vec::new(), &b"body"[..]));
        assert_eq!(split(b""), (Vec::new(), &b""[..]));
    }

    #[test]
    fn a_header_without_end_is_not_read_to_its_end() {
        let long = format!("A: 1\r\nB: {}\r\nC: 3\r\n\r\nbody", "b\r\n ".repeat(HEADER_BYTES_MAX / 2));
        let (fields, body) = split(long.as_bytes());
        assert_eq!(fields.len(), 1);
        assert!(body.len() > HEADER_BYTES_MAX, "the rest is not taken for fields");
    }
}
