//! How mail leaves: the account a user sends by, the smarthost, and what it takes to log in to either.
//!
//! Not here: which of them policy chooses (`flow::submit`).

use super::{Error, Session, Tx, sql::sql};
use crate::core::{
    account::{AccountSettings, AccountState, Credentials, Endpoint},
    ids::{AccountId, UserId},
    submission::Submission,
};
use crate::mail::Address;

/// Where an account's servers are, and what logs in there.
#[derive(Debug, Clone)]
pub struct AccountAccess {
    pub email: Address,
    pub settings: AccountSettings,
    pub credentials: Credentials,
    /// The account's, when this was read.
    pub generation: u32,
}

/// Where a smarthost is, and what logs in there.
#[derive(Debug, Clone)]
pub struct SmarthostAccess {
    pub endpoint: Endpoint,
    pub credentials: Option<Credentials>,
}

impl Session {
    /// The account by which a user's mail leaves: the one with his own address, else the first connected.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn sending_account(&mut self, user: UserId) -> Result<Option<AccountId>, Error> {
        let gone = [
            AccountState::Disconnected,
            AccountState::Erasing,
            AccountState::Erased,
            AccountState::WaitingForQuota,
        ];
        let query = sql("select a.id, a.state from accounts a join users u on u.workspace = a.workspace and u.id = a.user_id \
             where a.workspace = $1 and a.user_id = $2 \
             order by case when a.email = u.email then 0 else 1 end, a.connected_at, a.id")
        .bind(self.workspace())
        .bind(user);
        for row in self.fetch_all(query).await? {
            let state: AccountState = row.word("state")?;
            if !gone.contains(&state) {
                return Ok(Some(row.id("id")?));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// When the database is out of reach.
    pub async fn has_smarthost(&mut self) -> Result<bool, Error> {
        let query = sql("select workspace from smarthosts where workspace = $1").bind(self.workspace());
        Ok(self.fetch_optional(query).await?.is_some())
    }

    /// What it takes to log in to an account; `None` when it is gone.
    ///
    /// # Errors
    /// `Corrupt` when its credentials cannot be opened.
    pub async fn account_access(&mut self, id: AccountId) -> Result<Option<AccountAccess>, Error> {
        let Some(account) = self.account(id).await? else { return Ok(None) };
        let credentials = self.credentials(id).await?;
        Ok(credentials.map(|credentials| AccountAccess {
            email: account.email,
            settings: account.settings,
            credentials,
            generation: account.generation,
        }))
    }

    /// What it takes to log in to the smarthost; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when its credentials cannot be opened.
    pub async fn smarthost_access(&mut self) -> Result<Option<SmarthostAccess>, Error> {
        let Some(smarthost) = self.smarthost().await? else { return Ok(None) };
        let credentials = self.smarthost_credentials().await?;
        Ok(Some(SmarthostAccess { endpoint: smarthost.endpoint, credentials }))
    }
}

impl Tx {
    /// Writes a submission's state and its recipients'.
    ///
    /// # Errors
    /// `Missing` when there is no such submission.
    pub async fn set_submission(&mut self, submission: &Submission) -> Result<(), Error> {
        let step = super::SubmissionStep {
            state: submission.state,
            attempt: submission.attempt,
            next_attempt_at: submission.next_attempt_at,
            dot_intent_at: submission.dot_intent_at,
            detail: submission.detail.clone(),
        };
        self.set_submission_state(submission.message, &step).await?;
        self.set_dsn_order(submission.message, &submission.dsn).await?;
        self.set_recipients(submission.message, &submission.recipients).await
    }
}
