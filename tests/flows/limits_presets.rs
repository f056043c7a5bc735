//! Limits that a preset brings along, under the layers of the workspace and the user, as the five systems have them.
//!
//! Not here: what happens at a limit (`limits`, `limits_fail`).

use mailweave::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    limits::{address, await_used, file_sent, receive, received, told, usage},
    sandboxed::{ACME, Sandboxed},
    support::{PATIENCE, wait_for},
    world::User,
};

/// The limit in force and where it comes from.
#[track_caller]
fn check_limit(shown: &Value, name: &str, limit: &Value, from: &str) {
    assert_eq!((&shown[name], &shown["from"][name]), (limit, &json!(from)), "{name} of {shown}");
}

/// The user's mail program has sent to so many people, whom nobody here knows.
fn send_by_hand(world: &Sandboxed, user: &User, recipients: usize) {
    let people: Vec<String> = (0..recipients).map(|number| format!("p{number}@far.example")).collect();
    for some in people.chunks(90) {
        let to: Vec<&str> = some.iter().map(String::as_str).collect();
        file_sent(world, user, &Letter::new(&user.person.address, &to));
    }
}

both! {
    fn shsp_5_a_hundred_messages_a_day_are_synced_and_the_rest_waits(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/policy", &json!({ "preset": "sharpspring" }));
        check_limit(&world.crm.get("/limits"), "synced_per_day", &json!(100), "preset");
        let own = format!("/users/{}/limits", ann.id);
        check_limit(&world.crm.get(&own), "synced_per_day", &json!(100), "preset");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let mut letters: Vec<Letter> = (0..90).map(|_| receive(&world, &bob, &ann)).collect();
        wait_for("ninety to be received", PATIENCE, || received(&world, &letters) == 90);
        assert_eq!(told(&world, "synced_per_day"), ["warning"]);
        letters.extend((0..13).map(|_| receive(&world, &bob, &ann)));
        let deferred = || world.crm.list("/decisions?verdict=deferred").len();
        wait_for("three to be put off", PATIENCE, || deferred() == 3);
        wait_for("a hundred to be received", PATIENCE, || received(&world, &letters) == 100);
        assert_eq!(usage(&world, &ann)["synced_per_day"]["limit"], 100);
        assert_eq!(told(&world, "synced_per_day"), ["warning", "exceeded"]);
        // Another plan: an admin says that there is no limit, whatever the preset has.
        let shown = world.crm.put("/limits", &json!({ "synced_per_day": null }));
        check_limit(&shown, "synced_per_day", &Value::Null, "workspace");
        wait_for("all to be received", PATIENCE, || received(&world, &letters) == 103);
        // Saying nothing is another thing.
        check_limit(&world.crm.put("/limits", &json!({})), "synced_per_day", &json!(100), "preset");
        check_limit(&world.crm.put(&own, &json!({ "synced_per_day": 7 })), "synced_per_day", &json!(7), "user");
    }

    fn kana_12_five_hundred_a_day_are_sent_and_what_is_beyond_fails(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let ann = world.user("ann", "Ann Lee");
        let people = ["bob", "cora", "dan", "eve"].map(|local| world.prospect(local));
        world.crm.put("/policy", &json!({ "preset": "kaname-gmail" }));
        check_limit(&world.crm.get("/limits"), "sent_per_day", &json!(500), "preset");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        send_by_hand(&world, &ann, 495);
        await_used(&world, &ann, "sent_per_day", 495);
        let all = people.each_ref().map(|person| person.address.as_str());
        world.crm.await_delivery(&world.post_message(&ann, &all, "To four"), "sent");
        let post = |to: &[&str]| {
            let to: Vec<_> = to.iter().map(|email| json!({ "email": email })).collect();
            let message = json!({ "from_user_id": ann.id, "to": to, "subject": "More", "text": "Hello." });
            world.crm.try_post("/messages", &message)
        };
        let two = post(&all[..2]);
        assert_eq!((two.status, text(&two.body, "code")), (429, "limit_reached"), "{two:?}");
        world.crm.await_delivery(text(&post(&all[..1]).body, "id"), "sent");
        let over = post(&all[..1]);
        assert_eq!((over.status, text(&over.body, "code")), (429, "limit_reached"), "{over:?}");
        assert!(text(&over.body, "detail").contains("limit of 500 sent a day"), "{over:?}");
        world.gateway.settle();
        assert_eq!(usage(&world, &ann)["sent_per_day"]["used"], 500);
        let inbox = |at: usize| world.provider().inbox(&address(&people[at])).len();
        assert_eq!([0, 1, 2, 3].map(inbox), [2, 1, 1, 1]);
    }

    fn faq_15_recipients_count_and_mail_to_one_person_alone(engine) {
        let world = Sandboxed::start(engine, Behaviour { any_sender: true, ..Behaviour::gmail() });
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.crm.put("/policy", &json!({ "preset": "kaname-gmail" }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.set_smarthost(&world.person(&format!("bulk@{ACME}")));
        let post = |class: &str, to: &[&str]| {
            let to: Vec<_> = to.iter().map(|email| json!({ "email": email })).collect();
            let message = json!({
                "from_user_id": ann.id, "to": to, "subject": class, "text": "Hello.", "class": class,
            });
            world.crm.try_post("/messages", &message)
        };
        let used = |unit: &str| {
            let shown = usage(&world, &ann);
            assert_eq!(shown["sent_unit"], unit);
            shown["sent_per_day"]["used"].as_u64().unwrap()
        };
        world.crm.put("/limits", &json!({ "sent_per_day": 4 }));
        let both = [bob.address.as_str(), cora.address.as_str()];
        world.crm.await_delivery(text(&post("individual", &both).body, "id"), "sent");
        assert_eq!(used("recipients"), 2);
        for class in ["bulk", "workflow"] {
            let sent = text(&post(class, &both).body, "id").to_owned();
            assert_eq!(world.crm.await_delivery(&sent, "sent")["delivery"]["state"], "sent");
        }
        assert_eq!(used("recipients"), 2, "what leaves by the smarthost costs the user's provider nothing");
        world.crm.await_delivery(text(&post("individual", &both).body, "id"), "sent");
        assert_eq!(post("individual", &both[..1]).status, 429);
        world.crm.await_delivery(text(&post("bulk", &both).body, "id"), "sent");
        // The same by messages: half of it is used.
        let shown = world.crm.put("/limits", &json!({ "sent_per_day": 4, "sent_unit": "messages" }));
        check_limit(&shown, "sent_unit", &json!("messages"), "workspace");
        assert_eq!(used("messages"), 2);
        world.crm.await_delivery(text(&post("individual", &both).body, "id"), "sent");
        assert_eq!(used("messages"), 3);
    }

    fn shsp_15_accounts_over_the_companys_limit_are_pending_and_move_up(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, ben) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Fox"));
        let (eve, fay) = (world.user("eve", "Eve Ray"), world.user("fay", "Fay Orr"));
        world.crm.put("/policy", &json!({ "preset": "sharpspring" }));
        world.crm.put("/limits", &json!({ "accounts": 1 }));
        let first = world.connect(&ann);
        world.crm.await_account(&first);
        let [second, third, fourth] = [&ben, &eve, &fay].map(|user| world.connect(user));
        let status = |account: &str| world.crm.get(&format!("/accounts/{account}/status"));
        for account in [&second, &third, &fourth] {
            let shown = status(account);
            assert_eq!((text(&shown, "state"), text(&shown, "label")), ("waiting_for_quota", "Pending"), "{shown}");
            assert!(text(&shown, "detail").contains("The workspace may have 1"), "{shown}");
        }
        // The limit is raised: who came first is connected.
        world.crm.put("/limits", &json!({ "accounts": 2 }));
        world.crm.await_account(&second);
        assert_eq!(text(&status(&third), "state"), "waiting_for_quota");
        // Somebody else disconnects.
        world.crm.post(&format!("/accounts/{first}/disconnect"), &json!({ "history": "keep" }));
        world.crm.await_account(&third);
        assert_eq!(text(&status(&fourth), "state"), "waiting_for_quota");
        // No limit at all.
        let shown = world.crm.put("/limits", &json!({ "accounts": null }));
        check_limit(&shown, "accounts", &Value::Null, "workspace");
        world.crm.await_account(&fourth);
    }

    fn each_user_has_as_many_accounts_as_users_may_have_unless_he_may_have_more(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let shown = world.crm.put("/limits", &json!({ "accounts_per_user": 1 }));
        check_limit(&shown, "accounts_per_user", &json!(1), "workspace");
        let first = world.connect(&ann);
        world.crm.await_account(&first);
        let other = world.person(&format!("ann2@{ACME}"));
        let second = world.connect(&User { person: other, ..ann.clone() });
        let state = || text(&world.crm.get(&format!("/accounts/{second}/status")), "state").to_owned();
        assert_eq!(state(), "waiting_for_quota");
        assert_eq!(usage(&world, &ann)["accounts"], json!({ "used": 1, "limit": 1 }));
        let shown = world.crm.put(&format!("/users/{}/limits", ann.id), &json!({ "accounts": null }));
        check_limit(&shown, "accounts", &Value::Null, "user");
        world.crm.await_account(&second);
    }

    fn another_preset_brings_its_limits_along_in_the_same_call(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let queue = json!({ "over_send": "queue" });
        world.crm.put("/policy", &json!({ "preset": "kaname-gmail", "overrides": queue }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        send_by_hand(&world, &ann, 500);
        await_used(&world, &ann, "sent_per_day", 500);
        let waits = world.post_message(&ann, &[&bob.address], "One too many");
        world.crm.await_delivery(&waits, "deferred");
        // A user's own preset, and its limits with it.
        let policy = format!("/users/{}/policy", ann.id);
        let limits = format!("/users/{}/limits", ann.id);
        world.crm.put(&policy, &json!({ "preset": "mailweave" }));
        check_limit(&world.crm.get(&limits), "sent_per_day", &Value::Null, "default");
        check_limit(&world.crm.get("/limits"), "sent_per_day", &json!(500), "preset");
        world.crm.await_delivery(&waits, "sent");
        world.crm.put(&policy, &json!({}));
        let waits = world.post_message(&ann, &[&bob.address], "Another");
        world.crm.await_delivery(&waits, "deferred");
        world.crm.put("/policy", &json!({ "preset": "keap", "overrides": queue }));
        check_limit(&world.crm.get(&limits), "sent_per_day", &Value::Null, "default");
        world.crm.await_delivery(&waits, "sent");
    }
}
