//! What another policy would make of an account's mail is foretold from its headers, by the judge that then judges, and
//! nothing of it is kept.
//!
//! Not here: the rules in every combination (`core::policy`), and what cannot be simulated (`tests/http`).

use std::{collections::BTreeMap, time::Duration};

use mailweave::{
    app,
    cli::Simulate,
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    privacy::{files, holding},
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
    world::{User, World},
};

const CORA: &str = "cora@clients.example.test";
const HOME: &str = "cora@home.example.test";

/// A mail of Ann's, and the rules by which `keap`, `highlevel-outlook` and `realpad` judge it.
struct Case {
    letter: Letter,
    is_sent: bool,
    rules: [&'static str; 3],
}

const PRESETS: [&str; 3] = ["keap", "highlevel-outlook", "realpad"];

fn cases(ann: &str, ben: &str, private: &str) -> Vec<Case> {
    let friend = format!("{private}@far.example.test");
    let friend = friend.as_str();
    let received = |letter: Letter, rules| Case { letter, is_sent: false, rules };
    let sent = |to: &str, rules| Case { letter: Letter::new(ann, &[to]), is_sent: true, rules };
    let first = Letter::new(CORA, &[ann]);
    let answered = first.id.clone();
    // Larger than the 3 MB of highlevel-outlook.
    let content = "a line of a large file that is no secret\n".repeat(90_000);
    let file = format!(
        "--b\n\nHello\n--b\nContent-Type: application/octet-stream; name=tool.exe\n\n{content}\n--b--\n"
    );
    let with_file = Letter::new(CORA, &[ann])
        .field("MIME-Version", "1.0")
        .field("Content-Type", "multipart/mixed; boundary=b")
        .text(&file);
    let known = ["known_thread"; 3];
    let mut answer = sent(CORA, known);
    answer.letter = answer.letter.answering(&answered);
    vec![
        received(first, ["contact_wrote"; 3]),
        received(Letter::new(HOME, &[ann]), ["no_contact", "contact_wrote", "no_contact"]),
        received(Letter::new(ben, &[ann]), ["internal", "colleague_wrote", "contact_wrote"]),
        received(
            Letter::new(friend, &[ann]).cc(&[CORA]).subject(private),
            ["contact_copied", "stranger_wrote", "contact_copied"],
        ),
        received(Letter::new(friend, &[ann, CORA]).answering(&answered), known),
        received(with_file, ["contact_wrote"; 3]),
        sent(CORA, ["wrote_to_contact", "outbound_starts_nothing", "wrote_to_contact"]),
        sent(friend, ["no_contact"; 3]),
        answer,
    ]
}

fn is_synced(rule: &str) -> bool {
    ["contact_wrote", "contact_copied", "known_thread", "wrote_to_contact"].contains(&rule)
}

/// How many messages each rule decided.
fn rules(outcome: &Value) -> BTreeMap<String, u64> {
    let rules = outcome["rules"].as_array().unwrap().iter();
    rules.map(|rule| (text(rule, "rule").to_owned(), rule["messages"].as_u64().unwrap())).collect()
}

fn counted<'a>(rules: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for rule in rules {
        *counts.entry(rule.to_owned()).or_default() += 1;
    }
    counts
}

fn simulate(crm: &Crm, account: &str, preset: &str, more: &Value) -> Value {
    let mut order = json!({ "account_id": account, "days": 7, "preset": preset });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    crm.post("/policy/simulate", &order)
}

/// The verdict on a mail of an account that holds now.
fn verdict(crm: &Crm, account: &str, letter: &Letter) -> Option<String> {
    let path = format!("/decisions?rfc822_message_id={}&account_id={account}", letter.id);
    crm.list(&path).first().map(|decision| text(decision, "verdict").to_owned())
}

/// Servers tell the time of arrival by the second.
fn await_next_second() {
    let second = || jiff::Timestamp::now().as_second();
    let then = second();
    wait_for("the next second", PATIENCE, || second() > then);
}

