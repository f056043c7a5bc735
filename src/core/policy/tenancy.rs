//! Whether mail of an account that several workspaces share is another workspace's: told by what that one sent.
//!
//! A function of the header, of the traces that the gateway leaves in what it sends (`core::origin`), and of keyed hashes of
//! mail decided on before. Not here: gathering those (`flow`), and the verdict (`judge`).

use std::collections::HashSet;

use super::settings::MultiTenant;

/// A keyed hash of a Message-ID.
pub type IdHash = [u8; 16];

/// What says that a message is another workspace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Elsewhere {
    /// Nothing.
    #[default]
    No,
    /// The user sent it from there.
    Sent,
    /// It answers what was sent from there.
    Answers,
    /// It belongs to a conversation in which the user has answered from there, and not from here.
    Beside,
}

/// A message as far as its ids tell.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    /// Those by which it is known.
    pub own: Vec<IdHash>,
    /// Those of its In-Reply-To and References.
    pub named: Vec<IdHash>,
    /// The account's user wrote it, and another workspace sent it from his address.
    pub sent_there: bool,
    /// It names an id that another workspace gave to mail from his address.
    pub names_theirs: bool,
    /// It names one that this workspace gave.
    pub names_ours: bool,
}

/// What is known of mail decided on before.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    /// Ids of mail that was left out as another workspace's.
    pub theirs: HashSet<IdHash>,
    /// Ids named by what another workspace sent.
    pub answered_there: HashSet<IdHash>,
    /// Ids of what this workspace sent.
    pub ours: HashSet<IdHash>,
    /// Ids named by what this workspace sent.
    pub answered_here: HashSet<IdHash>,
}

/// What is another workspace's of mail that is judged together, in the order given. One message may tell of the next, in
/// whatever order they are given.
#[must_use]
pub fn elsewhere(setting: MultiTenant, mail: &[Ids], mut traces: Traces) -> Vec<Elsewhere> {
    if setting == MultiTenant::Fanout {
        return vec![Elsewhere::No; mail.len()];
    }
    for ids in mail.iter().filter(|ids| ids.sent_there) {
        traces.note(ids, Elsewhere::Sent);
    }
    loop {
        let found: Vec<Elsewhere> = mail.iter().map(|ids| traces.tell(setting, ids)).collect();
        let known = traces.theirs.len();
        for (ids, elsewhere) in mail.iter().zip(&found) {
            traces.note(ids, *elsewhere);
        }
        // Each round but the last adds an id: there are no more rounds than messages.
        if traces.theirs.len() == known {
            return found;
        }
    }
}

impl Traces {
    fn tell(&self, setting: MultiTenant, ids: &Ids) -> Elsewhere {
        let names = |some: &HashSet<IdHash>| ids.named.iter().any(|id| some.contains(id));
        if ids.sent_there {
            return Elsewhere::Sent;
        }
        // An answer to what both have sent is both's.
        if ids.names_ours || names(&self.ours) {
            return Elsewhere::No;
        }
        if ids.names_theirs || names(&self.theirs) {
            return Elsewhere::Answers;
        }
        // What the answer names was there before it, and all see it.
        let is_before = ids.own.iter().any(|id| self.answered_there.contains(id));
        let is_beside = names(&self.answered_there) && !names(&self.answered_here) && !is_before;
        if setting == MultiTenant::ReplyWins && is_beside { Elsewhere::Beside } else { Elsewhere::No }
    }

