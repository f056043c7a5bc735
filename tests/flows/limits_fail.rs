//! Mail over a limit that policy lets fail: refused when it is handed in, with the time at which that lifts.
//!
//! Not here: mail that waits for a limit (`limits`).

use mailweave::{
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
};

both! {
    fn mail_over_a_limit_is_refused_at_once_and_what_was_taken_before_bounces(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.crm.put("/policy", &json!({ "overrides": { "over_send": "fail" } }));
        world.crm.put("/limits", &json!({ "sent_per_day": 2 }));
        let first = world.post_message(&ann, &[&bob.address], "One");
        world.crm.await_delivery(&first, "sent");
        let trigger = Trigger::always(Service::Submission, "RCPT");
        world.provider().arm(trigger, Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let second = world.post_message(&ann, &[&bob.address], "Two");
        world.crm.await_delivery(&second, "deferred");
        // What waits to be sent has taken the last place.
        let third = json!({
            "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Three", "text": "Hello.",
        });
        let refused = world.crm.try_post("/messages", &third);
        assert_eq!((refused.status, text(&refused.body, "code")), (429, "limit_reached"), "{refused:?}");
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let mut client = world.workspace_client();
        let reply = client.send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap_err();
        assert_eq!(reply.code, 452, "{reply:?}");
        let said = &reply.text;
        assert!(said.contains("4.7.28") && said.contains("T00:00:00Z"), "{said}");
        // The limit is lowered below what was sent: what was taken before cannot go any more.
        world.crm.put("/limits", &json!({ "sent_per_day": 1 }));
        let shown = world.crm.await_delivery(&second, "bounced");
        assert!(text(&shown["delivery"]["recipients"][0], "text").contains("limit of 1"), "{shown}");
        world.crm.put("/limits", &json!({}));
        world.provider().disarm();
        let reply = client.send(&ann.person.address, &[&bob.address], &letter.raw()).unwrap();
        assert_eq!(reply.code, 250);
    }

    fn mail_over_the_sync_limit_stays_out_for_good(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/policy", &json!({ "overrides": { "over_sync": "skip" } }));
        world.crm.put("/limits", &json!({ "synced_per_day": 1 }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let to = Address::parse(&ann.person.address).unwrap();
        let deliver = |letter: &Letter| {
            world.provider().deliver(&to, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        };
        let (first, second) = (
            Letter::new(&bob.address, &[&ann.person.address]),
            Letter::new(&bob.address, &[&ann.person.address]),
        );
        deliver(&first);
        world.crm.await_mail("message.received", &first.id);
        deliver(&second);
        let mut decisions = Vec::new();
        wait_for("the second to be left out", PATIENCE, || {
            decisions = world.crm.list("/decisions?verdict=skipped");
            !decisions.is_empty()
        });
        assert_eq!(text(&decisions[0], "rule"), "sync_limit");
        world.crm.put("/limits", &json!({}));
        // What belongs to it comes in, and does not bring it.
        let third = Letter::new(&bob.address, &[&ann.person.address]).answering(&second.id);
        deliver(&third);
        world.crm.await_mail("message.received", &third.id);
        world.gateway.settle();
        assert_eq!(world.crm.events_of("message.received").len(), 2);
    }
}
