//! Opens sessions with providers: the only place where credentials meet a connection.
//!
//! Protection is as the account says and never less: STARTTLS that is not offered ends the attempt, and clear text goes
//! only to addresses that the operator lists. Not here: retrying and back-off (`worker`).

use std::time::Duration;

use super::{Exit, Trouble};
use crate::{
    core::account::{Credentials, Endpoint, Security},
    imap,
    net::{self, Stream, Target},
    smtp,
    store::AccountAccess,
};

/// An IMAP session over whatever protects it.
pub type ImapClient = imap::Client<Stream>;
/// An SMTP session over whatever protects it.
pub type SmtpClient = smtp::Client<Stream>;

/// Ports of public hosts that IMAP may be spoken to.
const IMAP_PORTS: [u16; 2] = [143, 993];
/// Ports of public hosts that mail may be submitted to.
const SMTP_PORTS: [u16; 4] = [25, 465, 587, 2525];
/// From the first packet to a session that is logged in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// What a provider's server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
}

impl ProviderDialer {
    #[must_use]
    pub fn new(
        net: net::Dialer,
        imap_limits: imap::Limits,
        imap_deadlines: imap::Deadlines,
        smtp_timeouts: smtp::Timeouts,
    ) -> Self {
        Self { net, imap_limits, imap_deadlines, smtp_timeouts }
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

    /// Opens an IMAP session and logs in.
    ///
    /// # Errors
    /// What went wrong, by what it means for the account.
    pub async fn open_imap(&self, login: &AccountAccess) -> Result<ImapClient, Trouble> {
        let opened = tokio::time::timeout(LOGIN_TIMEOUT, Box::pin(self.imap_session(login))).await;
        opened.map_err(|_| Trouble::Unreachable("the server did not answer in time".into()))?
    }

    async fn imap_session(&self, login: &AccountAccess) -> Result<ImapClient, Trouble> {
        let endpoint = &login.settings.imap;
        let stream = self.net.dial(target(endpoint, &IMAP_PORTS)).await?;
        let mut client = imap::Client::connect(stream, self.imap_limits, self.imap_deadlines).await?;
        if endpoint.security == Security::Starttls {
            let stream = self.net.secure(client.starttls().await?, &endpoint.host).await?;
            client =
                imap::Client::connect_after_starttls(stream, self.imap_limits, self.imap_deadlines).await?;
        }
        if client.is_preauthenticated() {
            return Ok(client);
        }
        let Credentials::Password { username, password } = &login.credentials;
        client.login(username, password).await?;
        Ok(client)
    }

    /// Opens an SMTP session with a provider or smarthost and logs in.
    ///
    /// # Errors
    /// What went wrong, by what it means for the account.
    pub async fn open_submission(&self, exit: &Exit, hello: &str) -> Result<SmtpClient, Trouble> {
        let opened = tokio::time::timeout(LOGIN_TIMEOUT, Box::pin(self.smtp_session(exit, hello))).await;
        opened.map_err(|_| Trouble::Unreachable("the server did not answer in time".into()))?
    }

    async fn smtp_session(&self, exit: &Exit, hello: &str) -> Result<SmtpClient, Trouble> {
        let endpoint = &exit.endpoint;
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
        if let Some(Credentials::Password { username, password }) = &exit.credentials {
            let credentials =
                smtp::Credentials::Password { username: username.clone(), password: password.clone() };
            client.authenticate(&credentials, None).await?;
        }
        Ok(client)
    }
}

fn target<'a>(endpoint: &'a Endpoint, ports: &'a [u16]) -> Target<'a> {
    let security = if endpoint.security == Security::Tls { net::Security::Tls } else { net::Security::Clear };
    Target { host: &endpoint.host, port: endpoint.port, security, ports }
}
