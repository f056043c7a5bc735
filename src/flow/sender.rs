//! Who sent a message, as far as its header tells: who says that he wrote it, and when. Nothing proves that, so that a copy is
//! believed by the user's own Sent mailbox, by the operator's own servers, or by hand.
//!
//! Not here: how far he is believed (`core::evidence`).

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{
    core::sender::{ArcChain, Check, Dmarc, DmarcPolicy, FromField, SenderFacts, Spf},
    mail::{HeaderSummary, ReversePath},
};

/// The session in which a message came.
#[derive(Debug, Clone, Copy)]
pub struct SmtpSession<'a> {
    pub peer: IpAddr,
    /// The name given in EHLO or HELO; empty where none was.
    pub hello: &'a str,
    pub reverse_path: &'a ReversePath,
    pub our_hostname: &'a str,
}

/// Finds out who sent messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct SenderChecker;

impl SenderChecker {
    /// What is known of who sent a message. It never fails: what cannot be known is no proof.
    #[allow(clippy::unused_async, reason = "whoever asks name servers waits for them")]
    pub async fn check(&self, raw: &[u8], _session: &SmtpSession<'_>, now: Timestamp) -> SenderFacts {
        let summary = HeaderSummary::read(raw);
        let from = match summary.from.as_slice() {
            [] => FromField::Missing,
            [author] => FromField::One(author.address.clone()),
            _ => FromField::Ambiguous("mailboxes".to_owned()),
        };
        SenderFacts {
            checked_at: now,
            from,
            signatures: Vec::new(),
            spf: Spf { domain: String::new(), is_aligned: false, verdict: Check::None },
            dmarc: Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
            arc: ArcChain { verdict: Check::None, sealer: None },
            written_at: summary.date,
        }
    }
}
