//! A provider that gives sent mail a Message-ID of its own: what answers it names that one, and belongs to the conversation
//! whether the answer or the Sent copy is seen first.
//!
//! Not here: that such a copy is no second message (`delivery`).

use std::time::Duration;

use mailweave::{
    mail::Address,
    sandbox::{Behaviour, SaveSent},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::User,
};

/// Ann at a provider that renames what she sends and files it at once, but tells nobody: Sent is looked at when that is asked
/// for. INBOX is watched.
struct Office {
    world: Sandboxed,
    ann: User,
    bob: Person,
    account: String,
}

impl Office {
    fn start(engine: Engine, policy: &Value) -> Self {
        let behaviour = Behaviour { save_sent: SaveSent::AtOnce, ..Behaviour::outlook() };
        let world = Sandboxed::with(engine, behaviour, |config| config.sync.poll = Duration::from_secs(3600));
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.put("/policy", policy);
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann, bob, account }
    }

    /// The CRM sends to Bob. Returns the message's id, and its Message-ID as Bob got it.
    fn sends(&self, attachments: &Value) -> (String, String) {
        let message = json!({
            "from_user_id": self.ann.id, "to": [{ "email": self.bob.address }], "subject": "Offer",
            "text": "Ours.", "attachments": attachments,
        });
        let message = text(&self.world.crm.post("/messages", &message), "id").to_owned();
        let shown = self.world.crm.await_delivery(&message, "sent");
        let inbox = self.world.provider().inbox(&Address::parse(&self.bob.address).unwrap());
        let id = inbox.last().unwrap().header("Message-ID").unwrap();
        let id = id.trim().trim_matches(['<', '>']).to_owned();
        assert_ne!(id, text(&shown, "rfc822_message_id"));
        (message, id)
    }

    fn await_copy_found(&self) {
        wait_for("the provider's copy to be found", PATIENCE, || {
            self.world.gateway.count("select count(*) from submissions where sent_copy = 'filed'") == 1
        });
    }

    fn look(&self) {
        self.world.crm.post(&format!("/accounts/{}/sync", self.account), &json!({}));
    }

    fn await_copy_seen(&self, message: &str) {
        wait_for("the copy in Sent to be seen", PATIENCE, || {
            let seen = self.world.crm.get(&format!("/messages/{message}"))["sightings"].clone();
            seen.as_array()
                .unwrap()
                .iter()
                .any(|one| one["mailbox"] == "Sent" || one["mailbox"] == "Sent Items")
        });
    }

    /// Bob answers the mail of this id.
    fn answers(&self, id: &str) -> Letter {
        let letter = Letter::new(&self.bob.address, &[&self.ann.person.address]).answering(id);
        let raw = letter.raw().replace('\n', "\r\n");
        self.world
            .provider()
            .deliver(&Address::parse(&self.ann.person.address).unwrap(), raw.as_bytes())
            .unwrap();
        letter
    }

    fn await_decision(&self, letter: &Letter, verdict: &str, rule: &str) {
        let path = format!("/decisions?rfc822_message_id={}", letter.id);
        wait_for(&format!("{path} to be {verdict} by {rule}"), PATIENCE, || {
            let decisions = self.world.crm.list(&path);
            decisions.iter().any(|one| one["verdict"] == verdict && one["rule"] == rule)
        });
    }
}

both! {
    fn kana_13_an_answer_belongs_though_the_copy_was_searched_for_before_it_was_seen(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-outlook" }));
        let (message, id) = office.sends(&json!([]));
        office.await_copy_found();
        office.look();
        office.await_copy_seen(&message);
        let answer = office.answers(&id);
        office.await_decision(&answer, "synced", "known_thread");
        assert_eq!(office.world.crm.list("/conversations").len(), 1);
        assert_eq!(office.world.crm.messages().len(), 2);
    }

    fn kana_13_an_answer_that_overtakes_the_copy_comes_in_once_that_is_seen(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-outlook" }));
        let (message, id) = office.sends(&json!([]));
        let answer = office.answers(&id);
        office.await_decision(&answer, "skipped", "inbound_starts_nothing");
        office.look();
        office.await_copy_seen(&message);
        office.await_decision(&answer, "synced", "known_thread");
        assert_eq!(office.world.crm.list("/conversations").len(), 1);
    }

    fn hilv_3_a_sent_copy_with_a_file_that_policy_keeps_out_is_the_message_it_is_a_copy_of(engine) {
        let policy = json!({ "preset": "highlevel-outlook", "overrides": { "attachment_bytes_max": 3 } });
        let office = Office::start(engine, &policy);
        let file = json!([{ "filename": "offer.pdf", "content_type": "application/pdf", "content": "aGVsbG8=" }]);
        let (message, id) = office.sends(&file);
        office.await_copy_found();
        office.look();
        office.await_copy_seen(&message);
        let answer = office.answers(&id);
        office.await_decision(&answer, "synced", "contact_wrote");
        assert_eq!(office.world.crm.list("/decisions?verdict=skipped").len(), 0);
        assert_eq!(office.world.crm.list("/conversations").len(), 1);
        // A file of that size in anything else keeps it out as before.
        let large = Letter::new(&office.bob.address, &[&office.ann.person.address])
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=b")
            .text("--b\n\nHello\n--b\nContent-Type: application/pdf; name=a.pdf\n\nhello\n--b--\n");
        let raw = large.raw().replace('\n', "\r\n");
        let ann = Address::parse(&office.ann.person.address).unwrap();
        office.world.provider().deliver(&ann, raw.as_bytes()).unwrap();
        office.await_decision(&large, "skipped", "attachment");
    }
}
