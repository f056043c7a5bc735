//! Mail that a user forwards to his capture address, by how much speaks for him: kept aside and let in later, or taken with a doubt.
//!
//! Not here: whose it is once he is believed (`forwarded`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    forwarded::{self, CORA, GMAIL, attached, forward},
    letter::Letter,
    proof::{Proof, proving, signed},
    sandboxed::{ACME, Sandboxed},
    support::{PATIENCE, store::Engine, wait_for},
    trust,
    why::command_line,
    world::{User, accepted_id},
};

/// A gateway that believes as much as this word says, and Ann, whose provider signs.
fn office(engine: Engine, trust: &str) -> (Proof, User) {
    let proof = Proof::start(engine, proving(&[ACME]));
    let ann = proof.world.user("ann", "Ann Lee");
    set_trust(&proof, trust);
    (proof, ann)
}

fn set_trust(proof: &Proof, trust: &str) {
    proof.world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "trust": trust } }));
}

/// It comes from the user's provider, by a way by which nothing of his has come yet.
fn arrive(proof: &Proof, user: &User, letter: &Letter) -> String {
    proof.arrive(&user.person.address, &user.capture_address, &signed(ACME, letter))
}

/// All that the CRM sees of a mail and of what came of it, but for ids, times and how it was let in.
fn seen(crm: &Crm, id: &str) -> Value {
    let message = crm.get(&format!("/messages/{id}"));
    let conversation = crm.get(&format!("/conversations/{}", text(&message, "conversation_id")));
    let contacts: Vec<Value> =
        crm.list("/contacts").iter().map(|one| json!([one["email"], one["name"]])).collect();
    let told: Vec<Value> = crm
        .events()
        .iter()
        .filter(|event| event["type"] != "message.held")
        .map(|event| event["type"].clone())
        .collect();
    json!({
        "author": [message["author"]["role"], message["author"]["email"]],
        "people": [message["from"], message["to"]],
        "is": [message["kind"], message["direction"], message["subject"], message["reply_text"]],
        "forwarded": [message["forwarded"]["confidence"], message["forwarded"]["comment"], message["forwarded"]["by"]["email"]],
        "conversation": [conversation["subject"], conversation["message_count"], conversation["contact_id"].is_string()],
        "contacts": contacts,
        "told": told,
    })
}

/// What is seen of mail that was kept aside at this level and that a person lets in now.
fn seen_released(world: &Sandboxed, (id, letter): (&str, &Letter), level: &str) -> Value {
    let crm = &world.crm;
    let mut held = Value::Null;
    wait_for("it to be held", PATIENCE, || {
        held = crm.ask(&format!("/quarantine/{id}")).body;
        held["state"] == "held"
    });
    assert_eq!(text(&held, "level"), level);
    assert_eq!(crm.list("/conversations"), Vec::<Value>::new());
    let told = command_line(world, id, false).text;
    assert!(told.contains(&format!("way out   mailweave quarantine release {id}")), "{told}");
    crm.post(&format!("/quarantine/{id}/release"), &json!({}));
    crm.await_mail("message.captured", &letter.id);
    world.gateway.settle();
    assert_eq!(world.gateway.audit(), [""; 0]);
    seen(crm, id)
}

/// As [`arrive`], where nothing proves the user or everything does.
fn arrive_at(world: &Sandboxed, user: &User, letter: &Letter) -> String {
    accepted_id(&world.arrive(&user.person.address, &[&user.capture_address], letter).unwrap())
}

both! {
    fn what_is_let_in_later_is_filed_as_it_would_have_been_at_once(engine) {
        for is_whole in [false, true] {
            let letter_of = |ann: &User| if is_whole { attached(ann) } else { forward(ann, GMAIL) };

            let (at_once, ann) = forwarded::office(engine);
            let letter = letter_of(&ann);
            let id = arrive_at(&at_once, &ann, &letter);
            at_once.crm.await_mail("message.captured", &letter.id);
            at_once.gateway.settle();
            let expect = seen(&at_once.crm, &id);
            assert_eq!((&expect["author"], &expect["contacts"][0][0]), (&json!(["contact", CORA]), &json!(CORA)), "{expect}");

            let unproven = trust::world(engine);
            let ann = unproven.user("ann", "Ann Lee");
            let letter = letter_of(&ann);
            let id = arrive_at(&unproven, &ann, &letter);
            assert_eq!(seen_released(&unproven, (&id, &letter), "e1"), expect);

            let (doubtful, ann) = office(engine, "strict");
            let letter = letter_of(&ann);
            let id = arrive(&doubtful, &ann, &letter);
            assert_eq!(seen_released(&doubtful.world, (&id, &letter), "e2"), expect);
        }
    }

    fn who_passed_it_on_can_say_that_he_did_not(engine) {
        let (proof, ann) = office(engine, "balanced");
        let crm = &proof.world.crm;
        let anns = crm.with_key(&crm.key(&["read", "write"], Some(&ann.id)).1);
        for _ in 0..2 {
            let letter = forward(&ann, GMAIL);
            let id = arrive(&proof, &ann, &letter);
            crm.await_mail("message.captured", &letter.id);
            // What was learnt with the first is forgotten with it.
            assert_eq!(text(&proof.verification(&id), "rule"), "new_route");
            let disowned = anns.post(&format!("/messages/{id}/disown"), &json!({}));
            assert_eq!((text(&disowned, "rule"), text(&disowned, "user_id")), ("disowned", ann.id.as_str()));
        }
        assert_eq!(crm.messages(), Vec::<Value>::new());
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn with_a_doubt_left_the_author_is_named_and_nobody_made(engine) {
        let (proof, ann) = office(engine, "balanced");
        let crm = &proof.world.crm;
        for (trust, user) in [("balanced", ann), ("open", proof.world.user("ben", "Ben Low"))] {
            set_trust(&proof, trust);
            let letter = forward(&user, GMAIL);
            let id = arrive(&proof, &user, &letter);
            crm.await_mail("message.captured", &letter.id);
            assert_eq!(text(&proof.verification(&id), "level"), "e2", "{trust}");
            let message = crm.get(&format!("/messages/{id}"));
            assert_eq!((text(&message["author"], "role"), &message["from"][0]["email"]), ("other", &json!(CORA)), "{trust}");
            assert_eq!(crm.list("/contacts"), Vec::<Value>::new(), "{trust}");
        }
        set_trust(&proof, "strict");
        let carl = proof.world.user("carl", "Carl Orr");
        let id = arrive(&proof, &carl, &forward(&carl, GMAIL));
        assert_eq!(text(&proof.await_kept(&id, "held"), "level"), "e2");
        assert_eq!(crm.list("/contacts"), Vec::<Value>::new());
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }
}
