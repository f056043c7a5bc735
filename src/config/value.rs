//! The kinds of value an option can have, each read from TOML or from the text of an environment variable.
//!
//! Not here: which option has which kind (`sections`), nor whether values agree with each other (`check`).

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;
use toml::Value;
use url::Url;

use crate::mail::canonical_domain;

/// A kind of value.
pub trait Setting: Sized {
    /// What is wanted, as the rest of a sentence that begins "wants ".
    fn wanted() -> String;

    /// Reads a TOML value; `None` when it is of another kind.
    fn from_value(value: &Value) -> Option<Self>;

    /// Reads the text of an environment variable: as TOML when it is that, else as a plain string.
    fn from_text(text: &str) -> Option<Self> {
        let typed = format!("value = {text}").parse::<toml::Table>().ok();
        let typed = typed.as_ref().and_then(|table| table.get("value"));
        typed.and_then(Self::from_value).or_else(|| Self::from_value(&Value::String(text.to_owned())))
    }
}

/// A number of octets, written as an integer or with a binary unit: `36700160`, `"36MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As a length in memory. On a 32-bit machine, what does not fit is the largest length there is.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a node does; the nodes of an installation may share the work out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Takes mail to capture and reply addresses.
    Mx,
    /// Takes mail from the CRM over SMTP.
    Submission,
    /// Follows the users' accounts.
    Accounts,
    /// Performs the queued jobs: submission, relay, webhooks.
    Jobs,
    /// Serves the API and the pages.
    Http,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Mx, Self::Submission, Self::Accounts, Self::Jobs, Self::Http];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Submission => "submission",
            Self::Accounts => "accounts",
            Self::Jobs => "jobs",
            Self::Http => "http",
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A DNS domain in lower-case A-labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// A domain as it is compared: lower-case A-labels. `None` when the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        canonical_domain(text).filter(|domain| !domain.starts_with('[')).map(Self)
    }
}

impl DomainName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name server; port 53 unless another is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

/// How a connection to a provider is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet.
    Tls,
    /// STARTTLS, required.
    StartTls,
    /// In the clear; only towards addresses that `egress.allow` names.
    None,
}

/// Where a provider's server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

impl Endpoint {
    /// Reads `host:port` or `SECURITY://host:port`. Without a security the port tells it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (security, rest) = match text.split_once("://") {
            Some((name, rest)) => (Some(security(name)?), rest),
            None => (None, text),
        };
        let (host, port) = rest.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let known = bare.parse::<std::net::IpAddr>().is_ok() || canonical_domain(bare).is_some();
        let security = security.unwrap_or_else(|| usual_security(port));
        known.then(|| Self { host: bare.to_owned(), port, security })
    }
}

fn security(name: &str) -> Option<Security> {
    match name {
        "tls" => Some(Security::Tls),
        "starttls" => Some(Security::StartTls),
        "none" => Some(Security::None),
        _ => None,
    }
}

/// RFC 8314: 993 and 465 speak TLS from the start; 143, 25 and 587 upgrade. Elsewhere the safer is meant.
fn usual_security(port: u16) -> Security {
    if matches!(port, 143 | 25 | 587) { Security::StartTls } else { Security::Tls }
}

/// Reads `"90s"`, `"5m"`, `"48h"`, `"30d"`, also joined: `"1h30m"`. `None` for anything else, bare numbers included.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let milliseconds = number.parse::<u64>().ok()?.checked_mul(milliseconds_of(unit)?)?;
        total = total.checked_add(Duration::from_millis(milliseconds))?;
        rest = after;
    }
    (!text.trim().is_empty()).then_some(total)
}

fn milliseconds_of(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1_u64 << shift)
}

macro_rules! from_string {
    ($type:ty, $wanted:literal, $parse:expr) => {
        impl Setting for $type {
            fn wanted() -> String {
                $wanted.to_owned()
            }
            fn from_value(value: &Value) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(value.as_str()?)
            }
        }
    };
}

from_string!(String, "a text", |text| Some(text.to_owned()));
from_string!(SecretString, "a text", |text| Some(text.to_owned().into()));
from_string!(PathBuf, "a file path", |text| (!text.is_empty()).then(|| text.into()));
from_string!(Duration, "a duration such as \"90s\", \"5m\", \"48h\" or \"30d\"", parse_duration);
from_string!(SocketAddr, "an IP address with a port, such as \"0.0.0.0:25\" or \"[::]:25\"", |text| text
    .parse()
    .ok());
