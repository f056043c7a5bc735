//! Opens sessions with providers: the only place where credentials meet a connection.
//!
//! Protection is as the account says and never less: STARTTLS that is not offered ends the attempt, and clear text goes
//! only to addresses that the operator lists. Not here: retrying and back-off (`worker`).

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Login, Trouble,
    pace::{LoginTurn, Logins, Pace},
    places::{Caps, Place, Places, Purpose, Seeker},
};
use crate::{
    core::{
        account::{Endpoint, Security},
        provider::{Provider, TokenMechanism},
    },
    imap,
    net::{self, Stream, Target},
    smtp,
};

/// An IMAP session over whatever protects it.
pub type ImapClient = imap::Client<Stream>;
/// An SMTP session over whatever protects it.
pub type SmtpClient = smtp::Client<Stream>;

/// Ports of public hosts that IMAP may be spoken to.
const IMAP_PORTS: [u16; 2] = [143, 993];
/// Ports of public hosts that mail may be submitted to.
const SMTP_PORTS: [u16; 4] = [25, 465, 587, 2525];
/// IMAP sessions begun a second with one host, where nothing else is said.
const PER_SECOND: u32 = 50;
/// From the first packet to a session that is logged in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a login keeps its turn: what servers that are well take for one.
const TURN_LASTS: Duration = Duration::from_secs(2);
/// How long a login waits for its turn whose session does not stay: it is a worker's that others wait for too.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// What a provider's server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Imap,
    Smtp,
}

impl Protocol {
    fn ports(self) -> &'static [u16] {
        match self {
            Self::Imap => &IMAP_PORTS,
            Self::Smtp => &SMTP_PORTS,
        }
    }
}

/// Dials providers by the rules of egress.
#[derive(Debug, Clone)]
pub struct ProviderDialer {
    net: net::Dialer,
    imap_limits: imap::Limits,
    imap_deadlines: imap::Deadlines,
    smtp_timeouts: smtp::Timeouts,
    /// Of IMAP sessions: every account has one, and all begin when the process does.
    pace: Arc<Pace>,
    logins: Arc<Logins>,
    places: Arc<Places>,
}

impl ProviderDialer {
    #[must_use]
    pub fn new(
        net: net::Dialer,
        imap_limits: imap::Limits,
        imap_deadlines: imap::Deadlines,
        smtp_timeouts: smtp::Timeouts,
    ) -> Self {
        let (pace, logins) = (Arc::new(Pace::new(PER_SECOND)), Arc::default());
        let places = Arc::new(Places::new(Caps::default()));
        Self { net, imap_limits, imap_deadlines, smtp_timeouts, pace, logins, places }
    }

    /// The same that begins at most so many IMAP sessions a second with each host.
    #[must_use]
    pub fn paced(self, per_second: u32) -> Self {
        Self { pace: Arc::new(Pace::new(per_second)), ..self }
    }

    /// The same with these caps on the sessions that there are at one time.
    #[must_use]
    pub fn capped(self, caps: Caps) -> Self {
        Self { places: Arc::new(Places::new(caps)), ..self }
    }

    /// Takes the place that a session needs, and has for as long as the place is kept.
    ///
    /// # Errors
    /// `Crowded` when there was none in good time.
    pub async fn place(&self, seeker: Seeker<'_>) -> Result<Place, Trouble> {
        self.places.take(seeker).await.ok_or(Trouble::Crowded)
    }

    /// What dials, with its rules.
    #[must_use]
    pub fn net(&self) -> &net::Dialer {
        &self.net
    }

