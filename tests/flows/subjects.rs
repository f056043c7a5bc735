//! Answers that name nothing, and join by their subjects where policy says so.
//!
//! Not here: the rule itself (`core::subject`).

use std::collections::{BTreeMap, BTreeSet};

use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::json;

use crate::{both, crm::text, letter::Letter, sandboxed::Sandboxed, support::store::Engine, world::User};

const BOB: &str = "bob@prospects.example";
const DORA: &str = "dora@prospects.example";

/// Ann with a connected account; Bob and Dora are contacts.
struct Office {
    world: Sandboxed,
    ann: User,
}

impl Office {
    fn start(engine: Engine, window: &str) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        for contact in [BOB, DORA] {
            world.crm.post("/contacts", &json!({ "email": contact }));
        }
        let office = Self { world, ann };
        office.choose(window);
        let account = office.world.connect(&office.ann);
        office.world.crm.await_account(&account);
        office
    }

    fn choose(&self, window: &str) {
        let policy = json!({ "preset": "mailweave", "overrides": { "subject_threading": window } });
        self.world.crm.put("/policy", &policy);
    }

    /// Ann writes to somebody with her own mail program.
    fn ann_writes(&self, to: &str, subject: &str) -> Letter {
        Letter::new(&self.ann.person.address, &[to]).subject(subject)
    }

    /// Somebody writes to her.
    fn writes(&self, from: &str, subject: &str) -> Letter {
        Letter::new(from, &[&self.ann.person.address]).subject(subject)
    }

    /// Has mail appear in her account, each before the next; by whom it is says where.
    fn appear(&self, letters: &[&Letter]) {
        let ann = Address::parse(&self.ann.person.address).unwrap();
        for letter in letters {
            let raw = letter.raw().replace('\n', "\r\n");
            let is_anns = raw.starts_with(&format!("From: {}", self.ann.person.address));
            let (mailbox, event) =
                if is_anns { ("Sent", "message.sent") } else { ("INBOX", "message.received") };
            self.world.provider().append(&ann, mailbox, raw.as_bytes(), &[]).unwrap();
            self.world.crm.await_mail(event, &letter.id);
        }
    }

    /// Which of these lie in one conversation, by their numbers.
    fn groups(&self, letters: &[&Letter]) -> BTreeSet<BTreeSet<usize>> {
        self.world.gateway.settle();
        let mut groups: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for message in self.world.crm.messages() {
            let number = letters.iter().position(|letter| letter.id == text(&message, "rfc822_message_id"));
            groups.entry(text(&message, "conversation_id").to_owned()).or_default().extend(number);
        }
        groups.into_values().filter(|group| !group.is_empty()).collect()
    }
}

fn expected(groups: &[&[usize]]) -> BTreeSet<BTreeSet<usize>> {
    groups.iter().map(|group| group.iter().copied().collect()).collect()
}

both! {
    fn an_answer_that_names_nothing_joins_by_its_subject_in_whatever_order_mail_comes(engine) {
        let office = Office::start(engine, "7d");
        for (number, order) in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]].into_iter().enumerate() {
            let subject = |prefix: &str| format!("{prefix}Offer {number}");
            let letters = [
                // Two offers, joined by the answer to both.
                office.ann_writes(BOB, &subject("")).days_ago(9),
                office.ann_writes(BOB, &subject("")).days_ago(4),
                office.writes(BOB, &subject("Re: ")).days_ago(3),
                // Too late, from somebody else, and about something else.
                office.writes(BOB, &subject("Re: ")).days_ago(20),
                office.writes(DORA, &subject("Re: ")).days_ago(3),
                office.writes(BOB, &subject("Re: Another ")).days_ago(3),
            ];
            let letters: Vec<&Letter> = letters.iter().collect();
            let in_order: Vec<&Letter> = order.iter().map(|place| letters[*place]).collect();
            office.appear(&in_order);
            assert_eq!(office.groups(&letters), expected(&[&[0, 1, 2], &[3], &[4], &[5]]), "{order:?}");
        }
        assert_eq!(office.world.gateway.audit(), Vec::<String>::new());
        assert!(office.world.gateway.tables_holding("offer").iter().all(|table| table != "subject_keys"));
    }

    fn subjects_join_nothing_unless_policy_says_so_and_from_the_next_message_on(engine) {
        let office = Office::start(engine, "off");
        let (offer, answer) = (office.ann_writes(BOB, "Desks"), office.writes(BOB, "Re: Desks"));
        office.appear(&[&offer, &answer]);
        assert_eq!(office.world.gateway.count("select count(*) from subject_keys"), 0);
        office.choose("2d");
        let (later, again) = (office.ann_writes(BOB, "Desks"), office.writes(BOB, "AW: Desks"));
        office.appear(&[&later, &again]);
        assert_eq!(office.groups(&[&offer, &answer, &later, &again]), expected(&[&[0], &[1], &[2, 3]]));
    }

    fn a_subject_lets_no_mail_in(engine) {
        let office = Office::start(engine, "7d");
        office.world.crm.put("/policy", &json!({ "preset": "kaname-outlook", "overrides": { "subject_threading": "7d" } }));
        office.world.prospect("bob");
        let sent = office.world.post_message(&office.ann, &[BOB], "Desks");
        office.world.crm.await_delivery(&sent, "sent");
        let answer = office.writes(BOB, "Re: Desks");
        let ann = Address::parse(&office.ann.person.address).unwrap();
        office.world.provider().append(&ann, "INBOX", answer.raw().replace('\n', "\r\n").as_bytes(), &[]).unwrap();
        crate::support::wait_for("it to be left out", crate::support::PATIENCE, || {
            let decisions = office.world.crm.list(&format!("/decisions?rfc822_message_id={}", answer.id));
            decisions.iter().any(|decision| text(decision, "rule") == "inbound_starts_nothing")
        });
    }

    fn what_a_hand_has_parted_no_subject_joins_again(engine) {
        let office = Office::start(engine, "7d");
        let (offer, answer) = (office.ann_writes(BOB, "Desks"), office.writes(BOB, "Re: Desks"));
        office.appear(&[&offer, &answer]);
        let shown = office.world.crm.await_mail("message.received", &answer.id)["data"].clone();
        let split = format!("/conversations/{}/split", text(&shown, "conversation_id"));
        office.world.crm.post(&split, &json!({ "message_ids": [shown["message_id"]] }));
        let last = office.writes(BOB, "Re: Desks");
        office.appear(&[&last]);
        assert_eq!(office.groups(&[&offer, &answer, &last]).len(), 2);
        assert_eq!(office.world.gateway.audit(), Vec::<String>::new());
    }
}
