//! Messages taken in: durable with their jobs, each once.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    core::{
        ids::{Id as _, MessageKey, RouteId, UserId, WorkspaceId},
        inbound::{Door, Fingerprint, Intake, OrderKey, Principal, SendClass, SendOrder, fingerprint},
        job::Job,
        route::{Route, RouteTarget},
    },
    mail::{Address, Envelope, Recipient, ReversePath},
    store::{
        Error, InboundState, ORDER_KEY_USED, Taken, mint, sql,
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
    Door::Mx { routes: vec![route], envelope: envelope(from), peer: peer.to_owned(), hello: String::new() }
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

both! {
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
            key: None,
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

    async fn what_was_said_long_ago_and_comes_again_is_said_again(world) {
        let workspace = world.workspace().await;
        let said_at = |minute: i64| {
            let intake = intake(workspace, "your daily figures are ready");
            let kept = SignedDuration::from_mins(15);
            let intake = Intake { fingerprint: Fingerprint { kept, ..intake.fingerprint }, ..intake };
            let at = Timestamp::from_second(1_000_000 + minute * 60).unwrap();
            world.store.take_in(intake, mint(), at)
        };
        let first = said_at(0).await.unwrap().id;
        assert_eq!(said_at(14).await.unwrap(), Taken { id: first, repeated: true });
        // Nobody has looked at it yet: it cannot have been sent.
        assert_eq!(said_at(16).await.unwrap(), Taken { id: first, repeated: true });
        let blob = world.store.read(workspace).await.unwrap().inbound(first).await.unwrap().blob;
        let message = file(&world, workspace, blob).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.settle_inbound(first, InboundState::Filed, Some(message)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(said_at(14).await.unwrap(), Taken { id: first, repeated: true });
        let second = said_at(15).await.unwrap();
        assert!(!second.repeated && second.id != first);
        assert_eq!(said_at(16).await.unwrap(), Taken { id: second.id, repeated: true });
        assert_eq!(count(&world, "inbound").await, 2);
    }

    async fn a_key_stands_for_one_order(world) {
        let (workspace, other) = (world.workspace().await, world.workspace().await);
        let keyed = |workspace, content: u8, raw: &str| {
            let order = SendOrder {
                user: UserId::from_uuid(Uuid::from_u128(6)),
                principal: Principal::Admin,
                class: SendClass::Individual,
                conversation: None,
                api: false,
                key: Some(OrderKey { name: [7; 32], content: [content; 32] }),
            };
            let door = Door::Submission { order, envelope: envelope("ann@crm.example") };
            take_in(&world, offer(workspace, door, Bytes::from(raw.to_owned())))
        };
        let key = OrderKey { name: [7; 32], content: [1; 32] };
        let first = keyed(workspace, 1, "a").await.unwrap();
        let part = keyed(workspace, 1, "another part").await.unwrap();
        assert!(!part.repeated && part.id != first.id);
        assert!(keyed(workspace, 1, "a").await.unwrap().repeated);
        keyed(other, 2, "a").await.unwrap();
        // The order that is refused is written by nobody, and those beside it by their own.
        let offers = (0..20).map(|number| {
            let content = if number % 10 == 9 { 2 } else { 1 };
            keyed(workspace, content, &format!("part {number}"))
        });
        for (number, taken) in join_all(offers).await.into_iter().enumerate() {
            match taken {
                Err(Error::Conflict { what }) => assert_eq!((number % 10, what), (9, ORDER_KEY_USED)),
                taken => assert!(taken.is_ok() && number % 10 != 9, "{number}: {taken:?}"),
            }
        }
        assert_eq!(count(&world, "inbound").await, 21);

        let blob = world.store.read(workspace).await.unwrap().inbound(first.id).await.unwrap().blob;
        let message = file(&world, workspace, blob).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        assert_eq!(tx.ordered_message(&key).await.unwrap(), None);
        tx.note_ordered_message(&key, message).await.unwrap();
        assert_eq!(tx.ordered_message(&key).await.unwrap(), Some(message));
        tx.commit().await.unwrap();
        assert_eq!(world.store.read(other).await.unwrap().ordered_message(&key).await.unwrap(), None);
        let mut system = world.store.system().await.unwrap();
        assert_eq!(system.purge_order_keys(Timestamp::now() - SignedDuration::from_hours(1)).await.unwrap(), 0);
        assert_eq!(system.purge_order_keys(Timestamp::now() + SignedDuration::from_hours(1)).await.unwrap(), 2);
        system.commit().await.unwrap();
        keyed(workspace, 2, "the key is free").await.unwrap();
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

    async fn bytes_that_are_to_be_sent_are_kept_beside_the_messages_own(world) {
        let workspace = world.workspace().await;
        let first = take_in(&world, intake(workspace, "first")).await.unwrap().id;
        let second = take_in(&world, intake(workspace, "second")).await.unwrap().id;
        let mut read = world.store.read(workspace).await.unwrap();
        let own = read.inbound(first).await.unwrap().blob;
        let sent = read.inbound(second).await.unwrap().blob;
        drop(read);
        let message = file(&world, workspace, own).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        let insert = sql("insert into submissions (workspace, message, class, reverse_path, blob, state, principal, \
             accepted_at) values ($1, $2, 'individual', '', $3, 'queued', '\"admin\"', 0)");
        tx.execute(insert.bind(workspace).bind(message).bind(sent)).await.unwrap();
        tx.settle_inbound(second, InboundState::Filed, Some(message)).await.unwrap();
        tx.commit().await.unwrap();
        let mut read = world.store.read(workspace).await.unwrap();
        assert_eq!(read.blob(sent).await.unwrap(), "second");
        assert_eq!(read.inbound(second).await.unwrap().raw, "first");
    }

    async fn a_key_of_another_order_spoils_no_batch(world) {
        let workspace = world.workspace().await;
        let ordered = |name: u8, content: u8, raw: &str| {
            let order = SendOrder {
                user: UserId::from_uuid(Uuid::from_u128(6)),
                principal: Principal::Admin,
                class: SendClass::Bulk,
                conversation: None,
                api: false,
                key: Some(OrderKey { name: [name; 32], content: [content; 32] }),
            };
            let door = Door::Submission { order, envelope: envelope("ann@crm.example") };
            offer(workspace, door, Bytes::from(raw.to_owned()))
        };
        take_in(&world, ordered(1, 1, "first")).await.unwrap();
        let intakes = [
            intake(workspace, "a"),
            ordered(1, 2, "under the first one's key"),
            ordered(2, 1, "b"),
            ordered(2, 2, "under a key taken beside it"),
            intake(workspace, "c"),
        ];
        let mut offers = Vec::new();
        for intake in intakes {
            offers.push(world.store.offer(intake, mint(), Timestamp::now()).await.unwrap());
        }
        // One transaction for all of them.
        let taken = world.store.write_batch(&offers).await.unwrap();
        let is_taken: Vec<bool> = taken.iter().map(Result::is_ok).collect();
        assert_eq!(is_taken, [true, false, true, false, true]);
        for refused in taken.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, Error::Conflict { what: ORDER_KEY_USED }), "{refused:?}");
        }
        assert_eq!((count(&world, "inbound").await, count(&world, "blobs").await), (4, 4));
        assert_eq!(jobs(&world).await.len(), 4);
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
