//! Signatures of DKIM (RFC 6376, 8301, 8463), and whether each covers a message so that nobody could add to it.
//!
//! Not here: whether the signer is the author (`dmarc`), and canonical forms.

use std::sync::OnceLock;

use super::{
    answers::Answers,
    canonical::{Form, body_hash, write_field, write_signature},
    public_key::{Algorithm, NoKey, PublicKey, public_key},
    raw_field::RawField,
    tag_list::TagList,
};

/// Signatures that are looked at, against work made for us.
pub const SIGNATURES_MAX: usize = 5;
/// Names in `h=` that are looked at.
const SIGNED_FIELDS_MAX: usize = 500;

/// Fields of which there is one (RFC 5322 section 3.6, RFC 2045). Signatures take the lowest and programs read the highest: one more
/// than was signed, put on top, would be read in place of what the author wrote.
const SINGLE_FIELDS: [&str; 12] = [
    "subject",
    "date",
    "to",
    "cc",
    "message-id",
    "in-reply-to",
    "references",
    "reply-to",
    "sender",
    "content-type",
    "content-transfer-encoding",
    "mime-version",
];

/// How a check by signature came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail(&'static str),
    /// It counts as if it were not there.
    Void(&'static str),
    /// DNS does not answer.
    Silent,
}

/// Which of the fields it covers that say something to us: one that it leaves out says whatever somebody wrote into it on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signed {
    pub date: bool,
    pub to: bool,
    pub cc: bool,
}

/// A signature and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// `d=` in lower case, empty where it cannot be read.
    pub domain: String,
    pub selector: String,
    /// `t=`, in seconds since 1970.
    pub signed_at: Option<u64>,
    pub signs: Signed,
    pub verdict: Verdict,
}

/// A signature, read, with all that needs no key.
#[derive(Debug, Clone)]
pub struct Signature {
    domain: String,
    selector: String,
    signed_at: Option<u64>,
    /// What is signed and by what, or why that can be no good signature.
    claim: Result<Claim, &'static str>,
    /// What the check by key has come to: it is made once, however often DNS is asked about other things.
    verdict: OnceLock<Verdict>,
}

#[derive(Debug, Clone)]
struct Claim {
    algorithm: Algorithm,
    signs: Signed,
    /// `i=` names a domain below `d=`.
    is_below: bool,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// The tags of a DKIM-Signature that say what is covered; ARC has the same.
pub(super) struct Coverage {
    pub algorithm: Algorithm,
    pub forms: (Form, Form),
    pub fields: Vec<String>,
    pub body_hash: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Coverage {
    /// `unsaid` are the forms where `c=` does not say which.
    pub fn read(tags: &TagList, unsaid: Form) -> Result<Self, &'static str> {
        let algorithm =
            tags.get("a").and_then(Algorithm::of).ok_or("its algorithm is unknown or too weak")?;
        let forms = Form::pair(tags.get("c"), unsaid).ok_or("its canonicalization is unknown")?;
        let fields = tags.list("h").ok_or("it does not say what it signs")?;
        if fields.len() > SIGNED_FIELDS_MAX {
            return Err("it signs too many fields");
        }
        let body_hash = tags.bytes("bh").ok_or("it has no hash of the body")?;
        let signature = tags.bytes("b").ok_or("it has no signature in it")?;
        Ok(Self { algorithm, forms, fields, body_hash, signature })
    }

