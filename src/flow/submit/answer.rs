//! Answers a user who asked what was decided about a mail (docs/flows.md, "Why?").
//!
//! To the user's own address and to no other, marked as automatic (RFC 3834), by the smarthost from the null path, else by
//! the user's own account from himself to himself. A crash between the final dot and its record sends the answer again,
//! under the same Message-ID: it asks nothing of anybody. Not here: who may ask (`flow::question`).

use bytes::Bytes;

use super::{
    handler::own_message_id,
    order::{Sender, choose_smarthost},
    way_out::{WayOut, note_trouble, tell_workers, way_out},
};
use crate::{
    account::{Exit as Server, SmtpClient},
    core::{
        decision::{Decision, HashRole, Verdict},
        explanation,
        ids::AccountId,
        inbound::SendClass,
        job::Question,
        people::User,
        retry,
    },
    flow::{FlowError, Gateway, jitter, now, signed},
    mail::{
        Address, Draft, Envelope, HeaderName, HeaderText, Party, Recipient, ReversePath,
        surgery::prepend_fields,
    },
    queue::{Leased, Settlement},
    smtp::{Outcome, Transmission},
    store::{AccountFilter, DecisionFilter, Page, Session},
};

/// Tries of one answer: whoever waited longer has asked somebody else.
const TRIES_MAX: u32 = 6;
/// Decisions in one answer: of the newest mails with a person.
const DECISIONS_MAX: u32 = 10;
/// Accounts that one user has at most, for this.
const ACCOUNTS_MAX: u32 = 200;

/// What is known, and how it was found.
struct Found {
    by_id: bool,
    decisions: Vec<Decision>,
}

/// Where the answer leaves, and from whom.
struct Way {
    account: Option<AccountId>,
    server: Server,
    from: Address,
    reverse_path: ReversePath,
}

/// Composes the answer and sends it.
///
/// # Errors
/// Those of the store.
pub async fn explain(gateway: &Gateway, job: &Leased, question: &Question) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let user = session.user(question.user).await?.ok_or(FlowError::Obsolete)?;
    let found = find(&mut session, question).await?;
    let Some(way) = way(&mut session, gateway, &user).await? else {
        return put_off(gateway, job).await;
    };
    drop(session);
    let raw = compose(gateway, job, (question, &user), (&way.from, found));
    let recipients = vec![Recipient::new(user.email)];
    let envelope = Envelope { recipients, ..Envelope::new(way.reverse_path) };
    let began = now();
    match gateway.dialer.open_submission(&way.server, &gateway.settings.hostname).await {
        Ok(client) => send(gateway, job, client, (&envelope, &raw)).await,
        Err(trouble) => {
            tracing::info!(job = job.id, code = trouble.code(), "an answer could not be sent yet");
            if let Some(account) = way.account {
                let mut tx = gateway.store.begin(job.workspace).await?;
                let is_refused = note_trouble(&mut tx, account, (began, &trouble)).await?;
                tx.commit().await?;
                if is_refused {
                    tell_workers(gateway, account);
                }
            }
            put_off(gateway, job).await
        }
    }
}

/// What was decided about the mail asked about, else about the mail with its people. Of a colleague's mailbox he is told
/// only what everybody can see, for it was filed.
async fn find(session: &mut Session, question: &Question) -> Result<Found, FlowError> {
    let filter = AccountFilter { user: Some(question.user), ..AccountFilter::default() };
    let accounts = session.accounts(&Page::new(ACCOUNTS_MAX, None), &filter).await?;
    let own: Vec<AccountId> = accounts.into_iter().map(|account| account.id).collect();
    for (hashes, by_id) in [(&question.ids, true), (&question.addresses, false)] {
        let role = by_id.then_some(HashRole::Id);
        let is_his = |decision: &Decision| match decision.account_id {
            _ if decision.verdict == Verdict::Synced => true,
            Some(account) => own.contains(&account),
            // Whoever knows the id has the mail.
            None => by_id,
        };
        let mut decisions: Vec<Decision> = Vec::new();
        for hash in hashes {
            let filter = DecisionFilter { hashes: vec![*hash], role, ..DecisionFilter::default() };
            let some = session.decisions(&Page::new(DECISIONS_MAX, None), &filter).await?;
            let known = |one: &Decision| decisions.iter().any(|other| other.id == one.id);
            let new: Vec<Decision> = some.into_iter().filter(|one| is_his(one) && !known(one)).collect();
            decisions.extend(new);
        }
        if !decisions.is_empty() {
            decisions.sort_by_key(|decision| std::cmp::Reverse(decision.at));
            decisions.truncate(DECISIONS_MAX as usize);
            return Ok(Found { by_id, decisions });
        }
    }
    Ok(Found { by_id: true, decisions: Vec::new() })
}

