//! The journal the CRM reads, gap-free within a workspace, and the jobs that post it to endpoints.
//!
//! Not here: posting (`webhook`) and what an event says (`core::event`).

use jiff::Timestamp;

use super::{
    Error, Session, Store, Tx,
    columns::json_text,
    mint,
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    event::{Event, JournalEntry},
    ids::{EventId, WebhookId},
    job::{Job, delivery_lanes},
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
        let mut entries = self.announce_all(std::slice::from_ref(event), now).await?;
        entries.pop().ok_or(Error::Missing)
    }

    /// Writes several events at once, in this order: what one message causes costs the statements of one event.
    ///
    /// # Errors
    /// As [`Tx::announce`].
    pub async fn announce_all(
        &mut self,
        events: &[Event],
        now: Timestamp,
    ) -> Result<Vec<JournalEntry>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (first, has_endpoints) = self.take_numbers(events.len()).await?;
        let entries: Vec<_> = (first..).zip(events).map(|(seq, event)| entry(seq, event, now)).collect();
        self.put_entries(events, &entries).await?;
        self.on_commit(Store::announce_events);
        let endpoints = if has_endpoints { self.endpoints().await? } else { Vec::new() };
        for (event, entry) in events.iter().zip(&entries) {
            let listeners = listeners(&endpoints, event);
            self.put_deliveries(&listeners, entry, now).await?;
        }
        Ok(entries)
    }

    /// Takes this many numbers of the journal. Returns the first, and whether there are endpoints to post to.
    async fn take_numbers(&mut self, count: usize) -> Result<(i64, bool), Error> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let query =
            sql("update workspaces set event_seq = event_seq + $2 where id = $1 returning event_seq, \
             (select count(*) from webhooks w where w.workspace = $1 and w.disabled_at is null) as endpoints")
            .bind(self.workspace())
            .bind(count);
        let row = self.fetch_one(query).await?;
        Ok((row.get::<i64>("event_seq")? - count + 1, row.get::<i64>("endpoints")? > 0))
    }

    async fn put_entries(&mut self, events: &[Event], entries: &[JournalEntry]) -> Result<(), Error> {
        let workspace = self.workspace();
        for (events, entries) in events.chunks(LIST_MAX).zip(entries.chunks(LIST_MAX)) {
            let rows = events.iter().zip(entries).map(|(event, entry)| -> [Arg; 8] {
                [
                    workspace.into(),
                    entry.seq.into(),
                    entry.id.into(),
                    event.kind().into(),
                    event.conversation().into(),
                    event.message().into(),
                    entry.created_at.into(),
                    json_text(&entry.data).into(),
                ]
            });
            let query = Statement::new(
                "insert into events (workspace, seq, id, type, conversation, message, created_at, data) values ",
            )
            .rows(rows)
            .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Posts events of the past once more, in this order and whatever the endpoint asked for, behind what waits for it
    /// already; that is posted now.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn deliver_again(
        &mut self,
        webhook: WebhookId,
        entries: &[JournalEntry],
        now: Timestamp,
    ) -> Result<(), Error> {
        // Lanes are locked one after the other, in another order than announcing does: only one may do it at a time.
        self.lock_filing().await?;
        for entry in entries {
            self.put_deliveries(&[webhook], entry, now).await?;
        }
        self.hasten_lanes(&delivery_lanes(webhook), now).await
    }

    /// Adds the jobs that post an event, always in the order of the endpoints: each locks a lane.
    async fn put_deliveries(
        &mut self,
        webhooks: &[WebhookId],
        entry: &JournalEntry,
        now: Timestamp,
    ) -> Result<(), Error> {
        for webhook in webhooks {
            let job = Job::Deliver { webhook: *webhook, seq: entry.seq };
            let lane = job.lane(entry.subject());
            self.enqueue(&job, lane, now).await?;
        }
        Ok(())
    }

    /// Whether any endpoint names this type: events that are sent on request alone are not written for nobody.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn is_asked_for(&mut self, kind: &str) -> Result<bool, Error> {
        let endpoints = self.endpoints().await?;
        Ok(endpoints.iter().any(|(_, asked)| Webhook::asks_for(asked.as_deref(), kind)))
    }

    /// Every endpoint that is posted to, with the types it asked for.
    async fn endpoints(&mut self) -> Result<Vec<Endpoint>, Error> {
        let query =
            sql("select id, events from webhooks where workspace = $1 and disabled_at is null order by id")
                .bind(self.workspace());
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok((row.id("id")?, row.opt_json("events")?))).collect()
    }
}

/// An endpoint and the types it asked for; `None` for all that are not sent on request alone.
type Endpoint = (WebhookId, Option<Vec<String>>);

/// The endpoints that want an event. A ping is for the endpoint that is tested.
fn listeners(endpoints: &[Endpoint], event: &Event) -> Vec<WebhookId> {
    if let Event::TestPing { webhook } = event {
        return vec![*webhook];
    }
    let wanting = |(_, asked): &&Endpoint| Webhook::asks_for(asked.as_deref(), event.kind());
    endpoints.iter().filter(wanting).map(|(webhook, _)| *webhook).collect()
}

fn entry(seq: i64, event: &Event, now: Timestamp) -> JournalEntry {
    JournalEntry { seq, id: mint(), kind: event.kind().to_owned(), created_at: now, data: event.data() }
}

impl Session {
    /// Events after a number, oldest first, of these types or of all. Where something is hidden, of the next numbers up to
    /// [`Session::journal_reach`]: however much is hidden, it costs no more.
    pub async fn journal(
        &mut self,
        after: i64,
        types: Option<&[String]>,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, Error> {
        let reach = self.journal_reach(after);
        let mut query = Statement::new(format!("select {COLUMNS} from events e where workspace = "))
            .arg(self.workspace())
            .text(" and seq > ")
            .arg(after)
            .given(" and seq <= ", reach)
            .event_seen(self.viewer);
        if let Some(types) = types {
            query = query.text(" and type in ").list(types);
        }
        let query = query.text(" order by seq limit ").arg(limit.min(JOURNAL_ROWS_MAX)).query();
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// How far one look into the journal goes after this number; `None` when it goes to the end.
    #[must_use]
    pub fn journal_reach(&self, after: i64) -> Option<i64> {
        self.hides().then(|| after.saturating_add(i64::from(JOURNAL_ROWS_MAX)))
    }

    pub async fn event_by_seq(&mut self, seq: i64) -> Result<Option<JournalEntry>, Error> {
        let query = sql(format!("select {COLUMNS} from events where workspace = $1 and seq = $2"))
            .bind(self.workspace())
            .bind(seq);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    pub async fn event(&mut self, id: EventId) -> Result<Option<JournalEntry>, Error> {
        let query = sql(format!("select {COLUMNS} from events where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
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
