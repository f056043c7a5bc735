//! What has gone over IMAP for an account, for what its provider allows in a window.
//!
//! Not here: what follows from a count (`core::provider`).

use jiff::Timestamp;

use super::{
    Error, Session, Tx,
    columns::stored_count,
    sql::{Row, sql},
};
use crate::core::{
    ids::AccountId,
    provider::{Octets, SENT_KEPT},
};

impl Tx {
    /// Counts what went over, and forgets what no window reaches back to.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn count_account_octets(&mut self, account: AccountId, octets: Octets) -> Result<(), Error> {
        let query = sql("insert into account_octets (workspace, account, slot, read, handed_over) \
             values ($1, $2, $3, $4, $5) on conflict (workspace, account, slot) do update set \
             read = account_octets.read + excluded.read, \
             handed_over = account_octets.handed_over + excluded.handed_over")
        .bind(self.workspace())
        .bind(account)
        .bind(octets.slot)
        .bind(stored_count(octets.read))
        .bind(stored_count(octets.handed_over));
        self.execute(query).await?;
        let query = sql("delete from account_octets where workspace = $1 and account = $2 and slot < $3")
            .bind(self.workspace())
            .bind(account)
            .bind(octets.slot - SENT_KEPT);
        self.execute(query).await.map(drop)
    }
}

impl Session {
    /// What has gone over for an account since then, in order.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn account_octets(
        &mut self,
        account: AccountId,
        since: Timestamp,
    ) -> Result<Vec<Octets>, Error> {
        let query = sql("select slot, read, handed_over from account_octets \
             where workspace = $1 and account = $2 and slot >= $3 order by slot")
        .bind(self.workspace())
        .bind(account)
        .bind(since);
        let rows = self.fetch_all(query).await?;
        let read = |row: &Row| {
            let (read, handed_over) = (row.get("read")?, row.get("handed_over")?);
            Ok(Octets { slot: row.get("slot")?, read, handed_over })
        };
        rows.iter().map(read).collect()
    }
}
