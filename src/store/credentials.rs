//! Credentials at rest: a small JSON text, sealed for the row it stands in.
//!
//! Not here: the rows (`store::accounts`, `store::smarthosts`).

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Place, Session, Tx};
use crate::core::account::Credentials;

/// The stored form: add variants and optional fields, rename nothing.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
enum Written<'a> {
    Password {
        username: &'a str,
        password: &'a str,
    },
    #[serde(rename = "oauth2")]
    OAuth2 {
        provider: &'a str,
        username: &'a str,
    },
}

/// The same, read back.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
enum Stored {
    Password {
        username: String,
        password: SecretString,
    },
    #[serde(rename = "oauth2")]
    OAuth2 {
        provider: String,
        username: String,
    },
}

pub(super) async fn seal(
    tx: &mut Tx,
    key: Uuid,
    place: &Place,
    credentials: &Credentials,
) -> Result<Vec<u8>, Error> {
    let written = match credentials {
        Credentials::Password { username, password } => {
            Written::Password { username, password: password.expose_secret() }
        }
        Credentials::OAuth2 { provider, username } => Written::OAuth2 { provider, username },
    };
    let text = serde_json::to_vec(&written).map(Zeroizing::new).expect("texts serialise");
    tx.seal(key, place, &text).await
}

pub(super) async fn open(
    session: &mut Session,
    key: Uuid,
    place: &Place,
    sealed: &[u8],
) -> Result<Credentials, Error> {
    let text = Zeroizing::new(session.open_sealed(key, place, sealed).await?);
    // The error would quote the text.
    let stored =
        serde_json::from_slice(&text).map_err(|_| Error::Corrupt("credentials: unreadable".into()))?;
    Ok(match stored {
        Stored::Password { username, password } => Credentials::Password { username, password },
        Stored::OAuth2 { provider, username } => Credentials::OAuth2 { provider, username },
    })
}
