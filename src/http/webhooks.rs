//! Endpoints of the CRM that events are posted to: made, changed, tried out, and given past events again.
//!
//! Not here: signing and posting (`webhook`), and what is posted when (`flow::notify`).

use axum::{Json, extract::State, http::StatusCode, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, Nothing, Parameters, PathId},
    events,
    field::Patch,
    host,
    once::{Answer, Stop},
    page::{Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        account::Security,
        account_cause::Cause,
        event::{EVENT_TYPES, Event, JournalEntry},
        ids::{EventId, Id as _, WebhookId},
        webhook::Webhook,
    },
    flow,
    store::{PageKey, Tx, mint},
};

const URL_CHARS_MAX: usize = 2048;
/// Random octets in a secret (Standard Webhooks: 24 to 64).
const SECRET_BYTES: usize = 32;
/// Events posted again by one request.
const REPLAY_EVENTS_MAX: u32 = 200;
/// Endpoints of one workspace.
const WEBHOOKS_MAX: usize = 50;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change, delete))
        .routes(routes!(test))
        .routes(routes!(replay))
        .routes(routes!(rotate_secret))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookView {
    #[schema(value_type = String)]
    id: WebhookId,
    url: String,
    /// The types it is sent; null for all but those that have to be asked for.
    events: Option<Vec<String>>,
    /// When it was disabled, by an answer 410 or after failing for days.
    #[schema(value_type = Option<String>, format = DateTime)]
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
    /// Nothing was taken since then.
    #[schema(value_type = Option<String>, format = DateTime)]
    failing_since: Option<Timestamp>,
    /// What the last failed post came to, while it fails: `HTTP` and a status, or `no answer`.
    #[schema(example = "HTTP 500")]
    last_failure: Option<String>,
    /// The kind of cause, in the words that users of other systems know it by, where the answer says as much.
    #[schema(example = "Access denied for this app")]
    title: Option<&'static str>,
    /// What you can do about it.
    advice: Option<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        let cause = webhook.refusal().and_then(Cause::of_answer);
        Self {
            title: cause.map(Cause::text),
            advice: cause.map(Cause::recommendation),
            id: webhook.id,
            url: webhook.url,
            events: webhook.events,
            disabled_at: webhook.disabled_at,
            disabled_reason: webhook.disabled_reason,
            failing_since: webhook.failing_since,
            last_failure: webhook.last_failure,
            created_at: webhook.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct NewWebhookView {
    #[serde(flatten)]
    webhook: WebhookView,
    /// Signs every post (Standard Webhooks 1.0). Shown this once.
    #[schema(example = "whsec_…")]
    secret: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    #[schema(example = "https://crm.example.com/hooks/mailweave")]
    url: String,
    /// All but those that have to be asked for, when left out.
    events: Option<Vec<String>>,
}

/// An address that may be posted to: TLS and port 443 unless the operator allows the host, no login in it.
async fn checked_url(api: &Api, text: &str) -> Result<String, Problem> {
    let refused = |detail: &'static str| Problem::invalid("url", detail);
    if text.chars().count() > URL_CHARS_MAX {
        return Err(refused("It is too long."));
    }
    let url = Url::parse(text).map_err(|_| refused("It is no URL."))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("It must hold no user name and no password."));
    }
    if url.fragment().is_some() {
        return Err(refused("It must hold no fragment."));
    }
    let host = host::host("url", url.host_str().ok_or_else(|| refused("It names no host."))?)?;
    let security = match url.scheme() {
        "https" if url.port().is_some() && !api.plain_hosts.allows(&host).await => {
            let advice = "Leave the port out, or have the operator add the host's address to [egress].allow.";
            return Err(refused("Events are posted to port 443 alone.").advice(advice));
        }
        "https" => Security::Tls,
        "http" => Security::None,
        _ => return Err(refused("It must begin with https://.")),
    };
    api.plain_hosts.check("url", &host, security).await.map_err(|problem| problem.at("url"))?;
    Ok(url.into())
}

fn checked_events(events: Vec<String>) -> Result<Vec<String>, Problem> {
    if events.is_empty() {
        let problem = Problem::invalid("events", "It names no type.");
        return Err(problem.advice("Name at least one type, or leave the field out for all of them."));
    }
    for (index, kind) in events.iter().enumerate() {
        if !EVENT_TYPES.contains(&kind.as_str()) {
            return Err(Problem::invalid(format!("events[{index}]"), "There is no such type of event."));
        }
    }
    let mut events = events;
    events.sort_unstable();
    events.dedup();
    Ok(events)
}

fn new_secret() -> SecretString {
    format!("whsec_{}", BASE64_STANDARD.encode(flow::random::<SECRET_BYTES>())).into()
}

