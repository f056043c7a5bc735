//! Sees to it that a sent message lies in the user's Sent mailbox once: the provider's copy if it files one, else ours.
//!
//! Providers differ and none says which it is. The account's own session tells of a copy that the provider filed; only when
//! it has met none for a while a look is taken, and a copy appended. Running this twice is harmless: the second time finds
//! what the first one left. Not here: what a session of the account does with mail it meets (`flow::sync`).

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite};

use super::way_out::{Access, WAIT, WAIT_MAX, account_access, crowded, rest_over, tell_workers};
use crate::{
    account::{self, ImapClient, Purpose, Trouble, judge},
    core::{
        account::{MailboxUid, era},
        ids::{AccountId, MessageKey, WorkspaceId},
        message::{Sighting, SightingRow, StoredMessage},
        provider::{Octets, Provider},
        retry,
        submission::SentCopy,
    },
    failpoint,
    flow::{FlowError, Gateway, jitter, limits::copies_rest_until, login, now, signed},
    imap::{self, Append, Chosen, Criterion, Flag, MailboxName},
    queue::{Leased, Settlement},
    store::{AccountAccess, Tx},
};

/// Fields under which providers keep the Message-ID that they replaced.
const ORIGINAL_ID_FIELDS: [&str; 2] = ["X-Microsoft-Original-Message-ID", "X-Google-Original-Message-ID"];

/// A copy that was filed cannot have been received longer before the message was sent, whatever the time zones say.
const CLOCKS: SignedDuration = SignedDuration::from_hours(48);

/// Tries of one copy before it is given up, about a day: the message was sent, only its copy is missing.
const TRIES_MAX: u32 = 12;

/// Looks for the copy of a provider that files one, about an hour long: it may be late. Only then one is appended, for some
/// have let their users turn it off.
const LATE_TRIES: u32 = 5;

/// Looks for the copy, and appends one when the provider has filed none.
///
/// # Errors
/// Those of the store.
pub async fn save_sent(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    account: AccountId,
) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    if matches!(submission.sent_copy, SentCopy::Filed | SentCopy::Appended) {
        return Err(FlowError::Obsolete);
    }
    let login = match account_access(&mut session, account).await? {
        Access::Open(login) => login,
        Access::Rests(until) => return put_off(gateway, job, until).await,
        Access::Closed(state) if state.is_gone() => return Err(FlowError::Obsolete),
        Access::Closed(_) => return put_off(gateway, job, now() + WAIT).await,
    };
    let Some(row) = session.account(account).await? else { return Err(FlowError::Obsolete) };
    if let Some(until) = copies_rest_until(&mut session, &row, now()).await? {
        return put_off(gateway, job, until).await;
    }
    let provider = row.provider();
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let (began, bytes) = (now(), raw.len() as u64);
    let missing = Missing::of(provider, tries(job));
    match look_or_append(gateway, job, &login, (account, &stored, raw, missing)).await? {
        Ok(Came::Late) => {
            let until = now() + signed(retry::submission(tries(job), jitter()));
            settle(gateway, job, Settlement::TriedUntil(until)).await
        }
        Ok(Came::Is(at, copy)) => {
            let mut tx = gateway.store.begin(job.workspace).await?;
            note(&mut tx, message, at, copy).await?;
            if copy == SentCopy::Appended && provider.traffic.is_some() {
                tx.count_account_octets(account, Octets::at(now(), (0, bytes))).await?;
            }
            tx.settle(job, Settlement::Done).await?;
            tx.commit().await?;
            Ok(())
        }
        Err(Trouble::Crowded) => put_off(gateway, job, crowded(job)).await,
        Err(trouble) => fail(gateway, job, account, (began, &trouble)).await,
    }
}

/// Looks, this one with them. That an account rests, or no session is to be had, was none.
fn tries(job: &Leased) -> u32 {
    job.tries.saturating_add(1)
}

/// What follows when no copy is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Append,
    /// It is looked for once more.
    Wait,
    /// The provider has filed it under an id that we do not know: the account's session may tell which.
    Believe,
}

impl Missing {
    /// One copy too many is worse than a late one.
    fn of(provider: &Provider, tries: u32) -> Self {
        match provider.sent_is_filed {
            Some(true) if tries <= LATE_TRIES => Self::Wait,
            Some(true) if provider.rewrites_message_id => Self::Believe,
            _ => Self::Append,
        }
    }
}

/// What became of a copy.
enum Came {
    Is(Option<MailboxUid>, SentCopy),
    Late,
}

