//! The journal, the endpoints it is posted to, decisions and idempotency.

use std::slice::from_ref;

use super::{
    super::{DecisionFilter, Idempotency, OLD_SECRET_LASTS, PolicyStamp, RequestKey, sql, testing::both},
    *,
};
use crate::core::{
    decision::{DecisionHash, HashRole, NewDecision, Ruling, Verdict},
    event::{Event, MESSAGE_SKIPPED},
    job::{Job, delivery_lane, delivery_lanes},
};

const POLICY: PolicyStamp<'static> = PolicyStamp { preset: "mailweave", version: 3 };

/// Every job of a workspace: what it does, its lane, and whether it is first there.
async fn jobs(session: &mut Session) -> Vec<(Job, Option<String>, bool)> {
    let query =
        sql("select body, lane, head from jobs where workspace = $1 order by id").bind(session.workspace());
    let rows = session.fetch_all(query).await.unwrap();
    rows.iter()
        .map(|row| (row.json("body").unwrap(), row.get("lane").unwrap(), row.get("head").unwrap()))
        .collect()
}

fn skipped() -> Event {
    Event::MessageSkipped { decision: mint(), account: None, rule: "no_contact".into() }
}

fn ruled(verdict: Verdict, seen_at: Option<MailboxUid>, hashes: Vec<DecisionHash>) -> NewDecision {
    let ruling = Ruling { verdict, rule: "no_contact", reason: "Nobody you know wrote it." };
    NewDecision { ruling, via: "account", message: None, seen_at, user: None, written_at: None, hashes }
}

