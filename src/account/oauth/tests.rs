//! Requests to a token endpoint that answers as it is told to, over loopback.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    core::provider::Provider,
    net::{Resolve, client_config},
};

/// An endpoint that says the same to everybody, and what was said to it.
async fn endpoint(status: &str, body: &str) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                let read = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            *kept.lock().unwrap() = String::from_utf8(request).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, heard)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn client(port: u16) -> OAuthClient {
    drop(rustls::crypto::ring::default_provider().install_default());
    let resolve = Resolve::new(|_| Box::pin(std::future::ready(Ok(vec![([127, 0, 0, 1], 0).into()]))));
    let web = Web::new(resolve, &client_config(None).unwrap(), TOKEN_TIMEOUT).unwrap();
    let google = Provider::named("google").unwrap().oauth.clone().unwrap();
    let authorization = Authorization {
        token_url: format!("http://signin.example:{port}/token"),
        revoke_url: Some(format!("http://signin.example:{port}/revoke")),
        ..google
    };
    let registration = Registration { client_id: "id".into(), client_secret: Some("hush".into()) };
    let redirect = Url::parse("https://mail.example.com/oauth/callback").unwrap();
    OAuthClient::new(authorization, registration, redirect, web).unwrap()
}

fn parameters(url: &Url) -> std::collections::BTreeMap<String, String> {
    url.query_pairs().into_owned().collect()
}

#[test]
fn a_user_is_sent_to_sign_in_with_all_that_the_provider_wants_to_know() {
    let ann = Address::parse("ann@gmail.com").unwrap();
    let Departure { url, verifier } = client(1).depart("s+1".into(), Some(&ann));
    let said = parameters(&url);
    assert_eq!(url.host_str(), Some("accounts.google.com"));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "id"),
        ("state", "s+1"),
        ("redirect_uri", "https://mail.example.com/oauth/callback"),
        ("scope", "https://mail.google.com/ openid email profile"),
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("login_hint", "ann@gmail.com"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name}");
    }
    let other = client(1).depart("s+1".into(), None);
    assert_ne!(parameters(&other.url)["code_challenge"], said["code_challenge"]);
    assert!(!url.as_str().contains(verifier.expose_secret()));
}

#[tokio::test]
async fn a_code_becomes_tokens_and_says_who_signed_in() {
    let claims = URL_SAFE_NO_PAD
        .encode(r#"{"iss":"https://x.example","sub":"7","tid":"t","preferred_username":"Ann@Example.com"}"#);
    let body = format!(
        r#"{{"access_token":"at","refresh_token":"rt","token_type":"bearer","expires_in":3599,
            "scope":"https://mail.google.com/ openid","id_token":"e30.{claims}.sig"}}"#
    );
    let (port, heard) = endpoint("200 OK", &body).await;
    let granted = client(port).redeem("c0de", &"verify".into()).await.unwrap();
    assert_eq!(granted.access_token.expose_secret(), "at");
    assert_eq!(granted.refresh_token.as_ref().unwrap().expose_secret(), "rt");
    assert_eq!(granted.lifetime, Duration::from_secs(3599));
    assert_eq!(granted.scopes, ["https://mail.google.com/", "openid"]);
    let signer = granted.signer.as_ref().unwrap();
    assert_eq!((signer.subject.as_str(), signer.tenant.as_deref()), ("7", Some("t")));
    assert_eq!(signer.email.as_ref().unwrap().key(), "ann@example.com");
    let heard = heard.lock().unwrap().clone();
    for part in ["grant_type=authorization_code", "code=c0de", "code_verifier=verify", "client_secret=hush"] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(!format!("{granted:?}").contains("\"at\""), "tokens are not printed");
}

