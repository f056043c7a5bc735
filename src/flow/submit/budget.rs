//! A user's budget for sending, and below it what his provider allows the account: what is over it waits or fails, by policy, and
//! what a provider says of its own limit counts.
//!
//! It is charged with *dot intent*, in the same transaction: nothing leaves uncounted, and what may have left stays counted. What
//! the server then refuses, for now or for good, is taken back.
//! Mail that is passed on and what leaves by the smarthost as bulk or workflow mail are no part of it. Not here: counting
//! (`flow::limits`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::record::{self, Fared, Pace};
use crate::{
    core::{
        ids::{AccountId, MessageKey, UserId},
        inbound::{Exit, Principal, SendClass},
        job::{Job, JobExit},
        limits::{Budget, Counted, Full, SentUnit, WINDOW_MAX, provider_rest, says_sent_too_much},
        message::{Author, StoredMessage},
        policy::settings::{OverSend, Settings},
        provider::{Left, Meaning, Provider, SENT_KEPT, Sent, When, left, meaning},
        submission::{Submission, SubmissionState},
    },
    flow::{
        FlowError, Gateway,
        limits::{self, Purse},
        now, policy_of, signed,
    },
    mail::Address,
    queue::{Leased, Settlement},
    smtp::{Outcome, Reply},
    store::{Error, Session, Tx},
};

/// The enhanced status of mail that is over a limit of its sender's, for good (RFC 3463: 5, policy, too much mail).
const OVER_LIMIT: &str = "5.7.28";

/// What a provider's own windows make a message wait for without a word.
const PACE: SignedDuration = SignedDuration::from_secs(90);

/// Whose budget a message is charged to; `None` for nobody's.
fn payer(submission: &Submission, author: &Author) -> Option<UserId> {
    let is_passed_on = matches!(submission.principal, Principal::Participant(_));
    match author {
        Author::User(user) if !is_passed_on && counts(submission.account.is_some(), submission.class) => {
            Some(*user)
        }
        _ => None,
    }
}

/// What leaves by the smarthost in bulk costs the user's own provider nothing.
fn counts(by_account: bool, class: SendClass) -> bool {
    by_account || class == SendClass::Individual
}

/// To how many recipients of a submission mail may go now.
///
/// # Errors
/// Those of the store.
pub(super) async fn recipients_now(
    session: &mut Session,
    (submission, stored): (&Submission, &StoredMessage),
) -> Result<Result<usize, Full>, FlowError> {
    let by_user = user_room(session, (submission, stored)).await?;
    let by_provider = match submission.account {
        Some(account) => provider_room(session, account, now()).await?,
        None => Ok(usize::MAX),
    };
    Ok(match (by_user, by_provider) {
        (Ok(user), Ok(provider)) => Ok(user.min(provider)),
        (Err(user), Err(provider)) if provider.until > user.until => Err(provider),
        (Err(full), _) | (_, Err(full)) => Err(full),
    })
}

/// To how many recipients a provider takes a message of an account's now: by its windows, and in one message.
async fn provider_room(
    session: &mut Session,
    id: AccountId,
    now: Timestamp,
) -> Result<Result<usize, Full>, FlowError> {
    let Some(account) = session.account(id).await? else { return Ok(Ok(usize::MAX)) };
    let provider = account.provider();
    let a_message = provider.recipients_per_message.map_or(usize::MAX, |most| most as usize);
    let mut budgets = provider.budgets_of(account.email.domain()).peekable();
    if budgets.peek().is_none() {
        return Ok(Ok(a_message));
    }
    let sent = session.account_sent(id, now - SENT_KEPT).await?;
    Ok(match left(budgets, &sent, now) {
        Left::Until(until) => Err(Full { quota: None, until }),
        Left::Recipients(None) => Ok(a_message),
        Left::Recipients(Some(room)) => Ok(a_message.min(usize::try_from(room).unwrap_or(usize::MAX))),
    })
}

async fn user_room(
    session: &mut Session,
    (submission, stored): (&Submission, &StoredMessage),
) -> Result<Result<usize, Full>, FlowError> {
    let Some(user) = payer(submission, &stored.author) else { return Ok(Ok(usize::MAX)) };
    let purse = Purse::of(session, user, now()).await?;
    Ok(match (purse.send_budget(session, submission.account).await?, purse.unit()) {
        (Budget::Full(full), _) => Err(full),
        (Budget::Room(Some(room)), SentUnit::Recipients) => Ok(usize::try_from(room).unwrap_or(usize::MAX)),
        (Budget::Room(_), _) => Ok(usize::MAX),
    })
}

/// Charges a message to so many recipients, to the user and to the account. False when it does not fit by now: then nothing is written.
///
/// # Errors
/// Those of the store.
pub(super) async fn charge(
    tx: &mut Tx,
    submission: &Submission,
    recipients: usize,
    now: Timestamp,
) -> Result<bool, FlowError> {
    if let Some(account) = submission.account {
        if !provider_room(tx, account, now).await?.is_ok_and(|room| recipients <= room) {
            return Ok(false);
        }
        tx.count_account_sent(account, Sent::at(now, (1, recipients as u64))).await?;
    }
    let stored = tx.message(submission.message).await?.ok_or(FlowError::Obsolete)?;
    let Some(user) = payer(submission, &stored.author) else { return Ok(true) };
    let recipients = u64::try_from(recipients).unwrap_or(u64::MAX);
    Ok(Purse::of(tx, user, now).await?.charge(tx, submission.account, recipients).await?)
}