fn deliver(world: &World, ann: &User, cases: &[Case]) {
    for Case { letter, is_sent, .. } in cases {
        match is_sent {
            true => drop(world.dovecot.login(&ann.person).append("Sent", "", &letter.raw())),
            false => drop(
                world.dovecot.deliver("postmaster@clients.example.test", &ann.person, &letter.raw()).unwrap(),
            ),
        }
    }
}

fn flags(world: &World, ann: &User) -> Vec<String> {
    let mut client = world.dovecot.login(&ann.person);
    let of = |mailbox: &str| {
        client.expect(&format!("EXAMINE {mailbox}"));
        client.expect("FETCH 1:* (UID FLAGS)").lines
    };
    ["INBOX", "Sent"].map(of).concat()
}

/// That a simulation of this preset tells what the rules say, beside a policy by which only the CRM begins anything.
#[track_caller]
fn assert_told(cases: &[Case], place: usize, answer: &Value) {
    let outcome = &answer["simulated"];
    let expect = counted(cases.iter().map(|case| case.rules[place]));
    assert_eq!(rules(outcome), expect, "{answer}");
    let synced = cases.iter().filter(|case| is_synced(case.rules[place])).count();
    assert_eq!((&outcome["synced"], &outcome["quota"]["used"]), (&json!(synced), &json!(synced)), "{answer}");
    assert_eq!((&answer["messages"], &outcome["contacts_created"]), (&json!(9), &json!(0)));
    assert_eq!(outcome["synced_unless_files"], json!(u32::from(place == 1)), "{answer}");
    let against = &answer["against"];
    assert_eq!((text(against, "preset"), &against["synced"]), ("kaname-outlook", &json!(0)));
    assert_eq!(answer["changed"], json!(synced));
    assert_eq!(answer["examples"].as_array().unwrap().len(), synced);
}

/// Connects Ann's account under this preset, which reads what was there before. Returns the account.
fn backfill(world: &World, ann: &User, preset: &str) -> String {
    // What has no say in what is synced lets the CRM connect the account.
    let overrides = json!({ "backfill_days": 7, "connect_role": ["member", "admin"] });
    world.crm.put("/policy", &json!({ "preset": preset, "overrides": overrides }));
    world.connect(ann)
}

/// That an account brings what was foretold of this preset, and that it is foretold again.
#[track_caller]
fn assert_filed(world: &World, account: &str, (cases, place): (&[Case], usize), told: &Value) {
    let (crm, preset) = (&world.crm, PRESETS[place]);
    for Case { letter, rules, .. } in cases {
        // The one file that only its body shows.
        let is_kept_out = place == 1 && letter.raw().contains("tool.exe");
        let expect = if is_synced(rules[place]) && !is_kept_out { "synced" } else { "skipped" };
        wait_for(&format!("{} to be {expect} by {preset}", letter.id), PATIENCE, || {
            verdict(crm, account, letter).as_deref() == Some(expect)
        });
    }
    world.gateway.settle();
    let synced = told["simulated"]["synced"].as_u64().unwrap();
    assert_eq!(crm.messages().len() as u64, synced - u64::from(place == 1), "{preset}");
    // What it filed itself is no reason to file it: the same would happen once more.
    let again = simulate(crm, account, preset, &json!({}));
    assert_eq!(rules(&again["simulated"]), rules(&told["simulated"]), "{preset}");
    assert_eq!((&again["changed"], &again["against"]["preset"]), (&json!(0), &json!(preset)));
    let outlook = simulate(crm, account, "kaname-outlook", &json!({}));
    assert_eq!(outlook["simulated"]["synced"], 0, "{outlook}");
}

