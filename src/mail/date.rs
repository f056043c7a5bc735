//! Reads the Date field as real mail has it: RFC 5322 section 3.3, its obsolete forms, and asctime.
//!
//! Not here: judging whether a sender's clock is right.

use jiff::{Timestamp, civil};

/// Longest value looked at: more is no date but an attack on the reader.
const DATE_BYTES_MAX: usize = 256;
/// Zone offsets beyond this many minutes are taken for UTC.
const OFFSET_MINUTES_MAX: i64 = 15 * 60;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Obsolete zone names of RFC 5322 section 4.3, and those of Europe that mail still carries, with their minutes.
const ZONES: [(&str, i64); 18] = [
    ("ut", 0),
    ("utc", 0),
    ("gmt", 0),
    ("z", 0),
    ("est", -300),
    ("edt", -240),
    ("cst", -360),
    ("cdt", -300),
    ("mst", -420),
    ("mdt", -360),
    ("pst", -480),
    ("pdt", -420),
    ("wet", 0),
    ("bst", 60),
    ("cet", 60),
    ("cest", 120),
    ("met", 60),
    ("mest", 120),
];

/// Parses a Date value; seconds are the finest it can say.
#[must_use]
pub fn parse(value: &[u8]) -> Option<Timestamp> {
    let text = without_comments(value.get(..DATE_BYTES_MAX).unwrap_or(value));
    let mut parts = Parts::default();
    for word in text.split([' ', '\t', '\r', '\n', ',', ';']).filter(|word| !word.is_empty()) {
        parts.take(word);
    }
    parts.timestamp()
}

fn without_comments(value: &[u8]) -> String {
    let mut depth = 0_usize;
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            other if depth == 0 => text.push(if other.is_ascii() { char::from(*other) } else { ' ' }),
            _ => {}
        }
    }
    // Obsolete syntax allows blanks around the colons of the time.
    text.split(':').map(str::trim).collect::<Vec<_>>().join(":")
}

/// What the words said so far. The order of RFC 5322 and that of asctime differ only in where the year stands.
#[derive(Default)]
struct Parts {
    day: Option<i8>,
    month: Option<i8>,
    year: Option<i16>,
    seconds: Option<i64>,
    offset_minutes: Option<i64>,
}

impl Parts {
    fn take(&mut self, word: &str) {
        if self.seconds.is_none() && word.contains(':') {
            self.take_time(word);
        } else if let Some(minutes) = self.seconds.and_then(|_| offset(word)) {
            self.offset_minutes = self.offset_minutes.or(Some(minutes));
        } else if word.contains('-') && self.month.is_none() {
            // `1-Apr-2025`
            word.split('-').filter(|piece| !piece.is_empty()).for_each(|piece| self.take(piece));
        } else if let Some(month) = month(word) {
            self.month = self.month.or(Some(month));
        } else if let Ok(number) = word.parse::<i16>() {
            self.take_number(number, word.len());
        }
    }

    fn take_number(&mut self, number: i16, digits: usize) {
        if self.day.is_none() && digits <= 2 {
            self.day = i8::try_from(number).ok();
        } else if self.year.is_none() {
            // RFC 5322 section 4.3: two and three digits count from 1900, below 50 from 2000.
            self.year = Some(match digits {
                1 | 2 if number < 50 => number + 2000,
                1..=3 => number + 1900,
                _ => number,
            });
        }
    }

    fn take_time(&mut self, word: &str) {
        let clock = word.split(['+', '-']).next().unwrap_or(word);
        let mut numbers =
            clock.split(':').map(|number| number.split('.').next().unwrap_or(number).parse::<i64>().ok());
        let (hour, minute) = (numbers.next().flatten(), numbers.next().flatten());
        let second = numbers.next().unwrap_or(Some(0));
        let (Some(hour @ 0..24), Some(minute @ 0..60), Some(second @ 0..=60)) = (hour, minute, second) else {
            return;
        };
        self.seconds = Some(hour * 3600 + minute * 60 + second);
        // `10:00:00+0200`, the zone glued to the time
        self.offset_minutes = word.get(clock.len()..).and_then(offset);
    }

    /// A leap second counts into the next minute, as POSIX time has none.
    fn timestamp(&self) -> Option<Timestamp> {
        let date = civil::Date::new(self.year?, self.month?, self.day?).ok()?;
        let days = date.to_datetime(civil::Time::midnight()).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        let offset = self.offset_minutes.unwrap_or(0) * 60;
        Timestamp::from_second(days.timestamp().as_second() + self.seconds.unwrap_or(0) - offset).ok()
    }
}

fn month(word: &str) -> Option<i8> {
    let start = word.get(..3)?.to_ascii_lowercase();
    let index = MONTHS.iter().position(|month| *month == start)?;
    i8::try_from(index + 1).ok()
}

/// `+0100`, `-01:30`, `+1`, or a zone's name, in minutes east.
fn offset(word: &str) -> Option<i64> {
    let sign = match word.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => {
            return ZONES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word))
                .map(|(_, minutes)| *minutes);
        }
    };
    let digits: String = word.chars().filter(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().ok()?;
    let minutes = if digits.len() <= 2 { number * 60 } else { number / 100 * 60 + number % 100 };
    Some(if minutes > OFFSET_MINUTES_MAX { 0 } else { sign * minutes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expect: Option<&str>) {
        assert_eq!(parse(value.as_bytes()).map(|at| at.to_string()).as_deref(), expect, "{value:?}");
    }

    #[test]
    fn current_and_obsolete_forms_are_read() {
        check("Tue, 1 Apr 2025 10:00:00 +0100 (BST)", Some("2025-04-01T09:00:00Z"));
        check("1 Apr 2025 10:00 -0730", Some("2025-04-01T17:30:00Z"));
        check("1 Jan 05 10:00 EST", Some("2005-01-01T15:00:00Z"));
        check("Fri, 21 Nov 97 09(comment):   55  : 06 -0600", Some("1997-11-21T15:55:06Z"));
        check("Tue Apr  1 10:00:00 2025", Some("2025-04-01T10:00:00Z"));
        check("Tuesday, 1-Apr-25 10:00:00 GMT", Some("2025-04-01T10:00:00Z"));
        check("Tue, 1 April 2025\r\n 10:00:00+0200", Some("2025-04-01T08:00:00Z"));
        check("Sat, 31 Dec 2016 23:59:60 +0000", Some("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for value in [
            "",
            "yesterday",
            "32 Jan 2020 00:00:00 +0000",
            "1 Foo 2020 00:00 GMT",
            "((((((",
            "99999999 Jan 99999999",
        ] {
            check(value, None);
        }
    }
}