/// Takes back what was charged for recipients of whom the server has said after the dot that they do not get it. Who may have
/// got it stays charged. To be called before their states say so.
///
/// # Errors
/// Those of the store.
pub(super) async fn give_back(
    tx: &mut Tx,
    submission: &Submission,
    fared: &[Fared],
) -> Result<(), FlowError> {
    // Who was refused before the dot is not being sent to, and was never charged for.
    let is_charged = |one: &&Fared| {
        let mut states = submission.recipients.iter();
        states.any(|s| s.recipient.address == one.asked.address && s.state == SubmissionState::Sending)
    };
    let charged: Vec<&Fared> = fared.iter().filter(is_charged).collect();
    let is_refused = |one: &&&Fared| matches!(one.outcome, Outcome::Refused(_) | Outcome::Deferred(_));
    let refused = charged.iter().filter(is_refused).count();
    let Some(charged_at) = submission.dot_intent_at.filter(|_| refused > 0) else { return Ok(()) };
    let stored = tx.message(submission.message).await?.ok_or(FlowError::Obsolete)?;
    let messages = u64::from(refused == charged.len());
    if let Some(account) = submission.account {
        let sent = Sent::at(charged_at, (messages, refused as u64));
        tx.uncount_account_sent(account, sent).await?;
    }
    if let Some(user) = payer(submission, &stored.author) {
        limits::give_back(tx, user, (messages, refused as u64), charged_at).await?;
    }
    Ok(())
}

/// Lets a submission and what is behind it in its lane wait, without a word.
///
/// # Errors
/// Those of the store.
pub(super) async fn wait(gateway: &Gateway, job: &Leased, until: Timestamp) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.rest_lane(job, until).await?;
    tx.settle(job, Settlement::RetryAt(until)).await?;
    tx.commit().await?;
    Ok(())
}

/// Has a submission wait until its turn comes, or fail, as policy says.
///
/// # Errors
/// Those of the store.
pub(super) async fn put_off(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    full: Full,
) -> Result<(), FlowError> {
    if full.quota.is_none() && full.until.duration_since(now()) <= PACE {
        // Nothing is wrong with it, and nobody is told: so much leaves in a minute, and then the next.
        return wait(gateway, job, full.until).await;
    }
    let mut tx = gateway.store.begin(job.workspace).await?;
    let mut submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let user = sender(&mut tx, (submission.account, message)).await?;
    let is_kept = policy_of(&mut tx, user).await?.settings.over_send == OverSend::Queue;
    for state in submission.recipients.iter_mut().filter(|state| state.is_open()) {
        state.code = None;
        if is_kept {
            state.state = SubmissionState::Deferred;
            state.text = Some(format!("Not sent yet: {}.", full.text()));
        } else {
            (state.state, state.status) = (SubmissionState::Bounced, Some(OVER_LIMIT.to_owned()));
            state.text = Some(format!("Not sent: {}.", full.text()));
        }
    }
    let pace = match (&job.job, full.quota, user.filter(|_| is_kept)) {
        // Each waits for its own turn: what is behind it is told its own.
        (_, Some(_), Some(user)) => {
            let purse = Purse::of(&mut tx, user, now()).await?;
            Pace::Until(purse.turn_of(&mut tx, (message, submission.account)).await?)
        }
        // The account's own provider wants peace from all of them.
        (Job::Submit { exit: JobExit::Account(_), .. }, None, _) => Pace::Rest(Some(full.until)),
        _ => Pace::Until(full.until),
    };
    if let Pace::Until(until) | Pace::Rest(Some(until)) = pace
        && is_kept
    {
        // Waiting for a limit takes nothing of the time in which a server has to be found that takes it.
        submission.accepted_at = submission.accepted_at.max(until);
        tx.send_submission_by(&submission).await?;
    }
    record::conclude(&mut tx, gateway, job, submission, pace).await?;
    tx.commit().await?;
    Ok(())
}

/// Heeds a provider that takes no more of an account's mail: nothing leaves before the time it says. By policy the message
/// waits too, though the provider has refused it for good. Returns until when.
///
/// # Errors
/// Those of the store.
pub(super) async fn heed(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    fared: &mut [Fared],
) -> Result<Option<Timestamp>, FlowError> {
    let Job::Submit { exit: JobExit::Account(account), .. } = job.job else { return Ok(None) };
    let said = fared.iter().find_map(|one| sent_too_much(&one.outcome)).map(text_of);
    let Some(said) = said else { return Ok(None) };
    let now = now();
    let mut tx = gateway.store.begin(job.workspace).await?;
    let user = sender(&mut tx, (Some(account), message)).await?;
    let until = rest_until(&mut tx, user, &said, now).await?;
    let is_kept = policy_of(&mut tx, user).await?.settings.over_send == OverSend::Queue;
    tx.rest_sending(account, until).await?;
    tx.commit().await?;
    tracing::info!(%account, %until, "the provider takes no more of an account's mail");
    if is_kept {
        for one in fared.iter_mut() {
            if let Some(reply) = sent_too_much(&one.outcome).cloned() {
                one.outcome = Outcome::Deferred(reply);
            }
        }
    }
    Ok(Some(until))
}

