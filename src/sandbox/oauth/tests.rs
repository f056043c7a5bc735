//! The authorization server with the gateway's own OAuth client, over loopback.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use url::Url;

use crate::{
    account::oauth::{OAuthClient, Registration, TokenError},
    core::{
        grant::Refused,
        provider::{Authorization, TokenMechanism},
    },
    mail::Address,
    net::{Resolve, Web, client_config},
    sandbox::{Act, OAuthSettings, Options, Provider, Rotation, Running, Service, Trigger},
};

const TIMEOUT: Duration = Duration::from_secs(20);
const REDIRECT: &str = "http://127.0.0.1:1/oauth/callback";

fn ann() -> Address {
    Address::parse("ann@example.test").unwrap()
}

async fn start(settings: OAuthSettings) -> Running {
    crate::net::install_provider();
    let running = Provider::start(Options { oauth: settings, ..Options::default() }).await.unwrap();
    running.provider.add_user(&ann(), "secret").unwrap();
    running
}

fn client(running: &Running) -> OAuthClient {
    let resolve = Resolve::new(|_| Box::pin(std::future::ready(Ok(vec![([127, 0, 0, 1], 0).into()]))));
    let web = Web::new(resolve, &client_config(None).unwrap(), TIMEOUT).unwrap();
    let at = |path: &str| format!("{}{path}", running.issuer());
    let authorization = Authorization {
        issuer: Some(running.issuer()),
        says_issuer: true,
        authorize_url: at("/authorize"),
        token_url: at("/token"),
        revoke_url: Some(at("/revoke")),
        scopes: ["https://mail.google.com/", "openid", "email"].map(str::to_owned).to_vec(),
        needed: Vec::new(),
        mechanism: TokenMechanism::XOAuth2,
        parameters: Default::default(),
    };
    let registration =
        Registration { client_id: "mailweave".into(), client_secret: Some("sandbox-secret".into()) };
    OAuthClient::new(authorization, registration, Url::parse(REDIRECT).unwrap(), web).unwrap()
}

/// What a browser does: opens the page, chooses, and is sent back; the query it comes back with.
async fn consent(running: &Running, to: &Url, chosen: &[(&str, &str)]) -> Vec<(String, String)> {
    let browser =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let page = browser.get(to.clone()).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("ann@example.test"));
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(to.query_pairs()).extend_pairs(chosen);
    let answer =
        browser.post(format!("{}/authorize", running.issuer())).body(form.finish()).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    let back = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert!(back.as_str().starts_with(REDIRECT), "{back}");
    back.query_pairs().into_owned().collect()
}

fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

async fn imap_login(running: &Running, token: &SecretString) -> bool {
    use crate::imap::{Client, Deadlines, Limits};
    let stream = TcpStream::connect(running.imap).await.unwrap();
    let mut client = Client::connect(stream, Limits::default(), Deadlines::default()).await.unwrap();
    client.authenticate_xoauth2("ann@example.test", token).await.is_ok()
}

