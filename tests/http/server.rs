//! A gateway's API on a free port with a store of its own, and a client that speaks to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mailweave::{
    account::{Discovered, Found},
    app,
    config::{Config, DomainName},
    core::{
        account::{Endpoint, FoundBy, Security},
        inbound::{Door, Intake, fingerprint},
        job::{Job, JobKind},
    },
    flow::{self, Gateway},
    http::{self, ApiState, Discovery, HostRule},
    mail::{Address, Envelope, Recipient, ReversePath},
    net::{self, Egress, Resolver},
    store::mint,
};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{postgres::Database, store::Engine};

pub const ADMIN_KEY: &str = "an-administrators-key-of-more-than-32-characters";
pub const CAPTURE_DOMAIN: &str = "bcc.example.com";

/// What domains say of their mail here.
fn discovered(domain: &str) -> Discovered {
    let at = |host: &str, port| {
        let server = Endpoint { host: format!("{host}.{domain}"), port, security: Security::Tls };
        Found { server, by: FoundBy::Srv }
    };
    match domain {
        "found.example" => {
            Discovered { imap: Some(at("imap", 993)), smtp: Some(at("smtp", 465)), ..Discovered::default() }
        }
        "foreign.example" => {
            Discovered { foreign: Some("imap.evil.example".into()), ..Discovered::default() }
        }
        _ => Discovered::default(),
    }
}

/// Runs one test on both stores: `both! { async fn name(api) { … } }`.
macro_rules! both {
    ($(async fn $name:ident($api:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs all that its file imports")]
            use super::*;

            async fn run($api: &crate::server::Server) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let server = crate::server::Server::sqlite().await;
                run(&server).await;
                server.stop().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let server = crate::server::Server::postgres().await;
                run(&server).await;
                server.stop().await;
            }
        }
    )*};
}
pub(crate) use both;

pub struct Server {
    pub url: String,
    pub gateway: Gateway,
    pub ready: Arc<AtomicBool>,
    client: reqwest::Client,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    directory: TempDir,
    database: Option<Database<'static>>,
}

impl Server {
    pub async fn sqlite() -> Self {
        Self::start(TempDir::new().unwrap(), None).await
    }

    pub async fn postgres() -> Self {
        let database = tokio::task::spawn_blocking(|| Engine::Postgres.database()).await.unwrap();
        Self::start(TempDir::new().unwrap(), database).await
    }

    async fn start(directory: TempDir, database: Option<Database<'static>>) -> Self {
        net::install_provider();
        let gateway = app::gateway(&config(&directory, database.as_ref())).await.unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let loopback = Egress::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let state = ApiState {
            gateway: gateway.clone(),
            admin_key: Some(ADMIN_KEY.into()),
            ready: Arc::clone(&ready),
            metrics: Arc::new(|| "mailweave_up 1\n".to_owned()),
            public_url: None,
            own_url: "https://gateway.example/below/".parse().unwrap(),
            discovery: Discovery::new(|domain| Box::pin(std::future::ready(discovered(&domain)))),
            plain_hosts: HostRule::of(Resolver::System, loopback),
            message_bytes_max: 36 * 1024 * 1024,
            shutdown_grace: Duration::from_secs(30),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(http::serve(listener, state, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(Duration::from_secs(60)).build().unwrap();
        Self { url, gateway, ready, client, shutdown, serving, directory, database }
    }

    /// Stops serving, and shows that it ends.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.serving).await.expect("serving ends").unwrap();
        self.gateway.store.close().await;
    }

    /// Whether a text stands anywhere in what is kept for idempotency, or with SQLite anywhere at all.
    pub fn keeps(&self, text: &str) -> bool {
        match &self.database {
            Some(database) => database.run("select body from idempotency_keys").contains(text),
            None => std::fs::read_dir(self.directory.path()).unwrap().any(|entry| {
                let content = std::fs::read(entry.unwrap().path()).unwrap_or_default();
                content.windows(text.len()).any(|window| window == text.as_bytes())
            }),
        }
    }

    pub fn shutdown(&self) {
        self.shutdown.cancel();
    }

    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    /// A request without a key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// The instance administrator.
    pub fn admin(&self) -> Caller<'_> {
        Caller { server: self, key: ADMIN_KEY.to_owned(), base: String::new() }
    }

    /// A new workspace, and its administrator.
    pub async fn workspace(&self, slug: &str) -> Caller<'_> {
        let admin = self.admin();
        let body = json!({ "name": slug, "slug": slug });
        let workspace = admin.post("/v1/workspaces", body).await.expect(201);
        let id = workspace["id"].as_str().unwrap();
        let base = format!("/v1/workspaces/{id}");
        Caller { server: self, key: ADMIN_KEY.to_owned(), base }
            .with_key(json!({ "scopes": ["admin"] }))
            .await
    }
}

