//! The demo's world: a provider with two mailboxes, the gateway beside it, and a workspace with one user.
//!
//! Not here: what they write to each other (`story`).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use serde_json::json;

use super::api::{Api, text};
use crate::{
    app::Running,
    config::{Config, DomainName},
    flow,
    mail::Address,
    sandbox::{self, Behaviour, Provider},
};

/// The user and the prospect. Both have their mailbox at the sandbox provider.
pub(super) const ANN: &str = "ann@acme.example";
pub(super) const BOB: &str = "bob@prospect.example";
/// The password of both mailboxes.
pub(super) const PASSWORD: &str = "demo";
const CAPTURE: &str = "bcc.acme.example";
const REPLY: &str = "reply.acme.example";

pub(super) struct World {
    pub provider: sandbox::Running,
    pub gateway: Running,
    pub api: Api,
    /// The workspace's API key, which is also the password for submission.
    pub key: String,
    pub capture_address: String,
    /// Whoever submits must trust it.
    authority: PathBuf,
    directory: tempfile::TempDir,
}

impl World {
    pub(super) async fn build(metrics: Arc<dyn Fn() -> String + Send + Sync>) -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("mailweave-demo-").tempdir().context("temporary directory")?;
        let provider = provider().await?;
        let admin_key = random_key();
        let config = config(directory.path(), &admin_key)?;
        let authority = config.development_authority().context("the listeners have a certificate")?;
        let gateway = Running::start(&config, metrics).await?;
        let mx = gateway.addresses.mx.first().copied().context("the MX listener has an address")?;
        provider.provider.route(CAPTURE, mx);
        provider.provider.route(REPLY, mx);
        let base = format!("http://{}", gateway.addresses.http.context("the API has an address")?);
        let admin = Api::new(base.clone(), admin_key)?;
        let user = settle_in(&admin, &provider).await?;
        let key =
            admin.post("/workspaces/acme/keys", &json!({ "name": "demo CRM", "scopes": ["admin"] })).await?;
        let key = text(&key, "/secret").to_owned();
        Ok(Self {
            api: Api::new(base, key.clone())?,
            key,
            capture_address: text(&user, "/capture_address").to_owned(),
            provider,
            gateway,
            authority,
            directory,
        })
    }

    pub(super) fn introduce(&self) {
        let at = &self.gateway.addresses;
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let http = at.http.map(|address| address.to_string()).unwrap_or_default();
        println!(
            "Mailweave demo. Everything is on this machine and in memory or {}.\n",
            self.directory.path().display()
        );
        println!("  API            http://{http}/v1   reference: http://{http}/docs");
        println!("  API key        {}", self.key);
        println!("  MX listener    {}", list(&at.mx));
        println!("  Submission     {} (STARTTLS), {} (TLS)", list(&at.submission), list(&at.submissions));
        println!(
            "  Provider       IMAP {}, SMTP {}; {ANN} and {BOB}, password \"{PASSWORD}\"",
            self.provider.imap, self.provider.submission
        );
        println!("  Sign-in        {} (OAuth2)", self.provider.issuer());
        println!("  Ann's capture  {}\n", self.capture_address);
    }

    pub(super) fn invite(&self) {
        let http = self.gateway.addresses.http.map(|address| address.to_string()).unwrap_or_default();
        println!("\nThe gateway stays up. Look around, for instance:");
        println!(
            "  curl -s -H 'Authorization: Bearer {}' http://{http}/v1/workspaces/acme/conversations",
            self.key
        );
        println!("  curl -s -H 'Authorization: Bearer {}' http://{http}/v1/workspaces/acme/events", self.key);
        println!("Ctrl-C ends it and leaves nothing.");
    }

    /// A TLS client that trusts this world's authority and no other.
    pub(super) fn trusting_tls(&self) -> anyhow::Result<rustls::ClientConfig> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority)?)?;
        Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    /// Stops everything and deletes the directory.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.gateway.stop().await;
        self.provider.stop().await;
        self.directory.close().context("deleting the temporary directory")
    }
}

/// A provider that files Sent copies itself, as the large ones do.
async fn provider() -> anyhow::Result<sandbox::Running> {
    let domain = |address: &str| address.rsplit('@').next().unwrap_or_default().to_owned();
    let options = sandbox::Options {
        domains: vec![domain(ANN), domain(BOB)],
        behaviour: Behaviour::gmail(),
        ..sandbox::Options::default()
    };
    let running = Provider::start(options).await.context("sandbox provider")?;
    for address in [ANN, BOB] {
        running.provider.add_user(&Address::parse(address)?, PASSWORD)?;
    }
    Ok(running)
}

fn config(directory: &Path, admin_key: &str) -> anyhow::Result<Config> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.node.data_dir = directory.join("data");
    config.domains.capture = DomainName::parse(CAPTURE);
    config.domains.reply = DomainName::parse(REPLY);
    config.smtp.hostname = DomainName::parse("gateway.acme.example");
    config.smtp.mx.listen = vec![loopback];
    config.smtp.submission.listen = vec![loopback];
    config.smtp.submissions.listen = vec![loopback];
    config.http.listen = loopback;
    config.http.admin_key = Some(admin_key.into());
    config.egress.allow = vec!["127.0.0.0/8".parse()?];
    // The provider's own server hands the copies in.
    config.smtp.mx.trusted_peers = Some(config.egress.allow.clone());
    // The real defaults are kinder to providers; here nobody should have to wait.
    config.sync.poll = Duration::from_millis(300);
    config.outbound.sent_copy_wait = Duration::from_secs(2);
    Ok(config)
}

/// The workspace, its user, and the user's account.
async fn settle_in(admin: &Api, provider: &sandbox::Running) -> anyhow::Result<serde_json::Value> {
    admin
        .post("/workspaces", &json!({ "name": "Acme Desks", "slug": "acme", "timezone": "Europe/Berlin" }))
        .await?;
    let user = admin
        .post("/workspaces/acme/users", &json!({ "email": ANN, "name": "Ann Lee", "role": "admin" }))
        .await?;
    let endpoint =
        |address: SocketAddr| json!({ "host": "127.0.0.1", "port": address.port(), "security": "none" });
    let account = json!({
        "user_id": text(&user, "/id"),
        "email": ANN,
        "imap": endpoint(provider.imap),
        "smtp": endpoint(provider.submission),
        "auth": { "type": "password", "username": ANN, "password": PASSWORD },
    });
    admin.post("/workspaces/acme/accounts", &account).await?;
    Ok(user)
}

fn random_key() -> String {
    flow::random::<24>().iter().map(|byte| format!("{byte:02x}")).collect()
}
