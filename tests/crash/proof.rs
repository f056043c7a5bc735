//! What must be true in the end of everything that was acknowledged, seen from outside: by the API and at the provider.
//!
//! Not here: how it came about. The proof is the same after kills, stops and a full disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use mailweave::sandbox::StoredMail;
use serde_json::Value;

use crate::{
    api::Api,
    load::{Accepted, Door, Ledger},
    support::wait_for,
    world::{CONTACTS, World, address, contact},
};

/// How long filing and sending what is left may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(50);
/// Requests at a time.
const AT_ONCE: usize = 8;

/// The journal as far as it was read.
pub struct Journal {
    api: Api,
    pub events: Vec<Value>,
}

impl Journal {
    pub fn of(world: &World) -> Self {
        Self { api: world.api.clone(), events: Vec::new() }
    }

    /// Reads what came since. Each page's cursor holds the number of its last event: there must be no gaps.
    pub async fn read_on(&mut self) {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        loop {
            let after = self.events.last().map(|event| format!("&after={}", event["id"].as_str().unwrap()));
            let path = format!("/workspaces/acme/events?limit=200{}", after.unwrap_or_default());
            let page = self.api.get(&path).await;
            self.events.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { return };
            let cursor = BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap();
            let number = u64::from_be_bytes(cursor[1..].try_into().unwrap());
            assert_eq!(number, self.events.len() as u64, "the journal has a gap before its event {number}");
        }
    }

    /// Reads on until the predicate holds of all events.
    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        loop {
            self.read_on().await;
            if holds(self) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How often a message was announced so.
    pub fn count(&self, kind: &str) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for event in self.events.iter().filter(|event| event["type"] == kind) {
            *counts.entry(event["data"]["message_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }

    /// The events of one kind, for what a failed test says.
    pub fn events_of(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == kind).collect()
    }

    fn check_ids(&self) {
        let ids: HashSet<_> = self.events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), self.events.len(), "ids of events are unique");
    }
}

/// Lost answers after which a submission is held (docs/flows.md, "Submission").
const DOUBTS: usize = 2;

/// Figures for the log.
#[derive(Debug)]
pub struct Figures {
    pub captured: usize,
    pub submitted: usize,
    pub uncertain: usize,
    pub held: usize,
    pub sent_twice: usize,
    pub events: usize,
    pub until_quiet: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} captured, {} submitted ({} uncertain meanwhile, {} held, {} sent twice), {} events, done after {:.1?}",
            self.captured,
            self.submitted,
            self.uncertain,
            self.held,
            self.sent_twice,
            self.events,
            self.until_quiet
        )
    }
}

/// Waits until nothing is left to do, then checks everything.
pub async fn prove(world: &World, ledger: &Ledger) -> Figures {
    let (since, accepted) = (Instant::now(), ledger.accepted());
    let mut journal = Journal::of(world);
    let (captured, submitted): (Vec<_>, Vec<_>) =
        accepted.iter().partition(|accepted| accepted.offer.door == Door::Capture);
    journal
        .until("every captured message to be announced", |journal| {
            let announced = journal.count("message.captured");
            captured.iter().all(|accepted| announced.contains_key(&accepted.key))
        })
        .await;
    let until_captured = since.elapsed();
    // What was cut off twice between the dot and its answer is not sent a third time by itself: it is held, and told.
    journal
        .until("every submission to be announced as sent or held", |journal| {
            let (sent, held) = (journal.count("message.sent"), journal.count("message.held"));
            submitted
                .iter()
                .all(|accepted| sent.contains_key(&accepted.key) || held.contains_key(&accepted.key))
        })
        .await;
    let (all, held) = (submitted, journal.count("message.held"));
    let (held, submitted): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|accepted| held.contains_key(&accepted.key));
    let until_sent = since.elapsed();
    let messages = messages(world, &accepted).await;
    // A copy in Sent is the last that happens to a submission.
    await_sent_copies(world, (&submitted, &held), &messages);
    let until_quiet = since.elapsed();
    println!("captured after {until_captured:.1?}, sent after {until_sent:.1?}, all after {until_quiet:.1?}");
    journal.read_on().await;
    journal.check_ids();
    once_each(&journal, "message.captured", &captured);
    once_each(&journal, "message.sent", &submitted);
    assert_eq!(journal.count("message.bounced"), HashMap::new());
    once_each(&journal, "message.held", &held);
    conversations(&accepted, &messages);
    raw_bytes(world, &accepted).await;
    let uncertain = journal.count("message.uncertain");
    for accepted in &held {
        assert!(uncertain.get(&accepted.key) >= Some(&DOUBTS), "held without two doubts: {accepted:?}");
    }
    let sent_twice = provider(world, (&submitted, &held), &messages, &uncertain);
    Figures {
        captured: captured.len(),
        submitted: all.len(),
        held: held.len(),
        uncertain: uncertain.len(),
        sent_twice,
        events: journal.events.len(),
        until_quiet,
    }
}

fn once_each(journal: &Journal, kind: &str, accepted: &[&Accepted]) {
    let counts = journal.count(kind);
    for accepted in accepted {
        assert_eq!(counts.get(&accepted.key), Some(&1), "{kind} of {accepted:?}");
    }
    assert_eq!(counts.len(), accepted.len(), "{kind} tells of nothing else");
}

