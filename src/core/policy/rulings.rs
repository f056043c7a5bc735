//! Verdicts that follow from what a message is, whatever the policy: reports, answers, loops, what cannot be read.
//!
//! Not here: verdicts that depend on settings (`judge`).

use super::{settings::OverSync, tenancy::Elsewhere};
use crate::{
    core::decision::{Ruling, Verdict},
    mail::forward::Certainty,
};

/// Mail with a null reverse-path at a capture address: a report, or an answering machine's. Nobody sent it to have it filed,
/// and it causes nothing (RFC 5321 section 4.5.5, RFC 3834 section 2).
#[must_use]
pub fn null_reverse_path() -> Ruling {
    skipped(
        "null_reverse_path",
        "It came to a capture address from the null reverse-path: a machine sent it.",
    )
}

/// A copy whose From is nobody of the workspace's.
#[must_use]
pub fn capture_sender_unknown() -> Ruling {
    held("capture_sender_unknown", "It came to a capture address, but its From is no user of this workspace.")
}

/// A copy whose sender is not believed; why, by the rule that weighed him.
#[must_use]
pub fn unbelieved(rule: &'static str, reason: &'static str) -> Ruling {
    held(rule, reason)
}

/// A copy of what is kept aside already.
#[must_use]
pub fn held_already() -> Ruling {
    skipped("held_already", "The same message is kept aside already, with nothing less to speak for it.")
}

/// Mail that was kept aside and that a person let in.
#[must_use]
pub fn released() -> Ruling {
    synced("released", "It was kept aside, and a person let it in.")
}

/// Mail that a user passed on to his capture address, as its author's whom his mail program names.
#[must_use]
pub fn forwarded(certainty: Certainty) -> Ruling {
    synced(
        "forwarded",
        match certainty {
            Certainty::High => {
                "A user forwarded it to a capture address: it is filed as its original author's. Who that is is sure: the \
                 mail is attached, or the user's mail program says that it is forwarded."
            }
            Certainty::Medium | Certainty::Low => {
                "A user forwarded it to a capture address: it is filed as its original author's. Who that is is likely: the \
                 subject says that it is forwarded, and the text begins with the header of the mail."
            }
        },
    )
}

/// A question whose sender is not proven to be the user whom he names.
#[must_use]
pub fn unproven_question() -> Ruling {
    skipped(
        "unproven_question",
        "It asks what was decided about a mail, but nothing proves that the user sent it whom it names.",
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
    skipped(
        "too_many_questions",
        "So many questions came that it looks like a loop, or like somebody else who asks.",
    )
}

/// A question whose answer did not go out, or may not have.
#[must_use]
pub fn unanswered_question() -> Ruling {
    skipped(
        "unanswered_question",
        "A user asked by it what was decided about another mail. No server took the answer, or none said that it did; it is \
         not sent again.",
    )
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

/// A delivery report at a reply address that is about no mail of ours, or about mail to others.
#[must_use]
pub fn foreign_report() -> Ruling {
    held(
        "report_on_other_mail",
        "It came to a reply address as a delivery report, but not on mail that was sent from there.",
    )
}

/// An invitation by which a user would tell his own address to somebody from whom it is hidden.
#[must_use]
pub fn revealing_invitation() -> Ruling {
    held(
        "invitation_names_its_author",
        "It came to a reply address and invites, or answers an invitation: it names the user by his own address, which the \
         reply address hides.",
    )
}

/// More mail from one sender at one reply address than people write.
#[must_use]
pub fn possible_loop() -> Ruling {
    held("possible_loop", "One sender has written to one reply address so often that it looks like a loop.")
}

/// More copies of one sender at one capture address than people send.
#[must_use]
pub fn copy_loop() -> Ruling {
    held(
        "possible_loop",
        "A machine has sent so many copies to one capture address that it looks like a loop.",
    )
}

/// A copy of what the CRM sent itself, at a reply address: passed on from there it would be sent twice.
#[must_use]
pub fn sent_already() -> Ruling {
    held("sent_by_crm", "It came to a reply address, but the CRM sent this message itself.")
}

/// Rules under which mail stays left out whatever becomes known of its conversation later: no use in fetching it again.
pub const FINAL_RULES: [&str; 9] = [
    "draft",
    "before_connection",
    "internal",
    "attachment",
    "too_large",
    "gone_at_provider",
    SYNC_LIMIT,
    SENT_BY_OTHER_WORKSPACE,
    ANSWERS_OTHER_WORKSPACE,
];

/// The rule of what the user sent from another workspace.
pub const SENT_BY_OTHER_WORKSPACE: &str = "sent_by_other_workspace";
/// The rule of what answers that.
pub const ANSWERS_OTHER_WORKSPACE: &str = "answers_other_workspace";

/// The rule of mail that is more than its user may have synced.
const SYNC_LIMIT: &str = "sync_limit";

/// Mail that belongs but is more than its user may have synced in a day: it comes later, or not at all.
#[must_use]
pub fn over_sync_limit(over: OverSync) -> Ruling {
    match over {
        OverSync::Defer => Ruling {
            verdict: Verdict::Deferred,
            rule: SYNC_LIMIT,
            reason: "It belongs to the CRM, and is fetched when the user's limit a day allows it.",
        },
        OverSync::Skip => skipped(
            SYNC_LIMIT,
            "It belongs to the CRM, but it was more than the user may have synced in a day.",
        ),
    }
}

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

/// Mail of an account that other workspaces share, when it is one of theirs.
pub(super) fn elsewhere(elsewhere: Elsewhere) -> Option<Ruling> {
    match elsewhere {
        Elsewhere::No => None,
        Elsewhere::Sent => Some(skipped(
            SENT_BY_OTHER_WORKSPACE,
            "It was sent from another workspace in which this account is connected too, and is that one's.",
        )),
        Elsewhere::Answers => Some(skipped(
            ANSWERS_OTHER_WORKSPACE,
            "It answers what another workspace sent in which this account is connected too, and is that one's.",
        )),
        Elsewhere::Beside => Some(skipped(
            "replied_by_other_workspace",
            "The user has answered in this conversation from another workspace: it goes on there alone.",
        )),
    }
}

pub(super) fn synced(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Synced, rule, reason }
}

pub(super) fn held(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Held, rule, reason }
}

pub(super) fn skipped(rule: &'static str, reason: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Skipped, rule, reason }
}
