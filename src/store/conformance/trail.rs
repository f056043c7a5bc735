//! Every act has its row, and rows that were changed or taken out are noticed.

use bytes::Bytes;

use super::{super::testing::both, *};
use crate::{
    core::{
        allowance::Limits,
        ids::{ApiKeyId, Id as _, MessageKey},
        inbound::{Door, Intake, fingerprint},
        people::{ApiKey, Scope},
        policy::Overrides,
        quarantine::{NewHeld, QuarantineState},
        trail::Act,
    },
    mail::{Envelope, ReversePath},
    store::sql::sql,
};

fn a_key(place: &Place) -> ApiKey {
    let scopes = vec![Scope::Read];
    let (workspace, created_at) = (place.id, at(0));
    ApiKey { id: mint(), workspace, name: "x".into(), scopes, user_id: None, created_at, last_used_at: None }
}

async fn key_made(place: &Place, by: &str) -> ApiKeyId {
    let key = a_key(place);
    let mut tx = place.tx().await.acting_for(by);
    tx.insert_key(&key, key.id.uuid().as_bytes()).await.unwrap();
    tx.commit().await.unwrap();
    key.id
}

async fn told(place: &Place) -> Vec<(i64, String, Act, String)> {
    let rows = place.read().await.trail(None, 200).await.unwrap();
    rows.into_iter().rev().map(|row| (row.seq, row.actor, row.act, row.subject)).collect()
}

async fn breaks(place: &Place) -> Vec<i64> {
    place.read().await.trail_breaks(10).await.unwrap()
}

/// Mail that was taken in, and is nowhere yet.
async fn arrived(world: &World, place: &Place) -> MessageKey {
    let id: MessageKey = mint();
    let envelope = Envelope::new(ReversePath::Null);
    let raw = Bytes::from(id.to_string());
    let fingerprint = fingerprint(&envelope, &raw);
    let door = Door::Mx { routes: Vec::new(), envelope, peer: String::new(), hello: String::new() };
    let intake = Intake { workspace: place.id, door, raw, fingerprint };
    world.store.take_in(intake, id, at(0)).await.unwrap();
    id
}

fn held(id: MessageKey) -> NewHeld {
    NewHeld {
        id,
        state: QuarantineState::Held,
        level: None,
        rule: "disowned",
        reason: "x",
        user: None,
        identity: [7; 32],
        wording: None,
        id_hash: None,
        shown: None,
        received_at: at(0),
        expires_at: at(9),
    }
}

both! {
    async fn every_act_has_a_row_that_says_who_did_what_to_whom(world) {
        let place = Place::new(&world).await;
        let (ann, id) = (a_user("ann@example.com"), place.id.to_string());
        let key = key_made(&place, "command_line").await;
        let mut mail = Vec::new();
        for _ in 0..4 {
            mail.push(arrived(&world, &place).await);
        }
        let mut tx = place.tx().await.acting_for("admin");
        tx.insert_user(&ann).await.unwrap();
        tx.update_user(&ann).await.unwrap();
        tx.update_user(&User { role: Role::Admin, ..ann.clone() }).await.unwrap();
        tx.set_policy("keap", &Overrides::default()).await.unwrap();
        tx.put_limits(None, &Limits::default()).await.unwrap();
        tx.put_limits(Some(ann.id), &Limits::default()).await.unwrap();
        let account = an_account(ann.id, "ann@example.com");
        tx.insert_account(&account, &password("one")).await.unwrap();
        tx.replace_credentials(account.id, &password("two")).await.unwrap();
        tx.forget_credentials(account.id).await.unwrap();
        tx.delete_key(key).await.unwrap();
        for (id, state, trust) in [
            (mail[0], QuarantineState::Released, false),
            (mail[1], QuarantineState::Released, true),
            (mail[2], QuarantineState::Rejected, false),
            (mail[3], QuarantineState::Expired, false),
        ] {
            tx.put_held(&held(id)).await.unwrap();
            assert!(tx.settle_held(id, (state, "usr_x"), trust, at(1)).await.unwrap());
            assert!(!tx.settle_held(id, (state, "usr_y"), trust, at(1)).await.unwrap());
        }
        tx.commit().await.unwrap();
        let (user, account) = (ann.id.to_string(), account.id.to_string());
        let expect = [
            ("command_line", Act::KeyCreated, key.to_string()),
            ("admin", Act::UserAdded, user.clone()),
            ("admin", Act::RoleChanged, user.clone()),
            ("admin", Act::PolicyChanged, id.clone()),
            ("admin", Act::LimitsChanged, id),
            ("admin", Act::LimitsChanged, user),
            ("admin", Act::AccountConnected, account.clone()),
            ("admin", Act::AccountReconnected, account.clone()),
            ("admin", Act::AccountDisconnected, account),
            ("admin", Act::KeyRevoked, key.to_string()),
            ("usr_x", Act::MailReleased, mail[0].to_string()),
            ("usr_x", Act::MailTrusted, mail[1].to_string()),
            ("usr_x", Act::MailRejected, mail[2].to_string()),
        ];
        let rows = (1..).zip(expect).map(|(seq, (actor, act, subject))| (seq, actor.to_owned(), act, subject));
        assert_eq!(told(&place).await, rows.collect::<Vec<_>>());
        assert_eq!(breaks(&place).await, Vec::<i64>::new());
    }

    async fn an_act_that_is_not_committed_has_no_row(world) {
        let place = Place::new(&world).await;
        let key = a_key(&place);
        let mut tx = place.tx().await;
        tx.insert_key(&key, b"one").await.unwrap();
        drop(tx);
        assert_eq!(told(&place).await, []);
        let key = key_made(&place, "admin").await;
        assert_eq!(told(&place).await, [(1, "admin".to_owned(), Act::KeyCreated, key.to_string())]);
    }

    async fn many_writers_make_one_chain(world) {
        let (place, other) = (Place::new(&world).await, Place::new(&world).await);
        let writers = (0..20).map(|_| key_made(&place, "admin"));
        futures_util::future::join_all(writers).await;
        key_made(&other, "admin").await;
        let seqs: Vec<i64> = told(&place).await.into_iter().map(|row| row.0).collect();
        assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
        assert_eq!((breaks(&place).await, breaks(&other).await), (vec![], vec![]));
    }

    async fn whatever_is_done_to_the_chain_is_noticed(world) {
        for (statement, expect) in [
            ("update trail set actor = 'nobody' where workspace = $1 and seq = 2", vec![2]),
            ("update trail set at = at + 1 where workspace = $1 and seq = 1", vec![1]),
            ("update trail set act = 'key.revoked' where workspace = $1 and seq = 3", vec![3]),
            ("update trail set subject = workspace where workspace = $1 and seq = 3", vec![3]),
            ("delete from trail where workspace = $1 and seq = 1", vec![2]),
            ("delete from trail where workspace = $1 and seq = 2", vec![3]),
            ("delete from trail where workspace = $1 and seq = 3", vec![3]),
            ("delete from trail where workspace = $1", vec![3]),
        ] {
            let place = Place::new(&world).await;
            for _ in 0..3 {
                key_made(&place, "admin").await;
            }
            let mut system = place.store.system().await.unwrap();
            assert!(system.execute(sql(statement).bind(place.id)).await.unwrap() > 0);
            system.commit().await.unwrap();
            assert_eq!(breaks(&place).await, expect, "{statement}");
        }
    }
}
