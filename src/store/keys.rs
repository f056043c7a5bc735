//! API keys, kept as hashes of their secrets.
//!
//! Not here: minting secrets and hashing them (the edge does), and what a scope allows (`core::people`).

use jiff::{SignedDuration, Timestamp};

use super::{
    Error, Page, ReadSystem, Session, System, Tx,
    columns::{changed, json_text},
    sql::{Row, sql},
    statement::Statement,
};
use crate::core::{ids::ApiKeyId, people::ApiKey, trail::Act};

/// A key's last use is written down at most this often: knowing it to the minute is not worth a write for every request.
const TOUCH_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

const COLUMNS: &str = "workspace, id, name, scopes, user_id, created_at, last_used_at";

impl Tx {
    /// # Errors
    /// `Conflict` when a key with this secret exists.
    pub async fn insert_key(&mut self, key: &ApiKey, secret_hash: &[u8]) -> Result<(), Error> {
        let query =
            sql("insert into api_keys (workspace, id, name, secret_hash, scopes, user_id, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7)")
            .bind(self.workspace())
            .bind(key.id)
            .bind(key.name.as_str())
            .bind(secret_hash)
            .bind(json_text(&key.scopes))
            .bind(key.user_id)
            .bind(key.created_at);
        self.execute(query).await?;
        self.note_act(Act::KeyCreated, key.id).await
    }

    /// # Errors
    /// `Missing` when there is no such key.
    pub async fn delete_key(&mut self, id: ApiKeyId) -> Result<(), Error> {
        let query =
            sql("delete from api_keys where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        changed(self.execute(query).await?)?;
        self.note_act(Act::KeyRevoked, id).await
    }
}

impl Session {
    /// The key of this id; `None` once it was revoked.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn api_key(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, Error> {
        let query = sql(format!("select {COLUMNS} from api_keys where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// Newest first.
    pub async fn keys(&mut self, page: &Page) -> Result<Vec<ApiKey>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from api_keys where workspace = "))
            .arg(self.workspace())
            .page(page, "created_at", "id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }
}

impl ReadSystem {
    /// The key a secret belongs to, whatever the workspace.
    pub async fn key_by_hash(&mut self, secret_hash: &[u8]) -> Result<Option<ApiKey>, Error> {
        let query = sql(format!("select {COLUMNS} from api_keys where secret_hash = $1")).bind(secret_hash);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }
}

impl System {
    /// Notes that a key was used, to the minute. True when that was written down.
    pub async fn touch_key(&mut self, key: &ApiKey, now: Timestamp) -> Result<bool, Error> {
        let query = sql("update api_keys set last_used_at = $3 where workspace = $1 and id = $2 \
             and (last_used_at is null or last_used_at <= $4)")
        .bind(key.workspace)
        .bind(key.id)
        .bind(now)
        .bind(now - TOUCH_INTERVAL);
        Ok(self.execute(query).await? > 0)
    }
}

fn read(row: &Row) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: row.id("id")?,
        workspace: row.id("workspace")?,
        name: row.get("name")?,
        scopes: row.json("scopes")?,
        user_id: row.opt_id("user_id")?,
        created_at: row.get("created_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}
