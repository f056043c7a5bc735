//! Asks DNS what it takes to know who sent a message, within what one message may cost.
//!
//! Not here: what is asked and what follows from it (`core::inquiry`), and how far that is believed (`core::evidence`).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::Timestamp;

pub use crate::core::inquiry::SmtpSession;
use crate::{
    core::{inquiry::Inquiry, sender::SenderFacts},
    mail::authenticity::{Answer, Answers, Question, Record, RecordKind},
    net::{Resolver, ResolverError},
    smtp::client_of,
};

/// Questions that one message may cause; RFC 7208 alone allows ten terms with lookups.
const LOOKUPS_MAX: usize = 20;
/// How long all of them together may take, and one: a name server of the sender's that keeps us waiting must not keep the others'
/// answers back.
const LOOKUPS_TIME: Duration = Duration::from_secs(10);
const LOOKUP_TIME: Duration = Duration::from_secs(3);
/// Senders asked about at a time, a share of the workers that file, and of these for the mail of one client: name servers that keep
/// us waiting keep no other mail from being filed, nor others' senders from being asked about.
const CHECKS_AT_ONCE: usize = 8;
const CHECKS_OF_CLIENT: usize = 3;
/// A message longer than this is hashed beside the other tasks, not between them.
const QUICK_BYTES_MAX: usize = 256 * 1024;
/// Text of one answer that is kept: more than any key or policy has.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Checks senders by DNS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SenderChecker {
    resolver: Arc<Resolver>,
    turns: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The right to ask about one message, given back when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    checker: &'a SenderChecker,
    client: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.checker.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(turns.remove(&self.client)),
        }
    }
}

impl SenderChecker {
    /// Answers are remembered as long as they are good, by the resolver, for all messages.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver: Arc::new(resolver.remembering()), turns: Arc::default() }
    }

    /// The right to ask about a message that a client sent; `None` while enough of its messages, or of all, are asked about.
    #[must_use]
    pub fn turn(&self, peer: IpAddr) -> Option<Turn<'_>> {
        let client = client_of(peer);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = turns.values().sum();
        let own = turns.entry(client).or_default();
        if taken >= CHECKS_AT_ONCE || *own >= CHECKS_OF_CLIENT {
            if *own == 0 {
                turns.remove(&client);
            }
            return None;
        }
        *own += 1;
        drop(turns);
        Some(Turn { checker: self, client })
    }

    /// What can be found of who sent a message. DNS that does not answer makes a check pending, never an error.
    pub async fn check(&self, raw: &[u8], session: &SmtpSession<'_>, now: Timestamp) -> SenderFacts {
        let inquiry = open(raw, session, now).await;
        let (mut answers, mut asked) = (Answers::default(), 0);
        let until = Instant::now() + LOOKUPS_TIME;
        loop {
            if let Some(facts) = inquiry.conclude(&mut answers) {
                return facts;
            }
            let mut wanted = answers.take_wanted();
            let refused = wanted.split_off(wanted.len().min(LOOKUPS_MAX.saturating_sub(asked)));
            asked += wanted.len();
            let found = join_all(wanted.iter().map(|question| self.ask(question, until))).await;
            for (question, answer) in wanted.into_iter().zip(found) {
                answers.learn(question, answer);
            }
            for question in refused {
                answers.learn(question, Answer::Refused);
            }
        }
    }

    async fn ask(&self, question: &Question, until: Instant) -> Answer {
        let until = until.min(Instant::now() + LOOKUP_TIME);
        match tokio::time::timeout_at(until.into(), self.look_up(question)).await {
            Ok(Ok(records)) if records.is_empty() => Answer::Void,
            Ok(Ok(records)) => Answer::Records(records),
            Ok(Err(_)) | Err(_) => Answer::Silent,
        }
    }

    async fn look_up(&self, Question { name, kind }: &Question) -> Result<Vec<Record>, ResolverError> {
        let addresses = |found: Vec<IpAddr>| found.into_iter().map(Record::Address).collect();
        Ok(match kind {
            RecordKind::Txt => {
                let texts = self.resolver.texts(name).await?.into_iter();
                texts.filter(|text| text.len() <= ANSWER_BYTES_MAX).map(Record::Text).collect()
            }
            RecordKind::A => addresses(self.resolver.addresses_of_family(name, false).await?),
            RecordKind::Aaaa => addresses(self.resolver.addresses_of_family(name, true).await?),
            RecordKind::Mx => {
                self.resolver.mail_exchangers(name).await?.into_iter().map(Record::Host).collect()
            }
            RecordKind::Ptr => self.resolver.pointers(name).await?.into_iter().map(Record::Host).collect(),
        })
    }
}

impl Default for SenderChecker {
    /// By the operating system's name servers.
    fn default() -> Self {
        Self::new(Resolver::System)
    }
}

async fn open(raw: &[u8], session: &SmtpSession<'_>, now: Timestamp) -> Inquiry {
    if raw.len() <= QUICK_BYTES_MAX {
        return Inquiry::open(raw, session, now);
    }
    let (copy, peer, hello) = (raw.to_vec(), session.peer, session.hello.to_owned());
    let (reverse_path, our_hostname) = (session.reverse_path.clone(), session.our_hostname.to_owned());
    let hashing = tokio::task::spawn_blocking(move || {
        let session =
            SmtpSession { peer, hello: &hello, reverse_path: &reverse_path, our_hostname: &our_hostname };
        Inquiry::open(&copy, &session, now)
    });
    match hashing.await {
        Ok(inquiry) => inquiry,
        // The runtime is ending: what is found now is stored by nobody.
        Err(_) => Inquiry::open(b"", session, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_turns_to_others() {
        let checker = SenderChecker::default();
        let [many, other]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let own: Vec<_> = std::iter::from_fn(|| checker.turn(many)).collect();
        assert_eq!(own.len(), CHECKS_OF_CLIENT);
        let others = checker.turn(other);
        assert!(others.is_some());
        drop(own);
        let all: Vec<_> =
            (0..100_u8).filter_map(|last| checker.turn(IpAddr::from([198, 51, 100, last]))).collect();
        assert_eq!(all.len(), CHECKS_AT_ONCE - 1);
        drop((all, others));
        assert!(checker.turns.lock().unwrap().is_empty(), "what is given back leaves nothing");
    }
}
