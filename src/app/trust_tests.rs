//! What becomes of captured copies by what checking them found, through the real flows on both engines: forged ones by the
//! hundred, and genuine ones.
//!
//! What was found is written down before a copy is processed, as a check that ended earlier writes it. Not here: finding it
//! (`flow::sender`), and the levels one by one (`core::evidence`).

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::parts;
use crate::{
    config::{Config, DomainName},
    core::{
        evidence::{Level, Mark, Witness},
        ids::{MessageKey, UserId, WorkspaceId},
        inbound::{Door, Intake, fingerprint},
        job::{Job, JobKind},
        people::{Role, User},
        policy::Overrides,
        quarantine::{Held, QuarantineState},
        route::{Route, RouteTarget},
        sender::{ArcChain, Check, Dmarc, DmarcPolicy, FromField, SenderFacts, Signature, Spf},
    },
    flow::{self, Gateway, hold},
    mail::{Address, Envelope, Recipient, ReversePath},
    store::{
        InboundState, NewSenderCheck, Verification, mint,
        testing::{World, both},
    },
};

const ANN: &str = "ann@acme.example";
const BEN: &str = "ben@acme.example";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A workspace with two users, into which nobody is trusted to write.
struct Office {
    gateway: Gateway,
    workspace: WorkspaceId,
    routes: [Route; 2],
}

/// A mail, and what checking its sender found.
#[derive(Clone)]
struct Copy {
    header: String,
    text: String,
    facts: SenderFacts,
    /// To the capture address of Ann, or of Ben.
    to: usize,
    received_at: Timestamp,
}

impl Office {
    async fn new(world: &World) -> Self {
        crate::net::install_provider();
        let workspace = world.workspace().await;
        let mut config = Config::default();
        config.domains.capture = DomainName::parse("bcc.example");
        config.smtp.mx.trusted_peers = Some(Vec::new());
        let gateway = parts::assemble(&config, world.store.clone()).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        let mut routes = Vec::new();
        for email in [ANN, BEN] {
            let user: UserId = mint();
            let now = flow::now();
            tx.insert_user(&User {
                id: user,
                email: address(email),
                name: None,
                aliases: Vec::new(),
                role: Role::Member,
                capture_address: None,
                created_at: now,
            })
            .await
            .unwrap();
            let route = Route {
                id: mint(),
                workspace,
                address: address(&email.replace("@acme.example", "-0123456789abcdef@bcc.example")),
                target: RouteTarget::Capture { user },
                expires_at: None,
            };
            tx.insert_route(&route, now).await.unwrap();
            routes.push(route);
        }
        tx.commit().await.unwrap();
        Self { gateway, workspace, routes: routes.try_into().unwrap() }
    }

    /// It arrives, and was checked.
    async fn arrive(&self, copy: &Copy) -> MessageKey {
        let route = self.routes[copy.to].clone();
        let mut envelope = Envelope::new(ReversePath::Address(address("somebody@away.example")));
        envelope.recipients.push(Recipient::new(route.address.clone()));
        let raw = Bytes::from(format!("{}\r\n{}\r\n", copy.header, copy.text));
        // No two are the same transaction.
        let mut unique = fingerprint(&envelope, &raw);
        let id: MessageKey = mint();
        unique.hash = *blake3::hash(id.to_string().as_bytes()).as_bytes();
        let door = Door::Mx {
            routes: vec![route],
            envelope,
            peer: "203.0.113.9".into(),
            hello: "away.example".into(),
        };
        let intake = Intake { workspace: self.workspace, door, raw: raw.clone(), fingerprint: unique };
        self.gateway.store.take_in(intake, id, copy.received_at).await.unwrap();
        let witness = Witness::Checked(Box::new(copy.facts.clone()));
        let found = NewSenderCheck {
            inbound: id,
            identity: flow::identity(&crate::mail::Message::parse(&raw)),
            witness: &witness,
            weighed: None,
            mark: None,
            route: None,
            asked: 1,
            at: flow::now(),
        };
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.put_sender_check(&found).await.unwrap();
        tx.commit().await.unwrap();
        self.process().await;
        id
    }

