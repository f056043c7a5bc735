//! Conversations are a function of the set of messages: whatever order they come in, and whoever names whom.
//!
//! Not here: the rule itself (`core::threading`). Everything comes by the MX listener, as captured copies.

use std::collections::{BTreeMap, BTreeSet};

use mailweave::sandbox::Behaviour;
use serde_json::Value;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, clients::SmtpClient, store::Engine, wait_for},
    world::{User, accepted_id},
};

/// One mail of a set: whose it is, to whom, its own id and those it names. All by small names.
type Mail = (&'static str, &'static [&'static str], &'static str, &'static [&'static str]);

/// Two threads that grow together, children of mail never seen, a fork with other people, and strangers' attempts.
const SET: [Mail; 12] = [
    ("ann", &["bob"], "a1", &[]),
    ("ann", &["bob", "cora"], "a2", &["a1"]),
    ("ben", &["cora"], "a3", &["a2", "a1"]),
    ("ann", &["dan"], "g1", &["ghost"]),
    ("ben", &["dan"], "g2", &["ghost"]),
    ("ben", &["dan", "bob"], "j1", &["g2", "a1"]),
    ("ann", &["eve"], "s1", &["a1"]),
    ("ben", &["eve"], "s2", &["s1", "a2"]),
    ("ann", &["fay"], "n1", &["ghost"]),
    ("ann", &["bob"], "f1", &[]),
    ("ben", &["gil"], "h1", &["far"]),
    ("ann", &["gil", "hal"], "h2", &["far", "h1"]),
];

/// What must come out, whatever came first.
const GROUPS: [&[&str]; 5] =
    [&["a1", "a2", "a3", "g1", "g2", "j1"], &["s1", "s2"], &["n1"], &["f1"], &["h1", "h2"]];

/// One trial: the same set with names of its own, so that trials do not meet.
struct Trial {
    number: u64,
}

impl Trial {
    fn id(&self, name: &str) -> String {
        format!("{name}.{}@clients.example.test", self.number)
    }

    fn letter(&self, mail: &Mail) -> (String, Letter) {
        let (from, to, id, names) = mail;
        let to: Vec<String> = to.iter().map(|to| format!("{to}.{}@prospects.example", self.number)).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let from = format!("{from}@acme.example");
        let letter = Letter::new(&from, &to).id(&self.id(id));
        let references: Vec<String> = names.iter().rev().map(|name| format!("<{}>", self.id(name))).collect();
        let Some(last) = references.last() else { return (from, letter) };
        let letter = letter.field("In-Reply-To", last).field("References", &references.join(" "));
        (from, letter)
    }

    /// The set in an order of this trial's own.
    fn order(&self) -> Vec<&'static Mail> {
        let mut order: Vec<_> = SET.iter().collect();
        order.sort_by_key(|mail| *blake3::hash(self.id(mail.2).as_bytes()).as_bytes());
        order
    }

    /// Which messages lie in one conversation.
    fn groups(&self, messages: &[Value]) -> BTreeSet<BTreeSet<String>> {
        let ending = format!(".{}@clients.example.test", self.number);
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for message in messages {
            if let Some(name) = text(message, "rfc822_message_id").strip_suffix(&ending) {
                groups
                    .entry(text(message, "conversation_id").to_owned())
                    .or_default()
                    .insert(name.to_owned());
            }
        }
        groups.into_values().collect()
    }
}

struct Company {
    world: Sandboxed,
    ann: User,
}

impl Company {
    fn start(engine: Engine) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        world.user("ben", "Ben Low");
        Self { world, ann }
    }

    /// Returns the message's id.
    fn capture(&self, client: &mut SmtpClient, from: &str, letter: &Letter) -> String {
        accepted_id(&client.send(from, &[&self.ann.capture_address], &letter.raw()).unwrap())
    }

    fn await_filed(&self, message: &str) {
        let path = format!("/messages/{message}");
        wait_for(&path, PATIENCE, || self.world.crm.ask(&path).status == 200);
    }
}

