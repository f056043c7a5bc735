//! Which addresses the gateway may connect to: the public Internet, and what the operator allows beside it.
//!
//! One table for IMAP, SMTP, OAuth and webhooks alike. Tenants choose host names; without this a host name reads a cloud's
//! metadata service or the operator's intranet. Not here: names (`resolve`), connecting (`dial`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

/// What is not the public Internet, from the IANA special-purpose registries, and what clouds hide in public ranges.
const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",         // this network
    "10.0.0.0/8",        // private
    "100.64.0.0/10",     // carrier-grade NAT; holds Alibaba's metadata service, 100.100.100.200
    "127.0.0.0/8",       // loopback
    "168.63.129.16/32",  // Azure's platform address: public by number, the host's by function
    "169.254.0.0/16",    // link-local, holds most clouds' metadata service
    "172.16.0.0/12",     // private
    "192.0.0.0/24",      // IETF protocol assignments; holds Oracle's metadata service
    "192.0.2.0/24",      // documentation
    "192.31.196.0/24",   // AS112
    "192.52.193.0/24",   // AMT
    "192.88.99.0/24",    // 6to4 relays, retired
    "192.168.0.0/16",    // private
    "192.175.48.0/24",   // AS112
    "198.18.0.0/15",     // benchmarks
    "198.51.100.0/24",   // documentation
    "203.0.113.0/24",    // documentation
    "224.0.0.0/4",       // multicast
    "240.0.0.0/4",       // reserved, and broadcast
    "2001::/23",         // IETF protocol assignments: Teredo, benchmarks, ORCHID
    "2001:db8::/32",     // documentation
    "2002::/16",         // 6to4: embeds any IPv4 address
    "2620:4f:8000::/48", // AS112
    "3fff::/20",         // documentation
];

/// The only IPv6 range out of which global unicast addresses are assigned; all else is local, mapped or reserved.
const GLOBAL_UNICAST: &str = "2000::/3";
/// RFC 6052: NAT64 reaches the IPv4 address in the last 32 bits.
const NAT64: &str = "64:ff9b::/96";

static TABLE: LazyLock<Vec<IpNet>> = LazyLock::new(|| NOT_PUBLIC.iter().map(|net| range(net)).collect());

fn range(text: &str) -> IpNet {
    text.parse().expect("the table holds valid ranges, and a test reads it")
}

/// True for addresses of the public Internet. IPv4 addresses are seen through every IPv6 form that reaches them.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    static RANGES: LazyLock<(IpNet, IpNet)> = LazyLock::new(|| (range(GLOBAL_UNICAST), range(NAT64)));
    let (global_unicast, nat64) = &*RANGES;
    match address.to_canonical() {
        IpAddr::V6(ip) if nat64.contains(&address) => is_public(IpAddr::V4(last_32_bits(ip))),
        IpAddr::V6(_) if !global_unicast.contains(&address) => false,
        canonical => !TABLE.iter().any(|net| net.contains(&canonical)),
    }
}

fn last_32_bits(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// The operator's rule: the public Internet and these ranges.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    allow: Vec<IpNet>,
}

impl Egress {
    /// `allow` is `[egress].allow`: ranges that may be dialled though they are not public.
    #[must_use]
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// True when the address may be dialled.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.is_allowed_by_name(address)
    }

    /// True when the operator named a range the address is in: such addresses may use any port, and no encryption.
    #[must_use]
    pub fn is_allowed_by_name(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(public: bool, addresses: &str) {
        for text in addresses.split_whitespace() {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        check(
            true,
            "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 64.233.184.108 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0",
        );
        check(
            true,
            "168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0",
        );
        check(
            true,
            "192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 203.0.114.0 223.255.255.255",
        );
        check(
            true,
            "2001:200::1 2001:4860:4860::8888 2003::1 2400:cb00::1 2606:4700::1111 2a00:1450:4001::5 2620:4f:7fff::1",
        );
        check(true, "::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b::808:808");
    }

    #[test]
    fn ipv4_ranges_that_are_not_public_are_seen_to_their_edges() {
        check(
            false,
            "0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255",
        );
        check(
            false,
            "127.0.0.0 127.0.0.1 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255",
        );
        check(
            false,
            "172.16.0.0 172.17.0.1 172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.192 192.0.0.255 192.0.2.1 192.31.196.1",
        );
        check(
            false,
            "192.52.193.1 192.88.99.1 192.168.0.0 192.168.1.1 192.168.255.255 192.175.48.6 198.18.0.0 198.19.255.255 198.51.100.7",
        );
        check(false, "203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.254 255.255.255.255");
    }

    #[test]
    fn ipv6_beyond_global_unicast_is_not_public() {
        check(
            false,
            ":: ::1 ::2 ::7f00:1 ::127.0.0.1 ::10.0.0.1 ::8.8.8.8 100::1 100::ffff:ffff:ffff:ffff 1fff::1 4000::1 5f00::1",
        );
        check(
            false,
            "fc00::1 fd00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff00::1 ff02::1 ff05::2 ffff::1",
        );
        check(
            false,
            "2001::1 2001:0:53aa:64c::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1 2001:db8::1 2001:db8:ffff::1 2002::1",
        );
        check(false, "2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2620:4f:8000::1 3fff::1 3fff:fff::1");
    }

    #[test]
    fn an_ipv4_address_is_seen_through_its_ipv6_forms() {
        check(
            false,
            "::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:192.168.1.1 ::ffff:0.0.0.0",
        );
        check(
            false,
            "64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::10.1.2.3 64:ff9b::192.168.0.1 64:ff9b::100.100.100.200 64:ff9b::0.0.0.0",
        );
        // RFC 8215: local-use NAT64 may lead anywhere, with a prefix length only its operator knows.
        check(false, "64:ff9b:1::1 64:ff9b:1::808:808 64:ff9b:2::1");
        check(false, "::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8");
    }

    #[test]
    fn the_operator_opens_ranges_by_name() {
        let egress = Egress::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (text, permitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("::1", false),
            ("10.0.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(egress.permits(text.parse().unwrap()), permitted, "{text}");
        }
        assert!(!egress.is_allowed_by_name("8.8.8.8".parse().unwrap()));
        assert!(!Egress::default().permits("127.0.0.1".parse().unwrap()));
    }
}
