//! The Received field of RFC 5321 section 4.4 that marks our hop.
//!
//! Not here: putting it in front of a message, which is the handler's.

use std::net::IpAddr;

use jiff::{Timestamp, tz::TimeZone};

use super::SessionInfo;

/// One Received field with its CRLF. It never names a recipient: the only one of this transaction may be a Bcc of the
/// message, or an address that its owner alone may know. `smtputf8` says that the client asked for RFC 6531.
#[must_use]
pub fn received_field(
    info: &SessionInfo,
    smtputf8: bool,
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
    let protocol = protocol(info, smtputf8);
    let date = written(now);
    format!("Received: from {hello} ({address})\r\n\tby {hostname} with {protocol} id {id};\r\n\t{date}\r\n")
}

/// The same of mail that came over HTTP, from whom is no mail server's business.
#[must_use]
pub fn received_over_http(hostname: &str, id: &str, now: Timestamp) -> String {
    format!("Received: by {hostname} with HTTP id {id};\r\n\t{}\r\n", written(now))
}

fn written(now: Timestamp) -> String {
    jiff::fmt::rfc2822::to_string(&now.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_:[]".contains(c)
}

/// The transmission type of RFC 3848, or of RFC 6531 section 4.3 for internationalised mail.
fn protocol(info: &SessionInfo, smtputf8: bool) -> String {
    if !info.extended {
        return "SMTP".into();
    }
    let base = if smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let secure = if info.tls { "S" } else { "" };
    let authenticated = if info.authenticated.is_some() { "A" } else { "" };
    format!("{base}{secure}{authenticated}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::ListenerKind;

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

    #[test]
    fn a_hop_says_who_how_and_when() {
        let field = received_field(&info("mx.example"), false, "gw.example", "msg_1", Timestamp::UNIX_EPOCH);
        assert_eq!(
            field,
            "Received: from mx.example ([192.0.2.7])\r\n\tby gw.example with ESMTPSA id msg_1;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn a_strange_greeting_is_tamed_and_internationalised_mail_named() {
        let field = received_field(&info("x)(;<y>"), true, "gw.example", "1", Timestamp::UNIX_EPOCH);
        assert!(field.contains("from x????y? ([") && field.contains("with UTF8SMTPSA id 1;"), "{field}");
    }
}
