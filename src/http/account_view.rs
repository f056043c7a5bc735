//! Accounts and their health as they are shown, with a word and a colour for each state.
//!
//! Not here: credentials. Nothing of them is ever shown.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::{AccountStateWord, SecurityWord};
use crate::{
    core::{
        account::{Account, AccountError, AccountState, AccountStatus, Endpoint, Progress, Security},
        ids::{AccountId, UserId},
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
    imap: EndpointView,
    smtp: EndpointView,
    auth: AuthView,
    pub(super) status: StatusView,
    /// Mail that was at the provider before this is filed without events.
    #[schema(value_type = String, format = DateTime)]
    connected_at: Timestamp,
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
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            user_id: account.user_id,
            email: account.email,
            imap: account.settings.imap.into(),
            smtp: account.settings.smtp.into(),
            auth: AuthView { kind: "password" },
            status: account.status.into(),
            connected_at: account.connected_at,
        }
    }
}

/// How an account is doing.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountStatus)]
pub(super) struct StatusView {
    #[schema(value_type = AccountStateWord)]
    state: AccountState,
    /// The state in words to show.
    label: &'static str,
    /// `green`, `blue`, `yellow`, `red` or `gray`.
    color: &'static str,
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

impl From<AccountStatus> for StatusView {
    fn from(status: AccountStatus) -> Self {
        let (label, color) = words(status.state);
        Self {
            state: status.state,
            label,
            color,
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

/// The words and colours of the preset `mailweave`.
fn words(state: AccountState) -> (&'static str, &'static str) {
    match state {
        AccountState::Connecting => ("Connecting", "blue"),
        AccountState::AwaitingFirstMail => ("Waiting for the first mail", "blue"),
        AccountState::Active => ("Active", "green"),
        AccountState::Backfilling => ("Reading older mail", "blue"),
        AccountState::Throttled => ("Slowed down by the provider", "yellow"),
        AccountState::Error => ("Error", "red"),
        AccountState::ReauthRequired => ("Log in again", "red"),
        AccountState::Stopped => ("Stopped", "red"),
        AccountState::WaitingForQuota => ("Waiting for the limit to lift", "yellow"),
        AccountState::Paused => ("Paused", "gray"),
        AccountState::Disconnected => ("Disconnected", "gray"),
        AccountState::Erasing => ("Being erased", "gray"),
        AccountState::Erased => ("Erased", "gray"),
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
    message: String,
    /// What you can do about it.
    advice: String,
    /// How often, in all.
    count: i64,
}

impl From<AccountError> for ErrorView {
    fn from(AccountError { at, code, message, advice, count }: AccountError) -> Self {
        Self { at, code, message, advice, count }
    }
}
