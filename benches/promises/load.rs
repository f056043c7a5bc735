//! The load: SMTP sessions that send distinct messages over connections kept open, one command at a time, as `smtp-source -d`
//! does. The same for every server.
//!
//! Not here: TLS, and what the servers do with the mail.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// People who are written to. Each becomes a contact of the gateway's.
const CORRESPONDENTS: usize = 500;

/// What is sent, to whom and how fast.
#[derive(Clone)]
pub struct Load {
    pub server: SocketAddr,
    pub recipient: String,
    pub sessions: usize,
    pub messages: usize,
    /// Octets of each message, header and all.
    pub bytes: usize,
    /// Messages a second over all sessions; `None`: as fast as they are taken.
    pub rate: Option<f64>,
}

/// How it went, as the sessions saw it.
pub struct Outcome {
    pub wall: Duration,
    /// From the final dot to the 250, sorted.
    pub waits: Vec<Duration>,
}

impl Outcome {
    /// The wait that so many of a thousand did not exceed.
    pub fn wait(&self, of_thousand: usize) -> Duration {
        self.waits.get(self.waits.len() * of_thousand / 1000).copied().unwrap_or_default()
    }
}

/// Sends everything; returns when the last 250 is there.
///
/// # Errors
/// When a server refuses anything.
pub async fn send(load: &Load) -> Result<Outcome> {
    let mut sessions = Vec::with_capacity(load.sessions);
    for _ in 0..load.sessions {
        sessions.push(Session::open(load.server).await?);
    }
    let (shared, next) = (Arc::new(load.clone()), Arc::new(AtomicUsize::new(0)));
    let body: Arc<str> = body(load.bytes).into();
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    for mut session in sessions {
        let (load, next, body) = (Arc::clone(&shared), Arc::clone(&next), Arc::clone(&body));
        tasks.spawn(async move {
            let mut waits = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.messages {
                    session.quit().await?;
                    return anyhow::Ok(waits);
                }
                if let Some(rate) = load.rate {
                    sleep_until(started + Duration::from_secs_f64(crate::as_f64(number) / rate)).await;
                }
                waits.push(session.message(&load, number, &body).await?);
            }
        });
    }
    let mut waits = Vec::with_capacity(load.messages);
    while let Some(done) = tasks.join_next().await {
        waits.extend(done??);
    }
    let wall = started.elapsed();
    waits.sort_unstable();
    Ok(Outcome { wall, waits })
}

/// A session that has said EHLO.
pub struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Session {
    pub async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut session = Self { stream, buffer: Vec::new() };
        session.reply("220").await?;
        session.command("EHLO bench.example\r\n", "250").await?;
        Ok(session)
    }

    /// Sends one message; returns how long the 250 took.
    async fn message(&mut self, load: &Load, number: usize, body: &str) -> Result<Duration> {
        self.command("MAIL FROM:<ann@crm.example>\r\n", "250").await?;
        self.command(&format!("RCPT TO:<{}>\r\n", load.recipient), "250").await?;
        self.command("DATA\r\n", "354").await?;
        let message = message(load.bytes, number, body);
        self.stream.write_all(message.as_bytes()).await?;
        let dot = Instant::now();
        self.reply("250").await?;
        Ok(dot.elapsed())
    }

    async fn quit(&mut self) -> Result<()> {
        self.command("QUIT\r\n", "221").await
    }

    async fn command(&mut self, line: &str, code: &str) -> Result<()> {
        self.stream.write_all(line.as_bytes()).await?;
        self.reply(code).await
    }

    /// Reads one whole reply.
    async fn reply(&mut self, code: &str) -> Result<()> {
        self.buffer.clear();
        loop {
            let octets = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(octets > 0, "the server hung up before {code}");
            let text = std::str::from_utf8(&self.buffer).context("a reply that is no text")?;
            let last = text.strip_suffix("\r\n").and_then(|text| text.rsplit("\r\n").next());
            if let Some(last) = last.filter(|last| last.as_bytes().get(3) == Some(&b' ')) {
                ensure!(last.starts_with(code), "{code} was expected, and the server said {text:?}");
                return Ok(());
            }
        }
    }
}

/// A message that no other equals, to one of many people, with its final dot.
fn message(bytes: usize, number: usize, body: &str) -> String {
    let (id, correspondent) = (uuid::Uuid::now_v7(), number % CORRESPONDENTS);
    let mut text = format!(
        "Message-ID: <{id}@bench.example>\r\nDate: Sun, 1 Nov 2026 10:00:00 +0000\r\n\
         From: Ann Lee <ann@crm.example>\r\nTo: Customer <customer{correspondent}@prospect.example>\r\n\
         Subject: Offer {number}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Offer {number} of {id}\r\n"
    );
    let room = bytes.saturating_sub(text.len());
    // A line end cut in half would be a bare CR, which no server takes.
    text.push_str(body.get(..room).unwrap_or(body).trim_end_matches(['\r', '\n']));
    text.push_str("\r\n.\r\n");
    text
}

/// Text that compresses about as mail does.
fn body(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 100);
    while text.len() < bytes {
        let word: u64 = rand::random();
        text.push_str(&format!("the quick brown fox {word:x} jumps over the lazy dog\r\n"));
    }
    text
}
