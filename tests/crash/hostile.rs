//! Peers that waste our time, talk nonsense or smuggle, at our doors and behind accounts: normal mail flows beside them, memory
//! stays bounded, and nothing that nobody said is stored.
//!
//! Not here: what each of them is answered (`tests/smtp_*`).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, task::JoinSet, time::timeout};

use crate::{
    corpus::vectors,
    load::{Door, Ledger, Load, offer},
    peer::{Peer, stuffed},
    proof::{Journal, prove},
    support::{
        eventually,
        imap_peer::{Asked, ImapPeer, Say},
    },
    world::{Setup, World, address, contact},
};

/// Connections that are held, and of how many addresses.
const HELD: usize = 300;
const PER_ADDRESS: usize = 25;
/// What three hundred connections and as much hostile data as they like may cost.
const GROWTH_BYTES_MAX: u64 = 96 * 1024 * 1024;
/// A contact whose mail no server hands out.
const ACQUAINTANCE: &str = "acquaintance@elsewhere.example";
/// Sessions begin one after the other, and those before may have to be given up first.
const VISITED_WITHIN: Duration = Duration::from_secs(90);
/// What three hundred accounts at hostile servers may cost, whatever those send: room for bodies is shared by all and limited.
const ACCOUNTS_GROWTH_BYTES_MAX: u64 = 512 * 1024 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
const SMALL_MESSAGES: &str = "message_bytes_max = \"1MiB\"";

/// A client address for the peer with this number: all of 127/8 is this machine.
fn origin(number: usize) -> IpAddr {
    IpAddr::from([127, 0, 1, u8::try_from(1 + number / PER_ADDRESS).unwrap()])
}

