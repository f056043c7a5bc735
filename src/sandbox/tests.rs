//! The provider over real connections, with the gateway's own clients on the other side.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use secrecy::SecretString;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::{
    Act, Behaviour, Extensions, Options, Provider, Running, SaveSent, Service, SpecialUse, Tls, Trigger,
};
use crate::{
    imap::{
        Append, Client as ImapClient, Criterion, Deadlines, Flag, HeaderExtent, IdleEvent, Limits,
        MailboxName, Resume, Uid, UidSet, choose,
    },
    mail::{Address, Envelope, MessageId, Recipient, ReversePath},
    smtp::{Channel, Client as SmtpClient, ClientError, Credentials, Outcome, Timeouts, Transmission},
};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(super) fn ann() -> Address {
    address("ann@example.test")
}

pub(super) fn bob() -> Address {
    address("bob@customer.test")
}

pub(super) async fn start(behaviour: Behaviour) -> Running {
    let running = Provider::start(Options { behaviour, ..Options::default() }).await.unwrap();
    running.provider.add_user(&ann(), "secret").unwrap();
    running.provider.add_user(&bob(), "other").unwrap();
    running
}

#[track_caller]
pub(super) fn wait(provider: &Provider, what: impl FnMut(&Provider) -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move { timeout(DEADLINE, provider.wait(what)).await.unwrap_or_else(|_| panic!("{caller}: in vain")) }
}

pub(super) async fn imap(running: &Running) -> ImapClient<TcpStream> {
    let stream = TcpStream::connect(running.imap).await.unwrap();
    let mut client = ImapClient::connect(stream, Limits::default(), Deadlines::default()).await.unwrap();
    client.login("ann@example.test", &SecretString::from("secret")).await.unwrap();
    client
}

pub(super) async fn smtp(at: std::net::SocketAddr) -> Result<SmtpClient<TcpStream>, ClientError> {
    let stream = TcpStream::connect(at).await.unwrap();
    let mut client =
        SmtpClient::connect(stream, "client.test", Channel::ClearTrusted, Timeouts::default()).await?;
    client.authenticate(&Credentials::password("ann@example.test", "secret"), None).await?;
    Ok(client)
}

const MESSAGE: &[u8] =
    b"From: ann@example.test\r\nTo: bob@customer.test\r\nBcc: boss@crm.test\r\nMessage-ID: <1@client.test>\r\nSubject: Offer\r\n\r\n.hello\r\n";

pub(super) async fn submit(
    client: &mut SmtpClient<TcpStream>,
    from: &Address,
    to: &[&str],
) -> Result<Vec<Outcome>, ClientError> {
    let mut envelope = Envelope::new(ReversePath::Address(from.clone()));
    envelope.recipients = to.iter().map(|to| Recipient::new(address(to))).collect();
    Ok(match client.send_data(&envelope, MESSAGE).await? {
        Transmission::Settled(outcomes) => outcomes,
        Transmission::Pending(pending) => pending.finish().await,
    })
}

fn raw(subject: &str) -> Vec<u8> {
    format!("Subject: {subject}\r\nMessage-ID: <{subject}@x.test>\r\n\r\nbody of {subject}\r\n").into_bytes()
}

#[tokio::test]
async fn the_gateways_imap_client_reads_headers_first_and_one_body() {
    let running = start(Behaviour::default()).await;
    for subject in ["one", "two", "three"] {
        running.provider.deliver(&ann(), &raw(subject)).unwrap();
    }
    let mut client = imap(&running).await;
    let chosen = choose(&client.list().await.unwrap(), &[]);
    assert!(format!("{chosen:?}").contains("Sent"), "{chosen:?}");
    let selected = client.select(&MailboxName::inbox(), None).await.unwrap();
    let (uid_validity, uid_next) = running.provider.uids(&ann(), "INBOX").unwrap();
    assert_eq!(selected.exists, 3);
    assert_eq!(selected.uid_validity.map(|own| own.get()), Some(uid_validity));
    assert_eq!(selected.uid_next.map(Uid::get), Some(uid_next));
    let mut seen = Vec::new();
    let mut headers = client.fetch_headers(&UidSet::all(), HeaderExtent::Whole);
    while let Some(item) = headers.next().await.unwrap() {
        assert!(item.modseq.is_some() && item.internal_date.is_some());
        seen.push((item.uid.get(), item.size, item.header.starts_with(b"Subject: ")));
    }
    assert_eq!(
        seen,
        [(1, Some(57), true), (2, Some(57), true), (3, Some(61), true)].map(|(u, _, h)| {
            let size = running.provider.messages(&ann(), "INBOX")[u as usize - 1].raw.len() as u64;
            (u, Some(size), h)
        })
    );
    assert_eq!(running.provider.contents_fetched(&ann(), "INBOX"), [0; 0]);
    let id = MessageId::parse("two@x.test").unwrap();
    let found = client.uid_search(Criterion::MessageId(&id)).await.unwrap();
    assert_eq!(format!("{found}"), "2");
    client.fetch_body(Uid::new(2).unwrap(), None, 1_000_000).await.unwrap();
    assert_eq!(running.provider.contents_fetched(&ann(), "INBOX"), [2]);
    client.logout().await;
    running.stop().await;
}

