//! Contacts as they are shown.
//!
//! Not here: finding and changing them (`contacts`).

use axum::Json;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{openapi::CreatedByWord, problem::Problem};
use crate::{
    core::{
        ids::{ContactId, UserId},
        people::{Contact, CreatedBy},
    },
    mail::Address,
    store::Session,
};

#[derive(Serialize, ToSchema)]
#[schema(as = Contact)]
pub(super) struct ContactView {
    #[schema(value_type = String)]
    id: ContactId,
    /// The primary address.
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
    #[schema(value_type = Vec<String>)]
    other_emails: Vec<Address>,
    #[schema(value_type = Option<String>)]
    assigned_user_id: Option<UserId>,
    /// The CRM's own id.
    external_id: Option<String>,
    /// A deal's additional people.
    #[schema(value_type = Vec<String>)]
    related_contact_ids: Vec<ContactId>,
    #[schema(value_type = Object)]
    metadata: Value,
    #[schema(value_type = CreatedByWord)]
    created_by: CreatedBy,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Contact> for ContactView {
    fn from(contact: Contact) -> Self {
        Self {
            id: contact.id,
            email: contact.email,
            name: contact.name,
            other_emails: contact.other_emails,
            assigned_user_id: contact.assigned_user_id,
            external_id: contact.external_id,
            related_contact_ids: contact.related_contact_ids,
            metadata: contact.metadata,
            created_by: contact.created_by,
            created_at: contact.created_at,
        }
    }
}

/// A contact that was asked for by itself.
#[derive(Serialize, ToSchema)]
pub(super) struct OneContact {
    #[serde(flatten)]
    contact: ContactView,
    /// When the account last found mail that did so last, of those through which mail of this contact came.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_synced_at: Option<Timestamp>,
}

impl OneContact {
    /// The contact that was found, with what is known of its mail.
    pub(super) async fn read(session: &mut Session, contact: Option<Contact>) -> Result<Json<Self>, Problem> {
        let contact = contact.ok_or_else(Problem::not_found)?;
        let last_synced_at = session.contact_synced_at(contact.id).await?;
        Ok(Json(Self { contact: contact.into(), last_synced_at }))
    }
}
