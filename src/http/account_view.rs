//! Accounts and their health as they are shown, with a word and a colour for each state.
//!
//! Not here: credentials. Nothing of them is ever shown.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::{AccountStateWord, FoundByWord, SecurityWord};
use crate::{
    core::{
        account::{
            Account, AccountError, AccountState, Endpoint, FoundBy, FoundServers, LabelledStatus, Progress,
            Receipt, Security,
        },
        account_cause::Cause,
        ids::{AccountId, UserId},
        policy::Settings,
    },
    mail::Address,
};

#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub(super) struct AccountView {
    #[schema(value_type = String)]
    id: AccountId,
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String, format = Email)]
    email: Address,
    /// Whose servers these are, as far as that is known: `google`, `microsoft` …, or `imap` for any other.
    provider: &'static str,
    imap: EndpointView,
    smtp: EndpointView,
    /// What mail that leaves by it is from.
    #[schema(value_type = String, format = Email)]
    sender: Address,
    /// Who said which servers these are.
    found_by: FoundByView,
    auth: AuthView,
    pub(super) status: StatusView,
    /// Mail that was at the provider before this is filed without events.
    #[schema(value_type = String, format = DateTime)]
    connected_at: Timestamp,
    /// What erasing it has removed so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipt: Option<ReceiptView>,
}

/// What erasing an account has removed.
#[derive(Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(super) struct ReceiptView {
    #[schema(value_type = String, format = DateTime)]
    requested_at: Timestamp,
    /// When nothing was left; null while it goes on.
    #[schema(value_type = Option<String>, format = DateTime)]
    erased_at: Option<Timestamp>,
    /// Messages that nobody else had seen.
    messages: u64,
    /// Octets of these, as they came.
    bytes: u64,
    /// Messages that were seen elsewhere too, and stay.
    messages_kept: u64,
    /// Conversations of which nothing was left.
    conversations: u64,
    /// Contacts that its mail had made and that nothing else speaks for.
    contacts: u64,
    decisions: u64,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        let Receipt {
            requested_at,
            erased_at,
            messages,
            bytes,
            messages_kept,
            conversations,
            contacts,
            decisions,
        } = receipt;
        Self { requested_at, erased_at, messages, bytes, messages_kept, conversations, contacts, decisions }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = FoundServers)]
struct FoundByView {
    #[schema(value_type = FoundByWord)]
    imap: FoundBy,
    #[schema(value_type = FoundByWord)]
    smtp: FoundBy,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
struct EndpointView {
    host: String,
    port: u16,
    #[schema(value_type = SecurityWord)]
    security: Security,
}

impl From<Endpoint> for EndpointView {
    fn from(Endpoint { host, port, security }: Endpoint) -> Self {
        Self { host, port, security }
    }
}

/// How the gateway logs in, without what it logs in with.
#[derive(Serialize, ToSchema)]
struct AuthView {
    #[serde(rename = "type")]
    #[schema(example = "password")]
    kind: &'static str,
    /// Who logs in to read and to send, where that is not `username`.
    imap_username: Option<String>,
    smtp_username: Option<String>,
}

impl AccountView {
    /// The account, its status in the words of its user's policy.
    pub(super) fn new(account: Account, settings: &Settings) -> Self {
        let status = account.shown_status(crate::flow::now());
        let provider = account.provider().name;
        let FoundServers { imap, smtp } = account.settings.found;
        Self {
            found_by: FoundByView { imap, smtp },
            id: account.id,
            user_id: account.user_id,
            auth: AuthView {
                kind: if account.is_granted { "oauth2" } else { "password" },
                imap_username: account.settings.identities.imap_login,
                smtp_username: account.settings.identities.smtp_login,
            },
            sender: account.settings.identities.sender.unwrap_or_else(|| account.email.clone()),
            email: account.email,
            provider,
            imap: account.settings.imap.into(),
            smtp: account.settings.smtp.into(),
            status: settings.labelled(status).into(),
            connected_at: account.connected_at,
            receipt: None,
        }
    }
}

/// How an account is doing.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountStatus)]
pub(super) struct StatusView {
    #[schema(value_type = AccountStateWord)]
    state: AccountState,
    /// The state in words to show, as policy has them.
    label: String,
    /// As policy has it; in the presets `green`, `blue`, `yellow`, `red` or `gray`.
    color: String,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// What happened.
    detail: Option<String>,
    /// What you can do about it.
    advice: Option<String>,
    /// The last time matching mail was filed.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_synced_at: Option<Timestamp>,
    /// The last time the provider was asked.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_checked_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Progress)]
struct ProgressView {
    done: u64,
    total: u64,
}

impl From<LabelledStatus> for StatusView {
    fn from(LabelledStatus { status, label }: LabelledStatus) -> Self {
        Self {
            state: status.state,
            label: label.label,
            color: label.color,
            since: status.since,
            detail: status.detail,
            advice: status.advice,
            last_synced_at: status.last_synced_at,
            last_checked_at: status.last_checked_at,
            next_attempt_at: status.next_attempt_at,
            progress: status.progress.map(|Progress { done, total }| ProgressView { done, total }),
        }
    }
}

/// One line of the error log.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountError)]
pub(super) struct ErrorView {
    /// The last time.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    code: String,
    /// The kind of cause, in the words that users of other systems know it by; null of what is no error.
    title: Option<&'static str>,
    message: String,
    /// What you can do about it.
    advice: String,
    /// How often, in all.
    count: i64,
}

impl From<AccountError> for ErrorView {
    fn from(AccountError { at, code, message, advice, count }: AccountError) -> Self {
        let title = Cause::of(&code).map(Cause::text);
        Self { at, code, title, message, advice, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        account::AccountStatus,
        policy::{Policy, Preset},
    };

    #[test]
    fn events_and_the_api_show_a_status_alike() {
        for state in AccountState::ALL {
            let status = AccountStatus {
                state,
                since: Timestamp::UNIX_EPOCH,
                detail: Some("It broke.".into()),
                advice: (state == AccountState::Error).then(|| "Mend it.".into()),
                last_synced_at: Some(Timestamp::UNIX_EPOCH),
                last_checked_at: None,
                next_attempt_at: Some(Timestamp::UNIX_EPOCH),
                progress: (state == AccountState::Backfilling).then_some(Progress { done: 1, total: 2 }),
            };
            let status = Policy::of_preset(Preset::default_preset()).settings.labelled(status);
            let told = status.data();
            assert_eq!(serde_json::to_value(StatusView::from(status)).unwrap(), told);
        }
    }
}
