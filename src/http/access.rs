//! Who may do what: finds the caller's key, the workspace in the path, and whether the route's scope is held.
//!
//! Runs before a body is read. Not here: which scope a route takes (`route`), and making keys (`keys`).
//! A workspace of somebody else and one that does not exist cannot be told apart.

use axum::{
    extract::{
        FromRequestParts, MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection,
    },
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Api,
    problem::Problem,
    route::{self, Need, ROUTES, Route},
};
use crate::{
    core::{
        ids::{UserId, WorkspaceId},
        inbound::Principal,
        people::{ApiKey, Scope},
    },
    flow::{self, api_key},
    store::{self, Sees, Session, Tx, Viewer},
};

/// A caller in a workspace that he may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) workspace: WorkspaceId,
    pub(super) principal: Principal,
    /// Set when the key is bound to a user: then he acts as that user and no other.
    user: Option<UserId>,
    /// Whether the key shows him what others see, whatever policy says.
    is_admin: bool,
}

impl Access {
    /// Whether the caller may act as this user.
    pub(super) fn act_as(&self, user: UserId) -> Result<(), Problem> {
        if self.user.is_none_or(|bound| bound == user) {
            return Ok(());
        }
        Err(Problem::forbidden(
            "The key is bound to another user.",
            "Use that user's key, or one of the workspace.",
        ))
    }

    /// The user that the key is bound to.
    pub(super) fn bound_to(&self) -> Option<UserId> {
        self.user
    }

    /// Whether the key itself shows everything.
    pub(super) fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Whether the caller may act for the whole workspace.
    pub(super) fn act_for_all(&self) -> Result<(), Problem> {
        match self.user {
            None => Ok(()),
            Some(_) => Err(Problem::forbidden("The key is bound to a user.", "Use a key of the workspace.")),
        }
    }

    /// Whether the key is still in force, for those who are served for long.
    pub(super) async fn still_holds(&self, session: &mut Session) -> Result<bool, store::Error> {
        match self.principal {
            Principal::Key(id) => Ok(session.api_key(id).await?.is_some()),
            Principal::Admin | Principal::Participant(_) => Ok(true),
        }
    }

    /// Whether the caller may change contacts. Where only he whom a contact is assigned to sees the contact's mail, whoever
    /// changes contacts decides who sees what.
    pub(super) async fn change_contacts(&self, session: &mut Session) -> Result<(), Problem> {
        let Some(user) = self.user.filter(|_| !self.is_admin) else { return Ok(()) };
        match flow::viewer(session, user).await? {
            Some(Viewer { sees: Sees::OwnAndAssigned, .. }) => Err(Problem::forbidden(
                "Contacts decide who sees which mail in this workspace, and the key is bound to a user.",
                "Use a key of the workspace.",
            )),
            _ => Ok(()),
        }
    }

    /// The workspace, for writing: the trail names the caller for what is done.
    pub(super) async fn begin(&self, api: &Api) -> Result<Tx, store::Error> {
        Ok(api.store().begin(self.workspace).await?.acting_for(self.name()))
    }

    /// Who the caller is, as it is written down.
    pub(super) fn name(&self) -> String {
        match self.principal {
            Principal::Key(id) => id.to_string(),
            Principal::Admin => "admin".to_owned(),
            Principal::Participant(user) => user.to_string(),
        }
    }

    /// The workspace, for reading: without what is hidden from the user that the key is bound to.
    pub(super) async fn read(&self, api: &Api) -> Result<Session, store::Error> {
        let mut session = api.store().read(self.workspace).await?;
        self.hide(&mut session).await?;
        Ok(session)
    }

    /// The same for what is read from here on in a transaction that is open.
    pub(super) async fn hide(&self, session: &mut Session) -> Result<(), store::Error> {
        if let Some(user) = self.user.filter(|_| !self.is_admin) {
            let viewer = flow::viewer(session, user).await?;
            session.see_as(viewer);
            if !flow::is_admin(session, user).await? {
                session.leave_out_skipped();
            }
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Permit::of(parts)?.access.ok_or_else(Problem::internal)
    }
}

/// What was found out about a request that may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permit {
    pub(super) route: &'static Route,
    /// Missing on routes outside of any workspace.
    access: Option<Access>,
}

impl Permit {
    /// The permit of a request; without one no handler has been reached.
    pub(super) fn of(parts: &Parts) -> Result<Self, Problem> {
        parts.extensions.get().copied().ok_or_else(Problem::internal)
    }

