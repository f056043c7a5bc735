//! Mail that is kept aside until somebody decides about it, or nobody has for too long.
//!
//! Not here: why (`core::evidence`, `core::policy`) and keeping it (`flow::hold`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    evidence::Level,
    ids::{MessageKey, UserId},
};
use crate::mail::{Address, HeaderSummary, Party};

/// How long mail is kept for a decision.
pub const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Mail kept for one user, and for a workspace: of more the oldest goes, first that which nobody is concerned by.
pub const USER_MAX: u64 = 200;
pub const WORKSPACE_MAX: u64 = 1000;
/// Characters of a subject or a name, and people, that are shown of it.
const TEXT_CHARS_MAX: usize = 200;
const PEOPLE_MAX: usize = 20;

/// How far a decision about it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineState {
    /// DNS is asked who sent it.
    Checking,
    Held,
    Released,
    Rejected,
    /// Nobody decided in time.
    Expired,
}

/// What is shown of mail in quarantine besides its text: as text, cut short, nothing that a program would act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub from: Vec<Named>,
    pub to: Vec<Named>,
    pub subject: Option<String>,
    pub date: Option<Timestamp>,
}

/// Who a header field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub email: Address,
    pub name: Option<String>,
}

impl Shown {
    #[must_use]
    pub fn of(summary: &HeaderSummary) -> Self {
        let people = |list: &[Party]| {
            list.iter()
                .take(PEOPLE_MAX)
                .map(|party| Named {
                    email: party.address.clone(),
                    name: party.name.as_deref().map(plain).filter(|name| !name.is_empty()),
                })
                .collect()
        };
        Self {
            from: people(&summary.from),
            to: people(&summary.to),
            subject: summary.subject.as_deref().map(plain),
            date: summary.date,
        }
    }
}

/// Text without what would break a line or turn it round, cut short.
fn plain(text: &str) -> String {
    let is_turning =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let kept = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|c| !is_turning(*c));
    kept.take(TEXT_CHARS_MAX).collect::<String>().trim().to_owned()
}

/// Mail to be kept aside.
#[derive(Debug, Clone)]
pub struct NewHeld {
    pub id: MessageKey,
    pub state: QuarantineState,
    pub level: Option<Level>,
    pub rule: &'static str,
    pub reason: &'static str,
    /// Whom it concerns; `None` where it is for the admins alone.
    pub user: Option<UserId>,
    pub identity: [u8; 32],
    /// All that a reader is shown of it, hashed.
    pub wording: Option<[u8; 32]>,
    /// Of its Message-ID.
    pub id_hash: Option<[u8; 16]>,
    pub shown: Option<Shown>,
    pub received_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Mail that is or was kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: MessageKey,
    pub state: QuarantineState,
    pub level: Option<Level>,
    pub rule: String,
    pub reason: String,
    pub user: Option<UserId>,
    /// Nothing is left of mail that was decided about.
    pub shown: Option<Shown>,
    pub received_at: Timestamp,
    pub expires_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// The key or the rule that settled it.
    pub settled_by: Option<String>,
    /// Its route was chosen to be trusted with it.
    pub is_trusted: bool,
}

impl Held {
    /// Whether nothing was decided about it yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.settled_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_text_of_bounded_length() {
        let raw = format!(
            "From: \"Ann\u{202e}\r\n\t Lee\" <ann@acme.example>\r\nTo: {}\r\nSubject: a\u{2066}b {}\r\n\r\n",
            (0..50).map(|n| format!("<p{n}@x.example>")).collect::<Vec<_>>().join(", "),
            "x".repeat(5000),
        );
        let shown = Shown::of(&HeaderSummary::read(raw.as_bytes()));
        assert_eq!(shown.from[0].name.as_deref(), Some("Ann Lee"));
        assert_eq!(shown.to.len(), PEOPLE_MAX);
        let subject = shown.subject.unwrap();
        assert!(subject.starts_with("ab x") && subject.chars().count() == TEXT_CHARS_MAX, "{subject}");
    }
}
