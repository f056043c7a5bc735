//! What every verb does, said once and checked on both engines.
//!
//! Not here: the engines themselves (grouped commits, locks, sealing), which have tests beside them.

mod accounts;
mod erase;
mod grants;
mod isolation;
mod journal;
mod limits;
mod outbound;
mod people;
mod policies;
mod sync;
mod threads;
mod trail;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{Error, Page, Session, Store, Tx, mint, testing::World};
use crate::{
    core::{
        account::{
            Account, AccountSettings, AccountState, AccountStatus, Backfill, Credentials, Cursor, Endpoint,
            FollowedMailbox, FoundServers, Identities, MailboxRole, MailboxUid, Security,
        },
        ids::{AccountId, ConversationId, UserId, WorkspaceId},
        message::{Author, Conversation, Direction, ForwardedBy, Parties, StoredMessage},
        people::{Contact, CreatedBy, Role, User, Workspace},
        webhook::Webhook,
    },
    mail::{Address, Kind, MessageId, Party, forward::Certainty},
};

/// The time, `seconds` after the tests' epoch.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn message_id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

fn all() -> Page {
    Page::new(200, None)
}

/// The constraint an error names.
#[track_caller]
fn conflict<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Err(Error::Conflict { what }) => what,
        other => panic!("no conflict: {other:?}"),
    }
}

#[track_caller]
fn missing<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Missing)), "not missing: {result:?}");
}

/// A new workspace of a store.
async fn workspace(store: &Store, slug: &str) -> WorkspaceId {
    let workspace = a_workspace(slug);
    let mut system = store.system().await.unwrap();
    system.create_workspace(&workspace).await.unwrap();
    system.commit().await.unwrap();
    workspace.id
}

/// A workspace to work in.
struct Place {
    store: Store,
    id: WorkspaceId,
}

impl Place {
    async fn new(world: &World) -> Self {
        Self { store: world.store.clone(), id: world.workspace().await }
    }

    async fn tx(&self) -> Tx {
        self.store.begin(self.id).await.unwrap()
    }

    async fn read(&self) -> Session {
        self.store.read(self.id).await.unwrap()
    }

    async fn user(&self, email: &str) -> UserId {
        let user = a_user(email);
        let mut tx = self.tx().await;
        tx.insert_user(&user).await.unwrap();
        tx.commit().await.unwrap();
        user.id
    }

    async fn account(&self, email: &str) -> AccountId {
        let account = an_account(self.user(email).await, email);
        let mut tx = self.tx().await;
        tx.insert_account(&account, &password("s3cret")).await.unwrap();
        tx.commit().await.unwrap();
        account.id
    }

    async fn conversation(&self, created_at: i64) -> ConversationId {
        let conversation = a_conversation(created_at);
        let mut tx = self.tx().await;
        tx.insert_conversation(&conversation).await.unwrap();
        tx.commit().await.unwrap();
        conversation.id
    }

    /// A message filed in a conversation as flows file one.
    async fn message(&self, conversation: ConversationId, sent_at: i64) -> StoredMessage {
        let mut tx = self.tx().await;
        let mut message = a_message(conversation, sent_at);
        message.conversation = tx.insert_message(&message).await.unwrap().expect("a new message");
        tx.touch_conversation(message.conversation, message.sent_at).await.unwrap();
        tx.commit().await.unwrap();
        message
    }
}

fn a_workspace(slug: &str) -> Workspace {
    Workspace {
        id: mint(),
        slug: slug.to_owned(),
        name: "Acme".to_owned(),
        timezone: "Europe/Prague".to_owned(),
        preset: "mailweave".to_owned(),
        policy_version: 1,
        created_at: at(0),
    }
}

fn a_user(email: &str) -> User {
    User {
        id: mint(),
        email: address(email),
        name: Some("Ann Lee".to_owned()),
        aliases: Vec::new(),
        role: Role::Member,
        capture_address: None,
        created_at: at(0),
    }
}

