//! What is counted is what happened: mail that a user sends by hand once, what did not leave not at all, and nothing is put off
//! or lost for a limit that is not reached.
//!
//! Not here: what follows when a limit is reached (`limits`, `limits_fail`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Act, Behaviour, Service, SpecialUse, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    gateway::CAPTURE,
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
    /// Ann with an account, under this policy and these limits. Bob is a contact.
    fn start(engine: Engine, policy: &Value, limits: &Value) -> Self {
        Self::of(Sandboxed::start(engine, Behaviour::gmail()), policy, limits)
    }

    fn of(world: Sandboxed, policy: &Value, limits: &Value) -> Self {
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.put("/policy", policy);
        world.crm.put("/limits", limits);
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann, bob, account }
    }

    fn address(&self) -> Address {
        Address::parse(&self.ann.person.address).unwrap()
    }

    fn sent_mailbox(&self) -> String {
        self.world.provider().special(&self.address(), SpecialUse::Sent).unwrap()
    }

    /// What her mail program sent, where it files that.
    fn file_sent(&self, letter: &Letter) {
        let raw = letter.raw().replace('\n', "\r\n");
        self.world
            .provider()
            .append(&self.address(), &self.sent_mailbox(), raw.as_bytes(), &["\\Seen"])
            .unwrap();
    }

    fn deliver(&self, letter: &Letter) {
        self.world
            .provider()
            .deliver(&self.address(), letter.raw().replace('\n', "\r\n").as_bytes())
            .unwrap();
    }

    fn of_ann(&self, to: &[&str]) -> Letter {
        Letter::new(&self.ann.person.address, to)
    }

    fn of_bob(&self) -> Letter {
        Letter::new(&self.bob.address, &[&self.ann.person.address])
    }

    fn decisions(&self, letter: &Letter) -> Vec<Value> {
        self.world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id))
    }

    fn await_decisions(&self, letter: &Letter, count: usize) {
        wait_for(&format!("{count} decisions on {}", letter.id), PATIENCE, || {
            self.decisions(letter).len() == count
        });
    }

    fn used(&self, quota: &str) -> u64 {
        let usage = self.world.crm.get(&format!("/users/{}/usage", self.ann.id));
        usage[quota]["used"].as_u64().unwrap()
    }

    /// Waits for as many recipients to be counted as mail sent.
    #[track_caller]
    fn await_sent(&self, used: u64) {
        wait_for(&format!("{used} to be counted"), PATIENCE, || self.used("sent_per_day") == used);
    }

    fn account(&self, what: &str) {
        self.world.crm.post(&format!("/accounts/{}/{what}", self.account), &json!({}));
    }
}

