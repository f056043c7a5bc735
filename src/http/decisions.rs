//! Why each message seen was synced, skipped, deferred or held.
//!
//! Skipped mail is found by the Message-ID or address asked for, though only keyed hashes of them are kept.
//! Not here: deciding (`core::policy`).

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::Parameters,
    openapi::VerdictWord,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        decision::{Decision, Verdict},
        ids::{AccountId, DecisionId, MessageKey},
    },
    mail::{Address, MessageId},
    store::{DecisionFilter, PageKey},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Decision)]
struct DecisionView {
    #[schema(value_type = String)]
    id: DecisionId,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = VerdictWord)]
    verdict: Verdict,
    /// A stable word for the rule.
    rule: String,
    /// The reason in plain words.
    reason: String,
    preset: String,
    policy_version: i64,
    #[schema(value_type = Option<String>)]
    message_id: Option<MessageKey>,
    #[schema(value_type = Option<String>)]
    account_id: Option<AccountId>,
    /// `capture`, `submission`, `api`, `account` or `reply`.
    via: String,
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        Self {
            id: decision.id,
            at: decision.at,
            verdict: decision.verdict,
            rule: decision.rule,
            reason: decision.reason,
            preset: decision.preset,
            policy_version: decision.policy_version,
            message_id: decision.message_id,
            account_id: decision.account_id,
            via: decision.via,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// A Message-ID that the mail has or names, with or without brackets.
    #[serde(default, deserialize_with = "message_id")]
    #[param(value_type = Option<String>)]
    rfc822_message_id: Option<MessageId>,
    /// The Message-ID of the mail itself: of mail that only names it, nothing is listed.
    #[serde(default, deserialize_with = "message_id")]
    #[param(value_type = Option<String>)]
    own_message_id: Option<MessageId>,
    /// An address in From, To, Cc or Bcc.
    #[param(value_type = Option<String>)]
    address: Option<Address>,
    #[param(value_type = Option<String>)]
    account_id: Option<AccountId>,
    #[param(value_type = Option<VerdictWord>)]
    verdict: Option<Verdict>,
    #[param(value_type = Option<String>)]
    message_id: Option<MessageKey>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

fn message_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MessageId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    MessageId::parse(&text).map(Some).ok_or_else(|| de::Error::custom("not a Message-ID"))
}

/// List decisions, newest first. A key that is bound to a user is told of all that was filed, and of what was not only what
/// came to the user's own accounts and addresses.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/decisions", tag = "decisions", operation_id = "list_decisions",
    params(Listing), responses((status = 200, body = List<DecisionView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<DecisionView>>, Problem> {
    use crate::core::ids::Id as _;
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let mut session = access.read(&api).await?;
    let hasher = session.text_hasher().await?;
    let id = query.rfc822_message_id.as_ref().map(|id| hasher.hash(id.as_str()));
    let address = query.address.as_ref().map(|address| hasher.hash(address.key()));
    let filter = DecisionFilter {
        hashes: id.into_iter().collect(),
        address,
        own_id: query.own_message_id.as_ref().map(|id| hasher.hash(id.as_str())),
        account: query.account_id,
        verdict: query.verdict,
        message: query.message_id,
        told: access.bound_to(),
    };
    let rows = session.decisions(&page, &filter).await?;
    let key = |row: &Decision| PageKey { at: row.at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, DecisionView::from))
}
