//! The people who work in a workspace, each with the capture address to which copies of his mail are sent.
//!
//! Not here: their accounts at providers (`accounts`).

use std::collections::BTreeSet;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    accounts::own_address_of,
    body::{Input, Parameters, PathId},
    field::{self, Patch},
    once::{Answer, Stop},
    openapi::RoleWord,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        account::{Account, AccountState},
        ids::{Id as _, UserId},
        people::{Role, User},
    },
    flow::{self, capture_address},
    mail::Address,
    store::{AccountFilter, Page, PageKey, mint},
};

/// Addresses of one person besides the first.
pub(super) const ALIASES_MAX: usize = 50;
/// Accounts that are looked at when a user is changed or deleted; who has more is asked to disconnect them one by one all the
/// same.
const ACCOUNTS_LOOKED_AT: u32 = 200;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show, change, delete))
}

#[derive(Serialize, ToSchema)]
#[schema(as = User)]
struct UserView {
    #[schema(value_type = String)]
    id: UserId,
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
    /// Other addresses of the same person.
    #[schema(value_type = Vec<String>)]
    aliases: Vec<Address>,
    #[schema(value_type = RoleWord)]
    role: Role,
    /// Mail of this user that is sent here too, in Bcc or Cc, is filed. Null when the gateway has no capture domain.
    #[schema(value_type = Option<String>, format = Email)]
    capture_address: Option<Address>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { id, email, name, aliases, role, capture_address, created_at } = user;
        Self { id, email, name, aliases, role, capture_address, created_at }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
    /// At most 50.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    aliases: Vec<Address>,
    /// `member` when left out.
    #[schema(value_type = Option<RoleWord>)]
    role: Option<Role>,
}

impl NewUser {
    fn check(self, api: &Api) -> Result<User, Problem> {
        let user = User {
            id: mint(),
            email: self.email,
            name: field::name("name", self.name)?,
            aliases: self.aliases,
            role: self.role.unwrap_or(Role::Member),
            capture_address: None,
            created_at: flow::now(),
        };
        checked(api, user)
    }
}

/// Every address once, and none of ours: those are routes into the gateway, never people.
fn checked(api: &Api, mut user: User) -> Result<User, Problem> {
    let ours = &api.gateway.settings.ours;
    if ours.holds(&user.email) {
        return Err(Problem::invalid("email", "This is an address of the gateway itself."));
    }
    user.aliases.sort();
    user.aliases.dedup();
    user.aliases.retain(|alias| *alias != user.email);
    field::at_most("aliases", &user.aliases, ALIASES_MAX)?;
    if user.aliases.iter().any(|alias| ours.holds(alias)) {
        return Err(Problem::invalid("aliases", "One of them is an address of the gateway itself."));
    }
    Ok(user)
}

/// Add a user. The answer has the user's capture address.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/users", tag = "users", operation_id = "create_user",
    request_body = NewUser, responses((status = 201, body = UserView)))]
async fn create(State(api): State<Api>, access: Access, input: Input<NewUser>) -> Result<Response, Stop> {
    access.act_for_all()?;
    let mut user = input.value.check(&api)?;
    let mut work = input.stamp.begin(&api, &access).await?;
    work.insert_user(&user).await?;
    let ours = &api.gateway.settings.ours;
    let route =
        capture_address::make(&mut work, ours, (user.id, user.email.local()), user.created_at).await?;
    user.capture_address = route.map(|route| route.address);
    work.finish(Answer::created(&UserView::from(user))).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// The user with this address, primary or alias.
    #[param(value_type = Option<String>)]
    email: Option<Address>,
    /// `false`: those who have no account, or none that is not disconnected; `true`: the others.
    #[param(value_type = Option<bool>)]
    connected: Option<Whether>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// A parameter is text, whatever it says.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Whether {
    True,
    False,
}

impl From<Whether> for bool {
    fn from(whether: Whether) -> Self {
        matches!(whether, Whether::True)
    }
}

