//! What a user passes on to his capture address alone is filed as mail of whoever wrote it.
//!
//! Not here: copies of what he sends to others (`capture`), and questions (`why`).

use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    world::{World, assert_free_of},
};

/// Mail from this address as clients forward it in the text.
fn passed_on(to: &str, by: &str) -> String {
    format!(
        "Please file this.\n\n---------- Forwarded message ---------\nFrom: Bob Ray <{by}>\nDate: Tue, Apr 1, 2025 at 10:00 AM\n\
         Subject: An offer\nTo: <{to}>\nCc: someone@else.example.test\n\nShall we? Ask carl@third.example.test.\n"
    )
}

both! {
    fn a_forward_to_the_capture_address_is_mail_of_its_original_author(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let inline = Letter::new(&ann.person.address, &[&ann.capture_address])
            .subject("Fwd: An offer")
            .text(&passed_on(&ann.person.address, &bob.address));
        world.client_sends(&ann.person, &[&ann.capture_address], &inline);
        let captured = world.crm.await_mail("message.captured", &inline.id);

        let attached = Letter::new(&ann.person.address, &[&ann.capture_address])
            .subject("Fwd: An offer")
            .field("MIME-Version", "1.0")
            .field("Content-Type", "multipart/mixed; boundary=f")
            .text(&format!(
                "--f\n\nSee there.\n--f\nContent-Type: message/rfc822\n\nFrom: Bob Ray <{}>\nTo: {}\nSubject: An offer\n\nShall we?\n--f--\n",
                bob.address, ann.person.address
            ));
        world.client_sends(&ann.person, &[&ann.capture_address], &attached);
        let second = world.crm.await_mail("message.captured", &attached.id);
        world.gateway.settle();

        let contacts = world.crm.list("/contacts");
        let [contact] = &contacts[..] else { panic!("one contact, not {contacts:?}") };
        assert_eq!((text(contact, "email"), text(contact, "name")), (bob.address.as_str(), "Bob Ray"));
        for filed in [captured, second] {
            let message = world.crm.get(&format!("/messages/{}", text(&filed["data"], "message_id")));
            assert_eq!((text(&message, "direction"), text(&message, "kind")), ("inbound", "forward"));
            assert_eq!(message["author"]["role"], "contact");
            assert_eq!(message["contacts"], json!([{ "id": contact["id"], "role": "from" }]));
            assert_free_of(&message.to_string(), &[&ann.capture_address]);
        }
    }

    fn an_answer_that_quotes_somebody_stays_its_users_own(engine) {
        let world = World::start(engine);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let quoted = format!(
            "Yes.\n\n-----Original Message-----\nFrom: Bob Ray <{}>\nSent: Monday\nTo: {}\nSubject: An offer\n\nShall we?\n",
            bob.address, ann.person.address
        );
        let said = format!("I spoke to Bob, {} by the way.\n", bob.address);
        for (subject, body) in [("Note", said), ("Re: An offer", quoted)] {
            let note = Letter::new(&ann.person.address, &[&ann.capture_address]).subject(subject).text(&body);
            world.client_sends(&ann.person, &[&ann.capture_address], &note);
            let captured = world.crm.await_mail("message.captured", &note.id);
            let message = world.crm.get(&format!("/messages/{}", text(&captured["data"], "message_id")));
            assert_eq!(message["author"]["role"], "user", "{subject}");
        }
        assert_eq!(world.crm.list("/contacts").len(), 0);
    }
}
