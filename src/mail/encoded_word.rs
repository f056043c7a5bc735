//! Turns header values into text: unfolding, RFC 2047 encoded words, character sets, 8-bit bytes nobody declared.
//!
//! Not here: which part of a value may hold encoded words; an address never does (`address_list`).

use mail_parser::decoders::{base64::base64_decode, charsets::map::charset_decoder};
use memchr::memmem;

/// Longest charset label looked at; the IANA registry's longest has 45 characters.
const CHARSET_LABEL_MAX: usize = 45;

/// Decodes an unstructured value or a phrase. Linear; never fails: what is no encoded word stays as it is.
#[must_use]
pub fn decode_text(value: &[u8]) -> String {
    let unfolded = unfold(value);
    if memmem::find(&unfolded, b"=?").is_none() {
        return tidy(&decode_undeclared(&unfolded));
    }
    let mut decoder = Decoder::default();
    decoder.run(&unfolded);
    tidy(&decoder.finish())
}

/// Decodes bytes of a declared charset; an unknown label falls back to what the bytes look like.
#[must_use]
pub fn decode_charset(label: &str, bytes: &[u8]) -> String {
    let label = label.trim();
    // Much mail says us-ascii and is not; valid UTF-8 is hardly ever anything else.
    if label.is_empty() || label.eq_ignore_ascii_case("us-ascii") || label.eq_ignore_ascii_case("utf-8") {
        return decode_undeclared(bytes);
    }
    let known = (label.len() <= CHARSET_LABEL_MAX).then(|| charset_decoder(label.as_bytes())).flatten();
    known.map_or_else(|| decode_undeclared(bytes), |decode| decode(bytes))
}

/// UTF-8 where the bytes are valid or were before something cut them, else windows-1252, which is what western senders
/// of raw 8-bit mean.
fn decode_undeclared(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let (mut valid, mut invalid) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    let windows_1252 = charset_decoder(b"windows-1252").filter(|_| invalid > valid);
    windows_1252.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), |decode| decode(bytes))
}

/// Removes line ends; the white space that made the fold becomes one space.
fn unfold(value: &[u8]) -> Vec<u8> {
    let mut unfolded = Vec::with_capacity(value.len());
    let mut lines = value.split(|byte| *byte == b'\n' || *byte == b'\r').filter(|line| !line.is_empty());
    unfolded.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        unfolded.truncate(unfolded.trim_ascii_end().len());
        unfolded.push(b' ');
        unfolded.extend_from_slice(line.trim_ascii_start());
    }
    unfolded
}

/// Line ends that hid in an encoded word become spaces, other control characters vanish: a decoded value may be
/// written into another header, and a NUL can hide half an address (Mailsploit, 2017).
fn tidy(text: &str) -> String {
    let spaced =
        text.chars().map(|c| if matches!(c, '\t' | '\r' | '\n' | '\u{2028}' | '\u{2029}') { ' ' } else { c });
    let clean: String = spaced.filter(|c| !c.is_control()).collect();
    clean.trim().to_owned()
}

/// Adjacent words of one charset are decoded together: senders split characters between words, against RFC 2047.
#[derive(Default)]
struct Decoder {
    text: String,
    pending_charset: String,
    pending: Vec<u8>,
}

impl Decoder {
    fn run(&mut self, value: &[u8]) {
        let mut rest = value;
        let mut after_word = false;
        while let Some(at) = memmem::find(rest, b"=?") {
            let (plain, candidate) = rest.split_at_checked(at).unwrap_or_default();
            match Word::parse(candidate) {
                Candidate::Word(word, len) => {
                    let adjacent = after_word && plain.trim_ascii().is_empty();
                    self.take_plain(if adjacent { b"" } else { plain });
                    self.take_word(&word);
                    rest = candidate.get(len..).unwrap_or_default();
                    after_word = true;
                }
                Candidate::No => {
                    let (skipped, tail) = rest.split_at_checked(at + 2).unwrap_or_default();
                    self.take_plain(skipped);
                    rest = tail;
                    after_word = false;
                }
                Candidate::NoneFollows => break,
            }
        }
        self.take_plain(rest);
    }

    fn take_plain(&mut self, plain: &[u8]) {
        if !plain.is_empty() {
            self.flush();
            self.text.push_str(&decode_undeclared(plain));
        }
    }

    fn take_word(&mut self, word: &Word<'_>) {
        // The ISO 2022 charsets begin every word anew; their decoders stumble over two escapes in a row.
        let is_stateful = word.charset.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("iso-2022"));
        if is_stateful || !self.pending_charset.eq_ignore_ascii_case(word.charset) {
            self.flush();
            self.pending_charset = word.charset.to_owned();
        }
        self.pending.extend_from_slice(&word.bytes);
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.text.push_str(&decode_charset(&self.pending_charset, &self.pending));
            self.pending.clear();
        }
        self.pending_charset.clear();
    }

    fn finish(mut self) -> String {
        self.flush();
        self.text
    }
}

