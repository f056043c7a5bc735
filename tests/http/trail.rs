//! Who did what, as an admin reads it.

use serde_json::json;

use crate::server::both;

both! {
    async fn whoever_did_it_is_named_and_only_admins_are_told(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let reader = acme.with_key(json!({ "scopes": ["read", "write"] })).await;
        let admin = acme.with_key(json!({ "scopes": ["admin"] })).await;
        let mail = acme.quarantined(&user).await;
        acme.put("/policy", json!({ "preset": "keap" })).await.expect(200);
        admin.post(&format!("/quarantine/{mail}/reject"), json!({})).await.expect(200);
        reader.get("/trail").await.refused(403, "forbidden", None);
        let told = acme.get("/trail").await.items();
        let acts: Vec<_> = told.iter().map(|row| row["act"].as_str().unwrap()).collect();
        assert_eq!(acts[..5], ["mail.rejected", "policy.changed", "key.created", "key.created", "user.added"], "{told:?}");
        assert_eq!((&told[0]["subject"], &told[4]["subject"]), (&json!(mail), &json!(user)));
        assert!(told[0]["actor"].as_str().unwrap().starts_with("key_"));
        assert_ne!(told[0]["actor"], told[1]["actor"]);
        assert!(!acme.get("/trail").await.text().contains('@'));
        let first = acme.get("/trail?limit=3").await.expect(200);
        let next = format!("/trail?limit=200&cursor={}", first["next_cursor"].as_str().unwrap());
        assert_eq!(acme.get(&next).await.items(), told[3..]);
        acme.get("/trail?cursor=nonsense").await.refused(422, "invalid", Some("cursor"));
    }
}
