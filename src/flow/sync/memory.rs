//! What is remembered of an account from one session to the next: what its server takes ill, and which mail it cannot hand
//! out.
//!
//! Not here: acting on it. It is bounded whatever a server does, and a new process learns it anew.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::headers::BATCH_MAX;
use crate::{
    core::sync_plan::IdChanges,
    imap::{MailboxName, Uid},
};

/// Failures over one message in a row after which it is given up: there are servers that drop the connection over it.
const FAILURES_MAX: u32 = 5;
/// Messages whose failures are counted at a time.
const FAILURES_KEPT_MAX: usize = 32;
/// Into how many parts a batch is cut that could not be read: of the largest, two cuts leave one message.
const PARTS: usize = 16;
/// Messages in doubt at a time.
const DOUBTED_MAX: usize = 4 * BATCH_MAX;

/// What is remembered of an account from one session to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when the present session, or the last one, had looked at everything once.
    pub well_since: Option<Instant>,
    /// QRESYNC once told more than the client takes.
    pub(super) plain_select: bool,
    /// There is a header too large to be read whole.
    pub(super) large_headers: bool,
    /// IDLE is offered and refused.
    pub(super) no_idle: bool,
    pub(super) id_changes: IdChanges,
    /// When all UIDs were last compared.
    pub(super) swept_at: Option<Instant>,
    /// Messages over which sessions have failed, and how often in a row; the eldest first.
    failures: VecDeque<Failed>,
    doubt: Option<Doubt>,
}

/// A mailbox under the UIDVALIDITY that its UIDs have.
pub(super) type Place<'a> = (&'a MailboxName, u64);

/// What was asked for of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Header,
    Body,
}

#[derive(Debug)]
struct Failed {
    asked: Asked,
    mailbox: MailboxName,
    uid_validity: u64,
    uid: Uid,
    times: u32,
}

impl Failed {
    fn is_of(&self, asked: Asked, (mailbox, uid_validity): Place<'_>, uid: Uid) -> bool {
        self.asked == asked
            && self.uid == uid
            && self.uid_validity == uid_validity
            && self.mailbox == *mailbox
    }
}

/// Messages that could not be read together: one of them is to blame, or their number.
#[derive(Debug)]
struct Doubt {
    mailbox: MailboxName,
    uid_validity: u64,
    uids: BTreeSet<Uid>,
    /// How many of them are asked for at a time.
    at_once: usize,
}

impl Doubt {
    fn is_about(&self, (mailbox, uid_validity): Place<'_>) -> bool {
        self.mailbox == *mailbox && self.uid_validity == uid_validity
    }
}

impl Memory {
    /// Whether a message has failed so often that it is not asked for again.
    pub(super) fn is_given_up(&self, asked: Asked, place: Place<'_>, uid: Uid) -> bool {
        self.failures.iter().any(|failed| failed.is_of(asked, place, uid) && failed.times >= FAILURES_MAX)
    }

    pub(super) fn note_failure(&mut self, asked: Asked, place: Place<'_>, uid: Uid) {
        if let Some(failed) = self.failures.iter_mut().find(|failed| failed.is_of(asked, place, uid)) {
            failed.times = failed.times.saturating_add(1);
            return;
        }
        if self.failures.len() >= FAILURES_KEPT_MAX {
            self.failures.pop_front();
        }
        let (mailbox, uid_validity) = (place.0.clone(), place.1);
        self.failures.push_back(Failed { asked, mailbox, uid_validity, uid, times: 1 });
    }

    /// To be called when messages were read after all, or are given up.
    pub(super) fn forget_failures(&mut self, asked: Asked, place: Place<'_>, uids: &[Uid]) {
        self.failures.retain(|failed| !uids.iter().any(|uid| failed.is_of(asked, place, *uid)));
    }

    /// How many of these to ask for together, from the first.
    pub(super) fn at_once(&self, place: Place<'_>, uids: &[Uid]) -> usize {
        let Some(doubt) = self.doubt.as_ref().filter(|doubt| doubt.is_about(place)) else {
            return uids.len();
        };
        match uids.iter().take_while(|uid| doubt.uids.contains(uid)).count() {
            0 => uids.iter().take_while(|uid| !doubt.uids.contains(uid)).count(),
            doubted => doubted.min(doubt.at_once),
        }
    }

