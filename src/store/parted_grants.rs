//! Grants that nothing here logs in by any more, kept until their providers know it too.
//!
//! Not here: telling them (`flow::login`), and the grants in use (`grants`).

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Place, ReadSystem, Session, Tx, sql::sql};
use crate::{core::grant::Signer, mail::Address};

/// What is to be given back.
#[derive(Debug, Clone, Deserialize)]
pub struct PartedGrant {
    /// As the operator has registered it.
    pub provider: String,
    /// Of the account that logged in by it.
    pub email: Address,
    pub signer: Option<Signer>,
    pub refresh: SecretString,
}

/// The stored form: add optional fields, rename nothing.
#[derive(Serialize)]
struct Written<'a> {
    provider: &'a str,
    email: &'a Address,
    signer: Option<&'a Signer>,
    refresh: &'a str,
}

impl Tx {
    /// Keeps a grant to be given back, sealed under the workspace's key: the account's may be about to go.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn keep_parted_grant(&mut self, parted: &PartedGrant, now: Timestamp) -> Result<Uuid, Error> {
        let PartedGrant { provider, email, signer, refresh } = parted;
        let refresh = refresh.expose_secret();
        let written = Written { provider, email, signer: signer.as_ref(), refresh };
        let text = serde_json::to_vec(&written).map(Zeroizing::new).expect("texts serialise");
        let (id, key) = (Uuid::now_v7(), self.workspace_key().await?);
        let sealed = self.seal(key, &place(id), &text).await?;
        let query =
            sql("insert into parted_grants (workspace, id, parted, created_at) values ($1, $2, $3, $4)")
                .bind(self.workspace())
                .bind(id)
                .bind(sealed)
                .bind(now);
        self.execute(query).await?;
        Ok(id)
    }

    /// Forgets what was given back, or cannot be.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn drop_parted_grant(&mut self, id: Uuid) -> Result<(), Error> {
        let query =
            sql("delete from parted_grants where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        self.execute(query).await?;
        Ok(())
    }
}

impl Session {
    /// What is to be given back; `None` when it was.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be opened.
    pub async fn parted_grant(&mut self, id: Uuid) -> Result<Option<PartedGrant>, Error> {
        let query = sql("select parted from parted_grants where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        let (key, sealed) = (self.workspace_key().await?, row.get::<Vec<u8>>("parted")?);
        let text = Zeroizing::new(self.open_sealed(key, &place(id), &sealed).await?);
        // The error would quote the text.
        let parted =
            serde_json::from_slice(&text).map_err(|_| Error::Corrupt("parted_grants: unreadable".into()))?;
        Ok(Some(parted))
    }
}

impl ReadSystem {
    /// Whether an account, in whatever workspace, logs in by what the same person has granted. Of whom nobody has said who he
    /// is, by a grant for the same address. An account that is gone, or whose grant the provider calls dead, does not.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn is_still_granted(&mut self, parted: &PartedGrant) -> Result<bool, Error> {
        let PartedGrant { email, signer, .. } = parted;
        // A text of its own in the JSON: rows that only look alike are compared below.
        let subject = signer.as_ref().map(|signer| super::columns::json_text(&signer.subject));
        let query = sql("select g.identity, a.email from grants g \
             join accounts a on a.workspace = g.workspace and a.id = g.account \
             where a.state not in ('disconnected', 'erasing', 'erased', 'reauth_required') \
             and (lower(a.email) = lower($1) or replace(g.identity, $2, '') <> g.identity)")
        .bind(email.to_string())
        .bind(subject);
        for row in self.fetch_all(query).await? {
            let other: Option<Signer> = row.opt_json("identity")?;
            let is_his = match (&other, signer) {
                (Some(other), Some(signer)) => other.is_same(signer),
                _ => row.get::<String>("email")?.eq_ignore_ascii_case(&email.to_string()),
            };
            if is_his {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn place(id: Uuid) -> Place {
    Place::new("parted_grants", "parted", id)
}
