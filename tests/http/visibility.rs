//! What a key that is bound to a user shows of the workspace's mail: every route that shows mail, each value of the policy's
//! `visibility`, each kind of key.
//!
//! Not here: how mail comes to be whose it is (`tests/flows`); here it is written into the store.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use mailweave::{
    core::{
        account::MailboxUid,
        event::{ContactEvent, Event},
        message::{CaptureField, Sighting, SightingRow},
    },
    mail::Address,
    store::mint,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Caller, both};

/// A message that Ann wrote to Gus, with an attachment, and everybody who may want to see it.
struct Office<'a> {
    acme: Caller<'a>,
    contact: String,
    message: String,
    conversation: String,
    attachment: String,
    ann: String,
    /// Each with a key of his own.
    callers: Vec<(&'static str, Caller<'a>)>,
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}

/// Announces what everybody sees.
async fn announce(acme: &Caller<'_>, email: &str) {
    let mut tx = acme.server.gateway.store.begin(acme.workspace_id().parse().unwrap()).await.unwrap();
    let event = Event::Contact {
        what: ContactEvent::Created,
        contact: mint(),
        email: Address::parse(email).unwrap(),
        message: None,
    };
    tx.announce(&event, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn bound<'a>(acme: &Caller<'a>, user: &str, scope: &str) -> Caller<'a> {
    acme.with_key(json!({ "scopes": [scope], "user_id": user })).await
}

impl<'a> Office<'a> {
    async fn new(acme: Caller<'a>) -> Self {
        announce(&acme, "before@x.example").await;
        let contact = acme.contact("gus@customer.example").await;
        let mut users = Vec::new();
        for name in ["ann", "bert", "carl", "dora", "emil", "fay"] {
            users.push(acme.sender(&format!("{name}@acme.example")).await);
        }
        let [ann, bert, carl, dora, emil, fay] = users.try_into().unwrap();
        let body = json!({
            "from_user_id": ann, "to": [{ "email": "gus@customer.example" }], "subject": "Desks", "text": "Ten.",
            "attachments": [{ "filename": "a.txt", "content": "aGk=" }],
        });
        let sent = acme.post("/messages", body).await.expect(202);
        let message = text(&sent, "id");
        let shown = acme.get(&format!("/messages/{message}")).await.expect(200);
        let attachment = text(&shown["attachments"][0], "id");
        // Bert has it in his account, Carl got a copy at his capture address, and Gus is Dora's.
        let accounts = acme.get("/accounts").await.items();
        let account = accounts.iter().find(|account| account["user_id"] == bert.as_str()).unwrap();
        let capture = text(&acme.get(&format!("/users/{carl}")).await.expect(200), "capture_address");
        let place = MailboxUid {
            account: text(account, "id").parse().unwrap(),
            mailbox: b"INBOX".to_vec(),
            uid_validity: 1,
            uid: 1,
        };
        let recipient = Address::parse(&capture).unwrap();
        let copy = Sighting::Capture { inbound: mint(), recipient, field: CaptureField::Bcc };
        let mut tx = acme.server.gateway.store.begin(acme.workspace_id().parse().unwrap()).await.unwrap();
        for sighting in [Sighting::Account(place), copy] {
            let row = SightingRow { sighting, at: Timestamp::UNIX_EPOCH };
            assert!(tx.add_sighting(message.parse().unwrap(), &row).await.unwrap());
        }
        tx.commit().await.unwrap();
        acme.patch(&format!("/contacts/{contact}"), json!({ "assigned_user_id": dora })).await.expect(200);
        acme.patch(&format!("/users/{fay}"), json!({ "role": "admin" })).await.expect(200);
        let callers = vec![
            ("workspace", acme.with_key(json!({ "scopes": ["read"] })).await),
            ("administrator", acme.clone()),
            ("ann", bound(&acme, &ann, "read").await),
            ("bert", bound(&acme, &bert, "read").await),
            ("carl", bound(&acme, &carl, "read").await),
            ("dora", bound(&acme, &dora, "read").await),
            ("emil", bound(&acme, &emil, "read").await),
            ("emil's administration", bound(&acme, &emil, "admin").await),
            ("fay", bound(&acme, &fay, "read").await),
        ];
        let conversation = text(&sent, "conversation_id");
        Self { acme, contact, message, conversation, attachment, ann, callers }
    }

    async fn choose(&self, visibility: &str) {
        let policy = json!({ "preset": "mailweave", "overrides": { "visibility": visibility } });
        self.acme.put("/policy", policy).await.expect(200);
    }

    /// What is asked for by its id: a missing one is answered in the same words.
    fn things(&self) -> [String; 5] {
        let Self { message, conversation, attachment, .. } = self;
        [
            format!("/messages/{message}"),
            format!("/messages/{message}/raw"),
            format!("/messages/{message}/attachments/{attachment}"),
            format!("/conversations/{conversation}"),
            format!("/conversations/{conversation}/messages"),
        ]
    }

    /// Lists, with what stands in them of what may be hidden.
    fn lists(&self) -> [(String, &str); 8] {
        let Self { message, conversation, contact, ann, .. } = self;
        [
            ("/conversations".to_owned(), conversation),
            ("/conversations?q=desk".to_owned(), conversation),
            (format!("/conversations?contact_id={contact}"), conversation),
            (format!("/conversations?user_id={ann}"), conversation),
            (format!("/contacts/{contact}/timeline"), message),
            ("/events".to_owned(), conversation),
            ("/decisions".to_owned(), message),
            (format!("/decisions?message_id={message}"), message),
        ]
    }

