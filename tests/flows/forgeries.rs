//! Mail of a user's, forged in all the ways that are known and sent to a capture address that became known: as raw mail, over SMTP,
//! with signatures and name servers. None of it gets in.
//!
//! Not here: what is made of what was found (`app::trust_tests`), and answers at reply addresses (`proof`).

use mailweave::{
    config::{Config, NameServer},
    sandbox::Behaviour,
};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::{ACME, Sandboxed},
    support::{
        PATIENCE,
        clients::SmtpClient,
        dns::{Dns, Zone},
        signer::{Signer, Style},
        store::Engine,
        wait_for,
    },
    world::{User, accepted_id, assert_free_of},
};

const ANN: &str = "ann@acme.example";
/// Where Ann has an address too, and everybody else may have one.
const ANNS_FREE: &str = "ann@gmail.com";
/// The domain of another address of hers, which lets everybody send.
const ANNS_OPEN: &str = "ann@open.example";
const BOB: &str = "bob@prospects.example";
const MALLORY: &str = "mallory@evil.example";
/// A word that is in nothing but forged mail.
const SECRET: &str = "Rhabarberkompott";
/// Of her domain too, whose servers are elsewhere.
const ANNS_AWAY: &str = "ann@away.acme.example";
/// Who hands it in: a stranger, nobody, or Ann as it is said.
const PATHS: [&str; 3] = [MALLORY, "", ANNS_AWAY];
/// Domains whose servers everybody in these tests is at.
const SENT_FROM_HERE: [&str; 6] =
    [ACME, "evil.example", "acrne.example", "acme.example.evil.example", "shop.example", "gmail.com"];
/// Held at once: fewer than quarantine keeps of one user.
const AT_ONCE: usize = 100;

/// A mail and the way in which it is forged.
struct Forged {
    way: &'static str,
    mail_from: &'static str,
    raw: String,
}

/// What domains publish: none asks for anything to be done about mail that is not theirs.
fn zone() -> Zone {
    let mut zone = Zone::default().address("localhost", "127.0.0.1");
    for domain in SENT_FROM_HERE {
        let (name, key) = Signer::new(domain).record();
        zone = zone
            .txt(&name, &key)
            .txt(domain, "v=spf1 ip4:127.0.0.1 -all")
            .txt(&format!("_dmarc.{domain}"), "v=DMARC1; p=none");
    }
    let key = Signer::new(ACME).public_key();
    let short = "v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKsBDPf6pK95b0GCWaGtUUqoPaksa0uWsD5eqB5bJoyPy0DaRyGlSvxkYjDsLs6BAQIh85y5JZtPEDlIeklhVh0CAwEAAQ==";
    zone.txt("away.acme.example", "v=spf1 ip4:192.0.2.1 -all")
        .txt("open.example", "v=spf1 +all")
        .txt("s2._domainkey.acme.example", &format!("v=DKIM1; k=ed25519; t=y; p={key}"))
        .txt("s3._domainkey.acme.example", short)
        .txt("s4._domainkey.acme.example", "v=DKIM1; k=ed25519; p=")
}

/// What somebody writes, lines ended by CRLF.
fn written(from: &str) -> String {
    let letter = Letter::new(from, &[BOB])
        .subject(&format!("The {SECRET} offer"))
        .text(&format!("Here it is. {SECRET}\n"));
    letter.raw().replace('\n', "\r\n")
}

fn anns() -> String {
    written(&format!("Ann Lee <{ANN}>"))
}

fn signed_by(domain: &str, raw: &str) -> String {
    Signer::new(domain).sign(raw)
}

/// In every one of the three envelopes, each a mail of its own: the same again would be kept aside once. No signature covers the id.
fn thrice(way: &'static str, raws: impl IntoIterator<Item = String>) -> Vec<Forged> {
    let another =
        |raw: &str, number| raw.replace("Message-ID: <mail-", &format!("Message-ID: <mail-{number}-"));
    let in_all = |raw: String| {
        (0..)
            .zip(PATHS)
            .map(|(number, mail_from)| Forged { way, mail_from, raw: another(&raw, number) })
            .collect::<Vec<_>>()
    };
    raws.into_iter().flat_map(in_all).collect()
}

/// C01: neither signed nor sent by her provider, or signed by a stranger.
fn of_strangers() -> Vec<Forged> {
    let froms = [
        ANN,
        "Ann Lee <ann@acme.example>",
        "\"ann@acme.example\" <ANN@ACME.EXAMPLE>",
        "=?utf-8?q?Ann_Lee?= <ann@acme.example>",
        "ann(Ann)@acme.example",
        "<ann@acme.example>",
    ];
    let plain = froms.map(written);
    let signed = froms.map(|from| signed_by("evil.example", &written(from)));
    thrice("C01", plain.into_iter().chain(signed))
}

