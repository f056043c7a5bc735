//! What a certificate says of itself: for which names it is, and until when (RFC 5280 section 4.1.2.5).
//!
//! Not here: whether anybody trusts it.

use std::path::Path;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
};

/// The certificates in a PEM file, in its order; none when it cannot be read.
pub(super) fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>).unwrap_or_default()
}

/// Whether the certificate is for this name (RFC 6125).
pub(super) fn bears(certificate: &CertificateDer<'_>, hostname: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(hostname))
    else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

/// When it ends: `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, signature, issuer, validity …`
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// Tag, content and what follows of the first element. Certificates have no tags of several octets here.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if first & 0x80 == 0 {
        (usize::from(*first), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = octets
            .iter()
            .try_fold(0_usize, |length, octet| length.checked_mul(256)?.checked_add(usize::from(*octet)))?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `UTCTime` has years of two digits, of which 50 and more are 19xx; `GeneralizedTime` has four.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    let text = text.strip_suffix('Z')?;
    let whole = match tag {
        UTC_TIME if text.get(..2)?.parse::<u8>().ok()? >= 50 => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        _ => text.to_owned(),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, expect) in [(2031, "2031-02-03T00:00:00Z"), (2077, "2077-02-03T00:00:00Z")] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut parameters = rcgen::CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 2, 3);
            let certificate = parameters.self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()).unwrap().to_string(), expect);
            assert!(bears(certificate.der(), "gw.example") && !bears(certificate.der(), "mx.example"));
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for der in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x03\x30\x01\x02",
            b"\x30\x84\xff\xff\xff\xff",
            &[0x30; 64],
        ] {
            assert_eq!(not_after(der), None);
        }
    }
}
