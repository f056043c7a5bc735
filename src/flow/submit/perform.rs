//! Sends a submission: connect, everything but the final dot, *dot intent*, the dot, and what came of it.
//!
//! Not here: what follows from an outcome (`record`), and finding out about a send that was cut off (`reconcile`).

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, SemaphorePermit},
};

use super::{
    budget, exit_of,
    masked::{self, View},
    reconcile,
    record::{self, Fared, Pace},
    way_out::{self, WayOut, crowded, way_out},
};
use crate::{
    account::{Exit as Server, Trouble},
    core::{
        ids::MessageKey,
        inbound::{Exit, Principal, SendClass},
        job::Job,
        message::StoredMessage,
        submission::{Hold, RecipientState, Submission, SubmissionState},
    },
    failpoint,
    flow::{FlowError, Gateway, login, now},
    mail::{Address, Envelope, HeaderBlock, Recipient, ReversePath},
    queue::{Leased, Settlement},
    smtp::{Capabilities, Client, Outcome, Reply, Transmission},
    store::Session,
};

/// One mail transaction to be: some of the recipients, and how they are to see the message.
pub(super) struct Part {
    pub envelope: Envelope,
    /// `None` sends the bytes as they are. Written only when it is sent: there may be hundreds.
    pub view: Option<View>,
}

/// KiB of messages in hand at one time: many large ones at slow servers must not fill memory.
const IN_HAND_KIB_MAX: u32 = 256 * 1024;
static IN_HAND: Semaphore = Semaphore::const_new(IN_HAND_KIB_MAX as usize);

/// Why a message cannot be sent now.
pub(super) struct Unsendable {
    /// The only recipient whom that concerns; `None` for all who are still open.
    pub whom: Option<Address>,
    pub what_for: Hold,
    /// Shown to the CRM.
    pub reason: &'static str,
}

/// Sends what is still to be sent of a submission.
///
/// # Errors
/// Those of the store; whatever servers do is recorded, not returned.
pub async fn perform(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    if !submission.is_at_work() {
        return Err(FlowError::Obsolete);
    }
    if matches!(job.job, Job::Submit { exit, .. } if exit != exit_of(&submission)) {
        drop(session);
        return change_lane(gateway, job, message).await;
    }
    if submission.recipients.iter().any(RecipientState::is_in_doubt) {
        drop(session);
        return reconcile::perform(gateway, job, &submission, &stored).await;
    }
    let server = match way_out(&mut session, submission.account).await? {
        WayOut::Open(server) => server,
        WayOut::Rests(until) => return record::rest(gateway, job, message, until).await,
        WayOut::Closed(reason) => {
            let unsendable = Unsendable { whom: None, what_for: Hold::WayOut, reason };
            return record::hold(gateway, job, message, &unsendable).await;
        }
    };
    let most = match budget::recipients_now(&mut session, (&submission, &stored)).await? {
        Ok(most) => most,
        Err(full) => {
            drop(session);
            return budget::put_off(gateway, job, message, full).await;
        }
    };
    if let Some(text) = too_large(&mut session, &submission, &stored).await? {
        drop(session);
        return refuse_size(gateway, job, &submission, text).await;
    }
    drop(session);
    let parts = match parts(gateway, job, (&submission, most), &stored, &server).await? {
        Ok(parts) if parts.is_empty() => return record::settle(gateway, job, message, Pace::AtOnce).await,
        Ok(parts) => parts,
        Err(unsendable) => return record::hold(gateway, job, message, &unsendable).await,
    };
    let _room = room(stored.size).await;
    let mut session = gateway.store.read(job.workspace).await?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let began = now();
    match login::open_submission(gateway, job.workspace, &server).await? {
        Ok((mut client, _place)) => {
            send_all(gateway, job, (&stored, &raw), (&mut client, parts)).await?;
            // Last: what was sent is recorded by now, and a server that is slow to say good-bye holds up nothing but this.
            if client.is_usable() {
                client.quit().await;
            }
            Ok(())
        }
        // Nothing is wrong with it, and nobody is told while there is time.
        Err(Trouble::Crowded) if !record::has_expired(gateway, &submission, now()) => {
            budget::wait(gateway, job, crowded(job)).await
        }
        Err(trouble) => record::unopened(gateway, job, message, (began, &trouble)).await,
    }
}

/// Goes on in the lane of another way out, which was chosen since this job was queued: what its server says concerns those
/// who wait for that one.
async fn change_lane(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let submission = tx.submission(message).await?.ok_or(FlowError::Obsolete)?;
    tx.enqueue_job(&Job::Submit { message, exit: exit_of(&submission) }, now()).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.commit().await?;
    Ok(())
}

