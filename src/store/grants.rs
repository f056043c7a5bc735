//! What users have granted at their providers: the tokens that log in to accounts without a password, and who renews them.
//!
//! A renewal is claimed before the provider is asked, and its answer is durable before it is used: providers that rotate
//! refresh tokens take a second use of one for theft, and revoke all. Not here: when to renew (`core::grant`), and asking
//! (`flow`).

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Error, Place, Session, Tx,
    sql::{Row, sql},
};
use crate::core::{
    grant::{GrantState, LEASE_BELIEVED, REST_BELIEVED, Signer},
    ids::{AccountId, Id as _},
};

/// How long a doubtful refusal rests at most once there is no token any more.
const DOUBT_REST_SHORT: SignedDuration = SignedDuration::from_secs(8);

/// What logs in, and what gets another of it.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: SecretString,
    /// `None` of providers that give none: the user signs in again when the access token has expired.
    pub refresh: Option<SecretString>,
}

/// A grant as it is kept.
#[derive(Debug, Clone)]
pub struct Grant {
    pub tokens: Tokens,
    /// What a renewal brought that had been given up for dead.
    pub candidate: Option<Tokens>,
    /// Who signed in, where the provider says it.
    pub signer: Option<Signer>,
    pub state: GrantState,
    pub edition: Edition,
    /// How often in a row the provider has said that the grant is gone.
    pub doubts: u32,
    /// Since when the account's server for sending has taken none of its tokens.
    pub unwelcome_since: Option<Timestamp>,
}

/// Which tokens of which grant these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    /// The sign-in it came of.
    pub sign_in: Uuid,
    /// Raised whenever the tokens change.
    pub version: i64,
}

impl Edition {
    /// Of the tokens that take their place.
    #[must_use]
    pub fn next(self) -> Self {
        Self { version: self.version.saturating_add(1), ..self }
    }
}

/// What became of renewed tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    InPlace,
    /// Beside others that took their place: nobody can tell which of the two the provider believes in.
    Aside,
    /// Nowhere: the account logs in by another sign-in, or by none.
    Not,
}

/// Tokens that have just been issued.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    pub tokens: &'a Tokens,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The stored form: add optional fields, rename nothing.
#[derive(Serialize)]
struct Written<'a> {
    access: &'a str,
    refresh: Option<&'a str>,
}

/// The same, read back.
#[derive(Deserialize)]
struct Stored {
    access: SecretString,
    refresh: Option<SecretString>,
}

impl Tx {
    /// Keeps what a user has granted, in place of what he granted before.
    ///
    /// # Errors
    /// `Missing` when the account is gone or erased.
    pub async fn put_grant(
        &mut self,
        account: AccountId,
        issued: Issued<'_>,
        signer: Option<&Signer>,
    ) -> Result<(), Error> {
        let sealed = self.seal_tokens(account, TOKENS, issued.tokens).await?;
        let query = sql(
            "insert into grants (workspace, account, tokens, candidate, identity, issued_at, expires_at, \
             sign_in, version, renewing_until, retry_at, doubts) values ($1, $2, $3, null, $4, $5, $6, $7, 1, $5, $5, 0) \
             on conflict (workspace, account) do update set tokens = excluded.tokens, candidate = null, \
             identity = excluded.identity, issued_at = excluded.issued_at, expires_at = excluded.expires_at, \
             sign_in = excluded.sign_in, version = grants.version + 1, renewing_until = excluded.renewing_until, \
             retry_at = excluded.retry_at, doubts = 0, unwelcome_since = null",
        )
        .bind(self.workspace())
        .bind(account)
        .bind(sealed)
        .bind(signer.map(super::columns::json_text))
        .bind(issued.issued_at)
        .bind(issued.expires_at)
        .bind(Uuid::now_v7());
        self.execute(query).await?;
        Ok(())
    }

