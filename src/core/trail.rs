//! The trail: what was done to the rules of a workspace and to what it keeps, and by whom.
//!
//! Not here: writing it down (`store::trail`). It names by id alone, so that erasing takes nothing out of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something done that whoever answers for the workspace may have to account for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Act {
    #[serde(rename = "key.created")]
    KeyCreated,
    #[serde(rename = "key.revoked")]
    KeyRevoked,
    #[serde(rename = "user.added")]
    UserAdded,
    #[serde(rename = "user.removed")]
    UserRemoved,
    #[serde(rename = "user.role_changed")]
    RoleChanged,
    #[serde(rename = "policy.changed")]
    PolicyChanged,
    #[serde(rename = "limits.changed")]
    LimitsChanged,
    #[serde(rename = "capture_address.rotated")]
    CaptureAddressRotated,
    #[serde(rename = "account.connected")]
    AccountConnected,
    #[serde(rename = "account.reconnected")]
    AccountReconnected,
    #[serde(rename = "account.disconnected")]
    AccountDisconnected,
    #[serde(rename = "account.erased")]
    AccountErased,
    #[serde(rename = "mail.released")]
    MailReleased,
    /// Let in, and its sending route with it from then on.
    #[serde(rename = "mail.trusted")]
    MailTrusted,
    #[serde(rename = "mail.rejected")]
    MailRejected,
}

/// One line of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the workspace's trail, from 1 on without a gap.
    pub seq: i64,
    pub at: Timestamp,
    /// Who did it: the id of a key or user, or a word such as `admin`, `command_line`, `gateway`, `rule:…`.
    pub actor: String,
    pub act: Act,
    /// The id of what it was done to.
    pub subject: String,
}
