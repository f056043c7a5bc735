//! Messages, and the exact bytes they came in.
//!
//! Not here: sending one (`send`), its attachments (`attachments`), and how it is shown (`message_view`).

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Api,
    access::Access,
    attachments::disposition,
    body::PathId,
    download::{self, SMALL_BYTES_MAX},
    message_view::{MessageView, Reader},
    problem::Problem,
};
use crate::{
    core::{
        ids::{MessageKey, WorkspaceId},
        message::StoredMessage,
    },
    store::{self, InboundState, Session},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(raw))
}

/// The message with this id, or the one that it turned out to be a copy of after a listener had accepted it.
pub(super) async fn find(session: &mut Session, id: MessageKey) -> Result<StoredMessage, Problem> {
    if let Some(message) = session.message(id).await? {
        return Ok(message);
    }
    let taken = session.inbound_head(id).await?.ok_or_else(Problem::not_found)?;
    let became = taken.message.ok_or_else(|| unfiled(taken.state))?;
    session.message(became).await?.ok_or_else(Problem::not_found)
}

/// What to say of a message that a listener has accepted and that is no part of a conversation, or not yet.
fn unfiled(state: InboundState) -> Problem {
    match state {
        InboundState::Pending | InboundState::Filed => Problem::not_found()
            .detail("The message has been accepted and is being filed.")
            .advice("Ask again in a moment, or wait for its event."),
        InboundState::Held | InboundState::Dropped => Problem::not_found()
            .detail("The message has been accepted and is in no conversation.")
            .advice("GET …/decisions says why."),
    }
}

/// The bytes of a blob. Nobody's connection to the database waits while they are opened.
pub(super) async fn content(api: &Api, workspace: WorkspaceId, blob: Uuid) -> Result<Bytes, store::Error> {
    let sealed = api.store().read(workspace).await?.sealed_content(blob).await?;
    sealed.open().await
}

/// Show a message.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/messages/{id}", tag = "messages", operation_id = "get_message",
    responses((status = 200, body = MessageView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
) -> Result<Json<MessageView>, Problem> {
    let mut session = access.read(&api).await?;
    let message = find(&mut session, id).await?;
    Ok(Json(Reader::new(&api, session).one(message).await?))
}

/// The exact bytes of a message.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/messages/{id}/raw", tag = "messages",
    operation_id = "get_raw_message",
    responses((status = 200, body = String, content_type = "message/rfc822")))]
async fn raw(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
) -> Result<Response, Problem> {
    let message = find(&mut access.read(&api).await?, id).await?;
    let place = match message.size > SMALL_BYTES_MAX {
        true => Some(api.downloads.wait(access.workspace).await?),
        false => None,
    };
    let bytes = content(&api, access.workspace, message.blob).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("message/rfc822"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&format!("{}.eml", message.id)));
    Ok(download::answer(headers, bytes, place))
}