fn a_contact(email: &str, created_at: i64) -> Contact {
    Contact {
        id: mint(),
        email: address(email),
        name: None,
        other_emails: Vec::new(),
        assigned_user_id: None,
        external_id: None,
        related_contact_ids: Vec::new(),
        metadata: json!({ "stage": "lead" }),
        created_by: CreatedBy::Api,
        created_at: at(created_at),
    }
}

fn an_account(user: UserId, email: &str) -> Account {
    let endpoint = |port| Endpoint { host: "mail.example".to_owned(), port, security: Security::Tls };
    Account {
        id: mint(),
        user_id: user,
        email: address(email),
        settings: AccountSettings {
            imap: endpoint(993),
            smtp: endpoint(465),
            provider: None,
            found: FoundServers::default(),
            identities: Identities::default(),
        },
        status: AccountStatus {
            state: AccountState::Connecting,
            since: at(1),
            detail: None,
            advice: None,
            last_synced_at: None,
            last_checked_at: None,
            next_attempt_at: None,
            progress: None,
        },
        sending_refused: None,
        rest: None,
        connected_at: at(1),
        generation: 0,
        is_granted: false,
    }
}

fn password(secret: &str) -> Credentials {
    Credentials::Password { username: "ann".to_owned(), password: SecretString::from(secret) }
}

fn secret_of(credentials: &Credentials) -> &str {
    let Credentials::Password { password, .. } = credentials else { panic!("no password") };
    password.expose_secret()
}

fn a_mailbox(name: &str, uid_validity: u64) -> FollowedMailbox {
    FollowedMailbox {
        name: name.as_bytes().to_vec(),
        role: MailboxRole::Inbox,
        cursor: Cursor { uid_validity, last_uid: 10, modseq: u64::from(u32::MAX) * 9 },
        backfill: Backfill { next_uid: 10, done: 0, total: 9 },
        checked_at: at(2),
    }
}

fn a_conversation(created_at: i64) -> Conversation {
    Conversation {
        id: mint(),
        subject: Some("Offer 100% off".to_owned()),
        contact: None,
        created_at: at(created_at),
        last_message_at: at(created_at),
        message_count: 0,
        merged_into: None,
        related_to: None,
    }
}

fn a_message(conversation: ConversationId, sent_at: i64) -> StoredMessage {
    let id: crate::core::ids::MessageKey = mint();
    let ann = Party::new(address("Ann@example.com"), Some("Ann Lee"));
    StoredMessage {
        id,
        identity: *blake3::hash(id.to_string().as_bytes()).as_bytes(),
        rfc822_id: Some(message_id(&format!("{id}@example.com"))),
        conversation,
        direction: Direction::Inbound,
        kind: Kind::Mail,
        author: Author::Other,
        author_party: Some(ann.clone()),
        subject: Some("Offer".to_owned()),
        parties: Parties { from: vec![ann], ..Parties::default() },
        in_reply_to: Some(message_id("earlier@example.com")),
        attachments: Vec::new(),
        defects: vec!["no_date".to_owned()],
        forwarded: Some(ForwardedBy {
            user: mint(),
            party: Party::new(address("ben@example.com"), None),
            certainty: Certainty::Medium,
            attached: false,
        }),
        sent_at: at(sent_at),
        received_at: at(sent_at + 1),
        size: 1234,
        blob: uuid::Uuid::now_v7(),
    }
}

fn place_in(account: AccountId, mailbox: &str, uid_validity: u64, uid: u32) -> MailboxUid {
    MailboxUid { account, mailbox: mailbox.as_bytes().to_vec(), uid_validity, uid }
}

fn a_webhook(events: Option<&[&str]>) -> Webhook {
    Webhook {
        id: mint(),
        url: "https://crm.example/hook".to_owned(),
        events: events.map(|events| events.iter().map(|event| (*event).to_owned()).collect()),
        secrets: vec![SecretString::from("whsec_first")],
        disabled_at: None,
        disabled_reason: None,
        failing_since: None,
        last_failure: None,
        created_at: at(3),
    }
}
