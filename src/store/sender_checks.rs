//! What was found of who sent captured mail, what followed from it, and by which ways a user's mail has come.
//!
//! Not here: weighing it (`core::evidence`).

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    Error, Session, Tx,
    columns::{json_text, word},
    sql::{Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        evidence::{Context, Evidence, KnownRoute, Level, Mark, SendingRoute, Witness},
        ids::MessageKey,
    },
    mail::Address,
};

/// What is written down of one captured mail.
#[derive(Debug, Clone)]
pub struct NewSenderCheck<'a> {
    pub inbound: MessageKey,
    pub identity: [u8; 32],
    /// All that a reader is shown of it, hashed: what a copy in Sent must say too.
    pub wording: [u8; 32],
    pub witness: &'a Witness,
    /// With what followed, once DNS has answered.
    pub weighed: Option<(&'a Context, &'a Evidence)>,
    pub mark: Option<Mark>,
    pub route: Option<&'a str>,
    pub asked: u32,
    pub at: Timestamp,
}

/// What was found before.
#[derive(Debug, Clone)]
pub struct SenderCheck {
    pub witness: Witness,
    pub context: Option<Context>,
    /// What followed, once DNS had answered.
    pub level: Option<Level>,
    pub asked: u32,
    pub checked_at: Timestamp,
    /// The same message lies in the author's own Sent mailbox.
    pub is_sent: bool,
}

/// How far the sender of a message is believed, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub level: Level,
    pub rule: String,
    pub reason: String,
    pub mark: Option<Mark>,
    pub route: Option<String>,
    pub checked_at: Timestamp,
    /// Whose key let it in, where a person did.
    pub released_by: Option<String>,
}

impl Tx {
    /// Writes down what was found of a mail's sender, in place of what was found before.
    ///
    /// # Errors
    /// `Missing` when there is no such mail.
    pub async fn put_sender_check(&mut self, check: &NewSenderCheck<'_>) -> Result<(), Error> {
        let evidence = check.weighed.map(|(_, evidence)| evidence);
        let query = sql("insert into sender_checks (workspace, inbound, identity, wording, facts, context, level, rule, \
             reason, mark, route, asked, checked_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             on conflict (workspace, inbound) do update set facts = excluded.facts, context = excluded.context, \
             level = excluded.level, rule = excluded.rule, reason = excluded.reason, mark = excluded.mark, \
             route = excluded.route, asked = excluded.asked, checked_at = excluded.checked_at")
        .bind(self.workspace())
        .bind(check.inbound)
        .bind(check.identity)
        .bind(check.wording)
        .bind(json_text(check.witness))
        .bind(check.weighed.map(|(context, _)| json_text(context)))
        .bind(evidence.map(|evidence| word(&evidence.level)))
        .bind(evidence.map(|evidence| evidence.rule))
        .bind(evidence.map(|evidence| evidence.reason))
        .bind(check.mark.map(|mark| word(&mark)))
        .bind(check.route)
        .bind(check.asked)
        .bind(check.at);
        self.execute(query).await.map(drop)
    }

    /// Notes what message a captured mail became part of.
    pub async fn link_sender_check(&mut self, inbound: MessageKey, message: MessageKey) -> Result<(), Error> {
        let query = sql("update sender_checks set message = $3 where workspace = $1 and inbound = $2")
            .bind(self.workspace())
            .bind(inbound)
            .bind(message);
        self.execute(query).await.map(drop)
    }

    /// Says beside what was filed that a person let it in. What was found of its sender stays; where nothing was, this is known of
    /// him.
    pub async fn note_released(
        &mut self,
        inbound: MessageKey,
        (level, rule, reason): (Level, &str, &str),
        now: Timestamp,
    ) -> Result<(), Error> {
        let query = sql("insert into sender_checks (workspace, inbound, identity, facts, level, rule, reason, mark, asked, \
             checked_at) select workspace, id, identity, $3, $4, $5, $6, $7, 0, $8 from quarantine \
             where workspace = $1 and id = $2 on conflict (workspace, inbound) do update set mark = excluded.mark, \
             rule = case when sender_checks.level is null then excluded.rule else sender_checks.rule end, \
             reason = case when sender_checks.level is null then excluded.reason else sender_checks.reason end, \
             level = coalesce(sender_checks.level, excluded.level)")
        .bind(self.workspace())
        .bind(inbound)
        .bind(json_text(&Witness::Unasked))
        .bind(word(&level))
        .bind(rule)
        .bind(reason)
        .bind(word(&Mark::Released))
        .bind(now);
        self.execute(query).await.map(drop)
    }

    /// Forgets what was found of the sender of mail of which nothing is kept.
    pub async fn forget_sender_check(&mut self, inbound: MessageKey) -> Result<(), Error> {
        let query = sql("delete from sender_checks where workspace = $1 and inbound = $2")
            .bind(self.workspace())
            .bind(inbound);
        self.execute(query).await.map(drop)
    }

    /// Notes that a message which says the same was found in its author's own Sent mailbox.
    pub async fn note_sent_copies(&mut self, wording: &[u8; 32], now: Timestamp) -> Result<(), Error> {
        let query = sql("update sender_checks set sent_copy_at = $3 where workspace = $1 and wording = $2")
            .bind(self.workspace())
            .bind(*wording)
            .bind(now);
        self.execute(query).await.map(drop)
    }

