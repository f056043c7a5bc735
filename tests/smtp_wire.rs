//! SMTP over real streams: our server and our client against each other, and each against a peer that means harm.
//!
//! Not here: the rules of a session without I/O (`smtp_dialogues`, `smtp_vectors`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

mod corpus;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mailweave::{
    mail::{Address, Envelope, Recipient, ReversePath},
    net::{Certificates, Dialer, Egress, Resolver, Security, Stream, Target, bind, client_config},
    smtp::{
        AuthOutcome, Capacity, Channel, Client, ClientError, Credentials, Handler, Limits, ListenerKind,
        Mechanism, Outcome, Reply, Server, SessionInfo, Stage, Timeouts, Transmission,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// A handler that keeps what it is given.
#[derive(Clone, Default)]
struct Keeper {
    kept: Arc<Mutex<Vec<(Envelope, Bytes)>>>,
    /// Permits to finish `message`; none are needed while this is absent.
    gate: Option<Arc<tokio::sync::Semaphore>>,
    waiting: Arc<AtomicUsize>,
}

impl Handler for Keeper {
    async fn mail(&mut self, _: &SessionInfo, _: &ReversePath, _: Option<u64>) -> Reply {
        Reply::sender_ok()
    }

    async fn rcpt(&mut self, _: &SessionInfo, to: &Recipient) -> Reply {
        match to.address.local() {
            "unknown" => Reply::no_such_recipient(),
            "busy" => Reply::local_error(),
            _ => Reply::recipient_ok(),
        }
    }

    async fn message(&mut self, _: &SessionInfo, envelope: Envelope, message: Bytes) -> Reply {
        if let Some(gate) = &self.gate {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
        }
        self.kept.lock().unwrap().push((envelope, message));
        Reply::ok("Taken")
    }

    async fn authenticate(&mut self, _: &SessionInfo, credentials: Credentials) -> AuthOutcome {
        use secrecy::ExposeSecret;
        let (Credentials::Password { password: secret, .. } | Credentials::Token { token: secret, .. }) =
            &credentials;
        match secret.expose_secret().starts_with("secret") {
            true => AuthOutcome::Accepted { identity: credentials.username().unwrap_or_default().into() },
            false => AuthOutcome::Refused,
        }
    }
}

/// A running server, and what it takes to talk to it.
struct World {
    address: SocketAddr,
    keeper: Keeper,
    dialer: Dialer,
    shutdown: CancellationToken,
    stopped: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(kind: ListenerKind, limits: Limits) -> Self {
        Self::start_with(kind, Capacity::new(limits), Keeper::default())
    }

    fn start_with(kind: ListenerKind, capacity: Capacity, keeper: Keeper) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let tls = Certificates::load(&certificate, &key).unwrap().server_config(&[b"smtp"]).unwrap();
        let egress = Egress::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let dialer =
            Dialer::new(Resolver::System, egress, client_config(Some(&certificate)).unwrap(), PATIENCE);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let handler = keeper.clone();
        let mechanisms = [Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer];
        let server = Server::new("gw.example", &mechanisms, capacity, Some(tls), move |_, _| handler.clone());
        let shutdown = CancellationToken::new();
        let stopped = tokio::spawn(Arc::new(server).run(listener, kind, shutdown.clone()));
        Self { address, keeper, dialer, shutdown, stopped }
    }

    async fn dial(&self, security: Security) -> Stream {
        self.dialer
            .dial(Target { host: "localhost", port: self.address.port(), security, ports: &[] })
            .await
            .unwrap()
    }

    async fn client(&self) -> Client<Stream> {
        Client::connect(
            self.dial(Security::Clear).await,
            "client.example",
            Channel::Clear,
            Timeouts::default(),
        )
        .await
        .unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn kept(&self) -> Vec<(Envelope, Bytes)> {
        self.keeper.kept.lock().unwrap().clone()
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|r| Recipient::new(Address::parse(r).unwrap())).collect();
    Envelope { recipients, ..Envelope::new(ReversePath::Address(Address::parse("ann@b.example").unwrap())) }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    recipients: &[&str],
    message: &[u8],
) -> Vec<Outcome> {
    match client.send_data(&envelope(recipients), message).await.unwrap() {
        Transmission::Settled(outcomes) => outcomes,
        Transmission::Pending(pending) => pending.finish().await,
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("took too long")
}

/// Everything until the peer closes.
async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let end = within(stream.read_to_end(&mut said)).await;
    assert!(end.is_ok(), "the connection broke off: {end:?}");
    String::from_utf8(said).unwrap()
}

async fn line_of(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn many_messages_pass_one_connection_and_recipients_have_their_own_outcome() {
    let world = World::start(ListenerKind::Mx, Limits::default());
    let mut client = world.client().await;
    let outcomes = send(
        &mut client,
        &["x@c.example", "unknown@c.example", "busy@c.example", "y@c.example"],
        b"Subject: 1\r\n\r\n.\r\n..x",
    )
    .await;
    assert!(
        matches!(&outcomes[..], [Outcome::Accepted { .. }, Outcome::Refused(no), Outcome::Deferred(later), Outcome::Accepted { .. }]
        if no.code() == 550 && later.code() == 451)
    );
    assert!(matches!(&send(&mut client, &["unknown@c.example"], b"x").await[..], [Outcome::Refused(_)]));
    assert!(
        matches!(&send(&mut client, &["z@c.example"], "é\r\n".repeat(100_000).as_bytes()).await[..], [Outcome::Accepted { text }] if text == "Taken")
    );
    client.quit().await;
    let kept = world.kept();
    assert_eq!(kept[0].1, &b"Subject: 1\r\n\r\n.\r\n..x\r\n"[..]);
    assert_eq!(kept[0].0.recipients.len(), 2);
    assert_eq!((kept[1].1.len(), kept[1].0.eight_bit), (400_000, true));
}

#[tokio::test]
async fn nothing_is_delivered_before_the_final_dot() {
    let world = World::start(ListenerKind::Mx, Limits::default());
    let mut client = world.client().await;
    let Transmission::Pending(pending) =
        client.send_data(&envelope(&["x@c.example"]), b"x\r\n").await.unwrap()
    else {
        panic!("refused")
    };
    assert_eq!(pending.refusals(), [None]);
    drop(pending);
    assert!(!client.is_usable());
    assert!(matches!(client.reset().await, Err(ClientError::Broken)));
    drop(client);
    assert!(world.kept().is_empty());
}

#[tokio::test]
async fn a_submission_passes_starttls_and_auth_with_every_mechanism() {
    let world = World::start(ListenerKind::Submission, Limits::default());
    let long_token = format!("secret{}", "x".repeat(3_000));
    let tries = [
        (Mechanism::Plain, Credentials::password("ann", "secret")),
        (Mechanism::Login, Credentials::password("ann", "secret")),
        (Mechanism::XOAuth2, Credentials::token(Some("ann"), "secret")),
        (Mechanism::OAuthBearer, Credentials::token(Some("ann"), &long_token)),
    ];
    for (mechanism, credentials) in tries {
        let mut client = world.client().await;
        assert!(matches!(client.authenticate(&credentials, None).await, Err(ClientError::Insecure)));
        let dialer = world.dialer.clone();
        let mut client = client
            .starttls(|stream| async move {
                dialer.secure(stream, "localhost").await.map_err(std::io::Error::other)
            })
            .await
            .unwrap();
        client.authenticate(&credentials, Some(mechanism)).await.unwrap();
        assert!(
            matches!(&send(&mut client, &["x@c.example"], b"x").await[..], [Outcome::Accepted { .. }]),
            "{mechanism:?}"
        );
        client.quit().await;
    }
    assert_eq!(world.kept().len(), 4);
}

#[tokio::test]
async fn wrong_credentials_are_refused_over_implicit_tls_and_the_session_goes_on() {
    let world = World::start(ListenerKind::Submissions, Limits::default());
    let mut client =
        Client::connect(world.dial(Security::Tls).await, "a", Channel::Encrypted, Timeouts::default())
            .await
            .unwrap();
    for (credentials, only) in [
        (Credentials::password("ann", "wrong"), None),
        (Credentials::token(Some("ann"), "wrong"), Some(Mechanism::XOAuth2)),
        (Credentials::token(Some("ann"), "wrong"), Some(Mechanism::OAuthBearer)),
    ] {
        let refused = client.authenticate(&credentials, only).await;
        assert!(
            matches!(refused, Err(ClientError::Refused { stage: Stage::Auth, ref reply }) if reply.code() == 535),
            "{refused:?}"
        );
    }
    assert!(
        matches!(&send(&mut client, &["x@c.example"], b"x").await[..], [Outcome::Refused(no)] if no.code() == 530)
    );
}

#[tokio::test]
async fn a_refusal_reaches_a_peer_that_is_still_sending() {
    let world = World::start(ListenerKind::Mx, Limits::default());
    let mut peer = world.raw().await;
    assert!(line_of(&mut peer).await.starts_with("220"));
    peer.write_all(b"HELO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\n").await.unwrap();
    for _ in 0..4 {
        line_of(&mut peer).await;
    }
    peer.write_all(b"first\n.\nMAIL FROM:<x@y.example>\r\n").await.unwrap();
    peer.write_all("much more\r\n".repeat(50_000).as_bytes()).await.unwrap();
    peer.write_all(b".\r\nQUIT\r\n").await.unwrap();
    assert_eq!(to_the_end(&mut peer).await, "550 5.5.2 Bare CR, bare LF or NUL in the message\r\n");
    assert!(world.kept().is_empty());
}

#[tokio::test]
async fn whoever_talks_first_is_hung_up_on() {
    let limits = Limits { greeting_delay: PATIENCE, ..Limits::default() };
    let world = World::start(ListenerKind::Mx, limits);
    let mut peer = world.raw().await;
    peer.write_all(b"EHLO a\r\n").await.unwrap();
    assert!(to_the_end(&mut peer).await.starts_with("554 5.5.1"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_places_come_free() {
    let world = World::start(ListenerKind::Mx, Limits { connections_per_client_max: 2, ..Limits::default() });
    let mut held = vec![world.raw().await, world.raw().await];
    for peer in &mut held {
        assert!(line_of(peer).await.starts_with("220"));
    }
    assert!(to_the_end(&mut world.raw().await).await.starts_with("421 4.7.0"));
    held.clear();
    within(async { while !line_of(&mut world.raw().await).await.starts_with("220") {} }).await;
}

#[tokio::test]
async fn listeners_with_one_capacity_count_together_and_leave_a_part_to_submission() {
    let capacity =
        Capacity::new(Limits { connections_max: 3, submission_reserve_percent: 34, ..Limits::default() });
    let mx = World::start_with(ListenerKind::Mx, capacity.clone(), Keeper::default());
    let submission = World::start_with(ListenerKind::Submission, capacity, Keeper::default());
    let mut one = mx.raw().await;
    let mut two = submission.raw().await;
    assert!(line_of(&mut one).await.starts_with("220") && line_of(&mut two).await.starts_with("220"));
    assert!(to_the_end(&mut mx.raw().await).await.starts_with("421 4.7.0"));
    assert!(line_of(&mut submission.raw().await).await.starts_with("220"));
}

#[tokio::test]
async fn whoever_looks_for_recipients_is_sent_away_over_all_connections() {
    let limits = Limits { unknown_recipients_max: 20, ..Limits::default() };
    let world = World::start(ListenerKind::Mx, limits);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut peer = world.raw().await;
        line_of(&mut peer).await;
        peer.write_all(b"HELO a\r\nMAIL FROM:<a@b.example>\r\n").await.unwrap();
        let guesses = "RCPT TO:<unknown@c.example>\r\n".repeat(10) + "QUIT\r\n";
        peer.write_all(guesses.as_bytes()).await.unwrap();
        let said = to_the_end(&mut peer).await;
        answers.extend(said.lines().skip(2).map(|line| line[..3].to_owned()));
    }
    let expect = [vec!["550"; 10], vec!["221"], vec!["550"; 10], vec!["221"], vec!["421"]].concat();
    assert_eq!(answers, expect);
    // Those that exist are answered no differently: else one good guess in between would tell.
    let mut peer = world.raw().await;
    line_of(&mut peer).await;
    peer.write_all(b"HELO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\n").await.unwrap();
    let said = to_the_end(&mut peer).await;
    assert!(said.lines().last().unwrap().starts_with("421 4.7.0"), "{said}");
    assert!(world.kept().is_empty());
}

#[tokio::test]
async fn silence_and_dribble_end_with_421() {
    let limits = Limits { command_timeout: Duration::from_millis(80), ..Limits::default() };
    let world = World::start(ListenerKind::Mx, limits);
    // One octet after the other never makes a command.
    let mut peer = world.raw().await;
    assert!(line_of(&mut peer).await.starts_with("220"));
    let (mut reading, mut writing) = peer.into_split();
    let dribble = tokio::spawn(async move {
        while writing.write_all(b"N").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    });
    assert!(line_of(&mut reading).await.starts_with("421 4.4.2"));
    dribble.abort();
    assert!(world.kept().is_empty());
    // Nor a message, although each octet comes in good time. Commands have all the time in the world: a busy machine may take it.
    let limits = Limits { data_grace: Duration::from_millis(80), ..Limits::default() };
    let world = World::start(ListenerKind::Mx, limits);
    let mut peer = world.raw().await;
    line_of(&mut peer).await;
    peer.write_all(b"HELO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\n").await.unwrap();
    for _ in 0..4 {
        line_of(&mut peer).await;
    }
    let (mut reading, mut writing) = peer.into_split();
    let dribble = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    });
    assert!(line_of(&mut reading).await.starts_with("421 4.4.2"));
    dribble.abort();
    assert!(world.kept().is_empty());
}

#[tokio::test]
async fn shutdown_ends_idle_sessions_and_waits_for_the_work_in_hand() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let keeper = Keeper { gate: Some(Arc::clone(&gate)), ..Keeper::default() };
    let world = World::start_with(ListenerKind::Mx, Capacity::new(Limits::default()), keeper.clone());
    let mut idle = world.raw().await;
    line_of(&mut idle).await;
    let mut client = world.client().await;
    let busy = tokio::spawn(async move { send(&mut client, &["x@c.example"], b"x").await });
    within(async {
        while keeper.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    world.shutdown.cancel();
    assert!(to_the_end(&mut idle).await.starts_with("421 4.3.2"));
    assert!(!world.stopped.is_finished());
    gate.add_permits(1);
    assert!(matches!(&within(busy).await.unwrap()[..], [Outcome::Accepted { .. }]));
    within(world.stopped).await.unwrap();
    assert_eq!(keeper.kept.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_shared_memory_is_a_limit_too() {
    let world = World::start(ListenerKind::Mx, Limits { buffered_bytes_max: 100_000, ..Limits::default() });
    let mut client = world.client().await;
    let outcomes = send(&mut client, &["x@c.example"], "x\r\n".repeat(100_000).as_bytes()).await;
    assert!(matches!(&outcomes[..], [Outcome::Deferred(reply)] if reply.code() == 452), "{outcomes:?}");
    let mut client = world.client().await;
    assert!(matches!(&send(&mut client, &["x@c.example"], b"x").await[..], [Outcome::Accepted { .. }]));
}

/// A server that says its lines, each after one line of the client, in pieces of so many octets; it returns what it heard.
async fn scripted(stream: DuplexStream, lines: Vec<String>, octets: usize) -> String {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut heard = String::new();
    for line in lines {
        for piece in line.as_bytes().chunks(octets) {
            if writing.write_all(piece).await.is_err() {
                return heard;
            }
        }
        let mut command = Vec::new();
        while !command.ends_with(b"\r\n") {
            match reading.read_u8().await {
                Ok(octet) => command.push(octet),
                Err(_) => return heard + &String::from_utf8_lossy(&command),
            }
        }
        heard.push_str(&String::from_utf8_lossy(&command));
    }
    heard
}

/// Sends one message through a scripted server, on a clock that stands still while either has something to do. What the
/// client made of it, and what it said.
async fn against(lines: &[&str]) -> (Result<Vec<Outcome>, ClientError>, String) {
    let mut last = None;
    for octets in [1, usize::MAX] {
        let (ours, theirs) = duplex(65_536);
        let script = lines.iter().map(ToString::to_string).collect();
        let server = tokio::spawn(scripted(theirs, script, octets));
        let quick = Timeouts { data_end: Duration::from_millis(300), ..Timeouts::default() };
        let talk = async {
            let mut client = Client::connect(ours, "a", Channel::Clear, quick).await?;
            match client.send_data(&envelope(&["x@c.example"]), b"hello\r\n").await? {
                Transmission::Settled(outcomes) => Ok(outcomes),
                Transmission::Pending(pending) => Ok(pending.finish().await),
            }
        };
        let result = within(talk).await;
        let heard = within(server).await.unwrap();
        if let Some((before, _)) = &last {
            assert_eq!(format!("{before:?}"), format!("{result:?}"), "{lines:?}");
        }
        last = Some((result, heard));
    }
    last.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_plain_old_server_is_served_in_lock_step() {
    let (outcomes, heard) = against(&[
        "220 hi\r\n",
        "502 what\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "",
        "250 queued as 7\r\n",
    ])
    .await;
    assert_eq!(outcomes.unwrap(), [Outcome::Accepted { text: "queued as 7".into() }]);
    assert_eq!(
        heard,
        "EHLO a\r\nHELO a\r\nMAIL FROM:<ann@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\nhello\r\n.\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn before_the_dot_everything_odd_means_not_sent() {
    let hello = ["220 hi\r\n", "250 hi\r\n"];
    for script in [
        &["HTTP/1.1 400 Bad Request\r\n"][..],
        &["220-endless\r\n".repeat(200).as_str()],
        &["554 no service\r\n"],
        &["421 busy\r\n"],
        &[hello[0], hello[1], "354 to MAIL\r\n"],
        &[hello[0], hello[1], "250 ok\r\n", "354 to RCPT\r\n"],
        &[hello[0], hello[1], "250 ok\r\n250 out of step\r\n", "250 ok\r\n", "354 go\r\n"],
        &[hello[0], hello[1], "250 ok\r\n", "250 ok\r\n", "250 to DATA\r\n"],
        &[hello[0], hello[1], "250 ok\r\n", "250 ok\r\n", "354 go\r\n250 before the dot\r\n"],
        &[hello[0], hello[1], "250 ok\r\n", "221 bye\r\n"],
        &[hello[0], hello[1], "421 too busy\r\n"],
    ] {
        let (result, heard) = against(script).await;
        let error = result.expect_err("something odd was said");
        assert!(matches!(error.outcome(), Outcome::Deferred(_)), "{script:?}: {error:?}");
        assert!(!heard.contains("\r\n.\r\n"), "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_dot_everything_odd_means_unknown() {
    let start = ["220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", ""];
    for last in ["354 more\r\n", "nonsense\r\n", "250-never ends", ""] {
        let script: Vec<&str> = start.into_iter().chain([last]).collect();
        let (outcomes, _) = against(&script).await;
        assert_eq!(outcomes.unwrap(), [Outcome::Unknown], "{last:?}");
    }
    for (last, deferred) in [("451 later\r\n", true), ("554 no\r\n", false), ("421 closing\r\n", true)] {
        let script: Vec<&str> = start.into_iter().chain([last]).collect();
        let outcome = against(&script).await.0.unwrap().remove(0);
        assert_eq!(matches!(outcome, Outcome::Deferred(_)), deferred, "{outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Refused(_)), !deferred, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_message_are_the_recipients() {
    let (outcomes, heard) = against(&["220 hi\r\n", "250 hi\r\n", "550 5.7.1 no\r\n"]).await;
    assert!(matches!(&outcomes.unwrap()[..], [Outcome::Refused(_)]));
    assert!(heard.ends_with("MAIL FROM:<ann@b.example>\r\n"));
    let (outcomes, _) = against(&[
        "220 hi\r\n",
        "250 hi\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "451 no disk\r\n",
        "250 reset\r\n",
    ])
    .await;
    assert!(matches!(&outcomes.unwrap()[..], [Outcome::Deferred(_)]));
}

#[tokio::test]
async fn what_the_server_cannot_carry_is_not_sent() {
    for (offer, message, smtputf8) in [
        ("250 hi\r\n", "é", false),
        ("250 hi\r\n", "x", true),
        ("250-hi\r\n250 SIZE 10\r\n", "01234567890", false),
        ("250 hi\r\n", "a\nb", false),
    ] {
        let (ours, theirs) = duplex(4_096);
        let server = tokio::spawn(scripted(theirs, vec!["220 hi\r\n".into(), offer.into()], usize::MAX));
        let mut client = Client::connect(ours, "a", Channel::Clear, Timeouts::default()).await.unwrap();
        let envelope = Envelope { smtputf8, ..envelope(&["x@c.example"]) };
        let error = client.send_data(&envelope, message.as_bytes()).await.expect_err("it cannot be sent");
        assert!(error.is_permanent() && matches!(error.outcome(), Outcome::Refused(_)), "{error:?}");
        drop(client);
        assert_eq!(within(server).await.unwrap(), "EHLO a\r\n");
    }
}

#[tokio::test]
async fn tls_asked_for_is_tls_or_nothing() {
    for (script, expect) in [
        (&["220 hi\r\n", "250-gw\r\n250 SIZE 1000\r\n"][..], "TlsNotOffered"),
        (&["220 hi\r\n", "250-gw\r\n250 STARTTLS\r\n", "454 not now\r\n"], "Refused"),
        (
            &[
                "220 hi\r\n",
                "250-gw\r\n250 STARTTLS\r\n",
                "220 Ready\r\n250-gw.example\r\n250 AUTH PLAIN\r\n",
            ],
            "InjectedBeforeTls",
        ),
        (&["220 hi\r\n", "250-gw\r\n250 STARTTLS\r\n", "220 Ready\r\nx"], "InjectedBeforeTls"),
    ] {
        check_no_tls(script, expect).await;
    }
}

/// The client asks a server of these lines for TLS, gets this error instead, and has told it nothing.
async fn check_no_tls(script: &[&str], expect: &str) {
    let (ours, theirs) = duplex(4_096);
    let server = tokio::spawn(scripted(theirs, script.iter().map(ToString::to_string).collect(), usize::MAX));
    let client = Client::connect(ours, "a", Channel::Clear, Timeouts::default()).await.unwrap();
    let handshake =
        |_: DuplexStream| async { Err::<DuplexStream, _>(std::io::Error::other("no handshake was due")) };
    let error = client.starttls(handshake).await.expect_err("there is no TLS");
    assert!(format!("{error:?}").starts_with(expect), "{error:?}");
    let heard = within(server).await.unwrap();
    assert!(!heard.contains("AUTH") && !heard.contains("MAIL"), "{heard}");
}

#[tokio::test]
async fn servers_of_the_corpus_talk_no_client_out_of_tls() {
    let ours = |vector: &serde_json::Value| corpus::id(vector).starts_with("starttls/smtp-client-");
    for vector in corpus::vectors("starttls").iter().filter(|vector| ours(vector)) {
        let said = String::from_utf8(corpus::octets(vector)).unwrap();
        match corpus::id(vector) {
            "starttls/smtp-client-resp-inject" => {
                check_no_tls(&["220 hi\r\n", "250-gw\r\n250 STARTTLS\r\n", &said], "InjectedBeforeTls").await
            }
            "starttls/smtp-client-no-starttls" => check_no_tls(&["220 hi\r\n", &said], "TlsNotOffered").await,
            other => panic!("nobody judges {other}"),
        }
    }
}

#[tokio::test]
async fn endless_challenges_get_no_endless_answers() {
    let (ours, theirs) = duplex(4_096);
    let script =
        ["220 hi\r\n", "250-gw\r\n250 AUTH PLAIN LOGIN\r\n"].into_iter().chain(["334 VXNlcm5hbWU6\r\n"; 50]);
    let server = tokio::spawn(scripted(theirs, script.map(str::to_owned).collect(), usize::MAX));
    let mut client = Client::connect(ours, "a", Channel::ClearTrusted, Timeouts::default()).await.unwrap();
    let error = client
        .authenticate(&Credentials::password("ann", "secret"), Some(Mechanism::Login))
        .await
        .expect_err("a trap");
    assert!(matches!(error, ClientError::OutOfStep), "{error:?}");
    assert!(!client.is_usable());
    drop(client);
    assert!(within(server).await.unwrap().lines().count() <= 5);
}

#[tokio::test]
async fn a_cancelled_command_leaves_the_connection_out_of_use() {
    let (ours, theirs) = duplex(4_096);
    let server = tokio::spawn(scripted(
        theirs,
        vec!["220 hi\r\n".into(), "250 hi\r\n".into(), String::new()],
        usize::MAX,
    ));
    let mut client = Client::connect(ours, "a", Channel::Clear, Timeouts::default()).await.unwrap();
    assert!(timeout(Duration::from_millis(20), client.reset()).await.is_err());
    assert!(matches!(client.reset().await, Err(ClientError::Broken)));
    drop(client);
    within(server).await.unwrap();
}

#[tokio::test]
async fn an_idle_session_is_small() {
    let capacity = Capacity::new(Limits::default());
    let server = Arc::new(Server::new("gw.example", &[], capacity, None, |_, _| Keeper::default()));
    let (ours, _theirs) = duplex(64);
    let session =
        server.serve(ours, "192.0.2.1:1".parse().unwrap(), ListenerKind::Mx, CancellationToken::new());
    let bytes = size_of_val(&session);
    assert!(bytes < 4_096, "{bytes} octets");
}

#[tokio::test]
async fn a_listener_serves_again_after_a_peer_went_away_in_mid_message() {
    let world = World::start(ListenerKind::Mx, Limits::default());
    for cut in [
        "",
        "HE",
        "HELO a\r\nMAIL FROM:<a@b.example>\r\n",
        "HELO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\n",
    ] {
        let mut peer = world.raw().await;
        line_of(&mut peer).await;
        peer.write_all(cut.as_bytes()).await.unwrap();
        drop(peer);
    }
    let mut client = world.client().await;
    assert!(matches!(&send(&mut client, &["x@c.example"], b"x").await[..], [Outcome::Accepted { .. }]));
    assert_eq!(world.kept().len(), 1);
}
