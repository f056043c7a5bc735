//! Where messages were seen: one message, many sightings.
//!
//! Not here: what a sighting is worth (`core::attribution`).

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    Error, Session, Tx,
    columns::json_text,
    routes,
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        account::MailboxUid,
        ids::{AccountId, Id as _, MessageKey},
        message::{CaptureField, Sighting, SightingRow},
    },
    mail::{Address, MessageId},
};

const COLUMNS: &str = "message, via, account, mailbox, uid_validity, uid, detail, at";

/// What a sighting other than an account's consists of, as JSON.
#[derive(Serialize, Deserialize)]
struct Detail {
    inbound: MessageKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<CaptureField>,
}

/// A mailbox whose UIDVALIDITY changed, and the UIDs its messages had and have.
#[derive(Debug, Clone)]
pub struct Renumbering<'a> {
    pub account: AccountId,
    pub mailbox: &'a [u8],
    /// The former UIDVALIDITY and the present one.
    pub from: u64,
    pub to: u64,
    /// (former UID, present UID) of every message recognised by its content.
    pub uids: &'a [(u32, u32)],
}

impl Tx {
    /// Notes where a message was seen. False when that was known, or the place belongs to another message.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn add_sighting(&mut self, message: MessageKey, row: &SightingRow) -> Result<bool, Error> {
        let at = match &row.sighting {
            Sighting::Account(at) => Some(at),
            _ => None,
        };
        let recipient = match &row.sighting {
            Sighting::Capture { recipient, .. } | Sighting::Reply { recipient, .. } => {
                Some(routes::parts(recipient))
            }
            _ => None,
        };
        let query =
            sql("insert into sightings (workspace, message, origin, via, account, mailbox, uid_validity, \
             uid, detail, at, user_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce(\
             (select a.user_id from accounts a where a.workspace = $1 and a.id = $5), \
             (select r.user_id from routes r where r.workspace = $1 and r.domain = $12 and r.local_part = $11))) \
             on conflict do nothing")
            .bind(self.workspace())
            .bind(message)
            .bind(origin(&row.sighting))
            .bind(row.sighting.via())
            .bind(at.map(|at| at.account))
            .bind(at.map(|at| at.mailbox.as_slice()))
            .bind(at.map(|at| at.uid_validity))
            .bind(at.map(|at| at.uid))
            .bind(detail(&row.sighting).as_ref().map(json_text))
            .bind(row.at)
            .bind(recipient.map(|(local, _)| local))
            .bind(recipient.map(|(_, domain)| domain));
        Ok(self.execute(query).await? > 0)
    }

    /// Carries the sightings and decisions of a mailbox over to its new UIDs, so that nothing is taken for new. A message
    /// that was sighted under its new UID already keeps the old sighting too.
    pub async fn rebind_uid_validity(&mut self, renumbering: &Renumbering<'_>) -> Result<(), Error> {
        for some in renumbering.uids.chunks(LIST_MAX) {
            for table in ["sightings", "decisions"] {
                self.execute(renumber(self.workspace().into(), table, renumbering, some)).await?;
            }
        }
        Ok(())
    }
}

/// One statement that gives the rows of a table their new UIDs.
fn renumber(workspace: Arg, table: &str, to: &Renumbering<'_>, uids: &[(u32, u32)]) -> super::sql::Query {
    let rows = uids.iter().map(|(old, new)| -> [Arg; 3] {
        let at =
            MailboxUid { account: to.account, mailbox: to.mailbox.to_vec(), uid_validity: to.to, uid: *new };
        [(*old).into(), (*new).into(), place_origin(&at).into()]
    });
    let origin = if table == "sightings" { ", origin = v.origin" } else { "" };
    Statement::new("with v (was, present, origin) as (values ")
        .rows(rows)
        .text(&format!(") update {table} set uid = v.present{origin}, uid_validity = "))
        .arg(to.to)
        .text(&format!(" from v where {table}.workspace = "))
        .arg(workspace.clone())
        .text(&format!(" and {table}.account = "))
        .arg(to.account)
        .text(&format!(" and {table}.mailbox = "))
        .arg(to.mailbox)
        .text(&format!(" and {table}.uid_validity = "))
        .arg(to.from)
        .text(&format!(
            " and {table}.uid = v.was and not exists (select 1 from {table} o where o.workspace = "
        ))
        .arg(workspace)
        .text(" and o.account = ")
        .arg(to.account)
        .text(" and o.mailbox = ")
        .arg(to.mailbox)
        .text(" and o.uid_validity = ")
        .arg(to.to)
        .text(" and o.uid = v.present)")
        .query()
}

