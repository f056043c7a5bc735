//! The users' own accounts at their providers: connected, shown and changed here.
//!
//! Not here: pausing and disconnecting them (`account_life`), and talking to a provider: the worker does,
//! and what it meets is read in the account's status and error log.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use axum::{Json, extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Api,
    access::Access,
    account_input::{Auth, AuthInput, EndpointInput, needs_sign_in},
    account_life,
    account_rules::{give_servers, require_admitted, require_own_addresses},
    account_view::{AccountView, ErrorView, StatusView},
    body::{Input, Nothing, Parameters, PathId},
    discovery::Servers,
    field::Patch,
    keys::require_user,
    once::{Answer, Stop},
    openapi::AccountStateWord,
    page::{self, Limit, List},
    problem::Problem,
    users::ALIASES_MAX,
};
use crate::{
    core::{
        account::{
            Account, AccountError, AccountSettings, AccountState, AccountStatus, Credentials, Identities,
        },
        ids::{AccountId, Id as _, UserId},
        policy::{Settings, settings::ConnectRole},
    },
    flow::{self, Gateway},
    mail::Address,
    store::{self, AccountFilter, PageKey, Session, Tx, mint},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change))
        .routes(routes!(status))
        .routes(routes!(errors))
        .routes(routes!(sync))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String, format = Email)]
    email: Address,
    imap: Option<EndpointInput>,
    smtp: Option<EndpointInput>,
    auth: Option<AuthInput>,
    /// What mail that leaves by the account is from, where that is not `email`: an address of the user's own, or `email`.
    #[schema(value_type = Option<String>, format = Email)]
    sender: Option<Address>,
    /// A provider that is known, as `google`: where its servers are need not be given. Left out, it is that of the address.
    provider: Option<String>,
}

impl NewAccount {
    /// The field that says whose account it is.
    fn telling(&self) -> &'static str {
        match (&self.provider, &self.imap) {
            (Some(_), _) => "provider",
            (None, Some(_)) => "imap",
            (None, None) => "email",
        }
    }

    async fn check(self, api: &Api) -> Result<(Account, Auth), Problem> {
        let Some(auth) = self.auth else {
            return Err(match self.provider {
                Some(_) => needs_sign_in("provider"),
                None => Problem::invalid("auth", "The field is missing."),
            });
        };
        let identities =
            auth.login_names()?.apply(Identities { sender: self.sender, ..Identities::default() });
        let auth = auth.check(api.gateway.sign_in.providers())?;
        let Self { provider, imap, smtp, .. } = self;
        let settings =
            Servers { provider, imap, smtp, identities, auth: &auth }.settle(api, &self.email).await?;
        let email = own_address(api, self.email)?;
        let now = flow::now();
        let status = connecting(now);
        Ok((
            Account {
                id: mint(),
                user_id: self.user_id,
                email,
                settings,
                status,
                sending_refused: None,
                rest: None,
                connected_at: now,
                generation: 0,
                is_granted: auth.is_granted(),
            },
            auth,
        ))
    }
}

fn own_address(api: &Api, email: Address) -> Result<Address, Problem> {
    match api.gateway.settings.ours.holds(&email) {
        true => Err(Problem::invalid("email", "This is an address of the gateway itself.")),
        false => Ok(email),
    }
}

/// Nothing is known yet but that the worker is to log in.
pub(super) fn connecting(since: jiff::Timestamp) -> AccountStatus {
    AccountStatus {
        state: AccountState::Connecting,
        since,
        detail: None,
        advice: None,
        last_synced_at: None,
        last_checked_at: None,
        next_attempt_at: None,
        progress: None,
    }
}

/// Connect an account. What is sent by its address is the user's. Asked for with a key of the workspace, the address becomes one of
/// his aliases too, unless it is somebody else's. The answer comes before the first login: read the status, or wait for
/// `account.connected`. One more than there may be is in `waiting_for_quota`, and is connected by itself when there is a place.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/accounts", tag = "accounts", operation_id = "create_account",
    request_body = NewAccount, responses((status = 201, body = AccountView)))]
