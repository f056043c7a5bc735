//! Erasing a workspace or an account (docs/flows.md, "Erase"): for everybody at once, and then row by row by a job that comes to
//! its end whatever happens on the way.
//!
//! Not here: who may ask for it, and which rows there are (`store`).

use jiff::Timestamp;
use serde_json::Value;

use super::{FlowError, Gateway, now, policy_of};
use crate::{
    core::{
        account::{Account, AccountState, AccountStatus, Receipt},
        event::{self, AccountEvent, Event},
        ids::{AccountId, ContactId, ConversationId, MessageKey, WorkspaceId},
        job::Job,
        trail::Act,
    },
    queue::{Leased, Settlement},
    store::{Error, Session, Trace, Tx},
};

/// How often content that somebody else has too is tried to be read before it is given up with the account's key. By then
/// the job has come back for about a day (`core::retry`): a disk that was away, or files that had to be restored first, are
/// there again.
const UNREADABLE_TRIES: u32 = 12;

/// Ends the workspace of this transaction: nobody gets in, its keys are destroyed, and a job sees to the rest.
///
/// # Errors
/// Those of the store; `Missing` when there is no such workspace.
pub async fn begin(tx: &mut Tx, now: Timestamp) -> Result<(), FlowError> {
    tx.begin_erasure(now).await?;
    tx.enqueue_job(&Job::Erase, now).await?;
    Ok(())
}

/// Erases what is left of a workspace. What fails is done again from where it was.
///
/// # Errors
/// Those of the store.
pub async fn perform(gateway: &Gateway, job: &Leased) -> Result<(), FlowError> {
    gateway.store.erase_rows(job.workspace).await?;
    // Deleted rows stand in SQLite's log until it is emptied, which an open reader prevents: then this job comes again.
    gateway.store.scrub().await?;
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.end_erasure().await?;
    tx.commit().await?;
    Ok(())
}

/// Has an account erased: it is worked no more, and a job removes what it alone has brought. Its login is the caller's to
/// forget.
///
/// # Errors
/// Those of the store; `Missing` when there is no such account.
pub async fn begin_account(tx: &mut Tx, account: &mut Account, now: Timestamp) -> Result<(), FlowError> {
    let was_gone = account.status.state.is_gone();
    account.status = AccountStatus {
        state: AccountState::Erasing,
        since: now,
        detail: None,
        advice: Some("Nothing needs doing: account.erased tells when nothing is left.".into()),
        next_attempt_at: None,
        progress: None,
        ..account.status.clone()
    };
    tx.set_account_status(account.id, &account.status).await?;
    tx.set_receipt(account.id, &Receipt::begun(now)).await?;
    tx.note_act(Act::AccountErased, account.id).await?;
    tx.fence_account(account.id).await?;
    tx.enqueue_job(&Job::EraseAccount { account: account.id }, now).await?;
    if !was_gone {
        let settings = policy_of(tx, Some(account.user_id)).await?.settings;
        let (what, status) = (AccountEvent::Disconnected, settings.labelled(account.status.clone()));
        tx.announce(&Event::Account { what, account: account.id, status }, now).await?;
    }
    Ok(())
}

/// Erases what an account alone has brought, and then what is known of it. What fails is done again from where it was.
///
/// # Errors
/// Those of the store. `Obsolete` when the account is erased already, or is not to be.
pub async fn perform_account(gateway: &Gateway, job: &Leased, account: AccountId) -> Result<(), FlowError> {
    let found = gateway.store.read(job.workspace).await?.account(account).await?;
    if found.is_none_or(|found| found.status.state != AccountState::Erasing) {
        return Err(FlowError::Obsolete);
    }
    let erasing = Erasing { gateway, job, account };
    erasing.mail().await?;
    erasing.decisions().await?;
    erasing.journal().await?;
    erasing.repairs().await?;
    erasing.content().await?;
    erasing.forget().await?;
    // As for a workspace.
    gateway.store.scrub().await?;
    gateway.store.finish_removals(job.workspace).await?;
    erasing.end().await
}

/// An account on its way out.
#[derive(Clone, Copy)]
struct Erasing<'g> {
    gateway: &'g Gateway,
    job: &'g Leased,
    account: AccountId,
}

