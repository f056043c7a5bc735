//! Who may not send, or not so: wrong logins, foreign authors, orders that make no sense, no way out.
//!
//! Not here: the listener's manners in every detail (`smtp_dialogues`).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mailweave::sandbox::Behaviour;
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{
        Person,
        clients::{Reply, SmtpClient},
        store::Engine,
    },
    world::assert_reply,
};

const BOB: &str = "bob@prospects.example";

fn started(engine: Engine) -> Sandboxed {
    Sandboxed::start(engine, Behaviour::default())
}

fn log_in(world: &Sandboxed, name: &str, secret: &str) -> (SmtpClient, Reply) {
    let mut client = world.submission_client();
    let reply = client.auth_plain(&Person { address: name.to_owned(), password: secret.to_owned() });
    (client, reply)
}

/// The client's first words in base64, and what it hears before it has to answer a failure.
fn log_in_by_token(world: &Sandboxed, mechanism: &str, message: &str) -> (SmtpClient, Reply) {
    let mut client = world.submission_client();
    let reply = client.command(&format!("AUTH {mechanism} {}", BASE64_STANDARD.encode(message)));
    (client, reply)
}

both! {
    fn a_login_is_also_a_token_that_is_a_key_for_smtp(engine) {
        let world = started(engine);
        let (ann, ben) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Low"));
        let (_, anns) = world.crm.key(&["smtp"], Some(&ann.id));
        let (_, reading) = world.crm.key(&["read"], None);
        let address = |user: &crate::world::User| user.person.address.clone();
        let xoauth2 = |name: &str, token: &str| format!("user={name}\x01auth=Bearer {token}\x01\x01");
        let bearer = |name: &str, token: &str| format!("n,{name},\x01auth=Bearer {token}\x01\x01");
        let ann_named = format!("a={}", address(&ann));
        for (mechanism, message) in [
            ("XOAUTH2", xoauth2(&address(&ann), &anns)),
            ("OAUTHBEARER", bearer(&ann_named, &anns)),
            // The key says whose it is.
            ("OAUTHBEARER", bearer("", &anns)),
        ] {
            let (mut client, reply) = log_in_by_token(&world, mechanism, &message);
            assert_reply(&reply, 235, "2.7.0");
            assert_eq!(client.command(&format!("MAIL FROM:<{}>", address(&ann))).code, 250);
        }
        for (mechanism, message, told) in [
            ("XOAUTH2", xoauth2(&address(&ben), &anns), r#"{"status":"401"}"#),
            ("XOAUTH2", xoauth2(&address(&ann), &reading), r#"{"status":"401"}"#),
            ("OAUTHBEARER", bearer(&ann_named, "wrong"), r#"{"status":"invalid_token"}"#),
            ("OAUTHBEARER", bearer("", &reading), r#"{"status":"invalid_token"}"#),
        ] {
            let (mut client, reply) = log_in_by_token(&world, mechanism, &message);
            assert_eq!((reply.code, reply.text), (334, BASE64_STANDARD.encode(told)), "{message:?}");
            // RFC 7628 section 3.2.3: the client's answer is one octet, and then it is refused.
            assert_reply(&client.command("AQ=="), 535, "5.7.8");
            assert_reply(&client.command("MAIL FROM:<ann@acme.example>"), 530, "5.7.0");
        }
    }

    fn a_login_is_a_users_address_or_the_workspaces_slug_with_a_key_for_smtp(engine) {
        let world = started(engine);
        let (ann, ben) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Low"));
        let other = world.gateway.crm("other").settle_in();
        let (_, good) = world.crm.key(&["smtp"], None);
        let (_, anns) = world.crm.key(&["smtp"], Some(&ann.id));
        let (_, reading) = world.crm.key(&["read", "write", "send"], None);
        let (_, foreign) = other.key(&["smtp"], None);
        let (id, revoked) = world.crm.key(&["smtp"], None);
        world.crm.delete(&format!("/keys/{id}"));

        let refused = [
            (ann.person.address.as_str(), "wrong"),
            (&ann.person.address, &ann.person.password),
            (&ann.person.address, &reading),
            (&ann.person.address, &revoked),
            (&ann.person.address, &foreign),
            (&ben.person.address, &anns),
            (BOB, &good),
            ("other", &good),
            // A key bound to a user is none of the workspace's.
            ("acme", &anns),
        ];
        for (name, secret) in refused {
            let (mut client, reply) = log_in(&world, name, secret);
            assert_reply(&reply, 535, "5.7.8");
            assert_reply(&client.command("MAIL FROM:<ann@acme.example>"), 530, "5.7.0");
        }
        for (name, secret) in [(ann.person.address.as_str(), &good), (&ann.person.address, &anns), ("acme", &good)] {
            assert_eq!(log_in(&world, name, secret).1.code, 235, "{name}");
        }
    }

    fn nobody_logs_in_without_tls_or_sends_without_a_login(engine) {
        let world = started(engine);
        world.user("ann", "Ann Lee");
        let mut clear = SmtpClient::connect(world.gateway.submission());
        let anybody = Person { address: "acme".to_owned(), password: "key".to_owned() };
        assert_reply(&clear.auth_plain(&anybody), 538, "5.7.11");
        assert_eq!(clear.command("MAIL FROM:<ann@acme.example>").code, 530);
        let mut implicit = SmtpClient::connect_tls(world.gateway.submissions(), &world.authority);
        assert_reply(&implicit.command("MAIL FROM:<ann@acme.example>"), 530, "5.7.0");
    }

    fn the_author_is_one_and_the_users_own(engine) {
        let world = started(engine);
        let (ann, ben) = (world.user("ann", "Ann Lee"), world.user("ben", "Ben Low"));
        for user in [&ann, &ben] {
            world.connect(user);
        }
        world.prospect("bob");
        let (_, key) = world.crm.key(&["smtp"], None);
        let as_ann = |letter: &Letter| {
            let (mut client, _) = log_in(&world, &ann.person.address, &key);
            client.send(&ann.person.address, &[BOB], &letter.raw())
        };
        let as_acme = |letter: &Letter| {
            let (mut client, _) = log_in(&world, "acme", &key);
            client.send(&ann.person.address, &[BOB], &letter.raw())
        };
        let from = |from: &str| Letter::new(from, &[BOB]);
        let two = from("ann@acme.example").field("From", "ben@acme.example");
        let nobody = from("").raw().replacen("From: \n", "", 1);
        for letter in [from("ben@acme.example"), from(BOB), from("ann@acme.example, ben@acme.example"), two.clone()] {
            assert_reply(&as_ann(&letter).unwrap_err(), 550, "5.7.1");
        }
        for letter in [from(BOB), from("ann@acme.example, ben@acme.example"), two] {
            assert_reply(&as_acme(&letter).unwrap_err(), 550, "5.7.1");
        }
        let (mut client, _) = log_in(&world, "acme", &key);
        assert_reply(&client.send(&ann.person.address, &[BOB], &nobody).unwrap_err(), 550, "5.7.1");
        world.gateway.settle();
        assert_eq!(world.crm.get("/events?types=message.sent,conversation.created")["items"], json!([]));

        for author in ["ann@acme.example", "ben@acme.example"] {
            let letter = from(author);
            as_acme(&letter).unwrap();
            world.crm.await_mail("message.sent", &letter.id);
        }
    }

    fn an_order_that_makes_no_sense_is_refused_with_its_field(engine) {
        let world = started(engine);
        let ann = world.user("ann", "Ann Lee");
        world.connect(&ann);
        let (_, key) = world.crm.key(&["smtp"], None);
        let long = "k".repeat(256);
        let orders = [
            ("X-Mailweave-Class", "urgent"),
            ("X-Mailweave-Idempotency-Key", long.as_str()),
            ("X-Mailweave-Conversation", "cnv_01890a5d-ac96-774b-bcce-b302099a8057"),
            ("X-Mailweave-Conversation", "the last one"),
        ];
        for (field, value) in orders {
            let letter = Letter::new(&ann.person.address, &[BOB]).field(field, value);
            let (mut client, _) = log_in(&world, &ann.person.address, &key);
            let refused = client.send(&ann.person.address, &[BOB], &letter.raw()).unwrap_err();
            assert_reply(&refused, 550, "5.7.1");
            assert!(refused.text.contains(field), "{refused:?}");
        }
        let body = json!({
            "from_user_id": ann.id, "to": [{ "email": ann.capture_address }], "subject": "x", "text": "x",
        });
        let refused = world.crm.try_post("/messages", &body);
        assert_eq!((refused.status, refused.body["param"].as_str()), (422, Some("to[0].email")));
    }

    fn without_any_way_out_a_message_is_refused_with_the_reason(engine) {
        let world = started(engine);
        let ann = world.user("ann", "Ann Lee");
        let (_, key) = world.crm.key(&["smtp"], None);
        let (mut client, _) = log_in(&world, &ann.person.address, &key);
        let letter = Letter::new(&ann.person.address, &[BOB]);
        let refused = client.send(&ann.person.address, &[BOB], &letter.raw()).unwrap_err();
        assert_reply(&refused, 550, "5.7.1");
        assert!(refused.text.contains("no connected account"), "{refused:?}");
        let body = json!({ "from_user_id": ann.id, "to": [{ "email": BOB }], "subject": "x", "text": "x" });
        let refused = world.crm.try_post("/messages", &body);
        assert_eq!((refused.status, text(&refused.body, "code")), (422, "no_way_out"));
        assert_eq!(world.crm.get("/conversations")["items"], json!([]));

        // With an account it goes; the same client may go on.
        world.prospect("bob");
        world.connect(&ann);
        client.send(&ann.person.address, &[BOB], &letter.raw()).unwrap();
        world.crm.await_mail("message.sent", &letter.id);
    }
}
