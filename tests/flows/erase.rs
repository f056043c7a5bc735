//! Accounts that are erased while something stands in the way, or while others have their share in what goes.
//!
//! Not here: what erasing takes when nothing does (`life`), and what the tables are like after it (`store`'s own tests).

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    life::{Desk, lies_in, login, noise},
    support::{PATIENCE, wait_for},
    world::{User, endpoint},
};

impl Desk {
    fn colleague(&self) -> (User, String) {
        let ben = self.world.user("ben", "Ben Low");
        let account = self.world.connect(&ben);
        self.world.crm.await_account(&account);
        (ben, account)
    }

    /// A letter to Ann and her colleague. Whoever is named first gets it first, and it is sealed under the key of his account.
    fn both_get(&self, letter: &Letter, [first, second]: [&User; 2]) -> String {
        self.arrives(&first.person, letter);
        let told = self.world.crm.await_mail("message.received", &letter.id);
        let path = format!("/messages/{}", text(&told["data"], "message_id"));
        self.arrives(&second.person, letter);
        let seen = || self.world.crm.get(&path)["sightings"].as_array().unwrap().len();
        wait_for("the second copy", PATIENCE, || seen() == 2);
        path
    }

    fn erase(&self, account: &str) {
        let path = format!("/accounts/{account}/disconnect");
        self.world.crm.post(&path, &json!({ "history": "erase" }));
    }

    #[track_caller]
    fn await_erased(&self, account: &str) -> Value {
        self.world.crm.await_event("account.erased", |data| data["account_id"] == account)
    }

    /// Lets time pass until it is erased.
    fn hasten_erasing(&self) {
        wait_for("the account to be erased", PATIENCE, || {
            self.world.gateway.hasten();
            self.world.crm.get(&self.path(""))["status"]["state"] == "erased"
        });
    }

    /// Files with content too large for a row.
    fn content_files(&self) -> Vec<PathBuf> {
        let blobs = self.world.gateway.places()[0].join("data").join("blobs");
        let inside = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        inside(blobs).flat_map(inside).collect()
    }
}

fn word(name: &str) -> String {
    format!("{name}{}", uuid::Uuid::new_v4().simple())
}

