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

use crate::{
    both,
    crm::text,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, wait_for},
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
        let answered = receiver.answers.lock().unwrap().pop_front().unwrap_or(200);
        receiver.posts.lock().unwrap().push(Post { headers, body: body.to_vec(), answered });
        StatusCode::from_u16(answered).unwrap()
    }

    fn answer(&self, answers: &[u16]) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The events that were answered 2xx, in order of arrival.
    fn taken(&self) -> Vec<Value> {
        self.posts().iter().filter(|post| post.answered < 300).map(Post::event).collect()
    }
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
}
