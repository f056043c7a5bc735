//! Limits and how much of them is used, as they are set and read.
//!
//! Not here: what happens at a limit (`flows`).

use serde_json::{Value, json};

use crate::server::both;

/// What is shown where this was put and nothing else is said.
fn shown(put: &Value, from: &str) -> Value {
    let mut shown = json!({ "from": {}, "overrides": put });
    for name in
        ["synced_per_day", "sent_per_day", "sent_per_24h", "sent_unit", "accounts", "accounts_per_user"]
    {
        if from == "user" && name == "accounts_per_user" {
            continue;
        }
        let said = put.get(name);
        shown["from"][name] = json!(if said.is_some() { from } else { "default" });
        let nothing = if name == "sent_unit" { json!("recipients") } else { Value::Null };
        shown[name] = said.cloned().unwrap_or(nothing);
    }
    shown
}

both! {
    async fn limits_are_set_as_a_whole_and_read_back(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let own = format!("/users/{user}/limits");
        for (path, from) in [(own.as_str(), "user"), ("/limits", "workspace")] {
            assert_eq!(acme.get(path).await.expect(200), shown(&json!({}), from));
            let some = json!({ "synced_per_day": 100, "sent_per_day": 0, "accounts": 3, "sent_unit": "messages" });
            assert_eq!(acme.put(path, some.clone()).await.expect(200), shown(&some, from));
            assert_eq!(acme.get(path).await.expect(200), shown(&some, from));
            // What is left out is not said any more, and null says that there is none.
            let other = json!({ "sent_per_24h": 500, "synced_per_day": null });
            assert_eq!(acme.put(path, other.clone()).await.expect(200), shown(&other, from));
            assert_eq!(acme.get(path).await.expect(200), shown(&other, from));
            assert_eq!(acme.put(path, json!({})).await.expect(200), shown(&json!({}), from));
        }
        let globex = api.workspace("globex").await;
        assert_eq!(globex.get("/limits").await.expect(200), shown(&json!({}), "workspace"));
    }

    async fn the_limit_that_holds_is_the_users_over_the_workspaces_over_the_presets(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let (limits, policy) = (format!("/users/{user}/limits"), format!("/users/{user}/policy"));
        let check = async |path: &str, limit: Value, from: &str| {
            let shown = acme.get(path).await.expect(200);
            assert_eq!((&shown["synced_per_day"], &shown["from"]["synced_per_day"]), (&limit, &json!(from)), "{path}");
        };
        acme.put("/policy", json!({ "preset": "sharpspring" })).await.expect(200);
        check("/limits", json!(100), "preset").await;
        check(&limits, json!(100), "preset").await;
        acme.put(&policy, json!({ "preset": "keap" })).await.expect(200);
        check("/limits", json!(100), "preset").await;
        check(&limits, json!(null), "default").await;
        acme.put("/limits", json!({ "synced_per_day": null })).await.expect(200);
        check("/limits", json!(null), "workspace").await;
        check(&limits, json!(null), "workspace").await;
        acme.put("/limits", json!({ "synced_per_day": 9 })).await.expect(200);
        check(&limits, json!(9), "workspace").await;
        acme.put(&limits, json!({ "synced_per_day": null })).await.expect(200);
        check(&limits, json!(null), "user").await;
        let usage = acme.get(&format!("/users/{user}/usage")).await.expect(200);
        assert_eq!(usage["synced_per_day"]["limit"], json!(null));
        acme.put(&limits, json!({})).await.expect(200);
        let usage = acme.get(&format!("/users/{user}/usage")).await.expect(200);
        assert_eq!(usage["synced_per_day"]["limit"], json!(9));
    }

    async fn usage_shows_the_limit_that_holds_and_when_it_begins_anew(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        acme.put("/limits", json!({ "synced_per_day": 100, "sent_per_day": 50, "accounts": 7 })).await.expect(200);
        acme.put(&format!("/users/{user}/limits"), json!({ "sent_per_day": 20 })).await.expect(200);
        acme.account(&user, "ann@acme.example").await;
        let usage = acme.get(&format!("/users/{user}/usage")).await.expect(200);
        for (quota, limit) in [("synced_per_day", json!(100)), ("sent_per_day", json!(20)), ("sent_per_24h", json!(null))] {
            assert_eq!((&usage[quota]["used"], &usage[quota]["limit"]), (&json!(0), &limit), "{quota}");
            assert!(usage[quota]["resets_at"].is_string(), "{quota}");
        }
        assert!(usage["sent_per_day"]["resets_at"].as_str().unwrap().ends_with("T00:00:00Z"));
        assert_eq!(usage["accounts"], json!({ "used": 1, "limit": null }));
        assert_eq!(usage["workspace_accounts"], json!({ "used": 1, "limit": 7 }));
    }

    async fn an_account_too_many_waits_of_a_user_or_of_the_workspace(api) {
        let acme = api.workspace("acme").await;
        let (ann, ben) = (acme.user("ann@acme.example").await, acme.user("ben@acme.example").await);
        acme.put("/limits", json!({ "accounts": 2 })).await.expect(200);
        acme.put(&format!("/users/{ann}/limits"), json!({ "accounts": 1 })).await.expect(200);
        let connect = async |user: &str, email: &str| {
            let made = acme.post("/accounts", crate::server::account(user, email)).await.expect(201);
            made["status"]["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(connect(&ann, "ann@acme.example").await, "connecting");
        assert_eq!(connect(&ann, "ann2@acme.example").await, "waiting_for_quota");
        assert_eq!(connect(&ben, "ben@acme.example").await, "connecting");
        assert_eq!(connect(&ben, "ben2@acme.example").await, "waiting_for_quota");
        assert_eq!(acme.get("/accounts?state=waiting_for_quota").await.items().len(), 2);
        let usage = acme.get(&format!("/users/{ann}/usage")).await.expect(200);
        assert_eq!(usage["accounts"], json!({ "used": 1, "limit": 1 }));
        assert_eq!(usage["workspace_accounts"], json!({ "used": 2, "limit": 2 }));
    }

    async fn bad_limits_are_refused_by_field_and_only_admins_set_them(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let own = format!("/users/{user}/limits");
        for path in ["/limits", own.as_str()] {
            for (field, bad) in [
                ("synced_per_day", json!(-1)),
                ("sent_per_day", json!(1.5)),
                ("sent_per_24h", json!("many")),
                ("accounts", json!(4_000_000_000_u32)),
                ("sent_unit", json!("bytes")),
            ] {
                acme.put(path, json!({ field: bad })).await.refused(422, "invalid", Some(field));
            }
            if path == "/limits" {
                let large = json!({ "accounts_per_user": 4_000_000_000_u32 });
                acme.put(path, large).await.refused(422, "invalid", Some("accounts_per_user"));
            } else {
                let other = json!({ "accounts_per_user": 5 });
                acme.put(path, other).await.refused(422, "unknown_field", Some("accounts_per_user"));
            }
            acme.put(path, json!({ "sent_per_hour": 5 })).await.refused(422, "unknown_field", Some("sent_per_hour"));
            let reader = acme.with_key(json!({ "scopes": ["read", "write"] })).await;
            assert_eq!(reader.put(path, json!({ "sent_per_day": 5 })).await.status, 403);
            assert_eq!(reader.get(path).await.status, 200);
        }
        let of_ann = acme.with_key(json!({ "scopes": ["admin"], "user_id": user })).await;
        assert_eq!(of_ann.put(&own, json!({ "sent_per_day": null })).await.status, 403);
        let globex = api.workspace("globex").await;
        for path in [own.clone(), format!("/users/{user}/usage")] {
            globex.get(&path).await.refused(404, "not_found", None);
        }
        globex.put(&own, json!({})).await.refused(404, "not_found", None);
        // A user who is gone takes his limits with him.
        acme.put(&own, json!({ "sent_per_day": 5 })).await.expect(200);
        assert_eq!(acme.delete(&format!("/users/{user}")).await.status, 204);
        acme.get(&own).await.refused(404, "not_found", None);
    }
}
