//! What every session said and which content it took away: what tests and the demo's page look at.
//!
//! Not here: secrets. Credentials are struck out before a line is written down.

use std::collections::VecDeque;

use crate::mail::Address;

use super::behaviour::Service;

/// Entries kept of each kind; the oldest go first, so that a long demo does not grow.
pub const LEDGER_ENTRIES_MAX: usize = 20_000;
/// Octets kept of one line.
pub const LEDGER_LINE_CHARS_MAX: usize = 500;

/// One command of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Numbers the connections of this provider from 1.
    pub session: u64,
    pub service: Service,
    /// Who had authenticated before the command.
    pub user: Option<Address>,
    /// Whether TLS was on.
    pub secure: bool,
    /// In capitals: `UID FETCH`, `MAIL`, `DOT` (the end of DATA).
    pub verb: String,
    /// The command without tag and line end; credentials are `***`, literals `{n}`.
    pub line: String,
}

/// How much of a message was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// Header fields only.
    Header,
    /// Any octet of the content.
    Content,
}

/// One message that a FETCH read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub session: u64,
    pub user: Address,
    pub mailbox: String,
    pub uid: u32,
    pub extent: Extent,
    /// Octets of literal that went out.
    pub octets: usize,
}

/// Both logs, oldest first, bounded.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    said: VecDeque<Said>,
    fetched: VecDeque<Fetched>,
}

impl Ledger {
    pub(super) fn say(&mut self, mut said: Said) {
        said.line = said.line.chars().take(LEDGER_LINE_CHARS_MAX).collect();
        push(&mut self.said, said);
    }

    pub(super) fn fetch(&mut self, fetched: Fetched) {
        push(&mut self.fetched, fetched);
    }

    pub(super) fn said(&self) -> impl Iterator<Item = &Said> {
        self.said.iter()
    }

    pub(super) fn fetched(&self) -> impl Iterator<Item = &Fetched> {
        self.fetched.iter()
    }

    pub(super) fn clear(&mut self) {
        self.said.clear();
        self.fetched.clear();
    }
}

fn push<T>(log: &mut VecDeque<T>, entry: T) {
    if log.len() >= LEDGER_ENTRIES_MAX {
        log.pop_front();
    }
    log.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_forgets_the_oldest_and_cuts_long_lines() {
        let mut ledger = Ledger::default();
        for session in 0..(LEDGER_ENTRIES_MAX as u64 + 5) {
            let line = "x".repeat(5_000);
            let (verb, service) = ("NOOP".to_owned(), Service::Imap);
            ledger.say(Said { session, service, user: None, secure: false, verb, line });
        }
        assert_eq!(ledger.said().count(), LEDGER_ENTRIES_MAX);
        assert_eq!(
            ledger.said().next().map(|said| (said.session, said.line.len())),
            Some((5, LEDGER_LINE_CHARS_MAX))
        );
    }
}
