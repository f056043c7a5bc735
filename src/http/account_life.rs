//! Pausing an account, resuming it, and disconnecting it with or without what it brought.
//!
//! Not here: erasing (`flow::erase`), and connecting (`accounts`).

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    account_rules::require_admitted,
    account_view::AccountView,
    accounts::{restart, shown},
    body::{Input, Nothing, PathId},
    once::{Answer, Stop},
    problem::Problem,
};
use crate::{
    core::{
        account::{Account, AccountState, AccountStatus},
        event::{AccountEvent, Event},
        ids::AccountId,
        policy::{Settings, settings::OnDisconnect},
    },
    flow,
    store::{self, Tx},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(pause)).routes(routes!(resume)).routes(routes!(disconnect))
}

/// Why an account is not worked, and what would have it worked.
pub(super) fn not_worked(state: AccountState) -> Problem {
    if let Err(erased) = require_not_erased(state) {
        return erased;
    }
    let (detail, advice) = match state {
        AccountState::Paused => ("The account is paused.", "Resume it."),
        AccountState::Stopped => ("The account is stopped.", "See in its status why, and resume it."),
        AccountState::ReauthRequired => (
            "The provider refuses the account's login.",
            "Give it one that works: PATCH the account with auth.",
        ),
        AccountState::WaitingForQuota => (
            "The account waits for room in a limit.",
            "Disconnect another account, or have the limit raised.",
        ),
        _ => ("The account is not connected.", "Connect it again: PATCH the account with auth."),
    };
    Problem::conflict("account_not_connected", detail, advice)
}

/// An account that is erased, or about to be, is never worked again.
pub(super) fn require_not_erased(state: AccountState) -> Result<(), Problem> {
    match state.is_erased() {
        true => {
            let advice = "Once it is erased, connect the address as a new account.";
            Err(Problem::conflict("account_erased", "The account is erased.", advice))
        }
        false => Ok(()),
    }
}

/// An account that the caller may do something to, and nobody else meanwhile.
async fn own_account(tx: &mut Tx, access: &Access, id: AccountId) -> Result<Account, Problem> {
    let account = tx.account_to_change(id).await?.ok_or_else(Problem::not_found)?;
    access.act_as(account.user_id)?;
    Ok(account)
}

/// Pause an account: its mail is neither read nor sent until it is resumed, and its login is kept.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/accounts/{id}/pause", tag = "accounts",
    operation_id = "pause_account", responses((status = 200, body = AccountView)))]
async fn pause(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    let mut work = input.stamp.begin(&api, &access).await?;
    let mut account = own_account(&mut work, &access, id).await?;
    match account.status.state {
        AccountState::Paused => {}
        state if state.is_worked() || state == AccountState::Stopped => {
            account.status = AccountStatus {
                state: AccountState::Paused,
                since: flow::now(),
                detail: None,
                advice: Some("Resume the account when its mail is wanted again.".into()),
                next_attempt_at: None,
                progress: None,
                ..account.status
            };
            work.set_account_status(id, &account.status).await?;
            work.fence_account(id).await?;
        }
        state => return Err(not_worked(state).into()),
    }
    let view = shown(&mut work, account).await?;
    let response = work.finish(Answer::ok(&view)).await?;
    api.look_now(id);
    Ok(response)
}

/// Resume an account that was paused, or was stopped because it had failed for too long. What came in meanwhile is read now.
/// By one that is read and may not send, sending is tried again.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/accounts/{id}/resume", tag = "accounts",
    operation_id = "resume_account", responses((status = 200, body = AccountView)))]