/// The smarthost, if it sends for the reply domain; else the user's account, if it may be logged in to now.
async fn way(session: &mut Session, gateway: &Gateway, user: &User) -> Result<Option<Way>, FlowError> {
    let sender = Sender { user: user.id, from: &user.email, class: SendClass::Individual };
    let reply = gateway.settings.ours.reply.as_deref();
    let from = reply.and_then(|domain| Address::from_parts("no-reply", domain).ok());
    if let (Ok(_), Some(from)) = (choose_smarthost(session, gateway, sender).await?, from)
        && let WayOut::Open(server) = way_out(session, None).await?
    {
        return Ok(Some(Way { account: None, server, from, reverse_path: ReversePath::Null }));
    }
    let Some(account) = session.sending_account(user.id).await? else { return Ok(None) };
    let WayOut::Open(server) = way_out(session, Some(account)).await? else { return Ok(None) };
    // Providers let an account send as itself alone; what bounces comes back to the user.
    let from = server.account_address.clone().unwrap_or_else(|| user.email.clone());
    let reverse_path = ReversePath::Address(from.clone());
    Ok(Some(Way { account: Some(account), server, from, reverse_path }))
}

fn compose(
    gateway: &Gateway,
    job: &Leased,
    (question, user): (&Question, &User),
    (from, found): (&Address, Found),
) -> Bytes {
    let draft = Draft {
        from: Party::new(from.clone(), Some("Mailweave")),
        to: vec![Party::new(user.email.clone(), user.name.as_deref())],
        cc: Vec::new(),
        subject: "Why? What was decided about the mail you forwarded".to_owned(),
        text: Some(text(found)),
        html: None,
        attachments: Vec::new(),
        message_id: own_message_id(question.id, &gateway.settings.hostname),
        date: job.created_at,
        in_reply_to: question.message_id.clone(),
        references: question.message_id.iter().cloned().collect(),
    };
    let name = HeaderName::parse("Auto-Submitted").expect("letters and a hyphen are fit");
    prepend_fields(&draft.compose().into_bytes(), &[(name, HeaderText::clean("auto-replied"))])
}

fn text(Found { by_id, decisions }: Found) -> String {
    let head = match (decisions.is_empty(), by_id) {
        (true, _) => "This is known about the mail you forwarded:",
        (false, true) => "This was decided about the mail you forwarded, newest first:",
        (false, false) => {
            "Your forward does not name the mail, or the mail was never seen. This was decided about mail with the same \
             people, newest first:"
        }
    };
    format!(
        "{head}\n\n{}\nThis answer was written by a machine; nobody reads what is sent back.\n",
        explanation::tell(&decisions)
    )
}

async fn send(
    gateway: &Gateway,
    job: &Leased,
    mut client: SmtpClient,
    (envelope, raw): (&Envelope, &Bytes),
) -> Result<(), FlowError> {
    let outcomes = match client.send_data(envelope, raw).await {
        Ok(Transmission::Settled(outcomes)) => outcomes,
        Ok(Transmission::Pending(pending)) => {
            // Not by a worker whose lease has run out: another one sends it.
            let mut tx = gateway.store.begin(job.workspace).await?;
            tx.hold_job(job).await?;
            tx.commit().await?;
            pending.finish().await
        }
        Err(error) => vec![error.outcome()],
    };
    if client.is_usable() {
        client.quit().await;
    }
    match outcomes.first() {
        Some(Outcome::Deferred(_)) => return put_off(gateway, job).await,
        Some(Outcome::Refused(_)) => {
            tracing::warn!(
                job = job.id,
                "an answer to a user's question was refused by the server it left by"
            );
        }
        _ => {}
    }
    settle(gateway, job, Settlement::Done).await
}

async fn put_off(gateway: &Gateway, job: &Leased) -> Result<(), FlowError> {
    if job.attempt >= TRIES_MAX {
        tracing::warn!(job = job.id, "an answer to a user's question is given up: nothing takes it");
        return settle(gateway, job, Settlement::Done).await;
    }
    let retry_at = now() + signed(retry::submission(job.attempt, jitter()));
    settle(gateway, job, Settlement::RetryAt(retry_at)).await
}

async fn settle(gateway: &Gateway, job: &Leased, settlement: Settlement) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}
