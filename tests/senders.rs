//! Who sent a message, found out by the real checks: with answers given at once, and from a name server on loopback.
//!
//! Not here: what is made of it in the CRM (tests/flows), and the parts of the checks, which have their own tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]
// Each test binary uses the part of the harness that it needs.
#![allow(dead_code)]

mod corpus;
#[path = "support/dns.rs"]
mod dns;
#[path = "support/signer.rs"]
mod signer;

use corpus::{id, vectors_of};
use dns::{Dns, Failure, Zone};
use jiff::Timestamp;
use mailweave::{
    core::{
        inquiry::{Inquiry, SmtpSession},
        sender::{Check, DmarcPolicy, FromField, SenderFacts},
    },
    flow::sender::SenderChecker,
    mail::{
        Address, ReversePath,
        authenticity::{Answer, Answers, Record, RecordKind, Results},
    },
    net::Resolver,
};
use serde_json::Value;
use signer::{Signer, Style};

const MESSAGE: &str = "From: Ann <ann@corp.example>\r\nTo: bob@else.example\r\nSubject: Offer\r\n\
    Date: Mon, 23 Nov 2026 09:00:00 +0000\r\n\r\nDear Bob,\r\n\r\nhere it is.\r\n";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn reverse_path(text: &str) -> ReversePath {
    if text.is_empty() { ReversePath::Null } else { ReversePath::Address(Address::parse(text).unwrap()) }
}

/// The facts, with these TXT records and no others; `!` stands for silence.
fn facts(message: &str, (mail_from, hello): (&str, &str), records: &[(&str, &str)]) -> SenderFacts {
    let reverse_path = reverse_path(mail_from);
    let peer = "192.0.2.7".parse().unwrap();
    let session = SmtpSession { peer, hello, reverse_path: &reverse_path, our_hostname: "mx.gate.example" };
    let inquiry = Inquiry::open(message.as_bytes(), &session, now());
    let mut answers = Answers::default();
    loop {
        if let Some(facts) = inquiry.conclude(&mut answers) {
            return facts;
        }
        for question in answers.take_wanted() {
            let own = records.iter().filter(|(name, _)| *name == question.name);
            let texts: Vec<&str> = own.map(|(_, text)| *text).collect();
            let answer = match texts.first() {
                Some(&"!") => Answer::Silent,
                Some(_) if question.kind == RecordKind::Txt => {
                    Answer::Records(texts.into_iter().map(|text| Record::Text(text.to_owned())).collect())
                }
                _ => Answer::Void,
            };
            answers.learn(question, answer);
        }
    }
}

const SESSION: (&str, &str) = ("ann@corp.example", "out.corp.example");

/// Of the one signature of a message, with the signer's key and these records.
fn signature(message: &str, records: &[(&str, &str)]) -> (Check, bool, String) {
    let found = facts(message, SESSION, records);
    let [one] = found.signatures.as_slice() else { panic!("{found:?}") };
    (one.verdict, one.is_aligned, one.reason.clone().unwrap_or_default())
}

#[test]
fn a_good_signature_of_the_author_proves_the_author() {
    let signer = Signer::new("corp.example");
    let (name, key) = signer.record();
    let signed =
        signer.sign_as(MESSAGE, &Style { tags: " t=1795424000; x=1795510400;".into(), ..Style::default() });
    let found = facts(&signed, SESSION, &[(&name, &key)]);
    assert!(found.proves() && !found.is_pending(), "{found:?}");
    assert_eq!(found.signatures[0].verdict, Check::Pass);
    assert_eq!(found.written_at.unwrap().as_second(), 1_795_424_000);
    assert_eq!((found.dmarc.verdict, found.dmarc.policy), (Check::None, DmarcPolicy::Absent));
    // A date that anybody could have written says nothing of when it was signed.
    let undated = signer.sign_as(MESSAGE, &Style { fields: "from:to:subject", ..Style::default() });
    let found = facts(&undated, SESSION, &[(&name, &key)]);
    assert!(found.proves() && found.written_at.is_none(), "{found:?}");
    // Trace fields on top, and white space at the end of the body, come with the way.
    let moved = format!("Received: from x by y\r\n{signed}  \r\n\r\n");
    assert!(facts(&moved, SESSION, &[(&name, &key)]).proves());
}