/// Holds a connection in one of several unpleasant ways, until it is dropped or hung up on.
async fn hold(number: usize, to: SocketAddr, capture_address: String) {
    let Ok(mut stream) = Peer::dial(to, origin(number)).await else { return };
    let prelude = match number % 5 {
        // Silent, before and after a beginning.
        0 => String::new(),
        1 => "EHLO slow.example\r\nMAIL FROM:<a@slow.example>\r\n".to_owned(),
        // A command and a message that never end.
        2 => "EHLO slow".to_owned(),
        _ => format!(
            "EHLO slow.example\r\nMAIL FROM:<a@slow.example>\r\nRCPT TO:<{capture_address}>\r\nDATA\r\n"
        ),
    };
    if stream.write_all(prelude.as_bytes()).await.is_err() {
        return;
    }
    let (mut ear, mut mouth) = stream.split();
    let listen = async { while ear.read(&mut [0; 4096]).await.is_ok_and(|octets| octets > 0) {} };
    let talk = async {
        match number % 5 {
            2 | 3 => loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if mouth.write_all(b"x").await.is_err() {
                    return;
                }
            },
            // Far more than is allowed, as quickly as it is taken.
            4 => {
                let line = format!("{}\r\n", "y".repeat(998));
                for _ in 0..8 * MESSAGE_BYTES_MAX / line.len() {
                    if mouth.write_all(line.as_bytes()).await.is_err() {
                        return;
                    }
                }
                std::future::pending().await
            }
            _ => std::future::pending().await,
        }
    };
    tokio::select! { () = listen => {} () = talk => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn normal_mail_flows_beside_three_hundred_slow_peers_in_bounded_memory() {
    let world = World::build(Setup { smtp: SMALL_MESSAGES, ..Setup::default() }).await;
    let load = Load::begin(&world);
    load.ledger.grown_to(60).await;
    let before = world.gateway.resident_bytes();
    let mut peers = JoinSet::new();
    for number in 0..HELD {
        let to = if number % 3 == 0 { world.gateway.at.submission } else { world.gateway.at.mx };
        peers.spawn(hold(number, to, world.users[0].capture_address.clone()));
    }
    let mut most = 0;
    for _ in 0..10 {
        load.ledger.grown_to(load.ledger.len() + 30).await;
        most = most.max(world.gateway.resident_bytes());
    }
    let ledger = load.finish().await;
    let figures = prove(&world, &ledger).await;
    peers.shutdown().await;
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    println!("{} MiB before, {} MiB at most; {figures}", mebibytes(before), mebibytes(most));
    assert!(most < before + GROWTH_BYTES_MAX, "{} MiB, {} before", mebibytes(most), mebibytes(before));
}

/// How a hostile IMAP server wastes what it can, by its number.
fn waste(number: usize) -> impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static {
    let said = move |text: &str| text.as_bytes().to_vec();
    // As much as a line takes that they share; of what costs the reader more than the writer, less.
    let endless =
        move |first: &str, again: Vec<u8>| Say::Endless(said(first), again, Duration::from_millis(20));
    let slowly = move |first: &str, again: Vec<u8>| Say::Endless(said(first), again, Duration::from_secs(2));
    let lines = |line: &str| line.repeat(16 * 1024 / line.len() + 1).into_bytes();
    move |asked| {
        let at = |verb: &str| asked.line.starts_with(verb);
        match number % 12 {
            // A greeting, a list and a flag that never end.
            0 if at("GREETING") => endless("* OK ", vec![b'x'; 16 * 1024]),
            1 if at("LIST") => slowly("", lines(&format!("* LIST () \"/\" \"{}\"\r\n", "n".repeat(1000)))),
            2 if at("EXAMINE") => slowly("", lines("* 4000000000 EXISTS\r\n* FLAGS (\\Seen)\r\n")),
            // A drop at a time, silence, and silence where it has been told of mail.
            3 if at("LOGIN") => Say::Endless(said("* "), said("x"), Duration::from_millis(100)),
            4 if at("GREETING") => Say::Nothing,
            5 if at("DONE") => Say::Nothing,
            // Literals: one announced as large as can be, one that goes on, one larger than it was said to be.
            6 if at("UID FETCH") => {
                endless("* 1 FETCH (UID 1 BODY[HEADER] {4294967295}\r\n", vec![b'h'; 16 * 1024])
            }
            7 if at("UID FETCH 1 (UID BODY") => {
                endless("* 1 FETCH (UID 1 BODY[] {67108864}\r\n", vec![b'b'; 64 * 1024])
            }
            // Answers to what was not asked.
            8 if at("UID FETCH") => slowly("", lines("* 9 FETCH (UID 9 FLAGS (\\Seen) MODSEQ (7))\r\n")),
            // UIDs that take as much memory as can be, in one line and in many.
            9 if at("UID SEARCH") => endless(
                "* SEARCH",
                (0..2000).map(|n| format!(" {}", 4_000_000_000_u32 + 2 * n)).collect::<String>().into_bytes(),
            ),
            10 if at("UID SEARCH") => {
                let line = |n: u32| (0..800).map(|m| format!(" {}", n * 2000 + 2 * m)).collect::<String>();
                let all: String = (1..300).map(|n| format!("* SEARCH{}\r\n", line(n))).collect();
                endless(&all, said("* SEARCH 7\r\n"))
            }
            // Cries for nothing.
            11 if at("IDLE") => slowly("+ idling\r\n", lines("* 1 EXISTS\r\n* 1 RECENT\r\n")),
            _ => Say::Honestly,
        }
    }
}

/// An account at a hostile server, for a user of its own.
async fn admit(world: &World, number: usize) -> ImapPeer {
    let peer = ImapPeer::start(waste(number)).await;
    let email = format!("victim{number}@acme.example");
    // Mail that belongs is asked for, and never had: nothing of these is filed beside what the load has sent.
    let from = if number % 12 == 7 { ACQUAINTANCE } else { "x@elsewhere.example" };
    peer.deliver(&format!("From: <{from}>\r\nTo: <{email}>\r\nSubject: x\r\n\r\nHello.\r\n"));
    let user = world.api.post("/workspaces/acme/users", &json!({ "email": email, "name": "A Victim" })).await;
    let server = json!({ "host": "127.0.0.1", "port": peer.address.port(), "security": "none" });
    let account = json!({
        "user_id": user["id"], "email": email, "imap": server, "smtp": server,
        "auth": { "type": "password", "username": email, "password": "pw" },
    });
    world.api.post("/workspaces/acme/accounts", &account).await;
    peer
}

#[tokio::test(flavor = "multi_thread")]
async fn normal_mail_flows_beside_accounts_at_three_hundred_hostile_servers_in_bounded_memory() {
    let began = Instant::now();
    let world = World::build(Setup::default()).await;
    world.api.post("/workspaces/acme/contacts", &json!({ "email": ACQUAINTANCE })).await;
    let before = world.gateway.resident_bytes();
    let peers: Vec<_> = stream::iter(0..HELD).map(|number| admit(&world, number)).buffered(8).collect().await;
    println!("{:?}: all are admitted", began.elapsed());
    let visited = || peers.iter().filter(|peer| peer.visits() > 0).count();
    eventually("every server to be visited", VISITED_WITHIN, async || visited() == HELD).await;
    println!("{:?}: all are visited", began.elapsed());
    let load = Load::begin(&world);
    for _ in 0..4 {
        load.ledger.grown_to(load.ledger.len() + 15).await;
    }
    println!("{:?}: mail has flowed", began.elapsed());
    let ledger = load.finish().await;
    let figures = prove(&world, &ledger).await;
    let most = world.gateway.most_resident_bytes();
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    println!("{} MiB before, {} MiB at most; {figures}", mebibytes(before), mebibytes(most));
    assert!(!world.gateway.log().contains("panicked"), "{}", world.gateway.log_tail());
    assert!(
        most < before + ACCOUNTS_GROWTH_BYTES_MAX,
        "{} MiB, {} before",
        mebibytes(most),
        mebibytes(before)
    );
}

/// Octets that are the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut octets = vec![0; length];
    hasher.finalize_xof().fill(&mut octets);
    // Some with line ends and words of the protocol, so that more than the first line is read.
    if seed.is_multiple_of(2) {
        for at in (0..octets.len().saturating_sub(16)).step_by(97) {
            octets[at..at + 2].copy_from_slice(b"\r\n");
            octets[at + 2..at + 12].copy_from_slice(
                [b"EHLO x\r\n\r\n", b"MAIL FROM:", b"RCPT TO:<a", b"DATA\r\n.\r\nX", b"AUTH PLAIN"]
                    [at / 97 % 5],
            );
        }
    }
    octets
}

