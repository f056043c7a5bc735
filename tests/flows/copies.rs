//! Who else gets mail because policy says so: copies of what contacts answer, answers that go elsewhere, blind copies.
//!
//! Not here: what becomes of a copy that cannot be delivered (`copies_lost`), and which mail is an answer (`core::copies`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::{text, texts},
    gateway::REPLY,
    letter::Letter,
    relay::{Conversation, sender},
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{User, World, assert_free_of},
};

/// Ann with a connected account, Bob as a contact, and a policy.
struct Office {
    world: World,
    ann: User,
    bob: Person,
    contact: String,
}

impl Office {
    fn start(engine: Engine, overrides: impl FnOnce(&World) -> Value) -> Self {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let contact = world.crm.post("/contacts", &json!({ "email": bob.address, "name": "Bob Ray" }));
        world.crm.put("/policy", &json!({ "overrides": overrides(&world) }));
        world.crm.await_account(&world.connect(&ann));
        Self { world, ann, bob, contact: text(&contact, "id").to_owned() }
    }

    /// Ann writes to Bob through the CRM; the message as the API shows it once it is sent.
    fn writes(&self, class: &str) -> Value {
        let body = json!({
            "from_user_id": self.ann.id,
            "to": [{ "email": self.bob.address }],
            "subject": "Ten desks",
            "text": "Here is our offer.",
            "class": class,
        });
        let sent = self.world.crm.post("/messages", &body);
        self.world.crm.await_delivery(text(&sent, "id"), "sent")
    }

    /// Bob answers with his own client, and what he wrote is filed.
    fn bob_answers(&self, letter: &Letter) -> Value {
        self.world.client_sends(&self.bob, &[&self.ann.person.address], letter);
        self.world.crm.await_mail("message.received", &letter.id)
    }

    fn answer(&self, to: &Value) -> Letter {
        Letter::new(&format!("Bob Ray <{}>", self.bob.address), &[&self.ann.person.address])
            .subject("Re: Ten desks")
            .answering(text(to, "rfc822_message_id"))
            .text("In oak, please.\n")
    }

    fn inbox(&self, person: &Person) -> usize {
        self.world.dovecot.login(person).messages("INBOX").len()
    }
}

/// The header of a mail.
fn header(mail: &str) -> &str {
    mail.split("\r\n\r\n").next().expect("a header")
}

/// A field's text, unfolded and without quotes.
#[track_caller]
fn field(mail: &str, name: &str) -> String {
    let start = format!("\r\n{name}: ");
    let found = header(mail).split(start.as_str()).nth(1).unwrap_or_else(|| panic!("no {name} in {mail}"));
    let mut lines = found.split("\r\n");
    let mut text = lines.next().expect("a line").to_owned();
    lines.take_while(|line| line.starts_with([' ', '\t'])).for_each(|line| text.push_str(line));
    text.replace('"', "").replace('\t', " ").replace(",  ", ", ")
}

