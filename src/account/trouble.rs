//! What went wrong with an account, mostly with its provider, in variants by what it means for the account, each with words for the user.
//!
//! Not here: reading it from what servers answer (`answer`), what to do about it (`worker`), and the words for its kind
//! (`core::account_cause`).

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    core::{
        account::{AccountError, AccountState, WAIT_ADVICE},
        account_cause::Cause,
    },
    net::DialError,
};

/// Why a session with a provider came to nothing. Texts are our own or a server's, cut and cleaned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection would not be safe: {0}")]
    Insecure(String),
    #[error("the server refused the login: {0}")]
    Credentials(String),
    #[error("the provider has taken back its permission: {0}")]
    Revoked(String),
    #[error("the user has to sign in at the provider again: {0}")]
    SignIn(String),
    /// The provider gives tokens, and the mailbox takes none.
    #[error("the mailbox takes no login by a permission that is good: {0}")]
    Unwelcome(String),
    /// It was logged in, and hears that it is not, or may not be.
    #[error("the server let the login pass, and then refused: {0}")]
    TurnedAway(String),
    /// The operator's: no user can mend it.
    #[error("the gateway's registration at the provider does not work: {0}")]
    Registration(String),
    #[error("the provider does not offer this access to the account: {0}")]
    NotEnabled(String),
    /// The policy's word, not the provider's. Holds what users call the provider.
    #[error("accounts at {0} are left out by policy")]
    Excluded(&'static str),
    #[error("the account's login cannot be read any more")]
    LostLogin,
    #[error("the provider asks us to wait: {text}")]
    Throttled { text: String, wait: Option<Duration> },
    /// Our own caps, and nobody's fault: there is a place soon.
    #[error("as many sessions as there may be are open")]
    Crowded,
    #[error("the server does not keep to the protocol: {0}")]
    Misbehaving(String),
    #[error("the server refused: {0}")]
    Refused(String),
    /// It said in passing what may not be so.
    #[error("the server refused: {0}")]
    Doubted(String),
    #[error("the account has no Sent mailbox that we recognise")]
    NoSentMailbox,
    #[error("the server has given the same mail other ids again and again")]
    UnstableIds,
    /// Our fault, not the provider's.
    #[error("what is stored of the account or its mail cannot be read")]
    Unreadable,
}

/// How long it is tried again what a provider says in passing of an account that was well.
pub const DOUBTED_FOR: Duration = Duration::from_hours(6);

