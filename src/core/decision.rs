//! Why a message was synced, skipped, deferred or held: one decision for every message seen.
//!
//! Not here: deciding (`core::policy`). Of skipped mail a decision keeps keyed hashes of its ids, no content.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    account::MailboxUid,
    ids::{AccountId, DecisionId, MessageKey, UserId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Synced,
    Skipped,
    Deferred,
    Held,
}

/// A verdict with the rule that gave it, and the reason in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// A stable word for the rule, like `contact_wrote`.
    pub rule: &'static str,
    pub reason: &'static str,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDecision {
    pub ruling: Ruling,
    /// `capture`, `submission`, `api`, `account`, `reply`.
    pub via: &'static str,
    pub message: Option<MessageKey>,
    pub seen_at: Option<MailboxUid>,
    /// Whose address it came to, or who handed it in. Mail of an account is its user's in any case.
    pub user: Option<UserId>,
    /// When it was written, as far as that is known.
    pub written_at: Option<Timestamp>,
    /// Hashes by which the decision is found: of the ids the mail has and names, and of its addresses.
    pub hashes: Vec<DecisionHash>,
}

/// What a decision's hash was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashRole {
    /// The mail's own Message-ID.
    Id,
    /// A Message-ID it names in In-Reply-To or References.
    Reference,
    /// An address in From, of mail that no machine wrote for somebody.
    Author,
    Address,
}

impl HashRole {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Reference => "reference",
            Self::Author => "author",
            Self::Address => "address",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionHash {
    pub role: HashRole,
    pub hash: [u8; 16],
}

/// A decision as it is read back, from the store or from the API's answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Decision {
    pub id: DecisionId,
    pub at: Timestamp,
    pub verdict: Verdict,
    pub rule: String,
    pub reason: String,
    pub preset: String,
    pub policy_version: i64,
    pub message_id: Option<MessageKey>,
    pub account_id: Option<AccountId>,
    /// As in [`NewDecision`].
    pub via: String,
}
