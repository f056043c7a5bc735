//! Messages taken in: durable with their jobs, each once.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    core::{
        ids::{Id as _, MessageKey, RouteId, UserId, WorkspaceId},
        inbound::{Door, Intake, Principal, SendClass, SendOrder, fingerprint},
        job::Job,
        route::{Route, RouteTarget},
    },
    mail::{Address, Envelope, Recipient, ReversePath},
    store::{
        Error, InboundState, PURGE_ROWS_MAX, Taken, mint, sql,
        testing::{World, both},
    },
};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn envelope(from: &str) -> Envelope {
    let mut envelope = Envelope::new(ReversePath::Address(address(from)));
    envelope.recipients.push(Recipient::new(address("ann-0123456789abcdef@bcc.example")));
    envelope
}

fn door(workspace: WorkspaceId, from: &str, peer: &str) -> Door {
    let route = Route {
        id: RouteId::from_uuid(Uuid::from_u128(5)),
        workspace,
        address: address("ann-0123456789abcdef@bcc.example"),
        target: RouteTarget::Capture { user: UserId::from_uuid(Uuid::from_u128(6)) },
        expires_at: None,
    };
    Door::Mx { routes: vec![route], envelope: envelope(from), peer: peer.to_owned() }
}

fn intake(workspace: WorkspaceId, raw: &str) -> Intake {
    let door = door(workspace, "ann@crm.example", "192.0.2.1");
    offer(workspace, door, Bytes::from(raw.to_owned()))
}

fn offer(workspace: WorkspaceId, door: Door, raw: Bytes) -> Intake {
    let (Door::Mx { envelope, .. } | Door::Submission { envelope, .. }) = &door;
    let fingerprint = fingerprint(envelope, &raw);
    Intake { workspace, door, raw, fingerprint }
}

async fn take_in(world: &World, intake: Intake) -> Result<Taken, Error> {
    world.store.take_in(intake, mint(), Timestamp::now()).await
}

async fn jobs(world: &World) -> Vec<Job> {
    let query = sql("select body from jobs where head = 1 and lane is null and attempt = 0 order by id");
    let rows = world.store.system_read().await.unwrap().fetch_all(query).await.unwrap();
    rows.iter().map(|row| row.json("body").unwrap()).collect()
}

async fn count(world: &World, table: &str) -> i64 {
    let query = sql(format!("select count(*) as rows from {table}"));
    world.store.system_read().await.unwrap().fetch_one(query).await.unwrap().get("rows").unwrap()
}

/// A message that was filed with this blob.
async fn file(world: &World, workspace: WorkspaceId, blob: Uuid) -> MessageKey {
    let (message, conversation): (MessageKey, Uuid) = (mint(), Uuid::now_v7());
    let mut tx = world.store.begin(workspace).await.unwrap();
    let insert =
        sql("insert into conversations (workspace, id, created_at, last_message_at, message_count) \
         values ($1, $2, 0, 0, 1)");
    tx.execute(insert.bind(workspace).bind(conversation)).await.unwrap();
    let insert =
        sql("insert into messages (workspace, id, identity, conversation, direction, kind, author_role, \
         parties, attachments, sent_at, received_at, size, blob) \
         values ($1, $2, $3, $4, 'inbound', 'mail', 'other', '{}', '[]', 0, 0, 0, $5)");
    let insert =
        insert.bind(workspace).bind(message).bind(*message.uuid().as_bytes()).bind(conversation).bind(blob);
    tx.execute(insert).await.unwrap();
    tx.commit().await.unwrap();
    message
}

/// Rows as a listener leaves them, but for their bytes.
async fn fill(world: &World, workspace: WorkspaceId, rows: u32) {
    let (id, key) = match world.store.is_shared() {
        true => ("gen_random_uuid()", "uuid_send(gen_random_uuid())"),
        false => ("randomblob(16)", "randomblob(32)"),
    };
    let insert = sql(format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < {rows}) \
         insert into inbound (workspace, id, source_key, blob, door, received_at, state) \
         select $1, {id}, {key}, {id}, '', i, 'filed' from n"
    ));
    let mut tx = world.store.begin(workspace).await.unwrap();
    tx.execute(insert.bind(workspace)).await.unwrap();
    tx.commit().await.unwrap();
}

