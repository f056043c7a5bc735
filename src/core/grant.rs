//! What a user granted us at his provider, and when its access token is renewed; what a refusal of the token endpoint means.
//!
//! Pure: time and chance are arguments. Not here: asking the endpoint (`account::oauth`), and keeping tokens (`store`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::mail::Address;

/// A token is renewed so long before it expires, and up to as long again, so that many do not expire at one moment.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// Of a token that lives for less, the last quarter.
const AHEAD_SHARE: i32 = 4;
/// How long one renewal may take. Whoever has been silent for longer is believed dead; the endpoint is given up much sooner.
pub const RENEWAL_LEASE: SignedDuration = SignedDuration::from_secs(45);
/// A lease that ends later than this was set by a clock that was wrong. Far more than a lease: whoever read the clock a little
/// before the one who holds it must not take it away from him.
pub const LEASE_BELIEVED: SignedDuration = SignedDuration::from_mins(5);
/// The same of an endpoint that is to be left alone.
pub const REST_BELIEVED: SignedDuration = SignedDuration::from_hours(2);
/// A refusal that providers also give by mistake is believed after it was said so often.
pub const DOUBTS_MAX: u32 = 3;

/// Who signed in at a provider (OpenID Connect Core 1.0 section 2). Issuer, tenant and subject name him; addresses are changed,
/// and given to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    pub issuer: String,
    /// Microsoft's `tid`.
    pub tenant: Option<String>,
    pub subject: String,
    /// The address he is known by there.
    pub email: Option<Address>,
}

impl Signer {
    /// Whether the two are one person at one provider.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.issuer, &self.tenant, &self.subject) == (&other.issuer, &other.tenant, &other.subject)
    }
}

/// Where a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantState {
    pub issued_at: Timestamp,
    /// Of the access token.
    pub expires_at: Timestamp,
    /// Until when somebody may be renewing it.
    pub renewing_until: Timestamp,
    /// The endpoint is not asked before.
    pub retry_at: Timestamp,
}

/// What to do for who wants an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Use,
    Renew,
    /// Nobody can have one before.
    Wait(Timestamp),
}

impl GrantState {
    /// `spread` is from 0 to 1, the same for each look at a grant or not: it moves only when a good token is renewed.
    #[must_use]
    pub fn step(&self, now: Timestamp, spread: f64) -> Step {
        let is_good = now < self.expires_at;
        if is_good && now < self.renew_from(spread) {
            return Step::Use;
        }
        let busy_until = self.busy_until(now);
        match () {
            () if now >= busy_until => Step::Renew,
            () if is_good => Step::Use,
            () => Step::Wait(busy_until),
        }
    }

    /// A token that the provider has refused although it looked good.
    #[must_use]
    pub fn refused(self, now: Timestamp) -> Self {
        Self { expires_at: self.expires_at.min(now), ..self }
    }

    /// When somebody is to look at it although nobody uses it: to renew it, or to see what came of that.
    #[must_use]
    pub fn next_look(&self, now: Timestamp, spread: f64) -> Timestamp {
        self.renew_from(spread).max(self.busy_until(now))
    }

    /// What lies further ahead than anybody sets it was set by a clock that was wrong, and binds nobody.
    fn busy_until(&self, now: Timestamp) -> Timestamp {
        let believed = |at: Timestamp, most| if at.duration_since(now) > most { now } else { at };
        believed(self.renewing_until, LEASE_BELIEVED).max(believed(self.retry_at, REST_BELIEVED))
    }

    fn renew_from(&self, spread: f64) -> Timestamp {
        let lifetime = self.expires_at.duration_since(self.issued_at);
        let ahead = AHEAD.mul_f64(1.0 + spread.clamp(0.0, 1.0)).min(lifetime / AHEAD_SHARE);
        self.expires_at.saturating_sub(ahead).unwrap_or(Timestamp::MIN)
    }
}

/// What the token endpoint says no with (RFC 6749 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRefusal {
    /// HTTP status.
    pub status: u16,
    /// `error`; empty when the answer is none of RFC 6749.
    pub error: String,
    /// Microsoft's `error_codes`, the numbers of `AADSTS…`.
    pub codes: Vec<u32>,
}

