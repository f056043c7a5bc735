//! The people the CRM knows, found by any of their addresses or by the CRM's own id.
//!
//! Not here: deciding who becomes a contact (`core::policy`) and which messages a contact has (`store::messages`).

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use jiff::Timestamp;

use super::{
    Error, Page, Session, Tx,
    columns::{changed, json_text, word},
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        ids::{ContactId, Id, UserId},
        people::{Contact, CreatedBy},
        policy::ListedContact,
    },
    mail::Address,
};

const COLUMNS: &str = "id, email, name, assigned_user_id, external_id, created_by, metadata, created_at";

/// Which of a contact's addresses count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressMatch {
    Primary,
    All,
}

/// The contact that answers for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContactMatch {
    pub contact: ContactId,
    pub assigned_user: Option<UserId>,
}

/// Which contacts to list; what is `None` does not count.
#[derive(Debug, Clone, Default)]
pub struct ContactFilter {
    /// Any address of the contact.
    pub email: Option<Address>,
    pub created_by: Option<CreatedBy>,
    pub external_id: Option<String>,
}

impl Tx {
    /// # Errors
    /// `Conflict` when the external id is taken, `Missing` when a related contact is not there.
    pub async fn insert_contact(&mut self, contact: &Contact) -> Result<(), Error> {
        let query = sql("insert into contacts (workspace, id, email, name, assigned_user_id, external_id, \
             created_by, metadata, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(self.workspace())
        .bind(contact.id)
        .bind(contact.email.to_string())
        .bind(contact.name.clone())
        .bind(contact.assigned_user_id)
        .bind(contact.external_id.clone())
        .bind(word(&contact.created_by))
        .bind(json_text(&contact.metadata))
        .bind(contact.created_at);
        self.execute(query).await?;
        self.put_contact_addresses(contact, contact.created_at).await?;
        self.put_contact_relations(contact).await
    }

    /// Replaces all but who created it and when, and notes that it is not as it was made any more. Addresses that stay keep
    /// the time they were added.
    ///
    /// # Errors
    /// `Missing` when there is no such contact or a related one is not there, `Conflict` when the external id is taken.
    pub async fn update_contact(&mut self, contact: &Contact, now: Timestamp) -> Result<(), Error> {
        let query =
            sql("update contacts set email = $3, name = $4, assigned_user_id = $5, external_id = $6, \
             metadata = $7, changed_at = $8 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(contact.id)
            .bind(contact.email.to_string())
            .bind(contact.name.clone())
            .bind(contact.assigned_user_id)
            .bind(contact.external_id.clone())
            .bind(json_text(&contact.metadata))
            .bind(now);
        changed(self.execute(query).await?)?;
        let query = Statement::new("delete from contact_addresses where workspace = ")
            .arg(self.workspace())
            .text(" and contact = ")
            .arg(contact.id)
            .text(" and address not in ")
            .list(&address_keys(contact))
            .query();
        self.execute(query).await?;
        self.put_contact_addresses(contact, now).await?;
        let query = sql("delete from contact_relations where workspace = $1 and contact = $2")
            .bind(self.workspace())
            .bind(contact.id);
        self.execute(query).await?;
        self.put_contact_relations(contact).await
    }

    /// Deletes a contact. Its conversations are filed under nobody from then on, and nobody is related to it.
    ///
    /// # Errors
    /// `Missing` when there is no such contact.
    pub async fn delete_contact(&mut self, id: ContactId) -> Result<(), Error> {
        let query = sql("update conversations set contact = null where workspace = $1 and contact = $2")
            .bind(self.workspace())
            .bind(id);
        self.execute(query).await?;
        // By which ways its mail was trusted to come.
        let query = sql("delete from sender_routes where workspace = $1 and address in \
             (select address from contact_addresses where workspace = $1 and contact = $2) and address not in \
             (select address from user_addresses where workspace = $1)")
        .bind(self.workspace())
        .bind(id);
        self.execute(query).await?;
        let query =
            sql("delete from contacts where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        changed(self.execute(query).await?)
    }

    async fn put_contact_relations(&mut self, contact: &Contact) -> Result<(), Error> {
        let workspace = self.workspace();
        for some in contact.related_contact_ids.chunks(LIST_MAX) {
            let rows = some.iter().map(|id| [workspace.into(), contact.id.into(), (*id).into()]);
            let query = Statement::new("insert into contact_relations (workspace, contact, related) values ")
                .rows(rows)
                .text(" on conflict (workspace, contact, related) do nothing")
                .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    async fn put_contact_addresses(&mut self, contact: &Contact, now: Timestamp) -> Result<(), Error> {
        let workspace = self.workspace();
        let rows = address_keys(contact).into_iter().map(|key| -> [Arg; 5] {
            let primary = key == contact.email.key();
            [workspace.into(), key.into(), contact.id.into(), primary.into(), now.into()]
        });
        let query = Statement::new(
            "insert into contact_addresses (workspace, address, contact, is_primary, added_at) values ",
        )
        .rows(rows)
        .text(" on conflict (workspace, address, contact) do update set is_primary = excluded.is_primary")
        .query();
        self.execute(query).await?;
        Ok(())
    }
}

impl Session {
    /// When the account that last found mail of any contact, among those that brought mail of this one, found it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn contact_synced_at(&mut self, id: ContactId) -> Result<Option<Timestamp>, Error> {
        let query =
            sql("select max(a.last_synced_at) as at from accounts a where a.workspace = $1 and a.id in \
             (select s.account from message_contacts p \
             join sightings s on s.workspace = p.workspace and s.message = p.message \
             where p.workspace = $1 and p.contact = $2 and s.account is not null)")
            .bind(self.workspace())
            .bind(id);
        self.fetch_one(query).await?.get("at")
    }

    pub async fn contact(&mut self, id: ContactId) -> Result<Option<Contact>, Error> {
        let query = sql(format!("select {COLUMNS} from contacts where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_contacts(row.as_slice()).await?.pop())
    }

    pub async fn contact_by_external_id(&mut self, external_id: &str) -> Result<Option<Contact>, Error> {
        let query = sql(format!("select {COLUMNS} from contacts where workspace = $1 and external_id = $2"))
            .bind(self.workspace())
            .bind(external_id);
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_contacts(row.as_slice()).await?.pop())
    }

    /// Newest first.
    pub async fn contacts(&mut self, page: &Page, filter: &ContactFilter) -> Result<Vec<Contact>, Error> {
        let workspace = self.workspace();
        let mut query =
            Statement::new(format!("select {COLUMNS} from contacts where workspace = ")).arg(workspace);
        if let Some(email) = &filter.email {
            query = query
                .text(" and id in (select contact from contact_addresses where workspace = ")
                .arg(workspace)
                .text(" and address = ")
                .arg(email.key())
                .text(")");
        }
        let query = query
            .given(" and created_by = ", filter.created_by.map(|by| word(&by)))
            .given(" and external_id = ", filter.external_id.as_deref())
            .page(page, "created_at", "id");
        let rows = self.fetch_all(query).await?;
        self.complete_contacts(&rows).await
    }

    /// Those of the addresses that are contacts'. Of several contacts with one address, the first created answers.
    pub async fn contacts_among(
        &mut self,
        addresses: &[Address],
        which: AddressMatch,
    ) -> Result<HashMap<Address, ContactMatch>, Error> {
        let mut found = HashMap::new();
        for some in addresses.chunks(LIST_MAX) {
            let keys: Vec<_> = some.iter().map(Address::key).collect();
            let query = Statement::new(
                "select a.address, c.id, c.assigned_user_id from contact_addresses a \
                 join contacts c on c.workspace = a.workspace and c.id = a.contact where a.workspace = ",
            )
            .arg(self.workspace())
            .text(match which {
                AddressMatch::Primary => " and a.is_primary = 1 and a.address in ",
                AddressMatch::All => " and a.address in ",
            })
            .list(&keys)
            .text(" order by c.created_at, c.id")
            .query();
            for row in self.fetch_all(query).await? {
                let contact =
                    ContactMatch { contact: row.id("id")?, assigned_user: row.opt_id("assigned_user_id")? };
                found.entry(row.address("address")?).or_insert(contact);
            }
        }
        Ok(found)
    }

    /// Those of the addresses that are users', and those that are contacts' with the first created first, by one statement:
    /// every message asks.
    pub async fn people_among(
        &mut self,
        addresses: &[Address],
    ) -> Result<(HashMap<Address, UserId>, Vec<ListedContact>), Error> {
        let (mut users, mut contacts) = (HashMap::new(), Vec::new());
        for some in addresses.chunks(LIST_MAX) {
            let keys: Vec<_> = some.iter().map(Address::key).collect();
            let query = Statement::new(
                "select address, user_id, null as contact, null as assigned_user_id, 0 as is_primary, 0 as is_user, \
                 0 as created_at, 0 as added_at from user_addresses where workspace = ",
            )
            .arg(self.workspace())
            .text(" and address in ")
            .list(&keys)
            .text(
                " union all select a.address, null, c.id, c.assigned_user_id, a.is_primary, \
                 case when exists (select 1 from contact_addresses o join user_addresses u \
                 on u.workspace = o.workspace and u.address = o.address \
                 where o.workspace = c.workspace and o.contact = c.id) then 1 else 0 end, c.created_at, a.added_at \
                 from contact_addresses a join contacts c on c.workspace = a.workspace and c.id = a.contact \
                 where a.workspace = ",
            )
            .arg(self.workspace())
            .text(" and a.address in ")
            .list(&keys)
            .text(" order by created_at, contact")
            .query();
            for row in self.fetch_all(query).await? {
                let address = row.address("address")?;
                if let Some(user) = row.opt_id("user_id")? {
                    users.insert(address, user);
                } else {
                    let (made_at, added_at) = (row.get::<Timestamp>("created_at")?, row.get("added_at")?);
                    contacts.push(ListedContact {
                        address,
                        contact: row.id("contact")?,
                        assigned_user: row.opt_id("assigned_user_id")?,
                        is_primary: row.get("is_primary")?,
                        is_user: row.get("is_user")?,
                        since: (added_at > made_at).then_some(added_at),
                    });
                }
            }
        }
        Ok((users, contacts))
    }

    /// Those of the ids that are contacts of this workspace.
    pub async fn contacts_present(&mut self, ids: &[ContactId]) -> Result<HashSet<ContactId>, Error> {
        self.present("contacts", ids).await
    }

    /// Those of the ids that this table has in this workspace.
    pub(super) async fn present<I: Id + Eq + Hash>(
        &mut self,
        table: &'static str,
        ids: &[I],
    ) -> Result<HashSet<I>, Error> {
        let mut present = HashSet::new();
        for some in ids.chunks(LIST_MAX) {
            let query = Statement::new(format!("select id from {table} where workspace = "))
                .arg(self.workspace())
                .text(" and id in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                present.insert(row.id("id")?);
            }
        }
        Ok(present)
    }

    /// Adds the other addresses and the related contacts to rows of contacts: two statements, however many there are.
    async fn complete_contacts(&mut self, rows: &[Row]) -> Result<Vec<Contact>, Error> {
        let mut contacts: Vec<Contact> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if contacts.is_empty() {
            return Ok(contacts);
        }
        let ids: Vec<_> = contacts.iter().map(|contact| contact.id).collect();
        let query = Statement::new("select contact, address from contact_addresses where workspace = ")
            .arg(self.workspace())
            .text(" and is_primary = 0 and contact in ")
            .list(&ids)
            .text(" order by added_at, address")
            .query();
        let mut others: HashMap<ContactId, Vec<Address>> = HashMap::new();
        for row in self.fetch_all(query).await? {
            others.entry(row.id("contact")?).or_default().push(row.address("address")?);
        }
        let mut related = self.relations_of(&ids).await?;
        for contact in &mut contacts {
            contact.other_emails = others.remove(&contact.id).unwrap_or_default();
            contact.related_contact_ids = related.remove(&contact.id).unwrap_or_default();
        }
        Ok(contacts)
    }

    async fn relations_of(&mut self, ids: &[ContactId]) -> Result<HashMap<ContactId, Vec<ContactId>>, Error> {
        let query = Statement::new("select contact, related from contact_relations where workspace = ")
            .arg(self.workspace())
            .text(" and contact in ")
            .list(ids)
            .text(" order by related")
            .query();
        let mut found: HashMap<ContactId, Vec<ContactId>> = HashMap::new();
        for row in self.fetch_all(query).await? {
            found.entry(row.id("contact")?).or_default().push(row.id("related")?);
        }
        Ok(found)
    }
}

/// Every address of a contact, each once.
fn address_keys(contact: &Contact) -> Vec<&str> {
    let mut keys: Vec<_> =
        [&contact.email].into_iter().chain(&contact.other_emails).map(Address::key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn read(row: &Row) -> Result<Contact, Error> {
    Ok(Contact {
        id: row.id("id")?,
        email: row.address("email")?,
        name: row.get("name")?,
        other_emails: Vec::new(),
        assigned_user_id: row.opt_id("assigned_user_id")?,
        external_id: row.get("external_id")?,
        related_contact_ids: Vec::new(),
        metadata: row.json("metadata")?,
        created_by: row.word("created_by")?,
        created_at: row.get("created_at")?,
    })
}
