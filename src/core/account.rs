//! A user's own account at a mail provider: where it is, how to log in, and how it is doing.
//!
//! Not here: talking to the provider (`account`, `imap`, `smtp`) and the words a preset has for each state.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::ids::{AccountId, UserId};
use crate::mail::Address;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// Upgrade before anything of value is said; a server that does not offer it is refused.
    Starttls,
    /// Clear text, only to addresses that the operator lists in `[egress].allow`.
    None,
}

/// One server of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

/// Where an account's mail is read and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettings {
    pub imap: Endpoint,
    pub smtp: Endpoint,
}

/// What logs in. Sealed at rest under the account's own key; prints nothing.
#[derive(Debug, Clone)]
pub enum Credentials {
    Password { username: String, password: SecretString },
}

/// The state of an account, as the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    Connecting,
    AwaitingFirstMail,
    Active,
    Backfilling,
    Throttled,
    Error,
    ReauthRequired,
    Stopped,
    WaitingForQuota,
    Paused,
    Disconnected,
    Erasing,
    Erased,
}

impl AccountState {
    /// Whether a worker should hold a session for an account in this state.
    #[must_use]
    pub fn is_worked(self) -> bool {
        use AccountState::{Active, AwaitingFirstMail, Backfilling, Connecting, Error, Throttled};
        matches!(self, Connecting | AwaitingFirstMail | Active | Backfilling | Throttled | Error)
    }
}

/// How far a backfill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// What an admin is shown of an account's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    pub state: AccountState,
    pub since: Timestamp,
    pub detail: Option<String>,
    /// What the reader can do about it.
    pub advice: Option<String>,
    /// The last time matching mail was filed.
    pub last_synced_at: Option<Timestamp>,
    /// The last time the provider was asked.
    pub last_checked_at: Option<Timestamp>,
    pub next_attempt_at: Option<Timestamp>,
    pub progress: Option<Progress>,
}

/// An account without its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub user_id: UserId,
    pub email: Address,
    pub settings: AccountSettings,
    pub status: AccountStatus,
    /// Mail that arrived at the provider before this was there before us: it is filed but not announced.
    pub connected_at: Timestamp,
}

/// One line of an account's error log; the same code again raises `count`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountError {
    pub at: Timestamp,
    pub code: String,
    pub message: String,
    pub advice: String,
    pub count: i64,
}

/// What a mailbox is for, which decides how its mail is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailboxRole {
    Inbox,
    Sent,
    /// Gmail's All Mail: everything but spam and trash, once.
    All,
}

/// How far a mailbox has been read (RFC 9051 section 2.3.1.1: a UID means nothing without its UIDVALIDITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub uid_validity: u32,
    /// Every UID up to this one has been consumed.
    pub last_uid: u32,
    /// HIGHESTMODSEQ when last read, or 0.
    pub modseq: u64,
}

/// A mailbox being followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedMailbox {
    /// The name's bytes as the server wrote them: never a path, never shown undecoded.
    pub name: Vec<u8>,
    pub role: MailboxRole,
    pub cursor: Cursor,
    pub backfill: Backfill,
    pub checked_at: Timestamp,
}

/// Old mail still to be read, newest first: UIDs below `next_uid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backfill {
    /// 0 when nothing is left.
    pub next_uid: u32,
    pub done: u64,
    pub total: u64,
}

/// One message's place at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxUid {
    pub account: AccountId,
    pub mailbox: Vec<u8>,
    pub uid_validity: u32,
    pub uid: u32,
}
