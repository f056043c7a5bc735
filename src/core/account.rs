//! A user's own account at a mail provider: where it is, how to log in, and how it is doing.
//!
//! Not here: talking to the provider (`account`, `imap`, `smtp`).

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod servers;

pub use servers::{AccountSettings, Endpoint, FoundBy, FoundServers, Identities, Security, SharedMailbox};

use super::{
    ids::{AccountId, UserId},
    provider::Provider,
};
use crate::mail::Address;

/// What is kept to log in with. Sealed at rest under the account's own key; prints no secret.
#[derive(Debug, Clone)]
pub enum Credentials {
    Password {
        username: String,
        password: SecretString,
    },
    /// Access tokens of a provider where the user has signed in, or his admin for all: they are kept apart, for they change.
    OAuth2 {
        /// As the operator's configuration calls it.
        provider: String,
        username: String,
    },
}

impl Credentials {
    /// Who logs in.
    #[must_use]
    pub fn username(&self) -> &str {
        match self {
            Self::Password { username, .. } | Self::OAuth2 { username, .. } => username,
        }
    }
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
    /// Those in which a worker should hold a session for an account.
    pub const WORKED: [Self; 6] = [
        Self::Connecting,
        Self::AwaitingFirstMail,
        Self::Active,
        Self::Backfilling,
        Self::Throttled,
        Self::Error,
    ];

    /// Whether it is one of [`Self::WORKED`].
    #[must_use]
    pub fn is_worked(self) -> bool {
        Self::WORKED.contains(&self)
    }

    /// Every state, in the order of the contract.
    pub const ALL: [Self; 13] = [
        Self::Connecting,
        Self::AwaitingFirstMail,
        Self::Active,
        Self::Backfilling,
        Self::Throttled,
        Self::Error,
        Self::ReauthRequired,
        Self::Stopped,
        Self::WaitingForQuota,
        Self::Paused,
        Self::Disconnected,
        Self::Erasing,
        Self::Erased,
    ];

    /// Whether nobody may log in to it any more, for its user has taken it away.
    #[must_use]
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Disconnected | Self::Erasing | Self::Erased)
    }

    /// Whether what it brought is erased or about to be: nothing revives it.
    #[must_use]
    pub fn is_erased(self) -> bool {
        matches!(self, Self::Erasing | Self::Erased)
    }

    /// The word that the contract has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::AwaitingFirstMail => "awaiting_first_mail",
            Self::Active => "active",
            Self::Backfilling => "backfilling",
            Self::Throttled => "throttled",
            Self::Error => "error",
            Self::ReauthRequired => "reauth_required",
            Self::Stopped => "stopped",
            Self::WaitingForQuota => "waiting_for_quota",
            Self::Paused => "paused",
            Self::Disconnected => "disconnected",
            Self::Erasing => "erasing",
            Self::Erased => "erased",
        }
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

impl AccountStatus {
    /// The same of an account that has read as much as its provider allows to be read of old mail.
    #[must_use]
    pub fn with_rest_of_history(self, until: Timestamp) -> Self {
        let detail = "Old mail is read on later, for the provider lets only so much be read in a day. New mail is read all the same.";
        Self {
            detail: self.detail.or(Some(detail.to_owned())),
            advice: self.advice.or(Some(WAIT_ADVICE.to_owned())),
            next_attempt_at: self.next_attempt_at.or(Some(until)),
            ..self
        }
    }
}

/// A system's own word and colour for an account's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    pub label: String,
    pub color: String,
}

/// A status in the words of the policy that applies to the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledStatus {
    pub status: AccountStatus,
    pub label: Label,
}

impl LabelledStatus {
    /// As the contract shows it, in the API and in events alike.
    #[must_use]
    pub fn data(&self) -> Value {
        let Self { status, label } = self;
        let mut data = json!({
            "state": status.state,
            "label": label.label,
            "color": label.color,
            "since": status.since,
            "detail": status.detail,
            "advice": status.advice,
            "last_synced_at": status.last_synced_at,
            "last_checked_at": status.last_checked_at,
            "next_attempt_at": status.next_attempt_at,
        });
        if let (Some(members), Some(progress)) = (data.as_object_mut(), status.progress) {
            members.insert("progress".into(), json!(progress));
        }
        data
    }
}

/// What there is to be done while a provider wants peace.
pub const WAIT_ADVICE: &str = "Nothing needs doing: we go on when the provider lets us.";

/// An account without its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub user_id: UserId,
    pub email: Address,
    pub settings: AccountSettings,
    pub status: AccountStatus,
    /// What its provider said when it refused the login for sending: until somebody acts it is read and nothing leaves by it.
    pub sending_refused: Option<String>,
    /// The peace that its provider has last asked for.
    pub rest: Option<Rest>,
    /// Mail that arrived at the provider before this was there before us: it is filed but not announced.
    pub connected_at: Timestamp,
    /// How often it was given what may be another mailbox: UIDs of the former mean nothing in it.
    pub generation: u32,
    /// It is logged in to by what its provider has granted, and not by a password.
    pub is_granted: bool,
}

