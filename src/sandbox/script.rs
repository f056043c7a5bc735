//! A peer that plays given bytes and listens only for their cues: for vectors no server of ours would send.
//!
//! Not here: any protocol.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::running::Listening;

const CONNECTIONS_MAX: usize = 2_000;
/// Octets kept of what clients of all connections said.
const HEARD_BYTES_MAX: usize = 1024 * 1024;
/// Octets kept of a line whose end does not come; then it is forgotten.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// Octets of `Forever` written at a time.
const FLOOD_BYTES: usize = 64 * 1024;

/// One thing the peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cue {
    /// Sends these octets. `{tag}` stands for the first word of the client's last line.
    Say(Vec<u8>),
    /// The same one octet at a time, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Waits until the client has sent a line that contains this, without regard to letter case.
    Hear(String),
    /// Waits until so many octets have come that no `Hear` consumed.
    HearOctets(usize),
    Pause(Duration),
    /// Sends these octets over and over until the client closes.
    Forever(Vec<u8>),
    /// Reads and says nothing until the client closes.
    Silence,
    /// Closes; so does the end of the script.
    Close,
}

impl Cue {
    #[must_use]
    pub fn say(text: &str) -> Self {
        Self::Say(text.as_bytes().to_vec())
    }

    #[must_use]
    pub fn hear(text: &str) -> Self {
        Self::Hear(text.to_ascii_lowercase())
    }
}

/// A listening peer that plays the same script to everyone. Dropping it closes all connections.
pub struct ScriptedPeer {
    pub address: SocketAddr,
    heard: watch::Sender<Vec<u8>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ScriptedPeer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(script: Vec<Cue>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (stop, tasks, heard) =
            (CancellationToken::new(), TaskTracker::new(), watch::Sender::new(Vec::new()));
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let listening = Listening { listener, room, stop: stop.clone(), tasks: tasks.clone() };
        let (script, told, ending) = (Arc::new(script), heard.clone(), stop.clone());
        tasks.spawn(listening.accept(move |stream, _| {
            let (script, heard, stop) = (script.clone(), told.clone(), ending.clone());
            async move {
                let mut part = Part { stream, unread: Vec::new(), tag: String::new(), heard };
                tokio::select! {
                    played = part.play(&script) => tracing::debug!(ok = played.is_ok(), "a script ended"),
                    () = stop.cancelled() => {}
                }
            }
        }));
        Ok(Self { address, heard, stop, tasks })
    }

    /// All that clients have said, connections mixed; up to 1 MiB.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<Vec<u8>> {
        self.heard.subscribe()
    }

    /// Closes everything and waits.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for ScriptedPeer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection's performance.
struct Part {
    stream: TcpStream,
    unread: Vec<u8>,
    tag: String,
    heard: watch::Sender<Vec<u8>>,
}

impl Part {
    async fn play(&mut self, script: &[Cue]) -> io::Result<()> {
        for cue in script {
            match cue {
                Cue::Say(octets) => self.say(octets).await?,
                Cue::Drip(octets, pause) => {
                    for octet in octets {
                        self.stream.write_all(&[*octet]).await?;
                        sleep(*pause).await;
                    }
                }
                Cue::Hear(text) => while !self.take_line(text) && self.listen().await? {},
                Cue::HearOctets(count) => {
                    while self.unread.len() < *count && self.listen().await? {}
                    self.unread.clear();
                }
                Cue::Pause(pause) => sleep(*pause).await,
                Cue::Forever(octets) => {
                    let times = FLOOD_BYTES.checked_div(octets.len()).unwrap_or(0).max(1);
                    let flood = octets.repeat(times);
                    loop {
                        self.stream.write_all(&flood).await?;
                    }
                }
                Cue::Silence => {
                    while self.listen().await? {
                        self.unread.clear();
                    }
                }
                Cue::Close => break,
            }
        }
        self.stream.shutdown().await
    }

    async fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        let tagged = std::str::from_utf8(octets).ok().filter(|text| text.contains("{tag}"));
        match tagged {
            Some(text) => self.stream.write_all(text.replace("{tag}", &self.tag).as_bytes()).await,
            None => self.stream.write_all(octets).await,
        }
    }

    /// Takes lines up to one that contains the text; false when there is none yet.
    fn take_line(&mut self, text: &str) -> bool {
        while let Some(end) = memchr::memchr(b'\n', &self.unread) {
            let rest = self.unread.split_off(end + 1);
            let line = std::mem::replace(&mut self.unread, rest);
            let line = String::from_utf8_lossy(&line);
            if line.to_ascii_lowercase().contains(text) {
                self.tag = line.split(' ').next().unwrap_or_default().trim_end().to_owned();
                return true;
            }
        }
        false
    }

    /// Reads some more; false when the client has closed.
    async fn listen(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 4096];
        let count = self.stream.read(&mut buffer).await?;
        let octets = buffer.get(..count).unwrap_or_default();
        if self.unread.len() > UNREAD_BYTES_MAX {
            self.unread.clear();
        }
        self.unread.extend_from_slice(octets);
        self.heard.send_modify(|heard| {
            let room = HEARD_BYTES_MAX.saturating_sub(heard.len());
            heard.extend(octets.iter().take(room));
        });
        Ok(count > 0)
    }
}
