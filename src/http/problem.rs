//! Refusals of the API: one type, shown as RFC 9457 `application/problem+json`.
//!
//! Not here: deciding to refuse. A problem names the fault, the field at fault and what the caller can do about it.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    flow::FlowError,
    store::{self},
};

/// What the type member begins with; the code follows.
const TYPE_PREFIX: &str = "urn:mailweave:problem:";
/// Seconds after which what the store refused now may be asked for again.
const STORE_RETRY_SECONDS: u32 = 5;

/// Why a request is refused.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// A stable word for programs.
    pub(super) code: &'static str,
    pub(super) detail: Cow<'static, str>,
    /// The field at fault, as a path: `attachments[0].content`.
    pub(super) param: Option<String>,
    /// What the caller can do about it.
    pub(super) advice: Cow<'static, str>,
    pub(super) retry_after: Option<u32>,
}

/// How a problem looks on the wire (RFC 9457 section 3.1, and four members of ours).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    #[serde(rename = "type")]
    #[schema(example = "urn:mailweave:problem:invalid")]
    kind: String,
    title: String,
    status: u16,
    #[schema(example = "invalid")]
    code: String,
    detail: String,
    /// The field at fault, as a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    /// What you can do about it.
    advice: String,
    request_id: String,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, detail: detail.into(), param: None, advice: advice.into(), retry_after: None }
    }

    /// A field holds what cannot be taken.
    pub(super) fn invalid(param: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        let advice = "Correct the field and send the request again.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, advice).at(param)
    }

    /// The one answer for what does not exist, belongs to somebody else, or is no id at all.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "There is no such resource.",
            "Check the path and its ids, and that the key belongs to this workspace.",
        )
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The request carries no key that is in force.",
            "Send \"Authorization: Bearer KEY\" with a key of this workspace.",
        )
    }

    pub(super) fn forbidden(
        detail: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail, advice)
    }

    pub(super) fn conflict(
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail, advice)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("The body is larger than {bytes_max} bytes."),
            "Send less in one request.",
        )
    }

    /// Our fault. What happened is in the log, under the request's id.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The gateway made a mistake.",
            "Report it with the request_id; trying again may help.",
        )
    }

    pub(super) fn unavailable() -> Self {
        let advice = "Try again in a few seconds.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The store cannot take this now.", advice)
            .after(STORE_RETRY_SECONDS)
    }

    /// A limit is reached.
    pub(super) fn limited(detail: impl Into<Cow<'static, str>>, seconds: u32) -> Self {
        let advice = "Wait as long as Retry-After says.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "limit_reached", detail, advice).after(seconds)
    }

    #[must_use]
    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    #[must_use]
    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub(super) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    #[must_use]
    pub(super) fn advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = advice.into();
        self
    }

    #[must_use]
    pub(super) fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The body, once the request's id is known.
    pub(super) fn render(&self, request_id: &str) -> Vec<u8> {
        let body = ProblemBody {
            kind: format!("{TYPE_PREFIX}{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.to_string(),
            param: self.param.clone(),
            advice: self.advice.to_string(),
            request_id: request_id.to_owned(),
        };
        serde_json::to_vec(&body).expect("texts and numbers serialise")
    }
}

/// Without a body yet: whoever knows the request's id writes it (`observe`).
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Conflict { what } => taken(what),
            store::Error::Missing => Self::not_found(),
            store::Error::Corrupt(_) => {
                tracing::error!(error = %error, "stored data is unreadable");
                Self::internal()
            }
            store::Error::Fenced
            | store::Error::Unavailable(_)
            | store::Error::Full
            | store::Error::Failed => {
                tracing::warn!(error = %error, "a request met a store that could not serve it");
                Self::unavailable()
            }
        }
    }
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Store(error) => error.into(),
            FlowError::Obsolete => Self::not_found(),
            FlowError::Raced => Self::unavailable(),
        }
    }
}

/// A unique constraint in the words of the API.
fn taken(constraint: &str) -> Problem {
    let (code, param, detail) = match constraint {
        "workspaces_slug_unique" => ("slug_taken", "slug", "Another workspace has this slug."),
        "user_addresses_pkey" => ("email_taken", "email", "Another user has this address."),
        "accounts_email_unique" => ("email_taken", "email", "An account with this address exists."),
        "contacts_external_id_unique" => {
            ("external_id_taken", "external_id", "Another contact has this external id.")
        }
        _ => {
            let advice = "Read the resource and decide again.";
            return Problem::conflict("conflict", "Something like this exists.", advice);
        }
    };
    Problem::conflict(code, detail, "Use another value, or change the one that exists.").at(param)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_the_contract() {
        let rendered = Problem::invalid("attachments[0].content", "It is not base64.").render("req_1");
        let body: serde_json::Value = serde_json::from_slice(&rendered).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:mailweave:problem:invalid",
                "title": "Unprocessable Entity",
                "status": 422,
                "code": "invalid",
                "detail": "It is not base64.",
                "param": "attachments[0].content",
                "advice": "Correct the field and send the request again.",
                "request_id": "req_1",
            })
        );
    }

    #[track_caller]
    fn check(constraint: &'static str, code: &str, param: Option<&str>) {
        let problem = Problem::from(store::Error::Conflict { what: constraint });
        assert_eq!(
            (problem.status, problem.code, problem.param.as_deref()),
            (StatusCode::CONFLICT, code, param)
        );
    }

    #[test]
    fn a_taken_name_says_which_field_holds_it() {
        check("workspaces_slug_unique", "slug_taken", Some("slug"));
        check("user_addresses_pkey", "email_taken", Some("email"));
        check("accounts_email_unique", "email_taken", Some("email"));
        check("contacts_external_id_unique", "external_id_taken", Some("external_id"));
        check("routes_pkey", "conflict", None);
    }

    #[test]
    fn a_store_out_of_reach_is_503_and_says_when_to_come_back() {
        for error in [store::Error::Full, store::Error::Failed, store::Error::Fenced] {
            let problem = Problem::from(error);
            assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(problem.retry_after.is_some());
        }
    }
}
