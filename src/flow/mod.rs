//! The use cases, one a file, each a section of docs/flows.md: read facts, ask `core`, record the answer in one transaction.
//!
//! A flow reaches the network first and writes afterwards; it never holds a transaction across a server's answer.

pub mod api_key;
mod brake;
mod capture;
pub mod capture_address;
mod copies;
pub mod erase;
mod forward;
pub mod hold;
mod ingest;
pub mod limits;
pub mod login;
pub mod notify;
mod places;
mod policy;
mod process;
mod question;
mod reading;
mod relay;
pub mod repair;
mod reply_address;
pub mod sender;
pub mod submit;
pub mod sync;
mod trust;

pub use brake::LoopBrake;
pub use capture::MxHandler;
pub use hold::hold_poison;
#[cfg(test)]
pub(crate) use ingest::wording;
pub(crate) use ingest::{identity, keys_of_summary, known_people};
pub use policy::{is_admin, policy_of, viewer};
pub use process::{process, repeat};
pub use reply_address::Keyring;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{
    account::ProviderDialer,
    coord::Coord,
    core::attribution::OurDomains,
    queue::Queue,
    store::{self, Store},
    webhook::Poster,
};

/// What every flow works with. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub store: Store,
    pub queue: Queue,
    pub coord: Coord,
    pub dialer: ProviderDialer,
    pub sign_in: login::SignIn,
    pub webhooks: Poster,
    /// The accounts that this process follows.
    pub followers: sync::Followers,
    pub brake: LoopBrake,
    /// Finds out who sent what comes to the MX listener.
    pub senders: sender::SenderChecker,
    pub reply_keys: Keyring,
    pub settings: Arc<Settings>,
}

/// The operator's settings that flows need, as plain values.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this node is called where several are at work.
    pub node: String,
    /// The name we give in EHLO, Received and Message-IDs.
    pub hostname: String,
    pub ours: OurDomains,
    /// Whose mail is taken as the word of a mail server of our own.
    pub trusted_peers: Vec<IpNet>,
    /// Domains whose seals on mail that they passed on are believed.
    pub trusted_sealers: Vec<String>,
    /// Marks what we relay, so that we know it when it comes back.
    pub loop_key: [u8; 32],
    /// How long a job stays with a worker that has fallen silent.
    pub job_lease: Duration,
    /// How long a submission is tried before it bounces.
    pub submission_lifetime: Duration,
    /// After a send that was cut off: how long after it Sent is searched, once for each.
    pub reconcile_waits: Vec<Duration>,
    /// How long to look for the provider's own copy in Sent before appending one.
    pub sent_copy_wait: Duration,
    /// How often mailboxes are looked at that no IDLE watches, Sent among them.
    pub sync_poll: Duration,
    /// IDLE is ended and begun anew after this long: NATs forget sooner than the 29 minutes of RFC 9051.
    pub idle_renew: Duration,
    /// The largest message fetched from an account, in octets.
    pub message_bytes_max: u64,
    /// Accounts that this process follows at most.
    pub accounts_max: u32,
}

impl Settings {
    /// Whether a client is a mail server of the operator's own.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_peers.iter().any(|network| network.contains(&peer))
    }
}

/// Why a flow stopped. What to do next is all that differs.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error("the store could not take it")]
    Store(#[from] store::Error),
    /// The job's object is gone or in another state: nothing is left to do.
    #[error("nothing is left to do")]
    Obsolete,
    /// Another node filed the same message at the same moment: undo, and begin again.
    #[error("another node was faster")]
    Raced,
}

impl FlowError {
    /// For callers that have nothing to do but record: an obsolete job is no failure.
    pub(crate) fn into_store(self) -> Result<(), store::Error> {
        match self {
            Self::Store(error) => Err(error),
            Self::Obsolete | Self::Raced => Ok(()),
        }
    }
}

/// A number in 0..1 that spreads what would else happen all at once.
#[must_use]
pub fn jitter() -> f64 {
    rand::random()
}

/// A wait as it is added to a time. One that no time could hold is the longest.
#[must_use]
pub(crate) fn signed(wait: Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

/// Random bytes for a secret.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

/// The time, read once for each unit of work. To the microsecond, as it is stored: what is answered now and what is read
/// back later are the same.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
