//! What a policy would have made of mail, had it been in force while that mail came: the real judge, message by message in
//! the order of arrival, while conversations begin and contacts are made as by real filing.
//!
//! Not here: gathering mail and what the store knows of it (`flow::sync::simulate`), and any trace of it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use uuid::Uuid;

use super::{
    EXCHANGE, FINAL_RULES, ListedContact, MailboxFacts, Policy, Settings, Traits, judge_mailbox, known,
    over_sync_limit,
    settings::{Attachments, OverSync, Oversize},
    too_large, whom,
};
use crate::{
    core::{
        attribution::{self, Known, KnownContact, OurDomains},
        decision::{Ruling, Verdict},
        ids::{ContactId, Id as _, UserId},
        message::Parties,
        people::CreatedBy,
        threading::ThreadKey,
    },
    mail::{Address, HeaderSummary, MessageId},
};

/// A message as far as its header tells, and what is known of it whatever the policy.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// When the provider took it in.
    pub at: Timestamp,
    pub parties: Parties,
    pub summary: HeaderSummary,
    pub traits: Traits,
    pub keys: Vec<ThreadKey>,
    /// Its conversation is in the CRM for other mail than that of the simulation.
    pub in_known_thread: bool,
    /// It answers what a user wrote and the CRM has.
    pub answers_filed: bool,
    /// The CRM has it, and not from this account alone: filing it takes no room.
    pub is_here: bool,
    /// Larger than messages may be.
    pub is_too_large: bool,
    /// Its body may hold attachments.
    pub may_hold_files: bool,
    /// Its body may be a report on mail that the CRM sent.
    pub may_report: bool,
}

/// What is known of the workspace while the mail comes.
#[derive(Debug, Clone)]
pub struct Ground {
    pub ours: OurDomains,
    /// Whose account it is.
    pub user: UserId,
    pub users: HashMap<Address, UserId>,
    /// The contacts of before, the first created first.
    pub listed: Vec<ListedContact>,
    /// Messages that may be synced in a day.
    pub synced_per_day: Option<u32>,
    pub zone: TimeZone,
    /// When the simulated time ends.
    pub until: Timestamp,
}

/// What became of the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// For each message, in the order given.
    pub rulings: Vec<Ruling>,
    /// Contacts made.
    pub contacts: u64,
    /// The days on which mail was filed, first to last.
    pub days: Vec<Day>,
    /// Messages that are put off still when the time ends.
    pub waiting: u64,
    /// Of what is synced: messages that a file in their body may yet keep out as a whole.
    pub files_unread: u64,
    /// Of what is skipped: messages that their body may yet show to report on mail of the CRM's, which brings them in.
    pub reports_unread: u64,
}

/// A day of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    /// Messages filed, those put off on days before among them.
    pub synced: u64,
    /// Messages of this day that were more than its limit, and were put off or left.
    pub over: u64,
}

/// Simulates a policy over mail, which must come in the order of its time.
#[must_use]
pub fn simulate(policy: &Policy, ground: &Ground, mail: &[Mail]) -> Course {
    let mut replay = Replay::new(policy, ground, mail);
    for (place, message) in mail.iter().enumerate() {
        replay.meet(place, message);
    }
    replay.end()
}

/// How a message stands.
struct State {
    ruling: Ruling,
    thread_known: bool,
    /// Whether its conversation was known when it was judged, and how many contacts had been made.
    judged_with: (bool, usize),
}

struct Replay<'a> {
    policy: &'a Policy,
    ground: &'a Ground,
    mail: &'a [Mail],
    known: Known,
    states: Vec<State>,
    /// Keys of what was filed.
    threads: HashSet<ThreadKey>,
    filed: HashSet<&'a MessageId>,
    /// Ids of filed mail that users wrote.
    by_users: HashSet<&'a MessageId>,
    /// What was skipped and may be recalled: by every id that it has or names, and by its keys.
    skipped_by_id: HashMap<&'a MessageId, Vec<usize>>,
    skipped_by_key: HashMap<ThreadKey, Vec<usize>>,
    /// Contacts made, by their number.
    made: HashMap<&'a Address, usize>,
    meter: Meter,
}

