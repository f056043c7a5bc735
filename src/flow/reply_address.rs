//! Making reply addresses, and taking those alone that we made.
//!
//! Not here: what they prove and how (`core::reply_address`), and whose mail they admit (`flow::relay`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::{FlowError, Gateway, random};
use crate::{
    core::{
        ids::{ConversationId, UserId},
        reply_address::{ReplyKeys, Sealed, is_to_be_renewed},
        route::{Route, RouteTarget},
    },
    mail::Address,
    store::{self, Store, Tx, mint},
};

/// The keys of reply addresses as this process knows them; looked at anew by its upkeep.
#[derive(Clone, Default)]
pub struct Keyring(Arc<ArcSwap<ReplyKeys>>);

impl Keyring {
    /// # Errors
    /// When the database is out of reach, or a key does not open.
    pub async fn load(store: &Store) -> Result<Self, store::Error> {
        let ring = Self::default();
        ring.reload(store).await?;
        Ok(ring)
    }

    /// Reads the keys again: another node may have made one.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub async fn reload(&self, store: &Store) -> Result<(), store::Error> {
        self.0.store(Arc::new(store.reply_keys().await?));
        Ok(())
    }
}

impl Gateway {
    /// The live route of an address of ours. A reply address that we did not make is refused without a look into the
    /// database, and one whose row says something else than it was made for with it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn live_route(&self, address: &Address, now: Timestamp) -> Result<Option<Route>, store::Error> {
        let keys = self.reply_keys.0.load_full();
        let is_reply = self.settings.ours.reply.as_deref() == Some(address.domain());
        // A capture address may have the same domain: it does not look like one of these.
        let may_be_ours = is_reply && keys.may_be_ours(address.local(), now);
        if is_reply && !may_be_ours && self.settings.ours.capture != self.settings.ours.reply {
            return Ok(None);
        }
        let found = self.store.live_route(address, now).await?;
        Ok(found.filter(|route| match &route.target {
            RouteTarget::Reply { .. } => may_be_ours && is_proven(&keys, route),
            RouteTarget::Capture { .. } | RouteTarget::Why { .. } => true,
        }))
    }
}

fn is_proven(keys: &ReplyKeys, route: &Route) -> bool {
    let is_proven = keys.prove(route);
    if !is_proven {
        tracing::error!(route = %route.id, "a reply address is not the one its row was made for: it takes no mail");
    }
    is_proven
}

/// The address that takes this participant's answers: the one he has, while it has long to live, else a new one. `None`
/// when there is no domain for it.
pub(super) async fn reply_address(
    tx: &mut Tx,
    gateway: &Gateway,
    (conversation, user): (ConversationId, UserId),
    (participant, counterpart): (&Address, Option<&Address>),
) -> Result<Option<Address>, FlowError> {
    let now = super::now();
    let found = tx.reply_route(conversation, (participant, counterpart), user).await?;
    if let Some(route) = found.filter(|route| !is_to_be_renewed(route.expires_at, now)) {
        return Ok(Some(route.address));
    }
    let Some(domain) = gateway.settings.ours.reply.as_deref() else { return Ok(None) };
    let (participant, counterpart) = (participant.clone(), counterpart.cloned());
    let target = RouteTarget::Reply { conversation, participant, user, counterpart };
    let sealed = Sealed { workspace: tx.workspace(), target: &target, domain };
    let minted = gateway.reply_keys.0.load().mint(sealed, random(), now);
    let Some((local, ends)) = minted else { return Ok(None) };
    let Ok(address) = Address::from_parts(&local, domain) else { return Ok(None) };
    let (workspace, expires_at) = (tx.workspace(), Some(ends));
    let route = Route { id: mint(), workspace, address: address.clone(), target, expires_at };
    tx.insert_route(&route, now).await?;
    Ok(Some(address))
}
