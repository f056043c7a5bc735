//! Writes delivery reports (RFC 3464) for mail that we accepted and could not pass on, as RFC 3461 asks.
//!
//! Not here: whether one may be written at all: never on mail from the null reverse-path or on automatic mail.

use bytes::Bytes;
use jiff::Timestamp;
use mail_builder::{
    MessageBuilder,
    headers::{content_type::ContentType, date::Date, message_id, text::Text},
    mime::{BodyPart, MimePart},
};
use sha2::{Digest, Sha256};

use super::{
    Address, EnhancedStatus, Envelope, HeaderBlock, HeaderText, MessageId, Party, RawMessage, Recipient,
    Return, canonical_domain,
    compose::{boundary, written},
    header_text::address_header,
    report::Action,
    surgery::{has_overlong_line, normalise_line_ends, remove_fields},
};

/// One recipient to report on.
#[derive(Debug, Clone)]
pub struct ReportedRecipient {
    /// From the envelope, with its ORCPT.
    pub recipient: Recipient,
    pub action: Action,
    pub status: EnhancedStatus,
    /// What the other server said.
    pub diagnostic: Option<String>,
    /// Whose words those are.
    pub remote_mta: Option<String>,
}

/// A delivery report to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewReport<'a> {
    /// Our host name: whose report it is.
    pub reporting_mta: &'a str,
    /// The reverse-path of the message reported on.
    pub to: &'a Address,
    pub original: &'a RawMessage,
    /// Of the message reported on: its ENVID and RET are honoured.
    pub envelope: &'a Envelope,
    pub recipients: &'a [ReportedRecipient],
    pub message_id: &'a MessageId,
    pub date: Timestamp,
}

/// Writes a report, to be sent from `<>`. It returns the whole message only where RET asks for it and something failed,
/// else its header, and never a Bcc field.
#[must_use]
pub fn compose_report(report: &NewReport<'_>) -> RawMessage {
    let host = canonical_domain(report.reporting_mta).unwrap_or_else(|| "localhost".to_owned());
    let from = Address::from_parts("mailer-daemon", &host)
        .ok()
        .map(|address| Party::new(address, Some("Mail Delivery System")));
    let parts = vec![
        MimePart::new(
            ContentType::new("text/plain").attribute("charset", "utf-8"),
            explanation(report, &host),
        ),
        MimePart::new(
            "message/delivery-status",
            BodyPart::Binary(status_fields(report, &host).into_bytes().into()),
        )
        .transfer_encoding("7bit"),
        returned(report),
    ];
    let mut hash = Sha256::new();
    hash.update(report.message_id.as_str());
    hash.update(&**report.original);
    let content_type = ContentType::new("multipart/report")
        .attribute("report-type", "delivery-status")
        .attribute("boundary", boundary("multipart/report", hash));
    let mut builder = MessageBuilder::new()
        .header("Date", Date::new(report.date.as_second()))
        .header("From", address_header(from.as_slice()))
        .header("To", address_header(&[Party::new(report.to.clone(), None)]))
        .header("Subject", Text::new(subject(report)))
        .header("Message-ID", message_id::MessageId::new(report.message_id.to_string()))
        .header("Auto-Submitted", Text::new("auto-replied"));
    if let Some(original) = HeaderBlock::scan(report.original)
        .message_ids("Message-ID")
        .first()
        .filter(|id| id.as_str().is_ascii())
    {
        let id = original.to_string();
        builder = builder
            .header("In-Reply-To", message_id::MessageId::new(id.clone()))
            .header("References", message_id::MessageId::new(id));
    }
    written(builder.body(MimePart::new(content_type, parts)))
}

/// What is reported is settled: delivered, or not.
fn has_failed(report: &NewReport<'_>) -> bool {
    report.recipients.iter().any(|reported| reported.action == Action::Failed)
}

fn subject(report: &NewReport<'_>) -> &'static str {
    if has_failed(report) { "Your message could not be delivered" } else { "Your message was delivered" }
}

fn explanation(report: &NewReport<'_>, host: &str) -> String {
    let mut text = format!("This is the mail system at {host}.\r\n\r\n{}:\r\n\r\n", subject(report));
    for reported in report.recipients {
        let said =
            reported.diagnostic.as_deref().map(|said| format!(": {}", printable(said))).unwrap_or_default();
        text.push_str(&format!(
            "  {} ({}, {}){said}\r\n",
            reported.recipient.address,
            reported.action.as_str(),
            reported.status
        ));
    }
    text
}

fn status_fields(report: &NewReport<'_>, host: &str) -> String {
    let mut fields = format!("Reporting-MTA: dns; {host}\r\n");
    if let Some(id) = &report.envelope.envelope_id {
        fields.push_str(&format!("Original-Envelope-Id: {}\r\n", printable(&decode_xtext(id))));
    }
    for reported in report.recipients {
        fields.push_str("\r\n");
        fields.push_str(&recipient_fields(reported));
    }
    fields
}

fn recipient_fields(reported: &ReportedRecipient) -> String {
    let mut fields = String::new();
    if let Some(original) = &reported.recipient.original {
        let (kind, address) = original.split_once(';').unwrap_or(("rfc822", original));
        fields.push_str(&format!(
            "Original-Recipient: {};{}\r\n",
            printable(kind),
            printable(&decode_xtext(address))
        ));
    }
    fields.push_str(&format!(
        "Final-Recipient: rfc822;{}\r\n",
        printable(&reported.recipient.address.to_string())
    ));
    fields.push_str(&format!("Action: {}\r\nStatus: {}\r\n", reported.action.as_str(), reported.status));
    if let Some(host) = reported.remote_mta.as_deref().and_then(canonical_domain) {
        fields.push_str(&format!("Remote-MTA: dns; {host}\r\n"));
    }
    if let Some(said) = &reported.diagnostic {
        fields.push_str(&format!("Diagnostic-Code: smtp; {}\r\n", printable(said)));
    }
    fields
}

/// RFC 3461 section 5.2: ORCPT and ENVID are given back decoded.
fn decode_xtext(text: &str) -> String {
    let percent: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b'%' } else { byte }).collect();
    String::from_utf8_lossy(&super::encoded_word::decode_percent(&percent)).into_owned()
}

