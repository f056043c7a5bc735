//! Tokens for whole domains, whose admin has granted them to this gateway: nobody signs in.
//!
//! Not here: which mailboxes that covers (`providers`).

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::SigningKey,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{ANSWER_BYTES_MAX, Granted, OAuthClient, TokenError, form, granted, post, read_granted, refusal};
use crate::{core::provider::Authorization, net::read_body};

/// How long an assertion is good for, and how far it is dated back: clocks differ, and one from the future is refused.
const ASSERTED_FOR: SignedDuration = SignedDuration::from_mins(30);
const DATED_BACK: SignedDuration = SignedDuration::from_mins(1);

/// A key that speaks for any user of a domain, as Google gives it out. Prints nothing of the key.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    client_email: String,
    key_id: Option<String>,
    key: Arc<dyn SigningKey>,
}

/// A file that holds no such key.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    #[error("cannot read the key of a service account")]
    File(#[from] std::io::Error),
    /// Without the parser's words, which would quote it.
    #[error("it is no JSON key of a service account, with client_email and an RSA private_key")]
    Shape,
}

#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key_id: Option<String>,
    private_key: SecretString,
}

impl ServiceAccount {
    /// Reads the JSON file that the provider gave out.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn load(path: &Path) -> Result<Self, BadKey> {
        let text = zeroize::Zeroizing::new(std::fs::read(path)?);
        let file: KeyFile = serde_json::from_slice(&text).map_err(|_| BadKey::Shape)?;
        let key = PrivateKeyDer::from_pem_slice(file.private_key.expose_secret().as_bytes());
        let key = any_supported_type(&key.map_err(|_| BadKey::Shape)?).map_err(|_| BadKey::Shape)?;
        if key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).is_none() {
            return Err(BadKey::Shape);
        }
        Ok(Self { client_email: file.client_email, key_id: file.private_key_id, key })
    }

    /// Says, signed, that we ask in the name of a user (RFC 7523 section 3).
    fn assertion(&self, user: &str, (audience, scope): (&str, &str), now: Timestamp) -> Option<SecretString> {
        let issued_at = now.saturating_sub(DATED_BACK).unwrap_or(now);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.client_email,
            "sub": user,
            "aud": audience,
            "scope": scope,
            "iat": issued_at.as_second(),
            "exp": issued_at.saturating_add(ASSERTED_FOR).unwrap_or(now).as_second(),
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let said = format!("{}.{}", part(header), part(claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])?;
        let signature = signer.sign(said.as_bytes()).ok()?;
        Some(format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}

impl OAuthClient {
    /// A token by our own registration alone (RFC 6749 section 4.4).
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn for_itself(&self) -> Result<Granted, TokenError> {
        let scopes: Vec<_> = self.authorization.scopes.iter().cloned().map(oauth2::Scope::new).collect();
        granted(self.client.exchange_client_credentials().add_scopes(scopes).request_async(self).await)
    }

    /// A token for a user whose admin trusts this service account (RFC 7523 section 2.1).
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn in_the_name_of(
        &self,
        user: &str,
        account: &ServiceAccount,
    ) -> Result<Granted, TokenError> {
        let Authorization { token_url, scopes, .. } = &self.authorization;
        let url = Url::parse(token_url).map_err(|_| TokenError::Unanswered)?;
        let said = account.assertion(user, (token_url, &scopes.join(" ")), Timestamp::now());
        let said = said.ok_or(TokenError::Unanswered)?;
        let body = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", said.expose_secret()),
        ]);
        let client = self.web.client(&url).await.ok_or(TokenError::Unanswered)?;
        let response = post(client, &url, body).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let body = read_body(response, ANSWER_BYTES_MAX).await.ok_or(TokenError::Unanswered)?;
        read_granted(&body)
    }
}