    async fn process(&self) {
        let lease = Duration::from_secs(60);
        for job in self.gateway.queue.claim(&[JobKind::Process], flow::now(), lease, 100).await.unwrap() {
            let Job::Process { inbound } = job.job else { panic!("{job:?}") };
            flow::process(&self.gateway, &job, inbound).await.unwrap();
        }
    }

    async fn state(&self, id: MessageKey) -> (InboundState, Option<Held>) {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let head = session.inbound_head(id).await.unwrap().unwrap();
        (head.state, session.held(id).await.unwrap())
    }

    async fn verification(&self, id: MessageKey) -> Verification {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.verifications(&[id]).await.unwrap().remove(&id).unwrap()
    }

    /// It is filed with this level and mark.
    async fn assert_filed(&self, copy: &Copy, expect: (Level, Option<Mark>)) -> MessageKey {
        let id = self.arrive(copy).await;
        let (state, held) = self.state(id).await;
        assert_eq!(state, InboundState::Filed, "{held:?}");
        let verification = self.verification(id).await;
        assert_eq!((verification.level, verification.mark), expect, "{}", verification.rule);
        id
    }

    /// It is kept aside by this rule.
    async fn assert_held(&self, copy: &Copy, rule: &str) -> MessageKey {
        let id = self.arrive(copy).await;
        let (state, held) = self.state(id).await;
        assert_eq!((state, held.unwrap().rule.as_str()), (InboundState::Held, rule));
        id
    }

    async fn messages(&self) -> i64 {
        let query = crate::store::sql("select count(*) as messages from messages where workspace = $1");
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.fetch_one(query.bind(self.workspace)).await.unwrap().get("messages").unwrap()
    }
}

fn signature(domain: &str, is_aligned: bool, verdict: Check, reason: Option<&str>) -> Signature {
    let reason = reason.map(str::to_owned);
    Signature { domain: domain.into(), selector: "s1".into(), is_aligned, verdict, reason }
}

fn spf(domain: &str, is_aligned: bool, verdict: Check) -> Spf {
    Spf { domain: domain.into(), is_aligned, verdict }
}

fn dmarc(verdict: Check, policy: DmarcPolicy) -> Dmarc {
    Dmarc { verdict, policy }
}

/// What is found of mail that its author's provider has signed and sent.
fn genuine(author: &str) -> SenderFacts {
    SenderFacts {
        checked_at: flow::now(),
        from: FromField::One(address(author)),
        signatures: vec![signature("acme.example", true, Check::Pass, None)],
        spf: spf("acme.example", true, Check::Pass),
        dmarc: dmarc(Check::Pass, DmarcPolicy::Reject),
        arc: ArcChain { verdict: Check::None, sealer: None },
        written_at: Some(flow::now()),
    }
}

/// What is found of mail that anybody sent.
fn unproven(author: &str) -> SenderFacts {
    SenderFacts {
        signatures: Vec::new(),
        spf: spf("evil.example", false, Check::Pass),
        dmarc: dmarc(Check::None, DmarcPolicy::Absent),
        ..genuine(author)
    }
}

