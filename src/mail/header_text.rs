//! Names and values of header fields that cannot break out of their field, and how they are written.
//!
//! Not here: reading fields (`header`).

use std::fmt;

use mail_builder::headers::{Header, address, text::Text};

use super::Party;

/// Longest name written; RFC 5322 sets no limit, but a line holds 78.
const NAME_BYTES_MAX: usize = 76;
/// Longest value written.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Where lines are folded (RFC 5322 section 2.1.1).
const LINE_BYTES: usize = 78;

/// Why a text is no header name or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTextError {
    #[error("a header name is 1 to 76 printable ASCII characters without a colon")]
    Name,
    #[error("a header value must not hold line breaks or other control characters")]
    Control,
    #[error("a header value is longer than 16384 octets")]
    TooLong,
}

/// A field's name: printable ASCII without a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(Box<str>);

impl HeaderName {
    /// # Errors
    /// When the name could not stand before a colon.
    pub fn parse(name: &str) -> Result<Self, HeaderTextError> {
        let is_fit = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        is_fit.then(|| Self(name.into())).ok_or(HeaderTextError::Name)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A field's value: no CR, LF, NUL or other control character, so that no other field can hide in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText(Box<str>);

impl HeaderText {
    /// # Errors
    /// When the value holds control characters or is too long.
    pub fn parse(text: &str) -> Result<Self, HeaderTextError> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(HeaderTextError::TooLong);
        }
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if text.contains(breaks) { Err(HeaderTextError::Control) } else { Ok(Self(text.trim().into())) }
    }

    /// Makes a value of what others wrote: control characters become spaces, the rest is cut.
    #[must_use]
    pub fn clean(text: &str) -> Self {
        let spaced = text
            .chars()
            .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c });
        let text: String = spaced.collect();
        let end = text.floor_char_boundary(VALUE_BYTES_MAX);
        Self(text.get(..end).unwrap_or_default().trim().into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a whole field with CRLF: folded at spaces, and RFC 2047 encoded where it is not ASCII.
pub(super) fn write_field(name: &HeaderName, value: &HeaderText) -> Vec<u8> {
    let mut field = format!("{}: ", name.as_str()).into_bytes();
    if value.0.is_ascii() {
        write_folded(&mut field, &value.0);
    } else {
        let column = field.len();
        Text::new(value.as_str()).write_header(&mut field, column);
    }
    field
}

/// Breaks before a word, never within one: a fold must not change what is read.
fn write_folded(field: &mut Vec<u8>, value: &str) {
    let mut column = field.len();
    for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if index > 0 && column + word.len() >= LINE_BYTES {
            field.extend_from_slice(b"\r\n ");
            column = 1;
        } else if index > 0 {
            field.push(b' ');
            column += 1;
        }
        field.extend_from_slice(word.as_bytes());
        column += word.len();
    }
    field.extend_from_slice(b"\r\n");
}

/// Parties as mail-builder writes them.
pub(super) fn address_header(parties: &[Party]) -> address::Address<'static> {
    let address =
        |party: &Party| address::Address::new_address(party.name.clone(), party.address.to_string());
    address::Address::new_list(parties.iter().map(address).collect())
}

/// Writes an address field with CRLF.
pub(super) fn write_addresses(name: &str, parties: &[Party]) -> Vec<u8> {
    let mut field = format!("{name}: ").into_bytes();
    let column = field.len();
    address_header(parties).write_header(&mut field, column);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_break_out_of_a_field_is_refused() {
        for name in ["", "a b", "a:b", "a\r\nb", "é", &"x".repeat(77)] {
            assert_eq!(HeaderName::parse(name), Err(HeaderTextError::Name), "{name:?}");
        }
        for text in ["a\r\nBcc: v@w", "a\nb", "a\0b", "a\u{2028}b", "a\tb", "a\u{85}b"] {
            assert_eq!(HeaderText::parse(text), Err(HeaderTextError::Control), "{text:?}");
            assert!(HeaderText::parse(HeaderText::clean(text).as_str()).is_ok());
        }
    }

    #[test]
    fn long_values_are_folded_at_spaces_and_foreign_ones_encoded() {
        let name = HeaderName::parse("X-A").unwrap();
        let written = write_field(&name, &HeaderText::parse(&"word ".repeat(40)).unwrap());
        let written = String::from_utf8(written).unwrap();
        assert!(written.lines().all(|line| line.len() <= LINE_BYTES && !line.trim().is_empty()), "{written}");
        assert_eq!(written.split_whitespace().count(), 41);
        assert!(write_field(&name, &HeaderText::parse("é").unwrap()).is_ascii());
    }
}
