//! An IMAP server with a small mailbox, honest but for what a test has it say instead.
//!
//! Not here: a server to be trusted (`dovecot`, the sandbox). It understands what the gateway says, and no more.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::{Timestamp, Zoned, tz::TimeZone};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What a client asks; a connection that begins asks `GREETING`.
pub struct Asked<'a> {
    pub tag: &'a str,
    /// Without its tag.
    pub line: &'a str,
}

/// What the server does with a command. `{tag}` stands for the command's tag.
pub enum Say {
    Honestly,
    /// First this, then the honest answer.
    Before(Vec<u8>),
    /// This and nothing else. IDLE has begun where a line begins with "+".
    Instead(Vec<u8>),
    /// The honest answer, changed.
    Changed(Box<dyn Fn(String) -> String + Send>),
    /// The honest answer, and from then on no word of what arrives.
    Muted,
    /// Nothing ever again, on a connection that stays open.
    Nothing,
    /// First this, then the second again and again with this pause between, until the client hangs up.
    Endless(Vec<u8>, Vec<u8>, Duration),
    HangUp,
}

type Play = dyn Fn(&Asked<'_>) -> Say + Send + Sync;

/// A running server. It ends with the runtime it was started on.
#[derive(Clone)]
pub struct ImapPeer {
    pub address: SocketAddr,
    desk: Arc<Desk>,
}

struct Desk {
    mails: Mutex<Vec<(Timestamp, String)>>,
    said: Mutex<Vec<String>>,
    visits: AtomicUsize,
    play: Mutex<Arc<Play>>,
    arrived: watch::Sender<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImapPeer {
    pub async fn start(play: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let desk = Arc::new(Desk {
            mails: Mutex::default(),
            said: Mutex::default(),
            visits: AtomicUsize::new(0),
            play: Mutex::new(Arc::new(play)),
            arrived: watch::Sender::new(0),
        });
        let peer = Self { address: listener.local_addr().unwrap(), desk: desk.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                desk.visits.fetch_add(1, Ordering::Relaxed);
                let visit = Visit::new(stream, desk.clone());
                // Who hangs up is nobody's concern.
                tokio::spawn(async move { drop(visit.serve().await) });
            }
        });
        peer
    }

    /// Has it do otherwise from now on.
    pub fn play(&self, play: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static) {
        *lock(&self.desk.play) = Arc::new(play);
    }

    /// Puts a message into INBOX.
    pub fn deliver(&self, raw: &str) {
        let mut mails = lock(&self.desk.mails);
        mails.push((Timestamp::now(), raw.to_owned()));
        let count = mails.len();
        drop(mails);
        self.desk.arrived.send_replace(count);
    }

    /// What clients have said, without tags.
    pub fn said(&self) -> Vec<String> {
        lock(&self.desk.said).clone()
    }

    /// How many connections there were.
    pub fn visits(&self) -> usize {
        self.desk.visits.load(Ordering::Relaxed)
    }

    /// How many commands began so.
    pub fn heard(&self, beginning: &str) -> usize {
        lock(&self.desk.said).iter().filter(|line| line.starts_with(beginning)).count()
    }
}

/// One connection.
struct Visit {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    desk: Arc<Desk>,
    /// The tag of the IDLE that is under way.
    idle: Option<String>,
    muted: bool,
}

impl Visit {
    fn new(stream: TcpStream, desk: Arc<Desk>) -> Self {
        let (read, out) = stream.into_split();
        Self { lines: BufReader::new(read).lines(), out, desk, idle: None, muted: false }
    }

    async fn serve(mut self) -> std::io::Result<()> {
        let mut arrived = self.desk.arrived.subscribe();
        if !self.act("*", "GREETING").await? {
            return Ok(());
        }
        loop {
            tokio::select! {
                line = self.lines.next_line() => {
                    let Some(line) = line? else { return Ok(()) };
                    if !self.hear(line).await? {
                        return Ok(());
                    }
                }
                _ = arrived.changed(), if self.idle.is_some() && !self.muted => {
                    let count = *arrived.borrow_and_update();
                    self.out.write_all(format!("* {count} EXISTS\r\n").as_bytes()).await?;
                }
            }
        }
    }

    /// False when the connection is to end.
    async fn hear(&mut self, mut line: String) -> std::io::Result<bool> {
        if line == "DONE" {
            let Some(tag) = self.idle.take() else { return Ok(true) };
            return self.act(&tag, "DONE").await;
        }
        while line.ends_with('}') {
            self.out.write_all(b"+ go on\r\n").await?;
            let Some(rest) = self.lines.next_line().await? else { return Ok(false) };
            line.push_str(&rest);
        }
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        lock(&self.desk.said).push(rest.to_owned());
        if rest == "AUTHENTICATE PLAIN" {
            self.out.write_all(b"+ \r\n").await?;
            self.lines.next_line().await?;
        }
        let (tag, rest) = (tag.to_owned(), rest.to_owned());
        self.act(&tag, &rest).await
    }

