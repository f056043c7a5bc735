//! OAuth 2.0 at a provider, as a client: where a user is sent to sign in, the code he comes back with, and the tokens that
//! come of it (RFC 6749, RFC 7636, RFC 9700).
//!
//! Not here: when a token is renewed and what a refusal means (`core::grant`), keeping tokens (`store`), and the pages a
//! user sees (`http`).

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope,
    StandardRevocableToken, TokenResponse as _, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use self::identity::WithIdentity;
use crate::{
    core::{
        grant::{Refused, Signer, TokenRefusal},
        provider::Authorization,
    },
    mail::Address,
    net::{Web, read_body, retry_after},
};

mod domain;
mod identity;
mod providers;

pub use domain::{BadKey, ServiceAccount};
pub use providers::{Providers, Registered, Whole, WholeDomain};

/// From connecting to the last octet of an answer. The lease of a renewal is three times as long.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Octets of an answer: tokens of some providers have thousands.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What a token lives for when its provider does not say (RFC 6749 section 5.1 only recommends it).
const LIFETIME_UNSAID: Duration = Duration::from_mins(30);
/// Who says that it lives for less has a clock that is wrong, and has said nothing: nobody could log in by such a token.
const LIFETIME_MIN: Duration = Duration::from_secs(2);
/// What servers say of a token that is good no more, when they are asked to end it.
const GONE: [&str; 2] = ["invalid_token", "invalid_grant"];
/// Longest text of a refusal that is kept, in characters.
const TEXT_CHARS_MAX: usize = 300;

type Tokens = oauth2::StandardTokenResponse<WithIdentity, BasicTokenType>;
type Client = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The operator's registration at one provider.
#[derive(Debug, Clone)]
pub struct Registration {
    pub client_id: String,
    /// `None` of a public client, which PKCE alone protects.
    pub client_secret: Option<SecretString>,
}

/// Speaks with one provider's authorization server.
#[derive(Clone)]
pub struct OAuthClient {
    client: Client,
    authorization: Authorization,
    revoke_url: Option<Url>,
    registration: Registration,
    web: Web,
}

/// A URL of a provider's that is none; which.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no URL")]
pub struct BadUrl(&'static str);

/// A user on his way to sign in.
pub struct Departure {
    pub url: Url,
    /// Kept until he comes back, where nobody else can read it.
    pub verifier: SecretString,
}

/// What a provider has granted.
#[derive(Debug)]
pub struct Granted {
    pub access_token: SecretString,
    /// `None` when the former one stays good.
    pub refresh_token: Option<SecretString>,
    pub lifetime: Duration,
    /// Empty when it is what was asked for.
    pub scopes: Vec<String>,
    /// Who signed in, where the provider says it.
    pub signer: Option<Signer>,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// `text` is the provider's own, cut and cleaned.
    #[error("the provider refused: {text}")]
    Refused { refusal: TokenRefusal, text: String, wait: Option<Duration> },
    /// No connection, no answer, or one that nobody can read.
    #[error("the provider's sign-in server cannot be reached or understood")]
    Unanswered,
}

impl TokenError {
    /// What it means for the grant.
    #[must_use]
    pub fn meaning(&self) -> Refused {
        match self {
            Self::Refused { refusal, .. } => refusal.meaning(),
            Self::Unanswered => Refused::ForNow,
        }
    }

    /// How long the endpoint wants to be left alone, if it says so.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Refused { wait, .. } => *wait,
            Self::Unanswered => None,
        }
    }
}

