//! "Why is this mail not in the CRM?": asked at the command line, and by forwarding the mail.
//!
//! Not here: what is decided about which mail, and the words (`core::explanation`).

use mailweave::{
    app::why,
    cli::Why,
    mail::Address,
    sandbox::{Act, Behaviour, Service, Trigger},
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, Person, wait_for},
    world::{User, assert_free_of},
};

/// A word that is in nothing but the mail that is asked about.
const SECRET: &str = "Rhabarberkompott";

/// A smarthost's: it lets whoever is logged in send from the null path.
fn any_sender() -> Behaviour {
    Behaviour { any_sender: true, ..Behaviour::default() }
}

/// Where this user asks.
fn asks(user: &User) -> String {
    user.capture_address.replace('@', "+why@")
}

/// A mail comes to somebody's inbox at the provider, past the gateway.
pub fn deliver(world: &Sandboxed, to: &Person, letter: &Letter) {
    let to = Address::parse(&to.address).unwrap();
    world.provider().deliver(&to, letter.raw().replace('\n', "\r\n").as_bytes()).unwrap();
}

/// The decision about a mail, once there is one.
fn await_decision(world: &Sandboxed, id: &str) -> Value {
    let mut found = Vec::new();
    wait_for(&format!("a decision about {id}"), PATIENCE, || {
        found = world.crm.list(&format!("/decisions?rfc822_message_id={id}"));
        !found.is_empty()
    });
    found.remove(0)
}

/// Waits until a decision by this rule was made about a mail.
#[track_caller]
fn await_rule(world: &Sandboxed, id: &str, rule: &str) {
    wait_for(&format!("{rule} about {id}"), PATIENCE, || {
        let found = world.crm.list(&format!("/decisions?rfc822_message_id={id}"));
        found.iter().any(|decision| text(decision, "rule") == rule)
    });
}

/// The answers in somebody's inbox.
fn answers(world: &Sandboxed, person: &Person) -> Vec<String> {
    let address = Address::parse(&person.address).unwrap();
    let mails = world.provider().inbox(&address).into_iter();
    let texts = mails.map(|mail| String::from_utf8_lossy(&mail.raw).into_owned());
    texts.filter(|mail| mail.contains("Auto-Submitted: auto-replied")).collect()
}

fn await_answers(world: &Sandboxed, person: &Person, count: usize) -> Vec<String> {
    wait_for("the answer", PATIENCE, || answers(world, person).len() >= count);
    world.gateway.settle();
    let answers = answers(world, person);
    assert_eq!(answers.len(), count, "{answers:#?}");
    answers
}

/// A mail that holds another one whole.
fn forward(from: &str, to: &str, mail: &Letter) -> Letter {
    Letter::new(from, &[to])
        .subject("Fwd: why?")
        .field("MIME-Version", "1.0")
        .field("Content-Type", "multipart/mixed; boundary=forward")
        .text(&format!(
            "--forward\nContent-Type: text/plain\n\nWhy?\n--forward\nContent-Type: message/rfc822\n\n{}\n--forward--\n",
            mail.raw()
        ))
}

/// What the command line says.
pub fn command_line(world: &Sandboxed, about: &str, json: bool) -> why::Answer {
    let why = Why { client: world.crm.command_line(), about: about.to_owned(), json, limit: 20 };
    world.gateway.runtime.block_on(why::ask(&why)).unwrap()
}

