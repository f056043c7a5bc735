//! Mail that a user forwards to his capture address: filed as its original author's, and only where the user is proven.
//!
//! Not here: every client's way to forward (`mail::forward`), and the rule itself (`core::forwarding`).

use mailweave::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    sandboxed::Sandboxed,
    support::store::Engine,
    trust::world,
    why::command_line,
    world::User,
};

pub const CORA: &str = "cora@elsewhere.example";
pub const GMAIL: &str = "FYI\n\n---------- Forwarded message ---------\nFrom: Cora Reed <cora@elsewhere.example>\n\
                     Date: Mon, 2 Nov 2026 at 09:00\nSubject: Offer\nTo: Ann Lee <ann@acme.example>\n\n\nShall we?\n";
const APPLE: &str = "FYI\n\n> Begin forwarded message:\n> \n> From: Cora Reed <cora@elsewhere.example>\n> Subject: Offer\n\
                     > Date: 2 November 2026 at 09:00:00 GMT\n> To: Ann Lee <ann@acme.example>\n> \n> Shall we?\n";
const OUTLOOK: &str = "FYI\n\n________________________________\nFrom: Cora Reed <cora@elsewhere.example>\n\
                       Sent: Monday, November 2, 2026 9:00 AM\nTo: Ann Lee <ann@acme.example>\nSubject: Offer\n\nShall we?\n";

const ATTACHED: &str = "--b\nContent-Type: text/plain\n\nFYI\n--b\nContent-Type: message/rfc822\n\nFrom: Cora Reed \
     <cora@elsewhere.example>\nTo: ann@acme.example\nSubject: Offer\nMessage-ID: <offer@elsewhere.example>\n\n\
     Shall we?\n--b--\n";

/// Ann, whose mail this machine may hand in, so that she is proven.
pub fn office(engine: Engine) -> (Sandboxed, User) {
    let world = Sandboxed::start(engine, Behaviour::default());
    let ann = world.user("ann", "Ann Lee");
    (world, ann)
}

/// A forward to the user's own capture address, with this text.
pub fn forward(user: &User, text: &str) -> Letter {
    Letter::new(&user.person.address, &[&user.capture_address]).subject("Fwd: Offer").text(text)
}

/// The same with the mail attached.
pub fn attached(user: &User) -> Letter {
    let letter = forward(user, ATTACHED).field("MIME-Version", "1.0");
    letter.field("Content-Type", "multipart/mixed; boundary=b")
}

/// It is captured; returns how it is shown.
fn capture(world: &Sandboxed, user: &User, letter: &Letter) -> Value {
    world.arrive(&user.person.address, &[&user.capture_address], letter).unwrap();
    let event = world.crm.await_mail("message.captured", &letter.id);
    world.crm.get(&format!("/messages/{}", text(&event["data"], "message_id")))
}

fn contacts(crm: &Crm) -> Vec<String> {
    crm.list("/contacts").iter().map(|contact| text(contact, "email").to_owned()).collect()
}

/// It is the user's own mail, as any other copy.
#[track_caller]
fn assert_own(world: &Sandboxed, user: &User, message: &Value) {
    assert_eq!(
        (text(&message["author"], "role"), text(&message["author"], "id")),
        ("user", user.id.as_str())
    );
    assert_eq!(message.get("forwarded"), None);
    assert_eq!(contacts(&world.crm), [""; 0]);
}

