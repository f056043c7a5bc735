//! Requests that change something: each in one transaction, and with an `Idempotency-Key` never twice.
//!
//! The key's row is written in the transaction of the effect: of two requests at the same time one waits for the other and
//! repeats its answer; a request that fails leaves no row. Not here: how long answers are kept (the store's housekeeping).

use std::ops::{Deref, DerefMut};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Api, access::Access, problem::Problem};
use crate::{
    flow::{self, FlowError},
    store::{self, Idempotency, KeptAnswer, RequestKey, Tx},
};

/// The header that names a request.
pub(super) const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, in octets.
const KEY_BYTES_MAX: usize = 255;
/// How often a request is looked for whose row vanished while it was looked for.
const LOOKS_MAX: usize = 3;

/// What a request is recognised by.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    key: Option<String>,
    /// Method and path within the workspace, however the workspace was named.
    route: String,
    hash: [u8; 32],
}

/// Why a handler ends early: a refusal, or an answer that was given before.
pub(super) enum Stop {
    Problem(Problem),
    Answered(Response),
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Answered(response) => response,
        }
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Problem(error.into())
    }
}

impl From<FlowError> for Stop {
    fn from(error: FlowError) -> Self {
        Self::Problem(error.into())
    }
}

/// A success, ready to be kept and sent.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// It shows something once that is kept nowhere in the clear.
    secret: bool,
}

impl Answer {
    pub(super) fn new<T: Serialize>(status: StatusCode, value: &T) -> Self {
        let body = serde_json::to_string(value).expect("answers have text keys and no serialiser that fails");
        Self { status, body, secret: false }
    }

    pub(super) fn created<T: Serialize>(value: &T) -> Self {
        Self::new(StatusCode::CREATED, value)
    }

    /// The same for what holds a secret: if it is kept for a repetition, then sealed.
    pub(super) fn created_secret<T: Serialize>(value: &T) -> Self {
        Self { secret: true, ..Self::created(value) }
    }

    pub(super) fn ok_secret<T: Serialize>(value: &T) -> Self {
        Self { secret: true, ..Self::ok(value) }
    }

    pub(super) fn accepted<T: Serialize>(value: &T) -> Self {
        Self::new(StatusCode::ACCEPTED, value)
    }

    pub(super) fn ok<T: Serialize>(value: &T) -> Self {
        Self::new(StatusCode::OK, value)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json(self.status, self.body)
    }
}

fn json(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer that was given before.
pub(super) fn replay(status: u16, body: String) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(status).map_err(|_| Problem::internal())?;
    let mut response = json(status, body);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

impl Stamp {
    pub(super) fn of(parts: &Parts, body: &[u8]) -> Result<Self, Problem> {
        let key = if parts.method == Method::POST { key(parts)? } else { None };
        let route = format!("{} {}", parts.method, within_workspace(parts.uri.path()));
        Ok(Self { key, route, hash: *blake3::hash(body).as_bytes() })
    }

    /// Begins the transaction of a request, unless it was made before.
    pub(super) async fn begin(&self, api: &Api, access: &Access) -> Result<Work, Stop> {
        let mut tx = access.begin(api).await?;
        if let Some(request) = self.request()
            && let Some(response) = known(&mut tx, request, &self.hash).await?
        {
            return Err(Stop::Answered(response));
        }
        Ok(Work { tx, stamp: self.clone() })
    }

    /// Ends with the answer given before, if this request was made before. For those that do much before they begin.
    pub(super) async fn require_new(&self, api: &Api, access: &Access) -> Result<(), Stop> {
        if self.key.is_some() {
            // Begun and dropped: nothing is written.
            drop(self.begin(api, access).await?);
        }
        Ok(())
    }

    /// The stamp of one part of a request that takes several transactions.
    pub(super) fn part(&self, number: usize) -> Self {
        Self { route: format!("{} #{number}", self.route), ..self.clone() }
    }

    pub(super) fn request(&self) -> Option<RequestKey<'_>> {
        self.key.as_deref().map(|key| RequestKey { route: &self.route, key })
    }

    pub(super) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

async fn known(tx: &mut Tx, request: RequestKey<'_>, hash: &[u8; 32]) -> Result<Option<Response>, Problem> {
    for _ in 0..LOOKS_MAX {
        match tx.begin_request(request, hash, flow::now()).await? {
            Idempotency::Fresh => return Ok(None),
            Idempotency::Same { status, body } => {
                let body = tx.reveal_answer(request, body).await?;
                return replay(status, body).map(Some);
            }
            Idempotency::Mismatch => return Err(mismatch()),
            Idempotency::Underway => {}
        }
    }
    let advice = "Send it again in a moment.";
    Err(Problem::conflict("idempotency_underway", "The same request is being served now.", advice))
}

pub(super) fn mismatch() -> Problem {
    let detail = "Another request was made with this Idempotency-Key.";
    Problem::conflict("idempotency_mismatch", detail, "Use a new key for a new request.")
        .at("Idempotency-Key")
}

fn key(parts: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = parts.headers.get(KEY_HEADER) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.trim().is_empty() && text.len() <= KEY_BYTES_MAX);
    let detail = format!("The key must be 1 to {KEY_BYTES_MAX} printable ASCII characters.");
    text.map(|text| Some(text.to_owned())).ok_or_else(|| Problem::invalid("Idempotency-Key", detail))
}

/// The path below `/v1/workspaces/{ws}`, so that a workspace named by id or by slug is the same.
fn within_workspace(path: &str) -> &str {
    let below = path.strip_prefix("/v1/workspaces/").and_then(|rest| rest.split_once('/'));
    below.map_or(path, |(_, below)| below)
}

/// The transaction of one request.
pub(super) struct Work {
    tx: Tx,
    stamp: Stamp,
}

impl Work {
    /// Keeps the answer with the effect, commits both, and answers.
    pub(super) async fn finish(mut self, answer: Answer) -> Result<Response, Stop> {
        if let Some(request) = self.stamp.request() {
            let status = answer.status.as_u16();
            match answer.secret {
                true => {
                    self.tx.finish_request_sealed(request, KeptAnswer { status, body: &answer.body }).await?
                }
                false => self.tx.finish_request(request, status, &answer.body).await?,
            }
        }
        self.tx.commit().await?;
        Ok(answer.into_response())
    }
}

impl Deref for Work {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for Work {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_the_same_however_its_workspace_is_named() {
        assert_eq!(within_workspace("/v1/workspaces/acme/contacts"), "contacts");
        assert_eq!(within_workspace("/v1/workspaces/ws_1/accounts/acc_1/sync"), "accounts/acc_1/sync");
        assert_eq!(within_workspace("/v1/workspaces"), "/v1/workspaces");
    }

    #[track_caller]
    fn check(method: Method, key: &str, want: Result<Option<&str>, ()>) {
        let request = axum::http::Request::builder().method(method).header(KEY_HEADER, key).body(()).unwrap();
        let stamp = Stamp::of(&request.into_parts().0, b"");
        assert_eq!(stamp.map(|stamp| stamp.key).map_err(|_| ()), want.map(|key| key.map(str::to_owned)));
    }

    #[test]
    fn keys_are_bounded_and_only_posts_have_one() {
        check(Method::POST, "abc", Ok(Some("abc")));
        check(Method::POST, &"k".repeat(255), Ok(Some(&"k".repeat(255))));
        check(Method::POST, &"k".repeat(256), Err(()));
        check(Method::POST, " ", Err(()));
        check(Method::PUT, "abc", Ok(None));
    }
}
