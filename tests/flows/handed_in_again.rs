//! A message handed in in several parts, again, or after it was seen elsewhere: each recipient gets it once, as it was meant.
//!
//! Not here: a message handed in once (`submission`).

use mailweave::{
    mail::{Address, loop_mark},
    sandbox::{Act, Behaviour},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    gateway::{CAPTURE, REPLY},
    letter::Letter,
    repairs::path_of,
    sandboxed::{PROSPECTS, Sandboxed},
    support::{
        PATIENCE, Person,
        clients::{Reply, SmtpClient},
        store::Engine,
        wait_for,
    },
    world::{User, accepted_id, assert_free_of, assert_reply},
};

fn started(engine: Engine) -> Sandboxed {
    Sandboxed::start(engine, Behaviour::gmail())
}

/// A key of the workspace for submission: its id and its secret.
fn key(world: &Sandboxed) -> (String, String) {
    world.crm.key(&["smtp"], None)
}

fn client(world: &Sandboxed, user: &User, secret: &str) -> SmtpClient {
    let mut client = world.submission_client();
    let login = Person { address: user.person.address.clone(), password: secret.to_owned() };
    assert_eq!(client.auth_plain(&login).code, 235);
    client
}

/// Ann with a connected account, and a client logged in for her.
struct Desk {
    world: Sandboxed,
    ann: User,
    client: SmtpClient,
}

impl Desk {
    fn open(engine: Engine) -> Self {
        let world = started(engine);
        let ann = world.user("ann", "Ann Lee");
        world.crm.await_account(&world.connect(&ann));
        let client = client(&world, &ann, &key(&world).1);
        Self { world, ann, client }
    }

    fn letter(&self, to: &[&str]) -> Letter {
        Letter::new(&self.ann.person.address, to)
    }

    fn try_hand_in(&mut self, to: &[&str], letter: &Letter) -> Result<Reply, Reply> {
        self.client.send(&self.ann.person.address, to, &letter.raw())
    }

    /// Returns the id in the 250.
    #[track_caller]
    fn hand_in(&mut self, to: &[&str], letter: &Letter) -> String {
        accepted_id(&self.try_hand_in(to, letter).unwrap())
    }

    /// Waits until everybody has this mail, and makes sure that everybody has it once.
    #[track_caller]
    fn await_once(&self, people: &[Person], id: &str) {
        let count = |person: &Person| self.world.mails(person, "INBOX", id).len();
        wait_for("everybody to have it", PATIENCE, || people.iter().all(|person| count(person) > 0));
        self.world.gateway.settle();
        for person in people {
            assert_eq!(count(person), 1, "{}", person.address);
        }
    }

    /// The states of a message's recipients; none before it is filed.
    fn states(&self, message: &str) -> Vec<(String, String)> {
        let shown = self.world.crm.ask(&format!("/messages/{message}")).body;
        let recipients = shown["delivery"]["recipients"].as_array().cloned().unwrap_or_default();
        let state = |one: &Value| (text(one, "address").to_owned(), text(one, "state").to_owned());
        recipients.iter().map(state).collect()
    }
}

fn addresses(people: &[Person]) -> Vec<&str> {
    people.iter().map(|person| person.address.as_str()).collect()
}

