//! A user forwards a mail to ask what was decided about it: whether he may be answered (docs/flows.md, "Why?").
//!
//! Not here: the answer and its sending (`flow::submit`). Nothing of a question is kept but its decision and, until it is
//! answered, keyed hashes of what it asks about.

use super::{
    FlowError, Gateway,
    ingest::{self, known_among},
    limits, now, policy_of,
    trust::{self, Copied, Place, Sender},
};
use crate::{
    core::{
        attribution,
        decision::{DecisionHash, HashRole, NewDecision, Ruling},
        evidence::Level,
        ids::UserId,
        job::{Job, Question},
        message::Author,
        policy,
        quarantine::QuarantineState,
        question::Asked,
        route::{Route, RouteTarget},
    },
    mail::{Address, Automatic, Message, ReversePath},
    store::{InboundRow, InboundState, Tx},
};

/// What came to an address at which a user asks.
pub(super) struct Incoming<'a> {
    pub row: &'a InboundRow,
    pub message: &'a Message,
    pub sender: &'a Sender,
    pub reverse_path: &'a ReversePath,
}

/// The addresses among these at which somebody asks, and the others.
pub(super) fn part(routes: &[Route]) -> (Vec<Route>, Vec<Route>) {
    routes.iter().cloned().partition(|route| matches!(route.target, RouteTarget::Why { .. }))
}

/// Queues the answer, if there may be one. `alone`: the mail came to no other address of ours, so that this is what is
/// decided about it.
pub(super) async fn ask(
    tx: &mut Tx,
    gateway: &Gateway,
    incoming: Incoming<'_>,
    (routes, alone): (&[Route], bool),
) -> Result<(), FlowError> {
    let (mut ruling, mut whose) = (policy::foreign_question(), None);
    for route in routes {
        let RouteTarget::Why { user } = route.target else { continue };
        whose = Some(user);
        ruling = judge(tx, gateway, &incoming, user).await?;
        if ruling.rule == policy::question().rule {
            let question = question(tx, gateway, &incoming, user).await?;
            tx.enqueue_job(&Job::Explain { question }, incoming.row.received_at).await?;
            break;
        }
    }
    if alone { settle(tx, whose, &incoming, ruling).await } else { Ok(()) }
}

/// By the rule that a capture address goes by, and stricter: its From is a user, and the one whose address it is.
async fn judge(
    tx: &mut Tx,
    gateway: &Gateway,
    incoming: &Incoming<'_>,
    user: UserId,
) -> Result<Ruling, FlowError> {
    let Incoming { message, reverse_path, .. } = incoming;
    if **reverse_path == ReversePath::Null {
        return Ok(policy::null_reverse_path());
    }
    if message.summary.automatic != Automatic::No {
        return Ok(policy::automatic_question());
    }
    let parties = gateway.settings.ours.parties(&message.summary);
    let people: Vec<Address> = parties.addresses().cloned().collect();
    let settings = policy_of(tx, Some(user)).await?.settings;
    let known = known_among(tx, &people, &settings).await?;
    let who = attribution::attribute(&parties, &known, &gateway.settings.ours);
    if who.author != Author::User(user) {
        return Ok(policy::foreign_question());
    }
    // The address is in copies that others have.
    if !is_proven(tx, gateway, incoming, user).await? {
        return Ok(policy::unproven_question());
    }
    let may_be_answered = limits::take_answer(tx, user, incoming.row.received_at).await?;
    Ok(if may_be_answered { policy::question() } else { policy::too_many_questions() })
}

/// Whether his provider vouches for the user: an answer tells of mail.
async fn is_proven(
    tx: &mut Tx,
    gateway: &Gateway,
    Incoming { row, message, sender, .. }: &Incoming<'_>,
    user: UserId,
) -> Result<bool, FlowError> {
    let (place, trusted_sealers) = (Place::Capture(Some(user)), &gateway.settings.trusted_sealers);
    let copied = Copied { row, message, sender, place, trusted_sealers, original: None };
    Ok(trust::weigh(tx, copied).await?.is_some_and(|weighed| weighed.evidence.level >= Level::E2))
}

/// What is asked, as it may be kept.
async fn question(
    tx: &mut Tx,
    gateway: &Gateway,
    Incoming { row, message, .. }: &Incoming<'_>,
    user: UserId,
) -> Result<Question, FlowError> {
    let asked = Asked::read(message, &row.raw);
    let settings = policy_of(tx, Some(user)).await?.settings;
    let users = known_among(tx, &asked.addresses, &settings).await?.users;
    let key = tx.text_hasher().await?;
    // Everybody writes to the users: their addresses find everything.
    let is_other = |address: &&Address| !users.contains_key(address) && !gateway.settings.ours.holds(address);
    Ok(Question {
        id: row.id,
        user,
        message_id: message.summary.message_id.clone(),
        ids: asked.ids.iter().map(|id| key.hash(id.as_str())).collect(),
        addresses: asked.addresses.iter().filter(is_other).map(|address| key.hash(address.key())).collect(),
        is_being_answered: false,
    })
}

/// Writes down what was decided about the question itself, found by its own id alone: whoever asks about the other mail
/// later is not told of the question.
async fn settle(
    tx: &mut Tx,
    user: Option<UserId>,
    Incoming { row, message, .. }: &Incoming<'_>,
    ruling: Ruling,
) -> Result<(), FlowError> {
    let key = tx.text_hasher().await?;
    let own = message.summary.message_id.iter();
    let hashes = own.map(|id| DecisionHash { role: HashRole::Id, hash: key.hash(id.as_str()) }).collect();
    let written_at = Some(ingest::written_at(&message.summary, row.received_at));
    let decision =
        NewDecision { ruling, via: "capture", message: None, seen_at: None, user, written_at, hashes };
    let policy = policy_of(tx, user).await?;
    let by = format!("rule:{}", decision.ruling.rule);
    tx.decide(&decision, ingest::stamp(&policy), row.received_at).await?;
    tx.settle_inbound(row.id, InboundState::Dropped, None).await?;
    // It was kept aside while DNS was asked who sent it.
    tx.settle_held(row.id, (QuarantineState::Rejected, &by), false, now()).await?;
    tx.forget_sender_check(row.id).await?;
    Ok(())
}
