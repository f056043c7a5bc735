//! Undoes Content-Transfer-Encoding (RFC 2045 section 6): base64 and quoted-printable, however damaged.
//!
//! Not here: encoding (mail-builder does it for `compose`), and charsets.

use std::borrow::Cow;

use mail_parser::decoders::base64::base64_decode;
use memchr::memchr;

use super::encoded_word::hex_pair;

/// How a part's body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    /// 7bit, 8bit, binary, or nothing said.
    Identity,
    Base64,
    QuotedPrintable,
    /// A word no RFC knows: the bytes are kept as they are.
    Unknown,
}

impl TransferEncoding {
    /// Reads a Content-Transfer-Encoding value; comments and junk behind the word do not count.
    pub(super) fn read(value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        match value.split([' ', '\t', '\r', '\n', ';', '(']).find(|word| !word.is_empty()).unwrap_or_default()
        {
            "" | "7bit" | "8bit" | "binary" | "7-bit" | "8-bit" => Self::Identity,
            "base64" => Self::Base64,
            "quoted-printable" => Self::QuotedPrintable,
            _ => Self::Unknown,
        }
    }

    pub(super) fn decode(self, body: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Identity | Self::Unknown => Cow::Borrowed(body),
            Self::Base64 => Cow::Owned(decode_base64(body)),
            Self::QuotedPrintable => Cow::Owned(decode_quoted_printable(body)),
        }
    }
}

/// RFC 2045 section 6.8 says to ignore what is not of the alphabet.
fn decode_base64(body: &[u8]) -> Vec<u8> {
    base64_decode(body).unwrap_or_else(|| {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let letters: Vec<u8> = body.iter().copied().filter(is_letter).collect();
        base64_decode(&letters).unwrap_or_default()
    })
}

/// Blanks at line ends are transport padding; what is no escape stays as it is.
fn decode_quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let len = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, tail) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        rest = tail;
        let end = line.get(super::header::trim_line_end(line).len()..).unwrap_or_default();
        let content = line.trim_ascii_end();
        match content.strip_suffix(b"=") {
            Some(soft) => decode_escapes(soft, &mut decoded),
            None => {
                decode_escapes(content, &mut decoded);
                decoded.extend_from_slice(end);
            }
        }
    }
    decoded
}

fn decode_escapes(mut line: &[u8], decoded: &mut Vec<u8>) {
    while let Some(at) = memchr(b'=', line) {
        let (plain, escape) = line.split_at_checked(at).unwrap_or_default();
        decoded.extend_from_slice(plain);
        line = match escape {
            [_, high, low, after @ ..] if let Some(byte) = hex_pair(*high, *low) => {
                decoded.push(byte);
                after
            }
            _ => {
                decoded.push(b'=');
                escape.get(1..).unwrap_or_default()
            }
        };
    }
    decoded.extend_from_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(encoding: &str, body: &str, expect: &str) {
        let decoded = TransferEncoding::read(encoding.as_bytes()).decode(body.as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&decoded), expect, "{encoding} {body:?}");
    }

    #[test]
    fn bodies_are_decoded() {
        check("quoted-printable", "caf=C3=A9 =\r\nau lait  \r\nend", "café au lait\r\nend");
        check("Base64 (x)", "SGVs\r\nbG8=", "Hello");
        check("8bit", "a=20", "a=20");
    }

    #[test]
    fn damage_costs_no_more_than_itself() {
        check("quoted-printable", "a=ZZ=\n b=", "a=ZZ b");
        check("base64", "SG!k=IGEg", "Hi a ");
        check("base64", "SGk=\r\nSGk=\r\n", "HiHi");
        check("base64", "SGk", "Hi");
        check("foo", "abc", "abc");
    }
}
