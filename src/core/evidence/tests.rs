//! Every cell of both tables: facts to levels, and levels to what becomes of a copy.

use proptest::prelude::*;

use super::*;
use crate::{
    core::sender::{ArcChain, Dmarc, Spf},
    mail::Address,
};

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + hours * 3600).unwrap()
}

fn signature(domain: &str, is_aligned: bool, verdict: Check) -> Signature {
    let (domain, selector) = (domain.into(), "s1".into());
    Signature { domain, selector, is_aligned, signs_to: true, signs_cc: true, verdict, reason: None }
}

fn spf(domain: &str, is_aligned: bool, verdict: Check) -> Spf {
    Spf { domain: domain.into(), is_aligned, verdict }
}

/// Ann of acme.example, signed by her provider and sent by its servers.
fn facts() -> SenderFacts {
    SenderFacts {
        as_of: at(0),
        from: FromField::One(Address::parse("ann@acme.example").unwrap()),
        signatures: vec![signature("acme.example", true, Check::Pass)],
        spf: spf("acme.example", true, Check::Pass),
        dmarc: Dmarc { verdict: Check::Pass, policy: DmarcPolicy::Reject },
        publishes_spf: Some(false),
        arc: ArcChain::NONE,
        written_at: Some(at(0)),
    }
}

/// Her own address, by a route that is known.
fn context() -> Context {
    Context {
        received_at: at(0),
        author: Standing::Owner,
        route: RouteStanding::Seen,
        is_sent: false,
        is_replayed: false,
        naming: Naming::In { to: true, cc: false },
        is_sealed: false,
        has_waited: false,
    }
}

/// The facts of mail that proves nothing.
fn unproven() -> SenderFacts {
    SenderFacts {
        signatures: Vec::new(),
        spf: spf("evil.example", false, Check::Pass),
        dmarc: Dmarc { verdict: Check::None, policy: DmarcPolicy::Absent },
        ..facts()
    }
}

fn rule(facts: SenderFacts, context: Context) -> (Option<Level>, &'static str) {
    let witness = Witness::Checked(Box::new(facts));
    let stored = serde_json::to_string(&(&witness, &context)).unwrap();
    let (again, around): (Witness, Context) = serde_json::from_str(&stored).unwrap();
    let weighed = weigh(&witness, &context);
    assert_eq!(weigh(&again, &around), weighed, "what is stored says the same");
    weighed.map_or((None, "pending"), |evidence| (Some(evidence.level), evidence.rule))
}

