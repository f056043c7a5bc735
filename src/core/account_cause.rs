//! Why an account, or what tells the CRM, is in trouble, in the few kinds that users of other systems know by their words.
//!
//! Not here: what went wrong in detail (`account::Trouble`) and what a session makes of it.

/// The kind of a trouble.
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
    /// The CRM's own end is no more. Its webhook tells of it, as of the next: no account has a log of either.
    CrmGone,
    /// The CRM does not let us write to it any more.
    CrmRefuses,
}

impl Cause {
    /// The kind of an entry in the error log, by its code; `None` of what only is to be known.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        Some(match code {
            "credentials" => Self::AccessDenied,
            "revoked" => Self::Revoked,
            "not_enabled" | "provider_excluded" => Self::NotEnabled,
            "unreadable" => Self::Importing,
            "mail_passed_over" | "provider_alert" => return None,
            _ => Self::Reading,
        })
    }

    /// The kind of what an endpoint of the CRM answers, where the status says more than that it fails (RFC 9110 section 15.5).
    #[must_use]
    pub fn of_answer(status: u16) -> Option<Self> {
        match status {
            404 | 410 => Some(Self::CrmGone),
            401 | 403 => Some(Self::CrmRefuses),
            _ => None,
        }
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
            Self::CrmGone => "This app has become unavailable",
            Self::CrmRefuses => "Access denied for this app",
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
            Self::CrmGone => {
                "See whether the CRM has been closed or its address has changed; then change the endpoint's url or enable it \
                 again. If that does not help, ask whoever runs the CRM."
            }
            Self::CrmRefuses => {
                "Allow the gateway to write into the CRM again: its secret or its permission has been taken back. If that does \
                 not help, ask whoever runs the CRM."
            }
        }
    }
}
