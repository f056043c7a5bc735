//! The gateway under measure: the program itself, on loopback, with a workspace and a user made through its API.
//!
//! Not here: what is done with it.

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{
    free_address,
    server::{Server, Spec, directory},
    tls::Authority,
};

const ADMIN_KEY: &str = "0123456789abcdef0123456789abcdef";
/// How long it may take to file what it has taken in.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks whether it is done.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Gateway {
    pub server: Server,
    pub mx: SocketAddr,
    /// Where copies of the user's mail are sent.
    pub capture_address: String,
    /// The user.
    pub user_id: String,
    pub api: Api,
    http: SocketAddr,
    database: PathBuf,
}

impl Gateway {
    /// Starts one that takes mail in for capture addresses and files it, with limits that do not stand in the way of a
    /// single client with very many connections.
    ///
    /// # Errors
    /// When it does not start or refuses what is asked of it.
    pub async fn start() -> Result<Self> {
        Self::with(r#"["mx", "jobs", "http"]"#, None).await
    }

    /// Starts one that follows accounts, at servers whose certificates this authority issued.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn following(authority: &Authority) -> Result<Self> {
        Self::with(r#"["accounts", "mx", "jobs", "http"]"#, Some(authority)).await
    }

    async fn with(roles: &str, authority: Option<&Authority>) -> Result<Self> {
        let (dir, mx, http) = (directory("bench"), free_address(), free_address());
        let config = dir.join("mailweave.toml");
        let egress = authority.map(|authority| {
            format!("[egress]\nallow = [\"127.0.0.0/8\"]\nca_file = {:?}\n", authority.write_pem(&dir))
        });
        let settings = settings(&dir.join("data").display().to_string(), roles, (mx, http));
        fs::write(&config, settings + &egress.unwrap_or_default())?;
        let built: OsString = env!("CARGO_BIN_EXE_mailweave").into();
        let binary = std::env::var_os("MAILWEAVE_BENCH_BINARY").unwrap_or(built);
        let command = vec![binary, "serve".into(), "--config".into(), config.into()];
        let database = dir.join("data/mailweave.db");
        let spec =
            Spec { name: "mailweave", dir, command, signal: "TERM", final_signal: "KILL", as_root: false };
        let server = Server::start(spec, || std::net::TcpStream::connect(http).is_ok());
        let api = Api::new(http)?;
        api.create("workspaces", &json!({ "name": "Acme", "slug": "acme" })).await?;
        let ann = json!({ "email": "ann@crm.example", "name": "Ann Lee" });
        let user = api.create("workspaces/acme/users", &ann).await?;
        let of_user = |field: &str| {
            user.get(field).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {field}"))
        };
        let (capture_address, user_id) = (of_user("capture_address")?, of_user("id")?);
        Ok(Self { server, mx, capture_address, user_id, api, http, database })
    }

    /// Ends it in order and starts it again.
    pub fn restart(&mut self) {
        let http = self.http;
        self.server.halt();
        self.server.resume(|| std::net::TcpStream::connect(http).is_ok());
    }

    /// Waits until everything taken in is filed.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn filed(&self) -> Result<()> {
        let options = SqliteConnectOptions::new().filename(&self.database).read_only(true);
        let mut database = SqliteConnection::connect_with(&options).await?;
        let started = std::time::Instant::now();
        while started.elapsed() < PATIENCE {
            let row =
                sqlx::query("select exists (select 1 from jobs) as busy").fetch_one(&mut database).await?;
            if !row.try_get::<bool, _>("busy")? {
                database.close().await?;
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("not everything was filed within {PATIENCE:?}")
    }

    /// How many messages were decided upon.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn decided(&self) -> Result<usize> {
        let options = SqliteConnectOptions::new().filename(&self.database).read_only(true);
        let mut database = SqliteConnection::connect_with(&options).await?;
        let row = sqlx::query("select count(*) as count from decisions").fetch_one(&mut database).await?;
        Ok(usize::try_from(row.try_get::<i64, _>("count")?)?)
    }

    /// Octets of the database and its log on disk.
    ///
    /// # Errors
    /// When it is not there.
    pub fn stored_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.database)?.len())
    }
}

fn settings(data_dir: &str, roles: &str, (mx, http): (SocketAddr, SocketAddr)) -> String {
    format!(
        "\
[node]
data_dir = \"{data_dir}\"
roles = {roles}
[domains]
capture = \"bcc.crm.example\"
reply = \"reply.crm.example\"
[smtp]
hostname = \"gateway.crm.example\"
connections_max = 20000
connections_per_client_max = 20000
mx.listen = [\"{mx}\"]
[http]
listen = \"{http}\"
admin_key = \"{ADMIN_KEY}\"
"
    )
}

/// Its HTTP API, with the key that may do everything.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
}

impl Api {
    fn new(http: SocketAddr) -> Result<Self> {
        mailweave::net::install_provider();
        Ok(Self { client: Client::builder().no_proxy().build()?, base: format!("http://{http}/v1") })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(ADMIN_KEY)
    }

    /// Posts, and returns what was made.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, body).await
    }

    /// Puts, and returns what is there now.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PUT, path, body).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let response = self.request(method, path).json(body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path} was answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// # Errors
    /// When there is no such thing.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.request(Method::GET, path).send().await?.error_for_status()?.json().await?)
    }

    /// Server-sent events, still to be read.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn stream(&self, path: &str) -> Result<Response> {
        Ok(self.request(Method::GET, path).send().await?.error_for_status()?)
    }
}
