//! Whether anything is missing: what comparing mailboxes with their servers has found, and how much of what a user writes to
//! contacts is in the CRM.
//!
//! Not here: comparing (`flow::sync`), which `POST …/accounts/{id}/sync` asks for.

use axum::{Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Parameters, PathId},
    message_view::mailbox_name,
    problem::Problem,
};
use crate::{
    core::{
        account::Comparison,
        ids::{AccountId, UserId},
    },
    flow,
    store::{AccountFilter, Page},
};

/// How far back coverage is told when nothing is asked for.
const DAYS_DEFAULT: u16 = 30;
/// The longest time that coverage is told of: it is counted anew each time.
const DAYS_MAX: u16 = 366;
/// Accounts of one user that are counted.
const ACCOUNTS_MAX: u32 = 200;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(completeness)).routes(routes!(coverage))
}

/// What comparing an account's mailboxes with its server has found.
#[derive(Serialize, ToSchema)]
struct Completeness {
    #[schema(value_type = String)]
    account_id: AccountId,
    /// When the mailbox compared longest ago was; null while none of them was. One that the server does not open never is.
    #[schema(value_type = Option<String>, format = DateTime)]
    compared_at: Option<Timestamp>,
    /// Messages that had been passed over and were taken in after all, ever.
    healed: u64,
    mailboxes: Vec<MailboxView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MailboxCompleteness)]
struct MailboxView {
    mailbox: String,
    /// When what the server has was last compared with what was taken note of.
    #[schema(value_type = Option<String>, format = DateTime)]
    compared_at: Option<Timestamp>,
    /// Messages that were compared then.
    compared: u64,
    /// Messages that had been passed over and were taken in after all, ever.
    healed: u64,
}

impl From<Comparison> for MailboxView {
    fn from(Comparison { mailbox, at, messages, healed }: Comparison) -> Self {
        Self { mailbox: mailbox_name(&mailbox), compared_at: at, compared: messages, healed }
    }
}

/// Whether an account's mailboxes have been read without a gap.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/accounts/{id}/completeness", tag = "accounts",
    operation_id = "show_account_completeness", responses((status = 200, body = Completeness)))]
async fn completeness(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
) -> Result<Json<Completeness>, Problem> {
    let mut session = access.read(&api).await?;
    session.account(id).await?.ok_or_else(Problem::not_found)?;
    let mailboxes = session.comparisons(id).await?;
    Ok(Json(Completeness {
        account_id: id,
        compared_at: mailboxes.iter().filter_map(|mailbox| mailbox.at).min(),
        healed: mailboxes.iter().map(|mailbox| mailbox.healed).sum(),
        mailboxes: mailboxes.into_iter().map(MailboxView::from).collect(),
    }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Span {
    /// 1 to 366; 30 when left out.
    #[serde(default, deserialize_with = "days")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 366)]
    days: Option<u16>,
}

/// A number in the query's text.
fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let days = text.parse().ok().filter(|days| (1..=DAYS_MAX).contains(days));
    days.map(Some).ok_or_else(|| de::Error::custom("must be a number from 1 to 366"))
}

/// How much of what a user writes to contacts is in the CRM.
#[derive(Serialize, ToSchema)]
struct Coverage {
    #[schema(value_type = String)]
    user_id: UserId,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Mails of the user to people who are contacts today, as far as they were seen: filed, or left out of a connected account.
    contact_mail_sent: u64,
    /// Those of them that are in the CRM.
    contact_mail_captured: u64,
    /// Those of them of which the user sent a copy to a capture address.
    by_capture_address: u64,
    /// The share of what was sent that is in the CRM, 0 to 1; null when nothing was sent.
    coverage: Option<f64>,
    /// Connected accounts of the user. Without one nobody sees what he sends without a copy.
    accounts: usize,
}

/// How much of what a user writes to contacts is in the CRM.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}/coverage", tag = "users",
    operation_id = "show_user_coverage", params(Span), responses((status = 200, body = Coverage)))]
async fn coverage(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
    Parameters(query): Parameters<Span>,
) -> Result<Json<Coverage>, Problem> {
    let days = query.days.unwrap_or(DAYS_DEFAULT);
    let since = flow::now() - SignedDuration::from_hours(i64::from(days) * 24);
    let mut session = access.read(&api).await?;
    let user = session.user(id).await?.ok_or_else(Problem::not_found)?;
    let filter = AccountFilter { user: Some(id), ..AccountFilter::default() };
    let accounts = session.accounts(&Page::new(ACCOUNTS_MAX, None), &filter).await?;
    let found = session.coverage(&user, since).await?;
    Ok(Json(Coverage {
        user_id: id,
        since,
        contact_mail_sent: found.sent,
        contact_mail_captured: found.captured,
        by_capture_address: found.by_capture_address,
        coverage: found.share(),
        accounts: accounts.iter().filter(|account| account.status.state.is_worked()).count(),
    }))
}