struct Word<'a> {
    charset: &'a str,
    bytes: Vec<u8>,
}

enum Candidate<'a> {
    /// A word and its length in the input.
    Word(Word<'a>, usize),
    No,
    /// No `?=` follows, so that nothing further can be a word; stopping here keeps decoding linear.
    NoneFollows,
}

impl<'a> Word<'a> {
    /// Reads `=?charset*language?encoding?data?=` at the start of the input.
    fn parse(input: &'a [u8]) -> Candidate<'a> {
        Self::head(input).map_or(Candidate::No, |(charset, encoding, data_at)| {
            let data = input.get(data_at..).unwrap_or_default();
            let Some(len) = memmem::find(data, b"?=") else { return Candidate::NoneFollows };
            let data = data.get(..len).unwrap_or_default();
            let bytes = if encoding == b'q' { Some(decode_q(data)) } else { decode_b(data) };
            bytes.map_or(Candidate::No, |bytes| Candidate::Word(Word { charset, bytes }, data_at + len + 2))
        })
    }

    /// Charset, encoding in lower case, and where the data begins.
    fn head(input: &'a [u8]) -> Option<(&'a str, u8, usize)> {
        let after = input.strip_prefix(b"=?")?;
        let window = after.get(..CHARSET_LABEL_MAX + 20).unwrap_or(after);
        let label = window.split(|byte| *byte == b'?').next()?;
        let is_token = label.iter().all(|byte| byte.is_ascii_graphic());
        let [b'?', encoding, b'?'] = after.get(label.len()..label.len() + 3)? else { return None };
        let encoding = encoding.to_ascii_lowercase();
        let charset = std::str::from_utf8(label).ok()?.split('*').next()?;
        (is_token && matches!(encoding, b'q' | b'b')).then_some((charset, encoding, label.len() + 5))
    }
}

fn decode_q(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len());
    let mut rest = data;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first, tail) {
            (b'=', [high, low, after @ ..]) if let Some(decoded) = hex_pair(*high, *low) => {
                bytes.push(decoded);
                rest = after;
            }
            (b'_', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
    }
    bytes
}

pub(super) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (char::from(high).to_digit(16)?, char::from(low).to_digit(16)?);
    u8::try_from(high * 16 + low).ok()
}

fn decode_b(data: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> = data.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    base64_decode(&letters)
}

/// Resolves the `%41` of RFC 2231; a `%` that begins no pair stays.
pub(super) fn decode_percent(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (*first, tail) {
            (b'%', [high, low, after @ ..]) if let Some(decoded) = hex_pair(*high, *low) => {
                bytes.push(decoded);
                rest = after;
            }
            (other, _) => bytes.push(other),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expect: &str) {
        assert_eq!(decode_text(value.as_bytes()), expect, "{value:?}");
    }

    #[test]
    fn encoded_words_become_text() {
        check("=?utf-8?Q?a_b=5Fc?=", "a b_c");
        check("=?utf-8?q?caf=C3=A9?= au lait", "café au lait");
        check("=?UTF-8*en?B?w6k=?=", "é");
        check("=?iso-8859-1?Q?=E9t=E9?=", "été");
        check("Re: =?utf-8?Q?a?=, b", "Re: a, b");
    }

    #[test]
    fn adjacent_words_join_even_inside_a_character() {
        check("=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab");
        check("=?utf-8?B?w6k=?=\r\n =?utf-8?B?w6g=?=", "éè");
        check("=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é");
        check("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9?=", "aé");
        check("=?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?= =?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?=", "テストテスト");
    }

    #[test]
    fn what_is_no_encoded_word_stays() {
        for text in ["=?", "=?utf-8?Q?abc", "=?utf-8?X?abc?=", "a =? b ?= c", "1 =?= 2", "=?utf 8?Q?a?="] {
            check(text, text);
        }
        check("=?x-foo?Q?abc?=", "abc");
    }

    #[test]
    fn no_control_character_survives() {
        check("=?utf-8?Q?a=0D=0ABcc:_x?=", "a  Bcc: x");
        check("=?utf-8?Q?a=00b?=", "ab");
        check("a\r\n\tb", "a b");
    }

    #[test]
    fn undeclared_bytes_are_utf8_or_windows_1252() {
        assert_eq!(decode_text("café".as_bytes()), "café");
        assert_eq!(decode_text(b"\xe9t\xe9"), "été");
    }
}
