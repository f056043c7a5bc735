//! A gateway in the test's own process: one workspace, one user, one contact, and the user's account at some provider.
//!
//! Not here: the provider.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use mailweave::{
    app,
    config::{Bytes, Config, DomainName},
    core::{
        account::{
            Account, AccountSettings, AccountState, AccountStatus, Credentials, Cursor, Endpoint,
            FoundServers, Identities,
        },
        decision::Decision,
        event::JournalEntry,
        ids::{AccountId, ContactId, MessageKey, UserId, WorkspaceId},
        inbound::{Door, Intake, Principal, SendClass, SendOrder, fingerprint},
        message::{Sighting, StoredMessage},
        people::{Contact, CreatedBy, Role, User, Workspace},
        route::{Route, RouteTarget},
    },
    flow::{Gateway, sync},
    mail::{Address, Envelope, Recipient, ReversePath},
    net,
    store::{DecisionFilter, Page, mint},
    worker,
};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Person, eventually, postgres::Database, store::Engine};

/// A gateway with its workspace.
pub struct Office {
    pub gateway: Gateway,
    pub directory: TempDir,
    _database: Option<Database<'static>>,
    pub workspace: WorkspaceId,
    pub user: UserId,
    pub contact: ContactId,
    pub account: AccountId,
    person: Person,
    pub customer: String,
    imap: Endpoint,
    pub running: Vec<Running>,
}

