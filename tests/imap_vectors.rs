//! The IMAP client against a corpus of what servers really send and what attackers would: each vector is judged in code.
//!
//! Not here: the corpus (`corpus`).

#![allow(clippy::indexing_slicing, reason = "in a test a panic is an answer")]

mod corpus;

use std::{collections::BTreeSet, future::Future, time::Duration};

use corpus::{id, octets, vectors};
use mailweave::account::judge;
use mailweave::imap::{
    Body, Chosen, Client, Criterion, Deadlines, Error, Fault, HeaderExtent, IdleEvent, Insecurity, Kind,
    Limits, ListedMailbox, MailboxName, Result, Uid, UidSet, choose,
};
use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    time::Instant,
};

const OFFERED: &str = "IMAP4rev1 IDLE CONDSTORE X-GM-EXT-1 ESEARCH COMPRESS=DEFLATE STARTTLS";

fn greeting() -> Vec<u8> {
    format!("* OK [CAPABILITY {OFFERED}] hi\r\n").into_bytes()
}

/// A server that answers the first command which is not CAPABILITY with `answer`, in which tagged lines get that
/// command's tag, adds an OK where the answer has no tagged line, and answers OK to all that follows.
async fn given<T, Fut>(greeting: &[u8], answer: &[u8], run: impl Fn(DuplexStream) -> Fut) -> (T, Vec<String>)
where
    Fut: Future<Output = T>,
{
    let mut outcomes = Vec::new();
    for segment in [1, 1 << 16] {
        let (ours, theirs) = duplex(segment);
        outcomes.push(tokio::join!(run(ours), serve(theirs, greeting, answer)));
    }
    outcomes.pop().expect("two outcomes")
}

async fn serve(stream: DuplexStream, greeting: &[u8], answer: &[u8]) -> Vec<String> {
    let mut stream = BufReader::new(stream);
    let mut said = Vec::new();
    let _ = stream.write_all(greeting).await;
    let mut answered = false;
    loop {
        let mut line = String::new();
        // A client that was handed on keeps the line open: then silence ends the play.
        let read = tokio::time::timeout(Duration::from_secs(4 * 3600), stream.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return said;
        }
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = if rest.starts_with("CAPABILITY") {
            format!("* CAPABILITY {OFFERED}\r\n{tag} OK done\r\n").into_bytes()
        } else if answered {
            format!("{tag} OK done\r\n").into_bytes()
        } else {
            answered = true;
            with_tag(answer, tag)
        };
        said.push(rest.trim_end().to_owned());
        let _ = stream.write_all(&reply).await;
    }
}

fn with_tag(answer: &[u8], tag: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut tagged = false;
    for line in answer.split_inclusive(|byte| *byte == b'\n') {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (first, rest) = line.split_at(space);
        let is_tag = first.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'a'))
            && first[1..].iter().all(u8::is_ascii_digit)
            && [" OK", " NO", " BAD"].iter().any(|status| rest.starts_with(status.as_bytes()));
        tagged |= is_tag;
        out.extend_from_slice(if is_tag { tag.as_bytes() } else { first });
        out.extend_from_slice(rest);
    }
    if !tagged && answer.ends_with(b"\n") {
        out.extend_from_slice(format!("{tag} OK done\r\n").as_bytes());
    }
    out
}

async fn connect(stream: DuplexStream) -> Client<DuplexStream> {
    connected(stream).await.expect("a greeting")
}

async fn connected(stream: DuplexStream) -> Result<Client<DuplexStream>> {
    Client::connect(stream, Limits::default(), Deadlines::default()).await
}

fn uid(number: u32) -> Uid {
    Uid::new(number).expect("not 0")
}

fn password() -> SecretString {
    "p".to_owned().into()
}

/// What NOOP makes of an answer.
async fn noop(answer: &[u8]) -> Result<()> {
    given(&greeting(), answer, |stream| async { connect(stream).await.noop().await }).await.0
}

/// What LOGIN makes of an answer.
async fn login(answer: &[u8]) -> Error {
    let run = |stream| async { connect(stream).await.login("ann", &password()).await };
    given(&greeting(), answer, run).await.0.expect_err("refused")
}

