//! Who is who in a workspace: the workspace itself, its users, its contacts, and the keys programs use.
//!
//! Not here: accounts at providers (`core::account`) and who may read what (the API's scopes).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ApiKeyId, ContactId, UserId, WorkspaceId};
use crate::mail::Address;

/// The tenant. Nothing ever crosses two workspaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub slug: String,
    pub name: String,
    /// IANA name; the day of "per day" limits begins at midnight there.
    pub timezone: String,
    pub preset: String,
    pub policy_version: i64,
    pub created_at: Timestamp,
}

/// Longest slug, in characters: it is a login name for SMTP too.
pub const SLUG_CHARS_MAX: usize = 63;

/// Whether a text can be a workspace's slug: lower-case letters, digits and inner hyphens.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    (1..=SLUG_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member,
    Admin,
}

/// A person who works in the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: Address,
    pub name: Option<String>,
    /// Other addresses of the same person, without `email`.
    pub aliases: Vec<Address>,
    pub role: Role,
    /// Where a copy of the user's mail is to be sent so that it is filed.
    pub capture_address: Option<Address>,
    pub created_at: Timestamp,
}

/// What brought a contact into the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreatedBy {
    Api,
    Import,
    Capture,
    Sent,
    Exchange,
}

/// A person the CRM knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Contact {
    pub id: ContactId,
    /// The primary address.
    pub email: Address,
    pub name: Option<String>,
    pub other_emails: Vec<Address>,
    pub assigned_user_id: Option<UserId>,
    /// The CRM's own id for this contact.
    pub external_id: Option<String>,
    pub related_contact_ids: Vec<ContactId>,
    pub metadata: serde_json::Value,
    pub created_by: CreatedBy,
    pub created_at: Timestamp,
}

/// What a key may do. `Admin` includes all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Read,
    Write,
    Send,
    Smtp,
    Admin,
}

/// An API key as it is listed: the secret itself is shown once and kept only as a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub workspace: WorkspaceId,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// A key bound to a user acts as that user only.
    pub user_id: Option<UserId>,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| *held == scope || *held == Scope::Admin)
    }
}
