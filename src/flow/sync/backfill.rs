//! Reads history, newest first, in small committed chunks, behind live mail.
//!
//! Not here: where history begins and ends (`choose`).

use super::{
    Failure,
    connection::{Connection, Followed, Wire, within},
    consume::{Batch, End},
};
use crate::{
    core::{account::Backfill, sync_plan::Way},
    imap::{Uid, UidSet},
};

/// Messages looked at between two looks for live mail.
const CHUNK_MAX: usize = 100;

impl<S: Wire> Connection<'_, S> {
    /// Reads one chunk. False when nothing is left, or nothing may be read now.
    pub(super) async fn backfill(&mut self, mailboxes: &mut [Followed]) -> Result<bool, Failure> {
        let open = |mailbox: &&mut Followed| mailbox.backfill.next_uid > 0 && !mailbox.refused;
        let Some(mailbox) = mailboxes.iter_mut().find(open) else { return Ok(false) };
        if self.history_waits().await? {
            return Ok(false);
        }
        if self.selected.as_ref() != Some(&mailbox.name) {
            // Its UIDs may have changed since: then this begins anew.
            self.enter(mailbox).await?;
        }
        if !mailbox.refused && mailbox.backfill.next_uid > 0 {
            let batch = self.chunk(mailbox).await?;
            Box::pin(self.consume(mailbox, batch)).await?;
        }
        Ok(true)
    }

    async fn chunk(&mut self, mailbox: &mut Followed) -> Result<Batch, Failure> {
        let Backfill { next_uid, done, total } = mailbox.backfill;
        let history = match mailbox.history.take() {
            Some(history) => history,
            None => self.history(next_uid.saturating_sub(1)).await?,
        };
        let left = if next_uid > 1 { within(&history, 1..=next_uid - 1) } else { UidSet::new() };
        let mut uids: Vec<Uid> = left.iter().rev().take(CHUNK_MAX).collect();
        let (headers, count) = self.headers((&mailbox.name, mailbox.cursor.uid_validity), &uids).await?;
        uids.truncate(count);
        let lowest = uids.last().map_or(0, |uid| uid.get());
        let is_last = lowest <= 1 || within(&left, 1..=lowest - 1).is_empty();
        let mut seen = headers.seen;
        seen.reverse();
        let backfill = if is_last {
            // What was deleted since it was counted will never be done.
            Backfill { next_uid: 0, done: total, total }
        } else {
            mailbox.history = Some(left);
            Backfill { next_uid: lowest, done: done.saturating_add(count as u64).min(total), total }
        };
        Ok(Batch {
            way: Way::Backfill,
            uid_validity: mailbox.cursor.uid_validity,
            seen,
            unreadable: headers.unreadable,
            renumbered: None,
            end: End::Backfill(backfill),
        })
    }
}
