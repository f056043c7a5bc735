//! Compares now and then what a mailbox holds with what was taken note of: what a server showed too late, or a fault of ours
//! passed over, is found after all.
//!
//! Not here: mail older than a few days, which the last sweep saw.

use std::collections::HashSet;

use jiff::SignedDuration;

use super::{
    Failure,
    connection::{Connection, Followed, Wire, within},
    consume::{Batch, End},
};
use crate::{
    core::sync_plan::Way,
    flow::now,
    imap::{Criterion, Uid},
};

/// How far back a sweep looks: some sweeps may have failed.
const SPAN: SignedDuration = SignedDuration::from_hours(72);

impl<S: Wire> Connection<'_, S> {
    /// Takes in what was passed over in any mailbox since the account was connected.
    pub(super) async fn sweep(&mut self, mailboxes: &mut [Followed]) -> Result<(), Failure> {
        for mailbox in mailboxes.iter_mut().filter(|mailbox| !mailbox.refused) {
            self.enter(mailbox).await?;
            let mut passed_over = self.passed_over(mailbox).await?;
            while !passed_over.is_empty() {
                let place = (&mailbox.name, mailbox.cursor.uid_validity);
                let (mut headers, count) = self.headers(place, &passed_over).await?;
                passed_over.drain(..count);
                let connected_at = self.connected_at;
                headers.seen.retain(|message| message.internal_date.is_some_and(|date| date >= connected_at));
                let found = headers.seen.len() + headers.unreadable.len();
                let batch = Batch {
                    way: Way::Live,
                    uid_validity: mailbox.cursor.uid_validity,
                    seen: headers.seen,
                    unreadable: headers.unreadable,
                    renumbered: None,
                    end: End::Nothing,
                };
                if found > 0 {
                    tracing::warn!(account = %self.account, messages = found, "a sweep found mail that had been passed over");
                    Box::pin(self.consume(mailbox, batch)).await?;
                }
            }
        }
        Ok(())
    }

    async fn passed_over(&mut self, mailbox: &Followed) -> Result<Vec<Uid>, Failure> {
        // One that was refused is not open, and there is nothing to search.
        if mailbox.refused || mailbox.cursor.last_uid == 0 {
            return Ok(Vec::new());
        }
        let from = self.connected_at.max(now() - SPAN).to_zoned(jiff::tz::TimeZone::UTC).date();
        // The next sweep may have better luck; there is no reason to stop following the account.
        let Some(found) = self.search_unless_refused(Criterion::Since(from)).await? else {
            tracing::info!(account = %self.account, "a mailbox cannot be swept, for the server will not search it");
            return Ok(Vec::new());
        };
        // History that is still to be read is not passed over.
        let first = if mailbox.backfill.next_uid > 0 { mailbox.backfill.next_uid } else { 1 };
        let uids: Vec<Uid> = within(&found, first..=mailbox.cursor.last_uid).iter().collect();
        let numbers: Vec<u32> = uids.iter().map(|uid| uid.get()).collect();
        let (name, validity) = (mailbox.name.as_bytes(), mailbox.cursor.uid_validity);
        let mut session = self.read().await?;
        let mut known: HashSet<u32> =
            session.sightings_by_uids(self.account, name, validity, &numbers).await?;
        known.extend(session.decided_uids(self.account, name, validity, &numbers).await?);
        Ok(uids.into_iter().filter(|uid| !known.contains(&uid.get())).collect())
    }
}
