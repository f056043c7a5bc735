//! Copies of what contacts answer, for those whom policy names (docs/flows.md, "Copies").
//!
//! A copy is caused by the filing of the answer, in its transaction, and so once, however often the answer is seen. It is a
//! recipient of a submission like any other. Not here: who is to get one (`core::copies`), how it is written and sent
//! (`flow::submit`).

use jiff::Timestamp;

use super::{FlowError, policy_of, submit};
use crate::{
    core::{
        attribution::{KnownContact, OurDomains},
        copies::{self, CAP_WINDOW, CAPPED, COPIED_MAX, Filed},
        event::{Event, RecipientFact},
        ids::UserId,
        message::StoredMessage,
        submission::{RecipientRole, RecipientState, Submission, SubmissionState},
    },
    mail::{Address, Automatic, Recipient},
    store::Tx,
};

/// A message that has just been filed.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewMessage<'a> {
    pub stored: &'a StoredMessage,
    /// Whose mailbox or reply address it came to.
    pub owner: UserId,
    /// Who wrote it, if he is a contact.
    pub contact: Option<KnownContact>,
    pub automatic: Automatic,
    pub is_marked: bool,
    pub answers: bool,
}

/// Queues copies of a message if it is one that is copied. Only what was filed gets here, so of private mail there are none.
///
/// # Errors
/// Those of the store.
pub(super) async fn enqueue(
    tx: &mut Tx,
    ours: &OurDomains,
    new: NewMessage<'_>,
    now: Timestamp,
) -> Result<(), FlowError> {
    let NewMessage { stored, automatic, is_marked, answers, .. } = new;
    let (author, direction, kind) = (&stored.author, stored.direction, stored.kind);
    let filed = Filed { author, direction, kind, automatic, is_marked, answers };
    if !copies::is_contacts_answer(&filed) {
        return Ok(());
    }
    let readers = readers(tx, ours, &new).await?;
    if readers.is_empty() {
        return Ok(());
    }
    if tx.copied_since(stored.conversation, now - CAP_WINDOW).await? >= COPIED_MAX {
        tracing::warn!(message = %stored.id, "an answer is not copied: too many of its conversation were");
        tx.announce(&capped(stored, readers), now).await?;
        return Ok(());
    }
    submit::queue_copies(tx, ours, submission(&new, readers, now), now).await
}

async fn readers(tx: &mut Tx, ours: &OurDomains, new: &NewMessage<'_>) -> Result<Vec<Address>, FlowError> {
    let settings = policy_of(tx, Some(new.owner)).await?.settings;
    let assigned = new.contact.and_then(|contact| contact.assigned_user);
    let assigned = match assigned.filter(|user| settings.reply_copy_assigned && *user != new.owner) {
        Some(user) => tx.user(user).await?,
        None => None,
    };
    Ok(copies::readers(&settings, (&new.stored.parties, assigned.as_ref()), ours))
}

fn capped(stored: &StoredMessage, readers: Vec<Address>) -> Event {
    let fact = |address| RecipientFact {
        address,
        state: SubmissionState::Held,
        code: None,
        text: Some(CAPPED.to_owned()),
    };
    Event::CopyFailed {
        message: stored.id,
        conversation: stored.conversation,
        recipients: readers.into_iter().map(fact).collect(),
    }
}

/// Nobody asked to be told of its fate by mail, so events alone tell; and only of those who do not get theirs.
fn submission(new: &NewMessage<'_>, readers: Vec<Address>, now: Timestamp) -> Submission {
    let copy = |address| {
        RecipientState::new(Recipient::new(address), SubmissionState::Queued).in_role(RecipientRole::Copy)
    };
    let recipients = readers.into_iter().map(copy).collect();
    Submission::passed_on(new.stored.id, new.owner, recipients, now)
}
