//! Who signed in, as the provider says with the tokens (OpenID Connect Core 1.0 section 2).
//!
//! Not here: proof. The text comes straight from the provider over TLS, so that its signature need not be looked at (section
//! 3.1.3.7); what it says of an address is not believed until the mailbox itself has let us in by that name.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oauth2::ExtraTokenFields;
use serde::{Deserialize, Serialize};

use crate::{core::grant::Signer, mail::Address};

/// The field of a token answer that says it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct WithIdentity {
    #[serde(default)]
    id_token: Option<String>,
}

impl ExtraTokenFields for WithIdentity {}

impl fmt::Debug for WithIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WithIdentity(…)")
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    tid: Option<String>,
    email: Option<String>,
    preferred_username: Option<String>,
}

impl WithIdentity {
    /// `None` when there is none that can be read.
    pub(super) fn signer(&self) -> Option<Signer> {
        let payload = self.id_token.as_deref()?.split('.').nth(1)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let named = [claims.email, claims.preferred_username];
        let email = named.into_iter().flatten().find_map(|text| Address::parse(&text).ok());
        Some(Signer { issuer: claims.iss, tenant: claims.tid, subject: claims.sub, email })
    }
}
