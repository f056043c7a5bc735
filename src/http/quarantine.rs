//! Mail that is kept aside: who says he wrote what, why it was not let in, and the decision about it.
//!
//! Shown as text alone. A key that is bound to a user shows what concerns him; what concerns nobody is for the admins. Not
//! here: why mail is kept aside, and what releasing it does (`flow::hold`).

use axum::{Json, extract::State, response::Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, Nothing, Parameters, PathId},
    download,
    once::{Answer, Stop},
    openapi::{LevelWord, QuarantineStateWord},
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        evidence::Level,
        ids::{Id as _, MessageKey, UserId},
        quarantine::{Held, Named, QuarantineState},
    },
    flow::{
        self,
        hold::{self, Refusal, Undisputed},
    },
    mail::{
        Address, Message,
        forward::{self, Certainty},
        sanitise::{html_to_text, link_hosts},
    },
    store::{HeldFilter, PageKey, Session},
};

/// Characters of text that are shown of a message in quarantine.
const TEXT_CHARS_MAX: usize = 20_000;
/// Hosts of links shown.
const LINKS_MAX: usize = 50;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(raw))
        .routes(routes!(release))
        .routes(routes!(reject))
        .routes(routes!(disown))
}

#[derive(Serialize, ToSchema)]
#[schema(as = QuarantinedMessage)]
struct HeldView {
    /// The key it has as a message, once it is released.
    #[schema(value_type = String)]
    id: MessageKey,
    #[schema(value_type = QuarantineStateWord)]
    state: QuarantineState,
    /// How far its sender is believed: `e0` not at all, `e1` he names a user and proves nothing, `e2` with a doubt left.
    #[schema(value_type = Option<LevelWord>)]
    level: Option<Level>,
    /// A stable word for the rule that kept it aside.
    rule: String,
    /// The reason in plain words.
    reason: String,
    /// The user it concerns; null where it is for the admins alone.
    #[schema(value_type = Option<String>)]
    user_id: Option<UserId>,
    /// Who it says wrote it. Like all that is shown of it, a claim.
    from: Vec<NamedView>,
    to: Vec<NamedView>,
    subject: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    date: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// Unless something is decided about it before, it is deleted then.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<Timestamp>,
    /// Whose key decided, or which rule.
    settled_by: Option<String>,
    /// Its sending route was chosen to be trusted with it.
    is_trusted: bool,
}

#[derive(Serialize, ToSchema)]
struct NamedView {
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
}

impl From<Named> for NamedView {
    fn from(Named { email, name }: Named) -> Self {
        Self { email, name }
    }
}

