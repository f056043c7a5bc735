//! From the greeting to an authenticated session: CAPABILITY, STARTTLS, LOGIN, AUTHENTICATE, ID, ENABLE.
//!
//! Not here: which mechanism an account uses (its owner chose it once), where tokens come from, and TLS itself.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::{
    client::{Client, State},
    command::Command,
    error::{Error, Fault, Insecurity, Result, ServerText},
    framing::Allowance,
    limits::{Deadlines, Limits},
    response::{Condition, Response, Status},
    session::Session,
};

/// Continuation requests to one AUTHENTICATE: the empty first one and one error are all that our mechanisms have.
const CONTINUATIONS_MAX: u32 = 3;

/// A SASL mechanism whose client speaks once.
struct Mechanism<'a> {
    name: &'static str,
    initial: &'a [u8],
    /// What answers the server's error text, so that it ends in a tagged NO.
    dismissal: &'static [u8],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Takes a fresh connection through its greeting. On a connection that is to be upgraded call `starttls` next.
    ///
    /// # Errors
    /// `ServerBye` when the server turns us away; the rest as for every command.
    pub async fn connect(stream: S, limits: Limits, deadlines: Deadlines) -> Result<Self> {
        let mut client = Self::over(stream, Session::new(&limits), limits, deadlines);
        match client.next_response().await? {
            Response::Status(Status { condition: Condition::Bye, code, text }) => {
                return Err(Error::ServerBye { code, text });
            }
            Response::Status(status) => {
                client.greeting = status.text.clone();
                client.preauthenticated = status.condition == Condition::PreAuth;
                client.absorb(Response::Status(status))?;
            }
            _ => return Err(Fault::NoGreeting.into()),
        }
        client.learn_capabilities().await?;
        Ok(client)
    }

    /// Goes on over TLS after `starttls`. Nothing that was said in clear counts: capabilities are asked anew.
    ///
    /// # Errors
    /// Those of every command.
    pub async fn connect_after_starttls(stream: S, limits: Limits, deadlines: Deadlines) -> Result<Self> {
        let mut client = Self::over(stream, Session::greeted(&limits), limits, deadlines);
        client.learn_capabilities().await?;
        Ok(client)
    }

    /// Whether the server greeted with PREAUTH: there is nobody to log in.
    #[must_use]
    pub fn is_preauthenticated(&self) -> bool {
        self.preauthenticated
    }

    /// Asks for TLS and gives the stream back for the handshake, with all that was learnt in clear forgotten.
    ///
    /// # Errors
    /// `Insecure` when TLS cannot be had, or when bytes follow the answer: they would be an attacker's.
    pub async fn starttls(mut self) -> Result<S> {
        if self.preauthenticated {
            return Err(Insecurity::PreAuthenticated.into());
        }
        if !self.capabilities.has("STARTTLS") {
            return Err(Insecurity::TlsNotOffered.into());
        }
        match self.run(Command::new("STARTTLS"), |_| None).await {
            Ok(_) if self.session.has_bytes() => Err(Insecurity::BytesBeforeTls.into()),
            Ok(_) => Ok(self.stream),
            Err(Error::No { .. } | Error::Bad { .. }) => Err(Insecurity::TlsRefused.into()),
            Err(other) => Err(other),
        }
    }

    /// Logs in with a password: AUTHENTICATE PLAIN where it is offered, since it takes any character, else LOGIN.
    ///
    /// # Errors
    /// `Auth` when the server refuses, `Insecure` when it takes no password on this connection, `Unsendable` for control
    /// characters.
    pub async fn login(&mut self, user: &str, password: &SecretString) -> Result<()> {
        let password = password.expose_secret();
        check_sendable("the user name", user)?;
        check_sendable("the password", password)?;
        if self.capabilities.has_auth("PLAIN") {
            let initial = Zeroizing::new(format!("\0{user}\0{password}"));
            let mechanism = Mechanism { name: "PLAIN", initial: initial.as_bytes(), dismissal: b"*" };
            return self.authenticate(mechanism).await;
        }
        if self.capabilities.has("LOGINDISABLED") {
            return Err(Insecurity::LoginDisabled.into());
        }
        self.ask_capabilities_again();
        let command =
            Command::new("LOGIN").raw(" ").string(user.as_bytes()).raw(" ").string(password.as_bytes());
        let outcome = self.run(command, Some).await;
        self.authenticated(outcome.map(drop), None).await
    }

    /// Logs in with an OAuth2 access token by XOAUTH2 (Google, Microsoft, Yahoo).
    ///
    /// # Errors
    /// As for `login`. `Auth::detail` has the server's JSON.
    pub async fn authenticate_xoauth2(&mut self, user: &str, token: &SecretString) -> Result<()> {
        let token = token.expose_secret();
        check_sendable("the user name", user)?;
        check_sendable("the token", token)?;
        let initial = Zeroizing::new(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
        self.authenticate(Mechanism { name: "XOAUTH2", initial: initial.as_bytes(), dismissal: b"" }).await
    }

    /// Logs in with an OAuth2 access token by OAUTHBEARER (RFC 7628).
    ///
    /// # Errors
    /// As for `authenticate_xoauth2`.
    pub async fn authenticate_oauthbearer(&mut self, user: &str, token: &SecretString) -> Result<()> {
        let token = token.expose_secret();
        check_sendable("the user name", user)?;
        check_sendable("the token", token)?;
        // RFC 5801 section 4: "," and "=" are special in an authzid.
        let authzid = user.replace('=', "=3D").replace(',', "=2C");
        let initial = Zeroizing::new(format!("n,a={authzid},\x01auth=Bearer {token}\x01\x01"));
        // RFC 7628 section 3.2.3: the dismissal is one %x01.
        self.authenticate(Mechanism { name: "OAUTHBEARER", initial: initial.as_bytes(), dismissal: b"AQ==" })
            .await
    }

    /// Says who we are (RFC 2971) and returns what the server says of itself. 163.com and 126.com refuse SELECT to
    /// clients that did not. Nothing is sent to a server that does not offer ID.
    ///
    /// # Errors
    /// Those of every command.
    pub async fn id(&mut self, name: &str, version: &str) -> Result<Vec<(Bytes, Bytes)>> {
        if !self.capabilities.has("ID") {
            return Ok(Vec::new());
        }
        let command = Command::new("ID").raw(" (\"name\" ").string(name.as_bytes()).raw(" \"version\" ");
        let command = command.string(version.as_bytes()).raw(")");
        let mut fields = Vec::new();
        let take = |response| match response {
            Response::Id(said) => {
                fields = said;
                None
            }
            other => Some(other),
        };
        self.run(command, take).await?;
        Ok(fields)
    }

    /// Turns on QRESYNC, or CONDSTORE where that is all there is (RFC 7162, RFC 5161). Says whether QRESYNC is on.
    ///
    /// # Errors
    /// Those of every command.
    pub async fn enable_qresync(&mut self) -> Result<bool> {
        let can = self.capabilities.has("QRESYNC") && self.capabilities.has("ENABLE");
        if can {
            self.run(Command::new("ENABLE QRESYNC"), Some).await?;
        }
        self.qresync = can;
        Ok(can)
    }

    async fn authenticate(&mut self, mechanism: Mechanism<'_>) -> Result<()> {
        if !self.capabilities.has_auth(mechanism.name) {
            return Err(Error::Unsupported(mechanism.name));
        }
        let mut detail = None;
        let outcome = self.exchange(&mechanism, &mut detail).await;
        if outcome.is_err() && !matches!(outcome, Err(Error::No { .. } | Error::Bad { .. })) {
            return outcome;
        }
        self.state = State::Ready;
        self.authenticated(outcome, detail).await
    }

    /// The initial response goes with the command where SASL-IR allows, else with the first continuation.
    async fn exchange(&mut self, mechanism: &Mechanism<'_>, detail: &mut Option<ServerText>) -> Result<()> {
        self.prepare().await?;
        self.ask_capabilities_again();
        let at_once = self.capabilities.has("SASL-IR") || self.capabilities.has("IMAP4REV2");
        let command = Command::new("AUTHENTICATE").raw(" ").raw(mechanism.name);
        let command = if at_once { command.raw(" ").base64(mechanism.initial) } else { command };
        let mut spoken = at_once;
        self.send(&command, Allowance::plain(&self.limits), &mut Some).await?;
        let mut continuations = 0;
        loop {
            match self.next_response().await? {
                Response::Tagged(_, status) => return self.outcome(status).map(drop),
                Response::Continuation(text) => {
                    continuations += 1;
                    if continuations > CONTINUATIONS_MAX {
                        return Err(Fault::TooManyContinuations.into());
                    }
                    if spoken {
                        *detail = Some(ServerText::new(&STANDARD.decode(&text).unwrap_or_default()));
                        self.queue(mechanism.dismissal);
                    } else {
                        self.queue(Zeroizing::new(STANDARD.encode(mechanism.initial)).as_bytes());
                        spoken = true;
                    }
                    self.flush().await?;
                }
                other => self.absorb(other)?,
            }
        }
    }

    /// Turns a refusal into what it is here, and learns what the server offers to who is logged in.
    async fn authenticated(&mut self, outcome: Result<()>, detail: Option<ServerText>) -> Result<()> {
        match outcome {
            Ok(()) => self.learn_capabilities().await,
            // Some servers answer BAD to a password they do not like the look of.
            Err(Error::No { code, text } | Error::Bad { code, text }) => {
                Err(Error::Auth { code, text, detail })
            }
            Err(other) => Err(other),
        }
    }

    /// What was offered before authentication need not be what is offered after it, but literals must still be sent.
    fn ask_capabilities_again(&mut self) {
        self.capabilities_are_old = true;
    }

    async fn learn_capabilities(&mut self) -> Result<()> {
        if self.capabilities.is_empty() || self.capabilities_are_old {
            self.run(Command::new("CAPABILITY"), Some).await?;
        }
        self.capabilities_are_old = false;
        Ok(())
    }
}

/// No mechanism of ours can carry these, and each would end or split what it stands in.
fn check_sendable(what: &'static str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) { Err(Error::Unsendable(what)) } else { Ok(()) }
}
