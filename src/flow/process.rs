//! What happens to a message after its 250: read it once, judge it, file it (docs/flows.md, "Capture" and "Reply").
//!
//! Not here: taking it in (`flow::capture`, `flow::submit`) and filing it (`flow::ingest`).

use super::{
    FlowError, Gateway,
    ingest::{self, Announce, Arrival, Ingested, RawBytes},
    relay, submit,
};
use crate::{
    core::{
        attribution::{self, Attribution, OurDomains},
        decision::{NewDecision, Ruling, Verdict},
        event::{self, Event, MessageEvent},
        ids::MessageKey,
        inbound::Door,
        message::{CaptureField, Direction, Parties, Sighting},
        policy,
        route::{Route, RouteTarget},
    },
    mail::{Address, HeaderSummary, Message, Party, ReversePath},
    queue::{Leased, Settlement},
    store::{InboundRow, InboundState, Tx, mint},
};

/// Files what a listener took in; the job and its effect are settled in one transaction.
///
/// # Errors
/// Those of the store: the job stays and is tried again.
pub async fn process(gateway: &Gateway, job: &Leased, inbound: MessageKey) -> Result<(), FlowError> {
    let row = gateway.store.read(job.workspace).await?.inbound(inbound).await?;
    // Before the transaction begins: everybody else who writes waits for its end.
    let message = (row.state == InboundState::Pending).then(|| Message::parse(&row.raw));
    let mut tx = gateway.store.begin(job.workspace).await?;
    if let Some(message) = message {
        match &row.door {
            Door::Mx { routes, .. } => file_mx(&mut tx, gateway, &row, &message, routes).await?,
            Door::Submission { order, envelope } => {
                let accepted = submit::file(
                    &mut tx,
                    gateway,
                    submit::Handed::from_inbound(&row, &message, order, envelope),
                )
                .await?;
                tx.settle_inbound(row.id, InboundState::Filed, Some(accepted.message)).await?;
            }
        }
    }
    tx.settle(job, Settlement::Done).await?;
    tx.commit().await?;
    Ok(())
}

