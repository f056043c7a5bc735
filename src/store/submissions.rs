//! Messages on their way out, and how each recipient fares.
//!
//! Not here: sending (`flow::submit`), when to try again (`core::retry`), and the jobs that do both (`queue`).

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    Error, Session, Tx,
    columns::{changed, json_text, word},
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        ids::{AccountId, ConversationId, MessageKey, UserId},
        submission::{DsnOrder, Hold, RecipientState, SentCopy, Submission, SubmissionState},
    },
    mail::{Address, MessageId, Recipient, ReversePath},
};

const COLUMNS: &str = "s.message, s.account, s.class, s.reverse_path, s.dsn, s.blob, s.state, s.attempt, \
     s.principal, s.accepted_at, s.next_attempt_at, s.dot_intent_at, s.detail, s.sent_copy";

/// One step of a submission: all that changes as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionStep {
    pub state: SubmissionState,
    pub attempt: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub dot_intent_at: Option<Timestamp>,
    pub detail: Option<String>,
}

impl Tx {
    /// A submission to be changed: whoever files a message, and so may add recipients to this one, waits until this
    /// transaction ends. What is read here is what stands when it is written.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn submission(&mut self, message: MessageKey) -> Result<Option<Submission>, Error> {
        self.lock_filing().await?;
        Session::submission(self, message).await
    }

    /// Writes by which way a submission leaves and since when it is on its way, besides what [`Tx::set_submission`] does.
    ///
    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn send_submission_by(&mut self, submission: &Submission) -> Result<(), Error> {
        let query = sql("update submissions set account = $3, sent_copy = $4, accepted_at = $5 \
             where workspace = $1 and message = $2")
        .bind(self.workspace())
        .bind(submission.message)
        .bind(submission.account)
        .bind(word(&submission.sent_copy))
        .bind(submission.accepted_at);
        changed(self.execute(query).await?)?;
        self.set_submission(submission).await
    }

    /// Adds a submission of a stored message, each recipient once.
    ///
    /// # Errors
    /// `Missing` when there is no such message, `Conflict` when it is submitted already.
    pub async fn insert_submission(&mut self, submission: &Submission) -> Result<(), Error> {
        let query =
            sql("insert into submissions (workspace, message, account, class, reverse_path, dsn, blob, \
             state, attempt, principal, accepted_at, next_attempt_at, dot_intent_at, detail, sent_copy) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)")
            .bind(self.workspace())
            .bind(submission.message)
            .bind(submission.account)
            .bind(word(&submission.class))
            .bind(submission.reverse_path.address().map_or_else(String::new, ToString::to_string))
            .bind(json_text(&submission.dsn))
            .bind(submission.blob)
            .bind(word(&submission.state))
            .bind(submission.attempt)
            .bind(json_text(&submission.principal))
            .bind(submission.accepted_at)
            .bind(submission.next_attempt_at)
            .bind(submission.dot_intent_at)
            .bind(submission.detail.clone())
            .bind(word(&submission.sent_copy));
        self.execute(query).await?;
        self.set_recipients(submission.message, &submission.recipients).await
    }

    /// Takes a step from whatever state.
    ///
    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn set_submission_state(
        &mut self,
        message: MessageKey,
        step: &SubmissionStep,
    ) -> Result<(), Error> {
        let query = sql(
            "update submissions set state = $3, attempt = $4, next_attempt_at = $5, dot_intent_at = $6, \
             detail = $7 where workspace = $1 and message = $2",
        )
        .bind(self.workspace())
        .bind(message)
        .bind(word(&step.state))
        .bind(step.attempt)
        .bind(step.next_attempt_at)
        .bind(step.dot_intent_at)
        .bind(step.detail.clone());
        changed(self.execute(query).await?)
    }

    /// Writes how recipients fare; those not named stay as they are.
    ///
    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn set_recipients(
        &mut self,
        message: MessageKey,
        recipients: &[RecipientState],
    ) -> Result<(), Error> {
        let workspace = self.workspace();
        let mut seen = std::collections::HashSet::new();
        let once: Vec<_> = recipients.iter().filter(|state| seen.insert(&state.recipient.address)).collect();
        for some in once.chunks(LIST_MAX) {
            let rows = some.iter().map(|state| -> [Arg; 12] {
                [
                    workspace.into(),
                    message.into(),
                    state.recipient.address.to_string().into(),
                    json_text(&state.recipient.notify).into(),
                    state.recipient.original.clone().into(),
                    word(&state.role).into(),
                    word(&state.state).into(),
                    state.code.into(),
                    state.status.clone().into(),
                    state.text.clone().into(),
                    state.doubts.into(),
                    state.held_for.as_ref().map(word).into(),
                ]
            });
            let query = Statement::new(
                "insert into submission_recipients (workspace, message, address, notify, original, role, state, code, \
                 status, text, doubts, held_for) values ",
            )
            .rows(rows)
            .text(
                " on conflict (workspace, message, address) do update set notify = excluded.notify, \
                 role = excluded.role, state = excluded.state, code = excluded.code, status = excluded.status, text = excluded.text, \
                 doubts = excluded.doubts, held_for = excluded.held_for",
            )
            .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Names a recipient by another address. Whoever adds recipients to the submission waits for it.
    ///
    /// # Errors
    /// `Missing` when he is no recipient of it, `Conflict` when the other address is.
    pub async fn readdress_recipient(
        &mut self,
        message: MessageKey,
        (from, to): (&Address, &Address),
    ) -> Result<(), Error> {
        self.lock_filing().await?;
        let query = sql("update submission_recipients set address = $4 \
             where workspace = $1 and message = $2 and address = $3")
        .bind(self.workspace())
        .bind(message)
        .bind(from.to_string())
        .bind(to.to_string());
        changed(self.execute(query).await?)
    }

    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn set_dsn_order(&mut self, message: MessageKey, dsn: &DsnOrder) -> Result<(), Error> {
        let query = sql("update submissions set dsn = $3 where workspace = $1 and message = $2")
            .bind(self.workspace())
            .bind(message)
            .bind(json_text(dsn));
        changed(self.execute(query).await?)
    }

    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn set_sent_copy(&mut self, message: MessageKey, sent_copy: SentCopy) -> Result<(), Error> {
        let query = sql("update submissions set sent_copy = $3 where workspace = $1 and message = $2")
            .bind(self.workspace())
            .bind(message)
            .bind(word(&sent_copy));
        changed(self.execute(query).await?)
    }
}

impl Session {
    pub async fn submission(&mut self, message: MessageKey) -> Result<Option<Submission>, Error> {
        let query =
            sql(format!("select {COLUMNS} from submissions s where s.workspace = $1 and s.message = $2"))
                .bind(self.workspace())
                .bind(message);
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_submissions(row.as_slice()).await?.pop())
    }

    /// The submissions of these messages: for showing a page of them.
    pub async fn submissions(
        &mut self,
        messages: &[MessageKey],
    ) -> Result<HashMap<MessageKey, Submission>, Error> {
        let mut found = HashMap::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new(format!("select {COLUMNS} from submissions s where s.workspace = "))
                .arg(self.workspace())
                .text(" and s.message in ")
                .list(some)
                .query();
            let rows = self.fetch_all(query).await?;
            let some = self.complete_submissions(&rows).await?;
            found.extend(some.into_iter().map(|submission| (submission.message, submission)));
        }
        Ok(found)
    }

    /// Submissions of this user, or of everybody, that are held for want of a way out, longest accepted first, behind the
    /// one accepted then. What was held because it may have been sent already is not among them.
    pub async fn submissions_held(
        &mut self,
        user: Option<UserId>,
        (after, limit): (Option<(Timestamp, MessageKey)>, u32),
    ) -> Result<Vec<Submission>, Error> {
        let (at, message) = after.unzip();
        let query = Statement::new(format!(
            "select {COLUMNS} from submissions s \
             join messages m on m.workspace = s.workspace and m.id = s.message where s.workspace = "
        ))
        .arg(self.workspace())
        .text(" and s.state = ")
        .arg(word(&SubmissionState::Held))
        .given(" and m.author_role = 'user' and m.author_id = ", user)
        .text(
            " and exists (select 1 from submission_recipients r where r.workspace = s.workspace \
             and r.message = s.message and r.state = ",
        )
        .arg(word(&SubmissionState::Held))
        .text(" and r.held_for = ")
        .arg(word(&Hold::WayOut))
        .text(")")
        .given(" and (s.accepted_at, s.message) > (", at)
        .given(", ", message)
        .text(if after.is_some() { ")" } else { "" })
        .text(" order by s.accepted_at, s.message limit ")
        .arg(limit.min(LIST_ROWS_MAX))
        .query();
        let rows = self.fetch_all(query).await?;
        self.complete_submissions(&rows).await
    }

    /// The submission of the message known by this id: how a DSN or a Sent copy finds what it is about. Of several, the
    /// one accepted last.
    pub async fn submission_by_rfc822_id(&mut self, id: &MessageId) -> Result<Option<Submission>, Error> {
        let query = sql(format!(
            "select {COLUMNS} from message_ids i \
             join submissions s on s.workspace = i.workspace and s.message = i.message \
             where i.workspace = $1 and i.rfc822_id = $2 order by s.accepted_at desc, s.message desc limit 1"
        ))
        .bind(self.workspace())
        .bind(id.as_str());
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_submissions(row.as_slice()).await?.pop())
    }

    /// How many messages of a conversation copies were made of since then.
    pub async fn copied_since(
        &mut self,
        conversation: ConversationId,
        since: Timestamp,
    ) -> Result<u64, Error> {
        let query = sql("select count(*) as copied from messages m \
             join submissions s on s.workspace = m.workspace and s.message = m.id \
             where m.workspace = $1 and m.conversation = $2 and s.accepted_at >= $3 \
             and exists (select 1 from submission_recipients r where r.workspace = s.workspace \
             and r.message = s.message and r.role = 'copy')")
        .bind(self.workspace())
        .bind(conversation)
        .bind(since);
        self.fetch_one(query).await?.get("copied")
    }

    /// Whether any mail was handed in for this account to send since then.
    pub async fn has_sent_by(&mut self, account: AccountId, since: Timestamp) -> Result<bool, Error> {
        let query = sql("select message from submissions where workspace = $1 and account = $2 \
             and accepted_at >= $3 limit 1")
        .bind(self.workspace())
        .bind(account)
        .bind(since);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// Adds the recipients to rows of submissions: one statement, however many there are.
    async fn complete_submissions(&mut self, rows: &[Row]) -> Result<Vec<Submission>, Error> {
        let mut submissions: Vec<Submission> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if submissions.is_empty() {
            return Ok(submissions);
        }
        let keys: Vec<_> = submissions.iter().map(|submission| submission.message).collect();
        let query = Statement::new(
            "select message, address, notify, original, role, state, code, status, text, doubts, held_for \
             from submission_recipients where workspace = ",
        )
        .arg(self.workspace())
        .text(" and message in ")
        .list(&keys)
        .text(" order by address")
        .query();
        let mut recipients: HashMap<MessageKey, Vec<RecipientState>> = HashMap::new();
        for row in self.fetch_all(query).await? {
            recipients.entry(row.id("message")?).or_default().push(read_recipient(&row)?);
        }
        for submission in &mut submissions {
            submission.recipients = recipients.remove(&submission.message).unwrap_or_default();
        }
        Ok(submissions)
    }
}