impl Session {
    /// Every sighting of each message, in the order they were made.
    pub async fn sightings(
        &mut self,
        messages: &[MessageKey],
    ) -> Result<HashMap<MessageKey, Vec<SightingRow>>, Error> {
        let mut found: HashMap<MessageKey, Vec<SightingRow>> = HashMap::new();
        for some in messages.chunks(LIST_MAX) {
            let query = Statement::new(format!("select {COLUMNS} from sightings where workspace = "))
                .arg(self.workspace())
                .text(" and message in ")
                .list(some)
                .text(" order by at, origin")
                .query();
            for row in self.fetch_all(query).await? {
                found.entry(row.id("message")?).or_default().push(read(&row)?);
            }
        }
        Ok(found)
    }

    /// The message that was seen at a place in a mailbox.
    pub async fn sighted_at(&mut self, at: &MailboxUid) -> Result<Option<MessageKey>, Error> {
        let query =
            sql("select message from sightings where workspace = $1 and account = $2 and mailbox = $3 \
             and uid_validity = $4 and uid = $5")
            .bind(self.workspace())
            .bind(at.account)
            .bind(at.mailbox.as_slice())
            .bind(at.uid_validity)
            .bind(at.uid);
        self.fetch_optional(query).await?.map(|row| row.id("message")).transpose()
    }

    /// Those of the UIDs of a mailbox at which something was seen.
    pub async fn sightings_by_uids(
        &mut self,
        account: AccountId,
        mailbox: &[u8],
        uid_validity: u64,
        uids: &[u32],
    ) -> Result<HashSet<u32>, Error> {
        self.uids_at("sightings", (account, mailbox, uid_validity), uids).await
    }

    /// Those of the UIDs of a mailbox (of an account, under a UIDVALIDITY) that have a row in this table.
    pub(super) async fn uids_at(
        &mut self,
        table: &'static str,
        (account, mailbox, uid_validity): (AccountId, &[u8], u64),
        uids: &[u32],
    ) -> Result<HashSet<u32>, Error> {
        let mut found = HashSet::new();
        for some in uids.chunks(LIST_MAX) {
            let query = Statement::new(format!("select uid from {table} where workspace = "))
                .arg(self.workspace())
                .text(" and account = ")
                .arg(account)
                .text(" and mailbox = ")
                .arg(mailbox)
                .text(" and uid_validity = ")
                .arg(uid_validity)
                .text(" and uid in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.get("uid")?);
            }
        }
        Ok(found)
    }
}

/// A place in a mailbox where a message was seen, with an id of that message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SightedId {
    pub id: MessageId,
    pub uid: u32,
}

impl Session {
    /// The UIDs of a mailbox at which messages with these ids were seen.
    pub async fn sighted_with_ids(
        &mut self,
        account: AccountId,
        mailbox: &[u8],
        uid_validity: u64,
        ids: &[MessageId],
    ) -> Result<Vec<SightedId>, Error> {
        let mut found = Vec::new();
        for some in ids.chunks(LIST_MAX) {
            let texts: Vec<_> = some.iter().map(MessageId::as_str).collect();
            let query = Statement::new(
                "select i.rfc822_id, s.uid from message_ids i \
                 join sightings s on s.workspace = i.workspace and s.message = i.message where i.workspace = ",
            )
            .arg(self.workspace())
            .text(" and i.rfc822_id in ")
            .list(&texts)
            .text(" and s.account = ")
            .arg(account)
            .text(" and s.mailbox = ")
            .arg(mailbox)
            .text(" and s.uid_validity = ")
            .arg(uid_validity)
            .text(" order by s.uid")
            .query();
            for row in self.fetch_all(query).await? {
                let id = row.opt_message_id("rfc822_id")?.ok_or(Error::Missing)?;
                found.push(SightedId { id, uid: row.get("uid")? });
            }
        }
        Ok(found)
    }

