//! The limits and deadlines of a session, each with its reason: a server is a peer like any other.
//!
//! Not here: what is done when one is reached; that is always the end of the connection (`Error`).

use std::time::Duration;

/// Sizes and counts that bound memory whatever the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest response without its literals, in octets.
    pub line_bytes_max: usize,
    /// The same for answers that list UIDs in one line: a mailbox of 500,000 messages has a `* SEARCH` of 4 MB.
    pub uid_line_bytes_max: usize,
    /// Largest literal that is no message data, in octets: names, labels, texts.
    pub literal_bytes_max: usize,
    /// Largest header of one message, in octets.
    pub header_bytes_max: usize,
    /// Largest message, in octets.
    pub message_bytes_max: u64,
    /// Untagged responses to one command.
    pub responses_max: u32,
    /// Ranges of UIDs kept of all answers to one SEARCH: a mailbox of 500,000 messages can have no more.
    pub uid_ranges_max: usize,
    /// Names kept of a LIST.
    pub mailboxes_max: usize,
    /// Octets of all these names.
    pub mailbox_names_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: 64 * 1024,
            uid_line_bytes_max: 8 * 1024 * 1024,
            literal_bytes_max: 64 * 1024,
            header_bytes_max: 1024 * 1024,
            message_bytes_max: 64 * 1024 * 1024,
            responses_max: 100_000,
            uid_ranges_max: 500_000,
            mailboxes_max: 20_000,
            mailbox_names_bytes_max: 2 * 1024 * 1024,
        }
    }
}

/// How long the server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Between two bytes, in either direction, while a command is running.
    pub progress: Duration,
    /// For a whole command: stops a server that sends one byte now and then.
    pub command: Duration,
    /// For the answer to DONE and LOGOUT: a half-open connection shows here.
    pub done: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            progress: Duration::from_secs(60),
            command: Duration::from_secs(30 * 60),
            done: Duration::from_secs(30),
        }
    }
}
