//! Once a conversation is known, answers follow by themselves, from whatever client they are written.
//!
//! Not here: how an account is read (`tests/sync`).

use std::time::{Duration, Instant};

use mailweave::sandbox::{Behaviour, Farewell, Service};
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
    world::{User, World},
};

/// How long after the provider announced a mail the CRM may have to wait for it.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Ann with a connected account and a captured mail to Bob.
struct Thread {
    world: World,
    ann: User,
    bob: Person,
    first: Letter,
    conversation: String,
}

impl Thread {
    fn start(engine: crate::support::store::Engine) -> Self {
        // Polls are rare: what is prompt came by the provider's announcement.
        let world = World::with(engine, |config| config.sync.poll = Duration::from_secs(5));
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let first = Letter::new(&ann.person.address, &[&bob.address]);
        world.client_sends(&ann.person, &[&bob.address, &ann.capture_address], &first);
        let captured = world.crm.await_mail("message.captured", &first.id);
        let conversation = text(&captured["data"], "conversation_id").to_owned();
        Self { world, ann, bob, first, conversation }
    }
}

/// Watches a mailbox as another client of the same user, and tells when the provider announced mail.
fn announced(world: &World, person: &Person) -> std::thread::JoinHandle<Instant> {
    let mut imap = world.dovecot.login(person);
    imap.expect("EXAMINE INBOX");
    std::thread::spawn(move || {
        let mut at = Instant::now();
        wait_for("the provider to announce mail", PATIENCE, || {
            at = Instant::now();
            imap.expect("NOOP").lines.iter().any(|line| line.ends_with("EXISTS"))
        });
        at
    })
}

both! {
    fn a_contacts_answer_is_told_within_a_second_of_its_arrival(engine) {
        let Thread { world, ann, bob, first, conversation } = Thread::start(engine);
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(&first.id);
        let announced = announced(&world, &ann.person);
        world.client_sends(&bob, &[&ann.person.address], &answer);
        let received = world.crm.await_mail("message.received", &answer.id);
        let told = Instant::now();
        let late = told.saturating_duration_since(announced.join().unwrap());
        assert!(late < TOLD_WITHIN, "{late:?}");
        assert_eq!(received["data"]["conversation_id"], conversation.as_str());
        let message = world.crm.get(&format!("/messages/{}", text(&received["data"], "message_id")));
        assert_eq!((text(&message, "direction"), text(&message["author"], "role")), ("inbound", "contact"));

        // A second one, now that everybody is at rest.
        let another = Letter::new(&bob.address, &[&ann.person.address]).answering(&answer.id);
        world.client_sends(&bob, &[&ann.person.address], &another);
        let received = world.crm.await_mail("message.received", &another.id);
        assert_eq!(received["data"]["conversation_id"], conversation.as_str());
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 3);
    }

    fn the_users_answer_from_his_own_client_is_outbound(engine) {
        let Thread { world, ann, bob, first, conversation } = Thread::start(engine);
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(&first.id);
        world.client_sends(&bob, &[&ann.person.address], &answer);
        world.crm.await_mail("message.received", &answer.id);

        // A phone sends by the provider and files what it sent.
        let reply = Letter::new(&ann.person.address, &[&bob.address]).answering(&answer.id);
        world.client_sends(&ann.person, &[&bob.address], &reply);
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &reply.raw());
        let sent = world.crm.await_mail("message.sent", &reply.id);
        assert_eq!(sent["data"]["conversation_id"], conversation.as_str());
        let message = world.crm.get(&format!("/messages/{}", text(&sent["data"], "message_id")));
        assert_eq!((text(&message, "direction"), text(&message["author"], "role")), ("outbound", "user"));
        assert_eq!(message["author"]["id"], ann.id.as_str());
        assert_eq!(message["sightings"][0]["mailbox"], "Sent");
        world.gateway.settle();
        assert_eq!(world.crm.list(&format!("/conversations/{conversation}/messages")).len(), 3);
        assert_eq!(world.crm.list("/conversations").len(), 1);
    }

    fn an_answer_to_what_the_crm_sent_joins_its_conversation(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let body = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Offer", "text": "Ours.",
        });
        let sent = world.crm.post("/messages", &body);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let id = text(&shown, "rfc822_message_id");
        world.await_mail(&bob, "INBOX", id);
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(id);
        world.client_sends(&bob, &[&ann.person.address], &answer);
        let received = world.crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["conversation_id"], sent["conversation_id"]);
        wait_for("the copy in Sent", PATIENCE, || {
            world.gateway.hasten();
            world.count_mail(&ann.person, "Sent", id) == 1
        });
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 2);
        assert_eq!(world.crm.events_of("message.sent").len(), 1);
        assert_eq!(world.count_mail(&ann.person, "Sent", id), 1);
    }

    fn an_answer_finds_its_conversation_though_the_provider_renamed_what_it_answers(engine) {
        let world = Sandboxed::start(engine, Behaviour::outlook());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let message = world.post_message(&ann, &[&bob.address], "Offer");
        let shown = world.crm.await_delivery(&message, "sent");
        let address = mailweave::mail::Address::parse(&bob.address).unwrap();
        let inbox = world.provider().inbox(&address);
        let arrived = String::from_utf8_lossy(&inbox[0].raw).into_owned();
        let id = arrived.split("\r\nMessage-ID: <").nth(1).and_then(|rest| rest.split('>').next()).unwrap();
        assert_ne!(id, text(&shown, "rfc822_message_id"));
        // Whichever comes first: the late copy in Sent, from which the new id is learned, or the answer.
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(id);
        let to = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        world.provider().deliver(&to, answer.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        let received = world.crm.await_mail("message.received", &answer.id);
        let conversation = || {
            let path = format!("/messages/{}", text(&received["data"], "message_id"));
            text(&world.crm.get(&path), "conversation_id").to_owned()
        };
        wait_for("both in one conversation", PATIENCE, || conversation() == text(&shown, "conversation_id"));
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 2);
        assert_eq!(world.crm.list("/conversations").len(), 1);
    }

    fn a_connection_that_died_in_silence_is_found_when_idle_is_renewed(engine) {
        let world = Sandboxed::with(engine, Behaviour::default(), |config| {
            config.sync.idle_renew = Duration::from_secs(1);
            config.sync.progress_timeout = Duration::from_secs(2);
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let idles = || world.heard(Service::Imap, "IDLE").len();
        let begun = idles();
        wait_for("IDLE to be renewed", PATIENCE, || idles() >= begun + 2);
        assert_eq!(world.heard(Service::Imap, "LOGIN").len() + world.heard(Service::Imap, "AUTHENTICATE").len(), 1);
        let to = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        world.provider().end_sessions(&to, Farewell::Silence).unwrap();
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        world.provider().deliver(&to, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        world.crm.await_mail("message.received", &letter.id);
        assert_eq!(world.crm.events_of("account.error").len(), 0);
    }
}
