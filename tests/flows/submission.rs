//! What the CRM hands in leaves from the user's own address, as he would have sent it himself.
//!
//! Not here: what is refused (`submission_refusals`), and servers that defer, refuse or vanish (`delivery`).

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    support::{PATIENCE, Person, wait_for},
    world::{User, World, accepted_id, assert_free_of},
};

/// Waits until the message was also seen in Sent, and returns it.
#[track_caller]
fn await_sent_copy(world: &World, message: &str) -> Value {
    let mut shown = Value::Null;
    wait_for("the copy in Sent", PATIENCE, || {
        world.gateway.hasten();
        shown = world.crm.ask(&format!("/messages/{message}")).body;
        let sightings = shown["sightings"].as_array().into_iter().flatten();
        sightings.into_iter().any(|seen| seen["via"] == "account" && seen["mailbox"] == "Sent")
    });
    shown
}

fn login(user: &User, key: &str) -> Person {
    Person { address: user.person.address.clone(), password: key.to_owned() }
}

both! {
    fn mail_handed_in_over_smtp_leaves_by_the_users_account_and_lies_in_his_sent_once(engine) {
        let world = World::start(engine);
        let ann = world.user(1, "Ann Lee");
        world.connect(&ann);
        let [bob, cora, dan] = [1, 2, 3].map(|number| world.customer(number));
        let letter = Letter::new(&format!("Ann Lee <{}>", ann.person.address), &[&bob.address, &ann.capture_address])
            .cc(&[&cora.address])
            .field("Bcc", &dan.address)
            .field("X-Mailweave-Class", "individual")
            .field("X-Mailweave-Idempotency-Key", "order-1")
            .answering("earlier@clients.example.test");
        let to = [bob.address.as_str(), &cora.address, &dan.address, &ann.capture_address];
        let key = world.smtp_key();
        world.swaks_sends(world.gateway.submission(), &login(&ann, &key), &to, &letter.raw());

        for customer in [&bob, &cora, &dan] {
            let mail = world.await_mail(customer, "INBOX", &letter.id);
            assert!(mail.contains(&format!("Return-Path: <{}>", ann.person.address)), "{mail}");
            assert!(mail.contains(&format!("\r\nFrom: Ann Lee <{}>\r\n", ann.person.address)), "{mail}");
            assert!(mail.contains("\r\nIn-Reply-To: <earlier@clients.example.test>\r\n"), "{mail}");
            assert!(mail.contains("\r\nReferences: <earlier@clients.example.test>\r\n"), "{mail}");
            assert_free_of(&mail, &["\r\nBcc:", "X-Mailweave", "order-1", &ann.capture_address]);
        }
        for customer in [&bob, &cora] {
            assert_free_of(&world.await_mail(customer, "INBOX", &letter.id), &[&dan.address]);
        }

        let sent = world.crm.await_mail("message.sent", &letter.id);
        let shown = await_sent_copy(&world, text(&sent["data"], "message_id"));
        assert_eq!((text(&shown, "direction"), text(&shown["delivery"], "state")), ("outbound", "sent"));
        let recipients = shown["delivery"]["recipients"].as_array().unwrap();
        let told: Vec<_> = recipients.iter().map(|one| (text(one, "address"), text(one, "state"))).collect();
        let expected: Vec<_> = [&bob, &cora, &dan].map(|one| (one.address.as_str(), "sent")).to_vec();
        assert_eq!(told, expected);
        assert_eq!(shown["bcc"], json!([{ "email": dan.address }]));

        world.gateway.settle();
        assert_eq!(world.count_mail(&ann.person, "Sent", &letter.id), 1);
        let mut imap = world.dovecot.login(&ann.person);
        imap.expect("EXAMINE Sent");
        let flags = imap.expect("FETCH 1 (FLAGS)").lines.join("\n");
        assert!(flags.contains("\\Seen"), "{flags}");
        assert_eq!(world.crm.events_of("message.sent").len(), 1);
        // The capture address among the recipients makes contacts of those in To, as in any other mail.
        let created = world.crm.events_of("contact.created");
        assert_eq!(created.iter().map(|event| &event["data"]["email"]).collect::<Vec<_>>(), [&json!(bob.address)]);
    }

    fn a_provider_that_files_the_copy_itself_is_left_to_it(engine) {
        let world = World::with(engine, |config| config.outbound.sent_copy_wait = Duration::from_secs(60));
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.connect(&ann);
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let taken = world.hand_in(&ann, &world.smtp_key(), &[&bob.address], &letter).unwrap();
        world.await_mail(&bob, "INBOX", &letter.id);
        world.crm.await_delivery(&accepted_id(&taken), "sent");
        // The provider is somewhat late.
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &letter.raw());
        await_sent_copy(&world, &accepted_id(&taken));
        world.gateway.settle();
        assert_eq!(world.count_mail(&ann.person, "Sent", &letter.id), 1);
        assert_eq!(world.crm.events_of("message.sent").len(), 1);
        assert_eq!(world.crm.messages().len(), 1);
    }

    fn an_answer_sent_over_http_names_what_it_answers(engine) {
        let world = World::start(engine);
        let (ann, bob, cora) = (world.user(1, "Ann Lee"), world.customer(1), world.customer(2));
        world.connect(&ann);
        let first = Letter::new(&ann.person.address, &[&bob.address])
            .subject("Ten desks")
            .answering("earlier@clients.example.test");
        world.client_sends(&ann.person, &[&ann.capture_address], &first);
        let captured = world.crm.await_mail("message.captured", &first.id);

        let body = json!({
            "from_user_id": ann.id,
            "to": [{ "email": bob.address, "name": "Bob Ray" }],
            "bcc": [{ "email": cora.address }],
            "subject": "Re: Ten desks",
            "text": "They come in oak.",
            "reply_to_message_id": captured["data"]["message_id"],
        });
        let sent = world.crm.post("/messages", &body);
        assert_eq!(text(&sent, "state"), "queued");
        assert_eq!(sent["conversation_id"], captured["data"]["conversation_id"]);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let id = text(&shown, "rfc822_message_id");
        for customer in [&bob, &cora] {
            let mail = world.await_mail(customer, "INBOX", id);
            assert!(mail.contains(&format!("\r\nIn-Reply-To: <{}>\r\n", first.id)), "{mail}");
            let references = mail.split("\r\nReferences:").nth(1).expect("References");
            let references: Vec<_> = references.split_whitespace().take(2).collect();
            assert_eq!(references, ["<earlier@clients.example.test>".to_owned(), format!("<{}>", first.id)]);
            assert!(mail.contains("They come in oak."), "{mail}");
            assert_free_of(&mail, &["\r\nBcc:", "X-Mailweave", &ann.capture_address]);
        }
        assert_free_of(&world.await_mail(&bob, "INBOX", id), &[&cora.address]);
        await_sent_copy(&world, text(&sent, "id"));
        assert_eq!(world.count_mail(&ann.person, "Sent", id), 1);
        let conversation = text(&sent, "conversation_id");
        assert_eq!(world.crm.list(&format!("/conversations/{conversation}/messages")).len(), 2);
    }

    fn bulk_and_workflow_mail_leaves_by_the_smarthost(engine) {
        let world = World::start(engine);
        let (ann, bob, bounces) = (world.user(1, "Ann Lee"), world.customer(1), world.dovecot.user(2));
        world.connect(&ann);
        world.set_smarthost();
        let key = world.smtp_key();
        let mut client = world.submission_client();
        assert_eq!(client.auth_plain(&Person { address: "acme".to_owned(), password: key }).code, 235);
        for class in ["bulk", "workflow"] {
            let letter = Letter::new(&ann.person.address, &[&bob.address]).field("X-Mailweave-Class", class);
            let taken = client.send(&bounces.address, &[&bob.address], &letter.raw()).unwrap();
            let mail = world.await_mail(&bob, "INBOX", &letter.id);
            // By its own account it would be Ann's address.
            assert!(mail.contains(&format!("Return-Path: <{}>", bounces.address)), "{mail}");
            assert!(mail.contains(&format!("\r\nFrom: {}\r\n", ann.person.address)), "{mail}");
            assert_free_of(&mail, &["X-Mailweave"]);
            world.crm.await_delivery(&accepted_id(&taken), "sent");
        }
        world.gateway.settle();
        assert_eq!(world.dovecot.login(&ann.person).messages("Sent").len(), 0);
    }

    fn the_same_order_again_sends_nothing_twice(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.connect(&ann);
        let key = world.smtp_key();
        let hand_in =
            |letter: &Letter| accepted_id(&world.hand_in(&ann, &key, &[&bob.address], letter).unwrap());

        // The 250 was lost: the same transaction comes again.
        let plain = Letter::new(&ann.person.address, &[&bob.address]);
        let raw = plain.raw();
        let again = |raw: &str| {
            let mut client = world.submission_client();
            client.auth_plain(&login(&ann, &key));
            accepted_id(&client.send(&ann.person.address, &[&bob.address], raw).unwrap())
        };
        assert_eq!(again(&raw), again(&raw));

        // The CRM writes it anew, under the same key of its own.
        let keyed = |letter: Letter| {
            letter.subject("Invoice 7").text("Please pay.\n").field("X-Mailweave-Idempotency-Key", "invoice-7")
        };
        let first = keyed(Letter::new(&ann.person.address, &[&bob.address]));
        let anew = keyed(Letter::new(&ann.person.address, &[&bob.address]));
        assert_eq!(hand_in(&first), hand_in(&anew));

        let body = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Once", "text": "Once.",
        });
        let posted = [1, 2].map(|_| world.crm.try_post_once("/messages", &body, "click-1"));
        assert_eq!((posted[0].status, posted[1].status), (202, 202));
        assert_eq!(posted[0].body, posted[1].body);
        let mut other = body.clone();
        other["text"] = json!("Twice.");
        assert_eq!(world.crm.try_post_once("/messages", &other, "click-1").status, 409);

        for letter in [&plain, &first] {
            world.crm.await_mail("message.sent", &letter.id);
        }
        world.crm.await_delivery(text(&posted[0].body, "id"), "sent");
        wait_for("three mails", PATIENCE, || world.dovecot.login(&bob).messages("INBOX").len() == 3);
        world.gateway.settle();
        assert_eq!(world.crm.messages().len(), 3);
        assert_eq!(world.crm.events_of("message.sent").len(), 3);
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
        assert_eq!(world.dovecot.login(&bob).messages("INBOX").len(), 3);
    }
}
