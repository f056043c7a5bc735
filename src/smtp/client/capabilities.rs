//! What a server offers in its reply to EHLO.
//!
//! Not here: what is done with it (`super`).

use smtp_proto::{
    AUTH_LOGIN, AUTH_OAUTHBEARER, AUTH_PLAIN, AUTH_XOAUTH2, EXT_8BIT_MIME, EXT_DSN, EXT_PIPELINING, EXT_SIZE,
    EXT_SMTP_UTF8, EXT_START_TLS, EhloResponse,
};

use crate::smtp::{Mechanism, Reply};

/// The extensions we make use of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub starttls: bool,
    pub pipelining: bool,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
    /// SIZE is understood.
    pub size: bool,
    /// The largest message taken, in octets, when the server says so.
    pub message_bytes_max: Option<u64>,
    /// In the order of our preference.
    pub mechanisms: Vec<Mechanism>,
}

impl Capabilities {
    /// Reads a positive reply to EHLO. Nonsense offers nothing.
    pub(super) fn read(reply: &Reply) -> Self {
        let wire: String = {
            let mut lines: Vec<_> = reply.lines().map(|line| format!("250-{line}\r\n")).collect();
            lines.push("250 HELP\r\n".into());
            lines.concat()
        };
        let Ok(offer) = EhloResponse::parse(&mut wire.as_bytes().iter()) else { return Self::default() };
        let has = |extension| offer.has_capability(extension);
        let bits = [
            (AUTH_PLAIN, Mechanism::Plain),
            (AUTH_LOGIN, Mechanism::Login),
            (AUTH_XOAUTH2, Mechanism::XOAuth2),
            (AUTH_OAUTHBEARER, Mechanism::OAuthBearer),
        ];
        let mechanisms = bits
            .into_iter()
            .filter(|(bit, _)| offer.auth_mechanisms & bit != 0)
            .map(|(_, mechanism)| mechanism)
            .collect();
        Self {
            starttls: has(EXT_START_TLS),
            pipelining: has(EXT_PIPELINING),
            eight_bit_mime: has(EXT_8BIT_MIME),
            smtputf8: has(EXT_SMTP_UTF8),
            dsn: has(EXT_DSN),
            size: has(EXT_SIZE),
            message_bytes_max: u64::try_from(offer.size).ok().filter(|size| has(EXT_SIZE) && *size > 0),
            mechanisms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Capabilities {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        Capabilities::read(&Reply::read(250, None, &lines))
    }

    #[test]
    fn an_offer_is_read_in_any_order_and_case() {
        let offer = read(&[
            "mx.example at your service",
            "size 1000",
            "PIPELINING",
            "AUTH LOGIN PLAIN XOAUTH2 GSSAPI",
            "STARTTLS",
            "X-ODD 1",
            "8BITMIME",
        ]);
        assert_eq!(offer.mechanisms, [Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2]);
        assert!(offer.starttls && offer.pipelining && offer.eight_bit_mime && !offer.dsn);
        assert_eq!(offer.message_bytes_max, Some(1000));
    }

    #[test]
    fn old_and_empty_offers_are_read_too() {
        assert_eq!(read(&["mx.example", "AUTH=LOGIN"]).mechanisms, [Mechanism::Login]);
        assert_eq!(read(&["mx.example"]), Capabilities::default());
        assert_eq!(read(&["mx.example", "SIZE"]).message_bytes_max, None);
    }
}
