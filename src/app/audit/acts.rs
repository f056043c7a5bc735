//! What was done, judged again: whom mail went to, how senders were weighed, what the CRM's own keys stand for.
//!
//! Not here: what SQL alone can say of it, which the store's own rules do.

use std::collections::HashSet;

use super::Report;
use crate::{
    core::{
        evidence::{self, Context},
        ids::{MessageKey, UserId},
        inbound::{Door, Principal},
        message::Parties,
    },
    mail::Address,
    store::{CameIn, Error, KeptRow, SentTo, Session, WeighedSender},
};

/// The route of the API by which mail is handed in.
const SEND_ROUTE: &str = "POST messages";

pub(super) async fn look(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    recipients(session, report).await?;
    senders(session, report).await?;
    orders(session, report).await?;
    answers(session, report).await
}

/// Whom a message goes to stands on it by the word of who handed it in. What is passed on goes to users, and to those for whom
/// a reply address was made: never to whoever a stranger copied.
async fn recipients(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let (mut after, mut people) = (None, OnMessage::default());
    loop {
        let page = session.sent_to(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.place());
        for sent in &page {
            if !is_due(session, sent, &mut people).await? {
                report.found("recipients", sent.message);
            }
        }
    }
}

/// Who is on the message looked at last: recipients come message by message.
#[derive(Default)]
struct OnMessage {
    message: Option<MessageKey>,
    parties: Option<Parties>,
}

impl OnMessage {
    async fn names(&mut self, session: &mut Session, sent: &SentTo, who: &Address) -> Result<bool, Error> {
        if self.message != Some(sent.message) {
            let stored = session.message(sent.message).await?;
            *self = Self { message: Some(sent.message), parties: stored.map(|stored| stored.parties) };
        }
        Ok(self.parties.as_ref().is_some_and(|parties| parties.addresses().any(|named| named == who)))
    }
}

async fn is_due(session: &mut Session, sent: &SentTo, people: &mut OnMessage) -> Result<bool, Error> {
    let (Ok(who), Some(principal)) = (Address::parse(&sent.recipient), sent.principal) else {
        return Ok(false);
    };
    let passed_on_for = match principal {
        Principal::Participant(user) => Some(user),
        Principal::Key(_) | Principal::Admin => None,
    };
    if passed_on_for.is_none() && people.names(session, sent, &who).await? {
        return Ok(true);
    }
    if is_ours(session, &who).await? || session.stands_behind_reply_address(&who).await? {
        return Ok(true);
    }
    match passed_on_for {
        None => Ok(false),
        // With a user go his addresses, and the reply addresses that were made for him.
        Some(user) if session.user(user).await?.is_none() => Ok(true),
        // Handed in by the CRM as well, and so sent to whom that names.
        Some(_) => Ok(session.was_handed_in(sent.message).await? && people.names(session, sent, &who).await?),
    }
}

async fn is_ours(session: &mut Session, who: &Address) -> Result<bool, Error> {
    let user: Option<UserId> = session.user_by_address(who).await?.map(|user| user.id);
    Ok(user.is_some() || session.was_a_users(who).await?)
}

/// The rule is a pure function of what was stored: it says today what it said then.
async fn senders(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = session.weighed_senders(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.inbound);
        for weighed in page.iter().filter(|weighed| !follows(weighed)) {
            report.found("senders", weighed.inbound);
        }
    }
}

fn follows(weighed: &WeighedSender) -> bool {
    let Some(witness) = &weighed.witness else { return false };
    let context = match weighed.context {
        Some(Some(context)) => context,
        Some(None) => return false,
        None => return weighed.is_released || (weighed.level.is_none() && weighed.rule.is_none()),
    };
    // As it is weighed when it is filed: by then DNS has been waited for.
    let again = evidence::weigh(witness, &context)
        .or_else(|_| evidence::weigh(witness, &Context { has_waited: true, ..context }));
    let Ok(again) = again else { return false };
    let level = serde_json::to_value(again.level).ok();
    weighed.rule.as_deref() == Some(again.rule)
        && weighed.level.as_deref() == level.as_ref().and_then(|level| level.as_str())
}

/// One key of the CRM's is one message, in however many parts it was handed in over SMTP.
async fn orders(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = session.doors(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.inbound);
        for CameIn { inbound, door, message } in &page {
            let Some(Door::Submission { order, .. }) = door else { continue };
            let (Some(key), Some(message)) = (&order.key, message) else { continue };
            // Keys are forgotten after a time.
            if session.ordered_message(key).await?.is_some_and(|ordered| ordered != *message) {
                report.found("once", inbound);
            }
        }
    }
}

/// Every answer that is kept is a success that can be given again, and no two of them are about one message sent.
async fn answers(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let (mut after, mut told) = (None, HashSet::new());
    loop {
        let page = session.kept_answers(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.name.clone());
        for kept in &page {
            let id = || blake3::hash(format!("{} {}", kept.name.route, kept.name.key).as_bytes()).to_hex();
            if !(200..300).contains(&kept.status) || !session.answer_opens(kept).await? {
                report.found("once", format!("the answer to request {}", id()));
                continue;
            }
            if kept.name.route != SEND_ROUTE {
                continue;
            }
            let sent = sent_message(kept);
            let is_one = sent.is_some_and(|message| told.insert(message));
            if !is_one || session.messages_present(sent.as_slice()).await?.is_empty() {
                report.found("once", format!("the answer to request {}", id()));
            }
        }
    }
}

/// The message that an answer to its sender names.
fn sent_message(kept: &KeptRow) -> Option<MessageKey> {
    let answer: serde_json::Value = serde_json::from_str(&kept.body).ok()?;
    answer.get("id")?.as_str()?.parse().ok()
}
