//! The workspace's smarthost: the provider by which bulk and workflow mail leaves.
//!
//! Not here: choosing between it and an account (`core::policy`).

use axum::{Json, extract::State, http::StatusCode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, access::Access, account_input, body::Input, field, host, openapi::SecurityWord, problem::Problem,
};
use crate::{
    core::{
        account::{Credentials, Endpoint, Security},
        submission::Smarthost,
    },
    flow,
    mail::canonical_domain,
    store::Session,
};

/// Domains one smarthost sends for.
const FROM_DOMAINS_MAX: usize = 200;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show, put, delete))
}

/// A smarthost without its password.
#[derive(Serialize, ToSchema)]
#[schema(as = Smarthost)]
struct SmarthostView {
    host: String,
    port: u16,
    #[schema(value_type = SecurityWord)]
    security: Security,
    username: String,
    /// The domains it sends for.
    from_domains: Vec<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSmarthost {
    #[schema(example = "smtp.example.com")]
    host: String,
    #[schema(example = 587)]
    port: u16,
    #[schema(value_type = SecurityWord)]
    security: Security,
    username: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The domains it may send for; at most 200. What users without an account write leaves from the reply domain.
    from_domains: Vec<String>,
}

impl NewSmarthost {
    async fn check(self, api: &Api) -> Result<(Smarthost, Credentials), Problem> {
        let host = host::host("host", &self.host)?;
        if self.port == 0 {
            return Err(Problem::invalid("port", "There is no port 0."));
        }
        let checked = api.plain_hosts.check("", &host, self.security).await;
        checked.map_err(|problem| {
            // Here the fields stand at the top.
            let field = problem.param.clone().unwrap_or_default();
            problem.at(field.trim_start_matches('.'))
        })?;
        let credentials = account_input::login("", &self.username, self.password)?;
        let from_domains = domains(&self.from_domains)?;
        let endpoint = Endpoint { host, port: self.port, security: self.security };
        Ok((Smarthost { endpoint, from_domains }, credentials))
    }
}

fn domains(given: &[String]) -> Result<Vec<String>, Problem> {
    if given.is_empty() {
        return Err(Problem::invalid("from_domains", "It needs at least one domain."));
    }
    field::at_most("from_domains", given, FROM_DOMAINS_MAX)?;
    let mut domains = Vec::with_capacity(given.len());
    for (index, text) in given.iter().enumerate() {
        let domain = canonical_domain(text).filter(|domain| !domain.starts_with('['));
        let refused = || Problem::invalid(format!("from_domains[{index}]"), "It is no domain.");
        domains.push(domain.ok_or_else(refused)?);
    }
    domains.sort_unstable();
    domains.dedup();
    Ok(domains)
}

async fn view(session: &mut Session) -> Result<SmarthostView, Problem> {
    let smarthost = session.smarthost().await?.ok_or_else(Problem::not_found)?;
    let credentials = session.smarthost_credentials().await?;
    let username = credentials.map(|credentials| credentials.username().to_owned()).unwrap_or_default();
    let Smarthost { endpoint: Endpoint { host, port, security }, from_domains } = smarthost;
    Ok(SmarthostView { host, port, security, username, from_domains })
}

/// Show the smarthost.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/smarthost", tag = "smarthost", operation_id = "get_smarthost",
    responses((status = 200, body = SmarthostView)))]
async fn show(State(api): State<Api>, access: Access) -> Result<Json<SmarthostView>, Problem> {
    Ok(Json(view(&mut access.read(&api).await?).await?))
}

/// Set the smarthost, in place of any other.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/smarthost", tag = "smarthost", operation_id = "put_smarthost",
    request_body = NewSmarthost, responses((status = 200, body = SmarthostView)))]
async fn put(
    State(api): State<Api>,
    access: Access,
    input: Input<NewSmarthost>,
) -> Result<Json<SmarthostView>, Problem> {
    access.act_for_all()?;
    let (smarthost, credentials) = input.value.check(&api).await?;
    let mut tx = access.begin(&api).await?;
    tx.put_smarthost(&smarthost, &credentials, flow::now()).await?;
    // What was held for want of it goes out now.
    flow::submit::release_held(&mut tx, &api.gateway, None).await?;
    let shown = view(&mut tx).await?;
    tx.commit().await?;
    Ok(Json(shown))
}

/// Have no smarthost any more.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}/smarthost", tag = "smarthost",
    operation_id = "delete_smarthost", responses((status = 204, description = "It is gone.")))]
async fn delete(State(api): State<Api>, access: Access) -> Result<StatusCode, Problem> {
    access.act_for_all()?;
    let mut tx = access.begin(&api).await?;
    tx.delete_smarthost().await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