    /// Makes the caller the one who renews this edition, until then. False when somebody else is at it, or has done it. What
    /// lies further ahead than anybody sets it was set by a clock that was wrong, as in [`GrantState::step`].
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn claim_renewal(
        &mut self,
        account: AccountId,
        edition: Edition,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let query = sql("update grants set renewing_until = $4 where workspace = $1 and account = $2 \
             and version = $3 and sign_in = $8 and (renewing_until <= $5 or renewing_until > $6) \
             and (retry_at <= $5 or retry_at > $7)")
        .bind(self.workspace())
        .bind(account)
        .bind(edition.version)
        .bind(until)
        .bind(now)
        .bind(now.saturating_add(LEASE_BELIEVED).unwrap_or(Timestamp::MAX))
        .bind(now.saturating_add(REST_BELIEVED).unwrap_or(Timestamp::MAX))
        .bind(edition.sign_in);
        Ok(self.execute(query).await? == 1)
    }

    /// Puts renewed tokens in the place of those of this edition, or beside those that have replaced it meanwhile.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn renew_grant(
        &mut self,
        account: AccountId,
        edition: Edition,
        issued: Issued<'_>,
    ) -> Result<Kept, Error> {
        // Whoever disconnects it, or has it sign in anew, gives back what he finds here.
        if self.account_to_change(account).await?.is_none() || self.login_key(account).await?.is_none() {
            return Ok(Kept::Not);
        }
        let sealed = self.seal_tokens(account, TOKENS, issued.tokens).await?;
        let query = sql("update grants set tokens = $5, candidate = null, issued_at = $6, expires_at = $7, \
             version = version + 1, renewing_until = $6, retry_at = $6, doubts = 0 \
             where workspace = $1 and account = $2 and sign_in = $3 and version = $4")
        .bind(self.workspace())
        .bind(account)
        .bind(edition.sign_in)
        .bind(edition.version)
        .bind(sealed)
        .bind(issued.issued_at)
        .bind(issued.expires_at);
        if self.execute(query).await? == 1 {
            return Ok(Kept::InPlace);
        }
        let sealed = self.seal_tokens(account, CANDIDATE, issued.tokens).await?;
        let query =
            sql("update grants set candidate = $4 where workspace = $1 and account = $2 and sign_in = $3")
                .bind(self.workspace())
                .bind(account)
                .bind(edition.sign_in)
                .bind(sealed);
        Ok(if self.execute(query).await? == 1 { Kept::Aside } else { Kept::Not })
    }

    /// Ends a renewal that came to nothing: the provider is not asked again before `retry_at`. Nothing happens when the version
    /// has been replaced meanwhile.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn rest_grant(
        &mut self,
        account: AccountId,
        edition: Edition,
        retry_at: Timestamp,
        doubts: u32,
    ) -> Result<(), Error> {
        let query = sql("update grants set renewing_until = $4, retry_at = $4, doubts = $5 \
             where workspace = $1 and account = $2 and version = $3 and sign_in = $6")
        .bind(self.workspace())
        .bind(account)
        .bind(edition.version)
        .bind(retry_at)
        .bind(i64::from(doubts))
        .bind(edition.sign_in);
        self.execute(query).await?;
        Ok(())
    }

    /// Has the access token of this edition renewed by whoever wants one next: the provider does not take it any more.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn expire_grant(
        &mut self,
        account: AccountId,
        edition: Edition,
        now: Timestamp,
    ) -> Result<(), Error> {
        // A rest over what may have been said by mistake was for while the token is good.
        let query = sql("update grants set expires_at = $4, \
             retry_at = case when doubts > 0 and retry_at > $6 then $6 else retry_at end, \
             renewing_until = case when doubts > 0 and renewing_until = retry_at and retry_at > $6 then $6 \
             else renewing_until end \
             where workspace = $1 and account = $2 and version = $3 and sign_in = $5 and expires_at > $4")
        .bind(self.workspace())
        .bind(account)
        .bind(edition.version)
        .bind(now)
        .bind(edition.sign_in)
        .bind(now.saturating_add(DOUBT_REST_SHORT).unwrap_or(Timestamp::MAX));
        self.execute(query).await?;
        Ok(())
    }

    /// Notes that the account's server for sending takes no token. Since when; `None` where nothing is granted.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn note_unwelcome(
        &mut self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let query = sql("update grants set unwelcome_since = coalesce(unwelcome_since, $3) \
             where workspace = $1 and account = $2 returning unwelcome_since")
        .bind(self.workspace())
        .bind(account)
        .bind(now);
        self.fetch_optional(query).await?.map(|row| row.get("unwelcome_since")).transpose()
    }

    /// Notes that it does.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn note_welcome(&mut self, account: AccountId) -> Result<(), Error> {
        let query = sql("update grants set unwelcome_since = null where workspace = $1 and account = $2")
            .bind(self.workspace())
            .bind(account);
        self.execute(query).await?;
        Ok(())
    }

    /// Forgets a grant, if there is one.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn forget_grant(&mut self, account: AccountId) -> Result<(), Error> {
        let query = sql("delete from grants where workspace = $1 and account = $2")
            .bind(self.workspace())
            .bind(account);
        self.execute(query).await?;
        Ok(())
    }

    async fn seal_tokens(
        &mut self,
        account: AccountId,
        column: &'static str,
        tokens: &Tokens,
    ) -> Result<Vec<u8>, Error> {
        let key = self.login_key(account).await?.ok_or(Error::Missing)?;
        let refresh = tokens.refresh.as_ref().map(|token| token.expose_secret());
        let written = Written { access: tokens.access.expose_secret(), refresh };
        let text = serde_json::to_vec(&written).map(Zeroizing::new).expect("texts serialise");
        self.seal(key, &place(account, column), &text).await
    }
}

