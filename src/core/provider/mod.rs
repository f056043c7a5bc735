//! What is known of the world's mail providers: `config/providers/*.toml`, part of the program.
//!
//! A provider is chosen by name, by the domain of an address, by the domain's mail exchangers, by a host, or by what its IMAP
//! server greets with; whatever is left is `imap`. Not here: any provider by name in code, and asking the network
//! (`account`).

use std::sync::LazyLock;

use serde::Deserialize;

mod answer;
mod pace;
mod size;
mod traffic;

pub use answer::{Answer, Meaning, When};
pub use pace::{Left, SENT_KEPT, Sent, Standing, left};
pub use size::TooLarge;
pub use traffic::{Octets, Traffic};

use super::{account::Endpoint, limits::SentUnit, policy::span::Span};

/// The provider of every server that nothing more is known of.
pub const ANY: &str = "imap";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../config/providers/", $name, ".toml")))),*]
    };
}

const FILES: [(&str, &str); 10] = files![
    "google",
    "microsoft",
    "yahoo",
    "icloud",
    "fastmail",
    "zoho",
    "exchange",
    "dovecot",
    "cyrus",
    "imap"
];

/// How a user can log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    OAuth2,
    /// An app password, where the provider knows them.
    Password,
}

/// The SASL mechanism that takes an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenMechanism {
    /// Google's draft, which all large providers speak.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

/// Where users sign in, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// What `iss` must say (RFC 9207); `{tenantid}` stands for any one segment.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Whether it promises to say `iss` to every user who comes back.
    #[serde(default)]
    pub says_issuer: bool,
    pub authorize_url: String,
    pub token_url: String,
    #[serde(default)]
    pub revoke_url: Option<String>,
    pub scopes: Vec<String>,
    /// Those of the scopes without which there is nothing to connect.
    #[serde(default)]
    pub needed: Vec<String>,
    pub mechanism: TokenMechanism,
    /// More that the authorization request says.
    #[serde(default)]
    pub parameters: std::collections::BTreeMap<String, String>,
}

/// How much of what may be sent in which window.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Of accounts at these domains; empty is those that no other budget names.
    #[serde(default)]
    pub domains: Vec<String>,
    pub unit: SentUnit,
    pub most: u32,
    pub window: Span,
}

/// Names of special mailboxes (RFC 6154), each with what stands above it; the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mailboxes {
    pub sent: Vec<String>,
    pub drafts: Vec<String>,
    pub all: Vec<String>,
    pub archive: Vec<String>,
    pub junk: Vec<String>,
    pub trash: Vec<String>,
}

/// A provider, and how it differs from the standards.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    #[serde(skip)]
    pub name: &'static str,
    /// What users call it.
    pub title: String,
    /// Domains of its own addresses.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Domains with a mail exchanger below one of these are its customers'.
    #[serde(default)]
    pub mx: Vec<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What its IMAP server's greeting has in it.
    #[serde(default)]
    pub greetings: Vec<String>,
    /// What users should know before they sign in there, and first look at when it does not work.
    #[serde(default)]
    pub notice: Option<String>,
    pub logins: Vec<Login>,
    #[serde(default)]
    pub imap: Option<Endpoint>,
    #[serde(default)]
    pub smtp: Option<Endpoint>,
    /// What its servers call special mailboxes, where they do not flag them.
    #[serde(default)]
    pub mailboxes: Mailboxes,
    #[serde(default)]
    pub oauth: Option<Authorization>,
    /// IMAP sessions of one account at a time, all programs of its user together.
    #[serde(default)]
    pub connections: Option<u32>,
    /// SMTP sessions of one account at a time.
    #[serde(default)]
    pub submissions: Option<u32>,
    #[serde(default)]
    pub recipients_per_message: Option<u32>,
    /// Octets of a message as it travels.
    #[serde(default)]
    pub message_bytes: Option<u64>,
    /// Octets of a message's files together, as they travel.
    #[serde(default)]
    pub attachment_bytes: Option<u64>,
    /// Whether submission files the copy in Sent; `None` where that differs from account to account.
    #[serde(default)]
    pub sent_is_filed: Option<bool>,
    /// Whether what is handed in leaves with another Message-ID.
    pub rewrites_message_id: bool,
    #[serde(default)]
    pub budgets: Vec<Budget>,
    /// What may go over IMAP.
    #[serde(default)]
    pub traffic: Option<Traffic>,
    /// What its servers say, and mean.
    #[serde(default)]
    answers: Vec<Answer>,
}

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(|| {
    let read = |(name, text)| {
        let provider: Provider = toml::from_str(text).expect("providers are part of the program, and tested");
        Provider { name, ..provider }
    };
    FILES.into_iter().map(read).collect()
});

