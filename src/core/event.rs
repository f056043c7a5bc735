//! What the CRM is told, as a closed list: each event is written to the journal with the change it tells of.
//!
//! Not here: the journal (`store`) and posting it (`webhook`). No event carries content, only ids and states.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    account::{LabelledStatus, Progress, Receipt},
    ids::{AccountId, ContactId, ConversationId, DecisionId, EventId, MessageKey, UserId, WebhookId},
    limits::{Quota, Standing},
    submission::{RecipientState, SubmissionState},
};
use crate::mail::{Address, MessageId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Message {
        what: MessageEvent,
        fact: MessageFact,
    },
    /// Mail that policy left out, for those who ask for it: ids only, since nothing else of it is kept.
    MessageSkipped {
        decision: DecisionId,
        account: Option<AccountId>,
        rule: String,
    },
    MessageHeld {
        message: MessageKey,
        /// Of mail that was not let in; a submission that waits for its way out was.
        decision: Option<DecisionId>,
        reason: String,
    },
    /// Copies of a message that policy sends, and that do not reach their readers. Of those that do nothing is told.
    CopyFailed {
        message: MessageKey,
        conversation: ConversationId,
        recipients: Vec<RecipientFact>,
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
        status: LabelledStatus,
    },
    /// Nothing that an account alone has brought is left.
    AccountErased {
        account: AccountId,
        status: LabelledStatus,
        receipt: Receipt,
    },
    Backfill {
        done: bool,
        account: AccountId,
        progress: Progress,
        status: LabelledStatus,
    },
    Quota {
        what: QuotaEvent,
        /// Whose; `None` for the workspace's own.
        user: Option<UserId>,
        quota: Quota,
        standing: Standing,
    },
    /// A user has a new capture address, and the ones before end.
    CaptureAddressRotated {
        user: UserId,
        cause: RotationCause,
        old_ends_at: Timestamp,
    },
    WebhookDisabled {
        webhook: WebhookId,
        reason: String,
    },
    TestPing {
        webhook: WebhookId,
    },
}

/// Why a capture address was given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationCause {
    Asked,
    /// Strangers know it.
    SeenInPublic,
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

impl From<RecipientState> for RecipientFact {
    fn from(RecipientState { recipient, state, code, text, .. }: RecipientState) -> Self {
        Self { address: recipient.address, state, code, text }
    }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaEvent {
    /// 80 % are used.
    Warning,
    Exceeded,
    /// There is room again.
    Reset,
}

/// Every type of the contract, in its order: what an endpoint may subscribe to.
pub const EVENT_TYPES: [&str; 30] = [
    "message.captured",
    "message.received",
    "message.sent",
    "message.deferred",
    "message.bounced",
    "message.uncertain",
    "message.skipped",
    "message.held",
    "message.copy_failed",
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

/// Of mail that was left out.
pub const MESSAGE_SKIPPED: &str = "message.skipped";

/// Types sent only to endpoints that name them, and not written down when none does.
pub const ON_REQUEST: [&str; 1] = [MESSAGE_SKIPPED];

impl Event {
    /// The type, as the contract names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message { what, .. } => what.kind(),
            Self::MessageSkipped { .. } => MESSAGE_SKIPPED,
            Self::MessageHeld { .. } => "message.held",
            Self::CopyFailed { .. } => "message.copy_failed",
            Self::ConversationCreated { .. } => "conversation.created",
            Self::ConversationMerged { .. } => "conversation.merged",
            Self::ConversationSplit { .. } => "conversation.split",
            Self::Contact { what: ContactEvent::Created, .. } => "contact.created",
            Self::Contact { what: ContactEvent::Matched, .. } => "contact.matched",
            Self::Account { what, .. } => what.kind(),
            Self::AccountErased { .. } => "account.erased",
            Self::Backfill { done: false, .. } => "backfill.progress",
            Self::Backfill { done: true, .. } => "backfill.completed",
            Self::Quota { what: QuotaEvent::Warning, .. } => "quota.warning",
            Self::Quota { what: QuotaEvent::Exceeded, .. } => "quota.exceeded",
            Self::Quota { what: QuotaEvent::Reset, .. } => "quota.reset",
            Self::CaptureAddressRotated { .. } => "capture_address.rotated",
            Self::WebhookDisabled { .. } => "webhook.disabled",
            Self::TestPing { .. } => "test.ping",
        }
    }

