//! What was chosen of policy, and what the store knows that policies ask for.

use std::collections::{HashMap, HashSet};

use super::{
    super::{PolicyStamp, WorkspaceChange, testing::both},
    *,
};
use crate::core::{
    decision::{DecisionHash, HashRole, NewDecision, Ruling, Verdict},
    policy::{AWAITS_ANSWER, Choice, Choices, Overrides},
};

fn overrides(value: &serde_json::Value) -> Overrides {
    Overrides::new(value.as_object().unwrap().clone()).unwrap()
}

both! {
    async fn policy_is_chosen_for_the_workspace_and_for_a_user_and_every_change_has_a_version(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@acme.example").await;
        let before = place.read().await.policy_choices(Some(ann)).await.unwrap();
        assert_eq!((before.version, &before.user), (1, &Choice::default()));
        let weeks = overrides(&json!({ "backfill_days": 7, "attachment_bytes_max": null }));
        let of_workspace = Choice { preset: Some("keap".into()), overrides: weeks };
        let of_ann =
            Choice { preset: Some("realpad".into()), overrides: overrides(&json!({ "push": true })) };
        let mut tx = place.tx().await;
        tx.set_policy("keap", &of_workspace.overrides).await.unwrap();
        tx.set_user_policy(ann, &of_ann).await.unwrap();
        tx.commit().await.unwrap();
        let all = |user| Choices { version: 3, workspace: of_workspace.clone(), user };
        let mut read = place.read().await;
        assert_eq!(read.policy_choices(Some(ann)).await.unwrap(), all(of_ann));
        assert_eq!(read.policy_choices(None).await.unwrap(), all(Choice::default()));
        assert_eq!(read.policy_choices(Some(mint())).await.unwrap(), all(Choice::default()));
        drop(read);
        missing(place.tx().await.set_user_policy(mint(), &Choice::default()).await);
        let mut tx = place.tx().await;
        tx.set_user_policy(ann, &Choice::default()).await.unwrap();
        let now = tx.policy_choices(Some(ann)).await.unwrap();
        assert_eq!((now.version, now.user), (4, Choice::default()));
    }

    async fn a_workspaces_preset_changes_alone_and_counts_only_when_it_changes(world) {
        let place = Place::new(&world).await;
        let mut tx = place.tx().await;
        let weeks = overrides(&json!({ "backfill_days": 7 }));
        tx.set_policy("keap", &weeks).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = place.tx().await;
        for (preset, version) in [("keap", 2), ("realpad", 3)] {
            let change = WorkspaceChange { preset: Some(preset.into()), ..WorkspaceChange::default() };
            tx.update_workspace(&change).await.unwrap();
            let now = tx.this_workspace().await.unwrap().unwrap();
            assert_eq!((now.preset.as_str(), now.policy_version), (preset, version));
        }
        tx.commit().await.unwrap();
        let now = place.read().await.policy_choices(None).await.unwrap();
        assert_eq!(now.workspace.overrides, weeks);
    }

    async fn real_18_another_accounts_address_is_known_also_when_it_is_gone_with_its_user(world) {
        let place = Place::new(&world).await;
        let own = place.account("ann@acme.example").await;
        let other = place.account("old@acme.example").await;
        let third = place.account("fay@acme.example").await;
        let mut tx = place.tx().await;
        let asked = ["ann@acme.example", "Old@acme.example", "cora@x.example"].map(address);
        let found = tx.other_accounts_at(own, &asked).await.unwrap();
        assert!(found.is_empty(), "nobody has logged in with it yet");
        tx.note_account_address(own, &asked[0]).await.unwrap();
        tx.note_account_address(other, &asked[1]).await.unwrap();
        let status = tx.account(other).await.unwrap().unwrap().status;
        let gone = AccountStatus { state: AccountState::Disconnected, ..status };
        tx.set_account_status(other, &gone).await.unwrap();
        let found = tx.other_accounts_at(own, &asked).await.unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [address("old@acme.example")]);
        let user = tx.account(other).await.unwrap().unwrap().user_id;
        tx.delete_user(user).await.unwrap();
        assert!(tx.account(other).await.unwrap().is_none());
        let found = tx.other_accounts_at(own, &asked).await.unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [address("old@acme.example")]);
        // Of an account that has moved, its former address is still its own.
        let mut moved = tx.account(own).await.unwrap().unwrap();
        moved.email = address("anna@acme.example");
        tx.update_account_settings(own, &moved.email, &moved.settings).await.unwrap();
        tx.note_account_address(own, &moved.email).await.unwrap();
        let both = [moved.email, address("ann@acme.example")];
        assert_eq!(tx.other_accounts_at(own, &both).await.unwrap(), HashSet::new());
        assert_eq!(tx.other_accounts_at(third, &both).await.unwrap(), HashSet::from(both));
    }

    async fn a_contact_is_listed_with_what_policy_asks_of_him(world) {
        let place = Place::new(&world).await;
        let ben = place.user("ben@acme.example").await;
        let mut cora = a_contact("cora@x.example", 1);
        cora.other_emails = vec![address("cora@home.example")];
        let mut also_user = a_contact("ben@home.example", 2);
        also_user.other_emails = vec![address("ben@acme.example")];
        let mut tx = place.tx().await;
        for contact in [&cora, &also_user] {
            tx.insert_contact(contact).await.unwrap();
        }
        let asked =
            ["cora@x.example", "cora@home.example", "ben@home.example", "ben@acme.example"].map(address);
        let (users, listed) = tx.people_among(&asked).await.unwrap();
        assert_eq!(users, HashMap::from([(address("ben@acme.example"), ben)]));
        let mut seen: Vec<_> =
            listed.iter().map(|one| (one.address.key(), one.contact, one.is_primary, one.is_user)).collect();
        seen.sort();
        let expect = [
            ("ben@acme.example", also_user.id, false, true),
            ("ben@home.example", also_user.id, true, true),
            ("cora@home.example", cora.id, false, false),
            ("cora@x.example", cora.id, true, false),
        ];
        assert_eq!(seen, expect);
        assert!(listed.iter().all(|one| one.since.is_none()), "each has had his addresses since he is one");
        let later = at(9_000_000);
        cora.other_emails.push(address("cora@club.example"));
        tx.update_contact(&cora, later).await.unwrap();
        let asked = ["cora@x.example", "cora@home.example", "cora@club.example"].map(address);
        let (_, listed) = tx.people_among(&asked).await.unwrap();
        let mut since: Vec<_> = listed.iter().map(|one| (one.address.key(), one.since)).collect();
        since.sort();
        let expect =
            [("cora@club.example", Some(later)), ("cora@home.example", None), ("cora@x.example", None)];
        assert_eq!(since, expect);
    }

    async fn who_was_written_to_and_who_answered_is_found_by_hashes(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@acme.example").await;
        let mut tx = place.tx().await;
        let hasher = tx.text_hasher().await.unwrap();
        let hash = |role, text: &str| DecisionHash { role, hash: hasher.hash(text) };
        for (uid, rule, id, reference, (role, person)) in [
            (1, AWAITS_ANSWER, "sent", "earlier", (HashRole::Address, "eva")),
            (2, "no_contact", "answer", "sent", (HashRole::Author, "eva")),
            // Who is only on it, or whose machine wrote it, has answered nothing.
            (3, "no_contact", "vacation", "sent", (HashRole::Address, "fay")),
        ] {
            let ruling = Ruling { verdict: Verdict::Skipped, rule, reason: "." };
            let hashes = vec![
                hash(HashRole::Id, id),
                hash(HashRole::Reference, reference),
                hash(role, person),
            ];
            let seen_at = Some(place_in(account, "INBOX", 1, uid));
            let decision = NewDecision {
                ruling,
                via: "account",
                message: None,
                seen_at,
                user: None,
                written_at: None,
                hashes,
            };
            tx.decide(&decision, PolicyStamp { preset: "mailweave", version: 1 }, at(1)).await.unwrap();
        }
        let ids = ["sent", "answer", "earlier"].map(|id| hasher.hash(id));
        let pair = Vec::from([(hasher.hash("sent"), hasher.hash("eva"))]);
        for role in [HashRole::Id, HashRole::Reference] {
            let found = tx.skipped_pairs(account, (role, AWAITS_ANSWER), &ids).await.unwrap();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), pair, "{role:?}");
            assert!(tx.skipped_pairs(mint(), (role, AWAITS_ANSWER), &ids).await.unwrap().is_empty());
        }
    }
}
