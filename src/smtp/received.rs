//! The Received field of RFC 5321 section 4.4 that marks our hop.
//!
//! Not here: putting it in front of a message, which is the handler's.

use std::net::IpAddr;

use jiff::{Timestamp, tz::TimeZone};

use super::SessionInfo;
use crate::mail::Envelope;

/// One Received field with its CRLF. The recipient is named only when there is one: with more, `for` would show a Bcc.
#[must_use]
pub fn received_field(
    info: &SessionInfo,
    envelope: &Envelope,
    hostname: &str,
    id: &str,
    now: Timestamp,
) -> String {
    let hello: String = info
        .hello
        .as_deref()
        .unwrap_or("unknown")
        .chars()
        .map(|c| if is_plain(c) { c } else { '?' })
        .collect();
    let address = match info.peer.ip().to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let recipient = match envelope.recipients.as_slice() {
        [only] => format!("\r\n\tfor <{}>", only.address),
        _ => String::new(),
    };
    let protocol = protocol(info, envelope);
    let date = jiff::fmt::rfc2822::to_string(&now.to_zoned(TimeZone::UTC)).unwrap_or_default();
    format!(
        "Received: from {hello} ({address})\r\n\tby {hostname} with {protocol} id {id}{recipient};\r\n\t{date}\r\n"
    )
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_:[]".contains(c)
}

/// The transmission type of RFC 3848, or of RFC 6531 section 4.3 for internationalised mail.
fn protocol(info: &SessionInfo, envelope: &Envelope) -> String {
    if !info.extended {
        return "SMTP".into();
    }
    let base = if envelope.smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let secure = if info.tls { "S" } else { "" };
    let authenticated = if info.authenticated.is_some() { "A" } else { "" };
    format!("{base}{secure}{authenticated}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mail::{Address, Recipient, ReversePath},
        smtp::ListenerKind,
    };

    fn info(hello: &str) -> SessionInfo {
        let peer = "192.0.2.7:4000".parse().unwrap();
        SessionInfo {
            peer,
            listener: ListenerKind::Submission,
            hello: Some(hello.into()),
            extended: true,
            tls: true,
            authenticated: Some("ann".into()),
        }
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let recipients = recipients.iter().map(|r| Recipient::new(Address::parse(r).unwrap())).collect();
        Envelope { recipients, ..Envelope::new(ReversePath::Null) }
    }

    #[test]
    fn a_hop_says_who_how_and_when() {
        let field = received_field(
            &info("mx.example"),
            &envelope(&["a@b.example"]),
            "gw.example",
            "msg_1",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            field,
            "Received: from mx.example ([192.0.2.7])\r\n\tby gw.example with ESMTPSA id msg_1\r\n\tfor <a@b.example>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn many_recipients_are_not_named_and_a_strange_greeting_is_tamed() {
        let field = received_field(
            &info("x)(;<y>"),
            &envelope(&["a@b.example", "bcc@b.example"]),
            "gw.example",
            "1",
            Timestamp::UNIX_EPOCH,
        );
        assert!(!field.contains("b.example") && field.contains("from x????y? (["), "{field}");
    }
}
