//! The CRM's own server is told: signed, in order for each conversation, the same on every try.
//!
//! Not here: signatures in every detail (`webhook`).

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mailweave::sandbox::Behaviour;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::sync::watch;

use crate::{
    both,
    crm::{text, texts},
    letter::Letter,
    repairs::path_of,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
    world::User,
};

/// One post as it arrived.
#[derive(Debug, Clone)]
struct Post {
    headers: HeaderMap,
    body: Vec<u8>,
    answered: u16,
}

impl Post {
    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }
}

/// The CRM's server: writes down what arrives, and answers as it is told, else 200.
#[derive(Clone, Default)]
struct Receiver {
    posts: Arc<Mutex<Vec<Post>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// Nobody is answered while this is set.
    silent: Arc<watch::Sender<bool>>,
    /// How many wait for their answer, and how many did at most.
    waiting: Arc<Mutex<(usize, usize)>>,
}

/// Somebody who waits for his answer until this is dropped.
struct Waiting(Receiver);

impl Waiting {
    fn begin(receiver: &Receiver) -> Self {
        let mut waiting = receiver.waiting.lock().unwrap();
        waiting.0 += 1;
        waiting.1 = waiting.1.max(waiting.0);
        Self(receiver.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap().0 -= 1;
    }
}

impl Receiver {
    fn start(world: &Sandboxed) -> (Self, SocketAddr) {
        let receiver = Self::default();
        let router = Router::new().route("/hook", post(Self::receive)).with_state(receiver.clone());
        let address = world.gateway.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        (receiver, address)
    }

    async fn receive(State(receiver): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let waiting = Waiting::begin(&receiver);
        receiver.silent.subscribe().wait_for(|silent| !silent).await.unwrap();
        drop(waiting);
        let answered = receiver.answers.lock().unwrap().pop_front().unwrap_or(200);
        receiver.posts.lock().unwrap().push(Post { headers, body: body.to_vec(), answered });
        StatusCode::from_u16(answered).unwrap()
    }

    fn answer(&self, answers: &[u16]) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn be_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    fn waiting_now(&self) -> usize {
        self.waiting.lock().unwrap().0
    }