#[test]
fn a_signature_that_leaves_room_for_others_proves_nothing() {
    let signer = Signer::new("corp.example");
    let (name, key) = signer.record();
    let style = |tags: &str| Style { tags: tags.to_owned(), ..Style::default() };
    let good = signer.sign(MESSAGE);
    let body = "Dear Bob,\r\n\r\nhere it is.\r\n".len();
    let short = "k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKsBDPf6pK95b0GCWaGtUUqoPaksa0uWsD5eqB5bJoyPy0DaRyGlSvxkYjDsLs6BAQIh85y5JZtPEDlIeklhVh0CAwEAAQ==";
    let testing = format!("v=DKIM1; k=ed25519; t=y; p={}", signer.public_key());
    let strict = format!("v=DKIM1; k=ed25519; t=s; p={}", signer.public_key());
    let part = Style { hashed: Some(11), ..style(" l=11;") };
    let rows: Vec<(String, &str, Check, &str)> = vec![
        (signer.sign_as(MESSAGE, &part), &key, Check::Fail, "part of the body"),
        (
            signer.sign_as(MESSAGE, &Style { hashed: Some(0), ..style(" l=0;") }),
            &key,
            Check::Fail,
            "part of the body",
        ),
        (signer.sign_as(MESSAGE, &style(&format!(" l={body};"))), &key, Check::Pass, ""),
        (
            signer.sign_as(MESSAGE, &Style { fields: "to:subject", ..style("") }),
            &key,
            Check::Fail,
            "who wrote",
        ),
        (signer.sign_as(MESSAGE, &style(" x=1795424000;")), &key, Check::Fail, "expired"),
        (signer.sign_as(MESSAGE, &style(" t=1895424000; x=1895423000;")), &key, Check::Fail, "expired"),
        (
            signer.sign_as(MESSAGE, &Style { algorithm: "rsa-sha1", ..style("") }),
            &key,
            Check::Fail,
            "too weak",
        ),
        (
            signer.sign_as(MESSAGE, &Style { algorithm: "rsa-sha256", ..style("") }),
            short,
            Check::Fail,
            "1024",
        ),
        (signer.sign_as(MESSAGE, &Style { selector: "s\"1", ..style("") }), &key, Check::Fail, "signer"),
        (signer.sign_as(MESSAGE, &style(" i=@evil.example;")), &key, Check::Fail, "agent"),
        (signer.sign_as(MESSAGE, &style(" i=@news.corp.example;")), &strict, Check::Fail, "itself"),
        (signer.sign_as(MESSAGE, &style(" d=corp.example;")), &key, Check::Fail, "malformed"),
        (good.clone(), &testing, Check::None, "testing"),
        (good.clone(), "v=DKIM1; k=ed25519; p=", Check::Fail, "revoked"),
        (good.clone(), "v=DKIM1; k=ed25519; s=tlsrpt; p=AAAA", Check::Fail, "not for mail"),
        (good.clone(), "!", Check::Pending, "DNS"),
        (good.replace("here it is", "pay at once"), &key, Check::Fail, "body was changed"),
        (good.replace("Subject: Offer", "Subject: Pay"), &key, Check::Fail, "header was changed"),
        (good.replace("From: Ann", "From: Eve"), &key, Check::Fail, "header was changed"),
        (
            good.replace("\r\nFrom: Ann", "\r\nFrom: eve@evil.example\r\nFrom: Ann"),
            &key,
            Check::Fail,
            "who wrote",
        ),
        (format!("Subject: Pay\r\n{good}"), &key, Check::Fail, "more often"),
        (format!("Date: Mon, 23 Nov 2026 04:00:00 +0000\r\n{good}"), &key, Check::Fail, "more often"),
        (format!("To: victim@customer.example\r\n{good}"), &key, Check::Fail, "more often"),
    ];
    for (message, record, verdict, reason) in rows {
        let (is, _, why) = signature(&message, &[(&name, record)]);
        assert_eq!(is, verdict, "{why}: {message}");
        assert!(why.contains(reason), "{why:?} does not say {reason:?}");
    }
    let single = Signer::new("example");
    let (name, key) = single.record();
    assert_eq!(signature(&single.sign(MESSAGE), &[(&name, &key)]).0, Check::Fail, "d= is a suffix");
}

