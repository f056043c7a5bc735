//! Who sent a mail, proven by DNS: what becomes of copies and of answers at reply addresses, with signatures as providers make
//! them and a name server that can fall silent.
//!
//! Not here: what is done where nobody publishes anything (`trust`), and the checks one by one (`tests/senders.rs`).

use mailweave::{
    config::{Config, DomainName, NameServer},
    mail::Address,
    sandbox::Behaviour,
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    relay, returned,
    sandboxed::{ACME, PROSPECTS, Sandboxed},
    support::{
        PATIENCE, Person,
        clients::SmtpClient,
        dns::{Dns, Failure, Zone},
        signer::Signer,
        store::Engine,
        wait_for,
    },
    world::{User, accepted_id, assert_free_of},
};

const BOB: &str = "bob@prospects.example";
const MALLORY: &str = "mallory@evil.example";
/// A word that is in nothing but the mail that must not show.
const SECRET: &str = "Rhabarberkompott";

/// What these domains publish who sign and send from here.
pub fn proving(domains: &[&str]) -> Zone {
    let mut zone = Zone::default().address("localhost", "127.0.0.1");
    for domain in domains {
        let (name, key) = Signer::new(domain).record();
        zone = zone
            .txt(&name, &key)
            .txt(domain, "v=spf1 ip4:127.0.0.1 -all")
            .txt(&format!("_dmarc.{domain}"), "v=DMARC1; p=none");
    }
    zone
}

/// The servers of this domain do not answer.
fn silent(mut zone: Zone, domain: &str) -> Zone {
    for name in ["", "_dmarc.", "s1._domainkey."] {
        zone = zone.failing(&format!("{name}{domain}"), Failure::ServFail);
    }
    zone
}

pub struct Proof {
    pub world: Sandboxed,
    dns: Dns,
}

/// An answer is awaited: Ann takes part without an account, and has written to Bob.
struct Asked {
    ann: User,
    conversation: String,
    /// The Message-ID of her mail.
    first: String,
    towards_ann: String,
}

impl Proof {
    /// Nobody is trusted, and names are as this zone says.
    pub fn start(engine: Engine, zone: Zone) -> Self {
        Self::with(engine, zone, |_| {})
    }

    fn with(engine: Engine, zone: Zone, adjust: impl FnOnce(&mut Config)) -> Self {
        let dns = Dns::start(zone);
        // Its provider passes on what comes from reply addresses.
        let behaviour = Behaviour { any_sender: true, ..Behaviour::default() };
        let world = Sandboxed::with(engine, behaviour, |config: &mut Config| {
            config.smtp.mx.trusted_peers = Some(Vec::new());
            config.dns.servers = vec![NameServer(dns.address())];
            adjust(config);
        });
        Self { world, dns }
    }

    fn asked(&self) -> Asked {
        let world = &self.world;
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        world.set_smarthost(&world.person("relay@acme.example"));
        world.crm.post("/contacts", &json!({ "email": bob.address, "name": "Bob Ray" }));
        let sent = world.post_message(&ann, &[&bob.address], "Ten desks");
        let shown = world.crm.await_delivery(&sent, "sent");
        let first = text(&shown, "rfc822_message_id").to_owned();
        let mut mails = Vec::new();
        wait_for("her mail", PATIENCE, || {
            mails = world.mails(&bob, "INBOX", &first);
            !mails.is_empty()
        });
        let towards_ann = relay::sender(&mails[0], "Ann Lee");
        Asked { ann, conversation: text(&shown, "conversation_id").to_owned(), first, towards_ann }
    }

    /// It comes to the MX listener; returns the id.
    pub fn arrive(&self, mail_from: &str, to: &str, raw: &str) -> String {
        let mut client = SmtpClient::connect(self.world.gateway.mx());
        accepted_id(&client.send(mail_from, &[to], raw).unwrap())
    }

    /// What lies in quarantine under this id, once it is in this state.
    pub fn await_kept(&self, id: &str, state: &str) -> Value {
        let mut found = Value::Null;
        wait_for(&format!("mail to be {state}"), PATIENCE, || {
            found = self.world.crm.ask(&format!("/quarantine/{id}")).body;
            found["state"] == state
        });
        found
    }