both! {
    async fn an_event_is_numbered_and_posted_to_those_who_want_it(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let (every, some, disabled) =
            (a_webhook(None), a_webhook(Some(&["message.skipped"])), a_webhook(None));
        let mut tx = place.tx().await;
        for webhook in [&every, &some, &disabled] {
            tx.insert_webhook(webhook).await.unwrap();
        }
        assert!(tx.disable_webhook(disabled.id, "gone", at(1)).await.unwrap());
        assert_eq!(tx.last_seq().await.unwrap(), 0);
        let created = Event::ConversationCreated { conversation };
        let first = tx.announce(&created, at(5)).await.unwrap();
        assert!(tx.is_asked_for(MESSAGE_SKIPPED).await.unwrap());
        assert!(tx.is_asked_for("message.sent").await.unwrap());
        let second = tx.announce(&skipped(), at(6)).await.unwrap();
        let third = tx.announce(&created, at(7)).await.unwrap();
        assert_eq!([first.seq, second.seq, third.seq], [1, 2, 3]);
        let lane = Some(format!("hook/{}/{conversation}", every.id));
        assert_eq!(
            jobs(&mut tx).await,
            [
                (Job::Deliver { webhook: every.id, seq: 1 }, lane.clone(), true),
                (Job::Deliver { webhook: some.id, seq: 2 }, None, true),
                (Job::Deliver { webhook: every.id, seq: 3 }, lane, false),
            ]
        );
        assert_eq!(tx.journal(0, None, 100).await.unwrap(), [first.clone(), second.clone(), third.clone()]);
        assert_eq!(tx.journal(1, None, 1).await.unwrap(), from_ref(&second));
        let types = ["message.skipped".to_owned()];
        assert_eq!(tx.journal(0, Some(&types), 100).await.unwrap(), from_ref(&second));
        assert!(tx.journal(0, Some(&[]), 100).await.unwrap().is_empty());
        assert_eq!(tx.event_by_seq(2).await.unwrap().as_ref(), Some(&second));
        assert_eq!(tx.event_by_seq(4).await.unwrap(), None);
        assert_eq!(tx.event(third.id).await.unwrap().as_ref(), Some(&third));
        assert_eq!(tx.event(mint()).await.unwrap(), None);
        assert_eq!(tx.seq_of(third.id).await.unwrap(), Some(3));
        assert_eq!(tx.seq_of(mint()).await.unwrap(), None);
        assert_eq!(tx.last_seq().await.unwrap(), 3);
    }

    async fn a_ping_goes_to_the_endpoint_that_is_tested(world) {
        let place = Place::new(&world).await;
        let (tested, other) = (a_webhook(Some(&["message.sent"])), a_webhook(None));
        let mut tx = place.tx().await;
        tx.insert_webhook(&tested).await.unwrap();
        tx.insert_webhook(&other).await.unwrap();
        let ping = tx.announce(&Event::TestPing { webhook: tested.id }, at(5)).await.unwrap();
        tx.deliver_again(tested.id, &[ping], at(6)).await.unwrap();
        // Neither waits for the other, nor for anything else.
        let expect = (Job::Deliver { webhook: tested.id, seq: 1 }, None, true);
        assert_eq!(jobs(&mut tx).await, [expect.clone(), expect]);
        assert!(!tx.is_asked_for(MESSAGE_SKIPPED).await.unwrap());
    }

    async fn what_waits_for_an_endpoint_goes_on_when_it_is_enabled_or_replayed_to(world) {
        let place = Place::new(&world).await;
        let (webhook, other) = (a_webhook(None), a_webhook(None));
        let conversations = [place.conversation(1).await, place.conversation(2).await];
        let mut tx = place.tx().await;
        tx.insert_webhook(&webhook).await.unwrap();
        tx.insert_webhook(&other).await.unwrap();
        let mut told = Vec::new();
        for conversation in conversations {
            told.push(tx.announce(&Event::ConversationCreated { conversation }, at(5)).await.unwrap());
        }
        let lane = |webhook: &Webhook| delivery_lane(webhook.id, &conversations[0].to_string());
        tx.defer_lanes(&delivery_lanes(webhook.id), at(500)).await.unwrap();
        // Only ever later, and nobody else's.
        tx.defer_lanes(&delivery_lanes(webhook.id), at(50)).await.unwrap();
        assert_eq!(tx.lane_due(&lane(&webhook), i64::MAX).await.unwrap(), Some(at(500)));
        assert_eq!(tx.lane_due(&lane(&other), i64::MAX).await.unwrap(), Some(at(5)));
        assert_eq!(tx.lane_due("hook/none", i64::MAX).await.unwrap(), None);
        assert_eq!(tx.lane_due(&lane(&webhook), 1).await.unwrap(), None, "what is first waits for nothing");
        tx.enable_webhook(webhook.id, at(60)).await.unwrap();
        assert_eq!(tx.lane_due(&lane(&webhook), i64::MAX).await.unwrap(), Some(at(60)));
        tx.defer_lanes(&delivery_lanes(webhook.id), at(500)).await.unwrap();
        tx.deliver_again(webhook.id, &told[1..], at(70)).await.unwrap();
        assert_eq!(tx.lane_due(&lane(&webhook), i64::MAX).await.unwrap(), Some(at(70)));
    }

    async fn the_journal_has_no_gap_whoever_writes(world) {
        let place = Place::new(&world).await;
        let mut tx = place.tx().await;
        tx.insert_webhook(&a_webhook(None)).await.unwrap();
        tx.commit().await.unwrap();
        let event = Event::ConversationCreated { conversation: place.conversation(1).await };
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let (store, workspace, event) = (place.store.clone(), place.id, event.clone());
                tokio::spawn(async move {
                    for round in 0..5 {
                        let mut tx = store.begin(workspace).await.unwrap();
                        tx.announce(&event, at(round)).await.unwrap();
                        // Some change their mind: their numbers are given again.
                        if (writer + round) % 4 != 0 {
                            tx.commit().await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let mut read = place.read().await;
        let seqs: Vec<_> = read.journal(0, None, 1000).await.unwrap().iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=60).collect::<Vec<_>>());
        assert_eq!(read.last_seq().await.unwrap(), 60);
        let jobs = jobs(&mut read).await;
        assert_eq!((jobs.len(), jobs.iter().filter(|(_, _, head)| *head).count()), (60, 1));
    }

    async fn both_secrets_of_an_endpoint_sign_for_a_day(world) {
        let place = Place::new(&world).await;
        let webhook = a_webhook(Some(&["message.sent"]));
        let mut tx = place.tx().await;
        tx.insert_webhook(&webhook).await.unwrap();
        tx.rotate_webhook_secret(webhook.id, &SecretString::from("whsec_second"), at(10)).await.unwrap();
        tx.commit().await.unwrap();
        let mut read = place.read().await;
        let end = at(10) + OLD_SECRET_LASTS;
        for (now, expect) in [(at(10), vec!["whsec_second", "whsec_first"]), (end, vec!["whsec_second"])] {
            let found = read.webhook(webhook.id, now).await.unwrap().unwrap();
            let secrets: Vec<_> = found.secrets.iter().map(SecretString::expose_secret).collect();
            assert_eq!(secrets, expect);
        }
        drop(read);
        let mut tx = place.tx().await;
        tx.rotate_webhook_secret(webhook.id, &SecretString::from("whsec_third"), at(11)).await.unwrap();
        let found = tx.webhook(webhook.id, at(11)).await.unwrap().unwrap();
        let secrets: Vec<_> = found.secrets.iter().map(SecretString::expose_secret).collect();
        assert_eq!(secrets, ["whsec_third", "whsec_second"]);
        missing(tx.rotate_webhook_secret(mint(), &SecretString::from("x"), at(1)).await);
    }

    async fn an_endpoint_fails_is_disabled_and_comes_back(world) {
        let place = Place::new(&world).await;
        let webhook = a_webhook(None);
        let mut tx = place.tx().await;
        tx.insert_webhook(&webhook).await.unwrap();
        assert_eq!(tx.set_webhook_failing(webhook.id, "HTTP 500", at(10)).await.unwrap(), at(10));
        assert_eq!(tx.set_webhook_failing(webhook.id, "no answer", at(20)).await.unwrap(), at(10));
        let found = tx.webhook(webhook.id, at(20)).await.unwrap().unwrap();
        assert_eq!(found.last_failure.as_deref(), Some("no answer"));
        assert!(tx.set_webhook_working(webhook.id).await.unwrap());
        assert!(!tx.set_webhook_working(webhook.id).await.unwrap());
        assert_eq!(tx.set_webhook_failing(webhook.id, "HTTP 404", at(30)).await.unwrap(), at(30));
        assert!(tx.disable_webhook(webhook.id, "410 Gone", at(40)).await.unwrap());
        assert!(!tx.disable_webhook(webhook.id, "again", at(50)).await.unwrap());
        let found = tx.webhook(webhook.id, at(50)).await.unwrap().unwrap();
        let shown = (found.disabled_at, found.disabled_reason.as_deref(), found.failing_since);
        assert_eq!(shown, (Some(at(40)), Some("410 Gone"), Some(at(30))));
        assert_eq!(found.last_failure.as_deref(), Some("HTTP 404"));
        tx.enable_webhook(webhook.id, at(50)).await.unwrap();
        let events = ["message.sent".to_owned()];
        tx.update_webhook(webhook.id, "https://crm.example/new", Some(&events)).await.unwrap();
        let found = &tx.webhooks(at(60)).await.unwrap()[0];
        assert_eq!((found.disabled_at, found.failing_since, found.disabled_reason.as_deref()), (None, None, None));
        assert_eq!(found.last_failure, None);
        assert_eq!((found.url.as_str(), found.events.as_deref()), ("https://crm.example/new", Some(&events[..])));
        tx.delete_webhook(webhook.id).await.unwrap();
        missing(tx.delete_webhook(webhook.id).await);
        missing(tx.enable_webhook(webhook.id, at(1)).await);
        missing(tx.set_webhook_failing(webhook.id, "", at(1)).await);
    }

    async fn a_decision_is_found_by_what_it_was_about(world) {
        let place = Place::new(&world).await;
        let account = mint();
        let mut tx = place.tx().await;
        let hasher = tx.text_hasher().await.unwrap();
        let hashes = [
            DecisionHash { role: HashRole::Id, hash: hasher.hash("a@x") },
            DecisionHash { role: HashRole::Reference, hash: hasher.hash("b@x") },
            DecisionHash { role: HashRole::Reference, hash: hasher.hash("a@x") },
            DecisionHash { role: HashRole::Address, hash: hasher.hash("carl@x.example") },
        ];
        assert_eq!(tx.hash_of("a@x").await.unwrap(), hasher.hash("a@x"));
        let uid = place_in(account, "INBOX", 1, 5);
        let skipped = ruled(Verdict::Skipped, Some(uid.clone()), hashes.to_vec());
        let first = tx.decide(&skipped, POLICY, at(1)).await.unwrap();
        let held = tx.decide(&ruled(Verdict::Held, None, Vec::new()), POLICY, at(2)).await.unwrap();
        for (filter, expect) in [
            (DecisionFilter::default(), vec![held, first]),
            (DecisionFilter { hashes: vec![hasher.hash("carl@x.example")], ..Default::default() }, vec![first]),
            (DecisionFilter { hashes: vec![hasher.hash("dora@x.example")], ..Default::default() }, vec![]),
            (DecisionFilter { account: Some(account), ..Default::default() }, vec![first]),
            (DecisionFilter { verdict: Some(Verdict::Held), ..Default::default() }, vec![held]),
            (DecisionFilter { message: Some(mint()), ..Default::default() }, vec![]),
        ] {
            let found = tx.decisions(&all(), &filter).await.unwrap();
            assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), expect, "{filter:?}");
        }
        let found = tx.skipped_with_ids(&[hasher.hash("a@x"), hasher.hash("b@x")]).await.unwrap();
        assert_eq!(found, [(account, first)]);
        assert_eq!(tx.skipped_at(first).await.unwrap().as_ref(), Some(&uid));
        assert!(tx.skipped_with_ids(&[hasher.hash("carl@x.example")]).await.unwrap().is_empty());
        assert!(tx.skipped_with_ids(&[]).await.unwrap().is_empty());

        // It turned out to belong: the decision on this place is another now.
        let message: crate::core::ids::MessageKey = mint();
        let synced = NewDecision { message: Some(message), ..ruled(Verdict::Synced, Some(uid), hashes[1..2].to_vec()) };
        assert_eq!(tx.decide(&synced, POLICY, at(9)).await.unwrap(), first);
        assert_eq!(tx.skipped_at(first).await.unwrap(), None);
        assert!(tx.skipped_with_ids(&[hasher.hash("b@x")]).await.unwrap().is_empty());
        let found = tx.decisions(&all(), &DecisionFilter { message: Some(message), ..Default::default() }).await.unwrap();
        let shown = (found[0].id, found[0].at, found[0].verdict, found[0].preset.as_str(), found[0].policy_version);
        assert_eq!(shown, (first, at(9), Verdict::Synced, "mailweave", 3));
        assert_eq!((found[0].account_id, found[0].via.as_str(), found[0].rule.as_str()), (Some(account), "account", "no_contact"));
    }

    async fn hashes_of_two_workspaces_cannot_be_compared(world) {
        let (one, other) = (Place::new(&world).await, Place::new(&world).await);
        let hash = one.read().await.hash_of("a@x").await.unwrap();
        assert_eq!(one.tx().await.hash_of("a@x").await.unwrap(), hash);
        assert_ne!(other.read().await.hash_of("a@x").await.unwrap(), hash);
    }

    async fn a_request_made_twice_is_done_once(world) {
        let place = Place::new(&world).await;
        let request = RequestKey { route: "POST /messages", key: "k1" };
        let (hash, other) = ([1; 32], [2; 32]);
        let mut tx = place.tx().await;
        assert_eq!(tx.begin_request(request, &hash, at(1)).await.unwrap(), Idempotency::Fresh);
        assert_eq!(tx.begin_request(request, &hash, at(2)).await.unwrap(), Idempotency::Underway);
        tx.finish_request(request, 202, "{}").await.unwrap();
        let same = Idempotency::Same { status: 202, body: "{}".into() };
        assert_eq!(tx.begin_request(request, &hash, at(3)).await.unwrap(), same);
        assert_eq!(tx.begin_request(request, &other, at(3)).await.unwrap(), Idempotency::Mismatch);
        // The same key for something else is another request.
        let elsewhere = RequestKey { route: "POST /contacts", ..request };
        assert_eq!(tx.begin_request(elsewhere, &other, at(60)).await.unwrap(), Idempotency::Fresh);
        tx.commit().await.unwrap();
        let mut system = world.store.system().await.unwrap();
        assert_eq!(system.purge_requests(at(60)).await.unwrap(), 1);
        system.commit().await.unwrap();
        let mut tx = place.tx().await;
        assert_eq!(tx.begin_request(request, &other, at(61)).await.unwrap(), Idempotency::Fresh);
    }

    async fn of_twins_one_is_fresh(world) {
        let place = Place::new(&world).await;
        let twins: Vec<_> = (0..20)
            .map(|_| {
                let (store, workspace) = (place.store.clone(), place.id);
                tokio::spawn(async move {
                    let request = RequestKey { route: "POST /messages", key: "k1" };
                    let mut tx = store.begin(workspace).await.unwrap();
                    let begun = tx.begin_request(request, &[1; 32], at(1)).await.unwrap();
                    if begun == Idempotency::Fresh {
                        tx.finish_request(request, 202, "once").await.unwrap();
                    }
                    tx.commit().await.unwrap();
                    begun
                })
            })
            .collect();
        let mut fresh = 0;
        for twin in twins {
            match twin.await.unwrap() {
                Idempotency::Fresh => fresh += 1,
                other => assert_eq!(other, Idempotency::Same { status: 202, body: "once".into() }),
            }
        }
        assert_eq!(fresh, 1);
    }
}
