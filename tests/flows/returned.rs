//! A server takes a mail and finds out later that it cannot be delivered: its report changes the delivery's state.
//!
//! Not here: reading reports (`mail::DeliveryReport`), and the reports that we write (`delivery`).

use mailweave::sandbox::{Act, Behaviour, Service, Trigger};
use serde_json::Value;

use crate::{
    both,
    crm::text,
    letter::Letter,
    relay::Conversation,
    sandboxed::Sandboxed,
    support::{PATIENCE, clients::SmtpClient, wait_for},
    world::{World, accepted_id, assert_free_of},
};

/// A report as Postfix composes it: nothing in its header names what it is about.
pub fn report(to: &str, about: (&str, &str), action: &str) -> Letter {
    let (id, recipient) = about;
    let text = format!(
        "--b\nContent-Type: text/plain\n\nI am sorry to have to tell you.\n--b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mail.example.test\n\n\
         Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: 5.2.2\n\
         Diagnostic-Code: smtp; 552 5.2.2 Mailbox full\n\n--b\n\
         Content-Type: text/rfc822-headers\n\nMessage-ID: <{id}>\nSubject: Eierschalensollbruchstelle\n\n--b--\n"
    );
    Letter::new("Mail Delivery System <MAILER-DAEMON@mail.example.test>", &[to])
        .field("MIME-Version", "1.0")
        .field("Auto-Submitted", "auto-replied")
        .field("Content-Type", "multipart/report; report-type=delivery-status; boundary=b")
        .text(&text)
}

/// The only recipient of a message.
fn recipient(message: &Value) -> &Value {
    &message["delivery"]["recipients"][0]
}

