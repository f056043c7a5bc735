//! What comes in under the presets, at a real provider: each test has the numbers of the rules it shows, and the preset whose
//! they are.
//!
//! Not here: what a change of policy does (`policies`), and accounts themselves (`preset_accounts`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text, texts},
    letter::Letter,
    policies::{Office, assert_ruled},
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
    world::{User, World, endpoint},
};

const CORA: &str = "cora@clients.example.test";

/// The Message-IDs on a contact's timeline, newest first.
fn timeline(crm: &Crm, contact: &str) -> Vec<String> {
    texts(&crm.list(&format!("/contacts/{contact}/timeline")), "rfc822_message_id")
}

/// The CRM sends for Ann over SMTP; returns once her own Sent mailbox has it.
fn crm_sends(office: &Office, to: &Person) -> Letter {
    let letter = office.to(&to.address);
    let key = office.world.smtp_key();
    office.world.hand_in(&office.ann, &key, &[&to.address], &letter).unwrap();
    office.world.crm.await_mail("message.sent", &letter.id);
    office.world.await_mail(&office.ann.person, "Sent", &letter.id);
    letter
}

/// The one message with this Message-ID.
fn message(office: &Office, letter: &Letter) -> Value {
    let found: Vec<Value> = office
        .world
        .crm
        .messages()
        .into_iter()
        .filter(|message| message["rfc822_message_id"] == letter.id.as_str())
        .collect();
    let [message] = &found[..] else { panic!("{} is there {} times", letter.id, found.len()) };
    message.clone()
}

/// Waits until what is told of mail is told of in its conversation: one for all of these letters.
fn assert_one_conversation(office: &Office, letters: &[&Letter]) {
    let conversations: Vec<Value> =
        letters.iter().map(|letter| message(office, letter)["conversation_id"].clone()).collect();
    assert!(conversations.iter().all(|conversation| *conversation == conversations[0]), "{conversations:?}");
}

/// Lets the second pass: servers tell the time of arrival by the second.
fn next_second() {
    let second = || Timestamp::now().as_second();
    let begun = second();
    wait_for("the next second", PATIENCE, || second() > begun);
}

/// What the CRM begins comes in with all that follows, and nothing else does.
fn check_crm_only(engine: crate::support::store::Engine, preset: &str) {
    let office = Office::start(engine, &json!({ "preset": preset }));
    let bob = office.world.customer(1);
    office.contact(&bob.address);
    assert_ruled(&office.receives(&office.from(&bob.address)), "skipped", "inbound_starts_nothing");
    assert_ruled(&office.files_sent(&office.to(&bob.address)), "skipped", "outbound_starts_nothing");
    let begun = crm_sends(&office, &bob);
    let answer = office.from(&bob.address).answering(&begun.id);
    assert_ruled(&office.receives(&answer), "synced", "known_thread");
    let by_hand = office.to(&bob.address).answering(&answer.id);
    assert_ruled(&office.files_sent(&by_hand), "synced", "known_thread");
    assert_one_conversation(&office, &[&begun, &answer, &by_hand]);
    assert_eq!(office.world.crm.messages().len(), 3, "{preset}");
}