    /// Notes what a message says as its author sent it: as it lies where only what he sends lies, or was handed in.
    pub async fn note_sent_wording(&mut self, message: MessageKey, wording: &[u8; 32]) -> Result<(), Error> {
        let query = sql("update messages set sent_wording = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(message)
            .bind(*wording);
        self.execute(query).await.map(drop)
    }

    /// Notes that mail of an address came by a route.
    pub async fn see_route(
        &mut self,
        address: &Address,
        route: &SendingRoute,
        now: Timestamp,
    ) -> Result<(), Error> {
        let query = sql("insert into sender_routes (workspace, address, route, is_own, first_seen_at) \
             values ($1, $2, $3, $4, $5) on conflict (workspace, address, route) do update set \
             first_seen_at = coalesce(sender_routes.first_seen_at, excluded.first_seen_at)")
        .bind(self.workspace())
        .bind(address.key())
        .bind(route.name.as_str())
        .bind(i64::from(route.is_own))
        .bind(now);
        self.execute(query).await.map(drop)
    }

    /// Knows a route of an address no more, unless it was chosen to be trusted.
    pub async fn forget_route(&mut self, address: &Address, route: &str) -> Result<(), Error> {
        let query = sql("delete from sender_routes where workspace = $1 and address = $2 and route = $3 \
             and pinned_until is null")
        .bind(self.workspace())
        .bind(address.key())
        .bind(route);
        self.execute(query).await.map(drop)
    }

    /// Trusts a route of an address until then.
    pub async fn pin_route(
        &mut self,
        address: &Address,
        route: &SendingRoute,
        (until, by): (Timestamp, &str),
    ) -> Result<(), Error> {
        let query =
            sql("insert into sender_routes (workspace, address, route, is_own, pinned_until, pinned_by) \
             values ($1, $2, $3, $4, $5, $6) on conflict (workspace, address, route) do update set \
             pinned_until = excluded.pinned_until, pinned_by = excluded.pinned_by")
            .bind(self.workspace())
            .bind(address.key())
            .bind(route.name.as_str())
            .bind(i64::from(route.is_own))
            .bind(until)
            .bind(by);
        self.execute(query).await.map(drop)
    }
}

impl Session {
    /// What was found of the sender of a captured mail.
    pub async fn sender_check(&mut self, inbound: MessageKey) -> Result<Option<SenderCheck>, Error> {
        let query = sql("select facts, context, level, asked, checked_at, sent_copy_at from sender_checks \
             where workspace = $1 and inbound = $2")
        .bind(self.workspace())
        .bind(inbound);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        Ok(Some(SenderCheck {
            witness: row.json("facts")?,
            context: row.opt_json("context")?,
            level: row.opt_word("level")?,
            asked: row.get("asked")?,
            checked_at: row.get("checked_at")?,
            is_sent: row.get::<Option<Timestamp>>("sent_copy_at")?.is_some(),
        }))
    }

    /// Whether a message of this identity was captured before, by another route than this.
    pub async fn is_captured_otherwise(
        &mut self,
        identity: &[u8; 32],
        (inbound, route): (MessageKey, Option<&str>),
    ) -> Result<bool, Error> {
        let query = sql(
            "select inbound from sender_checks where workspace = $1 and identity = $2 and inbound <> $3 \
             and message is not null and route is not null and route <> $4 limit 1",
        )
        .bind(self.workspace())
        .bind(*identity)
        .bind(inbound)
        .bind(route.unwrap_or_default());
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// What a message says as its author sent it; `None` where nobody has seen that he did.
    pub async fn sent_wording(&mut self, message: MessageKey) -> Result<Option<[u8; 32]>, Error> {
        let query = sql("select sent_wording from messages where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(message);
        let row = self.fetch_optional(query).await?;
        row.map(|row| row.get::<Option<Vec<u8>>>("sent_wording"))
            .transpose()
            .map(|wording| wording.flatten().and_then(|wording| wording.try_into().ok()))
    }

    /// The routes that mail of an address has come by, or that were chosen to be trusted.
    pub async fn known_routes(&mut self, address: &Address) -> Result<Vec<KnownRoute>, Error> {
        let query = sql("select route, is_own, first_seen_at, pinned_until from sender_routes \
             where workspace = $1 and address = $2")
        .bind(self.workspace())
        .bind(address.key());
        self.fetch_all(query).await?.iter().map(read_route).collect()
    }

    /// How far the senders of these messages are believed; of several copies the best counts.
    pub async fn verifications(
        &mut self,
        messages: &[MessageKey],
    ) -> Result<HashMap<MessageKey, Verification>, Error> {
        let mut best: HashMap<MessageKey, Verification> = HashMap::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new(
                "select c.message, c.level, c.rule, c.reason, c.mark, c.route, c.checked_at, q.settled_by \
                 from sender_checks c left join quarantine q on q.workspace = c.workspace and q.id = c.inbound \
                 where c.level is not null and c.workspace = ",
            )
            .arg(self.workspace())
            .text(" and c.message in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                let verification = read_verification(&row)?;
                let message = row.id("message")?;
                if best.get(&message).is_none_or(|known| known.level < verification.level) {
                    best.insert(message, verification);
                }
            }
        }
        Ok(best)
    }
}

fn read_route(row: &Row) -> Result<KnownRoute, Error> {
    Ok(KnownRoute {
        name: row.get("route")?,
        is_own: row.get::<i64>("is_own")? != 0,
        first_seen_at: row.get("first_seen_at")?,
        pinned_until: row.get("pinned_until")?,
    })
}

fn read_verification(row: &Row) -> Result<Verification, Error> {
    let mark = row.opt_word("mark")?;
    let settled_by: Option<String> = row.get("settled_by")?;
    Ok(Verification {
        released_by: settled_by.filter(|_| mark == Some(Mark::Released)),
        level: row.word("level")?,
        rule: row.get("rule")?,
        reason: row.get("reason")?,
        mark,
        route: row.get("route")?,
        checked_at: row.get("checked_at")?,
    })
}
