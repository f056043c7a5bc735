//! Who may do what: keys, scopes, and the walls between workspaces, route by route.

use mailweave::{
    core::people::Scope,
    http::{Need, ROUTES},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{ADMIN_KEY, Answer, Caller, account, both};

/// A workspace with one of everything, by the name of the path's first word.
struct Furnished<'a> {
    caller: Caller<'a>,
    ids: Vec<(&'static str, String)>,
    attachment: String,
}

impl<'a> Furnished<'a> {
    async fn new(caller: Caller<'a>) -> Self {
        let user = caller.sender("ann@same.example").await;
        let text = |value: &Value, field: &str| value[field].as_str().unwrap().to_owned();
        caller
            .put("/contacts/by-external-id/crm-1", json!({ "email": "carl@same.example" }))
            .await
            .expect(201);
        let contact = text(&caller.get("/contacts").await.items()[0], "id");
        let body = json!({
            "from_user_id": user, "to": [{ "email": "carl@same.example" }], "subject": "Same", "text": "Same.",
            "attachments": [{ "filename": "a.txt", "content": "aGk=" }],
        });
        let sent = caller.post("/messages", body).await.expect(202);
        let message = text(&sent, "id");
        let attachment =
            caller.get(&format!("/messages/{message}")).await.expect(200)["attachments"][0]["id"].clone();
        let webhook =
            caller.post("/webhooks", json!({ "url": "https://crm.example.com/" })).await.expect(201);
        let smarthost = json!({ "host": "smtp.p.example", "port": 587, "security": "tls", "username": "a", "password": "b", "from_domains": ["same.example"] });
        caller.put("/smarthost", smarthost).await.expect(200);
        let other = caller.send(&user, "carl@same.example", "Another").await;
        let merge = format!("/conversations/{}/merge", text(&sent, "conversation_id"));
        let merged =
            caller.post(&merge, json!({ "conversation_id": other["conversation_id"] })).await.expect(200);
        let repair = text(&merged, "undo").split('/').nth(5).unwrap().to_owned();
        let quarantined = caller.quarantined(&user).await;
        let ids = vec![
            ("repairs", repair),
            ("quarantine", quarantined),
            ("users", user),
            ("contacts", contact),
            ("accounts", text(&caller.get("/accounts").await.items()[0], "id")),
            ("keys", text(&caller.get("/keys").await.items()[0], "id")),
            ("conversations", text(&sent, "conversation_id")),
            ("messages", message),
            ("webhooks", text(&webhook, "id")),
        ];
        Self { caller, ids, attachment: attachment.as_str().unwrap().to_owned() }
    }

    /// A route's path below the workspace, with ids of this one.
    fn path(&self, path: &str) -> String {
        let below = path.strip_prefix("/v1/workspaces/{ws}").unwrap();
        let noun = below.split('/').nth(1).unwrap_or_default();
        let id = self.ids.iter().find(|(name, _)| *name == noun).map_or("", |(_, id)| id);
        below.replace("{id}", id).replace("{external_id}", "crm-1").replace("{attachment}", &self.attachment)
    }
}

/// The same path with ids that nothing has.
fn missing(path: &str) -> String {
    let nothing = |segment: &str| match segment.split_once('_') {
        Some((prefix, rest)) if rest.len() == 26 => format!("{prefix}_01jd0000000000000000000000"),
        _ => segment.to_owned(),
    };
    path.split('/').map(nothing).collect::<Vec<_>>().join("/").replace("crm-1", "crm-none")
}

/// A problem without what differs from request to request.
fn anonymous(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    (answer.status, body)
}

fn in_a_workspace() -> impl Iterator<Item = &'static mailweave::http::Route> {
    ROUTES.iter().filter(|route| route.path.contains("{ws}"))
}

