//! Who sent a copy or an answer, found out after its 250 and before it is filed, and weighed (docs/flows.md, "Who may write into the CRM").
//!
//! The network comes first and is asked without a transaction. Not here: asking it (`flow::sender`), the rules
//! (`core::evidence`), and what is kept aside (`flow::hold`).

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{FlowError, Gateway, hold, ingest, now, relay, sender::SmtpSession};
use crate::{
    core::{
        decision::Ruling,
        evidence::{self, Context, Disposal, Evidence, Level, Mark, Naming, SendingRoute, Standing, Witness},
        ids::{MessageKey, UserId},
        inbound::Door,
        job::Job,
        policy::{self, Settings},
        quarantine::{Held, QuarantineState},
        route::{Route, RouteTarget},
    },
    mail::{Message, Party, ReversePath, authenticity},
    queue::{Leased, Settlement},
    store::{Error, InboundRow, InboundState, NewSenderCheck, Session, Tx},
};

/// What is known of who sent mail that a person let in while it was being found out.
const RELEASED_UNCHECKED: (Level, &str, &str) =
    (Level::E1, "released_unchecked", "A person let it in before DNS had answered who sent it.");
/// When to look again whether there is room for one more. Each look reads the message again.
const BUSY: SignedDuration = SignedDuration::from_secs(2);

/// What is known of who sent a message, before it is filed.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// `None` of mail that nobody has to speak for.
    witness: Option<Witness>,
    asked: u32,
    /// The same message was found in the author's own Sent mailbox.
    is_sent: bool,
    /// How it lay in quarantine when it was looked at.
    kept: Option<QuarantineState>,
}

impl Sender {
    /// Whether a person let it in.
    pub(super) fn is_released(&self) -> bool {
        self.kept == Some(QuarantineState::Released)
    }

    /// Whether DNS and signatures were asked: only there what its mailbox says can add to it.
    pub(super) fn is_checked(&self) -> bool {
        matches!(self.witness, Some(Witness::Checked(_)))
    }

    /// Fails when something was decided about the mail since it was looked at. From here on nothing is.
    pub(super) async fn hold_still(&self, tx: &mut Tx, inbound: MessageKey) -> Result<(), FlowError> {
        let Some(kept) = self.kept else { return Ok(()) };
        tx.lock_filing().await?;
        let state = tx.held(inbound).await?.map(|held| held.state);
        let head = tx.inbound_head(inbound).await?.ok_or(FlowError::Obsolete)?;
        match head.state {
            InboundState::Pending if state == Some(kept) => Ok(()),
            InboundState::Pending => Err(FlowError::Raced),
            _ => Err(FlowError::Obsolete),
        }
    }
}

/// Finds out who sent a message that came for these routes. `None` when DNS has to answer yet, or others are asked about:
/// then the job waits.
///
/// # Errors
/// Those of the store.
pub(super) async fn look(
    gateway: &Gateway,
    job: &Leased,
    (row, message): (&InboundRow, &Message),
) -> Result<Option<Sender>, FlowError> {
    let Door::Mx { routes, envelope, peer, hello } = &row.door else { return Ok(Some(Sender::default())) };
    let mut session = gateway.store.read(job.workspace).await?;
    let kept = session.held(row.id).await?.map(|held| held.state);
    let sender = Sender { kept, ..Sender::default() };
    if sender.is_released() || !is_weighed(routes, &envelope.reverse_path) {
        return Ok(Some(sender));
    }
    let peer: Option<IpAddr> = peer.parse().ok();
    // What programs read differently is nobody's word.
    let is_plain = matches!(authenticity::author(&row.raw), authenticity::Author::One(_));
    if is_plain && peer.is_some_and(|peer| gateway.settings.trusts(peer)) {
        return Ok(Some(Sender { witness: Some(Witness::TrustedPeer), ..sender }));
    }
    // Mail that names nobody who may write is kept aside whatever DNS would say.
    let concerned = match Place::of(routes) {
        Place::Reply(_) => relay::expected(&mut session, gateway, (message, routes)).await?,
        Place::Capture(owner) => {
            author_of(&mut session, message).await?.map(|author| owner.unwrap_or(author))
        }
    };
    let stored = session.sender_check(row.id).await?;
    drop(session);
    let (asked, is_sent) = stored.as_ref().map_or((0, false), |stored| (stored.asked, stored.is_sent));
    let sender = Sender { asked, is_sent, ..sender };
    let answer = matches!(Place::of(routes), Place::Reply(_)).then(|| naming(row, message));
    if let Some(witness) = stored.map(|stored| stored.witness).filter(|found| found.is_complete(answer)) {
        return Ok(Some(Sender { witness: Some(witness), ..sender }));
    }
    let (Some(concerned), Some(peer)) = (concerned, peer) else {
        return Ok(Some(Sender { witness: Some(Witness::Unasked), ..sender }));
    };
    let Some(_turn) = gateway.senders.turn(peer) else {
        put_off(gateway, job, now() + BUSY).await?;
        return Ok(None);
    };
    let smtp = SmtpSession {
        peer,
        hello,
        reverse_path: &envelope.reverse_path,
        our_hostname: &gateway.settings.hostname,
    };
    // As of its arrival: what was good then is, however late DNS answers.
    let facts = gateway.senders.check(&row.raw, &smtp, row.received_at).await;
    let sender =
        Sender { witness: Some(Witness::Checked(Box::new(facts))), asked: asked.saturating_add(1), ..sender };
    if sender.must_wait(row, answer) {
        wait(gateway, job, (row, message), (&sender, concerned)).await?;
        return Ok(None);
    }
    Ok(Some(sender))
}

