//! A message as each of its readers is to see it when a user takes part without an account: from a reply address that takes
//! that reader's answers, in a transaction of its own.
//!
//! Not here: how the header is rewritten (`core::relay`), and what comes to reply addresses (`flow::relay`).

use bytes::Bytes;

use super::{
    copies,
    perform::{Part, Unsendable},
};
use crate::{
    core::{
        ids::{UserId, WorkspaceId},
        inbound::Principal,
        message::{Author, StoredMessage},
        people::User,
        relay::{Relayed, masked, rewrite},
        submission::{Hold, RecipientRole, RecipientState, Submission},
    },
    flow::{FlowError, Gateway, policy_of, reply_address::reply_address},
    mail::{Address, Envelope, Party, Recipient, ReversePath},
    store::Tx,
};

/// People besides the author whom a user is shown in a message passed on to him. Each costs him an address to answer at.
const COPIED_MAX: usize = 20;

/// How one recipient is to see a message.
pub(super) struct View {
    /// Where he answers.
    reply: Address,
    /// Whom it names in To and Cc; `None` leaves both as the CRM wrote them.
    named: Option<(Party, Vec<Party>)>,
    /// Where his answer goes instead.
    reply_to: Vec<Party>,
}

/// What a message leaves by, and as what.
type Leaving<'a> = (&'a StoredMessage, &'a Submission, Option<&'a Address>);

/// Why a message cannot be written for a recipient; shown to the CRM.
const NO_REPLY_DOMAIN: &str =
    "The user has no account, and without a domain for reply addresses nobody could answer him.";
const NO_USER: &str = "The user it was passed on for is no longer a user of this workspace.";

/// The transactions that bring a message to these recipients: one each, from the reply address that takes that recipient's
/// answers; copies that leave by an account, from that one. The inner error says for whom there is no such address, and why.
///
/// # Errors
/// Those of the store.
pub(super) async fn parts(
    gateway: &Gateway,
    workspace: WorkspaceId,
    (stored, submission, account): Leaving<'_>,
    recipients: &[&RecipientState],
) -> Result<Result<Vec<Part>, Unsendable>, FlowError> {
    let is_answer = matches!(submission.principal, Principal::Participant(_));
    let mut tx = gateway.store.begin(workspace).await?;
    let mut parts = Vec::with_capacity(recipients.len());
    let diverted = diverted(&mut tx, gateway, (stored, is_answer)).await?;
    for RecipientState { recipient: Recipient { address, .. }, role, .. } in recipients {
        if *role == RecipientRole::Copy {
            match copy(&mut tx, gateway, (stored, submission, account), address).await? {
                Ok(view) => parts.push(part(address.clone(), view)),
                Err(reason) => {
                    let (whom, what_for) = (Some(address.clone()), Hold::WayOut);
                    return Ok(Err(Unsendable { whom, what_for, reason }));
                }
            }
            continue;
        }
        let reader = reader(&mut tx, (stored, submission), address).await?;
        let to = match &reader {
            Some(reader) if !is_his(reader, address) => {
                tx.readdress_recipient(submission.message, (address, &reader.email)).await?;
                reader.email.clone()
            }
            _ => address.clone(),
        };
        match view(&mut tx, gateway, (stored, reader), (&to, is_answer)).await? {
            Ok(view) => parts.push(part(to, View { reply_to: diverted.clone(), ..view })),
            Err(NO_USER) => {
                let (what_for, reason) = (Hold::Reader, NO_USER);
                return Ok(Err(Unsendable { whom: Some(to), what_for, reason }));
            }
            Err(reason) => return Ok(Err(Unsendable { whom: None, what_for: Hold::WayOut, reason })),
        }
    }
    tx.commit().await?;
    Ok(Ok(parts))
}

fn part(to: Address, view: View) -> Part {
    let reverse_path = ReversePath::Address(view.reply.clone());
    let envelope = Envelope { recipients: vec![Recipient::new(to)], ..Envelope::new(reverse_path) };
    Part { envelope, view: Some(view) }
}

impl View {
    /// The bytes that he gets.
    pub(super) fn written(self, gateway: &Gateway, stored: &StoredMessage, raw: &Bytes) -> Bytes {
        let Self { reply, named, reply_to } = self;
        let relayed = Relayed {
            from: masked(stored.author_party.as_ref(), reply),
            to: named.as_ref().map(|(to, _)| to),
            cc: named.as_ref().map_or(&[], |(_, cc)| cc),
            reply_to: &reply_to,
            mark: (&gateway.settings.loop_key, stored.id.to_string()),
        };
        let author = stored.author_party.as_ref().map(|author| &author.address);
        // He may have written to himself as well.
        let hidden = |address: &Address| gateway.settings.ours.holds(address) || author == Some(address);
        rewrite(raw, &relayed, hidden)
    }
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
    Ok(reply.map(|reply| View { reply, named, reply_to: Vec::new() }).ok_or(NO_REPLY_DOMAIN))
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
    Ok(Ok(View { reply, named: Some((to, copied)), reply_to: Vec::new() }))
}

/// Where policy has the answers to the CRM's mail go. What participants write to each other is none of it.
async fn diverted(
    tx: &mut Tx,
    gateway: &Gateway,
    (stored, is_answer): (&StoredMessage, bool),
) -> Result<Vec<Party>, FlowError> {
    let Author::User(user) = stored.author else { return Ok(Vec::new()) };
    if is_answer {
        return Ok(Vec::new());
    }
    let settings = policy_of(tx, Some(user)).await?.settings;
    Ok(copies::parties(&copies::reply_to(&settings, &gateway.settings.ours)))
}

/// A copy of what a contact answered. A user answers it as if it had come to him, so that his answer comes back; anybody else
/// answers the contact. An account may send from no address but its own, and from there the contact is answered as well.
async fn copy(
    tx: &mut Tx,
    gateway: &Gateway,
    (stored, submission, account): Leaving<'_>,
    to: &Address,
) -> Result<Result<View, &'static str>, FlowError> {
    let (Some(author), Principal::Participant(user)) = (&stored.author_party, submission.principal) else {
        return Ok(Err(NO_USER));
    };
    let reader = tx.user_by_address(to).await?;
    let named = Party::new(to.clone(), reader.as_ref().and_then(|reader| reader.name.as_deref()));
    let reply = match (account, reader) {
        (Some(account), _) => Some(account.clone()),
        (None, Some(reader)) => {
            return inward_view(tx, gateway, (stored, reader.id), (named, &author.address)).await;
        }
        (None, None) => reply_address(tx, gateway, (stored.conversation, user), (to, None)).await?,
    };
    let Some(reply) = reply else { return Ok(Err(NO_REPLY_DOMAIN)) };
    let reply_to = match stored.parties.reply_to.as_slice() {
        [] => vec![author.clone()],
        own => own.to_vec(),
    };
    Ok(Ok(View { reply, named: Some((named, Vec::new())), reply_to }))
}
