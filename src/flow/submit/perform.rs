//! Sends a submission: connect, everything but the final dot, *dot intent*, the dot, and what came of it.
//!
//! Not here: what follows from an outcome (`record`), and finding out about a send that was cut off (`reconcile`).

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{reconcile, record};
use crate::{
    account::{Exit as Server, Trouble},
    core::{
        ids::{AccountId, MessageKey},
        inbound::SendClass,
        message::StoredMessage,
        submission::{RecipientState, Submission, SubmissionState},
    },
    flow::{FlowError, Gateway, relay},
    mail::{Address, Envelope, Recipient, ReversePath},
    queue::Leased,
    smtp::{Client, Outcome, Reply, Transmission},
    store::{AccountAccess, Session, SmarthostAccess},
};

/// One mail transaction to be: some of the recipients, and the bytes they get.
pub(in crate::flow) struct Part {
    pub envelope: Envelope,
    pub raw: Bytes,
}

/// Sends what is still to be sent of a submission.
///
/// # Errors
/// Those of the store; whatever servers do is recorded, not returned.
pub async fn perform(gateway: &Gateway, job: &Leased, message: MessageKey) -> Result<(), FlowError> {
    let mut session = gateway.store.read(job.workspace).await?;
    let submission = session.submission(message).await?.ok_or(FlowError::Obsolete)?;
    let stored = session.message(message).await?.ok_or(FlowError::Obsolete)?;
    if submission.state.is_final() || submission.state == SubmissionState::Held {
        return Err(FlowError::Obsolete);
    }
    let in_doubt = |recipient: &RecipientState| {
        matches!(recipient.state, SubmissionState::Sending | SubmissionState::Uncertain)
    };
    if submission.recipients.iter().any(in_doubt) {
        drop(session);
        return reconcile::perform(gateway, job, &submission, &stored).await;
    }
    let server = server(&mut session, submission.account).await?;
    let raw = session.blob(submission.blob.unwrap_or(stored.blob)).await?;
    drop(session);
    let Some(server) = server else {
        return record::give_up(
            gateway,
            job,
            message,
            "The account or smarthost it was to leave by is gone.",
        )
        .await;
    };
    let parts = match parts(gateway, job, &submission, &stored, (raw, &server)).await? {
        Ok(parts) => parts,
        Err(reason) => return record::give_up(gateway, job, message, reason).await,
    };
    match gateway.dialer.open_submission(&server, &gateway.settings.hostname).await {
        Ok(mut client) => send_all(gateway, job, message, (&mut client, parts)).await,
        Err(trouble) => record::defer_all(gateway, job, message, &trouble).await,
    }
}

/// The transactions that the open recipients need. By account all of them in one; a user without an account writes from a
/// reply address of each contact, hence in one for each. The inner error says why it cannot be sent.
async fn parts(
    gateway: &Gateway,
    job: &Leased,
    submission: &Submission,
    stored: &StoredMessage,
    (raw, server): (Bytes, &Server),
) -> Result<Result<Vec<Part>, &'static str>, FlowError> {
    let open: Vec<Recipient> =
        submission.recipients.iter().filter(|r| is_open(r)).map(|r| r.recipient.clone()).collect();
    if submission.account.is_none() && submission.class == SendClass::Individual {
        return relay::parts(gateway, job.workspace, (stored, submission), (raw, open)).await;
    }
    let envelope = envelope(submission, reverse_path(submission, server), open);
    Ok(Ok(vec![Part { envelope, raw }]))
}

fn is_open(recipient: &RecipientState) -> bool {
    matches!(recipient.state, SubmissionState::Queued | SubmissionState::Deferred)
}

/// Bounces of mail sent by a user's account go to the user; those of a smarthost where the CRM asked.
fn reverse_path(submission: &Submission, server: &Server) -> ReversePath {
    let own: Option<&Address> = server.account_address.as_ref();
    own.map_or_else(|| submission.reverse_path.clone(), |address| ReversePath::Address(address.clone()))
}

/// What we ask of the server. DSN parameters stay with us: we report to the CRM ourselves.
fn envelope(_submission: &Submission, reverse_path: ReversePath, recipients: Vec<Recipient>) -> Envelope {
    let plain = |recipient: Recipient| Recipient::new(recipient.address);
    Envelope { recipients: recipients.into_iter().map(plain).collect(), ..Envelope::new(reverse_path) }
}

async fn send_all<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    (client, parts): (&mut Client<S>, Vec<Part>),
) -> Result<(), FlowError> {
    for part in &parts {
        let outcomes = send_part(gateway, job, message, (client, part)).await?;
        let results: Vec<_> =
            part.envelope.recipients.iter().map(|r| r.address.clone()).zip(outcomes).collect();
        record::outcomes(gateway, job, message, &results).await?;
        if !client.is_usable() {
            break;
        }
    }
    record::settle(gateway, job, message).await
}

async fn send_part<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    (client, part): (&mut Client<S>, &Part),
) -> Result<Vec<Outcome>, FlowError> {
    match client.send_data(&part.envelope, &part.raw).await {
        Ok(Transmission::Settled(outcomes)) => Ok(outcomes),
        Ok(Transmission::Pending(pending)) => {
            commit_intent(gateway, job, message, &part.envelope).await?;
            Ok(pending.finish().await)
        }
        Err(error) => Ok(vec![error.outcome(); part.envelope.recipients.len()]),
    }
}

/// From here on a crash means that nobody knows. Refused to a worker whose lease has run out: another one has the job.
async fn commit_intent(
    gateway: &Gateway,
    job: &Leased,
    message: MessageKey,
    envelope: &Envelope,
) -> Result<(), FlowError> {
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.hold_job(job).await?;
    let addresses: Vec<Address> =
        envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect();
    tx.intend_dot(message, &addresses, crate::flow::now()).await?;
    tx.commit().await?;
    Ok(())
}

/// Where a submission leaves: the account's provider, or the smarthost. `None` when it is gone.
pub(super) async fn server(
    session: &mut Session,
    account: Option<AccountId>,
) -> Result<Option<Server>, FlowError> {
    let Some(account) = account else {
        let smarthost = session.smarthost_access().await?;
        let server = |access: SmarthostAccess| Server {
            endpoint: access.endpoint,
            credentials: access.credentials,
            account_address: None,
        };
        return Ok(smarthost.map(server));
    };
    let access = session.account_access(account).await?;
    let server = |access: AccountAccess| Server {
        endpoint: access.settings.smtp,
        credentials: Some(access.credentials),
        account_address: Some(access.email),
    };
    Ok(access.map(server))
}

/// Sends one transaction of which no state is kept: a report.
pub(super) async fn send_once(gateway: &Gateway, server: &Server, part: &Part) -> Outcome {
    let opened = gateway.dialer.open_submission(server, &gateway.settings.hostname).await;
    let mut client = match opened {
        Ok(client) => client,
        Err(trouble) => return Outcome::Deferred(Reply::new(451, [4, 4, 1], trouble.recipient_text())),
    };
    let outcomes = match client.send_data(&part.envelope, &part.raw).await {
        Ok(Transmission::Settled(outcomes)) => outcomes,
        Ok(Transmission::Pending(pending)) => pending.finish().await,
        Err(error) => vec![error.outcome()],
    };
    if client.is_usable() {
        client.quit().await;
    }
    outcomes.into_iter().next().unwrap_or(Outcome::Unknown)
}

impl Trouble {
    /// What the recipients' states say of a server that could not be reached.
    pub(in crate::flow) fn recipient_text(&self) -> String {
        format!("Not sent yet: {self}")
    }
}
