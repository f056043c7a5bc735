//! SPF records (RFC 7208 sections 4.6, 5, 6, 12), read whole before anything of them is evaluated: one bad term spoils all.
//!
//! Not here: evaluation (`spf`), and expanding macros (`spf_macro`).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::spf_macro;

/// What a mechanism that matches says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// How many leading bits count, for IPv4 and IPv6.
pub type Prefixes = (u8, u8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    All,
    Include(String),
    A(Option<String>, Prefixes),
    Mx(Option<String>, Prefixes),
    Ptr(Option<String>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpfRecord {
    pub directives: Vec<(Qualifier, Mechanism)>,
    pub redirect: Option<String>,
}

/// Whether a TXT record is one of SPF.
#[must_use]
pub fn is_spf(text: &str) -> bool {
    let head = text.get(..6).is_some_and(|head| head.eq_ignore_ascii_case("v=spf1"));
    head && text.get(6..).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

impl SpfRecord {
    /// `None` where any term is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        let mut has_explanation = false;
        for term in text.get(6..)?.split(' ').filter(|term| !term.is_empty()) {
            let Some((name, value)) = modifier(term) else {
                record.directives.push(directive(term)?);
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "redirect" if record.redirect.is_none() => record.redirect = Some(domain_spec(value)?),
                "exp" if !has_explanation => has_explanation = domain_spec(value).is_some(),
                "redirect" | "exp" => return None,
                _ if spf_macro::is_macro_string(value) => {}
                _ => return None,
            }
            if name.eq_ignore_ascii_case("exp") && !has_explanation {
                return None;
            }
        }
        Some(record)
    }
}

fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    is_name.then_some((name, value))
}

fn directive(term: &str) -> Option<(Qualifier, Mechanism)> {
    let (qualifier, rest) = match term.split_at_checked(1)? {
        ("+", rest) => (Qualifier::Pass, rest),
        ("-", rest) => (Qualifier::Fail, rest),
        ("~", rest) => (Qualifier::SoftFail, rest),
        ("?", rest) => (Qualifier::Neutral, rest),
        _ => (Qualifier::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, argument) = rest.split_at_checked(end)?;
    Some((qualifier, mechanism(&name.to_ascii_lowercase(), argument)?))
}

fn mechanism(name: &str, argument: &str) -> Option<Mechanism> {
    let value = argument.strip_prefix(':');
    Some(match name {
        "all" if argument.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(value?)?),
        "exists" => Mechanism::Exists(domain_spec(value?)?),
        "ptr" if argument.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(value?)?)),
        "a" | "mx" => {
            let (domain, prefixes) = domain_and_prefixes(argument)?;
            if name == "a" { Mechanism::A(domain, prefixes) } else { Mechanism::Mx(domain, prefixes) }
        }
        "ip4" => {
            let (address, bits) = network(value?, 32)?;
            Mechanism::Ip4(address.parse().ok()?, bits)
        }
        "ip6" => {
            let (address, bits) = network(value?, 128)?;
            Mechanism::Ip6(address.parse().ok()?, bits)
        }
        _ => return None,
    })
}

fn network(value: &str, most: u8) -> Option<(&str, u8)> {
    match value.split_once('/') {
        Some((address, bits)) => Some((address, prefix(bits, most)?)),
        None => Some((value, most)),
    }
}

fn prefix(digits: &str, most: u8) -> Option<u8> {
    let is_number =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|bits| is_number && *bits <= most)
}

/// `[":" domain-spec] ["/" bits] ["//" bits]`.
fn domain_and_prefixes(argument: &str) -> Option<(Option<String>, Prefixes)> {
    let (rest, six) = split_prefix(argument, "//", 128)?;
    let (rest, four) = split_prefix(rest, "/", 32)?;
    let domain = match rest.strip_prefix(':') {
        Some(domain) => Some(domain_spec(domain)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((domain, (four, six)))
}

/// Takes a prefix length off the end; a domain may itself have slashes, but no end of digits behind one.
fn split_prefix<'a>(text: &'a str, mark: &str, most: u8) -> Option<(&'a str, u8)> {
    match text.rsplit_once(mark) {
        Some((rest, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((rest, prefix(digits, most)?))
        }
        _ => Some((text, most)),
    }
}

/// A macro string that ends like a domain: with a label that is no number, or with a macro.
fn domain_spec(text: &str) -> Option<String> {
    if !spf_macro::is_macro_string(text) {
        return None;
    }
    let ends_in_macro = text.ends_with('}')
        && text.rfind("%{").is_some_and(|at| !text.get(at..).unwrap_or_default().contains(' '));
    let bare = text.strip_suffix('.').unwrap_or(text);
    let ends_in_label = bare.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label));
    (ends_in_macro || ends_in_label).then(|| text.to_owned())
}

fn is_top_label(label: &str) -> bool {
    let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let edge = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && plain && !edge && label.bytes().any(|b| !b.is_ascii_digit())
}
