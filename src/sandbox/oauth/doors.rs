//! The authorization server over HTTP on loopback, with the armed faults.
//!
//! Not here: what is answered (`consent`, `token`).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    consent::Outcome,
    token::{Form, client},
};
use crate::sandbox::{
    behaviour::{Act, Service},
    ledger::Said,
    provider::Provider,
};

/// Octets of a form.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// One request, from its last octet to the first of the answer; a delay that is armed may be as long.
const REQUEST_MAX: Duration = Duration::from_mins(5);

/// How long requests in hand may go on after that.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Serves until told to stop.
pub(in crate::sandbox) async fn serve(
    listener: TcpListener,
    provider: Provider,
    room: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/authorize", get(authorize).post(consent))
        .route("/token", post(token))
        .route("/revoke", post(revoke))
        .route("/introspect", post(introspect))
        .route("/userinfo", get(userinfo).post(userinfo))
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(provider);
    let graceful = stop.clone().cancelled_owned();
    let serving = axum::serve(Bounded { listener, room }, router).with_graceful_shutdown(graceful);
    tokio::select! {
        ended = serving.into_future() => drop(ended),
        // Nobody waits for a client that keeps its connection.
        () = async { stop.cancelled().await; sleep(FAREWELL_MAX).await } => {}
    }
}

/// Lets faults strike, then answers. `work` is not done where a fault stands in its place.
async fn answer(
    provider: &Provider,
    (verb, line): (&str, String),
    work: impl FnOnce() -> Response,
) -> Response {
    let said = Said {
        session: provider.with(|world| world.next_session()),
        service: Service::OAuth,
        user: None,
        secure: false,
        verb: verb.to_owned(),
        line,
    };
    let act = provider.hear(said);
    let answered = async {
        match act {
            None | Some(Act::Inject(_)) => work(),
            Some(Act::Answer(text)) => armed(&text),
            Some(Act::Bye(text)) => armed(&format!("503 {text}")),
            Some(Act::Instead(bytes)) => (StatusCode::OK, bytes).into_response(),
            Some(Act::Drop) => cut(),
            Some(Act::DropAfter(_)) => {
                drop(work());
                cut()
            }
            Some(Act::Delay(pause)) => {
                sleep(pause).await;
                work()
            }
            Some(Act::Linger(pause)) => {
                let response = work();
                sleep(pause).await;
                response
            }
        }
    };
    timeout(REQUEST_MAX, answered).await.unwrap_or_else(|_| cut())
}

/// A status and a body: `500`, `400 {"error":"invalid_grant"}`.
fn armed(text: &str) -> Response {
    let (status, body) = text.split_once(' ').unwrap_or((text, ""));
    let status = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, [(header::CONTENT_TYPE, kind)], body.to_owned()).into_response()
}

/// An answer that breaks off.
fn cut() -> Response {
    let broken = futures_util::stream::once(async {
        Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionAborted))
    });
    Response::new(Body::from_stream(broken))
}

fn said((status, value): (u16, Value)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, value.to_string()).into_response()
}

fn shown(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Refused(text) => (StatusCode::BAD_REQUEST, text).into_response(),
        Outcome::Page(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, html).into_response()
        }
        Outcome::Redirect(to) => match HeaderValue::from_str(&to) {
            Ok(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        },
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

async fn authorize(State(provider): State<Provider>, uri: Uri) -> Response {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let line = format!("scope={}", form.get("scope"));
    let work = || {
        shown(provider.with(|world| {
            let users: Vec<_> = world.users().map(|user| user.address.clone()).collect();
            world.authority.ask(&form, users.iter())
        }))
    };
    answer(&provider, ("AUTHORIZE", line), work).await
}

async fn consent(State(provider): State<Provider>, body: Bytes) -> Response {
    let form = Form::parse(&body);
    let line = format!("decision={} user={}", form.get("decision"), form.get("user"));
    let work = || {
        shown(provider.with(|world| {
            let users: Vec<_> = world.users().map(|user| user.address.clone()).collect();
            world.authority.decide(&form, |user| users.contains(user), Timestamp::now())
        }))
    };
    answer(&provider, ("CONSENT", line), work).await
}

async fn token(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let form = Form::parse(&body);
    let (name, secret) = client(&form, authorization(&headers));
    let line = format!("grant_type={}", form.get("grant_type"));
    let work = || {
        let client = (name.as_str(), secret.as_deref());
        said(provider.with(|world| world.authority.token(&form, client, Timestamp::now())))
    };
    answer(&provider, ("TOKEN", line), work).await
}

async fn revoke(State(provider): State<Provider>, body: Bytes) -> Response {
    let form = Form::parse(&body);
    let work = || {
        let user = provider.with(|world| world.authority.revoke(form.get("token")));
        if let Some(user) = user {
            // Sessions that the grant let in end with it.
            let _ = provider.kick(&user);
        }
        // RFC 7009 section 2.2: a token that nobody knows is as good as revoked.
        StatusCode::OK.into_response()
    };
    answer(&provider, ("REVOKE", String::new()), work).await
}

async fn introspect(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let form = Form::parse(&body);
    let (name, secret) = client(&form, authorization(&headers));
    let work = || {
        let client = (name.as_str(), secret.as_deref());
        said(provider.with(|world| world.authority.introspect(&form, client, Timestamp::now())))
    };
    answer(&provider, ("INTROSPECT", String::new()), work).await
}

async fn userinfo(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let work = || {
        let authorization = authorization(&headers);
        said(provider.with(|world| world.authority.userinfo(authorization, Timestamp::now())))
    };
    answer(&provider, ("USERINFO", String::new()), work).await
}

async fn metadata(State(provider): State<Provider>) -> Response {
    said((200, provider.with(|world| world.authority.metadata())))
}

/// A listener with a place for each connection, which the provider's other doors share.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        let place = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Placed { stream, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its place.
struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
