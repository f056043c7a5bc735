//! Many contacts at once: a line of JSON each, as NDJSON.
//!
//! A line that is wrong is reported and skips nothing but itself. Lines are written in groups, a transaction each, so that
//! an import holds nobody up; with an `Idempotency-Key` each group is done once, and a repeated import goes on where the
//! first was cut off. Not here: checking one contact (`contacts`).

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{self, Lines},
    contacts::{self, NewContact, replacing, require_references},
    once::{self, Answer, Stamp},
    problem::Problem,
};
use crate::{
    core::people::{Contact, CreatedBy},
    flow,
    store::{AddressMatch, Idempotency, Tx},
};

/// Lines written in one transaction: few enough that others hardly wait.
const GROUP_LINES: usize = 200;
/// Lines that are reported as wrong, in all; the counts go on.
const ERRORS_MAX: usize = 1000;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(import))
}

/// What became of an import.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
struct Imported {
    created: u64,
    updated: u64,
    failed: u64,
    /// The lines that failed, at most 1000 of them.
    errors: Vec<LineError>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct LineError {
    /// Counted from 1.
    line: u64,
    #[schema(example = "invalid")]
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    detail: String,
}

impl Imported {
    fn fail(&mut self, line: u64, problem: &Problem) {
        self.failed += 1;
        let (code, param) = (problem.code.to_owned(), problem.param.clone());
        self.errors.push(LineError { line, code, param, detail: problem.detail.to_string() });
    }

    fn add(&mut self, part: Self) {
        self.created += part.created;
        self.updated += part.updated;
        self.failed += part.failed;
        self.errors.extend(part.errors);
        self.errors.truncate(ERRORS_MAX);
    }
}

/// Import contacts, a line of JSON each (`application/x-ndjson`), in the form in which one is added. A contact with the same
/// `external_id` is replaced; without one, the contact that has the address as its primary one.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/contacts/import", tag = "contacts",
    operation_id = "import_contacts",
    request_body(content = String, content_type = "application/x-ndjson", description = "A contact a line."),
    responses((status = 200, body = Imported)))]
async fn import(State(api): State<Api>, access: Access, lines: Lines) -> Result<Json<Imported>, Problem> {
    let numbered: Vec<(u64, &[u8])> = (1..)
        .zip(lines.bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let mut imported = Imported::default();
    for (number, group) in numbered.chunks(GROUP_LINES).enumerate() {
        let stamp = lines.stamp.part(number);
        let part = match import_group(&api, &access, &stamp, group).await {
            // Somebody else added one of them at the same moment: now it is there to be replaced.
            Err(problem)
                if problem.status == StatusCode::CONFLICT && problem.code != "idempotency_mismatch" =>
            {
                import_group(&api, &access, &stamp, group).await?
            }
            part => part?,
        };
        imported.add(part);
    }
    Ok(Json(imported))
}

async fn import_group(
    api: &Api,
    access: &Access,
    stamp: &Stamp,
    group: &[(u64, &[u8])],
) -> Result<Imported, Problem> {
    let mut tx = api.store().begin(access.workspace).await?;
    if let Some(request) = stamp.request() {
        match tx.begin_request(request, stamp.hash(), flow::now()).await? {
            Idempotency::Same { body, .. } => {
                return serde_json::from_str(&body).map_err(|_| Problem::internal());
            }
            Idempotency::Mismatch => return Err(once::mismatch()),
            Idempotency::Underway => return Err(Problem::unavailable()),
            Idempotency::Fresh => {}
        }
    }
    let mut imported = Imported::default();
    for (line, json) in group {
        match import_line(api, &mut tx, json).await? {
            Ok(true) => imported.created += 1,
            Ok(false) => imported.updated += 1,
            Err(problem) => imported.fail(*line, &problem),
        }
    }
    if let Some(request) = stamp.request() {
        let answer = Answer::ok(&imported);
        tx.finish_request(request, answer.status.as_u16(), &answer.body).await?;
    }
    tx.commit().await?;
    Ok(imported)
}

/// Writes one line: true when the contact is new. The inner problem is the line's own; the outer one ends the import.
async fn import_line(api: &Api, tx: &mut Tx, json: &[u8]) -> Result<Result<bool, Problem>, Problem> {
    let read = body::from_slice::<NewContact>(json).and_then(|new| new.check(api, CreatedBy::Import));
    let contact = match read {
        Ok(contact) => contact,
        Err(problem) => return Ok(Err(problem)),
    };
    if let Err(problem) = require_references(tx, &contact).await {
        // A reference that leads nowhere is the line's fault; a store out of reach is not.
        return if problem.status.is_server_error() { Err(problem) } else { Ok(Err(problem)) };
    }
    match known(tx, &contact).await? {
        Some(old) => {
            // A line without the CRM's id says nothing about it.
            let external_id = contact.external_id.clone().or_else(|| old.external_id.clone());
            let contact = Contact { external_id, ..replacing(old, contact) };
            tx.update_contact(&contact, flow::now()).await?;
        }
        None => {
            contacts::add(tx, &contact).await?;
            return Ok(Ok(true));
        }
    }
    Ok(Ok(false))
}

async fn known(tx: &mut Tx, contact: &Contact) -> Result<Option<Contact>, Problem> {
    if let Some(id) = &contact.external_id {
        return Ok(tx.contact_by_external_id(id).await?);
    }
    let addresses = [contact.email.clone()];
    let found = tx.contacts_among(&addresses, AddressMatch::Primary).await?.remove(&contact.email);
    match found {
        Some(found) => Ok(tx.contact(found.contact).await?),
        None => Ok(None),
    }
}
