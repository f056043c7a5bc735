//! The two forms in which header and body are hashed (RFC 6376 section 3.4).
//!
//! Not here: which fields a signature covers.

use sha2::{Digest as _, Sha256};

use super::raw_field::{RawField, line_of, without_line_end};

/// How much may change on the way without breaking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Simple,
    Relaxed,
}

impl Form {
    /// Header and body of a `c=` value; where there is none both are `unsaid`.
    #[must_use]
    pub fn pair(value: Option<&str>, unsaid: Self) -> Option<(Self, Self)> {
        let (header, body) = match value {
            None => return Some((unsaid, unsaid)),
            Some(value) => value.split_once('/').unwrap_or((value, "simple")),
        };
        Some((Self::of(header)?, Self::of(body)?))
    }

    fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "simple" => Some(Self::Simple),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }
}

/// The hash of a body and how many octets went into it.
#[must_use]
pub fn body_hash(body: &[u8], form: Form) -> ([u8; 32], u64) {
    let (mut hash, mut length, mut empty_lines) = (Sha256::new(), 0_u64, 0_u64);
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        length += bytes.len() as u64;
    };
    let (mut rest, mut kept) = (body, Vec::new());
    while !rest.is_empty() {
        let line = line_of(rest);
        rest = rest.get(line.len()..).unwrap_or_default();
        kept.clear();
        match form {
            Form::Simple => kept.extend_from_slice(without_line_end(line)),
            Form::Relaxed => relax(without_line_end(line), &mut kept),
        }
        // Empty lines count only if something follows.
        if kept.is_empty() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            put(b"\r\n");
        }
        put(&kept);
        put(b"\r\n");
    }
    if length == 0 && form == Form::Simple {
        hash.update(b"\r\n");
        length = 2;
    }
    (hash.finalize().into(), length)
}

/// A line with each run of white space as one space and none at its end.
fn relax(line: &[u8], into: &mut Vec<u8>) {
    let mut is_gap = false;
    for octet in line {
        if matches!(octet, b' ' | b'\t') {
            is_gap = true;
            continue;
        }
        if std::mem::take(&mut is_gap) {
            into.push(b' ');
        }
        into.push(*octet);
    }
}

/// Writes a field as it is hashed, with its line end.
pub fn write_field(field: &RawField<'_>, form: Form, into: &mut Vec<u8>) {
    write_bare(field, form, into);
    into.extend_from_slice(b"\r\n");
}

/// The field that holds the signature itself: last, its own `b=` empty, without a line end.
pub fn write_signature(field: &RawField<'_>, form: Form, into: &mut Vec<u8>) {
    let whole = without_signature(field);
    let name = field.name;
    let value = whole.get(name.len() + 1..);
    write_bare(&RawField { name, value, whole: &whole }, form, into);
}

fn write_bare(field: &RawField<'_>, form: Form, into: &mut Vec<u8>) {
    match form {
        Form::Simple => {
            let mut lines = field.whole.split(|octet| *octet == b'\n').peekable();
            while let Some(line) = lines.next() {
                into.extend_from_slice(without_line_end(line));
                if lines.peek().is_some() {
                    into.extend_from_slice(b"\r\n");
                }
            }
        }
        Form::Relaxed => {
            into.extend(field.name.trim_ascii_end().to_ascii_lowercase());
            into.push(b':');
            let unfolded: Vec<u8> = field
                .value
                .unwrap_or_default()
                .iter()
                .copied()
                .filter(|b| !matches!(b, b'\r' | b'\n'))
                .collect();
            let start = into.len();
            relax(&unfolded, into);
            if into.get(start) == Some(&b' ') {
                into.remove(start);
            }
        }
    }
}

/// The field with nothing behind `b=`.
fn without_signature(field: &RawField<'_>) -> Vec<u8> {
    let mut whole = field.name.to_vec();
    whole.push(b':');
    for (at, item) in field.value.unwrap_or_default().split(|octet| *octet == b';').enumerate() {
        if at > 0 {
            whole.push(b';');
        }
        let equals = item.iter().position(|octet| *octet == b'=');
        match equals.and_then(|at| item.get(..=at)) {
            Some(head) if head.strip_suffix(b"=").is_some_and(|name| name.trim_ascii() == b"b") => {
                whole.extend_from_slice(head);
            }
            _ => whole.extend_from_slice(item),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::{super::raw_field::split, *};

    fn sha(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }

    #[test]
    fn bodies_are_hashed_as_the_rfc_says() {
        let relaxed = |body: &str| body_hash(body.as_bytes(), Form::Relaxed);
        let simple = |body: &str| body_hash(body.as_bytes(), Form::Simple);
        assert_eq!(relaxed(" C \r\nD \t E\r\n\r\n\r\n"), (sha(" C\r\nD E\r\n"), 9));
        assert_eq!(relaxed("C\r\n  \r\n\t\r\n"), (sha("C\r\n"), 3), "lines of white space are empty");
        assert_eq!(relaxed(""), (sha(""), 0));
        assert_eq!(simple(" C \r\nD \t E\r\n\r\n\r\n"), (sha(" C \r\nD \t E\r\n"), 12));
        assert_eq!(simple(""), (sha("\r\n"), 2));
        assert_eq!(simple("\r\n\r\n"), (sha("\r\n"), 2));
        assert_eq!(simple("a\r\n\r\nb"), (sha("a\r\n\r\nb\r\n"), 8));
        assert_eq!(simple("a\nb\n"), (sha("a\r\nb\r\n"), 6), "a file with other line ends");
    }

    #[test]
    fn fields_are_hashed_as_the_rfc_says() {
        let (fields, _) = split(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n");
        let written = |form| {
            let mut out = Vec::new();
            fields.iter().for_each(|field| write_field(field, form, &mut out));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Form::Relaxed), "a:X\r\nb:Y Z\r\n");
        assert_eq!(written(Form::Simple), "A: X\r\nB : Y\t\r\n\tZ  \r\n");
        let (fields, _) = split(b"S: a=1; bh=b=c; b = x\r\n y ; d=e\r\n\r\n");
        let mut out = Vec::new();
        write_signature(&fields[0], Form::Relaxed, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "s:a=1; bh=b=c; b =; d=e");
    }
}
