//! One account connected in several workspaces: what each of them sees, by the policy's `multi_tenant`.
//!
//! Not here: that nothing else crosses (`isolation`).

use mailweave::{
    mail::Address,
    sandbox::{Behaviour, SaveSent},
};
use serde_json::json;

use crate::{
    both,
    crm::{Crm, text},
    letter::Letter,
    people::Shared,
    sandboxed::Sandboxed,
    support::{PATIENCE, store::Engine, wait_for},
    world::{User, accepted_id, endpoint},
};

impl Shared {
    fn with(engine: Engine, behaviour: Behaviour, setting: &str) -> Self {
        let shared = Self::at(engine, behaviour);
        for crm in [&shared.world.crm, &shared.other] {
            crm.put("/policy", &json!({ "preset": "mailweave", "overrides": { "multi_tenant": setting } }));
        }
        shared
    }

    /// Bob writes to Ann, perhaps answering these, the last of them above all.
    fn bob_writes(&self, answering: &[&str]) -> Letter {
        let letter = naming(Letter::new(&self.bob.address, &[&self.ann.person.address]), answering);
        self.put(&letter, "INBOX");
        letter
    }

    /// Ann writes to Bob with her own mail program.
    fn ann_writes(&self, answering: &[&str]) -> Letter {
        let letter = naming(Letter::new(&self.ann.person.address, &[&self.bob.address]), answering);
        self.put(&letter, "Sent");
        letter
    }

    fn put(&self, letter: &Letter, mailbox: &str) {
        let ann = Address::parse(&self.ann.person.address).unwrap();
        let raw = letter.raw().replace('\n', "\r\n");
        self.world.provider().append(&ann, mailbox, raw.as_bytes(), &[]).unwrap();
    }

    /// Ann writes to Bob from the first workspace, perhaps answering a message there; the Message-ID of it.
    fn sends(&self, answering: Option<&str>) -> String {
        let crm = &self.world.crm;
        let message = json!({
            "from_user_id": self.ann.id,
            "to": [{ "email": self.bob.address }],
            "subject": "Offer",
            "text": "Ten desks, as you asked.",
            "reply_to_message_id": answering,
        });
        let id = text(&crm.post("/messages", &message), "id").to_owned();
        text(&crm.await_delivery(&id, "sent"), "rfc822_message_id").to_owned()
    }

    /// Both workspaces take a mail in.
    fn await_both(&self, letter: &Letter, event: &str) {
        for crm in [&self.world.crm, &self.other] {
            crm.await_mail(event, &letter.id);
        }
    }

    /// The first workspace takes a mail in and the other leaves it out by this rule.
    fn await_one(&self, letter: &Letter, event: &str, rule: &str) {
        self.world.crm.await_mail(event, &letter.id);
        await_left_out(&self.other, &letter.id, rule);
    }

    /// The Message-IDs of what the other workspace has, and that what was left out of it is nowhere there.
    #[track_caller]
    fn assert_other_has(&self, letters: &[&Letter]) {
        self.world.gateway.settle();
        let messages = self.other.messages();
        let mut has: Vec<&str> = messages.iter().map(|message| text(message, "rfc822_message_id")).collect();
        let mut expected: Vec<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        has.sort_unstable();
        expected.sort_unstable();
        assert_eq!(has, expected);
        assert_eq!(self.world.gateway.audit(), Vec::<String>::new());
    }
}

fn naming(letter: Letter, ids: &[&str]) -> Letter {
    let Some(last) = ids.last() else { return letter };
    let all: Vec<String> = ids.iter().map(|id| format!("<{id}>")).collect();
    letter.field("In-Reply-To", &format!("<{last}>")).field("References", &all.join(" "))
}

#[track_caller]
fn await_left_out(crm: &Crm, id: &str, rule: &str) {
    wait_for("the other workspace to have left it out", PATIENCE, || {
        let decisions = crm.list(&format!("/decisions?rfc822_message_id={id}"));
        decisions.iter().any(|decision| text(decision, "rule") == rule)
    });
}

