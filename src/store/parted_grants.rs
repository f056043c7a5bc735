//! Grants that nothing here logs in by any more, kept until their providers know it too.
//!
//! Not here: telling them (`flow::login`), and the grants in use (`grants`).

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Place, ReadSystem, Session, Tx, columns::json_text, sql::sql};
use crate::{
    core::{grant::Signer, ids::AccountId},
    mail::Address,
};

/// What is to be given back.
#[derive(Debug, Clone, Deserialize)]
pub struct PartedGrant {
    /// As the operator has registered it.
    pub provider: String,
    /// Which logged in by it; `None` where none ever did.
    pub account: Option<AccountId>,
    /// Under which its user is known here.
    pub emails: Vec<Address>,
    pub signer: Option<Signer>,
    pub refresh: SecretString,
}

/// The stored form: add optional fields, rename nothing.
#[derive(Serialize)]
struct Written<'a> {
    provider: &'a str,
    account: Option<AccountId>,
    emails: &'a [Address],
    signer: Option<&'a Signer>,
    refresh: &'a str,
}

impl Tx {
    /// Keeps a grant to be given back, sealed under the workspace's key: the account's may be about to go.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn keep_parted_grant(&mut self, parted: &PartedGrant, now: Timestamp) -> Result<Uuid, Error> {
        let PartedGrant { provider, account, emails, signer, refresh } = parted;
        let refresh = refresh.expose_secret();
        let written = Written { provider, account: *account, emails, signer: signer.as_ref(), refresh };
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
    /// Whether an account, in whatever workspace, logs in by what the same person has granted. Where of one of the two nobody has
    /// said who he is, it does when it is the same account, or any of his addresses is among its own: a grant too many that lives on
    /// costs less than one too few. An account that is gone, or whose grant the provider calls dead, does not.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn is_still_granted(&mut self, parted: &PartedGrant) -> Result<bool, Error> {
        let signer_email = parted.signer.as_ref().and_then(|signer| signer.email.as_ref());
        for email in parted.emails.iter().chain(signer_email) {
            for other in self.grants_near(parted, email).await? {
                if other
                    .as_ref()
                    .zip(parted.signer.as_ref())
                    .is_none_or(|(other, signer)| other.is_same(signer))
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Who has signed in for each grant in use that is of this account or address, or may be of the same person.
    async fn grants_near(
        &mut self,
        parted: &PartedGrant,
        email: &Address,
    ) -> Result<Vec<Option<Signer>>, Error> {
        // A text of its own in the JSON: rows that only look alike are told apart by the caller.
        let subject = parted.signer.as_ref().map(|signer| json_text(&signer.subject));
        let query = sql("select g.identity from grants g \
             join accounts a on a.workspace = g.workspace and a.id = g.account \
             where a.state not in ('disconnected', 'erasing', 'erased', 'reauth_required') \
             and (lower(a.email) = lower($1) or a.id = $2 or replace(g.identity, $3, '') <> g.identity \
             or replace(lower(g.identity), lower($4), '') <> lower(g.identity))")
        .bind(email.to_string())
        .bind(parted.account)
        .bind(subject)
        .bind(json_text(email));
        // One that cannot be read says nothing of who signed in.
        let rows = self.fetch_all(query).await?;
        Ok(rows.iter().map(|row| row.opt_json("identity").unwrap_or_default()).collect())
    }
}

fn place(id: Uuid) -> Place {
    Place::new("parted_grants", "parted", id)
}