#[test]
fn every_kind_of_proof_has_its_level() {
    use Level::{E0, E1, E2, E3, E4};
    let by_spf = || SenderFacts { signatures: Vec::new(), ..facts() };
    let gmail = |facts: SenderFacts| SenderFacts {
        from: FromField::One(Address::parse("ann@gmail.com").unwrap()),
        ..facts
    };
    let on = |route| Context { route, ..context() };
    let by = |author| Context { author, ..context() };
    let silent = || SenderFacts {
        signatures: vec![signature("acme.example", true, Check::Pending)],
        spf: spf("evil.example", false, Check::Pass),
        ..unproven()
    };
    let failing = |policy| SenderFacts { dmarc: Dmarc { verdict: Check::Fail, policy }, ..unproven() };
    let elsewhere = SenderFacts { spf: spf("evil.example", false, Check::Pass), ..facts() };
    let sealed = || Context { is_sealed: true, ..context() };
    for (facts, context, level, expect) in [
        (facts(), context(), Some(E3), "signed"),
        (unproven(), Context { is_sent: true, ..context() }, Some(E4), "own_sent"),
        (unproven(), Context { is_sent: true, received_at: at(73), ..context() }, Some(E1), "unproven"),
        (facts(), Context { is_sent: true, ..by(Standing::Stranger) }, Some(E0), "capture_sender_unknown"),
        // E2
        (facts(), on(RouteStanding::New), Some(E2), "new_route"),
        (facts(), by(Standing::Colleague), Some(E2), "colleagues_address"),
        (by_spf(), context(), Some(E2), "spf_alone"),
        (by_spf(), on(RouteStanding::New), Some(E2), "spf_alone"),
        // Chosen to be trusted.
        (facts(), on(RouteStanding::Pinned), Some(E3), "pinned_route"),
        (unproven(), on(RouteStanding::Pinned), Some(E3), "pinned_route"),
        (failing(DmarcPolicy::None), on(RouteStanding::Pinned), Some(E3), "pinned_route"),
        (failing(DmarcPolicy::Reject), on(RouteStanding::Pinned), Some(E0), "dmarc_fail"),
        // Passed on by those who are trusted.
        (failing(DmarcPolicy::Reject), sealed(), Some(E2), "sealed"),
        (unproven(), sealed(), Some(E2), "sealed"),
        (facts(), sealed(), Some(E3), "signed"),
        (unproven(), Context { is_replayed: true, ..sealed() }, Some(E1), "replayed"),
        (SenderFacts { written_at: None, ..unproven() }, sealed(), Some(E1), "old"),
        (unproven(), Context { author: Standing::Stranger, ..sealed() }, Some(E0), "capture_sender_unknown"),
        // E1
        (unproven(), context(), Some(E1), "unproven"),
        (
            SenderFacts { spf: spf("acme.example", true, Check::None), ..unproven() },
            context(),
            Some(E1),
            "nothing_published",
        ),
        (gmail(by_spf()), context(), Some(E1), "spf_of_many"),
        (gmail(facts()), context(), Some(E3), "signed"),
        (by_spf(), by(Standing::Colleague), Some(E1), "spf_at_colleagues_address"),
        (elsewhere, on(RouteStanding::Unusual), Some(E1), "passed_on"),
        (facts(), Context { is_replayed: true, ..context() }, Some(E1), "replayed"),
        (facts(), Context { received_at: at(72), ..context() }, Some(E3), "signed"),
        (facts(), Context { received_at: at(73), ..context() }, Some(E1), "old"),
        (facts(), Context { received_at: at(-73), ..context() }, Some(E1), "old"),
        (SenderFacts { written_at: None, ..facts() }, context(), Some(E1), "old"),
        // E0
        (facts(), by(Standing::Stranger), Some(E0), "capture_sender_unknown"),
        (SenderFacts { from: FromField::Missing, ..facts() }, context(), Some(E0), "no_from"),
        (
            SenderFacts { from: FromField::Ambiguous("two".into()), ..facts() },
            context(),
            Some(E0),
            "ambiguous_from",
        ),
        (failing(DmarcPolicy::None), context(), Some(E0), "dmarc_fail"),
        (failing(DmarcPolicy::Quarantine), context(), Some(E0), "dmarc_fail"),
        (failing(DmarcPolicy::Reject), context(), Some(E0), "dmarc_fail"),
        // DNS is silent: neither proof nor its want.
        (silent(), context(), None, "pending"),
        (silent(), Context { has_waited: true, ..context() }, Some(E1), "dns_unanswered"),
        (silent(), by(Standing::Stranger), Some(E0), "capture_sender_unknown"),
    ] {
        assert_eq!(rule(facts.clone(), context), (level, expect), "{facts:?}\n{context:?}");
    }
}

#[test]
fn a_trusted_server_speaks_for_users_alone() {
    let said = |author| {
        let evidence = weigh(&Witness::TrustedPeer, &Context { author, ..context() }).unwrap();
        (evidence.level, evidence.rule)
    };
    assert_eq!(said(Standing::Owner), (Level::E3, "trusted_peer"));
    assert_eq!(said(Standing::Colleague), (Level::E3, "trusted_peer"));
    assert_eq!(said(Standing::Stranger), (Level::E0, "capture_sender_unknown"));
    assert_eq!(weigh(&Witness::Unasked, &context()).unwrap().rule, "unproven");
}

