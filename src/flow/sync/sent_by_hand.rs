//! What a user sends with his own mail program uses his provider's patience as what the CRM sends for him does: it is
//! counted where it is seen, in the mailboxes of sent mail: to his budget, and to what his provider allows in a window.
//!
//! Counted once, whether it belongs into the CRM or not, and wherever the user moves it: the ledger knows its id. Not here: what
//! the CRM sent, which is counted when it is sent.

use jiff::Timestamp;

use super::{consume::Writing, headers::Seen, quota::ids_of};
use crate::{
    core::{
        account::MailboxRole,
        ids::{AccountId, UserId},
        limits::WINDOW_MAX,
        provider::{SENT_KEPT, Sent},
        sync_plan::Way,
    },
    flow::limits::Purse,
    mail::{Address, HeaderSummary, MessageId},
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

    /// Whether a message lies where sent mail does, and is young enough to count. What was there before its mailbox got other
    /// UIDs was counted under the old one.
    pub(super) fn wants(&self, seen: &Seen) -> bool {
        let is_sent = matches!(self.role, MailboxRole::Sent | MailboxRole::All) && !seen.is_draft;
        let is_new = match self.way {
            // Servers tell the second.
            Way::Reindex { last_look } => self.sent_at(seen).as_second() >= last_look.as_second(),
            Way::Live | Way::Backfill => true,
        };
        is_sent && is_new && self.sent_at(seen) >= self.now - WINDOW_MAX
    }

    /// A message filed, or one that the CRM has but did not send.
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
        (purse, now): (&Purse, Timestamp),
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
        let all: Vec<&Seen> = self.by_hand.iter().chain(unread).copied().collect();
        let new = seen_first(tx, account, &all, now).await?;
        let counts: Vec<_> = new.into_iter().map(|seen| (self.sent_at(seen), recipients(seen))).collect();
        if counts.is_empty() {
            return Ok(());
        }
        // To the provider it is all the same who has sent it.
        for (at, recipients) in counts.iter().filter(|(at, _)| *at > now - SENT_KEPT) {
            tx.count_account_sent(account, Sent::at(*at, (1, *recipients))).await?;
        }
        purse.count_sent(tx, &counts).await
    }
}

/// Those that this account shows for the first time among its sent mail. A copy that the user sent to himself was none.
async fn seen_first<'s>(
    tx: &mut Tx,
    account: AccountId,
    all: &[&'s Seen],
    now: Timestamp,
) -> Result<Vec<&'s Seen>, Error> {
    let hasher = tx.text_hasher().await?;
    let hashes = |seen: &Seen| ids_of(seen).map(|id| hasher.hash(id.as_str())).collect::<Vec<_>>();
    let asked: Vec<[u8; 16]> = all.iter().flat_map(|seen| hashes(seen)).collect();
    let mut known = tx.sent_before(account, &asked, now).await?;
    let mut new = Vec::new();
    for seen in all {
        let own = hashes(seen);
        if !own.iter().any(|id| known.contains(id)) {
            new.push(*seen);
        }
        known.extend(own);
    }
    Ok(new)
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

/// How many addresses it went to, as far as its header says: to a provider ours are like any other.
fn recipients(seen: &Seen) -> u64 {
    let HeaderSummary { to, cc, bcc, .. } = &seen.summary;
    let mut people: Vec<_> = to.iter().chain(cc).chain(bcc).map(|party| &party.address).collect();
    people.sort_unstable();
    people.dedup();
    u64::try_from(people.len()).unwrap_or(u64::MAX).max(1)
}
