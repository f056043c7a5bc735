//! The gateway under measure: the program itself, on loopback, with a workspace and a user made through its API.
//!
//! Not here: what is done with it.

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{
    free_address,
    server::{Server, Spec, directory},
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
    database: PathBuf,
}

impl Gateway {
    /// Starts it with limits that do not stand in the way of a single client with very many connections.
    ///
    /// # Errors
    /// When it does not start or refuses what is asked of it.
    pub async fn start() -> Result<Self> {
        let (dir, mx, http) = (directory("bench"), free_address(), free_address());
        let config = dir.join("mailweave.toml");
        fs::write(&config, settings(&dir.join("data").display().to_string(), mx, http))?;
        let built: OsString = env!("CARGO_BIN_EXE_mailweave").into();
        let binary = std::env::var_os("MAILWEAVE_BENCH_BINARY").unwrap_or(built);
        let command = vec![binary, "serve".into(), "--config".into(), config.into()];
        let database = dir.join("data/mailweave.db");
        let spec =
            Spec { name: "mailweave", dir, command, signal: "TERM", final_signal: "KILL", as_root: false };
        let server = Server::start(spec, || std::net::TcpStream::connect(http).is_ok());
        let capture_address = settle_in(http).await?;
        Ok(Self { server, mx, capture_address, database })
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

    /// Octets of the database and its log on disk.
    ///
    /// # Errors
    /// When it is not there.
    pub fn stored_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.database)?.len())
    }
}

fn settings(data_dir: &str, mx: SocketAddr, http: SocketAddr) -> String {
    format!(
        "\
[node]
data_dir = \"{data_dir}\"
roles = [\"mx\", \"jobs\", \"http\"]
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

async fn settle_in(http: SocketAddr) -> Result<String> {
    post(http, "workspaces", &json!({ "name": "Acme", "slug": "acme" })).await?;
    let ann = json!({ "email": "ann@crm.example", "name": "Ann Lee" });
    let user = post(http, "workspaces/acme/users", &ann).await?;
    let address = user.get("capture_address").and_then(Value::as_str).context("no capture address")?;
    Ok(address.to_owned())
}

async fn post(http: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    mailweave::net::install_provider();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.post(format!("http://{http}/v1/{path}")).bearer_auth(ADMIN_KEY).json(body);
    Ok(request.send().await?.error_for_status()?.json().await?)
}
