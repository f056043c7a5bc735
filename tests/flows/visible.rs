//! Who sees a message that came by one user's account, as the systems have it.
//!
//! Not here: every route (`tests/http/visibility`).

use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    sandboxed::Sandboxed,
    support::store::Engine,
    world::User,
};

/// Ann and Carl with an account each; Bob is a contact.
struct Office {
    world: Sandboxed,
    ann: User,
    carl: User,
    bob: String,
}

impl Office {
    fn start(engine: Engine, preset: &str) -> Self {
        let world = Sandboxed::start(engine, Behaviour::default());
        // What the preset says of polling and connecting is no matter here.
        let overrides = json!({
            "push": true,
            "poll_min": "0s",
            "poll_max": "5m",
            "connect_role": ["member", "admin"],
        });
        world.crm.put("/policy", &json!({ "preset": preset, "overrides": overrides }));
        let (ann, carl) = (world.user("ann", "Ann Lee"), world.user("carl", "Carl Zapp"));
        for user in [&ann, &carl] {
            let account = world.connect(user);
            world.crm.await_account(&account);
        }
        let contact = json!({ "email": "bob@prospects.example", "assigned_user_id": ann.id });
        let bob = text(&world.crm.post("/contacts", &contact), "id").to_owned();
        Self { world, ann, carl, bob }
    }

    /// Bob writes to a user, whose account brings it.
    fn bob_writes_to(&self, user: &User) -> Value {
        let letter = Letter::new("bob@prospects.example", &[&user.person.address]);
        let raw = letter.raw().replace('\n', "\r\n");
        let to = Address::parse(&user.person.address).unwrap();
        self.world.provider().deliver(&to, raw.as_bytes()).unwrap();
        self.world.crm.await_mail("message.received", &letter.id)["data"].clone()
    }

    /// Whether this user's key shows the message by itself.
    fn opens(&self, user: &User, message: &Value) -> bool {
        let crm: Crm = self.world.crm.as_user(&user.id);
        crm.ask(&format!("/messages/{}", text(message, "message_id"))).status == 200
    }

    /// Whether this user's key shows the message, by itself and on Bob's timeline. Not for what is about to change: it is asked twice.
    #[track_caller]
    fn sees(&self, user: &User, message: &Value) -> bool {
        let is_shown = self.opens(user, message);
        let timeline = self.world.crm.as_user(&user.id).list(&format!("/contacts/{}/timeline", self.bob));
        assert_eq!(timeline.iter().any(|shown| text(shown, "id") == text(message, "message_id")), is_shown);
        is_shown
    }
}

both! {
    fn keap_26_every_user_sees_the_whole_history(engine) {
        let office = Office::start(engine, "keap");
        let (to_ann, to_carl) = (office.bob_writes_to(&office.ann), office.bob_writes_to(&office.carl));
        for user in [&office.ann, &office.carl] {
            assert!(office.sees(user, &to_ann) && office.sees(user, &to_carl));
        }
    }

    fn kana_3_and_hilv_2_what_a_users_account_brings_is_his_and_other_users_are_unaffected(engine) {
        let office = Office::start(engine, "kaname-gmail");
        let to_ann = office.bob_writes_to(&office.ann);
        assert!(office.sees(&office.ann, &to_ann) && !office.sees(&office.carl, &to_ann));
        // By a setting of Carl's alone, which changes nothing for Ann.
        let policy = format!("/users/{}/policy", office.carl.id);
        let own = json!({ "preset": null, "overrides": { "visibility": "everyone", "require_assignment": false } });
        office.world.crm.put(&policy, &own);
        let to_carl = office.bob_writes_to(&office.carl);
        assert!(office.sees(&office.carl, &to_ann) && office.sees(&office.carl, &to_carl));
        assert!(office.sees(&office.ann, &to_ann) && !office.sees(&office.ann, &to_carl));
        // The CRM itself sees everything.
        assert_eq!(office.world.crm.messages().len(), 2);
    }

    fn real_3b_who_has_the_contact_sees_his_mail(engine) {
        let office = Office::start(engine, "realpad");
        let to_carl = office.bob_writes_to(&office.carl);
        let to_ann = office.bob_writes_to(&office.ann);
        assert!(office.sees(&office.ann, &to_carl) && office.sees(&office.ann, &to_ann));
        assert!(office.sees(&office.carl, &to_carl) && !office.sees(&office.carl, &to_ann));
    }

    fn an_account_that_is_erased_takes_its_users_view_of_shared_mail_with_it(engine) {
        let office = Office::start(engine, "mailweave");
        office.world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "visibility": "owner" } }));
        let letter = Letter::new("bob@prospects.example", &[&office.ann.person.address, &office.carl.person.address]);
        let raw = letter.raw().replace('\n', "\r\n");
        for user in [&office.ann, &office.carl] {
            let to = Address::parse(&user.person.address).unwrap();
            office.world.provider().deliver(&to, raw.as_bytes()).unwrap();
        }
        let message = office.world.crm.await_mail("message.received", &letter.id)["data"].clone();
        crate::support::wait_for("both to have seen it", crate::support::PATIENCE, || {
            office.opens(&office.ann, &message) && office.opens(&office.carl, &message)
        });
        let accounts = office.world.crm.list("/accounts");
        let account = accounts.iter().find(|account| account["user_id"] == office.ann.id.as_str()).unwrap();
        let account = text(account, "id").to_owned();
        office.world.crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "erase" }));
        office.world.crm.await_event("account.erased", |data| text(data, "account_id") == account);
        assert!(!office.sees(&office.ann, &message) && office.sees(&office.carl, &message));
    }
}