    /// The conversation it tells of; of a merger the one that stands.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Message { fact, .. } => Some(fact.conversation),
            Self::ConversationCreated { conversation }
            | Self::ConversationSplit { conversation, .. }
            | Self::CopyFailed { conversation, .. } => Some(*conversation),
            Self::ConversationMerged { merged_into, .. } => Some(*merged_into),
            _ => None,
        }
    }

    /// The message it tells of.
    #[must_use]
    pub fn message(&self) -> Option<MessageKey> {
        match self {
            Self::Message { fact, .. } => Some(fact.message),
            Self::MessageHeld { message, .. } | Self::CopyFailed { message, .. } => Some(*message),
            Self::Contact { message, .. } => *message,
            _ => None,
        }
    }

    /// The `data` member.
    #[must_use]
    pub fn data(&self) -> Value {
        match self {
            Self::Message { fact, .. } => fact.data(),
            Self::MessageSkipped { decision, account, rule } => {
                let data = json!({ "decision_id": decision, "rule": rule });
                with(data, "account_id", account.as_ref())
            }
            Self::MessageHeld { message, decision, reason } => {
                let data = json!({ "message_id": message, "reason": reason });
                with(data, "decision_id", decision.as_ref())
            }
            Self::CopyFailed { message, conversation, recipients } => {
                let recipients: Vec<Value> = recipients.iter().map(RecipientFact::data).collect();
                json!({ "message_id": message, "conversation_id": conversation, "recipients": recipients })
            }
            Self::ConversationCreated { conversation } => json!({ "conversation_id": conversation }),
            Self::ConversationMerged { conversation, merged_into } => {
                json!({ "conversation_id": conversation, "merged_into": merged_into })
            }
            Self::ConversationSplit { conversation, from } => {
                json!({ "conversation_id": conversation, "from": from })
            }
            Self::Contact { contact, email, message, .. } => {
                with(json!({ "contact_id": contact, "email": email }), "message_id", message.as_ref())
            }
            Self::Account { account, status, .. } => {
                json!({ "account_id": account, "status": status.data() })
            }
            Self::AccountErased { account, status, receipt } => {
                json!({ "account_id": account, "status": status.data(), "receipt": receipt })
            }
            Self::Backfill { account, progress, status, .. } => json!({
                "account_id": account,
                "done": progress.done,
                "total": progress.total,
                "status": status.data(),
            }),
            Self::Quota { user, quota, standing: Standing { used, limit, resets_at }, .. } => {
                let data = json!({ "quota": quota, "used": used, "limit": limit, "resets_at": resets_at });
                with(data, "user_id", user.as_ref())
            }
            Self::CaptureAddressRotated { user, cause, old_ends_at } => {
                json!({ "user_id": user, "reason": cause, "old_ends_at": old_ends_at })
            }
            Self::WebhookDisabled { webhook, reason } => json!({ "webhook_id": webhook, "reason": reason }),
            Self::TestPing { webhook } => json!({ "webhook_id": webhook }),
        }
    }
}

/// The object with one more member, if there is a value for it.
fn with(mut data: Value, member: &str, value: Option<&impl Serialize>) -> Value {
    if let (Some(members), Some(value)) = (data.as_object_mut(), value) {
        members.insert(member.to_owned(), json!(value));
    }
    data
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
        let data = json!({
            "message_id": self.message,
            "conversation_id": self.conversation,
            "contact_ids": self.contacts,
            "rfc822_message_id": self.rfc822_id,
        });
        let data = with(data, "account_id", self.account.as_ref());
        let recipients: Option<Value> =
            self.state.map(|_| self.recipients.iter().map(RecipientFact::data).collect());
        with(with(data, "state", self.state.as_ref()), "recipients", recipients.as_ref())
    }
}

