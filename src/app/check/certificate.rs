//! Our own certificate: readable, the key's, for our name, and good for a while yet.
//!
//! Not here: whether clients trust it, and reading what it says (`x509`).

use jiff::{SignedDuration, Timestamp};

use super::{Findings, chain};
use crate::{
    app::x509,
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
    let Some(first) = x509::certificates(certificate).into_iter().next() else { return };
    match x509::not_after(&first) {
        None => findings.warning(about, "is read, but not until when it is valid"),
        Some(end) => judge(end, Timestamp::now(), findings),
    }
    if let Some(hostname) = config.smtp.hostname.as_ref().filter(|name| !x509::bears(&first, name.as_str())) {
        let says =
            format!("does not bear {hostname} (smtp.hostname): clients that check names will refuse it");
        findings.warning(about, says);
    }
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

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

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