    /// The workspace that the request is for, if it is for one.
    pub(super) fn workspace(&self) -> Option<WorkspaceId> {
        self.access.map(|access| access.workspace)
    }
}

/// Whose key a request carries.
enum Caller {
    Admin,
    Key(ApiKey),
}

/// Lets a request through to its handler, or answers it.
pub(super) async fn authenticate(
    State(api): State<Api>,
    path: MatchedPath,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(route) = route::find(request.method(), path.as_str()) else {
        return Ok(no_such_method(path.as_str()));
    };
    let caller = caller(&api, request.headers()).await?;
    // A path that is no UTF-8 names nothing.
    let params = params.map_err(|_| Problem::not_found())?;
    let name = params.iter().find(|(key, _)| *key == "ws").map(|(_, value)| value);
    let access = match name {
        Some(name) => Some(enter(&api, &caller, name).await?),
        None => None,
    };
    require(&caller, route.need)?;
    if let Caller::Key(key) = &caller {
        api_key::note_use(api.store(), key);
    }
    request.extensions_mut().insert(Permit { route, access });
    Ok(next.run(request).await)
}

/// A path that exists, asked for with a method that it does not have (RFC 9110 section 15.5.6).
fn no_such_method(path: &str) -> Response {
    let methods: Vec<&str> =
        ROUTES.iter().filter(|route| route.path == path).map(|route| route.method.as_str()).collect();
    let allow = methods.join(", ");
    let advice = format!("Use one of: {allow}.");
    let detail = "The path does not answer this method.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail, advice);
    let mut response = problem.into_response();
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

async fn caller(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let secret = bearer(headers).ok_or_else(Problem::unauthorized)?;
    if api.admin_key.as_ref().is_some_and(|admin| same(admin.expose_secret(), secret)) {
        return Ok(Caller::Admin);
    }
    let key = api_key::find(api.store(), secret).await?;
    key.map(Caller::Key).ok_or_else(Problem::unauthorized)
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1). Never one from a query string: those are logged.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares secrets in time that depends on neither: hashed first, since lengths differ.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (Sha256::digest(one.as_bytes()), Sha256::digest(other.as_bytes()));
    one.as_slice().ct_eq(other.as_slice()).into()
}

/// The workspace of the path, by id or slug, if the caller may be there.
async fn enter(api: &Api, caller: &Caller, name: &str) -> Result<Access, Problem> {
    let found = match (name.parse::<WorkspaceId>(), caller) {
        // The key itself says that its workspace exists.
        (Ok(id), Caller::Key(key)) => Some(id).filter(|id| *id == key.workspace),
        (Ok(id), Caller::Admin) => {
            api.store().system_read().await?.workspace(id).await?.map(|found| found.id)
        }
        // No slug holds one, and not every database takes it.
        (Err(_), _) if name.contains(char::is_control) => None,
        (Err(_), _) => api.store().system_read().await?.workspace_by_slug(name).await?.map(|found| found.id),
    };
    let workspace = found.ok_or_else(Problem::not_found)?;
    match caller {
        Caller::Admin => Ok(Access { workspace, principal: Principal::Admin, user: None, is_admin: true }),
        Caller::Key(key) if key.workspace == workspace => {
            let (principal, is_admin) = (Principal::Key(key.id), key.allows(Scope::Admin));
            Ok(Access { workspace, principal, user: key.user_id, is_admin })
        }
        Caller::Key(_) => Err(Problem::not_found()),
    }
}

fn require(caller: &Caller, need: Need) -> Result<(), Problem> {
    match (caller, need) {
        (Caller::Admin, _) => Ok(()),
        (Caller::Key(key), Need::Scope(scope)) if key.allows(scope) => Ok(()),
        (Caller::Key(_), Need::Scope(scope)) => Err(Problem::forbidden(
            format!("The key does not have the scope \"{}\".", word(scope)),
            "Make a key that has it, or use another key.",
        )),
        (Caller::Key(_), Need::Instance) => Err(Problem::forbidden(
            "Only the instance administrator may do this.",
            "Use the key that the operator set as MAILWEAVE_ADMIN_KEY.",
        )),
    }
}

pub(super) fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Write => "write",
        Scope::Send => "send",
        Scope::Smtp => "smtp",
        Scope::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, token: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        assert_eq!(bearer(&headers), token, "{value}");
    }

    #[test]
    fn only_bearer_tokens_count() {
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer", None);
        check("Bearer  ", None);
        check("abc", None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn secrets_are_equal_only_whole() {
        assert!(same("secret", "secret"));
        assert!(!same("secret", "secre"));
        assert!(!same("secret", ""));
    }
}
