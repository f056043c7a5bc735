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
    download::{self, SMALL_BYTES_MAX},
    messages,
    problem::Problem,
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
/// The name of a file that has none.
const NAMELESS: &str = "attachment";

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
    let message = messages::find(&mut access.read(&api).await?, id).await?;
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
    let raw = messages::content(&api, access.workspace, message.blob).await?;
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
    use super::*;

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

    #[test]
    fn what_could_run_is_told_as_octets() {
        for kind in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "nonsense", ""]
        {
            assert_eq!(told_type(kind), OCTETS, "{kind}");
        }
        assert_eq!(told_type("IMAGE/PNG"), "image/png");
    }
}
