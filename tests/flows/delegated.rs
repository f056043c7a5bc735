//! Mailboxes that several people share: opened by one's own login under the mailbox's name, sent for by one's own, and writing as
//! themselves.
//!
//! Not here: an account that several workspaces share (`shared`).

use mailweave::sandbox::Behaviour;
use serde_json::json;

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::{ACME, Sandboxed},
    support::{PATIENCE, Person, dovecot::Options, wait_for},
    world::{World, endpoint},
};

both! {
    fn a_shared_mailbox_is_read_by_one_login_and_written_from_by_another_as_itself(engine) {
        let options = Options { delegates: true, ..Options::default() };
        let world = World::at(engine, options, |_| {});
        let (ann, shared, bob) = (world.user(1, "Ann Lee"), world.dovecot.user(2), world.customer(1));
        let Person { address: own, password } = ann.person.clone();
        let under = format!("{}*{own}", shared.address);
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let mut account = json!({
            "user_id": ann.id,
            "email": shared.address,
            "sender": "somebody@else.example",
            "imap": endpoint(world.dovecot.imaps, "tls"),
            // Where she may send as others.
            "smtp": endpoint(world.postfix.smarthost, "starttls"),
            "auth": { "type": "password", "username": own, "password": password, "imap_username": &under },
        });
        let refused = world.crm.try_post("/accounts", &account);
        assert_eq!((refused.status, text(&refused.body, "param")), (422, "sender"), "{refused:?}");
        account["sender"] = json!(shared.address);
        let made = world.crm.post("/accounts", &account);
        assert_eq!(text(&made, "sender"), shared.address);
        let id = text(&made, "id").to_owned();
        world.crm.await_account(&id);

        let receive = |to: &Person| {
            let letter = Letter::new(&bob.address, &[&to.address]);
            world.dovecot.deliver(&bob.address, to, &letter.raw().replace('\n', "\r\n")).unwrap();
            letter
        };
        let (private, common) = (receive(&ann.person), receive(&shared));
        world.crm.await_mail("message.received", &common.id);
        let send = |subject: &str| {
            let to = json!([{ "email": bob.address }]);
            let body = json!({ "from_user_id": ann.id, "to": to, "subject": subject, "text": "Hello" });
            let message = text(&world.crm.post("/messages", &body), "id").to_owned();
            world.crm.await_delivery(&message, "sent");
            let id = text(&world.crm.get(&format!("/messages/{message}")), "rfc822_message_id").to_owned();
            let mail = world.await_mail(&bob, "INBOX", &id);
            let from = mail.lines().find(|line| line.starts_with("From:")).unwrap().to_owned();
            assert!(from.contains(&shared.address) && !from.contains(&own), "{mail}");
            assert!(mail.contains(&format!("Return-Path: <{}>", shared.address)), "{mail}");
            wait_for("the copy in the shared mailbox", PATIENCE, || world.count_mail(&shared, "Sent", &id) == 1);
            assert_eq!(world.count_mail(&ann.person, "Sent", &id), 0);
        };
        send("By her own name");
        // The names change places.
        let auth = json!({ "type": "password", "username": &under, "password": password, "smtp_username": own });
        world.crm.patch(&format!("/accounts/{id}"), &json!({ "auth": auth }));
        world.crm.await_account(&id);
        send("By the mailbox's");
        // A new password alone leaves it at that who logs in where.
        let renewed = json!({ "type": "password", "username": own, "password": password });
        let shown = world.crm.patch(&format!("/accounts/{id}"), &json!({ "auth": renewed }));
        assert_eq!(shown["auth"], json!({ "type": "password", "imap_username": under, "smtp_username": own }));
        world.crm.await_account(&id);
        let (private_too, common) = (receive(&ann.person), receive(&shared));
        world.crm.await_mail("message.received", &common.id);
        assert!(world.crm.messages().iter().all(|message| message["rfc822_message_id"] != private_too.id.as_str()));
        let filed = world.crm.messages();
        assert!(filed.iter().all(|message| message["rfc822_message_id"] != private.id.as_str()), "{filed:?}");
        assert_eq!(world.gateway.audit(), Vec::<String>::new());
    }

    fn nobody_writes_under_an_alias_that_was_taken_from_him(engine) {
        let world = Sandboxed::start(engine, Behaviour { any_sender: true, ..Behaviour::default() });
        let (ann, bob) = (world.user("ann", "Ann Lee"), world.prospect("bob"));
        let alias = format!("ann.lee@{ACME}");
        world.crm.patch(&format!("/users/{}", ann.id), &json!({ "aliases": [&alias] }));
        let Person { address, password } = &ann.person;
        let account = json!({
            "user_id": ann.id,
            "email": address,
            "sender": &alias,
            "imap": endpoint(world.running.imap, "none"),
            "smtp": endpoint(world.running.submission, "none"),
            "auth": { "type": "password", "username": address, "password": password },
        });
        let account = text(&world.crm.post("/accounts", &account), "id").to_owned();
        world.crm.await_account(&account);
        let sent_from = |subject: &str| {
            let message = world.post_message(&ann, &[&bob.address], subject);
            world.crm.await_delivery(&message, "sent");
            let id = text(&world.crm.get(&format!("/messages/{message}")), "rfc822_message_id").to_owned();
            let mail = world.mails(&bob, "INBOX", &id).remove(0);
            mail.lines().find(|line| line.starts_with("From:")).unwrap().to_owned()
        };
        assert!(sent_from("One").contains(&alias));
        world.crm.patch(&format!("/users/{}", ann.id), &json!({ "aliases": [] }));
        let from = sent_from("Two");
        assert!(from.contains(address) && !from.contains(&alias), "{from}");
    }
}
