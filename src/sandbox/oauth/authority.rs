//! Codes, grants and tokens: who may do what at the provider on whose behalf, and until when.
//!
//! Time is an argument; bounded in every direction. Not here: HTTP (`doors`) and how answers are written (`token`).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::{flow, mail::Address, sandbox::behaviour::Service};

/// Codes that nobody has redeemed yet; the oldest give way.
const CODES_MAX: usize = 1_000;
/// RFC 6749 section 4.1.2 wants ten minutes at most.
const CODE_LIFETIME: Duration = Duration::from_mins(1);
/// Grants kept, revoked ones too; the oldest give way.
const GRANTS_MAX: usize = 10_000;
/// Access tokens of one grant that are good at one time.
const ACCESS_TOKENS_MAX: usize = 64;
/// Refresh tokens of one grant that were replaced and are still known.
const SPENT_MAX: usize = 2_000;

/// The scopes of which one opens IMAP, and those for submission; compared by their ends.
const IMAP_SCOPES: [&str; 2] = ["https://mail.google.com/", "IMAP.AccessAsUser.All"];
const SMTP_SCOPES: [&str; 2] = ["https://mail.google.com/", "SMTP.Send"];

/// What becomes of a refresh token that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    /// It stays the only one, as at Google.
    #[default]
    Never,
    /// Another one comes with each answer, and the former stays good, as at Microsoft.
    Lax,
    /// Another one comes with each answer; using the former once more ends the grant (RFC 9700 section 4.14.2).
    Strict,
}

/// How the authorization server behaves, and its one client.
#[derive(Debug, Clone)]
pub struct OAuthSettings {
    pub client_id: String,
    /// `None` of a public client, which PKCE alone protects.
    pub client_secret: Option<SecretString>,
    /// Where users may be sent back to; empty is anywhere on loopback.
    pub redirect_uris: Vec<String>,
    pub rotation: Rotation,
    /// Of access tokens.
    pub lifetime: Duration,
    /// Of a refresh token since it was issued; `None` is for ever.
    pub refresh_lifetime: Option<Duration>,
}

impl Default for OAuthSettings {
    fn default() -> Self {
        Self {
            client_id: "mailweave".to_owned(),
            client_secret: Some("sandbox-secret".into()),
            redirect_uris: Vec::new(),
            rotation: Rotation::Never,
            lifetime: Duration::from_hours(1),
            refresh_lifetime: None,
        }
    }
}

/// A pair of tokens.
#[derive(Debug, Clone)]
pub struct Issued {
    pub access_token: String,
    /// `None` when the former one stays.
    pub refresh_token: Option<String>,
    pub lifetime: Duration,
    pub scopes: Vec<String>,
    pub user: Address,
    pub(super) nonce: Option<String>,
}

/// An access token that is good.
#[derive(Debug)]
pub(in crate::sandbox) struct Access<'a> {
    pub(in crate::sandbox) user: &'a Address,
    pub(in crate::sandbox) scopes: &'a [String],
    pub(in crate::sandbox) expires_at: Timestamp,
}

impl Access<'_> {
    /// Whether its scopes let its holder in there.
    pub(in crate::sandbox) fn opens(&self, service: Service) -> bool {
        let wanted = if service == Service::Imap { IMAP_SCOPES } else { SMTP_SCOPES };
        self.scopes.iter().any(|scope| wanted.iter().any(|wanted| scope.ends_with(wanted)))
    }
}

/// What a user has agreed to on the consent page.
#[derive(Debug, Clone)]
pub(super) struct Consent {
    pub(super) user: Address,
    pub(super) scopes: Vec<String>,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
}

#[derive(Debug)]
struct Code {
    consent: Consent,
    expires_at: Timestamp,
    /// The grant it was turned into: a second use ends that (RFC 6749 section 4.1.2).
    redeemed: Option<u64>,
}

#[derive(Debug)]
struct Grant {
    user: Address,
    scopes: Vec<String>,
    nonce: Option<String>,
    access: VecDeque<(String, Timestamp)>,
    refresh: String,
    refresh_expires_at: Timestamp,
    spent: VecDeque<String>,
    revoked: bool,
}

/// Why there are no tokens: an `error` of RFC 6749 section 5.2 with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str, pub(super) &'static str);