/// Add an endpoint. The secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/webhooks", tag = "webhooks", operation_id = "create_webhook",
    request_body = NewWebhook, responses((status = 201, body = NewWebhookView)))]
async fn create(State(api): State<Api>, access: Access, input: Input<NewWebhook>) -> Result<Response, Stop> {
    access.act_for_all()?;
    let url = checked_url(&api, &input.value.url).await?;
    let events = input.value.events.map(checked_events).transpose()?;
    let mut work = input.stamp.begin(&api, &access).await?;
    let now = flow::now();
    if work.webhooks(now).await?.len() >= WEBHOOKS_MAX {
        let advice = "Delete one that is not needed any more.";
        let detail = format!("The workspace has {WEBHOOKS_MAX} endpoints.");
        return Err(Problem::conflict("too_many_webhooks", detail, advice).into());
    }
    let secret = new_secret();
    let webhook = Webhook {
        id: mint(),
        url,
        events,
        secrets: vec![secret.clone()],
        disabled_at: None,
        disabled_reason: None,
        failing_since: None,
        last_failure: None,
        created_at: now,
    };
    work.insert_webhook(&webhook).await?;
    let view = NewWebhookView { webhook: webhook.into(), secret: secret.expose_secret().to_owned() };
    work.finish(Answer::created_secret(&view)).await
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

/// List the endpoints, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    params(Listing), responses((status = 200, body = List<WebhookView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<WebhookView>>, Problem> {
    let webhooks = access.read(&api).await?.webhooks(flow::now()).await?;
    let key = |row: &Webhook| PageKey { at: row.created_at, id: row.id.uuid() };
    List::cut(webhooks, (query.limit, query.cursor.as_deref()), key, WebhookView::from)
}

/// Show an endpoint.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    responses((status = 200, body = WebhookView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
) -> Result<Json<WebhookView>, Problem> {
    let webhook = access.read(&api).await?.webhook(id, flow::now()).await?;
    webhook.map(|webhook| Json(webhook.into())).ok_or_else(Problem::not_found)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WebhookPatch {
    url: Option<String>,
    /// Null for all but those that have to be asked for.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    events: Patch<Vec<String>>,
    /// True stops it; false posts to it again, beginning with what still waits for it. What happened while it was disabled,
    /// and what fell due then, is not posted by itself: `replay` with `after` brings it.
    disabled: Option<bool>,
}

/// Change an endpoint; what is left out stays.
#[utoipa::path(patch, path = "/v1/workspaces/{ws}/webhooks/{id}", tag = "webhooks",
    operation_id = "update_webhook", request_body = WebhookPatch, responses((status = 200, body = WebhookView)))]
async fn change(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
    input: Input<WebhookPatch>,
) -> Result<Json<WebhookView>, Problem> {
    access.act_for_all()?;
    let WebhookPatch { url, events, disabled } = input.value;
    let url = match url {
        Some(url) => Some(checked_url(&api, &url).await?),
        None => None,
    };
    let now = flow::now();
    let mut tx = access.begin(&api).await?;
    let old = tx.webhook_to_change(id, now).await?.ok_or_else(Problem::not_found)?;
    let events = match events {
        Patch::Set(events) => Some(checked_events(events)?),
        other => other.apply(old.events),
    };
    let is_moved = url.as_ref().is_some_and(|url| *url != old.url);
    tx.update_webhook(id, url.as_deref().unwrap_or(&old.url), events.as_deref()).await?;
    match disabled {
        Some(false) => tx.enable_webhook(id, now).await?,
        Some(true) => drop(tx.disable_webhook(id, "It was disabled over the API.", now).await?),
        // What failed at the former address says nothing of this one.
        None if is_moved && old.disabled_at.is_none() => tx.retry_webhook(id, now).await?,
        None => {}
    }
    let webhook = tx.webhook(id, now).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(Json(webhook.into()))
}

/// Delete an endpoint; what waits to be posted to it goes with it.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}/webhooks/{id}", tag = "webhooks",
    operation_id = "delete_webhook", responses((status = 204, description = "It is deleted.")))]
async fn delete(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
) -> Result<StatusCode, Problem> {
    access.act_for_all()?;
    let mut tx = access.begin(&api).await?;
    tx.delete_webhook(id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An endpoint that is posted to; one that is disabled would never see what is sent.
async fn enabled(tx: &mut Tx, id: WebhookId, now: Timestamp) -> Result<Webhook, Problem> {
    let webhook = tx.webhook(id, now).await?.ok_or_else(Problem::not_found)?;
    if webhook.disabled_at.is_some() {
        let advice = "Enable it first: PATCH it with {\"disabled\": false}.";
        return Err(Problem::conflict("webhook_disabled", "The endpoint is disabled.", advice));
    }
    Ok(webhook)
}

#[derive(Serialize, ToSchema)]
struct Pinged {
    /// The `webhook-id` of the post.
    #[schema(value_type = String)]
    event_id: EventId,
}

/// Post a `test.ping` to an endpoint.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/webhooks/{id}/test", tag = "webhooks",
    operation_id = "test_webhook", responses((status = 202, body = Pinged)))]
