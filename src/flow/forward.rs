//! Files mail that a user forwarded to his capture address as its original author's (docs/flows.md, "Forwarded mail").
//!
//! Not here: finding the author (`mail::forward`), and whether the user's word is good for it (`core::forwarding`).

use super::{
    FlowError, Gateway,
    ingest::{self, Arrival, Forwarding},
};
use crate::{
    core::{
        attribution::Attribution,
        evidence::Level,
        forwarding::{self, Scene},
        message::{Author, ForwardedBy},
        policy::{self, Policy, settings::Visibility},
    },
    mail::{Address, MessageId, forward::Forwarded},
    store::Tx,
};

/// Makes an arrival its original author's, where its sender is proven and may name the author. Otherwise it stays the user's
/// own, as every other copy.
///
/// # Errors
/// Those of the store.
pub(super) async fn refile(
    tx: &mut Tx,
    gateway: &Gateway,
    (found, level): (&Forwarded, Option<Level>),
    (policy, sender): (&Policy, &Attribution),
    arrival: &mut Arrival<'_>,
) -> Result<(), FlowError> {
    let (Author::User(user), Some(party), Some(level)) = (&sender.author, &sender.author_party, level) else {
        return Ok(());
    };
    let is_mail = !arrival.message.kind.is_machines();
    let named = found.from.as_ref().and_then(|from| from.address.clone());
    let (true, Some(named)) = (is_mail, named) else { return Ok(()) };
    let people: Vec<Address> = arrival.parties.addresses().cloned().chain([named]).collect();
    let known = ingest::known_among(tx, &people, &policy.settings).await?;
    let scene = Scene {
        user: *user,
        level,
        parties: &arrival.parties,
        known: &known,
        ours: &gateway.settings.ours,
        shares: policy.settings.visibility == Visibility::Everyone,
    };
    let Some(author) = forwarding::author_of(found, &scene) else { return Ok(()) };
    // What is here already, as the user's own mail, stays what it is.
    if let Some(original) = ingest::original_of(tx, arrival).await?
        && tx.message(original).await?.is_none_or(|stored| stored.forwarded.is_none())
    {
        return Ok(());
    }
    let by = ForwardedBy {
        user: *user,
        party: party.clone(),
        certainty: found.certainty,
        attached: found.attached,
    };
    arrival.ruling = policy::forwarded(found.certainty);
    let (makes_contact, original) = (forwarding::makes_contact(level), original_id(found, arrival));
    arrival.forwarded = Some(Forwarding { by, makes_contact, original });
    arrival.parties.from = vec![author];
    arrival.known = Some(known);
    Ok(())
}

/// The id of the mail that was passed on: its own, or what clients name when they put its text into the forward.
fn original_id(found: &Forwarded, arrival: &Arrival<'_>) -> Option<MessageId> {
    let summary = &arrival.message.summary;
    let named = || summary.in_reply_to.first().or(summary.references.last());
    let own = if found.attached { found.own_id.as_ref() } else { named() };
    own.cloned()
}
