//! A user without an account takes part by reply addresses: mail is passed on both ways, and nobody learns the other's address.
//!
//! Not here: how headers are rewritten (`core::relay`).

use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    gateway::REPLY,
    letter::Letter,
    support::{PATIENCE, Person, clients::SmtpClient, wait_for},
    world::{User, World, accepted_id, assert_free_of},
};

/// Ann without an account, Bob as a contact, and a first mail of hers from the CRM.
pub struct Conversation {
    pub world: World,
    pub ann: User,
    pub bob: Person,
    pub id: String,
    /// Where Bob's answers go.
    pub towards_ann: String,
    /// The Message-ID of the first mail.
    pub first: String,
}

impl Conversation {
    pub fn start(engine: crate::support::store::Engine) -> Self {
        Self::with(engine, |_| json!({}))
    }

    /// The same with what else the first mail says.
    pub fn with(engine: crate::support::store::Engine, more: impl FnOnce(&World) -> Value) -> Self {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.set_smarthost();
        world.crm.post("/contacts", &json!({ "email": bob.address, "name": "Bob Ray" }));
        let mut body = json!({
            "from_user_id": ann.id,
            "to": [{ "email": bob.address, "name": "Bob Ray" }],
            "subject": "Ten desks",
            "text": "Here is our offer.",
        });
        let more = more(&world);
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let sent = world.crm.post("/messages", &body);
        let shown = world.crm.await_delivery(text(&sent, "id"), "sent");
        let first = text(&shown, "rfc822_message_id").to_owned();
        let mail = world.await_mail(&bob, "INBOX", &first);
        let towards_ann = sender(&mail, "Ann Lee");
        assert!(mail.contains(&format!("Return-Path: <{towards_ann}>")), "{mail}");
        assert!(mail.contains("Here is our offer."), "{mail}");
        assert_free_of(&mail, &[&ann.person.address]);
        Self { id: text(&sent, "conversation_id").to_owned(), world, ann, bob, towards_ann, first }
    }

    /// Bob answers with his own client, and what he wrote is filed.
    pub fn bob_answers(&self, letter: &Letter) -> Value {
        self.world.client_sends(&self.bob, &[&self.towards_ann], letter);
        let received = self.world.crm.await_mail("message.received", &letter.id);
        assert_eq!(text(&received["data"], "conversation_id"), self.id);
        received
    }

    pub fn messages(&self) -> Vec<Value> {
        self.world.crm.list(&format!("/conversations/{}/messages", self.id))
    }
}

/// The reply address a mail comes from, under this name.
#[track_caller]
pub fn sender(mail: &str, name: &str) -> String {
    let unfolded = mail.replace("\r\n ", " ");
    let from = unfolded.split("\r\nFrom:").nth(1).expect("From").split("\r\n").next().expect("a line");
    assert!(from.contains(name), "{from}");
    let address = from.split('<').nth(1).and_then(|rest| rest.split('>').next()).expect("an address");
    assert!(address.starts_with("r1") && address.ends_with(&format!("@{REPLY}")), "{from}");
    address.to_owned()
}

