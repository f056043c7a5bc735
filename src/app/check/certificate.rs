//! Our own certificate: readable, the key's, for our name, and good for a while yet.
//!
//! Not here: whether clients trust it. Of its fields only the end of its validity is read here (RFC 5280 section 4.1.2.5).

use std::path::Path;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::{Findings, chain};
use crate::{
    config::{Config, Role},
    net::Certificates,
};

/// Renewed certificates come a month before the old ones end; two weeks before, something is amiss.
const DAYS_LEFT_MIN: i64 = 14;

pub(super) fn look(config: &Config, findings: &mut Findings) {
    let about = "tls.certificate";
    if !config.has_role(Role::Mx) && !config.has_role(Role::Submission) {
        return;
    }
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.private_key) else {
        // That there is none is a note of the configuration.
        return;
    };
    if let Err(error) = Certificates::load(certificate, key) {
        return findings.error(about, format!("{}; certs/README.md tells how to get a pair", chain(&error)));
    }
    let Some(first) = first_of(certificate) else { return };
    match not_after(&first) {
        None => findings.warning(about, "is read, but not until when it is valid"),
        Some(end) => judge(end, Timestamp::now(), findings),
    }
    if let Some(hostname) = config.smtp.hostname.as_ref().filter(|name| !bears(&first, name)) {
        let says =
            format!("does not bear {hostname} (smtp.hostname): clients that check names will refuse it");
        findings.warning(about, says);
    }
}

fn first_of(certificate: &Path) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(certificate).ok()?.next()?.ok()
}

/// Whether the certificate is for this name (RFC 6125).
fn bears(certificate: &CertificateDer<'_>, hostname: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(hostname))
    else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

fn judge(end: Timestamp, now: Timestamp, findings: &mut Findings) {
    let about = "tls.certificate";
    let day = end.strftime("%Y-%m-%d");
    let left = end.duration_since(now);
    if left <= SignedDuration::ZERO {
        findings.error(about, format!("ended on {day}: renew it; it is read anew without a restart"));
    } else if left < SignedDuration::from_hours(24 * DAYS_LEFT_MIN) {
        findings.warning(about, format!("ends on {day}: see why it was not renewed"));
    } else {
        findings.ok(about, format!("fits its key and is valid until {day}"));
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, signature, issuer, validity …`
pub(in crate::app) fn not_after(der: &[u8]) -> Option<Timestamp> {
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
    use super::{super::Level, *};

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

    #[test]
    fn two_weeks_before_its_end_a_certificate_is_a_warning() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (end, expect) in [
            ("2026-03-01T00:00:00Z", Level::Ok),
            ("2026-01-14T00:00:00Z", Level::Warning),
            ("2025-12-31T00:00:00Z", Level::Error),
        ] {
            let mut findings = Findings::default();
            judge(end.parse().unwrap(), now, &mut findings);
            assert_eq!(findings.0[0].level, expect, "{end}");
        }
    }
}
