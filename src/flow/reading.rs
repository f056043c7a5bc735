//! Reads messages without keeping listeners, leases and IDLE waiting.
//!
//! Not here: what reading means (`mail`).

use std::sync::LazyLock;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::mail::{
    Message,
    forward::{self, Forwarded},
};

/// Larger messages are read aside. Smaller ones cost less than changing threads: some 100 MB are read in a second.
const ASIDE_BYTES_MIN: usize = 128 * 1024;

/// Messages read aside at a time: one for each processor, since reading does nothing else than compute.
static READERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));

/// Reads a message whole; a large one on a thread where it is in nobody's way.
pub(super) async fn read(raw: &Bytes) -> Message {
    if raw.len() < ASIDE_BYTES_MIN {
        return Message::parse(raw);
    }
    let _turn = READERS.acquire().await;
    let aside = raw.clone();
    let read = tokio::task::spawn_blocking(move || Message::parse(&aside)).await;
    // Only a runtime that is shutting down drops what it was given.
    read.unwrap_or_else(|_| Message::parse(raw))
}

/// What a message passes on, as [`forward::read`] finds it; of a large one on such a thread.
pub(super) async fn forwarded(message: &Message, raw: &Bytes) -> Option<Forwarded> {
    if raw.len() < ASIDE_BYTES_MIN {
        return forward::read(message, raw);
    }
    let _turn = READERS.acquire().await;
    let aside = raw.clone();
    // Whatever keeps it from being read, it stays the user's own.
    tokio::task::spawn_blocking(move || forward::read(&Message::parse(&aside), &aside)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn aside_or_not_a_message_reads_the_same() {
        for length in [10, ASIDE_BYTES_MIN + 1] {
            let raw = format!("From: a@x.example\r\nSubject: Long\r\n\r\n{}\r\n", "word ".repeat(length / 5));
            let raw = Bytes::from(raw);
            let (here, aside) = (Message::parse(&raw), read(&raw).await);
            assert_eq!((here.content, here.text), (aside.content, aside.text));
        }
    }
}
