//! Mail for a user who takes part without an account, passed on in both directions (docs/flows.md, "Relay").
//!
//! Every address involved has a reply address of its own, bound to (conversation, participant): what arrives there is that
//! participant's answer. Not here: rewriting headers (`core::relay`) and sending (`flow::submit`).

use bytes::Bytes;
use jiff::SignedDuration;

use super::{
    FlowError, Gateway,
    submit::{Part, send_relayed},
};
use crate::{
    core::{
        ids::{ConversationId, MessageKey, UserId, WorkspaceId},
        inbound::{Principal, SendClass},
        job::{Job, JobExit},
        message::{Author, Parties, StoredMessage},
        relay::{Relayed, masked, rewrite},
        retry,
        route::{Route, RouteTarget, reply_local_part},
        submission::{DsnOrder, RecipientState, SentCopy, Submission, SubmissionState},
    },
    mail::{Address, Envelope, Kind, Party, Recipient, ReversePath},
    queue::{Leased, Settlement},
    smtp::Outcome,
    store::{Session, Tx, mint},
};

/// Tries to pass one message on to a user before it is given up. It is in the CRM all the while.
const TRIES_MAX: u32 = 12;

/// What a reply address says of the mail that arrives there.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub conversation: ConversationId,
    /// Whose answer it is.
    pub participant: Address,
    /// The user who takes part without an account.
    pub user: UserId,
    /// The user himself is the participant.
    pub from_user: bool,
    /// The people the answer is for, whom the header only names by reply addresses.
    pub counterparts: Vec<Party>,
}

/// Reads what the routes of a message say.
pub(super) async fn bound(session: &mut Session, routes: &[Route]) -> Result<Option<Bound>, FlowError> {
    let reply = routes.iter().find_map(|route| match &route.target {
        RouteTarget::Reply { conversation, participant, user } => {
            Some((*conversation, participant.clone(), *user))
        }
        RouteTarget::Capture { .. } => None,
    });
    let Some((conversation, participant, user)) = reply else { return Ok(None) };
    let conversation = session.root(conversation).await?;
    // Deleted after the message was taken in: it is judged, and kept aside, like mail to any address.
    let Some(profile) = session.user(user).await? else { return Ok(None) };
    let from_user = profile.email == participant || profile.aliases.contains(&participant);
    let counterparts = match from_user {
        true => outsiders(session, conversation, user, &profile.email).await?,
        false => vec![Party::new(profile.email, profile.name.as_deref())],
    };
    Ok(Some(Bound { conversation, participant, user, from_user, counterparts }))
}

/// The participants of a conversation who have a reply address towards this user.
async fn outsiders(
    session: &mut Session,
    conversation: ConversationId,
    user: UserId,
    own: &Address,
) -> Result<Vec<Party>, FlowError> {
    let routes = session.reply_routes(conversation).await?;
    let people = routes.into_iter().filter_map(|route| match route.target {
        RouteTarget::Reply { participant, user: of, .. } if of == user && participant != *own => {
            Some(participant)
        }
        _ => None,
    });
    Ok(people.map(|address| Party::new(address, None)).collect())
}

/// Adds the people behind the reply addresses, so that the message shows who wrote to whom.
pub(super) fn complete(parties: &mut Parties, bound: &Bound) {
    let named: Vec<Address> = parties.addresses().cloned().collect();
    parties.to.extend(bound.counterparts.iter().filter(|party| !named.contains(&party.address)).cloned());
}

/// Queues what is to be passed on of a message just filed. Automatic mail and null reverse-paths go no further.
pub(super) async fn enqueue(
    tx: &mut Tx,
    message: &StoredMessage,
    bound: &Bound,
    reverse_path: &ReversePath,
) -> Result<(), FlowError> {
    if message.kind != Kind::Mail || *reverse_path == ReversePath::Null {
        return Ok(());
    }
    if !bound.from_user {
        let job = Job::Relay { message: message.id, user: bound.user };
        tx.enqueue_job(&job, message.received_at).await?;
        return Ok(());
    }
    if bound.counterparts.is_empty() || !matches!(message.author, Author::User(_)) {
        return Ok(());
    }
    tx.insert_submission(&submission(message, bound, reverse_path)).await?;
    tx.enqueue_job(&Job::Submit { message: message.id, exit: JobExit::Smarthost }, message.received_at)
        .await?;
    Ok(())
}