/// Peace that a provider has asked for: nobody logs in to the account before it ends, whatever for. Sessions that are open go
/// on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    pub until: Timestamp,
    /// What the provider said.
    pub over: String,
    /// The how-manieth in a row.
    pub times: u32,
}

/// A rest that begins so long after the last has ended is the first of another row.
const IN_A_ROW: SignedDuration = SignedDuration::from_hours(1);

impl Account {
    /// How many rests in a row there have been by now.
    #[must_use]
    pub fn rests_in_a_row(&self, now: Timestamp) -> u32 {
        let last = self.rest.as_ref().filter(|rest| now.duration_since(rest.until) < IN_A_ROW);
        last.map_or(0, |rest| rest.times)
    }

    /// Whether it has been read since it was connected last.
    #[must_use]
    pub fn was_well(&self) -> bool {
        self.status.last_checked_at.is_some() && self.status.state != AccountState::Connecting
    }

    /// Until when nobody logs in; `None` when anybody may.
    #[must_use]
    pub fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.rest.as_ref().map(|rest| rest.until).filter(|until| *until > now)
    }

    /// Whose servers it has.
    #[must_use]
    pub fn provider(&self) -> &'static Provider {
        self.settings.provider()
    }

    /// The status as it is shown. What is read without trouble has room to say that the provider wants peace, or that nothing can
    /// be sent.
    #[must_use]
    pub fn shown_status(&self, now: Timestamp) -> AccountStatus {
        let status = self.status.clone();
        let is_well = status.state.is_worked() && status.detail.is_none();
        if let Some(rest) = self.rest.as_ref().filter(|rest| rest.until > now && is_well) {
            return AccountStatus {
                state: AccountState::Throttled,
                detail: Some(rest.over.clone()),
                advice: Some(WAIT_ADVICE.to_owned()),
                next_attempt_at: Some(rest.until),
                ..status
            };
        }
        match &self.sending_refused {
            Some(said) if status.state.is_worked() && status.detail.is_none() => AccountStatus {
                detail: Some(format!("Mail is read, and none can be sent: {said}")),
                advice: Some(
                    "Have the provider allow it to send, then resume the account; or give it another login."
                        .to_owned(),
                ),
                ..status
            },
            _ => status,
        }
    }
}

/// What erasing an account has removed so far: counts alone, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub requested_at: Timestamp,
    /// `None` while it goes on.
    pub erased_at: Option<Timestamp>,
    /// Messages that nobody else had seen.
    pub messages: u64,
    /// Octets of these, as they came.
    pub bytes: u64,
    /// Messages that were seen elsewhere too, and stay.
    pub messages_kept: u64,
    /// Conversations of which nothing was left.
    pub conversations: u64,
    /// Contacts that its mail had made and that nothing else speaks for.
    pub contacts: u64,
    pub decisions: u64,
}

impl Receipt {
    /// Of an account that is to be erased.
    #[must_use]
    pub fn begun(requested_at: Timestamp) -> Self {
        Self {
            requested_at,
            erased_at: None,
            messages: 0,
            bytes: 0,
            messages_kept: 0,
            conversations: 0,
            contacts: 0,
            decisions: 0,
        }
    }
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

/// What comparing a followed mailbox with its server has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    pub mailbox: Vec<u8>,
    /// The last time; `None` when it never was.
    pub at: Option<Timestamp>,
    /// Messages compared then.
    pub messages: u64,
    /// Messages that had been passed over and were taken in after all, ever.
    pub healed: u64,
}

/// How much of what a user wrote to contacts is in the CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Mails, as far as they were seen.
    pub sent: u64,
    /// Those of them that are filed.
    pub captured: u64,
    /// Those of them of which a copy came to a capture address.
    pub by_capture_address: u64,
}

impl Coverage {
    /// The share of what was sent that is filed; `None` when nothing was sent.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let thousandths = self.captured.saturating_mul(1000).checked_div(self.sent)?;
        u32::try_from(thousandths).ok().map(|thousandths| f64::from(thousandths) / 1000.0)
    }
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

/// What UIDs are valid under: the UIDVALIDITY that the server tells, 0 without one, and above its 32 bits the account's
/// generation. Two providers may well give two mailboxes of one name the same UIDVALIDITY.
#[must_use]
pub fn era(generation: u32, uid_validity: u32) -> u64 {
    u64::from(generation) << u32::BITS | u64::from(uid_validity)
}

/// The account's generation in an era.
#[must_use]
pub fn generation_of(era: u64) -> u32 {
    u32::try_from(era >> u32::BITS).expect("the upper half of 64 bits has 32")
}

/// The server's part of an era.
#[must_use]
pub fn uid_validity_of(era: u64) -> u32 {
    u32::try_from(era & u64::from(u32::MAX)).expect("the lower half of 64 bits has 32")
}

/// How far a mailbox has been read (RFC 9051 section 2.3.1.1: a UID means nothing without its UIDVALIDITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// An [`era`].
    pub uid_validity: u64,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MailboxUid {
    pub account: AccountId,
    pub mailbox: Vec<u8>,
    /// An [`era`].
    pub uid_validity: u64,
    pub uid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_said_as_it_is_stored() {
        for state in AccountState::ALL {
            assert_eq!(json!(state), state.as_str());
        }
    }
}
