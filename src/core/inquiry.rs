//! The inquiry into who sent a message: everything the message and its session say, read once, and what follows from it and from
//! what DNS answers.
//!
//! Not here: asking DNS (`flow::sender`), the methods themselves (`mail::authenticity`), and what is made of the facts.

use std::net::IpAddr;

use jiff::Timestamp;

use super::sender::{ArcChain, Check, Dmarc, DmarcPolicy, FromField, SenderFacts, Signature, Spf};
use crate::mail::{
    HeaderBlock, ReversePath,
    authenticity::{
        self, Answers, Author, Chain, Checked, Client, Policy, SpfResult, Unknown, Verdict, Walk, author,
    },
};

/// The session in which a message came.
#[derive(Debug, Clone, Copy)]
pub struct SmtpSession<'a> {
    pub peer: IpAddr,
    /// What the client said in EHLO or HELO; empty when that is not known.
    pub hello: &'a str,
    pub reverse_path: &'a ReversePath,
    /// The name that we gave.
    pub our_hostname: &'a str,
}

/// What can be read without DNS.
#[derive(Debug)]
pub struct Inquiry {
    now: Timestamp,
    from: FromField,
    signatures: Vec<authenticity::Signature>,
    chain: Chain,
    peer: IpAddr,
    hello: String,
    mail_from: String,
    date: Option<Timestamp>,
}

impl Inquiry {
    /// Reads a message. Hashes the body at most once for each signature that is looked at.
    #[must_use]
    pub fn open(raw: &[u8], session: &SmtpSession<'_>, now: Timestamp) -> Self {
        let (fields, body) = authenticity::split(raw);
        let mail_from = session.reverse_path.address().map(|address| address.key().to_owned());
        Self {
            now,
            from: from_field(raw),
            signatures: authenticity::signatures(&fields, body, now.as_second()),
            chain: Chain::read(&fields, body),
            peer: session.peer,
            hello: session.hello.to_owned(),
            mail_from: mail_from.unwrap_or_default(),
            date: HeaderBlock::scan(raw).date(),
        }
    }

    /// The facts, or `None` when DNS has to answer first; what it is to be asked is noted in the answers, the most telling first.
    pub fn conclude(&self, answers: &mut Answers) -> Option<SenderFacts> {
        let domain = match &self.from {
            // An address literal is nobody's domain.
            FromField::One(address) => Some(address.domain()).filter(|domain| !domain.starts_with('[')),
            _ => None,
        };
        let checked: Vec<_> = self.signatures.iter().map(|one| one.check(answers)).collect();
        let walk = domain.map(|domain| Walk::from(domain, answers));
        let client = Client { address: self.peer, hello: &self.hello, mail_from: &self.mail_from };
        let spf = spf(answers, &client);
        let alignment = Alignment { walk: walk.as_ref() };
        let sender = client.identity().1.trim_end_matches('.').to_ascii_lowercase();
        let signers: Vec<_> =
            checked.iter().flatten().map(|one| alignment.of(&one.domain, answers)).collect();
        let aligned_sender = alignment.of(&sender, answers);
        if matches!(walk, Some(Err(Unknown::Waiting)))
            || signers.iter().chain([&aligned_sender]).any(|aligned| *aligned == Err(Unknown::Waiting))
        {
            return None;
        }
        let checked = checked.into_iter().collect::<Option<Vec<_>>>()?;
        let signatures: Vec<Signature> = checked.iter().zip(&signers).map(signature).collect();
        let spf = SpfCheck { verdict: check_of_spf(spf?), domain: sender, aligned: aligned_sender };
        // Last, when all else is known: a long chain must not use up what may be asked.
        let arc = self.chain.check(answers);
        let dmarc = dmarc(walk.as_ref(), &signatures, &spf);
        let facts = SenderFacts {
            as_of: self.now,
            from: self.from.clone(),
            written_at: self.written_at(&checked, &signatures),
            spf: spf.into_fact(self.mail_from.is_empty()),
            signatures,
            dmarc,
            publishes_spf: Some(false),
            arc: ArcChain {
                verdict: check_of(arc?),
                sealers: self.chain.sealers().to_vec(),
                vouches: domain.is_some_and(|domain| self.chain.vouches_for(domain)),
            },
        };
        let publishes_spf = match domain.filter(|_| !facts.proves() && facts.dmarc.verdict == Check::None) {
            Some(domain) => authenticity::publishes_spf(domain, answers)?,
            None => Some(false),
        };
        Some(SenderFacts { publishes_spf, ..facts })
    }

    /// When the author's own signature says that it was made, else the Date field, where nobody could have written another.
    fn written_at(&self, checked: &[Checked], signatures: &[Signature]) -> Option<Timestamp> {
        let pairs = checked.iter().zip(signatures);
        let own: Vec<&Checked> = pairs
            .filter(|(_, fact)| fact.is_aligned && fact.verdict == Check::Pass)
            .map(|(one, _)| one)
            .collect();
        let times = own.iter().filter_map(|one| i64::try_from(one.signed_at?).ok());
        let signed_at = times.min().and_then(|at| Timestamp::from_second(at).ok());
        let is_bound = own.is_empty() || own.iter().any(|one| one.signs.date);
        signed_at.or(self.date.filter(|_| is_bound))
    }
}

