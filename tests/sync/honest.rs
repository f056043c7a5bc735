//! Accounts at a real Dovecot: what arrives there reaches the conversation, once, and nothing else leaves a trace.
//!
//! Not here: servers that misbehave (`faults`), and sending.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    coord::Coord,
    core::{
        account::{AccountState, Endpoint, Security},
        decision::Verdict,
        message::{Direction, Sighting},
        submission::SubmissionState,
    },
    flow::{Gateway, sync},
};

use crate::{
    support::{
        PATIENCE, Person,
        dovecot::{self, Dovecot},
        eventually,
        office::{Office, Running, Set, answering, login, mail, next_second},
        store::Engine,
    },
    world,
};

/// User 1 has an account at a Dovecot, and customer 1 is a contact.
type World = world::World<Dovecot>;

impl World {
    async fn new() -> Self {
        Self::on(Engine::Sqlite).await
    }

    async fn on(engine: Engine) -> Self {
        Self::at(Dovecot::start(), engine).await
    }

    async fn at(dovecot: Dovecot, engine: Engine) -> Self {
        let (host, port) = ("localhost".to_owned(), dovecot.imaps.port());
        let set = Set {
            user: dovecot.user(1),
            customer: dovecot.customer(1).address,
            imap: Endpoint { host, port, security: Security::Tls },
            authority: Some(dovecot.authority.pem().to_owned()),
            engine,
        };
        Self { office: Office::open(set).await, provider: dovecot }
    }

    /// A customer writes to the user.
    fn receive(&self, id: &str, more: &str) {
        let (customer, user) = (self.provider.customer(1), self.provider.user(1));
        self.receive_from(&customer.address, &user, &mail(&customer.address, &user.address, id, more));
    }

    fn receive_from(&self, from: &str, user: &Person, message: &str) {
        self.provider.deliver(from, user, message).unwrap();
    }

    /// The user's mail program files what he sent.
    fn file_sent(&self, to: &str, id: &str, more: &str) {
        let user = self.provider.user(1);
        let message = mail(&user.address, to, id, more);
        self.provider.login(&user).append("Sent", "\\Seen", &message);
    }
}

