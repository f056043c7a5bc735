//! What the CRM asks for with a message: its control fields, and the way out that policy allows.
//!
//! Not here: who may ask (`handler` for SMTP, `http` for the API).

use crate::{
    core::{
        ids::ConversationId,
        inbound::{Exit, SendClass, SendOrder},
        policy::ClassRoute,
    },
    flow::{FlowError, Gateway},
    mail::HeaderBlock,
    store::Session,
};

/// The control fields of a submission, always stripped before it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlFields {
    pub class: SendClass,
    pub idempotency_key: Option<String>,
    pub conversation: Option<ConversationId>,
}

/// Longest idempotency key, in octets.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Why a message handed in cannot be taken. The text names what is wrong and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("X-Mailweave-Class must be individual, bulk or workflow")]
    Class,
    #[error("X-Mailweave-Idempotency-Key must be 1 to 255 printable characters")]
    IdempotencyKey,
    #[error("X-Mailweave-Conversation names no conversation of this workspace")]
    Conversation,
    #[error("the user has no connected account and the workspace has no smarthost: connect one of them")]
    NoWayOut,
    #[error(
        "the user has no connected account, and without a domain for reply addresses (domains.reply) the smarthost \
         cannot send for him: connect his account"
    )]
    NoReplyDomain,
}

impl ControlFields {
    /// Reads the control fields of a header.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn read(header: &HeaderBlock<'_>) -> Result<Self, Refusal> {
        let class = match header.text("X-Mailweave-Class").as_deref().map(str::trim) {
            None => SendClass::default(),
            Some(word) => class(word).ok_or(Refusal::Class)?,
        };
        let idempotency_key = header.text("X-Mailweave-Idempotency-Key").map(|key| key.trim().to_owned());
        if idempotency_key.as_ref().is_some_and(|key| !is_key(key)) {
            return Err(Refusal::IdempotencyKey);
        }
        let conversation = header.text("X-Mailweave-Conversation");
        let conversation =
            conversation.map(|id| id.trim().parse().map_err(|_| Refusal::Conversation)).transpose()?;
        Ok(Self { class, idempotency_key, conversation })
    }
}

fn class(word: &str) -> Option<SendClass> {
    match word.to_ascii_lowercase().as_str() {
        "individual" => Some(SendClass::Individual),
        "bulk" => Some(SendClass::Bulk),
        "workflow" => Some(SendClass::Workflow),
        _ => None,
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX && !key.chars().any(char::is_control)
}

/// The way out: the user's account or the workspace's smarthost, as policy says; the other one when that is not there.
///
/// # Errors
/// The inner one says that there is no way out; the outer ones are the store's.
pub async fn choose_exit(
    session: &mut Session,
    gateway: &Gateway,
    order: &SendOrder,
) -> Result<Result<Exit, Refusal>, FlowError> {
    let account = session.sending_account(order.user).await?.map(Exit::Account);
    let smarthost = session.has_smarthost().await?.then_some(Exit::Smarthost);
    let exit = match gateway.policy().route(order.class) {
        ClassRoute::Account => account.or(smarthost),
        ClassRoute::Smarthost => smarthost.or(account),
    };
    let exit = exit.ok_or(Refusal::NoWayOut);
    // What a user without an account writes himself leaves from reply addresses.
    let is_masked = exit == Ok(Exit::Smarthost) && order.class == SendClass::Individual;
    match gateway.settings.ours.reply {
        None if is_masked => Ok(Err(Refusal::NoReplyDomain)),
        _ => Ok(exit),
    }
}