impl Provider {
    /// Every provider; the last is [`ANY`].
    #[must_use]
    pub fn all() -> &'static [Self] {
        &PROVIDERS
    }

    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.name == name)
    }

    /// The provider that any server is.
    #[must_use]
    pub fn any() -> &'static Self {
        Self::named(ANY).expect("it is one of the files")
    }

    /// That of an address at a domain of the provider's own.
    #[must_use]
    pub fn of_domain(domain: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| names(&provider.domains, domain))
    }

    /// That of a domain whose mail goes to this host.
    #[must_use]
    pub fn of_mail_exchanger(host: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.mx.iter().any(|suffix| is_below(host, suffix)))
    }

    /// That of an account by its server's host. What a host does is known by the host, whatever the account was called when
    /// it was connected.
    #[must_use]
    pub fn of_host(host: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| names(&provider.hosts, host))
    }

    /// That of a server that greets so, or says so of itself (RFC 2971).
    #[must_use]
    pub fn of_greeting(greeting: &str) -> Option<&'static Self> {
        let has = |part: &String| greeting.contains(part.as_str());
        PROVIDERS.iter().find(|provider| provider.greetings.iter().any(has))
    }

    /// IMAP sessions of one account at a time that may be ours: half of them, for its user's own programs want some too.
    #[must_use]
    pub fn connections_of_ours(&self) -> Option<u32> {
        self.connections.map(|all| (all / 2).max(1))
    }

    #[must_use]
    pub fn takes(&self, login: Login) -> bool {
        self.logins.contains(&login)
    }

    /// The budgets of an account with an address at this domain.
    pub fn budgets_of(&self, domain: &str) -> impl Iterator<Item = &Budget> {
        let has_own = self.budgets.iter().any(|budget| names(&budget.domains, domain));
        self.budgets.iter().filter(move |budget| match has_own {
            true => names(&budget.domains, domain),
            false => budget.domains.is_empty(),
        })
    }

    /// What an answer of its servers means; what is known at every provider counts where it says nothing of its own.
    #[must_use]
    pub fn meaning(&self, text: &str, when: When) -> Option<Meaning> {
        let text = text.to_lowercase();
        let own = answer::meaning(&self.answers, &text, when);
        own.or_else(|| answer::meaning(&Self::any().answers, &text, when))
    }
}

/// What an answer means, whoever's server gave it: many answer through what they run for others, and no provider's words mean
/// another thing at another.
#[must_use]
pub fn meaning(text: &str, when: When) -> Option<Meaning> {
    let text = text.to_lowercase();
    PROVIDERS.iter().find_map(|provider| answer::meaning(&provider.answers, &text, when))
}

impl Authorization {
    /// Whether a user who comes back with this `iss` comes from here. Where it is promised, silence is another's (RFC 9207
    /// section 2.4).
    #[must_use]
    pub fn is_answered_by(&self, issuer: Option<&str>) -> bool {
        issuer.map_or(!self.says_issuer, |issuer| self.is_issued_by(issuer))
    }

    /// Whether an issuer is this one (RFC 9207 section 2.4: compared as it stands, but for the tenant).
    #[must_use]
    pub fn is_issued_by(&self, issuer: &str) -> bool {
        let Some(expected) = &self.issuer else { return true };
        let Some((before, after)) = expected.split_once("{tenantid}") else { return expected == issuer };
        let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        tenant.is_some_and(|tenant| !tenant.is_empty() && !tenant.contains('/'))
    }

    /// Those of the scopes that are needed and were not granted. A provider that names none has granted what was asked for
    /// (RFC 6749 section 5.1).
    #[must_use]
    pub fn refused<'a>(&'a self, granted: &[String]) -> Vec<&'a str> {
        let has = |scope: &&String| granted.iter().any(|granted| granted.eq_ignore_ascii_case(scope));
        if granted.is_empty() {
            return Vec::new();
        }
        self.needed.iter().filter(|scope| !has(scope)).map(String::as_str).collect()
    }
}

fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|one| one.eq_ignore_ascii_case(name.trim_end_matches('.')))
}

