//! Whether anything is missing: mailboxes compared with their servers, and what users write compared with what is filed.
//!
//! Not here: how a mailbox is read (`tests/sync`).

use jiff::{SignedDuration, Timestamp};
use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
};

both! {
    fn a_gap_heals_on_demand_and_is_counted_and_told(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let (inbox, path) = (Address::parse(&ann.person.address).unwrap(), format!("/accounts/{account}"));
        let compared = || world.crm.get(&format!("{path}/completeness"));
        let stranger = Letter::new("erna@prospects.example", &[&ann.person.address]);
        world.provider().deliver(&inbox, stranger.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        wait_for("it to be left out", PATIENCE, || {
            !world.crm.list(&format!("/decisions?rfc822_message_id={}", stranger.id)).is_empty()
        });
        wait_for("the first comparison", PATIENCE, || compared()["compared_at"].is_string());
        let first = compared();
        assert_eq!(first["healed"], 0);

        // What a fault of ours would do: the cursor has passed a mail of which nothing is known.
        world.gateway.execute("delete from decisions");
        world.crm.post(&format!("{path}/sync"), &json!({}));
        wait_for("the gap to be healed", PATIENCE, || compared()["healed"] == 1);
        let inbox = compared()["mailboxes"].as_array().unwrap().iter().find(|one| one["mailbox"] == "INBOX").cloned().unwrap();
        assert_eq!((&inbox["healed"], &inbox["compared"]), (&json!(1), &json!(1)));
        let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", stranger.id));
        assert_eq!(text(&decisions[0], "rule"), "no_contact");
        let errors = world.crm.list(&format!("{path}/errors"));
        let told: Vec<&Value> = errors.iter().filter(|error| error["code"] == "mail_passed_over").collect();
        assert_eq!((told.len(), &told[0]["count"], &told[0]["title"]), (1, &json!(1), &Value::Null));

        // Once more: nothing is missing now.
        let before = compared()["mailboxes"].clone();
        world.crm.post(&format!("{path}/sync"), &json!({}));
        wait_for("another comparison", PATIENCE, || compared()["mailboxes"] != before);
        assert_eq!(compared()["healed"], 1);
    }

    fn coverage_is_the_share_of_a_users_mail_to_contacts_that_is_filed(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, ben) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Low"));
        let [bob, cora] = ["bob", "cora"].map(|local| world.prospect(local));
        let coverage = |id: &str| world.crm.get(&format!("/users/{id}/coverage?days=7"));
        assert_eq!(coverage(&ann.id)["coverage"], Value::Null);
        assert_eq!(coverage(&ann.id)["accounts"], 0);
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let sent = |to: &str| {
            let letter = Letter::new(&ann.person.address, &[to]);
            let from = Address::parse(&ann.person.address).unwrap();
            world.provider().append(&from, "Sent", letter.raw().replace('\n', "\r\n").as_bytes(), &[]).unwrap();
            letter
        };
        // Cora is no contact yet, and Erna never will be.
        for to in [cora.address.as_str(), "erna@prospects.example"] {
            let letter = sent(to);
            wait_for("it to be left out", PATIENCE, || {
                !world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id)).is_empty()
            });
        }
        assert_eq!(coverage(&ann.id)["contact_mail_sent"], 0);
        for person in [&bob, &cora] {
            world.crm.post("/contacts", &json!({ "email": person.address }));
        }
        let letter = sent(&bob.address);
        world.crm.await_mail("message.sent", &letter.id);
        let copied = Letter::new(&ann.person.address, &[&bob.address]);
        world.arrive(&ann.person.address, &[&ann.capture_address], &copied).unwrap();
        world.crm.await_mail("message.captured", &copied.id);
        let found = coverage(&ann.id);
        assert_eq!((&found["contact_mail_sent"], &found["contact_mail_captured"]), (&json!(3), &json!(2)), "{found}");
        assert_eq!((&found["by_capture_address"], &found["coverage"]), (&json!(1), &json!(0.666)), "{found}");
        assert_eq!(found["accounts"], 1);
        assert_eq!(coverage(&ben.id)["contact_mail_sent"], 0);
        for days in ["0", "367"] {
            assert_eq!(world.crm.ask(&format!("/users/{}/coverage?days={days}", ann.id)).status, 422);
        }
    }

    fn coverage_counts_mail_by_when_it_was_written(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, cora) = (world.user("ann", "Ann Lee"), world.prospect("cora"));
        let from = Address::parse(&ann.person.address).unwrap();
        let weeks_ago = Timestamp::now() - SignedDuration::from_hours(20 * 24);
        let letter = Letter::new(&ann.person.address, &[&cora.address]).dated(weeks_ago);
        world.provider().append(&from, "Sent", letter.raw().replace('\n', "\r\n").as_bytes(), &[]).unwrap();
        world.crm.await_account(&world.connect(&ann));
        wait_for("it to be left out", PATIENCE, || {
            !world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id)).is_empty()
        });
        world.crm.post("/contacts", &json!({ "email": cora.address }));
        for (days, sent) in [(7, 0), (30, 1)] {
            let coverage = world.crm.get(&format!("/users/{}/coverage?days={days}", ann.id));
            assert_eq!(coverage["contact_mail_sent"], sent, "{days}: {coverage}");
        }
    }
}
