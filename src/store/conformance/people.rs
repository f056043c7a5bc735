//! Workspaces, keys, users, contacts and routes.

use std::collections::HashSet;

use super::{
    super::{AddressMatch, ContactFilter, PageKey, WorkspaceChange, testing::both},
    *,
};
use crate::core::{
    ids::{Id as _, UserId},
    people::{ApiKey, Scope},
    route::{Route, RouteTarget},
};

fn a_key(workspace: WorkspaceId, user_id: Option<UserId>) -> ApiKey {
    ApiKey {
        id: mint(),
        workspace,
        name: "crm".to_owned(),
        scopes: vec![Scope::Read, Scope::Smtp],
        user_id,
        created_at: at(4),
        last_used_at: None,
    }
}

fn a_route(place: &Place, text: &str, target: RouteTarget) -> Route {
    Route { id: mint(), workspace: place.id, address: address(text), target, expires_at: None }
}

both! {
    async fn a_workspace_is_found_by_id_and_by_slug(world) {
        let (store, mut acme) = (&world.store, a_workspace("acme"));
        let mut system = store.system().await.unwrap();
        system.create_workspace(&acme).await.unwrap();
        assert_eq!(system.workspace(acme.id).await.unwrap().as_ref(), Some(&acme));
        assert_eq!(system.workspace_by_slug("acme").await.unwrap().as_ref(), Some(&acme));
        assert_eq!(system.workspace_by_slug("Acme").await.unwrap(), None);
        let change = WorkspaceChange { name: Some("Acme & Co".into()), ..WorkspaceChange::default() };
        system.commit().await.unwrap();
        let mut tx = store.begin(acme.id).await.unwrap();
        tx.update_workspace(&change).await.unwrap();
        acme.name = "Acme & Co".into();
        assert_eq!(tx.this_workspace().await.unwrap().as_ref(), Some(&acme));
        tx.commit().await.unwrap();
    }

    async fn a_slug_is_given_once(world) {
        workspace(&world.store, "acme").await;
        let other = workspace(&world.store, "other").await;
        let mut system = world.store.system().await.unwrap();
        assert_eq!(conflict(system.create_workspace(&a_workspace("acme")).await), "workspaces_slug_unique");
        drop(system);
        let mut tx = world.store.begin(other).await.unwrap();
        let change = WorkspaceChange { slug: Some("acme".into()), ..WorkspaceChange::default() };
        assert_eq!(conflict(tx.update_workspace(&change).await), "workspaces_slug_unique");
    }

    async fn pages_follow_each_other_without_gap_or_repetition(world) {
        let place = Place::new(&world).await;
        let mut tx = place.tx().await;
        for number in 0..7 {
            // Several at one time: the id decides between them.
            let contact = a_contact(&format!("c{number}@x.example"), i64::from(number / 3));
            tx.insert_contact(&contact).await.unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = tx.contacts(&Page::new(2, after), &ContactFilter::default()).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(PageKey { at: last.created_at, id: last.id.uuid() });
            seen.extend(page.iter().map(|contact| (contact.created_at, contact.id)));
        }
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.reverse();
        assert_eq!((seen.len(), &seen), (7, &sorted));
    }

    async fn a_key_is_found_by_its_hash_and_touched_once_a_minute(world) {
        let place = Place::new(&world).await;
        let user = place.user("ann@example.com").await;
        let (key, bound) = (a_key(place.id, None), a_key(place.id, Some(user)));
        let mut tx = place.tx().await;
        tx.insert_key(&key, &[1; 32]).await.unwrap();
        tx.insert_key(&bound, &[2; 32]).await.unwrap();
        let listed: HashSet<_> = tx.keys(&all()).await.unwrap().into_iter().map(|key| (key.id, key.user_id)).collect();
        assert_eq!(listed, HashSet::from([(key.id, None), (bound.id, Some(user))]));
        tx.commit().await.unwrap();

        let mut system = world.store.system().await.unwrap();
        assert_eq!(system.key_by_hash(&[1; 32]).await.unwrap().as_ref(), Some(&key));
        assert_eq!(system.key_by_hash(&[3; 32]).await.unwrap(), None);
        assert!(system.touch_key(&key, at(100)).await.unwrap());
        assert!(!system.touch_key(&key, at(159)).await.unwrap());
        assert!(system.touch_key(&key, at(160)).await.unwrap());
        let found = system.key_by_hash(&[1; 32]).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(at(160)));
        system.commit().await.unwrap();

        let mut tx = place.tx().await;
        tx.delete_key(key.id).await.unwrap();
        missing(tx.delete_key(key.id).await);
        assert_eq!(conflict(tx.insert_key(&a_key(place.id, None), &[2; 32]).await), "api_keys_secret_unique");
    }

    async fn a_user_is_found_by_every_address(world) {
        let place = Place::new(&world).await;
        let mut ann = a_user("Ann@Example.com");
        ann.aliases = vec![address("a.lee@example.com"), address("ann.lee@example.com")];
        let mut tx = place.tx().await;
        tx.insert_user(&ann).await.unwrap();
        assert_eq!(tx.user(ann.id).await.unwrap().as_ref(), Some(&ann));
        assert_eq!(tx.user(ann.id).await.unwrap().unwrap().email.to_string(), "Ann@example.com");
        for text in ["ANN@example.com", "a.lee@example.com", "Ann.Lee@example.com"] {
            let found = tx.user_by_address(&address(text)).await.unwrap();
            assert_eq!(found.map(|user| user.id), Some(ann.id), "{text}");
        }
        ann.aliases = vec![address("ann.lee@example.com")];
        ann.role = Role::Admin;
        ann.name = None;
        tx.update_user(&ann).await.unwrap();
        assert_eq!(tx.users(&all(), None).await.unwrap(), [ann.clone()]);
        assert_eq!(tx.user_by_address(&address("A.Lee@example.com")).await.unwrap(), None);
        missing(tx.update_user(&a_user("x@example.com")).await);
    }

    async fn an_address_is_one_users(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@example.com").await;
        let mut bob = a_user("bob@example.com");
        bob.aliases = vec![address("Ann@example.com")];
        let mut tx = place.tx().await;
        assert_eq!(conflict(tx.insert_user(&bob).await), "user_addresses_pkey");
        drop(tx);
        // Undone with its transaction.
        let mut tx = place.tx().await;
        assert_eq!(tx.user(bob.id).await.unwrap(), None);
        bob.aliases.clear();
        tx.insert_user(&bob).await.unwrap();
        bob.aliases = vec![address("ann@example.com")];
        assert_eq!(conflict(tx.update_user(&bob).await), "user_addresses_pkey");
        assert_eq!(place.read().await.users(&all(), None).await.unwrap().len(), 1);
        assert!(place.read().await.user(ann).await.unwrap().is_some());
    }

    async fn a_contact_is_found_by_every_address_and_by_the_crms_id(world) {
        let place = Place::new(&world).await;
        let mut carl = a_contact("Carl@x.example", 5);
        carl.other_emails = vec![address("c@x.example")];
        carl.external_id = Some("42".into());
        let mut dora = a_contact("dora@x.example", 6);
        dora.created_by = CreatedBy::Capture;
        carl.related_contact_ids = vec![dora.id];
        let mut tx = place.tx().await;
        tx.insert_contact(&dora).await.unwrap();
        tx.insert_contact(&carl).await.unwrap();
        assert_eq!(tx.contact(carl.id).await.unwrap().as_ref(), Some(&carl));
        assert_eq!(tx.contact_by_external_id("42").await.unwrap().as_ref(), Some(&carl));
        let filters = [
            (ContactFilter::default(), vec![dora.id, carl.id]),
            (ContactFilter { email: Some(address("C@x.example")), ..ContactFilter::default() }, vec![carl.id]),
            (ContactFilter { created_by: Some(CreatedBy::Capture), ..ContactFilter::default() }, vec![dora.id]),
            (ContactFilter { external_id: Some("42".into()), ..ContactFilter::default() }, vec![carl.id]),
            (ContactFilter { external_id: Some("4".into()), ..ContactFilter::default() }, vec![]),
        ];
        for (filter, expect) in filters {
            let found = tx.contacts(&all(), &filter).await.unwrap();
            assert_eq!(found.iter().map(|contact| contact.id).collect::<Vec<_>>(), expect, "{filter:?}");
        }
        let mut twin = a_contact("e@x.example", 7);
        twin.external_id = Some("42".into());
        assert_eq!(conflict(tx.insert_contact(&twin).await), "contacts_external_id_unique");
    }

    async fn addresses_that_stay_with_a_contact_keep_their_place(world) {
        let place = Place::new(&world).await;
        let mut carl = a_contact("carl@x.example", 5);
        carl.other_emails = vec![address("b@x.example"), address("a@x.example")];
        let mut tx = place.tx().await;
        tx.insert_contact(&carl).await.unwrap();
        // The former primary address stays as another one; a new one comes last, though its letters come first.
        carl.email = address("b@x.example");
        carl.other_emails = vec![address("carl@x.example"), address("0@x.example")];
        carl.assigned_user_id = Some(mint());
        tx.update_contact(&carl, at(50)).await.unwrap();
        assert_eq!(tx.contact(carl.id).await.unwrap().as_ref(), Some(&carl));
        let gone = tx.contacts_among(&[address("a@x.example")], AddressMatch::All).await.unwrap();
        assert!(gone.is_empty());
        tx.delete_contact(carl.id).await.unwrap();
        missing(tx.delete_contact(carl.id).await);
    }

    async fn a_deleted_contact_is_named_by_nobody(world) {
        let place = Place::new(&world).await;
        let (mut carl, dora) = (a_contact("carl@x.example", 5), a_contact("dora@x.example", 6));
        carl.related_contact_ids = vec![dora.id];
        let conversation = Conversation { contact: Some(dora.id), ..a_conversation(1) };
        let mut tx = place.tx().await;
        tx.insert_contact(&dora).await.unwrap();
        tx.insert_contact(&carl).await.unwrap();
        tx.insert_conversation(&conversation).await.unwrap();
        tx.delete_contact(dora.id).await.unwrap();
        assert_eq!(tx.contact(carl.id).await.unwrap().unwrap().related_contact_ids, []);
        assert_eq!(tx.conversation(conversation.id).await.unwrap().unwrap().contact, None);
        missing(tx.insert_contact(&Contact { id: mint(), related_contact_ids: vec![dora.id], ..carl.clone() }).await);
    }

    async fn a_deleted_user_leaves_what_he_wrote(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut tx = place.tx().await;
        let owned = tx.account(account).await.unwrap().unwrap();
        let ann = owned.user_id;
        let carl = Contact { assigned_user_id: Some(ann), ..a_contact("carl@x.example", 5) };
        tx.insert_contact(&carl).await.unwrap();
        tx.insert_key(&a_key(place.id, Some(ann)), &[1; 32]).await.unwrap();
        let route = a_route(&place, "ann-abc@bcc.example", RouteTarget::Capture { user: ann });
        tx.insert_route(&route, at(1)).await.unwrap();
        tx.put_mailbox(account, &a_mailbox("INBOX", 1)).await.unwrap();
        tx.commit().await.unwrap();
        missing(place.tx().await.delete_user(ann).await);

        let mut tx = place.tx().await;
        let gone = AccountStatus { state: AccountState::Disconnected, ..owned.status };
        tx.set_account_status(account, &gone).await.unwrap();
        tx.delete_user(ann).await.unwrap();
        missing(tx.delete_user(ann).await);
        assert_eq!(tx.contact(carl.id).await.unwrap().unwrap().assigned_user_id, None);
        assert_eq!(tx.users(&all(), None).await.unwrap(), []);
        assert_eq!(tx.keys(&all()).await.unwrap(), []);
        assert!(tx.account(account).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_eq!(world.store.system_read().await.unwrap().route(&route.address, at(2)).await.unwrap(), None);
    }

    async fn of_two_who_adopt_a_contact_one_does(world) {
        let place = Place::new(&world).await;
        let (first, second) = (a_contact("jane@x.example", 5), a_contact("jane@x.example", 6));
        let mut tx = place.tx().await;
        tx.insert_contact(&second).await.unwrap();
        tx.insert_contact(&first).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = place.tx().await;
        let jane = tx.contact_to_adopt(&address("Jane@x.example")).await.unwrap().unwrap();
        assert_eq!(jane.id, first.id);
        let other = {
            let (store, workspace) = (place.store.clone(), place.id);
            tokio::spawn(async move {
                let mut tx = store.begin(workspace).await.unwrap();
                tx.contact_to_adopt(&address("jane@x.example")).await.unwrap().map(|found| found.id)
            })
        };
        tx.update_contact(&Contact { external_id: Some("1".into()), ..jane }, at(7)).await.unwrap();
        tx.commit().await.unwrap();
        // PostgreSQL skips a row that no longer fits once the lock is had; SQLite begins after the first has ended.
        let found = other.await.unwrap();
        assert!(found.is_none() || found == Some(second.id), "{found:?}");
    }

    async fn the_first_created_contact_answers_for_a_shared_address(world) {
        let place = Place::new(&world).await;
        let office = address("office@x.example");
        let (mut late, mut early, mut primary) =
            (a_contact("late@x.example", 9), a_contact("early@x.example", 5), a_contact("office@x.example", 7));
        late.other_emails = vec![office.clone()];
        early.other_emails = vec![office.clone()];
        early.assigned_user_id = Some(mint());
        primary.assigned_user_id = Some(mint());
        let mut tx = place.tx().await;
        for contact in [&late, &early, &primary] {
            tx.insert_contact(contact).await.unwrap();
        }
        let asked = [office.clone(), address("nobody@x.example")];
        let found = tx.contacts_among(&asked, AddressMatch::All).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[&office].contact, found[&office].assigned_user), (early.id, early.assigned_user_id));
        let found = tx.contacts_among(&asked, AddressMatch::Primary).await.unwrap();
        assert_eq!((found[&office].contact, found[&office].assigned_user), (primary.id, primary.assigned_user_id));
    }

    async fn mail_finds_its_route_until_it_expires(world) {
        let place = Place::new(&world).await;
        let ann = place.user("ann@example.com").await;
        let target = RouteTarget::Capture { user: ann };
        let first = a_route(&place, "Ann-abc@bcc.example", target.clone());
        let first = Route { expires_at: Some(at(100)), ..first };
        let second = a_route(&place, "ann-def@bcc.example", target);
        let mut tx = place.tx().await;
        tx.insert_route(&first, at(1)).await.unwrap();
        // It takes mail for a while, and is shown to nobody any more.
        assert_eq!(tx.capture_route(ann).await.unwrap(), None);
        tx.insert_route(&second, at(2)).await.unwrap();
        assert_eq!(tx.capture_route(ann).await.unwrap().as_ref(), Some(&second));
        let shown = tx.user(ann).await.unwrap().unwrap().capture_address;
        assert_eq!(shown, Some(second.address.clone()));
        tx.commit().await.unwrap();

        let mut system = world.store.system_read().await.unwrap();
        let found = system.route(&address("ANN-ABC@bcc.example"), at(99)).await.unwrap().unwrap();
        assert_eq!((found.id, found.workspace, found.expires_at), (first.id, place.id, Some(at(100))));
        assert_eq!(system.route(&first.address, at(100)).await.unwrap(), None);
        assert_eq!(system.route(&address("ann-xyz@bcc.example"), at(0)).await.unwrap(), None);
    }

    async fn an_address_of_ours_belongs_to_one_workspace(world) {
        let (one, other) = (Place::new(&world).await, Place::new(&world).await);
        for (place, expect) in [(&one, None), (&other, Some("routes_address_unique"))] {
            let user = place.user("ann@example.com").await;
            let mut tx = place.tx().await;
            let route = a_route(place, "ann-abc@bcc.example", RouteTarget::Capture { user });
            let inserted = tx.insert_route(&route, at(1)).await;
            assert_eq!(inserted.as_ref().err().map(|_| ()), expect.map(|_| ()));
            match expect {
                Some(what) => assert_eq!(conflict(inserted), what),
                None => tx.commit().await.unwrap(),
            }
        }
    }

    async fn deleting_a_workspace_leaves_the_others(world) {
        let (gone, stays) = (Place::new(&world).await, Place::new(&world).await);
        for place in [&gone, &stays] {
            let account = place.account("ann@example.com").await;
            let conversation = place.conversation(1).await;
            let message = place.message(conversation, 2).await;
            let mut tx = place.tx().await;
            tx.insert_webhook(&a_webhook(None)).await.unwrap();
            tx.insert_contact(&a_contact("c@x.example", 1)).await.unwrap();
            tx.put_mailbox(account, &a_mailbox("INBOX", 1)).await.unwrap();
            let event = crate::core::event::Event::ConversationCreated { conversation };
            tx.announce(&event, at(3)).await.unwrap();
            assert_eq!(message.conversation, conversation);
            tx.commit().await.unwrap();
        }
        let slug = gone.read().await.this_workspace().await.unwrap().unwrap().slug;
        let mut tx = gone.tx().await;
        for number in 0..1100 {
            tx.insert_contact(&a_contact("many@x.example", number)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = gone.tx().await;
        missing(tx.end_erasure().await);
        drop(tx);
        let mut tx = gone.tx().await;
        tx.begin_erasure(at(9)).await.unwrap();
        missing(tx.begin_erasure(at(9)).await);
        tx.commit().await.unwrap();
        // For everybody who asks it is gone at once, and its name is free.
        assert_eq!(gone.read().await.this_workspace().await.unwrap(), None);
        assert_eq!(world.store.workspace_named(&slug).await.unwrap(), None);
        assert_eq!(world.store.workspace_named(&gone.id.to_string()).await.unwrap(), None);
        assert_eq!(world.store.system_read().await.unwrap().workspaces(&all()).await.unwrap().len(), 1);
        missing(gone.tx().await.end_erasure().await);
        world.store.erase_rows(gone.id).await.unwrap();
        let mut tx = gone.tx().await;
        tx.end_erasure().await.unwrap();
        tx.commit().await.unwrap();
        missing(gone.tx().await.end_erasure().await);
        assert!(gone.read().await.users(&all(), None).await.unwrap().is_empty());
        assert!(gone.read().await.contacts(&all(), &ContactFilter::default()).await.unwrap().is_empty());
        let mut read = stays.read().await;
        assert_eq!(read.users(&all(), None).await.unwrap().len(), 1);
        assert_eq!(read.last_seq().await.unwrap(), 1);
        assert_eq!(read.webhooks(at(4)).await.unwrap().len(), 1);
    }
}