impl From<Held> for HeldView {
    fn from(held: Held) -> Self {
        let (from, to, subject, date) = held.shown.map_or_else(Default::default, |shown| {
            let people = |list: Vec<Named>| list.into_iter().map(NamedView::from).collect();
            (people(shown.from), people(shown.to), shown.subject, shown.date)
        });
        Self {
            id: held.id,
            state: held.state,
            level: held.level,
            rule: held.rule,
            reason: held.reason,
            user_id: held.user,
            from,
            to,
            subject,
            date,
            received_at: held.received_at,
            expires_at: held.expires_at,
            settled_at: held.settled_at,
            settled_by: held.settled_by,
            is_trusted: held.is_trusted,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// When left out, all that nothing was decided about.
    #[param(value_type = Option<QuarantineStateWord>)]
    state: Option<QuarantineState>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// List the mail that is kept aside, newest first. A key that is bound to a user lists what concerns that user.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/quarantine", tag = "quarantine", operation_id = "list_quarantine",
    params(Listing), responses((status = 200, body = List<HeldView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<HeldView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let mut session = access.read(&api).await?;
    let user = concerned(&access, &mut session).await?;
    let rows = session.quarantine(&page, HeldFilter { state: query.state, user }).await?;
    let key = |row: &Held| PageKey { at: row.received_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, HeldView::from))
}

#[derive(Serialize, ToSchema)]
#[schema(as = QuarantinedText)]
struct HeldTextView {
    #[serde(flatten)]
    held: HeldView,
    /// The beginning of its text, with neither HTML nor attachments; null once something was decided.
    text: Option<String>,
    /// What its HTML shows, where that is not what the text says: released, this is what is seen.
    html_text: Option<String>,
    /// Hosts that its HTML links to, whatever the links say; 50 at most.
    link_hosts: Vec<String>,
    /// Of mail that a user passed on, the author as whose it may be filed.
    forwarded_from: Option<String>,
}

impl HeldTextView {
    fn read(held: Held, raw: &[u8]) -> Self {
        let message = Message::parse(raw);
        // Links stand in brackets.
        let words = |text: &str| {
            text.replace(['[', ']'], "").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let (text, html) = (message.readable_text(), message.html.as_deref().map(html_to_text));
        let says_else = |html: &String| text.as_deref().is_none_or(|text| words(text) != words(html));
        // A stranger's mail stays his own.
        let is_users = held.level > Some(Level::E0) && held.user.is_some();
        let forwarded =
            forward::read(&message, raw).filter(|found| is_users && found.certainty > Certainty::Low);
        let cut = |text: String| text.chars().take(TEXT_CHARS_MAX).collect();
        Self {
            held: held.into(),
            html_text: html.filter(says_else).map(cut),
            text: text.map(cut),
            link_hosts: message
                .html
                .as_deref()
                .map(link_hosts)
                .into_iter()
                .flatten()
                .take(LINKS_MAX)
                .collect(),
            forwarded_from: forwarded
                .and_then(|found| found.from?.address)
                .map(|address| address.to_string()),
        }
    }
}

/// Show mail that is kept aside, with its text.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/quarantine/{id}", tag = "quarantine", operation_id = "get_quarantined",
    responses((status = 200, body = HeldTextView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
) -> Result<Json<HeldTextView>, Problem> {
    let mut session = access.read(&api).await?;
    let held = find(&access, &mut session, id).await?;
    if !held.is_open() {
        let nothing = HeldTextView {
            held: held.into(),
            text: None,
            html_text: None,
            link_hosts: Vec::new(),
            forwarded_from: None,
        };
        return Ok(Json(nothing));
    }
    // Whoever waits for his turn keeps no connection from others.
    drop(session);
    let _place = api.readers.wait(access.workspace).await?;
    let raw = access.read(&api).await?.inbound(id).await?.raw;
    let read = tokio::task::spawn_blocking(move || HeldTextView::read(held, &raw));
    Ok(Json(read.await.map_err(|_| Problem::internal())?))
}

/// The exact bytes of mail that is kept aside, for whoever is to find out what is wrong with it. Never shown by a browser.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/quarantine/{id}/raw", tag = "quarantine",
    operation_id = "get_raw_quarantined",
    responses((status = 200, body = String, content_type = "message/rfc822")))]
async fn raw(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
) -> Result<Response, Problem> {
    let held = find(&access, &mut access.read(&api).await?, id).await?;
    if !held.is_open() {
        return Err(Problem::not_found());
    }
    let place = api.downloads.wait(access.workspace).await?;
    let bytes = access.read(&api).await?.inbound(id).await?.raw;
    Ok(download::message_file(id, bytes, Some(place)))
}

/// The user to whom alone the caller's key shows what it shows; `None` shows everything.
async fn concerned(access: &Access, session: &mut Session) -> Result<Option<UserId>, Problem> {
    match access.bound_to() {
        Some(user) if !access.is_admin() && !flow::is_admin(session, user).await? => Ok(Some(user)),
        _ => Ok(None),
    }
}

async fn find(access: &Access, session: &mut Session, id: MessageKey) -> Result<Held, Problem> {
    let user = concerned(access, session).await?;
    let held = session.held(id).await?.filter(|held| user.is_none() || held.user == user);
    held.ok_or_else(Problem::not_found)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Releasing {
    /// Let in from now on, for 180 days, what comes from this user's address by the same way.
    #[serde(default)]
    trust: bool,
}

/// Let in mail that was kept aside. It is filed as if that had been done when it came.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/quarantine/{id}/release", tag = "quarantine",
    operation_id = "release_quarantined", request_body = Option<Releasing>, responses((status = 200, body = HeldView)))]
async fn release(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
    input: Input<Releasing>,
) -> Result<Response, Stop> {
    find(&access, &mut access.read(&api).await?, id).await?;
    let mut work = input.stamp.begin(&api, &access).await?;
    let by = access.name();
    let released = hold::release(&mut work, id, (&by, input.value.trust), flow::now()).await?;
    let held = released.map_err(refused)?;
    work.finish(Answer::ok(&HeldView::from(held))).await
}

/// Delete mail that was kept aside. That it came, and who deleted it, stays known.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/quarantine/{id}/reject", tag = "quarantine",
    operation_id = "reject_quarantined", responses((status = 200, body = HeldView)))]
async fn reject(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    find(&access, &mut access.read(&api).await?, id).await?;
    let mut work = input.stamp.begin(&api, &access).await?;
    let held = hold::reject(&mut work, id, &access.name(), flow::now()).await?.map_err(refused)?;
    work.finish(Answer::ok(&HeldView::from(held))).await
}

/// Say that a message filed with a doubt left is not the user's. It is deleted, with the contacts and the conversation that it
/// made, and what sent it is believed no more than before.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/messages/{id}/disown", tag = "quarantine",
    operation_id = "disown_message", responses((status = 200, body = HeldView)))]
async fn disown(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    // The same request again is answered as it was, though the message is gone.
    input.stamp.require_new(&api, &access).await?;
    let mut session = access.read(&api).await?;
    let message = session.message(id).await?.ok_or_else(Problem::not_found)?;
    // Of others' mail, and of what contacts sent themselves, nobody says that it is not theirs but the admins.
    if concerned(&access, &mut session).await?.is_some_and(|user| message.sender().0 != Some(user)) {
        return Err(Problem::not_found().into());
    }
    drop(session);
    let mut work = input.stamp.begin(&api, &access).await?;
    let disowned = hold::disown(&mut work, id, &access.name(), flow::now()).await?;
    let held = disowned.map_err(|Undisputed::NotInDoubt| {
        let detail = "Something proves who sent it, or it was seen elsewhere too.";
        Problem::conflict("not_in_doubt", detail, "Delete it where it was sent from.")
    })?;
    work.finish(Answer::ok(&HeldView::from(held))).await
}

/// Who decides, as it is written down.
fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Settled(state) => {
            let detail = match state {
                QuarantineState::Released => "It was released.",
                QuarantineState::Expired => "Nobody decided about it in time, and it was deleted.",
                _ => "It was rejected, and nothing is left of it.",
            };
            Problem::conflict("already_decided", detail, "Nothing is to be done.")
        }
        Refusal::NothingToTrust => Problem::conflict(
            "nothing_to_trust",
            "There is nothing by which mail of this kind could be known again.",
            "Release it without \"trust\".",
        ),
    }
}
