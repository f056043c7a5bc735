//! What happens to a message after its 250: read it once, judge it, file it (docs/flows.md, "Capture" and "Relay").
//!
//! Not here: taking it in (`flow::capture`, `flow::submit`) and filing it (`flow::ingest`).

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    FlowError, Gateway, capture_address,
    hold::{self, Left},
    ingest::{self, Announce, Arrival, RawBytes},
    now, policy_of, question, reading,
    relay::{self, Bound},
    submit::{self, CameTo, Returned},
    trust::{self, Copied, Passage, Sender},
};
use crate::{
    core::{
        attribution::{self, Attribution, Known},
        decision::{Ruling, Verdict},
        event::MessageEvent,
        ids::{MessageKey, UserId},
        inbound::{Door, Principal},
        message::{Author, CaptureField, Direction, Parties, Sighting},
        policy::{self, FileRule, Policy, ThreadStart, settings::Match},
        route::{Route, RouteTarget},
    },
    mail::{Address, Kind, Message, Party, ReversePath},
    queue::{Leased, Settlement},
    store::{self, InboundRow, InboundState, SealedBlob, Session, Tx, mint},
};

/// Files what a listener took in; the job and its effect are settled in one transaction.
///
/// # Errors
/// Those of the store: the job stays and is tried again.
pub async fn process(gateway: &Gateway, job: &Leased, inbound: MessageKey) -> Result<(), FlowError> {
    let row = gateway.store.read(job.workspace).await?.inbound(inbound).await?;
    // Before the transaction begins: everybody else who writes waits for its end.
    let message = match row.state {
        InboundState::Pending => Some(reading::read(&row.raw).await),
        _ => None,
    };
    let sender = match &message {
        Some(message) => trust::look(gateway, job, (&row, message)).await?,
        None => Some(Sender::default()),
    };
    // DNS has to answer yet.
    let Some(sender) = sender else { return Ok(()) };
    let files = match (&row.door, &message) {
        (Door::Mx { routes, .. }, Some(message)) => keep_files(gateway, job, &row, (message, routes)).await?,
        _ => Files::all(),
    };
    let mut tx = gateway.store.begin(job.workspace).await?;
    if let Some(message) = message {
        sender.hold_still(&mut tx, inbound).await?;
        match &row.door {
            Door::Mx { routes, envelope, .. } => {
                let came = Came {
                    row: &row,
                    message: &message,
                    sender: &sender,
                    reverse_path: &envelope.reverse_path,
                };
                take_mx(&mut tx, gateway, (came, files), routes).await?;
            }
            Door::Submission { order, envelope } => {
                let accepted = submit::file(
                    &mut tx,
                    gateway,
                    submit::Handed::from_inbound(&row, &message, order, envelope),
                )
                .await?;
                tx.settle_inbound(row.id, InboundState::Filed, Some(accepted.message)).await?;
                trust::note_filed(&mut tx, &sender, row.id, (accepted.message, "submission")).await?;
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
        (InboundState::Pending, _) => Settlement::RetryAt(now() + pause(&mut tx, inbound).await?),
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

/// How long to wait for the first of several: shortly, unless DNS is waited for.
async fn pause(tx: &mut Tx, inbound: MessageKey) -> Result<SignedDuration, store::Error> {
    Ok(match tx.held(inbound).await? {
        Some(_) => SignedDuration::from_mins(5),
        None => SignedDuration::from_secs(1),
    })
}

/// What came to the MX listener, and what was found of who sent it.
#[derive(Clone, Copy)]
struct Came<'a> {
    row: &'a InboundRow,
    message: &'a Message,
    sender: &'a Sender,
    reverse_path: &'a ReversePath,
}

/// What is kept of a captured message instead of its bytes, and the files that are not in it.
type Cut = (SealedBlob, Vec<(usize, FileRule)>);
/// What policy says of the files of a captured message.
struct Files {
    /// By which they were judged; `None` where nothing was asked of it.
    by: Option<Policy>,
    /// Nothing when no file is kept out; or the ruling by which files keep the message out.
    kept: Result<Option<Cut>, Ruling>,
}

impl Files {
    /// Nobody looked.
    fn all() -> Self {
        Self { by: None, kept: Ok(None) }
    }
}

async fn keep_files(
    gateway: &Gateway,
    job: &Leased,
    row: &InboundRow,
    (message, routes): (&Message, &[Route]),
) -> Result<Files, store::Error> {
    // An answer goes on to somebody, and that whole.
    if message.attachments.is_empty() || is_answer(routes) {
        return Ok(Files::all());
    }
    let (store, workspace) = (&gateway.store, job.workspace);
    let mut session = store.read(workspace).await?;
    let user = captured_for(&mut session, routes, message).await?;
    let policy = policy_of(&mut session, user).await?;
    drop(session);
    let kept = match ingest::keep(&policy.settings, message, row.raw.clone()) {
        Err(ruling) => Err(ruling),
        Ok(kept) if kept.omitted.is_empty() => Ok(None),
        Ok(kept) => {
            let key = store.content_key(workspace, None).await?;
            Ok(Some((store.seal_blob(workspace, key, &kept.raw).await?, kept.omitted)))
        }
    };
    Ok(Files { by: Some(policy), kept })
}

/// What came to some addresses of ours, judged.
struct Judged {
    /// By which it was judged.
    policy: Policy,
    /// Whose copy or answer it is.
    user: Option<UserId>,
    ruling: Ruling,
    via: &'static str,
    who: Attribution,
    known: Known,
    /// The reply addresses that take it.
    bound: Vec<Bound>,
    /// The mail of ours that it reports on.
    returned: Option<Returned>,
}

impl Judged {
    /// Whether it is a copy that a user may have sent, which his word alone would let in.
    fn is_a_copy(&self) -> bool {
        self.via == "capture"
            && (self.ruling.verdict == Verdict::Synced || self.ruling == policy::capture_sender_unknown())
    }

    fn left(&self) -> Left<'_> {
        Left { policy: &self.policy, via: self.via, user: self.user, weighed: None }
    }
}

/// Answers what asks, and files the rest.
async fn take_mx(
    tx: &mut Tx,
    gateway: &Gateway,
    (came, files): (Came<'_>, Files),
    routes: &[Route],
) -> Result<(), FlowError> {
    let (asking, others) = question::part(routes);
    if !asking.is_empty() {
        let Came { row, message, sender, reverse_path } = came;
        let incoming = question::Incoming { row, message, sender, reverse_path };
        question::ask(tx, gateway, incoming, (&asking, others.is_empty())).await?;
    }
    if others.is_empty() {
        return Ok(());
    }
    file_mx(tx, gateway, (came, files), &others).await
}

async fn file_mx(
    tx: &mut Tx,
    gateway: &Gateway,
    (came, files): (Came<'_>, Files),
    routes: &[Route],
) -> Result<(), FlowError> {
    let Came { row, message, sender, reverse_path } = came;
    let parties = gateway.settings.ours.parties(&message.summary);
    // What is read from here on is what filing changes.
    tx.lock_filing().await?;
    let judged = judge(tx, gateway, (came, &parties), routes).await?;
    let goes_on = !judged.bound.is_empty() && relay::goes_on(message.kind, reverse_path);
    let cut = files.kept.as_ref().ok().and_then(Option::as_ref);
    let arrival = arrival(gateway, (row, message, parties), routes, (&judged, goes_on), cut);
    let ruling = &judged.ruling;
    if judged.is_a_copy() && !sender.is_released() {
        let original = if sender.is_checked() { ingest::original_of(tx, &arrival).await? } else { None };
        let copied = Copied { row, message, sender, owner: judged.user, original };
        if let Passage::Closed(closed) = trust::pass(tx, copied, &judged.policy.settings).await? {
            let left = Left { weighed: Some((closed.level, closed.user)), ..judged.left() };
            hold::leave(tx, (gateway, left), (row, message), &closed.ruling).await?;
            return capture_address::note_stranger(tx, &gateway.settings.ours, (routes, message), now())
                .await;
        }
    }
    if ruling.verdict != Verdict::Synced {
        return hold::leave(tx, (gateway, judged.left()), (row, message), ruling).await;
    }
    // The policy was changed while the files were looked at.
    if files.by.is_some_and(|by| by != judged.policy) {
        return Err(FlowError::Raced);
    }
    // No rule on files keeps a copy out: of what is here already they are not stored again.
    if let Err(ruling) = &files.kept
        && ingest::original_of(tx, &arrival).await?.is_none()
    {
        return hold::leave(tx, (gateway, judged.left()), (row, message), ruling).await;
    }
    // Before it is filed: it gets one decision.
    let sent_already = goes_on && is_the_crms_own(tx, &arrival).await?;
    if sent_already && !sender.is_released() {
        return hold::leave(tx, (gateway, judged.left()), (row, message), &policy::sent_already()).await;
    }
    let key = ingest::ingest(tx, &gateway.settings.ours, &judged.policy, arrival).await?.key();
    if let Some(returned) = &judged.returned {
        submit::record_returned(tx, returned, row.received_at).await?;
    }
    if goes_on && !sent_already {
        relay::enqueue(tx, key, &judged.bound, row.received_at).await?;
    }
    tx.settle_inbound(row.id, InboundState::Filed, Some(key)).await?;
    trust::note_filed(tx, sender, row.id, (key, ruling.rule)).await?;
    Ok(())
}

/// What is to be filed, by what was judged of it.
fn arrival<'a>(
    gateway: &Gateway,
    (row, message, mut parties): (&InboundRow, &'a Message, Parties),
    routes: &[Route],
    (judged, goes_on): (&Judged, bool),
    cut: Option<&'a Cut>,
) -> Arrival<'a> {
    let Judged { ruling, via, who, known, bound, .. } = judged;
    let direction = if message.kind == Kind::Bounce {
        who.direction
    } else {
        relay::complete(&mut parties, bound);
        attribution::attribute(&parties, known, &gateway.settings.ours).direction
    };
    let taken = routes.iter().filter(|route| takes(route, bound));
    Arrival {
        key: row.id,
        message,
        parties,
        bytes: match cut {
            Some((sealed, _)) => RawBytes::Sealed(sealed),
            None => RawBytes::Stored { blob: row.blob, size: row.raw.len() },
        },
        omitted: cut.map_or(&[], |(_, omitted)| omitted),
        sightings: taken.map(|route| sighting(row.id, route, message)).collect(),
        received_at: row.received_at,
        internal_date: None,
        ruling: ruling.clone(),
        via,
        extra_nodes: Vec::new(),
        proven: bound.iter().map(|bound| bound.conversation).collect(),
        passed_on: None,
        captured: *via == "capture",
        copied_for: bound.first().filter(|_| goes_on).map(|bound| bound.user),
        is_sent: false,
        announce: announcement((via, goes_on), (&who.author, direction)),
        account: None,
        own: None,
        known: Some(known.clone()),
    }
}

/// Whether it is a copy of what the CRM itself sent: that leaves by its own way, and a copy of it that turns up at a reply
/// address is for a person to judge.
async fn is_the_crms_own(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<bool, FlowError> {
    let Some(original) = ingest::original_of(tx, arrival).await? else { return Ok(false) };
    let submission = tx.submission(original).await?;
    Ok(submission.is_some_and(|submission| !matches!(submission.principal, Principal::Participant(_))))
}

/// A capture address takes every message that is filed, a reply address those of its participant.
fn takes(route: &Route, bound: &[Bound]) -> bool {
    matches!(route.target, RouteTarget::Capture { .. })
        || bound.iter().any(|bound| bound.address == route.address)
}

/// What a user wrote and we pass on is told of as sent when it was sent.
fn announcement((via, goes_on): (&str, bool), (author, direction): (&Author, Direction)) -> Announce {
    match author {
        Author::User(_) if goes_on => Announce::Later,
        _ if via == "capture" => Announce::Now(MessageEvent::Captured),
        _ => Announce::Now(ingest::event_for(direction)),
    }
}

/// A reply address admits to its conversation; mail that came to none is a captured copy.
async fn judge(
    tx: &mut Tx,
    gateway: &Gateway,
    (Came { row, message, sender, reverse_path }, parties): (Came<'_>, &Parties),
    routes: &[Route],
) -> Result<Judged, FlowError> {
    let mut bound = relay::bound(tx, routes).await?;
    let people: Vec<Address> = parties.addresses().chain(relay::people(&bound)).cloned().collect();
    let is_answer = is_answer(routes);
    let captured_for = if is_answer { None } else { captured_for(tx, routes, message).await? };
    let mut by = policy_of(tx, captured_for).await?;
    if is_answer {
        // A reply address knows its participant by each of his addresses.
        Arc::make_mut(&mut by.settings).matching = Match::All;
    }
    let known = ingest::known_among(tx, &people, &by.settings).await?;
    let who = attribution::attribute(parties, &known, &gateway.settings.ours);
    let mut returned = None;
    let (ruling, via) = if is_answer && message.kind == Kind::Bounce {
        let participants: Vec<Address> = bound.iter().map(|bound| bound.participant.clone()).collect();
        let report = (&message.summary, row.raw.as_ref());
        returned = submit::returned(tx, report, CameTo::Participants(&participants)).await?;
        (policy::delivery_report(), "reply")
    } else if is_answer && sender.is_released() {
        (policy::released(), "reply")
    } else if is_answer {
        bound.retain(|bound| bound.admits(&who, &known));
        (judge_answer(gateway, &who, (routes, &bound)).await, "reply")
    } else if *reverse_path == ReversePath::Null {
        (policy::null_reverse_path(), "capture")
    } else {
        (judge_capture(tx, &by, (&who, parties), message, routes).await?, "capture")
    };
    let ruling =
        if sender.is_released() && ruling.verdict == Verdict::Held { policy::released() } else { ruling };
    let user = captured_for.or_else(|| hold::whose(&row.door));
    Ok(Judged { policy: by, user, ruling, via, who, known, bound, returned })
}

async fn judge_answer(gateway: &Gateway, who: &Attribution, (routes, bound): (&[Route], &[Bound])) -> Ruling {
    let Some(author) = who.author_party.as_ref().filter(|_| !bound.is_empty()) else {
        return policy::foreign_answer();
    };
    for route in routes.iter().filter(|route| bound.iter().any(|bound| bound.address == route.address)) {
        if gateway.brake.count(route.id, &author.address).await {
            return policy::possible_loop();
        }
    }
    policy::answered()
}

/// What policy says of a copy, by its author and the fields that capture addresses stood in: one that policy allows is enough.
async fn judge_capture(
    tx: &mut Tx,
    by: &Policy,
    (who, parties): (&Attribution, &Parties),
    message: &Message,
    routes: &[Route],
) -> Result<Ruling, store::Error> {
    let mut fields = routes.iter().map(|route| capture_field(&route.address, message));
    let first = fields.next().unwrap_or(CaptureField::Bcc);
    let allowed = |field: &CaptureField| by.settings.capture_fields.allow(*field);
    let field = Some(first).filter(allowed).or_else(|| fields.find(allowed)).unwrap_or(first);
    let thread_known = !by.settings.starts(ThreadStart::Capture) && {
        let keys = ingest::keys_of_summary(&message.summary, &[], parties, who);
        !tx.thread_keys_known(&ingest::bytes_of(&keys)).await?.is_empty()
    };
    Ok(policy::judge_capture(by, &who.author, field, thread_known))
}

/// Whether it came to a reply address.
fn is_answer(routes: &[Route]) -> bool {
    routes.iter().any(|route| matches!(route.target, RouteTarget::Reply { .. }))
}

/// The user whose capture address it came to: its author, if it came to those of several. In whatever order a client names them.
async fn captured_for(
    session: &mut Session,
    routes: &[Route],
    message: &Message,
) -> Result<Option<UserId>, store::Error> {
    let mut users: Vec<UserId> = routes
        .iter()
        .filter_map(|route| match route.target {
            RouteTarget::Capture { user } => Some(user),
            RouteTarget::Reply { .. } | RouteTarget::Why { .. } => None,
        })
        .collect();
    users.sort_unstable();
    users.dedup();
    if let (2.., Some(author)) = (users.len(), message.summary.author()) {
        let author = session.user_by_address(&author.address).await?.map(|user| user.id);
        if author.is_some_and(|author| users.contains(&author)) {
            return Ok(author);
        }
    }
    Ok(users.first().copied())
}

fn sighting(inbound: MessageKey, route: &Route, message: &Message) -> Sighting {
    let recipient = route.address.clone();
    match route.target {
        RouteTarget::Capture { .. } | RouteTarget::Why { .. } => {
            let field = capture_field(&recipient, message);
            Sighting::Capture { inbound, recipient, field }
        }
        RouteTarget::Reply { .. } => Sighting::Reply { inbound, recipient },
    }
}

/// Where the capture address stood. A Bcc leaves no trace in the header, so absence means Bcc.
pub(super) fn capture_field(address: &Address, message: &Message) -> CaptureField {
    let names = |list: &[Party]| list.iter().any(|party| party.address == *address);
    match () {
        () if names(&message.summary.to) => CaptureField::To,
        () if names(&message.summary.cc) => CaptureField::Cc,
        () => CaptureField::Bcc,
    }
}
