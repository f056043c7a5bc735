//! Leases users' accounts and keeps a session with each one's provider; what fails is tried again later, for that account
//! alone.
//!
//! Not here: what a session does (`flow::sync`). The lease keeps two processes from doing the same; what is safe is safe by
//! the epoch that every write compares.

use std::{collections::HashMap, future::Future, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    account::{DOUBTED_FOR, Trouble},
    coord::Subscription,
    core::{account::AccountState, ids::AccountId, retry},
    flow::{
        self, Gateway, login,
        sync::{self, Failure, Memory},
    },
    store::{self, Lease, Leased},
};

/// How long an account is ours without renewal.
const LEASE: SignedDuration = SignedDuration::from_secs(30);
/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(8);
/// Without renewal for this long by our own clock, we stop before others begin: clocks and pauses have their say.
const GIVE_UP: Duration = Duration::from_secs(20);
/// How often free accounts are looked for, beside wake-ups.
const LOOK: Duration = Duration::from_secs(3);
/// Longest a look at the store may take: one that hangs must not keep us from trying again.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// Accounts leased at a time.
const LEASE_MAX: u32 = 200;
/// How often looks are written down.
const NOTE_LOOKS: Duration = Duration::from_secs(60);
/// A session that was well for this long and then broke is begun anew without a word.
const WELL: Duration = Duration::from_secs(60);
/// The pause before that, and after trouble with our own store.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How long an account is left alone whose ids change again and again.
const UNSTABLE_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Failures that a server's request to wait, or its breaking the protocol, counts as.
const SEVERE: u32 = 4;

/// Runs until `shutdown`, then lets every account finish what it has in hand and go.
pub async fn run(gateway: Gateway, shutdown: CancellationToken) {
    let mut news = sync::news_of_accounts(&gateway.coord);
    let mut crew = Crew::new(gateway, shutdown.child_token());
    while !shutdown.is_cancelled() {
        let give_up_at = crew.give_up_at();
        tokio::select! {
            biased;
            // Whatever the store is being asked meanwhile, and however long it takes.
            () = sleep_until(give_up_at) => crew.give_up(),
            () = crew.turn(&mut news, &shutdown) => {}
        }
    }
    crew.finish().await;
}

/// The accounts at work in this process.
struct Crew {
    gateway: Gateway,
    /// Names the node, and this run of its process.
    owner: String,
    /// Ends every session in order.
    stop: CancellationToken,
    tasks: JoinSet<Leased>,
    at_work: HashMap<AccountId, AtWork>,
    renewed: Instant,
    /// Somebody whose account was changed has fenced us off: look who is still ours.
    is_called: bool,
    looks_noted: Instant,
}

struct AtWork {
    leased: Leased,
    task: Id,
    /// Drops the session at once: the account is no longer ours.
    lost: CancellationToken,
}

impl Crew {
    fn new(gateway: Gateway, stop: CancellationToken) -> Self {
        let owner = format!("{}/{}", gateway.settings.node, uuid::Uuid::now_v7());
        let now = Instant::now();
        let (tasks, at_work) = (JoinSet::new(), HashMap::new());
        Self { gateway, owner, stop, tasks, at_work, renewed: now, is_called: false, looks_noted: now }
    }

    /// Keeps what is ours, takes what is free, and waits for something to do. May be dropped at any time: what was leased
    /// without our hearing of it is found when leases are renewed.
    async fn turn(&mut self, news: &mut Subscription, shutdown: &CancellationToken) {
        if self.is_called || self.renewed.elapsed() >= RENEW {
            self.renew().await;
        }
        self.take_more().await;
        self.note_looks().await;
        self.is_called = tokio::select! {
            () = shutdown.cancelled() => false,
            () = news.wait() => true,
            () = sleep(LOOK) => false,
            () = self.end_of_one() => false,
        };
    }

