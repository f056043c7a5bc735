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
    EXCHANGE, FINAL_RULES, ListedContact, MailboxFacts, Policy, Settings, Traits, judge_mailbox,
    known, over_sync_limit,
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
            () if self.is_users(mail) => CreatedBy::Sent,
            () if self.answers_user(place, mail) => CreatedBy::Exchange,
            () => return,
        };
        if !settings.create_on.allows(by) {
            return;
        }
        let (ours, automatic) = (&self.ground.ours, mail.summary.automatic);
        let new =
            attribution::new_contacts(&mail.parties, &self.known, ours, automatic, whom(settings, by));
        for party in new {
            let number = self.made.len();
            let id = ContactId::from_uuid(Uuid::from_u128(number as u128));
            let contact = KnownContact { id, assigned_user: None };
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
    let judges = settings.attachments == Attachments::Listed || settings.attachment_bytes_max.is_some();
    settings.oversize == Oversize::SkipMessage && settings.attachments != Attachments::None && judges
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
