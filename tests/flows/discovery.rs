//! Accounts whose servers nobody gives: found by what their domain says, each place it says it at asked in turn.
//!
//! Not here: reading what a domain says (`account::discover`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mailweave::{
    account::{Discovered, Finder, Ports, ProviderDialer},
    config::NameServer,
    core::account::{FoundBy, Security},
    imap,
    net::{self, Dialer, Egress, Resolve, Resolver, Web},
    smtp,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    both,
    crm::text,
    letter::Letter,
    support::{
        Person,
        dns::{Dns, Failure, Zone},
        dovecot::Options,
        tls::Authority,
    },
    world::World,
};

const DOMAIN: &str = "found.test";

both! {
    fn an_account_is_connected_with_the_servers_that_its_domain_names(engine) {
        let dns = Dns::start(Zone::default());
        let names = ["imap", "smtp"].map(|name| format!("{name}.{DOMAIN}"));
        let options = Options { domain: DOMAIN.to_owned(), server_names: names.to_vec(), ..Options::default() };
        let servers = vec![NameServer(dns.address())];
        let world = World::at(engine, options, |config| config.dns.servers = servers);
        let (ann, bob) = (world.user(1, "Ann Lee"), world.customer(1));
        let Person { address, password } = ann.person.clone();
        let account = json!({
            "user_id": ann.id,
            "email": address,
            "auth": { "type": "password", "username": address, "password": password },
        });
        dns.set(Zone::default().failing(&format!("_imaps._tcp.{DOMAIN}"), Failure::ServFail));
        let refused = world.crm.try_post("/accounts", &account);
        assert_eq!((refused.status, text(&refused.body, "param")), (422, "imap"), "{refused:?}");
        assert!(text(&refused.body, "advice").contains("Give imap and smtp"), "{refused:?}");

        let zone = Zone::default()
            .srv(&format!("_imaps._tcp.{DOMAIN}"), (0, world.dovecot.imaps.port()), &names[0])
            .srv(&format!("_submission._tcp.{DOMAIN}"), (0, world.postfix.submission.port()), &names[1])
            .address(&names[0], "127.0.0.1")
            .cname(&names[1], &names[0]);
        dns.set(zone);
        // What it was told before is remembered for a moment.
        let mut made = world.crm.try_post("/accounts", &account);
        crate::support::wait_for("the new records to be asked for", crate::support::PATIENCE, || {
            if made.status == 422 {
                made = world.crm.try_post("/accounts", &account);
            }
            made.status == 201
        });
        let made = made.body;
        assert_eq!(made["found_by"], json!({ "imap": "srv", "smtp": "srv" }), "{made}");
        assert_eq!((text(&made["imap"], "host"), text(&made["smtp"], "security")), (names[0].as_str(), "starttls"));
        world.crm.await_account(text(&made, "id"));
        world.crm.post("/contacts", &json!({ "email": bob.address }));
        let letter = Letter::new(&bob.address, &[&address]);
        world.dovecot.deliver(&bob.address, &ann.person, &letter.raw().replace('\n', "\r\n")).unwrap();
        world.crm.await_mail("message.received", &letter.id);
        let message = json!({ "from_user_id": ann.id, "to": [{ "email": bob.address }], "subject": "Hi", "text": "Hello" });
        let message = world.crm.post("/messages", &message);
        world.crm.await_delivery(text(&message, "id"), "sent");
    }
}

/// A server under TLS that says its greeting, and to a line that has a word in it the answer that goes with the word.
struct Peer {
    port: u16,
}

