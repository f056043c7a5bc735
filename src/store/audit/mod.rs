//! What an audit asks of the stored data: rules as statements that return what breaks them, and pages of rows to look into.
//!
//! Not here: what takes more than SQL to judge (bytes, threading keys), and showing it (`app::audit`).

mod acts;
mod rules;

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use acts::{CameIn, KeptRow, SentTo, WeighedSender};
pub use rules::{RULES, Rule};

use self::rules::{COUNTED_SINCE, REFERENCES, Shown};
use super::{
    Engine, Error, Session, Store,
    columns::json_text,
    sql::sql,
    statement::Statement,
    work::{Link, Work},
};
use crate::core::{
    account::AccountState,
    ids::{AccountId, ApiKeyId, ContactId, ConversationId, DecisionId, Id, MessageKey, UserId, WorkspaceId},
    job::{Job, JobKind},
    limits::{WINDOW_MAX, slot_of},
};

/// How far back counts are looked at: as far as any limit looks.
const COUNTED: SignedDuration = WINDOW_MAX;
/// Rows of one page.
pub const AUDIT_ROWS_MAX: u32 = 500;

/// A job as it lies in the queue: its number, its kind, and what it says if this release can read it.
#[derive(Debug, Clone)]
pub struct QueuedJob {
    pub id: i64,
    pub kind: String,
    pub job: Option<Job>,
}

impl Store {
    /// Opens one workspace for reading, all statements at one moment: with PostgreSQL other nodes may be writing.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn snapshot(&self, workspace: WorkspaceId) -> Result<Session, Error> {
        match &self.0.engine {
            // Whoever has opened the embedded store is alone with it.
            Engine::Sqlite(_) => self.read(workspace).await,
            Engine::Postgres(pool) => {
                let begun = pool.begin_with("begin isolation level repeatable read, read only").await?;
                Ok(Session::new(workspace, Work::new(self.clone(), Link::Transaction(begun))))
            }
        }
    }

    /// Files among the large contents that belong to no row and are older than `age`, at most `limit` of them.
    ///
    /// # Errors
    /// When the directory or the database cannot be read.
    pub async fn orphan_files(&self, age: Duration, limit: usize) -> Result<Vec<PathBuf>, Error> {
        let mut orphans = Vec::new();
        let unreadable = |error| Error::Unavailable(sqlx::Error::Io(error));
        let mut directories = tokio::fs::read_dir(self.blob_directory()).await.map_err(unreadable)?;
        while let Some(directory) = directories.next_entry().await.map_err(unreadable)? {
            let Some(workspace) = self.workspace_of(&directory.path()) else { continue };
            let mut files = tokio::fs::read_dir(directory.path()).await.map_err(unreadable)?;
            while let Some(file) = files.next_entry().await.map_err(unreadable)? {
                let modified = file.metadata().await.and_then(|metadata| metadata.modified());
                let is_old = modified
                    .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since >= age));
                if is_old && !self.is_named(workspace, &file.path()).await? {
                    orphans.push(file.path());
                    if orphans.len() >= limit {
                        return Ok(orphans);
                    }
                }
            }
        }
        Ok(orphans)
    }
}

