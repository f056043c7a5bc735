//! Accounts at a provider that breaks off, lies, renumbers and refuses: nothing is lost, doubled or fetched in vain.
//!
//! Not here: honest servers (`honest`), and what single responses mean to the client (`imap_dialogues`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    core::{
        account::{AccountState, AccountStatus, Endpoint, Security},
        allowance::{Limits, Said},
        decision::Verdict,
        job::JobKind,
        limits::Counted,
        message::Sighting,
    },
    flow::limits,
    mail::Address,
    sandbox::{
        Act, Behaviour, Extensions, Extent, FlagChange, Options, Provider, Running as Sandbox, Service,
        Trigger,
    },
};

use crate::{
    support::{
        PATIENCE, Person, eventually,
        office::{Office, Set, address, answering, login, mail, next_second},
        store::Engine,
    },
    world,
};

const USER: &str = "ann@users.example.test";
const CUSTOMER: &str = "carol@customers.example.test";
const STRANGER: &str = "x@elsewhere.example.test";

/// The user has an account at the built-in provider.
type World = world::World<Sandbox>;

impl World {
    async fn new() -> Self {
        Self::with(Behaviour::default()).await
    }

    async fn with(behaviour: Behaviour) -> Self {
        Self::on(Engine::Sqlite, behaviour).await
    }

    async fn on(engine: Engine, behaviour: Behaviour) -> Self {
        let sandbox = Provider::start(Options { behaviour, ..Options::default() }).await.unwrap();
        let user = Person { address: USER.to_owned(), password: "pw".to_owned() };
        sandbox.provider.add_user(&address(USER), &user.password).unwrap();
        let imap = Endpoint { host: "127.0.0.1".into(), port: sandbox.imap.port(), security: Security::None };
        let customer = CUSTOMER.to_owned();
        let set = Set { user, customer, imap, authority: None, engine };
        Self { office: Office::open(set).await, provider: sandbox }
    }

    fn user(&self) -> Address {
        address(USER)
    }

    fn provider(&self) -> &Provider {
        &self.provider.provider
    }

    fn put(&self, mailbox: &str, from: &str, id: &str, more: &str) -> u32 {
        let to = if from == USER { CUSTOMER } else { USER };
        let raw = mail(from, to, id, more).replace('\n', "\r\n");
        self.provider().append(&self.user(), mailbox, raw.as_bytes(), &[]).unwrap()
    }

    /// The customer writes.
    fn receive(&self, id: &str) -> u32 {
        self.put("INBOX", CUSTOMER, id, "")
    }

    fn arm(&self, trigger: Trigger, act: Act) {
        self.provider().arm(trigger, act);
    }

    /// UIDs of INBOX whose content was taken away, as often as it was.
    fn contents(&self) -> Vec<u32> {
        self.provider().contents_fetched(&self.user(), "INBOX")
    }

    fn verbs(&self) -> Vec<String> {
        self.provider().said().into_iter().map(|said| said.verb).collect()
    }

    async fn sent(&self) -> String {
        use mailweave::sandbox::SpecialUse;
        self.provider().special(&self.user(), SpecialUse::Sent).unwrap()
    }
}

#[tokio::test]
async fn only_the_content_of_what_belongs_is_ever_asked_for() {
    let mut world = World::new().await;
    world.put("INBOX", STRANGER, "old-private", "");
    let old = world.receive("old");
    next_second().await;
    world.connect().await;
    let private = world.put("INBOX", STRANGER, "private", "");
    let new = world.receive("new");
    world.await_message("new").await;
    world.await_decision("private", "no_contact").await;
    world.await_message("old").await;
    assert_eq!(world.contents(), [old, new]);
    let headers: Vec<u32> = world
        .provider()
        .fetched()
        .into_iter()
        .filter(|fetched| fetched.extent == Extent::Header)
        .map(|fetched| fetched.uid)
        .collect();
    assert!(headers.contains(&private));
}

