//! Routes into the gateway: capture addresses and reply addresses.
//!
//! Not here: minting their random parts (the edge does), and what a reply address proves (`core::reply_address`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ConversationId, RouteId, UserId, WorkspaceId};
use crate::mail::Address;

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
/// `secret` is 80 random bits; letters are Crockford's base 32 in lower case, which survive systems that fold case.
#[must_use]
pub fn capture_local_part(label: &str, secret: [u8; 10]) -> String {
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let secret = base32(&secret);
    if label.is_empty() { secret } else { format!("{}-{secret}", label.to_ascii_lowercase()) }
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

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Crockford's base 32 in lower case, the last letter filled up with zero bits.
#[must_use]
pub(super) fn base32(bytes: &[u8]) -> String {
    let (mut bits, mut count, mut text) = (0_u32, 0, String::with_capacity(bytes.len() * 8 / 5 + 1));
    let letter = |bits: u32| char::from(ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'0'));
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(letter(bits >> count));
        }
    }
    if count > 0 {
        text.push(letter(bits << (5 - count)));
    }
    text
}

/// What [`base32`] wrote; `None` for anything that it does not write.
pub(super) fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::with_capacity(text.len() * 5 / 8));
    for letter in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == letter)?;
        bits = (bits << 5) | u32::try_from(digit).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 255).ok()?);
        }
    }
    // Less than a letter is left over, and it holds nothing.
    (count < 5 && bits & ((1 << count) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_address_reads_as_its_owner_and_carries_eighty_random_bits() {
        assert_eq!(capture_local_part("Ann.Lee", [0; 10]), "annlee-0000000000000000");
        assert_eq!(capture_local_part("…", [255; 10]), "zzzzzzzzzzzzzzzz");
        assert_eq!(capture_local_part("", [7; 10]).len(), 16);
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
            assert_ne!(base32(&secret), base32(&[0; 10]), "bit {bit}");
        }
    }

    #[test]
    fn base_32_is_read_back_and_has_one_way_to_write_a_thing() {
        for bytes in [&[][..], &[255], &[1, 2, 3], &[0xa5; 10], &[0x5a; 27]] {
            assert_eq!(from_base32(&base32(bytes)).as_deref(), Some(bytes));
        }
        for other in ["0", "01", "u0", "A0", "0-", "é0", "000"] {
            assert_eq!(from_base32(other), None, "{other}");
        }
    }
}