#[tokio::test]
async fn the_gateways_imap_client_appends_idles_and_resumes() {
    let running = start(Behaviour::default()).await;
    let provider = &running.provider;
    for subject in ["one", "two"] {
        provider.deliver(&ann(), &raw(subject)).unwrap();
    }
    let mut client = imap(&running).await;
    assert!(client.enable_qresync().await.unwrap());
    let sent = MailboxName::from_display("Sent").unwrap();
    let append = Append {
        mailbox: &sent,
        flags: &[Flag::Seen],
        internal_date: None,
        message: Bytes::from(raw("mine")),
    };
    assert_eq!(client.append(append).await.unwrap().map(|at| at.uid.get()), Some(1));
    assert!(provider.messages(&ann(), "Sent")[0].has_flag("\\Seen"));
    let selected = client.select(&MailboxName::inbox(), None).await.unwrap();
    provider.deliver(&ann(), &raw("three")).unwrap();
    let event = client.idle(Instant::now() + DEADLINE).await.unwrap();
    assert!(matches!(event, IdleEvent::Changed(_)), "{event:?}");
    client.logout().await;
    provider.expunge(&ann(), "INBOX", 1).unwrap();
    let mut client = imap(&running).await;
    assert!(client.enable_qresync().await.unwrap());
    let resume =
        Resume { uid_validity: selected.uid_validity.unwrap(), modseq: selected.highest_modseq.unwrap() };
    let selected = client.select(&MailboxName::inbox(), Some(resume)).await.unwrap();
    assert_eq!((selected.vanished.to_string(), selected.changed.to_string()), ("1".into(), "3".into()));
    provider.kick(&ann()).unwrap();
    assert!(client.idle(Instant::now() + DEADLINE).await.is_err());
    running.stop().await;
}

#[tokio::test]
async fn submitted_mail_reaches_its_readers_without_bcc_and_by_route() {
    let crm = start(Behaviour::default()).await;
    crm.provider.add_user(&address("boss@crm.test"), "x").unwrap();
    let running = start(Behaviour::gmail()).await;
    running.provider.route("crm.test", crm.mx);
    let mut client = smtp(running.submission).await.unwrap();
    let outcomes =
        submit(&mut client, &ann(), &["bob@customer.test", "boss@crm.test", "none@customer.test"]).await;
    let outcomes = outcomes.unwrap();
    assert!(matches!(
        outcomes[..],
        [Outcome::Accepted { .. }, Outcome::Accepted { .. }, Outcome::Refused(_)]
    ));
    let bobs = running.provider.messages(&bob(), "INBOX");
    assert_eq!((bobs.len(), bobs[0].header("Bcc")), (1, None));
    assert_eq!(bobs[0].header("Return-Path").as_deref(), Some("<ann@example.test>"));
    assert!(bobs[0].raw.ends_with(b"\r\n.hello\r\n"));
    let sent = running.provider.messages(&ann(), "Sent");
    assert_eq!((sent.len(), sent[0].header("Bcc").as_deref()), (1, Some("boss@crm.test")));
    let boss = address("boss@crm.test");
    wait(&crm.provider, |provider| provider.messages(&boss, "INBOX").len() == 1).await;
    assert_eq!(crm.provider.messages(&boss, "INBOX")[0].header("Bcc"), None);
    running.stop().await;
    crm.stop().await;
}

