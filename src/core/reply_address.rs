//! Reply addresses that prove themselves: a random name, the day they end, and two keyed hashes.
//!
//! The *tag* hashes what stands in the address. It lets a listener refuse a guess without a look into the database, and is no
//! proof. The *seal* hashes whose answers the address takes as well, and shows that its row is the one it was made for. Which
//! conversation it belongs to is in neither: conversations are merged and split, and the address goes with them. Not here:
//! the rows (`store::routes`), and keeping the keys (`store::gateway_keys`).

use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq as _;

use super::{
    ids::{Id as _, WorkspaceId},
    route::{Route, RouteTarget, base32, from_base32},
};
use crate::mail::Address;

/// What every reply address begins with; the digit is the form's.
const PREFIX: &str = "r1";
const NAME_BYTES: usize = 11;
const TAG_BYTES: usize = 4;
const SEAL_BYTES: usize = 12;
const TOKEN_BYTES: usize = NAME_BYTES + TAG_BYTES + SEAL_BYTES;
/// How long an address takes answers.
const LIFE: SignedDuration = SignedDuration::from_hours(400 * 24);
/// An address that ends sooner than this is followed by another: whoever writes last can be answered for most of a year.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(300 * 24);
/// A key makes addresses from a day after it was made, when every node has read it.
const UNUSED_FOR: SignedDuration = SignedDuration::from_hours(24);
const DAY: i64 = 24 * 60 * 60;

/// A key, by its number.
#[derive(Clone)]
pub struct ReplyKey {
    pub id: u8,
    pub secret: [u8; 32],
    pub made_at: Timestamp,
}

/// Every key under which an address may still be alive.
#[derive(Clone, Default)]
pub struct ReplyKeys(Vec<ReplyKey>);

/// What an address is sealed with besides its name.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    pub workspace: WorkspaceId,
    pub target: &'a RouteTarget,
    pub domain: &'a str,
}

impl ReplyKeys {
    #[must_use]
    pub fn new(keys: Vec<ReplyKey>) -> Self {
        Self(keys)
    }

    /// The local part of a new address and when it ends; `None` where there is no key yet. `random` is its name.
    #[must_use]
    pub fn mint(&self, sealed: Sealed<'_>, random: [u8; 8], now: Timestamp) -> Option<(String, Timestamp)> {
        let settled = self.0.iter().filter(|key| now.duration_since(key.made_at) >= UNUSED_FOR);
        let newest = settled.max_by_key(|key| key.made_at);
        let key = newest.or_else(|| self.0.iter().min_by_key(|key| key.made_at))?;
        // It ends with a day.
        let day = u16::try_from((now + LIFE).as_second() / DAY + 1).ok()?;
        let ends = Timestamp::from_second(i64::from(day) * DAY).ok()?;
        let mut name = [0; NAME_BYTES];
        let parts = std::iter::once(key.id).chain(random).chain(day.to_be_bytes());
        name.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        let token: Vec<u8> = name.into_iter().chain(key.tag(&name)).chain(key.seal(&name, sealed)).collect();
        Some((format!("{PREFIX}{}", base32(&token)), ends))
    }

    /// Whether an address may be one that we made and that is alive. Takes as long for any that is not.
    #[must_use]
    pub fn may_be_ours(&self, local: &str, now: Timestamp) -> bool {
        let token = Token::read(local);
        let name = token.as_ref().map_or([0; NAME_BYTES], |token| token.name);
        let key = self.0.iter().find(|key| Some(&key.id) == name.first());
        // An unknown key hashes as well.
        let tag = key.unwrap_or(&NOBODYS).tag(&name);
        let is_ours = token.as_ref().is_some_and(|token| bool::from(token.tag.ct_eq(&tag)));
        is_ours && key.is_some() && token.is_some_and(|token| now.as_second() < token.ends_at())
    }

    /// Whether the address of a route is the one that was made for its target.
    #[must_use]
    pub fn prove(&self, route: &Route) -> bool {
        let Route { workspace, address, target, .. } = route;
        self.proves(address.local(), Sealed { workspace: *workspace, target, domain: address.domain() })
    }

    /// Whether this address was made for this target, in this workspace, at this domain.
    fn proves(&self, local: &str, sealed: Sealed<'_>) -> bool {
        let Some(token) = Token::read(local) else { return false };
        let key = self.0.iter().find(|key| Some(&key.id) == token.name.first());
        key.is_some_and(|key| bool::from(token.seal.ct_eq(&key.seal(&token.name, sealed))))
    }
}

