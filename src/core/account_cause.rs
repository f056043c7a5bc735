//! Why an account is in trouble, in the few kinds that users of other systems know by their words.
//!
//! Not here: what went wrong in detail (`account::Trouble`) and what a session makes of it.

/// The kind of a trouble. A workspace that is gone and an endpoint of the CRM that refuses are kinds too, but no account has a
/// log of them: the one answers nobody any more, of the other its webhook tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Between the user and his provider: another password, an access that he has to allow.
    AccessDenied,
    /// The provider has taken back what it allowed.
    Revoked,
    /// The provider knows no such address, or does not offer this kind of access to it.
    NotEnabled,
    /// Anything else on the reading side.
    Reading,
    /// Between what was read and our own store.
    Importing,
}

impl Cause {
    /// The kind of an entry in the error log, by its code; `None` of what only is to be known.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        Some(match code {
            "credentials" => Self::AccessDenied,
            "revoked" => Self::Revoked,
            "not_enabled" => Self::NotEnabled,
            "unreadable" => Self::Importing,
            "mail_passed_over" | "provider_alert" => return None,
            _ => Self::Reading,
        })
    }

    /// Its words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AccessDenied => "Access denied for this account.",
            Self::Revoked => "Authorization has been revoked for this account",
            Self::NotEnabled => "Email is not enabled for this account",
            Self::Reading => "Unknown error reading email from provider, please check again later",
            Self::Importing => "Unknown error importing email, please try again later",
        }
    }

    /// What helps against every trouble of its kind.
    #[must_use]
    pub fn recommendation(self) -> &'static str {
        match self {
            Self::AccessDenied => {
                "If the password has changed, update the account's login; see that the provider allows access to it."
            }
            Self::Revoked => {
                "Allow access at the provider again, then update the account's login. If that does not help, ask whoever \
                 runs this gateway."
            }
            Self::NotEnabled => {
                "Check the spelling of the address and that its provider offers this access, then update the account."
            }
            Self::Reading => "We try again. If it goes on, ask whoever runs this gateway.",
            Self::Importing => {
                "We try again, at longer intervals. Tell whoever runs this gateway: its log says more."
            }
        }
    }
}