/// The workers of one process.
pub struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(gateway: &Gateway) -> Self {
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(worker::accounts::run(gateway.clone(), stop.clone())),
            tokio::spawn(worker::jobs::run(gateway.clone(), stop.clone())),
        ];
        Self { stop, tasks }
    }

    /// Ends them in order.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("workers stop in time").unwrap();
        }
    }

    /// Ends them as a crash does: whatever they were doing stops where it is.
    pub async fn crash(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Where the user's account is, and who the contact is.
pub struct Set {
    pub user: Person,
    pub customer: String,
    pub imap: Endpoint,
    /// The certificate, in PEM, of the authority that his provider's is from.
    pub authority: Option<String>,
    pub engine: Engine,
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub fn login(person: &Person) -> Credentials {
    let password = SecretString::from(person.password.clone());
    Credentials::Password { username: person.address.clone(), password }
}

pub fn connecting() -> AccountStatus {
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

/// A message as it lies at a provider, with plain line ends.
pub fn mail(from: &str, to: &str, id: &str, more: &str) -> String {
    let date = jiff::fmt::rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
    format!(
        "From: <{from}>\nTo: <{to}>\nSubject: about {id}\nDate: {date}\nMessage-ID: <{id}@test.example>\n{more}\nBody of {id}.\n"
    )
}

/// The header fields of an answer.
pub fn answering(id: &str) -> String {
    format!("In-Reply-To: <{id}@test.example>\nReferences: <{id}@test.example>\n")
}

/// Waits until mail that arrives from now on cannot be taken for older: INTERNALDATE has seconds.
pub async fn next_second() {
    let second = Timestamp::now().as_second();
    eventually("the next second", PATIENCE, async || Timestamp::now().as_second() > second).await;
}

/// The operator's choices: patient with nobody, so that no test waits for a default deadline.
fn config(directory: &Path, authority: Option<&str>) -> Config {
    let mut config = Config::default();
    config.node.data_dir = directory.to_owned();
    config.domains.capture = DomainName::parse("bcc.example.test");
    config.smtp.hostname = DomainName::parse("gateway.example.test");
    config.smtp.message_bytes_max = Bytes(1024 * 1024);
    config.egress.allow = vec!["127.0.0.0/8".parse().unwrap()];
    config.egress.ca_file = authority.map(|pem| {
        let file = directory.join("ca.pem");
        std::fs::write(&file, pem).unwrap();
        file
    });
    config.sync.poll = Duration::from_secs(1);
    config.sync.progress_timeout = Duration::from_secs(5);
    config.outbound.retry_lifetime = Duration::from_secs(60);
    config.outbound.sent_copy_wait = Duration::from_secs(1);
    config.outbound.reconcile = Vec::new();
    config
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

fn user(email: &str) -> User {
    User {
        id: mint(),
        email: address(email),
        name: None,
        aliases: Vec::new(),
        role: Role::Member,
        capture_address: None,
        created_at: Timestamp::now(),
    }
}

impl Office {
    pub async fn open(set: Set) -> Self {
        let directory = TempDir::new().unwrap();
        let database = set.engine.database();
        let mut config = config(directory.path(), set.authority.as_deref());
        if let Some(database) = &database {
            database.keep_data_of(&mut config, directory.path());
        }
        net::install_provider();
        let gateway = app::gateway(&config).await.unwrap();
        let workspace = workspace(&gateway).await;
        let (user, customer) = (user(&set.user.address), contact(&set.customer));
        let mut tx = gateway.store.begin(workspace).await.unwrap();
        tx.insert_user(&user).await.unwrap();
        tx.insert_contact(&customer).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            gateway,
            directory,
            _database: database,
            workspace,
            user: user.id,
            contact: customer.id,
            account: mint(),
            person: set.user,
            customer: set.customer,
            imap: set.imap,
            running: Vec::new(),
        }
    }

    /// Adds another user, who has no account.
    pub async fn add_user(&self, email: &str) {
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.insert_user(&user(email)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Adds the account with this login, and starts the workers.
    pub async fn connect_with(&mut self, credentials: Credentials) {
        self.add_account(&credentials).await;
        self.start();
    }

    /// Adds the account, with nobody at work.
    pub async fn add_account(&self, credentials: &Credentials) {
        let account = Account {
            id: self.account,
            user_id: self.user,
            email: address(&self.person.address),
            settings: AccountSettings {
                imap: self.imap.clone(),
                smtp: self.imap.clone(),
                provider: None,
                found: FoundServers::default(),
                identities: Identities::default(),
            },
            status: connecting(),
            sending_refused: None,
            rest: None,
            connected_at: Timestamp::now(),
            generation: 0,
            is_granted: false,
        };
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.insert_account(&account, credentials).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The same with the right login, and waits until the account has been read.
    pub async fn connect(&mut self) {
        self.connect_with(login(&self.person)).await;
        self.await_rest().await;
    }

    pub fn start(&mut self) {
        self.running.push(Running::start(&self.gateway));
    }

    /// Starts workers that do jobs and follow no account, as a process without that role has.
    pub fn start_jobs(&mut self) {
        let stop = CancellationToken::new();
        let tasks = vec![tokio::spawn(worker::jobs::run(self.gateway.clone(), stop.clone()))];
        self.running.push(Running { stop, tasks });
    }

    pub async fn stop(&mut self) {
        for running in std::mem::take(&mut self.running) {
            running.stop().await;
        }
    }

    pub async fn crash(&mut self) {
        for running in std::mem::take(&mut self.running) {
            running.crash().await;
        }
    }

    pub fn look_now(&self) {
        sync::look_now(&self.gateway.coord, self.account);
    }

    /// What PATCH does to an account.
    pub async fn renew_login(&self, credentials: &Credentials) {
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.replace_credentials(self.account, credentials).await.unwrap();
        tx.set_account_status(self.account, &connecting()).await.unwrap();
        tx.fence_account(self.account).await.unwrap();
        tx.commit().await.unwrap();
        self.look_now();
    }

    pub async fn status(&self) -> AccountStatus {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.account(self.account).await.unwrap().unwrap().status
    }

    pub async fn await_state(&self, state: AccountState) {
        let what = format!("the account to be {state:?}");
        eventually(&what, PATIENCE, async || self.status().await.state == state).await;
    }

    /// Until the account has been read to its end.
    pub async fn await_rest(&self) {
        use AccountState::{Active, AwaitingFirstMail};
        let rests = async || matches!(self.status().await.state, Active | AwaitingFirstMail);
        eventually("the account to be read", PATIENCE, rests).await;
    }

    /// The codes of the error log and how often each came.
    pub async fn errors(&self) -> Vec<(String, i64)> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let errors = session.account_errors(self.account).await.unwrap();
        errors.into_iter().map(|error| (error.code, error.count)).collect()
    }

    pub async fn events(&self) -> Vec<JournalEntry> {
        self.gateway.store.read(self.workspace).await.unwrap().journal(0, None, 1000).await.unwrap()
    }

    /// How many events of this type there are.
    pub async fn count(&self, kind: &str) -> usize {
        self.events().await.iter().filter(|event| event.kind == kind).count()
    }

    pub async fn await_event(&self, kind: &str, count: usize) {
        eventually(&format!("{count} of {kind}"), PATIENCE, async || self.count(kind).await >= count).await;
        assert_eq!(self.count(kind).await, count, "{kind}");
    }

    /// The messages of the contact.
    pub async fn messages(&self) -> Vec<StoredMessage> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        session.timeline(self.contact, &Page::new(200, None)).await.unwrap()
    }

    pub async fn message(&self, id: &str) -> Option<StoredMessage> {
        let id = format!("{id}@test.example");
        let is_it =
            |message: &StoredMessage| message.rfc822_id.as_ref().is_some_and(|own| own.as_str() == id);
        self.messages().await.into_iter().find(is_it)
    }

    pub async fn await_message(&self, id: &str) -> StoredMessage {
        eventually(&format!("{id} to be filed"), PATIENCE, async || self.message(id).await.is_some()).await;
        self.message(id).await.unwrap()
    }

    pub async fn decisions(&self, id: &str) -> Vec<Decision> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let hash = session.hash_of(&format!("{id}@test.example")).await.unwrap();
        let filter = DecisionFilter { hashes: vec![hash], ..DecisionFilter::default() };
        session.decisions(&Page::new(200, None), &filter).await.unwrap()
    }

    /// How many of the account's decisions this rule made.
    pub async fn decided_by(&self, rule: &str) -> usize {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let filter = DecisionFilter { account: Some(self.account), ..DecisionFilter::default() };
        let decisions = session.decisions(&Page::new(200, None), &filter).await.unwrap();
        decisions.iter().filter(|decision| decision.rule == rule).count()
    }

    pub async fn await_decision(&self, id: &str, rule: &str) {
        let is_decided = async || self.decisions(id).await.iter().any(|decision| decision.rule == rule);
        eventually(&format!("{id} to be decided by {rule}"), PATIENCE, is_decided).await;
    }

    pub async fn sightings(&self, message: &StoredMessage) -> Vec<Sighting> {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let found = session.sightings(&[message.id]).await.unwrap();
        found[&message.id].iter().map(|row| row.sighting.clone()).collect()
    }

    pub async fn cursor(&self, name: &str) -> Cursor {
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let mailboxes = session.mailboxes(self.account).await.unwrap();
        mailboxes.iter().find(|mailbox| mailbox.name == name.as_bytes()).unwrap().cursor
    }

    /// Lets go of the account in the place of a process that cannot any more, as time would.
    pub async fn free_lease(&self) {
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.fence_account(self.account).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Moves a cursor past what the server has, as if the server had forgotten its latest mail.
    pub async fn pretend_read_on(&self, name: &str, messages: u32) {
        let mut cursor = self.cursor(name).await;
        cursor.last_uid += messages;
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        tx.advance_cursor(self.account, name.as_bytes(), &cursor, Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Takes in a copy that the user sent to his capture address, as the MX listener does.
    pub async fn capture(&self, message: &str) {
        let capture = address("ann-0123456789abcdef@bcc.example.test");
        let target = RouteTarget::Capture { user: self.user };
        let (workspace, address) = (self.workspace, capture.clone());
        let route = Route { id: mint(), workspace, address, target, expires_at: None };
        let mut envelope = Envelope::new(ReversePath::Address(self::address(&self.person.address)));
        envelope.recipients.push(Recipient::new(capture));
        let raw = bytes::Bytes::from(message.replace('\n', "\r\n"));
        let fingerprint = fingerprint(&envelope, &raw);
        let door = Door::Mx { routes: vec![route], envelope, peer: "127.0.0.1".into(), hello: String::new() };
        let intake = Intake { workspace: self.workspace, door, raw, fingerprint };
        self.gateway.store.take_in(intake, mint(), Timestamp::now()).await.unwrap();
    }

    /// Takes in what the CRM hands in for the user, as the submission listener does once it has found a way out. Returns the
    /// key it is known by.
    pub async fn hand_in(&self, to: &str, message: &str) -> MessageKey {
        let mut envelope = Envelope::new(ReversePath::Address(address(&self.person.address)));
        envelope.recipients.push(Recipient::new(address(to)));
        let raw = bytes::Bytes::from(message.replace('\n', "\r\n"));
        let fingerprint = fingerprint(&envelope, &raw);
        let order = SendOrder {
            user: self.user,
            principal: Principal::Admin,
            class: SendClass::Individual,
            conversation: None,
            api: false,
            key: None,
        };
        let intake = Intake {
            workspace: self.workspace,
            door: Door::Submission { order, envelope },
            raw,
            fingerprint,
        };
        self.gateway.store.take_in(intake, mint(), Timestamp::now()).await.unwrap().id
    }
}

async fn workspace(gateway: &Gateway) -> WorkspaceId {
    let workspace = Workspace {
        id: mint(),
        slug: "acme".into(),
        name: "Acme".into(),
        timezone: "UTC".into(),
        preset: "mailweave".into(),
        policy_version: 1,
        created_at: Timestamp::now(),
    };
    let mut system = gateway.store.system().await.unwrap();
    system.create_workspace(&workspace).await.unwrap();
    system.commit().await.unwrap();
    workspace.id
}
