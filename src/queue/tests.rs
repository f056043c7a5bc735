//! The queue's promises, on both engines.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use super::*;
use crate::{
    core::ids::{Id as _, MessageKey},
    store::{
        mint,
        testing::{World, both},
    },
};

const MINUTE: Duration = Duration::from_mins(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn message(number: u128) -> MessageKey {
    MessageKey::from_uuid(uuid::Uuid::from_u128(number))
}

fn job(number: u128) -> Job {
    Job::Process { inbound: message(number) }
}

async fn enqueue(world: &World, workspace: WorkspaceId, number: u128, lane: Option<&str>, run_at: Timestamp) {
    let mut tx = world.store.begin(workspace).await.unwrap();
    tx.enqueue(&job(number), lane.map(str::to_owned), run_at).await.unwrap();
    tx.commit().await.unwrap();
}

async fn claim(queue: &Queue, now: Timestamp) -> Vec<Leased> {
    queue.claim(&[JobKind::Process], now, MINUTE, 100).await.unwrap()
}

async fn settle(world: &World, leased: &Leased, settlement: Settlement) -> Result<(), Error> {
    let mut tx = world.store.begin(leased.workspace).await?;
    tx.settle(leased, settlement).await?;
    tx.commit().await
}

fn numbers(jobs: &[Leased]) -> Vec<u128> {
    jobs.iter()
        .map(|leased| match leased.job {
            Job::Process { inbound } => inbound.uuid().as_u128(),
            _ => unreachable!("only such jobs were enqueued"),
        })
        .collect()
}

async fn rows(world: &World, table: &str) -> i64 {
    let query = sql(format!("select count(*) as rows from {table}"));
    world.store.system_read().await.unwrap().fetch_one(query).await.unwrap().get("rows").unwrap()
}

both! {
    async fn a_job_is_claimed_once_and_gone_when_done(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        enqueue(&world, workspace, 1, None, at(0)).await;
        let claimed = claim(&queue, at(0)).await;
        assert_eq!((numbers(&claimed), claimed[0].attempt, claimed[0].workspace), (vec![1], 1, workspace));
        assert!(claim(&queue, at(1)).await.is_empty());
        settle(&world, &claimed[0], Settlement::Done).await.unwrap();
        assert!(claim(&queue, at(1000)).await.is_empty());
    }

    async fn a_job_of_a_dropped_transaction_does_not_exist(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.enqueue(&job(1), Some("lane".to_owned()), at(0)).await.unwrap();
        drop(tx);
        enqueue(&world, workspace, 2, Some("lane"), at(0)).await;
        assert_eq!(numbers(&claim(&queue, at(0)).await), [2]);
    }

    async fn a_job_waits_for_its_time(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        assert_eq!(queue.next_due(&JobKind::ALL).await.unwrap(), Due::default());
        enqueue(&world, workspace, 1, None, at(10)).await;
        let due = queue.next_due(&JobKind::ALL).await.unwrap();
        assert_eq!(due, Due { job: Some(at(10)), lease: None });
        assert_eq!(due.wait(at(7)), Some(Duration::from_secs(3)));
        assert_eq!(queue.next_due(&[JobKind::Submit]).await.unwrap(), Due::default());
        assert!(claim(&queue, at(9)).await.is_empty());
        assert_eq!(claim(&queue, at(10)).await.len(), 1);
        let due = queue.next_due(&[JobKind::Submit]).await.unwrap();
        assert_eq!(due, Due { job: None, lease: Some(at(70)) });
        assert_eq!(due.wait(at(71)), Some(Duration::ZERO));
        let apart = Now { here: at(1000), leases: at(11) };
        assert_eq!(due.wait(apart), Some(Duration::from_secs(59)), "leases end by their own clock");
    }

    async fn a_lane_is_done_in_order_even_while_its_first_job_waits_for_a_retry(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        for number in 1..=3 {
            enqueue(&world, workspace, number, Some("lane"), at(0)).await;
        }
        let first = claim(&queue, at(0)).await;
        assert_eq!(numbers(&first), [1]);
        assert!(claim(&queue, at(1)).await.is_empty(), "the first is in hand");
        settle(&world, &first[0], Settlement::RetryAt(at(50))).await.unwrap();
        assert!(claim(&queue, at(49)).await.is_empty(), "the first waits");
        let again = claim(&queue, at(50)).await;
        assert_eq!((numbers(&again), again[0].attempt), (vec![1], 2));
        settle(&world, &again[0], Settlement::Done).await.unwrap();
        for number in 2..=3 {
            let next = claim(&queue, at(50)).await;
            assert_eq!(numbers(&next), [number]);
            settle(&world, &next[0], Settlement::Done).await.unwrap();
        }
        assert_eq!((rows(&world, "jobs").await, rows(&world, "lanes").await), (0, 0));
    }

    async fn a_job_that_waits_can_be_hastened_and_goes_before_others_that_wait(world) {
        use crate::core::{ids::AccountId, job::JobExit};
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let account: AccountId = mint();
        let by_account = |number| Job::Submit { message: message(number), exit: JobExit::Account(account) };
        let by_smarthost = Job::Submit { message: message(3), exit: JobExit::Smarthost };
        let mut tx = world.store.begin(workspace).await.unwrap();
        for job in [by_account(1), by_account(2), by_smarthost.clone()] {
            tx.enqueue_job(&job, at(500)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let claim = async |now| queue.claim(&[JobKind::Submit], now, MINUTE, 9).await.unwrap();
        assert!(claim(at(0)).await.is_empty());
        let mut tx = world.store.begin(workspace).await.unwrap();
        for job in [by_account(2), by_smarthost.clone(), by_account(4)] {
            tx.hasten_job(&job, at(1)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let jobs: Vec<_> = claim(at(1)).await.into_iter().map(|leased| leased.job).collect();
        assert_eq!(jobs, [by_account(2), by_smarthost]);
        // One that somebody is at is left to him.
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.hasten_job(&by_account(2), at(2)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(claim(at(2)).await.is_empty());
    }

    async fn where_the_order_is_free_nobody_waits_for_a_job_that_waits_for_its_retry(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        // As exact as the store keeps it.
        let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
        let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let claim = async |at: i64| {
            let claimed = queue.claim(&[JobKind::Submit], later(at), MINUTE, 9).await.unwrap();
            assert!(claimed.len() < 2, "one of a lane at a time");
            claimed.into_iter().next()
        };
        let number = |leased: &Leased| match leased.job {
            Job::Submit { message, .. } => message.uuid().as_u128(),
            _ => unreachable!("only such jobs were enqueued"),
        };
        let add = async |number| {
            let job = Job::Submit { message: message(number), exit: crate::core::job::JobExit::Smarthost };
            let mut tx = world.store.begin(workspace).await.unwrap();
            tx.enqueue(&job, Some("lane".to_owned()), now).await.unwrap();
            tx.commit().await.unwrap();
        };
        add(1).await;
        add(2).await;
        let first = claim(0).await.unwrap();
        assert!(claim(0).await.is_none(), "the first is in hand");
        settle(&world, &first, Settlement::RetryAt(later(300))).await.unwrap();
        let second = claim(0).await.unwrap();
        assert_eq!(number(&second), 2);
        settle(&world, &second, Settlement::RetryAt(later(200))).await.unwrap();
        assert!(claim(0).await.is_none());
        let due = queue.next_due(&[JobKind::Submit]).await.unwrap();
        assert_eq!(due.job, Some(later(200)), "whoever is due first leads");
        add(3).await;
        add(4).await;
        for expect in [3, 4] {
            let next = claim(0).await.unwrap();
            assert_eq!(number(&next), expect);
            settle(&world, &next, Settlement::Done).await.unwrap();
        }
        assert!(claim(199).await.is_none());
        let second = claim(200).await.unwrap();
        assert_eq!((number(&second), second.attempt), (2, 2));
        settle(&world, &second, Settlement::Done).await.unwrap();
        let first = claim(300).await.unwrap();
        assert_eq!(number(&first), 1);
        settle(&world, &first, Settlement::Done).await.unwrap();
        assert_eq!((rows(&world, "jobs").await, rows(&world, "lanes").await), (0, 0));
    }

    async fn what_a_dead_process_had_in_hand_is_due_at_the_next_start(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        enqueue(&world, workspace, 1, Some("lane"), at(0)).await;
        let dead = claim(&queue, at(0)).await;
        queue.reclaim().await.unwrap();
        let again = claim(&queue, at(1)).await;
        match world.store.is_shared() {
            true => assert!(again.is_empty(), "it may be another node's"),
            false => assert_eq!((numbers(&again), again[0].attempt), (numbers(&dead), 2)),
        }
    }

    async fn lanes_do_not_wait_for_each_other_nor_for_another_workspaces(world) {
        let queue = Queue::new(world.store.clone());
        let (one, other) = (world.workspace().await, world.workspace().await);
        enqueue(&world, one, 1, Some("a"), at(0)).await;
        enqueue(&world, one, 2, Some("a"), at(0)).await;
        enqueue(&world, one, 3, Some("b"), at(0)).await;
        enqueue(&world, other, 4, Some("a"), at(0)).await;
        enqueue(&world, one, 5, None, at(0)).await;
        enqueue(&world, one, 6, None, at(0)).await;
        assert_eq!(numbers(&claim(&queue, at(0)).await), [1, 3, 4, 5, 6]);
    }

    async fn an_expired_worker_changes_nothing(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        enqueue(&world, workspace, 1, Some("lane"), at(0)).await;
        enqueue(&world, workspace, 2, Some("lane"), at(0)).await;
        let slow = claim(&queue, at(0)).await;
        let fast = claim(&queue, at(61)).await;
        assert_eq!((numbers(&fast), fast[0].attempt), (vec![1], 2), "the lease ran out");
        assert!(!queue.extend(&slow[0], at(500)).await.unwrap());
        for settlement in [Settlement::Done, Settlement::RetryAt(at(99))] {
            assert!(matches!(settle(&world, &slow[0], settlement).await, Err(Error::Fenced)));
        }
        assert!(queue.extend(&fast[0], at(500)).await.unwrap());
        assert!(claim(&queue, at(400)).await.is_empty(), "the lease was extended");
        settle(&world, &fast[0], Settlement::Done).await.unwrap();
        assert_eq!(numbers(&claim(&queue, at(61)).await), [2]);
    }

    async fn a_node_whose_clock_is_ahead_takes_nothing_from_the_others(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let now = queue.now().await.unwrap();
        enqueue(&world, workspace, 1, None, now.here).await;
        assert_eq!(numbers(&queue.claim(&[JobKind::Process], now, MINUTE, 9).await.unwrap()), [1]);
        let ahead = async |minutes: i64| {
            let here = Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
            Now { here, ..queue.now().await.unwrap() }
        };
        let claimed = queue.claim(&[JobKind::Process], ahead(60).await, MINUTE, 9).await.unwrap();
        assert!(claimed.is_empty(), "the lease goes on");
        // What a node puts off by its own clock it finds due by its own clock.
        enqueue(&world, workspace, 2, None, ahead(60).await.here).await;
        assert!(queue.claim(&[JobKind::Process], queue.now().await.unwrap(), MINUTE, 9).await.unwrap().is_empty());
        assert_eq!(numbers(&queue.claim(&[JobKind::Process], ahead(61).await, MINUTE, 9).await.unwrap()), [2]);
    }

    async fn jobs_that_wait_for_a_later_time_can_be_hastened(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let account = mint();
        let lane = crate::core::job::refetch_lane(account);
        let add = async |run_at| {
            let job = Job::Refetch { account, decision: mint() };
            let mut tx = world.store.begin(workspace).await.unwrap();
            tx.enqueue_job(&job, run_at).await.unwrap();
            tx.commit().await.unwrap();
        };
        let now = Timestamp::now();
        for minutes in [60, 30, 90] {
            add(now + jiff::SignedDuration::from_mins(minutes)).await;
        }
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.hasten("another lane", now).await.unwrap();
        tx.commit().await.unwrap();
        assert!(queue.claim(&[JobKind::Refetch], now, MINUTE, 9).await.unwrap().is_empty());
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.hasten(&lane, now).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..3 {
            let claimed = queue.claim(&[JobKind::Refetch], now, MINUTE, 9).await.unwrap();
            assert_eq!(claimed.len(), 1, "one of a lane at a time");
            settle(&world, &claimed[0], Settlement::Done).await.unwrap();
        }
    }

    async fn a_lane_that_rests_is_asked_by_one_job_at_a_time(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
        let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let account = mint();
        for number in 1..=3 {
            let job = Job::SaveSent { message: message(number), account };
            let mut tx = world.store.begin(workspace).await.unwrap();
            tx.enqueue_job(&job, now).await.unwrap();
            tx.commit().await.unwrap();
        }
        let claim = async |at: i64| queue.claim(&[JobKind::SaveSent], later(at), MINUTE, 9).await.unwrap();
        let first = claim(0).await;
        assert_eq!(first.len(), 1);
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.rest_lane(&first[0], later(300)).await.unwrap();
        tx.settle(&first[0], Settlement::RetryAt(later(900))).await.unwrap();
        tx.commit().await.unwrap();
        assert!(claim(299).await.is_empty(), "the others wait too");
        let second = claim(300).await;
        assert!(second.len() == 1 && second[0].id != first[0].id);
    }

    async fn a_job_that_is_settled_after_it_was_put_off_leaves_its_lane_one_lead(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
        let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let account = mint();
        let mut tx = world.store.begin(workspace).await.unwrap();
        for number in 1..=3 {
            tx.enqueue_job(&Job::SaveSent { message: message(number), account }, now).await.unwrap();
        }
        tx.commit().await.unwrap();
        let claim = async || queue.claim(&[JobKind::SaveSent], now, MINUTE, 9).await.unwrap();
        let slow = claim().await;
        settle(&world, &slow[0], Settlement::RetryAt(later(300))).await.unwrap();
        let second = claim().await;
        assert_eq!(second.len(), 1);
        for settlement in [Settlement::RetryAt(later(400)), Settlement::Done] {
            settle(&world, &slow[0], settlement).await.unwrap();
            assert!(claim().await.is_empty(), "the second is in hand");
        }
        settle(&world, &second[0], Settlement::Done).await.unwrap();
        let third = claim().await;
        settle(&world, &third[0], Settlement::Done).await.unwrap();
        assert_eq!((rows(&world, "jobs").await, rows(&world, "lanes").await), (0, 0));
    }

    async fn whether_the_same_job_waits_already_can_be_asked(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let now = Timestamp::now();
        let [errand, other] = [mint(), mint()].map(|decision| Job::Refetch { account: mint(), decision });
        let is_waiting = async |job: &Job| {
            let mut tx = world.store.begin(workspace).await.unwrap();
            let is_waiting = tx.is_waiting(job).await.unwrap();
            // Dropped, it would hold its locks until the server hears of it.
            tx.commit().await.unwrap();
            is_waiting
        };
        assert!(!is_waiting(&errand).await);
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.enqueue_job(&errand, now).await.unwrap();
        tx.commit().await.unwrap();
        assert!(is_waiting(&errand).await && !is_waiting(&other).await);
        // What is in hand may have looked already.
        assert_eq!(queue.claim(&[JobKind::Refetch], now, MINUTE, 9).await.unwrap().len(), 1);
        assert!(!is_waiting(&errand).await);
    }

    async fn tries_failures_and_claims_are_counted_apart(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        enqueue(&world, workspace, 1, None, at(0)).await;
        for (settlement, tries, failures) in [
            (Settlement::RetryAt(at(0)), 0, 0),
            (Settlement::FailedUntil(at(0)), 0, 0),
            (Settlement::TriedUntil(at(0)), 0, 1),
            (Settlement::TriedUntil(at(0)), 1, 1),
        ] {
            let leased = claim(&queue, at(0)).await;
            assert_eq!((leased[0].tries, leased[0].failures), (tries, failures));
            settle(&world, &leased[0], settlement).await.unwrap();
        }
        let leased = claim(&queue, at(0)).await;
        assert_eq!((leased[0].attempt, leased[0].tries, leased[0].failures), (5, 2, 1));
    }

    async fn a_kind_with_much_to_do_does_not_starve_another(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        for number in 0..20 {
            enqueue(&world, workspace, number, None, at(0)).await;
        }
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.enqueue(&Job::Report { message: mint() }, None, at(5)).await.unwrap();
        tx.commit().await.unwrap();
        let mut kinds = HashSet::new();
        for _ in 0..2 {
            let claimed = queue.claim(&[JobKind::Process, JobKind::Report], at(9), MINUTE, 3).await.unwrap();
            kinds.extend(claimed.iter().map(|leased| leased.job.kind()));
        }
        assert!(kinds.contains(&JobKind::Report));
    }

    async fn a_commit_wakes_who_listens(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        let mut listener = queue.listen(&[JobKind::Process]);
        let mut other = queue.listen(&[JobKind::Submit]);
        enqueue(&world, workspace, 1, None, at(0)).await;
        let woken = tokio::time::timeout(MINUTE, listener.wait(2 * MINUTE)).await;
        assert!(woken.is_ok());
        let asleep = tokio::time::timeout(Duration::from_millis(20), other.wait(MINUTE)).await;
        assert!(asleep.is_err(), "it was no job of his");
    }

    async fn eight_claimers_share_three_hundred_lanes_without_a_double_and_in_order(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        const LANES: u128 = 300;
        const EACH: u128 = 3;
        let mut tx = world.store.begin(workspace).await.unwrap();
        for number in 0..LANES * EACH {
            tx.enqueue(&job(number), Some(format!("lane {}", number % LANES)), at(0)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let done: Mutex<Vec<u128>> = Mutex::default();
        let busy: Mutex<HashSet<u128>> = Mutex::default();
        let work = async || {
            while done.lock().unwrap().len() < usize::try_from(LANES * EACH).unwrap() {
                for leased in queue.claim(&[JobKind::Process], at(1), MINUTE, 7).await.unwrap() {
                    let number = numbers(std::slice::from_ref(&leased))[0];
                    assert!(busy.lock().unwrap().insert(number % LANES), "two of one lane at once");
                    let mut tx = world.store.begin(workspace).await.unwrap();
                    tx.settle(&leased, Settlement::Done).await.unwrap();
                    // Before the commit: as soon as it is durable another claimer may have the lane's next.
                    done.lock().unwrap().push(number);
                    busy.lock().unwrap().remove(&(number % LANES));
                    tx.commit().await.unwrap();
                }
            }
        };
        futures_util::future::join_all((0..8).map(|_| work())).await;
        let mut lanes: HashMap<u128, Vec<u128>> = HashMap::new();
        for number in done.into_inner().unwrap() {
            lanes.entry(number % LANES).or_default().push(number / LANES);
        }
        assert_eq!(lanes.len(), 300);
        assert!(lanes.values().all(|order| *order == [0, 1, 2]), "{lanes:?}");
        assert_eq!((rows(&world, "jobs").await, rows(&world, "lanes").await), (0, 0));
    }

    async fn jobs_enqueued_while_others_of_the_lane_are_settled_are_all_done(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        const JOBS: usize = 60;
        let produce = async {
            for number in 0..JOBS as u128 {
                enqueue(&world, workspace, number, Some("lane"), at(0)).await;
            }
        };
        let consume = async {
            let mut order = Vec::new();
            let mut listener = queue.listen(&JobKind::ALL);
            while order.len() < JOBS {
                listener.look();
                let claimed = claim(&queue, at(1)).await;
                for leased in &claimed {
                    order.extend(numbers(std::slice::from_ref(leased)));
                    settle(&world, leased, Settlement::Done).await.unwrap();
                }
                if claimed.is_empty() {
                    listener.wait(MINUTE).await;
                }
            }
            order
        };
        let both = Box::pin(async { tokio::join!(produce, consume) });
        let ((), order) = tokio::time::timeout(MINUTE, both).await.unwrap();
        assert_eq!(order, (0..JOBS as u128).collect::<Vec<_>>());
    }

    async fn a_job_that_cannot_be_read_stays_and_holds_up_no_other(world) {
        let (queue, workspace) = (Queue::new(world.store.clone()), world.workspace().await);
        enqueue(&world, workspace, 1, None, at(0)).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.execute(sql("update jobs set body = '{\"job\":\"of next year\"}'")).await.unwrap();
        tx.commit().await.unwrap();
        enqueue(&world, workspace, 2, None, at(0)).await;
        assert_eq!(numbers(&claim(&queue, at(0)).await), [2]);
        assert_eq!(rows(&world, "jobs").await, 2);
    }
}
