//! Messages, each stored once however often it is seen, and the contacts they concern.
//!
//! Not here: the raw bytes (`store::blobs`), where a message was seen (`store::sightings`), and which conversation it
//! belongs to (`core::threading`).

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    Error, Page, Session, Tx,
    columns::{changed, json_text, stored_count, word},
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        ids::{ContactId, ConversationId, MessageKey},
        message::{Author, ContactRole, Parties, StoredMessage},
    },
    mail::MessageId,
};

const COLUMNS: &str = "m.id, m.identity, m.rfc822_id, m.conversation, m.direction, m.kind, m.author_role, \
     m.author_id, m.author_email, m.author_name, m.subject, m.parties, m.in_reply_to, m.attachments, m.defects, \
     m.forwarded, m.sent_at, m.received_at, m.size, m.blob";

/// A stored message that is known by a Message-ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownId {
    pub id: MessageId,
    pub message: MessageKey,
    pub conversation: ConversationId,
    /// Tells a copy from another message that reuses the id.
    pub identity: [u8; 32],
}

impl Tx {
    /// Stores a message with its own Message-ID. Returns the conversation it lies in, which is another than asked for when
    /// that one has been merged meanwhile; `None` when this message is stored already, and nothing was done.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation.
    pub async fn insert_message(&mut self, message: &StoredMessage) -> Result<Option<ConversationId>, Error> {
        // With one writer nothing is merged away meanwhile: reading the redirect in the insert itself is enough.
        let conversation = match self.store().is_shared() {
            true => self.hold_conversation(message.conversation).await?,
            false => message.conversation,
        };
        let (role, author) = author(&message.author);
        let party = message.author_party.as_ref();
        let query = sql("insert into messages (workspace, id, identity, rfc822_id, conversation, direction, kind, \
             author_role, author_id, author_email, author_name, subject, parties, in_reply_to, attachments, \
             defects, sent_at, received_at, size, blob, forwarded) select $1, $2, $3, $4, \
             coalesce(c.merged_into, c.id), $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
             $21 from conversations c \
             where c.workspace = $1 and c.id = $5 on conflict (workspace, identity) do nothing \
             returning conversation")
        .bind(self.workspace())
        .bind(message.id)
        .bind(message.identity)
        .bind(message.rfc822_id.as_ref().map(MessageId::as_str))
        .bind(conversation)
        .bind(word(&message.direction))
        .bind(word(&message.kind))
        .bind(role)
        .bind(author)
        .bind(party.map(|party| party.address.to_string()))
        .bind(party.and_then(|party| party.name.clone()))
        .bind(message.subject.clone())
        .bind(json_text(&message.parties))
        .bind(message.in_reply_to.as_ref().map(MessageId::as_str))
        .bind(json_text(&message.attachments))
        .bind(json_text(&message.defects))
        .bind(message.sent_at)
        .bind(message.received_at)
        .bind(stored_count(message.size))
        .bind(message.blob)
        .bind(message.forwarded.as_ref().map(json_text));
        let Some(row) = self.fetch_optional(query).await? else {
            // Nothing to file it in, or it is there.
            self.root(conversation).await?;
            return Ok(None);
        };
        let conversation = row.id("conversation")?;
        if let Some(id) = &message.rfc822_id {
            self.add_message_id(message.id, id).await?;
        }
        Ok(Some(conversation))
    }

    /// Makes a message known by one more Message-ID: the one its provider put in the place of ours.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn add_message_id(&mut self, message: MessageKey, id: &MessageId) -> Result<(), Error> {
        let query = sql("insert into message_ids (workspace, rfc822_id, message) values ($1, $2, $3) \
             on conflict (workspace, rfc822_id, message) do nothing")
        .bind(self.workspace())
        .bind(id.as_str())
        .bind(message);
        self.execute(query).await?;
        Ok(())
    }

    /// Changes who is on a message: people of whom only a later envelope tells.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn set_parties(&mut self, message: MessageKey, parties: &Parties) -> Result<(), Error> {
        let query = sql("update messages set parties = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(message)
            .bind(json_text(parties));
        changed(self.execute(query).await?)
    }

    /// Puts a message into the timelines of contacts. A contact that has it already keeps the role it has.
    ///
    /// # Errors
    /// `Missing` when there is no such message or contact.
    pub async fn put_message_contacts(
        &mut self,
        message: MessageKey,
        sent_at: Timestamp,
        contacts: &[(ContactId, ContactRole)],
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        for some in contacts.chunks(LIST_MAX) {
            let rows = some.iter().map(|(contact, role)| -> [Arg; 5] {
                [workspace.into(), (*contact).into(), message.into(), word(role).into(), sent_at.into()]
            });
            let query = Statement::new(
                "insert into message_contacts (workspace, contact, message, role, sent_at) values ",
            )
            .rows(rows)
            .text(" on conflict (workspace, contact, message) do nothing")
            .query();
            self.execute(query).await?;
        }
        Ok(())
    }
}