impl OAuthClient {
    /// `redirect` is where users come back to.
    ///
    /// # Errors
    /// When one of the provider's URLs is none.
    pub fn new(
        authorization: Authorization,
        registration: Registration,
        redirect: Url,
        web: Web,
    ) -> Result<Self, BadUrl> {
        let authorize = AuthUrl::new(authorization.authorize_url.clone());
        let token = TokenUrl::new(authorization.token_url.clone());
        let client = oauth2::Client::new(ClientId::new(registration.client_id.clone()))
            .set_auth_uri(authorize.map_err(|_| BadUrl("authorize_url"))?)
            .set_token_uri(token.map_err(|_| BadUrl("token_url"))?)
            .set_redirect_uri(RedirectUrl::from_url(redirect))
            // In the body: all providers take it there, and some take it nowhere else.
            .set_auth_type(oauth2::AuthType::RequestBody);
        let client = match &registration.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned())),
            None => client,
        };
        let revoke_url = authorization.revoke_url.as_deref().map(Url::parse).transpose();
        let revoke_url = revoke_url.map_err(|_| BadUrl("revoke_url"))?;
        Ok(Self { client, authorization, revoke_url, registration, web })
    }

    /// What is known of the provider.
    #[must_use]
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Sends a user to sign in. `state` must be unguessable, good once, and bound to him (RFC 9700 section 4.7); `hint` is the
    /// address he is to sign in with.
    #[must_use]
    pub fn depart(&self, state: String, hint: Option<&Address>) -> Departure {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let scopes = self.authorization.scopes.iter().cloned().map(Scope::new);
        let request = self.client.authorize_url(|| CsrfToken::new(state));
        let mut request = request.add_scopes(scopes).set_pkce_challenge(challenge);
        for (name, value) in &self.authorization.parameters {
            request = request.add_extra_param(name, value);
        }
        if let Some(hint) = hint {
            request = request.add_extra_param("login_hint", hint.to_string());
        }
        let (url, _) = request.url();
        Departure { url, verifier: verifier.into_secret().into() }
    }

    /// Turns the code that a user came back with into tokens. A code is good once.
    ///
    /// # Errors
    /// Why there are no tokens.
    pub async fn redeem(&self, code: &str, verifier: &SecretString) -> Result<Granted, TokenError> {
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        let request = self.client.exchange_code(AuthorizationCode::new(code.to_owned()));
        granted(request.set_pkce_verifier(verifier).request_async(self).await)
    }

    /// Renews an access token. The answer may hold another refresh token, which must be durable before it is used.
    ///
    /// # Errors
    /// Why there are no tokens.
    pub async fn renew(&self, refresh_token: &SecretString) -> Result<Granted, TokenError> {
        let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
        granted(self.client.exchange_refresh_token(&token).request_async(self).await)
    }

    /// Gives a grant back (RFC 7009). Providers that know no such thing forget it by themselves.
    ///
    /// # Errors
    /// When the provider could not be told.
    pub async fn revoke(&self, refresh_token: &SecretString) -> Result<(), TokenError> {
        let Some(url) = &self.revoke_url else { return Ok(()) };
        let client = self.web.client(url).await.ok_or(TokenError::Unanswered)?;
        let mut pairs = vec![
            ("token", refresh_token.expose_secret()),
            ("token_type_hint", "refresh_token"),
            ("client_id", self.registration.client_id.as_str()),
        ];
        if let Some(secret) = &self.registration.client_secret {
            pairs.push(("client_secret", secret.expose_secret()));
        }
        let response = post(client, url, form(&pairs)).await?;
        if response.status().is_success() {
            return Ok(());
        }
        match refusal(response).await {
            // RFC 7009 section 2.2 calls a token that is not known as good as revoked; Google says so with a status of its own.
            TokenError::Refused { refusal, .. } if GONE.contains(&refusal.error.as_str()) => Ok(()),
            error => Err(error),
        }
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn token_url(&self) -> &str {
        &self.authorization.token_url
    }

    /// Where users come back to.
    #[must_use]
    pub fn redirect(&self) -> &str {
        self.client.redirect_uri().map_or("", |redirect| redirect.as_str())
    }

    /// Whether the token endpoint says anything, whatever that is.
    pub async fn is_answering(&self) -> bool {
        let Ok(url) = Url::parse(self.token_url()) else { return false };
        let Some(client) = self.web.client(&url).await else { return false };
        client.get(url).send().await.is_ok()
    }

    /// One request of the library's to the token endpoint. What is no success is read here: the library would lose its status.
    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, TokenError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| TokenError::Unanswered)?;
        let client = self.web.client(&url).await.ok_or(TokenError::Unanswered)?;
        let request = reqwest::Request::try_from(request).map_err(unanswered)?;
        let response = client.execute(request).await.map_err(unanswered)?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let body = read_body(response, ANSWER_BYTES_MAX).await.ok_or(TokenError::Unanswered)?;
        Ok(HttpResponse::new(body))
    }
}