impl<'a> Replay<'a> {
    fn new(policy: &'a Policy, ground: &'a Ground, mail: &'a [Mail]) -> Self {
        let settings = &policy.settings;
        Self {
            policy,
            ground,
            mail,
            known: known(settings, ground.users.clone(), ground.listed.iter().cloned()),
            states: Vec::with_capacity(mail.len()),
            threads: HashSet::new(),
            filed: HashSet::new(),
            by_users: HashSet::new(),
            skipped_by_id: HashMap::new(),
            skipped_by_key: HashMap::new(),
            made: HashMap::new(),
            meter: Meter::new(ground, settings.over_sync),
        }
    }

    /// A message comes.
    fn meet(&mut self, place: usize, mail: &'a Mail) {
        let thread_known = mail.in_known_thread || mail.keys.iter().any(|key| self.threads.contains(key));
        let ruling = self.judge(mail, thread_known);
        let is_synced = ruling.verdict == Verdict::Synced;
        let is_final = FINAL_RULES.contains(&ruling.rule);
        self.states.push(State { ruling, thread_known, judged_with: (thread_known, self.made.len()) });
        if is_synced {
            self.file(place, mail.at);
        } else if !is_final {
            for id in ids(mail) {
                self.skipped_by_id.entry(id).or_default().push(place);
            }
            for key in &mail.keys {
                self.skipped_by_key.entry(*key).or_default().push(place);
            }
        }
    }

    fn judge(&self, mail: &Mail, thread_known: bool) -> Ruling {
        let who = attribution::attribute(&mail.parties, &self.known, &self.ground.ours);
        let facts = MailboxFacts::of(self.ground.user, &who, &self.known, mail.traits);
        let ruling = judge_mailbox(self.policy, MailboxFacts { thread_known, ..facts });
        if ruling.verdict == Verdict::Synced && mail.is_too_large { too_large() } else { ruling }
    }

    /// Files a message, and what was skipped before it was known to belong.
    fn file(&mut self, first: usize, at: Timestamp) {
        let all = self.mail;
        let mut due = vec![first];
        while let Some(place) = due.pop() {
            let Some(mail) = all.get(place) else { continue };
            let is_copy = mail.is_here || own_ids(mail).any(|id| self.filed.contains(id));
            if !is_copy && !self.meter.take(at) {
                self.rule(place, over_sync_limit(OverSync::Skip));
                continue;
            }
            if !is_copy {
                self.make_contacts(place, mail);
            }
            self.filed.extend(own_ids(mail));
            if self.is_users(mail) {
                self.by_users.extend(own_ids(mail));
            }
            self.open_thread(mail);
            due.extend(self.recall(mail));
        }
    }

    fn rule(&mut self, place: usize, ruling: Ruling) {
        if let Some(state) = self.states.get_mut(place) {
            state.ruling = ruling;
        }
    }

    fn is_users(&self, mail: &Mail) -> bool {
        mail.parties.from.first().is_some_and(|author| self.known.users.contains_key(&author.address))
    }

    /// Notes whose conversation is known from now on.
    fn open_thread(&mut self, mail: &Mail) {
        for key in &mail.keys {
            if self.threads.insert(*key) {
                for place in self.skipped_by_key.remove(key).unwrap_or_default() {
                    if let Some(state) = self.states.get_mut(place) {
                        state.thread_known = true;
                    }
                }
            }
        }
    }

    /// As filing does: what was skipped and has or names one of these ids is judged once more. Returns what belongs now.
    fn recall(&mut self, mail: &Mail) -> Vec<usize> {
        let skipped: BTreeSet<usize> =
            ids(mail).filter_map(|id| self.skipped_by_id.get(id)).flatten().copied().collect();
        skipped.into_iter().filter(|place| self.judge_again(*place)).collect()
    }

