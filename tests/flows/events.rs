//! What events carry, and who is told of what was left out.
//!
//! Not here: how they reach the CRM's endpoints (`webhooks`), and when each flow tells of what it did.

use std::collections::BTreeSet;

use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
};

/// The members of a status that are always there: `progress` comes and goes.
fn members(status: &Value) -> BTreeSet<&str> {
    let members = status.as_object().unwrap_or_else(|| panic!("no status: {status}")).keys();
    members.map(String::as_str).filter(|name| *name != "progress").collect()
}

/// Somebody writes to a user about what concerns no contact.
fn write_privately(world: &Sandboxed, to: &Person) -> Letter {
    let letter = Letter::new("aunt@family.example", &[&to.address]);
    let raw = letter.raw().replace('\n', "\r\n");
    world.provider().deliver(&Address::parse(&to.address).unwrap(), raw.as_bytes()).unwrap();
    letter
}

fn decisions_on(world: &Sandboxed, letter: &Letter) -> Vec<Value> {
    world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id))
}

both! {
    fn events_of_an_account_carry_its_whole_status(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let shown = world.crm.get(&format!("/accounts/{account}"));
        let connected = world.crm.await_event("account.connected", |data| data["account_id"] == account.as_str());
        let status = &connected["data"]["status"];
        assert_eq!(members(status), members(&shown["status"]));
        assert!(["label", "color", "since"].iter().all(|name| status[*name].is_string()), "{status}");
        world.crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "keep" }));
        let gone = world.crm.await_event("account.disconnected", |_| true);
        let shown = world.crm.get(&format!("/accounts/{account}"));
        assert_eq!(gone["data"], json!({ "account_id": account, "status": shown["status"] }));
    }

    fn mail_that_is_left_out_is_told_to_those_alone_who_ask_for_it(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let letter = write_privately(&world, &ann.person);
        wait_for("the decision", PATIENCE, || !decisions_on(&world, &letter).is_empty());
        assert_eq!(world.crm.events_of("message.skipped"), Vec::<Value>::new());

        world.crm.post("/webhooks", &json!({ "url": "http://127.0.0.1:9/hook", "events": ["message.skipped"] }));
        let letter = write_privately(&world, &ann.person);
        let skipped = world.crm.await_event("message.skipped", |_| true);
        let [decision] = &decisions_on(&world, &letter)[..] else { panic!("one decision") };
        let expect = json!({ "decision_id": decision["id"], "account_id": account, "rule": decision["rule"] });
        assert_eq!(skipped["data"], expect);

        // Nobody sent this to have it filed.
        let report = Letter::new("mailer-daemon@prospects.example", &[&ann.capture_address]);
        world.arrive("", &[&ann.capture_address], &report).unwrap();
        let skipped = world.crm.await_event("message.skipped", |data| data["rule"] == "null_reverse_path");
        let [decision] = &decisions_on(&world, &report)[..] else { panic!("one decision") };
        assert_eq!(text(&skipped["data"], "decision_id"), text(decision, "id"));
        assert_eq!(skipped["data"].get("account_id"), None);
    }
}
