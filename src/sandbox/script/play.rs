//! Plays a script at a provider that runs: each chain of steps by itself, and tells of every step.
//!
//! Not here: reading scripts (`read`), and where what is told goes.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Script,
    step::{Deed, Mail, Start, Step, Which},
};
use crate::{
    mail::Address,
    sandbox::{Act, FlagChange, Provider, SandboxError},
};

type Result<T> = std::result::Result<T, SandboxError>;

/// Does every step of the script when it is its turn, and returns after the last. `tell` gets a line for each. Cancelling it
/// leaves the provider as it is then.
pub async fn play(script: &Script, provider: &Provider, tell: &(dyn Fn(String) + Sync)) {
    let began = Instant::now();
    let chains = script.chains.iter().map(|chain| async move {
        for step in chain {
            await_turn(step, provider, began).await;
            for turn in 0..step.times {
                if turn > 0 {
                    sleep(step.every).await;
                }
                match done(&step.deed, provider) {
                    Ok(what) => tell(what),
                    Err(error) => tell(format!("line {}: not done: {error}", step.line)),
                }
            }
        }
    });
    join_all(chains).await;
}

async fn await_turn(step: &Step, provider: &Provider, began: Instant) {
    match &step.start {
        Start::At(wait) => sleep_until(began + *wait).await,
        Start::After(wait) => sleep(*wait).await,
        Start::When(trigger, count) => {
            let watch = provider.watch(trigger.clone());
            provider.wait(|provider| provider.heard(watch) >= *count).await;
        }
    }
}

/// Does it, and says what was done.
fn done(deed: &Deed, provider: &Provider) -> Result<String> {
    Ok(match deed {
        Deed::Deliver { user, mailbox, mail } => {
            let (raw, subject) = written(mail, user);
            let uid = provider.append(user, mailbox, &raw, &[])?;
            format!("{user}: {subject} arrives in {mailbox} (UID {uid})")
        }
        Deed::Revoke { user } => {
            provider.revoke(user)?;
            format!("{user}: all tokens are revoked")
        }
        Deed::Expire { user } => {
            provider.expire_tokens(user);
            format!("{user}: access tokens have run out")
        }
        Deed::Throttle { user, long } => {
            let until = Timestamp::now().saturating_add(*long).unwrap_or(Timestamp::MAX);
            provider.throttle(user, until)?;
            format!("{user}: throttled until {until:.0}")
        }
        Deed::Drop { user, how } => {
            provider.end_sessions(user, *how)?;
            format!("{user}: IMAP sessions end ({how:?})")
        }
        Deed::UidValidity { user, mailbox } => {
            let new = provider.bump_uid_validity(user, mailbox)?;
            format!("{user}: UIDVALIDITY of {mailbox} is {new} now")
        }
        Deed::Arm { trigger, act } => {
            provider.arm(trigger.clone(), act.clone());
            format!("{:?} {}: {}", trigger.service, trigger.verb, foretold(trigger.times, act))
        }
        Deed::OAuth { rotation, lifetime } => {
            provider.change_oauth(*rotation, *lifetime);
            "the authorization server has other rules".to_owned()
        }
        Deed::Say { text } => text.clone(),
        Deed::Move { user, mailbox, message, to } => {
            let count = each(provider, (user, mailbox, message), |at| provider.relocate(user, at, to))?;
            format!("{user}: {count} moved from {mailbox} to {to}")
        }
        Deed::Delete { user, mailbox, message } => {
            let count = each(provider, (user, mailbox, message), |at| provider.expunge(user, at.0, at.1))?;
            format!("{user}: {count} deleted from {mailbox}")
        }
        Deed::Label { user, mailbox, message, add, remove } => {
            let count = each(provider, (user, mailbox, message), |at| {
                provider.label(user, at, (FlagChange::Add, add))?;
                provider.label(user, at, (FlagChange::Remove, remove))
            })?;
            format!("{user}: labels of {count} in {mailbox} changed")
        }
        Deed::Flag { user, mailbox, message, add, remove } => {
            let count = each(provider, (user, mailbox, message), |(mailbox, uid)| {
                provider.flag(user, mailbox, uid, (FlagChange::Add, &words(add)))?;
                provider.flag(user, mailbox, uid, (FlagChange::Remove, &words(remove)))
            })?;
            format!("{user}: flags of {count} in {mailbox} changed")
        }
    })
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn foretold(times: u32, act: &Act) -> String {
    let what = match act {
        Act::Answer(text) => format!("answered {text:?}"),
        Act::Delay(pause) => format!("delayed by {pause:?}"),
        _ => "done, and its answer lost".to_owned(),
    };
    match times {
        u32::MAX => format!("each will be {what}"),
        1 => format!("the next will be {what}"),
        many => format!("the next {many} will be {what}"),
    }
}

/// Does something to the messages that are meant; how many there were.
fn each(
    provider: &Provider,
    (user, mailbox, which): (&Address, &str, &Which),
    deed: impl Fn((&str, u32)) -> Result<()>,
) -> Result<usize> {
    provider.uids(user, mailbox)?;
    let mails = provider.messages(user, mailbox);
    let is_named = |mail: &&crate::sandbox::StoredMail| match which {
        Which::Id(id) => mail.header("Message-ID").is_some_and(|own| own.trim_matches(['<', '>']) == id),
        _ => true,
    };
    let mut uids: Vec<u32> = mails.iter().filter(is_named).map(|mail| mail.uid).collect();
    match which {
        Which::First => uids.truncate(1),
        Which::Last => drop(uids.drain(..uids.len().saturating_sub(1))),
        Which::All | Which::Id(_) => {}
    }
    if uids.is_empty() && *which != Which::All {
        return Err(SandboxError::NoMessage);
    }
    uids.iter().try_for_each(|uid| deed((mailbox, *uid)))?;
    Ok(uids.len())
}

/// The message and what to call it.
fn written(mail: &Mail, user: &Address) -> (Arc<[u8]>, String) {
    let (from, subject, text, message_id, in_reply_to) = match mail {
        Mail::File(raw) => return (Arc::clone(raw), "a file".to_owned()),
        Mail::Made { from, subject, text, message_id, in_reply_to } => {
            (from, subject, text, message_id, in_reply_to)
        }
    };
    let plain = |text: &str| text.replace(['\r', '\n'], " ");
    let now = Timestamp::now();
    let date = now.strftime("%a, %d %b %Y %H:%M:%S +0000");
    let made = format!("{}@script.sandbox.test", now.as_nanosecond());
    let id = message_id.as_deref().map_or(made, |id| plain(id.trim_matches(['<', '>'])));
    let thread = in_reply_to.as_deref().map_or_else(String::new, |id| {
        let id = plain(id.trim_matches(['<', '>']));
        format!("In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n")
    });
    let body = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let raw = format!(
        "From: {}\r\nTo: {user}\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{id}>\r\n{thread}MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n",
        plain(from),
        plain(subject),
    );
    (raw.into_bytes().into(), format!("\"{}\"", plain(subject)))
}
