//! Answers a user who asked what was decided about a mail (docs/flows.md, "Why?").
//!
//! To the user's own address and to no other, marked as automatic (RFC 3834), by the smarthost from the null path, else by
//! the user's own account from himself to himself. That the final dot may have gone out is written before it: what a crash or a
//! lost answer leaves open is not sent again, and what was not sent the ledger tells. Not here: who may ask (`flow::question`).

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    handler::own_message_id,
    order::{Sender, choose_smarthost},
    way_out::{WayOut, crowded, note_unsent, tell_workers, way_out},
};
use crate::{
    account::{Exit as Server, SmtpClient, Trouble},
    core::{
        decision::{Decision, DecisionHash, HashRole, NewDecision},
        explanation,
        ids::AccountId,
        inbound::SendClass,
        job::{Job, Question},
        limits::Budget,
        people::User,
        policy, retry,
    },
    flow::{FlowError, Gateway, ingest::stamp, jitter, limits::Purse, login, now, policy_of, signed, viewer},
    mail::{
        Address, Draft, Envelope, HeaderName, HeaderText, Party, Recipient, ReversePath,
        surgery::prepend_fields,
    },
    queue::{Leased, Settlement},
    smtp::{Outcome, Transmission},
    store::{DecisionFilter, Page, Session},
};

/// Tries of one answer, and how long it waits for an account that rests: whoever waited longer has asked somebody else.
const TRIES_MAX: u32 = 6;
const WAIT_MAX: SignedDuration = SignedDuration::from_hours(6);
/// Decisions in one answer: of the newest mails with a person.
const DECISIONS_MAX: u32 = 10;

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

/// The ways there are now.
#[derive(Default)]
struct Ways {
    open: Vec<Way>,
    /// Until when the user's account is one of them no longer.
    rests_until: Option<Timestamp>,
}

/// What became of a try.
enum Tried {
    Sent,
    /// The server wants none of it, and says so for good.
    Refused,
    /// It will be tried again.
    Later,
    /// There was no session to be had before then: no try at all.
    NotBefore(Timestamp),
    /// It went out, and nobody knows whether it was taken.
    Unknown,
}

/// Composes the answer and sends it.
///
/// # Errors
/// Those of the store.
pub async fn explain(gateway: &Gateway, job: &Leased, question: &Question) -> Result<(), FlowError> {
    if question.is_being_answered {
        // A worker died between the dot and the answer.
        return leave_unanswered(gateway, job, question).await;
    }
    let mut session = gateway.store.read(job.workspace).await?;
    let user = session.user(question.user).await?.ok_or(FlowError::Obsolete)?;
    let viewer = viewer(&mut session, user.id).await?;
    session.see_as(viewer);
    let found = find(&mut session, question).await?;
    let Ways { open: ways, rests_until } = ways(&mut session, gateway, &user).await?;
    drop(session);
    let mut last = rests_until.map_or(Tried::Later, Tried::NotBefore);
    for way in &ways {
        let raw = compose(gateway, job, (question, &user), (&way.from, &found));
        last = attempt(gateway, job, question, (way, &user, &raw)).await?;
        // There are smarthosts that take nothing from the null path.
        if !matches!(last, Tried::Refused) {
            break;
        }
    }
    match last {
        Tried::Sent => settle(gateway, job, Settlement::Done).await,
        Tried::Later => put_off(gateway, job, question).await,
        Tried::NotBefore(until) if now().duration_since(job.created_at) < WAIT_MAX => {
            settle(gateway, job, Settlement::RetryAt(until)).await
        }
        Tried::NotBefore(_) => leave_unanswered(gateway, job, question).await,
        Tried::Refused | Tried::Unknown => leave_unanswered(gateway, job, question).await,
    }
}

async fn attempt(
    gateway: &Gateway,
    job: &Leased,
    question: &Question,
    (way, user, raw): (&Way, &User, &Bytes),
) -> Result<Tried, FlowError> {
    let recipients = vec![Recipient::new(user.email.clone())];
    let envelope = Envelope { recipients, ..Envelope::new(way.reverse_path.clone()) };
    let began = now();
    let trouble = match login::open_submission(gateway, job.workspace, &way.server).await? {
        Ok((client, _place)) => return send(gateway, job, question, (client, &envelope, raw)).await,
        Err(Trouble::Crowded) => return Ok(Tried::NotBefore(crowded(job))),
        Err(trouble) => trouble,
    };
    tracing::info!(job = job.id, code = trouble.code(), "an answer could not be sent yet");
    if let Some(account) = way.account {
        let mut tx = gateway.store.begin(job.workspace).await?;
        let is_refused = note_unsent(&mut tx, account, (began, &trouble)).await?;
        tx.commit().await?;
        if is_refused {
            tell_workers(gateway, account);
        }
    }
    Ok(Tried::Later)
}

/// What was decided about the mail asked about, else about the mail with its people. Of what came to a colleague he is told
/// only what he can see, for it was filed, and policy shows it to him.
async fn find(session: &mut Session, question: &Question) -> Result<Found, FlowError> {
    let told = Some(question.user);
    for (hashes, by_id) in [(&question.ids, true), (&question.addresses, false)] {
        let mut decisions: Vec<Decision> = Vec::new();
        for hash in hashes {
            let filter = match by_id {
                true => DecisionFilter { own_id: Some(*hash), told, ..DecisionFilter::default() },
                false => DecisionFilter { address: Some(*hash), told, ..DecisionFilter::default() },
            };
            let mut some = session.decisions(&Page::new(DECISIONS_MAX, None), &filter).await?;
            some.retain(|one| decisions.iter().all(|known| known.id != one.id));
            decisions.extend(some);
        }
        if !decisions.is_empty() {
            decisions.sort_by_key(|decision| std::cmp::Reverse(decision.at));
            decisions.truncate(DECISIONS_MAX as usize);
            return Ok(Found { by_id, decisions });
        }
    }
    Ok(Found { by_id: true, decisions: Vec::new() })
}