impl Session {
    /// What a user has granted; `None` when the account logs in by other means, or is erased.
    ///
    /// # Errors
    /// `Corrupt` when the tokens cannot be opened.
    pub async fn grant(&mut self, account: AccountId) -> Result<Option<Grant>, Error> {
        let Some(key) = self.login_key(account).await? else { return Ok(None) };
        let query = sql(
            "select tokens, candidate, identity, issued_at, expires_at, sign_in, version, renewing_until, \
             retry_at, doubts, unwelcome_since from grants where workspace = $1 and account = $2",
        )
        .bind(self.workspace())
        .bind(account);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        let tokens = self.open_tokens(account, (key, TOKENS), row.get("tokens")?).await?;
        let candidate = match row.get::<Option<Vec<u8>>>("candidate")? {
            Some(sealed) => Some(self.open_tokens(account, (key, CANDIDATE), sealed).await?),
            None => None,
        };
        read(&row, tokens, candidate).map(Some)
    }

    async fn open_tokens(
        &mut self,
        account: AccountId,
        (key, column): (Uuid, &'static str),
        sealed: Vec<u8>,
    ) -> Result<Tokens, Error> {
        let text = Zeroizing::new(self.open_sealed(key, &place(account, column), &sealed).await?);
        // The error would quote the text.
        let Stored { access, refresh } =
            serde_json::from_slice(&text).map_err(|_| Error::Corrupt("tokens: unreadable".into()))?;
        Ok(Tokens { access, refresh })
    }

    /// The key that seals what logs in to an account; `None` when there is no such account, or it is erased.
    async fn login_key(&mut self, account: AccountId) -> Result<Option<Uuid>, Error> {
        let query = sql("select key_id from accounts where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(account);
        Ok(self.fetch_optional(query).await?.map(|row| row.get("key_id")).transpose()?.flatten())
    }
}

const TOKENS: &str = "tokens";
const CANDIDATE: &str = "candidate";

fn place(account: AccountId, column: &'static str) -> Place {
    Place::new("grants", column, account.uuid())
}

fn read(row: &Row, tokens: Tokens, candidate: Option<Tokens>) -> Result<Grant, Error> {
    let doubts: i64 = row.get("doubts")?;
    Ok(Grant {
        tokens,
        candidate,
        signer: row.opt_json("identity")?,
        state: GrantState {
            issued_at: row.get("issued_at")?,
            expires_at: row.get("expires_at")?,
            renewing_until: row.get("renewing_until")?,
            retry_at: row.get("retry_at")?,
        },
        edition: Edition { sign_in: row.get("sign_in")?, version: row.get("version")? },
        doubts: u32::try_from(doubts).unwrap_or(u32::MAX),
        unwelcome_since: row.get("unwelcome_since")?,
    })
}
