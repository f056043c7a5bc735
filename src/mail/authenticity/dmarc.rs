//! Whether what passed speaks for the author's domain, and what that domain asks for: DMARC (RFC 9989).
//!
//! Domains belong together by what they publish (the DNS tree walk of section 4.10), not by a list of suffixes. Where nothing is
//! published only the same domain is the same organisation. Not here: reports.

use super::{
    answers::{Answer, Answers, RecordKind},
    tag_list::TagList,
};

/// Names asked on the way up (section 4.10).
const STEPS_MAX: usize = 8;

/// What a domain asks to be done with mail that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    None,
    Quarantine,
    Reject,
}

/// A record, as far as it counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    at: String,
    policy: Policy,
    below: Option<Policy>,
    /// Of domains below that do not exist.
    missing: Option<Policy>,
    /// `psd=`: y a public suffix, n an organisation.
    suffix: Option<char>,
    strict_dkim: bool,
    strict_spf: bool,
    is_test: bool,
}

/// What the tree walk from one domain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The domain of the organisation.
    organisation: String,
    /// The record that counts for the domain itself.
    record: Option<Published>,
    domain: String,
    /// The domain is below the record's, which tells apart what does not exist, and does not.
    is_missing: bool,
}

/// What is not known of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// DNS has to answer first.
    Waiting,
    /// DNS does not answer.
    Silent,
}

impl Walk {
    /// Walks up from a domain.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn from(domain: &str, answers: &mut Answers) -> Result<Self, Unknown> {
        let mut found = Vec::new();
        for at in steps(domain) {
            let name = format!("_dmarc.{at}");
            match answers.ask(&name, RecordKind::Txt).ok_or(Unknown::Waiting)? {
                // What was not asked may be there.
                Answer::Silent | Answer::Refused => return Err(Unknown::Silent),
                answer => found.extend(Published::read(at, &answer)),
            }
            // Such a record ends the walk: above it nothing is of this organisation.
            if found.last().is_some_and(|last| {
                last.suffix == Some('n') || (last.suffix == Some('y') && last.at != domain)
            }) {
                break;
            }
        }
        let organisation = organisation(domain, &found);
        let own = found.iter().find(|record| record.at == domain);
        let record = own.or_else(|| found.iter().find(|record| record.at == organisation));
        let suffix = || found.iter().find(|record| record.suffix == Some('y'));
        let record = record.or_else(suffix).cloned();
        let is_missing = match &record {
            Some(record) if record.at != domain && record.missing.is_some() => {
                is_missing(domain, answers).ok_or(Unknown::Waiting)?
            }
            _ => false,
        };
        Ok(Self { organisation, record, domain: domain.to_owned(), is_missing })
    }

    /// What is asked for: the domain's own word, or its organisation's about what is below it.
    #[must_use]
    pub fn policy(&self) -> Option<Policy> {
        let record = self.record.as_ref()?;
        let below = || record.below.unwrap_or(record.policy);
        let policy = match record.missing {
            _ if record.at == self.domain => record.policy,
            Some(missing) if self.is_missing => missing,
            _ => below(),
        };
        // While it is tried out, one step less is asked for (section 4.7, `t=`).
        Some(match policy {
            Policy::Reject if record.is_test => Policy::Quarantine,
            Policy::Quarantine if record.is_test => Policy::None,
            policy => policy,
        })
    }

    /// Whether another domain is of the same organisation, by its own walk.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn is_aligned(&self, other: &str, answers: &mut Answers) -> Result<bool, Unknown> {
        let other = other.to_ascii_lowercase();
        if other == self.domain {
            return Ok(true);
        }
        // Of one organisation are only domains that end alike: no need to ask about others.
        let is_near = other == self.organisation
            || other.strip_suffix(&self.organisation).is_some_and(|rest| rest.ends_with('.'));
        Ok(is_near && Self::from(&other, answers)?.organisation == self.organisation)
    }

    /// Whether a domain that is aligned, relaxed, is also in the way that the author's domain wants of signatures.
    #[must_use]
    pub fn takes_signer(&self, signer: &str) -> bool {
        !self.record.as_ref().is_some_and(|record| record.strict_dkim)
            || signer.eq_ignore_ascii_case(&self.domain)
    }

    /// The same for SPF.
    #[must_use]
    pub fn takes_sender(&self, sender: &str) -> bool {
        !self.record.as_ref().is_some_and(|record| record.strict_spf)
            || sender.eq_ignore_ascii_case(&self.domain)
    }
}

/// Whether a domain does not exist: it has neither addresses nor hosts that take its mail (section 3.2.14). One of which DNS does
/// not say so may exist. `None` until DNS has said more.
fn is_missing(domain: &str, answers: &mut Answers) -> Option<bool> {
    let kinds = [RecordKind::A, RecordKind::Aaaa, RecordKind::Mx];
    let found: Vec<_> = kinds.iter().map(|kind| answers.ask(domain, *kind)).collect();
    let found = found.into_iter().collect::<Option<Vec<_>>>()?;
    Some(found.iter().all(|answer| *answer == Answer::Void))
}

/// The names to ask at: the domain, then its parents, of long names the last seven labels and up.
fn steps(domain: &str) -> Vec<&str> {
    let mut parents: Vec<&str> = vec![domain];
    let mut at = domain;
    while let Some((_, parent)) = at.split_once('.') {
        parents.push(parent);
        at = parent;
    }
    let skipped = parents.len().saturating_sub(STEPS_MAX);
    let kept = parents.iter().enumerate().filter(|(at, _)| *at == 0 || *at > skipped);
    kept.map(|(_, name)| *name).collect()
}

/// Section 4.10.2: the highest that published, but none that is a public suffix.
fn organisation(domain: &str, found: &[Published]) -> String {
    if let Some(own) = found.iter().find(|record| record.suffix == Some('n')) {
        return own.at.clone();
    }
    let suffix = found.iter().find(|record| record.suffix == Some('y') && record.at != domain);
    if let Some(suffix) = suffix {
        let labels = suffix.at.split('.').count() + 1;
        let mut at = domain;
        while at.split('.').count() > labels {
            at = at.split_once('.').map_or(at, |(_, parent)| parent);
        }
        return at.to_owned();
    }
    let highest = found.iter().rfind(|record| record.suffix != Some('y'));
    highest.map_or(domain, |record| record.at.as_str()).to_owned()
}

impl Published {
    /// The one record of a name; several are none. What is malformed in it is passed over (section 4.7).
    fn read(at: &str, answer: &Answer) -> Option<Self> {
        let mut records = answer
            .texts()
            .map(TagList::tolerant)
            .filter(|tags| tags.first() == Some("v") && tags.get("v") == Some("DMARC1"));
        let tags = records.next()?;
        if records.next().is_some() {
            return None;
        }
        let policy = |tag: &str| match tags.get(tag).map(str::to_ascii_lowercase).as_deref() {
            Some("reject") => Some(Policy::Reject),
            Some("quarantine") => Some(Policy::Quarantine),
            Some("none") => Some(Policy::None),
            _ => None,
        };
        let is = |tag: &str, value: &str| tags.get(tag).is_some_and(|is| is.eq_ignore_ascii_case(value));
        Some(Self {
            at: at.to_owned(),
            policy: policy("p").unwrap_or(Policy::None),
            below: policy("sp"),
            missing: policy("np"),
            suffix: ['y', 'n'].into_iter().find(|value| is("psd", &value.to_string())),
            strict_dkim: is("adkim", "s"),
            strict_spf: is("aspf", "s"),
            is_test: is("t", "y"),
        })
    }
}