#[test]
fn an_answer_is_proven_as_far_as_its_domain_lets_it_be() {
    use Level::{E0, E1, E2, E3, E4};
    let context = || Context { author: Standing::Participant, ..context() };
    let unaddressed = || Context { naming: Naming::Missing, ..context() };
    let in_cc = || Context { naming: Naming::In { to: false, cc: true }, ..context() };
    let spf_open =
        |facts: SenderFacts| SenderFacts { spf: spf("acme.example", true, Check::Pending), ..facts };
    let to_alone = |facts: SenderFacts| SenderFacts {
        signatures: vec![Signature { signs_cc: false, ..signature("acme.example", true, Check::Pass) }],
        ..facts
    };
    let gmail = |facts: SenderFacts| SenderFacts {
        from: FromField::One(Address::parse("ann@gmail.com").unwrap()),
        ..facts
    };
    let on = |route| Context { route, ..context() };
    let signed_as = |is_aligned, verdict| SenderFacts {
        signatures: vec![signature("acme.example", is_aligned, verdict)],
        ..unproven()
    };
    let failing = |policy| SenderFacts { dmarc: Dmarc { verdict: Check::Fail, policy }, ..unproven() };
    let published = |publishes_spf| SenderFacts { publishes_spf, ..unproven() };
    let from = |from| SenderFacts { from, ..facts() };
    for (facts, context, level, expect) in [
        (facts(), context(), Some(E3), "answer_signed"),
        // How old it is, and by which way it came, says nothing: it was addressed to where it came.
        (facts(), Context { received_at: at(100), ..on(RouteStanding::Unusual) }, Some(E3), "answer_signed"),
        (unproven(), Context { is_sent: true, ..context() }, Some(E4), "own_sent"),
        // It was not, and others could have handed it in.
        (signed_as(true, Check::Pass), unaddressed(), Some(E0), "answer_unaddressed"),
        (gmail(facts()), unaddressed(), Some(E0), "answer_unaddressed"),
        (to_alone(unproven()), context(), Some(E3), "answer_signed"),
        (to_alone(unproven()), in_cc(), Some(E0), "answer_unaddressed"),
        (to_alone(gmail(facts())), in_cc(), Some(E3), "answer_signed"),
        (
            signed_as(true, Check::Pass),
            Context { route: RouteStanding::Pinned, ..unaddressed() },
            Some(E0),
            "answer_unaddressed",
        ),
        // DNS may yet say that its servers sent it, and that matters only where the signature does not.
        (spf_open(facts()), unaddressed(), None, "pending"),
        (spf_open(facts()), Context { has_waited: true, ..unaddressed() }, Some(E0), "answer_unaddressed"),
        (spf_open(facts()), context(), Some(E3), "answer_signed"),
        (spf_open(to_alone(facts())), in_cc(), None, "pending"),
        (spf_open(gmail(facts())), unaddressed(), Some(E0), "answer_unaddressed"),
        (facts(), unaddressed(), Some(E3), "answer_signed"),
        (unproven(), Context { is_sent: true, ..unaddressed() }, Some(E1), "answer_nothing_published"),
        (SenderFacts { signatures: Vec::new(), ..facts() }, context(), Some(E2), "answer_spf_alone"),
        (failing(DmarcPolicy::None), on(RouteStanding::Pinned), Some(E3), "pinned_route"),
        (published(Some(true)), on(RouteStanding::Pinned), Some(E3), "pinned_route"),
        (failing(DmarcPolicy::Quarantine), on(RouteStanding::Pinned), Some(E0), "dmarc_fail"),
        (failing(DmarcPolicy::Reject), Context { is_sealed: true, ..context() }, Some(E2), "sealed"),
        // Nothing is published.
        (unproven(), context(), Some(E1), "answer_nothing_published"),
        (signed_as(false, Check::Pass), context(), Some(E1), "answer_nothing_published"),
        (signed_as(true, Check::None), context(), Some(E1), "answer_nothing_published"),
        // Something is.
        (failing(DmarcPolicy::None), context(), Some(E0), "dmarc_fail"),
        (failing(DmarcPolicy::Reject), context(), Some(E0), "dmarc_fail"),
        (published(Some(true)), context(), Some(E0), "answer_unproven"),
        (signed_as(true, Check::Fail), context(), Some(E0), "answer_unproven"),
        (from(FromField::Missing), context(), Some(E0), "no_from"),
        (from(FromField::Ambiguous("two".into())), context(), Some(E0), "ambiguous_from"),
        // DNS is silent.
        (published(None), context(), None, "pending"),
        (signed_as(true, Check::Pending), context(), None, "pending"),
        (published(None), Context { has_waited: true, ..context() }, Some(E0), "answer_dns_unanswered"),
    ] {
        assert_eq!(rule(facts.clone(), context), (level, expect), "{facts:?}\n{context:?}");
        if let Ok(evidence) = weigh(&Witness::Checked(Box::new(facts)), &context) {
            let is_filed = matches!(disposal_of_answer(&evidence), Disposal::File { .. });
            assert_eq!(is_filed, level > Some(E0), "{expect}");
        }
    }
    assert_eq!(weigh(&Witness::TrustedPeer, &context()).map(|said| said.rule), Ok("trusted_peer"));
    assert_eq!(weigh(&Witness::Unasked, &context()).map(|said| said.level), Ok(E0));
}