    async fn lease(&self) -> Result<Lease<'_>, store::Error> {
        Ok(Lease { owner: &self.owner, now: self.gateway.store.clock().await?, lasts: LEASE })
    }

    /// Keeps the accounts, and drops those that are no longer ours.
    async fn renew(&mut self) {
        let asked = Instant::now();
        if let Some(kept) = within_patience(self.ask_to_keep()).await {
            self.renewed = asked;
            self.compare(&kept);
        }
    }

    fn give_up_at(&self) -> Instant {
        self.renewed + GIVE_UP
    }

    /// Drops every session, before others begin theirs.
    fn give_up(&mut self) {
        if !self.at_work.is_empty() {
            tracing::error!(
                accounts = self.at_work.len(),
                "accounts are given up, for they could not be kept in time"
            );
        }
        self.at_work.values().for_each(|held| held.lost.cancel());
        // From here on nothing is held that would have to be kept.
        self.renewed = Instant::now();
    }

    async fn ask_to_keep(&self) -> Result<Vec<Leased>, store::Error> {
        let lease = self.lease().await?;
        let mut system = self.gateway.store.system().await?;
        let kept = system.renew_leases(lease, &AccountState::WORKED).await?;
        system.commit().await?;
        Ok(kept)
    }

    fn compare(&mut self, kept: &[Leased]) {
        let epochs: HashMap<AccountId, i64> = kept.iter().map(|held| (held.account, held.epoch)).collect();
        for held in self.at_work.values() {
            if epochs.get(&held.leased.account) != Some(&held.leased.epoch) {
                held.lost.cancel();
            }
        }
        // Ours without anybody at work: its task panicked, or the answer to our lease was lost.
        for held in kept {
            if !self.at_work.contains_key(&held.account) {
                self.set_to_work(*held);
            }
        }
    }

    /// Leases what is free, as much as this process may follow.
    async fn take_more(&mut self) {
        loop {
            let room = usize::try_from(self.gateway.settings.accounts_max).unwrap_or(usize::MAX);
            let room = u32::try_from(room.saturating_sub(self.at_work.len())).unwrap_or(u32::MAX);
            let max = room.min(LEASE_MAX);
            if max == 0 {
                return;
            }
            let Some(taken) = within_patience(self.ask_for_more(max)).await else { return };
            let is_all = taken.len() < usize::try_from(max).unwrap_or(usize::MAX);
            taken.into_iter().for_each(|leased| self.set_to_work(leased));
            if is_all {
                return;
            }
        }
    }

    async fn ask_for_more(&self, max: u32) -> Result<Vec<Leased>, store::Error> {
        let lease = self.lease().await?;
        let mut system = self.gateway.store.system().await?;
        let taken = system.lease_accounts(lease, &AccountState::WORKED, max).await?;
        system.commit().await?;
        Ok(taken)
    }

    /// Begins to work an account. A task that still had it is fenced off, and ends.
    fn set_to_work(&mut self, leased: Leased) {
        let lost = CancellationToken::new();
        let work = work(self.gateway.clone(), leased, self.stop.clone(), lost.clone());
        let task = self.tasks.spawn(work).id();
        if let Some(former) = self.at_work.insert(leased.account, AtWork { leased, task, lost }) {
            former.lost.cancel();
        }
    }

    /// Waits for a task to end, and lets its account go. Dropping it loses nothing.
    async fn end_of_one(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        if let Err(panic) = &ended {
            tracing::error!(error = %panic, "an account's task panicked; it begins anew in a moment");
        }
        self.at_work.retain(|_, held| held.task != id);
        if let Ok((_, leased)) = ended {
            let gateway = self.gateway.clone();
            // On its own, so that this may be dropped: without it the account would be ours and idle for a moment.
            tokio::spawn(async move { within_patience(release(&gateway, leased)).await });
        }
    }

    /// Writes down, for all accounts together, when they were last looked at.
    async fn note_looks(&mut self) {
        if self.looks_noted.elapsed() < NOTE_LOOKS {
            return;
        }
        self.looks_noted = Instant::now();
        let looks = self.gateway.followers.take_looks();
        if !looks.is_empty() {
            within_patience(write_looks(&self.gateway, &looks)).await;
        }
    }

    /// Waits until every session has ended, keeping the accounts meanwhile, and lets them go.
    async fn finish(mut self) {
        self.stop.cancel();
        let mut renew_at = self.renewed + RENEW;
        while !self.tasks.is_empty() {
            let give_up_at = self.give_up_at();
            let step = async {
                tokio::select! {
                    () = self.end_of_one() => {}
                    () = sleep_until(renew_at) => {
                        renew_at = Instant::now() + RENEW;
                        self.renew().await;
                    }
                }
            };
            tokio::select! { biased; () = sleep_until(give_up_at) => self.give_up(), () = step => {} }
        }
        within_patience(release_all(&self.gateway, &self.owner)).await;
    }
}

