//! The HTTP API: JSON over `/v1`, the journal as server-sent events, health, metrics and the OpenAPI document.
//!
//! A router a resource; each handler checks what it was sent, opens one transaction, and shows what came of it.
//! Not here: what mail means (`core`), what happens to it (`flow`), and pages for people.

// utoipa writes the types of parameters with a path that they do not need.
#![allow(unused_qualifications)]

mod access;
mod account_input;
mod account_life;
mod account_rules;
mod account_view;
mod accounts;
mod attachments;
mod body;
mod capture_address;
mod connect;
mod connection;
mod contact_import;
mod contact_view;
mod contacts;
mod conversations;
mod coverage;
mod decisions;
mod discovery;
mod download;
mod event_stream;
mod events;
mod field;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod health;
mod host;
mod keys;
mod limits;
mod message_view;
mod messages;
mod observe;
mod once;
mod openapi;
mod page;
mod places;
mod policy;
mod problem;
mod quarantine;
mod repairs;
mod route;
mod send;
mod simulation;
mod smarthost;
mod stored_message;
#[cfg(test)]
mod testing;
mod trail;
mod users;
mod verification_view;
mod webhooks;
mod workspaces;

pub use discovery::Discovery;
pub use host::HostRule;
pub use route::{Need, ROUTES, Route};

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{Router, middleware};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use self::{connection::Connection, places::Places, problem::Problem};
use crate::{
    core::ids::AccountId,
    flow::{Gateway, sync},
    store::Store,
};

/// Large bodies held at the same time, in all and for one workspace: with 50 MiB each, and as much again while they are read.
const UPLOADS_MAX: usize = 4;
const UPLOADS_EACH_MAX: usize = 2;
/// Messages being read for showing at the same time: each may be as large as a message can be.
const READERS_MAX: usize = 4;
const READERS_EACH_MAX: usize = 2;
/// Large answers that clients are taking at the same time, each as large as a message can be.
const DOWNLOADS_MAX: usize = 8;
const DOWNLOADS_EACH_MAX: usize = 2;
/// Lists that are searched at the same time: each reads all that a workspace has, on one of the connections that look up
/// recipients, logins and keys for everybody.
const SEARCHES_MAX: usize = 2;
const SEARCHES_EACH_MAX: usize = 1;
/// Policies simulated at the same time: each is one more session with a provider, and holds thousands of headers. One for each
/// workspace, so that no provider has two of one account.
const SIMULATIONS_MAX: usize = 3;
const SIMULATIONS_EACH_MAX: usize = 1;
/// Event streams open at the same time.
const STREAMS_MAX: usize = 256;
const STREAMS_EACH_MAX: usize = 32;
/// What the API works with, as the composition root has built it.
pub struct ApiState {
    pub gateway: Gateway,
    /// The instance administrator's key, at least 32 characters.
    pub admin_key: Option<SecretString>,
    /// True once every listener is bound.
    pub ready: Arc<AtomicBool>,
    /// All metrics in Prometheus's text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Where callers reach this API, as far as the operator said so.
    pub public_url: Option<url::Url>,
    /// Where users reach this gateway's pages: the same, or where it listens.
    pub own_url: url::Url,
    /// Which hosts may be reached without TLS.
    pub plain_hosts: HostRule,
    /// What domains say of where their mail is read and sent.
    pub discovery: Discovery,
    /// Longest message that may be sent, in octets.
    pub message_bytes_max: usize,
    /// How long answers in hand may take after shutdown has begun.
    pub shutdown_grace: Duration,
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    state: ApiState,
    /// Whether callers come over TLS, as far as the operator said so.
    is_https: bool,
    uploads: Places,
    readers: Places,
    downloads: Places,
    searches: Places,
    simulations: Places,
    streams: Places,
    shutdown: CancellationToken,
}

impl Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Deref for Shared {
    type Target = ApiState;
    fn deref(&self) -> &ApiState {
        &self.state
    }
}

impl Api {
    fn new(state: ApiState, shutdown: CancellationToken) -> Self {
        let is_https = state.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
        Self(Arc::new(Shared {
            state,
            is_https,
            uploads: Places::new(UPLOADS_MAX, UPLOADS_EACH_MAX),
            readers: Places::new(READERS_MAX, READERS_EACH_MAX),
            downloads: Places::new(DOWNLOADS_MAX, DOWNLOADS_EACH_MAX),
            searches: Places::new(SEARCHES_MAX, SEARCHES_EACH_MAX),
            simulations: Places::new(SIMULATIONS_MAX, SIMULATIONS_EACH_MAX),
            streams: Places::new(STREAMS_MAX, STREAMS_EACH_MAX),
            shutdown,
        }))
    }

    fn store(&self) -> &Store {
        &self.gateway.store
    }

    /// Makes the worker look at an account now.
    fn look_now(&self, account: AccountId) {
        sync::look_now(&self.gateway.coord, account);
    }
}

/// Answers requests on this listener until `shutdown`, then finishes those in hand.
pub async fn serve(listener: TcpListener, state: ApiState, shutdown: CancellationToken) {
    let grace = state.shutdown_grace;
    let routes = router(Api::new(state, shutdown.clone()));
    let service = routes.into_make_service_with_connect_info::<Connection>();
    let listener = connection::Bounded::new(listener);
    let serving = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        // Accepting never fails for good, so neither does serving.
        _ = serving => {}
        () = late => tracing::warn!("some requests were still being answered when the time to shut down was over"),
    }
}

fn router(api: Api) -> Router {
    let (routes, mut document) = resources().split_for_parts();
    let (health, of_health) = health::router().split_for_parts();
    document.merge(of_health);
    routes
        .route_layer(middleware::from_fn_with_state(api.clone(), access::authenticate))
        .merge(health)
        .merge(openapi::pages(&document))
        .merge(connect::pages())
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(api.clone(), observe::observe))
        .layer(middleware::from_fn(connection::mark_busy))
        .with_state(api)
}

fn resources() -> OpenApiRouter<Api> {
    openapi::start()
        .merge(workspaces::router())
        .merge(keys::router())
        .merge(users::router())
        .merge(capture_address::router())
        .merge(connect::router())
        .merge(contacts::router())
        .merge(contact_import::router())
        .merge(accounts::router())
        .merge(account_life::router())
        .merge(limits::router())
        .merge(conversations::router())
        .merge(repairs::router())
        .merge(messages::router())
        .merge(attachments::router())
        .merge(send::router())
        .merge(quarantine::router())
        .merge(policy::router())
        .merge(simulation::router())
        .merge(smarthost::router())
        .merge(webhooks::router())
        .merge(events::router())
        .merge(event_stream::router())
        .merge(decisions::router())
        .merge(trail::router())
        .merge(coverage::router())
}

async fn unknown() -> Problem {
    Problem::not_found()
}
