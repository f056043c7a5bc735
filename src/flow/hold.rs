//! Mail that is left out or kept aside, and what becomes of what is kept (docs/flows.md, "Quarantine").
//!
//! Of what is kept aside nothing shows in conversations, contacts and events; released, it is filed as if it had been let in
//! when it came. Not here: why it is kept (`core::policy`, `core::evidence`).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{FlowError, Gateway, ingest, now, policy_of, trust};
use crate::{
    core::{
        decision::{NewDecision, Ruling, Verdict},
        event::{self, Event},
        evidence::{self, Level, Standing, Witness},
        ids::{Id as _, MessageKey, UserId},
        inbound::Door,
        message::{Sighting, SightingRow},
        policy::{self, Policy},
        quarantine::{Held, KEPT, NewHeld, QuarantineState, Shown, USER_MAX, WORKSPACE_MAX},
        route::RouteTarget,
        sender::FromField,
    },
    mail::Message,
    queue::{Leased, Settlement},
    store::{self, InboundRow, InboundState, Tx},
};

/// Mail whose time is over, looked at at a time.
const OVERDUE_AT_ONCE: u32 = 100;
/// The rule of mail that DNS is asked about.
pub(super) const CHECKING: &str = "checking_sender";

/// Holds a message that could not be processed again and again, so that the queue moves on; its bytes stay readable.
///
/// # Errors
/// Those of the store.
pub async fn hold_poison(gateway: &Gateway, job: &Leased, inbound: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    // Making room for it may delete what is being filed.
    tx.lock_filing().await?;
    let ruling =
        Ruling { verdict: Verdict::Held, rule: "cannot_be_processed", reason: "It could not be processed." };
    let door = tx.inbound_door(inbound).await?;
    let user = door.as_ref().and_then(whose);
    let via = match door {
        Some(Door::Submission { .. }) => "submission",
        Some(Door::Mx { routes, .. })
            if routes.iter().any(|route| matches!(route.target, RouteTarget::Reply { .. })) =>
        {
            "reply"
        }
        _ => "capture",
    };
    let decision =
        NewDecision { ruling, via, message: None, seen_at: None, user, written_at: None, hashes: Vec::new() };
    let policy = policy_of(&mut tx, None).await?;
    // Nothing of it can be read, so that it is like no other.
    let kept = Kept {
        identity: *blake3::hash(inbound.uuid().as_bytes()).as_bytes(),
        wording: None,
        id_hash: None,
        shown: None,
        level: None,
        user,
        received_at: job.created_at,
    };
    keep(&mut tx, &policy, (inbound, kept), decision).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.commit().await?;
    Ok(())
}

/// Who handed it in, or to whose address it came: of several the first, and before all whose it is as an answer.
pub(super) fn whose(door: &Door) -> Option<UserId> {
    let routes = match door {
        Door::Submission { order, .. } => return Some(order.user),
        Door::Mx { routes, .. } => routes,
    };
    let answered = routes.iter().find(|route| matches!(route.target, RouteTarget::Reply { .. }));
    answered.or(routes.first()).map(|route| match route.target {
        RouteTarget::Capture { user } | RouteTarget::Why { user } | RouteTarget::Reply { user, .. } => user,
    })
}

/// What is left out or kept aside, by which policy, and whom it is for.
pub(super) struct Left<'a> {
    pub policy: &'a Policy,
    pub via: &'static str,
    /// To whose address it came.
    pub user: Option<UserId>,
    /// How far its sender is believed, and whom that concerns, where he was weighed.
    pub weighed: Option<(Level, Option<UserId>)>,
}

