//! Two companies on one gateway never learn of each other, whatever they have in common.
//!
//! Not here: rows and keys (`store::conformance`).

use serde_json::json;

use crate::{
    both,
    crm::{Crm, text},
    gateway::REPLY,
    letter::Letter,
    support::clients::SmtpClient,
    world::{World, assert_free_of},
};

/// The ids in what the API tells of a workspace.
fn ids(crm: &Crm) -> Vec<String> {
    let said = crm.everything();
    let is_id = |word: &&str| {
        ["msg_", "cnv_", "con_", "evt_", "acc_", "dec_", "usr_"].iter().any(|prefix| word.starts_with(prefix))
    };
    said.split('"').filter(is_id).map(str::to_owned).collect()
}

both! {
    fn workspaces_with_the_same_user_contact_and_mail_share_nothing(engine) {
        let world = World::start(engine);
        let beta = world.gateway.crm("beta").settle_in();
        let ann = world.user(1, "Ann of Acme");
        let other = world.user_in(&beta, 1, "Ann of Beta");
        assert_ne!(ann.capture_address, other.capture_address);
        let bob = world.customer(1);
        let letter = Letter::new(&ann.person.address, &[&bob.address]);

        // One transaction for both, then an answer's copy for one alone.
        let to = [ann.capture_address.as_str(), &other.capture_address];
        SmtpClient::connect(world.gateway.mx()).send(&ann.person.address, &to, &letter.raw()).unwrap();
        let second = Letter::new(&ann.person.address, &[&bob.address]).answering(&letter.id).subject("Acme alone");
        SmtpClient::connect(world.gateway.mx())
            .send(&ann.person.address, &[&ann.capture_address], &second.raw())
            .unwrap();
        let here = world.crm.await_mail("message.captured", &letter.id);
        let there = beta.await_mail("message.captured", &letter.id);
        world.crm.await_mail("message.captured", &second.id);
        world.gateway.settle();

        assert_ne!(here["data"]["message_id"], there["data"]["message_id"]);
        assert_ne!(here["data"]["conversation_id"], there["data"]["conversation_id"]);
        assert_eq!((world.crm.messages().len(), beta.messages().len()), (2, 1));
        let (ours, theirs) = (ids(&world.crm), ids(&beta));
        assert!(ours.iter().all(|id| !theirs.contains(id)), "{ours:?} {theirs:?}");
        assert_free_of(&beta.everything(), &["Acme alone", "Ann of Acme", &ann.capture_address]);
        assert_free_of(&world.crm.everything(), &["Ann of Beta", &other.capture_address]);

        // A foreign id is a missing id.
        let foreign = [
            format!("/messages/{}", text(&here["data"], "message_id")),
            format!("/messages/{}/raw", text(&here["data"], "message_id")),
            format!("/conversations/{}", text(&here["data"], "conversation_id")),
            format!("/contacts/{}", here["data"]["contact_ids"][0].as_str().unwrap()),
            format!("/users/{}", ann.id),
        ];
        for path in foreign {
            let missing = path.replace(|c: char| c.is_ascii_digit(), "0");
            let (foreign, missing) = (beta.ask(&path), beta.ask(&missing));
            assert_eq!(foreign.status, 404, "{path}");
            assert_eq!((&foreign.body["code"], &foreign.body["detail"]), (&missing.body["code"], &missing.body["detail"]));
        }
        let body = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "x", "text": "x",
        });
        assert_eq!(beta.try_post("/messages", &body).status, 422);
    }

    fn one_mailbox_followed_for_two_workspaces_serves_each_its_own(engine) {
        let world = World::start(engine);
        let beta = world.gateway.crm("beta").settle_in();
        let bob = world.customer(1);
        let ann = world.user(1, "Ann of Acme");
        let other = world.user_in(&beta, 1, "Ann of Beta");
        for crm in [&world.crm, &beta] {
            crm.post("/contacts", &json!({ "email": bob.address }));
        }
        world.crm.await_account(&world.connect(&ann));
        beta.await_account(&world.connect_in(&beta, &other));
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        world.client_sends(&bob, &[&ann.person.address], &letter);
        let here = world.crm.await_mail("message.received", &letter.id);
        let there = beta.await_mail("message.received", &letter.id);
        assert_ne!(here["data"]["message_id"], there["data"]["message_id"]);
        let path = format!("/messages/{}", text(&here["data"], "message_id"));
        assert_eq!((world.crm.ask(&path).status, beta.ask(&path).status), (200, 404));
        // What one workspace erases stays with the other.
        beta.delete("");
        assert_eq!(beta.ask("/events").status, 404);
        let answer = Letter::new(&bob.address, &[&ann.person.address]).answering(&letter.id);
        world.client_sends(&bob, &[&ann.person.address], &answer);
        world.crm.await_mail("message.received", &answer.id);
        assert_eq!(world.crm.messages().len(), 2);
    }

    fn a_reply_address_of_one_workspace_says_nothing_to_the_other(engine) {
        let world = World::start(engine);
        let beta = world.gateway.crm("beta").settle_in();
        let ann = world.user(1, "Ann of Acme");
        world.user_in(&beta, 1, "Ann of Beta");
        world.set_smarthost();
        let bob = world.customer(1);
        let body = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Offer", "text": "Ours.",
        });
        let sent = world.crm.post("/messages", &body);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let mail = world.await_mail(&bob, "INBOX", text(&shown, "rfc822_message_id"));
        let from = mail.split("\r\nFrom:").nth(1).and_then(|rest| rest.split(['<', '>']).nth(1)).unwrap();
        assert!(from.ends_with(REPLY), "{mail}");
        let answer = Letter::new(&bob.address, &[from]).answering(text(&shown, "rfc822_message_id"));
        world.client_sends(&bob, &[from], &answer);
        world.crm.await_mail("message.received", &answer.id);
        world.gateway.settle();
        assert_eq!(beta.events(), Vec::<serde_json::Value>::new());
        assert_eq!(beta.messages(), Vec::<serde_json::Value>::new());
    }
}
