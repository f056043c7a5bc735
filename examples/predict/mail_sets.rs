//! What one message says, by the library's own readers.
//!
//! Not here: anything of a set's particulars but the names of its fields.

use std::path::Path;

use mailweave::mail::{
    Action, Automatic, DeliveryReport, HeaderBlock, Kind, Mention, Message, address_list, forward,
    reply::{split_reply, visible_text},
    sanitise::html_to_text,
};
use serde_json::{Value, json};
use sha1::Digest as _;

/// A message, or text that stood in one, told by the extension.
fn text_of(path: &Path, raw: &[u8]) -> String {
    let text = || String::from_utf8_lossy(raw).replace("\r\n", "\n");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("txt") => text(),
        Some("html") => html_to_text(&text()),
        _ => Message::parse(raw).readable_text().unwrap_or_default(),
    }
}

pub fn reply(path: &Path, raw: &[u8]) -> Value {
    let text = text_of(path, raw);
    json!({ "visible": visible_text(&text), "visible_nosig": split_reply(&text) })
}

pub fn bounce(_: &Path, raw: &[u8]) -> Value {
    let message = Message::parse(raw);
    let report = DeliveryReport::read(raw);
    let action = report.as_ref().and_then(DeliveryReport::action);
    let class = match (message.kind, action) {
        _ if message.is_complaint => "feedback-report",
        (Kind::Bounce, Some(Action::Delayed)) => "delayed",
        (Kind::Bounce, Some(Action::Delivered | Action::Relayed | Action::Expanded)) => "delivery-success",
        (Kind::Bounce, _) => "bounce",
        _ => "not-bounce",
    };
    let recipients: Vec<Value> = report
        .into_iter()
        .flat_map(|report| report.recipients)
        .map(|one| {
            json!({
                "address": one.address.to_string(),
                "status": one.status.map(|status| status.to_string()),
                "temporary": one.status.is_some_and(|status| !status.is_permanent()),
            })
        })
        .collect();
    json!({ "cls": class, "recipients": recipients })
}

pub fn autoreply(_: &Path, raw: &[u8]) -> Value {
    json!({ "auto": Message::parse(raw).summary.automatic == Automatic::AutoReply })
}

pub fn forward(path: &Path, raw: &[u8], subject: Option<&str>) -> Value {
    let (found, is_mail) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("txt" | "html") => (forward::in_text(&text_of(path, raw), subject.unwrap_or_default()), true),
        _ => {
            let message = Message::parse(raw);
            (forward::read(&message, raw), !message.kind.is_machines())
        }
    };
    let Some(found) = found else { return json!({ "forwarded": false }) };
    let address = |one: &Mention| one.address.as_ref().map(ToString::to_string);
    let from = found.from.as_ref().and_then(address);
    json!({
        // As far as the gateway would file it so, which takes an author: what is less certain is read, and stays the user's own.
        "forwarded": is_mail && found.certainty > forward::Certainty::Low && from.is_some(),
        "from_address": from,
        "from_name": found.from.as_ref().and_then(|from| from.name.clone()),
        "subject": found.subject,
        "to": found.to.iter().filter_map(address).collect::<Vec<_>>(),
        "cc": found.cc.iter().filter_map(address).collect::<Vec<_>>(),
        "body": found.body, "comment": found.comment,
    })
}

/// The people of every field of that name, or of the first, those without a domain too: to read them is one thing, to write to
/// them another.
fn people(header: &HeaderBlock<'_>, name: &str, fields: usize) -> Vec<(String, String)> {
    let written = header.all(name).take(fields).flat_map(|field| address_list::written(field.value));
    written.map(|one| (one.name.unwrap_or_default(), one.address)).collect()
}

pub fn mime(_: &Path, raw: &[u8]) -> Value {
    let message = Message::parse(raw);
    let (summary, header) = (&message.summary, HeaderBlock::scan(raw));
    let mut names: Vec<_> = message.attachments.iter().filter_map(|one| one.written_name.clone()).collect();
    names.sort();
    let ids = |ids: &[mailweave::mail::MessageId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "subject": summary.subject.as_deref().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")),
        "message_id": summary.message_id.as_ref().map(ToString::to_string),
        "in_reply_to": summary.in_reply_to.first().map(ToString::to_string),
        "from": people(&header, "From", 1), "to": people(&header, "To", usize::MAX),
        "cc": people(&header, "Cc", usize::MAX), "reply_to": people(&header, "Reply-To", 1),
        "date": summary.date.map(|date| date.as_second()),
        "references": ids(&summary.references),
        "text": message.first_text.as_deref().map(digest),
        "attach": names,
    })
}

/// The text without any white space, as SHA-1.
fn digest(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    sha1::Sha1::digest(bare.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
