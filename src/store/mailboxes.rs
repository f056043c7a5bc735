//! How far each mailbox of an account has been read.
//!
//! Not here: deciding what to fetch (`core::sync_plan`). A cursor moves in the transaction that stores what it passed.

use jiff::Timestamp;

use super::{
    Error, Session, Tx,
    columns::{changed, stored_count, word},
    sql::{Row, sql},
};
use crate::core::{
    account::{Backfill, Cursor, FollowedMailbox},
    ids::AccountId,
};

impl Tx {
    /// Begins to follow a mailbox, or begins anew after its UIDVALIDITY changed.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn put_mailbox(&mut self, account: AccountId, mailbox: &FollowedMailbox) -> Result<(), Error> {
        let query =
            sql("insert into mailboxes (workspace, account, name, role, uid_validity, last_uid, modseq, \
             backfill_next_uid, backfill_done, backfill_total, checked_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (workspace, account, name) \
             do update set role = excluded.role, uid_validity = excluded.uid_validity, \
             last_uid = excluded.last_uid, modseq = excluded.modseq, \
             backfill_next_uid = excluded.backfill_next_uid, backfill_done = excluded.backfill_done, \
             backfill_total = excluded.backfill_total, checked_at = excluded.checked_at")
            .bind(self.workspace())
            .bind(account)
            .bind(mailbox.name.as_slice())
            .bind(word(&mailbox.role))
            .bind(mailbox.cursor.uid_validity)
            .bind(mailbox.cursor.last_uid)
            .bind(stored_count(mailbox.cursor.modseq))
            .bind(mailbox.backfill.next_uid)
            .bind(stored_count(mailbox.backfill.done))
            .bind(stored_count(mailbox.backfill.total))
            .bind(mailbox.checked_at);
        self.execute(query).await?;
        Ok(())
    }

    /// Moves a cursor on. It never moves back and never changes its UIDVALIDITY: that is a new beginning (`put_mailbox`).
    ///
    /// # Errors
    /// `Missing` when the mailbox is not followed under this UIDVALIDITY, or was read further than this already.
    pub async fn advance_cursor(
        &mut self,
        account: AccountId,
        name: &[u8],
        cursor: &Cursor,
        checked_at: Timestamp,
    ) -> Result<(), Error> {
        let query = sql("update mailboxes set last_uid = $5, modseq = $6, checked_at = $7 \
             where workspace = $1 and account = $2 and name = $3 and uid_validity = $4 and last_uid <= $5")
        .bind(self.workspace())
        .bind(account)
        .bind(name)
        .bind(cursor.uid_validity)
        .bind(cursor.last_uid)
        .bind(stored_count(cursor.modseq))
        .bind(checked_at);
        changed(self.execute(query).await?)
    }

    /// # Errors
    /// `Missing` when the mailbox is not followed.
    pub async fn set_backfill(
        &mut self,
        account: AccountId,
        name: &[u8],
        backfill: &Backfill,
    ) -> Result<(), Error> {
        let query =
            sql("update mailboxes set backfill_next_uid = $4, backfill_done = $5, backfill_total = $6 \
             where workspace = $1 and account = $2 and name = $3")
            .bind(self.workspace())
            .bind(account)
            .bind(name)
            .bind(backfill.next_uid)
            .bind(stored_count(backfill.done))
            .bind(stored_count(backfill.total));
        changed(self.execute(query).await?)
    }

    /// Stops following a mailbox. What was read from it stays.
    ///
    /// # Errors
    /// `Missing` when it is not followed.
    pub async fn forget_mailbox(&mut self, account: AccountId, name: &[u8]) -> Result<(), Error> {
        let query = sql("delete from mailboxes where workspace = $1 and account = $2 and name = $3")
            .bind(self.workspace())
            .bind(account)
            .bind(name);
        changed(self.execute(query).await?)
    }
}

impl Session {
    /// The mailboxes followed of an account, by name.
    pub async fn mailboxes(&mut self, account: AccountId) -> Result<Vec<FollowedMailbox>, Error> {
        let query =
            sql("select name, role, uid_validity, last_uid, modseq, backfill_next_uid, backfill_done, \
             backfill_total, checked_at from mailboxes where workspace = $1 and account = $2 order by name")
            .bind(self.workspace())
            .bind(account);
        self.fetch_all(query).await?.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<FollowedMailbox, Error> {
    Ok(FollowedMailbox {
        name: row.get("name")?,
        role: row.word("role")?,
        cursor: Cursor {
            uid_validity: row.get("uid_validity")?,
            last_uid: row.get("last_uid")?,
            modseq: row.get("modseq")?,
        },
        backfill: Backfill {
            next_uid: row.get("backfill_next_uid")?,
            done: row.get("backfill_done")?,
            total: row.get("backfill_total")?,
        },
        checked_at: row.get("checked_at")?,
    })
}