async fn headers(answer: &[u8], asked: UidSet) -> Result<(Vec<Uid>, UidSet)> {
    let run = |stream| {
        let asked = asked.clone();
        async move {
            let mut client = connect(stream).await;
            let mut fetch = client.fetch_headers(&asked, HeaderExtent::Whole);
            let mut uids = Vec::new();
            while let Some(item) = fetch.next().await? {
                uids.push(item.uid);
            }
            let missing = fetch.missing();
            client.noop().await?;
            Ok((uids, missing))
        }
    };
    given(&greeting(), answer, run).await.0
}

async fn body(answer: &[u8], wanted: Uid) -> Result<Body> {
    let run = |stream| async move { connect(stream).await.fetch_body(wanted, Some(3), 1000).await };
    given(&greeting(), answer, run).await.0
}

async fn search(answer: &[u8]) -> Result<String> {
    let run = |stream| async { connect(stream).await.uid_search(Criterion::All).await };
    given(&greeting(), answer, run).await.0.map(|uids| uids.to_string())
}

async fn list(answer: &[u8]) -> (Vec<ListedMailbox>, Chosen) {
    let run = |stream| async { connect(stream).await.list().await };
    let mailboxes = given(&greeting(), answer, run).await.0.expect("a list");
    let chosen = choose(&mailboxes, &[]);
    (mailboxes, chosen)
}

/// The client takes the bytes as a greeting and goes on.
async fn greets(bytes: &[u8]) -> Result<Client<DuplexStream>> {
    given(bytes, b"", connected).await.0
}

async fn starttls(greeting: &[u8], answer: &[u8]) -> (Option<Error>, Vec<String>) {
    let run = |stream| async { connected(stream).await?.starttls().await.map(drop) };
    let (outcome, said) = given(greeting, answer, run).await;
    (outcome.err(), said)
}

#[tokio::test(start_paused = true)]
async fn every_vector_of_servers_ends_as_it_should() {
    let mut unjudged = BTreeSet::new();
    for vector in vectors("imap_server") {
        let (id, bytes) = (id(&vector), octets(&vector));
        let name = id.trim_start_matches("imap_server/");
        println!("{name}");
        let judged = judge_status(name, &bytes).await
            || judge_fetch(name, &bytes).await
            || judge_idle(name, &bytes).await
            || judge_rest(name, &bytes).await;
        if !judged {
            unjudged.insert(id.to_owned());
        }
    }
    assert!(unjudged.is_empty(), "{unjudged:?}");
}

async fn judge_status(name: &str, bytes: &[u8]) -> bool {
    match name {
        "capability-no-space" => {
            let client = greets(b"* OK [CAPABILITY IMAP4rev1]ready\r\n").await.expect("accepted");
            assert!(client.capabilities().has("IMAP4rev1"));
        }
        "capability-dup-eq" => {
            let run = |stream| async {
                let mut client = connect(stream).await;
                client.noop().await.map(|()| client.capabilities().clone())
            };
            let offered = given(&greeting(), bytes, run).await.0.expect("accepted");
            assert!(offered.has_auth("PLAIN") && !offered.has_auth(""));
        }
        "leading-nul" => drop(greets(bytes).await.expect("accepted")),
        "lf-only" => noop(bytes).await.expect("accepted"),
        "line-endless" => {
            let endless = [b"* OK ".to_vec(), vec![b'A'; 10 << 20]].concat();
            assert!(matches!(noop(&endless).await, Err(Error::Protocol(Fault::LineTooLong))));
        }
        "bye-instead-of-greeting" => {
            let kind = judge(&greets(bytes).await.expect_err("turned away"));
            assert!(matches!(kind, Kind::BackOff(_) | Kind::Transient), "{kind:?}");
        }
        "bye-session-expired" => assert_eq!(judge(&noop(bytes).await.expect_err("gone")), Kind::Transient),
        "gmail-connections" | "dovecot-userip" => assert_eq!(judge(&login(bytes).await), Kind::BackOff(None)),
        "gmail-app-password" | "gmail-invalid-creds" => {
            assert_eq!(judge(&login(bytes).await), Kind::Credentials)
        }
        "o365-not-connected" => {
            assert_eq!(judge(&login(bytes).await), Kind::Credentials);
            assert_eq!(judge(&noop(bytes).await.expect_err("refused")), Kind::Credentials);
        }
        "o365-throttle" => {
            let wait = Kind::BackOff(Some(Duration::from_secs(300)));
            assert_eq!(judge(&noop(bytes).await.expect_err("refused")), wait);
        }
        "compress-after" => {
            // COMPRESS is never asked for, so that there is no stream to divide.
            let run = |stream| async { connect(stream).await.noop().await };
            let (_, said) = given(&greeting(), b"", run).await;
            assert!(said.iter().all(|line| !line.contains("COMPRESS")));
        }
        "login-literal-needed" => {
            let run = |stream| async {
                connect(stream).await.login("a\"b", &SecretString::from("pä\\\"".to_owned())).await
            };
            let (_, said) = given(&greeting(), b"+ go\r\n", run).await;
            assert_eq!(said[0], "LOGIN \"a\\\"b\" {5}");
        }
        _ => return false,
    }
    true
}

