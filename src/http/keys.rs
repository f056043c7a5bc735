//! API keys of a workspace: made, listed and revoked. The secret is shown once.
//!
//! Not here: finding the key of a request (`access`).

use axum::{Json, extract::State, http::StatusCode, response::Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, Parameters, PathId},
    field::{self, NAME_CHARS_MAX},
    once::{Answer, Stop},
    openapi::ScopeWord,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        ids::{ApiKeyId, Id as _, UserId},
        people::{ApiKey, Scope},
    },
    flow::{self, api_key},
    store::{PageKey, Session, mint},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct KeyView {
    #[schema(value_type = String)]
    id: ApiKeyId,
    name: String,
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Vec<Scope>,
    /// A key bound to a user acts as that user only.
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// To the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, workspace: _, name, scopes, user_id, created_at, last_used_at } = key;
        Self { id, name, scopes, user_id, created_at, last_used_at }
    }
}

#[derive(Serialize, ToSchema)]
struct NewKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// Shown this once; only a hash of it is kept.
    #[schema(example = "mwk_…")]
    secret: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    /// At least one. `admin` includes all others.
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Vec<Scope>,
    /// Binds the key to a user: it sends as him alone, and shows what he may see of the mail (`visibility`).
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
}

impl NewKey {
    fn check(self, access: &Access) -> Result<ApiKey, Problem> {
        let NewKey { name, mut scopes, user_id } = self;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(Problem::invalid("scopes", "A key needs at least one scope."));
        }
        // A key must not mint one that may do more than itself.
        match user_id {
            Some(user) => access.act_as(user)?,
            None => access.act_for_all()?,
        }
        let name = field::line("name", &name, NAME_CHARS_MAX)?;
        let (workspace, created_at) = (access.workspace, flow::now());
        Ok(ApiKey { id: mint(), workspace, name, scopes, user_id, created_at, last_used_at: None })
    }
}

/// Make a key. The secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/keys", tag = "keys", operation_id = "create_key",
    request_body = NewKey, responses((status = 201, body = NewKeyView)))]
async fn create(State(api): State<Api>, access: Access, input: Input<NewKey>) -> Result<Response, Stop> {
    let key = input.value.check(&access)?;
    let mut work = input.stamp.begin(&api, &access).await?;
    if let Some(user) = key.user_id {
        require_user(&mut work, "user_id", user).await?;
    }
    let secret = api_key::secret(flow::random());
    work.insert_key(&key, &api_key::hash(&secret)).await?;
    work.finish(Answer::created_secret(&NewKeyView { key: key.into(), secret })).await
}

/// A user named in a field must be of the workspace; a foreign one is not told from one that does not exist.
pub(super) async fn require_user(session: &mut Session, param: &str, user: UserId) -> Result<(), Problem> {
    match session.user(user).await? {
        Some(_) => Ok(()),
        None => Err(Problem::invalid(param, "There is no such user in this workspace.")),
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

/// List the keys, newest first, without their secrets.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/keys", tag = "keys", operation_id = "list_keys",
    params(Listing), responses((status = 200, body = List<KeyView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<KeyView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let rows = access.read(&api).await?.keys(&page).await?;
    let key = |row: &ApiKey| PageKey { at: row.created_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, KeyView::from))
}

/// Revoke a key, at once.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}/keys/{id}", tag = "keys", operation_id = "delete_key",
    responses((status = 204, description = "It is revoked.")))]
async fn revoke(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    let mut tx = access.begin(&api).await?;
    let key = tx.api_key(id).await?.ok_or_else(Problem::not_found)?;
    match key.user_id {
        Some(user) => access.act_as(user)?,
        None => access.act_for_all()?,
    }
    tx.delete_key(id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
