//! Accounts at a real Dovecot: what arrives there reaches the conversation, once, and nothing else leaves a trace.
//!
//! Not here: servers that misbehave (`flow::sync`'s own dialogues), and sending.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is an answer")]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    account::ProviderDialer,
    coord::Coord,
    core::{
        account::{Account, AccountSettings, AccountState, AccountStatus, Credentials, Endpoint, Security},
        attribution::OurDomains,
        decision::{Decision, Verdict},
        event::JournalEntry,
        ids::{AccountId, ContactId, UserId, WorkspaceId},
        inbound::{Door, Intake, fingerprint},
        message::{Direction, StoredMessage},
        people::{Contact, CreatedBy, Role, User, Workspace},
        route::{Route, RouteTarget},
    },
    flow::{Gateway, Settings, sync},
    imap,
    mail::{Address, Envelope, Recipient, ReversePath},
    net::{Dialer, Egress, Resolver},
    queue::Queue,
    smtp,
    store::{DecisionFilter, MasterKey, Options, Page, Store, mint},
    webhook::{Poster, Resolve},
    worker,
};
use secrecy::SecretString;
use support::{
    PATIENCE, Person,
    dovecot::{self, Dovecot},
    eventually,
    postgres::{Database, Postgres},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A gateway with one workspace, whose user 1 has an account at a Dovecot and whose customer 1 is a contact.
struct World {
    dovecot: Dovecot,
    gateway: Gateway,
    directory: TempDir,
    _database: Option<Database<'static>>,
    workspace: WorkspaceId,
    user: UserId,
    contact: ContactId,
    account: AccountId,
    running: Vec<Running>,
}

/// The workers of one process.
struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(gateway: &Gateway) -> Self {
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(worker::accounts::run(gateway.clone(), stop.clone())),
            tokio::spawn(worker::jobs::run(gateway.clone(), stop.clone())),
        ];
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("workers stop in time").unwrap();
        }
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn dialer(authority: &support::tls::Authority) -> ProviderDialer {
    let egress = Egress::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let tls = authority.client_config();
    let net = Dialer::new(Resolver::new(&[]).unwrap(), egress, tls, Duration::from_secs(10));
    ProviderDialer::new(net, imap::Limits::default(), imap::Deadlines::default(), smtp::Timeouts::default())
}

async fn gateway(url: &str, directory: &Path, dovecot: &Dovecot) -> Gateway {
    let options = Options {
        url: url.to_owned(),
        blob_dir: directory.join("blobs"),
        master_key: MasterKey::from_bytes([7; 32]),
    };
    let store = Store::open(&options).await.unwrap();
    let nowhere = Resolve::new(|_| Box::pin(std::future::ready(Ok(Vec::new()))));
    Gateway {
        queue: Queue::new(store.clone()),
        coord: Coord::local(),
        dialer: dialer(&dovecot.authority),
        webhooks: Poster::new(nowhere, &dovecot.authority.client_config()).unwrap(),
        followers: sync::Followers::new(20),
        settings: Arc::new(Settings {
            hostname: "gateway.example.test".into(),
            ours: OurDomains { capture: Some("bcc.example.test".into()), reply: None },
            loop_key: [9; 32],
            submission_lifetime: Duration::from_secs(60),
            reconcile_waits: Vec::new(),
            sent_copy_wait: Duration::from_secs(1),
            sync_poll: Duration::from_secs(1),
            idle_renew: Duration::from_secs(540),
            message_bytes_max: 25 * 1024 * 1024,
            accounts_max: 100,
        }),
        store,
    }
}

fn account_of(user: UserId, person: &Person, dovecot: &Dovecot) -> Account {
    let imap = Endpoint { host: "localhost".into(), port: dovecot.imaps.port(), security: Security::Tls };
    let smtp = Endpoint { host: "localhost".into(), port: 1, security: Security::None };
    Account {
        id: mint(),
        user_id: user,
        email: address(&person.address),
        settings: AccountSettings { imap, smtp },
        status: connecting(),
        connected_at: Timestamp::now(),
    }
}