    async fn act(&mut self, tag: &str, line: &str) -> std::io::Result<bool> {
        let play = lock(&self.desk.play).clone();
        let say = play(&Asked { tag, line });
        let tagged = |bytes: Vec<u8>| match String::from_utf8(bytes) {
            Ok(text) => text.replace("{tag}", tag).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        let honest = self.honest(tag, line);
        let answer = match say {
            Say::Honestly => honest,
            Say::Muted => {
                self.muted = true;
                honest
            }
            Say::Before(bytes) => [tagged(bytes), honest].concat(),
            Say::Instead(bytes) => tagged(bytes),
            Say::Changed(change) => change(String::from_utf8(honest).unwrap()).into_bytes(),
            Say::Nothing => {
                // Until the client hangs up, however much it says meanwhile.
                while self.lines.next_line().await?.is_some() {}
                return Ok(false);
            }
            Say::Endless(first, again, every) => {
                self.out.write_all(&tagged(first)).await?;
                loop {
                    self.out.write_all(&again).await?;
                    tokio::time::sleep(every).await;
                }
            }
            Say::HangUp => return Ok(false),
        };
        if line == "IDLE" && (answer.starts_with(b"+") || answer.windows(2).any(|pair| pair == b"\n+")) {
            self.idle = Some(tag.to_owned());
        }
        self.out.write_all(&answer).await?;
        Ok(line != "LOGOUT")
    }

    fn honest(&self, tag: &str, line: &str) -> Vec<u8> {
        let mails = lock(&self.desk.mails);
        let (count, next) = (mails.len(), mails.len() + 1);
        let verb = line.split(' ').next().unwrap_or_default();
        let untagged = match verb {
            "GREETING" => return b"* OK ready\r\n".to_vec(),
            "IDLE" => return b"+ idling\r\n".to_vec(),
            "LOGOUT" => "* BYE good-bye\r\n".to_owned(),
            "CAPABILITY" => "* CAPABILITY IMAP4rev1 IDLE\r\n".to_owned(),
            "LIST" => "* LIST () \"/\" INBOX\r\n* LIST (\\Sent) \"/\" Sent\r\n".to_owned(),
            "STATUS" if line.contains("INBOX") => {
                format!("* STATUS INBOX (MESSAGES {count} UIDNEXT {next} UIDVALIDITY 7)\r\n")
            }
            "STATUS" => {
                let name = line.split(' ').nth(1).unwrap_or_default();
                format!("* STATUS {name} (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 7)\r\n")
            }
            "EXAMINE" | "SELECT" => {
                let (count, next) = if line.contains("INBOX") { (count, next) } else { (0, 1) };
                format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT {next}] ok\r\n")
            }
            _ if line.starts_with("UID SEARCH") => {
                let found: String = uids(line, "UID ", count).iter().map(|uid| format!(" {uid}")).collect();
                format!("* SEARCH{found}\r\n")
            }
            _ if line.starts_with("UID FETCH ") => {
                let wanted = uids(line.trim_start_matches("UID FETCH "), "", count);
                return [fetched(&mails, &wanted, line), format!("{tag} OK done\r\n").into_bytes()].concat();
            }
            _ => String::new(),
        };
        format!("{untagged}{tag} OK done\r\n").into_bytes()
    }
}

/// The UIDs that a set names, of those that are there; all where there is none.
fn uids(line: &str, after: &str, count: usize) -> Vec<usize> {
    let line = line.trim_start_matches("UID SEARCH ");
    let set = line
        .strip_prefix(after)
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit() || first == '*'));
    let Some(set) = set.and_then(|set| set.split(' ').next()) else { return (1..=count).collect() };
    let number = |text: &str| text.parse().unwrap_or(count);
    let is_in = |uid: &usize| {
        set.split(',').any(|piece| match piece.split_once(':') {
            Some((first, last)) => {
                let (first, last) = (number(first), number(last));
                (first.min(last)..=first.max(last)).contains(uid)
            }
            None => number(piece) == *uid,
        })
    };
    (1..=count).filter(is_in).collect()
}

fn fetched(mails: &[(Timestamp, String)], wanted: &[usize], line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for uid in wanted {
        let (at, raw) = &mails[uid - 1];
        let date = Zoned::new(*at, TimeZone::UTC).strftime("%d-%b-%Y %H:%M:%S +0000").to_string();
        let header = raw.split_once("\r\n\r\n").map_or(raw.as_str(), |(header, _)| header);
        let (items, content) = if line.contains("BODY.PEEK[]") {
            ("BODY[]".to_owned(), raw.as_str())
        } else if line.contains("BODY.PEEK[HEADER]") {
            let size = raw.len();
            (
                format!("FLAGS () INTERNALDATE \"{date}\" RFC822.SIZE {size} BODY[HEADER]"),
                raw.get(..header.len() + 4).unwrap_or(raw),
            )
        } else {
            out.extend_from_slice(format!("* {uid} FETCH (UID {uid})\r\n").as_bytes());
            continue;
        };
        let literal = content.len();
        out.extend_from_slice(
            format!("* {uid} FETCH (UID {uid} {items} {{{literal}}}\r\n{content})\r\n").as_bytes(),
        );
    }
    out
}
