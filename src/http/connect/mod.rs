//! Links at which users connect their own accounts: made by the CRM, opened by the user, good once.
//!
//! Whoever has the address of such a page may sign in there, and nobody else: it is as long as a key, and kept as its hash. The
//! sign-in itself is bound to the browser that began it (RFC 9700 section 4.7). Not here: what the pages look like (`page`), and
//! what becomes of a user who comes back (`arrival`).

mod arrival;
mod page;
mod shared;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    page::{Asking, Page},
    shared::SharedMailboxInput,
};
use super::{
    Api,
    access::Access,
    account_rules::excluded,
    body::{Input, PathId},
    once::{Answer, Stop},
    problem::Problem,
};
use crate::{
    core::{ids::UserId, policy::Settings, provider::Provider},
    flow::{
        self,
        api_key::{hash, prefixed},
    },
    store::{self, ConnectLink, Departure, Session},
};

/// How long a link can be opened: a mail with it may lie over a weekend.
const LINK_LIFETIME: SignedDuration = SignedDuration::from_hours(72);
/// How long a user may take to sign in.
const SIGN_IN_LIFETIME: SignedDuration = SignedDuration::from_mins(15);
/// The cookie that binds a sign-in to the browser that began it.
const COOKIE: &str = "mailweave_sign_in";
/// Every link's token begins so, that a leaked one can be searched for.
const TOKEN_PREFIX: &str = "mwl_";

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What users see, without a key.
pub(super) fn pages() -> Router<Api> {
    Router::new()
        .route("/connect/{token}", get(ask))
        .route("/connect/{token}/{provider}", post(depart))
        .route("/oauth/callback", get(arrival::arrive))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConnectLink {
    /// Where the user is to sign in, as the operator calls it under `[oauth.…]`. Left out, he chooses.
    #[schema(example = "google")]
    provider: Option<String>,
    /// A mailbox of several people, in place of the user's own: he signs in as himself, and may have to be allowed to open it.
    mailbox: Option<SharedMailboxInput>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectLink)]
struct ConnectLinkView {
    /// A page for the user alone: whoever opens it connects an account of his.
    #[schema(example = "https://mail.example.com/connect/mwl_5f0c")]
    url: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Make a page at which a user connects an account himself, by signing in at its provider. It is good for one account, for three
/// days. At an address that he has connected already, it gives that account a new login: so it does for a shared `mailbox`.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/users/{id}/connect-link", tag = "users",
    operation_id = "create_connect_link", request_body = NewConnectLink,
    responses((status = 201, body = ConnectLinkView)))]
async fn create(
    State(api): State<Api>,
    access: Access,
    PathId(user): PathId<UserId>,
    input: Input<NewConnectLink>,
) -> Result<Response, Stop> {
    access.act_as(user)?;
    let NewConnectLink { provider, mailbox } = input.value;
    require_provider(&api, provider.as_deref())?;
    let token = prefixed(TOKEN_PREFIX, flow::random());
    let expires_at = flow::now() + LINK_LIFETIME;
    let mut work = input.stamp.begin(&api, &access).await?;
    let person = work.user(user).await?.ok_or_else(Problem::not_found)?;
    let mailbox = mailbox.map(|mailbox| mailbox.check((&api, &access), &person)).transpose()?;
    require_admitted(&mut work, user, provider.as_deref()).await?;
    let link = ConnectLink {
        workspace: access.workspace,
        id: Uuid::now_v7(),
        user,
        provider,
        mailbox,
        expires_at,
        is_used: false,
    };
    work.insert_connect_link(&link, &hash(&token)).await?;
    let url = api.page_url(&format!("connect/{token}"));
    work.finish(Answer::created_secret(&ConnectLinkView { url, expires_at })).await
}

/// Refuses a provider that nobody can sign in at.
fn require_provider(api: &Api, name: Option<&str>) -> Result<(), Problem> {
    let offered = offered(api);
    let names: Vec<&str> = offered.iter().map(|(name, _)| name.as_str()).collect();
    if name.map_or(!names.is_empty(), |name| names.contains(&name)) {
        return Ok(());
    }
    let detail = match name {
        Some(_) => "No users sign in at a provider of this name.",
        None => "The operator has registered this gateway with no provider.",
    };
    let advice = match names.is_empty() {
        true => "The operator adds providers under [oauth.…].".to_owned(),
        false => format!("There are: {}. The operator adds others under [oauth.…].", names.join(", ")),
    };
    Err(Problem::invalid("provider", detail).advice(advice))
}

/// Refuses a provider that the user's policy leaves out.
async fn require_admitted(session: &mut Session, user: UserId, name: Option<&str>) -> Result<(), Problem> {
    let settings = flow::policy_of(session, Some(user)).await?.settings;
    let provider = name.and_then(Provider::named).filter(|provider| settings.excludes(provider));
    provider.map_or(Ok(()), |provider| Err(excluded("provider", provider)))
}

/// Whether policy leaves out a provider of this name.
fn is_excluded(settings: &Settings, name: &str) -> bool {
    Provider::named(name).is_some_and(|provider| settings.excludes(provider))
}

