//! Cuts what a client sends into commands, literals included, within limits.
//!
//! Not here: the meaning of a command (`session`), and whether a literal is welcome there.

use imap_codec::fragmentizer::{FragmentInfo, Fragmentizer};
use imap_types::core::LiteralMode;

/// Octets of a command without its literals. RFC 7162 section 4 wants at least 8192; long UID sets need more.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What the next bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole command, with its line end.
    Command(Vec<u8>),
    /// The command so far; its client waits for leave to send a literal.
    Literal(Vec<u8>),
    /// The command so far, whose literal is too large. The client waits, so it can be told.
    LiteralTooLarge(Vec<u8>),
    /// Something that is too long and already under way: only closing stops it.
    Overflow,
}

pub(super) struct Input {
    fragments: Fragmentizer,
    /// Octets of literals announced in the command at hand.
    literal_bytes: usize,
    /// Octets of literals that a command may have.
    pub(super) literal_bytes_max: usize,
}

impl Input {
    pub(super) fn new(literal_bytes_max: usize) -> Self {
        Self { fragments: Fragmentizer::without_max_message_size(), literal_bytes: 0, literal_bytes_max }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.fragments.enqueue_bytes(bytes);
    }

    /// The next frame; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Frame> {
        loop {
            let fragment = self.fragments.progress();
            let line_bytes = self.fragments.message_bytes().len().saturating_sub(self.literal_bytes);
            if line_bytes > LINE_BYTES_MAX {
                return Some(Frame::Overflow);
            }
            if self.fragments.is_message_complete() {
                self.literal_bytes = 0;
                return Some(Frame::Command(self.so_far()));
            }
            let FragmentInfo::Line { announcement: Some(literal), .. } = fragment? else { continue };
            let length = usize::try_from(literal.length).unwrap_or(usize::MAX);
            let total = self.literal_bytes.saturating_add(length);
            match (total > self.literal_bytes_max, literal.mode) {
                (true, LiteralMode::NonSync) => return Some(Frame::Overflow),
                (true, LiteralMode::Sync) => {
                    let so_far = self.so_far_of_line();
                    self.skip();
                    return Some(Frame::LiteralTooLarge(so_far));
                }
                (false, mode) => {
                    self.literal_bytes = total;
                    if mode == LiteralMode::Sync {
                        return Some(Frame::Literal(self.so_far_of_line()));
                    }
                }
            }
        }
    }

    /// Gives up the command at hand: its client has been refused the literal.
    pub(super) fn skip(&mut self) {
        self.literal_bytes = 0;
        self.fragments.skip_message();
    }

    fn so_far(&self) -> Vec<u8> {
        self.fragments.message_bytes().to_vec()
    }

    /// The first line is enough to know the command by; copying earlier literals again for each would be quadratic.
    fn so_far_of_line(&self) -> Vec<u8> {
        let bytes = self.fragments.message_bytes();
        bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], chunk: usize) -> Vec<Frame> {
        let mut input = Input::new(20);
        let mut frames = Vec::new();
        for bytes in bytes.chunks(chunk) {
            input.receive(bytes);
            while let Some(frame) = input.next() {
                let over = frame == Frame::Overflow;
                frames.push(frame);
                if over {
                    return frames;
                }
            }
        }
        frames
    }

    #[track_caller]
    fn check(bytes: &[u8], expect: &[Frame]) {
        assert_eq!(frames(bytes, bytes.len()), expect);
        assert_eq!(frames(bytes, 1), expect, "one byte at a time");
    }

    #[test]
    fn commands_are_cut_at_line_ends_outside_literals() {
        let command = |bytes: &[u8]| Frame::Command(bytes.to_vec());
        check(b"a NOOP\r\nb NOOP\r\n", &[command(b"a NOOP\r\n"), command(b"b NOOP\r\n")]);
        check(b"a X {4+}\r\n\r\n\r\n y\r\n", &[command(b"a X {4+}\r\n\r\n\r\n y\r\n")]);
        check(
            b"a X {2}\r\nab\r\n",
            &[Frame::Literal(b"a X {2}\r\n".to_vec()), command(b"a X {2}\r\nab\r\n")],
        );
    }

    #[test]
    fn a_literal_that_is_too_large_is_refused_before_it_comes() {
        check(
            b"a X {21}\r\nb NOOP\r\n",
            &[Frame::LiteralTooLarge(b"a X {21}\r\n".to_vec()), Frame::Command(b"b NOOP\r\n".to_vec())],
        );
        check(b"a X {21+}\r\nxxx", &[Frame::Overflow]);
        check(b"a X {11+}\r\n12345678901 {10+}\r\n", &[Frame::Overflow]);
    }

    #[test]
    fn a_line_without_end_overflows() {
        let bytes = vec![b'x'; LINE_BYTES_MAX + 1];
        let mut input = Input::new(20);
        input.receive(&bytes);
        assert_eq!(input.next(), Some(Frame::Overflow));
    }
}
