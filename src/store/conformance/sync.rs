//! What following an account asks of the store: what is known at a place, under an id, by a key; and who looked when.

use super::{
    super::{DecisionFilter, Lease, Leased, PolicyStamp, Renumbering, testing::both},
    *,
};
use crate::core::{
    decision::{DecisionHash, HashRole, NewDecision, Ruling, Verdict},
    ids::DecisionId,
    message::{Sighting, SightingRow},
    policy,
};

const POLICY: PolicyStamp<'static> = PolicyStamp { preset: "mailweave", version: 1 };

fn skipped(rule: &'static str) -> Ruling {
    Ruling { verdict: Verdict::Skipped, rule, reason: "because" }
}

async fn leave(tx: &mut Tx, at: &MailboxUid, rule: &'static str, id: &str) -> DecisionId {
    let hash = tx.hash_of(id).await.unwrap();
    let decision = NewDecision {
        ruling: skipped(rule),
        via: "account",
        message: None,
        seen_at: Some(at.clone()),
        user: None,
        written_at: None,
        hashes: vec![DecisionHash { role: HashRole::Id, hash }],
    };
    tx.decide(&decision, POLICY, self::at(1)).await.unwrap()
}

both! {
    async fn what_is_known_of_a_mailbox_is_found_by_place_and_by_id(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let message = place.message(place.conversation(1).await, 2).await;
        let id = message.rfc822_id.clone().unwrap();
        let mut tx = place.tx().await;
        let row = SightingRow { sighting: Sighting::Account(place_in(account, "INBOX", 7, 3)), at: at(3) };
        tx.add_sighting(message.id, &row).await.unwrap();
        leave(&mut tx, &place_in(account, "INBOX", 7, 5), "no_contact", "left@x.example").await;
        leave(&mut tx, &place_in(account, "INBOX", 8, 6), "no_contact", "left@x.example").await;
        assert_eq!(tx.known_places(account, b"INBOX", 7).await.unwrap(), [3, 5]);
        assert!(tx.known_places(account, b"Sent", 7).await.unwrap().is_empty());
        assert_eq!(tx.decided_uids(account, b"INBOX", 7, &[3, 4, 5]).await.unwrap(), [5].into());
        let ids = [id.clone(), message_id("left@x.example")];
        let sighted = tx.sighted_with_ids(account, b"INBOX", 7, &ids).await.unwrap();
        assert_eq!(sighted.iter().map(|found| (&found.id, found.uid)).collect::<Vec<_>>(), [(&id, 3)]);
        assert!(tx.sighted_with_ids(account, b"INBOX", 8, &ids).await.unwrap().is_empty());
        let hash = tx.hash_of("left@x.example").await.unwrap();
        let decided = tx.decided_with_ids(account, b"INBOX", 7, &[hash, [0; 16]]).await.unwrap();
        assert_eq!(decided, [(hash, 5)]);
    }

    async fn a_decision_is_revised_and_found_as_before(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        let (one, other) = (place_in(account, "INBOX", 7, 5), place_in(account, "INBOX", 7, 6));
        let decision = leave(&mut tx, &one, "no_contact", "one@x.example").await;
        let hash = tx.hash_of("one@x.example").await.unwrap();
        assert_eq!(tx.skipped_with_ids(&[hash]).await.unwrap(), [(account, decision)]);
        assert!(tx.revise_decision(&one, &policy::gone(), POLICY, at(9)).await.unwrap());
        assert!(!tx.revise_decision(&other, &policy::gone(), POLICY, at(9)).await.unwrap());
        let decisions = tx.decisions(&all(), &DecisionFilter::default()).await.unwrap();
        assert_eq!((decisions[0].rule.as_str(), decisions[0].at), ("gone_at_provider", at(9)));
        // Mail that is gone is not looked for again.
        assert!(tx.skipped_with_ids(&[hash]).await.unwrap().is_empty());
        assert_eq!(tx.decided_with_ids(account, b"INBOX", 7, &[hash]).await.unwrap(), [(hash, 5)]);
    }

    async fn skipped_mail_is_found_where_it_lies_after_its_uids_have_changed(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        let decision = leave(&mut tx, &place_in(account, "INBOX", 7, 5), "no_contact", "one@x.example").await;
        let renumbering = Renumbering { account, mailbox: b"INBOX", from: 7, to: 9, uids: &[(5, 50)] };
        tx.rebind_uid_validity(&renumbering).await.unwrap();
        assert_eq!(tx.skipped_at(decision).await.unwrap(), Some(place_in(account, "INBOX", 9, 50)));
        assert_eq!(tx.skipped_at(mint()).await.unwrap(), None);
    }

    async fn thread_keys_are_asked_for_many_messages_at_once(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let mut tx = place.tx().await;
        tx.put_thread_keys(&[[1; 16], [2; 16]], conversation).await.unwrap();
        let known = tx.thread_keys_known(&[[2; 16], [3; 16]]).await.unwrap();
        assert_eq!(known, [[2; 16]].into());
        assert!(tx.thread_keys_known(&[]).await.unwrap().is_empty());
    }

    async fn only_who_holds_an_account_says_when_it_was_looked_at(world) {
        let place = Place::new(&world).await;
        place.account("ann@example.com").await;
        let lasts = jiff::SignedDuration::from_secs(30);
        let mut system = world.store.system().await.unwrap();
        let lease = Lease { owner: "a", now: at(0), lasts };
        let held = system.lease_accounts(lease, &[AccountState::Connecting], 1).await.unwrap()[0];
        system.note_looks(&[(held, at(5))]).await.unwrap();
        let former = Leased { epoch: held.epoch - 1, ..held };
        system.note_looks(&[(former, at(9))]).await.unwrap();
        system.note_looks(&[]).await.unwrap();
        system.commit().await.unwrap();
        let account = place.read().await.account(held.account).await.unwrap().unwrap();
        assert_eq!(account.status.last_checked_at, Some(at(5)));
    }
}
