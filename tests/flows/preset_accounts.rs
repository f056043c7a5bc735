//! Accounts and their life under the presets: how they are doing in the systems' own words, what they need, how they end. Each
//! test has the numbers of the rules it shows.
//!
//! Not here: what their mail is (`preset_mail`), and the life of an account whatever the policy (`life`).

use std::time::{Duration, Instant};

use mailweave::{
    app::why,
    cli::Why,
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text, texts},
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{User, endpoint},
};

/// Taking a mail in must take no longer, whatever is to become of it.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Ann, with a connected account, and Bob, who is a contact of hers.
struct Desk {
    world: Sandboxed,
    ann: User,
    bob: Person,
    contact: String,
    account: String,
}

impl Desk {
    fn start(engine: Engine, preset: &str) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let contact = json!({ "email": bob.address, "assigned_user_id": ann.id });
        let contact = text(&world.crm.post("/contacts", &contact), "id").to_owned();
        world.crm.put("/policy", &json!({ "preset": preset }));
        let account = connect(&world, &own(&world, &ann), &ann, &ann.person);
        world.crm.await_account(&account);
        Self { world, ann, bob, contact, account }
    }

    fn path(&self, rest: &str) -> String {
        format!("/accounts/{}{rest}", self.account)
    }

    fn status(&self) -> Value {
        status(&self.world, &self.account)
    }

    fn await_state(&self, state: &str) {
        wait_for(&format!("the account to be {state}"), PATIENCE, || self.status()["state"] == state);
    }

    /// A mail from Bob arrives in somebody's INBOX.
    fn bob_writes(&self, to: &Person) -> Letter {
        let letter = Letter::new(&self.bob.address, &[&to.address]);
        deliver(&self.world, to, &letter);
        letter
    }

    fn is_filed(&self, letter: &Letter) -> bool {
        self.world.crm.messages().iter().any(|message| message["rfc822_message_id"] == letter.id.as_str())
    }

    /// Its login works no more, the session it has is ended, and it is looked whether there is another.
    fn fail(&self, answer: &str) {
        let act = Act::Answer(answer.to_owned());
        for verb in ["LOGIN", "AUTHENTICATE"] {
            self.world.provider().arm(Trigger::always(Service::Imap, verb), act.clone());
        }
        self.world.provider().kick(&address(&self.ann.person)).unwrap();
        // Where it has been given up meanwhile, nobody can ask for that.
        self.world.crm.try_post(&self.path("/sync"), &json!({}));
    }
}

fn address(person: &Person) -> Address {
    Address::parse(&person.address).unwrap()
}