both! {
    fn what_a_user_forwards_is_filed_as_its_authors(engine) {
        let (world, ann) = office(engine);
        let forwards = [
            (forward(&ann, GMAIL), "high"),
            (forward(&ann, APPLE), "high"),
            (forward(&ann, OUTLOOK), "medium"),
            (attached(&ann), "high"),
        ];
        for (letter, confidence) in forwards {
            let message = capture(&world, &ann, &letter);
            let author = &message["author"];
            assert_eq!((text(author, "role"), text(author, "email")), ("contact", CORA), "{message}");
            assert_eq!((text(&message, "kind"), text(&message, "direction")), ("forward", "inbound"));
            assert_eq!((text(&message, "reply_text"), &message["from"][0]["email"]), ("Shall we?", &json!(CORA)));
            let forwarded = &message["forwarded"];
            assert_eq!((text(forwarded, "confidence"), text(forwarded, "comment")), (confidence, "FYI"));
            assert_eq!(text(&forwarded["by"], "id"), ann.id);
            let conversation = world.crm.get(&format!("/conversations/{}", text(&message, "conversation_id")));
            assert_eq!(conversation["contact_id"], author["id"]);
            let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
            assert_eq!(text(&decisions[0], "rule"), "forwarded");
            assert!(text(&decisions[0], "reason").contains(if confidence == "high" { "sure" } else { "likely" }));
        }
        let made = world.crm.list("/contacts");
        assert_eq!((made.len(), text(&made[0], "email")), (1, CORA));
        assert_eq!((&made[0]["assigned_user_id"], &made[0]["name"]), (&json!(ann.id), &json!("Cora Reed")));
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn what_is_passed_on_twice_lies_in_one_conversation_with_the_mail_itself(engine) {
        let (world, ann) = office(engine);
        let ben = world.user("ben", "Ben Low");
        let answering = |user: &User| forward(user, GMAIL).answering("offer@elsewhere.example");
        let messages = [capture(&world, &ann, &answering(&ann)), capture(&world, &ben, &answering(&ben))];
        assert_ne!(messages[0]["id"], messages[1]["id"]);
        let answer = Letter::new(&ann.person.address, &[CORA]).answering("offer@elsewhere.example");
        let answer = capture(&world, &ann, &answer);
        for message in &messages {
            assert_eq!(message["conversation_id"], answer["conversation_id"]);
        }
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn why_finds_it_by_who_passed_it_on_and_by_the_original(engine) {
        let (world, ann) = office(engine);
        let inline = forward(&ann, &GMAIL.replace(CORA, "dan@elsewhere.example")).answering("desks@elsewhere.example");
        for (letter, original) in [(attached(&ann), "offer@elsewhere.example"), (inline, "desks@elsewhere.example")] {
            let message = capture(&world, &ann, &letter);
            let own = format!("<{original}>");
            for about in [&letter.id, original, &own, &ann.person.address, text(&message["author"], "email")] {
                let answer = command_line(&world, about, true);
                let answer: Value = serde_json::from_str(&answer.text).unwrap();
                let items = answer["items"].as_array().unwrap();
                let found = items.iter().find(|item| item["message_id"] == message["id"]);
                assert_eq!(found.map(|item| text(item, "rule")), Some("forwarded"), "{about}: {answer}");
            }
        }
    }

    fn a_forward_that_nothing_proves_names_nobody(engine) {
        let world = world(engine);
        let ann = world.user("ann", "Ann Lee");
        world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "trust": "open" } }));
        for letter in [forward(&ann, GMAIL), attached(&ann)] {
            let message = capture(&world, &ann, &letter);
            assert_eq!(text(&message["verification"], "level"), "e1");
            assert_own(&world, &ann, &message);
        }
    }

    fn what_a_text_merely_names_is_no_author(engine) {
        let (world, ann) = office(engine);
        for text in [
            "Please write to cora@elsewhere.example, or From: cora@elsewhere.example.\n",
            "From: Cora <cora@elsewhere.example>\n\nShall we?\n",
            "On Mon, 2 Nov 2026, Cora Reed <cora@elsewhere.example> wrote:\n> Shall we?\n",
        ] {
            assert_own(&world, &ann, &capture(&world, &ann, &forward(&ann, text)));
        }
    }

    fn of_forwards_within_forwards_the_outermost_counts(engine) {
        let (world, ann) = office(engine);
        let inner = GMAIL.replace("cora@elsewhere.example", "dan@elsewhere.example");
        let message = capture(&world, &ann, &forward(&ann, &GMAIL.replace("Shall we?\n", &inner)));
        assert_eq!(text(&message["author"], "email"), CORA);
        assert_eq!(contacts(&world.crm), [CORA]);
    }

    fn mail_of_a_colleague_is_no_contacts(engine) {
        let (world, ann) = office(engine);
        let ben = world.user("ben", "Ben Low");
        let letter = forward(&ann, &GMAIL.replace(CORA, &ben.person.address));
        assert_own(&world, &ann, &capture(&world, &ann, &letter));
    }

    fn where_mail_is_private_nobody_writes_into_a_colleagues_contact(engine) {
        let (world, ann) = office(engine);
        let ben = world.user("ben", "Ben Low");
        let cora = world.crm.post("/contacts", &json!({ "email": CORA, "assigned_user_id": ben.id }));
        let see = |visibility: &str| {
            let policy = json!({ "preset": "mailweave", "overrides": { "visibility": visibility } });
            world.crm.put("/policy", &policy);
        };
        let author = || text(&capture(&world, &ann, &forward(&ann, GMAIL))["author"], "role").to_owned();
        for (visibility, role) in [("assigned", "user"), ("owner", "user"), ("everyone", "contact")] {
            see(visibility);
            assert_eq!(author(), role, "{visibility}");
        }
        let timeline = world.crm.list(&format!("/contacts/{}/timeline", text(&cora, "id")));
        assert_eq!(timeline.len(), 1);
    }
}
