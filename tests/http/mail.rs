//! Messages sent over the API, and reading them back: messages, conversations, timelines, decisions.

use mailweave::core::ids::ConversationId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, CAPTURE_DOMAIN, both};

both! {
    async fn a_message_is_queued_and_shown_as_it_was_sent(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let carl = acme.contact("carl@customer.example").await;
        let body = json!({
            "from_user_id": user,
            "to": [{ "email": "carl@customer.example", "name": "Carl Č." }],
            "cc": [{ "email": "dora@customer.example" }],
            "bcc": [{ "email": "boss@acme.example" }],
            "subject": "Nabídka č. 1",
            "text": "Dobrý den.\n.\nAnn",
            "html": "<p>Dobrý den.</p><script>alert(1)</script>",
            "attachments": [{ "filename": "plán \"1\".txt", "content_type": "text/plain", "content": "aGVsbG8=" }],
        });
        let sent = acme.post("/messages", body).await.expect(202);
        assert_eq!(sent["state"], "queued");
        let path = format!("/messages/{}", sent["id"].as_str().unwrap());
        let message = acme.get(&path).await.expect(200);
        assert_eq!(message["id"], sent["id"]);
        assert_eq!(message["conversation_id"], sent["conversation_id"]);
        assert_eq!((&message["direction"], &message["kind"]), (&json!("outbound"), &json!("mail")));
        assert_eq!(message["author"], json!({ "role": "user", "id": user, "email": "ann@acme.example", "name": "A User" }));
        assert_eq!(message["from"], json!([{ "email": "ann@acme.example", "name": "A User" }]));
        assert_eq!(message["to"], json!([{ "email": "carl@customer.example", "name": "Carl Č." }]));
        assert_eq!(message["cc"], json!([{ "email": "dora@customer.example" }]));
        assert_eq!(message["bcc"], json!([{ "email": "boss@acme.example" }]));
        assert_eq!(message["subject"], "Nabídka č. 1");
        assert_eq!(message["text"].as_str().unwrap().trim_end(), "Dobrý den.\n.\nAnn");
        assert!(message["html"].as_str().unwrap().contains("Dobrý den."));
        assert!(!message["html"].as_str().unwrap().contains("script"));
        assert!(message["reply_text"].is_string());
        assert!(!message["rfc822_message_id"].as_str().unwrap().contains('<'));
        assert_eq!(message["contacts"], json!([{ "id": carl, "role": "to" }]));
        assert_eq!(message["sightings"][0]["via"], "api");
        assert_eq!(message["delivery"]["state"], "queued");
        let mut recipients: Vec<_> = message["delivery"]["recipients"].as_array().unwrap().iter().map(|r| r["address"].as_str().unwrap()).collect();
        recipients.sort_unstable();
        assert_eq!(recipients, ["boss@acme.example", "carl@customer.example", "dora@customer.example"]);
        let raw = acme.get(&format!("{path}/raw")).await;
        assert_eq!((raw.status, raw.headers["content-type"].to_str().unwrap()), (200, "message/rfc822"));
        assert!(raw.headers["content-disposition"].to_str().unwrap().starts_with("attachment; filename=\"msg_"));
        let text = raw.text();
        assert!(text.starts_with("Date: ") || text.contains("\r\nDate: "), "{text}");
        assert!(!text.to_lowercase().contains("boss@acme.example"), "a Bcc recipient stands in the message");
        assert!(text.contains("From: \"A User\" <ann@acme.example>\r\n") || text.contains("From: A User <ann@acme.example>\r\n"), "{text}");
    }

    async fn an_attachment_is_a_file_to_be_saved(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let body = json!({
            "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "Files",
            "attachments": [
                { "filename": "plán.txt", "content_type": "text/plain", "content": "aGVsbG8=" },
                { "filename": "page.html", "content_type": "text/html", "content": "PHNjcmlwdD4=" },
            ],
        });
        let sent = acme.post("/messages", body).await.expect(202);
        let path = format!("/messages/{}", sent["id"].as_str().unwrap());
        let attachments = acme.get(&path).await.expect(200)["attachments"].as_array().unwrap().clone();
        assert_eq!(attachments.len(), 2);
        assert_eq!((&attachments[0]["filename"], &attachments[0]["size"]), (&json!("plán.txt"), &json!(5)));
        assert_eq!(attachments[0]["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        let file = |index: usize| format!("{path}/attachments/{}", attachments[index]["id"].as_str().unwrap());
        let plain = acme.get(&file(0)).await;
        assert_eq!((plain.status, plain.text().as_str()), (200, "hello"));
        assert_eq!(plain.headers["content-type"], "text/plain");
        assert_eq!(plain.headers["content-disposition"], "attachment; filename=\"pl_n.txt\"; filename*=UTF-8''pl%C3%A1n.txt");
        assert_eq!(plain.headers["x-content-type-options"], "nosniff");
        let page = acme.get(&file(1)).await;
        assert_eq!((page.headers["content-type"].to_str().unwrap(), page.text().as_str()), ("application/octet-stream", "<script>"));
        acme.get(&format!("{path}/attachments/att_01jd0000000000000000000000")).await.refused(404, "not_found", None);
    }

    async fn repairs_that_make_no_sense_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let (one, other) = (acme.send(&user, "a@x.example", "One").await, acme.send(&user, "b@x.example", "Other").await);
        let path = format!("/conversations/{}", one["conversation_id"].as_str().unwrap());
        let merge = async |id: &str| acme.post(&format!("{path}/merge"), json!({ "conversation_id": id })).await;
        let nowhere = "cnv_01jd0000000000000000000000";
        merge(nowhere).await.refused(422, "invalid", Some("conversation_id"));
        merge(one["conversation_id"].as_str().unwrap()).await.refused(409, "already_one", Some("conversation_id"));
        acme.post(&format!("/conversations/{nowhere}/merge"), json!({ "conversation_id": one["conversation_id"] })).await.refused(404, "not_found", None);
        let split = async |ids: Value| acme.post(&format!("{path}/split"), json!({ "message_ids": ids })).await;
        split(json!([])).await.refused(422, "invalid", Some("message_ids"));
        split(json!([one["id"]])).await.refused(422, "invalid", Some("message_ids"));
        split(json!([one["id"], other["id"]])).await.refused(422, "invalid", Some("message_ids[1]"));
        split(json!(["msg_01jd0000000000000000000000"])).await.refused(422, "invalid", Some("message_ids[0]"));
        acme.post(&format!("/conversations/{nowhere}/split"), json!({ "message_ids": [one["id"]] })).await.refused(404, "not_found", None);
        acme.post("/repairs/rep_01jd0000000000000000000000/undo", json!({})).await.refused(404, "not_found", None);
        // The same request again is answered as it was.
        let body = json!({ "conversation_id": other["conversation_id"] });
        let first = acme.post_once("m", &format!("{path}/merge"), &body).await.expect(200);
        assert_eq!(acme.post_once("m", &format!("{path}/merge"), &body).await.expect(200), first);
        let second = json!({ "message_ids": [other["id"], other["id"]] });
        let apart = acme.post_once("s", &format!("{path}/split"), &second).await.expect(201);
        assert_eq!(acme.post_once("s", &format!("{path}/split"), &second).await.expect(201), apart);
        assert_eq!((&apart["subject"], &apart["message_count"]), (&json!("Other"), &json!(1)));
        assert_eq!(apart["related_to"], one["conversation_id"]);
    }

    async fn an_answer_joins_the_conversation(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let carl = acme.contact("carl@customer.example").await;
        let first = acme.send(&user, "carl@customer.example", "Offer").await;
        let to = json!([{ "email": "carl@customer.example" }]);
        let in_conversation = json!({ "from_user_id": user, "to": to, "subject": "Re: Offer", "text": "More.", "conversation_id": first["conversation_id"] });
        let second = acme.post("/messages", in_conversation).await.expect(202);
        assert_eq!(second["conversation_id"], first["conversation_id"]);
        let to_message = json!({ "from_user_id": user, "to": to, "subject": "Re: Offer", "text": "Most.", "reply_to_message_id": first["id"] });
        let third = acme.post("/messages", to_message).await.expect(202);
        assert_eq!(third["conversation_id"], first["conversation_id"]);
        let other = acme.send(&user, "carl@customer.example", "Another matter").await;
        assert_ne!(other["conversation_id"], first["conversation_id"]);
        let both = json!({ "from_user_id": user, "to": to, "subject": "x", "text": "y", "conversation_id": other["conversation_id"], "reply_to_message_id": first["id"] });
        acme.post("/messages", both).await.refused(422, "invalid", Some("reply_to_message_id"));
        let id_of = async |message: &Value| {
            let path = format!("/messages/{}", message["id"].as_str().unwrap());
            acme.get(&path).await.expect(200)["rfc822_message_id"].as_str().unwrap().to_owned()
        };
        let (first_id, second_id) = (id_of(&first).await, id_of(&second).await);
        let raw = acme.get(&format!("/messages/{}/raw", second["id"].as_str().unwrap())).await.text();
        assert!(raw.contains(&format!("In-Reply-To: <{first_id}>")), "{raw}");
        let raw = acme.get(&format!("/messages/{}/raw", third["id"].as_str().unwrap())).await.text();
        assert!(raw.contains(&format!("In-Reply-To: <{first_id}>")) && !raw.contains(&second_id), "{raw}");
        let path = format!("/conversations/{}", first["conversation_id"].as_str().unwrap());
        let conversation = acme.get(&path).await.expect(200);
        assert_eq!((&conversation["message_count"], &conversation["contact_id"]), (&json!(3), &json!(carl)));
        assert_eq!((&conversation["subject"], &conversation["merged_into"]), (&json!("Offer"), &Value::Null));
        let messages = acme.get(&format!("{path}/messages")).await.items();
        let ids: Vec<_> = messages.iter().map(|message| &message["id"]).collect();
        assert_eq!(ids, [&third["id"], &second["id"], &first["id"]]);
        let page = acme.get(&format!("{path}/messages?limit=2")).await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
        let cursor = page["next_cursor"].as_str().unwrap();
        let rest = acme.get(&format!("{path}/messages?limit=2&cursor={cursor}")).await.expect(200);
        assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&first["id"], &Value::Null));
        let timeline = acme.get(&format!("/contacts/{carl}/timeline")).await.items();
        assert_eq!((timeline.len(), &timeline[0]["id"]), (4, &other["id"]));
        assert_eq!(acme.get(&format!("/conversations?contact_id={carl}")).await.items().len(), 2);
        assert_eq!(acme.get(&format!("/conversations?user_id={user}&q=offer")).await.items(), [conversation]);
        assert_eq!(acme.get("/conversations?q=nothing").await.items(), Vec::<Value>::new());
    }

    async fn a_merged_conversation_keeps_answering(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let first = acme.send(&user, "carl@customer.example", "One").await;
        let second = acme.send(&user, "carl@customer.example", "Two").await;
        let id = |message: &Value| message["conversation_id"].as_str().unwrap().parse::<ConversationId>().unwrap();
        let mut tx = api.gateway.store.begin(acme.workspace_id().parse().unwrap()).await.unwrap();
        tx.merge_conversations(id(&first), id(&second)).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let merged = acme.get(&format!("/conversations/{}", id(&second))).await.expect(200);
        assert_eq!((&merged["id"], &merged["merged_into"]), (&second["conversation_id"], &first["conversation_id"]));
        assert_eq!(merged["message_count"], 2);
        assert_eq!(acme.get(&format!("/conversations/{}/messages", id(&second))).await.items().len(), 2);
        assert_eq!(acme.get("/conversations").await.items().len(), 1);
        let answer = json!({ "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "x", "text": "y", "conversation_id": second["conversation_id"] });
        assert_eq!(acme.post("/messages", answer).await.expect(202)["conversation_id"], first["conversation_id"]);
    }

    async fn bad_messages_are_refused_by_field(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let good = json!({ "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "x", "text": "y" });
        let refused = async |field: &str, value: Value, param: &str| {
            let mut body = good.clone();
            body[field] = value;
            acme.post("/messages", body).await.refused(422, "invalid", Some(param));
        };
        refused("from_user_id", json!("usr_01jd0000000000000000000000"), "from_user_id").await;
        refused("to", json!([]), "to").await;
        refused("to", json!([{ "email": "a@b\r\nRCPT TO:<c@d.example>" }]), "to[0].email").await;
        refused("to", json!([{ "email": "a@b.example", "name": "x\r\nBcc: v@w.example" }]), "to[0].name").await;
        refused("to", json!([{ "email": format!("x@{CAPTURE_DOMAIN}") }]), "to[0].email").await;
        refused("cc", json!([{ "email": "nonsense" }]), "cc[0].email").await;
        refused("subject", json!("x\r\nBcc: v@w.example"), "subject").await;
        refused("subject", json!("x\u{2028}y"), "subject").await;
        refused("subject", json!(null), "subject").await;
        refused("text", json!(null), "text").await;
        refused("class", json!("spam"), "class").await;
        refused("conversation_id", json!("cnv_01jd0000000000000000000000"), "conversation_id").await;
        refused("reply_to_message_id", json!("msg_01jd0000000000000000000000"), "reply_to_message_id").await;
        refused("attachments", json!([{ "filename": "a", "content": "no base64!" }]), "attachments[0].content").await;
        refused("attachments", json!([{ "filename": "a\r\nX: y", "content": "" }]), "attachments[0].filename").await;
        refused("attachments", json!([{ "filename": "a", "content": "", "content_type": "x\r\ny" }]), "attachments[0].content_type").await;
        refused("attachments", json!([{ "filename": "a" }]), "attachments[0].content").await;
        let many: Vec<_> = (0..501).map(|n| json!({ "email": format!("p{n}@x.example") })).collect();
        refused("to", json!(many), "to").await;
        assert_eq!(acme.get("/conversations").await.items(), Vec::<Value>::new());
    }

    async fn a_user_without_a_way_out_is_told_what_to_do(api) {
        let acme = api.workspace("acme").await;
        let user = acme.user("ann@acme.example").await;
        let body = json!({ "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "x", "text": "y" });
        let refused = acme.post("/messages", body.clone()).await;
        refused.refused(422, "no_way_out", Some("from_user_id"));
        assert!(refused.json()["advice"].as_str().unwrap().contains("smarthost"));
        let smarthost = json!({ "host": "smtp.provider.example", "port": 587, "security": "starttls", "username": "a", "password": "b", "from_domains": ["acme.example"] });
        acme.put("/smarthost", smarthost.clone()).await.expect(200);
        // He writes from a reply address there, and the smarthost is not set to send for that domain.
        let refused = acme.post("/messages", body.clone()).await;
        refused.refused(422, "no_way_out", Some("from_user_id"));
        assert!(refused.json()["advice"].as_str().unwrap().contains("reply.example.com"));
        let mut smarthost = smarthost;
        smarthost["from_domains"] = json!(["acme.example", "reply.example.com"]);
        acme.put("/smarthost", smarthost).await.expect(200);
        acme.post("/messages", body).await.expect(202);
    }

    async fn decisions_say_why_and_are_found_by_id_and_address(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let sent = acme.send(&user, "carl@customer.example", "Offer").await;
        acme.send(&user, "dora@customer.example", "Offer").await;
        let message = acme.get(&format!("/messages/{}", sent["id"].as_str().unwrap())).await.expect(200);
        let id = message["rfc822_message_id"].as_str().unwrap();
        let all = acme.get("/decisions").await.items();
        assert_eq!(all.len(), 2);
        for member in ["id", "at", "verdict", "rule", "reason", "preset", "policy_version", "message_id", "account_id", "via"] {
            assert!(all[0].get(member).is_some(), "{member} is missing");
        }
        let found = acme.get(&format!("/decisions?rfc822_message_id=%3C{id}%3E")).await.items();
        assert_eq!((found.len(), &found[0]["message_id"]), (1, &sent["id"]));
        assert_eq!((&found[0]["verdict"], &found[0]["via"]), (&json!("synced"), &json!("api")));
        assert_eq!(acme.get("/decisions?address=Carl@Customer.Example").await.items(), found);
        assert_eq!(acme.get(&format!("/decisions?rfc822_message_id={id}&address=dora@customer.example")).await.items(), Vec::<Value>::new());
        assert_eq!(acme.get("/decisions?verdict=skipped").await.items(), Vec::<Value>::new());
        acme.get("/decisions?verdict=maybe").await.refused(422, "invalid", Some("verdict"));
        acme.get("/decisions?address=nonsense").await.refused(422, "invalid", Some("address"));
    }

    async fn a_large_message_is_taken_and_a_larger_one_refused(api) {
        let acme = api.workspace("acme").await;
        let user = acme.sender("ann@acme.example").await;
        let body = |octets: usize| {
            json!({
                "from_user_id": user, "to": [{ "email": "carl@customer.example" }], "subject": "Large",
                "attachments": [{ "filename": "a.bin", "content": "AAAA".repeat(octets / 3) }],
            })
        };
        let sent = acme.post("/messages", body(3 * 1024 * 1024)).await.expect(202);
        let raw = acme.get(&format!("/messages/{}/raw", sent["id"].as_str().unwrap())).await;
        assert!(raw.bytes.len() > 4 * 1024 * 1024);
        acme.post("/messages", body(30 * 1024 * 1024)).await.refused(413, "too_large", None);
        let declared = acme.request(Method::POST, "/messages").header("Content-Type", "application/json");
        let declared = declared.body(vec![b' '; 51 * 1024 * 1024]);
        Answer::of(declared).await.refused(413, "too_large", None);
    }
}