impl Erasing<'_> {
    fn workspace(&self) -> WorkspaceId {
        self.job.workspace
    }

    /// A transaction in which nobody else changes the account or files mail, and what was removed before it. Whoever has lost
    /// the job to another worker does nothing more: both would count, and each would go by what it read before the other.
    async fn begin(&self) -> Result<(Tx, Receipt), FlowError> {
        let mut tx = self.gateway.store.begin(self.workspace()).await?;
        tx.hold_job(self.job).await?;
        let account = tx.account_to_change(self.account).await?;
        if account.is_none_or(|account| account.status.state != AccountState::Erasing) {
            return Err(FlowError::Obsolete);
        }
        tx.lock_filing().await?;
        let receipt = tx.receipt(self.account).await?.ok_or(FlowError::Obsolete)?;
        Ok((tx, receipt))
    }

    /// The messages it has seen, some at a time: those that nobody else has go.
    async fn mail(&self) -> Result<(), FlowError> {
        loop {
            let mut session = self.gateway.store.read(self.workspace()).await?;
            let messages = session.seen_by(self.account).await?;
            if messages.is_empty() {
                return Ok(());
            }
            let kept = session.kept_under_key_of(self.account, &messages).await?;
            drop(session);
            for trace in kept {
                self.seal_anew(trace).await?;
            }
            let (mut tx, mut receipt) = self.begin().await?;
            tx.erase_seen(self.account, &messages, &mut receipt).await?;
            tx.set_receipt(self.account, &receipt).await?;
            tx.commit().await?;
        }
    }

    /// Seals content that stays under the workspace's key: the account's is to be destroyed. Content that nothing names goes
    /// with the key, and so does what does not open, once it has not for so long that nobody will mend it.
    async fn seal_anew(&self, Trace { blob, message }: Trace) -> Result<(), FlowError> {
        let (store, workspace) = (&self.gateway.store, self.workspace());
        let opened = match message {
            Some(message) => match store.read(workspace).await?.blob(blob).await {
                Ok(raw) => Some((message, raw)),
                Err(error) if error.is_lasting() && self.job.failures >= UNREADABLE_TRIES => {
                    tracing::error!(message = %message, error = %error, "content that others have too does not open and is lost");
                    None
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let sealed = match opened {
            Some((message, raw)) => {
                let key = store.content_key(workspace, None).await?;
                Some((message, store.seal_blob(workspace, key, &raw).await?))
            }
            None => None,
        };
        let mut tx = self.begin().await?.0;
        match sealed {
            Some((message, sealed)) => drop(tx.replace_content(message, blob, sealed).await?),
            None => tx.delete_blob(blob).await?,
        }
        tx.commit().await?;
        Ok(())
    }

    /// Why it took or left what mail, also of what is kept: others have decided on that as well.
    async fn decisions(&self) -> Result<(), FlowError> {
        loop {
            let (mut tx, mut receipt) = self.begin().await?;
            let more = tx.erase_decisions(self.account, &mut receipt).await?;
            tx.set_receipt(self.account, &receipt).await?;
            tx.commit().await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// What the journal tells of what was erased, and whatever is still to be posted of it: ids and states alone stay. What is
    /// gone does not come back, so only the writing needs the others to wait.
    async fn journal(&self) -> Result<(), FlowError> {
        let mut after = 0;
        loop {
            let mut session = self.gateway.store.read(self.workspace()).await?;
            let entries = session.entries_about(self.account, after).await?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            after = *last;
            let redacted = self.redacted(&mut session, entries).await?;
            drop(session);
            if redacted.is_empty() {
                continue;
            }
            let mut tx = self.begin().await?.0;
            for (seq, data) in redacted {
                tx.rewrite_entry(seq, &data).await?;
            }
            tx.commit().await?;
        }
    }

    /// Those of these entries that are to be written anew. Only messages that were erased are gone; a contact may have been
    /// deleted by others, so that its entry counts only if the message is gone that it came with.
    async fn redacted(
        &self,
        session: &mut Session,
        entries: Vec<(i64, Value)>,
    ) -> Result<Vec<(i64, Value)>, Error> {
        let messages: Vec<MessageKey> = named(&entries, "message_id");
        let contacts: Vec<ContactId> = named(&entries, "contact_id");
        let there = session.conversations_of(&messages).await?;
        let known = session.contacts_present(&contacts).await?;
        let mut redacted = Vec::new();
        for (seq, mut data) in entries {
            let message = id_in::<MessageKey>(&data, "message_id");
            let contact = id_in::<ContactId>(&data, "contact_id");
            let is_gone = message.is_some_and(|message| !there.contains_key(&message))
                && contact.is_none_or(|contact| !known.contains(&contact));
            let is_own = id_in::<AccountId>(&data, "account_id") == Some(self.account);
            let erased = match (is_gone, is_own) {
                (true, _) => event::Erased::Subject,
                (false, true) => event::Erased::Account,
                (false, false) => continue,
            };
            let before = data.clone();
            event::redact(&mut data, erased);
            if data != before {
                redacted.push((seq, data));
            }
        }
        Ok(redacted)
    }

    /// Subjects of what was erased in the answers that are kept for who repeats a merge or a split.
    async fn repairs(&self) -> Result<(), FlowError> {
        let mut after = None;
        loop {
            let mut session = self.gateway.store.read(self.workspace()).await?;
            let kept = session.answers_to_repairs(after.as_ref()).await?;
            let Some((last, _)) = kept.last() else { return Ok(()) };
            after = Some(last.clone());
            let conversations: Vec<ConversationId> =
                kept.iter().filter_map(|(_, body)| id_in(body, "id")).collect();
            let subjects = session.subjects_of(&conversations).await?;
            drop(session);
            let mut tx = self.begin().await?.0;
            for (name, mut body) in kept {
                let conversation = id_in::<ConversationId>(&body, "id");
                let subject = conversation.and_then(|id| subjects.get(&id)).cloned().flatten();
                if let Some(told) = body.get_mut("subject")
                    && told.as_str() != subject.as_deref()
                {
                    *told = subject.into();
                    tx.rewrite_answer(&name, &body).await?;
                }
            }
            tx.commit().await?;
        }
    }

    /// What is left under its key, if anything: content of copies that came to nothing.
    async fn content(&self) -> Result<(), FlowError> {
        loop {
            let mut session = self.gateway.store.read(self.workspace()).await?;
            let traces = session.content_under_key_of(self.account).await?;
            drop(session);
            if traces.is_empty() {
                return Ok(());
            }
            for trace in traces {
                self.seal_anew(trace).await?;
            }
        }
    }

    /// Forgets the account itself, and what answers say of it that are kept for who repeats a request: such a repetition is
    /// answered as before, but with nothing in it that was erased.
    async fn forget(&self) -> Result<(), FlowError> {
        let mut tx = self.begin().await?.0;
        tx.forget_account(self.account).await?;
        let left = tx.account(self.account).await?.ok_or(FlowError::Obsolete)?;
        for (name, mut body) in tx.answers_about(self.account).await? {
            redact_answer(&mut body, &left);
            tx.rewrite_answer(&name, &body).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Says what was removed.
    async fn end(&self) -> Result<(), FlowError> {
        let now = now();
        let (mut tx, mut receipt) = self.begin().await?;
        let account = tx.account(self.account).await?.ok_or(FlowError::Obsolete)?;
        receipt.erased_at = Some(now);
        let status = AccountStatus {
            state: AccountState::Erased,
            since: now,
            advice: Some("To use the address again, connect it as a new account.".into()),
            ..account.status
        };
        tx.set_account_status(self.account, &status).await?;
        tx.set_receipt(self.account, &receipt).await?;
        tx.settle(self.job, Settlement::Done).await?;
        let status = policy_of(&mut tx, Some(account.user_id)).await?.settings.labelled(status);
        tx.announce(&Event::AccountErased { account: self.account, status, receipt }, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Leaves of an answer that shows an account what is left of the account.
fn redact_answer(body: &mut Value, left: &Account) {
    let Some(members) = body.as_object_mut() else { return };
    for member in ["email", "sender"] {
        if let Some(address) = members.get_mut(member) {
            *address = left.email.to_string().into();
        }
    }
    if let Some(auth) = members.get_mut("auth").and_then(Value::as_object_mut) {
        auth.retain(|member, _| member == "type");
    }
    for (member, endpoint) in [("imap", &left.settings.imap), ("smtp", &left.settings.smtp)] {
        if let Some(shown) = members.get_mut(member).and_then(Value::as_object_mut) {
            shown.insert("host".into(), endpoint.host.clone().into());
            shown.insert("port".into(), endpoint.port.into());
        }
    }
    if let Some(status) = members.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("detail".into(), Value::Null);
    }
}

fn id_in<T: std::str::FromStr>(data: &Value, member: &str) -> Option<T> {
    data.get(member)?.as_str()?.parse().ok()
}

fn named<T: std::str::FromStr>(entries: &[(i64, Value)], member: &str) -> Vec<T> {
    entries.iter().filter_map(|(_, data)| id_in(data, member)).collect()
}
