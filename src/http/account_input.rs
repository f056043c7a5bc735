//! What callers say about servers and logins: read strictly, checked, never shown again.
//!
//! Not here: trying them. Whether a login works is found out by the worker and told in the account's status.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api,
    access::Access,
    field::{self, Patch},
    host,
    openapi::SecurityWord,
    problem::Problem,
};
use crate::{
    account::oauth::{Providers, Registered},
    core::{
        account::{Account, Credentials, Endpoint, Identities, Security},
        ids::AccountId,
    },
    flow,
    mail::Address,
    store::Tx,
};

/// Longest login name and password, in characters.
pub(super) const LOGIN_CHARS_MAX: usize = 1024;
/// Longest refresh token, in characters: those of some providers are long.
const TOKEN_CHARS_MAX: usize = 8192;

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

/// How the gateway is to log in: by a password, an app password among them, or by what a provider has granted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Auth)]
pub(super) struct AuthInput {
    /// `password` or `oauth2`.
    #[serde(rename = "type")]
    #[schema(example = "password")]
    kind: String,
    /// With `oauth2` the account's address when left out.
    username: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    /// With `oauth2`: a provider that the operator has registered this gateway with.
    provider: Option<String>,
    /// With `oauth2`: what the provider gave when the user allowed access. Left out where an admin has granted a whole domain.
    #[schema(value_type = Option<String>, format = Password)]
    refresh_token: Option<SecretString>,
    /// Who logs in to read, where that is not `username`: a mailbox that several share has a name of its own there. Null: `username`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    imap_username: Patch<String>,
    /// Who logs in to send, where that is not `username`. Null: `username`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    smtp_username: Patch<String>,
}

/// What is said of the logins at one of the servers alone.
#[derive(Default)]
pub(super) struct LoginNames {
    imap: Patch<String>,
    smtp: Patch<String>,
}

impl LoginNames {
    /// What is left out stays: a new password alone must not make another mailbox of a shared one.
    pub(super) fn apply(self, old: Identities) -> Identities {
        Identities {
            imap_login: self.imap.apply(old.imap_login),
            smtp_login: self.smtp.apply(old.smtp_login),
            sender: old.sender,
        }
    }
}

/// What logs in.
pub(super) enum Auth {
    Password(Credentials),
    OAuth2 {
        /// As the operator calls it.
        provider: String,
        registered: Arc<Registered>,
        username: Option<String>,
        /// `None` where an admin has granted a whole domain.
        refresh_token: Option<SecretString>,
    },
}

impl AuthInput {
    /// The logins that it names for one of the servers alone.
    pub(super) fn login_names(&self) -> Result<LoginNames, Problem> {
        let login = |param: &str, name: &Patch<String>| match name {
            Patch::Keep => Ok(Patch::Keep),
            Patch::Clear => Ok(Patch::Clear),
            Patch::Set(name) => field::line(param, name, LOGIN_CHARS_MAX).map(Patch::Set),
        };
        Ok(LoginNames {
            imap: login("auth.imap_username", &self.imap_username)?,
            smtp: login("auth.smtp_username", &self.smtp_username)?,
        })
    }

    pub(super) fn check(self, providers: &Providers) -> Result<Auth, Problem> {
        match self.kind.as_str() {
            "password" => self.password().map(Auth::Password),
            "oauth2" => self.oauth2(providers),
            _ => Err(Problem::invalid("auth.type", "It must be \"password\" or \"oauth2\".")),
        }
    }

    fn password(self) -> Result<Credentials, Problem> {
        for (param, given) in
            [("auth.provider", self.provider.is_some()), ("auth.refresh_token", self.refresh_token.is_some())]
        {
            if given {
                return Err(Problem::invalid(param, "It does not go with a password."));
            }
        }
        let username = self.username.ok_or_else(missing("auth.username"))?;
        let password = self.password.ok_or_else(missing("auth.password"))?;
        login("auth.", &username, password)
    }

    fn oauth2(self, providers: &Providers) -> Result<Auth, Problem> {
        if self.password.is_some() {
            return Err(Problem::invalid("auth.password", "It does not go with oauth2."));
        }
        let provider = self.provider.ok_or_else(missing("auth.provider"))?;
        let registered = providers.named(&provider).ok_or_else(|| {
            let known = providers.names().collect::<Vec<_>>().join(", ");
            Problem::invalid("auth.provider", "This gateway is registered with no such provider.")
                .advice(format!("There are: {known}. The operator adds others under [oauth.…]."))
        })?;
        let refresh_token = match (self.refresh_token, &registered.domains) {
            (Some(token), None) => Some(secret("auth.refresh_token", token)?),
            (None, None) => return Err(missing("auth.refresh_token")()),
            (Some(_), Some(_)) => {
                let detail = "An admin has granted the whole domain: there is no token of one user.";
                return Err(Problem::invalid("auth.refresh_token", detail));
            }
            (None, Some(_)) => None,
        };
        let username = self.username.map(|name| field::line("auth.username", &name, LOGIN_CHARS_MAX));
        Ok(Auth::OAuth2 { provider, registered, username: username.transpose()?, refresh_token })
    }
}

impl Auth {
    /// Whether it is by what a provider has granted.
    pub(super) fn is_granted(&self) -> bool {
        matches!(self, Self::OAuth2 { .. })
    }

