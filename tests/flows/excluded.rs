//! Providers that policy leaves out: refused when an account is connected, and left alone once their servers say what they are.
//!
//! Not here: which words tell a provider (`core::provider`).

use mailweave::sandbox::{Act, Behaviour, Service, Trigger};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Answer, text},
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, dovecot::Options, sign_in::SignInServer, wait_for},
    world::{User, World, endpoint},
};

const EXCHANGE: &str = "OK The Microsoft Exchange IMAP4 service is ready.";

fn body(world: &Sandboxed, user: &User, provider: Option<&str>) -> Value {
    let Person { address, password } = &user.person;
    json!({
        "user_id": user.id,
        "email": address,
        "provider": provider,
        "imap": endpoint(world.running.imap, "none"),
        "smtp": endpoint(world.running.submission, "none"),
        "auth": { "type": "password", "username": address, "password": password },
    })
}

fn shown(world: &Sandboxed, account: &str) -> Value {
    world.crm.get(&format!("/accounts/{account}"))
}

fn await_state(world: &Sandboxed, account: &str, state: &str) -> Value {
    let mut found = Value::Null;
    wait_for(&format!("the account to be {state}"), PATIENCE, || {
        found = shown(world, account);
        found["status"]["state"] == state
    });
    found
}

#[track_caller]
fn assert_refused(answer: &Answer, param: &str) {
    let Answer { status, body } = answer;
    assert_eq!(
        (*status, text(body, "code"), text(body, "param")),
        (422, "provider_excluded", param),
        "{body}"
    );
    assert!(text(body, "detail").contains("Exchange on premise"), "{body}");
    assert!(text(body, "advice").contains("exclude_providers"), "{body}");
}

