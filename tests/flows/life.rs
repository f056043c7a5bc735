//! The life of an account, from its first mail to nothing being left of it.
//!
//! Not here: what its mail is (`follow`), and errors by their kind (`account::trouble`).

use std::net::TcpListener;

use mailweave::{
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    privacy::holding,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, store::Engine, wait_for},
    world::{User, endpoint},
};

/// Ann, with a connected account, and Bob, whom the CRM knows.
pub struct Desk {
    pub world: Sandboxed,
    pub ann: User,
    pub bob: Person,
    pub account: String,
}

impl Desk {
    pub fn start(engine: Engine) -> Self {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        Self { world, ann, bob, account }
    }

    /// A mail from Bob arrives in somebody's INBOX.
    pub fn arrives(&self, person: &Person, letter: &Letter) {
        let raw = letter.raw().replace('\n', "\r\n");
        self.world.provider().deliver(&Address::parse(&person.address).unwrap(), raw.as_bytes()).unwrap();
    }

    fn bob_writes(&self) -> Letter {
        let letter = Letter::new(&self.bob.address, &[&self.ann.person.address]);
        self.arrives(&self.ann.person, &letter);
        letter
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/accounts/{}{rest}", self.account)
    }

    fn account(&self) -> Value {
        self.world.crm.get(&self.path(""))
    }

    fn state(&self) -> String {
        text(&self.account()["status"], "state").to_owned()
    }

    #[track_caller]
    fn await_state(&self, state: &str) {
        wait_for(&format!("the account to be {state}"), PATIENCE, || self.state() == state);
    }

    pub fn is_filed(&self, letter: &Letter) -> bool {
        self.world.crm.messages().iter().any(|message| message["rfc822_message_id"] == letter.id.as_str())
    }

    fn resume(&self) {
        self.world.crm.post(&self.path("/resume"), &json!({}));
    }
}

pub fn login(person: &Person) -> Value {
    json!({ "type": "password", "username": person.address, "password": person.password })
}

