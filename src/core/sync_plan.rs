//! What to do with a mailbox, decided from where we stand and what the server says.
//!
//! Not here: doing it (`flow::sync`). Servers omit UIDNEXT on SELECT (163.com) or lower it without a new UIDVALIDITY; those
//! cases are decided here, purely.

use super::account::Cursor;

/// What SELECT or STATUS told of a mailbox (RFC 9051 sections 6.3.2 and 6.3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailboxView {
    /// 0 or absent on servers that have none.
    pub uid_validity: Option<u32>,
    pub uid_next: Option<u32>,
    pub highest_modseq: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPlan {
    /// Nothing new.
    Nothing,
    /// First sight: note where the mailbox ends, announce nothing, leave older mail to the backfill.
    Baseline,
    /// The UIDs no longer mean what they did: match by content, announce nothing.
    Reindex,
    /// Read from this UID on.
    FetchFrom(u32),
}

/// Decides what a mailbox needs.
#[must_use]
pub fn plan(cursor: Option<&Cursor>, view: &MailboxView) -> SyncPlan {
    let Some(cursor) = cursor else { return SyncPlan::Baseline };
    // A server without UIDVALIDITY keeps ours: to resync at each look would never end.
    if view.uid_validity.is_some_and(|validity| validity != 0 && validity != cursor.uid_validity) {
        return SyncPlan::Reindex;
    }
    let next = cursor.last_uid.saturating_add(1);
    match view.uid_next {
        Some(uid_next) if uid_next == next => SyncPlan::Nothing,
        // UIDs below ours will be handed out a second time.
        Some(uid_next) if uid_next < next && uid_next != 0 => SyncPlan::Reindex,
        _ => SyncPlan::FetchFrom(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor { uid_validity: 7, last_uid: 10, modseq: 0 };

    #[track_caller]
    fn check(uid_validity: Option<u32>, uid_next: Option<u32>, expect: SyncPlan) {
        let view = MailboxView { uid_validity, uid_next, highest_modseq: None };
        assert_eq!(plan(Some(&CURSOR), &view), expect);
    }

    #[test]
    fn the_first_look_announces_nothing() {
        assert_eq!(plan(None, &MailboxView::default()), SyncPlan::Baseline);
    }

    #[test]
    fn only_what_is_above_the_cursor_is_read() {
        check(Some(7), Some(11), SyncPlan::Nothing);
        check(Some(7), Some(15), SyncPlan::FetchFrom(11));
        check(Some(7), None, SyncPlan::FetchFrom(11));
    }

    #[test]
    fn a_server_without_uidvalidity_is_not_resynced_for_ever() {
        check(None, Some(11), SyncPlan::Nothing);
        check(Some(0), Some(12), SyncPlan::FetchFrom(11));
    }

    #[test]
    fn uids_that_mean_something_else_are_matched_again() {
        check(Some(8), Some(11), SyncPlan::Reindex);
        check(Some(7), Some(5), SyncPlan::Reindex);
    }
}
