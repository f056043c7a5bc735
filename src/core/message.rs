//! A message as the gateway keeps it, and the ways it was seen.
//!
//! Not here: its text, which is read from the raw bytes whenever it is shown (`mail::Message`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    account::MailboxUid,
    ids::{AttachmentId, ContactId, ConversationId, MessageKey, UserId},
};
use crate::mail::{Address, MessageId, Party, forward::Certainty};

/// Seen from the workspace: who wrote to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Somebody outside wrote.
    Inbound,
    /// A user wrote to somebody outside.
    Outbound,
    /// Users among themselves.
    Internal,
}

/// Who wrote a message: always the From of that message, never the conversation's contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    User(UserId),
    Contact(ContactId),
    Other,
}

/// Whom a message is from and to. `bcc` holds what the author's own copy said; it is in nothing we emit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Parties {
    #[serde(default)]
    pub from: Vec<Party>,
    #[serde(default)]
    pub to: Vec<Party>,
    #[serde(default)]
    pub cc: Vec<Party>,
    #[serde(default)]
    pub bcc: Vec<Party>,
    #[serde(default)]
    pub reply_to: Vec<Party>,
}

impl Parties {
    /// Every address of the message, each as often as it stands there.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        [&self.from, &self.to, &self.cc, &self.bcc].into_iter().flatten().map(|party| &party.address)
    }
}

/// The part a contact has in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContactRole {
    From,
    To,
    Cc,
    Bcc,
}

/// An attachment without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentSummary {
    pub id: AttachmentId,
    /// Its place in the message, for reading it out again.
    pub index: u32,
    pub filename: Option<String>,
    pub content_type: String,
    /// Decoded octets.
    pub size: u64,
    /// Hex.
    pub sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// Set when policy kept its content out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkippedFile>,
}

/// Why a file's content is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// `attachments_off`, `type` or `too_large`.
    pub reason: String,
    /// The octets it might have had.
    pub limit: Option<u64>,
}

/// One way a message was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A copy at a capture address. `field` says where the address stood: nowhere in the header means Bcc.
    Capture { inbound: MessageKey, recipient: Address, field: CaptureField },
    /// Over our submission listener.
    Submission { inbound: MessageKey },
    /// Over the HTTP API.
    Api,
    /// In a mailbox of a connected account.
    Account(MailboxUid),
    /// At a reply address.
    Reply { inbound: MessageKey, recipient: Address },
}

impl Sighting {
    /// The contract's word for it.
    #[must_use]
    pub fn via(&self) -> &'static str {
        match self {
            Self::Capture { .. } => "capture",
            Self::Submission { .. } => "submission",
            Self::Api => "api",
            Self::Account(_) => "account",
            Self::Reply { .. } => "reply",
        }
    }
}

/// Where a capture address was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureField {
    To,
    Cc,
    Bcc,
}

/// A sighting as it is stored, with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SightingRow {
    pub sighting: Sighting,
    pub at: Timestamp,
}

/// Who passed a message on to his capture address, where it is filed as its original author's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedBy {
    pub user: UserId,
    /// As its From names him.
    pub party: Party,
    /// How sure it is who the author is.
    pub certainty: Certainty,
    /// The author's mail is attached whole; otherwise it stands in the text.
    pub attached: bool,
}

/// A stored message, without text.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    pub id: MessageKey,
    /// Message-ID and content, hashed.
    pub identity: [u8; 32],
    pub rfc822_id: Option<MessageId>,
    pub conversation: ConversationId,
    pub direction: Direction,
    pub kind: crate::mail::Kind,
    pub author: Author,
    pub author_party: Option<Party>,
    pub subject: Option<String>,
    pub parties: Parties,
    pub in_reply_to: Option<MessageId>,
    pub attachments: Vec<AttachmentSummary>,
    pub defects: Vec<String>,
    /// `author_party` wrote it; he whom its header names in From passed it on.
    pub forwarded: Option<ForwardedBy>,
    /// The Date field when it is believable, else when it arrived.
    pub sent_at: Timestamp,
    pub received_at: Timestamp,
    pub size: u64,
    /// Where the raw bytes lie.
    pub blob: Uuid,
}

impl StoredMessage {
    /// Whose word it is taken for that the message is what it says: who passed it on, else its author.
    #[must_use]
    pub fn sender(&self) -> (Option<UserId>, Option<&Address>) {
        if let Some(forwarded) = &self.forwarded {
            return (Some(forwarded.user), Some(&forwarded.party.address));
        }
        let user = match self.author {
            Author::User(user) => Some(user),
            Author::Contact(_) | Author::Other => None,
        };
        (user, self.author_party.as_ref().map(|party| &party.address))
    }
}

/// The CRM's unit: messages that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub id: ConversationId,
    pub subject: Option<String>,
    /// The contact it is filed under: the first in To of its first message, or who wrote it.
    pub contact: Option<ContactId>,
    pub created_at: Timestamp,
    pub last_message_at: Timestamp,
    pub message_count: i64,
    pub merged_into: Option<ConversationId>,
    /// A conversation that this one names but has no right to join.
    pub related_to: Option<ConversationId>,
}
