//! Accounts that log in with access tokens, at servers that ask the provider about each (RFC 7662).
//!
//! Not here: who renews a token and when (`sync`).

use std::time::Duration;

use mailweave::config::{Config, DomainName, Endpoint, GrantBy};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    support::{
        PATIENCE, Person,
        dovecot::Options,
        sign_in::{Fault, PROVIDER, SignInServer},
        store::Engine,
        wait_for,
    },
    world::{User, World, endpoint},
};

/// Ann at a provider that wants tokens, and a customer of hers.
struct Desk {
    world: World,
    server: SignInServer,
    ann: User,
    bob: Person,
}

impl Desk {
    fn start(engine: Engine, adjust: impl FnOnce(&mut Config)) -> Self {
        let server = SignInServer::start();
        let options =
            Options { users: 8, introspection: Some(server.url("introspect")), ..Options::default() };
        let registration = server.registration();
        let world = World::at(engine, options, |config| {
            config.oauth.0.insert(PROVIDER.to_owned(), registration);
            adjust(config);
        });
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        Self { world, server, ann, bob }
    }

    fn address(&self) -> &str {
        &self.ann.person.address
    }

    /// What a program does that has the user's consent already.
    fn auth(&self) -> Value {
        json!({ "type": "oauth2", "provider": PROVIDER, "refresh_token": self.server.consent(self.address()) })
    }

    fn order(&self, auth: &Value) -> Value {
        json!({
            "user_id": self.ann.id,
            "email": self.address(),
            "imap": endpoint(self.world.dovecot.imaps, "tls"),
            "smtp": endpoint(self.world.postfix.submission, "starttls"),
            "auth": auth,
        })
    }

    fn connect(&self) -> String {
        let account = text(&self.world.crm.post("/accounts", &self.order(&self.auth())), "id").to_owned();
        self.world.crm.await_account(&account);
        account
    }

    /// Mail from Bob, which is to reach the CRM.
    fn bob_writes(&self) {
        let letter = Letter::new(&self.bob.address, &[self.address()]);
        self.world
            .dovecot
            .deliver(&self.bob.address, &self.ann.person, &letter.raw().replace('\n', "\r\n"))
            .unwrap();
        self.world.crm.await_mail("message.received", &letter.id);
    }

    fn ann_writes(&self, subject: &str) -> String {
        let body = json!({ "from_user_id": self.ann.id, "to": [{ "email": self.bob.address }], "subject": subject, "text": "Hello" });
        text(&self.world.crm.post("/messages", &body), "id").to_owned()
    }

    fn errors(&self, account: &str) -> Vec<Value> {
        self.world.crm.list(&format!("/accounts/{account}/errors"))
    }
}

