//! What admins allow, what users have used of it, and what is left over for later.
//!
//! Not here: windows and what follows from them (`core::limits`). A count is written in the transaction of what it counts:
//! neither is there without the other.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Error, PURGE_ROWS_MAX, ReadSystem, Session, System, Tx,
    columns::{json_text, stored_count, word},
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        allowance::{Allowance, Limits},
        ids::{AccountId, DecisionId, Id as _, MessageKey, UserId, WorkspaceId},
        inbound::Principal,
        limits::{Count, Counted, Level, PLACELESS, Quota},
        policy::Preset,
        trail::Act,
    },
    mail::MessageId,
};

/// Most rows that are looked after at once.
const ROWS_MAX: u32 = 200;
/// Recipients that are counted before somebody's place in the queue: who waits behind more is told less than the truth, and
/// looks again then.
const AHEAD_MAX: u32 = 1000;

/// A limit that was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldLevel {
    pub workspace: WorkspaceId,
    /// Whose limit; `None` for the workspace's own.
    pub user: Option<UserId>,
    pub quota: Quota,
}

/// An account that waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub account: AccountId,
    pub user: UserId,
    pub since: Timestamp,
}

impl Tx {
    /// Allows the workspace, or one of its users, this much in place of what was.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn put_limits(&mut self, user: Option<UserId>, limits: &Limits) -> Result<(), Error> {
        let query = sql("insert into limits (workspace, subject, body) values ($1, $2, $3) \
             on conflict (workspace, subject) do update set body = excluded.body")
        .bind(self.workspace())
        .bind(self.subject(user))
        .bind(json_text(limits));
        self.execute(query).await?;
        let subject = self.subject(user);
        let actor = self.actor().to_owned();
        self.note_act_of(&actor, Act::LimitsChanged, subject).await
    }

    /// Counts, in one statement.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn count_usage(
        &mut self,
        user: UserId,
        counts: &[(Counted, Timestamp, u64)],
    ) -> Result<(), Error> {
        let mut sums: BTreeMap<(Counted, Timestamp), u64> = BTreeMap::new();
        for (counted, slot, count) in counts.iter().filter(|(_, _, count)| *count > 0) {
            let sum = sums.entry((*counted, *slot)).or_default();
            *sum = sum.saturating_add(*count);
        }
        let workspace = self.workspace();
        let sums: Vec<_> = sums.into_iter().collect();
        for some in sums.chunks(LIST_MAX) {
            let rows = some.iter().map(|((counted, slot), sum)| -> [Arg; 5] {
                [
                    workspace.into(),
                    user.into(),
                    word(counted).into(),
                    (*slot).into(),
                    stored_count(*sum).into(),
                ]
            });
            let query =
                Statement::new("insert into usage_counts (workspace, user_id, counted, slot, used) values ")
                    .rows(rows)
                    .text(
                        " on conflict (workspace, user_id, counted, slot) do update set \
                         used = usage_counts.used + excluded.used",
                    )
                    .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Takes back what was counted in a slot.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn uncount_usage(
        &mut self,
        user: UserId,
        (counted, slot, count): (Counted, Timestamp, u64),
    ) -> Result<(), Error> {
        let query = sql("update usage_counts set used = case when used > $5 then used - $5 else 0 end \
             where workspace = $1 and user_id = $2 and counted = $3 and slot = $4")
        .bind(self.workspace())
        .bind(user)
        .bind(word(&counted))
        .bind(slot)
        .bind(stored_count(count));
        self.execute(query).await.map(drop)
    }

    /// Notes how near a limit is, to be looked at again then. True when that is more than was noted before: then it is to be
    /// told.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn raise_quota_level(
        &mut self,
        (user, quota): (Option<UserId>, Quota),
        level: Level,
        check_at: Timestamp,
    ) -> Result<bool, Error> {
        let query = sql("insert into quota_levels (workspace, subject, quota, level, check_at) \
             values ($1, $2, $3, $4, $5) on conflict (workspace, subject, quota) do update set \
             level = excluded.level, check_at = excluded.check_at \
             where quota_levels.level = 'warning' and excluded.level = 'exceeded' returning level")
        .bind(self.workspace())
        .bind(self.subject(user))
        .bind(word(&quota))
        .bind(word(&level))
        .bind(check_at);
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// The level that a limit was told to be at. Until this transaction ends nobody else looks after it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn told_quota_level(
        &mut self,
        (user, quota): (Option<UserId>, Quota),
    ) -> Result<Option<Level>, Error> {
        let locked = if self.store().is_shared() { " for update" } else { "" };
        let query = sql(format!(
            "select level from quota_levels where workspace = $1 and subject = $2 and quota = $3{locked}"
        ))
        .bind(self.workspace())
        .bind(self.subject(user))
        .bind(word(&quota));
        self.fetch_optional(query).await?.map(|row| row.word("level")).transpose()
    }

    /// Notes a lower level, or with `None` that there is nothing more to tell of it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn lower_quota_level(
        &mut self,
        (user, quota): (Option<UserId>, Quota),
        level: Option<Level>,
        check_at: Timestamp,
    ) -> Result<(), Error> {
        let text = match level {
            Some(_) => {
                "update quota_levels set level = $4, check_at = $5 \
                 where workspace = $1 and subject = $2 and quota = $3"
            }
            None => "delete from quota_levels where workspace = $1 and subject = $2 and quota = $3",
        };
        let mut query = sql(text).bind(self.workspace()).bind(self.subject(user)).bind(word(&quota));
        if let Some(level) = level {
            query = query.bind(word(&level)).bind(check_at);
        }
        self.execute(query).await.map(drop)
    }

    /// Has all limits of the workspace that were told of looked at now.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn hasten_quota_checks(&mut self, now: Timestamp) -> Result<(), Error> {
        let query = sql("update quota_levels set check_at = $2 where workspace = $1 and check_at > $2")
            .bind(self.workspace())
            .bind(now);
        self.execute(query).await.map(drop)
    }

    /// Notes that an account's provider takes no more of its mail until then.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn rest_sending(&mut self, account: AccountId, until: Timestamp) -> Result<(), Error> {
        let query = sql("insert into send_rests (workspace, account, until) values ($1, $2, $3) \
             on conflict (workspace, account) do update set until = excluded.until")
        .bind(self.workspace())
        .bind(account)
        .bind(until);
        self.execute(query).await.map(drop)
    }
}

