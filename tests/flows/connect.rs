//! Users who connect their own accounts at the page they were sent, at a provider where they sign in.
//!
//! Not here: what is done with the tokens afterwards (`tokens`).

use mailweave::config::Endpoint;
use serde_json::json;
use url::Url;

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    support::{
        PATIENCE, Person,
        dovecot::Options,
        sign_in::{Fault, ISSUER, PROVIDER, SignInServer},
        store::Engine,
        wait_for,
    },
    world::{User, World, endpoint},
};

/// Ann, who is to connect her account, and a customer of hers.
struct Desk {
    world: World,
    server: SignInServer,
    ann: User,
    bob: Person,
}

/// What a browser is shown.
#[derive(Debug)]
struct Shown {
    status: u16,
    text: String,
    /// What it is to bring back.
    cookie: Option<String>,
}

impl Desk {
    fn start(engine: Engine) -> Self {
        let server = SignInServer::start();
        let options = Options { introspection: Some(server.url("introspect")), ..Options::default() };
        let registration = server.registration();
        let mut world = World::at(engine, options, |config| {
            config.oauth.0.insert(PROVIDER.to_owned(), registration);
        });
        let (imap, smtp) = (world.dovecot.imaps, world.postfix.submission);
        world.gateway.restart(|config| {
            let provider = config.oauth.0.get_mut(PROVIDER).unwrap();
            provider.imap = Endpoint::parse(&format!("tls://127.0.0.1:{}", imap.port()));
            provider.smtp = Endpoint::parse(&format!("starttls://127.0.0.1:{}", smtp.port()));
        });
        world.crm = world.gateway.crm("acme");
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        Self { world, server, ann, bob }
    }

    /// The path of a page for Ann.
    fn link(&self) -> String {
        link(&self.world.crm, &self.ann)
    }

    /// How often her only account was given what may be another mailbox.
    fn generation(&self) -> i64 {
        self.world.gateway.count("select max(generation) from accounts")
    }

    /// What a browser does. A form is sent from where `site` says.
    fn browse(&self, path: &str, form_from: Option<&str>, cookie: Option<&str>) -> Shown {
        let base = self.world.gateway.http();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().unwrap();
        let url = format!("http://{base}{path}");
        let mut request = match form_from {
            Some(site) => client.post(&url).header("Sec-Fetch-Site", site),
            None => client.get(&url),
        };
        if let Some(cookie) = cookie {
            request = request.header("Cookie", cookie);
        }
        self.world.gateway.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let field =
                |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let cookie = field("set-cookie");
            let policy = field("content-security-policy").unwrap_or_default();
            assert!(policy.contains("default-src 'none'"), "{policy}");
            let cookie = cookie.map(|cookie| {
                assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
                cookie.split(';').next().unwrap().to_owned()
            });
            Shown { status: response.status().as_u16(), cookie, text: response.text().await.unwrap() }
        })
    }

    /// Ann presses the button: where she is sent, and the cookie of her browser.
    fn depart(&self, link: &str) -> (Url, String) {
        let sent = self.browse(&format!("{link}/{PROVIDER}"), Some("same-origin"), None);
        assert_eq!(sent.status, 200, "{sent:?}");
        let (_, to) = sent.text.split_once("content=\"0;url=").unwrap();
        let to = to.split('"').next().unwrap().replace("&amp;", "&");
        (Url::parse(&to).unwrap(), sent.cookie.unwrap())
    }

    /// She allows it as this person, and comes back.
    fn sign_in(&self, link: &str, as_who: &str, scopes: &str) -> Shown {
        let (asked, cookie) = self.depart(link);
        let (state, code) = self.server.allow(&asked, as_who, scopes);
        self.browse(&back(&[("state", &state), ("code", &code), ("iss", ISSUER)]), None, Some(&cookie))
    }

    /// Grants that are not given back yet.
    fn parted(&self) -> i64 {
        self.world.gateway.count("select count(*) from parted_grants")
    }

    fn bob_writes(&self) {
        let letter = Letter::new(&self.bob.address, &[&self.ann.person.address]);
        let raw = letter.raw().replace('\n', "\r\n");
        self.world.dovecot.deliver(&self.bob.address, &self.ann.person, &raw).unwrap();
        self.world.crm.await_mail("message.received", &letter.id);
    }

    fn ann_writes(&self, subject: &str) -> String {
        let body = json!({
            "from_user_id": self.ann.id, "to": [{ "email": self.bob.address }], "subject": subject, "text": "Hello"
        });
        text(&self.world.crm.post("/messages", &body), "id").to_owned()
    }

    #[track_caller]
    fn assert_nothing_connected(&self, shown: &Shown, status: u16, says: &str) {
        assert_eq!(shown.status, status, "{shown:?}");
        assert!(shown.text.contains(says), "{shown:?}");
        assert!(self.world.crm.list("/accounts").is_empty());
    }
}