both! {
    fn a_report_at_the_reply_address_tells_that_the_mail_came_back(engine) {
        let conversation = Conversation::start(engine);
        let Conversation { world, bob, ann, towards_ann, first, .. } = &conversation;
        let arrives = |letter: &Letter| {
            SmtpClient::connect(world.gateway.mx()).send("", &[towards_ann], &letter.raw()).unwrap();
            world.crm.await_mail("message.received", &letter.id);
        };
        // A delay changes nothing. What is about other mail anybody can have written: it is Ann's to decide about.
        arrives(&report(towards_ann, (first, &bob.address), "delayed"));
        let other = report(towards_ann, ("other@clients.example.test", &bob.address), "failed");
        let no_report = Letter::new("postmaster@mail.example.test", &[towards_ann])
            .subject("Undelivered Mail Returned to Sender")
            .field("X-Failed-Recipients", &bob.address);
        for other in [&other, &no_report] {
            let taken = SmtpClient::connect(world.gateway.mx()).send("", &[towards_ann], &other.raw()).unwrap();
            let path = format!("/quarantine/{}", accepted_id(&taken));
            wait_for("it to be held", PATIENCE, || world.crm.ask(&path).body["state"] == "held");
            let held = world.crm.get(&path);
            assert_eq!((text(&held, "rule"), text(&held, "user_id")), ("report_on_other_mail", ann.id.as_str()));
        }
        assert_eq!(world.crm.events_of("message.bounced"), Vec::<Value>::new());

        let failed = report(towards_ann, (first, &bob.address), "failed");
        arrives(&failed);
        let bounced = world.crm.await_mail("message.bounced", first);
        let shown = world.crm.await_delivery(text(&bounced["data"], "message_id"), "bounced");
        let told = recipient(&shown);
        assert_eq!((text(told, "state"), told["code"].as_u64()), ("bounced", Some(552)));
        assert!(text(told, "text").contains("Mailbox full"), "{told}");
        // Once more it tells nothing new.
        arrives(&report(towards_ann, (first, &bob.address), "failed"));
        world.gateway.settle();
        assert_eq!(world.crm.events_of("message.bounced").len(), 1);
        assert_eq!(world.crm.events_of("message.held").len(), 2);
        let messages = conversation.messages();
        assert_eq!(messages.iter().filter(|message| message["kind"] == "bounce").count(), 3);
        // Nothing is passed on; the one mail is our own report, to the reverse-path that the CRM sent it from.
        let mails = world.dovecot.login(&ann.person).messages("INBOX");
        let [mail] = &mails[..] else { panic!("one mail: {mails:?}") };
        assert!(mail.contains("Return-Path: <>") && mail.contains(first), "{mail}");
    }

    fn a_report_in_the_senders_mailbox_tells_it_too_and_others_stay_private(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        world.crm.await_account(&world.connect(&ann));
        let letter = Letter::new(&ann.person.address, &[&bob.address]);
        let taken = world.hand_in(&ann, &world.smtp_key(), &[&bob.address], &letter).unwrap();
        let message = accepted_id(&taken);
        world.crm.await_delivery(&message, "sent");

        let private = report(&ann.person.address, ("private@clients.example.test", &bob.address), "failed");
        let ours = report(&ann.person.address, (&letter.id, &bob.address), "failed");
        for report in [&private, &ours] {
            world.dovecot.deliver("", &ann.person, &report.raw()).unwrap();
        }
        world.crm.await_mail("message.bounced", &letter.id);
        let shown = world.crm.await_delivery(&message, "bounced");
        assert!(text(recipient(&shown), "text").contains("Mailbox full"), "{shown}");
        let filed = world.crm.await_mail("message.received", &ours.id);
        assert_eq!(filed["data"]["conversation_id"], shown["conversation_id"]);

        let path = format!("/decisions?rfc822_message_id={}", private.id);
        wait_for("the other report to be left out", PATIENCE, || world.crm.list(&path).len() == 1);
        assert_eq!(world.crm.list(&path)[0]["verdict"], "skipped");
        // Our own report comes to her too, since the CRM sends from her address. It tells nothing new.
        let mut own = None;
        wait_for("our own report", PATIENCE, || {
            let mails = world.dovecot.login(&ann.person).messages("INBOX");
            let ids = mails.iter().filter_map(|mail| mail.split("\r\nMessage-ID: <").nth(1)?.split('>').next());
            own = ids.map(str::to_owned).find(|id| id.ends_with("@gateway.example.test"));
            own.is_some()
        });
        let own = own.expect("the wait has ended");
        let path = format!("/decisions?rfc822_message_id={own}");
        wait_for("our own report to be left out", PATIENCE, || world.crm.list(&path).len() == 1);
        world.gateway.settle();
        assert_free_of(&world.crm.everything(), &[&private.id]);
        assert_eq!(world.crm.messages().len(), 2);
        assert_eq!(world.crm.events_of("message.bounced").len(), 1);
    }

    fn who_comes_back_as_the_last_in_doubt_lets_the_mail_be_told_as_sent(engine) {
        let world = Sandboxed::start(engine, Behaviour::smarthost());
        let (ann, bob, cora) = (world.user("ann", "Ann Lee"), world.prospect("bob"), world.prospect("cora"));
        world.set_smarthost(&ann.person);
        // Each gets a letter of his own, from an address of his own; of the second one the answer is lost.
        world.provider().arm(Trigger::nth(Service::Submission, "DOT", 2), Act::Drop);
        let mut client = world.workspace_client();
        let letter = Letter::new(&ann.person.address, &[&bob.address, &cora.address]);
        let taken = client.send(&ann.person.address, &[&bob.address, &cora.address], &letter.raw()).unwrap();
        let message = accepted_id(&taken);
        world.crm.await_delivery(&message, "uncertain");
        let said = |verb| world.heard(Service::Submission, verb).pop().expect("it was said");
        let address = |line: &str| line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned());
        let (reply, doubted) = (address(&said("MAIL")).unwrap(), address(&said("RCPT")).unwrap());
        let failed = report(&reply, (&letter.id, &doubted), "failed");
        SmtpClient::connect(world.gateway.mx()).send("", &[&reply], &failed.raw()).unwrap();
        world.crm.await_delivery(&message, "sent");
        let told = |kind| world.crm.events_of(kind).iter().filter(|event| event["data"]["message_id"] == message.as_str()).count();
        assert_eq!((told("message.bounced"), told("message.sent")), (1, 1));
    }
}