    /// Who sees it, by every route.
    async fn who_sees(&self) -> BTreeSet<&'static str> {
        let mut seeing = BTreeSet::new();
        for (name, caller) in &self.callers {
            let is_shown = caller.get(&self.things()[0]).await.status == 200;
            for path in self.things() {
                let found = caller.get(&path).await;
                assert_eq!(found.status, if is_shown { 200 } else { 404 }, "{name}: {path}");
                if !is_shown {
                    assert_eq!(
                        anonymous(&found),
                        anonymous(&caller.get(&missing(&path)).await),
                        "{name}: {path}"
                    );
                }
            }
            for (path, id) in self.lists() {
                let list = caller.get(&path).await;
                list.expect(200);
                assert_eq!(list.text().contains(id), is_shown, "{name}: {path} {}", list.text());
            }
            assert_eq!(self.streamed(caller).await.contains(&self.conversation), is_shown, "{name}: stream");
            if is_shown {
                seeing.insert(*name);
            }
        }
        seeing
    }

    /// What the stream of events brings, up to something that everybody sees.
    async fn streamed(&self, caller: &Caller<'_>) -> String {
        let last = self.acme.get("/events?types=contact.created").await.items().pop().unwrap();
        let first = self.acme.get("/events?limit=1").await.items().pop().unwrap();
        let path = format!("/events/stream?after={}", text(&first, "id"));
        let response = caller.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = response.bytes_stream();
        let mut brought = String::new();
        while !brought.contains(&text(&last, "id")) {
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await;
            brought.push_str(&String::from_utf8_lossy(&chunk.expect("in time").unwrap().unwrap()));
        }
        brought
    }
}

fn missing(path: &str) -> String {
    let nothing = |segment: &str| match segment.split_once('_') {
        Some((prefix, rest)) if rest.len() == 26 => format!("{prefix}_01jd0000000000000000000000"),
        _ => segment.to_owned(),
    };
    path.split('/').map(nothing).collect::<Vec<_>>().join("/")
}

/// A problem without what differs from request to request.
fn anonymous(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    (answer.status, body)
}

both! {
    async fn every_route_shows_a_user_what_he_may_see_and_hides_the_rest_as_if_it_were_not_there(api) {
        let office = Office::new(api.workspace("acme").await).await;
        // Something that all see, after what may be hidden.
        announce(&office.acme, "after@x.example").await;
        let all: BTreeSet<&str> = office.callers.iter().map(|(name, _)| *name).collect();
        office.choose("everyone").await;
        assert_eq!(office.who_sees().await, all);
        office.choose("assigned").await;
        let without = |names: &[&str]| all.iter().copied().filter(|name| !names.contains(name)).collect::<BTreeSet<_>>();
        assert_eq!(office.who_sees().await, without(&["emil"]));
        office.choose("owner").await;
        assert_eq!(office.who_sees().await, without(&["dora", "emil"]));
    }

    async fn pages_are_full_and_end_though_much_is_hidden(api) {
        let acme = api.workspace("acme").await;
        let (ann, bert) = (acme.sender("ann@acme.example").await, acme.sender("bert@acme.example").await);
        let contact = acme.contact("gus@customer.example").await;
        acme.put("/policy", json!({ "preset": "mailweave", "overrides": { "visibility": "owner" } })).await.expect(200);
        let mut own = BTreeSet::new();
        for number in 0..24 {
            let by = if number % 4 == 0 { &bert } else { &ann };
            let sent = acme.send(by, "gus@customer.example", &format!("Number {number}")).await;
            own.extend(Some(text(&sent, "id")).filter(|_| by == &bert));
        }
        let berts = bound(&acme, &bert, "read").await;
        for (path, field) in [(format!("/contacts/{contact}/timeline"), "id"), ("/conversations".to_owned(), "id"), ("/events".to_owned(), "id")] {
            let (mut pages, mut cursor, mut found) = (0, String::new(), Vec::new());
            loop {
                let page = berts.get(&format!("{path}?limit=2{cursor}")).await.expect(200);
                let items = page["items"].as_array().unwrap().clone();
                found.extend(items.iter().map(|item| text(item, field)));
                pages += 1;
                let Some(next) = page["next_cursor"].as_str() else { break };
                assert_eq!(items.len(), 2, "{path}");
                cursor = format!("&cursor={next}");
            }
            let distinct: BTreeSet<_> = found.iter().collect();
            assert_eq!((distinct.len(), pages), (found.len(), found.len().div_ceil(2)), "{path}");
            if path.ends_with("timeline") {
                assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), own);
            } else if path == "/conversations" {
                assert_eq!(found.len(), 6);
            }
        }
    }

    async fn what_is_hidden_can_be_neither_answered_nor_merged(api) {
        let office = Office::new(api.workspace("acme").await).await;
        office.choose("owner").await;
        let users = office.acme.get("/users").await.items();
        let emil = users.iter().find(|user| user["email"] == "emil@acme.example").unwrap();
        let emil = text(emil, "id");
        let caller = office.acme.with_key(json!({ "scopes": ["read", "write", "send"], "user_id": emil })).await;
        let own = caller.send(&emil, "gus@customer.example", "Chairs").await;
        let merge = format!("/conversations/{}/merge", text(&own, "conversation_id"));
        caller.post(&merge, json!({ "conversation_id": office.conversation })).await.refused(422, "invalid", Some("conversation_id"));
        let hidden = format!("/conversations/{}/merge", office.conversation);
        assert_eq!(caller.post(&hidden, json!({ "conversation_id": own["conversation_id"] })).await.status, 404);
        for (field, id) in [("conversation_id", &office.conversation), ("reply_to_message_id", &office.message)] {
            let mut body = json!({ "from_user_id": emil, "to": [{ "email": "gus@customer.example" }], "subject": "x", "text": "y" });
            body[field] = json!(id);
            caller.post("/messages", body).await.refused(422, "invalid", Some(field));
        }
    }
}
