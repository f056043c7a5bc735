//! Posts one event to one endpoint, and decides from the answer what comes next (docs/flows.md, "Notify").
//!
//! Not here: signing and the post itself (`webhook`), and writing events (`store`, in the transaction of what they tell).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{FlowError, Gateway};
use crate::{
    core::{
        event::{Event, JournalEntry},
        ids::{WebhookId, WorkspaceId},
        job::{delivery_lane, delivery_lanes},
        retry,
        webhook::Webhook,
    },
    failpoint,
    queue::{Leased, Settlement},
    store::Tx,
    webhook::{Failure, Post, Posted, Room},
};

/// How long the lanes of an endpoint wait that has no place for one more post.
const STAND_BACK: SignedDuration = SignedDuration::from_secs(2);
/// The answer by which an endpoint says that it is no more (Standard Webhooks, "Delivery").
const GONE: u16 = 410;
/// How long an event waits beyond the one it must not overtake.
const BEHIND: SignedDuration = SignedDuration::from_secs(1);

/// Delivers the event with this number.
///
/// # Errors
/// Those of the store. `Obsolete` when endpoint or event are gone.
pub async fn deliver(gateway: &Gateway, job: &Leased, id: WebhookId, seq: i64) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let endpoint = session.webhook(id, super::now()).await?.ok_or(FlowError::Obsolete)?;
    let entry = session.event_by_seq(seq).await?.ok_or(FlowError::Obsolete)?;
    if endpoint.disabled_at.is_some() {
        return Err(FlowError::Obsolete);
    }
    if let Some(other) = entry.follows()
        && let Some(due) = session.lane_due(&delivery_lane(id, other), job.id).await?
    {
        drop(session);
        return wait_behind(gateway, job, due).await;
    }
    drop(session);
    let room = if endpoint.failing_since.is_some() { Room::Alone } else { Room::Shared };
    let Some(_place) = gateway.webhooks.place(job.workspace, id, room).await else {
        return stand_back(gateway, job, id).await;
    };
    let body = body(job.workspace, &entry);
    let id = entry.id.to_string();
    let post = Post { id: &id, at: super::now(), body: &body };
    let posted = gateway.webhooks.post(&endpoint.url, &endpoint.secrets, post).await;
    count(posted);
    failpoint::reach("webhook.answered", "");
    record(gateway, job, &endpoint, posted).await
}

/// Lets what is to be told before go first.
async fn wait_behind(gateway: &Gateway, job: &Leased, due: Timestamp) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, Settlement::RetryAt(due.max(super::now()) + BEHIND)).await?;
    tx.commit().await?;
    Ok(())
}

/// Takes everything that waits for this endpoint out of the way of the others, at once: it would find no place either.
async fn stand_back(gateway: &Gateway, job: &Leased, endpoint: WebhookId) -> Result<(), FlowError> {
    let until = super::now() + STAND_BACK;
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.defer_lanes(&delivery_lanes(endpoint), until).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    tx.commit().await?;
    Ok(())
}

fn count(posted: Posted) {
    let outcome = match posted {
        Posted::Delivered => "delivered",
        Posted::Gone => "gone",
        Posted::Failed { failure, .. } => failure.cause(),
    };
    metrics::counter!("mailweave_webhook_posts_total", "outcome" => outcome).increment(1);
}

/// The body of every try: made from the journal alone, hence the same each time.
fn body(workspace: WorkspaceId, entry: &JournalEntry) -> String {
    serde_json::json!({
        "id": entry.id,
        "type": entry.kind,
        "created_at": entry.created_at,
        "workspace_id": workspace,
        "data": entry.data,
    })
    .to_string()
}

async fn record(
    gateway: &Gateway,
    job: &Leased,
    endpoint: &Webhook,
    posted: Posted,
) -> Result<(), FlowError> {
    let now = super::now();
    let mut tx = gateway.store.begin(job.workspace).await?;
    let settlement = match posted {
        Posted::Delivered => {
            tx.set_webhook_working(endpoint.id).await?;
            Settlement::Done
        }
        Posted::Gone => {
            tx.set_webhook_failing(endpoint.id, &Failure::Status(GONE).to_string(), now).await?;
            disable(&mut tx, endpoint.id, "The endpoint answered 410 Gone.", now).await?
        }
        Posted::Failed { failure, retry_after } => {
            let since = tx.set_webhook_failing(endpoint.id, &failure.to_string(), now).await?;
            note(endpoint.id, job, failure);
            match next_try(job, now, since) {
                Some(wait) => {
                    let wait = wait.max(retry_after.unwrap_or_default());
                    Settlement::TriedUntil(now + super::signed(wait))
                }
                None => {
                    let reason =
                        format!("The endpoint failed for about 75 hours, the last time with: {failure}.");
                    disable(&mut tx, endpoint.id, &reason, now).await?
                }
            }
        }
    };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

/// How long to wait after one more failure; `None` gives the endpoint up.
fn next_try(job: &Leased, now: Timestamp, failing_since: Timestamp) -> Option<Duration> {
    let failing = Duration::try_from(now.duration_since(failing_since)).unwrap_or_default();
    retry::webhook(job.tries.saturating_add(1), failing, super::jitter())
}

/// What tenants are not told: the operator sees whether it is the network, TLS or his own rules.
fn note(endpoint: WebhookId, job: &Leased, failure: Failure) {
    let (cause, tries) = (failure.cause(), job.tries.saturating_add(1));
    tracing::info!(webhook = %endpoint, job = job.id, tries, cause, failure = %failure, "an endpoint did not take an event");
}

/// Gives an endpoint up. Several posts may come to this at once: whoever stops it tells of it.
async fn disable(
    tx: &mut Tx,
    endpoint: WebhookId,
    reason: &str,
    now: Timestamp,
) -> Result<Settlement, FlowError> {
    if tx.disable_webhook(endpoint, reason, now).await? {
        tx.announce(&Event::WebhookDisabled { webhook: endpoint, reason: reason.to_owned() }, now).await?;
    }
    Ok(Settlement::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{EventId, Id};

    #[test]
    fn every_try_posts_the_same_body() {
        let workspace = WorkspaceId::from_uuid(uuid::Uuid::from_u128(1));
        let entry = JournalEntry {
            seq: 7,
            id: EventId::from_uuid(uuid::Uuid::from_u128(2)),
            kind: "message.sent".into(),
            created_at: Timestamp::UNIX_EPOCH,
            data: serde_json::json!({ "message_id": "msg_x" }),
        };
        let first: serde_json::Value = serde_json::from_str(&body(workspace, &entry)).unwrap();
        assert_eq!(first["type"], "message.sent");
        assert_eq!(first["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(body(workspace, &entry), body(workspace, &entry));
    }
}
