//! Nothing that comes to the MX listener is relayed to anybody, and two gateways that answer each other fall silent.
//!
//! Not here: one reply address and its participants (`relay`, `relay_people`).

use std::net::Ipv4Addr;

use mailweave::{
    config::{Config, DomainName},
    sandbox::{Behaviour, Service},
};
use serde_json::json;

use crate::{
    both,
    crm::{Crm, text},
    gateway::{CAPTURE, Gateway, REPLY},
    letter::Letter,
    sandboxed::{PROSPECTS, Sandboxed},
    support::{PATIENCE, Person, clients::SmtpClient, wait_for},
    world::User,
};

const ATTEMPTS: u32 = 5_000;
/// Fewer than a listener suffers of one client or one session.
const ATTEMPTS_OF_ONE: u32 = 15;

/// Ways to write a recipient elsewhere, so that a careless server takes it for one of its own.
fn elsewhere(number: u32, victim: &str, ours: &str, live: &str) -> String {
    let (user, host) = victim.split_once('@').unwrap();
    let own = live.split('@').next().unwrap();
    match number % 25 {
        0 => victim.to_owned(),
        1 => format!("{user}%{host}@{ours}"),
        2 => format!("{host}!{user}@{ours}"),
        3 => format!("@{ours}:{victim}"),
        4 => format!("\"{victim}\"@{ours}"),
        5 => format!("{victim}@{ours}"),
        6 => format!("{user}@[127.0.0.1]"),
        7 => format!("{user}@{ours}."),
        8 => format!("{own}@{host}"),
        9 => format!("{live}.{host}"),
        10 => format!("{own}%{host}@{ours}"),
        11 => format!("{user}@{}", ours.replace('e', "\u{435}")),
        12 => format!("{own}+{user}={host}@{ours}"),
        13 => format!("r1{}@{REPLY}", format!("{number:044}").replace(['i', 'l', 'o', 'u'], "0")),
        14 => format!("{user}@{ours}@{host}"),
        15 => format!("\"{live}\"@{host}"),
        16 => format!("{own}@sub.{ours}"),
        17 => format!("{}@{ours}", own.strip_suffix(char::is_alphanumeric).unwrap()),
        18 => format!("{own}0@{ours}"),
        19 => format!("@{host},@{ours}:{user}@{host}"),
        20 => format!("{user}@{host}%{ours}"),
        21 => format!("{own}@[IPv6:::1]"),
        22 => format!("{live}\u{2028}{victim}"),
        23 => format!("\"{own}\\\"@{host}\"@{ours}"),
        _ => format!("{user}{number}@{ours}"),
    }
}

fn sender(number: u32) -> &'static str {
    ["", "ann@acme.example", "mallory@evil.example", "postmaster@bcc.example.test"][number as usize % 4]
}

both! {
    fn of_five_thousand_ways_to_be_relayed_none_is_taken(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let victim = world.prospect("victim");
        world.set_smarthost(&world.person("relay@acme.example"));
        let mut refused = 0;
        for first in (0..ATTEMPTS).step_by(ATTEMPTS_OF_ONE as usize) {
            let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + first / ATTEMPTS_OF_ONE);
            let mut client = SmtpClient::connect_from(source, world.gateway.mx());
            client.expect(250, &format!("MAIL FROM:<{}>", sender(first)));
            for number in first..(first + ATTEMPTS_OF_ONE).min(ATTEMPTS) {
                let to = elsewhere(number, &victim.address, CAPTURE, &ann.capture_address);
                let answer = client.command(&format!("RCPT TO:<{to}>"));
                assert!((500..560).contains(&answer.code), "{to}: {answer:?}");
                refused += 1;
            }
            client.command("DATA");
        }
        assert_eq!(refused, ATTEMPTS);
        // With a recipient that is taken, the others are in the header alone.
        let header = Letter::new("ann@acme.example", &[&victim.address, "v@elsewhere.example"])
            .field("Resent-To", &victim.address)
            .field("Bcc", &victim.address)
            .field("X-Mailweave-Class", "bulk");
        world.arrive("ann@acme.example", &[&ann.capture_address], &header).unwrap();
        wait_for("the copy to be filed", PATIENCE, || !world.crm.events_of("message.captured").is_empty());
        world.gateway.settle();
        assert_eq!(world.heard(Service::Submission, "MAIL"), Vec::<String>::new());
        assert_eq!(world.heard(Service::Mx, "MAIL"), Vec::<String>::new());
    }
}

/// Two companies, each with a user who has no account and a gateway that passes on what the other's has sent.
struct Pair {
    other: Gateway,
    world: Sandboxed,
    other_crm: Crm,
    ann: User,
    ben: User,
    /// Where Ben is answered by Ann's gateway, and she by his.
    towards_ben: String,
    /// The contact that Ann's gateway is to Ben's.
    contact: String,
}

const OTHER_REPLY: &str = "reply.other.test";

impl Pair {
    fn start(engine: crate::support::store::Engine) -> Self {
        let behaviour = Behaviour { any_sender: true, ..Behaviour::default() };
        let world = Sandboxed::start(engine, behaviour);
        let other = Gateway::start(engine, &world.authority, |config: &mut Config| {
            config.domains.capture = DomainName::parse("bcc.other.test");
            config.domains.reply = DomainName::parse(OTHER_REPLY);
        });
        world.provider().route(OTHER_REPLY, other.mx());
        let other_crm = other.crm("other").settle_in();
        let relay = world.person("relay@acme.example");
        world.set_smarthost(&relay);
        let smarthost = json!({
            "host": "127.0.0.1", "port": world.running.submission.port(), "security": "none",
            "username": relay.address, "password": relay.password, "from_domains": [PROSPECTS, OTHER_REPLY],
        });
        other_crm.put("/smarthost", &smarthost);
        let ann = world.user("ann", "Ann Lee");
        let ben = User::add(&other_crm, world.prospect("ben"), "Ben Ray");
        // Ben writes to Zoe first: that makes the address at which he is answered.
        let zoe = world.prospect("zoe");
        let contact = other_crm.post("/contacts", &json!({ "email": zoe.address }));
        send(&other_crm, (&ben.id, None), &zoe.address);
        let towards_ben = from_of(&world, &zoe, OTHER_REPLY);
        let contact = text(&contact, "id").to_owned();
        Self { other, world, other_crm, ann, ben, towards_ben, contact }
    }