impl Sender {
    /// Whether DNS keeps back what could prove the author, and may answer yet.
    fn must_wait(&self, row: &InboundRow, answer: Option<Naming>) -> bool {
        let is_open = self.witness.as_ref().is_some_and(|witness| !witness.is_complete(answer));
        is_open && !self.is_sent && !has_waited(row)
    }
}

fn has_waited(row: &InboundRow) -> bool {
    now().duration_since(row.received_at) >= evidence::DNS_PATIENCE
}

/// Whether somebody has to speak for it. From the null path no user sends copies.
fn is_weighed(routes: &[Route], reverse_path: &ReversePath) -> bool {
    *reverse_path != ReversePath::Null || matches!(Place::of(routes), Place::Reply(_))
}

/// Where a sender has to be believed, and the user whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Capture(Option<UserId>),
    Reply(Option<UserId>),
}

impl Place {
    /// What came to a reply address among others is an answer. Of several users the first.
    fn of(routes: &[Route]) -> Self {
        let answered = routes.iter().find_map(|route| match route.target {
            RouteTarget::Reply { user, .. } => Some(user),
            _ => None,
        });
        let captured = || {
            routes.iter().find_map(|route| match route.target {
                RouteTarget::Capture { user } | RouteTarget::Why { user } => Some(user),
                RouteTarget::Reply { .. } => None,
            })
        };
        answered.map_or_else(|| Self::Capture(captured()), |user| Self::Reply(Some(user)))
    }
}

/// The user whom a message names as its author.
async fn author_of(session: &mut Session, message: &Message) -> Result<Option<UserId>, Error> {
    match message.summary.author() {
        Some(author) => Ok(session.user_by_address(&author.address).await?.map(|user| user.id)),
        None => Ok(None),
    }
}

async fn put_off(gateway: &Gateway, job: &Leased, until: Timestamp) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    tx.commit().await?;
    Ok(())
}

/// Keeps a message aside until DNS is asked again.
async fn wait(
    gateway: &Gateway,
    job: &Leased,
    (row, message): (&InboundRow, &Message),
    (sender, user): (&Sender, UserId),
) -> Result<(), FlowError> {
    let Some(witness) = &sender.witness else { return Ok(()) };
    let mut tx = gateway.store.begin(job.workspace).await?;
    // Making room for it may delete what is being filed.
    tx.lock_filing().await?;
    sender.hold_still(&mut tx, row.id).await?;
    let found = NewSenderCheck {
        inbound: row.id,
        identity: ingest::identity(message),
        wording: ingest::wording(message),
        witness,
        weighed: None,
        mark: None,
        route: None,
        asked: sender.asked,
        at: now(),
    };
    tx.put_sender_check(&found).await?;
    hold::keep_while_checking(&mut tx, (row, message), user).await?;
    tx.settle(job, Settlement::RetryAt(now() + evidence::ask_again(sender.asked))).await?;
    tx.commit().await?;
    Ok(())
}

/// A message whose sender is weighed, and for whose address.
#[derive(Clone, Copy)]
pub(super) struct Copied<'a> {
    pub row: &'a InboundRow,
    pub message: &'a Message,
    pub sender: &'a Sender,
    pub place: Place,
    /// Whose seals count.
    pub trusted_sealers: &'a [String],
    /// The message that it is a copy of, if that is here.
    pub original: Option<MessageKey>,
}

/// A sender weighed.
pub(super) struct Weighed {
    pub evidence: Evidence,
    /// The user whom From names.
    pub author: Option<UserId>,
    context: Context,
    route: Option<SendingRoute>,
}

