//! What holds for every request: health, documents, headers, bodies, methods, paths.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::server::{Answer, Caller, both};

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

    async fn slow_bodies_of_one_tenant_keep_no_other_from_sending(api) {
        let (acme, other) = (api.workspace("acme").await, api.workspace("other").await);
        let drip = async |caller: &Caller<'_>| {
            let mut stream = TcpStream::connect(api.url.strip_prefix("http://").unwrap()).await.unwrap();
            let head = format!(
                "POST {}/contacts/import HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/x-ndjson\r\nContent-Length: 40000000\r\n\r\n{{",
                caller.base, caller.key
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream
        };
        let mut dripping = Vec::new();
        for _ in 0..6 {
            dripping.push(drip(&acme).await);
        }
        // Who finds no place is told so, which shows that others have theirs.
        let statuses = dripping.iter_mut().map(|stream| {
            Box::pin(async move {
                let mut status = [0; 12];
                stream.read_exact(&mut status).await.map(|_| String::from_utf8_lossy(&status).into_owned())
            })
        });
        let (status, _, _others) = futures_util::future::select_all(statuses).await;
        assert_eq!(status.unwrap(), "HTTP/1.1 429");
        let large = format!("{}{{\"email\":\"a@b.example\"}}", " ".repeat(2_000_000));
        let request = other.request(Method::POST, "/contacts/import").header("Content-Type", "application/x-ndjson");
        assert_eq!(Answer::of(request.body(large)).await.expect(200)["created"], 1);
    }

    async fn what_no_database_takes_is_refused_by_both_alike(api) {
        let acme = api.workspace("acme").await;
        acme.get("/conversations?q=%00").await.refused(422, "invalid", Some("q"));
        acme.get("/contacts?external_id=a%00b").await.refused(422, "invalid", Some("external_id"));
        acme.get("/contacts/by-external-id/a%00b").await.refused(404, "not_found", None);
        acme.put("/contacts/by-external-id/a%00b", json!({ "email": "a@b.example" })).await.refused(404, "not_found", None);
        acme.get("/contacts/by-external-id/%ff").await.refused(404, "not_found", None);
        for path in ["/v1/workspaces/%ff", "/v1/workspaces/a%00b", "/v1/workspaces/%ff/contacts"] {
            api.admin().get(path).await.refused(404, "not_found", None);
            Answer::of(api.request(Method::GET, path)).await.refused(401, "unauthorized", None);
        }
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
