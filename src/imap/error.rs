//! What can go wrong between us and an IMAP server, in variants that say what the caller does next.
//!
//! Not here: retrying. `Error::kind` says which of five answers fits; how long to wait is the caller's policy.

use std::{fmt, io, time::Duration};

use super::code::ResponseCode;

/// Longest text of a server that is kept, in characters: enough for every real explanation, too short to flood a log.
pub const SERVER_TEXT_CHARS_MAX: usize = 500;

/// Every verb of the client ends in this.
pub type Result<T> = std::result::Result<T, Error>;

/// One failure. Whatever is neither `No` nor `Bad` nor `TooLarge` ends the connection: drop the client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection to the server failed")]
    Io(#[source] io::Error),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server broke the protocol")]
    Protocol(#[from] Fault),
    #[error("the server ended the session: {text}")]
    ServerBye { code: Option<ResponseCode>, text: ServerText },
    #[error("the server refused the command: {text}")]
    No { code: Option<ResponseCode>, text: ServerText },
    #[error("the server did not understand the command: {text}")]
    Bad { code: Option<ResponseCode>, text: ServerText },
    /// A refused LOGIN or AUTHENTICATE. `detail` is what SASL said before the refusal (the JSON of XOAUTH2, decoded).
    #[error("the server refused the credentials: {text}")]
    Auth { code: Option<ResponseCode>, text: ServerText, detail: Option<ServerText> },
    #[error("going on would not be safe")]
    Insecure(#[from] Insecurity),
    /// The message is larger than the caller allowed; the connection goes on.
    #[error("the message is larger than {bytes_max} octets")]
    TooLarge { bytes_max: u64 },
    #[error("the server does not offer {0}")]
    Unsupported(&'static str),
    #[error("{0} holds characters that cannot be sent")]
    Unsendable(&'static str),
}

/// How a server broke the protocol, or a limit that exists because servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a response line is longer than its limit")]
    LineTooLong,
    #[error("a literal is larger than its limit")]
    LiteralTooLarge,
    #[error("a command was answered by more untagged responses than the limit")]
    TooManyResponses,
    #[error("the first line is no greeting")]
    NoGreeting,
    #[error("a tagged response belongs to no command in flight")]
    UnknownTag,
    #[error("a continuation request came though nothing was to be continued")]
    UnexpectedContinuation,
    #[error("the server asks for more continuations than the mechanism has")]
    TooManyContinuations,
    #[error("a response cannot be read")]
    Malformed,
    #[error("a number is impossible")]
    ImpossibleNumber,
    #[error("UIDs do not ascend with sequence numbers")]
    UidsNotAscending,
    #[error("a UID SEARCH was answered with sequence numbers")]
    SequenceNumbers,
    /// Not the server's fault: a verb was dropped half-way, so its answer would be taken for the next one's.
    #[error("an earlier command was abandoned half-way")]
    Abandoned,
}

/// Why the client would rather stop than go on in clear, or over a connection that an attacker may have prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Insecurity {
    #[error("the server does not offer STARTTLS")]
    TlsNotOffered,
    #[error("the server refused STARTTLS")]
    TlsRefused,
    #[error("the session is already authenticated, so STARTTLS is not possible")]
    PreAuthenticated,
    #[error("there were bytes between the answer to STARTTLS and the handshake")]
    BytesBeforeTls,
    #[error("the server takes no password on this connection")]
    LoginDisabled,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connect again after the usual pause.
    Transient,
    /// Refresh the token once; then the user is needed.
    Credentials,
    /// The server asks for rest, if it says so for this long. Use fewer connections.
    BackOff(Option<Duration>),
    /// The server breaks the protocol: connect again after a long pause and show it.
    Misbehaving,
    /// The same question will get the same answer: skip this message or mailbox, or show the server's words.
    Refused,
}

impl Error {
    /// Which answer fits by what is sure: the code (RFC 5530), else what was asked. The words of servers that send no code are
    /// judged by whoever knows them.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(_) | Self::Timeout | Self::Protocol(Fault::Abandoned) => Kind::Transient,
            Self::Protocol(_) => Kind::Misbehaving,
            Self::ServerBye { .. } => self.kind_of_code().unwrap_or(Kind::Transient),
            Self::No { .. } => self.kind_of_code().unwrap_or(Kind::Refused),
            Self::Bad { .. } => self.kind_of_code().unwrap_or(Kind::Misbehaving),
            Self::Auth { .. } => self.kind_of_code().unwrap_or(Kind::Credentials),
            Self::Insecure(_) | Self::TooLarge { .. } | Self::Unsupported(_) | Self::Unsendable(_) => {
                Kind::Refused
            }
        }
    }

    /// What the server's code alone says; `None` without one, or with one that says nothing of it.
    #[must_use]
    pub fn kind_of_code(&self) -> Option<Kind> {
        self.code().and_then(by_code)
    }

    /// The code of the server's answer.
    #[must_use]
    pub fn code(&self) -> Option<&ResponseCode> {
        match self {
            Self::ServerBye { code, .. }
            | Self::No { code, .. }
            | Self::Bad { code, .. }
            | Self::Auth { code, .. } => code.as_ref(),
            _ => None,
        }
    }

    /// The words of the server's answer.
    #[must_use]
    pub fn server_text(&self) -> Option<&ServerText> {
        match self {
            Self::ServerBye { text, .. }
            | Self::No { text, .. }
            | Self::Bad { text, .. }
            | Self::Auth { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether the client can be used on after this error.
    #[must_use]
    pub fn connection_lives(&self) -> bool {
        matches!(
            self,
            Self::No { .. }
                | Self::Bad { .. }
                | Self::TooLarge { .. }
                | Self::Unsupported(_)
                | Self::Unsendable(_)
        )
    }
}

/// RFC 5530, and the codes of Gmail and Yahoo beside it.
fn by_code(code: &ResponseCode) -> Option<Kind> {
    use ResponseCode as C;
    match code {
        C::Unavailable | C::InUse | C::Limit | C::Throttled => Some(Kind::BackOff(None)),
        C::ServerBug | C::Corruption | C::ExpungeIssued => Some(Kind::Transient),
        C::AuthenticationFailed | C::AuthorizationFailed | C::Expired | C::WebAlert => {
            Some(Kind::Credentials)
        }
        C::ContactAdmin
        | C::PrivacyRequired
        | C::NoPerm
        | C::NonExistent
        | C::TryCreate
        | C::Cannot
        | C::TooBig => Some(Kind::Refused),
        // A full mailbox says OVERQUOTA, and so does Gmail when it means bandwidth: its text decides.
        _ => None,
    }
}

/// Words of a server: cut, without control or direction-changing characters. Show them as a quotation, never as ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerText(Box<str>);

impl ServerText {
    /// Reads whatever bytes a server sent.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        // Four octets a character at most, and as many again for what is dropped: the rest cannot matter.
        let bytes = bytes.get(..SERVER_TEXT_CHARS_MAX * 8).unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes);
        let kept: String = text.chars().filter(|c| !is_hidden(*c)).take(SERVER_TEXT_CHARS_MAX).collect();
        Self(kept.trim().into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, line separators, and the marks that turn the direction of writing (UAX #9).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_what_a_refusal_means() {
        use ResponseCode as C;
        let wait = Kind::BackOff(None);
        for (code, kinds) in [
            (None, [Kind::Refused, Kind::Credentials]),
            (Some(C::Alert), [Kind::Refused, Kind::Credentials]),
            (Some(C::OverQuota), [Kind::Refused, Kind::Credentials]),
            (Some(C::InUse), [wait; 2]),
            (Some(C::Unavailable), [wait; 2]),
            (Some(C::Limit), [wait; 2]),
            (Some(C::AuthenticationFailed), [Kind::Credentials; 2]),
            (Some(C::ServerBug), [Kind::Transient; 2]),
            (Some(C::ContactAdmin), [Kind::Refused; 2]),
        ] {
            let text = ServerText::new(b"Too many simultaneous connections");
            let no = Error::No { code: code.clone(), text: text.clone() };
            let auth = Error::Auth { code: code.clone(), text, detail: None };
            assert_eq!([no.kind(), auth.kind()], kinds, "{code:?}");
        }
    }

    #[test]
    fn words_of_a_server_cannot_dress_up() {
        let text = ServerText::new(b"\x1b[31mred\r\n\0 <img onerror>\xff \xe2\x80\xaeevil");
        assert_eq!(text.as_str(), "[31mred <img onerror>\u{fffd} evil");
        assert_eq!(ServerText::new(&[b'a'; 1 << 20]).as_str().len(), SERVER_TEXT_CHARS_MAX);
    }
}
