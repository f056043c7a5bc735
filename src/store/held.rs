//! Rows that are read in order to be changed: nobody else changes them before this transaction ends.
//!
//! With one writer that is so anyway; PostgreSQL is asked for a lock, else one of two changes at a time would be lost. Not
//! here: the changes themselves, which stand with their nouns.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, Tx, sql::sql};
use crate::{
    core::{
        account::Account,
        ids::{AccountId, ContactId, Id as _, UserId, WebhookId},
        people::{Contact, User},
        webhook::Webhook,
    },
    mail::Address,
};

impl Tx {
    /// A user who is about to be changed.
    pub async fn user_to_change(&mut self, id: UserId) -> Result<Option<User>, Error> {
        self.hold_row("users", id.uuid()).await?;
        self.user(id).await
    }

    /// A contact that is about to be changed.
    pub async fn contact_to_change(&mut self, id: ContactId) -> Result<Option<Contact>, Error> {
        self.hold_row("contacts", id.uuid()).await?;
        self.contact(id).await
    }

    /// An account that is about to be changed.
    pub async fn account_to_change(&mut self, id: AccountId) -> Result<Option<Account>, Error> {
        self.hold_row("accounts", id.uuid()).await?;
        self.account(id).await
    }

    /// An endpoint that is about to be changed.
    pub async fn webhook_to_change(
        &mut self,
        id: WebhookId,
        now: Timestamp,
    ) -> Result<Option<Webhook>, Error> {
        self.hold_row("webhooks", id.uuid()).await?;
        self.webhook(id, now).await
    }

    /// The contact with the CRM's own id, about to be replaced.
    pub async fn contact_to_replace(&mut self, external_id: &str) -> Result<Option<Contact>, Error> {
        match self.contact_by_external_id(external_id).await? {
            Some(found) => self.contact_to_change(found.id).await,
            None => Ok(None),
        }
    }

    /// The first created contact with this primary address that the CRM has given no id of its own: one that a captured
    /// message made, say, and that the CRM takes over when it hears of it.
    pub async fn contact_to_adopt(&mut self, email: &Address) -> Result<Option<Contact>, Error> {
        let query = sql(format!(
            "select c.id from contacts c where c.workspace = $1 and c.external_id is null and c.id in \
             (select a.contact from contact_addresses a where a.workspace = $1 and a.address = $2 \
             and a.is_primary = 1) order by c.created_at, c.id limit 1{}",
            self.lock()
        ))
        .bind(self.workspace())
        .bind(email.key());
        match self.fetch_optional(query).await? {
            Some(row) => self.contact(row.id("id")?).await,
            None => Ok(None),
        }
    }

    /// Whoever comes second waits here, and reads what the first has written.
    async fn hold_row(&mut self, table: &'static str, id: Uuid) -> Result<(), Error> {
        if self.store().is_shared() {
            let query =
                sql(format!("select id from {table} where workspace = $1 and id = $2{}", self.lock()))
                    .bind(self.workspace())
                    .bind(id);
            self.fetch_optional(query).await?;
        }
        Ok(())
    }

    /// Rows that refer to the one that is changed need not wait.
    fn lock(&self) -> &'static str {
        if self.store().is_shared() { " for no key update" } else { "" }
    }
}