async fn judge_fetch(name: &str, bytes: &[u8]) -> bool {
    match name {
        "exchange-missing-uid" => {
            let (found, missing) = headers(bytes, uid(9).into()).await.expect("the connection lives");
            assert_eq!((found, missing), (vec![], uid(9).into()));
            assert_eq!(body(bytes, uid(9)).await.expect("the connection lives"), Body::Missing);
        }
        "exchange-substitute" => {
            let excuse =
                "Subject: Retrieval using the IMAP4 protocol failed for the following message: 280\r\n\r\nx";
            let answer = format!("* 280 FETCH (UID 9 BODY[] {{{}}}\r\n{excuse})\r\n", excuse.len());
            assert_eq!(body(answer.as_bytes(), uid(9)).await.expect("read"), Body::Placeholder);
            // The vector itself names no UID: its three octets belong to no message that was asked for.
            assert_eq!(body(bytes, uid(9)).await.expect("read"), Body::Missing);
        }
        "yahoo-fetch-no" => {
            let error = body(bytes, uid(9)).await.expect_err("refused");
            assert!(error.kind() == Kind::Transient && error.connection_lives());
        }
        "bs-empty-quotes" | "bs-nil-in-params" | "bs-related-nil" | "labels-nil" | "literal8"
        | "modseq-64" | "fetch-unasked" => {
            let (found, missing) = headers(bytes, UidSet::all()).await.expect("the connection lives");
            assert!(found.is_empty() && !missing.is_empty(), "{name}");
        }
        "fetch-items-after-paren" => {
            for error in [
                body(bytes, uid(5)).await.expect_err("broken"),
                headers(bytes, uid(5).into()).await.expect_err("broken"),
            ] {
                assert!(matches!(error, Error::Protocol(Fault::Malformed)) && !error.connection_lives());
            }
        }
        "uid-descending" => {
            let error = headers(bytes, UidSet::all()).await.expect_err("out of order");
            assert!(matches!(error, Error::Protocol(Fault::UidsNotAscending)));
        }
        "body-nil" => assert_eq!(body(bytes, uid(9)).await.expect("read"), Body::Missing),
        _ => return false,
    }
    true
}

async fn judge_idle(name: &str, bytes: &[u8]) -> bool {
    match name {
        "continuation-bare" | "idle-continuation-late" => {
            let run =
                |stream| async { connect(stream).await.idle(Instant::now() + Duration::from_secs(9)).await };
            // IDLE stays open: the answer must have no tagged line, so nothing is added to it.
            let (ours, mut theirs) = duplex(64);
            let served = async {
                theirs.write_all(&greeting()).await.expect("sent");
                let mut line = vec![0; b"a1 IDLE\r\n".len()];
                theirs.read_exact(&mut line).await.expect("asked");
                theirs.write_all(bytes).await.expect("sent");
                theirs
            };
            let (outcome, _theirs) = tokio::join!(run(ours), served);
            let event = outcome.expect("accepted");
            let expect_news = name == "idle-continuation-late";
            assert_eq!(matches!(event, IdleEvent::Changed(news) if news.arrived == Some(4)), expect_news);
        }
        "idle-29min" => {
            let (ours, theirs) = duplex(64);
            let run = async {
                let mut client = connect(ours).await;
                let waited = client.idle(Instant::now() + Duration::from_secs(29 * 60)).await;
                assert_eq!(waited.expect("silence"), IdleEvent::Timeout);
                client.noop().await.expect_err("half open")
            };
            let served = async {
                let mut theirs = theirs;
                theirs.write_all(&greeting()).await.expect("sent");
                theirs.write_all(b"+ \r\n").await.expect("sent");
                let mut said = String::new();
                theirs.read_to_string(&mut said).await.expect("read");
                said
            };
            let (error, said) = tokio::join!(run, served);
            assert!(matches!(error, Error::Timeout));
            assert_eq!(said, "a1 IDLE\r\nDONE\r\n");
        }
        _ => return false,
    }
    true
}