both! {
    async fn nothing_of_another_workspace_can_be_told_from_nothing_at_all(api) {
        let (ours, theirs) = (api.workspace("ours").await, api.workspace("theirs").await);
        let mine = Furnished::new(ours).await;
        let foreign = Furnished::new(theirs).await;
        let theirs_by_slug = Caller { base: "/v1/workspaces/theirs".into(), ..mine.caller.clone() };
        let theirs_by_id = Caller { base: foreign.caller.base.clone(), ..mine.caller.clone() };
        let nowhere = Caller { base: "/v1/workspaces/ws_01jd0000000000000000000000".into(), ..mine.caller.clone() };
        for route in in_a_workspace() {
            let path = foreign.path(route.path);
            let ask = async |caller: &Caller<'_>, path: &str| Answer::of(caller.request(route.method.clone(), path).json(&json!({}))).await;
            let none = ask(&nowhere, &path).await;
            assert_eq!(none.status, 404, "{} {}", route.method, route.path);
            for other in [&theirs_by_slug, &theirs_by_id] {
                assert_eq!(anonymous(&ask(other, &path).await), anonymous(&none), "{} {}", route.method, route.path);
            }
            if path == missing(&path) || path.contains("crm-1") {
                continue;
            }
            // A foreign id in one's own workspace.
            let (found, none) = (ask(&mine.caller, &path).await, ask(&mine.caller, &missing(&path)).await);
            assert!([404, 422].contains(&found.status), "{} {}: {}", route.method, route.path, found.text());
            assert_eq!(anonymous(&found), anonymous(&none), "{} {}", route.method, route.path);
        }
        // All of it is still there, and nothing of it is in our lists.
        for route in in_a_workspace().filter(|route| route.method == Method::GET && !route.path.ends_with("/stream")) {
            assert_eq!(foreign.caller.get(&foreign.path(route.path)).await.status, 200, "{}", route.path);
            let ours = mine.caller.get(&mine.path(route.path)).await;
            assert_eq!(ours.status, 200, "{}", route.path);
            for (_, id) in &foreign.ids {
                assert!(!ours.text().contains(id.as_str()), "{} shows {id}", route.path);
            }
        }
    }

    async fn foreign_ids_in_fields_are_missing_ones(api) {
        let (ours, theirs) = (api.workspace("ours").await, api.workspace("theirs").await);
        let foreign = Furnished::new(theirs).await;
        let user = ours.sender("ann@ours.example").await;
        let id = |noun: &str| foreign.ids.iter().find(|(name, _)| *name == noun).unwrap().1.clone();
        let message = json!({ "from_user_id": user, "to": [{ "email": "a@b.example" }], "subject": "x", "text": "y" });
        let with = |field: &str, value: String| {
            let mut body = message.clone();
            body[field] = value.into();
            body
        };
        for (path, body, param) in [
            ("/messages", with("from_user_id", id("users")), "from_user_id"),
            ("/messages", with("conversation_id", id("conversations")), "conversation_id"),
            ("/messages", with("reply_to_message_id", id("messages")), "reply_to_message_id"),
            ("/contacts", json!({ "email": "a@b.example", "assigned_user_id": id("users") }), "assigned_user_id"),
            ("/contacts", json!({ "email": "a@b.example", "related_contact_ids": [id("contacts")] }), "related_contact_ids[0]"),
            ("/accounts", account(&id("users"), "a@b.example"), "user_id"),
            ("/keys", json!({ "name": "x", "scopes": ["read"], "user_id": id("users") }), "user_id"),
        ] {
            ours.post(path, body).await.refused(422, "invalid", Some(param));
        }
        assert_eq!(ours.get(&format!("/conversations?contact_id={}", id("contacts"))).await.items(), Vec::<Value>::new());
        assert_eq!(ours.get(&format!("/accounts?user_id={}", id("users"))).await.items(), Vec::<Value>::new());
        let event = foreign.caller.post(&format!("/webhooks/{}/test", id("webhooks")), json!({})).await.expect(202);
        let event = event["event_id"].as_str().unwrap();
        ours.get(&format!("/events?after={event}")).await.refused(422, "invalid", Some("after"));
    }

    async fn every_route_asks_for_its_scope(api) {
        let acme = api.workspace("acme").await;
        let furnished = Furnished::new(acme.clone()).await;
        let scopes = [("read", Scope::Read), ("write", Scope::Write), ("send", Scope::Send), ("smtp", Scope::Smtp)];
        for (word, scope) in scopes {
            let caller = acme.with_key(json!({ "scopes": [word] })).await;
            for route in in_a_workspace() {
                let may = route.need == Need::Scope(scope);
                if may && route.path.ends_with("/stream") {
                    continue;
                }
                // Nothing is really there, so that nothing is changed.
                let path = missing(&furnished.path(route.path));
                let answer = Answer::of(caller.request(route.method.clone(), &path).json(&json!({ "nonsense": 1 }))).await;
                if may {
                    assert!(![401, 403].contains(&answer.status), "{word}: {} {}: {}", route.method, route.path, answer.text());
                } else {
                    answer.refused(403, "forbidden", None);
                }
            }
        }
        for route in ROUTES.iter().filter(|route| route.need == Need::Instance) {
            let path = route.path.replace("{ws}", "acme");
            let answer = api.request(route.method.clone(), &path).bearer_auth(&acme.key).json(&json!({}));
            Answer::of(answer).await.refused(403, "forbidden", None);
        }
    }

    async fn without_a_good_key_nothing_is_served(api) {
        let acme = api.workspace("acme").await;
        for route in ROUTES {
            let path = route.path.replace("{ws}", "acme").replace(['{', '}'], "");
            let answer = Answer::of(api.request(route.method.clone(), &path)).await;
            answer.refused(401, "unauthorized", None);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        let half = &acme.key[..acme.key.len() - 1];
        for key in ["", "nonsense", half, &ADMIN_KEY[1..], "mwk_"] {
            let answer = Answer::of(api.request(Method::GET, "/v1/workspaces/acme/users").bearer_auth(key)).await;
            answer.refused(401, "unauthorized", None);
        }
        let in_query = format!("/v1/workspaces/acme/users?key={}", acme.key);
        Answer::of(api.request(Method::GET, &in_query)).await.refused(401, "unauthorized", None);
        let basic = api.request(Method::GET, "/v1/workspaces/acme/users").basic_auth("x", Some(&acme.key));
        Answer::of(basic).await.refused(401, "unauthorized", None);
    }

    async fn a_key_bound_to_a_user_acts_as_that_user_only(api) {
        let acme = api.workspace("acme").await;
        let (ann, bob) = (acme.sender("ann@acme.example").await, acme.sender("bob@acme.example").await);
        let key = acme.with_key(json!({ "scopes": ["admin"], "user_id": ann })).await;
        let message = |user: &str| json!({ "from_user_id": user, "to": [{ "email": "c@d.example" }], "subject": "x", "text": "y" });
        key.post("/messages", message(&ann)).await.expect(202);
        key.post("/messages", message(&bob)).await.refused(403, "forbidden", None);
        key.post("/accounts", account(&bob, "b2@acme.example")).await.refused(403, "forbidden", None);
        key.post("/accounts", account(&ann, "a2@acme.example")).await.expect(201);
        // Nor does he connect a mailbox, his own servers for all that anybody knows, under another's address.
        acme.user("cee@acme.example").await;
        let as_another = key.post("/accounts", account(&ann, "cee@acme.example")).await;
        as_another.refused(422, "invalid", Some("email"));
        let bobs = acme.get(&format!("/accounts?user_id={bob}")).await.items()[0]["id"].as_str().unwrap().to_owned();
        key.post(&format!("/accounts/{bobs}/disconnect"), json!({ "history": "keep" })).await.refused(403, "forbidden", None);
        key.patch(&format!("/accounts/{bobs}"), json!({ "email": "x@y.example" })).await.refused(403, "forbidden", None);
        key.patch(&format!("/users/{bob}"), json!({ "name": "x" })).await.refused(403, "forbidden", None);
        key.patch(&format!("/users/{ann}"), json!({ "role": "admin" })).await.refused(403, "forbidden", None);
        key.patch(&format!("/users/{ann}"), json!({ "name": "Ann" })).await.expect(200);
        // The addresses of a user are those he may send as.
        for who in [json!({ "aliases": ["ceo@acme.example"] }), json!({ "email": "ceo@acme.example" })] {
            key.patch(&format!("/users/{ann}"), who).await.refused(403, "forbidden", None);
        }
        key.patch(&format!("/users/{ann}"), json!({ "email": "ann@acme.example", "aliases": [] })).await.expect(200);
        // An address that his account moves to is his only where the workspace says so, and nobody else's.
        let anns = acme.get(&format!("/accounts?user_id={ann}")).await.items()[0]["id"].as_str().unwrap().to_owned();
        acme.post("/contacts", json!({ "email": "carl@acme.example" })).await.expect(201);
        for (caller, email, is_his) in [
            (&key, "ceo@acme.example", false),
            (&acme, "carl@acme.example", false),
            (&acme, "lee@acme.example", true),
        ] {
            let moved = json!({ "email": email, "auth": account(&ann, email)["auth"] });
            caller.patch(&format!("/accounts/{anns}"), moved).await.expect(200);
            let aliases = acme.get(&format!("/users/{ann}")).await.expect(200)["aliases"].to_string();
            assert_eq!(aliases.contains(email), is_his, "{email}: {aliases}");
        }
        acme.patch(&format!("/users/{ann}"), json!({ "aliases": [] })).await.expect(200);
        key.delete(&format!("/users/{bob}")).await.refused(403, "forbidden", None);
        key.delete(&format!("/users/{ann}")).await.refused(403, "forbidden", None);
        let webhook = acme.post("/webhooks", json!({ "url": "https://crm.example.com/" })).await.expect(201);
        let webhook = format!("/webhooks/{}", webhook["id"].as_str().unwrap());
        key.post(&format!("{webhook}/test"), json!({})).await.refused(403, "forbidden", None);
        key.post(&format!("{webhook}/replay"), json!({ "event_ids": [] })).await.refused(403, "forbidden", None);
        key.post("/keys", json!({ "name": "x", "scopes": ["read"] })).await.refused(403, "forbidden", None);
        key.post("/keys", json!({ "name": "x", "scopes": ["read"], "user_id": bob })).await.refused(403, "forbidden", None);
        key.post("/keys", json!({ "name": "x", "scopes": ["read"], "user_id": ann })).await.expect(201);
        key.post("/users", json!({ "email": "x@y.example" })).await.refused(403, "forbidden", None);
        let hook = acme.post("/webhooks", json!({ "url": "https://crm.example.com/" })).await.expect(201);
        for (verb, body) in [("test", json!({})), ("replay", json!({ "event_ids": [] }))] {
            let path = format!("/webhooks/{}/{verb}", hook["id"].as_str().unwrap());
            key.post(&path, body).await.refused(403, "forbidden", None);
        }
        key.get("/conversations").await.expect(200);
    }

    async fn the_administrator_acts_in_every_workspace(api) {
        let acme = api.workspace("acme").await;
        let admin = Caller { key: ADMIN_KEY.to_owned(), ..acme.clone() };
        let user = admin.sender("ann@acme.example").await;
        admin.send(&user, "carl@customer.example", "x").await;
        assert_eq!(acme.get("/users").await.items().len(), 1);
        let nowhere = api.admin().get("/v1/workspaces/nowhere/users").await;
        nowhere.refused(404, "not_found", None);
    }
}
