//! Who gets what is passed on: everybody whom the author wrote to, in whatever order copies come, and nobody else.
//!
//! Not here: what is rewritten on the way (`relay`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    relay::{Conversation, sender},
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, clients::SmtpClient, store::Engine, wait_for},
    world::{User, World, assert_free_of},
};

/// A second user without an account who writes to Bob in the conversation; returns where Bob answers him.
fn ben_joins(conversation: &Conversation) -> (User, String) {
    let Conversation { world, bob, .. } = conversation;
    let ben = world.user(2, "Ben Low");
    let body = json!({
        "from_user_id": ben.id,
        "to": [{ "email": bob.address }],
        "subject": "Re: Ten desks",
        "text": "And chairs.",
        "conversation_id": conversation.id,
    });
    let sent = world.crm.post("/messages", &body);
    let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
    let mail = world.await_mail(bob, "INBOX", text(&shown, "rfc822_message_id"));
    let towards_ben = sender(&mail, "Ben Low");
    assert_ne!(towards_ben, conversation.towards_ann);
    (ben, towards_ben)
}

/// Bob's answer while there is no way out to Ann; returns the message's id.
fn held(conversation: &Conversation, answer: &Letter) -> String {
    let Conversation { world, .. } = conversation;
    world.crm.delete("/smarthost");
    let received = conversation.bob_answers(answer);
    let message = text(&received["data"], "message_id").to_owned();
    world.crm.await_delivery(&message, "held");
    message
}

fn inbox(world: &World, person: &Person) -> usize {
    world.dovecot.login(person).messages("INBOX").len()
}

/// Mail straight from a server of the sender's.
fn arrives(world: &World, from: &str, to: &[&str], letter: &Letter) {
    SmtpClient::connect(world.gateway.mx()).send(from, to, &letter.raw()).unwrap();
}

/// The addresses at which a mail's Cc can be answered.
fn copied(mail: &str) -> Vec<String> {
    let unfolded = mail.replace("\r\n ", " ");
    let Some(field) = unfolded.split("\r\nCc:").nth(1) else { return Vec::new() };
    let field = field.split("\r\n").next().unwrap_or_default();
    field
        .split(',')
        .map(|one| one.split('<').nth(1).unwrap_or(one).trim_matches([' ', '>']).to_owned())
        .collect()
}

