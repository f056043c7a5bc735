//! The journal as it grows, as server-sent events (HTML Living Standard section 9.2).
//!
//! A stream waits for state, not for a message that there is some: it subscribes, looks, and then waits. Not here: the
//! journal by pages (`events`).

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::Parameters,
    events::{self, EventView},
    places::Place,
    problem::Problem,
};
use crate::{core::event::JournalEntry, store};

/// The id of the last event that a client has seen before it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies of the nginx family to pass events on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events read at once; a client that reads slowly has no more than these waiting for it.
const EVENTS_AT_ONCE: u32 = 100;
/// How long a stream relies on being woken: other nodes' events are found by looking.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a stream rests after a look: commits of all workspaces wake it, and each look takes a connection to the database.
const LOOK_REST: Duration = Duration::from_millis(100);
/// A comment keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the key is looked at again: a revoked one follows the journal no longer than this.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Then the client connects again.
const STREAM_LASTS: Duration = Duration::from_secs(15 * 60);
/// When to come back for a stream if there are too many.
const RETRY_SECONDS: u32 = 30;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(follow))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Following {
    /// An event's id, or a cursor: begin with what came after it. The header `Last-Event-ID` counts more.
    after: Option<String>,
    /// Types, with commas between them.
    types: Option<String>,
}

/// Follow the journal. Without `after` the stream begins with what happens from now on.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/events/stream", tag = "events", operation_id = "stream_events",
    params(Following, ("Last-Event-ID" = Option<String>, Header, description = "The last event seen.")),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
async fn follow(
    State(api): State<Api>,
    access: Access,
    headers: HeaderMap,
    Parameters(query): Parameters<Following>,
) -> Result<Response, Problem> {
    let place = api.streams.take(access.workspace);
    let place = place.ok_or_else(|| Problem::limited("Too many event streams are open.", RETRY_SECONDS))?;
    let types = events::types(query.types.as_deref())?;
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
    let mut session = access.read(&api).await?;
    let after = match (last, &query.after) {
        (Some(last), _) => events::position(&mut session, "Last-Event-ID", last).await?,
        (None, Some(after)) => events::position(&mut session, "after", after).await?,
        (None, None) => session.last_seq().await?,
    };
    drop(session);
    let looks = Looks::new(api.store().announced());
    let until = Instant::now() + STREAM_LASTS;
    let (waiting, check_at) = (VecDeque::new(), Instant::now() + CHECK_EVERY);
    let follower = Follower { api, access, types, after, until, looks, waiting, check_at, _place: place };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(follower.into_stream()).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// A client and how far it has read.
struct Follower {
    api: Api,
    access: Access,
    types: Option<Vec<String>>,
    after: i64,
    until: Instant,
    looks: Looks,
    waiting: VecDeque<JournalEntry>,
    check_at: Instant,
    _place: Place,
}

impl Follower {
    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let entry = follower.next().await?;
            let view = EventView::of(follower.access.workspace, entry);
            Some((Ok(show(&view)), follower))
        })
    }

    /// The next event; `None` ends the stream: the gateway stops, workspace or key is gone, or its time is over.
    async fn next(&mut self) -> Option<JournalEntry> {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                self.after = entry.seq;
                return Some(entry);
            }
            self.looks.begin();
            match self.look().await {
                Ok(()) if !self.waiting.is_empty() => continue,
                Ok(()) => {}
                Err(store::Error::Missing) => return None,
                Err(error) => tracing::warn!(error = %error, "the journal could not be read for a stream"),
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    async fn look(&mut self) -> Result<(), store::Error> {
        let mut session = self.access.read(&self.api).await?;
        if Instant::now() >= self.check_at {
            self.check_at = Instant::now() + CHECK_EVERY;
            if !self.access.still_holds(&mut session).await? {
                return Err(store::Error::Missing);
            }
        }
        let newest = session.last_seq().await?;
        if newest <= self.after {
            return Ok(());
        }
        let types = self.types.as_deref();
        let (entries, reached) = events::read(&mut session, self.after, types, EVENTS_AT_ONCE).await?;
        // Nothing that was asked for lies before: it need not be looked for again.
        if entries.is_empty() {
            self.after = reached.unwrap_or(newest);
        }
        self.waiting.extend(entries);
        Ok(())
    }

    /// False when the stream is to end.
    async fn wait(&mut self) -> bool {
        tokio::select! {
            () = self.api.shutdown.cancelled() => false,
            () = self.looks.wait(self.until) => Instant::now() < self.until,
        }
    }
}

/// When the journal is looked at.
struct Looks {
    woken: watch::Receiver<u64>,
    began_at: Instant,
}

impl Looks {
    fn new(woken: watch::Receiver<u64>) -> Self {
        Self { woken, began_at: Instant::now() }
    }

    /// To be called before a look: what is written after it wakes us.
    fn begin(&mut self) {
        self.woken.mark_unchanged();
        self.began_at = Instant::now();
    }

    /// Waits until it is time for the next look, or for the end. Dropping it loses nothing.
    async fn wait(&mut self, until: Instant) {
        let look_at = (Instant::now() + LOOK_EVERY).min(until);
        tokio::select! {
            // A closed channel means that nobody will wake us: then we look by ourselves.
            Ok(()) = self.woken.changed() => {}
            () = tokio::time::sleep_until(look_at) => {}
        }
        tokio::time::sleep_until(self.began_at + LOOK_REST).await;
    }
}

fn show(view: &EventView) -> sse::Event {
    let text = serde_json::to_string(view).expect("an event has text keys and no serialiser that fails");
    sse::Event::default().id(view.id.to_string()).event(&view.kind).data(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the next look is waited for, to the timer's millisecond.
    async fn waited(looks: &mut Looks) -> Duration {
        let started = Instant::now();
        looks.wait(started + STREAM_LASTS).await;
        Duration::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_rests_while_nothing_happens_and_between_commits_and_wakes_at_once_after_a_pause() {
        let (commits, woken) = watch::channel(0);
        let mut looks = Looks::new(woken);
        looks.begin();
        assert_eq!(waited(&mut looks).await, LOOK_EVERY);
        // Commits of whomever, one after the other.
        for commit in 1..=3 {
            looks.begin();
            commits.send_replace(commit);
            assert_eq!(waited(&mut looks).await, LOOK_REST);
        }
        looks.begin();
        tokio::time::advance(LOOK_REST * 2).await;
        commits.send_replace(4);
        assert_eq!(waited(&mut looks).await, Duration::ZERO);
        // What was written during the look is not overlooked.
        looks.begin();
        commits.send_replace(5);
        tokio::time::advance(LOOK_REST * 2).await;
        assert_eq!(waited(&mut looks).await, Duration::ZERO);
        // Without anybody to wake it, it looks by itself.
        drop(commits);
        looks.begin();
        assert_eq!(waited(&mut looks).await, LOOK_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_waits_no_longer() {
        let (_commits, woken) = watch::channel(0);
        let mut looks = Looks::new(woken);
        looks.begin();
        let until = Instant::now() + LOOK_REST * 3;
        looks.wait(until).await;
        assert!(Instant::now() < until + Duration::from_millis(5));
    }
}