both! {
    fn what_is_sent_by_hand_is_counted_whatever_else_becomes_of_it(engine) {
        let office = Office::start(engine, &json!({ "overrides": { "attachment_bytes_max": 3, "oversize": "skip_message" } }), &json!({}));
        let (own, bob) = (office.ann.person.address.clone(), office.bob.address.clone());
        // In copy to herself: the copy in INBOX is seen before that in Sent.
        let to_herself = office.of_ann(&[&bob]).cc(&[&own]);
        office.deliver(&to_herself);
        office.await_decisions(&to_herself, 1);
        office.file_sent(&to_herself);
        office.await_sent(2);
        // With a file for which it stays out.
        let with_file = office
            .of_ann(&[&bob])
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=b")
            .text("--b\n\nHello\n--b\nContent-Type: application/octet-stream; name=tool.exe\n\nhello\n--b--\n");
        office.file_sent(&with_file);
        office.await_decisions(&with_file, 1);
        assert_eq!(text(&office.decisions(&with_file)[0], "rule"), "attachment");
        office.await_sent(3);
        // To an address of ours as well, which the provider counts.
        let copied = office.of_ann(&["mum@elsewhere.example"]).cc(&[&format!("capture-x@{CAPTURE}")]);
        office.file_sent(&copied);
        office.await_sent(5);
        // Private mail that is moved gets another UID, and was sent once.
        office.file_sent(&copied);
        office.await_decisions(&copied, 2);
        let last = office.of_ann(&["dad@elsewhere.example"]);
        office.file_sent(&last);
        office.await_sent(6);
    }

    fn what_is_sent_by_hand_while_the_uids_change_is_counted_once(engine) {
        let world = Sandboxed::with(engine, Behaviour::gmail(), |config| config.sync.poll = Duration::from_secs(3600));
        let office = Office::of(world, &json!({}), &json!({}));
        let [before, between] = ["mum@elsewhere.example", "dad@elsewhere.example"].map(|to| office.of_ann(&[to]));
        office.file_sent(&before);
        office.account("sync");
        office.await_sent(1);
        office.file_sent(&between);
        office.world.provider().bump_uid_validity(&office.address(), &office.sent_mailbox()).unwrap();
        office.account("sync");
        office.await_decisions(&between, 1);
        office.await_sent(2);
        assert_eq!(office.decisions(&before).len(), 1);
    }

    fn mail_that_the_server_did_not_take_costs_nothing(engine) {
        let office = Office::start(engine, &json!({}), &json!({ "sent_per_day": 2 }));
        let greylisted = Act::Answer("451 4.7.1 Come back later".to_owned());
        office.world.provider().arm(Trigger { times: 2, ..Trigger::next(Service::Submission, "DOT") }, greylisted);
        let message = office.world.post_message(&office.ann, &[&office.bob.address], "Offer");
        for _ in 0..2 {
            office.world.crm.await_delivery(&message, "deferred");
            // It shows as that also while it is tried again, and counts meanwhile.
            office.world.gateway.settle();
            assert_eq!(office.used("sent_per_day"), 0);
            office.world.gateway.hasten();
        }
        office.world.crm.await_delivery(&message, "sent");
        assert_eq!(office.used("sent_per_day"), 1);
        // Refused for good.
        office.world.arm("DOT", Act::Answer("554 5.6.0 We do not like it".to_owned()));
        let refused = office.world.post_message(&office.ann, &[&office.bob.address], "Spam");
        office.world.crm.await_delivery(&refused, "bounced");
        assert_eq!(office.used("sent_per_day"), 1);
        assert_eq!(office.world.gateway.audit(), [""; 0]);
    }

    fn a_copy_of_what_is_here_takes_no_room_from_what_comes_with_it(engine) {
        let office = Office::start(engine, &json!({ "overrides": { "over_sync": "skip" } }), &json!({ "synced_per_day": 2 }));
        let first = office.of_bob();
        office.deliver(&first);
        office.world.crm.await_mail("message.received", &first.id);
        // Both are there when it is looked.
        office.account("pause");
        let second = office.of_bob();
        office.deliver(&first);
        office.deliver(&second);
        office.account("resume");
        office.world.crm.await_mail("message.received", &second.id);
        assert_eq!(text(&office.decisions(&second)[0], "rule"), "contact_wrote");
        assert_eq!(office.used("synced_per_day"), 2);
    }

    fn history_that_waits_for_room_loses_nothing_of_its_old_end(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/limits", &json!({ "synced_per_day": 0 }));
        for days in [32, 2, 1] {
            let letter = Letter::new(&bob.address, &[&ann.person.address]);
            let raw = letter.raw().replace('\n', "\r\n");
            let to = (&Address::parse(&ann.person.address).unwrap(), "INBOX");
            let at = Timestamp::now() - SignedDuration::from_hours(days * 24);
            world.provider().append_at(at, to, raw.as_bytes(), &[]).unwrap();
        }
        let account = world.connect(&ann);
        wait_for("history to wait", PATIENCE, || {
            world.crm.get(&format!("/accounts/{account}"))["status"]["state"] == "backfilling"
        });
        // As if three days had passed meanwhile, and another session began.
        world.gateway.execute("update accounts set connected_at = connected_at - 259200000000");
        let login = json!({ "type": "password", "username": ann.person.address, "password": ann.person.password });
        world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": login }));
        world.crm.put("/limits", &json!({}));
        wait_for("all of history", PATIENCE, || world.crm.messages().len() == 3);
    }

    fn keap_8_and_keap_10_a_copy_and_mail_put_off_make_an_account_active(engine) {
        let policy = json!({ "preset": "keap", "overrides": { "push": true } });
        let office = Office::start(engine, &policy, &json!({ "synced_per_day": 0 }));
        let status = |account: &str| office.world.crm.get(&format!("/accounts/{account}/status"));
        let ben = office.world.user("ben", "Ben Low");
        let other = office.world.connect(&ben);
        office.world.crm.await_account(&other);
        let both = Letter::new(&office.bob.address, &[&office.ann.person.address, &ben.person.address]);
        office.deliver(&both);
        wait_for("it to be put off", PATIENCE, || office.world.crm.list("/decisions?verdict=deferred").len() == 1);
        assert_eq!(status(&office.account)["state"], "awaiting_first_mail");
        office.world.crm.put("/limits", &json!({}));
        wait_for("the account to be active", PATIENCE, || status(&office.account)["state"] == "active");
        assert_ne!(status(&office.account)["last_synced_at"], Value::Null);
        // A colleague's account shows what is here already.
        let raw = both.raw().replace('\n', "\r\n");
        office.world.provider().deliver(&Address::parse(&ben.person.address).unwrap(), raw.as_bytes()).unwrap();
        wait_for("the colleague's to be active", PATIENCE, || status(&other)["state"] == "active");
        assert_eq!(office.world.crm.messages().len(), 1);
    }
}
