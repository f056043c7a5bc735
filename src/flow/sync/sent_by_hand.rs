//! What a user sends with his own mail program uses his provider's patience as what the CRM sends for him does: it is
//! counted where it is seen, in the mailboxes of sent mail.
//!
//! Counted once, whether it belongs into the CRM or not; of what does not nothing but the count is kept. Not here: what the
//! CRM sent, which is counted when it is sent.

use jiff::Timestamp;

use super::{consume::Writing, headers::Seen, quota::ids_of};
use crate::{
    core::{
        account::MailboxRole,
        ids::{AccountId, UserId},
        limits::WINDOW_MAX,
        sync_plan::Way,
    },
    flow::limits,
    mail::{Address, MessageId},
    store::{Error, Session, Tx},
};

/// Mail of one batch that may have been sent by hand, lately.
pub(super) struct Candidates<'a> {
    role: MailboxRole,
    way: Way,
    now: Timestamp,
    /// Known to be none of what the CRM sent.
    by_hand: Vec<&'a Seen>,
    /// Not read: its ids tell.
    unread: Vec<&'a Seen>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(writing: Writing<'a>, now: Timestamp) -> Self {
        Self { role: writing.role, way: writing.way, now, by_hand: Vec::new(), unread: Vec::new() }
    }

    /// Whether a message lies where sent mail does, and is young enough to count. What only got another UID was counted
    /// under the old one.
    pub(super) fn wants(&self, seen: &Seen) -> bool {
        let is_sent = matches!(self.role, MailboxRole::Sent | MailboxRole::All) && !seen.is_draft;
        let is_new = !matches!(self.way, Way::Reindex { .. });
        is_sent && is_new && self.sent_at(seen) >= self.now - WINDOW_MAX
    }

    /// A message filed, or seen here first, that the CRM did not send.
    pub(super) fn add(&mut self, seen: &'a Seen) {
        if self.wants(seen) {
            self.by_hand.push(seen);
        }
    }

    /// A message of which only the header was read.
    pub(super) fn add_unread(&mut self, seen: &'a Seen) {
        if self.wants(seen) {
            self.unread.push(seen);
        }
    }

    fn sent_at(&self, seen: &Seen) -> Timestamp {
        seen.internal_date.map_or(self.now, |date| date.min(self.now))
    }

    /// Counts it all, in the transaction that takes note of it.
    pub(super) async fn count(
        mut self,
        tx: &mut Tx,
        (user, account): (UserId, AccountId),
        now: Timestamp,
    ) -> Result<(), Error> {
        if self.by_hand.is_empty() && self.unread.is_empty() {
            return Ok(());
        }
        if self.role == MailboxRole::All {
            // Everybody's mail lies there.
            let own = own_addresses(tx, user, account).await?;
            let is_own = |seen: &&Seen| seen.parties.from.iter().any(|from| own.contains(&from.address));
            self.by_hand.retain(is_own);
            self.unread.retain(is_own);
        }
        let ids: Vec<MessageId> = self.unread.iter().flat_map(|seen| ids_of(seen)).cloned().collect();
        let ours = tx.submitted_ids(&ids).await?;
        let unread = self.unread.iter().filter(|seen| !ids_of(seen).any(|id| ours.contains(id)));
        let counts: Vec<_> =
            self.by_hand.iter().chain(unread).map(|seen| (self.sent_at(seen), recipients(seen))).collect();
        limits::count_sent(tx, user, &counts, now).await
    }
}

/// Every address that an account's user writes from.
pub(super) async fn own_addresses(
    session: &mut Session,
    user: UserId,
    account: AccountId,
) -> Result<Vec<Address>, Error> {
    let mut own: Vec<Address> =
        session.account(account).await?.map(|account| account.email).into_iter().collect();
    if let Some(user) = session.user(user).await? {
        own.push(user.email);
        own.extend(user.aliases);
    }
    Ok(own)
}

/// How many people it went to, as far as its header says.
fn recipients(seen: &Seen) -> u64 {
    let parties = &seen.parties;
    let mut people: Vec<_> =
        parties.to.iter().chain(&parties.cc).chain(&parties.bcc).map(|party| &party.address).collect();
    people.sort_unstable();
    people.dedup();
    u64::try_from(people.len()).unwrap_or(u64::MAX).max(1)
}
