//! Replies of RFC 5321 section 4.2 with the enhanced codes of RFC 3463, as values that cannot break their own framing.
//!
//! Not here: reading a peer's replies (`client::reply_reader`), and what a reply means for a message (`client::Outcome`).

use std::{borrow::Cow, fmt};

/// Octets of text on one reply line. RFC 5321 section 4.5.3.1.5 allows 512 with code and CRLF; the enhanced code needs some.
const LINE_TEXT_BYTES_MAX: usize = 490;

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced(pub u16, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One reply, ours or a peer's. The text holds no control characters; its lines are joined by a line feed that never
/// reaches the wire as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A one-line reply. Control characters in the text, line ends among them, become blanks.
    #[must_use]
    pub fn new(code: u16, enhanced: [u16; 3], text: impl Into<Cow<'static, str>>) -> Self {
        let [class, subject, detail] = enhanced;
        Self { code, enhanced: Some(Enhanced(class, subject, detail)), text: clean(text.into()) }
    }

    /// A one-line reply without enhanced code: greetings, EHLO and 3yz replies have none (RFC 2034 section 4).
    #[must_use]
    pub fn bare(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, text: clean(text.into()) }
    }

    /// A reply read from a peer.
    pub(super) fn read(code: u16, enhanced: Option<Enhanced>, lines: &[String]) -> Self {
        let text =
            lines.iter().map(|line| clean(Cow::Borrowed(line)).into_owned()).collect::<Vec<_>>().join("\n");
        Self { code, enhanced, text: text.into() }
    }

    /// Adds a line.
    #[must_use]
    pub fn and_line(self, text: &str) -> Self {
        let more = clean(Cow::Borrowed(text));
        Self { text: format!("{}\n{more}", self.text).into(), ..self }
    }

    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The lines of text, without codes.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    /// 2yz: done.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz: try again later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz: never again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// Appends the reply as it goes on the wire. Octets outside ASCII become `?`: the peer may not speak SMTPUTF8.
    pub fn write(&self, wire: &mut Vec<u8>) {
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            wire.extend_from_slice(self.code.to_string().as_bytes());
            wire.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(enhanced) = self.enhanced {
                wire.extend_from_slice(enhanced.to_string().as_bytes());
                wire.push(b' ');
            }
            wire.extend(
                line.chars()
                    .take(LINE_TEXT_BYTES_MAX)
                    .map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?')),
            );
            wire.extend_from_slice(b"\r\n");
        }
    }
}

/// The replies the protocol itself knows. Peer-facing text is bland on purpose.
impl Reply {
    /// 250 2.0.0: done.
    #[must_use]
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(250, [2, 0, 0], text)
    }

    /// 250 2.1.0: the reverse-path is taken.
    #[must_use]
    pub fn sender_ok() -> Self {
        Self::new(250, [2, 1, 0], "Ok")
    }

    /// 250 2.1.5: the recipient is taken.
    #[must_use]
    pub fn recipient_ok() -> Self {
        Self::new(250, [2, 1, 5], "Ok")
    }

    /// 451 4.3.0: our fault, try again.
    #[must_use]
    pub fn local_error() -> Self {
        Self::new(451, [4, 3, 0], "Local error, try again later")
    }

    /// 452 4.3.1: no room at the moment.
    #[must_use]
    pub fn no_room() -> Self {
        Self::new(452, [4, 3, 1], "Insufficient storage, try again later")
    }

    /// 550 5.1.1: no such recipient.
    #[must_use]
    pub fn no_such_recipient() -> Self {
        Self::new(550, [5, 1, 1], "No such recipient here")
    }

    /// 554 5.4.6: the message goes in circles.
    #[must_use]
    pub fn mail_loop() -> Self {
        Self::new(554, [5, 4, 6], "Mail loop detected")
    }

    /// 552 5.3.4: larger than we take.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(552, [5, 3, 4], "Message exceeds the size limit")
    }

    /// 503 5.5.1: out of order.
    #[must_use]
    pub fn out_of_order(text: &'static str) -> Self {
        Self::new(503, [5, 5, 1], text)
    }

    /// 421 4.3.2: we are shutting down.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(421, [4, 3, 2], "Service shutting down, try again later")
    }

    /// 421 4.4.2: nothing came for too long.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::new(421, [4, 4, 2], "Timeout, closing connection")
    }

    /// 421 4.7.0: too many connections, errors or attempts.
    #[must_use]
    pub fn too_many(text: &'static str) -> Self {
        Self::new(421, [4, 7, 0], text)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        self.lines().try_for_each(|line| write!(f, " {line}"))
    }
}

fn clean(text: Cow<'_, str>) -> Cow<'static, str> {
    if text.chars().any(char::is_control) {
        return text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().into();
    }
    text.into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reply: &Reply, wire: &str) {
        let mut got = Vec::new();
        reply.write(&mut got);
        assert_eq!(String::from_utf8(got).unwrap(), wire);
    }

    #[test]
    fn every_line_carries_both_codes() {
        check(&Reply::ok("one").and_line("two"), "250-2.0.0 one\r\n250 2.0.0 two\r\n");
        check(&Reply::bare(220, "gw.example ESMTP"), "220 gw.example ESMTP\r\n");
    }

    #[test]
    fn a_reply_cannot_break_its_own_framing() {
        check(&Reply::ok("ok\r\n250 injected\0\u{85}é"), "250 2.0.0 ok  250 injected  ?\r\n");
        let mut wire = Vec::new();
        Reply::ok("x".repeat(2000)).write(&mut wire);
        assert!(wire.len() <= 512, "{}", wire.len());
    }
}
