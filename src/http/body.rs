//! Reads what callers send: JSON bodies, query strings and ids in paths, each with the field named that is wrong.
//!
//! Not here: what the fields mean. Bodies are bounded in octets by the route and in depth for all; unknown fields are refused.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::{Api, access::Permit, once::Stamp, places::Place, problem::Problem, route::BODY_BYTES_MAX};

/// Objects and lists within each other; ours have four.
const DEPTH_MAX: usize = 64;
/// Larger bodies are parsed on a thread of their own.
const PARSED_HERE_BYTES_MAX: usize = 256 * 1024;
/// How long a body may pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Octets a second that a body brings on the whole, and how long it may be slower.
const RATE_MIN: u64 = 8 * 1024;
const SLOW_MAX: Duration = Duration::from_secs(30);
/// The same of a large body while other large ones wait for a place: 50 MiB then take under four minutes, and a handful of
/// slow connections deny nobody else's.
const RATE_MIN_WANTED: u64 = 256 * 1024;
/// How often it is looked whether any do; several times while one waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much more of a body that is too large is read before it is answered, in octets, and how long that may take.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(10);
/// Who sends nothing for this long listens.
const LINGER_PAUSE: Duration = Duration::from_secs(2);
/// Longest query string, in octets.
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// A JSON body, and what makes the same request recognisable when it comes again.
pub(super) struct Input<T> {
    pub(super) value: T,
    pub(super) stamp: Stamp,
    /// Of a large body, until the request is served.
    _place: Option<Place>,
}

/// The body of a request that says all in its path: none, or an empty object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Api> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let (bytes, place) = read(api, &parts, body).await?;
        let stamp = Stamp::of(&parts, &bytes)?;
        // A request that says nothing needs no body.
        if bytes.is_empty() {
            return Ok(Self { value: from_slice(b"{}")?, stamp, _place: place });
        }
        require_type(&parts.headers, "application/json")?;
        if bytes.len() <= PARSED_HERE_BYTES_MAX {
            return Ok(Self { value: from_slice(&bytes)?, stamp, _place: place });
        }
        // Long enough to hold up everything else on this thread.
        let value = tokio::task::spawn_blocking(move || from_slice(&bytes)).await;
        Ok(Self { value: value.map_err(|_| Problem::internal())??, stamp, _place: place })
    }
}

/// The lines of an NDJSON body, unread.
pub(super) struct Lines {
    pub(super) bytes: Bytes,
    pub(super) stamp: Stamp,
    /// Of a large body, until the request is served.
    _place: Option<Place>,
}

impl FromRequest<Api> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        require_type(&parts.headers, "application/x-ndjson")?;
        let (bytes, place) = read(api, &parts, body).await?;
        let stamp = Stamp::of(&parts, &bytes)?;
        Ok(Self { bytes, stamp, _place: place })
    }
}

/// Reads a body of at most as many octets as the route takes. A large one is held whole, and needs a place before it is.
async fn read(api: &Api, parts: &Parts, body: Body) -> Result<(Bytes, Option<Place>), Problem> {
    let permit = Permit::of(parts)?;
    let bytes_max = permit.route.body_bytes_max;
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or_default();
    let mut chunks = body.into_data_stream();
    if declared > bytes_max {
        discard(chunks, bytes_max + LINGER_BYTES_MAX).await;
        return Err(Problem::too_large(bytes_max));
    }
    let (mut bytes, mut place, mut length) = (Vec::new(), None, declared);
    let started = Instant::now();
    loop {
        if length > BODY_BYTES_MAX && place.is_none() {
            place = match wait_for_place(api, permit).await {
                Ok(place) => Some(place),
                Err(problem) => {
                    discard(chunks, LINGER_BYTES_MAX).await;
                    return Err(problem);
                }
            };
            bytes.reserve_exact(length - bytes.len());
        }
        let Some(chunk) = next(&mut chunks, (bytes.len(), started), place.as_ref()).await? else { break };
        if bytes.len() + chunk.len() > bytes_max {
            drop(bytes);
            discard(chunks, LINGER_BYTES_MAX).await;
            return Err(Problem::too_large(bytes_max));
        }
        bytes.extend_from_slice(&chunk);
        length = length.max(bytes.len());
    }
    Ok((bytes.into(), place))
}

async fn wait_for_place(api: &Api, permit: Permit) -> Result<Place, Problem> {
    api.uploads.wait(permit.workspace().ok_or_else(Problem::internal)?).await
}

/// The next piece of a body that has brought so many octets since it began; `None` at its end.
async fn next(
    chunks: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    (received, started): (usize, Instant),
    place: Option<&Place>,
) -> Result<Option<Bytes>, Problem> {
    let paused = Instant::now();
    loop {
        let rate = if place.is_some_and(Place::is_wanted) { RATE_MIN_WANTED } else { RATE_MIN };
        let earned = Duration::from_secs(received as u64 / rate);
        let late = (SLOW_MAX + earned).saturating_sub(started.elapsed());
        let left = late.min(PAUSE_MAX.saturating_sub(paused.elapsed()));
        match timeout(left.min(LOOK_EVERY), chunks.next()).await {
            Ok(chunk) => return chunk.transpose().map_err(|_| incomplete()),
            Err(_) if left <= LOOK_EVERY => return Err(incomplete()),
            Err(_) => {}
        }
    }
}

