//! How far the sender of a copy at a capture address is believed, and what becomes of the copy by that: pure, so that what was
//! concluded from stored facts can be concluded again.
//!
//! Answers at reply addresses go by rules of their own (`answer`). Not here: finding the facts (`flow::sender`), what is known around them (`flow::trust`), and keeping a copy aside
//! (`flow::hold`).

mod answer;

pub use answer::UNADDRESSED_RULE;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    policy::{self, settings::Trust},
    sender::{Check, DmarcPolicy, FromField, SenderFacts, Signature},
};
use crate::mail::is_shared_by_many;

/// A signed copy that is older is old or replayed: whoever was sent the original can send it on for ever.
pub const FRESH: SignedDuration = SignedDuration::from_hours(72);
/// How long DNS is asked again before its silence counts as an answer.
pub const DNS_PATIENCE: SignedDuration = SignedDuration::from_hours(24);
/// For how long a sending route stays trusted that somebody has chosen to trust.
pub const PINNED_FOR: SignedDuration = SignedDuration::from_hours(24 * 180);

/// How strong what is known of the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing, or something that speaks against him.
    E0,
    /// He names a user, and proves nothing.
    E1,
    /// His provider vouches for him, with a doubt left.
    E2,
    /// His provider vouches for him as it always has.
    E3,
    /// The same message lies in the user's own Sent mailbox, or left from here.
    E4,
}

impl Level {
    /// What it is worth that a person let mail in, whatever was known of its sender: as much as a proof.
    pub const RELEASED: Self = Self::E3;
}

/// What is said beside a message that was filed with a doubt left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    NewSendingRoute,
    /// SPF alone speaks for it.
    NotSigned,
    /// It came to the capture address of another user than its author.
    ColleaguesAddress,
    Unverified,
    /// A person let it in.
    Released,
}

/// What follows from the facts, with the rule that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    pub level: Level,
    /// A stable word for the rule.
    pub rule: &'static str,
    /// The reason in plain words.
    pub reason: &'static str,
    pub mark: Option<Mark>,
}

/// Who the author is to the workspace, and to the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The user whose capture address it came to.
    Owner,
    /// Another user.
    Colleague,
    Stranger,
    /// Whoever a reply address was made for, there.
    Participant,
}

/// What is known of the way by which a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteStanding {
    /// Somebody has chosen to trust it.
    Pinned,
    Seen,
    New,
    /// Mail of this address has come by its own domain's servers so far, and this has not.
    Unusual,
}

/// What is known around a message, as it was when it was weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub received_at: Timestamp,
    pub author: Standing,
    pub route: RouteStanding,
    /// It lies in the author's own Sent mailbox, or left from here.
    pub is_sent: bool,
    /// What it says was captured before, by another route.
    pub is_replayed: bool,
    /// Those who passed it on are trusted, and vouch for its author ([`super::sender::ArcChain`]).
    pub is_sealed: bool,
    /// Where its header names the reply addresses that it came to; not asked of captured copies.
    pub naming: Naming,
    /// DNS has been asked for as long as it is.
    pub has_waited: bool,
}

/// Where the header names the reply addresses that a message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// At least one of them nowhere: it came in a blind copy, or somebody sent it on.
    Missing,
    /// All of them, in these fields.
    In { to: bool, cc: bool },
}

/// Who speaks for the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "facts")]
pub enum Witness {
    /// A server of the operator's own, whose word is taken.
    TrustedPeer,
    /// What DNS and signatures say.
    Checked(Box<SenderFacts>),
    /// Nobody was asked: it names no user.
    Unasked,
}

impl Witness {
    /// Whether nothing that matters can be found out by asking again; of an answer, with where its header names what it came to.
    #[must_use]
    pub fn is_complete(&self, answer: Option<Naming>) -> bool {
        match self {
            Self::TrustedPeer => true,
            Self::Checked(facts) => {
                !facts.is_pending() && !answer.is_some_and(|naming| answer::is_open(facts, naming))
            }
            Self::Unasked => false,
        }
    }
}

/// The way a message came: who signed it, or whose servers sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendingRoute {
    /// By which it is known again.
    pub name: String,
    /// It came by servers of the author's own domain.
    pub is_own: bool,
}

