//! Limits at work: what is still allowed, counting with a word to the CRM when it gets tight, and accounts that wait for a
//! place (docs/flows.md, "Limits").
//!
//! Not here: windows (`core::limits`), and what becomes of mail at a limit (`sync::quota`, `submit::budget`).

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{Gateway, now, policy_of, sync::look_now};
use crate::{
    core::{
        account::{Account, AccountState, AccountStatus},
        event::{Event, QuotaEvent},
        ids::{AccountId, Id as _, UserId, WorkspaceId},
        job::{Job, smarthost_lanes, submit_lane},
        limits::{
            Budget, Count, Counted, Full, Level, Limits, Quota, SLOT, SentUnit, Standing, Window, budget,
            slot_of, takes_place,
        },
        policy::settings::OverSend,
    },
    store::{AccountFilter, Allowance, Error, Page, PageKey, Session, ToldLevel, Tx},
};

/// How often a limit is looked at again that only somebody's act makes room in.
const RECHECK: SignedDuration = SignedDuration::from_mins(1);

/// Answers to one user's questions within the present and the last slot: more than anybody asks at a time.
const ANSWERS_AT_ONCE_MAX: u64 = 10;
/// Answers to one user's questions within a day. They are no reason to fill a mailbox, or to use up what a provider lets send.
const ANSWERS_A_DAY_MAX: u64 = 40;