both! {
    fn keap_11_content_that_others_have_outlives_files_that_are_away_for_a_while(engine) {
        let desk = Desk::start(engine);
        let (ben, _) = desk.colleague();
        let letter = Letter::new(&desk.bob.address, &[&desk.ann.person.address, &ben.person.address])
            .text(&format!("For both of you.\n{}", noise(600_000)));
        let path = desk.both_get(&letter, [&desk.ann, &ben]);
        // The colleague's own copy came to nothing and is not swept yet: nobody knows from outside which is whose.
        let files: Vec<_> = desk.content_files().into_iter().map(|file| (file.with_extension("away"), file)).collect();
        assert!(!files.is_empty());
        for (away, file) in &files {
            std::fs::rename(file, away).unwrap();
        }

        desk.erase(&desk.account);
        wait_for("the erasure to have failed", PATIENCE, || {
            desk.world.gateway.count("select count(*) from jobs where kind = 'erase' and failures > 0") == 1
        });
        assert_eq!(desk.world.crm.get(&desk.path(""))["status"]["state"], "erasing");
        for (away, file) in &files {
            std::fs::rename(away, file).unwrap();
        }
        desk.hasten_erasing();
        let told = desk.await_erased(&desk.account);
        assert_eq!(told["data"]["receipt"]["messages_kept"], 1);
        assert!(text(&desk.world.crm.get(&path), "text").contains("For both of you."));
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn keap_11_content_that_is_lost_for_good_keeps_no_account_from_being_erased(engine) {
        let desk = Desk::start(engine);
        let (ben, _) = desk.colleague();
        let letter = Letter::new(&desk.bob.address, &[&desk.ann.person.address, &ben.person.address])
            .text(&noise(600_000));
        desk.both_get(&letter, [&desk.ann, &ben]);
        for file in desk.content_files() {
            std::fs::remove_file(file).unwrap();
        }
        desk.erase(&desk.account);
        // As if it had been tried for a day.
        desk.world.gateway.execute("update jobs set failures = 12 where kind = 'erase'");
        desk.hasten_erasing();
        desk.await_erased(&desk.account);
        assert_eq!(desk.world.gateway.count("select count(*) from messages"), 1);
    }

    fn keap_11_shsp_8_the_last_to_go_takes_what_another_has_brought(engine) {
        let desk = Desk::start(engine);
        let (ben, account) = desk.colleague();
        let gone = word("Vergessen");
        let letter = Letter::new(&desk.bob.address, &[&desk.ann.person.address, &ben.person.address])
            .id(&format!("{gone}@{gone}.example.test"))
            .subject(&format!("{gone} in the subject"))
            .text(&format!("{gone} in the text\n"));
        let path = desk.both_get(&letter, [&ben, &desk.ann]);
        desk.erase(&account);
        desk.await_erased(&account);
        assert!(text(&desk.world.crm.get(&path), "text").contains(&gone));
        desk.erase(&desk.account);
        desk.await_erased(&desk.account);
        desk.world.gateway.settle();
        assert_eq!(desk.world.crm.ask(&path).status, 404);
        assert!(!desk.world.crm.everything().contains(&gone));
        assert_eq!(lies_in(&desk.world, engine, &gone), Vec::<String>::new());
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn shsp_8_answers_kept_for_who_asks_again_say_nothing_of_what_was_erased(engine) {
        let desk = Desk::start(engine);
        let crm = &desk.world.crm;
        let gone = word("vergessen");
        let other = desk.world.person(&format!("{gone}@acme.example"));
        let new = json!({
            "user_id": desk.ann.id,
            "email": other.address,
            "imap": endpoint(desk.world.running.imap, "none"),
            "smtp": endpoint(desk.world.running.submission, "none"),
            "auth": login(&other),
        });
        let created = crm.try_post_once("/accounts", &new, "create");
        assert_eq!(created.status, 201, "{created:?}");
        let account = text(&created.body, "id").to_owned();
        crm.await_account(&account);
        let path = |verb: &str| format!("/accounts/{account}/{verb}");
        assert_eq!(crm.try_post_once(&path("pause"), &json!({}), "pause").status, 200);
        assert_eq!(crm.try_post_once(&path("resume"), &json!({}), "resume").status, 200);
        crm.await_account(&account);
        assert_eq!(crm.try_post_once(&path("sync"), &json!({}), "sync").status, 202);
        // Two of its mails, parted by hand.
        let first = Letter::new(&desk.bob.address, &[&other.address]).subject(&format!("{gone} plans"));
        let second = Letter::new(&desk.bob.address, &[&other.address])
            .subject(&format!("{gone} plans"))
            .answering(&first.id);
        desk.arrives(&other, &first);
        let told = crm.await_mail("message.received", &first.id);
        desk.arrives(&other, &second);
        let leaving = crm.await_mail("message.received", &second.id);
        let split = format!("/conversations/{}/split", text(&told["data"], "conversation_id"));
        let parting = json!({ "message_ids": [leaving["data"]["message_id"]] });
        let parted = crm.try_post_once(&split, &parting, "split");
        assert_eq!((parted.status, text(&parted.body, "subject")), (201, &*format!("{gone} plans")), "{parted:?}");

        let erasing = crm.try_post_once(&path("disconnect"), &json!({ "history": "erase" }), "disconnect");
        assert_eq!(erasing.status, 200, "{erasing:?}");
        desk.await_erased(&account);
        desk.world.gateway.settle();
        assert_eq!(lies_in(&desk.world, engine, &gone), Vec::<String>::new());
        // Who asks again is answered as he was, and no other account is made.
        for (path, body, key, before) in [
            ("/accounts".to_owned(), &new, "create", &created),
            (path("disconnect"), &json!({ "history": "erase" }), "disconnect", &erasing),
        ] {
            let again = crm.try_post_once(&path, body, key);
            assert_eq!((again.status, &again.body["id"]), (before.status, &before.body["id"]), "{again:?}");
            assert!(!again.body.to_string().contains(&gone), "{again:?}");
        }
        assert_eq!(crm.try_post_once(&split, &parting, "split").status, 404);
        assert_eq!(crm.list("/accounts").len(), 2);
    }
}