#[tokio::test]
async fn a_connection_that_breaks_anywhere_loses_and_doubles_nothing() {
    for verb in ["SEARCH", "FETCH", "EXAMINE", "STATUS", "NOOP"] {
        for act in [Act::Drop, Act::DropAfter(20), Act::Bye("later".into())] {
            let mut world = World::new().await;
            world.connect().await;
            world.arm(Trigger::next(Service::Imap, verb), act);
            for id in ["one", "two", "three"] {
                world.receive(id);
            }
            for id in ["one", "two", "three"] {
                // Broken sessions begin anew by themselves; this only saves the test the pause.
                eventually(&format!("{id} after a broken {verb}"), PATIENCE, async || {
                    world.look_now();
                    world.message(id).await.is_some()
                })
                .await;
            }
            world.await_event("message.received", 3).await;
        }
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_repeats_nothing_that_anybody_sees() {
    let mut world = World::new().await;
    world.connect().await;
    for round in 0..6_u32 {
        // Each body takes a while, so that the crash comes between some and the commit.
        world.arm(
            Trigger::always(Service::Imap, "FETCH").containing("BODY.PEEK[]"),
            Act::Delay(Duration::from_millis(15)),
        );
        for number in 0..4 {
            world.receive(&format!("m{round}-{number}"));
        }
        let wanted = world.contents().len() + usize::try_from(round % 4).unwrap();
        eventually("some bodies", PATIENCE, async || world.contents().len() >= wanted).await;
        world.crash().await;
        world.provider().disarm();
        // Nobody has let the lease go.
        world.office.free_lease().await;
        world.start();
        for number in 0..4 {
            world.await_message(&format!("m{round}-{number}")).await;
        }
    }
    world.await_event("message.received", 24).await;
    world.await_event("conversation.created", 24).await;
}

#[tokio::test]
async fn a_new_uidvalidity_fetches_no_body_again_and_announces_nothing() {
    let mut world = World::new().await;
    world.connect().await;
    for id in ["one", "two"] {
        world.receive(id);
        world.await_message(id).await;
    }
    world.put("INBOX", STRANGER, "private", "");
    world.await_decision("private", "no_contact").await;
    let (fetched, events) = (world.contents().len(), world.events().await.len());
    let validity = u64::from(world.provider().bump_uid_validity(&world.user(), "INBOX").unwrap());
    world.look_now();
    eventually("the new UIDs", PATIENCE, async || world.cursor("INBOX").await.uid_validity == validity).await;
    for id in ["one", "two"] {
        let sightings = world.sightings(&world.message(id).await.unwrap()).await;
        let [Sighting::Account(at)] = &sightings[..] else { panic!("{sightings:?}") };
        assert_eq!(at.uid_validity, validity);
    }
    assert_eq!(world.decisions("private").await.len(), 1);
    assert_eq!((world.contents().len(), world.events().await.len()), (fetched, events));
    world.receive("three");
    world.await_message("three").await;
    world.await_event("message.received", 3).await;
}

#[tokio::test]
async fn mail_that_came_while_the_uids_changed_is_announced_once() {
    let mut world = World::new().await;
    world.connect().await;
    world.receive("before");
    world.await_message("before").await;
    world.stop().await;
    world.receive("between");
    world.provider().bump_uid_validity(&world.user(), "INBOX").unwrap();
    world.start();
    world.await_message("between").await;
    world.await_event("message.received", 2).await;
}

#[tokio::test]
async fn ids_that_change_again_and_again_are_left_alone_for_a_while() {
    let mut world = World::new().await;
    world.connect().await;
    world.receive("one");
    world.await_message("one").await;
    let sent = world.sent().await;
    for _ in 0..4 {
        let validity = u64::from(world.provider().bump_uid_validity(&world.user(), &sent).unwrap());
        world.look_now();
        eventually("the new UIDs", PATIENCE, async || world.cursor(&sent).await.uid_validity == validity)
            .await;
    }
    world.await_state(AccountState::Error).await;
    assert_eq!(world.errors().await[0].0, "ids_unstable");
    let next = world.status().await.next_attempt_at.unwrap();
    assert!(next > Timestamp::now() + SignedDuration::from_mins(50));
    assert_eq!(world.messages().await.len(), 1);
    world.await_event("message.received", 1).await;
}

#[tokio::test]
async fn a_throttling_provider_is_given_the_rest_it_asks_for() {
    let mut world = World::new().await;
    let answer = "NO [UNAVAILABLE] Request is throttled. Suggested Backoff Time: 600000 milliseconds";
    world.arm(Trigger::always(Service::Imap, "LIST"), Act::Answer(answer.into()));
    world.connect_with(login(&Person { address: USER.into(), password: "pw".into() })).await;
    world.await_state(AccountState::Throttled).await;
    let next = world.status().await.next_attempt_at.unwrap();
    let wait = next.duration_since(Timestamp::now()).as_secs();
    assert!((560..=600).contains(&wait), "{wait}");
    // Asking for a look does not cut the rest short, nor does a restart.
    world.look_now();
    let logins = |world: &World| world.verbs().iter().filter(|verb| *verb == "AUTHENTICATE").count();
    assert_eq!(logins(&world), 1);
    world.stop().await;
    world.start();
    world.look_now();
    let status = world.status().await;
    assert_eq!((status.state, status.next_attempt_at), (AccountState::Throttled, Some(next)));
    assert_eq!((logins(&world), world.count("account.error").await), (1, 0));
}

#[tokio::test]
async fn a_refused_login_is_not_tried_again() {
    let mut world = World::new().await;
    let wrong = Person { address: USER.into(), password: "wrong".into() };
    world.connect_with(login(&wrong)).await;
    world.await_state(AccountState::ReauthRequired).await;
    world.look_now();
    world.await_event("account.reauth_required", 1).await;
    // While the account is left alone its lease is free, for whoever gives it a new login.
    world.renew_login(&login(&Person { password: "pw".into(), ..wrong })).await;
    world.await_rest().await;
    let refusals = world.errors().await;
    assert_eq!(refusals, [("credentials".to_owned(), 1)]);
}

#[tokio::test]
async fn a_message_that_the_provider_cannot_hand_out_blocks_no_other() {
    let mut world = World::new().await;
    world.connect().await;
    let next_uid = world.provider().uids(&world.user(), "INBOX").unwrap().1;
    let of_it =
        |text: &str| Trigger::always(Service::Imap, "FETCH").containing(&format!("{next_uid} ({text}"));
    world.arm(of_it("UID BODY.PEEK[]"), Act::Answer("NO cannot be converted".into()));
    world.receive("broken");
    world.receive("whole");
    world.await_message("whole").await;
    world.await_decision("broken", "unreadable_at_provider").await;
    assert!(world.message("broken").await.is_none());
    assert_eq!(world.cursor("INBOX").await.last_uid, next_uid + 1);
}

#[tokio::test]
async fn a_message_over_which_the_connection_breaks_again_and_again_is_given_up() {
    let mut world = World::new().await;
    world.connect().await;
    let next_uid = world.provider().uids(&world.user(), "INBOX").unwrap().1;
    let trigger = Trigger::always(Service::Imap, "FETCH").containing(&format!("{next_uid} (UID BODY.PEEK[]"));
    world.arm(trigger, Act::Drop);
    world.receive("cursed");
    world.receive("whole");
    eventually("the one behind it", PATIENCE, async || {
        world.look_now();
        world.message("whole").await.is_some()
    })
    .await;
    world.await_decision("cursed", "unreadable_at_provider").await;
}

#[tokio::test]
async fn a_delivery_report_that_cannot_be_had_is_left_and_hides_no_other() {
    let reporter = "mailer-daemon@mail.example.test";
    let fields = "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n\
                  Content-Type: multipart/report; report-type=delivery-status; boundary=b\n";
    for act in [Act::Answer("NO cannot be converted".into()), Act::Drop] {
        let mut world = World::new().await;
        world.connect().await;
        // Who has sent nothing is told nothing: his reports are not opened.
        world.hand_in(CUSTOMER, &mail(USER, CUSTOMER, "offer", "")).await;
        eventually("mail on its way by the account", PATIENCE, async || {
            let mut session = world.gateway.store.read(world.workspace).await.unwrap();
            session.has_sent_by(world.account, Timestamp::UNIX_EPOCH).await.unwrap()
        })
        .await;
        let next_uid = world.provider().uids(&world.user(), "INBOX").unwrap().1;
        let content = format!("{next_uid} (UID BODY.PEEK[]");
        world.arm(Trigger::always(Service::Imap, "FETCH").containing(&content), act);
        world.put("INBOX", reporter, "report", fields);
        world.receive("whole");
        eventually("what lies behind it", PATIENCE, async || {
            world.look_now();
            world.message("whole").await.is_some()
        })
        .await;
        assert!(world.provider().said().iter().any(|said| said.line.contains(&content)), "it was asked for");
        // Nobody knows what it was about, so it is not said to belong.
        let decisions = world.decisions("report").await;
        assert_eq!(decisions.len(), 1);
        assert_eq!(
            (decisions[0].verdict, world.decided_by("unreadable_at_provider").await),
            (Verdict::Skipped, 0)
        );
    }
}

#[tokio::test]
async fn a_message_whose_header_cannot_be_had_hides_no_other() {
    let refused = Act::Answer("NO Server error while fetching messages".into());
    let broken = Act::Answer("NO [SERVERBUG] Internal error occurred".into());
    let garbled = Act::Instead(b"* 2 FETCH (UID 2 FLAGS (\r\n{tag} OK done\r\n".to_vec());
    for act in [refused, broken, garbled, Act::Drop] {
        let mut world = World::new().await;
        world.connect().await;
        world.stop().await;
        let first = world.receive("one");
        let cursed = world.receive("cursed");
        let last = world.receive("two");
        for set in [format!("{first}:{last}"), cursed.to_string()] {
            let of_set =
                Trigger::always(Service::Imap, "FETCH").containing(&format!("FETCH {set} (UID FLAGS"));
            world.arm(of_set, act.clone());
        }
        world.start();
        for id in ["one", "two"] {
            eventually(&format!("{id} beside what answers {act:?}"), PATIENCE, async || {
                world.look_now();
                world.message(id).await.is_some()
            })
            .await;
        }
        assert_eq!(world.decided_by("unreadable_at_provider").await, 1);
        assert_eq!(world.cursor("INBOX").await.last_uid, last);
        world.receive("three");
        world.await_message("three").await;
    }
}

#[tokio::test]
async fn a_message_given_up_in_one_mailbox_is_none_in_another() {
    let mut world = World::new().await;
    world.connect().await;
    let sent = world.sent().await;
    let next = |mailbox: &str| world.provider().uids(&world.user(), mailbox).unwrap().1;
    let cursed = next("INBOX").max(next(&sent));
    let trigger = Trigger::always(Service::Imap, "FETCH").containing(&format!("{cursed} (UID BODY.PEEK[]"));
    world.arm(trigger, Act::Drop);
    while world.receive("cursed") < cursed {}
    eventually("the one that cannot be had", PATIENCE, async || {
        world.look_now();
        world.decided_by("unreadable_at_provider").await == 1
    })
    .await;
    world.provider().disarm();
    while world.put(&sent, USER, "answer", "") < cursed {}
    world.look_now();
    world.await_message("answer").await;
    assert_eq!(world.decided_by("unreadable_at_provider").await, 1);
}

#[tokio::test]
async fn mail_larger_than_allowed_is_left_with_its_reason() {
    let mut world = World::new().await;
    world.connect().await;
    let large = format!("{}\n", "x".repeat(70)).repeat(16_000);
    world.put("INBOX", CUSTOMER, "large", &format!("\n{large}"));
    world.await_decision("large", "too_large").await;
    assert!(world.contents().is_empty());
}

#[tokio::test]
async fn bodies_are_filed_in_parts_when_they_are_many_and_large() {
    let mut world = World::new().await;
    world.connect().await;
    world.stop().await;
    let body = format!("{}\n", "x".repeat(70)).repeat(3400);
    for number in 0..40 {
        world.put("INBOX", CUSTOMER, &format!("m{number}"), &format!("\n{body}"));
    }
    world.start();
    world.await_event("message.received", 40).await;
    assert_eq!(world.contents().len(), 40);
}

#[tokio::test]
async fn a_look_that_finds_nothing_asks_about_all_mailboxes_at_once() {
    let mut world = World::new().await;
    world.connect().await;
    eventually("IDLE", PATIENCE, async || world.verbs().last().is_some_and(|verb| verb == "IDLE")).await;
    world.provider().clear_ledger();
    world.look_now();
    eventually("the look", PATIENCE, async || world.verbs().iter().any(|verb| verb == "IDLE")).await;
    // Three round trips: what is between DONE and IDLE goes out together, as the dialogues of `imap` show.
    assert_eq!(world.verbs(), ["DONE", "NOOP", "STATUS", "STATUS", "IDLE"]);
}

#[tokio::test]
async fn an_alarm_without_cause_does_not_keep_us_busy() {
    let mut world = World::new().await;
    world.connect().await;
    world.arm(Trigger::always(Service::Imap, "IDLE"), Act::Inject(b"* 999 EXISTS\r\n".to_vec()));
    world.provider().clear_ledger();
    world.receive("one");
    world.await_message("one").await;
    world.receive("two");
    world.await_message("two").await;
    let searches = world.verbs().iter().filter(|verb| *verb == "UID SEARCH").count();
    assert!(searches < 40, "{searches}");
}

#[tokio::test]
async fn providers_without_extensions_with_foreign_names_and_late_sent_mailboxes_are_followed() {
    let none = Extensions {
        condstore: false,
        qresync: false,
        idle: false,
        special_use: false,
        uidplus: false,
        r#move: false,
        literal_plus: false,
    };
    let names = mailweave::sandbox::MailboxNames::German;
    let mut world =
        World::with(Behaviour { extensions: none, mailbox_names: names, ..Behaviour::default() }).await;
    world.connect().await;
    world.receive("question");
    world.await_message("question").await;
    let sent = world.sent().await;
    world.put(&sent, USER, "answer", &answering("question"));
    let answer = world.await_message("answer").await;
    assert_eq!(answer.conversation, world.message("question").await.unwrap().conversation);
}

#[tokio::test]
async fn an_account_without_a_sent_mailbox_is_followed_and_says_so() {
    let mut world = World::new().await;
    let sent = world.sent().await;
    world.provider().remove(&world.user(), &sent).unwrap();
    world.connect().await;
    world.receive("question");
    world.await_message("question").await;
    assert_eq!(world.errors().await, [("no_sent_mailbox".to_owned(), 1)]);
}

#[tokio::test]
async fn a_mailbox_restored_from_a_backup_under_the_same_uidvalidity_is_healed() {
    let mut world = World::new().await;
    world.connect().await;
    for id in ["one", "two", "three"] {
        world.receive(id);
        world.await_message(id).await;
    }
    // The server forgets the last message, and will hand out its UID again.
    let events = world.events().await.len();
    world.office.pretend_read_on("INBOX", 5).await;
    world.stop().await;
    world.start();
    eventually("the cursor to come back", PATIENCE, async || {
        let next = world.provider().uids(&world.user(), "INBOX").unwrap().1;
        world.cursor("INBOX").await.last_uid == next - 1
    })
    .await;
    assert_eq!(world.events().await.len(), events);
    world.receive("four");
    world.await_message("four").await;
    assert_eq!(world.messages().await.len(), 4);
    world.await_event("message.received", 4).await;
}

#[tokio::test]
async fn an_overtaken_answer_is_recalled_over_the_session_that_is_there() {
    let mut world = World::new().await;
    world.connect().await;
    let offer = mail(USER, "new@prospect.test", "offer", "");
    let reply = mail("new@prospect.test", USER, "reply", &answering("offer")).replace('\n', "\r\n");
    world.provider().append(&world.user(), "INBOX", reply.as_bytes(), &[]).unwrap();
    world.await_decision("reply", "no_contact").await;
    let sessions = |world: &World| world.verbs().iter().filter(|verb| *verb == "AUTHENTICATE").count();
    assert_eq!(sessions(&world), 1);
    world.capture(&offer).await;
    world.await_event("message.received", 1).await;
    assert_eq!(sessions(&world), 1);
    assert_eq!(world.count("conversation.created").await, 1);
}

/// Mail that turns out to belong while its account is not worked is fetched when it is worked again, though its UIDs have
/// changed meanwhile.
async fn a_recall_that_has_to_wait(engine: Engine) {
    let mut world = World::on(engine, Behaviour::default()).await;
    world.connect().await;
    let offer = mail(USER, "new@prospect.test", "offer", "");
    let reply = mail("new@prospect.test", USER, "reply", &answering("offer")).replace('\n', "\r\n");
    world.provider().append(&world.user(), "INBOX", reply.as_bytes(), &[]).unwrap();
    world.await_decision("reply", "no_contact").await;
    // The provider wants another password from now on.
    let mut tx = world.gateway.store.begin(world.workspace).await.unwrap();
    let status = AccountStatus { state: AccountState::ReauthRequired, ..world.status().await };
    tx.set_account_status(world.account, &status).await.unwrap();
    tx.fence_account(world.account).await.unwrap();
    tx.commit().await.unwrap();
    world.look_now();
    world.capture(&offer).await;
    world.await_event("message.captured", 1).await;
    eventually("the errand to be put off", PATIENCE, async || {
        let due = world.gateway.queue.next_due(&[JobKind::Refetch]).await.unwrap();
        due.job.is_none_or(|due| due > Timestamp::now() + SignedDuration::from_mins(30))
    })
    .await;
    // Further mail of the conversation does not ask for the same again.
    world.capture(&mail(USER, "new@prospect.test", "more", &answering("offer"))).await;
    world.await_event("message.captured", 2).await;
    let backlog = world.gateway.queue.backlog().await.unwrap();
    let errands = backlog.iter().find(|backlog| backlog.kind == JobKind::Refetch).map(|backlog| backlog.jobs);
    assert_eq!(errands, Some(1));
    world.provider().bump_uid_validity(&world.user(), "INBOX").unwrap();
    world.renew_login(&login(&Person { address: USER.into(), password: "pw".into() })).await;
    world.await_event("message.received", 1).await;
    world.await_decision("reply", "contact_wrote").await;
    assert_eq!(world.count("conversation.created").await, 1);
    assert_eq!(world.gateway.queue.next_due(&[JobKind::Refetch]).await.unwrap().job, None);
}

#[tokio::test]
async fn mail_that_belongs_is_fetched_however_long_its_account_was_left_alone() {
    a_recall_that_has_to_wait(Engine::Sqlite).await;
}

#[tokio::test]
async fn mail_that_belongs_is_fetched_however_long_its_account_was_left_alone_on_postgresql() {
    a_recall_that_has_to_wait(Engine::Postgres).await;
}

/// Errands of an account that no session follows here meet a refused login once, and not once each.
async fn an_errand_that_is_refused(engine: Engine) {
    let mut world = World::on(engine, Behaviour::default()).await;
    world.connect().await;
    let offer = mail(USER, "new@prospect.test", "offer", "");
    for id in ["reply", "other"] {
        let reply = mail("new@prospect.test", USER, id, &answering("offer")).replace('\n', "\r\n");
        world.provider().append(&world.user(), "INBOX", reply.as_bytes(), &[]).unwrap();
        world.await_decision(id, "no_contact").await;
    }
    world.stop().await;
    world.provider().set_password(&world.user(), "another").unwrap();
    world.provider().clear_ledger();
    world.start_jobs();
    world.capture(&offer).await;
    world.await_state(AccountState::ReauthRequired).await;
    eventually("both errands to wait", PATIENCE, async || {
        let due = world.gateway.queue.next_due(&[JobKind::Refetch]).await.unwrap();
        due.lease.is_none()
            && due.job.is_some_and(|due| due > Timestamp::now() + SignedDuration::from_secs(20))
    })
    .await;
    assert_eq!(world.verbs().iter().filter(|verb| *verb == "AUTHENTICATE").count(), 1);
    assert_eq!(world.errors().await, [("credentials".to_owned(), 1)]);
}

#[tokio::test]
async fn errands_meet_a_refused_login_once() {
    an_errand_that_is_refused(Engine::Sqlite).await;
}

#[tokio::test]
async fn errands_meet_a_refused_login_once_on_postgresql() {
    an_errand_that_is_refused(Engine::Postgres).await;
}

#[tokio::test]
async fn mail_that_belongs_and_is_gone_is_let_go() {
    let mut world = World::new().await;
    world.connect().await;
    let offer = mail(USER, "new@prospect.test", "offer", "");
    let reply = mail("new@prospect.test", USER, "reply", &answering("offer")).replace('\n', "\r\n");
    let uid = world.provider().append(&world.user(), "INBOX", reply.as_bytes(), &[]).unwrap();
    world.await_decision("reply", "no_contact").await;
    world.provider().expunge(&world.user(), "INBOX", uid).unwrap();
    world.capture(&offer).await;
    world.await_decision("reply", "gone_at_provider").await;
    world.receive("next");
    world.await_message("next").await;
}

/// Large content that does not compress.
fn noise() -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let mut bytes = vec![0; 600_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    BASE64_STANDARD
        .encode(bytes)
        .as_bytes()
        .chunks(70)
        .fold(String::new(), |text, line| text + &String::from_utf8_lossy(line) + "\n")
}

fn files(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn a_large_body_is_sealed_and_on_disk_before_anybody_has_to_wait_for_its_transaction() {
    let mut world = World::new().await;
    world.connect().await;
    let blobs = world.directory.path().join("blobs");
    // What a new session has to write down is written: while what follows lasts nobody else can write.
    eventually("IDLE", PATIENCE, async || world.verbs().last().is_some_and(|verb| verb == "IDLE")).await;
    let writer = world.gateway.store.begin(world.workspace).await.unwrap();
    world.put("INBOX", CUSTOMER, "large", &format!("\n{}", noise()));
    eventually("the sealed file", PATIENCE, async || files(&blobs) == 1).await;
    drop(writer);
    world.await_message("large").await;
    assert_eq!(files(&blobs), 1);
}

#[tokio::test]
async fn a_sweep_that_fails_neither_ends_every_session_nor_troubles_anybody() {
    for act in [Act::Answer("NO no such search".into()), Act::Drop] {
        let mut world = World::new().await;
        world.connect().await;
        world.receive("one");
        world.await_message("one").await;
        world.stop().await;
        world.arm(Trigger::always(Service::Imap, "SEARCH").containing("SINCE"), act);
        world.start();
        eventually("the sweep", PATIENCE, async || {
            world.provider().said().iter().any(|said| said.line.to_uppercase().contains("SINCE"))
        })
        .await;
        world.receive("two");
        world.await_message("two").await;
        assert_eq!(world.errors().await, []);
    }
}

#[tokio::test]
async fn flags_and_deletions_change_nothing_here() {
    let mut world = World::new().await;
    world.connect().await;
    let uid = world.receive("one");
    world.await_message("one").await;
    let events = world.events().await.len();
    let flags = (FlagChange::Add, &["\\Seen"][..]);
    world.provider().flag(&world.user(), "INBOX", uid, flags).unwrap();
    world.provider().expunge(&world.user(), "INBOX", uid).unwrap();
    world.receive("two");
    world.await_message("two").await;
    assert!(world.message("one").await.is_some());
    assert_eq!(world.events().await.len(), events + 2);
}

#[tokio::test]
async fn mail_that_was_passed_over_is_found_by_the_sweep() {
    let mut world = World::new().await;
    next_second().await;
    world.connect().await;
    world.stop().await;
    next_second().await;
    world.receive("lost");
    world.put("INBOX", STRANGER, "private", "");
    world.office.pretend_read_on("INBOX", 2).await;
    world.start();
    world.await_message("lost").await;
    world.await_decision("private", "no_contact").await;
    world.await_event("message.received", 1).await;
}

impl World {
    /// What PUT does to limits.
    async fn limit(&self, synced_per_day: Option<u32>) {
        let mut tx = self.gateway.store.begin(self.workspace).await.unwrap();
        let synced_per_day = synced_per_day.map_or(Said::NoLimit, Said::Limit);
        tx.put_limits(None, &Limits { synced_per_day, ..Limits::default() }).await.unwrap();
        limits::changed(&mut tx, None, Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Messages filed, and then what was counted of them. Whatever is killed when: a message is not there without its count.
    async fn filed_and_counted(&self) -> (u64, u64) {
        let filed = u64::try_from(self.messages().await.len()).unwrap();
        let mut session = self.gateway.store.read(self.workspace).await.unwrap();
        let counts = session.usage(self.user, Counted::Synced, Timestamp::UNIX_EPOCH).await.unwrap();
        (filed, counts.iter().map(|count| count.count).sum())
    }

    async fn kill(&mut self) {
        self.crash().await;
        let (filed, counted) = self.filed_and_counted().await;
        assert!(counted >= filed, "{counted} < {filed}");
        self.office.free_lease().await;
        self.start();
    }

    /// Lets a day pass: what was counted was counted yesterday.
    async fn sleep_over_it(&self) {
        use sqlx::Connection as _;
        let file = self.office.directory.path().join("mailweave.db");
        let mut database =
            sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        sqlx::query("update usage_counts set slot = slot - 90000000000")
            .execute(&mut database)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_count_is_below_the_truth_over_a_midnight_a_new_limit_and_kills() {
    const MAILS: u64 = 60;
    let mut world = World::new().await;
    world.limit(Some(25)).await;
    world.connect().await;
    // Each body takes a while, so that kills come between some and the commit.
    let body = || Trigger::always(Service::Imap, "FETCH").containing("BODY.PEEK[]");
    world.arm(body(), Act::Delay(Duration::from_millis(5)));
    for number in 0..MAILS {
        world.receive(&format!("m{number}"));
        if number % 9 == 8 {
            let wanted = world.contents().len() + usize::try_from(number % 4).unwrap();
            let is_under_way = async || world.contents().len() >= wanted || wanted > 20;
            eventually("some bodies", PATIENCE, is_under_way).await;
            world.kill().await;
        }
    }
    let come_to = async |world: &mut World, filed: u64| {
        for _ in 0..3 {
            let wanted = world.contents().len() + 2;
            let is_under_way =
                async || world.contents().len() >= wanted || world.filed_and_counted().await.0 == filed;
            eventually("something to be under way", PATIENCE, is_under_way).await;
            world.kill().await;
        }
        eventually(&format!("{filed} to be filed"), PATIENCE, async || {
            world.filed_and_counted().await.0 >= filed
        })
        .await;
        // No more than there is room for, and each counted.
        assert_eq!(world.filed_and_counted().await, (filed, filed));
    };
    come_to(&mut world, 25).await;
    eventually("the rest to be put off", PATIENCE, async || {
        world.cursor("INBOX").await.last_uid == u32::try_from(MAILS).unwrap()
    })
    .await;
    world.sleep_over_it().await;
    world.limit(Some(20)).await;
    come_to(&mut world, 45).await;
    world.limit(None).await;
    come_to(&mut world, MAILS).await;
    world.await_event("message.received", usize::try_from(MAILS).unwrap()).await;
}