fn incomplete() -> Problem {
    let advice = "Send it again.";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_incomplete", "The body did not come whole.", advice)
}

/// Reads on and forgets: who still sends when the connection is closed often never sees the answer.
async fn discard(mut chunks: BodyDataStream, bytes_max: usize) {
    let reading = async {
        let mut left = bytes_max;
        while let Ok(Some(Ok(chunk))) = timeout(LINGER_PAUSE, chunks.next()).await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Late or not, the answer is the same.
    drop(timeout(LINGER, reading).await);
}

/// Browsers send forms and plain text across sites without asking; they do not send our types.
fn require_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let alias = wanted == "application/x-ndjson"
        && ["application/ndjson", "application/jsonl"]
            .iter()
            .any(|alias| essence.eq_ignore_ascii_case(alias));
    if essence.eq_ignore_ascii_case(wanted) || alias {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("The body must be {wanted}."),
        format!("Send the header \"Content-Type: {wanted}\"."),
    ))
}

/// Reads JSON into a type; the problem names the field.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if is_too_deep(bytes) {
        return Err(Problem::invalid("body", format!("It is nested deeper than {DEPTH_MAX} levels.")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| explain(&error))?;
    reader.end().map_err(|_| Problem::invalid("body", "Something follows the JSON value."))?;
    Ok(value)
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let text = error.inner().to_string();
    // serde_json says where; the path says it better.
    let detail = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    if error.inner().is_syntax() || error.inner().is_eof() {
        return Problem::invalid("body", format!("It is not JSON: {text}.")).code("malformed_json");
    }
    let missing = detail.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = missing {
        let param = if path == "." { field.to_owned() } else { format!("{path}.{field}") };
        return Problem::invalid(param, "The field is missing.");
    }
    let twice = detail.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = twice {
        let param = if path == "." { field.to_owned() } else { path };
        return Problem::invalid(param, "The field is given twice.");
    }
    let param = if path == "." { "body".to_owned() } else { path };
    if detail.starts_with("unknown field") {
        // The names there are come last; before them stands what was sent.
        let known = detail.rsplit_once(", expected ").map(|(_, known)| format!(" Expected {known}."));
        let detail = format!("There is no such field.{}", known.unwrap_or_default());
        return Problem::invalid(param, detail).code("unknown_field");
    }
    Problem::invalid(param, format!("{}.", plain(detail)))
}

/// serde's sentence without the value that was sent: an answer must not quote secrets back.
fn plain(detail: &str) -> String {
    match detail.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") || found.starts_with("unknown variant") => {
            format!("Expected {}", in_words_of_json(expected))
        }
        _ => detail.to_owned(),
    }
}

/// The names of our types tell a caller nothing.
fn in_words_of_json(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i32" | "i64" => "a whole number",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "an object",
        _ if expected.starts_with("struct ") || expected.contains(" tagged enum ") => "an object",
        _ => expected,
    }
}

/// Looks at brackets alone: what is no JSON is found out by the parser, which is not asked when this says yes.
fn is_too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// The query string. A parameter without a value is one that was not given.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        from_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

pub(super) fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Problem::invalid("query", format!("It is longer than {QUERY_BYTES_MAX} octets.")));
    }
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty())
    {
        if value.contains(char::is_control) {
            return Err(Problem::invalid(name, "It holds control characters."));
        }
        if fields.insert(name.clone().into_owned(), Value::String(value.into_owned())).is_some() {
            return Err(Problem::invalid(name, "The parameter is given twice."));
        }
    }
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| explain(&error))
}

/// The `{id}` of a path, or another parameter's text.
pub(super) struct PathId<T>(pub(super) T);

impl<T: std::str::FromStr, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    /// What is no id is answered like an id that nothing has.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_param(parts, state, "id").await.map(Self)
    }
}