async fn resume(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    let mut work = input.stamp.begin(&api, &access).await?;
    let mut account = own_account(&mut work, &access, id).await?;
    match account.status.state {
        AccountState::Paused | AccountState::Stopped => {
            // What it holds would be sent before anybody noticed.
            require_admitted(&mut work, "id", &account).await?;
            restart(&mut work, &api.gateway, &mut account).await?;
        }
        state if state.is_worked() => {
            if account.sending_refused.take().is_some() {
                work.refuse_sending(id, None).await?;
                flow::submit::release_held(&mut work, &api.gateway, Some(account.user_id)).await?;
            }
        }
        state => return Err(not_worked(state).into()),
    }
    let view = shown(&mut work, account).await?;
    let response = work.finish(Answer::ok(&view)).await?;
    api.look_now(id);
    Ok(response)
}

/// What becomes of the mail that came through the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum History {
    Keep,
    Erase,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disconnection {
    /// May be left out where policy says what becomes of it (`on_disconnect`).
    history: Option<History>,
}

/// What is asked for, or else what policy says.
fn choice(asked: Option<History>, policy: OnDisconnect) -> Result<History, Problem> {
    match (asked, policy) {
        (Some(asked), _) => Ok(asked),
        (None, OnDisconnect::Keep) => Ok(History::Keep),
        (None, OnDisconnect::Erase) => Ok(History::Erase),
        (None, OnDisconnect::Ask) => Err(Problem::invalid("history", "The field is missing.")
            .advice("Say what becomes of the mail that came through the account: \"keep\" or \"erase\".")),
    }
}

/// Disconnect an account: its login is forgotten and it is asked no more. What it brought stays (`keep`), or what it alone
/// brought goes (`erase`), which takes a while and ends with `account.erased` and a receipt. What others have seen as well
/// stays: mail that the CRM sent, that a copy was captured of, or that lies in a colleague's account too.
///
/// Not erased: what the CRM has been told already; backups, until the copies of the master key they need are gone; and with
/// PostgreSQL subjects and addresses in the free space of its files, until `VACUUM FULL`, and in its log, until that ends.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/accounts/{id}/disconnect", tag = "accounts",
    operation_id = "disconnect_account", request_body = Disconnection, responses((status = 200, body = AccountView)))]
async fn disconnect(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<AccountId>,
    input: Input<Disconnection>,
) -> Result<Response, Stop> {
    let mut work = input.stamp.begin(&api, &access).await?;
    let mut account = own_account(&mut work, &access, id).await?;
    let state = account.status.state;
    let policy = flow::policy_of(&mut work, Some(account.user_id)).await?.settings;
    match choice(input.value.history, policy.on_disconnect)? {
        _ if state.is_erased() => {}
        History::Erase => {
            forget_login(&mut work, &account).await?;
            flow::erase::begin_account(&mut work, &mut account, flow::now()).await?;
        }
        History::Keep if state == AccountState::Disconnected => {}
        History::Keep => {
            forget_login(&mut work, &account).await?;
            part_from(&mut work, &mut account, &policy).await?;
        }
    }
    let mut view = AccountView::new(account, &policy);
    view.receipt = work.receipt(id).await?.map(Into::into);
    let response = work.finish(Answer::ok(&view)).await?;
    api.look_now(id);
    Ok(response)
}

/// Forgets what logs in, and has what a provider has granted given back.
async fn forget_login(tx: &mut Tx, account: &Account) -> Result<(), store::Error> {
    flow::login::part_from_grant(tx, account, flow::now()).await?;
    tx.forget_credentials(account.id).await
}

async fn part_from(tx: &mut Tx, account: &mut Account, policy: &Settings) -> Result<(), Problem> {
    let now = flow::now();
    account.status = AccountStatus {
        state: AccountState::Disconnected,
        since: now,
        detail: None,
        advice: Some("Connect it again with a new login when it is wanted.".into()),
        next_attempt_at: None,
        progress: None,
        ..account.status.clone()
    };
    tx.set_account_status(account.id, &account.status).await?;
    tx.fence_account(account.id).await?;
    let event = Event::Account {
        what: AccountEvent::Disconnected,
        account: account.id,
        status: policy.labelled(account.status.clone()),
    };
    tx.announce(&event, now).await?;
    Ok(())
}