async fn release(gateway: &Gateway, leased: Leased) -> Result<(), store::Error> {
    let mut system = gateway.store.system().await?;
    system.release_lease(leased).await?;
    system.commit().await
}

async fn release_all(gateway: &Gateway, owner: &str) -> Result<(), store::Error> {
    let mut system = gateway.store.system().await?;
    system.release_leases(owner).await?;
    system.commit().await
}

async fn write_looks(gateway: &Gateway, looks: &[(Leased, Timestamp)]) -> Result<(), store::Error> {
    let mut system = gateway.store.system().await?;
    system.note_looks(looks).await?;
    system.commit().await
}

/// What the store answers in good time.
async fn within_patience<T>(asked: impl Future<Output = Result<T, store::Error>>) -> Option<T> {
    match timeout(STORE_PATIENCE, Box::pin(asked)).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => tracing::warn!(error = %error, "the store did not serve the accounts' leases"),
        Err(_) => tracing::warn!("the store takes too long to serve the accounts' leases"),
    }
    None
}

/// Works an account until it is to stop, is lost, or needs its user.
async fn work(gateway: Gateway, leased: Leased, stop: CancellationToken, lost: CancellationToken) -> Leased {
    tokio::select! {
        biased;
        () = lost.cancelled() => {}
        () = keep_following(&gateway, leased, &stop) => {}
    }
    leased
}

async fn keep_following(gateway: &Gateway, leased: Leased, stop: &CancellationToken) {
    let mut news = sync::news_of_account(&gateway.coord, leased.account);
    let (mut memory, mut failures, mut doubts) = (Memory::default(), 0_u32, Doubts::default());
    // Of before this task the store knows, which is asked while a new sign-in still shows.
    let mut was_well = sync::was_well(gateway, leased).await.unwrap_or(true);
    while !stop.is_cancelled() {
        keep_peace(gateway, leased, stop).await;
        let followed = tokio::select! {
            followed = sync::follow(gateway, leased, stop, &mut memory) => followed,
            trouble = login::keep_good(gateway, (leased.workspace, leased.account)) => Err(trouble.into()),
        };
        let Err(failure) = followed else { return };
        let health = Health::of(&memory);
        was_well |= health != Health::Failed;
        let failure = doubts.weigh(failure, (health, was_well));
        failures = count(failures, &failure, health);
        let Some(pause) = after(gateway, leased, &failure, (failures, health)).await else { return };
        news.look();
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause.length) => {}
            () = news.wait(), if pause.may_be_cut => {}
        }
    }
}

/// Waits for as long as the provider wants to be left alone, by whatever of ours it said so to.
async fn keep_peace(gateway: &Gateway, leased: Leased, stop: &CancellationToken) {
    while let Ok(Some(until)) = sync::resume_at(gateway, leased).await {
        let pause = Duration::try_from(until.duration_since(flow::now())).unwrap_or_default();
        if pause.is_zero() {
            return;
        }
        tokio::select! { () = stop.cancelled() => return, () = sleep(pause) => {} }
    }
}

/// How well a session was before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It never looked at everything once.
    Failed,
    Brief,
    Lasting,
}

impl Health {
    fn of(memory: &Memory) -> Self {
        match memory.well_since {
            None => Self::Failed,
            Some(since) if since.elapsed() < WELL => Self::Brief,
            Some(_) => Self::Lasting,
        }
    }
}

