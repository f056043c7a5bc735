//! What becomes of captured copies by what checking them found, through the real flows on both engines: forged ones by the
//! hundred, and genuine ones.
//!
//! What was found is written down before a copy is processed, as a check that ended earlier writes it. Not here: finding it
//! (`flow::sender`), and the levels one by one (`core::evidence`).

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::parts;
use crate::{
    config::{Config, DomainName, NameServer},
    core::{
        evidence::{Level, Mark, Witness},
        ids::{MessageKey, RouteId, UserId, WorkspaceId},
        inbound::{Door, Intake, fingerprint},
        job::{Job, JobKind},
        people::{Role, User},
        policy::Overrides,
        quarantine::{Held, QuarantineState},
        reply_address::Sealed,
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
const BOB: &str = "bob@prospects.example";
/// Where Ann has addresses too, as everybody can.
const EVERYBODYS: [&str; 5] = ["gmail.com", "outlook.com", "web.de", "yahoo.com", "icloud.com"];

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
        config.domains.reply = DomainName::parse("reply.example");
        config.smtp.mx.trusted_peers = Some(Vec::new());
        config.dns.servers = vec![NameServer(failing_name_server())];
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
                aliases: EVERYBODYS
                    .iter()
                    .filter(|_| email == ANN)
                    .map(|domain| address(&format!("ann@{domain}")))
                    .collect(),
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
        self.arrive_at(self.routes[copy.to].clone(), copy).await
    }

    async fn arrive_at(&self, route: Route, copy: &Copy) -> MessageKey {
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
        let message = crate::mail::Message::parse(&raw);
        let witness = Witness::Checked(Box::new(copy.facts.clone()));
        let found = NewSenderCheck {
            inbound: id,
            identity: flow::identity(&message),
            wording: flow::wording(&message),
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

    async fn choose(&self, world: &World, chosen: &serde_json::Value) {
        let overrides = Overrides::new(chosen.as_object().unwrap().clone()).unwrap();
        let mut tx = world.store.begin(self.workspace).await.unwrap();
        tx.set_policy("mailweave", &overrides).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A reply address of this participant's in the conversation of a message, towards Ann.
    async fn reply_route(&self, world: &World, message: MessageKey, participant: &str) -> Route {
        let RouteTarget::Capture { user } = self.routes[0].target else { panic!("{:?}", self.routes[0]) };
        let mut tx = world.store.begin(self.workspace).await.unwrap();
        let conversation = tx.message(message).await.unwrap().unwrap().conversation;
        let target =
            RouteTarget::Reply { conversation, participant: address(participant), user, counterpart: None };
        let sealed = Sealed { workspace: self.workspace, target: &target, domain: "reply.example" };
        let id: RouteId = mint();
        let random = blake3::hash(id.to_string().as_bytes()).as_bytes()[..8].try_into().unwrap();
        let keys = world.store.reply_keys().await.unwrap();
        let (local, ends) = keys.mint(sealed, random, flow::now()).unwrap();
        let address = address(&format!("{local}@reply.example"));
        let route = Route { id, workspace: self.workspace, address, target, expires_at: Some(ends) };
        tx.insert_route(&route, flow::now()).await.unwrap();
        tx.commit().await.unwrap();
        route
    }

    async fn is_live(&self, text: &str) -> bool {
        let Ok(address) = Address::parse(text) else { return false };
        self.gateway.live_route(&address, flow::now()).await.unwrap().is_some()
    }

    async fn messages(&self) -> i64 {
        let query = crate::store::sql("select count(*) as messages from messages where workspace = $1");
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.fetch_one(query.bind(self.workspace)).await.unwrap().get("messages").unwrap()
    }
}

/// Addresses near one of ours: each letter changed, left out and doubled, the end cut off, and letters that look alike.
fn guesses(local: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, own) in local.char_indices() {
        let (before, rest) = local.split_at(at);
        let after = rest.strip_prefix(own).unwrap();
        let others = ('0'..='9').chain('a'..='z').filter(|other| *other != own);
        all.extend(others.map(|other| format!("{before}{other}{after}")));
        all.extend([format!("{before}{after}"), format!("{before}{own}{own}{after}"), before.to_owned()]);
        let alike = match own {
            '0' => "\u{3bf}\u{43e}\u{ff10}",
            '1' => "\u{456}\u{ff11}",
            'a' => "\u{430}\u{ff41}",
            'e' => "\u{435}",
            'c' => "\u{441}",
            _ => "",
        };
        all.extend(alike.chars().map(|alike| format!("{before}{alike}{after}")));
    }
    all.extend([format!("{local}+why+why"), format!("\"{local}\"x"), local.chars().rev().collect()]);
    all
}

/// A name server that fails at every name; it ends with this process.
fn failing_name_server() -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            // A response, and SERVFAIL.
            datagram[2] |= 0x80;
            datagram[3] = 0x82;
            drop(socket.send_to(&datagram[..length], from));
        }
    });
    address
}

