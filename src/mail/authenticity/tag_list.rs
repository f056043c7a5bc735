//! The lists of tags that DKIM, ARC and DMARC write (RFC 6376 section 3.2), read strictly, where what is malformed is no list, or
//! tolerantly.
//!
//! Not here: which tags there must be.

use base64::Engine as _;

/// Tags in the order they stand, values without white space around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList(Vec<(String, String)>);

impl TagList {
    /// `None` where a tag is doubled, unnamed or badly named, or a value holds what none may.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut tags: Vec<(String, String)> = Vec::new();
        let text = text.trim_matches(is_white);
        for item in text.strip_suffix(';').unwrap_or(text).split(';') {
            let (name, value) = tag(item)?;
            if tags.iter().any(|(known, _)| known == name) {
                return None;
            }
            tags.push((name.to_owned(), value.to_owned()));
        }
        Some(Self(tags))
    }

    /// What is well formed of it; of a doubled tag the first.
    #[must_use]
    pub fn tolerant(text: &str) -> Self {
        let tags = text.split(';').filter_map(tag);
        Self(tags.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Of the first tag.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(|(name, _)| name.as_str())
    }

    /// A value that is base64, which may be folded anywhere.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        decode(self.get(name)?)
    }

    /// A value of digits; `Err` when it is there and is none.
    ///
    /// # Errors
    /// Nothing but that.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ()> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let is_number = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
        if is_number { value.parse().map(Some).map_err(|_| ()) } else { Err(()) }
    }

    /// The items of a list that colons divide, in lower case.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        let items = self.get(name)?.split(':').map(|item| item.trim_matches(is_white).to_ascii_lowercase());
        Some(items.collect())
    }
}

/// Name and value of one tag.
fn tag(item: &str) -> Option<(&str, &str)> {
    let (name, value) = item.split_once('=')?;
    let (name, value) = (name.trim_matches(is_white), value.trim_matches(is_white));
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_value = value.chars().all(|c| c.is_ascii_graphic() || is_white(c));
    (is_name && is_value).then_some((name, value))
}

fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Base64 with white space in it.
#[must_use]
pub fn decode(value: &str) -> Option<Vec<u8>> {
    let packed: String = value.chars().filter(|c| !is_white(*c)).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}
