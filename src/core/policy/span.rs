//! A length of time as policies write it: `"90s"`, `"5m"`, `"48h"`, `"30d"`.
//!
//! Not here: the configuration's durations (`config::value`), which have more units.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Units with their length in seconds, the longest first: a span is shown in the longest that fits it exactly.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
/// Ten years. Longer ones are mistakes, and would overflow dates.
const MAX: Duration = Duration::from_secs(3650 * 86_400);

/// A whole number of seconds, ten years at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

impl Span {
    /// This many seconds, or the longest span there is.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds).min(MAX))
    }

    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// It is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number with a unit: \"90s\", \"5m\", \"48h\", \"30d\", at most ten years")]
pub struct NoSpan;

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(NoSpan)?;
        let (_, seconds) = UNITS.into_iter().find(|(letter, _)| unit.starts_with(*letter)).ok_or(NoSpan)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoSpan);
        }
        let length =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or(NoSpan)?;
        if Duration::from_secs(length) > MAX { Err(NoSpan) } else { Ok(Self::from_secs(length)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let exact = UNITS.into_iter().find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length));
        let (letter, length) = exact.unwrap_or(('s', 1));
        write!(f, "{}{letter}", seconds / length)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_shown_in_the_longest_unit_that_fits() {
        for (text, seconds, shown) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("300s", 300, "5m"),
            ("48h", 172_800, "2d"),
            ("30d", 2_592_000, "30d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.duration().as_secs(), span.to_string().as_str()), (seconds, shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in
            ["", "s", "5", "-5m", "+5m", "1.5h", "5 m", "5w", "5mé", "99999d", "18446744073709551615d"]
        {
            assert_eq!(text.parse::<Span>(), Err(NoSpan), "{text}");
        }
    }
}