both! {
    fn what_a_user_writes_by_hand_to_a_reply_address_is_counted(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&format!("Bob Ray <{}>", bob.address), &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let towards_bob = sender(&world.await_mail(&ann.person, "INBOX", &answer.id), "Bob Ray");
        let account = world.connect(ann);
        world.crm.await_account(&account);
        let used = || world.crm.get(&format!("/users/{}/usage", ann.id))["sent_per_day"]["used"].as_u64();
        let before = used().unwrap();
        let reply = Letter::new(&ann.person.address, &[&towards_bob]).answering(&answer.id);
        world.client_sends(&ann.person, &[&towards_bob], &reply);
        world.crm.await_mail("message.sent", &reply.id);
        assert_eq!(used(), Some(before));
        world.dovecot.login(&ann.person).append("Sent", "\\Seen", &reply.raw());
        wait_for("her answer to be counted", PATIENCE, || used() == Some(before + 1));
    }

    fn answers_pass_both_ways_and_neither_side_learns_the_others_address(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&format!("Bob Ray <{}>", bob.address), &[towards_ann])
            .field("Reply-To", &bob.address)
            .field("X-Authenticated-Sender", &format!("host.example: {}", bob.address))
            .field("Resent-From", &bob.address)
            .subject("Re: Ten desks")
            .answering(first)
            .text("In oak, please.\n");
        conversation.bob_answers(&answer);

        let mail = world.await_mail(&ann.person, "INBOX", &answer.id);
        let towards_bob = sender(&mail, "Bob Ray");
        assert_ne!(&towards_bob, towards_ann);
        assert!(mail.contains("In oak, please."), "{mail}");
        assert!(mail.contains(&format!("\r\nIn-Reply-To: <{first}>\r\n")), "{mail}");
        assert!(mail.contains("\r\nX-Mailweave-Loop: "), "{mail}");
        assert_free_of(&mail, &[&bob.address, towards_ann]);

        let reply = Letter::new(&format!("Ann Lee <{}>", ann.person.address), &[&towards_bob])
            .field("X-Sender", &ann.person.address)
            .subject("Re: Ten desks")
            .answering(&answer.id)
            .text("Oak it is.\n");
        world.client_sends(&ann.person, &[&towards_bob], &reply);
        let sent = world.crm.await_mail("message.sent", &reply.id);
        assert_eq!(text(&sent["data"], "conversation_id"), conversation.id);
        let mail = world.await_mail(bob, "INBOX", &reply.id);
        assert_eq!(&sender(&mail, "Ann Lee"), towards_ann);
        assert!(mail.contains("Oak it is."), "{mail}");
        assert_free_of(&mail, &[&ann.person.address, &towards_bob]);

        world.gateway.settle();
        // Bob's answer was received, Ann's was sent, each once.
        for (id, kind) in [(&answer.id, "message.received"), (&reply.id, "message.sent")] {
            let about = |event: &&Value| event["data"]["rfc822_message_id"] == id.as_str();
            let events = world.crm.events();
            let told: Vec<_> = events.iter().filter(about).map(|event| text(event, "type")).collect();
            assert_eq!(told, [kind]);
        }
        let messages = conversation.messages();
        let told: Vec<_> = messages.iter().rev().map(|message| (text(message, "direction"), text(&message["author"], "role"))).collect();
        assert_eq!(told, [("outbound", "user"), ("inbound", "contact"), ("outbound", "user")]);
        assert_eq!(messages[0]["to"], json!([{ "email": bob.address }]));
        // One mail each, and none to anybody else.
        assert_eq!(world.dovecot.login(bob).messages("INBOX").len(), 2);
        assert_eq!(world.dovecot.login(&ann.person).messages("INBOX").len(), 1);
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
    }

    fn an_answer_that_passes_other_mail_on_reaches_its_reader_too(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let block = "---------- Forwarded message ---------\nFrom: Cora <cora@out.example>\nDate: Mon, 23 Nov 2026 at 09:00\n\
                     Subject: Desks\nTo: <bob@customer.example>\n\nWe have ten.\n";
        let answer = Letter::new(&bob.address, &[towards_ann])
            .answering(first)
            .subject("Fwd: Desks")
            .text(&format!("See below.\n\n{block}"));
        conversation.bob_answers(&answer);
        let mail = world.await_mail(&ann.person, "INBOX", &answer.id);
        assert!(mail.contains("We have ten."), "{mail}");
    }

    fn an_invitation_reaches_the_user_and_his_own_that_would_tell_his_address_waits_for_him(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let inviting = |from: &Person, to: &str, method: &str| {
            let organizer = &from.address;
            Letter::new(&from.address, &[to]).answering(first).field("Content-Type", &format!("text/calendar; method={method}")).text(
                &format!("BEGIN:VCALENDAR\nMETHOD:{method}\nBEGIN:VEVENT\nORGANIZER:mailto:{organizer}\nEND:VEVENT\nEND:VCALENDAR\n"),
            )
        };
        let invitation = inviting(bob, towards_ann, "REQUEST");
        conversation.bob_answers(&invitation);
        let mail = world.await_mail(&ann.person, "INBOX", &invitation.id);
        let towards_bob = sender(&mail, "");
        let reply = inviting(&ann.person, &towards_bob, "REPLY");
        let taken = SmtpClient::connect(world.gateway.mx()).send(&ann.person.address, &[&towards_bob], &reply.raw()).unwrap();
        let held = world.crm.await_event("message.held", |_| true);
        assert_eq!(text(&held["data"], "message_id"), accepted_id(&taken));
        let path = format!("/quarantine/{}", accepted_id(&taken));
        let shown = world.crm.get(&path);
        assert_eq!((text(&shown, "rule"), text(&shown, "user_id")), ("invitation_names_its_author", ann.id.as_str()));
        world.gateway.settle();
        assert_eq!(world.dovecot.login(bob).messages("INBOX").len(), 1);
        // It is hers to say that he may know.
        world.crm.post(&format!("{path}/release"), &json!({}));
        world.await_mail(bob, "INBOX", &reply.id);
        world.crm.await_mail("message.sent", &reply.id);
    }

    fn what_programs_send_goes_no_further_and_is_not_told_as_sent(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let towards_bob = sender(&world.await_mail(&ann.person, "INBOX", &answer.id), "");
        let ticket = Letter::new(&bob.address, &[towards_ann]).field("Auto-Submitted", "auto-generated");
        conversation.bob_answers(&ticket);
        let away = Letter::new(&ann.person.address, &[&towards_bob]).field("Auto-Submitted", "auto-replied");
        world.client_sends(&ann.person, &[&towards_bob], &away);
        world.crm.await_mail("message.captured", &away.id);
        world.gateway.settle();
        let told = world.crm.events_of("message.sent");
        assert!(told.iter().all(|event| event["data"]["rfc822_message_id"] != away.id.as_str()), "{told:?}");
        assert_eq!(world.dovecot.login(bob).messages("INBOX").len(), 1);
        assert_eq!(world.dovecot.login(&ann.person).messages("INBOX").len(), 1);
    }

    fn automatic_mail_is_filed_and_goes_no_further(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let away = Letter::new(&bob.address, &[towards_ann])
            .answering(first)
            .field("Auto-Submitted", "auto-replied");
        conversation.bob_answers(&away);
        // From the null path, and without saying that it is automatic.
        let null = Letter::new(&bob.address, &[towards_ann]).answering(first);
        SmtpClient::connect(world.postfix.mx).send("", &[towards_ann], &null.raw()).unwrap();
        world.crm.await_mail("message.received", &null.id);
        world.gateway.settle();
        assert_eq!(conversation.messages().len(), 3);
        assert_eq!(world.dovecot.login(&ann.person).messages("INBOX").len(), 0);
        assert_eq!(world.postfix.queue(), Vec::<String>::new());
    }

    fn an_answer_from_another_address_is_held(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, towards_ann, first, .. } = &conversation;
        let mallory = world.customer(2);
        let forged = Letter::new(&mallory.address, &[towards_ann]).answering(first).text("Rhabarberkompott\n");
        world.client_sends(&mallory, &[towards_ann], &forged);
        world.crm.await_event("message.held", |data| text(data, "reason").contains("other than the participant"));
        world.gateway.settle();
        assert_eq!(conversation.messages().len(), 1);
        assert_eq!(world.dovecot.login(&ann.person).messages("INBOX").len(), 0);
        assert_free_of(&world.crm.everything(), &["Rhabarberkompott", &mallory.address]);
    }

    fn a_copy_of_the_crms_own_mail_at_a_reply_address_is_held_and_decided_on_once(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let sent = text(&conversation.messages()[0], "id").to_owned();
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let towards_bob = sender(&world.await_mail(&ann.person, "INBOX", &answer.id), "");
        let path = format!("/messages/{sent}");
        let sightings = world.crm.get(&path)["sightings"].clone();
        let raw = world.crm.text(&format!("{path}/raw"));
        SmtpClient::connect(world.gateway.mx()).send(&ann.person.address, &[&towards_bob], &raw).unwrap();
        world.crm.await_event("message.held", |data| text(data, "reason").contains("the CRM sent this message"));
        let decisions = world.crm.list(&format!("/decisions?rfc822_message_id={first}"));
        let mut rules: Vec<_> = decisions.iter().map(|decision| text(decision, "rule")).collect();
        rules.sort_unstable();
        // Bob's answer names it too.
        assert_eq!(rules, ["crm_sent", "reply_address", "sent_by_crm"]);
        assert_eq!(world.crm.get(&path)["sightings"], sightings);
        world.gateway.settle();
        assert_eq!(world.dovecot.login(bob).messages("INBOX").len(), 1);
    }

    fn what_we_passed_on_is_not_taken_back(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, ann, bob, towards_ann, first, .. } = &conversation;
        let answer = Letter::new(&bob.address, &[towards_ann]).answering(first);
        conversation.bob_answers(&answer);
        let passed_on = world.await_mail(&ann.person, "INBOX", &answer.id);
        // Ann's provider forwards everything, back to where it came from or to her capture address.
        for address in [&sender(&passed_on, ""), towards_ann, &ann.capture_address] {
            let mut client = SmtpClient::connect(world.gateway.mx());
            let refused = client.send(&ann.person.address, &[address], &passed_on).unwrap_err();
            assert!(refused.code == 554 && refused.text.starts_with("5.4.6"), "{refused:?}");
        }
    }
}