#[test]
fn only_domains_of_one_organisation_speak_for_each_other() {
    let rows = [
        ("corp.example", &[][..], true),
        ("evil.example", &[], false),
        ("corp.example.evil.example", &[], false),
        // Nothing published: a domain above or below may be anybody's.
        ("mail.corp.example", &[], false),
        ("mail.corp.example", &[("_dmarc.corp.example", "v=DMARC1; p=none")][..], true),
        ("evil.example", &[("_dmarc.example", "v=DMARC1; p=none; psd=y")], false),
        ("evil.example", &[("_dmarc.corp.example", "v=DMARC1; p=none; psd=n")], false),
    ];
    for (domain, published, is_aligned) in rows {
        let signer = Signer::new(domain);
        let (name, key) = signer.record();
        let records: Vec<(&str, &str)> =
            published.iter().copied().chain([(name.as_str(), key.as_str())]).collect();
        let (verdict, aligned, _) = signature(&signer.sign(MESSAGE), &records);
        assert_eq!((verdict, aligned), (Check::Pass, is_aligned), "{domain} {published:?}");
    }
}

#[test]
fn dmarc_says_what_the_authors_domain_asks_for() {
    let signer = Signer::new("corp.example");
    let (name, key) = signer.record();
    let other = Signer::new("esp.example");
    let (other_name, other_key) = other.record();
    let base = [(name.as_str(), key.as_str()), (other_name.as_str(), other_key.as_str())];
    let spf = ("corp.example", "v=spf1 ip4:192.0.2.7 -all");
    let plain = MESSAGE.to_owned();
    let child = MESSAGE.replace("ann@corp", "ann@a.corp");
    let at = "_dmarc.corp.example";
    let reject = "v=DMARC1; p=reject";
    use {Check as C, DmarcPolicy as P};
    let rows = [
        (signer.sign(&plain), vec![(at, reject)], (C::Pass, P::Reject)),
        (other.sign(&plain), vec![(at, reject)], (C::Fail, P::Reject)),
        (plain.clone(), vec![(at, reject), spf], (C::Pass, P::Reject)),
        (plain.clone(), vec![(at, "v=DMARC1; p=quarantine")], (C::Fail, P::Quarantine)),
        (signer.sign(&child), vec![(at, "v=DMARC1; p=reject; sp=none")], (C::Pass, P::None)),
        (signer.sign(&child), vec![(at, "v=DMARC1; p=reject; adkim=s")], (C::Fail, P::Reject)),
        (child.clone(), vec![(at, "v=DMARC1; p=reject; aspf=s"), spf], (C::Fail, P::Reject)),
        (plain.clone(), vec![(at, "v=DMARC1; p=reject; t=y")], (C::Fail, P::Quarantine)),
        (plain.clone(), vec![(at, "v=DMARC1; rua=mailto:a@corp.example")], (C::Fail, P::None)),
        (plain.clone(), vec![(at, "v=DMARC2; p=reject")], (C::None, P::Absent)),
        (plain.clone(), vec![(at, reject), (at, "v=DMARC1; p=none")], (C::None, P::Absent)),
        (plain.clone(), vec![(at, "!")], (C::Pending, P::Absent)),
        (plain.replace("From:", "X-From:"), vec![(at, reject)], (C::None, P::Absent)),
    ];
    for (message, records, expected) in rows {
        let records: Vec<_> = base.iter().copied().chain(records).collect();
        let dmarc = facts(&message, SESSION, &records).dmarc;
        assert_eq!((dmarc.verdict, dmarc.policy), expected, "{records:?}");
    }
}