both! {
    fn what_is_foretold_is_what_a_backfill_files_and_nothing_of_it_is_kept(engine) {
        let private = format!("Geheimnis{}", uuid::Uuid::new_v4().simple());
        let world = World::start(engine);
        let (ann, ben) = (world.user(1, "Ann Lee"), world.user(2, "Ben Low"));
        let crm = &world.crm;
        crm.post("/contacts", &json!({ "email": CORA, "other_emails": [HOME] }));
        crm.post("/contacts", &json!({ "email": ben.person.address }));
        let cases = cases(&ann.person.address, &ben.person.address, &private);
        deliver(&world, &ann, &cases);
        // All of this came before the account was connected.
        await_next_second();
        // In force is a policy that reads nothing of the past.
        crm.put("/policy", &json!({ "preset": "kaname-outlook" }));
        let mut account = world.connect(&ann);
        crm.await_account(&account);
        wait_for("the first comparison, which is noted", PATIENCE, || {
            crm.get(&format!("/accounts/{account}/completeness"))["compared_at"].is_string()
        });
        world.gateway.settle();

        let stored = world.gateway.dump();
        let blobs = || -> Vec<_> {
            files(world.gateway.data_dir())
                .into_iter()
                .filter(|file| !file.to_string_lossy().contains("mailweave.db"))
                .map(|file| (std::fs::read(&file).unwrap(), file))
                .collect()
        };
        let (kept, seen) = (blobs(), flags(&world, &ann));
        let told: Vec<Value> =
            PRESETS.iter().map(|preset| simulate(crm, &account, preset, &json!({}))).collect();
        for (place, answer) in told.iter().enumerate() {
            assert_told(&cases, place, answer);
            assert!(!answer.to_string().contains(&private), "{answer}");
        }
        let between = simulate(crm, &account, "realpad", &json!({ "against": { "preset": "keap" } }));
        assert_eq!(between["changed"], 1, "{between}");
        let changes = json!([{
            "from": { "verdict": "skipped", "rule": "internal" },
            "to": { "verdict": "synced", "rule": "contact_wrote" },
            "messages": 1,
        }]);
        assert_eq!(between["changes"], changes);
        let example = &between["examples"][0];
        assert_eq!((text(example, "mailbox"), &example["uid"]), ("INBOX", &json!(3)));
        assert_eq!(between["against"]["version"], Value::Null);

        let order = Simulate {
            account: account.clone(),
            days: 7,
            preset: "keap".into(),
            settings: vec![("match".into(), "all".into())],
            against: None,
            against_settings: Vec::new(),
            json: false,
        };
        let table = world.gateway.runtime.block_on(app::simulate::ask(&crm.command_line(), order)).unwrap();
        assert!(table.contains("kaname-outlook, in force"), "{table}");
        let line = table.lines().find(|line| line.starts_with("synced contact_wrote")).unwrap();
        // By his other address too.
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["synced", "contact_wrote", "3", "0"], "{table}");

        world.gateway.settle();
        let now = world.gateway.dump();
        let new: Vec<_> = now.iter().filter(|row| !stored.contains(row)).collect();
        assert!(new.is_empty() && now.len() == stored.len(), "{new:?}");
        assert_eq!((blobs(), flags(&world, &ann)), (kept, seen));
        assert_eq!(holding(&world.gateway.places(), &[&private]), []);

        for place in 0..PRESETS.len() {
            crm.post(&format!("/accounts/{account}/disconnect"), &json!({ "history": "erase" }));
            crm.await_event("account.erased", |data| data["account_id"] == account.as_str());
            account = backfill(&world, &ann, PRESETS[place]);
            assert_filed(&world, &account, (&cases, place), &told[place]);
        }
    }

    fn the_policy_in_force_gives_what_the_ledger_has_with_the_contacts_that_it_made(engine) {
        let world = World::start(engine);
        let ann = world.user(1, "Ann Lee");
        let crm = &world.crm;
        crm.put("/policy", &json!({ "preset": "sharpspring" }));
        let account = world.connect(&ann);
        crm.await_account(&account);
        let eva = "eva@far.example.test";
        let case = |letter: Letter, is_sent| {
            let case = Case { letter, is_sent, rules: [""; 3] };
            deliver(&world, &ann, std::slice::from_ref(&case));
            crm.post(&format!("/accounts/{account}/sync"), &json!({}));
            wait_for("it to be judged", PATIENCE, || verdict(crm, &account, &case.letter).is_some());
        };
        case(Letter::new(eva, &[&ann.person.address]), false);
        // The two lie in two mailboxes.
        await_next_second();
        case(Letter::new(&ann.person.address, &[eva]), true);
        await_next_second();
        case(Letter::new(eva, &[&ann.person.address]), false);
        world.gateway.settle();

        let decisions = crm.list("/decisions");
        let ledger = counted(decisions.iter().map(|decision| text(decision, "rule")));
        let answer = simulate(crm, &account, "sharpspring", &json!({}));
        assert_eq!(rules(&answer["against"]), ledger, "{answer}");
        assert_eq!((&answer["changed"], &answer["against"]["contacts_created"]), (&json!(0), &json!(1)));
        let keap = simulate(crm, &account, "keap", &json!({}));
        assert_eq!(rules(&keap["simulated"]), BTreeMap::from([("no_contact".to_owned(), 3)]), "{keap}");
        assert_eq!(keap["simulated"]["contacts_created"], 0);
        let pair = |change: &Value| {
            (text(&change["from"], "rule").to_owned(), text(&change["to"], "rule").to_owned())
        };
        let mut pairs: Vec<_> = keap["changes"].as_array().unwrap().iter().map(pair).collect();
        pairs.sort();
        let expect = [("contact_wrote", "no_contact"), ("sent_makes_contact", "no_contact")];
        assert_eq!(pairs, expect.map(|(from, to)| (from.to_owned(), to.to_owned())));

        // The limit in force: what is over it waits, or stays out.
        crm.put("/limits", &json!({ "synced_per_day": 1 }));
        let deferring = simulate(crm, &account, "sharpspring", &json!({}));
        let quota = &deferring["simulated"]["quota"];
        assert_eq!(
            (&quota["synced_per_day"], &quota["used"], &quota["over"], &quota["waiting"], &quota["days_at_limit"]),
            (&json!(1), &json!(1), &json!(1), &json!(1), &json!(1)),
            "{deferring}"
        );
        let skipping = simulate(crm, &account, "sharpspring", &json!({ "overrides": { "over_sync": "skip" } }));
        assert_eq!(rules(&skipping["simulated"])["sync_limit"], 1, "{skipping}");
        assert_eq!(skipping["simulated"]["synced"], 1);
    }

    fn the_provider_is_asked_for_headers_alone_once_at_a_time_and_its_refusals_are_told(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let letter = Letter::new(&bob.address, &[&ann.person.address]);
        let inbox = Address::parse(&ann.person.address).unwrap();
        world.provider().deliver(&inbox, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
        wait_for("it to be judged", PATIENCE, || verdict(&world.crm, &account, &letter).is_some());
        let order = json!({ "account_id": account, "preset": "keap" });
        let listed = world.heard(Service::Imap, "LIST").len();
        let fetched = world.provider().fetched().len();

        world.provider().arm(Trigger::next(Service::Imap, "LIST"), Act::Delay(Duration::from_secs(3)));
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| world.crm.try_post("/policy/simulate", &order));
            wait_for("the provider to be asked", PATIENCE, || world.heard(Service::Imap, "LIST").len() > listed);
            let second = world.crm.try_post("/policy/simulate", &order);
            assert_eq!((second.status, text(&second.body, "code")), (429, "limit_reached"), "{second:?}");
            first.join().unwrap()
        });
        assert_eq!((first.status, &first.body["messages"]), (200, &json!(1)), "{first:?}");
        assert!(world.provider().fetched().len() > fetched);
        assert_eq!(world.provider().contents_fetched(&inbox, "INBOX"), Vec::<u32>::new());
        assert_eq!(world.heard(Service::Imap, "SELECT"), Vec::<String>::new());
        assert_eq!(world.heard(Service::Imap, "STORE"), Vec::<String>::new());

        for (answer, status, code) in [
            ("NO [UNAVAILABLE] try later", 503, "provider_unavailable"),
            ("NO not for you", 502, "provider_failed"),
        ] {
            world.provider().arm(Trigger::next(Service::Imap, "LIST"), Act::Answer(answer.to_owned()));
            let refused = world.crm.try_post("/policy/simulate", &order);
            assert_eq!((refused.status, text(&refused.body, "code")), (status, code), "{refused:?}");
        }
        // A simulation that fails says nothing of the account.
        let status = world.crm.get(&format!("/accounts/{account}/status"));
        assert_ne!(text(&status, "state"), "error", "{status}");
        assert_eq!(world.crm.list(&format!("/accounts/{account}/errors")), Vec::<Value>::new());
    }
}
