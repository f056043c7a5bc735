//! An endpoint of the CRM that events are posted to.
//!
//! Not here: signing and posting (`webhook`), and the retry schedule (`core::retry`).

use jiff::Timestamp;
use secrecy::SecretString;

use super::ids::WebhookId;

#[derive(Debug, Clone)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    /// `None` takes every type but those sent only on request.
    pub events: Option<Vec<String>>,
    /// `whsec_…`: the present one, and the former while receivers still use it.
    pub secrets: Vec<SecretString>,
    pub disabled_at: Option<Timestamp>,
    pub disabled_reason: Option<String>,
    pub failing_since: Option<Timestamp>,
    /// What the last failed post came to, in a word that gives nothing of the network away: `HTTP 500`, `no answer`.
    pub last_failure: Option<String>,
    pub created_at: Timestamp,
}

/// What [`Webhook::last_failure`] says before the status of an answer.
const ANSWERED: &str = "HTTP ";

impl Webhook {
    /// The status with which the last failed post was answered, if it was.
    #[must_use]
    pub fn refusal(&self) -> Option<u16> {
        self.last_failure.as_deref()?.strip_prefix(ANSWERED)?.parse().ok()
    }

    /// Whether this endpoint wants an event of this type.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        self.disabled_at.is_none() && Self::asks_for(self.events.as_deref(), kind)
    }

    /// Whether a list of types, or the want of one, takes in this type.
    #[must_use]
    pub fn asks_for(events: Option<&[String]>, kind: &str) -> bool {
        let asked = events.map(|events| events.iter().any(|event| event == kind));
        asked.unwrap_or_else(|| !super::event::ON_REQUEST.contains(&kind))
    }
}
