//! The chain of those who passed a message on (RFC 8617), checked for what it is: complete, unbroken, signed.
//!
//! Not here: any trust in it. Whoever seals may be anybody (`core::evidence` says whose seals count).

use std::sync::OnceLock;

use super::{
    answers::Answers,
    canonical::{Form, body_hash, write_field, write_signature},
    dkim::{Coverage, Verdict, is_host},
    public_key::{Algorithm, NoKey, public_key},
    raw_field::RawField,
    results::Results,
    tag_list::TagList,
};

/// The longest chain there may be (RFC 8617 section 4.2.1).
const SETS_MAX: usize = 50;

/// A chain, read, with all that needs no key.
#[derive(Debug, Clone)]
pub enum Chain {
    None,
    Broken(&'static str),
    Whole {
        /// Who sealed, in order.
        sealers: Vec<String>,
        /// What the first of them found, if the last seal says that From is still as it was.
        first: Option<Results>,
        signed: Vec<Signed>,
    },
}

/// One signature of the chain: who made it, over what.
#[derive(Debug, Clone)]
pub struct Signed {
    selector: String,
    domain: String,
    algorithm: Algorithm,
    text: Vec<u8>,
    signature: Vec<u8>,
    /// What the check by key has come to, which is made once.
    verdict: OnceLock<Verdict>,
}

/// The three fields of one who passed the message on.
#[derive(Default, Clone)]
struct Set<'a> {
    results: Option<RawField<'a>>,
    message: Option<(RawField<'a>, TagList)>,
    seal: Option<(RawField<'a>, TagList)>,
}

impl Chain {
    #[must_use]
    pub fn read(fields: &[RawField<'_>], body: &[u8]) -> Self {
        match sets(fields) {
            Ok(sets) if sets.is_empty() => Self::None,
            Ok(sets) => read_sets(&sets, fields, body).unwrap_or_else(Self::Broken),
            Err(reason) => Self::Broken(reason),
        }
    }

    /// How it came out, `None` until DNS has said what the keys are.
    pub fn check(&self, answers: &mut Answers) -> Option<Verdict> {
        let signed = match self {
            Self::None => return Some(Verdict::Void("there is no chain")),
            Self::Broken(reason) => return Some(Verdict::Fail(reason)),
            Self::Whole { signed, .. } => signed,
        };
        let verdicts: Vec<_> = signed.iter().map(|one| one.check(answers)).collect();
        let fails = |verdict: &&Verdict| matches!(verdict, Verdict::Fail(_));
        if let Some(fail) = verdicts.iter().flatten().find(fails) {
            return Some(*fail);
        }
        let verdicts = verdicts.into_iter().collect::<Option<Vec<_>>>()?;
        Some(verdicts.into_iter().find(|verdict| *verdict == Verdict::Silent).unwrap_or(Verdict::Pass))
    }

    /// Who sealed, in order.
    #[must_use]
    pub fn sealers(&self) -> &[String] {
        match self {
            Self::Whole { sealers, .. } => sealers,
            _ => &[],
        }
    }

    /// Whether the first who sealed says that the author's domain was proven to him, and nobody changed From since.
    #[must_use]
    pub fn vouches_for(&self, domain: &str) -> bool {
        matches!(self, Self::Whole { first: Some(first), .. } if first.prove(domain))
    }
}

impl Signed {
    fn check(&self, answers: &mut Answers) -> Option<Verdict> {
        match self.verdict.get() {
            Some(verdict) => Some(*verdict),
            None => self.ask(answers).map(|verdict| *self.verdict.get_or_init(|| verdict)),
        }
    }

    fn ask(&self, answers: &mut Answers) -> Option<Verdict> {
        match public_key(answers, (&self.selector, &self.domain), self.algorithm) {
            Err(NoKey::Waiting) => None,
            Err(NoKey::Silent) => Some(Verdict::Silent),
            Err(NoKey::Because(reason)) => Some(Verdict::Fail(reason)),
            Ok(key) if key.has_signed(&self.text, &self.signature) => Some(Verdict::Pass),
            Ok(_) => Some(Verdict::Fail("a link was changed")),
        }
    }

    fn new(
        tags: &TagList,
        algorithm: Algorithm,
        text: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<Self, &'static str> {
        let name = |tag: &str| tags.get(tag).filter(|name| is_host(name)).map(str::to_ascii_lowercase);
        let (selector, domain) = name("s").zip(name("d")).ok_or("a link does not name its signer")?;
        Ok(Self { selector, domain, algorithm, text, signature, verdict: OnceLock::new() })
    }
}

/// The sets in the order of their numbers; each must be there once, with all it consists of.
fn sets<'a>(fields: &[RawField<'a>]) -> Result<Vec<Set<'a>>, &'static str> {
    let mut sets: Vec<Set<'a>> = Vec::new();
    for field in fields {
        let text = String::from_utf8_lossy(field.value.unwrap_or_default());
        let is_results = field.is("arc-authentication-results");
        let is_message = field.is("arc-message-signature");
        if !is_results && !is_message && !field.is("arc-seal") {
            continue;
        }
        // The results of checks are no list of tags; only their number is.
        let (head, tags) = if is_results {
            let (head, _) = text.split_once(';').ok_or("a link is malformed")?;
            (TagList::parse(head).ok_or("a link is malformed")?, None)
        } else {
            let tags = TagList::parse(&text).ok_or("a link is malformed")?;
            (tags.clone(), Some(tags))
        };
        let number = head.number("i").ok().flatten().and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| (1..=SETS_MAX).contains(number)).ok_or("a link has no number")?;
        if sets.len() < number {
            sets.resize_with(number, Set::default);
        }
        let set = sets.get_mut(number - 1).ok_or("a link has no number")?;
        let is_second = match tags {
            None => set.results.replace(*field).is_some(),
            Some(tags) if is_message => set.message.replace((*field, tags)).is_some(),
            Some(tags) => set.seal.replace((*field, tags)).is_some(),
        };
        if is_second {
            return Err("a link is there twice");
        }
    }
    Ok(sets)
}

