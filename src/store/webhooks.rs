//! The CRM's endpoints and their secrets, sealed under the workspace's key.
//!
//! Not here: posting to them (`webhook`) and when to give one up (`core::retry`).

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{
    Error, Place, Session, Tx,
    columns::{changed, json_text},
    sql::{Row, sql},
};
use crate::core::{
    ids::{Id as _, WebhookId},
    job::delivery_lanes,
    webhook::Webhook,
};

/// How long receivers may go on checking with the former secret.
pub const OLD_SECRET_LASTS: SignedDuration = SignedDuration::from_hours(24);

const COLUMNS: &str = "w.id, w.url, w.events, w.secret, w.old_secret, w.old_secret_until, w.disabled_at, \
     w.disabled_reason, w.failing_since, w.last_failure, w.created_at, \
     (select k.id from content_keys k where k.workspace = w.workspace and k.account is null) as key_id";

impl Tx {
    /// Adds an endpoint with the first of its secrets.
    ///
    /// # Errors
    /// `Missing` when it has none.
    pub async fn insert_webhook(&mut self, webhook: &Webhook) -> Result<(), Error> {
        let secret = webhook.secrets.first().ok_or(Error::Missing)?;
        let sealed = self.seal_secret(webhook.id, secret).await?;
        let query =
            sql("insert into webhooks (workspace, id, url, events, secret, disabled_at, disabled_reason, \
             failing_since, last_failure, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(self.workspace())
            .bind(webhook.id)
            .bind(webhook.url.as_str())
            .bind(webhook.events.as_ref().map(json_text))
            .bind(sealed)
            .bind(webhook.disabled_at)
            .bind(webhook.disabled_reason.clone())
            .bind(webhook.failing_since)
            .bind(webhook.last_failure.clone())
            .bind(webhook.created_at);
        self.execute(query).await?;
        Ok(())
    }

    /// Changes where events go and which.
    ///
    /// # Errors
    /// `Missing` when there is no such endpoint.
    pub async fn update_webhook(
        &mut self,
        id: WebhookId,
        url: &str,
        events: Option<&[String]>,
    ) -> Result<(), Error> {
        let query = sql("update webhooks set url = $3, events = $4 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(url)
            .bind(events.map(|events| json_text(&events)));
        changed(self.execute(query).await?)
    }

    /// Replaces the secret. The one it replaces signs too for a day, any older one no more.
    ///
    /// # Errors
    /// `Missing` when there is no such endpoint.
    pub async fn rotate_webhook_secret(
        &mut self,
        id: WebhookId,
        secret: &SecretString,
        now: Timestamp,
    ) -> Result<(), Error> {
        let sealed = self.seal_secret(id, secret).await?;
        let query = sql("update webhooks set old_secret = secret, old_secret_until = $4, secret = $3 \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(id)
        .bind(sealed)
        .bind(now + OLD_SECRET_LASTS);
        changed(self.execute(query).await?)
    }

    /// Notes that an endpoint fails, and how. Returns since when: the first failure after the last success counts.
    ///
    /// # Errors
    /// `Missing` when there is no such endpoint.
    pub async fn set_webhook_failing(
        &mut self,
        id: WebhookId,
        failure: &str,
        now: Timestamp,
    ) -> Result<Timestamp, Error> {
        let query =
            sql("update webhooks set failing_since = coalesce(failing_since, $3), last_failure = $4 \
             where workspace = $1 and id = $2 returning failing_since")
            .bind(self.workspace())
            .bind(id)
            .bind(now)
            .bind(failure);
        self.fetch_one(query).await?.get("failing_since")
    }

    /// Notes that an endpoint works. True when it was failing.
    pub async fn set_webhook_working(&mut self, id: WebhookId) -> Result<bool, Error> {
        let query = sql("update webhooks set failing_since = null, last_failure = null \
             where workspace = $1 and id = $2 and failing_since is not null")
        .bind(self.workspace())
        .bind(id);
        Ok(self.execute(query).await? > 0)
    }

    /// Stops posting to an endpoint. True when it was enabled: whoever stops it first announces it.
    pub async fn disable_webhook(
        &mut self,
        id: WebhookId,
        reason: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let query = sql("update webhooks set disabled_at = $3, disabled_reason = $4 \
             where workspace = $1 and id = $2 and disabled_at is null")
        .bind(self.workspace())
        .bind(id)
        .bind(now)
        .bind(reason);
        Ok(self.execute(query).await? > 0)
    }

    /// Posts to an endpoint again, as [`Tx::retry_webhook`] does. What fell due while it was disabled is gone, and what
    /// happened then was never queued: the journal has it.
    ///
    /// # Errors
    /// `Missing` when there is no such endpoint.
    pub async fn enable_webhook(&mut self, id: WebhookId, now: Timestamp) -> Result<(), Error> {
        let query = sql(
            "update webhooks set disabled_at = null, disabled_reason = null where workspace = $1 and id = $2",
        )
        .bind(self.workspace())
        .bind(id);
        changed(self.execute(query).await?)?;
        self.retry_webhook(id, now).await
    }

    /// Forgets that an endpoint failed, and has what waits for it posted now.
    pub async fn retry_webhook(&mut self, id: WebhookId, now: Timestamp) -> Result<(), Error> {
        self.set_webhook_working(id).await?;
        self.hasten_lanes(&delivery_lanes(id), now).await
    }

    /// # Errors
    /// `Missing` when there is no such endpoint.
    pub async fn delete_webhook(&mut self, id: WebhookId) -> Result<(), Error> {
        let query =
            sql("delete from webhooks where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        changed(self.execute(query).await?)
    }

    async fn seal_secret(&mut self, id: WebhookId, secret: &SecretString) -> Result<Vec<u8>, Error> {
        let key = self.content_key(None).await?;
        self.seal(key, &place(id), secret.expose_secret().as_bytes()).await
    }
}

impl Session {
    /// An endpoint with the secrets that sign at this time.
    pub async fn webhook(&mut self, id: WebhookId, now: Timestamp) -> Result<Option<Webhook>, Error> {
        let query = sql(format!("select {COLUMNS} from webhooks w where w.workspace = $1 and w.id = $2"))
            .bind(self.workspace())
            .bind(id);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        self.read_webhook(&row, now).await.map(Some)
    }

    /// Every endpoint, newest first: a workspace has few.
    pub async fn webhooks(&mut self, now: Timestamp) -> Result<Vec<Webhook>, Error> {
        let query = sql(format!(
            "select {COLUMNS} from webhooks w where w.workspace = $1 order by w.created_at desc, w.id desc"
        ))
        .bind(self.workspace());
        let mut webhooks = Vec::new();
        for row in self.fetch_all(query).await? {
            webhooks.push(self.read_webhook(&row, now).await?);
        }
        Ok(webhooks)
    }

    async fn read_webhook(&mut self, row: &Row, now: Timestamp) -> Result<Webhook, Error> {
        let id = row.id("id")?;
        let key = row.get("key_id")?;
        let old: Option<Vec<u8>> = row.get("old_secret")?;
        let until: Option<Timestamp> = row.get("old_secret_until")?;
        let live = old.filter(|_| until.is_some_and(|until| until > now));
        let mut secrets = Vec::new();
        for sealed in [Some(row.get::<Vec<u8>>("secret")?), live].into_iter().flatten() {
            let plain = Zeroizing::new(self.open_sealed(key, &place(id), &sealed).await?);
            let text =
                std::str::from_utf8(&plain).map_err(|_| Error::Corrupt("webhooks: no secret".into()))?;
            secrets.push(SecretString::from(text));
        }
        Ok(Webhook {
            id,
            url: row.get("url")?,
            events: row.opt_json("events")?,
            secrets,
            disabled_at: row.get("disabled_at")?,
            disabled_reason: row.get("disabled_reason")?,
            failing_since: row.get("failing_since")?,
            last_failure: row.get("last_failure")?,
            created_at: row.get("created_at")?,
        })
    }
}

/// One place for both secrets: the present one becomes the former one without being opened.
fn place(id: WebhookId) -> Place {
    Place::new("webhooks", "secret", id.uuid())
}