/// What a refusal means for the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The user has to sign in again.
    ForGood(&'static str),
    /// It says so, as some providers do when they are in trouble themselves: believed when it is said again.
    Doubtful(&'static str),
    /// Nothing is said about the grant: ask again later.
    ForNow,
    /// The operator's registration at the provider is wrong: no user can mend that.
    Registration,
}

const GONE: &str = "the permission was withdrawn, or has expired";
const CONSENT: &str = "the provider wants the user to agree again";
const SIGN_IN: &str = "the provider wants the user to sign in again";
const NO_USER: &str = "the user is disabled or gone at the provider";
const BLOCKED: &str = "a rule of the user's organisation refuses this sign-in";

/// Microsoft's numbers that say more than its `error` does.
const AADSTS: &[(u32, Refused)] = &[
    (50_034, Refused::ForGood(NO_USER)),
    (50_057, Refused::ForGood(NO_USER)),
    (50_076, Refused::ForGood(SIGN_IN)),
    (50_078, Refused::ForGood(SIGN_IN)),
    (50_079, Refused::ForGood(SIGN_IN)),
    (50_132, Refused::ForGood(GONE)),
    (50_133, Refused::ForGood(GONE)),
    (50_173, Refused::ForGood(GONE)),
    (53_000, Refused::ForGood(BLOCKED)),
    (53_003, Refused::ForGood(BLOCKED)),
    (65_001, Refused::ForGood(CONSENT)),
    (70_008, Refused::ForGood(GONE)),
    (70_043, Refused::ForGood(SIGN_IN)),
    (700_082, Refused::ForGood(GONE)),
    (700_084, Refused::ForGood(GONE)),
    (90_033, Refused::ForNow),
    (90_043, Refused::ForNow),
    (700_016, Refused::Registration),
    (7_000_215, Refused::Registration),
    (7_000_222, Refused::Registration),
];

impl TokenRefusal {
    /// Only words about this grant end it: a server's trouble, our own registration and what cannot be read do not.
    #[must_use]
    pub fn meaning(&self) -> Refused {
        if self.status >= 500 || matches!(self.status, 408 | 425 | 429) {
            return Refused::ForNow;
        }
        let by_code = AADSTS.iter().find(|(code, _)| self.codes.contains(code));
        if let Some((_, refused)) = by_code {
            return *refused;
        }
        match self.error.as_str() {
            "invalid_grant" => Refused::Doubtful(GONE),
            "unauthorized_client" | "access_denied" => Refused::Doubtful(CONSENT),
            "interaction_required" | "login_required" => Refused::ForGood(SIGN_IN),
            "consent_required" => Refused::ForGood(CONSENT),
            "invalid_client" | "invalid_scope" | "unsupported_grant_type" | "invalid_request" => {
                Refused::Registration
            }
            _ => Refused::ForNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn grant(lifetime: i64) -> GrantState {
        GrantState { issued_at: at(0), expires_at: at(lifetime), renewing_until: at(0), retry_at: at(0) }
    }

    #[track_caller]
    fn check(grant: GrantState, now: i64, spread: f64, step: Step) {
        assert_eq!(grant.step(at(now), spread), step, "{grant:?} after {now} s");
    }

    #[test]
    fn a_token_is_renewed_ahead_of_its_end_and_not_all_at_one_moment() {
        check(grant(3600), 2999, 0.0, Step::Use);
        check(grant(3600), 3300, 0.0, Step::Renew);
        check(grant(3600), 3299, 0.0, Step::Use);
        check(grant(3600), 3000, 1.0, Step::Renew);
        check(grant(60), 44, 1.0, Step::Use);
        check(grant(60), 45, 1.0, Step::Renew);
    }

    #[test]
    fn while_somebody_renews_it_the_old_one_is_used_as_long_as_it_is_good() {
        let renewing = GrantState { renewing_until: at(3630), ..grant(3600) };
        check(renewing, 3590, 0.0, Step::Use);
        check(renewing, 3600, 0.0, Step::Wait(at(3630)));
        check(renewing, 3630, 0.0, Step::Renew);
    }

    #[test]
    fn an_endpoint_in_trouble_is_left_alone_and_a_good_token_used_meanwhile() {
        let failed = GrantState { retry_at: at(3700), ..grant(3600) };
        check(failed, 3599, 0.0, Step::Use);
        check(failed, 3600, 0.0, Step::Wait(at(3700)));
        check(failed, 3700, 0.0, Step::Renew);
    }

    #[test]
    fn what_a_clock_that_was_wrong_has_set_binds_nobody() {
        let ahead = GrantState { renewing_until: at(86_400), retry_at: at(0), ..grant(60) };
        check(ahead, 60, 0.0, Step::Renew);
        check(GrantState { renewing_until: at(0), retry_at: at(86_400), ..ahead }, 60, 0.0, Step::Renew);
        check(GrantState { retry_at: at(3600), ..grant(60) }, 60, 0.0, Step::Wait(at(3600)));
    }

    #[test]
    fn a_grant_that_nobody_uses_is_looked_at_when_it_can_be_renewed() {
        assert_eq!(grant(3600).next_look(at(3300), 0.0), at(3300));
        assert_eq!(GrantState { retry_at: at(3400), ..grant(3600) }.next_look(at(3300), 0.0), at(3400));
        assert_eq!(GrantState { renewing_until: at(3345), ..grant(3600) }.next_look(at(3300), 0.0), at(3345));
    }

    #[test]
    fn a_token_that_the_provider_refuses_is_renewed_whatever_the_clock_says() {
        check(grant(3600).refused(at(10)), 10, 0.0, Step::Renew);
        // A clock that is an hour slow.
        check(grant(3600), -3600, 0.0, Step::Use);
    }

    #[test]
    fn only_words_about_the_grant_end_it() {
        let refusal = |status, error: &str, codes: &[u32]| {
            TokenRefusal { status, error: error.to_owned(), codes: codes.to_vec() }.meaning()
        };
        for (status, error, codes, meaning) in [
            (400, "invalid_grant", vec![], Refused::Doubtful(GONE)),
            (400, "invalid_grant", vec![50_173], Refused::ForGood(GONE)),
            (400, "invalid_grant", vec![50_076], Refused::ForGood(SIGN_IN)),
            (400, "invalid_grant", vec![90_033], Refused::ForNow),
            (400, "interaction_required", vec![], Refused::ForGood(SIGN_IN)),
            (400, "consent_required", vec![], Refused::ForGood(CONSENT)),
            (400, "unauthorized_client", vec![], Refused::Doubtful(CONSENT)),
            (401, "invalid_client", vec![7_000_222], Refused::Registration),
            (401, "invalid_client", vec![], Refused::Registration),
            (400, "temporarily_unavailable", vec![], Refused::ForNow),
            (400, "slow_down", vec![], Refused::ForNow),
            (403, "", vec![], Refused::ForNow),
            // A proxy's page, a server in trouble: whatever it says of the grant, it does not know.
            (500, "invalid_grant", vec![], Refused::ForNow),
            (503, "", vec![], Refused::ForNow),
            (429, "invalid_grant", vec![], Refused::ForNow),
        ] {
            assert_eq!(refusal(status, error, &codes), meaning, "{status} {error} {codes:?}");
        }
    }
}
