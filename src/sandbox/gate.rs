//! One direction of a connection, sans I/O, with faults at octets and lines.
//!
//! Not here: what the octets mean (`tap` knows SMTP), and moving them (`fault`).

use std::{collections::VecDeque, time::Duration};

/// Octets of an unfinished line that are held back while a line fault is armed; longer lines pass in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where a fault strikes, once per connection. It comes before the octet or line it names is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// After so many octets towards the server, even when no more come.
    ToServer(u64),
    /// After so many octets towards the client.
    ToClient(u64),
    /// Before the n-th line (from 1) towards the server that starts so, without regard to letter case.
    ClientLine { starts: String, nth: u32 },
    /// The same towards the client.
    ServerLine { starts: String, nth: u32 },
}

impl At {
    /// The octets before it, for a fault that counts them.
    fn octets(&self) -> Option<u64> {
        match self {
            Self::ToServer(octets) | Self::ToClient(octets) => Some(*octets),
            Self::ClientLine { .. } | Self::ServerLine { .. } => None,
        }
    }

    pub(super) fn to_server(&self) -> bool {
        matches!(self, Self::ToServer(_) | Self::ClientLine { .. })
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Closes both sides.
    Cut,
    /// Passes nothing more in this direction until `FaultProxy::release`.
    Hold,
    /// The same for a while.
    Wait(Duration),
    /// Passes these octets first: injection.
    Insert(Vec<u8>),
    /// Passes these octets instead of the line (of the next octet, at an octet).
    Replace(Vec<u8>),
}

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GateStep {
    Pass(Vec<u8>),
    Wait(Duration),
    Hold,
    Cut,
    More,
}

/// The gate of one direction.
#[derive(Debug)]
pub(super) struct Gate {
    armed: Vec<(At, Then)>,
    input: Vec<u8>,
    passed: u64,
    /// Whether the next octet begins a line.
    at_line: bool,
    steps: VecDeque<GateStep>,
}

impl Gate {
    pub(super) fn new(armed: Vec<(At, Then)>) -> Self {
        Self { armed, input: Vec::new(), passed: 0, at_line: true, steps: VecDeque::new() }
    }

    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    pub(super) fn step(&mut self) -> GateStep {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if let Some(step) = self.strike_at_octet() {
                return step;
            }
            let Some(piece) = self.next_piece() else { return GateStep::More };
            self.judge(piece);
        }
    }

    /// A fault that is due before the next octet, whether that comes or not. `Replace` needs it to come.
    fn strike_at_octet(&mut self) -> Option<GateStep> {
        let passed = self.passed;
        let is_due =
            |(at, then): &(At, Then)| at.octets() == Some(passed) && !matches!(then, Then::Replace(_));
        let at = self.armed.iter().position(is_due)?;
        Some(match self.armed.remove(at).1 {
            Then::Cut => GateStep::Cut,
            Then::Hold => GateStep::Hold,
            Then::Wait(pause) => GateStep::Wait(pause),
            Then::Insert(octets) | Then::Replace(octets) => GateStep::Pass(octets),
        })
    }

    /// The next line when lines are watched, else all there is; in both cases up to the next octet that is watched.
    fn next_piece(&mut self) -> Option<Vec<u8>> {
        let watches_lines = self.armed.iter().any(|(at, _)| at.octets().is_none());
        let end = match memchr::memchr(b'\n', &self.input) {
            Some(at) if watches_lines => at + 1,
            None if watches_lines && self.input.len() < LINE_BYTES_MAX => 0,
            _ => self.input.len(),
        };
        let left = self.armed.iter().filter_map(|(at, _)| at.octets()?.checked_sub(self.passed));
        // An octet that is to be replaced is a piece of its own.
        let left = left.map(|left| usize::try_from(left).unwrap_or(usize::MAX).max(1)).min();
        // Octets are watched even in a line that is not finished.
        let end = match left {
            Some(left) if left <= self.input.len() && (end == 0 || left < end) => left,
            _ => end,
        };
        if end == 0 {
            return None;
        }
        let rest = self.input.split_off(end);
        Some(std::mem::replace(&mut self.input, rest))
    }

    fn judge(&mut self, piece: Vec<u8>) {
        let (passed, at_line) = (self.passed, self.at_line);
        let due = self.armed.iter_mut().position(|(at, _)| match at {
            At::ToServer(octets) | At::ToClient(octets) => *octets == passed,
            At::ClientLine { starts, nth } | At::ServerLine { starts, nth } => {
                let head = piece.get(..starts.len());
                let hit = at_line && head.is_some_and(|head| head.eq_ignore_ascii_case(starts.as_bytes()));
                *nth = nth.saturating_sub(u32::from(hit));
                hit && *nth == 0
            }
        });
        self.passed += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.at_line = piece.ends_with(b"\n");
        let then = due.map(|at| self.armed.remove(at).1);
        self.steps.extend(match then {
            None => vec![GateStep::Pass(piece)],
            Some(Then::Cut) => vec![GateStep::Cut],
            Some(Then::Hold) => vec![GateStep::Hold, GateStep::Pass(piece)],
            Some(Then::Wait(pause)) => vec![GateStep::Wait(pause), GateStep::Pass(piece)],
            Some(Then::Insert(octets)) => vec![GateStep::Pass(octets), GateStep::Pass(piece)],
            Some(Then::Replace(octets)) => vec![GateStep::Pass(octets)],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(at: At, then: Then, input: &str, expect: &str) {
        for chunk in [input.len(), 1] {
            let mut gate = Gate::new(vec![(at.clone(), then.clone())]);
            let mut got = String::new();
            let mut chunks = input.as_bytes().chunks(chunk);
            loop {
                match gate.step() {
                    GateStep::Pass(octets) => got.push_str(std::str::from_utf8(&octets).unwrap()),
                    GateStep::Wait(_) => got.push_str("(wait)"),
                    GateStep::Hold => got.push_str("(hold)"),
                    GateStep::Cut => {
                        got.push_str("(cut)");
                        break;
                    }
                    GateStep::More => match chunks.next() {
                        Some(octets) => gate.receive(octets),
                        None => break,
                    },
                }
            }
            assert_eq!(got, expect, "{at:?} in chunks of {chunk}");
        }
    }

    #[test]
    fn a_fault_at_an_octet_comes_exactly_there() {
        check(At::ToServer(4), Then::Cut, "abcdefgh", "abcd(cut)");
        check(At::ToServer(0), Then::Hold, "abc", "(hold)abc");
        check(At::ToClient(3), Then::Insert(b"XX".to_vec()), "abcdef", "abcXXdef");
        check(At::ToClient(3), Then::Cut, "abc", "abc(cut)");
        check(At::ToClient(3), Then::Replace(b"X".to_vec()), "abcdef", "abcXef");
    }

    #[test]
    fn a_fault_at_a_line_comes_before_it() {
        let line = |starts: &str, nth| At::ServerLine { starts: starts.to_owned(), nth };
        check(line("250", 2), Then::Cut, "220 a\r\n250 b\r\n250 c\r\n", "220 a\r\n250 b\r\n(cut)");
        check(
            line("* byE", 1),
            Then::Replace(b"* OK\r\n".to_vec()),
            "a * BYE\r\n* BYE\r\nb\r\n",
            "a * BYE\r\n* OK\r\nb\r\n",
        );
        check(line("x", 1), Then::Wait(Duration::ZERO), "a\r\nx\r\n", "a\r\n(wait)x\r\n");
    }
}