both! {
    fn faq_22_a_contacts_answer_is_copied_to_the_addresses_policy_names(engine) {
        let desks = |world: &World| [world.customer(2), world.customer(3)];
        let office = Office::start(engine, |world| {
            json!({ "reply_copies": desks(world).map(|desk| desk.address) })
        });
        let Office { world, ann, bob, .. } = &office;
        world.set_smarthost();
        let ben = world.user(2, "Ben Low");
        world.crm.await_account(&world.connect(&ben));
        let offer = office.writes("individual");
        let answer = office.answer(&offer)
            .cc(&[&ben.person.address])
            .field("X-Originating-IP", "[192.0.2.7]")
            .field("Bcc", &ann.capture_address);
        let received = office.bob_answers(&answer);
        for desk in &desks(world) {
            let mail = world.await_mail(desk, "INBOX", &answer.id);
            sender(&mail, "Bob Ray");
            assert_eq!(field(&mail, "Reply-To"), format!("Bob Ray <{}>", bob.address));
            assert_eq!(field(&mail, "To"), format!("<{}>", desk.address));
            assert_eq!(field(&mail, "Subject"), "Re: Ten desks");
            assert!(mail.contains("In oak, please."), "{mail}");
            assert!(mail.contains("\r\nX-Mailweave-Loop: "), "{mail}");
            assert_free_of(&mail, &["192.0.2.7", &ann.capture_address, "\r\nCc:", "\r\nBcc:"]);
        }
        // It is seen a second time, in a colleague's mailbox; a first mail and a machine's answer nobody.
        world.dovecot.deliver(&bob.address, &ben.person, &answer.raw()).unwrap();
        let sightings = || {
            let shown = world.crm.get(&format!("/messages/{}", text(&received["data"], "message_id")));
            texts(shown["sightings"].as_array().unwrap(), "via").len()
        };
        wait_for("the second sighting", PATIENCE, || sightings() == 2);
        let first = Letter::new(&bob.address, &[&ann.person.address]);
        let away = office.answer(&offer).field("Auto-Submitted", "auto-replied");
        for letter in [&first, &away] {
            office.bob_answers(letter);
        }
        world.gateway.settle();
        for desk in &desks(world) {
            assert_eq!(office.inbox(desk), 1, "{}", desk.address);
        }
        // Bob and Ann notice nothing, and the copies are none of the message's recipients.
        assert_eq!((office.inbox(bob), office.inbox(&ann.person)), (1, 3));
        let shown = world.crm.get(&format!("/messages/{}", text(&received["data"], "message_id")));
        assert_eq!(shown.get("delivery"), None);
        let copies: Vec<_> = shown["copies"].as_array().unwrap().iter()
            .map(|copy| (text(copy, "role"), text(copy, "address").to_owned(), text(copy, "state"))).collect();
        assert_eq!(copies, desks(world).map(|desk| ("copy", desk.address, "sent")));
        let told = world.crm.events().into_iter()
            .filter(|event| event["data"]["rfc822_message_id"] == answer.id.as_str()).collect::<Vec<_>>();
        assert_eq!(texts(&told, "type"), ["message.received"]);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn faq_22_copies_leave_by_the_users_account_where_no_smarthost_does(engine) {
        let office = Office::start(engine, |world| json!({ "reply_copies": [world.customer(2).address] }));
        let Office { world, ann, bob, .. } = &office;
        let offer = office.writes("individual");
        let answer = office.answer(&offer).field("Reply-To", "bobs-office@clients.example.test");
        office.bob_answers(&answer);
        let mail = world.await_mail(&world.customer(2), "INBOX", &answer.id);
        assert_eq!(field(&mail, "From"), format!("Bob Ray <{}>", ann.person.address));
        assert_eq!(field(&mail, "Reply-To"), "<bobs-office@clients.example.test>");
        assert!(mail.contains(&format!("Return-Path: <{}>", ann.person.address)), "{mail}");
        world.gateway.settle();
        // No copy of it comes to lie in Ann's Sent as if she had written it.
        assert_eq!(world.count_mail(&ann.person, "Sent", &answer.id), 0);
        assert_eq!((office.inbox(bob), office.inbox(&world.customer(2))), (1, 1));
    }

    fn faq_22_a_copy_in_a_mailbox_that_is_followed_is_known_and_copied_no_further(engine) {
        let office = Office::start(engine, |world| json!({ "reply_copies": [world.dovecot.user(2).address] }));
        let Office { world, .. } = &office;
        world.set_smarthost();
        let ben = world.user(2, "Ben Low");
        world.crm.await_account(&world.connect(&ben));
        let offer = office.writes("individual");
        let answer = office.answer(&offer);
        office.bob_answers(&answer);
        world.await_mail(&ben.person, "INBOX", &answer.id);
        let decisions = format!("/decisions?rfc822_message_id={}", answer.id);
        wait_for("Ben's copy to be judged", PATIENCE, || world.crm.list(&decisions).len() == 2);
        world.gateway.settle();
        assert_eq!(office.inbox(&ben.person), 1);
        assert_eq!(world.crm.events_of("message.received").len(), 1);
        assert_eq!(world.crm.messages().len(), 2);
    }

    fn faq_22_the_assigned_user_gets_the_answer_and_what_he_answers_comes_back(engine) {
        let office = Office::start(engine, |_| json!({ "reply_copy_assigned": true }));
        let Office { world, ann, bob, contact, .. } = &office;
        world.set_smarthost();
        let ben = world.user(2, "Ben Low");
        world.crm.patch(&format!("/contacts/{contact}"), &json!({ "assigned_user_id": ben.id }));
        let offer = office.writes("individual");
        let answer = office.answer(&offer);
        office.bob_answers(&answer);
        let mail = world.await_mail(&ben.person, "INBOX", &answer.id);
        let towards_bob = sender(&mail, "Bob Ray");
        assert_free_of(header(&mail), &[&bob.address, "\r\nReply-To:"]);
        let reply = Letter::new(&format!("Ben Low <{}>", ben.person.address), &[&towards_bob])
            .answering(&answer.id)
            .text("Oak it is.\n");
        world.client_sends(&ben.person, &[&towards_bob], &reply);
        let sent = world.crm.await_mail("message.sent", &reply.id);
        assert_eq!(sent["data"]["conversation_id"], offer["conversation_id"]);
        let mail = world.await_mail(bob, "INBOX", &reply.id);
        let towards_ben = sender(&mail, "Ben Low");
        assert_free_of(&mail, &[&ben.person.address]);
        // Bob answers both; Ben is who reads there, and he gets it once.
        let both = Letter::new(&bob.address, &[&towards_ben]).answering(&reply.id);
        world.client_sends(bob, &[&towards_ben], &both);
        world.await_mail(&ben.person, "INBOX", &both.id);
        world.gateway.settle();
        assert_eq!(office.inbox(&ben.person), 2);
        // Assigned to her in whose mailbox it lies, nobody gets it twice.
        world.crm.patch(&format!("/contacts/{contact}"), &json!({ "assigned_user_id": ann.id }));
        let before = office.inbox(&ann.person);
        office.bob_answers(&office.answer(&offer));
        world.gateway.settle();
        assert_eq!((office.inbox(&ann.person), office.inbox(&ben.person)), (before + 1, 2));
    }

    fn faq_22_answers_go_to_the_reply_to_of_policy_and_what_is_answered_there_does_not_come_back(engine) {
        let office = Office::start(engine, |world| {
            json!({ "reply_to": [world.customer(2).address, world.customer(3).address] })
        });
        let Office { world, ann, bob, .. } = &office;
        let desk = world.customer(2);
        let diverted = format!("<{}>, <{}>", desk.address, world.customer(3).address);
        let offer = office.writes("individual");
        let id = text(&offer, "rfc822_message_id");
        assert_eq!(field(&world.await_mail(bob, "INBOX", id), "Reply-To"), diverted);
        // Whatever the message says itself, and over SMTP as well.
        let letter = Letter::new(&ann.person.address, &[&bob.address]).field("Reply-To", "me@elsewhere.example.test");
        world.hand_in(ann, &world.smtp_key(), &[&bob.address], &letter).unwrap();
        let mail = world.await_mail(bob, "INBOX", &letter.id);
        assert_eq!(field(&mail, "Reply-To"), diverted);
        assert_free_of(&mail, &["me@elsewhere"]);
        // A user without an account writes from a reply address.
        world.set_smarthost();
        let ben = world.user(2, "Ben Low");
        let body = json!({ "from_user_id": ben.id, "to": [{ "email": bob.address }], "subject": "Chairs", "text": "?" });
        let sent = world.crm.post("/messages", &body);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let mail = world.await_mail(bob, "INBOX", text(&shown, "rfc822_message_id"));
        assert!(sender(&mail, "Ben Low").ends_with(REPLY));
        assert_eq!(field(&mail, "Reply-To"), diverted);
        world.gateway.settle();
        let before = world.crm.messages().len();

        let answer = Letter::new(&bob.address, &[&desk.address]).answering(id);
        world.client_sends(bob, &[&desk.address], &answer);
        world.await_mail(&desk, "INBOX", &answer.id);
        let reply = Letter::new(&desk.address, &[&bob.address]).answering(&answer.id);
        world.client_sends(&desk, &[&bob.address], &reply);
        world.await_mail(bob, "INBOX", &reply.id);
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), before);
        assert_free_of(&world.crm.everything(), &[&answer.id, &reply.id]);
    }

    fn faq_22_individual_and_workflow_mail_is_blind_copied_but_not_bulk(engine) {
        let office = Office::start(engine, |world| json!({ "always_bcc": [world.customer(2).address] }));
        let Office { world, ann, bob, .. } = &office;
        world.set_smarthost();
        let archive = world.customer(2);
        let used = || world.crm.get(&format!("/users/{}/usage", ann.id))["sent_per_day"]["used"].clone();
        for (class, copied) in [("individual", true), ("workflow", true), ("bulk", false)] {
            let shown = office.writes(class);
            let id = text(&shown, "rfc822_message_id");
            assert_free_of(&world.await_mail(bob, "INBOX", id), &[&archive.address]);
            let recipients = shown["delivery"]["recipients"].as_array().unwrap();
            assert_eq!(texts(recipients, "address"), [bob.address.as_str()], "{class}");
            assert_eq!(shown.get("bcc"), None);
            if copied {
                assert_free_of(header(&world.await_mail(&archive, "INBOX", id)), &["\r\nBcc:"]);
                let copy = &shown["copies"][0];
                assert_eq!((text(copy, "role"), text(copy, "state")), ("bcc", "sent"));
            }
            world.gateway.settle();
            assert_eq!(world.count_mail(&archive, "INBOX", id), usize::from(copied), "{class}");
            // His account's provider counts the copy too; what leaves by the smarthost in bulk costs him nothing.
            assert_eq!(used(), 2, "{class}");
        }
        let told = world.crm.events();
        assert_free_of(&Value::Array(told).to_string(), &[&archive.address]);
        // Handed in for him as well, he is a recipient like any other, and gets it once.
        let letter = Letter::new(&ann.person.address, &[&bob.address, &archive.address]);
        let key = world.smtp_key();
        world.hand_in(ann, &key, &[&bob.address], &letter).unwrap();
        world.await_mail(&archive, "INBOX", &letter.id);
        let sent = world.crm.await_mail("message.sent", &letter.id);
        world.hand_in(ann, &key, &[&archive.address], &letter).unwrap();
        world.gateway.settle();
        let shown = world.crm.get(&format!("/messages/{}", text(&sent["data"], "message_id")));
        let mut named = texts(shown["delivery"]["recipients"].as_array().unwrap(), "address");
        named.sort_unstable();
        assert_eq!(named, [bob.address.as_str(), &archive.address]);
        assert_eq!(world.count_mail(&archive, "INBOX", &letter.id), 1);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn faq_22_mail_from_a_reply_address_is_blind_copied_and_its_answers_are_copied(engine) {
        let conversation = Conversation::with(engine, |world| {
            let overrides = json!({
                "always_bcc": [world.customer(2).address],
                "reply_copies": [world.customer(3).address],
            });
            world.crm.put("/policy", &json!({ "overrides": overrides }));
            json!({})
        });
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let (archive, desk) = (world.customer(2), world.customer(3));
        let mail = world.await_mail(&archive, "INBOX", first);
        assert_ne!(&sender(&mail, "Ann Lee"), towards_ann);
        assert_eq!(field(&mail, "To"), format!("Bob Ray <{}>", bob.address));
        assert_free_of(&mail, &[&ann.person.address]);

        let answer = Letter::new(&format!("Bob Ray <{}>", bob.address), &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let passed_on = world.await_mail(&ann.person, "INBOX", &answer.id);
        let copy = world.await_mail(&desk, "INBOX", &answer.id);
        assert_eq!(field(&copy, "Reply-To"), format!("Bob Ray <{}>", bob.address));
        assert_free_of(&copy, &[&ann.person.address, towards_ann]);
        assert_free_of(&passed_on, &[&desk.address, &bob.address]);
        world.gateway.settle();
        let shown = &conversation.messages()[0];
        assert_eq!(texts(shown["delivery"]["recipients"].as_array().unwrap(), "address"), [ann.person.address.as_str()]);
        assert_eq!(texts(shown["copies"].as_array().unwrap(), "address"), [desk.address.as_str()]);
        for person in [&ann.person, &desk] {
            assert_eq!(world.count_mail(person, "INBOX", &answer.id), 1);
        }
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
    }
}