#[test]
fn a_chain_of_seals_is_believed_of_those_who_are_trusted_alone() {
    let trusted = ["lists.example".to_owned(), "forward.example".to_owned()];
    let chain = |sealers: &[&str]| ArcChain {
        verdict: Check::Pass,
        sealers: sealers.iter().map(|&sealer| sealer.to_owned()).collect(),
        vouches: true,
    };
    assert!(chain(&["lists.example"]).is_believed(&trusted));
    assert!(chain(&["lists.example", "Forward.example"]).is_believed(&trusted));
    for refused in [
        chain(&["evil.example"]),
        chain(&["evil.example", "lists.example"]),
        chain(&["lists.example", "evil.example"]),
        ArcChain { vouches: false, ..chain(&["lists.example"]) },
        ArcChain { verdict: Check::Pending, ..chain(&["lists.example"]) },
        ArcChain { verdict: Check::Fail, ..chain(&["lists.example"]) },
        ArcChain::NONE,
    ] {
        assert!(!refused.is_believed(&trusted), "{refused:?}");
    }
    assert!(!chain(&["lists.example"]).is_believed(&[]));
}

#[test]
fn a_signature_that_covers_something_else_proves_nothing() {
    for verdict in [Check::Fail, Check::None] {
        let facts = SenderFacts { signatures: vec![signature("acme.example", true, verdict)], ..unproven() };
        assert_eq!(rule(facts, context()).1, "unproven");
    }
    let foreign =
        SenderFacts { signatures: vec![signature("evil.example", false, Check::Pass)], ..unproven() };
    assert_eq!(rule(foreign, context()).1, "unproven");
}

#[test]
fn every_level_has_its_place_in_every_mode() {
    use Disposal::{File, HoldForAdmins, HoldForUser};
    let filed = File { mark: None };
    let marked = |mark| File { mark: Some(mark) };
    for (level, balanced, strict, open) in [
        (OWN_SENT, filed, filed, filed),
        (SIGNED, filed, filed, filed),
        (NEW_ROUTE, marked(Mark::NewSendingRoute), HoldForUser, marked(Mark::NewSendingRoute)),
        (SPF_ALONE, marked(Mark::NotSigned), HoldForUser, marked(Mark::NotSigned)),
        (UNPROVEN, HoldForUser, HoldForUser, marked(Mark::Unverified)),
        (DMARC_FAILED, HoldForAdmins, HoldForAdmins, HoldForAdmins),
    ] {
        let got = [Trust::Balanced, Trust::Strict, Trust::Open].map(|mode| disposal(&level, mode));
        assert_eq!(got, [balanced, strict, open], "{}", level.rule);
    }
}

#[test]
fn a_route_is_known_again_by_who_signed_and_whose_servers_sent() {
    let elsewhere = |verdict| SenderFacts { spf: spf("lists.example", false, verdict), ..facts() };
    let forged_path = SenderFacts { spf: spf("acme.example", true, Check::Fail), ..facts() };
    let by_spf = SenderFacts { signatures: Vec::new(), ..facts() };
    for (facts, name, is_own) in [
        (facts(), "signed by acme.example via itself", true),
        (elsewhere(Check::Pass), "signed by acme.example via lists.example", false),
        (elsewhere(Check::None), "signed by acme.example via others", false),
        (forged_path, "signed by acme.example via others", false),
        (by_spf, "sent by acme.example", true),
        (unproven(), "sent by evil.example", false),
    ] {
        assert_eq!(route_of(&facts), Some(SendingRoute { name: name.into(), is_own }));
    }
    assert_eq!(route_of(&SenderFacts { spf: spf("", false, Check::None), ..unproven() }), None);
}