/// A mail whose header says that it is from these.
fn copy(from: &str, facts: SenderFacts) -> Copy {
    let id = mint::<MessageKey>();
    let date = jiff::fmt::rfc2822::to_string(&flow::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
    let header = format!(
        "From: {from}\r\nTo: bob@prospects.example\r\nSubject: Offer\r\nDate: {date}\r\nMessage-ID: <{id}@acme.example>\r\n"
    );
    Copy { header, text: format!("Text of {id}."), facts, to: 0, received_at: flow::now() }
}

impl Copy {
    fn field(&self, field: &str) -> Self {
        Self { header: format!("{}{field}\r\n", self.header), ..self.clone() }
    }
}

type Forged = Vec<(&'static str, Copy)>;

/// What domains ask for, and what comes of that, where nothing proves the sender.
const UNPROVEN: [(Check, DmarcPolicy); 4] = [
    (Check::Fail, DmarcPolicy::None),
    (Check::Fail, DmarcPolicy::Quarantine),
    (Check::Fail, DmarcPolicy::Reject),
    (Check::None, DmarcPolicy::Absent),
];

/// Mail that forges Ann's, in all the ways that are known, each found to be what it is.
fn forged() -> Forged {
    [forged_senders(), forged_froms(), forged_signatures(), forged_fields(), sent_on(), poisoned()].concat()
}

/// Neither signed nor sent by her provider, and somebody alike.
fn forged_senders() -> Forged {
    let mut all: Forged = Vec::new();
    for spelling in [ANN, "Ann Lee <ann@acme.example>", "\"ann@acme.example\" <Ann@ACME.example>"] {
        for by in [Check::Pass, Check::Fail, Check::None] {
            for (verdict, policy) in UNPROVEN {
                let facts = SenderFacts {
                    spf: spf("evil.example", false, by),
                    dmarc: dmarc(verdict, policy),
                    ..unproven(ANN)
                };
                all.push(("C01 neither signed nor sent by her provider", copy(spelling, facts)));
            }
        }
    }
    for like in [
        "ann@acme.example.evil.example",
        "ann@acrne.example",
        "ann@xn--cme-5cd.example",
        "ann@acme-example.evil.example",
        "ann.acme.example@evil.example",
        "ann@evil.example",
    ] {
        for name in ["ann@acme.example", "Ann Lee", "=?utf-8?q?ann=40acme=2Eexample?="] {
            let facts = SenderFacts {
                signatures: vec![signature("evil.example", true, Check::Pass, None)],
                ..genuine(like)
            };
            all.push(("C02 somebody alike, proven", copy(&format!("\"{name}\" <{like}>"), facts)));
        }
    }
    all
}

/// A From that is read in two ways.
fn forged_froms() -> Forged {
    let mut all: Forged = Vec::new();
    for (word, from) in [
        ("two_fields", "ann@acme.example\r\nFrom: mallory@evil.example"),
        ("two_fields", "mallory@evil.example\r\nFrom: ann@acme.example"),
        ("two_mailboxes", "ann@acme.example, ben@acme.example"),
        ("two_mailboxes", "ann@acme.example, mallory@evil.example"),
        ("group", "Team: ann@acme.example;"),
        ("name", "x@evil.example\r\nFrom : ann@acme.example"),
        ("folded", "\r\n ann@acme.example\r\nfrom: x@evil.example"),
        ("nul", "ann@acme.example\0@evil.example"),
        ("comment", "<ann@acme.example(.evil.example)>"),
        ("encoded", "=?utf-8?q?ann=40acme=2Eexample?="),
        ("route", "<@evil.example:ann@acme.example>"),
        ("quoted", "\"ann@acme.example\"@evil.example"),
    ] {
        for facts in [genuine(ANN), unproven(ANN)] {
            let facts = SenderFacts { from: FromField::Ambiguous(word.into()), ..facts };
            all.push(("C03 a From that is read in two ways", copy(from, facts)));
        }
    }
    all
}

/// Signatures that do not count, and servers that send for others.
fn forged_signatures() -> Forged {
    let mut all: Forged = Vec::new();
    for reason in [
        "body longer than l=",
        "From is not signed",
        "a second From was added",
        "expired",
        "rsa-sha1",
        "a key of 512 bits",
        "in testing",
        "d= is a public suffix",
        "the selector holds NUL",
        "the sixth of many",
        "no key",
        "body changed",
    ] {
        for (verdict, policy) in UNPROVEN {
            let signatures = vec![signature("acme.example", true, Check::Fail, Some(reason))];
            let facts = SenderFacts { signatures, dmarc: dmarc(verdict, policy), ..unproven(ANN) };
            all.push(("C04 a signature that does not count", copy(ANN, facts)));
        }
        let signatures = vec![signature("acme.example.evil.example", false, Check::Pass, None)];
        all.push((
            "C04 somebody else's signature",
            copy(ANN, SenderFacts { signatures, ..unproven(ANN) }).field(&format!("X: {reason}")),
        ));
    }
    for by in ["sendgrid.example", "helo.evil.example", "", "bounces.evil.example"] {
        for verdict in [Check::Pass, Check::None, Check::Fail] {
            let facts = SenderFacts { spf: spf(by, false, verdict), ..unproven(ANN) };
            all.push(("C05 servers that send for others", copy(ANN, facts)));
        }
    }
    all
}

/// Fields that say it was checked.
fn forged_fields() -> Forged {
    let mut all: Forged = Vec::new();
    for field in [
        "Authentication-Results: gateway.example; dkim=pass header.d=acme.example; dmarc=pass",
        "ARC-Authentication-Results: i=1; gateway.example; dmarc=pass",
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=evil.example; s=s; b=AAAA",
        "X-MS-Exchange-Organization-AuthAs: Internal",
        "X-Google-DKIM-Signature: v=1; d=acme.example",
        "Received: from acme.example by gateway.example; Mon, 1 Jan 2024 00:00:00 +0000",
        "Received-SPF: pass",
        "X-Spam-Status: No",
        "Sender: ann@acme.example",
        "Return-Path: <ann@acme.example>",
    ] {
        for (verdict, policy) in UNPROVEN {
            let arc = ArcChain { verdict: Check::Pass, sealer: Some("evil.example".into()) };
            let facts = SenderFacts { arc, dmarc: dmarc(verdict, policy), ..unproven(ANN) };
            all.push(("C07 fields that say it was checked", copy(ANN, facts).field(field)));
        }
    }
    all
}

/// Her own mail, sent on by others or kept for long.
fn sent_on() -> Forged {
    let mut all: Forged = Vec::new();
    for by in ["evil.example", "lists.example", "", "bob.example", "relay.example"] {
        for verdict in [Check::Pass, Check::None, Check::Fail] {
            let facts = SenderFacts { spf: spf(by, false, verdict), ..genuine(ANN) };
            all.push(("C10 her own mail, sent on by another", copy(ANN, facts)));
        }
    }
    for hours in [73, 80, 100, 200, 500, 1000, 5000, 9000, 20_000, 50_000] {
        let facts =
            SenderFacts { written_at: Some(flow::now() - SignedDuration::from_hours(hours)), ..genuine(ANN) };
        all.push(("C10 her own mail of long ago", copy(ANN, facts)));
    }
    all
}

/// Threads and contacts that are to be poisoned.
fn poisoned() -> Forged {
    let mut all: Forged = Vec::new();
    for field in [
        "In-Reply-To: <begun@acme.example>",
        "References: <begun@acme.example> <other@acme.example>",
        "Cc: =HYPERLINK(1)@evil.example, <script>@evil.example",
        "Cc: carl@prospects.example, dora@prospects.example, no-reply@prospects.example",
        "Reply-To: mallory@evil.example",
        "List-Id: <everybody.acme.example>",
        "Auto-Submitted: auto-replied",
        "X-Microsoft-Original-Message-ID: <begun@acme.example>",
    ] {
        for facts in
            [unproven(ANN), SenderFacts { dmarc: dmarc(Check::Fail, DmarcPolicy::Reject), ..unproven(ANN) }]
        {
            all.push(("C11, C12 poisoned threads and contacts", copy(ANN, facts).field(field)));
        }
        let stranger = copy("Support <verify@shop.example>", genuine("verify@shop.example")).field(field);
        all.push(("C13 somebody else's machine", stranger));
    }
    all
}

both! {
    async fn nothing_forged_is_filed_and_all_that_is_genuine_is(world) {
        let office = Office::new(&world).await;
        let begun = copy(ANN, genuine(ANN));
        office.assert_filed(&begun, (Level::E2, Some(Mark::NewSendingRoute))).await;
        let mut forged = forged();
        // The same at a colleague's address, which was learned as well.
        let elsewhere: Vec<_> = forged
            .iter()
            .filter(|(way, _)| way.starts_with("C01") || way.starts_with("C03") || way.starts_with("C04"))
            .map(|(way, copy)| (*way, Copy { to: 1, text: format!("{} too", copy.text), ..copy.clone() }))
            .collect();
        forged.extend(elsewhere);
        assert!(forged.len() >= 300, "{}", forged.len());
        for (way, copy) in &forged {
            let id = office.arrive(copy).await;
            let (state, held) = office.state(id).await;
            let is_aside = state == InboundState::Held && held.is_some_and(|held| !held.reason.is_empty());
            // A machine's mail with nobody behind it may be left out whole.
            assert!(is_aside || state == InboundState::Dropped, "{way}: {state:?}\n{}", copy.header);
        }
        assert_eq!(office.messages().await, 1, "what was genuine");
        for _ in 0..100 {
            office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E3, None)).await;
        }
        assert_eq!(office.messages().await, 101);
    }

    async fn a_route_is_new_once_and_others_are_noticed_from_then_on(world) {
        let office = Office::new(&world).await;
        office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E2, Some(Mark::NewSendingRoute))).await;
        office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E3, None)).await;
        let passed_on = SenderFacts { spf: spf("evil.example", false, Check::Pass), ..genuine(ANN) };
        office.assert_held(&copy(ANN, passed_on), "passed_on").await;
        let by_spf = SenderFacts { signatures: Vec::new(), ..genuine(ANN) };
        office.assert_filed(&copy(ANN, by_spf), (Level::E2, Some(Mark::NewSendingRoute))).await;
        // Ben is nobody's Ann: his routes are his own, and her address is hers.
        let at_hers = copy(BEN, genuine(BEN));
        office.assert_filed(&at_hers, (Level::E2, Some(Mark::ColleaguesAddress))).await;
        let own = Copy { to: 1, ..copy(BEN, genuine(BEN)) };
        office.assert_filed(&own, (Level::E3, None)).await;
    }

    async fn what_was_released_with_trust_comes_in_by_itself_from_then_on(world) {
        let office = Office::new(&world).await;
        let by_relay = || SenderFacts {
            signatures: vec![signature("relay.example", false, Check::Pass, None)],
            ..unproven(ANN)
        };
        let id = office.assert_held(&copy(ANN, by_relay()), "unproven").await;
        let mut tx = office.gateway.store.begin(office.workspace).await.unwrap();
        let released = hold::release(&mut tx, id, ("key_1", true), flow::now()).await.unwrap().unwrap();
        assert_eq!((released.state, released.is_trusted), (QuarantineState::Released, true));
        tx.commit().await.unwrap();
        office.process().await;
        assert_eq!(office.state(id).await.0, InboundState::Filed);
        assert_eq!(office.verification(id).await.mark, Some(Mark::Released));
        office.assert_filed(&copy(ANN, by_relay()), (Level::E3, None)).await;
        office.assert_held(&copy(ANN, unproven(ANN)), "unproven").await;
        // What her domain says is not hers is not, whoever trusts it.
        let refused = SenderFacts { dmarc: dmarc(Check::Fail, DmarcPolicy::Reject), ..by_relay() };
        office.assert_held(&copy(ANN, refused), "dmarc_fail").await;
    }

    async fn strict_keeps_aside_what_balanced_marks(world) {
        let office = Office::new(&world).await;
        let chosen = serde_json::json!({ "trust": "strict" });
        let overrides = Overrides::new(chosen.as_object().unwrap().clone()).unwrap();
        let mut tx = office.gateway.store.begin(office.workspace).await.unwrap();
        tx.set_policy("mailweave", &overrides).await.unwrap();
        tx.commit().await.unwrap();
        let id = office.assert_held(&copy(ANN, genuine(ANN)), "new_route").await;
        let held = office.state(id).await.1.unwrap();
        assert_eq!((held.level, held.user.is_some()), (Some(Level::E2), true));
    }

    async fn what_lies_in_quarantine_is_bounded(world) {
        let office = Office::new(&world).await;
        for _ in 0..203 {
            office.arrive(&copy(ANN, unproven(ANN))).await;
        }
        let mut session = office.gateway.store.read(office.workspace).await.unwrap();
        let all = crate::store::Page::new(1000, None);
        let list = |state| crate::store::HeldFilter { state, user: None };
        assert_eq!(session.quarantine(&all, list(None)).await.unwrap().len(), 200);
        let gone = session.quarantine(&all, list(Some(QuarantineState::Expired))).await.unwrap();
        assert_eq!(gone.len(), 3);
        assert!(gone.iter().all(|held| held.shown.is_none() && held.settled_by.as_deref() == Some("cap")));
    }
}
