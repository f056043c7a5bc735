//! Old mail waits for an account's provider: until there is room in what it lets be read in a day, and for as long as it wants peace.
//! New mail goes on.
//!
//! Not here: the window's edges (`core::provider`), and limits that admins set (`limits`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Act, Allowance, Behaviour, Rate, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    limits::time,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{User, endpoint},
};

const DAY: Duration = Duration::from_hours(24);

/// Ann, whose mailbox at what is said to be Google's holds so many old letters of Bob's.
struct Office {
    world: Sandboxed,
    ann: User,
    bob: Person,
}

impl Office {
    fn start(engine: Engine, behaviour: Behaviour, letters: usize) -> Self {
        let world = Sandboxed::start(engine, behaviour);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let office = Self { world, ann, bob };
        let yesterday = Timestamp::now() - SignedDuration::from_hours(24);
        for _ in 0..letters {
            let (_, raw) = office.letter();
            let to = (&office.address(), "INBOX");
            office.world.provider().append_at(yesterday, to, raw.as_bytes(), &[]).unwrap();
        }
        office
    }

    fn address(&self) -> Address {
        Address::parse(&self.ann.person.address).unwrap()
    }

    /// Some 3,000 octets.
    fn letter(&self) -> (Letter, String) {
        let letter = Letter::new(&self.bob.address, &[&self.ann.person.address]);
        let raw =
            format!("{}{}", letter.raw(), "More of the same, as it is written in letters.\n".repeat(60));
        (letter, raw.replace('\n', "\r\n"))
    }

    fn connect(&self) -> String {
        let Person { address, password } = &self.ann.person;
        let account = json!({
            "user_id": self.ann.id,
            "email": address,
            "provider": "google",
            "imap": endpoint(self.world.running.imap, "none"),
            "smtp": endpoint(self.world.running.submission, "none"),
            "auth": { "type": "password", "username": address, "password": password },
        });
        text(&self.world.crm.post("/accounts", &account), "id").to_owned()
    }

    fn status(&self, account: &str) -> Value {
        self.world.crm.get(&format!("/accounts/{account}"))["status"].clone()
    }

    fn read(&self) -> Vec<u32> {
        self.world.provider().contents_fetched(&self.address(), "INBOX")
    }

    /// Bob writes; returns once the CRM knows.
    fn receives(&self) {
        let (letter, raw) = self.letter();
        self.world.provider().deliver(&self.address(), raw.as_bytes()).unwrap();
        self.world.crm.await_mail("message.received", &letter.id);
    }

    fn octets_read(&self) -> Value {
        let usage = self.world.crm.get(&format!("/users/{}/usage", self.ann.id));
        let windows = usage["providers"].as_array().unwrap().clone();
        windows.into_iter().find(|window| window["unit"] == "octets_read").unwrap()
    }
}

both! {
    fn old_mail_rests_ahead_of_what_the_provider_lets_be_read_in_a_day(engine) {
        // All of it would be more than that.
        let download = Some(Rate::new(650_000, DAY));
        let behaviour = Behaviour { allowance: Allowance { download, ..Allowance::default() }, ..Behaviour::gmail() };
        let office = Office::start(engine, behaviour, 250);
        let world = &office.world;
        world.provider().arm(Trigger::always(Service::Imap, "LIST"), Act::Answer("NO no list today".to_owned()));
        let account = office.connect();
        wait_for("the first try to fail", PATIENCE, || office.status(&account)["state"] == "error");
        // The day so far: 50,000 octets are left of what old mail may use.
        world.gateway.execute(
            "insert into account_octets (workspace, account, slot, read, handed_over) \
             select workspace, id, connected_at, 1999950000, 0 from accounts",
        );
        world.provider().disarm();
        wait_for("the first letters to be read", PATIENCE, || office.read().len() >= 100);
        office.receives();
        let status = office.status(&account);
        assert_eq!((office.read().len(), text(&status, "state")), (101, "backfilling"), "{status}");
        let left = time(&status["next_attempt_at"]).duration_since(Timestamp::now());
        assert!(left > SignedDuration::from_hours(23) && left <= SignedDuration::from_hours(25), "{status}");
        assert!(text(&status, "detail").contains("New mail is read all the same"), "{status}");
        let listed = world.crm.list("/accounts");
        assert_eq!(listed[0]["status"]["next_attempt_at"], status["next_attempt_at"]);
        let window = office.octets_read();
        assert_eq!((&window["limit"], text(&window, "window")), (&json!(2_500_000_000_u64), "1d"));
        assert!(window["used"].as_u64().unwrap() > 2_000_000_000, "{window}");

        // A day later.
        world.gateway.execute("update account_octets set slot = slot - 100000000000");
        world.provider().set_behaviour(&office.address(), Behaviour::gmail()).unwrap();
        wait_for("the rest to be read", PATIENCE, || office.read().len() == 251);
        world.crm.await_account(&account);
        assert_eq!(office.status(&account)["next_attempt_at"], Value::Null);
        assert!(office.octets_read()["used"].as_u64().unwrap() < 2_000_000);
        assert_eq!(world.crm.events_of("message.received").len(), 1);
    }

    fn old_mail_rests_while_the_provider_wants_peace_and_new_mail_does_not(engine) {
        let office = Office::start(engine, Behaviour::gmail(), 30);
        let world = &office.world;
        // Long enough for the provider to say what it wants before any old mail is read.
        world.provider().arm(Trigger::next(Service::Imap, "LIST"), Act::Delay(Duration::from_secs(6)));
        world.arm("AUTH", Act::Answer("454 4.7.0 Too many login attempts, please try again later.".to_owned()));
        let account = office.connect();
        wait_for("the session to begin", PATIENCE, || !world.heard(Service::Imap, "LIST").is_empty());
        let message = world.post_message(&office.ann, &[&office.bob.address], "One");
        world.crm.await_delivery(&message, "deferred");
        let followed = || world.gateway.count("select count(*) from mailboxes");
        assert_eq!((followed(), office.read()), (0, Vec::new()));
        // What comes before is old mail, too.
        wait_for("the mailboxes to be followed", PATIENCE, || followed() > 0);
        office.receives();
        let status = office.status(&account);
        assert_eq!((office.read(), text(&status, "state")), (vec![31], "throttled"), "{status}");
        assert!(time(&status["next_attempt_at"]) > Timestamp::now(), "{status}");

        world.gateway.hasten();
        wait_for("the old mail to be read", PATIENCE, || office.read().len() == 31);
        world.crm.await_delivery(&message, "sent");
    }
}
