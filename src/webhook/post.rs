//! One post to one endpoint: bounded in time and in what is read, never redirected, only to vetted addresses.
//!
//! Not here: trying again. An endpoint is hostile until it has answered, and after that too.

use std::{error::Error as StdError, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolving},
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use secrecy::SecretString;
use url::Host;

use super::{
    Post,
    places::{Place, Places, Room},
    sign,
};
use crate::core::ids::{WebhookId, WorkspaceId};

/// From connecting to the last octet of the answer (contract: 2xx within 15 s).
const POST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The port of endpoints in public. Others only where the operator allows the address by name: with any port open,
/// tenants would have a port scanner.
const PUBLIC_PORT: u16 = 443;
/// Octets of an answer that are read, so that the connection can serve again; what they say is ignored.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// The longest that an endpoint may ask us to wait; beyond it our own schedule decides.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// Connections kept for the next post, for each host.
const IDLE_PER_HOST_MAX: usize = 2;
const USER_AGENT: &str = concat!("Mailweave/", env!("CARGO_PKG_VERSION"));

/// What became of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// A 2xx in time.
    Delivered,
    /// 410: nothing is wanted there any more.
    Gone,
    /// Anything else: a redirect, an error, silence.
    Failed { failure: Failure, retry_after: Option<Duration> },
}

/// Why a post failed. Tell tenants no more than `Display` does: the difference is a map of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It answered with this status, which is none of success.
    Status(u16),
    /// It must not be posted to: its scheme, its port, one of its addresses.
    Forbidden,
    /// No answer within the time.
    Timeout,
    /// No connection, no TLS, no HTTP.
    Broken,
    /// There is no secret to sign with.
    Unsigned,
}

impl Failure {
    /// For the operator: a word that always is the same for the same cause.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Forbidden => "forbidden",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unsigned => "unsigned",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "HTTP {status}"),
            _ => f.write_str("no answer"),
        }
    }
}

/// Why nothing can be posted at all.
#[derive(Debug, thiserror::Error)]
pub enum PosterError {
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Finds the addresses of a host, each of them one that may be connected to; an error when one is not.
#[derive(Clone)]
pub struct Resolve(Arc<dyn Fn(Asked) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>);

/// A host to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A name, or an address without brackets.
    pub host: String,
    /// Only addresses that the operator allows by name will do: no others are reached without TLS or on another port than
    /// 443.
    pub inside: bool,
}

impl Resolve {
    pub fn new(
        resolve: impl Fn(Asked) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }

    fn ask(&self, host: String, inside: bool) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        (self.0)(Asked { host, inside })
    }
}

/// What reqwest connects to: the addresses that were vetted, asked for once, so that a second answer of the name server
/// cannot lead elsewhere (DNS rebinding).
struct Vetted {
    resolve: Resolve,
    inside: bool,
}

impl reqwest::dns::Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        let asked = self.resolve.ask(name.as_str().to_owned(), self.inside);
        let addresses = asked.map(|found| match found {
            // Port 0 stands for the URL's: only the address was asked for.
            Ok(addresses) => Ok(Box::new(addresses.into_iter().map(|a| SocketAddr::new(a.ip(), 0))) as Addrs),
            Err(error) => Err(Box::new(error) as Box<dyn StdError + Send + Sync>),
        });
        Box::pin(addresses)
    }
}

/// Posts events. Clones share their connections and places.
#[derive(Clone)]
pub struct Poster {
    resolve: Resolve,
    places: Places,
    /// For endpoints in public: TLS, on their one port.
    public: Client,
    /// For those that the operator allows by name.
    inside: Client,
}

impl Poster {
    /// `tls` says which certificates are trusted.
    ///
    /// # Errors
    /// When the client cannot be made of this.
    pub fn new(resolve: Resolve, tls: &rustls::ClientConfig) -> Result<Self, PosterError> {
        let client = |inside| client(&resolve, inside, tls).map_err(PosterError::Client);
        Ok(Self { public: client(false)?, inside: client(true)?, resolve, places: Places::default() })
    }

    /// Takes a place for a post, waiting a moment for it; `None` when there is none.
    pub async fn place(&self, workspace: WorkspaceId, endpoint: WebhookId, room: Room) -> Option<Place> {
        self.places.take(workspace, endpoint, room).await
    }

    /// Posts one body to one endpoint, signed with every live secret.
    ///
    /// Cancelling it leaves open whether the endpoint has seen the post: it will be posted again.
    pub async fn post(&self, url: &str, secrets: &[SecretString], post: Post<'_>) -> Posted {
        let failed = |failure| Posted::Failed { failure, retry_after: None };
        let Some((client, url)) = self.endpoint(url).await else { return failed(Failure::Forbidden) };
        let Some(signature) = sign(secrets, post) else { return failed(Failure::Unsigned) };
        let sent = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", signature.id)
            .header("webhook-timestamp", signature.timestamp)
            .header("webhook-signature", signature.signatures)
            .body(post.body.to_owned())
            .send()
            .await;
        match sent {
            Ok(response) => {
                let posted = judge(response.status(), response.headers());
                drain(response).await;
                posted
            }
            Err(error) => {
                let failure = if error.is_timeout() { Failure::Timeout } else { Failure::Broken };
                // The url may hold a secret of the endpoint's; without it the error says enough.
                tracing::debug!(error = %error.without_url(), "a post got no answer");
                failed(failure)
            }
        }
    }

    /// The client for a url, if it may be posted to. reqwest asks no resolver about an address: that is vetted here.
    async fn endpoint(&self, url: &str) -> Option<(&Client, Url)> {
        let url = Url::parse(url).ok()?;
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
        if let Some(address) = address {
            self.resolve.ask(address, inside).await.ok()?;
        }
        Some((if inside { &self.inside } else { &self.public }, url))
    }
}

fn client(resolve: &Resolve, inside: bool, tls: &rustls::ClientConfig) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(Vetted { resolve: resolve.clone(), inside })
        .no_proxy()
        .redirect(redirect::Policy::none())
        .https_only(!inside)
        .referer(false)
        .user_agent(USER_AGENT)
        .timeout(POST_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .build()
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Posted {
    match status {
        status if status.is_success() => Posted::Delivered,
        StatusCode::GONE => Posted::Gone,
        status => {
            Posted::Failed { failure: Failure::Status(status.as_u16()), retry_after: retry_after(headers) }
        }
    }
}

/// `Retry-After` in seconds; the form with a date is for browsers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Reads a little of the answer, within the time of the post; whoever answers more loses his connection.
async fn drain(response: Response) {
    let mut chunks = response.bytes_stream();
    let mut read = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len();
        if read > ANSWER_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
