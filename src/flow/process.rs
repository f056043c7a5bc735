//! What happens to a message after its 250: read it once, judge it, file it (docs/flows.md, "Capture" and "Relay").
//!
//! Not here: taking it in (`flow::capture`, `flow::submit`) and filing it (`flow::ingest`).

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    FlowError, Gateway, capture_address, forward,
    hold::{self, Left},
    ingest::{self, Announce, Arrival, RawBytes},
    now,
    places::{capture_field, captured_for, is_answer, sighting},
    policy_of, question, reading,
    relay::{self, Bound},
    submit::{self, CameTo, Returned},
    trust::{self, Copied, Passage, Place, Sender},
};
use crate::{
    core::{
        attribution::{self, Attribution, Known},
        decision::{Ruling, Verdict},
        event::MessageEvent,
        evidence::Level,
        ids::{MessageKey, UserId},
        inbound::{Door, Principal},
        message::{Author, CaptureField, Direction, Parties},
        policy::{self, FileRule, Policy, ThreadStart},
        route::{Route, RouteTarget},
    },
    mail::{Address, Automatic, Kind, Message, ReversePath, forward::Forwarded},
    queue::{Leased, Settlement},
    store::{self, InboundRow, InboundState, SealedBlob, Tx, mint},
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
    let forwarded = match (&row.door, &message) {
        (Door::Mx { routes, .. }, Some(message)) if !is_answer(routes) => {
            reading::forwarded(message, &row.raw).await
        }
        _ => None,
    };
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
                    forwarded: forwarded.as_ref(),
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
    /// The mail that it passes on.
    forwarded: Option<&'a Forwarded>,
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
    /// From names the participant of one of them.
    is_participants: bool,
    /// The mail of ours that it reports on.
    returned: Option<Returned>,
}

impl Judged {
    /// Whether what From says would let it in, or keep it for the admins: a copy that a user may have sent, or an answer in
    /// the name of its participant.
    fn is_weighed(&self) -> bool {
        let is_let_in = self.ruling.verdict == Verdict::Synced;
        match self.via {
            "capture" => is_let_in || self.ruling == policy::capture_sender_unknown(),
            // A report in his name shows as his.
            _ => (is_let_in || self.ruling == policy::revealing_invitation()) && self.is_participants,
        }
    }

    /// Whether it is from the participant of a reply address that it came to.
    fn is_answer(&self) -> bool {
        self.ruling == policy::answered()
    }

    /// Where its sender has to be believed.
    fn place(&self) -> Place {
        match self.via {
            "capture" => Place::Capture(self.user),
            _ => Place::Reply(self.user),
        }
    }