    /// What was signed: the named fields, each name from the bottom up, then the signature's own.
    pub fn signed_text(&self, fields: &[RawField<'_>], own: &RawField<'_>) -> Vec<u8> {
        let mut taken = vec![false; fields.len()];
        let mut text = Vec::new();
        for name in &self.fields {
            let unused =
                fields.iter().zip(&mut taken).rev().find(|(field, taken)| {
                    !**taken && field.is(name) && !std::ptr::eq(field.whole, own.whole)
                });
            if let Some((field, taken)) = unused {
                *taken = true;
                write_field(field, self.forms.0, &mut text);
            }
        }
        write_signature(own, self.forms.0, &mut text);
        text
    }
}

/// The signatures of a message, as far as no key is needed. Costs a pass over the body for each way of hashing it.
#[must_use]
pub fn signatures(fields: &[RawField<'_>], body: &[u8], now: i64) -> Vec<Signature> {
    let own = fields.iter().filter(|field| field.is("dkim-signature")).take(SIGNATURES_MAX);
    own.map(|field| Signature::read(field, fields, (body, now))).collect()
}

impl Signature {
    fn read(own: &RawField<'_>, fields: &[RawField<'_>], (body, now): (&[u8], i64)) -> Self {
        let text = String::from_utf8_lossy(own.value.unwrap_or_default());
        let Some(tags) = TagList::parse(&text) else {
            return Self::of((String::new(), String::new()), None, Err("it is malformed"));
        };
        let lower = |tag: &str| tags.get(tag).unwrap_or_default().to_ascii_lowercase();
        let claim = check_tags(&tags, now).and_then(|is_below| {
            let coverage = Coverage::read(&tags, Form::Simple)?;
            cover(&coverage, &tags, (fields, body))?;
            let signed = coverage.signed_text(fields, own);
            let covers = |field: &str| coverage.fields.iter().any(|name| name == field);
            let signs = Signed { date: covers("date"), to: covers("to"), cc: covers("cc") };
            let Coverage { algorithm, signature, .. } = coverage;
            Ok(Claim { algorithm, signs, is_below, signed, signature })
        });
        let signed_at = tags.number("t").ok().flatten();
        Self::of((lower("d"), lower("s")), signed_at, claim)
    }

    fn of(
        (domain, selector): (String, String),
        signed_at: Option<u64>,
        claim: Result<Claim, &'static str>,
    ) -> Self {
        Self { domain, selector, signed_at, claim, verdict: OnceLock::new() }
    }

    /// What it is worth; `None` until DNS has said what its key is.
    pub fn check(&self, answers: &mut Answers) -> Option<Checked> {
        let verdict = match self.verdict.get() {
            Some(verdict) => *verdict,
            None => self.ask(answers).map(|verdict| *self.verdict.get_or_init(|| verdict))?,
        };
        Some(Checked {
            domain: self.domain.clone(),
            selector: self.selector.clone(),
            signed_at: self.signed_at,
            signs: self.claim.as_ref().map_or(Signed::default(), |claim| claim.signs),
            verdict,
        })
    }

    fn ask(&self, answers: &mut Answers) -> Option<Verdict> {
        let claim = match &self.claim {
            Err(reason) => return Some(Verdict::Fail(reason)),
            Ok(claim) => claim,
        };
        match public_key(answers, (&self.selector, &self.domain), claim.algorithm) {
            Err(NoKey::Waiting) => None,
            Err(NoKey::Silent) => Some(Verdict::Silent),
            Err(NoKey::Because(reason)) => Some(Verdict::Fail(reason)),
            Ok(key) => Some(claim.check(&key)),
        }
    }
}

impl Claim {
    fn check(&self, key: &PublicKey) -> Verdict {
        if key.is_strict && self.is_below {
            return Verdict::Fail("its key is for the domain itself alone");
        }
        if !key.has_signed(&self.signed, &self.signature) {
            return Verdict::Fail("the header was changed, or its key is another");
        }
        if key.is_test { Verdict::Void("its key is for testing") } else { Verdict::Pass }
    }
}

/// What must hold of the tags whatever the message; whether `i=` names a domain below `d=`.
fn check_tags(tags: &TagList, now: i64) -> Result<bool, &'static str> {
    if tags.get("v") != Some("1") {
        return Err("it is of another version");
    }
    let domain = tags.get("d").unwrap_or_default().to_ascii_lowercase();
    if !is_host(&domain) || !tags.get("s").is_some_and(is_host) {
        return Err("it does not name its signer");
    }
    if !domain.contains('.') {
        return Err("its signer is no domain of an organisation");
    }
    if tags.get("q").is_some() && !tags.list("q").is_some_and(|ways| ways.iter().any(|way| way == "dns/txt"))
    {
        return Err("its key is not in DNS");
    }
    let times = (tags.number("t"), tags.number("x"));
    let (Ok(signed), Ok(expires)) = times else { return Err("it is malformed") };
    if let Some(expires) = expires
        && (signed.is_some_and(|signed| expires <= signed)
            || i64::try_from(expires).is_ok_and(|at| at <= now))
    {
        return Err("it has expired");
    }
    let Some(identity) = tags.get("i") else { return Ok(false) };
    let identity = identity.rsplit_once('@').ok_or("it is malformed")?.1.to_ascii_lowercase();
    if identity == domain {
        return Ok(false);
    }
    let is_below = identity.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'));
    if is_below { Ok(true) } else { Err("its agent is not of its domain") }
}

/// Whether it covers the author and the whole body, and leaves nobody room to say something else on top of it.
fn cover(
    coverage: &Coverage,
    tags: &TagList,
    (fields, body): (&[RawField<'_>], &[u8]),
) -> Result<(), &'static str> {
    let signed = |name: &str| coverage.fields.iter().filter(|signed| *signed == name).count();
    let present = |name: &str| fields.iter().filter(|field| field.is(name)).count();
    if signed("from") == 0 || signed("from") < present("from") {
        return Err("it does not sign who wrote the message");
    }
    if SINGLE_FIELDS.iter().any(|name| present(name) > 1 && present(name) > signed(name)) {
        return Err("a field stands there more often than it was signed");
    }
    let (hash, length) = body_hash(body, coverage.forms.1);
    if tags.number("l").map_err(|()| "it is malformed")?.is_some_and(|signed| signed != length) {
        return Err("it signs only a part of the body");
    }
    if coverage.body_hash == hash { Ok(()) } else { Err("the body was changed") }
}

/// Whether it is a name that can be looked up.
pub(super) fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        !label.is_empty() && label.len() <= 63 && plain
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