impl Session {
    fn subject(&self, user: Option<UserId>) -> Uuid {
        user.map_or_else(|| self.workspace().uuid(), UserId::uuid)
    }

    /// What is said of the limits of a user, or of the workspace where none is named.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn allowance(&mut self, user: Option<UserId>) -> Result<Allowance, Error> {
        let (workspace, subject) = (self.workspace(), self.subject(user));
        let query =
            sql("select w.timezone, w.preset, u.preset as user_preset, l.subject, l.body from workspaces w \
             left join users u on u.workspace = w.id and u.id = $2 \
             left join limits l on l.workspace = w.id and l.subject in (w.id, $2) where w.id = $1")
            .bind(workspace)
            .bind(subject);
        let rows = self.fetch_all(query).await?;
        let first = rows.first().ok_or(Error::Missing)?;
        let preset = limits_of(&first.get::<String>("preset")?)?;
        let own_preset = first.get::<Option<String>>("user_preset")?;
        let mut allowance = Allowance {
            timezone: first.get("timezone")?,
            preset,
            users_preset: own_preset.as_deref().map_or(Ok(preset), limits_of)?,
            workspace: Limits::default(),
            user: Limits::default(),
        };
        for row in &rows {
            let Some(limits) = row.opt_json("body")? else { continue };
            match row.get::<Option<Uuid>>("subject")? == Some(workspace.uuid()) {
                true => allowance.workspace = limits,
                false => allowance.user = limits,
            }
        }
        Ok(allowance)
    }

    /// What was counted of a user in the slots since then, in order.
    pub async fn usage(
        &mut self,
        user: UserId,
        counted: Counted,
        since: Timestamp,
    ) -> Result<Vec<Count>, Error> {
        let query = sql("select slot, used from usage_counts \
             where workspace = $1 and user_id = $2 and counted = $3 and slot >= $4 order by slot")
        .bind(self.workspace())
        .bind(user)
        .bind(word(&counted))
        .bind(since);
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok(Count { slot: row.get("slot")?, count: row.get("used")? })).collect()
    }

    /// Until when an account's provider takes no more of its mail.
    pub async fn sending_rests(&mut self, account: AccountId) -> Result<Option<Timestamp>, Error> {
        let query = sql("select until from send_rests where workspace = $1 and account = $2")
            .bind(self.workspace())
            .bind(account);
        self.fetch_optional(query).await?.map(|row| row.get("until")).transpose()
    }

    /// How many accounts of a user, or of the workspace, take a place: all but those that wait for one or have none any more.
    pub async fn accounts_placed(&mut self, user: Option<UserId>) -> Result<u64, Error> {
        let words: Vec<String> = PLACELESS.iter().map(word).collect();
        let query = Statement::new("select count(*) as placed from accounts where workspace = ")
            .arg(self.workspace())
            .given(" and user_id = ", user)
            .text(" and state not in ")
            .list(&words)
            .query();
        self.fetch_one(query).await?.get("placed")
    }

    /// Some accounts that wait for a place, longest waiting first: those that wait after this one, or the first.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn accounts_waiting(&mut self, after: Option<&Waiting>) -> Result<Vec<Waiting>, Error> {
        let (since, account) = after
            .map_or((Timestamp::UNIX_EPOCH, AccountId::from_uuid(Uuid::nil())), |it| (it.since, it.account));
        let query = sql("select id, user_id, connected_at from accounts where workspace = $1 \
             and state = 'waiting_for_quota' and (connected_at, id) > ($2, $3) order by connected_at, id limit $4")
        .bind(self.workspace())
        .bind(since)
        .bind(account)
        .bind(ROWS_MAX);
        let waiting = |row: &Row| {
            Ok(Waiting { account: row.id("id")?, user: row.id("user_id")?, since: row.get("connected_at")? })
        };
        self.fetch_all(query).await?.iter().map(waiting).collect()
    }

    /// Decisions by which mail of an account was put off, first decided first.
    pub async fn decisions_deferred(
        &mut self,
        account: AccountId,
        limit: u32,
    ) -> Result<Vec<DecisionId>, Error> {
        let query = sql("select id from decisions where workspace = $1 and account = $2 \
             and verdict = 'deferred' order by at, id limit $3")
        .bind(self.workspace())
        .bind(account)
        .bind(limit.min(ROWS_MAX));
        self.fetch_all(query).await?.iter().map(|row| row.id("id")).collect()
    }

    /// Those of these Message-IDs under which mail was handed in for sending. What came to a reply address and was passed on was
    /// sent before by whoever wrote it.
    pub async fn submitted_ids(&mut self, ids: &[MessageId]) -> Result<HashSet<MessageId>, Error> {
        let mut found = HashSet::new();
        let texts: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
        for some in texts.chunks(LIST_MAX) {
            let query = Statement::new(
                "select i.rfc822_id, s.principal from message_ids i cross join submissions s \
                 where s.workspace = i.workspace and s.message = i.message and i.workspace = ",
            )
            .arg(self.workspace())
            .text(" and i.rfc822_id in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                if !matches!(row.json("principal")?, Principal::Participant(_)) {
                    found.extend(row.opt_message_id("rfc822_id")?);
                }
            }
        }
        Ok(found)
    }

    /// Messages of a user, and their recipients, that wait to be sent and will be counted then: what came to a reply address
    /// and is passed on is not.
    pub async fn unsent_of(&mut self, user: UserId) -> Result<(u64, u64), Error> {
        self.unsent(user, None).await
    }

    /// The same of those that were taken before this message; of a great many no more than some.
    pub async fn unsent_before(&mut self, user: UserId, message: MessageKey) -> Result<(u64, u64), Error> {
        self.unsent(user, Some(message)).await
    }

    async fn unsent(&mut self, user: UserId, before: Option<MessageKey>) -> Result<(u64, u64), Error> {
        let most = before.map(|_| format!(" limit {AHEAD_MAX}")).unwrap_or_default();
        let query = Statement::new(
            "select count(distinct ahead.message) as messages, count(*) as recipients from (select s.message \
             from submissions s cross join messages m cross join submission_recipients r \
             where m.workspace = s.workspace and m.id = s.message and r.workspace = s.workspace \
             and r.message = s.message and s.state in ('queued', 'deferred') \
             and s.principal not like '{\"participant\"%' \
             and (s.account is not null or s.class = 'individual') and m.author_role = 'user' \
             and r.state in ('queued', 'deferred') and s.workspace = ",
        )
        .arg(self.workspace())
        .text(" and m.author_id = ")
        .arg(user)
        // A key tells when a message was taken.
        .given(" and s.message < ", before)
        .text(&format!("{most}) as ahead"))
        .query();
        let row = self.fetch_one(query).await?;
        Ok((row.get("messages")?, row.get("recipients")?))
    }
}

