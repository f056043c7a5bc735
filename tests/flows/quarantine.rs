//! Mail that is kept aside: shown to whom it concerns, let in or deleted by hand, and gone in time.
//!
//! Not here: who is believed (`trust`).

use mailweave::{config::NameServer, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    gateway::CAPTURE,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{
        PATIENCE,
        clients::SmtpClient,
        dns::{Dns, Zone},
        wait_for,
    },
    trust,
    world::{accepted_id, assert_free_of},
};

/// A word that is in nothing but the mail that must not show.
const SECRET: &str = "Rhabarberkompott";

/// What lies in quarantine and nothing was decided about, once it is so much.
fn quarantined(crm: &Crm, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait_for("mail in quarantine", PATIENCE, || {
        found = crm.list("/quarantine");
        found.len() == count
    });
    found
}

fn of_stranger(to: &str) -> Letter {
    Letter::new("Mallory <mallory@prospects.example>", &[to])
        .subject(&format!("{SECRET} in the subject"))
        .text(&format!("{SECRET} in the text\n"))
}

both! {
    fn what_is_kept_aside_is_shown_as_text_and_let_in_as_if_it_had_just_come(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let crm = &world.crm;
        // Ann has no such address yet: her copy of an answer is a stranger's.
        let first = Letter::new("ann@acme.example", &["bob@prospects.example"]);
        world.arrive("ann@acme.example", &[&ann.capture_address], &first).unwrap();
        let begun = crm.await_mail("message.captured", &first.id);
        let private = Letter::new("Ann <ann@home.example>", &["bob@prospects.example"])
            .answering(&first.id)
            .text("<b>From home</b>\n");
        let taken = world.arrive("ann@home.example", &[&ann.capture_address], &private).unwrap();
        let [held] = &quarantined(crm, 1)[..] else { panic!("one") };
        assert_eq!(text(held, "id"), accepted_id(&taken));
        assert_eq!((text(held, "state"), text(held, "level")), ("held", "e0"));
        assert_eq!(text(held, "rule"), "capture_sender_unknown");
        assert!(text(held, "reason").contains("no user of this workspace"));
        assert_eq!(held["from"], json!([{ "email": "ann@home.example", "name": "Ann" }]));
        assert_eq!(held["user_id"], Value::Null);
        let path = format!("/quarantine/{}", text(held, "id"));
        assert_eq!(text(&crm.get(&path), "text"), "<b>From home</b>\n");
        // A user's key shows him what concerns him, and this concerns nobody.
        let anns = crm.with_key(&crm.key(&["read", "write"], Some(&ann.id)).1);
        assert_eq!(anns.list("/quarantine"), Vec::<Value>::new());
        for answer in [
            anns.ask(&path),
            anns.ask(&format!("{path}/raw")),
            anns.try_post(&format!("{path}/release"), &json!({})),
        ] {
            assert_eq!(answer.status, 404, "{answer:?}");
        }

        let released = crm.post(&format!("{path}/release"), &json!({}));
        assert_eq!((text(&released, "state"), text(&released, "settled_by")), ("released", "admin"));
        assert_eq!(released["from"], json!([]));
        let captured = crm.await_mail("message.captured", &private.id);
        assert_eq!(captured["data"]["message_id"], held["id"]);
        assert_eq!(captured["data"]["conversation_id"], begun["data"]["conversation_id"]);
        let message = crm.get(&format!("/messages/{}", text(held, "id")));
        assert_eq!(message["received_at"], held["received_at"]);
        assert_eq!((text(&message["verification"], "level"), text(&message["verification"], "mark")), ("e0", "released"));
        // What no user wrote no user says is not his.
        let disowned = anns.try_post(&format!("/messages/{}/disown", text(held, "id")), &json!({}));
        assert_eq!(disowned.status, 404, "{disowned:?}");
        // Once more is as once, and the other decision comes too late.
        assert_eq!(crm.post(&format!("{path}/release"), &json!({})), released);
        let late = crm.try_post(&format!("{path}/reject"), &json!({}));
        assert_eq!((late.status, text(&late.body, "code")), (409, "already_decided"));
        world.gateway.settle();
        assert_eq!(crm.events_of("message.captured").len(), 2);
        assert_eq!(crm.list("/quarantine"), Vec::<Value>::new());
        assert_eq!(crm.list("/quarantine?state=released").len(), 1);
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn whoever_decides_sees_what_he_lets_in(engine) {
        let world = trust::world(engine);
        let ann = world.user("ann", "Ann Lee");
        let letter = |body: &str| {
            Letter::new(&ann.person.address, &["bob@prospects.example"])
                .subject("Fwd: Offer")
                .field("MIME-Version", "1.0")
                .field("Content-Type", "multipart/alternative; boundary=b")
                .text(&format!("--b\n\nAll is well.\n--b\nContent-Type: text/html\n\n{body}\n--b--\n"))
        };
        let forwarded = "---------- Forwarded message ---------\nFrom: Cora <cora@out.example>\nDate: x\nSubject: Offer\nTo: y@x.example\n\nHi\n";
        let passed_on = |from: &str| Letter::new(from, &["bob@prospects.example"]).subject("Fwd: Offer").text(forwarded);
        let link = letter("<p>All is <a href=\"https://u:p@Evil.example/acme.example\">well</a>.</p>");
        for (letter, html, hosts, author) in [
            (letter("<p>All is <b>well</b>.</p>"), Value::Null, json!([]), Value::Null),
            (letter("<p>Pay the other account.</p>"), json!("Pay the other account."), json!([]), Value::Null),
            (link, Value::Null, json!(["evil.example"]), Value::Null),
            (passed_on(&ann.person.address), Value::Null, json!([]), json!("cora@out.example")),
            (passed_on("mallory@prospects.example"), Value::Null, json!([]), Value::Null),
        ] {
            let taken = world.arrive("x@prospects.example", &[&ann.capture_address], &letter).unwrap();
            let path = format!("/quarantine/{}", accepted_id(&taken));
            wait_for("it to be held", PATIENCE, || world.crm.ask(&path).status == 200);
            let shown = world.crm.get(&path);
            let seen = (&shown["html_text"], &shown["link_hosts"], &shown["forwarded_from"]);
            assert_eq!(seen, (&html, &hosts, &author), "{shown}");
        }
    }

    fn what_a_rule_keeps_out_after_all_does_not_show_as_let_in(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let letter = Letter::new("mallory@prospects.example", &["bob@prospects.example"])
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=b")
            .text("--b\n\nHello.\n--b\nContent-Disposition: attachment; filename=a.txt\n\nToo long.\n--b--\n");
        let taken = world.arrive("mallory@prospects.example", &[&ann.capture_address], &letter).unwrap();
        let path = format!("/quarantine/{}", accepted_id(&taken));
        quarantined(&world.crm, 1);
        world.crm.put("/policy", &json!({ "overrides": { "attachment_bytes_max": 3, "oversize": "skip_message" } }));
        world.crm.post(&format!("{path}/release"), &json!({}));
        wait_for("it to be kept out", PATIENCE, || world.crm.get(&path)["state"] == "rejected");
        let told = text(&world.crm.get(&path), "settled_by").to_owned();
        assert!(told.starts_with("rule:"), "{told}");
        world.gateway.settle();
        assert_eq!(world.crm.messages(), Vec::<Value>::new());
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn what_is_rejected_leaves_nothing_but_who_rejected_it(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let letter = of_stranger("bob@prospects.example");
        world.arrive("mallory@prospects.example", &[&ann.capture_address], &letter).unwrap();
        let [held] = &quarantined(&world.crm, 1)[..] else { panic!("one") };
        let path = format!("/quarantine/{}", text(held, "id"));
        let trusting = world.crm.try_post(&format!("{path}/release"), &json!({ "trust": true }));
        assert_eq!((trusting.status, text(&trusting.body, "code")), (409, "nothing_to_trust"));
        let rejected = world.crm.post(&format!("{path}/reject"), &json!({}));
        assert_eq!((text(&rejected, "state"), text(&rejected, "settled_by")), ("rejected", "admin"));
        assert_eq!(world.crm.post(&format!("{path}/reject"), &json!({})), rejected);
        let late = world.crm.try_post(&format!("{path}/release"), &json!({}));
        assert_eq!((late.status, text(&late.body, "code")), (409, "already_decided"));
        assert_free_of(&world.gateway.dump().join("\n"), &[SECRET, "mallory"]);
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn what_nobody_decides_about_is_gone_in_two_weeks(engine) {
        let mut world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        for _ in 0..2 {
            let letter = of_stranger("bob@prospects.example");
            world.arrive("mallory@prospects.example", &[&ann.capture_address], &letter).unwrap();
        }
        let held = quarantined(&world.crm, 2);
        world.gateway.settle();
        let time = |field: &str| text(&held[0], field).parse::<jiff::Timestamp>().unwrap();
        assert_eq!(time("expires_at").duration_since(time("received_at")).as_hours(), 14 * 24);
        world.gateway.execute("update quarantine set expires_at = 1");
        // Tidying begins with the start.
        world.gateway.restart(|_| {});
        let crm = world.gateway.crm("acme");
        assert_eq!(quarantined(&crm, 0), Vec::<Value>::new());
        assert_eq!(crm.list("/quarantine?state=expired").len(), 2);
        assert_free_of(&world.gateway.dump().join("\n"), &[SECRET]);
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn of_two_admins_at_once_one_decides(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        for _ in 0..5 {
            let letter = Letter::new("mallory@prospects.example", &["bob@prospects.example"]);
            world.arrive("mallory@prospects.example", &[&ann.capture_address], &letter).unwrap();
        }
        world.gateway.settle();
        for held in quarantined(&world.crm, 5) {
            let path = format!("/quarantine/{}", text(&held, "id"));
            let answers = std::thread::scope(|scope| {
                let decide = |verb: &'static str| {
                    let (crm, path) = (world.crm.clone(), format!("{path}/{verb}"));
                    scope.spawn(move || crm.try_post(&path, &json!({})).status)
                };
                let deciding = [decide("release"), decide("reject"), decide("release")];
                deciding.map(|answer| answer.join().unwrap())
            });
            let released = text(&world.crm.get(&path), "state") == "released";
            let expect = if released { [200, 409, 200] } else { [409, 200, 409] };
            assert_eq!(answers, expect);
        }
        world.gateway.settle();
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn where_no_more_can_be_kept_aside_strangers_are_asked_to_come_again(engine) {
        // Nobody's word is taken, and nothing proves anybody.
        let names = Dns::start(Zone::default().address("localhost", "127.0.0.1"));
        let world = Sandboxed::with(engine, Behaviour::default(), |config| {
            config.smtp.mx.trusted_peers = Some(Vec::new());
            config.dns.servers = vec![NameServer(names.address())];
        });
        let [ann, ben] = [world.user("ann", "Ann Lee"), world.user("ben", "Ben Low")];
        for _ in 0..200 {
            let letter = Letter::new(&ann.person.address, &["bob@prospects.example"]);
            world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
        }
        let held = quarantined(&world.crm, 200);
        let asks = |from: &str, to: &str| {
            let mut client = SmtpClient::connect(world.gateway.mx());
            client.expect(250, &format!("MAIL FROM:<{from}>"));
            client.command(&format!("RCPT TO:<{to}>"))
        };
        let refused = asks("mallory@evil.example", &ann.capture_address);
        assert!(refused.code == 452 && refused.text.starts_with("4.2.2"), "{refused:?}");
        // What was expected, and what is not for her, comes in.
        for (from, to) in [
            (&ann.person.address, &ann.capture_address),
            (&ben.person.address, &ann.capture_address),
            (&"mallory@evil.example".to_owned(), &ben.capture_address),
            (&"mallory@evil.example".to_owned(), &ann.capture_address.replace('@', "+why@")),
            (&String::new(), &ann.capture_address),
        ] {
            assert_eq!(asks(from, to).code, 250, "{from} to {to}");
        }
        assert_eq!(asks("mallory@evil.example", "nobody@bcc.example.test").code, 550);
        // Nothing went, and with one decided about there is room.
        assert_eq!(world.crm.list("/quarantine?state=expired"), Vec::<Value>::new());
        world.crm.post(&format!("/quarantine/{}/reject", text(&held[0], "id")), &json!({}));
        assert_eq!(asks("mallory@evil.example", &ann.capture_address).code, 250);
    }

    fn a_new_capture_address_takes_over_from_the_old(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let path = format!("/users/{}", ann.id);
        let rotate = |days: u8| world.crm.post(&format!("{path}/capture-address"), &json!({ "overlap_days": days }));
        let takes = |address: &str| {
            let mut client = SmtpClient::connect(world.gateway.mx());
            client.expect(250, "MAIL FROM:<ann@acme.example>");
            client.command(&format!("RCPT TO:<{address}>")).code == 250
        };
        assert!(takes(&ann.capture_address));
        let second = text(&rotate(30), "capture_address").to_owned();
        assert_ne!(second, ann.capture_address);
        assert!(takes(&ann.capture_address) && takes(&second));
        assert_eq!(text(&world.crm.get(&path), "capture_address"), second);
        let third = text(&rotate(0), "capture_address").to_owned();
        assert_eq!([&ann.capture_address, &second, &third].map(|address| takes(address)), [false, false, true]);
        let told = world.crm.events_of("capture_address.rotated");
        assert_eq!(told.len(), 2);
        assert_eq!(told[0]["data"]["user_id"], ann.id.as_str());
        assert_free_of(&json!(told).to_string(), &[CAPTURE]);
        let far = world.crm.try_post(&format!("{path}/capture-address"), &json!({ "overlap_days": 31 }));
        assert_eq!(far.status, 422);
    }

    fn an_address_that_strangers_know_is_given_anew(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let [ann, ben] = [world.user("ann", "Ann Lee"), world.user("ben", "Ben Low")];
        let current = |user: &crate::world::User| text(&world.crm.get(&format!("/users/{}", user.id)), "capture_address").to_owned();
        // In public: a stranger writes to it of his own accord.
        let found = of_stranger(&ann.capture_address);
        world.arrive("mallory@prospects.example", &[&ann.capture_address], &found).unwrap();
        world.crm.await_event("capture_address.rotated", |data| data["user_id"] == ann.id.as_str());
        assert_ne!(current(&ann), ann.capture_address);
        // Several know it, in blind copies.
        for stranger in ["one", "two", "three"] {
            assert_eq!(current(&ben), ben.capture_address);
            let letter = Letter::new(&format!("{stranger}@prospects.example"), &["bob@prospects.example"]);
            world.arrive("x@prospects.example", &[&ben.capture_address], &letter).unwrap();
            world.gateway.settle();
        }
        let told = world.crm.await_event("capture_address.rotated", |data| data["user_id"] == ben.id.as_str());
        assert_eq!(told["data"]["reason"], "seen_in_public");
        assert_ne!(current(&ben), ben.capture_address);
        // The old one goes on for a while, and is not given anew again.
        let copy = Letter::new("ben@acme.example", &["bob@prospects.example"]);
        world.arrive("ben@acme.example", &[&ben.capture_address], &copy).unwrap();
        world.crm.await_mail("message.captured", &copy.id);
        world.gateway.settle();
        assert_eq!(world.crm.events_of("capture_address.rotated").len(), 2);
    }
}
