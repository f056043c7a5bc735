//! Keeps connections in bounds: so many in all, and none that neither asks nor listens.
//!
//! hyper waits for a header as long as it takes to come; a peer that sends one octet a minute would keep its connection
//! for ever (Slowloris). Not here: the time one request may take (`observe`).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, connect_info::Connected},
    middleware::Next,
    response::Response,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

/// Connections in all; what comes then waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a connection may be without a request in hand and without taking what we send.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A listener that accepts no more connections than it can hold.
pub(super) struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Bounded {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        let free = Arc::clone(&self.free);
        let turn = free.acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // Small answers go out at once; where it cannot be set they go out a little later.
        drop(stream.set_nodelay(true));
        (Guarded::new(stream, turn), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself when its peer neither asks nor listens.
pub(super) struct Guarded {
    stream: TcpStream,
    in_hand: Arc<AtomicUsize>,
    deadline: Pin<Box<Sleep>>,
    _turn: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(stream: TcpStream, turn: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + IDLE_MAX));
        Self { stream, in_hand: Arc::default(), deadline, _turn: turn }
    }

    fn postpone(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + IDLE_MAX);
    }

    /// Ready when the connection has been useless for too long. Requests in hand have limits of their own.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.deadline.as_mut().poll(context));
        if self.in_hand.load(Ordering::Acquire) == 0 {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        self.postpone();
        // Registers the new deadline with the waker.
        self.deadline.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What comes in does not count: a header may come in a drop at a time.
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        self.poll_idle(context).map(Err)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            self.postpone();
            return Poll::Ready(written);
        }
        self.poll_idle(context).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            self.postpone();
            return Poll::Ready(written);
        }
        self.poll_idle(context).map(Err)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<AtomicUsize>);

impl Connected<IncomingStream<'_, Bounded>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(Arc::clone(&stream.io().in_hand))
    }
}

/// One request in hand, until it is dropped.
struct InHand(Arc<AtomicUsize>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Marks a connection as busy while one of its requests is being answered.
pub(super) async fn mark_busy(
    ConnectInfo(Connection(count)): ConnectInfo<Connection>,
    request: Request,
    next: Next,
) -> Response {
    count.fetch_add(1, Ordering::AcqRel);
    let in_hand = InHand(count);
    let response = next.run(request).await;
    drop(in_hand);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn pair() -> (Guarded, TcpStream) {
        let mut listener = Bounded::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let (peer, (guarded, _)) = tokio::join!(TcpStream::connect(address), listener.accept());
        (guarded, peer.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_comes_a_drop_at_a_time_ends_in_time() {
        let (mut guarded, mut peer) = pair().await;
        let started = Instant::now();
        let dripping = async {
            while peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(IDLE_MAX / 10).await;
            }
        };
        let reading = async {
            let mut octet = [0; 1];
            loop {
                if let Err(error) = guarded.read_exact(&mut octet).await {
                    return error.kind();
                }
            }
        };
        tokio::select! {
            () = dripping => panic!("the peer was cut off first"),
            kind = reading => assert_eq!(kind, io::ErrorKind::TimedOut),
        }
        assert!(started.elapsed() <= IDLE_MAX * 2, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_hand_keeps_its_connection() {
        let (mut guarded, _peer) = pair().await;
        let in_hand = InHand(Arc::clone(&guarded.in_hand));
        in_hand.0.fetch_add(1, Ordering::AcqRel);
        let read = tokio::time::timeout(IDLE_MAX * 5, guarded.read_u8()).await;
        assert!(read.is_err(), "the connection ended while a request was in hand");
        drop(in_hand);
        assert_eq!(guarded.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
