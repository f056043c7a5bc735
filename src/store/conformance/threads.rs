//! Messages, their sightings, and the conversations they form.

use std::collections::{HashMap, HashSet};

use super::{
    super::{ConversationFilter, KnownId, PageKey, Renumbering, testing::both},
    *,
};
use crate::core::{
    ids::{Id as _, MessageKey},
    message::{AttachmentSummary, CaptureField, ContactRole, Sighting, SightingRow, SkippedFile},
    route::{Route, RouteTarget},
};

fn key(number: u8) -> [u8; 16] {
    [number; 16]
}

fn seen(sighting: Sighting, second: i64) -> SightingRow {
    SightingRow { sighting, at: at(second) }
}

both! {
    async fn a_message_is_stored_once(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let mut message = a_message(conversation, 2);
        message.author = Author::User(mint());
        message.attachments = vec![AttachmentSummary {
            id: mint(),
            index: 1,
            filename: Some("offer.pdf".into()),
            content_type: "application/pdf".into(),
            size: 5,
            sha256: "00".into(),
            content_id: None,
            skipped: Some(SkippedFile { reason: "too_large".into(), limit: Some(4) }),
        }];
        let mut tx = place.tx().await;
        assert_eq!(tx.insert_message(&message).await.unwrap(), Some(conversation));
        let copy = StoredMessage { id: mint(), ..message.clone() };
        assert_eq!(tx.insert_message(&copy).await.unwrap(), None);
        assert_eq!(tx.message(message.id).await.unwrap().as_ref(), Some(&message));
        assert_eq!(tx.message(copy.id).await.unwrap(), None);
        missing(tx.insert_message(&a_message(mint(), 3)).await);
    }

    async fn a_message_is_known_by_every_id_it_had(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let (first, second) = (place.message(conversation, 2).await, place.message(conversation, 3).await);
        let wire = message_id("rewritten@provider.example");
        let mut tx = place.tx().await;
        tx.add_message_id(first.id, &wire).await.unwrap();
        tx.add_message_id(first.id, &wire).await.unwrap();
        // Ids are reused: one id, two messages.
        tx.add_message_id(second.id, &wire).await.unwrap();
        let own = first.rfc822_id.clone().unwrap();
        assert_eq!(tx.ids_of_message(first.id).await.unwrap().len(), 2);
        let found = tx.messages_by_rfc822_id(&[own.clone(), message_id("no@where.example")]).await.unwrap();
        assert_eq!(found, [KnownId { id: own, message: first.id, conversation, identity: first.identity }]);
        let found = tx.messages_by_rfc822_id(&[wire]).await.unwrap();
        let keys: HashSet<_> = found.iter().map(|known| known.message).collect();
        assert_eq!(keys, HashSet::from([first.id, second.id]));
        missing(tx.add_message_id(mint(), &message_id("x@y.example")).await);
    }

    async fn a_timeline_shows_a_contacts_messages_newest_first(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let (carl, dora) = (a_contact("carl@x.example", 1), a_contact("dora@x.example", 1));
        let mut tx = place.tx().await;
        tx.insert_contact(&carl).await.unwrap();
        tx.insert_contact(&dora).await.unwrap();
        tx.commit().await.unwrap();
        let mut keys = Vec::new();
        for second in [30, 10, 20] {
            let message = place.message(conversation, second).await;
            let mut tx = place.tx().await;
            let parts = [(carl.id, ContactRole::To), (dora.id, ContactRole::Cc)];
            let count = if second == 10 { 2 } else { 1 };
            tx.put_message_contacts(message.id, message.sent_at, &parts[..count]).await.unwrap();
            tx.put_message_contacts(message.id, message.sent_at, &[(carl.id, ContactRole::Bcc)]).await.unwrap();
            tx.commit().await.unwrap();
            keys.push(message.id);
        }
        let mut read = place.read().await;
        let shown = read.timeline(carl.id, &Page::new(2, None)).await.unwrap();
        assert_eq!(shown.iter().map(|message| message.id).collect::<Vec<_>>(), [keys[0], keys[2]]);
        let after = PageKey { at: shown[1].sent_at, id: shown[1].id.uuid() };
        let shown = read.timeline(carl.id, &Page::new(2, Some(after))).await.unwrap();
        assert_eq!(shown.iter().map(|message| message.id).collect::<Vec<_>>(), [keys[1]]);
        let contacts = read.message_contacts(&keys).await.unwrap();
        assert_eq!(contacts.len(), 3);
        assert_eq!(contacts[&keys[0]], [(carl.id, ContactRole::To)]);
        assert_eq!(contacts[&keys[1]].len(), 2);
        drop(read);
        missing(place.tx().await.put_message_contacts(keys[0], at(1), &[(mint(), ContactRole::To)]).await);
    }

    async fn every_way_a_message_is_seen_is_noted_once(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let (message, other) = (place.message(conversation, 2).await.id, place.message(conversation, 3).await.id);
        let account = mint();
        let inbound: MessageKey = mint();
        let to = |text: &str| address(text);
        let capture = |text: &str| Sighting::Capture { inbound, recipient: to(text), field: CaptureField::Bcc };
        let uid = Sighting::Account(place_in(account, "INBOX", 1, 5));
        let all_ways = [
            capture("a@bcc.example"),
            capture("b@bcc.example"),
            Sighting::Submission { inbound },
            Sighting::Api,
            uid.clone(),
            Sighting::Reply { inbound, recipient: to("r@reply.example") },
        ];
        let mut tx = place.tx().await;
        let mut rows = Vec::new();
        for (second, sighting) in (0..).zip(all_ways) {
            let row = seen(sighting, second);
            assert!(tx.add_sighting(message, &row).await.unwrap(), "{row:?}");
            assert!(!tx.add_sighting(message, &row).await.unwrap(), "{row:?}");
            rows.push(row);
        }
        // A place in a mailbox holds one message.
        assert!(!tx.add_sighting(other, &seen(uid, 9)).await.unwrap());
        assert!(tx.add_sighting(other, &seen(Sighting::Api, 9)).await.unwrap());
        let found = tx.sightings(&[message, other]).await.unwrap();
        assert_eq!(found[&message], rows);
        assert_eq!(found[&other].len(), 1);
        missing(tx.add_sighting(mint(), &seen(Sighting::Api, 1)).await);
    }

    async fn the_uids_of_a_mailbox_that_were_seen_are_known(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let account: AccountId = mint();
        let uids: Vec<u32> = (1..=1500).collect();
        let mut tx = place.tx().await;
        for uid in [1, 700, 1500] {
            let message = a_message(conversation, i64::from(uid));
            tx.insert_message(&message).await.unwrap();
            tx.add_sighting(message.id, &seen(Sighting::Account(place_in(account, "INBOX", 1, uid)), 1))
                .await
                .unwrap();
        }
        let found = tx.sightings_by_uids(account, b"INBOX", 1, &uids).await.unwrap();
        assert_eq!(found, HashSet::from([1, 700, 1500]));
        assert!(tx.sightings_by_uids(account, b"INBOX", 2, &uids).await.unwrap().is_empty());
        assert!(tx.sightings_by_uids(account, b"Sent", 1, &uids).await.unwrap().is_empty());
        assert!(tx.sightings_by_uids(account, b"INBOX", 1, &[]).await.unwrap().is_empty());
    }

    async fn a_new_uid_validity_makes_nothing_new(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let account: AccountId = mint();
        let mut tx = place.tx().await;
        let mut keys = HashMap::new();
        for uid in 1..=4 {
            let message = a_message(conversation, i64::from(uid));
            tx.insert_message(&message).await.unwrap();
            let row = seen(Sighting::Account(place_in(account, "INBOX", 1, uid)), 1);
            tx.add_sighting(message.id, &row).await.unwrap();
            keys.insert(uid, message.id);
        }
        // The fourth was sighted under its new number before the healing came to it.
        let early = seen(Sighting::Account(place_in(account, "INBOX", 2, 40)), 2);
        tx.add_sighting(keys[&4], &early).await.unwrap();
        let uids = [(1, 2), (2, 1), (3, 30), (4, 40)];
        tx.rebind_uid_validity(&Renumbering { account, mailbox: b"INBOX", from: 1, to: 2, uids: &uids })
            .await
            .unwrap();
        for (was, present) in uids {
            let found = tx.sighted_at(&place_in(account, "INBOX", 2, present)).await.unwrap();
            assert_eq!(found, Some(keys[&was]), "UID {was}");
            // Its origin was carried over with it: the same sighting again is known.
            let again = seen(Sighting::Account(place_in(account, "INBOX", 2, present)), 3);
            assert!(!tx.add_sighting(keys[&was], &again).await.unwrap());
        }
        assert_eq!(tx.sighted_at(&place_in(account, "INBOX", 1, 1)).await.unwrap(), None);
        assert_eq!(tx.sightings(&[keys[&1]]).await.unwrap()[&keys[&1]].len(), 1);
    }

    async fn conversations_are_listed_by_their_latest_message(world) {
        let place = Place::new(&world).await;
        let (one, two) = (place.conversation(1).await, place.conversation(2).await);
        let third = Conversation { subject: Some("Änderung".into()), ..a_conversation(3) };
        let carl = a_contact("carl@x.example", 1);
        let account = place.account("ann@example.com").await;
        let message = place.message(one, 50).await;
        let mut tx = place.tx().await;
        let owner = tx.account(account).await.unwrap().unwrap().user_id;
        tx.insert_conversation(&third).await.unwrap();
        tx.insert_contact(&carl).await.unwrap();
        tx.put_message_contacts(message.id, message.sent_at, &[(carl.id, ContactRole::From)]).await.unwrap();
        let row = seen(Sighting::Account(place_in(account, "INBOX", 1, 1)), 1);
        tx.add_sighting(message.id, &row).await.unwrap();
        let author = mint();
        let wrote = StoredMessage { author: Author::User(author), ..a_message(two, 4) };
        tx.insert_message(&wrote).await.unwrap();
        tx.touch_conversation(two, wrote.sent_at).await.unwrap();
        let subject = |part: &str| ConversationFilter { subject: Some(part.into()), ..Default::default() };
        for (filter, expect) in [
            (ConversationFilter::default(), vec![one, two, third.id]),
            (ConversationFilter { contact: Some(carl.id), ..Default::default() }, vec![one]),
            (ConversationFilter { user: Some(owner), ..Default::default() }, vec![one]),
            (ConversationFilter { user: Some(author), ..Default::default() }, vec![two]),
            (ConversationFilter { user: Some(mint()), ..Default::default() }, vec![]),
            (subject("OFFER"), vec![one, two]),
            (subject("100%"), vec![one, two]),
            (subject("1%o"), vec![]),
            (subject("_ff"), vec![]),
            (subject("Änd"), vec![third.id]),
        ] {
            let found = tx.conversations(&all(), &filter).await.unwrap();
            assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), expect, "{filter:?}");
        }
        let found = tx.conversation(one).await.unwrap().unwrap();
        assert_eq!((found.message_count, found.last_message_at), (1, at(50)));
        missing(tx.touch_conversation(mint(), at(1)).await);
    }

    async fn merged_conversations_answer_for_each_other_however_often_they_merge(world) {
        let place = Place::new(&world).await;
        let ids = [place.conversation(1).await, place.conversation(2).await, place.conversation(3).await];
        let mut messages = Vec::new();
        for (second, id) in (10..).zip(ids) {
            messages.push(place.message(id, second).await.id);
        }
        let mut tx = place.tx().await;
        for (number, id) in (1..).zip(ids) {
            tx.put_thread_keys(&[key(number)], id).await.unwrap();
        }
        let merged = tx.merge_conversations(ids[1], ids[2]).await.unwrap().unwrap();
        assert_eq!((merged.keep, merged.absorbed, merged.moved), (ids[1], ids[2], vec![messages[2]]));
        // Merging what redirects merges what it redirects to, and no redirect leads to another.
        let merged = tx.merge_conversations(ids[0], ids[2]).await.unwrap().unwrap();
        assert_eq!((merged.keep, merged.absorbed), (ids[0], ids[1]));
        assert_eq!(tx.merge_conversations(ids[2], ids[1]).await.unwrap(), None);
        missing(tx.merge_conversations(ids[0], mint()).await);
        tx.commit().await.unwrap();

        let mut read = place.read().await;
        for id in ids {
            assert_eq!(read.root(id).await.unwrap(), ids[0]);
            let shown = read.conversation_messages(id, &all()).await.unwrap();
            let mut expect = messages.clone();
            expect.reverse();
            assert_eq!(shown.iter().map(|message| message.id).collect::<Vec<_>>(), expect);
        }
        for id in &ids[1..] {
            let found = read.conversation(*id).await.unwrap().unwrap();
            assert_eq!((found.merged_into, found.message_count), (Some(ids[0]), 0));
        }
        let root = read.conversation(ids[0]).await.unwrap().unwrap();
        assert_eq!((root.message_count, root.last_message_at), (3, at(12)));
        let listed = read.conversations(&all(), &ConversationFilter::default()).await.unwrap();
        assert_eq!(listed.iter().map(|found| found.id).collect::<Vec<_>>(), [ids[0]]);
        let found = read.threads_found(&[key(1), key(2), key(3), key(9)]).await.unwrap();
        assert_eq!(found.iter().map(|found| (found.id, found.created_at)).collect::<Vec<_>>(), [(ids[0], at(1))]);
        assert!(read.threads_found(&[]).await.unwrap().is_empty());
    }

    async fn mail_for_a_merged_conversation_lands_where_it_went(world) {
        let place = Place::new(&world).await;
        let (keep, absorbed) = (place.conversation(1).await, place.conversation(2).await);
        let mut tx = place.tx().await;
        tx.merge_conversations(keep, absorbed).await.unwrap().unwrap();
        let message = a_message(absorbed, 5);
        assert_eq!(tx.hold_conversation(absorbed).await.unwrap(), keep);
        assert_eq!(tx.insert_message(&message).await.unwrap(), Some(keep));
        missing(tx.hold_conversation(mint()).await);
        drop(tx);
        let mut tx = place.tx().await;
        tx.merge_conversations(keep, absorbed).await.unwrap().unwrap();
        missing(tx.touch_conversation(absorbed, at(5)).await);
    }

    async fn a_key_that_another_has_tells_who_belongs_together(world) {
        let place = Place::new(&world).await;
        let (elder, younger) = (place.conversation(1).await, place.conversation(2).await);
        let mut tx = place.tx().await;
        tx.put_thread_keys(&[key(1), key(2)], elder).await.unwrap();
        tx.put_thread_keys(&[key(3), key(2), key(2)], younger).await.unwrap();
        let others = tx.threads_found(&[key(2)]).await.unwrap();
        assert_eq!(others.iter().map(|other| other.id).collect::<Vec<_>>(), [elder], "the first to have it");
        let found = tx.threads_found(&[key(3), key(1)]).await.unwrap();
        assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [elder, younger]);
        // Only keys that the one has go to the other.
        tx.carry_thread_keys(&[key(2), key(3), key(4)], elder, younger).await.unwrap();
        let roots = tx.roots_of_keys(&[key(1), key(2), key(3), key(4)]).await.unwrap();
        assert_eq!(roots, HashMap::from([(key(1), elder), (key(2), younger), (key(3), younger)]));
    }

    async fn a_merge_moves_the_reply_addresses_and_can_be_undone(world) {
        let place = Place::new(&world).await;
        let (keep, absorbed) = (place.conversation(1).await, place.conversation(2).await);
        let (stays, moves) = (place.message(keep, 10).await, place.message(absorbed, 20).await);
        let (carl, ann) = (address("Carl@x.example"), place.user("ann@us.example").await);
        let route = Route {
            id: mint(),
            workspace: place.id,
            address: address("r-abc@reply.example"),
            target: RouteTarget::Reply { conversation: absorbed, participant: carl.clone(), user: ann, counterpart: None },
            expires_at: None,
        };
        let mut tx = place.tx().await;
        tx.put_thread_keys(&[key(2)], absorbed).await.unwrap();
        tx.insert_route(&route, at(1)).await.unwrap();
        assert_eq!(tx.reply_route(absorbed, (&carl, None), ann).await.unwrap().as_ref(), Some(&route));
        assert_eq!(tx.reply_route(keep, (&carl, None), ann).await.unwrap(), None);
        // Another user's, or the user's own towards somebody, would be others.
        assert_eq!(tx.reply_route(absorbed, (&carl, None), mint()).await.unwrap(), None);
        assert_eq!(tx.reply_route(absorbed, (&carl, Some(&carl)), ann).await.unwrap(), None);
        let merged = tx.merge_conversations(keep, absorbed).await.unwrap().unwrap();
        for id in [keep, absorbed] {
            let found = tx.reply_route(id, (&address("carl@X.example"), None), ann).await.unwrap().unwrap();
            assert_eq!(found.id, route.id);
        }
        missing(tx.refile_messages(&[stays.id], absorbed).await);
        tx.unmerge_conversation(&merged).await.unwrap();
        assert_eq!(tx.reply_route(absorbed, (&carl, None), ann).await.unwrap().as_ref(), Some(&route));
        assert_eq!(tx.reply_route(keep, (&carl, None), ann).await.unwrap(), None);
        missing(tx.unmerge_conversation(&merged).await);
        drop(tx);

        let mut tx = place.tx().await;
        tx.put_thread_keys(&[key(2)], absorbed).await.unwrap();
        let merged = tx.merge_conversations(keep, absorbed).await.unwrap().unwrap();
        tx.unmerge_conversation(&merged).await.unwrap();
        for (id, message) in [(keep, &stays), (absorbed, &moves)] {
            let found = tx.conversation(id).await.unwrap().unwrap();
            assert_eq!((found.merged_into, found.message_count, found.last_message_at), (None, 1, message.sent_at));
            assert_eq!(tx.message(message.id).await.unwrap().unwrap().conversation, id);
        }
        assert_eq!(tx.threads_found(&[key(2)]).await.unwrap()[0].id, absorbed);
    }

    async fn parted_conversations_are_known_by_all_that_lead_to_them(world) {
        let place = Place::new(&world).await;
        let ids = [place.conversation(1).await, place.conversation(2).await, place.conversation(3).await];
        let mut tx = place.tx().await;
        tx.part_conversations(ids[0], ids[2]).await.unwrap();
        tx.part_conversations(ids[2], ids[0]).await.unwrap();
        assert_eq!(tx.parted_from(ids[2]).await.unwrap(), [ids[0]]);
        assert_eq!(tx.partings_among(&ids).await.unwrap(), [(ids[0], ids[2]), (ids[2], ids[0])]);
        tx.merge_conversations(ids[1], ids[2]).await.unwrap().unwrap();
        assert_eq!(tx.parted_from(ids[0]).await.unwrap(), [ids[1]]);
        assert_eq!(tx.parted_from(ids[1]).await.unwrap(), [ids[0]]);
        // Whoever joins them by hand ends the parting.
        tx.merge_conversations(ids[0], ids[1]).await.unwrap().unwrap();
        assert_eq!(tx.parted_from(ids[0]).await.unwrap(), []);
    }

    async fn undoing_a_merge_gives_back_what_led_to_the_absorbed(world) {
        let place = Place::new(&world).await;
        let ids = [place.conversation(1).await, place.conversation(2).await, place.conversation(3).await];
        let mut tx = place.tx().await;
        tx.merge_conversations(ids[1], ids[2]).await.unwrap().unwrap();
        let merged = tx.merge_conversations(ids[0], ids[1]).await.unwrap().unwrap();
        assert_eq!(merged.redirects, [ids[2]]);
        tx.unmerge_conversation(&merged).await.unwrap();
        for (id, root) in [(ids[0], ids[0]), (ids[1], ids[1]), (ids[2], ids[1])] {
            assert_eq!(tx.root(id).await.unwrap(), root);
        }
    }

    async fn messages_filed_while_conversations_merge_are_not_left_behind(world) {
        let place = Place::new(&world).await;
        let ids = [place.conversation(1).await, place.conversation(2).await, place.conversation(3).await];
        let filers: Vec<_> = (0..12_usize)
            .map(|number| {
                let (store, workspace, id) = (place.store.clone(), place.id, ids[number % 3]);
                tokio::spawn(async move {
                    let place = Place { store, id: workspace };
                    for second in 0..4 {
                        place.message(id, second).await;
                    }
                })
            })
            .collect();
        let mergers: Vec<_> = [(ids[1], ids[2]), (ids[0], ids[1]), (ids[0], ids[2])]
            .into_iter()
            .map(|(keep, absorb)| {
                let (store, workspace) = (place.store.clone(), place.id);
                tokio::spawn(async move {
                    let mut tx = store.begin(workspace).await.unwrap();
                    tx.merge_conversations(keep, absorb).await.unwrap();
                    tx.commit().await.unwrap();
                })
            })
            .collect();
        for task in filers.into_iter().chain(mergers) {
            task.await.unwrap();
        }
        let mut read = place.read().await;
        let roots = [read.root(ids[0]).await.unwrap(), read.root(ids[1]).await.unwrap(), read.root(ids[2]).await.unwrap()];
        assert_eq!(roots, [roots[0]; 3]);
        assert_eq!(read.conversation_messages(roots[0], &all()).await.unwrap().len(), 48);
        assert_eq!(read.conversation(roots[0]).await.unwrap().unwrap().message_count, 48);
    }
}
