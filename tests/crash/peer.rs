//! An SMTP client that expects to be hung up on at any moment: whatever it does not get an answer to is an error.
//!
//! Not here: trying again (`load`).

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A gateway that is silent for longer is broken, however busy the machine is.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub text: String,
}

pub struct Peer(BufReader<Box<dyn Stream>>);

impl Peer {
    /// A connection from an address of ours (every 127.x.y.z is), before the greeting.
    pub async fn dial(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Connects in the clear, reads the greeting and says EHLO.
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        Self::greet(Self::dial(to, IpAddr::from([127, 0, 0, 1])).await?).await
    }

    pub async fn greet(stream: TcpStream) -> io::Result<Self> {
        let mut peer = Self(BufReader::new(Box::new(stream)));
        peer.reply().await?.expect(220)?;
        peer.hello().await?;
        Ok(peer)
    }

    /// Connects to a submission listener: STARTTLS, EHLO, AUTH.
    pub async fn log_in(
        to: SocketAddr,
        tls: &Arc<ClientConfig>,
        (name, password): (&str, &str),
    ) -> io::Result<Self> {
        let mut clear = Self::connect(to).await?;
        clear.command("STARTTLS").await?.expect(220)?;
        let name_of_server = ServerName::try_from("localhost").expect("a host name");
        let stream =
            TlsConnector::from(Arc::clone(tls)).connect(name_of_server, clear.0.into_inner()).await?;
        let mut peer = Self(BufReader::new(Box::new(stream)));
        peer.hello().await?;
        let token = BASE64_STANDARD.encode(format!("\0{name}\0{password}"));
        peer.command(&format!("AUTH PLAIN {token}")).await?.expect(235)?;
        Ok(peer)
    }

    async fn hello(&mut self) -> io::Result<()> {
        self.command("EHLO client.example").await?.expect(250).map(drop)
    }

    pub async fn command(&mut self, line: &str) -> io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// One transaction as far as the gateway goes along with it: the first reply that refuses, or the last.
    pub async fn transaction(&mut self, from: &str, to: &[String], raw: &[u8]) -> io::Result<Reply> {
        let mut reply = self.begin(from, to).await?;
        if reply.code == 354 {
            self.write(&stuffed(raw)).await?;
            self.write(b".\r\n").await?;
            reply = self.reply().await?;
        }
        Ok(reply)
    }

    /// Up to the answer to DATA.
    pub async fn begin(&mut self, from: &str, to: &[String]) -> io::Result<Reply> {
        let mut reply = self.command(&format!("MAIL FROM:<{from}>")).await?;
        for recipient in to {
            if reply.code != 250 {
                return Ok(reply);
            }
            reply = self.command(&format!("RCPT TO:<{recipient}>")).await?;
        }
        if reply.code == 250 { self.command("DATA").await } else { Ok(reply) }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        timeout(SILENCE_MAX, written).await?
    }

    pub async fn reply(&mut self) -> io::Result<Reply> {
        let mut text = Vec::new();
        loop {
            let mut line = String::new();
            timeout(SILENCE_MAX, self.0.read_line(&mut line)).await??;
            let line = line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof)?;
            let (code, rest) = line.split_at_checked(3).ok_or(ErrorKind::InvalidData)?;
            text.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                let code = code.parse().map_err(|_| ErrorKind::InvalidData)?;
                return Ok(Reply { code, text: text.join("\n") });
            }
        }
    }

    /// Says no more, and hears all that still comes until the gateway hangs up too.
    pub async fn rest(mut self) -> String {
        // Whoever was hung up on in anger has nothing left to close.
        drop(self.0.shutdown().await);
        let mut rest = Vec::new();
        let heard = timeout(SILENCE_MAX, self.0.read_to_end(&mut rest)).await;
        assert!(heard.is_ok(), "the gateway does not hang up after {:?}", String::from_utf8_lossy(&rest));
        String::from_utf8_lossy(&rest).into_owned()
    }
}

impl Reply {
    fn expect(self, code: u16) -> io::Result<Self> {
        if self.code == code { Ok(self) } else { Err(io::Error::other(format!("{self:?}"))) }
    }

    /// The key that a message was accepted under: the last word of our 250.
    #[track_caller]
    pub fn key(&self) -> String {
        let key = self.text.rsplit(' ').next().unwrap_or_default();
        assert!(self.code == 250 && key.starts_with("msg_"), "{self:?}");
        key.to_owned()
    }
}

/// Dots doubled (RFC 5321 section 4.5.2). The message has CRLF line ends and ends with one.
pub fn stuffed(raw: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(raw.len() + 16);
    for line in raw.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}
