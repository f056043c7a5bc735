//! The journal the CRM reads, gap-free within a workspace, and the jobs that post it to endpoints.
//!
//! Not here: posting (`webhook`) and what an event says (`core::event`).

use jiff::Timestamp;

use super::{
    Error, Session, Tx,
    columns::json_text,
    mint,
    sql::{Row, sql},
    statement::Statement,
};
use crate::core::{
    event::{Event, JournalEntry},
    ids::{ConversationId, EventId, WebhookId},
    job::Job,
    webhook::Webhook,
};

const COLUMNS: &str = "seq, id, type, created_at, data";

/// Most events that are read at once.
pub const JOURNAL_ROWS_MAX: u32 = 1000;

impl Tx {
    /// Writes an event into the journal, and a job for every endpoint that wants it.
    ///
    /// The journal is gap-free because a workspace's announcements wait for each other until they commit or vanish: announce
    /// last, after everything else the transaction writes.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn announce(&mut self, event: &Event, now: Timestamp) -> Result<JournalEntry, Error> {
        let query = sql("update workspaces set event_seq = event_seq + 1 where id = $1 returning event_seq")
            .bind(self.workspace());
        let seq = self.fetch_one(query).await?.get("event_seq")?;
        let (id, data) = (mint::<EventId>(), event.data());
        let query = sql("insert into events (workspace, seq, id, type, conversation, created_at, data) \
             values ($1, $2, $3, $4, $5, $6, $7)")
        .bind(self.workspace())
        .bind(seq)
        .bind(id)
        .bind(event.kind())
        .bind(event.conversation())
        .bind(now)
        .bind(json_text(&data));
        self.execute(query).await?;
        let listeners = self.listeners(event).await?;
        self.put_deliveries(&listeners, seq, event.conversation(), now).await?;
        Ok(JournalEntry { seq, id, kind: event.kind().to_owned(), created_at: now, data })
    }

    /// Posts an event of the past once more, if it is still in the journal, whatever the endpoint asked for. True when it is.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn deliver_again(
        &mut self,
        webhook: WebhookId,
        seq: i64,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let query = sql("select conversation from events where workspace = $1 and seq = $2")
            .bind(self.workspace())
            .bind(seq);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(false) };
        self.put_deliveries(&[webhook], seq, row.opt_id("conversation")?, now).await?;
        Ok(true)
    }

    /// Adds the jobs that post an event, always in the order of the endpoints: each locks a lane.
    async fn put_deliveries(
        &mut self,
        webhooks: &[WebhookId],
        seq: i64,
        conversation: Option<ConversationId>,
        now: Timestamp,
    ) -> Result<(), Error> {
        for webhook in webhooks {
            let job = Job::Deliver { webhook: *webhook, seq };
            let lane = job.lane(conversation);
            self.enqueue(&job, lane, now).await?;
        }
        Ok(())
    }

    /// The endpoints that want an event. A ping is for the endpoint that is tested.
    async fn listeners(&mut self, event: &Event) -> Result<Vec<WebhookId>, Error> {
        if let Event::TestPing { webhook } = event {
            return Ok(vec![*webhook]);
        }
        let query =
            sql("select id, events from webhooks where workspace = $1 and disabled_at is null order by id")
                .bind(self.workspace());
        let mut listeners = Vec::new();
        for row in self.fetch_all(query).await? {
            let asked: Option<Vec<String>> = row.opt_json("events")?;
            if Webhook::asks_for(asked.as_deref(), event.kind()) {
                listeners.push(row.id("id")?);
            }
        }
        Ok(listeners)
    }
}

impl Session {
    /// Events after a number, oldest first, of these types or of all.
    pub async fn journal(
        &mut self,
        after: i64,
        types: Option<&[String]>,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error> {
        let mut query = Statement::new(format!("select {COLUMNS} from events where workspace = "))
            .arg(self.workspace())
            .text(" and seq > ")
            .arg(after);
        if let Some(types) = types {
            query = query.text(" and type in ").list(types);
        }
        let query = query.text(" order by seq limit ").arg(limit.min(JOURNAL_ROWS_MAX)).query();
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    pub async fn event_by_seq(&mut self, seq: i64) -> Result<Option<JournalEntry>, Error> {
        let query = sql(format!("select {COLUMNS} from events where workspace = $1 and seq = $2"))
            .bind(self.workspace())
            .bind(seq);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// The number of an event.
    pub async fn seq_of(&mut self, id: EventId) -> Result<Option<i64>, Error> {
        let query =
            sql("select seq from events where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        self.fetch_optional(query).await?.map(|row| row.get("seq")).transpose()
    }

    /// The number of the newest event; 0 before the first.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn last_seq(&mut self) -> Result<i64, Error> {
        let query = sql("select event_seq from workspaces where id = $1").bind(self.workspace());
        self.fetch_one(query).await?.get("event_seq")
    }
}

fn read(row: &Row) -> Result<JournalEntry, Error> {
    Ok(JournalEntry {
        seq: row.get("seq")?,
        id: row.id("id")?,
        kind: row.get("type")?,
        created_at: row.get("created_at")?,
        data: row.json("data")?,
    })
}
