//! Long lists a page at a time: opaque cursors, and the shape every list has.
//!
//! Not here: reading pages (`store`). A cursor is the key of the last row seen; it says nothing that the row did not.

use axum::Json;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::Problem;
use crate::store::{Page, PageKey};

/// Rows on a page that was asked for without a limit.
pub(super) const LIMIT_DEFAULT: u32 = 50;
/// Most rows on one page.
pub(super) const LIMIT_MAX: u32 = 200;

/// The first octet of a cursor, so that other forms can follow.
const BY_TIME: u8 = 1;
const BY_NUMBER: u8 = 2;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last one.
    pub(super) next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page of a list that was read whole, because it is bounded and short.
    pub(super) fn cut<R>(
        mut rows: Vec<R>,
        (limit, cursor): (Limit, Option<&str>),
        key: impl Fn(&R) -> PageKey,
        show: impl Fn(R) -> T,
    ) -> Result<Json<Self>, Problem> {
        let place = |row: &R| {
            let PageKey { at, id } = key(row);
            (at, id)
        };
        rows.sort_by_key(|row| std::cmp::Reverse(place(row)));
        if let Some(PageKey { at, id }) = cursor.map(decode).transpose()? {
            rows.retain(|row| place(row) < (at, id));
        }
        Ok(Self::page(rows, limit, key, show))
    }

    /// A list that has one page.
    pub(super) fn whole(items: Vec<T>) -> Json<Self> {
        Json(Self { items, next_cursor: None })
    }

    /// A page, out of rows of which one more than the page holds were read.
    pub(super) fn page<R>(
        mut rows: Vec<R>,
        Limit(limit): Limit,
        key: impl Fn(&R) -> PageKey,
        show: impl Fn(R) -> T,
    ) -> Json<Self> {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| encode(key(row)));
        Json(Self { items: rows.into_iter().map(show).collect(), next_cursor })
    }
}

/// How many rows are asked for: `limit`, a number in the query's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(pub(super) u32);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.map(Self).ok_or_else(|| de::Error::custom(format!("must be a number from 1 to {LIMIT_MAX}")))
    }
}

/// The page that a query asks for, with one row more to see whether another follows.
pub(super) fn page(limit: Limit, cursor: Option<&str>) -> Result<Page, Problem> {
    let after = cursor.map(decode).transpose()?;
    Ok(Page::new(limit.0 + 1, after))
}

/// The cursor behind a row.
pub(super) fn encode(key: PageKey) -> String {
    let mut bytes = vec![BY_TIME];
    bytes.extend(key.at.as_microsecond().to_be_bytes());
    bytes.extend(key.id.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(cursor: &str) -> Result<PageKey, Problem> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (form, rest) = bytes.split_first()?;
        let (at, id) = rest.split_first_chunk::<8>()?;
        let at = Timestamp::from_microsecond(i64::from_be_bytes(*at)).ok()?;
        (*form == BY_TIME).then_some(PageKey { at, id: Uuid::from_slice(id).ok()? })
    };
    read().ok_or_else(bad_cursor)
}

/// The cursor behind an event.
pub(super) fn encode_number(seq: i64) -> String {
    let mut bytes = vec![BY_NUMBER];
    bytes.extend(seq.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The number of the event that a cursor stands behind; `None` when this is no such cursor.
pub(super) fn decode_number(cursor: &str) -> Option<i64> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (form, seq) = bytes.split_first()?;
    let seq = i64::from_be_bytes(seq.try_into().ok()?);
    (*form == BY_NUMBER && seq >= 0).then_some(seq)
}

pub(super) fn bad_cursor() -> Problem {
    Problem::invalid("cursor", "This is no cursor that the gateway gave.")
        .advice("Pass next_cursor of the page before as it is, or start without a cursor.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_stands_for_a_cursor_is_refused_or_is_one(text in "\\PC{0,60}|[A-Za-z0-9_-]{0,60}|AQ[A-Za-z0-9_-]{32}", seq: i64) {
            if let Ok(key) = decode(&text) {
                prop_assert_eq!(encode(key), text.clone());
            }
            if let Some(number) = decode_number(&text) {
                prop_assert_eq!(encode_number(number), text);
            }
            prop_assert_eq!(decode_number(&encode_number(seq)), Some(seq).filter(|seq| *seq >= 0));
        }
    }

    #[test]
    fn a_cursor_leads_back_to_its_row() {
        let key = PageKey { at: "2026-01-02T03:04:05.678901Z".parse().unwrap(), id: Uuid::from_u128(7) };
        assert_eq!(decode(&encode(key)).unwrap(), key);
        assert_eq!(decode_number(&encode_number(42)), Some(42));
    }

    #[test]
    fn what_is_no_cursor_is_refused_by_name() {
        let number = encode_number(1);
        for text in ["", "x", "not base64!", "AAAA", number.as_str(), "AQ"] {
            assert_eq!(decode(text).unwrap_err().param.as_deref(), Some("cursor"), "{text}");
        }
        let row = encode(PageKey { at: Timestamp::UNIX_EPOCH, id: Uuid::nil() });
        assert_eq!(decode_number(&row), None);
    }

    #[test]
    fn a_list_read_whole_is_shown_by_pages_too() {
        let key = |n: &u32| PageKey { at: Timestamp::UNIX_EPOCH, id: Uuid::from_u128(u128::from(*n)) };
        let (mut shown, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let rows = vec![2_u32, 5, 1, 4, 3];
            let Json(page) = List::cut(rows, (Limit(2), cursor.as_deref()), key, |n| n).unwrap();
            shown.push(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(shown, [vec![5, 4], vec![3, 2], vec![1]]);
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let key = |n: &u32| PageKey { at: Timestamp::UNIX_EPOCH, id: Uuid::from_u128(u128::from(*n)) };
        let Json(full) = List::page(vec![1_u32, 2, 3], Limit(2), key, |n| n);
        assert_eq!((full.items, full.next_cursor), (vec![1, 2], Some(encode(key(&2)))));
        let Json(last) = List::page(vec![1_u32, 2], Limit(2), key, |n| n);
        assert_eq!((last.items, last.next_cursor), (vec![1, 2], None));
    }
}
