//! Addresses of RFC 5321 (`local-part@domain`) as values that cannot be wrong.
//!
//! Not here: display names (`Party` carries one), header syntax (`mail::header`), and any idea of who owns an address.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest local part in octets (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest domain in octets (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

/// One address. Two addresses are equal when they differ in letter case alone: RFC 5321 lets a host distinguish case in
/// the local part, but no provider does, and a CRM that did would make two contacts of one person.
#[derive(Clone)]
pub struct Address {
    /// As written, without the quotes a quoted local part needs on the wire.
    local: Box<str>,
    /// Lower-case A-labels without trailing dot, or an address literal in brackets.
    domain: Box<str>,
    /// Lower-case whole, what comparing and storing go by.
    key: Box<str>,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address needs a local part and a domain, joined by \"@\"")]
    Shape,
    #[error(
        "the part before \"@\" is empty, longer than 64 octets, or holds characters no mail server takes"
    )]
    LocalPart,
    #[error("the domain is not a valid host name")]
    Domain,
}

impl Address {
    /// Parses an addr-spec: `a@b.example`, `"odd local"@b.example`, `a@[192.0.2.1]`. No brackets, no display name.
    ///
    /// # Errors
    /// Says which half is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        // The last "@" divides: `"x@evil.example"@good.example` is at good.example.
        let (local, domain) = text.trim().rsplit_once('@').ok_or(AddressError::Shape)?;
        Self::from_parts(local, domain)
    }

    /// Builds an address from a local part (quoted or not) and a domain.
    ///
    /// # Errors
    /// Says which half is wrong.
    pub fn from_parts(local: &str, domain: &str) -> Result<Self, AddressError> {
        let local = unquote(local).ok_or(AddressError::LocalPart)?;
        let domain = canonical_domain(domain).ok_or(AddressError::Domain)?;
        let key = format!("{}@{domain}", quoted(&local.to_lowercase())).into();
        Ok(Self { local: local.into(), domain: domain.into(), key })
    }

    /// The local part, unquoted.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain: lower-case A-labels, or a literal in brackets.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The lower-case form by which addresses are compared and stored.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// True when the address can be written only with SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

/// The domain as A-labels in lower case, or `None` when it is no domain.
#[must_use]
pub fn canonical_domain(domain: &str) -> Option<String> {
    let domain = domain.trim().trim_end_matches('.');
    if domain.starts_with('[') {
        return is_literal(domain).then(|| domain.to_ascii_lowercase());
    }
    let ascii = idna::domain_to_ascii(domain).ok()?;
    let fits = !ascii.is_empty() && ascii.len() <= DOMAIN_BYTES_MAX;
    (fits && ascii.split('.').all(is_label)).then_some(ascii)
}

fn is_literal(domain: &str) -> bool {
    let Some(inner) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else { return false };
    let ip = inner.strip_prefix("IPv6:").or_else(|| inner.strip_prefix("ipv6:")).unwrap_or(inner);
    ip.parse::<std::net::IpAddr>().is_ok()
}

fn is_label(label: &str) -> bool {
    let edge_hyphen = label.starts_with('-') || label.ends_with('-');
    let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    !label.is_empty() && label.len() <= 63 && plain && !edge_hyphen
}

/// Takes off the quotes and escapes of a quoted local part; refuses what cannot stand in one.
fn unquote(local: &str) -> Option<String> {
    let text = match local.strip_prefix('"') {
        Some(rest) => unescape(rest.strip_suffix('"')?)?,
        None if is_dot_string(local) => local.to_owned(),
        None => return None,
    };
    let fits = !text.is_empty() && text.len() <= LOCAL_PART_BYTES_MAX;
    (fits && !text.chars().any(char::is_control)).then_some(text)
}

fn unescape(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

/// Dot-string of RFC 5321 section 4.1.2, widened to the leading, trailing and doubled dots that real providers issue.
fn is_dot_string(local: &str) -> bool {
    !local.is_empty() && local.chars().all(|c| c == '.' || is_atext(c))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

/// The local part as it is written on the wire: quoted when it must be.
fn quoted(local: &str) -> String {
    if is_dot_string(local) {
        return local.to_owned();
    }
    let escaped: String =
        local.chars().flat_map(|c| (c == '"' || c == '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", quoted(&self.local), self.domain)
    }
}

/// Prints no address: invariant 17 keeps them out of logs, and `{:?}` is what logs print.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if cfg!(debug_assertions) { write!(f, "Address({self})") } else { f.write_str("Address(…)") }
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Address {}
impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}
impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// An address with the display name it was written with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    #[serde(rename = "email")]
    pub address: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Party {
    #[must_use]
    pub fn new(address: Address, name: Option<&str>) -> Self {
        let name = name.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        Self { address, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<(&str, &str)>) {
        let got = Address::parse(text).ok();
        assert_eq!(
            got.as_ref().map(|a| (a.to_string(), a.key().to_owned())),
            expect.map(|(a, b)| (a.into(), b.into())),
            "{text}"
        );
    }

    #[test]
    fn an_address_is_written_as_it_came_and_compared_in_lower_case() {
        check("Ann.Lee@Example.COM", Some(("Ann.Lee@example.com", "ann.lee@example.com")));
        check("a@b.example.", Some(("a@b.example", "a@b.example")));
        check("a@bücher.example", Some(("a@xn--bcher-kva.example", "a@xn--bcher-kva.example")));
        check("\"john smith\"@b.example", Some(("\"john smith\"@b.example", "\"john smith\"@b.example")));
        check("\"plain\"@b.example", Some(("plain@b.example", "plain@b.example")));
        check("a@[192.0.2.1]", Some(("a@[192.0.2.1]", "a@[192.0.2.1]")));
    }

    #[test]
    fn the_last_at_sign_divides() {
        let address = Address::parse("\"a@evil.example\"@b.example").unwrap();
        assert_eq!((address.local(), address.domain()), ("a@evil.example", "b.example"));
        check("a@evil.example@b.example", None);
    }

    #[test]
    fn what_no_mail_server_takes_is_refused() {
        for text in [
            "",
            "a",
            "@b.example",
            "a@",
            "a b@c.example",
            "a@b c",
            "a@-b.example",
            "a@b..c",
            "a\r\n@b.example",
            "\"a\r\nb\"@c.example",
            "a@[300.1.1.1]",
            "<a@b.example>",
        ] {
            check(text, None);
        }
        check(&format!("{}@b.example", "x".repeat(65)), None);
    }
}
