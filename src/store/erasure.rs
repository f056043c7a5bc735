//! Erasing a workspace: at once for everybody who asks, and then row by row, so that nobody else waits for it.
//!
//! What makes it final comes first: its keys, so that what they sealed cannot be read again, and its names, so that nobody
//! gets in. Not here: who sees to it that it comes to an end (`flow::erase`).

use jiff::Timestamp;

use super::{Error, Store, Tx, columns::changed, sql::sql};
use crate::core::{ids::WorkspaceId, job::JobKind};

/// Every table with rows of a workspace, children before the tables they point to.
const TABLES: [&str; 47] = [
    "jobs",
    "lanes",
    "sightings",
    "message_contacts",
    "message_ids",
    "decision_hashes",
    "decisions",
    "submission_recipients",
    "submissions",
    "subject_keys",
    "messages",
    "thread_keys",
    "conversation_partings",
    "conversation_repairs",
    "conversations",
    "sender_checks",
    "quarantine",
    "inbound",
    "blobs",
    "events",
    "webhooks",
    "routes",
    "sender_routes",
    "mailboxes",
    "account_errors",
    "account_addresses",
    "send_rests",
    "account_sent",
    "account_octets",
    "grants",
    "parted_grants",
    "accounts",
    "limits",
    "usage_counts",
    "quota_levels",
    "smarthosts",
    "content_keys",
    "idempotency_keys",
    "order_keys",
    "contact_addresses",
    "contact_relations",
    "contacts",
    "api_keys",
    "user_addresses",
    "connect_links",
    "users",
    "trail",
];

/// Those that go at once: logins, ways in, keys. A workspace has few rows of them.
const AT_ONCE: [&str; 9] = [
    "api_keys",
    "routes",
    "webhooks",
    "mailboxes",
    "account_errors",
    "grants",
    "accounts",
    "smarthosts",
    "content_keys",
];

/// Rows deleted in one transaction: a few milliseconds, in which nobody else writes.
const ROWS_AT_ONCE: u64 = 1000;

impl Tx {
    /// Ends the workspace for everybody who asks for it, and destroys its keys. Its slug is free from then on; what is left
    /// of it is rows that nobody finds.
    ///
    /// # Errors
    /// `Missing` when there is no such workspace.
    pub async fn begin_erasure(&mut self, now: Timestamp) -> Result<(), Error> {
        let workspace = self.workspace();
        let query = sql("update workspaces set erasing_at = $2, slug = $3, name = '' \
             where id = $1 and erasing_at is null")
        .bind(workspace)
        .bind(now)
        .bind(workspace.to_string());
        changed(self.execute(query).await?)?;
        for table in AT_ONCE {
            self.execute(sql(format!("delete from {table} where workspace = $1")).bind(workspace)).await?;
        }
        self.forget_content_keys();
        Ok(())
    }

    /// Deletes the workspace itself, which has no rows any more, with the jobs that are left, and its files.
    ///
    /// # Errors
    /// `Missing` when it is gone, or when somebody has written more of it meanwhile: erase those rows first.
    pub async fn end_erasure(&mut self) -> Result<(), Error> {
        let workspace = self.workspace();
        for table in ["jobs", "lanes"] {
            self.execute(sql(format!("delete from {table} where workspace = $1")).bind(workspace)).await?;
        }
        let query = sql("delete from workspaces where id = $1 and erasing_at is not null").bind(workspace);
        changed(self.execute(query).await?)?;
        self.on_commit(move |store| store.remove_blob_files(workspace));
        Ok(())
    }
}

impl Store {
    /// Deletes every row of a workspace, in transactions of their own, but for the jobs that erase it. Cut off, it is begun
    /// again and finds what is left.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn erase_rows(&self, workspace: WorkspaceId) -> Result<(), Error> {
        for table in TABLES {
            loop {
                let mut system = self.system().await?;
                let rows = system.execute(self.some_rows(table).bind(workspace)).await?;
                system.commit().await?;
                if rows < ROWS_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Deletes some rows of `$1`, by where they lie: tables have keys of many kinds.
    fn some_rows(&self, table: &str) -> super::Query {
        let place = match (self.is_shared(), table) {
            (true, _) => "ctid",
            // Lies where its key is.
            (false, "thread_keys") => "(workspace, key)",
            (false, _) => "rowid",
        };
        let columns = place.trim_matches(['(', ')']);
        let kept = if table == "jobs" {
            format!(" and kind <> '{}'", JobKind::Erase.as_str())
        } else {
            String::new()
        };
        sql(format!(
            "delete from {table} where {place} in \
             (select {columns} from {table} where workspace = $1{kept} limit {ROWS_AT_ONCE})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasing_a_workspace_reaches_every_table_of_the_schema() {
        let schema = include_str!("../../migrations/sqlite/0001_ground.sql");
        let mut tables: Vec<_> = schema
            .lines()
            .filter_map(|line| line.strip_prefix("create table ")?.split_whitespace().next())
            .filter(|table| !["workspaces", "vault", "gateway_keys"].contains(table))
            .collect();
        let mut emptied = TABLES.to_vec();
        tables.sort_unstable();
        emptied.sort_unstable();
        assert_eq!(tables, emptied);
        assert!(AT_ONCE.iter().all(|table| TABLES.contains(table)));
    }
}
