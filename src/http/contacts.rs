//! The people the CRM knows.
//!
//! Not here: who becomes a contact by writing or being written to (`core::policy`), and importing many (`contact_import`).

use std::collections::HashSet;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{self, Input, Parameters, PathId},
    contact_view::{ContactView, OneContact},
    field::{self, Patch},
    message_view::{MessageView, Reader},
    once::{Answer, Stop},
    openapi::CreatedByWord,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        event::{ContactEvent, Event},
        ids::{ContactId, Id as _, UserId},
        people::{Contact, CreatedBy},
    },
    flow,
    mail::Address,
    store::{self, ContactFilter, PageKey, Session, Tx, mint},
};

/// Addresses of one contact besides the first.
const OTHER_EMAILS_MAX: usize = 50;
/// People of one deal.
const RELATED_MAX: usize = 100;
const EXTERNAL_ID_CHARS_MAX: usize = 255;
/// The CRM's own data about a contact, as JSON text, in octets.
const METADATA_BYTES_MAX: usize = 16 * 1024;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(put, show_by_external_id))
        .routes(routes!(show, change, delete))
        .routes(routes!(timeline))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewContact {
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
    /// At most 50.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    other_emails: Vec<Address>,
    #[schema(value_type = Option<String>)]
    assigned_user_id: Option<UserId>,
    /// The CRM's own id, unique in the workspace.
    pub(super) external_id: Option<String>,
    /// At most 100, of contacts that exist.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    related_contact_ids: Vec<ContactId>,
    /// Whatever the CRM wants to keep with the contact: an object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

impl NewContact {
    pub(super) fn check(self, api: &Api, created_by: CreatedBy) -> Result<Contact, Problem> {
        let contact = Contact {
            id: mint(),
            email: self.email,
            name: self.name,
            other_emails: self.other_emails,
            assigned_user_id: self.assigned_user_id,
            external_id: self.external_id,
            related_contact_ids: self.related_contact_ids,
            metadata: Value::Object(self.metadata.unwrap_or_default()),
            created_by,
            created_at: flow::now(),
        };
        checked(api, contact)
    }
}

/// What can be said of a contact without asking the store.
fn checked(api: &Api, contact: Contact) -> Result<Contact, Problem> {
    let mut contact = Contact { name: field::name("name", contact.name)?, ..contact };
    contact.external_id =
        contact.external_id.map(|id| field::line("external_id", &id, EXTERNAL_ID_CHARS_MAX)).transpose()?;
    contact.other_emails.sort();
    contact.other_emails.dedup();
    contact.other_emails.retain(|email| *email != contact.email);
    contact.related_contact_ids.sort_unstable();
    contact.related_contact_ids.dedup();
    contact.related_contact_ids.retain(|id| *id != contact.id);
    field::at_most("other_emails", &contact.other_emails, OTHER_EMAILS_MAX)?;
    field::at_most("related_contact_ids", &contact.related_contact_ids, RELATED_MAX)?;
    if contact.metadata.to_string().len() > METADATA_BYTES_MAX {
        return Err(Problem::invalid("metadata", format!("It is larger than {METADATA_BYTES_MAX} bytes.")));
    }
    let ours = &api.gateway.settings.ours;
    if ours.holds(&contact.email) {
        return Err(Problem::invalid("email", "This is an address of the gateway itself."));
    }
    if contact.other_emails.iter().any(|email| ours.holds(email)) {
        return Err(Problem::invalid("other_emails", "One of them is an address of the gateway itself."));
    }
    Ok(contact)
}

/// Those whom some contacts refer to and who are of the workspace.
pub(super) struct References {
    users: HashSet<UserId>,
    contacts: HashSet<ContactId>,
}

impl References {
    /// Looks all of them up at once, however many contacts there are.
    pub(super) async fn of(session: &mut Session, referring: &[&Contact]) -> Result<Self, store::Error> {
        let users: Vec<_> = referring.iter().filter_map(|contact| contact.assigned_user_id).collect();
        let contacts: Vec<_> =
            referring.iter().flat_map(|contact| &contact.related_contact_ids).copied().collect();
        Ok(Self {
            users: session.users_present(&users).await?,
            contacts: session.contacts_present(&contacts).await?,
        })
    }

    /// Whom a contact refers to must be of the workspace.
    pub(super) fn require(&self, contact: &Contact) -> Result<(), Problem> {
        if contact.assigned_user_id.is_some_and(|user| !self.users.contains(&user)) {
            let detail = "There is no such user in this workspace.";
            return Err(Problem::invalid("assigned_user_id", detail));
        }
        match contact.related_contact_ids.iter().position(|id| !self.contacts.contains(id)) {
            None => Ok(()),
            Some(index) => {
                let param = format!("related_contact_ids[{index}]");
                Err(Problem::invalid(param, "There is no such contact in this workspace."))
            }
        }
    }
}

async fn require_references(session: &mut Session, contact: &Contact) -> Result<(), Problem> {
    References::of(session, &[contact]).await?.require(contact)
}

/// Writes a new contact and tells of it.
pub(super) async fn add(tx: &mut Tx, contact: &Contact) -> Result<(), store::Error> {
    tx.insert_contact(contact).await?;
    let event = Event::Contact {
        what: ContactEvent::Created,
        contact: contact.id,
        email: contact.email.clone(),
        message: None,
    };
    tx.announce(&event, flow::now()).await.map(drop)
}

/// Add a contact. Several may have one address: the first created answers for it.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/contacts", tag = "contacts", operation_id = "create_contact",
    request_body = NewContact, responses((status = 201, body = ContactView)))]
