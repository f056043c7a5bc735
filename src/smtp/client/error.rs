//! Why a connection to a server came to nothing, by what the caller does next.
//!
//! Not here: the fate of a message whose final dot was sent (`Outcome`).

use std::io;

use super::{Outcome, transparency::Unsendable};
use crate::smtp::Reply;

/// Where a server said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Greeting,
    Hello,
    StartTls,
    Auth,
    Mail,
    Data,
    Reset,
}

/// An error before the final dot: the message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the connection to the server failed")]
    Io(#[from] io::Error),
    #[error("the server took too long")]
    Timeout,
    #[error("the server closed the connection")]
    Closed,
    /// Not SMTP, replies nobody asked for, a code that makes no sense here.
    #[error("the server does not keep to the protocol")]
    OutOfStep,
    #[error("the server refused at {stage:?}: {reply}")]
    Refused { stage: Stage, reply: Reply },
    #[error("the server does not offer STARTTLS")]
    TlsNotOffered,
    #[error("octets arrived between the reply to STARTTLS and the handshake")]
    InjectedBeforeTls,
    #[error("credentials are not sent over an unencrypted connection")]
    Insecure,
    #[error("the server offers no mechanism for these credentials")]
    NoMechanism,
    /// The message or an address needs this extension and the server lacks it.
    #[error("the server does not offer {0}, which this message needs")]
    NeedsExtension(&'static str),
    #[error("the server takes messages of at most {bytes_max} octets")]
    TooLarge { bytes_max: u64 },
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// An earlier command was cancelled or failed: open a new connection.
    #[error("the connection is out of use")]
    Broken,
}

impl ClientError {
    /// A reply that is not the one hoped for: a refusal if it is one, else nonsense.
    pub(super) fn unexpected(stage: Stage, reply: Reply) -> Self {
        if reply.is_transient() || reply.is_permanent() {
            Self::Refused { stage, reply }
        } else {
            Self::OutOfStep
        }
    }

    /// True when another try, even on a fresh connection, would end the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused {
                stage: Stage::Greeting | Stage::Hello | Stage::StartTls | Stage::Auth, ..
            } => false,
            Self::Refused { reply, .. } => reply.is_permanent(),
            Self::NeedsExtension(_) | Self::TooLarge { .. } | Self::Unsendable(_) => true,
            _ => false,
        }
    }

    /// The same as the fate of a message: never [`Outcome::Unknown`], since nothing was sent.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { reply, .. } if self.is_permanent() => Outcome::Refused(reply.clone()),
            Self::Refused { reply, .. } if reply.is_transient() => Outcome::Deferred(reply.clone()),
            Self::TooLarge { .. } => Outcome::Refused(Reply::new(552, [5, 3, 4], self.to_string())),
            Self::NeedsExtension(_) | Self::Unsendable(_) => {
                Outcome::Refused(Reply::new(554, [5, 6, 1], self.to_string()))
            }
            _ => Outcome::Deferred(Reply::new(451, [4, 4, 2], self.to_string())),
        }
    }
}
