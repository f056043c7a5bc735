//! Who a message says wrote it, where every program would say the same: one From field, one mailbox, nothing that can be read in
//! two ways.
//!
//! Not here: whether that is true, and the tolerant reading of addresses for show (`mail::address_list`).

use super::{
    super::{Address, encoded_word},
    raw_field::{self, RawField},
};

/// A From field longer than this is not somebody's name and address.
const FROM_BYTES_MAX: usize = 4096;

/// What the From field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    One(Address),
    Missing,
    /// Programs differ about it; the word says in what.
    Ambiguous(&'static str),
}

/// The author of a message.
#[must_use]
pub fn author(raw: &[u8]) -> Author {
    let (fields, _) = raw_field::split(raw);
    match only_from(&fields) {
        Ok(Some(value)) => mailbox(value).map_or_else(Author::Ambiguous, Author::One),
        Ok(None) => Author::Missing,
        Err(word) => Author::Ambiguous(word),
    }
}

/// The value of the one From field, if nothing else could be taken for one.
fn only_from<'a>(fields: &[RawField<'a>]) -> Result<Option<&'a [u8]>, &'static str> {
    let mut found = None;
    let mut is_broken = false;
    for (at, field) in fields.iter().enumerate() {
        if hides_from(field.whole) {
            return Err("line");
        }
        if is_like_from(field.name) {
            let value = field.value.filter(|_| field.name.eq_ignore_ascii_case(b"from")).ok_or("name")?;
            if is_broken {
                return Err("line");
            }
            if found.replace(value).is_some() {
                return Err("fields");
            }
        }
        // To some programs the header ends at a line that is no field. The envelope line of a mailbox file may stand first.
        let ends = field.value.is_none() || field.whole.starts_with(b" ") || field.whole.starts_with(b"\t");
        is_broken |= ends && !(at == 0 && field.whole.starts_with(b"From "));
    }
    Ok(found)
}

/// Whether a name is "From" to a program that passes over what has no place in a name.
fn is_like_from(name: &[u8]) -> bool {
    let letters = name.iter().filter(|octet| octet.is_ascii_graphic());
    letters.clone().count() == 4
        && letters.zip(b"from").all(|(octet, wanted)| octet.eq_ignore_ascii_case(wanted))
}

/// Whether a carriage return or a NUL inside of a field divides off what some take for a From field.
fn hides_from(whole: &[u8]) -> bool {
    let mut parts = whole.split(|octet| matches!(octet, b'\r' | 0 | 0x0b | 0x0c));
    let own = parts.next().is_some_and(|first| first.contains(&b':'));
    own && parts.any(|part| {
        // A fold begins with a line feed and white space; everybody knows that.
        let is_fold = part.starts_with(b"\n ") || part.starts_with(b"\n\t");
        !is_fold
            && part.split(|octet| *octet == b':').next().is_some_and(is_like_from)
            && part.contains(&b':')
    })
}

/// The one mailbox of a From value.
fn mailbox(value: &[u8]) -> Result<Address, &'static str> {
    if value.len() > FROM_BYTES_MAX {
        return Err("long");
    }
    if has_blank_fold(value) {
        return Err("folding");
    }
    let text = std::str::from_utf8(value).map_err(|_| "charset")?.replace("\r\n", "").replace('\n', "");
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("control");
    }
    if text.trim().is_empty() {
        return Err("empty");
    }
    Parts::read(text.trim())?.address()
}

/// A fold with nothing but white space on it, at which some programs end the header.
fn has_blank_fold(value: &[u8]) -> bool {
    value.split(|octet| *octet == b'\n').skip(1).any(|line| line.trim_ascii().is_empty())
}

/// A mailbox (RFC 5322 section 3.4) in its pieces. What stands in quotes or comments is told apart from what does not.
#[derive(Default)]
struct Parts {
    /// Outside of the angle brackets, without quoted strings and comments.
    plain: String,
    /// The same with quoted strings as they stand.
    outside: String,
    inside: Option<String>,
}