/// Records that a transaction already taken in came once more: a sighting, nothing else.
///
/// # Errors
/// Those of the store. `Obsolete` when the first transaction is gone.
pub async fn repeat(gateway: &Gateway, job: &Leased, inbound: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let row = tx.inbound_head(inbound).await?.ok_or(FlowError::Obsolete)?;
    let settlement = match (row.state, row.message) {
        (InboundState::Pending, _) => Settlement::RetryAt(super::now() + jiff::SignedDuration::from_secs(1)),
        (InboundState::Filed, Some(message)) => {
            tx.repeat_sighting(message, (inbound, mint()), job.created_at).await?;
            Settlement::Done
        }
        _ => Settlement::Done,
    };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

/// Holds a message that could not be processed again and again, so that the queue moves on; its bytes stay readable.
///
/// # Errors
/// Those of the store.
pub async fn hold_poison(gateway: &Gateway, job: &Leased, inbound: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let ruling =
        Ruling { verdict: Verdict::Held, rule: "cannot_be_processed", reason: "It could not be processed." };
    let decision = NewDecision { ruling, via: "capture", message: None, seen_at: None, hashes: Vec::new() };
    hold(&mut tx, gateway, inbound, decision).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.commit().await?;
    Ok(())
}

async fn file_mx(
    tx: &mut Tx,
    gateway: &Gateway,
    row: &InboundRow,
    message: &Message,
    routes: &[Route],
) -> Result<(), FlowError> {
    let Door::Mx { envelope, .. } = &row.door else { return Err(FlowError::Obsolete) };
    let bound = relay::bound(tx, routes).await?;
    let mut parties = parties(gateway, message);
    if let Some(bound) = &bound {
        relay::complete(&mut parties, bound);
    }
    // What is read from here on is what filing changes.
    tx.lock_filing().await?;
    let known = ingest::known_people(tx, &parties).await?;
    let who = attribution::attribute(&parties, &known, &gateway.settings.ours);
    let is_null = envelope.reverse_path == ReversePath::Null;
    let (ruling, via) = match &bound {
        // A reply address admits to its conversation, else it is a captured copy.
        Some(bound) => (judge_reply(&who, &bound.participant), "reply"),
        None if is_null => (policy::null_reverse_path(), "capture"),
        None => (judge_capture(gateway, &who, message, routes), "capture"),
    };
    if ruling.verdict != Verdict::Synced {
        return leave(tx, gateway, row, message, (ruling, via)).await;
    }
    let arrival = Arrival {
        key: row.id,
        message,
        parties,
        bytes: RawBytes::Stored { blob: row.blob, size: row.raw.len() },
        sightings: routes.iter().map(|route| sighting(row.id, route, message)).collect(),
        received_at: row.received_at,
        internal_date: None,
        ruling,
        via,
        extra_nodes: Vec::new(),
        conversation: bound.as_ref().map(|bound| bound.conversation),
        create_contacts: bound.is_none(),
        announce: Announce::Now(announcement(via, who.direction)),
        account: None,
        known: Some(known),
    };
    let ingested = ingest::ingest(tx, &gateway.settings.ours, &gateway.policy(), arrival).await?;
    if let (Ingested::Filed(message), Some(bound)) = (&ingested, &bound) {
        relay::enqueue(tx, message, bound, &envelope.reverse_path).await?;
    }
    tx.settle_inbound(row.id, InboundState::Filed, Some(ingested.key())).await?;
    Ok(())
}

fn announcement(via: &str, direction: Direction) -> MessageEvent {
    if via == "capture" { MessageEvent::Captured } else { ingest::event_for(direction) }
}

/// What policy says of a copy, by its author and the field that the capture address stood in.
fn judge_capture(gateway: &Gateway, who: &Attribution, message: &Message, routes: &[Route]) -> Ruling {
    let field = routes.first().map_or(CaptureField::Bcc, |route| capture_field(&route.address, message));
    policy::judge_capture(&gateway.policy(), &who.author, field)
}

/// A reply address takes the answers of the participant it was made for, and of nobody who merely learned it.
fn judge_reply(who: &Attribution, participant: &Address) -> Ruling {
    let from = who.author_party.as_ref().map(|party| &party.address);
    if from == Some(participant) {
        return Ruling {
            verdict: Verdict::Synced,
            rule: "reply_address",
            reason: "A participant answered to his reply address.",
        };
    }
    Ruling {
        verdict: Verdict::Held,
        rule: "reply_from_other_address",
        reason: "It came to a reply address from somebody other than the participant it belongs to.",
    }
}

/// Leaves out what policy skips, and keeps aside what it holds.
async fn leave(
    tx: &mut Tx,
    gateway: &Gateway,
    row: &InboundRow,
    message: &Message,
    (ruling, via): (Ruling, &'static str),
) -> Result<(), FlowError> {
    let hashes = ingest::decision_hashes(tx, &message.summary, &parties(gateway, message)).await?;
    let decision = NewDecision { ruling, via, message: None, seen_at: None, hashes };
    if decision.ruling.verdict == Verdict::Held {
        return hold(tx, gateway, row.id, decision).await;
    }
    let id = tx.decide(&decision, ingest::stamp(&gateway.policy()), row.received_at).await?;
    tx.settle_inbound(row.id, InboundState::Dropped, None).await?;
    if tx.is_asked_for(event::MESSAGE_SKIPPED).await? {
        let rule = decision.ruling.rule.to_owned();
        tx.announce(&Event::MessageSkipped { decision: id, account: None, rule }, super::now()).await?;
    }
    Ok(())
}

/// Keeps a message aside with its reason. `decision` says why; it names the message by the key promised in the 250.
async fn hold(
    tx: &mut Tx,
    gateway: &Gateway,
    inbound: MessageKey,
    decision: NewDecision,
) -> Result<(), FlowError> {
    let (now, reason) = (super::now(), decision.ruling.reason.to_owned());
    let decision = NewDecision { message: Some(inbound), ..decision };
    tx.settle_inbound(inbound, InboundState::Held, None).await?;
    let id = tx.decide(&decision, ingest::stamp(&gateway.policy()), now).await?;
    tx.announce(&Event::MessageHeld { message: inbound, decision: Some(id), reason }, now).await?;
    Ok(())
}

/// Who is on a message: its header's people without our own addresses, which belong in nothing we show or send.
pub(super) fn parties(gateway: &Gateway, message: &Message) -> Parties {
    parties_of(&gateway.settings.ours, &message.summary)
}

/// The same of a header alone.
pub(super) fn parties_of(ours: &OurDomains, summary: &HeaderSummary) -> Parties {
    let people = |list: &[Party]| list.iter().filter(|party| !ours.holds(&party.address)).cloned().collect();
    Parties {
        from: people(&summary.from),
        to: people(&summary.to),
        cc: people(&summary.cc),
        bcc: people(&summary.bcc),
        reply_to: people(&summary.reply_to),
    }
}

fn sighting(inbound: MessageKey, route: &Route, message: &Message) -> Sighting {
    let recipient = route.address.clone();
    match route.target {
        RouteTarget::Capture { .. } => {
            let field = capture_field(&recipient, message);
            Sighting::Capture { inbound, recipient, field }
        }
        RouteTarget::Reply { .. } => Sighting::Reply { inbound, recipient },
    }
}

/// Where the capture address stood. A Bcc leaves no trace in the header, so absence means Bcc.
fn capture_field(address: &Address, message: &Message) -> CaptureField {
    let names = |list: &[Party]| list.iter().any(|party| party.address == *address);
    match () {
        () if names(&message.summary.to) => CaptureField::To,
        () if names(&message.summary.cc) => CaptureField::Cc,
        () => CaptureField::Bcc,
    }
}