    /// Notes that these could not be read together: fewer of them are asked for next.
    pub(super) fn doubt(&mut self, place: Place<'_>, asked: &[Uid]) {
        let mut uids: BTreeSet<Uid> = asked.iter().copied().collect();
        let former = self.doubt.take().filter(|former| former.is_about(place));
        uids.extend(former.into_iter().flat_map(|former| former.uids).take(DOUBTED_MAX - BATCH_MAX));
        let at_once = (asked.len() / PARTS).max(1);
        self.doubt = Some(Doubt { mailbox: place.0.clone(), uid_validity: place.1, uids, at_once });
    }

    /// Notes that these are done with.
    pub(super) fn trust(&mut self, place: Place<'_>, uids: &[Uid]) {
        if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.is_about(place)) {
            for uid in uids {
                doubt.uids.remove(uid);
            }
        }
        self.doubt.take_if(|doubt| doubt.uids.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uids(range: std::ops::RangeInclusive<u32>) -> Vec<Uid> {
        range.filter_map(Uid::new).collect()
    }

    #[test]
    fn a_message_is_given_up_at_its_place_alone_and_only_while_it_goes_on_failing() {
        use Asked::{Body, Header};
        let (inbox, sent) = (MailboxName::inbox(), MailboxName::new(b"Sent").unwrap());
        let [one, other] = [812, 813].map(|number| Uid::new(number).unwrap());
        let mut memory = Memory::default();
        for _ in 0..FAILURES_MAX {
            assert!(!memory.is_given_up(Body, (&inbox, 7), one));
            memory.note_failure(Body, (&inbox, 7), one);
            // Another one that fails by turns does not hide it.
            memory.note_failure(Body, (&inbox, 7), other);
        }
        for uid in [one, other] {
            assert!(memory.is_given_up(Body, (&inbox, 7), uid));
            assert!(!memory.is_given_up(Header, (&inbox, 7), uid));
            assert!(!memory.is_given_up(Body, (&inbox, 8), uid));
            assert!(!memory.is_given_up(Body, (&sent, 7), uid));
        }
        memory.forget_failures(Header, (&inbox, 7), &[one]);
        assert!(memory.is_given_up(Body, (&inbox, 7), one));
        memory.forget_failures(Body, (&inbox, 7), &[one]);
        assert!(!memory.is_given_up(Body, (&inbox, 7), one));
        for uid in uids(1..=1000) {
            memory.note_failure(Header, (&inbox, 7), uid);
        }
        assert_eq!(memory.failures.len(), FAILURES_KEPT_MAX);
    }

    #[test]
    fn one_bad_message_of_a_batch_is_found_in_a_few_steps() {
        let inbox = MailboxName::inbox();
        let place = (&inbox, 7);
        let (mut memory, mut left) = (Memory::default(), uids(1..=200));
        let (bad, mut failures, mut asked_for) = (uids(150..=150)[0], 0, 0);
        while !left.is_empty() {
            let asked = left[..memory.at_once(place, &left)].to_vec();
            asked_for += 1;
            if asked.len() > 1 && asked.contains(&bad) {
                failures += 1;
                memory.doubt(place, &asked);
            } else {
                memory.trust(place, &asked);
                left.drain(..asked.len());
            }
        }
        assert_eq!(failures, 2);
        assert!(asked_for < 80, "{asked_for}");
        assert!(memory.doubt.is_none());
    }

    #[test]
    fn what_is_in_doubt_is_asked_for_apart_from_all_else() {
        let (inbox, sent) = (MailboxName::inbox(), MailboxName::new(b"Sent").unwrap());
        let mut memory = Memory::default();
        memory.doubt((&inbox, 7), &uids(10..=41));
        assert_eq!(memory.at_once((&inbox, 7), &uids(1..=100)), 9);
        assert_eq!(memory.at_once((&inbox, 7), &uids(10..=100)), 2);
        assert_eq!(memory.at_once((&inbox, 8), &uids(10..=100)), 91);
        assert_eq!(memory.at_once((&sent, 7), &uids(10..=100)), 91);
        assert_eq!(memory.at_once((&inbox, 7), &[]), 0);
        memory.trust((&sent, 7), &uids(10..=41));
        memory.trust((&inbox, 7), &uids(10..=40));
        assert_eq!(memory.at_once((&inbox, 7), &uids(41..=50)), 1);
        memory.trust((&inbox, 7), &uids(41..=41));
        assert_eq!(memory.at_once((&inbox, 7), &uids(41..=50)), 10);
    }
}
