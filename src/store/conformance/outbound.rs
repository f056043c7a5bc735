//! Submissions and the smarthost.

use super::{
    super::{SubmissionStep, testing::both},
    *,
};
use crate::{
    core::{
        ids::MessageKey,
        inbound::{Principal, SendClass},
        submission::{
            DsnOrder, Hold, RecipientState, SentCopy, Smarthost, Submission, SubmissionState, Told,
        },
    },
    mail::{Notify, Recipient, Return, ReversePath},
};

pub(super) fn a_submission(message: MessageKey, account: Option<AccountId>, accepted_at: i64) -> Submission {
    Submission {
        message,
        account,
        class: SendClass::Individual,
        reverse_path: ReversePath::Address(address("Ann@example.com")),
        dsn: DsnOrder { ret: Some(Return::Headers), envelope_id: Some("e1".into()), ..DsnOrder::default() },
        principal: Principal::Key(mint()),
        blob: Some(uuid::Uuid::now_v7()),
        state: SubmissionState::Queued,
        attempt: 0,
        accepted_at: at(accepted_at),
        next_attempt_at: Some(at(accepted_at)),
        dot_intent_at: None,
        detail: None,
        sent_copy: SentCopy::Wanted,
        recipients: vec![recipient("Carl@x.example"), recipient("dora@x.example")],
    }
}

fn recipient(text: &str) -> RecipientState {
    let notify = Notify::On { success: true, failure: true, delay: false };
    let recipient =
        Recipient { notify, original: Some("rfc822;carl".into()), ..Recipient::new(address(text)) };
    RecipientState::new(recipient, SubmissionState::Queued)
}

fn step(state: SubmissionState) -> SubmissionStep {
    SubmissionStep {
        state,
        attempt: 2,
        next_attempt_at: Some(at(90)),
        dot_intent_at: Some(at(80)),
        detail: Some("greylisted".into()),
    }
}

