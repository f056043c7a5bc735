//! Whether mail to the capture and reply domains would find this gateway.
//!
//! Not here: resolving for connections (`net::Resolver`), which needs no MX records. Nothing here is an error: names are
//! often set up last, and seen from inside they may look different.

use std::{net::SocketAddr, time::Duration};

use super::{Findings, chain};
use crate::{
    config::Config,
    net::{Resolver, ResolverError},
};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let domains = [("domains.capture", &config.domains.capture), ("domains.reply", &config.domains.reply)];
    if domains.iter().all(|(_, domain)| domain.is_none()) {
        return;
    }
    let servers: Vec<SocketAddr> = config.dns.servers.iter().map(|server| server.0).collect();
    let resolver = match Resolver::new(&servers) {
        Ok(resolver) => resolver,
        Err(error) => return findings.error("dns.servers", chain(&error)),
    };
    for (option, domain) in domains {
        let Some(domain) = domain else { continue };
        match tokio::time::timeout(TIMEOUT, resolver.mail_exchangers(domain.as_str())).await {
            Ok(Ok(hosts)) => arrives(&resolver, option, (domain.as_str(), hosts), findings).await,
            Ok(Err(error)) => {
                findings.warning(option, format!("MX of {domain}: {error}", domain = domain.as_str()))
            }
            Err(_) => findings.warning(option, format!("MX of {} is not answered", domain.as_str())),
        }
    }
}

async fn arrives(
    resolver: &Resolver,
    option: &str,
    (domain, hosts): (&str, Vec<String>),
    findings: &mut Findings,
) {
    // RFC 5321 section 5.1: without an MX record the domain's own address is tried.
    let bare = hosts.is_empty();
    let hosts = if bare { vec![domain.to_owned()] } else { hosts };
    for host in hosts {
        let found = tokio::time::timeout(TIMEOUT, resolver.addresses(&host)).await;
        match found {
            Ok(Ok(addresses)) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let via = if bare {
                    "has no MX record, so its own address counts".to_owned()
                } else {
                    format!("MX {host}")
                };
                findings.ok(option, format!("{domain}: {via} ({})", addresses.join(", ")));
            }
            Ok(Err(ResolverError::NoAddress)) if bare => {
                let says = format!(
                    "{domain} has neither an MX record nor an address: add an MX record that names this gateway's host"
                );
                findings.warning(option, says);
            }
            Ok(Err(ResolverError::NoAddress)) => findings
                .warning(option, format!("{domain}: MX {host} has no address: add an A or AAAA record")),
            Ok(Err(error)) => findings.warning(option, format!("{domain}: {host}: {}", chain(&error))),
            Err(_) => findings.warning(option, format!("{domain}: {host} is not answered")),
        }
    }
}