#[test]
fn spf_speaks_for_mail_from_and_of_a_null_sender_for_the_host() {
    let records =
        [("corp.example", "v=spf1 ip4:192.0.2.7 -all"), ("out.corp.example", "v=spf1 ip4:192.0.2.0/24 -all")];
    let found = facts(MESSAGE, SESSION, &records).spf;
    assert_eq!((found.domain.as_str(), found.is_aligned, found.verdict), ("corp.example", true, Check::Pass));
    let found = facts(MESSAGE, ("", "out.corp.example"), &records);
    assert_eq!((found.spf.domain.as_str(), found.spf.is_aligned), ("out.corp.example", false));
    assert!(found.spf.verdict == Check::Pass && !found.proves());
    let found = facts(MESSAGE, ("x@else.example", "h"), &[("else.example", "v=spf1 ip4:192.0.2.7 -all")]);
    assert!(found.spf.verdict == Check::Pass && !found.spf.is_aligned && !found.proves());
    // Who lets everybody send vouches for nobody.
    for record in [
        "v=spf1 +all",
        "v=spf1 all",
        "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all",
        "v=spf1 include:open.example -all",
    ] {
        let published = [("corp.example", record), ("open.example", "v=spf1 ip4:198.51.100.1 +all")];
        let found = facts(MESSAGE, SESSION, &published);
        assert!(found.spf.verdict == Check::None && !found.proves(), "{record}: {found:?}");
    }
    let found = facts(MESSAGE, SESSION, &[("corp.example", "!")]);
    assert!(found.spf.verdict == Check::Pending && found.is_pending());
}

#[test]
fn what_a_message_says_of_checks_by_others_is_no_proof() {
    let claims = [
        "Authentication-Results: mx.gate.example; dkim=pass header.d=corp.example; spf=pass; dmarc=pass",
        "ARC-Authentication-Results: i=1; mx.gate.example; dkim=pass header.d=corp.example",
        "X-MS-Exchange-Organization-AuthAs: Internal",
        "Received: from out.corp.example by mx.gate.example with ESMTPSA",
        "Received-SPF: pass (mx.gate.example)",
        "X-Google-DKIM-Signature: v=1; a=rsa-sha256; d=corp.example",
    ];
    let plain = facts(MESSAGE, SESSION, &[]);
    for claim in claims {
        let found = facts(&format!("{claim}\r\n{MESSAGE}"), SESSION, &[]);
        assert!(!found.proves() && !found.is_pending(), "{claim}");
        assert_eq!(
            (found.signatures, found.spf, found.dmarc),
            (Vec::new(), plain.spf.clone(), plain.dmarc.clone())
        );
    }
}

async fn asked(message: &str, dns: &Dns, mail_from: &str) -> SenderFacts {
    let checker = SenderChecker::new(Resolver::new(&[dns.address()]).unwrap());
    let reverse_path = reverse_path(mail_from);
    let peer = "192.0.2.7".parse().unwrap();
    let session = SmtpSession {
        peer,
        hello: "out.corp.example",
        reverse_path: &reverse_path,
        our_hostname: "mx.gate.example",
    };
    checker.check(message.as_bytes(), &session, now()).await
}

