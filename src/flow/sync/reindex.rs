//! Heals a mailbox whose UIDs no longer mean what they did: messages are recognised by their Message-IDs and get their new
//! UIDs, in silence; only headers are read again.
//!
//! Kill it anywhere and it begins again without harm: the mailbox keeps its old UIDVALIDITY until all is matched, and what
//! has its new place already is passed over. Not here: mail without a Message-ID, which `flow::ingest` recognises by its
//! content.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use super::{
    Failure,
    connection::{Connection, Followed, Wire, within},
    consume::{Batch, End, Renumbered},
    headers::{BATCH_MAX, Headers, Seen},
};
use crate::{
    account::Trouble,
    core::{
        account::{Backfill, Cursor, era, generation_of, uid_validity_of},
        sync_plan::Way,
    },
    flow::now,
    imap::{Criterion, Selected, Uid, UidSet},
    mail::MessageId,
    store::{Error, Renumbering},
};

/// What the UIDs of a mailbox are filed under while they are wrong though the server calls them the same: no server that
/// has UIDVALIDITY says 0 (RFC 9051 section 2.3.1.1).
const ERA_BEFORE: u32 = 0;
/// The same for a server without UIDVALIDITY, which is filed under 0.
const ERA_BEFORE_NONE: u32 = u32::MAX;

/// What a mailbox was, and is now.
struct Change {
    from: u64,
    to: u64,
    last_look: Timestamp,
    end: Cursor,
}

