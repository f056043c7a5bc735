//! Every kind of durable work, as a closed list: a job is committed with the fact that caused it (invariant 3).
//!
//! Not here: claiming, leasing and retrying (`queue`), and doing it (`flow`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{AccountId, DecisionId, Id as _, MessageKey, UserId, WebhookId};
use crate::mail::MessageId;

/// What is to be done. The serialised form is stored: add variants and optional fields, rename nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "job")]
pub enum Job {
    /// Read what a listener took in and file it.
    Process { inbound: MessageKey },
    /// The same transaction came again: one more sighting of what it became.
    Repeat { inbound: MessageKey },
    /// Send through the user's account or the smarthost.
    Submit { message: MessageKey, exit: JobExit },
    /// See that a sent message lies in Sent, once.
    SaveSent { message: MessageKey, account: AccountId },
    /// Report a submission's failure or success to the CRM's reverse-path.
    Report { message: MessageKey },
    /// Fetch mail again that was skipped, by this decision, before it was known to belong.
    Refetch { account: AccountId, decision: DecisionId },
    /// Have mail fetched that was put off at a limit, as far as there is room by now.
    TakeUp { account: AccountId },
    /// Post one event to one endpoint.
    Deliver { webhook: WebhookId, seq: i64 },
    /// Tell a user what was decided about the mail he asked about.
    Explain { question: Question },
    /// Tell a provider that a grant is needed no more.
    GiveBack { grant: Uuid },
    /// Delete what is left of a workspace that is to be erased.
    Erase,
    /// Delete what an account alone has brought, and what is known of it.
    EraseAccount { account: AccountId },
}

/// Who asked about which mail. The mail itself may be one that was left out: of it only keyed hashes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The key under which the question was taken in; the answer's Message-ID is made of it.
    pub id: MessageKey,
    pub user: UserId,
    /// The question's own id, which the answer answers.
    pub message_id: Option<MessageId>,
    /// Of the ids of the mail, as decisions hold them.
    pub ids: Vec<[u8; 16]>,
    /// Of the people on it, for when no id is known.
    pub addresses: Vec<[u8; 16]>,
    /// The answer's final dot may have gone out. Written before it.
    #[serde(default)]
    pub is_being_answered: bool,
}

/// The queue lane of a submission: one at a time for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobExit {
    Account(AccountId),
    Smarthost,
}

impl Job {
    /// The kind by which workers claim.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Process { .. } => JobKind::Process,
            Self::Repeat { .. } => JobKind::Repeat,
            Self::Submit { .. } => JobKind::Submit,
            Self::SaveSent { .. } => JobKind::SaveSent,
            Self::Report { .. } => JobKind::Report,
            Self::Refetch { .. } => JobKind::Refetch,
            Self::TakeUp { .. } => JobKind::TakeUp,
            Self::Deliver { .. } => JobKind::Deliver,
            Self::Explain { .. } => JobKind::Explain,
            Self::GiveBack { .. } => JobKind::GiveBack,
            Self::Erase | Self::EraseAccount { .. } => JobKind::Erase,
        }
    }

    /// The lane in which jobs follow one another; `None` runs beside all others. `subject` is what the event of a
    /// `Deliver` tells of.
    #[must_use]
    pub fn lane(&self, subject: Option<&str>) -> Option<String> {
        match self {
            // An account's provider counts concurrent submissions; a smarthost is built for many.
            Self::Submit { exit: JobExit::Account(account), .. } => Some(submit_lane(*account)),
            Self::Submit { message, exit: JobExit::Smarthost } => Some(beside("smarthost", *message)),
            Self::Report { message } => Some(beside("report", *message)),
            Self::SaveSent { account, .. } => Some(sent_lane(*account)),
            Self::Refetch { account, .. } => Some(refetch_lane(*account)),
            Self::TakeUp { account } => Some(format!("take-up/{account}")),
            Self::Explain { question } => Some(format!("why/{}", question.user)),
            // Events of one subject arrive in order; others do not wait for them.
            Self::Deliver { webhook, .. } => subject.map(|subject| delivery_lane(*webhook, subject)),
            _ => None,
        }
    }
}

/// Mail that a workspace sends by its smarthost at one time, of each kind: one that hangs must not take the workers of all
/// workspaces with it.
const SMARTHOST_LANES: u128 = 4;

/// One of the lanes beside each other that the messages of a workspace are spread over.
fn beside(lane: &str, message: MessageKey) -> String {
    format!("{lane}/{}", message.uuid().as_u128() % SMARTHOST_LANES)
}

/// The lane of mail that leaves by an account.
#[must_use]
pub fn submit_lane(account: AccountId) -> String {
    format!("submit/{account}")
}

/// The lanes of mail that leaves by the smarthost.
pub fn smarthost_lanes() -> impl Iterator<Item = String> {
    (0..SMARTHOST_LANES).map(|number| format!("smarthost/{number}"))
}

/// The lane of an account's `Refetch` jobs.
#[must_use]
pub fn refetch_lane(account: AccountId) -> String {
    format!("refetch/{account}")
}

/// The lane of an account's `SaveSent` jobs.
#[must_use]
pub fn sent_lane(account: AccountId) -> String {
    format!("sent/{account}")
}

/// The lane of the events of one subject on their way to one endpoint.
#[must_use]
pub fn delivery_lane(webhook: WebhookId, subject: &str) -> String {
    format!("{}{subject}", delivery_lanes(webhook))
}

/// What all lanes of an endpoint begin with, and no others.
#[must_use]
pub fn delivery_lanes(webhook: WebhookId) -> String {
    format!("hook/{webhook}/")
}

/// The kind of a job, which decides who claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobKind {
    Process,
    Repeat,
    Submit,
    SaveSent,
    Report,
    Refetch,
    TakeUp,
    Deliver,
    Explain,
    GiveBack,
    Erase,
}

impl JobKind {
    pub const ALL: [Self; 11] = [
        Self::Process,
        Self::Repeat,
        Self::Submit,
        Self::SaveSent,
        Self::Report,
        Self::Refetch,
        Self::TakeUp,
        Self::Deliver,
        Self::Explain,
        Self::GiveBack,
        Self::Erase,
    ];

    /// Whether a lane's jobs are done in the order they came in, all of them waiting for one that waits for its retry.
    /// Events are told in order; of mail, one message that a server puts off must not hold up the others.
    #[must_use]
    pub fn keeps_order(self) -> bool {
        !matches!(self, Self::Submit | Self::SaveSent | Self::Report | Self::Refetch | Self::Explain)
    }

    /// The word it is stored by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Repeat => "repeat",
            Self::Submit => "submit",
            Self::SaveSent => "save_sent",
            Self::Report => "report",
            Self::Refetch => "refetch",
            Self::TakeUp => "take_up",
            Self::Deliver => "deliver",
            Self::Explain => "explain",
            Self::GiveBack => "give_back",
            Self::Erase => "erase",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_workspace_sends_by_its_smarthost_in_few_lanes() {
        let message = |number| MessageKey::from_uuid(Uuid::from_u128(number));
        let lanes = |job: fn(MessageKey) -> Job| -> BTreeSet<_> {
            (0..1_000).map(|number| job(message(number)).lane(None).expect("a lane")).collect()
        };
        let submit = lanes(|message| Job::Submit { message, exit: JobExit::Smarthost });
        assert_eq!(
            submit.into_iter().collect::<Vec<_>>(),
            ["smarthost/0", "smarthost/1", "smarthost/2", "smarthost/3"]
        );
        assert_eq!(lanes(|message| Job::Report { message }).len(), 4);
    }
}
