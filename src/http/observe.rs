//! Around every request: its id, its line in the log, its time limit, the headers that every answer has.
//!
//! Not here: anything that depends on the route. Query strings, bodies and addresses reach no log.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Api, problem::Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long a request may take until its answer begins: enough for 50 MiB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// Nothing of the API is a page; nothing it answers may run or be framed.
const API_CSP: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// The reference page brings its own scripts, styles and pictures.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Serves one request.
pub(super) async fn observe(
    State(api): State<Api>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let id = format!("req_{}", Uuid::now_v7().simple());
    let route = path.as_ref().map_or("none", MatchedPath::as_str).to_owned();
    let is_docs = request.uri().path().starts_with("/docs");
    let span = tracing::info_span!("http.request", request = %id, method = %request.method(), route);
    let started = Instant::now();
    let mut response = answer(request, next).instrument(span.clone()).await;
    finish(&api, &mut response, &id, is_docs);
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    metrics::counter!("mailweave_http_requests_total", "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!("mailweave_http_request_seconds", "route" => route).record(elapsed.as_secs_f64());
    span.in_scope(|| tracing::info!(status, milliseconds = elapsed.as_millis(), "a request was answered"));
    response
}

async fn answer(request: Request, next: Next) -> Response {
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(REQUEST_TIMEOUT, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a request made its handler panic");
            Problem::internal().into_response()
        }
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The request took too long.",
            "Send it again with the same Idempotency-Key.",
        )
        .into_response(),
    }
}

fn finish(api: &Api, response: &mut Response, id: &str, is_docs: bool) {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = Body::from(problem.render(id));
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    secure(headers, is_docs);
    if api.is_https {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}

fn secure(headers: &mut HeaderMap, is_docs: bool) {
    let csp = if is_docs { DOCS_CSP } else { API_CSP };
    let always = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A page that has forms says where they lead.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(csp));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
