//! How SQLite runs what is asked often or grows with everything stored: by an index, not by looking at every row.
//!
//! Not here: PostgreSQL, which has the same indexes and plans by what it has counted.

use std::{cell::RefCell, future::Future};

use jiff::{SignedDuration, Timestamp};

use crate::{
    core::{
        account::{AccountState, Receipt},
        decision::Verdict,
        ids::{Id as _, WorkspaceId},
        limits::Counted,
        subject::SubjectMark,
    },
    mail::MessageId,
    store::{
        AccountFilter, ContactFilter, ConversationFilter, DecisionFilter, InstanceRequest, Lease, Page,
        PageKey, RequestKey, Sees, Viewer, mint, sql, sql::WRITTEN, testing::World,
    },
};

/// The statements begun while this runs, each with the lines of its plan.
async fn plans(world: &World, run: impl Future<Output = ()>) -> Vec<(String, Vec<String>)> {
    let written = WRITTEN.scope(RefCell::default(), async {
        run.await;
        WRITTEN.with(RefCell::take)
    });
    let mut plans = Vec::new();
    for text in written.await {
        let explain = sql(format!("explain query plan {text}"));
        let rows = world.store.system_read().await.unwrap().fetch_all(explain).await.unwrap();
        plans.push((text, rows.iter().map(|row| row.get("detail").unwrap()).collect()));
    }
    plans
}

/// Runs it and wants every step of every statement to use an index, also for the order.
async fn check(world: &World, what: &str, run: impl Future<Output = ()>) {
    let plans = plans(world, run).await;
    assert!(!plans.is_empty(), "{what}: no statement was begun");
    for (text, lines) in plans {
        let visits_all = |line: &String| {
            let whole = line.starts_with("SCAN ") && !line.starts_with("SCAN CONSTANT");
            // What a subquery has found is a short list.
            let is_short = ["SCAN free", "SCAN ahead"].iter().any(|short| line.starts_with(short));
            (whole && !is_short) || line.contains("USE TEMP B-TREE FOR ORDER BY")
        };
        assert!(!lines.iter().any(visits_all), "{what}: {text}\n{lines:#?}");
    }
}

fn pages() -> [Page; 2] {
    let after = PageKey { at: Timestamp::UNIX_EPOCH, id: mint::<WorkspaceId>().uuid() };
    [Page::new(50, None), Page::new(50, Some(after))]
}

#[tokio::test]
async fn a_page_of_a_list_costs_the_same_however_long_the_list_is() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    for page in pages() {
        let mut session = world.store.read(workspace).await.unwrap();
        check(&world, "contacts", async {
            session.contacts(&page, &ContactFilter::default()).await.unwrap();
        })
        .await;
        check(&world, "conversations", async {
            session.conversations(&page, &ConversationFilter::default()).await.unwrap();
        })
        .await;
        check(&world, "users", async { drop(session.users(&page, None).await.unwrap()) }).await;
        check(&world, "users without an account", async {
            session.users(&page, Some(false)).await.unwrap();
        })
        .await;
        check(&world, "accounts", async {
            session.accounts(&page, &AccountFilter::default()).await.unwrap();
        })
        .await;
        let held = DecisionFilter { verdict: Some(Verdict::Held), ..DecisionFilter::default() };
        check(&world, "decisions held", async { drop(session.decisions(&page, &held).await.unwrap()) }).await;
        let of_account = DecisionFilter { account: Some(mint()), ..DecisionFilter::default() };
        check(&world, "decisions of an account", async {
            session.decisions(&page, &of_account).await.unwrap();
        })
        .await;
    }
    let mut session = world.store.read(workspace).await.unwrap();
    check(&world, "the last sync of a contact", async {
        session.contact_synced_at(mint()).await.unwrap();
    })
    .await;
    check(&world, "whether an account has sent", async {
        session.has_sent_by(mint(), Timestamp::UNIX_EPOCH).await.unwrap();
    })
    .await;
    let types = ["account.error".to_owned()];
    let of_type = plans(&world, async { drop(session.journal(0, Some(&types), 50).await.unwrap()) }).await;
    assert!(of_type[0].1.iter().any(|line| line.contains("events_type")), "{of_type:#?}");
}