/// How much the account's provider takes of a message, where this has more: it would be sent for nothing.
async fn too_large(
    session: &mut Session,
    submission: &Submission,
    stored: &StoredMessage,
) -> Result<Option<String>, FlowError> {
    let Some(account) = submission.account else { return Ok(None) };
    let provider = budget::provider_of(session, Exit::Account(account)).await?;
    let files = stored.attachments.iter().map(|file| file.size);
    Ok(provider.too_large(stored.size, files).map(|too_large| format!("{}.", too_large.text(provider))))
}

async fn refuse_size(
    gateway: &Gateway,
    job: &Leased,
    submission: &Submission,
    text: String,
) -> Result<(), FlowError> {
    let outcome = Outcome::Refused(Reply::new(552, [5, 3, 4], text));
    let open = submission.recipients.iter().filter(|state| state.is_open());
    let fared: Vec<_> = open
        .map(|state| Fared { asked: state.recipient.clone(), outcome: outcome.clone(), takes_reports: false })
        .collect();
    record::outcomes(gateway, job, submission.message, &fared).await?;
    record::settle(gateway, job, submission.message, Pace::AtOnce).await
}

/// Waits until so many octets may be in hand.
async fn room(octets: u64) -> SemaphorePermit<'static> {
    let kib = u32::try_from(octets / 1024).unwrap_or(u32::MAX).saturating_add(1);
    IN_HAND.acquire_many(kib.min(IN_HAND_KIB_MAX)).await.expect("nobody closes it")
}

/// Holds a submission that cannot be worked on: what is stored of it is unreadable, or is refused by the database.
///
/// # Errors
/// Those of the store.
pub async fn hold_poison(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let reason = "It could not be processed.";
    record::hold(gateway, job, message, &Unsendable { whom: None, what_for: Hold::Poison, reason }).await
}

/// The transactions that the open recipients need, or so many of them. By account all of them in one; a user without an
/// account writes from a reply address of each contact, hence in one for each. The inner error says why it cannot be sent.
async fn parts(
    gateway: &Gateway,
    job: &Leased,
    (submission, most): (&Submission, usize),
    stored: &StoredMessage,
    server: &Server,
) -> Result<Result<Vec<Part>, Unsendable>, FlowError> {
    let turn = turn(submission.state, &submission.recipients);
    let open: Vec<&RecipientState> = turn.into_iter().take(most).collect();
    let is_passed_on = matches!(submission.principal, Principal::Participant(_));
    if is_passed_on || (submission.account.is_none() && submission.class == SendClass::Individual) {
        let by = server.account_address.as_ref();
        return masked::parts(gateway, job.workspace, (stored, submission, by), &open).await;
    }
    let open: Vec<Recipient> = open.into_iter().map(|state| state.recipient.clone()).collect();
    if open.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let envelope = envelope(submission, reverse_path(submission, server), open);
    Ok(Ok(vec![Part { envelope, view: None }]))
}

/// Whose turn it is. While an attempt goes on, whom the server has put off is let wait.
fn turn(state: SubmissionState, recipients: &[RecipientState]) -> Vec<&RecipientState> {
    let is_untried = |state: &RecipientState| state.state == SubmissionState::Queued;
    let goes_on = state == SubmissionState::Queued && recipients.iter().any(is_untried);
    let mut open: Vec<_> = recipients.iter().filter(|state| state.is_open()).collect();
    open.retain(|state| !goes_on || is_untried(state));
    // Those not tried yet go first: one recipient at whom a server hangs up must not keep the others from their turn.
    // And whom the message is for before those who get a copy: the budget may not do for all.
    open.sort_by_key(|state| (!is_untried(state), !state.is_named()));
    open
}

/// Bounces of mail sent by a user's account go to the user; those of a smarthost where the CRM asked.
fn reverse_path(submission: &Submission, server: &Server) -> ReversePath {
    let own: Option<&Address> = server.account_address.as_ref();
    own.map_or_else(|| submission.reverse_path.clone(), |address| ReversePath::Address(address.clone()))
}

/// What we ask of the server. A smarthost is also asked for the reports that the CRM ordered, since it alone hears of what
/// happens later (RFC 3461 section 5.2.1). Those of a user's provider would go to the user, who ordered none.
fn envelope(submission: &Submission, reverse_path: ReversePath, recipients: Vec<Recipient>) -> Envelope {
    let envelope = Envelope::new(reverse_path);
    if submission.account.is_none() {
        let (ret, envelope_id) = (submission.dsn.ret, submission.dsn.envelope_id.clone());
        return Envelope { ret, envelope_id, recipients, ..envelope };
    }
    let plain = |recipient: Recipient| Recipient::new(recipient.address);
    Envelope { recipients: recipients.into_iter().map(plain).collect(), ..envelope }
}