/// A route by which mail of an address has come, or that was chosen to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRoute {
    pub name: String,
    pub is_own: bool,
    pub first_seen_at: Option<Timestamp>,
    pub pinned_until: Option<Timestamp>,
}

/// What is done with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    File {
        mark: Option<Mark>,
    },
    /// Kept aside, for the user it concerns and the admins to decide.
    HoldForUser,
    /// Kept aside for the admins.
    HoldForAdmins,
}

const OWN_SENT: Evidence = evidence(
    Level::E4,
    "own_sent",
    "The same message lies in the user's own Sent mailbox, or was sent from here.",
);
const TRUSTED_PEER: Evidence =
    evidence(Level::E3, "trusted_peer", "A mail server that the operator trusts handed it in.");
const SIGNED: Evidence = evidence(
    Level::E3,
    "signed",
    "The author's mail provider signed it, and it came as mail from this address always has.",
);
const PINNED_ROUTE: Evidence =
    evidence(Level::E3, "pinned_route", "It came by a route that was chosen to be trusted.");
const NEW_ROUTE: Evidence = Evidence {
    mark: Some(Mark::NewSendingRoute),
    ..evidence(
        Level::E2,
        "new_route",
        "The author's mail provider signed it, but no mail from this address has come this way before.",
    )
};
const COLLEAGUES_ADDRESS: Evidence = Evidence {
    mark: Some(Mark::ColleaguesAddress),
    ..evidence(
        Level::E2,
        "colleagues_address",
        "The author's mail provider signed it, but it came to another user's capture address.",
    )
};
const SPF_ALONE: Evidence = Evidence {
    mark: Some(Mark::NotSigned),
    ..evidence(
        Level::E2,
        "spf_alone",
        "It came from a server that the author's domain names as its own, but it is not signed.",
    )
};
const SPF_OF_MANY: Evidence = evidence(
    Level::E1,
    "spf_of_many",
    "It came from a server that the author's mail provider shares among everybody, and it is not signed.",
);
const SPF_ELSEWHERE: Evidence = evidence(
    Level::E1,
    "spf_at_colleagues_address",
    "It is not signed, and came to another user's capture address.",
);
const PASSED_ON: Evidence = evidence(
    Level::E1,
    "passed_on",
    "The author's mail provider signed it, but it did not come from there as mail from this address does: somebody may \
     have sent it on.",
);
const SEALED: Evidence = evidence(
    Level::E2,
    "sealed",
    "It was passed on by servers that the operator trusts, and they found that it was from the author's domain.",
);
const REPLAYED: Evidence = evidence(
    Level::E1,
    "replayed",
    "The same message was captured before, by another route: somebody may have sent it once more.",
);
const OLD: Evidence = evidence(
    Level::E1,
    "old",
    "It was written more than three days before it came, or does not say when: somebody may have kept it and sent it on.",
);
const UNPROVEN: Evidence = evidence(
    Level::E1,
    "unproven",
    "It says it is from a user, but it was not signed by that user's mail provider and did not come from there.",
);
const NOTHING_PUBLISHED: Evidence = evidence(
    Level::E1,
    "nothing_published",
    "It says it is from a user, but that user's domain publishes nothing by which mail could be proven (SPF, DKIM, DMARC).",
);
const UNANSWERED: Evidence = evidence(
    Level::E1,
    "dns_unanswered",
    "It says it is from a user, and in a day DNS has not answered whether it is.",
);
const DMARC_FAILED: Evidence = evidence(
    Level::E0,
    "dmarc_fail",
    "It fails the check that the domain it names publishes (DMARC): that domain did not send it.",
);
const NO_FROM: Evidence = evidence(Level::E0, "no_from", "It does not say who wrote it.");
const AMBIGUOUS_FROM: Evidence = evidence(
    Level::E0,
    "ambiguous_from",
    "It does not say clearly who wrote it: programs would read its From differently.",
);

const fn evidence(level: Level, rule: &'static str, reason: &'static str) -> Evidence {
    Evidence { level, rule, reason, mark: None }
}

