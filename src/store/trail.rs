//! The trail of a workspace: a row for each act, written in the transaction of the act and chained to the row before.
//!
//! The hash is keyed with what is derived from the workspace's own key: whoever can write into the database but does not hold the
//! master key cannot make a chain that holds again after he has changed it, as he could with a plain one. Rows name by id alone:
//! an erasure leaves them, and the chain, as they are. The trail goes with its workspace, whose key is destroyed first.
//! Not here: what acts there are (`core::trail`).

use blake3::Hasher as Blake3;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Error, Session, Tx,
    columns::word,
    sql::{Row, sql},
    statement::Statement,
};
use crate::core::{
    ids::{AccountId, ApiKeyId, Id, MessageKey, UserId, WorkspaceId},
    trail::{Act, Entry},
};

const COLUMNS: &str = "seq, at, actor, act, subject, hash";
/// What the key of the chain is derived for, and from the workspace's key.
const CHAIN_PURPOSE: &str = "mailweave 2026 trail of acts";
/// Rows of the trail that are checked at once.
const CHECKED_AT_ONCE: u32 = 500;

/// What a row says, in the form that is hashed.
struct Line<'a> {
    seq: i64,
    at: Timestamp,
    actor: &'a str,
    act: &'a str,
    subject: Uuid,
}

impl Line<'_> {
    /// Chained to the row before. Texts go with their length, so that nothing can move from one to the next.
    fn hash(&self, key: &[u8; 32], before: &[u8]) -> [u8; 32] {
        let mut hasher = Blake3::new_keyed(key);
        hasher.update(&self.seq.to_be_bytes());
        hasher.update(&self.at.as_microsecond().to_be_bytes());
        for text in [before, self.actor.as_bytes(), self.act.as_bytes()] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
        hasher.update(self.subject.as_bytes());
        hasher.finalize().into()
    }
}

impl Tx {
    /// Writes down what this transaction does, in the name of whom it acts for.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn note_act(&mut self, act: Act, subject: impl Id) -> Result<(), Error> {
        let actor = self.actor().to_owned();
        self.note_act_of(&actor, act, subject.uuid()).await
    }

    /// The same in the name of somebody else.
    pub(super) async fn note_act_of(&mut self, actor: &str, act: Act, subject: Uuid) -> Result<(), Error> {
        let workspace = self.workspace();
        // The row stays locked until the end, as by `lock_filing`: of two writers the second waits, and sees what the first has written.
        let query = sql("update workspaces set trail_seq = trail_seq + 1 where id = $1 returning trail_seq");
        let seq: i64 = self.fetch_one(query.bind(workspace)).await?.get("trail_seq")?;
        let query = sql("select hash from trail where workspace = $1 and seq = $2");
        let before = self.fetch_optional(query.bind(workspace).bind(seq - 1)).await?;
        // One that is gone is for the audit to tell: what is done goes on.
        let before: Vec<u8> = before.map(|row| row.get("hash")).transpose()?.unwrap_or_default();
        let act = word(&act);
        let line = Line { seq, at: Timestamp::now(), actor, act: &act, subject };
        let key = self.chain_key().await?;
        let hash = line.hash(&key, &before);
        let query = sql("insert into trail (workspace, seq, at, actor, act, subject, hash) \
             values ($1, $2, $3, $4, $5, $6, $7)")
        .bind(workspace)
        .bind(seq)
        .bind(line.at)
        .bind(actor)
        .bind(act.as_str())
        .bind(subject)
        .bind(hash.to_vec());
        self.execute(query).await.map(drop)
    }
}

impl Session {
    /// Newest first, before this place.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn trail(&mut self, before: Option<i64>, limit: u32) -> Result<Vec<Entry>, Error> {
        let workspace = self.workspace();
        let query = Statement::new(format!("select {COLUMNS} from trail where workspace = "))
            .arg(workspace)
            .given(" and seq < ", before)
            .text(&format!(" order by seq desc limit {limit}"))
            .query();
        self.fetch_all(query).await?.iter().map(|row| read(row, workspace)).collect()
    }

    /// The places of the trail, at most so many, at which it was changed or a row is missing.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn trail_breaks(&mut self, most: usize) -> Result<Vec<i64>, Error> {
        let (key, workspace) = (self.chain_key().await?, self.workspace());
        let query = sql("select trail_seq from workspaces where id = $1").bind(workspace);
        let last: i64 = self.fetch_one(query).await?.get("trail_seq")?;
        let (mut breaks, mut expected, mut before) = (Vec::new(), 1, Vec::new());
        loop {
            let query = Statement::new(format!("select {COLUMNS} from trail where workspace = "))
                .arg(workspace)
                .given(" and seq >= ", Some(expected))
                .text(&format!(" order by seq limit {CHECKED_AT_ONCE}"))
                .query();
            let rows = self.fetch_all(query).await?;
            for row in &rows {
                let (seq, holds, hash) = link(row, &key, &before)?;
                if seq != expected || !holds {
                    breaks.push(seq);
                }
                (expected, before) = (seq + 1, hash);
            }
            if rows.is_empty() || breaks.len() >= most {
                break;
            }
        }
        if breaks.len() < most && expected != last + 1 {
            breaks.push(last);
        }
        breaks.truncate(most);
        Ok(breaks)
    }

    async fn chain_key(&mut self) -> Result<zeroize::Zeroizing<[u8; 32]>, Error> {
        let id = self.workspace_key().await?;
        Ok(self.key(id).await?.derive(CHAIN_PURPOSE))
    }
}

/// The place of a row, whether it follows the one before, and what the next one follows.
fn link(row: &Row, key: &[u8; 32], before: &[u8]) -> Result<(i64, bool, Vec<u8>), Error> {
    let (actor, act): (String, String) = (row.get("actor")?, row.get("act")?);
    let (seq, hash): (i64, Vec<u8>) = (row.get("seq")?, row.get("hash")?);
    let line = Line { seq, at: row.get("at")?, actor: &actor, act: &act, subject: row.get("subject")? };
    let holds = line.hash(key, before).as_slice() == hash.as_slice();
    Ok((seq, holds, hash))
}

fn read(row: &Row, workspace: WorkspaceId) -> Result<Entry, Error> {
    let (act, subject) = (row.word("act")?, row.get("subject")?);
    Ok(Entry {
        seq: row.get("seq")?,
        at: row.get("at")?,
        actor: row.get("actor")?,
        act,
        subject: named(act, subject, workspace),
    })
}

/// The id as it is shown: what it names follows from the act.
fn named(act: Act, subject: Uuid, workspace: WorkspaceId) -> String {
    match act {
        Act::KeyCreated | Act::KeyRevoked => ApiKeyId::from_uuid(subject).to_string(),
        Act::PolicyChanged | Act::LimitsChanged if subject == workspace.uuid() => workspace.to_string(),
        Act::PolicyChanged | Act::LimitsChanged | Act::CaptureAddressRotated => {
            UserId::from_uuid(subject).to_string()
        }
        Act::UserAdded | Act::UserRemoved | Act::RoleChanged => UserId::from_uuid(subject).to_string(),
        Act::AccountConnected | Act::AccountReconnected | Act::AccountDisconnected | Act::AccountErased => {
            AccountId::from_uuid(subject).to_string()
        }
        Act::MailReleased | Act::MailTrusted | Act::MailRejected => {
            MessageKey::from_uuid(subject).to_string()
        }
    }
}
