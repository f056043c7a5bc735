//! Mail for a user who takes part without an account, passed on in both directions (docs/flows.md, "Relay").
//!
//! A reply address is bound to (conversation, participant, user), and one that takes the user's own answers to one
//! counterpart as well: whoever answers reaches those he was shown and nobody else. What is passed on is a submission like
//! any other, with a state for each recipient. Not here: rewriting headers (`core::relay`) and sending (`flow::submit`).

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    FlowError, Gateway,
    submit::{self, Part, Unsendable},
};
use crate::{
    core::{
        attribution::{Attribution, Known},
        ids::{ConversationId, MessageKey, UserId, WorkspaceId},
        inbound::{Exit, Principal, SendClass},
        job::{Job, JobExit},
        message::{Author, Parties, StoredMessage},
        people::User,
        relay::{Relayed, masked, rewrite},
        route::{Route, RouteTarget, reply_local_part},
        submission::{DsnOrder, Hold, RecipientState, SentCopy, Submission, SubmissionState},
    },
    mail::{Address, Envelope, Kind, Notify, Party, Recipient, ReversePath},
    store::{Session, Tx, mint},
};

/// People besides the author whom a user is shown in a message passed on to him. Each costs him an address to answer at.
const COPIED_MAX: usize = 20;

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

/// Whether a message that came to a reply address is passed on. Automatic mail and null reverse-paths go no further.
pub(super) fn goes_on(kind: Kind, reverse_path: &ReversePath) -> bool {
    kind == Kind::Mail && *reverse_path != ReversePath::Null
}

/// Queues the message for those whom these reply addresses stand for and who do not have it yet: another copy of it may have
/// been filed before, or have come to another reply address. False when the CRM itself sent the message: that leaves by its
/// own way, and a copy of it that turned up here is for a person to judge.
pub(super) async fn enqueue(
    tx: &mut Tx,
    message: MessageKey,
    bound: &[Bound],
    now: Timestamp,
) -> Result<bool, FlowError> {
    let Some(present) = tx.submission(message).await? else {
        let recipients = recipients(bound, &[]);
        if let (Some(first), false) = (bound.first(), recipients.is_empty()) {
            tx.insert_submission(&submission(message, first.user, recipients, now)).await?;
            tx.enqueue_job(&Job::Submit { message, exit: JobExit::Smarthost }, now).await?;
        }
        return Ok(true);
    };
    if !matches!(present.principal, Principal::Participant(_)) {
        return Ok(false);
    }
    let more = recipients(bound, &present.recipients);
    if !more.is_empty() {
        submit::add_recipients(tx, (present, more), Ok(Exit::Smarthost), now).await?;
    }
    Ok(true)
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

/// What is passed on, as a submission: nobody asked to be told of its fate by mail, so events alone tell.
fn submission(
    message: MessageKey,
    user: UserId,
    recipients: Vec<RecipientState>,
    now: Timestamp,
) -> Submission {
    Submission {
        message,
        account: None,
        class: SendClass::Individual,
        reverse_path: ReversePath::Null,
        dsn: DsnOrder::default(),
        principal: Principal::Participant(user),
        blob: None,
        state: SubmissionState::Queued,
        attempt: 0,
        accepted_at: now,
        next_attempt_at: Some(now),
        dot_intent_at: None,
        detail: None,
        sent_copy: SentCopy::None,
        recipients,
    }
}

/// How one recipient is to see a message.
struct View {
    /// Where he answers.
    reply: Address,
    /// Whom it names in To and Cc; `None` leaves both as the CRM wrote them.
    named: Option<(Party, Vec<Party>)>,
}

/// Why a message cannot be written for a recipient; shown to the CRM.
const NO_REPLY_DOMAIN: &str =
    "The user has no account, and without a domain for reply addresses nobody could answer him.";
const NO_USER: &str = "The user it was passed on for is no longer a user of this workspace.";

/// The transactions that bring a message to these recipients: one each, from the reply address that takes that recipient's
/// answers. The inner error says for whom there is no such address, and why.
///
/// # Errors
/// Those of the store.
pub(super) async fn parts(
    gateway: &Gateway,
    workspace: WorkspaceId,
    (stored, submission): (&StoredMessage, &Submission),
    (raw, recipients): (Bytes, Vec<Recipient>),
) -> Result<Result<Vec<Part>, Unsendable>, FlowError> {
    let is_answer = matches!(submission.principal, Principal::Participant(_));
    let mut tx = gateway.store.begin(workspace).await?;
    let mut views = Vec::with_capacity(recipients.len());
    for Recipient { address, .. } in recipients {
        let reader = reader(&mut tx, (stored, submission), &address).await?;
        let to = match &reader {
            Some(reader) if !is_his(reader, &address) => {
                tx.readdress_recipient(submission.message, (&address, &reader.email)).await?;
                reader.email.clone()
            }
            _ => address,
        };
        match view(&mut tx, gateway, (stored, reader), (&to, is_answer)).await? {
            Ok(view) => views.push((to, view)),
            Err(NO_USER) => {
                let (what_for, reason) = (Hold::Reader, NO_USER);
                return Ok(Err(Unsendable { whom: Some(to), what_for, reason }));
            }
            Err(reason) => return Ok(Err(Unsendable { whom: None, what_for: Hold::WayOut, reason })),
        }
    }
    tx.commit().await?;
    Ok(Ok(views
        .into_iter()
        .map(|(recipient, view)| part(gateway, stored, &raw, (recipient, view)))
        .collect()))
}

fn part(gateway: &Gateway, stored: &StoredMessage, raw: &Bytes, (to, view): (Address, View)) -> Part {
    let View { reply, named } = view;
    let relayed = Relayed {
        from: masked(stored.author_party.as_ref(), reply.clone()),
        to: named.as_ref().map(|(to, _)| to),
        cc: named.as_ref().map_or(&[], |(_, cc)| cc),
        mark: (&gateway.settings.loop_key, stored.id.to_string()),
    };
    let author = stored.author_party.as_ref().map(|author| &author.address);
    // He may have written to himself as well.
    let hidden = |address: &Address| gateway.settings.ours.holds(address) || author == Some(address);
    let raw = rewrite(raw, &relayed, hidden);
    let envelope =
        Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(ReversePath::Address(reply)) };
    Part { envelope, raw }
}

