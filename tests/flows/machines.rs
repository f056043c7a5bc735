//! Mail that programs write for people: read receipts and invitations are filed for what they are and make nothing.
//!
//! Not here: by what they are told (`mail::message`), and reports of failed delivery (`returned`).

use mailweave::sandbox::Behaviour;
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
    why::deliver,
    world::User,
};

const BOB: &str = "bob@prospects.example";

/// Bob's program tells Ann that her mail was read, and names it in the report alone.
fn receipt(ann: &User, about: &str) -> Letter {
    Letter::new(BOB, &[&ann.person.address])
        .subject("Read: Ten desks")
        .field("MIME-Version", "1.0")
        .field("Content-Type", "multipart/report; report-type=disposition-notification; boundary=b")
        .text(&format!(
            "--b\nContent-Type: text/plain\n\nYour message was read.\n\
             --b\nContent-Type: message/disposition-notification\n\n\
             Final-Recipient: rfc822;{BOB}\nOriginal-Message-ID: <{about}>\n\
             Disposition: manual-action/MDN-sent-manually; displayed\n--b--\n"
        ))
}

/// A calendar's mail, or a letter that has a calendar in it.
fn scheduling(user: &User, method: &str, disposition: &str) -> Letter {
    let kind = if disposition == "inline" { "alternative" } else { "mixed" };
    let (parameter, calendar) = if disposition == "inline" {
        (format!("; method={method}"), method)
    } else {
        (String::new(), method)
    };
    Letter::new(&user.person.address, &[BOB])
        .field("MIME-Version", "1.0")
        .field("Content-Type", &format!("multipart/{kind}; boundary=b"))
        .text(&format!(
            "--b\nContent-Type: text/plain\n\nShall we meet?\n\
             --b\nContent-Type: text/calendar; charset=utf-8{parameter}\nContent-Disposition: {disposition}\n\n\
             BEGIN:VCALENDAR\nMETHOD:{calendar}\nBEGIN:VEVENT\nUID:1\nEND:VEVENT\nEND:VCALENDAR\n--b--\n"
        ))
}

both! {
    fn a_read_receipt_lies_with_the_mail_that_it_is_about_and_changes_nothing(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let bob = world.prospect("bob");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let sent = world.post_message(&ann, &[&bob.address], "Ten desks");
        let shown = world.crm.await_delivery(&sent, "sent");
        let receipt = receipt(&ann, text(&shown, "rfc822_message_id"));
        deliver(&world, &ann.person, &receipt);
        let event = world.crm.await_mail("message.received", &receipt.id);
        let filed = world.crm.get(&format!("/messages/{}", text(&event["data"], "message_id")));
        assert_eq!(text(&filed, "kind"), "auto_reply");
        assert_eq!(filed["conversation_id"], shown["conversation_id"]);
        world.gateway.settle();
        let after = world.crm.get(&format!("/messages/{sent}"));
        assert_eq!((&after["delivery"], &after["state"]), (&shown["delivery"], &shown["state"]));
        assert_eq!((world.crm.list("/contacts").len(), world.crm.messages().len()), (1, 2));
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_calendars_mail_makes_no_contact_and_a_letter_with_a_calendar_does(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let capture = |letter: &Letter| {
            world.arrive(&ann.person.address, &[&ann.capture_address], letter).unwrap();
            let event = world.crm.await_mail("message.captured", &letter.id);
            let kind = world.crm.get(&format!("/messages/{}", text(&event["data"], "message_id")))["kind"].clone();
            (kind, world.crm.list("/contacts").len())
        };
        for method in ["REQUEST", "REPLY", "CANCEL"] {
            assert_eq!(capture(&scheduling(&ann, method, "inline")), (json!("invitation"), 0), "{method}");
        }
        let letter = scheduling(&ann, "REQUEST", "attachment; filename=invite.ics");
        assert_eq!(capture(&letter), (json!("mail"), 1));
        assert_eq!(world.gateway.audit(), [""; 0]);
    }

    fn a_machine_that_answers_a_capture_address_without_end_is_stopped_there(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let away = || {
            let letter = Letter::new(&ann.person.address, &[BOB]).field("Auto-Submitted", "auto-replied");
            world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
            letter
        };
        for _ in 0..200 {
            away();
        }
        wait_for("all of them to be filed", PATIENCE, || world.crm.messages().len() == 200);
        let one_too_many = away();
        let mut decisions = Vec::new();
        wait_for("a decision", PATIENCE, || {
            decisions = world.crm.list(&format!("/decisions?rfc822_message_id={}", one_too_many.id));
            !decisions.is_empty()
        });
        assert_eq!((text(&decisions[0], "verdict"), text(&decisions[0], "rule")), ("held", "possible_loop"));
        // What she writes herself goes on.
        let own = Letter::new(&ann.person.address, &[BOB]);
        world.arrive(&ann.person.address, &[&ann.capture_address], &own).unwrap();
        world.crm.await_mail("message.captured", &own.id);
        world.gateway.settle();
        assert_eq!(world.crm.list("/contacts").len(), 1);
        assert_eq!(world.provider().inbox(&mailweave::mail::Address::parse(&ann.person.address).unwrap()).len(), 0);
    }
}
