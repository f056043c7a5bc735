//! Messages, and the exact bytes they came in.
//!
//! Not here: sending one (`send`), its attachments (`attachments`), and how it is shown (`message_view`).

use axum::{Json, extract::State, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::PathId,
    download::{self, SMALL_BYTES_MAX},
    message_view::{MessageView, Reader},
    problem::Problem,
    stored_message::{content, find},
};
use crate::core::ids::MessageKey;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(raw))
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
    Ok(download::message_file(message.id, bytes, place))
}
