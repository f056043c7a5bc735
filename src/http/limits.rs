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
    openapi::{SentUnitWord, SourceWord},
    problem::Problem,
};
use crate::{
    core::{
        allowance::{Allowance, Limits, Said},
        ids::{AccountId, UserId},
        limits::{SentUnit, Standing},
        policy::{Source, span::Span},
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

/// What the workspace is to allow. What is left out is as the workspace's preset has it; null is no limit, whatever that has.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct NewLimits {
    /// Messages of a user's accounts that are filed in a day, which begins at midnight in the workspace's time zone.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    synced_per_day: Said<u32>,
    /// What a user sends in a day.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    sent_per_day: Said<u32>,
    /// What a user sends in any 24 hours.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    sent_per_24h: Said<u32>,
    /// What is counted as sent: `recipients`, as when nobody says anything, or `messages`.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<SentUnitWord>)]
    sent_unit: Said<SentUnit>,
    /// Accounts connected at a time, in the workspace as a whole.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    accounts: Said<u32>,
    /// Accounts that each user may have connected at a time.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    accounts_per_user: Said<u32>,
}

/// What one user is to be allowed. What is left out is as for all users of the workspace, or as the user's preset has it; null
/// is no limit, whatever those have.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct NewUserLimits {
    /// Messages of his accounts that are filed in a day, which begins at midnight in the workspace's time zone.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    synced_per_day: Said<u32>,
    /// What he sends in a day.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    sent_per_day: Said<u32>,
    /// What he sends in any 24 hours.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    sent_per_24h: Said<u32>,
    /// What is counted as sent: `recipients`, as when nobody says anything, or `messages`.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<SentUnitWord>)]
    sent_unit: Said<SentUnit>,
    /// Accounts that he may have connected at a time.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    #[schema(value_type = Option<u32>)]
    accounts: Said<u32>,
}

impl From<Limits> for NewLimits {
    fn from(limits: Limits) -> Self {
        let Limits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts, accounts_per_user } =
            limits;
        Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts, accounts_per_user }
    }
}

impl From<NewLimits> for Limits {
    fn from(limits: NewLimits) -> Self {
        let NewLimits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts, accounts_per_user } =
            limits;
        Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts, accounts_per_user }
    }
}

impl From<Limits> for NewUserLimits {
    fn from(limits: Limits) -> Self {
        let Limits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts_per_user, .. } = limits;
        Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts: accounts_per_user }
    }
}

impl From<NewUserLimits> for Limits {
    fn from(limits: NewUserLimits) -> Self {
        let NewUserLimits { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts } = limits;
        let (accounts, accounts_per_user) = (Said::Nothing, accounts);
        Self { synced_per_day, sent_per_day, sent_per_24h, sent_unit, accounts, accounts_per_user }
    }
}

fn check(fields: &[(&str, Said<u32>)]) -> Result<(), Problem> {
    let is_large = |said: &Said<u32>| matches!(said, Said::Limit(limit) if *limit > LIMIT_MAX);
    match fields.iter().find(|(_, said)| is_large(said)) {
        Some((param, _)) => {
            let detail = format!("A limit is at most {LIMIT_MAX}.");
            Err(Problem::invalid(*param, detail).advice("Send null for no limit."))
        }
        None => Ok(()),
    }
}

impl NewLimits {
    fn check(self) -> Result<Limits, Problem> {
        check(&[
            ("synced_per_day", self.synced_per_day),
            ("sent_per_day", self.sent_per_day),
            ("sent_per_24h", self.sent_per_24h),
            ("accounts", self.accounts),
            ("accounts_per_user", self.accounts_per_user),
        ])?;
        Ok(self.into())
    }
}

impl NewUserLimits {
    fn check(self) -> Result<Limits, Problem> {
        let limits = Limits::from(self);
        // The only field that is called otherwise.
        check(&[("accounts", self.accounts)])?;
        NewLimits { accounts_per_user: Said::Nothing, ..limits.into() }.check()?;
        Ok(limits)
    }
}

