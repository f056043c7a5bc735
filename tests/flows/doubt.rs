//! Sends whose answer is lost: never taken for sent without proof, never repeated without end, and shown all the while.
//!
//! Not here: the plain case, found in Sent or sent once more (`delivery`).

use std::time::Duration;

use mailweave::mail::Address;
use mailweave::sandbox::{Act, Behaviour, Service, Trigger};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    delivery::recipient,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, store::Engine, wait_for},
    world::accepted_id,
};

/// Lets time pass until a message's delivery is in this state.
#[track_caller]
fn hasten_until(world: &Sandboxed, message: &str, state: &str) -> Value {
    let mut shown = Value::Null;
    wait_for(&format!("{message} to be {state}"), PATIENCE, || {
        world.gateway.hasten();
        // Accepted is not filed yet.
        shown = world.crm.ask(&format!("/messages/{message}")).body;
        shown["delivery"]["state"] == state
    });
    shown
}

fn state_of<'a>(shown: &'a Value, address: &str) -> &'a str {
    text(recipient(shown, address), "state")
}

both! {
    fn a_copy_of_what_others_were_sent_proves_nothing_for_the_rest(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.connect(&ann);
        let greylist = Trigger::next(Service::Submission, "RCPT").containing(&cora.address);
        world.provider().arm(greylist, Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let message = world.post_message(&ann, &[&bob.address, &cora.address], "Hello");
        let shown = world.crm.await_delivery(&message, "deferred");
        let id = text(&shown, "rfc822_message_id").to_owned();
        assert_eq!(world.mails(&ann.person, "Sent", &id).len(), 1);
        // Now only Cora is left, and the server never gets her copy.
        world.arm("DOT", Act::Drop);
        world.gateway.hasten();
        world.crm.await_event("message.uncertain", |data| data["message_id"] == message.as_str());
        hasten_until(&world, &message, "sent");
        for prospect in [&bob, &cora] {
            assert_eq!(world.mails(prospect, "INBOX", &id).len(), 1, "{}", prospect.address);
        }
    }

    fn what_the_server_refused_before_the_dot_is_written_down_before_it(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let gone = "gone@prospects.example";
        world.arm("DOT", Act::Linger(Duration::from_secs(5)));
        let message = world.post_message(&ann, &[&bob.address, gone], "Hello");
        let shown = world.crm.await_delivery(&message, "sending");
        assert_eq!((state_of(&shown, &bob.address), state_of(&shown, gone)), ("sending", "bounced"));
        let shown = world.crm.await_delivery(&message, "sent");
        assert_eq!((state_of(&shown, &bob.address), state_of(&shown, gone)), ("sent", "bounced"));
    }

    fn nobody_is_sent_to_who_is_settled_by_the_time_of_the_dot(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.arm("DATA", Act::Linger(Duration::from_secs(5)));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        wait_for("the server to be asked", PATIENCE, || !world.heard(Service::Submission, "DATA").is_empty());
        world.gateway.execute("update submission_recipients set state = 'bounced'");
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "DOT"), Vec::<String>::new());
        let shown = world.crm.get(&format!("/messages/{message}"));
        assert_eq!(state_of(&shown, &bob.address), "bounced");
        assert!(world.mails(&bob, "INBOX", text(&shown, "rfc822_message_id")).is_empty());
    }

    fn a_provider_that_never_answers_is_handed_a_message_twice_and_no_more(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.provider().arm(Trigger::always(Service::Submission, "DOT"), Act::Drop);
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        hasten_until(&world, &message, "held");
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 2);
        let held = world.crm.await_event("message.held", |data| data["message_id"] == message.as_str());
        assert!(text(&held["data"], "reason").contains("never said"), "{held}");
        // What may have been sent is not sent again because an account is connected anew.
        world.provider().disarm();
        let login = json!({ "type": "password", "username": ann.person.address, "password": ann.person.password });
        world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": login }));
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 2);
    }

    fn a_copy_that_was_met_in_sent_is_proof_wherever_it_lies_by_then(engine) {
        let world = Sandboxed::with(engine, Behaviour::gmail(), |config| {
            config.outbound.reconcile = vec![Duration::from_secs(6)];
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.arm("DOT", Act::DropAfter(0));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_event("message.uncertain", |data| data["message_id"] == message.as_str());
        wait_for("the copy in Sent to be met", PATIENCE, || {
            let sightings = world.crm.get(&format!("/messages/{message}"))["sightings"].clone();
            sightings.as_array().is_some_and(|seen| seen.iter().any(|one| one["via"] == "account"))
        });
        let address = Address::parse(&ann.person.address).unwrap();
        for mail in world.provider().messages(&address, "Sent") {
            world.provider().expunge(&address, "Sent", mail.uid).unwrap();
        }
        let shown = hasten_until(&world, &message, "sent");
        assert_eq!(world.mails(&bob, "INBOX", text(&shown, "rfc822_message_id")).len(), 1);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 1);
    }

    fn a_failure_is_reported_when_it_is_known_and_each_once(engine) {
        let world = Sandboxed::start(engine, Behaviour::smarthost());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let crm = Address::parse(&ann.person.address).unwrap();
        world.set_smarthost(&ann.person);
        let mut client = world.workspace_client();
        let greylist = Trigger::next(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(greylist, Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let gone = "gone@prospects.example";
        let letter = Letter::new(&ann.person.address, &[&bob.address, gone]).field("X-Mailweave-Class", "bulk");
        let taken = client.send(&crm.to_string(), &[&bob.address, gone], &letter.raw()).unwrap();
        let message = accepted_id(&taken);
        let reports = || -> Vec<String> {
            let mails = world.provider().inbox(&crm).into_iter();
            mails.map(|mail| String::from_utf8_lossy(&mail.raw).into_owned()).collect()
        };
        // Bob's server is still to be asked again.
        wait_for("the first report", PATIENCE, || reports().len() == 1);
        assert!(reports()[0].contains(&format!("Final-Recipient: rfc822;{gone}")));
        assert_eq!(world.crm.get(&format!("/messages/{message}"))["delivery"]["state"], "deferred");

        let refuse = Trigger::next(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(refuse, Act::Answer("550 5.1.1 No such user".to_owned()));
        world.gateway.hasten();
        wait_for("the second report", PATIENCE, || reports().len() == 2);
        let second = reports().pop().unwrap_or_default();
        assert!(second.contains(&format!("Final-Recipient: rfc822;{}", bob.address)), "{second}");
        assert!(!second.contains(&format!("Final-Recipient: rfc822;{gone}")), "{second}");
        world.gateway.settle();
        assert_eq!(reports().len(), 2);
    }

    fn a_report_that_may_have_gone_out_is_not_sent_again(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        world.set_smarthost(&ann.person);
        let report = Trigger::next(Service::Submission, "MAIL").containing("<>");
        world.provider().arm(report, Act::Answer("451 4.3.0 Later".to_owned()));
        let mut client = world.workspace_client();
        let letter = Letter::new(&ann.person.address, &["gone@prospects.example"]).field("X-Mailweave-Class", "bulk");
        let taken = client.send(&ann.person.address, &["gone@prospects.example"], &letter.raw()).unwrap();
        world.crm.await_delivery(&accepted_id(&taken), "bounced");
        let tries = || world.heard(Service::Submission, "MAIL").iter().filter(|line| line.contains("<>")).count();
        wait_for("the report to be put off", PATIENCE, || tries() == 1);
        world.gateway.settle();
        // As a crash after the final dot of the next try leaves it.
        world.gateway.execute("update submissions set dsn = replace(dsn, '}', \
            ',\"told\":[{\"recipient\":\"gone@prospects.example\",\"state\":\"bounced\"}]}')");
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(tries(), 1);
    }
}

/// The same for a smarthost, which has no Sent to look into.
#[test]
fn a_smarthost_that_never_answers_is_handed_a_letter_twice_and_no_more() {
    let world = Sandboxed::start(Engine::Sqlite, Behaviour::default());
    let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
    world.set_smarthost(&ann.person);
    world.provider().arm(Trigger::always(Service::Submission, "DOT"), Act::Drop);
    let letter = Letter::new(&ann.person.address, &[&bob.address]).field("X-Mailweave-Class", "bulk");
    let taken = world.workspace_client().send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap();
    hasten_until(&world, &accepted_id(&taken), "held");
    assert_eq!(world.heard(Service::Submission, "DOT").len(), 2);
}
