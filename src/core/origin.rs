//! The trace by which a workspace knows again what it sent from an address, and what another one sent from the same.
//!
//! A user's account may be connected in several workspaces, none of which may look into another. So what the gateway sends
//! carries two keyed proofs beside the message's key: of the address it left from and of the workspace. Whoever follows an
//! account can tell mail of its address that his own workspace did not send, whatever workspace that was, without a look
//! at any store and in whatever order mail is seen. To everybody else the proofs are noise that differs with each message.
//!
//! They stand in the Message-ID that the gateway gives, and so in the references of every answer, and in the Received field
//! of mail that came with a Message-ID of its own. Not here: what follows from it (`policy::tenancy`).

use uuid::Uuid;

use super::ids::{Id as _, MessageKey, WorkspaceId};
use crate::mail::{Address, HeaderBlock, MessageId};

/// Octets of each proof. Nobody gains by guessing one: his own mail would stay out of a workspace.
const PROOF_BYTES: usize = 6;
/// Received fields looked at, from the newest: ours stands below those of the servers on the way to the mailbox.
const RECEIVED_MAX: usize = 30;

/// Who sends from where. The secret is the gateway's.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub secret: &'a [u8; 32],
    pub workspace: WorkspaceId,
    pub sender: &'a Address,
}

impl Origin<'_> {
    /// The Message-ID of a message that came without one: fixed at acceptance, from the key it was accepted under.
    #[must_use]
    pub fn message_id(&self, message: MessageKey, hostname: &str) -> Option<MessageId> {
        let (key, proofs) = (message.uuid().simple(), self.proofs(message));
        MessageId::parse(&format!("{key}.{proofs}@{hostname}"))
    }

    /// The id in our Received field.
    #[must_use]
    pub fn trace(&self, message: MessageKey) -> String {
        format!("{message}.{}", self.proofs(message))
    }

    fn proofs(&self, message: MessageKey) -> String {
        let sender = proof(self.secret, (b"sender", message), self.sender.key().as_bytes());
        let workspace = proof(self.secret, (b"workspace", message), self.workspace.uuid().as_bytes());
        format!("{sender}{workspace}")
    }
}

/// By whom mail was sent that left through the gateway from one of a user's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentBy {
    ThisWorkspace,
    AnotherWorkspace,
}

/// Reads traces for one account.
#[derive(Debug, Clone, Copy)]
pub struct Tracer<'a> {
    pub secret: &'a [u8; 32],
    pub workspace: WorkspaceId,
    /// Every address of the account's user.
    pub senders: &'a [Address],
}

impl Tracer<'_> {
    /// What a Message-ID tells; `None` of every id that the gateway did not give to mail from these addresses.
    #[must_use]
    pub fn of_id(&self, id: &MessageId) -> Option<SentBy> {
        let (left, _) = id.as_str().split_once('@')?;
        let (key, proofs) = left.split_once('.')?;
        self.check(MessageKey::from_uuid(Uuid::try_parse(key).ok()?), proofs)
    }

    /// What the Received fields tell.
    #[must_use]
    pub fn of_trace(&self, trace: &str) -> Option<SentBy> {
        let (key, proofs) = trace.split_once('.')?;
        self.check(key.parse().ok()?, proofs)
    }

    fn check(&self, message: MessageKey, proofs: &str) -> Option<SentBy> {
        let (sender, workspace) = proofs.split_at_checked(2 * PROOF_BYTES)?;
        let is_of =
            |address: &Address| proof(self.secret, (b"sender", message), address.key().as_bytes()) == sender;
        if !self.senders.iter().any(is_of) {
            return None;
        }
        let ours = proof(self.secret, (b"workspace", message), self.workspace.uuid().as_bytes());
        Some(if ours == workspace { SentBy::ThisWorkspace } else { SentBy::AnotherWorkspace })
    }
}