/// Whether an address that ends then is to be followed by another.
#[must_use]
pub fn is_to_be_renewed(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|end| end.duration_since(now) < RENEWED_BEFORE)
}

/// After this, no address that a key made is alive.
#[must_use]
pub fn outlived_by() -> SignedDuration {
    LIFE + SignedDuration::from_hours(48)
}

/// Hashes for addresses of no key of ours.
const NOBODYS: ReplyKey = ReplyKey { id: 0, secret: [0; 32], made_at: Timestamp::UNIX_EPOCH };

impl ReplyKey {
    fn tag(&self, name: &[u8; NAME_BYTES]) -> [u8; TAG_BYTES] {
        let key = blake3::derive_key("mailweave reply address tag v1", &self.secret);
        first(blake3::keyed_hash(&key, name))
    }

    /// Each part with its length before it: no two targets read alike.
    fn seal(&self, name: &[u8; NAME_BYTES], sealed: Sealed<'_>) -> [u8; SEAL_BYTES] {
        let key = blake3::derive_key("mailweave reply address seal v1", &self.secret);
        let mut hash = blake3::Hasher::new_keyed(&key);
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
        };
        part(name);
        part(sealed.domain.to_ascii_lowercase().as_bytes());
        part(sealed.workspace.uuid().as_bytes());
        if let RouteTarget::Reply { participant, user, counterpart, .. } = sealed.target {
            part(participant.key().as_bytes());
            part(user.uuid().as_bytes());
            part(counterpart.as_ref().map_or("", Address::key).as_bytes());
        }
        first(hash.finalize())
    }
}

fn first<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(hash.as_bytes()).for_each(|(place, byte)| *place = *byte);
    bytes
}

/// What an address says.
struct Token {
    name: [u8; NAME_BYTES],
    tag: [u8; TAG_BYTES],
    seal: [u8; SEAL_BYTES],
}

impl Token {
    /// The one way to write it, but for the case of letters.
    fn read(local: &str) -> Option<Self> {
        let local = local.to_ascii_lowercase();
        let token: [u8; TOKEN_BYTES] = from_base32(local.strip_prefix(PREFIX)?)?.try_into().ok()?;
        let (name, rest) = token.split_first_chunk()?;
        let (tag, seal) = rest.split_first_chunk()?;
        Some(Self { name: *name, tag: *tag, seal: seal.try_into().ok()? })
    }