/// Weighs who sent a message, by what is known at this moment. `None` of mail that nobody has to speak for.
///
/// # Errors
/// Those of the store.
pub(super) async fn weigh(session: &mut Session, copied: Copied<'_>) -> Result<Option<Weighed>, FlowError> {
    let Copied { row, message, sender, place, trusted_sealers, original } = copied;
    let Some(witness) = &sender.witness else { return Ok(None) };
    let author = author_of(session, message).await?;
    let route = match witness {
        Witness::Checked(facts) => evidence::route_of(facts),
        Witness::TrustedPeer | Witness::Unasked => None,
    };
    let is_answer = matches!(place, Place::Reply(_));
    let known = match (message.summary.author(), &route) {
        (Some(party), Some(_)) if is_answer || author.is_some() => {
            session.known_routes(&party.address).await?
        }
        _ => Vec::new(),
    };
    let is_sent = match (original, author) {
        (_, Some(_)) if sender.is_sent => true,
        (Some(original), Some(author)) => is_sent_by(session, (original, message), author).await?,
        _ => false,
    };
    let name = route.as_ref().map(|route| route.name.as_str());
    let identity = ingest::identity(message);
    let context = Context {
        received_at: row.received_at,
        author: standing(place, author),
        route: evidence::standing(&known, route.as_ref(), row.received_at),
        is_sent,
        is_replayed: name.is_some() && session.is_captured_otherwise(&identity, (row.id, name)).await?,
        naming: naming(row, message),
        is_sealed: matches!(witness, Witness::Checked(facts) if facts.arc.is_believed(trusted_sealers)),
        has_waited: has_waited(row),
    };
    // What DNS kept back has been waited for: what is pending still is a doubt.
    let weighed = evidence::weigh(witness, &context)
        .or_else(|_| evidence::weigh(witness, &Context { has_waited: true, ..context }));
    let Ok(evidence) = weighed else { return Ok(None) };
    Ok(Some(Weighed { evidence, author, context, route }))
}

/// Where the header names the reply addresses that it came to; of a copy there is none to be named.
fn naming(row: &InboundRow, message: &Message) -> Naming {
    let Door::Mx { routes, .. } = &row.door else { return Naming::Missing };
    let stands_in = |field: &[Party], route: &Route| field.iter().any(|party| party.address == route.address);
    let (mut to, mut cc) = (false, false);
    for route in routes.iter().filter(|route| matches!(route.target, RouteTarget::Reply { .. })) {
        match () {
            () if stands_in(&message.summary.to, route) => to = true,
            () if stands_in(&message.summary.cc, route) => cc = true,
            () => return Naming::Missing,
        }
    }
    Naming::In { to, cc }
}

fn standing(place: Place, author: Option<UserId>) -> Standing {
    match (place, author) {
        (Place::Reply(_), _) => Standing::Participant,
        (_, None) => Standing::Stranger,
        (Place::Capture(owner), Some(author)) if owner.is_none_or(|owner| owner == author) => Standing::Owner,
        (Place::Capture(_), Some(_)) => Standing::Colleague,
    }
}

/// Whether a user's own mailbox, or this gateway, sent what a copy says: the message that it bears the id of, and nothing else.
async fn is_sent_by(
    session: &mut Session,
    (original, copy): (MessageKey, &Message),
    author: UserId,
) -> Result<bool, Error> {
    use crate::core::message::Author;
    let Some(stored) = session.message(original).await? else { return Ok(false) };
    let passed_on = stored.forwarded.as_ref().is_some_and(|forwarded| forwarded.user == author);
    if stored.author != Author::User(author) && !passed_on {
        return Ok(false);
    }
    Ok(session.sent_wording(original).await? == Some(ingest::wording(copy)))
}

/// What becomes of a copy by who sent it.
pub(super) enum Passage {
    /// It may be filed; how strong what speaks for its sender is, where somebody has to.
    Open(Option<Level>),
    Closed(Closed),
}

/// Why a copy is kept aside, and for whom.
pub(super) struct Closed {
    pub ruling: Ruling,
    pub level: Level,
    /// Whom it concerns; `None`: the admins.
    pub user: Option<UserId>,
}