    fn note(&mut self, ids: &Ids, elsewhere: Elsewhere) {
        if matches!(elsewhere, Elsewhere::Sent | Elsewhere::Answers) {
            self.theirs.extend(&ids.own);
        }
        if elsewhere == Elsewhere::Sent {
            self.answered_there.extend(&ids.named);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Elsewhere::{Answers, Beside, No, Sent},
        MultiTenant::{Fanout, OriginatingOnly, ReplyWins},
        *,
    };

    fn hash(n: u8) -> IdHash {
        [n; 16]
    }

    fn ids(own: u8, named: &[u8]) -> Ids {
        Ids { own: vec![hash(own)], named: named.iter().map(|n| hash(*n)).collect(), ..Ids::default() }
    }

    fn sent_there(own: u8, named: &[u8]) -> Ids {
        Ids { sent_there: true, ..ids(own, named) }
    }

    #[track_caller]
    fn check(setting: MultiTenant, mail: &[Ids], expect: &[Elsewhere]) {
        assert_eq!(elsewhere(setting, mail, Traces::default()), expect, "{setting:?}");
        let turned: Vec<Ids> = mail.iter().rev().cloned().collect();
        let mut found = elsewhere(setting, &turned, Traces::default());
        found.reverse();
        assert_eq!(found, expect, "{setting:?}, the other way round");
    }

    #[test]
    fn faq_10_what_a_workspace_sent_and_the_answers_to_it_are_its_own() {
        // A contact writes (1), the other workspace answers (2), and is answered (3); and he writes again to his own (4).
        let mail =
            [ids(1, &[]), sent_there(2, &[1]), Ids { names_theirs: true, ..ids(3, &[1, 2]) }, ids(4, &[1])];
        check(OriginatingOnly, &mail, &[No, Sent, Answers, No]);
        check(ReplyWins, &mail, &[No, Sent, Answers, Beside]);
        check(Fanout, &mail, &[No, No, No, No]);
    }

    #[test]
    fn an_answer_that_names_its_parent_alone_is_found_by_that() {
        // The Message-ID of what was sent (1) was the CRM's own: its answers show no trace.
        check(OriginatingOnly, &[sent_there(1, &[]), ids(2, &[1]), ids(3, &[2])], &[Sent, Answers, Answers]);
    }

    #[test]
    fn kana_7_a_reply_by_hand_belongs_to_nobody() {
        check(ReplyWins, &[ids(1, &[]), ids(2, &[1]), ids(3, &[1, 2])], &[No, No, No]);
        // Only what follows a reply from elsewhere stays there.
        let mail = [ids(1, &[]), ids(2, &[1]), sent_there(3, &[1, 2]), ids(4, &[1, 2])];
        check(ReplyWins, &mail, &[No, No, Sent, Beside]);
    }

    #[test]
    fn who_has_answered_too_keeps_the_conversation() {
        let both = Ids { names_theirs: true, names_ours: true, ..ids(3, &[1, 2]) };
        check(OriginatingOnly, std::slice::from_ref(&both), &[No]);
        check(ReplyWins, &[both], &[No]);
        let traces = Traces { answered_here: HashSet::from([hash(1)]), ..Traces::default() };
        let mail = [sent_there(2, &[1]), ids(4, &[1])];
        assert_eq!(elsewhere(ReplyWins, &mail, traces), [Sent, No]);
        let traces = Traces { ours: HashSet::from([hash(1)]), ..Traces::default() };
        let answer = Ids { names_theirs: true, ..ids(4, &[1]) };
        assert_eq!(elsewhere(OriginatingOnly, &[answer], traces), [No]);
    }

    /// A mailbox in the order in which it came about: what each names, and whether another workspace sent it.
    fn history() -> impl Strategy<Value = Vec<(Vec<prop::sample::Index>, bool)>> {
        prop::collection::vec(
            (prop::collection::vec(any::<prop::sample::Index>(), 0..3), prop::bool::weighted(0.3)),
            1..10,
        )
    }

    /// Mail whose References name all that came before it in its thread, as RFC 5322 section 3.6.4 has it, and whose ids
    /// the gateway gave.
    fn mailbox(history: &[(Vec<prop::sample::Index>, bool)]) -> Vec<Ids> {
        let mut mail: Vec<(Ids, HashSet<usize>)> = Vec::new();
        for (number, (parents, sent_there)) in history.iter().enumerate() {
            let mut ancestors = HashSet::new();
            for parent in parents.iter().filter(|_| number > 0).map(|parent| parent.index(number)) {
                ancestors.insert(parent);
                ancestors.extend(mail[parent].1.iter().copied());
            }
            let hash_of = |number: &usize| hash(u8::try_from(*number).unwrap());
            let ids = Ids {
                own: vec![hash_of(&number)],
                named: ancestors.iter().map(hash_of).collect(),
                sent_there: *sent_there,
                names_theirs: ancestors.iter().any(|ancestor| history[*ancestor].1),
                names_ours: false,
            };
            mail.push((ids, ancestors));
        }
        mail.into_iter().map(|(ids, _)| ids).collect()
    }

    proptest! {
        /// Seen all at once or one after the other, oldest or newest first: what is judged by is the same.
        #[test]
        fn whose_mail_is_does_not_depend_on_the_order_in_which_it_is_seen(history in history(), seed in any::<u64>()) {
            let mail = mailbox(&history);
            let at_once = elsewhere(OriginatingOnly, &mail, Traces::default());
            let mut order: Vec<usize> = (0..mail.len()).collect();
            order.sort_by_key(|number| blake3::hash(format!("{seed}/{number}").as_bytes()).as_bytes().to_owned());
            let mut traces = Traces::default();
            for number in order {
                let alone = std::slice::from_ref(&mail[number]);
                let found = elsewhere(OriginatingOnly, alone, traces.clone())[0];
                traces.note(&mail[number], found);
                prop_assert_eq!(found, at_once[number]);
            }
        }

        /// The order within a batch tells nothing, whatever the setting and however little mail names.
        #[test]
        fn the_order_within_a_batch_counts_for_nothing(
            mail in prop::collection::vec((0_u8..8, prop::collection::vec(0_u8..8, 0..3), any::<[bool; 3]>()), 1..8),
            setting in prop::sample::select(vec![Fanout, ReplyWins, OriginatingOnly]),
        ) {
            let mail: Vec<Ids> = mail
                .iter()
                .map(|(own, named, [sent_there, names_theirs, names_ours])| Ids {
                    sent_there: *sent_there, names_theirs: *names_theirs, names_ours: *names_ours, ..ids(*own, named)
                })
                .collect();
            let turned: Vec<Ids> = mail.iter().rev().cloned().collect();
            let mut found = elsewhere(setting, &turned, Traces::default());
            found.reverse();
            prop_assert_eq!(elsewhere(setting, &mail, Traces::default()), found);
        }
    }
}
