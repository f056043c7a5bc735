//! Clients that behave as real ones do: what was not acknowledged is offered again, the same, until it is.
//!
//! Not here: checking what became of it (`proof`).

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use rustls::ClientConfig;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    gateway::Addresses,
    peer::{Peer, Reply},
    support::eventually,
    world::{User, World, contact},
};

/// Clients at each door.
const CAPTURE_CLIENTS: u64 = 4;
const SUBMISSION_CLIENTS: u64 = 2;
const API_CLIENTS: u64 = 1;
/// Messages that answer one another, and so belong together.
const GROUP: u64 = 4;
/// Between two messages of a client: what all of them send together, a small machine can file and pass on meanwhile.
const CAPTURE_PAUSE: Duration = Duration::from_millis(30);
const SENDING_PAUSE: Duration = Duration::from_millis(70);
/// After a connection was lost.
const RETRY: Duration = Duration::from_millis(5);
/// How long one message is offered before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    Capture,
    Submission,
    Api,
}

/// A message as it is offered, again and again.
#[derive(Debug, Clone)]
pub struct Offer {
    pub door: Door,
    pub user: User,
    pub to: Vec<String>,
    pub subject: String,
    /// The gateway's choice at the API.
    pub message_id: Option<String>,
    /// Offers with the same name are one conversation.
    pub group: String,
    /// What the gateway is to store, but for the trace field that it puts in front; at the API its choice too.
    pub raw: Vec<u8>,
    /// The CRM's own name for the request.
    idempotency_key: Option<String>,
}

/// What the gateway has promised to keep.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub offer: Offer,
    /// What it is known by: `msg_…`.
    pub key: String,
    /// How much of the disk's writes was recorded when it was acknowledged, where they are.
    pub recorded: Option<u64>,
}

/// Everything acknowledged, and what it took.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: Mutex<Vec<Accepted>>,
    /// The file in which what the disk is told is recorded, while it is.
    record: Mutex<Option<PathBuf>>,
    /// Attempts whose answer never came.
    pub lost: AtomicU64,
    /// Attempts that were put off with 4yz or 5xx.
    pub put_off: AtomicU64,
    /// Messages offered again though they had been acknowledged.
    pub repeated: AtomicU64,
}