    /// Ann's gateway writes to Ben's, which learns that this is his contact as well.
    fn introduce(&self) {
        self.world.crm.post("/contacts", &json!({ "email": self.towards_ben }));
        let conversation = send(&self.world.crm, (&self.ann.id, None), &self.towards_ben);
        self.other_crm.await_event("message.held", |_| true);
        let heard = self.world.heard(Service::Submission, "MAIL");
        let towards_ann = heard.iter().find_map(|line| {
            let address = line.split(['<', '>']).nth(1)?;
            address.ends_with(REPLY).then(|| address.to_owned())
        });
        let more = json!({ "other_emails": [towards_ann.expect("a mail from a reply address")] });
        self.other_crm.patch(&format!("/contacts/{}", self.contact), &more);
        send(&self.world.crm, (&self.ann.id, Some(&conversation)), &self.towards_ben);
    }

    fn inbox(&self, person: &Person) -> Vec<String> {
        let address = mailweave::mail::Address::parse(&person.address).unwrap();
        let mails = self.world.provider().messages(&address, "INBOX").into_iter();
        mails.map(|mail| String::from_utf8_lossy(&mail.raw).into_owned()).collect()
    }

    /// The machine of Ben, who is away, answers Ann's mail, and says so or does not. Returns the answer's Message-ID.
    fn machine_answers(&self, says_so: bool) -> String {
        let ben = &self.ben.person;
        wait_for("Ann's mail to reach Ben", PATIENCE, || self.inbox(ben).len() == 1);
        let to = address_in(&self.inbox(ben)[0]);
        let mut letter = Letter::new(&ben.address, &[&to]).subject("I am away").text("Until Monday.\n");
        if says_so {
            letter = letter.field("Auto-Submitted", "auto-replied");
        }
        let from = if says_so { "" } else { &ben.address };
        SmtpClient::connect(self.other.mx()).send(from, &[&to], &letter.raw()).unwrap();
        let decided = |crm: &Crm| crm.list(&format!("/decisions?rfc822_message_id={}", letter.id)).len();
        wait_for("the answer to be filed", PATIENCE, || decided(&self.other_crm) == 1);
        if !says_so {
            wait_for("the answer to come to the other gateway", PATIENCE, || decided(&self.world.crm) == 1);
        }
        self.other.settle();
        self.world.gateway.settle();
        letter.id
    }

    /// What Ben and Ann have got.
    fn delivered(&self) -> (usize, usize) {
        (self.inbox(&self.ben.person).len(), self.inbox(&self.ann.person).len())
    }
}

/// The CRM sends as this user. Returns the conversation.
#[track_caller]
fn send(crm: &Crm, (user, conversation): (&str, Option<&str>), to: &str) -> String {
    let message = json!({
        "from_user_id": user, "to": [{ "email": to }], "subject": "Offer", "text": "Hello.",
        "conversation_id": conversation,
    });
    let sent = crm.post("/messages", &message);
    crm.await_delivery(text(&sent, "id"), "sent");
    text(&sent, "conversation_id").to_owned()
}

/// The address in From.
fn address_in(mail: &str) -> String {
    let unfolded = mail.replace("\r\n ", " ");
    let from = unfolded.split("\r\nFrom:").nth(1).expect("From").split("\r\n").next().expect("a line");
    from.split(['<', '>']).nth(1).unwrap_or(from).trim().to_owned()
}

/// The reply address from which the first mail in somebody's INBOX came.
fn from_of(world: &Sandboxed, person: &Person, domain: &str) -> String {
    let address = mailweave::mail::Address::parse(&person.address).unwrap();
    let mails = || world.provider().messages(&address, "INBOX");
    wait_for("the first mail", PATIENCE, || !mails().is_empty());
    let raw = String::from_utf8_lossy(&mails()[0].raw).into_owned();
    let from = address_in(&raw);
    assert!(from.ends_with(domain), "{raw}");
    from
}

both! {
    fn two_gateways_and_a_machine_that_answers_settle_at_once(engine) {
        let pair = Pair::start(engine);
        pair.introduce();
        let answer = pair.machine_answers(true);
        let decision = &pair.other_crm.list(&format!("/decisions?rfc822_message_id={answer}"))[0];
        assert_eq!(text(decision, "verdict"), "synced");
        // One mail and one answer, which goes no further.
        assert_eq!(pair.delivered(), (1, 0));
    }

    fn a_machine_that_does_not_say_so_gets_no_further_than_the_other_gateway(engine) {
        let pair = Pair::start(engine);
        pair.introduce();
        let answer = pair.machine_answers(false);
        // It was passed on, from an address of which the other gateway knows nobody.
        let decision = &pair.world.crm.list(&format!("/decisions?rfc822_message_id={answer}"))[0];
        assert_eq!((text(decision, "verdict"), text(decision, "via")), ("held", "reply"));
        assert_eq!(pair.delivered(), (1, 0));
    }
}
