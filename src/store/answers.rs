//! Answers that need more than a row of their workspace: those that hold a secret, and those of requests that make one.
//!
//! Not here: the plain case (`store::idempotency`) and which answers are secret (`http`).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Idempotency, Place, RequestKey, System, Tx, sql::sql};
use crate::core::ids::WorkspaceId;

/// Begins the stored text of a sealed answer; no JSON begins so.
const SEALED: &str = "sealed:";

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

    /// The text of an answer as it was given.
    ///
    /// # Errors
    /// `Corrupt` when it was altered, or moved here from another row.
    pub async fn reveal_answer(&mut self, request: RequestKey<'_>, body: String) -> Result<String, Error> {
        let Some(text) = body.strip_prefix(SEALED) else { return Ok(body) };
        let corrupt = || Error::Corrupt("idempotency_keys: an answer that cannot be opened".into());
        let sealed = BASE64_STANDARD.decode(text).map_err(|_| corrupt())?;
        let key = self.content_key(None).await?;
        let plain = Zeroizing::new(self.open_sealed(key, &place(request), &sealed).await?);
        std::str::from_utf8(&plain).map(str::to_owned).map_err(|_| corrupt())
    }
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
