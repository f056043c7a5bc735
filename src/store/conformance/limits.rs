//! What is allowed, what is counted, and what waits for either.

use super::{
    super::{PolicyStamp, testing::both},
    outbound::a_submission,
    *,
};
use crate::core::{
    allowance::{Limits, Said},
    decision::{NewDecision, Ruling, Verdict},
    limits::{Count, Counted, Level, Quota, SentUnit},
    policy::{Choice, Overrides, Preset, over_sync_limit, settings::OverSync},
    submission::SubmissionState,
};

const SLOT: i64 = 900;
const POLICY: PolicyStamp<'static> = PolicyStamp { preset: "mailweave", version: 1 };

fn deferred() -> Ruling {
    over_sync_limit(OverSync::Defer)
}

both! {
    async fn a_users_limits_are_read_with_his_workspaces(world) {
        let place = Place::new(&world).await;
        let (ann, ben) = (place.user("ann@example.com").await, place.user("ben@example.com").await);
        let mut tx = place.tx().await;
        let nothing = Limits::default();
        let found = tx.allowance(Some(ann)).await.unwrap();
        assert_eq!((found.timezone.as_str(), found.workspace, found.user), ("UTC", nothing, nothing));
        let all = Limits { synced_per_day: Said::Limit(5), accounts: Said::NoLimit, ..nothing };
        let own = Limits { sent_per_24h: Said::Limit(7), sent_unit: Said::Limit(SentUnit::Messages), ..nothing };
        tx.put_limits(None, &own).await.unwrap();
        tx.put_limits(None, &all).await.unwrap();
        tx.put_limits(Some(ann), &own).await.unwrap();
        let limits = async |tx: &mut Tx, user| {
            let found = tx.allowance(user).await.unwrap();
            (found.workspace, found.user)
        };
        assert_eq!(limits(&mut tx, Some(ann)).await, (all, own));
        assert_eq!(limits(&mut tx, Some(ben)).await, (all, nothing));
        assert_eq!(limits(&mut tx, None).await, (all, nothing));
        // The presets that either has come along.
        tx.set_policy("sharpspring", &Overrides::default()).await.unwrap();
        let own_preset = Choice { preset: Some("kaname-gmail".into()), ..Choice::default() };
        tx.set_user_policy(ann, &own_preset).await.unwrap();
        let of = |name| Preset::named(name).unwrap().limits;
        for (user, expect) in [(Some(ann), "kaname-gmail"), (Some(ben), "sharpspring"), (None, "sharpspring")] {
            let found = tx.allowance(user).await.unwrap();
            assert_eq!((found.preset, found.users_preset), (of("sharpspring"), of(expect)));
        }
        tx.delete_user(ann).await.unwrap();
        assert_eq!(limits(&mut tx, Some(ann)).await, (all, nothing));
        tx.commit().await.unwrap();
        let other = Place::new(&world).await;
        assert_eq!(other.read().await.allowance(Some(ben)).await.unwrap().workspace, nothing);
    }

    async fn counts_add_up_by_slot_and_are_gone_with_a_transaction_that_fails(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@example.com").await;
        let mut tx = place.tx().await;
        let (one, two) = (at(0), at(SLOT));
        let counts = [
            (Counted::Synced, one, 3),
            (Counted::Synced, one, 4),
            (Counted::Synced, two, 1),
            (Counted::SentMessages, two, 9),
            (Counted::SentRecipients, two, 0),
        ];
        tx.count_usage(ann, &counts).await.unwrap();
        tx.count_usage(ann, &[(Counted::Synced, two, 5)]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = place.tx().await;
        tx.count_usage(ann, &[(Counted::Synced, two, 100)]).await.unwrap();
        drop(tx);
        let mut read = place.read().await;
        let all = [Count { slot: one, count: 7 }, Count { slot: two, count: 6 }];
        assert_eq!(read.usage(ann, Counted::Synced, at(0)).await.unwrap(), all);
        assert_eq!(read.usage(ann, Counted::Synced, at(1)).await.unwrap(), all[1..]);
        assert_eq!(read.usage(ann, Counted::SentRecipients, at(0)).await.unwrap(), []);
        drop(read);
        let mut system = place.store.system().await.unwrap();
        assert_eq!(system.purge_usage(two).await.unwrap(), 1);
        system.commit().await.unwrap();
        assert_eq!(place.read().await.usage(ann, Counted::Synced, at(0)).await.unwrap(), all[1..]);
    }

    async fn a_level_is_told_once_and_looked_at_when_its_time_comes(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@example.com").await;
        let mut tx = place.tx().await;
        let of_ann = (Some(ann), Quota::SentPerDay);
        assert!(tx.raise_quota_level(of_ann, Level::Warning, at(50)).await.unwrap());
        assert!(!tx.raise_quota_level(of_ann, Level::Warning, at(50)).await.unwrap());
        assert!(tx.raise_quota_level(of_ann, Level::Exceeded, at(50)).await.unwrap());
        assert!(!tx.raise_quota_level(of_ann, Level::Exceeded, at(50)).await.unwrap());
        assert!(!tx.raise_quota_level(of_ann, Level::Warning, at(50)).await.unwrap());
        let of_all = (None, Quota::Accounts);
        assert!(tx.raise_quota_level(of_all, Level::Exceeded, at(60)).await.unwrap());
        tx.commit().await.unwrap();
        let due = async |seconds| {
            let mut system = place.store.system_read().await.unwrap();
            let due = system.quota_checks_due(at(seconds)).await.unwrap();
            due.into_iter().filter(|told| told.workspace == place.id).map(|told| (told.user, told.quota)).collect::<Vec<_>>()
        };
        assert_eq!(due(49).await, []);
        assert_eq!(due(50).await, [of_ann]);
        assert_eq!(due(60).await, [of_ann, of_all]);
        let mut tx = place.tx().await;
        assert_eq!(tx.told_quota_level(of_ann).await.unwrap(), Some(Level::Exceeded));
        tx.lower_quota_level(of_ann, Some(Level::Warning), at(90)).await.unwrap();
        tx.lower_quota_level(of_all, None, at(90)).await.unwrap();
        assert_eq!(tx.told_quota_level(of_ann).await.unwrap(), Some(Level::Warning));
        assert_eq!(tx.told_quota_level(of_all).await.unwrap(), None);
        tx.commit().await.unwrap();
        assert_eq!(due(89).await, []);
        let mut tx = place.tx().await;
        tx.hasten_quota_checks(at(70)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(due(70).await, [of_ann]);
    }

    async fn accounts_take_places_and_wait_for_them(world) {
        let place = Place::new(&world).await;
        let (first, second) = (place.account("ann@example.com").await, place.account("ben@example.com").await);
        let mut tx = place.tx().await;
        let user = tx.account(first).await.unwrap().unwrap().user_id;
        assert_eq!(tx.accounts_placed(None).await.unwrap(), 2);
        assert_eq!(tx.accounts_placed(Some(user)).await.unwrap(), 1);
        for (account, state) in [(first, AccountState::Stopped), (second, AccountState::WaitingForQuota)] {
            let status = tx.account(account).await.unwrap().unwrap().status;
            tx.set_account_status(account, &AccountStatus { state, ..status }).await.unwrap();
        }
        assert_eq!(tx.accounts_placed(None).await.unwrap(), 1);
        let waiting: Vec<_> = tx.accounts_waiting().await.unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(waiting, [second]);
        tx.commit().await.unwrap();
        let mut system = place.store.system_read().await.unwrap();
        assert!(system.workspaces_with_waiting_accounts().await.unwrap().contains(&place.id));
        drop(system);
        let mut tx = place.tx().await;
        assert_eq!(tx.sending_rests(first).await.unwrap(), None);
        tx.rest_sending(first, at(5)).await.unwrap();
        tx.rest_sending(first, at(9)).await.unwrap();
        assert_eq!(tx.sending_rests(first).await.unwrap(), Some(at(9)));
        assert_eq!(tx.sending_rests(second).await.unwrap(), None);
    }

    async fn what_is_put_off_is_found_first_decided_first_until_something_else_is_decided(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        let policy = PolicyStamp { preset: "mailweave", version: 1 };
        let mut ids = Vec::new();
        for (uid, seconds) in [(5, 9), (6, 3), (7, 6)] {
            let decision = NewDecision {
                ruling: deferred(),
                via: "account",
                message: None,
                seen_at: Some(place_in(account, "INBOX", 7, uid)),
                user: None,
                written_at: None,
                hashes: Vec::new(),
            };
            ids.push(tx.decide(&decision, policy, at(seconds)).await.unwrap());
        }
        assert_eq!(tx.decisions_deferred(account, 2).await.unwrap(), [ids[1], ids[2]]);
        assert_eq!(tx.decisions_deferred(mint(), 2).await.unwrap(), []);
        assert_eq!(tx.skipped_at(ids[1]).await.unwrap(), Some(place_in(account, "INBOX", 7, 6)));
        let left = Ruling { verdict: Verdict::Skipped, ..over_sync_limit(OverSync::Skip) };
        assert!(tx.revise_decision(&place_in(account, "INBOX", 7, 6), &left, POLICY, at(20)).await.unwrap());
        assert_eq!(tx.decisions_deferred(account, 9).await.unwrap(), [ids[2], ids[0]]);
    }

    async fn what_waits_to_be_sent_and_what_was_handed_in_is_known(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@example.com").await;
        let conversation = place.conversation(1).await;
        let mut tx = place.tx().await;
        let mut message = a_message(conversation, 2);
        message.author = Author::User(ann);
        tx.insert_message(&message).await.unwrap().unwrap();
        let mut submission = a_submission(message.id, Some(mint()), 3);
        tx.insert_submission(&submission).await.unwrap();
        assert_eq!(tx.unsent_of(ann).await.unwrap(), (1, 2));
        submission.recipients[0].state = SubmissionState::Sent;
        tx.set_recipients(message.id, &submission.recipients).await.unwrap();
        assert_eq!(tx.unsent_of(ann).await.unwrap(), (1, 1));
        assert_eq!(tx.unsent_of(mint()).await.unwrap(), (0, 0));
        assert_eq!(tx.unsent_before(ann, mint()).await.unwrap(), (1, 1));
        assert_eq!(tx.unsent_before(ann, message.id).await.unwrap(), (0, 0));
        let own = message.rfc822_id.clone().unwrap();
        let ids = [own.clone(), message_id("other@x.example")];
        assert_eq!(tx.submitted_ids(&ids).await.unwrap(), [own].into());
        assert!(tx.submitted_ids(&[]).await.unwrap().is_empty());
    }
}