async fn put_off(gateway: &Gateway, job: &Leased, until: Timestamp) -> Result<(), FlowError> {
    let is_over = now().duration_since(job.created_at) >= WAIT_MAX;
    if is_over {
        tracing::warn!(
            job = job.id,
            "a sent message has no copy in Sent: its account could not be logged in to"
        );
    }
    settle(gateway, job, if is_over { Settlement::Done } else { Settlement::RetryAt(until) }).await
}

async fn settle(gateway: &Gateway, job: &Leased, settlement: Settlement) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

/// What failed for one copy would fail for those that wait behind it.
async fn fail(
    gateway: &Gateway,
    job: &Leased,
    account: AccountId,
    (began, trouble): (Timestamp, &Trouble),
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    let usual = now() + signed(retry::submission(tries(job), jitter()));
    let (until, is_refused) = rest_over(&mut tx, job, account, (began, trouble), usual).await?;
    let is_over = tries(job) >= TRIES_MAX;
    if is_over {
        tracing::warn!(%account, job = job.id, "a sent message has no copy in Sent: it could not be looked for or appended");
    }
    let settlement = if is_over { Settlement::Done } else { Settlement::TriedUntil(until) };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    if is_refused {
        tell_workers(gateway, account);
    }
    Ok(())
}

async fn note(
    tx: &mut Tx,
    message: MessageKey,
    at: Option<MailboxUid>,
    copy: SentCopy,
) -> Result<(), FlowError> {
    // Of an account that is being erased no trace is added any more.
    let found = match at {
        Some(at) => {
            tx.account_to_change(at.account).await?.filter(|a| !a.status.state.is_erased()).map(|_| at)
        }
        None => None,
    };
    if let Some(at) = found {
        tx.add_sighting(message, &SightingRow { sighting: Sighting::Account(at), at: now() }).await?;
    }
    tx.set_sent_copy(message, copy).await?;
    Ok(())
}

/// A copy of a sent message that a search has found.
pub(super) struct Found {
    at: MailboxUid,
    /// By an id that the provider replaced: the copy bears another one, which answers will name.
    is_renamed: bool,
}

/// Where a message lies in the mailboxes that sent mail is filed in, or `None`.
///
/// # Errors
/// Those of the store; the inner error is the provider's.
pub(super) async fn find(
    gateway: &Gateway,
    (workspace, access): (WorkspaceId, &AccountAccess),
    (account, stored): (AccountId, &StoredMessage),
) -> Result<Result<Option<Found>, Trouble>, FlowError> {
    let opened = login::open_imap(gateway, (workspace, account), access, Purpose::Errand).await?;
    let found = async {
        let (client, _place) = opened?;
        let (mut client, chosen) = chosen(client, access.settings.provider()).await?;
        let found = search(&mut client, &chosen, ((account, access.generation), stored)).await?;
        client.logout().await;
        Ok(found)
    };
    Ok(found.await)
}

/// The inner error is the provider's. Another worker that has the job by now is left the appending.
async fn look_or_append(
    gateway: &Gateway,
    job: &Leased,
    access: &AccountAccess,
    (account, stored, raw, missing): (AccountId, &StoredMessage, Bytes, Missing),
) -> Result<Result<Came, Trouble>, FlowError> {
    let opened = login::open_imap(gateway, (job.workspace, account), access, Purpose::Errand).await?;
    let (client, _place) = match opened {
        Ok(opened) => opened,
        Err(trouble) => return Ok(Err(trouble)),
    };
    let found = async {
        let (mut client, chosen) = chosen(client, access.settings.provider()).await?;
        let found = search(&mut client, &chosen, ((account, access.generation), stored)).await?;
        Ok::<_, Trouble>((client, chosen, found))
    };
    let (mut client, chosen) = match found.await {
        Ok((client, _, Some(copy))) => {
            client.logout().await;
            // Of a copy that has got another id no place is noted: the account's session is to meet it, and to learn the id.
            let at = (!copy.is_renamed).then_some(copy.at);
            return Ok(Ok(Came::Is(at, SentCopy::Filed)));
        }
        Ok((client, chosen, None)) => (client, chosen),
        Err(trouble) => return Ok(Err(trouble)),
    };
    match missing {
        Missing::Append => {}
        Missing::Wait | Missing::Believe => {
            client.logout().await;
            let is_late = missing == Missing::Wait;
            return Ok(Ok(if is_late { Came::Late } else { Came::Is(None, SentCopy::Filed) }));
        }
    }
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    tx.commit().await?;
    let Some(sent) = chosen.sent.or(chosen.all) else { return Ok(Err(Trouble::NoSentMailbox)) };
    let copy =
        Append { mailbox: &sent, flags: &[Flag::Seen], internal_date: Some(stored.sent_at), message: raw };
    let appended = match client.append(copy).await {
        Ok(appended) => appended,
        Err(error) => return Ok(Err(error.into())),
    };
    failpoint::reach("copy.appended", "");
    client.logout().await;
    let whose = (account, access.generation);
    let at = appended.map(|at| place(whose, &sent, (at.uid_validity.get(), at.uid)));
    Ok(Ok(Came::Is(at, SentCopy::Appended)))
}

