//! Data that cannot be worked on: after a few tries it is held and told, and the queue moves on.

use mailweave::{
    config::Role,
    mail::Address,
    sandbox::{Act, Behaviour},
};
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, store::Engine, wait_for},
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

    fn an_erasure_that_fails_again_and_again_is_never_given_up(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        world.user("ann", "Ann Lee");
        world.gateway.settle();
        // Something of the workspace that nobody knows how to delete.
        world.gateway.execute(match engine {
            Engine::Sqlite => "create table relics (workspace references workspaces (id))",
            Engine::Postgres => "create table relics (workspace uuid references workspaces (id))",
        });
        world.gateway.execute("insert into relics select id from workspaces");
        world.crm.delete("");
        wait_for("more failures than a job is allowed", PATIENCE, || {
            world.gateway.hasten();
            world.gateway.count("select count(*) from jobs where kind = 'erase' and failures > 5") == 1
        });
        world.gateway.execute("drop table relics");
        wait_for("the erasure to come to its end", PATIENCE, || {
            world.gateway.hasten();
            world.gateway.count("select count(*) from workspaces") == 0
        });
    }

    fn a_workspace_that_cannot_be_read_keeps_no_other_from_being_looked_after(engine) {
        let mut world = Sandboxed::start(engine, Behaviour::gmail());
        let bob = world.prospect("bob");
        let greylisted = |world: &Sandboxed, local: &str| {
            let user = world.user(local, local);
            world.crm.await_account(&world.connect(&user));
            world.arm("RCPT", Act::Answer("451 4.7.1 Greylisted".to_owned()));
            let message = world.post_message(&user, &[&bob.address], "Hello");
            world.crm.await_delivery(&message, "deferred");
            message
        };
        let message = greylisted(&world, "ann");
        // Lists of workspaces begin with the latest.
        world.crm = world.gateway.crm("globex").settle_in();
        greylisted(&world, "eve");
        world.gateway.settle();
        // Both had no way out for a while.
        world.gateway.execute("delete from jobs");
        world.gateway.execute("delete from lanes");
        world.gateway.execute("update submissions set state = 'held'");
        world.gateway.execute("update submission_recipients set state = 'held', held_for = 'way_out'");
        world.gateway.execute("update submissions set dsn = '\"x\"' where workspace in (select id from workspaces where slug = 'globex')");
        world.gateway.restart(|_| {});
        world.crm = world.gateway.crm("acme");
        world.crm.await_delivery(&message, "sent");
    }

    fn an_account_whose_login_cannot_be_read_asks_for_it(engine) {
        let mut world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.gateway.execute("update accounts set credentials = substr(credentials, 1, 4)");
        world.gateway.restart(|_| {});
        world.crm = world.gateway.crm("acme");
        world.crm.await_event("account.reauth_required", |data| data["account_id"] == account.as_str());
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "held");
        let auth = json!({ "type": "password", "username": ann.person.address, "password": ann.person.password });
        world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": auth }));
        world.crm.await_delivery(&message, "sent");
    }

    fn an_account_whose_mail_cannot_be_compared_says_so_and_rests(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
        world.crm.await_mail("message.captured", &letter.id);
        world.gateway.settle();
        world.gateway.execute("update messages set parties = '\"x\"'");
        let address = Address::parse(&ann.person.address).unwrap();
        let raw = letter.raw().replace('\n', "\r\n");
        world.provider().append(&address, "INBOX", raw.as_bytes(), &[]).unwrap();
        let told = world.crm.await_event("account.error", |data| data["account_id"] == account.as_str());
        assert!(told["data"].to_string().contains("cannot be read"), "{told}");
        let shown = world.crm.get(&format!("/accounts/{account}"));
        assert!(shown["status"]["next_attempt_at"].is_string(), "{shown}");
    }
}
