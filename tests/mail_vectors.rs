//! Reads the vectors for addresses, headers, MIME, threads and automatic mail, where the checkout has them beside it, and judges
//! each. One that nobody judges fails.
//!
//! Not here: the vectors themselves (`corpus`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "every function here is part of a test"
)]

mod corpus;

use corpus::{id, octets, vectors, vectors_of};
use mailweave::mail::{
    Address, Automatic, Defect, HeaderBlock, HeaderSummary, Kind, Message, Party, address_list, sanitise,
    surgery,
};
use serde_json::Value;

fn pairs(parties: &[Party]) -> Vec<(String, String)> {
    parties.iter().map(|p| (p.name.clone().unwrap_or_default(), p.address.key().to_owned())).collect()
}

/// `[["name", "address"], …]` of a vector, the addresses in the form they are compared in.
fn expected_pairs(list: &Value) -> Option<Vec<(String, String)>> {
    let pair = |entry: &Value| {
        let address = Address::parse(entry[1].as_str()?).ok()?;
        Some((entry[0].as_str()?.to_owned(), address.key().to_owned()))
    };
    list.as_array()?.iter().map(pair).collect()
}

fn judge_address(id: &str, got: &[Party], expect: &Value) -> bool {
    let one = |key: &str| got.len() == 1 && got[0].address == Address::parse(key).unwrap();
    if let Some(list) = expected_pairs(expect) {
        return pairs(got) == list;
    }
    if let Some(address) = expect["address"].as_str() {
        return one(address);
    }
    match id {
        "address/at-at" | "address/fullwidth-at" | "address/x400" | "address/no-domain" => got.is_empty(),
        "address/idn" => got.len() == 1 && got[0].address.domain() == "xn--bcher-kva.example",
        "address/homoglyph" => got.iter().all(|p| p.address.key() != "j@example.com"),
        "address/srs" => one("SRS0=HHH=TT=orig.example=joe@fwd.example") && origin(got) == "joe@orig.example",
        "address/batv" => one("prvs=0123456789=joe@b.example") && origin(got) == "joe@b.example",
        "address/verp" => one("bounce+joe=b.example@list.example"),
        _ => expect["any_of"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(expected_pairs)
            .any(|list| pairs(got) == list),
    }
}

fn origin(got: &[Party]) -> String {
    got[0].address.before_rewriting().unwrap().to_string()
}

#[test]
fn addresses_are_read_as_the_vectors_say() {
    for vector in vectors("address") {
        let id = id(&vector);
        let got = address_list::parse(&octets(&vector));
        assert!(judge_address(id, &got, &vector["expect"]), "{id}: {got:?}, expected {}", vector["expect"]);
    }
}

/// What a header vector expects, in code: the vectors say it in prose.
fn judge_header(id: &str, raw: &[u8], expect: &str) -> bool {
    let block = HeaderBlock::scan(raw);
    let summary = HeaderSummary::read(raw);
    let subject = summary.subject.as_deref().unwrap_or_default();
    let body = &raw[block.body_offset()..];
    let from = pairs(&summary.from);
    let from_is = |name: &str, address: &str| from == [(name.to_owned(), address.to_owned())];
    match id.strip_prefix("header/").unwrap() {
        "no-space-between" => subject == "ab",
        "inside-quotes" => from_is("Jö", "j@x.example"),
        "addr-in-encoded" => from_is("evil@bank.example", "joe@x.example"),
        "encoded-comma" => summary.to.len() == 2,
        "encoded-angle" => from.len() == 1 && from[0].1 == "j@x.example",
        "encoded-crlf" => {
            !subject.contains(['\r', '\n']) && summary.bcc.is_empty() && subject.starts_with('a')
        }
        "encoded-nul" => from_is("admin@bank.example", "j@x.example"),
        "unknown-charset" => subject == "abc",
        "b64-with-space" => subject == "Hello",
        "overlong-word" => subject == "A".repeat(300),
        "raw-latin1" => subject == "café",
        "fold-no-space" => subject == "abc" && block.text("def").as_deref() == Some("x"),
        "fold-ws-only" => subject == "abc" && from_is("", "a@b.example") && body == b"body",
        "tab-fold" => subject == "abc def",
        "empty-header-name" | "bom-first" => subject == "x",
        "no-colon-line" => subject == "x" || block.fields().is_empty(),
        "lf-only-message" => subject == "x" && body == b"body\n",
        "cr-only-message" => subject == "x" && body == b"body\r",
        "addresses-100k" => HeaderSummary::read(&repeated_addresses()).to.len() == 1000,
        "addr-nesting" => summary.from.is_empty(),
        "dup-from" => summary.from_fields == 2 && from_is("", "a@x.example"),
        "dup-subject" => subject == "a",
        "dup-message-id" => {
            summary.message_id.unwrap().as_str() == "1@x" && summary.other_message_ids[0].as_str() == "2@x"
        }
        "bcc-kept" => summary.bcc.len() == 1 && surgery::strip_for_submission(raw, |_| false).is_empty(),
        "date-zones" | "date-60s" => {
            summary.date.map(|at| at.as_second().to_string()).as_deref() == Some(expect)
        }
        _ => subject == expect,
    }
}

fn repeated_addresses() -> Vec<u8> {
    format!("To: {}\r\n\r\n", "a@b.example, ".repeat(100_000)).into_bytes()
}

#[test]
fn headers_are_read_as_the_vectors_say() {
    for vector in vectors("header") {
        let (id, expect) = (id(&vector), vector["expect"].as_str().unwrap());
        let raw = octets(&vector);
        let summary = HeaderSummary::read(&raw);
        assert!(judge_header(id, &raw, expect), "{id}: expected {expect}, got {summary:?}");
    }
}

/// What a MIME vector expects, in code.
fn judge_mime(id: &str, message: &Message) -> bool {
    let text = message.text.as_deref().map(str::trim);
    let names: Vec<_> = message.attachments.iter().map(|a| a.filename.as_deref()).collect();
    let has = |defect| message.defects.contains(&defect);
    match id.strip_prefix("mime/").unwrap() {
        "nest-100" | "nest-1000" => text == Some("deep") || (has(Defect::TooDeep) && names.len() == 1),
        "rfc822-nest-500" => names.len() == 1 && text.is_none(),
        "empty-boundary" => has(Defect::MissingBoundary) && names.len() == 1,
        "boundary-prefix" => text == Some("x") && names.is_empty(),
        "no-close" => text == Some("x") && has(Defect::UnclosedMultipart),
        "dup-content-type" => {
            text == Some("<b>x</b>") && message.html.is_none() && has(Defect::AmbiguousMime)
        }
        "cte-dup" => text == Some("Hi") && has(Defect::AmbiguousMime),
        "cte-unknown" => text == Some("abc") && has(Defect::UnknownTransferEncoding),
        "b64-garbage" => text.is_some_and(|text| text.starts_with("Hi")),
        "b64-concat" => text == Some("HiHi"),
        "qp-soft-end" => text == Some("a"),
        "qp-bad" => text == Some("a=ZZ b"),
        "filename-path" => names == [Some("passwd")],
        "filename-nul" => names == [Some("a.txt.exe")],
        "filename-rtlo" => names == [Some("fdp.exe")],
        "rfc2231-order" => names == [Some("ab.txt")],
        "filename-2047" | "filename-both" => names == [Some("é.txt")],
        "name-only" => names == [Some("a.pdf")],
        "winmail" => names == [Some("winmail.dat")],
        "html-only-script" => {
            let shown = sanitise::sanitise(message.html.as_deref().unwrap());
            message.readable_text().as_deref() == Some("hi")
                && !shown.contains("script")
                && !shown.contains("onclick")
        }
        "alternative-differs" => {
            text == Some("pay 10") && message.html.as_deref().map(str::trim) == Some("pay 1000")
        }
        "calendar" => message.kind == Kind::Invitation && text.is_none(),
        "utf7" => text.is_some() && message.html.is_none(),
        "external-body" => text.is_none() && names.len() == 1,
        other => panic!("no judgement for {other}"),
    }
}

#[test]
fn mime_is_read_as_the_vectors_say() {
    for vector in vectors("mime") {
        let id = id(&vector);
        let message = Message::parse(&octets(&vector));
        assert!(judge_mime(id, &message), "{id}: expected {}, got {message:?}", vector["expect"]);
    }
}

/// Whether mail is of the class that a vector asks for.
fn is_of_class(class: &str, message: &Message) -> bool {
    let automatic = message.summary.automatic;
    match class {
        "human" => automatic == Automatic::No && message.kind == Kind::Mail,
        "auto-reply" => automatic == Automatic::AutoReply && message.kind == Kind::AutoReply,
        "auto-generated" => automatic == Automatic::Generated,
        "bulk" => matches!(automatic, Automatic::Bulk | Automatic::List),
        "bulk or auto" => automatic != Automatic::No,
        "auto-reply or bounce" => matches!(automatic, Automatic::AutoReply | Automatic::Bounce),
        // A machine's answer, and no report of a failure.
        "read-receipt" => automatic == Automatic::AutoReply && message.kind != Kind::Bounce,
        "calendar" => automatic == Automatic::No && message.kind == Kind::Invitation,
        other => panic!("no judgement for {other}"),
    }
}

#[test]
fn automatic_mail_is_told_as_the_vectors_say() {
    for vector in vectors_of("autoreply", "autosubmitted") {
        let (id, class) = (id(&vector), vector["expect"]["cls"].as_str().unwrap());
        let header = vector["bytes"].as_str().unwrap();
        let message = Message::parse(format!("{header}\r\n\r\nbody\r\n").as_bytes());
        assert!(
            is_of_class(class, &message),
            "{id}: {class}, {:?} {:?}",
            message.summary.automatic,
            message.kind
        );
    }
}

#[test]
fn ids_are_read_as_the_vectors_say() {
    for vector in vectors_of("threads", "threading") {
        let (id, expect) = (id(&vector), &vector["expect"]);
        let raw = octets(&vector);
        let summary = HeaderSummary::read(&raw);
        if let Some(own) = expect.get("id") {
            assert_eq!(summary.message_id.as_ref().map(|own| own.as_str()), own.as_str(), "{id}");
        }
        if let Some(any) = expect["any_of"].as_array() {
            let own = summary.message_id.as_ref().unwrap().as_str();
            assert!(any.iter().any(|one| one == own), "{id}: {own}");
        }
        if let Some(wanted) = expect["refs"].as_array() {
            let named: Vec<&str> = summary.ancestors().map(|named| named.as_str()).collect();
            assert_eq!(named, wanted.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>(), "{id}");
        }
        if let Some(wanted) = expect["aliases"].as_array() {
            assert_eq!(summary.original_message_id.unwrap().as_str(), wanted[0].as_str().unwrap(), "{id}");
        }
    }
}
