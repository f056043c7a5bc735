//! What callers say about servers and logins: read strictly, checked, never shown again.
//!
//! Not here: trying them. Whether a login works is found out by the worker and told in the account's status.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Api, field, host, openapi::SecurityWord, problem::Problem};
use crate::core::account::{Credentials, Endpoint, Security};

/// Longest login name and password, in characters; access tokens of some providers are long.
const LOGIN_CHARS_MAX: usize = 1024;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEndpoint)]
pub(super) struct EndpointInput {
    #[schema(example = "imap.example.com")]
    host: String,
    #[schema(example = 993)]
    port: u16,
    #[schema(value_type = SecurityWord)]
    security: Security,
}

impl EndpointInput {
    pub(super) async fn check(self, api: &Api, param: &str) -> Result<Endpoint, Problem> {
        let host = host::host(&format!("{param}.host"), &self.host)?;
        if self.port == 0 {
            return Err(Problem::invalid(format!("{param}.port"), "There is no port 0."));
        }
        api.plain_hosts.check(param, &host, self.security).await?;
        Ok(Endpoint { host, port: self.port, security: self.security })
    }
}

/// How the gateway is to log in. This release knows passwords, app passwords among them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Auth)]
pub(super) struct AuthInput {
    #[serde(rename = "type")]
    #[schema(example = "password")]
    kind: String,
    username: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    provider: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    refresh_token: Option<SecretString>,
}

impl AuthInput {
    pub(super) fn check(self) -> Result<Credentials, Problem> {
        if self.kind == "oauth2" {
            return Err(passwords_only("auth.type"));
        }
        if self.kind != "password" {
            return Err(Problem::invalid("auth.type", "It must be \"password\"."));
        }
        for (param, given) in
            [("auth.provider", self.provider.is_some()), ("auth.refresh_token", self.refresh_token.is_some())]
        {
            if given {
                return Err(Problem::invalid(param, "It does not go with a password."));
            }
        }
        let username =
            self.username.ok_or_else(|| Problem::invalid("auth.username", "The field is missing."))?;
        let password =
            self.password.ok_or_else(|| Problem::invalid("auth.password", "The field is missing."))?;
        login("auth.", &username, password)
    }
}

/// This release connects accounts by password.
pub(super) fn passwords_only(param: &'static str) -> Problem {
    Problem::invalid(param, "This release connects accounts by password only.")
        .advice("Give imap, smtp and auth of type \"password\"; many providers issue app passwords for this.")
}

/// A login name and a password, as they go into LOGIN and PLAIN: neither may hold what ends a line or a field.
pub(super) fn login(prefix: &str, username: &str, password: SecretString) -> Result<Credentials, Problem> {
    let username = field::line(&format!("{prefix}username"), username, LOGIN_CHARS_MAX)?;
    let param = format!("{prefix}password");
    let secret = password.expose_secret();
    if secret.is_empty() || secret.chars().count() > LOGIN_CHARS_MAX {
        return Err(Problem::invalid(param, format!("It must have 1 to {LOGIN_CHARS_MAX} characters.")));
    }
    if secret.chars().any(char::is_control) {
        return Err(Problem::invalid(param, "It holds line breaks or control characters."));
    }
    Ok(Credentials::Password { username, password })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::from_slice;

    #[track_caller]
    fn check(json: &str, param: &str) {
        let problem = from_slice::<AuthInput>(json.as_bytes()).and_then(AuthInput::check).unwrap_err();
        assert_eq!(problem.param.as_deref(), Some(param), "{json}");
        assert!(!problem.detail.contains("hunter2"));
    }

    #[test]
    fn a_login_is_a_name_and_a_password_that_end_no_line() {
        check(r#"{"type":"oauth2","provider":"google","refresh_token":"hunter2"}"#, "auth.type");
        check(r#"{"type":"kerberos"}"#, "auth.type");
        check(r#"{"type":"password","username":"a"}"#, "auth.password");
        check(r#"{"type":"password","password":"hunter2"}"#, "auth.username");
        check(r#"{"type":"password","username":"a\r\nb","password":"hunter2"}"#, "auth.username");
        check(r#"{"type":"password","username":"a","password":"hunter2\n"}"#, "auth.password");
        check(r#"{"type":"password","username":"a","password":"hunter2\u0000"}"#, "auth.password");
        check(
            r#"{"type":"password","username":"a","password":"x","refresh_token":"y"}"#,
            "auth.refresh_token",
        );
        check(r#"{"type":"password","username":"a","password":7}"#, "password");
        let good =
            from_slice::<AuthInput>(br#"{"type":"password","username":"a","password":" p "}"#).unwrap();
        let Ok(Credentials::Password { username, password }) = good.check() else { panic!("refused") };
        assert_eq!((username.as_str(), password.expose_secret()), ("a", " p "));
    }
}
