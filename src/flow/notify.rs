//! Posts one event to one endpoint, and decides from the answer what comes next (docs/flows.md, "Notify").
//!
//! Not here: signing and the post itself (`webhook`), and writing events (`store`, in the transaction of what they tell).

use jiff::{SignedDuration, Timestamp};

use super::{FlowError, Gateway};
use crate::{
    core::{
        event::{Event, JournalEntry},
        ids::{WebhookId, WorkspaceId},
        retry,
        webhook::Webhook,
    },
    queue::{Leased, Settlement},
    store::Tx,
    webhook::{Post, Posted},
};

/// Delivers the event with this number.
///
/// # Errors
/// Those of the store. `Obsolete` when endpoint or event are gone.
pub async fn deliver(gateway: &Gateway, job: &Leased, id: WebhookId, seq: i64) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let endpoint = session.webhook(id, super::now()).await?.ok_or(FlowError::Obsolete)?;
    let entry = session.event_by_seq(seq).await?.ok_or(FlowError::Obsolete)?;
    drop(session);
    if endpoint.disabled_at.is_some() {
        return Err(FlowError::Obsolete);
    }
    let body = body(job.workspace, &entry);
    let id = entry.id.to_string();
    let post = Post { id: &id, at: super::now(), body: &body };
    let posted = gateway.webhooks.post(&endpoint.url, &endpoint.secrets, post).await;
    record(gateway, job, &endpoint, posted).await
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
        Posted::Gone => disable(&mut tx, endpoint.id, "The endpoint answered 410 Gone.", now).await?,
        Posted::Failed { retry_after, .. } => {
            tx.set_webhook_failing(endpoint.id, now).await?;
            match retry::webhook(job.attempt, super::jitter()) {
                Some(wait) => Settlement::RetryAt(now + signed(wait.max(retry_after.unwrap_or_default()))),
                None => disable(&mut tx, endpoint.id, "The endpoint failed for about 75 hours.", now).await?,
            }
        }
    };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

async fn disable(
    tx: &mut Tx,
    endpoint: WebhookId,
    reason: &str,
    now: Timestamp,
) -> Result<Settlement, FlowError> {
    tx.disable_webhook(endpoint, reason, now).await?;
    tx.announce(&Event::WebhookDisabled { webhook: endpoint, reason: reason.to_owned() }, now).await?;
    Ok(Settlement::Done)
}

fn signed(wait: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
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
