//! Conversations repaired by hand: what was done and what undoing it takes, and which conversations stay apart since then.
//!
//! Not here: carrying a repair out (`flow::repair`), and merging as threading does it (`store::conversations`).

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Error, Merged, Session, Tx,
    columns::{changed, json_text},
    sql::{Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::ids::{ConversationId, Id as _, MessageKey, RepairId},
    mail::MessageId,
};

/// What was done, with what undoing it takes. The serialised form is stored: add variants and optional fields, rename nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "repair")]
pub enum Repair {
    Merge {
        merged: Merged,
        /// The conversation that stands had no contact and took the absorbed one's.
        contact_taken: bool,
        /// It was shown as related to the absorbed one.
        relation_ended: bool,
    },
    Split {
        from: ConversationId,
        to: ConversationId,
    },
}

impl Repair {
    /// The conversation that went on, and the one that ended or began.
    fn conversations(&self) -> (ConversationId, ConversationId) {
        match self {
            Self::Merge { merged, .. } => (merged.keep, merged.absorbed),
            Self::Split { from, to } => (*from, *to),
        }
    }
}

impl Tx {
    pub async fn insert_repair(
        &mut self,
        id: RepairId,
        repair: &Repair,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (conversation, other) = repair.conversations();
        let query = sql("insert into conversation_repairs (workspace, id, conversation, other, body, at) \
             values ($1, $2, $3, $4, $5, $6)")
        .bind(self.workspace())
        .bind(id)
        .bind(conversation)
        .bind(other)
        .bind(json_text(repair))
        .bind(now);
        self.execute(query).await?;
        Ok(())
    }

    /// Marks a repair as undone. False when it was already: of two who undo it at the same time one does.
    pub async fn end_repair(&mut self, id: RepairId, now: Timestamp) -> Result<bool, Error> {
        let query = sql("update conversation_repairs set undone_at = $3 \
             where workspace = $1 and id = $2 and undone_at is null")
        .bind(self.workspace())
        .bind(id)
        .bind(now);
        Ok(self.execute(query).await? > 0)
    }

    /// Keeps two conversations apart, whatever mail connects them from now on, and with them all that are merged into either.
    pub async fn part_conversations(
        &mut self,
        one: ConversationId,
        other: ConversationId,
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        // Both ways, so that either side is found by the index.
        let pairs = [(one, other), (other, one)];
        let query =
            Statement::new("insert into conversation_partings (workspace, conversation, other) values ")
                .rows(pairs.map(|(one, other)| [workspace.into(), one.into(), other.into()]))
                .text(" on conflict (workspace, conversation, other) do nothing")
                .query();
        self.execute(query).await?;
        Ok(())
    }

