//! Looks at mailboxes: STATUS of all in one round trip, and where something is new, reads from the cursor on.
//!
//! Not here: when to look (`wait`), and mailboxes whose UIDs have changed (`reindex`).

use super::{
    Failure,
    connection::{Connection, Followed, Wire, view_of_selected, view_of_status, within},
    consume::{Batch, End},
};
use crate::{
    account::judge,
    core::{
        account::Cursor,
        sync_plan::{MailboxView, SyncPlan, Way, plan},
    },
    flow::now,
    imap::{Criterion, Kind, MailboxName, MailboxStatus, ModSeq, News, Selected, Uid, UidSet},
};

impl<S: Wire> Connection<'_, S> {
    /// Looks at every mailbox. When nothing is new that is one round trip, and one more to end IDLE before.
    pub(super) async fn look(&mut self, mailboxes: &mut [Followed]) -> Result<(), Failure> {
        let mut session = self.read().await?;
        self.refresh_policy(&mut session).await?;
        drop(session);
        self.require_admitted()?;
        let names: Vec<MailboxName> = mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        // RFC 9051 section 6.3.11: STATUS of the selected mailbox need not be fresh (Dovecot's is not), but NOOP makes the
        // server say what came.
        let answers = match &self.selected {
            Some(_) => self.client.poll(&names).await?,
            None => self.client.status(&names).await?,
        };
        // What was told of the selected mailbox, by whatever command. Opened anew, it shows everything.
        let told = self.selected.clone().filter(|_| self.client.take_news().arrived.is_some());
        for (mailbox, answer) in mailboxes.iter_mut().zip(answers) {
            // One that cannot be asked about is opened instead.
            let view = answer.map(|status| view_of_status(&status)).unwrap_or_default();
            if told.as_ref() == Some(&mailbox.name) {
                self.enter(mailbox).await?;
            } else {
                self.visit(mailbox, &view).await?;
            }
        }
        self.last_look = now();
        if let Some(lease) = self.lease {
            self.gateway.followers.note_look(lease, self.last_look);
        }
        Ok(())
    }

    /// Looks where the server says that something is new.
    pub(super) async fn heed(&mut self, mailboxes: &mut [Followed], news: News) -> Result<(), Failure> {
        if news.overflow {
            return self.look(mailboxes).await;
        }
        let selected = self.selected.clone();
        for mailbox in mailboxes.iter_mut() {
            if news.arrived.is_some() && selected.as_ref() == Some(&mailbox.name) {
                self.read_on(mailbox, None).await?;
            }
            let told = |status: &&MailboxStatus| status.name == mailbox.name;
            if let Some(view) = news.statuses.iter().find(told).map(view_of_status) {
                self.visit(mailbox, &view).await?;
            }
        }
        Ok(())
    }

    /// Opens a mailbox if it needs something, and does what it needs.
    pub(super) async fn visit(&mut self, mailbox: &mut Followed, view: &MailboxView) -> Result<(), Failure> {
        let is_read = !self.is_former(mailbox) && plan(Some(&mailbox.cursor), view) == SyncPlan::Nothing;
        if mailbox.refused || is_read {
            return Ok(());
        }
        self.enter(mailbox).await
    }

    /// Opens a mailbox and does what it needs. One that the server will not open is left until mailboxes are chosen anew.
    pub(super) async fn enter(&mut self, mailbox: &mut Followed) -> Result<(), Failure> {
        let selected = match self.select(mailbox).await {
            Ok(selected) => selected,
            Err(error)
                if judge(&error) == Kind::Refused && error.connection_lives() && !mailbox.name.is_inbox() =>
            {
                tracing::info!(account = %self.account, error = %error, "a mailbox cannot be opened");
                mailbox.refused = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let plan = match self.is_former(mailbox) {
            true => SyncPlan::Reindex,
            false => plan(Some(&mailbox.cursor), &view_of_selected(&selected)),
        };
        match plan {
            SyncPlan::Nothing | SyncPlan::Baseline => {
                mailbox.cursor.modseq = modseq(&selected, mailbox.cursor);
                Ok(())
            }
            SyncPlan::FetchFrom(_) => self.read_on(mailbox, Some(&selected)).await,
            SyncPlan::Reindex => Box::pin(self.reindex(mailbox, &selected)).await,
        }
    }

    /// Reads the selected mailbox from its cursor on. `selected` is what SELECT said just now, if it was just now: only
    /// then is it sure that the server shows us everything below its UIDNEXT.
    async fn read_on(&mut self, mailbox: &mut Followed, selected: Option<&Selected>) -> Result<(), Failure> {
        let Some(first) = mailbox.cursor.last_uid.checked_add(1).and_then(Uid::new) else { return Ok(()) };
        let found = self.search(Criterion::Uids(&UidSet::range(first, Uid::MAX))).await?;
        // `n:*` always includes the last message, however old.
        let mut left = within(&found, first.get()..=u32::MAX);
        let promised = selected.and_then(|selected| selected.uid_next).map_or(0, |next| next.get() - 1);
        let end = Cursor {
            last_uid: left.last().map_or(0, Uid::get).max(promised).max(mailbox.cursor.last_uid),
            modseq: selected.map_or(mailbox.cursor.modseq, |selected| modseq(selected, mailbox.cursor)),
            ..mailbox.cursor
        };
        while let Some((batch, rest)) = self.next_batch(&left, mailbox, end).await? {
            Box::pin(self.consume(mailbox, batch)).await?;
            left = rest;
        }
        Ok(())
    }

    /// The next messages in ascending order, and what is left after them. `None` when the cursor is where it should be.
    async fn next_batch(
        &mut self,
        left: &UidSet,
        mailbox: &Followed,
        end: Cursor,
    ) -> Result<Option<(Batch, UidSet)>, Failure> {
        if left.is_empty() && mailbox.cursor.last_uid == end.last_uid {
            return Ok(None);
        }
        let uids: Vec<Uid> = left.iter().take(super::headers::BATCH_MAX).collect();
        let (headers, count) = self.headers((&mailbox.name, mailbox.cursor.uid_validity), &uids).await?;
        let last = uids.get(..count).and_then(<[Uid]>::last).map_or(0, |last| last.get());
        let rest =
            if last == u32::MAX { UidSet::new() } else { within(left, last.saturating_add(1)..=u32::MAX) };
        let cursor = if rest.is_empty() { end } else { Cursor { last_uid: last, ..mailbox.cursor } };
        let batch = Batch {
            way: Way::Live,
            uid_validity: mailbox.cursor.uid_validity,
            seen: headers.seen,
            unreadable: headers.unreadable,
            renumbered: None,
            end: End::Cursor(cursor),
        };
        Ok(Some((batch, rest)))
    }
}

fn modseq(selected: &Selected, cursor: Cursor) -> u64 {
    selected.highest_modseq.map_or(cursor.modseq, ModSeq::get)
}