    fn waiting_at_most(&self) -> usize {
        self.waiting.lock().unwrap().1
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The types of the events that were answered 2xx, in order of arrival.
    fn taken_types(&self) -> Vec<String> {
        texts(&self.taken(), "type")
    }

    /// The events that were answered 2xx, in order of arrival.
    fn taken(&self) -> Vec<Value> {
        self.posts().iter().filter(|post| post.answered < 300).map(Post::event).collect()
    }
}

/// A copy of a mail to this prospect arrives, an answer to these mails; returns its Message-ID.
fn capture(world: &Sandboxed, ann: &User, prospect: &str, answering: &[&str]) -> String {
    let names: Vec<_> = answering.iter().map(|id| format!("<{id}>")).collect();
    let mut letter = Letter::new(&ann.person.address, &[prospect]);
    if !names.is_empty() {
        letter = letter.field("References", &names.join(" "));
    }
    world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
    world.crm.await_mail("message.captured", &letter.id);
    letter.id
}

fn add_contact(world: &Sandboxed, name: &str) {
    world.crm.post("/contacts", &json!({ "email": format!("{name}@prospects.example") }));
}

/// What waits comes in an hour and not in seconds.
fn put_off(world: &Sandboxed) {
    world.gateway.settle();
    world.gateway.execute("update jobs set run_at = run_at + 3600000000 where leased_until is null");
}

/// Lets the time pass once, and what falls due be done.
fn pass_time(world: &Sandboxed) {
    world.gateway.settle();
    world.gateway.hasten();
    world.gateway.settle();
}

fn subscribe(world: &Sandboxed, at: SocketAddr, events: &Value) -> (String, Webhook) {
    let hook = json!({ "url": format!("http://{at}/hook"), "events": events });
    let hook = world.crm.post("/webhooks", &hook);
    (text(&hook, "id").to_owned(), Webhook::new(text(&hook, "secret")).unwrap())
}

both! {
    fn every_event_is_posted_signed_and_in_order_for_each_conversation(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let (receiver, at) = Receiver::start(&world);
        let (_, secret) = subscribe(&world, at, &Value::Null);
        // What fails in between holds up nothing but its own conversation.
        receiver.answer(&[200, 500, 200, 503]);
        let mut last: BTreeMap<&str, String> = BTreeMap::new();
        for round in 0..5 {
            for prospect in ["bob@prospects.example", "cora@prospects.example", "dan@prospects.example"] {
                let mut letter = Letter::new(&ann.person.address, &[prospect]).subject(&format!("Round {round}"));
                if let Some(before) = last.get(prospect) {
                    letter = letter.answering(before);
                }
                world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
                world.crm.await_mail("message.captured", &letter.id);
                last.insert(prospect, letter.id);
            }
        }
        let journal = world.crm.events();
        wait_for("every event", PATIENCE, || {
            world.gateway.hasten();
            receiver.taken().len() >= journal.len()
        });
        world.gateway.settle();

        for post in receiver.posts() {
            secret.verify(&post.body, &post.headers).unwrap();
            assert_eq!(post.id(), text(&post.event(), "id"));
        }
        let taken = receiver.taken();
        assert_eq!(taken.len(), journal.len());
        // The same as in the journal, member for member.
        assert!(journal.iter().all(|event| taken.contains(event)));
        let of = |events: &[Value], conversation: &str| -> Vec<String> {
            let events = events.iter().filter(|event| event["data"]["conversation_id"] == conversation);
            events.map(|event| text(event, "id").to_owned()).collect()
        };
        let conversations = world.crm.list("/conversations");
        assert_eq!(conversations.len(), 3);
        for conversation in conversations {
            let id = text(&conversation, "id");
            assert_eq!(of(&taken, id), of(&journal, id));
            assert_eq!(of(&taken, id).len(), 6);
        }
    }

    fn what_failed_comes_again_with_the_same_id_and_body(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (receiver, at) = Receiver::start(&world);
        let (hook, secret) = subscribe(&world, at, &json!(["test.ping"]));
        receiver.answer(&[500, 302, 404, 200]);
        let pinged = world.crm.post(&format!("/webhooks/{hook}/test"), &json!({}));
        wait_for("the ping to be taken", PATIENCE, || {
            world.gateway.hasten();
            receiver.taken().len() == 1
        });
        world.gateway.settle();
        let posts = receiver.posts();
        assert_eq!(posts.iter().map(|post| post.answered).collect::<Vec<_>>(), [500, 302, 404, 200]);
        for post in &posts {
            assert_eq!((post.id(), &post.body), (text(&pinged, "event_id"), &posts[0].body));
            secret.verify(&post.body, &post.headers).unwrap();
        }
        assert_eq!(world.crm.get(&format!("/webhooks/{hook}"))["failing_since"], Value::Null);
    }

    fn an_endpoint_that_is_gone_is_disabled_and_told_of(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (receiver, at) = Receiver::start(&world);
        let (hook, _) = subscribe(&world, at, &json!(["test.ping"]));
        receiver.answer(&[410]);
        world.crm.post(&format!("/webhooks/{hook}/test"), &json!({}));
        world.crm.await_event("webhook.disabled", |data| data["webhook_id"] == hook.as_str());
        assert!(world.crm.get(&format!("/webhooks/{hook}"))["disabled_at"].is_string());
        assert_eq!(world.crm.try_post(&format!("/webhooks/{hook}/test"), &json!({})).status, 409);
        world.gateway.settle();
        assert_eq!(receiver.posts().len(), 1);
    }

    fn an_endpoint_that_is_gone_is_told_of_once(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let (receiver, at) = Receiver::start(&world);
        let (hook, _) = subscribe(&world, at, &json!(["conversation.created"]));
        receiver.answer(&[410, 410, 410]);
        receiver.be_silent(true);
        for prospect in ["bob@prospects.example", "cora@prospects.example", "dan@prospects.example"] {
            capture(&world, &ann, prospect, &[]);
        }
        wait_for("three posts at once", PATIENCE, || receiver.waiting_now() == 3);
        receiver.be_silent(false);
        wait_for("three answers", PATIENCE, || receiver.posts().len() == 3);
        world.gateway.settle();
        let told = world.crm.events_of("webhook.disabled");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["data"]["webhook_id"], hook.as_str());
    }

