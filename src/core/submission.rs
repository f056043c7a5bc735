//! A message on its way out: its states and each recipient's.
//!
//! Not here: sending (`flow::submit`) and when to try again (`core::retry`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    account::Endpoint,
    ids::{AccountId, MessageKey, UserId},
    inbound::{Principal, SendClass},
};
use crate::mail::{Address, Recipient, Return, ReversePath};

/// `accepted -> queued -> sending -> sent | deferred | bounced | uncertain | held`. Nothing cancels yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmissionState {
    Queued,
    Sending,
    Sent,
    Deferred,
    /// The final dot went out and no answer came back: it may have been sent.
    Uncertain,
    Bounced,
    Held,
    Cancelled,
}

impl SubmissionState {
    /// Whether nothing more will happen by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Bounced | Self::Cancelled)
    }

    /// Whether a job is at work on it.
    #[must_use]
    pub fn is_open(self) -> bool {
        !self.is_final() && self != Self::Held
    }
}

/// What somebody is to a message that is sent to him.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientRole {
    /// The message is for him.
    #[default]
    Named,
    /// Policy sends him a blind copy of what leaves (`always_bcc`).
    Bcc,
    /// Policy sends him a copy of what a contact answered (`reply_copies`, `reply_copy_assigned`).
    Copy,
}

/// One recipient's state, with what the server said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    pub recipient: Recipient,
    pub role: RecipientRole,
    pub state: SubmissionState,
    pub code: Option<u16>,
    /// Enhanced status code (RFC 3463), like `5.1.1`.
    pub status: Option<String>,
    pub text: Option<String>,
    /// Final dots whose answer was lost. Every one may have brought him the message.
    pub doubts: u32,
    /// What he waits for while he is held.
    pub held_for: Option<Hold>,
}

/// What a held recipient waits for. Only a way out comes by itself; of the others the CRM has been told, and they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// An account or a smarthost by which the message can leave: it goes on by itself when there is one.
    WayOut,
    /// Nothing: the message may have been sent to him already, and whether it is sent anew is left to the CRM.
    Doubt,
    /// Nothing: the user whom it was passed on for is none any more.
    Reader,
    /// Nothing: what is stored of it could not be processed.
    Poison,
}

/// Lost answers after which a message is not sent again by itself: the first send and one repeat. A server that never
/// answers would else be handed a copy every hour.
pub const DOUBTS_MAX: u32 = 2;

impl RecipientState {
    /// A recipient nothing was tried for yet.
    #[must_use]
    pub fn new(recipient: Recipient, state: SubmissionState) -> Self {
        let role = RecipientRole::Named;
        Self { recipient, role, state, code: None, status: None, text: None, doubts: 0, held_for: None }
    }

    /// The same for somebody who gets a copy.
    #[must_use]
    pub fn in_role(self, role: RecipientRole) -> Self {
        Self { role, ..self }
    }

    /// Whether the message is for him; of copies the CRM hears apart.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.role == RecipientRole::Named
    }

    /// Whether he will not get his copy, as far as is known: nothing more happens by itself.
    #[must_use]
    pub fn is_lost_copy(&self) -> bool {
        !self.is_named() && matches!(self.state, SubmissionState::Bounced | SubmissionState::Held)
    }

    /// Whether he is still to be sent to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, SubmissionState::Queued | SubmissionState::Deferred)
    }

    /// Holds him: nothing is sent to him until what he waits for is there. The reason takes the place of what a server said.
    pub fn hold(&mut self, what_for: Hold, reason: &str) {
        (self.state, self.held_for) = (SubmissionState::Held, Some(what_for));
        (self.code, self.status, self.text) = (None, None, Some(reason.to_owned()));
    }

    /// Whether a way out is all that he waits for.
    #[must_use]
    pub fn waits_for_way_out(&self) -> bool {
        self.state == SubmissionState::Held && self.held_for == Some(Hold::WayOut)
    }

    /// Whether the message may be on its way to him.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.state, SubmissionState::Sending | SubmissionState::Uncertain)
    }
}

/// The state of a submission whose recipients are in these states: what is still open comes first, success before failure.
#[must_use]
pub fn overall(recipients: &[RecipientState]) -> SubmissionState {
    overall_of(&recipients.iter().collect::<Vec<_>>())
}

