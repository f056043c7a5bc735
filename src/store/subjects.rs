//! The index of subjects, where policy lets them join conversations: keyed hashes, with the times at which mail was sent.
//!
//! Not here: what makes two messages meet (`core::subject`).

use jiff::{SignedDuration, Timestamp};

use super::{ConversationRef, Error, Session, Statement, Tx, sql};
use crate::core::{ids::MessageKey, subject::SubjectMark};

/// Messages under one subject of the same people, within reach of one another, that a message is joined with: of more, those
/// sent last. That many answers that name nothing no person writes.
const MET_MAX: u32 = 1000;

/// A mark as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct HashedSubject {
    key: [u8; 16],
    sent_at: Timestamp,
    reach: Option<SignedDuration>,
}

impl Tx {
    /// Enters a message's subject into the index.
    ///
    /// # Errors
    /// `Missing` when there is no such message.
    pub async fn put_subject(&mut self, message: MessageKey, subject: HashedSubject) -> Result<(), Error> {
        let query = sql("insert into subject_keys (workspace, message, key, sent_at, reach) \
             values ($1, $2, $3, $4, $5) on conflict (workspace, message) do nothing")
        .bind(self.workspace())
        .bind(message)
        .bind(subject.key)
        .bind(subject.sent_at)
        .bind(subject.reach.map(microseconds));
        self.execute(query).await?;
        Ok(())
    }
}

impl Session {
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn hashed_subject(&mut self, mark: &SubjectMark) -> Result<HashedSubject, Error> {
        let key = self.hash_of(&format!("subject\n{}", mark.text)).await?;
        Ok(HashedSubject { key, sent_at: mark.sent_at, reach: mark.reach })
    }

    /// The hash under which the subject of a message was entered.
    pub async fn subject_key_of(&mut self, message: MessageKey) -> Result<Option<[u8; 16]>, Error> {
        let query = sql("select key from subject_keys where workspace = $1 and message = $2")
            .bind(self.workspace())
            .bind(message);
        self.fetch_optional(query).await?.map(|row| row.get("key")).transpose()
    }

    /// The conversations of the messages that one with this subject meets; each once.
    pub async fn subjects_met(&mut self, subject: HashedSubject) -> Result<Vec<ConversationRef>, Error> {
        let at = subject.sent_at.as_microsecond();
        let mut query = Statement::new(
            "select distinct r.id, r.created_at from (select s.message from subject_keys s where s.workspace = ",
        )
        .arg(self.workspace())
        .text(" and s.key = ")
        .arg(subject.key)
        .text(" and (s.sent_at - s.reach <= ")
        .arg(at)
        .text(" and s.sent_at + s.reach >= ")
        .arg(at);
        if let Some(reach) = subject.reach.map(microseconds) {
            query = query
                .text(" or s.sent_at >= ")
                .arg(at.saturating_sub(reach))
                .text(" and s.sent_at <= ")
                .arg(at.saturating_add(reach));
        }
        let query = query
            .text(") order by s.sent_at desc limit ")
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
