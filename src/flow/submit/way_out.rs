//! The way out of a submission at this moment: open, resting, or closed until somebody does something about it.
//!
//! Providers lock accounts that log in again and again with a refused password, and throttle those that do not wait: what an
//! account's state says counts for sending as it does for reading. Not here: which way policy chooses (`order`).

use jiff::{SignedDuration, Timestamp};

use super::{budget::sender_identity, record::Fared};
use crate::{
    account::{DOUBTED_FOR, Exit as Server, Trouble},
    core::{
        account::{Account, AccountState, Rest},
        ids::AccountId,
        inbound,
        job::{Job, JobExit},
        provider::{Meaning, Provider, When, meaning},
        retry,
    },
    flow::{
        FlowError, Gateway, jitter, now, signed,
        sync::{look_now, refuse_login, refuse_sending},
    },
    queue::Leased,
    smtp::Outcome,
    store::{AccountAccess, Session, SmarthostAccess, Tx},
};

/// Whether mail can leave now.
pub(super) enum WayOut {
    Open(Server),
    /// The provider has asked us to stay away until then.
    Rests(Timestamp),
    /// Nothing leaves before somebody acts; the text says what is wrong.
    Closed(&'static str),
}

/// Where a submission leaves: the account's provider, or the smarthost.
///
/// # Errors
/// Those of the store.
pub(super) async fn way_out(session: &mut Session, account: Option<AccountId>) -> Result<WayOut, FlowError> {
    let Some(id) = account else {
        let server = session.smarthost_access().await?.map(|SmarthostAccess { endpoint, credentials }| {
            let provider = Provider::any();
            Server { endpoint, credentials, account: None, account_address: None, login: None, provider }
        });
        return Ok(server.map_or(WayOut::Closed("The workspace has no smarthost any more."), WayOut::Open));
    };
    let sender = sender_identity(session, inbound::Exit::Account(id)).await?;
    let open = |AccountAccess { email, settings, credentials, .. }| {
        WayOut::Open(Server {
            provider: settings.provider(),
            endpoint: settings.smtp,
            credentials: Some(credentials),
            account: Some(id),
            account_address: Some(sender.unwrap_or(email)),
            login: settings.identities.smtp_login,
        })
    };
    let is_refused = async |session: &mut Session| -> Result<bool, FlowError> {
        Ok(session.account(id).await?.is_some_and(|account| account.sending_refused.is_some()))
    };
    Ok(match account_access(session, id).await? {
        Access::Open(_) if is_refused(session).await? => WayOut::Closed(REFUSED_LOGIN),
        Access::Open(access) => open(*access),
        Access::Rests(until) => WayOut::Rests(until),
        Access::Closed(state) => WayOut::Closed(reason(state)),
    })
}

/// Whether an account may be logged in to now.
pub(super) enum Access {
    Open(Box<AccountAccess>),
    Rests(Timestamp),
    /// Not before its state changes. One that is gone counts as erased.
    Closed(AccountState),
}

/// What the state of an account says of logging in to it.
///
/// # Errors
/// Those of the store.
pub(super) async fn account_access(session: &mut Session, id: AccountId) -> Result<Access, FlowError> {
    let Some(account) = session.account(id).await? else {
        return Ok(Access::Closed(AccountState::Erased));
    };
    let (rests, status) = (account.rests_until(now()), account.status);
    if !status.state.is_worked() {
        return Ok(Access::Closed(status.state));
    }
    let resumes_at =
        status.next_attempt_at.filter(|at| status.state == AccountState::Throttled && *at > now());
    if let Some(until) = resumes_at.max(rests) {
        return Ok(Access::Rests(until));
    }
    let access = match session.account_access(id).await {
        // The account itself could be read: it is the login that cannot, and the account's session says so.
        Err(error) if error.is_lasting() => return Ok(Access::Closed(AccountState::ReauthRequired)),
        access => access?,
    };
    Ok(access.map_or(Access::Closed(AccountState::Erased), |access| Access::Open(Box::new(access))))
}

fn reason(state: AccountState) -> &'static str {
    match state {
        AccountState::ReauthRequired => REFUSED_LOGIN,
        AccountState::WaitingForQuota => "The account waits for room in its quota. It is sent when there is.",
        AccountState::Paused => "The account is paused. It is sent when it goes on.",
        AccountState::Stopped => {
            "The account is stopped, as its status says. It is sent when the account goes on."
        }
        _ => "The account is not connected. It is sent when the account is connected again.",
    }
}