/// Says all of this, hears whatever comes, and is gone.
async fn shout(to: SocketAddr, from: IpAddr, octets: &[u8]) {
    let Ok(mut stream) = Peer::dial(to, from).await else { return };
    // Whoever is hung up on cannot write to the end.
    drop(stream.write_all(octets).await);
    drop(stream.shutdown().await);
    let mut heard = Vec::new();
    let ended = timeout(Duration::from_secs(30), stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the gateway does not hang up");
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_is_survived_at_every_door() {
    let (world, ledger) = (World::build(Setup::default()).await, Ledger::default());
    let at = world.gateway.at;
    let mut peers = JoinSet::new();
    for seed in 0..40 {
        for to in [at.mx, at.submission, at.submissions, at.http] {
            let from = origin(usize::try_from(seed).unwrap());
            peers.spawn(async move {
                shout(to, from, &noise(seed, 200 + 311 * usize::try_from(seed).unwrap())).await
            });
        }
    }
    while let Some(ended) = peers.join_next().await {
        ended.unwrap();
    }
    send_normally(&world, &ledger, 0).await;
    prove(&world, &ledger).await;
    assert!(!world.gateway.log().contains("panicked"), "{}", world.gateway.log_tail());
}

/// One message by each of the SMTP doors.
async fn send_normally(world: &World, ledger: &Ledger, serial: u64) {
    let captured = offer(&world.users, (Door::Capture, 9), serial);
    let mut peer = Peer::connect(world.gateway.at.mx).await.unwrap();
    let to = [captured.user.capture_address.clone()];
    let reply = peer.transaction(&captured.user.email, &to, &captured.raw).await.unwrap();
    ledger.note(&captured, &reply.key());
    let submitted = offer(&world.users, (Door::Submission, 9), serial);
    let mut peer = log_in(world).await;
    let reply = peer.transaction(&submitted.user.email, &submitted.to, &submitted.raw).await.unwrap();
    ledger.note(&submitted, &reply.key());
}

async fn log_in(world: &World) -> Peer {
    Peer::log_in(world.gateway.at.submission, &world.tls, ("acme", &world.key)).await.unwrap()
}

/// What hides a second message in the first, and whether it is said before DATA: ours, and the shared corpus's where it is
/// at hand.
fn smuggling() -> Vec<(String, bool)> {
    let second = "MAIL FROM:<admin@victim.example>\r\nRCPT TO:<bcc-x@gw.example>\r\nDATA\r\n\
         From: admin@victim.example\r\nSubject: smuggled\r\n\r\nsecond\r\n.\r\nQUIT\r\n";
    let ours = ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r\r\n", "\r\n\0.\r\n"].map(|end| {
        let first = "From: joe@sender.example\r\nTo: x@ok.example\r\nSubject: first\r\n\r\nfirst";
        (format!("{first}{end}{second}"), false)
    });
    let theirs = vectors("smtp_eod");
    let theirs = theirs.iter().map(|vector| (said(vector), vector["state"] == "after RCPT"));
    ours.into_iter().chain(theirs).collect()
}

