//! What surrounds the gateway: its configuration, a provider with the users' and contacts' mailboxes, a workspace.
//!
//! Not here: the gateway's process (`gateway`) and what is sent to it (`load`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use mailweave::{
    mail::Address,
    sandbox::{self, Behaviour, Provider},
};
use rustls::ClientConfig;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    api::Api,
    gateway::{Addresses, Gateway},
    support::tls::Authority,
};

pub const ADMIN_KEY: &str = "the-key-of-the-administrator-of-these-tests";
pub const CAPTURE: &str = "bcc.acme.example";
const PASSWORD: &str = "mailbox";
/// As long as `shutdown_grace` below.
pub const STOP_MAX: Duration = Duration::from_secs(20);
/// Contacts have mailboxes at the same provider: what lies in them is what was sent.
pub const CONTACTS: usize = 8;

/// A user of the workspace with his account.
#[derive(Debug, Clone)]
pub struct User {
    pub email: String,
    pub id: String,
    pub capture_address: String,
    /// Whether his provider files sent mail itself.
    pub provider_files: bool,
}

/// What differs between the tests' gateways.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// A database in place of SQLite.
    pub store_url: Option<String>,
    /// A directory in place of one of the test's own.
    pub data_dir: Option<PathBuf>,
    /// What comes before the program on the command line.
    pub before: Vec<String>,
    /// How long the jobs of a dead process stay its own, where other processes could have them.
    pub lease: Option<&'static str>,
    /// Lines of the `[smtp]` table.
    pub smtp: &'static str,
}

pub struct World {
    pub provider: sandbox::Running,
    pub gateway: Gateway,
    pub api: Api,
    /// A client's TLS that trusts the gateway.
    pub tls: Arc<ClientConfig>,
    pub users: Vec<User>,
    /// The password of submission clients.
    pub key: String,
    /// Removed with the test.
    _directory: TempDir,
}

impl World {
    /// Builds everything, starts the gateway and settles a workspace in.
    pub async fn build(setup: Setup) -> Self {
        let mut world = Self::empty(setup).await;
        world.gateway.start();
        world.gateway.ready().await;
        world.settle_in().await;
        world
    }

    /// The same before the gateway's first start.
    pub async fn empty(setup: Setup) -> Self {
        let directory = tempfile::Builder::new().prefix("mailweave-crash-").tempdir().unwrap();
        let (provider, authority, at) = (provider().await, Authority::new(), Addresses::free());
        let config = configure(directory.path(), &setup, &authority, at);
        let gateway = Gateway::new(&config, at, setup.before);
        let (api, tls) = (Api::new(at.http), authority.client_config());
        Self { provider, gateway, api, tls, users: Vec::new(), key: String::new(), _directory: directory }
    }

    /// Makes the workspace with its users, their accounts, and a key for submission.
    pub async fn settle_in(&mut self) {
        let workspace = json!({ "name": "Acme", "slug": "acme", "timezone": "Europe/Berlin" });
        self.api.post("/workspaces", &workspace).await;
        for (email, provider_files) in users() {
            let user =
                self.api.post("/workspaces/acme/users", &json!({ "email": email, "name": "A User" })).await;
            let door = |port: u16| json!({ "host": "127.0.0.1", "port": port, "security": "none" });
            let account = json!({
                "user_id": user["id"],
                "email": email,
                "imap": door(self.provider.imap.port()),
                "smtp": door(self.provider.submission.port()),
                "auth": { "type": "password", "username": email, "password": PASSWORD },
            });
            self.api.post("/workspaces/acme/accounts", &account).await;
            let text = |field: &str| user[field].as_str().unwrap().to_owned();
            let (id, capture_address) = (text("id"), text("capture_address"));
            self.users.push(User { email: email.to_owned(), id, capture_address, provider_files });
        }
        let key = self.api.post("/workspaces/acme/keys", &json!({ "name": "CRM", "scopes": ["smtp"] })).await;
        self.key = key["secret"].as_str().unwrap().to_owned();
    }

    /// Ends the gateway in order, and has everything it stored looked at.
    pub async fn audit(mut self) {
        self.end_and_audit().await;
    }

    /// The same where it is started once more.
    pub async fn end_and_audit(&mut self) {
        self.gateway.terminate();
        let status = self.gateway.ended(STOP_MAX).await;
        assert!(status.success(), "{status}");
        let output = self.gateway.command("audit").stdout(Stdio::piped()).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
    }

    pub fn provider(&self) -> &Provider {
        &self.provider.provider
    }
}

/// Ann's provider files what it sends, as Gmail does; Bea's leaves that to clients.
async fn provider() -> sandbox::Running {
    let running = Provider::start(sandbox::Options::default()).await.unwrap();
    for number in 0..CONTACTS {
        running.provider.add_user(&address(&contact(number)), PASSWORD).unwrap();
    }
    for (email, provider_files) in users() {
        let address = address(email);
        running.provider.add_user(&address, PASSWORD).unwrap();
        let behaviour = if provider_files { Behaviour::gmail() } else { Behaviour::default() };
        running.provider.set_behaviour(&address, behaviour).unwrap();
    }
    running
}

fn users() -> [(&'static str, bool); 2] {
    [("ann@acme.example", true), ("bea@acme.example", false)]
}

pub fn contact(number: usize) -> String {
    format!("contact{}@prospect.example", number % CONTACTS)
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn configure(directory: &Path, setup: &Setup, authority: &Authority, at: Addresses) -> PathBuf {
    let certificate = authority.issue(directory, &["localhost", "127.0.0.1"]);
    let data_dir = setup.data_dir.clone().unwrap_or_else(|| directory.join("data"));
    let store = setup.store_url.as_ref().map(|url| {
        let key = directory.join("master.key");
        fs::write(&key, [7; 32]).unwrap();
        format!("[store]\nurl = {url:?}\n[secrets]\nmaster_key_file = {key:?}\n")
    });
    let text = format!(
        r#"
[node]
data_dir = {data_dir:?}
shutdown_grace = "20s"
{store}
[coordination]
lease = "{lease}"
[tls]
certificate = {chain:?}
private_key = {key:?}
[domains]
capture = "{CAPTURE}"
reply = "reply.acme.example"
[smtp]
hostname = "gateway.acme.example"
{smtp}
[smtp.mx]
listen = ["{mx}"]
trusted_peers = ["127.0.0.0/8"]
[smtp.submission]
listen = ["{submission}"]
[smtp.submissions]
listen = ["{submissions}"]
[http]
listen = "{http}"
[egress]
allow = ["127.0.0.0/8"]
[sync]
poll = "1s"
[outbound]
sent_copy_wait = "1s"
reconcile = ["1s", "2s"]
"#,
        store = store.unwrap_or_default(),
        lease = setup.lease.unwrap_or("20s"),
        chain = certificate.chain,
        key = certificate.key,
        smtp = setup.smtp,
        mx = at.mx,
        submission = at.submission,
        submissions = at.submissions,
        http = at.http,
    );
    let config = directory.join("mailweave.toml");
    fs::write(&config, text).unwrap();
    config
}