/// Everything stored: each acknowledged message once, by key and by Message-ID, and nothing else.
async fn messages(world: &World, accepted: &[Accepted]) -> HashMap<String, Value> {
    let (mut by_key, mut by_id) = (HashMap::new(), HashMap::new());
    for message in world.api.messages().await {
        let (key, id) = (text(&message, "id"), text(&message, "rfc822_message_id"));
        let other = by_id.insert(id.clone(), key.clone());
        assert_eq!(other, None, "{id} is stored twice");
        by_key.insert(key, message);
    }
    for accepted in accepted {
        let message = by_key.get(&accepted.key).unwrap_or_else(|| panic!("lost: {accepted:?}"));
        assert_eq!(message["subject"], accepted.offer.subject);
        if let Some(id) = &accepted.offer.message_id {
            assert_eq!(text(message, "rfc822_message_id").trim_matches(['<', '>']), id);
        }
        if accepted.offer.door != Door::Capture {
            let state = text(&message["delivery"], "state");
            assert!(["sent", "held"].contains(&state.as_str()), "{message}");
        }
    }
    assert_eq!(by_key.len(), accepted.len(), "nothing is stored but what was acknowledged");
    by_key
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// A group of messages that answer one another is one conversation, and nothing else is in it.
fn conversations(accepted: &[Accepted], messages: &HashMap<String, Value>) {
    let mut conversation_of = HashMap::new();
    let mut group_of = HashMap::new();
    for Accepted { offer, key, .. } in accepted {
        let conversation = text(&messages[key], "conversation_id");
        let first = conversation_of.entry(&offer.group).or_insert_with(|| conversation.clone());
        assert_eq!(*first, conversation, "group {} is divided", offer.group);
        assert_eq!(*group_of.entry(conversation).or_insert(&offer.group), &offer.group, "groups are mixed");
    }
}

/// What is stored is what was sent: our trace field, then the very bytes.
async fn raw_bytes(world: &World, accepted: &[Accepted]) {
    let sent = accepted.iter().filter(|accepted| accepted.offer.door != Door::Api);
    let compared = stream::iter(sent).map(|accepted| async move {
        let stored = world.api.raw(&accepted.key).await.expect("it was listed");
        let trace = stored.strip_suffix(accepted.offer.raw.as_slice());
        let trace = trace.unwrap_or_else(|| panic!("other bytes are stored of {}", accepted.key));
        let trace = std::str::from_utf8(trace).unwrap();
        let fields = trace.lines().filter(|line| !line.starts_with([' ', '\t'])).count();
        assert!(trace.starts_with("Received: ") && fields == 1, "{trace}");
    });
    compared.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// How often each Message-ID lies in a mailbox.
fn counts(mails: &[StoredMail]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for mail in mails {
        let id = mail.header("message-id").expect("every message has one");
        *counts.entry(id.trim().trim_matches(['<', '>']).to_owned()).or_default() += 1;
    }
    counts
}

fn message_id(messages: &HashMap<String, Value>, accepted: &Accepted) -> String {
    text(&messages[&accepted.key], "rfc822_message_id").trim_matches(['<', '>']).to_owned()
}

/// Each submission lies in its author's Sent mailbox, once, whoever filed it.
fn await_sent_copies(
    world: &World,
    (submitted, held): (&[&Accepted], &[&Accepted]),
    messages: &HashMap<String, Value>,
) {
    // A provider that files copies has one of what it took before anybody knew.
    let held: HashSet<_> = held.iter().map(|accepted| message_id(messages, accepted)).collect();
    for user in &world.users {
        let own = || submitted.iter().filter(|accepted| accepted.offer.user.email == user.email);
        let sent = || {
            let mut sent = counts(&world.provider().messages(&address(&user.email), "Sent"));
            sent.retain(|id, _| !held.contains(id));
            sent
        };
        wait_for("a copy of each submission in Sent", PATIENCE, || sent().len() >= own().count());
        let sent = sent();
        for accepted in own() {
            let id = message_id(messages, accepted);
            assert_eq!(sent.get(&id), Some(&1), "{id} in Sent of {}", user.email);
        }
        assert_eq!(sent.len(), own().count(), "nothing else is in Sent of {}", user.email);
    }
}

/// Each recipient got each submission once. Only where nobody could find out whether it had been sent may there be
/// two, and then the submission was shown as uncertain. Returns how many there are.
fn provider(
    world: &World,
    (submitted, held): (&[&Accepted], &[&Accepted]),
    messages: &HashMap<String, Value>,
    uncertain: &HashMap<String, usize>,
) -> usize {
    let mut inboxes: BTreeMap<_, _> = (0..CONTACTS)
        .map(contact)
        .map(|contact| (contact.clone(), counts(&world.provider().inbox(&address(&contact)))))
        .collect();
    for accepted in held {
        let id = message_id(messages, accepted);
        for recipient in &accepted.offer.to {
            let got = inboxes.get_mut(recipient).unwrap().remove(&id).unwrap_or(0);
            assert!(got <= DOUBTS, "{recipient} got {id} {got} times");
        }
    }
    let mut sent_twice = 0;
    for accepted in submitted {
        let id = message_id(messages, accepted);
        for recipient in &accepted.offer.to {
            let got = inboxes.get_mut(recipient).unwrap().remove(&id).unwrap_or(0);
            let findable = accepted.offer.user.provider_files;
            let in_doubt = uncertain.contains_key(&accepted.key) && !findable;
            assert!(got == 1 || (got > 1 && in_doubt), "{recipient} got {id} {got} times");
            sent_twice += usize::from(got > 1);
        }
    }
    let strange: Vec<_> = inboxes.values().flat_map(BTreeMap::keys).collect();
    assert!(strange.is_empty(), "somebody got what nobody was promised: {strange:?}");
    sent_twice
}
