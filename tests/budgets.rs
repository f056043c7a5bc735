//! What reading one message may cost, each budget at its edge: what just fits is read whole and no more than that, with a defect
//! that says so. And time: twice as much takes about twice as long, whatever it is made of.
//!
//! Not here: the budgets themselves, which stand as constants beside what they bound.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

use std::time::{Duration, Instant};

use mailweave::{
    core::threading::{self, NODES_MAX, PARTICIPANTS_MAX, ThreadNode},
    mail::{
        Address, Defect, DeliveryReport, HeaderBlock, HeaderSummary, Message, forward,
        header::{ADDRESSES_MAX, FIELD_BYTES_MAX, FIELDS_MAX, HEADER_BYTES_MAX},
        reply, sanitise,
    },
};

/// Multiparts within each other that are read as such.
const DEPTH_MAX: usize = 50;
/// Parts of a message.
const PARTS_MAX: usize = 1000;
/// Ids of References that are kept: as many from either end.
const REFERENCES_MAX: usize = 100;

fn defects(raw: &str) -> Vec<Defect> {
    Message::parse(raw.as_bytes()).defects
}

/// Of this size it is read without this defect, and one more brings it.
#[track_caller]
fn check(defect: Defect, edge: usize, of: impl Fn(usize) -> String) {
    assert!(!defects(&of(edge)).contains(&defect), "{defect:?} at {edge}");
    assert!(defects(&of(edge + 1)).contains(&defect), "no {defect:?} beyond {edge}");
}

#[test]
fn a_header_has_so_many_fields() {
    check(Defect::TooManyFields, FIELDS_MAX, |fields| "A: 1\r\n".repeat(fields) + "\r\nbody");
    let many = "A: 1\r\n".repeat(FIELDS_MAX + 1) + "\r\nbody";
    assert_eq!(HeaderBlock::scan(many.as_bytes()).fields().len(), FIELDS_MAX);
    assert_eq!(Message::parse(many.as_bytes()).text.as_deref(), Some("body"), "the body is still found");
}

#[test]
fn a_field_has_so_many_octets() {
    let of = |octets: usize| format!("A:{}\r\nSubject: x\r\n\r\nbody", "y".repeat(octets));
    check(Defect::FieldTooLong, FIELD_BYTES_MAX, of);
    let long = of(FIELD_BYTES_MAX + 1);
    let block = HeaderBlock::scan(long.as_bytes());
    assert_eq!(block.first("A").unwrap().value.len(), FIELD_BYTES_MAX);
    assert_eq!(HeaderSummary::of(&block).subject.as_deref(), Some("x"), "the next field is still read");
}

#[test]
fn a_header_has_so_many_octets() {
    // The last field begins at the edge, or one octet later.
    let of = |octets: usize| {
        let line = format!("A: {}\r\n", "y".repeat(995));
        let lines = line.repeat((HEADER_BYTES_MAX - 10) / line.len());
        let rest = octets - 1 - lines.len();
        format!("{lines}B: {}\r\nSubject: x\r\n\r\nbody", "z".repeat(rest - 5))
    };
    check(Defect::HeaderTooLong, HEADER_BYTES_MAX, of);
    let (fits, long) = (of(HEADER_BYTES_MAX), of(HEADER_BYTES_MAX + 1));
    assert_eq!(HeaderSummary::read(fits.as_bytes()).subject.as_deref(), Some("x"));
    assert_eq!(HeaderSummary::read(long.as_bytes()).subject, None);
    assert_eq!(Message::parse(long.as_bytes()).text.as_deref(), Some("body"), "the body is still found");
}

#[test]
fn a_message_is_to_so_many_addresses() {
    for (written, read) in [(ADDRESSES_MAX, ADDRESSES_MAX), (ADDRESSES_MAX + 1, ADDRESSES_MAX)] {
        let list: Vec<_> = (0..written).map(|n| format!("a{n}@b.example")).collect();
        let raw = format!("To: {}\r\n\r\n", list.join(",\r\n "));
        assert_eq!(HeaderSummary::read(raw.as_bytes()).to.len(), read, "of {written}");
    }
}

#[test]
fn references_are_kept_from_both_ends() {
    for (written, kept) in
        [(REFERENCES_MAX, REFERENCES_MAX), (REFERENCES_MAX + 1, REFERENCES_MAX), (3000, REFERENCES_MAX)]
    {
        let ids: Vec<_> = (0..written).map(|n| format!("<{n}@x>")).collect();
        let raw = format!("References: {}\r\n\r\n", ids.join("\r\n "));
        let references = HeaderSummary::read(raw.as_bytes()).references;
        assert_eq!(references.len(), kept, "of {written}");
        assert_eq!(
            (references[0].as_str(), references[kept - 1].as_str()),
            ("0@x", &*format!("{}@x", written - 1))
        );
    }
}

#[test]
fn a_message_has_so_many_keys_in_the_index_of_threads() {
    let node =
        |n: usize| ThreadNode::MessageId(mailweave::mail::MessageId::parse(&format!("<{n}@x>")).unwrap());
    let person = |n: usize| Address::parse(&format!("a{n}@b.example")).unwrap();
    let keys = |nodes: usize, people: usize| {
        let nodes: Vec<_> = (0..nodes).map(node).collect();
        threading::keys(&nodes, &(0..people).map(person).collect::<Vec<_>>()).len()
    };
    assert_eq!(keys(NODES_MAX, PARTICIPANTS_MAX), NODES_MAX * PARTICIPANTS_MAX);
    assert_eq!(keys(NODES_MAX + 1, PARTICIPANTS_MAX + 1), NODES_MAX * PARTICIPANTS_MAX);
    // Own id, the id before it was rewritten, References and In-Reply-To fit.
    const { assert!(NODES_MAX >= REFERENCES_MAX + 2) };
}