    pub fn verification(&self, id: &str) -> Value {
        self.world.crm.get(&format!("/messages/{id}"))["verification"].clone()
    }

    /// What the user got by mail.
    fn inbox(&self, person: &Person) -> String {
        let mails = self.world.provider().inbox(&Address::parse(&person.address).unwrap());
        mails.iter().map(|mail| String::from_utf8_lossy(&mail.raw).into_owned()).collect()
    }

    /// It reaches the user as mail.
    fn await_passed_on(&self, to: &Person, letter: &Letter) {
        wait_for("the answer to be passed on", PATIENCE, || {
            self.world.mails(to, "INBOX", &letter.id).len() == 1
        });
    }

    /// Of what was held nothing shows, and nobody was sent it.
    fn assert_nothing_of_it(&self, asked: &Asked) {
        self.world.gateway.settle();
        assert_eq!(self.world.crm.messages().len(), 1);
        assert_free_of(&self.world.crm.everything(), &[SECRET]);
        assert_free_of(&self.inbox(&asked.ann.person), &[SECRET]);
    }
}

impl Asked {
    /// What Bob writes, or whoever writes in his name.
    fn answer(&self) -> Letter {
        Letter::new("Bob Ray <bob@prospects.example>", &[&self.towards_ann])
            .answering(&self.first)
            .subject("Re: Ten desks")
            .text(&format!("In oak, please. {SECRET}\n"))
    }
}

pub fn signed(domain: &str, letter: &Letter) -> String {
    Signer::new(domain).sign(&letter.raw().replace('\n', "\r\n"))
}