const GONE: Refusal = Refusal("invalid_grant", "Token has been expired or revoked.");

/// What the authorization server remembers.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Authority {
    pub(in crate::sandbox) settings: OAuthSettings,
    /// Its own address, once it listens.
    pub(in crate::sandbox) issuer: String,
    codes: BTreeMap<String, Code>,
    grants: BTreeMap<u64, Grant>,
    last: u64,
    /// Order of codes.
    issued: VecDeque<String>,
}

impl Authority {
    /// A code for what the user has agreed to.
    pub(super) fn code(&mut self, consent: Consent, now: Timestamp) -> String {
        if self.issued.len() >= CODES_MAX
            && let Some(oldest) = self.issued.pop_front()
        {
            self.codes.remove(&oldest);
        }
        let code = secret("code");
        let expires_at = after(now, CODE_LIFETIME);
        self.codes.insert(code.clone(), Code { consent, expires_at, redeemed: None });
        self.issued.push_back(code.clone());
        code
    }

    /// Turns a code into tokens, once.
    pub(super) fn redeem(
        &mut self,
        (code, redirect_uri): (&str, &str),
        verifier: &str,
        now: Timestamp,
    ) -> Result<Issued, Refusal> {
        let known = self.codes.get(code).ok_or(Refusal("invalid_grant", "Malformed auth code."))?;
        if let Some(grant) = known.redeemed {
            self.end(grant);
            return Err(Refusal("invalid_grant", "The code was redeemed already."));
        }
        if known.expires_at <= now {
            return Err(Refusal("invalid_grant", "The code has expired."));
        }
        if known.consent.redirect_uri != redirect_uri {
            return Err(Refusal(
                "redirect_uri_mismatch",
                "The redirect_uri is another one than was asked with.",
            ));
        }
        // RFC 7636 section 4.6.
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) != known.consent.challenge {
            return Err(Refusal("invalid_grant", "The code_verifier is not that of the code_challenge."));
        }
        let Consent { user, scopes, nonce, .. } = known.consent.clone();
        let (grant, issued) = self.begin(user, scopes, nonce, now);
        if let Some(code) = self.codes.get_mut(code) {
            code.redeemed = Some(grant);
        }
        Ok(issued)
    }

    /// Grants without asking anybody.
    pub(in crate::sandbox) fn grant(&mut self, user: &Address, scopes: &[&str], now: Timestamp) -> Issued {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.begin(user.clone(), scopes, None, now).1
    }

    fn begin(
        &mut self,
        user: Address,
        scopes: Vec<String>,
        nonce: Option<String>,
        now: Timestamp,
    ) -> (u64, Issued) {
        self.last += 1;
        let number = self.last;
        if self.grants.len() >= GRANTS_MAX {
            self.grants.pop_first();
        }
        let refresh = secret(&format!("refresh-{number}"));
        let mut grant = Grant {
            user,
            scopes,
            nonce,
            access: VecDeque::new(),
            refresh: refresh.clone(),
            refresh_expires_at: self.refresh_end(now),
            spent: VecDeque::new(),
            revoked: false,
        };
        let issued = grant.issue(number, (Some(refresh), self.settings.lifetime), now);
        self.grants.insert(number, grant);
        (number, issued)
    }

    fn refresh_end(&self, now: Timestamp) -> Timestamp {
        self.settings.refresh_lifetime.map_or(Timestamp::MAX, |lifetime| after(now, lifetime))
    }

    /// Renews an access token.
    pub(super) fn renew(&mut self, token: &str, now: Timestamp) -> Result<Issued, Refusal> {
        let (rotation, lifetime) = (self.settings.rotation, self.settings.lifetime);
        let refresh_end = self.refresh_end(now);
        let number = number_of(token).ok_or(GONE)?;
        let grant = self.grants.get_mut(&number).ok_or(GONE)?;
        let is_spent = grant.spent.iter().any(|spent| spent == token);
        let is_known = grant.refresh == token || is_spent;
        if grant.revoked || !is_known || grant.refresh_expires_at <= now {
            return Err(GONE);
        }
        if is_spent && rotation != Rotation::Lax {
            grant.end();
            return Err(GONE);
        }
        if rotation == Rotation::Never {
            return Ok(grant.issue(number, (None, lifetime), now));
        }
        let refresh = secret(&format!("refresh-{number}"));
        let former = std::mem::replace(&mut grant.refresh, refresh.clone());
        if grant.spent.len() >= SPENT_MAX {
            grant.spent.pop_front();
        }
        grant.spent.push_back(former);
        grant.refresh_expires_at = refresh_end;
        Ok(grant.issue(number, (Some(refresh), lifetime), now))
    }

    /// The holder of an access token that is good.
    pub(in crate::sandbox) fn access(&self, token: &str, now: Timestamp) -> Option<Access<'_>> {
        let grant = self.grants.get(&number_of(token)?).filter(|grant| !grant.revoked)?;
        let (_, expires_at) = grant.access.iter().find(|(own, until)| own == token && *until > now)?;
        Some(Access { user: &grant.user, scopes: &grant.scopes, expires_at: *expires_at })
    }

    /// The user of a refresh token that is good, and its scopes.
    pub(super) fn holder(&self, token: &str, now: Timestamp) -> Option<(&Address, &[String])> {
        let grant = self.grants.get(&number_of(token)?).filter(|grant| !grant.revoked)?;
        let is_good = grant.refresh == token && grant.refresh_expires_at > now;
        is_good.then_some((&grant.user, grant.scopes.as_slice()))
    }

    /// Ends the grant that a token is of (RFC 7009). Whose it was.
    pub(super) fn revoke(&mut self, token: &str) -> Option<Address> {
        let grant = self.grants.get_mut(&number_of(token)?)?;
        let is_own = grant.refresh == token || grant.access.iter().any(|(own, _)| own == token);
        is_own.then(|| {
            grant.end();
            grant.user.clone()
        })
    }

    /// Ends every grant of a user, as when he changes his password.
    pub(in crate::sandbox) fn revoke_user(&mut self, user: &Address) {
        self.grants.values_mut().filter(|grant| grant.user == *user).for_each(Grant::end);
    }

    /// Lets every access token of a user run out; the grants stay good.
    pub(in crate::sandbox) fn expire_user(&mut self, user: &Address) {
        self.grants.values_mut().filter(|grant| grant.user == *user).for_each(|grant| grant.access.clear());
    }

    /// How many grants of a user are good.
    pub(in crate::sandbox) fn live_grants(&self, user: &Address) -> usize {
        self.grants.values().filter(|grant| grant.user == *user && !grant.revoked).count()
    }

    fn end(&mut self, grant: u64) {
        if let Some(grant) = self.grants.get_mut(&grant) {
            grant.end();
        }
    }

    /// Whether these are the client's name and secret.
    pub(super) fn knows(&self, client_id: &str, client_secret: Option<&str>) -> bool {
        let secret = self.settings.client_secret.as_ref().map(ExposeSecret::expose_secret);
        client_id == self.settings.client_id && secret.is_none_or(|secret| client_secret == Some(secret))
    }

    /// Whether a user may be sent back there.
    pub(super) fn may_return_to(&self, uri: &str) -> bool {
        let uris = &self.settings.redirect_uris;
        let is_loopback = || {
            let parsed = url::Url::parse(uri).ok();
            parsed.as_ref().and_then(url::Url::host_str).is_some_and(|host| {
                let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            })
        };
        if uris.is_empty() { is_loopback() } else { uris.iter().any(|own| own == uri) }
    }
}