fn config(directory: &TempDir, database: Option<&Database<'_>>) -> Config {
    let mut config = Config::default();
    config.node.data_dir = directory.path().to_owned();
    config.domains.capture = DomainName::parse(CAPTURE_DOMAIN);
    config.domains.reply = DomainName::parse("reply.example.com");
    if let Some(database) = database {
        database.keep_data_of(&mut config, directory.path());
    }
    config
}

/// Somebody with a key, in a workspace.
#[derive(Clone)]
pub struct Caller<'a> {
    pub server: &'a Server,
    pub key: String,
    /// What paths begin with.
    pub base: String,
}

impl<'a> Caller<'a> {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(method, &format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body)).await
    }

    /// A POST under an idempotency key.
    pub async fn post_once(&self, key: &str, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    /// The same workspace with a new key.
    pub async fn with_key(&self, mut key: Value) -> Caller<'a> {
        key["name"] = "test".into();
        let made = self.post("/keys", key).await.expect(201);
        Caller { key: made["secret"].as_str().unwrap().to_owned(), ..self.clone() }
    }

    pub fn workspace_id(&self) -> &str {
        self.base.rsplit('/').next().unwrap()
    }

    pub async fn user(&self, email: &str) -> String {
        let user = self.post("/users", json!({ "email": email, "name": "A User" })).await.expect(201);
        user["id"].as_str().unwrap().to_owned()
    }

    pub async fn contact(&self, email: &str) -> String {
        let contact = self.post("/contacts", json!({ "email": email })).await.expect(201);
        contact["id"].as_str().unwrap().to_owned()
    }

    pub async fn account(&self, user: &str, email: &str) -> String {
        let account = self.post("/accounts", account(user, email)).await.expect(201);
        account["id"].as_str().unwrap().to_owned()
    }

    /// A user with an account, who can send.
    pub async fn sender(&self, email: &str) -> String {
        let user = self.user(email).await;
        self.account(&user, email).await;
        user
    }

    /// A stranger's mail at this user's capture address, which is kept aside.
    pub async fn quarantined(&self, user: &str) -> String {
        let gateway = &self.server.gateway;
        let shown = self.get(&format!("/users/{user}")).await.expect(200);
        let address = Address::parse(shown["capture_address"].as_str().unwrap()).unwrap();
        let route = gateway.live_route(&address, flow::now()).await.unwrap().expect("it is live");
        let stranger = Address::parse("eve@stranger.example").unwrap();
        let envelope = Envelope {
            recipients: vec![Recipient::new(address)],
            ..Envelope::new(ReversePath::Address(stranger))
        };
        let raw =
            Bytes::from_static(b"From: eve@stranger.example\r\nSubject: Of a stranger\r\n\r\nText.\r\n");
        let fingerprint = fingerprint(&envelope, &raw);
        let workspace = route.workspace;
        let door = Door::Mx { routes: vec![route], envelope, peer: "192.0.2.1".into(), hello: String::new() };
        let intake = Intake { workspace, door, raw, fingerprint };
        let taken = gateway.store.take_in(intake, mint(), flow::now()).await.unwrap().id;
        let lease = Duration::from_secs(60);
        for job in gateway.queue.claim(&[JobKind::Process], flow::now(), lease, 100).await.unwrap() {
            let Job::Process { inbound } = job.job else { panic!("{job:?}") };
            flow::process(gateway, &job, inbound).await.unwrap();
        }
        taken.to_string()
    }

    pub async fn send(&self, user: &str, to: &str, subject: &str) -> Value {
        let body =
            json!({ "from_user_id": user, "to": [{ "email": to }], "subject": subject, "text": "Hello." });
        self.post("/messages", body).await.expect(202)
    }
}

pub fn account(user: &str, email: &str) -> Value {
    json!({
        "user_id": user,
        "email": email,
        "imap": { "host": "imap.example.com", "port": 993, "security": "tls" },
        "smtp": { "host": "smtp.example.com", "port": 587, "security": "starttls" },
        "auth": { "type": "password", "username": email, "password": "hunter2-canary" },
    })
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, bytes: response.bytes().await.unwrap().to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text()))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// The items of a list.
    #[track_caller]
    pub fn items(&self) -> Vec<Value> {
        self.expect(200)["items"].as_array().unwrap().clone()
    }

    /// That this is a problem with this status, code and field at fault.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str, param: Option<&str>) {
        let body = self.expect(status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!((body["code"].as_str(), body["param"].as_str()), (Some(code), param), "{body}");
        assert_eq!(body["status"], status);
        for member in ["type", "title", "detail", "advice"] {
            assert!(
                body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member} is missing: {body}"
            );
        }
        assert_eq!(body["request_id"].as_str().unwrap(), self.headers["x-request-id"].to_str().unwrap());
    }
}