both! {
    fn an_account_is_read_and_sent_by_with_tokens_and_their_ends_are_not_noticed(engine) {
        let desk = Desk::start(engine, |_| {});
        let account = desk.connect();
        assert_eq!(desk.server.renewals(), 1);
        desk.bob_writes();
        let sent = desk.ann_writes("One");
        desk.world.crm.await_delivery(&sent, "sent");
        assert_eq!(desk.server.renewals(), 1, "one token does for all");
        // In the middle of IDLE: the session lives on, and the next login is with another token.
        desk.server.expire(desk.address());
        desk.bob_writes();
        let sent = desk.ann_writes("Two");
        desk.world.crm.await_delivery(&sent, "sent");
        assert_eq!(desk.server.renewals(), 2);
        desk.server.expire(desk.address());
        desk.world.crm.post(&format!("/accounts/{account}/pause"), &json!({}));
        desk.world.crm.post(&format!("/accounts/{account}/resume"), &json!({}));
        wait_for("another login", PATIENCE, || desk.server.renewals() == 3);
        desk.bob_writes();
        assert_eq!(desk.errors(&account), Vec::<Value>::new());
        assert_eq!(desk.world.crm.events_of("account.error"), Vec::<Value>::new());
        assert_eq!(desk.server.refused(), 0);
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn a_withdrawn_permission_stops_an_account_until_its_user_signs_in_again(engine) {
        let desk = Desk::start(engine, |_| {});
        let account = desk.connect();
        let path = format!("/accounts/{account}");
        desk.server.revoke(desk.address());
        let held = desk.ann_writes("Held");
        desk.world.crm.await_event("account.reauth_required", |data| data["account_id"] == account.as_str());
        let status = desk.world.crm.get(&path)["status"].clone();
        assert_eq!(text(&status, "state"), "reauth_required");
        assert!(text(&status, "advice").contains("connect link"), "{status}");
        desk.world.crm.await_delivery(&held, "held");
        desk.world.crm.patch(&path, &json!({ "auth": desk.auth() }));
        desk.world.crm.await_account(&account);
        desk.world.crm.await_delivery(&held, "sent");
        desk.bob_writes();
        // Nothing of a grant is left of an account that was parted from.
        desk.world.crm.post(&format!("{path}/disconnect"), &json!({ "history": "keep" }));
        assert_eq!(desk.world.gateway.count("select count(*) from grants"), 0);
        wait_for("the grant to be given back", PATIENCE, || desk.server.given_back() == 1);
    }

    fn that_good_tokens_are_turned_away_for_a_while_stops_neither_reading_nor_sending(engine) {
        let desk = Desk::start(engine, |_| {});
        let account = desk.connect();
        desk.server.set_out_of_order(true);
        let message = desk.ann_writes("Soon");
        desk.world.crm.await_delivery(&message, "deferred");
        let shown = desk.world.crm.get(&format!("/accounts/{account}"));
        assert!(shown["status"]["state"] != "reauth_required" && shown["status"]["detail"].is_null(), "{shown}");
        assert!(desk.errors(&account).iter().any(|error| error["code"] == "refused"), "{:?}", desk.errors(&account));
        // Since it is refused, not since there was something to send.
        desk.world.gateway.settle();
        desk.world.gateway.execute("update jobs set created_at = created_at - 21600000000");
        desk.world.gateway.execute("update jobs set attempt = 90");
        desk.world.gateway.hasten();
        wait_for("another try", PATIENCE, || {
            desk.world.gateway.count("select count(*) from jobs where kind = 'submit' and attempt > 90 and leased_until is null") == 1
        });
        assert_eq!(text(&desk.world.crm.get(&format!("/messages/{message}"))["delivery"], "state"), "deferred");
        desk.server.set_out_of_order(false);
        desk.world.gateway.hasten();
        desk.world.crm.await_delivery(&message, "sent");
        // What is said for hours is believed.
        desk.server.set_out_of_order(true);
        let message = desk.ann_writes("Late");
        desk.world.crm.await_delivery(&message, "deferred");
        desk.world.gateway.settle();
        desk.world.gateway.execute("update grants set unwelcome_since = unwelcome_since - 21600000000");
        desk.world.gateway.hasten();
        desk.world.crm.await_delivery(&message, "held");
        // Reading logs in anew, and its own doubts have only begun.
        wait_for("reading to be refused", PATIENCE, || {
            let shown = desk.world.crm.get(&format!("/accounts/{account}"));
            shown["status"]["state"] == "error" && shown["status"]["detail"].as_str().is_some_and(|text| text.contains("refused"))
        });
        assert_eq!(desk.world.crm.events_of("account.reauth_required").len(), 0);
        desk.server.set_out_of_order(false);
        desk.world.crm.post(&format!("/accounts/{account}/resume"), &json!({}));
        desk.world.crm.await_delivery(&message, "sent");
    }

    fn a_withdrawn_permission_is_noticed_though_nobody_uses_it(engine) {
        let desk = Desk::start(engine, |_| {});
        desk.server.tokens_last(Duration::from_secs(4));
        let account = desk.connect();
        desk.server.revoke(desk.address());
        desk.world.crm.await_event("account.reauth_required", |data| data["account_id"] == account.as_str());
    }

    fn what_a_renewal_brings_for_an_account_that_was_disconnected_is_given_back(engine) {
        let desk = Desk::start(engine, |_| {});
        desk.server.tokens_last(Duration::from_secs(4));
        let account = desk.connect();
        let asked = desk.server.asked();
        desk.server.fail(Fault::Linger(Duration::from_secs(2)));
        wait_for("a renewal", PATIENCE, || desk.server.asked() > asked);
        desk.world.crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "keep" }));
        // What it was renewed with is spent: giving that back ends nothing.
        wait_for("the renewed grant to be given back", PATIENCE, || {
            desk.server.good(desk.address()) == 0 && desk.world.gateway.count("select count(*) from parted_grants") == 0
        });
        assert_eq!(desk.world.gateway.count("select count(*) from grants"), 0);
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn whoever_waits_long_for_his_turn_logs_in_with_a_token_that_is_good(engine) {
        let desk = Desk::start(engine, |config| config.sync.connections_per_second = 1);
        desk.server.tokens_last(Duration::from_secs(4));
        for number in 2..8 {
            let user = desk.world.user(number, "Somebody");
            let token = desk.server.consent(&user.person.address);
            let auth = json!({ "type": "oauth2", "provider": PROVIDER, "refresh_token": token });
            let order = json!({ "user_id": user.id, "email": user.person.address, "auth": auth });
            let servers = desk.order(&auth);
            let order = [("imap", &servers["imap"]), ("smtp", &servers["smtp"])].into_iter().fold(order, |mut order, (name, server)| {
                order[name] = server.clone();
                order
            });
            desk.world.crm.post("/accounts", &order);
        }
        wait_for("all to be read", PATIENCE, || desk.world.crm.events_of("account.connected").len() == 6);
        assert_eq!(desk.server.turned_away(), 0);
    }

    fn an_admin_grants_a_domain_to_the_workspaces_that_are_named(engine) {
        let directory = tempfile::tempdir().unwrap();
        let key_file = key_of_a_service(directory.path());
        let mut desk = Desk::start(engine, |config| {
            let provider = config.oauth.0.get_mut(PROVIDER).unwrap();
            provider.grant = GrantBy::ServiceAccount;
            provider.service_account_file = Some(key_file);
            provider.domains = vec![DomainName::parse(&Options::default().domain).unwrap()];
            provider.workspaces = vec!["acme".to_owned()];
        });
        let auth = json!({ "type": "oauth2", "provider": PROVIDER });
        // The tokens are for the provider's own servers, which the operator has not named.
        let order = desk.order(&auth);
        let refused = desk.world.crm.try_post("/accounts", &order);
        assert_eq!((refused.status, &refused.body["param"]), (422, &json!("imap")), "{refused:?}");
        let (imap, smtp) = (desk.world.dovecot.imaps, desk.world.postfix.submission);
        desk.world.gateway.restart(|config| {
            let provider = config.oauth.0.get_mut(PROVIDER).unwrap();
            provider.imap = Endpoint::parse(&format!("tls://127.0.0.1:{}", imap.port()));
            provider.smtp = Endpoint::parse(&format!("starttls://127.0.0.1:{}", smtp.port()));
        });
        desk.world.crm = desk.world.gateway.crm("acme");
        let mine = json!({ "user_id": desk.ann.id, "email": desk.address(), "auth": auth });
        let account = text(&desk.world.crm.post("/accounts", &mine), "id").to_owned();
        desk.world.crm.await_account(&account);
        desk.bob_writes();
        let sent = desk.ann_writes("By the admin's grant");
        desk.world.crm.await_delivery(&sent, "sent");
        // Nobody's else: not of another domain, not for another workspace, not at a server of the caller's choice.
        let crm = &desk.world.crm;
        let elsewhere = json!({ "user_id": desk.ann.id, "email": desk.bob.address, "auth": auth });
        assert_eq!(crm.try_post("/accounts", &elsewhere).status, 403);
        let theirs = json!({ "imap": endpoint(desk.world.postfix.mx, "none"), "auth": auth });
        assert_eq!(crm.try_patch(&format!("/accounts/{account}"), &theirs).status, 422);
        let other = desk.world.gateway.crm("other").settle_in();
        let eve = User::add(&other, desk.world.dovecot.user(2), "Eve");
        let hers = json!({ "user_id": eve.id, "email": eve.person.address, "auth": auth });
        assert_eq!(other.try_post("/accounts", &hers).status, 403);
        // Whom the operator names no more has it no more, connected or not.
        desk.world.gateway.restart(|config| {
            config.oauth.0.get_mut(PROVIDER).unwrap().workspaces = vec!["other".to_owned()];
        });
        desk.world.crm = desk.world.gateway.crm("acme");
        let mut status = Value::Null;
        wait_for("the account to be refused its token", PATIENCE, || {
            status = desk.world.crm.get(&format!("/accounts/{account}"))["status"].clone();
            status["state"] == "error"
        });
        assert!(text(&status, "detail").contains("does not cover this account"), "{status}");
    }
}

/// The JSON that a provider gives out for a service account, with a key that nothing else uses.
fn key_of_a_service(directory: &std::path::Path) -> std::path::PathBuf {
    use crate::support::server::{output, program};
    let mut openssl = std::process::Command::new(program("openssl"));
    let key = output(openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]));
    let file = directory.join("service.json");
    let text =
        json!({ "client_email": "gateway@service.example", "private_key_id": "1", "private_key": key });
    std::fs::write(&file, text.to_string()).unwrap();
    file
}
