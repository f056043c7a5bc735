//! What the CRM is told, as a closed list: each event is written to the journal with the change it tells of.
//!
//! Not here: the journal (`store`) and posting it (`webhook`). No event carries content, only ids and states.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    account::{AccountState, Progress},
    ids::{AccountId, ContactId, ConversationId, EventId, MessageKey, WebhookId},
    submission::SubmissionState,
};
use crate::mail::{Address, MessageId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Message {
        what: MessageEvent,
        fact: MessageFact,
    },
    /// Mail that policy left out, for those who ask for it: ids only.
    MessageSkipped {
        account: Option<AccountId>,
        rule: String,
    },
    MessageHeld {
        message: MessageKey,
        reason: String,
    },
    ConversationCreated {
        conversation: ConversationId,
    },
    ConversationMerged {
        conversation: ConversationId,
        merged_into: ConversationId,
    },
    ConversationSplit {
        conversation: ConversationId,
        from: ConversationId,
    },
    Contact {
        what: ContactEvent,
        contact: ContactId,
        email: Address,
        message: Option<MessageKey>,
    },
    Account {
        what: AccountEvent,
        account: AccountId,
        state: AccountState,
        detail: Option<String>,
    },
    Backfill {
        done: bool,
        account: AccountId,
        progress: Progress,
    },
    WebhookDisabled {
        webhook: WebhookId,
        reason: String,
    },
    TestPing {
        webhook: WebhookId,
    },
}

/// The ids an event about a message carries.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageFact {
    pub message: MessageKey,
    pub conversation: ConversationId,
    pub contacts: Vec<ContactId>,
    pub account: Option<AccountId>,
    pub rfc822_id: Option<MessageId>,
    /// Of an outbound message.
    pub state: Option<SubmissionState>,
    pub recipients: Vec<RecipientFact>,
}

/// How one recipient fared.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipientFact {
    pub address: Address,
    pub state: SubmissionState,
    pub code: Option<u16>,
    pub text: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageEvent {
    Captured,
    Received,
    Sent,
    Deferred,
    Bounced,
    Uncertain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactEvent {
    Created,
    Matched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    Connected,
    Active,
    Error,
    ReauthRequired,
    Stopped,
    Disconnected,
}

/// Every type of the contract, in its order: what an endpoint may subscribe to.
pub const EVENT_TYPES: [&str; 29] = [
    "message.captured",
    "message.received",
    "message.sent",
    "message.deferred",
    "message.bounced",
    "message.uncertain",
    "message.skipped",
    "message.held",
    "message.redacted",
    "conversation.created",
    "conversation.merged",
    "conversation.split",
    "contact.created",
    "contact.matched",
    "account.connected",
    "account.active",
    "account.error",
    "account.reauth_required",
    "account.stopped",
    "account.disconnected",
    "account.erased",
    "backfill.progress",
    "backfill.completed",
    "quota.warning",
    "quota.exceeded",
    "quota.reset",
    "capture_address.rotated",
    "webhook.disabled",
    "test.ping",
];

/// Types sent only to endpoints that name them.
pub const ON_REQUEST: [&str; 1] = ["message.skipped"];

impl Event {
    /// The type, as the contract names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message { what, .. } => what.kind(),
            Self::MessageSkipped { .. } => "message.skipped",
            Self::MessageHeld { .. } => "message.held",
            Self::ConversationCreated { .. } => "conversation.created",
            Self::ConversationMerged { .. } => "conversation.merged",
            Self::ConversationSplit { .. } => "conversation.split",
            Self::Contact { what: ContactEvent::Created, .. } => "contact.created",
            Self::Contact { what: ContactEvent::Matched, .. } => "contact.matched",
            Self::Account { what, .. } => what.kind(),
            Self::Backfill { done: false, .. } => "backfill.progress",
            Self::Backfill { done: true, .. } => "backfill.completed",
            Self::WebhookDisabled { .. } => "webhook.disabled",
            Self::TestPing { .. } => "test.ping",
        }
    }

    /// The conversation whose events keep their order.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Message { fact, .. } => Some(fact.conversation),
            Self::ConversationCreated { conversation } | Self::ConversationSplit { conversation, .. } => {
                Some(*conversation)
            }
            Self::ConversationMerged { merged_into, .. } => Some(*merged_into),
            _ => None,
        }
    }

    /// The `data` member.
    #[must_use]
    pub fn data(&self) -> Value {
        match self {
            Self::Message { fact, .. } => fact.data(),
            Self::MessageSkipped { account, rule } => json!({ "account_id": account, "rule": rule }),
            Self::MessageHeld { message, reason } => json!({ "message_id": message, "reason": reason }),
            Self::ConversationCreated { conversation } => json!({ "conversation_id": conversation }),
            Self::ConversationMerged { conversation, merged_into } => {
                json!({ "conversation_id": conversation, "merged_into": merged_into })
            }
            Self::ConversationSplit { conversation, from } => {
                json!({ "conversation_id": conversation, "from": from })
            }
            Self::Contact { contact, email, message, .. } => {
                json!({ "contact_id": contact, "email": email, "message_id": message })
            }
            Self::Account { account, state, detail, .. } => {
                json!({ "account_id": account, "status": { "state": state, "detail": detail } })
            }
            Self::Backfill { account, progress, .. } => {
                json!({ "account_id": account, "done": progress.done, "total": progress.total })
            }
            Self::WebhookDisabled { webhook, reason } => json!({ "webhook_id": webhook, "reason": reason }),
            Self::TestPing { webhook } => json!({ "webhook_id": webhook }),
        }
    }
}