#[tokio::test]
async fn a_sender_is_proven_by_a_name_server() {
    let signer = Signer::new("corp.example");
    let (name, key) = signer.record();
    let zone = Zone::default()
        .txt(&name, &key)
        .txt("corp.example", "v=spf1 mx -all")
        .mx("corp.example", 10, "out.corp.example")
        .address("out.corp.example", "192.0.2.7")
        .txt("_dmarc.corp.example", "v=DMARC1; p=reject");
    let dns = Dns::start(zone.clone());
    let found = asked(&signer.sign(MESSAGE), &dns, "ann@corp.example").await;
    assert_eq!(found.from, FromField::One(Address::parse("ann@corp.example").unwrap()));
    assert_eq!((found.signatures[0].verdict, found.spf.verdict), (Check::Pass, Check::Pass), "{found:?}");
    assert_eq!((found.dmarc.verdict, found.dmarc.policy), (Check::Pass, DmarcPolicy::Reject));
    // A long body is hashed elsewhere, to the same end.
    let long = signer.sign(&format!("{MESSAGE}{}", "and more\r\n".repeat(40_000)));
    assert_eq!(asked(&long, &dns, "ann@corp.example").await.signatures[0].verdict, Check::Pass);
    // The server fails where the key is: it may yet be proven.
    let dns = Dns::start(zone.failing(&name, Failure::ServFail).failing("corp.example", Failure::ServFail));
    let found = asked(&signer.sign(MESSAGE), &dns, "ann@corp.example").await;
    assert_eq!(
        (found.signatures[0].verdict, found.spf.verdict),
        (Check::Pending, Check::Pending),
        "{found:?}"
    );
    assert!(found.is_pending());
}

#[tokio::test]
async fn a_message_causes_no_more_lookups_than_it_may() {
    let includes: String = (0..9).map(|at| format!(" include:{at}.corp.example")).collect();
    let mut zone = Zone::default().txt("corp.example", &format!("v=spf1{includes} mx -all"));
    for at in 0..9 {
        zone = zone.txt(&format!("{at}.corp.example"), "v=spf1 ?ip4:203.0.113.1");
    }
    for at in 0..10 {
        zone = zone.mx("corp.example", at, &format!("mx{at}.corp.example"));
    }
    let dns = Dns::start(zone);
    let signatures: String = (0..50)
        .map(|at| {
            format!("DKIM-Signature: v=1; a=rsa-sha256; d=d{at}.example; s=s; h=from; bh=AAAA; b=AAAA\r\n")
        })
        .collect();
    let found = asked(&format!("{signatures}{MESSAGE}"), &dns, "ann@corp.example").await;
    assert_eq!(found.signatures.len(), 5);
    assert!(!found.proves() && !found.is_pending(), "{found:?}");
    let asked: std::collections::HashSet<_> = dns.asked().into_iter().collect();
    assert!(asked.len() <= 20, "{asked:?}");
}

/// What a DMARC vector says of a message, as a message and what is published about it.
#[derive(Default)]
struct Case {
    message: String,
    mail_from: String,
    hello: String,
    records: Vec<(String, String)>,
}

impl Case {
    fn of(id: &str, said: &Value) -> Self {
        let ascii = |domain: &str| {
            Address::parse(&format!("a@{domain}"))
                .map_or_else(|_| domain.to_owned(), |a| a.domain().to_owned())
        };
        let mut case =
            Self { message: MESSAGE.replace("From: Ann <ann@corp.example>\r\n", ""), ..Self::default() };
        case.hello = "out.elsewhere.example".into();
        let Some(from) = said["from_"].as_str() else { return case };
        case.message = MESSAGE.replace("corp.example", from);
        for signature in said["dkim"].as_array().into_iter().flatten() {
            let signer = Signer::new(&ascii(signature[1].as_str().unwrap()));
            case.records.push(signer.record());
            // One that fails is that of another text.
            let own = match signature[0].as_str().unwrap() {
                "pass" => signer.sign(&case.message),
                _ => signer
                    .sign(&case.message.replace("here it is", "here it was"))
                    .replace("here it was", "here it is"),
            };
            case.message = own;
        }
        if let (Some(result), Some(of)) = (said["spf"][0].as_str(), said["spf"][1].as_str()) {
            let domain = of.split(' ').next().unwrap();
            let servers = if result.starts_with("pass") { "ip4:192.0.2.7 " } else { "" };
            case.records.push((domain.to_owned(), format!("v=spf1 {servers}-all")));
            match said["mailfrom"].as_str() {
                Some("") => case.hello = domain.to_owned(),
                _ => case.mail_from = format!("ann@{domain}"),
            }
        }
        case.publish(id, &ascii(from), said);
        case
    }

