//! Every kind of durable work, as a closed list: a job is committed with the fact that caused it (invariant 3).
//!
//! Not here: claiming, leasing and retrying (`queue`), and doing it (`flow`).

use serde::{Deserialize, Serialize};

use super::{
    account::MailboxUid,
    ids::{AccountId, ConversationId, MessageKey, WebhookId},
};

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
    /// Fetch mail again that was skipped before it was known to belong.
    Refetch { at: MailboxUid },
    /// Post one event to one endpoint.
    Deliver { webhook: WebhookId, seq: i64 },
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
            Self::Deliver { .. } => JobKind::Deliver,
        }
    }

    /// The lane in which jobs follow one another; `None` runs beside all others.
    #[must_use]
    pub fn lane(&self, conversation: Option<ConversationId>) -> Option<String> {
        match self {
            // An account's provider counts concurrent submissions; a smarthost is built for many.
            Self::Submit { exit: JobExit::Account(account), .. } => Some(format!("submit/{account}")),
            Self::SaveSent { account, .. } => Some(format!("sent/{account}")),
            Self::Refetch { at } => Some(format!("refetch/{}", at.account)),
            // Events of one conversation arrive in order; others do not wait for them.
            Self::Deliver { webhook, .. } => Some(
                conversation.map_or_else(|| format!("hook/{webhook}"), |c| format!("hook/{webhook}/{c}")),
            ),
            _ => None,
        }
    }
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
    Deliver,
}

impl JobKind {
    pub const ALL: [Self; 7] = [
        Self::Process,
        Self::Repeat,
        Self::Submit,
        Self::SaveSent,
        Self::Report,
        Self::Refetch,
        Self::Deliver,
    ];

    /// Whether a lane's jobs are done in the order they came in, all of them waiting for one that waits for its retry.
    /// Events are told in order; of mail, one message that a server puts off must not hold up the others.
    #[must_use]
    pub fn keeps_order(self) -> bool {
        !matches!(self, Self::Submit | Self::SaveSent | Self::Refetch)
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
            Self::Deliver => "deliver",
        }
    }
}
