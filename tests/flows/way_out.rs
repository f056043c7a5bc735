//! Servers that refuse, rest or hang up: what waits is shown, and nobody is asked again and again.
//!
//! Not here: what a server says of a message (`delivery`), and lost answers (`doubt`).

use std::time::Duration;

use mailweave::sandbox::{Act, Behaviour, Service, Trigger};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, store::Engine, wait_for},
    world::accepted_id,
};

fn is_sighted_in_account(world: &Sandboxed, message: &str) -> bool {
    let sightings = world.crm.get(&format!("/messages/{message}"))["sightings"].clone();
    sightings.as_array().is_some_and(|seen| seen.iter().any(|one| one["via"] == "account"))
}

/// A session of the account holds the account first and the right to file after it: whoever takes the two in the other order
/// ends in a ring with it.
#[test]
fn a_refused_login_waits_for_the_account_before_it_keeps_others_from_filing() {
    let world = Sandboxed::start(Engine::Postgres, Behaviour::gmail());
    let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
    world.crm.await_account(&world.connect(&ann));
    let address = mailweave::mail::Address::parse(&ann.person.address).unwrap();
    world.provider().set_password(&address, "changed").unwrap();
    let mut session = world.gateway.connection();
    world.gateway.try_on(&mut session, "begin").unwrap();
    world.gateway.try_on(&mut session, "select id from accounts for share").unwrap();
    let message = world.post_message(&ann, &[&bob.address], "Hello");
    wait_for("the refusal to be written down", PATIENCE, || {
        world.gateway.count(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
             and query like 'select id from accounts %'",
        ) > 0
    });
    wait_for("the right to file", PATIENCE, || {
        let mut filing = world.gateway.connection();
        world.gateway.try_on(&mut filing, "select id from workspaces for no key update nowait").is_ok()
    });
    world.gateway.try_on(&mut session, "rollback").unwrap();
    world.crm.await_delivery(&message, "held");
}

/// A new login is being written down while the old one is refused.
#[test]
fn a_refusal_of_the_old_login_is_not_held_against_the_new_one() {
    let world = Sandboxed::start(Engine::Postgres, Behaviour::gmail());
    let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
    let account = world.connect(&ann);
    world.crm.await_account(&account);
    let mut change = world.gateway.connection();
    world.gateway.try_on(&mut change, "begin").unwrap();
    world.gateway.try_on(&mut change, "update accounts set state_since = state_since + 600000000").unwrap();
    world.provider().arm(Trigger::next(Service::Submission, "AUTH"), Act::Answer("535 5.7.8 Bad".to_owned()));
    let message = world.post_message(&ann, &[&bob.address], "Hello");
    wait_for("the refusal to be about to be written down", PATIENCE, || {
        world.gateway.count(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
             and query like '%accounts%'",
        ) > 0
    });
    world.gateway.try_on(&mut change, "commit").unwrap();
    world.crm.await_delivery(&message, "deferred");
    let shown = world.crm.get(&format!("/accounts/{account}"));
    assert!(shown["status"]["detail"].is_null() && shown["status"]["state"] != "reauth_required", "{shown}");
}

