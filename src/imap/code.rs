//! Response codes: the bracketed words of a status response (RFC 9051 section 7.1, RFC 5530, 4315, 7162).
//!
//! Not here: what to do about them (`Error::kind`). REFERRAL and all we do not use end in `Other`, unread: nobody follows one.

use super::{
    capability::Capabilities,
    uid::{ModSeq, Uid, UidSet, UidValidity},
};

/// One response code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseCode {
    Alert,
    AppendUid {
        uid_validity: UidValidity,
        uid: Uid,
    },
    AuthenticationFailed,
    AuthorizationFailed,
    Cannot,
    Capability(Capabilities),
    ContactAdmin,
    Corruption,
    Expired,
    ExpungeIssued,
    HighestModSeq(ModSeq),
    InUse,
    Limit,
    NoModSeq,
    NonExistent,
    NoPerm,
    NotificationOverflow,
    OverQuota,
    PrivacyRequired,
    ReadOnly,
    ReadWrite,
    ServerBug,
    /// Yahoo and Gmail: not in any RFC.
    Throttled,
    TooBig,
    TryCreate,
    Unavailable,
    /// `None` when the server's number is 0 or beyond 32 bits.
    UidNext(Option<Uid>),
    UidValidity(Option<UidValidity>),
    /// Gmail: a human must look into a browser.
    WebAlert,
    Other,
}

impl ResponseCode {
    /// Reads what stands between the brackets.
    #[must_use]
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.trim_ascii();
        let (name, argument) = match text.iter().position(|byte| *byte == b' ') {
            Some(at) => text.split_at_checked(at).unwrap_or((text, &[])),
            None => (text, &[][..]),
        };
        let argument = argument.trim_ascii();
        let Some(name) = std::str::from_utf8(name).ok().map(str::to_ascii_uppercase) else {
            return Self::Other;
        };
        Self::with_argument(&name, argument).unwrap_or_else(|| Self::bare(&name))
    }

    fn with_argument(name: &str, argument: &[u8]) -> Option<Self> {
        Some(match name {
            "CAPABILITY" => Self::Capability(Capabilities::parse(argument)),
            "UIDNEXT" => Self::UidNext(number(argument).and_then(Uid::new)),
            "UIDVALIDITY" => Self::UidValidity(number(argument).and_then(UidValidity::new)),
            "HIGHESTMODSEQ" => Self::HighestModSeq(ModSeq::new(number(argument)?)?),
            "APPENDUID" => {
                let mut words = argument.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                let uid_validity = number(words.next()?).and_then(UidValidity::new)?;
                let uid = UidSet::parse(words.next()?)?.last()?;
                Self::AppendUid { uid_validity, uid }
            }
            _ => return None,
        })
    }

    fn bare(name: &str) -> Self {
        match name {
            "ALERT" => Self::Alert,
            "AUTHENTICATIONFAILED" => Self::AuthenticationFailed,
            "AUTHORIZATIONFAILED" => Self::AuthorizationFailed,
            "CANNOT" => Self::Cannot,
            "CONTACTADMIN" => Self::ContactAdmin,
            "CORRUPTION" => Self::Corruption,
            "EXPIRED" => Self::Expired,
            "EXPUNGEISSUED" => Self::ExpungeIssued,
            "INUSE" => Self::InUse,
            "LIMIT" => Self::Limit,
            "NOMODSEQ" => Self::NoModSeq,
            "NONEXISTENT" => Self::NonExistent,
            "NOPERM" => Self::NoPerm,
            "NOTIFICATIONOVERFLOW" => Self::NotificationOverflow,
            "OVERQUOTA" => Self::OverQuota,
            "PRIVACYREQUIRED" => Self::PrivacyRequired,
            "READ-ONLY" => Self::ReadOnly,
            "READ-WRITE" => Self::ReadWrite,
            "SERVERBUG" => Self::ServerBug,
            "THROTTLED" => Self::Throttled,
            "TOOBIG" => Self::TooBig,
            "TRYCREATE" => Self::TryCreate,
            "UNAVAILABLE" => Self::Unavailable,
            "WEBALERT" => Self::WebAlert,
            _ => Self::Other,
        }
    }
}

/// A number of the width wanted; `None` for what does not fit.
fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: ResponseCode) {
        assert_eq!(ResponseCode::parse(text.as_bytes()), expect, "{text}");
    }

    #[test]
    fn codes_are_read_in_any_case_and_impossible_numbers_say_nothing() {
        use ResponseCode as C;
        let uid = |number| Uid::new(number).unwrap();
        let validity = |number| UidValidity::new(number).unwrap();
        check("unavailable", C::Unavailable);
        check("UIDVALIDITY 7", C::UidValidity(Some(validity(7))));
        check("UIDVALIDITY 0", C::UidValidity(None));
        check("UIDVALIDITY 4294967296", C::UidValidity(None));
        check("UIDNEXT 12", C::UidNext(Some(uid(12))));
        check("HIGHESTMODSEQ 0", C::Other);
        check("APPENDUID 7 12", C::AppendUid { uid_validity: validity(7), uid: uid(12) });
        check("APPENDUID 7", C::Other);
        check("REFERRAL imap://attacker.example/", C::Other);
        check("", C::Other);
    }
}