/// What the workspace allows each of its users unless something else is said of him, and how many accounts in all; null allows
/// everything.
#[derive(Serialize, ToSchema)]
#[schema(as = Limits)]
struct LimitsView {
    synced_per_day: Option<u32>,
    sent_per_day: Option<u32>,
    sent_per_24h: Option<u32>,
    #[schema(value_type = SentUnitWord)]
    sent_unit: SentUnit,
    /// In the workspace as a whole.
    accounts: Option<u32>,
    accounts_per_user: Option<u32>,
    /// Where each of them comes from.
    from: LimitsFrom,
    /// Those that the workspace chose, as they were put.
    overrides: NewLimits,
}

#[derive(Serialize, ToSchema)]
struct LimitsFrom {
    #[schema(value_type = SourceWord)]
    synced_per_day: Source,
    #[schema(value_type = SourceWord)]
    sent_per_day: Source,
    #[schema(value_type = SourceWord)]
    sent_per_24h: Source,
    #[schema(value_type = SourceWord)]
    sent_unit: Source,
    #[schema(value_type = SourceWord)]
    accounts: Source,
    #[schema(value_type = SourceWord)]
    accounts_per_user: Source,
}

impl From<&Allowance> for LimitsView {
    fn from(allowance: &Allowance) -> Self {
        let held = allowance.of_workspace();
        Self {
            synced_per_day: held.synced_per_day.limit,
            sent_per_day: held.sent_per_day.limit,
            sent_per_24h: held.sent_per_24h.limit,
            sent_unit: held.sent_unit.limit.unwrap_or_default(),
            accounts: held.accounts.limit,
            accounts_per_user: held.accounts_per_user.limit,
            from: LimitsFrom {
                synced_per_day: held.synced_per_day.from,
                sent_per_day: held.sent_per_day.from,
                sent_per_24h: held.sent_per_24h.from,
                sent_unit: held.sent_unit.from,
                accounts: held.accounts.from,
                accounts_per_user: held.accounts_per_user.from,
            },
            overrides: allowance.workspace.into(),
        }
    }
}

/// What a user is allowed; null allows everything.
#[derive(Serialize, ToSchema)]
#[schema(as = UserLimits)]
struct UserLimitsView {
    synced_per_day: Option<u32>,
    sent_per_day: Option<u32>,
    sent_per_24h: Option<u32>,
    #[schema(value_type = SentUnitWord)]
    sent_unit: SentUnit,
    accounts: Option<u32>,
    /// Where each of them comes from.
    from: UserLimitsFrom,
    /// Those that were chosen for him, as they were put.
    overrides: NewUserLimits,
}

#[derive(Serialize, ToSchema)]
struct UserLimitsFrom {
    #[schema(value_type = SourceWord)]
    synced_per_day: Source,
    #[schema(value_type = SourceWord)]
    sent_per_day: Source,
    #[schema(value_type = SourceWord)]
    sent_per_24h: Source,
    #[schema(value_type = SourceWord)]
    sent_unit: Source,
    #[schema(value_type = SourceWord)]
    accounts: Source,
}

impl From<&Allowance> for UserLimitsView {
    fn from(allowance: &Allowance) -> Self {
        let held = allowance.of_user();
        Self {
            synced_per_day: held.synced_per_day.limit,
            sent_per_day: held.sent_per_day.limit,
            sent_per_24h: held.sent_per_24h.limit,
            sent_unit: held.sent_unit.limit.unwrap_or_default(),
            accounts: held.accounts_per_user.limit,
            from: UserLimitsFrom {
                synced_per_day: held.synced_per_day.from,
                sent_per_day: held.sent_per_day.from,
                sent_per_24h: held.sent_per_24h.from,
                sent_unit: held.sent_unit.from,
                accounts: held.accounts_per_user.from,
            },
            overrides: allowance.user.into(),
        }
    }
}

/// Show what the workspace allows, and where each limit comes from: its preset or itself.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/limits", tag = "limits", operation_id = "get_limits",
    responses((status = 200, body = LimitsView)))]
async fn of_workspace(State(api): State<Api>, access: Access) -> Result<Json<LimitsView>, Problem> {
    let allowance = access.read(&api).await?.allowance(None).await?;
    Ok(Json((&allowance).into()))
}

