//! The IMAP client in dialogue with a scripted server, each dialogue also one byte at a time.
//!
//! Not here: what single responses mean; the modules of `imap` say that in their own tables.

#![allow(clippy::indexing_slicing, reason = "in a test a panic is an answer")]

use std::{future::Future, time::Duration};

use mailweave::{
    account::judge,
    imap::{
        Append, Body, Client, Criterion, Deadlines, Error, Fault, Flag, HeaderExtent, IdleEvent, Insecurity,
        Kind, Limits, MailboxName, ModSeq, Resume, Uid, UidSet, UidValidity,
    },
    mail::MessageId,
};
use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    time::Instant,
};

/// Plays a script against the client that `run` drives, in whole segments and byte by byte. `C: ` is a line that the
/// client must say, `S: ` one that the server says, `S! ` the same without line end, `WAIT` a pause of 20 seconds and `LINGER` one of 200 milliseconds.
async fn dialogue<Fut: Future<Output = ()>>(script: &[&str], run: impl Fn(DuplexStream) -> Fut) {
    for segment in [1, 1 << 20] {
        let (ours, theirs) = duplex(segment);
        let served = async {
            let mut theirs = BufReader::new(theirs);
            for line in script {
                serve(&mut theirs, line).await;
            }
            // What the script leaves open stays open until the client goes, and the client says nothing more.
            let mut rest = String::new();
            theirs.read_to_string(&mut rest).await.expect("text");
            assert_eq!(rest, "", "after the script");
        };
        tokio::join!(served, run(ours));
    }
}

async fn serve(stream: &mut BufReader<DuplexStream>, line: &str) {
    if let Some(expect) = line.strip_prefix("C: ") {
        let mut said = String::new();
        stream.read_line(&mut said).await.expect("a line");
        assert_eq!(said, format!("{expect}\r\n"));
    } else if let Some(text) = line.strip_prefix("S: ") {
        // The client may have gone, and be right.
        let _ = stream.write_all(format!("{text}\r\n").as_bytes()).await;
    } else if let Some(text) = line.strip_prefix("S! ") {
        let _ = stream.write_all(text.as_bytes()).await;
    } else if line == "WAIT" {
        tokio::time::sleep(Duration::from_secs(20)).await;
    } else if line == "LINGER" {
        tokio::time::sleep(Duration::from_millis(200)).await;
    } else if line == "CLOSE" {
        let _ = stream.shutdown().await;
    } else {
        panic!("{line}");
    }
}

async fn connect(stream: DuplexStream) -> Client<DuplexStream> {
    Client::connect(stream, Limits::default(), Deadlines::default()).await.expect("a greeting")
}

fn inbox() -> MailboxName {
    MailboxName::inbox()
}

fn uid(number: u32) -> Uid {
    Uid::new(number).expect("not 0")
}

fn secret(text: &str) -> SecretString {
    text.to_owned().into()
}

