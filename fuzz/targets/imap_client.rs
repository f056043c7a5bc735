//! What an IMAP server says, in pieces, to whatever the client asks. Holds: the client gives a result or an error, never more
//! than its limits, and never waits for more than the server's end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::imap::{Client, Criterion, Deadlines, HeaderExtent, Limits, MailboxName, Uid, UidSet};
use tokio::{io::AsyncWriteExt, io::duplex, runtime::Builder};

fuzz_target!(|data: &[u8]| {
    let Some((shape, octets)) = data.split_first() else { return };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(if shape & 128 == 0 { 1 << 16 } else { 1 });
        let serve = async {
            let greeting = b"* OK [CAPABILITY IMAP4rev1 IDLE CONDSTORE X-GM-EXT-1 ESEARCH] hi\r\n";
            let _ = theirs.write_all(greeting).await;
            let _ = theirs.write_all(octets).await;
            for tag in 0..4 {
                let _ = theirs.write_all(format!("a{tag} OK done\r\n").as_bytes()).await;
            }
            let _ = theirs.shutdown().await;
            // What the client says is nobody's business here, but it must be able to say it.
            let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
        };
        let ask = async {
            let Ok(mut client) = Client::connect(ours, Limits::default(), Deadlines::default()).await else {
                return;
            };
            let uid = Uid::new(3).unwrap();
            match shape % 7 {
                0 => drop(client.noop().await),
                1 => drop(client.list().await),
                2 => drop(client.select(&MailboxName::inbox(), None).await),
                3 => {
                    let asked: UidSet = [uid].into_iter().collect();
                    let mut fetch = client.fetch_headers(&asked, HeaderExtent::Whole);
                    while let Ok(Some(item)) = fetch.next().await {
                        assert_eq!(item.uid, uid, "mail that nobody asked for");
                    }
                }
                4 => drop(client.fetch_body(uid, Some(3), 1000).await),
                _ => drop(client.uid_search(Criterion::All).await),
            }
        };
        tokio::join!(serve, ask);
    });
});
