//! The HTTP API as a CRM calls it.
//!
//! Not here: what the answers should be. A call that the gateway did not live to answer is an error like any other.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::world::ADMIN_KEY;

const TIMEOUT: Duration = Duration::from_secs(20);
/// The most that lists give at once.
const PAGE: usize = 200;

#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        mailweave::net::install_provider();
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().unwrap();
        Self { client, base: format!("http://{address}/v1") }
    }

    /// # Panics
    /// When the answer is no success.
    pub async fn get(&self, path: &str) -> Value {
        let response = self.client.get(format!("{}{path}", self.base)).bearer_auth(ADMIN_KEY).send().await;
        let response = response.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path} answered {status}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The exact bytes of a message; `None` when there is no such message.
    pub async fn raw(&self, message: &str) -> Option<Vec<u8>> {
        let url = format!("{}/workspaces/acme/messages/{message}/raw", self.base);
        let response = self.client.get(url).bearer_auth(ADMIN_KEY).send().await.unwrap();
        match response.status() {
            StatusCode::NOT_FOUND => None,
            StatusCode::OK => Some(response.bytes().await.unwrap().to_vec()),
            other => panic!("{message} answered {other}"),
        }
    }

    /// # Panics
    /// When the answer is no success.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_post(path, body, None).await.unwrap();
        assert!(status.is_success(), "{path} answered {status}: {answer}");
        answer
    }

    /// Changes something, or puts it.
    ///
    /// # Panics
    /// When the answer is no success.
    pub async fn change(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let response = request.bearer_auth(ADMIN_KEY).json(body).send().await.unwrap();
        let (status, answer) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path} answered {status}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// One attempt, whatever comes of it.
    pub async fn try_post(
        &self,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> reqwest::Result<(StatusCode, Value)> {
        let mut request = self.client.post(format!("{}{path}", self.base)).bearer_auth(ADMIN_KEY).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// A list as a whole, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}?limit={PAGE}{after}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return items,
            }
        }
    }

    /// Every message of the workspace, by way of its conversations.
    pub async fn messages(&self) -> Vec<Value> {
        let mut messages = Vec::new();
        for conversation in self.all("/workspaces/acme/conversations").await {
            let id = conversation["id"].as_str().unwrap();
            let of_it = self.all(&format!("/workspaces/acme/conversations/{id}/messages")).await;
            assert_eq!(conversation["message_count"], of_it.len(), "{id}");
            messages.extend(of_it);
        }
        messages
    }
}