fn connecting() -> AccountStatus {
    AccountStatus {
        state: AccountState::Connecting,
        since: Timestamp::now(),
        detail: None,
        advice: None,
        last_synced_at: None,
        last_checked_at: None,
        next_attempt_at: None,
        progress: None,
    }
}

fn login(person: &Person) -> Credentials {
    let password = SecretString::from(person.password.clone());
    Credentials::Password { username: person.address.clone(), password }
}

fn contact(email: &str) -> Contact {
    Contact {
        id: mint(),
        email: address(email),
        name: None,
        other_emails: Vec::new(),
        assigned_user_id: None,
        external_id: None,
        related_contact_ids: Vec::new(),
        metadata: serde_json::json!({}),
        created_by: CreatedBy::Api,
        created_at: Timestamp::now(),
    }
}

/// A message as it lies at a provider.
fn mail(from: &str, to: &str, id: &str, more: &str) -> String {
    let date = jiff::fmt::rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
    format!(
        "From: <{from}>\nTo: <{to}>\nSubject: about {id}\nDate: {date}\nMessage-ID: <{id}@test.example>\n{more}\nBody of {id}.\n"
    )
}

fn answering(id: &str) -> String {
    format!("In-Reply-To: <{id}@test.example>\nReferences: <{id}@test.example>\n")
}

impl World {
    async fn new() -> Self {
        Self::at(Dovecot::start()).await
    }