both! {
    fn keap_1_keap_13_keap_21_mail_of_a_connected_account_is_on_the_contacts_record(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        let cora = office.contact(CORA);
        let (received, sent) = (office.from(CORA), office.to(CORA));
        assert_ruled(&office.receives(&received), "synced", "contact_wrote");
        assert_ruled(&office.files_sent(&sent), "synced", "wrote_to_contact");
        // Ben works here too, and has connected nothing.
        let ben = office.world.user(2, "Ben Low");
        let unseen = Letter::new(CORA, &[&ben.person.address]);
        office.world.dovecot.deliver(CORA, &ben.person, &unseen.raw()).unwrap();
        let last = office.from(CORA);
        assert_ruled(&office.receives(&last), "synced", "contact_wrote");
        office.world.gateway.settle();
        assert_eq!(timeline(&office.world.crm, &cora), [last.id.clone(), sent.id.clone(), received.id.clone()]);
        assert_eq!(office.world.crm.list(&format!("/decisions?rfc822_message_id={}", unseen.id)), Vec::<Value>::new());
        let way = |letter: &Letter| text(&message(&office, letter), "direction").to_owned();
        assert_eq!((way(&received), way(&sent)), ("inbound".to_owned(), "outbound".to_owned()));
    }

    fn keap_17_an_invitation_comes_without_its_appointment(engine) {
        let office = Office::start(engine, &json!({ "preset": "keap" }));
        office.contact(CORA);
        let invitation = office
            .from(CORA)
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=b")
            .text(
                "--b\nContent-Type: text/plain\n\nShall we meet?\n--b\n\
                 Content-Type: text/calendar; method=REQUEST; name=invite.ics\n\
                 Content-Disposition: attachment; filename=invite.ics\n\n\
                 BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Geheimtreffen\nEND:VEVENT\nEND:VCALENDAR\n--b--\n",
            );
        assert_ruled(&office.receives(&invitation), "synced", "contact_wrote");
        let shown = message(&office, &invitation);
        assert_eq!(shown["attachments"][0]["skipped"]["reason"], "attachments_off", "{shown}");
        assert!(text(&shown, "text").contains("Shall we meet?"));
        let raw = office.world.crm.text(&format!("/messages/{}/raw", text(&shown, "id")));
        assert!(!raw.contains("Geheimtreffen") && !office.world.crm.everything().contains("Geheimtreffen"), "{raw}");
    }

    fn kana_1_kana_4_kana_13_faq_6_what_the_crm_begins_is_mirrored_on_both_sides(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-gmail" }));
        let bob = office.world.customer(1);
        office.contact(&bob.address);
        // Nobody's contact begins nothing by himself.
        assert_ruled(&office.receives(&office.from(&bob.address)), "skipped", "not_assigned");
        let begun = crm_sends(&office, &bob);
        let answer = office.from(&bob.address).answering(&begun.id);
        assert_ruled(&office.receives(&answer), "synced", "known_thread");
        let by_hand = office.to(&bob.address).answering(&answer.id);
        assert_ruled(&office.files_sent(&by_hand), "synced", "known_thread");
        assert_one_conversation(&office, &[&begun, &answer, &by_hand]);
        assert_eq!(office.world.count_mail(&office.ann.person, "Sent", &begun.id), 1);
        assert_eq!(office.world.crm.messages().len(), 3);
    }

    fn kana_2_kana_15_only_what_the_crm_begins_comes_in_from_outlook(engine) {
        check_crm_only(engine, "kaname-outlook");
    }

    fn hilv_7_faq_21_with_labs_off_only_what_the_crm_begins_comes_in(engine) {
        check_crm_only(engine, "highlevel-outlook-labs-off");
    }

    fn hilv_1_hilv_3_hilv_4_what_is_sent_received_or_moved_on_one_side_is_so_on_the_other(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        let bob = office.world.customer(1);
        office.contact(&bob.address);
        // Sent there, and received there.
        let begun = crm_sends(&office, &bob);
        let answer = office.from(&bob.address).answering(&begun.id);
        assert_ruled(&office.receives(&answer), "synced", "contact_wrote");
        let by_hand = office.to(&bob.address).answering(&answer.id);
        assert_ruled(&office.files_sent(&by_hand), "synced", "known_thread");
        assert_one_conversation(&office, &[&begun, &answer, &by_hand]);
        // A contact to whom nobody is assigned begins another.
        let new = office.from(&bob.address);
        assert_ruled(&office.receives(&new), "synced", "contact_wrote");
        assert_ne!(message(&office, &new)["conversation_id"], message(&office, &begun)["conversation_id"]);
        // Filed anew at the provider it has another place, and is the same message.
        let places = || message(&office, &new)["sightings"].as_array().unwrap().len();
        assert_eq!(places(), 1);
        let mut imap = office.world.dovecot.login(&office.ann.person);
        imap.append("INBOX", "\\Seen \\Flagged", &new.raw());
        wait_for("the other place", PATIENCE, || places() == 2);
        assert_eq!(office.world.crm.messages().len(), 4);
    }

    fn hilv_5_faq_11_faq_19_a_copy_makes_the_contact_whose_mail_then_comes_by_itself(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        let [bob, dan] = [1, 2].map(|number| office.world.customer(number));
        let capture = office.ann.capture_address.clone();
        assert_ruled(&office.receives(&office.from(&bob.address)), "skipped", "no_contact");
        let in_bcc = office.to(&bob.address);
        let in_cc = office.to(&dan.address).cc(&[&capture]);
        for (letter, customer) in [(&in_bcc, &bob), (&in_cc, &dan)] {
            office.world.client_sends(&office.ann.person, &[&customer.address, &capture], letter);
            let captured = office.world.crm.await_mail("message.captured", &letter.id);
            let shown = message(&office, letter);
            assert_eq!(texts(shown["sightings"].as_array().unwrap(), "via"), ["capture"], "{shown}");
            let contacts = office.world.crm.list(&format!("/contacts?email={}", customer.address));
            assert_eq!(captured["data"]["contact_ids"], json!([contacts[0]["id"]]));
            assert_eq!(text(&contacts[0], "created_by"), "capture");
        }
        let answer = office.from(&bob.address).answering(&in_bcc.id);
        assert_ruled(&office.receives(&answer), "synced", "contact_wrote");
        assert_one_conversation(&office, &[&in_bcc, &answer]);
        assert_ruled(&office.receives(&office.from(&dan.address)), "synced", "contact_wrote");
    }

    fn faq_1_faq_4_faq_5_what_a_contact_writes_after_connecting_comes_in_its_own_thread(engine) {
        let world = World::start(engine);
        world.crm.put("/policy", &json!({ "preset": "kaname-gmail" }));
        let ann = world.user(1, "Ann Lee");
        world.crm.post("/contacts", &json!({ "email": CORA, "assigned_user_id": ann.id }));
        let older = Letter::new(CORA, &[&ann.person.address]);
        world.dovecot.deliver(CORA, &ann.person, &older.raw()).unwrap();
        next_second();
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let office = Office { world, ann, account };
        let first = office.from(CORA);
        assert_ruled(&office.receives(&first), "synced", "contact_wrote");
        let same = office.from(CORA).answering(&first.id);
        office.receives(&same);
        let other = office.from(CORA);
        assert_ruled(&office.receives(&other), "synced", "contact_wrote");
        assert_one_conversation(&office, &[&first, &same]);
        assert_ne!(message(&office, &other)["conversation_id"], message(&office, &first)["conversation_id"]);
        for letter in [&first, &same, &other] {
            let path = format!("/messages/{}/raw", text(&message(&office, letter), "id"));
            assert!(office.world.crm.text(&path).contains(&letter.id));
            assert_eq!(office.world.count_mail(&office.ann.person, "INBOX", &letter.id), 1);
        }
        office.world.gateway.settle();
        assert_eq!(office.world.crm.messages().len(), 3, "nothing from before connecting");
    }

    fn faq_7_wherever_the_user_stands_it_is_the_contacts_mail_and_nobody_in_copy_becomes_one(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-gmail" }));
        let ann = office.ann.person.address.clone();
        let cora = office.world.crm.post("/contacts", &json!({ "email": CORA, "assigned_user_id": office.ann.id }));
        let (eva, fay) = ("eva@far.example.test", "fay@far.example.test");
        let in_copy = Letter::new(CORA, &[eva]).cc(&[&ann, fay]);
        let hidden = Letter::new(CORA, &[eva]).cc(&[fay]);
        let one_of_many = Letter::new(CORA, &[eva, &ann, fay]);
        for letter in [&in_copy, &hidden, &one_of_many] {
            assert_ruled(&office.receives(letter), "synced", "contact_wrote");
            let contacts = message(&office, letter)["contacts"].clone();
            assert_eq!(contacts, json!([{ "id": cora["id"], "role": "from" }]));
        }
        assert_eq!(office.world.crm.list("/contacts").len(), 1);
        // Nor does a copy make contacts of them: of those in To alone.
        let [bob, dan] = [1, 2].map(|number| office.world.customer(number));
        let copied = office.to(&bob.address).cc(&[&dan.address]);
        let recipients = [bob.address.as_str(), &dan.address, &office.ann.capture_address];
        office.world.client_sends(&office.ann.person, &recipients, &copied);
        office.world.crm.await_mail("message.captured", &copied.id);
        let mut made = texts(&office.world.crm.list("/contacts"), "email");
        made.sort();
        let mut expect = [bob.address.clone(), CORA.to_owned()];
        expect.sort();
        assert_eq!(made, expect);
    }

    fn kana_17_hilv_8_hilv_9_a_file_too_large_keeps_the_message_out_and_one_of_another_type_itself(engine) {
        let office = Office::start(engine, &json!({ "preset": "highlevel-outlook" }));
        office.contact(CORA);
        let with_file = |name: &str, octets: usize| {
            // Each line of 76 characters is 57 octets (RFC 2045 section 6.8).
            let lines = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\n".repeat(octets / 57);
            let part = format!(
                "--b\n\nHello\n--b\nContent-Type: application/octet-stream; name={name}\n\
                 Content-Transfer-Encoding: base64\n\n{lines}--b--\n"
            );
            let letter = office.from(CORA).field("MIME-Version", "1.0");
            letter.field("Content-Type", "multipart/mixed; boundary=b").text(&part)
        };
        let max = 3 * 1024 * 1024;
        assert_ruled(&office.receives(&with_file("offer.pdf", max)), "synced", "contact_wrote");
        assert_ruled(&office.receives(&with_file("offer.pdf", max + 114)), "skipped", "attachment");
        let [shown] = &office.world.crm.messages()[..] else { panic!("one message") };
        assert_eq!(shown["attachments"][0]["size"], max / 57 * 57);
        let foreign = office.receives(&with_file("offer.exe", 114));
        assert_ruled(&foreign, "synced", "contact_wrote");
        let shown = office.world.crm.get(&format!("/messages/{}", text(&foreign, "message_id")));
        assert_eq!(shown["attachments"][0]["skipped"]["reason"], "type");
    }

    fn real_11_real_14_only_mail_at_a_customers_primary_address_comes_in(engine) {
        let office = Office::start(engine, &json!({ "preset": "realpad" }));
        let other = "cora@home.example.test";
        office.world.crm.post("/contacts", &json!({ "email": CORA, "other_emails": [other] }));
        let eva = "eva@far.example.test";
        assert_ruled(&office.receives(&office.from(CORA)), "synced", "contact_wrote");
        assert_ruled(&office.receives(&office.from(other)), "skipped", "no_contact");
        assert_ruled(&office.files_sent(&office.to(CORA)), "synced", "wrote_to_contact");
        assert_ruled(&office.files_sent(&office.to(other)), "skipped", "no_contact");
        assert_ruled(&office.files_sent(&office.to(eva).cc(&[CORA])), "synced", "wrote_to_contact");
        assert_ruled(&office.files_sent(&office.to(eva).cc(&[other])), "skipped", "no_contact");
        assert_ruled(&office.receives(&office.from(eva).cc(&[CORA])), "synced", "contact_copied");
        assert_eq!(office.world.crm.messages().len(), 4);
    }

    fn faq_16_at_gmail_bulk_mail_never_leaves_by_the_users_account(engine) {
        let office = Office::start(engine, &json!({ "preset": "kaname-gmail" }));
        office.world.set_smarthost();
        let bob = office.world.customer(1);
        let key = office.world.smtp_key();
        for class in ["bulk", "workflow", "individual"] {
            let letter = office.to(&bob.address).field("X-Mailweave-Class", class);
            office.world.hand_in(&office.ann, &key, &[&bob.address], &letter).unwrap();
            let sent = office.world.crm.await_mail("message.sent", &letter.id);
            let by = if class == "individual" { json!(office.account) } else { Value::Null };
            assert_eq!(sent["data"]["account_id"], by, "{class}");
        }
    }

    fn real_8_real_9_real_15_what_was_synced_stays_when_it_is_deleted_in_the_mailbox(engine) {
        let office = Office::start(engine, &json!({ "preset": "realpad" }));
        let cora = office.contact(CORA);
        let letter = office.from(CORA);
        // Asked for: the next look by itself is ten minutes away at least.
        assert_ruled(&office.receives(&letter), "synced", "contact_wrote");
        let mut imap = office.world.dovecot.login(&office.ann.person);
        imap.expect("SELECT INBOX");
        imap.expect("STORE 1:* +FLAGS (\\Deleted)");
        imap.expect("EXPUNGE");
        assert_eq!(imap.messages("INBOX").len(), 0);
        // The deletion has been seen once the next mail is.
        assert_ruled(&office.receives(&office.from(CORA)), "synced", "contact_wrote");
        office.world.gateway.settle();
        let shown = message(&office, &letter);
        assert!(text(&shown, "text").contains("This is what number"));
        let raw = office.world.crm.text(&format!("/messages/{}/raw", text(&shown, "id")));
        assert!(raw.contains(&letter.id));
        assert_eq!(timeline(&office.world.crm, &cora).len(), 2);
    }

    fn kana_8_mail_stays_out_of_a_workspace_in_which_the_contact_is_nobodys(engine) {
        let world = Sandboxed::start(engine, mailweave::sandbox::Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let other = world.gateway.crm("zenith").settle_in();
        let there = User::add(&other, ann.person.clone(), "Ann Lee");
        let (imap, smtp) = (endpoint(world.running.imap, "none"), endpoint(world.running.submission, "none"));
        for (crm, user, assigned) in [(&world.crm, &ann, json!(ann.id)), (&other, &there, Value::Null)] {
            crm.put("/policy", &json!({ "preset": "kaname-gmail" }));
            crm.post("/contacts", &json!({ "email": bob.address, "assigned_user_id": assigned }));
            let account = user.connect(crm, &imap, &smtp);
            crm.await_account(&account);
        }
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        let inbox = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        world.provider().deliver(&inbox, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        world.crm.await_mail("message.received", &letter.id);
        let mut decided = Vec::new();
        wait_for("the other workspace to have decided", PATIENCE, || {
            decided = other.list(&format!("/decisions?rfc822_message_id={}", letter.id));
            !decided.is_empty()
        });
        assert_ruled(&decided[0], "skipped", "not_assigned");
        assert_eq!((other.list("/conversations").len(), world.crm.list("/conversations").len()), (0, 1));
    }
}
