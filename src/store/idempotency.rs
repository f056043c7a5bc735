//! Requests that are made twice are done once: the answer to each `Idempotency-Key`, for as long as it is kept.
//!
//! Not here: hashing requests, and which answers are worth keeping (`http`).

use jiff::Timestamp;

use super::{
    Error, PURGE_ROWS_MAX, System, Tx,
    columns::changed,
    sql::{Row, sql},
};

/// The status of a request that has no answer yet: no answer has it.
const UNDERWAY: u16 = 0;

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// Never made before: it is this caller's to do, and `finish_request` ends it, in the transaction that does it: one that is undone was never made.
    Fresh,
    /// The same request is being done by somebody else.
    Underway,
    /// Done, with this answer.
    Same { status: u16, body: String },
    /// Another request had this key.
    Mismatch,
}

/// The name of a request: what was asked for, under which key.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey<'a> {
    pub route: &'a str,
    pub key: &'a str,
}

impl Tx {
    /// Begins a request, or learns what became of it. Of two at the same time one waits for the other's transaction.
    pub async fn begin_request(
        &mut self,
        request: RequestKey<'_>,
        request_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Idempotency, Error> {
        let query = sql("insert into idempotency_keys (workspace, route, key, request_hash, status, body, \
             created_at) values ($1, $2, $3, $4, $5, '', $6) on conflict (workspace, route, key) do nothing")
        .bind(self.workspace())
        .bind(request.route)
        .bind(request.key)
        .bind(request_hash)
        .bind(UNDERWAY)
        .bind(now);
        if self.execute(query).await? > 0 {
            return Ok(Idempotency::Fresh);
        }
        let query = sql("select request_hash, status, body from idempotency_keys \
             where workspace = $1 and route = $2 and key = $3")
        .bind(self.workspace())
        .bind(request.route)
        .bind(request.key);
        // Abandoned in between: the caller tries again.
        let Some(row) = self.fetch_optional(query).await? else { return Ok(Idempotency::Underway) };
        read(&row, request_hash)
    }

    /// Keeps the answer.
    ///
    /// # Errors
    /// `Missing` when the request was not begun.
    pub async fn finish_request(
        &mut self,
        request: RequestKey<'_>,
        status: u16,
        body: &str,
    ) -> Result<(), Error> {
        let query = sql("update idempotency_keys set status = $4, body = $5 \
             where workspace = $1 and route = $2 and key = $3")
        .bind(self.workspace())
        .bind(request.route)
        .bind(request.key)
        .bind(status)
        .bind(body);
        changed(self.execute(query).await?)
    }
}

impl System {
    /// Forgets the answers to requests made before this time, so many at once that nobody waits long for it. Returns how
    /// many.
    pub async fn purge_requests(&mut self, before: Timestamp) -> Result<u64, Error> {
        let query = sql("delete from idempotency_keys where (workspace, route, key) in \
             (select workspace, route, key from idempotency_keys where created_at < $1 \
             order by created_at limit $2)")
        .bind(before)
        .bind(PURGE_ROWS_MAX);
        self.execute(query).await
    }
}

fn read(row: &Row, request_hash: &[u8; 32]) -> Result<Idempotency, Error> {
    if row.get::<[u8; 32]>("request_hash")? != *request_hash {
        return Ok(Idempotency::Mismatch);
    }
    let status: u16 = row.get("status")?;
    Ok(match status {
        UNDERWAY => Idempotency::Underway,
        status => Idempotency::Same { status, body: row.get("body")? },
    })
}
