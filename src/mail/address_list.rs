//! Reads the address lists of From, To and their like as real mail has them: RFC 5322 section 3.4 and what clients made of it.
//!
//! Not here: a single addr-spec (`Address::parse`). What is no address is left out; reading never fails and is linear.

use memchr::memchr;

use super::{Address, Party, encoded_word, header::ADDRESSES_MAX};

/// An entry of a list as its header says it, whether or not mail can be sent there: some have no domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub name: Option<String>,
    /// An address, or the one word in its place.
    pub address: String,
}

/// Reads a list for those who want to see it: what is no address is there if it is a word that stands where one should.
#[must_use]
pub fn written(value: &[u8]) -> Vec<Written> {
    let mut entries = Vec::new();
    each_entry(value, &mut |entry| {
        entries.extend(entry.written());
        true
    });
    entries
}

/// Reads a list; groups are flattened, `,` and `;` both separate.
#[must_use]
pub fn parse(value: &[u8]) -> Vec<Party> {
    let mut parties = Vec::new();
    parse_into(value, ADDRESSES_MAX, &mut parties);
    parties
}

/// Appends a list's parties until `parties` holds `max`.
pub fn parse_into(value: &[u8], max: usize, parties: &mut Vec<Party>) {
    if parties.len() < max {
        each_entry(value, &mut |entry| {
            parties.extend(entry.party());
            parties.len() < max
        });
    }
}

/// Cuts a list into its entries, as long as they are wanted.
fn each_entry(value: &[u8], take: &mut dyn FnMut(&Entry) -> bool) {
    let mut rest = value;
    let mut entry = Entry::default();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'"' => rest = entry.take_quoted(tail),
            b'(' => rest = entry.take_comment(tail),
            b'[' => rest = entry.take_literal(tail),
            b'<' => {
                // Two angle-addrs without a comma between them are two entries.
                if entry.angle.is_some() && !take(&entry.reset()) {
                    return;
                }
                rest = entry.take_angle(tail);
            }
            b',' | b';' => {
                if !take(&entry.reset()) {
                    return;
                }
            }
            b':' => entry.end_group_name(),
            other => entry.take_byte(*other),
        }
    }
    take(&entry);
}

/// What is known of the entry being read.
#[derive(Default)]
struct Entry {
    /// The text outside of brackets and comments: a display name, or a bare address. Quoted strings keep their quotes.
    text: Vec<u8>,
    /// The same as a display name: quoted strings without quotes and escapes.
    name: Vec<u8>,
    /// What stood between angle brackets.
    angle: Option<Vec<u8>>,
    /// A quote was opened and never closed: from here on quotes are letters, or looking for their ends would be quadratic.
    stray_quotes: bool,
    /// The last comment, if nothing followed it: the name in `a@b.example (Ann)`.
    comment: Vec<u8>,
}

impl Entry {
    fn take_byte(&mut self, byte: u8) {
        if !byte.is_ascii_whitespace() {
            self.comment.clear();
        }
        self.text.push(byte);
        self.name.push(byte);
    }