fn stranger() -> Evidence {
    let ruling = policy::capture_sender_unknown();
    evidence(Level::E0, ruling.rule, ruling.reason)
}

/// What DNS has to answer yet before anything can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending;

/// Weighs what speaks for the sender.
///
/// # Errors
/// `Pending` while DNS keeps an answer back that could prove him.
pub fn weigh(witness: &Witness, context: &Context) -> Result<Evidence, Pending> {
    let is_his = context.author != Standing::Stranger && context.naming != Naming::Missing;
    if context.is_sent && is_his && !is_kept_back(witness, context) {
        return Ok(OWN_SENT);
    }
    if context.author == Standing::Participant {
        return answer::weigh(witness, context);
    }
    match witness {
        Witness::Checked(facts) => weigh_facts(facts, context),
        _ if context.author == Standing::Stranger => Ok(stranger()),
        Witness::TrustedPeer => Ok(TRUSTED_PEER),
        Witness::Unasked => Ok(UNPROVEN),
    }
}

/// Whether somebody may have kept it since it was sent: its author sent it, but maybe not here.
fn is_kept_back(witness: &Witness, context: &Context) -> bool {
    matches!(witness, Witness::Checked(facts) if !is_fresh(facts.written_at, context.received_at))
}

fn weigh_facts(facts: &SenderFacts, context: &Context) -> Result<Evidence, Pending> {
    match facts.from {
        FromField::Missing => return Ok(NO_FROM),
        FromField::Ambiguous(_) => return Ok(AMBIGUOUS_FROM),
        FromField::One(_) => {}
    }
    if context.author == Standing::Stranger {
        return Ok(stranger());
    }
    if facts.is_pending() {
        return if context.has_waited { Ok(UNANSWERED) } else { Err(Pending) };
    }
    Ok(match () {
        () if is_refused(facts, context) => DMARC_FAILED,
        () if facts.proves() => proven(facts, context),
        () if context.route == RouteStanding::Pinned => PINNED_ROUTE,
        () if context.is_sealed => doubt(facts, context).unwrap_or(SEALED),
        () if publishes_nothing(facts) => NOTHING_PUBLISHED,
        () => UNPROVEN,
    })
}

/// Whether the author's domain says that it did not send it, and nobody who is trusted says that it did. One that asks for nothing
/// to be done about it leaves it to whoever trusts the route.
fn is_refused(facts: &SenderFacts, context: &Context) -> bool {
    let asks_nothing = matches!(facts.dmarc.policy, DmarcPolicy::Absent | DmarcPolicy::None);
    let is_excused = context.route == RouteStanding::Pinned && asks_nothing;
    facts.dmarc.verdict == Check::Fail && !is_excused && !context.is_sealed
}

/// A signature or SPF of the author's own domain passed: a domain is proven, and there may be more to it.
fn proven(facts: &SenderFacts, context: &Context) -> Evidence {
    if let Some(doubt) = doubt(facts, context) {
        return doubt;
    }
    let is_owner = context.author == Standing::Owner;
    if author_signature(facts).is_none() {
        return match &facts.from {
            FromField::One(author) if is_shared_by_many(author.domain()) => SPF_OF_MANY,
            _ if !is_owner => SPF_ELSEWHERE,
            _ if context.route == RouteStanding::New => {
                Evidence { mark: Some(Mark::NewSendingRoute), ..SPF_ALONE }
            }
            _ => SPF_ALONE,
        };
    }
    match context.route {
        RouteStanding::Unusual => PASSED_ON,
        _ if !is_owner => COLLEAGUES_ADDRESS,
        RouteStanding::New => NEW_ROUTE,
        RouteStanding::Pinned => PINNED_ROUTE,
        RouteStanding::Seen => SIGNED,
    }
}

/// Why mail that is proven may yet have been sent by another, who had it from its author.
fn doubt(facts: &SenderFacts, context: &Context) -> Option<Evidence> {
    if context.is_replayed {
        return Some(REPLAYED);
    }
    (!is_fresh(facts.written_at, context.received_at)).then_some(OLD)
}

/// The signature of the author's own domain that passed.
fn author_signature(facts: &SenderFacts) -> Option<&Signature> {
    author_signatures(facts).next()
}