    fn an_endpoint_is_given_up_by_what_it_did_and_not_by_what_befell_us(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (receiver, at) = Receiver::start(&world);
        let (hook, _) = subscribe(&world, at, &json!(["contact.created"]));
        let shown = || world.crm.get(&format!("/webhooks/{hook}"));
        receiver.answer(&[500, 502, 503, 504, 404]);
        add_contact(&world, "bob");
        wait_for("the first try", PATIENCE, || receiver.posts().len() == 1);
        world.gateway.settle();
        // A crash while a job is in hand costs a claim, nothing else.
        world.gateway.execute("update jobs set attempt = attempt + 50");
        pass_time(&world);
        assert_eq!((&shown()["disabled_at"], text(&shown(), "last_failure")), (&Value::Null, "HTTP 502"));
        // This event has been tried to the end, but the endpoint has not been failing for long: it may take others.
        world.gateway.execute("update jobs set tries = 9");
        pass_time(&world);
        assert_eq!((&shown()["disabled_at"], text(&shown(), "last_failure")), (&Value::Null, "HTTP 503"));
        // It has been failing for long, but this event has hardly been tried.
        world.gateway.execute("update webhooks set failing_since = failing_since - 400000000000");
        world.gateway.execute("update jobs set tries = 1");
        pass_time(&world);
        assert_eq!((&shown()["disabled_at"], text(&shown(), "last_failure")), (&Value::Null, "HTTP 504"));
        world.gateway.execute("update jobs set tries = 9");
        pass_time(&world);
        let told = world.crm.await_event("webhook.disabled", |data| data["webhook_id"] == hook.as_str());
        assert!(text(&told["data"], "reason").contains("75 hours") && text(&told["data"], "reason").contains("HTTP 404"));
        assert!(shown()["disabled_at"].is_string());
        assert_eq!(receiver.posts().len(), 5);
    }

    fn keap_30_keap_31_an_endpoint_says_whether_the_crm_is_gone_or_keeps_us_out(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (receiver, at) = Receiver::start(&world);
        let (hook, _) = subscribe(&world, at, &json!(["contact.created"]));
        let shown = || world.crm.get(&format!("/webhooks/{hook}"));
        receiver.answer(&[403, 500, 410]);
        add_contact(&world, "bob");
        wait_for("to be kept out", PATIENCE, || shown()["last_failure"] == "HTTP 403");
        assert_eq!(text(&shown(), "title"), "Access denied for this app");
        assert!(text(&shown(), "advice").contains("taken back"), "{}", shown());
        // What merely fails is no cause of its own.
        pass_time(&world);
        wait_for("to fail", PATIENCE, || shown()["last_failure"] == "HTTP 500");
        assert_eq!((&shown()["title"], &shown()["advice"]), (&Value::Null, &Value::Null));
        pass_time(&world);
        wait_for("to be gone", PATIENCE, || shown()["disabled_at"].is_string());
        assert_eq!(text(&shown(), "title"), "This app has become unavailable");
        assert!(text(&shown(), "advice").contains("enable it again"), "{}", shown());
        let mended = world.crm.patch(&format!("/webhooks/{hook}"), &json!({ "disabled": false }));
        assert_eq!((&mended["title"], &mended["last_failure"]), (&Value::Null, &Value::Null));
    }

    fn an_endpoint_that_answers_nobody_holds_up_nobody_else(engine) {
        const EVENTS: usize = 60;
        let world = Sandboxed::start(engine, Behaviour::default());
        let ((silent, at), (good, good_at)) = (Receiver::start(&world), Receiver::start(&world));
        silent.be_silent(true);
        subscribe(&world, at, &json!(["contact.created"]));
        subscribe(&world, good_at, &json!(["contact.created"]));
        for number in 0..EVENTS {
            add_contact(&world, &format!("p{number}"));
        }
        wait_for("the good endpoint to have all", PATIENCE, || good.taken().len() == EVENTS);
        assert!(silent.waiting_at_most() <= 4, "{} workers wait for one endpoint", silent.waiting_at_most());
        silent.be_silent(false);
        wait_for("the other to have all", PATIENCE, || {
            world.gateway.hasten();
            silent.taken().len() >= EVENTS
        });
    }

    fn a_ping_waits_for_nothing_and_a_replay_has_what_waits_go_on(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let (receiver, at) = Receiver::start(&world);
        let (hook, _) = subscribe(&world, at, &json!(["contact.created"]));
        receiver.answer(&[500]);
        add_contact(&world, "bob");
        wait_for("the first try", PATIENCE, || receiver.posts().len() == 1);
        put_off(&world);
        world.crm.post(&format!("/webhooks/{hook}/test"), &json!({}));
        wait_for("the ping", PATIENCE, || receiver.taken_types() == ["test.ping"]);
        add_contact(&world, "cora");
        wait_for("another contact", PATIENCE, || receiver.taken_types() == ["test.ping", "contact.created"]);
        let first = &world.crm.events_of("contact.created")[0]["id"];
        world.crm.post(&format!("/webhooks/{hook}/replay"), &json!({ "event_ids": [first] }));
        wait_for("the first contact, twice", PATIENCE, || {
            receiver.taken().iter().filter(|event| event["id"] == *first).count() == 2
        });
        // The same after it was mended and enabled again.
        receiver.answer(&[500]);
        add_contact(&world, "dan");
        wait_for("a failure", PATIENCE, || receiver.posts().iter().filter(|post| post.answered == 500).count() == 2);
        put_off(&world);
        let enabled = world.crm.patch(&format!("/webhooks/{hook}"), &json!({ "disabled": false }));
        assert_eq!((&enabled["failing_since"], &enabled["last_failure"]), (&Value::Null, &Value::Null));
        wait_for("the last contact", PATIENCE, || {
            receiver.taken().iter().any(|event| event["data"]["email"] == "dan@prospects.example")
        });
    }