async fn judge_rest(name: &str, bytes: &[u8]) -> bool {
    let inbox = MailboxName::inbox();
    let select = |answer: Vec<u8>| {
        let inbox = inbox.clone();
        async move {
            let run = |stream| {
                let inbox = inbox.clone();
                async move { connect(stream).await.select(&inbox, None).await }
            };
            given(&greeting(), &answer, run).await
        }
    };
    match name {
        "uidvalidity-0" => assert_eq!(select(bytes.to_vec()).await.0.expect("accepted").uid_validity, None),
        "uidnext-missing" => {
            let (selected, said) = select(bytes.to_vec()).await;
            assert_eq!(selected.expect("accepted").exists, 3);
            assert!(said.iter().any(|line| line.starts_with("UID FETCH *")), "{said:?}");
        }
        "readonly-select" => assert!(select(bytes.to_vec()).await.0.expect("accepted").read_only),
        "flags-trailing-space" | "namespace-odd" => noop(bytes).await.expect("accepted"),
        "search-empty" => assert_eq!(search(b"* SEARCH\r\na1 OK\r\n").await.expect("read"), ""),
        "esearch" => assert_eq!(search(bytes).await.expect("read"), "1:3,5"),
        "esearch-nouid" => {
            assert!(matches!(search(bytes).await, Err(Error::Protocol(Fault::SequenceNumbers))));
        }
        "list-nil-delim" => assert!(list(bytes).await.0.iter().all(|mailbox| !mailbox.selectable)),
        "list-nonselect-nonexistent" => {
            let (mailboxes, chosen) = list(bytes).await;
            assert!(!mailboxes[0].selectable && chosen.sent.is_none());
        }
        "list-utf8-raw" => assert_eq!(list(bytes).await.0[0].display, "Entwürfe"),
        "list-inbox-case" => assert!(list(bytes).await.0[0].name.is_inbox()),
        "special-use-dup" => {
            let chosen = list(bytes).await.1;
            let both = [chosen.sent.into_iter().collect(), chosen.other_sent].concat();
            assert_eq!(both.iter().map(MailboxName::display).collect::<Vec<_>>(), ["Sent", "Sent Items"]);
        }
        _ => return false,
    }
    true
}

#[tokio::test(start_paused = true)]
async fn nothing_that_came_before_tls_is_used_after_it() {
    for vector in vectors("starttls") {
        let (id, bytes) = (id(&vector), octets(&vector));
        println!("{id}");
        match id.trim_start_matches("starttls/") {
            "imap-client-resp-inject" => {
                // One octet a segment lets the handshake see the bytes instead; in one segment we see them.
                let (error, said) = starttls(&greeting(), &bytes).await;
                assert!(matches!(error, Some(Error::Insecure(Insecurity::BytesBeforeTls))), "{error:?}");
                assert_eq!(said, ["STARTTLS"]);
            }
            "imap-preauth" => {
                let (error, said) = starttls(&bytes, b"").await;
                assert!(matches!(error, Some(Error::Insecure(Insecurity::PreAuthenticated))), "{error:?}");
                assert!(!said.iter().any(|line| line.contains("STARTTLS")));
            }
            "imap-referral-bye" => {
                let (error, said) = starttls(&bytes, b"").await;
                assert!(matches!(error, Some(Error::ServerBye { .. })) && said.is_empty(), "{error:?}");
            }
            "imap-alert-before-tls" => {
                // The alert stays with the client of before; the one over TLS has none.
                let mut before = greets(&bytes).await.expect("accepted");
                assert_eq!(before.take_alerts().len(), 1);
                let run = |stream| async {
                    let stream = connected(stream).await?.starttls().await?;
                    Client::connect_after_starttls(stream, Limits::default(), Deadlines::default()).await
                };
                let (after, _) = given(&bytes, b"a1 OK go\r\n", run).await;
                assert!(after.expect("capabilities").take_alerts().is_empty());
            }
            "pop-style-tag" => {
                let error = greets(&bytes).await.expect_err("no greeting");
                assert!(matches!(error, Error::Protocol(Fault::NoGreeting)), "{error:?}");
                assert!(matches!(noop(&bytes).await, Err(Error::Protocol(Fault::UnexpectedContinuation))));
            }
            smtp => assert!(smtp.starts_with("smtp-"), "not judged: {smtp}"),
        }
    }
}
