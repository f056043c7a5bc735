//! `mailweave health`: asks a running gateway whether it is ready, as a container's health check does.
//!
//! Not here: looking at anything without asking it (`check`).

use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use crate::net;

/// A gateway that takes longer than this to say so is not well.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Says what the gateway says of itself. True when it is ready.
///
/// # Errors
/// When it does not answer.
pub async fn run(url: &Url) -> anyhow::Result<bool> {
    let (ready, says) = ask(url).await.with_context(|| format!("no answer from {url}"))?;
    println!("{says}");
    Ok(ready)
}

/// Whether it is ready, and its own word for how it is.
pub(super) async fn ask(url: &Url) -> anyhow::Result<(bool, String)> {
    net::install_provider();
    // A container is given its host's proxy, which has no way to this loopback.
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let response = http.get(url.join("/readyz")?).send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    let answer: Option<serde_json::Value> = response.json().await.ok();
    let word = answer.as_ref().and_then(|answer| answer.get("status")).and_then(serde_json::Value::as_str);
    Ok((status.is_success(), word.map_or_else(|| status.to_string(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[track_caller]
    fn check(got: &(bool, String), expect: (bool, &str)) {
        assert_eq!((got.0, got.1.as_str()), expect);
    }

    async fn answering(status: &'static str, body: &'static str) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
        });
        url
    }

    #[tokio::test]
    async fn a_gateway_says_how_it_is() {
        check(&ask(&answering("200 OK", "{\"status\":\"ready\"}").await).await.unwrap(), (true, "ready"));
        let starting = answering("503 Service Unavailable", "{\"status\":\"starting\"}").await;
        check(&ask(&starting).await.unwrap(), (false, "starting"));
        check(&ask(&answering("404 Not Found", "").await).await.unwrap(), (false, "404 Not Found"));
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_not_well() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(run(&Url::parse(&format!("http://{closed}/")).unwrap()).await.is_err());
    }
}