impl Trouble {
    /// A stable word for the cause.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Insecure(_) => "insecure",
            Self::Credentials(_) | Self::TurnedAway(_) | Self::LostLogin => "credentials",
            Self::Revoked(_) | Self::SignIn(_) | Self::Unwelcome(_) => "revoked",
            Self::Registration(_) => "registration",
            Self::NotEnabled(_) => "not_enabled",
            Self::Excluded(_) => "provider_excluded",
            Self::Throttled { .. } => "throttled",
            Self::Crowded => "crowded",
            Self::Misbehaving(_) => "misbehaving",
            Self::Refused(_) | Self::Doubted(_) => "refused",
            Self::NoSentMailbox => "no_sent_mailbox",
            Self::UnstableIds => "ids_unstable",
            Self::Unreadable => "unreadable",
        }
    }

    /// What the reader can do about it: what helps against this, and against all of its kind.
    #[must_use]
    pub fn advice(&self) -> String {
        match (self.remedy(), Cause::of(self.code()).map_or("", Cause::recommendation)) {
            ("", kind) => kind.to_owned(),
            (own, kind) if self.state() == AccountState::ReauthRequired => format!("{kind} {own}"),
            (own, _) if self.has_own_advice() => own.to_owned(),
            (own, kind) => format!("{own} {kind}"),
        }
    }

    /// Whether what helps against its kind is of no use here.
    fn has_own_advice(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::Crowded
                | Self::UnstableIds
                | Self::NoSentMailbox
                | Self::Excluded(_)
        )
    }

    /// What helps against this alone; empty where that is what helps against its kind.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "Check host and port, and whether the provider is up.",
            Self::Insecure(_) => {
                "Choose the security the server offers, and see that its certificate names its host."
            }
            Self::Credentials(_) => "Many providers want an app password here.",
            Self::Revoked(_) | Self::NotEnabled(_) | Self::Unreadable => "",
            Self::SignIn(_) | Self::Unwelcome(_) => {
                "Give the user a connect link (POST …/users/{id}/connect-link): he signs in again, and all goes on by itself."
            }
            Self::Registration(_) => {
                "Whoever runs this gateway must see to it: client id, secret and permissions under [oauth.…]."
            }
            Self::Excluded(_) => {
                "Connect a mailbox at another provider instead, or have the provider taken out of exclude_providers in the \
                 policy and resume the account."
            }
            Self::LostLogin => "Enter the account's credentials again.",
            Self::Throttled { .. } => WAIT_ADVICE,
            Self::Crowded => "Nothing needs doing: try again in a moment.",
            Self::Misbehaving(_) => "Tell the provider.",
            Self::TurnedAway(_) | Self::Refused(_) | Self::Doubted(_) => {
                "See what the server says; the provider's administrator may have to allow this access."
            }
            Self::UnstableIds => {
                "Nothing is lost: we look again in an hour. If it goes on, the provider's store needs repair."
            }
            Self::NoSentMailbox => "Create a mailbox named Sent at the provider, or mark one as \\Sent.",
        }
    }

    /// What the reader can do once nobody tries again by himself.
    #[must_use]
    pub fn advice_when_stopped(&self) -> String {
        let remedy = match self {
            // Their remedy is to wait for us.
            Self::Throttled { .. } | Self::UnstableIds => "",
            _ => self.remedy(),
        };
        match remedy {
            "" => "Resume the account to have it tried again.".to_owned(),
            remedy => format!("{remedy} Then resume the account."),
        }
    }

    /// What it is while it is not believed yet: providers say it in passing too, of mailboxes that are as they were. `None` of what is
    /// said for good.
    #[must_use]
    pub fn in_passing(&self) -> Option<Self> {
        match self {
            Self::Unwelcome(text) | Self::TurnedAway(text) | Self::NotEnabled(text) => {
                Some(Self::Doubted(text.clone()))
            }
            _ => None,
        }
    }

    /// The state an account is in after this.
    #[must_use]
    pub fn state(&self) -> AccountState {
        match self {
            Self::Credentials(_)
            | Self::Revoked(_)
            | Self::SignIn(_)
            | Self::Unwelcome(_)
            | Self::TurnedAway(_)
            | Self::NotEnabled(_)
            | Self::LostLogin => AccountState::ReauthRequired,
            Self::Throttled { .. } | Self::Crowded => AccountState::Throttled,
            Self::Excluded(_) => AccountState::Stopped,
            _ => AccountState::Error,
        }
    }

    /// When the provider wants to be asked again, if it says so.
    #[must_use]
    pub fn resumes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let Self::Throttled { wait: Some(wait), .. } = self else { return None };
        Some(now.saturating_add(*wait).unwrap_or(Timestamp::MAX))
    }

    /// A line for the account's error log.
    #[must_use]
    pub fn entry(&self, at: Timestamp) -> AccountError {
        AccountError {
            at,
            code: self.code().into(),
            message: self.to_string(),
            advice: self.advice(),
            count: 1,
        }
    }
}

