//! Host names to addresses, and domains to the hosts of their mail: the configured DNS servers, or the system's resolver when none
//! is configured.
//!
//! Not here: whether an address may be dialled (`egress`), and what follows from a record.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{Name, RData, RecordType},
};

/// Addresses of one name that are looked at; more is a name that wants to keep us busy.
const ADDRESSES_MAX: usize = 16;

/// Records of one name that are looked at. Texts are told apart by what they say, and servers turn their order about: of these all
/// that fit into an answer are.
const RECORDS_MAX: usize = 32;

/// A server that a domain names for a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHost {
    pub host: String,
    pub port: u16,
}

/// Where names are looked up.
#[derive(Clone)]
pub enum Resolver {
    /// The operating system, with its hosts file and whatever else it consults.
    System,
    /// These servers and nothing else.
    Servers(Box<TokioResolver>),
}

/// A name that gave no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The name or its addresses do not exist.
    #[error("the host name has no address")]
    NoAddress,
    /// Nobody could say.
    #[error("the host name could not be looked up")]
    Lookup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration of the resolver itself.
    #[error("the DNS servers cannot be used")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Resolver {
    /// `servers` is `[dns].servers`; empty means the system's resolver.
    ///
    /// # Errors
    /// [`ResolverError::Setup`] when the resolver cannot be built.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolverError> {
        if servers.is_empty() {
            return Ok(Self::System);
        }
        let config = ResolverConfig::from_name_servers(servers.iter().map(name_server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build().map_err(|error| ResolverError::Setup(error.into()))?;
        Ok(Self::Servers(Box::new(resolver)))
    }

    /// The addresses of a host name, or the address itself when it is a literal (IPv6 also in brackets).
    ///
    /// # Errors
    /// [`ResolverError::NoAddress`] and [`ResolverError::Lookup`].
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolverError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let mut addresses = match self {
            Self::System => system(host).await?,
            Self::Servers(resolver) => servers(resolver, host).await?,
        };
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() { Err(ResolverError::NoAddress) } else { Ok(addresses) }
    }
}

impl Resolver {
    /// The hosts that a domain's mail goes to (MX), most preferred first; none when it has no such record.
    ///
    /// # Errors
    /// [`ResolverError::Lookup`] and [`ResolverError::Setup`].
    pub async fn mail_exchangers(&self, domain: &str) -> Result<Vec<String>, ResolverError> {
        let read = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, host_of(&mx.exchange))),
            _ => None,
        };
        let mut hosts: Vec<(u16, String)> = self.records(domain, RecordType::MX, read).await?;
        hosts.sort();
        Ok(hosts.into_iter().map(|(_, host)| host).collect())
    }

    /// The servers that a domain names for a service, as `_imaps._tcp`, most preferred first. One that it says it does not
    /// offer has the host of an empty name.
    ///
    /// # Errors
    /// [`ResolverError::Lookup`] and [`ResolverError::Setup`].
    pub async fn services(&self, service: &str, domain: &str) -> Result<Vec<ServiceHost>, ResolverError> {
        let read = |data: &RData| match data {
            RData::SRV(srv) => {
                Some((srv.priority, ServiceHost { host: host_of(&srv.target), port: srv.port }))
            }
            _ => None,
        };
        let mut hosts = self.records(&format!("{service}.{domain}"), RecordType::SRV, read).await?;
        hosts.sort_by_key(|(priority, _)| *priority);
        Ok(hosts.into_iter().map(|(_, host)| host).collect())
    }

    /// The texts that a name publishes (TXT), the strings of each joined.
    ///
    /// # Errors
    /// [`ResolverError::Lookup`] and [`ResolverError::Setup`].
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, ResolverError> {
        let read = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        self.records(name, RecordType::TXT, read).await
    }

    /// The IPv6 or else the IPv4 addresses that a name publishes, without any hosts file.
    ///
    /// # Errors
    /// [`ResolverError::Lookup`] and [`ResolverError::Setup`].
    pub async fn addresses_of_family(&self, name: &str, is_ipv6: bool) -> Result<Vec<IpAddr>, ResolverError> {
        let read = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        self.records(name, if is_ipv6 { RecordType::AAAA } else { RecordType::A }, read).await
    }

    /// The hosts that a name of the reverse tree points to (PTR).
    ///
    /// # Errors
    /// [`ResolverError::Lookup`] and [`ResolverError::Setup`].
    pub async fn pointers(&self, name: &str) -> Result<Vec<String>, ResolverError> {
        let read = |data: &RData| match data {
            RData::PTR(host) => Some(host_of(host)),
            _ => None,
        };
        self.records(name, RecordType::PTR, read).await
    }

    /// The same servers, asked by one resolver that remembers answers while they are good: the operating system's are read from
    /// its configuration now. Where that cannot be read it stays as it is.
    #[must_use]
    pub fn remembering(self) -> Self {
        match self {
            Self::System => match TokioResolver::builder_tokio().and_then(ResolverBuilder::build) {
                Ok(resolver) => Self::Servers(Box::new(resolver)),
                Err(_) => Self::System,
            },
            servers @ Self::Servers(_) => servers,
        }
    }

    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, ResolverError> {
        let resolver = match self {
            Self::Servers(resolver) => TokioResolver::clone(resolver),
            // The operating system has no call for these: its servers are asked.
            Self::System => {
                let built = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
                built.map_err(|error| ResolverError::Setup(error.into()))?
            }
        };
        let name = format!("{}.", name.trim_end_matches('.'));
        match resolver.lookup(name, kind).await {
            Ok(found) => {
                let records = found.answers().iter().filter_map(|record| read(&record.data));
                let most = if kind == RecordType::TXT { usize::MAX } else { RECORDS_MAX };
                Ok(records.take(most).collect())
            }
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(ResolverError::Lookup(error.into())),
        }
    }
}

fn host_of(name: &Name) -> String {
    name.to_utf8().trim_end_matches('.').to_ascii_lowercase()
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

async fn system(host: &str) -> Result<Vec<IpAddr>, ResolverError> {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ResolverError::NoAddress,
        _ => ResolverError::Lookup(error.into()),
    })?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn servers(resolver: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, ResolverError> {
    // A trailing dot keeps search domains out of it.
    let name = format!("{}.", host.trim_end_matches('.'));
    match resolver.lookup_ip(name).await {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) if error.is_no_records_found() => Err(ResolverError::NoAddress),
        Err(error) => Err(ResolverError::Lookup(error.into())),
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Servers(_) => "Servers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_need_no_lookup() {
        let resolver = Resolver::new(&["127.0.0.1:1".parse().unwrap()]).unwrap();
        assert_eq!(resolver.addresses("192.0.2.1").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            resolver.addresses("[2001:db8::1]").await.unwrap(),
            ["2001:db8::1".parse::<IpAddr>().unwrap()]
        );
    }

    #[tokio::test]
    async fn the_system_knows_localhost_however_it_is_written() {
        for name in ["localhost", "0x7f.1", "2130706433"] {
            let Ok(found) = Resolver::System.addresses(name).await else { continue };
            assert!(found.iter().all(|address| !super::super::is_public(*address)), "{name}: {found:?}");
        }
    }
}
