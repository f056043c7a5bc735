//! What a command looks like from outside: its tag, its verb and a line that can be shown.
//!
//! Not here: its meaning; `imap_codec` reads that.

/// A command as far as faults and the ledger need it; reading never fails.
pub(super) struct Heard {
    pub(super) tag: String,
    pub(super) verb: String,
    /// Without tag, up to the first literal, credentials struck out.
    pub(super) line: String,
}

impl Heard {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(first);
        let (tag, rest) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
        let mut words = rest.split(' ').map(str::to_ascii_uppercase);
        let verb = match (words.next().unwrap_or_default(), words.next()) {
            (verb, Some(second)) if verb == "UID" => format!("UID {second}"),
            (verb, _) => verb,
        };
        let line = match verb.as_str() {
            "LOGIN" => "LOGIN ***".to_owned(),
            "AUTHENTICATE" => format!("AUTHENTICATE {} ***", rest.split(' ').nth(1).unwrap_or_default()),
            _ => rest.to_owned(),
        };
        // A tag that is none would break the framing of the answer.
        let plain = !tag.is_empty()
            && tag.bytes().all(|byte| byte.is_ascii_graphic() && !b"+(){%*\"\\".contains(&byte));
        Self { tag: if plain { tag.to_owned() } else { "*".to_owned() }, verb, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], tag: &str, verb: &str, line: &str) {
        let heard = Heard::read(bytes);
        assert_eq!((heard.tag.as_str(), heard.verb.as_str(), heard.line.as_str()), (tag, verb, line));
    }

    #[test]
    fn any_bytes_are_heard_as_something() {
        check(b"a uid fetch 1 FLAGS\r\n", "a", "UID FETCH", "uid fetch 1 FLAGS");
        check(b"a LOGIN bob secret\r\n", "a", "LOGIN", "LOGIN ***");
        check(b"a LOGIN {3}\r\nbob {6}\r\nsecret\r\n", "a", "LOGIN", "LOGIN ***");
        check(b"a AUTHENTICATE PLAIN AGJvYg==\r\n", "a", "AUTHENTICATE", "AUTHENTICATE PLAIN ***");
        check(b"\r\n", "*", "", "");
        check(b"+ (x)\r\n", "*", "(X)", "(x)");
        check(b"a\xff\x00b NOOP\r\n", "*", "NOOP", "NOOP");
    }
}
