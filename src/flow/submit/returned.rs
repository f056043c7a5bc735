//! What a delivery report tells that came later than the server's answer: mail that was sent has come back.
//!
//! It comes to the reply address it was sent from, or to the mailbox of the account that sent it. Not here: reading a report
//! (`mail::DeliveryReport`), and the reports that we write ourselves (`report`).

use jiff::Timestamp;

use super::{copies, record, report};
use crate::{
    core::{
        event::MessageEvent,
        ids::{AccountId, ConversationId, MessageKey},
        submission::{RecipientState, Submission, SubmissionState},
    },
    flow::FlowError,
    mail::{Action, Address, DeliveryReport, HeaderSummary, ReportRecipient},
    store::{Error, Session, Tx},
};

/// Ids by which a report may name what it is about, tried in turn: that of the mail it returns, then those it answers.
const IDS_MAX: usize = 20;

/// Where a report came in. It can only be about mail that asked for its reports there.
#[derive(Debug, Clone, Copy)]
pub(in crate::flow) enum CameTo<'a> {
    /// The reply addresses of these participants, from which each was sent to alone.
    Participants(&'a [Address]),
    Account(AccountId),
}

/// A report on mail of ours.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Returned {
    pub message: MessageKey,
    pub conversation: ConversationId,
    /// Those who will not get it. None when the report only tells of a delay or of success.
    failed: Vec<Failed>,
}

#[derive(Debug, Clone)]
struct Failed {
    recipient: Address,
    code: Option<u16>,
    status: Option<String>,
    text: String,
}

/// Finds what a report is about; `None` when it is about other mail, or no report.
///
/// # Errors
/// When the store is out of reach.
pub(in crate::flow) async fn returned(
    session: &mut Session,
    (summary, raw): (&HeaderSummary, &[u8]),
    came_to: CameTo<'_>,
) -> Result<Option<Returned>, Error> {
    let Some(report) = DeliveryReport::read(raw) else { return Ok(None) };
    let named = summary.in_reply_to.iter().chain(&summary.references);
    for id in report.original_message_id.iter().chain(named).take(IDS_MAX) {
        let Some(submission) = session.submission_by_rfc822_id(id).await? else { continue };
        let recipients = concerned(&submission, came_to);
        let Some(message) = session.message(submission.message).await? else { continue };
        if !recipients.is_empty() {
            let failed = failed(&recipients, &report.recipients);
            return Ok(Some(Returned { message: message.id, conversation: message.conversation, failed }));
        }
    }
    Ok(None)
}

/// The recipients whose reports come there.
fn concerned<'a>(submission: &'a Submission, came_to: CameTo<'_>) -> Vec<&'a RecipientState> {
    let concerns = |state: &&RecipientState| match came_to {
        CameTo::Participants(participants) => {
            submission.account.is_none() && participants.contains(&state.recipient.address)
        }
        CameTo::Account(account) => submission.account == Some(account),
    };
    submission.recipients.iter().filter(concerns).collect()
}

fn failed(recipients: &[&RecipientState], reported: &[ReportRecipient]) -> Vec<Failed> {
    let mut failed = Vec::new();
    for state in recipients {
        let address = &state.recipient.address;
        let is_he =
            |one: &&ReportRecipient| one.address == *address || one.original.as_ref() == Some(address);
        // Forwarded, it failed at an address that we do not know; with one of each there is no doubt who is meant.
        let only = || reported.first().filter(|_| recipients.len() == 1 && reported.len() == 1);
        let about = reported.iter().find(is_he).or_else(only);
        failed.extend(about.filter(|one| one.action == Action::Failed).map(|one| failure(address, one)));
    }
    failed
}

fn failure(recipient: &Address, reported: &ReportRecipient) -> Failed {
    let said = reported.diagnostic.clone();
    let code = said.as_deref().and_then(|said| said.get(..3)?.parse().ok());
    Failed {
        recipient: recipient.clone(),
        code: code.filter(|code| (400..600).contains(code)),
        status: reported.status.map(|status| status.to_string()),
        text: said.unwrap_or_else(|| "A delivery report says that it could not be delivered.".to_owned()),
    }
}

