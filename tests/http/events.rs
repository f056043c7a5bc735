//! The journal, its stream, and webhooks.

use std::time::Duration;

use futures_util::StreamExt as _;
use mailweave::core::{
    event::{ContactEvent, Event},
    ids::ContactId,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::server::{Answer, Caller, both};

/// Reads server-sent events until there are so many.
struct Reader {
    response: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Reader {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response: response.bytes_stream().boxed(), text: String::new() }
    }

    async fn open(caller: &Caller<'_>, query: &str, last: Option<&str>) -> Self {
        let mut request = caller.request(Method::GET, &format!("/events/stream{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Self::of(request.send().await.unwrap())
    }

    /// The next event: its id, type and data.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
                };
                if let (Some(id), Some(kind), Some(data)) = (field("id:"), field("event:"), field("data:")) {
                    return Some((id, kind, serde_json::from_str(&data).unwrap()));
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.next())
                .await
                .expect("an event in time");
            self.text.push_str(std::str::from_utf8(&chunk?.ok()?).unwrap());
        }
    }
}

/// Announces something that has a number in it.
async fn announce(caller: &Caller<'_>, email: &str) {
    let mut tx = caller.server.gateway.store.begin(caller.workspace_id().parse().unwrap()).await.unwrap();
    let contact: ContactId = mailweave::store::mint();
    let event =
        Event::Contact { what: ContactEvent::Created, contact, email: email.parse().unwrap(), message: None };
    tx.announce(&event, mailweave::flow::now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn webhook(caller: &Caller<'_>) -> String {
    let made = caller.post("/webhooks", json!({ "url": "https://crm.example.com/hook" })).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

both! {
    async fn the_journal_is_read_in_order_from_any_point(api) {
        let acme = api.workspace("acme").await;
        for n in 0..5 {
            announce(&acme, &format!("p{n}@x.example")).await;
        }
        let hook = webhook(&acme).await;
        acme.post(&format!("/webhooks/{hook}/test"), json!({})).await.expect(202);
        let all = acme.get("/events").await.expect(200);
        assert_eq!(all["next_cursor"], Value::Null);
        let items = all["items"].as_array().unwrap();
        let emails: Vec<_> = items.iter().filter_map(|event| event["data"]["email"].as_str()).collect();
        assert_eq!(emails, ["p0@x.example", "p1@x.example", "p2@x.example", "p3@x.example", "p4@x.example"]);
        assert_eq!((&items[0]["type"], &items[0]["workspace_id"]), (&json!("contact.created"), &json!(acme.workspace_id())));
        assert!(items[0]["created_at"].is_string() && items[0]["id"].as_str().unwrap().starts_with("evt_"));
        let after = items[2]["id"].as_str().unwrap();
        assert_eq!(acme.get(&format!("/events?after={after}")).await.items(), items[3..]);
        assert_eq!(acme.get("/events?types=test.ping").await.items(), items[5..]);
        let page = acme.get("/events?limit=4").await.expect(200);
        let cursor = page["next_cursor"].as_str().unwrap();
        assert_eq!(acme.get(&format!("/events?after={cursor}&limit=4")).await.items(), items[4..]);
        assert_eq!(acme.get(&format!("/events?cursor={cursor}")).await.items(), items[4..]);
        acme.get("/events?after=evt_01jd0000000000000000000000").await.refused(422, "invalid", Some("after"));
        acme.get("/events?after=nonsense").await.refused(422, "invalid", Some("after"));
        acme.get("/events?types=nonsense").await.refused(422, "invalid", Some("types"));
    }

    async fn a_stream_brings_events_in_order_as_they_happen(api) {
        let acme = api.workspace("acme").await;
        announce(&acme, "before@x.example").await;
        let mut stream = Reader::open(&acme, "", None).await;
        let mut resumed = Vec::new();
        for n in 0..250 {
            announce(&acme, &format!("p{n}@x.example")).await;
        }
        for n in 0..250 {
            let (id, kind, data) = stream.next().await.unwrap();
            assert_eq!((kind.as_str(), &data["data"]["email"]), ("contact.created", &json!(format!("p{n}@x.example"))));
            assert_eq!(data["id"], id);
            resumed.push(id);
        }
        // What happens now arrives before anybody would look by himself. Of several the middle one counts: a busy machine may
        // stop any one.
        let mut delays = Vec::new();
        for n in 0..5 {
            let started = std::time::Instant::now();
            announce(&acme, &format!("now{n}@x.example")).await;
            assert_eq!(stream.next().await.unwrap().2["data"]["email"], format!("now{n}@x.example"));
            delays.push(started.elapsed());
        }
        delays.sort_unstable();
        assert!(delays[2] < Duration::from_millis(900), "{delays:?}");
        // A client that comes back misses nothing.
        let mut again = Reader::open(&acme, "", Some(&resumed[248])).await;
        assert_eq!(again.next().await.unwrap().0, resumed[249]);
        assert_eq!(again.next().await.unwrap().2["data"]["email"], "now0@x.example");
        let mut again = Reader::open(&acme, &format!("?after={}", resumed[249]), None).await;
        assert_eq!(again.next().await.unwrap().2["data"]["email"], "now0@x.example");
        let unknown = acme.request(Method::GET, "/events/stream").header("Last-Event-ID", "evt_1");
        Answer::of(unknown).await.refused(422, "invalid", Some("Last-Event-ID"));
    }

    async fn a_stream_brings_what_was_asked_for_from_its_own_workspace(api) {
        let (acme, other) = (api.workspace("acme").await, api.workspace("other").await);
        let hook = webhook(&acme).await;
        let mut stream = Reader::open(&acme, "?types=test.ping", None).await;
        announce(&other, "foreign@x.example").await;
        announce(&acme, "own@x.example").await;
        acme.post(&format!("/webhooks/{hook}/test"), json!({})).await.expect(202);
        assert_eq!(stream.next().await.unwrap().1, "test.ping");
    }

    async fn streams_are_bounded_and_end_with_their_key(api) {
        let acme = api.workspace("acme").await;
        let made = acme.post("/keys", json!({ "name": "x", "scopes": ["read"] })).await.expect(201);
        let reader = Caller { key: made["secret"].as_str().unwrap().to_owned(), ..acme.clone() };
        let mut streams = Vec::new();
        for _ in 0..32 {
            streams.push(Reader::open(&reader, "", None).await);
        }
        let more = Answer::of(reader.request(Method::GET, "/events/stream")).await;
        more.refused(429, "limit_reached", None);
        assert!(more.headers.contains_key("retry-after"));
        acme.delete(&format!("/keys/{}", made["id"].as_str().unwrap())).await.expect(204);
        assert_eq!(streams.pop().unwrap().next().await, None);
    }

    async fn streams_end_with_the_gateway(api) {
        let acme = api.workspace("acme").await;
        let mut stream = Reader::open(&acme, "", None).await;
        api.shutdown();
        assert_eq!(stream.next().await, None);
    }

    async fn an_endpoint_is_kept_with_its_secret_shown_once(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "url": "https://crm.example.com/hook?x=1", "events": ["message.sent", "message.bounced", "message.sent"] });
        let made = acme.post("/webhooks", body).await.expect(201);
        let secret = made["secret"].as_str().unwrap();
        assert!(secret.starts_with("whsec_"));
        assert_eq!(made["events"], json!(["message.bounced", "message.sent"]));
        let path = format!("/webhooks/{}", made["id"].as_str().unwrap());
        let shown = acme.get(&path).await;
        assert!(!shown.text().contains(secret));
        assert_eq!(acme.get("/webhooks").await.items(), [shown.expect(200)]);
        let changed = acme.patch(&path, json!({ "events": null, "url": "https://crm.example.com/new" })).await.expect(200);
        assert_eq!((&changed["events"], &changed["url"]), (&Value::Null, &json!("https://crm.example.com/new")));
        let rotated = acme.post(&format!("{path}/rotate-secret"), json!({})).await.expect(200);
        assert!(rotated["secret"].as_str().unwrap().starts_with("whsec_") && rotated["secret"] != secret);
        let stopped = acme.patch(&path, json!({ "disabled": true })).await.expect(200);
        assert!(stopped["disabled_at"].is_string());
        acme.post(&format!("{path}/test"), json!({})).await.refused(409, "webhook_disabled", None);
        assert_eq!(acme.patch(&path, json!({ "disabled": false })).await.expect(200)["disabled_at"], Value::Null);
        assert_eq!(acme.delete(&path).await.status, 204);
        acme.get(&path).await.refused(404, "not_found", None);
    }

    async fn bad_endpoints_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        for url in ["nonsense", "ftp://crm.example.com/", "http://crm.example.com/", "https://user:pw@crm.example.com/", "https://crm.example.com/#x", "file:///etc/passwd", "https://", "https://169.254.169.254/latest", "https://[::1]/", "https://0xa.1/x/", "https://crm.example.com:6379/"] {
            acme.post("/webhooks", json!({ "url": url })).await.refused(422, "invalid", Some("url"));
        }
        for url in ["http://127.0.0.1:9/hook", "https://127.0.0.1:8443/hook", "https://crm.example.com:443/hook"] {
            acme.post("/webhooks", json!({ "url": url })).await.expect(201);
        }
        let refused = async |events: Value, param: &str| {
            let body = json!({ "url": "https://crm.example.com/", "events": events });
            acme.post("/webhooks", body).await.refused(422, "invalid", Some(param));
        };
        refused(json!([]), "events").await;
        refused(json!(["message.sent", "nonsense"]), "events[1]").await;
    }

    async fn past_events_are_posted_again_when_asked_for(api) {
        let acme = api.workspace("acme").await;
        for n in 0..3 {
            announce(&acme, &format!("p{n}@x.example")).await;
        }
        let hook = webhook(&acme).await;
        let path = format!("/webhooks/{hook}/replay");
        let events = acme.get("/events").await.items();
        // A ping of another endpoint is none of its business.
        for tested in [&webhook(&acme).await, &hook] {
            acme.post(&format!("/webhooks/{tested}/test"), json!({})).await.expect(202);
        }
        let replayed = acme.post(&path, json!({ "after": events[0]["id"] })).await.expect(202);
        assert_eq!(replayed, json!({ "queued": 3, "next_after": null }));
        let these = json!({ "event_ids": [events[2]["id"], events[0]["id"], events[2]["id"]] });
        assert_eq!(acme.post(&path, these).await.expect(202)["queued"], 2);
        acme.post(&path, json!({})).await.refused(422, "invalid", Some("after"));
        acme.post(&path, json!({ "event_ids": ["evt_01jd0000000000000000000000"] })).await.refused(422, "invalid", Some("event_ids[0]"));
        acme.post(&path, json!({ "after": "evt_01jd0000000000000000000000" })).await.refused(422, "invalid", Some("after"));
    }

    async fn a_long_past_is_posted_again_page_by_page(api) {
        let acme = api.workspace("acme").await;
        for n in 0..205 {
            announce(&acme, &format!("p{n}@x.example")).await;
        }
        let hook = webhook(&acme).await;
        let path = format!("/webhooks/{hook}/replay");
        let first: Vec<_> = acme.get("/events?limit=200").await.items().iter().map(|event| event["id"].clone()).collect();
        let page = acme.post(&path, json!({ "after": first[0] })).await.expect(202);
        assert_eq!(page["queued"], 200);
        let rest = acme.post(&path, json!({ "after": page["next_after"] })).await.expect(202);
        assert_eq!(rest, json!({ "queued": 4, "next_after": null }));
        let too_many = [&first[..], &first[..1]].concat();
        acme.post(&path, json!({ "event_ids": too_many })).await.refused(422, "invalid", Some("event_ids"));
    }

    async fn a_contact_that_is_added_is_announced_and_one_that_is_changed_is_not(api) {
        let acme = api.workspace("acme").await;
        let made = acme.post("/contacts", json!({ "email": "Ann@x.example" })).await.expect(201);
        acme.patch(&format!("/contacts/{}", made["id"].as_str().unwrap()), json!({ "name": "Ann" })).await.expect(200);
        for status in [201, 200] {
            let body = json!({ "email": "bob@x.example" });
            acme.put("/contacts/by-external-id/b", body).await.expect(status);
        }
        for _ in 0..2 {
            let lines = "{\"email\":\"carl@x.example\"}\n{\"email\":\"nonsense\"}\n";
            let import = acme.request(Method::POST, "/contacts/import").header("Content-Type", "application/x-ndjson");
            Answer::of(import.body(lines)).await.expect(200);
        }
        let events = acme.get("/events").await.items();
        assert!(events.iter().all(|event| event["type"] == "contact.created"), "{events:?}");
        let emails: Vec<_> = events.iter().map(|event| event["data"]["email"].as_str().unwrap()).collect();
        assert_eq!(emails, [made["email"].as_str().unwrap(), "bob@x.example", "carl@x.example"]);
        assert_eq!(events[0]["data"], json!({ "contact_id": made["id"], "email": made["email"] }));
    }
}
