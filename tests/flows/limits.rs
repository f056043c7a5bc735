//! Limits that an admin sets: what is over them waits, nothing of it is lost or doubled, and it goes on by itself.
//!
//! Not here: windows and their edges (`core::limits`), and the API's own refusals (`tests/http`).

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    mail::Address,
    sandbox::{Act, Behaviour, Service, SpecialUse},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
    world::User,
};

pub fn address(person: &Person) -> Address {
    Address::parse(&person.address).unwrap()
}

pub fn usage(world: &Sandboxed, user: &User) -> Value {
    world.crm.get(&format!("/users/{}/usage", user.id))
}

#[track_caller]
pub fn await_used(world: &Sandboxed, user: &User, quota: &str, used: u64) {
    wait_for(&format!("{quota} to be {used}"), PATIENCE, || usage(world, user)[quota]["used"] == used);
}

pub fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a time").parse().unwrap()
}

/// The events about this limit, as the last part of their types, oldest first.
pub fn told(world: &Sandboxed, quota: &str) -> Vec<String> {
    let kinds = "quota.warning,quota.exceeded,quota.reset";
    let events = world.crm.list(&format!("/events?types={kinds}"));
    let about = events.iter().filter(|event| event["data"]["quota"] == quota);
    about.map(|event| text(event, "type").trim_start_matches("quota.").to_owned()).collect()
}

