//! SASL as SMTP servers speak it (RFC 4954): PLAIN, LOGIN, XOAUTH2 and OAUTHBEARER, decoded without I/O.
//!
//! Not here: who may log in. The handler gets [`Credentials`] and judges; nothing here compares a secret.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::SecretString;

/// A mechanism we can speak on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: obsolete, and all that some clients know.
    Login,
    /// Google's and Microsoft's bearer tokens.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

impl Mechanism {
    /// Reads a mechanism name in any letter case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login, Self::XOAuth2, Self::OAuthBearer]
            .into_iter()
            .find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// The name as EHLO announces it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// Bearer mechanisms tell a failed client why before the final reply (RFC 7628 section 3.2.3).
    pub(super) fn explains_failure(self) -> bool {
        matches!(self, Self::XOAuth2 | Self::OAuthBearer)
    }

    /// What they tell, in base64: `{"status":"invalid_token"}` of RFC 7628 section 3.2.2, and Google's `{"status":"401"}`.
    pub(super) fn failure(self) -> &'static str {
        match self {
            Self::OAuthBearer => "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=",
            _ => "eyJzdGF0dXMiOiI0MDEifQ==",
        }
    }
}

/// What a client proves itself with.
#[derive(Clone)]
pub enum Credentials {
    Password {
        username: String,
        password: SecretString,
    },
    /// An OAuth2 access token. OAUTHBEARER may leave the user name out.
    Token {
        username: Option<String>,
        token: SecretString,
    },
}

impl Credentials {
    #[must_use]
    pub fn password(username: &str, password: &str) -> Self {
        Self::Password { username: username.to_owned(), password: password.into() }
    }

    #[must_use]
    pub fn token(username: Option<&str>, token: &str) -> Self {
        Self::Token { username: username.map(str::to_owned), token: token.into() }
    }

    /// The name the client goes by, if it gave one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } => Some(username),
            Self::Token { username, .. } => username.as_deref(),
        }
    }
}

/// Prints neither name nor secret: user names are addresses, and `{:?}` is what logs print.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { .. } => f.write_str("Password(…)"),
            Self::Token { .. } => f.write_str("Token(…)"),
        }
    }
}

/// One AUTH exchange, server side.
#[derive(Debug)]
pub(super) struct Exchange {
    mechanism: Mechanism,
    /// LOGIN's first answer.
    username: Option<String>,
}

/// What comes after one response of the client.
#[derive(Debug)]
pub(super) enum Progress {
    /// Send this (base64) after 334 and wait for the next response.
    Challenge(&'static str),
    Complete(Credentials),
    Cancelled,
    Malformed,
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, username: None }
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The challenge that asks for the first response when AUTH came without one.
    pub(super) fn opening(&self) -> &'static str {
        match self.mechanism {
            Mechanism::Login => "VXNlcm5hbWU6",
            _ => "",
        }
    }

    /// Takes one response as it came, in base64 and without its CRLF.
    pub(super) fn respond(&mut self, line: &[u8]) -> Progress {
        if line == b"*" {
            return Progress::Cancelled;
        }
        let Some(text) = BASE64_STANDARD.decode(line).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            return Progress::Malformed;
        };
        let credentials = match (self.mechanism, self.username.take()) {
            (Mechanism::Login, None) => {
                self.username = Some(text);
                return Progress::Challenge("UGFzc3dvcmQ6");
            }
            (Mechanism::Login, Some(username)) => password(&username, &text),
            (Mechanism::Plain, _) => plain(&text),
            (Mechanism::XOAuth2, _) => xoauth2(&text),
            (Mechanism::OAuthBearer, _) => oauthbearer(&text),
        };
        credentials.map_or(Progress::Malformed, Progress::Complete)
    }
}

fn password(username: &str, password: &str) -> Option<Credentials> {
    let sound = is_username(username) && !password.is_empty() && !password.contains('\0');
    sound.then(|| Credentials::password(username, password))
}

