//! Whether a message belongs into the CRM, decided on its header alone, before any of its content is fetched (invariant 8).
//!
//! Not here: reading policies from presets and overrides. This is our default, `mailweave`, as values.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    attribution::Attribution,
    decision::{Ruling, Verdict},
    inbound::SendClass,
    message::{Author, CaptureField, ContactRole, Direction},
};

/// The name of the default preset.
pub const DEFAULT_PRESET: &str = "mailweave";

/// What may bring a new conversation into the CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThreadStart {
    Crm,
    Capture,
    /// A contact writes.
    Inbound,
    /// The user writes to a contact.
    Outbound,
}

/// Who puts a copy of sent mail into the user's Sent mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppendSent {
    /// Search for it first; append only if the provider filed none.
    Auto,
    Never,
}

/// Where mail of a class leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassRoute {
    Account,
    Smarthost,
}

/// The policy of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub preset: &'static str,
    /// Raised by every change; decisions name the one that applied.
    pub version: i64,
    pub thread_start: Vec<ThreadStart>,
    /// Mail the provider flags as a draft.
    pub sync_drafts: bool,
    pub capture_enabled: bool,
    /// Where a capture address may stand; elsewhere it files nothing.
    pub capture_fields: Vec<CaptureField>,
    /// How far back the first sight of a mailbox reads.
    pub backfill: Duration,
    pub append_sent: AppendSent,
    pub bulk_route: ClassRoute,
    pub workflow_route: ClassRoute,
}

impl Policy {
    /// The default preset.
    #[must_use]
    pub fn mailweave() -> Self {
        Self {
            preset: DEFAULT_PRESET,
            version: 1,
            thread_start: vec![
                ThreadStart::Crm,
                ThreadStart::Capture,
                ThreadStart::Inbound,
                ThreadStart::Outbound,
            ],
            sync_drafts: false,
            capture_enabled: true,
            capture_fields: vec![CaptureField::Bcc, CaptureField::Cc, CaptureField::To],
            backfill: Duration::from_secs(30 * 24 * 60 * 60),
            append_sent: AppendSent::Auto,
            bulk_route: ClassRoute::Smarthost,
            workflow_route: ClassRoute::Smarthost,
        }
    }

    /// Where mail of this class leaves.
    #[must_use]
    pub fn route(&self, class: SendClass) -> ClassRoute {
        match class {
            SendClass::Individual => ClassRoute::Account,
            SendClass::Bulk => self.bulk_route,
            SendClass::Workflow => self.workflow_route,
        }
    }

    fn starts(&self, start: ThreadStart) -> bool {
        self.thread_start.contains(&start)
    }
}

/// What is known of a message in a user's mailbox from its header.
#[derive(Debug, Clone, Copy)]
pub struct MailboxFacts<'a> {
    pub attribution: &'a Attribution,
    /// It shares a thread key with mail in the CRM.
    pub thread_known: bool,
    pub is_draft: bool,
}

/// Judges a message found in a user's mailbox.
#[must_use]
pub fn judge_mailbox(policy: &Policy, facts: MailboxFacts<'_>) -> Ruling {
    let who = facts.attribution;
    let has = |role: ContactRole| who.contacts.iter().any(|(_, held)| *held == role);
    if facts.is_draft && !policy.sync_drafts {
        return skipped("draft", "It is a draft, not yet sent.");
    }
    if who.direction == Direction::Internal {
        return skipped("internal", "Everybody on it works in this workspace.");
    }
    if facts.thread_known {
        return synced("known_thread", "It belongs to a conversation that is in the CRM.");
    }
    if matches!(who.author, Author::Contact(_)) && policy.starts(ThreadStart::Inbound) {
        return synced("contact_wrote", "A contact wrote it.");
    }
    let to_contact = has(ContactRole::To) || has(ContactRole::Cc) || has(ContactRole::Bcc);
    if matches!(who.author, Author::User(_)) && to_contact && policy.starts(ThreadStart::Outbound) {
        return synced("wrote_to_contact", "A user wrote it to a contact.");
    }
    if to_contact {
        return skipped("stranger_wrote", "A contact is on it, but somebody unknown wrote it.");
    }
    skipped("no_contact", "Nobody on it is a contact.")
}

/// Judges a copy sent to a capture address.
#[must_use]
pub fn judge_capture(policy: &Policy, author: &Author, field: CaptureField) -> Ruling {
    if !policy.capture_enabled || !policy.starts(ThreadStart::Capture) {
        return skipped("capture_off", "Capture addresses are switched off in this workspace.");
    }
    if !policy.capture_fields.contains(&field) {
        return skipped("capture_field", "The capture address stood in a field that policy does not allow.");
    }
    match author {
        Author::User(_) => synced("captured", "A user sent a copy to a capture address."),
        _ => held(
            "capture_sender_unknown",
            "It came to a capture address, but its From is no user of this workspace.",
        ),
    }
}

/// Mail with a null reverse-path at a capture address: a report, or an answering machine's. Nobody sent it to have it filed,
/// and it causes nothing (RFC 5321 section 4.5.5, RFC 3834 section 2).
#[must_use]
pub fn null_reverse_path() -> Ruling {
    skipped(
        "null_reverse_path",
        "It came to a capture address from the null reverse-path: a machine sent it.",
    )
}

