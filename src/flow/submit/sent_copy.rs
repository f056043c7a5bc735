//! Sees to it that a sent message lies in the user's Sent mailbox once: the provider's copy if it files one, else ours.
//!
//! Providers differ and none says which it is, so Sent is searched for the Message-ID for a while before anything is
//! appended. Running this twice is harmless: the second time finds what the first one left.

use jiff::SignedDuration;

use crate::{
    account::Trouble,
    core::{
        account::MailboxUid,
        ids::{AccountId, MessageKey, WorkspaceId},
        message::{Sighting, SightingRow, StoredMessage},
        submission::SentCopy,
    },
    flow::{FlowError, Gateway, now},
    imap::{Append, Criterion, Flag, MailboxName},
    queue::{Leased, Settlement},
    store::AccountAccess,
};

/// Fields under which providers keep the Message-ID that they replaced.
const ORIGINAL_ID_FIELDS: [&str; 2] = ["X-Microsoft-Original-Message-ID", "X-Google-Original-Message-ID"];

/// Tries of one copy before it is given up: the message was sent, only its copy is missing.
const TRIES_MAX: u32 = 12;

/// Where the copy was found or put.
enum Copied {
    Filed(MailboxUid),
    Appended(Option<MailboxUid>),
    NotYet,
}

/// Looks for the copy, and appends one when the provider had time enough and filed none.
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
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let waited = now().duration_since(job.created_at) >= signed(gateway.settings.sent_copy_wait);
    let copied = look_or_append(gateway, (job.workspace, account), &stored, waited.then_some(&raw)).await?;
    let mut tx = gateway.store.begin(job.workspace).await?;
    let settlement = match copied {
        Ok(Copied::Filed(at)) => {
            note(&mut tx, message, Some(at), SentCopy::Filed).await?;
            Settlement::Done
        }
        Ok(Copied::Appended(at)) => {
            note(&mut tx, message, at, SentCopy::Appended).await?;
            Settlement::Done
        }
        Ok(Copied::NotYet) => Settlement::RetryAt(now() + pause(job.attempt)),
        Err(trouble) if job.attempt >= TRIES_MAX => {
            tx.log_account_error(account, &trouble.entry(now())).await?;
            Settlement::Done
        }
        Err(_) => Settlement::RetryAt(now() + SignedDuration::from_secs(60)),
    };
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}

/// Soon at first, because most providers file at once, then at longer intervals.
fn pause(attempt: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(attempt.clamp(1, 8)))
}

async fn note(
    tx: &mut crate::store::Tx,
    message: MessageKey,
    at: Option<MailboxUid>,
    copy: SentCopy,
) -> Result<(), FlowError> {
    if let Some(at) = at {
        tx.add_sighting(message, &SightingRow { sighting: Sighting::Account(at), at: now() }).await?;
    }
    tx.set_sent_copy(message, copy).await?;
    Ok(())
}

/// Where a message lies in Sent, or `None`. The inner error is the provider's.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn find(
    gateway: &Gateway,
    workspace: WorkspaceId,
    account: AccountId,
    stored: &StoredMessage,
) -> Result<Result<Option<MailboxUid>, Trouble>, FlowError> {
    let found = look_or_append(gateway, (workspace, account), stored, None).await?;
    Ok(found.map(|copied| match copied {
        Copied::Filed(at) => Some(at),
        Copied::Appended(_) | Copied::NotYet => None,
    }))
}

async fn look_or_append(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    stored: &StoredMessage,
    raw: Option<&bytes::Bytes>,
) -> Result<Result<Copied, Trouble>, FlowError> {
    let login =
        gateway.store.read(workspace).await?.account_access(account).await?.ok_or(FlowError::Obsolete)?;
    Ok(work(gateway, account, &login, (stored, raw)).await)
}

async fn work(
    gateway: &Gateway,
    account: AccountId,
    login: &AccountAccess,
    (stored, raw): (&StoredMessage, Option<&bytes::Bytes>),
) -> Result<Copied, Trouble> {
    let mut client = gateway.dialer.open_imap(login).await?;
    let mailboxes = client.list().await?;
    let chosen = crate::imap::choose(&mailboxes);
    let sent = chosen.sent.or(chosen.all).ok_or(Trouble::NoSentMailbox)?;
    let selected = client.select(&sent, None).await?;
    let place = |uid: crate::imap::Uid, validity: u32| MailboxUid {
        account,
        mailbox: sent.as_bytes().to_vec(),
        uid_validity: validity,
        uid: uid.get(),
    };
    let validity = selected.uid_validity.map_or(0, crate::imap::UidValidity::get);
    if let Some(uid) = search(&mut client, stored).await? {
        client.logout().await;
        return Ok(Copied::Filed(place(uid, validity)));
    }
    let Some(raw) = raw else {
        client.logout().await;
        return Ok(Copied::NotYet);
    };
    let appended = client.append(append(&sent, stored, raw)).await?;
    client.logout().await;
    Ok(Copied::Appended(appended.map(|at| place(at.uid, at.uid_validity.get()))))
}

fn append<'a>(sent: &'a MailboxName, stored: &StoredMessage, raw: &'a bytes::Bytes) -> Append<'a> {
    Append { mailbox: sent, flags: &[Flag::Seen], internal_date: Some(stored.sent_at), message: raw.clone() }
}

/// By the id we gave, wherever the provider may have put it.
async fn search<S>(
    client: &mut crate::imap::Client<S>,
    stored: &StoredMessage,
) -> Result<Option<crate::imap::Uid>, Trouble>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let Some(id) = &stored.rfc822_id else { return Ok(None) };
    let originals = ORIGINAL_ID_FIELDS.map(|field| Criterion::OriginalId { field, id });
    for criterion in [Criterion::MessageId(id)].into_iter().chain(originals) {
        let found = client.uid_search(criterion).await?;
        if let Some(uid) = found.last() {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

fn signed(wait: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}