    /// A quoted string up to its closing quote; an unclosed one is no quoted string but a stray quote.
    fn take_quoted<'a>(&mut self, tail: &'a [u8]) -> &'a [u8] {
        let Some(len) = self.quoted_len(tail) else { return tail };
        let (inner, after) = tail.split_at_checked(len).unwrap_or_default();
        self.comment.clear();
        self.text.push(b'"');
        self.text.extend_from_slice(inner);
        self.text.push(b'"');
        let mut escaped = false;
        for byte in inner {
            escaped = !escaped && *byte == b'\\';
            if !escaped {
                self.name.push(*byte);
            }
        }
        after.get(1..).unwrap_or_default()
    }

    /// A comment with those nested in it; an unclosed one runs to the end.
    fn take_comment<'a>(&mut self, tail: &'a [u8]) -> &'a [u8] {
        self.comment.clear();
        let (mut depth, mut rest) = (1_usize, tail);
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                b'\\' => rest = after.get(1..).unwrap_or_default(),
                b'(' => depth += 1,
                b')' if depth == 1 => return rest,
                b')' => depth -= 1,
                other => self.comment.push(*other),
            }
        }
        rest
    }

    /// An address literal, whose colons begin no group.
    fn take_literal<'a>(&mut self, tail: &'a [u8]) -> &'a [u8] {
        let is_inside = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.');
        let len = tail.iter().take_while(is_inside).count();
        self.take_byte(b'[');
        let (inner, after) = tail.split_at_checked(len).unwrap_or_default();
        inner.iter().for_each(|byte| self.take_byte(*byte));
        after
    }

    /// An angle-addr; without a closing bracket it ends where the entry does.
    fn take_angle<'a>(&mut self, tail: &'a [u8]) -> &'a [u8] {
        let mut len = 0;
        let mut rest = tail;
        while let [first, after @ ..] = rest {
            match first {
                b'>' | b'<' => break,
                b'"' if let Some(quoted) = self.quoted_len(after) => len += quoted + 1,
                _ => {}
            }
            len += 1;
            rest = tail.get(len..).unwrap_or_default();
        }
        if rest.is_empty() {
            len = memchr(b',', tail).unwrap_or(tail.len());
        }
        let (inner, after) = tail.split_at_checked(len).unwrap_or_default();
        if !inner.trim_ascii().is_empty() {
            self.angle = Some(inner.to_vec());
        }
        after.strip_prefix(b">").unwrap_or(after)
    }

    /// `Team:` names a group and `mailto:` a scheme; neither belongs to an address or a name.
    fn end_group_name(&mut self) {
        if self.angle.is_none() && memchr(b'@', &self.text).is_none() {
            self.reset();
        } else {
            self.take_byte(b':');
        }
    }

    fn reset(&mut self) -> Self {
        let fresh = Self { stray_quotes: self.stray_quotes, ..Self::default() };
        std::mem::replace(self, fresh)
    }

    /// Length of a quoted string's inside, up to its unescaped closing quote.
    fn quoted_len(&mut self, tail: &[u8]) -> Option<usize> {
        if self.stray_quotes {
            return None;
        }
        let mut escaped = false;
        let len = tail.iter().position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = !escaped && *byte == b'\\';
            closes
        });
        self.stray_quotes = len.is_none();
        len
    }

    fn party(&self) -> Option<Party> {
        if let Some(angle) = &self.angle {
            let address = read_address(&String::from_utf8_lossy(angle))?;
            return Some(named(address, self.angle_name()));
        }
        let text = String::from_utf8_lossy(&self.text);
        if let Some(address) = read_address(&text) {
            return Some(named(address, &self.comment));
        }
        // `Ann ann@b.example`: one word is an address, the others name its owner.
        let (addresses, words): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|word| word.contains('@'));
        let [address] = addresses.as_slice() else { return None };
        Some(named(Address::parse(address).ok()?, words.join(" ").as_bytes()))
    }

    fn angle_name(&self) -> &[u8] {
        if self.name.trim_ascii().is_empty() { &self.comment } else { &self.name }
    }

    fn written(&self) -> Option<Written> {
        if let Some(Party { address, name }) = self.party() {
            return Some(Written { name, address: address.to_string() });
        }
        let (place, name) = match &self.angle {
            Some(angle) => (angle, self.angle_name()),
            None => (&self.text, self.comment.as_slice()),
        };
        let word = String::from_utf8_lossy(place).trim().to_owned();
        let is_word = !word.is_empty()
            && !word.contains(|c: char| c.is_whitespace() || c.is_control() || "\"@=".contains(c));
        is_word.then(|| Written { name: display_name(name), address: word })
    }
}

fn named(address: Address, name: &[u8]) -> Party {
    Party { address, name: display_name(name) }
}

fn display_name(written: &[u8]) -> Option<String> {
    let name = encoded_word::decode_text(written);
    let single_spaced = name.split_whitespace().collect::<Vec<_>>().join(" ");
    (!single_spaced.is_empty()).then_some(single_spaced)
}

/// Reads an addr-spec that may carry a scheme, a source route, quotes or comments of confused clients.
fn read_address(text: &str) -> Option<Address> {
    let text = text.trim();
    let text = text
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("mailto:"))
        .map_or(text, |_| text.get(7..).unwrap_or(text));
    // `@relay.example,@b.example:user@c.example`: RFC 5321 appendix C says to drop the route.
    let text =
        text.strip_prefix('@').and_then(|route| route.split_once(':')).map_or(text, |(_, address)| address);
    let text = text.trim().trim_end_matches('>');
    Address::parse(text).ok().or_else(|| Address::parse(&without_blanks(text)?).ok()).or_else(|| {
        let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
        Address::parse(inner).ok()
    })
}