/// Who sends a message: the user who wrote it, or else whose account it leaves by.
async fn sender(
    tx: &mut Tx,
    (account, message): (Option<AccountId>, MessageKey),
) -> Result<Option<UserId>, FlowError> {
    if let Some(Author::User(user)) = tx.message(message).await?.map(|stored| stored.author) {
        return Ok(Some(user));
    }
    Ok(match account {
        Some(account) => tx.account(account).await?.map(|account| account.user_id),
        None => None,
    })
}

async fn rest_until(
    tx: &mut Tx,
    user: Option<UserId>,
    said: &str,
    now: Timestamp,
) -> Result<Timestamp, FlowError> {
    let counts = match user {
        Some(user) => tx.usage(user, Counted::SentRecipients, now - WINDOW_MAX).await?,
        None => Vec::new(),
    };
    if let Some(wait) = quota_wait(said).filter(|_| !says_sent_too_much(None, said)) {
        return Ok(now + signed(wait));
    }
    Ok(provider_rest(said, &counts, now))
}

/// How long a provider wants no mail of an account, that says so in words of its own.
fn quota_wait(said: &str) -> Option<Duration> {
    match meaning(said, When::Session)? {
        Meaning::SendingQuota(wait) => wait,
        _ => None,
    }
}

fn sent_too_much(outcome: &Outcome) -> Option<&Reply> {
    let (Outcome::Refused(reply) | Outcome::Deferred(reply)) = outcome else { return None };
    let status = reply.enhanced().map(|enhanced| enhanced.to_string());
    let said = text_of(reply);
    (says_sent_too_much(status.as_deref(), &said) || quota_wait(&said).is_some()).then_some(reply)
}

fn text_of(reply: &Reply) -> String {
    reply.lines().collect::<Vec<_>>().join(" ")
}

/// The provider of whoever's account a message is to leave by; that of any server where it leaves by the smarthost.
///
/// # Errors
/// Those of the store.
pub async fn provider_of(session: &mut Session, exit: Exit) -> Result<&'static Provider, Error> {
    let Exit::Account(account) = exit else { return Ok(Provider::any()) };
    let account = session.account(account).await?;
    Ok(account.map_or_else(Provider::any, |account| account.provider()))
}

/// What the user's mail is from that leaves there, where his account has said so.
///
/// # Errors
/// Those of the store.
pub async fn sender_identity(session: &mut Session, exit: Exit) -> Result<Option<Address>, Error> {
    let Exit::Account(account) = exit else { return Ok(None) };
    let Some(account) = session.account(account).await? else { return Ok(None) };
    let Some(sender) = account.settings.identities.sender else { return Ok(None) };
    // An alias that was taken from him is no name of his any more.
    let user = session.user(account.user_id).await?;
    let is_own = user.is_some_and(|user| user.email == sender || user.aliases.contains(&sender));
    Ok((is_own || account.email == sender).then_some(sender))
}

/// Somebody about to hand in a message.
#[derive(Debug, Clone, Copy)]
pub struct HandsIn {
    pub user: UserId,
    pub class: SendClass,
    pub exit: Exit,
    pub recipients: usize,
}

/// Whether a message may be handed in: where policy lets mail over a limit fail, it is refused at once rather than later.
/// What waits to be sent counts with what was sent. The inner error says until when.
///
/// # Errors
/// Those of the store.
pub async fn admit(
    session: &mut Session,
    hands_in: HandsIn,
    settings: &Settings,
) -> Result<Result<(), Full>, Error> {
    let HandsIn { user, class, exit, recipients } = hands_in;
    let account = match exit {
        Exit::Account(account) => Some(account),
        Exit::Smarthost => None,
    };
    if !counts(account.is_some(), class) || settings.over_send == OverSend::Queue {
        return Ok(Ok(()));
    }
    let purse = Purse::of(session, user, now()).await?;
    let room = match purse.send_budget(session, account).await? {
        Budget::Full(full) => return Ok(Err(full)),
        Budget::Room(None) => return Ok(Ok(())),
        Budget::Room(Some(room)) => room,
    };
    let (messages, others) = session.unsent_of(user).await?;
    let wanted = match purse.unit() {
        SentUnit::Messages => messages.saturating_add(1),
        SentUnit::Recipients => others.saturating_add(u64::try_from(recipients).unwrap_or(u64::MAX)),
    };
    if wanted <= room {
        return Ok(Ok(()));
    }
    purse.full_at(session).await.map(Err)
}