impl RecipientFact {
    fn data(&self) -> Value {
        json!({ "address": self.address, "state": self.state, "code": self.code, "text": self.text })
    }
}

/// What of a journal entry was erased since it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// The account alone: what its provider said.
    Account,
    /// The message or the contact that it tells of.
    Subject,
}

/// Leaves of an event's data what says nothing of what was erased: ids and states.
pub fn redact(data: &mut Value, erased: Erased) {
    let Some(members) = data.as_object_mut() else { return };
    if let Some(status) = members.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("detail".into(), Value::Null);
    }
    if erased == Erased::Subject {
        members.remove("recipients");
        members.remove("email");
        if let Some(id) = members.get_mut("rfc822_message_id") {
            *id = Value::Null;
        }
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

impl JournalEntry {
    /// What it tells of, by its id: events of one subject are posted in order, and those of others do not wait for them.
    /// `None` when it waits for nothing and nothing for it.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        let member = match self.kind.split_once('.')? {
            ("message", "skipped") | ("test", _) => return None,
            ("message", "held") => "message_id",
            ("conversation", "merged") => "merged_into",
            ("message" | "conversation", _) => "conversation_id",
            ("contact", _) => "contact_id",
            ("account" | "backfill", _) => "account_id",
            ("quota" | "capture_address", _) => "user_id",
            ("webhook", _) => "webhook_id",
            _ => return None,
        };
        self.data.get(member)?.as_str()
    }

    /// The conversation, beside its own subject, of which everything earlier must have been told before this: the one that
    /// ends by a merger, and the one that others were split from.
    #[must_use]
    pub fn follows(&self) -> Option<&str> {
        let member = match self.kind.as_str() {
            "conversation.merged" => "conversation_id",
            "conversation.split" => "from",
            _ => return None,
        };
        self.data.get(member)?.as_str()
    }

    /// The endpoint a ping is for. To any other it says nothing.
    #[must_use]
    pub fn pings(&self) -> Option<&str> {
        if self.kind == "test.ping" { self.data.get("webhook_id")?.as_str() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            account::{AccountState, AccountStatus},
            ids::Id,
            policy::{Policy, Preset},
        },
        *,
    };

    fn id<T: Id>(number: u128) -> T {
        T::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn status() -> LabelledStatus {
        let status = AccountStatus {
            state: AccountState::Backfilling,
            since: Timestamp::UNIX_EPOCH,
            detail: None,
            advice: None,
            last_synced_at: None,
            last_checked_at: None,
            next_attempt_at: None,
            progress: Some(Progress { done: 1, total: 2 }),
        };
        Policy::of_preset(Preset::default_preset()).settings.labelled(status)
    }

    fn contact(message: Option<MessageKey>) -> Event {
        let email = Address::parse("bob@x.example").unwrap();
        Event::Contact { what: ContactEvent::Created, contact: id(3), email, message }
    }

    fn fact() -> MessageFact {
        MessageFact {
            message: id(1),
            conversation: id(2),
            contacts: Vec::new(),
            account: None,
            rfc822_id: None,
            state: None,
            recipients: Vec::new(),
        }
    }

    fn quota(user: Option<UserId>) -> Event {
        let standing = Standing { used: 4, limit: Some(5), resets_at: None };
        Event::Quota { what: QuotaEvent::Warning, user, quota: Quota::SentPerDay, standing }
    }

    /// One event of each kind, with the member that names its subject.
    fn each() -> Vec<(Event, Option<&'static str>)> {
        let progress = Progress { done: 1, total: 2 };
        let account = |what| Event::Account { what, account: id(4), status: status() };
        vec![
            (Event::Message { what: MessageEvent::Sent, fact: fact() }, Some("conversation_id")),
            (Event::MessageSkipped { decision: id(6), account: Some(id(4)), rule: "r".into() }, None),
            (
                Event::MessageHeld { message: id(1), decision: Some(id(6)), reason: "r".into() },
                Some("message_id"),
            ),
            (
                Event::CopyFailed { message: id(1), conversation: id(2), recipients: Vec::new() },
                Some("conversation_id"),
            ),
            (Event::ConversationCreated { conversation: id(2) }, Some("conversation_id")),
            (Event::ConversationMerged { conversation: id(2), merged_into: id(7) }, Some("merged_into")),
            (Event::ConversationSplit { conversation: id(2), from: id(7) }, Some("conversation_id")),
            (contact(Some(id(1))), Some("contact_id")),
            (account(AccountEvent::ReauthRequired), Some("account_id")),
            (account(AccountEvent::Stopped), Some("account_id")),
            (
                Event::AccountErased {
                    account: id(4),
                    status: status(),
                    receipt: Receipt::begun(Timestamp::UNIX_EPOCH),
                },
                Some("account_id"),
            ),
            (Event::Backfill { done: true, account: id(4), progress, status: status() }, Some("account_id")),
            (quota(Some(id(8))), Some("user_id")),
            (quota(None), None),
            (Event::WebhookDisabled { webhook: id(5), reason: "r".into() }, Some("webhook_id")),
            (Event::TestPing { webhook: id(5) }, None),
        ]
    }

    #[test]
    fn every_event_has_a_type_of_the_contract_and_an_order_of_its_subject_alone() {
        for (event, member) in each() {
            assert!(EVENT_TYPES.contains(&event.kind()), "{}", event.kind());
            let (kind, data) = (event.kind().to_owned(), event.data());
            let entry = JournalEntry { seq: 1, id: id(9), kind, created_at: Timestamp::UNIX_EPOCH, data };
            let subject = member.map(|member| entry.data[member].as_str().unwrap());
            assert_eq!(entry.subject(), subject, "{}", entry.kind);
            if let Some(conversation) = event.conversation() {
                assert_eq!(subject, Some(conversation.to_string().as_str()));
            }
            if let Some(message) = event.message() {
                assert_eq!(entry.data["message_id"], json!(message), "{}", entry.kind);
            }
            // By it is judged who sees the event.
            let names_one = entry.data.get("message_id").is_some();
            assert_eq!(event.message().is_some(), names_one, "{}", entry.kind);
            let reaches_across = ["conversation.merged", "conversation.split"].contains(&entry.kind.as_str());
            assert_eq!(entry.follows().is_some(), reaches_across);
            assert_eq!(entry.pings().is_some(), entry.kind == "test.ping");
        }
    }

    #[test]
    fn of_what_was_erased_an_event_keeps_ids_and_states_alone() {
        let email = Address::parse("bob@x.example").unwrap();
        let recipient =
            RecipientFact { address: email, state: SubmissionState::Sent, code: None, text: None };
        let fact = MessageFact {
            rfc822_id: MessageId::parse("secret@x.example"),
            state: Some(SubmissionState::Sent),
            recipients: vec![recipient],
            ..fact()
        };
        let mut status = status();
        status.status.detail = Some("secret".into());
        let what = AccountEvent::Error;
        for event in [
            Event::Message { what: MessageEvent::Sent, fact },
            contact(None),
            Event::Account { what, account: id(4), status },
        ] {
            let mut data = event.data();
            redact(&mut data, Erased::Subject);
            let text = data.to_string();
            assert!(!text.contains("secret") && !text.contains("bob@"), "{text}");
            assert!(text.contains("_id"), "{text}");
        }
    }

    #[test]
    fn a_member_without_a_value_is_left_out() {
        let contact_id: ContactId = id(3);
        let expect = json!({ "contact_id": contact_id, "email": "bob@x.example" });
        assert_eq!(contact(None).data(), expect);
        let message: MessageKey = id(1);
        assert_eq!(contact(Some(message)).data()["message_id"], json!(message));
        assert_eq!(fact().data().get("account_id"), None);
    }
}