/// Whether the header holds text beyond ASCII, which a server that knows SMTPUTF8 wants to be told (RFC 6531 section 3.4).
/// One that does not know it gets such a message as it gets any 8-bit text: nearly all take it.
fn needs_smtputf8(raw: &[u8], offer: &Capabilities) -> bool {
    let header = raw.get(..HeaderBlock::scan(raw).end_offset()).unwrap_or_default();
    offer.smtputf8 && !header.is_ascii() && std::str::from_utf8(header).is_ok()
}

async fn send_all<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Gateway,
    job: &Leased,
    (stored, raw): (&StoredMessage, &Bytes),
    (client, parts): (&mut Client<S>, Vec<Part>),
) -> Result<(), FlowError> {
    let message = stored.id;
    let (mut got_on, mut rests) = (false, None);
    for Part { mut envelope, view } in parts {
        let raw = view.map_or_else(|| raw.clone(), |view| view.written(gateway, stored, raw));
        envelope.smtputf8 |= needs_smtputf8(&raw, client.capabilities());
        let Some(outcomes) = send_part(gateway, job, message, (client, &envelope, &raw)).await? else {
            // Others have used the budget since it was looked at: look again at once.
            got_on = true;
            break;
        };
        let takes_reports = client.capabilities().dsn;
        let mut fared: Vec<_> = envelope
            .recipients
            .into_iter()
            .zip(outcomes)
            .map(|(asked, outcome)| Fared { asked, outcome, takes_reports })
            .collect();
        rests = budget::heed(gateway, job, message, &mut fared).await?;
        if rests.is_none() {
            rests = way_out::heed(gateway, job, &fared).await?;
        }
        got_on |=
            fared.iter().any(|one| matches!(one.outcome, Outcome::Accepted { .. } | Outcome::Refused(_)));
        record::outcomes(gateway, job, message, &fared).await?;
        if !client.is_usable() || rests.is_some() {
            break;
        }
    }
    let pace = match () {
        () if rests.is_some() => Pace::Rest(rests),
        () if got_on => Pace::AtOnce,
        () if client.is_usable() => Pace::BackOff,
        () => Pace::Rest(None),
    };
    record::settle(gateway, job, message, pace).await
}

/// What became of it; `None` when the user's budget has no room for it any more, and nothing was sent.
async fn send_part<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    (client, envelope, raw): (&mut Client<S>, &Envelope, &Bytes),
) -> Result<Option<Vec<Outcome>>, FlowError> {
    match client.send_data(envelope, raw).await {
        Ok(Transmission::Settled(outcomes)) => Ok(Some(outcomes)),
        Ok(Transmission::Pending(pending)) => {
            let recipients = envelope.recipients.iter().zip(pending.refusals());
            match record::intent(gateway, job, message, recipients).await? {
                true => {
                    failpoint::reach("submit.intended", "");
                    let outcomes = pending.finish().await;
                    failpoint::reach("submit.answered", "");
                    Ok(Some(outcomes))
                }
                false => Ok(None),
            }
        }
        Err(error) => Ok(Some(vec![error.outcome(); envelope.recipients.len()])),
    }
}

impl Trouble {
    /// What the recipients' states say of a server that could not be reached.
    pub(in crate::flow) fn recipient_text(&self) -> String {
        format!("Not sent yet: {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_an_attempt_goes_on_who_was_put_off_waits() {
        use SubmissionState::{Bounced, Deferred, Queued, Sent};
        for (state, recipients, turns) in [
            (Queued, vec![Queued, Queued], vec![0, 1]),
            (Queued, vec![Deferred, Queued, Sent], vec![1]),
            // Of a later attempt all, and those who were never tried first.
            (Deferred, vec![Deferred, Queued, Bounced], vec![1, 0]),
            (Queued, vec![Deferred, Deferred], vec![0, 1]),
            (Deferred, vec![Sent], vec![]),
        ] {
            let named = |(n, state): (usize, &SubmissionState)| {
                let address = Address::parse(&format!("{n}@b.example")).unwrap();
                RecipientState::new(Recipient::new(address), *state)
            };
            let states: Vec<_> = recipients.iter().enumerate().map(named).collect();
            let turn = turn(state, &states)
                .into_iter()
                .map(|state| state.recipient.address.local().parse().unwrap());
            assert_eq!(turn.collect::<Vec<usize>>(), turns, "{state:?} {recipients:?}");
        }
    }
}
