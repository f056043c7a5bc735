//! What does not concern a contact leaves no byte on our disks, and what does is sealed there.
//!
//! Not here: which mail concerns a contact (`core::policy`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mailweave::core::policy::Preset;
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    support::{PATIENCE, wait_for},
    world::World,
};

/// Every file below a directory.
pub fn files(place: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut places = vec![place.to_owned()];
    while let Some(place) = places.pop() {
        // A server may remove what it no longer needs while we look.
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => places.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

/// The ways a word may stand in a file: as it is, in small letters, and in base64 wherever it begins.
fn forms(word: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![word.as_bytes().to_vec(), word.to_lowercase().into_bytes()];
    for shift in 0..3 {
        let shifted = [&b"xx"[..shift], word.as_bytes()].concat();
        let encoded = BASE64_STANDARD.encode(shifted).into_bytes();
        // The first and last groups also depend on what stands beside the word.
        forms.push(encoded[4..encoded.len() - 4].to_vec());
    }
    forms
}

/// Whether a word stands there in one of its forms.
pub fn stands_in(word: &str, bytes: &[u8]) -> bool {
    forms(word).iter().any(|form| memchr::memmem::find(bytes, form).is_some())
}

/// The files that hold one of these words in one of its forms.
pub fn holding(places: &[PathBuf], words: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for file in places.iter().flat_map(|place| files(place)) {
        let bytes = fs::read(&file).unwrap_or_default();
        for word in words {
            if stands_in(word, &bytes) {
                found.push((file.clone(), (*word).to_owned()));
            }
        }
    }
    found
}

both! {
    fn private_mail_leaves_no_byte_on_disk(engine) {
        // Private and synced words are random, since on PostgreSQL other tests' data lie beside ours.
        let word = |name: &str| format!("{name}{}", uuid::Uuid::new_v4().simple());
        let (private, synced) = (word("Geheimnis"), word("Angebot"));
        let world = World::start(engine);
        let (ann, ben, bob) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address, "name": synced }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);

        let friend = format!("{private}@friends.example.test");
        let secret = |from: &str, to: &str, number: u32| {
            let encoded = BASE64_STANDARD.encode(format!("The {private} in an attachment"));
            let text = format!(
                "--b\n\n{private} in the text\n--b\nContent-Type: application/pdf; name={private}.pdf\n\
                 Content-Transfer-Encoding: base64\n\n{encoded}\n--b--\n"
            );
            Letter::new(from, &[to])
                .id(&format!("{private}.{number}@clients.example.test"))
                .subject(&format!("{private} in the subject"))
                .field("MIME-Version", "1.0")
                .field("Content-Type", "multipart/mixed; boundary=b")
                .text(&text)
        };
        let ann_address = ann.person.address.as_str();
        let received = secret(&friend, ann_address, 1);
        let internal = secret(&ben.person.address, ann_address, 2);
        let newsletter = secret(&friend, ann_address, 3).field("List-Id", "<news.friends.example.test>");
        for letter in [&received, &internal, &newsletter] {
            world.dovecot.deliver(&friend, &ann.person, &letter.raw()).unwrap();
        }
        let sent = secret(ann_address, &friend, 4);
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &sent.raw());
        let letter = Letter::new(&bob.address, &[ann_address]).text(&format!("{synced} in the text\n"));
        world.client_sends(&bob, &[ann_address], &letter);

        world.crm.await_mail("message.received", &letter.id);
        for letter in [&received, &internal, &newsletter, &sent] {
            let path = format!("/decisions?rfc822_message_id={}", letter.id);
            wait_for(&path, PATIENCE, || world.crm.list(&path).len() == 1);
            let decision = world.crm.list(&path).swap_remove(0);
            assert_eq!((text(&decision, "verdict"), &decision["message_id"]), ("skipped", &Value::Null));
        }
        world.gateway.settle();
        let places = world.gateway.places();
        assert_eq!(holding(&places, &[&private]), []);
        // The search finds what is there: the contact's name is no secret of the disk's, the message is.
        assert!(!holding(&places, &[&synced]).is_empty());
        let in_the_text = format!("{synced} in the text");
        assert_eq!(holding(&places, &[&in_the_text, &ann.person.password]), []);
        assert!(!world.crm.everything().contains(&private));
        let shown = world.crm.messages();
        assert!(text(&shown[0], "text").contains(&in_the_text), "{shown:?}");
    }

    fn no_preset_lets_what_it_leaves_out_reach_the_disk(engine) {
        let private = format!("Geheimnis{}", uuid::Uuid::new_v4().simple());
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let friend = format!("{private}@friends.example.test");
        let secret = |from: &str, number: usize| {
            Letter::new(from, &[&ann.person.address])
                .id(&format!("{private}.{number}@clients.example.test"))
                .subject(&format!("{private} in the subject"))
                .text(&format!("{private} in the text\n"))
        };
        let mut number = 0;
        let mut is_left_out = |policy: &Value, from: &str| {
            number += 1;
            let letter = secret(from, number);
            world.crm.put("/policy", policy);
            world.dovecot.deliver(&friend, &ann.person, &letter.raw()).unwrap();
            world.crm.post(&format!("/accounts/{account}/sync"), &json!({}));
            let path = format!("/decisions?rfc822_message_id={}", letter.id);
            wait_for(&path, PATIENCE, || world.crm.list(&path).len() == 1);
            assert_eq!(text(&world.crm.list(&path)[0], "verdict"), "skipped", "{policy} {from}");
        };
        for preset in Preset::all() {
            is_left_out(&json!({ "preset": preset.name }), &friend);
        }
        // Mail of a contact, where that begins nothing, or where he is assigned to nobody.
        for preset in ["kaname-outlook", "kaname-gmail", "highlevel-outlook-labs-off"] {
            is_left_out(&json!({ "preset": preset }), &bob.address);
        }
        is_left_out(&json!({ "overrides": { "create_on": "exchange", "internal_rule": "none" } }), &friend);
        world.gateway.settle();
        assert_eq!(holding(&world.gateway.places(), &[&private]), []);
        assert!(!world.crm.everything().contains(&private));
        assert_eq!(world.crm.messages().len(), 0);
    }
}
