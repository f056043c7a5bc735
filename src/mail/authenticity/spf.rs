//! Whether a domain lets a client send mail in its name: check_host of RFC 7208 section 4.
//!
//! It starts anew each time with the answers there are, and stops at the first that is missing: no state lies between. Not here:
//! the syntax of records (`spf_record`) and explanations, which nobody is shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    answers::{Answer, Answers, RecordKind},
    spf_macro::{self, Values, dotted},
    spf_record::{Mechanism, Prefixes, Qualifier, SpfRecord, is_spf},
};

/// Terms that cause lookups (section 4.6.4).
const TERMS_MAX: u32 = 10;
/// Lookups that find nothing.
const VOIDS_MAX: u32 = 2;
/// Hosts of one `mx` or `ptr`.
const HOSTS_MAX: usize = 10;

/// The seven results of section 2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpfResult {
    None,
    Neutral,
    Pass,
    Fail,
    SoftFail,
    TempError,
    PermError,
}

impl SpfResult {
    /// As RFC 8601 writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What a session said.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    pub address: IpAddr,
    pub hello: &'a str,
    /// MAIL FROM as `local@domain`, empty where it is null.
    pub mail_from: &'a str,
}

impl<'a> Client<'a> {
    /// Local part and domain that are asked about: of MAIL FROM, or postmaster at the HELO name.
    #[must_use]
    pub fn identity(&self) -> (&'a str, &'a str) {
        match self.mail_from.rsplit_once('@') {
            Some(("", domain)) => ("postmaster", domain),
            Some(identity) => identity,
            None if self.mail_from.is_empty() => ("postmaster", self.hello),
            None => ("postmaster", self.mail_from),
        }
    }
}

/// The result for a client; `None` until DNS has said more.
#[must_use]
pub fn spf(answers: &mut Answers, client: &Client<'_>) -> Option<SpfResult> {
    let (_, domain) = client.identity();
    let mut check =
        Check { answers, client: *client, address: client.address.to_canonical(), terms: 0, voids: 0 };
    match check.host(domain.trim_end_matches('.')) {
        Ok(result) | Err(Stop::End(result)) => Some(result),
        Err(Stop::Waiting) => None,
    }
}

/// Whether a domain that lets this client send in its name lets everybody: by `all`, by networks that hold the whole world, or by
/// what it includes. Asked is for an address that is nobody's (RFC 1112 section 4, RFC 6666). `None` until DNS has said more.
#[must_use]
pub fn lets_anybody_send(answers: &mut Answers, client: &Client<'_>) -> Option<bool> {
    let nobodys: IpAddr = match client.address.to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::new(240, 0, 0, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into(),
    };
    spf(answers, &Client { address: nobodys, ..*client }).map(|result| result == SpfResult::Pass)
}

/// Whether a domain publishes by which servers its mail is sent, whatever the record says; `Some(None)` when DNS keeps it back,
/// `None` until DNS has said more. What was not asked counts as published: nothing is excused by it.
#[must_use]
pub fn publishes_spf(domain: &str, answers: &mut Answers) -> Option<Option<bool>> {
    Some(match answers.ask(domain, RecordKind::Txt)? {
        Answer::Silent => None,
        Answer::Refused => Some(true),
        answer => Some(answer.texts().any(is_spf)),
    })
}

/// Why evaluation goes no further.
enum Stop {
    Waiting,
    End(SpfResult),
}

struct Check<'a> {
    answers: &'a mut Answers,
    client: Client<'a>,
    address: IpAddr,
    terms: u32,
    voids: u32,
}

const PERM_ERROR: Stop = Stop::End(SpfResult::PermError);