both! {
    fn an_answer_that_its_provider_signed_is_filed_and_passed_on(engine) {
        let proof = Proof::start(engine, proving(&[PROSPECTS]));
        let asked = proof.asked();
        let answer = asked.answer();
        let id = proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &answer));
        let received = proof.world.crm.await_mail("message.received", &answer.id);
        assert_eq!(text(&received["data"], "conversation_id"), asked.conversation);
        let verification = proof.verification(&id);
        assert_eq!((text(&verification, "level"), text(&verification, "rule")), ("e3", "answer_signed"));
        proof.await_passed_on(&asked.ann.person, &answer);
        // A server of his own domain's says as much as that.
        let second = asked.answer();
        let id = proof.arrive(BOB, &asked.towards_ann, &second.raw());
        proof.await_passed_on(&asked.ann.person, &second);
        let verification = proof.verification(&id);
        assert_eq!((text(&verification, "level"), text(&verification, "mark")), ("e2", "not_signed"));
        assert_eq!(proof.world.crm.list("/quarantine"), Vec::<Value>::new());
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn an_answer_in_the_participants_name_that_nothing_proves_goes_nowhere(engine) {
        let proof = Proof::start(engine, proving(&[PROSPECTS, "evil.example"]));
        let asked = proof.asked();
        let from = "From: Bob Ray <bob@prospects.example>";
        let also = "From: Mallory <mallory@evil.example>";
        let with_two = |fields: &str| asked.answer().raw().replace(from, fields);
        let forged = [
            (MALLORY, asked.answer().raw(), "dmarc_fail"),
            ("", asked.answer().raw(), "dmarc_fail"),
            (MALLORY, signed("evil.example", &asked.answer()), "dmarc_fail"),
            (MALLORY, signed(PROSPECTS, &asked.answer()).replace("In oak", "In gold"), "dmarc_fail"),
            (MALLORY, with_two(&format!("{from}\n{also}")), "ambiguous_from"),
            (MALLORY, with_two(&format!("{from}, mallory@evil.example")), "ambiguous_from"),
            (BOB, with_two(&format!("{from}\nFrom : bob@prospects.example")), "ambiguous_from"),
        ];
        for (mail_from, raw, rule) in &forged {
            let held = proof.await_kept(&proof.arrive(mail_from, &asked.towards_ann, raw), "held");
            assert_eq!((text(&held, "rule"), text(&held, "level")), (*rule, "e0"), "{raw}");
            assert_eq!(held["user_id"], asked.ann.id.as_str());
            assert!(!text(&held, "reason").is_empty());
        }
        // It is filed and passed on no more for being automatic.
        let automatic = asked.answer().field("Auto-Submitted", "auto-replied");
        proof.await_kept(&proof.arrive(MALLORY, &asked.towards_ann, &automatic.raw()), "held");
        // Nor for calling itself a report on mail.
        let report = asked
            .answer()
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/report; report-type=delivery-status; boundary=b")
            .text(&format!(
                "--b\nContent-Type: text/plain\n\n{SECRET}\n--b\nContent-Type: message/delivery-status\n\n\
                 Reporting-MTA: dns; mail.example.test\n\nFinal-Recipient: rfc822; {BOB}\nAction: failed\n\
                 Status: 5.2.2\n\n--b--\n"
            ));
        proof.await_kept(&proof.arrive("", &asked.towards_ann, &report.raw()), "held");
        proof.assert_nothing_of_it(&asked);
        assert_eq!(proof.world.crm.events_of("message.received"), Vec::<Value>::new());
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn what_was_written_to_others_is_no_answer_to_whom_it_is_sent_on(engine) {
        let proof = Proof::start(engine, proving(&[ACME, PROSPECTS]));
        let asked = proof.asked();
        let answer = asked.answer();
        proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &answer));
        proof.await_passed_on(&asked.ann.person, &answer);
        let mails = proof.world.mails(&asked.ann.person, "INBOX", &answer.id);
        let towards_bob = relay::sender(&mails[0], "Bob Ray");
        // Mallory got mail of both, and has seen the reply addresses.
        for (from, domain, towards) in
            [(BOB, PROSPECTS, &asked.towards_ann), (&asked.ann.person.address, ACME, &towards_bob)]
        {
            let letter = Letter::new(from, &[MALLORY]).text(&format!("Yes, agreed. {SECRET}\n"));
            let held = proof.await_kept(&proof.arrive(MALLORY, towards, &signed(domain, &letter)), "held");
            assert_eq!((text(&held, "rule"), text(&held, "level")), ("answer_unaddressed", "e0"));
            assert_eq!(held["user_id"], asked.ann.id.as_str());
        }
        // An invitation in her name is no more hers than a letter.
        let invitation = Letter::new(&asked.ann.person.address, &[&towards_bob])
            .field("Content-Type", "text/calendar; method=REQUEST")
            .text("BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n");
        let held = proof.await_kept(&proof.arrive(MALLORY, &towards_bob, &invitation.raw()), "held");
        assert_eq!(text(&held, "rule"), "dmarc_fail");
        // What is not signed says what Mallory has written into it.
        let letter = Letter::new(BOB, &[MALLORY]).text(&format!("Yes, agreed. {SECRET}\n"));
        let altered = signed(PROSPECTS, &letter).replace("To: mallory", &format!("Cc: {}\r\nTo: mallory", asked.towards_ann));
        assert!(altered.contains("\r\nCc: r1"), "{altered}");
        let held = proof.await_kept(&proof.arrive(MALLORY, &asked.towards_ann, &altered), "held");
        assert_eq!(text(&held, "rule"), "answer_unaddressed");
        // Nothing could be known again by that.
        let trusting = proof.world.crm.try_post(&format!("/quarantine/{}/release", text(&held, "id")), &json!({ "trust": true }));
        assert_eq!((trusting.status, text(&trusting.body, "code")), (409, "nothing_to_trust"));
        // In a blind copy it is an answer where it comes from his own servers.
        let letter = Letter::new(BOB, &["carl@prospects.example"]).answering(&asked.first);
        proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &letter));
        proof.await_passed_on(&asked.ann.person, &letter);
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn whether_an_answer_was_meant_for_where_it_came_waits_for_dns(engine) {
        let names = || proving(&[PROSPECTS]);
        let proof = Proof::start(engine, names().failing(PROSPECTS, Failure::ServFail));
        let asked = proof.asked();
        // Signed, and in a blind copy: its servers must speak for it.
        let letter = Letter::new(BOB, &["carl@prospects.example"]).answering(&asked.first);
        let id = proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &letter));
        proof.await_kept(&id, "checking");
        proof.world.gateway.settle();
        proof.dns.set(names());
        proof.world.gateway.hasten();
        proof.await_passed_on(&asked.ann.person, &letter);
        assert_eq!(text(&proof.verification(&id), "rule"), "answer_signed");
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn reports_that_anybody_can_write_hold_up_no_answer(engine) {
        let proof = Proof::start(engine, proving(&[PROSPECTS]));
        let asked = proof.asked();
        for _ in 0..32 {
            let report = returned::report(&asked.towards_ann, (&asked.first, BOB), "delayed");
            proof.arrive("", &asked.towards_ann, &report.raw());
        }
        let mut held = Vec::new();
        wait_for("one to be too many", PATIENCE, || {
            held = proof.world.crm.list("/quarantine");
            !held.is_empty()
        });
        assert!(held.iter().all(|held| text(held, "rule") == "possible_loop"), "{held:?}");
        let answer = asked.answer();
        proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &answer));
        proof.await_passed_on(&asked.ann.person, &answer);
    }

    fn mail_that_waits_for_one_person_is_not_what_waits_for_another(engine) {
        let proof = Proof::start(engine, proving(&[PROSPECTS]));
        let asked = proof.asked();
        let ben = proof.world.user("ben", "Ben Low");
        let answer = asked.answer();
        // To both at once, as two transactions and as one.
        let as_copy = proof.await_kept(&proof.arrive(MALLORY, &ben.capture_address, &answer.raw()), "held");
        let as_answer = proof.await_kept(&proof.arrive(MALLORY, &asked.towards_ann, &answer.raw()), "held");
        let rules = [&as_copy, &as_answer].map(|held| text(held, "rule"));
        assert_eq!(rules, ["capture_sender_unknown", "dmarc_fail"]);
        assert_eq!((&as_copy["user_id"], &as_answer["user_id"]), (&Value::Null, &json!(asked.ann.id)));
        let second = asked.answer();
        let mut client = SmtpClient::connect(proof.world.gateway.mx());
        let both = client.send(MALLORY, &[&ben.capture_address, &asked.towards_ann], &second.raw()).unwrap();
        assert_eq!(proof.await_kept(&accepted_id(&both), "held")["user_id"], asked.ann.id.as_str());
        // Once more to where it came is once.
        proof.arrive("bounces@evil.example", &asked.towards_ann, &answer.raw());
        let decisions = format!("/decisions?rfc822_message_id={}", answer.id);
        wait_for("the third to be decided about", PATIENCE, || {
            proof.world.crm.list(&decisions).iter().any(|decision| decision["rule"] == "held_already")
        });
        assert_eq!(proof.world.crm.list("/quarantine").len(), 3);
    }

    fn what_strangers_send_to_a_reply_address_pushes_nothing_of_the_users_out(engine) {
        let nothing = "v=spf1 -all";
        let proof = Proof::start(engine, proving(&[]).txt(ACME, nothing).txt(PROSPECTS, nothing));
        let asked = proof.asked();
        let letter = Letter::new(&asked.ann.person.address, &[BOB]);
        let own = proof.arrive(MALLORY, &asked.ann.capture_address, &letter.raw());
        assert_eq!(text(&proof.await_kept(&own, "held"), "level"), "e1");
        let answer = proof.arrive(MALLORY, &asked.towards_ann, &asked.answer().raw());
        assert_eq!(text(&proof.await_kept(&answer, "held"), "level"), "e0");
        let mut last = String::new();
        for number in 0..201 {
            let letter = Letter::new(&format!("m{number}@evil.example"), &[&asked.towards_ann]);
            last = proof.arrive("", &asked.towards_ann, &letter.raw());
        }
        assert_eq!(text(&proof.await_kept(&last, "held"), "rule"), "reply_from_other_address");
        proof.world.gateway.settle();
        for id in [&own, &answer] {
            assert_eq!(proof.world.crm.get(&format!("/quarantine/{id}"))["state"], "held");
        }
        assert_eq!(proof.world.crm.list("/quarantine?state=expired").len(), 3);
    }

    fn an_answer_that_a_person_lets_in_is_filed_and_passed_on(engine) {
        let proof = Proof::start(engine, proving(&[PROSPECTS]));
        let asked = proof.asked();
        let crm = &proof.world.crm;
        let by_relay = |letter: &Letter| proof.arrive("bounces@relay.example", &asked.towards_ann, &letter.raw());
        let answer = asked.answer();
        let id = by_relay(&answer);
        let held = proof.await_kept(&id, "held");
        // Hers to decide: it came to her.
        let anns = crm.with_key(&crm.key(&["read", "write"], Some(&asked.ann.id)).1);
        let released = anns.post(&format!("/quarantine/{id}/release"), &json!({}));
        assert_eq!(text(&released, "state"), "released");
        let received = crm.await_mail("message.received", &answer.id);
        assert_eq!(received["data"]["message_id"], id.as_str());
        assert_eq!(text(&received["data"], "conversation_id"), asked.conversation);
        proof.await_passed_on(&asked.ann.person, &answer);
        let shown = proof.verification(&id);
        let told = (text(&shown, "level"), text(&shown, "rule"), text(&shown, "mark"));
        assert_eq!(told, ("e0", text(&held, "rule"), "released"));
        assert_eq!(shown["released_by"], released["settled_by"]);
        let message = crm.get(&format!("/messages/{id}"));
        assert_eq!(message["received_at"], held["received_at"]);
        // Once is once.
        proof.await_kept(&by_relay(&asked.answer()), "held");
        // Somebody else's stays somebody else's, and is passed on when a person says so.
        let other = Letter::new("Carl <carl@prospects.example>", &[&asked.towards_ann]).answering(&asked.first);
        let id = proof.arrive("carl@prospects.example", &asked.towards_ann, &signed(PROSPECTS, &other));
        assert_eq!(text(&proof.await_kept(&id, "held"), "rule"), "reply_from_other_address");
        crm.post(&format!("/quarantine/{id}/release"), &json!({}));
        proof.await_passed_on(&asked.ann.person, &other);
        assert_eq!(proof.verification(&id)["released_by"], "admin");
        proof.world.gateway.settle();
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn an_answer_by_a_route_that_was_chosen_to_be_trusted_goes_through(engine) {
        // His mail comes by a forwarder that signs it, and his domain asks for nothing to be done about that.
        let proof = Proof::start(engine, proving(&[PROSPECTS, "lists.example"]));
        let asked = proof.asked();
        let by_list = |letter: &Letter| {
            proof.arrive("bounces@lists.example", &asked.towards_ann, &signed("lists.example", letter))
        };
        let id = by_list(&asked.answer());
        assert_eq!(text(&proof.await_kept(&id, "held"), "rule"), "dmarc_fail");
        proof.world.crm.post(&format!("/quarantine/{id}/release"), &json!({ "trust": true }));
        let next = asked.answer();
        let id = by_list(&next);
        proof.await_passed_on(&asked.ann.person, &next);
        assert_eq!(text(&proof.verification(&id), "rule"), "pinned_route");
        proof.await_kept(&proof.arrive(MALLORY, &asked.towards_ann, &asked.answer().raw()), "held");
        // Of a contact that is deleted nothing is known any more.
        let contacts = proof.world.crm.list("/contacts");
        proof.world.crm.delete(&format!("/contacts/{}", text(&contacts[0], "id")));
        proof.await_kept(&by_list(&asked.answer()), "held");
    }

    fn an_answer_that_a_trusted_list_passed_on_goes_through(engine) {
        let zone = proving(&["lists.example", "evil.example"]).txt("_dmarc.prospects.example", "v=DMARC1; p=reject");
        let proof = Proof::with(engine, zone, |config| {
            config.smtp.mx.trusted_sealers = vec![DomainName::parse("lists.example").unwrap()];
        });
        let asked = proof.asked();
        let passed_on = |by: &str, found: &str, letter: &Letter| {
            let footed = format!("{}-- \nThe list\n", letter.raw()).replace('\n', "\r\n");
            proof.arrive(&format!("bounces@{by}"), &asked.towards_ann, &Signer::new(by).seal(&footed, found))
        };
        let found = "dkim=pass header.d=prospects.example; dmarc=pass (p=reject) header.from=prospects.example";
        let letter = asked.answer();
        let id = passed_on("lists.example", found, &letter);
        proof.await_passed_on(&asked.ann.person, &letter);
        assert_eq!(text(&proof.verification(&id), "rule"), "sealed");
        for (by, found) in [
            ("evil.example", found),
            ("lists.example", "dkim=fail header.d=prospects.example; dmarc=fail header.from=prospects.example"),
            ("lists.example", "dmarc=pass header.from=evil.example"),
        ] {
            let id = passed_on(by, found, &asked.answer());
            assert_eq!(text(&proof.await_kept(&id, "held"), "rule"), "dmarc_fail", "{by}: {found}");
        }
    }

    fn an_answer_is_to_be_proven_as_far_as_its_domain_lets_it_be(engine) {
        let spf = |record: &str| proving(&[]).txt(PROSPECTS, record);
        let rows = [
            (proving(&[]), None),
            // Published, and not by what the mail came.
            (spf("v=spf1 ip4:192.0.2.1 ~all"), Some("answer_unproven")),
            (spf("v=spf1 ip4:192.0.2.1 ?all"), Some("answer_unproven")),
            (spf("google-site-verification=x"), None),
        ];
        for (zone, rule) in rows {
            let proof = Proof::start(engine, zone);
            let asked = proof.asked();
            for mail_from in [BOB, MALLORY, ""] {
                let answer = asked.answer();
                let id = proof.arrive(mail_from, &asked.towards_ann, &answer.raw());
                if let Some(rule) = rule {
                    assert_eq!(text(&proof.await_kept(&id, "held"), "rule"), rule, "from {mail_from}");
                } else {
                    proof.world.crm.await_mail("message.received", &answer.id);
                    assert_eq!(text(&proof.verification(&id), "rule"), "answer_nothing_published");
                    assert_eq!(text(&proof.verification(&id), "mark"), "unverified");
                }
            }
        }
    }

    fn an_answer_waits_while_name_servers_are_silent_and_then_goes_its_way_by_itself(engine) {
        let proof = Proof::start(engine, silent(proving(&[PROSPECTS]), PROSPECTS));
        let asked = proof.asked();
        let genuine = asked.answer();
        let forged = asked.answer();
        let id = proof.arrive(BOB, &asked.towards_ann, &signed(PROSPECTS, &genuine));
        let forged_id = proof.arrive(MALLORY, &asked.towards_ann, &forged.raw());
        for id in [&id, &forged_id] {
            let kept = proof.await_kept(id, "checking");
            assert_eq!(kept["user_id"], asked.ann.id.as_str());
        }
        proof.assert_nothing_of_it(&asked);
        proof.dns.set(proving(&[PROSPECTS]));
        proof.world.gateway.hasten();
        let received = proof.world.crm.await_mail("message.received", &genuine.id);
        assert_eq!(text(&received["data"], "conversation_id"), asked.conversation);
        assert_eq!(received["data"]["message_id"], id.as_str());
        proof.await_passed_on(&asked.ann.person, &genuine);
        assert_eq!(text(&proof.await_kept(&forged_id, "held"), "rule"), "dmarc_fail");
        assert_eq!(proof.await_kept(&id, "released")["settled_by"], "rule:reply_address");
        assert_free_of(&proof.world.crm.everything(), &[&forged.id]);
        proof.world.gateway.settle();
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn a_copy_that_its_users_provider_signed_is_filed_at_once(engine) {
        let proof = Proof::start(engine, proving(&[ACME]));
        let ann = proof.world.user("ann", "Ann Lee");
        for (level, rule, mark) in [("e2", "new_route", json!("new_sending_route")), ("e3", "signed", Value::Null)] {
            let letter = Letter::new(&ann.person.address, &[BOB]);
            let id = proof.arrive(&ann.person.address, &ann.capture_address, &signed(ACME, &letter));
            let captured = proof.world.crm.await_mail("message.captured", &letter.id);
            assert_eq!(captured["data"]["message_id"], id.as_str());
            let shown = proof.verification(&id);
            assert_eq!((text(&shown, "level"), text(&shown, "rule"), &shown["mark"]), (level, rule, &mark));
            assert_eq!(shown["route"], "signed by acme.example via itself");
        }
        // The same by somebody else's server was sent on.
        let letter = Letter::new(&ann.person.address, &[BOB]);
        let id = proof.arrive(MALLORY, &ann.capture_address, &signed(ACME, &letter));
        assert_eq!(text(&proof.await_kept(&id, "held"), "rule"), "passed_on");
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn a_copy_waits_while_name_servers_are_silent_and_lands_where_it_would_have(engine) {
        let proof = Proof::start(engine, silent(proving(&[ACME, PROSPECTS]), PROSPECTS));
        let (world, crm) = (&proof.world, &proof.world.crm);
        let ann = world.user("ann", "Ann Lee");
        let carl = User::add(crm, world.prospect("carl"), "Carl Orr");
        let dora = "dora@else.example";
        let begun = Letter::new(&ann.person.address, &[dora, &carl.person.address]);
        proof.arrive(&ann.person.address, &ann.capture_address, &signed(ACME, &begun));
        let begun_in = crm.await_mail("message.captured", &begun.id);
        let answer = Letter::new(&carl.person.address, &[dora, &ann.person.address]).answering(&begun.id);
        let id = proof.arrive(&carl.person.address, &carl.capture_address, &signed(PROSPECTS, &answer));
        let kept = proof.await_kept(&id, "checking");
        world.gateway.settle();
        assert_eq!(crm.messages().len(), 1);
        assert_eq!(crm.ask(&format!("/messages/{id}")).status, 404);
        // Asked again for nothing, it stays.
        world.gateway.hasten();
        world.gateway.settle();
        assert_eq!(proof.await_kept(&id, "checking")["received_at"], kept["received_at"]);
        proof.dns.set(proving(&[ACME, PROSPECTS]));
        world.gateway.hasten();
        let captured = crm.await_mail("message.captured", &answer.id);
        assert_eq!(captured["data"]["conversation_id"], begun_in["data"]["conversation_id"]);
        assert_eq!(captured["data"]["message_id"], id.as_str());
        assert_eq!(crm.get(&format!("/messages/{id}"))["received_at"], kept["received_at"]);
        assert_eq!(text(&proof.verification(&id), "rule"), "new_route");
        world.gateway.settle();
        assert_eq!(crm.list("/quarantine"), Vec::<Value>::new());
        assert_eq!(crm.events_of("message.held"), Vec::<Value>::new());
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_question_whose_sender_was_checked_late_leaves_nothing_in_quarantine(engine) {
        let proof = Proof::start(engine, silent(proving(&[ACME]), ACME));
        let ann = proof.world.user("ann", "Ann Lee");
        let question = Letter::new(&ann.person.address, &[BOB]).subject("Fwd: why?");
        let why = ann.capture_address.replace('@', "+why@");
        let id = proof.arrive(&ann.person.address, &why, &question.raw());
        proof.await_kept(&id, "checking");
        proof.dns.set(proving(&[ACME]));
        proof.world.gateway.hasten();
        let settled = proof.await_kept(&id, "rejected");
        assert_eq!(settled["settled_by"], "rule:question");
        proof.world.gateway.settle();
        assert_eq!(proof.world.crm.list("/quarantine"), Vec::<Value>::new());
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }

    fn what_is_let_in_while_it_is_checked_says_who_let_it_in(engine) {
        let proof = Proof::start(engine, silent(proving(&[ACME]), ACME));
        let ann = proof.world.user("ann", "Ann Lee");
        let letter = Letter::new(&ann.person.address, &[BOB]);
        let id = proof.arrive(&ann.person.address, &ann.capture_address, &signed(ACME, &letter));
        proof.await_kept(&id, "checking");
        proof.world.gateway.settle();
        proof.world.crm.post(&format!("/quarantine/{id}/release"), &json!({}));
        proof.world.crm.await_mail("message.captured", &letter.id);
        let shown = proof.verification(&id);
        let told = (text(&shown, "level"), text(&shown, "rule"), text(&shown, "mark"));
        assert_eq!(told, ("e1", "released_unchecked", "released"));
        assert_eq!(shown["released_by"], "admin");
        assert_eq!(proof.world.gateway.audit(), [""; 0]);
    }
}
