//! Copies that do not get through: sent once or visibly not, and the message fares as if there were none.
//!
//! Not here: copies that do (`copies`).

use std::time::Duration;

use mailweave::{
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::User,
};

const DESK: &str = "desk@prospects.example";

/// Ann with a connected account, Bob as a contact, and mail of hers that he can answer.
struct Office {
    world: Sandboxed,
    ann: User,
    bob: Person,
    desk: Person,
}

impl Office {
    fn start(engine: Engine, overrides: &Value) -> Self {
        let world = Sandboxed::start(engine, Behaviour::smarthost());
        let (ann, bob, desk) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("desk"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/policy", &json!({ "overrides": overrides }));
        world.crm.await_account(&world.connect(&ann));
        Self { world, ann, bob, desk }
    }

    /// Bob answers something, and it is filed; returns the answer and its key.
    fn bob_answers(&self) -> (Letter, String) {
        let letter =
            Letter::new(&self.bob.address, &[&self.ann.person.address]).answering("offer@acme.example");
        let ann = Address::parse(&self.ann.person.address).unwrap();
        self.world.provider().deliver(&ann, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        let received = self.world.crm.await_mail("message.received", &letter.id);
        (letter, text(&received["data"], "message_id").to_owned())
    }

    /// Lets time pass until the only copy of a message is in this state.
    #[track_caller]
    fn hasten_until(&self, message: &str, state: &str) -> Value {
        let mut shown = Value::Null;
        wait_for(&format!("the copy of {message} to be {state}"), PATIENCE, || {
            self.world.gateway.hasten();
            shown = self.world.crm.get(&format!("/messages/{message}"));
            shown["copies"][0]["state"] == state
        });
        shown
    }

    fn told(&self, message: &str) -> Vec<String> {
        let events =
            self.world.crm.events().into_iter().filter(|event| event["data"]["message_id"] == message);
        events.map(|event| text(&event, "type").trim_start_matches("message.").to_owned()).collect()
    }
}

both! {
    fn faq_22_a_copy_whose_answer_is_lost_is_sent_once_more_and_never_a_third_time(engine) {
        let office = Office::start(engine, &json!({ "reply_copies": [DESK] }));
        let Office { world, desk, .. } = &office;
        world.set_smarthost(&office.ann.person);
        // The server never got it.
        world.arm("DOT", Act::Drop);
        let (letter, message) = office.bob_answers();
        office.hasten_until(&message, "sent");
        assert_eq!(world.mails(desk, "INBOX", &letter.id).len(), 1);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 2);
        assert_eq!(office.told(&message), ["received"]);

        world.provider().arm(Trigger::always(Service::Submission, "DOT"), Act::Drop);
        let (_, message) = office.bob_answers();
        let shown = office.hasten_until(&message, "held");
        assert!(text(&shown["copies"][0], "text").contains("never said"), "{shown}");
        let failed = world.crm.await_event("message.copy_failed", |data| data["message_id"] == message.as_str());
        assert_eq!(failed["data"]["recipients"][0]["address"], DESK);
        world.provider().disarm();
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 4);
        assert_eq!(office.told(&message), ["received", "copy_failed"]);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn faq_22_that_a_copy_may_be_on_its_way_is_written_down_before_the_dot(engine) {
        let office = Office::start(engine, &json!({ "reply_copies": [DESK] }));
        let Office { world, desk, .. } = &office;
        world.set_smarthost(&office.ann.person);
        world.arm("DOT", Act::Linger(Duration::from_secs(3)));
        let (letter, message) = office.bob_answers();
        office.hasten_until(&message, "sending");
        office.hasten_until(&message, "sent");
        assert_eq!(world.mails(desk, "INBOX", &letter.id).len(), 1);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 1);
    }