/// The id that a workspace knows a mail by.
fn message_of(crm: &Crm, letter: &Letter) -> String {
    text(&crm.await_mail("message.received", &letter.id)["data"], "message_id").to_owned()
}

both! {
    fn kana_7_once_the_user_replies_from_one_workspace_the_conversation_goes_on_there_alone(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "reply_wins");
        let first = shared.bob_writes(&[]);
        shared.await_both(&first, "message.received");
        let reply = shared.sends(Some(&message_of(&shared.world.crm, &first)));
        await_left_out(&shared.other, &reply, "sent_by_other_workspace");
        let answer = shared.bob_writes(&[&first.id, &reply]);
        shared.await_one(&answer, "message.received", "answers_other_workspace");
        // Whoever goes on without naming the reply: Bob, and Ann with her own mail program.
        let again = shared.bob_writes(&[&first.id]);
        shared.await_one(&again, "message.received", "replied_by_other_workspace");
        let by_hand = shared.ann_writes(&[&first.id, &again.id]);
        shared.await_one(&by_hand, "message.sent", "replied_by_other_workspace");
        // Something new is anybody's again.
        let new = shared.bob_writes(&[]);
        shared.await_both(&new, "message.received");
        shared.assert_other_has(&[&first, &new]);
    }

    fn kana_7_a_reply_by_hand_belongs_to_nobody_and_breaks_nothing(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "reply_wins");
        let first = shared.bob_writes(&[]);
        shared.await_both(&first, "message.received");
        let by_hand = shared.ann_writes(&[&first.id]);
        shared.await_both(&by_hand, "message.sent");
        let answer = shared.bob_writes(&[&first.id, &by_hand.id]);
        shared.await_both(&answer, "message.received");
        shared.assert_other_has(&[&first, &by_hand, &answer]);
    }

    fn kana_7_who_has_replied_from_both_keeps_it_in_both(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "reply_wins");
        let first = shared.bob_writes(&[]);
        shared.await_both(&first, "message.received");
        let reply = shared.sends(Some(&message_of(&shared.world.crm, &first)));
        await_left_out(&shared.other, &reply, "sent_by_other_workspace");
        let user = text(&shared.other.list("/users")[0], "id").to_owned();
        let message = json!({
            "from_user_id": user,
            "to": [{ "email": shared.bob.address }],
            "subject": "Chairs",
            "text": "And ten chairs.",
            "reply_to_message_id": message_of(&shared.other, &first),
        });
        let sent = text(&shared.other.post("/messages", &message), "id").to_owned();
        let shown = shared.other.await_delivery(&sent, "sent");
        await_left_out(&shared.world.crm, text(&shown, "rfc822_message_id"), "sent_by_other_workspace");
        let again = shared.bob_writes(&[&first.id]);
        shared.await_both(&again, "message.received");
    }

    fn faq_10_what_a_workspace_sent_and_the_answers_to_it_stay_there(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "originating_only");
        let offer = shared.sends(None);
        await_left_out(&shared.other, &offer, "sent_by_other_workspace");
        let answer = shared.bob_writes(&[&offer]);
        shared.await_one(&answer, "message.received", "answers_other_workspace");
        // Answers that name no more than what they answer, one of them by hand.
        let by_hand = shared.ann_writes(&[&answer.id]);
        shared.await_one(&by_hand, "message.sent", "answers_other_workspace");
        let last = shared.bob_writes(&[&by_hand.id]);
        shared.await_one(&last, "message.received", "answers_other_workspace");
        // What he writes of himself all see, and go on seeing when one of them has answered.
        let new = shared.bob_writes(&[]);
        shared.await_both(&new, "message.received");
        let reply = shared.sends(Some(&message_of(&shared.world.crm, &new)));
        await_left_out(&shared.other, &reply, "sent_by_other_workspace");
        let again = shared.bob_writes(&[&new.id]);
        shared.await_both(&again, "message.received");
        shared.assert_other_has(&[&new, &again]);
    }

    fn faq_10_mail_with_the_crms_own_message_id_is_known_by_its_trace(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "originating_only");
        let letter = Letter::new(&shared.ann.person.address, &[&shared.bob.address]);
        let mut client = shared.world.workspace_client();
        let reply = client.send(&shared.ann.person.address, &[&shared.bob.address], &letter.raw()).unwrap();
        shared.world.crm.await_delivery(&accepted_id(&reply), "sent");
        await_left_out(&shared.other, &letter.id, "sent_by_other_workspace");
        let answer = shared.bob_writes(&[&letter.id]);
        shared.await_one(&answer, "message.received", "answers_other_workspace");
        shared.assert_other_has(&[]);
    }

    fn faq_10_a_provider_that_gives_ids_of_its_own_hides_nothing(engine) {
        let behaviour = Behaviour { rewrite_message_id: true, save_sent: SaveSent::AtOnce, ..Behaviour::default() };
        let shared = Shared::with(engine, behaviour, "originating_only");
        let offer = shared.sends(None);
        let ann = Address::parse(&shared.ann.person.address).unwrap();
        let copies = shared.world.provider().messages(&ann, "Sent");
        let copy = String::from_utf8_lossy(&copies[0].raw).into_owned();
        let on_the_wire = copy.lines().find_map(|line| line.strip_prefix("Message-ID: <")).unwrap();
        let on_the_wire = on_the_wire.trim_end_matches('>');
        assert_ne!(on_the_wire, offer);
        await_left_out(&shared.other, on_the_wire, "sent_by_other_workspace");
        let answer = shared.bob_writes(&[on_the_wire]);
        shared.await_one(&answer, "message.received", "answers_other_workspace");
    }

    fn with_fanout_every_workspace_sees_everything(engine) {
        let shared = Shared::with(engine, Behaviour::default(), "fanout");
        let first = shared.bob_writes(&[]);
        shared.await_both(&first, "message.received");
        let reply = shared.sends(Some(&message_of(&shared.world.crm, &first)));
        shared.other.await_mail("message.sent", &reply);
        let answer = shared.bob_writes(&[&first.id, &reply]);
        shared.await_both(&answer, "message.received");
        let again = shared.bob_writes(&[&first.id]);
        shared.await_both(&again, "message.received");
        assert_eq!(shared.other.messages().len(), 4);
    }

    fn two_companies_that_write_to_each_other_by_one_gateway_miss_nothing(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let zenith = world.gateway.crm("zenith").settle_in();
        let bob = User::add(&zenith, world.prospect("bob"), "Bob Roy");
        let (imap, smtp) = (endpoint(world.running.imap, "none"), endpoint(world.running.submission, "none"));
        for (crm, user, contact) in [(&world.crm, &ann, &bob), (&zenith, &bob, &ann)] {
            crm.post("/contacts", &json!({ "email": contact.person.address }));
            let account = user.connect(crm, &imap, &smtp);
            crm.await_account(&account);
        }
        let sent = world.post_message(&ann, &[&bob.person.address], "Desks");
        let offer = text(&world.crm.await_delivery(&sent, "sent"), "rfc822_message_id").to_owned();
        zenith.await_mail("message.received", &offer);
        // Bob answers by hand: a mail of his own, though it names another workspace's.
        let answer = naming(Letter::new(&bob.person.address, &[&ann.person.address]), &[&offer]);
        let raw = answer.raw().replace('\n', "\r\n");
        let address = |user: &User| Address::parse(&user.person.address).unwrap();
        world.provider().append(&address(&bob), "Sent", raw.as_bytes(), &[]).unwrap();
        world.provider().deliver(&address(&ann), raw.as_bytes()).unwrap();
        zenith.await_mail("message.sent", &answer.id);
        world.crm.await_mail("message.received", &answer.id);
        // And Ann reminds him of what she had sent.
        let message = json!({
            "from_user_id": ann.id,
            "to": [{ "email": bob.person.address }],
            "subject": "Re: Desks",
            "text": "Any news?",
            "reply_to_message_id": sent,
        });
        let again = text(&world.crm.post("/messages", &message), "id").to_owned();
        let again = world.crm.await_delivery(&again, "sent");
        zenith.await_mail("message.received", text(&again, "rfc822_message_id"));
        assert_eq!(zenith.messages().len(), 3);
    }
}