/// C02: somebody alike, and proven where he can be.
fn look_alikes() -> Vec<Forged> {
    let mut all = Vec::new();
    for (address, domain) in [
        ("ann@acrne.example", "acrne.example"),
        ("ann@acme.example.evil.example", "acme.example.evil.example"),
        ("ann.acme.example@evil.example", "evil.example"),
        ("ann@evil.example", "evil.example"),
        ("ann@xn--cme-5cd.example", "evil.example"),
    ] {
        for name in [
            "Ann Lee",
            "\"ann@acme.example\"",
            "=?utf-8?q?ann=40acme=2Eexample?=",
            "\"Ann Lee <ann@acme.example>\"",
        ] {
            let raw = || written(&format!("{name} <{address}>"));
            all.extend([signed_by(domain, &raw()), raw()]);
        }
    }
    all.into_iter().map(|raw| Forged { way: "C02", mail_from: MALLORY, raw }).collect()
}

/// C03: a From that two readers read in two ways, under a signature that was hers.
fn ambiguous() -> Vec<Forged> {
    let mut all = Vec::new();
    for from in [
        "From: ann@acme.example\r\nFrom: mallory@evil.example",
        "From: mallory@evil.example\r\nFrom: ann@acme.example",
        "From: ann@acme.example\r\nfrom: ann@acme.example",
        "From: ann@acme.example, ben@acme.example",
        "From: ann@acme.example, mallory@evil.example",
        "From: Team: ann@acme.example;",
        "From: Team: ann@acme.example, mallory@evil.example;",
        "From : ann@acme.example",
        "From: ann@acme.example\r\nFrom : mallory@evil.example",
        "From:\r\n ann@acme.example",
        "From: <ann@acme(.evil.example>",
        "From: <@evil.example:ann@acme.example>",
        "From: =?utf-8?q?ann=40acme.example?=",
        "From: =?utf-8?q?ann=40acme.example=3E?= <mallory@evil.example>",
        "From: ann@acme.example <mallory@evil.example>",
        "From: \"ann@acme.example\"@evil.example",
        "From: mallory@evil.example\r\nSender: ann@acme.example",
        "From: ann@acme.example\0@evil.example",
        "From: \u{c4}nn <ann@acme.example>\r\nFrom: x",
    ] {
        let genuine = signed_by(ACME, &anns());
        let replaced = |raw: &str| raw.replacen(&format!("From: Ann Lee <{ANN}>"), from, 1);
        all.extend([replaced(&anns()), replaced(&genuine)]);
    }
    thrice("C03", all)
}

/// C04: signatures of her own provider's that leave room for others, used by others.
fn weak_signatures() -> Vec<Forged> {
    let style = |tags: &str| Style { tags: tags.to_owned(), ..Style::default() };
    let sign = |style: Style| Signer::new(ACME).sign_as(&anns(), &style);
    let tampered = |from: &str, to: &str| signed_by(ACME, &anns()).replacen(from, to, 1);
    let many: String = (0..50).fold(anns(), |raw, _| signed_by("evil.example", &raw));
    thrice(
        "C04",
        [
            sign(Style { hashed: Some(0), ..style(" l=0;") }),
            sign(Style { hashed: Some(11), ..style(" l=11;") }),
            sign(Style { hashed: Some(6), ..style(" l=6;") }).replacen(
                "Here it is",
                "Here it is, at once",
                1,
            ),
            sign(Style { fields: "to:subject:date", ..style("") }),
            sign(style(" x=1795424000; t=1795423000;")),
            sign(Style { algorithm: "rsa-sha1", ..style("") }),
            sign(Style { algorithm: "rsa-sha256", selector: "s3", ..style("") }),
            sign(Style { selector: "s2", ..style("") }),
            sign(Style { selector: "s4", ..style("") }),
            sign(Style { selector: "s9", ..style("") }),
            sign(Style { selector: "s\"1", ..style("") }),
            sign(style(" i=@evil.example;")),
            sign(style(" d=acme.example;")),
            signed_by("example", &anns()),
            many,
            tampered("Here it is", "Pay at once"),
            tampered("Subject: The", "Subject: My"),
            tampered("Subject: The", "Subject: Pay\r\nSubject: The"),
            tampered("\r\nTo: bob", "\r\nTo: victim@customer.example\r\nTo: bob"),
            tampered("\r\nFrom: Ann Lee", "\r\nFrom: Eve Lee"),
            tampered("\r\nDate: ", "\r\nDate: Mon, 23 Nov 2026 04:00:00 +0000\r\nDate: "),
        ],
    )
}