/// One line of ASCII: what others said must not add fields to our report.
fn printable(text: &str) -> String {
    let clean = HeaderText::clean(text).to_string();
    clean.chars().map(|c| if c.is_ascii() { c } else { '?' }).take(900).collect()
}

/// The message, or its header, as the last part.
fn returned<'a>(report: &NewReport<'_>) -> MimePart<'a> {
    let original =
        normalise_line_ends(remove_fields(report.original, |name| name.eq_ignore_ascii_case("Bcc")));
    let wants_full = report.envelope.ret == Some(Return::Full) && has_failed(report);
    let (kind, content) = if wants_full && !has_overlong_line(&original) {
        ("message/rfc822", original)
    } else {
        ("text/rfc822-headers", header_of(&original))
    };
    let encoding = if content.is_ascii() { "7bit" } else { "8bit" };
    MimePart::new(kind, BodyPart::Binary(content.to_vec().into())).transfer_encoding(encoding)
}

/// The header, without lines that no server would take.
fn header_of(original: &Bytes) -> Bytes {
    let header = original.slice(..HeaderBlock::scan(original).end_offset());
    if !has_overlong_line(&header) {
        return header;
    }
    let kept: Vec<&[u8]> =
        header.split_inclusive(|byte| *byte == b'\n').filter(|line| !has_overlong_line(line)).collect();
    Bytes::from(kept.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Automatic, DeliveryReport, Kind, Message, ReversePath, surgery::has_lone_line_end};

    fn report(ret: Option<Return>, original: &str) -> RawMessage {
        let address = Address::parse("bob@y.example").unwrap();
        let mut recipient = Recipient::new(address);
        recipient.original = Some("rfc822;bob+2Bx@y.example".to_owned());
        let to = Address::parse("ann@x.example").unwrap();
        let mut envelope = Envelope::new(ReversePath::Address(to.clone()));
        (envelope.ret, envelope.envelope_id) = (ret, Some("env+3D1".to_owned()));
        compose_report(&NewReport {
            reporting_mta: "gw.example",
            to: &to,
            original: &RawMessage::new(original.as_bytes().to_vec()),
            envelope: &envelope,
            recipients: &[ReportedRecipient {
                recipient,
                action: Action::Failed,
                status: "5.1.1".parse().unwrap(),
                diagnostic: Some("550 no\r\nAction: delivered".to_owned()),
                remote_mta: Some("mx.y.example".to_owned()),
            }],
            message_id: &MessageId::parse("r@gw.example").unwrap(),
            date: Timestamp::from_second(1_743_501_600).unwrap(),
        })
    }

    const ORIGINAL: &str = "Message-ID: <1@x>\r\nBcc: secret@z.example\r\nSubject: ü\r\n\r\nthe body\n";

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let raw = report(None, ORIGINAL);
        let read = DeliveryReport::read(&raw).unwrap();
        assert_eq!(
            (read.original_message_id, read.envelope_id.as_deref()),
            (MessageId::parse("1@x"), Some("env=1"))
        );
        let recipient = &read.recipients[0];
        assert_eq!(
            (recipient.address.key(), recipient.original.as_ref().unwrap().key()),
            ("bob@y.example", "bob+x@y.example")
        );
        assert_eq!(
            (recipient.action, recipient.status.unwrap().to_string().as_str()),
            (Action::Failed, "5.1.1")
        );
        assert_eq!(recipient.diagnostic.as_deref(), Some("550 no  Action: delivered"));
        let message = Message::parse(&raw);
        assert_eq!((message.kind, message.defects), (Kind::Bounce, vec![]));
        assert!(message.summary.automatic != Automatic::No && !has_lone_line_end(&raw));
    }

    #[test]
    fn the_message_is_returned_as_ret_asks_and_without_bcc() {
        let whole = String::from_utf8(report(Some(Return::Full), ORIGINAL).to_vec()).unwrap();
        assert!(whole.contains("the body") && whole.contains("message/rfc822") && !whole.contains("secret"));
        for ret in [None, Some(Return::Headers)] {
            let header = String::from_utf8(report(ret, ORIGINAL).to_vec()).unwrap();
            assert!(
                !header.contains("the body")
                    && header.contains("text/rfc822-headers")
                    && !header.contains("secret")
            );
        }
    }
}
