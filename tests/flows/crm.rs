//! The CRM: calls to the HTTP API about one workspace, and what the journal tells it.
//!
//! Not here: webhooks, which a receiver of their own tests.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{PATIENCE, wait_for};

/// A caller with a key, for one workspace.
#[derive(Clone)]
pub struct Crm {
    client: reqwest::Client,
    base: String,
    key: String,
    slug: String,
    runtime: Handle,
}

/// An answer of the API, whatever it says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Crm {
    pub fn new(http: SocketAddr, key: &str, slug: &str, runtime: Handle) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self {
            client,
            base: format!("http://{http}/v1"),
            key: key.to_owned(),
            slug: slug.to_owned(),
            runtime,
        }
    }

    /// The same workspace with another key.
    pub fn with_key(&self, key: &str) -> Self {
        let Self { client, base, slug, runtime, .. } = self;
        Self {
            client: client.clone(),
            base: base.clone(),
            key: key.to_owned(),
            slug: slug.clone(),
            runtime: runtime.clone(),
        }
    }

    /// Makes the workspace.
    pub fn settle_in(self) -> Self {
        let body = json!({ "name": self.slug, "slug": self.slug });
        let answer = self.call(Method::POST, format!("{}/workspaces", self.base), Some((&body, None)));
        assert_eq!(answer.status, 201, "{answer:?}");
        self
    }

    fn call(&self, method: Method, url: String, body: Option<(&Value, Option<&str>)>) -> Answer {
        let mut request = self.client.request(method, url).bearer_auth(&self.key);
        if let Some((body, idempotency_key)) = body {
            request = request.json(body);
            if let Some(key) = idempotency_key {
                request = request.header("Idempotency-Key", key);
            }
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let bytes = response.bytes().await.unwrap();
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/workspaces/{}{path}", self.base, self.slug)
    }

    /// What the command line is told of where to ask.
    pub fn command_line(&self) -> mailweave::cli::Client {
        mailweave::cli::Client {
            workspace: Some(self.slug.clone()),
            url: self.base.trim_end_matches("/v1").parse().unwrap(),
            api_key: Some(self.key.clone().into()),
        }
    }

    /// The answer to a GET, whatever it is.
    pub fn ask(&self, path: &str) -> Answer {
        self.call(Method::GET, self.url(path), None)
    }

    /// The answer to a POST, whatever it is.
    pub fn try_post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, self.url(path), Some((body, None)))
    }

    /// The same under an Idempotency-Key.
    pub fn try_post_once(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.call(Method::POST, self.url(path), Some((body, Some(key))))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// What a GET answers that is no JSON.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        self.get(path).as_str().expect("no JSON").to_owned()
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.try_post(path, body);
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(Method::PUT, self.url(path), Some((body, None)));
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    #[track_caller]
    pub fn patch(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(Method::PATCH, self.url(path), Some((body, None)));
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    #[track_caller]
    pub fn delete(&self, path: &str) {
        let answer = self.call(Method::DELETE, self.url(path), None);
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
    }

    /// A key with these scopes, of one user if so said: its id and its secret.
    #[track_caller]
    pub fn key(&self, scopes: &[&str], user: Option<&str>) -> (String, String) {
        let key = self.post("/keys", &json!({ "name": "CRM", "scopes": scopes, "user_id": user }));
        (text(&key, "id").to_owned(), text(&key, "secret").to_owned())
    }

    /// The same CRM with a key of this user's, which reads.
    #[must_use]
    pub fn as_user(&self, user: &str) -> Self {
        let (_, key) = self.key(&["read"], Some(user));
        let mut crm = self.clone();
        crm.key = key;
        crm
    }

    /// Every item of a list, page by page.
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{joint}limit=200{cursor}"));
            items.append(page["items"].as_array_mut().expect("a list has items"));
            let Some(next) = page["next_cursor"].as_str() else { return items };
            cursor = format!("&cursor={next}");
        }
    }

    /// Every event so far, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.list("/events")
    }

    /// The events of this type so far.
    #[track_caller]
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.list(&format!("/events?types={kind}"))
    }

    /// The first event of this type that the predicate holds for, once there is one.
    #[track_caller]
    pub fn await_event(&self, kind: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let mut found = None;
        wait_for(&format!("{kind} in {}", self.slug), PATIENCE, || {
            found = self.events_of(kind).into_iter().find(|event| is_it(&event["data"]));
            found.is_some()
        });
        found.expect("the wait has ended")
    }

    /// The event of this type about the message with this Message-ID.
    #[track_caller]
    pub fn await_mail(&self, kind: &str, rfc822_id: &str) -> Value {
        self.await_event(kind, |data| data["rfc822_message_id"] == rfc822_id)
    }

    /// The message of this id, once its delivery is in this state.
    #[track_caller]
    pub fn await_delivery(&self, message: &str, state: &str) -> Value {
        let mut shown = Value::Null;
        wait_for(&format!("{message} to be {state}"), PATIENCE, || {
            shown = self.ask(&format!("/messages/{message}")).body;
            shown["delivery"]["state"] == state
        });
        shown
    }

    /// Waits until an account has been read to its end.
    #[track_caller]
    pub fn await_account(&self, account: &str) {
        wait_for(&format!("account {account} to be read"), PATIENCE, || {
            let state = &self.get(&format!("/accounts/{account}"))["status"]["state"];
            state == "active" || state == "awaiting_first_mail"
        });
    }

    /// Every message of the workspace.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let conversations = self.list("/conversations");
        let messages = |conversation: &Value| {
            self.list(&format!("/conversations/{}/messages", text(conversation, "id")))
        };
        conversations.iter().flat_map(messages).collect()
    }

    /// All that the API tells of the workspace, but for the messages' exact bytes.
    #[track_caller]
    pub fn everything(&self) -> String {
        let mut said: Vec<Value> = self.messages();
        for path in ["/conversations", "/contacts", "/events", "/decisions", "/accounts"] {
            said.extend(self.list(path));
        }
        Value::Array(said).to_string()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let everything = self.ask("/events").body;
            eprintln!("--- what {} was told\n{everything:#}", self.slug);
        }
    }
}

/// A text of an answer.
#[track_caller]
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The texts under this key of every item.
pub fn texts(items: &[Value], key: &str) -> Vec<String> {
    items.iter().map(|item| text(item, key).to_owned()).collect()
}
