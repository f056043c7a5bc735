//! Contacts that a captured message makes, and what the CRM is told of them.
//!
//! Not here: who may become one (`core::attribution`).

use jiff::Timestamp;

use super::Arrival;
use crate::{
    core::{
        attribution::{self, Known, KnownContact, OurDomains},
        event::{ContactEvent, Event},
        ids::{ContactId, MessageKey},
        people::{Contact, CreatedBy},
    },
    mail::{Address, Party},
    store::{Error, Tx, mint},
};

pub(super) async fn create_contacts(
    tx: &mut Tx,
    ours: &OurDomains,
    known: &mut Known,
    arrival: &Arrival<'_>,
) -> Result<Vec<(ContactId, Address)>, Error> {
    let new: Vec<Party> =
        attribution::new_contacts(&arrival.parties, known, ours, arrival.message.summary.automatic)
            .into_iter()
            .cloned()
            .collect();
    let mut created = Vec::with_capacity(new.len());
    for party in new {
        let contact = new_contact(&party, arrival.received_at);
        tx.insert_contact(&contact).await?;
        let entry = KnownContact { id: contact.id, assigned_user: None };
        known.contacts.insert(party.address.clone(), entry);
        created.push((contact.id, party.address));
    }
    Ok(created)
}

fn new_contact(party: &Party, now: Timestamp) -> Contact {
    Contact {
        id: mint(),
        email: party.address.clone(),
        name: party.name.clone(),
        other_emails: Vec::new(),
        assigned_user_id: None,
        external_id: None,
        related_contact_ids: Vec::new(),
        metadata: serde_json::Value::Object(serde_json::Map::new()),
        created_by: CreatedBy::Capture,
        created_at: now,
    }
}

pub(super) fn contact_events(
    created: &[(ContactId, Address)],
    known: &Known,
    arrival: &Arrival<'_>,
    message: MessageKey,
) -> Vec<Event> {
    if !arrival.create_contacts {
        return Vec::new();
    }
    let event = |what, contact, email: &Address| Event::Contact {
        what,
        contact,
        email: email.clone(),
        message: Some(message),
    };
    let new = created.iter().map(|(id, email)| event(ContactEvent::Created, *id, email));
    let is_new = |id: ContactId| created.iter().any(|(new, _)| *new == id);
    let to = arrival.parties.to.iter().map(|party| &party.address);
    let old =
        to.filter(|a| !known.users.contains_key(a)).filter_map(|a| Some((known.contacts.get(a)?.id, a)));
    new.chain(old.filter(|(id, _)| !is_new(*id)).map(|(id, email)| event(ContactEvent::Matched, id, email)))
        .collect()
}
