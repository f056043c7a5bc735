//! Bytes on their way to a client, in pieces, for as long as he takes them.
//!
//! Large ones lie in memory until they are taken: they have a place, and a client that takes them too slowly loses both. Not
//! here: where the bytes come from.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use tokio::time::Instant;

use super::places::Place;
use crate::core::ids::MessageKey;

/// Bytes up to this many need no place: as many connections as there may be hold no more than 256 MiB of them.
pub(super) const SMALL_BYTES_MAX: u64 = 256 * 1024;
/// Octets handed over at once.
const PIECE_BYTES: usize = 64 * 1024;
/// A client takes at least so many octets in so long (17 KiB a second), or all that is left.
const TAKEN_BYTES_MIN: usize = 1024 * 1024;
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether others wait for a place, in parts of that time: oftener than anybody gives up waiting.
const LOOKS: u32 = 12;
/// While they do, a client has taken at least so many octets a second on the whole, once this much time is over.
const TAKEN_RATE_WANTED: u64 = 256 * 1024;
const SLOW_MAX: Duration = Duration::from_secs(30);

/// A message as a file: its exact bytes, which no browser shows.
pub(super) fn message_file(id: MessageKey, bytes: Bytes, place: Option<Place>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("message/rfc822"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&format!("{id}.eml")));
    answer(headers, bytes, place)
}

/// The name of a file that has none.
pub(super) const NAMELESS: &str = "attachment";

/// What a client has not taken yet; `None` once he was too slow.
struct Rest(Mutex<Option<(Bytes, Option<Place>)>>);

impl Rest {
    fn lock(&self) -> MutexGuard<'_, Option<(Bytes, Option<Place>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |(bytes, _)| bytes.len())
    }

    /// Whether somebody waits for the place that these bytes have.
    fn is_wanted(&self) -> bool {
        self.lock().as_ref().and_then(|(_, place)| place.as_ref()).is_some_and(Place::is_wanted)
    }

    /// The next piece; `None` at the end.
    fn piece(&self) -> Option<io::Result<Bytes>> {
        let mut rest = self.lock();
        let Some((bytes, _)) = rest.as_mut() else { return Some(Err(io::ErrorKind::TimedOut.into())) };
        let piece = bytes.split_to(PIECE_BYTES.min(bytes.len()));
        (!piece.is_empty()).then_some(Ok(piece))
    }
}

/// An answer of these bytes.
pub(super) fn answer(mut headers: HeaderMap, bytes: Bytes, place: Option<Place>) -> Response {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let rest = Arc::new(Rest(Mutex::new(Some((bytes, place)))));
    tokio::spawn(watch(Arc::downgrade(&rest)));
    let pieces = stream::unfold(rest, |rest| async move { Some((rest.piece()?, rest)) });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.headers_mut() = headers;
    response
}

/// Lets go of what is not taken in time. A connection that is written to and not read from is polled by nobody, so this
/// cannot be left to the stream.
async fn watch(rest: Weak<Rest>) {
    let whole = rest.upgrade().map_or(0, |rest| rest.len());
    let (started, mut left) = (Instant::now(), whole);
    for look in 1_u64.. {
        tokio::time::sleep(TAKEN_WITHIN / LOOKS).await;
        // Taken whole, or the client is gone.
        let Some(rest) = rest.upgrade() else { return };
        let now = rest.len();
        let mut is_slow = rest.is_wanted() && is_in_the_way(whole - now.min(whole), started.elapsed());
        if look.is_multiple_of(u64::from(LOOKS)) {
            is_slow |= left - now.min(left) < TAKEN_BYTES_MIN.min(left);
            left = now;
        }
        if is_slow {
            rest.lock().take();
            return;
        }
    }
}

/// Whether a client who has taken so much in this time is too slow for those who wait.
fn is_in_the_way(taken: usize, elapsed: Duration) -> bool {
    elapsed > SLOW_MAX + Duration::from_secs(taken as u64 / TAKEN_RATE_WANTED)
}

/// `Content-Disposition` of a file to be saved (RFC 6266), its name in the plain form for all and in the extended form
/// (RFC 8187) for those whose name is not ASCII.
pub(super) fn disposition(filename: &str) -> HeaderValue {
    let plain: String = filename
        .chars()
        .map(|c| if c.is_ascii_graphic() && !"\"\\%/;".contains(c) || c == ' ' { c } else { '_' })
        .collect();
    let plain = if plain.trim().is_empty() { NAMELESS } else { plain.trim() };
    let mut value = format!("attachment; filename=\"{plain}\"");
    if plain != filename {
        value.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                value.push(char::from(byte));
            } else {
                value.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::{super::places::Places, *};
    use crate::{core::ids::WorkspaceId, store::mint};

    #[track_caller]
    fn check(filename: &str, want: &str) {
        assert_eq!(disposition(filename).to_str().unwrap(), want);
    }

    #[test]
    fn file_names_cannot_leave_their_quotes() {
        check("plan.pdf", "attachment; filename=\"plan.pdf\"");
        check(
            "Plán č. 1.pdf",
            "attachment; filename=\"Pl_n _. 1.pdf\"; filename*=UTF-8''Pl%C3%A1n%20%C4%8D.%201.pdf",
        );
        check("a\"; x=\"b", "attachment; filename=\"a__ x=_b\"; filename*=UTF-8''a%22%3B%20x%3D%22b");
        check(
            "a\r\nSet-Cookie: b",
            "attachment; filename=\"a__Set-Cookie: b\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b",
        );
        check("", "attachment; filename=\"attachment\"; filename*=UTF-8''");
    }

    const LARGE: usize = 8 * 1024 * 1024;

    fn large(places: &Places, workspace: WorkspaceId) -> Response {
        answer(HeaderMap::new(), vec![7; LARGE].into(), places.take(workspace))
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_kept_until_the_bytes_are_taken() {
        let (places, workspace) = (Places::new(1, 1), mint());
        let response = large(&places, workspace);
        assert_eq!(response.headers()[header::CONTENT_LENGTH], LARGE.to_string().as_str());
        let mut taken = 0;
        let mut pieces = response.into_body().into_data_stream();
        while let Some(piece) = pieces.next().await {
            assert!(places.take(workspace).is_none());
            taken += piece.unwrap().len();
            // 64 KiB every three seconds are fast enough.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        drop(pieces);
        assert_eq!(taken, LARGE);
        assert!(places.take(workspace).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gives_way_to_who_waits_for_a_place() {
        let places = Places::new(1, 1);
        let mut pieces = large(&places, mint()).into_body().into_data_stream();
        let other = tokio::spawn({
            let places = places.clone();
            async move { while places.wait(mint()).await.is_err() {} }
        });
        let started = Instant::now();
        while pieces.next().await.unwrap().is_ok() {
            // Fast enough as long as nobody waits.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert!(started.elapsed() < TAKEN_WITHIN);
        other.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_drops_loses_his_place_and_the_bytes() {
        let (places, workspace) = (Places::new(1, 1), mint());
        let mut pieces = large(&places, workspace).into_body().into_data_stream();
        assert!(pieces.next().await.unwrap().is_ok());
        assert!(places.wait(workspace).await.is_err(), "not at once");
        tokio::time::sleep(TAKEN_WITHIN).await;
        assert!(places.take(workspace).is_some());
        assert!(pieces.next().await.unwrap().is_err(), "the answer ends as one that was cut off");
    }
}
