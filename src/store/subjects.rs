//! The index of subjects, where policy lets them join conversations: keyed hashes, with the times at which mail was sent.
//!
//! Not here: what makes two messages meet (`core::subject`).

use jiff::{SignedDuration, Timestamp};

use super::{
    ConversationRef, Error, Session, Tx,
    sql::{Arg, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{ids::MessageKey, subject::SubjectMark};

/// Messages under one subject of the same people, within reach of one another, that a message is joined with: of more, those
/// sent last. That many answers that name nothing no person writes.
const MET_MAX: u32 = 1000;

/// A mark as it is stored.
#[derive(Debug, Clone)]
pub struct HashedSubject {
    found_by: Vec<[u8; 16]>,
    seeks: Vec<[u8; 16]>,
    sent_at: Timestamp,
    reach: SignedDuration,
}

impl HashedSubject {
    /// Every key, whether it is found by it, and how far it seeks by it.
    fn rows(&self) -> Vec<([u8; 16], bool, Option<i64>)> {
        let reach = |key| self.seeks.contains(key).then(|| microseconds(self.reach));
        let found_by = self.found_by.iter().map(|key| (*key, true, reach(key)));
        let sought = self.seeks.iter().filter(|key| !self.found_by.contains(key));
        found_by.chain(sought.map(|key| (*key, false, reach(key)))).collect()
    }
}

impl Tx {
    /// Enters a message's subject into the index.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn put_subject(&mut self, message: MessageKey, subject: &HashedSubject) -> Result<(), Error> {
        let workspace = self.workspace();
        for some in subject.rows().chunks(LIST_MAX) {
            let rows = some.iter().map(|(key, found_by, reach)| -> [Arg; 6] {
                [
                    workspace.into(),
                    message.into(),
                    key.into(),
                    i64::from(*found_by).into(),
                    subject.sent_at.into(),
                    (*reach).into(),
                ]
            });
            let query = Statement::new(
                "insert into subject_keys (workspace, message, key, found_by, sent_at, reach) values ",
            )
            .rows(rows)
            .text(" on conflict (workspace, message, key) do nothing")
            .query();
            self.execute(query).await?;
        }
        Ok(())
    }
}

impl Session {
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn hashed_subject(&mut self, mark: &SubjectMark) -> Result<HashedSubject, Error> {
        let hasher = self.text_hasher().await?;
        let hashed = |texts: &[String]| {
            let mut keys: Vec<_> =
                texts.iter().map(|text| hasher.hash(&format!("subject\n{text}"))).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let (found_by, seeks) = (hashed(&mark.found_by), hashed(&mark.seeks));
        Ok(HashedSubject { found_by, seeks, sent_at: mark.sent_at, reach: mark.reach })
    }

    /// The hashes under which the subject of a message was entered.
    pub async fn subject_keys_of(&mut self, message: MessageKey) -> Result<Vec<[u8; 16]>, Error> {
        let query = sql("select key from subject_keys where workspace = $1 and message = $2")
            .bind(self.workspace())
            .bind(message);
        self.fetch_all(query).await?.iter().map(|row| row.get("key")).collect()
    }

    /// The conversations of the messages that one with this subject meets; each once.
    pub async fn subjects_met(&mut self, subject: &HashedSubject) -> Result<Vec<ConversationRef>, Error> {
        let at = subject.sent_at.as_microsecond();
        let seeking = Statement::new(
            "select distinct r.id, r.created_at from (select s.message from subject_keys s where s.workspace = ",
        )
        .arg(self.workspace())
        .text(" and s.key in ")
        .list(&subject.found_by)
        .text(" and s.sent_at - s.reach <= ")
        .arg(at)
        .text(" and s.sent_at + s.reach >= ")
        .arg(at);
        let mut met = self.conversations_met(seeking).await?;
        if !subject.seeks.is_empty() {
            let reach = microseconds(subject.reach);
            let told = Statement::new(
                "select distinct r.id, r.created_at from (select s.message from subject_keys s where s.workspace = ",
            )
            .arg(self.workspace())
            .text(" and s.found_by = 1 and s.key in ")
            .list(&subject.seeks)
            .text(" and s.sent_at >= ")
            .arg(at.saturating_sub(reach))
            .text(" and s.sent_at <= ")
            .arg(at.saturating_add(reach));
            met.extend(self.conversations_met(told).await?);
        }
        met.sort_unstable();
        met.dedup();
        Ok(met)
    }

    /// Ends a query that found messages.
    async fn conversations_met(&mut self, messages: Statement) -> Result<Vec<ConversationRef>, Error> {
        let query = messages
            .text(" order by s.sent_at desc limit ")
            .arg(MET_MAX)
            .text(
                ") free cross join messages m join conversations r on r.workspace = m.workspace \
                 and r.id = m.conversation where m.id = free.message and m.workspace = ",
            )
            .arg(self.workspace())
            .query();
        let rows = self.fetch_all(query).await?;
        rows.iter()
            .map(|row| Ok(ConversationRef { created_at: row.get("created_at")?, id: row.id("id")? }))
            .collect()
    }
}

/// As times are stored.
fn microseconds(reach: SignedDuration) -> i64 {
    i64::try_from(reach.as_micros()).unwrap_or(i64::MAX)
}
