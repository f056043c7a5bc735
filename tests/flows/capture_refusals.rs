//! What comes to the MX listener and makes nothing: unknown recipients, strangers, reports, loops.
//!
//! Not here: the listener's manners in every detail (`smtp_dialogues`).

use mailweave::mail::loop_mark;
use mailweave::sandbox::Behaviour;
use serde_json::json;

use crate::{
    both,
    crm::text,
    gateway::{CAPTURE, REPLY},
    letter::Letter,
    sandboxed::Sandboxed,
    support::clients::SmtpClient,
    world::{World, accepted_id, assert_free_of},
};

/// A word that is in nothing but the mail that must not show.
const SECRET: &str = "Rhabarberkompott";

/// A bounce as any server composes it (RFC 3464).
fn bounce(to: &str) -> Letter {
    let text = format!(
        "--b\nContent-Type: text/plain\n\nYour mail could not be delivered.\n--b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mail.prospects.example\n\n\
         Final-Recipient: rfc822; bob@prospects.example\nAction: failed\nStatus: 5.1.1\n--b\n\
         Content-Type: text/rfc822-headers\n\nFrom: ann@acme.example\nSubject: {SECRET}\n--b--\n"
    );
    Letter::new("Mail Delivery System <mailer-daemon@prospects.example>", &[to])
        .field("MIME-Version", "1.0")
        .field("Content-Type", "multipart/report; report-type=delivery-status; boundary=b")
        .field("Auto-Submitted", "auto-replied")
        .text(&text)
}

both! {
    fn a_copy_from_somebody_unknown_is_held_with_its_reason_and_shows_nowhere(engine) {
        let world = World::start(engine);
        let (ann, mallory) = (world.user(1, "Ann Lee"), world.customer(1));
        let letter = Letter::new(&mallory.address, &[&world.customer(2).address])
            .subject(&format!("{SECRET} in the subject"))
            .text(&format!("{SECRET} in the text\n"));
        world.client_sends(&mallory, &[&ann.capture_address], &letter);

        let held = world.crm.await_event("message.held", |_| true);
        let id = text(&held["data"], "message_id");
        assert!(text(&held["data"], "reason").contains("no user of this workspace"));
        world.gateway.settle();
        let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
        let [decision] = &decisions[..] else { panic!("one decision: {decisions:?}") };
        assert_eq!((text(decision, "verdict"), text(decision, "rule")), ("held", "capture_sender_unknown"));
        assert_eq!(text(&held["data"], "decision_id"), text(decision, "id"));
        assert_eq!(world.crm.list(&format!("/decisions?address={}", mallory.address)).len(), 1);
        for path in ["/contacts", "/conversations"] {
            assert_eq!(world.crm.list(path), Vec::<serde_json::Value>::new(), "{path}");
        }
        for path in [format!("/messages/{id}"), format!("/messages/{id}/raw")] {
            assert_eq!(world.crm.ask(&path).status, 404, "{path}");
        }
        let events: Vec<_> = world.crm.events().iter().map(|event| text(event, "type").to_owned()).collect();
        assert_eq!(events, ["message.held"]);
        assert_free_of(&world.crm.everything(), &[SECRET, &mallory.address]);
    }

    fn only_live_addresses_of_ours_are_taken(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let mut client = SmtpClient::connect(world.gateway.mx());
        client.expect(250, "MAIL FROM:<ann@acme.example>");
        let unknown = [
            format!("ann-0000000000000000@{CAPTURE}"),
            format!("r-0000000000000000@{REPLY}"),
            format!("postmaster2@{CAPTURE}"),
            "ann@acme.example".to_owned(),
            "bob@elsewhere.example".to_owned(),
            format!("{}.evil.example", ann.capture_address),
        ];
        let answers: Vec<_> =
            unknown.iter().map(|to| client.command(&format!("RCPT TO:<{to}>"))).collect();
        for (to, answer) in unknown.iter().zip(&answers) {
            assert_eq!(answer.code, 550, "{to}: {answer:?}");
            assert!(answer.text.starts_with("5.1.1"), "{to}: {answer:?}");
            // One answer for all: nothing is learned by guessing.
            assert_eq!(answer, &answers[0], "{to}");
        }
        client.expect(250, &format!("RCPT TO:<{}>", ann.capture_address.to_uppercase()));
    }

    fn a_report_or_a_null_reverse_path_at_a_capture_address_makes_nothing(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let bounce = bounce(&ann.capture_address);
        world.arrive("", &[&ann.capture_address], &bounce).unwrap();
        // Nobody's answering machine has to say that it is one.
        let absence = Letter::new("ann@acme.example", &["bob@prospects.example"]).subject(SECRET);
        world.arrive("", &[&ann.capture_address], &absence).unwrap();
        for letter in [&bounce, &absence] {
            crate::support::wait_for("a decision", crate::support::PATIENCE, || {
                world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id)).len() == 1
            });
        }
        world.gateway.settle();
        for path in ["/contacts", "/conversations", "/events"] {
            assert_eq!(world.crm.get(path)["items"], json!([]), "{path}");
        }
        assert_free_of(&world.crm.everything(), &[SECRET]);
        for decision in world.crm.list("/decisions") {
            assert_eq!((text(&decision, "verdict"), text(&decision, "rule")), ("skipped", "null_reverse_path"));
        }
    }

    fn automatic_mail_makes_no_contact(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let away = Letter::new("ann@acme.example", &["bob@prospects.example"])
            .field("Auto-Submitted", "auto-replied");
        let taken = world.arrive("ann@acme.example", &[&ann.capture_address], &away).unwrap();
        world.crm.await_mail("message.captured", &away.id);
        world.gateway.settle();
        assert_eq!(world.crm.get("/contacts")["items"], json!([]));
        assert_eq!(world.crm.get(&format!("/messages/{}", accepted_id(&taken)))["kind"], "auto_reply");
    }

    fn our_own_mark_and_too_many_hops_are_a_loop(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let letter = Letter::new("ann@acme.example", &["bob@prospects.example"]);
        let mark = |key: &[u8; 32]| loop_mark::mark(key, "msg_1");
        let marked = letter.clone().field(loop_mark::FIELD, &mark(&world.gateway.loop_key()));
        let travelled = (0..51).fold(letter.clone(), |letter, hop| {
            letter.field("Received", &format!("from a{hop} by b{hop}; Mon, 1 Jan 2024 00:00:00 +0000"))
        });
        for looping in [marked, travelled] {
            let refused = world.arrive("ann@acme.example", &[&ann.capture_address], &looping).unwrap_err();
            assert!(refused.code == 554 && refused.text.starts_with("5.4.6"), "{refused:?}");
        }
        // Somebody else's gateway is no loop of ours.
        let foreign = letter.field(loop_mark::FIELD, &mark(&[1; 32]));
        world.arrive("ann@acme.example", &[&ann.capture_address], &foreign).unwrap();
        world.crm.await_mail("message.captured", &foreign.id);
    }
}
