//! Submissions and the smarthost.

use super::{
    super::{SubmissionExit, SubmissionStep, testing::both},
    *,
};
use crate::{
    core::{
        ids::MessageKey,
        inbound::{Principal, SendClass},
        submission::{DsnOrder, RecipientState, SentCopy, Smarthost, Submission, SubmissionState},
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
    RecipientState { recipient, state: SubmissionState::Queued, code: None, status: None, text: None }
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
        tx.set_recipients(message.id, &submission.recipients[..1]).await.unwrap();
        submission.dsn.reported = true;
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

    async fn of_a_sender_and_somebody_who_cancels_one_wins(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let message = place.message(conversation, 2).await.id;
        let mut tx = place.tx().await;
        tx.insert_submission(&a_submission(message, None, 3)).await.unwrap();
        let (queued, sending) = (SubmissionState::Queued, SubmissionState::Sending);
        assert!(tx.step_submission(message, queued, &step(sending)).await.unwrap());
        assert!(!tx.step_submission(message, queued, &step(SubmissionState::Cancelled)).await.unwrap());
        assert_eq!(tx.submission(message).await.unwrap().unwrap().state, sending);
    }

    async fn what_waits_is_listed_longest_waiting_first(world) {
        let place = Place::new(&world).await;
        let conversation = place.conversation(1).await;
        let account = mint();
        let mut keys = Vec::new();
        for (accepted, exit, state) in [
            (30, Some(account), SubmissionState::Queued),
            (10, Some(account), SubmissionState::Uncertain),
            (20, None, SubmissionState::Queued),
            (5, Some(account), SubmissionState::Sent),
            (1, Some(mint()), SubmissionState::Queued),
        ] {
            let message = place.message(conversation, accepted).await.id;
            let mut tx = place.tx().await;
            let submission = Submission { state, ..a_submission(message, exit, accepted) };
            tx.insert_submission(&submission).await.unwrap();
            tx.commit().await.unwrap();
            keys.push(message);
        }
        let mut read = place.read().await;
        let keys_of = |found: Vec<Submission>| found.iter().map(|one| one.message).collect::<Vec<_>>();
        assert_eq!(keys_of(read.submissions_waiting(account, 9).await.unwrap()), [keys[1], keys[0]]);
        assert_eq!(keys_of(read.submissions_waiting(account, 1).await.unwrap()), [keys[1]]);
        let queued = [SubmissionState::Queued];
        let found = read.submissions_in(&queued, SubmissionExit::Smarthost, 9).await.unwrap();
        assert_eq!(keys_of(found), [keys[2]]);
        let found = read.submissions_in(&queued, SubmissionExit::Any, 9).await.unwrap();
        assert_eq!(keys_of(found), [keys[4], keys[2], keys[0]]);
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