/// A customer writes to a user: the letter lies in his mailbox.
pub fn receive(world: &Sandboxed, from: &Person, to: &User) -> Letter {
    let letter = Letter::new(&from.address, &[&to.person.address]);
    world.provider().deliver(&address(&to.person), letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
    letter
}

/// The user's mail program files what it sent.
pub fn file_sent(world: &Sandboxed, user: &User, letter: &Letter) {
    let user = address(&user.person);
    let sent = world.provider().special(&user, SpecialUse::Sent).unwrap();
    let raw = letter.raw().replace('\n', "\r\n");
    world.provider().append(&user, &sent, raw.as_bytes(), &["\\Seen"]).unwrap();
}

pub fn received(world: &Sandboxed, letters: &[Letter]) -> usize {
    let told = world.crm.events_of("message.received");
    letters
        .iter()
        .filter(|letter| told.iter().any(|event| event["data"]["rfc822_message_id"] == letter.id))
        .count()
}

both! {
    fn mail_over_the_limit_of_a_day_is_sent_as_far_as_it_goes_and_waits_for_the_next(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let ann = world.user("ann", "Ann Lee");
        let people = ["bob", "cora", "dan"].map(|local| world.prospect(local));
        world.connect(&ann);
        world.crm.put("/limits", &json!({ "sent_per_day": 3 }));
        let first = world.post_message(&ann, &[&people[0].address], "One");
        world.crm.await_delivery(&first, "sent");
        let all: Vec<&str> = people.iter().map(|person| person.address.as_str()).collect();
        let second = world.post_message(&ann, &all, "Two");
        let mut shown = world.crm.await_delivery(&second, "deferred");
        wait_for("two of them to be sent to", PATIENCE, || {
            shown = world.crm.get(&format!("/messages/{second}"));
            let states = shown["delivery"]["recipients"].as_array().unwrap().clone();
            shown["delivery"]["state"] == "deferred" && states.iter().filter(|one| one["state"] == "sent").count() == 2
        });
        let next = time(&shown["delivery"]["next_attempt_at"]);
        let used = usage(&world, &ann);
        assert_eq!(used["sent_per_day"]["used"], 3);
        assert_eq!(used["sent_per_day"]["limit"], 3);
        assert_eq!(time(&used["sent_per_day"]["resets_at"]), next, "the next midnight");
        let waits = shown["delivery"]["recipients"].as_array().unwrap().iter().find(|one| one["state"] == "deferred");
        assert!(text(waits.unwrap(), "text").contains("limit of 3"), "{shown}");
        // What is behind it waits as well, and nobody tries.
        let third = world.post_message(&ann, &[&people[1].address], "Three");
        world.crm.await_delivery(&third, "deferred");
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "DATA").len(), 2);
        assert_eq!(told(&world, "sent_per_day"), ["exceeded"]);

        // His own limit stands over the workspace's.
        world.crm.put(&format!("/users/{}/limits", ann.id), &json!({ "sent_per_day": 10 }));
        for message in [&second, &third] {
            world.crm.await_delivery(message, "sent");
        }
        wait_for("the word that there is room", PATIENCE, || told(&world, "sent_per_day") == ["exceeded", "reset"]);
        assert_eq!(usage(&world, &ann)["sent_per_day"]["used"], 5);
        let inbox = |person: &Person| world.provider().inbox(&address(person)).len();
        assert_eq!([0, 1, 2].map(|at| inbox(&people[at])), [2, 2, 1]);
    }

    fn mail_that_waits_for_the_next_day_goes_out_by_itself(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.crm.put("/limits", &json!({ "sent_per_24h": 5, "sent_unit": "messages" }));
        let messages: Vec<String> =
            (0..6).map(|number| world.post_message(&ann, &[&bob.address], &format!("Number {number}"))).collect();
        world.crm.await_delivery(&messages[5], "deferred");
        let used = usage(&world, &ann);
        assert_eq!((&used["sent_per_24h"]["used"], &used["sent_unit"]), (&json!(5), &json!("messages")));
        let lifts = time(&used["sent_per_24h"]["resets_at"]).duration_since(Timestamp::now());
        assert!(lifts > SignedDuration::from_hours(23) && lifts < SignedDuration::from_mins(25 * 60));
        assert_eq!(told(&world, "sent_per_24h"), ["warning", "exceeded"]);
        // A day later.
        world.gateway.execute("update usage_counts set slot = slot - 90000000000");
        world.gateway.execute("update quota_levels set check_at = 0");
        world.gateway.hasten();
        world.crm.await_delivery(&messages[5], "sent");
        wait_for("the word that there is room", PATIENCE, || told(&world, "sent_per_24h").ends_with(&["reset".to_owned()]));
        assert_eq!(world.provider().inbox(&address(&bob)).len(), 6);
        // Nothing was told of to be waiting for a server.
        assert_eq!(world.crm.events_of("message.deferred").len(), 1);
    }

    fn what_the_user_sends_by_hand_is_counted_once_and_what_we_send_is_not_counted_again(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        // Private: nothing of it is kept but the count.
        let private = Letter::new(&ann.person.address, &["mum@elsewhere.example", "dad@elsewhere.example"]);
        file_sent(&world, &ann, &private);
        await_used(&world, &ann, "sent_per_day", 2);
        let sent = world.post_message(&ann, &[&bob.address], "By the CRM");
        world.crm.await_delivery(&sent, "sent");
        wait_for("its copy in Sent", PATIENCE, || {
            let sightings = world.crm.get(&format!("/messages/{sent}"))["sightings"].clone();
            sightings.as_array().unwrap().iter().any(|one| one["via"] == "account")
        });
        // To a contact: it is filed.
        let offer = Letter::new(&ann.person.address, &[&bob.address]);
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        file_sent(&world, &ann, &offer);
        world.crm.await_mail("message.sent", &offer.id);
        world.gateway.settle();
        let used = usage(&world, &ann);
        assert_eq!((&used["sent_per_day"]["used"], &used["sent_per_24h"]["used"]), (&json!(4), &json!(4)));
        assert_eq!(used["synced_per_day"]["used"], 1);
        // It leaves so much less for the CRM.
        world.crm.put("/limits", &json!({ "sent_per_day": 4 }));
        let over = world.post_message(&ann, &[&bob.address], "One too many");
        world.crm.await_delivery(&over, "deferred");
        // A lost answer counts as sent, whatever it was.
        world.crm.put("/limits", &json!({ "sent_per_day": 7 }));
        world.crm.await_delivery(&over, "sent");
        world.arm("DOT", Act::DropAfter(0));
        let lost = world.post_message(&ann, &[&bob.address], "Lost answer");
        world.crm.await_event("message.uncertain", |data| data["message_id"] == lost.as_str());
        assert_eq!(usage(&world, &ann)["sent_per_day"]["used"], 6);
        world.crm.await_delivery(&lost, "sent");
        world.gateway.settle();
        assert_eq!(usage(&world, &ann)["sent_per_day"]["used"], 6);
    }

    fn a_provider_that_takes_no_more_is_left_alone_for_as_long_as_it_says(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let refusal = "550 5.4.5 Daily user sending limit exceeded, try again in 2 hours";
        world.arm("DOT", Act::Answer(refusal.to_owned()));
        let first = world.post_message(&ann, &[&bob.address], "One");
        let shown = world.crm.await_delivery(&first, "deferred");
        let until = time(&shown["delivery"]["next_attempt_at"]).duration_since(Timestamp::now());
        assert!(until > SignedDuration::from_mins(118) && until <= SignedDuration::from_hours(2), "{shown}");
        let second = world.post_message(&ann, &[&bob.address], "Two");
        let shown = world.crm.await_delivery(&second, "deferred");
        assert!(shown["delivery"]["recipients"][0].to_string().contains("takes no more"), "{shown}");
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "MAIL").len(), 1);
        assert_eq!(world.crm.events_of("message.bounced").len(), 0);
        world.gateway.execute("update send_rests set until = 0");
        world.gateway.hasten();
        for message in [&first, &second] {
            world.crm.await_delivery(message, "sent");
        }
        assert_eq!(world.provider().inbox(&address(&bob)).len(), 2);
    }

    fn accounts_over_the_cap_wait_and_move_up_when_there_is_a_place(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, ben, eve) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Fox"), world.user("eve", "Eve Ray"));
        world.crm.put("/limits", &json!({ "accounts": 1 }));
        let first = world.connect(&ann);
        world.crm.await_account(&first);
        let (second, third) = (world.connect(&ben), world.connect(&eve));
        let state = |account: &str| text(&world.crm.get(&format!("/accounts/{account}"))["status"], "state").to_owned();
        for waiting in [&second, &third] {
            assert_eq!(state(waiting), "waiting_for_quota");
        }
        assert_eq!(told(&world, "accounts"), ["exceeded"]);
        // A new login is no place.
        let login = json!({ "type": "password", "username": ben.person.address, "password": ben.person.password });
        world.crm.patch(&format!("/accounts/{second}"), &json!({ "auth": login }));
        assert_eq!(state(&second), "waiting_for_quota");
        world.crm.post(&format!("/accounts/{first}/disconnect"), &json!({ "history": "keep" }));
        world.crm.await_account(&second);
        assert_eq!(state(&third), "waiting_for_quota");
        // Connected again, the first waits behind the third.
        let login = json!({ "type": "password", "username": ann.person.address, "password": ann.person.password });
        world.crm.patch(&format!("/accounts/{first}"), &json!({ "auth": login }));
        assert_eq!(state(&first), "waiting_for_quota");
        world.crm.put("/limits", &json!({ "accounts": 5 }));
        world.crm.await_account(&third);
        world.crm.await_account(&first);
        wait_for("the word that there is room", PATIENCE, || told(&world, "accounts") == ["exceeded", "reset"]);
        let used = usage(&world, &ann);
        assert_eq!(used["accounts"], json!({ "used": 1, "limit": null }));
        assert_eq!(used["workspace_accounts"], json!({ "used": 3, "limit": 5 }));
    }

    fn mail_over_the_sync_limit_is_put_off_with_a_reason_and_fetched_when_there_is_room(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/limits", &json!({ "synced_per_day": 2 }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let mut letters: Vec<Letter> = (0..5).map(|_| receive(&world, &bob, &ann)).collect();
        let deferred = || world.crm.list("/decisions?verdict=deferred");
        wait_for("three to be put off", PATIENCE, || deferred().len() == 3);
        wait_for("two to be received", PATIENCE, || received(&world, &letters) == 2);
        assert_eq!(text(&deferred()[0], "rule"), "sync_limit");
        // Nothing of the content of what waits has been asked for.
        assert_eq!(world.provider().contents_fetched(&address(&ann.person), "INBOX").len(), 2);
        assert_eq!(usage(&world, &ann)["synced_per_day"]["used"], 2);
        assert_eq!(told(&world, "synced_per_day"), ["exceeded"]);
        // What is put off stays so while mail that does not belong goes its way.
        let stranger = world.prospect("stranger");
        receive(&world, &stranger, &ann);
        wait_for("the stranger's to be left", PATIENCE, || {
            world.crm.list("/decisions?verdict=skipped").len() == 1
        });

        // The next day has room for two more.
        world.gateway.execute("update usage_counts set slot = slot - 90000000000");
        world.gateway.hasten();
        wait_for("four to be received", PATIENCE, || received(&world, &letters) == 4);
        wait_for("one to be put off still", PATIENCE, || deferred().len() == 1);
        letters.push(receive(&world, &bob, &ann));
        wait_for("the new one to be put off too", PATIENCE, || deferred().len() == 2);
        world.crm.put("/limits", &json!({ "synced_per_day": 20 }));
        wait_for("all to be received", PATIENCE, || received(&world, &letters) == 6);
        wait_for("nothing to be put off", PATIENCE, || deferred().is_empty());
        wait_for("the word that there is room", PATIENCE, || told(&world, "synced_per_day").ends_with(&["reset".to_owned()]));
        assert_eq!(world.crm.events_of("message.received").len(), 6);
        assert_eq!(usage(&world, &ann)["synced_per_day"]["used"], 4);
        assert_eq!(world.gateway.count("select sum(used) from usage_counts where counted = 'synced'"), 6);
    }

    fn history_waits_for_room_and_new_mail_comes_first(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/limits", &json!({ "synced_per_day": 3 }));
        let yesterday = Timestamp::now() - SignedDuration::from_hours(30);
        let old: Vec<Letter> = (0..5)
            .map(|_| {
                let letter = Letter::new(&bob.address, &[&ann.person.address]);
                let raw = letter.raw().replace('\n', "\r\n");
                world.provider().append_at(yesterday, (&address(&ann.person), "INBOX"), raw.as_bytes(), &[]).unwrap();
                letter
            })
            .collect();
        let account = world.connect(&ann);
        let filed = || world.crm.messages().len();
        wait_for("three of history", PATIENCE, || filed() == 3);
        let new = receive(&world, &bob, &ann);
        wait_for("the new one to be put off", PATIENCE, || world.crm.list("/decisions?verdict=deferred").len() == 3);
        world.crm.put("/limits", &json!({}));
        world.crm.await_mail("message.received", &new.id);
        wait_for("all of it", PATIENCE, || filed() == 6);
        world.crm.await_account(&account);
        // History is filed in silence.
        assert_eq!(received(&world, &old), 0);
    }

    fn mail_over_a_limit_says_when_its_turn_comes(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.crm.put("/limits", &json!({ "sent_per_24h": 2, "sent_unit": "messages" }));
        let post = |subject: &str| world.post_message(&ann, &[&bob.address], subject);
        let slot = |order: &str| {
            let statement = format!("select {order}(slot) from usage_counts where counted = 'sent_messages'");
            Timestamp::from_microsecond(world.gateway.count(&statement)).unwrap()
        };
        world.crm.await_delivery(&post("One"), "sent");
        // Twenty hours pass.
        world.gateway.execute("update usage_counts set slot = slot - 72000000000");
        world.crm.await_delivery(&post("Two"), "sent");
        let turn = |message: &str| time(&world.crm.await_delivery(message, "deferred")["delivery"]["next_attempt_at"]);
        let waiting = ["Three", "Four", "Five"].map(post);
        // A count is known by its quarter of an hour, and passes out when that has.
        let day = SignedDuration::from_mins(24 * 60 + 15);
        let (first, second) = (slot("min") + day, slot("max") + day);
        assert_eq!([0, 1, 2].map(|at| turn(&waiting[at])), [first, second, first + day]);
        // Each waits for its own turn, and nobody was asked to take it before.
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "DATA").len(), 2);
        // Who is out of the way takes no room.
        world.crm.put("/limits", &json!({ "sent_per_24h": 3, "sent_unit": "messages" }));
        world.crm.await_delivery(&waiting[0], "sent");
        wait_for("the others to move up", PATIENCE, || {
            let left = [1, 2].map(|at| turn(&waiting[at]));
            left == [first, second]
        });
        world.crm.put("/limits", &json!({}));
        for message in &waiting {
            world.crm.await_delivery(message, "sent");
        }
    }

    fn a_count_below_the_truth_is_found_by_the_audit(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let sent = world.post_message(&ann, &[&bob.address], "An offer");
        world.crm.await_delivery(&sent, "sent");
        let letter = receive(&world, &bob, &ann);
        world.crm.await_mail("message.received", &letter.id);
        world.gateway.settle();
        let found = || {
            let found = world.gateway.audit();
            found.iter().filter(|what| **what == ann.id).count()
        };
        assert_eq!((world.gateway.audit(), found()), (Vec::new(), 0));
        for (lower, raise) in [
            (
                "update usage_counts set used = used - 1 where counted = 'synced'",
                "update usage_counts set used = used + 1 where counted = 'synced'",
            ),
            (
                "update usage_counts set used = used - 1 where counted = 'sent_messages'",
                "update usage_counts set used = used + 1 where counted = 'sent_messages'",
            ),
            (
                "update usage_counts set used = used - 1 where counted = 'sent_recipients'",
                "update usage_counts set used = used + 1 where counted = 'sent_recipients'",
            ),
        ] {
            world.gateway.execute(lower);
            assert_eq!(found(), 1, "{lower}");
            world.gateway.execute(raise);
            assert_eq!(found(), 0, "{raise}");
        }
        // One that is not there at all.
        world.gateway.execute("delete from usage_counts where counted = 'synced'");
        assert_eq!(found(), 1);
    }
}