#[tokio::test]
async fn only_the_users_own_address_may_send_and_only_after_authentication() {
    let running = start(Behaviour::default()).await;
    let stream = TcpStream::connect(running.submission).await.unwrap();
    let mut client =
        SmtpClient::connect(stream, "c.test", Channel::ClearTrusted, Timeouts::default()).await.unwrap();
    let outcomes = submit(&mut client, &ann(), &["bob@customer.test"]).await.unwrap();
    assert!(matches!(&outcomes[..], [Outcome::Refused(reply)] if reply.code() == 530), "{outcomes:?}");
    assert!(client.authenticate(&Credentials::password("ann@example.test", "wrong"), None).await.is_err());
    let mut client = smtp(running.submission).await.unwrap();
    let outcomes = submit(&mut client, &bob(), &["bob@customer.test"]).await.unwrap();
    assert!(matches!(&outcomes[..], [Outcome::Refused(reply)] if reply.code() == 553), "{outcomes:?}");
    let said = running.provider.said();
    assert!(said.iter().any(|said| said.line == "AUTH PLAIN ***" && !said.secure));
    assert!(!said.iter().any(|said| said.line.contains("AGFubkBleGFtcGxlLnRlc3QAc2VjcmV0")));
    running.stop().await;
}

#[tokio::test]
async fn what_another_host_refuses_comes_back_as_a_report() {
    let crm = start(Behaviour::default()).await;
    let running = start(Behaviour::default()).await;
    running.provider.route("crm.test", crm.mx);
    let mut client = smtp(running.submission).await.unwrap();
    submit(&mut client, &ann(), &["nobody@crm.test"]).await.unwrap();
    wait(&running.provider, |provider| provider.messages(&ann(), "INBOX").len() == 1).await;
    let report = running.provider.messages(&ann(), "INBOX").remove(0);
    assert_eq!(report.header("Return-Path").as_deref(), Some("<>"));
    assert!(report.header("Content-Type").unwrap().starts_with("multipart/report"));
    running.stop().await;
    crm.stop().await;
}

#[tokio::test]
async fn a_provider_like_exchange_renames_mail_and_files_it_late() {
    let save_sent = SaveSent::After(Duration::from_millis(50));
    let running = start(Behaviour { save_sent, ..Behaviour::outlook() }).await;
    let mut client = smtp(running.submission).await.unwrap();
    submit(&mut client, &ann(), &["bob@customer.test"]).await.unwrap();
    wait(&running.provider, |provider| provider.messages(&ann(), "Sent").len() == 1).await;
    let (sent, got) = (
        running.provider.messages(&ann(), "Sent").remove(0),
        running.provider.messages(&bob(), "INBOX").remove(0),
    );
    assert_eq!(sent.header("X-Microsoft-Original-Message-ID").as_deref(), Some("<1@client.test>"));
    assert_ne!(sent.header("Message-ID").as_deref(), Some("<1@client.test>"));
    assert_eq!(sent.header("Message-ID"), got.header("Message-ID"));
    running.stop().await;
}

#[tokio::test]
async fn a_lost_250_leaves_the_sender_in_doubt_and_the_message_delivered() {
    let running = start(Behaviour::default()).await;
    running.provider.arm(Trigger::next(Service::Submission, "DOT"), Act::DropAfter(0));
    let mut client = smtp(running.submission).await.unwrap();
    assert_eq!(submit(&mut client, &ann(), &["bob@customer.test"]).await.unwrap(), [Outcome::Unknown]);
    assert_eq!(running.provider.messages(&bob(), "INBOX").len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn faults_strike_at_every_stage_of_a_submission() {
    let running = start(Behaviour::default()).await;
    let arm = |verb: &str, text: &str, times| {
        let trigger = Trigger { times, ..Trigger::next(Service::Submission, verb) };
        running.provider.arm(trigger, Act::Answer(text.to_owned()));
    };
    let to = ["bob@customer.test"];
    for (verb, text) in [("MAIL", "451 4.3.0 later"), ("DATA", "450 4.2.0 later"), ("DOT", "452 4.3.1 full")]
    {
        arm(verb, text, 1);
        let mut client = smtp(running.submission).await.unwrap();
        let outcomes = submit(&mut client, &ann(), &to).await.unwrap();
        assert!(
            matches!(&outcomes[..], [Outcome::Deferred(reply)] if reply.to_string() == text),
            "{verb} {outcomes:?}"
        );
        let again = submit(&mut client, &ann(), &to).await.unwrap();
        assert!(matches!(again[..], [Outcome::Accepted { .. }]), "after {verb}: {again:?}");
    }
    assert_eq!(running.provider.messages(&bob(), "INBOX").len(), 3);
    running.provider.arm(
        Trigger::always(Service::Submission, "RCPT").containing("BOB@"),
        Act::Answer("550 5.7.1 not him".into()),
    );
    let mut client = smtp(running.submission).await.unwrap();
    let outcomes = submit(&mut client, &ann(), &["ann@example.test", "bob@customer.test"]).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Accepted { .. }, Outcome::Refused(_)]), "{outcomes:?}");
    running.provider.disarm();
    arm("AUTH", "454 4.7.0 Too many login attempts", 1);
    assert!(matches!(smtp(running.submission).await, Err(ClientError::Refused { .. })));
    arm("CONNECT", "421 4.7.0 try again", 1);
    assert!(smtp(running.submission).await.is_err());
    running.stop().await;
}

