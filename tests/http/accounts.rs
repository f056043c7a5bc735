//! Accounts at providers and the smarthost.

use mailweave::{
    core::job::{Job, JobKind},
    flow,
};
use serde_json::{Value, json};

use crate::server::{account, account as account_of, both};

both! {
    async fn an_account_is_connected_and_shows_no_login(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let made = acme.post("/accounts", account(&user, "ann@acme.example")).await;
        assert!(!made.text().contains("hunter2"));
        let made = made.expect(201);
        assert_eq!(made["imap"], json!({ "host": "imap.example.com", "port": 993, "security": "tls" }));
        let auth = json!({ "type": "password", "imap_username": null, "smtp_username": null });
        assert_eq!(made["auth"], auth);
        let status = &made["status"];
        assert_eq!((&status["state"], &status["label"]), (&json!("connecting"), &json!("Connecting")));
        for member in ["color", "since", "detail", "advice", "last_synced_at", "last_checked_at", "next_attempt_at"] {
            assert!(status.get(member).is_some(), "{member} is missing");
        }
        let path = format!("/accounts/{}", made["id"].as_str().unwrap());
        assert_eq!(acme.get(&path).await.expect(200), made);
        assert_eq!(&acme.get(&format!("{path}/status")).await.expect(200), status);
        assert_eq!(acme.get(&format!("{path}/errors")).await.items(), Vec::<Value>::new());
        assert_eq!(acme.get("/accounts").await.items(), std::slice::from_ref(&made));
        assert_eq!(acme.get(&format!("/accounts?user_id={user}&state=connecting")).await.items(), std::slice::from_ref(&made));
        assert_eq!(acme.get("/accounts?state=active").await.items(), Vec::<Value>::new());
        let looking = acme.post(&format!("{path}/sync"), json!({})).await.expect(202);
        assert_eq!(looking["status"]["state"], "connecting");
        acme.post("/accounts", account(&user, "ann@acme.example")).await.refused(409, "email_taken", Some("email"));
    }

    async fn servers_that_are_not_given_are_those_of_the_provider_or_of_the_domain(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let short = |email: &str| {
            let auth = json!({ "type": "password", "username": email, "password": "hunter2" });
            json!({ "user_id": user, "email": email, "auth": auth })
        };
        for (email, named, provider, imap, smtp, by) in [
            ("ann@gmail.com", None, "google", "imap.gmail.com", "smtp.gmail.com", "provider"),
            ("ann@acme.example", Some("fastmail"), "fastmail", "imap.fastmail.com", "smtp.fastmail.com", "provider"),
            ("ann@found.example", None, "imap", "imap.found.example", "smtp.found.example", "srv"),
        ] {
            let mut body = short(email);
            if let Some(named) = named {
                body["provider"] = json!(named);
            }
            let made = acme.post("/accounts", body).await.expect(201);
            assert_eq!(
                (&made["provider"], &made["imap"]["host"], &made["smtp"]["host"]),
                (&json!(provider), &json!(imap), &json!(smtp))
            );
            assert_eq!(made["found_by"], json!({ "imap": by, "smtp": by }));
        }
        for (email, named, param, says) in [
            ("bob@nowhere.example", None, "imap", "Give imap and smtp"),
            ("bob@foreign.example", None, "imap", "imap.evil.example"),
            ("bob@acme.example", Some("gogle"), "provider", "google"),
            ("bob@outlook.com", None, "auth.type", "Microsoft takes no passwords"),
            // Exchange on premise is anywhere.
            ("bob@acme.example", Some("exchange"), "imap", "Give imap and smtp"),
        ] {
            let mut body = short(email);
            if let Some(named) = named {
                body["provider"] = json!(named);
            }
            let answer = acme.post("/accounts", body).await;
            answer.refused(422, "invalid", Some(param));
            assert!(answer.text().contains(says), "{}", answer.text());
        }
    }

    async fn bad_accounts_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let good = account(&user, "ann@acme.example");
        let refused = async |pointer: &str, value: Value, param: &str| {
            let mut body = good.clone();
            *body.pointer_mut(pointer).unwrap() = value;
            let answer = acme.post("/accounts", body).await;
            answer.refused(422, "invalid", Some(param));
            assert!(!answer.text().contains("hunter2"));
        };
        refused("/user_id", json!("usr_01jd0000000000000000000000"), "user_id").await;
        refused("/imap/host", json!("https://imap.example.com"), "imap.host").await;
        refused("/imap/host", json!("a\r\nb"), "imap.host").await;
        refused("/imap/host", json!("169.254.169.254"), "imap.host").await;
        refused("/imap/port", json!(0), "imap.port").await;
        refused("/imap/port", json!(70000), "imap.port").await;
        refused("/smtp/security", json!("ssl"), "smtp.security").await;
        refused("/smtp/security", json!("none"), "smtp.security").await;
        refused("/smtp", json!(null), "smtp").await;
        refused("/auth", json!(null), "auth").await;
        refused("/auth/password", json!("a\nb"), "auth.password").await;
        refused("/auth/username", json!(""), "auth.username").await;
        refused("/auth/type", json!("oauth2"), "auth.password").await;
        let token = json!({ "type": "oauth2", "provider": "nobody", "refresh_token": "1//x" });
        refused("/auth", token, "auth.provider").await;
        let provider = json!({ "user_id": user, "email": "ann@acme.example", "provider": "google" });
        let answer = acme.post("/accounts", provider).await;
        answer.refused(422, "invalid", Some("provider"));
        assert!(answer.json()["advice"].as_str().unwrap().contains("connect link"));
        assert_eq!(acme.get("/accounts").await.items(), Vec::<Value>::new());
    }

    async fn clear_text_goes_only_where_the_operator_allows_it(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let mut body = account(&user, "ann@acme.example");
        body["imap"] = json!({ "host": "127.0.0.1", "port": 1143, "security": "none" });
        body["smtp"] = json!({ "host": "127.0.0.1", "port": 1587, "security": "none" });
        acme.post("/accounts", body).await.expect(201);
    }

    async fn an_account_is_changed_without_disconnecting(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let path = format!("/accounts/{}", acme.account(&user, "ann@acme.example").await);
        let body = json!({
            "email": "ann@new.example",
            "imap": { "host": "imap.new.example", "port": 143, "security": "starttls" },
            "auth": { "type": "password", "username": "ann", "password": "canary-two" },
        });
        let changed = acme.patch(&path, body).await;
        assert!(!changed.text().contains("canary-two"));
        let changed = changed.expect(200);
        assert_eq!((&changed["email"], &changed["imap"]["host"]), (&json!("ann@new.example"), &json!("imap.new.example")));
        assert_eq!((&changed["smtp"]["host"], &changed["status"]["state"]), (&json!("smtp.example.com"), &json!("connecting")));
        assert_eq!(acme.get(&path).await.expect(200)["email"], "ann@new.example");
        acme.patch(&path, json!({ "imap": { "host": "x y", "port": 1, "security": "tls" } })).await.refused(422, "invalid", Some("imap.host"));
    }

    async fn a_stored_login_goes_to_no_new_host(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let path = format!("/accounts/{}", acme.account(&user, "ann@acme.example").await);
        let before = acme.get(&path).await.expect(200);
        for (server, port) in [("imap", 993), ("smtp", 465)] {
            let elsewhere = json!({ server: { "host": "mail.attacker.example", "port": port, "security": "tls" } });
            let answer = acme.patch(&path, elsewhere).await;
            answer.refused(422, "invalid", Some("auth"));
            assert!(answer.json()["detail"].as_str().unwrap().contains("new host"));
        }
        // One host in the place of the other is new there as well.
        let swapped = json!({ "imap": { "host": "smtp.example.com", "port": 993, "security": "tls" } });
        acme.patch(&path, swapped).await.refused(422, "invalid", Some("auth"));
        assert_eq!(acme.get(&path).await.expect(200), before);
        let same_host = json!({
            "email": "ann@new.example",
            "imap": { "host": "IMAP.example.com", "port": 143, "security": "starttls" },
        });
        let changed = acme.patch(&path, same_host).await.expect(200);
        assert_eq!((&changed["imap"]["host"], &changed["imap"]["port"]), (&json!("imap.example.com"), &json!(143)));
        let with_login = json!({
            "smtp": { "host": "smtp.new.example", "port": 465, "security": "tls" },
            "auth": { "type": "password", "username": "ann", "password": "new" },
        });
        assert_eq!(acme.patch(&path, with_login).await.expect(200)["smtp"]["host"], "smtp.new.example");
    }

    async fn a_disconnected_account_keeps_its_history_and_forgets_its_login(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let id = acme.account(&user, "ann@acme.example").await;
        let path = format!("/accounts/{id}");
        acme.post(&format!("{path}/disconnect"), json!({})).await.refused(422, "invalid", Some("history"));
        let gone = acme.post(&format!("{path}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        assert_eq!(gone["status"]["state"], "disconnected");
        let again = acme.post(&format!("{path}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        assert_eq!(again["status"]["since"], gone["status"]["since"]);
        let events = acme.get("/events?types=account.disconnected").await.items();
        assert_eq!((events.len(), &events[0]["data"]["account_id"]), (1, &json!(id)));
        acme.post(&format!("{path}/sync"), json!({})).await.refused(409, "account_not_connected", None);
        acme.patch(&path, json!({ "email": "ann@new.example" })).await.refused(422, "invalid", Some("auth"));
        let auth = json!({ "auth": { "type": "password", "username": "ann", "password": "new" } });
        assert_eq!(acme.patch(&path, auth).await.expect(200)["status"]["state"], "connecting");
    }

    async fn an_account_is_paused_and_resumed(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let path = format!("/accounts/{}", acme.account(&user, "ann@acme.example").await);
        let post = async |verb: &str| acme.post(&format!("{path}/{verb}"), json!({})).await;
        let paused = post("pause").await.expect(200);
        assert_eq!((&paused["status"]["state"], &paused["status"]["color"]), (&json!("paused"), &json!("gray")));
        let refused = post("sync").await;
        refused.refused(409, "account_not_connected", None);
        assert!(refused.json()["advice"].as_str().unwrap().contains("Resume"));
        assert_eq!(post("resume").await.expect(200)["status"]["state"], "connecting");
        assert_eq!(post("resume").await.expect(200)["status"]["state"], "connecting");
        acme.post(&format!("{path}/disconnect"), json!({ "history": "keep" })).await.expect(200);
        for verb in ["pause", "resume"] {
            post(verb).await.refused(409, "account_not_connected", None);
        }
    }

    async fn an_erased_account_shows_its_receipt_and_is_never_revived(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let path = format!("/accounts/{}", acme.account(&user, "ann.lee@acme.example").await);
        let disconnect = async |history: &str| acme.post(&format!("{path}/disconnect"), json!({ "history": history })).await;
        disconnect("keep").await.expect(200);
        let erasing = disconnect("erase").await.expect(200);
        assert_eq!(erasing["status"]["state"], "erasing");
        assert_eq!((&erasing["receipt"]["messages"], &erasing["receipt"]["erased_at"]), (&json!(0), &Value::Null));
        assert_eq!(disconnect("keep").await.expect(200), erasing);
        let auth = json!({ "auth": { "type": "password", "username": "ann", "password": "new" } });
        acme.patch(&path, auth.clone()).await.refused(409, "account_erased", None);
        // It was told as disconnected once, though it was disconnected before it was erased.
        assert_eq!(acme.get("/events?types=account.disconnected").await.items().len(), 1);

        let lease = std::time::Duration::from_secs(60);
        let jobs = api.gateway.queue.claim(&[JobKind::Erase], jiff::Timestamp::now(), lease, 10).await.unwrap();
        let [job] = &jobs[..] else { panic!("one job: {jobs:?}") };
        let Job::EraseAccount { account } = job.job else { panic!("{job:?}") };
        flow::erase::perform_account(&api.gateway, job, account).await.unwrap();
        // Once more, as after a crash before it was settled, it finds nothing to do.
        let again = flow::erase::perform_account(&api.gateway, job, account).await;
        assert!(matches!(again, Err(flow::FlowError::Obsolete)), "{again:?}");
        assert!(!api.keeps("ann.lee@acme.example"));
        assert!(!api.keeps("imap.example.com"));

        let erased = acme.get(&path).await.expect(200);
        assert_eq!((&erased["status"]["state"], &erased["status"]["label"]), (&json!("erased"), &json!("Erased")));
        assert!(erased["receipt"]["erased_at"].is_string());
        let told = acme.get("/events?types=account.erased").await.items();
        assert_eq!((told.len(), &told[0]["data"]["receipt"]), (1, &erased["receipt"]));
        acme.patch(&path, auth).await.refused(409, "account_erased", None);
        for verb in ["pause", "resume", "sync"] {
            acme.post(&format!("{path}/{verb}"), json!({})).await.refused(409, "account_erased", None);
        }
        acme.post("/accounts", account_of(&user, "ann.lee@acme.example")).await.expect(201);
    }

    async fn the_smarthost_is_set_shown_without_password_and_removed(api) {
        let acme = api.workspace("acme").await;
        acme.get("/smarthost").await.refused(404, "not_found", None);
        let body = json!({
            "host": "smtp.provider.example", "port": 587, "security": "starttls", "username": "acme",
            "password": "hunter2-canary", "from_domains": ["Acme.Example", "acme.example"],
        });
        let set = acme.put("/smarthost", body.clone()).await;
        assert!(!set.text().contains("hunter2"));
        let set = set.expect(200);
        assert_eq!((&set["username"], &set["from_domains"]), (&json!("acme"), &json!(["acme.example"])));
        assert_eq!(acme.get("/smarthost").await.expect(200), set);
        let refused = async |field: &str, value: Value, param: &str| {
            let mut body = body.clone();
            body[field] = value;
            acme.put("/smarthost", body).await.refused(422, "invalid", Some(param));
        };
        refused("from_domains", json!([]), "from_domains").await;
        refused("from_domains", json!(["acme.example", "a b"]), "from_domains[1]").await;
        refused("security", json!("none"), "security").await;
        refused("host", json!("smtp://x"), "host").await;
        refused("username", json!("a\r\nb"), "username").await;
        assert_eq!(acme.delete("/smarthost").await.status, 204);
        acme.delete("/smarthost").await.refused(404, "not_found", None);
    }
}