    /// In seconds since 1970.
    fn ends_at(&self) -> i64 {
        let [.., high, low] = self.name;
        i64::from(u16::from_be_bytes([high, low])) * DAY
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "these addresses are ASCII")]

    use uuid::Uuid;

    use super::*;
    use crate::core::ids::{ConversationId, UserId};

    const DOMAIN: &str = "reply.example";

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn later(days: i64) -> Timestamp {
        now() + SignedDuration::from_hours(days * 24)
    }

    fn key(id: u8, made_at: Timestamp) -> ReplyKey {
        ReplyKey { id, secret: [id; 32], made_at }
    }

    fn keys() -> ReplyKeys {
        ReplyKeys::new(vec![key(1, later(-500)), key(2, later(-100))])
    }

    fn target(number: u128, participant: &str) -> RouteTarget {
        RouteTarget::Reply {
            conversation: ConversationId::from_uuid(Uuid::from_u128(number)),
            participant: Address::parse(participant).unwrap(),
            user: UserId::from_uuid(Uuid::from_u128(number + 1)),
            counterpart: None,
        }
    }

    fn workspace(number: u128) -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(number))
    }

    fn sealed(target: &RouteTarget) -> Sealed<'_> {
        Sealed { workspace: workspace(7), target, domain: DOMAIN }
    }

    fn minted(target: &RouteTarget, random: [u8; 8]) -> String {
        keys().mint(sealed(target), random, now()).unwrap().0
    }

    #[test]
    fn an_address_fits_a_local_part_and_is_known_in_either_case() {
        let target = target(1, "bob@x.example");
        let (local, ends) = keys().mint(sealed(&target), [3; 8], now()).unwrap();
        assert_eq!(local.len(), 46);
        assert!(local.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()));
        for written in [local.clone(), local.to_ascii_uppercase()] {
            assert!(keys().may_be_ours(&written, now()) && keys().proves(&written, sealed(&target)));
        }
        assert!(ends > later(399) && ends < later(402), "{ends}");
    }

    #[test]
    fn an_address_ends_with_its_last_day() {
        let target = target(1, "bob@x.example");
        let (local, ends) = keys().mint(sealed(&target), [3; 8], now()).unwrap();
        assert!(keys().may_be_ours(&local, ends - SignedDuration::from_secs(1)));
        assert!(!keys().may_be_ours(&local, ends));
        assert!(!is_to_be_renewed(Some(ends), now()) && is_to_be_renewed(Some(ends), later(102)));
        assert!(!is_to_be_renewed(None, now()));
    }

    #[test]
    fn no_letter_can_be_changed_added_or_left_out() {
        let local = minted(&target(1, "bob@x.example"), [0x5a; 8]);
        let letters = "0123456789abcdefghijklmnopqrstuvwxyz-+.";
        let mut tried = 0;
        for at in 0..local.len() {
            for letter in letters.chars().filter(|letter| !local[at..].starts_with(*letter)) {
                let changed = format!("{}{letter}{}", &local[..at], &local[at + 1..]);
                let added = format!("{}{letter}{}", &local[..at], &local[at..]);
                for other in [changed, added] {
                    let edge = keys().may_be_ours(&other, now());
                    assert!(!edge || !keys().proves(&other, sealed(&target(1, "bob@x.example"))), "{other}");
                    tried += 1;
                }
            }
            assert!(!keys().may_be_ours(&format!("{}{}", &local[..at], &local[at + 1..]), now()));
        }
        assert!(tried > 3_000);
        for other in ["", "r1", "r-0000000000000000", "é", &local[2..], &format!("{local}0")] {
            assert!(
                !keys().may_be_ours(other, now()) && !keys().proves(other, sealed(&target(1, "b@x.example")))
            );
        }
    }

    #[test]
    fn of_fifty_addresses_none_proves_what_another_was_made_for() {
        let targets: Vec<RouteTarget> =
            (0..50).map(|number| target(number, &format!("p{number}@x.example"))).collect();
        let locals: Vec<String> =
            targets.iter().zip(0..).map(|(target, number)| minted(target, [number; 8])).collect();
        for (at, local) in locals.iter().enumerate() {
            for (of, target) in targets.iter().enumerate() {
                assert_eq!(keys().proves(local, sealed(target)), at == of);
            }
            // The seal of one behind the name of another.
            for other in &locals {
                let crossed = format!("{}{}", &local[..26], &other[26..]);
                assert_eq!(keys().proves(&crossed, sealed(&targets[at])), local == other);
            }
        }
    }

    #[test]
    fn another_workspace_domain_or_key_proves_nothing() {
        let target = target(1, "bob@x.example");
        let local = minted(&target, [1; 8]);
        let elsewhere = [
            Sealed { workspace: workspace(8), ..sealed(&target) },
            Sealed { domain: "reply.other.example", ..sealed(&target) },
        ];
        for sealed in elsewhere {
            assert!(!keys().proves(&local, sealed));
        }
        let rotated_away = ReplyKeys::new(vec![key(1, later(-500))]);
        assert!(!rotated_away.may_be_ours(&local, now()) && !rotated_away.proves(&local, sealed(&target)));
        let replaced = ReplyKeys::new(vec![ReplyKey { secret: [9; 32], ..key(2, later(-100)) }]);
        assert!(!replaced.may_be_ours(&local, now()) && !replaced.proves(&local, sealed(&target)));
        assert!(!ReplyKeys::default().may_be_ours(&local, now()));
    }

    #[test]
    fn a_new_key_makes_addresses_when_every_node_knows_it_and_the_old_ones_live_on() {
        let target = target(1, "bob@x.example");
        let before = minted(&target, [1; 8]);
        let both = ReplyKeys::new(vec![key(2, later(-100)), key(3, now())]);
        assert!(both.may_be_ours(&before, now()));
        let made_at = |at| {
            let (local, _) = both.mint(sealed(&target), [1; 8], at).unwrap();
            from_base32(&local[2..]).unwrap()[0]
        };
        assert_eq!((made_at(now()), made_at(later(1))), (2, 3));
        let first = ReplyKeys::new(vec![key(1, now())]);
        assert!(first.mint(sealed(&target), [1; 8], now()).is_some(), "there is no other to wait for");
    }

    #[test]
    fn a_conversation_takes_its_addresses_along_when_it_is_merged() {
        let (RouteTarget::Reply { participant, user, .. }, conversation) =
            (target(1, "bob@x.example"), ConversationId::from_uuid(Uuid::from_u128(99)))
        else {
            unreachable!()
        };
        let local = minted(&target(1, "bob@x.example"), [1; 8]);
        let moved = RouteTarget::Reply { conversation, participant, user, counterpart: None };
        assert!(keys().proves(&local, sealed(&moved)));
    }
}
