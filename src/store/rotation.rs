//! Another master key: every key is wrapped anew, all in one transaction.
//!
//! Not here: the keys' files (`app::rotation`). Content stays as it is sealed: its keys are the same.

use uuid::Uuid;

use super::{Error, MasterKey, Store, sql};
use crate::core::ids::WorkspaceId;

/// Content keys read at a time.
const BATCH: u32 = 500;

impl Store {
    /// Puts another master key in the place of the one that this store was opened with, which opens it no more. Nothing else
    /// may have the store open. Returns how many keys were wrapped anew.
    ///
    /// # Errors
    /// `Corrupt` when a key does not open: then nothing has changed.
    pub async fn rotate_master_key(&self, new: &MasterKey) -> Result<u64, Error> {
        let old = self.0.vault.master();
        let mut system = self.system().await?;
        // First: a node that makes a key at this moment is waited for, and its key is found below; whoever comes later waits for
        // us, and then sees that his master key is the former one.
        system.execute(sql("update vault set proof = $1 where id = 1").bind(new.proof())).await?;
        let (mut count, mut last) = (0, Uuid::nil());
        loop {
            let query =
                sql("select workspace, id, wrapped from content_keys where id > $1 order by id limit $2")
                    .bind(last)
                    .bind(BATCH);
            let rows = system.fetch_all(query).await?;
            for row in &rows {
                let workspace: WorkspaceId = row.id("workspace")?;
                let wrapped: Vec<u8> = row.get("wrapped")?;
                last = row.get("id")?;
                let query = sql("update content_keys set wrapped = $3 where workspace = $1 and id = $2")
                    .bind(workspace)
                    .bind(last)
                    .bind(new.rewrap(old, (workspace, last), &wrapped)?);
                count += system.execute(query).await?;
            }
            if rows.is_empty() {
                break;
            }
        }
        count += system.rewrap_gateway_keys(old, new).await?;
        system.commit().await?;
        Ok(count)
    }

    /// How many accounts are worked at this moment, by whatever node.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn accounts_at_work(&self) -> Result<i64, Error> {
        let now = self.clock().await?;
        let query = sql("select count(*) as accounts from accounts where lease_until > $1").bind(now);
        self.system_read().await?.fetch_one(query).await?.get("accounts")
    }
}