impl Peer {
    async fn start(
        authority: &Authority,
        names: &[&str],
        greeting: &str,
        answers: &[(&str, String)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = authority.issue(dir.path(), names);
        let chain = CertificateDer::pem_file_iter(&files.chain).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (greeting, answers) = (greeting.to_owned(), owned(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, greeting, answers) = (acceptor.clone(), greeting.clone(), answers.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut stream = BufReader::new(stream);
                    drop(stream.write_all(greeting.as_bytes()).await);
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                        if let Some((_, answer)) =
                            answers.iter().find(|(word, _)| line.contains(word.as_str()))
                        {
                            let tag = line.split(' ').next().unwrap_or_default();
                            drop(stream.write_all(answer.replace("{tag}", tag).as_bytes()).await);
                            drop(stream.flush().await);
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { port }
    }

    async fn imap(authority: &Authority, names: &[&str]) -> Self {
        let capabilities = "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n{tag} OK done\r\n".to_owned();
        Self::start(authority, names, "* OK Dovecot ready.\r\n", &[("CAPABILITY", capabilities)]).await
    }

    async fn smtp(authority: &Authority, names: &[&str]) -> Self {
        Self::start(authority, names, "220 here ESMTP\r\n", &[("EHLO", "250 here\r\n".to_owned())]).await
    }

    /// A web server that answers everything with this.
    async fn web(authority: &Authority, name: &str, (status, body): (&str, &str)) -> Self {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        Self::start(authority, &[name], "", &[("GET ", answer)]).await
    }
}

fn owned(answers: &[(&str, String)]) -> Vec<(String, String)> {
    answers.iter().map(|(word, answer)| ((*word).to_owned(), answer.clone())).collect()
}

/// Finds servers by this zone, at these ports.
fn finder(dns: SocketAddr, authority: &Authority, (ports, allow): (Ports, &[&str])) -> Finder {
    let tls = authority.client_config();
    let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
    let resolver = Resolver::new(&[dns]).unwrap();
    let dialer = Dialer::new(resolver, Egress::new(allow), Arc::clone(&tls), Duration::from_secs(5));
    let web = Web::new(Resolve::vetted(dialer.clone()), &tls, Duration::from_secs(5)).unwrap();
    let (limits, deadlines) = (imap::Limits::default(), imap::Deadlines::default());
    let dialer = ProviderDialer::new(dialer, limits, deadlines, smtp::Timeouts::default());
    Finder::new(dialer, web, "gateway.example.test".to_owned()).at(ports)
}

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

/// Ports at which nobody listens.
fn nowhere() -> Ports {
    Ports { https: 1, imaps: 1, imap: 1, submissions: 1, submission: 1 }
}

fn places(found: &Discovered) -> [Option<(String, u16, FoundBy)>; 2] {
    [&found.imap, &found.smtp]
        .map(|found| found.as_ref().map(|found| (found.server.host.clone(), found.server.port, found.by)))
}

const FILE: &str = r#"<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="found.test">
<incomingServer type="imap"><hostname>imap.host.test</hostname><port>993</port><socketType>SSL</socketType></incomingServer>
<outgoingServer type="smtp"><hostname>smtp.host.test</hostname><port>587</port><socketType>STARTTLS</socketType></outgoingServer>
</emailProvider></clientConfig>"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_the_domains_web_server_names_its_servers_and_only_over_https() {
    net::install_provider();
    let authority = Authority::new();
    let expect = [("imap.host.test".to_owned(), 993), ("smtp.host.test".to_owned(), 587)]
        .map(|(host, port)| Some((host, port, FoundBy::Autoconfig)));
    let large = format!("{FILE}{}", " ".repeat(100_000));
    for (name, certificate, answer, is_found) in [
        ("autoconfig.found.test", "autoconfig.found.test", ("200 OK", FILE), true),
        ("found.test", "found.test", ("200 OK", FILE), true),
        ("found.test", "other.test", ("200 OK", FILE), false),
        ("found.test", "found.test", ("404 Not Found", FILE), false),
        ("found.test", "found.test", ("301 Moved\r\nLocation: https://autoconfig.found.test/", FILE), false),
        ("found.test", "found.test", ("200 OK", &large), false),
        ("found.test", "found.test", ("200 OK", "<html>"), false),
    ] {
        let web = Peer::web(&authority, certificate, answer).await;
        let dns = Dns::start(Zone::default().address(name, "127.0.0.1"));
        let ports = Ports { https: web.port, ..nowhere() };
        let found = finder(dns.address(), &authority, (ports, LOOPBACK)).find(DOMAIN).await;
        let expected = if is_found { expect.clone() } else { [None, None] };
        assert_eq!(places(&found), expected, "{name} {certificate} {}", answer.0);
        // The rules of egress hold: nothing inside is asked unless the operator allows it.
        let found = finder(dns.address(), &authority, (ports, &[])).find(DOMAIN).await;
        assert_eq!(places(&found), [None, None]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usual_names_are_taken_where_a_server_greets_under_them_with_a_certificate_of_theirs() {
    net::install_provider();
    let authority = Authority::new();
    let zone = Zone::default()
        .address("imap.found.test", "127.0.0.1")
        .address("mail.found.test", "127.0.0.1")
        .cname("smtp.found.test", "mail.found.test");
    let dns = Dns::start(zone);
    for (names, host) in [
        (["imap.found.test", "smtp.found.test"], Some(["imap.found.test", "smtp.found.test"])),
        (["mail.found.test", "mail.found.test"], Some(["mail.found.test", "mail.found.test"])),
        (["other.test", "other.test"], None),
    ] {
        let (imap, smtp) =
            (Peer::imap(&authority, &names[..1]).await, Peer::smtp(&authority, &names[1..]).await);
        let ports = Ports { imaps: imap.port, submissions: smtp.port, ..nowhere() };
        let found = finder(dns.address(), &authority, (ports, LOOPBACK)).find(DOMAIN).await;
        let expected = match host {
            Some([read, sent]) => [(read, imap.port), (sent, smtp.port)]
                .map(|(host, port)| Some((host.to_owned(), port, FoundBy::Guess))),
            None => [None, None],
        };
        assert_eq!(places(&found), expected, "{names:?}");
        assert_eq!(found.provider.map(|provider| provider.name), host.map(|_| "dovecot"));
        assert!(found.imap.is_none_or(|found| found.server.security == Security::Tls));
    }
    // A web server at the same place greets nobody.
    let web = Peer::web(&authority, "imap.found.test", ("200 OK", "hello")).await;
    let ports = Ports { imaps: web.port, ..nowhere() };
    let asked = finder(dns.address(), &authority, (ports, LOOPBACK));
    assert_eq!(places(&asked.find(DOMAIN).await), [None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_swallows_what_it_is_sent_hides_no_server_that_greets() {
    net::install_provider();
    let authority = Authority::new();
    let dns = Dns::start(
        Zone::default().address("imap.found.test", "127.0.0.1").address("smtp.found.test", "127.0.0.1"),
    );
    let imap = Peer::imap(&authority, &["imap.found.test"]).await;
    let smtp = Peer::smtp(&authority, &["smtp.found.test"]).await;
    // Connections are taken by the kernel, and nobody ever speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let ports = Ports {
        imaps: imap.port,
        imap: silent_port,
        submissions: smtp.port,
        submission: silent_port,
        ..nowhere()
    };
    let found = finder(dns.address(), &authority, (ports, LOOPBACK)).find(DOMAIN).await;
    let hosts = places(&found).map(|found| found.map(|(host, ..)| host));
    assert_eq!(hosts, [Some("imap.found.test".to_owned()), Some("smtp.found.test".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zone_comes_before_the_file_and_the_file_before_the_exchangers() {
    net::install_provider();
    let authority = Authority::new();
    let web = Peer::web(&authority, "found.test", ("200 OK", FILE)).await;
    let mx = || Zone::default().mx(DOMAIN, 10, "aspmx.l.google.com").mx(DOMAIN, 1, "mx.nowhere.test");
    let with_file = || mx().address(DOMAIN, "127.0.0.1");
    let with_imap = || with_file().srv("_imaps._tcp.found.test", (0, 993), "imap.found.test");
    let with_both = || with_imap().srv("_submissions._tcp.found.test", (0, 465), "smtp.found.test");
    let foreign = Zone::default().srv("_imaps._tcp.found.test", (0, 993), "imap.evil.test");
    use FoundBy::{Autoconfig, Mx, Srv};
    for (zone, expect) in [
        (with_both(), [Some(("imap.found.test", Srv)), Some(("smtp.found.test", Srv))]),
        (with_imap(), [Some(("imap.found.test", Srv)), Some(("smtp.host.test", Autoconfig))]),
        (with_file(), [Some(("imap.host.test", Autoconfig)), Some(("smtp.host.test", Autoconfig))]),
        (mx(), [Some(("imap.gmail.com", Mx)), Some(("smtp.gmail.com", Mx))]),
        // Where its mail comes in makes nobody's server out of what the domain says itself.
        (
            mx().srv("_imaps._tcp.found.test", (0, 993), "imap.found.test"),
            [Some(("imap.found.test", Srv)), None],
        ),
        (
            mx().failing("_imaps._tcp.found.test", Failure::ServFail),
            [Some(("imap.gmail.com", Mx)), Some(("smtp.gmail.com", Mx))],
        ),
        (foreign, [None, None]),
        (Zone::default().failing(DOMAIN, Failure::ServFail), [None, None]),
    ] {
        let dns = Dns::start(zone);
        let ports = Ports { https: web.port, ..nowhere() };
        let found = finder(dns.address(), &authority, (ports, LOOPBACK)).find(DOMAIN).await;
        let short = places(&found).map(|found| found.map(|(host, _, by)| (host, by)));
        assert_eq!(short, expect.map(|found| found.map(|(host, by)| (host.to_owned(), by))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_servers_that_say_nothing_are_waited_for_and_no_longer() {
    net::install_provider();
    let dns = Dns::start(
        Zone::default()
            .failing("_imaps._tcp.found.test", Failure::Dropped)
            .address("autoconfig.found.test", "127.0.0.1"),
    );
    let authority = Authority::new();
    let web = Peer::web(&authority, "autoconfig.found.test", ("200 OK", FILE)).await;
    let ports = Ports { https: web.port, ..nowhere() };
    let asked = std::time::Instant::now();
    let found = finder(dns.address(), &authority, (ports, LOOPBACK)).find(DOMAIN).await;
    assert_eq!(places(&found)[0].as_ref().map(|(.., by)| *by), Some(FoundBy::Autoconfig));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}