#[tokio::test]
async fn a_user_agrees_and_the_gateway_reads_his_mail_until_he_withdraws_it() {
    let running = start(OAuthSettings { rotation: Rotation::Strict, ..OAuthSettings::default() }).await;
    let client = client(&running);
    let departure = client.depart("st&te".into(), Some(&ann()));
    let chosen = [
        ("decision", "allow"),
        ("user", "ann@example.test"),
        ("grant", "https://mail.google.com/"),
        ("grant", "openid"),
    ];
    let back = consent(&running, &departure.url, &chosen).await;
    assert_eq!(value(&back, "state"), Some("st&te"));
    assert!(client.authorization().is_issued_by(value(&back, "iss").unwrap()));
    let granted = client.redeem(value(&back, "code").unwrap(), &departure.verifier).await.unwrap();
    assert_eq!(granted.scopes, ["https://mail.google.com/", "openid"]);
    let signer = granted.signer.unwrap();
    assert_eq!((signer.issuer, signer.email), (running.issuer(), Some(ann())));
    assert!(imap_login(&running, &granted.access_token).await);
    assert!(!imap_login(&running, &"another".into()).await);

    let renewed = client.renew(&granted.refresh_token.unwrap()).await.unwrap();
    assert!(imap_login(&running, &renewed.access_token).await);
    running.provider.expire_tokens(&ann());
    assert!(!imap_login(&running, &renewed.access_token).await);
    let refresh = renewed.refresh_token.unwrap();
    let renewed = client.renew(&refresh).await.unwrap();
    client.revoke(&renewed.refresh_token.clone().unwrap()).await.unwrap();
    assert_eq!(running.provider.live_grants(&ann()), 0);
    assert!(!imap_login(&running, &renewed.access_token).await);
    let refused = client.renew(&renewed.refresh_token.unwrap()).await.unwrap_err();
    assert!(matches!(refused.meaning(), Refused::Doubtful(_)), "{refused}");
    let said = format!("{:?}", running.provider.said());
    assert!(!said.contains(refresh.expose_secret()), "the ledger holds no secrets");
    running.stop().await;
}

#[tokio::test]
async fn a_user_may_refuse() {
    let running = start(OAuthSettings::default()).await;
    let departure = client(&running).depart("s".into(), None);
    let back = consent(&running, &departure.url, &[("decision", "deny")]).await;
    assert_eq!((value(&back, "error"), value(&back, "code")), (Some("access_denied"), None));
    running.stop().await;
}

#[tokio::test]
async fn the_token_endpoint_fails_as_it_is_told_to() {
    let running = start(OAuthSettings::default()).await;
    let refresh =
        running.provider.grant(&ann(), &["https://mail.google.com/"]).unwrap().refresh_token.unwrap();
    let (client, refresh) = (client(&running), SecretString::from(refresh));
    let arm = |act| running.provider.arm(Trigger::next(Service::OAuth, "TOKEN"), act);
    arm(Act::Answer("500 out of order".into()));
    let error = client.renew(&refresh).await.unwrap_err();
    assert_eq!(error.meaning(), Refused::ForNow, "{error}");
    arm(Act::Answer(r#"400 {"error":"invalid_client"}"#.into()));
    assert_eq!(client.renew(&refresh).await.unwrap_err().meaning(), Refused::Registration);
    arm(Act::Drop);
    assert!(matches!(client.renew(&refresh).await, Err(TokenError::Unanswered)));
    assert!(client.renew(&refresh).await.is_ok());
    assert_eq!(running.provider.said().iter().filter(|said| said.verb == "TOKEN").count(), 4);
    running.stop().await;
}

#[tokio::test]
async fn tokens_are_looked_into_only_by_the_client() {
    let running = start(OAuthSettings::default()).await;
    let issued = running.provider.grant(&ann(), &["https://mail.google.com/"]).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let introspect = async |token: &str, secret: &str| {
        let form = format!("token={token}&client_id=mailweave&client_secret={secret}");
        let answer = http.post(format!("{}/introspect", running.issuer())).body(form).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (status, answer) = introspect(&issued.access_token, "sandbox-secret").await;
    assert_eq!(
        (status, &answer["active"], &answer["username"]),
        (200, &true.into(), &"ann@example.test".into())
    );
    assert!(answer["exp"].is_i64());
    assert_eq!(introspect("access-1-0", "sandbox-secret").await.1["active"], false);
    assert_eq!(introspect(&issued.access_token, "guess").await.0, 401);
    let userinfo = http.get(format!("{}/userinfo", running.issuer()));
    let answer = userinfo.bearer_auth(&issued.access_token).send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["email"], "ann@example.test");
    let metadata = http.get(format!("{}/.well-known/openid-configuration", running.issuer()));
    let metadata: serde_json::Value = metadata.send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["issuer"], running.issuer());
    running.stop().await;
}
