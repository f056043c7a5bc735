//! What a domain says of its mail in a file on its web server, in the form that Thunderbird reads (config-v1.1.xml).
//!
//! Over HTTPS alone, so that it is the domain that says it; then it may name anybody's servers. Not here: a directory of
//! providers that somebody else keeps, and the user names in the file: the caller says who logs in.

use roxmltree::{Document, Node, ParsingOptions};
use url::{Host, Url};

use super::{Discovered, Found};
use crate::{
    core::{
        account::{Endpoint, FoundBy, Security},
        provider::Provider,
    },
    net::{Web, read_body},
};

/// Octets of a file. Those of the largest providers have some thousands.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// Elements, attributes and texts of a file.
const NODES_MAX: u32 = 4096;
/// What a host may be called by in a file: the domain of the user's address.
const DOMAIN: &str = "%EMAILDOMAIN%";

/// Fetches the file, from the host that is for it alone or else from the domain's own.
pub(super) async fn ask(web: &Web, (domain, port): (&str, u16)) -> Discovered {
    let places = [
        format!("https://autoconfig.{domain}:{port}/mail/config-v1.1.xml"),
        format!("https://{domain}:{port}/.well-known/autoconfig/mail/config-v1.1.xml"),
    ];
    let [own, well_known] = places.map(|place| async move { fetch(web, &place).await });
    let (own, well_known) = tokio::join!(own, well_known);
    let read = |file: Vec<u8>| read(&file, domain);
    own.and_then(read).or_else(|| well_known.and_then(read)).unwrap_or_default()
}

async fn fetch(web: &Web, place: &str) -> Option<Vec<u8>> {
    let url = Url::parse(place).ok()?;
    let answer = web.client(&url).await?.get(url).send().await.ok()?;
    let is_there = answer.status() == reqwest::StatusCode::OK;
    if is_there { read_body(answer, FILE_BYTES_MAX).await } else { None }
}

/// Reads the file of this domain. `None` of one that names no server of either kind.
#[must_use]
pub fn read(file: &[u8], domain: &str) -> Option<Discovered> {
    let text = std::str::from_utf8(file).ok()?;
    // Without a document type there are no entities but those of XML itself: nothing expands.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let provider = document.root_element().children().find(|node| node.has_tag_name("emailProvider"))?;
    let first = |tag: &str, kind: &str| {
        let servers = provider.children().filter(|node| node.has_tag_name(tag));
        servers.filter(|node| node.attribute("type") == Some(kind)).find_map(|node| server(node, domain))
    };
    let found = |server| Found { server, by: FoundBy::Autoconfig };
    let imap = first("incomingServer", "imap").map(found);
    let smtp = first("outgoingServer", "smtp").map(found);
    (imap.is_some() || smtp.is_some()).then(|| Discovered {
        provider: imap.as_ref().and_then(|found| Provider::of_host(&found.server.host)),
        imap,
        smtp,
        foreign: None,
    })
}

/// A server, unless it is one to which everything goes in clear.
fn server(node: Node<'_, '_>, domain: &str) -> Option<Endpoint> {
    let text = |tag: &str| {
        let child = node.children().find(|child| child.has_tag_name(tag))?;
        child.text().map(str::trim)
    };
    let security = match text("socketType")?.to_ascii_uppercase().as_str() {
        "SSL" | "TLS" => Security::Tls,
        "STARTTLS" => Security::Starttls,
        _ => return None,
    };
    let port = text("port")?.parse().ok().filter(|port| *port != 0)?;
    match Host::parse(&text("hostname")?.replace(DOMAIN, domain)).ok()? {
        Host::Domain(host) => Some(Endpoint { host, port, security }),
        // No certificate would name it.
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(servers: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<clientConfig version=\"1.1\"><emailProvider id=\"acme.example\">\
             <domain>acme.example</domain>{servers}</emailProvider></clientConfig>"
        )
    }

    fn entry(tag: &str, kind: &str, [host, port, socket]: [&str; 3]) -> String {
        format!(
            "<{tag} type=\"{kind}\"><hostname> {host} </hostname><port>{port}</port><socketType>{socket}</socketType>\
             <username>%EMAILADDRESS%</username></{tag}>"
        )
    }

    #[track_caller]
    fn check(servers: &str, imap: Option<(&str, u16, Security)>) {
        let found = read(file(servers).as_bytes(), "acme.example").and_then(|found| found.imap);
        let server = imap.map(|(host, port, security)| Endpoint { host: host.into(), port, security });
        assert_eq!(found.map(|found| found.server), server, "{servers}");
    }

    #[test]
    fn the_first_server_that_is_reached_under_tls_is_taken() {
        use Security::{Starttls, Tls};
        let imap = |given| entry("incomingServer", "imap", given);
        check(&imap(["mail.host.example", "993", "SSL"]), Some(("mail.host.example", 993, Tls)));
        check(&imap(["imap.%EMAILDOMAIN%", "143", "STARTTLS"]), Some(("imap.acme.example", 143, Starttls)));
        let clear_first = imap(["a.example", "143", "plain"]) + &imap(["b.example", "993", "SSL"]);
        check(&clear_first, Some(("b.example", 993, Tls)));
        let pop = entry("incomingServer", "pop3", ["pop.example", "995", "SSL"]);
        check(&(pop.clone() + &imap(["c.example", "993", "SSL"])), Some(("c.example", 993, Tls)));
        for none in [
            pop.as_str(),
            &imap(["10.0.0.1", "993", "SSL"]),
            &imap(["a b", "993", "SSL"]),
            &imap(["a.example", "0", "SSL"]),
            &imap(["a.example", "99999", "SSL"]),
            "<incomingServer type=\"imap\"/>",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn a_file_that_wants_to_harm_is_none() {
        let entities = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]>";
        let good = file(&entry("incomingServer", "imap", ["a.example", "993", "SSL"]));
        assert!(read(good.as_bytes(), "acme.example").is_some());
        let with = good.replacen("?>", &format!("?>{entities}"), 1);
        let many = file(&"<x/>".repeat(5000));
        let deep = file(&"<x>".repeat(20_000));
        for bad in [with.as_bytes(), many.as_bytes(), deep.as_bytes(), b"", b"\xff\xfe", b"<html></html>"] {
            assert_eq!(read(bad, "acme.example"), None);
        }
    }
}
