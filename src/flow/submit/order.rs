//! What the CRM asks for with a message: its control fields, and the way out that policy allows.
//!
//! Not here: who may ask (`handler` for SMTP, `http` for the API).

use crate::{
    core::{
        ids::{ConversationId, UserId},
        inbound::{Exit, SendClass},
        policy::Settings,
        submission::Smarthost,
    },
    flow::Gateway,
    mail::{Address, HeaderBlock},
    store::{Error, Session},
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
        "the user has no connected account and the smarthost does not send for {0}: connect his account, or add {0} \
         to the smarthost's from_domains"
    )]
    ForeignDomain(String),
    #[error(
        "the user has no connected account, and without a reply domain (domains.reply) he cannot write by the \
         smarthost: connect his account"
    )]
    NoReplyDomain,
    #[error(
        "by policy mail of this class leaves by the smarthost alone (bulk_route, workflow_route), and the workspace has \
         none: set one, or change the policy"
    )]
    SmarthostAlone,
    #[error(
        "by policy mail of this class leaves by the smarthost alone (bulk_route, workflow_route), and that does not send \
         for {0}: add {0} to its from_domains, or change the policy"
    )]
    SmarthostAloneFor(String),
}

/// Who sends what kind of mail.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub user: UserId,
    /// The address in From.
    pub from: &'a Address,
    pub class: SendClass,
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

/// The way out: the user's account or the workspace's smarthost, as his policy says. Mail of a user without an account leaves by
/// the smarthost; what policy keeps from a user's account never leaves by it.
///
/// # Errors
/// The inner one says that there is no way out; the outer ones are the store's.
pub async fn choose_exit(
    session: &mut Session,
    gateway: &Gateway,
    sender: Sender<'_>,
    settings: &Settings,
) -> Result<Result<Exit, Refusal>, Error> {
    let account = match session.sending_account(sender.user).await? {
        Some(id) => session.account(id).await?,
        None => None,
    };
    let is_from = account.as_ref().is_some_and(|account| {
        account.email == *sender.from || account.settings.identities.sender.as_ref() == Some(sender.from)
    });
    let account = account.map(|account| Exit::Account(account.id));
    let smarthost = choose_smarthost(session, gateway, sender).await?;
    Ok(match (settings.leaves_by_account(sender.class, is_from), account) {
        (true, Some(account)) => Ok(account),
        (true, None) => smarthost,
        (false, _) => smarthost.map_err(Refusal::by_smarthost_alone),
    })
}

impl Refusal {
    /// The same of mail that a user's account would not take either.
    fn by_smarthost_alone(self) -> Self {
        match self {
            Self::NoWayOut => Self::SmarthostAlone,
            Self::ForeignDomain(domain) => Self::SmarthostAloneFor(domain),
            other => other,
        }
    }
}

/// The smarthost, if there is one that sends for him.
///
/// # Errors
/// As of [`choose_exit`].
pub(super) async fn choose_smarthost(
    session: &mut Session,
    gateway: &Gateway,
    sender: Sender<'_>,
) -> Result<Result<Exit, Refusal>, Error> {
    let Some(smarthost) = session.smarthost().await? else { return Ok(Err(Refusal::NoWayOut)) };
    Ok(by_smarthost(&smarthost, gateway.settings.ours.reply.as_deref(), sender))
}

/// A smarthost sends for the domains it was set for, and no other goes out with it: its provider answers for every From.
/// Mail of a single user without an account leaves from a reply address, so that domain counts.
pub(super) fn by_smarthost(
    smarthost: &Smarthost,
    reply_domain: Option<&str>,
    sender: Sender<'_>,
) -> Result<Exit, Refusal> {
    let domain = match sender.class {
        SendClass::Individual => reply_domain.ok_or(Refusal::NoReplyDomain)?,
        SendClass::Bulk | SendClass::Workflow => sender.from.domain(),
    };
    match smarthost.from_domains.iter().any(|allowed| allowed == domain) {
        true => Ok(Exit::Smarthost),
        false => Err(Refusal::ForeignDomain(domain.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::core::{
        account::{Endpoint, Security},
        ids::Id as _,
    };

    #[track_caller]
    fn check(class: SendClass, reply_domain: Option<&str>, allowed: &[&str], expected: Result<(), Refusal>) {
        let endpoint = Endpoint { host: "smtp.example".into(), port: 587, security: Security::Tls };
        let from_domains = allowed.iter().map(|domain| (*domain).to_owned()).collect();
        let from = Address::parse("Ann@Acme.example").unwrap();
        let sender = Sender { user: UserId::from_uuid(Uuid::nil()), from: &from, class };
        let chosen = by_smarthost(&Smarthost { endpoint, from_domains }, reply_domain, sender);
        assert_eq!(chosen, expected.map(|()| Exit::Smarthost));
    }

    #[test]
    fn a_smarthost_sends_for_its_domains_alone() {
        use SendClass::{Bulk, Individual, Workflow};
        let foreign = |domain: &str| Err(Refusal::ForeignDomain(domain.to_owned()));
        for class in [Bulk, Workflow] {
            check(class, None, &["other.example", "acme.example"], Ok(()));
            check(class, Some("reply.example"), &["reply.example"], foreign("acme.example"));
            check(class, None, &["mail.acme.example"], foreign("acme.example"));
        }
        check(Individual, Some("reply.example"), &["reply.example"], Ok(()));
        check(Individual, Some("reply.example"), &["acme.example"], foreign("reply.example"));
        check(Individual, None, &["acme.example"], Err(Refusal::NoReplyDomain));
    }
}
