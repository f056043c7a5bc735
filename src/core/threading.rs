//! Which messages belong together: a conversation is a connected component over shared thread keys.
//!
//! A *node* is an id a message has or names: its Message-ID, In-Reply-To, References, a provider's thread id. Ids of mail
//! never stored (ghosts) are nodes like any other, for a copy at the capture address is often the child of unknown mail.
//! Sharing a node is no permission (invariant 10): a stranger who learns an id must not get into the thread. So a *key* is a
//! node together with a participant, and two messages belong together when they share a key: both name the id *and* both
//! have that participant. The grouping is the set of components over keys, hence the same in whatever order mail arrives.
//!
//! Not here: the index of keys (`store`) and who the participants are (`core::attribution`).

use jiff::Timestamp;

use super::ids::{AccountId, ConversationId, Id};
use crate::mail::{Address, MessageId};

/// Nodes a message may bring; past that the oldest and newest decide (References keep both ends).
pub const NODES_MAX: usize = 102;
/// Participants a message may bring. Those past it are still in the message, they only join no threads.
pub const PARTICIPANTS_MAX: usize = 25;

/// One id by which messages find one another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ThreadNode {
    MessageId(MessageId),
    /// `X-GM-THRID`, unique within one account.
    GmailThread(AccountId, u64),
    /// The first 22 octets of Outlook's Thread-Index, the same in all answers.
    ThreadIndex([u8; 22]),
}

/// A node seen by a participant, hashed: what the index stores and what two messages of a conversation share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadKey(pub [u8; 16]);

impl ThreadKey {
    /// The key that joins a conversation by name, without regard to participants: for mail to a valid reply address and for
    /// messages the CRM files itself. Whoever uses it has proved the right to.
    #[must_use]
    pub fn of_conversation(conversation: ConversationId) -> Self {
        Self::hash(&[b"conversation", conversation.uuid().as_bytes()])
    }

    fn of(node: &ThreadNode, participant: &str) -> Self {
        let participant = participant.as_bytes();
        match node {
            ThreadNode::MessageId(id) => Self::hash(&[b"id", id.as_str().as_bytes(), participant]),
            ThreadNode::GmailThread(account, thread) => {
                Self::hash(&[b"gmail", account.uuid().as_bytes(), &thread.to_be_bytes(), participant])
            }
            ThreadNode::ThreadIndex(index) => Self::hash(&[b"index", index, participant]),
        }
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            // Lengths first, so that no two lists of parts run together into the same bytes.
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// Every key of a message with these nodes and participants, sorted and without doubles.
///
/// `participants` are the people outside the workspace; mail among users alone passes the users instead.
#[must_use]
pub fn keys(nodes: &[ThreadNode], participants: &[Address]) -> Vec<ThreadKey> {
    let mut people: Vec<&str> = participants.iter().map(Address::key).collect();
    people.sort_unstable();
    people.dedup();
    people.truncate(PARTICIPANTS_MAX);
    if people.is_empty() {
        people.push("");
    }
    let mut keys: Vec<_> = nodes
        .iter()
        .take(NODES_MAX)
        .flat_map(|node| people.iter().map(move |participant| ThreadKey::of(node, participant)))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A conversation that a message shares a key with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub id: ConversationId,
    pub created_at: Timestamp,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    Start,
    Join(ConversationId),
    /// The message connects conversations that were apart: the elder's id survives.
    Merge {
        keep: ConversationId,
        absorb: Vec<ConversationId>,
    },
}

/// Decides from the conversations found under a message's keys.
#[must_use]
pub fn assign(found: &[Found]) -> Assignment {
    let mut found = found.to_vec();
    found.sort_by_key(|conversation| (conversation.created_at, conversation.id));
    found.dedup_by_key(|conversation| conversation.id);
    match found.split_first() {
        None => Assignment::Start,
        Some((only, [])) => Assignment::Join(only.id),
        Some((elder, rest)) => {
            Assignment::Merge { keep: elder.id, absorb: rest.iter().map(|c| c.id).collect() }
        }
    }
}

/// Leaves out of the conversations found those that a hand has parted from where the message belongs: from the one of its
/// nearest relation, which is the eldest when nothing says which that is. `parted` has each pair in both orders.
#[must_use]
pub fn on_one_side(
    found: &[Found],
    nearest: Option<ConversationId>,
    parted: &[(ConversationId, ConversationId)],
) -> Vec<Found> {
    let mut found = found.to_vec();
    // The nearest first, then by age.
    found.sort_by_key(|found| (Some(found.id) != nearest, found.created_at, found.id));
    let mut side: Vec<Found> = Vec::with_capacity(found.len());
    for candidate in found {
        if !side.iter().any(|member| parted.contains(&(member.id, candidate.id))) {
            side.push(candidate);
        }
    }
    side
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    /// The index in memory: keys to groups, groups merged when a message connects them.
    #[derive(Default)]
    struct Index {
        group_of: HashMap<ThreadKey, usize>,
        groups: Vec<BTreeSet<usize>>,
        parent: Vec<usize>,
    }

    impl Index {
        fn root(&self, mut group: usize) -> usize {
            while self.parent[group] != group {
                group = self.parent[group];
            }
            group
        }

        fn file(&mut self, message: usize, keys: &[ThreadKey]) {
            let found: BTreeSet<_> =
                keys.iter().filter_map(|key| self.group_of.get(key)).map(|g| self.root(*g)).collect();
            let group = found.first().copied().unwrap_or_else(|| {
                self.groups.push(BTreeSet::new());
                self.parent.push(self.groups.len() - 1);
                self.groups.len() - 1
            });
            for absorbed in found.into_iter().skip(1) {
                self.parent[absorbed] = group;
                let members = std::mem::take(&mut self.groups[absorbed]);
                self.groups[group].extend(members);
            }
            self.groups[group].insert(message);
            for key in keys {
                self.group_of.entry(*key).or_insert(group);
            }
        }

        fn grouping(&self) -> BTreeSet<BTreeSet<usize>> {
            self.groups.iter().filter(|group| !group.is_empty()).cloned().collect()
        }
    }

    fn node(id: &str) -> ThreadNode {
        ThreadNode::MessageId(MessageId::parse(id).unwrap())
    }

    fn addresses(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| Address::parse(&format!("{name}@out.example")).unwrap()).collect()
    }

    #[track_caller]
    fn check(messages: &[(&[&str], &[&str])], expect: &[&[usize]]) {
        let mut index = Index::default();
        for (number, (ids, people)) in messages.iter().enumerate() {
            let nodes: Vec<_> = ids.iter().map(|id| node(id)).collect();
            index.file(number, &keys(&nodes, &addresses(people)));
        }
        let expect = expect.iter().map(|group| group.iter().copied().collect()).collect();
        assert_eq!(index.grouping(), expect);
    }

    #[test]
    fn a_reply_joins_the_message_it_answers() {
        check(&[(&["a@x"], &["bob"]), (&["b@x", "a@x"], &["bob"])], &[&[0, 1]]);
    }

    #[test]
    fn children_of_mail_never_seen_find_each_other() {
        check(&[(&["b@x", "ghost@x"], &["bob"]), (&["c@x", "ghost@x"], &["bob"])], &[&[0, 1]]);
    }

    #[test]
    fn a_stranger_who_names_an_id_does_not_get_in() {
        check(&[(&["a@x"], &["bob"]), (&["evil@y", "a@x"], &["mallory"])], &[&[0], &[1]]);
    }

    #[test]
    fn somebody_taken_into_the_thread_may_answer() {
        let messages: [(&[&str], &[&str]); 3] = [
            (&["a@x"], &["bob"]),
            (&["b@x", "a@x"], &["bob", "carol"]),
            (&["c@x", "b@x", "a@x"], &["carol"]),
        ];
        check(&messages, &[&[0, 1, 2]]);
    }

    #[test]
    fn everybody_who_answers_a_newsletter_has_a_conversation_of_his_own() {
        check(&[(&["a@x", "news@x"], &["ann"]), (&["b@x", "news@x"], &["bea"])], &[&[0], &[1]]);
    }

    #[test]
    fn the_elder_conversation_survives_a_merge() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let id = |bits| ConversationId::from_uuid(uuid::Uuid::from_u128(bits));
        let (young, old) = (Found { id: id(1), created_at: at(20) }, Found { id: id(2), created_at: at(10) });
        assert_eq!(assign(&[]), Assignment::Start);
        assert_eq!(assign(&[young, young]), Assignment::Join(id(1)));
        assert_eq!(assign(&[young, old]), Assignment::Merge { keep: id(2), absorb: vec![id(1)] });
    }

