//! Nothing crosses workspaces: with all the ids of one, a session of another finds and changes nothing.

use super::{
    super::{
        AccountFilter, AddressMatch, ContactFilter, ConversationFilter, DecisionFilter, Merged, PolicyStamp,
        Renumbering, SubmissionStep, testing::both,
    },
    outbound::a_submission,
    *,
};
use crate::core::{
    account::AccountError,
    decision::{DecisionHash, HashRole, NewDecision, Ruling, Verdict},
    event::Event,
    ids::{ContactId, EventId, MessageKey, WebhookId},
    message::{ContactRole, Sighting, SightingRow},
    people::ApiKey,
    route::{Route, RouteTarget},
    submission::{SentCopy, Smarthost, SubmissionState},
};

const THREAD_KEY: [u8; 16] = [1; 16];
const DECISION_HASH: [u8; 16] = [2; 16];

/// Ids and names of everything in a workspace that holds one of each.
struct Full {
    user: UserId,
    contact: ContactId,
    account: AccountId,
    conversation: ConversationId,
    message: StoredMessage,
    webhook: WebhookId,
    event: EventId,
    key: ApiKey,
    sighting: MailboxUid,
}

fn a_route(place: &Place, text: &str, target: RouteTarget) -> Route {
    Route { id: mint(), workspace: place.id, address: address(text), target, expires_at: None }
}

async fn fill(place: &Place) -> Full {
    let account = place.account("ann@example.com").await;
    let conversation = place.conversation(1).await;
    let message = place.message(conversation, 2).await;
    let mut tx = place.tx().await;
    let user = tx.account(account).await.unwrap().unwrap().user_id;
    let mut contact = a_contact("carl@x.example", 1);
    contact.external_id = Some("42".into());
    tx.insert_contact(&contact).await.unwrap();
    tx.put_message_contacts(message.id, message.sent_at, &[(contact.id, ContactRole::To)]).await.unwrap();
    let sighting = place_in(account, "INBOX", 1, 5);
    let row = SightingRow { sighting: Sighting::Account(sighting.clone()), at: at(1) };
    tx.add_sighting(message.id, &row).await.unwrap();
    tx.put_mailbox(account, &a_mailbox("INBOX", 1)).await.unwrap();
    let error = AccountError {
        at: at(1),
        code: "dns".into(),
        message: String::new(),
        advice: String::new(),
        count: 1,
    };
    tx.log_account_error(account, &error).await.unwrap();
    tx.put_thread_keys(&[THREAD_KEY], conversation).await.unwrap();
    let webhook = a_webhook(None);
    tx.insert_webhook(&webhook).await.unwrap();
    let event = tx.announce(&Event::ConversationCreated { conversation }, at(2)).await.unwrap().id;
    let participant = contact.email.clone();
    let target = RouteTarget::Reply { conversation, participant, user, counterpart: None };
    let route = a_route(place, "r-1@reply.example", target);
    tx.insert_route(&route, at(1)).await.unwrap();
    let capture = a_route(place, "ann-1@bcc.example", RouteTarget::Capture { user });
    tx.insert_route(&capture, at(1)).await.unwrap();
    let ruling = Ruling { verdict: Verdict::Skipped, rule: "r", reason: "r" };
    let hashes = vec![DecisionHash { role: HashRole::Id, hash: DECISION_HASH }];
    let decision = NewDecision {
        ruling,
        via: "account",
        message: Some(message.id),
        seen_at: Some(sighting.clone()),
        user: Some(user),
        written_at: Some(at(1)),
        hashes,
    };
    tx.decide(&decision, PolicyStamp { preset: "p", version: 1 }, at(1)).await.unwrap();
    tx.insert_submission(&a_submission(message.id, Some(account), 3)).await.unwrap();
    let endpoint = Endpoint { host: "smtp.example".into(), port: 587, security: Security::Starttls };
    let smarthost = Smarthost { endpoint, from_domains: Vec::new() };
    tx.put_smarthost(&smarthost, &password("x"), at(1)).await.unwrap();
    let key = ApiKey {
        id: mint(),
        workspace: place.id,
        name: "crm".into(),
        scopes: Vec::new(),
        user_id: None,
        created_at: at(1),
        last_used_at: None,
    };
    tx.insert_key(&key, &[9; 32]).await.unwrap();
    tx.commit().await.unwrap();
    let (contact, webhook) = (contact.id, webhook.id);
    Full { user, contact, account, conversation, message, webhook, event, key, sighting }
}