both! {
    async fn a_submission_is_read_back_with_its_recipients(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let message = place.message(conversation, 2).await;
        let mut submission = a_submission(message.id, Some(mint()), 3);
        let mut tx = place.tx().await;
        tx.insert_submission(&submission).await.unwrap();
        let found = tx.submission(message.id).await.unwrap().unwrap();
        assert_eq!(found, submission);
        // The letter case of a recipient is the receiving host's affair (RFC 5321 section 2.4).
        assert_eq!(found.recipients[0].recipient.address.to_string(), "Carl@x.example");

        tx.set_submission_state(message.id, &step(SubmissionState::Deferred)).await.unwrap();
        (submission.state, submission.attempt) = (SubmissionState::Deferred, 2);
        (submission.next_attempt_at, submission.dot_intent_at) = (Some(at(90)), Some(at(80)));
        submission.detail = Some("greylisted".into());
        let carl = &mut submission.recipients[0];
        (carl.state, carl.code) = (SubmissionState::Deferred, Some(450));
        (carl.status, carl.text) = (Some("4.7.1".into()), Some("later".into()));
        (carl.doubts, carl.recipient.notify) = (1, Notify::Never);
        tx.set_recipients(message.id, &submission.recipients[..1]).await.unwrap();
        submission.dsn.told = vec![Told {
            recipient: submission.recipients[0].recipient.address.clone(),
            state: SubmissionState::Bounced,
        }];
        tx.set_dsn_order(message.id, &submission.dsn).await.unwrap();
        submission.sent_copy = SentCopy::Appended;
        tx.set_sent_copy(message.id, SentCopy::Appended).await.unwrap();
        assert_eq!(tx.submission(message.id).await.unwrap().as_ref(), Some(&submission));
        let found = tx.submissions(&[message.id, mint()]).await.unwrap();
        assert_eq!(found.get(&message.id), Some(&submission));
        assert_eq!(found.len(), 1);
        let by_id = tx.submission_by_rfc822_id(&message.rfc822_id.unwrap()).await.unwrap();
        assert_eq!(by_id, Some(submission));
        missing(tx.set_submission_state(mint(), &step(SubmissionState::Sent)).await);
        missing(tx.set_sent_copy(mint(), SentCopy::Filed).await);
        missing(tx.set_dsn_order(mint(), &DsnOrder::default()).await);
    }

    async fn a_message_is_submitted_once(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let message = place.message(conversation, 2).await;
        let null = Submission { reverse_path: ReversePath::Null, ..a_submission(message.id, None, 3) };
        let mut tx = place.tx().await;
        tx.insert_submission(&null).await.unwrap();
        assert_eq!(tx.submission(message.id).await.unwrap(), Some(null.clone()));
        tx.commit().await.unwrap();
        assert_eq!(conflict(place.tx().await.insert_submission(&null).await), "submissions_pkey");
        missing(place.tx().await.insert_submission(&a_submission(mint(), None, 3)).await);
    }

    async fn what_is_held_for_want_of_a_way_out_is_listed_and_what_may_have_been_sent_is_not(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let account = mint();
        let mut keys = Vec::new();
        for (accepted, exit, state, held_for) in [
            (30, Some(account), SubmissionState::Held, Some(Hold::WayOut)),
            (10, Some(account), SubmissionState::Held, Some(Hold::WayOut)),
            (20, None, SubmissionState::Held, Some(Hold::WayOut)),
            (5, Some(account), SubmissionState::Held, Some(Hold::Doubt)),
            (6, Some(account), SubmissionState::Held, Some(Hold::Poison)),
            (1, Some(account), SubmissionState::Queued, None),
            (2, Some(mint()), SubmissionState::Held, Some(Hold::WayOut)),
        ] {
            let message = place.message(conversation, accepted).await.id;
            let mut submission = Submission { state, ..a_submission(message, exit, accepted) };
            for recipient in &mut submission.recipients {
                (recipient.state, recipient.held_for) = (state, held_for);
            }
            let mut tx = place.tx().await;
            tx.insert_submission(&submission).await.unwrap();
            tx.commit().await.unwrap();
            keys.push(message);
        }
        let mut read = place.read().await;
        let keys_of = |found: Vec<Submission>| found.iter().map(|one| one.message).collect::<Vec<_>>();
        let all = keys_of(read.submissions_held(None, (None, 9)).await.unwrap());
        assert_eq!(all, [keys[6], keys[1], keys[2], keys[0]]);
        let first = read.submissions_held(None, (None, 1)).await.unwrap();
        let after = first.last().map(|last| (last.accepted_at, last.message));
        assert_eq!(keys_of(first), [keys[6]]);
        assert_eq!(keys_of(read.submissions_held(None, (after, 2)).await.unwrap()), [keys[1], keys[2]]);
        assert_eq!(keys_of(read.submissions_held(Some(mint()), (None, 9)).await.unwrap()), []);
    }

    async fn a_workspace_has_one_smarthost(world) {
        let place = Place::new(&world).await;
        let endpoint = Endpoint { host: "smtp.example".into(), port: 587, security: Security::Starttls };
        let mut smarthost = Smarthost { endpoint, from_domains: vec!["example.com".into()] };
        let mut tx = place.tx().await;
        assert_eq!(tx.smarthost().await.unwrap(), None);
        assert!(tx.smarthost_credentials().await.unwrap().is_none());
        tx.put_smarthost(&smarthost, &password("first"), at(1)).await.unwrap();
        smarthost.from_domains.push("example.org".into());
        tx.put_smarthost(&smarthost, &password("second"), at(2)).await.unwrap();
        tx.commit().await.unwrap();
        let mut read = place.read().await;
        assert_eq!(read.smarthost().await.unwrap(), Some(smarthost));
        assert_eq!(secret_of(&read.smarthost_credentials().await.unwrap().unwrap()), "second");
        drop(read);
        let mut tx = place.tx().await;
        tx.delete_smarthost().await.unwrap();
        missing(tx.delete_smarthost().await);
    }
}