fn signature(domain: &str, is_aligned: bool, verdict: Check, reason: Option<&str>) -> Signature {
    let reason = reason.map(str::to_owned);
    Signature {
        domain: domain.into(),
        selector: "s1".into(),
        is_aligned,
        signs_to: true,
        signs_cc: true,
        verdict,
        reason,
    }
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
        as_of: flow::now(),
        from: FromField::One(address(author)),
        signatures: vec![signature("acme.example", true, Check::Pass, None)],
        spf: spf("acme.example", true, Check::Pass),
        dmarc: dmarc(Check::Pass, DmarcPolicy::Reject),
        publishes_spf: Some(false),
        arc: ArcChain::NONE,
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
    [
        forged_senders(),
        forged_froms(),
        forged_signatures(),
        insiders(),
        forged_fields(),
        sent_on(),
        poisoned(),
    ]
    .concat()
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

/// Those whose servers send for Ann's domains as well: her colleagues, and everybody who has an address where she has one.
fn insiders() -> Forged {
    let mut all: Forged = Vec::new();
    for domain in EVERYBODYS {
        let anns = format!("ann@{domain}");
        let by_spf = |policy| SenderFacts {
            signatures: Vec::new(),
            spf: spf(domain, true, Check::Pass),
            dmarc: dmarc(if policy == DmarcPolicy::Absent { Check::None } else { Check::Pass }, policy),
            ..genuine(&anns)
        };
        for policy in [DmarcPolicy::Absent, DmarcPolicy::None, DmarcPolicy::Quarantine, DmarcPolicy::Reject] {
            all.push(("C06 a server that everybody sends by", copy(&anns, by_spf(policy))));
            all.push(("C06 the same, to a colleague", Copy { to: 1, ..copy(&anns, by_spf(policy)) }));
        }
        let others = format!("mallory@{domain}");
        let signed =
            SenderFacts { signatures: vec![signature(domain, true, Check::Pass, None)], ..genuine(&others) };
        all.push(("C06 everybody's provider signed it", copy(&format!("\"{anns}\" <{others}>"), signed)));
        let by_customer = signature(&format!("{domain}.hosted.example"), false, Check::Pass, None);
        let hosted = SenderFacts { signatures: vec![by_customer], ..unproven(&anns) };
        all.push(("C06 signed by a customer of her provider", copy(&anns, hosted)));
    }
    let unsigned = |author| SenderFacts { signatures: Vec::new(), ..genuine(author) };
    all.push(("C06 a colleague writes as Ann to himself", Copy { to: 1, ..copy(ANN, unsigned(ANN)) }));
    all.push(("C06 a colleague writes as Ben to Ann", copy(BEN, unsigned(BEN))));
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
            let arc = ArcChain { verdict: Check::Pass, sealers: vec!["evil.example".into()], vouches: true };
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

    async fn in_strict_mode_no_colleague_writes_as_another(world) {
        let office = Office::new(&world).await;
        office.choose(&world, &serde_json::json!({ "trust": "balanced" })).await;
        // Their provider vouches for either: the capture address is what tells them apart, and the mark.
        let at_bens = Copy { to: 1, ..copy(ANN, genuine(ANN)) };
        office.assert_filed(&at_bens, (Level::E2, Some(Mark::ColleaguesAddress))).await;
        office.choose(&world, &serde_json::json!({ "trust": "strict" })).await;
        let again = Copy { to: 1, ..copy(ANN, genuine(ANN)) };
        let held = office.assert_held(&again, "colleagues_address").await;
        assert!(office.state(held).await.1.unwrap().user.is_some(), "it is hers to decide");
    }

    async fn no_address_is_found_by_guessing(world) {
        let office = Office::new(&world).await;
        let begun = office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E2, Some(Mark::NewSendingRoute))).await;
        let reply = office.reply_route(&world, begun, BOB).await;
        let mut guessed = 0;
        for route in [&office.routes[0], &office.routes[1], &reply] {
            assert!(office.is_live(&route.address.to_string()).await);
            // Whoever writes it in capitals means the same one.
            assert!(office.is_live(&route.address.to_string().to_uppercase()).await);
            for guess in guesses(route.address.local()) {
                let domain = route.address.domain();
                assert!(!office.is_live(&format!("{guess}@{domain}")).await, "C08 {guess}@{domain}");
                guessed += 1;
            }
            for domain in ["acme.example", "sub.bcc.example", "bcc.example.evil.example", "xn--bc-fka.example"] {
                assert!(!office.is_live(&format!("{}@{domain}", route.address.local())).await, "C08 {domain}");
            }
        }
        assert!(guessed > 1000, "{guessed}");
    }

    async fn what_a_reply_address_was_not_made_for_it_does_not_take(world) {
        let office = Office::new(&world).await;
        let begun = office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E2, Some(Mark::NewSendingRoute))).await;
        let mut routes = Vec::new();
        for number in 0..50 {
            routes.push(office.reply_route(&world, begun, &format!("p{number}@prospects.example")).await);
        }
        // The name of the one with the proof of the other; 24 letters are name and tag.
        for (one, other) in routes.iter().flat_map(|one| routes.iter().map(move |other| (one, other))) {
            let [name, proof] = [one, other].map(|route| route.address.local().split_at("r1".len() + 24));
            let is_live = office.is_live(&format!("{}{}@reply.example", name.0, proof.1)).await;
            assert_eq!(is_live, one.id == other.id, "C09");
        }
        // The same address, its row written for another participant, another user's, or another workspace's.
        let elsewhere = world.store.begin(world.workspace().await).await.unwrap().workspace();
        let made_for = |changed: fn(&mut RouteTarget)| {
            let mut route = routes[0].clone();
            changed(&mut route.target);
            route
        };
        let keys = world.store.reply_keys().await.unwrap();
        assert!(keys.prove(&routes[0]));
        for crossed in [
            made_for(|target| if let RouteTarget::Reply { participant, .. } = target { *participant = address(ANN) }),
            made_for(|target| if let RouteTarget::Reply { user, .. } = target { *user = mint() }),
            made_for(|target| if let RouteTarget::Reply { counterpart, .. } = target { *counterpart = Some(address(BOB)) }),
            Route { workspace: elsewhere, ..routes[0].clone() },
            Route { address: address(&format!("{}@bcc.example", routes[0].address.local())), ..routes[0].clone() },
        ] {
            assert!(!keys.prove(&crossed), "C09 {crossed:?}");
        }
        let late = flow::now() + SignedDuration::from_hours(402 * 24);
        assert!(office.gateway.live_route(&routes[0].address, late).await.unwrap().is_none(), "C09 expired");
    }

    async fn whoever_learned_a_reply_address_gets_nothing_in(world) {
        let office = Office::new(&world).await;
        let begun = office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E2, Some(Mark::NewSendingRoute))).await;
        let route = office.reply_route(&world, begun, BOB).await;
        let bobs = |facts: SenderFacts| SenderFacts { from: FromField::One(address(BOB)), ..facts };
        let mut forged: Forged = Vec::new();
        for author in ["mallory@evil.example", "bob@evil.example", "bob@prospects.example.evil.example", ANN, BEN] {
            forged.push(("C09 somebody else, proven", copy(author, genuine(author))));
        }
        for (verdict, policy) in UNPROVEN.into_iter().filter(|(verdict, _)| *verdict == Check::Fail) {
            for by in [Check::Pass, Check::Fail, Check::None] {
                let spf = spf("evil.example", false, by);
                let facts = bobs(SenderFacts { spf, dmarc: dmarc(verdict, policy), ..unproven(BOB) });
                forged.push(("C09 in the participant's name", copy(BOB, facts)));
            }
        }
        forged.push((
            "C09 in the name of one whose domain names its servers",
            copy(BOB, bobs(SenderFacts { publishes_spf: Some(true), ..unproven(BOB) })),
        ));
        let broken = vec![signature("prospects.example", true, Check::Fail, Some("the body was changed"))];
        forged.push(("C04 a broken signature", copy(BOB, bobs(SenderFacts { signatures: broken, ..unproven(BOB) }))));
        for (word, from) in [
            ("fields", "bob@prospects.example\r\nFrom: mallory@evil.example"),
            ("mailboxes", "bob@prospects.example, mallory@evil.example"),
        ] {
            let facts = SenderFacts { from: FromField::Ambiguous(word.into()), ..genuine(BOB) };
            forged.push(("C03 a From that is read in two ways", copy(from, facts)));
        }
        for (way, copy) in &forged {
            let id = office.arrive_at(route.clone(), copy).await;
            let (state, held) = office.state(id).await;
            assert_eq!(state, InboundState::Held, "{way}\n{}", copy.header);
            let held = held.unwrap();
            assert!(held.user.is_some() && !held.reason.is_empty(), "{way}: {held:?}");
        }
        assert_eq!(office.messages().await, 1, "what was genuine");
        for _ in 0..30 {
            let signatures = vec![signature("prospects.example", true, Check::Pass, None)];
            let id = office.arrive_at(route.clone(), &copy(BOB, SenderFacts { signatures, ..genuine(BOB) })).await;
            assert_eq!(office.state(id).await.0, InboundState::Filed);
        }
    }

    async fn silence_of_dns_lets_nothing_in(world) {
        let office = Office::new(&world).await;
        let begun = office.assert_filed(&copy(ANN, genuine(ANN)), (Level::E2, Some(Mark::NewSendingRoute))).await;
        let route = office.reply_route(&world, begun, BOB).await;
        let silent = |author: &str, domain: &str| {
            let pending = dmarc(Check::Pending, DmarcPolicy::Absent);
            [
                SenderFacts { signatures: vec![signature(domain, true, Check::Pending, None)], ..unproven(author) },
                SenderFacts { spf: spf(domain, true, Check::Pending), ..unproven(author) },
                SenderFacts { dmarc: pending, ..unproven(author) },
                SenderFacts { publishes_spf: None, ..unproven(author) },
            ]
        };
        for (at, author, domain, rule) in [
            (&office.routes[0], ANN, "acme.example", "dns_unanswered"),
            (&office.routes[1], ANN, "acme.example", "dns_unanswered"),
            (&route, BOB, "prospects.example", "answer_dns_unanswered"),
        ] {
            for facts in silent(author, domain) {
                let waiting = copy(author, facts);
                let id = office.arrive_at(at.clone(), &waiting).await;
                let (state, held) = office.state(id).await;
                assert_eq!(state, InboundState::Pending, "C14");
                let held = held.unwrap();
                assert_eq!(held.state, QuarantineState::Checking, "C14");
                assert!(held.reason.contains("DNS") && held.user.is_some());
                let received_at = flow::now() - SignedDuration::from_hours(25);
                let id = office.arrive_at(at.clone(), &Copy { received_at, text: "Late.".into(), ..waiting }).await;
                let (state, held) = office.state(id).await;
                assert_eq!((state, held.unwrap().rule.as_str()), (InboundState::Held, rule), "C14");
            }
        }
        assert_eq!(office.messages().await, 1, "what was genuine");
    }

    async fn strict_keeps_aside_what_balanced_marks(world) {
        let office = Office::new(&world).await;
        office.choose(&world, &serde_json::json!({ "trust": "strict" })).await;
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
