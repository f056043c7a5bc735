//! What admins allow a workspace and its users, and how much of it is used.
//!
//! Not here: what happens at a limit (`flow`); policy says whether mail waits or fails (`over_sync`, `over_send`).

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, PathId},
    openapi::SentUnitWord,
    problem::Problem,
};
use crate::{
    core::{
        ids::UserId,
        limits::{Limits, SentUnit, Standing},
    },
    flow::{self, limits::Usage},
    store::{Session, Tx},
};

/// The largest limit: more is none.
const LIMIT_MAX: u32 = 100_000_000;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(of_workspace, limit_workspace))
        .routes(routes!(of_user, limit_user))
        .routes(routes!(usage))
}

/// What is allowed; null allows everything.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Limits)]
struct LimitsBody {
    /// Messages of a user's accounts that are filed in a day, which begins at midnight in the workspace's time zone.
    #[serde(default)]
    synced_per_day: Option<u32>,
    /// What a user sends in a day.
    #[serde(default)]
    sent_per_day: Option<u32>,
    /// What a user sends in any 24 hours.
    #[serde(default)]
    sent_per_24h: Option<u32>,
    /// What is counted as sent: `recipients`, as when nothing is said, or `messages`.
    #[serde(default)]
    #[schema(value_type = Option<SentUnitWord>)]
    sent_unit: Option<SentUnit>,
    /// Accounts connected at a time: in the workspace as a whole, or of the user.
    #[serde(default)]
    accounts: Option<u32>,
}

impl LimitsBody {
    fn check(self) -> Result<Limits, Problem> {
        let Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts } = self;
        for (param, limit) in [
            ("synced_per_day", synced_per_day),
            ("sent_per_day", sent_per_day),
            ("sent_per_24h", sent_per_24h),
            ("accounts", accounts),
        ] {
            if limit.is_some_and(|limit| limit > LIMIT_MAX) {
                let detail = format!("A limit is at most {LIMIT_MAX}.");
                return Err(Problem::invalid(param, detail).advice("Send null for no limit."));
            }
        }
        Ok(Limits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts })
    }
}

impl From<Limits> for LimitsBody {
    fn from(limits: Limits) -> Self {
        let Limits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts } = limits;
        Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts }
    }
}

/// Show what the workspace allows: each of its users, unless he has a limit of his own, and how many accounts in all.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/limits", tag = "limits", operation_id = "get_limits",
    responses((status = 200, body = LimitsBody)))]
async fn of_workspace(State(api): State<Api>, access: Access) -> Result<Json<LimitsBody>, Problem> {
    let allowance = access.read(&api).await?.allowance(None).await?;
    Ok(Json(allowance.workspace.into()))
}

/// Set what the workspace allows; what is left out or null is allowed without limit. It holds from the next message on.
/// Accounts that are connected stay so.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/limits", tag = "limits", operation_id = "put_limits",
    request_body = LimitsBody, responses((status = 200, body = LimitsBody)))]
async fn limit_workspace(
    State(api): State<Api>,
    access: Access,
    input: Input<LimitsBody>,
) -> Result<Json<LimitsBody>, Problem> {
    access.act_for_all()?;
    let limits = input.value.check()?;
    let tx = api.store().begin(access.workspace).await?;
    put(tx, None, limits).await
}

async fn put(mut tx: Tx, user: Option<UserId>, limits: Limits) -> Result<Json<LimitsBody>, Problem> {
    tx.put_limits(user, &limits).await?;
    flow::limits::changed(&mut tx, user, flow::now()).await?;
    tx.commit().await?;
    Ok(Json(limits.into()))
}

async fn require(session: &mut Session, user: UserId) -> Result<(), Problem> {
    session.user(user).await?.map(drop).ok_or_else(Problem::not_found)
}

/// Show a user's own limits. Where there is none, that of the workspace holds.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}/limits", tag = "limits",
    operation_id = "get_user_limits", responses((status = 200, body = LimitsBody)))]
async fn of_user(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<Json<LimitsBody>, Problem> {
    let mut session = access.read(&api).await?;
    require(&mut session, id).await?;
    Ok(Json(session.allowance(Some(id)).await?.user.into()))
}

/// Set a user's own limits; where one is left out or null, that of the workspace holds.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/users/{id}/limits", tag = "limits",
    operation_id = "put_user_limits", request_body = LimitsBody, responses((status = 200, body = LimitsBody)))]
async fn limit_user(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
    input: Input<LimitsBody>,
) -> Result<Json<LimitsBody>, Problem> {
    access.act_for_all()?;
    let limits = input.value.check()?;
    let mut tx = api.store().begin(access.workspace).await?;
    tx.user_to_change(id).await?.ok_or_else(Problem::not_found)?;
    put(tx, Some(id), limits).await
}

/// How a limit on time stands.
#[derive(Debug, Serialize, ToSchema)]
struct Used {
    used: u64,
    /// Null when there is none.
    limit: Option<u32>,
    /// When the day ends; of any 24 hours, when there is room for more.
    #[schema(value_type = Option<String>, format = DateTime)]
    resets_at: Option<Timestamp>,
}

impl From<Standing> for Used {
    fn from(Standing { used, limit, resets_at }: Standing) -> Self {
        Self { used, limit, resets_at }
    }
}

/// How a cap on accounts stands.
#[derive(Debug, Serialize, ToSchema)]
struct Places {
    used: u64,
    /// Null when there is none.
    limit: Option<u32>,
}

impl From<Standing> for Places {
    fn from(Standing { used, limit, .. }: Standing) -> Self {
        Self { used, limit }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
struct UsageView {
    synced_per_day: Used,
    sent_per_day: Used,
    sent_per_24h: Used,
    #[schema(value_type = SentUnitWord)]
    sent_unit: SentUnit,
    accounts: Places,
    workspace_accounts: Places,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            synced_per_day: usage.synced_per_day.into(),
            sent_per_day: usage.sent_per_day.into(),
            sent_per_24h: usage.sent_per_24h.into(),
            sent_unit: usage.sent_unit,
            accounts: usage.accounts.into(),
            workspace_accounts: usage.workspace_accounts.into(),
        }
    }
}

/// How much of his limits a user has used. What he sent with his own mail program counts as sent, once it is seen.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}/usage", tag = "limits",
    operation_id = "get_user_usage", responses((status = 200, body = UsageView)))]
async fn usage(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<Json<UsageView>, Problem> {
    let mut session = access.read(&api).await?;
    require(&mut session, id).await?;
    Ok(Json(flow::limits::usage(&mut session, id, flow::now()).await?.into()))
}
