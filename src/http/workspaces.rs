//! Workspaces: made, listed and erased by the instance administrator, shown and renamed by their own keys.
//!
//! Not here: what lies in one.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, tz};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, Parameters},
    field::{self, NAME_CHARS_MAX},
    once::{self, Answer, Stamp, Stop},
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        ids::{Id as _, WorkspaceId},
        people::{SLUG_CHARS_MAX, Workspace, is_slug},
        policy::{BadSetting, DEFAULT_PRESET, Preset},
    },
    flow,
    store::{self, Idempotency, InstanceRequest, PageKey, WorkspaceChange, mint},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show, change, erase))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Workspace)]
pub(super) struct WorkspaceView {
    #[schema(value_type = String, example = "ws_01jd0000000000000000000000")]
    id: WorkspaceId,
    #[schema(example = "acme")]
    slug: String,
    name: String,
    /// IANA name.
    #[schema(example = "Europe/Prague")]
    timezone: String,
    preset: String,
    policy_version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Workspace> for WorkspaceView {
    fn from(workspace: Workspace) -> Self {
        let Workspace { id, slug, name, timezone, preset, policy_version, created_at } = workspace;
        Self { id, slug, name, timezone, preset, policy_version, created_at }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    name: String,
    /// Lower-case letters, digits and hyphens; unique on this gateway.
    #[schema(example = "acme")]
    slug: String,
    /// IANA name; `UTC` when left out.
    timezone: Option<String>,
    /// `mailweave` when left out.
    preset: Option<String>,
}

impl NewWorkspace {
    fn check(self) -> Result<Workspace, Problem> {
        Ok(Workspace {
            id: mint(),
            slug: slug(&self.slug)?,
            name: field::line("name", &self.name, NAME_CHARS_MAX)?,
            timezone: timezone(self.timezone.as_deref().unwrap_or("UTC"))?,
            preset: preset(self.preset.as_deref().unwrap_or(DEFAULT_PRESET))?,
            policy_version: 1,
            created_at: flow::now(),
        })
    }
}

fn slug(text: &str) -> Result<String, Problem> {
    let detail = format!("A slug is 1 to {SLUG_CHARS_MAX} lower-case letters, digits and inner hyphens.");
    is_slug(text).then(|| text.to_owned()).ok_or_else(|| Problem::invalid("slug", detail))
}

fn timezone(text: &str) -> Result<String, Problem> {
    // A machine without a time zone database knows none of them; then the name has to be believed.
    let known = tz::TimeZone::get(text).is_ok() || tz::db().is_definitively_empty();
    let plain = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
    let detail = "It is no IANA time zone.";
    (known && plain).then(|| text.to_owned()).ok_or_else(|| Problem::invalid("timezone", detail))
}

fn preset(text: &str) -> Result<String, Problem> {
    match Preset::named(text) {
        Some(preset) => Ok(preset.name.to_owned()),
        None => Err(Problem::invalid("preset", BadSetting::Preset(text.to_owned()).to_string())),
    }
}

/// Make a workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", operation_id = "create_workspace",
    request_body = NewWorkspace, responses((status = 201, body = WorkspaceView)))]
async fn create(State(api): State<Api>, input: Input<NewWorkspace>) -> Result<Response, Stop> {
    let workspace = input.value.check()?;
    let mut system = api.store().system().await?;
    // The workspace is not there yet: the key is looked for in all of them, one request at a time.
    if let Some(request) = input.stamp.request() {
        let asked = InstanceRequest { request, hash: input.stamp.hash() };
        match system.begin_instance_request(asked).await? {
            Idempotency::Same { status, body } => return Ok(once::replay(status, body)?),
            Idempotency::Mismatch => return Err(once::mismatch().into()),
            Idempotency::Fresh | Idempotency::Underway => {}
        }
    }
    system.create_workspace(&workspace).await?;
    let (id, now) = (workspace.id, workspace.created_at);
    let answer = Answer::created(&WorkspaceView::from(workspace));
    keep(&mut system, id, &input.stamp, &answer, now).await?;
    system.commit().await?;
    Ok(answer.into_response())
}

async fn keep(
    system: &mut store::System,
    id: WorkspaceId,
    stamp: &Stamp,
    answer: &Answer,
    now: Timestamp,
) -> Result<(), store::Error> {
    let Some(request) = stamp.request() else { return Ok(()) };
    let asked = InstanceRequest { request, hash: stamp.hash() };
    let kept = store::KeptAnswer { status: answer.status.as_u16(), body: &answer.body };
    system.finish_instance_request(id, asked, kept, now).await
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

/// List every workspace, newest first.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", operation_id = "list_workspaces",
    params(Listing), responses((status = 200, body = List<WorkspaceView>)))]
async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<WorkspaceView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let rows = api.store().system_read().await?.workspaces(&page).await?;
    let key = |row: &Workspace| PageKey { at: row.created_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, WorkspaceView::from))
}

/// Show a workspace.
#[utoipa::path(get, path = "/v1/workspaces/{ws}", tag = "workspaces", operation_id = "get_workspace",
    responses((status = 200, body = WorkspaceView)))]
async fn show(State(api): State<Api>, access: Access) -> Result<Json<WorkspaceView>, Problem> {
    let found = access.read(&api).await?.this_workspace().await?;
    found.map(|workspace| Json(workspace.into())).ok_or_else(Problem::not_found)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WorkspacePatch {
    name: Option<String>,
    slug: Option<String>,
    timezone: Option<String>,
    preset: Option<String>,
}

/// Change a workspace; what is left out stays.
#[utoipa::path(patch, path = "/v1/workspaces/{ws}", tag = "workspaces", operation_id = "update_workspace",
    request_body = WorkspacePatch, responses((status = 200, body = WorkspaceView)))]
async fn change(
    State(api): State<Api>,
    access: Access,
    input: Input<WorkspacePatch>,
) -> Result<Json<WorkspaceView>, Problem> {
    access.act_for_all()?;
    let patch = input.value;
    let change = WorkspaceChange {
        name: patch.name.map(|name| field::line("name", &name, NAME_CHARS_MAX)).transpose()?,
        slug: patch.slug.as_deref().map(slug).transpose()?,
        timezone: patch.timezone.as_deref().map(timezone).transpose()?,
        preset: patch.preset.as_deref().map(preset).transpose()?,
    };
    let mut tx = access.begin(&api).await?;
    tx.update_workspace(&change).await?;
    let workspace = tx.this_workspace().await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(Json(workspace.into()))
}

/// Erase a workspace and everything in it, for good. It is gone, and what it sealed unreadable, when this is answered; its rows
/// are deleted right after.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}", tag = "workspaces", operation_id = "delete_workspace",
    responses((status = 204, description = "It is erased.")))]
async fn erase(State(api): State<Api>, access: Access) -> Result<StatusCode, Problem> {
    let mut tx = access.begin(&api).await?;
    flow::erase::begin(&mut tx, flow::now()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_names_that_fit_everywhere() {
        for good in ["a", "acme", "acme-2", &"x".repeat(63)] {
            assert!(slug(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Acme", "a_b", "a b", "ä", &"x".repeat(64), "ws_01"] {
            assert_eq!(slug(bad).unwrap_err().param.as_deref(), Some("slug"), "{bad}");
        }
    }

    #[test]
    fn time_zones_are_known_ones() {
        assert!(timezone("UTC").is_ok());
        assert!(timezone("Europe/Prague").is_ok());
        for bad in ["Mars/Base", "", "UTC\r\n", "../../etc/passwd"] {
            assert!(timezone(bad).is_err(), "{bad}");
        }
    }
}