    /// Gives threading keys of one conversation, those of all that are merged into it included, to another. Keys that it does
    /// not have stay where they are.
    pub async fn carry_thread_keys(
        &mut self,
        keys: &[[u8; 16]],
        from: ConversationId,
        to: ConversationId,
    ) -> Result<(), Error> {
        let (workspace, keys) = (self.workspace(), self.kept_keys(keys).await?);
        for some in keys.chunks(LIST_MAX) {
            let query = Statement::new("update thread_keys set conversation = ")
                .arg(to)
                .text(" where workspace = ")
                .arg(workspace)
                .text(" and key in ")
                .list(some)
                .text(" and conversation in (select id from conversations where workspace = ")
                .arg(workspace)
                .text(" and coalesce(merged_into, id) = ")
                .arg(from)
                .text(")")
                .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Undoes what a merge did to the heading of the conversation that stands.
    pub async fn restore_heading(
        &mut self,
        merged: &Merged,
        (contact_taken, relation_ended): (bool, bool),
    ) -> Result<(), Error> {
        let query = sql("update conversations set \
             contact = case when $4 = 1 and contact = (select a.contact from conversations a \
             where a.workspace = $1 and a.id = $3) then null else contact end, \
             related_to = case when $5 = 1 and related_to is null then $3 else related_to end \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(merged.keep)
        .bind(merged.absorbed)
        .bind(contact_taken)
        .bind(relation_ended);
        changed(self.execute(query).await?)
    }
}

impl Session {
    /// A repair, and whether it has been undone.
    pub async fn repair(&mut self, id: RepairId) -> Result<Option<(Repair, bool)>, Error> {
        let query = sql("select body, undone_at from conversation_repairs where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        let read = |row: Row| Ok((row.json("body")?, row.get::<Option<Timestamp>>("undone_at")?.is_some()));
        self.fetch_optional(query).await?.map(read).transpose()
    }

    /// Every conversation that stands and was repaired by hand, or has one merged into it that was.
    pub async fn conversations_repaired(&mut self) -> Result<HashSet<ConversationId>, Error> {
        let query = sql("select distinct coalesce(c.merged_into, c.id) as root from conversation_repairs r \
             join conversations c on c.workspace = r.workspace and c.id in (r.conversation, r.other) \
             where r.workspace = $1")
        .bind(self.workspace());
        self.fetch_all(query).await?.iter().map(|row| row.id("root")).collect()
    }

    /// Which of these conversations, all of which stand, are kept apart: pairs, each in both orders.
    pub async fn partings_among(
        &mut self,
        roots: &[ConversationId],
    ) -> Result<Vec<(ConversationId, ConversationId)>, Error> {
        let mut pairs = Vec::new();
        for root in roots {
            let others = self.parted_from(*root).await?;
            pairs
                .extend(others.into_iter().filter(|other| roots.contains(other)).map(|other| (*root, other)));
        }
        Ok(pairs)
    }

    /// The conversations that stand and are kept apart from this one, which stands too.
    pub async fn parted_from(&mut self, root: ConversationId) -> Result<Vec<ConversationId>, Error> {
        let query =
            sql("select distinct coalesce(o.merged_into, o.id) as other from conversation_partings p \
             join conversations o on o.workspace = p.workspace and o.id = p.other \
             where p.workspace = $1 and p.conversation in (select id from conversations \
             where workspace = $1 and (id = $2 or merged_into = $2)) and coalesce(o.merged_into, o.id) <> $2")
            .bind(self.workspace())
            .bind(root);
        self.fetch_all(query).await?.iter().map(|row| row.id("other")).collect()
    }

    /// Where the index leads with each of these keys, redirects followed; keys it does not have are left out.
    pub async fn roots_of_keys(
        &mut self,
        keys: &[[u8; 16]],
    ) -> Result<HashMap<[u8; 16], ConversationId>, Error> {
        let (keys, mut roots) = (self.index_keys(keys).await?, HashMap::new());
        for some in keys.chunks(LIST_MAX) {
            let kept: Vec<_> = some.iter().map(|key| key.kept).collect();
            let query = Statement::new(
                "select k.key, coalesce(c.merged_into, c.id) as root from thread_keys k \
                 join conversations c on c.workspace = k.workspace and c.id = k.conversation where k.workspace = ",
            )
            .arg(self.workspace())
            .text(" and k.key in ")
            .list(&kept)
            .query();
            for row in self.fetch_all(query).await? {
                let kept: [u8; 16] = row.get("key")?;
                if let Some(key) = some.iter().find(|key| key.kept == kept) {
                    roots.insert(key.asked, row.id("root")?);
                }
            }
        }
        Ok(roots)
    }

    /// The subject of each of these conversations; those that are not there are left out.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn subjects_of(
        &mut self,
        conversations: &[ConversationId],
    ) -> Result<HashMap<ConversationId, Option<String>>, Error> {
        let mut found = HashMap::new();
        for some in conversations.chunks(LIST_MAX) {
            let query = Statement::new("select id, subject from conversations where workspace = ")
                .arg(self.workspace())
                .text(" and id in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.id("id")?, row.get("subject")?);
            }
        }
        Ok(found)
    }

    /// The conversation of each of these messages; those that are not there are left out.
    pub async fn conversations_of(
        &mut self,
        messages: &[MessageKey],
    ) -> Result<HashMap<MessageKey, ConversationId>, Error> {
        let mut found = HashMap::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new("select id, conversation from messages where workspace = ")
                .arg(self.workspace())
                .text(" and id in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.id("id")?, row.id("conversation")?);
            }
        }
        Ok(found)
    }

    /// Those of the hashed ids that a message of this conversation has or names.
    pub async fn ids_named_in(
        &mut self,
        conversation: ConversationId,
        hashes: &[[u8; 16]],
    ) -> Result<HashSet<[u8; 16]>, Error> {
        let mut found = HashSet::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                "select distinct h.hash from decision_hashes h \
                 join decisions d on d.workspace = h.workspace and d.id = h.decision \
                 join messages m on m.workspace = d.workspace and m.id = d.message where h.workspace = ",
            )
            .arg(self.workspace())
            .text(" and h.role in ('id', 'reference') and m.conversation = ")
            .arg(conversation)
            .text(" and h.hash in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.get("hash")?);
            }
        }
        Ok(found)
    }

    /// The messages of a conversation that answer one of these ids and came in after the repair.
    pub async fn answers_after(
        &mut self,
        conversation: ConversationId,
        ids: &[MessageId],
        repair: RepairId,
    ) -> Result<Vec<MessageKey>, Error> {
        let mut found = Vec::new();
        for some in ids.chunks(LIST_MAX) {
            let texts: Vec<_> = some.iter().map(MessageId::as_str).collect();
            // Ids sort by the time they were made.
            let query = Statement::new("select id from messages where workspace = ")
                .arg(self.workspace())
                .text(" and conversation = ")
                .arg(conversation)
                .text(" and id > ")
                .arg(repair.uuid())
                .text(" and in_reply_to in ")
                .list(&texts)
                .query();
            for row in self.fetch_all(query).await? {
                found.push(row.id("id")?);
            }
        }
        Ok(found)
    }
}
