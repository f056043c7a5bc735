//! Contacts that a message makes, and what the CRM is told of them.
//!
//! Not here: who may become one (`core::attribution`).

use jiff::Timestamp;

use super::Arrival;
use crate::{
    core::{
        attribution::{self, Known, KnownContact, OurDomains, Whom},
        event::{ContactEvent, Event},
        ids::{ContactId, MessageKey, UserId},
        message::Author,
        people::{Contact, CreatedBy},
        policy::{EXCHANGE, Policy, Settings, whom},
    },
    mail::{Address, MessageId, Party},
    store::{Error, Tx, mint},
};

/// Makes contacts of people whom nobody knew, where policy makes some of mail like this.
pub(super) async fn create_contacts(
    tx: &mut Tx,
    (ours, policy): (&OurDomains, &Policy),
    known: &mut Known,
    arrival: &Arrival<'_>,
) -> Result<Vec<(ContactId, Address)>, Error> {
    let settings = &policy.settings;
    let Some(by) = made_by(tx, settings, known, arrival).await? else { return Ok(Vec::new()) };
    if !settings.create_on.allows(by) {
        return Ok(Vec::new());
    }
    let (parties, automatic) = (&arrival.parties, arrival.message.summary.automatic);
    // A calendar's mail has no mark of a machine: its parts alone tell.
    if arrival.message.kind.is_machines() {
        return Ok(Vec::new());
    }
    if arrival.forwarded.as_ref().is_some_and(|forwarding| !forwarding.makes_contact) {
        return Ok(Vec::new());
    }
    let whom = whom_of(arrival, settings, by);
    let new = attribution::new_contacts(parties, known, ours, automatic, whom);
    let new: Vec<Party> = new.into_iter().cloned().collect();
    let owner = owner(tx, known, arrival).await?;
    let mut created = Vec::with_capacity(new.len());
    for party in new {
        let contact = Contact { assigned_user_id: owner, ..new_contact(&party, by, arrival.received_at) };
        tx.insert_contact(&contact).await?;
        let entry = KnownContact { id: contact.id, assigned_user: owner, since: None };
        known.contacts.insert(party.address.clone(), entry);
        known.listed.insert(party.address.clone());
        created.push((contact.id, party.address));
    }
    Ok(created)
}

/// Of mail that a user passed on its author, who is whom it is about.
fn whom_of(arrival: &Arrival<'_>, settings: &Settings, by: CreatedBy) -> Whom {
    if arrival.forwarded.is_some() { Whom::Author } else { whom(settings, by) }
}

/// By what a message makes contacts, if it does.
async fn made_by(
    tx: &mut Tx,
    settings: &Settings,
    known: &Known,
    arrival: &Arrival<'_>,
) -> Result<Option<CreatedBy>, Error> {
    if arrival.captured && settings.capture_enabled {
        return Ok(Some(CreatedBy::Capture));
    }
    let author = arrival.parties.from.first().map(|party| &party.address);
    if arrival.is_sent && author.is_some_and(|author| known.users.contains_key(author)) {
        return Ok(Some(CreatedBy::Sent));
    }
    // Only then is it worth a question.
    let asks = settings.create_on.allows(CreatedBy::Exchange);
    Ok((asks && answers_user(tx, arrival).await?).then_some(CreatedBy::Exchange))
}

/// Whether it answers what a user wrote.
async fn answers_user(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<bool, Error> {
    if arrival.ruling.rule == EXCHANGE {
        return Ok(true);
    }
    let summary = &arrival.message.summary;
    let named: Vec<MessageId> = summary.in_reply_to.iter().chain(&summary.references).cloned().collect();
    for found in tx.messages_by_rfc822_id(&named).await? {
        let answered = tx.message(found.message).await?;
        if answered.is_some_and(|answered| matches!(answered.author, Author::User(_))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whose contacts a message makes: those of the user who wrote it, who passed it on, or whom it answers. Where only mail of assigned contacts
/// comes in, what is written to him next would be left out otherwise.
async fn owner(tx: &mut Tx, known: &Known, arrival: &Arrival<'_>) -> Result<Option<UserId>, Error> {
    let author = arrival.parties.from.first().and_then(|party| known.users.get(&party.address));
    let author = author.or(arrival.forwarded.as_ref().map(|forwarding| &forwarding.by.user));
    if let Some(author) = author {
        return Ok(Some(*author));
    }
    match arrival.account {
        Some(account) => Ok(tx.account(account).await?.map(|account| account.user_id)),
        None => Ok(None),
    }
}

fn new_contact(party: &Party, created_by: CreatedBy, now: Timestamp) -> Contact {
    Contact {
        id: mint(),
        email: party.address.clone(),
        name: party.name.clone(),
        other_emails: Vec::new(),
        assigned_user_id: None,
        external_id: None,
        related_contact_ids: Vec::new(),
        metadata: serde_json::Value::Object(serde_json::Map::new()),
        created_by,
        created_at: now,
    }
}

pub(super) fn contact_events(
    created: &[(ContactId, Address)],
    (known, policy): (&Known, &Policy),
    arrival: &Arrival<'_>,
    message: MessageKey,
) -> Vec<Event> {
    let event = |what, contact, email: &Address| Event::Contact {
        what,
        contact,
        email: email.clone(),
        message: Some(message),
    };
    let new = created.iter().map(|(id, email)| event(ContactEvent::Created, *id, email));
    let is_new = |id: ContactId| created.iter().any(|(new, _)| *new == id);
    // Who sends a copy to a capture address is told whom it was filed under.
    let whom = whom_of(arrival, &policy.settings, CreatedBy::Capture);
    let named = attribution::people(&arrival.parties, whom);
    let named = named.filter(|_| arrival.captured).map(|party| &party.address);
    let old = named.filter_map(|address| Some((known.contacts.get(address)?.id, address)));
    new.chain(old.filter(|(id, _)| !is_new(*id)).map(|(id, email)| event(ContactEvent::Matched, id, email)))
        .collect()
}
