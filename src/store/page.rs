//! Reading long lists a page at a time, by the key of the last row seen.
//!
//! Not here: the opaque cursor that callers of the API hold (`http` makes it of a `PageKey`).

use jiff::Timestamp;
use uuid::Uuid;

/// Most rows read at once: a page of 200, and the row that tells that another page follows.
pub const PAGE_ROWS_MAX: u32 = 201;

/// Rows that one transaction of housekeeping changes: some ten milliseconds, for which listeners wait.
pub const PURGE_ROWS_MAX: u32 = 1_000;

/// Which part of a list to read: newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    /// The last row of the page before.
    pub after: Option<PageKey>,
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageKey {
    pub at: Timestamp,
    pub id: Uuid,
}

impl Page {
    /// `limit` is cut to what one page may hold.
    #[must_use]
    pub fn new(limit: u32, after: Option<PageKey>) -> Self {
        Self { limit: limit.clamp(1, PAGE_ROWS_MAX), after }
    }
}
