//! AUTH, client side: one mechanism, one attempt, and a short patience with what the server asks.
//!
//! Not here: where credentials come from, and what a refusal means for an account.

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::{Channel, Client, ClientError, Stage, encode};
use crate::smtp::{Credentials, Mechanism, auth::client_message};

/// Longest initial response sent with AUTH itself; the command line has 512 octets and tokens may need thousands.
const INITIAL_RESPONSE_BYTES_MAX: usize = 500 - "AUTH OAUTHBEARER \r\n".len();
/// Challenges answered before the server is taken for a trap.
const CHALLENGES_MAX: usize = 3;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Authenticates with the first mechanism the server offers for these credentials, or with the one given.
    ///
    /// # Errors
    /// [`ClientError::Refused`] at [`Stage::Auth`] with the server's reply (535: wrong, 454: cannot tell now),
    /// [`ClientError::Insecure`] on a clear channel, [`ClientError::NoMechanism`].
    pub async fn authenticate(
        &mut self,
        credentials: &Credentials,
        only: Option<Mechanism>,
    ) -> Result<(), ClientError> {
        if self.channel == Channel::Clear {
            return Err(ClientError::Insecure);
        }
        let offered = self
            .capabilities
            .mechanisms
            .iter()
            .copied()
            .filter(|mechanism| only.is_none_or(|only| only == *mechanism));
        let mut fitting =
            offered.filter_map(|mechanism| Some((mechanism, client_message(mechanism, credentials)?)));
        let (mechanism, message) = fitting.next().ok_or(ClientError::NoMechanism)?;
        let mut responses = responses(mechanism, credentials, &message).into_iter();
        let mut line = Zeroizing::new(encode::line(&["AUTH ", mechanism.name()]));
        let short = mechanism != Mechanism::Login
            && responses.as_slice().first().is_some_and(|first| first.len() <= INITIAL_RESPONSE_BYTES_MAX);
        if let Some(first) = short.then(|| responses.next()).flatten() {
            line = Zeroizing::new(encode::line(&["AUTH ", mechanism.name(), " ", &first]));
        }
        for _ in 0..=CHALLENGES_MAX {
            let reply = self.command(&line, self.timeouts.command).await?;
            match reply.code() {
                235 => return Ok(()),
                // After our last response a challenge carries the reason of a failure; it wants an empty answer.
                334 => {
                    line = Zeroizing::new(encode::line(&[responses
                        .next()
                        .as_deref()
                        .map_or(give_up(mechanism), |text| text)]))
                }
                _ => return Err(ClientError::unexpected(Stage::Auth, reply)),
            }
        }
        self.in_step = false;
        Err(ClientError::OutOfStep)
    }
}

/// What we have to say, in order and in base64.
fn responses(mechanism: Mechanism, credentials: &Credentials, message: &str) -> Vec<Zeroizing<String>> {
    let encode = |text: &str| Zeroizing::new(BASE64_STANDARD.encode(text));
    match (mechanism, credentials) {
        (Mechanism::Login, Credentials::Password { password, .. }) => {
            vec![encode(message), encode(password.expose_secret())]
        }
        _ => vec![encode(message)],
    }
}

/// RFC 7628 section 3.2.3: OAUTHBEARER ends with ^A; XOAUTH2 with an empty line; anything else is cancelled.
fn give_up(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::OAuthBearer => "AQ==",
        Mechanism::XOAuth2 => "",
        Mechanism::Plain | Mechanism::Login => "*",
    }
}