async fn test(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    access.act_for_all()?;
    let now = flow::now();
    let mut work = input.stamp.begin(&api, &access).await?;
    enabled(&mut work, id, now).await?;
    let entry = work.announce(&Event::TestPing { webhook: id }, now).await?;
    work.finish(Answer::accepted(&Pinged { event_id: entry.id })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Replay {
    /// Every event after this one (an id or a cursor of the journal) that the endpoint asks for.
    after: Option<String>,
    /// These events, whatever the endpoint asks for; at most 200.
    #[schema(value_type = Option<Vec<String>>)]
    event_ids: Option<Vec<EventId>>,
}

#[derive(Serialize, ToSchema)]
struct Replayed {
    /// How many events will be posted again.
    queued: u64,
    /// When more may follow than the 200 events that one request looks at: pass it as `after` to go on.
    next_after: Option<String>,
}

/// Post past events to an endpoint again, with the ids and bodies they had, and what waits for it already before them.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/webhooks/{id}/replay", tag = "webhooks",
    operation_id = "replay_webhook", request_body = Replay, responses((status = 202, body = Replayed)))]
async fn replay(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
    input: Input<Replay>,
) -> Result<Response, Stop> {
    access.act_for_all()?;
    let now = flow::now();
    let mut work = input.stamp.begin(&api, &access).await?;
    let webhook = enabled(&mut work, id, now).await?;
    let Replay { after, event_ids } = input.value;
    let replayed = match (after, event_ids) {
        (Some(after), None) => replay_after(&mut work, &webhook, &after, now).await?,
        (None, Some(ids)) => replay_these(&mut work, &webhook, &ids, now).await?,
        _ => {
            let problem = Problem::invalid("after", "Exactly one of after and event_ids is needed.");
            return Err(problem.into());
        }
    };
    work.finish(Answer::accepted(&replayed)).await
}

async fn replay_after(
    tx: &mut Tx,
    webhook: &Webhook,
    after: &str,
    now: Timestamp,
) -> Result<Replayed, Problem> {
    let after = events::position(tx, "after", after).await?;
    let entries = tx.journal(after, None, REPLAY_EVENTS_MAX).await?;
    let more = entries.len() >= REPLAY_EVENTS_MAX as usize;
    let next_after = entries.last().filter(|_| more).map(|entry| entry.id.to_string());
    let own = webhook.id.to_string();
    let is_for_it = |entry: &JournalEntry| {
        webhook.wants(&entry.kind) && entry.pings().is_none_or(|endpoint| endpoint == own)
    };
    let wanted: Vec<_> = entries.into_iter().filter(is_for_it).collect();
    tx.deliver_again(webhook.id, &wanted, now).await?;
    Ok(Replayed { queued: wanted.len() as u64, next_after })
}

async fn replay_these(
    tx: &mut Tx,
    webhook: &Webhook,
    ids: &[EventId],
    now: Timestamp,
) -> Result<Replayed, Problem> {
    super::field::at_most("event_ids", ids, REPLAY_EVENTS_MAX as usize)?;
    let mut entries = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let missing =
            || Problem::invalid(format!("event_ids[{index}]"), "There is no such event in this workspace.");
        entries.push(tx.event(*id).await?.ok_or_else(missing)?);
    }
    // In the order in which they happened, whatever order they were named in.
    entries.sort_unstable_by_key(|entry| entry.seq);
    entries.dedup_by_key(|entry| entry.seq);
    tx.deliver_again(webhook.id, &entries, now).await?;
    Ok(Replayed { queued: entries.len() as u64, next_after: None })
}

/// Replace the secret. For a day the old one signs too, so that receivers can change over.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/webhooks/{id}/rotate-secret", tag = "webhooks",
    operation_id = "rotate_webhook_secret", responses((status = 200, body = NewWebhookView)))]
async fn rotate_secret(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<WebhookId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    access.act_for_all()?;
    let now = flow::now();
    let mut work = input.stamp.begin(&api, &access).await?;
    let webhook = work.webhook(id, now).await?.ok_or_else(Problem::not_found)?;
    let secret = new_secret();
    work.rotate_webhook_secret(id, &secret, now).await?;
    let view = NewWebhookView { webhook: webhook.into(), secret: secret.expose_secret().to_owned() };
    work.finish(Answer::ok_secret(&view)).await
}
