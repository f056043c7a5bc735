//! Whether the gateway runs and is ready, and its metrics: for the operator's probes, without a key.
//!
//! Not here: counting (whoever does the work counts) and the health of accounts (`accounts`).

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::Api;
use crate::{
    core::ids::{Id as _, WorkspaceId},
    store,
};

/// How long the store may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Every listener is bound and the store answers.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn readyz(State(api): State<Api>) -> Response {
    let (status, word) = match () {
        () if !api.ready.load(Ordering::Acquire) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        () if !store_answers(&api).await => (StatusCode::SERVICE_UNAVAILABLE, "store unavailable"),
        () => (StatusCode::OK, "ready"),
    };
    (status, Json(Health { status: word })).into_response()
}

async fn store_answers(api: &Api) -> bool {
    let look = async {
        let mut system = api.store().system_read().await?;
        system.workspace(WorkspaceId::from_uuid(Uuid::nil())).await?;
        Ok::<(), store::Error>(())
    };
    matches!(tokio::time::timeout(PROBE_TIMEOUT, look).await, Ok(Ok(())))
}

/// All metrics in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (api.metrics)())
}