    fn faq_22_without_a_way_out_a_copy_is_held_and_goes_when_there_is_one(engine) {
        let office = Office::start(engine, &json!({ "reply_copies": [DESK] }));
        let Office { world, ann, bob, desk } = &office;
        // At her reply address, where nothing else leaves by an account.
        world.set_smarthost(&ann.person);
        let ben = world.user("ben", "Ben Low");
        let offer = world.post_message(&ben, &[&bob.address], "Offer");
        let first = text(&world.crm.await_delivery(&offer, "sent"), "rfc822_message_id").to_owned();
        let mail = world.mails(bob, "INBOX", &first).remove(0);
        let towards_ben = crate::relay::sender(&mail, "Ben Low");
        world.crm.delete("/smarthost");
        let letter = Letter::new(&bob.address, &[&towards_ben]).answering(&first);
        world.arrive(&bob.address, &[&towards_ben], &letter).unwrap();
        let received = world.crm.await_mail("message.received", &letter.id);
        let message = text(&received["data"], "message_id");
        office.hasten_until(message, "held");
        world.set_smarthost(&ann.person);
        office.hasten_until(message, "sent");
        for person in [desk, &ben.person] {
            wait_for(&person.address, PATIENCE, || world.mails(person, "INBOX", &letter.id).len() == 1);
        }
        assert_eq!(office.told(message).iter().filter(|told| *told == "received").count(), 1);
    }

    fn faq_22_two_machines_that_seem_to_be_people_are_not_copied_for_ever(engine) {
        let office = Office::start(engine, &json!({ "reply_copies": [DESK] }));
        let Office { world, ann, bob, desk } = &office;
        world.set_smarthost(&ann.person);
        let owner = Address::parse(&ann.person.address).unwrap();
        let mut last = Letter::new(&bob.address, &[&ann.person.address]).answering("offer@acme.example");
        for _ in 0..31 {
            let raw = last.raw().replace('\n', "\r\n");
            world.provider().deliver(&owner, raw.as_bytes()).unwrap();
            let before = last.id.clone();
            last = Letter::new(&bob.address, &[&ann.person.address]).answering(&before);
        }
        let failed = world.crm.await_event("message.copy_failed", |_| true);
        assert!(text(&failed["data"]["recipients"][0], "text").contains("loop"), "{failed}");
        wait_for("all to be filed", PATIENCE, || world.crm.events_of("message.received").len() == 31);
        let inbox = || world.provider().inbox(&Address::parse(&desk.address).unwrap()).len();
        wait_for("the copies", PATIENCE, || inbox() == 30);
        world.gateway.settle();
        assert_eq!(inbox(), 30);
    }

    fn faq_22_a_blind_copy_that_fails_is_told_apart_and_holds_nothing_up(engine) {
        let office = Office::start(engine, &json!({ "always_bcc": [DESK] }));
        let Office { world, ann, bob, desk } = &office;
        let of_desk = || Trigger::next(Service::Submission, "RCPT").containing(DESK);
        // Put off: the message is sent, and the copy follows.
        world.provider().arm(of_desk(), Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let message = world.post_message(ann, &[&bob.address], "Hello");
        let shown = world.crm.await_delivery(&message, "sent");
        let id = text(&shown, "rfc822_message_id");
        assert_eq!((&shown["copies"][0]["state"], &shown["copies"][0]["role"]), (&json!("deferred"), &json!("bcc")));
        office.hasten_until(&message, "sent");
        for person in [bob, desk] {
            assert_eq!(world.mails(person, "INBOX", id).len(), 1);
        }
        assert_eq!(office.told(&message), ["sent"]);
        // Refused: told apart, and not as a bounce of the message.
        world.provider().arm(of_desk(), Act::Answer("550 5.1.1 No such user".to_owned()));
        let message = world.post_message(ann, &[&bob.address], "Hello");
        let shown = world.crm.await_delivery(&message, "sent");
        assert_eq!(shown["copies"][0]["code"], 550);
        world.gateway.settle();
        let mut told = office.told(&message);
        told.sort_unstable();
        assert_eq!(told, ["copy_failed", "sent"]);
        // The message is not sent because its copy is.
        let refuse = Trigger::next(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(refuse, Act::Answer("550 5.1.1 No such user".to_owned()));
        let message = world.post_message(ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "bounced");
        world.gateway.settle();
        assert_eq!(office.told(&message), ["bounced"]);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }
}