async fn create(State(api): State<Api>, access: Access, input: Input<NewContact>) -> Result<Response, Stop> {
    let contact = input.value.check(&api, CreatedBy::Api)?;
    let mut work = input.stamp.begin(&api, &access).await?;
    access.change_contacts(&mut work).await?;
    require_references(&mut work, &contact).await?;
    add(&mut work, &contact).await?;
    work.finish(Answer::created(&ContactView::from(contact))).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// Any address of the contact.
    #[param(value_type = Option<String>)]
    email: Option<Address>,
    #[param(value_type = Option<CreatedByWord>)]
    created_by: Option<CreatedBy>,
    external_id: Option<String>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// List the contacts, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/contacts", tag = "contacts", operation_id = "list_contacts",
    params(Listing), responses((status = 200, body = List<ContactView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<ContactView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let filter =
        ContactFilter { email: query.email, created_by: query.created_by, external_id: query.external_id };
    let rows = access.read(&api).await?.contacts(&page, &filter).await?;
    let key = |row: &Contact| PageKey { at: row.created_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, ContactView::from))
}

/// Show a contact.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/contacts/{id}", tag = "contacts", operation_id = "get_contact",
    responses((status = 200, body = OneContact)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ContactId>,
) -> Result<Json<OneContact>, Problem> {
    let mut session = access.read(&api).await?;
    let contact = session.contact(id).await?;
    OneContact::read(&mut session, contact).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ContactPatch {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Email)]
    email: Patch<Address>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    other_emails: Patch<Vec<Address>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    assigned_user_id: Patch<UserId>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    external_id: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    related_contact_ids: Patch<Vec<ContactId>>,
    /// Replaces the whole object.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Patch<Map<String, Value>>,
}

impl ContactPatch {
    fn apply(self, api: &Api, old: Contact) -> Result<Contact, Problem> {
        let metadata = match self.metadata {
            Patch::Keep => old.metadata,
            Patch::Clear => Value::Object(Map::new()),
            Patch::Set(object) => Value::Object(object),
        };
        let contact = Contact {
            email: self.email.apply_required("email", old.email)?,
            name: self.name.apply(old.name),
            other_emails: self.other_emails.apply_list(old.other_emails),
            assigned_user_id: self.assigned_user_id.apply(old.assigned_user_id),
            external_id: self.external_id.apply(old.external_id),
            related_contact_ids: self.related_contact_ids.apply_list(old.related_contact_ids),
            metadata,
            ..old
        };
        checked(api, contact)
    }
}

/// Change a contact; what is left out stays, null clears.
#[utoipa::path(patch, path = "/v1/workspaces/{ws}/contacts/{id}", tag = "contacts",
    operation_id = "update_contact", request_body = ContactPatch, responses((status = 200, body = ContactView)))]
async fn change(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ContactId>,
    input: Input<ContactPatch>,
) -> Result<Json<ContactView>, Problem> {
    let mut tx = access.begin(&api).await?;
    access.change_contacts(&mut tx).await?;
    let old = tx.contact_to_change(id).await?.ok_or_else(Problem::not_found)?;
    let contact = input.value.apply(&api, old)?;
    require_references(&mut tx, &contact).await?;
    tx.update_contact(&contact, flow::now()).await?;
    tx.commit().await?;
    Ok(Json(contact.into()))
}

