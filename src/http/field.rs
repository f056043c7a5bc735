//! Values of request fields that know their bounds: texts, lists, and fields of a PATCH that may be absent, null or set.
//!
//! Not here: addresses and ids, whose types check themselves.

use serde::{Deserialize, Deserializer};

use super::problem::Problem;

/// Longest name of anything, in characters.
pub(super) const NAME_CHARS_MAX: usize = 200;

/// A field of a PATCH (RFC 7396): left out, cleared with null, or given a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Patch<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

impl<T> Patch<T> {
    /// The value after the PATCH of a field that may be null.
    pub(super) fn apply(self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The value after the PATCH of a list, which null empties.
    pub(super) fn apply_list(self, old: T) -> T
    where
        T: Default,
    {
        match self {
            Self::Keep => old,
            Self::Clear => T::default(),
            Self::Set(value) => value,
        }
    }

    /// The value after the PATCH of a field that is never null.
    pub(super) fn apply_required(self, param: &str, old: T) -> Result<T, Problem> {
        match self {
            Self::Keep => Ok(old),
            Self::Clear => Err(Problem::invalid(param, "It cannot be null.")),
            Self::Set(value) => Ok(value),
        }
    }

    pub(super) fn as_set(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

/// One line of text: trimmed, neither empty nor too long, nothing in it that ends a header field or a log line.
pub(super) fn line(param: &str, text: &str, chars_max: usize) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::invalid(param, "It cannot be empty."));
    }
    optional_line(param, text, chars_max)
}

/// The same, but it may be empty.
pub(super) fn optional_line(param: &str, text: &str, chars_max: usize) -> Result<String, Problem> {
    let text = text.trim();
    if text.chars().count() > chars_max {
        return Err(Problem::invalid(param, format!("It is longer than {chars_max} characters.")));
    }
    // U+2028 and U+2029 end lines too, for some who read them.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(Problem::invalid(param, "It holds line breaks or control characters."));
    }
    Ok(text.to_owned())
}

/// A name that may be missing; an empty one is none.
pub(super) fn name(param: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let text = text.map(|text| optional_line(param, &text, NAME_CHARS_MAX)).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// A list of at most so many.
pub(super) fn at_most<T>(param: &str, list: &[T], max: usize) -> Result<(), Problem> {
    if list.len() > max {
        return Err(Problem::invalid(param, format!("It holds more than {max}.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Change {
        #[serde(default)]
        name: Patch<String>,
    }

    #[track_caller]
    fn check(json: &str, want: Patch<String>) {
        assert_eq!(serde_json::from_str::<Change>(json).unwrap().name, want);
    }

    #[test]
    fn absent_null_and_set_are_three_things() {
        check("{}", Patch::Keep);
        check(r#"{"name":null}"#, Patch::Clear);
        check(r#"{"name":"x"}"#, Patch::Set("x".into()));
    }

    #[test]
    fn what_ends_a_header_field_is_no_line() {
        for text in ["a\r\nBcc: v@w.example", "a\nb", "a\0", "a\u{2028}b", "a\u{7f}", "a\u{85}b"] {
            assert_eq!(line("subject", text, 100).unwrap_err().param.as_deref(), Some("subject"));
        }
        assert_eq!(line("name", "  Ann  ", 100).unwrap(), "Ann");
        assert!(line("name", " ", 100).is_err());
        assert!(line("name", &"é".repeat(101), 100).is_err());
        assert!(line("name", &"é".repeat(100), 100).is_ok());
        assert_eq!(name("name", Some(" ".into())).unwrap(), None);
    }
}