/// Why mail is held whose provider does not take the password.
pub(super) const REFUSED_LOGIN: &str = "The provider refuses the account's login. It is sent when the account has a login that \
     works, or is resumed.";

/// How long what is still owed about a message waits for an account that may not be logged in to, and how often that is asked
/// of the store.
pub(super) const WAIT_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
pub(super) const WAIT: SignedDuration = SignedDuration::from_hours(1);

/// How long the first waits that finds as many sessions open as there may be, and what is behind it in its lane.
const CROWDED: SignedDuration = SignedDuration::from_secs(3);

/// Until when a job waits for a session: longer when it waits again, for where it is crowded others stand in its way.
pub(in crate::flow) fn crowded(job: &Leased) -> Timestamp {
    now() + CROWDED * (1 << job.attempt.saturating_sub(1).min(2))
}

/// Writes down what went wrong with an account's provider. True when it refused the login, after which nobody tries again;
/// an account that was given a new one since the attempt began is not blamed for the old.
///
/// # Errors
/// Those of the store.
pub(super) async fn note_trouble(
    tx: &mut Tx,
    id: AccountId,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<bool, FlowError> {
    let Some(account) = noted(tx, (id, trouble)).await? else { return Ok(false) };
    keep_peace(tx, &account, trouble).await?;
    // Whether that is so, its own session finds out in time.
    let doubted = trouble.in_passing().filter(|_| account.was_well());
    let blame = if doubted.is_some() { Blame::Nobody } else { blame(&account, (began, trouble)) };
    match blame {
        Blame::Login => refuse_login(tx, id, trouble).await?,
        Blame::Nobody | Blame::Known => log(tx, id, doubted.as_ref().unwrap_or(trouble)).await?,
    }
    Ok(blame != Blame::Nobody)
}

/// The same of the account's server for sending, whose refusal is no reason to read no more. That it takes no token of a good grant
/// is tried again for hours.
///
/// # Errors
/// Those of the store.
pub(super) async fn note_unsent(
    tx: &mut Tx,
    id: AccountId,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<bool, FlowError> {
    // Of a permission that is gone it is gone for reading too.
    if matches!(trouble, Trouble::SignIn(_)) {
        return note_trouble(tx, id, (began, trouble)).await;
    }
    let Some(account) = noted(tx, (id, trouble)).await? else { return Ok(false) };
    keep_peace(tx, &account, trouble).await?;
    let doubted =
        if is_unwelcome_for_now(tx, &account, (began, trouble)).await? { trouble.in_passing() } else { None };
    let blame = if doubted.is_some() { Blame::Nobody } else { blame(&account, (began, trouble)) };
    match blame {
        Blame::Login => refuse_sending(tx, account, trouble).await?,
        Blame::Nobody | Blame::Known => log(tx, id, doubted.as_ref().unwrap_or(trouble)).await?,
    }
    Ok(blame != Blame::Nobody)
}

/// Whether it is a refusal of the token of a good grant that has not gone on for long.
async fn is_unwelcome_for_now(
    tx: &mut Tx,
    account: &Account,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<bool, FlowError> {
    if !matches!(trouble, Trouble::Unwelcome(_)) {
        return Ok(false);
    }
    let since = tx.note_unwelcome(account.id, began).await?.unwrap_or(began);
    Ok(account.was_well() && began.duration_since(since) < signed(DOUBTED_FOR))
}

async fn log(tx: &mut Tx, id: AccountId, trouble: &Trouble) -> Result<(), FlowError> {
    Ok(tx.log_account_error(id, &trouble.entry(now())).await?)
}

/// Has all that talks to the account's provider leave it alone, where that is what it asked for.
async fn keep_peace(tx: &mut Tx, account: &Account, trouble: &Trouble) -> Result<(), FlowError> {
    let Trouble::Throttled { wait, .. } = trouble else { return Ok(()) };
    let now = now();
    let times = account.rests_in_a_row(now).saturating_add(1);
    let until = now + signed(retry::rest(*wait, times, jitter()));
    tx.rest_account(account.id, &Rest { until, over: trouble.to_string(), times }).await?;
    Ok(())
}

/// Until when an account's provider is left alone; `None` when it need not be.
///
/// # Errors
/// Those of the store.
pub(super) async fn rests_until(tx: &mut Tx, id: AccountId) -> Result<Option<Timestamp>, FlowError> {
    Ok(tx.account(id).await?.and_then(|account| account.rests_until(now())))
}

/// Heeds what a provider said to a message, where it is the account that it wants peace from: too many sessions, too much at
/// once. What it says of one message alone, or of its recipients, concerns nobody else. Returns until when.
///
/// # Errors
/// Those of the store.
pub(super) async fn heed(
    gateway: &Gateway,
    job: &Leased,
    fared: &[Fared],
) -> Result<Option<Timestamp>, FlowError> {
    let Job::Submit { exit: JobExit::Account(id), .. } = job.job else { return Ok(None) };
    let Some(trouble) = fared.iter().find_map(|one| asks_for_peace(&one.outcome)) else { return Ok(None) };
    let mut tx = gateway.store.begin(job.workspace).await?;
    note_trouble(&mut tx, id, (now(), &trouble)).await?;
    let until = rests_until(&mut tx, id).await?;
    tx.commit().await?;
    Ok(until)
}

fn asks_for_peace(outcome: &Outcome) -> Option<Trouble> {
    let Outcome::Deferred(reply) = outcome else { return None };
    let text = reply.lines().collect::<Vec<_>>().join(" ");
    let wait = match meaning(&text, When::Session)? {
        Meaning::TooManySubmissions(wait) | Meaning::TooManyConnections(wait) => wait,
        Meaning::Busy(wait @ Some(_)) => wait,
        _ => return None,
    };
    Some(Trouble::Throttled { text: reply.to_string(), wait })
}

/// An account whose troubles are worth noting, which nobody changes meanwhile: one that is being given a new login is not
/// judged by what it was before. That we allow ourselves no further session is no trouble of the account's.
async fn noted(tx: &mut Tx, (id, trouble): (AccountId, &Trouble)) -> Result<Option<Account>, FlowError> {
    if *trouble == Trouble::Crowded {
        return Ok(None);
    }
    let account = tx.account_to_change(id).await?;
    Ok(account.filter(|account| !account.status.state.is_gone()))
}

/// What a trouble says of an account's login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    Nobody,
    /// It is refused.
    Login,
    /// It is refused, which was known.
    Known,
}

fn blame(account: &Account, (began, trouble): (Timestamp, &Trouble)) -> Blame {
    let is_refused = trouble.state() == AccountState::ReauthRequired;
    match is_refused {
        true if !account.status.state.is_worked() => Blame::Known,
        true if account.status.since < began => Blame::Login,
        _ => Blame::Nobody,
    }
}

/// Writes down what went wrong with an account's provider over an errand, and lets what waits behind it in its lane wait as
/// well: what failed for one would fail for those. Returns until when, which is `usual` unless the provider has named a time,
/// and whether the login was refused: then the workers are to be told once this is committed.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn rest_over(
    tx: &mut Tx,
    job: &Leased,
    account: AccountId,
    (began, trouble): (Timestamp, &Trouble),
    usual: Timestamp,
) -> Result<(Timestamp, bool), FlowError> {
    let is_refused = note_trouble(tx, account, (began, trouble)).await?;
    let until = rests_until(tx, account).await?.unwrap_or(usual);
    tx.rest_lane(job, until).await?;
    Ok((until, is_refused))
}

/// Has whoever works the account see that it is no longer to be worked.
pub(in crate::flow) fn tell_workers(gateway: &Gateway, account: AccountId) {
    look_now(&gateway.coord, account);
}
