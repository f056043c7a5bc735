//! Posts against an endpoint that answers as it is told to, over loopback.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::net::HostLookup;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// An endpoint that keeps what it was sent.
struct Endpoint {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn answering(answer: &'static str) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer).await
    }

    async fn at(address: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut buffer = [0; 4096];
                    while !is_whole(&request) {
                        let read = stream.read(&mut buffer).await.unwrap_or(0);
                        if read == 0 {
                            return;
                        }
                        request.extend_from_slice(&buffer[..read]);
                    }
                    kept.lock().unwrap().push(String::from_utf8(request).unwrap());
                    drop(stream.write_all(answer.as_bytes()).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://crm.example:{}/hook?key=x", self.address.port())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Every name leads to loopback, which the operator allows; addresses are as he says.
fn poster(asked: &Arc<AtomicUsize>) -> Poster {
    drop(rustls::crypto::ring::default_provider().install_default());
    let asked = Arc::clone(asked);
    let resolve = Resolve::new(move |host| {
        asked.fetch_add(1, Ordering::Relaxed);
        let allowed = host.host == "crm.example" || host.host == "127.0.0.1";
        let found = if allowed {
            Ok(vec![([127, 0, 0, 1], 0).into()])
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        };
        Box::pin(std::future::ready(found))
    });
    let roots = rustls::RootCertStore::empty();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Poster::new(resolve, &tls).unwrap()
}

fn event(body: &str) -> Post<'_> {
    Post { id: "evt_1", at: Timestamp::now(), body }
}

async fn post(url: &str) -> Posted {
    poster(&Arc::default()).post(url, &[SECRET.into()], event(r#"{"a":1}"#)).await
}

#[track_caller]
fn failed(status: u16) -> Posted {
    Posted::Failed { failure: Failure::Status(status), retry_after: None }
}

const fn without_answer(failure: Failure) -> Posted {
    Posted::Failed { failure, retry_after: None }
}

#[tokio::test]
async fn a_post_is_signed_and_2xx_is_success() {
    let endpoint = Endpoint::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(post(&endpoint.url()).await, Posted::Delivered);
    let requests = endpoint.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook?key=x HTTP/1.1\r\n"), "{head}");
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(reqwest::header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["webhook-id"], "evt_1");
    Webhook::new(SECRET).unwrap().verify(body.as_bytes(), &headers).unwrap();
}

#[tokio::test]
async fn only_2xx_is_success_and_410_is_the_end() {
    let gone = Endpoint::answering("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post(&gone.url()).await, Posted::Gone);
    let broken = Endpoint::answering("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post(&broken.url()).await, failed(500));
    let busy = Endpoint::answering("HTTP/1.1 429 Busy\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n").await;
    let wait = Some(Duration::from_secs(90));
    let expect = Posted::Failed { failure: Failure::Status(429), retry_after: wait };
    assert_eq!(post(&busy.url()).await, expect);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let target = Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for status in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.url());
        let endpoint = Endpoint::answering(Box::leak(answer.into_boxed_str())).await;
        assert_eq!(post(&endpoint.url()).await, failed(status));
    }
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn a_forbidden_address_is_not_connected_to_however_it_is_written() {
    let endpoint = Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = endpoint.address.port();
    for host in ["[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "intranet.example", "0"] {
        let Posted::Failed { failure, .. } = post(&format!("http://{host}:{port}/")).await else {
            panic!("{host}")
        };
        // A name is asked for by the client itself, to whom a refusal is one more way to fail.
        assert!(matches!(failure, Failure::Forbidden | Failure::Broken), "{host}: {failure:?}");
        assert_eq!(failure.to_string(), "no answer");
    }
    for url in ["ftp://crm.example/", "not a url", "https://"] {
        assert_eq!(post(url).await, without_answer(Failure::Forbidden), "{url}");
    }
    assert!(endpoint.requests().is_empty());
    // An address that is allowed is asked for once and connected to.
    let asked = Arc::default();
    let url = format!("http://127.0.0.1:{port}/");
    let posted = poster(&asked).post(&url, &[SECRET.into()], event("{}")).await;
    assert_eq!((posted, asked.load(Ordering::Relaxed)), (Posted::Delivered, 1));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let endless: &str = Box::leak(
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n{}", "x".repeat(256 * 1024))
            .into_boxed_str(),
    );
    let endpoint = Endpoint::answering(endless).await;
    assert_eq!(post(&endpoint.url()).await, Posted::Delivered);
}

#[tokio::test]
async fn what_does_not_answer_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://crm.example:{}/", listener.local_addr().unwrap().port());
    drop(listener);
    assert_eq!(post(&url).await, without_answer(Failure::Broken));
    let endpoint = Endpoint::answering("no http at all\r\n\r\n").await;
    assert_eq!(post(&endpoint.url()).await, without_answer(Failure::Broken));
}

#[tokio::test]
async fn public_hosts_are_posted_to_on_their_one_port_alone() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let asked: Arc<Mutex<Vec<HostLookup>>> = Arc::default();
    let kept = Arc::clone(&asked);
    let resolve = Resolve::new(move |host| {
        kept.lock().unwrap().push(host);
        Box::pin(std::future::ready(Err(io::ErrorKind::PermissionDenied.into())))
    });
    let roots = rustls::RootCertStore::empty();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let poster = Poster::new(resolve, &tls).unwrap();
    for (url, inside) in [
        ("https://192.0.2.1/", false),
        ("https://192.0.2.1:443/", false),
        ("https://192.0.2.1:6379/", true),
        ("http://192.0.2.1/", true),
        ("http://192.0.2.1:443/", true),
        ("https://crm.example/", false),
        ("https://crm.example:8443/", true),
    ] {
        let posted = poster.post(url, &[SECRET.into()], event("{}")).await;
        assert!(matches!(posted, Posted::Failed { .. }), "{url}");
        let asked: Vec<bool> = asked.lock().unwrap().drain(..).map(|asked| asked.inside).collect();
        assert_eq!(asked, [inside], "{url}");
    }
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_time_is_asked_for_and_vetted_anew() {
    drop(rustls::crypto::ring::default_provider().install_default());
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let meant = Endpoint::answering(OK).await;
    // Beside it, on the same port, what the name leads to from the second answer on.
    let inside = Endpoint::at(([127, 0, 0, 2], meant.address.port()).into(), OK).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolve = Resolve::new(move |_| {
        let found = match count.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![([127, 0, 0, 1], 0).into()]),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        };
        Box::pin(std::future::ready(found))
    });
    let roots = rustls::RootCertStore::empty();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let poster = Poster::new(resolve, &tls).unwrap();
    let first = poster.post(&meant.url(), &[SECRET.into()], event("{}")).await;
    assert_eq!(
        (first, asked.load(Ordering::Relaxed)),
        (Posted::Delivered, 1),
        "asked once for one connection"
    );
    let second = poster.post(&meant.url(), &[SECRET.into()], event("{}")).await;
    assert_eq!((second, asked.load(Ordering::Relaxed)), (without_answer(Failure::Broken), 2));
    assert_eq!((meant.requests().len(), inside.requests().len()), (1, 0));
}