    fn publish(&mut self, id: &str, from: &str, said: &Value) {
        let parent = from.split_once('.').unwrap().1;
        // Without a list of suffixes an organisation is where its record stands (RFC 9989 section 4.10).
        let own = if id == "dmarc/dkim-parent-relaxed" { parent } else { from };
        let texts = |policy: &Value| -> Vec<String> {
            let list = policy.as_array().cloned().unwrap_or_else(|| vec![policy.clone()]);
            list.iter().filter_map(Value::as_str).map(|text| text.replace("SERVFAIL", "!")).collect()
        };
        for (at, policy) in [(own, &said["policy"]), (parent, &said["org_policy"])] {
            self.records.extend(texts(policy).into_iter().map(|text| (format!("_dmarc.{at}"), text)));
        }
    }

    fn facts(&self) -> SenderFacts {
        let records: Vec<(&str, &str)> =
            self.records.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        facts(&self.message, (&self.mail_from, &self.hello), &records)
    }
}

#[test]
fn dmarc_comes_out_as_the_vectors_say() {
    for vector in vectors_of("auth", "dmarc") {
        let id = id(&vector);
        let said: Value = serde_json::from_str(vector["bytes"].as_str().unwrap()).unwrap();
        let found = Case::of(id, &said).facts();
        let (verdict, policy) = (found.dmarc.verdict, found.dmarc.policy);
        let is_right = match vector["expect"]["result"].as_str().unwrap() {
            "pass" => verdict == Check::Pass,
            "fail" => verdict == Check::Fail,
            "fail with policy none" => (verdict, policy) == (Check::Fail, DmarcPolicy::None),
            "none or treated as p=none" => matches!(policy, DmarcPolicy::Absent | DmarcPolicy::None),
            "none" => (verdict, policy) == (Check::None, DmarcPolicy::Absent),
            "temperror" => verdict == Check::Pending && found.is_pending(),
            "permerror/none" => verdict == Check::None && found.from == FromField::Missing,
            other => panic!("{id}: nobody judges {other:?}"),
        };
        assert!(is_right, "{id}: {found:?}");
    }
}

#[test]
fn what_others_say_that_they_found_is_read_as_the_vectors_say_and_believed_nowhere() {
    for vector in vectors_of("auth", "authres") {
        let (id, field) = (id(&vector), vector["bytes"].as_str().unwrap());
        let value = field.split_once(':').map_or("", |(_, value)| value.trim());
        let read = Results::parse(value);
        let found: Vec<String> = read
            .iter()
            .flat_map(|results| &results.found)
            .map(|one| format!("{}={}", one.method, one.result))
            .collect();
        match id.strip_prefix("authres/").unwrap() {
            // Nobody is configured whose fields would be believed, wherever they stand.
            "foreign-ar" => assert_eq!(found, ["dkim=pass"]),
            "ar-below-received" => {
                let field = "Authentication-Results: mx.gate.example; dmarc=pass header.from=corp.example";
                let below = format!("Received: from evil by mx.gate.example\r\n{field}\r\n{MESSAGE}");
                assert_eq!(facts(&below, SESSION, &[]), facts(MESSAGE, SESSION, &[]), "{id}");
                continue;
            }
            "ar-none" => assert_eq!((found.len(), read.is_some()), (0, true), "{id}"),
            "ar-comments" => assert_eq!(found, ["spf=pass"], "{id}"),
            "ar-version" => assert_eq!(read, None, "{id}"),
            "ar-quoted" => assert_eq!(found, ["dkim=pass"], "{id}"),
            "ar-office365" => {
                assert_eq!(read.unwrap().by, None, "{id}");
                assert_eq!(found, ["spf=pass", "dkim=pass", "dmarc=pass", "compauth=pass"], "{id}");
            }
            other => panic!("nobody judges {other}"),
        }
        let claimed = format!("{field}{}", MESSAGE.replace("corp.example", "x.example"));
        let plain = MESSAGE.replace("corp.example", "x.example");
        assert_eq!(facts(&claimed, SESSION, &[]), facts(&plain, SESSION, &[]), "{id}");
    }
}

