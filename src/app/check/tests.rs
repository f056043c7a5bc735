//! What an operator is told, situation by situation.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{
    core::{
        account::{Credentials, Endpoint, Security},
        submission::Smarthost,
    },
    store::{Options, testing::World},
};

/// A configuration whose files lie in a directory of its own and whose ports are free.
fn config(directory: &Path, more: &[(&str, &str)]) -> Config {
    let data_dir = directory.display().to_string();
    let variables = [
        ("MAILWEAVE__NODE__DATA_DIR", data_dir.as_str()),
        ("MAILWEAVE__SMTP__MX__LISTEN", "127.0.0.1:0"),
        ("MAILWEAVE__SMTP__SUBMISSION__LISTEN", "127.0.0.1:0"),
        ("MAILWEAVE__SMTP__SUBMISSIONS__LISTEN", "127.0.0.1:0"),
        ("MAILWEAVE__HTTP__LISTEN", "127.0.0.1:0"),
    ];
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: Vec<_> = variables.iter().chain(more).map(owned).collect();
    Config::read(None, variables).unwrap().config
}

#[track_caller]
fn check(findings: &Findings, level: Level, about: &str, part: &str) {
    let found = findings
        .0
        .iter()
        .any(|found| found.level == level && found.about == about && found.says.contains(part));
    assert!(found, "no {level:?} of {about} with {part:?} in {findings:#?}");
}

async fn found(config: &Config) -> Findings {
    net::install_provider();
    let mut findings = Findings::default();
    look(config, &mut findings).await;
    findings
}

