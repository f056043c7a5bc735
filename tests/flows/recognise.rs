//! The same mail seen four times is one message, one conversation and one event, in whatever order it is seen.
//!
//! By Bcc at the capture address, in the author's Sent, in a colleague's INBOX, and by the transaction repeated after a lost
//! 250. Until it is captured nobody on it is a contact: what was seen before was left out, and is fetched again.

use crate::{
    both,
    crm::{text, texts},
    letter::Letter,
    support::{PATIENCE, clients::SmtpClient, wait_for},
    world::{User, World, accepted_id},
};

/// One way to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Capture,
    /// The same transaction once more: of this and `Capture` the one that comes first is the first.
    Again,
    Sent,
    Colleague,
}

/// Every order of the four.
fn orders() -> Vec<Vec<Sight>> {
    use Sight::{Again, Capture, Colleague, Sent};
    let mut orders = vec![Vec::new()];
    for _ in 0..4 {
        let longer = |order: Vec<Sight>| {
            [Capture, Again, Sent, Colleague].into_iter().filter_map(move |sight| {
                let is_new = !order.contains(&sight);
                is_new.then(|| order.iter().copied().chain([sight]).collect::<Vec<_>>())
            })
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}

/// A mail on its way into the CRM, in one order.
struct Mail {
    order: Vec<Sight>,
    letter: Letter,
    raw: String,
    /// Its id, once it was captured.
    message: Option<String>,
}

struct Company {
    world: World,
    ann: User,
    ben: User,
}

impl Company {
    fn start(engine: crate::support::store::Engine) -> Self {
        let world = World::start(engine);
        let (ann, ben) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"));
        for user in [&ann, &ben] {
            world.crm.await_account(&world.connect(user));
        }
        Self { world, ann, ben }
    }

    fn mail(&self, number: usize, order: Vec<Sight>) -> Mail {
        let prospect = format!("prospect{number}@elsewhere.example.test");
        let letter = Letter::new(&self.ann.person.address, &[&prospect]).cc(&[&self.ben.person.address]);
        Mail { order, raw: letter.raw(), letter, message: None }
    }

    fn show(&self, mail: &mut Mail, sight: Sight) {
        let (ann, ben) = (&self.ann, &self.ben);
        match sight {
            Sight::Capture | Sight::Again => {
                let mut client = SmtpClient::connect(self.world.gateway.mx());
                let taken = client.send(&ann.person.address, &[&ann.capture_address], &mail.raw).unwrap();
                let id = accepted_id(&taken);
                assert_eq!(mail.message.get_or_insert_with(|| id.clone()), &id);
            }
            Sight::Sent => drop(self.world.dovecot.login(&ann.person).append("Sent", "\\Seen", &mail.raw)),
            Sight::Colleague => {
                drop(self.world.dovecot.deliver(&ann.person.address, &ben.person, &mail.raw).unwrap());
            }
        }
    }

    /// Waits until all that was shown so far is known: as sightings, or, before it was captured, as decisions.
    fn await_seen(&self, mail: &Mail, count: usize) {
        let what = format!("{:?} of {:?}", &mail.order[..count], mail.order);
        wait_for(&what, PATIENCE, || match &mail.message {
            Some(message) => self.sightings(message).len() >= count,
            None => {
                let path = format!("/decisions?rfc822_message_id={}", mail.letter.id);
                let decisions = self.world.crm.list(&path);
                decisions.iter().filter(|decision| decision["verdict"] == "skipped").count() >= count
            }
        });
    }

    fn sightings(&self, message: &str) -> Vec<serde_json::Value> {
        let message = self.world.crm.ask(&format!("/messages/{message}")).body;
        message["sightings"].as_array().cloned().unwrap_or_default()
    }
}

both! {
    fn four_sightings_make_one_message_in_every_order(engine) {
        let company = Company::start(engine);
        let mut mails: Vec<Mail> =
            orders().into_iter().enumerate().map(|(number, order)| company.mail(number, order)).collect();
        assert_eq!(mails.len(), 24);
        for step in 0..4 {
            for mail in &mut mails {
                company.show(mail, mail.order[step]);
            }
            for mail in &mails {
                company.await_seen(mail, step + 1);
            }
        }
        let world = &company.world;
        world.gateway.settle();
        let events = world.crm.events();
        for mail in &mails {
            let id = mail.message.as_deref().unwrap();
            let mut seen = company.sightings(id);
            seen.sort_by_key(|sighting| (text(sighting, "via").to_owned(), sighting["mailbox"].to_string()));
            assert_eq!(texts(&seen, "via"), ["account", "account", "capture", "capture"], "{:?}", mail.order);
            assert_eq!(texts(&seen[..2], "mailbox"), ["INBOX", "Sent"]);
            assert_ne!(seen[0]["account_id"], seen[1]["account_id"]);
            let told = events.iter().filter(|event| {
                event["data"]["message_id"] == id && text(event, "type").starts_with("message.")
            });
            let told: Vec<_> = told.map(|event| text(event, "type")).collect();
            assert_eq!(told, ["message.captured"], "{:?}", mail.order);
        }
        assert_eq!(world.crm.messages().len(), 24);
        assert_eq!(world.crm.list("/conversations").len(), 24);
        assert_eq!(world.crm.events_of("contact.created").len(), 24);
    }

    fn what_was_in_the_mailboxes_first_is_told_when_it_is_first_known(engine) {
        let company = Company::start(engine);
        let (world, ann, ben) = (&company.world, &company.ann, &company.ben);
        let bob = world.customer(1);
        world.crm.post("/contacts", &serde_json::json!({ "email": bob.address }));
        // As in life: the provider delivers to everybody, the client files its copy.
        let letter = Letter::new(&ann.person.address, &[&bob.address]).cc(&[&ben.person.address]);
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &letter.raw());
        let sent = world.crm.await_mail("message.sent", &letter.id);
        let id = text(&sent["data"], "message_id");
        let to = [bob.address.as_str(), &ben.person.address, &ann.capture_address];
        world.client_sends(&ann.person, &to, &letter);
        wait_for("three sightings", PATIENCE, || company.sightings(id).len() == 3);
        world.gateway.settle();
        let events = world.crm.events();
        let told: Vec<_> = events.iter().filter(|event| event["data"]["message_id"] == id).collect();
        let mut types: Vec<_> = told.iter().map(|event| text(event, "type")).collect();
        types.retain(|kind| kind.starts_with("message."));
        assert_eq!(types, ["message.sent"]);
        assert_eq!(world.crm.messages().len(), 1);
    }

    fn the_capture_of_mail_that_was_seen_before_makes_its_contacts_once(engine) {
        let company = Company::start(engine);
        let (world, ann) = (&company.world, &company.ann);
        let bob = world.crm.post("/contacts", &serde_json::json!({ "email": "bob@elsewhere.example.test" }));
        let to = ["bob@elsewhere.example.test", "carl@elsewhere.example.test"];
        let letter = Letter::new(&ann.person.address, &to);
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &letter.raw());
        let sent = world.crm.await_mail("message.sent", &letter.id);
        let id = text(&sent["data"], "message_id");
        let capture = |from: &str| {
            let mut client = SmtpClient::connect(world.gateway.mx());
            client.send(from, &[&ann.capture_address], &letter.raw()).unwrap();
        };
        capture(&ann.person.address);
        let created = world.crm.await_event("contact.created", |data| text(data, "email") == to[1]);
        assert_eq!(created["data"]["message_id"], id);
        world.crm.await_event("contact.matched", |data| data["contact_id"] == bob["id"]);
        // In another envelope it is another transaction.
        capture("ann@elsewhere.example.test");
        wait_for("three sightings", PATIENCE, || company.sightings(id).len() == 3);
        world.gateway.settle();
        // Bob was announced too when the CRM added him, by no message.
        let by_this_mail = |kind: &str| {
            let events = world.crm.events_of(kind);
            events.iter().filter(|event| event["data"]["message_id"] == id).count()
        };
        assert_eq!((by_this_mail("contact.created"), by_this_mail("contact.matched")), (1, 1));
        let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
        let captured = decisions.iter().filter(|decision| decision["rule"] == "captured").count();
        assert_eq!(captured, 2, "{decisions:?}");
        let carl = text(&created["data"], "contact_id");
        assert_eq!(world.crm.list(&format!("/contacts/{carl}/timeline")).len(), 1);
        assert_eq!(world.crm.messages().len(), 1);
    }

    fn a_copy_without_a_message_id_is_recognised_in_every_order(engine) {
        let company = Company::start(engine);
        let (world, ann) = (&company.world, &company.ann);
        let bob = world.customer(1);
        world.crm.post("/contacts", &serde_json::json!({ "email": bob.address }));
        // The client leaves the id to its server, which has it in none of the copies that the client files.
        let letters = [1, 2].map(|_| Letter::new(&ann.person.address, &[&bob.address]));
        let without_id = |letter: &Letter| letter.raw().replace(&format!("Message-ID: <{}>\n", letter.id), "");
        let file = |letter: &Letter| {
            drop(world.dovecot.login(&ann.person).append("Sent", "\\Seen", &without_id(letter)));
        };
        let capture = |letter: &Letter| {
            let mut client = SmtpClient::connect(world.gateway.mx());
            accepted_id(&client.send(&ann.person.address, &[&ann.capture_address], &letter.raw()).unwrap())
        };
        let captured = capture(&letters[0]);
        world.crm.await_mail("message.captured", &letters[0].id);
        file(&letters[0]);
        wait_for("the copy in Sent", PATIENCE, || company.sightings(&captured).len() == 2);

        file(&letters[1]);
        let sent = world.crm.await_event("message.sent", |_| true);
        capture(&letters[1]);
        let id = text(&sent["data"], "message_id");
        wait_for("the captured copy", PATIENCE, || company.sightings(id).len() == 2);
        // What answers it names the id that its server gave it.
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(&letters[1].id);
        world.dovecot.deliver(&bob.address, &ann.person, &answer.raw()).unwrap();
        let received = world.crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["conversation_id"], sent["data"]["conversation_id"]);
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 3);
    }
}