/// Delete a contact. Messages stay; they merely concern one contact less.
#[utoipa::path(delete, path = "/v1/workspaces/{ws}/contacts/{id}", tag = "contacts",
    operation_id = "delete_contact", responses((status = 204, description = "It is deleted.")))]
async fn delete(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ContactId>,
) -> Result<StatusCode, Problem> {
    let mut tx = access.begin(&api).await?;
    access.change_contacts(&mut tx).await?;
    tx.delete_contact(id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The CRM's own id in a path.
struct ExternalId(String);

impl<S: Send + Sync> FromRequestParts<S> for ExternalId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        body::path_param(parts, state, "external_id").await.map(Self)
    }
}

/// Show the contact with the CRM's own id.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/contacts/by-external-id/{external_id}", tag = "contacts",
    operation_id = "get_contact_by_external_id", responses((status = 200, body = OneContact)))]
async fn show_by_external_id(
    State(api): State<Api>,
    access: Access,
    ExternalId(id): ExternalId,
) -> Result<Json<OneContact>, Problem> {
    let mut session = access.read(&api).await?;
    let contact = session.contact_by_external_id(&id).await?;
    OneContact::read(&mut session, contact).await
}

/// Add or replace the contact with the CRM's own id. What is left out is cleared. When no contact has the id, the one that has
/// the address as its primary one and no id of the CRM's yet (a captured message made it, say) gets it, and stays what it was.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/contacts/by-external-id/{external_id}", tag = "contacts",
    operation_id = "upsert_contact", request_body = NewContact,
    responses((status = 200, body = ContactView), (status = 201, body = ContactView)))]
async fn put(
    State(api): State<Api>,
    access: Access,
    ExternalId(id): ExternalId,
    input: Input<NewContact>,
) -> Result<Response, Problem> {
    let mut new = input.value;
    if new.external_id.as_ref().is_some_and(|given| *given != id) {
        return Err(Problem::invalid("external_id", "It differs from the one in the path."));
    }
    new.external_id = Some(id);
    let contact = new.check(&api, CreatedBy::Api)?;
    let put = match upsert(&api, &access, contact.clone()).await {
        // Somebody else added it at the same moment: now it is there to be replaced.
        Err(Upsert::Store(store::Error::Conflict { .. })) => upsert(&api, &access, contact).await?,
        put => put?,
    };
    Ok((put.0, Json(ContactView::from(put.1))).into_response())
}

/// Why an upsert did not come about.
enum Upsert {
    Problem(Problem),
    Store(store::Error),
}

impl From<Problem> for Upsert {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<store::Error> for Upsert {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Upsert> for Problem {
    fn from(upsert: Upsert) -> Self {
        match upsert {
            Upsert::Problem(problem) => problem,
            Upsert::Store(error) => error.into(),
        }
    }
}

async fn upsert(api: &Api, access: &Access, contact: Contact) -> Result<(StatusCode, Contact), Upsert> {
    let mut tx = access.begin(api).await?;
    access.change_contacts(&mut tx).await?;
    let old = replaced(&mut tx, &contact).await?;
    require_references(&mut tx, &contact).await?;
    let put = match old {
        Some(old) => {
            let contact = replacing(old, contact);
            tx.update_contact(&contact, flow::now()).await?;
            (StatusCode::OK, contact)
        }
        None => {
            add(&mut tx, &contact).await?;
            (StatusCode::CREATED, contact)
        }
    };
    tx.commit().await?;
    Ok(put)
}

/// The contact that one with an id of the CRM's takes the place of.
pub(super) async fn replaced(tx: &mut Tx, contact: &Contact) -> Result<Option<Contact>, store::Error> {
    let Some(id) = &contact.external_id else { return Ok(None) };
    match tx.contact_to_replace(id).await? {
        Some(old) => Ok(Some(old)),
        None => tx.contact_to_adopt(&contact.email).await,
    }
}

/// The new contact in the place of the old one.
pub(super) fn replacing(old: Contact, new: Contact) -> Contact {
    Contact { id: old.id, created_by: old.created_by, created_at: old.created_at, ..new }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// The messages that concern a contact, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/contacts/{id}/timeline", tag = "contacts",
    operation_id = "get_contact_timeline", params(Paging), responses((status = 200, body = List<MessageView>)))]
async fn timeline(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ContactId>,
    Parameters(query): Parameters<Paging>,
) -> Result<Json<List<MessageView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let mut session = access.read(&api).await?;
    session.contact(id).await?.ok_or_else(Problem::not_found)?;
    let rows = session.timeline(id, &page).await?;
    Reader::new(&api, session).page(rows, query.limit).await
}
