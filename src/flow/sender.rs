//! Finds out who sent a message.

use jiff::Timestamp;

use crate::{core::sender::SenderFacts, mail::ReversePath};

/// The session in which a message came.
#[derive(Debug, Clone)]
pub struct SmtpSession<'a> {
    pub peer: std::net::IpAddr,
    pub hello: &'a str,
    pub reverse_path: &'a ReversePath,
    pub our_hostname: &'a str,
}

#[derive(Debug, Clone, Default)]
pub struct SenderChecker;

impl SenderChecker {
    pub async fn check(&self, raw: &[u8], _session: &SmtpSession<'_>, now: Timestamp) -> SenderFacts {
        use crate::core::sender::*;
        let summary = crate::mail::HeaderSummary::read(raw);
        SenderFacts {
            checked_at: now,
            from: summary.author().map_or(FromField::Missing, |party| FromField::One(party.address.clone())),
            signatures: Vec::new(),
            spf: Spf { domain: String::new(), is_aligned: false, verdict: Check::None },
            dmarc: Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
            arc: ArcChain { verdict: Check::None, sealer: None },
            written_at: summary.date,
        }
    }
}