    /// True when it belongs now and did not before.
    fn judge_again(&mut self, place: usize) -> bool {
        let (Some(mail), Some(state)) = (self.mail.get(place), self.states.get(place)) else { return false };
        let (was_known, made_then) = state.judged_with;
        let is_news = |address: &Address| self.made.get(address).is_some_and(|number| *number >= made_then);
        let is_unchanged = was_known == state.thread_known
            && (made_then == self.made.len() || !mail.parties.addresses().any(is_news));
        let is_settled = state.ruling.verdict == Verdict::Synced || FINAL_RULES.contains(&state.ruling.rule);
        if is_settled || is_unchanged {
            return false;
        }
        let (thread_known, made) = (state.thread_known, self.made.len());
        let ruling = self.judge(mail, thread_known);
        let is_synced = ruling.verdict == Verdict::Synced;
        if let Some(state) = self.states.get_mut(place) {
            state.judged_with = (thread_known, made);
            state.ruling = ruling;
        }
        is_synced
    }

    fn make_contacts(&mut self, place: usize, mail: &'a Mail) {
        let settings = &self.policy.settings;
        let by = match () {
            () if mail.traits.is_sent && self.is_users(mail) => CreatedBy::Sent,
            () if self.answers_user(place, mail) => CreatedBy::Exchange,
            () => return,
        };
        if !settings.create_on.allows(by) {
            return;
        }
        let (ours, automatic) = (&self.ground.ours, mail.summary.automatic);
        let new = attribution::new_contacts(&mail.parties, &self.known, ours, automatic, whom(settings, by));
        let author = mail.parties.from.first().and_then(|author| self.known.users.get(&author.address));
        let owner = author.copied().unwrap_or(self.ground.user);
        for party in new {
            let number = self.made.len();
            let id = ContactId::from_uuid(Uuid::from_u128(number as u128));
            let contact = KnownContact { id, assigned_user: Some(owner) };
            self.known.contacts.insert(party.address.clone(), contact);
            self.known.listed.insert(party.address.clone());
            self.made.insert(&party.address, number);
        }
    }

    fn answers_user(&self, place: usize, mail: &Mail) -> bool {
        let is_exchange = self.states.get(place).is_some_and(|state| state.ruling.rule == EXCHANGE);
        let answered = &mail.summary.in_reply_to;
        is_exchange || mail.answers_filed || answered.iter().any(|id| self.by_users.contains(id))
    }

    fn end(mut self) -> Course {
        self.meter.end(self.ground.until);
        let settings = &self.policy.settings;
        let pairs = || self.states.iter().zip(self.mail);
        let files = pairs().filter(|(state, mail)| {
            state.ruling.verdict == Verdict::Synced && mail.may_hold_files && files_may_skip(settings)
        });
        let reports =
            pairs().filter(|(state, mail)| state.ruling.verdict != Verdict::Synced && mail.may_report);
        let (files_unread, reports_unread) = (files.count() as u64, reports.count() as u64);
        Course {
            files_unread,
            reports_unread,
            contacts: self.made.len() as u64,
            rulings: self.states.into_iter().map(|state| state.ruling).collect(),
            days: self.meter.days,
            waiting: self.meter.waiting,
        }
    }
}

/// Whether by policy a file can keep its whole message out.
fn files_may_skip(settings: &Settings) -> bool {
    let is_bounded = settings.attachment_bytes_max.is_some();
    settings.oversize == Oversize::SkipMessage && settings.attachments != Attachments::None && is_bounded
}

fn own_ids(mail: &Mail) -> impl Iterator<Item = &MessageId> {
    [&mail.summary.message_id, &mail.summary.original_message_id].into_iter().flatten()
}