/// Counts one more answer to a user's questions. False when it is one too many: then it is not counted.
///
/// # Errors
/// Those of the store.
pub(super) async fn take_answer(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<bool, Error> {
    // Nobody else counts at the same time.
    tx.user_to_change(user).await?;
    let counts = tx.usage(user, Counted::Answers, Window::sliding(now).since).await?;
    let sum = |counts: &mut dyn Iterator<Item = &Count>| counts.map(|count| count.count).sum::<u64>();
    let lately = slot_of(now) - SLOT;
    let at_once = sum(&mut counts.iter().filter(|count| count.slot >= lately));
    if at_once >= ANSWERS_AT_ONCE_MAX || sum(&mut counts.iter()) >= ANSWERS_A_DAY_MAX {
        return Ok(false);
    }
    tx.count_usage(user, &[(Counted::Answers, slot_of(now), 1)]).await?;
    Ok(true)
}

/// What policy says of mail that a user may not send any more.
///
/// # Errors
/// Those of the store.
pub(super) async fn over_send(session: &mut Session, user: Option<UserId>) -> Result<OverSend, Error> {
    Ok(policy_of(session, user).await?.settings.over_send)
}

/// What one user may still do, at one moment.
struct Purse {
    user: UserId,
    limits: Limits,
    day: Window,
    now: Timestamp,
}

impl Purse {
    async fn of(session: &mut Session, user: UserId, now: Timestamp) -> Result<Self, Error> {
        let allowance = session.allowance(Some(user)).await?;
        let day = Window::day(now, &zone(&allowance));
        Ok(Self { user, limits: allowance.user.over(allowance.workspace), day, now })
    }

    fn unit(&self) -> SentUnit {
        self.limits.sent_unit.unwrap_or_default()
    }

    fn limits_sending(&self) -> bool {
        self.limits.sent_per_day.is_some() || self.limits.sent_per_24h.is_some()
    }

    async fn synced(&self, session: &mut Session) -> Result<Standing, Error> {
        let counts = session.usage(self.user, Counted::Synced, self.day.since).await?;
        Ok(Standing::of_day(&counts, self.limits.synced_per_day, self.day))
    }

    /// What was sent, where it matters; without a limit nothing is looked up.
    async fn sent_if_limited(&self, session: &mut Session) -> Result<[(Quota, Standing); 2], Error> {
        let none = |quota| (quota, Standing { used: 0, limit: None, resets_at: None });
        match self.limits_sending() {
            true => self.sent(session).await,
            false => Ok([none(Quota::SentPerDay), none(Quota::SentPer24h)]),
        }
    }

    /// By the day, and by any 24 hours.
    async fn sent(&self, session: &mut Session) -> Result<[(Quota, Standing); 2], Error> {
        let since = self.day.since.min(Window::sliding(self.now).since);
        let counts = session.usage(self.user, self.unit().into(), since).await?;
        Ok([
            (Quota::SentPerDay, Standing::of_day(&counts, self.limits.sent_per_day, self.day)),
            (Quota::SentPer24h, Standing::of_24_hours(&counts, self.limits.sent_per_24h, self.now)),
        ])
    }
}

/// The workspace's time zone. One that this machine does not know is taken for UTC.
fn zone(allowance: &Allowance) -> TimeZone {
    TimeZone::get(&allowance.timezone).unwrap_or(TimeZone::UTC)
}

/// How much of a user's mail may still be filed today, and when the next day begins; `None` without a limit.
///
/// # Errors
/// Those of the store.
pub(super) async fn sync_room(
    session: &mut Session,
    user: UserId,
    now: Timestamp,
) -> Result<Option<(u64, Timestamp)>, Error> {
    let purse = Purse::of(session, user, now).await?;
    if purse.limits.synced_per_day.is_none() {
        return Ok(None);
    }
    let standing = purse.synced(session).await?;
    Ok(standing.room().map(|room| (room, purse.day.ends_at)))
}

/// Counts messages that a user's account brought, in the transaction that files them.
///
/// # Errors
/// Those of the store.
pub(super) async fn count_synced(
    tx: &mut Tx,
    user: UserId,
    messages: u64,
    now: Timestamp,
) -> Result<(), Error> {
    if messages > 0 {
        tx.count_usage(user, &[(Counted::Synced, slot_of(now), messages)]).await?;
        tell_of_synced(tx, user, now).await?;
    }
    Ok(())
}

/// Tells when the limit of what is synced is nearly or wholly used.
///
/// # Errors
/// Those of the store.
pub(super) async fn tell_of_synced(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<(), Error> {
    let purse = Purse::of(tx, user, now).await?;
    if purse.limits.synced_per_day.is_some() {
        let standing = purse.synced(tx).await?;
        tell(tx, (Some(user), Quota::SyncedPerDay), standing, now).await?;
    }
    Ok(())
}

/// What is left of a user's budget for sending by an account, or by the smarthost, and what it is counted in.
///
/// # Errors
/// Those of the store.
pub(super) async fn send_budget(
    session: &mut Session,
    (user, account): (UserId, Option<AccountId>),
    now: Timestamp,
) -> Result<(Budget, SentUnit), Error> {
    let purse = Purse::of(session, user, now).await?;
    let standings = purse.sent_if_limited(session).await?;
    Ok((budget(standings, provider_rest(session, account).await?, now), purse.unit()))
}

/// Charges a message to so many recipients to its sender's budget. False when it does not fit: then nothing is written.
///
/// # Errors
/// Those of the store.
pub(super) async fn charge(
    tx: &mut Tx,
    (user, account): (UserId, Option<AccountId>),
    recipients: u64,
    now: Timestamp,
) -> Result<bool, Error> {
    let purse = Purse::of(tx, user, now).await?;
    let wanted = if purse.unit() == SentUnit::Recipients { recipients } else { 1 };
    let standings = purse.sent_if_limited(tx).await?;
    match budget(standings, provider_rest(tx, account).await?, now) {
        Budget::Full(_) => return Ok(false),
        Budget::Room(Some(room)) if room < wanted => return Ok(false),
        Budget::Room(_) => {}
    }
    let slot = slot_of(now);
    let counts = [(Counted::SentMessages, slot, 1), (Counted::SentRecipients, slot, recipients)];
    tx.count_usage(user, &counts).await?;
    for (quota, standing) in standings {
        let standing = Standing { used: standing.used.saturating_add(wanted), ..standing };
        tell(tx, (Some(user), quota), standing, now).await?;
    }
    Ok(true)
}

async fn provider_rest(
    session: &mut Session,
    account: Option<AccountId>,
) -> Result<Option<Timestamp>, Error> {
    match account {
        Some(account) => session.sending_rests(account).await,
        None => Ok(None),
    }
}

/// The tighter of a user's limits on sending, for what does not fit into what it leaves: until when it holds.
///
/// # Errors
/// Those of the store.
pub(super) async fn full_at(session: &mut Session, user: UserId, now: Timestamp) -> Result<Full, Error> {
    let purse = Purse::of(session, user, now).await?;
    let sent = purse.sent(session).await?;
    let tightest = sent.iter().filter(|(_, standing)| standing.limit.is_some()).min_by_key(|(_, s)| s.room());
    let until = tightest.and_then(|(_, standing)| standing.resets_at).unwrap_or(purse.day.ends_at);
    let quota = tightest.and_then(|(quota, standing)| Some((*quota, standing.limit?)));
    Ok(Full { quota, until })
}

/// Counts messages sent: when, and to how many recipients each.
///
/// # Errors
/// Those of the store.
pub(super) async fn count_sent(
    tx: &mut Tx,
    user: UserId,
    sent: &[(Timestamp, u64)],
    now: Timestamp,
) -> Result<(), Error> {
    let counts: Vec<_> = sent
        .iter()
        .flat_map(|(at, recipients)| {
            let slot = slot_of(*at);
            [(Counted::SentMessages, slot, 1), (Counted::SentRecipients, slot, *recipients)]
        })
        .collect();
    if counts.is_empty() {
        return Ok(());
    }
    tx.count_usage(user, &counts).await?;
    let purse = Purse::of(tx, user, now).await?;
    if purse.limits_sending() {
        for (quota, standing) in purse.sent(tx).await? {
            tell(tx, (Some(user), quota), standing, now).await?;
        }
    }
    Ok(())
}

/// Tells of a limit that is nearly or wholly used, once for each time it comes to that.
async fn tell(
    tx: &mut Tx,
    (user, quota): (Option<UserId>, Quota),
    standing: Standing,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(level) = standing.level() else { return Ok(()) };
    let check_at = standing.resets_at.unwrap_or(now + RECHECK);
    if tx.raise_quota_level((user, quota), level, check_at).await? {
        let what = match level {
            Level::Warning => QuotaEvent::Warning,
            Level::Exceeded => QuotaEvent::Exceeded,
        };
        tx.announce(&Event::Quota { what, user, quota, standing }, now).await?;
    }
    Ok(())
}

/// How a user's limits stand.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub synced_per_day: Standing,
    pub sent_per_day: Standing,
    pub sent_per_24h: Standing,
    pub sent_unit: SentUnit,
    pub accounts: Standing,
    /// Of the workspace as a whole.
    pub workspace_accounts: Standing,
}

/// Reads how a user's limits stand.
///
/// # Errors
/// Those of the store.
pub async fn usage(session: &mut Session, user: UserId, now: Timestamp) -> Result<Usage, Error> {
    let purse = Purse::of(session, user, now).await?;
    let [(_, sent_per_day), (_, sent_per_24h)] = purse.sent(session).await?;
    Ok(Usage {
        synced_per_day: purse.synced(session).await?,
        sent_per_day,
        sent_per_24h,
        sent_unit: purse.unit(),
        accounts: places(session, Some(user)).await?,
        workspace_accounts: places(session, None).await?,
    })
}

/// How the cap on accounts stands, of a user or of the workspace.
async fn places(session: &mut Session, user: Option<UserId>) -> Result<Standing, Error> {
    let allowance = session.allowance(user).await?;
    let limits = if user.is_some() { allowance.user } else { allowance.workspace };
    Ok(Standing { used: session.accounts_placed(user).await?, limit: limits.accounts, resets_at: None })
}

/// Has an account that is about to connect wait when there are as many as there may be. One that had a place keeps it.
///
/// # Errors
/// Those of the store.
pub async fn seat(tx: &mut Tx, account: &mut Account, was: Option<AccountState>) -> Result<(), Error> {
    let allowance = tx.allowance(Some(account.user_id)).await?;
    let has_cap = allowance.workspace.accounts.is_some() || allowance.user.accounts.is_some();
    if !has_cap || was.is_some_and(takes_place) {
        return Ok(());
    }
    // Of two that take the last place, one.
    tx.lock_filing().await?;
    let now = now();
    let mut others = Vec::new();
    for user in [None, Some(account.user_id)] {
        let all = places(tx, user).await?;
        others.push((user, Standing { used: all.used.saturating_sub(1), ..all }));
    }
    let full = others.iter().find(|(_, others)| others.room() == Some(0)).copied();
    if let Some((user, Standing { limit: Some(limit), .. })) = full {
        account.status = waiting(&account.status, (user, limit), now);
        tx.set_account_status(account.id, &account.status).await?;
    }
    let own = u64::from(full.is_none());
    for (user, others) in others {
        let standing = Standing { used: others.used.saturating_add(own), ..others };
        tell(tx, (user, Quota::Accounts), standing, now).await?;
    }
    Ok(())
}

fn waiting(status: &AccountStatus, (user, limit): (Option<UserId>, u32), now: Timestamp) -> AccountStatus {
    let whose = if user.is_some() { "user" } else { "workspace" };
    AccountStatus {
        state: AccountState::WaitingForQuota,
        since: now,
        detail: Some(format!("The {whose} may have {limit} connected accounts, and has them.")),
        advice: Some(
            "It is connected by itself when another is disconnected or an administrator raises the limit."
                .into(),
        ),
        next_attempt_at: None,
        progress: None,
        ..status.clone()
    }
}

/// Connects accounts of a workspace that wait and for which there is a place by now, longest waiting first.
///
/// # Errors
/// Those of the store.
pub async fn seat_waiting(gateway: &Gateway, workspace: WorkspaceId) -> Result<(), Error> {
    let mut session = gateway.store.read(workspace).await?;
    for (account, user) in session.accounts_waiting().await? {
        if !has_place(&mut session, None).await? {
            return Ok(());
        }
        if has_place(&mut session, Some(user)).await? {
            connect_waiting(gateway, workspace, (account, user)).await?;
        }
    }
    Ok(())
}

async fn has_place(session: &mut Session, user: Option<UserId>) -> Result<bool, Error> {
    Ok(places(session, user).await?.room().is_none_or(|room| room > 0))
}

async fn connect_waiting(
    gateway: &Gateway,
    workspace: WorkspaceId,
    (id, user): (AccountId, UserId),
) -> Result<(), Error> {
    let mut tx = gateway.store.begin(workspace).await?;
    // The account before filing, as whoever changes an account takes the two.
    let found = tx.account_to_change(id).await?;
    tx.lock_filing().await?;
    let Some(account) = found.filter(|found| found.status.state == AccountState::WaitingForQuota) else {
        return Ok(());
    };
    if !has_place(&mut tx, None).await? || !has_place(&mut tx, Some(user)).await? {
        return Ok(());
    }
    let status = AccountStatus {
        state: AccountState::Connecting,
        since: now(),
        detail: None,
        advice: None,
        next_attempt_at: None,
        ..account.status
    };
    tx.set_account_status(id, &status).await?;
    tx.commit().await?;
    look_now(&gateway.coord, id);
    Ok(())
}

/// Has everything that waits for limits of this user, or of all, looked at once more: they have changed.
///
/// # Errors
/// Those of the store.
pub async fn changed(tx: &mut Tx, user: Option<UserId>, now: Timestamp) -> Result<(), Error> {
    tx.hasten_quota_checks(now).await?;
    let (filter, mut after) = (AccountFilter { user, state: None }, None);
    loop {
        let accounts = tx.accounts(&Page::new(PAGE, after), &filter).await?;
        for account in &accounts {
            tx.hasten_job(&Job::TakeUp { account: account.id }, now).await?;
            tx.hasten(&submit_lane(account.id), now).await?;
        }
        let Some(last) = accounts.last().filter(|_| accounts.len() == PAGE as usize) else { break };
        after = Some(PageKey { at: last.connected_at, id: last.id.uuid() });
    }
    for lane in smarthost_lanes() {
        tx.hasten(&lane, now).await?;
    }
    Ok(())
}

/// Accounts read at once.
const PAGE: u32 = 200;

/// Looks after what time or others make room for: limits that were told of, and accounts that wait.
pub async fn look_after(gateway: &Gateway) {
    let outcome = async {
        let now = now();
        let mut system = gateway.store.system_read().await?;
        let due = system.quota_checks_due(now).await?;
        let waiting = system.workspaces_with_waiting_accounts().await?;
        drop(system);
        for told in due {
            passing(recheck(gateway, told, now).await);
        }
        for workspace in waiting {
            passing(seat_waiting(gateway, workspace).await);
        }
        Ok::<_, Error>(())
    };
    passing(outcome.await);
}

/// What fails for one is tried again soon, and keeps no other waiting.
fn passing(outcome: Result<(), Error>) {
    match outcome {
        // Its workspace has been erased meanwhile.
        Ok(()) | Err(Error::Missing) => {}
        Err(error) => tracing::warn!(error = %error, "limits could not be looked after"),
    }
}

/// Looks at a limit that was told of. What has room again is told.
async fn recheck(gateway: &Gateway, told: ToldLevel, now: Timestamp) -> Result<(), Error> {
    let mut tx = gateway.store.begin(told.workspace).await?;
    tx.lock_filing().await?;
    let (user, quota) = (told.user, told.quota);
    let Some(before) = tx.told_quota_level((user, quota)).await? else { return Ok(()) };
    let standing = measure(&mut tx, (user, quota), now).await?;
    let check_at = standing.resets_at.unwrap_or(now + RECHECK);
    let level = match (before, standing.level()) {
        // A sliding window empties by and by, and fills again: it has room when it is told to, not at every slot.
        (Level::Exceeded, Some(Level::Warning)) if quota == Quota::SentPer24h => Some(Level::Exceeded),
        (Level::Warning, Some(Level::Exceeded)) => {
            tell(&mut tx, (user, quota), standing, now).await?;
            Some(Level::Exceeded)
        }
        (_, level) => level,
    };
    tx.lower_quota_level((user, quota), level, check_at).await?;
    if level < Some(before) {
        tx.announce(&Event::Quota { what: QuotaEvent::Reset, user, quota, standing }, now).await?;
    }
    tx.commit().await
}

async fn measure(
    tx: &mut Tx,
    (user, quota): (Option<UserId>, Quota),
    now: Timestamp,
) -> Result<Standing, Error> {
    let Some(id) = user.filter(|_| quota != Quota::Accounts) else { return places(tx, user).await };
    let purse = Purse::of(tx, id, now).await?;
    if quota == Quota::SyncedPerDay {
        return purse.synced(tx).await;
    }
    let [(_, by_day), (_, by_24_hours)] = purse.sent(tx).await?;
    Ok(if quota == Quota::SentPerDay { by_day } else { by_24_hours })
}