async fn chosen(mut client: ImapClient, provider: &Provider) -> Result<(ImapClient, Chosen), Trouble> {
    let chosen = account::choose(&client.list().await?, provider);
    if chosen.sent.is_none() && chosen.all.is_none() {
        return Err(Trouble::NoSentMailbox);
    }
    Ok((client, chosen))
}

/// Every mailbox that sent mail may lie in.
fn searched(chosen: &Chosen) -> impl Iterator<Item = &MailboxName> {
    chosen.sent.iter().chain(&chosen.other_sent).chain(&chosen.all)
}

async fn search<S>(
    client: &mut imap::Client<S>,
    chosen: &Chosen,
    (whose, stored): ((AccountId, u32), &StoredMessage),
) -> Result<Option<Found>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    for mailbox in searched(chosen) {
        let selected = match client.examine(mailbox, None).await {
            // Gone since it was listed, or closed to us: the others still count.
            Err(error) if error.connection_lives() && judge(&error) == imap::Kind::Refused => continue,
            selected => selected?,
        };
        let validity = selected.uid_validity.map_or(0, imap::UidValidity::get);
        if let Some((uid, is_renamed)) = search_one(client, stored).await? {
            return Ok(Some(Found { at: place(whose, mailbox, (validity, uid)), is_renamed }));
        }
    }
    Ok(None)
}

/// By the id we gave, wherever the provider may have put it. True when that is where it keeps ids that it replaced.
async fn search_one<S>(
    client: &mut imap::Client<S>,
    stored: &StoredMessage,
) -> Result<Option<(imap::Uid, bool)>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(id) = &stored.rfc822_id else { return Ok(None) };
    let since = jiff::tz::Offset::UTC.to_datetime(stored.received_at - CLOCKS).date();
    let originals = ORIGINAL_ID_FIELDS.map(|field| Criterion::OriginalId { field, id, since });
    for criterion in [Criterion::MessageId(id)].into_iter().chain(originals) {
        let is_renamed = matches!(criterion, Criterion::OriginalId { .. });
        let found = client.uid_search(criterion).await?;
        if let Some(uid) = found.last() {
            return Ok(Some((uid, is_renamed)));
        }
    }
    Ok(None)
}

/// A place in a mailbox of an account, which was logged in to in this generation of it.
fn place(
    (account, generation): (AccountId, u32),
    mailbox: &MailboxName,
    (uid_validity, uid): (u32, imap::Uid),
) -> MailboxUid {
    let uid_validity = era(generation, uid_validity);
    MailboxUid { account, mailbox: mailbox.as_bytes().to_vec(), uid_validity, uid: uid.get() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_looked_for_wherever_sent_mail_may_lie() {
        let name = |text| MailboxName::from_display(text).unwrap();
        let chosen = Chosen {
            sent: Some(name("Sent")),
            other_sent: vec![name("Sent Items")],
            all: Some(name("All Mail")),
            ..imap::choose(&[], &[])
        };
        let searched: Vec<_> = searched(&chosen).map(MailboxName::display).collect();
        assert_eq!(searched, ["Sent", "Sent Items", "All Mail"]);
    }

    #[test]
    fn a_provider_that_files_copies_is_given_time_and_never_a_second_one() {
        let missing = |name, attempt| Missing::of(Provider::named(name).unwrap(), attempt);
        for (name, first, last) in [
            ("imap", Missing::Append, Missing::Append),
            ("fastmail", Missing::Append, Missing::Append),
            ("zoho", Missing::Append, Missing::Append),
            ("google", Missing::Wait, Missing::Append),
            ("microsoft", Missing::Wait, Missing::Believe),
        ] {
            assert_eq!((missing(name, 1), missing(name, LATE_TRIES + 1)), (first, last), "{name}");
        }
    }
}
