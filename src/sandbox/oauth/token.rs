//! What the token endpoint and its neighbours are asked and say, without HTTP: forms in, status and JSON out.
//!
//! Not here: who holds which token (`authority`).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;

use super::authority::{Authority, Issued, Refusal};

/// An HTTP status and what is said with it.
pub(super) type Answer = (u16, Value);

/// A form or query, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// The first value of that name; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }
}

/// Name and secret of a client: in the form, or as HTTP Basic (RFC 6749 section 2.3.1).
pub(super) fn client(form: &Form, authorization: Option<&str>) -> (String, Option<String>) {
    let basic = authorization.and_then(|value| value.strip_prefix("Basic ")).and_then(|encoded| {
        let decoded = base64::prelude::BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (name, secret) = text.split_once(':')?;
        let plain = |text: &str| {
            let pairs = format!("x={text}");
            Form::parse(pairs.as_bytes()).get("x").to_owned()
        };
        Some((plain(name), Some(plain(secret))))
    });
    let in_form = || (form.get("client_id").to_owned(), form.some("client_secret").map(str::to_owned));
    basic.unwrap_or_else(in_form)
}

impl Authority {
    /// The token endpoint (RFC 6749 section 3.2).
    pub(super) fn token(&mut self, form: &Form, client: (&str, Option<&str>), now: Timestamp) -> Answer {
        if !self.knows(client.0, client.1) {
            return refused(401, Refusal("invalid_client", "The OAuth client was not found."));
        }
        let issued = match form.get("grant_type") {
            "authorization_code" => {
                let code = (form.get("code"), form.get("redirect_uri"));
                self.redeem(code, form.get("code_verifier"), now)
            }
            "refresh_token" => self.renew(form.get("refresh_token"), now),
            "" => Err(Refusal("invalid_request", "There is no grant_type.")),
            _ => Err(Refusal("unsupported_grant_type", "There are authorization_code and refresh_token.")),
        };
        match issued {
            Ok(issued) => (200, self.issued(&issued, now)),
            Err(refusal) => refused(400, refusal),
        }
    }

    fn issued(&self, issued: &Issued, now: Timestamp) -> Value {
        let mut answer = json!({
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.lifetime.as_secs(),
            "scope": issued.scopes.join(" "),
        });
        if let Some(refresh_token) = &issued.refresh_token {
            add(&mut answer, "refresh_token", json!(refresh_token));
        }
        if issued.scopes.iter().any(|scope| scope == "openid") {
            add(&mut answer, "id_token", json!(self.id_token(issued, now)));
        }
        answer
    }

    /// OpenID Connect Core 1.0 section 2, signed with the client's secret (HS256).
    fn id_token(&self, issued: &Issued, now: Timestamp) -> String {
        let user = issued.user.key();
        let claims = json!({
            "iss": self.issuer,
            "aud": self.settings.client_id,
            "sub": subject(user),
            "email": user,
            "email_verified": true,
            "preferred_username": user,
            "nonce": issued.nonce,
            "iat": now.as_second(),
            "exp": now.as_second() + i64::try_from(issued.lifetime.as_secs()).unwrap_or(3600),
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "HS256", "typ": "JWT" })), encode(&claims));
        let secret = self.settings.client_secret.as_ref().map(|secret| secret.expose_secret().as_bytes());
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.unwrap_or_default())
            .expect("HMAC takes keys of any length");
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    /// RFC 7662. An unknown token is not an error but inactive.
    pub(super) fn introspect(&self, form: &Form, client: (&str, Option<&str>), now: Timestamp) -> Answer {
        if !self.knows(client.0, client.1) {
            return refused(401, Refusal("invalid_client", "The OAuth client was not found."));
        }
        let token = form.get("token");
        let (user, scopes, expires_at) = match (self.access(token, now), self.holder(token, now)) {
            (Some(access), _) => (access.user, access.scopes, Some(access.expires_at.as_second())),
            (None, Some((user, scopes))) => (user, scopes, None),
            (None, None) => return (200, json!({ "active": false })),
        };
        let mut answer = json!({
            "active": true,
            "iss": self.issuer,
            "client_id": self.settings.client_id,
            "username": user.key(),
            "email": user.key(),
            "sub": subject(user.key()),
            "scope": scopes.join(" "),
            "token_type": "Bearer",
        });
        if let Some(expires_at) = expires_at {
            add(&mut answer, "exp", json!(expires_at));
        }
        (200, answer)
    }

    /// OpenID Connect Core 1.0 section 5.3.
    pub(super) fn userinfo(&self, authorization: Option<&str>, now: Timestamp) -> Answer {
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        match self.access(token.trim(), now) {
            Some(access) => {
                let user = access.user.key();
                (200, json!({ "sub": subject(user), "email": user, "email_verified": true }))
            }
            None => refused(401, Refusal("invalid_token", "The access token is unknown or has expired.")),
        }
    }

    /// RFC 8414 and OpenID Connect Discovery 1.0.
    pub(super) fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "revocation_endpoint": at("/revoke"),
            "introspection_endpoint": at("/introspect"),
            "userinfo_endpoint": at("/userinfo"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
            "authorization_response_iss_parameter_supported": true,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["HS256"],
            "scopes_supported": [
                "openid", "email", "profile", "offline_access", "https://mail.google.com/",
                "https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office.com/SMTP.Send",
            ],
        })
    }
}

fn add(answer: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = answer {
        members.insert(name.to_owned(), value);
    }
}

fn refused(status: u16, Refusal(error, text): Refusal) -> Answer {
    (status, json!({ "error": error, "error_description": text }))
}

/// A name that stays when an address is given to somebody else; here it is made of the address.
fn subject(user: &str) -> String {
    format!("sandbox-{}", URL_SAFE_NO_PAD.encode(user))
}
