//! A user's capture address: made, given anew, and given anew by itself once strangers know it.
//!
//! Whoever knows the address can fill a quarantine, though he gets nothing filed. Not here: what the address is made of
//! (`core::route`).

use jiff::{SignedDuration, Timestamp};

use super::{FlowError, random};
use crate::{
    core::{
        attribution::OurDomains,
        event::{Event, RotationCause},
        ids::UserId,
        message::CaptureField,
        route::{Route, RouteTarget, capture_local_part},
    },
    mail::{Address, Message},
    store::{Error, Tx, mint},
};

/// How long an address goes on that was given anew because strangers know it: its user has to change what his clients fill in.
const OVERLAP: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Strangers whose mail came to an address within so long: then it is known to more of them.
const STRANGERS_MAX: u64 = 3;
const STRANGERS_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Makes a capture address for a user: 80 random bits, so that nobody finds it by guessing and no two are the same. `None` when
/// the gateway has no capture domain.
///
/// # Errors
/// Those of the store.
pub async fn make(
    tx: &mut Tx,
    ours: &OurDomains,
    (user, label): (UserId, &str),
    now: Timestamp,
) -> Result<Option<Route>, Error> {
    let Some(domain) = ours.capture.as_deref() else { return Ok(None) };
    let address = Address::from_parts(&capture_local_part(label, random()), domain)
        .map_err(|_| Error::Corrupt("the capture domain makes no address".into()))?;
    let target = RouteTarget::Capture { user };
    let route = Route { id: mint(), workspace: tx.workspace(), address, target, expires_at: None };
    tx.insert_route(&route, now).await?;
    Ok(Some(route))
}

/// Gives a user a new capture address; those that he has end after `overlap`. `None` when the gateway has no capture domain.
///
/// # Errors
/// Those of the store; `Missing` when there is no such user.
pub async fn rotate(
    tx: &mut Tx,
    ours: &OurDomains,
    (id, overlap): (UserId, SignedDuration),
    (cause, now): (RotationCause, Timestamp),
) -> Result<Option<(Address, Timestamp)>, FlowError> {
    let user = tx.user_to_change(id).await?.ok_or(Error::Missing)?;
    let Some(route) = make(tx, ours, (id, user.email.local()), now).await? else { return Ok(None) };
    let old_ends_at = now.saturating_add(overlap).unwrap_or(now);
    tx.end_capture_routes(id, route.id, old_ends_at).await?;
    tx.announce(&Event::CaptureAddressRotated { user: id, cause, old_ends_at }, now).await?;
    Ok(Some((route.address, old_ends_at)))
}

/// Gives a user's capture address anew once strangers know it: it stands in what one of them writes to it of his own accord, or
/// several have written to it.
///
/// # Errors
/// Those of the store.
pub(super) async fn note_stranger(
    tx: &mut Tx,
    ours: &OurDomains,
    (routes, message): (&[Route], &Message),
    now: Timestamp,
) -> Result<(), FlowError> {
    for route in routes {
        let RouteTarget::Capture { user } = route.target else { continue };
        // One that ends already was given anew before.
        let is_current = tx.capture_route(user).await?.is_some_and(|current| current.id == route.id);
        if !is_current {
            continue;
        }
        // Whoever answers all finds it where the user himself has put it.
        let is_answer = !message.summary.in_reply_to.is_empty() || !message.summary.references.is_empty();
        let is_named = super::places::capture_field(&route.address, message) != CaptureField::Bcc;
        let since = now.saturating_sub(STRANGERS_WITHIN).unwrap_or(now);
        if (is_named && !is_answer) || tx.strangers_held(user, since).await? >= STRANGERS_MAX {
            rotate(tx, ours, (user, OVERLAP), (RotationCause::SeenInPublic, now)).await?;
        }
    }
    Ok(())
}
