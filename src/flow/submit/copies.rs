//! What policy adds to mail: blind copies and a Reply-To on what the CRM sends, and the way out of copies of what is answered.
//!
//! Copies are recipients of the submission, and so sent once or visibly not; but the message fares as those fare whom it is
//! for. Not here: which answers are copied (`flow::copies`), and how a reader sees his copy (`masked`).

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    held, job_exit,
    order::{Refusal, Sender, by_smarthost},
};
use crate::{
    core::{
        attribution::OurDomains,
        event::{Event, RecipientFact},
        ids::UserId,
        inbound::{Exit, Principal, SendClass},
        job::Job,
        policy::Settings,
        submission::{RecipientRole, RecipientState, Submission, SubmissionState, Told},
    },
    flow::{FlowError, policy_of},
    mail::{Address, Party, Recipient, surgery::set_parties},
    store::{Error, Session, Tx},
};

/// What policy adds to a message that the CRM hands in.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    reply_to: Vec<Address>,
    always_bcc: Vec<Address>,
}

impl Additions {
    /// Of mail of this user's and of this class.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(
        session: &mut Session,
        ours: &OurDomains,
        (user, class): (UserId, SendClass),
    ) -> Result<Self, Error> {
        let settings = policy_of(session, Some(user)).await?.settings;
        let always_bcc = blind_copies(&settings, ours, class).cloned().collect();
        Ok(Self { reply_to: reply_to(&settings, ours), always_bcc })
    }

    /// How many more recipients it has than these.
    pub fn beside<'a>(&self, recipients: impl Iterator<Item = &'a Address> + Clone) -> usize {
        self.always_bcc.iter().filter(|bcc| !recipients.clone().any(|one| one == *bcc)).count()
    }

    /// The message with the Reply-To of policy, whatever it says itself.
    #[must_use]
    pub fn applied(&self, raw: Bytes) -> Bytes {
        if self.reply_to.is_empty() {
            return raw;
        }
        set_parties(&raw, "Reply-To", &parties(&self.reply_to))
    }
}

/// Where policy has answers go. Never to an address of ours, should the operator have made its domain ours since.
pub(super) fn reply_to(settings: &Settings, ours: &OurDomains) -> Vec<Address> {
    settings.reply_to.iter().filter(|address| !ours.holds(address)).cloned().collect()
}

pub(super) fn parties(addresses: &[Address]) -> Vec<Party> {
    addresses.iter().map(|address| Party::new(address.clone(), None)).collect()
}

fn blind_copies<'a>(
    settings: &'a Settings,
    ours: &'a OurDomains,
    class: SendClass,
) -> impl Iterator<Item = &'a Address> {
    settings.blind_copies(class).iter().filter(|address| !ours.holds(address))
}

/// Adds those to a new submission who get a blind copy, unless they get the message anyway.
pub(super) fn add_blind_copies(submission: &mut Submission, settings: &Settings, ours: &OurDomains) {
    for address in blind_copies(settings, ours, submission.class) {
        if !submission.recipients.iter().any(|state| state.recipient.address == *address) {
            let recipient = Recipient::new(address.clone());
            let state = RecipientState::new(recipient, SubmissionState::Queued);
            submission.recipients.push(state.in_role(RecipientRole::Bcc));
        }
    }
}

/// Makes recipients of those who have the message as a copy, now that the CRM names them; true when there are any.
pub(super) fn name(submission: &mut Submission, named: &[&Address]) -> bool {
    let is_now = |state: &&mut RecipientState| !state.is_named() && named.contains(&&state.recipient.address);
    let mut any = false;
    for state in submission.recipients.iter_mut().filter(is_now) {
        (state.role, any) = (RecipientRole::Named, true);
    }
    any
}

/// Queues copies of an answer, or holds them for want of a way out.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn queue_copies(
    tx: &mut Tx,
    ours: &OurDomains,
    mut submission: Submission,
    now: Timestamp,
) -> Result<(), FlowError> {
    let exit = exit(tx, ours, &submission).await?;
    match &exit {
        Ok(exit) => held::begin(&mut submission, *exit, now),
        Err(refusal) => held::hold(&mut submission, &refusal.to_string()),
    }
    tx.insert_submission(&submission).await?;
    if let Ok(exit) = exit {
        let job = Job::Submit { message: submission.message, exit: job_exit(exit) };
        tx.enqueue_job(&job, now).await?;
    }
    tell_lost(tx, &mut submission, now).await
}

/// The way out of copies: the smarthost, from reply addresses, so that a user's answer comes back; else the account of the
/// user whose mail it is.
///
/// # Errors
/// The inner one says that there is none; the outer ones are the store's.
pub(super) async fn exit(
    session: &mut Session,
    ours: &OurDomains,
    submission: &Submission,
) -> Result<Result<Exit, Refusal>, Error> {
    let Principal::Participant(user) = submission.principal else { return Ok(Err(Refusal::NoWayOut)) };
    let refusal = match (session.smarthost().await?, ours.reply.as_deref()) {
        (Some(smarthost), Some(domain)) => match Address::from_parts("no-reply", domain) {
            Ok(from) => {
                let sender = Sender { user, from: &from, class: SendClass::Individual };
                match by_smarthost(&smarthost, Some(domain), sender) {
                    Ok(exit) => return Ok(Ok(exit)),
                    Err(refusal) => refusal,
                }
            }
            Err(_) => Refusal::NoReplyDomain,
        },
        (Some(_), None) => Refusal::NoReplyDomain,
        (None, _) => Refusal::NoWayOut,
    };
    Ok(session.sending_account(user).await?.map(Exit::Account).ok_or(refusal))
}

/// Tells of the copies that do not reach their readers, each once: of all others nothing is told. Those of a message that is
/// held wait with it.
///
/// # Errors
/// Those of the store.
pub(super) async fn tell_lost(
    tx: &mut Tx,
    submission: &mut Submission,
    now: Timestamp,
) -> Result<(), FlowError> {
    if submission.state == SubmissionState::Held && submission.names_anybody() {
        return Ok(());
    }
    let is_news = |state: &&RecipientState| state.is_lost_copy() && !submission.dsn.has_told(state);
    let lost: Vec<RecipientState> = submission.recipients.iter().filter(is_news).cloned().collect();
    if lost.is_empty() {
        return Ok(());
    }
    let stored = tx.message(submission.message).await?.ok_or(FlowError::Obsolete)?;
    let told =
        |state: &RecipientState| Told { recipient: state.recipient.address.clone(), state: state.state };
    submission.dsn.told.extend(lost.iter().map(told));
    tx.set_dsn_order(submission.message, &submission.dsn).await?;
    let event = Event::CopyFailed {
        message: stored.id,
        conversation: stored.conversation,
        recipients: lost.into_iter().map(RecipientFact::from).collect(),
    };
    tx.announce(&event, now).await?;
    Ok(())
}
