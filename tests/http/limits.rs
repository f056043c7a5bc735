//! Limits and how much of them is used, as they are set and read.
//!
//! Not here: what happens at a limit (`flows`).

use serde_json::{Value, json};

use crate::server::both;

fn limits(of: &Value) -> Value {
    let mut limits = json!({
        "synced_per_day": null, "sent_per_day": null, "sent_per_24h": null, "sent_unit": null, "accounts": null,
    });
    for (name, value) in of.as_object().unwrap() {
        limits[name] = value.clone();
    }
    limits
}

both! {
    async fn limits_are_set_as_a_whole_and_read_back(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let own = format!("/users/{user}/limits");
        for path in ["/limits", own.as_str()] {
            assert_eq!(acme.get(path).await.expect(200), limits(&json!({})));
            let some = json!({ "synced_per_day": 100, "sent_per_day": 0, "accounts": 3, "sent_unit": "messages" });
            assert_eq!(acme.put(path, some.clone()).await.expect(200), limits(&some));
            assert_eq!(acme.get(path).await.expect(200), limits(&some));
            // What is left out has no limit any more.
            let other = json!({ "sent_per_24h": 500, "synced_per_day": null });
            assert_eq!(acme.put(path, other.clone()).await.expect(200), limits(&other));
            assert_eq!(acme.get(path).await.expect(200), limits(&other));
        }
        let globex = api.workspace("globex").await;
        assert_eq!(globex.get("/limits").await.expect(200), limits(&json!({})));
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