async fn held_until_connected(mut world: World) {
    let (user, customer) = (world.provider.user(1), world.provider.customer(1));
    // The way out that there was at the 250 is gone when it is filed.
    let letter = mail(&user.address, &customer.address, "offer", "");
    let message = world.hand_in(&customer.address, &letter).await;
    world.start();
    world.await_event("message.held", 1).await;
    let held = world.events().await.into_iter().find(|event| event.kind == "message.held").unwrap();
    assert_eq!(held.data["message_id"], message.to_string());
    assert!(held.data["reason"].as_str().unwrap().contains("no connected account"), "{}", held.data);
    world.stop().await;
    world.connect().await;
    let account = world.account;
    let submission = async || {
        let mut session = world.gateway.store.read(world.workspace).await.unwrap();
        session.submission(message).await.unwrap().unwrap()
    };
    let is_on_its_way = async || submission().await.state != SubmissionState::Held;
    eventually("the message to go on", PATIENCE, is_on_its_way).await;
    let submission = submission().await;
    assert_eq!((submission.account, submission.detail), (Some(account), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_without_a_way_out_is_held_and_goes_on_when_an_account_is_connected() {
    held_until_connected(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_without_a_way_out_is_held_and_goes_on_when_an_account_is_connected_on_postgresql() {
    held_until_connected(World::on(Engine::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_look_announces_nothing_that_was_there_before() {
    let mut world = World::new().await;
    world.receive("old", "");
    world.file_sent(&world.provider.customer(1).address, "older", "");
    let stranger = mail("x@elsewhere.test", &world.provider.user(1).address, "private", "");
    world.receive_from("x@elsewhere.test", &world.provider.user(1), &stranger);
    next_second().await;
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
    world.file_sent(&world.provider.customer(1).address, "answer", &answering("question"));
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
    assert!(matches!(world.sightings(&answer).await[..], [Sighting::Account(_)]));
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
    a_correspondence(World::on(Engine::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_idle_notify_or_condstore_is_polled() {
    let options = dovecot::Options {
        capabilities: Some("IMAP4rev1 LITERAL+ SPECIAL-USE AUTH=PLAIN".into()),
        ..dovecot::Options::default()
    };
    a_correspondence(World::at(Dovecot::with(options), Engine::Sqlite).await).await;
}

/// Measured from when another client hears of each. Of several the middle one counts: a busy machine may stop any one.
async fn replies_are_filed_at_once(mut world: World) {
    world.connect().await;
    let mut other = world.provider.login(&world.provider.user(1));
    other.expect("EXAMINE INBOX");
    other.begin_idle();
    let mut delays = Vec::new();
    for number in 0..5 {
        let id = format!("reply-{number}");
        world.receive(&id, "");
        let announced = tokio::task::spawn_blocking(move || {
            other.next_line("EXISTS");
            (Instant::now(), other)
        });
        let (at, back) = announced.await.unwrap();
        other = back;
        world.await_message(&id).await;
        delays.push(at.elapsed());
    }
    delays.sort_unstable();
    assert!(delays[2] < Duration::from_secs(1), "{delays:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_filed_within_a_second_of_its_announcement() {
    replies_are_filed_at_once(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_filed_within_a_second_of_its_announcement_on_postgresql() {
    replies_are_filed_at_once(World::on(Engine::Postgres).await).await;
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
    let user = world.provider.user(1);
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
    assert_eq!((decisions[0].verdict, decisions[0].account_id), (Verdict::Skipped, Some(world.account)));
    world.stop().await;
    assert!(holds(world.directory.path(), b"afterwards"), "the search finds what is there");
    assert!(!holds(world.directory.path(), b"canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_left_alone() {
    let mut world = World::new().await;
    world.connect().await;
    let (user, customer) = (world.provider.user(1), world.provider.customer(1));
    let draft = mail(&user.address, &customer.address, "draft", "");
    world.provider.login(&user).append("Sent", "\\Draft", &draft);
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
    let user = world.provider.user(1);
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
        let sightings = world.sightings(&world.message(id).await.unwrap()).await;
        let [Sighting::Account(at)] = &sightings[..] else { panic!("{id}: {sightings:?}") };
        assert_eq!(at.uid_validity, after.uid_validity, "{id} is where it is now");
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
    /// Loses the provider's own index of the user's mail, so that it hands out new UIDs.
    fn renumber(&mut self) {
        self.provider.server.halt();
        let home = self.provider.server.dir().join("mail/users.example.test/user1/Maildir");
        for entry in std::fs::read_dir(&home).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("dovecot") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        self.provider.resume();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_waits_for_the_user_and_a_right_one_helps() {
    let mut world = World::new().await;
    let wrong = Person { password: "wrong".into(), ..world.provider.user(1) };
    world.connect_with(login(&wrong)).await;
    world.await_state(AccountState::ReauthRequired).await;
    let status = world.status().await;
    assert!(status.advice.is_some() && status.detail.is_some() && status.next_attempt_at.is_none());
    world.await_event("account.reauth_required", 1).await;
    assert_eq!(world.errors().await, [("credentials".to_owned(), 1)]);
    world.renew_login(&login(&world.provider.user(1))).await;
    world.await_rest().await;
    world.await_event("account.connected", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_is_told_once_and_found_again() {
    let mut world = World::new().await;
    world.connect().await;
    world.provider.server.halt();
    world.await_state(AccountState::Error).await;
    let status = world.status().await;
    assert!(status.next_attempt_at.is_some_and(|at| at > Timestamp::now() - SignedDuration::from_secs(5)));
    world.await_event("account.error", 1).await;
    world.provider.resume();
    world.receive("meanwhile", "");
    world.look_now();
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
    let (user, stranger) = (world.provider.user(1), "new@prospect.test");
    // The user writes to somebody whom the CRM does not know; the answer comes before the capture is processed.
    let offer = mail(&user.address, stranger, "offer", "");
    world.provider.login(&user).append("Sent", "\\Seen", &offer);
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
    let mut world = World::on(Engine::Postgres).await;
    world.connect().await;
    let other =
        Gateway { followers: sync::Followers::default(), coord: Coord::local(), ..world.gateway.clone() };
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
    let (user, customer) = (world.provider.user(1), world.provider.customer(1));
    let mut imap = world.provider.login(&user);
    for number in 0..250 {
        let from = if number % 50 == 0 { customer.address.as_str() } else { "x@elsewhere.test" };
        imap.append("INBOX", "", &mail(from, &user.address, &format!("old-{number}"), ""));
    }
    next_second().await;
    world.connect_with(login(&user)).await;
    world.await_event("account.connected", 1).await;
    world.receive("new", "");
    world.await_event("message.received", 1).await;
    world.await_event("backfill.completed", 1).await;
    assert_eq!(world.messages().await.len(), 6);
    let done = world.events().await.into_iter().find(|event| event.kind == "backfill.completed").unwrap();
    assert_eq!((done.data["done"].as_u64(), done.data["total"].as_u64()), (Some(250), Some(250)));
}