#[tokio::test]
async fn what_a_user_may_see_is_found_without_reading_what_he_may_not() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut session = world.store.read(workspace).await.unwrap();
    for sees in [Sees::Own, Sees::OwnAndAssigned] {
        session.see_as(Some(Viewer { user: mint(), sees }));
        let plans = plans(&world, async {
            session.message(mint()).await.unwrap();
            session.conversation(mint()).await.unwrap();
            session.timeline(mint(), &pages()[1]).await.unwrap();
            session.conversations(&pages()[1], &ConversationFilter::default()).await.unwrap();
            session.journal(0, None, 50).await.unwrap();
            session.decisions(&pages()[1], &DecisionFilter::default()).await.unwrap();
        })
        .await;
        assert_eq!(plans.len(), 6);
        for (text, lines) in plans {
            let of_all = |line: &String| {
                let of_workspace = line.starts_with("SEARCH p ") && line.ends_with("(workspace=?)");
                line.starts_with("SCAN ") || of_workspace
            };
            assert!(!lines.iter().any(of_all), "{text}\n{lines:#?}");
        }
    }
}

#[tokio::test]
async fn what_a_message_meets_is_found_by_what_it_says() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut session = world.store.read(workspace).await.unwrap();
    check(&world, "what a subject meets", async {
        let mark = SubjectMark {
            found_by: vec!["desks\nann@x.example\nbob@x.example".to_owned()],
            seeks: vec!["desks\nbob@x.example\nann@x.example".to_owned()],
            sent_at: Timestamp::UNIX_EPOCH,
            reach: SignedDuration::from_hours(1),
        };
        let hashed = session.hashed_subject(&mark).await.unwrap();
        session.subjects_met(&hashed).await.unwrap();
    })
    .await;
    check(&world, "what was sent from here and from elsewhere", async {
        session.traced_ids(&[[7; 16]]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_search_begins_at_what_it_is_about() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut session = world.store.read(workspace).await.unwrap();
    for page in pages() {
        // Every subject of the workspace, but in order and without the rows of other workspaces.
        let of_subject = ConversationFilter { subject: Some("hello".to_owned()), ..Default::default() };
        check(&world, "conversations with a subject", async {
            session.conversations(&page, &of_subject).await.unwrap();
        })
        .await;
        let of_user = ConversationFilter { user: Some(mint()), ..Default::default() };
        let of_contact = ConversationFilter { contact: Some(mint()), ..Default::default() };
        for (filter, indexes) in
            [(of_user, &["messages_author", "sightings_uid"][..]), (of_contact, &["message_contacts"][..])]
        {
            let plans = plans(&world, async {
                session.conversations(&page, &filter).await.unwrap();
            })
            .await;
            let lines = &plans[0].1;
            for index in indexes {
                assert!(lines.iter().any(|line| line.contains(index)), "{index}: {lines:#?}");
            }
            let visits_all = |line: &String| line.starts_with("SCAN ") || line.contains("CORRELATED");
            assert!(!lines.iter().any(visits_all), "{lines:#?}");
        }
    }
}

#[tokio::test]
async fn chores_find_what_they_are_after_by_an_index() {
    let world = World::sqlite().await;
    let now = Timestamp::now();
    let mut system = world.store.system().await.unwrap();
    check(&world, "answers", async {
        system.purge_requests(now).await.unwrap();
    })
    .await;
    check(&world, "keys of orders", async {
        system.purge_order_keys(now).await.unwrap();
    })
    .await;
    let request = InstanceRequest { request: RequestKey { route: "POST", key: "k" }, hash: &[0; 32] };
    check(&world, "a request that makes a workspace", async {
        system.begin_instance_request(request).await.unwrap();
    })
    .await;
    let lease = Lease { owner: "a", now, lasts: SignedDuration::from_secs(30) };
    check(&world, "free accounts", async {
        system.lease_accounts(lease, &[AccountState::Active], 10).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn erasing_an_account_begins_at_what_is_its_own() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let (account, messages) = (mint(), [mint(), mint()]);
    let mut session = world.store.read(workspace).await.unwrap();
    check(&world, "what it has seen", async { drop(session.seen_by(account).await.unwrap()) }).await;
    check(&world, "what is kept under its key", async {
        session.kept_under_key_of(account, &messages).await.unwrap();
    })
    .await;
    check(&world, "what else is", async { drop(session.content_under_key_of(account).await.unwrap()) }).await;
    check(&world, "what the journal tells of it", async {
        session.entries_about(account, 0).await.unwrap();
    })
    .await;
    drop(session);
    let mut tx = world.store.begin(workspace).await.unwrap();
    let mut receipt = Receipt::begun(Timestamp::UNIX_EPOCH);
    check(&world, "its mail", async { tx.erase_seen(account, &messages, &mut receipt).await.unwrap() }).await;
    check(&world, "its decisions", async {
        tx.erase_decisions(account, &mut receipt).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn limits_cost_the_same_however_much_was_counted() {
    let world = World::sqlite().await;
    let (workspace, now) = (world.workspace().await, Timestamp::now());
    let mut session = world.store.read(workspace).await.unwrap();
    check(&world, "what is allowed", async { drop(session.allowance(Some(mint())).await.unwrap()) }).await;
    check(&world, "what was counted", async {
        session.usage(mint(), Counted::Synced, now).await.unwrap();
    })
    .await;
    check(&world, "accounts that wait", async { drop(session.accounts_waiting(None).await.unwrap()) }).await;
    check(&world, "accounts with a place", async {
        session.accounts_placed(None).await.unwrap();
    })
    .await;
    check(&world, "what was put off", async {
        session.decisions_deferred(mint(), 100).await.unwrap();
    })
    .await;
    check(&world, "what waits to be sent", async {
        session.unsent_of(mint()).await.unwrap();
    })
    .await;
    check(&world, "what waits before a message", async {
        session.unsent_before(mint(), mint()).await.unwrap();
    })
    .await;
    let id = MessageId::parse("a@b.example").unwrap();
    check(&world, "what was handed in", async { drop(session.submitted_ids(&[id]).await.unwrap()) }).await;
    drop(session);
    let mut system = world.store.system().await.unwrap();
    check(&world, "limits to be looked at", async {
        system.quota_checks_due(now).await.unwrap();
    })
    .await;
    check(&world, "counts of long ago", async {
        system.purge_usage(now).await.unwrap();
    })
    .await;
    // Only accounts that wait are in this index.
    let waiting = plans(&world, async {
        system.workspaces_with_waiting_accounts().await.unwrap();
    })
    .await;
    assert!(waiting[0].1.iter().any(|line| line.contains("accounts_waiting")), "{waiting:#?}");
}

#[tokio::test]
async fn decisions_are_found_by_what_they_are_about_however_many_were_made() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut session = world.store.read(workspace).await.unwrap();
    let mut asked = Vec::new();
    for hashes in [vec![[1; 16]], vec![[1; 16], [2; 16]]] {
        let skipped = session.skipped_with_ids(&hashes);
        asked.extend(plans(&world, async { drop(skipped.await.unwrap()) }).await);
        let in_mailbox = session.decided_with_ids(mint(), b"INBOX", 1, &hashes);
        asked.extend(plans(&world, async { drop(in_mailbox.await.unwrap()) }).await);
        let filter = DecisionFilter { hashes, told: Some(mint()), ..DecisionFilter::default() };
        for page in pages() {
            let listed = session.decisions(&page, &filter);
            asked.extend(plans(&world, async { drop(listed.await.unwrap()) }).await);
        }
    }
    assert_eq!(asked.len(), 8);
    for (text, lines) in asked {
        for step in ["(workspace=? AND hash=?)", "(workspace=? AND id=?)"] {
            assert!(lines.iter().any(|line| line.contains(step)), "{text}\n{lines:#?}");
        }
    }
}
