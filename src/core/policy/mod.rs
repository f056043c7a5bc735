//! What an admin decides: whether a message belongs into the CRM and what becomes of it, as a pure function of facts and a
//! policy, and policies as data.
//!
//! Read `settings` (every setting), `preset` (named policies), `layers` (who changed what), then `people`, `tenancy`, `judge`
//! and `attachments`, then `simulate` (what all of it would make of mail).
//! Not here: gathering facts and obeying verdicts (`flow`).

use std::sync::Arc;

pub mod attachments;
pub mod judge;
pub mod layers;
pub mod people;
pub mod preset;
mod rulings;
pub mod settings;
pub mod simulate;
pub mod span;
pub mod tenancy;

pub use attachments::{FileRule, Files, judge_files};
pub use judge::{AWAITS_ANSWER, EXCHANGE, MAY_BEGIN, MailboxFacts, Traits, judge_capture, judge_mailbox};
pub use layers::{BadSetting, Choice, Choices, Effective, Overrides, Source};
pub use people::{ListedContact, known, whom};
pub use preset::{DEFAULT_PRESET, Preset};
pub use rulings::{
    ANSWERS_OTHER_WORKSPACE, FINAL_RULES, SENT_BY_OTHER_WORKSPACE, answered, automatic_question,
    capture_sender_unknown, copy_loop, delivery_report, foreign_answer, foreign_question, foreign_report,
    forwarded, gone, held_already, null_reverse_path, over_sync_limit, possible_loop, question, released,
    revealing_invitation, sent_already, too_large, too_many_questions, unanswered_question, unbelieved,
    unproven_question, unreadable,
};
pub use settings::{AppendSent, MultiTenant, Settings, ThreadStart};
pub use tenancy::Elsewhere;

/// The policy that applies to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The preset it began with.
    pub preset: String,
    /// Raised by every change; decisions name the one that applied.
    pub version: i64,
    /// Shared by all who have a preset as it is.
    pub settings: Arc<Settings>,
}

impl Policy {
    /// A preset as it is, its first version.
    #[must_use]
    pub fn of_preset(preset: &Preset) -> Self {
        Self { preset: preset.name.to_owned(), version: 1, settings: Arc::clone(&preset.settings) }
    }
}
