//! Conversations and the index that finds them: what belongs together, and where a merged conversation went.
//!
//! Not here: deciding what belongs together (`core::threading`), and the messages themselves (`store::messages`).

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Error, Page, Session, Tx,
    columns::changed,
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    ids::{ContactId, ConversationId, Id as _, MessageKey, RouteId, UserId},
    message::Conversation,
};

const COLUMNS: &str = "c.id, c.subject, c.contact, c.created_at, c.last_message_at, c.message_count, c.merged_into, c.related_to";

/// How often a transaction follows a redirect that appears while it looks: each takes another merge to have committed in
/// between, and none makes a chain.
const HOLD_TRIES: usize = 8;

/// A conversation that exists, with what decides who is the elder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationRef {
    pub created_at: Timestamp,
    pub id: ConversationId,
}

/// Which conversations to list; what is `None` does not count.
#[derive(Debug, Clone, Default)]
pub struct ConversationFilter {
    /// One of its messages concerns this contact.
    pub contact: Option<ContactId>,
    /// This user wrote one of its messages, or a copy of one lies in an account of his.
    pub user: Option<UserId>,
    /// Part of the subject, in whatever case.
    pub subject: Option<String>,
}

/// What a merge did: what undoing takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The conversation that stands.
    pub keep: ConversationId,
    /// The one that redirects there from now on.
    pub absorbed: ConversationId,
    /// The messages that moved.
    pub moved: Vec<MessageKey>,
    /// Conversations that led to the absorbed one and lead on from now on.
    pub redirects: Vec<ConversationId>,
    /// The reply addresses that moved.
    pub routes: Vec<RouteId>,
}