/// The path of a page for a user.
fn link(crm: &Crm, user: &User) -> String {
    let made = crm.post(&format!("/users/{}/connect-link", user.id), &json!({}));
    Url::parse(text(&made, "url")).unwrap().path().to_owned()
}

fn back(pairs: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("/oauth/callback?{query}")
}

both! {
    fn real_13_and_shsp_3_a_user_connects_his_account_himself_and_mail_flows_both_ways(engine) {
        let desk = Desk::start(engine);
        let link = desk.link();
        let page = desk.browse(&link, None, None);
        assert_eq!(page.status, 200);
        for says in [desk.ann.person.address.as_str(), "asks to work with the mailbox", "Sign in with provider"] {
            assert!(page.text.contains(says), "{says}: {}", page.text);
        }
        let done = desk.sign_in(&link, &desk.ann.person.address, "mail profile");
        assert!(done.status == 200 && done.text.contains("is connected"), "{done:?}");
        let account = desk.world.crm.list("/accounts").remove(0);
        assert_eq!((text(&account, "user_id"), text(&account["auth"], "type")), (desk.ann.id.as_str(), "oauth2"));
        desk.world.crm.await_account(text(&account, "id"));
        desk.bob_writes();
        let sent = desk.ann_writes("Offer");
        desk.world.crm.await_delivery(&sent, "sent");
        // It is good once.
        assert_eq!(desk.browse(&link, None, None).status, 410);
        assert_eq!(desk.browse(&format!("{link}/{PROVIDER}"), Some("same-origin"), None).status, 410);
        assert_eq!(desk.browse("/connect/mwl_0", None, None).status, 404);
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn nobody_but_the_user_in_his_own_browser_connects_anything(engine) {
        let desk = Desk::start(engine);
        let (link, ann) = (desk.link(), desk.ann.person.address.clone());
        // A page of somebody else's cannot press the button.
        let shown = desk.browse(&format!("{link}/{PROVIDER}"), Some("cross-site"), None);
        desk.assert_nothing_connected(&shown, 403, "begun somewhere else");
        // A state that nobody began, and one that is brought by another browser.
        let shown = desk.browse(&back(&[("state", "0"), ("code", "0")]), None, None);
        desk.assert_nothing_connected(&shown, 400, "sign-in is over");
        let (asked, cookie) = desk.depart(&link);
        let (state, code) = desk.server.allow(&asked, &ann, "mail");
        let good = back(&[("state", &state), ("code", &code), ("iss", ISSUER)]);
        for other in [None, Some("mailweave_sign_in=0")] {
            desk.assert_nothing_connected(&desk.browse(&good, None, other), 403, "begun somewhere else");
        }
        // From another provider than the one it was begun at; then the state is good no more.
        let mixed_up = back(&[("state", &state), ("code", &code), ("iss", "https://evil.example")]);
        let shown = desk.browse(&mixed_up, None, Some(&cookie));
        desk.assert_nothing_connected(&shown, 502, "did not confirm");
        let shown = desk.browse(&good, None, Some(&cookie));
        desk.assert_nothing_connected(&shown, 400, "sign-in is over");
        // From one that does not say who it is, though this provider always does.
        let (asked, cookie) = desk.depart(&link);
        let (state, code) = desk.server.allow(&asked, &ann, "mail");
        let shown = desk.browse(&back(&[("state", &state), ("code", &code)]), None, Some(&cookie));
        desk.assert_nothing_connected(&shown, 502, "did not confirm");
        // A code that was meant for another sign-in.
        let (first, _) = desk.depart(&link);
        let (_, stolen) = desk.server.allow(&first, &ann, "mail");
        let (asked, cookie) = desk.depart(&link);
        let (state, _) = desk.server.allow(&asked, &ann, "mail");
        let brought = back(&[("state", &state), ("code", &stolen), ("iss", ISSUER)]);
        let shown = desk.browse(&brought, None, Some(&cookie));
        desk.assert_nothing_connected(&shown, 502, "did not confirm");
        // The same user of the same link is not kept from it.
        assert!(desk.sign_in(&link, &ann, "mail").text.contains("is connected"));
    }

    fn kana_10_who_declines_or_grants_too_little_or_signs_in_as_another_is_told_so(engine) {
        let desk = Desk::start(engine);
        let (link, ann) = (desk.link(), desk.ann.person.address.clone());
        let (asked, cookie) = desk.depart(&link);
        let (state, _) = desk.server.allow(&asked, &ann, "mail");
        let shown = desk.browse(&back(&[("state", &state), ("error", "access_denied"), ("iss", ISSUER)]), None, Some(&cookie));
        desk.assert_nothing_connected(&shown, 200, "did not allow");
        desk.assert_nothing_connected(&desk.sign_in(&link, &ann, "profile"), 200, "permissions are missing");
        let other = desk.world.dovecot.user(2).address;
        let shown = desk.sign_in(&link, &other, "mail");
        desk.assert_nothing_connected(&shown, 200, "That is another address");
        assert!(shown.text.contains(&other), "{shown:?}");
        // What was granted and is of no use is given back: too little once, and by the wrong person once.
        wait_for("both permissions to be given back", PATIENCE, || desk.server.given_back() == 2);
        // As an address of his own it will do.
        desk.world.crm.patch(&format!("/users/{}", desk.ann.id), &json!({ "aliases": [other] }));
        assert!(desk.sign_in(&link, &other, "mail").text.contains("is connected"));
    }

    fn an_account_whose_permission_was_withdrawn_goes_on_by_a_link(engine) {
        let desk = Desk::start(engine);
        let ann = desk.ann.person.address.clone();
        desk.sign_in(&desk.link(), &ann, "mail");
        let account = text(&desk.world.crm.list("/accounts").remove(0), "id").to_owned();
        desk.world.crm.await_account(&account);
        desk.server.revoke(&ann);
        let held = desk.ann_writes("Held");
        desk.world.crm.await_event("account.reauth_required", |data| data["account_id"] == account.as_str());
        desk.world.crm.await_delivery(&held, "held");
        assert!(desk.sign_in(&desk.link(), &ann, "mail").text.contains("is connected"));
        desk.world.crm.await_delivery(&held, "sent");
        desk.bob_writes();
        assert_eq!(desk.world.crm.list("/accounts").len(), 1);
    }

    fn a_permission_that_another_workspaces_account_lives_by_is_not_given_back(engine) {
        let desk = Desk::start(engine);
        let ann = desk.ann.person.address.clone();
        let beta = desk.world.gateway.crm("beta").settle_in();
        let ann_there = desk.world.user_in(&beta, 1, "Ann Lee");
        for (crm, user) in [(&desk.world.crm, &desk.ann), (&beta, &ann_there)] {
            assert!(desk.sign_in(&link(crm, user), &ann, "mail").text.contains("is connected"));
            crm.await_account(text(&crm.list("/accounts").remove(0), "id"));
        }
        let part = |crm: &Crm| {
            let account = text(&crm.list("/accounts").remove(0), "id").to_owned();
            crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "keep" }));
        };
        part(&desk.world.crm);
        beta.post("/contacts", &json!({ "email": desk.bob.address }));
        let letter = Letter::new(&desk.bob.address, &[&ann]);
        desk.world.dovecot.deliver(&desk.bob.address, &desk.ann.person, &letter.raw().replace('\n', "\r\n")).unwrap();
        beta.await_mail("message.received", &letter.id);
        assert_eq!(desk.server.given_back(), 0);
        part(&beta);
        wait_for("the permission to be given back", PATIENCE, || desk.server.given_back() == 1);
    }

    fn a_permission_of_no_use_is_not_given_back_where_the_same_person_lives_by_another(engine) {
        let desk = Desk::start(engine);
        let ann = desk.ann.person.address.clone();
        assert!(desk.sign_in(&desk.link(), &ann, "mail").text.contains("is connected"));
        let account = text(&desk.world.crm.list("/accounts").remove(0), "id").to_owned();
        desk.world.crm.await_account(&account);
        // Once more, and she takes a permission out this time.
        assert!(desk.sign_in(&desk.link(), &ann, "profile").text.contains("permissions are missing"));
        // Once more, whole: the former login is replaced, and the provider keeps what she granted.
        assert!(desk.sign_in(&desk.link(), &ann, "mail").text.contains("is connected"));
        desk.bob_writes();
        wait_for("the parted grants to be looked at", PATIENCE, || desk.parted() == 0);
        assert_eq!(desk.server.given_back(), 0);
    }

    fn a_permission_is_given_back_although_the_provider_fails_and_the_gateway_starts_anew(engine) {
        let mut desk = Desk::start(engine);
        desk.sign_in(&desk.link(), &desk.ann.person.address, "mail");
        let account = text(&desk.world.crm.list("/accounts").remove(0), "id").to_owned();
        desk.world.crm.await_account(&account);
        desk.server.fail(Fault::Status(503));
        desk.world.crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "keep" }));
        wait_for("the provider to fail", PATIENCE, || desk.server.not_taken_back() > 0);
        desk.world.gateway.restart(|_| {});
        assert_eq!(desk.parted(), 1);
        desk.server.fail(Fault::None);
        wait_for("the permission to be given back", PATIENCE, || {
            desk.world.gateway.hasten();
            desk.server.given_back() == 1
        });
        wait_for("it to be forgotten", PATIENCE, || desk.parted() == 0);
    }

    fn a_permission_is_given_back_when_the_account_goes_on_by_a_password(engine) {
        let desk = Desk::start(engine);
        desk.sign_in(&desk.link(), &desk.ann.person.address, "mail");
        let account = text(&desk.world.crm.list("/accounts").remove(0), "id").to_owned();
        desk.world.crm.await_account(&account);
        let Person { address, password, .. } = &desk.ann.person;
        let auth = json!({ "type": "password", "username": address, "password": password });
        desk.world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": auth }));
        wait_for("the permission to be given back", PATIENCE, || desk.server.given_back() == 1);
    }

    fn a_link_for_a_shared_mailbox_is_followed_by_whoever_signs_in_as_himself(engine) {
        let desk = Desk::start(engine);
        let (own, crm) = (desk.ann.person.address.clone(), &desk.world.crm);
        let shared = "sales@acme.example";
        // In this office it is opened under her own name.
        let mailbox = json!({ "email": shared, "sender": own, "imap_username": own });
        let path = format!("/users/{}/connect-link", desk.ann.id);
        let anns = crm.with_key(&crm.key(&["admin"], Some(&desk.ann.id)).1);
        assert_eq!(anns.try_post(&path, &json!({ "mailbox": mailbox })).status, 403);
        let foreign = json!({ "mailbox": { "email": shared, "sender": "ceo@acme.example" } });
        let foreign = crm.try_post(&path, &foreign);
        assert_eq!((foreign.status, text(&foreign.body, "param")), (422, "mailbox.sender"), "{foreign:?}");
        let link = || {
            let made = crm.post(&path, &json!({ "mailbox": mailbox }));
            Url::parse(text(&made, "url")).unwrap().path().to_owned()
        };
        let first = link();
        let page = desk.browse(&first, None, None);
        assert!([shared, own.as_str()].iter().all(|says| page.text.contains(says)), "{page:?}");
        let done = desk.sign_in(&first, &own, "mail");
        assert!(done.text.contains(&format!("{shared} is connected")), "{done:?}");
        let account = crm.list("/accounts").remove(0);
        assert_eq!((text(&account, "email"), text(&account, "sender")), (shared, own.as_str()));
        let auth = json!({ "type": "oauth2", "imap_username": own, "smtp_username": null });
        assert_eq!(account["auth"], auth);
        crm.await_account(text(&account, "id"));
        desk.bob_writes();
        // Another such link gives the same account its new login.
        assert!(desk.sign_in(&link(), &own, "mail").text.contains("is connected"));
        desk.bob_writes();
        assert_eq!(crm.list("/accounts").len(), 1);
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }

    fn a_link_gives_an_account_that_read_another_mailbox_its_own(engine) {
        let desk = Desk::start(engine);
        let (ann, shared) = (desk.ann.person.clone(), desk.world.dovecot.user(2));
        let account = json!({
            "user_id": desk.ann.id,
            "email": ann.address,
            "imap": endpoint(desk.world.dovecot.imaps, "tls"),
            "smtp": endpoint(desk.world.postfix.submission, "starttls"),
            "auth": { "type": "password", "username": shared.address, "password": shared.password },
        });
        let account = text(&desk.world.crm.post("/accounts", &account), "id").to_owned();
        desk.world.crm.await_account(&account);
        assert_eq!(desk.generation(), 0);
        desk.sign_in(&desk.link(), &ann.address, "mail");
        assert_eq!(desk.generation(), 1);
        desk.bob_writes();
        // The same person at the same address: nothing has moved.
        desk.sign_in(&desk.link(), &ann.address, "mail");
        assert_eq!(desk.generation(), 1);
        desk.server.hand_on(&ann.address);
        desk.sign_in(&desk.link(), &ann.address, "mail");
        assert_eq!(desk.generation(), 2);
        desk.bob_writes();
        assert_eq!(desk.world.crm.list("/accounts").len(), 1);
        assert_eq!(desk.world.gateway.audit(), Vec::<String>::new());
    }
}
