//! Every route of the API with what it takes to use it: the one place where scopes are declared.
//!
//! A route that is not in this table answers nobody (`access`), and a test compares the table with the OpenAPI document.
//! Not here: who has which scope.

use axum::http::Method;

use crate::core::people::Scope;

/// Longest body that a request may have, in octets.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The same where files are sent: a message of 25 MB with its attachments in base64, or an import.
pub const UPLOAD_BYTES_MAX: usize = 50 * 1024 * 1024;

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A key of the workspace with this scope, or the instance administrator's.
    Scope(Scope),
    /// The instance administrator's key.
    Instance,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    pub method: Method,
    /// With its parameters in braces.
    pub path: &'static str,
    pub need: Need,
    pub body_bytes_max: usize,
}

const fn route(method: Method, path: &'static str, need: Need) -> Route {
    Route { method, path, need, body_bytes_max: BODY_BYTES_MAX }
}

const fn upload(path: &'static str, need: Need) -> Route {
    Route { method: Method::POST, path, need, body_bytes_max: UPLOAD_BYTES_MAX }
}

const READ: Need = Need::Scope(Scope::Read);
const WRITE: Need = Need::Scope(Scope::Write);
const SEND: Need = Need::Scope(Scope::Send);
const ADMIN: Need = Need::Scope(Scope::Admin);
const INSTANCE: Need = Need::Instance;

/// Stores nothing: what it is asked once more it does once more.
pub(super) const SIMULATE: &str = "/v1/workspaces/{ws}/policy/simulate";

/// Reading shows no secrets; writing changes people, accounts and endpoints; whoever may mint keys or choose the way mail
/// leaves is an administrator.
pub const ROUTES: &[Route] = &[
    route(Method::POST, "/v1/workspaces", INSTANCE),
    route(Method::GET, "/v1/workspaces", INSTANCE),
    route(Method::GET, "/v1/workspaces/{ws}", READ),
    route(Method::PATCH, "/v1/workspaces/{ws}", ADMIN),
    route(Method::DELETE, "/v1/workspaces/{ws}", INSTANCE),
    route(Method::POST, "/v1/workspaces/{ws}/keys", ADMIN),
    route(Method::GET, "/v1/workspaces/{ws}/keys", ADMIN),
    route(Method::DELETE, "/v1/workspaces/{ws}/keys/{id}", ADMIN),
    route(Method::POST, "/v1/workspaces/{ws}/users", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/users", READ),
    route(Method::GET, "/v1/workspaces/{ws}/users/{id}", READ),
    route(Method::GET, "/v1/workspaces/{ws}/users/{id}/coverage", READ),
    route(Method::PATCH, "/v1/workspaces/{ws}/users/{id}", WRITE),
    route(Method::DELETE, "/v1/workspaces/{ws}/users/{id}", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/users/{id}/capture-address", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/users/{id}/connect-link", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/policy", READ),
    route(Method::PUT, "/v1/workspaces/{ws}/policy", ADMIN),
    route(Method::POST, SIMULATE, ADMIN),
    route(Method::GET, "/v1/workspaces/{ws}/users/{id}/policy", READ),
    route(Method::PUT, "/v1/workspaces/{ws}/users/{id}/policy", ADMIN),
    route(Method::POST, "/v1/workspaces/{ws}/contacts", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/contacts", READ),
    upload("/v1/workspaces/{ws}/contacts/import", WRITE),
    route(Method::PUT, "/v1/workspaces/{ws}/contacts/by-external-id/{external_id}", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/contacts/by-external-id/{external_id}", READ),
    route(Method::GET, "/v1/workspaces/{ws}/contacts/{id}", READ),
    route(Method::PATCH, "/v1/workspaces/{ws}/contacts/{id}", WRITE),
    route(Method::DELETE, "/v1/workspaces/{ws}/contacts/{id}", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/contacts/{id}/timeline", READ),
    route(Method::POST, "/v1/workspaces/{ws}/accounts", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/accounts", READ),
    route(Method::GET, "/v1/workspaces/{ws}/accounts/{id}", READ),
    route(Method::PATCH, "/v1/workspaces/{ws}/accounts/{id}", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/accounts/{id}/status", READ),
    route(Method::GET, "/v1/workspaces/{ws}/accounts/{id}/errors", READ),
    route(Method::GET, "/v1/workspaces/{ws}/accounts/{id}/completeness", READ),
    route(Method::POST, "/v1/workspaces/{ws}/accounts/{id}/sync", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/accounts/{id}/pause", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/accounts/{id}/resume", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/accounts/{id}/disconnect", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/limits", READ),
    route(Method::PUT, "/v1/workspaces/{ws}/limits", ADMIN),
    route(Method::GET, "/v1/workspaces/{ws}/users/{id}/limits", READ),
    route(Method::PUT, "/v1/workspaces/{ws}/users/{id}/limits", ADMIN),
    route(Method::GET, "/v1/workspaces/{ws}/users/{id}/usage", READ),
    route(Method::GET, "/v1/workspaces/{ws}/conversations", READ),
    route(Method::GET, "/v1/workspaces/{ws}/conversations/{id}", READ),
    route(Method::GET, "/v1/workspaces/{ws}/conversations/{id}/messages", READ),
    route(Method::POST, "/v1/workspaces/{ws}/conversations/{id}/merge", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/conversations/{id}/split", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/repairs/{id}/undo", WRITE),
    upload("/v1/workspaces/{ws}/messages", SEND),
    route(Method::GET, "/v1/workspaces/{ws}/messages/{id}", READ),
    route(Method::GET, "/v1/workspaces/{ws}/messages/{id}/raw", READ),
    route(Method::GET, "/v1/workspaces/{ws}/messages/{id}/attachments/{attachment}", READ),
    route(Method::POST, "/v1/workspaces/{ws}/messages/{id}/disown", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/quarantine", READ),
    route(Method::GET, "/v1/workspaces/{ws}/quarantine/{id}", READ),
    route(Method::GET, "/v1/workspaces/{ws}/quarantine/{id}/raw", READ),
    route(Method::POST, "/v1/workspaces/{ws}/quarantine/{id}/release", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/quarantine/{id}/reject", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/smarthost", READ),
    route(Method::PUT, "/v1/workspaces/{ws}/smarthost", ADMIN),
    route(Method::DELETE, "/v1/workspaces/{ws}/smarthost", ADMIN),
    route(Method::POST, "/v1/workspaces/{ws}/webhooks", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/webhooks", READ),
    route(Method::GET, "/v1/workspaces/{ws}/webhooks/{id}", READ),
    route(Method::PATCH, "/v1/workspaces/{ws}/webhooks/{id}", WRITE),
    route(Method::DELETE, "/v1/workspaces/{ws}/webhooks/{id}", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/webhooks/{id}/test", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/webhooks/{id}/replay", WRITE),
    route(Method::POST, "/v1/workspaces/{ws}/webhooks/{id}/rotate-secret", WRITE),
    route(Method::GET, "/v1/workspaces/{ws}/events", READ),
    route(Method::GET, "/v1/workspaces/{ws}/events/stream", READ),
    route(Method::GET, "/v1/workspaces/{ws}/decisions", READ),
    route(Method::GET, "/v1/workspaces/{ws}/trail", ADMIN),
];

/// The route of a request; HEAD is answered by GET (RFC 9110 section 9.3.2).
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.method == *method && route.path == path)
}