#[tokio::test(start_paused = true)]
async fn a_password_goes_by_plain_and_capabilities_are_learnt_anew() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR]ready",
            "C: a1 AUTHENTICATE PLAIN AGFubgBw",
            "S: a1 OK logged in",
            "C: a2 CAPABILITY",
            "S: * CAPABILITY IMAP4rev1 IDLE",
            "S: a2 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            client.login("ann", &secret("p")).await.expect("logged in");
            assert!(client.capabilities().has("IDLE") && !client.capabilities().has_auth("PLAIN"));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_initial_response_plain_waits_to_be_asked() {
    dialogue(
        &[
            "S: * OK ready",
            "C: a1 CAPABILITY",
            "S: * CAPABILITY IMAP4rev1 AUTH= AUTH=PLAIN",
            "S: a1 OK done",
            "C: a2 AUTHENTICATE PLAIN",
            "S: +",
            "C: AGFubgBw",
            "S: a2 OK [CAPABILITY IMAP4rev1 IDLE] in",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            client.login("ann", &secret("p")).await.expect("logged in");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_password_that_cannot_be_quoted_goes_as_a_literal() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1] hi",
            "C: a1 LOGIN \"a\\\"b\" {3}",
            "S: + go",
            "C: pé",
            "S: a1 NO [AUTHENTICATIONFAILED] wrong",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error = client.login("a\"b", &secret("pé")).await.expect_err("refused");
            assert!(matches!(error, Error::Auth { .. }) && error.kind() == Kind::Credentials, "{error:?}");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_password_does_not_go_where_login_is_disabled() {
    dialogue(&["S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi"], |stream| async {
        let mut client = connect(stream).await;
        let error = client.login("ann", &secret("p")).await.expect_err("refused");
        assert!(matches!(error, Error::Insecure(Insecurity::LoginDisabled)));
        let error = client.login("ann", &secret("p\r\na2 DELETE INBOX")).await.expect_err("refused");
        assert!(matches!(error, Error::Unsendable(_)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_dismissed_and_its_reason_kept() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] Gimap",
            "C: a1 AUTHENTICATE XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdAEB",
            "S: + eyJzdGF0dXMiOiI0MDAifQ==",
            "C: ",
            "S: a1 NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error = client.authenticate_xoauth2("ann", &secret("t")).await.expect_err("refused");
            assert_eq!(error.kind(), Kind::Credentials);
            let Error::Auth { detail: Some(detail), .. } = error else { panic!("{error:?}") };
            assert_eq!(detail.as_str(), "{\"status\":\"400\"}");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn endless_continuations_end() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER] hi",
            "C: a1 AUTHENTICATE OAUTHBEARER",
            "S: + ",
            "C: bixhPWFubiwBYXV0aD1CZWFyZXIgdAEB",
            "S: + e30=",
            "C: AQ==",
            "S: + e30=",
            "C: AQ==",
            "S: + e30=",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error = client.authenticate_oauthbearer("ann", &secret("t")).await.expect_err("refused");
            assert!(matches!(error, Error::Protocol(Fault::TooManyContinuations)), "{error:?}");
            assert!(matches!(client.noop().await, Err(Error::Protocol(Fault::Abandoned))));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn starttls_gives_the_stream_back_and_forgets_what_was_said() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi",
            "C: a1 STARTTLS",
            "S: * CAPABILITY IMAP4rev1 X-EVIL",
            "S: a1 OK go",
            "C: a1 CAPABILITY",
            "S: * CAPABILITY IMAP4rev1 AUTH=PLAIN",
            "S: a1 OK done",
        ],
        |stream| async {
            let stream = connect(stream).await.starttls().await.expect("the stream");
            let client =
                Client::connect_after_starttls(stream, Limits::default(), Deadlines::default()).await;
            let client = client.expect("capabilities");
            assert!(client.capabilities().has_auth("PLAIN") && !client.capabilities().has("X-EVIL"));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_refusal_ends_the_connection_and_blames_no_password() {
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1] hi",
            "C: a1 LOGIN \"ann\" \"p\"",
            "S: a0 NO [AUTHENTICATIONFAILED] no",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error = client.login("ann", &secret("p")).await.expect_err("a stranger's tag");
            assert!(matches!(error, Error::Protocol(Fault::UnknownTag)) && error.kind() == Kind::Misbehaving);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_select_resumes_where_it_left() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 ENABLE QRESYNC CONDSTORE] hi",
            "C: a1 ENABLE QRESYNC",
            "S: * ENABLED QRESYNC",
            "S: a1 OK done",
            "C: a2 SELECT \"INBOX\" (QRESYNC (67890007 90060115194045000))",
            "S: * 314 EXISTS",
            "S: * OK [UIDVALIDITY 67890007] ok",
            "S: * OK [UIDNEXT 567] ok",
            "S: * OK [HIGHESTMODSEQ 90060115205545359] ok",
            "S: * VANISHED (EARLIER) 41,43:116",
            "S: * 49 FETCH (UID 117 FLAGS (\\Seen) MODSEQ (90060115194045001))",
            "S: a2 OK [READ-WRITE] done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            assert!(client.is_preauthenticated());
            assert!(client.enable_qresync().await.expect("on"));
            let uid_validity = UidValidity::new(67_890_007).expect("not 0");
            let modseq = ModSeq::new(90_060_115_194_045_000).expect("not 0");
            let selected =
                client.select(&inbox(), Some(Resume { uid_validity, modseq })).await.expect("selected");
            assert_eq!((selected.exists, selected.uid_next), (314, Some(uid(567))));
            assert_eq!(selected.uid_validity, Some(uid_validity));
            assert_eq!(selected.highest_modseq, ModSeq::new(90_060_115_205_545_359));
            assert_eq!(selected.vanished.to_string(), "41,43:116");
            assert_eq!(selected.changed.to_string(), "117");
            assert!(!selected.read_only);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_uidnext_is_worked_out() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 EXAMINE \"Sent\"",
            "S: * FLAGS (\\Answered \\Seen $Forwarded )",
            "S: * OK [UIDVALIDITY 7] x",
            "S: * 3 EXISTS",
            "S: a1 OK [READ-ONLY] done",
            "C: a2 UID FETCH * (UID)",
            "S: * 3 FETCH (UID 41)",
            "S: a2 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let sent = MailboxName::from_display("Sent").expect("a name");
            let selected = client.examine(&sent, None).await.expect("selected");
            assert_eq!(selected.uid_next, Some(uid(42)));
            assert!(selected.read_only);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_modseq_is_asked_for_where_there_is_none() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 CONDSTORE] hi",
            "C: a1 SELECT \"INBOX\" (CONDSTORE)",
            "S: * 0 EXISTS",
            "S: * OK [NOMODSEQ] none here",
            "S: a1 OK done",
            "C: a2 UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER])",
            "S: a2 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            assert_eq!(client.select(&inbox(), None).await.expect("selected").highest_modseq, None);
            let mut fetch = client.fetch_headers(&UidSet::all(), HeaderExtent::Whole);
            assert_eq!(fetch.next().await.expect("the end"), None);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_select_leaves_the_connection_usable() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 SELECT \"x\"",
            "S: a1 NO [NONEXISTENT] no such mailbox",
            "C: a2 NOOP",
            "S: a2 OK",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error =
                client.select(&MailboxName::new(b"x").expect("a name"), None).await.expect_err("refused");
            assert!(error.kind() == Kind::Refused && error.connection_lives());
            client.noop().await.expect("alive");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_statuses_take_one_round_trip() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 CONDSTORE] hi",
            "C: a1 STATUS \"INBOX\" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)",
            "C: a2 STATUS \"gone\" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)",
            "C: a3 STATUS \"Sent\" (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)",
            "S: * STATUS INBOX (MESSAGES 3 UIDNEXT 42 UIDVALIDITY 7 HIGHESTMODSEQ 9)",
            "S: a1 OK done",
            "S: a2 NO [NONEXISTENT] no",
            "S: * STATUS {4}",
            "S: Sent (UIDVALIDITY 0 UIDNEXT 5 X (a) )",
            "S: a3 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let names =
                ["inbox", "gone", "Sent"].map(|name| MailboxName::new(name.as_bytes()).expect("a name"));
            let answers = client.status(&names).await.expect("answers");
            let [Ok(first), Err(second), Ok(third)] = &answers[..] else { panic!("{answers:?}") };
            assert_eq!(
                (first.messages, first.uid_next, first.highest_modseq),
                (Some(3), Some(uid(42)), ModSeq::new(9))
            );
            assert_eq!(second.kind(), Kind::Refused);
            assert_eq!((third.messages, third.uid_next, third.uid_validity), (None, Some(uid(5)), None));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_look_from_idle_to_idle_takes_three_round_trips() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi",
            "C: a1 IDLE",
            "S: + go on",
            "WAIT",
            "C: DONE",
            "S: a1 OK done",
            "C: a2 NOOP",
            "C: a3 STATUS \"INBOX\" (MESSAGES UIDNEXT UIDVALIDITY)",
            "C: a4 STATUS \"gone\" (MESSAGES UIDNEXT UIDVALIDITY)",
            "C: a5 STATUS \"Sent\" (MESSAGES UIDNEXT UIDVALIDITY)",
            "S: * STATUS Sent (UIDNEXT 5)",
            "S: a5 OK in its own order",
            "S: * 4 EXISTS",
            "S: a2 OK done",
            "S: a4 NO [NONEXISTENT] no",
            "S: * STATUS INBOX (UIDNEXT 42)",
            "S: a3 OK done",
            "C: a6 IDLE",
            "S: + go on",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let wait = Duration::from_secs(30);
            // Less than the script's pause: it is the look that ends IDLE, not the server.
            let event = client.idle(Instant::now() + Duration::from_secs(10)).await.expect("silence");
            assert_eq!(event, IdleEvent::Timeout);
            let names =
                ["inbox", "gone", "Sent"].map(|name| MailboxName::new(name.as_bytes()).expect("a name"));
            let answers = client.poll(&names).await.expect("answers");
            let [Ok(first), Err(second), Ok(third)] = &answers[..] else { panic!("{answers:?}") };
            assert_eq!((first.uid_next, third.uid_next), (Some(uid(42)), Some(uid(5))));
            assert_eq!(second.kind(), Kind::Refused);
            assert_eq!(client.take_news().arrived, Some(4));
            client.idle(Instant::now() + wait).await.expect("silence");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn in_a_flight_every_answer_belongs_to_one_command_and_comes_once() {
    let check = async |answers: &[&str], fault: Fault| {
        let mut script = vec![
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 NOOP",
            "C: a2 STATUS \"INBOX\" (MESSAGES UIDNEXT UIDVALIDITY)",
        ];
        script.extend(answers);
        dialogue(&script, |stream| async move {
            let mut client = connect(stream).await;
            let error = client.poll(&[inbox()]).await.expect_err("not to be trusted");
            assert!(matches!(error, Error::Protocol(found) if found == fault), "{error:?}");
            assert!(matches!(client.noop().await, Err(Error::Protocol(Fault::Abandoned))));
        })
        .await;
    };
    check(&["S: a1 OK", "S: a1 OK again"], Fault::UnknownTag).await;
    check(&["S: a1 OK", "S: a3 OK of what is to come"], Fault::UnknownTag).await;
    check(&["S: a0 NO of what was"], Fault::UnknownTag).await;
    check(&["S: b2 OK"], Fault::UnknownTag).await;
    check(&["S: a2 OK", "S: + go on"], Fault::UnexpectedContinuation).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_noop_is_an_error_and_the_flight_is_over() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 NOOP",
            "C: a2 STATUS \"INBOX\" (MESSAGES UIDNEXT UIDVALIDITY)",
            "S: a1 NO [UNAVAILABLE] not now",
            "S: * STATUS INBOX (UIDNEXT 42)",
            "S: a2 OK",
            "C: a3 NOOP",
            "S: a3 OK",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let error = client.poll(&[inbox()]).await.expect_err("refused");
            assert_eq!(error.kind(), Kind::BackOff(None));
            client.noop().await.expect("the connection goes on");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn headers_come_once_each_and_only_those_asked_for() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 CONDSTORE X-GM-EXT-1] hi",
            "C: a1 UID FETCH 5:7,9 (UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ X-GM-MSGID X-GM-THRID X-GM-LABELS BODY.PEEK[HEADER])",
            "S: * 1 FETCH (UID 4 BODY[HEADER] {6}",
            "S: A: b",
            "S: )",
            "S: * 2 FETCH (UID 5 RFC822.SIZE 70 FLAGS (\\Seen) MODSEQ (12) X-GM-THRID 77 BODY[HEADER] {8}",
            "S: A: b",
            "S: ",
            "S: )",
            "S: * 2 FETCH (UID 5 BODY[HEADER] \"again\")",
            "S: * 3 FETCH (FLAGS (\\Deleted))",
            "S: * 4 FETCH (UID 7 BODY[HEADER] NIL)",
            "S: * 5 FETCH (UID 9 BODY[HEADER] \"\")",
            "S: a1 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let asked: UidSet = [5, 6, 7, 9].map(uid).into_iter().collect();
            let mut fetch = client.fetch_headers(&asked, HeaderExtent::Whole);
            let item = fetch.next().await.expect("an item").expect("an item");
            assert_eq!((item.uid, item.size, item.modseq), (uid(5), Some(70), ModSeq::new(12)));
            assert!(item.flags.contains(Flag::Seen));
            assert_eq!(&item.header[..], b"A: b\r\n\r\n");
            assert_eq!(item.gmail.expect("from Gmail").thread_id, Some(77));
            let item = fetch.next().await.expect("an item").expect("an item");
            assert_eq!((item.uid, item.header.len()), (uid(9), 0));
            assert_eq!(fetch.next().await.expect("the end"), None);
            assert_eq!(fetch.missing().to_string(), "6:7");
            assert!(client.take_news().flags);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_dropped_makes_no_other_answer_wrong() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 UID FETCH 5 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER]<0.1000>)",
            "S: * 2 FETCH (UID 5 BODY[HEADER]<0> {2}",
            "S! ab)\r\n",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let mut fetch = client.fetch_headers(&uid(5).into(), HeaderExtent::First(1000));
            assert!(fetch.next().await.expect("an item").is_some());
            drop(fetch);
            assert!(matches!(client.noop().await, Err(Error::Protocol(Fault::Abandoned))));
            let idle = client.idle(Instant::now()).await;
            assert!(matches!(idle, Err(Error::Unsupported(_) | Error::Protocol(Fault::Abandoned))));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_whole_or_not_at_all() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 UID FETCH 5 (UID BODY.PEEK[])",
            "S: * 2 FETCH (BODY[] {5}",
            "S! A: b\n UID 5)\r\n",
            "S: a1 OK done",
            "C: a2 UID FETCH 6 (UID BODY.PEEK[])",
            "S: a2 OK FETCH completed.",
            "C: a3 UID FETCH 7 (UID BODY.PEEK[])",
            "S: * 4 FETCH (UID 7 BODY[] NIL)",
            "S: a3 OK done",
            "C: a4 UID FETCH 8 (UID BODY.PEEK[])",
            "S: a4 NO [SERVERBUG] FETCH Server error while fetching messages",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let body = client.fetch_body(uid(5), Some(5), 1000).await.expect("a body");
            assert_eq!(body, Body::Message("A: b\n".into()));
            for gone in [6, 7] {
                assert_eq!(
                    client.fetch_body(uid(gone), Some(5), 1000).await.expect("nothing"),
                    Body::Missing
                );
            }
            let error = client.fetch_body(uid(8), Some(5), 1000).await.expect_err("refused");
            assert!(error.kind() == Kind::Transient && error.connection_lives());
            let error = client.fetch_body(uid(9), Some(1001), 1000).await.expect_err("too large");
            assert!(matches!(error, Error::TooLarge { bytes_max: 1000 }));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_size_comes_in_chunks() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 UID FETCH 5 (UID BODY.PEEK[]<0.1048576>)",
            "S: * 2 FETCH (UID 5 BODY[]<0> \"abc\")",
            "S: a1 OK done",
            "C: a2 UID FETCH 6 (UID BODY.PEEK[]<0.1048576>)",
            "S: * 3 FETCH (UID 6 BODY[]<0> \"abc\")",
            "S: a2 OK done",
            "C: a3 UID FETCH 6 (UID BODY.PEEK[]<3.1048576>)",
            "S: * 3 FETCH (UID 6 BODY[]<3> \"de\")",
            "S: a3 OK done",
            "C: a4 UID FETCH 6 (UID BODY.PEEK[]<5.1048576>)",
            "S: * 3 FETCH (UID 6 BODY[]<5> \"\")",
            "S: a4 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let body = client.fetch_body(uid(5), None, 1000).await.expect("a body");
            assert_eq!(body, Body::Message("abc".into()));
            let body = client.fetch_body(uid(6), Some(2_000_000), 3_000_000).await.expect("a body");
            assert_eq!(body, Body::Message("abcde".into()));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_search_answers_with_uids_or_is_an_error() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 ESEARCH] hi",
            "C: a1 UID SEARCH RETURN (ALL) HEADER Message-ID \"<a\\\"b@x>\"",
            "S: * ESEARCH (TAG \"a1\") UID ALL 1:3,5",
            "S: a1 OK",
            "C: a2 UID SEARCH RETURN (ALL) SINCE \"3-Nov-2026\"",
            "S: * SEARCH",
            "S: a2 OK done",
            "C: a3 UID SEARCH RETURN (ALL) UID 1:*",
            "S: * ESEARCH (TAG \"a3\") ALL 1:3",
            "S: a3 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let id = MessageId::parse("<a\"b@x>").expect("an id");
            let found = client.uid_search(Criterion::MessageId(&id)).await.expect("found");
            assert_eq!(found.to_string(), "1:3,5");
            let since = Criterion::Since(jiff::civil::date(2026, 11, 3));
            assert!(client.uid_search(since).await.expect("found").is_empty());
            let error = client.uid_search(Criterion::Uids(&UidSet::all())).await.expect_err("no UIDs");
            assert!(matches!(error, Error::Protocol(Fault::SequenceNumbers)));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_lists_and_finds_takes_no_more_memory_than_is_allowed() {
    let limits = Limits { uid_ranges_max: 3, mailbox_names_bytes_max: 12, ..Limits::default() };
    dialogue(
        &[
            "S: * OK [CAPABILITY IMAP4rev1] ready",
            "C: a1 LIST \"\" \"*\"",
            "S: * LIST () \"/\" INBOX",
            "S: * LIST () \"/\" Sent",
            "S: * LIST () \"/\" Others",
            "S: * LIST () \"/\" X",
            "S: a1 OK done",
            "C: a2 UID SEARCH ALL",
            "S: * SEARCH 1 3",
            "S: * SEARCH 5 6",
            "S: a2 OK done",
            "C: a3 UID SEARCH ALL",
            "S: * SEARCH 1 3",
            "S: * SEARCH 5 7",
            "S: * SEARCH 9",
            "S: a3 OK done",
            "C: a4 NOOP",
            "S: a4 OK done",
        ],
        |stream| async {
            let mut client = Client::connect(stream, limits, Deadlines::default()).await.expect("a greeting");
            let names: Vec<String> =
                client.list().await.expect("a list").into_iter().map(|mailbox| mailbox.display).collect();
            assert_eq!(names, ["INBOX", "Sent"]);
            assert_eq!(client.uid_search(Criterion::All).await.expect("found").to_string(), "1,3,5:6");
            let error = client.uid_search(Criterion::All).await.expect_err("too many");
            assert!(matches!(error, Error::Protocol(Fault::TooManyResponses)));
            client.noop().await.expect("the answer was read to its end");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_append_asks_before_its_literal_unless_that_is_free() {
    let name = MailboxName::from_display("Sent").expect("a name");
    let at = "2026-11-03T09:00:00Z".parse().expect("a time");
    let append =
        |flags| Append { mailbox: &name, flags, internal_date: Some(at), message: "A: b\r\n".into() };
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 APPENDLIMIT=100] hi",
            "C: a1 APPEND \"Sent\" (\\Seen) \"03-Nov-2026 09:00:00 +0000\" {6}",
            "S: * 4 EXISTS",
            "S: + go",
            "C: A: b",
            "C: ",
            "S: a1 OK [APPENDUID 7 42] done",
            "C: a2 APPEND \"Sent\" () \"03-Nov-2026 09:00:00 +0000\" {6}",
            "S: a2 NO [TRYCREATE] no such mailbox",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let appended = client.append(append(&[Flag::Seen])).await.expect("filed").expect("a UID");
            assert_eq!((appended.uid_validity.get(), appended.uid), (7, uid(42)));
            assert_eq!(client.take_news().arrived, Some(4));
            let error = client.append(append(&[])).await.expect_err("refused");
            assert_eq!(error.kind(), Kind::Refused);
            let large = Append { message: vec![b'a'; 101].into(), ..append(&[]) };
            assert!(matches!(client.append(large).await, Err(Error::TooLarge { bytes_max: 100 })));
        },
    )
    .await;
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 LITERAL+] hi",
            "C: a1 APPEND \"Sent\" (\\Seen \\Draft) \"03-Nov-2026 09:00:00 +0000\" {6+}",
            "C: A: b",
            "C: ",
            "S: a1 OK done",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            assert_eq!(client.append(append(&[Flag::Seen, Flag::Draft])).await.expect("filed"), None);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn idle_tells_of_news_and_ends_with_the_next_verb() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi",
            "C: a1 IDLE",
            "S: * 4 EXISTS",
            "S: + idling",
            "WAIT",
            "S: * OK Still here",
            "WAIT",
            "S: * 5 EXISTS",
            "C: DONE",
            "S: * 6 EXISTS",
            "S: a1 OK idle done",
            "C: a2 NOOP",
            "S: a2 OK",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let long = Duration::from_secs(600);
            for count in [4, 5] {
                let event = client.idle(Instant::now() + long).await.expect("news");
                let IdleEvent::Changed(news) = event else { panic!("{event:?}") };
                assert_eq!(news.arrived, Some(count));
            }
            client.noop().await.expect("alive");
            // What came while IDLE ended is not lost: the next wait returns at once, without a new IDLE.
            let event = client.idle(Instant::now() + long).await.expect("news");
            assert!(matches!(event, IdleEvent::Changed(news) if news.arrived == Some(6)));
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_loses_nothing() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi",
            "C: a1 IDLE",
            "S! + id",
            "WAIT",
            "S! ling\r\n* 2 EX",
            "WAIT",
            "S! ISTS\r\n",
            "C: DONE",
            "S: a1 OK",
            "C: a2 NOOP",
            "S: a2 OK",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let until = Instant::now() + Duration::from_secs(600);
            let event = loop {
                tokio::select! {
                    event = client.idle(until) => break event.expect("news"),
                    () = tokio::time::sleep(Duration::from_millis(7_300)) => {}
                }
            };
            assert!(matches!(event, IdleEvent::Changed(news) if news.arrived == Some(2)));
            client.noop().await.expect("alive");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_shows_when_idle_is_renewed() {
    dialogue(
        &["S: * PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi", "C: a1 IDLE", "S: + ", "C: DONE"],
        |stream| async {
            let mut client = connect(stream).await;
            let start = Instant::now();
            let event = client.idle(start + Duration::from_secs(540)).await.expect("silence");
            assert_eq!(event, IdleEvent::Timeout);
            assert!(matches!(client.noop().await, Err(Error::Timeout)));
            assert_eq!(start.elapsed(), Duration::from_secs(540) + Deadlines::default().done);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn notify_tells_of_mailboxes_that_are_not_selected() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1 IDLE NOTIFY] hi",
            "C: a1 NOTIFY SET (selected (MessageNew MessageExpunge FlagChange)) (mailboxes (\"Sent\") (MessageNew MessageExpunge))",
            "S: a1 OK done",
            "C: a2 IDLE",
            "S: + ",
            "S: * STATUS Sent (UIDNEXT 10 MESSAGES 8)",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            let sent = MailboxName::from_display("Sent").expect("a name");
            client.notify(std::slice::from_ref(&sent)).await.expect("on");
            let event = client.idle(Instant::now() + Duration::from_secs(60)).await.expect("news");
            let IdleEvent::Changed(news) = event else { panic!("{event:?}") };
            assert_eq!((&news.statuses[0].name, news.statuses[0].uid_next), (&sent, Some(uid(10))));
            assert_eq!(news.arrived, None);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_and_trickle_both_end() {
    dialogue(&["S: * PREAUTH [CAPABILITY IMAP4rev1] hi", "C: a1 NOOP"], |stream| async {
        let mut client = connect(stream).await;
        let start = Instant::now();
        assert!(matches!(client.noop().await, Err(Error::Timeout)));
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    })
    .await;
    let mut script = vec!["S: * PREAUTH [CAPABILITY IMAP4rev1] hi", "C: a1 NOOP"];
    for _ in 0..100 {
        script.extend(["WAIT", "S: * OK wait"]);
    }
    dialogue(&script, |stream| async {
        let mut client = connect(stream).await;
        let start = Instant::now();
        assert!(matches!(client.noop().await, Err(Error::Timeout)));
        assert_eq!(start.elapsed(), Duration::from_secs(1800));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_says_why() {
    dialogue(
        &[
            "S: * PREAUTH [CAPABILITY IMAP4rev1] hi",
            "C: a1 NOOP",
            "S: * BYE Session expired, please login again.",
        ],
        |stream| async {
            let mut client = connect(stream).await;
            assert_eq!(judge(&client.noop().await.expect_err("gone")), Kind::Transient);
        },
    )
    .await;
    dialogue(&["S: * PREAUTH [CAPABILITY IMAP4rev1] hi", "C: a1 NOOP", "CLOSE"], |stream| async {
        let mut client = connect(stream).await;
        assert_eq!(client.noop().await.expect_err("gone").kind(), Kind::Transient);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn logout_says_goodbye() {
    dialogue(
        &["S: * PREAUTH [CAPABILITY IMAP4rev1] hi", "C: a1 LOGOUT", "S: * BYE bye", "S: a1 OK"],
        |stream| async {
            connect(stream).await.logout().await;
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_over_when_the_server_has_hung_up_and_not_much_later() {
    for (then, took) in [("CLOSE", 0), ("LINGER", 200), ("WAIT", 1000)] {
        dialogue(
            &["S: * PREAUTH [CAPABILITY IMAP4rev1] hi", "C: a1 LOGOUT", "S: * BYE bye", then, "CLOSE"],
            |stream| async move {
                let client = connect(stream).await;
                let begun = Instant::now();
                client.logout().await;
                assert_eq!(begun.elapsed(), Duration::from_millis(took), "{then}");
            },
        )
        .await;
    }
}
