//! The macros of SPF (RFC 7208 section 7).
//!
//! Not here: finding the validated name of a client (`%{p}`), which takes lookups and is an argument.

use std::net::IpAddr;

/// Longest name that is looked up; longer ones lose labels at their left.
const NAME_BYTES_MAX: usize = 253;

/// What macros stand for.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    /// `local@domain`.
    pub sender: (&'a str, &'a str),
    pub domain: &'a str,
    pub client: IpAddr,
    pub hello: &'a str,
    /// The client's validated name.
    pub name: &'a str,
}

/// One piece of a macro string.
enum Piece<'a> {
    Text(&'a str),
    Macro { letter: char, digits: usize, is_reversed: bool, delimiters: &'a str },
}

/// Whether every macro in it is well-formed and one that may stand outside of explanations.
#[must_use]
pub fn is_macro_string(text: &str) -> bool {
    pieces(text).is_some()
}

/// Whether it needs the client's validated name.
#[must_use]
pub fn needs_name(text: &str) -> bool {
    let is_name = |piece: &Piece<'_>| matches!(piece, Piece::Macro { letter: 'p' | 'P', .. });
    pieces(text).is_some_and(|pieces| pieces.iter().any(is_name))
}

fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, after) = rest.split_at_checked(at)?;
        pieces.push(Piece::Text(before));
        let (sign, tail) = after.split_at_checked(2)?;
        (rest, _) = match sign {
            "%%" => (tail, pieces.push(Piece::Text("%"))),
            "%_" => (tail, pieces.push(Piece::Text(" "))),
            "%-" => (tail, pieces.push(Piece::Text("%20"))),
            "%{" => {
                let (inner, tail) = tail.split_once('}')?;
                (tail, pieces.push(read_macro(inner)?))
            }
            _ => return None,
        };
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

fn read_macro(inner: &str) -> Option<Piece<'_>> {
    let letter = inner.chars().next().filter(|c| "slodiphv".contains(c.to_ascii_lowercase()))?;
    let rest = inner.get(1..)?;
    let end = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at_checked(end)?;
    let digits = if number.is_empty() { usize::MAX } else { number.parse().ok().filter(|n| *n > 0)? };
    let delimiters = rest.strip_prefix(['r', 'R']);
    let (is_reversed, delimiters) = (delimiters.is_some(), delimiters.unwrap_or(rest));
    let is_known = delimiters.chars().all(|c| ".-+,/_=".contains(c));
    is_known.then_some(Piece::Macro { letter, digits, is_reversed, delimiters })
}

/// The name that a domain-spec gives.
#[must_use]
pub fn expand(text: &str, values: &Values<'_>) -> String {
    let mut out = String::new();
    for piece in pieces(text).unwrap_or_default() {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Macro { letter, digits, is_reversed, delimiters } => {
                let value = value_of(letter.to_ascii_lowercase(), values);
                let value = transform(&value, (digits, is_reversed), delimiters);
                if letter.is_ascii_uppercase() { escape(&value, &mut out) } else { out.push_str(&value) }
            }
        }
    }
    let mut name = out.as_str().trim_end_matches('.');
    while name.len() > NAME_BYTES_MAX {
        name = name.split_once('.').map_or("", |(_, rest)| rest);
    }
    name.to_owned()
}

fn value_of(letter: char, values: &Values<'_>) -> String {
    let (local, sender_domain) = values.sender;
    match letter {
        's' => format!("{local}@{sender_domain}"),
        'l' => local.to_owned(),
        'o' => sender_domain.to_owned(),
        'd' => values.domain.to_owned(),
        'h' => values.hello.to_owned(),
        'p' => values.name.to_owned(),
        'i' => dotted(values.client),
        _ => if values.client.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
    }
}

/// An address as macros have it: IPv6 by its hexadecimal digits.
#[must_use]
pub fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            digits.map(|digit| format!("{digit:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

fn transform(value: &str, (digits, is_reversed): (usize, bool), delimiters: &str) -> String {
    let delimiters = if delimiters.is_empty() { "." } else { delimiters };
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if is_reversed {
        parts.reverse();
    }
    let skipped = parts.len().saturating_sub(digits);
    parts.split_off(skipped).join(".")
}

fn escape(value: &str, out: &mut String) {
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
}
