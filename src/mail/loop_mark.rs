//! The mark on mail we pass on, by which we know it when it comes back.
//!
//! A keyed hash rather than a plain word: a mark of another gateway is no loop of ours, and nobody can forge ours to have
//! somebody's mail refused. Not here: counting Received fields, which the SMTP session does.

use super::HeaderBlock;

/// The field that carries the mark.
pub const FIELD: &str = "X-Mailweave-Loop";

/// The mark for one message: its key in the clear, and the proof that we wrote it.
#[must_use]
pub fn mark(key: &[u8; 32], message: &str) -> String {
    format!("{message} {}", proof(key, message))
}

/// Whether a header carries a mark made with this key.
#[must_use]
pub fn is_ours(header: &HeaderBlock<'_>, key: &[u8; 32]) -> bool {
    marked(header, key).is_some()
}

/// The message that this is a copy of, passed on by us: what a mark made with this key names.
#[must_use]
pub fn marked(header: &HeaderBlock<'_>, key: &[u8; 32]) -> Option<String> {
    header.all(FIELD).find_map(|field| {
        let text = field.text();
        let (message, mac) = text.trim().split_once(' ')?;
        (mac.trim() == proof(key, message)).then(|| message.to_owned())
    })
}

fn proof(key: &[u8; 32], message: &str) -> String {
    let hash = blake3::keyed_hash(key, message.as_bytes());
    hash.to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_know_our_mark_and_no_other() {
        let carries = |value: &str| {
            is_ours(&HeaderBlock::scan(format!("{FIELD}: {value}\r\n\r\n").as_bytes()), &[7; 32])
        };
        assert!(carries(&mark(&[7; 32], "msg_1")));
        assert!(!carries(&mark(&[8; 32], "msg_1")));
        let header = format!("{FIELD}: msg_2 forged\r\n{FIELD}: {}\r\n\r\n", mark(&[7; 32], "msg_1"));
        let found = marked(&HeaderBlock::scan(header.as_bytes()), &[7; 32]);
        assert_eq!(found.as_deref(), Some("msg_1"));
        assert!(!carries("msg_1"));
        assert!(!carries(""));
    }
}
