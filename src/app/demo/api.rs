//! The demo's CRM: a few calls to the HTTP API, as any program would make them.
//!
//! Not here: a client library. The command line has one for people (`app::client`).

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// How long the demo waits for something that takes a second at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A caller with a key.
pub(super) struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    pub(super) fn new(base: String, key: String) -> anyhow::Result<Self> {
        let client =
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("HTTP client")?;
        Ok(Self { client, base, key })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.client.get(self.url(path)), path).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.client.post(self.url(path)).json(body), path).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> anyhow::Result<Value> {
        let response =
            request.bearer_auth(&self.key).send().await.with_context(|| format!("calling {path}"))?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("reading the answer to {path}"))?;
        if !status.is_success() {
            bail!("{path} answered {status}: {body}");
        }
        Ok(body)
    }

    /// Waits for the next event of this type after `after`, and gives it with the cursor behind it.
    pub(super) async fn event(
        &self,
        events: &str,
        kind: &str,
        after: &mut Option<String>,
    ) -> anyhow::Result<Value> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let cursor = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
            let page = self.get(&format!("{events}?limit=200{cursor}")).await?;
            let found = array(&page, "/items").iter().find(|event| text(event, "/type") == kind);
            if let Some(event) = found {
                *after = Some(text(event, "/id").to_owned());
                return Ok(event.clone());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("no {kind} within {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A list in an answer.
pub(super) fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A string member of an answer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
