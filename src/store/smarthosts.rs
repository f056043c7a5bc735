//! The workspace's smarthost: where bulk and workflow mail leaves.
//!
//! Not here: choosing between it and an account (`core::policy`), and sending (`flow::submit`).

use jiff::Timestamp;

use super::{
    Error, Place, Session, Tx,
    columns::{changed, json_text},
    credentials,
    sql::sql,
};
use crate::core::{account::Credentials, ids::Id as _, ids::WorkspaceId, submission::Smarthost};

impl Tx {
    /// Sets the smarthost, in place of any other.
    pub async fn put_smarthost(
        &mut self,
        smarthost: &Smarthost,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<(), Error> {
        let key = self.content_key(None).await?;
        let place = place(self.workspace());
        let sealed = credentials::seal(self, key, &place, credentials).await?;
        let query = sql("insert into smarthosts (workspace, settings, credentials, key_id, updated_at) \
             values ($1, $2, $3, $4, $5) on conflict (workspace) do update set settings = excluded.settings, \
             credentials = excluded.credentials, key_id = excluded.key_id, updated_at = excluded.updated_at")
        .bind(self.workspace())
        .bind(json_text(smarthost))
        .bind(sealed)
        .bind(key)
        .bind(now);
        self.execute(query).await?;
        Ok(())
    }

    /// # Errors
    /// `Missing` when there is none.
    pub async fn delete_smarthost(&mut self) -> Result<(), Error> {
        let query = sql("delete from smarthosts where workspace = $1").bind(self.workspace());
        changed(self.execute(query).await?)
    }
}

impl Session {
    /// The smarthost without what logs in there.
    pub async fn smarthost(&mut self) -> Result<Option<Smarthost>, Error> {
        let query = sql("select settings from smarthosts where workspace = $1").bind(self.workspace());
        self.fetch_optional(query).await?.map(|row| row.json("settings")).transpose()
    }

    /// What logs in to the smarthost.
    ///
    /// # Errors
    /// `Corrupt` when the text was altered or moved here from another row.
    pub async fn smarthost_credentials(&mut self) -> Result<Option<Credentials>, Error> {
        let query =
            sql("select credentials, key_id from smarthosts where workspace = $1").bind(self.workspace());
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        let (sealed, place): (Vec<u8>, _) = (row.get("credentials")?, place(self.workspace()));
        credentials::open(self, row.get("key_id")?, &place, &sealed).await.map(Some)
    }
}

fn place(workspace: WorkspaceId) -> Place {
    Place::new("smarthosts", "credentials", workspace.uuid())
}