#[tokio::test]
async fn a_bare_server_serves_the_client_too() {
    let extensions = Extensions {
        condstore: false,
        qresync: false,
        idle: false,
        special_use: false,
        uidplus: false,
        r#move: false,
        literal_plus: false,
    };
    let running = start(Behaviour { extensions, ..Behaviour::default() }).await;
    running.provider.deliver(&ann(), &raw("one")).unwrap();
    let mut client = imap(&running).await;
    assert!(!client.enable_qresync().await.unwrap_or(false));
    let selected = client.select(&MailboxName::inbox(), None).await.unwrap();
    assert_eq!((selected.exists, selected.highest_modseq), (1, None));
    let sent =
        MailboxName::from_display(&running.provider.special(&ann(), SpecialUse::Sent).unwrap()).unwrap();
    let append = Append { mailbox: &sent, flags: &[], internal_date: None, message: Bytes::from(raw("x")) };
    assert_eq!(client.append(append).await.unwrap(), None);
    assert!(client.idle(Instant::now() + DEADLINE).await.is_err());
    running.stop().await;
}

/// Both ends of a TLS connection to "localhost".
fn tls() -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let ring = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server =
        rustls::ServerConfig::builder_with_provider(ring()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let client =
        rustls::ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

async fn shake_hands(connector: &TlsConnector, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[tokio::test]
async fn every_door_speaks_tls_from_the_start_or_after_starttls() {
    let (acceptor, connector) = tls();
    for implicit in [true, false] {
        let tls = if implicit { Tls::Implicit(acceptor.clone()) } else { Tls::StartTls(acceptor.clone()) };
        let options = Options { imap_tls: tls.clone(), submission_tls: tls, ..Options::default() };
        let running = Provider::start(options).await.unwrap();
        running.provider.add_user(&ann(), "secret").unwrap();
        let stream = TcpStream::connect(running.imap).await.unwrap();
        let mut client = if implicit {
            let stream = shake_hands(&connector, stream).await.unwrap();
            ImapClient::connect(stream, Limits::default(), Deadlines::default()).await.unwrap()
        } else {
            let plain = ImapClient::connect(stream, Limits::default(), Deadlines::default()).await.unwrap();
            let stream = shake_hands(&connector, plain.starttls().await.unwrap()).await.unwrap();
            ImapClient::connect_after_starttls(stream, Limits::default(), Deadlines::default()).await.unwrap()
        };
        client.login("ann@example.test", &SecretString::from("secret")).await.unwrap();
        let stream = TcpStream::connect(running.submission).await.unwrap();
        let (encrypted, timeouts) = (Channel::Encrypted, Timeouts::default());
        let mut client = if implicit {
            let stream = shake_hands(&connector, stream).await.unwrap();
            SmtpClient::connect(stream, "c.test", encrypted, timeouts).await.unwrap()
        } else {
            let plain = SmtpClient::connect(stream, "c.test", Channel::Clear, timeouts).await.unwrap();
            plain.starttls(|stream| shake_hands(&connector, stream)).await.unwrap()
        };
        client.authenticate(&Credentials::password("ann@example.test", "secret"), None).await.unwrap();
        let said = running.provider.said();
        assert_eq!(said.iter().filter(|said| said.line.contains("***")).count(), 2);
        assert!(said.iter().filter(|said| said.line.contains("***")).all(|said| said.secure));
        running.stop().await;
    }
}