/// C05 and C06: servers that may send for her domain, and for everybody else's mail there.
fn of_open_domains() -> Vec<Forged> {
    let free = || written(&format!("Ann Lee <{ANNS_FREE}>"));
    let others = signed_by("gmail.com", &written(&format!("\"{ANNS_FREE}\" <somebody@gmail.com>")));
    let all = [
        (ANNS_FREE, free()),
        ("somebody@gmail.com", free()),
        ("somebody@gmail.com", others),
        (ANNS_OPEN, written(ANNS_OPEN)),
        ("", written(ANNS_OPEN)),
    ];
    all.map(|(mail_from, raw)| Forged { way: "C05, C06", mail_from, raw }).into()
}

/// C07: what the mail itself says of checks by others.
fn claims() -> Vec<Forged> {
    let fields = [
        "Authentication-Results: mx.gate.example; dkim=pass header.d=acme.example; spf=pass; dmarc=pass",
        "Authentication-Results: localhost; dkim=pass header.d=acme.example; dmarc=pass header.from=acme.example",
        "ARC-Authentication-Results: i=1; mx.gate.example; dkim=pass header.d=acme.example; dmarc=pass",
        "ARC-Seal: i=1; a=ed25519-sha256; cv=none; d=evil.example; s=s1; b=AAAA",
        "X-MS-Exchange-Organization-AuthAs: Internal",
        "X-MS-Exchange-Organization-SCL: -1",
        "Received: from out.acme.example by mx.gate.example with ESMTPSA",
        "Received-SPF: pass (mx.gate.example: domain of ann@acme.example)",
        "X-Google-DKIM-Signature: v=1; a=rsa-sha256; d=acme.example",
        "X-Mailweave-Verified: yes",
    ];
    let sealed = Signer::new("evil.example")
        .seal(&anns(), "dkim=pass header.d=acme.example; dmarc=pass header.from=acme.example");
    thrice("C07", fields.into_iter().map(|field| format!("{field}\r\n{}", anns())).chain([sealed]))
}

/// C10: what she really wrote, sent again by others, or long after.
fn replays() -> Vec<Forged> {
    let sign_at = |hours: i64| {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let raw =
            Letter::new(ANN, &[BOB]).dated(then).text(&format!("{SECRET}\n")).raw().replace('\n', "\r\n");
        Signer::new(ACME)
            .sign_as(&raw, &Style { tags: format!(" t={};", then.as_second()), ..Style::default() })
    };
    thrice("C10", [0, 80, 1000].map(sign_at)).into_iter().filter(|one| one.mail_from != ANNS_AWAY).collect()
}

/// C11 and C12: threads and contacts that are to be poisoned. `begun` is a message that is in the CRM.
fn poisoned(begun: &str) -> Vec<Forged> {
    let many: String = (0..200).map(|number| format!("x{number}@victims.example, ")).collect();
    let ids: String = (0..900).map(|number| format!(" <x{number}@acme.example>\r\n")).collect();
    let fields = [
        format!("In-Reply-To: <{begun}>"),
        format!("References: <{begun}> <other@acme.example>"),
        format!("References:{ids} <{begun}>"),
        format!("X-Microsoft-Original-Message-ID: <{begun}>"),
        format!("Cc: {many}bob@prospects.example"),
        "Cc: =HYPERLINK(1)@evil.example, <script>@evil.example, no-reply@prospects.example".to_owned(),
        "Reply-To: mallory@evil.example".to_owned(),
        "Sender: mallory@evil.example".to_owned(),
        "Resent-From: mallory@evil.example".to_owned(),
        "MIME-Version: 1.0\r\nContent-Type: message/rfc822".to_owned(),
    ];
    let mut all = thrice("C11, C12", fields.into_iter().map(|field| format!("{field}\r\n{}", anns())));
    let raw = anns();
    let (before, rest) = raw.split_once("Message-ID: <").unwrap();
    let raw = format!("{before}Message-ID: <{begun}>{}", rest.split_once('>').unwrap().1);
    all.push(Forged { way: "C11", mail_from: MALLORY, raw });
    all
}

/// C13: machines of others, proven as they are.
fn machines() -> Vec<Forged> {
    let fields =
        ["X-Nothing: 1", "Auto-Submitted: auto-generated", "Precedence: bulk", "List-Id: <all.shop.example>"];
    let signed = |field: &str| {
        signed_by("shop.example", &format!("{field}\r\n{}", written("Shop <verify@shop.example>")))
    };
    fields.map(|field| Forged { way: "C13", mail_from: "verify@shop.example", raw: signed(field) }).into()
}

struct Office {
    world: Sandboxed,
    ann: User,
    /// It ends with the test.
    _dns: Dns,
}

