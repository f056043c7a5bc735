//! Content-Type and Content-Disposition values: a kind and its parameters (RFC 2045 section 5.1, RFC 2231, RFC 2183).
//!
//! Not here: what a type means for a message (`message`).

use super::encoded_word::{decode_charset, decode_percent, decode_text};

/// Parameters kept of one value; 100,000 of them were once an attack on a parser (CVE-2021-3181 and its kin).
const PARAMETERS_MAX: usize = 64;
/// Pieces of one RFC 2231 parameter that are joined.
const SECTIONS_MAX: u16 = 100;

/// A structured value: `text/plain; charset=utf-8` or `attachment; filename=a.txt`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentType {
    essence: String,
    parameters: Vec<Parameter>,
}

/// One `name*section*=value` as written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    section: Option<u16>,
    is_extended: bool,
    value: Vec<u8>,
}

impl ContentType {
    /// Reads a value. Never fails; an unreadable kind is empty.
    #[must_use]
    pub fn read(value: &[u8]) -> Self {
        let mut pieces = Pieces(value);
        let essence = pieces
            .next()
            .map(|piece| String::from_utf8_lossy(&piece).to_ascii_lowercase())
            .unwrap_or_default();
        let essence = essence.split_whitespace().collect();
        Self {
            essence,
            parameters: pieces.take(PARAMETERS_MAX).filter_map(|piece| Parameter::read(&piece)).collect(),
        }
    }

    /// The kind in lower case: `text/plain`, `attachment`.
    #[must_use]
    pub fn essence(&self) -> &str {
        &self.essence
    }

    #[must_use]
    pub(super) fn with_essence(self, essence: &str) -> Self {
        Self { essence: essence.to_owned(), ..self }
    }

    /// A parameter's value, decoded. Where a parameter comes both plain and in the form of RFC 2231, the latter counts
    /// (RFC 6266 section 4.3); where it comes twice in one form, the first.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let named = || self.parameters.iter().filter(|parameter| parameter.name == name);
        if let Some(whole) = named().find(|parameter| parameter.is_extended && parameter.section.is_none()) {
            let Some((charset, text)) = split_charset(&whole.value) else {
                return Some(decode_text(&decode_percent(&whole.value)));
            };
            return Some(decode_charset(&charset, &decode_percent(text)));
        }
        if named().any(|parameter| parameter.section.is_some()) {
            return Some(self.join_sections(name));
        }
        named().next().map(|parameter| decode_text(&parameter.value))
    }

    /// A parameter's bytes as written: boundaries are compared, not read.
    #[must_use]
    pub fn raw_parameter(&self, name: &str) -> Option<&[u8]> {
        let plain = |parameter: &&Parameter| parameter.name == name && !parameter.is_extended;
        self.parameters.iter().find(plain).map(|parameter| parameter.value.as_slice())
    }

    fn join_sections(&self, name: &str) -> String {
        let mut sections: Vec<&Parameter> =
            self.parameters.iter().filter(|p| p.name == name && p.section.is_some()).collect();
        sections.sort_by_key(|parameter| parameter.section);
        let mut charset = String::new();
        let mut bytes = Vec::new();
        for (index, parameter) in sections.iter().enumerate() {
            let with_charset =
                (index == 0 && parameter.is_extended).then(|| split_charset(&parameter.value)).flatten();
            let (named_charset, text) = with_charset.unwrap_or((String::new(), &parameter.value));
            charset.push_str(&named_charset);
            bytes.extend(if parameter.is_extended { decode_percent(text) } else { text.to_vec() });
        }
        let is_encoded = sections.iter().any(|parameter| parameter.is_extended);
        if is_encoded { decode_charset(&charset, &bytes) } else { decode_text(&bytes) }
    }
}