/// A parameter of the path, by name.
pub(super) async fn path_param<T: std::str::FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<T, Problem> {
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| Problem::not_found())?;
    let text = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    // No id holds a control character, and not every database takes one.
    let text = text.filter(|text| !text.contains(char::is_control));
    text.and_then(|text| text.parse().ok()).ok_or_else(Problem::not_found)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use serde::Deserialize;

    use super::*;
    use crate::{
        core::ids::{ContactId, WorkspaceId},
        http::{page::Limit, places::Places},
        mail::Address,
        store::mint,
    };

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Letter {
        #[serde(rename = "to")]
        _to: Vec<Person>,
        #[serde(rename = "size", default)]
        _size: Option<u16>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Person {
        #[serde(rename = "email")]
        _email: Address,
    }

    #[track_caller]
    fn check(json: &str, param: &str, code: &str) {
        let problem = from_slice::<Letter>(json.as_bytes()).unwrap_err();
        assert_eq!(
            (problem.param.as_deref(), problem.code),
            (Some(param), code),
            "{json}: {}",
            problem.detail
        );
        assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn the_field_at_fault_is_named() {
        check(r#"{"to":[{"email":"a@b.example"},{"email":"nonsense"}]}"#, "to[1].email", "invalid");
        check(r#"{"to":[{"mail":"a@b.example"}]}"#, "to[0].mail", "unknown_field");
        check(r#"{"to":[],"cc":[]}"#, "cc", "unknown_field");
        check(r#"{"to":[{}]}"#, "to[0].email", "invalid");
        check("{}", "to", "invalid");
        check(r#"{"to":[],"size":-1}"#, "size", "invalid");
        check(r#"{"to":[],"to":[]}"#, "to", "invalid");
        check("[]", "body", "invalid");
        check(r#"{"to":["#, "body", "malformed_json");
        check(r#"{"to":[]} x"#, "body", "invalid");
        check(r#"{"to":[{"email":"a@b.example\r\nRCPT TO:<c@d.example>"}]}"#, "to[0].email", "invalid");
    }

    #[test]
    fn what_was_expected_is_said_in_the_callers_words() {
        for (json, detail) in [
            (r#"{"to":[],"cc":[]}"#, "There is no such field. Expected `to` or `size`."),
            (r#"{"to":[],", expected x":[]}"#, "There is no such field. Expected `to` or `size`."),
            (r#"{"to":[{"mail":"a@b.example"}]}"#, "There is no such field. Expected `email`."),
            (r#"{"to":["a@b.example"]}"#, "Expected an object."),
            ("[]", "Expected an object."),
            (r#"{"to":{}}"#, "Expected a list."),
            (r#"{"to":[],"size":-1}"#, "Expected a whole number from 0 to 65535."),
        ] {
            assert_eq!(from_slice::<Letter>(json.as_bytes()).unwrap_err().detail, detail, "{json}");
        }
        assert_eq!(from_slice::<Nothing>(br#"{"x":1}"#).err().unwrap().detail, "There is no such field.");
    }

    #[test]
    fn an_answer_quotes_no_value_back() {
        let problem = from_slice::<Letter>(br#"{"to":"hunter2"}"#).unwrap_err();
        assert!(!problem.detail.contains("hunter2"), "{}", problem.detail);
    }

    /// How long a large body that brings so many octets a second may go on; `None` when it may for an hour.
    async fn lasts(octets: usize, is_wanted: bool) -> Option<Duration> {
        let places = Places::new(1, 1);
        let place = places.wait(mint::<WorkspaceId>()).await.unwrap();
        let others = tokio::spawn(async move {
            if !is_wanted {
                return;
            }
            loop {
                drop(places.wait(mint::<WorkspaceId>()).await);
            }
        });
        tokio::task::yield_now().await;
        let dripping = stream::unfold((), |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from(vec![b' '; octets])), ()))
        });
        let (mut body, mut received, started) = (Box::pin(dripping), 0, Instant::now());
        while started.elapsed() < Duration::from_secs(3600) {
            match next(&mut body, (received, started), Some(&place)).await {
                Ok(chunk) => received += chunk.unwrap().len(),
                Err(_) => {
                    others.abort();
                    return Some(started.elapsed());
                }
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_keeps_its_place_only_while_nobody_waits_for_one() {
        const KIB: usize = 1024;
        assert_eq!(lasts(16 * KIB, false).await, None);
        assert!(lasts(4 * KIB, false).await.unwrap() < Duration::from_secs(90));
        assert!(lasts(16 * KIB, true).await.unwrap() < Duration::from_secs(40));
        assert_eq!(lasts(512 * KIB, true).await, None);
    }

    #[test]
    fn depth_is_bounded_whatever_stands_in_texts() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(!is_too_deep(deep(DEPTH_MAX).as_bytes()));
        assert!(is_too_deep(deep(DEPTH_MAX + 1).as_bytes()));
        assert!(!is_too_deep(format!("\"{}\"", "[".repeat(1000)).as_bytes()));
        assert!(!is_too_deep(format!("\"\\\"{}\"", "[".repeat(1000)).as_bytes()));
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        #[serde(default)]
        contact_id: Option<ContactId>,
        #[serde(default)]
        limit: Limit,
    }

    #[test]
    fn a_query_is_read_by_the_same_rules() {
        let read: Filter = from_query("contact_id=&limit=7").unwrap();
        assert_eq!(read, Filter { contact_id: None, limit: Limit(7) });
        for (query, param) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=x", "limit"),
            ("contact_id=con_1", "contact_id"),
            ("q=1", "q"),
            ("limit=1&limit=2", "limit"),
            ("contact_id=%00", "contact_id"),
            ("limit=1%0a", "limit"),
        ] {
            assert_eq!(from_query::<Filter>(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
