//! Reads the headers of an account's last days and tells what a policy would make of that mail, beside another one. Nothing of
//! it is kept: no row, no file, no line in the log; mailboxes are opened for reading alone, and no body is asked for.
//!
//! Over a short session of its own, for the account's own must not wait for it. Not here: what is known of the mail (`survey`),
//! and the simulation itself (`core::policy::simulate`).

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{
    Failure, Memory,
    choose::wanted,
    connection::{Connection, Wire, days_before},
    headers::Seen,
    survey::{Scene, survey},
};
use crate::{
    account::{self, Purpose, Trouble},
    core::{
        account::{AccountState, MailboxUid},
        decision::Ruling,
        ids::{AccountId, UserId, WorkspaceId},
        policy::{
            Policy,
            simulate::{self, Course},
        },
    },
    flow::{Gateway, limits::Purse, now, policy_of},
    imap::{Criterion, MailboxName, Uid},
    mail::{Address, MessageId},
    store,
};

/// Messages that are simulated together: all their headers are in memory, and were asked of the provider for this alone.
pub const MESSAGES_MAX: u64 = 10_000;
/// Octets that are kept of their headers. Three times what so many headers usually leave.
const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Pairs of an id and a person: each may take part in threading, and some messages have thousands.
const LINKS_MAX: usize = 1_000_000;
/// Messages named in a report as examples of what would change.
pub const EXAMPLES_MAX: usize = 50;
/// How long a simulation may take, so that whoever asked is still there when it ends.
const LASTS: Duration = Duration::from_secs(100);
/// Sessions that may be begun where one has taught how to read a mailbox.
const SESSIONS_MAX: usize = 5;

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct Order {
    pub workspace: WorkspaceId,
    pub account: AccountId,
    /// How far back mail is read.
    pub days: u16,
    pub policy: Policy,
    /// What it is compared with; the policy in force when there is none.
    pub against: Option<Policy>,
}

/// What would have been.
#[derive(Debug)]
pub struct Report {
    /// The first day of which mail was read.
    pub since: Date,
    pub messages: u64,
    /// Messages whose headers the provider could not show.
    pub unreadable: u64,
    /// Messages that the user may have synced a day.
    pub synced_per_day: Option<u32>,
    pub simulated: Outcome,
    pub against: Outcome,
    /// From what to what rulings change, and for how many messages.
    pub changes: Vec<((Ruling, Ruling), u64)>,
    /// Messages whose verdict changes, the newest first.
    pub examples: Vec<Example>,
}

/// A policy, and what became of the mail under it.
#[derive(Debug)]
pub struct Outcome {
    pub policy: Policy,
    pub course: Course,
}

