//! Compares what a mailbox holds with what was taken note of: each night what came lately, and on demand all since the account
//! was connected. What a server showed too late, or a fault of ours passed over, is found after all, counted and told.
//!
//! Not here: mail from before the account was connected, which the backfill read.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    Failure,
    connection::{Connection, Followed, Wire, within},
    consume::{Batch, End},
};
use crate::{
    core::{account::AccountError, sync_plan::Way},
    flow::now,
    imap::{Criterion, Uid},
    store,
};

/// How far back a nightly sweep looks: some sweeps may have failed.
const RECENT: SignedDuration = SignedDuration::from_hours(72);

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// What came in the last days.
    Recent,
    /// All since the account was connected.
    All,
}

/// What the server has of a span of time.
struct Compared {
    messages: u64,
    passed_over: Vec<Uid>,
}

impl<S: Wire> Connection<'_, S> {
    /// Takes in what was passed over in any mailbox since the account was connected.
    pub(super) async fn sweep(&mut self, mailboxes: &mut [Followed], span: Span) -> Result<(), Failure> {
        for mailbox in mailboxes.iter_mut().filter(|mailbox| !mailbox.refused) {
            self.enter(mailbox).await?;
            let Some(Compared { messages, passed_over }) = self.compare(mailbox, span).await? else {
                continue;
            };
            let healed = self.heal(mailbox, passed_over).await?;
            self.note_comparison(mailbox, (messages, healed)).await?;
        }
        Ok(())
    }

    /// Takes in what was passed over. Returns how much of it came since the account was connected.
    async fn heal(&mut self, mailbox: &mut Followed, mut passed_over: Vec<Uid>) -> Result<u64, Failure> {
        let mut healed = 0;
        while !passed_over.is_empty() {
            let place = (&mailbox.name, mailbox.cursor.uid_validity);
            let (mut headers, count) = self.headers(place, &passed_over).await?;
            passed_over.drain(..count);
            // A server tells the second (RFC 9051, INTERNALDATE), and we know it better.
            let connected_at = self.connected_at.as_second();
            let is_ours = |date: Timestamp| date.as_second() >= connected_at;
            headers.seen.retain(|message| message.internal_date.is_some_and(is_ours));
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
                healed += found as u64;
            }
        }
        Ok(healed)
    }

    /// `None` when the mailbox cannot be compared.
    async fn compare(&mut self, mailbox: &Followed, span: Span) -> Result<Option<Compared>, Failure> {
        // One that was refused is not open, and there is nothing to search.
        if mailbox.refused {
            return Ok(None);
        }
        if mailbox.cursor.last_uid == 0 {
            return Ok(Some(Compared { messages: 0, passed_over: Vec::new() }));
        }
        let from = match span {
            Span::Recent => self.connected_at.max(now() - RECENT),
            Span::All => self.connected_at,
        };
        // A server west of us calls the day by the one before (RFC 9051 section 6.4.4: SINCE heeds no time zone).
        let from = from.to_zoned(jiff::tz::TimeZone::UTC).date();
        let from = from.yesterday().unwrap_or(from);
        // The next sweep may have better luck; there is no reason to stop following the account.
        let Some(found) = self.search_unless_refused(Criterion::Since(from)).await? else {
            tracing::info!(account = %self.account, "a mailbox cannot be swept, for the server will not search it");
            return Ok(None);
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
        let messages = uids.len() as u64;
        let passed_over = uids.into_iter().filter(|uid| !known.contains(&uid.get())).collect();
        Ok(Some(Compared { messages, passed_over }))
    }

    async fn note_comparison(
        &self,
        mailbox: &Followed,
        (messages, healed): (u64, u64),
    ) -> Result<(), store::Error> {
        let now = now();
        let mut tx = self.begin().await?;
        tx.note_comparison((self.account, mailbox.name.as_bytes()), (messages, healed), now).await?;
        if healed > 0 {
            let told = AccountError {
                at: now,
                code: "mail_passed_over".to_owned(),
                message: "Mail that had been passed over was found by comparing a mailbox with the server, and taken in."
                    .to_owned(),
                advice: "Nothing is to be done. If it comes again and again, tell whoever runs the gateway.".to_owned(),
                count: i64::try_from(healed).unwrap_or(i64::MAX),
            };
            tx.log_account_error(self.account, &told).await?;
        }
        tx.commit().await
    }
}
