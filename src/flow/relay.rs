//! Mail for a user who takes part without an account, passed on in both directions (docs/flows.md, "Relay").
//!
//! A reply address is bound to (conversation, participant, user), and one that takes the user's own answers to one
//! counterpart as well: whoever answers reaches those he was shown and nobody else. What is passed on is a submission like
//! any other, with a state for each recipient. Not here: how each of them is to see it, and sending (`flow::submit`).

use jiff::Timestamp;

use super::{FlowError, Gateway, ingest, policy_of, submit};
use crate::{
    core::{
        attribution::{self, Attribution, Known},
        decision::Ruling,
        ids::{ConversationId, MessageKey, UserId},
        inbound::Exit,
        job::{Job, JobExit},
        message::{Author, Parties},
        policy::{self, Settings, settings::Match},
        route::{Route, RouteTarget},
        submission::{RecipientState, Submission, SubmissionState},
    },
    mail::{Address, Automatic, Kind, Message, Notify, Party, Recipient, ReversePath},
    store::{Session, Tx},
};

/// What a reply address says of the mail that arrives there.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub address: Address,
    pub conversation: ConversationId,
    /// Whose answer it is.
    pub participant: Address,
    /// The user who takes part without an account.
    pub user: UserId,
    /// The user himself is the participant.
    pub from_user: bool,
    /// Whom it is for. The header names him by a reply address at most.
    pub towards: Party,
}

/// Reads what the reply addresses among these routes say. An address whose user is gone says nothing.
pub(super) async fn bound(session: &mut Session, routes: &[Route]) -> Result<Vec<Bound>, FlowError> {
    let mut all = Vec::new();
    for route in routes {
        let RouteTarget::Reply { conversation, participant, user, counterpart } = &route.target else {
            continue;
        };
        let Some(profile) = session.user(*user).await? else { continue };
        let from_user = counterpart.is_some();
        let towards = counterpart.clone().map(|address| Party::new(address, None));
        all.push(Bound {
            address: route.address.clone(),
            conversation: session.root(*conversation).await?,
            participant: participant.clone(),
            user: *user,
            from_user,
            towards: towards.unwrap_or_else(|| Party::new(profile.email, profile.name.as_deref())),
        });
    }
    Ok(all)
}

impl Bound {
    /// A reply address takes the answers of the participant it was made for, from whichever of his addresses, and of nobody
    /// who merely learned it.
    pub(super) fn admits(&self, who: &Attribution, known: &Known) -> bool {
        let is_user = |user: &UserId| {
            known.users.get(&self.participant) == Some(user) || (self.from_user && self.user == *user)
        };
        let contact = known.contacts.get(&self.participant).map(|contact| &contact.id);
        let wrote = who.author_party.as_ref().is_some_and(|author| author.address == self.participant);
        wrote
            || match &who.author {
                Author::User(user) => is_user(user),
                Author::Contact(id) => contact == Some(id),
                Author::Other => false,
            }
    }
}

/// A reply address knows its participant by each of his addresses, whatever policy makes of them elsewhere.
pub(super) fn knowing(settings: &Settings) -> Settings {
    Settings { matching: Match::All, ..settings.clone() }
}

/// What becomes of mail that these reply addresses admit.
pub(super) fn judge(bound: &[Bound], kind: Kind) -> Ruling {
    match () {
        () if bound.is_empty() => policy::foreign_answer(),
        // A calendar names people by addresses that no header hides.
        () if kind == Kind::Invitation && bound.iter().any(|bound| bound.from_user) => {
            policy::revealing_invitation()
        }
        () => policy::answered(),
    }
}

/// The user whom an answer concerns, if From names the participant of one of these reply addresses.
pub(super) async fn expected(
    session: &mut Session,
    gateway: &Gateway,
    (message, routes): (&Message, &[Route]),
) -> Result<Option<UserId>, FlowError> {
    let bound = bound(session, routes).await?;
    let ours = &gateway.settings.ours;
    let parties = ours.parties(&message.summary);
    let people: Vec<Address> = parties.addresses().chain(people(&bound)).cloned().collect();
    let settings = knowing(&policy_of(session, None).await?.settings);
    let known = ingest::known_among(session, &people, &settings).await?;
    let who = attribution::attribute(&parties, &known, ours);
    Ok(bound.iter().find(|bound| bound.admits(&who, &known)).map(|bound| bound.user))
}

/// The people that these reply addresses stand for.
pub(super) fn people(bound: &[Bound]) -> impl Iterator<Item = &Address> {
    bound.iter().flat_map(|bound| [&bound.participant, &bound.towards.address])
}

/// Adds the people behind the reply addresses, so that the message shows who wrote to whom.
pub(super) fn complete(parties: &mut Parties, bound: &[Bound]) {
    for Bound { towards, .. } in bound {
        if !parties.addresses().any(|named| *named == towards.address) {
            parties.to.push(towards.clone());
        }
    }
}

/// Whether a message that came to a reply address is passed on: what a person sends is, be it a forward or an invitation. What
/// programs send by themselves and null reverse-paths go no further.
pub(super) fn goes_on(message: &Message, reverse_path: &ReversePath) -> bool {
    let is_automatic = match message.kind {
        Kind::AutoReply | Kind::Bounce => true,
        Kind::Mail | Kind::Forward | Kind::Invitation => match message.summary.automatic {
            Automatic::AutoReply | Automatic::Bounce | Automatic::Generated => true,
            Automatic::No | Automatic::List | Automatic::Bulk => false,
        },
    };
    !is_automatic && *reverse_path != ReversePath::Null
}

/// Queues the message for those whom these reply addresses stand for and who do not have it yet: another copy of it may have
/// been filed before, or have come to another reply address.
pub(super) async fn enqueue(
    tx: &mut Tx,
    message: MessageKey,
    bound: &[Bound],
    now: Timestamp,
) -> Result<(), FlowError> {
    let Some(mut present) = tx.submission(message).await? else {
        let recipients = recipients(bound, &[]);
        if let (Some(first), false) = (bound.first(), recipients.is_empty()) {
            tx.insert_submission(&Submission::passed_on(message, first.user, recipients, now)).await?;
            tx.enqueue_job(&Job::Submit { message, exit: JobExit::Smarthost }, now).await?;
        }
        return Ok(());
    };
    let more = recipients(bound, &present.recipients);
    if !more.is_empty() {
        // Copies of it may leave by an account, from which nobody would be hidden from anybody.
        if let Some(account) = present.account.take() {
            // A retry by the account waits for nothing any more.
            tx.hasten_job(&Job::Submit { message, exit: JobExit::Account(account) }, now).await?;
        }
        submit::add_recipients(tx, (present, more), Ok(Exit::Smarthost), now).await?;
    }
    Ok(())
}

/// Each once, and none of those who have it already.
fn recipients(bound: &[Bound], present: &[RecipientState]) -> Vec<RecipientState> {
    let mut new: Vec<RecipientState> = Vec::new();
    for Bound { towards, .. } in bound {
        let is_there = |state: &RecipientState| state.recipient.address == towards.address;
        if !present.iter().any(is_there) && !new.iter().any(is_there) {
            let recipient = Recipient { notify: Notify::Never, ..Recipient::new(towards.address.clone()) };
            new.push(RecipientState::new(recipient, SubmissionState::Queued));
        }
    }
    new
}