    fn a_merger_waits_for_what_was_told_of_the_conversation_that_ends(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let (receiver, at) = Receiver::start(&world);
        subscribe(&world, at, &json!(["conversation.created", "conversation.merged"]));
        receiver.answer(&[200, 500]);
        let elder = capture(&world, &ann, "bob@prospects.example", &[]);
        wait_for("the elder", PATIENCE, || receiver.posts().len() == 1);
        let younger = capture(&world, &ann, "bob@prospects.example", &[]);
        wait_for("the younger to fail", PATIENCE, || receiver.posts().len() == 2);
        put_off(&world);
        capture(&world, &ann, "bob@prospects.example", &[&elder, &younger]);
        world.crm.await_event("conversation.merged", |_| true);
        world.gateway.settle();
        assert_eq!(receiver.posts().len(), 2, "the merger overtook what was to be told before");
        wait_for("the merger", PATIENCE, || {
            pass_time(&world);
            receiver.taken().len() == 3
        });
        let expect = ["conversation.created", "conversation.created", "conversation.merged"];
        assert_eq!(receiver.taken_types(), expect);
    }

    fn what_is_merged_and_parted_again_is_told_in_that_order(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ann = world.user("ann", "Ann Lee");
        let (receiver, at) = Receiver::start(&world);
        subscribe(&world, at, &json!(["conversation.created", "conversation.merged", "conversation.split"]));
        // The one that will stand has something to be told of for longer.
        receiver.answer(&[500]);
        capture(&world, &ann, "bob@prospects.example", &[]);
        wait_for("the elder to fail", PATIENCE, || receiver.posts().len() == 1);
        capture(&world, &ann, "bob@prospects.example", &[]);
        wait_for("the younger", PATIENCE, || receiver.posts().len() == 2);
        put_off(&world);
        let [elder, younger] = &world.crm.events_of("conversation.created")[..] else { panic!("two conversations") };
        let [elder, younger] = [elder, younger].map(|event| text(&event["data"], "conversation_id"));
        let path = format!("/conversations/{younger}/merge");
        let merged = world.crm.post(&path, &json!({ "conversation_id": elder }));
        world.crm.post(path_of(&merged), &json!({}));
        world.crm.await_event("conversation.split", |_| true);
        let later = jiff::Timestamp::now().as_microsecond() + 1_800_000_000;
        wait_for("the split to stand behind the elder's", PATIENCE, || {
            world.gateway.count(&format!("select count(*) from jobs where head = 1 and run_at > {later}")) == 2
        });
        assert_eq!(receiver.posts().len(), 2, "something overtook what was to be told before");
        wait_for("the rest", PATIENCE, || {
            world.gateway.hasten();
            receiver.taken().len() == 4
        });
        let expect = ["conversation.created", "conversation.created", "conversation.merged", "conversation.split"];
        assert_eq!(receiver.taken_types(), expect);
    }

    fn what_waits_goes_to_another_address_at_once(engine) {
        let world = Sandboxed::start(engine, Behaviour::default());
        let ((former, at), (present, present_at)) = (Receiver::start(&world), Receiver::start(&world));
        let (hook, _) = subscribe(&world, at, &json!(["contact.created"]));
        former.answer(&[500]);
        add_contact(&world, "bob");
        wait_for("the first try", PATIENCE, || former.posts().len() == 1);
        put_off(&world);
        let moved = json!({ "url": format!("http://{present_at}/hook") });
        let moved = world.crm.patch(&format!("/webhooks/{hook}"), &moved);
        assert_eq!(moved["failing_since"], Value::Null);
        wait_for("the contact", PATIENCE, || present.taken_types() == ["contact.created"]);
        assert_eq!(former.posts().len(), 1);
    }
}