    async fn at(dovecot: Dovecot) -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite://{}/mailweave.db", directory.path().display());
        Self::build(dovecot, directory, &url, None).await
    }

    async fn on_postgres() -> Self {
        let database = Postgres::shared().database();
        let url = database.url();
        Self::build(Dovecot::start(), TempDir::new().unwrap(), &url, Some(database)).await
    }

    async fn build(
        dovecot: Dovecot,
        directory: TempDir,
        url: &str,
        database: Option<Database<'static>>,
    ) -> Self {
        let gateway = gateway(url, directory.path(), &dovecot).await;
        let workspace: WorkspaceId = mint();
        let mut system = gateway.store.system().await.unwrap();
        let row = Workspace {
            id: workspace,
            slug: "acme".into(),
            name: "Acme".into(),
            timezone: "UTC".into(),
            preset: "mailweave".into(),
            policy_version: 1,
            created_at: Timestamp::now(),
        };
        system.create_workspace(&row).await.unwrap();
        system.commit().await.unwrap();
        let person = dovecot.user(1);
        let user = User {
            id: mint(),
            email: address(&person.address),
            name: None,
            aliases: Vec::new(),
            role: Role::Member,
            capture_address: None,
            created_at: Timestamp::now(),
        };
        let customer = contact(&dovecot.customer(1).address);
        let account = account_of(user.id, &person, &dovecot);
        let mut tx = gateway.store.begin(workspace).await.unwrap();
        tx.insert_user(&user).await.unwrap();
        tx.insert_contact(&customer).await.unwrap();
        tx.commit().await.unwrap();
        let ids = (user.id, customer.id, account.id);
        Self {
            dovecot,
            gateway,
            directory,
            _database: database,
            workspace,
            user: ids.0,
            contact: ids.1,
            account: ids.2,
            running: Vec::new(),
        }
    }

    /// Connects the user's account with this login, and starts the workers.
    async fn connect_with(&mut self, credentials: Credentials) {
        let mut account = account_of(self.user, &self.dovecot.user(1), &self.dovecot);
        account.id = self.account;
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.insert_account(&account, &credentials).await.unwrap();
        tx.commit().await.unwrap();
        self.start();
    }

    async fn connect(&mut self) {
        self.connect_with(login(&self.dovecot.user(1))).await;
        self.await_rest().await;
    }

    fn start(&mut self) {
        self.running.push(Running::start(&self.gateway));
    }

    async fn stop(&mut self) {
        for running in std::mem::take(&mut self.running) {
            running.stop().await;
        }
    }

    async fn status(&self) -> AccountStatus {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.account(self.account).await.unwrap().unwrap().status
    }

    async fn await_state(&self, state: AccountState) {
        eventually(&format!("the account to be {state:?}"), PATIENCE, async || {
            self.status().await.state == state
        })
        .await;
    }

    /// Until the account has been read to its end.
    async fn await_rest(&self) {
        use AccountState::{Active, AwaitingFirstMail};
        eventually("the account to be read", PATIENCE, async || {
            matches!(self.status().await.state, Active | AwaitingFirstMail)
        })
        .await;
    }

    async fn events(&self) -> Vec<JournalEntry> {
        self.gateway.store.read(self.workspace).await.unwrap().journal(0, None, 1000).await.unwrap()
    }

    /// How many events of this type there are.
    async fn count(&self, kind: &str) -> usize {
        self.events().await.iter().filter(|event| event.kind == kind).count()
    }

    async fn await_event(&self, kind: &str, count: usize) {
        eventually(&format!("{count} of {kind}"), PATIENCE, async || self.count(kind).await >= count).await;
        assert_eq!(self.count(kind).await, count, "{kind}");
    }

    async fn messages(&self) -> Vec<StoredMessage> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.timeline(self.contact, &Page::new(200, None)).await.unwrap()
    }

    async fn message(&self, id: &str) -> Option<StoredMessage> {
        let id = format!("{id}@test.example");
        let is_it =
            |message: &StoredMessage| message.rfc822_id.as_ref().is_some_and(|own| own.as_str() == id);
        self.messages().await.into_iter().find(is_it)
    }

    async fn await_message(&self, id: &str) -> StoredMessage {
        eventually(&format!("{id} to be filed"), PATIENCE, async || self.message(id).await.is_some()).await;
        self.message(id).await.unwrap()
    }

    async fn decisions(&self, id: &str) -> Vec<Decision> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let hash = session.hash_of(&format!("{id}@test.example")).await.unwrap();
        let filter = DecisionFilter { hashes: vec![hash], ..DecisionFilter::default() };
        session.decisions(&Page::new(200, None), &filter).await.unwrap()
    }

    async fn await_decision(&self, id: &str, rule: &str) {
        eventually(&format!("{id} to be decided by {rule}"), PATIENCE, async || {
            self.decisions(id).await.iter().any(|decision| decision.rule == rule)
        })
        .await;
    }

    /// A customer writes to the user.
    fn receive(&self, id: &str, more: &str) {
        let (customer, user) = (self.dovecot.customer(1), self.dovecot.user(1));
        self.receive_from(&customer.address, &user, &mail(&customer.address, &user.address, id, more));
    }

    fn receive_from(&self, from: &str, user: &Person, message: &str) {
        self.dovecot.deliver(from, user, message).unwrap();
    }

    /// The user's mail program files what he sent.
    fn file_sent(&self, to: &str, id: &str, more: &str) {
        let user = self.dovecot.user(1);
        let message = mail(&user.address, to, id, more);
        self.dovecot.login(&user).append("Sent", "\\Seen", &message);
    }

    async fn sightings(&self, message: &StoredMessage) -> Vec<&'static str> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let found = session.sightings(&[message.id]).await.unwrap();
        found[&message.id].iter().map(|row| row.sighting.via()).collect()
    }

    /// Takes in a copy that the user sent to his capture address, as the MX listener does.
    async fn capture(&self, message: &str) {
        let capture = address("ann-0123456789abcdef@bcc.example.test");
        let target = RouteTarget::Capture { user: self.user };
        let route = Route {
            id: mint(),
            workspace: self.workspace,
            address: capture.clone(),
            target,
            expires_at: None,
        };
        let from = address(&self.dovecot.user(1).address);
        let mut envelope = Envelope::new(ReversePath::Address(from));
        envelope.recipients.push(Recipient::new(capture));
        let raw = bytes::Bytes::from(message.replace('\n', "\r\n"));
        let intake = Intake {
            workspace: self.workspace,
            fingerprint: fingerprint(&envelope, &raw),
            door: Door::Mx { routes: vec![route], envelope, peer: "192.0.2.1".into() },
            raw,
        };
        self.gateway.store.take_in(intake, mint(), Timestamp::now()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_look_announces_nothing_that_was_there_before() {
    let mut world = World::new().await;
    world.receive("old", "");
    world.file_sent(&world.dovecot.customer(1).address, "older", "");
    let stranger = mail("x@elsewhere.test", &world.dovecot.user(1).address, "private", "");
    world.receive_from("x@elsewhere.test", &world.dovecot.user(1), &stranger);
    // INTERNALDATE has seconds: what comes within the second of connecting could be either.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.connect().await;
    world.await_event("backfill.completed", 1).await;
    let old = world.await_message("old").await;
    assert_eq!(old.direction, Direction::Inbound);
    assert_eq!(world.await_message("older").await.direction, Direction::Outbound);
    let kinds: Vec<String> = world.events().await.into_iter().map(|event| event.kind).collect();
    let foreign: Vec<&String> =
        kinds.iter().filter(|kind| !kind.starts_with("account.") && !kind.starts_with("backfill.")).collect();
    assert!(foreign.is_empty(), "{kinds:?}");
    world.await_event("account.connected", 1).await;
    world.await_event("account.active", 1).await;
    assert_eq!(world.status().await.state, AccountState::Active);
}

/// The story that the product is about, on any engine.
async fn a_correspondence(mut world: World) {
    world.connect().await;
    world.receive("question", "");
    let question = world.await_message("question").await;
    world.await_event("message.received", 1).await;
    world.file_sent(&world.dovecot.customer(1).address, "answer", &answering("question"));
    let answer = world.await_message("answer").await;
    world.await_event("message.sent", 1).await;
    world.receive("thanks", &answering("answer"));
    let thanks = world.await_message("thanks").await;
    world.await_event("message.received", 2).await;
    let conversations = [&question, &answer, &thanks].map(|message| message.conversation);
    assert!(conversations.iter().all(|id| *id == question.conversation), "{conversations:?}");
    assert_eq!(
        [&question, &answer].map(|message| message.direction),
        [Direction::Inbound, Direction::Outbound]
    );
    assert_eq!(world.sightings(&answer).await, ["account"]);
    assert_eq!(world.count("conversation.created").await, 1);
    assert!(world.status().await.last_synced_at.is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contacts_question_and_the_users_own_answer_are_one_conversation() {
    a_correspondence(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contacts_question_and_the_users_own_answer_are_one_conversation_on_postgresql() {
    a_correspondence(World::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_idle_notify_or_condstore_is_polled() {
    let options = dovecot::Options {
        capabilities: Some("IMAP4rev1 LITERAL+ SPECIAL-USE AUTH=PLAIN".into()),
        ..dovecot::Options::default()
    };
    a_correspondence(World::at(Dovecot::with(options)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_filed_within_a_second_of_its_arrival() {
    let mut world = World::new().await;
    world.connect().await;
    world.receive("warm-up", "");
    world.await_message("warm-up").await;
    world.receive("reply", "");
    let delivered = std::time::Instant::now();
    world.await_message("reply").await;
    assert!(delivered.elapsed() < Duration::from_secs(1), "{:?}", delivered.elapsed());
}

fn holds(directory: &Path, canary: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, canary);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_mail_leaves_a_decision_and_not_one_byte() {
    let mut world = World::new().await;
    world.connect().await;
    let user = world.dovecot.user(1);
    let private = mail("canary@private.test", &user.address, "canary-id", "X-Canary: canary-header\n")
        .replace("about", "canary-subject")
        .replace("Body", "canary-body");
    world.receive_from("canary@private.test", &user, &private);
    world.await_decision("canary-id", "no_contact").await;
    // What is written later is on disk later: then the private mail would have been, too.
    world.receive("afterwards", "");
    world.await_message("afterwards").await;
    let decisions = world.decisions("canary-id").await;
    assert_eq!(decisions.len(), 1);
    assert_eq!((decisions[0].verdict, decisions[0].account), (Verdict::Skipped, Some(world.account)));
    world.stop().await;
    assert!(holds(world.directory.path(), b"afterwards"), "the search finds what is there");
    assert!(!holds(world.directory.path(), b"canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_left_alone() {
    let mut world = World::new().await;
    world.connect().await;
    let (user, customer) = (world.dovecot.user(1), world.dovecot.customer(1));
    let draft = mail(&user.address, &customer.address, "draft", "");
    world.dovecot.login(&user).append("Sent", "\\Draft", &draft);
    world.await_decision("draft", "draft").await;
    assert!(world.message("draft").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renumbered_mailboxes_are_healed_in_silence() {
    let mut world = World::new().await;
    world.connect().await;
    for id in ["one", "two"] {
        world.receive(id, "");
        world.await_message(id).await;
    }
    let user = world.dovecot.user(1);
    let stranger = mail("x@elsewhere.test", &user.address, "private", "");
    world.receive_from("x@elsewhere.test", &user, &stranger);
    world.await_decision("private", "no_contact").await;
    let (events, before) = (world.events().await.len(), world.cursor("INBOX").await);
    world.renumber();
    eventually("new UIDs", PATIENCE, async || {
        world.cursor("INBOX").await.uid_validity != before.uid_validity
    })
    .await;
    world.await_rest().await;
    let after = world.cursor("INBOX").await;
    for id in ["one", "two"] {
        let message = world.message(id).await.unwrap();
        let mut session = world.gateway.store.read(world.workspace).await.unwrap();
        let found = session.sightings(&[message.id]).await.unwrap();
        let places: Vec<_> = found[&message.id]
            .iter()
            .filter_map(|row| match &row.sighting {
                mailweave::core::message::Sighting::Account(at) => Some(at.uid_validity),
                _ => None,
            })
            .collect();
        assert_eq!(places, [after.uid_validity], "{id} is where it is now, and nowhere else");
    }
    assert_eq!(world.decisions("private").await.len(), 1);
    assert_eq!(world.messages().await.len(), 2);
    let new: Vec<String> = world.events().await.into_iter().skip(events).map(|event| event.kind).collect();
    assert!(new.iter().all(|kind| kind.starts_with("account.")), "{new:?}");
    // And it goes on from there.
    world.receive("three", "");
    world.await_message("three").await;
    world.await_event("message.received", 3).await;
}

impl World {
    async fn cursor(&self, name: &str) -> mailweave::core::account::Cursor {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let mailboxes = session.mailboxes(self.account).await.unwrap();
        mailboxes.iter().find(|mailbox| mailbox.name == name.as_bytes()).unwrap().cursor
    }

    /// Loses the provider's own index of the user's mail, so that it hands out new UIDs.
    fn renumber(&mut self) {
        self.dovecot.server.halt();
        let home = self.dovecot.server.dir().join("mail/users.example.test/user1/Maildir");
        for entry in std::fs::read_dir(&home).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("dovecot") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        self.dovecot.resume();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_waits_for_the_user_and_a_right_one_helps() {
    let mut world = World::new().await;
    let wrong = Person { password: "wrong".into(), ..world.dovecot.user(1) };
    world.connect_with(login(&wrong)).await;
    world.await_state(AccountState::ReauthRequired).await;
    let status = world.status().await;
    assert!(status.advice.is_some() && status.detail.is_some() && status.next_attempt_at.is_none());
    world.await_event("account.reauth_required", 1).await;
    let mut session = world.gateway.store.read(world.workspace).await.unwrap();
    let errors = session.account_errors(world.account).await.unwrap();
    assert_eq!(
        errors.iter().map(|error| (error.code.as_str(), error.count)).collect::<Vec<_>>(),
        [("credentials", 1)]
    );
    drop(session);
    // What PATCH does.
    let mut tx = world.gateway.store.begin(world.workspace).await.unwrap();
    tx.replace_credentials(world.account, &login(&world.dovecot.user(1))).await.unwrap();
    tx.set_account_status(world.account, &connecting()).await.unwrap();
    tx.fence_account(world.account).await.unwrap();
    tx.commit().await.unwrap();
    sync::look_now(&world.gateway.coord, world.account);
    world.await_rest().await;
    world.await_event("account.connected", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_is_told_once_and_found_again() {
    let mut world = World::new().await;
    world.connect().await;
    world.dovecot.server.halt();
    world.await_state(AccountState::Error).await;
    let status = world.status().await;
    assert!(status.next_attempt_at.is_some_and(|at| at > Timestamp::now() - SignedDuration::from_secs(5)));
    world.await_event("account.error", 1).await;
    world.dovecot.resume();
    world.receive("meanwhile", "");
    sync::look_now(&world.gateway.coord, world.account);
    world.await_message("meanwhile").await;
    world.await_event("message.received", 1).await;
    world.await_rest().await;
    world.await_event("account.connected", 2).await;
    assert_eq!(world.count("account.error").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_turns_out_to_belong_is_fetched_again() {
    let mut world = World::new().await;
    world.connect().await;
    let (user, stranger) = (world.dovecot.user(1), "new@prospect.test");
    // The user writes to somebody whom the CRM does not know; the answer comes before the capture is processed.
    let offer = mail(&user.address, stranger, "offer", "");
    world.dovecot.login(&user).append("Sent", "\\Seen", &offer);
    world.await_decision("offer", "no_contact").await;
    let reply = mail(stranger, &user.address, "reply", &answering("offer"));
    world.receive_from(stranger, &user, &reply);
    world.await_decision("reply", "no_contact").await;
    world.capture(&offer).await;
    world.await_event("message.captured", 1).await;
    world.await_event("message.received", 1).await;
    world.await_decision("reply", "contact_wrote").await;
    eventually("the Sent copy to be one more sighting", PATIENCE, async || {
        world.decisions("offer").await.iter().any(|decision| decision.rule == "wrote_to_contact")
    })
    .await;
    assert_eq!(world.count("message.sent").await, 0);
    assert_eq!(world.count("conversation.created").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_an_account_without_doing_anything_twice() {
    let mut world = World::on_postgres().await;
    world.connect().await;
    let other =
        Gateway { followers: sync::Followers::new(20), coord: Coord::local(), ..world.gateway.clone() };
    world.running.push(Running::start(&other));
    for id in ["one", "two", "three"] {
        world.receive(id, "");
        world.await_message(id).await;
    }
    // The first one leaves in order: the other takes over at once.
    world.running.remove(0).stop().await;
    world.receive("four", "");
    world.await_message("four").await;
    world.await_event("message.received", 4).await;
    assert_eq!(world.count("account.connected").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_is_read_in_chunks_and_new_mail_does_not_wait_for_it() {
    let mut world = World::new().await;
    let (user, customer) = (world.dovecot.user(1), world.dovecot.customer(1));
    let mut imap = world.dovecot.login(&user);
    for number in 0..250 {
        let from = if number % 50 == 0 { customer.address.as_str() } else { "x@elsewhere.test" };
        imap.append("INBOX", "", &mail(from, &user.address, &format!("old-{number}"), ""));
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.connect_with(login(&user)).await;
    world.await_event("account.connected", 1).await;
    world.receive("new", "");
    world.await_event("message.received", 1).await;
    world.await_event("backfill.completed", 1).await;
    assert_eq!(world.messages().await.len(), 6);
    let done = world.events().await.into_iter().find(|event| event.kind == "backfill.completed").unwrap();
    assert_eq!((done.data["done"].as_u64(), done.data["total"].as_u64()), (Some(250), Some(250)));
    let mut session = world.gateway.store.read(world.workspace).await.unwrap();
    let filter = DecisionFilter { account: Some(world.account), ..DecisionFilter::default() };
    assert_eq!(session.decisions(&Page::new(200, None), &filter).await.unwrap().len(), 200);
}
