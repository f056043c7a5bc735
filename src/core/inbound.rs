//! What a listener takes in before it answers 250, and why it took it.
//!
//! Not here: reading the message. That happens after the 250 (`flow::process`).

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    ids::{AccountId, ApiKeyId, ConversationId, UserId, WorkspaceId},
    route::Route,
};
use crate::mail::{Envelope, HeaderSummary, ReversePath};

/// Through which door a message came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "door")]
pub enum Door {
    /// The MX listener, for these capture and reply addresses of one workspace.
    Mx {
        routes: Vec<Route>,
        envelope: Envelope,
        peer: String,
        /// The name that the client gave in EHLO or HELO.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        hello: String,
    },
    /// A submission listener or the HTTP API, on behalf of this user.
    Submission { order: SendOrder, envelope: Envelope },
}

impl Door {
    /// What is kept of the door of a message of which nothing is kept: no address.
    #[must_use]
    pub fn forgotten() -> Self {
        Self::Mx {
            routes: Vec::new(),
            envelope: Envelope::new(ReversePath::Null),
            peer: String::new(),
            hello: String::new(),
        }
    }
}

/// What the CRM asked for with a message it handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrder {
    pub user: UserId,
    pub principal: Principal,
    pub class: SendClass,
    /// The conversation the CRM says it belongs to.
    pub conversation: Option<ConversationId>,
    /// Over HTTP rather than SMTP.
    pub api: bool,
    /// The CRM's own key for it, over SMTP. HTTP keeps its keys with the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OrderKey>,
}

/// The CRM's own key for an order: under one key there is one order, however often and in however many parts it is handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey {
    /// The key, hashed with who uses it.
    pub name: [u8; 32],
    /// What is said under it, hashed without what a program that writes the message anew writes differently.
    pub content: [u8; 32],
}

impl OrderKey {
    /// The key of an order by its message: the header and the bytes that follow it.
    #[must_use]
    pub fn new(
        (principal, user): (Principal, UserId),
        key: &str,
        (summary, body): (&HeaderSummary, &[u8]),
    ) -> Self {
        let mut name = blake3::Hasher::new();
        name.update(serde_json::json!([principal, user, key]).to_string().as_bytes());
        Self { name: *name.finalize().as_bytes(), content: content_of(summary, body) }
    }
}

/// Who writes what to whom. Message-ID, Date and the delimiters of a multipart are drawn anew each time a message is written.
fn content_of(summary: &HeaderSummary, body: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    for people in [&summary.from, &summary.to, &summary.cc] {
        let mut keys: Vec<&str> = people.iter().map(|party| party.address.key()).collect();
        keys.sort_unstable();
        for key in keys {
            hash.update(key.as_bytes()).update(b"\n");
        }
        hash.update(b"\n");
    }
    hash.update(summary.subject.as_deref().unwrap_or_default().as_bytes()).update(b"\n\n");
    for line in body.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii_end) {
        if !line.is_empty() && !names_a_delimiter(line) {
            hash.update(line).update(b"\n");
        }
    }
    *hash.finalize().as_bytes()
}

/// A delimiter line, or the parameter that announces one.
fn names_a_delimiter(line: &[u8]) -> bool {
    const PARAMETER: &[u8] = b"boundary";
    let announces = |part: &[u8]| {
        let end = part.len().checked_sub(PARAMETER.len()).and_then(|from| part.get(from..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(PARAMETER))
    };
    line.starts_with(b"--") || (line.contains(&b'=') && line.split(|octet| *octet == b'=').any(announces))
}

/// Who handed a message in: nothing leaves the gateway without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    Key(ApiKeyId),
    /// The instance administrator's key.
    Admin,
    /// A participant of a conversation, answering at a reply address that was made for this user.
    Participant(UserId),
}

/// What kind of mail it is to the CRM; decides whether it leaves by the user's account or the smarthost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendClass {
    #[default]
    Individual,
    Bulk,
    Workflow,
}

/// Where a submission leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Account(AccountId),
    Smarthost,
}

/// A message that waits for its 250.
#[derive(Debug, Clone)]
pub struct Intake {
    pub workspace: WorkspaceId,
    pub door: Door,
    pub raw: bytes::Bytes,
    /// What makes a second transaction the same one.
    pub fingerprint: Fingerprint,
}

/// What makes a second transaction the same one, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Over what the client sent, before our trace fields.
    pub hash: [u8; 32],
    /// The same hash later than this after the first is another transaction.
    pub kept: SignedDuration,
}

/// A transaction repeated later than this is a new one: the longest that senders queue, and then some.
const TRANSACTION_KEPT: SignedDuration = SignedDuration::from_hours(10 * 24);

/// The fingerprint of an SMTP transaction: the same envelope and bytes again, after a lost 250, give the same one.
#[must_use]
pub fn fingerprint(envelope: &Envelope, raw: &[u8]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(envelope.reverse_path.to_string().as_bytes());
    let mut recipients: Vec<&str> =
        envelope.recipients.iter().map(|recipient| recipient.address.key()).collect();
    recipients.sort_unstable();
    for recipient in recipients {
        hasher.update(b"\n").update(recipient.as_bytes());
    }
    // A blank line cannot stand in an address: nothing of the envelope runs into the bytes.
    let hash = *hasher.update(b"\n\n").update(raw).finalize().as_bytes();
    Fingerprint { hash, kept: TRANSACTION_KEPT }
}