async fn create(State(api): State<Api>, access: Access, input: Input<NewAccount>) -> Result<Response, Stop> {
    // Before domains and servers are asked: the same request again is answered as it was.
    input.stamp.require_new(&api, &access).await?;
    access.act_as(input.value.user_id)?;
    let telling = input.value.telling();
    let (mut account, auth) = input.value.check(&api).await?;
    auth.require_right(&api, &access, &account).await?;
    let mut work = input.stamp.begin(&api, &access).await?;
    require_user(&mut work, "user_id", account.user_id).await?;
    require_role(&mut work, &access, account.user_id).await?;
    require_admitted(&mut work, telling, &account).await?;
    require_own_addresses(&mut work, &access, &account).await?;
    work.insert_account(&account, &auth.credentials(&account.email)).await?;
    auth.keep_grant(&mut work, account.id).await?;
    // Filing before users, as whoever files takes them.
    work.lock_filing().await?;
    own_address_of(&mut work, &access, &account).await?;
    flow::limits::seat(&mut work, &mut account, None).await?;
    let id = account.id;
    let shown = shown(&mut work, account).await?;
    let response = work.finish(Answer::created(&shown)).await?;
    api.look_now(id);
    Ok(response)
}

/// Whether policy lets the caller connect an account of this user.
async fn require_role(session: &mut Session, access: &Access, user: UserId) -> Result<(), Problem> {
    let settings = flow::policy_of(session, Some(user)).await?.settings;
    let refused = match (&settings.connect_role, access.bound_to()) {
        (ConnectRole::OnlySelf, None) => true,
        // A key that is bound to a user acts as that user.
        (ConnectRole::OnlySelf, Some(_)) | (ConnectRole::Roles(_), None) => false,
        (ConnectRole::Roles(roles), Some(bound)) => {
            !session.user(bound).await?.is_some_and(|user| roles.contains(&user.role))
        }
    };
    if refused {
        let detail = "The policy does not let this key connect an account of this user.";
        let advice = "See connect_role in the user's policy: \"self\" wants a key that is bound to him.";
        return Err(Problem::forbidden(detail, advice));
    }
    Ok(())
}

/// An account with its status in the words of its user's policy.
pub(super) async fn shown(session: &mut Session, account: Account) -> Result<AccountView, Problem> {
    let settings = flow::policy_of(session, Some(account.user_id)).await?.settings;
    let account = flow::limits::with_rest_of_history(session, account, flow::now()).await?;
    Ok(AccountView::new(account, &settings))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    #[param(value_type = Option<String>)]
    user_id: Option<UserId>,
    #[param(value_type = Option<AccountStateWord>)]
    state: Option<AccountState>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// List the accounts, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/accounts", tag = "accounts", operation_id = "list_accounts",
    params(Listing), responses((status = 200, body = List<AccountView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<AccountView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let filter = AccountFilter { user: query.user_id, state: query.state };
    let mut session = access.read(&api).await?;
    let rows = session.accounts(&page, &filter).await?;
    let rows = flow::limits::with_rests_of_history(&mut session, rows, flow::now()).await?;
    let mut policies: HashMap<UserId, Arc<Settings>> = HashMap::new();
    for row in &rows {
        if let Entry::Vacant(entry) = policies.entry(row.user_id) {
            entry.insert(flow::policy_of(&mut session, Some(row.user_id)).await?.settings);
        }
    }
    let key = |row: &Account| PageKey { at: row.connected_at, id: row.id.uuid() };
    let view = |row: Account| {
        let settings = policies.get(&row.user_id).expect("each row's user was asked for");
        AccountView::new(row, settings)
    };
    Ok(List::page(rows, query.limit, key, view))
}

pub(super) async fn find(session: &mut Session, id: AccountId) -> Result<Account, Problem> {
    session.account(id).await?.ok_or_else(Problem::not_found)
}

/// Show an account. Of one that is being erased, or was, `receipt` says what was removed.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/accounts/{id}", tag = "accounts", operation_id = "get_account",
    responses((status = 200, body = AccountView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
) -> Result<Json<AccountView>, Problem> {
    let mut session = access.read(&api).await?;
    let account = find(&mut session, id).await?;
    let mut view = shown(&mut session, account).await?;
    view.receipt = session.receipt(id).await?.map(Into::into);
    Ok(Json(view))
}

/// How an account is doing.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/accounts/{id}/status", tag = "accounts",
    operation_id = "get_account_status", responses((status = 200, body = StatusView)))]
async fn status(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
) -> Result<Json<StatusView>, Problem> {
    let mut session = access.read(&api).await?;
    let account = find(&mut session, id).await?;
    Ok(Json(shown(&mut session, account).await?.status))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// The error log, latest first: one line for each kind of error.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/accounts/{id}/errors", tag = "accounts",
    operation_id = "list_account_errors", params(Paging), responses((status = 200, body = List<ErrorView>)))]
