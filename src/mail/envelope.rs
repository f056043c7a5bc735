//! The SMTP envelope (RFC 5321 section 2.3.1) with the DSN parameters of RFC 3461.
//!
//! Not here: header fields. The two need not agree, and only the envelope knows a Bcc recipient.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Address;

/// `MAIL FROM`: an address, or `<>` of mail that must not be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReversePath {
    Address(Address),
    Null,
}

impl ReversePath {
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::Null => None,
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "<{address}>"),
            Self::Null => f.write_str("<>"),
        }
    }
}

/// `RET` of RFC 3461: what a failure report should carry of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    Full,
    Headers,
}

/// `NOTIFY` of RFC 3461. `Default` is an absent parameter: failure, and delay where the server likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    #[default]
    Default,
    Never,
    On {
        success: bool,
        failure: bool,
        delay: bool,
    },
}

impl Notify {
    /// Whether a permanent failure is to be reported.
    #[must_use]
    pub fn on_failure(self) -> bool {
        matches!(self, Self::Default | Self::On { failure: true, .. })
    }

    /// Whether success is to be reported.
    #[must_use]
    pub fn on_success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}

/// One `RCPT TO`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub address: Address,
    #[serde(default)]
    pub notify: Notify,
    /// `ORCPT` as it came, xtext still encoded: it is only ever echoed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
}

impl Recipient {
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, notify: Notify::Default, original: None }
    }
}

/// One mail transaction's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub reverse_path: ReversePath,
    pub recipients: Vec<Recipient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Return>,
    /// `ENVID` as it came, xtext still encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<String>,
    #[serde(default)]
    pub smtputf8: bool,
    /// `BODY=8BITMIME` was given.
    #[serde(default)]
    pub eight_bit: bool,
}

impl Envelope {
    #[must_use]
    pub fn new(reverse_path: ReversePath) -> Self {
        Self {
            reverse_path,
            recipients: Vec::new(),
            ret: None,
            envelope_id: None,
            smtputf8: false,
            eight_bit: false,
        }
    }
}