/// Boxed: the library's futures could else not be sent between threads.
impl<'c> oauth2::AsyncHttpClient<'c> for OAuthClient {
    type Error = TokenError;
    type Future = BoxFuture<'c, Result<HttpResponse, TokenError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.ask(request))
    }
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient").field("authorization", &self.authorization).finish_non_exhaustive()
    }
}

fn granted(
    answer: Result<Tokens, RequestTokenError<TokenError, BasicErrorResponse>>,
) -> Result<Granted, TokenError> {
    answer.map(read).map_err(|error| match error {
        RequestTokenError::Request(error) => error,
        // Never with its text, which may hold a token.
        _ => TokenError::Unanswered,
    })
}

/// Reads a successful answer of a token endpoint (RFC 6749 section 5.1).
///
/// # Errors
/// `Unanswered` when it is none.
pub fn read_granted(body: &[u8]) -> Result<Granted, TokenError> {
    // Without the parser's words, which may quote a token.
    serde_json::from_slice(body).map(read).map_err(|_| TokenError::Unanswered)
}

fn read(tokens: Tokens) -> Granted {
    let secret = |token: &str| SecretString::from(token.to_owned());
    Granted {
        access_token: secret(tokens.access_token().secret()),
        refresh_token: tokens.refresh_token().map(|token| secret(token.secret())),
        lifetime: tokens.expires_in().filter(|said| *said >= LIFETIME_MIN).unwrap_or(LIFETIME_UNSAID),
        scopes: tokens.scopes().into_iter().flatten().map(|scope| scope.to_string()).collect(),
        signer: tokens.extra_fields().signer(),
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

async fn post(client: &reqwest::Client, url: &Url, body: String) -> Result<reqwest::Response, TokenError> {
    let request = client.post(url.clone()).header("content-type", "application/x-www-form-urlencoded");
    request.body(body).send().await.map_err(unanswered)
}

/// An answer of RFC 6749 section 5.2, with Microsoft's numbers.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorAnswer {
    error: String,
    error_description: String,
    error_codes: Vec<u32>,
}

async fn refusal(response: reqwest::Response) -> TokenError {
    let status = response.status().as_u16();
    let wait = retry_after(response.headers());
    let body = read_body(response, ANSWER_BYTES_MAX).await.unwrap_or_default();
    read_refusal(status, &body, wait)
}

/// Reads what a token endpoint said with a status that is no success (RFC 6749 section 5.2).
#[must_use]
pub fn read_refusal(status: u16, body: &[u8], wait: Option<Duration>) -> TokenError {
    let answer: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    let text = [answer.error_description.as_str(), answer.error.as_str()];
    let text = text.into_iter().find(|text| !text.is_empty()).map_or_else(|| format!("HTTP {status}"), clean);
    TokenError::Refused {
        refusal: TokenRefusal { status, error: answer.error, codes: answer.error_codes },
        text,
        wait,
    }
}

/// The first line of a server's text, as a log can hold it.
fn clean(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn unanswered(error: reqwest::Error) -> TokenError {
    tracing::debug!(error = %error.without_url(), "a sign-in server gave no answer");
    TokenError::Unanswered
}

#[cfg(test)]
mod tests;
