//! A user's copy to his capture address becomes contacts and a conversation.
//!
//! Not here: what is refused or held (`capture_refusals`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::{text, texts},
    letter::Letter,
    world::{World, accepted_id, assert_free_of},
};

/// What the CRM sees of one captured mail.
#[track_caller]
fn check(world: &World, letter: &Letter, capture_address: &str, (contact, name): (&str, &str)) {
    let captured = world.crm.await_mail("message.captured", &letter.id);
    let created = world.crm.await_event("contact.created", |data| data["email"] == contact);
    let [shown] = &world.crm.list(&format!("/contacts?email={contact}"))[..] else { panic!("one contact") };
    assert_eq!((text(shown, "name"), text(shown, "created_by")), (name, "capture"));
    assert_eq!(created["data"]["contact_id"], shown["id"]);
    assert_eq!(captured["data"]["contact_ids"], json!([shown["id"]]));

    let conversations = world.crm.list(&format!("/conversations?contact_id={}", text(shown, "id")));
    let [conversation] = &conversations[..] else { panic!("one conversation") };
    assert_eq!(conversation["id"], captured["data"]["conversation_id"]);
    let messages = world.crm.list(&format!("/conversations/{}/messages", text(conversation, "id")));
    let [message] = &messages[..] else { panic!("one message") };
    assert_eq!(message["id"], captured["data"]["message_id"]);
    assert_eq!((text(message, "direction"), text(message, "kind")), ("outbound", "mail"));
    assert_eq!(message["author"]["role"], "user");
    assert_eq!(message["contacts"], json!([{ "id": shown["id"], "role": "to" }]));
    assert_eq!(texts(message["sightings"].as_array().unwrap(), "via"), ["capture"]);
    // Not even the workspace's own users learn each other's capture addresses from what they read.
    assert_free_of(&message.to_string(), &[capture_address]);
}

both! {
    fn a_copy_in_bcc_cc_or_to_makes_the_contact_and_the_conversation(engine) {
        let world = World::start(engine);
        let ann = world.user(1, "Ann Lee");
        let [bob, cora, dan] = [1, 2, 3].map(|number| world.customer(number));
        let from = format!("Ann Lee <{}>", ann.person.address);
        let named = |name: &str, address: &str| format!("{name} <{address}>");

        let in_bcc = Letter::new(&from, &[&named("Bob Ray", &bob.address)]);
        world.client_sends(&ann.person, &[&bob.address, &ann.capture_address], &in_bcc);
        check(&world, &in_bcc, &ann.capture_address, (&bob.address, "Bob Ray"));

        let in_cc = Letter::new(&from, &[&named("Cora", &cora.address)]).cc(&[&ann.capture_address]);
        let to = [cora.address.as_str(), &ann.capture_address];
        world.swaks_sends(world.postfix.submission, &ann.person, &to, &in_cc.raw());
        check(&world, &in_cc, &ann.capture_address, (&cora.address, "Cora"));

        let in_to = Letter::new(&from, &[&named("Dan", &dan.address), &ann.capture_address]);
        world.client_sends(&ann.person, &[&dan.address, &ann.capture_address], &in_to);
        check(&world, &in_to, &ann.capture_address, (&dan.address, "Dan"));

        for (customer, letter) in [(&bob, &in_bcc), (&cora, &in_cc), (&dan, &in_to)] {
            world.await_mail(customer, "INBOX", &letter.id);
        }
        assert_eq!(world.crm.list("/conversations").len(), 3);
    }

    fn everybody_in_to_becomes_a_contact_except_those_who_never_should(engine) {
        let world = World::start(engine);
        let (ann, ben) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"));
        let [bob, cora, dan] = [1, 2, 3].map(|number| world.customer(number).address);
        let reply_address = "r-0123456789abcdef@reply.example.test";
        let to: Vec<&str> = vec![
            &bob, &cora, &ben.person.address, &ann.person.address, &ben.capture_address, reply_address,
            "no-reply@shop.example.test", "mailer-daemon@shop.example.test",
        ];
        let letter = Letter::new(&ann.person.address, &to).cc(&[&dan]);
        let recipients = [bob.as_str(), &cora, &dan, &ben.person.address, &ann.capture_address];
        world.client_sends(&ann.person, &recipients, &letter);

        let captured = world.crm.await_mail("message.captured", &letter.id);
        world.gateway.settle();
        let mut contacts = texts(&world.crm.list("/contacts"), "email");
        contacts.sort_unstable();
        assert_eq!(contacts, [bob.clone(), cora.clone()]);
        assert_eq!(texts(&texts_of(&world, "contact.created"), "email").len(), 2);
        let message = world.crm.get(&format!("/messages/{}", text(&captured["data"], "message_id")));
        assert_free_of(&message.to_string(), &[&ann.capture_address, &ben.capture_address, reply_address]);

        // The next mail knows them, and says so.
        let second = Letter::new(&ann.person.address, &[&bob]).answering(&letter.id);
        world.client_sends(&ann.person, &[&bob, &ann.capture_address], &second);
        let again = world.crm.await_mail("message.captured", &second.id);
        assert_eq!(again["data"]["conversation_id"], captured["data"]["conversation_id"]);
        world.crm.await_event("contact.matched", |data| data["email"] == bob.as_str());
        assert_eq!(world.crm.list("/contacts").len(), 2);
        assert_eq!(world.crm.list("/conversations").len(), 1);
    }

    fn the_same_transaction_again_is_the_same_message(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let raw = letter.raw();
        let arrive = || {
            let mut client = crate::support::clients::SmtpClient::connect(world.gateway.mx());
            accepted_id(&client.send(&ann.person.address, &[&ann.capture_address], &raw).unwrap())
        };
        let ids = [arrive(), arrive(), arrive()];
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[0], ids[2]);
        let message = || world.crm.ask(&format!("/messages/{}", ids[0])).body;
        crate::support::wait_for("three sightings", crate::support::PATIENCE, || {
            message()["sightings"].as_array().is_some_and(|sightings| sightings.len() == 3)
        });
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 1);
        assert_eq!(world.crm.events_of("message.captured").len(), 1);
        assert_eq!(world.crm.events_of("contact.created").len(), 1);
        assert!(world.crm.text(&format!("/messages/{}/raw", ids[0])).contains(&letter.id));
    }
}

/// The data of the events of this type.
fn texts_of(world: &World, kind: &str) -> Vec<Value> {
    world.crm.events_of(kind).iter().map(|event| event["data"].clone()).collect()
}
