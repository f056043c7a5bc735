//! What goes with an account that is erased, and what stays.

use super::{super::testing::both, *};
use crate::core::{
    account::{Receipt, era},
    ids::MessageKey,
    message::{ContactRole, Sighting, SightingRow},
};

/// A message in a conversation, with contacts, seen by these accounts.
async fn seen(
    place: &Place,
    conversation: ConversationId,
    contacts: &[&Contact],
    by: &[AccountId],
) -> MessageKey {
    let message = place.message(conversation, 5).await;
    let mut tx = place.tx().await;
    let roles: Vec<_> = contacts.iter().map(|contact| (contact.id, ContactRole::To)).collect();
    tx.put_message_contacts(message.id, at(5), &roles).await.unwrap();
    for (account, uid) in by.iter().zip(1..) {
        let sighting = Sighting::Account(place_in(*account, &message.id.to_string(), 7, uid));
        assert!(tx.add_sighting(message.id, &SightingRow { sighting, at: at(6) }).await.unwrap());
    }
    tx.commit().await.unwrap();
    message.id
}

async fn contact(place: &Place, email: &str, created_by: CreatedBy) -> Contact {
    let contact = Contact { created_by, ..a_contact(email, 1) };
    let mut tx = place.tx().await;
    tx.insert_contact(&contact).await.unwrap();
    tx.commit().await.unwrap();
    contact
}

/// Erases the account's mail as its job does, to the end.
async fn erase_mail(place: &Place, account: AccountId) -> Receipt {
    let mut receipt = Receipt::begun(at(9));
    loop {
        let messages = place.read().await.seen_by(account).await.unwrap();
        if messages.is_empty() {
            return receipt;
        }
        let mut tx = place.tx().await;
        tx.erase_seen(account, &messages, &mut receipt).await.unwrap();
        tx.commit().await.unwrap();
    }
}

