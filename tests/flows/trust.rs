//! Who may write into the CRM: what becomes of copies by who sent them, where no server's word is taken for it.
//!
//! Not here: deciding by hand about what is kept aside (`quarantine`).

use std::sync::LazyLock;

use mailweave::{
    config::{Config, NameServer},
    mail::Address,
    sandbox::Behaviour,
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    sandboxed::Sandboxed,
    support::{
        PATIENCE, Person,
        dns::{Dns, Zone},
        wait_for,
    },
    world::{User, accepted_id, assert_free_of},
};

const BOB: &str = "bob@prospects.example";

/// Where nobody publishes anything by which a sender could be proven.
static NAMES: LazyLock<Dns> = LazyLock::new(|| Dns::start(Zone::default().address("localhost", "127.0.0.1")));

/// Trusts nobody.
fn untrusting(config: &mut Config) {
    config.smtp.mx.trusted_peers = Some(Vec::new());
    config.dns.servers = vec![NameServer(NAMES.address())];
}

/// Takes the word of this machine for everybody.
fn trusting(config: &mut Config) {
    config.smtp.mx.trusted_peers = Some(vec!["127.0.0.0/8".parse().unwrap()]);
}

/// A gateway that takes nobody's word, where nothing can be proven.
pub fn world(engine: crate::support::store::Engine) -> Sandboxed {
    Sandboxed::with(engine, Behaviour::default(), untrusting)
}

/// A copy that the user may have written: nothing proves it.
fn copy(user: &User) -> Letter {
    Letter::new(&user.person.address, &[BOB])
}

/// It arrives at his capture address; returns the id.
fn arrive(world: &Sandboxed, user: &User, letter: &Letter) -> String {
    accepted_id(&world.arrive(&user.person.address, &[&user.capture_address], letter).unwrap())
}

/// What lies in quarantine under this id, once it is held.
fn await_held(crm: &Crm, id: &str) -> Value {
    let mut found = Value::Null;
    wait_for("mail in quarantine", PATIENCE, || {
        found = crm.ask(&format!("/quarantine/{id}")).body;
        found["state"] == "held"
    });
    found
}

/// It lies in the user's Sent mailbox, as his client has put it there.
fn put_in_sent(world: &Sandboxed, person: &Person, letter: &Letter) {
    let own = Address::parse(&person.address).unwrap();
    world
        .provider()
        .append(&own, "Sent", letter.raw().replace('\n', "\r\n").as_bytes(), &["\\Seen"])
        .unwrap();
}

#[track_caller]
fn assert_verified(world: &Sandboxed, id: &str, (level, rule): (&str, &str)) {
    let verification = &world.crm.get(&format!("/messages/{id}"))["verification"];
    assert_eq!((text(verification, "level"), text(verification, "rule")), (level, rule));
}

