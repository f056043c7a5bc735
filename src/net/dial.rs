//! Connects to a host by name: resolve once, vet every address, connect to a vetted address, and to nothing else.
//!
//! Not here: the table of addresses (`egress`), and what is spoken after the connection stands.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{Egress, Resolver, ResolverError};

/// A connected stream: in clear on the left, under TLS on the right.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Longest wait for one of several addresses; the last one may use what is left of the whole.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Silence after which the other end is asked whether it is there, and how often then. Linux asks nine times.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet.
    Tls,
    /// In clear; [`Dialer::secure`] may follow (STARTTLS).
    Clear,
}

/// Where to connect.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// A host name or an address literal.
    pub host: &'a str,
    pub port: u16,
    pub security: Security,
    /// Ports of the protocol to be spoken. Others are refused unless the operator allowed the address by name: with any
    /// port open, tenants would have a port scanner.
    pub ports: &'a [u16],
}

/// Why there is no connection. Tell tenants no more than that there is none: the difference is a map of the network.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Resolve(#[from] ResolverError),
    /// An address of the host is neither public nor allowed.
    #[error("the host has an address that must not be connected to")]
    Forbidden,
    #[error("the port is not one of this protocol's")]
    Port,
    #[error("no connection within the time allowed")]
    Timeout,
    #[error("the connection was refused or failed")]
    Connect(#[source] io::Error),
    /// The certificate is wrong, or there is no TLS at the other end.
    #[error("no secure connection")]
    Tls(#[source] io::Error),
    #[error("the host name cannot stand in a certificate")]
    Name,
}

/// Makes connections under one set of rules.
#[derive(Debug, Clone)]
pub struct Dialer {
    resolver: Resolver,
    egress: Egress,
    tls: Arc<ClientConfig>,
    /// For resolving, connecting and the handshake together.
    timeout: Duration,
}

impl Dialer {
    #[must_use]
    pub fn new(resolver: Resolver, egress: Egress, tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { resolver, egress, tls, timeout }
    }

    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Which certificates are trusted.
    #[must_use]
    pub fn tls(&self) -> &ClientConfig {
        &self.tls
    }

    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Connects, and does the TLS handshake where the target says so.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self, target: Target<'_>) -> Result<Stream, DialError> {
        let deadline = Instant::now() + self.timeout;
        let addresses =
            timeout_at(deadline, self.resolve(target)).await.map_err(|_| DialError::Timeout)??;
        let stream = connect_any(&addresses, deadline).await?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        keep_alive(&stream).map_err(DialError::Connect)?;
        match target.security {
            Security::Clear => Ok(Stream::Left(stream)),
            Security::Tls => timeout_at(deadline, self.handshake(stream, target.host))
                .await
                .map_err(|_| DialError::Timeout)?,
        }
    }

    /// The addresses of a target, each of them vetted; one that is forbidden spoils all, for no honest host has both kinds.
    ///
    /// # Errors
    /// [`DialError::Resolve`], [`DialError::Forbidden`], [`DialError::Port`].
    pub async fn resolve(&self, target: Target<'_>) -> Result<Vec<SocketAddr>, DialError> {
        let addresses = self.resolver.addresses(target.host).await?;
        if !addresses.iter().all(|address| self.egress.permits(*address)) {
            return Err(DialError::Forbidden);
        }
        let by_name = addresses.iter().all(|address| self.egress.is_allowed_by_name(*address));
        if !by_name && !target.ports.contains(&target.port) {
            return Err(DialError::Port);
        }
        Ok(interleaved(addresses).into_iter().map(|address| SocketAddr::new(address, target.port)).collect())
    }

    /// Goes over to TLS on a connection that began in clear. `host` is what the certificate must be for.
    ///
    /// # Errors
    /// [`DialError::Tls`], [`DialError::Name`]; a stream under TLS already is [`DialError::Tls`] too.
    pub async fn secure(&self, stream: Stream, host: &str) -> Result<Stream, DialError> {
        match stream {
            Stream::Left(stream) => self.handshake(stream, host).await,
            Stream::Right(_) => Err(DialError::Tls(io::ErrorKind::AlreadyExists.into())),
        }
    }

    async fn handshake(&self, stream: TcpStream, host: &str) -> Result<Stream, DialError> {
        let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Name)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let secured = Box::pin(connector.connect(name, stream)).await.map_err(DialError::Tls)?;
        Ok(Stream::Right(Box::new(secured)))
    }
}

/// Has the system find out whether the other end is still there: a session may say nothing for minutes, and a peer that has
/// vanished says nothing at all.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = socket2::TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_EVERY);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Families take turns, IPv6 first (RFC 8305 section 4): a broken one costs one attempt, not all.
fn interleaved(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, DialError> {
    let mut failure = DialError::Timeout;
    for (turn, address) in addresses.iter().enumerate() {
        let is_last = turn.saturating_add(1) == addresses.len();
        let until = if is_last { deadline } else { deadline.min(Instant::now() + ATTEMPT) };
        match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = DialError::Connect(error),
            Err(_) => failure = DialError::Timeout,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{bind, client_config};

    fn dialer(allow: &[&str]) -> Dialer {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        let tls = client_config(None).unwrap();
        Dialer::new(Resolver::System, Egress::new(allow), tls, Duration::from_secs(5))
    }

    fn clear(host: &str, port: u16) -> Target<'_> {
        Target { host, port, security: Security::Clear, ports: &[25, 465, 587] }
    }

    #[tokio::test]
    async fn hosts_inside_are_not_dialled_unless_the_operator_says_so() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "localhost", "0"] {
            let refused = dialer(&[]).dial(clear(host, port)).await;
            assert!(
                matches!(refused, Err(DialError::Forbidden | DialError::Resolve(_))),
                "{host}: {refused:?}"
            );
        }
        let stream = dialer(&["127.0.0.0/8"]).dial(clear("127.0.0.1", port)).await.unwrap();
        assert!(matches!(stream, Stream::Left(stream) if stream.peer_addr().unwrap().port() == port));
    }

    #[tokio::test]
    async fn public_hosts_are_dialled_on_the_ports_of_the_protocol_alone() {
        assert!(matches!(dialer(&[]).resolve(clear("8.8.8.8", 6379)).await, Err(DialError::Port)));
        assert_eq!(
            dialer(&[]).resolve(clear("8.8.8.8", 587)).await.unwrap(),
            ["8.8.8.8:587".parse().unwrap()]
        );
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().unwrap());
        let turns: Vec<_> = interleaved(addresses.into()).iter().map(ToString::to_string).collect();
        assert_eq!(turns, ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
    }
}
