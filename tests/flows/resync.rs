//! A large mailbox whose server gives all its messages other UIDs: what is known stays known, and nothing is read twice.
//!
//! Not here: a few messages, mail that comes at that very moment, and servers that do it again and again (`sync::faults`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Behaviour, Service},
};
use serde_json::json;

use crate::{
    both,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
};

const MESSAGES: usize = 20_000;
/// One in so many is of the contact's, and its body is stored.
const BELONGS: usize = 50;
/// Reading so many takes a while where nothing is optimised.
const LONG: Duration = Duration::from_secs(150);

both! {
    fn a_mailbox_of_20_000_messages_with_new_uids_is_neither_told_nor_stored_nor_fetched_again(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let address = Address::parse(&ann.person.address).unwrap();
        for number in 0..MESSAGES {
            let stranger = format!("x{number}@elsewhere.example");
            let from = if number % BELONGS == 0 { &bob.address } else { &stranger };
            let raw = Letter::new(from, &[&ann.person.address]).raw().replace('\n', "\r\n");
            let at = Timestamp::now() - SignedDuration::from_hours(24);
            world.provider().append_at(at, (&address, "INBOX"), raw.as_bytes(), &[]).unwrap();
        }
        let account = world.connect(&ann);
        let is_active = || world.crm.get(&format!("/accounts/{account}"))["status"]["state"] == "active";
        wait_for("history to be read", LONG, is_active);
        let counts = || {
            [
                "select count(*) from messages",
                "select count(*) from sightings",
                "select count(*) from decisions",
                "select count(*) from conversations",
                "select count(*) from events",
            ]
            .map(|statement| world.gateway.count(statement))
        };
        let before = counts();
        assert_eq!(before[..3], [MESSAGES / BELONGS, MESSAGES / BELONGS, MESSAGES].map(|count| i64::try_from(count).unwrap()));
        world.provider().clear_ledger();
        let validity = world.provider().bump_uid_validity(&address, "INBOX").unwrap();
        world.crm.post(&format!("/accounts/{account}/sync"), &json!({}));
        let under_others = ["sightings", "decisions"].map(|table| {
            format!("select count(*) from {table} where account is not null and uid_validity <> {validity}")
        });
        wait_for("all to be under the new UIDs", LONG, || {
            under_others.iter().all(|statement| world.gateway.count(statement) == 0)
        });
        // And the session goes on from there.
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        world.provider().deliver(&address, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        world.crm.await_mail("message.received", &letter.id);
        wait_for("the account to rest", PATIENCE, is_active);
        let bodies = world.heard(Service::Imap, "UID FETCH");
        let bodies: Vec<_> = bodies.iter().filter(|line| line.contains("BODY.PEEK[]")).collect();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        let after = counts();
        let one_more = before.map(|count| count + 1);
        assert_eq!(after[..4], one_more[..4]);
        // Its conversation and itself.
        assert_eq!(after[4], before[4] + 2);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }
}