/// A user's answer on its way out to the contacts, like any submission.
fn submission(message: &StoredMessage, bound: &Bound, reverse_path: &ReversePath) -> Submission {
    let queued = |party: &Party| {
        let address = party.address.clone();
        let recipient = Recipient { notify: crate::mail::Notify::Never, ..Recipient::new(address) };
        RecipientState::new(recipient, SubmissionState::Queued)
    };
    Submission {
        message: message.id,
        account: None,
        class: SendClass::Individual,
        reverse_path: reverse_path.clone(),
        dsn: DsnOrder::default(),
        principal: Principal::Participant(bound.user),
        blob: None,
        state: SubmissionState::Queued,
        attempt: 0,
        accepted_at: message.received_at,
        next_attempt_at: Some(message.received_at),
        dot_intent_at: None,
        detail: None,
        sent_copy: SentCopy::None,
        recipients: bound.counterparts.iter().map(queued).collect(),
    }
}

/// The transactions by which a user without an account reaches these recipients: one each, from the reply address that
/// takes that recipient's answers.
///
/// # Errors
/// Those of the store.
pub(super) async fn outward_parts(
    gateway: &Gateway,
    workspace: WorkspaceId,
    stored: &StoredMessage,
    (raw, recipients, is_answer): (Bytes, Vec<Recipient>, bool),
) -> Result<Vec<Part>, FlowError> {
    let Author::User(user) = stored.author else { return Err(FlowError::Obsolete) };
    let mut parts = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let mut tx = gateway.store.begin(workspace).await?;
        let reply = reply_address(&mut tx, gateway, (stored.conversation, user), &recipient.address).await?;
        tx.commit().await?;
        let relayed = Relayed {
            from: masked(stored.author_party.as_ref(), reply.clone()),
            // Answers of the user came addressed to reply addresses: the contact sees his own.
            to: None,
            mark: (&gateway.settings.loop_key, stored.id.to_string()),
        };
        let named = Party::new(recipient.address.clone(), None);
        let relayed = Relayed { to: is_answer.then_some(&named), ..relayed };
        let hidden = |address: &Address| gateway.settings.ours.holds(address);
        let envelope = Envelope {
            recipients: vec![Recipient::new(recipient.address)],
            ..Envelope::new(ReversePath::Address(reply))
        };
        parts.push(Part { envelope, raw: rewrite(&raw, &relayed, hidden) });
    }
    Ok(parts)
}

/// Passes a contact's message on to the user, from a reply address that takes the user's answers.
///
/// # Errors
/// Those of the store.
pub async fn perform(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    user: UserId,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let stored = tx.message(message).await?.ok_or(FlowError::Obsolete)?;
    let profile = tx.user(user).await?.ok_or(FlowError::Obsolete)?;
    let raw = tx.blob(stored.blob).await?;
    let reply = reply_address(&mut tx, gateway, (stored.conversation, user), &profile.email).await?;
    tx.commit().await?;
    let to = Party::new(profile.email, profile.name.as_deref());
    let relayed = Relayed {
        from: masked(stored.author_party.as_ref(), reply.clone()),
        to: Some(&to),
        mark: (&gateway.settings.loop_key, stored.id.to_string()),
    };
    let hidden = |address: &Address| gateway.settings.ours.holds(address);
    let raw = rewrite(&raw, &relayed, hidden);
    let envelope = Envelope {
        recipients: vec![Recipient::new(to.address.clone())],
        ..Envelope::new(ReversePath::Address(reply))
    };
    let outcome = send_relayed(gateway, job.workspace, &Part { envelope, raw }).await?;
    settle(gateway, job, outcome).await
}

async fn settle(gateway: &Gateway, job: &Leased, outcome: Outcome) -> Result<(), FlowError> {
    let settlement = match outcome {
        Outcome::Accepted { .. } | Outcome::Refused(_) => Settlement::Done,
        _ if job.attempt >= TRIES_MAX => Settlement::Done,
        Outcome::Deferred(_) | Outcome::Unknown => {
            let wait = retry::submission(job.attempt, super::jitter());
            Settlement::RetryAt(
                super::now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1)),
            )
        }
    };
    if !matches!(outcome, Outcome::Accepted { .. }) {
        tracing::warn!(job = job.id, attempt = job.attempt, "a message could not be passed on to its user");
    }
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

/// The reply address that takes this participant's answers, made when there is none yet.
async fn reply_address(
    tx: &mut Tx,
    gateway: &Gateway,
    (conversation, user): (ConversationId, UserId),
    participant: &Address,
) -> Result<Address, FlowError> {
    if let Some(route) = tx.reply_route(conversation, participant).await? {
        return Ok(route.address);
    }
    let domain = gateway.settings.ours.reply.as_deref().ok_or(FlowError::Obsolete)?;
    let address =
        Address::from_parts(&reply_local_part(super::random()), domain).map_err(|_| FlowError::Obsolete)?;
    let target = RouteTarget::Reply { conversation, participant: participant.clone(), user };
    let route =
        Route { id: mint(), workspace: tx.workspace(), address: address.clone(), target, expires_at: None };
    tx.insert_route(&route, super::now()).await?;
    Ok(address)
}
