//! What to do with a mailbox, decided from where we stand and what the server says; what of its mail is news; and the
//! state an account is in when nothing is wrong.
//!
//! Not here: doing it (`flow::sync`). Servers omit UIDNEXT on SELECT (163.com) or lower it without a new UIDVALIDITY; those
//! cases are decided here, purely.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::account::{AccountState, Cursor, uid_validity_of};

/// How far a provider's clock may run behind ours before its new mail would be taken for old.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(2);
/// Mail that came in while an account was being connected lies below the baseline; when it is older than this it is
/// history all the same, for instance in a Sent mailbox that is discovered a year later.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// Changes of UIDVALIDITY that a mailbox may see in a day. Each costs the reading of all its headers.
const ID_CHANGES_A_DAY: usize = 3;

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
    let known = uid_validity_of(cursor.uid_validity);
    if view.uid_validity.is_some_and(|validity| validity != 0 && validity != known) {
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

/// On which way a message of a mailbox came before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Above the cursor.
    Live,
    /// Below the baseline.
    Backfill,
    /// While matching a mailbox whose UIDs have changed and that was last looked at then.
    Reindex { last_look: Timestamp },
}

/// Whether mail is told to the CRM as new: what lay there before the account was connected is filed in silence.
#[must_use]
pub fn is_news(way: Way, internal_date: Option<Timestamp>, connected_at: Timestamp, now: Timestamp) -> bool {
    // A server that cannot say when it took a message in still says by its UID that it is new.
    let Some(date) = internal_date else { return way == Way::Live };
    match way {
        Way::Live => date >= connected_at - CLOCK_SLACK,
        Way::Backfill => date >= connected_at && date >= now - FRESH,
        Way::Reindex { last_look } => date >= last_look.max(connected_at) - CLOCK_SLACK,
    }
}

/// The state of an account whose sessions go well.
#[must_use]
pub fn resting_state(backfilling: bool, has_mail: bool) -> AccountState {
    match (backfilling, has_mail) {
        (true, _) => AccountState::Backfilling,
        (false, true) => AccountState::Active,
        (false, false) => AccountState::AwaitingFirstMail,
    }
}

/// Remembers when the UIDs of an account's mailboxes changed: each for itself, since a provider that moves an account renews
/// them all at once.
#[derive(Debug, Clone, Default)]
pub struct IdChanges(BTreeMap<Vec<u8>, VecDeque<Timestamp>>);

impl IdChanges {
    /// Notes a change. True when the mailbox had too many within a day: then leave the account alone for a while.
    pub fn note(&mut self, mailbox: &[u8], now: Timestamp) -> bool {
        self.0.retain(|_, changes| {
            changes.retain(|at| now.duration_since(*at) < SignedDuration::from_hours(24));
            !changes.is_empty()
        });
        let changes = self.0.entry(mailbox.to_vec()).or_default();
        changes.push_back(now);
        let excess = changes.len().saturating_sub(ID_CHANGES_A_DAY + 1);
        changes.drain(..excess);
        changes.len() > ID_CHANGES_A_DAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    /// The account was connected at minute 1000.
    #[track_caller]
    fn check_news(way: Way, received: Option<i64>, now: i64, expect: bool) {
        assert_eq!(is_news(way, received.map(at), at(1000), at(now)), expect);
    }

    #[test]
    fn only_what_arrived_after_the_account_was_connected_is_news() {
        check_news(Way::Live, Some(1000), 1001, true);
        check_news(Way::Live, Some(999), 1001, true);
        check_news(Way::Live, Some(997), 1001, false);
        check_news(Way::Live, None, 1001, true);
        check_news(Way::Backfill, Some(999), 1001, false);
        check_news(Way::Backfill, Some(1000), 1001, true);
        check_news(Way::Backfill, Some(1000), 2000, false);
        check_news(Way::Backfill, None, 1001, false);
    }

    #[test]
    fn after_a_change_of_uids_only_what_came_since_the_last_look_is_news() {
        let way = Way::Reindex { last_look: at(5000) };
        check_news(way, Some(4000), 5010, false);
        check_news(way, Some(5001), 5010, true);
        check_news(way, None, 5010, false);
        check_news(Way::Reindex { last_look: at(0) }, Some(900), 5010, false);
    }

    #[test]
    fn a_fourth_change_of_uids_within_a_day_is_too_many() {
        let mut changes = IdChanges::default();
        let noted = [0, 10, 20, 30].map(|minute| changes.note(b"INBOX", at(minute)));
        assert_eq!(noted, [false, false, false, true]);
        assert!(!changes.note(b"INBOX", at(3 * 24 * 60)));
    }

    #[test]
    fn an_account_that_moves_with_all_its_mailboxes_is_not_unstable() {
        let mut changes = IdChanges::default();
        let mailboxes: [&[u8]; 5] = [b"INBOX", b"Sent", b"Sent Items", b"Gesendet", b"Outbox"];
        assert!(mailboxes.iter().all(|mailbox| !changes.note(mailbox, at(0))));
        changes.note(b"Sent", at(3 * 24 * 60));
        assert_eq!(changes.0.len(), 1, "what is long ago is forgotten");
    }

    #[test]
    fn an_account_at_rest_backfills_waits_or_is_active() {
        assert_eq!(resting_state(true, true), AccountState::Backfilling);
        assert_eq!(resting_state(false, true), AccountState::Active);
        assert_eq!(resting_state(false, false), AccountState::AwaitingFirstMail);
    }

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
