//! The octets of a message as DATA carries them: dots doubled (RFC 5321 section 4.5.2), and nothing that a laxer server
//! could take for an end of the message.
//!
//! Not here: repairing a message. What must not be sent is not sent; composing it right is `mail`'s.

use memchr::{memchr3_iter, memmem};

/// A message that would not arrive as one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message holds a bare CR, a bare LF or a NUL")]
pub struct Unsendable;

/// Fails closed: true only when every CR has its LF, every LF its CR, and no NUL is there.
pub(super) fn check(message: &[u8]) -> Result<(), Unsendable> {
    let sound = memchr3_iter(b'\r', b'\n', 0, message).all(|at| match message.get(at) {
        Some(b'\r') => message.get(at.saturating_add(1)) == Some(&b'\n'),
        Some(b'\n') => at.checked_sub(1).and_then(|before| message.get(before)) == Some(&b'\r'),
        _ => false,
    });
    if sound { Ok(()) } else { Err(Unsendable) }
}

/// The message in pieces to be written one after another, ending in CRLF and without the final dot.
pub(super) fn stuffed(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first: &[u8] = if message.starts_with(b".") { b"." } else { b"" };
    let end: &[u8] = if message.is_empty() || message.ends_with(b"\r\n") { b"" } else { b"\r\n" };
    let mut from = 0;
    let line_starts = memmem::find_iter(message, b"\r\n.").map(|at| at.saturating_add(2)).map(Some);
    let pieces = line_starts.chain([None]).flat_map(move |dot| {
        let to = dot.unwrap_or(message.len());
        let piece = message.get(from..to).unwrap_or_default();
        from = to;
        [piece, if dot.is_some() { b"." } else { b"" }]
    });
    [first].into_iter().chain(pieces).chain([end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{DataReader, DataState};

    #[track_caller]
    fn stuff(message: &str, expect: &str) {
        let wire: Vec<u8> = stuffed(message.as_bytes()).flatten().copied().collect();
        assert_eq!(String::from_utf8_lossy(&wire), expect, "{message:?}");
    }

    #[test]
    fn dots_at_the_start_of_lines_are_doubled() {
        stuff("", "");
        stuff("a", "a\r\n");
        stuff("a\r\n", "a\r\n");
        stuff(".", "..\r\n");
        stuff(".\r\n.a\r\nb.\r\n..\r\n", "..\r\n..a\r\nb.\r\n...\r\n");
        stuff("a\r\n.", "a\r\n..\r\n");
        stuff("a\r\n.\r\n", "a\r\n..\r\n");
    }

    #[test]
    fn nothing_odd_passes() {
        assert_eq!(check(b"a\r\nb\r\n"), Ok(()));
        assert_eq!(check(b""), Ok(()));
        for odd in [&b"a\nb"[..], b"a\rb", b"\n", b"\r", b"a\0", b"a\r\r\n", b"a\n\r\n", b"a\r\n\n", b"a\r"] {
            assert_eq!(check(odd), Err(Unsendable), "{odd:?}");
        }
    }

    proptest::proptest! {
        /// Any octets a peer or a user can make us send arrive as they were, or are not sent.
        #[test]
        fn what_is_sent_is_what_arrives(parts in proptest::collection::vec(
            proptest::sample::select(vec!["\r\n", ".", "\r\n.\r\n", "a", "é", "\n", "\r", "\0", "\r\n..", "MAIL FROM:<x@y.example>"]), 0..12)) {
            let message = parts.concat();
            let wire: Vec<u8> = stuffed(message.as_bytes()).flatten().copied().chain(*b".\r\nNOOP\r\n").collect();
            if check(message.as_bytes()).is_ok() {
                let mut reader = DataReader::new(1_000_000);
                proptest::prop_assert_eq!(reader.receive(&wire), b"NOOP\r\n");
                proptest::prop_assert_eq!(reader.state(), DataState::Complete);
                let arrived = reader.into_message();
                proptest::prop_assert_eq!(arrived.strip_suffix(b"\r\n").unwrap_or(&arrived), message.strip_suffix("\r\n").unwrap_or(&message).as_bytes());
            }
        }
    }
}
