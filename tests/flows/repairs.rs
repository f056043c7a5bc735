//! Conversations put right by hand, and mail that comes in afterwards. Everything comes by the MX listener, as captured copies.
//!
//! Not here: how threading groups by itself (`threads`).

use std::collections::{BTreeMap, BTreeSet};

use mailweave::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{clients::SmtpClient, store::Engine},
    world::User,
};

struct Company {
    world: Sandboxed,
    ann: User,
    /// The gateway's id of each mail, by its short name.
    messages: BTreeMap<&'static str, String>,
}

impl Company {
    fn start(engine: Engine) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        Self { world, ann, messages: BTreeMap::new() }
    }

    /// Ann writes to Bob and captures it. Returns the conversation it was filed in.
    fn capture(&mut self, name: &'static str, names: &[&str]) -> String {
        let id = |name: &str| format!("{name}@clients.example.test");
        let letter = Letter::new("ann@acme.example", &["bob@prospects.example"]).id(&id(name));
        let references: Vec<String> = names.iter().map(|name| format!("<{}>", id(name))).collect();
        let letter = match references.last() {
            Some(last) => letter.field("In-Reply-To", last).field("References", &references.join(" ")),
            None => letter,
        };
        let mut client = SmtpClient::connect(self.world.gateway.mx());
        client.send("ann@acme.example", &[&self.ann.capture_address], &letter.raw()).unwrap();
        let captured = self.world.crm.await_mail("message.captured", &letter.id);
        self.messages.insert(name, text(&captured["data"], "message_id").to_owned());
        text(&captured["data"], "conversation_id").to_owned()
    }

    /// Which mails lie in a conversation, by their short names.
    fn in_it(&self, conversation: &str) -> BTreeSet<&'static str> {
        let shown = self.world.crm.get(&format!("/conversations/{conversation}"));
        let messages = self.world.crm.list(&format!("/conversations/{conversation}/messages"));
        assert_eq!(shown["message_count"], messages.len(), "{shown}");
        let name_of = |message: &Value| {
            let found = self.messages.iter().find(|(_, id)| id.as_str() == text(message, "id"));
            *found.expect("a mail of the test").0
        };
        messages.iter().map(name_of).collect()
    }

    fn merged_into(&self, conversation: &str) -> Value {
        self.world.crm.get(&format!("/conversations/{conversation}"))["merged_into"].clone()
    }

    /// Undoes what this answer tells of.
    fn undo(&self, answer: &Value) -> Value {
        self.world.crm.post(path_of(answer), &json!({}))
    }
}

/// The path that undoes what this answer tells of, within the workspace.
pub fn path_of(answer: &Value) -> &str {
    let undo = text(answer, "undo");
    let at = undo.find("/repairs/").expect("a path of a repair");
    undo.get(at..).expect("it was found there")
}

fn set(names: &[&'static str]) -> BTreeSet<&'static str> {
    names.iter().copied().collect()
}

both! {
    fn what_a_hand_splits_stays_apart_until_it_is_undone(engine) {
        let mut company = Company::start(engine);
        let whole = company.capture("a1", &[]);
        for (name, names) in [("a2", &["a1"][..]), ("b1", &["a1", "a2", "ghost"]), ("b2", &["a1", "a2", "b1"])] {
            assert_eq!(company.capture(name, names), whole);
        }
        let messages: Vec<_> = ["b1", "b2"].iter().map(|name| company.messages[name].clone()).collect();
        let path = format!("/conversations/{whole}/split");
        let split = company.world.crm.post(&path, &json!({ "message_ids": messages }));
        let apart = text(&split, "id").to_owned();
        assert_ne!(apart, whole);
        assert_eq!((company.in_it(&whole), company.in_it(&apart)), (set(&["a1", "a2"]), set(&["b1", "b2"])));
        let told = company.world.crm.await_event("conversation.split", |data| data["conversation_id"] == apart.as_str());
        assert_eq!(told["data"]["from"], whole.as_str());

        // Answers go to the side of what they answer, though they name mail of both.
        assert_eq!(company.capture("b3", &["a1", "a2", "b1", "b2"]), apart);
        assert_eq!(company.capture("a3", &["b1", "a1", "a2"]), whole);
        assert_eq!(company.capture("b4", &["b3"]), apart);
        assert_eq!(company.capture("b5", &["ghost"]), apart, "nobody who stayed names it");
        assert_eq!(company.world.crm.events_of("conversation.merged").len(), 0);
        // Split once more, and nothing joins the three.
        let path = format!("/conversations/{apart}/split");
        let third = company.world.crm.post(&path, &json!({ "message_ids": [company.messages["b4"]] }));
        assert_eq!(company.capture("b6", &["a1", "b3", "b4"]), text(&third, "id"));
        assert_eq!(company.world.crm.events_of("conversation.merged").len(), 0);

        let back = company.undo(&third);
        assert_eq!(text(&back, "id"), apart);
        let back = company.undo(&split);
        assert_eq!(text(&back, "id"), whole);
        assert_eq!(company.in_it(&whole), company.messages.keys().copied().collect());
        assert_eq!(company.merged_into(&apart), whole.as_str());
        assert_eq!(company.capture("c1", &["b3", "a3"]), whole);
    }

    fn what_a_hand_merges_is_one_until_it_is_undone(engine) {
        let mut company = Company::start(engine);
        let (elder, younger) = (company.capture("a1", &[]), company.capture("b1", &[]));
        assert_ne!(elder, younger);
        let path = format!("/conversations/{younger}/merge");
        let merged = company.world.crm.post(&path, &json!({ "conversation_id": elder }));
        assert_eq!(text(&merged, "id"), elder, "the elder id survives");
        assert_eq!(company.merged_into(&younger), elder.as_str());
        let again = company.world.crm.try_post(&path, &json!({ "conversation_id": elder }));
        assert_eq!((again.status, &again.body["code"]), (409, &json!("already_one")));
        let told = company.world.crm.await_event("conversation.merged", |_| true);
        assert_eq!((text(&told["data"], "conversation_id"), text(&told["data"], "merged_into")), (younger.as_str(), elder.as_str()));
        for (name, names) in [("b2", &["b1"][..]), ("a2", &["a1"]), ("b3", &["b2"])] {
            assert_eq!(company.capture(name, names), elder);
        }

        let back = company.undo(&merged);
        assert_eq!(text(&back, "id"), younger);
        assert_eq!((company.in_it(&elder), company.in_it(&younger)), (set(&["a1", "a2"]), set(&["b1", "b2", "b3"])));
        assert_eq!(company.merged_into(&younger), Value::Null);
        // Later arrivals find the side that the answered mail went to.
        assert_eq!(company.capture("b4", &["b1", "b2", "b3"]), younger);
        assert_eq!(company.capture("a3", &["a1", "a2"]), elder);
        assert_eq!(company.world.crm.events_of("conversation.merged").len(), 1);
        let twice = company.world.crm.try_post(path_of(&merged), &json!({}));
        assert_eq!((twice.status, &twice.body["code"]), (409, &json!("already_undone")));
    }
}
