//! The client side of RFC 5321: one connection, any number of messages, and the final dot as a step of its own.
//!
//! The caller hands in a connected stream and, for STARTTLS, the upgrade; what the server may do is bounded here.
//! Not here: dialling and certificates (`net`), when to try again, what to do with an outcome.

mod capabilities;
mod encode;
mod error;
mod reply_reader;
mod sasl;
mod transmission;
mod transparency;

use std::{future::Future, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

pub use capabilities::Capabilities;
pub use error::{ClientError, Stage};
pub use transmission::{Outcome, PendingDot, Transmission};

use super::Reply;
use reply_reader::ReplyReader;

/// How long a server that has said good-bye may take to hang up.
const HANGS_UP: Duration = Duration::from_secs(1);
/// Octets of one read: replies are short.
const READ_BYTES: usize = 2_048;

/// How long each step may take (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub greeting: Duration,
    /// EHLO, AUTH, STARTTLS and RSET.
    pub command: Duration,
    pub mail: Duration,
    pub rcpt: Duration,
    /// DATA until 354.
    pub data_start: Duration,
    /// Each block of the message.
    pub data_block: Duration,
    /// The final dot until the reply.
    pub data_end: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// QUIT: courtesy must not cost much.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(300),
            command: Duration::from_secs(300),
            mail: Duration::from_secs(300),
            rcpt: Duration::from_secs(300),
            data_start: Duration::from_secs(120),
            data_block: Duration::from_secs(180),
            data_end: Duration::from_secs(600),
            handshake: Duration::from_secs(30),
            quit: Duration::from_secs(5),
        }
    }
}

/// What protects the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// TLS is up.
    Encrypted,
    /// Nothing; credentials are refused to it.
    Clear,
    /// Nothing, and the operator has allowed this address to see credentials in clear.
    ClearTrusted,
}

/// A connection to a server that has greeted us.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    replies: ReplyReader,
    hello: String,
    channel: Channel,
    timeouts: Timeouts,
    capabilities: Capabilities,
    /// False while a command is under way: one that was cancelled leaves the connection out of step for ever.
    in_step: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Waits for the greeting of a fresh connection and says EHLO, or HELO where EHLO is refused.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the server wants none of it, else what is wrong with the connection.
    pub async fn connect(
        stream: S,
        hello: &str,
        channel: Channel,
        timeouts: Timeouts,
    ) -> Result<Self, ClientError> {
        let mut client = Self::new(stream, encode::hello_name(hello), channel, timeouts);
        let greeting = client.reply(client.timeouts.greeting).await?;
        if greeting.code() != 220 {
            return Err(ClientError::unexpected(Stage::Greeting, greeting));
        }
        client.in_step = true;
        client.say_hello().await?;
        Ok(client)
    }

    fn new(stream: S, hello: String, channel: Channel, timeouts: Timeouts) -> Self {
        Self {
            stream,
            replies: ReplyReader::default(),
            hello,
            channel,
            timeouts,
            capabilities: Capabilities::default(),
            in_step: false,
        }
    }

    async fn say_hello(&mut self) -> Result<(), ClientError> {
        let reply = self.command(&encode::line(&["EHLO ", &self.hello]), self.timeouts.command).await?;
        if reply.is_positive() {
            self.capabilities = Capabilities::read(&reply);
            return Ok(());
        }
        self.capabilities = Capabilities::default();
        if !reply.is_permanent() {
            return Err(ClientError::unexpected(Stage::Hello, reply));
        }
        let reply = self.command(&encode::line(&["HELO ", &self.hello]), self.timeouts.command).await?;
        if reply.is_positive() { Ok(()) } else { Err(ClientError::unexpected(Stage::Hello, reply)) }
    }

    /// What the server offered after the last EHLO.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// False when the connection must not be used again: drop it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.in_step && self.replies.is_empty()
    }

    /// Goes over to TLS and says EHLO again. TLS asked for is TLS required: there is no going on in clear.
    ///
    /// # Errors
    /// [`ClientError::TlsNotOffered`], [`ClientError::InjectedBeforeTls`], or what is wrong with the connection.
    pub async fn starttls<T, U, F>(mut self, upgrade: U) -> Result<Client<T>, ClientError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
        U: FnOnce(S) -> F,
        F: Future<Output = io::Result<T>>,
    {
        if !self.capabilities.starttls {
            return Err(ClientError::TlsNotOffered);
        }
        let reply = self.command(b"STARTTLS\r\n", self.timeouts.command).await?;
        if reply.code() != 220 {
            return Err(ClientError::unexpected(Stage::StartTls, reply));
        }
        if !self.replies.is_empty() {
            return Err(ClientError::InjectedBeforeTls);
        }
        let deadline = Instant::now() + self.timeouts.handshake;
        let stream = timeout_at(deadline, upgrade(self.stream)).await.map_err(|_| ClientError::Timeout)??;
        let mut client = Client::new(stream, self.hello, Channel::Encrypted, self.timeouts);
        client.in_step = true;
        client.say_hello().await?;
        Ok(client)
    }

    /// Gives up an open transaction; also a cheap way to see whether the connection still lives.
    ///
    /// # Errors
    /// When it does not.
    pub async fn reset(&mut self) -> Result<(), ClientError> {
        let reply = self.command(b"RSET\r\n", self.timeouts.command).await?;
        if reply.is_positive() { Ok(()) } else { Err(ClientError::unexpected(Stage::Reset, reply)) }
    }

    /// Says good-bye if the server listens, and closes. One that answers is left to hang up: until it has, it counts the session
    /// among those that its user may have at one time.
    pub async fn quit(mut self) {
        let goodbye = self.command(b"QUIT\r\n", self.timeouts.quit).await;
        tracing::debug!(polite = goodbye.is_ok(), "SMTP connection closed");
        let deadline = Instant::now() + self.timeouts.quit;
        if timeout_at(deadline, self.stream.shutdown()).await.is_err() {
            tracing::debug!("the server did not take our good-bye in time");
        }
        if goodbye.is_ok() {
            let _ = timeout(HANGS_UP, tokio::io::copy(&mut self.stream, &mut tokio::io::sink())).await;
        }
    }

    /// One command, one reply. A reply of 421 announces that the server closes.
    async fn command(&mut self, line: &[u8], limit: Duration) -> Result<Reply, ClientError> {
        self.begin()?;
        self.write(line, limit).await?;
        let reply = self.reply(limit).await?;
        self.in_step = reply.code() != 421;
        Ok(reply)
    }

    /// Marks a command as under way. Replies nobody asked for mean that the server is out of step.
    fn begin(&mut self) -> Result<(), ClientError> {
        if !std::mem::take(&mut self.in_step) {
            return Err(ClientError::Broken);
        }
        if self.replies.is_empty() { Ok(()) } else { Err(ClientError::OutOfStep) }
    }

    async fn write(&mut self, octets: &[u8], limit: Duration) -> Result<(), ClientError> {
        let written = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        Ok(timeout_at(Instant::now() + limit, written).await.map_err(|_| ClientError::Timeout)??)
    }

    /// The next reply; the whole of it must come within `limit`.
    async fn reply(&mut self, limit: Duration) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(reply) = self.replies.next().map_err(|_| ClientError::OutOfStep)? {
                return Ok(reply);
            }
            let octets = timeout_at(deadline, self.stream.read(&mut buffer))
                .await
                .map_err(|_| ClientError::Timeout)??;
            if octets == 0 {
                return Err(ClientError::Closed);
            }
            self.replies.receive(buffer.get(..octets).unwrap_or_default());
        }
    }
}