/// Writes down what was found of a copy's sender, and says whether it is filed.
///
/// # Errors
/// Those of the store.
pub(super) async fn pass(tx: &mut Tx, copied: Copied<'_>, settings: &Settings) -> Result<Passage, FlowError> {
    let Some(weighed) = weigh(tx, copied).await? else { return Ok(Passage::Open(None)) };
    let Weighed { evidence, author, context, route } = &weighed;
    let disposal = match copied.place {
        Place::Capture(_) => evidence::disposal(evidence, settings.trust),
        Place::Reply(_) => evidence::disposal_of_answer(evidence),
    };
    let mark = match disposal {
        Disposal::File { mark } => mark,
        Disposal::HoldForUser | Disposal::HoldForAdmins => None,
    };
    write_down(tx, copied, (context, evidence), (mark, route.as_ref())).await?;
    let user = match disposal {
        Disposal::File { .. } => {
            learn_route(tx, copied, &weighed).await?;
            return Ok(Passage::Open(Some(evidence.level)));
        }
        Disposal::HoldForUser => match copied.place {
            Place::Reply(user) => user,
            Place::Capture(_) => *author,
        },
        Disposal::HoldForAdmins => None,
    };
    let ruling = policy::unbelieved(evidence.rule, evidence.reason);
    Ok(Passage::Closed(Closed { ruling, level: evidence.level, user }))
}

/// Learns by which way a user's mail comes, from copies that are proven and came directly: of mail that others passed on their
/// ways would be learnt.
async fn learn_route(tx: &mut Tx, copied: Copied<'_>, weighed: &Weighed) -> Result<(), Error> {
    let is_learnt = matches!(copied.place, Place::Capture(_)) && weighed.evidence.level >= Level::E2;
    let own = weighed.route.as_ref().filter(|route| is_learnt && route.is_own);
    match (own, copied.message.summary.author()) {
        (Some(route), Some(party)) => tx.see_route(&party.address, route, now()).await,
        _ => Ok(()),
    }
}

async fn write_down(
    tx: &mut Tx,
    copied: Copied<'_>,
    weighed: (&Context, &Evidence),
    (mark, route): (Option<Mark>, Option<&SendingRoute>),
) -> Result<(), Error> {
    let Some(witness) = &copied.sender.witness else { return Ok(()) };
    let found = NewSenderCheck {
        inbound: copied.row.id,
        identity: ingest::identity(copied.message),
        wording: ingest::wording(copied.message),
        witness,
        weighed: Some(weighed),
        mark,
        route: route.map(|route| route.name.as_str()),
        asked: copied.sender.asked,
        at: now(),
    };
    tx.put_sender_check(&found).await
}

/// Ends what was kept of a copy that is filed now.
///
/// # Errors
/// Those of the store.
pub(super) async fn note_filed(
    tx: &mut Tx,
    sender: &Sender,
    inbound: MessageKey,
    (message, rule): (MessageKey, &str),
) -> Result<(), Error> {
    if sender.kept.is_some() {
        let by = format!("rule:{rule}");
        tx.settle_held(inbound, (QuarantineState::Released, &by), false, now()).await?;
    }
    if sender.is_released()
        && let Some(held) = tx.held(inbound).await?
    {
        let known = match held.rule.as_str() {
            hold::CHECKING => RELEASED_UNCHECKED,
            rule => (held.level.unwrap_or(Level::E0), rule, held.reason.as_str()),
        };
        tx.note_released(inbound, known, now()).await?;
    }
    tx.link_sender_check(inbound, message).await
}

/// Whether mail with this Message-ID waits for a proof that its author sent it.
///
/// # Errors
/// Those of the store.
pub(super) async fn awaits_proof(
    session: &mut Session,
    id: Option<&crate::mail::MessageId>,
) -> Result<bool, Error> {
    let Some(id) = id else { return Ok(false) };
    let hash = session.hash_of(id.as_str()).await?;
    session.is_held_by_id(&hash).await
}

/// A message lies in its user's own Sent mailbox: copies that say all of what it says, and nothing else, are looked at again where
/// they were kept aside.
///
/// # Errors
/// Those of the store.
pub(super) async fn corroborate(tx: &mut Tx, wording: &[u8; 32]) -> Result<(), Error> {
    let kept = tx.held_with_wording(wording).await?;
    if kept.is_empty() {
        return Ok(());
    }
    tx.note_sent_copies(wording, now()).await?;
    for Held { id, .. } in kept {
        look_again(tx, id).await?;
    }
    Ok(())
}

/// Has mail that is kept aside processed again.
///
/// # Errors
/// Those of the store.
pub(super) async fn look_again(tx: &mut Tx, inbound: MessageKey) -> Result<(), Error> {
    let job = Job::Process { inbound };
    if tx.reopen_inbound(inbound).await? {
        tx.enqueue_job(&job, now()).await
    } else {
        // Its job waits for DNS.
        tx.hasten_job(&job, now()).await
    }
}
