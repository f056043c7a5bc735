//! What is known of a provider is heeded: the peace it asks for by all of ours that talks to it, and what it takes in a window, in
//! a message and of a size.
//!
//! Not here: the words themselves and the windows' edges (`core::provider`), and limits that admins set (`limits`).

use jiff::{SignedDuration, Timestamp};
use mailweave::sandbox::{Act, Behaviour, Service};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    limits::{receive, time},
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
    world::{User, accepted_id, endpoint},
};

/// Connects an account at servers that are said to be this provider's.
fn connect(world: &Sandboxed, user: &User, provider: &str) -> String {
    let Person { address, password } = &user.person;
    let account = json!({
        "user_id": user.id,
        "email": address,
        "provider": provider,
        "imap": endpoint(world.running.imap, "none"),
        "smtp": endpoint(world.running.submission, "none"),
        "auth": { "type": "password", "username": address, "password": password },
    });
    let id = text(&world.crm.post("/accounts", &account), "id").to_owned();
    world.crm.await_account(&id);
    id
}

fn status(world: &Sandboxed, account: &str) -> Value {
    world.crm.get(&format!("/accounts/{account}"))["status"].clone()
}

fn from_now(value: &Value) -> SignedDuration {
    time(value).duration_since(Timestamp::now())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

both! {
    fn peace_that_a_provider_asks_of_one_session_is_kept_by_all(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = connect(&world, &ann, "google");
        assert_eq!(world.crm.get(&format!("/accounts/{account}"))["provider"], "google");
        let logins = || world.heard(Service::Imap, "AUTHENTICATE").len() + world.heard(Service::Imap, "LOGIN").len();
        let before = logins();
        world.arm("AUTH", Act::Answer("454 4.7.0 Too many login attempts, please try again later.".to_owned()));
        let first = world.post_message(&ann, &[&bob.address], "One");
        let shown = world.crm.await_delivery(&first, "deferred");
        let wait = from_now(&shown["delivery"]["next_attempt_at"]);
        assert!(wait > SignedDuration::from_mins(14) && wait < SignedDuration::from_mins(16), "{shown}");
        let told = status(&world, &account);
        assert_eq!((text(&told, "state"), &told["next_attempt_at"]), ("throttled", &shown["delivery"]["next_attempt_at"]));
        assert!(text(&told, "detail").contains("Too many login attempts"), "{told}");
        // Nobody logs in meanwhile, whatever for.
        let second = world.post_message(&ann, &[&bob.address], "Two");
        world.crm.await_delivery(&second, "deferred");
        world.gateway.execute("update jobs set run_at = 0 where leased_until is null");
        world.gateway.settle();
        assert_eq!((world.heard(Service::Submission, "AUTH").len(), logins()), (1, before));
        // What is logged in goes on reading.
        let letter = receive(&world, &bob, &ann);
        world.crm.await_mail("message.received", &letter.id);
        assert_eq!(world.crm.events_of("account.error").len() + world.crm.events_of("account.reauth_required").len(), 0);

        world.gateway.hasten();
        for message in [&first, &second] {
            world.crm.await_delivery(message, "sent");
        }
        assert_eq!((text(&status(&world, &account), "state"), &status(&world, &account)["detail"]), ("active", &Value::Null));
    }

    fn too_many_sessions_at_once_are_no_wrong_login(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = connect(&world, &ann, "imap");
        let said = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded; Concurrent connections limit exceeded";
        world.arm("MAIL", Act::Answer(said.to_owned()));
        let message = world.post_message(&ann, &[&bob.address], "One");
        let shown = world.crm.await_delivery(&message, "deferred");
        assert!(from_now(&shown["delivery"]["next_attempt_at"]) > SignedDuration::from_secs(50), "{shown}");
        assert_eq!(text(&status(&world, &account), "state"), "throttled");
        world.gateway.hasten();
        world.crm.await_delivery(&message, "sent");
        assert_eq!(world.crm.events_of("account.reauth_required").len(), 0);
        assert_eq!(world.provider().inbox(&mailweave::mail::Address::parse(&bob.address).unwrap()).len(), 1);
    }

    fn no_more_leaves_in_a_minute_than_the_provider_takes_and_nobody_is_told(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        connect(&world, &ann, "microsoft");
        let first = world.post_message(&ann, &[&bob.address], "One");
        world.crm.await_delivery(&first, "sent");
        assert_eq!(world.gateway.count("select messages + recipients from account_sent"), 2);
        world.gateway.execute("update account_sent set messages = 30");
        let second = world.post_message(&ann, &[&bob.address], "Two");
        wait_for("the message to be put off", PATIENCE, || {
            world.gateway.count("select count(*) from jobs where kind = 'submit' and attempt > 0 and leased_until is null") == 1
        });
        assert_eq!(text(&world.crm.get(&format!("/messages/{second}"))["delivery"], "state"), "queued");
        assert_eq!(world.heard(Service::Submission, "AUTH").len(), 1);
        world.gateway.execute("update account_sent set slot = slot - 120000000");
        world.gateway.hasten();
        world.crm.await_delivery(&second, "sent");
        assert_eq!(world.crm.events_of("message.deferred").len(), 0);
    }

    fn a_message_goes_to_as_many_as_the_provider_takes_in_a_day(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let ann = world.user("ann", "Ann Lee");
        let people = ["bob", "cora", "dan"].map(|local| world.prospect(local));
        connect(&world, &ann, "yahoo");
        let first = world.post_message(&ann, &[&people[0].address], "One");
        world.crm.await_delivery(&first, "sent");
        world.gateway.execute("update account_sent set recipients = 498");
        let all: Vec<&str> = people.iter().map(|person| person.address.as_str()).collect();
        let second = world.post_message(&ann, &all, "Two");
        let mut shown = Value::Null;
        wait_for("two of them to be sent to, and one to wait", PATIENCE, || {
            shown = world.crm.get(&format!("/messages/{second}"));
            let states = shown["delivery"]["recipients"].as_array().unwrap().clone();
            shown["delivery"]["state"] == "deferred" && states.iter().filter(|one| one["state"] == "sent").count() == 2
        });
        let wait = from_now(&shown["delivery"]["next_attempt_at"]);
        assert!(wait > SignedDuration::from_hours(23) && wait <= SignedDuration::from_hours(25), "{shown}");
        assert!(shown["delivery"]["recipients"].to_string().contains("takes no more"), "{shown}");
    }

    fn a_message_that_the_provider_will_not_take_for_its_size_is_refused_before_it_is_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = connect(&world, &ann, "icloud");
        world.crm.post(&format!("/accounts/{account}/pause"), &json!({}));
        let message = world.post_message(&ann, &[&bob.address], "Large");
        world.crm.await_delivery(&message, "held");
        world.gateway.execute("update messages set size = 99999999");
        world.crm.post(&format!("/accounts/{account}/resume"), &json!({}));
        let shown = world.crm.await_delivery(&message, "bounced");
        let recipient = &shown["delivery"]["recipients"][0];
        assert!(recipient.to_string().contains("20971520"), "{shown}");
        // The report of it leaves by the account, too.
        let asked = world.heard(Service::Submission, "RCPT");
        assert!(asked.iter().all(|line| !line.contains(&bob.address)), "{asked:?}");
    }

    fn a_message_that_the_provider_will_not_take_for_its_size_is_refused_when_it_is_handed_in(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        connect(&world, &ann, "icloud");
        // A third more as it travels.
        let file = json!({ "filename": "a.bin", "content": base64(&vec![7; 16_000_000]) });
        let message = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Large", "text": "Hello",
            "attachments": [file],
        });
        let refused = world.crm.try_post("/messages", &message);
        let told = (refused.status, text(&refused.body, "code"), text(&refused.body, "param"));
        assert_eq!(told, (422, "too_large", "attachments"), "{refused:?}");
        assert!(text(&refused.body, "detail").contains("iCloud takes messages of at most 20971520"), "{refused:?}");
        let mut client = world.workspace_client();
        let line = format!("{}\r\n", "x".repeat(76));
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let raw = format!("{}{}", letter.raw().replace('\n', "\r\n"), line.repeat(280_000));
        let reply = client.send(&ann.person.address, &[&bob.address], &raw).unwrap_err();
        assert_eq!(reply.code, 552, "{reply:?}");
        assert!(reply.text.contains("20971520"), "{reply:?}");
    }

    fn files_that_are_together_more_than_the_provider_takes_are_refused_before_they_are_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        connect(&world, &ann, "google");
        // As a message it would just fit.
        let content = base64(&vec![7; 18_400_000]);
        let message = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Large", "text": "Hello",
            "attachments": [{ "filename": "a.bin", "content": content }],
        });
        let refused = world.crm.try_post("/messages", &message);
        let told = (refused.status, text(&refused.body, "code"), text(&refused.body, "param"));
        assert_eq!(told, (422, "too_large", "attachments"), "{refused:?}");
        assert!(text(&refused.body, "detail").contains("Google takes files of at most 25000000"), "{refused:?}");

        // What a message holds is not read before its 250: then it comes back before anybody is dialled.
        let mut lines = String::new();
        for line in content.as_bytes().chunks(76) {
            lines.push_str(std::str::from_utf8(line).unwrap());
            lines.push_str("\r\n");
        }
        let raw = format!(
            "From: <{}>\r\nTo: <{}>\r\nSubject: Large\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHello\r\n--b\r\n\
             Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}--b--\r\n",
            ann.person.address, bob.address
        );
        let reply = world.workspace_client().send(&ann.person.address, &[&bob.address], &raw).unwrap();
        let shown = world.crm.await_delivery(&accepted_id(&reply), "bounced");
        assert!(shown["delivery"]["recipients"][0].to_string().contains("25000000"), "{shown}");
        let asked = world.heard(Service::Submission, "RCPT");
        assert!(asked.iter().all(|line| !line.contains(&bob.address)), "{asked:?}");
    }

    fn what_the_user_sends_by_hand_counts_against_his_providers_window_and_usage_shows_it(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = connect(&world, &ann, "yahoo");
        let first = world.post_message(&ann, &[&bob.address], "One");
        world.crm.await_delivery(&first, "sent");
        let used = || {
            let usage = world.crm.get(&format!("/users/{}/usage", ann.id));
            let windows = usage["providers"].as_array().unwrap().clone();
            assert_eq!(windows.len(), 1, "{usage}");
            windows[0].clone()
        };
        let shown = used();
        assert_eq!((text(&shown, "account_id"), text(&shown, "provider")), (account.as_str(), "yahoo"));
        assert_eq!((&shown["used"], &shown["limit"], text(&shown, "window")), (&json!(1), &json!(500), "1d"));
        assert_eq!((text(&shown, "unit"), &shown["resets_at"]), ("recipients", &Value::Null));
        let letter = Letter::new(&ann.person.address, &[&bob.address, "cora@prospects.example"]);
        let raw = letter.raw().replace('\n', "\r\n");
        let address = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        world.provider().append(&address, "Sent", raw.as_bytes(), &["\\Seen"]).unwrap();
        wait_for("what she sent herself to be counted", PATIENCE, || used()["used"] == 3);
        world.gateway.execute("update account_sent set recipients = 500");
        assert!(used()["resets_at"].is_string());
    }
}