#[test]
fn of_a_domain_that_does_not_exist_its_organisation_may_ask_for_more() {
    let rows = [
        ("v=DMARC1; p=none; np=reject", "gone.corp.example", DmarcPolicy::Reject),
        ("v=DMARC1; p=reject; sp=quarantine; np=none", "gone.corp.example", DmarcPolicy::None),
        ("v=DMARC1; p=reject; sp=quarantine", "gone.corp.example", DmarcPolicy::Quarantine),
        ("v=DMARC1; p=none; np=reject; t=y", "gone.corp.example", DmarcPolicy::Quarantine),
        ("v=DMARC1; p=none; np=reject", "here.corp.example", DmarcPolicy::None),
        ("v=DMARC1; p=quarantine; sp=none; np=reject", "here.corp.example", DmarcPolicy::None),
        // Its own record is about itself, whatever there is.
        ("v=DMARC1; p=none; np=reject", "corp.example", DmarcPolicy::None),
    ];
    for (record, domain, policy) in rows {
        let message = MESSAGE.replace("ann@corp.example", &format!("ann@{domain}"));
        let reverse_path = reverse_path("x@else.example");
        let peer = "192.0.2.7".parse().unwrap();
        let session =
            SmtpSession { peer, hello: "else.example", reverse_path: &reverse_path, our_hostname: "mx" };
        let inquiry = Inquiry::open(message.as_bytes(), &session, now());
        let mut answers = Answers::default();
        let found = loop {
            if let Some(found) = inquiry.conclude(&mut answers) {
                break found;
            }
            for question in answers.take_wanted() {
                let answer = match (question.name.as_str(), question.kind) {
                    ("_dmarc.corp.example", RecordKind::Txt) => {
                        Answer::Records(vec![Record::Text(record.into())])
                    }
                    ("here.corp.example", RecordKind::A) => {
                        Answer::Records(vec![Record::Address("192.0.2.9".parse().unwrap())])
                    }
                    _ => Answer::Void,
                };
                answers.learn(question, answer);
            }
        };
        assert_eq!((found.dmarc.verdict, found.dmarc.policy), (Check::Fail, policy), "{record} {domain}");
    }
}

#[test]
fn a_chain_vouches_for_whom_its_first_link_found_proven() {
    let (list, evil) = (Signer::new("lists.example"), Signer::new("evil.example"));
    let keys = [list.record(), evil.record()];
    let records: Vec<(&str, &str)> = keys.iter().map(|(name, key)| (name.as_str(), key.as_str())).collect();
    let arc = |message: &str| facts(message, SESSION, &records).arc;
    let found = "spf=pass smtp.mailfrom=corp.example; dmarc=pass (p=reject) header.from=corp.example";
    let sealed = list.seal(MESSAGE, found);
    let chain = arc(&sealed);
    assert_eq!((chain.verdict, chain.vouches), (Check::Pass, true));
    assert_eq!(chain.sealers, ["lists.example"]);
    assert!(arc(&list.seal(MESSAGE, "dkim=pass header.i=@corp.example")).vouches);
    for other in ["dmarc=fail header.from=corp.example", "dmarc=pass header.from=evil.example", "none"] {
        assert!(!arc(&list.seal(MESSAGE, other)).vouches, "{other}");
    }
    // From changed behind the seal, the results changed, and another's From.
    let changed = sealed.replace("From: Ann <ann@", "From: Ann <eve@");
    assert_eq!(arc(&changed).verdict, Check::Fail);
    let claimed =
        list.seal(MESSAGE, "dmarc=fail header.from=corp.example").replace("dmarc=fail", "dmarc=pass");
    assert_eq!(arc(&claimed).verdict, Check::Fail);
    let evils = evil.seal(&MESSAGE.replace("ann@corp.example", "ann@evil.example"), found);
    assert_eq!((arc(&evils).verdict, arc(&evils).vouches), (Check::Pass, false));
}
