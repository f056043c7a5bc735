//! A user's capture address given anew.
//!
//! Not here: when the gateway does so by itself (`flow::capture_address`).

use axum::{extract::State, response::Response};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, PathId},
    once::{Answer, Stop},
    problem::Problem,
};
use crate::{
    core::{event::RotationCause, ids::UserId},
    flow::{self, capture_address},
    mail::Address,
};

/// Longest time for which an old address goes on.
const OVERLAP_DAYS_MAX: u8 = 30;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(rotate))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotating {
    /// For how many days the old address goes on: 0 to 30. It ends at once when left out.
    #[serde(default)]
    overlap_days: u8,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CaptureAddress)]
struct CaptureAddressView {
    #[schema(value_type = String, format = Email)]
    capture_address: Address,
    /// When the addresses end that the user had before.
    #[schema(value_type = String, format = DateTime)]
    old_ends_at: Timestamp,
}

/// Give a user a new capture address.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/users/{id}/capture-address", tag = "users",
    operation_id = "rotate_capture_address", request_body = Option<Rotating>,
    responses((status = 201, body = CaptureAddressView)))]
async fn rotate(
    State(api): State<Api>,
    access: Access,
    PathId(user): PathId<UserId>,
    input: Input<Rotating>,
) -> Result<Response, Stop> {
    access.act_as(user)?;
    let days = input.value.overlap_days;
    if days > OVERLAP_DAYS_MAX {
        return Err(Problem::invalid("overlap_days", "It is a number from 0 to 30.").into());
    }
    let overlap = SignedDuration::from_hours(24 * i64::from(days));
    let mut work = input.stamp.begin(&api, &access).await?;
    let ours = &api.gateway.settings.ours;
    let rotated =
        capture_address::rotate(&mut work, ours, (user, overlap), (RotationCause::Asked, flow::now()))
            .await?;
    let Some((capture_address, old_ends_at)) = rotated else {
        let advice = "Ask the operator to set domains.capture.";
        return Err(
            Problem::conflict("no_capture_domain", "The gateway has no capture domain.", advice).into()
        );
    };
    work.finish(Answer::created(&CaptureAddressView { capture_address, old_ends_at })).await
}