impl Session {
    /// What breaks a rule, at most `limit` of it, as ids.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn breaches(&mut self, rule: &Rule, limit: u32) -> Result<Vec<String>, Error> {
        let since = slot_of(Timestamp::now() - COUNTED).as_microsecond().to_string();
        let text = rule.text.replace(COUNTED_SINCE, &since);
        let query = sql(format!("{text} limit {limit}")).bind(self.workspace());
        let show = |row: &super::Row| -> Result<String, Error> {
            Ok(match rule.shown {
                Shown::Conversation => row.id::<ConversationId>("id")?.to_string(),
                Shown::Message => row.id::<MessageKey>("id")?.to_string(),
                Shown::User => row.id::<UserId>("id")?.to_string(),
                Shown::Account => row.id::<AccountId>("id")?.to_string(),
                Shown::Contact => row.id::<ContactId>("id")?.to_string(),
                Shown::Key => row.id::<ApiKeyId>("id")?.to_string(),
                Shown::Workspace => row.id::<WorkspaceId>("id")?.to_string(),
                Shown::Blob => format!("blob {}", row.get::<Uuid>("id")?),
                Shown::Text => row.get("id")?,
            })
        };
        self.fetch_all(query).await?.iter().map(show).collect()
    }

    /// What this workspace's rows name that lies in another workspace: column and id, at most `limit` for each column.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn foreign_references(&mut self, limit: u32) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for (table, column, target) in REFERENCES {
            // Asked of one workspace after the other, since only with it does an index lead to the row.
            let text = format!(
                "select distinct t.{column} as id from {table} t where t.workspace = $1 and t.{column} is not null \
                 and not exists (select 1 from {target} o where o.workspace = t.workspace and o.id = t.{column}) \
                 and exists (select 1 from workspaces w cross join {target} o \
                 where o.workspace = w.id and o.id = t.{column} and w.id <> $1) limit {limit}"
            );
            for row in self.fetch_all(sql(text).bind(self.workspace())).await? {
                found.push(format!("{table}.{column} {}", named(target, row.get("id")?)));
            }
        }
        Ok(found)
    }

    /// Every conversation in the order of ids, merged ones too, each with the one that stands for it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn conversations_by_id(
        &mut self,
        after: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, ConversationId)>, Error> {
        let query = Statement::new(
            "select id, coalesce(merged_into, id) as root from conversations where workspace = ",
        )
        .arg(self.workspace())
        .given(" and id > ", after)
        .text(&format!(" order by id limit {AUDIT_ROWS_MAX}"))
        .query();
        self.fetch_all(query).await?.iter().map(|row| Ok((row.id("id")?, row.id("root")?))).collect()
    }

    /// The messages of a conversation in the order of ids.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn message_keys(
        &mut self,
        conversation: ConversationId,
        after: Option<MessageKey>,
    ) -> Result<Vec<MessageKey>, Error> {
        let query = Statement::new("select id from messages where workspace = ")
            .arg(self.workspace())
            .text(" and conversation = ")
            .arg(conversation)
            .given(" and id > ", after)
            .text(&format!(" order by id limit {AUDIT_ROWS_MAX}"))
            .query();
        self.fetch_all(query).await?.iter().map(|row| row.id("id")).collect()
    }

    /// Where the index leads with each of these keys, redirects followed; keys it does not have are left out.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn threads_of_keys(&mut self, keys: &[[u8; 16]]) -> Result<Vec<ConversationId>, Error> {
        let (keys, mut roots) = (self.kept_keys(keys).await?, Vec::new());
        for some in keys.chunks(super::statement::LIST_MAX) {
            let query = Statement::new(
                "select coalesce(c.merged_into, c.id) as root from thread_keys k \
                 join conversations c on c.workspace = k.workspace and c.id = k.conversation where k.workspace = ",
            )
            .arg(self.workspace())
            .text(" and k.key in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                roots.push(row.id("root")?);
            }
        }
        Ok(roots)
    }

    /// Whether a message may have joined its conversation by more than its header: named by the CRM or by a reply address,
    /// or by the thread id of a provider that shows all mail in one mailbox.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn may_join_by_name(&mut self, message: MessageKey) -> Result<bool, Error> {
        let query =
            sql("select 1 as one from sightings s left join mailboxes b on b.workspace = s.workspace \
             and b.account = s.account and b.name = s.mailbox where s.workspace = $1 and s.message = $2 \
             and (s.via in ('submission', 'api', 'reply') or b.role = 'all') limit 1")
            .bind(self.workspace())
            .bind(message);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// Messages taken in and not yet processed, in the order of ids.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn pending_inbound(&mut self, after: Option<MessageKey>) -> Result<Vec<MessageKey>, Error> {
        let query = Statement::new("select id from inbound where state = 'pending' and workspace = ")
            .arg(self.workspace())
            .given(" and id > ", after)
            .text(&format!(" order by id limit {AUDIT_ROWS_MAX}"))
            .query();
        self.fetch_all(query).await?.iter().map(|row| row.id("id")).collect()
    }

    /// Submissions that somebody must still work on, in the order of ids, with the account each leaves by.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open_submissions(
        &mut self,
        after: Option<MessageKey>,
    ) -> Result<Vec<(MessageKey, Option<AccountId>)>, Error> {
        let query = Statement::new(
            "select message, account from submissions \
             where state in ('queued', 'sending', 'deferred', 'uncertain') and workspace = ",
        )
        .arg(self.workspace())
        .given(" and message > ", after)
        .text(&format!(" order by message limit {AUDIT_ROWS_MAX}"))
        .query();
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok((row.id("message")?, row.opt_id("account")?))).collect()
    }

    /// Those of these jobs, all of one kind, that are in no queue: their places in the list.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn jobs_absent(&mut self, kind: JobKind, jobs: &[Job]) -> Result<Vec<usize>, Error> {
        // The text is what `enqueue` wrote: one job has one.
        let bodies: Vec<String> = jobs.iter().map(json_text).collect();
        let mut present = HashSet::new();
        for some in bodies.chunks(super::statement::LIST_MAX) {
            let query = Statement::new("select body from jobs where workspace = ")
                .arg(self.workspace())
                .text(" and kind = ")
                .arg(kind.as_str())
                .text(" and body in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                present.insert(row.get::<String>("body")?);
            }
        }
        Ok(bodies.iter().enumerate().filter(|(_, body)| !present.contains(*body)).map(|(at, _)| at).collect())
    }

    /// The jobs of the workspace in the order of their numbers.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn queued_jobs(&mut self, after: i64) -> Result<Vec<QueuedJob>, Error> {
        let query = sql(format!(
            "select id, kind, body from jobs where workspace = $1 and id > $2 order by id limit {AUDIT_ROWS_MAX}"
        ))
        .bind(self.workspace())
        .bind(after);
        let read = |row: &super::Row| {
            Ok(QueuedJob { id: row.get("id")?, kind: row.get("kind")?, job: row.json("body").ok() })
        };
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Contents that should lie in files and do not, at most `limit` of them.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn files_absent(&mut self, limit: usize) -> Result<Vec<Uuid>, Error> {
        let (mut absent, mut after) = (Vec::new(), None::<Uuid>);
        loop {
            let query = Statement::new("select id from blobs where data is null and workspace = ")
                .arg(self.workspace())
                .given(" and id > ", after)
                .text(&format!(" order by id limit {AUDIT_ROWS_MAX}"))
                .query();
            let rows = self.fetch_all(query).await?;
            for row in &rows {
                let id: Uuid = row.get("id")?;
                after = Some(id);
                let file = self.store().blob_file(self.workspace(), id);
                if !tokio::fs::try_exists(file).await.unwrap_or(false) {
                    absent.push(id);
                }
            }
            if rows.is_empty() || absent.len() >= limit {
                absent.truncate(limit);
                return Ok(absent);
            }
        }
    }

    /// How many accounts are in each state.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn account_states(&mut self) -> Result<Vec<(AccountState, u64)>, Error> {
        let query = sql("select state, count(*) as accounts from accounts where workspace = $1 \
             group by state order by state")
        .bind(self.workspace());
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok((row.word("state")?, row.get("accounts")?))).collect()
    }
}

/// An id as it is shown everywhere else.
fn named(table: &str, id: Uuid) -> String {
    match table {
        "accounts" => AccountId::from_uuid(id).to_string(),
        "contacts" => ContactId::from_uuid(id).to_string(),
        "conversations" => ConversationId::from_uuid(id).to_string(),
        "decisions" => DecisionId::from_uuid(id).to_string(),
        "messages" | "inbound" => MessageKey::from_uuid(id).to_string(),
        "users" => UserId::from_uuid(id).to_string(),
        _ => id.to_string(),
    }
}