fn author_signatures(facts: &SenderFacts) -> impl Iterator<Item = &Signature> {
    facts.signatures.iter().filter(|one| one.is_aligned && one.verdict == Check::Pass)
}

fn is_fresh(written_at: Option<Timestamp>, received_at: Timestamp) -> bool {
    written_at.is_some_and(|at| received_at.duration_since(at).abs() <= FRESH)
}

fn publishes_nothing(facts: &SenderFacts) -> bool {
    facts.signatures.is_empty()
        && facts.dmarc.policy == DmarcPolicy::Absent
        && facts.spf.is_aligned
        && facts.spf.verdict == Check::None
}

/// By which way a message came, as far as anything proves it.
#[must_use]
pub fn route_of(facts: &SenderFacts) -> Option<SendingRoute> {
    let spf = &facts.spf;
    let by_spf = (spf.verdict == Check::Pass && !spf.domain.is_empty()).then_some(spf.domain.as_str());
    if let Some(signature) = author_signature(facts) {
        // Who forges MAIL FROM too is given away by SPF, where the domain publishes it.
        if spf.is_aligned && spf.verdict == Check::Pending {
            return None;
        }
        let is_own = spf.is_aligned && spf.verdict != Check::Fail;
        let by = if is_own { "itself" } else { by_spf.unwrap_or("others") };
        return Some(SendingRoute { name: format!("signed by {} via {by}", signature.domain), is_own });
    }
    if let Some(domain) = by_spf.filter(|_| spf.is_aligned) {
        return Some(SendingRoute { name: format!("sent by {domain}"), is_own: true });
    }
    // Nothing of the author's own domain: whose servers they were can still be known again.
    let signed = facts.signatures.iter().find(|one| one.verdict == Check::Pass);
    let name = signed.map(|one| format!("signed by {}", one.domain));
    let name = name.or_else(|| by_spf.map(|domain| format!("sent by {domain}")))?;
    Some(SendingRoute { name, is_own: false })
}

/// What is known of a route by those that an address's mail has come by.
#[must_use]
pub fn standing(known: &[KnownRoute], route: Option<&SendingRoute>, now: Timestamp) -> RouteStanding {
    let Some(route) = route else { return RouteStanding::New };
    let entry = known.iter().find(|known| known.name == route.name);
    match entry {
        Some(entry) if entry.pinned_until.is_some_and(|until| until > now) => RouteStanding::Pinned,
        Some(entry) if entry.first_seen_at.is_some() => RouteStanding::Seen,
        _ if !route.is_own && known.iter().any(|known| known.is_own && known.first_seen_at.is_some()) => {
            RouteStanding::Unusual
        }
        _ => RouteStanding::New,
    }
}

/// What becomes of a copy whose sender is believed so far.
#[must_use]
pub fn disposal(evidence: &Evidence, mode: Trust) -> Disposal {
    match (evidence.level, mode) {
        (Level::E4 | Level::E3, _) => Disposal::File { mark: None },
        (Level::E2, Trust::Balanced | Trust::Open) => Disposal::File { mark: evidence.mark },
        (Level::E1, Trust::Open) => Disposal::File { mark: Some(Mark::Unverified) },
        (Level::E2, Trust::Strict) | (Level::E1, Trust::Strict | Trust::Balanced) => Disposal::HoldForUser,
        (Level::E0, _) => Disposal::HoldForAdmins,
    }
}

/// What becomes of an answer at a reply address whose sender is believed so far, whatever is asked of copies: the address is proof
/// of something already, so that it has to be nothing but free of what speaks against him.
#[must_use]
pub fn disposal_of_answer(evidence: &Evidence) -> Disposal {
    match evidence.level {
        Level::E0 => Disposal::HoldForUser,
        _ => Disposal::File { mark: evidence.mark },
    }
}

/// When DNS is asked again after it has been asked so often: 1, 5, 15 and 60 minutes later, and then every hour.
#[must_use]
pub fn ask_again(asked: u32) -> SignedDuration {
    SignedDuration::from_mins(match asked {
        0 | 1 => 1,
        2 => 5,
        3 => 15,
        _ => 60,
    })
}

#[cfg(test)]
mod tests;