#[tokio::test]
async fn renewing_keeps_the_refresh_token_unless_there_is_another() {
    let (port, heard) = endpoint("200 OK", r#"{"access_token":"at2","token_type":"Bearer"}"#).await;
    let granted = client(port).renew(&"r t".into()).await.unwrap();
    assert!(granted.refresh_token.is_none() && granted.scopes.is_empty() && granted.signer.is_none());
    assert_eq!(granted.lifetime, LIFETIME_UNSAID);
    assert!(heard.lock().unwrap().contains("grant_type=refresh_token&refresh_token=r+t"));
}

async fn refused(status: &str, body: &str) -> (Refused, String) {
    let (port, _) = endpoint(status, body).await;
    let error = client(port).renew(&"rt".into()).await.unwrap_err();
    (error.meaning(), error.to_string())
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_trouble() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS50173: The grant is old.\r\nTrace ID: x",
        "error_codes":[50173],"suberror":"bad_token"}"#;
    let (meaning, text) = refused("400 Bad Request", body).await;
    assert!(matches!(meaning, Refused::ForGood(_)));
    assert_eq!(text, "the provider refused: AADSTS50173: The grant is old.");
    for (status, body) in [
        ("503 Service Unavailable", "<html>"),
        ("500 Internal Server Error", r#"{"error":"invalid_grant"}"#),
        ("200 OK", "not json"),
        ("200 OK", r#"{"token_type":"Bearer"}"#),
        ("302 Found", ""),
    ] {
        assert_eq!(refused(status, body).await.0, Refused::ForNow, "{status} {body}");
    }
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
    assert_eq!(refused("200 OK", &long).await.0, Refused::ForNow);
    // Nobody listens there.
    let error = client(9).renew(&"rt".into()).await.unwrap_err();
    assert_eq!(error.meaning(), Refused::ForNow);
}

#[tokio::test]
async fn a_grant_is_given_back_and_one_that_is_gone_is_no_error() {
    for (status, error, is_done) in [
        ("200 OK", "", true),
        ("400 Bad Request", "invalid_token", true),
        ("400 Bad Request", "invalid_client", false),
        ("503 Service Unavailable", "", false),
    ] {
        let (port, heard) = endpoint(status, &format!(r#"{{"error":"{error}"}}"#)).await;
        assert_eq!(client(port).revoke(&"rt".into()).await.is_ok(), is_done, "{status} {error}");
        assert!(heard.lock().unwrap().contains("token=rt&token_type_hint=refresh_token"));
    }
}

#[tokio::test]
async fn a_registration_that_an_admin_trusts_asks_for_itself() {
    let (port, heard) =
        endpoint("200 OK", r#"{"access_token":"at","token_type":"Bearer","expires_in":3599}"#).await;
    let granted = client(port).for_itself().await.unwrap();
    assert_eq!((granted.access_token.expose_secret(), granted.refresh_token.is_none()), ("at", true));
    let heard = heard.lock().unwrap().clone();
    for part in
        ["grant_type=client_credentials", "client_id=id", "client_secret=hush", "scope=https%3A%2F%2Fmail"]
    {
        assert!(heard.contains(part), "{part} in {heard}");
    }
}

#[test]
fn a_lifetime_that_cannot_be_is_none() {
    for (said, lifetime) in [
        (r#","expires_in":3599"#, Duration::from_secs(3599)),
        (r#","expires_in":0"#, LIFETIME_UNSAID),
        ("", LIFETIME_UNSAID),
    ] {
        let answer = format!(r#"{{"access_token":"at","token_type":"Bearer"{said}}}"#);
        assert_eq!(read_granted(answer.as_bytes()).unwrap().lifetime, lifetime, "{said}");
    }
}

fn openssl(arguments: &[&str]) -> String {
    let run = std::process::Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn a_service_account_asks_in_the_name_of_a_user_and_signs_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let key = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let file =
        serde_json::json!({ "client_email": "svc@x.example", "private_key_id": "k1", "private_key": key });
    std::fs::write(path("key.json"), file.to_string()).unwrap();
    let account = ServiceAccount::load(path("key.json").as_ref()).unwrap();
    assert!(!format!("{account:?}").contains("PRIVATE KEY-"), "keys are not printed");
    let (port, heard) = endpoint("200 OK", r#"{"access_token":"at","token_type":"Bearer"}"#).await;
    let granted = client(port).in_the_name_of("ann@example.com", &account).await.unwrap();
    assert_eq!(granted.access_token.expose_secret(), "at");
    let heard = heard.lock().unwrap().clone();
    assert!(heard.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"), "{heard}");
    let (_, assertion) = heard.split_once("assertion=").unwrap();
    let (said, signature) = assertion.rsplit_once('.').unwrap();
    let claims = URL_SAFE_NO_PAD.decode(said.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&"svc@x.example".into(), &"ann@example.com".into()));
    assert_eq!(claims["aud"], format!("http://signin.example:{port}/token"));
    assert!(
        claims["exp"].as_i64() > claims["iat"].as_i64()
            && claims["iat"].as_i64() < Some(Timestamp::now().as_second())
    );
    // The other side's judge.
    std::fs::write(path("key.pem"), key).unwrap();
    std::fs::write(path("public.pem"), openssl(&["pkey", "-in", &path("key.pem"), "-pubout"])).unwrap();
    std::fs::write(path("said"), said).unwrap();
    std::fs::write(path("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let (public, signature) = (path("public.pem"), path("signature"));
    openssl(&["dgst", "-sha256", "-verify", &public, "-signature", &signature, &path("said")]);
}

#[test]
fn a_file_that_is_no_service_account_is_refused_without_being_quoted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in ["", "{}", r#"{"client_email":"x","private_key":"hunter2"}"#] {
        std::fs::write(file.path(), text).unwrap();
        let error = ServiceAccount::load(file.path()).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_domains_grant_covers_its_mailboxes_for_the_workspaces_that_are_named() {
    let names = vec!["example.com".to_owned()];
    let domains = WholeDomain { by: Whole::ClientCredentials, names, workspaces: vec!["acme".to_owned()] };
    let address = |text| Address::parse(text).unwrap();
    assert!(domains.covers(&address("ann@Example.com"), &["acme", "ws_1"]));
    assert!(!domains.covers(&address("ann@sub.example.com"), &["acme", "ws_1"]));
    assert!(!domains.covers(&address("ann@example.com"), &["other", "ws_2"]));
}