/// Since when a provider has said of an account that was well what may be said in passing.
#[derive(Debug, Default)]
struct Doubts(Option<Instant>);

impl Doubts {
    /// A failure as far as it is believed.
    fn weigh(&mut self, failure: Failure, (health, was_well): (Health, bool)) -> Failure {
        if health != Health::Failed {
            self.0 = None;
        }
        let Failure::Provider(trouble) = &failure else { return failure };
        let Some(in_passing) = trouble.in_passing() else { return failure };
        match self.0.get_or_insert_with(Instant::now).elapsed() {
            doubted if was_well && doubted < DOUBTED_FOR => Failure::Provider(in_passing),
            _ => failure,
        }
    }
}

/// Sessions in a row that ended before they had lasted, this one with them.
fn count(failures: u32, failure: &Failure, health: Health) -> u32 {
    match (failure, health) {
        (Failure::MadeRoom, _) => 0,
        (_, Health::Lasting) => 1,
        _ => failures.saturating_add(1),
    }
}

/// How long to wait before the next session.
struct Pause {
    length: Duration,
    /// Somebody who asks for a look may end it. Not when the provider has asked us to wait.
    may_be_cut: bool,
}

/// What follows from a failure; `None` when the account is not ours to work any more, or takes its user first.
async fn after(
    gateway: &Gateway,
    leased: Leased,
    failure: &Failure,
    (failures, health): (u32, Health),
) -> Option<Pause> {
    let own = |length| Some(Pause { length, may_be_cut: true });
    let unreadable = Trouble::Unreadable;
    let trouble = match failure {
        Failure::Anew | Failure::MadeRoom => return own(SHORT_PAUSE),
        Failure::Store(store::Error::Fenced) => {
            tracing::info!(account = %leased.account, error = %failure, "an account is left to others");
            return None;
        }
        // It may still be a race, or the account may be going: whose it is by now shows when it is written down.
        Failure::Store(error) if error.is_lasting() && retry::filing(failures).is_none() => {
            tracing::error!(account = %leased.account, error = %error, "an account cannot be worked over its data");
            &unreadable
        }
        Failure::Store(error) => {
            tracing::warn!(account = %leased.account, error = %error, "an account waits for our store");
            return own(STORE_PAUSE);
        }
        // Connections break, and servers forget who is logged in; that is news only when the next session cannot be had, or breaks
        // as well.
        Failure::Provider(Trouble::Unreachable(_) | Trouble::Doubted(_))
            if health != Health::Failed && failures == 1 =>
        {
            return own(SHORT_PAUSE);
        }
        // Nor is it news that a server ended a good session, as when it restarts or loses a mailbox's UIDs.
        Failure::Provider(trouble @ Trouble::Throttled { wait: None, .. })
            if health != Health::Failed && failures == 1 =>
        {
            return pause(trouble, (failures, health), flow::jitter());
        }
        Failure::Provider(trouble) => trouble,
    };
    let pause = pause(trouble, (failures, health), flow::jitter());
    let next = pause.as_ref().map(|pause| flow::now().saturating_add(pause.length).unwrap_or(Timestamp::MAX));
    tracing::info!(account = %leased.account, code = trouble.code(), failures, "an account's session ended");
    match Box::pin(sync::record(gateway, leased, trouble, next)).await {
        Ok(false) => pause,
        Ok(true) => {
            tracing::warn!(account = %leased.account, "an account has failed for too long and is stopped");
            None
        }
        Err(store::Error::Fenced | store::Error::Missing) => None,
        Err(error) => {
            tracing::warn!(account = %leased.account, error = %error, "an account's trouble could not be written down");
            pause.or_else(|| own(STORE_PAUSE))
        }
    }
}