/// Whether each question about these things finds something.
async fn people(read: &mut Session, full: &Full) -> Vec<bool> {
    let (ann, carl) = (address("ann@example.com"), address("carl@x.example"));
    vec![
        read.keys(&all()).await.unwrap().iter().any(|key| key.id == full.key.id),
        read.user(full.user).await.unwrap().is_some(),
        read.user_by_address(&ann).await.unwrap().is_some(),
        !read.users(&all(), None).await.unwrap().is_empty(),
        read.contact(full.contact).await.unwrap().is_some(),
        !read.contacts(&all(), &ContactFilter::default()).await.unwrap().is_empty(),
        read.contact_by_external_id("42").await.unwrap().is_some(),
        !read.contacts_among(std::slice::from_ref(&carl), AddressMatch::All).await.unwrap().is_empty(),
        !read.contacts_among(std::slice::from_ref(&carl), AddressMatch::Primary).await.unwrap().is_empty(),
        read.capture_route(full.user).await.unwrap().is_some(),
        read.reply_route(full.conversation, (&carl, None), full.user).await.unwrap().is_some(),
        read.account(full.account).await.unwrap().is_some(),
        !read.accounts(&all(), &AccountFilter::default()).await.unwrap().is_empty(),
        read.credentials(full.account).await.unwrap().is_some(),
        !read.account_errors(full.account).await.unwrap().is_empty(),
        !read.mailboxes(full.account).await.unwrap().is_empty(),
    ]
}

async fn mail(read: &mut Session, full: &Full) -> Vec<bool> {
    let message = full.message.id;
    let id = full.message.rfc822_id.clone().unwrap();
    let at_uid = &full.sighting;
    vec![
        read.message(message).await.unwrap().is_some(),
        !read.messages_by_rfc822_id(std::slice::from_ref(&id)).await.unwrap().is_empty(),
        !read.ids_of_message(message).await.unwrap().is_empty(),
        read.conversation_messages(full.conversation, &all()).await.is_ok_and(|found| !found.is_empty()),
        !read.timeline(full.contact, &all()).await.unwrap().is_empty(),
        !read.message_contacts(&[message]).await.unwrap().is_empty(),
        !read.sightings(&[message]).await.unwrap().is_empty(),
        read.sighted_at(at_uid).await.unwrap().is_some(),
        !read.sightings_by_uids(at_uid.account, b"INBOX", 1, &[5]).await.unwrap().is_empty(),
        read.conversation(full.conversation).await.unwrap().is_some(),
        read.root(full.conversation).await.is_ok(),
        !read.conversations(&all(), &ConversationFilter::default()).await.unwrap().is_empty(),
        !read.threads_found(&[THREAD_KEY]).await.unwrap().is_empty(),
        !read.journal(0, None, 9).await.unwrap().is_empty(),
        read.event_by_seq(1).await.unwrap().is_some(),
        read.seq_of(full.event).await.unwrap().is_some(),
        read.last_seq().await.unwrap() > 0,
        read.webhook(full.webhook, at(1)).await.unwrap().is_some(),
        !read.webhooks(at(1)).await.unwrap().is_empty(),
        !read.decisions(&all(), &DecisionFilter::default()).await.unwrap().is_empty(),
        !read.skipped_with_ids(&[DECISION_HASH]).await.unwrap().is_empty(),
        read.submission(message).await.unwrap().is_some(),
        !read.submissions(&[message]).await.unwrap().is_empty(),
        read.submission_by_rfc822_id(&id).await.unwrap().is_some(),
        read.smarthost().await.unwrap().is_some(),
        read.smarthost_credentials().await.unwrap().is_some(),
    ]
}

/// That every question finds something, or none does.
async fn answered(read: &mut Session, full: &Full, expect: bool) {
    for found in [people(read, full).await, mail(read, full).await] {
        assert!(found.iter().all(|found| *found == expect), "{found:?}");
    }
}

