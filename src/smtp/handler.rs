//! The contract between the protocol and whoever decides about mail.
//!
//! Not here: any decision. A handler replies, the session keeps the protocol right around its replies.

use std::{future::Future, net::SocketAddr};

use bytes::Bytes;

use super::{Credentials, Reply};
use crate::mail::{Envelope, Recipient, ReversePath};

/// Which door a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Port 25: relay in, STARTTLS offered, no AUTH.
    Mx,
    /// Port 587 (RFC 6409): STARTTLS, then AUTH, then mail.
    Submission,
    /// Port 465 (RFC 8314): TLS from the first octet, then AUTH, then mail.
    Submissions,
}

impl ListenerKind {
    /// Whether mail needs AUTH first.
    #[must_use]
    pub fn is_submission(self) -> bool {
        self != Self::Mx
    }

    /// The name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
        }
    }
}

/// What is known of a session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    pub peer: SocketAddr,
    pub listener: ListenerKind,
    /// The name given in EHLO or HELO: printable ASCII, a claim and nothing more. Forgotten at STARTTLS.
    pub hello: Option<String>,
    /// True after EHLO, false after HELO.
    pub extended: bool,
    pub tls: bool,
    /// The identity the handler gave in [`AuthOutcome::Accepted`].
    pub authenticated: Option<String>,
}

/// What a handler says to credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// 235. `identity` is kept in [`SessionInfo::authenticated`].
    Accepted { identity: String },
    /// 535 5.7.8.
    Refused,
    /// 454 4.7.0: we cannot tell at the moment.
    Unavailable,
}

/// Decides about the mail of one connection. A reply with code 421 ends the session.
pub trait Handler: Send {
    /// `MAIL FROM`; a positive reply opens the transaction. `declared_size` is the SIZE parameter, never above the limit.
    fn mail(
        &mut self,
        session: &SessionInfo,
        from: &ReversePath,
        declared_size: Option<u64>,
    ) -> impl Future<Output = Reply> + Send;

    /// `RCPT TO`; a positive reply takes the recipient. `<postmaster>` arrives as postmaster at our own host name.
    fn rcpt(&mut self, session: &SessionInfo, to: &Recipient) -> impl Future<Output = Reply> + Send;

    /// The whole message, as it came but for dot-stuffing. Must not reply positively before the message is durable.
    fn message(
        &mut self,
        session: &SessionInfo,
        envelope: Envelope,
        message: Bytes,
    ) -> impl Future<Output = Reply> + Send;

    /// AUTH; only called under TLS on submission listeners, at most `Limits::auth_attempts_max` times.
    fn authenticate(
        &mut self,
        session: &SessionInfo,
        credentials: Credentials,
    ) -> impl Future<Output = AuthOutcome> + Send;

    /// The transaction was given up before `message`; not called when the connection ends, which drops the handler.
    fn reset(&mut self) {}
}

/// Makes a handler for each connection.
pub trait HandlerFactory: Send + Sync + 'static {
    type Handler: Handler + 'static;
    fn handler(&self, peer: SocketAddr, listener: ListenerKind) -> Self::Handler;
}

impl<F, H> HandlerFactory for F
where
    F: Fn(SocketAddr, ListenerKind) -> H + Send + Sync + 'static,
    H: Handler + 'static,
{
    type Handler = H;
    fn handler(&self, peer: SocketAddr, listener: ListenerKind) -> H {
        self(peer, listener)
    }
}