both! {
    fn more_recipients_than_one_transaction_takes_all_get_it(engine) {
        let mut desk = Desk::open(engine);
        let people: Vec<_> = (0..130).map(|number| desk.world.prospect(&format!("p{number:03}"))).collect();
        let letter = desk.letter(&["undisclosed@prospects.example"]);
        // As RFC 5321 section 4.5.3.1.10 has it: what did not fit goes in another transaction.
        let mut left = addresses(&people);
        let mut taken = Vec::new();
        while !left.is_empty() {
            desk.client.expect(250, &format!("MAIL FROM:<{}>", desk.ann.person.address));
            let client = &mut desk.client;
            left.retain(|to| client.command(&format!("RCPT TO:<{to}>")).code != 250);
            desk.client.expect(354, "DATA");
            taken.push(accepted_id(&desk.client.expect(250, &format!("{}.", letter.raw().replace('\n', "\r\n")))));
        }
        assert_eq!(taken.len(), 2);
        desk.await_once(&people, &letter.id);
        let states = desk.states(&taken[0]);
        assert_eq!(states.len(), 130);
        assert!(states.iter().all(|(_, state)| state == "sent"), "{states:?}");
        assert_eq!(desk.world.crm.messages().len(), 1);
    }

    fn further_recipients_are_added_and_their_answers_belong(engine) {
        let mut desk = Desk::open(engine);
        let [bob, cora, dan] = ["bob", "cora", "dan"].map(|name| desk.world.prospect(name));
        let letter = desk.letter(&[&bob.address]);
        let first = desk.hand_in(&[&bob.address], &letter);
        desk.world.crm.await_delivery(&first, "sent");

        desk.hand_in(&[&cora.address, &bob.address], &letter);
        desk.await_once(&[bob.clone(), cora.clone()], &letter.id);
        wait_for("both to be sent to", PATIENCE, || desk.states(&first).iter().filter(|(_, s)| s == "sent").count() == 2);
        // A retry adds nobody and sends nothing, nor is it told of.
        let told = desk.world.crm.events_of("message.sent").len();
        desk.hand_in(&[&cora.address, &bob.address], &letter);
        desk.hand_in(&[&bob.address], &letter);
        desk.world.gateway.settle();
        desk.await_once(&[bob.clone(), cora.clone()], &letter.id);
        assert_eq!(desk.world.crm.events_of("message.sent").len(), told);

        // One who waits does not keep another waiting.
        desk.world.arm("RCPT", Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let other = desk.letter(&[&bob.address]);
        let waiting = desk.hand_in(&[&bob.address], &other);
        desk.world.crm.await_delivery(&waiting, "deferred");
        desk.hand_in(&[&dan.address], &other);
        desk.await_once(&[bob, dan.clone()], &other.id);

        let shown = desk.world.crm.get(&format!("/messages/{first}"));
        assert_eq!(shown["bcc"], json!([{ "email": cora.address }]));
        let answer = Letter::new(&cora.address, &[&desk.ann.person.address]).answering(&letter.id);
        let ann = Address::parse(&desk.ann.person.address).unwrap();
        desk.world.provider().deliver(&ann, answer.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        let received = desk.world.crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["conversation_id"], shown["conversation_id"]);
    }

    fn a_hidden_recipient_who_is_handed_in_first_is_seen_by_nobody(engine) {
        let mut desk = Desk::open(engine);
        let [hidden, bob, cora] = ["hidden", "bob", "cora"].map(|name| desk.world.prospect(name));
        let letter = desk.letter(&[&bob.address]).cc(&[&cora.address]);
        let first = desk.hand_in(&[&hidden.address], &letter);
        desk.world.crm.await_delivery(&first, "sent");
        for other in [&bob, &cora] {
            desk.hand_in(&[&other.address], &letter);
        }
        desk.await_once(&[hidden.clone(), bob.clone(), cora.clone()], &letter.id);
        for person in [&bob, &cora] {
            let [mail] = &desk.world.mails(person, "INBOX", &letter.id)[..] else { panic!("one mail") };
            assert_free_of(mail, &[&hidden.address]);
        }
    }

    fn a_further_recipient_connects_nothing_that_a_hand_has_parted(engine) {
        let mut desk = Desk::open(engine);
        let [bob, dora] = ["bob", "dora"].map(|name| desk.world.prospect(name));
        let letter = desk.letter(&[&bob.address]);
        let message = desk.hand_in(&[&bob.address], &letter);
        let conversation = desk.world.crm.await_delivery(&message, "sent")["conversation_id"].clone();
        // Ann writes to Dora about it, which is another conversation, until a hand makes it one for a while.
        let (ann, capture) = (&desk.ann.person.address, &desk.ann.capture_address);
        let about_it = Letter::new(ann, &[&dora.address]).answering(&letter.id);
        desk.world.arrive(ann, &[capture], &about_it).unwrap();
        let captured = desk.world.crm.await_mail("message.captured", &about_it.id);
        let other = text(&captured["data"], "conversation_id");
        assert_ne!(conversation, other);
        let path = format!("/conversations/{other}/merge");
        let merged = desk.world.crm.post(&path, &json!({ "conversation_id": conversation }));
        desk.world.crm.post(path_of(&merged), &json!({}));

        desk.hand_in(&[&dora.address], &letter);
        desk.await_once(&[bob, dora], &letter.id);
        desk.world.gateway.settle();
        assert_eq!(desk.world.crm.events_of("conversation.merged").len(), 1, "only the hand's");
        assert_eq!(desk.world.crm.get(&format!("/conversations/{other}"))["merged_into"], Value::Null);
        assert_eq!(desk.world.crm.get(&format!("/messages/{message}"))["conversation_id"], conversation);
    }

    fn one_text_to_each_customer_under_one_id_is_a_letter_to_each(engine) {
        let mut desk = Desk::open(engine);
        let [bob, cora] = ["bob", "cora"].map(|name| desk.world.prospect(name));
        let to_bob = desk.letter(&[&bob.address]);
        let raw = to_bob.raw();
        let to_cora = raw.replace(&bob.address, &cora.address);
        let first = desk.hand_in(&[&bob.address], &to_bob);
        let from = desk.ann.person.address.clone();
        let second = accepted_id(&desk.client.send(&from, &[&cora.address], &to_cora).unwrap());
        assert_ne!(first, second);
        for (person, message) in [(&bob, &first), (&cora, &second)] {
            desk.await_once(std::slice::from_ref(person), &to_bob.id);
            assert_eq!(desk.states(message), [(person.address.clone(), "sent".to_owned())]);
            let [mail] = &desk.world.mails(person, "INBOX", &to_bob.id)[..] else { panic!("one mail") };
            assert!(mail.contains(&format!("To: {}", person.address)), "{mail}");
        }
        // Each of the two is known again.
        desk.hand_in(&[&bob.address], &to_bob);
        accepted_id(&desk.client.send(&from, &[&cora.address, &bob.address], &to_cora).unwrap());
        desk.world.gateway.settle();
        assert_eq!(desk.world.crm.messages().len(), 2);
    }

    fn a_key_stands_for_one_message_in_however_many_parts(engine) {
        let mut desk = Desk::open(engine);
        let [bob, cora, dan] = ["bob", "cora", "dan"].map(|name| desk.world.prospect(name));
        let people = [bob.clone(), cora.clone(), dan.clone()];
        let keyed = |letter: Letter| letter.field("X-Mailweave-Idempotency-Key", "invoice-7");
        let letter = keyed(desk.letter(&addresses(&people))).subject("Invoice 7").text("Please pay.\n");
        let first = desk.hand_in(&[&bob.address], &letter);
        desk.hand_in(&[&cora.address], &letter);
        // The answer was lost, and the CRM writes it all anew.
        let anew = keyed(desk.letter(&addresses(&people))).subject("Invoice 7").text("Please pay.\n");
        assert_eq!(desk.hand_in(&[&bob.address], &anew), first);
        desk.hand_in(&addresses(&people), &anew);
        wait_for("all to be sent to", PATIENCE, || {
            let states = desk.states(&first);
            states.len() == 3 && states.iter().all(|(_, state)| state == "sent")
        });
        desk.await_once(&people, &letter.id);
        assert_eq!(desk.world.crm.messages().len(), 1);

        let other = keyed(desk.letter(&addresses(&people))).subject("Invoice 8").text("Please pay.\n");
        let refused = desk.try_hand_in(&[&bob.address], &other).unwrap_err();
        assert_reply(&refused, 550, "5.5.4");
        for word in ["X-Mailweave-Idempotency-Key", "key of its own"] {
            assert!(refused.text.contains(word), "{refused:?}");
        }
        // The session goes on, and another key is free.
        let other = desk.letter(&[&bob.address]).field("X-Mailweave-Idempotency-Key", "invoice-8");
        desk.hand_in(&[&bob.address], &other);
        desk.await_once(&[bob], &other.id);
    }

    fn what_was_seen_elsewhere_first_leaves_as_it_was_handed_in(engine) {
        let mut desk = Desk::open(engine);
        let [bob, cora] = ["bob", "cora"].map(|name| desk.world.prospect(name));
        let capture = desk.ann.capture_address.clone();

        // The copy for the CRM overtook the mail itself.
        let captured = desk.letter(&[&bob.address]).cc(&[&capture]).field("X-Mailweave-Class", "individual");
        desk.world.arrive(&desk.ann.person.address, &[&capture], &captured).unwrap();
        desk.world.crm.await_mail("message.captured", &captured.id);
        let message = desk.hand_in(&[&bob.address], &captured);
        desk.await_once(std::slice::from_ref(&bob), &captured.id);

        // The author's client has filed its copy, Bcc and all; Bob is a contact by now.
        let filed = desk.letter(&[&bob.address]).field("Bcc", &cora.address);
        let ann = Address::parse(&desk.ann.person.address).unwrap();
        let raw = filed.raw().replace('\n', "\r\n");
        let sent = desk.world.provider().special(&ann, mailweave::sandbox::SpecialUse::Sent).unwrap();
        desk.world.provider().append(&ann, &sent, raw.as_bytes(), &["\\Seen"]).unwrap();
        desk.world.crm.await_mail("message.sent", &filed.id);
        desk.hand_in(&[&bob.address, &cora.address], &filed);
        desk.await_once(&[bob.clone(), cora.clone()], &filed.id);

        for (person, letter) in [(&bob, &captured), (&bob, &filed), (&cora, &filed)] {
            let [mail] = &desk.world.mails(person, "INBOX", &letter.id)[..] else { panic!("one mail") };
            assert_free_of(mail, &[CAPTURE, "\r\nBcc:", "X-Mailweave"]);
        }
        assert_eq!(desk.world.crm.messages().len(), 2);
        let shown = desk.world.crm.get(&format!("/messages/{message}"));
        assert_free_of(&shown.to_string(), &[CAPTURE]);
    }

    fn an_address_of_ours_is_taken_when_something_happens_there(engine) {
        let mut desk = Desk::open(engine);
        let bob = desk.world.prospect("bob");
        let others = desk.world.gateway.crm("other").settle_in();
        let foreign = others.post("/users", &json!({ "email": "eve@other.example" }));
        let from = desk.ann.person.address.clone();
        desk.client.expect(250, &format!("MAIL FROM:<{from}>"));
        for address in [
            format!("ann-0123456789abcdef@{CAPTURE}"),
            format!("r-0123456789abcdef0123@{REPLY}"),
            text(&foreign, "capture_address").to_owned(),
        ] {
            let refused = desk.client.command(&format!("RCPT TO:<{address}>"));
            assert_reply(&refused, 550, "5.1.1");
        }
        desk.client.expect(250, "RSET");

        // To the capture address alone: filed, and told of as such.
        let capture = desk.ann.capture_address.clone();
        let note = desk.letter(&[&bob.address]);
        desk.hand_in(&[&capture], &note);
        let captured = desk.world.crm.await_mail("message.captured", &note.id);
        let created = desk.world.crm.await_event("contact.created", |data| data["email"] == bob.address.as_str());
        assert_eq!(captured["data"]["contact_ids"], json!([created["data"]["contact_id"]]));
        assert_eq!(desk.world.mails(&bob, "INBOX", &note.id).len(), 0);

        // Beside others: sent, and the contact made all the same.
        let cora = desk.world.prospect("cora");
        let letter = desk.letter(&[&cora.address]);
        desk.hand_in(&[&cora.address, &capture], &letter);
        desk.world.crm.await_mail("message.sent", &letter.id);
        desk.world.crm.await_event("contact.created", |data| data["email"] == cora.address.as_str());
        desk.world.gateway.settle();
        assert_eq!(desk.world.crm.events_of("message.captured").len(), 1);
        assert_eq!(desk.world.mails(&cora, "INBOX", &letter.id).len(), 1);
    }

    fn a_session_ends_with_its_key_and_a_loop_at_its_mark(engine) {
        let world = started(engine);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let (id, secret) = key(&world);
        let mut client = client(&world, &ann, &secret);
        let letter = || Letter::new(&ann.person.address, &[&bob.address]);
        client.send(&ann.person.address, &[&bob.address], &letter().raw()).unwrap();
        wait_for("the key's use to be noted", PATIENCE, || {
            let keys = world.crm.get("/keys");
            keys["items"].as_array().unwrap().iter().any(|key| key["id"] == id.as_str() && key["last_used_at"].is_string())
        });

        let mark = loop_mark::mark(&world.gateway.loop_key(), "msg_1");
        let looping = letter().field(loop_mark::FIELD, &mark);
        let refused = client.send(&ann.person.address, &[&bob.address], &looping.raw()).unwrap_err();
        assert_reply(&refused, 554, "5.4.6");

        world.crm.delete(&format!("/keys/{id}"));
        let refused = client.send(&ann.person.address, &[&bob.address], &letter().raw()).unwrap_err();
        assert_reply(&refused, 421, "4.7.0");
        world.gateway.settle();
        let address = Address::parse(&bob.address).unwrap();
        assert_eq!(world.provider().inbox(&address).len(), 1);
    }

    fn a_smarthost_sends_for_its_domains_alone(engine) {
        let world = started(engine);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let body = json!({ "email": format!("eve@{PROSPECTS}"), "name": "Eve" });
        let eve = world.person(text(&body, "email"));
        world.crm.post("/users", &body);
        world.set_smarthost(&ann.person);
        let bulk = |from: &str| Letter::new(from, &[&bob.address]).field("X-Mailweave-Class", "bulk");
        let mut client = world.workspace_client();
        let refused = client.send(&eve.address, &[&bob.address], &bulk(&eve.address).raw()).unwrap_err();
        assert_reply(&refused, 550, "5.7.1");
        assert!(refused.text.contains(PROSPECTS) && refused.text.contains("from_domains"), "{refused:?}");
        let letter = bulk(&ann.person.address);
        client.send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap();
        world.crm.await_mail("message.sent", &letter.id);
    }

    fn what_is_held_without_a_way_out_goes_on_when_there_is_one(engine) {
        let world = started(engine);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let mut client = client(&world, &ann, &{
            world.set_smarthost(&ann.person);
            key(&world).1
        });
        let mut hold = || {
            world.arm("CONNECT", Act::Drop);
            let letter = Letter::new(&ann.person.address, &[&bob.address]).field("X-Mailweave-Class", "bulk");
            let taken = client.send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap();
            let message = accepted_id(&taken);
            world.crm.await_delivery(&message, "deferred");
            world.crm.delete("/smarthost");
            world.gateway.hasten();
            world.crm.await_delivery(&message, "held");
            (letter, message)
        };
        // By the next smarthost.
        let (letter, message) = hold();
        world.set_smarthost(&ann.person);
        world.crm.await_delivery(&message, "sent");
        assert_eq!(world.mails(&bob, "INBOX", &letter.id).len(), 1);
        // By the account that the user connects, where policy lets it leave by that.
        world.crm.put("/policy", &json!({ "overrides": { "bulk_route": "account_if_from_matches" } }));
        let (letter, message) = hold();
        world.connect(&ann);
        let shown = world.crm.await_delivery(&message, "sent");
        assert_eq!(shown["delivery"]["detail"], Value::Null);
        assert_eq!(world.mails(&bob, "INBOX", &letter.id).len(), 1);
        assert_eq!(world.mails(&ann.person, "INBOX", &letter.id).len(), 0);
    }

    fn many_who_hand_in_at_once_do_not_wait_for_each_other(engine) {
        let world = started(engine);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let secret = key(&world).1;
        // More than there are connections to the database: each that waits with one in hand keeps the commit from its own.
        let clients: Vec<_> = (0..40).map(|_| client(&world, &ann, &secret)).collect();
        let codes: Vec<u16> = std::thread::scope(|scope| {
            let sends = clients.into_iter().map(|mut client| {
                let (ann, bob) = (&ann.person.address, &bob.address);
                scope.spawn(move || {
                    let letter = Letter::new(ann, &[bob]);
                    client.send(ann, &[bob], &letter.raw()).map_or_else(|refused| refused.code, |taken| taken.code)
                })
            });
            let sends: Vec<_> = sends.collect();
            sends.into_iter().map(|send| send.join().unwrap()).collect()
        });
        assert_eq!(codes, [250; 40]);
    }
}