/// The providers at which users sign in, by name, each with what users call it.
fn offered(api: &Api) -> Vec<(String, String)> {
    let providers = api.gateway.sign_in.providers();
    let by_user =
        providers.names().filter(|name| providers.named(name).is_some_and(|one| one.domains.is_none()));
    by_user
        .map(|name| {
            let known = Provider::named(name);
            (name.to_owned(), known.map_or_else(|| name.to_owned(), |known| known.title.clone()))
        })
        .collect()
}

/// A link that can be used now, or the page that says why it cannot.
async fn open(api: &Api, token: &str) -> Result<ConnectLink, Page> {
    let found = api.store().system_read().await.map_err(unavailable)?.connect_link(&hash(token)).await;
    match found.map_err(unavailable)? {
        Some(link) if link.is_used => Err(Page::used()),
        Some(link) if link.expires_at > flow::now() => Ok(link),
        _ => Err(Page::gone()),
    }
}

fn unavailable(error: store::Error) -> Page {
    tracing::warn!(error = %error, "a page of a connect link could not be served");
    Page::unavailable()
}

/// The page that asks the user.
async fn ask(State(api): State<Api>, Path(token): Path<String>) -> Response {
    match asking(&api, &token).await {
        Ok(asking) => asking.page().into_response(),
        Err(page) => page.into_response(),
    }
}

async fn asking(api: &Api, token: &str) -> Result<Asking, Page> {
    let link = open(api, token).await?;
    let mut session = api.store().read(link.workspace).await.map_err(unavailable)?;
    let user = session.user(link.user).await.map_err(unavailable)?.ok_or_else(Page::gone)?;
    let settings = flow::policy_of(&mut session, Some(link.user)).await.map_err(unavailable)?.settings;
    drop(session);
    let workspace = api.store().system_read().await.map_err(unavailable)?.workspace(link.workspace).await;
    let workspace = workspace.map_err(unavailable)?.ok_or_else(Page::gone)?;
    let mut offered = offered(api);
    offered.retain(|(name, _)| link.provider.as_ref().is_none_or(|only| only == name));
    // A link may be older than the policy.
    let (excluded, offered): (Vec<_>, Vec<_>) =
        offered.into_iter().partition(|(name, _)| is_excluded(&settings, name));
    if let Some((_, title)) = excluded.first().filter(|_| offered.is_empty()) {
        return Err(Page::excluded(title));
    }
    let action = api.page_path(&format!("connect/{token}"));
    let mailbox = link.mailbox.map(|mailbox| mailbox.email);
    Ok(Asking { workspace: workspace.name, user, mailbox, offered, action })
}

/// Sends the user to his provider.
async fn depart(
    State(api): State<Api>,
    Path((token, provider)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match departure(&api, (&token, &provider), &headers).await {
        Ok(response) => response,
        Err(page) => page.into_response(),
    }
}

async fn departure(
    api: &Api,
    (token, provider): (&str, &str),
    headers: &HeaderMap,
) -> Result<Response, Page> {
    if !is_own_form(headers) {
        return Err(Page::elsewhere());
    }
    let link = open(api, token).await?;
    let is_offered = offered(api).iter().any(|(name, _)| name == provider);
    let is_meant = link.provider.as_deref().is_none_or(|only| only == provider);
    let registered = api.gateway.sign_in.providers().named(provider).filter(|_| is_offered && is_meant);
    let registered = registered.ok_or_else(Page::gone)?;
    let (state, cookie) = (prefixed("", flow::random()), prefixed("", flow::random()));
    let mut tx = api.store().begin(link.workspace).await.map_err(unavailable)?;
    let user = tx.user(link.user).await.map_err(unavailable)?.ok_or_else(Page::gone)?;
    let settings = flow::policy_of(&mut tx, Some(user.id)).await.map_err(unavailable)?.settings;
    if is_excluded(&settings, provider) {
        return Err(Page::excluded(Provider::named(provider).map_or(provider, |known| &known.title)));
    }
    let way = registered.client.depart(state.clone(), Some(&user.email));
    let departure = Departure {
        state_hash: hash(&state),
        cookie_hash: hash(&cookie),
        verifier: &way.verifier,
        provider,
        at: flow::now(),
    };
    tx.depart(link.id, departure).await.map_err(|error| match error {
        store::Error::Missing => Page::used(),
        error => unavailable(error),
    })?;
    tx.commit().await.map_err(unavailable)?;
    let secure = if api.is_https { "; Secure" } else { "" };
    let age = SIGN_IN_LIFETIME.as_secs();
    let cookie = format!("{COOKIE}={cookie}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| Page::unavailable())?;
    Ok(([(header::SET_COOKIE, cookie)], Page::onward(&way.url)).into_response())
}

/// Whether a form was sent by our own page, as far as the browser says (Fetch metadata; else RFC 6454).
fn is_own_form(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), ..) => site == "same-origin",
        // Our pages keep their address to themselves, so that an honest browser says "null" where it says nothing better.
        (None, Some("null"), _) => true,
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        // No browser.
        (None, ..) => true,
    }
}

impl Api {
    /// Where a page of this gateway is, for whoever is to open it.
    fn page_url(&self, path: &str) -> String {
        format!("{}/{path}", self.own_url.as_str().trim_end_matches('/'))
    }

    /// The same as the browser that is there already asks for it.
    fn page_path(&self, path: &str) -> String {
        format!("{}/{path}", self.own_url.path().trim_end_matches('/'))
    }
}