/// The smarthost, if it sends for the reply domain, and the user's account, if it may send and be logged in to now.
async fn ways(session: &mut Session, gateway: &Gateway, user: &User) -> Result<Ways, FlowError> {
    let mut ways = Ways::default();
    let sender = Sender { user: user.id, from: &user.email, class: SendClass::Individual };
    let reply = gateway.settings.ours.reply.as_deref();
    let from = reply.and_then(|domain| Address::from_parts("no-reply", domain).ok());
    if let (Ok(_), Some(from)) = (choose_smarthost(session, gateway, sender).await?, from)
        && let WayOut::Open(server) = way_out(session, None).await?
    {
        ways.open.push(Way { account: None, server, from, reverse_path: ReversePath::Null });
    }
    let Some(account) = session.sending_account(user.id).await? else { return Ok(ways) };
    // It is mail of his account as any other, and counted when it is seen in Sent.
    let budget = Purse::of(session, user.id, now()).await?.send_budget(session, Some(account)).await?;
    if matches!(budget, Budget::Full(_) | Budget::Room(Some(0))) {
        return Ok(ways);
    }
    let server = match way_out(session, Some(account)).await? {
        WayOut::Open(server) => server,
        WayOut::Rests(until) => return Ok(Ways { rests_until: Some(until), ..ways }),
        WayOut::Closed(_) => return Ok(ways),
    };
    // Providers let an account send as itself alone; what bounces comes back to the user.
    let from = server.account_address.clone().unwrap_or_else(|| user.email.clone());
    let reverse_path = ReversePath::Address(from.clone());
    ways.open.push(Way { account: Some(account), server, from, reverse_path });
    Ok(ways)
}

fn compose(
    gateway: &Gateway,
    job: &Leased,
    (question, user): (&Question, &User),
    (from, found): (&Address, &Found),
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

fn text(Found { by_id, decisions }: &Found) -> String {
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
        explanation::tell(decisions)
    )
}

async fn send(
    gateway: &Gateway,
    job: &Leased,
    question: &Question,
    (mut client, envelope, raw): (SmtpClient, &Envelope, &Bytes),
) -> Result<Tried, FlowError> {
    let outcomes = match client.send_data(envelope, raw).await {
        Ok(Transmission::Settled(outcomes)) => outcomes,
        Ok(Transmission::Pending(pending)) => {
            intend(gateway, job, question, true).await?;
            let outcomes = pending.finish().await;
            if matches!(outcomes.first(), Some(Outcome::Deferred(_) | Outcome::Refused(_))) {
                intend(gateway, job, question, false).await?;
            }
            outcomes
        }
        Err(error) => vec![error.outcome()],
    };
    if client.is_usable() {
        client.quit().await;
    }
    Ok(match outcomes.first() {
        Some(Outcome::Accepted { .. }) => Tried::Sent,
        Some(Outcome::Refused(_)) => Tried::Refused,
        Some(Outcome::Deferred(_)) | None => Tried::Later,
        Some(Outcome::Unknown) => Tried::Unknown,
    })
}

/// Writes whether the answer may be on its way. Refused to a worker whose lease has run out: another one sends it.
async fn intend(gateway: &Gateway, job: &Leased, question: &Question, is_it: bool) -> Result<(), FlowError> {
    let question = Question { is_being_answered: is_it, ..question.clone() };
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.rewrite_job(job, &Job::Explain { question }).await?;
    tx.commit().await?;
    Ok(())
}

async fn put_off(gateway: &Gateway, job: &Leased, question: &Question) -> Result<(), FlowError> {
    let tries = job.tries.saturating_add(1);
    if tries >= TRIES_MAX {
        return leave_unanswered(gateway, job, question).await;
    }
    let retry_at = now() + signed(retry::submission(tries, jitter()));
    settle(gateway, job, Settlement::TriedUntil(retry_at)).await
}

/// Ends it, for all to see: the ledger says so of the question.
async fn leave_unanswered(gateway: &Gateway, job: &Leased, question: &Question) -> Result<(), FlowError> {
    tracing::warn!(
        job = job.id,
        "an answer to a user's question was not sent, or nobody knows whether it was"
    );
    let mut tx = gateway.store.begin(job.workspace).await?;
    let key = tx.text_hasher().await?;
    let own = question.message_id.iter();
    let hashes = own.map(|id| DecisionHash { role: HashRole::Id, hash: key.hash(id.as_str()) }).collect();
    let ruling = policy::unanswered_question();
    let user = Some(question.user);
    let decision =
        NewDecision { ruling, via: "capture", message: None, seen_at: None, user, written_at: None, hashes };
    let by = policy_of(&mut tx, Some(question.user)).await?;
    tx.decide(&decision, stamp(&by), now()).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.commit().await?;
    Ok(())
}

async fn settle(gateway: &Gateway, job: &Leased, settlement: Settlement) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, settlement).await?;
    tx.commit().await?;
    Ok(())
}
