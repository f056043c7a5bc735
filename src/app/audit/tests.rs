//! A store filled by the real flows is in order; whatever is then broken in it is found.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use secrecy::SecretString;

use super::{sabotage::SABOTAGES, *};
use crate::{
    app::parts,
    config::DomainName,
    core::{
        account::{
            Account, AccountSettings, AccountState, AccountStatus, Credentials, Endpoint, FoundServers,
            Identities, Security,
        },
        ids::{AccountId, ApiKeyId, UserId},
        inbound::{Door, Intake, Principal, SendClass, SendOrder, fingerprint},
        job::{Job, JobKind},
        people::{Role, User, Workspace},
        route::{Route, RouteTarget},
        webhook::Webhook,
    },
    flow::{self, Gateway},
    mail::{Address, Envelope, Recipient, ReversePath},
    store::{
        mint, sql,
        testing::{World, both},
    },
};

const CAPTURE: &str = "ann-secret@bcc.example";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn ours() -> OurDomains {
    OurDomains { capture: Some("bcc.example".into()), reply: Some("reply.example".into()) }
}

async fn gateway(store: &Store) -> Gateway {
    net::install_provider();
    let mut config = Config::default();
    config.domains.capture = ours().capture.as_deref().and_then(DomainName::parse);
    config.domains.reply = ours().reply.as_deref().and_then(DomainName::parse);
    parts::assemble(&config, store.clone()).await.unwrap()
}

/// A workspace in which mail is taken in through every door that needs no provider.
struct Office {
    gateway: Gateway,
    workspace: WorkspaceId,
    user: UserId,
    route: Route,
}

