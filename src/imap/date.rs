//! INTERNALDATE and the dates of SEARCH and APPEND (RFC 9051 section 9, `date-time` and `date`).
//!
//! Not here: the Date field of a message, which is its author's claim.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads ` 7-Jul-1996 02:44:25 -0700`, with one digit or two for the day and with or without a zone (then UTC).
#[must_use]
pub(super) fn parse(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let mut date = words.next()?.split('-');
    let day = date.next()?.parse().ok()?;
    let month = date.next().and_then(month)?;
    let year = date.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute) = (time.next()??, time.next()??);
    // A leap second is written 60 and has no place on our scale.
    let second = time.next().flatten().unwrap_or(0).min(59);
    let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    words.next().map_or(Some(Offset::UTC), offset)?.to_timestamp(local).ok()
}

fn month(name: &str) -> Option<i8> {
    let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    i8::try_from(index + 1).ok()
}

fn offset(zone: &str) -> Option<Offset> {
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: i32 = zone.trim_start_matches(['+', '-']).parse().ok()?;
    Offset::from_seconds(sign * (digits / 100 * 3600 + digits % 100 * 60)).ok()
}

/// `07-Jul-1996 09:44:25 +0000`, for APPEND.
#[must_use]
pub(super) fn format(at: Timestamp) -> String {
    let utc = Offset::UTC.to_datetime(at);
    let (hour, minute, second) = (utc.hour(), utc.minute(), utc.second());
    format!("{:0>11} {hour:02}:{minute:02}:{second:02} +0000", format_date(utc.date()))
}

/// `7-Jul-1996`, for SEARCH.
#[must_use]
pub(super) fn format_date(date: Date) -> String {
    let month = usize::try_from(date.month()).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    format!("{}-{}-{:04}", date.day(), month.unwrap_or(&"Jan"), date.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(parse(text.as_bytes()).map(|at| at.to_string()).as_deref(), expect, "{text}");
    }

    #[test]
    fn internal_dates_are_read_as_servers_write_them() {
        check("17-Jul-1996 02:44:25 -0700", Some("1996-07-17T09:44:25Z"));
        check(" 7-Jul-1996 02:44:25 +0530", Some("1996-07-06T21:14:25Z"));
        check("7-jul-1996 02:44:60", Some("1996-07-07T02:44:59Z"));
        check("31-Feb-1996 02:44:25 +0000", None);
        check("0-Foo-1 x", None);
        check("", None);
    }

    #[test]
    fn dates_are_written_as_the_grammar_wants_them() {
        let at: Timestamp = "1996-07-07T09:44:05Z".parse().unwrap();
        assert_eq!(format(at), "07-Jul-1996 09:44:05 +0000");
        assert_eq!(format_date(Date::constant(2026, 11, 3)), "3-Nov-2026");
    }
}