impl ReadSystem {
    /// Limits that were told of and are to be looked at again, some of them.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn quota_checks_due(&mut self, now: Timestamp) -> Result<Vec<ToldLevel>, Error> {
        let query = sql("select workspace, subject, quota from quota_levels where check_at <= $1 \
             order by check_at limit $2")
        .bind(now)
        .bind(ROWS_MAX);
        self.fetch_all(query).await?.iter().map(read_told).collect()
    }

    /// Workspaces with an account that waits for a place.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn workspaces_with_waiting_accounts(&mut self) -> Result<Vec<WorkspaceId>, Error> {
        let query = sql("select distinct workspace from accounts where state = 'waiting_for_quota'");
        self.fetch_all(query).await?.iter().map(|row| row.id("workspace")).collect()
    }
}

impl System {
    /// Forgets what was counted in slots before then, so much at once that nobody waits long for it. Returns how many rows.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn purge_usage(&mut self, before: Timestamp) -> Result<u64, Error> {
        let query = sql("delete from usage_counts where (workspace, user_id, counted, slot) in \
             (select workspace, user_id, counted, slot from usage_counts where slot < $1 order by slot limit $2)")
        .bind(before)
        .bind(PURGE_ROWS_MAX);
        self.execute(query).await
    }
}

/// What the preset of this name says.
fn limits_of(preset: &str) -> Result<Limits, Error> {
    let preset = Preset::named(preset).ok_or_else(|| Error::Corrupt("the preset is none".into()))?;
    Ok(preset.limits)
}

fn read_told(row: &Row) -> Result<ToldLevel, Error> {
    let (workspace, subject): (WorkspaceId, Uuid) = (row.id("workspace")?, row.get("subject")?);
    let user = (subject != workspace.uuid()).then(|| UserId::from_uuid(subject));
    Ok(ToldLevel { workspace, user, quota: row.word("quota")? })
}