impl Parts {
    fn read(text: &str) -> Result<Self, &'static str> {
        let mut parts = Self::default();
        let mut chars = text.chars();
        let mut is_open = false;
        while let Some(c) = chars.next() {
            let has_angle = parts.inside.is_some();
            let target = match (&mut parts.inside, is_open) {
                (Some(inside), true) => inside,
                _ => &mut parts.outside,
            };
            match c {
                '"' => target.push_str(&quoted(&mut chars)?),
                '(' if is_open => return Err("comment"),
                '(' => comment(&mut chars)?,
                '<' if is_open => return Err("angle"),
                '<' if has_angle => return Err("mailboxes"),
                '<' => (parts.inside, is_open) = (Some(String::new()), true),
                '>' if is_open => is_open = false,
                '>' => return Err("angle"),
                ')' => return Err("comment"),
                '\\' => return Err("quoted"),
                ',' if is_open => return Err("route"),
                ',' => return Err("mailboxes"),
                ':' if is_open => return Err("route"),
                ':' | ';' => return Err("group"),
                _ if has_angle && !is_open && !c.is_whitespace() => return Err("trailing"),
                _ => {
                    target.push(c);
                    if !is_open {
                        parts.plain.push(c);
                    }
                }
            }
        }
        if is_open { Err("angle") } else { Ok(parts) }
    }

    fn address(self) -> Result<Address, &'static str> {
        let Some(inside) = &self.inside else { return addr_spec(self.outside.trim()) };
        let address = addr_spec(inside)?;
        let name = self.plain.trim();
        // Not in quotes, an address in front of the address is the author to some programs.
        if name.contains('@') && !name.eq_ignore_ascii_case(address.key()) {
            return Err("display");
        }
        if encoded_word::decode_text(self.outside.as_bytes()).contains(['<', '>']) && name.contains("=?") {
            return Err("encoded");
        }
        if hides_control(name) {
            return Err("encoded");
        }
        Ok(address)
    }
}

/// The rest of a quoted string, with its quotes.
fn quoted(chars: &mut std::str::Chars<'_>) -> Result<String, &'static str> {
    let mut text = String::from('"');
    while let Some(c) = chars.next() {
        text.push(c);
        match c {
            '"' => return Ok(text),
            '\\' => text.push(chars.next().ok_or("quoted")?),
            _ => {}
        }
    }
    Err("quoted")
}

/// Steps over the rest of a comment. One that holds what an address is made of is read as an address by some.
fn comment(chars: &mut std::str::Chars<'_>) -> Result<(), &'static str> {
    for c in chars.by_ref() {
        match c {
            ')' => return Ok(()),
            '(' | '\\' | '@' | '<' | '>' | ',' | ';' | '"' => return Err("comment"),
            _ => {}
        }
    }
    Err("comment")
}

fn addr_spec(text: &str) -> Result<Address, &'static str> {
    let (local, domain) = text.rsplit_once('@').ok_or("address")?;
    if text.starts_with('@') {
        return Err("route");
    }
    if local.starts_with('"') {
        let inner = local.trim_matches('"');
        let is_plain = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        if !inner.chars().all(is_plain) {
            return Err("quoted");
        }
    } else if local.contains(['"', '@']) {
        return Err("address");
    }
    if text.contains(char::is_whitespace) {
        return Err("space");
    }
    if text.contains("=?") {
        return Err("encoded");
    }
    if domain.contains('"') || domain.ends_with('.') {
        return Err("address");
    }
    Address::parse(text).map_err(|_| "address")
}

/// Whether an encoded word of the name holds a control character: what follows it is cut off, or begins a line, with some.
fn hides_control(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_q = |code: &str| lower.contains("?q?") && lower.contains(code);
    let q = (0_u8..32).any(|octet| is_q(&format!("={octet:02x}")));
    let b = lower.match_indices("?b?").filter_map(|(at, _)| name.get(at + 3..)?.split('?').next());
    q || b.filter_map(decode_base64).any(|bytes| bytes.iter().any(u8::is_ascii_control))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests;