async fn errors(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    Parameters(query): Parameters<Paging>,
) -> Result<Json<List<ErrorView>>, Problem> {
    let mut session = access.read(&api).await?;
    session.account(id).await?.ok_or_else(Problem::not_found)?;
    let errors = session.account_errors(id).await?;
    List::cut(errors, (query.limit, query.cursor.as_deref()), place, ErrorView::from)
}

/// A line has no id of its own: its code is unique within the log.
fn place(error: &AccountError) -> PageKey {
    let mut id = [0; 16];
    blake3::Hasher::new().update(error.code.as_bytes()).finalize_xof().fill(&mut id);
    PageKey { at: error.at, id: Uuid::from_bytes(id) }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AccountPatch {
    #[schema(value_type = Option<String>, format = Email)]
    email: Option<Address>,
    imap: Option<EndpointInput>,
    smtp: Option<EndpointInput>,
    /// What mail that leaves is from: an address of the user's own, or `email`, which null stands for.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Email)]
    sender: Patch<Address>,
    auth: Option<AuthInput>,
}

/// Give an account a new address, new servers or a new login, without disconnecting it. A new host needs the login in the
/// same request. A disconnected account is connected again by a new login, and what came in meanwhile is judged like any other
/// mail; a paused one stays paused.
///
/// A new address with a new login is another mailbox: from now on its mail is followed and no longer that of the former, what
/// lies there already is read as when an account is connected. With a key of the workspace the address becomes one of the
/// user's own, unless somebody else has it. Another host or user name may be another mailbox too: what lies there is compared,
/// and what is not known is read.
#[utoipa::path(patch, path = "/v1/workspaces/{ws}/accounts/{id}", tag = "accounts",
    operation_id = "update_account", request_body = AccountPatch, responses((status = 200, body = AccountView)))]
async fn change(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    input: Input<AccountPatch>,
) -> Result<Json<AccountView>, Problem> {
    let old = find(&mut access.read(&api).await?, id).await?;
    access.act_as(old.user_id)?;
    let AccountPatch { email, imap, smtp, sender, auth } = input.value;
    let telling = if imap.is_some() { "imap" } else { "auth" };
    let imap = match imap {
        Some(imap) => Some(imap.check(&api, "imap").await?),
        None => None,
    };
    let smtp = match smtp {
        Some(smtp) => Some(smtp.check(&api, "smtp").await?),
        None => None,
    };
    let email = email.map(|email| own_address(&api, email)).transpose()?;
    let names = auth.as_ref().map(AuthInput::login_names).transpose()?.unwrap_or_default();
    let tells_who = email.is_some() || matches!(sender, Patch::Set(_));
    let auth = auth.map(|auth| auth.check(api.gateway.sign_in.providers())).transpose()?;
    let mut tx = access.begin(&api).await?;
    let mut account = tx.account_to_change(id).await?.ok_or_else(Problem::not_found)?;
    account_life::require_not_erased(account.status.state)?;
    if auth.is_some() {
        require_role(&mut tx, &access, account.user_id).await?;
    }
    let old = account.clone();
    account.email = email.unwrap_or(account.email);
    give_servers(&mut account.settings, imap, smtp);
    let Identities { sender: old_sender, .. } = account.settings.identities.clone();
    account.settings.identities =
        Identities { sender: sender.apply(old_sender), ..names.apply(account.settings.identities) };
    if tells_who {
        require_own_addresses(&mut tx, &access, &account).await?;
    }
    if let Some(auth) = &auth {
        auth.require_right(&api, &access, &account).await?;
    } else {
        require_login(account.status.state)?;
        require_login_for_new_hosts(&old.settings, &account.settings)?;
    }
    require_admitted(&mut tx, telling, &account).await?;
    tx.update_account_settings(id, &account.email, &account.settings).await?;
    account.sending_refused = None;
    let is_renamed = old.email.key() != account.email.key();
    if is_renamed {
        tx.lock_filing().await?;
        own_address_of(&mut tx, &access, &account).await?;
    }
    if let Some(auth) = auth {
        let credentials = auth.credentials(&account.email);
        if is_renamed {
            move_to(&mut tx, &mut account).await?;
        } else if may_be_another(&mut tx, &account, (&old.settings, &credentials)).await? {
            tx.begin_generation(id).await?;
        }
        flow::login::part_from_grant(&mut tx, &old, flow::now()).await?;
        tx.replace_credentials(id, &credentials).await?;
        account.is_granted = auth.is_granted();
        auth.keep_grant(&mut tx, id).await?;
    }
    if matches!(account.status.state, AccountState::Paused | AccountState::WaitingForQuota) {
        tx.fence_account(id).await?;
    } else {
        restart(&mut tx, &api.gateway, &mut account).await?;
    }
    let shown = shown(&mut tx, account).await?;
    tx.commit().await?;
    api.look_now(id);
    Ok(Json(shown))
}