impl Parameter {
    fn read(piece: &[u8]) -> Option<Self> {
        let equals = memchr::memchr(b'=', piece)?;
        let (name, value) = piece.split_at_checked(equals)?;
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        let (name, is_extended) = name.strip_suffix('*').map_or((name.as_str(), false), |name| (name, true));
        let section =
            name.rsplit_once('*').and_then(|(_, number)| number.parse().ok()).filter(|n| *n <= SECTIONS_MAX);
        let name =
            if section.is_some() { name.rsplit_once('*').map_or(name, |(name, _)| name) } else { name };
        Some(Self {
            name: name.to_owned(),
            section,
            is_extended,
            value: unquote(value.get(1..)?.trim_ascii()),
        })
    }
}

/// `utf-8'en'text`: the charset, and the text behind the language.
fn split_charset(value: &[u8]) -> Option<(String, &[u8])> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
    Some((String::from_utf8_lossy(charset).into_owned(), text))
}

/// Only `\"` and `\\` are escapes: Windows clients write paths into file names.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"") else { return value.to_vec() };
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'"', _) => break,
            (b'\\', [escaped @ (b'"' | b'\\'), after @ ..]) => {
                text.push(*escaped);
                rest = after;
            }
            (b'\r' | b'\n', _) => {}
            (other, _) => text.push(*other),
        }
    }
    text
}

/// Cuts a value at semicolons outside of quotes, leaving out comments.
struct Pieces<'a>(&'a [u8]);

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let (mut piece, mut in_quotes, mut depth, mut escaped) = (Vec::new(), false, 0_usize, false);
        while let [byte, tail @ ..] = self.0 {
            self.0 = tail;
            match byte {
                b';' if !in_quotes && depth == 0 => break,
                b'"' if depth == 0 && !escaped => in_quotes = !in_quotes,
                b'(' if !in_quotes => depth += 1,
                b')' if !in_quotes && depth > 0 => {
                    depth -= 1;
                    continue;
                }
                _ => {}
            }
            escaped = in_quotes && !escaped && *byte == b'\\';
            if depth == 0 {
                piece.push(*byte);
            }
        }
        Some(piece.trim_ascii().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, essence: &str, name: &str, expect: Option<&str>) {
        let content_type = ContentType::read(value.as_bytes());
        assert_eq!(content_type.essence(), essence, "{value:?}");
        assert_eq!(content_type.parameter(name).as_deref(), expect, "{value:?}");
    }

    #[test]
    fn kinds_and_parameters_are_read() {
        check("Text/Plain; Charset=UTF-8", "text/plain", "charset", Some("UTF-8"));
        check(
            "text/plain (hi); charset=\"iso-8859-1\" (really)",
            "text/plain",
            "charset",
            Some("iso-8859-1"),
        );
        check("text/plain", "text/plain", "charset", None);
        check("attachment; filename=\"a; \\\"b\\\".txt\"", "attachment", "filename", Some("a; \"b\".txt"));
        check("attachment; filename=my file.txt", "attachment", "filename", Some("my file.txt"));
        check("attachment; filename=\"C:\\tmp\\a.txt\"", "attachment", "filename", Some("C:\\tmp\\a.txt"));
        check("", "", "x", None);
    }

    #[test]
    fn every_way_to_write_a_foreign_file_name_is_read() {
        check(
            "attachment; filename*=utf-8''%C3%A9.txt; filename=e.txt",
            "attachment",
            "filename",
            Some("é.txt"),
        );
        check("attachment; filename*1=b.txt; filename*0=a", "attachment", "filename", Some("ab.txt"));
        check(
            "attachment; filename*0*=utf-8''%C3; filename*1*=%A9; filename*2=.txt",
            "attachment",
            "filename",
            Some("é.txt"),
        );
        check("attachment; filename=\"=?utf-8?B?w6kudHh0?=\"", "attachment", "filename", Some("é.txt"));
        check("attachment; filename*=iso-8859-1'fr'%E9.txt", "attachment", "filename", Some("é.txt"));
    }

    #[test]
    fn a_flood_of_parameters_is_cut() {
        let value = "a/b".to_owned() + &"; x=1".repeat(100_000);
        assert_eq!(ContentType::read(value.as_bytes()).parameters.len(), PARAMETERS_MAX);
    }
}
