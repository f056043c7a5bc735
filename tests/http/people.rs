//! Users and contacts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, CAPTURE_DOMAIN, Caller, both};

async fn import(caller: &Caller<'_>, lines: &str, key: Option<&str>) -> Answer {
    let mut request =
        caller.request(Method::POST, "/contacts/import").header("Content-Type", "application/x-ndjson");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    Answer::of(request.body(lines.to_owned())).await
}

both! {
    async fn a_user_carries_a_capture_address(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "email": "Ann.Lee@acme.example", "name": "Ann", "aliases": ["a.lee@acme.example"], "role": "admin" });
        let ann = acme.post("/users", body).await.expect(201);
        let address = ann["capture_address"].as_str().unwrap();
        let (local, domain) = address.split_once('@').unwrap();
        assert_eq!(domain, CAPTURE_DOMAIN);
        assert!(local.starts_with("annlee-") && local.len() == "annlee-".len() + 16, "{local}");
        assert_eq!((&ann["email"], &ann["role"]), (&json!("Ann.Lee@acme.example"), &json!("admin")));
        assert_eq!(ann["aliases"], json!(["a.lee@acme.example"]));
        let path = format!("/users/{}", ann["id"].as_str().unwrap());
        assert_eq!(acme.get(&path).await.expect(200), ann);
        let bob = acme.post("/users", json!({ "email": "bob@acme.example" })).await.expect(201);
        assert_eq!((&bob["role"], &bob["name"]), (&json!("member"), &Value::Null));
        assert_ne!(bob["capture_address"], ann["capture_address"]);
        assert_eq!(acme.get("/users").await.items(), [bob, ann.clone()]);
        assert_eq!(acme.get("/users?email=a.lee@acme.example").await.items(), [ann]);
    }

    async fn a_user_is_changed_field_by_field(api) {
        let acme = api.workspace("acme").await;
        let id = acme.user("ann@acme.example").await;
        let path = format!("/users/{id}");
        let old = acme.get(&path).await.expect(200);
        let new = acme.patch(&path, json!({ "email": "ann@new.example", "name": null })).await.expect(200);
        assert_eq!((&new["email"], &new["name"]), (&json!("ann@new.example"), &Value::Null));
        assert_eq!((&new["role"], &new["capture_address"]), (&old["role"], &old["capture_address"]));
        assert_eq!(acme.get(&path).await.expect(200), new);
        acme.patch(&path, json!({ "email": null })).await.refused(422, "invalid", Some("email"));
        acme.patch(&path, json!({ "mail": "x" })).await.refused(422, "unknown_field", Some("mail"));
        acme.user("ann@acme.example").await;
    }

    async fn an_address_is_one_users(api) {
        let acme = api.workspace("acme").await;
        acme.post("/users", json!({ "email": "ann@acme.example", "aliases": ["a@acme.example"] })).await.expect(201);
        for email in ["ann@acme.example", "ANN@ACME.example", "a@acme.example"] {
            acme.post("/users", json!({ "email": email })).await.refused(409, "email_taken", Some("email"));
        }
        let ours = format!("x@{CAPTURE_DOMAIN}");
        acme.post("/users", json!({ "email": ours })).await.refused(422, "invalid", Some("email"));
        for email in ["nonsense", "a@b\r\nRCPT TO:<c@d.example>", "\"a\r\nDATA\"@b.example", ""] {
            acme.post("/users", json!({ "email": email })).await.refused(422, "invalid", Some("email"));
        }
        // Another workspace knows nothing of it.
        api.workspace("umbrella").await.user("ann@acme.example").await;
    }

    async fn contacts_are_kept_as_the_crm_gave_them(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let friend = acme.contact("friend@customer.example").await;
        let body = json!({
            "email": "carl@customer.example", "name": "Carl", "other_emails": ["c@private.example"],
            "assigned_user_id": user, "external_id": "crm-17", "related_contact_ids": [friend],
            "metadata": { "stage": "won", "nested": { "a": [1, 2] } },
        });
        let carl = acme.post("/contacts", body.clone()).await.expect(201);
        for (field, value) in body.as_object().unwrap() {
            assert_eq!(&carl[field], value, "{field}");
        }
        assert_eq!(carl["created_by"], "api");
        let path = format!("/contacts/{}", carl["id"].as_str().unwrap());
        assert_eq!(acme.get(&path).await.expect(200), carl);
        assert_eq!(acme.get("/contacts?email=C@private.example").await.items(), std::slice::from_ref(&carl));
        assert_eq!(acme.get("/contacts?external_id=crm-17").await.items(), std::slice::from_ref(&carl));
        assert_eq!(acme.get("/contacts/by-external-id/crm-17").await.expect(200), carl);
        assert_eq!(acme.get("/contacts?created_by=capture").await.items(), Vec::<Value>::new());
        assert_eq!(acme.get("/contacts?created_by=api").await.items().len(), 2);
        let changed = acme.patch(&path, json!({ "name": "Carl C.", "assigned_user_id": null })).await.expect(200);
        assert_eq!((&changed["name"], &changed["assigned_user_id"]), (&json!("Carl C."), &Value::Null));
        assert_eq!(changed["metadata"], carl["metadata"]);
        assert_eq!(acme.delete(&path).await.status, 204);
        acme.get(&path).await.refused(404, "not_found", None);
        acme.delete(&path).await.refused(404, "not_found", None);
    }

    async fn bad_contacts_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        let refused = async |body, param| acme.post("/contacts", body).await.refused(422, "invalid", Some(param));
        let somebody = "con_01jd0000000000000000000000";
        refused(json!({}), "email").await;
        refused(json!({ "email": "a@b.example", "other_emails": ["nonsense"] }), "other_emails[0]").await;
        refused(json!({ "email": "a@b.example", "assigned_user_id": "usr_01jd0000000000000000000000" }), "assigned_user_id").await;
        refused(json!({ "email": "a@b.example", "related_contact_ids": [somebody] }), "related_contact_ids[0]").await;
        refused(json!({ "email": "a@b.example", "metadata": [1] }), "metadata").await;
        refused(json!({ "email": "a@b.example", "metadata": { "x": "y".repeat(20_000) } }), "metadata").await;
        refused(json!({ "email": "a@b.example", "name": "a\nb" }), "name").await;
        refused(json!({ "email": format!("x@{CAPTURE_DOMAIN}") }), "email").await;
        acme.post("/contacts", json!({ "email": "a@b.example", "phone": "1" })).await.refused(422, "unknown_field", Some("phone"));
        acme.post("/contacts", json!({ "email": "a@b.example", "external_id": "1" })).await.expect(201);
        let twin = acme.post("/contacts", json!({ "email": "a@b.example", "external_id": "1" })).await;
        twin.refused(409, "external_id_taken", Some("external_id"));
        acme.get("/contacts?email=nonsense").await.refused(422, "invalid", Some("email"));
        acme.get("/contacts?phone=1").await.refused(422, "unknown_field", Some("phone"));
        acme.get("/contacts?created_by=magic").await.refused(422, "invalid", Some("created_by"));
    }

    async fn an_upsert_adds_and_then_replaces(api) {
        let acme = api.workspace("acme").await;
        let path = "/contacts/by-external-id/crm%2F17";
        let first = acme.put(path, json!({ "email": "carl@customer.example", "name": "Carl" })).await.expect(201);
        assert_eq!(first["external_id"], "crm/17");
        let second = acme.put(path, json!({ "email": "carl@new.example" })).await.expect(200);
        assert_eq!((&second["id"], &second["created_at"]), (&first["id"], &first["created_at"]));
        assert_eq!((&second["email"], &second["name"]), (&json!("carl@new.example"), &Value::Null));
        assert_eq!(acme.get(path).await.expect(200), second);
        assert_eq!(acme.get("/contacts?email=carl@customer.example").await.items().len(), 0);
        let differs = acme.put(path, json!({ "email": "c@c.example", "external_id": "other" })).await;
        differs.refused(422, "invalid", Some("external_id"));
        acme.get("/contacts/by-external-id/unknown").await.refused(404, "not_found", None);
    }

    async fn concurrent_upserts_make_one_contact(api) {
        let acme = api.workspace("acme").await;
        let puts = (0..20).map(|n| {
            let body = json!({ "email": format!("carl{n}@customer.example") });
            let acme = acme.clone();
            async move { acme.put("/contacts/by-external-id/17", body).await.status }
        });
        let statuses = futures_util::future::join_all(puts).await;
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{statuses:?}");
        assert_eq!(acme.get("/contacts").await.items().len(), 1);
    }

    async fn an_import_takes_what_it_can_and_names_the_rest(api) {
        let acme = api.workspace("acme").await;
        let lines = concat!(
            "{\"email\":\"a@x.example\",\"external_id\":\"1\"}\n",
            "\r\n",
            "{\"email\":\"nonsense\"}\r\n",
            "not json\n",
            "{\"email\":\"b@x.example\",\"name\":\"B\"}\n",
            "{\"email\":\"c@x.example\",\"assigned_user_id\":\"usr_01jd0000000000000000000000\"}",
        );
        let imported = import(&acme, lines, None).await.expect(200);
        assert_eq!((&imported["created"], &imported["updated"], &imported["failed"]), (&json!(2), &json!(0), &json!(3)));
        let errors: Vec<_> = imported["errors"].as_array().unwrap().iter().map(|e| (e["line"].as_u64().unwrap(), e["param"].clone())).collect();
        assert_eq!(errors, [(3, json!("email")), (4, json!("body")), (6, json!("assigned_user_id"))]);
        assert_eq!(acme.get("/contacts?created_by=import").await.items().len(), 2);
        let again = concat!(
            "{\"email\":\"a2@x.example\",\"external_id\":\"1\"}\n",
            "{\"email\":\"b@x.example\",\"name\":\"Bob\"}\n",
            "{\"email\":\"a2@x.example\",\"name\":\"A\"}\n",
        );
        let imported = import(&acme, again, None).await.expect(200);
        assert_eq!((&imported["created"], &imported["updated"]), (&json!(0), &json!(3)));
        let contact = acme.get("/contacts/by-external-id/1").await.expect(200);
        assert_eq!((&contact["email"], &contact["name"]), (&json!("a2@x.example"), &json!("A")));
        assert_eq!(acme.get("/contacts").await.items().len(), 2);
    }

    async fn an_import_made_twice_is_done_once(api) {
        let acme = api.workspace("acme").await;
        let lines: String = (0..450).map(|n| format!("{{\"email\":\"p{n}@x.example\"}}\n")).collect();
        let first = import(&acme, &lines, Some("import-1")).await.expect(200);
        assert_eq!(first["created"], 450);
        let second = import(&acme, &lines, Some("import-1")).await.expect(200);
        assert_eq!(second, first);
        import(&acme, "{\"email\":\"z@x.example\"}\n", Some("import-1")).await.refused(409, "idempotency_mismatch", Some("Idempotency-Key"));
        let request = acme.request(Method::POST, "/contacts/import").json(&json!({ "email": "z@x.example" }));
        Answer::of(request).await.refused(415, "unsupported_media_type", None);
    }

    async fn a_list_is_walked_by_cursor(api) {
        let acme = api.workspace("acme").await;
        let lines: String = (0..230).map(|n| format!("{{\"email\":\"p{n}@x.example\"}}\n")).collect();
        import(&acme, &lines, None).await.expect(200);
        let mut seen = Vec::new();
        let mut path = "/contacts?limit=70".to_owned();
        loop {
            let page = acme.get(&path).await.expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 70);
            seen.extend(items.iter().map(|contact| contact["email"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/contacts?limit=70&cursor={cursor}");
        }
        let total = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((total, seen.len()), (230, 230));
        assert_eq!(acme.get("/contacts").await.items().len(), 50);
        assert_eq!(acme.get("/contacts?limit=200").await.items().len(), 200);
        assert_eq!(acme.get("/contacts?limit=1").await.items().len(), 1);
        acme.get("/contacts?limit=201").await.refused(422, "invalid", Some("limit"));
        acme.get("/contacts?limit=0").await.refused(422, "invalid", Some("limit"));
        acme.get("/contacts?cursor=nonsense").await.refused(422, "invalid", Some("cursor"));
    }
}