    /// Where the provider's servers are, as far as that is known.
    pub(super) fn servers(&self) -> (Option<&Endpoint>, Option<&Endpoint>) {
        match self {
            Self::Password(_) => (None, None),
            Self::OAuth2 { registered, .. } => (registered.imap.as_ref(), registered.smtp.as_ref()),
        }
    }

    /// What is kept of it for the account of this address.
    pub(super) fn credentials(&self, email: &Address) -> Credentials {
        match self {
            Self::Password(credentials) => credentials.clone(),
            Self::OAuth2 { provider, username, .. } => {
                let username = username.clone().unwrap_or_else(|| email.to_string());
                Credentials::OAuth2 { provider: provider.clone(), username }
            }
        }
    }

    /// Keeps what the login needs beside the credentials, in place of what an earlier one needed.
    pub(super) async fn keep_grant(self, tx: &mut Tx, account: AccountId) -> Result<(), Problem> {
        match self {
            Self::Password(_) => tx.forget_grant(account).await?,
            Self::OAuth2 { refresh_token, .. } => {
                flow::login::begin_grant(tx, account, refresh_token, flow::now()).await?;
            }
        }
        Ok(())
    }

    /// What an admin has granted for a whole domain is for the workspaces that the operator names, and for nobody who may act
    /// for himself alone: with it any mailbox there could be read. Its tokens go to the provider's own servers and to no other.
    pub(super) async fn require_right(
        &self,
        api: &Api,
        access: &Access,
        account: &Account,
    ) -> Result<(), Problem> {
        let Self::OAuth2 { registered, .. } = self else { return Ok(()) };
        let Some(domains) = &registered.domains else { return Ok(()) };
        access.act_for_all()?;
        let settings = &account.settings;
        let Identities { imap_login, smtp_login, .. } = &settings.identities;
        if imap_login.is_some() || smtp_login.is_some() {
            let detail = "The grant is for the mailbox of auth.username alone.";
            return Err(Problem::invalid("auth", detail).advice("Leave out imap_username and smtp_username."));
        }
        for (param, server, own) in
            [("imap", &settings.imap, &registered.imap), ("smtp", &settings.smtp, &registered.smtp)]
        {
            if Some(server) != own.as_ref() {
                return Err(Problem::invalid(param, "The grant is for the provider's own servers alone."));
            }
        }
        let workspace = api.store().system_read().await?.workspace(access.workspace).await?;
        let workspace = workspace.ok_or_else(Problem::not_found)?;
        let (id, credentials) = (workspace.id.to_string(), self.credentials(&account.email));
        let mailbox = Address::parse(credentials.username())
            .map_err(|_| Problem::invalid("auth.username", "It must be an address of the domain."))?;
        match domains.covers(&mailbox, &[&workspace.slug, &id]) {
            true => Ok(()),
            false => Err(Problem::forbidden(
                "The provider's grant does not cover this mailbox for this workspace.",
                "The operator says which domains and workspaces it covers, under [oauth.…].",
            )),
        }
    }
}

fn missing(param: &'static str) -> impl Fn() -> Problem {
    move || Problem::invalid(param, "The field is missing.")
}

/// A provider alone does not say how to log in.
pub(super) fn needs_sign_in(param: &'static str) -> Problem {
    Problem::invalid(param, "The user has to sign in at the provider himself.").advice(
        "Give him a connect link, or give auth of type \"oauth2\" with the refresh token that you have.",
    )
}

fn secret(param: &str, secret: SecretString) -> Result<SecretString, Problem> {
    let text = secret.expose_secret();
    if text.is_empty() || text.chars().count() > TOKEN_CHARS_MAX {
        return Err(Problem::invalid(param, format!("It must have 1 to {TOKEN_CHARS_MAX} characters.")));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::invalid(param, "It holds line breaks or control characters."));
    }
    Ok(secret)
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
        let problem = from_slice::<AuthInput>(json.as_bytes())
            .and_then(|input| input.check(&Providers::default()))
            .err()
            .expect(json);
        assert_eq!(problem.param.as_deref(), Some(param), "{json}");
        assert!(!problem.detail.contains("hunter2"));
    }

    #[test]
    fn a_login_is_a_name_and_a_password_that_end_no_line() {
        check(r#"{"type":"oauth2","provider":"nobody","refresh_token":"hunter2"}"#, "auth.provider");
        check(r#"{"type":"oauth2","refresh_token":"hunter2"}"#, "auth.provider");
        check(r#"{"type":"oauth2","provider":"nobody","password":"hunter2"}"#, "auth.password");
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
        let named = from_slice::<AuthInput>(
            br#"{"type":"password","username":"a","password":"b","imap_username":"x\r\ny"}"#,
        );
        let refused = named.unwrap().login_names().err().unwrap();
        assert_eq!(refused.param.as_deref(), Some("auth.imap_username"));
        let good =
            from_slice::<AuthInput>(br#"{"type":"password","username":"a","password":" p "}"#).unwrap();
        let Ok(Auth::Password(Credentials::Password { username, password })) =
            good.check(&Providers::default())
        else {
            panic!("refused")
        };
        assert_eq!((username.as_str(), password.expose_secret()), ("a", " p "));
    }
}