/// What a vector says, an octet a character.
fn said(vector: &Value) -> String {
    vector["bytes"].as_str().unwrap().to_owned()
}

/// The octets, each character one, with people who exist here in place of their own: what is smuggled could be filed and
/// sent.
fn octets(text: &str, first: &str, smuggled: &str) -> Vec<u8> {
    let text = text
        .replace("joe@sender.example", "ann@acme.example")
        .replace("admin@victim.example", "bea@acme.example")
        .replace("x@ok.example", first)
        .replace("bcc-x@gw.example", smuggled)
        // It may be taken, and then is not from somebody unknown.
        .replace("Subject: early", "From: ann@acme.example\r\nSubject: early");
    text.chars().map_while(|octet| u8::try_from(u32::from(octet)).ok()).collect()
}

/// Plays a vector in one piece and octet by octet, each on a connection brought to where it belongs.
async fn play(world: &World, octets: &[u8], early: bool, submission: bool) {
    for step in [octets.len(), 1] {
        let to = if submission { contact(0) } else { world.users[0].capture_address.clone() };
        let mut peer = match submission {
            true => log_in(world).await,
            false => Peer::connect(world.gateway.at.mx).await.unwrap(),
        };
        if early {
            peer.command("MAIL FROM:<ann@acme.example>").await.unwrap();
            peer.command(&format!("RCPT TO:<{to}>")).await.unwrap();
        } else {
            assert_eq!(peer.begin("ann@acme.example", &[to]).await.unwrap().code, 354);
        }
        for piece in octets.chunks(step) {
            if peer.write(piece).await.is_err() {
                break;
            }
        }
        let answers = peer.rest().await;
        assert!(!answers.contains("250 2.1"), "a command was smuggled: {answers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_smuggled_is_stored_or_sent() {
    let (world, ledger) =
        (World::build(Setup { smtp: "errors_max = 1000", ..Setup::default() }).await, Ledger::default());
    for (text, early) in smuggling() {
        let captured = octets(&text, &contact(0), &world.users[1].capture_address);
        play(&world, &captured, early, false).await;
        play(&world, &octets(&text, &contact(0), &contact(1)), early, true).await;
    }
    send_normally(&world, &ledger, 0).await;
    let keys: Vec<_> = ledger.accepted().into_iter().map(|accepted| accepted.key).collect();
    let mut journal = Journal::of(&world);
    journal
        .until("what was sent normally to be told", |journal| {
            let kinds = ["message.captured", "message.sent"].map(|kind| journal.count(kind));
            keys.iter().all(|key| kinds.iter().any(|count| count.contains_key(key)))
        })
        .await;
    for message in world.api.messages().await {
        assert_ne!(message["subject"], "smuggled", "{message}");
        let normal = keys.iter().any(|key| message["id"] == key.as_str());
        assert!(normal || message["author"]["email"] == "ann@acme.example", "{message}");
    }
    assert_eq!(journal.events_of("message.held"), [] as [&Value; 0], "taken for somebody unknown");
    let smuggled = |mail: &mailweave::sandbox::StoredMail| {
        mail.header("subject").is_some_and(|s| s.contains("smuggled"))
    };
    for number in 0..2 {
        let inbox = world.provider().inbox(&address(&contact(number)));
        assert!(!inbox.iter().any(smuggled), "it was sent");
    }
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_sessions_leave_nothing_behind() {
    let (world, ledger) = (World::build(Setup::default()).await, Ledger::default());
    let at = world.gateway.at;
    let ours = [
        "VRFY root\r\nEXPN staff\r\nXCLIENT ADDR=127.0.0.1\r\n",
        "GET / HTTP/1.1\r\nHost: gw.example\r\n\r\n",
        "MAIL FROM:<>\r\nRCPT TO:<bcc-x@gw.example>\r\nDATA\r\nSubject: early\r\n\r\nx\r\n.\r\n",
        "MAIL FROM:<joe@sender.example>\r\nRCPT TO:<x@ok.example>\r\nBDAT 9 LAST\r\nsmuggled\n",
        "AUTH PLAIN AGFubgBzZWNyZXQ=\r\nAUTH LOGIN\r\n*\r\nSTARTTLS\r\nMAIL FROM:<joe@sender.example>\r\n",
    ];
    let theirs = vectors("smtp_session");
    let all = ours.map(str::to_owned).into_iter().chain(theirs.iter().map(said));
    for (number, text) in all.enumerate() {
        let octets = octets(&text, &contact(0), &contact(1));
        for to in [at.mx, at.submission, at.submissions] {
            shout(to, origin(number), &octets).await;
            shout(to, origin(number), &[b"EHLO client.example\r\n", octets.as_slice()].concat()).await;
        }
        let mut peer = log_in(&world).await;
        // It may have hung up before it has heard everything.
        drop(peer.write(&octets).await);
        peer.rest().await;
    }
    send_normally(&world, &ledger, 0).await;
    prove(&world, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_answer_nobody_read_is_taken_once_when_it_comes_again() {
    let (world, ledger) = (World::build(Setup::default()).await, Ledger::default());
    let offered = offer(&world.users, (Door::Capture, 8), 0);
    let to = [offered.user.capture_address.clone()];
    for _ in 0..5 {
        let stream = Peer::dial(world.gateway.at.mx, origin(0)).await.unwrap();
        // Closing resets the connection, whatever is still under way.
        stream.set_zero_linger().unwrap();
        let mut peer = Peer::greet(stream).await.unwrap();
        assert_eq!(peer.begin(&offered.user.email, &to).await.unwrap().code, 354);
        peer.write(&[stuffed(&offered.raw).as_slice(), b".\r\n"].concat()).await.unwrap();
    }
    let mut peer = Peer::connect(world.gateway.at.mx).await.unwrap();
    let reply = peer.transaction(&offered.user.email, &to, &offered.raw).await.unwrap();
    ledger.note(&offered, &reply.key());
    prove(&world, &ledger).await;
}
