//! What a provider's server means by an answer: by its code where it sends one (RFC 5530, RFC 3463), and by its words where
//! they say more.
//!
//! Not here: the words (`config/providers`, read by `core::provider`), and what follows for the account (`trouble`).

use super::Trouble;
use crate::{
    core::provider::{Meaning, When, meaning},
    imap::{self, Kind, ResponseCode},
    smtp::{ClientError, Reply, Stage},
};

/// Which answer fits an error of an IMAP session. A code says what is sure; where there is none, or where the words name how
/// long to wait, they count.
#[must_use]
pub fn judge(error: &imap::Error) -> Kind {
    let by_words = said(error).map(|meaning| kind_of(meaning, error));
    match (error.kind_of_code(), by_words) {
        (_, Some(asks @ Kind::BackOff(Some(_)))) => asks,
        (Some(by_code), _) => by_code,
        (None, Some(by_words)) => by_words,
        (None, None) => error.kind(),
    }
}

fn is_login(error: &imap::Error) -> bool {
    matches!(error, imap::Error::Auth { .. })
}

fn said(error: &imap::Error) -> Option<Meaning> {
    let when = if is_login(error) { When::Login } else { When::Session };
    error.server_text().and_then(|text| meaning(text.as_str(), when))
}

fn kind_of(meaning: Meaning, error: &imap::Error) -> Kind {
    match meaning {
        // A session that has outlived its token says nothing of the login: the next one has a new token.
        Meaning::TokenExpired if !is_login(error) => Kind::Transient,
        _ => meaning.back_off().map_or(Kind::Credentials, Kind::BackOff),
    }
}

impl From<imap::Error> for Trouble {
    fn from(error: imap::Error) -> Self {
        let text = error.to_string();
        match judge(&error) {
            _ if matches!(error, imap::Error::Insecure(_)) => Self::Insecure(text),
            Kind::Transient => Self::Unreachable(text),
            // A server that has lost touch with its own accounts, a token that is over, or a login that it holds to be unsafe.
            Kind::Credentials if !is_login(&error) && said(&error) != Some(Meaning::NotEnabled) => {
                Self::TurnedAway(text)
            }
            Kind::Credentials => refused_login(text, is_revoked(&error), said(&error)),
            Kind::BackOff(wait) => Self::Throttled { text, wait },
            Kind::Misbehaving => Self::Misbehaving(text),
            Kind::Refused if is_login(&error) => refused_login(text, false, said(&error)),
            Kind::Refused => Self::Refused(text),
        }
    }
}

fn is_revoked(error: &imap::Error) -> bool {
    let codes = [ResponseCode::AuthorizationFailed, ResponseCode::Expired];
    is_login(error) && error.code().is_some_and(|code| codes.contains(code))
}

/// What a refused login means: a wrong password, unless the server says more.
fn refused_login(text: String, is_revoked: bool, said: Option<Meaning>) -> Trouble {
    match said {
        Some(Meaning::NotEnabled) => Trouble::NotEnabled(text),
        _ if is_revoked => Trouble::Revoked(text),
        Some(Meaning::Revoked) => Trouble::Revoked(text),
        _ => Trouble::Credentials(text),
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match &error {
            ClientError::Io(_) | ClientError::Timeout | ClientError::Closed | ClientError::Broken => {
                Self::Unreachable(text)
            }
            ClientError::OutOfStep => Self::Misbehaving(text),
            ClientError::TlsNotOffered | ClientError::InjectedBeforeTls | ClientError::Insecure => {
                Self::Insecure(text)
            }
            ClientError::Refused { stage, reply } => refused((*stage, reply), text),
            _ => Self::Refused(text),
        }
    }
}

fn refused((stage, reply): (Stage, &Reply), text: String) -> Trouble {
    let when = if stage == Stage::Auth { When::Login } else { When::Session };
    let said = meaning(&words(reply), when);
    match said.and_then(Meaning::back_off) {
        // Servers refuse for good and say in words that it will pass.
        Some(wait) => Trouble::Throttled { text, wait },
        None if stage == Stage::Auth && reply.is_permanent() => refused_login(text, false, said),
        None if reply.is_transient() => Trouble::Throttled { text, wait: None },
        None => Trouble::Refused(text),
    }
}