    /// Every UID of a mailbox at which something was seen or decided, in ascending order.
    pub async fn known_places(
        &mut self,
        account: AccountId,
        mailbox: &[u8],
        uid_validity: u64,
    ) -> Result<Vec<u32>, Error> {
        let query = sql("select uid from sightings where workspace = $1 and account = $2 and mailbox = $3 \
             and uid_validity = $4 union select uid from decisions where workspace = $1 and account = $2 \
             and mailbox = $3 and uid_validity = $4 order by uid")
        .bind(self.workspace())
        .bind(account)
        .bind(mailbox)
        .bind(uid_validity);
        self.fetch_all(query).await?.iter().map(|row| row.get("uid")).collect()
    }
}

/// What tells two sightings of one message apart.
fn origin(sighting: &Sighting) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(sighting.via().as_bytes());
    match sighting {
        Sighting::Account(at) => return place_origin(at),
        Sighting::Api => {}
        Sighting::Submission { inbound } => {
            hash.update(inbound.uuid().as_bytes());
        }
        // One copy may name two of our addresses.
        Sighting::Capture { inbound, recipient, .. } | Sighting::Reply { inbound, recipient } => {
            hash.update(inbound.uuid().as_bytes()).update(recipient.key().as_bytes());
        }
    }
    *hash.finalize().as_bytes()
}

fn place_origin(at: &MailboxUid) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(b"account").update(at.account.uuid().as_bytes());
    hash.update(&at.uid_validity.to_be_bytes()).update(&at.uid.to_be_bytes()).update(&at.mailbox);
    *hash.finalize().as_bytes()
}

fn detail(sighting: &Sighting) -> Option<Detail> {
    match sighting {
        Sighting::Api | Sighting::Account(_) => None,
        Sighting::Submission { inbound } => Some(Detail { inbound: *inbound, recipient: None, field: None }),
        Sighting::Reply { inbound, recipient } => {
            Some(Detail { inbound: *inbound, recipient: Some(recipient.clone()), field: None })
        }
        Sighting::Capture { inbound, recipient, field } => {
            Some(Detail { inbound: *inbound, recipient: Some(recipient.clone()), field: Some(*field) })
        }
    }
}

fn read(row: &Row) -> Result<SightingRow, Error> {
    let gap = || Error::Corrupt("sightings: a detail is missing".into());
    let via: String = row.get("via")?;
    let detail: Option<Detail> = row.opt_json("detail")?;
    let sighting = match (via.as_str(), detail) {
        ("api", _) => Sighting::Api,
        ("account", _) => Sighting::Account(read_place(row)?.ok_or_else(gap)?),
        ("submission", Some(detail)) => Sighting::Submission { inbound: detail.inbound },
        ("capture", Some(Detail { inbound, recipient: Some(recipient), field: Some(field) })) => {
            Sighting::Capture { inbound, recipient, field }
        }
        ("reply", Some(Detail { inbound, recipient: Some(recipient), .. })) => {
            Sighting::Reply { inbound, recipient }
        }
        _ => return Err(gap()),
    };
    Ok(SightingRow { sighting, at: row.get("at")? })
}

/// The place in the columns `account`, `mailbox`, `uid_validity` and `uid`, if they hold one.
pub(super) fn read_place(row: &Row) -> Result<Option<MailboxUid>, Error> {
    let Some(account) = row.opt_id("account")? else { return Ok(None) };
    let (mailbox, uid_validity, uid) = (row.get("mailbox")?, row.get("uid_validity")?, row.get("uid")?);
    Ok(Some(MailboxUid { account, mailbox, uid_validity, uid }))
}