both! {
    fn a_copy_that_proves_nothing_waits_for_the_user_it_names(engine) {
        let world = world(engine);
        let [ann, ben] = [world.user("ann", "Ann Lee"), world.user("ben", "Ben Low")];
        let letter = copy(&ann);
        let id = arrive(&world, &ann, &letter);
        let held = await_held(&world.crm, &id);
        assert_eq!((text(&held, "level"), text(&held, "user_id")), ("e1", ann.id.as_str()));
        assert_eq!(held["from"][0]["email"], ann.person.address.as_str());
        world.gateway.settle();
        for path in ["/contacts", "/conversations"] {
            assert_eq!(world.crm.list(path), Vec::<Value>::new(), "{path}");
        }
        let told: Vec<_> = world.crm.events().iter().map(|event| text(event, "type").to_owned()).collect();
        assert_eq!(told, ["message.held"]);
        // Hers to decide, and not Ben's.
        let key_of = |user: &User| world.crm.with_key(&world.crm.key(&["read", "write"], Some(&user.id)).1);
        assert_eq!(key_of(&ben).list("/quarantine"), Vec::<Value>::new());
        let released = key_of(&ann).post(&format!("/quarantine/{id}/release"), &json!({}));
        assert_eq!(text(&released, "state"), "released");
        world.crm.await_mail("message.captured", &letter.id);
        assert_verified(&world, &id, ("e1", text(&held, "rule")));
        // Once is once.
        let next = copy(&ann);
        await_held(&world.crm, &arrive(&world, &ann, &next));
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn the_same_again_is_kept_aside_once(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = copy(&ann);
        await_held(&world.crm, &arrive(&world, &ann, &letter));
        for sender in ["eve@prospects.example", "mallory@prospects.example"] {
            world.arrive(sender, &[&ann.capture_address], &letter).unwrap();
        }
        wait_for("three decisions", PATIENCE, || {
            world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id)).len() == 3
        });
        assert_eq!(world.crm.list("/quarantine").len(), 1);
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn policy_says_how_much_proof_is_needed(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let set = |trust: &str| {
            world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "trust": trust } }));
        };
        set("open");
        let open = copy(&ann);
        let id = arrive(&world, &ann, &open);
        world.crm.await_mail("message.captured", &open.id);
        assert_eq!(world.crm.get(&format!("/messages/{id}"))["verification"]["mark"], "unverified");
        // Nobody is everybody's user.
        let stranger = Letter::new("mallory@prospects.example", &[BOB]);
        let taken = world.arrive("mallory@prospects.example", &[&ann.capture_address], &stranger).unwrap();
        assert_eq!(text(&await_held(&world.crm, &accepted_id(&taken)), "level"), "e0");
        for mode in ["strict", "balanced"] {
            set(mode);
            await_held(&world.crm, &arrive(&world, &ann, &copy(&ann)));
        }
    }

    fn the_users_own_sent_mailbox_proves_what_nothing_else_does(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = copy(&ann);
        let id = arrive(&world, &ann, &letter);
        await_held(&world.crm, &id);
        // Another text under the same id proves nothing: whoever was sent hers knows the id.
        let forged = copy(&ann).id(&letter.id).text("Pay the other account.\n");
        let forged_id = arrive(&world, &ann, &forged);
        await_held(&world.crm, &forged_id);
        put_in_sent(&world, &ann.person, &letter);
        world.connect(&ann);
        let captured = world.crm.await_mail("message.captured", &letter.id);
        assert_eq!(captured["data"]["message_id"], id.as_str());
        assert_verified(&world, &id, ("e4", "own_sent"));
        world.gateway.settle();
        assert_eq!(world.crm.get(&format!("/quarantine/{id}"))["state"], "released");
        assert_eq!(world.crm.get(&format!("/quarantine/{forged_id}"))["state"], "held");
        // Bob is a contact by now, so that what Ann sends him is filed before its copy comes.
        let second = copy(&ann);
        put_in_sent(&world, &ann.person, &second);
        world.crm.await_mail("message.sent", &second.id);
        let copied = arrive(&world, &ann, &second);
        wait_for("the copy", PATIENCE, || world.crm.ask(&format!("/decisions?message_id={copied}")).status == 200
            && world.crm.list(&format!("/decisions?rfc822_message_id={}", second.id)).len() > 1);
        world.gateway.settle();
        assert_eq!(world.crm.list("/quarantine").len(), 1);
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_copy_that_says_something_else_anywhere_has_not_the_word_of_the_one_in_sent(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = copy(&ann);
        let with_link = |link: &str| {
            let html = format!("<p>See <a href=\"{link}\">here</a>.</p>");
            letter.clone().field("MIME-Version", "1.0").field("Content-Type", "multipart/alternative; boundary=b").text(
                &format!("--b\n\nSee here.\n--b\nContent-Type: text/html\n\n{html}\n--b--\n"),
            )
        };
        let sent = with_link("https://acme.example/");
        let forged = [
            with_link("https://evil.example/"),
            sent.clone().subject("Our new account"),
            sent.clone().answering("another@prospects.example"),
            sent.clone().field("Reply-To", "mallory@prospects.example"),
        ];
        let held: Vec<String> = forged.iter().map(|forged| arrive(&world, &ann, forged)).collect();
        held.iter().for_each(|id| drop(await_held(&world.crm, id)));
        put_in_sent(&world, &ann.person, &sent);
        world.connect(&ann);
        let copied = arrive(&world, &ann, &sent);
        let captured = world.crm.await_mail("message.captured", &letter.id);
        assert_eq!(captured["data"]["message_id"], copied.as_str());
        // It is in the store by now, and so is its copy: another one of the id still says something else.
        let again = sent.clone().subject("Our other account");
        await_held(&world.crm, &arrive(&world, &ann, &again));
        world.gateway.settle();
        for id in &held {
            assert_eq!(world.crm.get(&format!("/quarantine/{id}"))["state"], "held");
        }
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_copy_is_proven_by_the_one_in_sent_also_where_its_files_stay_out(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "attachment_bytes_max": 3 } }));
        world.crm.post("/contacts", &json!({ "email": BOB }));
        world.crm.await_account(&world.connect(&ann));
        let letter = copy(&ann)
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=b")
            .text("--b\n\nHello.\n--b\nContent-Disposition: attachment; filename=a.txt\n\nToo long.\n--b--\n");
        put_in_sent(&world, &ann.person, &letter);
        let sent = world.crm.await_mail("message.sent", &letter.id);
        let copied = arrive(&world, &ann, &letter);
        let sightings = || world.crm.get(&format!("/messages/{}", text(&sent["data"], "message_id")))["sightings"].as_array().unwrap().len();
        wait_for("the copy to be seen", PATIENCE, || sightings() == 2 || world.crm.ask(&format!("/quarantine/{copied}")).status == 200);
        assert_eq!((sightings(), world.crm.list("/quarantine").len()), (2, 0));
    }

    fn that_a_mail_was_sent_long_ago_does_not_prove_who_sends_it_now(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = copy(&ann).days_ago(10);
        put_in_sent(&world, &ann.person, &letter);
        world.crm.await_account(&world.connect(&ann));
        let id = arrive(&world, &ann, &letter);
        await_held(&world.crm, &id);
        world.gateway.settle();
        let kept = world.crm.get(&format!("/quarantine/{id}"));
        assert_eq!((text(&kept, "state"), text(&kept, "level")), ("held", "e1"));
    }

    fn what_a_colleague_puts_into_his_own_sent_mailbox_proves_nothing_of_the_user(engine) {
        let world = world(engine);
        let [ann, ben] = [world.user("ann", "Ann Lee"), world.user("ben", "Ben Low")];
        world.connect(&ben);
        // Once Bob is a contact what lies in Sent is filed, and not only left out.
        for is_known in [false, true] {
            if is_known {
                world.crm.post("/contacts", &json!({ "email": BOB }));
            }
            let (forged, marker) = (copy(&ann), copy(&ben));
            let id = arrive(&world, &ann, &forged);
            await_held(&world.crm, &id);
            for letter in [&forged, &marker] {
                put_in_sent(&world, &ben.person, letter);
                wait_for("Sent to be read", PATIENCE, || {
                    let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
                    decisions.iter().any(|decision| text(decision, "via") == "account")
                });
            }
            world.gateway.settle();
            assert_eq!(world.crm.get(&format!("/quarantine/{id}"))["state"], "held");
        }
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_users_own_mail_that_proves_too_little_does_not_give_his_address_anew(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = Letter::new(&ann.person.address, &[BOB, &ann.capture_address]);
        await_held(&world.crm, &arrive(&world, &ann, &letter));
        world.gateway.settle();
        assert_eq!(world.crm.events_of("capture_address.rotated"), Vec::<Value>::new());
        assert_eq!(world.crm.get(&format!("/users/{}", ann.id))["capture_address"], ann.capture_address.as_str());
    }

    fn in_the_inbox_anybody_may_say_he_is_the_user(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        world.connect(&ann);
        let letter = Letter::new(&ann.person.address, &[BOB, &ann.person.address]);
        let own = Address::parse(&ann.person.address).unwrap();
        let id = arrive(&world, &ann, &letter);
        await_held(&world.crm, &id);
        world.provider().deliver(&own, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        let marker = Letter::new(BOB, &[&ann.person.address]);
        world.provider().deliver(&own, marker.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        wait_for("the inbox to be read", PATIENCE, || {
            !world.crm.list(&format!("/decisions?rfc822_message_id={}", marker.id)).is_empty()
        });
        world.gateway.settle();
        assert_eq!(world.crm.get(&format!("/quarantine/{id}"))["state"], "held");
    }

    fn a_question_whose_sender_nothing_proves_is_not_answered(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        world.connect(&ann);
        let question = Letter::new(&ann.person.address, &["somebody@prospects.example"]).subject("Fwd: why?");
        let why = ann.capture_address.replace('@', "+why@");
        world.arrive(&ann.person.address, &[&why], &question).unwrap();
        wait_for("a decision", PATIENCE, || {
            let found = world.crm.list(&format!("/decisions?rfc822_message_id={}", question.id));
            found.iter().any(|decision| text(decision, "rule") == "unproven_question")
        });
        world.gateway.settle();
        assert_eq!(world.crm.list("/quarantine"), Vec::<Value>::new());
        let own = Address::parse(&ann.person.address).unwrap();
        let sent = world.provider().inbox(&own);
        assert!(sent.iter().all(|mail| !String::from_utf8_lossy(&mail.raw).contains("auto-replied")));
    }

    fn a_copy_that_the_user_disowns_is_gone_with_all_that_came_of_it(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "trust": "open" } }));
        let forged = copy(&ann).subject("Rhabarberkompott");
        let id = arrive(&world, &ann, &forged);
        world.crm.await_mail("message.captured", &forged.id);
        assert_eq!(world.crm.list("/contacts").len(), 1);
        let answer = world.crm.post(&format!("/messages/{id}/disown"), &json!({}));
        assert_eq!((text(&answer, "state"), text(&answer, "settled_by")), ("rejected", "admin"));
        assert_eq!(world.crm.ask(&format!("/messages/{id}")).status, 404);
        for path in ["/contacts", "/conversations"] {
            assert_eq!(world.crm.list(path), Vec::<Value>::new(), "{path}");
        }
        world.gateway.settle();
        assert_free_of(&world.gateway.dump().join("\n"), &["Rhabarberkompott", BOB]);
        assert_eq!(world.gateway.audit(), [""; 0]);
        // What was proven cannot be disowned.
        let mut world = world;
        world.gateway.restart(trusting);
        world.crm = world.gateway.crm("acme");
        let own = copy(&ann);
        let id = arrive(&world, &ann, &own);
        world.crm.await_mail("message.captured", &own.id);
        assert_verified(&world, &id, ("e3", "trusted_peer"));
        let refused = world.crm.try_post(&format!("/messages/{id}/disown"), &json!({}));
        assert_eq!((refused.status, text(&refused.body, "code")), (409, "not_in_doubt"));
    }
}