impl Tx {
    pub async fn insert_conversation(&mut self, conversation: &Conversation) -> Result<(), Error> {
        let query =
            sql("insert into conversations (workspace, id, subject, contact, created_at, last_message_at, \
             message_count, merged_into, related_to) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(self.workspace())
            .bind(conversation.id)
            .bind(conversation.subject.clone())
            .bind(conversation.contact)
            .bind(conversation.created_at)
            .bind(conversation.last_message_at)
            .bind(conversation.message_count)
            .bind(conversation.merged_into)
            .bind(conversation.related_to);
        self.execute(query).await?;
        Ok(())
    }

    /// Makes sure that a conversation is not merged away before this transaction ends. Returns the one that stands in its
    /// place, or itself.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation.
    pub async fn hold_conversation(&mut self, id: ConversationId) -> Result<ConversationId, Error> {
        // A foreign key takes this lock too, but too late to learn of a merge.
        let lock = if self.store().is_shared() { " for key share" } else { "" };
        let mut asked = id;
        for _ in 0..HOLD_TRIES {
            let query = sql(format!(
                "select id, merged_into from conversations where workspace = $1 and id = \
                 (select coalesce(merged_into, id) from conversations where workspace = $1 and id = $2){lock}"
            ))
            .bind(self.workspace())
            .bind(asked);
            let row = self.fetch_one(query).await?;
            // Merged while this waited for the lock.
            match row.opt_id("merged_into")? {
                Some(root) => asked = root,
                None => return row.id("id"),
            }
        }
        Err(Error::Corrupt("conversations: redirects go round in circles".into()))
    }

    /// Counts a message that was filed in a conversation.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation, or it has been merged: file under what `insert_message` returned.
    pub async fn touch_conversation(&mut self, id: ConversationId, sent_at: Timestamp) -> Result<(), Error> {
        let query = sql("update conversations set message_count = message_count + 1, \
             last_message_at = case when last_message_at < $3 then $3 else last_message_at end \
             where workspace = $1 and id = $2 and merged_into is null")
        .bind(self.workspace())
        .bind(id)
        .bind(sent_at);
        changed(self.execute(query).await?)
    }

    /// Enters keys into the threading index; a key that is another conversation's stays so (`threads_found` tells whose).
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn put_thread_keys(
        &mut self,
        keys: &[[u8; 16]],
        conversation: ConversationId,
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        let mut keys = self.kept_keys(keys).await?;
        // All in one order, so that two transactions with the same keys wait for each other and not in a ring.
        keys.sort_unstable();
        keys.dedup();
        for some in keys.chunks(LIST_MAX) {
            let rows =
                some.iter().map(|key| -> [Arg; 3] { [workspace.into(), key.into(), conversation.into()] });
            let query = Statement::new("insert into thread_keys (workspace, key, conversation) values ")
                .rows(rows)
                .text(" on conflict (workspace, key) do nothing")
                .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Merges one conversation into another: messages and reply addresses move, the absorbed one and all that redirect to
    /// it redirect to the other. Its keys stay as they are and are read through the redirect, so that a merge costs what
    /// the smaller side has messages. `None` when both are one already.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation.
    pub async fn merge_conversations(
        &mut self,
        keep: ConversationId,
        absorb: ConversationId,
    ) -> Result<Option<Merged>, Error> {
        self.hold_threads().await?;
        let (keep, absorb) = (self.root(keep).await?, self.root(absorb).await?);
        if keep == absorb {
            return Ok(None);
        }
        self.lock_conversations(&[keep, absorb]).await?;
        let workspace = self.workspace();
        let query = sql("update messages set conversation = $2 where workspace = $1 and conversation = $3 \
             returning id")
        .bind(workspace)
        .bind(keep)
        .bind(absorb);
        let moved = self.fetch_all(query).await?.iter().map(|row| row.id("id")).collect::<Result<_, _>>()?;
        let query = sql("update conversations set \
             message_count = conversations.message_count + a.message_count, \
             last_message_at = case when conversations.last_message_at < a.last_message_at \
             then a.last_message_at else conversations.last_message_at end, \
             contact = coalesce(conversations.contact, a.contact), \
             related_to = case when conversations.related_to = a.id then null else conversations.related_to end \
             from conversations a where conversations.workspace = $1 and conversations.id = $2 \
             and a.workspace = $1 and a.id = $3")
        .bind(workspace)
        .bind(keep)
        .bind(absorb);
        changed(self.execute(query).await?)?;
        let query = sql("update conversations set merged_into = $2, message_count = 0 \
             where workspace = $1 and (id = $3 or merged_into = $3) returning id")
        .bind(workspace)
        .bind(keep)
        .bind(absorb);
        let rows = self.fetch_all(query).await?;
        let mut redirects = rows.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
        redirects.retain(|id| *id != absorb);
        let query = sql(
            "update routes set conversation = $2 where workspace = $1 and conversation = $3 returning id",
        )
        .bind(workspace)
        .bind(keep)
        .bind(absorb);
        let rows = self.fetch_all(query).await?;
        let routes = rows.iter().map(|row| row.id("id")).collect::<Result<_, _>>()?;
        Ok(Some(Merged { keep, absorbed: absorb, moved, redirects, routes }))
    }

    /// Moves messages to another conversation, which is a split or the undoing of a merge.
    ///
    /// # Errors
    /// `Missing` when the conversation is not there or has been merged.
    pub async fn refile_messages(
        &mut self,
        messages: &[MessageKey],
        conversation: ConversationId,
    ) -> Result<(), Error> {
        self.hold_threads().await?;
        let workspace = self.workspace();
        let mut touched = vec![conversation];
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new("select distinct conversation from messages where workspace = ")
                .arg(workspace)
                .text(" and id in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                touched.push(row.id("conversation")?);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        self.lock_conversations(&touched).await?;
        if self.root(conversation).await? != conversation {
            return Err(Error::Missing);
        }
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new("update messages set conversation = ")
                .arg(conversation)
                .text(" where workspace = ")
                .arg(workspace)
                .text(" and id in ")
                .list(some)
                .query();
            self.execute(query).await?;
        }
        self.recount(&touched).await
    }

    /// Undoes a merge: the absorbed conversation stands for itself again, with the messages, reply addresses and redirects that
    /// moved and have not moved on since. Its keys were its own all along.
    ///
    /// # Errors
    /// `Missing` when it stands for itself already.
    pub async fn unmerge_conversation(&mut self, merged: &Merged) -> Result<(), Error> {
        self.hold_threads().await?;
        let (workspace, absorbed) = (self.workspace(), merged.absorbed);
        let root = self.root(absorbed).await?;
        self.lock_conversations(&[root, absorbed]).await?;
        let query = sql("update conversations set merged_into = null \
             where workspace = $1 and id = $2 and merged_into is not null")
        .bind(workspace)
        .bind(absorbed);
        changed(self.execute(query).await?)?;
        let back = |text: &str| Statement::new(text).arg(absorbed).text(" where workspace = ").arg(workspace);
        for some in merged.redirects.chunks(LIST_MAX) {
            let query = back("update conversations set merged_into = ").text(" and merged_into = ").arg(root);
            self.execute(query.text(" and id in ").list(some).query()).await?;
        }
        for some in merged.routes.chunks(LIST_MAX) {
            let query = back("update routes set conversation = ").text(" and conversation = ").arg(root);
            self.execute(query.text(" and id in ").list(some).query()).await?;
        }
        for some in merged.moved.chunks(LIST_MAX) {
            let query = back("update messages set conversation = ").text(" and conversation = ").arg(root);
            self.execute(query.text(" and id in ").list(some).query()).await?;
        }
        self.recount(&[root, absorbed]).await
    }

    /// Makes merges and splits of a workspace follow one another, as all writing does with SQLite: each moves whole
    /// conversations, and two at once would wait for each other in a ring.
    async fn hold_threads(&mut self) -> Result<(), Error> {
        if self.store().is_shared() {
            let (_, key) = self.workspace().uuid().as_u64_pair();
            self.fetch_one(sql("select pg_advisory_xact_lock($1)").bind(key.cast_signed())).await?;
        }
        Ok(())
    }

    /// Waits until nobody is filing into these conversations, and lets nobody begin.
    async fn lock_conversations(&mut self, ids: &[ConversationId]) -> Result<(), Error> {
        let lock = if self.store().is_shared() { " for update" } else { "" };
        let query = Statement::new("select id from conversations where workspace = ")
            .arg(self.workspace())
            .text(" and id in ")
            .list(ids)
            .text(" order by id")
            .text(lock)
            .query();
        self.fetch_all(query).await.map(drop)
    }

    pub(super) async fn recount(&mut self, ids: &[ConversationId]) -> Result<(), Error> {
        let query = Statement::new(
            "update conversations set message_count = (select count(*) from messages m \
             where m.workspace = conversations.workspace and m.conversation = conversations.id), \
             last_message_at = coalesce((select max(m.sent_at) from messages m \
             where m.workspace = conversations.workspace and m.conversation = conversations.id), last_message_at) \
             where workspace = ",
        )
        .arg(self.workspace())
        .text(" and id in ")
        .list(ids)
        .query();
        self.execute(query).await?;
        Ok(())
    }
}

impl Session {
    /// A conversation as it is stored: a merged one with `merged_into`.
    pub async fn conversation(&mut self, id: ConversationId) -> Result<Option<Conversation>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from conversations c where c.workspace = "))
            .arg(self.workspace())
            .text(" and c.id = ")
            .arg(id)
            .conversation_seen(self.viewer)
            .query();
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// The conversation that stands for this one: itself, or what it was merged into.
    ///
    /// # Errors
    /// `Missing` when there is no such conversation.
    pub async fn root(&mut self, id: ConversationId) -> Result<ConversationId, Error> {
        let query = sql("select coalesce(merged_into, id) as root from conversations \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(id);
        self.fetch_one(query).await?.id("root")
    }

    /// Conversations that stand for themselves, latest message first.
    pub async fn conversations(
        &mut self,
        page: &Page,
        filter: &ConversationFilter,
    ) -> Result<Vec<Conversation>, Error> {
        let workspace = self.workspace();
        let mut query = Statement::new(format!("select {COLUMNS} from conversations c where c.workspace = "))
            .arg(workspace)
            .text(" and c.merged_into is null")
            .among_seen_conversations(workspace, self.viewer);
        if let Some(contact) = filter.contact {
            query = query
                .text(
                    " and c.id in (select m.conversation from message_contacts p \
                     join messages m on m.workspace = p.workspace and m.id = p.message where p.workspace = ",
                )
                .arg(workspace)
                .text(" and p.contact = ")
                .arg(contact)
                .seen(self.viewer)
                .text(")");
        }
        if let Some(user) = filter.user {
            query = query
                // Begun at what is the user's: who has little is found without a look at every conversation.
                .text(
                    " and c.id in (select m.conversation from messages m where m.author_role = 'user' \
                     and m.workspace = ",
                )
                .arg(workspace)
                .text(" and m.author_id = ")
                .arg(user)
                .text(
                    " union select m.conversation from accounts a \
                     join sightings s on s.workspace = a.workspace and s.account = a.id \
                     join messages m on m.workspace = s.workspace and m.id = s.message where a.workspace = ",
                )
                .arg(workspace)
                .text(" and a.user_id = ")
                .arg(user)
                .text(")");
        }
        if let Some(part) = &filter.subject {
            // SQLite folds the case of ASCII alone: what holds other letters is also looked for as it was written.
            query = query
                .text(" and (lower(c.subject) like ")
                .arg(containing(&part.to_lowercase()))
                .text(" escape '!' or c.subject like ")
                .arg(containing(part))
                .text(" escape '!')");
        }
        let query = query.page(page, "c.last_message_at", "c.id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// The conversations that have one of these keys, merged ones as what they were merged into; each once, eldest first.
    pub async fn threads_found(&mut self, keys: &[[u8; 16]]) -> Result<Vec<ConversationRef>, Error> {
        let (keys, mut found) = (self.kept_keys(keys).await?, Vec::new());
        for some in keys.chunks(LIST_MAX) {
            let query = Statement::new(
                "select distinct r.id, r.created_at from thread_keys k \
                 join conversations c on c.workspace = k.workspace and c.id = k.conversation \
                 join conversations r on r.workspace = c.workspace and r.id = coalesce(c.merged_into, c.id) \
                 where k.workspace = ",
            )
            .arg(self.workspace())
            .text(" and k.key in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                found.push(ConversationRef { created_at: row.get("created_at")?, id: row.id("id")? });
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Those of the keys that some conversation has: many messages are asked about at once.
    pub async fn thread_keys_known(&mut self, keys: &[[u8; 16]]) -> Result<HashSet<[u8; 16]>, Error> {
        let (keys, mut known) = (self.index_keys(keys).await?, HashSet::new());
        for some in keys.chunks(LIST_MAX) {
            let kept: Vec<_> = some.iter().map(|key| key.kept).collect();
            let query = Statement::new("select key from thread_keys where workspace = ")
                .arg(self.workspace())
                .text(" and key in ")
                .list(&kept)
                .query();
            for row in self.fetch_all(query).await? {
                known.insert(row.get::<[u8; 16]>("key")?);
            }
        }
        Ok(keys.iter().filter(|key| known.contains(&key.kept)).map(|key| key.asked).collect())
    }
}

/// A pattern for texts that contain this one.
fn containing(part: &str) -> String {
    let mut pattern = String::from("%");
    for c in part.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

fn read(row: &Row) -> Result<Conversation, Error> {
    Ok(Conversation {
        id: row.id("id")?,
        subject: row.get("subject")?,
        contact: row.opt_id("contact")?,
        created_at: row.get("created_at")?,
        last_message_at: row.get("last_message_at")?,
        message_count: row.get("message_count")?,
        merged_into: row.opt_id("merged_into")?,
        related_to: row.opt_id("related_to")?,
    })
}
