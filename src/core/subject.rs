//! Which messages belong together by their subjects, where policy says that subjects may: an answer that names nothing, and
//! what it answers by all signs, within a window of time.
//!
//! What it answers was written by one whom it is addressed to, to its author, under the same subject: so nobody is joined to
//! mail that he was no party to. On a mailing list both were addressed to the list instead. Whether two messages meet is a
//! fact of the two, so the grouping is again the set of components, and the same in whatever order mail arrives. Subjects are
//! guesses: they let nothing into the CRM, and automatic mail, whose subjects repeat, joins nothing by them. Not here: ids
//! (`threading`), the index (`store`), and what a subject without its prefixes is (`mail`).

use jiff::{SignedDuration, Timestamp};

use super::{
    message::Parties,
    policy::{Settings, settings::SubjectThreading},
};
use crate::mail::{Address, Automatic, HeaderSummary, subject};

/// People whom a message is compared by. Mail to more is no conversation.
const PEOPLE_MAX: usize = 50;
/// Stands for whoever wrote; no address.
const ANYBODY: &str = "*";

/// What of a message decides which others it meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectMark {
    /// Base subject, author and addressee, once for each addressee. Only keyed hashes of them are stored.
    pub found_by: Vec<String>,
    /// The same of mail that this message may answer; empty unless it is an answer that names nothing.
    pub seeks: Vec<String>,
    /// The Date field: when it came here is chance.
    pub sent_at: Timestamp,
    /// How far from an answer those it seeks may be sent, before or after.
    pub reach: SignedDuration,
}

impl SubjectMark {
    /// The mark of a message; `None` of one that subjects may not join to others.
    #[must_use]
    pub fn of(settings: &Settings, summary: &HeaderSummary, parties: &Parties) -> Option<Self> {
        let SubjectThreading::Within(window) = settings.subject_threading else { return None };
        let (whole, sent_at) = (summary.subject.as_deref()?, summary.date?);
        let base = subject::base_subject(whole).to_lowercase();
        let people = People::of(summary, parties)?;
        if base.is_empty() {
            return None;
        }
        let answers = summary.names_nothing() && subject::is_reply_prefix(whole);
        // No line of a header holds a line break: nothing runs together.
        let text = |(from, to): (&str, &str)| format!("{base}\n{from}\n{to}");
        let texts = |pairs: Vec<(&str, &str)>| pairs.into_iter().map(text).collect();
        Some(Self {
            found_by: texts(people.told()),
            seeks: if answers { texts(people.sought()) } else { Vec::new() },
            sent_at,
            reach: SignedDuration::try_from(window.duration()).unwrap_or(SignedDuration::MAX),
        })
    }

    /// Whether two messages belong together: one of them is an answer that reaches the other.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let apart = self.sent_at.duration_since(other.sent_at).abs();
        let reaches = |answer: &Self, told: &Self| {
            apart <= answer.reach && answer.seeks.iter().any(|text| told.found_by.contains(text))
        };
        reaches(self, other) || reaches(other, self)
    }
}

/// Who wrote to whom. Users too, other than for ids: that Bob answers Ann makes it no answer to Carl. Nobody in Bcc, whom some
/// copies do not show.
struct People<'a> {
    author: &'a str,
    list: Option<&'a str>,
    /// Without the author and the list.
    addressed: Vec<&'a str>,
}

impl<'a> People<'a> {
    fn of(summary: &'a HeaderSummary, parties: &'a Parties) -> Option<Self> {
        let author = parties.from.first()?.address.key();
        let list = summary.list.as_ref().map(Address::key);
        let named = parties.to.iter().chain(&parties.cc).map(|party| party.address.key());
        let mut addressed: Vec<&str> =
            named.filter(|address| *address != author && Some(*address) != list).collect();
        addressed.sort_unstable();
        addressed.dedup();
        let by_a_person =
            summary.automatic == Automatic::No || (summary.automatic == Automatic::List && list.is_some());
        // Somebody must be there to have answered.
        let is_enough = list.is_some() || !addressed.is_empty();
        (by_a_person && is_enough && addressed.len() < PEOPLE_MAX).then_some(Self { author, list, addressed })
    }

