//! What an admin decides is what syncs: presets and settings, each from the next message on, for all or for one user; and
//! the ledger says by which policy.
//!
//! Not here: the rules in every combination (`core::policy`), and the API's answers (`tests/http`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    support::{PATIENCE, wait_for},
    world::{User, World},
};

/// Ann with a connected account.
pub struct Office {
    pub world: World,
    pub ann: User,
    pub account: String,
}

impl Office {
    /// Connects under this policy.
    pub fn start(engine: crate::support::store::Engine, policy: &Value) -> Self {
        let world = World::start(engine);
        let ann = world.user(1, "Ann Lee");
        world.crm.put("/policy", policy);
        // By himself: some policies let nobody else.
        let own = world.crm.with_key(&world.crm.key(&["write"], Some(&ann.id)).1);
        let account = world.connect_in(&own, &ann);
        world.crm.await_account(&account);
        Self { world, ann, account }
    }

    pub fn choose(&self, policy: &Value) {
        self.world.crm.put("/policy", policy);
    }

    pub fn contact(&self, email: &str) -> String {
        text(&self.world.crm.post("/contacts", &json!({ "email": email })), "id").to_owned()
    }

    /// Has mail delivered to Ann's INBOX, and returns what was decided.
    #[track_caller]
    pub fn receives(&self, letter: &Letter) -> Value {
        let from = "postmaster@clients.example.test";
        self.world.dovecot.deliver(from, &self.ann.person, &letter.raw()).unwrap();
        self.decision(letter)
    }

    /// Has Ann's phone file what she sent, and returns what was decided.
    #[track_caller]
    pub fn files_sent(&self, letter: &Letter) -> Value {
        self.world.dovecot.login(&self.ann.person).append("Sent", "\\Seen", &letter.raw());
        self.decision(letter)
    }

    /// The same of mail that was answered before it was seen: what was decided of the answer is found by the id it names too.
    #[track_caller]
    fn files_answered(&self, letter: &Letter, answer: &Value) -> Value {
        self.world.dovecot.login(&self.ann.person).append("Sent", "\\Seen", &letter.raw());
        let both = self.decisions(letter, 2);
        both.into_iter().find(|decision| decision["id"] != answer["id"]).unwrap()
    }

    #[track_caller]
    pub fn decision(&self, letter: &Letter) -> Value {
        // Where policy wants no push, it is looked when that is asked for.
        self.world.crm.post(&format!("/accounts/{}/sync", self.account), &json!({}));
        self.decisions(letter, 1).swap_remove(0)
    }

    #[track_caller]
    pub fn decisions(&self, letter: &Letter, count: usize) -> Vec<Value> {
        let path = format!("/decisions?rfc822_message_id={}", letter.id);
        let mut found = Vec::new();
        wait_for(&path, PATIENCE, || {
            found = self.world.crm.list(&path);
            found.len() == count
        });
        found
    }

    pub fn from(&self, author: &str) -> Letter {
        Letter::new(author, &[&self.ann.person.address])
    }

    pub fn to(&self, recipient: &str) -> Letter {
        Letter::new(&self.ann.person.address, &[recipient])
    }
}

#[track_caller]
pub fn assert_ruled(decision: &Value, verdict: &str, rule: &str) {
    assert_eq!((text(decision, "verdict"), text(decision, "rule")), (verdict, rule), "{decision}");
}

#[track_caller]
fn assert_by(decision: &Value, preset: &str, version: i64) {
    assert_eq!(
        (text(decision, "preset"), decision["policy_version"].as_i64()),
        (preset, Some(version)),
        "{decision}"
    );
}

const CORA: &str = "cora@clients.example.test";