fn is_below(host: &str, suffix: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_file_is_read_and_says_how_to_log_in() {
        for provider in Provider::all() {
            assert!(!provider.logins.is_empty(), "{}", provider.name);
            assert_eq!(provider.takes(Login::OAuth2), provider.oauth.is_some(), "{}", provider.name);
            assert_eq!(Provider::named(provider.name), Some(provider));
            let lower = |answer: &Answer| answer.says == answer.says.to_lowercase();
            assert!(provider.answers.iter().all(lower), "{}", provider.name);
        }
    }

    #[test]
    fn keap_6_and_real_7_microsoft_is_asked_for_mail_and_who_it_is_and_for_no_calendar() {
        let microsoft = Provider::named("microsoft").unwrap().oauth.as_ref().unwrap();
        let of_office = |scope: &str| format!("https://outlook.office.com/{scope}");
        let expect = [&of_office("IMAP.AccessAsUser.All"), &of_office("SMTP.Send")];
        assert_eq!(microsoft.needed.iter().collect::<Vec<_>>(), expect);
        assert_eq!(microsoft.scopes[2..], ["offline_access", "openid", "email", "profile"]);
        assert_eq!(microsoft.scopes[..2], microsoft.needed);
    }

    #[test]
    fn keap_2_every_domain_of_microsofts_own_is_microsofts() {
        for domain in ["hotmail.com", "Live.com", "msn.com", "outlook.com", "passport.com"] {
            assert_eq!(Provider::of_domain(domain).map(|found| found.name), Some("microsoft"), "{domain}");
        }
    }

    #[test]
    fn keap_4_who_hosts_a_mailbox_is_said_before_the_sign_in_at_microsoft() {
        let notice = Provider::named("microsoft").unwrap().notice.as_deref().unwrap();
        assert!(
            notice.contains("mailboxes that Microsoft itself hosts") && notice.contains("program Outlook")
        );
    }

    #[test]
    fn a_provider_is_known_by_address_exchanger_host_and_greeting() {
        let name = |provider: Option<&Provider>| provider.map(|provider| provider.name);
        assert_eq!(name(Provider::of_domain("gmail.com")), Some("google"));
        assert_eq!(name(Provider::of_domain("example.com")), None);
        for (exchanger, provider) in [
            ("aspmx.l.google.com.", Some("google")),
            ("example-com.mail.protection.outlook.com", Some("microsoft")),
            ("mx1.mail.icloud.com", Some("icloud")),
            ("in1-smtp.messagingengine.com", Some("fastmail")),
            ("mx.zoho.com", Some("zoho")),
            ("notgoogle.com", None),
        ] {
            assert_eq!(name(Provider::of_mail_exchanger(exchanger)), provider, "{exchanger}");
        }
        assert_eq!(name(Provider::of_host("IMAP.gmail.com")), Some("google"));
        assert_eq!(name(Provider::of_host("mail.example.com")), None);
        let greeting = "The Microsoft Exchange IMAP4 service is ready.";
        assert_eq!(name(Provider::of_greeting(greeting)), Some("exchange"));
        for (greeting, provider) in [
            ("[CAPABILITY IMAP4rev1 SASL-IR] Dovecot (Debian) ready.", Some("dovecot")),
            ("mail.example.com Cyrus IMAP 3.6.1 server ready", Some("cyrus")),
            ("Microsoft.Exchange.Imap4.Imap4Server", Some("exchange")),
            ("Gimap ready for requests", None),
        ] {
            assert_eq!(name(Provider::of_greeting(greeting)), provider, "{greeting}");
        }
    }

    #[test]
    fn faq_15_a_private_account_at_google_has_another_budget_than_one_of_a_company() {
        let google = Provider::named("google").unwrap();
        let budgets = |domain| -> Vec<_> {
            google.budgets_of(domain).map(|budget| (budget.unit, budget.most)).collect()
        };
        assert_eq!(budgets("gmail.com"), [(SentUnit::Recipients, 500)]);
        assert_eq!(budgets("example.com"), [(SentUnit::Messages, 2000), (SentUnit::Recipients, 10_000)]);
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(google.budgets.iter().all(|budget| budget.window.duration() == day));
    }

    #[test]
    fn an_issuer_is_compared_as_it_stands_but_for_the_tenant() {
        let issued = |provider: &str, issuer: &str| {
            Provider::named(provider).unwrap().oauth.as_ref().unwrap().is_issued_by(issuer)
        };
        assert!(issued("google", "https://accounts.google.com"));
        assert!(!issued("google", "https://accounts.google.com/"));
        assert!(issued("microsoft", "https://login.microsoftonline.com/9188040d/v2.0"));
        for other in [
            "https://login.microsoftonline.com//v2.0",
            "https://login.microsoftonline.com/a/b/v2.0",
            "https://login.microsoftonline.com.evil.example/9188040d/v2.0",
            "https://accounts.google.com",
        ] {
            assert!(!issued("microsoft", other), "{other}");
        }
    }

    #[test]
    fn who_promises_to_say_his_name_and_does_not_is_another() {
        let mut own = Provider::named("google").unwrap().oauth.clone().unwrap();
        let (name, other) = (Some("https://accounts.google.com"), Some("https://evil.example"));
        assert_eq!([None, name, other].map(|issuer| own.is_answered_by(issuer)), [true, true, false]);
        own.says_issuer = true;
        assert_eq!([None, name, other].map(|issuer| own.is_answered_by(issuer)), [false, true, false]);
    }

    #[test]
    fn a_scope_that_was_unticked_is_missed() {
        let google = Provider::named("google").unwrap().oauth.as_ref().unwrap();
        let scopes = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(google.refused(&scopes(&["openid", "email"])), ["https://mail.google.com/"]);
        assert!(google.refused(&scopes(&["https://mail.google.com/", "openid"])).is_empty());
        assert!(google.refused(&[]).is_empty(), "what is not said is as it was asked for");
    }
}
