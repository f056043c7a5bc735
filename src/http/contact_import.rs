//! Many contacts at once: a line of JSON each, as NDJSON.
//!
//! A line that is wrong is reported and skips nothing but itself. Lines are written in groups, a transaction each, so that
//! an import holds nobody up; with an `Idempotency-Key` each group is done once, and a repeated import goes on where the
//! first was cut off. Not here: checking one contact (`contacts`).

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{self, Lines},
    contacts::{self, NewContact, References, replaced, replacing},
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
/// Lines of one import: each group of them is a transaction, and with an `Idempotency-Key` an answer that is kept.
const LINES_MAX: usize = 100_000;
/// Longest line, in octets: four times what a contact's metadata may have.
const LINE_BYTES_MAX: usize = 64 * 1024;
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
/// `external_id` is replaced, or the one with this primary address that has none yet; without an `external_id`, the contact that
/// has the address as its primary one.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/contacts/import", tag = "contacts",
    operation_id = "import_contacts",
    request_body(content = String, content_type = "application/x-ndjson", description = "A contact a line."),
    responses((status = 200, body = Imported)))]
async fn import(State(api): State<Api>, access: Access, lines: Lines) -> Result<Json<Imported>, Problem> {
    check_count(&lines.bytes)?;
    let mut numbered = numbered(&lines.bytes);
    let mut imported = Imported::default();
    for number in 0.. {
        // One group at a time: a list of all lines may be far larger than the body.
        let group: Vec<_> = numbered.by_ref().take(GROUP_LINES).collect();
        if group.is_empty() {
            break;
        }
        let stamp = lines.stamp.part(number);
        let group = read_group(&api, group).await?;
        let part = match import_group(&api, &access, &stamp, &group).await {
            // Somebody else added or deleted one of them at the same moment: now that is seen.
            Err(problem) if was_overtaken(&problem) => import_group(&api, &access, &stamp, &group).await?,
            part => part?,
        };
        imported.add(part);
    }
    Ok(Json(imported))
}

/// Refuses an import of too many lines before the first of them is written.
fn check_count(bytes: &[u8]) -> Result<(), Problem> {
    let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
    let unended = usize::from(bytes.last().is_some_and(|last| *last != b'\n'));
    if ends + unended <= LINES_MAX {
        return Ok(());
    }
    let problem = Problem::invalid("body", format!("An import has at most {LINES_MAX} lines."));
    Err(problem.advice("Send it in several requests."))
}

/// The lines that hold anything, with their numbers.
fn numbered(bytes: &Bytes) -> impl Iterator<Item = (u64, Bytes)> + Send {
    (1..)
        .zip(bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| (number, bytes.slice_ref(line)))
}

fn was_overtaken(problem: &Problem) -> bool {
    let overtaken = [StatusCode::CONFLICT, StatusCode::NOT_FOUND].contains(&problem.status);
    overtaken && problem.code != "idempotency_mismatch"
}

/// A line and what it says, or what is wrong with it.
type Line = (u64, Result<Contact, Problem>);

/// Reads lines before the transaction begins, on a thread of their own: whoever writes meanwhile does not wait for JSON.
async fn read_group(api: &Api, group: Vec<(u64, Bytes)>) -> Result<Vec<Line>, Problem> {
    let api = api.clone();
    let reading = tokio::task::spawn_blocking(move || {
        group.into_iter().map(|(number, line)| (number, read_line(&api, &line))).collect()
    });
    reading.await.map_err(|_| Problem::internal())
}

fn read_line(api: &Api, line: &[u8]) -> Result<Contact, Problem> {
    if line.len() > LINE_BYTES_MAX {
        return Err(Problem::invalid("body", format!("The line is longer than {LINE_BYTES_MAX} bytes.")));
    }
    body::from_slice::<NewContact>(line)?.check(api, CreatedBy::Import)
}

async fn import_group(
    api: &Api,
    access: &Access,
    stamp: &Stamp,
    group: &[Line],
) -> Result<Imported, Problem> {
    let mut tx = access.begin(api).await?;
    access.change_contacts(&mut tx).await?;
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
    let contacts: Vec<&Contact> = group.iter().filter_map(|(_, read)| read.as_ref().ok()).collect();
    let references = References::of(&mut tx, &contacts).await?;
    for (line, read) in group {
        match read.as_ref().map_err(Problem::clone).and_then(|contact| {
            references.require(contact)?;
            Ok(contact)
        }) {
            Ok(contact) if write(&mut tx, contact).await? => imported.created += 1,
            Ok(_) => imported.updated += 1,
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

/// Writes one contact. True when it is new.
async fn write(tx: &mut Tx, contact: &Contact) -> Result<bool, Problem> {
    let Some(old) = known(tx, contact).await? else {
        contacts::add(tx, contact).await?;
        return Ok(true);
    };
    // A line without the CRM's id says nothing about it.
    let external_id = contact.external_id.clone().or_else(|| old.external_id.clone());
    let contact = Contact { external_id, ..replacing(old, contact.clone()) };
    tx.update_contact(&contact, flow::now()).await?;
    Ok(false)
}

async fn known(tx: &mut Tx, contact: &Contact) -> Result<Option<Contact>, Problem> {
    if contact.external_id.is_some() {
        return Ok(replaced(tx, contact).await?);
    }
    let addresses = [contact.email.clone()];
    let found = tx.contacts_among(&addresses, AddressMatch::Primary).await?.remove(&contact.email);
    match found {
        Some(found) => Ok(tx.contact_to_change(found.contact).await?),
        None => Ok(None),
    }
}
