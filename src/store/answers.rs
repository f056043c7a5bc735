//! Answers that need more than a row of their workspace: those that hold a secret, those of requests that make one, and those
//! that show what is erased since.
//!
//! Not here: the plain case (`store::idempotency`) and which answers are secret (`http`).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Error, Idempotency, Place, RequestKey, Session, System, Tx,
    columns::json_text,
    sql::{Row, sql},
};
use crate::core::ids::{AccountId, WorkspaceId};

/// Begins the stored text of a sealed answer; no JSON begins so.
const SEALED: &str = "sealed:";
/// Answers read at once: each is some kilobytes.
const ANSWERS_AT_ONCE: u32 = 500;

/// An answer as it is kept.
#[derive(Debug, Clone, Copy)]
pub struct KeptAnswer<'a> {
    pub status: u16,
    pub body: &'a str,
}

/// A request that makes a workspace, and so cannot be looked for in one.
#[derive(Debug, Clone, Copy)]
pub struct InstanceRequest<'a> {
    pub request: RequestKey<'a>,
    pub hash: &'a [u8; 32],
}

impl Tx {
    /// Keeps an answer that holds a secret: sealed under the workspace's key, readable in this row alone.
    ///
    /// # Errors
    /// `Missing` when the request was not begun.
    pub async fn finish_request_sealed(
        &mut self,
        request: RequestKey<'_>,
        kept: KeptAnswer<'_>,
    ) -> Result<(), Error> {
        let key = self.content_key(None).await?;
        let sealed = self.seal(key, &place(request), kept.body.as_bytes()).await?;
        let text = format!("{SEALED}{}", BASE64_STANDARD.encode(sealed));
        self.finish_request(request, kept.status, &text).await
    }
}

impl Session {
    /// The text of an answer as it was given.
    ///
    /// # Errors
    /// `Corrupt` when it was altered, or moved here from another row.
    pub async fn reveal_answer(&mut self, request: RequestKey<'_>, body: String) -> Result<String, Error> {
        let Some(text) = body.strip_prefix(SEALED) else { return Ok(body) };
        let corrupt = || Error::Corrupt("idempotency_keys: an answer that cannot be opened".into());
        let sealed = BASE64_STANDARD.decode(text).map_err(|_| corrupt())?;
        let key = self.workspace_key().await?;
        let plain = Zeroizing::new(self.open_sealed(key, &place(request), &sealed).await?);
        std::str::from_utf8(&plain).map(str::to_owned).map_err(|_| corrupt())
    }
}

/// What names a kept answer in its workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerName {
    pub route: String,
    pub key: String,
}

impl Session {
    /// Some answers to merges, splits and what undoes them, after this one, by name. What is no JSON is null.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn answers_to_repairs(
        &mut self,
        after: Option<&AnswerName>,
    ) -> Result<Vec<(AnswerName, Value)>, Error> {
        let (route, key) = after.map_or(("", ""), |after| (after.route.as_str(), after.key.as_str()));
        let query = sql(format!(
            "select route, key, body from idempotency_keys where workspace = $1 and (route, key) > ($2, $3) \
             and (route like 'POST conversations/%' or route like 'POST repairs/%') order by route, key limit {ANSWERS_AT_ONCE}"
        ));
        let query = query.bind(self.workspace()).bind(route).bind(key);
        self.fetch_all(query).await?.iter().map(read_answer).collect()
    }
}

impl Tx {
    /// The answers to requests to connect this account or to do something to it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn answers_about(&mut self, account: AccountId) -> Result<Vec<(AnswerName, Value)>, Error> {
        let query = sql("select route, key, body from idempotency_keys where workspace = $1 \
             and route like 'POST accounts%' and (route like $2 or body like $3)")
        .bind(self.workspace())
        .bind(format!("POST accounts/{account}/%"))
        .bind(format!("%\"{account}\"%"));
        self.fetch_all(query).await?.iter().map(read_answer).collect()
    }

    /// Puts another text in the place of an answer. One that is not kept any more is no error.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn rewrite_answer(&mut self, name: &AnswerName, body: &Value) -> Result<(), Error> {
        let query =
            sql("update idempotency_keys set body = $4 where workspace = $1 and route = $2 and key = $3")
                .bind(self.workspace())
                .bind(name.route.as_str())
                .bind(name.key.as_str())
                .bind(json_text(body));
        self.execute(query).await.map(drop)
    }
}

fn read_answer(row: &Row) -> Result<(AnswerName, Value), Error> {
    let body = serde_json::from_str(&row.get::<String>("body")?).unwrap_or_default();
    Ok((AnswerName { route: row.get("route")?, key: row.get("key")? }, body))
}

impl System {
    /// Begins a request that makes a workspace, or learns what became of it. Of two with the same key one waits for the
    /// other's transaction.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn begin_instance_request(&mut self, asked: InstanceRequest<'_>) -> Result<Idempotency, Error> {
        let InstanceRequest { request, hash } = asked;
        // SQLite has one writer, and this transaction is it.
        if self.store().is_shared() {
            let (lock, _) = place(request).row.as_u64_pair();
            self.execute(sql("select pg_advisory_xact_lock($1)").bind(lock.cast_signed())).await?;
        }
        let query =
            sql("select request_hash, status, body from idempotency_keys where route = $1 and key = $2")
                .bind(request.route)
                .bind(request.key);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(Idempotency::Fresh) };
        if row.get::<[u8; 32]>("request_hash")? != *hash {
            return Ok(Idempotency::Mismatch);
        }
        Ok(Idempotency::Same { status: row.get("status")?, body: row.get("body")? })
    }

    /// Keeps the answer with the workspace that was made.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn finish_instance_request(
        &mut self,
        workspace: WorkspaceId,
        asked: InstanceRequest<'_>,
        kept: KeptAnswer<'_>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let InstanceRequest { request, hash } = asked;
        let query = sql("insert into idempotency_keys (workspace, route, key, request_hash, status, body, \
             created_at) values ($1, $2, $3, $4, $5, $6, $7)")
        .bind(workspace)
        .bind(request.route)
        .bind(request.key)
        .bind(hash)
        .bind(kept.status)
        .bind(kept.body)
        .bind(now);
        self.execute(query).await.map(drop)
    }
}

/// The row has no id of its own: one is made of what names it.
fn place(request: RequestKey<'_>) -> Place {
    let mut hash = blake3::Hasher::new();
    // No route holds a NUL: nothing of it runs into the key.
    hash.update(request.route.as_bytes()).update(&[0]).update(request.key.as_bytes());
    let mut row = [0; 16];
    hash.finalize_xof().fill(&mut row);
    Place::new("idempotency_keys", "body", Uuid::from_bytes(row))
}