    fn left(&self) -> Left<'_> {
        // At a reply address nobody was asked who sent what is kept aside for what it says itself.
        let is_unasked = self.via == "reply" && self.ruling.verdict == Verdict::Held;
        let weighed = is_unasked.then_some((Level::E0, self.user));
        Left { policy: &self.policy, via: self.via, user: self.user, weighed }
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
        let Came { row, message, sender, reverse_path, .. } = came;
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
    let Came { row, message, sender, reverse_path, .. } = came;
    let parties = gateway.settings.ours.parties(&message.summary);
    // What is read from here on is what filing changes.
    tx.lock_filing().await?;
    let judged = judge(tx, gateway, (came, &parties), routes).await?;
    let goes_on = !judged.bound.is_empty() && relay::goes_on(message, reverse_path);
    let cut = files.kept.as_ref().ok().and_then(Option::as_ref);
    let mut arrival = arrival(gateway, (row, message, parties), routes, (&judged, goes_on), cut);
    let ruling = &judged.ruling;
    let Some(Admitted { level }) = admit(tx, gateway, (came, &judged), (&arrival, routes)).await? else {
        return Ok(());
    };
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
    if let Some(found) = came.forwarded.filter(|_| judged.via == "capture") {
        forward::refile(tx, gateway, (found, level), (&judged.policy, &judged.who), &mut arrival).await?;
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

/// How strong what speaks for the sender of admitted mail is, where somebody has to.
struct Admitted {
    level: Option<Level>,
}

/// Weighs who sent what somebody has to speak for. `None`: it is kept aside.
async fn admit(
    tx: &mut Tx,
    gateway: &Gateway,
    (came, judged): (Came<'_>, &Judged),
    (arrival, routes): (&Arrival<'_>, &[Route]),
) -> Result<Option<Admitted>, FlowError> {
    let Came { row, message, sender, .. } = came;
    if sender.is_released() {
        return Ok(Some(Admitted { level: judged.is_weighed().then_some(Level::RELEASED) }));
    }
    let mut level = None;
    if judged.is_weighed() {
        let original = if sender.is_checked() { ingest::original_of(tx, arrival).await? } else { None };
        let trusted_sealers = &gateway.settings.trusted_sealers;
        let copied = Copied { row, message, sender, place: judged.place(), trusted_sealers, original };
        match trust::pass(tx, copied, &judged.policy.settings).await? {
            Passage::Open(found) => level = found,
            Passage::Closed(closed) => {
                let left = Left { weighed: Some((closed.level, closed.user)), ..judged.left() };
                hold::leave(tx, (gateway, left), (row, message), &closed.ruling).await?;
                // His own mail that proves too little tells of no stranger, and copies with the address in To are his to send.
                if closed.level == Level::E0 {
                    let ours = &gateway.settings.ours;
                    capture_address::note_stranger(tx, ours, (routes, message), now()).await?;
                }
                return Ok(None);
            }
        }
    }
    // Counted once it is believed: nobody stops another's mail by writing in his name.
    let Some(ruling) = loop_found(gateway, (judged, message), routes).await else {
        return Ok(Some(Admitted { level }));
    };
    hold::leave(tx, (gateway, judged.left()), (row, message), &ruling).await?;
    Ok(None)
}

/// Counts one more message of its sender at each of the addresses that take it: so many that machines may be answering each
/// other are a ruling of their own.
async fn loop_found(
    gateway: &Gateway,
    (judged, message): (&Judged, &Message),
    routes: &[Route],
) -> Option<Ruling> {
    // Nobody was asked who wrote a report: it is counted apart from what its participant writes.
    let is_report = judged.returned.is_some();
    let author = judged.who.author_party.as_ref().map(|author| &author.address).filter(|_| !is_report);
    // People may send any number of copies: a mail merge has one of each letter, and a copy causes no mail.
    let is_machines = matches!(message.summary.automatic, Automatic::AutoReply | Automatic::Generated);
    let is_copy = judged.via == "capture" && is_machines && judged.ruling.verdict == Verdict::Synced;
    if !is_copy && !judged.is_answer() && !is_report {
        return None;
    }
    let is_bound = |route: &Route| judged.bound.iter().any(|bound| bound.address == route.address);
    for route in routes.iter().filter(|route| is_copy || is_bound(route)) {
        let sender = author.unwrap_or(&route.address);
        if is_copy && gateway.brake.count_copy(route.id, sender).await {
            return Some(policy::copy_loop());
        }
        if !is_copy && gateway.brake.count_answer(route.id, sender).await {
            return Some(policy::possible_loop());
        }
    }
    None
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
        forwarded: None,
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

/// What a user wrote and we pass on is told of as sent when it was sent; what goes no further was never sent.
fn announcement((via, goes_on): (&str, bool), (author, direction): (&Author, Direction)) -> Announce {
    match author {
        Author::User(_) if goes_on => Announce::Later,
        Author::User(_) => Announce::Now(MessageEvent::Captured),
        _ if via == "capture" => Announce::Now(MessageEvent::Captured),
        _ => Announce::Now(ingest::event_for(direction)),
    }
}

/// A reply address admits to its conversation; mail that came to none is a captured copy.
async fn judge(
    tx: &mut Tx,
    gateway: &Gateway,
    (Came { row, message, sender, reverse_path, .. }, parties): (Came<'_>, &Parties),
    routes: &[Route],
) -> Result<Judged, FlowError> {
    let mut bound = relay::bound(tx, routes).await?;
    let people: Vec<Address> = parties.addresses().chain(relay::people(&bound)).cloned().collect();
    let is_answer = is_answer(routes);
    let captured_for = if is_answer { None } else { captured_for(tx, routes, message).await? };
    let mut by = policy_of(tx, captured_for).await?;
    if is_answer {
        by.settings = Arc::new(relay::knowing(&by.settings));
    }
    let known = ingest::known_among(tx, &people, &by.settings).await?;
    let who = attribution::attribute(parties, &known, &gateway.settings.ours);
    let admits = |bound: &Bound| bound.admits(&who, &known);
    let is_participants = bound.iter().any(admits);
    let answered = bound.iter().find(|bound| admits(bound)).or(bound.first()).map(|bound| bound.user);
    let mut returned = None;
    let (ruling, via) = if is_answer && message.kind == Kind::Bounce {
        let participants: Vec<Address> = bound.iter().map(|bound| bound.participant.clone()).collect();
        let report = (&message.summary, row.raw.as_ref());
        returned = submit::returned(tx, report, CameTo::Participants(&participants)).await?;
        (if returned.is_some() { policy::delivery_report() } else { policy::foreign_report() }, "reply")
    } else if is_answer && sender.is_released() {
        (policy::released(), "reply")
    } else if is_answer {
        bound.retain(admits);
        (relay::judge(&bound, message.kind), "reply")
    } else if *reverse_path == ReversePath::Null {
        (policy::null_reverse_path(), "capture")
    } else {
        (judge_capture(tx, &by, (&who, parties), message, routes).await?, "capture")
    };
    let ruling =
        if sender.is_released() && ruling.verdict == Verdict::Held { policy::released() } else { ruling };
    let user = captured_for.or(answered).or_else(|| hold::whose(&row.door));
    Ok(Judged { policy: by, user, ruling, via, who, known, bound, is_participants, returned })
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