/// A message by its place alone: what stands in it is nobody's but its user's.
#[derive(Debug)]
pub struct Example {
    pub at: Timestamp,
    pub mailbox: MailboxName,
    pub uid: u32,
    pub from: Ruling,
    pub to: Ruling,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such account")]
    NoAccount,
    /// The account is in a state in which nobody logs in to it.
    #[error("the account is not connected")]
    NotWorked(AccountState),
    /// Its provider asked to be left alone, or is away.
    #[error("the provider is left alone for now")]
    Resting(Timestamp),
    #[error(transparent)]
    Provider(Trouble),
    #[error("there is more mail than can be simulated together")]
    TooMuch,
    #[error("it took too long")]
    TooSlow,
    #[error("the store could not be asked")]
    Store(#[from] store::Error),
}

/// Tells what a policy would make of an account's mail. May be dropped at any time.
///
/// # Errors
/// Why nothing was simulated.
pub async fn simulate(gateway: &Gateway, order: Order) -> Result<Report, Refusal> {
    let work = Box::pin(tell(gateway, order));
    tokio::time::timeout(LASTS, work).await.unwrap_or(Err(Refusal::TooSlow))
}

/// What holds for the account at the moment.
pub(super) struct Basis {
    pub user: UserId,
    pub address: Address,
    in_force: Policy,
    pub synced_per_day: Option<u32>,
    pub zone: TimeZone,
    pub now: Timestamp,
    pub since: Date,
}

impl Basis {
    pub(super) fn begins_at(&self) -> Timestamp {
        self.since.to_zoned(TimeZone::UTC).map_or(self.now, |begin| begin.timestamp())
    }
}

async fn tell(gateway: &Gateway, order: Order) -> Result<Report, Refusal> {
    let basis = basis(gateway, &order).await?;
    let pile = read(gateway, &order, &basis).await?;
    let against = order.against.clone().unwrap_or_else(|| basis.in_force.clone());
    let policies = [order.policy.clone(), against];
    let places: Vec<Place> = pile.lying.iter().map(Lying::place).collect();
    let unreadable = pile.unreadable;
    let mut session = gateway.store.read(order.workspace).await?;
    let (settings, account) = (&*gateway.settings, order.account);
    let scene = Scene { settings, account, basis: &basis, policies: &policies };
    let (ground, mail) = survey(&mut session, scene, pile.lying).await?;
    drop(session);
    // Long enough to hold up everything else on this thread.
    let courses = tokio::task::spawn_blocking(move || {
        policies.map(|policy| {
            let course = simulate::simulate(&policy, &ground, &mail);
            Outcome { policy, course }
        })
    });
    // Only a runtime that is shutting down drops what it was given.
    let [simulated, against] = courses.await.map_err(|_| Refusal::TooSlow)?;
    Ok(Report {
        since: basis.since,
        messages: places.len() as u64,
        unreadable,
        synced_per_day: basis.synced_per_day,
        changes: simulate::changes(&against.course.rulings, &simulated.course.rulings),
        examples: examples(places, &against.course.rulings, &simulated.course.rulings),
        simulated,
        against,
    })
}

async fn basis(gateway: &Gateway, order: &Order) -> Result<Basis, Refusal> {
    let now = now();
    let mut session = gateway.store.read(order.workspace).await?;
    let account = session.account(order.account).await?.ok_or(Refusal::NoAccount)?;
    if !account.status.state.is_worked() {
        return Err(Refusal::NotWorked(account.status.state));
    }
    let rests = account.status.next_attempt_at.max(account.rests_until(now));
    if let Some(until) = rests.filter(|until| *until > now) {
        return Err(Refusal::Resting(until));
    }
    let user = account.user_id;
    let in_force = policy_of(&mut session, Some(user)).await?;
    let (synced_per_day, zone) = Purse::of(&mut session, user, now).await?.synced_per_day();
    let (address, since) = (account.email, days_before(now, order.days));
    Ok(Basis { user, address, in_force, synced_per_day, zone, now, since })
}

/// A message of the time asked for, and where it lies.
pub(super) struct Lying {
    mailbox: MailboxName,
    uid_validity: u64,
    pub at: Timestamp,
    pub seen: Seen,
    pub may_report: bool,
}

impl Lying {
    fn place(&self) -> Place {
        Place { at: self.at, mailbox: self.mailbox.clone(), uid: self.seen.uid.get() }
    }

    pub(super) fn mailbox_uid(&self, account: AccountId) -> MailboxUid {
        let (mailbox, uid) = (self.mailbox.as_bytes().to_vec(), self.seen.uid.get());
        MailboxUid { account, mailbox, uid_validity: self.uid_validity, uid }
    }
}

struct Place {
    at: Timestamp,
    mailbox: MailboxName,
    uid: u32,
}

/// What was read.
#[derive(Default)]
struct Pile {
    lying: Vec<Lying>,
    unreadable: u64,
    /// Octets of texts.
    bytes: usize,
    /// Ids times people.
    links: usize,
}

impl Pile {
    fn has_room_for(&self, messages: u64) -> bool {
        self.lying.len() as u64 + messages <= MESSAGES_MAX
    }

    fn add(&mut self, mut lying: Lying) -> Result<(), Refusal> {
        let summary = &mut lying.seen.summary;
        summary.subject = None;
        let (people, ids) = (lying.seen.parties.addresses(), ids(&lying.seen));
        let (people, people_bytes) = measure(people.map(|address| address.key().len()));
        let (ids, ids_bytes) = measure(ids.map(|id| id.as_str().len()));
        // People stand in the summary as well, with their names.
        self.bytes = self.bytes.saturating_add(ids_bytes + 4 * people_bytes);
        self.links = self.links.saturating_add(people.saturating_mul(ids));
        if self.bytes > TEXT_BYTES_MAX || self.links > LINKS_MAX {
            return Err(Refusal::TooMuch);
        }
        self.lying.push(lying);
        Ok(())
    }
}

fn ids(seen: &Seen) -> impl Iterator<Item = &MessageId> {
    let summary = &seen.summary;
    summary.message_id.iter().chain(&summary.in_reply_to).chain(&summary.references)
}

/// How many there are, and how long they are together.
fn measure(lengths: impl Iterator<Item = usize>) -> (usize, usize) {
    lengths.fold((0, 0), |(count, bytes), length| (count + 1, bytes + length))
}

/// Why reading ended before its end.
enum Broken {
    Session(Failure),
    For(Refusal),
}

impl<E: Into<Failure>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Session(error.into())
    }
}