both! {
    async fn no_question_reaches_another_workspace(world) {
        let (one, other) = (Place::new(&world).await, Place::new(&world).await);
        let full = fill(&one).await;
        for (place, expect) in [(&one, true), (&other, false)] {
            let mut read = place.read().await;
            answered(&mut read, &full, expect).await;
        }
    }

    async fn no_change_reaches_another_workspace(world) {
        let (one, other) = (Place::new(&world).await, Place::new(&world).await);
        let full = fill(&one).await;
        let (account, message) = (full.account, full.message.id);
        let mut tx = other.tx().await;
        missing(tx.delete_key(full.key.id).await);
        missing(tx.update_user(&User { id: full.user, ..a_user("x@y.example") }).await);
        missing(tx.update_contact(&Contact { id: full.contact, ..a_contact("x@y.example", 1) }, at(1)).await);
        missing(tx.delete_contact(full.contact).await);
        missing(tx.replace_credentials(account, &password("x")).await);
        let status = an_account(full.user, "x@y.example").status;
        missing(tx.set_account_status(account, &status).await);
        missing(tx.fence_account(account).await);
        assert!(matches!(tx.check_epoch(account, 0).await, Err(Error::Fenced)));
        missing(tx.advance_cursor(account, b"INBOX", &a_mailbox("INBOX", 1).cursor, at(9)).await);
        missing(tx.set_backfill(account, b"INBOX", &Backfill::default()).await);
        missing(tx.forget_mailbox(account, b"INBOX").await);
        missing(tx.touch_conversation(full.conversation, at(9)).await);
        missing(tx.hold_conversation(full.conversation).await);
        missing(tx.merge_conversations(full.conversation, full.conversation).await);
        let merged = Merged {
            keep: full.conversation,
            absorbed: full.conversation,
            moved: Vec::new(),
            redirects: Vec::new(),
            routes: Vec::new(),
        };
        missing(tx.unmerge_conversation(&merged).await);
        missing(tx.delete_user(full.user).await);
        missing(tx.delete_webhook(full.webhook).await);
        missing(tx.enable_webhook(full.webhook, at(1)).await);
        assert!(!tx.disable_webhook(full.webhook, "x", at(1)).await.unwrap());
        assert_eq!(tx.event(full.event).await.unwrap(), None);
        missing(tx.set_sent_copy(message, SentCopy::Filed).await);
        let step = SubmissionStep {
            state: SubmissionState::Sent,
            attempt: 1,
            next_attempt_at: None,
            dot_intent_at: None,
            detail: None,
        };
        missing(tx.set_submission_state(message, &step).await);
        missing(tx.delete_smarthost().await);
        let uids = [(5, 6)];
        let renumbering = Renumbering { account, mailbox: b"INBOX", from: 1, to: 2, uids: &uids };
        tx.rebind_uid_validity(&renumbering).await.unwrap();
        tx.commit().await.unwrap();

        let mut read = one.read().await;
        answered(&mut read, &full, true).await;
    }

    async fn nothing_new_can_point_into_another_workspace(world) {
        let (one, other) = (Place::new(&world).await, Place::new(&world).await);
        let full = fill(&one).await;
        let api = SightingRow { sighting: Sighting::Api, at: at(1) };
        let message: MessageKey = full.message.id;
        missing(other.tx().await.insert_message(&a_message(full.conversation, 1)).await);
        missing(other.tx().await.add_message_id(message, &message_id("x@y.example")).await);
        missing(other.tx().await.put_message_contacts(message, at(1), &[(full.contact, ContactRole::To)]).await);
        missing(other.tx().await.add_sighting(message, &api).await);
        missing(other.tx().await.put_mailbox(full.account, &a_mailbox("INBOX", 1)).await);
        missing(other.tx().await.insert_account(&an_account(full.user, "x@y.example"), &password("x")).await);
        missing(other.tx().await.insert_submission(&a_submission(message, None, 1)).await);
        let key = ApiKey { id: mint(), user_id: Some(full.user), ..full.key.clone() };
        missing(other.tx().await.insert_key(&key, &[8; 32]).await);
    }
}