#[test]
fn mail_that_comes_otherwise_than_it_always_has_is_noticed() {
    let known = |name: &str, is_own, seen: bool, pinned: Option<i64>| KnownRoute {
        name: name.into(),
        is_own,
        first_seen_at: seen.then(|| at(-100)),
        pinned_until: pinned.map(at),
    };
    let route = |name: &str, is_own| SendingRoute { name: name.into(), is_own };
    let (own, other) = (route("own", true), route("other", false));
    for (list, came, expect) in [
        (vec![], Some(&own), RouteStanding::New),
        (vec![], Some(&other), RouteStanding::New),
        (vec![], None, RouteStanding::New),
        (vec![known("own", true, true, None)], Some(&own), RouteStanding::Seen),
        (vec![known("own", true, true, None)], Some(&other), RouteStanding::Unusual),
        (vec![known("other", false, false, Some(1))], Some(&other), RouteStanding::Pinned),
        (vec![known("other", false, false, Some(-1))], Some(&other), RouteStanding::New),
        (vec![known("elsewhere", true, true, None)], Some(&own), RouteStanding::New),
    ] {
        assert_eq!(standing(&list, came, at(0)), expect, "{list:?} {came:?}");
    }
}

#[test]
fn dns_is_asked_ever_less_often_within_a_day() {
    let waits: Vec<i64> = (1..=6).map(|asked| ask_again(asked).as_secs() / 60).collect();
    assert_eq!(waits, [1, 5, 15, 60, 60, 60]);
}

fn checks() -> impl Strategy<Value = Check> {
    prop_oneof![Just(Check::Pass), Just(Check::Fail), Just(Check::None), Just(Check::Pending)]
}

fn any_context() -> impl Strategy<Value = Context> {
    let standings = prop_oneof![Just(Standing::Owner), Just(Standing::Colleague), Just(Standing::Stranger)];
    let routes = prop_oneof![
        Just(RouteStanding::Pinned),
        Just(RouteStanding::Seen),
        Just(RouteStanding::New),
        Just(RouteStanding::Unusual)
    ];
    (standings, routes, any::<[bool; 5]>(), -100_i64..100).prop_map(
        |(author, route, [sent, again, addressed, sealed, waited], hours)| Context {
            received_at: at(hours),
            author,
            route,
            is_sent: sent,
            is_replayed: again,
            naming: if addressed { Naming::In { to: sealed, cc: sent } } else { Naming::Missing },
            is_sealed: sealed,
            has_waited: waited,
        },
    )
}

fn any_facts() -> impl Strategy<Value = SenderFacts> {
    let policies = prop_oneof![
        Just(DmarcPolicy::Absent),
        Just(DmarcPolicy::None),
        Just(DmarcPolicy::Quarantine),
        Just(DmarcPolicy::Reject)
    ];
    (checks(), any::<[bool; 3]>(), checks(), checks(), policies).prop_map(
        |(signed, [ours, path, dated], by_spf, dmarc, policy)| SenderFacts {
            signatures: vec![signature("acme.example", ours, signed)],
            spf: spf("acme.example", path, by_spf),
            dmarc: Dmarc { verdict: dmarc, policy },
            written_at: dated.then(|| at(0)),
            ..facts()
        },
    )
}

proptest! {
    /// Whatever the rest: without proof of the author's own domain, its Sent mailbox, or somebody's choice, nothing is filed.
    #[test]
    fn nothing_is_filed_without_proof(facts in any_facts(), context in any_context()) {
        let proves = facts.proves();
        let witness = Witness::Checked(Box::new(facts));
        let again: (Witness, Context) =
            serde_json::from_str(&serde_json::to_string(&(&witness, &context)).unwrap()).unwrap();
        let weighed = weigh(&witness, &context);
        prop_assert_eq!(weigh(&again.0, &again.1), weighed);
        if let Ok(evidence) = weighed
            && matches!(disposal(&evidence, Trust::Balanced), Disposal::File { .. })
        {
            let is_chosen = context.route == RouteStanding::Pinned;
            prop_assert!(context.author != Standing::Stranger);
            prop_assert!(proves || context.is_sent || context.is_sealed || is_chosen, "{}", evidence.rule);
        }
    }

    /// Strict files less than balanced, and that less than open.
    #[test]
    fn a_stricter_mode_files_no_more(facts in any_facts(), context in any_context()) {
        let Ok(evidence) = weigh(&Witness::Checked(Box::new(facts)), &context) else { return Ok(()) };
        let files = |mode| matches!(disposal(&evidence, mode), Disposal::File { .. });
        prop_assert!(!files(Trust::Strict) || files(Trust::Balanced));
        prop_assert!(!files(Trust::Balanced) || files(Trust::Open));
    }
}
