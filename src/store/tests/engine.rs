//! Transactions: all or nothing, in groups, whatever becomes of those who wait.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use futures_util::future::{join_all, poll_immediate};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    core::ids::{Id as _, UserId, WorkspaceId},
    store::{
        Error, Store, Tx, mint, sql,
        testing::{World, both},
    },
};

const DEADLINE: Duration = Duration::from_secs(60);

async fn insert(tx: &mut Tx, email: &str) -> Result<UserId, Error> {
    let id: UserId = mint();
    let insert =
        sql("insert into users (workspace, id, email, role, created_at) values ($1, $2, $3, 'member', $4)");
    tx.execute(insert.bind(tx.workspace()).bind(id).bind(email).bind(Timestamp::now())).await?;
    Ok(id)
}

async fn add(store: &Store, workspace: WorkspaceId, email: &str) -> Result<(), Error> {
    let mut tx = store.begin(workspace).await?;
    insert(&mut tx, email).await?;
    tx.commit().await
}

/// In alphabetical order.
async fn emails(store: &Store, workspace: WorkspaceId) -> Vec<String> {
    let query = sql("select email from users where workspace = $1 order by email").bind(workspace);
    let rows = store.read(workspace).await.unwrap().fetch_all(query).await.unwrap();
    rows.iter().map(|row| row.get("email").unwrap()).collect()
}