fn from_field(raw: &[u8]) -> FromField {
    match author(raw) {
        Author::One(address) => FromField::One(address),
        Author::Missing => FromField::Missing,
        Author::Ambiguous(word) => FromField::Ambiguous(word.to_owned()),
    }
}

/// Whether domains are of the author's organisation.
struct Alignment<'a> {
    walk: Option<&'a Result<Walk, Unknown>>,
}

impl Alignment<'_> {
    fn of(&self, domain: &str, answers: &mut Answers) -> Result<bool, Unknown> {
        match self.walk {
            Some(Ok(walk)) if !domain.is_empty() => walk.is_aligned(domain, answers),
            Some(Err(unknown)) => Err(*unknown),
            _ => Ok(false),
        }
    }
}

fn signature((checked, aligned): (&Checked, &Result<bool, Unknown>)) -> Signature {
    let reason = match checked.verdict {
        Verdict::Fail(reason) | Verdict::Void(reason) => Some(reason.to_owned()),
        Verdict::Silent => Some("DNS does not answer".to_owned()),
        Verdict::Pass => None,
    };
    // One of which it cannot be said whose it is may yet be the author's.
    let is_open = aligned.is_err() && checked.verdict == Verdict::Pass;
    Signature {
        domain: checked.domain.clone(),
        selector: checked.selector.clone(),
        is_aligned: aligned.unwrap_or(true),
        signs_to: checked.signs.to,
        signs_cc: checked.signs.cc,
        verdict: if is_open { Check::Pending } else { check_of(checked.verdict) },
        reason: if is_open { Some("DNS does not answer".to_owned()) } else { reason },
    }
}

fn check_of(verdict: Verdict) -> Check {
    match verdict {
        Verdict::Pass => Check::Pass,
        Verdict::Fail(_) => Check::Fail,
        Verdict::Void(_) => Check::None,
        Verdict::Silent => Check::Pending,
    }
}

/// SPF, where it tells one client from another: a record that lets everybody send says nothing of any of them.
fn spf(answers: &mut Answers, client: &Client<'_>) -> Option<SpfResult> {
    let result = authenticity::spf(answers, client)?;
    let is_open = result == SpfResult::Pass && authenticity::lets_anybody_send(answers, client)?;
    Some(if is_open { SpfResult::Neutral } else { result })
}

/// Neutral is to be treated as no record (RFC 7208 section 8.2). So is a record that cannot be evaluated: it says nothing against
/// anybody, and of a domain that has one all mail would look as if others had passed it on.
fn check_of_spf(result: SpfResult) -> Check {
    match result {
        SpfResult::Pass => Check::Pass,
        SpfResult::Fail | SpfResult::SoftFail => Check::Fail,
        SpfResult::None | SpfResult::Neutral | SpfResult::PermError => Check::None,
        SpfResult::TempError => Check::Pending,
    }
}

struct SpfCheck {
    verdict: Check,
    domain: String,
    aligned: Result<bool, Unknown>,
}

impl SpfCheck {
    fn into_fact(self, is_null: bool) -> Spf {
        let is_open = self.aligned.is_err() && self.verdict == Check::Pass;
        Spf {
            domain: self.domain,
            is_aligned: !is_null && self.aligned.unwrap_or(true),
            verdict: if is_open { Check::Pending } else { self.verdict },
        }
    }
}

/// What DMARC says: of a null sender the HELO name counts, for it is what SPF then speaks of.
fn dmarc(walk: Option<&Result<Walk, Unknown>>, signatures: &[Signature], spf: &SpfCheck) -> Dmarc {
    let walk = match walk {
        Some(Ok(walk)) => walk,
        Some(Err(_)) => return Dmarc { verdict: Check::Pending, policy: DmarcPolicy::Absent },
        None => return Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
    };
    let policy = match walk.policy() {
        None => return Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
        Some(Policy::None) => DmarcPolicy::None,
        Some(Policy::Quarantine) => DmarcPolicy::Quarantine,
        Some(Policy::Reject) => DmarcPolicy::Reject,
    };
    let signed = signatures.iter().filter(|one| one.is_aligned && walk.takes_signer(&one.domain));
    let sent = (spf.aligned != Ok(false) && walk.takes_sender(&spf.domain)).then_some(match spf.aligned {
        Err(_) if spf.verdict == Check::Pass => Check::Pending,
        _ => spf.verdict,
    });
    let checks: Vec<Check> = signed.map(|one| one.verdict).chain(sent).collect();
    let verdict = if checks.contains(&Check::Pass) {
        Check::Pass
    } else if checks.contains(&Check::Pending) {
        Check::Pending
    } else {
        Check::Fail
    };
    Dmarc { verdict, policy }
}
