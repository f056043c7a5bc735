//! Runs an IMAP session over a connection: reads, writes, waits and shakes hands when the session says so.
//!
//! Not here: any decision; the session makes them all.

use std::{io, time::Duration};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::sandbox::{provider::Provider, running::Tls};

use super::session::{Security, Session, Step};

/// RFC 9051 section 5.4: not under 30 minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A client that takes nothing for so long holds our memory for nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 16 * 1024;

/// What a connection needs besides its stream.
struct Circumstances<'a> {
    changes: watch::Receiver<u64>,
    stop: &'a CancellationToken,
}

/// Serves one connection to its end.
///
/// # Errors
/// When the connection fails or the client is too slow.
pub(in crate::sandbox) async fn serve(
    mut stream: TcpStream,
    provider: &Provider,
    tls: &Tls,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut around = Circumstances { changes: provider.changes(), stop };
    let (acceptor, implicit) = match tls {
        Tls::None => (None, false),
        Tls::Implicit(acceptor) => (Some(acceptor), true),
        Tls::StartTls(acceptor) => (Some(acceptor), false),
    };
    let mut session = if implicit {
        None
    } else {
        let offered = if acceptor.is_some() { Security::StartTls } else { Security::None };
        let mut session = Session::new(provider, offered);
        if drive(&mut stream, &mut session, &mut around).await? == Ended::Closed {
            return Ok(());
        }
        Some(session)
    };
    let Some(acceptor) = acceptor else { return Ok(()) };
    let mut stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    match &mut session {
        Some(session) => session.secured(),
        None => session = Some(Session::new(provider, Security::Tls)),
    }
    if let Some(session) = &mut session {
        drive(&mut stream, session, &mut around).await?;
    }
    Ok(())
}

/// Waits until that moment; for ever when there is none.
async fn until(moment: Option<Timestamp>) {
    match moment {
        None => std::future::pending().await,
        Some(moment) => {
            let left = moment.duration_since(Timestamp::now());
            sleep(Duration::try_from(left).unwrap_or(Duration::ZERO)).await;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    Closed,
    StartTls,
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    around: &mut Circumstances<'_>,
) -> io::Result<Ended> {
    let mut buffer = vec![0; READ_BYTES];
    let mut stopping = false;
    loop {
        match session.step() {
            Step::Output(bytes) => {
                timeout(WRITE_TIMEOUT, async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                })
                .await??;
            }
            Step::Hold(pause) => tokio::select! {
                () = sleep(pause) => {}
                () = around.stop.cancelled() => return Ok(Ended::Closed),
            },
            Step::StartTls => return Ok(Ended::StartTls),
            Step::Close => {
                session.leave();
                // The peer may be gone already; there is nothing left to lose.
                let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
                return Ok(Ended::Closed);
            }
            Step::Input => tokio::select! {
                read = timeout(IDLE_TIMEOUT, stream.read(&mut buffer)) => match read {
                    Err(_) => session.end("idle for too long"),
                    Ok(read) => match read? {
                        0 => return Ok(Ended::Closed),
                        count => session.receive(buffer.get(..count).unwrap_or_default()),
                    },
                },
                () = until(session.expires_at()) => session.expire(),
                changed = around.changes.changed() => match changed {
                    Ok(()) => session.changed(),
                    Err(_) => return Ok(Ended::Closed),
                },
                () = around.stop.cancelled(), if !stopping => {
                    stopping = true;
                    session.end("the server is shutting down");
                }
            },
        }
    }
}
