//! What becomes of a message that was accepted: sent once, or visibly refused, deferred or uncertain, for each recipient.
//!
//! Not here: what is sent (`submission`).

use std::time::Duration;

use mailweave::sandbox::{Act, Behaviour, Service, Trigger};
use serde_json::Value;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{World, accepted_id, assert_free_of},
};

/// A recipient's part of a message's delivery.
#[track_caller]
pub fn recipient<'a>(message: &'a Value, address: &str) -> &'a Value {
    let recipients = message["delivery"]["recipients"].as_array().expect("it has recipients");
    recipients.iter().find(|one| one["address"] == address).expect("he is one of them")
}

/// The events about a message, as the last part of their types.
fn told(world: &Sandboxed, message: &str) -> Vec<String> {
    let events = world.crm.events().into_iter().filter(|event| event["data"]["message_id"] == message);
    events.map(|event| text(&event, "type").trim_start_matches("message.").to_owned()).collect()
}

both! {
    fn whom_a_server_has_no_room_for_is_in_another_transaction_at_once(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.connect(&ann);
        let full = Trigger::next(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(full, Act::Answer("452 4.5.3 Too many recipients".to_owned()));
        let message = world.post_message(&ann, &[&bob.address, &cora.address], "Hello");
        let shown = world.crm.await_delivery(&message, "sent");
        let id = text(&shown, "rfc822_message_id");
        for person in [&bob, &cora] {
            assert_eq!(text(recipient(&shown, &person.address), "state"), "sent");
            assert_eq!(world.mails(person, "INBOX", id).len(), 1);
        }
        assert_eq!(world.crm.events_of("message.deferred"), Vec::<Value>::new());

        // Nobody was beside him: it is his own trouble, and is told.
        let full = Trigger::always(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(full, Act::Answer("452 4.2.2 Mailbox full".to_owned()));
        let message = world.post_message(&ann, &[&bob.address, &cora.address], "Hello");
        let shown = world.crm.await_delivery(&message, "deferred");
        assert_eq!(text(recipient(&shown, &cora.address), "state"), "sent");
        assert_eq!(recipient(&shown, &bob.address)["code"], 452);
    }

    fn recipients_that_are_refused_are_told_apart_and_reported_as_the_crm_asked(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let reports = world.dovecot.user(2);
        world.connect(&ann);
        let gone = format!("nobody@{}", world.dovecot.options.customers_domain);
        let letter = Letter::new(&ann.person.address, &[&bob.address, &gone]);

        let key = world.smtp_key();
        let mut client = world.submission_client();
        client.auth_plain(&Person { address: ann.person.address.clone(), password: key });
        client.expect(250, &format!("MAIL FROM:<{}> RET=HDRS ENVID=order-77", reports.address));
        client.expect(250, &format!("RCPT TO:<{}> NOTIFY=FAILURE", bob.address));
        client.expect(250, &format!("RCPT TO:<{gone}> NOTIFY=FAILURE ORCPT=rfc822;{gone}"));
        client.expect(354, "DATA");
        let taken = client.expect(250, &format!("{}.", letter.raw().replace('\n', "\r\n")));

        world.await_mail(&bob, "INBOX", &letter.id);
        let shown = world.crm.await_delivery(&accepted_id(&taken), "sent");
        assert_eq!(text(recipient(&shown, &bob.address), "state"), "sent");
        let refused = recipient(&shown, &gone);
        assert_eq!((text(refused, "state"), refused["code"].as_u64()), ("bounced", Some(550)));
        assert!(text(refused, "text").contains("User unknown"), "{refused}");
        let bounced = world.crm.await_mail("message.bounced", &letter.id);
        assert_eq!(bounced["data"]["recipients"].as_array().map(Vec::len), Some(2));

        let mut report = None;
        wait_for("the report", PATIENCE, || {
            report = world.dovecot.login(&reports).messages("INBOX").pop();
            report.is_some()
        });
        let report = report.expect("the wait has ended");
        assert!(report.contains("Return-Path: <>"), "{report}");
        for part in [
            "report-type=\"delivery-status\"",
            "Original-Envelope-Id: order-77",
            &format!("Final-Recipient: rfc822;{gone}"),
            "Action: failed",
            "Status: 5.1.1",
        ] {
            assert!(report.to_lowercase().contains(&part.to_lowercase()), "{part} in {report}");
        }
        assert_free_of(&report, &[&format!("Final-Recipient: rfc822;{}", bob.address), "This is what number"]);
        world.gateway.settle();
        assert_eq!(world.dovecot.login(&reports).messages("INBOX").len(), 1);
        // Success is told of too, when it was asked for.
        let welcome = Letter::new(&ann.person.address, &[&bob.address]);
        client.expect(250, &format!("MAIL FROM:<{}>", reports.address));
        client.expect(250, &format!("RCPT TO:<{}> NOTIFY=SUCCESS", bob.address));
        client.expect(354, "DATA");
        client.expect(250, &format!("{}.", welcome.raw().replace('\n', "\r\n")));
        wait_for("the second report", PATIENCE, || {
            let report = world.dovecot.login(&reports).messages("INBOX").pop().unwrap_or_default();
            report.contains("Action: relayed") && report.contains(&welcome.id)
        });
        // Strangers get no mail from us: the null path is never answered.
        let silent = Letter::new(&ann.person.address, &[&gone]);
        let taken = client.send("", &[&gone], &silent.raw()).unwrap();
        world.crm.await_delivery(&accepted_id(&taken), "bounced");
        world.gateway.settle();
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
    }

    fn what_is_deferred_is_tried_again_until_it_is_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.connect(&ann);
        world.arm("RCPT", Act::Answer("451 4.7.1 Greylisted, come back later".to_owned()));
        let message = world.post_message(&ann, &[&bob.address, &cora.address], "Hello");
        let shown = world.crm.await_delivery(&message, "deferred");
        let deferred = recipient(&shown, &bob.address);
        assert_eq!((text(deferred, "state"), deferred["code"].as_u64()), ("deferred", Some(451)));
        assert!(text(deferred, "text").contains("Greylisted"));
        assert_eq!(text(recipient(&shown, &cora.address), "state"), "sent");
        assert!(shown["delivery"]["next_attempt_at"].is_string(), "{shown}");

        world.gateway.hasten();
        let shown = world.crm.await_delivery(&message, "sent");
        world.gateway.settle();
        assert_eq!(told(&world, &message), ["deferred", "sent"]);
        let id = text(&shown, "rfc822_message_id");
        for prospect in [&bob, &cora] {
            assert_eq!(world.mails(prospect, "INBOX", id).len(), 1, "{}", prospect.address);
        }
    }

    fn a_provider_that_hangs_up_or_is_down_defers(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        for (verb, act) in [
            ("CONNECT", Act::Drop),
            ("EHLO", Act::Bye("4.3.2 Going down".to_owned())),
            ("MAIL", Act::Answer("452 4.3.1 No room".to_owned())),
            ("DATA", Act::Drop),
            ("DOT", Act::Answer("451 4.3.0 Try again".to_owned())),
        ] {
            world.arm(verb, act);
            let message = world.post_message(&ann, &[&bob.address], verb);
            world.crm.await_delivery(&message, "deferred");
            world.gateway.hasten();
            let shown = world.crm.await_delivery(&message, "sent");
            assert_eq!(world.mails(&bob, "INBOX", text(&shown, "rfc822_message_id")).len(), 1, "{verb}");
        }
        let errors = world.crm.list(&format!("/accounts/{account}/errors"));
        assert!(errors.iter().any(|error| error["advice"].is_string()), "{errors:?}");
    }

    fn a_lost_answer_is_uncertain_until_the_message_is_found_in_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        // The provider takes and files it; its 250 never arrives.
        world.arm("DOT", Act::DropAfter(0));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_event("message.uncertain", |data| data["message_id"] == message.as_str());
        let shown = world.crm.await_delivery(&message, "sent");
        world.gateway.settle();
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(told(&world, &message), ["uncertain", "sent"]);
        let id = text(&shown, "rfc822_message_id");
        assert_eq!(world.mails(&bob, "INBOX", id).len(), 1);
        assert_eq!(world.mails(&ann.person, "Sent", id).len(), 1);
    }

    fn a_message_that_is_not_in_sent_is_sent_again_under_the_same_id(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.arm("DOT", Act::Drop);
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_event("message.uncertain", |data| data["message_id"] == message.as_str());
        let before = world.crm.get(&format!("/messages/{message}"));
        assert_eq!(world.mails(&bob, "INBOX", text(&before, "rfc822_message_id")).len(), 0);
        wait_for("the message to be sent again", PATIENCE, || {
            world.gateway.hasten();
            world.crm.get(&format!("/messages/{message}"))["delivery"]["state"] == "sent"
        });
        let after = world.crm.get(&format!("/messages/{message}"));
        assert_eq!(after["rfc822_message_id"], before["rfc822_message_id"]);
        let id = text(&after, "rfc822_message_id");
        world.gateway.settle();
        assert_eq!(world.mails(&bob, "INBOX", id).len(), 1);
        assert_eq!(world.mails(&ann.person, "Sent", id).len(), 1);
        let told = told(&world, &message);
        assert_eq!((told.first().map(String::as_str), told.last().map(String::as_str)), (Some("uncertain"), Some("sent")));
        assert_eq!(told.iter().filter(|what| *what == "sent").count(), 1);
    }

    fn a_provider_that_renames_messages_does_not_make_two_of_one(engine) {
        let world = Sandboxed::with(engine, Behaviour::outlook(), |config| {
            config.outbound.sent_copy_wait = Duration::from_secs(20);
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "sent");
        wait_for("the copy in Sent", PATIENCE, || {
            world.gateway.hasten();
            let shown = world.crm.get(&format!("/messages/{message}"));
            shown["sightings"].as_array().is_some_and(|seen| seen.iter().any(|one| one["via"] == "account"))
        });
        world.gateway.settle();
        let address = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        assert_eq!(world.provider().messages(&address, "Sent").len(), 1);
        assert_eq!(world.crm.messages().len(), 1);
    }

    fn what_nobody_delivers_within_its_lifetime_bounces(engine) {
        let world = Sandboxed::with(engine, Behaviour::gmail(), |config| {
            config.outbound.retry_lifetime = Duration::ZERO;
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.arm("RCPT", Act::Answer("451 4.2.1 Not now".to_owned()));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        let shown = world.crm.await_delivery(&message, "bounced");
        let given_up = recipient(&shown, &bob.address);
        assert!(text(given_up, "text").contains("Not now"), "{given_up}");
        assert_eq!(told(&world, &message), ["bounced"]);
    }
}

/// A letter is sent by the smarthost in doubt too: there is no Sent to look into, so it is visibly uncertain, then sent
/// again under its id.
#[test]
fn a_smarthost_that_loses_the_answer_is_asked_again_under_the_same_id() {
    let world = Sandboxed::start(Engine::Sqlite, Behaviour::default());
    let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
    world.set_smarthost(&ann.person);
    let mut client = world.workspace_client();
    world.arm("DOT", Act::Drop);
    let letter = Letter::new(&ann.person.address, &[&bob.address]).field("X-Mailweave-Class", "bulk");
    let taken = client.send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap();
    let message = accepted_id(&taken);
    world.crm.await_event("message.uncertain", |data| data["message_id"] == message.as_str());
    wait_for("the message to be sent again", PATIENCE, || {
        world.gateway.hasten();
        world.crm.get(&format!("/messages/{message}"))["delivery"]["state"] == "sent"
    });
    assert_eq!(world.mails(&bob, "INBOX", &letter.id).len(), 1);
}