from_string!(IpNet, "an address range such as \"10.0.0.0/8\" or \"fd00::/8\"", parse_range);
from_string!(Url, "an http or https URL", |text| Url::parse(text)
    .ok()
    .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https")));
from_string!(DomainName, "a domain such as \"bcc.example.com\"", |text| canonical_domain(text)
    .filter(|domain| !domain.starts_with('['))
    .map(DomainName));
from_string!(NameServer, "an IP address, with a port unless it is 53", |text| {
    let alone = || text.parse().ok().map(|ip| SocketAddr::new(ip, 53));
    text.parse().ok().or_else(alone).map(NameServer)
});
from_string!(
    Endpoint,
    "a server: \"imap.example.com:993\" or \"starttls://imap.example.com:143\"",
    Endpoint::parse
);
from_string!(Role, "one of mx, submission, accounts, jobs, http", |text| Role::ALL
    .into_iter()
    .find(|role| role.name() == text));
from_string!(LogFormat, "text or json", |text| match text {
    "text" => Some(LogFormat::Text),
    "json" => Some(LogFormat::Json),
    _ => None,
});
from_string!(LogLevel, "one of error, warn, info, debug, trace", |text| {
    [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
        .into_iter()
        .find(|level| level.name() == text)
});

/// A range, or one address as the range of itself alone.
fn parse_range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

impl Setting for Bytes {
    fn wanted() -> String {
        "a size: octets, or a text such as \"36MiB\"".to_owned()
    }
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(octets) => u64::try_from(*octets).ok(),
            Value::String(text) => parse_bytes(text),
            _ => None,
        }
        .map(Self)
    }
}

impl Setting for u32 {
    fn wanted() -> String {
        "a whole number, not negative".to_owned()
    }
    fn from_value(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| Self::try_from(number).ok())
    }
}

/// The empty text means "not set", so that an environment variable can take a value away.
impl<T: Setting> Setting for Option<T> {
    fn wanted() -> String {
        T::wanted()
    }
    fn from_value(value: &Value) -> Option<Self> {
        if value.as_str().is_some_and(str::is_empty) { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// One element may stand for a list of one; in an environment variable commas divide.
impl<T: Setting> Setting for Vec<T> {
    fn wanted() -> String {
        format!("a list of which each is {}", T::wanted())
    }
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Array(items) => items.iter().map(T::from_value).collect(),
            Value::String(text) if text.is_empty() => Some(Self::new()),
            one => T::from_value(one).map(|item| vec![item]),
        }
    }
    fn from_text(text: &str) -> Option<Self> {
        if text.trim_start().starts_with('[')
            && let Some(list) = format!("value = {text}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|table| Self::from_value(table.get("value")?))
        {
            return Some(list);
        }
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Setting + fmt::Debug + PartialEq>(text: &str, expect: Option<T>) {
        assert_eq!(T::from_text(text), expect, "{text}");
    }

    #[test]
    fn a_duration_has_a_unit() {
        for (text, seconds) in
            [("90s", 90), ("5m", 300), ("48h", 172_800), ("30d", 2_592_000), ("1h30m", 5_400), ("0s", 0)]
        {
            check(text, Some(Duration::from_secs(seconds)));
        }
        check("250ms", Some(Duration::from_millis(250)));
        for text in
            ["", "5", "m", "5 m", "5w", "-5s", "1.5h", "99999999999999999999s", "18446744073709551615d"]
        {
            check::<Duration>(text, None);
        }
    }

    #[test]
    fn a_size_is_octets_or_has_a_binary_unit() {
        for (text, octets) in
            [("0", 0), ("1024", 1024), ("36MiB", 36 << 20), ("1 GiB", 1 << 30), ("\"64KiB\"", 65_536)]
        {
            check(text, Some(Bytes(octets)));
        }
        for text in ["", "36MB", "-1", "1.5MiB", "99999999999TiB", "MiB"] {
            check::<Bytes>(text, None);
        }
    }

    #[test]
    fn a_list_in_the_environment_is_divided_by_commas() {
        let both: Vec<SocketAddr> = vec!["0.0.0.0:25".parse().unwrap(), "[::]:25".parse().unwrap()];
        check("0.0.0.0:25, [::]:25", Some(both.clone()));
        check("[::]:25", Some(vec![both[1]]));
        check("[\"0.0.0.0:25\", \"[::]:25\"]", Some(both));
        check("", Some(Vec::<SocketAddr>::new()));
        check::<Vec<SocketAddr>>("0.0.0.0:25,25", None);
    }

    #[test]
    fn a_text_that_looks_like_a_number_stays_a_text() {
        check("17", Some("17".to_owned()));
        check("\"quoted\"", Some("quoted".to_owned()));
        check("https://a.example/?x=1#y", Some("https://a.example/?x=1#y".to_owned()));
    }

    #[test]
    fn a_server_says_how_it_is_protected_or_its_port_does() {
        let server = |host: &str, port, security| Some(Endpoint { host: host.to_owned(), port, security });
        check("imap.example.com:993", server("imap.example.com", 993, Security::Tls));
        check("imap.example.com:143", server("imap.example.com", 143, Security::StartTls));
        check("none://127.0.0.1:10143", server("127.0.0.1", 10_143, Security::None));
        check("tls://[::1]:993", server("::1", 993, Security::Tls));
        for text in
            ["imap.example.com", "imap.example.com:0", "ssl://h.example:1", "a b:1", "{ host = \"h\" }"]
        {
            check::<Endpoint>(text, None);
        }
    }

    #[test]
    fn an_address_alone_is_a_range_of_one_and_a_name_server_has_port_53() {
        check("127.0.0.1", Some("127.0.0.1/32".parse::<IpNet>().unwrap()));
        check("9.9.9.9", Some(NameServer("9.9.9.9:53".parse().unwrap())));
        check("127.0.0.1:5353", Some(NameServer("127.0.0.1:5353".parse().unwrap())));
        check::<NameServer>("dns.example.com", None);
    }
}
