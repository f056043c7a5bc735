//! Workspaces and their keys.

use mailweave::{core::job::JobKind, flow};
use serde_json::json;

use crate::server::both;

both! {
    async fn the_administrator_makes_renames_and_erases_workspaces(api) {
        let admin = api.admin();
        let made = admin
            .post("/v1/workspaces", json!({ "name": "Acme", "slug": "acme", "timezone": "Europe/Prague" }))
            .await
            .expect(201);
        assert!(made["id"].as_str().unwrap().starts_with("ws_"));
        assert_eq!((&made["timezone"], &made["preset"]), (&json!("Europe/Prague"), &json!("mailweave")));
        let by_slug = admin.get("/v1/workspaces/acme").await.expect(200);
        assert_eq!(by_slug, made);
        assert_eq!(admin.get(&format!("/v1/workspaces/{}", made["id"].as_str().unwrap())).await.expect(200), made);
        assert_eq!(admin.get("/v1/workspaces").await.items(), std::slice::from_ref(&made));
        let renamed = admin.patch("/v1/workspaces/acme", json!({ "name": "Acme s.r.o.", "slug": "acme-2" })).await;
        assert_eq!(renamed.expect(200)["name"], "Acme s.r.o.");
        admin.get("/v1/workspaces/acme").await.refused(404, "not_found", None);
        let erased = admin.delete("/v1/workspaces/acme-2").await;
        assert_eq!((erased.status, erased.bytes.len()), (204, 0));
        admin.get("/v1/workspaces/acme-2").await.refused(404, "not_found", None);
        admin.delete("/v1/workspaces/acme-2").await.refused(404, "not_found", None);
    }

    async fn a_workspace_with_everything_in_it_can_be_erased(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        acme.contact("carl@customer.example").await;
        acme.send(&user, "carl@customer.example", "Offer").await;
        acme.post("/webhooks", json!({ "url": "https://crm.example.com/hook" })).await.expect(201);
        let stays = api.workspace("stays").await;
        stays.contact("carl@customer.example").await;
        assert_eq!(api.admin().delete(&acme.base).await.status, 204);
        acme.get("/users").await.refused(401, "unauthorized", None);
        api.admin().get(&acme.base).await.refused(404, "not_found", None);
        api.admin().delete(&acme.base).await.refused(404, "not_found", None);
        api.workspace("acme").await;
        // What is left of it is a job's to delete, and then nothing of it lies anywhere.
        let queue = &api.gateway.queue;
        let lease = std::time::Duration::from_secs(60);
        let jobs = queue.claim(&[JobKind::Erase], jiff::Timestamp::now(), lease, 10).await.unwrap();
        let [job] = &jobs[..] else { panic!("one job: {jobs:?}") };
        flow::erase::perform(&api.gateway, job).await.unwrap();
        assert!(!api.keeps("ann@acme.example"));
        assert_eq!(stays.get("/contacts").await.items().len(), 1);
    }

    async fn bad_workspaces_are_refused_by_field(api) {
        let admin = api.admin();
        let refused = async |body, param| admin.post("/v1/workspaces", body).await.refused(422, "invalid", Some(param));
        refused(json!({ "name": "", "slug": "a" }), "name").await;
        refused(json!({ "name": "A\r\nB", "slug": "a" }), "name").await;
        refused(json!({ "name": "A", "slug": "Not A Slug" }), "slug").await;
        refused(json!({ "name": "A" }), "slug").await;
        refused(json!({ "name": "A", "slug": "a", "timezone": "Mars/Base" }), "timezone").await;
        refused(json!({ "name": "A", "slug": "a", "preset": "nonsense" }), "preset").await;
        admin.post("/v1/workspaces", json!({ "name": "A", "slug": "a" })).await.expect(201);
        let twin = admin.post("/v1/workspaces", json!({ "name": "B", "slug": "a" })).await;
        twin.refused(409, "slug_taken", Some("slug"));
    }

    async fn a_key_shows_its_secret_once_and_ends_when_it_is_revoked(api) {
        let acme = api.workspace("acme").await;
        let made = acme.post("/keys", json!({ "name": "CRM", "scopes": ["read", "write", "read"] })).await.expect(201);
        let secret = made["secret"].as_str().unwrap();
        assert!(secret.starts_with("mwk_") && secret.len() >= 64 + 4, "{secret}");
        assert_eq!(made["scopes"], json!(["read", "write"]));
        let listed = acme.get("/keys").await;
        assert!(!listed.text().contains(secret));
        let listed = listed.items();
        assert_eq!((listed.len(), &listed[0]["id"]), (2, &made["id"]));
        assert!(listed.iter().all(|key| key.get("secret").is_none()));
        let crm = crate::server::Caller { key: secret.to_owned(), ..acme.clone() };
        crm.get("/users").await.expect(200);
        let path = format!("/keys/{}", made["id"].as_str().unwrap());
        assert_eq!(acme.delete(&path).await.status, 204);
        crm.get("/users").await.refused(401, "unauthorized", None);
        acme.delete(&path).await.refused(404, "not_found", None);
    }

    async fn keys_are_listed_by_pages(api) {
        let acme = api.workspace("acme").await;
        for number in 0..6 {
            acme.post("/keys", json!({ "name": format!("key {number}"), "scopes": ["read"] })).await.expect(201);
        }
        let (mut seen, mut path) = (Vec::new(), "/keys?limit=3".to_owned());
        loop {
            let page = acme.get(&path).await.expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            seen.extend(items.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/keys?limit=3&cursor={cursor}");
        }
        assert_eq!(seen, ["key 5", "key 4", "key 3", "key 2", "key 1", "key 0", "test"]);
        for list in ["/keys", "/webhooks"] {
            acme.get(&format!("{list}?nonsense=1")).await.refused(422, "unknown_field", Some("nonsense"));
            acme.get(&format!("{list}?cursor=nonsense")).await.refused(422, "invalid", Some("cursor"));
        }
    }

    async fn bad_keys_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        let refused = async |body, param| acme.post("/keys", body).await.refused(422, "invalid", Some(param));
        refused(json!({ "name": "x", "scopes": [] }), "scopes").await;
        refused(json!({ "name": "x", "scopes": ["everything"] }), "scopes[0]").await;
        refused(json!({ "name": " ", "scopes": ["read"] }), "name").await;
        refused(json!({ "name": "x", "scopes": ["read"], "user_id": "usr_1" }), "user_id").await;
        let nobody = "usr_01jd0000000000000000000000";
        refused(json!({ "name": "x", "scopes": ["read"], "user_id": nobody }), "user_id").await;
    }

    async fn the_last_use_of_a_key_is_noted(api) {
        let acme = api.workspace("acme").await;
        acme.get("/users").await.expect(200);
        let noted = async || !acme.get("/keys").await.items()[0]["last_used_at"].is_null();
        crate::support::eventually("the key's last use", crate::support::PATIENCE, noted).await;
    }
}
