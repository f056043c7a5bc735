//! Which mailboxes of an account are followed, and where reading a new one begins.
//!
//! INBOX and Sent, by SPECIAL-USE and then by name; at Gmail All Mail, which holds both and what was archived before we
//! looked. Not here: the names (`imap::choose`) and reading.

use jiff::SignedDuration;

use super::{
    Failure,
    connection::{Connection, Followed, Wire, within},
    health,
};
use crate::{
    account::{self, Trouble},
    core::{
        account::{AccountError, Backfill, Cursor, FollowedMailbox, MailboxRole},
        job::refetch_lane,
    },
    flow::now,
    imap::{Chosen, Criterion, MailboxName, ModSeq, Selected, ServerText, Uid, UidSet},
    store::Tx,
};

/// How long connecting may take. Who could log in only later is connected from then on: what came before is history, all of it
/// alike, however much of it the first sweep would have found.
const CONNECTING: SignedDuration = SignedDuration::from_mins(2);

impl<S: Wire> Connection<'_, S> {
    /// Chooses the mailboxes, begins to follow those that are new, and lets go of those that are no longer chosen. The
    /// first is the one to wait on.
    pub(super) async fn choose(&mut self) -> Result<Vec<Followed>, Failure> {
        let chosen = account::choose(&self.client.list().await?, self.provider);
        let wanted = wanted(chosen, self.client.capabilities().gmail());
        let rows = self.read().await?.mailboxes(self.account).await?;
        if rows.is_empty() && now().duration_since(self.connected_at) > CONNECTING {
            self.connected_at = now();
        }
        let (mut followed, mut new) = (Vec::new(), Vec::new());
        for (name, role) in &wanted {
            match rows.iter().find(|row| row.name == name.as_bytes() && row.role == *role) {
                Some(row) => followed.extend(Followed::from_row(row)),
                None => {
                    let begun = self.begin_to_follow(name, *role, row_of(&rows, name)).await?;
                    new.extend(begun.as_ref().map(Followed::row));
                    followed.extend(begun);
                }
            }
        }
        self.record_choice(&rows, &followed, new).await?;
        Ok(followed)
    }

    /// Finds where a mailbox ends: older mail is history. `None` when the server does not let us in.
    async fn begin_to_follow(
        &mut self,
        name: &MailboxName,
        role: MailboxRole,
        known: Option<&FollowedMailbox>,
    ) -> Result<Option<Followed>, Failure> {
        // Known in another role: only that changes.
        if let Some(row) = known {
            return Ok(Followed::from_row(row).map(|known| Followed { role, ..known }));
        }
        let selected = match self.client.examine(name, None).await {
            Err(error) if error.connection_lives() && role != MailboxRole::Inbox => {
                tracing::info!(account = %self.account, error = %error, "a mailbox cannot be opened and is not followed");
                return Ok(None);
            }
            selected => selected?,
        };
        self.selected = Some(name.clone());
        let cursor = self.end_of(&selected);
        let history = self.history(cursor.last_uid).await?;
        let next_uid = if history.is_empty() { 0 } else { cursor.last_uid.saturating_add(1) };
        Ok(Some(Followed {
            name: name.clone(),
            role,
            cursor,
            backfill: Backfill { next_uid, done: 0, total: history.len() },
            checked_at: now(),
            history: Some(history),
            refused: false,
        }))
    }

    /// A cursor behind everything that is there.
    pub(super) fn end_of(&self, selected: &Selected) -> Cursor {
        Cursor {
            uid_validity: self.era_of(selected),
            last_uid: selected.uid_next.map_or(0, |next| next.get() - Uid::MIN.get()),
            modseq: selected.highest_modseq.map_or(0, ModSeq::get),
        }
    }

    /// The mail of the selected mailbox that a backfill reads, up to this UID. It goes back to the same day whenever it is asked
    /// for: history that waits for limits takes many days to read, and the oldest of it is as much wanted as on the first.
    pub(super) async fn history(&mut self, last_uid: u32) -> Result<UidSet, Failure> {
        if self.policy.settings.backfill_days == 0 || last_uid == 0 {
            return Ok(UidSet::new());
        }
        let found = self.search(Criterion::Since(self.horizon(self.connected_at))).await?;
        Ok(within(&found, 1..=last_uid))
    }

    async fn record_choice(
        &mut self,
        rows: &[FollowedMailbox],
        followed: &[Followed],
        new: Vec<FollowedMailbox>,
    ) -> Result<(), Failure> {
        let alerts = self.client.take_alerts();
        let is_followed = |row: &FollowedMailbox| followed.iter().any(|f| f.name.as_bytes() == row.name);
        let mut tx = self.begin().await?;
        if rows.is_empty() {
            tx.set_connected_at(self.account, self.connected_at).await?;
        }
        for row in rows.iter().filter(|row| !is_followed(row)) {
            tx.forget_mailbox(self.account, &row.name).await?;
        }
        for row in &new {
            tx.put_mailbox(self.account, row).await?;
        }
        if !followed.iter().any(|mailbox| matches!(mailbox.role, MailboxRole::Sent | MailboxRole::All)) {
            tx.log_account_error(self.account, &Trouble::NoSentMailbox.entry(now())).await?;
        }
        self.log_alerts(&mut tx, &alerts).await?;
        tx.commit().await?;
        Ok(())
    }

    /// RFC 9051 wants alerts shown to the user.
    async fn log_alerts(&self, tx: &mut Tx, alerts: &[ServerText]) -> Result<(), Failure> {
        for alert in alerts {
            let entry = AccountError {
                at: now(),
                code: "provider_alert".into(),
                message: format!("The provider says: {alert}"),
                advice: "See what the provider wants to be known.".into(),
                count: 1,
            };
            tx.log_account_error(self.account, &entry).await?;
        }
        Ok(())
    }

    /// Notes that all went well, and what state follows from it.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        let mut tx = self.begin().await?;
        health::settle(&mut tx, self.gateway, self.account, health::Tell::EndOnly).await?;
        // Errands that were put off until the account could be worked, or its new UIDs were known.
        tx.hasten(&refetch_lane(self.account), now()).await?;
        self.resume_put_off(&mut tx, now()).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn row_of<'r>(rows: &'r [FollowedMailbox], name: &MailboxName) -> Option<&'r FollowedMailbox> {
    rows.iter().find(|row| row.name == name.as_bytes())
}

