//! What went wrong with an account, mostly with its provider, in variants by what it means for the account, each with words for the user.
//!
//! Not here: what to do about it (`worker`), and the exact texts that presets want for the same causes.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    core::account::{AccountError, AccountState},
    imap,
    net::DialError,
    smtp::{ClientError, Stage},
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
    #[error("the account's login cannot be read any more")]
    LostLogin,
    #[error("the provider asks us to wait: {text}")]
    Throttled { text: String, wait: Option<Duration> },
    #[error("the server does not keep to the protocol: {0}")]
    Misbehaving(String),
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the account has no Sent mailbox that we recognise")]
    NoSentMailbox,
    #[error("the server has given the same mail other ids again and again")]
    UnstableIds,
    /// Our fault, not the provider's.
    #[error("what is stored of the account or its mail cannot be read")]
    Unreadable,
}

impl Trouble {
    /// A stable word for the cause.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Insecure(_) => "insecure",
            Self::Credentials(_) | Self::LostLogin => "credentials",
            Self::Throttled { .. } => "throttled",
            Self::Misbehaving(_) => "misbehaving",
            Self::Refused(_) => "refused",
            Self::NoSentMailbox => "no_sent_mailbox",
            Self::UnstableIds => "ids_unstable",
            Self::Unreadable => "unreadable",
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => {
                "Check host and port. If the provider is down, nothing needs doing: we keep trying."
            }
            Self::Insecure(_) => {
                "Choose the security the server offers, and see that its certificate names its host."
            }
            Self::Credentials(_) => {
                "Update the account's credentials. Many providers want an app password here."
            }
            Self::LostLogin => "Enter the account's credentials again.",
            Self::Unreadable => {
                "Tell whoever runs this gateway: its log says what cannot be read. We keep trying, at longer intervals."
            }
            Self::Throttled { .. } => "Nothing needs doing: we go on when the provider lets us.",
            Self::Misbehaving(_) => "Tell the provider. We keep trying, at longer intervals.",
            Self::Refused(_) => {
                "See what the server says; the provider's administrator may have to allow this access."
            }
            Self::UnstableIds => {
                "Nothing is lost: we look again in an hour. If it goes on, the provider's store needs repair."
            }
            Self::NoSentMailbox => "Create a mailbox named Sent at the provider, or mark one as \\Sent.",
        }
    }

    /// The state an account is in after this.
    #[must_use]
    pub fn state(&self) -> AccountState {
        match self {
            Self::Credentials(_) | Self::LostLogin => AccountState::ReauthRequired,
            Self::Throttled { .. } => AccountState::Throttled,
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
            advice: self.advice().into(),
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

impl From<imap::Error> for Trouble {
    fn from(error: imap::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            _ if matches!(error, imap::Error::Insecure(_)) => Self::Insecure(text),
            imap::Kind::Transient => Self::Unreachable(text),
            imap::Kind::Credentials => Self::Credentials(text),
            imap::Kind::BackOff(wait) => Self::Throttled { text, wait },
            imap::Kind::Misbehaving => Self::Misbehaving(text),
            imap::Kind::Refused => Self::Refused(text),
        }
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
            ClientError::Refused { stage: Stage::Auth, reply } if reply.is_permanent() => {
                Self::Credentials(text)
            }
            ClientError::Refused { reply, .. } if reply.is_transient() => {
                Self::Throttled { text, wait: None }
            }
            _ => Self::Refused(text),
        }
    }
}