both! {
    fn a_provider_that_takes_no_mail_of_an_account_is_read_all_the_same(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let shown = || world.crm.get(&format!("/accounts/{account}"))["status"].clone();
        for (said, code) in [
            ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant", "not_enabled"),
            ("535 5.7.8 Application-specific password required", "credentials"),
        ] {
            world.provider().clear_ledger();
            world.provider().arm(Trigger::always(Service::Submission, "AUTH"), Act::Answer(said.to_owned()));
            let told = world.crm.events_of("account.error").len();
            let first = world.post_message(&ann, &[&bob.address], "One");
            let held = world.crm.await_delivery(&first, "held");
            assert!(text(&held["delivery"], "detail").contains("login"), "{held}");
            assert!(text(&shown(), "detail").contains("none can be sent"), "{}", shown());
            assert!(text(&shown(), "advice").contains("resume"), "{}", shown());
            assert_eq!(world.crm.events_of("account.error").len(), told + 1);
            let log = world.crm.list(&format!("/accounts/{account}/errors"));
            assert!(log.iter().any(|error| error["code"] == code), "{log:?}");
            // Nobody tries again before somebody acts.
            let second = world.post_message(&ann, &[&bob.address], "Two");
            world.crm.await_delivery(&second, "held");
            assert_eq!(world.heard(Service::Submission, "AUTH").len(), 1);
            // It is read on meanwhile.
            let letter = Letter::new(&bob.address, &[&ann.person.address]);
            let to = mailweave::mail::Address::parse(&ann.person.address).unwrap();
            world.provider().deliver(&to, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
            world.crm.await_mail("message.received", &letter.id);
            assert_eq!((text(&shown(), "state"), world.crm.events_of("account.reauth_required").len()), ("active", 0));

            world.provider().disarm();
            world.crm.post(&format!("/accounts/{account}/resume"), &json!({}));
            for message in [&first, &second] {
                world.crm.await_delivery(message, "sent");
            }
            assert_eq!(shown()["detail"], Value::Null);
        }
    }

    fn a_provider_hears_good_bye_when_all_is_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.connect(&ann);
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "sent");
        wait_for("good-bye", PATIENCE, || world.heard(Service::Submission, "QUIT").len() == 1);
    }

    fn a_refused_login_holds_the_mail_until_there_is_one_that_works(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let address = mailweave::mail::Address::parse(&ann.person.address).unwrap();
        world.provider().set_password(&address, "changed").unwrap();
        let first = world.post_message(&ann, &[&bob.address], "One");
        let shown = world.crm.await_delivery(&first, "held");
        assert!(text(&shown["delivery"], "detail").contains("login"), "{shown}");
        world.crm.await_event("message.held", |data| data["message_id"] == first.as_str());
        // Reading finds out by itself that the login is no good.
        wait_for("the login to be asked for", PATIENCE, || {
            world.crm.get(&format!("/accounts/{account}"))["status"]["state"] == "reauth_required"
        });
        // Providers lock accounts that go on trying.
        let second = world.post_message(&ann, &[&bob.address], "Two");
        world.crm.await_delivery(&second, "held");
        world.gateway.hasten();
        world.gateway.settle();
        assert!(world.heard(Service::Submission, "AUTH").len() <= 1);
        assert_eq!(world.crm.events_of("account.reauth_required").len(), 1);

        let login = json!({ "type": "password", "username": ann.person.address, "password": "changed" });
        world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": login }));
        for message in [&first, &second] {
            let shown = world.crm.await_delivery(message, "sent");
            assert_eq!(world.mails(&bob, "INBOX", text(&shown, "rfc822_message_id")).len(), 1);
        }
    }

    fn what_a_disconnected_account_had_still_to_send_is_held(engine) {
        let world = Sandboxed::start(engine, Behaviour::gmail());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.arm("RCPT", Act::Answer("451 4.7.1 Greylisted".to_owned()));
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "deferred");
        world.crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "keep" }));
        world.provider().clear_ledger();
        world.gateway.hasten();
        world.crm.await_delivery(&message, "held");
        assert_eq!(world.heard(Service::Submission, "AUTH"), Vec::<String>::new());
        let login = json!({ "type": "password", "username": ann.person.address, "password": ann.person.password });
        world.crm.patch(&format!("/accounts/{account}"), &json!({ "auth": login }));
        world.crm.await_delivery(&message, "sent");
    }

    fn a_server_that_hangs_up_at_one_recipient_is_given_a_rest_and_the_others_their_turn(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.set_smarthost(&ann.person);
        let bye = Trigger::always(Service::Submission, "RCPT").containing(&bob.address);
        world.provider().arm(bye, Act::Bye("4.3.2 Come back later".to_owned()));
        let message = world.post_message(&ann, &[&bob.address, &cora.address], "Hello");
        world.crm.await_delivery(&message, "deferred");
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "MAIL").len(), 1);
        world.gateway.hasten();
        let state = |address: &str| {
            let shown = world.crm.get(&format!("/messages/{message}"));
            let recipients = shown["delivery"]["recipients"].as_array().cloned().unwrap_or_default();
            recipients.into_iter().find(|one| one["address"] == address).unwrap_or(Value::Null)["state"].clone()
        };
        // This provider takes nothing from a reply address: an answer all the same, and Bob's tries do not put it off.
        wait_for("Cora's turn", PATIENCE, || state(&cora.address) == "bounced");
        world.gateway.settle();
        assert_eq!(state(&bob.address), "deferred");
        let is_report = |line: &&String| line.contains("<>");
        assert_eq!(world.heard(Service::Submission, "MAIL").iter().filter(|line| !is_report(line)).count(), 3);
    }

    fn a_copy_that_the_provider_files_costs_no_login(engine) {
        let world = Sandboxed::with(engine, Behaviour::gmail(), |config| {
            config.outbound.sent_copy_wait = Duration::from_secs(20);
        });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.provider().clear_ledger();
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        world.crm.await_delivery(&message, "sent");
        wait_for("the copy to be met", PATIENCE, || is_sighted_in_account(&world, &message));
        world.gateway.hasten();
        world.gateway.settle();
        let logins = [world.heard(Service::Imap, "LOGIN"), world.heard(Service::Imap, "AUTHENTICATE")].concat();
        assert_eq!(logins, Vec::<String>::new());
    }

    fn a_copy_that_is_appended_costs_one_login(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.provider().clear_ledger();
        let message = world.post_message(&ann, &[&bob.address], "Hello");
        let shown = world.crm.await_delivery(&message, "sent");
        let id = text(&shown, "rfc822_message_id");
        wait_for("the copy in Sent", PATIENCE, || world.mails(&ann.person, "Sent", id).len() == 1);
        world.gateway.settle();
        let logins = [world.heard(Service::Imap, "LOGIN"), world.heard(Service::Imap, "AUTHENTICATE")].concat();
        assert_eq!((logins.len(), world.mails(&ann.person, "Sent", id).len()), (1, 1));
    }

    fn a_report_waits_for_an_account_that_rests_and_is_not_given_up(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, crm) = (world.user("ann", "Ann Lee"), world.prospect("crm"));
        world.connect(&ann);
        let once = Trigger::next(Service::Submission, "MAIL").containing("<>");
        world.provider().arm(once, Act::Answer("451 4.3.0 Later".to_owned()));
        let mut client = world.workspace_client();
        client.expect(250, &format!("MAIL FROM:<{}>", crm.address));
        client.expect(250, "RCPT TO:<gone@prospects.example> NOTIFY=FAILURE");
        client.expect(354, "DATA");
        let letter = format!("From: {}\r\nSubject: Hello\r\n\r\nHello.\r\n.", ann.person.address);
        let taken = client.expect(250, &letter);
        world.crm.await_delivery(&accepted_id(&taken), "bounced");
        let reports = |is: &str| world.gateway.count(&format!("select count(*) from jobs where kind = 'report' and {is}"));
        wait_for("a first try", PATIENCE, || reports("tries = 1") == 1);
        // Until 2100.
        world.gateway.execute("update accounts set rests_until = 4102444800000000, rests_over = 'x', rests = 1");
        // More often than a report is tried.
        wait_for("many looks", PATIENCE, || {
            world.gateway.hasten_jobs();
            reports("attempt > 12") == 1
        });
        assert_eq!(reports("tries = 1"), 1);
        world.gateway.hasten();
        wait_for("the report", PATIENCE, || reports("tries >= 0") == 0);
        assert_eq!(world.heard(Service::Submission, "MAIL").iter().filter(|line| line.contains("<>")).count(), 2);
    }

    fn a_smarthost_is_told_of_utf8_headers_and_asked_for_the_reports(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.set_smarthost(&ann.person);
        let mut client = world.workspace_client();
        client.expect(250, &format!("MAIL FROM:<{}> RET=HDRS ENVID=order-77 SMTPUTF8", ann.person.address));
        client.expect(250, &format!("RCPT TO:<{}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{}", bob.address, bob.address));
        client.expect(354, "DATA");
        let letter = format!(
            "From: {}\r\nTo: {}\r\nX-Mailweave-Class: bulk\r\nSubject: Grüße\r\n\r\nHello.\r\n.",
            ann.person.address, bob.address
        );
        let taken = client.expect(250, &letter);
        world.crm.await_delivery(&accepted_id(&taken), "sent");
        let mail = world.heard(Service::Submission, "MAIL").join("\n");
        for word in ["SMTPUTF8", "RET=HDRS", "ENVID=order-77"] {
            assert!(mail.contains(word), "{word} in {mail}");
        }
        let rcpt = world.heard(Service::Submission, "RCPT").join("\n");
        for word in ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;"] {
            assert!(rcpt.contains(word), "{word} in {rcpt}");
        }
        // The smarthost was asked to tell of its success: a report of ours would be a second one.
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "MAIL").len(), 1);
    }
}