/// Leaves out what policy skips, and keeps aside what it holds.
pub(super) async fn leave(
    tx: &mut Tx,
    (gateway, left): (&Gateway, Left<'_>),
    (row, message): (&InboundRow, &Message),
    ruling: &Ruling,
) -> Result<(), FlowError> {
    let parties = gateway.settings.ours.parties(&message.summary);
    let hashes = ingest::decision_hashes(tx, &message.summary, &parties).await?;
    let written_at = Some(ingest::written_at(&message.summary, row.received_at));
    let Left { policy, via, user, weighed } = left;
    let ruling = ruling.clone();
    let decision = NewDecision { ruling, via, message: None, seen_at: None, user, written_at, hashes };
    if decision.ruling.verdict != Verdict::Held {
        return drop_it(tx, policy, row, decision).await;
    }
    let (level, whom) = weighed.map_or((None, user), |(level, whom)| (Some(level), whom));
    let kept = Kept { level, user: whom, ..kept(tx, row, message).await? };
    if weighed.is_some() && has_twin(tx, (row, message), (level, whom)).await? {
        let decision = NewDecision { ruling: policy::held_already(), ..decision };
        return drop_it(tx, policy, row, decision).await;
    }
    keep(tx, policy, (row.id, kept), decision).await?;
    if level.is_some_and(|level| level > Level::E0) {
        // A copy in the user's own Sent mailbox would prove it; one that was passed over is looked for again.
        ingest::recall_named(tx, message.summary.message_id.iter(), now()).await?;
    }
    Ok(())
}

/// Whether the same waits already for whoever decides about this one. What is sent on again and again to the same addresses is
/// decided about once; what came to others concerns others, or goes on to others.
async fn has_twin(
    tx: &mut Tx,
    (row, message): (&InboundRow, &Message),
    (level, user): (Option<Level>, Option<UserId>),
) -> Result<bool, store::Error> {
    for twin in tx.held_with_wording(&ingest::wording(message)).await? {
        if twin.id == row.id || twin.level < level || twin.user != user {
            continue;
        }
        let door = tx.inbound_door(twin.id).await?;
        if door.is_some_and(|door| addresses(&door) == addresses(&row.door)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The addresses of ours that it came to.
fn addresses(door: &Door) -> Option<BTreeSet<&str>> {
    match door {
        Door::Mx { routes, .. } => Some(routes.iter().map(|route| route.address.key()).collect()),
        Door::Submission { .. } => None,
    }
}

async fn drop_it(
    tx: &mut Tx,
    policy: &Policy,
    row: &InboundRow,
    decision: NewDecision,
) -> Result<(), FlowError> {
    let id = tx.decide(&decision, ingest::stamp(policy), row.received_at).await?;
    tx.settle_inbound(row.id, InboundState::Dropped, None).await?;
    tx.forget_sender_check(row.id).await?;
    let by = format!("rule:{}", decision.ruling.rule);
    if !tx.settle_held(row.id, (QuarantineState::Rejected, &by), false, now()).await? {
        tx.overrule_release(row.id, &by, now()).await?;
    }
    if tx.is_asked_for(event::MESSAGE_SKIPPED).await? {
        let rule = decision.ruling.rule.to_owned();
        tx.announce(&Event::MessageSkipped { decision: id, account: None, rule }, now()).await?;
    }
    Ok(())
}

/// What is kept beside the bytes of mail that is kept aside.
struct Kept {
    identity: [u8; 32],
    wording: Option<[u8; 32]>,
    id_hash: Option<[u8; 16]>,
    shown: Option<Shown>,
    level: Option<Level>,
    user: Option<UserId>,
    received_at: Timestamp,
}

async fn kept(tx: &mut Tx, row: &InboundRow, message: &Message) -> Result<Kept, store::Error> {
    let id_hash = match &message.summary.message_id {
        Some(id) => Some(tx.hash_of(id.as_str()).await?),
        None => None,
    };
    Ok(Kept {
        identity: ingest::identity(message),
        wording: Some(ingest::wording(message)),
        id_hash,
        shown: Some(Shown::of(&message.summary)),
        level: None,
        user: None,
        received_at: row.received_at,
    })
}

/// Keeps a message aside with its reason. `decision` says why; it names the message by the key promised in the 250.
async fn keep(
    tx: &mut Tx,
    by: &Policy,
    (inbound, kept): (MessageKey, Kept),
    decision: NewDecision,
) -> Result<(), FlowError> {
    let now = now();
    let Ruling { rule, reason, .. } = decision.ruling;
    let decision = NewDecision { message: Some(inbound), ..decision };
    tx.settle_inbound(inbound, InboundState::Held, None).await?;
    put(tx, (inbound, kept), (QuarantineState::Held, rule, reason)).await?;
    let id = tx.decide(&decision, ingest::stamp(by), now).await?;
    tx.announce(&Event::MessageHeld { message: inbound, decision: Some(id), reason: reason.to_owned() }, now)
        .await?;
    Ok(())
}

/// Keeps a message aside while DNS is asked who sent it. Nothing was decided yet, and nobody is told.
pub(super) async fn keep_while_checking(
    tx: &mut Tx,
    (row, message): (&InboundRow, &Message),
    user: UserId,
) -> Result<(), store::Error> {
    let kept = Kept { user: Some(user), ..kept(tx, row, message).await? };
    let reason = "Who sent it is being checked: DNS has not answered yet.";
    put(tx, (row.id, kept), (QuarantineState::Checking, CHECKING, reason)).await
}

/// Writes the row, and makes room for it.
async fn put(
    tx: &mut Tx,
    (id, kept): (MessageKey, Kept),
    (state, rule, reason): (QuarantineState, &'static str, &'static str),
) -> Result<(), store::Error> {
    let Kept { identity, wording, id_hash, shown, level, user, received_at } = kept;
    let expires_at = received_at.saturating_add(KEPT).unwrap_or(received_at);
    let held = NewHeld {
        id,
        state,
        level,
        rule,
        reason,
        user,
        identity,
        wording,
        id_hash,
        shown,
        received_at,
        expires_at,
    };
    tx.put_held(&held).await?;
    if let Some(user) = user {
        let beyond = tx.held_beyond(Some(user), USER_MAX).await?;
        expire(tx, "cap", &beyond).await?;
    }
    let beyond = tx.held_beyond(None, WORKSPACE_MAX).await?;
    expire(tx, "cap", &beyond).await
}

/// Erases mail that nobody decided about.
async fn expire(tx: &mut Tx, by: &str, overdue: &[MessageKey]) -> Result<(), store::Error> {
    for id in overdue {
        if tx.settle_held(*id, (QuarantineState::Expired, by), false, now()).await? {
            erase(tx, *id).await?;
        }
    }
    Ok(())
}

async fn erase(tx: &mut Tx, id: MessageKey) -> Result<(), store::Error> {
    tx.settle_inbound(id, InboundState::Dropped, None).await?;
    tx.forget_sender_check(id).await
}

/// Why nothing can be decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody, or time, has decided otherwise.
    Settled(QuarantineState),
    /// Nothing about it could be known again.
    NothingToTrust,
}

/// Lets in what was kept aside: it is processed as if it had just come, at the time it came. With `trust` its route is trusted
/// from now on. Asked for twice, it is done once.
///
/// # Errors
/// Those of the store; `Missing` when there is no such mail.
pub async fn release(
    tx: &mut Tx,
    id: MessageKey,
    (by, trust): (&str, bool),
    now: Timestamp,
) -> Result<Result<Held, Refusal>, FlowError> {
    tx.lock_filing().await?;
    if !tx.settle_held(id, (QuarantineState::Released, by), trust, now).await? {
        return Ok(settled_as(tx, id, QuarantineState::Released).await?);
    }
    if trust && !pin(tx, id, (by, now)).await? {
        return Ok(Err(Refusal::NothingToTrust));
    }
    trust::look_again(tx, id).await?;
    Ok(Ok(tx.held(id).await?.ok_or(store::Error::Missing)?))
}

/// Deletes what was kept aside; who did stays known.
///
/// # Errors
/// As [`release`].
pub async fn reject(
    tx: &mut Tx,
    id: MessageKey,
    by: &str,
    now: Timestamp,
) -> Result<Result<Held, Refusal>, FlowError> {
    tx.lock_filing().await?;
    if !tx.settle_held(id, (QuarantineState::Rejected, by), false, now).await? {
        return Ok(settled_as(tx, id, QuarantineState::Rejected).await?);
    }
    erase(tx, id).await?;
    Ok(Ok(tx.held(id).await?.ok_or(store::Error::Missing)?))
}

async fn settled_as(
    tx: &mut Tx,
    id: MessageKey,
    wanted: QuarantineState,
) -> Result<Result<Held, Refusal>, store::Error> {
    let held = tx.held(id).await?.ok_or(store::Error::Missing)?;
    Ok(if held.state == wanted { Ok(held) } else { Err(Refusal::Settled(held.state)) })
}

/// Why a message cannot be disowned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undisputed {
    /// Something proves that the user sent it, or others have seen it too.
    NotInDoubt,
}

/// Deletes a message that was filed with a doubt left and that its user says he did not send, with all that came of it.
///
/// # Errors
/// Those of the store; `Missing` when there is no such message.
pub async fn disown(
    tx: &mut Tx,
    id: MessageKey,
    by: &str,
    now: Timestamp,
) -> Result<Result<Held, Undisputed>, FlowError> {
    tx.lock_filing().await?;
    let stored = tx.message(id).await?.ok_or(store::Error::Missing)?;
    let seen = tx.sightings(&[id]).await?.remove(&id).unwrap_or_default();
    let is_copy = |row: &SightingRow| matches!(row.sighting, Sighting::Capture { .. });
    let Some(doubt) = tx.verifications(&[id]).await?.remove(&id).filter(|known| known.level <= Level::E2)
    else {
        return Ok(Err(Undisputed::NotInDoubt));
    };
    if !seen.iter().all(is_copy) || tx.submission(id).await?.is_some() {
        return Ok(Err(Undisputed::NotInDoubt));
    }
    let (user, sender) = stored.sender();
    let received_at = stored.received_at;
    let disowned = NewHeld {
        id,
        state: QuarantineState::Held,
        level: Some(doubt.level),
        rule: "disowned",
        reason: "It was filed with a doubt left, and was disowned.",
        user,
        identity: stored.identity,
        wording: None,
        id_hash: None,
        shown: None,
        received_at,
        expires_at: received_at.saturating_add(KEPT).unwrap_or(received_at),
    };
    tx.put_held(&disowned).await?;
    tx.settle_held(id, (QuarantineState::Rejected, by), false, now).await?;
    if let (Some(sender), Some(route)) = (sender, &doubt.route) {
        tx.forget_route(sender, route).await?;
    }
    tx.disown(id).await?;
    Ok(Ok(tx.held(id).await?.ok_or(store::Error::Missing)?))
}

/// Trusts the route by which it came, for the address of the user, or of the participant, whom it names. False when there is nothing to know it by.
async fn pin(tx: &mut Tx, id: MessageKey, (by, now): (&str, Timestamp)) -> Result<bool, store::Error> {
    let Some(check) = tx.sender_check(id).await? else { return Ok(false) };
    if tx.held(id).await?.is_some_and(|held| held.rule == evidence::UNADDRESSED_RULE) {
        return Ok(false);
    }
    let is_answer = check.context.is_some_and(|context| context.author == Standing::Participant);
    let Witness::Checked(facts) = check.witness else { return Ok(false) };
    let (FromField::One(author), Some(route)) = (&facts.from, evidence::route_of(&facts)) else {
        return Ok(false);
    };
    // Those whom mail may come from: a route is trusted with nobody else.
    let (users, contacts) = tx.people_among(std::slice::from_ref(author)).await?;
    if users.is_empty() && (!is_answer || contacts.is_empty()) {
        return Ok(false);
    }
    let until = now.saturating_add(evidence::PINNED_FOR).unwrap_or(now);
    tx.pin_route(author, &route, (until, by)).await?;
    Ok(true)
}

/// Erases what nobody decided about in time.
///
/// # Errors
/// Those of the store.
pub async fn expire_overdue(gateway: &Gateway, now: Timestamp) -> Result<(), store::Error> {
    loop {
        let overdue = gateway.store.system_read().await?.overdue_in_quarantine(now, OVERDUE_AT_ONCE).await?;
        for (workspace, id) in &overdue {
            let mut tx = match gateway.store.begin(*workspace).await {
                Err(store::Error::Missing) => continue,
                begun => begun?,
            };
            tx.lock_filing().await?;
            expire(&mut tx, "time", &[*id]).await?;
            tx.commit().await?;
        }
        if overdue.len() < OVERDUE_AT_ONCE as usize {
            return Ok(());
        }
    }
}
