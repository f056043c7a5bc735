//! One post to one endpoint: bounded in time and in what is read, never redirected, only to vetted addresses.
//!
//! Not here: trying again. An endpoint is hostile until it has answered, and after that too.

use std::{fmt, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap},
};
use secrecy::SecretString;

use super::{
    Post,
    places::{Place, Places, Room},
    sign,
};
use crate::{
    core::ids::{WebhookId, WorkspaceId},
    net::{Resolve, Web, WebError, retry_after},
};

/// From connecting to the last octet of the answer (contract: 2xx within 15 s).
const POST_TIMEOUT: Duration = Duration::from_secs(15);
/// Octets of an answer that are read, so that the connection can serve again; what they say is ignored.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

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

/// Posts events. Clones share their connections and places.
#[derive(Clone)]
pub struct Poster {
    web: Web,
    places: Places,
}

impl Poster {
    /// `tls` says which certificates are trusted.
    ///
    /// # Errors
    /// When the client cannot be made of this.
    pub fn new(resolve: Resolve, tls: &rustls::ClientConfig) -> Result<Self, WebError> {
        Ok(Self { web: Web::new(resolve, tls, POST_TIMEOUT)?, places: Places::default() })
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
        let Ok(url) = Url::parse(url) else { return failed(Failure::Forbidden) };
        let Some(client) = self.web.client(&url).await else { return failed(Failure::Forbidden) };
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
