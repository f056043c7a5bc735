//! What can be known of who sent a message that came to the MX listener: the facts that checking it gave, kept as they were
//! found so that whatever is concluded from them can be concluded again.
//!
//! Not here: finding the facts (`flow::sender`), and how far they are believed (`core::evidence`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mail::Address;

/// What checking one message gave. Nothing in it depends on who our users are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderFacts {
    /// When it came: signatures that end are judged by that, however late DNS answered.
    pub as_of: Timestamp,
    pub from: FromField,
    /// Of the signatures looked at, in the order they stand; at most five are, against work made for us.
    pub signatures: Vec<Signature>,
    pub spf: Spf,
    pub dmarc: Dmarc,
    /// Whether the author's domain publishes SPF, so that its mail could be proven by that; `None` while DNS keeps it back. Asked
    /// where nothing proves the author and the domain publishes no DMARC.
    pub publishes_spf: Option<bool>,
    pub arc: ArcChain,
    /// When the author's signature says that it was made (`t=`), else the Date field: what is much older is old or replayed.
    pub written_at: Option<Timestamp>,
}

impl SenderFacts {
    /// Whether DNS kept an answer back that could still prove the author: neither pass nor fail, to be asked again.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let signature = self.signatures.iter().any(|one| one.is_aligned && one.verdict == Check::Pending);
        let spf = self.spf.is_aligned && self.spf.verdict == Check::Pending;
        let dmarc = self.dmarc.verdict == Check::Pending;
        !self.proves() && (signature || spf || dmarc || self.publishes_spf.is_none())
    }

    /// Whether a signature or SPF of the author's own domain passed.
    #[must_use]
    pub fn proves(&self) -> bool {
        let signed = self.signatures.iter().any(|one| one.is_aligned && one.verdict == Check::Pass);
        signed || (self.spf.is_aligned && self.spf.verdict == Check::Pass)
    }
}

/// Who the message says wrote it (RFC 5322 section 3.6.2): only one From field with one mailbox says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "of")]
pub enum FromField {
    One(Address),
    Missing,
    /// Several fields, several mailboxes, a group, or a field that programs read differently; what, in one word for a rule.
    Ambiguous(String),
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Pass,
    Fail,
    /// There was nothing to check: no signature, no record.
    None,
    /// DNS did not answer; it is asked again.
    Pending,
}

/// A DKIM signature (RFC 6376). It passes only if nobody could have added to what it covers: From signed, the whole body,
/// a key of 1,024 bits and more, not expired, not in testing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// `d=`, in lower case.
    pub domain: String,
    pub selector: String,
    /// Whether `d=` and the author's domain belong to one organisation (RFC 9989, relaxed).
    pub is_aligned: bool,
    /// Whether it covers To, and Cc: one that it leaves out names whomever somebody wrote into it on the way.
    pub signs_to: bool,
    pub signs_cc: bool,
    pub verdict: Check,
    /// Why it did not pass, for people.
    pub reason: Option<String>,
}

/// SPF (RFC 7208) of MAIL FROM, of the HELO name where that is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spf {
    /// The domain that was asked; empty where there was none.
    pub domain: String,
    /// Whether MAIL FROM's domain and the author's belong to one organisation. A HELO name never does.
    pub is_aligned: bool,
    pub verdict: Check,
}

/// What the author's domain asks to be done with mail that proves nothing (RFC 9989).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dmarc {
    pub verdict: Check,
    pub policy: DmarcPolicy,
}

/// `p=`, or what it says for a subdomain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DmarcPolicy {
    /// The domain publishes no record.
    Absent,
    None,
    Quarantine,
    Reject,
}

/// The chain of those who passed the message on (RFC 8617). It proves nothing by itself: whoever seals is not the author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcChain {
    pub verdict: Check,
    /// Who sealed, in order.
    pub sealers: Vec<String>,
    /// The first of them says that the author's domain was proven to him, and From is as it was then.
    pub vouches: bool,
}

impl ArcChain {
    /// No chain.
    pub const NONE: Self = Self { verdict: Check::None, sealers: Vec::new(), vouches: false };

    /// Whether it is whole, vouches for the author, and each who sealed is among these: of others anybody may be one.
    #[must_use]
    pub fn is_believed(&self, trusted: &[String]) -> bool {
        let is_trusted = |sealer: &String| trusted.iter().any(|one| one.eq_ignore_ascii_case(sealer));
        self.verdict == Check::Pass && self.vouches && self.sealers.iter().all(is_trusted)
    }
}
