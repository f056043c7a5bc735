//! Hosts that callers name: whether a text is one, and whether it may be reached without TLS.
//!
//! Not here: resolving and connecting. Whoever dials looks at every address again; this is to say early what cannot work.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::BoxFuture;

use super::problem::Problem;
use crate::{
    core::account::Security,
    mail::canonical_domain,
    net::{self, Egress, Resolver},
};

/// Longest host name, in octets (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Tells whether every address of a host lies in the ranges that the operator allows beside the public Internet
/// (`[egress].allow`): only such hosts may be reached without TLS.
#[derive(Clone)]
pub struct HostRule(Arc<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>);

impl HostRule {
    pub fn new(rule: impl Fn(String) -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// Hosts all of whose addresses the operator allows by name.
    #[must_use]
    pub fn of(resolver: Resolver, egress: Egress) -> Self {
        Self::new(move |host| {
            let (resolver, egress) = (resolver.clone(), egress.clone());
            Box::pin(async move {
                let addresses = resolver.addresses(&host).await.unwrap_or_default();
                !addresses.is_empty() && addresses.iter().all(|address| egress.is_allowed_by_name(*address))
            })
        })
    }

    /// No host may be reached without TLS.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| Box::pin(std::future::ready(false)))
    }

    pub(super) async fn allows(&self, host: &str) -> bool {
        (self.0)(host.to_owned()).await
    }

    /// Refuses what cannot work: an address that is not public, or a server without TLS, unless the operator allows it.
    pub(super) async fn check(&self, param: &str, host: &str, security: Security) -> Result<(), Problem> {
        let is_private = host.parse::<IpAddr>().is_ok_and(|address| !net::is_public(address));
        if (security != Security::None && !is_private) || self.allows(host).await {
            return Ok(());
        }
        if is_private {
            let advice = "Use a public address, or have the operator add this one to [egress].allow.";
            return Err(Problem::invalid(format!("{param}.host"), "The gateway may not connect to it.")
                .advice(advice));
        }
        let detail = "Without TLS only hosts that the operator allows may be reached.";
        let advice =
            "Use \"tls\" or \"starttls\", or have the operator add the host's address to [egress].allow.";
        Err(Problem::invalid(format!("{param}.security"), detail).advice(advice))
    }
}

/// A host name or address, in the form it is compared by.
pub(super) fn host(param: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim().trim_end_matches('.');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = canonical_domain(text).filter(|name| !name.starts_with('[') && name.len() <= HOST_BYTES_MAX);
    name.ok_or_else(|| {
        Problem::invalid(param, "It is neither a host name nor an IP address.")
            .advice("Give the host alone, without scheme, port or path: imap.example.com.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        assert_eq!(host("imap.host", text).ok().as_deref(), want, "{text}");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        check("IMAP.Example.com.", Some("imap.example.com"));
        check("127.0.0.1", Some("127.0.0.1"));
        check("[::1]", Some("::1"));
        check("::1", Some("::1"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        check("https://imap.example.com", None);
        check("imap.example.com:993", None);
        check("user:pw@imap.example.com", None);
        check("imap.example.com/x", None);
        check("a b", None);
        check("a\r\nb", None);
        check("", None);
    }

    #[tokio::test]
    async fn clear_text_needs_the_operators_word() {
        let rule = HostRule::new(|host| Box::pin(std::future::ready(host == "127.0.0.1")));
        assert!(rule.check("imap", "127.0.0.1", Security::None).await.is_ok());
        assert!(rule.check("imap", "imap.example.com", Security::Tls).await.is_ok());
        let refused = rule.check("imap", "imap.example.com", Security::None).await.unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("imap.security"));
        let private = rule.check("imap", "169.254.169.254", Security::Tls).await.unwrap_err();
        assert_eq!(private.param.as_deref(), Some("imap.host"));
        assert!(rule.check("imap", "127.0.0.1", Security::Tls).await.is_ok());
        assert!(!HostRule::none().allows("127.0.0.1").await);
        let operator = HostRule::of(Resolver::System, Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
        assert!(operator.allows("127.0.0.1").await);
        assert!(!operator.allows("192.0.2.1").await);
        assert!(!operator.allows("no such host").await);
    }
}
