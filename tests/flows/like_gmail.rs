//! An account at a provider like Gmail: labels in place of mailboxes, Sent copies that the provider files, its limits in its
//! words.
//!
//! Not here: the provider itself (`sandbox`), and tokens.

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Allowance, Behaviour, Farewell, FlagChange, Rate, Service},
};
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::User,
};

const ALL: &str = "[Gmail]/All Mail";
const SENT: &str = "[Gmail]/Sent Mail";

struct Office {
    world: Sandboxed,
    ann: User,
    bob: Person,
    account: String,
}

impl Office {
    fn start(engine: Engine, allowance: Allowance) -> Self {
        let world = Sandboxed::start(engine, Behaviour { allowance, ..Behaviour::google() });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann, bob, account }
    }

    fn address(&self) -> Address {
        Address::parse(&self.ann.person.address).unwrap()
    }

    fn count(&self, mailbox: &str) -> usize {
        self.world.provider().messages(&self.address(), mailbox).len()
    }

    fn status(&self) -> serde_json::Value {
        self.world.crm.get(&format!("/accounts/{}", self.account))["status"].clone()
    }

    /// Bob writes; returns once the CRM knows.
    fn receives(&self) -> Letter {
        let letter = Letter::new(&self.bob.address, &[&self.ann.person.address]);
        let raw = letter.raw().replace('\n', "\r\n");
        self.world.provider().deliver(&self.address(), raw.as_bytes()).unwrap();
        self.world.crm.await_mail("message.received", &letter.id);
        letter
    }
}

both! {
    fn mail_in_several_labels_is_one_message(engine) {
        let office = Office::start(engine, Allowance::gmail());
        office.receives();
        let labels = ["Deals".to_owned(), "Big deals".to_owned(), "\\Starred".to_owned()];
        office.world.provider().label(&office.address(), ("INBOX", 1), (FlagChange::Add, &labels)).unwrap();
        assert_eq!(["INBOX", ALL, "Deals", "Big deals"].map(|mailbox| office.count(mailbox)), [1; 4]);
        // Archived, and back in the inbox under another UID.
        let inbox = ["\\Inbox".to_owned()];
        for change in [FlagChange::Remove, FlagChange::Add] {
            office.world.provider().label(&office.address(), (ALL, 1), (change, &inbox)).unwrap();
        }
        office.world.provider().bump_uid_validity(&office.address(), ALL).unwrap();
        // What comes after it has been read after all that.
        let second = office.receives();
        office.world.gateway.settle();
        let messages = office.world.crm.messages();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(office.world.crm.events_of("message.received").len(), 2);
        assert!(messages.iter().any(|message| message["rfc822_message_id"] == second.id.as_str()));
    }

    fn what_is_sent_lies_in_sent_mail_once_and_its_answer_belongs_to_it(engine) {
        let office = Office::start(engine, Allowance::gmail());
        let message = office.world.post_message(&office.ann, &[&office.bob.address], "Offer");
        let shown = office.world.crm.await_delivery(&message, "sent");
        wait_for("the copy to be found", PATIENCE, || {
            office.world.gateway.hasten();
            office.world.gateway.count("select count(*) from submissions where sent_copy = 'filed'") == 1
        });
        let answer = Letter::new(&office.bob.address, &[&office.ann.person.address])
            .answering(text(&shown, "rfc822_message_id"));
        let raw = answer.raw().replace('\n', "\r\n");
        office.world.provider().deliver(&office.address(), raw.as_bytes()).unwrap();
        let received = office.world.crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["conversation_id"], shown["conversation_id"]);
        office.world.gateway.settle();
        assert_eq!((office.count(SENT), office.count(ALL)), (1, 2));
        assert_eq!(office.world.crm.messages().len(), 2);
        assert_eq!(office.world.heard(Service::Imap, "APPEND"), [""; 0]);
    }

    fn the_daily_limit_is_never_passed_and_nobody_asks_again_and_again(engine) {
        let day = std::time::Duration::from_hours(24);
        let allowance = Allowance { recipients: Some(Rate::new(2, day)), ..Allowance::gmail() };
        let office = Office::start(engine, allowance);
        let send = || office.world.post_message(&office.ann, &[&office.bob.address], "Offer");
        for _ in 0..2 {
            office.world.crm.await_delivery(&send(), "sent");
        }
        let over = send();
        let deferred = office.world.crm.await_delivery(&over, "deferred");
        let recipient = &deferred["delivery"]["recipients"][0];
        assert!(text(recipient, "text").contains("Daily user sending limit exceeded"), "{deferred}");
        let until: Timestamp = text(&deferred["delivery"], "next_attempt_at").parse().unwrap();
        assert!(until > Timestamp::now() + SignedDuration::from_mins(50), "{deferred}");
        // What comes behind it is not even tried.
        office.world.crm.await_delivery(&send(), "deferred");
        assert_eq!(office.world.heard(Service::Submission, "DOT").len(), 3);
        let bob = Address::parse(&office.bob.address).unwrap();
        assert_eq!(office.world.provider().inbox(&bob).len(), 2);
    }

    fn a_throttled_account_is_left_alone_and_says_until_when(engine) {
        let office = Office::start(engine, Allowance::gmail());
        let hour = SignedDuration::from_hours(1);
        office.world.provider().throttle(&office.address(), Timestamp::now() + hour).unwrap();
        office.world.provider().end_sessions(&office.address(), Farewell::Drop).unwrap();
        wait_for("the account to be throttled", PATIENCE, || office.status()["state"] == "throttled");
        let status = office.status();
        let until: Timestamp = text(&status, "next_attempt_at").parse().unwrap();
        assert!(until > Timestamp::now(), "{status}");
        assert!(text(&status, "detail").contains("bandwidth limits"), "{status}");
        let logins = || office.world.heard(Service::Imap, "LOGIN").len();
        let before = logins();
        // Neither for reading nor for sending.
        let message = office.world.post_message(&office.ann, &[&office.bob.address], "Offer");
        let deferred = office.world.crm.await_delivery(&message, "deferred");
        assert_eq!(text(&deferred["delivery"], "next_attempt_at"), text(&status, "next_attempt_at"));
        assert_eq!((logins(), office.world.heard(Service::Submission, "MAIL")), (before, Vec::new()));
    }
}
