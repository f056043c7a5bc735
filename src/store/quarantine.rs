//! Mail that is kept aside: a row for each, until it was decided about, and then who decided what.
//!
//! Not here: its bytes, which stay with what was taken in (`store::intake`), and deciding (`flow::hold`).

use jiff::Timestamp;

use super::{
    Error, Page, ReadSystem, Session, Tx,
    columns::{json_text, word},
    intake::InboundState,
    sql::{Row, sql},
    statement::Statement,
};
use crate::core::{
    ids::{Id as _, MessageKey, UserId, WorkspaceId},
    quarantine::{Held, NewHeld, QuarantineState, USER_MAX, WORKSPACE_MAX},
    trail::Act,
};

const COLUMNS: &str = "id, state, level, rule, reason, user_id, shown, received_at, expires_at, settled_at, settled_by, is_trusted";

/// Which mail in quarantine to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldFilter {
    /// All that nothing was decided about, when left out.
    pub state: Option<QuarantineState>,
    /// That alone which concerns this user.
    pub user: Option<UserId>,
}

impl Tx {
    /// Keeps mail aside. What was decided about it before counts no more.
    ///
    /// # Errors
    /// `Missing` when there is no such mail.
    pub async fn put_held(&mut self, held: &NewHeld) -> Result<(), Error> {
        let query = sql("insert into quarantine (workspace, id, state, level, rule, reason, user_id, identity, id_hash, \
             shown, received_at, expires_at, wording) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             on conflict (workspace, id) do update set state = excluded.state, level = excluded.level, \
             rule = excluded.rule, reason = excluded.reason, user_id = excluded.user_id, shown = excluded.shown, \
             expires_at = excluded.expires_at, settled_at = null, settled_by = null, is_trusted = 0")
        .bind(self.workspace())
        .bind(held.id)
        .bind(word(&held.state))
        .bind(held.level.map(|level| word(&level)))
        .bind(held.rule)
        .bind(held.reason)
        .bind(held.user)
        .bind(held.identity)
        .bind(held.id_hash)
        .bind(held.shown.as_ref().map(json_text))
        .bind(held.received_at)
        .bind(held.expires_at)
        .bind(held.wording.map(|wording| wording.to_vec()));
        self.execute(query).await.map(drop)
    }

    /// Writes down what was decided, and forgets what was shown. False when somebody was faster.
    pub async fn settle_held(
        &mut self,
        id: MessageKey,
        (state, by): (QuarantineState, &str),
        is_trusted: bool,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let query =
            sql("update quarantine set state = $3, settled_by = $4, settled_at = $5, is_trusted = $6, \
             shown = null where workspace = $1 and id = $2 and settled_at is null")
            .bind(self.workspace())
            .bind(id)
            .bind(word(&state))
            .bind(by)
            .bind(now)
            .bind(i64::from(is_trusted));
        let is_settled = self.execute(query).await? > 0;
        let act = match state {
            QuarantineState::Released if is_trusted => Some(Act::MailTrusted),
            QuarantineState::Released => Some(Act::MailReleased),
            QuarantineState::Rejected => Some(Act::MailRejected),
            // Time's doing, and nobody's.
            QuarantineState::Expired | QuarantineState::Checking | QuarantineState::Held => None,
        };
        if let Some(act) = act.filter(|_| is_settled) {
            self.note_act_of(by, act, id.uuid()).await?;
        }
        Ok(is_settled)
    }

    /// Writes down that a rule kept out what a person had released: nothing is left of it. The release stays in the trail.
    pub async fn overrule_release(&mut self, id: MessageKey, by: &str, now: Timestamp) -> Result<(), Error> {
        let query =
            sql("update quarantine set state = $3, settled_by = $4, settled_at = $5, is_trusted = 0 \
             where workspace = $1 and id = $2 and state = $6")
            .bind(self.workspace())
            .bind(id)
            .bind(word(&QuarantineState::Rejected))
            .bind(by)
            .bind(now)
            .bind(word(&QuarantineState::Released));
        if self.execute(query).await? > 0 {
            self.note_act_of(by, Act::MailRejected, id.uuid()).await?;
        }
        Ok(())
    }

    /// Has mail that was kept aside looked at again. False when it is not kept aside.
    pub async fn reopen_inbound(&mut self, id: MessageKey) -> Result<bool, Error> {
        let query = sql("update inbound set state = $3 where workspace = $1 and id = $2 and state = $4")
            .bind(self.workspace())
            .bind(id)
            .bind(InboundState::Pending.as_str())
            .bind(InboundState::Held.as_str());
        Ok(self.execute(query).await? > 0)
    }