impl Office {
    fn start(engine: Engine) -> Self {
        let dns = Dns::start(zone());
        let world = Sandboxed::with(engine, Behaviour::default(), |config: &mut Config| {
            config.smtp.mx.trusted_peers = Some(Vec::new());
            config.dns.servers = vec![NameServer(dns.address())];
        });
        let ann = world.user("ann", "Ann Lee");
        world.crm.patch(&format!("/users/{}", ann.id), &json!({ "aliases": [ANNS_FREE, ANNS_OPEN] }));
        Self { world, ann, _dns: dns }
    }

    /// Ann captures a mail by her provider's servers, whose route is known from then on. Returns its Message-ID.
    fn begin(&self) -> String {
        let letter = Letter::new(ANN, &[BOB]).id("begun@acme.example");
        let raw = signed_by(ACME, &letter.raw().replace('\n', "\r\n"));
        self.hand_in(&Forged { way: "genuine", mail_from: ANN, raw }).unwrap();
        self.world.crm.await_mail("message.captured", &letter.id);
        letter.id
    }

    /// The id it was given, unless it was refused.
    fn hand_in(&self, one: &Forged) -> Option<String> {
        let mut client = SmtpClient::connect(self.world.gateway.mx());
        match client.send(one.mail_from, &[&self.ann.capture_address], &one.raw) {
            Ok(reply) => Some(accepted_id(&reply)),
            Err(refused) => {
                assert!(refused.code >= 500, "{}: {refused:?}", one.way);
                None
            }
        }
    }

    /// It lies in quarantine, or was left out as nobody's, for a reason that a person understands. What is held is rejected, to make
    /// room.
    fn assert_aside(&self, one: &Forged, id: &str) {
        let (_, own) = one.raw.rsplit_once("\nMessage-ID: <").unwrap();
        let own = own.split('>').next().unwrap();
        let mut decided = Vec::new();
        wait_for(&format!("{} to be decided about\n{}", one.way, one.raw), PATIENCE, || {
            decided = self.world.crm.list(&format!("/decisions?own_message_id={own}"));
            !decided.is_empty()
        });
        let found = decided.iter().find(|one| one["verdict"] != "synced");
        let told = found.unwrap_or_else(|| panic!("{} from {:?} is in\n{}", one.way, one.mail_from, one.raw));
        assert!(text(told, "reason").len() > 20, "{told}");
        if told["verdict"] == "held" {
            let kept = self.world.crm.ask(&format!("/quarantine/{id}")).body;
            assert_eq!(kept["state"], "held", "{}: {decided:?}\n{}", one.way, one.raw);
            self.world.crm.post(&format!("/quarantine/{id}/reject"), &json!({}));
        } else {
            assert!(one.mail_from.is_empty() || one.way == "C13", "{}: {told}\n{}", one.way, one.raw);
        }
    }
}

both! {
    fn of_three_hundred_forged_mails_none_is_in_the_crm(engine) {
        let office = Office::start(engine);
        let crm = &office.world.crm;
        let begun = office.begin();
        let before = crm.list("/contacts").len();
        let forged = [
            of_strangers(),
            look_alikes(),
            ambiguous(),
            weak_signatures(),
            of_open_domains(),
            claims(),
            replays(),
            poisoned(&begun),
            machines(),
        ];
        let forged: Vec<Forged> = forged.into_iter().flatten().collect();
        assert!(forged.len() >= 300, "{}", forged.len());
        for some in forged.chunks(AT_ONCE) {
            let taken: Vec<_> = some.iter().filter_map(|one| Some((one, office.hand_in(one)?))).collect();
            office.world.gateway.settle();
            for (one, id) in taken {
                office.assert_aside(one, &id);
            }
        }
        assert_eq!((crm.messages().len(), crm.list("/contacts").len()), (1, before));
        assert_free_of(&crm.everything(), &[SECRET]);
        assert_eq!(crm.events_of("message.captured").len(), 1);
        assert_eq!(office.world.gateway.audit(), [""; 0]);
    }

    fn of_a_hundred_mails_that_her_provider_signed_none_is_held(engine) {
        let office = Office::start(engine);
        for number in 0..100 {
            let letter = Letter::new(&format!("Ann Lee <{ANN}>"), &[BOB]).subject(&format!("Offer {number}"));
            let raw = signed_by(ACME, &letter.raw().replace('\n', "\r\n"));
            office.hand_in(&Forged { way: "genuine", mail_from: ANN, raw }).unwrap();
        }
        wait_for("all to be filed", PATIENCE, || office.world.crm.messages().len() == 100);
        let held = office.world.crm.list("/quarantine");
        assert_eq!(held, Vec::<Value>::new(), "{}", held.iter().map(|held| text(held, "reason")).collect::<String>());
    }
}