both! {
    fn any_order_of_arrival_gives_the_same_conversations(engine) {
        let company = Company::start(engine);
        let mut client = SmtpClient::connect(company.world.gateway.mx());
        let expected: BTreeSet<BTreeSet<String>> =
            GROUPS.iter().map(|group| group.iter().map(|name| (*name).to_owned()).collect()).collect();
        let trials: Vec<Trial> = (0..16).map(|number| Trial { number }).collect();
        let mut sent = 0;
        for trial in &trials {
            for mail in trial.order() {
                let (from, letter) = trial.letter(mail);
                let message = company.capture(&mut client, &from, &letter);
                sent += 1;
                // Half of the trials are filed in this very order, the others as the workers come to it.
                if trial.number % 2 == 0 {
                    company.await_filed(&message);
                }
            }
        }
        company.world.gateway.settle();
        let messages = company.world.crm.messages();
        assert_eq!(messages.len(), sent);
        for trial in &trials {
            let order: Vec<_> = trial.order().iter().map(|mail| mail.2).collect();
            assert_eq!(trial.groups(&messages), expected, "in the order {order:?}");
        }
        // Counts and redirects are right after any number of merges.
        for conversation in company.world.crm.list("/conversations") {
            let messages = company.world.crm.list(&format!("/conversations/{}/messages", text(&conversation, "id")));
            assert_eq!(conversation["message_count"], messages.len(), "{conversation}");
        }
        for merged in company.world.crm.events_of("conversation.merged") {
            let gone = company.world.crm.get(&format!("/conversations/{}", text(&merged["data"], "conversation_id")));
            assert!(gone["merged_into"].is_string(), "{gone}");
        }
    }

    fn conversations_that_meet_become_one_and_both_ids_go_on_answering(engine) {
        let company = Company::start(engine);
        let (crm, trial) = (&company.world.crm, Trial { number: 0 });
        let mut client = SmtpClient::connect(company.world.gateway.mx());
        let mut conversations = Vec::new();
        for name in ["a1", "g2", "j1"] {
            let mail = SET.iter().find(|mail| mail.2 == name).unwrap();
            let (from, letter) = trial.letter(mail);
            company.capture(&mut client, &from, &letter);
            let captured = crm.await_mail("message.captured", &letter.id);
            conversations.push(text(&captured["data"], "conversation_id").to_owned());
        }
        let [elder, younger, joined] = &conversations[..] else { panic!("three") };
        assert_ne!(elder, younger);
        assert_eq!(joined, elder);
        let merged = crm.await_event("conversation.merged", |_| true);
        assert_eq!((text(&merged["data"], "conversation_id"), text(&merged["data"], "merged_into")), (younger.as_str(), elder.as_str()));

        assert_eq!(crm.list("/conversations").len(), 1);
        let gone = crm.get(&format!("/conversations/{younger}"));
        assert_eq!((text(&gone, "id"), text(&gone, "merged_into")), (younger.as_str(), elder.as_str()));
        assert_eq!(gone["message_count"], 3);
        let by_both = [elder, younger].map(|id| crm.list(&format!("/conversations/{id}/messages")));
        assert_eq!(by_both[0], by_both[1]);
        assert!(by_both[0].iter().all(|message| message["conversation_id"] == elder.as_str()));
        assert_eq!(crm.events_of("conversation.merged").len(), 1);
    }

    fn naming_an_id_is_no_permission(engine) {
        let company = Company::start(engine);
        let (crm, trial) = (&company.world.crm, Trial { number: 0 });
        let mut client = SmtpClient::connect(company.world.gateway.mx());
        let mut conversations = Vec::new();
        for name in ["a1", "s1"] {
            let mail = SET.iter().find(|mail| mail.2 == name).unwrap();
            let (from, letter) = trial.letter(mail);
            company.capture(&mut client, &from, &letter);
            let captured = crm.await_mail("message.captured", &letter.id);
            conversations.push(text(&captured["data"], "conversation_id").to_owned());
        }
        let [thread, apart] = &conversations[..] else { panic!("two") };
        assert_ne!(thread, apart);
        let shown = crm.get(&format!("/conversations/{apart}"));
        assert_eq!(shown["related_to"], thread.as_str());
        assert_eq!(shown["message_count"], 1);
        assert_eq!(crm.list(&format!("/conversations/{thread}/messages")).len(), 1);
        assert_eq!(crm.events_of("conversation.merged").len(), 0);
    }
}