async fn read(gateway: &Gateway, order: &Order, basis: &Basis) -> Result<Pile, Refusal> {
    let mut memory = Memory::default();
    for _ in 0..SESSIONS_MAX {
        match Box::pin(read_over_a_session(gateway, order, basis, &mut memory)).await {
            Ok(mut pile) => {
                // Stable: in a mailbox, by UID.
                pile.lying.sort_by_key(|lying| lying.at);
                return Ok(pile);
            }
            Err(Broken::Session(Failure::Anew | Failure::MadeRoom)) => {}
            Err(Broken::Session(Failure::Store(error))) => return Err(error.into()),
            Err(Broken::Session(Failure::Provider(trouble))) => return Err(Refusal::Provider(trouble)),
            Err(Broken::For(refusal)) => return Err(refusal),
        }
    }
    Err(Refusal::Provider(Trouble::Misbehaving("its headers cannot be read".into())))
}

async fn read_over_a_session(
    gateway: &Gateway,
    order: &Order,
    basis: &Basis,
    memory: &mut Memory,
) -> Result<Pile, Broken> {
    let opened =
        Connection::open(gateway, (order.workspace, order.account), memory, Purpose::History).await?;
    let Some(mut connection) = opened else { return Err(Broken::For(Refusal::NoAccount)) };
    let listed = connection.client.list().await?;
    let gmail = connection.client.capabilities().gmail();
    let mut pile = Pile::default();
    for (name, _) in wanted(account::choose(&listed, connection.provider), gmail) {
        let piled = connection.pile_up(&name, basis, &mut pile).await;
        connection.note_octets().await?;
        piled?;
    }
    connection.client.logout().await;
    Ok(pile)
}

impl<S: Wire> Connection<'_, S> {
    /// Reads the headers of a mailbox's mail of the time asked for.
    async fn pile_up(&mut self, name: &MailboxName, basis: &Basis, pile: &mut Pile) -> Result<(), Broken> {
        let selected = match self.client.examine(name, None).await {
            // It is not followed either.
            Err(error) if error.connection_lives() && !name.is_inbox() => return Ok(()),
            selected => selected?,
        };
        let uid_validity = self.era_of(&selected);
        let found = self.search(Criterion::Since(basis.since)).await?;
        if !pile.has_room_for(found.len()) {
            return Err(Broken::For(Refusal::TooMuch));
        }
        let mut uids: Vec<Uid> = found.iter().collect();
        while !uids.is_empty() {
            let (headers, count) = self.headers((name, uid_validity), &uids).await?;
            uids.drain(..count);
            pile.unreadable += headers.unreadable.len() as u64;
            for seen in headers.seen {
                let may_report = self.may_report_on_us(&seen).await?;
                // What a server says of its clock is not believed: no day is before the first or after today.
                let at = seen.internal_date.unwrap_or(basis.now).clamp(basis.begins_at(), basis.now);
                let lying = Lying { mailbox: name.clone(), uid_validity, at, seen, may_report };
                pile.add(lying).map_err(Broken::For)?;
            }
        }
        Ok(())
    }
}

fn examples(places: Vec<Place>, from: &[Ruling], to: &[Ruling]) -> Vec<Example> {
    let rulings = from.iter().cloned().zip(to.iter().cloned());
    let changed = places.into_iter().zip(rulings).rev().filter(|(_, (from, to))| from.verdict != to.verdict);
    changed
        .take(EXAMPLES_MAX)
        .map(|(Place { at, mailbox, uid }, (from, to))| Example { at, mailbox, uid, from, to })
        .collect()
}