both! {
    fn keap_3_a_server_that_says_it_is_exchange_on_premise_is_left_out(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        world.crm.put("/policy", &json!({ "preset": "keap" }));
        world.provider().arm(Trigger::always(Service::Imap, "CONNECT"), Act::Answer(EXCHANGE.to_owned()));
        let account = text(&world.crm.post("/accounts", &body(&world, &ann, None)), "id").to_owned();
        let stopped = await_state(&world, &account, "stopped");
        assert_eq!(text(&stopped, "provider"), "exchange", "{stopped}");
        assert!(text(&stopped["status"], "detail").contains("Exchange on premise are left out"), "{stopped}");
        assert!(text(&stopped["status"], "advice").contains("exclude_providers"), "{stopped}");
        world.crm.await_event("account.stopped", |data| data["account_id"] == account.as_str());
        let errors = world.crm.list(&format!("/accounts/{account}/errors"));
        assert_eq!((errors.len(), text(&errors[0], "code")), (1, "provider_excluded"));
        assert_eq!(world.heard(Service::Imap, "SELECT").len() + world.heard(Service::Imap, "EXAMINE").len(), 0);
        let message = world.post_message(&ann, &[&bob.address], "One");
        world.crm.await_delivery(&message, "held");
        // Nobody gets past the policy by starting it again, and what it holds stays.
        let answer = world.crm.try_post(&format!("/accounts/{account}/resume"), &json!({}));
        assert_refused(&answer, "id");
        assert_eq!(shown(&world, &account)["status"]["state"], "stopped");
        assert_eq!(world.heard(Service::Submission, "MAIL"), Vec::<String>::new());

        // Its own words do: Exchange may be connected after all.
        world.crm.put("/policy", &json!({ "preset": "keap", "overrides": { "exclude_providers": [] } }));
        world.crm.post(&format!("/accounts/{account}/resume"), &json!({}));
        world.crm.await_account(&account);
        world.crm.await_delivery(&message, "sent");
        // Back to the preset: the account that is connected is left alone from its next look on.
        world.crm.put("/policy", &json!({ "preset": "keap", "overrides": {} }));
        world.crm.try_post(&format!("/accounts/{account}/sync"), &json!({}));
        await_state(&world, &account, "stopped");
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn keap_3_an_account_that_is_said_to_be_at_exchange_on_premise_is_refused(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        world.crm.put("/policy", &json!({ "preset": "keap" }));
        assert_refused(&world.crm.try_post("/accounts", &body(&world, &ann, Some("exchange"))), "provider");
        assert!(world.crm.list("/accounts").is_empty());
        // Every other server of Microsoft's kind can be connected, and elsewhere Exchange too.
        let account = text(&world.crm.post("/accounts", &body(&world, &ann, Some("microsoft"))), "id").to_owned();
        world.crm.await_account(&account);
        let path = format!("/accounts/{account}");
        world.crm.put("/policy", &json!({ "overrides": { "exclude_providers": ["microsoft"] } }));
        world.crm.try_post(&format!("{path}/sync"), &json!({}));
        await_state(&world, &account, "stopped");
        let auth = body(&world, &ann, None)["auth"].clone();
        let answer = world.crm.try_patch(&path, &json!({ "auth": auth }));
        assert_eq!((answer.status, text(&answer.body, "code")), (422, "provider_excluded"), "{answer:?}");
    }

    fn a_server_is_known_by_its_greeting_where_its_host_says_nothing(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        assert_eq!(world.crm.get(&format!("/accounts/{account}"))["provider"], "dovecot");
    }

    fn keap_3_and_keap_4_a_connect_link_leads_to_no_provider_that_is_left_out_and_says_what_works(engine) {
        let server = SignInServer::start();
        let registration = server.registration();
        let options = Options { introspection: Some(server.url("introspect")), ..Options::default() };
        let world = World::at(engine, options, |config| {
            config.oauth.0.insert("microsoft".to_owned(), registration);
        });
        let ann = world.user(1, "Ann Lee");
        let path = format!("/users/{}/connect-link", ann.id);
        let link = world.crm.post(&path, &json!({ "provider": "microsoft" }));
        let link = url::Url::parse(text(&link, "url")).unwrap().path().to_owned();
        let browse = |form: bool| {
            let url = format!("http://{}{link}", world.gateway.http());
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = match form {
                true => client.post(format!("{url}/microsoft")).header("Sec-Fetch-Site", "same-origin"),
                false => client.get(url),
            };
            world.gateway.runtime.block_on(async {
                let answer = request.send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            })
        };
        let (status, page) = browse(false);
        assert!(status == 200 && page.contains("mailboxes that Microsoft itself hosts"), "{page}");
        world.crm.put("/policy", &json!({ "overrides": { "exclude_providers": ["microsoft"] } }));
        let answer = world.crm.try_post(&path, &json!({ "provider": "microsoft" }));
        assert_eq!((answer.status, text(&answer.body, "param")), (422, "provider"), "{answer:?}");
        for form in [false, true] {
            let (status, page) = browse(form);
            assert!(status == 403 && page.contains("leaves out accounts at Microsoft"), "{page}");
        }
    }

    fn a_link_of_the_users_choice_offers_what_is_left_and_says_so_when_nothing_is(engine) {
        let server = SignInServer::start();
        let registration = server.registration();
        let options = Options { introspection: Some(server.url("introspect")), ..Options::default() };
        let world = World::at(engine, options, |config| {
            for name in ["google", "microsoft"] {
                config.oauth.0.insert(name.to_owned(), registration.clone());
            }
        });
        let ann = world.user(1, "Ann Lee");
        let link = world.crm.post(&format!("/users/{}/connect-link", ann.id), &json!({}));
        let path = url::Url::parse(text(&link, "url")).unwrap().path().to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (left_out, status, shows, hides) in [
            (vec![], 200, vec!["Google", "Microsoft"], vec![]),
            (vec!["microsoft"], 200, vec!["Google"], vec!["Microsoft"]),
            (vec!["google", "microsoft"], 403, vec!["leaves out accounts at Google"], vec![]),
        ] {
            world.crm.put("/policy", &json!({ "overrides": { "exclude_providers": left_out } }));
            let page = world.gateway.runtime.block_on(async {
                let answer = client.get(format!("http://{}{path}", world.gateway.http())).send().await.unwrap();
                (answer.status().as_u16(), answer.text().await.unwrap())
            });
            assert_eq!(page.0, status, "{left_out:?}: {}", page.1);
            assert!(shows.iter().all(|word| page.1.contains(word)), "{left_out:?}: {}", page.1);
            assert!(hides.iter().all(|word: &&str| !page.1.contains(word)), "{left_out:?}: {}", page.1);
        }
    }

    fn keap_4_who_cannot_get_in_at_microsoft_is_told_to_check_who_hosts_the_mailbox(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let no = Act::Answer("NO User is authenticated but not connected.".to_owned());
        for verb in ["LOGIN", "AUTHENTICATE"] {
            world.provider().arm(Trigger::always(Service::Imap, verb), no.clone());
        }
        let account = text(&world.crm.post("/accounts", &body(&world, &ann, Some("microsoft"))), "id").to_owned();
        let refused = await_state(&world, &account, "reauth_required");
        let advice = text(&refused["status"], "advice");
        assert!(advice.starts_with("This works only for mailboxes that Microsoft itself hosts"), "{advice}");
        assert!(advice.contains("check first who hosts"), "{advice}");
    }
}