impl MessageEvent {
    fn kind(self) -> &'static str {
        match self {
            Self::Captured => "message.captured",
            Self::Received => "message.received",
            Self::Sent => "message.sent",
            Self::Deferred => "message.deferred",
            Self::Bounced => "message.bounced",
            Self::Uncertain => "message.uncertain",
        }
    }
}

impl AccountEvent {
    fn kind(self) -> &'static str {
        match self {
            Self::Connected => "account.connected",
            Self::Active => "account.active",
            Self::Error => "account.error",
            Self::ReauthRequired => "account.reauth_required",
            Self::Stopped => "account.stopped",
            Self::Disconnected => "account.disconnected",
        }
    }
}

impl MessageFact {
    fn data(&self) -> Value {
        let mut data = json!({
            "message_id": self.message,
            "conversation_id": self.conversation,
            "contact_ids": self.contacts,
            "rfc822_message_id": self.rfc822_id,
        });
        let Some(members) = data.as_object_mut() else { return data };
        if let Some(account) = self.account {
            members.insert("account_id".into(), json!(account));
        }
        if let Some(state) = self.state {
            members.insert("state".into(), json!(state));
            members.insert("recipients".into(), self.recipients.iter().map(RecipientFact::data).collect());
        }
        data
    }
}

impl RecipientFact {
    fn data(&self) -> Value {
        json!({ "address": self.address, "state": self.state, "code": self.code, "text": self.text })
    }
}

/// An event as the journal keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// Gap-free within the workspace.
    pub seq: i64,
    pub id: EventId,
    pub kind: String,
    pub created_at: Timestamp,
    pub data: Value,
}

#[cfg(test)]
mod tests {
    use super::{super::ids::Id, *};

    #[test]
    fn every_event_has_a_type_of_the_contract() {
        let (conversation, account) =
            (ConversationId::from_uuid(uuid::Uuid::nil()), AccountId::from_uuid(uuid::Uuid::nil()));
        let progress = Progress { done: 1, total: 2 };
        for event in [
            Event::ConversationCreated { conversation },
            Event::ConversationMerged { conversation, merged_into: conversation },
            Event::Backfill { done: true, account, progress },
            Event::Account {
                what: AccountEvent::ReauthRequired,
                account,
                state: AccountState::Error,
                detail: None,
            },
        ] {
            assert!(EVENT_TYPES.contains(&event.kind()), "{}", event.kind());
        }
    }
}
