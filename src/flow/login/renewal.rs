//! One renewal of a grant: the provider is asked, and its answer is durable before anybody uses it.
//!
//! Not here: who may renew (`login`), which is settled before.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;

use super::part_from;
use crate::{
    account::{
        Trouble,
        oauth::{Granted, Registered, TokenError},
    },
    core::{
        grant::{DOUBTS_MAX, Refused},
        ids::{AccountId, WorkspaceId},
    },
    flow::{jitter, signed},
    mail::Address,
    store::{Edition, Error, Grant, Issued, Kept, PartedGrant, Store, Tokens, Tx},
};

/// How long an endpoint in trouble is left alone, and up to half as long again.
const REST: Duration = Duration::from_secs(20);
/// The same when it is the operator who has to do something.
const REGISTRATION_REST: Duration = Duration::from_secs(120);
/// How long after each refusal that may be a mistake it is asked again, and at most while the access token is good: then there is
/// time for a third of what is left of it.
const DOUBT_RESTS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(8)];
const DOUBT_REST_MAX: Duration = Duration::from_secs(120);
/// How often, a second apart, an answer is tried to be written down while the store is away.
const WRITES_MAX: u32 = 120;

/// What came of it.
pub(super) enum Renewed {
    /// The new access token and its edition.
    Token((SecretString, Edition)),
    /// What is stored says how it goes on.
    LookAgain,
    Trouble(Trouble),
}

/// A renewal that has been claimed.
pub(super) struct Renewal {
    pub store: Store,
    pub whose: (WorkspaceId, AccountId),
    /// As the operator has registered it.
    pub provider_name: String,
    pub provider: Arc<Registered>,
    pub username: String,
    pub grant: Grant,
}

impl Renewal {
    /// # Errors
    /// Those of the store.
    pub(super) async fn perform(self) -> Result<Renewed, Error> {
        // Of before the answer: a token is at least as old as that.
        let asked_at = self.store.clock().await?;
        match self.provider.renew(self.grant.tokens.refresh.as_ref(), &self.username).await {
            Some(Ok(granted)) => self.keep(granted, asked_at).await,
            Some(Err(error)) => self.refused(error).await,
            None => self.end("the provider gave nothing to renew it with").await,
        }
    }

    /// Writes the answer down. A store that is away is waited for: without it the next renewal would use a token twice.
    async fn keep(self, granted: Granted, issued_at: Timestamp) -> Result<Renewed, Error> {
        let refresh = granted.refresh_token.or(self.grant.tokens.refresh.clone());
        let tokens = Tokens { access: granted.access_token, refresh };
        let expires_at = issued_at.saturating_add(granted.lifetime).unwrap_or(Timestamp::MAX);
        let issued = Issued { tokens: &tokens, issued_at, expires_at };
        for _ in 0..WRITES_MAX {
            match self.write(issued).await {
                Ok(Kept::InPlace) => {
                    return Ok(Renewed::Token((tokens.access, self.grant.edition.next())));
                }
                Ok(Kept::Aside | Kept::Not) => return Ok(Renewed::LookAgain),
                Err(error) if error.is_lasting() => return Err(error),
                Err(error) => {
                    tracing::warn!(account = %self.whose.1, error = %error, "a renewed grant waits for our store");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tracing::error!(account = %self.whose.1, "a renewed grant could not be written down, and is lost");
        Ok(Renewed::LookAgain)
    }

    async fn write(&self, issued: Issued<'_>) -> Result<Kept, Error> {
        let mut tx = self.begin().await?;
        let kept = tx.renew_grant(self.whose.1, self.grant.edition, issued).await?;
        let spent = self.grant.tokens.refresh.as_ref().map(ExposeSecret::expose_secret);
        let fresh = issued.tokens.refresh.as_ref().filter(|fresh| Some(fresh.expose_secret()) != spent);
        // Whoever disconnected the account, or signed in anew, gave back what had been spent by then.
        if let (Kept::Not, Some(refresh)) = (kept, fresh) {
            let parted = PartedGrant {
                provider: self.provider_name.clone(),
                account: Some(self.whose.1),
                emails: Address::parse(&self.username).into_iter().collect(),
                signer: self.grant.signer.clone(),
                refresh: refresh.clone(),
            };
            part_from(&mut tx, &parted, issued.issued_at).await?;
        }
        tx.commit().await?;
        Ok(kept)
    }

    async fn begin(&self) -> Result<Tx, Error> {
        self.store.begin(self.whose.0).await
    }

    async fn refused(self, error: TokenError) -> Result<Renewed, Error> {
        let account = self.whose.1;
        tracing::info!(%account, error = %error, doubts = self.grant.doubts, "a grant was not renewed");
        let (own_rest, text) = (error.wait(), error.to_string());
        match self.provider.meaning(&error) {
            Refused::ForNow => {
                self.rest(own_rest.unwrap_or(REST), self.grant.doubts).await?;
                Ok(Renewed::LookAgain)
            }
            Refused::Registration => {
                let is_good = self.store.clock().await? < self.grant.state.expires_at;
                self.rest(own_rest.unwrap_or(REGISTRATION_REST), self.grant.doubts).await?;
                Ok(if is_good { Renewed::LookAgain } else { Renewed::Trouble(Trouble::Registration(text)) })
            }
            Refused::Doubtful(reason) => {
                let doubts = self.grant.doubts.saturating_add(1);
                let index = usize::try_from(self.grant.doubts).unwrap_or(usize::MAX);
                let left = self.grant.state.expires_at.duration_since(self.store.clock().await?);
                let spared = Duration::try_from(left).unwrap_or_default().min(DOUBT_REST_MAX * 3) / 3;
                match DOUBT_RESTS.get(index).filter(|_| doubts < DOUBTS_MAX) {
                    Some(rest) => self.rest(spared.max(*rest), doubts).await.map(|()| Renewed::LookAgain),
                    None => self.end(reason).await,
                }
            }
            Refused::ForGood(reason) => self.end(reason).await,
        }
    }

    async fn rest(&self, rest: Duration, doubts: u32) -> Result<(), Error> {
        let rest = signed(rest.mul_f64(1.0 + jitter() / 2.0));
        let until = self.store.clock().await?.saturating_add(rest).unwrap_or(Timestamp::MAX);
        let mut tx = self.begin().await?;
        tx.rest_grant(self.whose.1, self.grant.edition, until, doubts).await?;
        tx.commit().await
    }

    /// The provider has said its last word about these tokens: unless there are others, the user has to sign in again.
    async fn end(self, reason: &'static str) -> Result<Renewed, Error> {
        let (account, now) = (self.whose.1, self.store.clock().await?);
        let mut tx = self.begin().await?;
        tx.account_to_change(account).await?;
        let Some(grant) = tx.grant(account).await? else { return Ok(Renewed::LookAgain) };
        let is_over = grant.edition == self.grant.edition && grant.candidate.is_none();
        match &grant.candidate {
            _ if grant.edition != self.grant.edition => {}
            Some(tokens) => {
                // What a renewal brought that had been given up for dead: its refresh token may be the one that is good.
                let issued = Issued { tokens, issued_at: now, expires_at: now };
                tx.renew_grant(account, grant.edition, issued).await?;
            }
            None => tx.rest_grant(account, grant.edition, now, DOUBTS_MAX).await?,
        }
        tx.commit().await?;
        Ok(match is_over {
            true => Renewed::Trouble(Trouble::SignIn(reason.to_owned())),
            false => Renewed::LookAgain,
        })
    }
}