/// The lines of a reply as one.
fn words(reply: &Reply) -> String {
    reply.lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{core::account::AccountState, imap::ServerText};

    #[track_caller]
    fn check(code: Option<ResponseCode>, text: &str, expect: [Kind; 2]) {
        let text = ServerText::new(text.as_bytes());
        let no = imap::Error::No { code: code.clone(), text: text.clone() };
        let auth = imap::Error::Auth { code, text: text.clone(), detail: None };
        assert_eq!([judge(&no), judge(&auth)], expect, "{text}");
    }

    #[test]
    fn what_a_session_hears_of_its_login_is_not_believed_at_once() {
        let text = || ServerText::new(b"Invalid credentials");
        for code in
            [ResponseCode::AuthenticationFailed, ResponseCode::AuthorizationFailed, ResponseCode::Expired]
        {
            let code = Some(code);
            for error in [
                imap::Error::No { code: code.clone(), text: text() },
                imap::Error::ServerBye { code: code.clone(), text: text() },
            ] {
                let trouble = Trouble::from(error);
                assert!(matches!(trouble.in_passing(), Some(Trouble::Doubted(_))), "{trouble}");
                // And when it goes on, its user is asked.
                assert_eq!(trouble.state(), AccountState::ReauthRequired);
            }
            let refused = Trouble::from(imap::Error::Auth { code, text: text(), detail: None });
            assert_eq!((refused.in_passing(), refused.state()), (None, AccountState::ReauthRequired));
        }
        let unsafe_login = ServerText::new(b"Unsafe Login. Please contact kefu@188.com");
        let trouble = Trouble::from(imap::Error::No { code: None, text: unsafe_login });
        assert!(matches!(trouble, Trouble::TurnedAway(_)), "{trouble}");
    }

    #[test]
    fn codes_then_words_decide_what_a_refusal_means() {
        use ResponseCode as C;
        let wait = Kind::BackOff(None);
        let minutes = |minutes| [Kind::BackOff(Some(Duration::from_mins(minutes))); 2];
        check(None, "no such mailbox", [Kind::Refused, Kind::Credentials]);
        check(None, "Mailbox does not exist", [Kind::Refused, Kind::Credentials]);
        check(
            Some(C::InUse),
            "Request is throttled. Suggested Backoff Time: 300000 milliseconds",
            minutes(5),
        );
        check(Some(C::Unavailable), "Maximum number of connections from user+IP exceeded", [wait; 2]);
        check(Some(C::Alert), "Too many simultaneous connections. (Failure)", [wait; 2]);
        check(None, "Too many login attempts", minutes(15));
        check(
            Some(C::Alert),
            "Application-specific password required: https://x (Failure)",
            [Kind::Credentials; 2],
        );
        check(Some(C::AuthenticationFailed), "Invalid credentials (Failure)", [Kind::Credentials; 2]);
        check(Some(C::AuthenticationFailed), "Please try again later", [Kind::Credentials; 2]);
        check(Some(C::ServerBug), "FETCH Server error while fetching messages", [Kind::Transient; 2]);
        check(Some(C::OverQuota), "Account exceeded command or bandwidth limits.", minutes(60));
        check(Some(C::OverQuota), "Mailbox is full", [Kind::Refused, Kind::Credentials]);
        check(Some(C::ContactAdmin), "call us", [Kind::Refused; 2]);
        check(None, "Session invalidated - AccessTokenExpired", [Kind::Transient, Kind::Credentials]);
        check(None, "User is authenticated but not connected.", [Kind::Credentials; 2]);
        check(None, "Unsafe Login. Please contact kefu@188.com", [Kind::Credentials; 2]);
    }

    #[track_caller]
    fn submission(stage: Stage, (code, status): (u16, [u16; 3]), text: &str) -> Trouble {
        ClientError::Refused { stage, reply: Reply::new(code, status, text.to_owned()) }.into()
    }

    #[test]
    fn what_a_submission_server_says_is_judged_at_every_stage() {
        let throttled = |trouble: Trouble| match trouble {
            Trouble::Throttled { wait, .. } => wait,
            other => panic!("{other:?}"),
        };
        let mins = |minutes| Some(Duration::from_mins(minutes));
        for (stage, code, text, wait) in [
            (Stage::Greeting, (421, [4, 7, 0]), "Temporary System Problem. Try again later", None),
            (Stage::Auth, (454, [4, 7, 0]), "Too many login attempts, please try again later.", mins(15)),
            (Stage::Auth, (535, [5, 7, 0]), "Too many login attempts", mins(15)),
            (
                Stage::Mail,
                (432, [4, 3, 2]),
                "STOREDRV.ClientSubmit; sender thread limit exceeded; Concurrent connections limit exceeded",
                mins(1),
            ),
            (Stage::Data, (550, [5, 4, 5]), "Daily user sending quota exceeded.", mins(24 * 60)),
            (Stage::Mail, (451, [4, 3, 0]), "Something", None),
        ] {
            assert_eq!(throttled(submission(stage, code, text)), wait, "{text}");
        }
        let disabled = "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant";
        let disabled = submission(Stage::Auth, (535, [5, 7, 139]), disabled);
        assert!(matches!(disabled, Trouble::NotEnabled(_)));
        let wrong = submission(Stage::Auth, (535, [5, 7, 8]), "Username and Password not accepted.");
        assert!(matches!(wrong, Trouble::Credentials(_)));
        assert!(matches!(submission(Stage::Mail, (550, [5, 7, 1]), "no"), Trouble::Refused(_)));
    }
}
