//! HTTP to servers that somebody outside has named: only to vetted addresses, never redirected, each request bounded in time.
//!
//! Not here: what is asked and what an answer means. A server is hostile until it has answered, and after that too.

use std::{error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolving},
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use url::{Host, Url};

use super::{DialError, Dialer, Security, Target};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The port of servers in public. Others only where the operator allows the address by name: with any port open, tenants
/// would have a port scanner.
const PUBLIC_PORT: u16 = 443;
/// The longest that a server may ask us to wait; beyond it our own schedule decides.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Connections kept for the next request, for each host.
const IDLE_PER_HOST_MAX: usize = 2;
const USER_AGENT: &str = concat!("Mailweave/", env!("CARGO_PKG_VERSION"));

/// Finds the addresses of a host, each of them one that may be connected to; an error when one is not.
#[derive(Clone)]
pub struct Resolve(Arc<dyn Fn(HostLookup) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>);

/// A host to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLookup {
    /// A name, or an address without brackets.
    pub host: String,
    /// Only addresses that the operator allows by name will do: no others are reached without TLS or on another port than
    /// 443.
    pub inside: bool,
}

impl Resolve {
    pub fn new(
        resolve: impl Fn(HostLookup) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }

    /// By the rules of egress.
    #[must_use]
    pub fn vetted(dialer: Dialer) -> Self {
        Self::new(move |asked| {
            let dialer = dialer.clone();
            Box::pin(async move { vetted(&dialer, &asked).await.map_err(io::Error::other) })
        })
    }

    /// # Errors
    /// When the host has no address, or one that must not be connected to.
    pub async fn ask(&self, asked: HostLookup) -> io::Result<Vec<SocketAddr>> {
        (self.0)(asked).await
    }
}

async fn vetted(dialer: &Dialer, asked: &HostLookup) -> Result<Vec<SocketAddr>, DialError> {
    // Only addresses are judged here: whoever asks for the port of public servers, or any other, says so by `inside`.
    let target =
        Target { host: &asked.host, port: PUBLIC_PORT, security: Security::Tls, ports: &[PUBLIC_PORT] };
    let addresses = dialer.resolve(target).await?;
    let by_name = addresses.iter().all(|address| dialer.egress().is_allowed_by_name(address.ip()));
    if asked.inside && !by_name { Err(DialError::Forbidden) } else { Ok(addresses) }
}

/// What reqwest connects to: the addresses that were vetted, asked for once, so that a second answer of the name server
/// cannot lead elsewhere (DNS rebinding).
struct Vetted {
    resolve: Resolve,
    inside: bool,
}

impl reqwest::dns::Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        let asked = HostLookup { host: name.as_str().to_owned(), inside: self.inside };
        let addresses = (self.resolve.0)(asked).map(|found| match found {
            // Port 0 stands for the URL's: only the address was asked for.
            Ok(addresses) => Ok(Box::new(addresses.into_iter().map(|a| SocketAddr::new(a.ip(), 0))) as Addrs),
            Err(error) => Err(Box::new(error) as Box<dyn StdError + Send + Sync>),
        });
        Box::pin(addresses)
    }
}

/// Why nothing can be asked at all.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made")]
pub struct WebError(#[from] reqwest::Error);

/// Two HTTP clients under one set of rules. Clones share their connections.
#[derive(Clone)]
pub struct Web {
    resolve: Resolve,
    /// For servers in public: TLS, on their one port.
    public: Client,
    /// For those that the operator allows by name.
    inside: Client,
}

impl Web {
    /// `tls` says which certificates are trusted; `timeout` is from connecting to the last octet of an answer.
    ///
    /// # Errors
    /// When no client can be made of this.
    pub fn new(resolve: Resolve, tls: &rustls::ClientConfig, timeout: Duration) -> Result<Self, WebError> {
        let client = |inside| client(&resolve, inside, tls, timeout);
        Ok(Self { public: client(false)?, inside: client(true)?, resolve })
    }

    /// The client for a url, if it may be asked. reqwest asks no resolver about an address: that is vetted here.
    pub async fn client(&self, url: &Url) -> Option<&Client> {
        let inside = match url.scheme() {
            "https" => url.port_or_known_default() != Some(PUBLIC_PORT),
            "http" => true,
            _ => return None,
        };
        let address = match url.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.to_string()),
            Host::Ipv6(address) => Some(address.to_string()),
        };
        if let Some(host) = address {
            self.resolve.ask(HostLookup { host, inside }).await.ok()?;
        }
        Some(if inside { &self.inside } else { &self.public })
    }
}

fn client(
    resolve: &Resolve,
    inside: bool,
    tls: &rustls::ClientConfig,
    timeout: Duration,
) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(Vetted { resolve: resolve.clone(), inside })
        .no_proxy()
        .redirect(redirect::Policy::none())
        .https_only(!inside)
        .referer(false)
        .user_agent(USER_AGENT)
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .build()
}

/// `Retry-After` in seconds; the form with a date is for browsers.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The body of an answer; `None` when it breaks off or has more octets than this.
pub async fn read_body(response: Response, bytes_max: usize) -> Option<Vec<u8>> {
    let mut chunks = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.ok()?;
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}
