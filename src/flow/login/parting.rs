//! Giving grants back: a refresh token that nothing here logs in by any more is still good at its provider (RFC 7009).
//!
//! Not here: forgetting it (`store`). Whoever does calls [`part_from_grant`] in the same transaction, and a job tells the provider.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    core::{
        account::{Account, Credentials},
        job::Job,
        retry,
    },
    flow::{self, FlowError, Gateway},
    queue::{Leased, Settlement},
    store::{Error, PartedGrant, Tx},
};

/// How long a provider is told. Then its user may still withdraw the grant there himself.
const TOLD_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Has what an account logs in by given back. Nothing happens where nobody has granted anything, or it cannot be read. Before it
/// is forgotten or replaced, with the account as it was until then.
///
/// # Errors
/// When the database is out of reach.
pub async fn part_from_grant(tx: &mut Tx, account: &Account, now: Timestamp) -> Result<(), Error> {
    let Some(Credentials::OAuth2 { provider, .. }) = readable(tx.credentials(account.id).await)? else {
        return Ok(());
    };
    let Some(grant) = readable(tx.grant(account.id).await)? else { return Ok(()) };
    // Of a candidate nobody knows yet whether it is the good one.
    let tokens = [Some(grant.tokens), grant.candidate].into_iter().flatten();
    for refresh in tokens.filter_map(|tokens| tokens.refresh) {
        let parted = PartedGrant {
            provider: provider.clone(),
            account: Some(account.id),
            emails: vec![account.email.clone()],
            signer: grant.signer.clone(),
            refresh,
        };
        part_from(tx, &parted, now).await?;
    }
    Ok(())
}

/// The same of a grant that was never anybody's login.
///
/// # Errors
/// When the database is out of reach.
pub async fn part_from(tx: &mut Tx, parted: &PartedGrant, now: Timestamp) -> Result<(), Error> {
    let grant = tx.keep_parted_grant(parted, now).await?;
    tx.enqueue_job(&Job::GiveBack { grant }, now).await
}

/// Tells the provider, until it has heard it.
///
/// # Errors
/// Those of the store.
pub async fn give_back(gateway: &Gateway, job: &Leased, grant: Uuid) -> Result<(), FlowError> {
    let parted = readable(gateway.store.read(job.workspace).await?.parted_grant(grant).await)?;
    let is_over = match parted {
        Some(parted) => tell(gateway, job, &parted).await?,
        None => true,
    };
    let mut tx = gateway.store.begin(job.workspace).await?;
    if is_over {
        tx.drop_parted_grant(grant).await?;
        tx.settle(job, Settlement::Done).await?;
    } else {
        let wait = retry::submission(job.tries.saturating_add(1), flow::jitter());
        tx.settle(job, Settlement::TriedUntil(flow::now() + flow::signed(wait))).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// False when it is to be told again. With some providers a permission ends with any of its tokens (RFC 7009 section 2.1): what
/// another account lives by, maybe of another workspace, is not given back. Nor is what was given for a whole domain.
async fn tell(gateway: &Gateway, job: &Leased, parted: &PartedGrant) -> Result<bool, Error> {
    let provider = gateway.sign_in.providers().named(&parted.provider);
    let Some(provider) = provider.filter(|provider| provider.domains.is_none()) else { return Ok(true) };
    if gateway.store.system_read().await?.is_still_granted(parted).await? {
        return Ok(true);
    }
    let Err(error) = provider.client.revoke(&parted.refresh).await else { return Ok(true) };
    let is_given_up = flow::now().duration_since(job.created_at) > TOLD_FOR;
    if is_given_up {
        tracing::warn!(error = %error, "a grant could not be given back: its user may withdraw it at the provider");
    } else {
        tracing::info!(error = %error, "a grant could not be given back yet");
    }
    Ok(is_given_up)
}

/// What cannot be read cannot be given back.
fn readable<T>(read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(error) if error.is_lasting() => Ok(None),
        read => read,
    }
}