    #[test]
    fn what_a_hand_has_parted_stays_apart() {
        let id = |bits| ConversationId::from_uuid(uuid::Uuid::from_u128(bits));
        let found: Vec<_> =
            (1..=3).map(|n| Found { id: id(n), created_at: Timestamp::from_second(10).unwrap() }).collect();
        let both = |one, other| [(id(one), id(other)), (id(other), id(one))];
        let check = |nearest: Option<u128>, parted: &[(ConversationId, ConversationId)], expect: &[u128]| {
            let side = on_one_side(&found, nearest.map(id), parted);
            let expect: Vec<_> = expect.iter().map(|bits| id(*bits)).collect();
            assert_eq!(side.iter().map(|found| found.id).collect::<Vec<_>>(), expect, "{nearest:?}");
        };
        check(Some(2), &[], &[2, 1, 3]);
        check(Some(2), &both(1, 2), &[2, 3]);
        check(Some(3), &both(1, 2), &[3, 1]);
        check(None, &both(1, 2), &[1, 3]);
        check(Some(9), &both(1, 3), &[1, 2]);
        check(Some(2), &[both(1, 2), both(2, 3)].concat(), &[2]);
    }

    #[test]
    fn a_message_brings_a_bounded_number_of_keys() {
        let nodes: Vec<_> = (0..500).map(|n| node(&format!("{n}@x"))).collect();
        let people: Vec<_> = (0..500).map(|n| Address::parse(&format!("p{n}@x.example")).unwrap()).collect();
        assert_eq!(keys(&nodes, &people).len(), NODES_MAX * PARTICIPANTS_MAX);
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_conversations(
            messages in proptest::collection::vec(
                (proptest::collection::vec(0..12_u8, 1..4), proptest::collection::vec(0..5_u8, 0..3)), 1..14),
            seed in any::<u64>(),
        ) {
            let keys_of = |(ids, people): &(Vec<u8>, Vec<u8>)| {
                let nodes: Vec<_> = ids.iter().map(|id| node(&format!("{id}@x"))).collect();
                let people: Vec<_> = people.iter().map(|p| Address::parse(&format!("{p}@x.example")).unwrap()).collect();
                keys(&nodes, &people)
            };
            let mut order: Vec<usize> = (0..messages.len()).collect();
            let mut forward = Index::default();
            for number in &order {
                forward.file(*number, &keys_of(&messages[*number]));
            }
            // A cheap shuffle from the seed: sort by a hash of it with the number.
            order.sort_by_key(|number| blake3::hash(format!("{seed}/{number}").as_bytes()).as_bytes().to_owned());
            let mut shuffled = Index::default();
            for number in &order {
                shuffled.file(*number, &keys_of(&messages[*number]));
            }
            prop_assert_eq!(forward.grouping(), shuffled.grouping());
        }
    }
}
