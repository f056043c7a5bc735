//! What filing a message needs beside the plain verbs: the filing lock, recognising by content, repeated transactions.
//!
//! Not here: deciding whether two messages are one (`flow::ingest`).

use jiff::Timestamp;

use super::{Error, InboundState, Session, Tx, sql::sql};
use crate::core::{
    account::MailboxUid,
    ids::{ConversationId, MessageKey},
    inbound::Door,
    message::{Parties, Sighting, SightingRow},
    submission::SentCopy,
};

/// A stored message with some content, whatever its Message-ID.
#[derive(Debug, Clone)]
pub struct SameContent {
    pub message: MessageKey,
    pub conversation: ConversationId,
    pub parties: Parties,
    /// It came with a Message-ID of its own.
    pub has_id: bool,
    /// The CRM handed it in for sending.
    pub submitted: bool,
}

/// What became of a message taken in, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundHead {
    pub state: InboundState,
    pub message: Option<MessageKey>,
}

impl Tx {
    /// Makes filings of one workspace follow one another until this transaction ends: each reads threads and contacts and
    /// then changes them. Where there is one writer anyway this costs nothing.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn lock_filing(&mut self) -> Result<(), Error> {
        if self.store().is_shared() {
            let query =
                sql("select id from workspaces where id = $1 for no key update").bind(self.workspace());
            self.fetch_one(query).await?;
        }
        Ok(())
    }

    /// Notes that a message was seen in a mailbox, when it is one whose Sent copy was being waited for.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn note_sent_copy(&mut self, message: MessageKey, at: &MailboxUid) -> Result<(), Error> {
        let query = sql("update submissions set sent_copy = $4 where workspace = $1 and message = $2 and account = $3 \
             and sent_copy in ('wanted', 'queued') and exists (select 1 from mailboxes b where b.workspace = $1 \
             and b.account = $3 and b.name = $5 and b.role in ('sent', 'all'))")
        .bind(self.workspace())
        .bind(message)
        .bind(at.account)
        .bind(super::columns::word(&SentCopy::Filed))
        .bind(at.mailbox.as_slice());
        self.execute(query).await?;
        Ok(())
    }

    /// Adds the sighting of a transaction that was repeated: the same door and address, at another time.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn repeat_sighting(
        &mut self,
        message: MessageKey,
        (first, repeated): (MessageKey, MessageKey),
        at: Timestamp,
    ) -> Result<(), Error> {
        let known = self.sightings(&[message]).await?;
        for row in known.get(&message).into_iter().flatten() {
            let sighting = match row.sighting.clone() {
                Sighting::Capture { inbound, recipient, field } if inbound == first => {
                    Sighting::Capture { inbound: repeated, recipient, field }
                }
                Sighting::Submission { inbound } if inbound == first => {
                    Sighting::Submission { inbound: repeated }
                }
                Sighting::Reply { inbound, recipient } if inbound == first => {
                    Sighting::Reply { inbound: repeated, recipient }
                }
                _ => continue,
            };
            self.add_sighting(message, &SightingRow { sighting, at }).await?;
        }
        Ok(())
    }
}

impl Session {
    /// Messages with this content (the first half of an identity): all, under whatever Message-ID, or those alone that have
    /// none. A mailing has one text for thousands, all of which would be read for each of them.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn messages_by_content(
        &mut self,
        content: &[u8; 16],
        without_id: bool,
    ) -> Result<Vec<SameContent>, Error> {
        let and = if without_id { "and m.rfc822_id is null " } else { "" };
        let bound = |fill: u8| {
            let mut bound = [fill; 32];
            bound.iter_mut().zip(content).for_each(|(byte, given)| *byte = *given);
            bound
        };
        let query = sql(format!(
            "select m.id, m.conversation, m.parties, m.rfc822_id, s.message as submitted from messages m \
             left join submissions s on s.workspace = m.workspace and s.message = m.id \
             where m.workspace = $1 and m.identity >= $2 and m.identity <= $3 {and}order by m.id limit 100"
        ))
        .bind(self.workspace())
        .bind(bound(0))
        .bind(bound(255));
        let read = |row: &super::Row| {
            Ok(SameContent {
                message: row.id("id")?,
                conversation: row.id("conversation")?,
                parties: row.json("parties")?,
                has_id: row.get::<Option<String>>("rfc822_id")?.is_some(),
                submitted: row.opt_id::<MessageKey>("submitted")?.is_some(),
            })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// What became of a message taken in.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn inbound_head(&mut self, id: MessageKey) -> Result<Option<InboundHead>, Error> {
        let query = sql("select state, message from inbound where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        Ok(Some(InboundHead {
            state: InboundState::parse(&row.get::<String>("state")?)?,
            message: row.opt_id("message")?,
        }))
    }

    /// By which door a message was taken in; `None` when there is none, or that cannot be read any more.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn inbound_door(&mut self, id: MessageKey) -> Result<Option<Door>, Error> {
        let query =
            sql("select door from inbound where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        Ok(self.fetch_optional(query).await?.and_then(|row| row.json("door").ok()))
    }
}