impl From<DialError> for Trouble {
    fn from(error: DialError) -> Self {
        match &error {
            DialError::Tls(source) => Self::Insecure(format!("{error} ({source})")),
            DialError::Name => Self::Insecure(error.to_string()),
            // One text for all that is inside: a user must not learn what listens there.
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::{self, ResponseCode, ServerText};

    /// What a refused LOGIN comes to.
    fn login(code: Option<ResponseCode>, text: &str) -> Trouble {
        imap::Error::Auth { code, text: ServerText::new(text.as_bytes()), detail: None }.into()
    }

    #[track_caller]
    fn check(trouble: &Trouble, state: AccountState, text: &str, advice: &[&str]) {
        let entry = trouble.entry(Timestamp::UNIX_EPOCH);
        assert_eq!((trouble.state(), Cause::of(&entry.code).unwrap().text()), (state, text), "{trouble}");
        for words in advice {
            assert!(entry.advice.contains(words), "{words:?} in {:?}", entry.advice);
        }
    }

    #[test]
    fn keap_27_access_denied_when_the_password_changed() {
        let text = "Access denied for this account.";
        let advice = ["If the password has changed", "allows access"];
        for trouble in [
            login(None, "nope"),
            login(Some(ResponseCode::AuthenticationFailed), "Invalid credentials"),
            login(None, "Application-specific password required"),
            Trouble::LostLogin,
        ] {
            check(&trouble, AccountState::ReauthRequired, text, &advice);
        }
    }

    #[test]
    fn keap_28_authorization_revoked() {
        let text = "Authorization has been revoked for this account";
        let advice = ["Allow access at the provider", "whoever runs this gateway"];
        for trouble in [
            login(Some(ResponseCode::AuthorizationFailed), "no"),
            login(Some(ResponseCode::Expired), "no"),
            login(None, "Token has been expired or revoked"),
            Trouble::SignIn("no".into()),
        ] {
            check(&trouble, AccountState::ReauthRequired, text, &advice);
        }
    }

    #[test]
    fn a_session_that_ends_over_its_token_is_begun_anew() {
        for words in ["Session invalidated - AccessTokenExpired", "Session expired, please login again."] {
            let bye = imap::Error::ServerBye { code: None, text: ServerText::new(words.as_bytes()) };
            assert!(matches!(bye.into(), Trouble::Unreachable(_)), "{words}");
            assert_eq!(login(None, words).state(), AccountState::ReauthRequired, "{words}");
        }
        let elsewhere = imap::Error::No {
            code: None,
            text: ServerText::new(b"User is authenticated but not connected."),
        };
        assert!(matches!(elsewhere.into(), Trouble::NotEnabled(_)));
    }

    #[test]
    fn who_signs_in_again_is_told_how_and_the_operator_what_is_his() {
        let advice = Trouble::SignIn("gone".into()).advice();
        assert!(advice.contains("connect link"), "{advice}");
        let registration = Trouble::Registration("no such client".into());
        assert_eq!(registration.state(), AccountState::Error);
        assert!(registration.advice().contains("[oauth.…]"), "{}", registration.advice());
    }

    #[test]
    fn keap_29_email_not_enabled() {
        let text = "Email is not enabled for this account";
        for words in [
            "Your account is not enabled for IMAP use. Please visit your settings (Failure)",
            "User is authenticated but not connected.",
        ] {
            check(&login(None, words), AccountState::ReauthRequired, text, &["spelling", "provider offers"]);
        }
    }

    #[test]
    fn keap_3_a_provider_that_policy_leaves_out_is_named_with_the_way_out() {
        let text = "Email is not enabled for this account";
        let trouble = Trouble::Excluded("Exchange on premise");
        check(&trouble, AccountState::Stopped, text, &["another provider", "exclude_providers", "resume"]);
        assert_eq!(trouble.to_string(), "accounts at Exchange on premise are left out by policy");
    }

    #[test]
    fn keap_32_anything_else_that_keeps_mail_from_being_read() {
        let text = "Unknown error reading email from provider, please check again later";
        let advice = ["We try again", "whoever runs this gateway"];
        for trouble in [
            Trouble::Unreachable("x".into()),
            Trouble::Insecure("x".into()),
            Trouble::Misbehaving("x".into()),
            Trouble::Refused("x".into()),
        ] {
            check(&trouble, AccountState::Error, text, &advice);
        }
        let throttled = Trouble::Throttled { text: "x".into(), wait: None };
        check(&throttled, AccountState::Throttled, text, &["go on"]);
    }

    #[test]
    fn keap_33_anything_else_that_keeps_mail_from_being_filed() {
        let text = "Unknown error importing email, please try again later";
        check(
            &Trouble::Unreadable,
            AccountState::Error,
            text,
            &["We try again", "whoever runs this gateway"],
        );
    }

    #[test]
    fn who_stopped_trying_says_what_it_takes_and_promises_nothing() {
        let text = || "x".to_owned();
        let all = [
            Trouble::Throttled { text: text(), wait: None },
            Trouble::UnstableIds,
            Trouble::Unreachable(text()),
            Trouble::Refused(text()),
            Trouble::NoSentMailbox,
        ];
        for trouble in all {
            let advice = trouble.advice_when_stopped();
            assert!(advice.to_lowercase().contains("resume the account"), "{advice}");
            assert!(
                !["Nothing", "We try", "we go on", "we look"].iter().any(|no| advice.contains(no)),
                "{advice}"
            );
        }
    }

    #[test]
    fn keap_34_every_trouble_is_of_a_kind() {
        let kinds = [
            ("credentials", Cause::AccessDenied),
            ("revoked", Cause::Revoked),
            ("not_enabled", Cause::NotEnabled),
            ("unreachable", Cause::Reading),
            ("unreadable", Cause::Importing),
        ];
        for (code, kind) in kinds {
            assert_eq!(Cause::of(code), Some(kind), "{code}");
        }
        let answers = [(401, Some(Cause::CrmRefuses)), (410, Some(Cause::CrmGone)), (500, None)];
        for (status, kind) in answers {
            assert_eq!(Cause::of_answer(status), kind, "{status}");
        }
        // Good news and news of the provider's are no errors.
        assert_eq!(["mail_passed_over", "provider_alert"].map(Cause::of), [None, None]);
    }
}