    /// Whose mail to whom this is.
    fn told(&self) -> Vec<(&'a str, &'a str)> {
        let by_author = self.addressed.iter().copied().chain(self.list).map(|to| (self.author, to));
        by_author.chain(self.list.map(|list| (ANYBODY, list))).collect()
    }

    /// Whose mail to whom this answers. Who answers on a list and names a person answers that person; who names none, anybody.
    fn sought(&self) -> Vec<(&'a str, &'a str)> {
        let to_author = self.addressed.iter().map(|from| (*from, self.author));
        let to_list = self.addressed.iter().filter_map(|from| Some((*from, self.list?)));
        let anybodys = self.list.filter(|_| self.addressed.is_empty()).map(|list| (ANYBODY, list));
        to_author.chain(to_list).chain(anybodys).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::core::policy::{Policy, Preset, span::Span};
    use crate::mail::HeaderBlock;

    fn settings(days: Option<u64>) -> Arc<Settings> {
        let mut policy = Policy::of_preset(Preset::named("mailweave").unwrap());
        let settings = Arc::make_mut(&mut policy.settings);
        settings.subject_threading = days
            .map_or(SubjectThreading::Off, |days| SubjectThreading::Within(Span::from_secs(days * 86_400)));
        policy.settings
    }

    /// A message of the given day.
    fn mark_under(
        days: Option<u64>,
        from: &str,
        to: &str,
        (subject, day): (&str, u8),
        more: &str,
    ) -> Option<SubjectMark> {
        let header = format!(
            "From: {from}@x.example\r\nTo: {to}@x.example\r\nSubject: {subject}\r\n\
             Date: {day} Apr 2025 10:00:00 +0000\r\n{more}\r\n"
        );
        let summary = HeaderSummary::of(&HeaderBlock::scan(header.as_bytes()));
        let parties = crate::core::attribution::OurDomains::default().parties(&summary);
        SubjectMark::of(&settings(days), &summary, &parties)
    }

    fn mark(from: &str, to: &str, subject: &str, day: u8) -> SubjectMark {
        mark_under(Some(7), from, to, (subject, day), "").unwrap()
    }

    #[track_caller]
    fn check(one: &SubjectMark, other: &SubjectMark, meet: bool) {
        assert_eq!((one.meets(other), other.meets(one)), (meet, meet));
    }

    #[test]
    fn an_answer_meets_what_those_it_answers_wrote_to_its_author_within_the_window() {
        let offer = mark("ann", "bob", "Ten desks", 10);
        check(&offer, &mark("bob", "ann", "RE: [crm] ten  Desks", 17), true);
        check(&offer, &mark("bob", "ann", "AW: Ten desks", 3), true);
        check(&offer, &mark("bob", "ann@x.example, carl", "Re: Ten desks", 11), true);
        check(&offer, &mark("bob", "ann", "Re: Ten desks", 18), false);
        check(&offer, &mark("bob", "ann", "Re: Nine desks", 11), false);
        // Nobody answered: the same subject twice are two matters.
        check(&offer, &mark("ann", "bob", "Ten desks", 11), false);
        check(&offer, &mark("ann", "bob", "Fwd: Ten desks", 11), false);
        check(&offer, &mark("ann", "bob", "Re: Ten desks", 11), false);
        // Other people: who was not written to answers nothing, though he names all who were there.
        check(&offer, &mark("bob", "carl", "Re: Ten desks", 11), false);
        check(&offer, &mark("carl", "ann@x.example, bob", "Re: Ten desks", 11), false);
    }

    #[test]
    fn on_a_list_an_answer_meets_what_went_to_the_list() {
        let list = |from: &str, to: &str, subject: &str| {
            let list = "List-Id: <desks.x.example>\r\nPrecedence: list\r\n";
            mark_under(Some(7), from, to, (subject, 10), list).unwrap()
        };
        let question = list("ann", "desks", "Ten desks");
        check(&question, &list("bob", "desks", "Re: Ten desks"), true);
        check(&question, &list("bob", "ann@x.example, desks", "Re: Ten desks"), true);
        // It answers whom it names.
        check(&question, &list("bob", "carl@x.example, desks", "Re: Ten desks"), false);
        check(&question, &list("bob", "desks", "Ten desks"), false);
        check(&question, &mark("bob", "carl", "Re: Ten desks", 10), false);
    }

    #[test]
    fn what_says_itself_what_it_answers_is_believed() {
        let offer = mark("ann", "bob", "Ten desks", 10);
        for more in ["In-Reply-To: <1@x>\r\n", "References: <1@x>\r\n"] {
            let answer = mark_under(Some(7), "bob", "ann", ("Re: Ten desks", 11), more).unwrap();
            check(&offer, &answer, false);
            // Yet one that names nothing finds it.
            check(&answer, &mark("ann", "bob", "Re: Ten desks", 12), true);
        }
    }

    #[test]
    fn mail_without_people_subject_or_date_and_mail_of_machines_has_no_mark() {
        let none =
            |days, from, to, subject, more| assert_eq!(mark_under(days, from, to, (subject, 10), more), None);
        none(None, "ann", "bob", "Ten desks", "");
        none(Some(7), "ann", "ann", "Ten desks", "");
        none(Some(7), "ann", "bob", "Re: ", "");
        none(Some(7), "ann", "bob", "Re: Ten desks", "Auto-Submitted: auto-replied\r\n");
        let undated = HeaderSummary::read(b"From: a@x.example\r\nTo: b@x.example\r\nSubject: Hi\r\n\r\n");
        let parties = crate::core::attribution::OurDomains::default().parties(&undated);
        assert_eq!(SubjectMark::of(&settings(Some(7)), &undated, &parties), None);
    }

    /// Files one after the other into groups as ingest does: a message joins all groups that it meets a member of.
    fn grouping(marks: &[Option<SubjectMark>], order: &[usize]) -> BTreeSet<BTreeSet<usize>> {
        let mut groups: Vec<BTreeSet<usize>> = Vec::new();
        for number in order {
            let meets = |other: &usize| match (&marks[*number], &marks[*other]) {
                (Some(one), Some(other)) => one.meets(other),
                _ => false,
            };
            let (met, mut rest): (Vec<_>, Vec<_>) =
                groups.drain(..).partition(|group| group.iter().any(meets));
            let mut joined: BTreeSet<usize> = met.into_iter().flatten().collect();
            joined.insert(*number);
            rest.push(joined);
            groups = rest;
        }
        groups.into_iter().collect()
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_conversations(
            mail in prop::collection::vec(
                (0..3_usize, 0..3_usize, 0..3_usize, 1..28_u8, prop::option::of(1..9_u64)), 1..14),
            seed in any::<u64>(),
        ) {
            let (people, subjects) = (["ann", "bob", "carl"], ["Desks", "Re: Desks", "Re: Chairs"]);
            // Whose accounts saw them may have windows of their own.
            let marks: Vec<_> = mail
                .iter()
                .map(|(from, to, subject, day, days)| {
                    mark_under(*days, people[*from], people[*to], (subjects[*subject], *day), "")
                })
                .collect();
            let order: Vec<usize> = (0..marks.len()).collect();
            let mut shuffled = order.clone();
            shuffled.sort_by_key(|number| blake3::hash(format!("{seed}/{number}").as_bytes()).as_bytes().to_owned());
            let groups = grouping(&marks, &order);
            // Nobody gets into a group whom none of it was written to or by.
            for group in groups.iter().filter(|group| group.len() > 1) {
                for number in group {
                    let (from, to) = (mail[*number].0, mail[*number].1);
                    let knows = |other: &usize| other != number && [from, to].contains(&mail[*other].0);
                    prop_assert!(group.iter().any(|other| knows(other) || [from, to].contains(&mail[*other].1) && other != number));
                }
            }
            prop_assert_eq!(groups, grouping(&marks, &shuffled));
        }
    }
}