/// The user for whom it is passed on; `None` for a contact. He may have been given another address since: then he is the
/// one for whom it first was, unless that one is among the recipients by an address of his.
async fn reader(
    tx: &mut Tx,
    (stored, submission): (&StoredMessage, &Submission),
    to: &Address,
) -> Result<Option<User>, FlowError> {
    let Principal::Participant(user) = submission.principal else { return Ok(None) };
    if let Some(reader) = tx.user_by_address(to).await? {
        return Ok(Some(reader));
    }
    if stored.author == Author::User(user) {
        return Ok(None);
    }
    let is_elsewhere =
        |user: &User| submission.recipients.iter().any(|state| is_his(user, &state.recipient.address));
    Ok(tx.user(user).await?.filter(|user| !is_elsewhere(user)))
}

fn is_his(user: &User, address: &Address) -> bool {
    user.email == *address || user.aliases.contains(address)
}

/// To a user what somebody else wrote, to anybody else what a user wrote.
async fn view(
    tx: &mut Tx,
    gateway: &Gateway,
    (stored, reader): (&StoredMessage, Option<User>),
    (to, is_answer): (&Address, bool),
) -> Result<Result<View, &'static str>, FlowError> {
    if let (Some(reader), Some(author)) = (reader, &stored.author_party) {
        let named = Party::new(to.clone(), reader.name.as_deref());
        return inward_view(tx, gateway, (stored, reader.id), (named, &author.address)).await;
    }
    let Author::User(author) = stored.author else { return Ok(Err(NO_USER)) };
    let reply = reply_address(tx, gateway, (stored.conversation, author), (to, None)).await?;
    // A user's answer came addressed to reply addresses: each contact sees his own address, and no other.
    let named = is_answer.then(|| (Party::new(to.clone(), None), Vec::new()));
    Ok(reply.map(|reply| View { reply, named }).ok_or(NO_REPLY_DOMAIN))
}

/// The user sees the author, and in Cc those of the others on it who take part in the conversation: each at an address of
/// its own, so that he answers whom he chooses. Cc makes nobody a participant.
async fn inward_view(
    tx: &mut Tx,
    gateway: &Gateway,
    (stored, reader): (&StoredMessage, UserId),
    (to, author): (Party, &Address),
) -> Result<Result<View, &'static str>, FlowError> {
    let bound = (stored.conversation, reader);
    let Some(reply) = reply_address(tx, gateway, bound, (&to.address, Some(author))).await? else {
        return Ok(Err(NO_REPLY_DOMAIN));
    };
    let mut copied: Vec<Party> = Vec::new();
    let mut seen = vec![author, &to.address];
    for other in stored.parties.to.iter().chain(&stored.parties.cc) {
        if copied.len() == COPIED_MAX || seen.contains(&&other.address) {
            continue;
        }
        seen.push(&other.address);
        if tx.reply_route(stored.conversation, (&other.address, None), reader).await?.is_some() {
            let own = reply_address(tx, gateway, bound, (&to.address, Some(&other.address))).await?;
            copied.extend(own.map(|address| masked(Some(other), address)));
        }
    }
    Ok(Ok(View { reply, named: Some((to, copied)) }))
}

/// The address that takes this participant's answers, made when there is none yet; `None` when there is no domain for it.
async fn reply_address(
    tx: &mut Tx,
    gateway: &Gateway,
    (conversation, user): (ConversationId, UserId),
    (participant, counterpart): (&Address, Option<&Address>),
) -> Result<Option<Address>, FlowError> {
    if let Some(route) = tx.reply_route(conversation, (participant, counterpart), user).await? {
        return Ok(Some(route.address));
    }
    let Some(domain) = gateway.settings.ours.reply.as_deref() else { return Ok(None) };
    let local = reply_local_part(super::random());
    let Ok(address) = Address::from_parts(&local, domain) else { return Ok(None) };
    let target = RouteTarget::Reply {
        conversation,
        participant: participant.clone(),
        user,
        counterpart: counterpart.cloned(),
    };
    let route =
        Route { id: mint(), workspace: tx.workspace(), address: address.clone(), target, expires_at: None };
    tx.insert_route(&route, super::now()).await?;
    Ok(Some(address))
}