/// Set what the workspace allows, in place of what was. What is left out is as the workspace's preset has it; null is no limit,
/// whatever the preset has. It holds from the next message on. Accounts that are connected stay so.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/limits", tag = "limits", operation_id = "put_limits",
    request_body = NewLimits, responses((status = 200, body = LimitsView)))]
async fn limit_workspace(
    State(api): State<Api>,
    access: Access,
    input: Input<NewLimits>,
) -> Result<Json<LimitsView>, Problem> {
    access.act_for_all()?;
    let limits = input.value.check()?;
    let tx = access.begin(&api).await?;
    Ok(Json((&put(tx, None, limits).await?).into()))
}

async fn put(mut tx: Tx, user: Option<UserId>, limits: Limits) -> Result<Allowance, Problem> {
    tx.put_limits(user, &limits).await?;
    flow::limits::changed(&mut tx, user, flow::now()).await?;
    let allowance = tx.allowance(user).await?;
    tx.commit().await?;
    Ok(allowance)
}

async fn require(session: &mut Session, user: UserId) -> Result<(), Problem> {
    session.user(user).await?.map(drop).ok_or_else(Problem::not_found)
}

/// Show what a user is allowed, and where each limit comes from: his preset, the workspace, or what was set for him.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}/limits", tag = "limits",
    operation_id = "get_user_limits", responses((status = 200, body = UserLimitsView)))]
async fn of_user(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<Json<UserLimitsView>, Problem> {
    let mut session = access.read(&api).await?;
    require(&mut session, id).await?;
    Ok(Json((&session.allowance(Some(id)).await?).into()))
}

/// Set a user's own limits, in place of those he had. What is left out is as for all users of the workspace, or as his preset
/// has it; null is no limit, whatever those have.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/users/{id}/limits", tag = "limits",
    operation_id = "put_user_limits", request_body = NewUserLimits,
    responses((status = 200, body = UserLimitsView)))]
async fn limit_user(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
    input: Input<NewUserLimits>,
) -> Result<Json<UserLimitsView>, Problem> {
    access.act_for_all()?;
    let limits = input.value.check()?;
    let mut tx = access.begin(&api).await?;
    tx.user_to_change(id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json((&put(tx, Some(id), limits).await?).into()))
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
    /// What the providers of his accounts take in a window, of all that is sent there and goes over IMAP.
    providers: Vec<ProviderWindow>,
}

/// What a provider counts: what is sent, or octets over IMAP, from the provider and to it.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WindowUnit {
    Messages,
    Recipients,
    OctetsRead,
    OctetsHandedOver,
}

impl From<flow::limits::WindowUnit> for WindowUnit {
    fn from(unit: flow::limits::WindowUnit) -> Self {
        use flow::limits::WindowUnit as Unit;
        match unit {
            Unit::Sent(SentUnit::Messages) => Self::Messages,
            Unit::Sent(SentUnit::Recipients) => Self::Recipients,
            Unit::OctetsRead => Self::OctetsRead,
            Unit::OctetsHandedOver => Self::OctetsHandedOver,
        }
    }
}

/// How an account stands to what its provider takes.
#[derive(Debug, Serialize, ToSchema)]
struct ProviderWindow {
    #[schema(value_type = String)]
    account_id: AccountId,
    provider: &'static str,
    unit: WindowUnit,
    used: u64,
    limit: u64,
    /// How long the window is.
    #[schema(value_type = String, example = "24h")]
    window: Span,
    /// When there is room again; null while there is.
    #[schema(value_type = Option<String>, format = DateTime)]
    resets_at: Option<Timestamp>,
}

impl From<flow::limits::ProviderWindow> for ProviderWindow {
    fn from(window: flow::limits::ProviderWindow) -> Self {
        let flow::limits::ProviderWindow { account, provider, unit, limit, window, standing } = window;
        Self {
            account_id: account,
            provider,
            unit: unit.into(),
            used: standing.used,
            limit,
            window,
            resets_at: standing.full_until,
        }
    }
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
            providers: usage.windows.into_iter().map(Into::into).collect(),
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
