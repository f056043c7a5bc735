//! Message-IDs (RFC 5322 section 3.6.4) without their angle brackets, and the lists of them in In-Reply-To and References.
//!
//! Not here: what an id proves. It is a name that senders choose, reuse and providers rewrite (`core::threading`).

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Longest id kept, in octets: the longest line RFC 5322 allows.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// One message id: printable, without white space, brackets or control characters, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Box<str>);

impl MessageId {
    /// Reads an id with or without brackets. `None` when nothing usable is left.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.trim().trim_start_matches('<').trim_end_matches('>');
        // Comments and folds may stand between the words of an id in obsolete syntax (RFC 5322 section 4.5.4), and are none of it.
        let id: String = without_comments(inner).chars().filter(|c| !c.is_whitespace()).collect();
        let clean = !id.chars().any(|c| c.is_control() || c == '<' || c == '>');
        (clean && !id.is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX).then(|| Self(id.into()))
    }

    /// Reads the id that a Message-ID field gives: the first in brackets, whatever stands behind it, else the whole value.
    #[must_use]
    pub fn parse_own(value: &str) -> Option<Self> {
        let bracketed = value.split('<').skip(1).find_map(|rest| Self::parse(rest.split('>').next()?));
        bracketed.or_else(|| Self::parse(value))
    }

    /// Reads every id of an In-Reply-To or References value: bracketed ones, or bare words with an "@" when none is. One that
    /// was cut off before its bracket is none, nor is the lone address in the phrase of old mailers, `Message from Ann <a@x>`.
    #[must_use]
    pub fn parse_list(value: &str) -> Vec<Self> {
        if let Some((before, _)) = value.split_once('<') {
            let bracketed = value.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0));
            let ids: Vec<Self> = bracketed.filter_map(Self::parse).collect();
            // Beside an id the address does no harm that is worth a guess: other programs thread by it as well.
            return if ids.len() == 1 && names_a_person(before) { Vec::new() } else { ids };
        }
        value
            .split([' ', '\t', '\r', '\n', ','])
            .filter(|word| word.contains('@'))
            .filter_map(Self::parse)
            .collect()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id without comments. Parentheses that are quoted or do not close are its own.
fn without_comments(id: &str) -> Cow<'_, str> {
    if !id.contains('(') {
        return Cow::Borrowed(id);
    }
    let (mut kept, mut depth) = (String::with_capacity(id.len()), 0_usize);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in id.chars() {
        let is_plain = !is_escaped;
        is_escaped = c == '\\' && is_plain;
        match c {
            '"' if is_plain && depth == 0 => is_quoted = !is_quoted,
            '(' if is_plain && !is_quoted => depth = depth.saturating_add(1),
            ')' if is_plain && !is_quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            kept.push(c);
        }
    }
    if depth == 0 { Cow::Owned(kept) } else { Cow::Borrowed(id) }
}

/// Whether words end in those by which RFC 822 mailers named an author, `… from Ann Lee`, and not in a date or an address.
fn names_a_person(words: &str) -> bool {
    let unquoted: String = words.split('"').step_by(2).collect();
    let name: Vec<&str> =
        unquoted.split_whitespace().rev().take_while(|word| !word.eq_ignore_ascii_case("from")).collect();
    let is_after_from = name.len() < unquoted.split_whitespace().count();
    let is_name = |word: &&str| !word.contains(['@', ';', ':']) && !["of", "on", "at"].contains(word);
    is_after_from && name.iter().all(is_name)
}

/// Without brackets; `write!(f, "<{id}>")` where a header wants them.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MessageId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a message id")
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_list(value: &str, expect: &[&str]) {
        let got: Vec<_> = MessageId::parse_list(value).iter().map(ToString::to_string).collect();
        assert_eq!(got, expect, "{value:?}");
    }

    #[test]
    fn brackets_and_folds_do_not_belong_to_an_id() {
        assert_eq!(MessageId::parse(" <a.b@c.example>\r\n").unwrap().as_str(), "a.b@c.example");
        assert_eq!(MessageId::parse("<a.b\r\n @c.example>").unwrap().as_str(), "a.b@c.example");
        assert_eq!(MessageId::parse("<>"), None);
        assert_eq!(MessageId::parse("a\0b"), None);
    }

    #[test]
    fn comments_in_obsolete_ids_do_not_belong_to_them() {
        for (written, id) in [
            // RFC 5322 appendix A.5.
            ("<1234   @   local(blah)  .machine .example>", Some("1234@local.machine.example")),
            ("<1(a (nested\\) one))@x.example>", Some("1@x.example")),
            ("<\"a(b\"@x.example>", Some("\"a(b\"@x.example")),
            ("<a(b@x.example>", Some("a(b@x.example")),
            ("<a)b@x.example>", Some("a)b@x.example")),
            ("<(nothing else)>", None),
        ] {
            assert_eq!(MessageId::parse_own(written).map(String::from).as_deref(), id, "{written}");
        }
        check_list("<a(one)@x> <b @ y>", &["a@x", "b@y"]);
    }

    #[test]
    fn a_message_has_the_first_id_of_its_field() {
        let own = |value: &str| MessageId::parse_own(value).map(String::from);
        assert_eq!(own("<a@b> <c@d>").as_deref(), Some("a@b"));
        assert_eq!(own("<<a@b>>").as_deref(), Some("a@b"));
        assert_eq!(own("<a@b> (added by relay)").as_deref(), Some("a@b"));
        assert_eq!(own("20240101.123").as_deref(), Some("20240101.123"));
        assert_eq!((own("<>"), own("< <"), own("")), (None, None, None));
    }

    #[test]
    fn a_list_is_read_with_and_without_brackets() {
        check_list("<a@x> <b@y>", &["a@x", "b@y"]);
        check_list("<a@x><b@y>", &["a@x", "b@y"]);
        check_list("<a@x>,\r\n\t<b@y>", &["a@x", "b@y"]);
        check_list("a@x b@y", &["a@x", "b@y"]);
        check_list("your message of Monday", &[]);
        check_list("<a@x> <b@y...", &["a@x"]);
        check_list("<a@x> ... <b@y>", &["a@x", "b@y"]);
        check_list("Message from Joe <joe@x> of \"Mon\"", &[]);
        check_list("Message from \"Joe B\" <joe@x> of \"Mon\"", &[]);
        check_list("Message from joe@x of Mon, 1 Apr. <a@y>", &["a@y"]);
        check_list("Your message of \"Mon\" <a@y>; from joe@x", &["a@y"]);
        check_list("message <a@x> of \"Joe\" on Monday", &["a@x"]);
    }
}
