//! Changes a provider makes to the header of a message it takes in.
//!
//! Not here: anything else of the message; it stays octet for octet.

use crate::mail::Address;

/// The message without the fields of that name, folds and all.
pub(super) fn without(raw: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(raw.len());
    let mut rest = raw;
    let mut drops = false;
    while let Some((line, after)) = next_line(rest) {
        if line.trim_ascii().is_empty() {
            break;
        }
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let own = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
            drops = own.eq_ignore_ascii_case(name.as_bytes());
        }
        if !drops {
            kept.extend_from_slice(line);
        }
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept
}

fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    bytes.split_at_checked(end).filter(|(line, _)| !line.is_empty())
}

/// The message with fields before all others.
pub(super) fn with(fields: &str, raw: &[u8]) -> Vec<u8> {
    [fields.as_bytes(), raw].concat()
}

/// The message under another Message-ID, with the old one where Exchange Online keeps it.
pub(super) fn renamed(raw: &[u8], old: &str, new: &str) -> Vec<u8> {
    let fields = format!("Message-ID: <{new}>\r\nX-Microsoft-Original-Message-ID: {old}\r\n");
    with(&fields, &without(raw, "Message-ID"))
}

/// A report that a message could not be delivered (RFC 3464), to its sender.
pub(super) fn bounce(sender: &Address, failed: &[(Address, String)], raw: &[u8], serial: u64) -> Vec<u8> {
    let boundary = format!("sandbox-bounce-{serial}");
    let host = sender.domain();
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S +0000");
    let mut report = format!(
        "From: Mail Delivery System <mailer-daemon@{host}>\r\nTo: {sender}\r\nSubject: Undelivered Mail Returned to Sender\r\n\
         Date: {date}\r\nMessage-ID: <bounce.{serial}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nYour message could not be delivered:\r\n"
    );
    for (address, reason) in failed {
        report.push_str(&format!("\r\n<{address}>: {reason}\r\n"));
    }
    report.push_str(&format!(
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mail.{host}\r\n"
    ));
    for (address, reason) in failed {
        let status = reason.split(' ').nth(1).filter(|word| word.starts_with("5.")).unwrap_or("5.0.0");
        report.push_str(&format!(
            "\r\nFinal-Recipient: rfc822; {address}\r\nAction: failed\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {reason}\r\n"
        ));
    }
    let header_end = memchr::memmem::find(raw, b"\r\n\r\n").map_or(raw.len(), |at| at + 2);
    report.push_str(&format!("\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n\r\n"));
    let mut report = report.into_bytes();
    report.extend_from_slice(raw.get(..header_end).unwrap_or(raw));
    report.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_goes_with_its_folds_and_only_from_the_header() {
        let raw = b"To: a\r\nBcc: b,\r\n c\r\nbcc : d\r\nSubject: e\r\n\r\nBcc: stays\r\n";
        assert_eq!(without(raw, "Bcc"), b"To: a\r\nSubject: e\r\n\r\nBcc: stays\r\n");
        assert_eq!(without(b"Bcc: only", "bcc"), b"");
    }

    #[test]
    fn a_renamed_message_remembers_its_old_name() {
        let raw = renamed(b"Subject: a\r\nMessage-ID:\r\n <old@x>\r\n\r\nb\r\n", "<old@x>", "new@y");
        let expect =
            b"Message-ID: <new@y>\r\nX-Microsoft-Original-Message-ID: <old@x>\r\nSubject: a\r\n\r\nb\r\n";
        assert_eq!(raw, expect);
    }

    #[test]
    fn a_bounce_reads_as_a_delivery_report() {
        let sender = Address::parse("ann@example.test").unwrap();
        let failed = [(Address::parse("bob@y.example").unwrap(), "550 5.1.1 no such user".to_owned())];
        let report = bounce(&sender, &failed, b"Subject: a\r\nMessage-ID: <1@x>\r\n\r\nb\r\n", 7);
        let message = mail_parser::MessageParser::default().parse(&report).unwrap();
        let text = String::from_utf8(report.clone()).unwrap();
        assert_eq!(message.parts.len(), 4);
        assert!(
            text.contains("Final-Recipient: rfc822; bob@y.example\r\nAction: failed\r\nStatus: 5.1.1\r\n")
        );
        assert!(text.contains("Message-ID: <1@x>"));
    }
}