/// Every id that a message has or names.
fn ids(mail: &Mail) -> impl Iterator<Item = &MessageId> {
    own_ids(mail).chain(&mail.summary.in_reply_to).chain(&mail.summary.references)
}

/// Counts what is filed a day, against a limit.
struct Meter {
    limit: Option<u64>,
    over: OverSync,
    zone: TimeZone,
    days: Vec<Day>,
    /// Put off, and not filed yet.
    waiting: u64,
}

impl Meter {
    fn new(ground: &Ground, over: OverSync) -> Self {
        let (limit, zone) = (ground.synced_per_day.map(u64::from), ground.zone.clone());
        Self { limit, over, zone, days: Vec::new(), waiting: 0 }
    }

    /// Takes a message in at this time, now or later. False when it stays out.
    fn take(&mut self, at: Timestamp) -> bool {
        self.turn_to(at);
        let Some(today) = self.days.last_mut() else { return true };
        if self.limit.is_none_or(|limit| today.synced < limit) {
            today.synced += 1;
            return true;
        }
        today.over += 1;
        if self.over == OverSync::Defer {
            self.waiting += 1;
        }
        self.over == OverSync::Defer
    }

    /// Lets days pass. What was put off comes first on each.
    fn turn_to(&mut self, at: Timestamp) {
        let today = at.to_zoned(self.zone.clone()).date();
        loop {
            let next = match self.days.last() {
                Some(last) if last.date >= today => return,
                Some(last) if self.waiting > 0 => last.date.tomorrow().unwrap_or(today),
                _ => today,
            };
            let synced = self.limit.map_or(0, |limit| limit.min(self.waiting));
            self.waiting -= synced;
            self.days.push(Day { date: next, synced, over: 0 });
        }
    }

    fn end(&mut self, at: Timestamp) {
        if self.waiting > 0 {
            self.turn_to(at);
        }
        while self.days.last().is_some_and(|day| day.synced == 0 && day.over == 0) {
            self.days.pop();
        }
    }
}

/// How many messages were ruled in the same way, the most first.
#[must_use]
pub fn tally(rulings: &[Ruling]) -> Vec<(Ruling, u64)> {
    count(rulings.iter().cloned(), |ruling| ruling.rule)
}

/// How many messages would be ruled otherwise, for each pair of rulings, the most first.
#[must_use]
pub fn changes(from: &[Ruling], to: &[Ruling]) -> Vec<((Ruling, Ruling), u64)> {
    let pairs = from.iter().cloned().zip(to.iter().cloned()).filter(|(from, to)| from != to);
    count(pairs, |(from, to)| (from.rule, to.rule))
}

