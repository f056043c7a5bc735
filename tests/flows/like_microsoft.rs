//! An account at a provider like Exchange Online: Message-IDs that it rewrites, Sent copies that come late, back-off times
//! and limits in its words.
//!
//! Not here: the provider itself (`sandbox`), answers that overtake the copy (`renamed`), and tokens.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Act, Allowance, Behaviour, Farewell, Rate, SaveSent, Service, Trigger},
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

struct Office {
    world: Sandboxed,
    ann: User,
    bob: Person,
    account: String,
}

impl Office {
    fn start(engine: Engine, allowance: Allowance) -> Self {
        let save_sent = SaveSent::After(Duration::from_millis(300));
        let behaviour = Behaviour { save_sent, allowance, ..Behaviour::microsoft() };
        let world = Sandboxed::with(engine, behaviour, |config| {
            config.outbound.sent_copy_wait = Duration::from_secs(20);
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann, bob, account }
    }

    fn address(&self) -> Address {
        Address::parse(&self.ann.person.address).unwrap()
    }

    fn send(&self) -> String {
        self.world.post_message(&self.ann, &[&self.bob.address], "Offer")
    }

    fn got(&self) -> Vec<mailweave::sandbox::StoredMail> {
        self.world.provider().inbox(&Address::parse(&self.bob.address).unwrap())
    }

    fn status(&self) -> Value {
        self.world.crm.get(&format!("/accounts/{}", self.account))["status"].clone()
    }
}

both! {
    fn what_it_says_of_a_mailbox_in_passing_stops_no_account_that_was_well(engine) {
        let office = Office::start(engine, Allowance::default());
        let Office { world, bob, .. } = &office;
        let passing = || Act::Answer("NO User is authenticated but not connected.".into());
        world.provider().arm(Trigger::next(Service::Imap, "LIST"), passing());
        world.provider().end_sessions(&office.address(), Farewell::Drop).unwrap();
        wait_for("it to say so", PATIENCE, || office.status()["state"] == "error");
        assert!(text(&office.status(), "detail").contains("not connected"), "{}", office.status());
        let letter = Letter::new(&bob.address, &[&office.ann.person.address]);
        world.provider().deliver(&office.address(), letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        world.crm.await_mail("message.received", &letter.id);
        assert_eq!(world.crm.events_of("account.reauth_required"), Vec::<Value>::new());
        // Of one that nothing was ever read of it is believed at once.
        let ben = world.user("ben", "Ben Low");
        world.provider().arm(Trigger::next(Service::Imap, "LIST"), passing());
        let account = world.connect(&ben);
        world.crm.await_event("account.reauth_required", |data| data["account_id"] == account.as_str());
    }

    fn an_answer_to_a_rewritten_id_belongs_and_sent_holds_one_copy(engine) {
        let office = Office::start(engine, Allowance::microsoft());
        let message = office.send();
        let shown = office.world.crm.await_delivery(&message, "sent");
        let id = office.got()[0].header("Message-ID").unwrap().trim_matches(['<', '>']).to_owned();
        assert_ne!(id, text(&shown, "rfc822_message_id"));
        wait_for("the late copy to be seen", PATIENCE, || {
            let shown = office.world.crm.get(&format!("/messages/{message}"));
            shown["sightings"].as_array().is_some_and(|seen| seen.iter().any(|one| one["via"] == "account"))
        });
        let answer = Letter::new(&office.bob.address, &[&office.ann.person.address]).answering(&id);
        let raw = answer.raw().replace('\n', "\r\n");
        office.world.provider().deliver(&office.address(), raw.as_bytes()).unwrap();
        let received = office.world.crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["conversation_id"], shown["conversation_id"]);
        office.world.gateway.hasten();
        office.world.gateway.settle();
        assert_eq!(office.world.provider().messages(&office.address(), "Sent").len(), 1);
        assert_eq!(office.world.crm.messages().len(), 2);
    }

    fn a_suggested_back_off_time_is_kept_to_and_shown(engine) {
        let office = Office::start(engine, Allowance::microsoft());
        let until = Timestamp::now() + SignedDuration::from_mins(10);
        office.world.provider().throttle(&office.address(), until).unwrap();
        office.world.provider().end_sessions(&office.address(), Farewell::Drop).unwrap();
        wait_for("the account to be throttled", PATIENCE, || office.status()["state"] == "throttled");
        let status = office.status();
        let next: Timestamp = text(&status, "next_attempt_at").parse().unwrap();
        let off = next.duration_since(until).abs();
        assert!(off < SignedDuration::from_secs(5), "{until} and {status}");
        let logins = office.world.heard(Service::Imap, "LOGIN").len();
        let message = office.send();
        office.world.crm.await_delivery(&message, "deferred");
        assert_eq!(office.world.heard(Service::Imap, "LOGIN").len(), logins);
        assert_eq!(office.world.heard(Service::Submission, "AUTH"), [""; 0]);
    }

    fn submissions_at_one_time_and_in_a_window_stay_within_what_is_allowed(engine) {
        let allowance = Allowance {
            submissions: Some(3),
            messages: Some(Rate::new(4, Duration::from_hours(1))),
            ..Allowance::microsoft()
        };
        let office = Office::start(engine, allowance);
        let messages: Vec<String> = (0..8).map(|_| office.send()).collect();
        let state = |message: &String| {
            let shown = office.world.crm.get(&format!("/messages/{message}"));
            text(&shown["delivery"], "state").to_owned()
        };
        let count = |wanted: &str| messages.iter().filter(|message| state(message) == wanted).count();
        wait_for("four to be sent and the others to wait", PATIENCE, || {
            count("sent") == 4 && count("deferred") >= 1
        });
        office.world.gateway.settle();
        assert_eq!((office.got().len(), count("sent"), count("deferred") + count("queued")), (4, 4, 4));
        // One was refused; those behind it waited without being tried.
        assert_eq!(office.world.heard(Service::Submission, "DOT").len(), 5);
        let waiting = messages.iter().find(|message| state(message) == "deferred").unwrap();
        let shown = office.world.crm.get(&format!("/messages/{waiting}"));
        let until: Timestamp = text(&shown["delivery"], "next_attempt_at").parse().unwrap();
        assert!(until > Timestamp::now(), "{shown}");
    }
}
