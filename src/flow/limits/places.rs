//! Places of accounts: how many there may be, of a user and of the workspace, and who waits for one.
//!
//! Not here: what else makes an account connect or not (`flow::sync`).

use jiff::Timestamp;

use super::tell;
use crate::{
    core::{
        account::{Account, AccountState, AccountStatus},
        allowance::InForce,
        ids::{AccountId, UserId, WorkspaceId},
        limits::{Quota, Standing, takes_place},
    },
    flow::{Gateway, now, sync::look_now},
    store::{Error, Session, Tx},
};

/// How the caps on accounts stand: the user's, and the workspace's.
///
/// # Errors
/// Those of the store.
pub(super) async fn of_user(
    session: &mut Session,
    user: UserId,
    limits: &InForce,
) -> Result<[Standing; 2], Error> {
    Ok([
        standing(session, Some(user), limits.accounts_per_user.limit).await?,
        standing(session, None, limits.accounts.limit).await?,
    ])
}

/// How the cap on accounts stands, of a user or of the workspace.
///
/// # Errors
/// Those of the store.
pub(super) async fn of(session: &mut Session, user: Option<UserId>) -> Result<Standing, Error> {
    let allowance = session.allowance(user).await?;
    let limit = match user {
        Some(_) => allowance.of_user().accounts_per_user.limit,
        None => allowance.of_workspace().accounts.limit,
    };
    standing(session, user, limit).await
}

async fn standing(
    session: &mut Session,
    user: Option<UserId>,
    limit: Option<u32>,
) -> Result<Standing, Error> {
    Ok(Standing { used: session.accounts_placed(user).await?, limit, resets_at: None })
}

/// Has an account that is about to connect wait when there are as many as there may be. One that had a place keeps it.
///
/// # Errors
/// Those of the store.
pub async fn seat(tx: &mut Tx, account: &mut Account, was: Option<AccountState>) -> Result<(), Error> {
    let limits = tx.allowance(Some(account.user_id)).await?.of_user();
    let has_cap = limits.accounts.limit.is_some() || limits.accounts_per_user.limit.is_some();
    if !has_cap || was.is_some_and(takes_place) {
        return Ok(());
    }
    // Of two that take the last place, one.
    tx.lock_filing().await?;
    let now = now();
    let [of_user, of_all] = of_user(tx, account.user_id, &limits).await?;
    let others = [(None, of_all), (Some(account.user_id), of_user)]
        .map(|(user, all)| (user, Standing { used: all.used.saturating_sub(1), ..all }));
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
        match room(&mut session, user).await? {
            Room::Nobodys => return Ok(()),
            Room::NotHis => {}
            Room::His => connect_waiting(gateway, workspace, (account, user)).await?,
        }
    }
    Ok(())
}

/// Whose place there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Nobodys,
    /// Other users may have one.
    NotHis,
    His,
}

async fn room(session: &mut Session, user: UserId) -> Result<Room, Error> {
    let limits = session.allowance(Some(user)).await?.of_user();
    let [of_user, of_all] = of_user(session, user, &limits).await?;
    Ok(match (of_all.room(), of_user.room()) {
        (Some(0), _) => Room::Nobodys,
        (_, Some(0)) => Room::NotHis,
        _ => Room::His,
    })
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
    if room(&mut tx, user).await? != Room::His {
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