both! {
    fn keap_9_keap_10_an_account_is_pending_until_its_first_mail_and_active_with_it(engine) {
        let desk = Desk::start(engine);
        assert_eq!(desk.state(), "awaiting_first_mail");
        assert_eq!(desk.account()["status"]["last_synced_at"], Value::Null);
        assert_eq!(desk.world.crm.events_of("account.active"), Vec::<Value>::new());
        let letter = desk.bob_writes();
        desk.world.crm.await_mail("message.received", &letter.id);
        let active = desk.world.crm.await_event("account.active", |data| data["account_id"] == desk.account.as_str());
        assert_eq!(active["data"]["status"]["state"], "active");
        assert_eq!(desk.state(), "active");
        assert!(desk.account()["status"]["last_synced_at"].is_string());
        let second = desk.bob_writes();
        desk.world.crm.await_mail("message.received", &second.id);
        assert_eq!(desk.world.crm.events_of("account.active").len(), 1);
    }

    fn a_paused_account_reads_nothing_until_it_is_resumed(engine) {
        let desk = Desk::start(engine);
        let paused = desk.world.crm.post(&desk.path("/pause"), &json!({}));
        assert_eq!(paused["status"]["state"], "paused");
        assert_eq!(desk.world.crm.post(&desk.path("/pause"), &json!({})), paused);
        assert_eq!(desk.world.crm.try_post(&desk.path("/sync"), &json!({})).status, 409);
        // A new login is no reason to go on.
        let changed = desk.world.crm.patch(&desk.path(""), &json!({ "auth": login(&desk.ann.person) }));
        assert_eq!(changed["status"]["state"], "paused");
        let letter = desk.bob_writes();
        let held = desk.world.post_message(&desk.ann, &[&desk.bob.address], "Later");
        desk.world.crm.await_delivery(&held, "held");
        desk.world.gateway.settle();
        assert!(!desk.is_filed(&letter));
        desk.resume();
        desk.world.crm.await_mail("message.received", &letter.id);
        desk.world.crm.await_delivery(&held, "sent");
    }

    fn shsp_13_an_account_that_fails_for_too_long_is_stopped_until_it_is_resumed(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let account = ann.connect(&world.crm, &endpoint(closed, "none"), &endpoint(closed, "none"));
        let path = format!("/accounts/{account}");
        let await_state = |state: &str| {
            wait_for(&format!("the account to be {state}"), PATIENCE, || {
                world.crm.get(&path)["status"]["state"] == state
            });
        };
        await_state("error");
        let log = world.crm.list(&format!("{path}/errors"));
        assert_eq!((log.len(), text(&log[0], "code")), (1, "unreachable"));
        // KEAP-32, and what the log of SHSP-11 shows: when, what, and what helps.
        assert!(text(&log[0], "title").starts_with("Unknown error reading email from provider"), "{log:?}");
        assert!(log[0]["at"].is_string() && text(&log[0], "advice").contains("Check host and port"), "{log:?}");
        assert_eq!(world.crm.events_of("account.stopped"), Vec::<Value>::new());

        // As if it had begun long ago.
        world.gateway.execute("update accounts set failing_since = 1");
        world.crm.post(&format!("{path}/sync"), &json!({}));
        let stopped = world.crm.await_event("account.stopped", |data| data["account_id"] == account.as_str());
        let status = world.crm.get(&path)["status"].clone();
        assert_eq!(stopped["data"]["status"], status);
        assert_eq!((text(&status, "state"), &status["next_attempt_at"]), ("stopped", &Value::Null));
        assert!(text(&status, "advice").contains("resume"), "{status}");
        assert_eq!(world.crm.try_post(&format!("{path}/sync"), &json!({})).status, 409);
        assert!(world.crm.list(&format!("{path}/errors"))[0]["count"].as_i64().unwrap() > 1);

        let resumed = world.crm.post(&format!("{path}/resume"), &json!({}));
        assert_eq!(resumed["status"]["state"], "connecting");
        // Its time begins anew.
        await_state("error");
        let mended = json!({
            "imap": endpoint(world.running.imap, "none"),
            "smtp": endpoint(world.running.submission, "none"),
            "auth": login(&ann.person),
        });
        world.crm.patch(&path, &mended);
        await_state("awaiting_first_mail");
        assert_eq!(world.crm.events_of("account.stopped").len(), 1);
    }

    fn shsp_13_time_in_which_nobody_tried_is_no_time_of_failing(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let account = ann.connect(&world.crm, &endpoint(closed, "none"), &endpoint(closed, "none"));
        let path = format!("/accounts/{account}");
        wait_for("the account to fail", PATIENCE, || world.crm.get(&path)["status"]["state"] == "error");
        let tries = || world.crm.list(&format!("{path}/errors"))[0]["count"].as_i64().unwrap();
        let tried = tries();
        // As if the gateway had been off for long.
        world.gateway.execute("update accounts set failing_since = 1, next_attempt_at = 2");
        world.crm.post(&format!("{path}/sync"), &json!({}));
        wait_for("another try", PATIENCE, || tries() > tried);
        assert_eq!(world.crm.get(&path)["status"]["state"], "error");
        assert_eq!(world.crm.events_of("account.stopped"), Vec::<Value>::new());
        assert_eq!(world.gateway.count("select count(*) from accounts where failing_since < 1000000"), 0);
    }

    fn an_account_whose_mail_is_read_does_not_fail(engine) {
        let desk = Desk::start(engine);
        let world = &desk.world;
        // Whenever mail is looked for elsewhere than in the inbox, the server hangs up.
        world.provider().arm(Trigger::always(Service::Imap, "EXAMINE").containing("sent"), Act::Drop);
        let own = Letter::new(&desk.ann.person.address, &[&desk.bob.address]);
        let from = Address::parse(&desk.ann.person.address).unwrap();
        world.provider().append(&from, "Sent", own.raw().replace('\n', "\r\n").as_bytes(), &[]).unwrap();
        desk.await_state("error");
        assert_eq!(world.crm.events_of("account.connected").len(), 1);
        let letter = desk.bob_writes();
        world.crm.post(&desk.path("/sync"), &json!({}));
        world.crm.await_mail("message.received", &letter.id);
        wait_for("it to be well", PATIENCE, || world.crm.events_of("account.connected").len() == 2);
    }

    fn what_came_before_the_first_login_that_worked_is_history(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put(&format!("/users/{}/policy", ann.id), &json!({ "overrides": { "backfill_days": 0 } }));
        let address = Address::parse(&ann.person.address).unwrap();
        world.provider().set_password(&address, "another").unwrap();
        let account = world.connect(&ann);
        let path = format!("/accounts/{account}");
        wait_for("the login to be refused", PATIENCE, || world.crm.get(&path)["status"]["state"] == "reauth_required");
        let deliver = |letter: &Letter| {
            world.provider().deliver(&address, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        };
        let before = Letter::new(&bob.address, &[&ann.person.address]);
        deliver(&before);
        // A server tells the second in which mail came.
        let delivered = jiff::Timestamp::now().as_second();
        wait_for("the second to end", PATIENCE, || jiff::Timestamp::now().as_second() > delivered);
        // As if it had taken an hour to find the right password.
        world.gateway.execute("update accounts set connected_at = connected_at - 3600000000");
        let login = login(&Person { password: "another".to_owned(), ..ann.person.clone() });
        world.crm.patch(&path, &json!({ "auth": login }));
        world.crm.await_account(&account);
        let completeness = || world.crm.get(&format!("{path}/completeness"));
        wait_for("the first comparison", PATIENCE, || {
            completeness()["mailboxes"].as_array().unwrap().iter().all(|mailbox| mailbox["compared_at"].is_string())
        });
        let after = Letter::new(&bob.address, &[&ann.person.address]);
        deliver(&after);
        world.crm.await_mail("message.received", &after.id);
        assert_eq!(completeness()["healed"], 0);
        let filed: Vec<Value> = world.crm.messages().iter().map(|message| message["rfc822_message_id"].clone()).collect();
        assert_eq!(filed, [json!(after.id)]);
    }

    fn keap_27_a_changed_password_is_told_with_what_helps(engine) {
        let desk = Desk::start(engine);
        let address = Address::parse(&desk.ann.person.address).unwrap();
        desk.world.provider().set_password(&address, "changed").unwrap();
        desk.world.crm.post(&desk.path("/pause"), &json!({}));
        desk.resume();
        desk.await_state("reauth_required");
        let log = desk.world.crm.list(&desk.path("/errors"));
        assert_eq!(text(&log[0], "title"), "Access denied for this account.");
        assert!(text(&log[0], "advice").contains("If the password has changed"), "{log:?}");
        let changed = Person { password: "changed".to_owned(), ..desk.ann.person.clone() };
        desk.world.crm.patch(&desk.path(""), &json!({ "auth": login(&changed) }));
        desk.await_state("awaiting_first_mail");
    }

    fn hilv_10_kana_19_faq_17_an_account_moves_to_another_address_without_disconnecting(engine) {
        let desk = Desk::start(engine);
        let world = &desk.world;
        let first = desk.bob_writes();
        let received = world.crm.await_mail("message.received", &first.id);
        let renamed = world.person("ann.lee@acme.example");
        // What lies there at the same places, under the same UIDVALIDITY, is other mail.
        let older = Letter::new(&desk.bob.address, &[&renamed.address]);
        desk.arrives(&renamed, &older);
        let change = json!({ "email": renamed.address, "auth": login(&renamed) });
        let changed = world.crm.patch(&desk.path(""), &change);
        assert_eq!(text(&changed, "email"), renamed.address);
        world.crm.await_account(&desk.account);
        wait_for("history to be filed", PATIENCE, || desk.is_filed(&older));
        assert!(world.crm.events_of("message.received").iter().all(|told| told["data"]["rfc822_message_id"] != older.id.as_str()));

        // The thread goes on at the new address alone.
        let at_old = Letter::new(&desk.bob.address, &[&desk.ann.person.address]).answering(&first.id);
        desk.arrives(&desk.ann.person, &at_old);
        let at_new = Letter::new(&desk.bob.address, &[&renamed.address]).answering(&first.id);
        desk.arrives(&renamed, &at_new);
        let told = world.crm.await_mail("message.received", &at_new.id);
        assert_eq!(told["data"]["account_id"], desk.account.as_str());
        assert!(!desk.is_filed(&at_old));
        assert!(desk.is_filed(&first));

        // And mail of the CRM leaves by it.
        world.crm.patch(&format!("/users/{}", desk.ann.id), &json!({ "email": renamed.address }));
        let message = world.post_message(&desk.ann, &[&desk.bob.address], "From the new one");
        let sent = world.crm.await_delivery(&message, "sent");
        assert_eq!(sent["from"]["email"].as_str().or(sent["from"][0]["email"].as_str()), Some(renamed.address.as_str()), "{sent}");
        let id = text(&sent, "rfc822_message_id");
        wait_for("the copy in Sent", PATIENCE, || world.mails(&renamed, "[Gmail]/Sent Mail", id).len() + world.mails(&renamed, "Sent", id).len() > 0);
        assert_eq!(world.crm.events_of("account.disconnected"), Vec::<Value>::new());
        let path = format!("/messages/{}", text(&received["data"], "message_id"));
        assert_eq!(world.crm.get(&path)["sightings"][0]["account_id"], desk.account.as_str());
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn hilv_10_a_login_to_another_mailbox_is_noticed_whatever_comes_first(engine) {
        let desk = Desk::start(engine);
        let world = &desk.world;
        let first = desk.bob_writes();
        world.crm.await_mail("message.received", &first.id);
        // Two mailboxes whose UIDs mean other mail under one UIDVALIDITY: the second's mail lies where the first's did.
        let renamed = world.person("ann.lee@acme.example");
        let older = Letter::new(&desk.bob.address, &[&renamed.address]);
        desk.arrives(&renamed, &older);
        let [ann, other] = [&desk.ann.person, &renamed].map(|person| Address::parse(&person.address).unwrap());
        let (validity, next) = world.provider().uids(&ann, "INBOX").unwrap();
        world.provider().set_uid_validity(&other, "INBOX", validity).unwrap();
        assert_eq!(world.provider().uids(&other, "INBOX").unwrap(), (validity, next));
        // The address first, the login later.
        world.crm.patch(&desk.path(""), &json!({ "email": renamed.address }));
        world.crm.await_account(&desk.account);
        world.crm.patch(&desk.path(""), &json!({ "auth": login(&renamed) }));
        wait_for("the second mailbox to be read", PATIENCE, || desk.is_filed(&older));
        assert!(desk.is_filed(&first));
        let newer = Letter::new(&desk.bob.address, &[&renamed.address]);
        desk.arrives(&renamed, &newer);
        world.crm.await_mail("message.received", &newer.id);
        // The same login again is the same mailbox, and what is known stays known.
        world.crm.patch(&desk.path(""), &json!({ "auth": login(&renamed) }));
        world.crm.await_account(&desk.account);
        assert_eq!(world.crm.messages().len(), 3);
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn hilv_11_kana_16_shsp_9_a_disconnected_account_syncs_nothing_in_either_direction(engine) {
        let desk = Desk::start(engine);
        let first = desk.bob_writes();
        desk.world.crm.await_mail("message.received", &first.id);
        let gone = desk.world.crm.post(&desk.path("/disconnect"), &json!({ "history": "keep" }));
        assert_eq!((text(&gone["status"], "state"), gone.get("receipt")), ("disconnected", None));
        let later = Letter::new(&desk.bob.address, &[&desk.ann.person.address]).answering(&first.id);
        desk.world.provider().clear_ledger();
        desk.arrives(&desk.ann.person, &later);
        let message = json!({ "from_user_id": desk.ann.id, "to": [{ "email": desk.bob.address }], "subject": "x", "text": "x" });
        assert!(desk.world.crm.try_post("/messages", &message).status >= 400);
        assert_eq!(desk.world.crm.try_post(&desk.path("/sync"), &json!({})).status, 409);
        assert_eq!(desk.world.crm.try_post(&desk.path("/resume"), &json!({})).status, 409);
        desk.world.gateway.settle();
        assert!(desk.is_filed(&first) && !desk.is_filed(&later));
        // Only new information has it go on.
        desk.world.crm.patch(&desk.path(""), &json!({ "auth": login(&desk.ann.person) }));
        desk.world.crm.await_mail("message.received", &later.id);
    }

    fn keap_11_shsp_7_shsp_8_erasing_an_account_leaves_no_byte_of_what_it_alone_saw(engine) {
        let desk = Desk::start(engine);
        let world = &desk.world;
        let brought = Brought::through(&desk);
        assert!(!lies_in(world, engine, &brought.gone).is_empty());
        let erasing = world.crm.post(&desk.path("/disconnect"), &json!({ "history": "erase" }));
        assert!(["erasing", "erased"].contains(&text(&erasing["status"], "state")), "{erasing}");
        let told = world.crm.await_event("account.erased", |data| data["account_id"] == desk.account.as_str());
        world.gateway.settle();

        let shown = desk.account();
        let receipt = &shown["receipt"];
        assert_eq!((text(&shown["status"], "state"), receipt), ("erased", &told["data"]["receipt"]));
        assert_eq!((&receipt["messages"], &receipt["conversations"]), (&json!(2), &json!(2)), "{receipt}");
        let counted = |member: &str| receipt[member].as_u64().unwrap();
        assert!(counted("messages_kept") >= 1 && counted("bytes") > 600_000 && counted("decisions") >= 3, "{receipt}");
        assert!(receipt["erased_at"].is_string(), "{receipt}");
        for path in &brought.paths_gone {
            assert_eq!(world.crm.ask(path).status, 404, "{path}");
        }
        assert!(text(&world.crm.get(&brought.shared), "text").contains(&brought.kept));
        assert_eq!(text(&world.crm.get(&brought.sent)["delivery"], "state"), "sent");
        assert_eq!(world.crm.list(&format!("/decisions?account_id={}", desk.account)), Vec::<Value>::new());
        assert_eq!(world.crm.list(&desk.path("/errors")), Vec::<Value>::new());
        assert_eq!(world.crm.list("/contacts").len(), 1);
        assert!(!world.crm.everything().contains(&brought.gone));
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
        assert_eq!(lies_in(world, engine, &brought.gone), Vec::<String>::new());
        // The search finds what is there.
        assert!(!lies_in(world, engine, &brought.kept).is_empty());

        // Nothing revives it; the address is free for a new one.
        for path in ["/resume", "/pause", "/sync"] {
            assert_eq!(world.crm.try_post(&desk.path(path), &json!({})).status, 409, "{path}");
        }
        let again = world.crm.post(&desk.path("/disconnect"), &json!({ "history": "erase" }));
        assert_eq!(&again["receipt"], receipt);
        let account = world.connect(&desk.ann);
        world.crm.await_account(&account);
        assert_ne!(account, desk.account);
    }
}

/// Mail that came through Ann's account: some of it nobody else has.
struct Brought {
    /// Stands wherever Ann's own mail says anything.
    gone: String,
    /// Stands in what others have as well.
    kept: String,
    paths_gone: [String; 2],
    /// Paths of what Ben has too, and of what the CRM sent.
    shared: String,
    sent: String,
}

impl Brought {
    fn through(desk: &Desk) -> Self {
        let word = |name: &str| format!("{name}{}", uuid::Uuid::new_v4().simple());
        let (gone, kept) = (word("Vergessen"), word("Behalten"));
        let (world, ann) = (&desk.world, desk.ann.person.address.as_str());
        let ben = world.user("ben", "Ben Low");
        world.crm.await_account(&world.connect(&ben));
        let secret = |from: &str, number: u32, size: usize| {
            Letter::new(from, &[ann])
                .id(&format!("{gone}.{number}@{gone}.example.test"))
                .subject(&format!("{gone} in the subject"))
                .text(&format!("{gone} in the text\n{}", noise(size)))
        };
        // Two of Bob's, one of them in a file of its own, and a private one that is left out.
        let (small, large) = (secret(&desk.bob.address, 1, 10), secret(&desk.bob.address, 2, 600_000));
        let private = secret(&format!("friend@{gone}.example.test"), 3, 10);
        for letter in [&small, &large, &private] {
            desk.arrives(&desk.ann.person, letter);
        }
        let alone = world.crm.await_mail("message.received", &small.id);
        world.crm.await_mail("message.received", &large.id);
        let decided = format!("/decisions?rfc822_message_id={}", private.id);
        wait_for(&decided, PATIENCE, || world.crm.list(&decided).len() == 1);
        // One that Ben was sent too; it came to Ann first, so that it lies sealed under her key.
        let letter = Letter::new(&desk.bob.address, &[ann, &ben.person.address])
            .id(&format!("{kept}.1@clients.example.test"))
            .subject(&format!("{kept} in the subject"))
            .text(&format!("{kept} in the text\n"));
        desk.arrives(&desk.ann.person, &letter);
        let known = world.crm.await_mail("message.received", &letter.id);
        let shared = format!("/messages/{}", text(&known["data"], "message_id"));
        desk.arrives(&ben.person, &letter);
        let seen = || world.crm.get(&shared)["sightings"].as_array().unwrap().len();
        wait_for("Ben's copy", PATIENCE, || seen() == 2);
        let sent = world.post_message(&desk.ann, &[&desk.bob.address], &format!("{kept} sent"));
        world.crm.await_delivery(&sent, "sent");
        world.gateway.settle();
        let paths_gone = [
            format!("/messages/{}", text(&alone["data"], "message_id")),
            format!("/conversations/{}", text(&alone["data"], "conversation_id")),
        ];
        Self { gone, kept, paths_gone, shared, sent: format!("/messages/{sent}") }
    }
}

/// The files that hold a word. On PostgreSQL what is deleted lies in its files until it is vacuumed: there the tables are
/// searched.
pub fn lies_in(world: &Sandboxed, engine: Engine, word: &str) -> Vec<String> {
    let files = || holding(&world.gateway.places(), &[word]).into_iter();
    match engine {
        Engine::Sqlite => files().map(|(file, _)| file.display().to_string()).collect(),
        Engine::Postgres => world.gateway.tables_holding(word),
    }
}

/// Text that no compression makes small, in lines.
pub fn noise(size: usize) -> String {
    let mut text = String::with_capacity(size + 40);
    while text.len() < size {
        text.push_str(&format!("{}{}\n", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()));
    }
    text
}