/// The words in Received fields that may be traces of ours: whether they are, a [`Tracer`] tells.
#[must_use]
pub fn traces(header: &HeaderBlock<'_>) -> Vec<String> {
    let mut traces = Vec::new();
    for field in header.all("Received").take(RECEIVED_MAX) {
        let text = field.text();
        let mut words = text.split_ascii_whitespace();
        // RFC 5321 section 4.4: the word after ID. A comment may stand between, which ours has none of.
        if words.by_ref().any(|word| word.eq_ignore_ascii_case("id")) {
            let id = words.next().map(|word| word.trim_end_matches(';'));
            traces.extend(
                id.filter(|id| id.starts_with(MessageKey::PREFIX) && id.contains('.')).map(str::to_owned),
            );
        }
    }
    traces
}

fn proof(secret: &[u8; 32], (what, message): (&[u8], MessageKey), of: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(what).update(message.uuid().as_bytes()).update(of);
    hasher.finalize().as_bytes().iter().take(PROOF_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bits: u128) -> MessageKey {
        MessageKey::from_uuid(Uuid::from_u128(bits))
    }

    fn workspace(bits: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(bits))
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_workspace_knows_its_own_mail_and_that_of_another_from_the_same_address_alone() {
        let (ann, carl) = (address("ann@x.example"), address("carl@x.example"));
        let senders = [address("Ann@X.example"), address("ann.lee@x.example")];
        let tracer = Tracer { secret: &[7; 32], workspace: workspace(1), senders: &senders };
        let check = |secret: [u8; 32], at: u128, sender: &Address, expect: Option<SentBy>| {
            let origin = Origin { secret: &secret, workspace: workspace(at), sender };
            let id = origin.message_id(key(5), "mx.example").unwrap();
            assert_eq!(tracer.of_id(&id), expect);
            let raw = format!(
                "Received: from a ([::1])\r\n\tby b with ESMTPSA id {};\r\n\tnow\r\n",
                origin.trace(key(5))
            );
            let read = traces(&HeaderBlock::scan(raw.as_bytes()));
            assert_eq!(read.iter().find_map(|trace| tracer.of_trace(trace)), expect, "{raw}");
        };
        check([7; 32], 1, &ann, Some(SentBy::ThisWorkspace));
        check([7; 32], 2, &ann, Some(SentBy::AnotherWorkspace));
        // A colleague's, or a customer's who is at the same gateway, is mail like any other.
        check([7; 32], 2, &carl, None);
        check([8; 32], 2, &ann, None);
    }

    #[test]
    fn what_is_no_trace_tells_nothing() {
        let senders = [address("ann@x.example")];
        let tracer = Tracer { secret: &[7; 32], workspace: workspace(1), senders: &senders };
        let uuid = Uuid::from_u128(5).simple();
        for id in ["a@b", "a.b@c", &format!("{uuid}@b"), &format!("{uuid}.@b"), &format!("{uuid}.00ü@b"), "0"]
        {
            assert_eq!(tracer.of_id(&MessageId::parse(id).unwrap()), None, "{id}");
        }
        let header = "Received: by x with SMTP\r\nReceived: by x id 4F9A4166.7\r\nReceived: x id\r\n";
        assert!(traces(&HeaderBlock::scan(header.as_bytes())).is_empty());
    }

    #[test]
    fn two_messages_share_nothing_by_which_they_could_be_known_to_be_of_one_workspace() {
        let ann = address("ann@x.example");
        let origin = Origin { secret: &[7; 32], workspace: workspace(1), sender: &ann };
        let (one, other) = (origin.proofs(key(1)), origin.proofs(key(2)));
        let halves = |proofs: &str| {
            proofs.split_at_checked(2 * PROOF_BYTES).map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        let ((sender, workspace), (other_sender, other_workspace)) =
            (halves(&one).unwrap(), halves(&other).unwrap());
        assert!(sender != other_sender && workspace != other_workspace);
    }
}
