//! Requests that are made twice.

use serde_json::{Value, json};

use crate::server::{Answer, both};

both! {
    async fn the_same_request_gets_the_same_answer(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "email": "carl@customer.example" });
        let first = acme.post_once("k1", "/contacts", &body).await;
        let second = acme.post_once("k1", "/contacts", &body).await;
        assert_eq!((second.status, second.json()), (201, first.expect(201)));
        assert_eq!(second.headers["idempotency-replayed"], "true");
        assert!(!first.headers.contains_key("idempotency-replayed"));
        assert_eq!(acme.get("/contacts").await.items().len(), 1);
        // The workspace may be named the other way.
        let by_slug = crate::server::Caller { base: "/v1/workspaces/acme".into(), ..acme.clone() };
        assert_eq!(by_slug.post_once("k1", "/contacts", &body).await.json(), first.json());
        let other = acme.post_once("k1", "/contacts", &json!({ "email": "dora@customer.example" })).await;
        other.refused(409, "idempotency_mismatch", Some("Idempotency-Key"));
        // Another route, another workspace: another request.
        acme.post_once("k1", "/users", &json!({ "email": "ann@acme.example" })).await.expect(201);
        let umbrella = api.workspace("umbrella").await;
        assert_ne!(umbrella.post_once("k1", "/contacts", &body).await.expect(201)["id"], first.json()["id"]);
    }

    async fn a_hundred_twins_have_one_effect(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let body = json!({ "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "Once", "text": "x" });
        let twins = (0..100).map(|_| {
            let (acme, body) = (acme.clone(), body.clone());
            async move { acme.post_once("send-1", "/messages", &body).await }
        });
        let answers = futures_util::future::join_all(twins).await;
        let first = answers[0].expect(202);
        for answer in &answers {
            assert_eq!(answer.expect(202), first);
        }
        let fresh = answers.iter().filter(|answer| !answer.headers.contains_key("idempotency-replayed")).count();
        assert_eq!(fresh, 1);
        assert_eq!(acme.get("/conversations").await.items().len(), 1);
        assert_eq!(acme.get("/decisions").await.items().len(), 1);
    }

    async fn twins_that_make_a_workspace_make_one(api) {
        let admin = api.admin();
        let body = json!({ "name": "Acme", "slug": "acme" });
        let twins = (0..20).map(|_| {
            let (admin, body) = (admin.clone(), body.clone());
            async move { admin.post_once("w1", "/v1/workspaces", &body).await }
        });
        let answers = futures_util::future::join_all(twins).await;
        let first = answers[0].expect(201);
        assert!(answers.iter().all(|answer| answer.expect(201) == first));
        let other = admin.post_once("w1", "/v1/workspaces", &json!({ "name": "B", "slug": "b" })).await;
        other.refused(409, "idempotency_mismatch", Some("Idempotency-Key"));
        assert_eq!(admin.get("/v1/workspaces").await.items().len(), 1);
    }

    async fn what_failed_may_be_tried_again(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "email": "a@b.example", "external_id": "17" });
        let taken = acme.put("/contacts/by-external-id/17", json!({ "email": "x@y.example" })).await.expect(201);
        acme.post_once("k", "/contacts", &body).await.refused(409, "external_id_taken", Some("external_id"));
        acme.delete(&format!("/contacts/{}", taken["id"].as_str().unwrap())).await;
        acme.post_once("k", "/contacts", &body).await.expect(201);
        // A sender without a way out gets one, and sends under the same key.
        let user = acme.user("ann@acme.example").await;
        let message = json!({ "from_user_id": user, "to": [{ "email": "c@d.example" }], "subject": "x", "text": "y" });
        acme.post_once("m", "/messages", &message).await.refused(422, "no_way_out", Some("from_user_id"));
        let account = acme.account(&user, "ann@acme.example").await;
        let sent = acme.post_once("m", "/messages", &message).await.expect(202);
        // And is answered the same when the way out is gone again.
        acme.post(&format!("/accounts/{account}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        assert_eq!(acme.post_once("m", "/messages", &message).await.expect(202), sent);
    }

    async fn a_secret_is_repeated_but_kept_sealed(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "name": "CRM", "scopes": ["read"] });
        let first = acme.post_once("k", "/keys", &body).await.expect(201);
        assert_eq!(acme.post_once("k", "/keys", &body).await.expect(201), first);
        let hook = json!({ "url": "https://crm.example.com/hook" });
        let made = acme.post_once("k", "/webhooks", &hook).await.expect(201);
        assert_eq!(acme.post_once("k", "/webhooks", &hook).await.expect(201), made);
        assert_eq!(acme.get("/keys").await.items().len(), 2);
        acme.post_once("k", "/contacts", &json!({ "email": "in-the-clear@customer.example" })).await.expect(201);
        assert!(api.keeps("in-the-clear@customer.example"));
        for secret in [&first["secret"], &made["secret"]] {
            assert!(!api.keeps(secret.as_str().unwrap()), "a secret is kept in the clear");
        }
    }

    async fn keys_are_bounded(api) {
        let acme = api.workspace("acme").await;
        let body = json!({ "email": "carl@customer.example" });
        acme.post_once(&"k".repeat(255), "/contacts", &body).await.expect(201);
        acme.post_once(&"k".repeat(256), "/contacts", &body).await.refused(422, "invalid", Some("Idempotency-Key"));
        let blank: Answer = acme.post_once("", "/contacts", &body).await;
        blank.refused(422, "invalid", Some("Idempotency-Key"));
        let none: Vec<Value> = acme.get("/users").await.items();
        assert!(none.is_empty());
    }
}