/// Obsolete syntax allows blanks around `.` and `@`, and folding puts them there; a blank between words is another thing.
fn without_blanks(text: &str) -> Option<String> {
    if text.contains(['"', '(']) {
        return None;
    }
    let mut joined = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let may_join = joined.is_empty() || joined.ends_with(['.', '@']) || word.starts_with(['.', '@']);
        if !may_join {
            return None;
        }
        joined.push_str(word);
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expect: &[(&str, &str)]) {
        let got: Vec<_> = parse(value.as_bytes())
            .into_iter()
            .map(|p| (p.name.unwrap_or_default(), p.address.to_string()))
            .collect();
        let expect: Vec<_> = expect.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
        assert_eq!(got, expect, "{value:?}");
    }

    #[test]
    fn names_come_from_phrases_quoted_strings_and_comments() {
        check("Ann Lee <a@b.example>", &[("Ann Lee", "a@b.example")]);
        check("\"Lee, \\\"A\\\" Ann\" <a@b.example>", &[("Lee, \"A\" Ann", "a@b.example")]);
        check("a@b.example (Ann (the) Lee)", &[("Ann the Lee", "a@b.example")]);
        check("=?utf-8?Q?Lee=2C_Ann?= <a@b.example>", &[("Lee, Ann", "a@b.example")]);
        check("\"=?utf-8?Q?J=C3=B6?=\" <j@x.example>", &[("Jö", "j@x.example")]);
        check("Ann Lee a@b.example", &[("Ann Lee", "a@b.example")]);
    }

    #[test]
    fn lists_groups_and_folds_are_flattened() {
        check(
            "a@x.example,\r\n\tb@y.example; c@z.example,,",
            &[("", "a@x.example"), ("", "b@y.example"), ("", "c@z.example")],
        );
        check(
            "Team: Ann <a@x.example>, b@y.example;, c@z.example",
            &[("Ann", "a@x.example"), ("", "b@y.example"), ("", "c@z.example")],
        );
        check("undisclosed-recipients:;", &[]);
        check("<a@x.example> <b@y.example>", &[("", "a@x.example"), ("", "b@y.example")]);
    }

    #[test]
    fn an_encoded_word_never_yields_an_address() {
        check("=?utf-8?Q?evil=40bank.example?= <joe@x.example>", &[("evil@bank.example", "joe@x.example")]);
        check("=?utf-8?Q?evil=40bank.example?=", &[]);
        check("=?utf-8?Q?a_=3Cx=40evil.example=3E?= <j@x.example>", &[("a <x@evil.example>", "j@x.example")]);
    }

    #[test]
    fn what_confused_clients_write_is_understood() {
        check("<mailto:a@b.example>", &[("", "a@b.example")]);
        check("mailto:a@b.example", &[("", "a@b.example")]);
        check("<@r.example,@s.example:a@b.example>", &[("", "a@b.example")]);
        check("Joe <a@b.example", &[("Joe", "a@b.example")]);
        check("Joe <a@b.example, c@d.example", &[("Joe", "a@b.example"), ("", "c@d.example")]);
        check("'a@b.example' <'a@b.example'>", &[("'a@b.example'", "a@b.example")]);
        check("a@b.example>", &[("", "a@b.example")]);
        check("a (c) @ (d) b . example", &[("", "a@b.example")]);
        check("a@[IPv6:2001:db8::1], b@c.example", &[("", "a@[ipv6:2001:db8::1]"), ("", "b@c.example")]);
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        for value in
            ["", ",;,", "joe", "a@b@c.example", "<>", "\"", "((((", "<<<<>>>>", "/O=CORP/CN=JDOE", ":;:"]
        {
            check(value, &[]);
        }
    }

    #[track_caller]
    fn check_written(value: &str, expect: &[(&str, &str)]) {
        let got = written(value.as_bytes());
        let got: Vec<_> = got.iter().map(|p| (p.name.as_deref().unwrap_or(""), p.address.as_str())).collect();
        assert_eq!(got, expect, "{value:?}");
    }

    #[test]
    fn a_word_in_the_place_of_an_address_can_be_shown() {
        check_written("Ann Lee <ann>, b@x.example", &[("Ann Lee", "ann"), ("", "b@x.example")]);
        check_written(
            "root (Charlie &), Bob <bob> <carl>",
            &[("Charlie &", "root"), ("Bob", "bob"), ("", "carl")],
        );
        check_written("Undisclosed recipients:;", &[]);
        check_written("<Undisclosed Recipients>", &[]);
        check_written("a@b@c, <>, =?utf-8?Q?evil=40bank.example?=", &[]);
    }

    #[test]
    fn reading_is_linear_and_bounded() {
        for piece in ["a@b.example, ", "(", "\"", "<", "\\\"", "<\"", "[", ":", "=?utf-8?Q?a"] {
            let value = piece.repeat(60_000);
            assert!(parse(value.as_bytes()).len() <= ADDRESSES_MAX);
        }
    }
}