impl Office {
    async fn new(store: &Store, slug: &str) -> Self {
        let now = flow::now();
        let workspace = Workspace {
            id: mint(),
            slug: slug.into(),
            name: slug.into(),
            timezone: "UTC".into(),
            preset: "mailweave".into(),
            policy_version: 1,
            created_at: now,
        };
        let mut system = store.system().await.unwrap();
        system.create_workspace(&workspace).await.unwrap();
        system.commit().await.unwrap();
        let user: UserId = mint();
        let route = Route {
            id: mint(),
            workspace: workspace.id,
            address: address(&format!("{slug}-{CAPTURE}")),
            target: RouteTarget::Capture { user },
            expires_at: None,
        };
        let mut tx = store.begin(workspace.id).await.unwrap();
        tx.insert_user(&User {
            id: user,
            email: address("ann@us.example"),
            name: None,
            aliases: Vec::new(),
            role: Role::Member,
            capture_address: None,
            created_at: now,
        })
        .await
        .unwrap();
        tx.insert_route(&route, now).await.unwrap();
        tx.insert_account(&account(user), &password()).await.unwrap();
        tx.insert_webhook(&Webhook {
            id: mint(),
            url: "https://crm.example/hook".into(),
            events: None,
            secrets: vec![SecretString::from("whsec_x")],
            disabled_at: None,
            disabled_reason: None,
            failing_since: None,
            last_failure: None,
            created_at: now,
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
        Self { gateway: gateway(store).await, workspace: workspace.id, user, route }
    }

    fn capture(&self) -> Door {
        let envelope = Envelope {
            recipients: vec![Recipient::new(self.route.address.clone())],
            ..Envelope::new(ReversePath::Address(address("ann@us.example")))
        };
        Door::Mx {
            routes: vec![self.route.clone()],
            envelope,
            peer: "127.0.0.1".into(),
            hello: String::new(),
        }
    }

    fn submission(&self) -> Door {
        let principal = Principal::Key(mint::<ApiKeyId>());
        let order = SendOrder {
            user: self.user,
            principal,
            class: SendClass::Individual,
            conversation: None,
            api: false,
            key: None,
        };
        let envelope = Envelope {
            recipients: vec![Recipient::new(address("dora@out.example"))],
            ..Envelope::new(ReversePath::Address(address("ann@us.example")))
        };
        Door::Submission { order, envelope }
    }

    async fn take_in(&self, door: Door, raw: &str) {
        let envelope = Envelope::new(ReversePath::Null);
        let raw = Bytes::from(raw.to_owned());
        let fingerprint = fingerprint(&envelope, &raw);
        let intake = Intake { workspace: self.workspace, door, raw, fingerprint };
        self.gateway.store.take_in(intake, mint(), flow::now()).await.unwrap();
    }

    async fn process(&self) {
        let kinds = [JobKind::Process, JobKind::Repeat];
        let lease = Duration::from_secs(60);
        for job in self.gateway.queue.claim(&kinds, flow::now(), lease, 100).await.unwrap() {
            let Job::Process { inbound } = job.job else { panic!("{job:?}") };
            flow::process(&self.gateway, &job, inbound).await.unwrap();
        }
    }
}

fn account(user: UserId) -> Account {
    let endpoint = |port| Endpoint { host: "mail.example".to_owned(), port, security: Security::Tls };
    Account {
        id: mint::<AccountId>(),
        user_id: user,
        email: address("ann@us.example"),
        settings: AccountSettings {
            imap: endpoint(993),
            smtp: endpoint(465),
            provider: None,
            found: FoundServers::default(),
            identities: Identities::default(),
        },
        status: AccountStatus {
            state: AccountState::Active,
            since: flow::now(),
            detail: None,
            advice: None,
            last_synced_at: None,
            last_checked_at: None,
            next_attempt_at: None,
            progress: None,
        },
        sending_refused: None,
        rest: None,
        connected_at: flow::now(),
        generation: 0,
        is_granted: false,
    }
}

fn password() -> Credentials {
    Credentials::Password { username: "ann".to_owned(), password: SecretString::from("s3cret") }
}

fn mail(id: &str, from: &str, to: &str, more: &str) -> String {
    format!(
        "Message-ID: <{id}@us.example>\r\nFrom: {from}\r\nTo: {to}\r\nSubject: Offer\r\n\
         Date: Tue, 1 Apr 2025 10:00:00 +0000\r\n{more}\r\nText of {id}.\r\n"
    )
}

/// Fills two workspaces: a thread of two, a message alone, one held, one on its way out, one not yet read.
async fn fill(world: &World) -> [Office; 2] {
    let offices = [Office::new(&world.store, "one").await, Office::new(&world.store, "two").await];
    let (ann, bob) = ("ann@us.example", "bob@out.example");
    for office in &offices {
        office.take_in(office.capture(), &mail("a", ann, bob, "")).await;
        office.take_in(office.capture(), &mail("b", ann, bob, "In-Reply-To: <a@us.example>\r\n")).await;
        office.take_in(office.capture(), &mail("c", ann, "carl@out.example", "")).await;
        office.take_in(office.capture(), &mail("e", "eve@out.example", bob, "")).await;
        office.take_in(office.submission(), &mail("f", ann, "dora@out.example", "")).await;
        office.process().await;
    }
    for office in &offices {
        office.take_in(office.capture(), &mail("g", ann, bob, "")).await;
    }
    offices
}

/// Adds a message whose content lies in a file of its own: it cannot be compressed.
async fn fill_large(office: &Office) {
    let noise: String = (0..400_000).map(|_| char::from(rand::random_range(b'0'..=b'z'))).collect();
    let more = format!("Content-Type: application/octet-stream\r\n\r\n{noise}");
    office.take_in(office.capture(), &mail("d", "ann@us.example", "dan@out.example", &more)).await;
    office.process().await;
}

async fn audited(world: &World) -> Report {
    audit(&world.store, &ours()).await.unwrap()
}

fn told(report: &Report) -> String {
    let mut text = Vec::new();
    report.write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Breaks a healthy store by one statement and checks that these invariants, at least, are told to be violated.
#[track_caller]
fn check_found(report: &Report, expect: &[&str], how: &str) {
    for name in expect {
        let line = report.lines.iter().find(|line| line.name == *name).expect("an invariant of this name");
        assert!(!line.found.is_empty(), "{how}: {name} was not found\n{}", told(report));
    }
}

both! {
    async fn what_the_flows_have_filed_is_in_order(world) {
        fill(&world).await;
        let report = audited(&world).await;
        assert!(report.is_clean(), "{}", told(&report));
        assert_eq!((report.workspaces, report.messages), (2, 8));
        assert!(told(&report).lines().filter(|line| line.starts_with("ok ")).count() >= 18);
    }

    async fn what_a_hand_has_put_right_is_in_order(world) {
        let [office, _] = fill(&world).await;
        office.process().await;
        let (now, workspace) = (flow::now(), office.workspace);
        let found = async |id: &str| {
            let mut session = world.store.read(workspace).await.unwrap();
            let id = crate::mail::MessageId::parse(&format!("{id}@us.example")).unwrap();
            session.messages_by_rfc822_id(&[id]).await.unwrap().pop().unwrap()
        };
        let (a, b, c) = (found("a").await, found("b").await, found("c").await);
        let leaving = flow::repair::read_leaving(&world.store, workspace, &[b.message]).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        flow::repair::split(&mut tx, a.conversation, &leaving, now).await.unwrap().unwrap();
        let merged = flow::repair::merge(&mut tx, a.conversation, c.conversation, now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let more = "In-Reply-To: <b@us.example>\r\nReferences: <a@us.example> <b@us.example>\r\n";
        office.take_in(office.capture(), &mail("h", "ann@us.example", "bob@out.example", more)).await;
        office.process().await;
        assert_eq!(found("h").await.conversation, found("b").await.conversation);
        let report = audited(&world).await;
        assert!(report.is_clean(), "{}", told(&report));
        let leaving = flow::repair::read_undoing(&world.store, workspace, merged.undo).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        flow::repair::undo(&mut tx, merged.undo, &leaving, now).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let report = audited(&world).await;
        assert!(report.is_clean(), "{}", told(&report));
    }

    async fn a_store_with_nothing_in_it_is_in_order(world) {
        let report = audited(&world).await;
        assert!(report.is_clean() && report.workspaces == 0, "{}", told(&report));
    }
}

#[tokio::test]
async fn whatever_is_broken_by_a_statement_is_found() {
    for (statement, expect) in SABOTAGES {
        let world = World::sqlite().await;
        let [office, _] = fill(&world).await;
        let mut system = world.store.system().await.unwrap();
        for one in statement.split("; ") {
            let changed = system.execute(sql(one.to_owned()).bind(office.workspace)).await.unwrap();
            assert!(changed > 0, "{one}");
        }
        system.commit().await.unwrap();
        check_found(&audited(&world).await, expect, statement);
    }
}

both! {
    async fn what_is_sealed_and_was_altered_is_found(world) {
        let [one, _] = fill(&world).await;
        let mut system = world.store.system().await.unwrap();
        let update = sql("update webhooks set secret = $2 where workspace = $1").bind(one.workspace);
        system.execute(update.bind(vec![1_u8; 64])).await.unwrap();
        system.commit().await.unwrap();
        check_found(&audited(&world).await, &["secrets"], "another secret");
    }

    async fn what_is_sealed_and_was_put_in_anothers_place_is_found(world) {
        let [one, two] = fill(&world).await;
        let mut system = world.store.system().await.unwrap();
        let swap = sql("update webhooks set secret = (select o.secret from webhooks o where o.workspace = $2) \
             where workspace = $1");
        system.execute(swap.bind(one.workspace).bind(two.workspace)).await.unwrap();
        let swap = sql("update accounts set credentials = (select o.credentials from accounts o where o.workspace = $2) \
             where workspace = $1");
        system.execute(swap.bind(one.workspace).bind(two.workspace)).await.unwrap();
        system.commit().await.unwrap();
        let report = audited(&world).await;
        let line = report.lines.iter().find(|line| line.name == "secrets").unwrap();
        assert_eq!(line.found.len(), 2, "{}", told(&report));
    }

    async fn mail_passed_on_to_somebody_whom_no_reply_address_stands_for_is_found(world) {
        let [one, _] = fill(&world).await;
        let mut system = world.store.system().await.unwrap();
        let principal = serde_json::to_string(&Principal::Participant(one.user)).unwrap();
        let passed_on = sql("update submissions set principal = $2 where workspace = $1");
        system.execute(passed_on.bind(one.workspace).bind(principal)).await.unwrap();
        let came = sql("update sightings set via = 'reply' where workspace = $1 and via = 'submission'");
        system.execute(came.bind(one.workspace)).await.unwrap();
        system.commit().await.unwrap();
        let report = audited(&world).await;
        // He stands in the header, but that is a stranger's word.
        check_found(&report, &["recipients"], "a stranger's Cc");
        let line = report.lines.iter().find(|line| line.name == "principals").unwrap();
        assert!(line.found.is_empty(), "{}", told(&report));
    }

    async fn an_order_that_became_two_messages_is_found(world) {
        let [one, _] = fill(&world).await;
        let mut door = one.submission();
        let Door::Submission { order, .. } = &mut door else { unreachable!() };
        order.key = Some(crate::core::inbound::OrderKey { name: [1; 32], content: [2; 32] });
        one.take_in(door, &mail("o", "ann@us.example", "dora@out.example", "")).await;
        one.process().await;
        assert!(audited(&world).await.is_clean(), "{}", told(&audited(&world).await));
        let mut system = world.store.system().await.unwrap();
        let other = sql("update order_keys set message = (select m.id from messages m where m.workspace = $1 \
             and m.rfc822_id = 'a@us.example') where workspace = $1");
        assert_eq!(system.execute(other.bind(one.workspace)).await.unwrap(), 1);
        system.commit().await.unwrap();
        check_found(&audited(&world).await, &["once"], "another message");
    }

    async fn what_names_a_row_of_another_workspace_is_found(world) {
        let [one, two] = fill(&world).await;
        let mut system = world.store.system().await.unwrap();
        let update = sql("update events set conversation = (select conversation from messages where workspace = $1 limit 1) \
             where workspace = $2");
        system.execute(update.bind(one.workspace).bind(two.workspace)).await.unwrap();
        system.commit().await.unwrap();
        let report = audited(&world).await;
        check_found(&report, &["tenancy"], "a conversation of another workspace");
        assert!(told(&report).contains("events.conversation cnv_"), "{}", told(&report));
    }

    async fn a_door_of_another_workspace_is_found(world) {
        let [one, two] = fill(&world).await;
        let mut tx = one.gateway.store.system().await.unwrap();
        let door = serde_json::to_string(&two.capture()).unwrap();
        let update = sql("update inbound set door = $2 where workspace = $1").bind(one.workspace);
        tx.execute(update.bind(door)).await.unwrap();
        tx.commit().await.unwrap();
        check_found(&audited(&world).await, &["tenancy"], "a door of another workspace");
    }

    async fn contents_that_belong_to_nothing_are_found(world) {
        let [one, _] = fill(&world).await;
        let store = &world.store;
        let key = store.content_key(one.workspace, None).await.unwrap();
        let sealed = store.seal_blob(one.workspace, key, &Bytes::from_static(b"nobody's")).await.unwrap();
        let mut tx = store.begin(one.workspace).await.unwrap();
        let orphan = tx.put_sealed_blob(sealed).await.unwrap();
        tx.commit().await.unwrap();
        let report = audited(&world).await;
        check_found(&report, &["blobs"], "a content without a message");
        assert!(told(&report).contains(&format!("blob {orphan}")), "{}", told(&report));
    }
}

/// The only file among the contents of a workspace.
fn content_file(world: &World, workspace: WorkspaceId) -> std::path::PathBuf {
    let directory = world.options.blob_dir.join(workspace.uuid().simple().to_string());
    std::fs::read_dir(directory).unwrap().next().expect("the large message lies in a file").unwrap().path()
}

#[tokio::test]
async fn a_file_that_is_gone_or_belongs_to_nothing_is_found() {
    let world = World::sqlite().await;
    let [one, two] = fill(&world).await;
    fill_large(&one).await;
    fill_large(&two).await;
    assert!(audited(&world).await.is_clean());
    std::fs::remove_file(content_file(&world, one.workspace)).unwrap();
    let stray = content_file(&world, two.workspace).with_file_name(uuid::Uuid::now_v7().simple().to_string());
    std::fs::write(&stray, "left over").unwrap();
    let report = audited(&world).await;
    check_found(&report, &["blobs", "bytes"], "a file that is gone");
    assert!(
        !told(&report).contains(&stray.display().to_string()),
        "it may belong to a transaction under way"
    );

    let long_ago = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    std::fs::File::options().write(true).open(&stray).unwrap().set_modified(long_ago).unwrap();
    let report = audited(&world).await;
    assert!(told(&report).contains(&stray.display().to_string()), "{}", told(&report));
}

#[test]
fn only_the_first_examples_are_shown() {
    let mut report = Report::new();
    for number in 0..20 {
        report.found("keys", format!("msg_{}", number % 15));
    }
    let line = report.lines.iter().find(|line| line.name == "keys").unwrap();
    assert_eq!((line.found.len(), line.more, report.is_clean()), (SHOWN_MAX, true, false));
    assert!(told(&report).contains("VIOLATED  keys"));
    assert!(told(&report).contains("… and more"));
}