impl Grant {
    fn issue(
        &mut self,
        number: u64,
        (refresh_token, lifetime): (Option<String>, Duration),
        now: Timestamp,
    ) -> Issued {
        let access_token = secret(&format!("access-{number}"));
        self.access.retain(|(_, until)| *until > now);
        if self.access.len() >= ACCESS_TOKENS_MAX {
            self.access.pop_front();
        }
        self.access.push_back((access_token.clone(), after(now, lifetime)));
        let (scopes, user, nonce) = (self.scopes.clone(), self.user.clone(), self.nonce.clone());
        Issued { access_token, refresh_token, lifetime, scopes, user, nonce }
    }

    fn end(&mut self) {
        self.revoked = true;
        self.access.clear();
        self.spent.clear();
    }
}

/// The grant's number in the middle of its tokens.
fn number_of(token: &str) -> Option<u64> {
    token.split('-').nth(1)?.parse().ok()
}

fn secret(kind: &str) -> String {
    let random = flow::random::<24>();
    format!("{kind}-{}", random.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn after(now: Timestamp, span: Duration) -> Timestamp {
    now.saturating_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn ann() -> Address {
        Address::parse("ann@example.test").unwrap()
    }

    fn authority(rotation: Rotation) -> Authority {
        let settings = OAuthSettings {
            rotation,
            lifetime: Duration::from_secs(60),
            refresh_lifetime: Some(Duration::from_secs(1_000)),
            ..OAuthSettings::default()
        };
        Authority { settings, ..Authority::default() }
    }

    #[test]
    fn a_refresh_token_that_was_replaced_is_good_or_ends_the_grant_as_rotation_says() {
        for (rotation, replaced, again, lives) in [
            (Rotation::Never, false, true, true),
            (Rotation::Lax, true, true, true),
            (Rotation::Strict, true, false, false),
        ] {
            let mut authority = authority(rotation);
            let first = authority.grant(&ann(), &["https://mail.google.com/"], at(0));
            let refresh = first.refresh_token.unwrap();
            let second = authority.renew(&refresh, at(1)).unwrap();
            assert_eq!(second.refresh_token.is_some(), replaced, "{rotation:?}");
            assert_eq!(authority.renew(&refresh, at(2)).is_ok(), again, "{rotation:?}");
            assert_eq!(authority.access(&second.access_token, at(3)).is_some(), lives, "{rotation:?}");
            assert_eq!(authority.live_grants(&ann()), usize::from(lives), "{rotation:?}");
        }
    }

    #[test]
    fn tokens_end_in_time_and_with_their_grant() {
        let mut authority = authority(Rotation::Lax);
        let issued = authority.grant(&ann(), &["https://mail.google.com/"], at(0));
        let refresh = issued.refresh_token.unwrap();
        assert!(authority.access(&issued.access_token, at(59)).is_some());
        assert!(authority.access(&issued.access_token, at(60)).is_none());
        let renewed = authority.renew(&refresh, at(900)).unwrap();
        assert!(authority.renew(&refresh, at(1_899)).is_ok(), "each renewal begins its lifetime anew");
        authority.expire_user(&ann());
        assert!(authority.access(&renewed.access_token, at(901)).is_none());
        let renewed = authority.renew(&refresh, at(1_899)).unwrap();
        authority.revoke_user(&ann());
        assert!(authority.access(&renewed.access_token, at(1_900)).is_none());
        assert_eq!(authority.renew(&refresh, at(1_900)).unwrap_err(), GONE);
    }

    #[test]
    fn a_scope_opens_the_door_it_is_for() {
        let mut authority = authority(Rotation::Never);
        for (scopes, imap, smtp) in [
            (vec!["https://mail.google.com/"], true, true),
            (vec!["https://outlook.office.com/IMAP.AccessAsUser.All", "openid"], true, false),
            (vec!["https://outlook.office.com/SMTP.Send"], false, true),
            (vec!["openid", "email"], false, false),
        ] {
            let issued = authority.grant(&ann(), &scopes, at(0));
            let access = authority.access(&issued.access_token, at(1)).unwrap();
            let opens = (access.opens(Service::Imap), access.opens(Service::Submission));
            assert_eq!(opens, (imap, smtp), "{scopes:?}");
        }
    }

    #[test]
    fn users_are_sent_back_to_where_was_agreed_or_to_this_machine() {
        let mut authority = authority(Rotation::Never);
        for (uri, may) in [
            ("http://127.0.0.1:8080/oauth/callback", true),
            ("http://[::1]:8080/x", true),
            ("https://localhost/x", true),
            ("https://evil.example/127.0.0.1", false),
            ("no url", false),
        ] {
            assert_eq!(authority.may_return_to(uri), may, "{uri}");
        }
        authority.settings.redirect_uris = vec!["https://mail.example.com/cb".to_owned()];
        assert!(authority.may_return_to("https://mail.example.com/cb"));
        assert!(!authority.may_return_to("https://mail.example.com/cb/"));
        assert!(!authority.may_return_to("http://localhost/x"));
    }
}