fn is_username(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

/// RFC 4616: `[authzid] NUL authcid NUL passwd`. Acting for another user is not offered.
fn plain(text: &str) -> Option<Credentials> {
    let mut fields = text.split('\0');
    let (authzid, authcid, secret) = (fields.next()?, fields.next()?, fields.next()?);
    let own = authzid.is_empty() || authzid == authcid;
    if fields.next().is_some() || !own { None } else { password(authcid, secret) }
}

/// `user=NAME ^A auth=Bearer TOKEN ^A ^A`.
fn xoauth2(text: &str) -> Option<Credentials> {
    let fields = text.strip_suffix("\x01\x01")?;
    let (user, auth) = fields.split_once('\x01')?;
    let user = user.strip_prefix("user=").filter(|name| is_username(name))?;
    Some(Credentials::token(Some(user), bearer(auth)?))
}

/// RFC 7628 section 3.1: a GS2 header, then `key=value` pairs, each ended by ^A, and one more ^A.
fn oauthbearer(text: &str) -> Option<Credentials> {
    let fields = text.strip_suffix("\x01\x01")?;
    let (header, pairs) = fields.split_once('\x01')?;
    let authzid = header.strip_prefix("n,")?.strip_suffix(',')?;
    let user = match authzid.strip_prefix("a=") {
        Some(name) => Some(name.replace("=2C", ",").replace("=3D", "=")),
        None if authzid.is_empty() => None,
        None => return None,
    };
    let token = pairs.split('\x01').find(|pair| pair.starts_with("auth=")).and_then(bearer)?;
    let sound = user.as_deref().is_none_or(is_username);
    sound.then(|| Credentials::token(user.as_deref(), token))
}

fn bearer(pair: &str) -> Option<&str> {
    let (scheme, token) = pair.strip_prefix("auth=")?.split_once(' ')?;
    let sound = scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.bytes().all(|b| b.is_ascii_graphic());
    sound.then_some(token)
}

/// The first (and for all but LOGIN only) message of a client, not yet in base64.
pub(super) fn client_message(mechanism: Mechanism, credentials: &Credentials) -> Option<String> {
    use secrecy::ExposeSecret;
    let refuses = |text: &str| text.contains(['\0', '\x01']);
    match (mechanism, credentials) {
        (Mechanism::Plain, Credentials::Password { username, password }) => {
            let password = password.expose_secret();
            (!refuses(username) && !refuses(password)).then(|| format!("\0{username}\0{password}"))
        }
        (Mechanism::Login, Credentials::Password { username, .. }) => Some(username.clone()),
        (Mechanism::XOAuth2, Credentials::Token { username: Some(user), token }) => {
            (!refuses(user)).then(|| format!("user={user}\x01auth=Bearer {}\x01\x01", token.expose_secret()))
        }
        (Mechanism::OAuthBearer, Credentials::Token { username, token }) => {
            let user =
                username.as_deref().map(|name| format!("a={}", name.replace('=', "=3D").replace(',', "=2C")));
            let (user, token) = (user.unwrap_or_default(), token.expose_secret());
            (!refuses(&user)).then(|| format!("n,{user},\x01auth=Bearer {token}\x01\x01"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn respond(mechanism: Mechanism, lines: &[&str]) -> Progress {
        let mut exchange = Exchange::new(mechanism);
        lines.iter().map(|line| exchange.respond(BASE64_STANDARD.encode(line).as_bytes())).last().unwrap()
    }

    #[track_caller]
    fn check(mechanism: Mechanism, lines: &[&str], expect: Option<(Option<&str>, &str)>) {
        let got = match respond(mechanism, lines) {
            Progress::Complete(credentials) => Some(credentials),
            _ => None,
        };
        let got = got.map(|credentials| match credentials {
            Credentials::Password { username, password } => {
                (Some(username), password.expose_secret().to_owned())
            }
            Credentials::Token { username, token } => (username, token.expose_secret().to_owned()),
        });
        assert_eq!(
            got.as_ref().map(|(user, secret)| (user.as_deref(), secret.as_str())),
            expect,
            "{lines:?}"
        );
    }

    #[test]
    fn plain_has_exactly_two_nuls_and_no_other_identity() {
        check(Mechanism::Plain, &["\0ann\0pw"], Some((Some("ann"), "pw")));
        check(Mechanism::Plain, &["ann\0ann\0pw"], Some((Some("ann"), "pw")));
        for bad in ["", "ann", "\0ann", "bob\0ann\0pw", "u\0a\0b\0c", "\0\0pw", "\0ann\0", "\0a\nb\0pw"] {
            check(Mechanism::Plain, &[bad], None);
        }
    }

    #[test]
    fn login_asks_twice() {
        check(Mechanism::Login, &["ann", "pw"], Some((Some("ann"), "pw")));
        check(Mechanism::Login, &["", "pw"], None);
    }

    #[test]
    fn bearer_tokens_come_in_two_wrappings() {
        check(
            Mechanism::XOAuth2,
            &["user=a@b.example\x01auth=Bearer tok\x01\x01"],
            Some((Some("a@b.example"), "tok")),
        );
        check(
            Mechanism::OAuthBearer,
            &["n,a=a@b.example,\x01host=h\x01port=587\x01auth=Bearer tok\x01\x01"],
            Some((Some("a@b.example"), "tok")),
        );
        check(Mechanism::OAuthBearer, &["n,,\x01auth=bearer tok\x01\x01"], Some((None, "tok")));
        for bad in [
            "user=a\x01b\x01auth=Bearer tok\x01\x01",
            "user=\x01auth=Bearer t\x01\x01",
            "user=a\x01auth=Basic t\x01\x01",
            "user=a\x01auth=Bearer \x01\x01",
        ] {
            check(Mechanism::XOAuth2, &[bad], None);
        }
        check(Mechanism::OAuthBearer, &["y,,\x01auth=Bearer tok\x01\x01"], None);
    }

    #[test]
    fn what_our_client_says_our_server_reads() {
        let token = Credentials::token(Some("a=b,c@d.example"), "tok");
        let message = client_message(Mechanism::OAuthBearer, &token).unwrap();
        check(Mechanism::OAuthBearer, &[&message], Some((Some("a=b,c@d.example"), "tok")));
        let message = client_message(Mechanism::Plain, &Credentials::password("ann", "pw")).unwrap();
        check(Mechanism::Plain, &[&message], Some((Some("ann"), "pw")));
        assert!(client_message(Mechanism::Plain, &Credentials::password("a\0b", "pw")).is_none());
    }

    #[test]
    fn a_star_cancels_and_garbage_is_malformed() {
        assert!(matches!(Exchange::new(Mechanism::Plain).respond(b"*"), Progress::Cancelled));
        assert!(matches!(Exchange::new(Mechanism::Plain).respond(b"%%%"), Progress::Malformed));
        assert!(matches!(Exchange::new(Mechanism::Plain).respond(b"/////w=="), Progress::Malformed));
    }
}
