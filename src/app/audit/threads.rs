//! Groups messages by the keys they share, from nothing, and tells whether a conversation is one group.
//!
//! Not here: which keys a message has (`contents`, from `core::threading`).

use std::collections::HashMap;

use crate::core::threading::ThreadKey;

/// Keys kept of one conversation: 50 MiB. Beyond that nothing is said about it.
const KEYS_MAX: usize = 1_000_000;

/// Connected components over shared keys.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    /// The group before which a group stands: its own place for the first of each component.
    parent: Vec<usize>,
    /// Somebody in it joined by name.
    by_name: Vec<bool>,
    of_key: HashMap<ThreadKey, usize>,
    /// It cannot be told: bytes are missing, or there are too many keys.
    unknown: bool,
}

impl Grouping {
    /// Adds a message. One that may have joined by name vouches for its group: it proved its right at the door.
    pub(super) fn add(&mut self, keys: &[ThreadKey], by_name: bool) {
        let group = self.parent.len();
        self.parent.push(group);
        self.by_name.push(by_name);
        if self.of_key.len() + keys.len() > KEYS_MAX {
            self.unknown = true;
            return;
        }
        for key in keys {
            let other = *self.of_key.entry(*key).or_insert(group);
            self.unite(group, other);
        }
    }

    /// Adds a message whose keys cannot be known: it may connect any of the others.
    pub(super) fn add_unreadable(&mut self) {
        self.unknown = true;
    }

    /// True when at most one group has nobody who joined by name: what the others joined.
    pub(super) fn holds_together(&self) -> bool {
        let roots = (0..self.parent.len()).filter(|group| self.root(*group) == *group);
        let alone = roots.filter(|root| self.by_name.get(*root) == Some(&false)).count();
        self.unknown || alone <= 1
    }

    fn root(&self, mut group: usize) -> usize {
        while let Some(parent) = self.parent.get(group).filter(|parent| **parent != group) {
            group = *parent;
        }
        group
    }

    fn unite(&mut self, added: usize, other: usize) {
        let (one, other) = (self.root(added), self.root(other));
        let vouched = [one, other].iter().any(|root| self.by_name.get(*root) == Some(&true));
        let (elder, younger) = (one.min(other), one.max(other));
        if let Some(parent) = self.parent.get_mut(younger) {
            *parent = elder;
        }
        if let Some(by_name) = self.by_name.get_mut(elder) {
            *by_name = vouched;
        }
        // Paths stay short: the next key of the same message finds the elder at once.
        if let Some(parent) = self.parent.get_mut(added) {
            *parent = elder;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(messages: &[(&[u8], bool)], expect: bool) {
        for order in [messages.to_vec(), messages.iter().rev().copied().collect()] {
            let mut grouping = Grouping::default();
            for (keys, by_name) in &order {
                let keys: Vec<_> = keys.iter().map(|key| ThreadKey([*key; 16])).collect();
                grouping.add(&keys, *by_name);
            }
            assert_eq!(grouping.holds_together(), expect, "{order:?}");
        }
    }

    #[test]
    fn messages_that_share_keys_in_a_chain_are_one_group() {
        check(&[], true);
        check(&[(&[], false)], true);
        check(&[(&[1, 2], false), (&[3, 4], false), (&[2, 3], false)], true);
        check(&[(&[1], false), (&[2], false)], false);
    }

    #[test]
    fn whoever_joined_by_name_vouches_for_his_group_alone() {
        check(&[(&[1], false), (&[2], true), (&[2, 3], false)], true);
        check(&[(&[1], false), (&[2], true), (&[4], false)], false);
    }
}
