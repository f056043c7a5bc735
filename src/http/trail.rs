//! The trail: who changed keys, roles, policies and limits, and who decided about mail and accounts.
//!
//! Not here: writing it down, which every act does by itself (`store::trail`).

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::Parameters,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::core::trail::{Act, Entry};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Serialize, ToSchema)]
#[schema(as = TrailEntry)]
struct EntryView {
    /// Its place in the trail, from 1 on without a gap.
    seq: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who did it: the id of an API key or of a user, `admin`, `command_line`, `gateway`, or the rule by which the gateway did.
    actor: String,
    /// What was done: a stable word.
    #[schema(value_type = String, example = "policy.changed")]
    act: Act,
    /// The id of what it was done to: a key, user, account, message in quarantine, or the workspace.
    subject: String,
}

impl From<Entry> for EntryView {
    fn from(Entry { seq, at, actor, act, subject }: Entry) -> Self {
        Self { seq, at, actor, act, subject }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// List who did what, newest first. What was erased is not named by more than its id.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/trail", tag = "trail", operation_id = "list_trail",
    params(Listing), responses((status = 200, body = List<EntryView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<EntryView>>, Problem> {
    access.act_for_all()?;
    let place = |cursor: &str| page::decode_number(cursor).ok_or_else(page::bad_cursor);
    let before = query.cursor.as_deref().map(place).transpose()?;
    let limit = query.limit.0;
    let mut rows = access.read(&api).await?.trail(before, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|row| page::encode_number(row.seq));
    Ok(Json(List { items: rows.into_iter().map(EntryView::from).collect(), next_cursor }))
}
