//! Links by which users connect accounts themselves, and the sign-ins that were begun at them.
//!
//! Kept as hashes of what makes them good. Not here: the pages (`http`), and what is granted in the end (`store::grants`).

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{
    Error, PURGE_ROWS_MAX, ReadSystem, System, Tx,
    columns::json_text,
    sql::{Row, sql},
    vault::Place,
};
use crate::core::{
    account::SharedMailbox,
    ids::{UserId, WorkspaceId},
};

/// A link of a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectLink {
    pub workspace: WorkspaceId,
    pub id: Uuid,
    pub user: UserId,
    /// Where he is to sign in, as the operator calls it; `None` lets him choose.
    pub provider: Option<String>,
    /// What he is to connect, where that is not his own.
    pub mailbox: Option<SharedMailbox>,
    pub expires_at: Timestamp,
    pub is_used: bool,
}

/// A sign-in that begins.
#[derive(Debug)]
pub struct Departure<'a> {
    pub state_hash: [u8; 32],
    /// Of what the browser shows when it comes back.
    pub cookie_hash: [u8; 32],
    pub verifier: &'a SecretString,
    pub provider: &'a str,
    pub at: Timestamp,
}

/// A sign-in from which somebody comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    pub link: ConnectLink,
    pub cookie_hash: [u8; 32],
    pub provider: String,
    pub at: Timestamp,
}

const COLUMNS: &str =
    "workspace, id, user_id, provider, mailbox, expires_at, used_at, cookie_hash, departed_to, departed_at";

impl Tx {
    /// # Errors
    /// `Missing` when there is no such user.
    pub async fn insert_connect_link(
        &mut self,
        link: &ConnectLink,
        token_hash: &[u8; 32],
    ) -> Result<(), Error> {
        let query = sql(
            "insert into connect_links (workspace, id, user_id, token_hash, provider, mailbox, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.workspace())
        .bind(link.id)
        .bind(link.user)
        .bind(token_hash.to_vec())
        .bind(link.provider.clone())
        .bind(link.mailbox.as_ref().map(json_text))
        .bind(link.expires_at);
        self.execute(query).await.map(drop)
    }

    /// Notes that the user is on his way to sign in, in place of any earlier way.
    ///
    /// # Errors
    /// `Missing` when the link is gone or was used.
    pub async fn depart(&mut self, link: Uuid, departure: Departure<'_>) -> Result<(), Error> {
        let key = self.content_key(None).await?;
        let place = Place::new("connect_links", "verifier", link);
        let verifier = self.seal(key, &place, departure.verifier.expose_secret().as_bytes()).await?;
        let query =
            sql("update connect_links set state_hash = $3, cookie_hash = $4, verifier = $5, key_id = $6, \
             departed_to = $7, departed_at = $8 where workspace = $1 and id = $2 and used_at is null")
            .bind(self.workspace())
            .bind(link)
            .bind(departure.state_hash.to_vec())
            .bind(departure.cookie_hash.to_vec())
            .bind(verifier)
            .bind(key)
            .bind(departure.provider)
            .bind(departure.at);
        super::columns::changed(self.execute(query).await?)
    }

    /// Takes up a sign-in: what proves that the code was given to us. `None` when it was taken up before.
    ///
    /// # Errors
    /// `Corrupt` when it does not open.
    pub async fn take_up_sign_in(
        &mut self,
        link: Uuid,
        state_hash: &[u8; 32],
    ) -> Result<Option<SecretString>, Error> {
        let query = sql(
            "select verifier, key_id from connect_links where workspace = $1 and id = $2 and state_hash = $3",
        )
        .bind(self.workspace())
        .bind(link)
        .bind(state_hash.to_vec());
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        let (sealed, key) = (row.get::<Vec<u8>>("verifier")?, row.get::<Uuid>("key_id")?);
        let query = sql("update connect_links set state_hash = null, cookie_hash = null, verifier = null, \
             departed_to = null, departed_at = null where workspace = $1 and id = $2 and state_hash = $3")
        .bind(self.workspace())
        .bind(link)
        .bind(state_hash.to_vec());
        if self.execute(query).await? == 0 {
            return Ok(None);
        }
        let place = Place::new("connect_links", "verifier", link);
        let verifier = String::from_utf8(self.open_sealed(key, &place, &sealed).await?);
        let verifier = verifier.map_err(|_| Error::Corrupt("connect_links.verifier is no text".into()))?;
        Ok(Some(verifier.into()))
    }

    /// Notes that an account was connected by the link. False when it had been used.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn use_connect_link(&mut self, link: Uuid, now: Timestamp) -> Result<bool, Error> {
        let query =
            sql("update connect_links set used_at = $3 where workspace = $1 and id = $2 and used_at is null")
                .bind(self.workspace())
                .bind(link)
                .bind(now);
        Ok(self.execute(query).await? > 0)
    }
}

impl ReadSystem {
    /// The link that this is the hash of, whatever the workspace.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn connect_link(&mut self, token_hash: &[u8; 32]) -> Result<Option<ConnectLink>, Error> {
        let query = sql(format!("select {COLUMNS} from connect_links where token_hash = $1"))
            .bind(token_hash.to_vec());
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// The sign-in whose state this is the hash of.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn departed(&mut self, state_hash: &[u8; 32]) -> Result<Option<Departed>, Error> {
        let query = sql(format!("select {COLUMNS} from connect_links where state_hash = $1"))
            .bind(state_hash.to_vec());
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        Ok(Some(Departed {
            link: read(&row)?,
            cookie_hash: row.get("cookie_hash")?,
            provider: row.get("departed_to")?,
            at: row.get("departed_at")?,
        }))
    }
}

impl System {
    /// Forgets some links that have expired before this. How many.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn purge_connect_links(&mut self, before: Timestamp) -> Result<u64, Error> {
        let query = sql("delete from connect_links where (workspace, id) in \
             (select workspace, id from connect_links where expires_at < $1 order by expires_at limit $2)")
        .bind(before)
        .bind(PURGE_ROWS_MAX);
        self.execute(query).await
    }
}

fn read(row: &Row) -> Result<ConnectLink, Error> {
    Ok(ConnectLink {
        workspace: row.id("workspace")?,
        id: row.get("id")?,
        user: row.id("user_id")?,
        provider: row.get("provider")?,
        mailbox: row.opt_json("mailbox")?,
        expires_at: row.get("expires_at")?,
        is_used: row.get::<Option<Timestamp>>("used_at")?.is_some(),
    })
}