/// `None` when trying again would do harm: providers lock accounts after wrong passwords.
fn pause(trouble: &Trouble, (failures, health): (u32, Health), jitter: f64) -> Option<Pause> {
    let usual = retry::connection(failures, jitter);
    let long = retry::connection(failures.saturating_add(SEVERE), jitter);
    Some(match trouble {
        Trouble::Credentials(_)
        | Trouble::Revoked(_)
        | Trouble::SignIn(_)
        | Trouble::Unwelcome(_)
        | Trouble::TurnedAway(_)
        | Trouble::NotEnabled(_)
        | Trouble::Excluded(_)
        | Trouble::LostLogin => return None,
        // A server that ends good sessions says so too, as when it restarts: then the usual pause will do.
        Trouble::Throttled { wait, .. } => {
            let own = if health == Health::Failed { long } else { usual };
            Pause { length: wait.unwrap_or(own), may_be_cut: false }
        }
        Trouble::UnstableIds => Pause { length: UNSTABLE_PAUSE, may_be_cut: false },
        Trouble::Misbehaving(_) | Trouble::Unreadable | Trouble::Registration(_) => {
            Pause { length: long, may_be_cut: true }
        }
        _ => Pause { length: usual, may_be_cut: true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_room_for_others_has_not_failed() {
        let unreachable = || Failure::Provider(Trouble::Unreachable("gone".into()));
        for (failures, failure, health, expect) in [
            (7, Failure::MadeRoom, Health::Brief, 0),
            (7, unreachable(), Health::Brief, 8),
            (7, unreachable(), Health::Lasting, 1),
            (0, unreachable(), Health::Failed, 1),
        ] {
            assert_eq!(count(failures, &failure, health), expect, "{failure}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_in_passing_of_a_good_account_is_believed_after_hours() {
        let mut doubts = Doubts::default();
        let said = || Failure::Provider(Trouble::NotEnabled("not connected".into()));
        let is_believed = |failure: Failure| matches!(failure, Failure::Provider(Trouble::NotEnabled(_)));
        assert!(is_believed(doubts.weigh(said(), (Health::Failed, false))), "of one that was never read");
        assert!(!is_believed(doubts.weigh(said(), (Health::Brief, true))));
        tokio::time::advance(DOUBTED_FOR - Duration::from_secs(1)).await;
        assert!(!is_believed(doubts.weigh(said(), (Health::Failed, true))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(is_believed(doubts.weigh(said(), (Health::Failed, true))));
        // It was well meanwhile.
        assert!(!is_believed(doubts.weigh(said(), (Health::Lasting, true))));
    }

    #[track_caller]
    fn check(trouble: Trouble, failures: u32, expect: Option<(u64, bool)>) {
        let got = pause(&trouble, (failures, Health::Failed), 0.5)
            .map(|pause| (pause.length.as_secs(), pause.may_be_cut));
        assert_eq!(got, expect, "{trouble}");
    }

    #[test]
    fn pauses_fit_what_went_wrong() {
        let text = || "x".to_owned();
        check(Trouble::Unreachable(text()), 1, Some((5, true)));
        check(Trouble::Unreachable(text()), 3, Some((20, true)));
        check(Trouble::Unreachable(text()), 99, Some((600, true)));
        check(Trouble::Misbehaving(text()), 1, Some((80, true)));
        check(Trouble::Credentials(text()), 1, None);
        check(Trouble::LostLogin, 1, None);
        check(Trouble::Revoked(text()), 1, None);
        check(Trouble::SignIn(text()), 1, None);
        check(Trouble::Registration(text()), 1, Some((80, true)));
        check(Trouble::NotEnabled(text()), 1, None);
        check(Trouble::Excluded("Exchange"), 1, None);
        check(Trouble::Unreadable, 4, Some((600, true)));
        let wait = Some(Duration::from_secs(178));
        check(Trouble::Throttled { text: text(), wait }, 1, Some((178, false)));
        check(Trouble::Throttled { text: text(), wait: None }, 1, Some((80, false)));
        check(Trouble::UnstableIds, 1, Some((3600, false)));
        let bye = Trouble::Throttled { text: text(), wait: None };
        assert_eq!(pause(&bye, (1, Health::Brief), 0.5).unwrap().length.as_secs(), 5);
    }
}