impl Check<'_> {
    fn host(&mut self, domain: &str) -> Result<SpfResult, Stop> {
        if !is_name(domain) || !domain.contains('.') {
            return Ok(SpfResult::None);
        }
        let answer = self.ask(domain, RecordKind::Txt)?;
        let mut records = answer.texts().filter(|text| is_spf(text));
        let Some(text) = records.next() else { return Ok(SpfResult::None) };
        if records.next().is_some() {
            return Err(PERM_ERROR);
        }
        let record = SpfRecord::parse(text).ok_or(PERM_ERROR)?;
        for (qualifier, mechanism) in &record.directives {
            if self.matches(mechanism, domain)? {
                return Ok(match qualifier {
                    Qualifier::Pass => SpfResult::Pass,
                    Qualifier::Fail => SpfResult::Fail,
                    Qualifier::SoftFail => SpfResult::SoftFail,
                    Qualifier::Neutral => SpfResult::Neutral,
                });
            }
        }
        let Some(redirect) = &record.redirect else { return Ok(SpfResult::Neutral) };
        self.count_term()?;
        let target = self.expand(redirect, domain)?;
        match self.host(&target)? {
            SpfResult::None => Err(PERM_ERROR),
            result => Ok(result),
        }
    }

    fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, bits) => {
                Ok(is_within(self.address, IpAddr::V4(*network), (*bits, *bits)))
            }
            Mechanism::Ip6(network, bits) => {
                Ok(is_within(self.address, IpAddr::V6(*network), (*bits, *bits)))
            }
            Mechanism::Include(target) => self.include(target, domain),
            Mechanism::A(target, prefixes) => {
                let name = self.target(target.as_deref(), domain)?;
                let found = self.addresses(&name)?;
                Ok(self.is_any(&found, *prefixes))
            }
            Mechanism::Mx(target, prefixes) => self.mx(target.as_deref(), domain, *prefixes),
            Mechanism::Ptr(target) => {
                let name = self.target(target.as_deref(), domain)?;
                let names = self.names()?;
                Ok(names.iter().any(|found| is_same_or_below(found, &name)))
            }
            Mechanism::Exists(target) => {
                let name = self.target(Some(target), domain)?;
                let answer = self.ask_counting(&name, RecordKind::A)?;
                Ok(answer.addresses().next().is_some())
            }
        }
    }

    fn include(&mut self, target: &str, domain: &str) -> Result<bool, Stop> {
        let name = self.target(Some(target), domain)?;
        match self.host(&name)? {
            SpfResult::Pass => Ok(true),
            SpfResult::None => Err(PERM_ERROR),
            _ => Ok(false),
        }
    }

    fn mx(&mut self, target: Option<&str>, domain: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let name = self.target(target, domain)?;
        let answer = self.ask_counting(&name, RecordKind::Mx)?;
        let hosts: Vec<&str> = answer.hosts().collect();
        if hosts.len() > HOSTS_MAX {
            return Err(PERM_ERROR);
        }
        for host in hosts {
            let answer = self.ask_for_address(host)?;
            let found: Vec<IpAddr> = answer.addresses().collect();
            if self.is_any(&found, prefixes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The name a term is about, counted as one that causes lookups.
    fn target(&mut self, spec: Option<&str>, domain: &str) -> Result<String, Stop> {
        self.count_term()?;
        match spec {
            Some(spec) => self.expand(spec, domain),
            None => Ok(domain.to_owned()),
        }
    }

    fn count_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > TERMS_MAX { Err(PERM_ERROR) } else { Ok(()) }
    }

    fn expand(&mut self, spec: &str, domain: &str) -> Result<String, Stop> {
        let mut name = "unknown".to_owned();
        if spf_macro::needs_name(spec) {
            let names = self.names()?;
            let best = names.iter().find(|found| found.eq_ignore_ascii_case(domain));
            let best = best.or_else(|| names.iter().find(|found| is_same_or_below(found, domain)));
            name = best.or(names.first()).cloned().unwrap_or(name);
        }
        let values = Values {
            sender: self.client.identity(),
            domain,
            client: self.address,
            hello: self.client.hello,
            name: &name,
        };
        Ok(spf_macro::expand(spec, &values))
    }

    /// The names of the client that lead back to its address. Failures leave names out, and are no error (section 5.5).
    fn names(&mut self) -> Result<Vec<String>, Stop> {
        let mut labels: Vec<String> = dotted(self.address).split('.').map(str::to_owned).collect();
        labels.reverse();
        let tree = if self.address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" };
        let name = format!("{}.{tree}", labels.join("."));
        let answer = self.answers.ask(&name, RecordKind::Ptr).ok_or(Stop::Waiting)?;
        let mut names = Vec::new();
        for host in answer.hosts().take(HOSTS_MAX).filter(|host| is_name(host)) {
            let found = self.answers.ask(host, self.address_kind()).ok_or(Stop::Waiting)?;
            if found.addresses().any(|address| address == self.address) {
                names.push(host.to_owned());
            }
        }
        Ok(names)
    }

    fn addresses(&mut self, name: &str) -> Result<Vec<IpAddr>, Stop> {
        Ok(self.ask_counting(name, self.address_kind())?.addresses().collect())
    }

    fn ask_for_address(&mut self, name: &str) -> Result<Answer, Stop> {
        if is_name(name) { self.ask(name, self.address_kind()) } else { Ok(Answer::Void) }
    }

    /// Asks, and counts answers that hold nothing.
    fn ask_counting(&mut self, name: &str, kind: RecordKind) -> Result<Answer, Stop> {
        if !is_name(name) {
            return Ok(Answer::Void);
        }
        let answer = self.ask(name, kind)?;
        if answer == Answer::Void {
            self.voids += 1;
            if self.voids > VOIDS_MAX {
                return Err(PERM_ERROR);
            }
        }
        Ok(answer)
    }

    fn ask(&mut self, name: &str, kind: RecordKind) -> Result<Answer, Stop> {
        match self.answers.ask(name, kind).ok_or(Stop::Waiting)? {
            Answer::Silent => Err(Stop::End(SpfResult::TempError)),
            Answer::Refused => Err(PERM_ERROR),
            answer => Ok(answer),
        }
    }

    fn address_kind(&self) -> RecordKind {
        if self.address.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa }
    }

    fn is_any(&self, found: &[IpAddr], prefixes: Prefixes) -> bool {
        found.iter().any(|network| is_within(self.address, *network, prefixes))
    }
}

fn is_within(address: IpAddr, network: IpAddr, (four, six): Prefixes) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(four)).unwrap_or(0) != 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(six)).unwrap_or(0) != 0
        }
        _ => true,
    };
    !differ
}

fn is_same_or_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    name == domain || name.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether it can be looked up: labels of 1 to 63 octets, whatever they are made of.
fn is_name(name: &str) -> bool {
    let fits = |label: &str| !label.is_empty() && label.len() <= 63 && label.is_ascii();
    !name.starts_with('[') && name.len() <= 253 && name.split('.').all(fits)
}