fn deliver(world: &Sandboxed, to: &Person, letter: &Letter) {
    world.provider().deliver(&address(to), letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
}

/// The API with a key of this user's own.
fn own(world: &Sandboxed, user: &User) -> Crm {
    world.crm.with_key(&world.crm.key(&["read", "write", "send"], Some(&user.id)).1)
}

/// Connects this mailbox as an account of the user's.
fn connect(world: &Sandboxed, crm: &Crm, user: &User, mailbox: &Person) -> String {
    let (imap, smtp) = (endpoint(world.running.imap, "none"), endpoint(world.running.submission, "none"));
    User { person: mailbox.clone(), ..user.clone() }.connect(crm, &imap, &smtp)
}

fn status(world: &Sandboxed, account: &str) -> Value {
    world.crm.get(&format!("/accounts/{account}"))["status"].clone()
}

fn look(world: &Sandboxed, account: &str) {
    world.crm.post(&format!("/accounts/{account}/sync"), &json!({}));
}

fn login(person: &Person) -> Value {
    json!({ "type": "password", "username": person.address, "password": person.password })
}

#[track_caller]
fn assert_shown(status: &Value, state: &str, label: &str, color: &str) {
    let shown = (text(status, "state"), text(status, "label"), text(status, "color"));
    assert_eq!(shown, (state, label, color), "{status}");
}

both! {
    fn keap_8_keap_14_keap_16_real_12_each_account_knows_when_it_last_found_mail_of_a_contact(engine) {
        let desk = Desk::start(engine, "keap");
        let world = &desk.world;
        let other = world.person("ann.lee@acme.example");
        let second = connect(world, &world.crm, &desk.ann, &other);
        world.crm.await_account(&second);
        let contact = || world.crm.get(&format!("/contacts/{}", desk.contact))["last_synced_at"].clone();
        let synced = |account: &str| status(world, account)["last_synced_at"].clone();
        let checked = |account: &str| status(world, account)["last_checked_at"].clone();
        assert_eq!((contact(), synced(&desk.account)), (Value::Null, Value::Null));

        let letter = desk.bob_writes(&desk.ann.person);
        look(world, &desk.account);
        world.crm.await_mail("message.received", &letter.id);
        let found = synced(&desk.account);
        assert_eq!((contact(), synced(&second)), (found.clone(), Value::Null));
        // Mail of nobody's is looked at, and is no sync.
        let private = Letter::new("friend@elsewhere.example", &[&desk.ann.person.address]);
        deliver(world, &desk.ann.person, &private);
        let before = checked(&desk.account);
        // A new session writes down at once that it has looked.
        world.crm.post(&desk.path("/pause"), &json!({}));
        world.crm.post(&desk.path("/resume"), &json!({}));
        let decided = format!("/decisions?rfc822_message_id={}", private.id);
        wait_for("it to be looked", PATIENCE, || world.crm.list(&decided).len() == 1 && checked(&desk.account) != before);
        assert_eq!((synced(&desk.account), contact()), (found.clone(), found.clone()));

        let letter = desk.bob_writes(&other);
        look(world, &second);
        world.crm.await_mail("message.received", &letter.id);
        assert_eq!((synced(&desk.account), contact()), (found.clone(), synced(&second)));
        assert!(text(&json!({ "at": contact() }), "at") > text(&json!({ "at": found }), "at"));
        assert_eq!(world.crm.list("/accounts").len(), 2);
    }

    fn keap_15_many_accounts_bring_a_warning_and_no_refusal(engine) {
        let desk = Desk::start(engine, "keap");
        let world = &desk.world;
        world.crm.put("/limits", &json!({ "accounts": 5 }));
        let told = || world.crm.events_of("quota.warning");
        for number in 2..=4 {
            assert_eq!(told(), Vec::<Value>::new());
            let mailbox = world.person(&format!("ann{number}@acme.example"));
            let account = connect(world, &world.crm, &desk.ann, &mailbox);
            world.crm.await_account(&account);
        }
        assert_eq!(told().len(), 1);
        assert_eq!(told()[0]["data"]["quota"], "accounts", "{:?}", told());
        assert_eq!(world.crm.events_of("quota.exceeded"), Vec::<Value>::new());
    }

    fn shsp_10_an_administrator_sees_who_has_nothing_connected(engine) {
        let desk = Desk::start(engine, "sharpspring");
        let ben = desk.world.user("ben", "Ben Low");
        let listed = |connected: bool| texts(&desk.world.crm.list(&format!("/users?connected={connected}")), "id");
        assert_eq!((listed(false), listed(true)), (vec![ben.id.clone()], vec![desk.ann.id.clone()]));
        desk.world.crm.post(&desk.path("/disconnect"), &json!({ "history": "keep" }));
        assert_eq!((listed(false), listed(true)), (vec![ben.id, desk.ann.id.clone()], vec![]));
    }

    fn shsp_11_to_shsp_14_shsp_16_to_shsp_18_from_enabled_to_error_to_connection_issue(engine) {
        let desk = Desk::start(engine, "sharpspring");
        let letter = desk.bob_writes(&desk.ann.person);
        desk.world.crm.await_mail("message.received", &letter.id);
        desk.await_state("active");
        assert_shown(&desk.status(), "active", "Enabled", "green");
        let log = || desk.world.crm.list(&desk.path("/errors"));
        assert_eq!(log(), Vec::<Value>::new());

        desk.fail("NO [SERVERBUG] Backend down");
        desk.await_state("error");
        assert_shown(&desk.status(), "error", "Error", "red");
        assert!(desk.status()["next_attempt_at"].is_string(), "it is tried again: {}", desk.status());
        assert!(text(&log()[0], "message").contains("Backend down"), "{:?}", log());
        assert!(log()[0]["at"].is_string() && !text(&log()[0], "advice").is_empty(), "{:?}", log());

        // As if that had begun two days ago, and no sooner.
        let begun = |hours: i64| jiff::Timestamp::now().as_microsecond() - hours * 3_600_000_000;
        desk.world.gateway.execute_with("update accounts set failing_since = ", begun(47));
        look(&desk.world, &desk.account);
        wait_for("it to fail again", PATIENCE, || log()[0]["count"].as_i64().unwrap() > 1);
        assert_shown(&desk.status(), "error", "Error", "red");
        desk.world.gateway.execute_with("update accounts set failing_since = ", begun(48));
        look(&desk.world, &desk.account);
        desk.await_state("stopped");
        assert_shown(&desk.status(), "stopped", "Connection Issue", "red");
        assert_eq!(desk.status()["next_attempt_at"], Value::Null);
        desk.world.provider().disarm();
        desk.world.crm.post(&desk.path("/resume"), &json!({}));
        desk.await_state("active");
        assert_shown(&desk.status(), "active", "Enabled", "green");
    }

    fn hilv_2_kana_9_a_user_of_the_workspace_connects_his_account_and_sees_how_it_is_doing(engine) {
        let desk = Desk::start(engine, "highlevel-outlook");
        let shown = &desk.world.crm.list("/accounts")[0];
        assert_eq!((text(shown, "email"), text(shown, "user_id")), (desk.ann.person.address.as_str(), desk.ann.id.as_str()));
        assert_shown(&shown["status"], "awaiting_first_mail", "Waiting for the first mail", "blue");
        // Whoever works elsewhere connects nothing here, and sees nothing of it.
        let other = desk.world.gateway.crm("zenith").settle_in();
        other.put("/policy", &json!({ "preset": "kaname-gmail" }));
        let stranger = User::add(&other, desk.world.person("zoe@acme.example"), "Zoe");
        let key = other.key(&["read", "write"], Some(&stranger.id)).1;
        let account = json!({
            "user_id": stranger.id, "email": stranger.person.address, "auth": login(&stranger.person),
            "imap": endpoint(desk.world.running.imap, "none"), "smtp": endpoint(desk.world.running.submission, "none"),
        });
        assert_eq!(desk.world.crm.with_key(&key).try_post("/accounts", &account).status, 404);
        let refused = desk.world.crm.try_post("/accounts", &account);
        assert_eq!((refused.status, text(&refused.body, "param")), (422, "user_id"), "{refused:?}");
        assert_eq!(other.with_key(&key).try_post("/accounts", &account).status, 201);
        assert_eq!(desk.world.crm.list("/accounts").len(), 1);
    }

    fn real_1_real_2_a_problematic_account_is_red_and_can_be_connected_anew(engine) {
        let desk = Desk::start(engine, "realpad");
        desk.fail("NO [LIMIT] Too many simultaneous connections");
        wait_for("the account to be Problematic", PATIENCE, || desk.status()["label"] == "Problematic");
        assert_eq!(text(&desk.status(), "color"), "red");
        let own = own(&desk.world, &desk.ann);
        own.post(&desk.path("/disconnect"), &json!({}));
        assert_eq!(text(&desk.status(), "label"), "Disconnected");
        desk.world.provider().disarm();
        own.patch(&desk.path(""), &json!({ "auth": login(&desk.ann.person) }));
        desk.world.crm.await_account(&desk.account);
        let letter = desk.bob_writes(&desk.ann.person);
        look(&desk.world, &desk.account);
        let told = desk.world.crm.await_mail("message.received", &letter.id);
        assert_eq!(told["data"]["account_id"], desk.account.as_str());
    }

    fn real_3_what_sending_needs_is_said_when_it_is_missing(engine) {
        let desk = Desk::start(engine, "realpad");
        let world = &desk.world;
        let own = own(world, &desk.ann);
        let with = |to: &[&str], subject: &str, words: &str| {
            let to: Vec<_> = to.iter().map(|email| json!({ "email": email })).collect();
            json!({ "from_user_id": desk.ann.id, "to": to, "subject": subject, "text": words })
        };
        let bob = desk.bob.address.as_str();
        let whole = with(&[bob], "Offer", "Hello.");
        let refused = |crm: &Crm, message: &Value, status: u16, param: &str| {
            let answer = crm.try_post("/messages", message);
            assert_eq!((answer.status, answer.body["param"].as_str()), (status, Some(param)), "{answer:?}");
        };
        // An address, a subject, a text.
        refused(&own, &with(&[], "Offer", "Hello."), 422, "to");
        refused(&own, &with(&[bob], " ", "Hello."), 422, "subject");
        refused(&own, &with(&[bob], "Offer", " \n"), 422, "text");
        // A right.
        let reader = world.crm.with_key(&world.crm.key(&["read"], Some(&desk.ann.id)).1);
        assert_eq!(reader.try_post("/messages", &whole).status, 403);
        assert_eq!(own.try_post("/messages", &whole).status, 202);
        // Where no policy says otherwise, a mail may lack either.
        world.crm.put("/policy", &json!({}));
        assert_eq!(own.try_post("/messages", &with(&[bob], "", "Hello.")).status, 202);
        world.crm.put("/policy", &json!({ "preset": "realpad" }));
        // An account that works: one that has failed holds it and says why, without one it is not even taken.
        desk.fail("NO [AUTHENTICATIONFAILED] Invalid credentials");
        wait_for("the account to be Problematic", PATIENCE, || desk.status()["label"] == "Problematic");
        let held = text(&own.post("/messages", &whole), "id").to_owned();
        let shown = world.crm.await_delivery(&held, "held");
        assert!(!text(&shown["delivery"], "detail").is_empty(), "{shown}");
        own.post(&desk.path("/disconnect"), &json!({}));
        refused(&own, &whole, 422, "from_user_id");
    }

    fn real_4_whoever_misses_mail_is_told_where_to_look(engine) {
        let desk = Desk::start(engine, "realpad");
        desk.fail("NO [LIMIT] Too many simultaneous connections");
        wait_for("the account to be Problematic", PATIENCE, || desk.status()["label"] == "Problematic");
        let missed = desk.bob_writes(&desk.ann.person);
        let client = desk.world.crm.command_line();
        let why = Why { client, about: missed.id.clone(), json: false, limit: 20 };
        let answer = desk.world.gateway.runtime.block_on(why::ask(&why)).unwrap();
        for cause in ["some seconds old", "not connected, is paused or in error"] {
            assert!(!answer.known && answer.text.contains(cause), "{answer:?}");
        }
        assert!(text(&desk.status(), "detail").contains("Too many"), "{}", desk.status());
        assert!(!text(&desk.status(), "advice").is_empty());
    }

    fn keap_27_to_keap_29_and_keap_32_the_error_log_has_the_words_for_each_cause(engine) {
        let desk = Desk::start(engine, "keap");
        let log = || desk.world.crm.list(&desk.path("/errors"));
        for (answer, title, advice) in [
            ("NO [AUTHENTICATIONFAILED] Invalid credentials", "Access denied for this account.", "If the password has changed"),
            ("NO [AUTHORIZATIONFAILED] Token revoked", "Authorization has been revoked for this account", "Allow access at the provider"),
            ("NO Your account is not enabled for IMAP use", "Email is not enabled for this account", "Check the spelling"),
            ("NO [SERVERBUG] Oops", "Unknown error reading email from provider, please check again later", "We try again"),
        ] {
            desk.world.crm.post(&desk.path("/pause"), &json!({}));
            desk.world.provider().disarm();
            desk.fail(answer);
            desk.world.crm.post(&desk.path("/resume"), &json!({}));
            wait_for(title, PATIENCE, || {
                log().iter().any(|line| line["title"] == title && text(line, "advice").contains(advice))
            });
            // Once what is wrong is mended, it goes on.
            desk.world.provider().disarm();
            desk.world.crm.patch(&desk.path(""), &json!({ "auth": login(&desk.ann.person) }));
            desk.await_state("awaiting_first_mail");
        }
        assert!(log().iter().all(|line| line["at"].is_string() && line["count"].as_i64() > Some(0)), "{:?}", log());
    }

    fn faq_12_whose_password_has_changed_logs_in_again_and_it_goes_on(engine) {
        let desk = Desk::start(engine, "kaname-gmail");
        let first = desk.bob_writes(&desk.ann.person);
        desk.world.crm.await_mail("message.received", &first.id);
        desk.world.provider().set_password(&address(&desk.ann.person), "changed").unwrap();
        desk.world.provider().kick(&address(&desk.ann.person)).unwrap();
        desk.await_state("reauth_required");
        let meanwhile = desk.bob_writes(&desk.ann.person);
        desk.world.gateway.settle();
        assert!(!desk.is_filed(&meanwhile));
        let changed = Person { password: "changed".to_owned(), ..desk.ann.person.clone() };
        desk.world.crm.patch(&desk.path(""), &json!({ "auth": login(&changed) }));
        desk.world.crm.await_mail("message.received", &meanwhile.id);
        desk.await_state("active");
        assert_eq!(desk.world.crm.messages().len(), 2);
    }

    fn keap_19_kana_16_hilv_11_faq_2_faq_3_faq_18_disconnecting_ends_it_and_leaves_what_came(engine) {
        for preset in ["keap", "kaname-gmail", "highlevel-outlook"] {
            let desk = Desk::start(engine, preset);
            let begun = desk.world.post_message(&desk.ann, &[&desk.bob.address], "Offer");
            let shown = desk.world.crm.await_delivery(&begun, "sent");
            let first = desk.bob_writes(&desk.ann.person);
            look(&desk.world, &desk.account);
            desk.world.crm.await_mail("message.received", &first.id);
            // What becomes of history need not be said: the preset keeps it.
            let gone = desk.world.crm.post(&desk.path("/disconnect"), &json!({}));
            assert_eq!(text(&gone["status"], "state"), "disconnected", "{preset}");
            let later = Letter::new(&desk.bob.address, &[&desk.ann.person.address])
                .answering(text(&shown, "rfc822_message_id"));
            deliver(&desk.world, &desk.ann.person, &later);
            let by_hand = Letter::new(&desk.ann.person.address, &[&desk.bob.address]).answering(&first.id);
            let raw = by_hand.raw().replace('\n', "\r\n");
            desk.world.provider().append(&address(&desk.ann.person), "Sent", raw.as_bytes(), &[]).unwrap();
            let message = json!({ "from_user_id": desk.ann.id, "to": [{ "email": desk.bob.address }], "subject": "x", "text": "x" });
            let refused = desk.world.crm.try_post("/messages", &message);
            assert_eq!(text(&refused.body, "code"), "no_way_out", "{refused:?}");
            assert_eq!(desk.world.crm.try_post(&desk.path("/sync"), &json!({})).status, 409);
            desk.world.gateway.settle();
            assert!(desk.is_filed(&first) && !desk.is_filed(&later) && !desk.is_filed(&by_hand), "{preset}");
            assert_eq!(desk.world.crm.messages().len(), 2, "{preset}");
        }
    }

    fn faq_20_what_comes_to_a_capture_address_is_taken_at_once_and_never_bounced(engine) {
        let desk = Desk::start(engine, "kaname-gmail");
        let world = &desk.world;
        let (ann, mallory) = (&desk.ann.person, world.prospect("mallory"));
        let takes = |from: &Person, letter: &Letter| {
            let begun = Instant::now();
            let reply = world.arrive(&from.address, &[&desk.ann.capture_address], letter).unwrap();
            assert!(reply.code == 250 && reply.text.contains("msg_"), "{reply:?}");
            assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
        };
        let filed = Letter::new(&ann.address, &["new@prospects.example"]);
        takes(ann, &filed);
        world.crm.await_mail("message.captured", &filed.id);
        // From somebody who is no user; with a broken structure; where the address does nothing any more.
        takes(&mallory, &Letter::new(&mallory.address, &["new@prospects.example"]));
        let broken = Letter::new(&ann.address, &["new@prospects.example"])
            .field("Content-Type", "multipart/mixed; boundary=never")
            .text("--nothing =?utf-8?q?=");
        takes(ann, &broken);
        world.crm.put("/policy", &json!({ "preset": "kaname-outlook" }));
        takes(ann, &Letter::new(&ann.address, &["new@prospects.example"]));
        wait_for("all to be decided", PATIENCE, || world.crm.list("/decisions").len() >= 4);
        world.gateway.settle();
        for person in [ann, &mallory] {
            assert_eq!(world.provider().inbox(&address(person)).len(), 0, "{}", person.address);
        }
        assert_eq!(world.heard(Service::Submission, "MAIL"), Vec::<String>::new());
    }
}