impl Ledger {
    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap().clone()
    }

    /// Notes a promise.
    pub fn note(&self, offer: &Offer, key: &str) {
        let record = self.record.lock().unwrap();
        let recorded = record.as_ref().map(|file| fs::metadata(file).unwrap().len());
        let accepted = Accepted { offer: offer.clone(), key: key.to_owned(), recorded };
        self.accepted.lock().unwrap().push(accepted);
    }

    /// From now on each promise is noted with the length of this file, or no more.
    pub fn record_by(&self, file: Option<PathBuf>) {
        *self.record.lock().unwrap() = file;
    }

    /// Waits until so many are acknowledged.
    pub async fn grown_to(&self, count: usize) {
        eventually("more to be acknowledged", PATIENCE, || async { self.len() >= count }).await;
    }

    pub fn len(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

/// Clients at work.
pub struct Load {
    pub ledger: Arc<Ledger>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    pub fn begin(world: &World) -> Self {
        let mut load =
            Self { ledger: Arc::default(), stop: CancellationToken::new(), clients: JoinSet::new() };
        let doors = [
            (Door::Capture, CAPTURE_CLIENTS),
            (Door::Submission, SUBMISSION_CLIENTS),
            (Door::Api, API_CLIENTS),
        ];
        for (door, clients) in doors {
            for number in 0..clients {
                let client = Client::new(world, door, number, &load.ledger);
                load.clients.spawn(client.run(load.stop.clone()));
            }
        }
        load
    }

    /// Lets every client bring its last message home, and returns what was acknowledged.
    pub async fn finish(mut self) -> Arc<Ledger> {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            if let Err(failed) = client {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        self.ledger
    }
}

struct Client {
    door: Door,
    number: u64,
    at: Addresses,
    api: Api,
    tls: Arc<ClientConfig>,
    users: Vec<User>,
    key: String,
    ledger: Arc<Ledger>,
    peer: Option<Peer>,
}

impl Client {
    fn new(world: &World, door: Door, number: u64, ledger: &Arc<Ledger>) -> Self {
        Self {
            door,
            number,
            at: world.gateway.at,
            api: world.api.clone(),
            tls: Arc::clone(&world.tls),
            users: world.users.clone(),
            key: world.key.clone(),
            ledger: Arc::clone(ledger),
            peer: None,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        for serial in 0.. {
            let offer = offer(&self.users, (self.door, self.number), serial);
            let key = self.bring_home(&offer).await;
            self.ledger.note(&offer, &key);
            // Some senders never read the answer and send the same again.
            if serial % 10 == 3 {
                assert_eq!(self.bring_home(&offer).await, key, "the same transaction has the same key");
                self.ledger.repeated.fetch_add(1, Ordering::Relaxed);
            }
            if stop.is_cancelled() {
                return;
            }
            let pause = if self.door == Door::Capture { CAPTURE_PAUSE } else { SENDING_PAUSE };
            tokio::time::sleep(pause).await;
        }
    }

    /// Offers a message until it is acknowledged.
    async fn bring_home(&mut self, offer: &Offer) -> String {
        let since = Instant::now();
        loop {
            match self.attempt(offer).await {
                Ok(Some(key)) => return key,
                Ok(None) => self.ledger.put_off.fetch_add(1, Ordering::Relaxed),
                Err(_) => {
                    self.peer = None;
                    self.ledger.lost.fetch_add(1, Ordering::Relaxed)
                }
            };
            assert!(since.elapsed() < PATIENCE, "nobody takes {offer:?}");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One attempt: a key, or to be tried again.
    async fn attempt(&mut self, offer: &Offer) -> io::Result<Option<String>> {
        match offer.door {
            Door::Capture => {
                let to = [offer.user.capture_address.clone()];
                self.transaction(offer, &to, &offer.raw).await
            }
            Door::Submission => {
                let control = offer.idempotency_key.as_ref();
                let control = control.map(|key| format!("X-Mailweave-Idempotency-Key: {key}\r\n"));
                let raw = [control.unwrap_or_default().as_bytes(), &offer.raw].concat();
                self.transaction(offer, &offer.to, &raw).await
            }
            Door::Api => self.request(offer).await,
        }
    }

    async fn transaction(&mut self, offer: &Offer, to: &[String], raw: &[u8]) -> io::Result<Option<String>> {
        if self.peer.is_none() {
            self.peer = Some(match offer.door {
                Door::Capture => Peer::connect(self.at.mx).await?,
                _ => Peer::log_in(self.at.submission, &self.tls, ("acme", &self.key)).await?,
            });
        }
        let peer = self.peer.as_mut().expect("just connected");
        let reply = peer.transaction(&offer.user.email, to, raw).await?;
        Ok(self.judge(&reply))
    }

    fn judge(&mut self, reply: &Reply) -> Option<String> {
        assert!(reply.code < 500, "{reply:?}");
        if reply.code == 250 {
            return Some(reply.key());
        }
        self.peer = None;
        None
    }

    async fn request(&mut self, offer: &Offer) -> io::Result<Option<String>> {
        let to: Vec<_> = offer.to.iter().map(|email| json!({ "email": email })).collect();
        let body = json!({
            "from_user_id": offer.user.id, "to": to, "subject": offer.subject, "text": "Sent by the CRM.\n",
        });
        let key = offer.idempotency_key.as_deref();
        let answered = self.api.try_post("/workspaces/acme/messages", &body, key).await;
        let (status, answer) = answered.map_err(io::Error::other)?;
        assert!(status == StatusCode::ACCEPTED || status.is_server_error(), "{status}: {answer}");
        Ok(answer["id"].as_str().filter(|_| status == StatusCode::ACCEPTED).map(str::to_owned))
    }
}

/// The message with this number of this client.
pub fn offer(users: &[User], (door, number): (Door, u64), serial: u64) -> Offer {
    let name = |serial: u64| format!("{door:?}-{number}-{serial}").to_lowercase();
    let first = serial - serial % GROUP;
    let group = usize::try_from(first / GROUP).unwrap();
    let user = users[group % users.len()].clone();
    let seed = group + usize::try_from(number).unwrap() * 3;
    // Some have two recipients; all of a group have the same.
    let to: Vec<_> = (0..1 + seed % 2).map(|more| contact(seed + more)).collect();
    let by_name = door == Door::Api || (door == Door::Submission && serial.is_multiple_of(2));
    let mut offer = Offer {
        door,
        user,
        to,
        subject: format!("Offer {}", name(serial)),
        message_id: (door != Door::Api).then(|| format!("{}@acme.example", name(serial))),
        group: if door == Door::Api { name(serial) } else { name(first) },
        raw: Vec::new(),
        idempotency_key: by_name.then(|| name(serial)),
    };
    let answers = (serial != first).then(|| format!("{}@acme.example", name(first)));
    offer.raw = raw(&offer, answers.as_deref(), serial);
    offer
}

fn raw(offer: &Offer, answers: Option<&str>, serial: u64) -> Vec<u8> {
    let date = jiff::fmt::rfc2822::to_string(&jiff::Zoned::now()).unwrap();
    let id = offer.message_id.as_deref().unwrap_or_default();
    let thread =
        answers.map(|id| format!("In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n")).unwrap_or_default();
    // Now and then one that is too large for a row.
    let lines = if serial % 16 == 5 { 1500 } else { 4 + usize::try_from(serial % 40).unwrap() };
    let text = ".This line begins with a dot, which has to be doubled on the way.\r\n".repeat(lines);
    format!(
        "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{id}>\r\n{thread}MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n{text}",
        offer.user.email,
        offer.to.join(", "),
        offer.subject,
        offer.subject,
    )
    .into_bytes()
}