    /// What lies in quarantine beyond these numbers: first what strangers and machines can send any number of, then what names a user
    /// and proves nothing, of each the oldest; last what DNS is still asked about.
    pub async fn held_beyond(&mut self, user: Option<UserId>, most: u64) -> Result<Vec<MessageKey>, Error> {
        let open = Statement::new("select id from quarantine where settled_at is null and workspace = ")
            .arg(self.workspace())
            .given(" and user_id = ", user)
            .text(
                " order by case when state = 'checking' then 0 \
                 when rule in ('possible_loop', 'reply_from_other_address', 'report_on_other_mail') then 3 \
                 when level is null or level = 'e2' then 1 when user_id is not null then 2 else 3 end, \
                 received_at desc, id desc limit 100 offset ",
            )
            .arg(i64::try_from(most).unwrap_or(i64::MAX))
            .query();
        self.fetch_all(open).await?.iter().map(|row| row.id("id")).collect()
    }
}

impl Session {
    pub async fn held(&mut self, id: MessageKey) -> Result<Option<Held>, Error> {
        let query = sql(format!("select {COLUMNS} from quarantine where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
        self.fetch_optional(query).await?.as_ref().map(read).transpose()
    }

    /// Newest first.
    pub async fn quarantine(&mut self, page: &Page, filter: HeldFilter) -> Result<Vec<Held>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from quarantine where workspace = "))
            .arg(self.workspace());
        let query = match filter.state {
            Some(state) => query.text(" and state = ").arg(word(&state)),
            None => query.text(" and settled_at is null"),
        };
        let query = query.given(" and user_id = ", filter.user).page(page, "received_at", "id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Whether no more can be kept aside for a user, or for anybody, without that something goes.
    pub async fn is_quarantine_full(&mut self, user: UserId) -> Result<bool, Error> {
        let query = sql("select count(*) as of_all, count(case when user_id = $2 then 1 end) as of_user \
             from quarantine where workspace = $1 and settled_at is null")
        .bind(self.workspace())
        .bind(user);
        let row = self.fetch_one(query).await?;
        let is_full = |count: i64, most: u64| u64::try_from(count).is_ok_and(|count| count >= most);
        Ok(is_full(row.get("of_all")?, WORKSPACE_MAX) || is_full(row.get("of_user")?, USER_MAX))
    }

    /// Mail that says the same and that nothing was decided about.
    pub async fn held_with_wording(&mut self, wording: &[u8; 32]) -> Result<Vec<Held>, Error> {
        let query = sql(format!(
            "select {COLUMNS} from quarantine where workspace = $1 and wording = $2 and settled_at is null \
             order by received_at, id"
        ))
        .bind(self.workspace())
        .bind(*wording);
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Whether mail with a Message-ID of this hash lies in quarantine.
    pub async fn is_held_by_id(&mut self, id_hash: &[u8; 16]) -> Result<bool, Error> {
        let query = sql(
            "select id from quarantine where workspace = $1 and id_hash = $2 and settled_at is null limit 1",
        )
        .bind(self.workspace())
        .bind(*id_hash);
        Ok(self.fetch_optional(query).await?.is_some())
    }
}

impl ReadSystem {
    /// Some of the mail that nobody decided about in time, of every workspace.
    pub async fn overdue_in_quarantine(
        &mut self,
        now: Timestamp,
        most: u32,
    ) -> Result<Vec<(WorkspaceId, MessageKey)>, Error> {
        let query =
            sql("select workspace, id from quarantine where settled_at is null and expires_at <= $1 \
             order by expires_at limit $2")
            .bind(now)
            .bind(most);
        self.fetch_all(query).await?.iter().map(|row| Ok((row.id("workspace")?, row.id("id")?))).collect()
    }
}

fn read(row: &Row) -> Result<Held, Error> {
    Ok(Held {
        id: row.id("id")?,
        state: row.word("state")?,
        level: row.opt_word("level")?,
        rule: row.get("rule")?,
        reason: row.get("reason")?,
        user: row.opt_id("user_id")?,
        shown: row.opt_json("shown")?,
        received_at: row.get("received_at")?,
        expires_at: row.get("expires_at")?,
        settled_at: row.get("settled_at")?,
        settled_by: row.get("settled_by")?,
        is_trusted: row.get::<i64>("is_trusted")? != 0,
    })
}