    /// Connects to a server of this protocol as a session would, and hangs up: no login is tried, nothing is said.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn reach(&self, endpoint: &Endpoint, protocol: Protocol) -> Result<(), net::DialError> {
        self.net.dial(target(endpoint, protocol.ports())).await.map(drop)
    }

    /// Connects to a server of this protocol and waits for its greeting, protected as the endpoint says: no login is tried. Says
    /// whose server it is, as far as an IMAP server greets by it.
    ///
    /// # Errors
    /// What is wrong with the server.
    pub async fn greeted(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        hello: &str,
    ) -> Result<Option<&'static Provider>, Trouble> {
        let greeted = async {
            match protocol {
                Protocol::Imap => {
                    let client = self.imap_greeted(endpoint).await?;
                    Ok(Provider::of_greeting(client.greeting().as_str()))
                }
                Protocol::Smtp => self.smtp_greeted(endpoint, hello).await.map(|_| None),
            }
        };
        let greeted = timeout(LOGIN_TIMEOUT, Box::pin(greeted)).await;
        greeted.map_err(|_| Trouble::Unreachable("the server did not answer in time".into()))?
    }

    /// Waits until it is the host's turn to log in one more.
    ///
    /// # Errors
    /// `Crowded` when that is not soon, and the session not one that stays.
    pub async fn turn(
        &self,
        protocol: Protocol,
        host: &str,
        purpose: Purpose,
    ) -> Result<LoginTurn<'_>, Trouble> {
        let patience = (purpose != Purpose::Follow).then_some(TURN_PATIENCE);
        if protocol == Protocol::Imap && !self.pace.turn(host, patience).await {
            return Err(Trouble::Crowded);
        }
        let turn = self.logins.turn(protocol, host, purpose);
        match patience {
            Some(patience) => timeout(patience, turn).await.map_err(|_| Trouble::Crowded),
            None => Ok(turn.await),
        }
    }

    /// Opens an IMAP session and logs in.
    ///
    /// # Errors
    /// What went wrong, by what it means for the account.
    pub async fn open_imap(
        &self,
        turn: LoginTurn<'_>,
        endpoint: &Endpoint,
        login: &Login,
    ) -> Result<ImapClient, Trouble> {
        in_turn(turn, Box::pin(self.imap_session(endpoint, login))).await
    }

    async fn imap_greeted(&self, endpoint: &Endpoint) -> Result<ImapClient, Trouble> {
        let stream = self.net.dial(target(endpoint, &IMAP_PORTS)).await?;
        let mut client = imap::Client::connect(stream, self.imap_limits, self.imap_deadlines).await?;
        if endpoint.security == Security::Starttls {
            let stream = self.net.secure(client.starttls().await?, &endpoint.host).await?;
            client =
                imap::Client::connect_after_starttls(stream, self.imap_limits, self.imap_deadlines).await?;
        }
        Ok(client)
    }

    async fn imap_session(&self, endpoint: &Endpoint, login: &Login) -> Result<ImapClient, Trouble> {
        let mut client = self.imap_greeted(endpoint).await?;
        if client.is_preauthenticated() {
            return Ok(client);
        }
        match login {
            Login::Password { username, password } => client.login(username, password).await?,
            Login::Bearer { username, token, mechanism } => match offered(&client, *mechanism) {
                TokenMechanism::XOAuth2 => client.authenticate_xoauth2(username, token).await?,
                TokenMechanism::OAuthBearer => client.authenticate_oauthbearer(username, token).await?,
            },
        }
        Ok(client)
    }

    /// Opens an SMTP session with a provider or smarthost and logs in; where no login is given, none is wanted there.
    ///
    /// # Errors
    /// What went wrong, by what it means for the account.
    pub async fn open_submission(
        &self,
        turn: LoginTurn<'_>,
        endpoint: &Endpoint,
        login: Option<&Login>,
        hello: &str,
    ) -> Result<SmtpClient, Trouble> {
        in_turn(turn, Box::pin(self.smtp_session(endpoint, login, hello))).await
    }

    async fn smtp_greeted(&self, endpoint: &Endpoint, hello: &str) -> Result<SmtpClient, Trouble> {
        let stream = self.net.dial(target(endpoint, &SMTP_PORTS)).await?;
        let channel = match endpoint.security {
            Security::Tls => smtp::Channel::Encrypted,
            Security::Starttls => smtp::Channel::Clear,
            Security::None => smtp::Channel::ClearTrusted,
        };
        let mut client = smtp::Client::connect(stream, hello, channel, self.smtp_timeouts.clone()).await?;
        if endpoint.security == Security::Starttls {
            let secure = |stream| async move {
                self.net.secure(stream, &endpoint.host).await.map_err(std::io::Error::other)
            };
            client = client.starttls(secure).await?;
        }
        Ok(client)
    }

    async fn smtp_session(
        &self,
        endpoint: &Endpoint,
        login: Option<&Login>,
        hello: &str,
    ) -> Result<SmtpClient, Trouble> {
        let mut client = self.smtp_greeted(endpoint, hello).await?;
        if let Some(login) = login {
            client.authenticate(&submission_login(login), None).await?;
        }
        Ok(client)
    }
}

/// What comes of a login that begins in a turn. A server that keeps one account waiting keeps no other of its accounts waiting, nor
/// all that have errands there and elsewhere.
async fn in_turn<T>(
    turn: LoginTurn<'_>,
    login: impl Future<Output = Result<T, Trouble>> + Unpin,
) -> Result<T, Trouble> {
    let mut opened = pin!(timeout(LOGIN_TIMEOUT, login));
    let opened = match timeout(TURN_LASTS, &mut opened).await {
        Ok(opened) => opened,
        Err(_) => match turn.give_back() {
            Ok(_place) => opened.await,
            Err(_) => return Err(Trouble::Unreachable("the server keeps too many logins waiting".into())),
        },
    };
    opened.map_err(|_| Trouble::Unreachable("the server did not answer in time".into()))?
}

/// The mechanism that the server takes a token by: its provider's, unless it offers only the other.
fn offered(client: &ImapClient, usual: TokenMechanism) -> TokenMechanism {
    let has = |name| client.capabilities().has_auth(name);
    match usual {
        TokenMechanism::XOAuth2 if !has("XOAUTH2") && has("OAUTHBEARER") => TokenMechanism::OAuthBearer,
        TokenMechanism::OAuthBearer if !has("OAUTHBEARER") && has("XOAUTH2") => TokenMechanism::XOAuth2,
        usual => usual,
    }
}

fn submission_login(login: &Login) -> smtp::Credentials {
    match login.clone() {
        Login::Password { username, password } => smtp::Credentials::Password { username, password },
        Login::Bearer { username, token, .. } => smtp::Credentials::Token { username: Some(username), token },
    }
}

fn target<'a>(endpoint: &'a Endpoint, ports: &'a [u16]) -> Target<'a> {
    let security = if endpoint.security == Security::Tls { net::Security::Tls } else { net::Security::Clear };
    Target { host: &endpoint.host, port: endpoint.port, security, ports }
}