fn overall_of(recipients: &[&RecipientState]) -> SubmissionState {
    use SubmissionState::{Bounced, Deferred, Held, Queued, Sending, Sent, Uncertain};
    let any =
        |states: &[SubmissionState]| recipients.iter().any(|recipient| states.contains(&recipient.state));
    match () {
        () if any(&[Uncertain, Sending]) => Uncertain,
        () if any(&[Queued, Deferred]) => Deferred,
        () if any(&[Held]) => Held,
        () if any(&[Sent]) || recipients.is_empty() => Sent,
        () => Bounced,
    }
}

/// What the CRM wants reported, by RFC 3461.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DsnOrder {
    pub ret: Option<Return>,
    pub envelope_id: Option<String>,
    /// What reports have told, and of copies what events have. Written before a report's final dot and taken back when the
    /// server puts it off: one that may have gone out before a crash is not sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

/// What a report has told of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub recipient: Address,
    pub state: SubmissionState,
}

impl DsnOrder {
    /// Whether the CRM asked to be told of this outcome, and was not told of it before. It knows nothing of copies.
    #[must_use]
    pub fn is_news(&self, state: &RecipientState) -> bool {
        let is_asked_for = match state.state {
            SubmissionState::Bounced => state.recipient.notify.on_failure(),
            SubmissionState::Sent => state.recipient.notify.on_success(),
            _ => false,
        };
        is_asked_for && state.is_named() && !self.has_told(state)
    }

    /// Whether this outcome was told before.
    #[must_use]
    pub fn has_told(&self, state: &RecipientState) -> bool {
        let is_it = |told: &Told| told.state == state.state && told.recipient == state.recipient.address;
        self.told.iter().any(is_it)
    }
}

/// Whether and how a copy came to lie in the user's Sent mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentCopy {
    /// Not wanted: a smarthost has no Sent mailbox.
    None,
    Wanted,
    /// A job is looking after it.
    Queued,
    /// The provider filed it.
    Filed,
    /// We appended it.
    Appended,
}

/// The workspace's way out for mail that leaves by no user's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smarthost {
    pub endpoint: Endpoint,
    /// Domains it may send for, in the form `mail::canonical_domain` gives.
    pub from_domains: Vec<String>,
}

/// A submission with its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub message: MessageKey,
    /// `None` leaves by the workspace's smarthost.
    pub account: Option<AccountId>,
    pub class: SendClass,
    pub reverse_path: ReversePath,
    pub dsn: DsnOrder,
    pub principal: Principal,
    /// The bytes to send when they differ from the stored message's.
    pub blob: Option<uuid::Uuid>,
    pub state: SubmissionState,
    pub attempt: u32,
    pub accepted_at: Timestamp,
    pub next_attempt_at: Option<Timestamp>,
    /// Committed before the final dot: a crash after it means uncertain.
    pub dot_intent_at: Option<Timestamp>,
    pub detail: Option<String>,
    pub sent_copy: SentCopy,
    pub recipients: Vec<RecipientState>,
}

impl Submission {
    /// Those by whom it is told how the message fares: whom it is for, or where it is sent to nobody but as a copy, they.
    pub fn decisive(&self) -> impl Iterator<Item = &RecipientState> {
        let names_anybody = self.names_anybody();
        self.recipients.iter().filter(move |state| state.is_named() || !names_anybody)
    }

    /// Whether it is for anybody, and not sent as copies alone.
    #[must_use]
    pub fn names_anybody(&self) -> bool {
        self.recipients.iter().any(RecipientState::is_named)
    }

    /// The state that its recipients' states make. What becomes of copies shows only in a submission of nothing else.
    #[must_use]
    pub fn overall(&self) -> SubmissionState {
        overall_of(&self.decisive().collect::<Vec<_>>())
    }

    /// What we pass on of ourselves to a user's correspondents: nobody asked to be told of its fate by mail, so events alone tell.
    #[must_use]
    pub fn passed_on(
        message: MessageKey,
        user: UserId,
        recipients: Vec<RecipientState>,
        now: Timestamp,
    ) -> Self {
        Self {
            message,
            account: None,
            class: SendClass::Individual,
            reverse_path: ReversePath::Null,
            dsn: DsnOrder::default(),
            principal: Principal::Participant(user),
            blob: None,
            state: SubmissionState::Queued,
            attempt: 0,
            accepted_at: now,
            next_attempt_at: Some(now),
            dot_intent_at: None,
            detail: None,
            sent_copy: SentCopy::None,
            recipients,
        }
    }

