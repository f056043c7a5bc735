//! The ids of everything the gateway keeps: 128 bits that sort by time, shown with a type prefix (`msg_…`).
//!
//! Not here: where they come from. The edge mints them (`store::mint`); `core` draws no random numbers.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Crockford's base 32, lower case: no `i l o u`, so that ids survive being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters that 128 bits take.
const ENCODED_LEN: usize = 26;

/// A text that is no id of the type asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind (\"{expected}_…\")")]
pub struct IdError {
    /// The prefix that was wanted, without its underscore.
    pub expected: &'static str,
}

/// What every id type can do; lets the store read and write them all alike.
pub trait Id: Copy + fmt::Display {
    /// The type prefix, without its underscore.
    const PREFIX: &'static str;
    fn from_uuid(uuid: Uuid) -> Self;
    fn uuid(self) -> Uuid;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let encoded = text.strip_prefix(concat!($prefix, "_"));
                encoded.and_then(decode).map(Self).ok_or(IdError { expected: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A workspace: the tenant. Part of every key.
    WorkspaceId, "ws");
id!(UserId, "usr");
id!(
    /// A user's own mail account at a provider.
    AccountId, "acc");
id!(ContactId, "con");
id!(ConversationId, "cnv");
id!(
    /// Our key of a message; `mail::MessageId` is what its sender named it.
    MessageKey, "msg");
id!(EventId, "evt");
id!(WebhookId, "whk");
id!(ApiKeyId, "key");
id!(DecisionId, "dec");
id!(AttachmentId, "att");
id!(
    /// What a hand did to conversations, which can be undone.
    RepairId, "rep");
id!(
    /// A route into the gateway: a capture or reply address.
    RouteId, "rte");

fn encode(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    // 26 digits of 5 bits are 130: the first digit carries only the top three.
    (0..ENCODED_LEN)
        .rev()
        .map(|digit| {
            let index = usize::try_from((bits >> (digit * 5)) & 31).unwrap_or(0);
            char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
        })
        .collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != ENCODED_LEN || text.as_bytes().first().is_none_or(|first| *first > b'7') {
        return None;
    }
    let bits = text.bytes().try_fold(0_u128, |bits, byte| {
        let digit = ALPHABET.iter().position(|letter| *letter == byte)?;
        Some((bits << 5) | u128::try_from(digit).ok()?)
    })?;
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for bits in [0, 1, u128::MAX, 0x0190_abcd_ef01_7abc_8def_0123_4567_89ab] {
            let key = MessageKey::from_uuid(Uuid::from_u128(bits));
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn ids_sort_as_text_as_they_do_as_numbers() {
        let (a, b) = (Uuid::from_u128(5), Uuid::from_u128(1 << 100));
        assert!(MessageKey::from_uuid(a).to_string() < MessageKey::from_uuid(b).to_string());
    }

    #[test]
    fn another_types_id_is_refused() {
        let contact = ContactId::from_uuid(Uuid::from_u128(7)).to_string();
        assert_eq!(contact.parse::<MessageKey>(), Err(IdError { expected: "msg" }));
        for text in
            ["", "msg_", "msg_0000", "msg_8zzzzzzzzzzzzzzzzzzzzzzzzz", "msg_0000000000000000000000000u"]
        {
            assert!(text.parse::<MessageKey>().is_err(), "{text}");
        }
    }
}
