//! Threads and people as the systems have them that this gateway stands in for, each rule under its own number.
//!
//! Not here: threading itself (`threads`).

use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    privacy::holding,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{User, endpoint},
};

/// Ann with a connected account.
struct Office {
    world: Sandboxed,
    ann: User,
}

impl Office {
    fn start(engine: Engine) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann }
    }

    /// A contact with a mailbox, by its id.
    fn contact(&self, local: &str) -> (Person, String) {
        let person = self.world.prospect(local);
        let contact = self.world.crm.post("/contacts", &json!({ "email": person.address }));
        (person, text(&contact, "id").to_owned())
    }

    /// A mail comes to Ann's inbox.
    fn receives(&self, letter: &Letter) {
        self.put(letter, "INBOX");
    }

    /// Ann has sent a mail with her own client.
    fn sends(&self, letter: &Letter) {
        self.put(letter, "Sent");
    }

    fn put(&self, letter: &Letter, mailbox: &str) {
        let ann = Address::parse(&self.ann.person.address).unwrap();
        let raw = letter.raw().replace('\n', "\r\n");
        self.world.provider().append(&ann, mailbox, raw.as_bytes(), &[]).unwrap();
    }

    fn captures(&self, letter: &Letter) -> Value {
        let Self { world, ann } = self;
        world.arrive(&ann.person.address, &[&ann.capture_address], letter).unwrap();
        world.crm.await_mail("message.captured", &letter.id)
    }

    /// The Message-IDs on a contact's timeline, newest first.
    fn timeline(&self, contact: &str) -> Vec<String> {
        let messages = self.world.crm.list(&format!("/contacts/{contact}/timeline"));
        messages.iter().map(|message| text(message, "rfc822_message_id").to_owned()).collect()
    }

    fn contacts(&self) -> usize {
        self.world.crm.list("/contacts").len()
    }

    fn await_left_out(&self, letter: &Letter, rule: &str) {
        let mut rules = Vec::new();
        wait_for("it to be left out", PATIENCE, || {
            let decisions = self.world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
            rules = decisions.iter().map(|decision| text(decision, "rule").to_owned()).collect();
            !rules.is_empty()
        });
        assert_eq!(rules, [rule]);
    }
}