impl<S: Wire> Connection<'_, S> {
    /// Matches the selected mailbox anew.
    pub(super) async fn reindex(
        &mut self,
        mailbox: &mut Followed,
        selected: &Selected,
    ) -> Result<(), Failure> {
        let end = self.end_of(selected);
        if end.uid_validity == mailbox.cursor.uid_validity {
            self.set_apart(mailbox).await?;
        }
        let change = Change {
            from: mailbox.cursor.uid_validity,
            to: end.uid_validity,
            last_look: mailbox.checked_at.max(self.last_look),
            end,
        };
        tracing::info!(account = %self.account, from = change.from, to = change.to, "a mailbox has new UIDs");
        // Nothing older was ever read.
        let found = self.search(Criterion::Since(self.horizon(self.connected_at))).await?;
        let mut left = if end.last_uid > 0 { within(&found, 1..=end.last_uid) } else { UidSet::new() };
        while !left.is_empty() {
            let uids: Vec<Uid> = left.iter().take(BATCH_MAX).collect();
            let (headers, count) = self.headers((&mailbox.name, change.to), &uids).await?;
            let done: UidSet = uids.into_iter().take(count).collect();
            let batch = self.matched(mailbox, &change, headers).await?;
            Box::pin(self.consume(mailbox, batch)).await?;
            left = left.difference(&done);
        }
        self.conclude(mailbox, &change).await?;
        // That the account was given another mailbox is nothing its server did.
        let is_servers = generation_of(change.from) == generation_of(change.to);
        if is_servers && self.memory.id_changes.note(mailbox.name.as_bytes(), now()) {
            return Err(Trouble::UnstableIds.into());
        }
        Ok(())
    }

    /// Files all that is known of the mailbox under an era of its own, so that old and new UIDs cannot be confused although
    /// the server gives both the same UIDVALIDITY.
    async fn set_apart(&mut self, mailbox: &mut Followed) -> Result<(), Failure> {
        let from = mailbox.cursor.uid_validity;
        let apart = if uid_validity_of(from) == ERA_BEFORE { ERA_BEFORE_NONE } else { ERA_BEFORE };
        let to = era(generation_of(from), apart);
        let mut row = mailbox.row();
        row.cursor.uid_validity = to;
        let mut tx = self.begin().await?;
        let places = tx.known_places(self.account, &row.name, from).await?;
        let uids: Vec<(u32, u32)> = places.into_iter().map(|uid| (uid, uid)).collect();
        let renumbering = Renumbering { account: self.account, mailbox: &row.name, from, to, uids: &uids };
        tx.rebind_uid_validity(&renumbering).await?;
        tx.put_mailbox(self.account, &row).await?;
        tx.commit().await?;
        mailbox.cursor.uid_validity = to;
        Ok(())
    }

    /// Divides messages into those that are known and only have a new place, and those that are new.
    async fn matched(
        &mut self,
        mailbox: &Followed,
        change: &Change,
        headers: Headers,
    ) -> Result<Batch, Failure> {
        let placed = self.placed(mailbox, change.to, &headers.seen).await?;
        let mut candidates = self.candidates(mailbox, change.from, &headers.seen).await?;
        let (mut uids, mut seen) = (Vec::new(), Vec::new());
        for message in headers.seen.into_iter().filter(|message| !placed.contains(&message.uid.get())) {
            match take(&mut candidates, &message) {
                Some(former) => uids.push((former, message.uid.get())),
                None => seen.push(message),
            }
        }
        Ok(Batch {
            way: Way::Reindex { last_look: change.last_look },
            uid_validity: change.to,
            seen,
            unreadable: headers.unreadable,
            renumbered: Some(Renumbered { from: change.from, uids }),
            end: End::Nothing,
        })
    }

    /// The UIDs that were matched before we were interrupted.
    async fn placed(&self, mailbox: &Followed, validity: u64, seen: &[Seen]) -> Result<HashSet<u32>, Error> {
        let uids: Vec<u32> = seen.iter().map(|message| message.uid.get()).collect();
        let name = mailbox.name.as_bytes();
        let mut session = self.read().await?;
        let mut placed = session.sightings_by_uids(self.account, name, validity, &uids).await?;
        placed.extend(session.decided_uids(self.account, name, validity, &uids).await?);
        Ok(placed)
    }

    /// The former UIDs of messages with each of these Message-IDs, stored or left out.
    async fn candidates(
        &self,
        mailbox: &Followed,
        validity: u64,
        seen: &[Seen],
    ) -> Result<HashMap<MessageId, BTreeSet<u32>>, Error> {
        let ids: Vec<MessageId> = seen.iter().flat_map(ids_of).cloned().collect();
        let name = mailbox.name.as_bytes();
        let mut session = self.read().await?;
        let mut candidates: HashMap<MessageId, BTreeSet<u32>> = HashMap::new();
        for sighted in session.sighted_with_ids(self.account, name, validity, &ids).await? {
            candidates.entry(sighted.id).or_default().insert(sighted.uid);
        }
        let hasher = session.text_hasher().await?;
        let named: HashMap<[u8; 16], MessageId> =
            ids.into_iter().map(|id| (hasher.hash(id.as_str()), id)).collect();
        let hashes: Vec<[u8; 16]> = named.keys().copied().collect();
        for (hash, uid) in session.decided_with_ids(self.account, name, validity, &hashes).await? {
            if let Some(id) = named.get(&hash) {
                candidates.entry(id.clone()).or_default().insert(uid);
            }
        }
        Ok(candidates)
    }

    /// From here on the new UIDs count.
    async fn conclude(&mut self, mailbox: &mut Followed, change: &Change) -> Result<(), Failure> {
        let begun = mailbox.backfill.next_uid > 0 && change.end.last_uid > 0;
        let next_uid = if begun { change.end.last_uid.saturating_add(1) } else { 0 };
        let backfill = Backfill { next_uid, done: 0, ..mailbox.backfill };
        let healed = Followed {
            cursor: change.end,
            backfill: if begun { backfill } else { Backfill { next_uid: 0, ..mailbox.backfill } },
            checked_at: now(),
            history: None,
            ..mailbox.clone()
        };
        let mut tx = self.begin().await?;
        tx.put_mailbox(self.account, &healed.row()).await?;
        tx.commit().await?;
        *mailbox = healed;
        Ok(())
    }
}

/// The first former place that is still free: of two copies it does not matter which is which.
fn take(candidates: &mut HashMap<MessageId, BTreeSet<u32>>, message: &Seen) -> Option<u32> {
    let former = ids_of(message).find_map(|id| candidates.get(id)?.first().copied())?;
    for uids in candidates.values_mut() {
        uids.remove(&former);
    }
    Some(former)
}

fn ids_of(message: &Seen) -> impl Iterator<Item = &MessageId> {
    [&message.summary.message_id, &message.summary.original_message_id].into_iter().flatten()
}
