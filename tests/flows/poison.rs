//! Data that cannot be worked on: after a few tries it is held and told, and the queue moves on.

use mailweave::{
    config::Role,
    sandbox::{Act, Behaviour},
};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
    world::accepted_id,
};

/// What is left of a body when a disk forgets the rest.
const SPOIL: &str = "update blobs set data = substr(data, 1, 4)";

both! {
    fn a_submission_whose_bytes_are_lost_is_held(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        world.arm("RCPT", Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "deferred");
        world.gateway.settle();
        world.gateway.execute(SPOIL);
        let held = || {
            let events = world.crm.events_of("message.held");
            events.iter().filter(|event| event["data"]["message_id"] == message.as_str()).count()
        };
        wait_for("it to be held", PATIENCE, || {
            world.gateway.hasten();
            held() > 0
        });
        // A way out sends on what waited for one, and this did not.
        world.set_smarthost(&ann.person);
        world.gateway.settle();
        assert_eq!(held(), 1);
    }

    fn a_message_taken_in_whose_bytes_are_lost_is_held(engine) {
        let mut world = Sandboxed::with(engine, Behaviour::gmail(), |config| {
            config.node.roles.retain(|role| *role != Role::Jobs);
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let taken = world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
        let message = accepted_id(&taken);
        let not_yet = world.crm.ask(&format!("/messages/{message}"));
        assert_eq!((not_yet.status, text(&not_yet.body, "code")), (404, "not_found"));
        assert!(text(&not_yet.body, "detail").contains("being filed"));
        world.gateway.execute(SPOIL);
        world.gateway.restart(|config| config.node.roles = Role::ALL.to_vec());
        world.crm = world.gateway.crm("acme");
        let mut held = Vec::new();
        wait_for("it to be held", PATIENCE, || {
            world.gateway.hasten();
            held = world.crm.events_of("message.held");
            !held.is_empty()
        });
        assert_eq!(text(&held[0]["data"], "message_id"), message);
        let never = world.crm.ask(&format!("/messages/{message}"));
        assert!(text(&never.body, "advice").contains("decisions"), "{never:?}");
        world.gateway.settle();
    }
}
