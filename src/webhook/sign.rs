//! The signature of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, one for each live secret.
//!
//! Not here: making secrets, and the tolerance for old timestamps, which is the receiver's.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a secret's text begins with.
const SECRET_PREFIX: &str = "whsec_";

/// What is posted: the same id and body on every try.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// The event's id.
    pub id: &'a str,
    /// When this try is made.
    pub at: Timestamp,
    pub body: &'a str,
}

/// The three headers of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// `webhook-id`: the event's id, the same on every try.
    pub id: String,
    /// `webhook-timestamp`: when this try was made, in seconds since 1970.
    pub timestamp: String,
    /// `webhook-signature`: `v1,…` for each secret, with blanks between them.
    pub signatures: String,
}

/// Signs a body with every live secret. `None` when there is no secret, or one is not `whsec_` and base64.
#[must_use]
pub fn sign(secrets: &[SecretString], post: Post<'_>) -> Option<Signature> {
    let Post { id, at, body } = post;
    let timestamp = at.as_second().to_string();
    let signatures: Option<Vec<String>> =
        secrets.iter().map(|secret| signature(secret, &[id, &timestamp, body])).collect();
    let signatures = signatures.filter(|signatures| !signatures.is_empty())?.join(" ");
    Some(Signature { id: id.to_owned(), timestamp, signatures })
}

fn signature(secret: &SecretString, parts: &[&str; 3]) -> Option<String> {
    let text = secret.expose_secret().strip_prefix(SECRET_PREFIX)?;
    let key = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    let [id, timestamp, body] = parts;
    for piece in [id, ".", timestamp, ".", body] {
        mac.update(piece.as_bytes());
    }
    Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn signed(secrets: &[&str], body: &str) -> Option<Signature> {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        sign(&secrets, Post { id: "evt_1", at: Timestamp::now(), body })
    }

    fn headers(signature: &Signature) -> axum::http::HeaderMap {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("webhook-id", signature.id.parse().unwrap());
        headers.insert("webhook-timestamp", signature.timestamp.parse().unwrap());
        headers.insert("webhook-signature", signature.signatures.parse().unwrap());
        headers
    }

    #[test]
    fn the_reference_library_accepts_what_we_sign() {
        let body = r#"{"id":"evt_1","data":{"name":"Žofie"}}"#;
        let signature = signed(&[SECRET], body).unwrap();
        Webhook::new(SECRET).unwrap().verify(body.as_bytes(), &headers(&signature)).unwrap();
        assert!(Webhook::new(OTHER).unwrap().verify(body.as_bytes(), &headers(&signature)).is_err());
        assert!(Webhook::new(SECRET).unwrap().verify(b"{}", &headers(&signature)).is_err());
    }

    #[test]
    fn the_reference_vector_comes_out() {
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let at = Timestamp::from_second(1_649_367_553).unwrap();
        let id = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
        let signature = sign(&[SECRET.into()], Post { id, at, body }).unwrap();
        assert_eq!(signature.signatures, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(signature.timestamp, "1649367553");
    }

    #[test]
    fn while_secrets_are_rotated_both_sign() {
        let signature = signed(&[SECRET, OTHER], "{}").unwrap();
        for secret in [SECRET, OTHER] {
            Webhook::new(secret).unwrap().verify(b"{}", &headers(&signature)).unwrap();
        }
    }

    #[test]
    fn without_a_good_secret_nothing_is_signed() {
        assert_eq!(signed(&[], "{}"), None);
        assert_eq!(signed(&["C2FVsBQIhrscChlQIMV+b5sSYspob7oD"], "{}"), None);
        assert_eq!(signed(&["whsec_not base64"], "{}"), None);
    }
}
