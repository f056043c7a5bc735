//! Erasing an account: what it alone brought goes, what others hold as well stays, and a receipt says what was removed.
//!
//! Each step takes some of what is still there and counts it in the same transaction, so that it may be cut off anywhere and
//! be begun again. Not here: the order of the steps (`flow::erase`), and erasing a workspace (`store::erasure`).

use serde_json::Value;
use uuid::Uuid;

use super::{
    Error, SealedBlob, Session, Tx,
    columns::{changed, json_text},
    sql::{Query, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    account::{AccountSettings, Endpoint, FoundServers, Identities, Receipt, Security},
    event,
    ids::{AccountId, ContactId, ConversationId, Id as _, MessageKey},
    inbound::Door,
    job::{refetch_lane, sent_lane},
};

/// Rows deleted or read in one transaction: a few milliseconds, in which nobody else writes.
const ROWS_AT_ONCE: u32 = 500;
/// Messages erased in one transaction: each has rows in many tables.
const MESSAGES_AT_ONCE: u32 = 50;

/// Where the rows lie that tell which message an account has seen, or another than this account.
const SEEN_ELSEWHERE: &str = "exists (select 1 from sightings o where o.workspace = s.workspace \
     and o.message = s.message and (o.account is null or o.account <> s.account))";

/// What lies on disk for an account: content under its key, and the message whose content it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub blob: Uuid,
    /// `None` when nothing names the content.
    pub message: Option<MessageKey>,
}

impl Session {
    /// What was removed of an account that is being erased, or was; `None` of any other.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn receipt(&mut self, account: AccountId) -> Result<Option<Receipt>, Error> {
        let query = sql("select receipt from accounts where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(account);
        let row = self.fetch_optional(query).await?;
        Ok(row.map(|row| row.opt_json("receipt")).transpose()?.flatten())
    }

    /// Some of the messages that an account has seen; none when nothing of its mail is left.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn seen_by(&mut self, account: AccountId) -> Result<Vec<MessageKey>, Error> {
        let query = sql(format!(
            "select distinct message from sightings where workspace = $1 and account = $2 limit {MESSAGES_AT_ONCE}"
        ));
        let rows = self.fetch_all(query.bind(self.workspace()).bind(account)).await?;
        rows.iter().map(|row| row.id("message")).collect()
    }

    /// Of these messages those that were seen elsewhere too and whose content is sealed under the account's key: it has to be
    /// sealed under another before that is destroyed.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn kept_under_key_of(
        &mut self,
        account: AccountId,
        messages: &[MessageKey],
    ) -> Result<Vec<Trace>, Error> {
        let workspace = self.workspace();
        let query = Statement::new(
            "select distinct m.id as message, m.blob from sightings s \
             join messages m on m.workspace = s.workspace and m.id = s.message \
             join blobs b on b.workspace = m.workspace and b.id = m.blob \
             join content_keys k on k.workspace = b.workspace and k.id = b.key_id and k.account = s.account \
             where s.workspace = ",
        )
        .arg(workspace)
        .text(" and s.account = ")
        .arg(account)
        .text(" and s.message in ")
        .list(messages)
        .text(&format!(" and {SEEN_ELSEWHERE}"))
        .query();
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok(Trace { blob: row.get("blob")?, message: row.opt_id("message")? })).collect()
    }

    /// Some content that is sealed under the account's key.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn content_under_key_of(&mut self, account: AccountId) -> Result<Vec<Trace>, Error> {
        let query = sql(format!(
            "select b.id, (select m.id from messages m where m.workspace = b.workspace and m.blob = b.id limit 1) as message \
             from content_keys k join blobs b on b.workspace = k.workspace and b.key_id = k.id \
             where k.workspace = $1 and k.account = $2 limit {ROWS_AT_ONCE}"
        ));
        let rows = self.fetch_all(query.bind(self.workspace()).bind(account)).await?;
        rows.iter().map(|row| Ok(Trace { blob: row.get("id")?, message: row.opt_id("message")? })).collect()
    }

    /// Entries of the journal after this one that tell of the account, of messages or of contacts: number and data. What a
    /// message's entry names is the account that brought it first, which need not be the one that takes it away.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn entries_about(
        &mut self,
        account: AccountId,
        after: i64,
    ) -> Result<Vec<(i64, Value)>, Error> {
        let query = sql(format!(
            "select seq, data from events where workspace = $1 and seq > $2 \
             and (data like $3 or type like 'message.%' or type in ('contact.created', 'contact.matched')) \
             order by seq limit {ROWS_AT_ONCE}"
        ))
        .bind(self.workspace())
        .bind(after)
        .bind(format!("%\"{account}\"%"));
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok((row.get("seq")?, row.json("data")?))).collect()
    }
}