#[test]
fn parts_lie_so_deep_and_are_so_many() {
    check(Defect::TooDeep, DEPTH_MAX, |depth| {
        let open = |n| format!("Content-Type: multipart/mixed; boundary=\"b{n}\"\r\n\r\n--b{n}\r\n");
        (0..depth).map(open).collect::<String>() + "\r\ntext"
    });
    check(Defect::TooManyParts, PARTS_MAX - 1, |parts| {
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n".to_owned()
            + &"--a\r\n\r\nx\r\n".repeat(parts)
            + "--a--"
    });
}

/// Mail of about so many octets.
type Shape = fn(usize) -> String;

/// Mail that is made to be slow to read.
const SHAPES: [(&str, Shape); 30] = [
    ("addresses", |n| format!("To: {}\r\n\r\n", "c@d.example,\r\n ".repeat(n / 15))),
    ("open quotes", |n| format!("To: {}\r\n\r\n", "\"a\\\" ".repeat(n / 5))),
    ("comments", |n| format!("To: {}\r\n\r\n", "((((".repeat(n / 4))),
    ("groups", |n| format!("To: {}\r\n\r\n", "a:b@c.d;".repeat(n / 8))),
    ("angles", |n| format!("To: {}\r\n\r\n", "<<@a,@b:".repeat(n / 8))),
    ("words", |n| format!("Subject: {}\r\n\r\n", "=?utf-8?Q?a".repeat(n / 11))),
    ("whole words", |n| format!("Subject: {}\r\n\r\n", "=?utf-8?B?4A==?= ".repeat(n / 17))),
    ("odd charsets", |n| format!("Subject: {}\r\n\r\n", "=?iso-2022-jp?B?GyRC?= ".repeat(n / 23))),
    ("ids", |n| format!("References: {}\r\n\r\n", "<a@b>\r\n ".repeat(n / 8))),
    ("open ids", |n| format!("References: {}\r\n\r\n", "<a@".repeat(n / 3))),
    ("fields", |n| "X: y\r\n".repeat(n / 6)),
    ("folds", |n| format!("Subject: x{}\r\n\r\n", "\r\n ".repeat(n / 3))),
    ("colons", |n| ":\r\n".repeat(n / 3)),
    ("dates", |n| format!("Date: {}\r\n\r\n", "Mon, 1 ".repeat(n / 7))),
    ("parameters", |n| format!("Content-Type: a/b{}\r\n\r\n", "; a*1*=b".repeat(n / 8))),
    ("boundaries", |n| {
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n".to_owned()
            + &"--b\r\n--a\r\nX: y\r\n".repeat(n / 16)
    }),
    ("near boundaries", |n| {
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n".to_owned() + &"--a-".repeat(n / 4)
    }),
    ("nesting", |n| "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n".repeat(n / 50)),
    ("letters in letters", |n| "Content-Type: message/rfc822\r\n\r\n".repeat(n / 32)),
    ("soft line ends", |n| {
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n".to_owned() + &"=\r\n".repeat(n / 3)
    }),
    ("broken quotes", |n| {
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n".to_owned() + &"=Z=".repeat(n / 3)
    }),
    ("base64 with blanks", |n| {
        "Content-Transfer-Encoding: base64\r\n\r\n".to_owned() + &"Q Q= ".repeat(n / 5)
    }),
    ("tags", |n| "Content-Type: text/html\r\n\r\n".to_owned() + &"<b <!-- <style".repeat(n / 14)),
    ("open elements", |n| "Content-Type: text/html\r\n\r\n".to_owned() + &"<div>".repeat(n / 5)),
    ("tables", |n| "Content-Type: text/html\r\n\r\n".to_owned() + &"<table><tr><td>".repeat(n / 15)),
    ("formatting", |n| "Content-Type: text/html\r\n\r\n".to_owned() + &"<a><b></a>".repeat(n / 10)),
    ("attributes", |n| format!("Content-Type: text/html\r\n\r\n<p {}>", "a=b ".repeat(n / 4))),
    ("quoted lines", |n| "\r\n".to_owned() + &"> > On x wrote:\r\n".repeat(n / 17)),
    ("forwarded heads", |n| "\r\n".to_owned() + &"From: a@b.c\r\nDate: x\r\n\r\n".repeat(n / 24)),
    ("reports", |n| {
        "From: MAILER-DAEMON@x\r\nSubject: failure notice\r\n\r\n".to_owned()
            + &"<a@b.c>: 550 no\r\n".repeat(n / 17)
    }),
];

/// Everything that is done with a message while it is filed and shown.
fn read(raw: &[u8]) {
    let message = Message::parse(raw);
    assert!(!message.defects.contains(&Defect::Unreadable), "a reader panicked");
    let text = message.readable_text().unwrap_or_default();
    let _ = reply::visible_text(&text);
    let _ = forward::read(&message, raw);
    let _ = DeliveryReport::read(raw);
    if let Some(html) = &message.html {
        let _ = sanitise::sanitise(html);
    }
}

#[test]
fn reading_takes_time_in_proportion_to_the_message() {
    for (name, shape) in SHAPES {
        let time = |octets: usize| {
            let raw = shape(octets);
            let once = || {
                let since = Instant::now();
                read(raw.as_bytes());
                since.elapsed()
            };
            (0..3).map(|_| once()).min().unwrap()
        };
        let (small, large) = (time(32 * 1024), time(256 * 1024));
        // Eight times the input; a quadratic reader would take 64 times as long. A busy machine may take some of it.
        assert!(
            large < small * 24 + Duration::from_millis(250),
            "{name}: {small:?}, eight times as much {large:?}"
        );
    }
}