/// A client repeats a submission within a day, or makes a new one.
const SUBMISSION_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Without an id, a date and a key of its own, a message says the same each time it is meant: what comes again after a lost
/// answer comes soon, and what comes tomorrow is tomorrow's.
const UNNAMED_KEPT: SignedDuration = SignedDuration::from_mins(15);

/// The fingerprint of a message handed in: under a key of its own by that key, else by the transaction itself; in either
/// case with the recipients, for one message may be handed in for some of them at a time.
#[must_use]
pub fn submission_fingerprint(
    key: Option<&OrderKey>,
    envelope: &Envelope,
    (summary, raw): (&HeaderSummary, &[u8]),
) -> Fingerprint {
    match key {
        Some(key) => Fingerprint { kept: SUBMISSION_KEPT, ..fingerprint(envelope, &key.name) },
        None => {
            let is_named = summary.message_id.is_some() || summary.date.is_some();
            let kept = if is_named { SUBMISSION_KEPT } else { UNNAMED_KEPT };
            Fingerprint { kept, ..fingerprint(envelope, raw) }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        core::ids::Id as _,
        mail::{Address, HeaderBlock, Recipient, ReversePath},
    };

    fn key(text: &str, raw: &str) -> OrderKey {
        let block = HeaderBlock::scan(raw.as_bytes());
        let body = &raw.as_bytes()[block.body_offset()..];
        let user = UserId::from_uuid(Uuid::from_u128(1));
        OrderKey::new((Principal::Admin, user), text, (&HeaderSummary::of(&block), body))
    }

    const LETTER: &str = "From: ann@a.example\r\nTo: bob@b.example, carl@b.example\r\nSubject: Offer\r\n\
        Date: Mon, 1 Jan 2024 10:00:00 +0000\r\nMessage-ID: <1@a.example>\r\n\
        Content-Type: multipart/alternative;\r\n boundary=\"xyz\"\r\n\r\n\
        --xyz\r\nContent-Type: multipart/related; boundary=abc\r\n\r\n--abc\r\n\r\nHello.\r\n--abc--\r\n--xyz--\r\n";

    #[test]
    fn a_message_written_anew_says_the_same_under_its_key() {
        let anew = LETTER
            .replace("<1@", "<2@")
            .replace("10:00", "10:05")
            .replace("xyz", "123")
            .replace("abc", "456")
            .replace("bob@b.example, carl@b.example", "carl@b.example, Bob <bob@B.example>")
            .replace("\r\n", "\n");
        assert_eq!(key("7", LETTER), key("7", &anew));
    }

    #[test]
    fn another_message_under_a_key_is_known_for_one() {
        for (was, is) in [
            ("Hello.", "Hello!"),
            ("Subject: Offer", "Subject: Order"),
            ("From: ann@", "From: ben@"),
            ("bob@b.example", "dora@b.example"),
        ] {
            let other = key("7", &LETTER.replacen(was, is, 1));
            assert_eq!(other.name, key("7", LETTER).name);
            assert_ne!(other.content, key("7", LETTER).content, "{is}");
        }
        assert_ne!(key("7", LETTER).name, key("8", LETTER).name);
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let address = |text: &&str| Recipient::new(Address::parse(text).unwrap());
        Envelope { recipients: recipients.iter().map(address).collect(), ..Envelope::new(ReversePath::Null) }
    }

    #[test]
    fn a_submission_is_known_again_by_its_recipients_and_its_key_or_bytes() {
        let of = |key: Option<&OrderKey>, recipients: &[&str], raw: &str| {
            let summary = HeaderSummary::read(raw.as_bytes());
            submission_fingerprint(key, &envelope(recipients), (&summary, raw.as_bytes())).hash
        };
        let (a, b) = ("a@x.example", "b@x.example");
        assert_eq!(of(None, &[a, b], LETTER), of(None, &[b, a], LETTER));
        assert_ne!(of(None, &[a], LETTER), of(None, &[b], LETTER));
        assert_ne!(of(None, &[a], LETTER), of(None, &[a], "Subject: x\r\n\r\n"));
        let keyed = key("7", LETTER);
        assert_eq!(of(Some(&keyed), &[a, b], LETTER), of(Some(&keyed), &[b, a], "Subject: x\r\n\r\n"));
        assert_ne!(of(Some(&keyed), &[a], LETTER), of(Some(&keyed), &[b], LETTER));
    }

    #[test]
    fn what_has_no_name_of_its_own_is_soon_forgotten() {
        let kept = |key: Option<&OrderKey>, raw: &str| {
            let summary = HeaderSummary::read(raw.as_bytes());
            submission_fingerprint(key, &envelope(&[]), (&summary, raw.as_bytes())).kept
        };
        let figures = "From: ann@a.example\r\n\r\nYour daily figures are ready.\r\n";
        assert_eq!(kept(None, LETTER), SUBMISSION_KEPT);
        assert_eq!(kept(None, figures), UNNAMED_KEPT);
        assert_eq!(kept(Some(&key("7", figures)), figures), SUBMISSION_KEPT);
    }
}
