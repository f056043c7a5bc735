//! What a listener takes in before it answers 250, and why it took it.
//!
//! Not here: reading the message. That happens after the 250 (`flow::process`).

use serde::{Deserialize, Serialize};

use super::{
    ids::{AccountId, ApiKeyId, ConversationId, UserId, WorkspaceId},
    route::Route,
};
use crate::mail::Envelope;

/// Through which door a message came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "door")]
pub enum Door {
    /// The MX listener, for these capture and reply addresses of one workspace.
    Mx { routes: Vec<Route>, envelope: Envelope, peer: String },
    /// A submission listener or the HTTP API, on behalf of this user.
    Submission { order: SendOrder, envelope: Envelope },
}

/// What the CRM asked for with a message it handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrder {
    pub user: UserId,
    pub principal: Principal,
    pub class: SendClass,
    /// The conversation the CRM says it belongs to.
    pub conversation: Option<ConversationId>,
    /// Over HTTP rather than SMTP.
    pub api: bool,
}

/// Who handed a message in: nothing leaves the gateway without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    Key(ApiKeyId),
    /// The instance administrator's key.
    Admin,
    /// A participant of a conversation, answering at a reply address that was made for this user.
    Participant(UserId),
}

/// What kind of mail it is to the CRM; decides whether it leaves by the user's account or the smarthost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendClass {
    #[default]
    Individual,
    Bulk,
    Workflow,
}

/// Where a submission leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Account(AccountId),
    Smarthost,
}

/// A message that waits for its 250.
#[derive(Debug, Clone)]
pub struct Intake {
    pub workspace: WorkspaceId,
    pub door: Door,
    pub raw: bytes::Bytes,
    /// What makes a second transaction the same one: hashed over what the client sent, before our trace fields.
    pub fingerprint: [u8; 32],
}

/// The fingerprint of an SMTP transaction: the same envelope and bytes again, after a lost 250, give the same one.
#[must_use]
pub fn fingerprint(envelope: &Envelope, raw: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(envelope.reverse_path.to_string().as_bytes());
    for recipient in &envelope.recipients {
        hasher.update(b"\n").update(recipient.address.key().as_bytes());
    }
    // A blank line cannot stand in an address: nothing of the envelope runs into the bytes.
    *hasher.update(b"\n\n").update(raw).finalize().as_bytes()
}