both! {
    async fn erasing_an_account_takes_what_it_alone_has_seen(world) {
        let place = Place::new(&world).await;
        let (ann, ben) = (place.account("ann@example.com").await, place.account("ben@example.com").await);
        let known = contact(&place, "known@x.example", CreatedBy::Api).await;
        let made = contact(&place, "made@x.example", CreatedBy::Exchange).await;
        let stays = contact(&place, "stays@x.example", CreatedBy::Sent).await;
        let (alone, both_see, merged) =
            (place.conversation(1).await, place.conversation(2).await, place.conversation(3).await);
        let gone = seen(&place, alone, &[&known, &made, &stays], &[ann]).await;
        let of_merged = seen(&place, merged, &[&known], &[ann]).await;
        let shared = seen(&place, both_see, &[&stays], &[ann, ben]).await;
        let of_both = seen(&place, both_see, &[], &[ann]).await;
        let mut tx = place.tx().await;
        tx.merge_conversations(alone, merged).await.unwrap().unwrap();
        tx.put_thread_keys(&[[1; 16]], alone).await.unwrap();
        tx.put_thread_keys(&[[2; 16]], both_see).await.unwrap();
        tx.commit().await.unwrap();

        let receipt = erase_mail(&place, ann).await;
        let counts = (receipt.messages, receipt.messages_kept, receipt.conversations, receipt.contacts, receipt.bytes);
        assert_eq!(counts, (3, 1, 1, 1, 3 * 1234));
        let mut read = place.read().await;
        for message in [gone, of_merged, of_both] {
            assert_eq!(read.message(message).await.unwrap(), None);
        }
        for conversation in [alone, merged] {
            assert_eq!(read.conversation(conversation).await.unwrap(), None);
        }
        let sightings = read.sightings(&[shared]).await.unwrap();
        let [row] = &sightings[&shared][..] else { panic!("{sightings:?}") };
        assert!(matches!(&row.sighting, Sighting::Account(at) if at.account == ben));
        let left = read.conversation(both_see).await.unwrap().unwrap();
        // It was named after a message that is gone.
        assert_eq!((left.message_count, left.subject.as_deref()), (1, Some("Offer")));
        assert_eq!(read.thread_keys_known(&[[1; 16], [2; 16]]).await.unwrap(), [[2; 16]].into());
        assert!(read.contact(made.id).await.unwrap().is_none());
        assert!(read.contact(known.id).await.unwrap().is_some() && read.contact(stays.id).await.unwrap().is_some());
        drop(read);
        // Whoever is the last to hold a message takes it with him.
        assert_eq!(erase_mail(&place, ben).await.messages, 1);
        assert_eq!(place.read().await.message(shared).await.unwrap(), None);
    }

    async fn what_was_erased_once_already_is_no_longer_the_accounts_to_erase(world) {
        let place = Place::new(&world).await;
        let (ann, ben) = (place.account("ann@example.com").await, place.account("ben@example.com").await);
        let conversation = place.conversation(1).await;
        let shared = seen(&place, conversation, &[], &[ann, ben]).await;
        let alone = seen(&place, conversation, &[], &[ann]).await;
        // Two have read the same list; the second comes after the first is done with it.
        let messages = place.read().await.seen_by(ann).await.unwrap();
        let mut receipt = Receipt::begun(at(9));
        for _ in 0..2 {
            let mut tx = place.tx().await;
            tx.erase_seen(ann, &messages, &mut receipt).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut read = place.read().await;
        assert!(read.message(shared).await.unwrap().is_some());
        assert_eq!(read.message(alone).await.unwrap(), None);
        assert_eq!((receipt.messages, receipt.messages_kept), (1, 1));
    }

    async fn a_contact_that_somebody_has_done_something_with_stays(world) {
        let place = Place::new(&world).await;
        let ann = place.account("ann@example.com").await;
        let user = place.user("boss@example.com").await;
        let mut contacts = Vec::new();
        for number in 0..5 {
            contacts.push(contact(&place, &format!("p{number}@x.example"), CreatedBy::Exchange).await);
        }
        let [untouched, assigned, named, other_address, related] = &contacts[..] else { panic!() };
        let deal = contact(&place, "deal@x.example", CreatedBy::Api).await;
        let all: Vec<_> = contacts.iter().collect();
        let conversation = place.conversation(1).await;
        seen(&place, conversation, &all, &[ann]).await;
        let mut tx = place.tx().await;
        for changed in [
            Contact { assigned_user_id: Some(user), ..assigned.clone() },
            Contact { name: Some("Pat".into()), ..named.clone() },
            Contact { other_emails: vec![address("pat@y.example")], ..other_address.clone() },
            Contact { related_contact_ids: vec![related.id], ..deal.clone() },
        ] {
            tx.update_contact(&changed, at(7)).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(erase_mail(&place, ann).await.contacts, 1);
        let mut read = place.read().await;
        assert!(read.contact(untouched.id).await.unwrap().is_none());
        for contact in [assigned, named, other_address, related] {
            assert!(read.contact(contact.id).await.unwrap().is_some(), "{:?}", contact.email);
        }
    }

    async fn no_key_is_made_anew_for_an_account_that_is_erased(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let key = place.store.content_key(place.id, Some(account)).await.unwrap();
        assert!(place.store.seal_blob(place.id, key, &"x".into()).await.is_ok());
        let mut tx = place.tx().await;
        tx.forget_account(account).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..2 {
            missing(place.store.content_key(place.id, Some(account)).await);
        }
    }

    async fn a_forgotten_account_keeps_its_id_its_user_and_its_receipt(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let receipt = Receipt { messages: 3, ..Receipt::begun(at(9)) };
        let mut tx = place.tx().await;
        let former = tx.account(account).await.unwrap().unwrap();
        tx.put_mailbox(account, &a_mailbox("INBOX", 7)).await.unwrap();
        assert_eq!(tx.receipt(account).await.unwrap(), None);
        tx.set_receipt(account, &receipt).await.unwrap();
        tx.forget_account(account).await.unwrap();
        tx.commit().await.unwrap();
        let mut read = place.read().await;
        let left = read.account(account).await.unwrap().unwrap();
        assert_eq!((left.user_id, left.connected_at), (former.user_id, former.connected_at));
        assert!(left.email.domain().ends_with(".invalid") && left.settings.imap.host.ends_with(".invalid"));
        assert_eq!(read.receipt(account).await.unwrap(), Some(receipt));
        assert!(matches!(read.credentials(account).await, Err(Error::Missing)));
        assert_eq!(read.mailboxes(account).await.unwrap(), []);
        drop(read);
        let mut tx = place.tx().await;
        tx.insert_account(&an_account(former.user_id, "ann@example.com"), &password("x")).await.unwrap();
    }

    async fn an_account_that_moves_begins_anew_under_another_generation(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        tx.put_mailbox(account, &a_mailbox("INBOX", 7)).await.unwrap();
        tx.begin_generation(account).await.unwrap();
        assert_eq!(tx.mailboxes(account).await.unwrap().len(), 1);
        tx.move_account(account, at(10)).await.unwrap();
        assert_eq!(tx.mailboxes(account).await.unwrap(), []);
        let account = tx.account(account).await.unwrap().unwrap();
        assert_eq!((account.connected_at, account.generation), (at(10), 2));
    }

    async fn places_of_two_generations_are_not_taken_for_each_other(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let conversation = place.conversation(1).await;
        let (first, second) = (place.message(conversation, 5).await, place.message(conversation, 6).await);
        let places = [0, 3].map(|generation| {
            let at_inbox = place_in(account, "INBOX", 7, 1);
            MailboxUid { uid_validity: era(generation, 7), ..at_inbox }
        });
        let mut tx = place.tx().await;
        for (message, seen_at) in [&first, &second].into_iter().zip(&places) {
            let row = SightingRow { sighting: Sighting::Account(seen_at.clone()), at: at(6) };
            assert!(tx.add_sighting(message.id, &row).await.unwrap());
        }
        tx.commit().await.unwrap();
        let mut read = place.read().await;
        for (message, seen_at) in [&first, &second].into_iter().zip(&places) {
            assert_eq!(read.sighted_at(seen_at).await.unwrap(), Some(message.id));
            let sightings = read.sightings(&[message.id]).await.unwrap();
            assert_eq!(sightings[&message.id][0].sighting, Sighting::Account(seen_at.clone()));
        }
        let unknown = read.sightings_by_uids(account, b"INBOX", era(1, 7), &[1]).await.unwrap();
        assert!(unknown.is_empty());
    }

    async fn an_account_fails_until_anything_else_becomes_of_it(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        let status = tx.account(account).await.unwrap().unwrap().status;
        let since = [
            (AccountState::Error, 10, Some(10)),
            (AccountState::Throttled, 20, Some(10)),
            (AccountState::Error, 30, Some(10)),
            (AccountState::Backfilling, 40, None),
            (AccountState::Throttled, 50, Some(50)),
            (AccountState::Connecting, 60, None),
        ];
        for (state, now, expect) in since {
            let status = AccountStatus { state, since: at(now), ..status.clone() };
            tx.set_account_status(account, &status).await.unwrap();
            assert_eq!(tx.failing_since(account).await.unwrap(), expect.map(at), "{state:?} at {now}");
        }
    }
}
