//! Pages of what was done, for an audit to judge again: whom mail went to and by whose word, how senders were weighed, which
//! answers are kept.
//!
//! Not here: judging them (`app::audit`). What cannot be read is told as such and stops nothing.

use super::AUDIT_ROWS_MAX;
use crate::{
    core::{
        evidence::{Context, Witness},
        ids::MessageKey,
        inbound::{Door, Principal},
    },
    mail::Address,
    store::{
        AnswerName, Error, RequestKey, Row, Session,
        sql::sql,
        statement::{LIST_MAX, Statement},
    },
};

/// Somebody whom a message is sent to because it is for him.
#[derive(Debug, Clone)]
pub struct SentTo {
    pub message: MessageKey,
    /// As it is stored.
    pub recipient: String,
    /// By whose word; `None` when that cannot be read.
    pub principal: Option<Principal>,
}

impl SentTo {
    /// What comes next in the order of [`Session::sent_to`] comes after this.
    #[must_use]
    pub fn place(&self) -> (MessageKey, String) {
        (self.message, self.recipient.clone())
    }
}

/// How a sender was weighed: on what, and what came of it.
#[derive(Debug, Clone)]
pub struct WeighedSender {
    pub inbound: MessageKey,
    /// `None` when what is stored cannot be read.
    pub witness: Option<Witness>,
    /// `None` until DNS has answered; the inner one is `None` when what is stored cannot be read.
    pub context: Option<Option<Context>>,
    pub level: Option<String>,
    pub rule: Option<String>,
    /// A person let it in. Before that nothing may have been found out.
    pub is_released: bool,
}

/// What came in by a door, and what it became part of.
#[derive(Debug, Clone)]
pub struct CameIn {
    pub inbound: MessageKey,
    /// `None` when it cannot be read.
    pub door: Option<Door>,
    pub message: Option<MessageKey>,
}

/// An answer that is kept for whoever asks again.
#[derive(Debug, Clone)]
pub struct KeptRow {
    pub name: AnswerName,
    pub status: i64,
    pub body: String,
}

impl Session {
    /// Those whom messages are sent to as the ones they are for, in the order of messages and addresses.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn sent_to(&mut self, after: Option<&(MessageKey, String)>) -> Result<Vec<SentTo>, Error> {
        let (message, address) =
            after.map_or((None, None), |(message, address)| (Some(*message), Some(address.as_str())));
        let query = Statement::new(
            "select r.message, r.address, s.principal from submission_recipients r \
             join submissions s on s.workspace = r.workspace and s.message = r.message \
             where r.role = 'named' and r.workspace = ",
        )
        .arg(self.workspace())
        .given(" and (r.message, r.address) > (", message)
        .given(", ", address)
        .text(if after.is_some() { ")" } else { "" })
        .text(&format!(" order by r.message, r.address limit {AUDIT_ROWS_MAX}"))
        .query();
        let read = |row: &Row| {
            Ok(SentTo {
                message: row.id("message")?,
                recipient: row.get("address")?,
                principal: row.json("principal").ok(),
            })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Whether a reply address stands for this person: the participant whose answers it takes, or whom they are for.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn stands_behind_reply_address(&mut self, address: &Address) -> Result<bool, Error> {
        let query = sql("select 1 as one from routes where workspace = $1 and kind = 'reply' \
             and (participant = $2 or counterpart = $2) limit 1")
        .bind(self.workspace())
        .bind(address);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// Whether a user of the workspace has written by this address.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn was_a_users(&mut self, address: &Address) -> Result<bool, Error> {
        let query = sql("select 1 as one from messages where workspace = $1 and author_role = 'user' \
             and author_email = $2 limit 1")
        .bind(self.workspace())
        .bind(address);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// Whether the CRM has handed this message in.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn was_handed_in(&mut self, message: MessageKey) -> Result<bool, Error> {
        let query = sql("select 1 as one from sightings where workspace = $1 and message = $2 \
             and via in ('submission', 'api') limit 1")
        .bind(self.workspace())
        .bind(message);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// How the senders of captured mail were weighed, in the order of ids.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn weighed_senders(&mut self, after: Option<MessageKey>) -> Result<Vec<WeighedSender>, Error> {
        let query =
            Statement::new("select c.inbound, c.facts, c.context, c.level, c.rule, q.state from sender_checks c \
                 left join quarantine q on q.workspace = c.workspace and q.id = c.inbound where c.workspace = ")
                .arg(self.workspace())
                .given(" and c.inbound > ", after)
                .text(&format!(" order by c.inbound limit {AUDIT_ROWS_MAX}"))
                .query();
        let read = |row: &Row| {
            let is_weighed = row.get::<Option<String>>("context")?.is_some();
            Ok(WeighedSender {
                inbound: row.id("inbound")?,
                witness: row.json("facts").ok(),
                context: is_weighed.then(|| row.json("context").ok()),
                level: row.get("level")?,
                rule: row.get("rule")?,
                is_released: row.get::<Option<String>>("state")?.as_deref() == Some("released"),
            })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// What was taken in, in the order of ids.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn doors(&mut self, after: Option<MessageKey>) -> Result<Vec<CameIn>, Error> {
        let query = Statement::new("select id, door, message from inbound where workspace = ")
            .arg(self.workspace())
            .given(" and id > ", after)
            .text(&format!(" order by id limit {AUDIT_ROWS_MAX}"))
            .query();
        let read = |row: &Row| {
            Ok(CameIn {
                inbound: row.id("id")?,
                door: row.json("door").ok(),
                message: row.opt_id("message")?,
            })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// The answers that are kept, by name.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn kept_answers(&mut self, after: Option<&AnswerName>) -> Result<Vec<KeptRow>, Error> {
        let (route, key) = after.map_or(("", ""), |after| (after.route.as_str(), after.key.as_str()));
        let query = sql(format!(
            "select route, key, status, body from idempotency_keys where workspace = $1 \
             and (route, key) > ($2, $3) order by route, key limit {AUDIT_ROWS_MAX}"
        ))
        .bind(self.workspace())
        .bind(route)
        .bind(key);
        let read = |row: &Row| {
            let name = AnswerName { route: row.get("route")?, key: row.get("key")? };
            Ok(KeptRow { name, status: row.get("status")?, body: row.get("body")? })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Whether a kept answer opens in its own place; one that is not sealed does.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn answer_opens(&mut self, kept: &KeptRow) -> Result<bool, Error> {
        let request = RequestKey { route: &kept.name.route, key: &kept.name.key };
        match self.reveal_answer(request, kept.body.clone()).await {
            Ok(_) => Ok(true),
            Err(Error::Corrupt(_) | Error::Missing) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Those of these messages that are stored.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn messages_present(&mut self, messages: &[MessageKey]) -> Result<Vec<MessageKey>, Error> {
        let mut present = Vec::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new("select id from messages where workspace = ")
                .arg(self.workspace())
                .text(" and id in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                present.push(row.id("id")?);
            }
        }
        Ok(present)
    }
}
