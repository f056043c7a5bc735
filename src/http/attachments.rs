//! Attachments, as files to be saved: never shown by a browser in the gateway's name.
//!
//! Not here: cutting them out of a message (`mail::Message`).

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{self, PathId},
    download::{self, NAMELESS, SMALL_BYTES_MAX, disposition},
    problem::Problem,
    stored_message,
};
use crate::{
    core::ids::{AttachmentId, MessageKey},
    mail::Message,
};

/// Types that hold no script and are told truly; everything else is told as octets.
const SAFE_TYPES: [&str; 17] = [
    "application/pdf",
    "application/zip",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/calendar",
    "text/csv",
    "text/plain",
    "video/mp4",
    "video/webm",
];
const OCTETS: &str = "application/octet-stream";

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(download))
}

/// The `{attachment}` of a path.
struct PathAttachment(AttachmentId);

impl<S: Send + Sync> FromRequestParts<S> for PathAttachment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        body::path_param(parts, state, "attachment").await.map(Self)
    }
}

/// An attachment's content.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/messages/{id}/attachments/{attachment}", tag = "messages",
    operation_id = "get_attachment",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
async fn download(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<MessageKey>,
    PathAttachment(attachment): PathAttachment,
) -> Result<Response, Problem> {
    let message = stored_message::find(&mut access.read(&api).await?, id).await?;
    let found = message.attachments.into_iter().find(|summary| summary.id == attachment);
    let summary = found.ok_or_else(Problem::not_found)?;
    if summary.skipped.is_some() {
        return Err(Problem::not_found()
            .code("attachment_skipped")
            .detail("Policy kept this attachment out of the CRM.")
            .advice("Ask the user for it: the mail in his own mailbox has it."));
    }
    let place = match summary.size > SMALL_BYTES_MAX {
        true => Some(api.downloads.wait(access.workspace).await?),
        false => None,
    };
    let reading = api.readers.wait(access.workspace).await?;
    let raw = stored_message::content(&api, access.workspace, message.blob).await?;
    let index = usize::try_from(summary.index).map_err(|_| Problem::internal())?;
    let content = tokio::task::spawn_blocking(move || {
        let content = Message::attachment_bytes(&raw, index);
        // Given back when the work ends, also when nobody waits for it any more.
        drop((raw, reading));
        content
    });
    let content = content.await;
    let content = content.map_err(|_| Problem::internal())?.ok_or_else(Problem::not_found)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(told_type(&summary.content_type)));
    headers.insert(header::CONTENT_DISPOSITION, disposition(summary.filename.as_deref().unwrap_or(NAMELESS)));
    Ok(download::answer(headers, content, place))
}

fn told_type(content_type: &str) -> &'static str {
    SAFE_TYPES.iter().find(|safe| content_type.eq_ignore_ascii_case(safe)).copied().unwrap_or(OCTETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_run_is_told_as_octets() {
        for kind in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "nonsense", ""]
        {
            assert_eq!(told_type(kind), OCTETS, "{kind}");
        }
        assert_eq!(told_type("IMAGE/PNG"), "image/png");
    }
}