    /// Whether a job is at work on it: for a copy perhaps, when it has been sent to everybody else; or to tell what became of
    /// everybody, when a crash came between the last answer and that.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.state.is_open() || self.recipients.iter().any(|state| state.is_open() || state.is_in_doubt())
    }

    /// Whether there is something to report by mail. Nothing is ever sent to the null path.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.reverse_path.address().is_some() && self.recipients.iter().any(|state| self.dsn.is_news(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Notify;

    #[track_caller]
    fn check(states: &[SubmissionState], expect: SubmissionState) {
        let address = Address::parse("a@b.example").expect("an address");
        let recipient =
            |state: &SubmissionState| RecipientState::new(Recipient::new(address.clone()), *state);
        let recipients: Vec<_> = states.iter().map(recipient).collect();
        assert_eq!(overall(&recipients), expect, "{states:?}");
    }

    #[test]
    fn each_outcome_that_was_asked_for_is_news_once() {
        use SubmissionState::{Bounced, Deferred, Sent};
        let address = Address::parse("a@b.example").expect("an address");
        let in_state = |notify, state| {
            RecipientState::new(Recipient { notify, ..Recipient::new(address.clone()) }, state)
        };
        let told = |state| Told { recipient: address.clone(), state };
        let after = |told: &[Told]| DsnOrder { told: told.to_vec(), ..DsnOrder::default() };
        let both = Notify::On { success: true, failure: true, delay: false };
        for (notify, state, known, expect) in [
            (both, Sent, vec![], true),
            (both, Sent, vec![told(Sent)], false),
            // It came back later.
            (both, Bounced, vec![told(Sent)], true),
            (both, Bounced, vec![told(Sent), told(Bounced)], false),
            (both, Deferred, vec![], false),
            (Notify::default(), Sent, vec![], false),
            (Notify::default(), Bounced, vec![], true),
            (Notify::Never, Bounced, vec![], false),
        ] {
            assert_eq!(
                after(&known).is_news(&in_state(notify, state)),
                expect,
                "{notify:?} {state:?} {known:?}"
            );
        }
    }

    #[test]
    fn copies_have_no_part_in_how_a_message_fares_unless_there_is_nothing_else() {
        use RecipientRole::{Bcc, Copy, Named};
        use SubmissionState::{Bounced, Deferred, Held, Queued, Sent};
        for (recipients, overall, is_at_work) in [
            (vec![(Named, Sent), (Bcc, Deferred)], Sent, true),
            (vec![(Named, Sent), (Bcc, Held)], Sent, false),
            (vec![(Named, Bounced), (Bcc, Sent)], Bounced, false),
            (vec![(Named, Deferred), (Copy, Sent)], Deferred, true),
            (vec![(Copy, Sent), (Copy, Queued)], Deferred, true),
            (vec![(Copy, Bounced), (Copy, Held)], Held, false),
        ] {
            let named = |(n, (role, state)): (usize, &(RecipientRole, SubmissionState))| {
                let address = Address::parse(&format!("{n}@b.example")).expect("an address");
                RecipientState::new(Recipient::new(address), *state).in_role(*role)
            };
            let mut submission = of(recipients.iter().enumerate().map(named).collect());
            // Before its state is told it is at work in any case.
            assert!(submission.is_at_work(), "{recipients:?}");
            submission.state = submission.overall();
            assert_eq!(
                (submission.overall(), submission.is_at_work()),
                (overall, is_at_work),
                "{recipients:?}"
            );
            assert!(!submission.recipients.iter().any(|one| !one.is_named() && submission.dsn.is_news(one)));
        }
    }

    fn of(recipients: Vec<RecipientState>) -> Submission {
        use crate::core::ids::Id as _;
        Submission {
            message: MessageKey::from_uuid(uuid::Uuid::nil()),
            account: None,
            class: SendClass::Individual,
            reverse_path: ReversePath::Null,
            dsn: DsnOrder::default(),
            principal: Principal::Admin,
            blob: None,
            state: SubmissionState::Queued,
            attempt: 0,
            accepted_at: Timestamp::UNIX_EPOCH,
            next_attempt_at: None,
            dot_intent_at: None,
            detail: None,
            sent_copy: SentCopy::None,
            recipients,
        }
    }

    #[test]
    fn a_submission_is_as_open_as_its_most_open_recipient() {
        use SubmissionState::{Bounced, Deferred, Sending, Sent, Uncertain};
        check(&[Sent, Bounced], Sent);
        check(&[Bounced, Bounced], Bounced);
        check(&[Sent, Deferred], Deferred);
        check(&[Deferred, Sending], Uncertain);
        check(&[], Sent);
    }
}