/// Records who will not get the message, and tells so. Who was known to have bounced is not told of again.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn record_returned(
    tx: &mut Tx,
    returned: &Returned,
    now: Timestamp,
) -> Result<(), FlowError> {
    if returned.failed.is_empty() {
        return Ok(());
    }
    let Some(mut submission) = tx.submission(returned.message).await? else { return Ok(()) };
    let (mut changed, mut changed_copy) = (false, false);
    for failed in &returned.failed {
        let is_he = |state: &&mut RecipientState| state.recipient.address == failed.recipient;
        // A report on an attempt that has been followed by another one decides nothing.
        let states = submission.recipients.iter_mut().filter(is_he);
        for state in states.filter(|s| matches!(s.state, SubmissionState::Sent | SubmissionState::Uncertain))
        {
            state.state = SubmissionState::Bounced;
            (state.code, state.status) = (failed.code, failed.status.clone());
            state.text = Some(failed.text.clone());
            changed |= state.is_named();
            changed_copy |= !state.is_named();
        }
    }
    if changed_copy {
        copies::tell_lost(tx, &mut submission, now).await?;
    }
    let (overall, was_open) = (submission.overall(), submission.state.is_open());
    if !changed {
        if overall.is_final() {
            submission.state = overall;
        }
        return Ok(tx.set_submission(&submission).await?);
    }
    if overall.is_final() {
        (submission.state, submission.next_attempt_at) = (overall, None);
    }
    tx.set_submission(&submission).await?;
    if was_open && overall == SubmissionState::Sent {
        // He was the last of whom nobody knew.
        record::tell_sent(tx, &submission, now).await?;
    } else {
        record::tell(tx, &submission, MessageEvent::Bounced, now).await?;
    }
    report::queue(tx, &submission, now).await
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::mail::Recipient;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn sent(to: &str) -> RecipientState {
        let new = RecipientState::new(Recipient::new(address(to)), SubmissionState::Sent);
        RecipientState { code: Some(250), ..new }
    }

    fn reported(to: &str, original: Option<&str>, action: Action, said: &str) -> ReportRecipient {
        ReportRecipient {
            address: address(to),
            original: original.map(address),
            action,
            status: "5.1.1".parse().ok(),
            diagnostic: Some(said.to_owned()),
        }
    }

    #[track_caller]
    fn check(recipients: &[&str], reported: &[ReportRecipient], expect: &[(&str, Option<u16>)]) {
        let states: Vec<_> = recipients.iter().map(|to| sent(to)).collect();
        let states: Vec<_> = states.iter().collect();
        let failed = failed(&states, reported);
        let got: Vec<_> = failed.iter().map(|one| (one.recipient.key(), one.code)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn a_report_is_about_those_it_names_or_about_the_only_one() {
        use Action::{Delayed, Delivered, Failed};
        let bob = reported("bob@x.example", None, Failed, "550 no such user");
        let alias = reported("b@y.example", Some("Bob@x.example"), Failed, "no code");
        let forwarded = reported("b@y.example", None, Failed, "552 5.2.2 full");
        let cora = reported("cora@x.example", None, Delivered, "250 ok");
        let both = ["bob@x.example", "cora@x.example"];
        check(&both, &[cora.clone(), bob.clone()], &[("bob@x.example", Some(550))]);
        check(&both, &[alias], &[("bob@x.example", None)]);
        check(&both, from_ref(&forwarded), &[]);
        check(&["bob@x.example"], from_ref(&forwarded), &[("bob@x.example", Some(552))]);
        check(&["bob@x.example"], &[forwarded, cora], &[]);
        check(&["bob@x.example"], &[ReportRecipient { action: Delayed, ..bob }], &[]);
        check(&["bob@x.example"], &[], &[]);
    }
}
