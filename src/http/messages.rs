//! Messages, and the exact bytes they came in.
//!
//! Not here: sending one (`send`), its attachments (`attachments`), and how it is shown (`message_view`).

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    attachments::disposition,
    body::PathId,
    message_view::{MessageView, Reader},
    problem::Problem,
};
use crate::{
    core::{ids::MessageKey, message::StoredMessage},
    store::Session,
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(raw))
}

/// The message with this id, or the one that it turned out to be a copy of after a listener had accepted it.
pub(super) async fn find(session: &mut Session, id: MessageKey) -> Result<StoredMessage, Problem> {
    if let Some(message) = session.message(id).await? {
        return Ok(message);
    }
    let became =
        session.inbound_head(id).await?.and_then(|head| head.message).ok_or_else(Problem::not_found)?;
    session.message(became).await?.ok_or_else(Problem::not_found)
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
    Ok(Json(Reader::new(&api, &mut session).one(message).await?))
}

/// The exact bytes of a message.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/messages/{id}/raw", tag = "messages",
    operation_id = "get_raw_message",
    responses((status = 200, body = String, content_type = "message/rfc822")))]
async fn raw(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
) -> Result<impl IntoResponse, Problem> {
    let mut session = access.read(&api).await?;
    let message = find(&mut session, id).await?;
    let bytes = session.blob(message.blob).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("message/rfc822"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&format!("{}.eml", message.id)));
    Ok((headers, bytes))
}