/// Makes an account's address one of its user's own: what he writes by it is his, and he is no stranger in what is written to it.
/// Only where the workspace asks for it: who acts as himself alone does not decide who he is. One that is known as somebody
/// else's is not his.
pub(super) async fn own_address_of(tx: &mut Tx, access: &Access, account: &Account) -> Result<(), Problem> {
    if access.act_for_all().is_err() {
        return Ok(());
    }
    let (users, contacts) = tx.people_among(std::slice::from_ref(&account.email)).await?;
    let user = tx.user_to_change(account.user_id).await?;
    let is_free = users.is_empty() && contacts.is_empty();
    if user.is_some_and(|user| is_free && user.aliases.len() < ALIASES_MAX) {
        tx.add_account_alias(account).await?;
    }
    Ok(())
}

/// Has another mailbox followed from now on.
async fn move_to(tx: &mut Tx, account: &mut Account) -> Result<(), Problem> {
    account.connected_at = flow::now();
    account.status.last_checked_at = None;
    tx.move_account(account.id, account.connected_at).await?;
    Ok(())
}

/// Whether a new login may lead to another mailbox: at another host, or of another user there. Of an account that was
/// disconnected nobody knows any more whose it was. `old` is what the account's settings were.
pub(super) async fn may_be_another(
    tx: &mut Tx,
    account: &Account,
    (old, new): (&AccountSettings, &Credentials),
) -> Result<bool, store::Error> {
    let was = match tx.credentials(account.id).await {
        Ok(was) => was,
        Err(error) if error.is_lasting() => None,
        Err(error) => return Err(error),
    };
    let is_same = was.is_some_and(|was| was.username() == new.username())
        && old.identities.imap_login == account.settings.identities.imap_login;
    Ok(!is_same || old.imap.host != account.settings.imap.host)
}

/// The stored login goes to the hosts it was given for and to no other: whoever may change accounts could else have it sent
/// to a host of his own, and read what no answer shows.
fn require_login_for_new_hosts(old: &AccountSettings, new: &AccountSettings) -> Result<(), Problem> {
    if old.imap.host == new.imap.host && old.smtp.host == new.smtp.host {
        return Ok(());
    }
    Err(Problem::invalid("auth", "A new host needs the login in the same request.")
        .advice("Send auth as well."))
}

/// What was disconnected or refused by the provider has no login left that could work.
fn require_login(state: AccountState) -> Result<(), Problem> {
    if matches!(state, AccountState::Disconnected | AccountState::ReauthRequired) {
        return Err(
            Problem::invalid("auth", "The account has no login that works.").advice("Send auth as well.")
        );
    }
    Ok(())
}

/// Has the worker begin anew with what was changed: whoever works the account now writes nothing more.
pub(super) async fn restart(tx: &mut Tx, gateway: &Gateway, account: &mut Account) -> Result<(), Problem> {
    let AccountStatus { state: was, last_synced_at, last_checked_at, .. } = account.status;
    account.status = AccountStatus { last_synced_at, last_checked_at, ..connecting(flow::now()) };
    tx.set_account_status(account.id, &account.status).await?;
    flow::limits::seat(tx, account, Some(was)).await?;
    tx.fence_account(account.id).await?;
    account.sending_refused = None;
    tx.refuse_sending(account.id, None).await?;
    // What was held while nobody could log in goes out now.
    flow::submit::release_held(tx, gateway, Some(account.user_id)).await?;
    Ok(())
}

#[derive(Serialize, ToSchema)]
struct Looking {
    status: StatusView,
}

/// Look for new mail now, without waiting for the next poll, and compare what the server has with what was taken note of.
/// `GET …/completeness` tells what was found.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/accounts/{id}/sync", tag = "accounts",
    operation_id = "sync_account", responses((status = 202, body = Looking)))]
async fn sync(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    let mut work = input.stamp.begin(&api, &access).await?;
    let account = work.account(id).await?.ok_or_else(Problem::not_found)?;
    access.act_as(account.user_id)?;
    if !account.status.state.is_worked() {
        return Err(account_life::not_worked(account.status.state).into());
    }
    let status = shown(&mut work, account).await?.status;
    let response = work.finish(Answer::accepted(&Looking { status })).await?;
    api.look_now(id);
    flow::sync::compare_now(&api.gateway.coord, id);
    Ok(response)
}