/// A rule's word stands for its verdict and its reason.
fn count<T, K: Ord>(all: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<(T, u64)> {
    let mut counts: BTreeMap<K, (T, u64)> = BTreeMap::new();
    for one in all {
        counts.entry(key(&one)).or_insert((one, 0)).1 += 1;
    }
    let mut counts: Vec<(T, u64)> = counts.into_values().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;
    use crate::{
        core::{
            policy::{Choice, Choices, Overrides, Preset},
            threading::{self, ThreadNode},
        },
        mail::Party,
    };

    const ANN: &str = "ann@us.example";
    const BEN: &str = "ben@us.example";
    const CORA: &str = "cora@out.example";
    const EVA: &str = "eva@far.example";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    /// Ann's account; Ben works with her; Cora is a contact, with another address at home.
    fn ground(limit: Option<u32>) -> Ground {
        let listed = |text: &str, is_primary| ListedContact {
            address: address(text),
            contact: ContactId::from_uuid(Uuid::from_u128(u128::MAX)),
            assigned_user: None,
            is_primary,
            is_user: false,
        };
        Ground {
            ours: OurDomains::default(),
            user: user(1),
            users: [(address(ANN), user(1)), (address(BEN), user(2))].into(),
            listed: vec![listed(CORA, true), listed("cora@home.example", false)],
            synced_per_day: limit,
            zone: TimeZone::UTC,
            until: hour(24 * 30),
        }
    }

    fn hour(hours: i64) -> Timestamp {
        Timestamp::from_second(1_743_465_600 + hours * 3600).unwrap()
    }

    fn policy(preset: &str, overrides: serde_json::Value) -> Policy {
        let serde_json::Value::Object(overrides) = overrides else { panic!("an object") };
        let workspace =
            Choice { preset: Some(preset.to_owned()), overrides: Overrides::new(overrides).unwrap() };
        Choices { workspace, ..Choices::default() }.policy().unwrap()
    }

    fn preset(name: &str) -> Policy {
        Policy::of_preset(Preset::named(name).unwrap())
    }

    /// A message of this number, which names another.
    fn mail(number: u32, from: &str, to: &[&str], answers: Option<u32>) -> Mail {
        let party = |text: &str| Party::new(address(text), None);
        let id = |number: u32| MessageId::parse(&format!("<{number}@x.example>")).unwrap();
        let parties = Parties {
            from: vec![party(from)],
            to: to.iter().map(|text| party(text)).collect(),
            ..Parties::default()
        };
        let summary = HeaderSummary {
            message_id: Some(id(number)),
            in_reply_to: answers.map(id).into_iter().collect(),
            ..HeaderSummary::default()
        };
        let ours = OurDomains::default();
        let known = Known { users: ground(None).users, ..Known::default() };
        let outsiders = attribution::attribute(&parties, &known, &ours).outsiders;
        let nodes: Vec<_> = summary
            .message_id
            .iter()
            .chain(&summary.in_reply_to)
            .cloned()
            .map(ThreadNode::MessageId)
            .collect();
        let keys = threading::keys(&nodes, &outsiders);
        let traits = Traits { is_sent: from == ANN, ..Traits::default() };
        Mail { at: hour(i64::from(number)), parties, summary, keys, traits, ..Mail::default() }
    }

    #[track_caller]
    fn check(policy: &Policy, mail: &[Mail], rules: &[&str]) -> Course {
        let course = simulate(policy, &ground(None), mail);
        let got: Vec<_> = course.rulings.iter().map(|ruling| ruling.rule).collect();
        assert_eq!(got, rules, "{}", policy.preset);
        course
    }

    #[test]
    fn a_conversation_that_begins_in_the_simulation_is_known_from_then_on() {
        let all = [
            mail(1, EVA, &[ANN], None),
            mail(2, CORA, &[ANN], None),
            mail(3, ANN, &[CORA], Some(2)),
            mail(4, EVA, &[ANN, CORA], Some(2)),
            mail(5, EVA, &[ANN], Some(2)),
            mail(6, BEN, &[ANN], Some(2)),
        ];
        let rules =
            ["no_contact", "contact_wrote", "known_thread", "known_thread", "known_thread", "internal"];
        // Whoever was copied in is on the thread from there on.
        check(&preset("mailweave"), &all, &rules);
        let rules = ["no_contact", "contact_wrote", "known_thread", "known_thread", "no_contact", "internal"];
        check(&preset("keap"), &all, &rules);
        check(
            &preset("kaname-outlook"),
            &all,
            &[
                "no_contact",
                "inbound_starts_nothing",
                "outbound_starts_nothing",
                "stranger_wrote",
                "no_contact",
                "no_contact",
            ],
        );
        let mut known = all.clone();
        known[2].in_known_thread = true;
        let outlook = preset("kaname-outlook");
        check(
            &outlook,
            &known,
            &["no_contact", "known_thread", "known_thread", "known_thread", "known_thread", "no_contact"],
        );
    }

    #[test]
    fn what_came_before_its_conversation_is_recalled_as_by_filing() {
        let all = [
            mail(1, EVA, &[ANN], None),
            mail(2, EVA, &[ANN], Some(1)),
            mail(3, CORA, &[ANN, EVA], Some(2)),
            mail(4, EVA, &[ANN], None),
        ];
        // The third names the second, which names the first: one brings the other.
        check(&preset("mailweave"), &all, &["known_thread", "known_thread", "contact_wrote", "no_contact"]);
        let contacts = policy("mailweave", serde_json::json!({ "thread_follow": "contacts" }));
        check(&contacts, &all, &["no_contact", "no_contact", "contact_wrote", "no_contact"]);
        let mut draft = all;
        draft[1].traits.is_draft = true;
        check(&preset("mailweave"), &draft, &["no_contact", "draft", "contact_wrote", "no_contact"]);
    }

    #[test]
    fn contacts_that_mail_makes_are_contacts_from_then_on() {
        let all = [
            mail(1, EVA, &[ANN], None),
            mail(2, ANN, &[EVA, CORA, "noreply@far.example"], None),
            mail(3, EVA, &[ANN], None),
            mail(4, ANN, &[EVA], None),
        ];
        let rules = ["no_contact", "wrote_to_contact", "contact_wrote", "wrote_to_contact"];
        assert_eq!(check(&preset("sharpspring"), &all, &rules).contacts, 1);
        let rules = ["no_contact", "wrote_to_contact", "no_contact", "no_contact"];
        assert_eq!(check(&preset("keap"), &all, &rules).contacts, 0);
        // The answer makes one, and what it answers is recalled.
        let mut answered =
            [mail(1, ANN, &[EVA], None), mail(2, EVA, &[ANN], Some(1)), mail(3, EVA, &[ANN], None)];
        answered[1].traits.answers_user = true;
        let exchange = policy("mailweave", serde_json::json!({ "create_on": "exchange" }));
        let rules = ["known_thread", "exchange_makes_contact", "contact_wrote"];
        assert_eq!(check(&exchange, &answered, &rules).contacts, 1);
        // So does one to mail of a user's that was there before.
        let mut filed = mail(1, EVA, &[ANN], Some(9));
        (filed.in_known_thread, filed.answers_filed) = (true, true);
        assert_eq!(check(&exchange, &[filed], &["known_thread"]).contacts, 1);
    }

    #[test]
    fn what_is_certain_of_size_is_told_and_what_only_a_body_shows_is_counted() {
        let mut all = [mail(1, CORA, &[ANN], None), mail(2, CORA, &[ANN], None), mail(3, EVA, &[ANN], None)];
        all[0].is_too_large = true;
        all[1].may_hold_files = true;
        (all[2].may_hold_files, all[2].may_report) = (true, true);
        for (name, files) in [("highlevel-outlook", 1), ("mailweave", 0), ("keap", 0)] {
            let course = check(&preset(name), &all, &["too_large", "contact_wrote", "no_contact"]);
            assert_eq!((course.files_unread, course.reports_unread), (files, 1), "{name}");
        }
    }

    #[track_caller]
    fn check_days(
        policy: &Policy,
        hours: &[u32],
        limit: u32,
        days: &[(u64, u64)],
        waiting: u64,
    ) -> Vec<Ruling> {
        let all: Vec<Mail> = hours.iter().map(|hour| mail(*hour, CORA, &[ANN], None)).collect();
        let course = simulate(policy, &ground(Some(limit)), &all);
        let got: Vec<_> = course.days.iter().map(|day| (day.synced, day.over)).collect();
        assert_eq!((got.as_slice(), course.waiting), (days, waiting), "{hours:?}");
        course.rulings
    }

    #[test]
    fn what_is_over_the_limit_comes_on_later_days_before_all_else_or_stays_out() {
        let (defer, skip) =
            (preset("sharpspring"), policy("mailweave", serde_json::json!({ "over_sync": "skip" })));
        // Two a day: of five on the first, two come on the second, before its own.
        let hours = [1, 2, 3, 4, 5, 30, 31];
        let rulings = check_days(&defer, &hours, 2, &[(2, 3), (2, 2), (2, 0), (1, 0)], 0);
        assert!(rulings.iter().all(|ruling| ruling.verdict == Verdict::Synced));
        let rulings = check_days(&skip, &hours, 2, &[(2, 3), (2, 0)], 0);
        assert_eq!(tally(&rulings)[0].0.rule, "contact_wrote");
        assert_eq!(tally(&rulings)[1], (over_sync_limit(OverSync::Skip), 3));
        check_days(&defer, &hours, 7, &[(5, 0), (2, 0)], 0);
        let nothing = simulate(&defer, &ground(Some(0)), &[mail(1, CORA, &[ANN], None)]);
        assert_eq!((nothing.waiting, nothing.days.iter().map(|day| day.synced).sum::<u64>()), (1, 0));
    }

    #[test]
    fn a_copy_takes_no_room() {
        let mut all = [1, 1, 2].map(|number| mail(number, CORA, &[ANN], None));
        all[2].is_here = true;
        let course =
            check(&preset("highlevel-outlook"), &all, &["contact_wrote", "known_thread", "contact_wrote"]);
        assert_eq!(course.days.iter().map(|day| day.synced).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn changes_are_counted_by_pairs() {
        let all = [mail(1, EVA, &[ANN], None), mail(2, CORA, &[ANN], None), mail(3, CORA, &[ANN], None)];
        let from = check(
            &preset("kaname-outlook"),
            &all,
            &["no_contact", "inbound_starts_nothing", "inbound_starts_nothing"],
        );
        let to = check(&preset("keap"), &all, &["no_contact", "contact_wrote", "contact_wrote"]);
        let changes = changes(&from.rulings, &to.rulings);
        let [((from, to), 2)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((from.rule, to.rule), ("inbound_starts_nothing", "contact_wrote"));
        assert_eq!(super::changes(&[], &[]), []);
    }

    prop_compose! {
        fn any_mail()(
            people in collection::vec((0_usize..5, 0_usize..5), 1..30),
            answers in collection::vec(proptest::option::of(0_u32..30), 30),
        ) -> Vec<Mail> {
            let all = [ANN, BEN, CORA, EVA, "gus@far.example"];
            let one = |(number, (from, to)): (usize, &(usize, usize))| {
                mail(number as u32, all[*from], &[all[*to]], answers[number])
            };
            people.iter().enumerate().map(one).collect()
        }
    }

    proptest! {
        /// Where mail makes no contacts a verdict is about the set of messages, not about their order, as filing has it.
        #[test]
        fn the_order_of_arrival_changes_no_verdict(all in any_mail(), turn in 1_usize..13) {
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|place| place * turn % 13);
            for name in ["mailweave", "keap", "highlevel-outlook", "realpad"] {
                let policy = preset(name);
                let straight = simulate(&policy, &ground(None), &all);
                let mixed: Vec<Mail> = order.iter().map(|place| all[*place].clone()).collect();
                let turned = simulate(&policy, &ground(None), &mixed);
                for (ruling, place) in turned.rulings.iter().zip(&order) {
                    prop_assert_eq!(ruling.verdict, straight.rulings[*place].verdict, "{} {}", name, place);
                }
            }
        }

        #[test]
        fn each_message_is_ruled_once_and_none_is_lost_at_a_limit(all in any_mail(), limit in 0_u32..5) {
            for name in ["sharpspring", "mailweave"] {
                let course = simulate(&preset(name), &ground(Some(limit)), &all);
                let free = simulate(&preset(name), &ground(None), &all);
                prop_assert_eq!(&course.rulings, &free.rulings);
                let filed = |course: &Course| course.days.iter().map(|day| day.synced).sum::<u64>();
                prop_assert_eq!(filed(&course) + course.waiting, filed(&free));
                prop_assert!(course.days.iter().all(|day| day.synced <= u64::from(limit)));
            }
        }
    }
}
