//! The CRM's own keys for orders: each stands for one order and for the message it became.
//!
//! Not here: what makes two orders the same (`core::inbound`), and the keys of HTTP requests (`store::idempotency`).

use jiff::Timestamp;

use super::{Error, PURGE_ROWS_MAX, Session, System, Tx, sql::sql};
use crate::core::{
    ids::{MessageKey, WorkspaceId},
    inbound::OrderKey,
};

/// The `Conflict` of an order whose key stands for another one.
pub const ORDER_KEY_USED: &str = "order_keys_pkey";

impl System {
    /// Takes a key for an order, or finds that it stands for this order already. False when it stands for another one: that
    /// fails no statement, so the transaction goes on with the orders beside it.
    ///
    /// # Errors
    /// `Missing` when the workspace is gone.
    pub(super) async fn claim_order_key(
        &mut self,
        workspace: WorkspaceId,
        key: &OrderKey,
        now: Timestamp,
    ) -> Result<bool, Error> {
        // The update changes nothing but makes the statement return the row, whoever wrote it.
        let query =
            sql("insert into order_keys (workspace, name, content, created_at) values ($1, $2, $3, $4) \
             on conflict (workspace, name) do update set content = order_keys.content returning content")
            .bind(workspace)
            .bind(key.name)
            .bind(key.content)
            .bind(now);
        let stands_for: [u8; 32] = self.fetch_one(query).await?.get("content")?;
        Ok(stands_for == key.content)
    }

    /// Forgets the keys taken before this time, so many at once that nobody waits long for it. Returns how many.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn purge_order_keys(&mut self, before: Timestamp) -> Result<u64, Error> {
        let query = sql("delete from order_keys where (workspace, name) in \
             (select workspace, name from order_keys where created_at < $1 order by created_at limit $2)")
        .bind(before)
        .bind(PURGE_ROWS_MAX);
        self.execute(query).await
    }
}

impl Session {
    /// What the order under this key became, if a part of it was filed.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn ordered_message(&mut self, key: &OrderKey) -> Result<Option<MessageKey>, Error> {
        let query = sql("select message from order_keys where workspace = $1 and name = $2")
            .bind(self.workspace())
            .bind(key.name);
        let row = self.fetch_optional(query).await?;
        row.map(|row| row.opt_id("message")).transpose().map(Option::flatten)
    }
}

impl Tx {
    /// Notes what the order under this key became. A key that was forgotten meanwhile stays so.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn note_ordered_message(&mut self, key: &OrderKey, message: MessageKey) -> Result<(), Error> {
        let query = sql("update order_keys set message = $3 where workspace = $1 and name = $2")
            .bind(self.workspace())
            .bind(key.name)
            .bind(message);
        self.execute(query).await.map(drop)
    }
}
