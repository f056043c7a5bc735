//! What holds for every request: health, documents, headers, bodies, methods, paths.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, both};

both! {
    async fn probes_and_metrics_need_no_key(api) {
        let get = async |path: &str| Answer::of(api.request(Method::GET, path)).await;
        assert_eq!(get("/healthz").await.expect(200), json!({ "status": "ok" }));
        assert_eq!(get("/readyz").await.expect(200), json!({ "status": "ready" }));
        let metrics = get("/metrics").await;
        assert_eq!((metrics.status, metrics.text().as_str()), (200, "mailweave_up 1\n"));
        assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        api.not_ready();
        get("/readyz").await.expect(503);
        get("/healthz").await.expect(200);
    }

    async fn the_document_and_its_page_are_served(api) {
        let get = async |path: &str| Answer::of(api.request(Method::GET, path)).await;
        let document = get("/openapi.json").await.expect(200);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let operation = &document["paths"]["/v1/workspaces/{ws}/messages"]["post"];
        assert_eq!(operation["security"], json!([{ "key": [] }]));
        assert!(operation["description"].as_str().unwrap().contains("`send`"));
        let page = get("/docs").await;
        assert!([200, 303].contains(&page.status), "{}", page.status);
        let page = get("/docs/").await;
        assert_eq!(page.status, 200);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(get("/docs/swagger-initializer.js").await.text().contains("/openapi.json"));
    }

    async fn every_answer_has_an_id_and_is_safe_in_a_browser(api) {
        let acme = api.workspace("acme").await;
        let (good, bad) = (acme.get("/users").await, acme.get("/nowhere").await);
        for answer in [&good, &bad] {
            assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
            assert_eq!(answer.headers["x-content-type-options"], "nosniff");
            assert_eq!(answer.headers["x-frame-options"], "DENY");
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        }
        assert_ne!(good.headers["x-request-id"], bad.headers["x-request-id"]);
        bad.refused(404, "not_found", None);
        // A caller's id is not taken over: it would be written into the log.
        let own = Answer::of(acme.request(Method::GET, "/users").header("X-Request-Id", "mine")).await;
        assert_ne!(own.headers["x-request-id"], "mine");
    }

    async fn bodies_are_bounded_typed_and_strict(api) {
        let acme = api.workspace("acme").await;
        let post = async |kind: &str, body: String| {
            Answer::of(acme.request(Method::POST, "/contacts").header("Content-Type", kind).body(body)).await
        };
        let good = json!({ "email": "a@b.example" }).to_string();
        post("application/json; charset=utf-8", good.clone()).await.expect(201);
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            post(kind, good.clone()).await.refused(415, "unsupported_media_type", None);
        }
        let json = "application/json";
        post(json, "{".into()).await.refused(422, "malformed_json", Some("body"));
        post(json, "not json".into()).await.refused(422, "malformed_json", Some("body"));
        post(json, format!("{good}{good}")).await.refused(422, "invalid", Some("body"));
        post(json, "[]".into()).await.refused(422, "invalid", Some("body"));
        post(json, "{\"email\":\"a@b.example\",\"email\":\"c@d.example\"}".into()).await.refused(422, "invalid", Some("email"));
        post(json, "{\"email\":\"a@b.example\",\"x\":1}".into()).await.refused(422, "unknown_field", Some("x"));
        let deep = format!("{{\"metadata\":{}{}}}", "{\"a\":".repeat(70), "}".repeat(70));
        post(json, deep).await.refused(422, "invalid", Some("body"));
        let large = json!({ "email": "a@b.example", "name": "x".repeat(1024 * 1024) }).to_string();
        post(json, large.clone()).await.refused(413, "too_large", None);
        // Without a declared length, too.
        let chunks = futures_util::stream::iter(large.into_bytes().chunks(10_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>());
        let streamed = acme.request(Method::POST, "/contacts").header("Content-Type", json).body(reqwest::Body::wrap_stream(chunks));
        Answer::of(streamed).await.refused(413, "too_large", None);
        // A request that says nothing needs no body and no type.
        let user = acme.user("ann@acme.example").await;
        let account = acme.account(&user, "ann@acme.example").await;
        let empty = Answer::of(acme.request(Method::POST, &format!("/accounts/{account}/sync"))).await;
        empty.expect(202);
    }

    async fn methods_and_paths_that_are_not_there_are_told_so(api) {
        let acme = api.workspace("acme").await;
        let wrong = Answer::of(acme.request(Method::PUT, "/contacts")).await;
        wrong.refused(405, "method_not_allowed", None);
        assert_eq!(wrong.headers["allow"], "POST, GET");
        for path in ["/nowhere", "/contacts/", "/contacts/con_1/nowhere", "/contacts/nonsense", "/contacts/usr_01jd0000000000000000000000"] {
            acme.get(path).await.refused(404, "not_found", None);
        }
        let head = Answer::of(acme.request(Method::HEAD, "/users")).await;
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        let root: Value = Answer::of(api.request(Method::GET, "/")).await.expect(404);
        assert_eq!(root["code"], "not_found");
    }
}