both! {
    fn faq_11_who_became_a_contact_by_a_copy_syncs_by_himself_from_then_on(engine) {
        let office = Office::start(engine);
        office.world.crm.put("/policy", &json!({ "preset": "kaname-gmail" }));
        let (ann, bob) = (office.ann.person.address.clone(), office.world.prospect("bob"));
        office.captures(&Letter::new(&ann, &[&bob.address]));
        let made = office.world.crm.list("/contacts").swap_remove(0);
        assert_eq!(made["assigned_user_id"], office.ann.id.as_str(), "KANA-6 asks for it");
        let new = Letter::new(&bob.address, &[&ann]);
        office.receives(&new);
        office.world.crm.await_mail("message.received", &new.id);
        let stranger = Letter::new("erna@elsewhere.example", &[&ann]);
        office.receives(&stranger);
        office.await_left_out(&stranger, "no_contact");
    }

    fn shsp_1_mail_that_only_names_the_user_as_its_author_makes_no_contacts(engine) {
        let office = Office::start(engine);
        office.world.crm.put("/policy", &json!({ "preset": "sharpspring" }));
        let ann = office.ann.person.address.clone();
        let ben = office.world.user("ben", "Ben Low").person.address;
        // Anybody can write From, and a colleague's mail is not what this user sends.
        for author in [&ann, &ben] {
            let letter = Letter::new(author, &["gus@elsewhere.example"]).cc(&[&ann]);
            office.receives(&letter);
            office.await_left_out(&letter, "no_contact");
        }
        assert_eq!(office.contacts(), 0);
        let sent = Letter::new(&ann, &["gus@elsewhere.example"]);
        office.sends(&sent);
        office.world.crm.await_mail("message.sent", &sent.id);
        assert_eq!(office.contacts(), 1);
    }

    fn keap_18_and_faq_4_mail_from_before_stays_out_when_it_is_moved_into_the_inbox(engine) {
        let office = Office::start(engine);
        office.world.crm.put("/policy", &json!({ "preset": "keap" }));
        let (bob, _) = office.contact("bob");
        let ann = Address::parse(&office.ann.person.address).unwrap();
        let letter = Letter::new(&bob.address, &[&office.ann.person.address]);
        let raw = letter.raw().replace('\n', "\r\n");
        let last_year = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(365 * 24);
        office.world.provider().append_at(last_year, (&ann, "INBOX"), raw.as_bytes(), &[]).unwrap();
        office.await_left_out(&letter, "before_connection");
    }

    fn a_copy_to_the_capture_addresses_of_two_is_judged_as_its_authors_in_whatever_order(engine) {
        let office = Office::start(engine);
        let ben = office.world.user("ben", "Ben Low");
        office.world.crm.put(&format!("/users/{}/policy", ben.id), &json!({ "preset": "keap" }));
        let bob = office.world.prospect("bob");
        let (ann, anns, bens) =
            (&office.ann.person.address, office.ann.capture_address.as_str(), ben.capture_address.as_str());
        for to in [[anns, bens], [bens, anns]] {
            let letter = Letter::new(ann, &[&bob.address]);
            office.world.arrive(ann, &to, &letter).unwrap();
            office.world.crm.await_mail("message.captured", &letter.id);
        }
        for to in [[anns, bens], [bens, anns]] {
            let letter = Letter::new(&ben.person.address, &[&bob.address]);
            office.world.arrive(&ben.person.address, &to, &letter).unwrap();
            office.await_left_out(&letter, "capture_off");
        }
    }

    fn a_copy_that_is_left_out_leaves_no_address_in_the_store(engine) {
        let office = Office::start(engine);
        office.world.crm.put("/policy", &json!({ "preset": "keap" }));
        let private = format!("geheim{}", uuid::Uuid::new_v4().simple());
        let letter = Letter::new(&office.ann.person.address, &[&format!("{private}@elsewhere.example")]);
        let from = format!("{private}@private.example");
        office.world.arrive(&from, &[&office.ann.capture_address], &letter).unwrap();
        office.await_left_out(&letter, "capture_off");
        office.world.gateway.settle();
        // Logs of the database hold what stood there until they are written over, as with all that is deleted.
        let is_log = |path: &std::path::Path| {
            path.extension().is_some_and(|end| end == "db-wal") || path.components().any(|part| part.as_os_str() == "pg_wal")
        };
        let found = holding(&office.world.gateway.places(), &[&private]);
        let stored: Vec<_> = found.into_iter().filter(|(path, _)| !is_log(path)).collect();
        match engine {
            Engine::Sqlite => assert_eq!(stored, []),
            Engine::Postgres => assert_eq!(office.world.gateway.tables_holding(&private), Vec::<String>::new()),
        }
    }

    fn faq_8_a_contacts_mail_to_a_third_party_with_the_user_on_it_is_filed_under_the_contact(engine) {
        let office = Office::start(engine);
        let (bob, id) = office.contact("bob");
        for in_copy in [true, false] {
            let third = "erna@elsewhere.example";
            let ann = office.ann.person.address.as_str();
            let letter = if in_copy {
                Letter::new(&bob.address, &[third]).cc(&[ann])
            } else {
                Letter::new(&bob.address, &[third, ann])
            };
            office.receives(&letter);
            let received = office.world.crm.await_mail("message.received", &letter.id);
            assert_eq!(received["data"]["contact_ids"], json!([id]));
            let path = format!("/conversations/{}", text(&received["data"], "conversation_id"));
            assert_eq!(office.world.crm.get(&path)["contact_id"], id.as_str());
            assert_eq!(office.timeline(&id)[0], letter.id);
        }
        assert_eq!(office.contacts(), 1, "the third party is no contact");
    }

    fn faq_9_the_first_contact_in_to_owns_the_conversation(engine) {
        let office = Office::start(engine);
        let (cora, cora_id) = office.contact("cora");
        let (bob, bob_id) = office.contact("bob");
        // Bob stands first in To, though Cora is the older contact; somebody unknown stands before both.
        let first = Letter::new(&office.ann.person.address, &["erna@elsewhere.example", &bob.address, &cora.address]);
        office.sends(&first);
        let sent = office.world.crm.await_mail("message.sent", &first.id);
        let conversation = text(&sent["data"], "conversation_id").to_owned();
        let owner = || office.world.crm.get(&format!("/conversations/{conversation}"))["contact_id"].clone();
        assert_eq!(owner(), bob_id.as_str());
        // Whoever answers, the conversation stays what it is and whose it is.
        let ann = office.ann.person.address.as_str();
        let mut last = first.id.clone();
        for person in [&cora, &bob] {
            let answer = Letter::new(&person.address, &[ann]).cc(&[&bob.address, &cora.address]).answering(&last);
            office.receives(&answer);
            let received = office.world.crm.await_mail("message.received", &answer.id);
            assert_eq!(received["data"]["conversation_id"], conversation.as_str());
            assert_eq!(owner(), bob_id.as_str());
            last = answer.id;
        }
        assert_eq!((office.timeline(&bob_id).len(), office.timeline(&cora_id).len()), (3, 3));
        assert_eq!(office.world.crm.list("/conversations").len(), 1);
    }

    fn real_16_a_mail_is_on_the_timeline_of_every_contact_it_involves(engine) {
        let office = Office::start(engine);
        let (bob, bob_id) = office.contact("bob");
        let (cora, cora_id) = office.contact("cora");
        office.world.crm.patch(&format!("/contacts/{bob_id}"), &json!({ "related_contact_ids": [cora_id] }));
        let letter = Letter::new(&office.ann.person.address, &[&bob.address]).cc(&[&cora.address]);
        office.sends(&letter);
        let sent = office.world.crm.await_mail("message.sent", &letter.id);
        let alone = Letter::new(&office.ann.person.address, &[&bob.address]);
        office.sends(&alone);
        office.world.crm.await_mail("message.sent", &alone.id);
        // One mail, several records; whoever is merely related and not on it has none.
        assert_eq!(office.timeline(&bob_id).len(), 2);
        assert_eq!(office.timeline(&cora_id), std::slice::from_ref(&letter.id));
        let message = office.world.crm.get(&format!("/messages/{}", text(&sent["data"], "message_id")));
        assert_eq!(message["contacts"], json!([{ "id": bob_id, "role": "to" }, { "id": cora_id, "role": "cc" }]));
    }

    fn faq_13_a_forward_to_a_contact_is_sent_mail_of_that_contact(engine) {
        let office = Office::start(engine);
        let (bob, bob_id) = office.contact("bob");
        let original = Letter::new("erna@elsewhere.example", &[&office.ann.person.address]);
        office.receives(&original);
        office.await_left_out(&original, "no_contact");
        let forward = Letter::new(&office.ann.person.address, &[&bob.address])
            .subject("Fwd: Ten desks")
            .text("See below.\n\n---------- Forwarded message ---------\nFrom: Erna <erna@elsewhere.example>\n\nTen desks.\n");
        office.sends(&forward);
        let sent = office.world.crm.await_mail("message.sent", &forward.id);
        let message = office.world.crm.get(&format!("/messages/{}", text(&sent["data"], "message_id")));
        assert_eq!((text(&message, "direction"), text(&message["author"], "role")), ("outbound", "user"));
        assert_eq!(message["contacts"], json!([{ "id": bob_id, "role": "to" }]));
        assert_eq!(office.timeline(&bob_id), std::slice::from_ref(&forward.id));
        // A copy to the capture address makes a contact of him to whom it was forwarded, not of who wrote it first.
        let captured = Letter::new(&office.ann.person.address, &["dan@elsewhere.example"])
            .subject("Fwd: Ten desks")
            .text("---------- Forwarded message ---------\nFrom: Erna <erna@elsewhere.example>\n\nTen desks.\n");
        office.captures(&captured);
        let created = office.world.crm.events_of("contact.created");
        assert_eq!(created.last().unwrap()["data"]["email"], "dan@elsewhere.example");
        assert_eq!(office.contacts(), 2);
    }

    fn faq_14_an_address_of_several_contacts_is_that_of_the_first_created(engine) {
        let office = Office::start(engine);
        let shared = "family@elsewhere.example";
        let create = |body: Value| text(&office.world.crm.post("/contacts", &body), "id").to_owned();
        let first = create(json!({ "email": "cora@elsewhere.example", "other_emails": [shared] }));
        let second = create(json!({ "email": shared }));
        let letter = Letter::new(shared, &[&office.ann.person.address]);
        office.receives(&letter);
        let received = office.world.crm.await_mail("message.received", &letter.id);
        assert_eq!(received["data"]["contact_ids"], json!([first]));
        assert_eq!((office.timeline(&first), office.timeline(&second)), (vec![letter.id.clone()], vec![]));
        // A copy at a capture address makes no third one.
        office.captures(&Letter::new(&office.ann.person.address, &[shared]));
        assert_eq!((office.contacts(), office.timeline(&first).len()), (2, 2));
        // When the first is gone, the address is the other's.
        office.world.crm.delete(&format!("/contacts/{first}"));
        let later = Letter::new(shared, &[&office.ann.person.address]);
        office.receives(&later);
        office.world.crm.await_mail("message.received", &later.id);
        assert_eq!(office.timeline(&second), [later.id]);
    }

    fn real_17_a_changed_address_counts_from_then_on_and_what_was_logged_stays(engine) {
        let office = Office::start(engine);
        let (_, id) = office.contact("bob");
        let (old, new) = ("bob@prospects.example", "robert@elsewhere.example");
        let to_ann = |from: &str| Letter::new(from, &[&office.ann.person.address]);
        let logged = to_ann(old);
        office.receives(&logged);
        office.world.crm.await_mail("message.received", &logged.id);
        let too_early = to_ann(new);
        office.receives(&too_early);
        office.await_left_out(&too_early, "no_contact");

        office.world.crm.patch(&format!("/contacts/{id}"), &json!({ "email": new, "other_emails": [] }));
        let after = to_ann(new);
        office.receives(&after);
        office.world.crm.await_mail("message.received", &after.id);
        let too_late = to_ann(old);
        office.receives(&too_late);
        office.await_left_out(&too_late, "no_contact");
        office.world.gateway.settle();
        // Nothing exchanged earlier with the new address is fetched, and what lies under the old one stays.
        assert_eq!(office.timeline(&id), [after.id.clone(), logged.id.clone()]);
    }

    fn kana_7_a_contacts_mail_shows_in_every_workspace_that_shares_the_account(engine) {
        let Shared { world, other, ann, bob } = Shared::start(engine);
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        deliver(&world, &ann.person, &letter);
        let in_one = world.crm.await_mail("message.received", &letter.id);
        let in_other = other.await_mail("message.received", &letter.id);
        // Two messages that know nothing of one another.
        assert_ne!(in_one["data"]["message_id"], in_other["data"]["message_id"]);
        let path = format!("/messages/{}", text(&in_other["data"], "message_id"));
        assert_eq!((world.crm.ask(&path).status, other.ask(&path).status), (404, 200));
    }

    fn faq_10_a_workspace_where_he_is_no_contact_sees_nothing_of_a_shared_account(engine) {
        let Shared { world, other, ann, .. } = Shared::start(engine);
        let dora = world.prospect("dora");
        world.crm.post("/contacts", &json!({ "email": dora.address }));
        let letter = Letter::new(&dora.address, &[&ann.person.address]);
        deliver(&world, &ann.person, &letter);
        world.crm.await_mail("message.received", &letter.id);
        wait_for("the other workspace to have left it out", PATIENCE, || {
            let decisions = other.list(&format!("/decisions?rfc822_message_id={}", letter.id));
            decisions.iter().any(|decision| text(decision, "rule") == "no_contact")
        });
        // What one of them sends and what is answered to that stays there as well.
        let sent = world.post_message(&ann, &[&dora.address], "Offer");
        let shown = world.crm.await_delivery(&sent, "sent");
        let answer = Letter::new(&dora.address, &[&ann.person.address]).answering(text(&shown, "rfc822_message_id"));
        deliver(&world, &ann.person, &answer);
        world.crm.await_mail("message.received", &answer.id);
        wait_for("the other workspace to have left it out", PATIENCE, || {
            !other.list(&format!("/decisions?rfc822_message_id={}", answer.id)).is_empty()
        });
        world.gateway.settle();
        assert_eq!((other.messages().len(), world.crm.messages().len()), (0, 3));
    }
}

/// One account of Ann's that is connected in two workspaces, with Bob a contact of both.
pub(super) struct Shared {
    pub world: Sandboxed,
    pub other: Crm,
    pub ann: User,
    pub bob: Person,
}

impl Shared {
    fn start(engine: Engine) -> Self {
        Self::at(engine, Behaviour::default())
    }

    pub fn at(engine: Engine, behaviour: Behaviour) -> Self {
        let world = Sandboxed::start(engine, behaviour);
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let other = world.gateway.crm("zenith").settle_in();
        let there = User::add(&other, ann.person.clone(), "Ann Lee");
        let (imap, smtp) = (endpoint(world.running.imap, "none"), endpoint(world.running.submission, "none"));
        for (crm, user) in [(&world.crm, &ann), (&other, &there)] {
            crm.post("/contacts", &json!({ "email": bob.address }));
            let account = user.connect(crm, &imap, &smtp);
            crm.await_account(&account);
        }
        Self { world, other, ann, bob }
    }
}

fn deliver(world: &Sandboxed, to: &Person, letter: &Letter) {
    let to = Address::parse(&to.address).unwrap();
    world.provider().deliver(&to, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
}