/// The mailboxes that matter.
pub(super) fn wanted(chosen: Chosen, gmail: bool) -> Vec<(MailboxName, MailboxRole)> {
    if let Some(all) = chosen.all.filter(|_| gmail) {
        return vec![(all, MailboxRole::All)];
    }
    let sent = chosen.sent.into_iter().chain(chosen.other_sent).filter(|name| *name != chosen.inbox);
    std::iter::once((chosen.inbox.clone(), MailboxRole::Inbox))
        .chain(sent.map(|name| (name, MailboxRole::Sent)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MailboxName {
        MailboxName::new(text.as_bytes()).unwrap()
    }

    fn chosen(sent: &[&str], all: Option<&str>) -> Chosen {
        Chosen {
            inbox: MailboxName::inbox(),
            sent: sent.first().map(|text| name(text)),
            other_sent: sent.iter().skip(1).map(|text| name(text)).collect(),
            drafts: None,
            all: all.map(name),
            archive: None,
            junk: None,
            trash: None,
        }
    }

    #[track_caller]
    fn check(chosen: Chosen, gmail: bool, expect: &[(&str, MailboxRole)]) {
        let got = wanted(chosen, gmail);
        let expect: Vec<_> = expect.iter().map(|(text, role)| (name(text), *role)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn inbox_and_every_sent_are_followed_and_at_gmail_all_mail_alone() {
        use MailboxRole::{All, Inbox, Sent};
        check(chosen(&["Sent"], None), false, &[("INBOX", Inbox), ("Sent", Sent)]);
        check(chosen(&[], None), false, &[("INBOX", Inbox)]);
        let two = &[("INBOX", Inbox), ("Sent", Sent), ("Sent Items", Sent)];
        check(chosen(&["Sent", "Sent Items"], None), false, two);
        check(chosen(&["Sent"], Some("[Gmail]/All Mail")), true, &[("[Gmail]/All Mail", All)]);
        // Elsewhere such a mailbox is a view that the user made: it may lack anything.
        check(chosen(&["Sent"], Some("All")), false, &[("INBOX", Inbox), ("Sent", Sent)]);
    }
}