fn read_sets(sets: &[Set<'_>], fields: &[RawField<'_>], body: &[u8]) -> Result<Chain, &'static str> {
    let mut signed = Vec::new();
    let mut sealed = Vec::new();
    let (mut sealers, mut first) = (Vec::new(), None);
    for (at, set) in sets.iter().enumerate() {
        let (Some(results), Some((message, message_tags)), Some((seal, tags))) =
            (&set.results, &set.message, &set.seal)
        else {
            return Err("a link is missing");
        };
        let cv = tags.get("cv").unwrap_or_default().to_ascii_lowercase();
        if cv != if at == 0 { "none" } else { "pass" } {
            return Err("it was broken before");
        }
        if tags.get("h").is_some() || tags.number("t").is_err() {
            return Err("a seal is malformed");
        }
        let algorithm = tags.get("a").and_then(Algorithm::of).ok_or("a seal's algorithm is unknown")?;
        write_field(results, Form::Relaxed, &mut sealed);
        write_field(message, Form::Relaxed, &mut sealed);
        let mut text = sealed.clone();
        write_signature(seal, Form::Relaxed, &mut text);
        let signature = tags.bytes("b").ok_or("a seal has no signature in it")?;
        signed.push(Signed::new(tags, algorithm, text, signature)?);
        write_field(seal, Form::Relaxed, &mut sealed);
        sealers.push(tags.get("d").unwrap_or_default().to_ascii_lowercase());
        if at == 0 {
            first = read_results(results);
        }
        if at + 1 == sets.len() {
            signed.push(read_message(message, message_tags, (fields, body))?);
            let covers_from =
                message_tags.list("h").is_some_and(|names| names.iter().any(|name| name == "from"));
            first = first.filter(|_| covers_from);
        }
    }
    Ok(Chain::Whole { sealers, first, signed })
}

/// What was found, behind the number of the set.
fn read_results(field: &RawField<'_>) -> Option<Results> {
    let text = String::from_utf8_lossy(field.value.unwrap_or_default());
    Results::parse(text.split_once(';')?.1)
}

/// The signature over the message as the last of them passed it on.
fn read_message(
    own: &RawField<'_>,
    tags: &TagList,
    (fields, body): (&[RawField<'_>], &[u8]),
) -> Result<Signed, &'static str> {
    // RFC 8617 leaves it open; those who seal without saying it mean relaxed.
    let coverage = Coverage::read(tags, Form::Relaxed)?;
    let is_number = tags.number("t").is_ok() && tags.number("x").is_ok();
    if !is_number || coverage.fields.iter().any(|name| name == "arc-seal") {
        return Err("a link is malformed");
    }
    let (hash, length) = body_hash(body, coverage.forms.1);
    let is_whole = tags.number("l").is_ok_and(|signed| signed.is_none_or(|signed| signed == length));
    if !is_whole || coverage.body_hash != hash {
        return Err("the body was changed");
    }
    let text = coverage.signed_text(fields, own);
    Signed::new(tags, coverage.algorithm, text, coverage.signature)
}
