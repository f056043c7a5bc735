//! How far the sender of an answer at a reply address is believed. Nobody guesses such an address, but everybody who was shown it
//! knows it: that From names its participant has to be proven as far as his domain lets it be.
//!
//! Not here: whether From names him (`flow::relay`), and copies at capture addresses (the module above).

use super::{
    AMBIGUOUS_FROM, Context, DMARC_FAILED, Evidence, Level, Mark, NO_FROM, Naming, PINNED_ROUTE, Pending,
    RouteStanding, SEALED, TRUSTED_PEER, Witness, author_signature, author_signatures, evidence, is_refused,
};
use crate::{
    core::sender::{Check, DmarcPolicy, FromField, SenderFacts, Signature},
    mail::is_shared_by_many,
};

const SIGNED: Evidence = evidence(
    Level::E3,
    "answer_signed",
    "It came to a reply address, and the participant's mail provider signed it.",
);
const SENT: Evidence = Evidence {
    mark: Some(Mark::NotSigned),
    ..evidence(
        Level::E2,
        "answer_spf_alone",
        "It came to a reply address from a server that the participant's domain names as its own, but it is not signed.",
    )
};
/// The rule of what can be sent on by whoever has it: no route is to be trusted with it.
pub const UNADDRESSED_RULE: &str = "answer_unaddressed";
const UNADDRESSED: Evidence = evidence(
    Level::E0,
    UNADDRESSED_RULE,
    "The participant's mail provider signed it, but not that it is to the reply address, and it did not come from there: somebody may \
     have sent on what he wrote to others.",
);
const NOTHING_PUBLISHED: Evidence = Evidence {
    mark: Some(Mark::Unverified),
    ..evidence(
        Level::E1,
        "answer_nothing_published",
        "It came to a reply address in the participant's name, and his domain publishes nothing by which mail could be \
         proven (SPF, DKIM, DMARC).",
    )
};
const UNPROVEN: Evidence = evidence(
    Level::E0,
    "answer_unproven",
    "It came to a reply address in the participant's name, but neither did his mail provider sign it nor did it come from \
     there, as his domain's mail does.",
);
const UNANSWERED: Evidence = evidence(
    Level::E0,
    "answer_dns_unanswered",
    "It came to a reply address in the participant's name, and in a day DNS has not answered whether it is from him.",
);

/// Weighs what speaks for the participant.
pub(super) fn weigh(witness: &Witness, context: &Context) -> Result<Evidence, Pending> {
    let facts = match witness {
        Witness::Checked(facts) => facts,
        Witness::TrustedPeer => return Ok(TRUSTED_PEER),
        Witness::Unasked => return Ok(UNPROVEN),
    };
    match facts.from {
        FromField::Missing => return Ok(NO_FROM),
        FromField::Ambiguous(_) => return Ok(AMBIGUOUS_FROM),
        FromField::One(_) => {}
    }
    if facts.is_pending() {
        return if context.has_waited { Ok(UNANSWERED) } else { Err(Pending) };
    }
    if is_open(facts, context.naming) && !context.has_waited {
        return Err(Pending);
    }
    Ok(match () {
        () if is_refused(facts, context) => DMARC_FAILED,
        () if author_signature(facts).is_some() && !is_meant(facts, context.naming) => UNADDRESSED,
        () if author_signature(facts).is_some() => SIGNED,
        () if facts.proves() => SENT,
        () if context.route == RouteStanding::Pinned => PINNED_ROUTE,
        () if context.is_sealed => SEALED,
        () if publishes_nothing(facts) => NOTHING_PUBLISHED,
        () => UNPROVEN,
    })
}

/// Whether what the participant signed was meant for where it came. What he sent to others each of them can send on, and write into
/// a field that is not signed what he likes. But nobody else can have his servers hand in what he has altered, nor those that are
/// only his hand in anything.
fn is_meant(facts: &SenderFacts, naming: Naming) -> bool {
    let by_spf = facts.spf.is_aligned && facts.spf.verdict == Check::Pass;
    let Naming::In { to, cc } = naming else {
        let is_everybodys =
            matches!(&facts.from, FromField::One(author) if is_shared_by_many(author.domain()));
        return by_spf && !is_everybodys;
    };
    let covers = |one: &Signature| (one.signs_to || !to) && (one.signs_cc || !cc);
    by_spf || author_signatures(facts).any(covers)
}

/// Whether it is signed, and DNS may yet say what shows that it was meant for where it came.
pub(super) fn is_open(facts: &SenderFacts, naming: Naming) -> bool {
    let mut hoped = facts.clone();
    let verdicts = hoped.signatures.iter_mut().map(|one| &mut one.verdict).chain([&mut hoped.spf.verdict]);
    for verdict in verdicts.filter(|verdict| **verdict == Check::Pending) {
        *verdict = Check::Pass;
    }
    author_signature(facts).is_some() && !is_meant(facts, naming) && is_meant(&hoped, naming)
}

/// Whether nothing of the participant's domain could prove its mail. One that signs some mail signs all of it; while a key is only
/// tried out its signatures are none.
fn publishes_nothing(facts: &SenderFacts) -> bool {
    facts.dmarc.policy == DmarcPolicy::Absent
        && facts.publishes_spf == Some(false)
        && !facts.signatures.iter().any(|one| one.is_aligned && one.verdict != Check::None)
}
