//! Look-ups that listeners make before they know a workspace: routes by address, keys by secret, workspaces by name.
//!
//! Live routes are remembered for a moment, because a busy sender asks for the same one again and again. Not here: anything
//! that writes.

use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;

use super::{Error, Store};
use crate::{
    core::{
        people::{ApiKey, Workspace},
        route::Route,
    },
    mail::Address,
};

/// How long a route that was found may be used without asking again: the longest a revoked one still takes mail.
const ROUTE_REMEMBERED: Duration = Duration::from_secs(5);
/// Routes remembered.
const ROUTES_MAX: u64 = 10_000;

/// Routes found of late.
pub(super) type RouteCache = Cache<Address, Route>;

pub(super) fn route_cache() -> RouteCache {
    Cache::builder().max_capacity(ROUTES_MAX).time_to_live(ROUTE_REMEMBERED).build()
}

impl Store {
    /// The live route of an address. Unknown addresses are asked for each time: nobody fills memory by guessing.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn live_route(&self, address: &Address, now: Timestamp) -> Result<Option<Route>, Error> {
        if let Some(route) = self.0.routes.get(address).await {
            return Ok(route.expires_at.is_none_or(|end| end > now).then_some(route));
        }
        let found = self.system_read().await?.route(address, now).await?;
        if let Some(route) = &found {
            self.0.routes.insert(address.clone(), route.clone()).await;
        }
        Ok(found)
    }

    /// Asks for each route anew from now on.
    pub(super) fn forget_routes(&self) {
        self.0.routes.invalidate_all();
    }

    /// The key with this hash.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, Error> {
        self.system_read().await?.key_by_hash(hash).await
    }

    /// A workspace by id or slug.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn workspace_named(&self, name: &str) -> Result<Option<Workspace>, Error> {
        let mut system = self.system_read().await?;
        match name.parse() {
            Ok(id) => system.workspace(id).await,
            Err(_) => system.workspace_by_slug(name).await,
        }
    }
}
