//! What has left by an account, for what its provider allows in a window.
//!
//! Not here: what users may send by their admins (`limits`), and what follows from a count (`core::provider`).

use jiff::Timestamp;

use super::{Error, Session, Tx, columns::stored_count, sql::sql};
use crate::core::{
    ids::AccountId,
    provider::{SENT_KEPT, Sent},
};

impl Tx {
    /// Counts what leaves by an account, and forgets what no window reaches back to.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn count_account_sent(&mut self, account: AccountId, sent: Sent) -> Result<(), Error> {
        let query = sql("insert into account_sent (workspace, account, slot, messages, recipients) \
             values ($1, $2, $3, $4, $5) on conflict (workspace, account, slot) do update set \
             messages = account_sent.messages + excluded.messages, \
             recipients = account_sent.recipients + excluded.recipients")
        .bind(self.workspace())
        .bind(account)
        .bind(sent.slot)
        .bind(stored_count(sent.messages))
        .bind(stored_count(sent.recipients));
        self.execute(query).await?;
        let query = sql("delete from account_sent where workspace = $1 and account = $2 and slot < $3")
            .bind(self.workspace())
            .bind(account)
            .bind(sent.slot - SENT_KEPT);
        self.execute(query).await.map(drop)
    }

    /// Takes back what was counted in a slot.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn uncount_account_sent(&mut self, account: AccountId, sent: Sent) -> Result<(), Error> {
        let query = sql("update account_sent set \
             messages = case when messages > $4 then messages - $4 else 0 end, \
             recipients = case when recipients > $5 then recipients - $5 else 0 end \
             where workspace = $1 and account = $2 and slot = $3")
        .bind(self.workspace())
        .bind(account)
        .bind(sent.slot)
        .bind(stored_count(sent.messages))
        .bind(stored_count(sent.recipients));
        self.execute(query).await.map(drop)
    }
}

impl Session {
    /// What has left by an account since then, in order.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn account_sent(&mut self, account: AccountId, since: Timestamp) -> Result<Vec<Sent>, Error> {
        let query = sql("select slot, messages, recipients from account_sent \
             where workspace = $1 and account = $2 and slot >= $3 order by slot")
        .bind(self.workspace())
        .bind(account)
        .bind(since);
        let rows = self.fetch_all(query).await?;
        let read = |row: &super::sql::Row| {
            Ok(Sent {
                slot: row.get("slot")?,
                messages: row.get("messages")?,
                recipients: row.get("recipients")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