both! {
    async fn fingerprints_are_forgotten_some_at_a_time_and_the_same_message_is_then_a_new_one(world) {
        let workspace = world.workspace().await;
        let first = take_in(&world, intake(workspace, "x")).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.settle_inbound(first.id, InboundState::Held, None).await.unwrap();
        tx.commit().await.unwrap();
        assert!(take_in(&world, intake(workspace, "x")).await.unwrap().repeated);
        fill(&world, workspace, PURGE_ROWS_MAX).await;
        let later = Timestamp::now();
        let mut more = Vec::new();
        for _ in 0..3 {
            let mut tx = world.store.begin(workspace).await.unwrap();
            more.push(tx.forget_fingerprints(later).await.unwrap());
            tx.commit().await.unwrap();
        }
        assert_eq!(more, [true, false, false]);
        assert!(!take_in(&world, intake(workspace, "x")).await.unwrap().repeated);
    }

    async fn a_message_is_durable_with_its_job_when_it_is_taken(world) {
        let workspace = world.workspace().await;
        let mut listener = world.store.enqueued();
        listener.borrow_and_update();
        let intake = intake(workspace, "Subject: hello\r\n\r\nbody");
        let (id, received_at) = (mint(), Timestamp::from_second(1_000).unwrap());
        let taken = world.store.take_in(intake.clone(), id, received_at).await.unwrap();
        assert_eq!(taken, Taken { id, repeated: false });
        assert_eq!(jobs(&world).await, [Job::Process { inbound: id }]);
        assert!(listener.has_changed().unwrap());
        let row = world.store.read(workspace).await.unwrap().inbound(id).await.unwrap();
        assert_eq!((row.door, row.raw, row.received_at), (intake.door, intake.raw, received_at));
        assert_eq!((row.state, row.message), (InboundState::Pending, None));
        let other = world.workspace().await;
        assert!(matches!(world.store.read(other).await.unwrap().inbound(id).await, Err(Error::Missing)));
    }

    async fn the_same_transaction_again_is_the_same_message_sighted_once_more(world) {
        let workspace = world.workspace().await;
        let first = take_in(&world, intake(workspace, "a")).await.unwrap();
        let mut again = intake(workspace, "a");
        again.door = door(workspace, "ann@crm.example", "198.51.100.9");
        let second = take_in(&world, again).await.unwrap();
        assert_eq!(second, Taken { id: first.id, repeated: true });
        assert_eq!(jobs(&world).await, [Job::Process { inbound: first.id }, Job::Repeat { inbound: first.id }]);
        assert_eq!((count(&world, "inbound").await, count(&world, "blobs").await), (1, 1));
    }

    async fn other_bytes_another_envelope_another_door_or_another_workspace_is_another_message(world) {
        let (workspace, other) = (world.workspace().await, world.workspace().await);
        let order = |class| SendOrder {
            user: UserId::from_uuid(Uuid::from_u128(6)),
            principal: Principal::Admin,
            class,
            conversation: None,
            api: false,
        };
        let submission = Door::Submission { order: order(SendClass::Bulk), envelope: envelope("ann@crm.example") };
        let same = Door::Submission { order: order(SendClass::Individual), envelope: envelope("ann@crm.example") };
        let raw = Bytes::from("a");
        let intakes = [
            intake(workspace, "a"),
            intake(workspace, "b"),
            intake(other, "a"),
            offer(workspace, door(workspace, "bob@crm.example", "192.0.2.1"), raw.clone()),
            offer(workspace, submission, raw.clone()),
            offer(workspace, same, raw),
        ];
        let mut repeated = Vec::new();
        for intake in intakes {
            repeated.push(take_in(&world, intake).await.unwrap().repeated);
        }
        assert_eq!(repeated, [false, false, false, false, false, true]);
    }

    async fn many_at_once_are_each_taken_once(world) {
        let (one, two) = (world.workspace().await, world.workspace().await);
        let offers = (0..150).map(|number| {
            let workspace = if number % 2 == 0 { one } else { two };
            take_in(&world, intake(workspace, &format!("message {}", number / 3)))
        });
        let taken: Vec<_> = join_all(offers).await.into_iter().map(Result::unwrap).collect();
        let ids: HashSet<_> = taken.iter().map(|taken| taken.id).collect();
        assert_eq!(taken.iter().filter(|taken| !taken.repeated).count(), 100);
        assert_eq!(ids.len(), 100);
        assert_eq!((count(&world, "inbound").await, count(&world, "blobs").await), (100, 100));
        assert_eq!(count(&world, "jobs").await, 150);
        for id in ids {
            let mut found = 0;
            for workspace in [one, two] {
                found += usize::from(world.store.read(workspace).await.unwrap().inbound(id).await.is_ok());
            }
            assert_eq!(found, 1);
        }
    }

    async fn a_message_for_a_workspace_that_is_gone_spoils_no_other(world) {
        let (workspace, gone) = (world.workspace().await, world.workspace().await);
        // Known to this process, and then deleted.
        world.store.workspace_key(gone).await.unwrap();
        let mut system = world.store.system().await.unwrap();
        for text in ["delete from content_keys where workspace = $1", "delete from workspaces where id = $1"] {
            system.execute(sql(text).bind(gone)).await.unwrap();
        }
        system.commit().await.unwrap();
        let offers = (0..30).map(|number| {
            let workspace = if number % 10 == 9 { gone } else { workspace };
            take_in(&world, intake(workspace, &number.to_string()))
        });
        for (number, taken) in join_all(offers).await.into_iter().enumerate() {
            assert_eq!(taken.is_ok(), number % 10 != 9, "{taken:?}");
            assert!(number % 10 != 9 || matches!(taken, Err(Error::Missing)));
        }
        assert_eq!((count(&world, "inbound").await, count(&world, "blobs").await), (27, 27));
    }

    async fn a_message_filed_anew_takes_the_bytes_over(world) {
        let workspace = world.workspace().await;
        let id = take_in(&world, intake(workspace, "a")).await.unwrap().id;
        let blob = world.store.read(workspace).await.unwrap().inbound(id).await.unwrap().blob;
        let message = file(&world, workspace, blob).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.settle_inbound(id, InboundState::Filed, Some(message)).await.unwrap();
        tx.commit().await.unwrap();
        let row = world.store.read(workspace).await.unwrap().inbound(id).await.unwrap();
        assert_eq!((row.state, row.message, row.blob), (InboundState::Filed, Some(message), blob));
        assert_eq!(row.raw, "a");
    }

    async fn a_message_known_already_keeps_its_own_bytes_and_the_others_are_deleted(world) {
        let workspace = world.workspace().await;
        let first = take_in(&world, intake(workspace, "first")).await.unwrap().id;
        let second = take_in(&world, intake(workspace, "second")).await.unwrap().id;
        let blob = world.store.read(workspace).await.unwrap().inbound(first).await.unwrap().blob;
        let message = file(&world, workspace, blob).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.settle_inbound(second, InboundState::Filed, Some(message)).await.unwrap();
        tx.commit().await.unwrap();
        let row = world.store.read(workspace).await.unwrap().inbound(second).await.unwrap();
        assert_eq!((row.blob, row.raw), (blob, Bytes::from("first")));
        assert_eq!(count(&world, "blobs").await, 1);
    }

    async fn a_held_message_keeps_its_bytes(world) {
        let workspace = world.workspace().await;
        let id = take_in(&world, intake(workspace, "a")).await.unwrap().id;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.settle_inbound(id, InboundState::Held, None).await.unwrap();
        assert!(matches!(tx.settle_inbound(mint(), InboundState::Held, None).await, Err(Error::Missing)));
        tx.commit().await.unwrap();
        let row = world.store.read(workspace).await.unwrap().inbound(id).await.unwrap();
        assert_eq!((row.state, row.raw), (InboundState::Held, Bytes::from("a")));
    }
}