/// A user forwarded mail to be told why it was filed or left out. The question itself is no mail for the CRM.
#[must_use]
pub fn question() -> Ruling {
    skipped("question", "A user asked by it what was decided about another mail, and is answered.")
}

/// The same question where nobody may be answered.
#[must_use]
pub fn foreign_question() -> Ruling {
    skipped(
        "foreign_question",
        "It asks what was decided about a mail, but does not come from the user whom the address belongs to.",
    )
}

/// A question that no person wrote.
#[must_use]
pub fn automatic_question() -> Ruling {
    skipped("automatic_question", "It came to where users ask about decisions, but a machine sent it.")
}

/// More questions than people ask.
#[must_use]
pub fn too_many_questions() -> Ruling {
    skipped("too_many_questions", "So many questions came within ten minutes that it looks like a loop.")
}

/// A delivery report on mail that we sent. Whoever reports is no participant, and nobody is answered.
#[must_use]
pub fn delivery_report() -> Ruling {
    synced("delivery_report", "It reports on the delivery of mail that was sent from here.")
}

/// Mail at a reply address whose participant wrote it.
#[must_use]
pub fn answered() -> Ruling {
    synced("reply_address", "A participant answered to his reply address.")
}

/// Mail at a reply address that somebody else wrote, who merely learned the address.
#[must_use]
pub fn foreign_answer() -> Ruling {
    held(
        "reply_from_other_address",
        "It came to a reply address from somebody other than the participant it belongs to.",
    )
}

/// More mail from one sender at one reply address than people write.
#[must_use]
pub fn possible_loop() -> Ruling {
    held("possible_loop", "One sender has written to one reply address so often that it looks like a loop.")
}

/// A copy of what the CRM sent itself, at a reply address: passed on from there it would be sent twice.
#[must_use]
pub fn sent_already() -> Ruling {
    held("sent_by_crm", "It came to a reply address, but the CRM sent this message itself.")
}

/// Rules under which mail stays left out whatever becomes known of its conversation later: no use in fetching it again.
pub const FINAL_RULES: [&str; 4] = ["draft", "internal", "too_large", "gone_at_provider"];

/// Mail that belongs but that the provider cannot hand out.
#[must_use]
pub fn unreadable() -> Ruling {
    skipped("unreadable_at_provider", "It belongs to the CRM, but the provider cannot hand it out.")
}

/// Mail that belongs but is larger than the operator allows.
#[must_use]
pub fn too_large() -> Ruling {
    skipped("too_large", "It belongs to the CRM, but it is larger than messages may be.")
}

/// Mail that was left out and is no longer at the provider.
#[must_use]
pub fn gone() -> Ruling {
    skipped("gone_at_provider", "It was left out, and the user has deleted or moved it since.")
}

fn synced(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Synced, rule, reason }
}

fn held(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Held, rule, reason }
}

fn skipped(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Skipped, rule, reason }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{
        super::ids::{ContactId, Id, UserId},
        *,
    };

    fn attribution(direction: Direction, author: Author, roles: &[ContactRole]) -> Attribution {
        let contact = |n| ContactId::from_uuid(Uuid::from_u128(n));
        let contacts = (1_u128..).zip(roles).map(|(n, role)| (contact(n), *role)).collect();
        Attribution { direction, author, author_party: None, contacts, outsiders: Vec::new() }
    }

    fn user() -> Author {
        Author::User(UserId::from_uuid(Uuid::from_u128(9)))
    }

    fn contact() -> Author {
        Author::Contact(ContactId::from_uuid(Uuid::from_u128(1)))
    }

    #[track_caller]
    fn check(attribution: &Attribution, thread_known: bool, is_draft: bool, rule: &str) {
        let ruling =
            judge_mailbox(&Policy::mailweave(), MailboxFacts { attribution, thread_known, is_draft });
        assert_eq!(ruling.rule, rule);
    }

    #[test]
    fn mail_with_contacts_is_synced_and_all_else_is_private() {
        use ContactRole::{Cc, From, To};
        use Direction::{Inbound, Internal, Outbound};
        check(&attribution(Inbound, contact(), &[From]), false, false, "contact_wrote");
        check(&attribution(Outbound, user(), &[To]), false, false, "wrote_to_contact");
        check(&attribution(Outbound, user(), &[To]), false, true, "draft");
        check(&attribution(Outbound, user(), &[]), false, false, "no_contact");
        check(&attribution(Outbound, user(), &[]), true, false, "known_thread");
        check(&attribution(Internal, user(), &[]), true, false, "internal");
        check(&attribution(Inbound, Author::Other, &[Cc]), false, false, "stranger_wrote");
    }

    #[test]
    fn only_a_users_own_mail_is_captured() {
        let rule = |author: &Author| judge_capture(&Policy::mailweave(), author, CaptureField::Bcc).rule;
        assert_eq!(rule(&user()), "captured");
        assert_eq!(rule(&contact()), "capture_sender_unknown");
        assert_eq!(rule(&Author::Other), "capture_sender_unknown");
    }
}