both! {
    fn a_change_of_preset_holds_for_the_next_message_and_the_ledger_names_it(engine) {
        let office = Office::start(engine, &json!({}));
        office.contact(CORA);
        let first = office.receives(&office.from(CORA));
        assert_ruled(&first, "synced", "contact_wrote");
        assert_by(&first, "mailweave", 2);
        office.choose(&json!({ "preset": "kaname-outlook" }));
        let second = office.receives(&office.from(CORA));
        assert_ruled(&second, "skipped", "inbound_starts_nothing");
        assert_by(&second, "kaname-outlook", 3);
        assert_eq!(second["message_id"], Value::Null);
        office.choose(&json!({ "preset": "keap" }));
        let third = office.receives(&office.from(CORA));
        assert_ruled(&third, "synced", "contact_wrote");
        assert_by(&third, "keap", 4);

        // A user's own preset, and a setting of his.
        let path = format!("/users/{}/policy", office.ann.id);
        let own = json!({ "preset": "highlevel-outlook", "overrides": { "require_assignment": true } });
        office.world.crm.put(&path, &own);
        let fourth = office.receives(&office.from(CORA));
        assert_ruled(&fourth, "skipped", "not_assigned");
        assert_by(&fourth, "highlevel-outlook", 5);
        assert_eq!(office.world.crm.messages().len(), 2);
    }

    fn keap_22_to_keap_25_only_mail_of_contacts_at_their_primary_address(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        let home = "cora@home.example.test";
        office.world.crm.post("/contacts", &json!({ "email": CORA, "other_emails": [home] }));
        let ben = office.world.user(2, "Ben Low");
        office.contact(&ben.person.address);
        let known = office.from(CORA);
        assert_ruled(&office.receives(&known), "synced", "contact_wrote");
        assert_ruled(&office.receives(&office.from(home)), "skipped", "no_contact");
        assert_ruled(&office.receives(&office.from(&ben.person.address)), "skipped", "internal");
        let answer = office.from("eva@far.example.test").answering(&known.id).cc(&["fay@far.example.test"]);
        assert_ruled(&office.receives(&answer), "skipped", "no_contact");
        assert_ruled(&office.files_sent(&office.to("gus@far.example.test")), "skipped", "no_contact");
        assert_ruled(&office.files_sent(&office.to(CORA)), "synced", "wrote_to_contact");
        assert_eq!(office.world.crm.list("/contacts").len(), 2);
        assert_eq!(office.world.crm.messages().len(), 2);
    }

    fn keap_1_and_kana_1_what_a_user_sends_from_a_personal_account_is_his(engine) {
        let world = World::start(engine);
        let person = world.dovecot.user(1);
        let user = world.crm.post("/users", &json!({ "email": "ann@office.example.test", "name": "Ann Lee" }));
        let (id, capture_address) = (text(&user, "id").to_owned(), text(&user, "capture_address").to_owned());
        let ann = User { person, id, capture_address };
        world.crm.put("/policy", &json!({ "preset": "keap" }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let office = Office { world, ann, account };
        office.contact(CORA);
        let sent = office.files_sent(&office.to(CORA));
        assert_ruled(&sent, "synced", "wrote_to_contact");
        let shown = office.world.crm.get(&format!("/messages/{}", text(&sent, "message_id")));
        assert_eq!((text(&shown, "direction"), text(&shown["author"], "role")), ("outbound", "user"));
        let user = office.world.crm.get(&format!("/users/{}", office.ann.id));
        assert_eq!(user["aliases"], json!([office.ann.person.address]));
    }

    fn keap_9_and_keap_10_pending_until_the_first_mail(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        office.contact(CORA);
        let status = || office.world.crm.get(&format!("/accounts/{}/status", office.account));
        assert_eq!((text(&status(), "state"), text(&status(), "label")), ("awaiting_first_mail", "Pending"));
        office.receives(&office.from(CORA));
        wait_for("the account to be active", PATIENCE, || status()["state"] == "active");
        assert_eq!(text(&status(), "label"), "Active");
        let told = office.world.crm.await_event("account.active", |data| data["account_id"] == office.account.as_str());
        assert_eq!(told["data"]["status"]["label"], "Active");
    }

    fn keap_18_and_real_10_what_was_there_before_comes_in_as_far_as_policy_reads_back(engine) {
        let world = World::start(engine);
        let (ann, ben) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"));
        world.crm.post("/contacts", &json!({ "email": CORA }));
        world.crm.put("/policy", &json!({ "preset": "keap" }));
        world.crm.put(&format!("/users/{}/policy", ben.id), &json!({ "overrides": { "backfill_days": 31 } }));
        let earlier = |user: &User| Letter::new(CORA, &[&user.person.address]);
        let (to_ann, to_ben) = (earlier(&ann), earlier(&ben));
        for (user, letter) in [(&ann, &to_ann), (&ben, &to_ben)] {
            world.dovecot.deliver(CORA, &user.person, &letter.raw()).unwrap();
        }
        // Servers tell the time of arrival by the second.
        let second = || Timestamp::now().as_second();
        let delivered = second();
        wait_for("the next second", PATIENCE, || second() > delivered);
        let (of_ann, of_ben) = (world.connect(&ann), world.connect(&ben));
        world.crm.await_account(&of_ben);
        world.crm.await_account(&of_ann);
        let decided = |letter: &Letter| world.crm.list(&format!("/decisions?rfc822_message_id={}", letter.id));
        wait_for("the mail of before to be read", PATIENCE, || decided(&to_ben).len() == 1);
        world.gateway.settle();
        assert_eq!(decided(&to_ann).len(), 0);
        assert_eq!(world.crm.messages().len(), 1);
    }

    fn shsp_1_whom_the_user_writes_to_becomes_a_contact(engine) {
        let office = Office::start(engine, &json!({ "preset": "sharpspring" }));
        let sent = office.to("eva@far.example.test").cc(&["fay@far.example.test"]);
        assert_ruled(&office.files_sent(&sent), "synced", "sent_makes_contact");
        let contacts = office.world.crm.list("/contacts");
        assert_eq!(contacts.len(), 1, "of those in To alone: {contacts:?}");
        assert_eq!((text(&contacts[0], "email"), text(&contacts[0], "created_by")), ("eva@far.example.test", "sent"));
        let created = office.world.crm.events_of("contact.created");
        assert_eq!(created.len(), 1);
        let answer = office.from("eva@far.example.test").answering(&sent.id);
        assert_ruled(&office.receives(&answer), "synced", "contact_wrote");
        assert_ruled(&office.receives(&office.from("gus@far.example.test")), "skipped", "no_contact");
    }

    fn kana_6_a_contact_begins_a_thread_with_the_user_he_is_assigned_to(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-gmail" }));
        let cora = office.contact(CORA);
        assert_ruled(&office.receives(&office.from(CORA)), "skipped", "not_assigned");
        office.world.crm.patch(&format!("/contacts/{cora}"), &json!({ "assigned_user_id": office.ann.id }));
        assert_ruled(&office.receives(&office.from(CORA)), "synced", "contact_wrote");
        let ben = office.world.user(2, "Ben Low");
        office.world.crm.patch(&format!("/contacts/{cora}"), &json!({ "assigned_user_id": ben.id }));
        assert_ruled(&office.receives(&office.from(CORA)), "skipped", "not_assigned");
        assert_ruled(&office.files_sent(&office.to(CORA)), "skipped", "outbound_starts_nothing");
    }

    fn hilv_6_mail_from_a_contact_who_is_a_user_stays_out(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        let ben = office.world.user(2, "Ben Low");
        office.contact(&ben.person.address);
        office.contact(CORA);
        assert_ruled(&office.receives(&office.from(&ben.person.address)), "skipped", "colleague_wrote");
        assert_ruled(&office.receives(&office.from(CORA)), "synced", "contact_wrote");
        // Where nothing keeps colleagues out, he is a contact like any other.
        office.choose(&json!({ "preset": "highlevel-outlook", "overrides": { "internal_rule": "none" } }));
        assert_ruled(&office.receives(&office.from(&ben.person.address)), "synced", "contact_wrote");
    }

    fn hilv_7_capture_is_off_or_on_and_takes_the_fields_that_policy_names(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook-labs-off" }));
        let capture = office.ann.capture_address.as_str();
        let sends = |letter: &Letter, to: &[&str]| {
            office.world.client_sends(&office.ann.person, to, letter);
            office.decisions(letter, 1).swap_remove(0)
        };
        let bob = office.world.customer(1).address;
        let off = office.to(&bob);
        assert_ruled(&sends(&off, &[capture]), "skipped", "capture_off");
        office.choose(&json!({ "overrides": { "capture_fields": "bcc", "create_for": "to_cc" } }));
        let copied = office.to(&bob).cc(&[capture]);
        assert_ruled(&sends(&copied, &[capture]), "skipped", "capture_field");
        let hidden = office.to(&bob).cc(&["fay@far.example.test"]);
        let captured = sends(&hidden, &[capture]);
        assert_ruled(&captured, "synced", "captured");
        assert_by(&captured, "mailweave", 3);
        let mut made: Vec<_> =
            office.world.crm.list("/contacts").iter().map(|contact| text(contact, "email").to_owned()).collect();
        made.sort();
        assert_eq!(made, [bob.clone(), "fay@far.example.test".to_owned()]);
    }

    fn real_18_mail_with_another_connected_account_on_it_stays_out_even_when_that_is_disconnected(engine) {
        let office = Office::start(engine, &json!({}));
        office.contact(CORA);
        let ben = office.world.user(2, "Ben Low");
        let other = office.world.connect(&ben);
        office.world.crm.await_account(&other);
        office.choose(&json!({ "preset": "realpad" }));
        let copied = || office.from(CORA).cc(&[&ben.person.address]);
        assert_ruled(&office.receives(&copied()), "skipped", "other_account");
        office.world.crm.post(&format!("/accounts/{other}/disconnect"), &json!({}));
        assert_ruled(&office.receives(&copied()), "skipped", "other_account");
        assert_ruled(&office.receives(&office.from(CORA)), "synced", "contact_wrote");
        // REAL-14: copied to a customer, whoever wrote it.
        let stranger = office.from("eva@far.example.test").cc(&[CORA]);
        assert_ruled(&office.receives(&stranger), "synced", "contact_copied");
    }

    fn real_6_what_fails_is_given_up_as_soon_as_policy_says(engine) {
        let world = World::start(engine);
        let ann = world.user(1, "Ann Lee");
        world.crm.put(&format!("/users/{}/policy", ann.id), &json!({ "overrides": { "give_up_after": "0s" } }));
        // It answers, but not as it should: no network that is away for a moment.
        let wrong = json!({ "host": "127.0.0.1", "port": world.dovecot.imap.port(), "security": "tls" });
        let account = ann.connect(&world.crm, &wrong, &wrong);
        let told = world.crm.await_event("account.stopped", |data| data["account_id"] == account.as_str());
        assert_eq!(told["data"]["status"]["next_attempt_at"], Value::Null);
        let status = world.crm.get(&format!("/accounts/{account}/status"));
        assert_eq!((text(&status, "state"), text(&status, "label")), ("stopped", "Stopped"));
        world.crm.put("/policy", &json!({ "preset": "realpad" }));
        assert_eq!(world.crm.get(&format!("/accounts/{account}/status"))["label"], "Problematic");
    }

    fn who_answers_a_user_becomes_a_contact_whichever_of_the_two_is_seen_first(engine) {
        let office = Office::start(engine, &json!({ "overrides": { "create_on": "exchange" } }));
        let (eva, fay) = ("eva@far.example.test", "fay@far.example.test");
        let sent = office.to(eva);
        assert_ruled(&office.files_sent(&sent), "skipped", "awaits_answer");
        // Somebody else who learned the id answers nothing.
        assert_ruled(&office.receives(&office.from(fay).answering(&sent.id)), "skipped", "no_contact");
        let answer = office.from(eva).answering(&sent.id);
        assert_ruled(&office.receives(&answer), "synced", "exchange_makes_contact");
        wait_for("what was answered to come in", PATIENCE, || office.world.crm.messages().len() == 2);

        // The answer overtakes what it answers.
        let (late, early) = (office.to(fay), office.from(fay));
        let early = early.answering(&late.id);
        assert_ruled(&office.receives(&early), "skipped", "no_contact");
        office.world.dovecot.login(&office.ann.person).append("Sent", "\\Seen", &late.raw());
        // Newest first; what was decided of the answer is found by the id it names.
        assert_ruled(&office.decisions(&late, 2)[0], "synced", "answered");
        wait_for("the answer to come in", PATIENCE, || office.world.crm.messages().len() == 4);
        let mut made: Vec<_> = office
            .world
            .crm
            .list("/contacts")
            .iter()
            .map(|contact| (text(contact, "email").to_owned(), text(contact, "created_by").to_owned()))
            .collect();
        made.sort();
        assert_eq!(made, [(eva.to_owned(), "exchange".to_owned()), (fay.to_owned(), "exchange".to_owned())]);
    }

    fn what_machines_and_others_say_to_a_users_mail_is_no_answer_whichever_is_seen_first(engine) {
        let office = Office::start(engine, &json!({ "overrides": { "create_on": "exchange" } }));
        let ben = office.world.user(2, "Ben Low");
        let (eva, fay) = ("eva@far.example.test", "fay@far.example.test");
        let sent = || office.to(eva).cc(&[&ben.person.address]);
        // While she is away; somebody else with her in copy; a colleague.
        let notice = |id: &str| office.from(eva).answering(id).field("Auto-Submitted", "auto-replied");
        let about = |id: &str| office.from(fay).cc(&[eva]).answering(id);
        let colleague = |id: &str| office.from(&ben.person.address).answering(id);
        let answers: [&dyn Fn(&str) -> Letter; 3] = [&notice, &about, &colleague];
        for (answer, rule) in answers.iter().zip(["no_contact", "no_contact", "internal"]) {
            let (first, second) = (sent(), sent());
            let answered = office.receives(&answer(&first.id));
            assert_ruled(&answered, "skipped", rule);
            assert_ruled(&office.files_answered(&first, &answered), "skipped", "awaits_answer");
            assert_ruled(&office.files_sent(&second), "skipped", "awaits_answer");
            assert_ruled(&office.receives(&answer(&second.id)), "skipped", rule);
        }
        office.world.gateway.settle();
        assert_eq!(office.world.crm.messages().len(), 0);
        assert_eq!(office.world.crm.list("/contacts").len(), 0);
    }

    fn who_answers_mail_that_is_in_the_crm_becomes_a_contact_whichever_is_seen_first(engine) {
        let exchange = json!({ "overrides": { "create_on": "exchange", "thread_follow": "contacts" } });
        let office = Office::start(engine, &exchange);
        office.contact(CORA);
        let (eva, fay) = ("eva@far.example.test", "fay@far.example.test");
        let sent = office.to(CORA).cc(&[eva]);
        assert_ruled(&office.files_sent(&sent), "synced", "wrote_to_contact");
        let references = |from: &str, id: &str| office.from(from).field("References", &format!("<{id}>"));
        assert_ruled(&office.receives(&references(eva, &sent.id)), "synced", "exchange_makes_contact");
        let sent = office.to(CORA).cc(&[fay]);
        let early = references(fay, &sent.id);
        let answered = office.receives(&early);
        assert_ruled(&answered, "skipped", "no_contact");
        assert_ruled(&office.files_answered(&sent, &answered), "synced", "wrote_to_contact");
        wait_for("the answer to come in", PATIENCE, || {
            office.decisions(&early, 1)[0]["rule"] == "exchange_makes_contact"
        });

        // Where the whole conversation follows, an answer that names it in References alone is one too.
        office.choose(&json!({ "overrides": { "create_on": "exchange" } }));
        let gus = "gus@far.example.test";
        let sent = office.to(gus);
        let early = references(gus, &sent.id);
        let answered = office.receives(&early);
        assert_ruled(&answered, "skipped", "no_contact");
        assert_ruled(&office.files_answered(&sent, &answered), "synced", "answered");
        wait_for("the answer to come in", PATIENCE, || office.decisions(&early, 1)[0]["verdict"] == "synced");
        let contacts = office.world.crm.list("/contacts");
        let made = contacts.iter().filter(|contact| contact["created_by"] == "exchange").count();
        assert_eq!(made, 3, "{contacts:?}");
    }

    fn keap_12_kana_17_and_kana_18_files_come_in_as_policy_says_and_what_stays_out_is_nowhere(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        office.contact(CORA);
        let secret = "c2VjcmV0IGNvbnRlbnQgb2YgYSBmaWxl";
        let with_file = |letter: Letter, name: &str| {
            let part = format!(
                "--b\n\nHello\n--b\nContent-Type: application/octet-stream; name={name}\n\
                 Content-Transfer-Encoding: base64\n\n{secret}\n--b--\n"
            );
            letter
                .field("MIME-Version", "1.0")
                .field("Content-Type", "multipart/mixed; boundary=b")
                .text(&part)
        };
        let crm = &office.world.crm;
        let path = |decision: &Value| format!("/messages/{}", text(decision, "message_id"));
        let without = path(&office.receives(&with_file(office.from(CORA), "offer.pdf")));
        let shown = crm.get(&without);
        let file = &shown["attachments"][0];
        assert_eq!((text(file, "filename"), &file["size"]), ("offer.pdf", &json!(24)));
        assert_eq!(file["skipped"], json!({ "reason": "attachments_off", "limit": null }));
        assert_eq!(text(&shown, "text").trim(), "Hello");
        assert!(!crm.text(&format!("{without}/raw")).contains(secret));
        let answer = crm.ask(&format!("{without}/attachments/{}", text(file, "id")));
        assert_eq!((answer.status, text(&answer.body, "code")), (404, "attachment_skipped"));

        // A list of types, one of which is not on it: the mail comes in without it. One that is too large keeps the mail out.
        let outlook = json!({ "preset": "kaname-outlook", "overrides": { "thread_start": ["inbound", "capture"], "capture_enabled": true } });
        office.choose(&outlook);
        let listed = path(&office.receives(&with_file(office.from(CORA), "offer.PDF")));
        assert!(crm.text(&format!("{listed}/raw")).contains(secret));
        let foreign = path(&office.receives(&with_file(office.from(CORA), "tool.exe")));
        assert_eq!(crm.get(&foreign)["attachments"][0]["skipped"]["reason"], "type");
        assert!(!crm.text(&format!("{foreign}/raw")).contains(secret));
        let mut small = outlook.clone();
        small["overrides"]["attachment_bytes_max"] = json!(10);
        office.choose(&small);
        let large = office.receives(&with_file(office.from(CORA), "offer.pdf"));
        assert_ruled(&large, "skipped", "attachment");

        // What is captured follows the same rules.
        let bob = office.world.customer(1);
        let captures = |name: &str| {
            let letter = with_file(office.to(&bob.address), name);
            office.world.client_sends(&office.ann.person, &[&office.ann.capture_address], &letter);
            office.decisions(&letter, 1).swap_remove(0)
        };
        assert_ruled(&captures("tool.exe"), "skipped", "attachment");
        office.choose(&outlook);
        assert_ruled(&captures("tool.exe"), "synced", "captured");
        office.choose(&json!({ "overrides": { "attachment_bytes_max": 10 } }));
        let large = path(&captures("offer.pdf"));
        let shown = crm.get(&large);
        assert_eq!(shown["attachments"][0]["skipped"], json!({ "reason": "too_large", "limit": 10 }));
        assert!(!crm.text(&format!("{large}/raw")).contains(secret));
        assert_eq!(crm.messages().len(), 5);
    }

    fn keap_20_and_kana_11_a_sent_copy_is_filed_where_policy_says(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        let bob = office.world.customer(1);
        office.contact(&bob.address);
        let key = office.world.smtp_key();
        let send = || {
            let letter = office.to(&bob.address);
            office.world.hand_in(&office.ann, &key, &[&bob.address], &letter).unwrap();
            office.world.crm.await_mail("message.sent", &letter.id);
            letter
        };
        let without = send();
        office.choose(&json!({ "preset": "kaname-gmail" }));
        let with = send();
        office.world.await_mail(&office.ann.person, "Sent", &with.id);
        assert_eq!(office.world.count_mail(&office.ann.person, "Sent", &without.id), 0);
    }

    fn hilv_15_and_faq_16_what_is_the_smarthosts_never_leaves_by_the_users_account(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        let bob = office.world.customer(1);
        for class in ["workflow", "bulk"] {
            let message = json!({
                "from_user_id": office.ann.id, "to": [{ "email": bob.address }], "subject": "Hello", "text": "Hello",
                "class": class,
            });
            // Bulk mail from the account's own address may leave by it.
            if class == "bulk" {
                office.choose(&json!({ "preset": "kaname-outlook" }));
            }
            let answer = office.world.crm.try_post("/messages", &message);
            assert_eq!((answer.status, text(&answer.body, "code")), (422, "no_way_out"), "{}", answer.body);
            assert!(text(&answer.body, "advice").contains("workflow_route"), "{}", answer.body);
        }
        let key = office.world.smtp_key();
        let letter = office.to(&bob.address).field("X-Mailweave-Class", "workflow");
        let refused = office.world.hand_in(&office.ann, &key, &[&bob.address], &letter).unwrap_err();
        assert_eq!(refused.code, 550, "{refused:?}");
        assert!(office.world.crm.messages().is_empty());
    }

    fn hilv_13_to_hilv_15_bulk_mail_from_the_users_address_leaves_by_his_account(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        office.world.set_smarthost();
        let bob = office.world.customer(1);
        let key = office.world.smtp_key();
        let send = |class: &str| {
            let letter = office.to(&bob.address).field("X-Mailweave-Class", class);
            office.world.hand_in(&office.ann, &key, &[&bob.address], &letter).unwrap();
            office.world.await_mail(&bob, "INBOX", &letter.id)
        };
        send("bulk");
        send("workflow");
        let by = || {
            let sent = office.world.crm.events_of("message.sent");
            sent.iter().map(|event| event["data"]["account_id"].clone()).collect::<Vec<_>>()
        };
        wait_for("both to be told of", PATIENCE, || by().len() == 2);
        assert_eq!(by(), [json!(office.account), Value::Null]);
    }
}