fn write_key(directory: &Path, mode: u32) -> PathBuf {
    let file = directory.join("master.key");
    std::fs::write(&file, [7; 32]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[tokio::test]
async fn a_fresh_machine_is_in_order_and_nothing_is_made() {
    let directory = TempDir::new().unwrap();
    let inside = directory.path().join("to/be/made");
    let findings = found(&config(&inside, &[])).await;
    assert!(!findings.has_error(), "{findings:#?}");
    check(&findings, Level::Ok, "node.data_dir", "is made at the first start");
    check(&findings, Level::Ok, "secrets.master_key_file", "is made at the first start");
    check(&findings, Level::Ok, "store", "no store yet");
    check(&findings, Level::Ok, "smtp.mx.listen", "is free");
    assert!(!directory.path().join("to").exists());
}

#[tokio::test]
async fn a_store_is_opened_and_the_accounts_in_it_are_counted() {
    let world = World::sqlite().await;
    world.workspace().await;
    write_key(world.directory.path(), 0o600);
    world.store.close().await;
    let findings = found(&config(world.directory.path(), &[])).await;
    assert!(!findings.has_error(), "{findings:#?}");
    check(&findings, Level::Ok, "store", "opens");
    assert!(findings.0.iter().any(|finding| finding.says == "no accounts"), "{findings:#?}");
}

#[tokio::test]
async fn a_server_that_does_not_flush_is_told_of() {
    // As that of these tests is.
    let world = World::postgres().await;
    let key = write_key(world.directory.path(), 0o600).display().to_string();
    let store = [
        ("MAILWEAVE__STORE__URL", world.options.url.as_str()),
        ("MAILWEAVE__SECRETS__MASTER_KEY_FILE", &key),
    ];
    let findings = found(&config(world.directory.path(), &store)).await;
    check(&findings, Level::Warning, "store", "fsync is off in PostgreSQL");
    assert!(!findings.0.iter().any(|finding| finding.says.contains("full_page_writes")), "{findings:#?}");
}

#[tokio::test]
async fn a_store_of_an_earlier_release_is_named_and_left_alone() {
    let directory = TempDir::new().unwrap();
    write_key(directory.path(), 0o600);
    std::fs::write(directory.path().join("mailweave.db"), "").unwrap();
    for _ in ["once", "and again: the first look made no tables"] {
        let findings = found(&config(directory.path(), &[])).await;
        check(&findings, Level::Warning, "store", "an earlier release (migration 0)");
        assert!(!findings.has_error(), "{findings:#?}");
    }
}

#[tokio::test]
async fn providers_are_dialled_and_those_out_of_reach_are_named() {
    let world = World::sqlite().await;
    let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [there.local_addr().unwrap(), gone] {
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: address.port(), security: Security::None };
        let smarthost = Smarthost { endpoint, from_domains: Vec::new() };
        let password = Credentials::Password { username: "u".into(), password: "p".to_owned().into() };
        let mut tx = world.store.begin(world.workspace().await).await.unwrap();
        tx.put_smarthost(&smarthost, &password, jiff::Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }
    write_key(world.directory.path(), 0o600);
    world.store.close().await;
    let config = config(world.directory.path(), &[("MAILWEAVE__EGRESS__ALLOW", "127.0.0.0/8")]);
    let findings = found(&config).await;
    check(
        &findings,
        Level::Ok,
        "provider",
        &format!("SMTP {} (no TLS) answers", there.local_addr().unwrap()),
    );
    check(
        &findings,
        Level::Warning,
        "provider",
        &format!("SMTP {gone} (no TLS): the connection was refused"),
    );
    assert!(!findings.has_error(), "{findings:#?}");
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_no_error() {
    let directory = TempDir::new().unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("redis://{gone}");
    let findings = found(&config(directory.path(), &[("MAILWEAVE__COORDINATION__URL", &url)])).await;
    check(&findings, Level::Warning, "coordination.url", "Redis does not answer");
}

#[tokio::test]
async fn a_store_that_a_gateway_holds_is_no_error() {
    let world = World::sqlite().await;
    write_key(world.directory.path(), 0o600);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let findings = found(&config(world.directory.path(), &[("MAILWEAVE__SMTP__MX__LISTEN", &listen)])).await;
    assert!(!findings.has_error(), "{findings:#?}");
    check(&findings, Level::Warning, "store", "mailweave.db.lock");
    check(&findings, Level::Ok, "smtp.mx.listen", "by the running gateway");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_an_error() {
    let directory = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let findings = found(&config(directory.path(), &[("MAILWEAVE__SMTP__MX__LISTEN", &listen)])).await;
    check(&findings, Level::Error, "smtp.mx.listen", "another program");
}

#[tokio::test]
async fn a_master_key_that_is_gone_or_open_to_others_is_an_error() {
    let world = World::sqlite().await;
    world.store.close().await;
    let config = config(world.directory.path(), &[]);
    check(&found(&config).await, Level::Error, "secrets.master_key_file", "is gone");
    let file = write_key(world.directory.path(), 0o640);
    check(&found(&config).await, Level::Error, "secrets.master_key_file", "mode 0640");
    std::fs::write(&file, "short").unwrap();
    check(&found(&config).await, Level::Error, "secrets.master_key_file", "does not hold a master key");
}

#[tokio::test]
async fn a_store_sealed_under_another_key_is_an_error() {
    let world = World::sqlite().await;
    world.store.close().await;
    let master_key = MasterKey::from_bytes([7; 32]);
    Store::open(&Options { master_key, ..world.options.clone() }).await.unwrap().close().await;
    let file = write_key(world.directory.path(), 0o600);
    std::fs::write(file, [8; 32]).unwrap();
    check(&found(&config(world.directory.path(), &[])).await, Level::Error, "store", "another master key");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_errors() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing.pem").display().to_string();
    let config = config(
        directory.path(),
        &[
            ("MAILWEAVE__TLS__CERTIFICATE", &missing),
            ("MAILWEAVE__TLS__PRIVATE_KEY", &missing),
            ("MAILWEAVE__EGRESS__CA_FILE", &missing),
        ],
    );
    let findings = found(&config).await;
    check(&findings, Level::Error, "tls.certificate", "missing.pem");
    check(&findings, Level::Error, "egress.ca_file", "missing.pem");
}

#[tokio::test]
async fn a_domain_that_nobody_can_look_up_is_a_warning() {
    let directory = TempDir::new().unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    drop(silent);
    let config = config(
        directory.path(),
        &[("MAILWEAVE__DOMAINS__CAPTURE", "bcc.example.com"), ("MAILWEAVE__DNS__SERVERS", &server)],
    );
    let findings = found(&config).await;
    check(&findings, Level::Warning, "domains.capture", "MX of bcc.example.com");
    assert!(!findings.has_error(), "{findings:#?}");
}

#[tokio::test]
async fn providers_to_sign_in_at_are_asked_whether_they_are_there() {
    let directory = TempDir::new().unwrap();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", server.local_addr().unwrap());
    let variables = [
        ("MAILWEAVE__OAUTH__OFFICE__CLIENT_ID", "x"),
        ("MAILWEAVE__OAUTH__OFFICE__AUTHORIZE_URL", url.as_str()),
        ("MAILWEAVE__OAUTH__OFFICE__TOKEN_URL", &url),
        ("MAILWEAVE__OAUTH__OFFICE__SCOPES", "mail"),
        ("MAILWEAVE__OAUTH__OFFICE__IMAP", "tls://127.0.0.1:993"),
        ("MAILWEAVE__OAUTH__OFFICE__SMTP", "tls://127.0.0.1:465"),
        ("MAILWEAVE__EGRESS__ALLOW", "127.0.0.0/8"),
    ];
    let own = config(directory.path(), &variables);
    let answers = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = server.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    });
    let findings = found(&own).await;
    check(&findings, Level::Ok, "oauth.office", "/oauth/callback, which is to be among");
    check(&findings, Level::Warning, "http.public_url", "is not set");
    answers.await.unwrap();
    // Nobody listens there any more.
    check(&found(&own).await, Level::Warning, "oauth.office", "does not answer");
    // A URL that leads where the gateway may not go is as good as none.
    let outside = config(directory.path(), &variables[..6]);
    check(&found(&outside).await, Level::Warning, "oauth.office", "does not answer");
}