/// Most submissions that are read at once.
const LIST_ROWS_MAX: u32 = 1000;

fn read(row: &Row) -> Result<Submission, Error> {
    let reverse_path = match row.get::<String>("reverse_path")?.is_empty() {
        true => ReversePath::Null,
        false => ReversePath::Address(row.address("reverse_path")?),
    };
    Ok(Submission {
        message: row.id("message")?,
        account: row.opt_id("account")?,
        class: row.word("class")?,
        reverse_path,
        dsn: row.json("dsn")?,
        principal: row.json("principal")?,
        blob: row.get("blob")?,
        state: row.word("state")?,
        attempt: row.get("attempt")?,
        accepted_at: row.get("accepted_at")?,
        next_attempt_at: row.get("next_attempt_at")?,
        dot_intent_at: row.get("dot_intent_at")?,
        detail: row.get("detail")?,
        sent_copy: row.word("sent_copy")?,
        recipients: Vec::new(),
    })
}

fn read_recipient(row: &Row) -> Result<RecipientState, Error> {
    Ok(RecipientState {
        recipient: Recipient {
            address: row.address("address")?,
            notify: row.json("notify")?,
            original: row.get("original")?,
        },
        role: row.word("role")?,
        state: row.word("state")?,
        code: row.get("code")?,
        status: row.get("status")?,
        text: row.get("text")?,
        doubts: row.get("doubts")?,
        held_for: row.opt_word("held_for")?,
    })
}
