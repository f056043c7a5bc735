//! How far the sender of a captured message is believed, as it is shown.
//!
//! Not here: weighing him (`core::evidence`).

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::{LevelWord, MarkWord};
use crate::{
    core::evidence::{Level, Mark},
    store::Verification,
};

#[derive(Serialize, ToSchema)]
#[schema(as = Verification)]
pub(super) struct VerificationView {
    /// `e4`: it lies in the user's own Sent mailbox, or was sent from here. `e3`: his provider vouches for him as always. `e2`: it
    /// does, with a doubt left. `e1`: he names a user and proves nothing. `e0`: something speaks against him.
    #[schema(value_type = LevelWord)]
    level: Level,
    /// A stable word for the rule.
    rule: String,
    /// The reason in plain words.
    reason: String,
    /// What to show beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MarkWord>)]
    mark: Option<Mark>,
    /// By which way it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    checked_at: Timestamp,
    /// Whose key let it in, of mail that a person released from quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_by: Option<String>,
}

impl From<Verification> for VerificationView {
    fn from(verification: Verification) -> Self {
        let Verification { level, rule, reason, mark, route, checked_at, released_by } = verification;
        Self { level, rule, reason, mark, route, checked_at, released_by }
    }
}
