//! Mail that a user forwards to his capture address, by how much speaks for him: kept aside and let in later, or taken with a doubt.
//!
//! Not here: whose it is once he is believed (`forwarded`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    forwarded::{CORA, GMAIL, attached, forward},
    letter::Letter,
    proof::{Proof, proving, signed},
    sandboxed::ACME,
    support::store::Engine,
    world::User,
};

/// A gateway that believes as much as this word says, and Ann, whose provider signs. Cora is a contact or nobody knows her.
fn office(engine: Engine, trust: &str, knows_cora: bool) -> (Proof, User) {
    let proof = Proof::start(engine, proving(&[ACME]));
    let ann = proof.world.user("ann", "Ann Lee");
    set_trust(&proof, trust);
    if knows_cora {
        proof.world.crm.post("/contacts", &json!({ "email": CORA, "name": "Cora Reed" }));
    }
    (proof, ann)
}

fn set_trust(proof: &Proof, trust: &str) {
    proof.world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "trust": trust } }));
}

/// It comes from the user's provider, by a way by which nothing of his has come yet.
fn arrive(proof: &Proof, user: &User, letter: &Letter) -> String {
    proof.arrive(&user.person.address, &user.capture_address, &signed(ACME, letter))
}

/// All that the CRM sees of a mail and of what came of it, but for ids, times and who let it in.
fn seen(proof: &Proof, id: &str) -> Value {
    let crm = &proof.world.crm;
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
        "level": message["verification"]["level"],
        "conversation": [conversation["subject"], conversation["message_count"], conversation["contact_id"].is_string()],
        "contacts": contacts,
        "told": told,
    })
}

both! {
    fn what_is_let_in_later_is_filed_as_it_would_have_been_at_once(engine) {
        let letter_of = |ann: &User, is_whole: bool| {
            if is_whole { attached(ann) } else { forward(ann, GMAIL) }
        };
        for (is_whole, knows_cora) in [(false, true), (true, false)] {
            let (at_once, ann) = office(engine, "balanced", knows_cora);
            let letter = letter_of(&ann, is_whole);
            let id = arrive(&at_once, &ann, &letter);
            at_once.world.crm.await_mail("message.captured", &letter.id);
            let expect = seen(&at_once, &id);
            assert_eq!(expect["author"][1], CORA, "{expect}");

            let (later, ann) = office(engine, "strict", knows_cora);
            let letter = letter_of(&ann, is_whole);
            let id = arrive(&later, &ann, &letter);
            assert_eq!(text(&later.await_kept(&id, "held"), "level"), "e2");
            later.world.gateway.settle();
            assert_eq!(later.world.crm.list("/conversations"), Vec::<Value>::new());
            later.world.crm.post(&format!("/quarantine/{id}/release"), &json!({}));
            later.world.crm.await_mail("message.captured", &letter.id);
            assert_eq!(seen(&later, &id), expect);
            assert_eq!(later.world.gateway.audit(), [""; 0]);
        }
    }

    fn with_a_doubt_left_the_author_is_named_and_nobody_made(engine) {
        let (proof, ann) = office(engine, "balanced", false);
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