/// List the users, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users", tag = "users", operation_id = "list_users",
    params(Listing), responses((status = 200, body = List<UserView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<UserView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let mut session = access.read(&api).await?;
    if let Some(email) = &query.email {
        let found = session.user_by_address(email).await?;
        return Ok(List::whole(found.into_iter().map(UserView::from).collect()));
    }
    let rows = session.users(&page, query.connected.map(bool::from)).await?;
    let key = |row: &User| PageKey { at: row.created_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, UserView::from))
}

/// Show a user.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}", tag = "users", operation_id = "get_user",
    responses((status = 200, body = UserView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<Json<UserView>, Problem> {
    let user = access.read(&api).await?.user(id).await?;
    user.map(|user| Json(user.into())).ok_or_else(Problem::not_found)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserPatch {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Email)]
    email: Patch<Address>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    aliases: Patch<Vec<Address>>,
    #[serde(default)]
    #[schema(value_type = Option<RoleWord>)]
    role: Patch<Role>,
}

impl UserPatch {
    /// Whether it changes what the user is taken for: his addresses, by which he may send and is known, or his role.
    fn changes_identity(&self, old: &User) -> bool {
        let role = self.role.as_set().is_some_and(|role| *role != old.role);
        let email = self.email.as_set().is_some_and(|email| *email != old.email);
        let set = |list: &[Address]| list.iter().cloned().collect::<BTreeSet<_>>();
        role || email || set(&self.aliases.clone().apply_list(old.aliases.clone())) != set(&old.aliases)
    }

    fn apply(self, api: &Api, old: User) -> Result<User, Problem> {
        let user = User {
            email: self.email.apply_required("email", old.email)?,
            name: field::name("name", self.name.apply(old.name))?,
            aliases: self.aliases.apply_list(old.aliases),
            role: self.role.apply_required("role", old.role)?,
            ..old
        };
        checked(api, user)
    }
}

/// Change a user; what is left out stays, null clears.
#[utoipa::path(patch, path = "/v1/workspaces/{ws}/users/{id}", tag = "users", operation_id = "update_user",
    request_body = UserPatch, responses((status = 200, body = UserView)))]
async fn change(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
    input: Input<UserPatch>,
) -> Result<Json<UserView>, Problem> {
    let mut tx = access.begin(&api).await?;
    let old = tx.user_to_change(id).await?.ok_or_else(Problem::not_found)?;
    access.act_as(id)?;
    // Who acts as himself alone does not decide who he is.
    if input.value.changes_identity(&old) {
        access.act_for_all()?;
    }
    let user = input.value.apply(&api, old)?;
    tx.update_user(&user).await?;
    // What is sent from his accounts stays his, whatever his other addresses.
    for account in tx.accounts(&Page::new(ACCOUNTS_LOOKED_AT, None), &accounts_of(id)).await? {
        if is_connected(&account) {
            own_address_of(&mut tx, &access, &account).await?;
        }
    }
    let user = tx.user(id).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(Json(user.into()))
}

fn accounts_of(user: UserId) -> AccountFilter {
    AccountFilter { user: Some(user), state: None }
}

fn is_connected(account: &Account) -> bool {
    !matches!(account.status.state, AccountState::Disconnected | AccountState::Erased)
}

/// Delete a user, with his keys and his capture address. His accounts have to be disconnected first; messages stay. What an
/// account brought and was kept is the workspace's from then on and can be erased with that alone: to have it erased, choose
/// that before.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}/users/{id}", tag = "users", operation_id = "delete_user",
    responses((status = 204, description = "The user is deleted.")))]
async fn delete(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<StatusCode, Problem> {
    let mut tx = access.begin(&api).await?;
    tx.user_to_change(id).await?.ok_or_else(Problem::not_found)?;
    access.act_for_all()?;
    let accounts = tx.accounts(&Page::new(ACCOUNTS_LOOKED_AT, None), &accounts_of(id)).await?;
    if accounts.iter().any(is_connected) {
        let advice = "Disconnect his accounts first, and choose what becomes of their mail: it cannot be erased later.";
        return Err(Problem::conflict("user_has_accounts", "The user has connected accounts.", advice));
    }
    tx.delete_user(id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
