//! Policies: chosen for the workspace and for users, shown with where each value comes from.

use serde_json::{Value, json};

use crate::server::{account, both};

both! {
    async fn a_workspace_without_a_choice_has_the_default_and_everything_stands_in_the_answer(api) {
        let acme = api.workspace("acme").await;
        let policy = acme.get("/policy").await.expect(200);
        assert_eq!(
            (&policy["preset"], &policy["version"], &policy["overrides"]),
            (&json!("mailweave"), &json!(1), &json!({}))
        );
        for setting in [
            "thread_start", "require_assignment", "match", "internal_rule", "drafts", "create_on", "create_for",
            "capture_enabled", "capture_fields", "subject_threading", "backfill_days", "attachments",
            "attachment_types", "attachment_bytes_max", "oversize", "append_sent", "require_content", "over_sync", "over_send", "push",
            "poll_min", "poll_max", "give_up_after", "on_disconnect", "bulk_route", "workflow_route", "multi_tenant",
            "visibility", "connect_role", "trust", "labels", "reply_copies", "reply_copy_assigned", "reply_to", "always_bcc",
        ] {
            assert_eq!(policy["settings"][setting]["from"], "default", "{setting}");
            assert!(policy["settings"][setting].get("value").is_some(), "{setting}");
        }
        assert_eq!(policy["settings"]["subject_threading"]["value"], "off");
        assert_eq!(policy["settings"]["give_up_after"]["value"], "7d");
    }

    async fn each_value_says_which_layer_it_comes_from_and_every_change_is_a_version(api) {
        let acme = api.workspace("acme").await;
        let (ann, ben) = (acme.user("ann@acme.example").await, acme.user("ben@acme.example").await);
        let chosen = json!({ "preset": "keap", "overrides": { "backfill_days": 7, "attachment_bytes_max": null } });
        let workspace = acme.put("/policy", chosen).await.expect(200);
        assert_eq!((&workspace["preset"], &workspace["version"]), (&json!("keap"), &json!(2)));
        assert_eq!(workspace["settings"]["backfill_days"], json!({ "value": 7, "from": "workspace" }));
        assert_eq!(workspace["settings"]["match"], json!({ "value": "primary", "from": "preset" }));
        assert_eq!(workspace["settings"]["drafts"], json!({ "value": "skip", "from": "default" }));
        assert_eq!(workspace["overrides"], json!({ "backfill_days": 7, "attachment_bytes_max": null }));
        assert_eq!(acme.get("/policy").await.expect(200), workspace);
        assert_eq!(api.admin().get(&acme.base).await.expect(200)["policy_version"], 2);

        let path = format!("/users/{ann}/policy");
        let of_ann = acme.put(&path, json!({ "overrides": { "match": "all" } })).await.expect(200);
        assert_eq!((&of_ann["preset"], &of_ann["preset_from"]), (&json!("keap"), &json!("workspace")));
        assert_eq!(of_ann["version"], 3);
        assert_eq!(of_ann["settings"]["match"], json!({ "value": "all", "from": "user" }));
        assert_eq!(of_ann["settings"]["backfill_days"], json!({ "value": 7, "from": "workspace" }));
        assert_eq!(of_ann["overrides"], json!({ "match": "all" }));
        assert_eq!(acme.get(&path).await.expect(200), of_ann);
        let of_ben = acme.get(&format!("/users/{ben}/policy")).await.expect(200);
        assert_eq!(of_ben["settings"]["match"], json!({ "value": "primary", "from": "preset" }));

        let own = acme.put(&path, json!({ "preset": "realpad" })).await.expect(200);
        assert_eq!((&own["preset"], &own["preset_from"]), (&json!("realpad"), &json!("user")));
        assert_eq!(own["settings"]["connect_role"], json!({ "value": "self", "from": "preset" }));
        let back = acme.put(&path, json!({})).await.expect(200);
        assert_eq!((&back["preset"], &back["overrides"]), (&json!("keap"), &json!({})));
        assert_eq!(back["version"], 5);
    }

    async fn a_presets_name_can_be_given_with_the_workspace_too(api) {
        let admin = api.admin();
        let body = json!({ "name": "Acme", "slug": "acme", "preset": "sharpspring" });
        admin.post("/v1/workspaces", body).await.expect(201);
        let policy = admin.get("/v1/workspaces/acme/policy").await.expect(200);
        assert_eq!(policy["settings"]["create_on"], json!({ "value": "sent", "from": "preset" }));
        let changed = admin.patch("/v1/workspaces/acme", json!({ "preset": "keap" })).await.expect(200);
        assert_eq!((&changed["preset"], &changed["policy_version"]), (&json!("keap"), &json!(2)));
        let policy = admin.get("/v1/workspaces/acme/policy").await.expect(200);
        assert_eq!(policy["settings"]["create_on"], json!({ "value": "never", "from": "preset" }));
    }

    async fn what_cannot_be_chosen_is_refused_with_the_setting_and_what_it_takes(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.user("ann@acme.example").await;
        for path in ["/policy".to_owned(), format!("/users/{ann}/policy")] {
            let refused = async |body: Value, param: &str, says: &str| {
                let answer = acme.put(&path, body).await;
                answer.refused(422, "invalid", Some(param));
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains(says), "{detail}");
            };
            refused(json!({ "preset": "salesforce" }), "preset", "\"mailweave\", \"keap\", \"sharpspring\"").await;
            let overrides = |name: &str, value: Value| json!({ "overrides": { name: value } });
            refused(overrides("match", json!("some")), "overrides.match", "`primary` or `all`").await;
            refused(overrides("thread_start", json!(["post"])), "overrides.thread_start", "`crm`, `capture`").await;
            refused(overrides("push", json!("yes")), "overrides.push", "a boolean").await;
            refused(overrides("poll_min", json!("soon")), "overrides.poll_min", "\"90s\"").await;
            refused(overrides("poll_min", json!("2h")), "overrides.poll_min", "poll_max").await;
            refused(overrides("reply_copies", json!(["desk"])), "overrides.reply_copies", "reply_copies: ").await;
            refused(overrides("reply_to", json!(["ann-1@bcc.example.com"])), "overrides.reply_to", "of the gateway itself").await;
            refused(overrides("matching", json!("all")), "overrides.matching", "nearest is \"match\"").await;
            let unknown = acme.put(&path, json!({ "preset": "keap", "rules": {} })).await;
            unknown.refused(422, "unknown_field", Some("rules"));
        }
        let policy = acme.get("/policy").await.expect(200);
        assert_eq!((&policy["preset"], &policy["version"]), (&json!("mailweave"), &json!(1)), "nothing was changed");
    }

    async fn who_is_no_administrator_reads_policies_and_changes_none(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.user("ann@acme.example").await;
        let path = format!("/users/{ann}/policy");
        let member = acme.with_key(json!({ "name": "k", "scopes": ["read", "write"] })).await;
        member.get("/policy").await.expect(200);
        member.get(&path).await.expect(200);
        member.put("/policy", json!({})).await.refused(403, "forbidden", None);
        let own = acme.with_key(json!({ "name": "k", "scopes": ["admin"], "user_id": ann })).await;
        own.put("/policy", json!({})).await.refused(403, "forbidden", None);
        own.put(&path, json!({})).await.refused(403, "forbidden", None);
        let other = api.workspace("other").await;
        other.get(&path).await.refused(404, "not_found", None);
        other.put(&path, json!({})).await.refused(404, "not_found", None);
    }

    async fn a_simulation_says_what_it_cannot_be_made_of(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.user("ann@acme.example").await;
        let account = acme.account(&ann, "ann@acme.example").await;
        let order = |more: Value| {
            let mut order = json!({ "account_id": account, "days": 7, "preset": "keap" });
            order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            order
        };
        let refused = async |more: Value, code: &str, param: &str, says: &str| {
            let answer = acme.post("/policy/simulate", order(more)).await;
            answer.refused(422, code, Some(param));
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(says), "{detail}");
        };
        refused(json!({ "preset": "keep" }), "invalid", "preset", "the nearest is \"keap\"").await;
        refused(json!({ "overrides": { "mach": "all" } }), "invalid", "overrides.mach", "nearest is \"match\"").await;
        refused(json!({ "against": { "preset": "reelpad" } }), "invalid", "against.preset", "\"realpad\"").await;
        let poll = json!({ "against": { "preset": "keap", "overrides": { "poll_min": "2h" } } });
        refused(poll, "invalid", "against.overrides.poll_min", "poll_max").await;
        for days in [0, 91] {
            refused(json!({ "days": days }), "invalid", "days", "from 1 to 90").await;
        }
        refused(json!({ "rules": {} }), "unknown_field", "rules", "").await;
        // Neither what another workspace has nor what nobody has.
        let other = api.workspace("other").await;
        let answer = other.post("/policy/simulate", order(json!({}))).await;
        answer.refused(422, "invalid", Some("account_id"));
    }

    async fn only_an_administrator_simulates_and_only_over_an_account_that_is_connected(api) {
        let acme = api.workspace("acme").await;
        let (ann, ben) = (acme.user("ann@acme.example").await, acme.user("ben@acme.example").await);
        let account = acme.account(&ann, "ann@acme.example").await;
        let order = json!({ "account_id": account, "preset": "keap" });
        let member = acme.with_key(json!({ "scopes": ["read", "write"] })).await;
        member.post("/policy/simulate", order.clone()).await.refused(403, "forbidden", None);
        let bound = acme.with_key(json!({ "scopes": ["admin"], "user_id": ben })).await;
        bound.post("/policy/simulate", order.clone()).await.refused(403, "forbidden", None);
        let path = format!("/accounts/{account}");
        acme.post(&format!("{path}/pause"), json!({})).await.expect(200);
        let paused = acme.post("/policy/simulate", order.clone()).await;
        paused.refused(409, "account_not_connected", None);
        assert_eq!(paused.json()["advice"], "Resume it.");
        acme.post(&format!("{path}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        acme.post("/policy/simulate", order).await.refused(409, "account_not_connected", None);
    }

    async fn real_13_only_the_user_himself_connects_his_account(api) {
        let acme = api.workspace("acme").await;
        let (ann, ben) = (acme.user("ann@acme.example").await, acme.user("ben@acme.example").await);
        acme.put("/policy", json!({ "preset": "realpad" })).await.expect(200);
        let body = account(&ann, "ann@acme.example");
        acme.post("/accounts", body.clone()).await.refused(403, "forbidden", None);
        let key = async |user: &str| {
            acme.with_key(json!({ "name": "k", "scopes": ["read", "write"], "user_id": user })).await
        };
        key(&ben).await.post("/accounts", body.clone()).await.refused(403, "forbidden", None);
        key(&ann).await.post("/accounts", body).await.expect(201);
    }

    async fn shsp_2_only_users_of_the_roles_named_connect_accounts(api) {
        let acme = api.workspace("acme").await;
        let ann = acme.user("ann@acme.example").await;
        acme.put("/policy", json!({ "overrides": { "connect_role": ["admin"] } })).await.expect(200);
        let key = acme.with_key(json!({ "name": "k", "scopes": ["write"], "user_id": ann })).await;
        let body = account(&ann, "ann@acme.example");
        key.post("/accounts", body.clone()).await.refused(403, "forbidden", None);
        acme.patch(&format!("/users/{ann}"), json!({ "role": "admin" })).await.expect(200);
        key.post("/accounts", body).await.expect(201);
    }

    async fn shsp_7_and_faq_2_what_disconnecting_does_is_asked_or_known(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let id = acme.account(&user, "ann@acme.example").await;
        let path = format!("/accounts/{id}/disconnect");
        acme.put("/policy", json!({ "preset": "sharpspring" })).await.expect(200);
        acme.post(&path, json!({})).await.refused(422, "invalid", Some("history"));
        acme.put("/policy", json!({ "preset": "kaname-gmail" })).await.expect(200);
        let gone = acme.post(&path, json!({})).await.expect(200);
        assert_eq!(gone["status"]["state"], "disconnected");
    }

    async fn states_are_shown_in_the_words_of_the_users_policy(api) {
        let acme = api.workspace("acme").await;
        let (ann, ben) = (acme.user("ann@acme.example").await, acme.user("ben@acme.example").await);
        let of_ann = acme.account(&ann, "ann@acme.example").await;
        acme.account(&ben, "ben@acme.example").await;
        let label = json!({ "labels": { "connecting": { "label": "Dialling", "color": "pink" } } });
        acme.put(&format!("/users/{ann}/policy"), json!({ "overrides": label })).await.expect(200);
        let shown = acme.get(&format!("/accounts/{of_ann}")).await.expect(200);
        let words = |status: &Value| (status["label"].clone(), status["color"].clone());
        assert_eq!(words(&shown["status"]), (json!("Dialling"), json!("pink")));
        let status = acme.get(&format!("/accounts/{of_ann}/status")).await.expect(200);
        assert_eq!(status, shown["status"]);
        let mut labels: Vec<String> =
            acme.get("/accounts").await.items().iter().map(|row| row["status"]["label"].to_string()).collect();
        labels.sort();
        assert_eq!(labels, ["\"Connecting\"", "\"Dialling\""]);
    }
}