both! {
    async fn what_follows_a_commit_is_done_though_nobody_waits_for_it(world) {
        let workspace = world.workspace().await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        insert(&mut tx, "ann@acme.example").await.unwrap();
        let (done, told) = tokio::sync::oneshot::channel();
        tx.on_commit(move |_| done.send(()).expect("the test listens"));
        {
            let commit = pin!(tx.commit());
            // Asked once and left alone. A fast database may have it done by then.
            drop(poll_immediate(commit).await);
        }
        tokio::time::timeout(DEADLINE, told).await.unwrap().unwrap();
        assert_eq!(emails(&world.store, workspace).await, ["ann@acme.example"]);
    }

    async fn what_is_committed_is_there_and_what_is_dropped_never_was(world) {
        let workspace = world.workspace().await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        insert(&mut tx, "a").await.unwrap();
        drop(tx);
        add(&world.store, workspace, "b").await.unwrap();
        assert_eq!(emails(&world.store, workspace).await, ["b"]);
    }

    async fn a_session_sees_nothing_of_a_transaction_before_its_commit(world) {
        let workspace = world.workspace().await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        insert(&mut tx, "a").await.unwrap();
        assert!(emails(&world.store, workspace).await.is_empty());
        tx.commit().await.unwrap();
        assert_eq!(emails(&world.store, workspace).await, ["a"]);
    }

    async fn values_read_back_as_they_were_bound(world) {
        let uuid = Uuid::now_v7();
        let query = sql("select $1 as i, $2 as t, $3 as b, $4 as u, $5 as ni, $6 as nt, $7 as nb, $8 as nu")
            .bind(i64::MIN).bind("grüße\u{1f600}").bind(vec![0_u8, 255]).bind(uuid)
            .bind(None::<i64>).bind(None::<String>).bind(None::<Vec<u8>>).bind(None::<Uuid>);
        let query = if world.store.is_shared() {
            let types = ["bigint", "text", "bytea", "uuid", "bigint", "text", "bytea", "uuid"];
            types.iter().enumerate().fold(query, |query, (n, kind)| query.cast(n + 1, kind))
        } else {
            query
        };
        let row = world.store.system_read().await.unwrap().fetch_one(query).await.unwrap();
        assert_eq!(row.get::<i64>("i").unwrap(), i64::MIN);
        assert_eq!(row.get::<String>("t").unwrap(), "grüße\u{1f600}");
        assert_eq!(row.get::<Vec<u8>>("b").unwrap(), [0, 255]);
        assert_eq!(row.get::<Uuid>("u").unwrap(), uuid);
        assert_eq!(row.get::<Option<i64>>("ni").unwrap(), None);
        assert_eq!(row.get::<Option<String>>("nt").unwrap(), None);
        assert_eq!(row.get::<Option<Vec<u8>>>("nb").unwrap(), None);
        assert_eq!(row.get::<Option<Uuid>>("nu").unwrap(), None);
        assert!(matches!(row.get::<i64>("ni"), Err(Error::Corrupt(_))));
        assert!(matches!(row.get::<i64>("nowhere"), Err(Error::Corrupt(_))));
        let literals = sql("select 1 as one, (1 = 1) as yes, count(*) as rows from workspaces");
        let row = world.store.system_read().await.unwrap().fetch_one(literals).await.unwrap();
        assert_eq!((row.get("one").unwrap(), row.get("yes").unwrap(), row.get("rows").unwrap()), (1_i64, true, 0_i64));
    }

    async fn a_violated_constraint_is_named_and_ends_the_transaction(world) {
        let workspace = world.workspace().await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        let id = insert(&mut tx, "a").await.unwrap();
        let again = sql("insert into users (workspace, id, email, role, created_at) values ($1, $2, 'b', 'member', 0)");
        let conflict = tx.execute(again.bind(workspace).bind(id)).await;
        assert!(matches!(conflict, Err(Error::Conflict { what: "users_pkey" })), "{conflict:?}");
        assert!(matches!(insert(&mut tx, "c").await, Err(Error::Unavailable(_))));
        assert!(matches!(tx.commit().await, Err(Error::Unavailable(_))), "half a transaction is none");
        assert!(emails(&world.store, workspace).await.is_empty());
    }

    async fn named_expression_and_column_constraints_are_told_apart(world) {
        let workspace = world.workspace().await;
        let slug = sql("insert into workspaces (id, slug, name, timezone, preset, created_at) \
             values ($1, $2, '', '', '', 0)").bind(mint::<WorkspaceId>()).bind(workspace.to_string());
        let conflict = world.store.system().await.unwrap().execute(slug).await;
        assert!(matches!(conflict, Err(Error::Conflict { what: "workspaces_slug_unique" })), "{conflict:?}");
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.content_key(None).await.unwrap();
        let key = sql("insert into content_keys (workspace, id, wrapped, created_at) values ($1, $2, $3, 0)");
        let conflict = tx.execute(key.bind(workspace).bind(Uuid::now_v7()).bind(vec![1_u8])).await;
        assert!(matches!(conflict, Err(Error::Conflict { what: "content_keys_owner" })), "{conflict:?}");
    }

    async fn a_row_that_refers_to_nothing_is_refused_as_missing(world) {
        let nowhere: WorkspaceId = mint();
        assert!(matches!(add(&world.store, nowhere, "a").await, Err(Error::Missing)));
    }

    async fn one_transactions_failure_leaves_the_others_of_its_group_alone(world) {
        let workspace = world.workspace().await;
        let attempts = (0..40).map(|number| {
            let store = world.store.clone();
            async move {
                match number % 4 {
                    0 => drop(store.begin(workspace).await.unwrap()),
                    1 => assert!(add(&store, mint(), "of no workspace").await.is_err()),
                    2 => {
                        let mut tx = store.begin(workspace).await.unwrap();
                        insert(&mut tx, "dropped").await.unwrap();
                    }
                    _ => add(&store, workspace, &format!("{number:02}")).await.unwrap(),
                }
            }
        });
        join_all(attempts).await;
        let expect: Vec<_> = (0..40).filter(|number| number % 4 == 3).map(|number| format!("{number:02}")).collect();
        assert_eq!(emails(&world.store, workspace).await, expect);
    }

    async fn what_is_to_follow_a_commit_follows_only_a_commit(world) {
        let workspace = world.workspace().await;
        let (sender, receiver) = std::sync::mpsc::channel();
        for commit in [false, true] {
            let mut tx = world.store.begin(workspace).await.unwrap();
            insert(&mut tx, "a").await.unwrap();
            let sender = sender.clone();
            tx.on_commit(move |_| sender.send(commit).unwrap());
            if commit {
                tx.commit().await.unwrap();
            }
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [true]);
    }

    async fn a_transaction_is_undone_when_its_task_panics(world) {
        let workspace = world.workspace().await;
        let store = world.store.clone();
        let task = tokio::spawn(async move {
            let mut tx = store.begin(workspace).await.unwrap();
            insert(&mut tx, "a").await.unwrap();
            panic!("as tests do");
        });
        assert!(task.await.is_err());
        add(&world.store, workspace, "b").await.unwrap();
        assert_eq!(emails(&world.store, workspace).await, ["b"]);
    }

    async fn a_statement_that_was_not_waited_for_spoils_its_transaction(world) {
        let workspace = world.workspace().await;
        let mut rows = 100_000;
        loop {
            let mut tx = world.store.begin(workspace).await.unwrap();
            insert(&mut tx, "a").await.unwrap();
            let text = format!("with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) \
                 select count(*) as rows from n");
            // On a busy machine this thread can be put to sleep within the one look it takes, for as long as the statement
            // runs: then the next one runs longer.
            if poll_immediate(pin!(tx.fetch_one(sql(text)))).await.is_some() {
                rows *= 10;
                continue;
            }
            assert!(tx.commit().await.is_err());
            break;
        }
        add(&world.store, workspace, "b").await.unwrap();
        assert_eq!(emails(&world.store, workspace).await, ["b"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_transactions_cost_far_fewer_commits() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let before = world.store.group_commits();
    let adds = (0..50).map(|number| {
        let store = world.store.clone();
        tokio::spawn(async move { add(&store, workspace, &number.to_string()).await })
    });
    for added in join_all(adds).await {
        added.unwrap().unwrap();
    }
    assert_eq!(emails(&world.store, workspace).await.len(), 50);
    let commits = world.store.group_commits() - before;
    assert!(commits <= 15, "{commits} commits");
}

/// Polls until the future waits for something else than its first answer, then drops it.
async fn abandon(mut polls: usize, future: impl Future) {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        polls = polls.saturating_sub(1);
        let done = future.as_mut().poll(context).is_ready();
        if done || polls == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_at_any_moment_stops_nobody_else() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    // However far each gets: waiting for its turn, holding it, in the middle of a statement, waiting for the commit.
    let quitters = (0..200).map(|number| {
        let store = world.store.clone();
        let quitter = async move { add(&store, workspace, &format!("quitter {number:03}")).await };
        tokio::spawn(abandon(number % 7 + 1, quitter))
    });
    let stayers = (0..50).map(|number| {
        let store = world.store.clone();
        tokio::spawn(async move { add(&store, workspace, &format!("stayer {number:02}")).await.unwrap() })
    });
    let (quit, stayed) = tokio::join!(join_all(quitters), join_all(stayers));
    assert!(quit.iter().all(Result::is_ok) && stayed.iter().all(Result::is_ok));
    let left = tokio::time::timeout(DEADLINE, add(&world.store, workspace, "last")).await;
    assert!(matches!(left, Ok(Ok(()))));
    let emails = emails(&world.store, workspace).await;
    assert_eq!(emails.iter().filter(|email| email.starts_with("stayer")).count(), 50);
}

#[tokio::test]
async fn who_has_somebody_waiting_outside_writes_before_others_that_wait() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let busy = world.store.begin(workspace).await.unwrap();
    let mut waiting = pin!(world.store.begin(workspace));
    assert!(poll_immediate(&mut waiting).await.is_none());
    let mut first = pin!(world.store.system_first());
    assert!(poll_immediate(&mut first).await.is_none());
    drop(busy);
    let first = tokio::time::timeout(DEADLINE, first).await.unwrap().unwrap();
    assert!(poll_immediate(&mut waiting).await.is_none());
    drop(first);
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_commit_nobody_waits_for_any_more_still_happens() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut tx = world.store.begin(workspace).await.unwrap();
    insert(&mut tx, "a").await.unwrap();
    drop(poll_immediate(pin!(tx.commit())).await);
    add(&world.store, workspace, "b").await.unwrap();
    assert_eq!(emails(&world.store, workspace).await, ["a", "b"]);
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_passes() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let limit = async |pages: &str| {
        let mut system = world.store.system().await.unwrap();
        system.fetch_all(sql(format!("pragma max_page_count = {pages}"))).await.unwrap();
        system.commit().await.unwrap();
    };
    limit("1").await;
    let big = "x".repeat(100_000);
    let together = join_all((0..8).map(|number| {
        let (store, big) = (world.store.clone(), big.clone());
        async move { add(&store, workspace, &format!("{number}{big}")).await }
    }));
    for outcome in together.await {
        assert!(matches!(outcome, Err(Error::Full)), "{outcome:?}");
    }
    limit("1000000").await;
    add(&world.store, workspace, "a").await.unwrap();
    assert_eq!(emails(&world.store, workspace).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_fills_up_exactly_those_who_are_told_so_are_there() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut system = world.store.system().await.unwrap();
    let size = system.fetch_one(sql("select page_count as pages from pragma_page_count")).await.unwrap();
    let pages: i64 = size.get("pages").unwrap();
    system.fetch_all(sql(format!("pragma max_page_count = {}", pages + 20))).await.unwrap();
    system.commit().await.unwrap();
    let adds = (0..60).map(|number| {
        let store = world.store.clone();
        let email =
            format!("{number:02}{}", if number % 3 == 0 { "x".repeat(50_000) } else { String::new() });
        tokio::spawn(async move { add(&store, workspace, &email).await.map(|()| email) })
    });
    let mut told = Vec::new();
    for outcome in join_all(adds).await {
        match outcome.unwrap() {
            Ok(email) => told.push(email),
            // Also those of the same group, who wrote little: SQLite undoes all of it.
            Err(error) => assert!(matches!(error, Error::Full), "{error:?}"),
        }
    }
    told.sort_unstable();
    assert!(told.len() < 60);
    assert!(told == emails(&world.store, workspace).await);
}

#[tokio::test]
async fn a_failed_disk_ends_all_writing() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    assert!(poll_immediate(pin!(world.store.failure())).await.is_none());
    world.store.0.health.note(Error::Failed);
    assert!(matches!(world.store.begin(workspace).await.err(), Some(Error::Failed)));
    assert!(matches!(world.store.system().await.err(), Some(Error::Failed)));
    tokio::time::timeout(DEADLINE, world.store.failure()).await.unwrap();
    assert_eq!(workspace.uuid().get_version_num(), 7);
}