impl Tx {
    /// Writes down what was removed so far.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn set_receipt(&mut self, account: AccountId, receipt: &Receipt) -> Result<(), Error> {
        let query = sql("update accounts set receipt = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(account)
            .bind(json_text(receipt));
        changed(self.execute(query).await?)
    }

    /// Puts content in the place of the same content under another key. False when the message has other content by now, or
    /// is gone.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn replace_content(
        &mut self,
        message: MessageKey,
        old: Uuid,
        new: SealedBlob,
    ) -> Result<bool, Error> {
        let new = self.put_sealed_blob(new).await?;
        let query = sql("update messages set blob = $4 where workspace = $1 and id = $2 and blob = $3")
            .bind(self.workspace());
        let is_replaced = self.execute(query.bind(message).bind(old).bind(new)).await? == 1;
        self.delete_blob(if is_replaced { old } else { new }).await?;
        Ok(is_replaced)
    }

    /// Erases those of these messages that this account alone has seen, and of the others that it has seen them; those whose
    /// content is under its key still are left as they are, and so are those that it has not seen, or no more. To be called
    /// with the filing lock.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn erase_seen(
        &mut self,
        account: AccountId,
        messages: &[MessageKey],
        receipt: &mut Receipt,
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        let query = Statement::new("select distinct s.message from sightings s where s.workspace = ")
            .arg(workspace)
            .text(" and s.account = ")
            .arg(account)
            .text(" and s.message in ")
            .list(messages)
            .text(&format!(" and {SEEN_ELSEWHERE}"))
            .query();
        let held: Vec<MessageKey> = ids(&self.fetch_all(query).await?, "message")?;
        // Whoever has looked for them before may have come here before: what this account is not known to have seen by now
        // is not its own to erase.
        let query = Statement::new("select distinct message from sightings where workspace = ")
            .arg(workspace)
            .text(" and account = ")
            .arg(account)
            .text(" and message in ")
            .list(messages)
            .query();
        let seen: Vec<MessageKey> = ids(&self.fetch_all(query).await?, "message")?;
        let waiting = self.kept_under_key_of(account, &held).await?;
        let freed: Vec<MessageKey> = held
            .iter()
            .filter(|key| !waiting.iter().any(|trace| trace.message == Some(**key)))
            .copied()
            .collect();
        let query = Statement::new("delete from sightings where workspace = ")
            .arg(workspace)
            .text(" and account = ")
            .arg(account)
            .text(" and message in ")
            .list(&freed)
            .query();
        self.execute(query).await?;
        receipt.messages_kept += freed.len() as u64;
        let gone: Vec<MessageKey> = seen.into_iter().filter(|key| !held.contains(key)).collect();
        self.erase_messages(&gone, receipt).await
    }

    /// Erases a message that came to a capture address and that nobody else has seen, with the contacts that it made. What was
    /// taken in stays as something of which nothing is kept. To be called with the filing lock.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn disown(&mut self, message: MessageKey) -> Result<(), Error> {
        let workspace = self.workspace();
        let made = sql("select distinct c.id from message_contacts p \
             join contacts c on c.workspace = p.workspace and c.id = p.contact \
             where p.workspace = $1 and p.message = $2 and c.created_by = 'capture' and c.changed_at is null \
             and not exists (select 1 from contact_relations r where r.workspace = c.workspace and r.related = c.id)")
        .bind(workspace)
        .bind(message);
        let made: Vec<ContactId> = ids(&self.fetch_all(made).await?, "id")?;
        let taken_in = sql(
            "update inbound set state = $3, message = null, door = $4 where workspace = $1 and message = $2",
        )
        .bind(workspace)
        .bind(message)
        .bind(super::InboundState::Dropped.as_str())
        .bind(json_text(&Door::forgotten()));
        self.execute(taken_in).await?;
        let told = sql("select seq, data from events where workspace = $1 and message = $2")
            .bind(workspace)
            .bind(message);
        for row in self.fetch_all(told).await? {
            let mut data: Value = row.json("data")?;
            event::redact(&mut data, event::Erased::Subject);
            self.rewrite_entry(row.get("seq")?, &data).await?;
        }
        // Counted for nobody.
        let mut receipt = Receipt::begun(jiff::Timestamp::UNIX_EPOCH);
        self.erase_messages(&[message], &mut receipt).await?;
        self.erase_contacts(&made, &mut receipt).await
    }

    async fn erase_messages(&mut self, messages: &[MessageKey], receipt: &mut Receipt) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let made = self.contacts_made_by(messages).await?;
        let query = self.of("select conversation, blob, size from messages", "id", messages);
        let rows = self.fetch_all(query).await?;
        let conversations: Vec<ConversationId> = ids(&rows, "conversation")?;
        for row in &rows {
            self.delete_blob(row.get("blob")?).await?;
            receipt.bytes += u64::try_from(row.get::<i64>("size")?).unwrap_or_default();
        }
        let query = self.of("delete from sender_checks", "message", messages);
        self.execute(query).await?;
        let query = self.of("delete from decisions", "message", messages);
        receipt.decisions += self.execute(query).await?;
        // With its ids, contacts, sightings and submission.
        let query = self.of("delete from messages", "id", messages);
        receipt.messages += self.execute(query).await?;
        self.close_conversations(conversations, receipt).await?;
        self.erase_contacts(&made, receipt).await
    }

    /// The contacts of these messages that the mail of an account has made and that nobody has done anything with since.
    async fn contacts_made_by(&mut self, messages: &[MessageKey]) -> Result<Vec<ContactId>, Error> {
        let query = Statement::new(
            "select distinct c.id from message_contacts p \
             join contacts c on c.workspace = p.workspace and c.id = p.contact \
             where c.created_by in ('sent', 'exchange') and c.changed_at is null and not exists \
             (select 1 from contact_relations r where r.workspace = c.workspace and r.related = c.id) \
             and p.workspace = ",
        )
        .arg(self.workspace())
        .text(" and p.message in ")
        .list(messages)
        .query();
        ids(&self.fetch_all(query).await?, "id")
    }

    /// Deletes those of these contacts of whom no message is left.
    async fn erase_contacts(&mut self, contacts: &[ContactId], receipt: &mut Receipt) -> Result<(), Error> {
        for contact in contacts {
            let query =
                sql("select 1 as one from message_contacts where workspace = $1 and contact = $2 limit 1")
                    .bind(self.workspace())
                    .bind(*contact);
            if self.fetch_optional(query).await?.is_none() {
                self.delete_contact(*contact).await?;
                receipt.contacts += 1;
            }
        }
        Ok(())
    }

    /// Counts what is left of conversations, deletes those of which nothing is, and takes from the others the subjects that
    /// no message of theirs has.
    async fn close_conversations(
        &mut self,
        mut conversations: Vec<ConversationId>,
        receipt: &mut Receipt,
    ) -> Result<(), Error> {
        conversations.sort_unstable();
        conversations.dedup();
        self.recount(&conversations).await?;
        let query = self.of("select id, message_count from conversations", "id", &conversations);
        let (mut empty, mut left) = (Vec::new(), Vec::new());
        for row in self.fetch_all(query).await? {
            let id: ConversationId = row.id("id")?;
            if row.get::<i64>("message_count")? == 0 { empty.push(id) } else { left.push(id) }
        }
        self.rename_conversations(&left).await?;
        receipt.conversations += empty.len() as u64;
        let query = self.of("select id from conversations", "merged_into", &empty);
        let merged: Vec<ConversationId> = ids(&self.fetch_all(query).await?, "id")?;
        empty.extend(merged);
        for some in empty.chunks(LIST_MAX) {
            for (table, column) in [
                ("thread_keys", "conversation"),
                ("routes", "conversation"),
                ("conversation_partings", "conversation"),
                ("conversation_partings", "other"),
                ("conversation_repairs", "conversation"),
                ("conversation_repairs", "other"),
                ("conversations", "id"),
            ] {
                let query = self.of(&format!("delete from {table}"), column, some);
                self.execute(query).await?;
            }
        }
        Ok(())
    }

    async fn rename_conversations(&mut self, conversations: &[ConversationId]) -> Result<(), Error> {
        let own = "not exists (select 1 from messages m where m.workspace = conversations.workspace \
             and m.subject = conversations.subject and m.conversation = conversations.";
        let first = "(select m.subject from messages m where m.workspace = conversations.workspace \
             and m.conversation = conversations.id order by m.sent_at, m.id limit 1)";
        for (subject, column) in [(first, "id"), ("null", "merged_into")] {
            let query =
                Statement::new(format!("update conversations set subject = {subject} where workspace = "))
                    .arg(self.workspace())
                    .text(&format!(" and {own}{column}) and {column} in "))
                    .list(conversations)
                    .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Deletes some of an account's decisions, with the hashes by which they are found. False when none is left.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn erase_decisions(
        &mut self,
        account: AccountId,
        receipt: &mut Receipt,
    ) -> Result<bool, Error> {
        let query = sql(format!(
            "delete from decisions where workspace = $1 and id in \
             (select id from decisions where workspace = $1 and account = $2 limit {ROWS_AT_ONCE})"
        ));
        let deleted = self.execute(query.bind(self.workspace()).bind(account)).await?;
        receipt.decisions += deleted;
        Ok(deleted > 0)
    }

    /// Writes an entry of the journal anew, without what was erased. Its number stays: the journal has no gaps.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn rewrite_entry(&mut self, seq: i64, data: &Value) -> Result<(), Error> {
        let query = sql("update events set data = $3 where workspace = $1 and seq = $2")
            .bind(self.workspace())
            .bind(seq)
            .bind(json_text(data));
        self.execute(query).await.map(drop)
    }

    /// Forgets an account but for its id, its user, its times and its receipt, and destroys its key.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn forget_account(&mut self, account: AccountId) -> Result<(), Error> {
        let workspace = self.workspace();
        let nowhere = Endpoint { host: NOWHERE.to_owned(), port: 0, security: Security::Tls };
        let settings = AccountSettings {
            imap: nowhere.clone(),
            smtp: nowhere,
            provider: None,
            found: FoundServers::default(),
            identities: Identities::default(),
        };
        // What had become the user's own with the account. The address that he is known by stays his.
        let query = sql("delete from user_addresses where workspace = $1 and account = $2 \
             and address not in (select email from users where workspace = $1)")
        .bind(workspace)
        .bind(account);
        self.execute(query).await?;
        let query = sql("update accounts set email = $3, settings = $4, credentials = $5, key_id = null, \
             sending_refused = null, rests_until = null, rests_over = null where workspace = $1 and id = $2")
        .bind(workspace)
        .bind(account)
        .bind(format!("{}@{NOWHERE}", account.uuid().simple()))
        .bind(json_text(&settings))
        .bind(Vec::new());
        changed(self.execute(query).await?)?;
        for table in ["mailboxes", "account_errors", "send_rests", "account_sent", "account_octets", "grants"]
        {
            let query = sql(format!("delete from {table} where workspace = $1 and account = $2"));
            self.execute(query.bind(workspace).bind(account)).await?;
        }
        for lane in [refetch_lane(account), sent_lane(account)] {
            for table in ["jobs", "lanes"] {
                let query = sql(format!("delete from {table} where workspace = $1 and lane = $2"));
                self.execute(query.bind(workspace).bind(&lane)).await?;
            }
        }
        let query = sql(
            "update conversations set related_to = null where workspace = $1 and related_to is not null \
             and not exists (select 1 from conversations r where r.workspace = conversations.workspace \
             and r.id = conversations.related_to)",
        );
        self.execute(query.bind(workspace)).await?;
        self.destroy_content_key(account).await
    }

    /// A statement about the rows of this workspace in which a column has one of these values.
    fn of<T: Into<super::Arg> + Clone>(&self, text: &str, column: &str, values: &[T]) -> Query {
        Statement::new(format!("{text} where workspace = "))
            .arg(self.workspace())
            .text(&format!(" and {column} in "))
            .list(values)
            .query()
    }
}

/// In the place of an erased account's domain and hosts: a name that nobody can have (RFC 6761 section 6.4).
const NOWHERE: &str = "erased.invalid";

fn ids<T: crate::core::ids::Id>(rows: &[Row], column: &str) -> Result<Vec<T>, Error> {
    rows.iter().map(|row| row.id(column)).collect()
}