both! {
    fn what_a_colleagues_mailbox_showed_first_is_passed_on_all_the_same(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let ben = world.user(2, "Ben Low");
        world.crm.await_account(&world.connect(&ben));
        let answer = Letter::new(&bob.address, &[towards_ann])
            .cc(&[&ben.person.address])
            .answering(first)
            .text("In oak, please.\n");
        world.dovecot.deliver(&bob.address, &ben.person, &answer.raw()).unwrap();
        let received = world.crm.await_mail("message.received", &answer.id);
        world.client_sends(bob, &[towards_ann], &answer);
        let mail = world.await_mail(&ann.person, "INBOX", &answer.id);
        assert!(mail.contains("In oak, please."), "{mail}");
        world.gateway.settle();
        assert_eq!(received["data"]["conversation_id"], conversation.id.as_str());
        let told = world.crm.events_of("message.received");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(conversation.messages().len(), 2);
        assert_eq!(inbox(world, &ann.person), 1);
    }

    fn each_user_has_addresses_of_his_own_and_gets_what_is_for_him(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let (ben, towards_ben) = ben_joins(&conversation);
        let for_ben = Letter::new(&bob.address, &[&towards_ben]).answering(first);
        conversation.world.client_sends(bob, &[&towards_ben], &for_ben);
        world.await_mail(&ben.person, "INBOX", &for_ben.id);

        // To both in one transaction, then to both in one each.
        let to = [towards_ann.as_str(), &towards_ben];
        let for_both = Letter::new(&bob.address, &to).answering(first);
        arrives(world, &bob.address, &to, &for_both);
        let one_by_one = Letter::new(&bob.address, &to).answering(first);
        for address in to {
            arrives(world, &bob.address, &[address], &one_by_one);
        }
        for letter in [&for_both, &one_by_one] {
            for user in [ann, &ben] {
                world.await_mail(&user.person, "INBOX", &letter.id);
            }
        }
        world.gateway.settle();
        assert_eq!((inbox(world, &ann.person), inbox(world, &ben.person)), (2, 3));
        assert_eq!(world.crm.events_of("message.received").len(), 3);
        let shown = world.crm.await_mail("message.received", &one_by_one.id);
        let shown = world.crm.await_delivery(text(&shown["data"], "message_id"), "sent");
        assert_eq!(shown["delivery"]["recipients"].as_array().map(Vec::len), Some(2));
    }

    fn an_answer_goes_to_those_the_user_was_shown_and_to_no_other(engine) {
        let conversation = Conversation::with(engine, |world| {
            json!({
                "cc": [{ "email": world.customer(2).address, "name": "Cora Dee" }],
                "bcc": [{ "email": world.customer(3).address }],
            })
        });
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let (cora, dan, eve) = (world.customer(2), world.customer(3), world.customer(4));
        for hidden in [&cora, &dan] {
            world.await_mail(hidden, "INBOX", first);
        }
        let alone = Letter::new(&bob.address, &[towards_ann]).answering(first);
        conversation.bob_answers(&alone);
        let mail = world.await_mail(&ann.person, "INBOX", &alone.id);
        assert_eq!(copied(&mail), [""; 0]);
        let reply = Letter::new(&ann.person.address, &[&sender(&mail, "")]).answering(&alone.id);
        world.client_sends(&ann.person, &[&sender(&mail, "")], &reply);
        world.await_mail(bob, "INBOX", &reply.id);

        // Cora takes part already; Eve is nobody here, and does not come in by Bob's Cc.
        let to_all = Letter::new(&bob.address, &[towards_ann])
            .cc(&[&format!("Cora Dee <{}>", cora.address), &eve.address])
            .answering(first);
        conversation.bob_answers(&to_all);
        let mail = world.await_mail(&ann.person, "INBOX", &to_all.id);
        assert_free_of(&mail, &[&cora.address, &eve.address, &bob.address]);
        let [towards_cora] = &copied(&mail)[..] else { panic!("{mail}") };
        let towards_bob = sender(&mail, "");
        let to = [towards_bob.as_str(), towards_cora];
        let reply_to_all = Letter::new(&ann.person.address, &to[..1]).cc(&to[1..]).answering(&to_all.id);
        world.client_sends(&ann.person, &to, &reply_to_all);
        for person in [bob, &cora] {
            world.await_mail(person, "INBOX", &reply_to_all.id);
        }
        world.gateway.settle();
        for (person, count) in [(bob, 3), (&cora, 2), (&dan, 1), (&eve, 0)] {
            assert_eq!(inbox(world, person), count, "{}", person.address);
        }
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
    }

    fn a_user_answers_from_any_of_his_addresses(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let aliases = json!({ "aliases": ["lee@clients.example.test"] });
        world.crm.patch(&format!("/users/{}", ann.id), &aliases);
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let towards_bob = sender(&world.await_mail(&ann.person, "INBOX", &answer.id), "");
        let reply = Letter::new("Ann <lee@clients.example.test>", &[&towards_bob]).answering(&answer.id);
        arrives(world, "lee@clients.example.test", &[&towards_bob], &reply);
        let mail = world.await_mail(bob, "INBOX", &reply.id);
        assert_eq!(&sender(&mail, "Ann"), towards_ann);
        assert_free_of(&mail, &["lee@clients"]);
        assert_eq!(world.crm.events_of("message.held"), Vec::<Value>::new());
    }

    fn a_user_who_cannot_be_reached_is_visibly_not_reached(engine) {
        let world = World::start(engine);
        world.set_smarthost();
        let gone = format!("nobody@{}", world.dovecot.options.domain);
        let user = world.crm.post("/users", &json!({ "email": gone, "name": "Ann Lee" }));
        let bob = world.customer(1);
        let body = json!({
            "from_user_id": user["id"], "to": [{ "email": bob.address }], "subject": "Desks", "text": "Hello.",
        });
        let sent = world.crm.post("/messages", &body);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let first = text(&shown, "rfc822_message_id");
        let towards_ann = sender(&world.await_mail(&bob, "INBOX", first), "Ann Lee");
        let answer = Letter::new(&bob.address, &[&towards_ann]).answering(first);
        world.client_sends(&bob, &[&towards_ann], &answer);
        let bounced = world.crm.await_mail("message.bounced", &answer.id);
        assert_eq!(bounced["data"]["recipients"][0]["address"], gone.as_str());
        let shown = world.crm.get(&format!("/messages/{}", text(&bounced["data"], "message_id")));
        assert_eq!((text(&shown, "direction"), text(&shown["delivery"], "state")), ("inbound", "bounced"));
    }

    fn what_was_held_goes_to_the_address_the_user_has_now_and_is_told_of(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        let message = held(&conversation, &answer);
        let anna = world.dovecot.user(3);
        world.crm.patch(&format!("/users/{}", ann.id), &json!({ "email": anna.address }));
        world.set_smarthost();
        world.await_mail(&anna, "INBOX", &answer.id);
        world.crm.await_mail("message.sent", &answer.id);
        let shown = world.crm.await_delivery(&message, "sent");
        assert_eq!(shown["delivery"]["recipients"][0]["address"], anna.address.as_str());
        assert_eq!(inbox(world, &ann.person), 0);
    }

    fn what_is_for_a_user_who_is_gone_is_held_and_not_tried_for_ever(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        held(&conversation, &answer);
        world.crm.delete(&format!("/users/{}", ann.id));
        world.set_smarthost();
        world.crm.await_event("message.held", |data| text(data, "reason").contains("no longer a user"));
        world.set_smarthost();
        world.gateway.settle();
        assert_eq!(world.crm.events_of("message.held").len(), 2);
    }

    fn a_colleagues_masked_copy_is_the_message_it_is_a_copy_of(engine) {
        let world = World::start(engine);
        let (ann, ben, bob) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"), world.customer(1));
        world.set_smarthost();
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.await_account(&world.connect(&ben));
        let body = json!({
            "from_user_id": ann.id,
            "to": [{ "email": bob.address }],
            "cc": [{ "email": ben.person.address }],
            "subject": "Ten desks",
            "text": "Here is our offer.",
        });
        let sent = world.crm.post("/messages", &body);
        let path = format!("/messages/{}", text(&sent, "id"));
        let mut shown = Value::Null;
        wait_for("Ben's copy to be seen", PATIENCE, || {
            shown = world.crm.ask(&path).body;
            let seen = shown["sightings"].as_array().into_iter().flatten();
            seen.into_iter().any(|one| one["via"] == "account" && one["mailbox"] == "INBOX")
        });
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 1);
        let told: Vec<_> = world.crm.events().into_iter().filter(|e| text(e, "type").starts_with("message.")).collect();
        assert_eq!(told.iter().map(|event| text(event, "type")).collect::<Vec<_>>(), ["message.sent"]);
    }

    fn machines_that_answer_each_other_are_stopped(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, bob, towards_ann, first, .. } = &conversation;
        for _ in 0..31 {
            arrives(world, &bob.address, &[towards_ann], &Letter::new(&bob.address, &[towards_ann]).answering(first));
        }
        world.crm.await_event("message.held", |data| text(data, "reason").contains("loop"));
        world.gateway.settle();
        assert_eq!(world.crm.events_of("message.held").len(), 1);
        assert_eq!(conversation.messages().len(), 31);
    }
}

#[test]
fn without_a_domain_for_reply_addresses_nothing_is_accepted_that_could_not_leave() {
    let world = Sandboxed::with(Engine::Sqlite, mailweave::sandbox::Behaviour::default(), |config| {
        config.domains.reply = None;
    });
    let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
    world.set_smarthost(&ann.person);
    let body = |class: &str| {
        json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Hi", "text": "Hi.", "class": class,
        })
    };
    let refused = world.crm.try_post("/messages", &body("individual"));
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("no_way_out")), "{refused:?}");
    assert!(text(&refused.body, "detail").contains("domains.reply"), "{refused:?}");
    world.crm.post("/messages", &body("bulk"));
}