impl Session {
    pub async fn message(&mut self, id: MessageKey) -> Result<Option<StoredMessage>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from messages m where m.workspace = "))
            .arg(self.workspace())
            .text(" and m.id = ")
            .arg(id)
            .seen(self.viewer)
            .query();
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// Every message known by one of these ids. Several may share one: ids are reused.
    pub async fn messages_by_rfc822_id(&mut self, ids: &[MessageId]) -> Result<Vec<KnownId>, Error> {
        let mut found = Vec::new();
        for some in ids.chunks(LIST_MAX) {
            let texts: Vec<_> = some.iter().map(MessageId::as_str).collect();
            let query = Statement::new(
                "select i.rfc822_id, i.message, m.conversation, m.identity from message_ids i \
                 join messages m on m.workspace = i.workspace and m.id = i.message where i.workspace = ",
            )
            .arg(self.workspace())
            .text(" and i.rfc822_id in ")
            .list(&texts)
            .text(" order by i.rfc822_id, i.message")
            .query();
            for row in self.fetch_all(query).await? {
                let id = row.opt_message_id("rfc822_id")?.ok_or(Error::Missing)?;
                let (message, conversation) = (row.id("message")?, row.id("conversation")?);
                found.push(KnownId { id, message, conversation, identity: row.get("identity")? });
            }
        }
        Ok(found)
    }

    /// Every id a message is known by.
    pub async fn ids_of_message(&mut self, message: MessageKey) -> Result<Vec<MessageId>, Error> {
        let query = sql("select i.rfc822_id from message_ids i where i.workspace = $1 and i.message = $2 \
             order by i.rfc822_id")
        .bind(self.workspace())
        .bind(message);
        let rows = self.fetch_all(query).await?;
        rows.iter().filter_map(|row| row.opt_message_id("rfc822_id").transpose()).collect()
    }

    /// Every id that one of these messages is known by.
    pub async fn ids_of_messages(&mut self, messages: &[MessageKey]) -> Result<Vec<MessageId>, Error> {
        let mut found = Vec::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new("select rfc822_id from message_ids where workspace = ")
                .arg(self.workspace())
                .text(" and message in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                found.extend(row.opt_message_id("rfc822_id")?);
            }
        }
        Ok(found)
    }

    /// The messages of a conversation, newest first. A merged conversation answers for the one it was merged into.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation, or all of it is hidden.
    pub async fn conversation_messages(
        &mut self,
        conversation: ConversationId,
        page: &Page,
    ) -> Result<Vec<StoredMessage>, Error> {
        if self.hides() {
            self.conversation(conversation).await?.ok_or(Error::Missing)?;
        }
        let root = self.root(conversation).await?;
        let query = Statement::new(format!("select {COLUMNS} from messages m where m.workspace = "))
            .arg(self.workspace())
            .text(" and m.conversation = ")
            .arg(root)
            .seen(self.viewer)
            .page(page, "m.sent_at", "m.id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// The messages that concern a contact, newest first.
    pub async fn timeline(&mut self, contact: ContactId, page: &Page) -> Result<Vec<StoredMessage>, Error> {
        let query = Statement::new(format!(
            "select {COLUMNS} from message_contacts c \
             join messages m on m.workspace = c.workspace and m.id = c.message where c.workspace = "
        ))
        .arg(self.workspace())
        .text(" and c.contact = ")
        .arg(contact)
        .seen(self.viewer)
        .page(page, "c.sent_at", "c.message");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// The contacts of each message, with their parts in it.
    pub async fn message_contacts(
        &mut self,
        messages: &[MessageKey],
    ) -> Result<HashMap<MessageKey, Vec<(ContactId, ContactRole)>>, Error> {
        let mut found: HashMap<MessageKey, Vec<(ContactId, ContactRole)>> = HashMap::new();
        for some in messages.chunks(LIST_MAX) {
            let query =
                Statement::new("select message, contact, role from message_contacts where workspace = ")
                    .arg(self.workspace())
                    .text(" and message in ")
                    .list(some)
                    .text(" order by contact")
                    .query();
            for row in self.fetch_all(query).await? {
                found.entry(row.id("message")?).or_default().push((row.id("contact")?, row.word("role")?));
            }
        }
        Ok(found)
    }
}

fn author(author: &Author) -> (&'static str, Option<uuid::Uuid>) {
    use crate::core::ids::Id as _;
    match author {
        Author::User(user) => ("user", Some(user.uuid())),
        Author::Contact(contact) => ("contact", Some(contact.uuid())),
        Author::Other => ("other", None),
    }
}

fn read_author(row: &Row) -> Result<Author, Error> {
    let gap = || Error::Corrupt("messages: an author without id".into());
    match row.get::<String>("author_role")?.as_str() {
        "user" => row.opt_id("author_id")?.map(Author::User).ok_or_else(gap),
        "contact" => row.opt_id("author_id")?.map(Author::Contact).ok_or_else(gap),
        _ => Ok(Author::Other),
    }
}

fn read(row: &Row) -> Result<StoredMessage, Error> {
    Ok(StoredMessage {
        id: row.id("id")?,
        identity: row.get("identity")?,
        rfc822_id: row.opt_message_id("rfc822_id")?,
        conversation: row.id("conversation")?,
        direction: row.word("direction")?,
        kind: row.word("kind")?,
        author: read_author(row)?,
        author_party: row.opt_party("author_email", "author_name")?,
        subject: row.get("subject")?,
        parties: row.json("parties")?,
        in_reply_to: row.opt_message_id("in_reply_to")?,
        attachments: row.json("attachments")?,
        defects: row.json("defects")?,
        forwarded: row.opt_json("forwarded")?,
        sent_at: row.get("sent_at")?,
        received_at: row.get("received_at")?,
        size: row.get("size")?,
        blob: row.get("blob")?,
    })
}
