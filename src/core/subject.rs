//! Which messages belong together by their subjects, where policy says that subjects may: an answer that names nothing, and
//! mail of the same subject among the same people within a window of time.
//!
//! Whether two messages meet is a fact of the two, so the grouping is again the set of components, and the same in whatever
//! order mail arrives. Subjects are guesses: they let nothing into the CRM, and automatic mail, whose subjects repeat, joins
//! nothing by them. Not here: ids (`threading`), the index (`store`), and what a subject without its prefixes is (`mail`).

use jiff::{SignedDuration, Timestamp};

use super::{
    message::Parties,
    policy::{Settings, settings::SubjectThreading},
};
use crate::mail::{Address, Automatic, HeaderSummary, subject};

/// People whom the subject of a message is compared with. Mail to more is no conversation.
const PEOPLE_MAX: usize = 50;

/// What of a message decides which others it meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectMark {
    /// Base subject and people: equal texts meet. Only a keyed hash of it is stored.
    pub text: String,
    /// The Date field: when it came here is chance.
    pub sent_at: Timestamp,
    /// Of an answer that names nothing, how far from it those it meets may be sent, before or after.
    pub reach: Option<SignedDuration>,
}

impl SubjectMark {
    /// The mark of a message; `None` of one that subjects may not join to others.
    #[must_use]
    pub fn of(settings: &Settings, summary: &HeaderSummary, parties: &Parties) -> Option<Self> {
        let SubjectThreading::Within(window) = settings.subject_threading else { return None };
        let (whole, sent_at) = (summary.subject.as_deref()?, summary.date?);
        let base = subject::base_subject(whole).to_lowercase();
        let people = people(parties);
        // Somebody must be there to have answered.
        if base.is_empty() || !(2..=PEOPLE_MAX).contains(&people.len()) || summary.automatic != Automatic::No
        {
            return None;
        }
        let names_nothing =
            summary.in_reply_to.is_empty() && summary.references.is_empty() && summary.thread_index.is_none();
        let answers = names_nothing && subject::is_reply_prefix(whole);
        let window = SignedDuration::try_from(window.duration()).unwrap_or(SignedDuration::MAX);
        // No line of a header holds a line break: nothing runs together.
        let text = format!("{base}\n{}", people.join("\n"));
        Some(Self { text, sent_at, reach: answers.then_some(window) })
    }

    /// Whether two messages belong together: one of them is an answer that reaches the other.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let apart = self.sent_at.duration_since(other.sent_at).abs();
        let reaches = |mark: &Self| mark.reach.is_some_and(|reach| apart <= reach);
        self.text == other.text && (reaches(self) || reaches(other))
    }
}

/// Everybody in From, To and Cc. Users too, other than for ids: that Bob answers Ann makes it no answer to Carl. Nobody in
/// Bcc, whom some copies do not show.
fn people(parties: &Parties) -> Vec<&str> {
    let named = [&parties.from, &parties.to, &parties.cc].into_iter().flatten();
    let mut people: Vec<&str> = named.map(|party| Address::key(&party.address)).collect();
    people.sort_unstable();
    people.dedup();
    people
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
    fn an_answer_meets_what_the_same_people_wrote_under_its_subject_within_the_window() {
        let offer = mark("ann", "bob", "Ten desks", 10);
        check(&offer, &mark("bob", "ann", "RE: [crm] ten  Desks", 17), true);
        check(&offer, &mark("bob", "ann", "AW: Ten desks", 3), true);
        check(&offer, &mark("bob", "ann", "Re: Ten desks", 18), false);
        check(&offer, &mark("bob", "ann", "Re: Nine desks", 11), false);
        // Nobody answered: the same subject twice are two matters.
        check(&offer, &mark("ann", "bob", "Ten desks", 11), false);
        check(&offer, &mark("ann", "bob", "Fwd: Ten desks", 11), false);
        // Other people.
        check(&offer, &mark("bob", "carl", "Re: Ten desks", 11), false);
        check(&offer, &mark("bob", "ann@x.example, carl", "Re: Ten desks", 11), false);
    }

    #[test]
    fn what_says_itself_what_it_answers_is_believed() {
        let offer = mark("ann", "bob", "Ten desks", 10);
        for more in ["In-Reply-To: <1@x>\r\n", "References: <1@x>\r\n"] {
            let answer = mark_under(Some(7), "bob", "ann", ("Re: Ten desks", 11), more).unwrap();
            check(&offer, &answer, false);
            // Yet one that names nothing finds it.
            check(&answer, &mark("bob", "ann", "Re: Ten desks", 12), true);
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
            // Nobody gets into a group who shares no person with it.
            for group in groups.iter().filter(|group| group.len() > 1) {
                let texts: BTreeSet<_> = group.iter().map(|number| marks[*number].as_ref().unwrap().text.clone()).collect();
                prop_assert_eq!(texts.len(), 1);
            }
            prop_assert_eq!(groups, grouping(&marks, &shuffled));
        }
    }
}