both! {
    fn the_command_line_tells_why_and_says_when_nothing_is_known(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, dora) = (world.user("ann", "Ann Lee"), world.prospect("dora"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let private = Letter::new(&dora.address, &[&ann.person.address]).subject(SECRET);
        deliver(&world, &ann.person, &private);
        let decision = await_decision(&world, &private.id);
        for about in [private.id.clone(), format!("<{}>", private.id), dora.address.clone()] {
            let answer = command_line(&world, &about, false);
            assert!(answer.known, "{answer:?}");
            for part in [
                "left out of the CRM", "Nobody on it is a contact.", "no_contact", "mailweave, version 1",
                "in the mailbox of a connected account", &account, text(&decision, "id"),
            ] {
                assert!(answer.text.contains(part), "{part}: {}", answer.text);
            }
            assert_free_of(&answer.text, &[SECRET, &dora.address]);
        }
        let json: Value = serde_json::from_str(&command_line(&world, &private.id, true).text).unwrap();
        assert_eq!(json["items"][0]["id"], decision["id"]);

        let unknown = command_line(&world, "<nobody-has-seen-it@x.example>", false);
        assert!(!unknown.known && unknown.text.contains("never seen") && unknown.text.contains("Likely causes"));
        assert!(!command_line(&world, "nobody@x.example", true).known);

        // What is filed is found by the gateway's own id.
        let captured = Letter::new(&ann.person.address, &[&dora.address]);
        world.arrive(&ann.person.address, &[&ann.capture_address], &captured).unwrap();
        let event = world.crm.await_mail("message.captured", &captured.id);
        let answer = command_line(&world, text(&event["data"], "message_id"), false);
        assert!(answer.known && answer.text.contains("taken into the CRM"), "{answer:?}");
    }

    fn who_forwards_a_mail_is_told_why_at_his_own_address_and_nobody_else_is(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (ann, dora) = (world.user("ann", "Ann Lee"), world.prospect("dora"));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let private = Letter::new(&dora.address, &[&ann.person.address]).subject(SECRET);
        deliver(&world, &ann.person, &private);
        await_decision(&world, &private.id);

        let question = forward(&ann.person.address, &asks(&ann), &private)
            .field("Reply-To", &dora.address)
            .field("Disposition-Notification-To", &dora.address);
        // Lost 250s make no second answer.
        for _ in 0..2 {
            world.arrive(&ann.person.address, &[&asks(&ann)], &question).unwrap();
        }
        let answers = await_answers(&world, &ann.person, 1);
        for part in ["left out of the CRM", "no_contact", &format!("In-Reply-To: <{}>", question.id)] {
            assert!(answers[0].contains(part), "{part}: {}", answers[0]);
        }
        assert_free_of(&answers[0], &[&ann.capture_address, "+why@", SECRET]);
        // Neither the question nor the answer becomes mail of the CRM.
        let about_it = world.crm.list(&format!("/decisions?rfc822_message_id={}", question.id));
        assert!(about_it.iter().any(|decision| text(decision, "rule") == "question"), "{about_it:?}");
        assert_eq!(world.crm.list(&format!("/decisions?rfc822_message_id={}", private.id)).len(), 1);
        assert_eq!(world.crm.messages(), Vec::<Value>::new());
        assert_eq!(world.crm.list("/contacts"), Vec::<Value>::new());
        assert_eq!(world.provider().inbox(&Address::parse(&dora.address).unwrap()).len(), 0);
        assert_free_of(&world.crm.everything(), &[SECRET]);
    }

    fn a_forward_that_names_no_mail_is_answered_by_the_people_on_it(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        let [dora, erna] = ["dora", "erna"].map(|local| world.prospect(local));
        world.set_smarthost(&ann.person);
        for user in [&ann, &ben] {
            let account = world.connect(user);
            world.crm.await_account(&account);
        }
        // Erna writes to Ben alone, which is none of Ann's business.
        for (from, to) in [(&dora, &ann), (&erna, &ben)] {
            let private = Letter::new(&from.address, &[&to.person.address]);
            deliver(&world, &to.person, &private);
            await_decision(&world, &private.id);
        }
        let inline = |person: &Person| {
            Letter::new(&ann.person.address, &[&asks(&ann)]).text(&format!(
                "Why?\n\n-------- Weitergeleitete Nachricht --------\nVon: Somebody <{}>\nAn: {}\nBetreff: Hello\n\nHello.\n",
                person.address, ann.person.address
            ))
        };
        world.arrive(&ann.person.address, &[&asks(&ann)], &inline(&dora)).unwrap();
        let answer = await_answers(&world, &ann.person, 1).remove(0);
        assert!(answer.contains("with the same") && answer.contains("no_contact"), "{answer}");
        // By the smarthost, hence from nobody's address.
        assert!(answer.contains("no-reply@reply.example.test"), "{answer}");
        world.arrive(&ann.person.address, &[&asks(&ann)], &inline(&erna)).unwrap();
        let answer = await_answers(&world, &ann.person, 2).remove(1);
        assert!(answer.contains("never seen") && !answer.contains("no_contact"), "{answer}");
        assert_eq!(answers(&world, &ben.person), Vec::<String>::new());
    }

    fn what_visibility_hides_is_not_told_by_mail_and_what_came_to_oneself_is(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        let cora = world.prospect("cora");
        world.crm.post("/contacts", &json!({ "email": cora.address }));
        world.set_smarthost(&ann.person);
        let bens = world.connect(&ben);
        world.crm.await_account(&bens);
        let letter = Letter::new(&cora.address, &[&ben.person.address]);
        deliver(&world, &ben.person, &letter);
        await_rule(&world, &letter.id, "contact_wrote");
        // A copy of Ann's own is left out.
        let overrides = json!({ "visibility": "owner", "capture_fields": "bcc" });
        world.crm.put("/policy", &json!({ "preset": "mailweave", "overrides": overrides }));
        let own = Letter::new(&ann.person.address, &["dora@prospects.example"]).cc(&[&ann.capture_address]);
        world.arrive(&ann.person.address, &[&ann.capture_address], &own).unwrap();
        await_rule(&world, &own.id, "capture_field");

        let ask = |mail: &Letter, number: usize| {
            world.arrive(&ann.person.address, &[&asks(&ann)], &forward(&ann.person.address, &asks(&ann), mail)).unwrap();
            await_answers(&world, &ann.person, number).remove(number - 1)
        };
        let answer = ask(&letter, 1);
        assert!(answer.contains("never seen") && !answer.contains("contact_wrote"), "{answer}");
        let answer = ask(&own, 2);
        assert!(answer.contains("capture_field"), "{answer}");
        let key = world.crm.with_key(&world.crm.key(&["read"], Some(&ann.id)).1);
        assert_eq!(key.list(&format!("/decisions?own_message_id={}", own.id)).len(), 1);
        assert_eq!(key.list(&format!("/decisions?own_message_id={}", letter.id)).len(), 0);
    }

    fn nobody_else_and_no_machine_is_answered(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        let dora = world.prospect("dora");
        world.set_smarthost(&ann.person);
        let mail = Letter::new(&dora.address, &[&ann.person.address]);
        let asked_by = |from: &str| forward(from, &asks(&ann), &mail);
        let machine = asked_by(&ann.person.address).field("Auto-Submitted", "auto-generated");
        for (path, question, rule) in [
            (ben.person.address.as_str(), asked_by(&ben.person.address), "foreign_question"),
            (&dora.address, asked_by(&dora.address), "foreign_question"),
            (&ann.person.address, machine, "automatic_question"),
            ("", asked_by(&ann.person.address), "null_reverse_path"),
        ] {
            world.arrive(path, &[&asks(&ann)], &question).unwrap();
            let decision = await_decision(&world, &question.id);
            assert_eq!((text(&decision, "verdict"), text(&decision, "rule")), ("skipped", rule));
        }
        world.gateway.settle();
        for person in [&ann.person, &ben.person, &dora] {
            assert_eq!(world.provider().inbox(&Address::parse(&person.address).unwrap()).len(), 0);
        }
        // No address at which nobody can ask is taken.
        let nowhere = ann.capture_address.replace('@', "+else@");
        assert_eq!(world.arrive(&ann.person.address, &[&nowhere], &mail).unwrap_err().code, 550);
    }

    fn an_answer_that_may_have_gone_out_is_not_sent_again_and_the_ledger_says_so(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let ann = world.user("ann", "Ann Lee");
        world.set_smarthost(&ann.person);
        let mail = Letter::new("dora@prospects.example", &[&ann.person.address]);
        let question = forward(&ann.person.address, &asks(&ann), &mail);
        // It is taken, and the 250 is lost.
        world.arm("DOT", Act::DropAfter(0));
        world.arrive(&ann.person.address, &[&asks(&ann)], &question).unwrap();
        await_rule(&world, &question.id, "unanswered_question");
        world.gateway.hasten();
        await_answers(&world, &ann.person, 1);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 1);

        // As a crash between the dot and its record leaves it.
        let question = forward(&ann.person.address, &asks(&ann), &mail);
        world.arm("MAIL", Act::Answer("451 4.3.0 Later".to_owned()));
        world.arrive(&ann.person.address, &[&asks(&ann)], &question).unwrap();
        await_rule(&world, &question.id, "question");
        world.gateway.settle();
        world.gateway.execute("update jobs set body = replace(body, '\"is_being_answered\":false', '\"is_being_answered\":true')");
        world.gateway.hasten();
        await_rule(&world, &question.id, "unanswered_question");
        await_answers(&world, &ann.person, 1);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 1);
    }

    fn a_smarthost_that_takes_nothing_from_the_null_path_leaves_the_answer_to_the_account(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        world.set_smarthost(&ann.person);
        world.crm.await_account(&world.connect(&ann));
        let null = Trigger::always(Service::Submission, "MAIL").containing("<>");
        world.provider().arm(null, Act::Answer("550 5.7.1 Null senders are not taken".to_owned()));
        let mail = Letter::new("dora@prospects.example", &[&ann.person.address]);
        let question = forward(&ann.person.address, &asks(&ann), &mail);
        world.arrive(&ann.person.address, &[&asks(&ann)], &question).unwrap();
        let answer = await_answers(&world, &ann.person, 1).remove(0);
        assert!(!answer.contains("no-reply@"), "{answer}");
        // Ben has no account: that he was not answered is told.
        let question = forward(&ben.person.address, &asks(&ben), &mail);
        world.arrive(&ben.person.address, &[&asks(&ben)], &question).unwrap();
        await_rule(&world, &question.id, "unanswered_question");
        assert_eq!(answers(&world, &ben.person), Vec::<String>::new());
    }

    fn whoever_asks_without_end_is_answered_no_more(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let ann = world.user("ann", "Ann Lee");
        world.crm.patch(&format!("/users/{}", ann.id), &json!({ "aliases": ["lee@acme.example"] }));
        world.set_smarthost(&ann.person);
        let mail = Letter::new("dora@prospects.example", &[&ann.person.address]);
        // Each of his addresses asks for the same user.
        for from in [ann.person.address.as_str(), "lee@acme.example"].into_iter().cycle().take(11) {
            world.arrive(from, &[&asks(&ann)], &forward(from, &asks(&ann), &mail)).unwrap();
        }
        wait_for("11 decisions", PATIENCE, || world.crm.list("/decisions").len() == 11);
        let decisions = world.crm.list("/decisions");
        let too_many = decisions.iter().filter(|decision| text(decision, "rule") == "too_many_questions");
        assert_eq!(too_many.count(), 1);
        await_answers(&world, &ann.person, 10);
    }

    fn an_answer_does_not_leave_by_an_account_that_may_send_no_more(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        world.crm.await_account(&world.connect(&ann));
        world.crm.put(&format!("/users/{}/limits", ann.id), &json!({ "sent_per_day": 0 }));
        let mail = Letter::new("dora@prospects.example", &[&ann.person.address]);
        world.arrive(&ann.person.address, &[&asks(&ann)], &forward(&ann.person.address, &asks(&ann), &mail)).unwrap();
        let put_off = "select count(*) from jobs where kind = 'explain' and attempt > 0 and leased_until is null";
        wait_for("the answer to be put off", PATIENCE, || world.gateway.count(put_off) == 1);
        assert_eq!(answers(&world, &ann.person), Vec::<String>::new());
    }

    fn what_else_came_to_others_hides_nothing_of_ones_own(engine) {
        let world = Sandboxed::start(engine, any_sender());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        world.set_smarthost(&ann.person);
        let accounts = [&ann, &ben].map(|user| world.connect(user));
        accounts.iter().for_each(|account| world.crm.await_account(account));
        let private = Letter::new("dora@prospects.example", &[&ann.person.address, &ben.person.address]);
        deliver(&world, &ann.person, &private);
        await_decision(&world, &private.id);
        for _ in 0..11 {
            deliver(&world, &ben.person, &private);
        }
        let about_it = format!("/decisions?rfc822_message_id={}", private.id);
        wait_for("all to be decided on", PATIENCE, || world.crm.list(&about_it).len() == 12);
        world.arrive(&ann.person.address, &[&asks(&ann)], &forward(&ann.person.address, &asks(&ann), &private)).unwrap();
        let answer = await_answers(&world, &ann.person, 1).remove(0);
        assert!(answer.contains("no_contact") && !answer.contains("never seen"), "{answer}");
        assert!(!answer.contains(&accounts[1]), "{answer}");
    }

    fn a_users_own_key_is_told_nothing_of_mail_that_others_were_spared(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let [ann, ben] = [("ann", "Ann Lee"), ("ben", "Ben Low")].map(|(local, name)| world.user(local, name));
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let private = Letter::new("lawyer@prospects.example", &[&ann.person.address]);
        deliver(&world, &ann.person, &private);
        await_decision(&world, &private.id);
        // A copy that nobody whom she could be sent to ask for: left out at her capture address.
        let copied = Letter::new("lawyer@prospects.example", &[&ann.person.address]);
        world.arrive("", &[&ann.capture_address], &copied).unwrap();
        await_decision(&world, &copied.id);
        let known = |crm: &crate::crm::Crm| {
            let asked = [
                "/decisions".to_owned(),
                "/decisions?address=lawyer@prospects.example".to_owned(),
                format!("/decisions?account_id={account}"),
                "/decisions?verdict=skipped".to_owned(),
                format!("/decisions?own_message_id={}", copied.id),
            ];
            asked.map(|path| crm.list(&path).len())
        };
        let [anns, bens] = [&ann, &ben].map(|user| world.crm.with_key(&world.crm.key(&["read"], Some(&user.id)).1));
        assert_eq!(known(&anns), [2, 2, 1, 2, 1]);
        assert_eq!(known(&bens), [0; 5]);
        assert_eq!(known(&world.crm), known(&anns));
        // What is filed everybody may know.
        world.crm.post("/contacts", &json!({ "email": "dora@prospects.example" }));
        let filed = Letter::new("dora@prospects.example", &[&ann.person.address]);
        deliver(&world, &ann.person, &filed);
        world.crm.await_mail("message.received", &filed.id);
        assert_eq!(known(&bens), [1, 0, 1, 0, 0]);
    }

    fn the_command_line_does_not_take_an_answer_for_the_mail_it_answers(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        world.crm.await_account(&world.connect(&ann));
        let original = Letter::new(&ann.person.address, &["dora@prospects.example"]);
        let answer = Letter::new("dora@prospects.example", &[&ann.person.address]).answering(&original.id);
        deliver(&world, &ann.person, &answer);
        await_decision(&world, &answer.id);
        assert!(command_line(&world, &answer.id, false).known);
        let unknown = command_line(&world, &original.id, false);
        assert!(!unknown.known && unknown.text.contains("never seen"), "{unknown:?}");
    }
}
