//! Commands as they are written: words of ours, numbers, and strings that are quoted or sent as literals.
//!
//! Not here: which command comes when. Only what is `&'static` or typed gets into a line, so no name, id or password can
//! end one: what cannot be quoted becomes a literal.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{mailbox::MailboxName, uid::UidSet};

/// Longest string that is quoted; longer ones go as literals.
const QUOTED_BYTES_MAX: usize = 1_000;

/// A stretch of a command: text, then perhaps a literal.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(Zeroizing<Vec<u8>>),
    Literal(Literal),
}

#[derive(Debug, Clone)]
pub(super) enum Literal {
    /// A string of ours, possibly a secret.
    Short(Zeroizing<Vec<u8>>),
    /// A message.
    Message(Bytes),
}

impl Literal {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Message(bytes) => bytes,
        }
    }
}

/// A command without its tag.
#[derive(Debug, Clone)]
pub(super) struct Command {
    verb: &'static str,
    parts: Vec<Part>,
}

impl Command {
    pub(super) fn new(verb: &'static str) -> Self {
        Self { verb, parts: Vec::new() }.raw(verb)
    }

    /// For the log.
    pub(super) fn verb(&self) -> &'static str {
        self.verb
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// True when the server must be asked before some literal may be sent.
    pub(super) fn waits(&self, free_literal_bytes_max: usize) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Literal(l) if l.as_bytes().len() > free_literal_bytes_max))
    }

    /// Words of ours, as they are.
    pub(super) fn raw(mut self, words: &'static str) -> Self {
        debug_assert!(!words.contains(['\r', '\n']), "a command is one line");
        self.line().extend_from_slice(words.as_bytes());
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.line().extend_from_slice(number.to_string().as_bytes());
        self
    }

    pub(super) fn uids(mut self, uids: &UidSet) -> Self {
        let mut text = String::new();
        write!(text, "{uids}").expect("a String takes any text");
        self.line().extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn mailbox(self, name: &MailboxName) -> Self {
        self.string(name.as_bytes())
    }

    /// Bytes of whatever origin: quoted where that is allowed, else a literal.
    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        let quotable =
            bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) && bytes.len() <= QUOTED_BYTES_MAX;
        if !quotable {
            self.parts.push(Part::Literal(Literal::Short(Zeroizing::new(bytes.to_vec()))));
            return self;
        }
        let line = self.line();
        // Room at once: growing would leave copies of a password behind.
        line.reserve(2 * bytes.len() + 2);
        line.push(b'"');
        for byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                line.push(b'\\');
            }
            line.push(*byte);
        }
        line.push(b'"');
        self
    }

    /// Bytes in base64, as SASL wants them; `=` for none (RFC 4959).
    pub(super) fn base64(mut self, bytes: &[u8]) -> Self {
        let encoded = Zeroizing::new(STANDARD.encode(bytes));
        let text = if encoded.is_empty() { "=" } else { encoded.as_str() };
        self.line().extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn message(mut self, message: Bytes) -> Self {
        self.parts.push(Part::Literal(Literal::Message(message)));
        self
    }

    fn line(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts.last(), Some(Part::Text(_))) {
            self.parts.push(Part::Text(Zeroizing::new(Vec::new())));
        }
        match self.parts.last_mut() {
            Some(Part::Text(line)) => line,
            _ => unreachable!("a text was just put there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use imap_codec::{CommandCodec, decode::Decoder};
    use imap_types::{command::CommandBody, mailbox::Mailbox};
    use proptest::prelude::*;

    use super::*;

    fn written(command: &Command) -> Vec<u8> {
        let mut bytes = b"a1 ".to_vec();
        for part in command.parts() {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text),
                Part::Literal(literal) => {
                    bytes.extend_from_slice(format!("{{{}}}\r\n", literal.as_bytes().len()).as_bytes());
                    bytes.extend_from_slice(literal.as_bytes());
                }
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    #[track_caller]
    fn check(command: &Command, expect: &str) {
        assert_eq!(String::from_utf8_lossy(&written(command)), expect);
    }

    #[test]
    fn strings_are_quoted_where_they_can_be() {
        let mailbox = |name: &str| {
            Command::new("EXAMINE").raw(" ").mailbox(&MailboxName::new(name.as_bytes()).unwrap())
        };
        check(&mailbox("Sent Items"), "a1 EXAMINE \"Sent Items\"\r\n");
        check(&mailbox("a\"b\\c"), "a1 EXAMINE \"a\\\"b\\\\c\"\r\n");
        check(&mailbox("Entwürfe"), "a1 EXAMINE {9}\r\nEntwürfe\r\n");
        check(&Command::new("NOOP"), "a1 NOOP\r\n");
        check(
            &Command::new("UID FETCH").raw(" ").uids(&UidSet::all()).raw(" (UID)"),
            "a1 UID FETCH 1:* (UID)\r\n",
        );
    }

    proptest! {
        #[test]
        fn no_name_ends_a_line(name in prop::collection::vec(any::<u8>(), 1..40)) {
            let Some(name) = MailboxName::new(&name) else { return Ok(()) };
            let bytes = written(&Command::new("EXAMINE").raw(" ").mailbox(&name));
            let breaks = bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
            let literal = bytes.ends_with(&[name.as_bytes(), b"\r\n"].concat());
            prop_assert!(breaks == 2 || (breaks == 4 && literal));
        }

        #[test]
        fn what_is_written_is_read_back_by_a_strict_reader(user in "[\\x01-\\x7f]{0,20}", password in prop::collection::vec(1_u8.., 0..20)) {
            let bytes = written(&Command::new("LOGIN").raw(" ").string(user.as_bytes()).raw(" ").string(&password));
            let (rest, command) = CommandCodec::default().decode(&bytes).expect("a strict reader takes it");
            prop_assert!(rest.is_empty());
            let CommandBody::Login { username, password: read } = command.body else { panic!() };
            prop_assert_eq!(username.as_ref(), user.as_bytes());
            prop_assert_eq!(read.declassify().as_ref(), &password[..]);
        }

        #[test]
        fn mailboxes_are_read_back_by_a_strict_reader(name in prop::collection::vec(1_u8.., 1..40)) {
            let Some(name) = MailboxName::new(&name) else { return Ok(()) };
            let bytes = written(&Command::new("EXAMINE").raw(" ").mailbox(&name));
            let (_, command) = CommandCodec::default().decode(&bytes).expect("a strict reader takes it");
            let CommandBody::Examine { mailbox, .. } = command.body else { panic!() };
            match mailbox {
                Mailbox::Inbox => prop_assert!(name.is_inbox()),
                Mailbox::Other(other) => prop_assert_eq!(other.as_ref(), name.as_bytes()),
            }
        }
    }
}
