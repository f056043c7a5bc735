//! Giving a grant back: a token that nobody has any more is still good at its provider.
//!
//! Not here: forgetting it (`store`), which does not wait for the provider.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::sleep;

use super::SignIn;
use crate::{
    account::oauth::Registered,
    core::account::{Account, Credentials},
    store::{Error, Session},
};

/// Pauses between tries. Whoever stops the gateway waits for them, so they are few: users can withdraw a grant themselves.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// A grant that is to be given back.
pub struct Parting {
    provider: Arc<Registered>,
    refresh_token: SecretString,
}

impl SignIn {
    /// What is to be given back when an account is parted from; `None` when its user has granted nothing, or another account,
    /// maybe of another workspace, lives by the same permission: with some providers that ends with any of its tokens (RFC 7009
    /// section 2.1).
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn parting(&self, session: &mut Session, account: &Account) -> Result<Option<Parting>, Error> {
        let Some(Credentials::OAuth2 { provider, .. }) = readable(session.credentials(account.id).await)?
        else {
            return Ok(None);
        };
        let Some(grant) = readable(session.grant(account.id).await)? else { return Ok(None) };
        let provider = self.providers().named(&provider).filter(|provider| provider.domains.is_none());
        let Some((provider, refresh_token)) = provider.zip(grant.tokens.refresh) else { return Ok(None) };
        let own = (session.workspace(), account);
        let mut all = session.store().system_read().await?;
        let is_shared = all.is_granted_to_others(own, grant.signer.as_ref()).await?;
        Ok((!is_shared).then_some(Parting { provider, refresh_token }))
    }

    /// Tells the provider, once it is certain that nobody needs the grant any more.
    pub fn give_back(&self, Parting { provider, refresh_token }: Parting) {
        self.0.renewals.spawn(async move {
            for pause in PAUSES {
                match provider.client.revoke(&refresh_token).await {
                    Ok(()) => return,
                    Err(error) => tracing::info!(error = %error, "a grant could not be given back yet"),
                }
                sleep(pause).await;
            }
            if provider.client.revoke(&refresh_token).await.is_err() {
                tracing::warn!("a grant could not be given back: its user may withdraw it at the provider");
            }
        });
    }
}

/// What cannot be read cannot be given back.
fn readable<T>(read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(error) if error.is_lasting() => Ok(None),
        read => read,
    }
}
