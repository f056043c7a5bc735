//! Routes into the gateway: capture addresses and reply addresses.
//!
//! Not here: minting their random parts (the edge does) and refusing guesses in constant time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ConversationId, RouteId, UserId, WorkspaceId};
use crate::mail::Address;

/// Random bits in a capture or reply address: 80, written as 16 letters of base 32.
pub const SECRET_LETTERS: usize = 16;

/// Where mail to one of our addresses goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub id: RouteId,
    pub workspace: WorkspaceId,
    pub address: Address,
    pub target: RouteTarget,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum RouteTarget {
    /// Files what this user sends a copy of.
    Capture { user: UserId },
    /// Tells this user, and nobody else, what was decided about the mail that he forwards.
    Why { user: UserId },
    /// Takes the answers of one participant of one conversation, in which this user takes part without an account.
    Reply {
        conversation: ConversationId,
        participant: Address,
        user: UserId,
        /// Whom the answers are for when the participant is the user himself; what others answer is for the user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counterpart: Option<Address>,
    },
}

/// The local part of a capture address: a readable label, then the secret.
///
/// `secret` is random bytes; letters are Crockford's base 32 in lower case, which survive systems that fold case.
#[must_use]
pub fn capture_local_part(label: &str, secret: [u8; 10]) -> String {
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let secret = letters(secret);
    if label.is_empty() { secret } else { format!("{}-{secret}", label.to_ascii_lowercase()) }
}

/// The local part of a reply address.
#[must_use]
pub fn reply_local_part(secret: [u8; 10]) -> String {
    format!("r-{}", letters(secret))
}

/// What the local part of a capture address ends in where a user asks why.
const WHY: &str = "+why";

/// The capture address whose owner asks why at this address: `ann-…+why@…` for `ann-…@…`.
#[must_use]
pub fn asked_at(address: &Address) -> Option<Address> {
    let local = address.local();
    let (owner, end) = local.split_at_checked(local.len().checked_sub(WHY.len())?)?;
    if owner.is_empty() || !end.eq_ignore_ascii_case(WHY) {
        return None;
    }
    Address::from_parts(owner, address.domain()).ok()
}

fn letters(secret: [u8; 10]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let bits = secret.iter().fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
    (0..SECRET_LETTERS)
        .rev()
        .map(|digit| {
            let index = usize::try_from((bits >> (digit * 5)) & 31).unwrap_or(0);
            char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_address_reads_as_its_owner_and_carries_eighty_random_bits() {
        assert_eq!(capture_local_part("Ann.Lee", [0; 10]), "annlee-0000000000000000");
        assert_eq!(capture_local_part("…", [255; 10]), "zzzzzzzzzzzzzzzz");
        assert_eq!(reply_local_part([0; 10]).len(), SECRET_LETTERS + 2);
    }

    #[test]
    fn a_question_goes_to_a_capture_address_with_why_behind_its_name() {
        let asked =
            |text: &str| asked_at(&Address::parse(text).unwrap()).map(|address| address.key().to_owned());
        assert_eq!(asked("Ann-1+WHY@bcc.example"), Some("ann-1@bcc.example".to_owned()));
        for other in [
            "ann-1@bcc.example",
            "+why@bcc.example",
            "why@bcc.example",
            "ann+why-1@bcc.example",
            "y@b.example",
        ] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn every_bit_of_the_secret_shows() {
        for bit in 0..80 {
            let mut secret = [0_u8; 10];
            secret[bit / 8] |= 1 << (bit % 8);
            assert_ne!(letters(secret), letters([0; 10]), "bit {bit}");
        }
    }
}
