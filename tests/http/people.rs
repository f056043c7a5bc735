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

/// A contact as it is shown by itself: with what no list asks for.
fn seen(contact: &Value) -> Value {
    let mut contact = contact.clone();
    contact["last_synced_at"] = Value::Null;
    contact
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
        assert_eq!(acme.get(&path).await.expect(200), seen(&carl));
        assert_eq!(acme.get("/contacts?email=C@private.example").await.items(), std::slice::from_ref(&carl));
        assert_eq!(acme.get("/contacts?external_id=crm-17").await.items(), std::slice::from_ref(&carl));
        assert_eq!(acme.get("/contacts/by-external-id/crm-17").await.expect(200), seen(&carl));
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
        assert_eq!(acme.get(path).await.expect(200), seen(&second));
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

    async fn an_import_of_too_many_lines_is_refused_before_the_first(api) {
        let acme = api.workspace("acme").await;
        let lines = format!("{{\"email\":\"a@x.example\"}}\n{}", "\n".repeat(100_000));
        let refused = import(&acme, &lines, None).await;
        refused.refused(422, "invalid", Some("body"));
        assert!(refused.json()["detail"].as_str().unwrap().contains("100000 lines"));
        assert_eq!(acme.get("/contacts").await.items(), Vec::<Value>::new());
        // As many as there may be; those that say nothing are not looked at.
        assert_eq!(import(&acme, &lines[..lines.len() - 1], None).await.expect(200)["created"], 1);
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

    async fn changes_made_at_the_same_time_are_all_kept(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.user("ann@acme.example").await;
        for round in 0..5 {
            let path = format!("/contacts/{}", acme.contact(&format!("carl{round}@x.example")).await);
            let fields = [
                json!({ "name": "Carl" }),
                json!({ "assigned_user_id": ann }),
                json!({ "external_id": format!("crm-{round}") }),
                json!({ "metadata": { "stage": "won" } }),
                json!({ "other_emails": ["c@x.example"] }),
            ];
            let changes = fields.iter().map(|field| acme.patch(&path, field.clone()));
            for answer in futures_util::future::join_all(changes).await {
                answer.expect(200);
            }
            let contact = acme.get(&path).await.expect(200);
            for field in &fields {
                let (name, value) = field.as_object().unwrap().iter().next().unwrap();
                assert_eq!(&contact[name], value, "{name} of round {round}");
            }
        }
    }

    async fn a_contact_whose_relation_was_deleted_can_be_changed(api) {
        let acme = api.workspace("acme").await;
        let (carl, dora) = (acme.contact("carl@x.example").await, acme.contact("dora@x.example").await);
        let path = format!("/contacts/{carl}");
        let related = acme.patch(&path, json!({ "related_contact_ids": [dora] })).await.expect(200);
        assert_eq!(related["related_contact_ids"], json!([dora]));
        let user = acme.sender("ann@acme.example").await;
        let sent = acme.send(&user, "dora@x.example", "Offer").await;
        let conversation = format!("/conversations/{}", sent["conversation_id"].as_str().unwrap());
        assert_eq!(acme.get(&conversation).await.expect(200)["contact_id"], json!(dora));
        assert_eq!(acme.delete(&format!("/contacts/{dora}")).await.status, 204);
        let changed = acme.patch(&path, json!({ "name": "Carl" })).await.expect(200);
        assert_eq!((&changed["name"], &changed["related_contact_ids"]), (&json!("Carl"), &json!([])));
        assert_eq!(acme.get(&conversation).await.expect(200)["contact_id"], Value::Null);
    }

    async fn the_crm_takes_over_a_contact_that_was_there_before_it(api) {
        let acme = api.workspace("acme").await;
        let jane = acme.contact("jane@x.example").await;
        let kate = acme.contact("kate@x.example").await;
        let put = acme.put("/contacts/by-external-id/crm-1", json!({ "email": "Jane@x.example", "name": "Jane" })).await;
        assert_eq!(put.expect(200)["id"], json!(jane));
        let lines = "{\"email\":\"kate@x.example\",\"external_id\":\"crm-2\"}\n";
        assert_eq!(import(&acme, lines, None).await.expect(200)["updated"], 1);
        assert_eq!(acme.get("/contacts/by-external-id/crm-2").await.expect(200)["id"], json!(kate));
        // One that has an id of the CRM's is another person at the same address.
        acme.put("/contacts/by-external-id/crm-3", json!({ "email": "jane@x.example" })).await.expect(201);
        assert_eq!(acme.get("/contacts").await.items().len(), 3);
    }

    async fn a_user_who_left_is_deleted(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.sender("ann@acme.example").await;
        let key = acme.with_key(json!({ "scopes": ["read"], "user_id": ann })).await;
        let carl = acme.post("/contacts", json!({ "email": "carl@x.example", "assigned_user_id": ann })).await.expect(201);
        let sent = acme.send(&ann, "carl@x.example", "Offer").await;
        let path = format!("/users/{ann}");
        acme.delete(&path).await.refused(409, "user_has_accounts", None);
        let account = acme.get("/accounts").await.items()[0]["id"].as_str().unwrap().to_owned();
        acme.post(&format!("/accounts/{account}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        assert_eq!(acme.delete(&path).await.status, 204);
        acme.get(&path).await.refused(404, "not_found", None);
        acme.delete(&path).await.refused(404, "not_found", None);
        key.get("/users").await.refused(401, "unauthorized", None);
        let carl = format!("/contacts/{}", carl["id"].as_str().unwrap());
        assert_eq!(acme.get(&carl).await.expect(200)["assigned_user_id"], Value::Null);
        acme.patch(&carl, json!({ "name": "Carl" })).await.expect(200);
        acme.get(&format!("/messages/{}", sent["id"].as_str().unwrap())).await.expect(200);
        acme.user("ann@acme.example").await;
    }

    async fn a_line_that_is_too_long_fails_alone(api) {
        let acme = api.workspace("acme").await;
        let long = format!("{{\"email\":\"a@x.example\",\"name\":\"{}\"}}", "x".repeat(64 * 1024));
        let imported = import(&acme, &format!("{long}\n{{\"email\":\"b@x.example\"}}\n"), None).await.expect(200);
        assert_eq!((&imported["created"], &imported["failed"]), (&json!(1), &json!(1)));
        assert_eq!((&imported["errors"][0]["line"], &imported["errors"][0]["param"]), (&json!(1), &json!("body")));
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
